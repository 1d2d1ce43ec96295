"""
The files of a journal: made before they are needed, locked, read, marked as free.

In: a directory.  Out: `Segment`s to write to; what is in those that an earlier run has left.
A segment is full of zeros when it is made: so what is written later changes no table of the file system, and one
fdatasync is one turn of the disk.
All that blocks runs in a thread, or at the start.  Failures: OSError; `InUse` when another process has the journal.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mailserver.durable.files import Files, make_directories, sync_directory
from mailserver.durable.records import (
    BLOCK,
    MARK_SIZE,
    Damage,
    Header,
    NoHeader,
    Record,
    decode_header,
    decode_records,
    encode_header,
    new_mark,
)

LOCK = "lock"
#: In place of a mount: no mount is called so.
SUSPECT = b"suspect"
PREFIX = "segment-"
_ZEROS = 1 << 20


class InUse(Exception):  # noqa: N818 - it names a state
    """Another process has this journal."""


@dataclass(eq=False)
class Segment:
    """
    A file of the journal.  offset: where the next record goes.  header: what is, or will be, on the disk.
    fresh: its header is still to be written, before its first record.
    failed: a write to it has failed; it is not used again.
    losses: how often the kernel had told that it lost pages when its use began: see `journal`.
    """

    path: Path
    size: int
    descriptor: int
    header: Header
    offset: int = BLOCK
    fresh: bool = True
    failed: bool = False
    losses: int = 0

    @property
    def room(self) -> int:
        """Octets that still fit."""
        return self.size - self.offset

    def renew(self, header: Header) -> None:
        """Use it again, from its start."""
        self.header, self.offset, self.fresh = header, BLOCK, True


@dataclass(frozen=True)
class Found:
    """
    A segment of an earlier run.  trouble: why it could not be read; "" for one with a header.
    unused: it holds nothing but zeros, or nothing at all: the run ended while it was made.
    """

    path: Path
    header: Header | None
    found: tuple[Record | Damage, ...] = ()
    trouble: str = ""
    unused: bool = False


def lock(directory: Path, files: Files) -> int:
    """The journal is ours as long as this descriptor is open.  Raises InUse, OSError."""
    make_directories(directory, files=files)
    descriptor = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise InUse(f"{directory}: another process uses this journal") from None
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


@contextlib.contextmanager
def recovering(directory: Path) -> Iterator[None]:
    """
    One process at a time looks at all journals below `directory`: it takes the lock of each for a moment, which must
    not look to its owner, who starts at the same time, as if another server had it.  Waits.  Raises OSError.
    """
    descriptor = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@dataclass(frozen=True)
class Running:
    """What a process that has a journal wrote into its lock.  mount: see `files.mount_identity`.  alive: a time."""

    mount: bytes
    alive: float


def state(directory: Path) -> str:
    """Of a journal, for people: nothing is changed, and nobody who starts meanwhile is kept from it."""
    with contextlib.ExitStack() as stack:
        try:
            # As in `recovering`, whose lock is made by the server.
            for path, how in ((directory.parent / LOCK, fcntl.LOCK_EX), (directory / LOCK, fcntl.LOCK_SH)):
                stream = stack.enter_context(path.open("rb"))
                fcntl.flock(stream, how | fcntl.LOCK_NB)
            return "stopped in good order" if last_run(stream.fileno()) is None else "not stopped in good order"
        except BlockingIOError:
            return "in use by a running server"
        except OSError:
            return "never used"


_RUNNING = struct.Struct("<32sd")
#: Written and not cut off, so that there is room for the next note also on a full disk.
_STOPPED = bytes(_RUNNING.size)


def last_run(descriptor: int) -> Running | None:
    """What the process wrote that had this lock before and did not stop in good order; None when it did."""
    octets = os.pread(descriptor, _RUNNING.size, 0)
    if len(octets) < _RUNNING.size or octets == _STOPPED:
        return None
    mount, alive = _RUNNING.unpack(octets)
    return Running(mount.rstrip(b"\0"), alive)


def note_running(descriptor: int, running: Running) -> None:
    """Note that we run.  Synced the first time only: an old time is as good, with more work.  Raises OSError."""
    first = os.pread(descriptor, _RUNNING.size, 0) in (b"", _STOPPED)
    os.pwrite(descriptor, _RUNNING.pack(running.mount, running.alive), 0)
    if first:
        _sync_lock(descriptor)


def note_stopped(descriptor: int) -> None:
    """Everything is durable, and we stop.  Raises OSError."""
    os.pwrite(descriptor, _STOPPED, 0)
    _sync_lock(descriptor)


def _sync_lock(descriptor: int) -> None:
    # By a descriptor of its own, as the one that holds the lock stays: after a failed sync the next one says yes.
    other = os.open(f"/dev/fd/{descriptor}", os.O_RDWR | os.O_CLOEXEC)
    try:
        os.fsync(other)
    finally:
        os.close(other)


def segment_paths(directory: Path) -> list[Path]:
    """The files of a journal, in the order of their names."""
    try:
        return sorted(path for path in directory.iterdir() if path.name.startswith(PREFIX))
    except FileNotFoundError:
        return []


def read(path: Path, *, contents: bool = True) -> Found:
    """What a segment holds.  contents: False: only its header.  Raises OSError."""
    if not stat.S_ISREG(os.lstat(path).st_mode):
        return Found(path, None, trouble="not a file")
    with path.open("rb") as stream:
        try:
            header = decode_header(stream.read(BLOCK))
        except NoHeader as error:
            stream.seek(0)
            blocks = iter(lambda: stream.read(_ZEROS), b"")
            unused = not any(block.count(0) < len(block) for block in blocks)
            return Found(path, None, trouble=str(error), unused=unused)
        if not contents or not header.in_use:
            return Found(path, header)
        stream.seek(0)
        return Found(path, header, tuple(decode_records(header.mark, stream.read())))


def make(path: Path, size: int, files: Files) -> int:
    """A new segment file full of zeros, synced.  Returns its descriptor.  Raises OSError; then it is gone again."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        for at in range(0, size, _ZEROS):
            block = bytes(min(_ZEROS, size - at))
            if files.write_at(descriptor, [block], at) != len(block):
                raise OSError(f"{path}: a short write")
        unused = Header(False, new_mark(bytes(8)), 0)
        files.write_at(descriptor, [encode_header(unused)], 0)
        files.fsync(descriptor)
        sync_directory(path.parent, files)
    except BaseException:
        os.close(descriptor)
        path.unlink(missing_ok=True)
        raise
    return descriptor


def mark_free(path: Path, header: Header, files: Files) -> None:
    """All that its records hold is durable in the files themselves.  Blocks.  Raises OSError."""
    _mark(path, Header(False, header.mark, header.sequence, header.mount, header.since), files)


def mark_suspect(path: Path, header: Header, files: Files) -> None:
    """The kernel has lost pages of the files: whoever recovers this must not believe what it reads there.  Blocks."""
    _mark(path, replace(header, mount=SUSPECT), files)


def _mark(path: Path, header: Header, files: Files) -> None:
    # By a descriptor of its own: one whose sync has failed is never synced again.
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        files.write_at(descriptor, [encode_header(header)], 0)
        files.fdatasync(descriptor)
    finally:
        with contextlib.suppress(OSError):  # what is synced is synced
            files.close(descriptor)


def forget(path: Path, places: Sequence[int], files: Files) -> None:
    """The records at these places are durable elsewhere; the others are still needed.  Blocks.  Raises OSError."""
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        for place in places:
            files.write_at(descriptor, [bytes(MARK_SIZE)], place)
        files.fdatasync(descriptor)
    finally:
        with contextlib.suppress(OSError):  # what is synced is synced
            files.close(descriptor)


def remove(segment: Segment, files: Files) -> None:
    """
    Take a segment away that could not be written; what was acknowledged in it is durable elsewhere.  Blocks.
    Raises OSError.
    """
    with contextlib.suppress(OSError):
        mark_free(segment.path, segment.header, files)
    with contextlib.suppress(FileNotFoundError):
        files.unlink(segment.path)
    sync_directory(segment.path.parent, files)


def in_use_header(sequence: int, mount: bytes, now: float) -> Header:
    """For a new use of a segment."""
    return Header(True, new_mark(os.urandom(8)), sequence, mount, now)
