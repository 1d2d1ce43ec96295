"""
The library that makes system calls fail (`tests/crash/shim.c`): built once, told at any time what to do.

In: a directory for its control file; which calls fail, how, which ones in turn.  Out: the environment of a server that
has it; how many calls have failed.
"""

from __future__ import annotations

import atexit
import errno
import mmap
import shutil
import struct
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

#: The words of shim.c.
CALLS = {
    "open": 1,
    "write": 2,
    "fsync": 4,
    "syncfs": 8,
    "rename": 16,
    "link": 32,
    "unlink": 64,
    "mkdir": 128,
    "truncate": 256,
}
IGNORE, SHORT = 0, 4096
ALWAYS = 0xFFFFFFFF
_CONTROL = struct.Struct("=IiIIIIIII")
_SOURCE = Path(__file__).with_name("shim.c")
_built: list[Path] = []


def missing() -> str | None:
    """Why it cannot be built; None when it can."""
    return None if shutil.which("cc") else "cc is not installed (apt install gcc libc6-dev)"


def library() -> Path:
    """The shared object, built when it is first asked for.  AssertionError with what the compiler says."""
    if not _built:
        directory = Path(tempfile.mkdtemp(prefix="mailserver-crash-shim-"))
        atexit.register(shutil.rmtree, directory, ignore_errors=True)
        target = directory / "shim.so"
        command = ["cc", "-shared", "-fPIC", "-O1", "-Wall", "-o", str(target), str(_SOURCE), "-ldl", "-pthread"]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, timeout=120)
        if done.returncode != 0:
            raise AssertionError(done.stdout.decode("utf-8", "replace"))
        _built.append(target)
    return _built[0]


@dataclass(frozen=True)
class Counts:
    """What the calls of the armed kinds came to. See `struct control` in shim.c."""

    seen: int
    failed: int
    repeated: int
    loaded: int
    aio: int


class Shim:
    """One control file. root: the directory below which calls may fail. spare: a word of paths that are left alone."""

    def __init__(self, directory: Path, root: Path, spare: str = "accounts") -> None:
        path = directory / "shim"
        path.write_bytes(bytes(_CONTROL.size))
        with path.open("r+b") as file:
            self._shared = mmap.mmap(file.fileno(), _CONTROL.size)
        self.environ = {
            "LD_PRELOAD": str(library()),
            "CRASH_SHIM_CONTROL": str(path),
            "CRASH_SHIM_ROOT": str(root),
            "CRASH_SHIM_SPARE": spare,
        }

    def arm(self, calls: str, error: int, *, skip: int = 0, times: int = ALWAYS) -> None:
        """calls: words of `CALLS`, with blanks. error: an errno, `IGNORE` or `SHORT`. The counts begin anew."""
        words = sum(CALLS[word] for word in calls.split())
        loaded = self.counts().loaded
        self.disarm()
        struct.pack_into("=iIIIIII", self._shared, 4, error, skip, times, 0, 0, 0, loaded)
        struct.pack_into("=I", self._shared, 0, words)  # last: from now on it counts

    def disarm(self) -> None:
        """Everything works again; the counts stay."""
        struct.pack_into("=I", self._shared, 0, 0)

    def counts(self) -> Counts:
        """What has happened since `arm`."""
        return Counts(*_CONTROL.unpack_from(self._shared)[4:])

    def close(self) -> None:
        """Let go of the control file."""
        self._shared.close()


def name_of(error: int) -> str:
    """EIO for errno.EIO."""
    return {IGNORE: "ignored", SHORT: "short"}.get(error) or errno.errorcode[error]
