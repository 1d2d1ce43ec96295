"""
A message as an app gets it: a stream, a file, or its parts; in memory while it is small.

In: blocks, as they come from the client.  Out: `blocks()`, `path`, `read()`, `mime`; bounded memory for any size.
CRLF line ends, no dot-stuffing, no trace fields (`trace` has them).  The file is gone when the message is answered.
Failures: OSError of the disk; ValueError for who begins to read when the message is answered.  Who has begun, in a
thread of an app that was too slow, reads the rest of it: never of another file that has the descriptor now.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from mailserver.mime import Part

#: Octets up to which a message is held in memory.
IN_MEMORY = 64 * 1024
#: Octets of a block that is read from the file.
BLOCK = 64 * 1024
#: How the names of the files begin.
PREFIX = "message-"


class Message:
    """
    One message.  size: its octets.  trace: the fields (Return-Path, Received) that a mailbox would get on top of it.

    folder: makes (and returns) the folder of the file, when one is needed.
    """

    def __init__(self, folder: Callable[[], Path] | None = None, trace: bytes = b"") -> None:
        self.size = 0
        self.trace = trace
        self._folder = folder
        self._held: bytearray | None = bytearray()
        self._file: IO[bytes] | None = None
        self._path: Path | None = None
        self._part: Part | None = None
        self._written = True
        self._closed = False
        #: Between a descriptor that is used and one that is closed: an app may read in a thread.
        self._lock = threading.Lock()
        self._readers: list[BinaryIO] = []

    @classmethod
    def of(cls, octets: bytes, trace: bytes = b"") -> Message:
        """A message that is there already, for tests."""
        message = cls(trace=trace)
        message.write(octets)
        return message

    @classmethod
    def at(cls, path: Path, trace: bytes = b"") -> Message:
        """The message in this file, which stays.  Raises OSError."""
        return cls._in_file(path, path.open("rb"), trace, keeps=True)

    @classmethod
    def taken(cls, path: Path) -> Message:
        """The message in this file, which somebody else has made for us: `close` removes it.  Raises OSError."""
        # Whoever made it is not trusted: no link, no device, no pipe that nobody writes to.
        file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            file.close()
            raise OSError(errno.EINVAL, "is no regular file", str(path))
        return cls._in_file(path, file, b"")

    @classmethod
    def _in_file(cls, path: Path, file: IO[bytes], trace: bytes, *, keeps: bool = False) -> Message:
        message = cls(trace=trace)
        message._held, message._path, message._file, message._keeps = None, path, file, keeps
        message.size = os.fstat(file.fileno()).st_size
        return message

    #: Does the file belong to somebody else?
    _keeps = False

    # -- what the server does --------------------------------------------------------------------------------------

    def write(self, block: bytes) -> None:
        """The next octets.  Raises OSError."""
        self.size += len(block)
        if self._held is not None:
            self._held += block
            if len(self._held) > IN_MEMORY:
                self._to_file()
        else:
            assert self._file is not None
            self._file.write(block)
            self._written = False

    def close(self) -> None:
        """Forget it; also twice.  Never raises."""
        with self._lock:
            self._closed = True
            self._held = bytearray()
            self._part = None
            file, self._file = self._file, None
            path, self._path = self._path, None
        readers, self._readers = self._readers, []
        for reader in readers:
            reader.close()
        with contextlib.suppress(OSError):
            if file is not None:
                file.close()
        if path is not None and not self._keeps:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)

    def flush(self) -> None:
        """All is in the file, if there is one: a full disk is noticed now.  Raises OSError."""
        with self._lock:
            if self._file is not None:
                self._flushed()

    def _to_file(self) -> None:
        folder = self._folder() if self._folder is not None else None
        # mkstemp: mode 0600, O_EXCL and O_NOFOLLOW, a name that nobody can guess.
        descriptor, name = tempfile.mkstemp(suffix=".eml", prefix=PREFIX, dir=folder)
        self._path = Path(name)
        self._file = os.fdopen(descriptor, "r+b")
        self._file.write(self._held or b"")
        self._held = None
        self._written = False

    def _open(self) -> None:
        """Raises ValueError when it is closed: it would seem to be an empty message."""
        if self._closed:
            raise ValueError("the message is over: it was answered, or its connection has gone")

    def _flushed(self) -> IO[bytes]:
        assert self._file is not None
        if not self._written:
            self._file.flush()
            self._written = True
        return self._file

    # -- what an app does ------------------------------------------------------------------------------------------

    async def blocks(self, size: int = BLOCK) -> AsyncIterator[bytes]:
        """The message in blocks of at most `size` octets.  It may be read again."""
        for block in self.iter_blocks(size):
            yield block

    def iter_blocks(self, size: int = BLOCK) -> Iterator[bytes]:
        """The same for code that is no coroutine."""
        with self._lock:
            self._open()
            held = None if self._held is None else bytes(self._held)
            descriptor = os.dup(self._flushed().fileno()) if held is None else -1
        if held is not None:
            for start in range(0, len(held), size):
                yield held[start : start + size]
            return
        try:
            at = 0
            while block := os.pread(descriptor, size, at):
                at += len(block)
                yield block
        finally:
            os.close(descriptor)

    def read(self) -> bytes:
        """The whole message, however large it is."""
        return b"".join(self.iter_blocks())

    @property
    def path(self) -> Path:
        """A file that holds the message, mode 0600, until the message is answered.  To keep it, copy or link it."""
        with self._lock:
            self._open()
            if self._path is None:
                self._to_file()
            self._flushed()
            assert self._path is not None
            return self._path

    @property
    def mime(self) -> Part:
        """The message decoded (`mailserver.mime`).  Never raises for bad mail; `defects` says what is odd."""
        self._open()
        if self._part is None:
            from mailserver.mime import decode

            self._part = decode(bytes(self._held)) if self._held is not None else decode(self._reader())
        return self._part

    def _reader(self) -> BinaryIO:
        with self._lock:
            self._open()
            self._flushed()
            assert self._path is not None
            self._readers.append(self._path.open("rb"))
            return self._readers[-1]

    def __len__(self) -> int:
        return self.size

    def __repr__(self) -> str:
        return f"<Message of {self.size} octets>"
