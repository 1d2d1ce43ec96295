"""Segments are made whole or not at all; a journal has one owner; what is in them is read without trust."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from mailserver.durable import segments
from mailserver.durable.files import FILES
from mailserver.durable.records import BLOCK, encode_header, encode_record
from mailserver.durable.segments import InUse, Running, Segment
from tests.durable.disk import RecordingFiles

SIZE = 4 * BLOCK


class SegmentsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir()
        self.path = self.directory / "segment-0001"

    def make(self) -> int:
        descriptor = segments.make(self.path, SIZE, FILES)
        self.addCleanup(os.close, descriptor)
        return descriptor

    def test_a_new_one_is_full_of_zeros_free_and_private(self) -> None:
        self.make()
        self.assertEqual(self.path.stat().st_size, SIZE)
        self.assertEqual(self.path.stat().st_mode & 0o777, 0o600)
        self.assertEqual(self.path.read_bytes()[BLOCK:], bytes(SIZE - BLOCK))
        found = segments.read(self.path)
        self.assertEqual((found.header is not None and found.header.in_use, found.found), (False, ()))

    def test_whatever_fails_nothing_is_left_of_it(self) -> None:
        files = RecordingFiles()
        os.close(segments.make(self.directory / "segment-0002", SIZE, files))
        before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
        for fail_at in range(len(files.calls)):
            failing = RecordingFiles(fail_at, errno.ENOSPC)
            self.assertRaises(OSError, segments.make, self.path, SIZE, failing)
            self.assertFalse(self.path.exists(), failing.calls)
        short = RecordingFiles()
        short.short = True
        self.assertRaises(OSError, segments.make, self.path, SIZE, short)
        self.assertFalse(self.path.exists())
        if before:
            self.assertEqual(len(os.listdir("/proc/self/fd")), before)

    def test_one_that_is_there_is_not_overwritten(self) -> None:
        self.path.write_bytes(b"precious")
        self.assertRaises(FileExistsError, segments.make, self.path, SIZE, FILES)
        self.assertEqual(self.path.read_bytes(), b"precious")

    def test_one_in_use_is_read_until_it_is_marked_free(self) -> None:
        descriptor = self.make()
        header = segments.in_use_header(3, b"boot", 5.0)
        record = encode_record(header.mark, b"d/u/new/1", b"text") + b"text"
        FILES.write_at(descriptor, [encode_header(header), record], 0)
        self.assertEqual([each.at for each in segments.read(self.path).found], [BLOCK])
        self.assertEqual(segments.read(self.path, contents=False).found, ())
        segments.forget(self.path, [BLOCK], FILES)
        self.assertEqual(segments.read(self.path).found, ())
        segments.mark_suspect(self.path, header, FILES)
        suspect = segments.read(self.path).header
        assert suspect is not None
        self.assertEqual((suspect.in_use, suspect.mount, suspect.mark), (True, segments.SUSPECT, header.mark))
        segments.mark_free(self.path, header, FILES)
        free = segments.read(self.path).header
        assert free is not None
        self.assertEqual((free.in_use, free.sequence, free.since), (False, 3, 5.0))

    def test_no_two_uses_have_the_same_mark(self) -> None:
        marks = {segments.in_use_header(1, b"", 0.0).mark for _ in range(100)}
        self.assertEqual(len(marks), 100)

    def test_what_is_no_segment_is_told(self) -> None:
        for content, unused in ((b"", True), (bytes(SIZE), True), (b"text", False), (bytes(SIZE) + b"x", False)):
            self.path.write_bytes(content)
            found = segments.read(self.path)
            self.assertEqual((found.header, found.unused), (None, unused), content[:9])
        self.path.unlink()
        for make in (os.mkdir, os.mkfifo):
            make(self.path)
            self.assertEqual(segments.read(self.path).trouble, "not a file")
            self.path.rmdir() if self.path.is_dir() else self.path.unlink()

    def test_a_failed_one_is_removed_even_when_it_cannot_be_written(self) -> None:
        descriptor = self.make()
        files = RecordingFiles()
        files.fail = {"write_at"}
        segments.remove(Segment(self.path, SIZE, descriptor, segments.in_use_header(1, b"", 0.0)), files)
        self.assertEqual((self.path.exists(), files.calls[-2:]), (False, ["fsync", "close"]))
        segments.remove(Segment(self.path, SIZE, descriptor, segments.in_use_header(1, b"", 0.0)), RecordingFiles())

    def test_segments_are_found_by_name_in_order(self) -> None:
        for name in ("segment-0002", "segment-0001", "lock", "unreadable-1-segment-0003"):
            (self.directory / name).touch()
        found = [path.name for path in segments.segment_paths(self.directory)]
        self.assertEqual(found, ["segment-0001", "segment-0002"])
        self.assertEqual(segments.segment_paths(self.directory / "missing"), [])


class LockTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()

    def lock(self) -> int:
        descriptor = segments.lock(self.directory, FILES)
        self.addCleanup(os.close, descriptor)
        return descriptor

    def test_a_journal_has_one_owner_until_that_is_gone(self) -> None:
        descriptor = segments.lock(self.directory, FILES)
        with self.assertRaises(InUse) as raised:
            segments.lock(self.directory, FILES)
        self.assertIn(str(self.directory), str(raised.exception))
        os.close(descriptor)
        self.lock()

    def test_the_lock_tells_of_a_run_that_did_not_stop(self) -> None:
        descriptor = self.lock()
        self.assertIsNone(segments.last_run(descriptor))
        for alive in (5.0, 20.0):
            segments.note_running(descriptor, Running(b"boot-1", alive))
            self.assertEqual(segments.last_run(descriptor), Running(b"boot-1", alive))
        segments.note_stopped(descriptor)
        self.assertIsNone(segments.last_run(descriptor))
        self.assertGreater(os.fstat(descriptor).st_size, 0)  # the next note needs no room on the disk

    def test_one_at_a_time_recovers(self) -> None:
        self.directory.mkdir()
        for _ in range(2):
            with segments.recovering(self.directory):
                self.assertTrue((self.directory / "lock").exists())
