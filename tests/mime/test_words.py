"""Encoded words; most rows are in corpus_headers.py."""

from __future__ import annotations

from email.header import Header

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver.mime.words import decode_8bit, decode_words


class WordsTests(SynchronousTestCase):
    def test_problems_are_told_once_for_each_run_of_words(self) -> None:
        problems: list[str] = []
        decode_words(b"=?x-none?q?a?= =?x-none?q?b?= c =?utf-8?q?=FF?= =?utf-8?q?ok?=", problems)
        self.assertEqual(problems, ["unknown-charset", "bad-text"])

    def test_good_words_are_no_problem(self) -> None:
        problems: list[str] = []
        decode_words(b"=?utf-8?q?=C3?= =?utf-8?b?pA?= and =?iso-8859-1?q?=E4?=", problems)
        self.assertEqual(problems, [])

    def test_octets_that_nobody_encoded(self) -> None:
        for octets, text in (
            (b"a", "a"),
            (b"\xc3\xa4", "\u00e4"),
            (b"\xe4", "\u00e4"),
            (b"\x1b$BF|\x1b(B", "\u65e5"),
            (b"\x1b[1m", "\x1b[1m"),
        ):
            self.assertEqual(decode_8bit(octets), text)

    def test_no_line_end_comes_out(self) -> None:
        for octets in (b"a\rb", b"=?utf-8?q?=0D=0A=00?=", b"\xe4\r\n\0", b"=?utf-8?b?DQoA?="):
            self.assertFalse({"\r", "\n", "\0"} & {*decode_words(octets)}, octets)

    @given(st.binary(max_size=200))
    @settings(deadline=None, max_examples=300)
    def test_any_octets_are_text(self, octets: bytes) -> None:
        self.assertIsInstance(decode_words(octets), str)

    @given(
        st.lists(
            st.sampled_from([b"=?", b"?=", b"utf-8", b"?q?", b"?b?", b"=C3", b" ", b"a", b"?", b"="]), max_size=40
        )
    )
    @settings(deadline=None, max_examples=300)
    def test_anything_like_words_is_text(self, pieces: list[bytes]) -> None:
        self.assertIsInstance(decode_words(b"".join(pieces), []), str)

    @given(st.text(st.characters(min_codepoint=0x20, exclude_categories=["Cs", "Cc", "Zl", "Zp"]), max_size=80))
    @settings(deadline=None, max_examples=200)
    def test_what_python_writes_is_read_back(self, text: str) -> None:
        written = Header(text, "utf-8").encode(linesep="\r\n").replace("\r\n", "").encode()
        self.assertEqual(decode_words(written), text)
