"""
The folder of held messages: one file for each, on the disk.

    spool/held/     those that wait
    spool/failed/   those that could not be delivered, and nobody could be told
    spool/bad/      files that are no message of ours, or not whole; never deleted by us
    spool/tmp/      files that are being written

In: `Held`, names.  Out: `Entry` (what a listing tells), `Claim` (one message, for one process at a time).
A claim is a lock (flock) on the message's own file, so any number of processes - workers, the command line - may work
in the folder at the same time; the kernel gives the lock back when one of them dies.
Every function may block.  Failures: OSError; `Damaged` for a file that cannot be used.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mailserver.durable import Files, make_directories
from mailserver.durable.files import FILES, OLD
from mailserver.durable.whole import move_file, remove_file, write_file
from mailserver.spool.held import Damaged, FileName, Held, read_line

#: In the data directory.
DIRECTORY = "spool"
HELD, FAILED, BAD, TMP = "held", "failed", "bad", "tmp"
#: A first line may have so many octets: 100,000 recipients with their parameters.
LONGEST_LINE = 64 * 1024 * 1024
#: Octets that are read at once.
BLOCK = 256 * 1024
#: Seconds after which a file in tmp/ is a leftover.
LEFTOVER_AGE = 36 * 3600.0


@dataclass(frozen=True, slots=True)
class Entry:
    """What a listing tells of one file."""

    path: str
    name: FileName


class Folder:
    """
    directory: `data_dir/spool`.  unique_name: the name of the next temporary file, never given twice.
    """

    def __init__(self, directory: Path, unique_name: Callable[[], str], files: Files = FILES) -> None:
        self.directory = directory
        self._unique_name = unique_name
        self.files = files

    def make(self) -> None:
        """Make the directories, 0700."""
        make_directories(*(self.directory / name for name in (HELD, FAILED, BAD, TMP)), files=self.files)

    def path(self, kind: str, name: str) -> str:
        """Of the file of this name."""
        return f"{self.directory}/{kind}/{name}"

    def entries(self, kind: str = HELD) -> tuple[list[Entry], list[str]]:
        """What is there, the earliest release first; and the paths of files whose names are none of ours."""
        found, foreign = [], []
        with contextlib.suppress(FileNotFoundError), os.scandir(self.directory / kind) as entries:
            for entry in entries:
                try:
                    found.append(Entry(entry.path, FileName.read(entry.name)))
                except Damaged:
                    foreign.append(entry.path)
        return sorted(found, key=lambda each: (each.name.due, each.name.id)), foreign

    def count(self, mark: str) -> int:
        """How many messages of this account wait."""
        return sum(entry.name.mark == mark for entry in self.entries()[0])

    def find(self, id: str, kind: str = HELD) -> Entry | None:  # noqa: A002 - the domain's term
        """The message of this id."""
        return next((entry for entry in self.entries(kind)[0] if entry.name.id == id), None)

    def claim(self, entry: Entry) -> Claim | None:
        """
        This message, for nobody else until the claim is closed; None: it is gone, or somebody else has it.

        Raises Damaged.
        """
        try:
            descriptor = self.files.open(entry.path, OLD)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise Damaged(f"cannot be opened: {error.strerror}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Whoever had it may have replaced or removed it while we came.
            ours, there = os.fstat(descriptor), os.stat(entry.path, follow_symlinks=False)
            if (ours.st_dev, ours.st_ino) == (there.st_dev, there.st_ino):
                return Claim(self, entry, descriptor)
        except (BlockingIOError, FileNotFoundError):
            pass
        except BaseException:
            self.files.close(descriptor)
            raise
        self.files.close(descriptor)
        return None

    def read(self, entry: Entry) -> Held:
        """What is known of a message, also while somebody has it.  Raises Damaged, FileNotFoundError."""
        with open(entry.path, "rb") as file:
            return read_line(file.readline(LONGEST_LINE))

    def set_aside(self, path: str) -> str:
        """Move a file that cannot be used to bad/, under a name that no other has there.  Returns its path."""
        target = self.path(BAD, f"{os.path.basename(path)[:150]}.{self._unique_name()}")
        move_file(path, target, self.files)
        return target

    def temporary(self) -> str:
        """A new path in tmp/."""
        return self.path(TMP, self._unique_name())

    def sweep(self, is_leftover: Callable[[str], bool], now: Callable[[], float] = time.time) -> int:
        """
        Remove what writers that are gone have left in tmp/.  is_leftover: does this name tell that?

        Returns how many files.
        """
        removed = 0
        with contextlib.suppress(FileNotFoundError), os.scandir(self.directory / TMP) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    age = now() - entry.stat(follow_symlinks=False).st_mtime
                    if is_leftover(entry.name) or age > LEFTOVER_AGE:
                        os.unlink(entry.path)
                        removed += 1
        return removed


class Claim:
    """One message that nobody else touches; made by `Folder.claim`.  held: as its file has it."""

    def __init__(self, folder: Folder, entry: Entry, descriptor: int) -> None:
        self._folder = folder
        self._descriptor = descriptor
        self.entry = entry
        line = bytearray()
        while b"\n" not in line and len(line) < LONGEST_LINE:
            block = folder.files.read(descriptor, BLOCK, len(line))
            if not block:
                raise Damaged("the first line has no end")
            line += block
        self._start = line.find(b"\n") + 1
        self.held = read_line(bytes(line[: self._start]))
        octets = os.fstat(descriptor).st_size - self._start
        if octets != entry.name.octets:
            raise Damaged(f"its text has {octets} octets, not {entry.name.octets}")

    @property
    def octets(self) -> int:
        """Of the text."""
        return self.entry.name.octets

    def text(self, at: int, size: int = BLOCK) -> bytes:
        """Octets of the text from `at` on; b"" at its end."""
        return self._folder.files.read(self._descriptor, size, self._start + at)

    def reschedule(self, held: Held) -> None:
        """What is known has changed.  Durable when this returns; the claim can only be closed then."""
        self._rewrite(held, HELD)

    def fail(self, held: Held) -> str:
        """Move it to failed/, with what is known of it.  Returns its path."""
        return self._rewrite(held, FAILED)

    def remove(self) -> None:
        """It will not come back."""
        remove_file(self.entry.path, self._folder.files)

    def close(self) -> None:
        """Others may have it; also twice."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            self._folder.files.close(descriptor)

    def _rewrite(self, held: Held, kind: str) -> str:
        folder = self._folder
        target = folder.path(kind, held.name(self.octets))
        write_file(target, folder.temporary(), self._blocks(held), folder.files)
        if target != self.entry.path:
            # Should the power go before this, there are two, and the second finds what the first has delivered.
            self.remove()
        return target

    def _blocks(self, held: Held) -> Iterator[bytes]:
        yield held.line()
        at = 0
        while block := self.text(at):
            yield block
            at += len(block)
