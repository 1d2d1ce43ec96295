"""Tests of mailserver.accounts.generation: what one process writes, another reads, whatever happens to the file."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from mailserver.accounts.generation import Generation


class GenerationTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.path = Path(self.mktemp())
        self.reader, self.writer = self.open(), self.open()

    def open(self) -> Generation:
        generation = Generation(self.path)
        self.addCleanup(generation.close)
        return generation

    def test_every_change_gives_other_octets_than_all_before(self) -> None:
        seen = {self.reader.read()}
        for writer in (self.writer, self.reader, self.open()):
            for _ in range(3):
                writer.change()
                seen.add(self.reader.read())
        self.assertEqual(len(seen), 10)
        self.assertNotIn(None, seen)
        self.assertEqual(self.reader.read(), self.open().read())

    def test_without_a_change_it_stays_the_same(self) -> None:
        for _ in range(2):
            self.assertEqual(self.reader.read(), b"")
        self.writer.change()
        first = self.reader.read()
        self.assertEqual((self.reader.read(), len(first or b"")), (first, 16))

    def test_the_first_reader_makes_the_file_and_only_its_owner_can_read_it(self) -> None:
        self.writer.change()
        self.assertFalse(self.path.exists())
        for mask in (0o000, 0o277):
            before = os.umask(mask)
            try:
                self.open().read()
            finally:
                os.umask(before)
            self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), 0o600)
            self.path.unlink()

    def test_a_file_that_is_cut_short_is_a_change_and_goes_on(self) -> None:
        self.reader.read()
        self.writer.change()
        before = self.reader.read()
        os.truncate(self.path, 0)
        self.assertEqual(self.reader.read(), b"")
        self.writer.change()
        self.assertNotIn(self.reader.read(), (b"", None, before))

    def test_a_file_that_was_replaced_is_found_after_a_look(self) -> None:
        self.reader.read()
        self.writer.change()
        before = self.reader.read()
        self.path.unlink()
        self.assertNotEqual(self.open().read(), before)  # another server has made it anew
        self.writer.change()
        self.assertEqual(self.reader.read(), before)
        self.reader.look()
        self.assertNotIn(self.reader.read(), (b"", None, before))

    def test_a_file_that_was_removed_is_made_again(self) -> None:
        self.reader.read()
        self.path.unlink()
        self.reader.look()
        self.assertEqual(self.reader.read(), b"")
        self.assertTrue(self.path.exists())

    def test_a_look_at_the_same_file_keeps_it_open(self) -> None:
        self.reader.read()
        descriptor = self.reader._descriptor
        self.reader.look()
        self.assertEqual((self.reader._descriptor, descriptor >= 0), (descriptor, True))

    def test_nothing_but_a_file_of_one_name_is_read_or_written(self) -> None:
        victim = Path(self.mktemp())
        for plant in (
            lambda: self.path.symlink_to(victim),
            lambda: self.path.hardlink_to(victim),
            lambda: os.mkfifo(self.path),
            self.path.mkdir,
        ):
            victim.write_bytes(b"precious")
            plant()
            self.assertIsNone(self.reader.read())
            self.writer.change()
            self.assertEqual(victim.read_bytes(), b"precious")
            if self.path.is_dir() and not self.path.is_symlink():
                self.path.rmdir()
            else:
                self.path.unlink()
        self.assertEqual(self.reader.read(), b"")

    def test_where_no_file_can_be_there_is_nothing_to_be_told(self) -> None:
        lost = Generation(self.path / "none" / "such")
        lost.change()
        self.assertIsNone(lost.read())
        lost.close()

    def test_a_closed_one_opens_itself_again_and_lets_go_of_its_descriptor(self) -> None:
        self.reader.read()
        descriptor = self.reader._descriptor
        self.reader.close()
        self.reader.close()
        self.assertRaises(OSError, os.fstat, descriptor)
        self.writer.change()
        self.assertEqual(self.reader.read(), self.open().read())
