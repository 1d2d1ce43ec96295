"""
Disks that can lose their power, and disks that are small.

In: a directory with some hundred MiB of space; root.  Out: mounted file systems, all of which are gone at the end.

`PowerDisk`: an ext4 in a loop file that lies on an xfs with reflinks, which lies in a loop file itself.  A power cut is a
copy of the inner file at one instant (`cp --reflink`; XFS holds all writes while it shares the blocks): what the ext4 has
not handed to its disk by then is lost, and mounting the copy replays the journal of the ext4 as after a real one.  It is
mounted with a commit interval of 300 seconds, so that it does not hand over by itself what the server has forgotten to sync.
`SmallDisk`: a tmpfs that can be filled.

Mounts are made in a mount namespace of our own, where the kernel allows it: then they end with this process, however it
ends.  ext4(5), xfs(5), mount_namespaces(7).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

MIB = 1 << 20
_NEW_NAMESPACE = 0x00020000  # CLONE_NEWNS
COMMIT_INTERVAL = 300
_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
_private: list[bool] = []


def _call(*command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    program = shutil.which(command[0], path=_PATH)
    if program is None:
        raise AssertionError(f"{command[0]} is not installed")
    done = subprocess.run([program, *command[1:]], capture_output=True, text=True, timeout=60, check=False)
    if check and done.returncode != 0:
        raise AssertionError(f"{' '.join(command)}: {done.stdout}{done.stderr}")
    return done


def private_mounts() -> None:
    """Leave the mount namespace of the machine, once; where that is not allowed, stay."""
    if _private:
        return
    if ctypes.CDLL(None, use_errno=True).unshare(_NEW_NAMESPACE) == 0:
        _call("mount", "--make-rprivate", "/")
    _private.append(True)


def _unmount(path: Path) -> None:
    if os.path.ismount(path) and _call("umount", str(path), check=False).returncode != 0:
        _call("umount", "--lazy", str(path))


def missing_for_small() -> str | None:
    """Why there can be no `SmallDisk`; None when there can."""
    return _missing("small", SmallDisk)


def missing_for_power() -> str | None:
    """Why there can be no `PowerDisk`; None when there can."""
    for program, package in (("mkfs.ext4", "e2fsprogs"), ("mkfs.xfs", "xfsprogs")):
        if shutil.which(program, path=_PATH) is None:
            return f"{program} is not installed (apt install {package})"
    return _missing("power", PowerDisk)


_reasons: dict[str, str | None] = {}


def _missing(name: str, disk: type[SmallDisk | PowerDisk]) -> str | None:
    if os.geteuid() != 0:
        return "only root may mount"
    if name not in _reasons:
        _reasons[name] = None
        directory = Path(tempfile.mkdtemp(prefix="mailserver-crash-"))
        try:
            with disk(directory):
                pass
        except AssertionError as error:
            _reasons[name] = f"this machine cannot mount it: {str(error).splitlines()[0]}"
        finally:
            shutil.rmtree(directory, ignore_errors=True)
    return _reasons[name]


class _Disk:
    """What both have: a mount point, `top`, and an end."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.top = directory / "disk"
        private_mounts()

    def __enter__(self) -> Self:
        try:
            self.make()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def make(self) -> None:
        """Make and mount it."""
        raise NotImplementedError

    def close(self) -> None:
        """Unmount all of it; also when nothing is mounted."""
        raise NotImplementedError


class PowerDisk(_Disk):
    """directory: where the outer file lies; it grows to `outer` octets at most."""

    inner = 640 * MIB
    outer = 1600 * MIB

    def make(self) -> None:
        """The outer file system, and a fresh inner one."""
        self._shelf = self.directory / "xfs"
        self._outer = self.directory / "xfs.img"
        for path in (self._shelf, self.top):
            path.mkdir(exist_ok=True)
        with self._outer.open("wb") as file:
            file.truncate(self.outer)
        _call("mkfs.xfs", "-q", "-f", "-m", "reflink=1", str(self._outer))
        _call("mount", "-o", "loop", str(self._outer), str(self._shelf))
        self._image = self._shelf / "disk.img"
        self._copy = self._shelf / "cut.img"
        self.fresh()

    def fresh(self) -> None:
        """An empty inner file system."""
        _unmount(self.top)
        for path in (self._image, self._copy):
            path.unlink(missing_ok=True)
        with self._image.open("wb") as file:
            file.truncate(self.inner)
        _call("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", str(self._image))
        self._mount()

    def cut(self) -> None:
        """What the disk holds at this instant is all that will be left."""
        _call("cp", "--reflink=always", str(self._image), str(self._copy))

    def power_on(self) -> None:
        """Mount what was left by `cut`, in place of the disk.  Nobody may use the disk any more."""
        _unmount(self.top)
        self._copy.replace(self._image)
        self._mount()

    def close(self) -> None:
        """Unmount both, remove their files."""
        _unmount(self.top)
        if hasattr(self, "_shelf"):
            _unmount(self._shelf)
            self._outer.unlink(missing_ok=True)

    def _mount(self) -> None:
        _call("mount", "-o", f"loop,commit={COMMIT_INTERVAL}", str(self._image), str(self.top))


class SmallDisk(_Disk):
    """A disk in memory that can be filled."""

    size = 128 * MIB

    def make(self) -> None:
        """Mount it."""
        self.top.mkdir(exist_ok=True)
        _call("mount", "-t", "tmpfs", "-o", f"size={self.size},mode=755", "crash-test", str(self.top))
        self._ballast = self.top / "ballast"

    def free(self) -> int:
        """Octets."""
        found = os.statvfs(self.top)
        return found.f_bavail * found.f_frsize

    def fill(self, rest: int = 0) -> None:
        """Leave so many octets; what others take meanwhile is theirs."""
        with self._ballast.open("ab") as file, contextlib.suppress(OSError):
            while (room := self.free() - rest) > 0:
                file.write(bytes(min(room, MIB)))
                file.flush()

    def relieve(self) -> None:
        """There is room again."""
        self._ballast.unlink(missing_ok=True)

    def close(self) -> None:
        """Unmount it."""
        _unmount(self.top)
