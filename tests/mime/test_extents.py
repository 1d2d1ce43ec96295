"""What is wrong with a part: encodings' names, bare newlines, places; kinds are compared for the whole corpus elsewhere."""

from __future__ import annotations

import io

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver.mime import decode
from mailserver.mime.extents import examine, find_bare_newlines, read_encoding
from mailserver.mime.source import BLOCK, File, Memory


class ExtentTests(SynchronousTestCase):
    def test_names_of_encodings_are_read_leniently(self) -> None:
        for body in (b"base64", b"BASE64", b" base64 ", b'"base64"', b"base64;", b"(c) base64 (d)", b"base64."):
            self.assertEqual(read_encoding(body), "base64", body)
        self.assertEqual(read_encoding(b"\xe4"), "\ufffd")

    def test_one_part_is_examined_without_those_in_it(self) -> None:
        root = decode(
            b"Content-Type: multipart/mixed\r\nMIME-Version: 1.0\r\n\r\n--b\r\nSubject: \xff\r\n\r\nx\r\n--b--\r\n"
        )
        assert root.extent is not None
        self.assertEqual([defect.kind for defect in examine(root.extent, leaf=False)], ["no-boundary"])
        self.assertEqual([defect.kind for defect in root.defects], ["no-boundary", "8bit-header"])

    def test_looking_for_defects_twice_finds_the_same(self) -> None:
        root = decode(b"Content-Type: multipart/mixed\r\n\r\nx\n")
        self.assertEqual(root.defects, root.defects)
        self.assertEqual(len(root.defects), 4)

    def test_a_text_on_disk_is_judged_as_one_in_memory(self) -> None:
        octets = b"Content-Type: text/plain; charset=utf-8\r\n\r\n" + b"a" * BLOCK + b"\xff\r\n"
        self.assertEqual(decode(io.BytesIO(octets)).defects, decode(octets).defects)
        self.assertEqual(
            {defect.kind for defect in decode(octets).defects}, {"8bit-body", "bad-text", "no-mime-version"}
        )
        eight = next(defect for defect in decode(octets).defects if defect.kind == "8bit-body")
        self.assertEqual(octets[eight.place], 0xFF)

    def test_the_first_bare_newline_is_told_and_no_other(self) -> None:
        for octets, places in (
            (b"a\r\nb\r\n", []),
            (b"a\nb\n", [1]),
            (b"a\rb", [1]),
            (b"a\r", [1]),
            (b"\n", [0]),
            (b"a\r\r\n", [1]),
            (b"\r\n\n", [2]),
        ):
            self.assertEqual([defect.place for defect in find_bare_newlines(Memory(octets), [])], places, octets)

    def test_newlines_in_binary_parts_are_none(self) -> None:
        source = Memory(b"a\nb\r\n\rc\nd")
        self.assertEqual([defect.place for defect in find_bare_newlines(source, [(0, 3), (4, 7)])], [7])
        self.assertEqual(list(find_bare_newlines(source, [(0, 9)])), [])

    def test_line_ends_at_the_ends_of_blocks_are_seen_whole(self) -> None:
        for shift in range(-3, 4):
            octets = b"a" * (BLOCK + shift) + b"\r\nb"
            self.assertEqual(list(find_bare_newlines(File(io.BytesIO(octets)), [])), [], shift)
            for bare in (b"\r", b"\n"):
                source = File(io.BytesIO(octets.replace(b"\r\n", bare)))
                self.assertEqual([defect.place for defect in find_bare_newlines(source, [])], [BLOCK + shift])

    @given(st.lists(st.sampled_from([b"\r\n", b"\r", b"\n", b"a"]), max_size=20).map(b"".join))
    @settings(deadline=None, max_examples=200)
    def test_a_bare_newline_is_what_is_left_without_the_pairs(self, octets: bytes) -> None:
        rest = octets.replace(b"\r\n", b"__")
        places = [place for place, octet in enumerate(rest) if octet in b"\r\n"]
        self.assertEqual([defect.place for defect in find_bare_newlines(Memory(octets), [])], places[:1])
