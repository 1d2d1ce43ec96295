"""Files that wait share a turn of the disk; each has its own error; after a power cut what was promised is there."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.defer import execute
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailserver.durable import Files, NewFile
from mailserver.durable.committers import FileSync, NoSync, ThreadSyncer
from mailserver.durable.segments import Running
from tests.durable.disk import CommittedDisk, Data, RecordingFiles, Sync, after_power_cut, outcome, restart


def file_sync(disk: CommittedDisk) -> FileSync:
    return FileSync(disk.syncer, disk.clock)


class FileSyncTests(SynchronousTestCase):
    def disk(self, files: RecordingFiles | None = None) -> CommittedDisk:
        return CommittedDisk(self.mktemp(), files, file_sync)

    def test_all_of_a_turn_share_one_sync_and_what_comes_meanwhile_the_next(self) -> None:
        disk = self.disk()
        results = [disk.send(f"{number}", b"text", "a") for number in range(3)]
        self.assertEqual(disk.syncer.asked, [])
        disk.clock.advance(0)
        self.assertEqual([len(asked[0]) for asked in disk.syncer.asked], [3])
        results += [disk.send("3", b"text", "a"), disk.send("4", b"text", "b", "c")]
        disk.clock.advance(0)
        self.assertEqual(len(disk.syncer.asked), 1)
        self.assertNoResult(results[0])
        disk.syncer.work()
        self.assertEqual([self.successResultOf(result) for result in results[:3]], [{}] * 3)
        self.assertEqual(
            [(len(descriptors), data_only) for descriptors, _, data_only in disk.syncer.asked], [(2, False)]
        )
        disk.syncer.work()
        self.assertEqual([self.successResultOf(result) for result in results[3:]], [{}] * 2)
        self.assertEqual((disk.files.opened, disk.tree("tmp"), len(disk.tree("new"))), ({}, {}, 6))

    def test_the_promise_comes_after_the_return_and_after_the_sync(self) -> None:
        disk = self.disk()
        result = disk.send("1", b"text", "a")
        self.assertNoResult(result)
        self.assertEqual(list(disk.tree("new")), ["a/1"])
        disk.settle()
        self.successResultOf(result)

    def test_a_sync_that_fails_refuses_its_message_alone_and_takes_it_away(self) -> None:
        disk = self.disk()
        results = [disk.send("1", b"one", "a"), disk.send("2", b"two", "a", "b"), disk.send("3", b"x" * 200, "c")]
        disk.files.fail_at = len(disk.files.calls) + 1
        disk.settle()
        self.assertEqual([getattr(outcome(each), "errno", 0) for each in results], [0, errno.EIO, 0])
        self.assertEqual(sorted(disk.tree("new")), ["a/1", "c/3"])
        self.assertEqual((disk.tree("tmp"), disk.files.opened), ({}, {}))

    def test_a_creation_that_nobody_waits_for_any_more_ends_all_the_same(self) -> None:
        for fail in (set(), {"fsync"}):
            disk = self.disk()
            result = disk.send("1", b"text", "a")
            result.addErrback(lambda failure: None)
            result.cancel()
            disk.files.fail = fail
            disk.settle()
            self.assertEqual((list(disk.tree("new")), disk.files.opened), ([] if fail else ["a/1"], {}))
            self.assertIsNone(disk.durable.stopService())

    def test_what_cannot_be_done_at_once_goes_through_a_thread_and_is_there_once(self) -> None:
        disk = self.disk()
        result = disk.send("1", b"text", "a", "missing")
        self.assertEqual(self.successResultOf(result), {})
        self.assertEqual(disk.tree("new"), {"a/1": b"text", "missing/1": b"text"})
        self.assertEqual((disk.tree("tmp"), disk.files.opened, disk.syncer.asked), ({}, {}, []))

    def test_two_drafts_of_which_one_is_large_arrive_whole(self) -> None:
        disk = self.disk()
        new = [NewFile(disk.draft(b"x" * 300), (disk.place("a", "1"),)),
               NewFile(disk.draft(b"small"), (disk.place("missing", "2"),))]  # fmt: skip
        self.assertEqual(self.successResultOf(disk.durable.create(new)), {})
        self.assertEqual(disk.tree("new"), {"a/1": b"x" * 300, "missing/2": b"small"})
        self.assertEqual((disk.tree("tmp"), disk.files.opened), ({}, {}))

    def test_it_stops_when_all_is_done_and_stops_its_syncer_once(self) -> None:
        disk = self.disk()
        committer = disk.durable.committer
        assert isinstance(committer, FileSync)
        results = [disk.send("1", b"text", "a")]
        stopped = committer.stop()
        disk.clock.advance(0)
        results.append(disk.send("2", b"text", "a"))
        self.assertNoResult(stopped)
        disk.settle()
        self.assertTrue(self.successResultOf(stopped))
        self.assertEqual(([outcome(each) for each in results], disk.syncer.stopped), ([None, None], 1))
        idle = self.disk()
        assert idle.durable.committer is not None
        self.assertTrue(self.successResultOf(idle.durable.committer.stop()))
        self.assertEqual(idle.syncer.stopped, 1)

    def test_every_call_that_fails_refuses_with_nothing_left_or_nothing_lost(self) -> None:
        total = len(self.attempt(-1).files.calls)
        for fail_at in range(total):
            self.attempt(fail_at)

    def attempt(self, fail_at: int) -> CommittedDisk:
        disk = self.disk(RecordingFiles(fail_at, errno.ENOSPC if fail_at % 2 else errno.EIO))
        promised = disk.run_scenario()
        there = {disk.place(*key.split("/")): content for key, content in disk.tree("new").items()}
        self.assertEqual({place: content for place, (_, content, error) in promised.items() if error is None}, there)
        refused = {error for _, _, error in promised.values() if error is not None}
        self.assertLessEqual(len(refused), 1 if fail_at >= 0 else 0)
        self.assertEqual((disk.tree("tmp"), disk.files.opened), ({}, {}), disk.files.calls[fail_at])
        shutil.rmtree(disk.top)
        return disk


class PowerCutTests(SynchronousTestCase):
    """With fsync of each file, on a file system where that brings its names."""

    def check(self, disk: CommittedDisk, promised: Any, prefix: int, keep: Callable[[int], bool], torn: bool) -> None:
        left = after_power_cut(disk.files.operations[:prefix], keep, names_come=True, torn=torn)
        root = Path(self.mktemp()).absolute()
        restart(disk.top, left, root, last=Running(b"before", 1200.0), segment_size=0)
        for place, (acknowledged, content, _) in promised.items():
            path = root / Path(place).relative_to(disk.top)
            if acknowledged <= prefix:
                self.assertEqual(path.read_bytes() if path.exists() else None, content)
            elif path.exists():
                self.assertEqual(path.read_bytes(), content)
        shutil.rmtree(root)

    def test_what_was_promised_is_there_and_the_rest_is_whole_or_gone(self) -> None:
        disk = CommittedDisk(self.mktemp(), None, file_sync)
        promised = disk.run_scenario()
        self.assertEqual({error for _, _, error in promised.values()}, {None})
        for prefix in range(len(disk.files.operations) + 1):
            for torn in (False, True):
                self.check(disk, promised, prefix, lambda at: False, torn)
            self.check(disk, promised, prefix, lambda at: not isinstance(disk.files.operations[at], Data), True)
            for lost in range(max(0, prefix - 9), prefix, 2):
                self.check(disk, promised, prefix, lambda at, lost=lost: at != lost, True)

    def test_the_model_notices_a_sync_that_is_missing(self) -> None:
        disk = CommittedDisk(self.mktemp(), None, file_sync)
        promised = disk.run_scenario()
        operations = disk.files.operations
        last = max(at for at, operation in enumerate(operations) if isinstance(operation, Sync))
        del operations[last]
        late = {place: (0, content, None) for place, (_, content, _) in promised.items()}
        self.assertRaises(self.failureException, self.check, disk, late, len(operations), lambda at: False, False)


class ThreadSyncerTests(SynchronousTestCase):
    def test_each_descriptor_has_its_own_error(self) -> None:
        files = RecordingFiles()
        path = Path(self.mktemp())
        path.write_bytes(b"")
        descriptors = [files.open(path, os.O_RDONLY) for _ in range(3)]
        self.addCleanup(lambda: [os.close(each) for each in descriptors])
        for data_only, call in ((False, "fsync"), (True, "fdatasync")):
            got: list[Any] = []
            files.calls.clear()
            files.fail_at = 1
            ThreadSyncer(execute, files).sync(descriptors, got.extend, data_only=data_only)
            self.assertEqual([getattr(each, "errno", None) for each in got], [None, errno.EIO, None])
            self.assertEqual(files.calls, [call] * 3)

    def test_there_is_nothing_to_stop(self) -> None:
        self.assertIsNone(ThreadSyncer(execute, Files()).stop())


class NoSyncTests(SynchronousTestCase):
    def test_it_promises_without_a_sync_later_in_the_turn(self) -> None:
        clock = Clock()
        disk = CommittedDisk(self.mktemp(), None, lambda disk: NoSync(clock))
        results = [disk.send("1", b"text", "a"), disk.send("2", b"x" * 300, "b")]
        self.assertNoResult(results[0])
        clock.advance(0)
        self.assertEqual([self.successResultOf(result) for result in results], [{}, {}])
        self.assertEqual([call for call in disk.files.calls if "sync" in call], [])
        self.assertEqual((len(disk.tree("new")), disk.files.opened), (2, {}))
        assert disk.durable.committer is not None
        self.assertTrue(self.successResultOf(disk.durable.committer.stop()))
