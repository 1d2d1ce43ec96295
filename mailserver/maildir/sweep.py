"""
At start: remove what deliveries that never ended have left in the tmp/ of Maildirs.

In: the mail root, whose mailboxes are root/<domain>/<mailbox>.  Out: how many files were removed.
A file goes when nobody has touched it for 36 hours (the Maildir specification's rule), or at once when its name says
that a process of this host made it that is not running.  Only plain files go; symbolic links are neither followed nor
removed.  The work is done in a thread, a bounded number of entries at a time.

Maildir: https://cr.yp.to/proto/maildir.html, "Can a delivery be interrupted?"
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from mailserver.durable import RunInThread
from mailserver.maildir.names import UniqueNames

#: Seconds after which a file in tmp/ is a leftover: 36 hours.
LEFTOVER_AGE = 36 * 3600.0
#: Directory entries looked at in one job: some 10 ms, so that deliveries do not wait for a thread.
SLICE = 1_000

_log = Logger()


def is_running(pid: int) -> bool:
    """Does this process exist?  (That it is another one by now cannot be told: then the 36 hours count.)"""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    # One that was killed and not yet waited for has a number still, and does nothing any more.
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return True  # no /proc, or it ended just now
    return stat.rpartition(b")")[2].split()[:1] not in ([b"Z"], [b"X"])


@dataclass(frozen=True)
class Sweep:
    """
    root: the directory above the domains.  names: those that this process gives.  seconds: the time since 1970.
    run_in_thread: see `mailserver.durable.RunInThread`.  running: tells whether a process exists.
    """

    root: Path
    names: UniqueNames
    seconds: Callable[[], float]
    run_in_thread: RunInThread
    running: Callable[[int], bool] = is_running

    def start(self) -> Deferred[int]:
        """
        Sweep; fires with the number of files removed.  Cancel it to stop after the slice under way.
        What cannot be read or removed is logged and left.
        """
        return Deferred.fromCoroutine(self._run())

    async def _run(self) -> int:
        removed, looks = 0, self._looks()
        while True:
            found: list[bool] = await self.run_in_thread(list, islice(looks, SLICE))
            removed += sum(found)
            if len(found) < SLICE:
                return removed

    def _looks(self) -> Iterator[bool]:
        """One item for each directory entry that is looked at: was it removed?"""
        for domain in _entries(str(self.root)):
            yield False
            if _is_directory(domain):
                for mailbox in _entries(domain.path):
                    yield False
                    if _is_directory(mailbox):
                        yield from self._clean_mailbox(mailbox.path)

    def _clean_mailbox(self, path: str) -> Iterator[bool]:
        for entry in _entries(path):
            yield False
            if not _is_directory(entry):
                continue
            if entry.name == "tmp":
                yield from self._clean(entry.path)
            elif entry.name.startswith("."):  # a folder of Maildir++
                for inner in _entries(entry.path):
                    yield False
                    if inner.name == "tmp" and _is_directory(inner):
                        yield from self._clean(inner.path)

    def _clean(self, directory: str) -> Iterator[bool]:
        for entry in _entries(directory):
            try:
                leftover = self._is_leftover(entry)
                if leftover:
                    os.unlink(entry.path)
            except FileNotFoundError:
                leftover = False  # its delivery has just ended
            except OSError as error:
                leftover = False
                _log.warn("{path}: cannot be swept: {error}", path=entry.path, error=error)
            yield leftover

    def _is_leftover(self, entry: os.DirEntry[str]) -> bool:
        if not entry.is_file(follow_symlinks=False):
            return False
        pid = self.names.pid_of(entry.name)
        if pid is not None and not self.running(pid):
            return True
        status = entry.stat(follow_symlinks=False)
        return self.seconds() - max(status.st_mtime, status.st_atime) > LEFTOVER_AGE


def _is_directory(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir(follow_symlinks=False)
    except OSError:
        return False


def _entries(directory: str) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(directory) as entries:
            yield from entries
    except FileNotFoundError:
        return
    except OSError as error:
        _log.warn("{path}: cannot be swept: {error}", path=directory, error=error)
