"""
What lies in the mailboxes, held against the notes: the judge.

In: the directory of the mail, the notes.  Out: `Defect`s; none when every message answered 250 is there once in each of
its mailboxes, octet by octet, when nothing that is there is broken, and when nothing is there that was refused.
A message without an answer may be there, whole, and once.  `Reader` moves mail as a mail program does.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.crash.messages import inspect
from tests.crash.notes import ACKNOWLEDGED, Notes
from tests.interop.running import PATIENCE, PULSE

#: The process in the name of a file of ours: `mailserver/maildir/names.py`.
_PID = re.compile(r"P(\d+)Q")
#: Seconds between two files that the reader moves.
PACE = 0.03

LOST, DOUBLE, TORN, UNWANTED, STRANGE, LEFT = (
    "lost",
    "double",
    "torn",
    "refused, but there",
    "strange",
    "left in tmp/",
)


@dataclass(frozen=True)
class Defect:
    """Something that must not be. kind: one of the words above, or another. what: for a person."""

    kind: str
    what: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.what}"


class Loss(AssertionError):  # noqa: N818 - it says what happened
    """The promise was broken."""

    def __init__(self, defects: Sequence[Defect]) -> None:
        shown = [str(each) for each in defects[:20]]
        if len(defects) > len(shown):
            shown.append(f"and {len(defects) - len(shown)} more")
        super().__init__(f"{len(defects)} defects:\n  " + "\n  ".join(shown))
        self.defects = tuple(defects)

    def kinds(self) -> set[str]:
        """Which kinds of defects there are."""
        return {each.kind for each in self.defects}


@dataclass(frozen=True)
class Mailboxes:
    """root: the directory of the mail. addresses: of all mailboxes."""

    root: Path
    addresses: tuple[str, ...]

    def maildir(self, address: str) -> Path:
        """The Maildir of an address of ours."""
        local, _, domain = address.partition("@")
        return self.root / domain / local

    def judge(self, notes: Notes) -> list[Defect]:
        """All that is wrong; the server must be at rest or dead."""
        defects: list[Defect] = []
        entries = notes.entries()
        found: dict[tuple[str, str], list[Path]] = {}
        for address in self.addresses:
            for path in self._files(address):
                file = inspect(path.read_bytes())
                if file.trouble is not None:
                    defects.append(Defect(TORN, f"{path}: {file.id}: {file.trouble}"))
                elif file.id not in entries:
                    defects.append(Defect(STRANGE, f"{path}: {file.id} was never sent"))
                else:
                    if file.digest != entries[file.id].digest:
                        defects.append(Defect(TORN, f"{path}: {file.id}: its header is not the one that was sent"))
                    if address not in entries[file.id].recipients:
                        defects.append(Defect(STRANGE, f"{path}: {file.id} was not for {address}"))
                    found.setdefault((file.id, address), []).append(path)
        for name, entry in entries.items():
            for address in entry.recipients:
                paths = found.get((name, address), [])
                if entry.reply == ACKNOWLEDGED and not paths:
                    defects.append(Defect(LOST, f"{name} for {address} was answered 250"))
                if entry.reply not in (ACKNOWLEDGED, None) and paths:
                    defects.append(Defect(UNWANTED, f"{paths[0]}: {name} was answered {entry.reply}"))
                if len(paths) > 1:
                    defects.append(Defect(DOUBLE, f"{name}: {', '.join(map(str, paths))}"))
        return defects

    def size(self) -> int:
        """Octets of all messages."""
        return sum(path.stat().st_size for address in self.addresses for path in self._files(address))

    def leftovers(self) -> list[Path]:
        """
        The files in the tmp/ directories.  Not those whose name has the number of a process that runs: the sweep cannot
        know that it is another one by now, and leaves them for 36 hours.
        """
        left = []
        for address in self.addresses:
            for path in _entries(self.maildir(address) / "tmp"):
                owner = _PID.search(path.name)
                if owner is None or not Path("/proc", owner[1]).exists():
                    left.append(path)
        return left

    def temporary(self) -> list[Path]:
        """All files in the tmp/ directories."""
        return [path for address in self.addresses for path in _entries(self.maildir(address) / "tmp")]

    def await_empty(self, look: Callable[[], list[Path]]) -> list[Defect]:
        """Wait until `leftovers`, or `temporary`, finds nothing; what is there still after `PATIENCE`."""
        deadline = time.monotonic() + PATIENCE
        while (left := look()) and time.monotonic() < deadline:
            time.sleep(PULSE)
        return [Defect(LEFT, str(path)) for path in left]

    def _files(self, address: str) -> list[Path]:
        maildir = self.maildir(address)
        return [*_entries(maildir / "new"), *_entries(maildir / "cur")]


class Reader:
    """A mail program: moves messages from new/ to cur/ while others come in; for tests of what a restart thinks of that."""

    def __init__(self, mailboxes: Mailboxes, seed: str) -> None:
        self._mailboxes = mailboxes
        self._chance = random.Random(seed)
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="reader")

    def start(self) -> Reader:
        """Begin."""
        self._thread.start()
        return self

    def stop(self) -> None:
        """End."""
        self._ending.set()
        self._thread.join(PATIENCE)

    def _run(self) -> None:
        while not self._ending.wait(PACE):
            maildir = self._mailboxes.maildir(self._chance.choice(self._mailboxes.addresses))
            waiting = _entries(maildir / "new")
            if waiting:
                path = self._chance.choice(waiting)
                with contextlib.suppress(FileNotFoundError):
                    path.rename(maildir / "cur" / f"{path.name}:2,{self._chance.choice(('', 'S', 'FS', 'RS'))}")


def _entries(directory: Path) -> list[Path]:
    try:
        return [directory / name for name in sorted(os.listdir(directory))]
    except FileNotFoundError:
        return []
