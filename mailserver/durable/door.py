"""
The door to the disk: drafts, and `create`.

In: drafts, written block by block, and the names that they shall get.
Out: a Deferred; when it fires, all these files exist with these contents after a power cut.  When it fails, with the
OSError itself, none of them is visible and no temporary file is left.
With a committer the files are put in their places at once and made durable together with all that wait; what that
cannot do, and everything where there is no committer, is one job in a thread (`commit`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, fail

from mailserver.durable.commit import Commit, take_away
from mailserver.durable.committers import Committer
from mailserver.durable.drafts import MEMORY, Draft, NewFile, Pace, Tools, alone, shielded
from mailserver.durable.files import FILES, Files, Layout, RunInThread
from mailserver.durable.placing import NotAtOnce, Placed, place

NONE_FAILED: Mapping[str, OSError] = {}


class Durable(Service):
    """
    The door to the disk.  As a service it lets the work under way end before it stops.

    run_in_thread: see `RunInThread`.  unique_name: the name of the next temporary file; it is never given twice.
    files: the calls to the operating system.  memory: octets of a draft that wait in memory.
    committer: makes placed files durable; None: every commit is a job in a thread.  pace: see `Pace`, goes with an
    committer.
    """

    def __init__(
        self,
        *,
        run_in_thread: RunInThread,
        unique_name: Callable[[], str],
        files: Files = FILES,
        memory: int = MEMORY,
        committer: Committer | None = None,
        pace: Pace | None = None,
    ) -> None:
        self._run_in_thread = run_in_thread
        self.committer = committer
        #: st_dev of the file system that the committer syncs; 0: whichever it is.
        self.device = 0
        self._tools = Tools(files, self.run, unique_name, memory, pace, lambda: self.device)
        self._running = 0
        self._idle: list[Deferred[None]] = []

    def draft(self, directory: str, layout: Layout = alone, *, others: Sequence[str] = ()) -> Draft:
        """
        A file that nobody sees yet, to be written below `directory` (a Maildir's `tmp`); nothing is on the disk yet.
        layout: which directories to make when one is missing (a Maildir's three); by default that one alone.  Missing
        parents are made too.  others: directories that will do as well, when that one cannot be had.
        """
        return Draft(directory, layout, self._tools, others)

    def create(self, files: Sequence[NewFile], *, partial: bool = False) -> Deferred[Mapping[str, OSError]]:
        """
        When it fires, all these files exist with these contents after a power cut.
        Fails with OSError; then none of them is visible.  The drafts are used up either way.
        partial: places that cannot be had, as their directory is damaged, are left out; they are the result, each
        with its error; with none left it fails.  Else the result is empty.
        """
        for file in files:
            if (obstacle := file.draft.obstacle()) is not None:
                for each in files:
                    each.draft.abort()
                return fail(obstacle)
        for file in files:
            file.draft.hand_over()
        committer = self.committer
        if committer is not None and committer.takes(files):
            try:
                placed = place(files, self._tools, keep_open=committer.keep_open, partial=partial)
            except NotAtOnce:
                pass
            except OSError as error:
                for file in files:
                    if file.draft.temporary is not None:
                        self.run(file.draft.discard)
                return fail(error)
            else:
                return self._engage(committer, placed)
        return shielded(self.run(Commit(files, self._tools, partial=partial).run))

    def take_away(self, places: Sequence[str]) -> None:
        """
        Remove files that were created a moment ago, and are refused after all.  Should the power go now, they may be
        there again, whole.  One that a reader has moved already stays.
        """
        take_away(places, self._tools)

    def _engage(self, committer: Committer, placed: Placed) -> Deferred[Mapping[str, OSError]]:
        told: Deferred[Mapping[str, OSError]] = Deferred()
        self._running += 1

        def done(error: OSError | None) -> None:
            if error is None:
                told.callback(placed.failed or NONE_FAILED)
            else:
                placed.undo()
                told.errback(error)
            self._ran(None)

        committer.commit(placed, done)
        return told

    def stopService(self) -> Deferred[None] | None:
        """Wait for the jobs that are running, and the removals they lead to."""
        super().stopService()
        if not self._running:
            return None
        idle: Deferred[None] = Deferred()
        self._idle.append(idle)
        return idle

    def run(
        self, job: Callable[..., Any], *arguments: object, ended: Callable[[Any], Any] | None = None
    ) -> Deferred[Any]:
        """
        Run something in a thread, and let it end before the service stops.
        ended: called with the result, or the Failure, before the job counts as over; it may run another one.
        """
        work = self._run_in_thread(job, *arguments)
        self._running += 1
        if ended is not None:
            work.addBoth(ended)
        return work.addBoth(self._ran)

    def _ran(self, result: Any) -> Any:
        self._running -= 1
        if not self._running and self._idle:
            idle, self._idle = self._idle, []
            for waiter in idle:
                waiter.callback(None)
        return result
