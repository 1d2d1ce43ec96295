"""Octets in memory and in a file: the same from both, never more of a file than is asked for."""

from __future__ import annotations

import io

from twisted.trial.unittest import SynchronousTestCase

from mailserver.mime.source import BLOCK, File, Memory, blocks


class SourceTests(SynchronousTestCase):
    def test_both_give_the_same_octets_and_lines(self) -> None:
        for octets in (b"", b"a\r\nb", b"a\rb\r", b"a\nb\rc"):
            memory, file = Memory(octets), File(io.BytesIO(octets))
            self.assertEqual(memory.size, file.size)
            for start in range(len(octets) + 1):
                for end in range(start, len(octets) + 2):
                    self.assertEqual(memory.read(start, end), octets[start:end])
                    self.assertEqual(file.read(start, end), octets[start:end])
                    self.assertEqual(memory.lines(start, end), file.lines(start, end))

    def test_lines_of_a_mail_with_only_cr_end_with_lf_in_the_same_places(self) -> None:
        self.assertEqual(Memory(b"a\rb\r").lines(0, 4), b"a\nb\n")
        self.assertEqual(Memory(b"a\rb\n").lines(0, 4), b"a\rb\n")

    def test_a_window_has_what_was_asked_for(self) -> None:
        octets = bytes(range(256)) * 3000
        file = File(io.BytesIO(octets))
        for start, least in ((0, 10), (100, BLOCK), (5, 600_000), (700_000, 10_000_000), (767_999, 1), (3, 3)):
            window, base = file.window(start, least)
            self.assertLessEqual(base, start)
            end = min(start + least, len(octets))
            self.assertEqual(window[start - base : end - base], octets[start:end])

    def test_a_file_begins_where_it_stands(self) -> None:
        file = io.BytesIO(b"beforeafter")
        file.seek(6)
        source = File(file)
        self.assertEqual((source.size, source.read(0, 99)), (5, b"after"))
        file.seek(99)
        self.assertEqual(File(file).size, 0)

    def test_blocks_are_of_the_size_that_was_asked_for(self) -> None:
        self.assertEqual(list(blocks(Memory(b"abcdefg"), 1, 6, 2)), [b"bc", b"de", b"f"])
        self.assertEqual(list(blocks(Memory(b"abc"), 2, 2, 2)), [])

    def test_blocks_end_where_a_file_became_shorter(self) -> None:
        file = io.BytesIO(b"abcdef")
        source = File(file)
        file.truncate(3)
        self.assertEqual(list(blocks(source, 0, 6, 2)), [b"ab", b"c"])

    def test_a_pipe_is_refused(self) -> None:
        class Pipe(io.BytesIO):
            def seekable(self) -> bool:
                return False

        self.assertRaises(ValueError, File, Pipe())
