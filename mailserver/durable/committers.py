"""
What a committer is, and the two without a journal: one that syncs the files themselves, and one that syncs nothing.

In: `Placed`, files that are visible and not yet durable.  Out: `done(None)` when they are, or `done(error)`; then
whoever gave them takes them away.  A committer syncs everything that waits at the same moment together.
Failures: an fsync that failed is never repeated on its descriptor: Linux reports lost pages once, then forgets them.
fsync(2) commits the names of the file too on the file systems that `files.fsync_brings_names` knows, so there is no
fsync of directories here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime

from mailserver.durable.drafts import NewFile
from mailserver.durable.files import Files, RunInThread
from mailserver.durable.placing import Placed

Done = Callable[[OSError | None], None]
Synced = Callable[[Sequence[OSError | None]], None]


class Syncer(Protocol):
    """Waits for the disk without holding the reactor."""

    def sync(self, descriptors: Sequence[int], synced: Synced, *, data_only: bool) -> None:
        """fsync, or fdatasync, of each; then `synced` is called, on the reactor, with the error or None of each."""

    def stop(self) -> None:
        """No more will come, and none is under way."""


class Committer(Protocol):
    """Makes placed files durable.  keep_open: it needs the descriptors of small files too."""

    keep_open: bool

    def takes(self, files: Sequence[NewFile]) -> bool:
        """Can it make these durable?  What it does not take goes by way of `commit.Commit`."""

    def start(self) -> None:
        """Before the first commit."""

    def commit(self, placed: Placed, done: Done) -> None:
        """Make these durable.  `done` is called once, never before this has returned."""

    def stop(self) -> Deferred[bool]:
        """After the last commit was asked for.  Fires when all are done: is nothing left for a recovery?"""


class ThreadSyncer:
    """A thread does it, one descriptor after the other."""

    def __init__(self, run: RunInThread, files: Files) -> None:
        self._run = run
        self._files = files

    def sync(self, descriptors: Sequence[int], synced: Synced, *, data_only: bool) -> None:
        """See `Syncer`."""
        call = self._files.fdatasync if data_only else self._files.fsync
        self._run(_each, call, tuple(descriptors)).addCallback(synced)

    def stop(self) -> None:
        """Nothing to do."""


def _each(call: Callable[[int], None], descriptors: Sequence[int]) -> list[OSError | None]:
    """In a thread."""
    found: list[OSError | None] = []
    for descriptor in descriptors:
        try:
            call(descriptor)
        except OSError as error:
            found.append(error)
        else:
            found.append(None)
    return found


class FileSync:
    """fsync of each file; all files that wait when the one before is done share the next turn of the disk."""

    keep_open = True

    def __init__(self, syncer: Syncer, clock: IReactorTime) -> None:
        self._syncer = syncer
        self._clock = clock
        self._waiting: list[tuple[Placed, Done]] = []
        self._syncing = False
        self._called = False
        self._stopped: Deferred[bool] | None = None

    def takes(self, files: Sequence[NewFile]) -> bool:  # noqa: ARG002 - it takes them all
        """See `Committer`."""
        return True

    def start(self) -> None:
        """See `Committer`."""

    def commit(self, placed: Placed, done: Done) -> None:
        """See `Committer`."""
        self._waiting.append((placed, done))
        if not self._syncing and not self._called:
            # What else comes in this turn of the reactor shares the sync.
            self._called = True
            self._clock.callLater(0, self._next)

    def stop(self) -> Deferred[bool]:
        """See `Committer`."""
        if not self._syncing and not self._waiting:
            self._syncer.stop()
            return succeed(True)
        self._stopped = Deferred()
        return self._stopped

    def _next(self) -> None:
        self._called = False
        if self._syncing or not self._waiting:
            return
        batch, self._waiting = self._waiting, []
        self._syncing = True
        descriptors = [descriptor for placed, _ in batch for descriptor in placed.open]

        def synced(errors: Sequence[OSError | None]) -> None:
            at = 0
            for placed, done in batch:
                own = errors[at : at + len(placed.open)]
                at += len(placed.open)
                placed.close()
                done(next((error for error in own if error is not None), None))
            self._syncing = False
            self._next()
            if self._stopped is not None and not self._syncing:
                self._syncer.stop()
                self._stopped.callback(True)

        self._syncer.sync(descriptors, synced, data_only=False)


class NoSync:
    """`durability = "none"`: says yes and leaves it to the kernel.  A power cut loses what was acknowledged."""

    keep_open = False

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock

    def takes(self, files: Sequence[NewFile]) -> bool:  # noqa: ARG002 - it takes them all
        """See `Committer`."""
        return True

    def start(self) -> None:
        """See `Committer`."""

    def commit(self, placed: Placed, done: Done) -> None:
        """See `Committer`."""
        placed.close()
        self._clock.callLater(0, done, None)

    def stop(self) -> Deferred[bool]:
        """See `Committer`."""
        return succeed(True)
