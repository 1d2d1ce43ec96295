"""A draft is written block by block, replaced, aborted at any moment; nobody sees it, and nothing of it is left."""

from __future__ import annotations

import errno
from dataclasses import replace

from twisted.internet.defer import CancelledError
from twisted.trial.unittest import SynchronousTestCase

from mailserver.durable import NewFile, Pace
from tests.durable.disk import SMALL, Disk, LateThread, outcome


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
        self.assertEqual(self.successResultOf(done), {})
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


class PaceTests(SynchronousTestCase):
    """Blocks go to the disk on the reactor as long as that is quick."""

    def setUp(self) -> None:
        self.now = 100.0
        self.thread = LateThread()
        self.disk = Disk(self.mktemp(), run=self.thread, pace=Pace(lambda: self.now))
        self.disk.maildirs("a", "b")

    def test_a_quick_disk_is_written_at_once(self) -> None:
        draft = self.disk.draft()
        self.assertIsNone(draft.write(b"x" * 200))
        self.assertIsNone(draft.write(b"y" * 200))
        self.assertEqual((self.disk.tree("tmp"), self.thread.jobs), ({"a/t0": b"x" * 200 + b"y" * 200}, []))
        draft.abort()
        self.thread.work()
        self.assertEqual((self.disk.tree("tmp"), self.disk.files.opened), ({}, {}))

    def test_after_a_slow_write_threads_do_it_for_a_while(self) -> None:
        draft = self.disk.draft(b"x" * 200)
        write = self.disk.files.write

        def slow(descriptor: int, data: bytes | memoryview) -> int:
            self.now += 0.1
            return write(descriptor, data)

        self.disk.files.write = slow  # type: ignore[method-assign]
        self.assertIsNone(draft.write(b"y" * 200))
        written = draft.write(b"z" * 200)
        self.assertNoResult(written)
        self.thread.work()
        self.successResultOf(written)
        self.now += 1.0
        self.assertIsNone(draft.write(b"z" * 200))
        self.assertEqual(len(self.disk.tree("tmp")["a/t0"]), 800)

    def test_a_write_that_fails_is_told_and_leaves_nothing(self) -> None:
        for call in ("open", "write"):
            draft = self.disk.draft()
            self.disk.files.fail = {call}
            failed = draft.write(b"x" * 200)
            while self.thread.jobs:
                self.thread.work()
            self.assertEqual(outcome(failed).errno, errno.EIO)
            self.assertEqual(outcome(draft.write(b"more")).errno, errno.EIO)
            self.assertEqual(
                outcome(self.disk.durable.create([NewFile(draft, (self.disk.place("a", "x"),))])).errno, errno.EIO
            )
            while self.thread.jobs:
                self.thread.work()
            self.assertEqual((self.disk.tree("tmp"), self.disk.files.opened), ({}, {}))
            self.disk.files.fail = set()

    def test_a_missing_directory_is_made_in_a_thread(self) -> None:
        draft = self.disk.draft(mailbox="missing")
        written = draft.write(b"x" * 200)
        self.assertNoResult(written)
        self.thread.work()
        self.successResultOf(written)
        self.assertIsNone(draft.write(b"x" * 200))

    def test_another_directory_will_do(self) -> None:
        (self.disk.root / "a" / "tmp").rmdir()
        (self.disk.root / "a" / "tmp").write_bytes(b"")
        draft = self.disk.draft(others=("b",))
        written = draft.write(b"x" * 200)
        self.thread.work()
        self.successResultOf(written)
        self.assertEqual(list(self.disk.tree("tmp")), ["b/t2"])
