"""
Is anything ever visible in new/ that is not whole?  Watched while the server works.

In: directories.  Out: `Defect`s.  The kernel tells of each name that appears (inotify), and the file is read at once;
it also tells of each write to a file that has a name there, and that alone is a defect: whoever reads the mailbox could
have seen the file before it.

inotify(7), through the C library that Python runs on.
"""

from __future__ import annotations

import ctypes
import os
import select
import struct
import threading
from collections.abc import Sequence
from pathlib import Path

from tests.crash.mailboxes import TORN, Defect
from tests.crash.messages import inspect
from tests.interop.running import PATIENCE

_MODIFY, _MOVED_TO, _CREATE, _OVERFLOW = 0x002, 0x080, 0x100, 0x4000
_EVENT = struct.Struct("iIII")
_libc = ctypes.CDLL(None, use_errno=True)


class Watcher:
    """directories: those in which every file must be whole. Those that do not exist yet are not watched."""

    def __init__(self, directories: Sequence[Path]) -> None:
        self.defects: list[Defect] = []
        #: Files that were looked at.
        self.seen = 0
        self._notify = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._notify < 0:
            raise OSError(ctypes.get_errno(), "inotify_init1")
        self._watched: dict[int, Path] = {}
        for directory in filter(Path.is_dir, directories):
            number = _libc.inotify_add_watch(self._notify, os.fsencode(directory), _MODIFY | _MOVED_TO | _CREATE)
            if number < 0:
                raise OSError(ctypes.get_errno(), "inotify_add_watch", str(directory))
            self._watched[number] = directory
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watcher")
        self._thread.start()

    def stop(self) -> list[Defect]:
        """End, when all is looked at that has happened before; what was wrong."""
        if not self._ending.is_set():
            self._ending.set()
            self._thread.join(PATIENCE)
            os.close(self._notify)
        return self.defects

    def _run(self) -> None:
        while True:
            ending = self._ending.is_set()
            ready, _, _ = select.select([self._notify], [], [], 0 if ending else 0.05)
            if ready:
                self._take(os.read(self._notify, 1 << 20))
            elif ending:
                return

    def _take(self, events: bytes) -> None:
        start = 0
        while start < len(events):
            number, mask, _, length = _EVENT.unpack_from(events, start)
            name = events[start + _EVENT.size : start + _EVENT.size + length].rstrip(b"\0")
            start += _EVENT.size + length
            if mask & _OVERFLOW:
                for directory in self._watched.values():
                    for path in directory.iterdir():
                        self._look(path)
            elif number in self._watched and name:
                path = self._watched[number] / os.fsdecode(name)
                if mask & _MODIFY:
                    self.defects.append(Defect(TORN, f"{path}: is written to while it can be seen"))
                elif mask & (_MOVED_TO | _CREATE):
                    self._look(path)

    def _look(self, path: Path) -> None:
        try:
            stored = path.read_bytes()
        except FileNotFoundError:
            return  # taken away again, or moved by the reader
        self.seen += 1
        found = inspect(stored)
        if found.trouble is not None:
            self.defects.append(Defect(TORN, f"{path}: as soon as it can be seen: {found.id}: {found.trouble}"))
