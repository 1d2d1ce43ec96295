"""
The calls to the operating system that keep files, one method each, so that a test can record them and make them fail.

In: paths, descriptors.  Out: OSError, and nothing else, when something goes wrong.
Directories that survive a power cut are made here too.
fsync: POSIX.1-2017, and fsync(2) "NOTES" for directories; syncfs(2), statfs(2), statx(2).
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import struct
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

FILE_MODE = 0o600
DIRECTORY_MODE = 0o700

NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
OLD = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC

#: `run_in_thread(function, *arguments)` -> Deferred with its result: `deferToThreadPool`, reactor and pool filled in.
RunInThread = Callable[..., "Deferred[Any]"]
#: A directory that is missing -> all directories to be made with it.
Layout = Callable[[Path], Iterable[Path]]


class Files:
    """The calls to the operating system, one method each, so that a test can record them and make them fail."""

    def open(self, path: Path | str, flags: int) -> int:
        return os.open(path, flags, FILE_MODE)

    def write(self, descriptor: int, data: bytes | memoryview) -> int:
        return os.write(descriptor, data)

    def write_at(self, descriptor: int, blocks: Sequence[bytes], offset: int) -> int:
        return os.pwritev(descriptor, blocks, offset)

    def read(self, descriptor: int, size: int, offset: int) -> bytes:
        return os.pread(descriptor, size, offset)

    def device(self, descriptor: int) -> int:
        return os.fstat(descriptor).st_dev

    def fsync(self, descriptor: int) -> None:
        os.fsync(descriptor)

    def fdatasync(self, descriptor: int) -> None:
        os.fdatasync(descriptor)

    def syncfs(self, descriptor: int) -> None:
        if _libc.syncfs(descriptor):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))

    def close(self, descriptor: int) -> None:
        os.close(descriptor)

    def link(self, source: Path | str, target: Path | str) -> None:
        os.link(source, target, follow_symlinks=False)

    def rename(self, source: Path | str, target: Path | str) -> None:
        os.rename(source, target)

    def unlink(self, path: Path | str) -> None:
        os.unlink(path)

    def exists(self, path: Path | str) -> bool:
        return os.path.lexists(path)

    def is_directory(self, path: Path | str) -> bool:
        return os.path.isdir(path)

    def mkdir(self, path: Path, mode: int) -> None:
        os.mkdir(path, mode)

    def rmdir(self, path: Path) -> None:
        os.rmdir(path)


_libc: Any = ctypes.CDLL(None, use_errno=True)
#: syncfs(2) is Linux's alone, since 2.6.39.
HAS_SYNCFS = hasattr(_libc, "syncfs")

FILES = Files()


# -- directories -----------------------------------------------------------------------------------------------------


def make_directories(*paths: Path, mode: int = DIRECTORY_MODE, files: Files = FILES) -> None:
    """
    Make these directories and their missing parents, all with `mode`, so that they survive a power cut.  Blocks.

    Raises OSError (FileExistsError when something else has the name); then those that were made are gone again.
    """
    made: list[Path] = []
    try:
        for path in paths:
            _make_directory(path, mode, files, made)
        for parent in dict.fromkeys(path.parent for path in made):
            sync_directory(parent, files)
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


def sync_directory(path: Path | str, files: Files) -> None:
    """fsync of a directory.  Raises OSError."""
    descriptor = files.open(path, OPEN_DIRECTORY)
    try:
        files.fsync(descriptor)
    except OSError as error:
        # Some file systems cannot sync a directory and say EINVAL; they have no better promise to give.
        if error.errno != errno.EINVAL:
            raise
    finally:
        files.close(descriptor)


# -- file systems ----------------------------------------------------------------------------------------------------

#: f_type of statfs(2): ext2 to ext4, XFS, btrfs.  There fsync of a file commits its names too, and a file whose
#: octets are not all on the disk is found shorter than it was.
_NAMES_COME_WITH_FSYNC = frozenset({0xEF53, 0x58465342, 0x9123683E})
_STATFS_SIZE = 256
_STATX_SIZE, _AT_FDCWD, _STATX_MNT_ID_UNIQUE = 256, -100, 0x4000
_STATX_MASK, _STATX_MNT_ID = struct.Struct("=I"), struct.Struct("=Q")
_STATX_MNT_ID_AT = 0x90


def fsync_brings_names(path: Path) -> bool:
    """Is this one of the file systems on which "link, then fsync of the file" was proven to keep the name?"""
    if not hasattr(_libc, "statfs"):
        return False
    found = ctypes.create_string_buffer(_STATFS_SIZE)
    if _libc.statfs(os.fsencode(path), found):
        return False
    (kind,) = struct.unpack_from("@l", found)
    return kind & 0xFFFFFFFF in _NAMES_COME_WITH_FSYNC


def mount_identity(path: Path) -> bytes:
    """
    What this boot of the machine calls the mount that `path` is in, never given twice; b"" where the kernel cannot
    tell (before Linux 6.8).  Where it is the same, every file is as we left it: also what was never synced.
    """
    found = ctypes.create_string_buffer(_STATX_SIZE)
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_bytes().strip()
        failed = _libc.statx(_AT_FDCWD, os.fsencode(path), 0, _STATX_MNT_ID_UNIQUE, found)
    except (OSError, AttributeError):
        return b""
    (mask,) = _STATX_MASK.unpack_from(found)
    if failed or not mask & _STATX_MNT_ID_UNIQUE:
        return b""
    (mount,) = _STATX_MNT_ID.unpack_from(found, _STATX_MNT_ID_AT)
    return boot.replace(b"-", b"")[:16] + b"%x" % mount
