"""
The file system that is measured: ext4 with its journal, in a file whose blocks are all written, mounted by the loop
device.

In: a folder with room.  Out: for each round a fresh, empty file system, so that no round pays for what another has
left or deleted.  Only root can mount: without, a plain folder takes its place, and `Disk.describe` says so.
Why: a file system without a journal, holes that the first write has to fill, or a million deleted files distort what
is measured, and not for all servers in the same way.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from bench.run import BenchError, run

_BLOCK = 4 * 2**20
#: One inode for so many octets: for a million small messages.
_INODE_RATIO = 4096


#: <linux/sched.h>
_CLONE_NEWNS = 0x00020000


def _leave_others() -> None:
    """
    Mount where only this process and its children see it: a container that starts meanwhile would copy the mount, and
    keep the device busy when we have unmounted it.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNS) != 0:
        raise BenchError(f"no mounts of our own: {os.strerror(ctypes.get_errno())}")
    run(["mount", "--make-rprivate", "/"])


class Disk:
    """
    directory: where the file is made.  size: its octets; less when there is less room.  loop: False takes a folder.
    """

    def __init__(self, directory: Path, size: int, *, loop: bool) -> None:
        free = shutil.disk_usage(directory).free
        self.size = min(size, free // 2) // _BLOCK * _BLOCK
        if self.size < 2**30:
            raise BenchError(f"{directory}: the benchmark needs 2 GiB, {free // 2**20} MiB are free")
        self._loop = loop
        self._image = directory / "disk.img"
        self._mounted = directory / "disk"
        self._mounted.mkdir()
        self._device = ""  # "/dev/loop0"; "" for a folder

    def describe(self) -> str:
        """For the report."""
        if not self._loop:
            return "a folder of the machine's own file system (nothing was mounted)"
        size = f"{self.size / 2**30:.1f} GiB"
        return f"ext4 with its journal, in a file of {size} with all blocks written, by the loop device"

    @contextlib.contextmanager
    def attached(self) -> Iterator[None]:
        """Write every block of the file once; it is a device until the end of the block."""
        if not self._loop:
            yield
            return
        with self._image.open("wb") as file:
            for _ in range(self.size // _BLOCK):
                file.write(bytes(_BLOCK))
            file.flush()
            os.fsync(file.fileno())
        _leave_others()
        # One device for all rounds: `mount -o loop` can get one that still remembers blocks of the round before.
        self._device = run(["losetup", "--find", "--show", str(self._image)]).strip()
        try:
            yield
        finally:
            run(["losetup", "--detach", self._device])
            self._device = ""

    @contextlib.contextmanager
    def fresh(self) -> Iterator[Path]:
        """An empty file system, until the end of the block; all that use it must have ended then."""
        if not self._device:
            try:
                yield self._mounted
            finally:
                shutil.rmtree(self._mounted, ignore_errors=True)
                self._mounted.mkdir()
            return
        # nodiscard: mkfs would punch holes into the file.  lazy_*: nothing is left to be done in the background.
        options = "nodiscard,lazy_itable_init=0,lazy_journal_init=0"
        run(["mkfs.ext4", "-q", "-F", "-i", str(_INODE_RATIO), "-E", options, self._device])
        run(["mount", self._device, str(self._mounted)])
        try:
            self._mounted.chmod(0o755)
            yield self._mounted
        finally:
            self._unmount()

    def _unmount(self) -> None:
        for attempt in range(50):
            done = subprocess.run(["umount", str(self._mounted)], capture_output=True, check=False)
            if done.returncode == 0:
                return
            time.sleep(0.1 * (attempt + 1))
        raise BenchError(f"{self._mounted} cannot be unmounted: {done.stderr.decode().strip()}")

    def flushes(self) -> int:
        """How often the device was told to flush its cache, since it was made; 0 when that is not known."""
        with contextlib.suppress(OSError, IndexError):
            # Documentation/block/stat.rst of Linux: the 16th number.
            return int(Path("/sys/block", Path(self._device).name, "stat").read_text().split()[15])
        return 0

    def number(self) -> int:
        """The device as Linux' trace points number it."""
        status = self._mounted.stat()
        return os.major(status.st_dev) << 20 | os.minor(status.st_dev)

    def sync(self) -> None:
        """Write everything back that waits in memory."""
        run(["sync", "-f", str(self._mounted)])
