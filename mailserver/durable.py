"""
Files that survive a power cut; nobody else calls fsync, link or rename for mail.

In: drafts, written block by block, and the names that they shall get.
Out: a Deferred; when it fires, all these files exist with these contents after a power cut.  When it fails, with the
OSError itself, none of them is visible and no temporary file is left.

Here a thread does the work of one `create`: write to `tmp/`, fsync, link to each name, remove the name in `tmp/`,
fsync each directory.  A small message is one job in a thread and nothing before it; a large one goes to `tmp/` in
slices while it arrives.  How a batch waits for the disk is nobody's business outside this file.

Failures: OSError (ENOSPC and EDQUOT: no room; anything else: trouble).  An fsync that failed is never repeated on its
descriptor: Linux reports lost pages once and then forgets them, so the file is taken away instead.
Maildir: https://cr.yp.to/proto/maildir.html; fsync: POSIX.1-2017, and fsync(2) "NOTES" for directories.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, fail
from twisted.logger import Logger
from twisted.python.failure import Failure

#: Octets of a draft that wait in memory before they go to its file.  Nine of ten messages are smaller, and then cost
#: one job in a thread; 1,000 connections that all send at once hold 64 MiB.
MEMORY = 64 * 1024
#: Octets that are read at once when a file is copied.
SLICE = 256 * 1024
FILE_MODE = 0o600
DIRECTORY_MODE = 0o700

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_OLD = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
#: What link(2) says when a file cannot have this further name, yet a copy can: another file system, too many links, a
#: file system without hard links.
_COPY_INSTEAD = frozenset({errno.EXDEV, errno.EMLINK, errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS})

#: `run_in_thread(function, *arguments)` -> Deferred with its result: `deferToThreadPool`, reactor and pool filled in.
RunInThread = Callable[..., "Deferred[Any]"]
#: A directory that is missing -> all directories to be made with it.
Layout = Callable[[Path], Iterable[Path]]

_log = Logger()


class Files:
    """The calls to the operating system, one method each, so that a test can record them and make them fail."""

    def open(self, path: Path, flags: int) -> int:
        return os.open(path, flags, FILE_MODE)

    def write(self, descriptor: int, data: memoryview) -> int:
        return os.write(descriptor, data)

    def read(self, descriptor: int, size: int, offset: int) -> bytes:
        return os.pread(descriptor, size, offset)

    def fsync(self, descriptor: int) -> None:
        os.fsync(descriptor)

    def close(self, descriptor: int) -> None:
        os.close(descriptor)

    def link(self, source: Path, target: Path) -> None:
        os.link(source, target, follow_symlinks=False)

    def rename(self, source: Path, target: Path) -> None:
        os.rename(source, target)

    def unlink(self, path: Path) -> None:
        os.unlink(path)

    def exists(self, path: Path) -> bool:
        return os.path.lexists(path)

    def is_directory(self, path: Path) -> bool:
        return os.path.isdir(path)

    def mkdir(self, path: Path, mode: int) -> None:
        os.mkdir(path, mode)

    def rmdir(self, path: Path) -> None:
        os.rmdir(path)


_FILES = Files()


# -- directories -----------------------------------------------------------------------------------------------------


def make_directories(*paths: Path, mode: int = DIRECTORY_MODE, files: Files = _FILES) -> None:
    """
    Make these directories and their missing parents, all with `mode`, so that they survive a power cut.  Blocks.

    Raises OSError (FileExistsError when something else has the name); then those that were made are gone again.
    """
    made: list[Path] = []
    try:
        for path in paths:
            _make_directory(path, mode, files, made)
        for parent in dict.fromkeys(path.parent for path in made):
            _sync_directory(parent, files)
    except OSError:
        # A directory that stays here unsynced would be found, and trusted, by the next try.
        for path in reversed(made):
            with contextlib.suppress(OSError):
                files.rmdir(path)
        raise


def _make_directory(path: Path, mode: int, files: Files, made: list[Path]) -> None:
    try:
        files.mkdir(path, mode)
    except FileNotFoundError:
        if path.parent == path:
            raise
        _make_directory(path.parent, mode, files, made)
        # Once more, and no third time: below /proc even a directory that is there says that it is not.
        try:
            files.mkdir(path, mode)
        except FileExistsError:
            if not files.is_directory(path):
                raise
        else:
            made.append(path)
    except FileExistsError:
        if not files.is_directory(path):
            raise
    else:
        made.append(path)


def _sync_directory(path: Path, files: Files) -> None:
    descriptor = files.open(path, _DIRECTORY)
    try:
        files.fsync(descriptor)
    except OSError as error:
        # Some file systems cannot sync a directory and say EINVAL; they have no better promise to give.
        if error.errno != errno.EINVAL:
            raise
    finally:
        files.close(descriptor)


# -- files that nobody sees yet --------------------------------------------------------------------------------------


class _Temporary:
    """A file in a `tmp/`, open for writing.  Every method blocks and runs in a thread."""

    def __init__(self, path: Path, files: Files) -> None:
        self.path = path
        self._files = files
        self._descriptor = files.open(path, _NEW)
        self._open = True
        self._named = True

    def append(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            written = self._files.write(self._descriptor, rest)
            if not written:
                raise OSError(errno.EIO, "nothing could be written", str(self.path))
            rest = rest[written:]

    def sync_and_close(self) -> None:
        try:
            self._files.fsync(self._descriptor)
        finally:
            self.close()

    def rename(self, target: Path) -> None:
        self._files.rename(self.path, target)
        self._named = False

    def remove(self) -> None:
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
        if self._open:
            # Also after an error of close(2) the descriptor is gone on Linux: never close it again.
            self._open = False
            self._files.close(self._descriptor)


def _slices(path: Path, start: int, files: Files) -> Generator[bytes, None, None]:
    """The content of a file from the octet `start` on."""
    descriptor = files.open(path, _OLD)
    try:
        while block := files.read(descriptor, SLICE, start):
            yield block
            start += len(block)
    finally:
        files.close(descriptor)


@dataclass(frozen=True)
class _Tools:
    """What a draft and a commit work with."""

    files: Files
    run: RunInThread
    unique_name: Callable[[], str]
    memory: int
    making: threading.Lock = field(default_factory=threading.Lock)

    def open(self, directory: Path, layout: Layout) -> _Temporary:
        """A new temporary file in `directory`, which is made when it is missing."""
        try:
            return _Temporary(directory / self.unique_name(), self.files)
        except FileNotFoundError:
            self.make(directory, layout)
            return _Temporary(directory / self.unique_name(), self.files)

    def make(self, directory: Path, layout: Layout) -> None:
        with self.making:
            make_directories(*layout(directory), files=self.files)


def _alone(directory: Path) -> tuple[Path]:
    return (directory,)


class Draft:
    """
    The content of files to be, written block by block; made by `Durable.draft`.

    For everybody: write, rewrite, size, abort; while a Deferred of it is open, only abort may be called.
    For `Durable` alone: obstacle, hand_over; in a thread: finish, discard.
    """

    def __init__(self, directory: Path, layout: Layout, tools: _Tools) -> None:
        self.directory = directory
        self.layout = layout
        self._tools = tools
        self._blocks: list[bytes] = []  # what is not in the file yet
        self._waiting = 0  # octets in _blocks
        self._size = 0
        self._file: _Temporary | None = None  # while a job is running, it belongs to the thread
        self._busy = False
        self._gone = False  # aborted, or handed over to a commit
        self._error: BaseException | None = None

    @property
    def size(self) -> int:
        """Octets written so far; after `rewrite`, those that came out of it."""
        return self._size

    def write(self, block: bytes) -> Deferred[None] | None:
        """
        Take the next octets.  None: taken.  A Deferred: wait for it before the next block; it fails with OSError, and
        then the draft is lost and its file gone.  After abort nothing happens.
        """
        if self._gone:
            return None
        if self._error is not None:
            return fail(self._error)
        self._must_be_idle()
        self._blocks.append(block)
        self._size += len(block)
        self._waiting += len(block)
        if self._waiting <= self._tools.memory:
            return None
        return self._start(self._spool, self._take())

    def rewrite(self, transform: Callable[[bytes], bytes]) -> Deferred[None] | None:
        """
        Replace what was written so far by what `transform` makes of it, block by block.
        transform: pure, and the same however the content is cut (as LF -> CRLF is).  Answers and fails as `write`.
        """
        if self._gone:
            return None
        if self._error is not None:
            return fail(self._error)
        self._must_be_idle()
        if self._file is not None:
            return self._start(self._rewrite, self._file, self._take(), transform)
        self._blocks = [transform(block) for block in self._blocks]
        self._waiting = self._size = sum(map(len, self._blocks))
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
        if not self._busy and self._file is not None:
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

    def finish(self) -> _Temporary:
        """The temporary file, complete, synced and closed.  Blocks.  Raises OSError; `discard` must follow then."""
        if self._file is None:
            self._file = self._tools.open(self.directory, self.layout)
        self._file.append(b"".join(self._blocks))
        self._blocks.clear()
        self._file.sync_and_close()
        return self._file

    def discard(self) -> None:
        """Remove the temporary file, if there is one.  Blocks.  Never raises OSError."""
        if self._file is not None:
            self._file.discard()

    def _must_be_idle(self) -> None:
        if self._busy:
            raise RuntimeError("a write to this draft is still under way")

    def _take(self) -> list[bytes]:
        blocks, self._blocks, self._waiting = self._blocks, [], 0
        return blocks

    def _start(self, job: Callable[..., int], *arguments: object) -> Deferred[None]:
        self._busy = True
        return _shielded(self._tools.run(job, *arguments, ended=self._ended))

    def _ended(self, result: Any) -> Failure | None:
        """On the reactor again; result: by how much the size has changed, or a Failure."""
        self._busy = False
        if isinstance(result, Failure):
            self._error = result.value
        else:
            self._size += result
        if not self._gone:
            return result if isinstance(result, Failure) else None
        if self._file is not None:
            self._tools.run(self.discard)
        return None  # after abort nobody wants to hear of it

    def _spool(self, blocks: list[bytes]) -> int:
        """In the thread.  Returns by how much the size has changed."""
        try:
            if self._file is None:
                self._file = self._tools.open(self.directory, self.layout)
            self._file.append(b"".join(blocks))
        except BaseException:
            self.discard()
            raise
        return 0

    def _rewrite(self, old: _Temporary, blocks: list[bytes], transform: Callable[[bytes], bytes]) -> int:
        """In the thread.  Returns by how much the size has changed."""
        grown, new = 0, None
        try:
            new = self._tools.open(self.directory, self.layout)
            with contextlib.closing(_slices(old.path, 0, self._tools.files)) as written:
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
        self._file = new
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
    places: tuple[Path, ...]
    head: bytes = b""
    skip: int = 0

    def __post_init__(self) -> None:
        if not self.places:
            raise ValueError("a new file needs a place")
        if not 0 <= self.skip <= self.draft.size:
            raise ValueError(f"cannot skip {self.skip} octets of {self.draft.size}")


# -- the commit ------------------------------------------------------------------------------------------------------


class _Commit:
    """The work of one `create`, in a thread.  What it has made visible is taken away again when it fails."""

    def __init__(self, new: Sequence[NewFile], tools: _Tools) -> None:
        self._new = new
        self._tools = tools
        self._files = tools.files
        self._drafts = list(dict.fromkeys(file.draft for file in new))
        self._finished: dict[Draft, _Temporary] = {}
        self._copies: list[_Temporary] = []
        self._visible: list[Path] = []

    def run(self) -> None:
        try:
            self._make_durable()
        except BaseException:
            self._undo()
            raise
        # Another thread may have made one of our directories and still be at the fsync of its parent: without that
        # parent our files are lost.  It holds this lock until it has done so; mostly the lock is free.
        with self._tools.making:
            pass

    def _make_durable(self) -> None:
        # The contents first, then the names, then the directories: so a name never shows a file whose octets are not
        # yet on the disk, whatever the moment of the power cut; and when the last fsync is back, the names are there.
        sources = self._write_contents()
        for file, source in zip(self._new, sources, strict=True):
            self._show(file, source.path)
        # Before the directories are synced, so that a failure here can still be answered by taking all away.  The
        # directory tmp/ itself needs no fsync: a name that comes back in it is swept.
        for temporary in (*self._finished.values(), *self._copies):
            temporary.remove()
        for directory in dict.fromkeys(place.parent for file in self._new for place in file.places):
            _sync_directory(directory, self._files)

    def _write_contents(self) -> list[_Temporary]:
        """For each new file, a temporary one with its content, synced and closed."""
        for draft in self._drafts:
            self._finished[draft] = draft.finish()
        sources = []
        for file in self._new:
            source = self._finished[file.draft]
            if file.head or file.skip:
                source = self._copy(source.path, file.places[0], file)
            sources.append(source)
        return sources

    def _show(self, file: NewFile, source: Path) -> None:
        for place in file.places:
            try:
                self._link(source, place, file.draft.layout)
            except OSError as error:
                if error.errno not in _COPY_INSTEAD:
                    raise
                self._rename(self._copy(source, place, replace(file, head=b"", skip=0)), place)
                source = place  # the next one is more likely to be a neighbour of this
            else:
                self._visible.append(place)

    def _link(self, source: Path, place: Path, layout: Layout) -> None:
        # link(2) and not rename(2): rename would overwrite a file that has this name already.
        try:
            self._files.link(source, place)
        except FileNotFoundError:
            self._tools.make(place.parent, layout)
            self._files.link(source, place)

    def _rename(self, copy: _Temporary, place: Path) -> None:
        # Where there are no hard links, rename is all there is.  The names are unique; this look only guards them.
        if self._files.exists(place):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(place))
        copy.rename(place)
        self._visible.append(place)

    def _copy(self, source: Path, place: Path, file: NewFile) -> _Temporary:
        beside = place.parent.parent / file.draft.directory.name
        copy = self._tools.open(beside, file.draft.layout)
        self._copies.append(copy)
        if file.head:
            copy.append(file.head)
        with contextlib.closing(_slices(source, file.skip, self._files)) as blocks:
            for block in blocks:
                copy.append(block)
        copy.sync_and_close()
        return copy

    def _undo(self) -> None:
        # Without an fsync: should the power go now, what was refused may be there, whole, and come again: one double.
        for place in self._visible:
            try:
                self._files.unlink(place)
            except OSError as error:
                _log.error("{path}: cannot be taken away, will be there twice: {error}", path=place, error=error)
        for copy in self._copies:
            copy.discard()
        for draft in self._drafts:
            draft.discard()


class Durable(Service):
    """
    The door to the disk.  As a service it lets the work under way end before it stops.

    run_in_thread: see `RunInThread`.  unique_name: the name of the next temporary file; it is never given twice.
    files: the calls to the operating system.  memory: octets of a draft that wait in memory.
    """

    def __init__(
        self,
        *,
        run_in_thread: RunInThread,
        unique_name: Callable[[], str],
        files: Files = _FILES,
        memory: int = MEMORY,
    ) -> None:
        self._run_in_thread = run_in_thread
        self._tools = _Tools(files, self._run, unique_name, memory)
        self._running = 0
        self._idle: list[Deferred[None]] = []

    def draft(self, directory: Path, layout: Layout = _alone) -> Draft:
        """
        A file that nobody sees yet, to be written below `directory` (a Maildir's `tmp`); nothing is on the disk yet.
        layout: which directories to make when one is missing (a Maildir's three); by default that one alone.  Missing
        parents are made too.
        """
        return Draft(directory, layout, self._tools)

    def create(self, files: Sequence[NewFile]) -> Deferred[None]:
        """
        When it fires, all these files exist with these contents after a power cut.
        Fails with OSError; then none of them is visible.  The drafts are used up either way.
        """
        drafts = list(dict.fromkeys(file.draft for file in files))
        for obstacle in (draft.obstacle() for draft in drafts):
            if obstacle is not None:
                for draft in drafts:
                    draft.abort()
                return fail(obstacle)
        for draft in drafts:
            draft.hand_over()
        return _shielded(self._run(_Commit(files, self._tools).run))

    def stopService(self) -> Deferred[None] | None:
        """Wait for the jobs that are running, and the removals they lead to."""
        super().stopService()
        if not self._running:
            return None
        idle: Deferred[None] = Deferred()
        self._idle.append(idle)
        return idle

    def _run(
        self, job: Callable[..., Any], *arguments: object, ended: Callable[[Any], Any] | None = None
    ) -> Deferred[Any]:
        """ended: called with the result, or the Failure, before the job counts as over; it may run another one."""
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


def _shielded(work: Deferred[Any]) -> Deferred[None]:
    """A Deferred for the caller, who may cancel it: a thread cannot be stopped, so only the caller stops to wait."""
    outside: Deferred[None] = Deferred()
    work.chainDeferred(outside)
    return outside
