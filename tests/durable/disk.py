"""
A disk for the tests of `mailserver.durable`: real files, a record of all that was done to them, and what a power cut
leaves of it.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, execute
from twisted.internet.task import Clock

from mailserver.durable import Durable, Files, NewFile
from mailserver.durable.recovery import Place, Report, recover
from mailserver.durable.segments import Running
from mailserver.maildir.names import sizes

SMALL = 100  # the octets a draft keeps in memory in these tests


class DirectoryEntry:
    """One operation on a directory: an entry appears (inode) or goes (None)."""

    def __init__(self, path: Path | str, inode: int | None) -> None:
        self.path, self.inode = Path(path), inode


class Data:
    """Octets for a file; at: their place in it, None for the end."""

    def __init__(self, inode: int, data: bytes, at: int | None = None) -> None:
        self.inode, self.data, self.at = inode, data, at


class Sync:
    """An fsync of a file, or of a directory with its path; inode -1: of everything."""

    def __init__(self, inode: int, path: Path | None) -> None:
        self.inode, self.path = inode, path


class RecordingFiles(Files):
    """
    Real files, and a record of what was done to them.

    fail_at: the number of the call that fails, with `error`.  fail: names of calls that fail from now on.
    short: write only half of what is asked.  links: what link(2) says, for a pair of paths.
    """

    def __init__(self, fail_at: int = -1, error: int = errno.EIO) -> None:
        self.fail_at, self.error = fail_at, error
        self.fail: set[str] = set()
        self.calls: list[str] = []
        self.operations: list[DirectoryEntry | Data | Sync] = []
        self.opened: dict[int, tuple[int, Path | None]] = {}  # descriptor -> inode, path of a directory
        self.inodes: dict[int, int] = {}  # st_ino, which is given again -> one that is not
        self.synced: set[int] = set()  # descriptors, while they are open
        self.unsynced: set[int] = set()  # on which a sync has failed, while they are open
        self.most_blocks = 0  # of one write_at
        self.short = False
        self.links: Callable[[str, str], int] = lambda source, target: 0
        self.devices: Callable[[int], int] = super().device

    def _call(self, name: str) -> None:
        self.calls.append(name)
        if len(self.calls) - 1 == self.fail_at or name in self.fail:
            raise OSError(self.error, "injected", name)

    def open(self, path: Path | str, flags: int) -> int:
        self._call("open")
        descriptor = super().open(path, flags)
        if flags & os.O_CREAT:
            assert flags & os.O_EXCL and flags & os.O_NOFOLLOW and flags & os.O_CLOEXEC
            self.inodes[os.fstat(descriptor).st_ino] = len(self.operations) + 1
            self.operations.append(DirectoryEntry(path, self.inode(path)))
        self.opened[descriptor] = self.inode(path), Path(path) if flags & os.O_DIRECTORY else None
        return descriptor

    def inode(self, path: Path | str) -> int:
        return self.inodes.get(os.lstat(path).st_ino, 0)

    def know(self, path: Path) -> int:
        """A file that was made by others."""
        return self.inodes.setdefault(os.lstat(path).st_ino, 1_000_000 + len(self.inodes))

    def write(self, descriptor: int, data: bytes | memoryview) -> int:
        self._call("write")
        written = super().write(descriptor, data[: max(1, len(data) // 2)] if self.short else data)
        self.operations.append(Data(self.opened[descriptor][0], bytes(data[:written])))
        return written

    def write_at(self, descriptor: int, blocks: Sequence[bytes], offset: int) -> int:
        self._call("write_at")
        self.most_blocks = max(self.most_blocks, len(blocks))
        data = b"".join(blocks)
        data = data[: len(data) // 2] if self.short else data
        written = super().write_at(descriptor, [data], offset)
        inode = self.inodes.get(os.fstat(descriptor).st_ino, 0)
        self.operations.append(Data(inode, data, offset))
        return written

    def read(self, descriptor: int, size: int, offset: int) -> bytes:
        self._call("read")
        return super().read(descriptor, size, offset)

    def device(self, descriptor: int) -> int:
        return self.devices(descriptor)

    def fsync(self, descriptor: int) -> None:
        assert descriptor not in self.synced, "fsync twice on one descriptor"
        self.synced.add(descriptor)
        self._call("fsync")
        self.operations.append(Sync(*self.opened.get(descriptor, (0, None))))

    def fdatasync(self, descriptor: int) -> None:
        assert descriptor not in self.unsynced, "fdatasync on a descriptor on which it has failed"
        self.unsynced.add(descriptor)
        self._call("fdatasync")
        self.unsynced.discard(descriptor)
        self.operations.append(Sync(self.inodes.get(os.fstat(descriptor).st_ino, 0), None))

    def syncfs(self, descriptor: int) -> None:
        self._call("syncfs")
        self.operations.append(Sync(-1, None))

    def close(self, descriptor: int) -> None:
        self.opened.pop(descriptor, None)
        self.synced.discard(descriptor)
        self.unsynced.discard(descriptor)
        super().close(descriptor)  # also when an error is told
        self._call("close")

    def link(self, source: Path | str, target: Path | str) -> None:
        self._call("link")
        if number := self.links(str(source), str(target)):
            raise OSError(number, os.strerror(number))
        super().link(source, target)
        self.operations.append(DirectoryEntry(target, self.inode(target)))

    def rename(self, source: Path | str, target: Path | str) -> None:
        self._call("rename")
        super().rename(source, target)
        self.operations += [DirectoryEntry(target, self.inode(target)), DirectoryEntry(source, None)]

    def unlink(self, path: Path | str) -> None:
        self._call("unlink")
        super().unlink(path)
        self.operations.append(DirectoryEntry(path, None))

    def exists(self, path: Path | str) -> bool:
        self._call("exists")
        return super().exists(path)

    def mkdir(self, path: Path, mode: int) -> None:
        self._call("mkdir")
        super().mkdir(path, mode)
        self.operations.append(DirectoryEntry(path, 0))

    def rmdir(self, path: Path) -> None:
        self._call("rmdir")
        super().rmdir(path)
        self.operations.append(DirectoryEntry(path, None))


def after_power_cut(
    operations: list[Any],
    keep: Callable[[int], bool],
    *,
    names_come: bool = False,
    torn: bool = False,
    before: dict[Path, tuple[int, bytes]] | None = None,
) -> dict[Path, bytes]:
    """
    What a disk holds when the power goes after these operations: all that was synced, and of the rest what `keep`
    says.  A path is there when all directories made on the way to it are.

    names_come: fsync of a file commits its names, as on ext4.  torn: half of each write that is lost arrives.
    before: path -> inode and content of files that were there.
    """

    def survives(at: int, synced: Callable[[Sync], bool]) -> bool:
        return keep(at) or any(
            isinstance(later, Sync) and (later.inode == -1 or synced(later)) for later in operations[at + 1 :]
        )

    contents: dict[int, bytes] = dict((before or {}).values())
    entries: dict[Path, int | None] = {path: inode for path, (inode, _) in (before or {}).items()}
    made: set[Path] = set()
    for at, operation in enumerate(operations):
        if isinstance(operation, Data):
            data = operation.data
            if not survives(at, lambda sync, inode=operation.inode: sync.inode == inode and sync.path is None):
                data = data[: len(data) // 2] if torn else b""
            old = contents.get(operation.inode, b"")
            start = len(old) if operation.at is None else operation.at
            contents[operation.inode] = old[:start] + data + old[start + len(data) :]
        elif isinstance(operation, DirectoryEntry):
            made.add(operation.path)

            def synced(sync: Sync, operation: DirectoryEntry = operation) -> bool:
                if names_come and operation.inode is not None and sync.path is None:
                    return sync.inode == operation.inode
                return sync.path == operation.path.parent

            if survives(at, synced):
                entries[operation.path] = operation.inode
    there = {path for path, inode in entries.items() if inode is not None}
    return {
        path: contents.get(entries[path] or 0, b"")
        for path in there
        if all(parent in there for parent in path.parents if parent in made)
    }


class Disk:
    """A Durable on recorded files, below a directory of its own."""

    def __init__(self, root: str, files: RecordingFiles | None = None, run: Any = execute, **options: Any) -> None:
        self.root = Path(root).absolute()
        self.files = files or RecordingFiles()
        numbers = count()
        self.durable = Durable(
            run_in_thread=run, unique_name=lambda: f"t{next(numbers)}", files=self.files, memory=SMALL, **options
        )

    def maildirs(self, *names: str) -> None:
        for name in names:
            for kind in ("tmp", "new"):
                (self.root / name / kind).mkdir(parents=True)

    def place(self, mailbox: str, name: str) -> str:
        return f"{self.root}/{mailbox}/new/{name}"

    def draft(self, *blocks: bytes, mailbox: str = "a", others: Sequence[str] = ()) -> Any:
        beside = [f"{self.root}/{other}/tmp" for other in others]
        draft = self.durable.draft(f"{self.root}/{mailbox}/tmp", layout, others=beside)
        for block in blocks:
            outcome(draft.write(block))
        return draft

    def send(self, name: str, content: bytes, *mailboxes: str, partial: bool = False) -> Deferred[Any]:
        """One message to these mailboxes."""
        draft = self.draft(content, mailbox=mailboxes[0], others=mailboxes[1:] if partial else ())
        places = tuple(self.place(mailbox, name) for mailbox in mailboxes)
        return self.durable.create([NewFile(draft, places)], partial=partial)

    def tree(self, kind: str) -> dict[str, bytes]:
        """Every file below the directories called `kind`: "mailbox/name" -> content."""
        return {
            f"{path.parent.parent.name}/{path.name}": path.read_bytes()
            for path in self.root.glob(f"*/{kind}/*")
            if path.is_file()
        }


def layout(directory: Path) -> tuple[Path, Path]:
    """Of a Maildir, without its cur/."""
    return directory.parent / "tmp", directory.parent / "new"


def outcome(result: Deferred[Any] | None) -> Any:
    """None for success, and while there is none; else the exception."""
    got: list[Any] = [None]
    if result is not None:
        result.addBoth(got.append)
    return getattr(got[-1], "value", None)


class LateThread:
    """Runs what it is given when told to: a thread that takes its time."""

    def __init__(self) -> None:
        self.jobs: list[tuple[Deferred[Any], Callable[..., Any], tuple[Any, ...]]] = []

    def __call__(self, job: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        result: Deferred[Any] = Deferred()
        self.jobs.append((result, job, arguments))
        return result

    def work(self) -> None:
        result, job, arguments = self.jobs.pop(0)
        execute(job, *arguments).chainDeferred(result)


class LateSyncer:
    """A `Syncer` on recorded files, which does its work when told to."""

    def __init__(self, files: Files) -> None:
        self.files = files
        self.asked: list[tuple[tuple[int, ...], Any, bool]] = []
        self.stopped = 0

    def sync(self, descriptors: Sequence[int], synced: Any, *, data_only: bool) -> None:
        self.asked.append((tuple(descriptors), synced, data_only))

    def stop(self) -> None:
        assert not self.asked
        self.stopped += 1

    def work(self) -> None:
        descriptors, synced, data_only = self.asked.pop(0)
        found: list[OSError | None] = []
        for descriptor in descriptors:
            try:
                (self.files.fdatasync if data_only else self.files.fsync)(descriptor)
            except OSError as error:
                found.append(error)
            else:
                found.append(None)
        synced(found)


def restart(
    root: Path, left: dict[Path, bytes], new_root: Path, *, last: Running | None, segment_size: int
) -> Report:
    """
    Put what a power cut has left below `root` on a new disk and recover that.  Mail is in root/mail/<domain>/<user>,
    the journal in root/journal.
    """
    for name in ("mail", "journal"):
        (new_root / name).mkdir(parents=True)
    for path, content in left.items():
        path = new_root / path.relative_to(root)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.ljust(segment_size, b"\0") if path.parent.name == "journal" else content)
    numbers = count()
    place = Place(
        root=new_root / "mail",
        files=Files(),
        unique_name=lambda: f"r{next(numbers)}",
        mount=b"after",
        size_of_name=lambda name: sizes(name)[0],
    )
    return recover(new_root / "journal", place, last)


#: What is sent in the scenarios of the committers, each line in one turn: (name, octets, mailboxes).
TURNS = [
    [("1000.M1", 50, ("a",)), ("1000.M2", 90, ("b", "a"))],
    [("1000.M3", 350, ("b",)), ("1000.M4", 20, ("a", "b", "c"))],
    [("1000.M5", 10, ("c",)), ("1000.M6", 95, ("a",)), ("1000.M7", 300, ("c", "a"))],
]


class CommittedDisk(Disk):
    """A `Disk` with a committer; mailboxes are root/mail/d/<name>."""

    def __init__(self, root: str, files: RecordingFiles | None = None, committer: Any = None) -> None:
        self.top = Path(root).absolute()
        super().__init__(f"{root}/mail/d", files)
        self.clock = Clock()
        self.syncer = LateSyncer(self.files)
        self.maildirs("a", "b", "c")
        if committer is not None:
            self.durable.committer = committer(self)

    def settle(self) -> None:
        """All that is waiting is done."""
        for _ in range(20):
            self.clock.advance(0)
            while self.syncer.asked:
                self.syncer.work()
            if not self.syncer.asked and not any(call.getTime() <= self.clock.seconds() for call in
                                                 self.clock.getDelayedCalls()):  # fmt: skip
                return
        raise AssertionError("it does not come to rest")

    def run_scenario(self) -> dict[str, tuple[int, bytes, Any]]:
        """Place -> operations until the promise, content, how it failed or None."""
        promised: dict[str, tuple[int, bytes, Any]] = {}
        for turn in TURNS:
            for name, octets, mailboxes in turn:
                content = (name.encode() * octets)[:octets]
                full = f"{name},S={octets}"
                result = self.send(full, content, *mailboxes)

                def told(value: Any, full: str = full, content: bytes = content, mailboxes: Any = mailboxes) -> None:
                    error = getattr(value, "value", None)
                    for each in mailboxes:
                        promised[self.place(each, full)] = len(self.files.operations), content, error

                result.addBoth(told)
            self.settle()
        return promised
