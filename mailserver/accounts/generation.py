"""
The file `accounts.sqlite3-generation`: tells other processes, cheaply, that something was written.

In: a path.  Out: `read`, a few octets that are others after each `change` by any process.
Failures: none; `read` gives None when the file cannot be used, and nothing should be kept then.

It holds random octets and no number: two processes that count at once would need a lock, or could count to the same.
It is read with pread (0.5 us).  A mapping would be ten times as fast, and the first access after somebody has cut the
file short would kill the process (SIGBUS).  Whoever removes the file does no harm: once a second
`AccountsDatabase.version` looks whether it is there, and asks SQLite itself whether something was written (3 us).
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from pathlib import Path

from mailserver.accounts.schema import create_file

#: Behind the name of the database, so that whatever cares for `accounts.sqlite3*` cares for this file too.
SUFFIX = "-generation"
_OCTETS = 16


class Generation:
    """path: the file; its first reader makes it.  A closed one opens itself again."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = -1

    def read(self) -> bytes | None:
        """What `change` wrote last, b"" when nothing was; None when that cannot be told.  The file is made."""
        try:
            if self._descriptor < 0:
                create_file(self._path)
                self._open()
            return os.pread(self._descriptor, _OCTETS, 0)
        except OSError:
            return None

    def change(self) -> None:
        """
        Something was written; to be called behind the commit.

        Without the file there is nobody to be told: who makes it later reads the data after that.  It never fails:
        the data is written, and those who are not told find it a second later.
        """
        self.look()
        with contextlib.suppress(OSError):
            if self._descriptor < 0:
                self._open()
            os.pwrite(self._descriptor, os.urandom(_OCTETS), 0)

    def look(self) -> None:
        """Let go of a file that is no longer the one of this name: somebody has removed or replaced it."""
        if self._descriptor < 0:
            return
        try:
            same = os.path.samestat(os.lstat(self._path), os.fstat(self._descriptor))
        except OSError:
            same = False
        if not same:
            self.close()

    def close(self) -> None:
        """Close the file; the next use opens it again."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _open(self) -> None:
        # A FIFO must not make us wait before we have seen what it is.
        descriptor = os.open(self._path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        state = os.fstat(descriptor)
        if not stat.S_ISREG(state.st_mode) or state.st_nlink > 1:
            # By another name it could be a file that root may write to, but not the owner of the directory.
            os.close(descriptor)
            raise OSError(errno.EINVAL, "not a regular file with one name", str(self._path))
        self._descriptor = descriptor
