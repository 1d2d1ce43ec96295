"""The commit in a thread survives a power cut at any moment; whatever call fails, nothing is left behind."""

from __future__ import annotations

import errno
import os
import stat
from itertools import count
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, execute
from twisted.trial.unittest import SynchronousTestCase

from mailserver.durable import NewFile
from tests.durable.disk import SMALL, Disk, RecordingFiles, Sync, after_power_cut, outcome


class CreateTests(SynchronousTestCase):
    def disk(self, files: RecordingFiles | None = None) -> Disk:
        disk = Disk(self.mktemp(), files)
        disk.maildirs("a", "b", "c")
        return disk

    def create(self, disk: Disk, *files: NewFile) -> None:
        self.assertEqual(self.successResultOf(disk.durable.create(files)), {})

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
        Path(disk.place("b", "x")).write_bytes(b"old")
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
        draft = disk.durable.draft(f"{disk.root}/spool/tmp")
        draft.write(b"x")
        self.create(disk, NewFile(draft, (f"{disk.root}/spool/new/x",)))
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
        for arguments in ((draft, ()), (draft, (disk.place("a", "x"),), b"", 5), (draft, (str(disk.root),), b"", -1)):
            self.assertRaises(ValueError, NewFile, *arguments)
        NewFile(draft, (str(disk.root),), b"", 4)


# A scenario makes drafts and creates them, and returns the Deferreds of the creations with what they promise.
def small(disk: Disk) -> list[tuple[Deferred[Any], dict[str, bytes]]]:
    places = tuple(disk.place(mailbox, "s") for mailbox in "ab")
    draft = disk.draft(b"small text")
    return [(disk.durable.create([NewFile(draft, places)]), dict.fromkeys(places, b"small text"))]


def large(disk: Disk) -> list[tuple[Deferred[Any], dict[str, bytes]]]:
    blocks = [bytes([number]) * 60 for number in range(65, 71)]
    places = tuple(disk.place(mailbox, "l") for mailbox in "ca")
    draft = disk.draft(*blocks, mailbox="c")
    return [(disk.durable.create([NewFile(draft, places)]), dict.fromkeys(places, b"".join(blocks)))]


def rewritten(disk: Disk) -> list[tuple[Deferred[Any], dict[str, bytes]]]:
    draft = disk.draft(*[b"line\n"] * 50)
    outcome(draft.rewrite(lambda block: block.replace(b"\n", b"\r\n")))
    outcome(draft.write(b"more"))
    place = disk.place("a", "r")
    return [(disk.durable.create([NewFile(draft, (place,))]), {place: b"line\r\n" * 50 + b"more"})]


def copied(disk: Disk) -> list[tuple[Deferred[Any], dict[str, bytes]]]:
    disk.files.links = lambda source, target: errno.EXDEV if "/b/" in str(target) else 0
    draft = disk.draft(b"head one;", b"x" * 150)
    one, two, three = (disk.place(*names) for names in (("a", "h"), ("b", "h"), ("c", "h2")))
    new = [NewFile(draft, (one, two)), NewFile(draft, (three,), b"other;", 9)]
    first = b"head one;" + b"x" * 150
    return [(disk.durable.create(new), {one: first, two: first, three: b"other;" + b"x" * 150})]


SCENARIOS = {"small": small, "large": large, "rewritten": rewritten, "copied": copied}


class PowerCutTests(SynchronousTestCase):
    """limits.md, "Properties", 6: with unsynced operations dropped, what was acknowledged exists whole."""

    def check(self, disk: Disk, prefix: int, promised: dict[str, tuple[int, bytes]], keep: Any) -> None:
        left = after_power_cut(disk.files.operations[:prefix], keep)
        for place, (acknowledged, content) in promised.items():
            if acknowledged <= prefix:
                self.assertEqual(left.get(Path(place)), content)
            elif Path(place) in left:  # not promised: then whole or not at all
                self.assertEqual(left[Path(place)], content)

    def record(self, *names: str) -> tuple[Disk, dict[str, tuple[int, bytes]]]:
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
        def check(record: tuple[Disk, dict[str, tuple[int, bytes]]], share: float, kept: int) -> None:
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
            self.assertEqual({place: Path(place).read_bytes() for place in promised}, promised)
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
            def write(self, descriptor: int, data: bytes | memoryview) -> int:
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
            def unlink(self, path: Path | str) -> None:
                raise OSError(errno.EROFS, "read-only")

        disk = Disk(self.mktemp(), Stubborn())
        disk.maildirs("a")
        failed = outcome(disk.durable.create([NewFile(disk.draft(b"z"), (disk.place("a", "z"),))]))
        self.assertEqual(failed.errno, errno.EROFS)
        self.assertEqual(len(disk.tree("tmp")), 1)


class PartialTests(SynchronousTestCase):
    """A place that cannot be had is left out; what was begun for it is gone."""

    def test_a_copy_that_fails_is_closed_and_removed_and_the_others_are_there(self) -> None:
        for size in (20, 300):
            for fail in ("write", "read", "fsync"):
                disk = Disk(self.mktemp())
                disk.maildirs("a", "b", "c")
                draft = disk.draft(b"head one;", b"x" * size)
                new = [NewFile(draft, (disk.place("a", "1"),)), NewFile(draft, (disk.place("b", "1"),), b"other;", 9),
                       NewFile(draft, (disk.place("c", "1"),), b"third;", 9)]  # fmt: skip
                before = {"write": 1, "read": 0, "fsync": 1}[fail]
                call, seen = getattr(disk.files, fail), count()

                def failing(*arguments: Any, call: Any = call, seen: Any = seen, at: int = before) -> Any:
                    if next(seen) == at:
                        raise OSError(errno.EIO, "injected")
                    return call(*arguments)

                setattr(disk.files, fail, failing)
                failed = self.successResultOf(disk.durable.create(new, partial=True))
                self.assertEqual(list(failed), [disk.place("b", "1")], (size, fail))
                self.assertEqual(sorted(disk.tree("new")), ["a/1", "c/1"])
                self.assertEqual((disk.tree("tmp"), disk.files.opened), ({}, {}))

    def test_without_any_place_and_on_a_full_disk_it_fails_for_all(self) -> None:
        for links, number in ((lambda s, t: errno.EACCES, errno.EACCES),
                              (lambda s, t: errno.ENOSPC if "/b/" in t else 0, errno.ENOSPC)):  # fmt: skip
            disk = Disk(self.mktemp())
            disk.maildirs("a", "b")
            disk.files.links = links
            self.assertEqual(outcome(disk.send("1", b"text", "a", "b", partial=True)).errno, number)
            self.assertEqual((disk.tree("new"), disk.tree("tmp"), disk.files.opened), ({}, {}, {}))
