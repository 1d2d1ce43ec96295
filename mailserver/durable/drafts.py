"""
Files to be: contents that are written block by block and that nobody sees yet.

In: blocks.  Out: a `Temporary` file in a `tmp/`, or nothing but memory as long as the content is small.
A block goes to the disk on the reactor as long as the disk takes it at once (into the kernel's memory); when one took
too long, the next ones go through a thread until the disk is quick again.  Without a `Pace` all go through threads.
Failures: OSError, told for the write that meets it; then the draft is lost, and its file gone.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.logger import Logger
from twisted.python.failure import Failure

from mailserver.durable.files import NEW, OLD, Files, Layout, RunInThread, make_directories

#: Octets of a draft that wait in memory before they go to its file.  Nine of ten messages are smaller, and then cost
#: nothing before their commit; 1,000 connections that all send at once hold 64 MiB.
MEMORY = 64 * 1024
#: Octets that are read at once when a file is copied.
SLICE = 256 * 1024
#: A call to the disk on the reactor may take so many seconds; after one that took longer threads do it for a while.
STALL, PATIENCE = 0.005, 1.0

_log = Logger(namespace="mailserver.durable")


class Pace:
    """Is the disk quick enough for the reactor?  seconds: a clock that is never set back, `time.perf_counter`."""

    def __init__(self, seconds: Callable[[], float]) -> None:
        self.seconds = seconds
        self._slow_until = -1.0

    @property
    def slow(self) -> bool:
        """Did a call take too long a moment ago?"""
        return self._slow_until > 0 and self.seconds() < self._slow_until

    def took(self, began: float) -> None:
        """A call that began then is over."""
        now = self.seconds()
        if now - began > STALL:
            self._slow_until = now + PATIENCE


class Temporary:
    """A file in a `tmp/`, open for writing.  Every method may block."""

    def __init__(self, path: str, files: Files) -> None:
        self.path = path
        self._files = files
        self.descriptor = files.open(path, NEW)
        self._open = True
        self._named = True

    def append(self, data: bytes) -> None:
        """Write it all.  Raises OSError."""
        written = self._files.write(self.descriptor, data)
        if written == len(data):
            return
        rest = memoryview(data)[written:]
        while rest:
            if not written:
                raise OSError(errno.EIO, "nothing could be written", self.path)
            written = self._files.write(self.descriptor, rest)
            rest = rest[written:]

    def sync_and_close(self) -> None:
        """fsync.  Raises OSError; closed either way."""
        try:
            self._files.fsync(self.descriptor)
        finally:
            self.close()

    def rename(self, target: str) -> None:
        """Give it this name."""
        self._files.rename(self.path, target)
        self._named = False

    def remove(self) -> None:
        """Take its name in `tmp/` away."""
        if self._named:
            self._files.unlink(self.path)
            self._named = False

    def discard(self) -> None:
        """Close and remove it, whatever state it is in; also twice.  Never raises OSError."""
        try:
            self.close()
        except OSError as error:
            _log.warn("{path}: cannot be closed: {error}", path=self.path, error=error)
        try:
            self.remove()
        except FileNotFoundError:
            self._named = False
        except OSError as error:
            _log.warn("{path}: cannot be removed, left to the sweep: {error}", path=self.path, error=error)

    def close(self) -> None:
        """Close it, once.  Raises OSError."""
        if self._open:
            # Also after an error of close(2) the descriptor is gone on Linux: never close it again.
            self._open = False
            self._files.close(self.descriptor)


def slices(path: str, start: int, files: Files) -> Generator[bytes, None, None]:
    """The content of a file from the octet `start` on."""
    descriptor = files.open(path, OLD)
    try:
        while block := files.read(descriptor, SLICE, start):
            yield block
            start += len(block)
    finally:
        files.close(descriptor)


@dataclass(frozen=True)
class Tools:
    """
    What drafts and commits work with.  pace: None: no file is written on the reactor.
    device: of the mail; 0 when nobody has to know.
    """

    files: Files
    run: RunInThread
    unique_name: Callable[[], str]
    memory: int
    pace: Pace | None = None
    device: Callable[[], int] = lambda: 0
    making: threading.Lock = field(default_factory=threading.Lock)

    def open(self, directory: str, layout: Layout) -> Temporary:
        """A new temporary file in `directory`, which is made when it is missing.  Blocks."""
        try:
            return self.open_at_once(directory)
        except FileNotFoundError:
            self.make(directory, layout)
            return self.open_at_once(directory)

    def open_at_once(self, directory: str) -> Temporary:
        """A new temporary file in `directory`.  Raises FileNotFoundError when that is missing."""
        return Temporary(f"{directory}/{self.unique_name()}", self.files)

    def make(self, directory: str, layout: Layout) -> None:
        """Make a directory, and those that belong to it."""
        with self.making:
            make_directories(*layout(Path(directory)), files=self.files)


def alone(directory: Path) -> Iterable[Path]:
    """The layout of a directory that needs no others."""
    return (directory,)


class Draft:
    """
    The content of files to be, written block by block; made by `Durable.draft`.

    For everybody: write, rewrite, size, abort; while a Deferred of it is open, only abort may be called.
    For `Durable` alone: obstacle, hand_over, content, temporary; in a thread: finish, discard.
    """

    def __init__(self, directory: str, layout: Layout, tools: Tools, others: Sequence[str] = ()) -> None:
        self.directory = directory
        self.layout = layout
        self._others = others
        self._tools = tools
        self._blocks: list[bytes] = []  # what is not in the file yet
        self._waiting = 0  # octets in _blocks
        self.size = 0  # octets written so far; after `rewrite`, those that came out of it
        self.temporary: Temporary | None = None  # while a job is running, it belongs to the thread
        self._busy = False
        self._gone = False  # aborted, or handed over to a commit
        self._error: BaseException | None = None

    def write(self, block: bytes) -> Deferred[None] | None:
        """
        Take the next octets.  None: taken.  A Deferred: wait for it before the next block; it fails with OSError, and
        then the draft is lost and its file gone.  After abort nothing happens.
        """
        if self._gone:
            return None
        if self._error is not None:
            return fail(self._error)
        if self._busy:
            raise RuntimeError("a write to this draft is still under way")
        self._blocks.append(block)
        self.size += len(block)
        self._waiting += len(block)
        if self._waiting <= self._tools.memory:
            return None
        return self._to_disk()

    def _to_disk(self) -> Deferred[None] | None:
        pace = self._tools.pace
        blocks = self._take()
        if pace is None or pace.slow or self._directory_is_missing():
            return self._start(self._spool, blocks)
        began = pace.seconds()
        try:
            self._spool(blocks)
        except OSError as error:
            self._error = error
            return fail(error)
        finally:
            pace.took(began)
        return None

    def _directory_is_missing(self) -> bool:
        """Open the file, unless that would mean to make directories, which takes its time."""
        if self.temporary is None:
            # Trouble is met again, and told, in the thread.
            with contextlib.suppress(OSError):
                self.temporary = self._tools.open_at_once(self.directory)
        return self.temporary is None

    def rewrite(self, transform: Callable[[bytes], bytes]) -> Deferred[None] | None:
        """
        Replace what was written so far by what `transform` makes of it, block by block.
        transform: pure, and the same however the content is cut (as LF -> CRLF is).  Answers and fails as `write`.
        """
        if self._gone:
            return None
        if self._error is not None:
            return fail(self._error)
        if self._busy:
            raise RuntimeError("a write to this draft is still under way")
        if self.temporary is not None:
            return self._start(self._rewrite, self.temporary, self._take(), transform)
        self._blocks = [transform(block) for block in self._blocks]
        self._waiting = self.size = sum(map(len, self._blocks))
        return None

    def abort(self) -> None:
        """
        Forget it; at any time, also twice, also while a write is under way: its file is removed when that has ended.
        Nothing happens once `Durable.create` has it, which cleans up by itself.  Never raises.
        """
        if self._gone:
            return
        self._gone = True
        self._blocks.clear()
        if not self._busy and self.temporary is not None:
            self._tools.run(self.discard)

    def obstacle(self) -> BaseException | None:
        """Why it cannot be created: what a write has failed with, or RuntimeError for a wrong order of calls."""
        if self._gone:
            return RuntimeError("the draft was aborted or created before")
        if self._busy:
            return RuntimeError("a write to this draft is still under way")
        return self._error

    def hand_over(self) -> None:
        """From now on it belongs to a commit."""
        self._gone = True

    def content(self) -> bytes:
        """What is not in its file yet: everything, when there is no file."""
        if len(self._blocks) > 1:
            self._blocks = [b"".join(self._blocks)]
        return self._blocks[0] if self._blocks else b""

    def take_rest(self) -> bytes:
        """The same, and it is forgotten here: whoever has it writes it."""
        rest = self.content()
        self._blocks.clear()
        return rest

    def finish(self) -> Temporary:
        """The temporary file, complete, synced and closed.  Blocks.  Raises OSError; `discard` must follow then."""
        if self.temporary is None:
            self.temporary = self._open()
        self.temporary.append(self.content())
        self._blocks.clear()
        self.temporary.sync_and_close()
        return self.temporary

    def discard(self) -> None:
        """Remove the temporary file, if there is one.  May block.  Never raises OSError."""
        if self.temporary is not None:
            self.temporary.discard()

    def _open(self) -> Temporary:
        """In the first of its directories that can have it.  Blocks."""
        first: OSError | None = None
        for directory in (self.directory, *self._others):
            try:
                return self._tools.open(directory, self.layout)
            except OSError as error:
                first = first or error
        assert first is not None
        raise first

    def _take(self) -> list[bytes]:
        blocks, self._blocks, self._waiting = self._blocks, [], 0
        return blocks

    def _start(self, job: Callable[..., int], *arguments: object) -> Deferred[None]:
        self._busy = True
        return shielded(self._tools.run(job, *arguments, ended=self._ended))

    def _ended(self, result: Any) -> Failure | None:
        """On the reactor again; result: by how much the size has changed, or a Failure."""
        self._busy = False
        if isinstance(result, Failure):
            self._error = result.value
        else:
            self.size += result
        if not self._gone:
            return result if isinstance(result, Failure) else None
        if self.temporary is not None:
            self._tools.run(self.discard)
        return None  # after abort nobody wants to hear of it

    def _spool(self, blocks: list[bytes]) -> int:
        """Returns by how much the size has changed.  May block."""
        try:
            if self.temporary is None:
                self.temporary = self._open()
            self.temporary.append(b"".join(blocks))
        except BaseException:
            self.discard()
            raise
        return 0

    def _rewrite(self, old: Temporary, blocks: list[bytes], transform: Callable[[bytes], bytes]) -> int:
        """In the thread.  Returns by how much the size has changed."""
        grown, new = 0, None
        try:
            new = self._tools.open(os.path.dirname(old.path), self.layout)
            with contextlib.closing(slices(old.path, 0, self._tools.files)) as written:
                for block in written:
                    replaced = transform(block)
                    new.append(replaced)
                    grown += len(replaced) - len(block)
            for block in blocks:
                replaced = transform(block)
                new.append(replaced)
                grown += len(replaced) - len(block)
            old.close()
            old.remove()
        except BaseException:
            if new is not None:
                new.discard()
            self.discard()
            raise
        self.temporary = new
        return grown


@dataclass(frozen=True, slots=True, eq=False)
class NewFile:
    """
    One content and the names it gets.

    draft: several NewFiles may share one.  places: at least one path, on which nothing stands yet; all of them are
    links to one file where the file system allows it, and copies elsewhere.
    head, skip: the content is `head`, then the draft's from the octet `skip` on: for copies that differ at the start.
    A copy is first written to the directory that is named like the draft's (`tmp`) and stands beside the place's own.
    """

    draft: Draft
    places: tuple[str, ...]
    head: bytes = b""
    skip: int = 0

    def __post_init__(self) -> None:
        if not self.places:
            raise ValueError("a new file needs a place")
        if not 0 <= self.skip <= self.draft.size:
            raise ValueError(f"cannot skip {self.skip} octets of {self.draft.size}")


def shielded(work: Deferred[Any]) -> Deferred[Any]:
    """A Deferred for the caller, who may cancel it: a thread cannot be stopped, so only the caller stops to wait."""
    outside: Deferred[Any] = Deferred()
    work.chainDeferred(outside)
    return outside
