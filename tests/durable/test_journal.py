"""Many messages share one sync of the journal; what fails is refused alone; after a power cut all that was promised is
there."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, execute
from twisted.trial.unittest import SynchronousTestCase

from mailserver.durable import NewFile, segments
from mailserver.durable.committers import FileSync
from mailserver.durable.files import FILES
from mailserver.durable.journal import AGAIN, CHECKPOINT, Journal, JournalSettings
from mailserver.durable.records import BLOCK
from mailserver.durable.recovery import Place, rewrite
from tests.durable.disk import CommittedDisk, LateThread, RecordingFiles, Sync, after_power_cut, outcome, restart

SIZE = 4 * BLOCK


class JournalDisk(CommittedDisk):
    """
    ready: segments that are there at the start.  late: the journal's thread takes its time.
    large: the file system brings names by fsync.
    """

    def __init__(
        self,
        root: str,
        files: RecordingFiles | None = None,
        *,
        ready: int = 2,
        late: bool = False,
        large: bool = True,
        begin: bool = True,
        **settings: Any,
    ) -> None:
        super().__init__(root, files)
        self.journal_path = self.top / "journal"
        self.journal_path.mkdir()
        for number in range(1, ready + 1):
            path = self.journal_path / f"segment-{number:04}"
            os.close(segments.make(path, SIZE, FILES))
            self.files.know(path)
        self.before = {path: (self.files.know(path), path.read_bytes()) for path in self.segment_paths()}
        self.late = LateThread()
        numbers = count()
        place = Place(self.top / "mail", self.files, lambda: f"w{next(numbers)}")
        self.journal = Journal(
            JournalSettings(
                directory=self.journal_path,
                root=self.top / "mail",
                **{"most": 2, "size": SIZE, "body_limit": 200, "mount": b"before"} | settings,
            ),
            files=self.files,
            run=self.late if late else self.soon,
            syncer=self.syncer,
            clock=self.clock,
            now=lambda: 900.0,
            rewrite=lambda path: rewrite(path, place),
            large=FileSync(self.syncer, self.clock) if large else None,
        )
        self.durable.committer = self.journal
        self.ended = False
        if begin:
            self.journal.start()

    def soon(self, job: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        """A thread that is quick."""
        done: Deferred[Any] = Deferred()
        self.clock.callLater(0, lambda: execute(job, *arguments).chainDeferred(done))
        return done

    def segment_paths(self) -> list[Path]:
        return segments.segment_paths(self.top / "journal")

    def in_use(self) -> list[str]:
        found = map(segments.read, self.segment_paths())
        return [each.path.name for each in found if each.header and each.header.in_use]

    def found(self) -> list[Any]:
        """What is in segments that are in use."""
        return [record for path in self.segment_paths() for record in segments.read(path).found]

    def records(self) -> int:
        return len(self.found())

    def syncs(self) -> list[str]:
        return [call for call in self.files.calls if "sync" in call]

    def fill(self, mailbox: str = "a", many: int = 3) -> list[Any]:
        """As many messages as fill a segment, each in a turn of its own."""
        results = []
        for number in range(many):
            results.append(self.send(f"f{len(self.files.calls)}-{number}", b"text", mailbox))
            self.settle()
        return results


class JournalTests(SynchronousTestCase):
    def disk(self, files: RecordingFiles | None = None, **options: Any) -> JournalDisk:
        disk = JournalDisk(self.mktemp(), files, **options)
        self.addCleanup(self.stop, disk)
        return disk

    def stop(self, disk: JournalDisk) -> bool:
        """Stop, with all that is still to be done; every descriptor must be closed then."""
        disk.files.fail_at, disk.files.fail, disk.files.short = -1, set(), False
        if disk.ended:
            return True
        disk.ended = True
        stopped = disk.journal.stop()
        for _ in range(20):
            disk.settle()
            while disk.late.jobs:
                disk.late.work()
        self.assertEqual(disk.clock.getDelayedCalls(), [])
        self.assertEqual((disk.files.opened, disk.syncer.stopped), ({}, 1))
        return self.successResultOf(stopped)

    def ok(self, results: list[Any]) -> None:
        self.assertEqual([self.successResultOf(result) for result in results], [{}] * len(results))

    # -- batches -------------------------------------------------------------------------------------------------

    def test_all_of_a_turn_share_one_sync_of_the_journal_and_no_file_is_synced(self) -> None:
        disk = self.disk()
        results = [disk.send(f"{number}", b"text", "a", "b") for number in range(5)]
        disk.clock.advance(0)
        results += [disk.send("late", b"text", "c")]
        disk.clock.advance(0)
        self.assertEqual([data_only for _, _, data_only in disk.syncer.asked], [True])
        self.assertNoResult(results[0])
        disk.syncer.work()
        self.ok(results[:5])
        self.assertNoResult(results[5])
        disk.syncer.work()
        self.ok(results[5:])
        self.assertEqual(disk.syncs(), ["fdatasync", "fdatasync"])
        self.assertEqual((disk.records(), disk.tree("tmp"), len(disk.tree("new"))), (6, {}, 11))

    def test_a_record_holds_the_names_below_the_root_and_the_content(self) -> None:
        disk = self.disk()
        disk.send("x\udcff", b"text", "a", "b")
        disk.settle()
        (record,) = disk.found()
        self.assertEqual((record.names, record.content), ((b"d/a/new/x\xff", b"d/b/new/x\xff"), b"text"))

    def test_each_batch_begins_at_a_block(self) -> None:
        disk = self.disk()
        self.ok(disk.fill(many=2))
        self.assertEqual([each.at for each in disk.found()], [BLOCK, 2 * BLOCK])

    def test_a_creation_to_very_many_is_one_write(self) -> None:
        disk = self.disk(body_limit=SIZE)
        draft = disk.draft(b"x")
        new = [NewFile(draft, (disk.place("a", f"{number}"),), b"%d" % number) for number in range(250)]
        result = disk.durable.create(new)
        self.patch_most_blocks(100)
        disk.settle()
        self.ok([result])
        self.assertEqual((disk.records(), len(disk.tree("new"))), (250, 250))
        self.assertLessEqual(disk.files.most_blocks, 101)

    def patch_most_blocks(self, most: int) -> None:
        from mailserver.durable import journal

        self.patch(journal, "MOST_BLOCKS", most)

    def test_what_is_too_large_for_the_journal_is_synced_as_a_file(self) -> None:
        disk = self.disk(body_limit=20)
        results = [disk.send("1", b"x" * 20, "a"), disk.send("2", b"x" * 21, "a"), disk.send("3", b"x" * 300, "a")]
        disk.settle()
        self.ok(results)
        self.assertEqual((sorted(disk.syncs()), disk.records()), (["fdatasync", "fsync", "fsync"], 1))

    def test_names_that_do_not_fit_into_a_segment_are_synced_as_files(self) -> None:
        disk = self.disk()
        result = disk.durable.create(
            [NewFile(disk.draft(b"x"), tuple(disk.place("a", f"{n:0200}") for n in range(70)))]
        )
        disk.settle()
        self.ok([result])
        self.assertEqual((disk.syncs(), os.path.getsize(disk.segment_paths()[0])), (["fsync"], SIZE))

    def test_a_place_that_is_not_below_the_root_is_synced_as_a_file(self) -> None:
        disk = self.disk()
        place = f"{disk.top}/journal/x"
        result = disk.durable.create([NewFile(disk.draft(b"text"), (place,))])
        disk.settle()
        self.ok([result])
        self.assertEqual((disk.syncs(), Path(place).read_bytes()), (["fsync"], b"text"))

    def test_where_fsync_does_not_bring_names_large_ones_go_through_a_thread(self) -> None:
        disk = self.disk(large=False, body_limit=50)
        results = [disk.send("1", b"x" * 51, "a"), disk.send("2", b"x" * 300, "a")]
        self.ok(results)  # with fsync of the directories, in the thread
        results = [disk.send("3", b"x" * 50, "a")]
        self.assertNoResult(results[0])
        disk.settle()
        self.ok(results)
        self.assertEqual(disk.records(), 1)

    # -- segments ------------------------------------------------------------------------------------------------

    def test_a_full_segment_is_freed_by_a_checkpoint_while_the_next_is_used(self) -> None:
        disk = self.disk(ready=2, late=True)
        self.ok(disk.fill(many=4))
        self.assertEqual((len(disk.in_use()), disk.records()), (2, 4))
        disk.late.work()
        self.assertIn("syncfs", disk.files.calls)
        self.assertEqual((len(disk.in_use()), disk.records()), (1, 1))

    def test_when_all_are_full_messages_wait_for_the_checkpoint(self) -> None:
        disk = self.disk(ready=2, late=True)
        self.ok(disk.fill(many=6))
        waiting = disk.fill(many=2)
        self.assertEqual(disk.syncer.asked, [])
        self.assertNoResult(waiting[0])
        disk.late.work()
        disk.settle()
        self.ok(waiting)
        self.assertEqual([call for call in disk.syncs() if call == "fsync"], [])

    def test_a_segment_that_is_used_again_hides_its_old_records(self) -> None:
        disk = self.disk(ready=2)
        for _ in range(4):
            self.ok(disk.fill(many=3))
        self.assertEqual(len(disk.segment_paths()), 2)
        self.assertEqual((len(disk.in_use()), disk.records()), (1, 3))

    def test_segments_are_made_on_demand_up_to_their_number(self) -> None:
        disk = self.disk(ready=0, late=True, most=2)
        first = disk.send("1", b"text", "a")
        disk.settle()
        self.ok([first])  # by an fsync of its file
        self.assertEqual((disk.syncs(), disk.segment_paths()), (["fsync"], []))
        disk.late.work()
        self.ok(disk.fill(many=1))
        self.assertEqual((disk.records(), len(disk.late.jobs)), (1, 1))
        disk.late.work()
        self.ok(disk.fill(many=4))
        self.assertEqual([path.name for path in disk.segment_paths()], ["segment-0001", "segment-0002"])

    def test_in_time_a_segment_that_is_not_full_is_freed(self) -> None:
        disk = self.disk(ready=2)
        self.ok(disk.fill(many=1))
        self.assertEqual(len(disk.in_use()), 1)
        disk.clock.advance(CHECKPOINT)
        disk.settle()
        self.assertEqual((disk.in_use(), disk.syncs()[-2:]), ([], ["syncfs", "fdatasync"]))
        calls = len(disk.files.calls)
        disk.clock.advance(CHECKPOINT)
        disk.settle()
        self.assertEqual(len(disk.files.calls), calls)

    def test_segments_of_another_size_and_too_many_are_removed(self) -> None:
        disk = self.disk(ready=4, begin=False, most=2)
        os.close(segments.make(disk.journal_path / "segment-0000", SIZE * 2, FILES))
        os.close(segments.make(disk.journal_path / "segment-0009", BLOCK, FILES))
        disk.journal.start()
        self.assertEqual([path.name for path in disk.segment_paths()], ["segment-0001", "segment-0002"])

    def test_segments_that_could_not_be_recovered_are_left_alone(self) -> None:
        disk = self.disk(ready=3, begin=False, most=2)
        path = disk.segment_paths()[0]
        with path.open("r+b") as stream:
            stream.write(segments.encode_header(segments.in_use_header(1, b"x", 1.0)))
        kept = path.read_bytes()
        (disk.journal_path / "segment-0009").mkdir()
        disk.journal.start()
        self.ok(disk.fill(many=7))
        self.assertEqual((path.read_bytes(), len(disk.segment_paths())), (kept, 4))

    # -- a disk at fault -----------------------------------------------------------------------------------------

    def test_a_sync_that_fails_refuses_its_batch_alone_and_its_segment_is_given_up(self) -> None:
        disk = self.disk(ready=2)
        self.ok(disk.fill(many=1))
        inode = (disk.journal_path / disk.in_use()[0]).stat().st_ino
        refused = [disk.send("1", b"text", "a"), disk.send("2", b"text", "b", "c")]
        disk.clock.advance(0)
        later = disk.send("3", b"text", "c")
        disk.files.fail_at = len(disk.files.calls)
        disk.settle()
        self.assertEqual([outcome(each).errno for each in refused], [errno.EIO] * 2)
        self.ok([later])
        self.assertEqual((len(disk.tree("new")), disk.tree("tmp")), (2, {}))
        self.assertNotIn(inode, [path.stat().st_ino for path in disk.segment_paths()])
        self.ok(disk.fill(many=8))
        self.assertEqual(len(disk.segment_paths()), 2)

    def test_a_write_that_fails_or_is_short_refuses_its_batch_alone(self) -> None:
        for at, short in ((0, False), (1, False), (0, True)):
            disk = self.disk(ready=2)
            refused = disk.send("1", b"text", "a")
            disk.files.short = short
            disk.files.fail_at = -1 if short else len(disk.files.calls) + at
            disk.clock.advance(0)
            disk.files.short = False
            later = disk.send("2", b"text", "a")
            disk.settle()
            self.assertIsInstance(outcome(refused), OSError)
            self.ok([later])
            self.assertEqual(list(disk.tree("new")), ["a/2"])

    def test_a_disk_that_can_make_no_segment_syncs_each_file(self) -> None:
        files = RecordingFiles(error=errno.ENOSPC)
        files.fail = {"write_at"}
        disk = self.disk(files, ready=0)
        results = [disk.send("1", b"text", "a"), disk.send("2", b"text", "a")]
        disk.settle()
        self.ok(results)
        self.assertEqual((disk.segment_paths(), len(disk.tree("new"))), ([], 2))
        disk.files.fail = set()
        disk.clock.advance(CHECKPOINT)
        disk.settle()
        self.ok(disk.fill(many=1))
        self.assertEqual(disk.records(), 1)

    def test_a_disk_that_can_make_no_segment_is_not_asked_at_every_message(self) -> None:
        disk = self.disk(ready=1, most=8)
        disk.files.fail = {"fsync"}  # that of a new segment; files go into the journal
        self.ok(disk.fill(many=6))
        disk.settle()
        tried = disk.files.calls.count("fsync")
        self.assertLessEqual(tried, 1)
        disk.clock.advance(AGAIN / 2)
        self.ok(disk.fill(many=2))
        self.assertEqual(disk.files.calls.count("fsync"), tried)
        disk.files.fail = set()
        disk.clock.advance(AGAIN / 2)
        disk.settle()
        self.ok(disk.fill(many=1))
        self.assertGreater(len(disk.segment_paths()), 1)

    def test_a_file_that_a_reader_has_moved_before_it_could_be_synced_is_refused(self) -> None:
        disk = self.disk(ready=0, late=True)
        disk.journal._ready = lambda: False
        committed: list[Any] = []
        commit = disk.journal.commit

        def late(placed: Any, done: Any) -> None:
            os.rename(placed.visible[0], disk.top / "moved")
            commit(placed, done)

        disk.journal.commit = late
        disk.send("1", b"text", "a").addErrback(committed.append)
        disk.settle()
        self.assertEqual(type(committed[0].value), FileNotFoundError)

    def test_a_checkpoint_that_fails_is_tried_again_and_files_are_synced_meanwhile(self) -> None:
        disk = self.disk(ready=2)
        self.ok(disk.fill(many=3))
        disk.files.fail = {"syncfs", "rename"}
        results = disk.fill(many=4)
        disk.settle()
        self.ok(results)
        self.assertEqual(len(disk.in_use()), 2)
        more = disk.fill(many=1)
        disk.settle()
        self.ok(more)
        self.assertIn("fsync", disk.syncs())
        disk.files.fail = set()
        disk.clock.advance(AGAIN)
        disk.settle()
        self.assertEqual(disk.in_use(), [])
        self.ok(disk.fill(many=1))
        self.assertEqual(len(disk.in_use()), 1)

    def test_files_whose_pages_were_lost_are_written_again_also_when_the_next_sync_succeeds(self) -> None:
        disk = self.disk(ready=2)
        self.ok(disk.fill("a", many=3))
        disk.files.fail = {"syncfs", "rename"}
        self.ok(disk.fill("b", many=1))  # the segment before is full now; its checkpoint fails
        self.assertEqual(disk.files.calls.count("rename"), 1)
        suspect = [each.header.mount for each in map(segments.read, disk.segment_paths()) if each.header]
        self.assertIn(segments.SUSPECT, suspect)
        disk.files.fail = set()
        inodes = {path: os.stat(disk.root / path).st_ino for path in self.paths(disk)}
        disk.clock.advance(AGAIN)
        disk.settle()
        self.assertEqual(len(disk.in_use()), 1)
        rewritten = [path for path, inode in inodes.items() if os.stat(disk.root / path).st_ino != inode]
        self.assertEqual((len(rewritten), {path[0] for path in rewritten}), (3, {"a"}))
        disk.clock.advance(CHECKPOINT)
        disk.settle()  # the segment that was in use when they were lost, too
        rewritten = [path for path, inode in inodes.items() if os.stat(disk.root / path).st_ino != inode]
        self.assertEqual((len(rewritten), disk.in_use()), (4, []))
        renamed = disk.files.calls.count("rename")
        self.ok(disk.fill("c", many=1))  # what came after the loss is not touched
        disk.clock.advance(CHECKPOINT)
        disk.settle()
        self.assertEqual((disk.in_use(), disk.files.calls.count("rename")), ([], renamed))

    def test_files_whose_pages_were_lost_before_their_record_was_written_are_written_again(self) -> None:
        disk = self.disk(late=True)
        self.ok(disk.fill("a", many=6))
        waiting = disk.fill("b", many=1)  # its file is there, its record waits for a segment
        disk.files.fail = {"syncfs"}
        disk.late.work()
        disk.files.fail = set()
        disk.settle()
        self.ok(waiting)
        inodes = {path: os.stat(disk.root / path).st_ino for path in self.paths(disk)}
        disk.clock.advance(CHECKPOINT)
        while disk.late.jobs:
            disk.late.work()
        rewritten = [path for path, inode in inodes.items() if os.stat(disk.root / path).st_ino != inode]
        self.assertIn("b", {path[0] for path in rewritten})

    def paths(self, disk: JournalDisk) -> list[str]:
        return [key.replace("/", "/new/") for key in disk.tree("new")]

    def test_whatever_call_fails_what_is_refused_is_gone_and_what_is_not_is_there(self) -> None:
        started = len(self.disk().files.calls)
        total = len(self.attempt(-1).files.calls) - started
        for fail_at in range(total):
            self.attempt(fail_at)

    def attempt(self, fail_at: int) -> JournalDisk:
        files = RecordingFiles(error=errno.ENOSPC if fail_at % 2 else errno.EIO)
        disk = JournalDisk(self.mktemp(), files, ready=2)
        files.fail_at = len(files.calls) + fail_at if fail_at >= 0 else -1
        promised = disk.run_scenario()
        self.assertEqual(len(promised), 11)
        there = {disk.place(*key.split("/")): content for key, content in disk.tree("new").items()}
        call = files.calls[files.fail_at] if files.fail_at < len(files.calls) else ""
        self.assertEqual(
            {place: content for place, (_, content, error) in promised.items() if error is None}, there, call
        )
        self.assertEqual(disk.tree("tmp"), {}, call)
        self.stop(disk)
        shutil.rmtree(disk.top)
        return disk

    # -- the end -------------------------------------------------------------------------------------------------

    def test_a_stop_leaves_nothing_to_recover(self) -> None:
        disk = self.disk(ready=2)
        self.ok(disk.fill(many=5))
        self.assertTrue(self.stop(disk))
        self.assertEqual(disk.in_use(), [])

    def test_a_stop_waits_for_what_is_under_way(self) -> None:
        disk = self.disk(ready=1, late=True)
        results = [disk.send("1", b"text", "a"), disk.send("2", b"x" * 300, "a")]
        disk.clock.advance(0)
        results.append(disk.send("3", b"text", "a"))  # waits for the batch before
        self.assertEqual(len(disk.late.jobs), 1)  # a segment is being made
        disk.ended = True
        stopped = disk.journal.stop()
        disk.settle()
        self.assertNoResult(stopped)
        while disk.late.jobs:
            self.assertNoResult(stopped)
            disk.late.work()
            disk.settle()
        self.assertTrue(self.successResultOf(stopped))
        self.ok(results)
        self.assertEqual((disk.in_use(), disk.files.opened, disk.clock.getDelayedCalls()), ([], {}, []))

    def test_a_stop_that_cannot_sync_says_that_something_is_left(self) -> None:
        disk = self.disk(ready=1)
        self.ok(disk.fill(many=1))
        disk.files.fail, disk.ended = {"syncfs", "rename"}, True
        stopped = disk.journal.stop()
        disk.settle()
        self.assertFalse(self.successResultOf(stopped))
        self.assertEqual((len(disk.in_use()), disk.files.opened, disk.clock.getDelayedCalls()), (1, {}, []))


class PowerCutTests(SynchronousTestCase):
    """With the journal, its checkpoints, and the recovery after it."""

    def check(self, disk: JournalDisk, promised: Any, prefix: int, keep: Callable[[int], bool], torn: bool) -> None:
        left = after_power_cut(
            disk.files.operations[:prefix], keep, names_come=True, torn=torn, before=disk.before
        )  # fmt: skip
        root = Path(self.mktemp()).absolute()
        report = restart(disk.top, left, root, last=segments.Running(b"before", 1200.0), segment_size=SIZE)
        self.assertEqual(report.failed + report.foreign + report.damaged, [])
        for place, (acknowledged, content, _) in promised.items():
            path = root / Path(place).relative_to(disk.top)
            if acknowledged <= prefix:
                self.assertEqual(path.read_bytes() if path.exists() else None, content)
            elif path.exists():
                self.assertEqual(path.read_bytes(), content)
        shutil.rmtree(root)

    def record(self) -> tuple[JournalDisk, dict[str, Any]]:
        disk = JournalDisk(self.mktemp())
        disk.files.operations.clear()
        return disk, disk.run_scenario()

    def test_what_was_promised_is_there_and_the_rest_is_whole_or_gone(self) -> None:
        disk, promised = self.record()
        self.assertEqual({error for _, _, error in promised.values()}, {None})
        for step in range(2):
            if step:
                disk.clock.advance(CHECKPOINT)
                disk.settle()  # the segment is freed; then it is used again
                disk.send("1000.M8,S=4", b"last", "a").addCallback(
                    lambda _: promised.update(
                        {disk.place("a", "1000.M8,S=4"): (len(disk.files.operations), b"last", None)}
                    )
                )
                disk.settle()
        for prefix in range(len(disk.files.operations) + 1):
            for torn in (False, True):
                self.check(disk, promised, prefix, lambda at: False, torn)
            self.check(disk, promised, prefix, self.only_names(disk), True)
            for lost in range(max(0, prefix - 9), prefix, 2):
                self.check(disk, promised, prefix, lambda at, lost=lost: at != lost, True)

    def only_names(self, disk: JournalDisk) -> Callable[[int], bool]:
        return lambda at: hasattr(disk.files.operations[at], "path")

    def test_the_model_notices_a_sync_that_is_missing(self) -> None:
        disk, promised = self.record()
        operations = disk.files.operations
        for at in [at for at, each in enumerate(operations) if isinstance(each, Sync)][-1:]:
            del operations[at]
        late = {place: (0, content, None) for place, (_, content, _) in promised.items()}
        self.assertRaises(self.failureException, self.check, disk, late, len(operations), lambda at: False, False)
