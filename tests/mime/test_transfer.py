"""Transfer encodings: whole, in pieces, and against the encoders of the standard library; rows are in corpus_bodies.py."""

from __future__ import annotations

import base64
import binascii
import quopri
import sys

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver.mime.transfer import (
    UuDecoder,
    decode_base64,
    decode_blocks,
    decode_quoted_printable,
    decode_uu_line,
    find_uuencoded,
    is_plain,
    make_decoder,
)
from tests.mime.corpus_bodies import ENCODED, uuencode

ENCODINGS = st.sampled_from(["base64", "quoted-printable", "x-uuencode", "7bit", "x-strange"])
LIKE_CODE = st.lists(
    st.sampled_from(
        [
            b"=",
            b"=\r\n",
            b"=4",
            b"1",
            b" ",
            b"\t",
            b"\r\n",
            b"\n",
            b"\r",
            b"aGVs",
            b"bG8=",
            b"_",
            b"-",
            b"\xe4",
            b"begin 644 a\n",
            b"#86)C\n",
            b"end\n",
        ]
    ),
    max_size=40,
).map(b"".join)


def in_pieces(octets: bytes, size: int) -> list[bytes]:
    return [octets[start : start + size] for start in range(0, len(octets), size)]


class DecoderTests(SynchronousTestCase):
    def test_each_row_of_the_corpus_is_the_same_octet_by_octet(self) -> None:
        for name, encoding, body, _text, _defects in ENCODED:
            code = encoding.decode().lower()
            whole = b"".join(decode_blocks([body], code))
            for size in (1, 2, 3, 7):
                self.assertEqual(b"".join(decode_blocks(in_pieces(body, size), code)), whole, name)

    @given(LIKE_CODE | st.binary(max_size=80), ENCODINGS, st.integers(1, 9))
    @settings(deadline=None, max_examples=500)
    def test_any_cut_of_any_octets_gives_the_same(self, octets: bytes, encoding: str, size: int) -> None:
        whole, pieces = make_decoder(encoding), make_decoder(encoding)
        expected = whole.feed(octets) + whole.finish()
        self.assertEqual(b"".join([*map(pieces.feed, in_pieces(octets, size)), pieces.finish()]), expected)
        self.assertEqual(pieces.problem, whole.problem)

    def test_equals_signs_that_mean_nothing_stay_also_where_lengths_cancel_out(self) -> None:
        # binascii drops up to the next LF behind "=\r", so that the length of its output is no proof here.
        for code, text in (
            (b"=\rXX\n=G", b"XX\n=G"),
            (b"==41", b"=A"),
            (b"a=\r\nb=4=\n", b"ab=4"),
            (b"=41=\r", b"A"),
        ):
            self.assertEqual(decode_quoted_printable(code), text)

    @given(st.binary(max_size=300), st.integers(0, 80))
    @settings(deadline=None, max_examples=200)
    def test_base64_of_the_library_comes_back(self, octets: bytes, width: int) -> None:
        code = base64.encodebytes(octets) if width < 4 else b"\n".join(in_pieces(base64.b64encode(octets), width))
        decoder = make_decoder("base64")
        self.assertEqual(decoder.feed(code) + decoder.finish(), octets)
        self.assertEqual(decoder.problem, "")
        self.assertEqual(decode_base64(code.replace(b"=", b"")), octets)

    @given(st.binary(max_size=300))
    @settings(deadline=None, max_examples=200)
    def test_quoted_printable_of_the_library_comes_back(self, octets: bytes) -> None:
        code = quopri.encodestring(octets.replace(b"\r", b"").replace(b"\n", b"\r\n"), quotetabs=True)
        self.assertEqual(decode_quoted_printable(code).replace(b"\r\n", b"\n"), octets.replace(b"\r", b""))

    @given(st.binary(max_size=300))
    @settings(deadline=None, max_examples=200)
    def test_uuencode_comes_back(self, octets: bytes) -> None:
        decoder = UuDecoder()
        self.assertEqual(decoder.feed(uuencode(octets)) + decoder.finish(), octets)
        self.assertEqual((decoder.problem, decoder.name), ("", b"a.bin"))

    def test_a_line_that_never_ends_is_not_held(self) -> None:
        decoder = make_decoder("quoted-printable")
        given = sum(len(decoder.feed(b"a=41 " * 1000)) for _ in range(100))
        self.assertGreater(given, 250_000)
        self.assertEqual(given + len(decoder.finish()), 300_000 - 1)  # the blank at the end

    def test_lines_of_blanks_and_equals_signs_end(self) -> None:
        for octets in (b" " * 300_000, b"=" * 300_000, b"= " * 150_000, b"=\t=" * 100_000):
            whole = decode_quoted_printable(octets)
            self.assertEqual(
                b"".join(decode_blocks(in_pieces(octets, 100_000), "quoted-printable")).strip(), whole.strip()
            )

    def test_blanks_without_end_are_not_held(self) -> None:
        decoder = make_decoder("quoted-printable")
        for _ in range(100):
            decoder.feed(b" " * 65_536)
            self.assertLess(sys.getsizeof(decoder._held), 1 << 21)  # type: ignore[attr-defined]  # what it holds back

    def test_text_behind_base64_is_not_held(self) -> None:
        decoder = make_decoder("base64")
        self.assertEqual(decoder.feed(b"aGVsbG8="), b"hello")
        for _ in range(10):
            self.assertEqual(decoder.feed(b"A" * 10_000), b"")
        self.assertEqual((decoder.finish(), decoder.problem), (b"", "bad-base64"))

    def test_which_encodings_change_nothing(self) -> None:
        for encoding in ("", "7bit", "8bit", "binary"):
            self.assertTrue(is_plain(encoding))
        for encoding in ("base64", "quoted-printable", "x-strange"):
            self.assertFalse(is_plain(encoding))

    def test_no_block_is_empty(self) -> None:
        self.assertEqual(list(decode_blocks([b"", b"\r\n", b"=\r\n"], "quoted-printable")), [b"\r\n"])
        self.assertEqual(list(decode_blocks([b"", b"a"], "base64")), [])


class UuencodeTests(SynchronousTestCase):
    def test_files_within_a_text_are_found_with_their_names(self) -> None:
        text = b"hello\r\n" + uuencode(b"one", b"a b.txt") + b"then\r\n" + uuencode(bytes(1000), b"c") + b"bye\r\n"
        self.assertEqual(list(find_uuencoded(text)), [(b"a b.txt", b"one"), (b"c", bytes(1000))])

    def test_text_that_only_begins_so_is_none(self) -> None:
        for text in (
            b"begin 644 a\nhello\nend\n",
            b"begin 644 a\n",
            b"begin\n",
            b"begin 644 a\n`\nend\n",
            b"xbegin 644 a\n#86)C\nend\n",
        ):
            self.assertEqual(list(find_uuencoded(text)), [], text)

    def test_a_line_with_a_check_character_is_read(self) -> None:
        self.assertEqual(decode_uu_line(binascii.b2a_uu(b"abc").rstrip(b"\n") + b"x"), b"abc")

    def test_a_line_that_is_none_is_none(self) -> None:
        self.assertIsNone(decode_uu_line(b"#\x7f\x7f\x7f\x7f"))
        # Some encoders fill the last group of four with what was in their memory, which is no part of the octets.
        line = binascii.b2a_uu(bytes(41)).rstrip(b"\n")
        self.assertEqual(decode_uu_line(line[:-1] + b"!"), bytes(41))
        self.assertEqual(decode_uu_line(line[:-1] + b"\x7f9"), bytes(41))
        self.assertEqual(decode_uu_line(b""), b"")
