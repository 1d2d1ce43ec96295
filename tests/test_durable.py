"""Files survive a power cut whole, or are not there; whatever call fails, nothing is left behind."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred, execute
from twisted.trial.unittest import SynchronousTestCase

from mailserver.durable import Durable, Files, NewFile, make_directories

SMALL = 100  # the octets a draft keeps in memory in these tests


class DirectoryEntry:
    """One operation on a directory: an entry appears (inode) or goes (None)."""

    def __init__(self, path: Path, inode: int | None) -> None:
        self.path, self.inode = path, inode


class Data:
    def __init__(self, inode: int, data: bytes) -> None:
        self.inode, self.data = inode, data


class Sync:
    """An fsync of a file, or of a directory with its path."""

    def __init__(self, inode: int, path: Path | None) -> None:
        self.inode, self.path = inode, path


class RecordingFiles(Files):
    """
    Real files, and a record of what was done to them.

    fail_at: the number of the call that fails, with `error`.  short: write only half of what is asked.
    links: what link(2) says, for a pair of paths.
    """

    def __init__(self, fail_at: int = -1, error: int = errno.EIO) -> None:
        self.fail_at, self.error = fail_at, error
        self.calls: list[str] = []
        self.operations: list[DirectoryEntry | Data | Sync] = []
        self.opened: dict[int, tuple[int, Path | None]] = {}  # descriptor -> inode, path of a directory
        self.inodes: dict[int, int] = {}  # st_ino, which is given again -> one that is not
        self.synced: set[int] = set()  # descriptors, while they are open
        self.short = False
        self.links: Callable[[Path, Path], int] = lambda source, target: 0

    def _call(self, name: str) -> None:
        self.calls.append(name)
        if len(self.calls) - 1 == self.fail_at:
            raise OSError(self.error, "injected", name)

    def open(self, path: Path, flags: int) -> int:
        self._call("open")
        descriptor = super().open(path, flags)
        if flags & os.O_CREAT:
            assert flags & os.O_EXCL and flags & os.O_NOFOLLOW and flags & os.O_CLOEXEC
            self.inodes[os.fstat(descriptor).st_ino] = len(self.operations) + 1
            self.operations.append(DirectoryEntry(path, self.inode(path)))
        self.opened[descriptor] = self.inode(path), path if flags & os.O_DIRECTORY else None
        return descriptor

    def inode(self, path: Path) -> int:
        return self.inodes.get(os.lstat(path).st_ino, 0)

    def write(self, descriptor: int, data: memoryview) -> int:
        self._call("write")
        written = super().write(descriptor, data[: max(1, len(data) // 2)] if self.short else data)
        self.operations.append(Data(self.opened[descriptor][0], bytes(data[:written])))
        return written

    def read(self, descriptor: int, size: int, offset: int) -> bytes:
        self._call("read")
        return super().read(descriptor, size, offset)

    def fsync(self, descriptor: int) -> None:
        assert descriptor not in self.synced, "fsync twice on one descriptor"
        self.synced.add(descriptor)
        self._call("fsync")
        self.operations.append(Sync(*self.opened[descriptor]))

    def close(self, descriptor: int) -> None:
        del self.opened[descriptor]
        self.synced.discard(descriptor)
        super().close(descriptor)  # also when an error is told
        self._call("close")

    def link(self, source: Path, target: Path) -> None:
        self._call("link")
        if number := self.links(source, target):
            raise OSError(number, os.strerror(number))
        super().link(source, target)
        self.operations.append(DirectoryEntry(target, self.inode(target)))

    def rename(self, source: Path, target: Path) -> None:
        self._call("rename")
        super().rename(source, target)
        self.operations += [DirectoryEntry(target, self.inode(target)), DirectoryEntry(source, None)]

    def unlink(self, path: Path) -> None:
        self._call("unlink")
        super().unlink(path)
        self.operations.append(DirectoryEntry(path, None))

    def exists(self, path: Path) -> bool:
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


def after_power_cut(operations: list[Any], keep: Callable[[int], bool]) -> dict[Path, bytes]:
    """
    What a disk holds when the power goes after these operations: all that was synced, and of the rest what `keep`
    says.  A path is there when all directories made on the way to it are.
    """

    def survives(at: int, synced: Callable[[Sync], bool]) -> bool:
        return keep(at) or any(isinstance(later, Sync) and synced(later) for later in operations[at + 1 :])

    contents: dict[int, bytes] = {}
    entries: dict[Path, int | None] = {}
    made: set[Path] = set()
    for at, operation in enumerate(operations):
        if isinstance(operation, Data):
            if survives(at, lambda sync, inode=operation.inode: sync.inode == inode and sync.path is None):
                contents[operation.inode] = contents.get(operation.inode, b"") + operation.data
        elif isinstance(operation, DirectoryEntry):
            made.add(operation.path)
            if survives(at, lambda sync, parent=operation.path.parent: sync.path == parent):
                entries[operation.path] = operation.inode
    there = {path for path, inode in entries.items() if inode is not None}
    return {
        path: contents.get(entries[path] or 0, b"")
        for path in there
        if all(parent in there for parent in path.parents if parent in made)
    }


class Disk:
    """A Durable on recorded files, below a directory of its own."""

    def __init__(self, root: str, files: RecordingFiles | None = None, run: Any = execute) -> None:
        self.root = Path(root).absolute()
        self.files = files or RecordingFiles()
        numbers = count()
        self.durable = Durable(
            run_in_thread=run, unique_name=lambda: f"t{next(numbers)}", files=self.files, memory=SMALL
        )

    def maildirs(self, *names: str) -> None:
        for name in names:
            for kind in ("tmp", "new"):
                (self.root / name / kind).mkdir(parents=True)

    def place(self, mailbox: str, name: str) -> Path:
        return self.root / mailbox / "new" / name

    def draft(self, *blocks: bytes, mailbox: str = "a") -> Any:
        draft = self.durable.draft(self.root / mailbox / "tmp", layout)
        for block in blocks:
            outcome(draft.write(block))
        return draft

    def tree(self, kind: str) -> dict[str, bytes]:
        """Every file below the directories called `kind`: "mailbox/name" -> content."""
        return {f"{path.parent.parent.name}/{path.name}": path.read_bytes() for path in self.root.glob(f"*/{kind}/*")}


def layout(directory: Path) -> tuple[Path, Path]:
    return directory.parent / "tmp", directory.parent / "new"


def outcome(result: Deferred[None] | None) -> Any:
    """None for success, and while there is none; else the exception."""
    got: list[Any] = [None]
    if result is not None:
        result.addBoth(got.append)
    return getattr(got[-1], "value", None)


class CreateTests(SynchronousTestCase):
    def disk(self, files: RecordingFiles | None = None) -> Disk:
        disk = Disk(self.mktemp(), files)
        disk.maildirs("a", "b", "c")
        return disk

    def create(self, disk: Disk, *files: NewFile) -> None:
        self.assertIsNone(self.successResultOf(disk.durable.create(files)))

    def test_contents_of_every_size_arrive_whole(self) -> None:
        for size in (0, 1, SMALL - 1, SMALL, SMALL + 1, 10 * SMALL):
            with self.subTest(size=size):
                disk = self.disk()
                content = bytes(number % 251 for number in range(size))
                draft = disk.draft(*(content[at : at + 40] for at in range(0, size, 40)))
                self.assertEqual(draft.size, size)
                self.create(disk, NewFile(draft, (disk.place("a", "x"),)))
                self.assertEqual((disk.tree("new"), disk.tree("tmp")), ({"a/x": content}, {}))

    def test_nothing_is_on_the_disk_until_a_draft_is_larger_than_memory(self) -> None:
        disk = self.disk()
        draft = disk.draft(b"x" * SMALL)
        self.assertEqual(disk.files.calls, [])
        self.assertIsNotNone(draft.write(b"x"))
        self.assertEqual(len(disk.tree("tmp")["a/t0"]), SMALL + 1)

    def test_a_small_message_is_one_job_in_the_thread(self) -> None:
        jobs = []

        def run(job: Any, *arguments: Any) -> Any:
            jobs.append(job)
            return execute(job, *arguments)

        disk = Disk(self.mktemp(), run=run)
        self.create(disk, NewFile(disk.draft(b"x"), (disk.place("a", "x"), disk.place("b", "x"))))
        self.assertEqual(len(jobs), 1)

    def test_the_contents_are_synced_before_the_names_and_the_directories_last_each_once(self) -> None:
        disk = self.disk()
        self.create(disk, NewFile(disk.draft(b"1"), tuple(disk.place(m, "x") for m in "ab")),
                    NewFile(disk.draft(b"2"), (disk.place("a", "y"),)))  # fmt: skip
        one = ["open", "write", "fsync", "close"]
        directory = ["open", "fsync", "close"]
        self.assertEqual(disk.files.calls, one * 2 + ["link"] * 3 + ["unlink"] * 2 + directory * 2)

    def test_several_places_are_links_to_one_file_that_only_we_can_read(self) -> None:
        disk = self.disk()
        places = tuple(disk.place(mailbox, "x") for mailbox in "abc")
        self.create(disk, NewFile(disk.draft(b"text"), places))
        self.assertEqual(len({os.stat(place).st_ino for place in places}), 1)
        self.assertEqual(stat.S_IMODE(os.stat(places[0]).st_mode), 0o600)

    def test_a_file_that_cannot_be_linked_is_copied(self) -> None:
        for number in (errno.EXDEV, errno.EMLINK, errno.EPERM):
            with self.subTest(number=number):
                disk = self.disk()
                disk.files.links = lambda source, target, n=number: n if ("/a/" in str(source)) != (
                    "/a/" in str(target)
                ) else 0  # fmt: skip
                places = tuple(disk.place(mailbox, "x") for mailbox in "abc")
                self.create(disk, NewFile(disk.draft(b"text"), places))
                self.assertEqual(disk.tree("new"), dict.fromkeys(("a/x", "b/x", "c/x"), b"text"))
                self.assertEqual(disk.tree("tmp"), {})
                self.assertEqual(os.stat(places[1]).st_ino, os.stat(places[2]).st_ino)

    def test_a_file_system_without_links_still_overwrites_nothing(self) -> None:
        disk = self.disk()
        disk.files.links = lambda source, target: errno.EPERM
        self.create(disk, NewFile(disk.draft(b"text"), (disk.place("a", "x"),)))
        error = self.failureResultOf(disk.durable.create([NewFile(disk.draft(b"2"), (disk.place("a", "x"),))]))
        error.trap(FileExistsError)
        self.assertEqual((disk.tree("new"), disk.tree("tmp")), ({"a/x": b"text"}, {}))

    def test_a_name_that_is_taken_is_not_overwritten_and_takes_the_others_with_it(self) -> None:
        disk = self.disk()
        disk.place("b", "x").write_bytes(b"old")
        new = NewFile(disk.draft(b"text"), (disk.place("a", "x"), disk.place("b", "x")))
        self.failureResultOf(disk.durable.create([new])).trap(FileExistsError)
        self.assertEqual((disk.tree("new"), disk.tree("tmp")), ({"b/x": b"old"}, {}))

    def test_copies_may_differ_at_their_start(self) -> None:
        for body in (b"body", b"body" * SMALL):
            disk = self.disk()
            draft = disk.draft(b"one:", body)
            self.create(disk, NewFile(draft, (disk.place("a", "x"),)),
                        NewFile(draft, (disk.place("b", "y"), disk.place("c", "y")), b"second:", 4),
                        NewFile(draft, (disk.place("a", "z"),), b"", 4))  # fmt: skip
            two = b"second:" + body
            self.assertEqual(disk.tree("new"), {"a/x": b"one:" + body, "b/y": two, "c/y": two, "a/z": body})
            self.assertEqual(disk.tree("tmp"), {})

    def test_short_writes_are_continued(self) -> None:
        files = RecordingFiles()
        files.short = True
        disk = self.disk(files)
        self.create(disk, NewFile(disk.draft(b"0123456789" * 30), (disk.place("a", "x"),)))
        self.assertEqual(disk.tree("new"), {"a/x": b"0123456789" * 30})

    def test_missing_directories_are_made_with_those_that_belong_to_them(self) -> None:
        for content in (b"small", b"large" * SMALL):
            disk = Disk(self.mktemp())
            self.create(disk, NewFile(disk.draft(content), (disk.place("a", "x"), disk.place("b", "x"))))
            self.assertEqual(disk.tree("new"), {"a/x": content, "b/x": content})
            self.assertTrue((disk.root / "b" / "tmp").is_dir())
            self.assertEqual(stat.S_IMODE(os.stat(disk.root / "b").st_mode), 0o700)

    def test_without_a_layout_a_missing_directory_is_made_alone(self) -> None:
        disk = Disk(self.mktemp())
        draft = disk.durable.draft(disk.root / "spool" / "tmp")
        draft.write(b"x")
        self.create(disk, NewFile(draft, (disk.root / "spool" / "new" / "x",)))
        self.assertEqual(sorted(path.name for path in (disk.root / "spool").iterdir()), ["new", "tmp"])

    def test_a_symbolic_link_in_tmp_is_not_followed(self) -> None:
        disk = self.disk()
        victim = disk.root / "victim"
        (disk.root / "a" / "tmp" / "t0").symlink_to(victim)
        error = self.failureResultOf(disk.durable.create([NewFile(disk.draft(b"1"), (disk.place("a", "x"),))]))
        error.trap(FileExistsError)
        self.assertFalse(victim.exists())

    def test_a_file_system_that_cannot_sync_directories_is_forgiven(self) -> None:
        disk = self.disk(RecordingFiles(fail_at=7, error=errno.EINVAL))
        self.create(disk, NewFile(disk.draft(b"1"), (disk.place("a", "x"),)))
        self.assertEqual(disk.files.calls[7], "fsync")

    def test_a_draft_is_created_once(self) -> None:
        disk = self.disk()
        draft = disk.draft(b"1")
        self.create(disk, NewFile(draft, (disk.place("a", "x"),)))
        again = disk.durable.create([NewFile(draft, (disk.place("a", "y"),))])
        self.failureResultOf(again).trap(RuntimeError)
        draft.abort()
        self.assertEqual(disk.tree("new"), {"a/x": b"1"})

    def test_a_new_file_needs_a_place_and_a_start_within_its_draft(self) -> None:
        disk = self.disk()
        draft = disk.draft(b"1234")
        for arguments in ((draft, ()), (draft, (disk.place("a", "x"),), b"", 5), (draft, (disk.root,), b"", -1)):
            self.assertRaises(ValueError, NewFile, *arguments)
        NewFile(draft, (disk.root,), b"", 4)


class RewriteTests(SynchronousTestCase):
    def test_rewriting_replaces_what_was_written_in_memory_and_on_the_disk(self) -> None:
        for lines in (3, SMALL - 1, SMALL, SMALL * 20):
            with self.subTest(lines=lines):
                disk = Disk(self.mktemp())
                draft = disk.draft(*[b"a\n" for _ in range(lines)])
                draft.rewrite(lambda block: block.replace(b"\n", b"\r\n"))
                self.assertEqual(draft.size, 3 * lines)
                draft.write(b"end")
                self.assertIsNone(outcome(disk.durable.create([NewFile(draft, (disk.place("a", "x"),))])))
                self.assertEqual(disk.tree("new"), {"a/x": b"a\r\n" * lines + b"end"})
                self.assertEqual(disk.tree("tmp"), {})


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


class AbortTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.thread = LateThread()
        self.disk = Disk(self.mktemp(), run=self.thread)
        self.disk.maildirs("a")

    def test_a_small_draft_that_is_aborted_never_touches_the_disk(self) -> None:
        draft = self.disk.draft(b"text")
        draft.abort()
        draft.abort()
        self.assertIsNone(draft.write(b"x" * SMALL * 2))
        self.assertEqual((self.thread.jobs, self.disk.files.calls), ([], []))

    def test_the_file_of_a_large_draft_is_removed(self) -> None:
        draft = self.disk.draft(b"x" * SMALL * 2)
        self.thread.work()
        self.assertEqual(len(self.disk.tree("tmp")), 1)
        draft.abort()
        draft.abort()
        self.thread.work()
        self.assertEqual((self.disk.tree("tmp"), self.thread.jobs, self.disk.files.opened), ({}, [], {}))

    def test_a_write_under_way_ends_and_then_its_file_is_removed(self) -> None:
        draft = self.disk.draft()
        written = draft.write(b"x" * SMALL * 2)
        draft.abort()
        self.thread.work()
        self.assertIsNone(self.successResultOf(written))
        self.thread.work()
        self.assertEqual((self.disk.tree("tmp"), self.thread.jobs, self.disk.files.opened), ({}, [], {}))

    def test_a_later_write_under_way_ends_before_the_file_is_removed(self) -> None:
        draft = self.disk.draft(b"x" * SMALL * 2)
        self.thread.work()
        outcome(draft.write(b"y" * SMALL * 2))
        draft.abort()
        self.assertEqual(len(self.thread.jobs), 1)
        self.thread.work()
        self.assertIsNone(draft.rewrite(bytes))
        self.thread.work()
        self.assertEqual((self.disk.tree("tmp"), self.thread.jobs, self.disk.files.opened), ({}, [], {}))

    def test_a_write_that_fails_after_an_abort_is_nobodys_trouble(self) -> None:
        draft = self.disk.draft()
        written = draft.write(b"x" * SMALL * 2)
        draft.abort()
        self.disk.files.fail_at = 1
        self.thread.work()
        self.assertIsNone(self.successResultOf(written))
        self.thread.work()
        self.assertEqual(self.disk.tree("tmp"), {})

    def test_a_write_that_was_cancelled_still_ends_before_the_next(self) -> None:
        draft = self.disk.draft()
        written = draft.write(b"x" * SMALL * 2)
        written.cancel()
        self.failureResultOf(written).trap(CancelledError)
        self.assertRaises(RuntimeError, draft.write, b"y")
        self.assertRaises(RuntimeError, draft.rewrite, bytes)
        early = self.disk.durable.create([NewFile(draft, (self.disk.place("a", "x"),))])
        self.failureResultOf(early).trap(RuntimeError)
        self.thread.work()
        self.thread.work()
        self.assertEqual(self.disk.tree("tmp"), {})

    def test_an_abort_during_the_commit_leaves_it_alone(self) -> None:
        draft = self.disk.draft(b"text")
        done = self.disk.durable.create([NewFile(draft, (self.disk.place("a", "x"),))])
        draft.abort()
        self.thread.work()
        self.assertIsNone(self.successResultOf(done))
        self.assertEqual(self.disk.tree("new"), {"a/x": b"text"})

    def test_the_service_stops_when_the_last_job_is_over(self) -> None:
        draft = self.disk.draft()
        draft.write(b"x" * SMALL * 2)
        draft.abort()
        stopped = self.disk.durable.stopService()
        self.thread.work()
        self.assertNoResult(stopped)  # the removal follows
        self.thread.work()
        self.assertIsNone(self.successResultOf(stopped))
        self.assertIsNone(self.disk.durable.stopService())

    def test_nobody_is_told_yes_while_another_thread_makes_a_directory(self) -> None:
        disk = Disk(self.mktemp())
        calls = disk.files.calls

        class Lock:
            def __enter__(self) -> None:
                calls.append("lock")

            def __exit__(self, *args: object) -> None:
                calls.append("unlock")

        disk.durable._tools = replace(disk.durable._tools, making=Lock())
        disk.durable.create([NewFile(disk.draft(b"1"), (disk.place("a", "x"),))])
        making = calls[calls.index("lock") : calls.index("unlock")]
        self.assertEqual((making[1], making[-3:]), ("mkdir", ["open", "fsync", "close"]))
        # The one who found the directory waits for the one who made it, after its own work and before the yes.
        self.assertEqual(calls[-5:], ["open", "fsync", "close", "lock", "unlock"])


# A scenario makes drafts and creates them, and returns the Deferreds of the creations with what they promise.
def small(disk: Disk) -> list[tuple[Deferred[None], dict[Path, bytes]]]:
    places = tuple(disk.place(mailbox, "s") for mailbox in "ab")
    draft = disk.draft(b"small text")
    return [(disk.durable.create([NewFile(draft, places)]), dict.fromkeys(places, b"small text"))]


def large(disk: Disk) -> list[tuple[Deferred[None], dict[Path, bytes]]]:
    blocks = [bytes([number]) * 60 for number in range(65, 71)]
    places = tuple(disk.place(mailbox, "l") for mailbox in "ca")
    draft = disk.draft(*blocks, mailbox="c")
    return [(disk.durable.create([NewFile(draft, places)]), dict.fromkeys(places, b"".join(blocks)))]


def rewritten(disk: Disk) -> list[tuple[Deferred[None], dict[Path, bytes]]]:
    draft = disk.draft(*[b"line\n"] * 50)
    outcome(draft.rewrite(lambda block: block.replace(b"\n", b"\r\n")))
    outcome(draft.write(b"more"))
    place = disk.place("a", "r")
    return [(disk.durable.create([NewFile(draft, (place,))]), {place: b"line\r\n" * 50 + b"more"})]


def copied(disk: Disk) -> list[tuple[Deferred[None], dict[Path, bytes]]]:
    disk.files.links = lambda source, target: errno.EXDEV if "/b/" in str(target) else 0
    draft = disk.draft(b"head one;", b"x" * 150)
    one, two, three = (disk.place(*names) for names in (("a", "h"), ("b", "h"), ("c", "h2")))
    new = [NewFile(draft, (one, two)), NewFile(draft, (three,), b"other;", 9)]
    first = b"head one;" + b"x" * 150
    return [(disk.durable.create(new), {one: first, two: first, three: b"other;" + b"x" * 150})]


SCENARIOS = {"small": small, "large": large, "rewritten": rewritten, "copied": copied}


class PowerCutTests(SynchronousTestCase):
    """limits.md, "Properties", 6: with unsynced operations dropped, what was acknowledged exists whole."""

    def check(self, disk: Disk, prefix: int, promised: dict[Path, tuple[int, bytes]], keep: Any) -> None:
        left = after_power_cut(disk.files.operations[:prefix], keep)
        for place, (acknowledged, content) in promised.items():
            if acknowledged <= prefix:
                self.assertEqual(left.get(place), content)
            elif place in left:  # not promised: then whole or not at all
                self.assertEqual(left[place], content)

    def record(self, *names: str) -> tuple[Disk, dict[Path, tuple[int, bytes]]]:
        """The scenarios one after the other, on an empty disk.  Place -> (operations until the promise, content)."""
        disk, promised = Disk(self.mktemp()), {}
        for name in names:
            for result, contents in SCENARIOS[name](disk):
                self.assertIsNone(outcome(result))
                at = len(disk.files.operations)
                promised |= {place: (at, content) for place, content in contents.items()}
        return disk, promised

    def test_every_prefix_with_all_none_or_all_but_one_of_the_unsynced_operations(self) -> None:
        disk, promised = self.record(*SCENARIOS)
        total = len(disk.files.operations)
        for prefix in range(total + 1):
            self.check(disk, prefix, promised, lambda at: False)
            self.check(disk, prefix, promised, lambda at: True)
            for lost in range(max(0, prefix - 12), prefix):
                self.check(disk, prefix, promised, lambda at, lost=lost: at != lost)

    def test_every_prefix_with_any_of_the_unsynced_operations(self) -> None:
        recorded = [self.record(name) for name in SCENARIOS]

        @settings(deadline=None, max_examples=200)
        @given(st.sampled_from(recorded), st.floats(0, 1), st.integers(0, 2**80))
        def check(record: tuple[Disk, dict[Path, tuple[int, bytes]]], share: float, kept: int) -> None:
            disk, promised = record
            prefix = round(share * len(disk.files.operations))
            self.check(disk, prefix, promised, lambda at: bool(kept >> at & 1))

        check()

    def test_the_model_notices_a_sync_that_is_missing(self) -> None:
        for missing in (lambda sync: sync.path is None, lambda sync: sync.path is not None):
            disk, promised = self.record("small")
            disk.files.operations = [
                op for op in disk.files.operations if not (isinstance(op, Sync) and missing(op))
            ]  # fmt: skip
            promised = {place: (0, content) for place, (_, content) in promised.items()}
            total = len(disk.files.operations)
            self.assertRaises(self.failureException, self.check, disk, total, promised, lambda at: False)


class InjectedErrorTests(SynchronousTestCase):
    """Every call fails once: an exception, nothing visible, a clean tmp/, no descriptor left open."""

    def attempt(self, scenario: str, fail_at: int, error: int, *, missing: bool) -> int:
        disk = Disk(self.mktemp(), RecordingFiles(fail_at, error))
        if not missing:
            disk.maildirs("a", "b", "c")
        (result, promised), = SCENARIOS[scenario](disk)  # fmt: skip
        failed = outcome(result)
        if fail_at < 0:
            self.assertIsNone(failed)
            self.assertEqual({place: place.read_bytes() for place in promised}, promised)
        else:
            call = f"{scenario}: call {fail_at}, {disk.files.calls[fail_at]}"
            self.assertIsInstance(failed, OSError, call)
            self.assertEqual(failed.errno, error, call)
            self.assertEqual((disk.tree("new"), disk.tree("tmp")), ({}, {}), call)
        self.assertEqual(disk.files.opened, {})
        return len(disk.files.calls)

    def test_every_call_that_fails_leaves_nothing(self) -> None:
        for scenario in SCENARIOS:
            for missing in (False, True):
                total = self.attempt(scenario, -1, errno.EIO, missing=missing)
                for fail_at in range(total):
                    with self.subTest(scenario=scenario, fail_at=fail_at):
                        self.attempt(scenario, fail_at, errno.EIO if fail_at % 2 else errno.ENOSPC, missing=missing)

    def test_there_is_room_again_after_a_failure(self) -> None:
        disk = Disk(self.mktemp(), RecordingFiles(1, errno.ENOSPC))
        disk.maildirs("a")
        lost = disk.draft(b"x" * 200)
        self.assertEqual(outcome(lost.write(b"more")).errno, errno.ENOSPC)
        self.assertEqual(outcome(lost.rewrite(bytes)).errno, errno.ENOSPC)
        other = disk.draft(b"x" * 200)
        both = [NewFile(draft, (disk.place("a", name),)) for draft, name in ((other, "x"), (lost, "y"))]
        self.assertEqual(outcome(disk.durable.create(both)).errno, errno.ENOSPC)
        self.assertEqual((disk.tree("new"), disk.tree("tmp")), ({}, {}))
        self.assertIsNone(outcome(disk.durable.create([NewFile(disk.draft(b"z"), (disk.place("a", "z"),))])))
        self.assertEqual(disk.tree("new"), {"a/z": b"z"})

    def test_a_write_that_takes_nothing_for_ever_is_an_error(self) -> None:
        class Full(RecordingFiles):
            def write(self, descriptor: int, data: memoryview) -> int:
                return 0

        disk = Disk(self.mktemp(), Full())
        failed = outcome(disk.durable.create([NewFile(disk.draft(b"z"), (disk.place("a", "z"),))]))
        self.assertEqual((failed.errno, disk.tree("new"), disk.tree("tmp")), (errno.EIO, {}, {}))

    def test_a_temporary_file_that_is_gone_already_is_no_further_trouble(self) -> None:
        disk = Disk(self.mktemp())
        draft = disk.draft(b"x" * 200)
        for path in disk.root.glob("a/tmp/*"):
            path.unlink()
        failed = outcome(disk.durable.create([NewFile(draft, (disk.place("a", "x"),))]))
        self.assertIsInstance(failed, FileNotFoundError)
        self.assertEqual((disk.tree("new"), disk.files.opened), ({}, {}))

    def test_what_cannot_be_closed_is_removed_all_the_same(self) -> None:
        disk = Disk(self.mktemp())
        draft = disk.draft(b"x" * 200)
        disk.files.fail_at = len(disk.files.calls)  # the close
        draft.abort()
        self.assertEqual((disk.tree("tmp"), disk.files.calls[-2:]), ({}, ["close", "unlink"]))

    def test_what_cannot_be_taken_away_is_logged_and_the_first_error_told(self) -> None:
        class Stubborn(RecordingFiles):
            def unlink(self, path: Path) -> None:
                raise OSError(errno.EROFS, "read-only")

        disk = Disk(self.mktemp(), Stubborn())
        disk.maildirs("a")
        failed = outcome(disk.durable.create([NewFile(disk.draft(b"z"), (disk.place("a", "z"),))]))
        self.assertEqual(failed.errno, errno.EROFS)
        self.assertEqual(len(disk.tree("tmp")), 1)


class MakeDirectoriesTests(SynchronousTestCase):
    def test_missing_parents_are_made_and_every_parent_synced_once(self) -> None:
        files, root = RecordingFiles(), Path(self.mktemp()).absolute()
        root.mkdir()
        make_directories(root / "d" / "u" / "new", root / "d" / "u" / "cur", files=files)
        self.assertEqual(sorted(root.glob("d/u/*")), [root / "d/u/cur", root / "d/u/new"])
        self.assertEqual(stat.S_IMODE(os.stat(root / "d").st_mode), 0o700)
        synced = [operation.path for operation in files.operations if isinstance(operation, Sync)]
        self.assertEqual(sorted(synced), [root, root / "d", root / "d" / "u"])
        made = len(files.operations)
        make_directories(root / "d" / "u" / "new", files=files)
        self.assertEqual(len(files.operations), made)

    def test_whatever_fails_the_directories_are_gone_again(self) -> None:
        # mkdir: b, its missing parent a, b again, c; then open, fsync and close of the two parents
        for fail_at in range(10):
            files, root = RecordingFiles(fail_at), Path(self.mktemp()).absolute()
            root.mkdir()
            with self.assertRaises(OSError) as raised:
                make_directories(root / "a" / "b", root / "a" / "c", files=files)
            self.assertEqual(raised.exception.errno, errno.EIO)
            self.assertEqual(list(root.iterdir()), [], files.calls)

    def test_where_nothing_can_be_made_it_ends(self) -> None:
        class Nowhere(Files):
            def mkdir(self, path: Path, mode: int) -> None:
                raise FileNotFoundError(errno.ENOENT, "gone", str(path))

        self.assertRaises(FileNotFoundError, make_directories, Path("a/b"), files=Nowhere())

    def test_a_parent_that_is_there_and_yet_missing_is_an_error(self) -> None:
        """As below /proc: mkdir says ENOENT although the parent exists."""
        root = Path(self.mktemp())
        root.mkdir()

        class Odd(Files):
            def mkdir(self, path: Path, mode: int) -> None:
                if path == root:
                    raise FileExistsError(errno.EEXIST, "there", str(path))
                raise FileNotFoundError(errno.ENOENT, "gone", str(path))

        self.assertRaises(FileNotFoundError, make_directories, root / "a", files=Odd())

    def test_something_else_in_the_way_is_an_error(self) -> None:
        root = Path(self.mktemp())
        root.mkdir()
        (root / "file").write_bytes(b"")
        self.assertRaises(FileExistsError, make_directories, root / "file")
        self.assertRaises(NotADirectoryError, make_directories, root / "file" / "below")
