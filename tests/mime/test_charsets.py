"""Charsets; most rows are in corpus_bodies.py."""

from __future__ import annotations

from encodings.aliases import aliases

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver.mime.charsets import BAD_TEXT, UNKNOWN_CHARSET, decode_text, guess_text, is_known

#: Names that mails have, from the registry of IANA and the Encoding Standard.
KNOWN = [
    "us-ascii",
    "utf-8",
    "utf8",
    "iso-8859-1",
    "iso-8859-2",
    "iso-8859-3",
    "iso-8859-4",
    "iso-8859-5",
    "iso-8859-6",
    "iso-8859-7",
    "iso-8859-8",
    "iso-8859-9",
    "iso-8859-10",
    "iso-8859-13",
    "iso-8859-14",
    "iso-8859-15",
    "iso-8859-16",
    "windows-1250",
    "windows-1251",
    "windows-1252",
    "windows-1253",
    "windows-1254",
    "windows-1255",
    "windows-1256",
    "windows-1257",
    "windows-1258",
    "windows-874",
    "koi8-r",
    "koi8-u",
    "macintosh",
    "x-mac-cyrillic",
    "ibm866",
    "gbk",
    "gb18030",
    "gb2312",
    "hz-gb-2312",
    "big5",
    "big5-hkscs",
    "euc-jp",
    "iso-2022-jp",
    "shift_jis",
    "euc-kr",
    "iso-2022-kr",
    "utf-16be",
    "utf-16le",
    "utf-16",
    "utf-32",
    "utf-7",
    "cp437",
    "cp850",
    "cp852",
    "tis-620",
    "viscii",
]


class CharsetsTests(SynchronousTestCase):
    def test_names_of_mails_are_known(self) -> None:
        unknown = [name for name in KNOWN if not is_known(name)]
        self.assertEqual(unknown, ["viscii"])

    def test_names_may_be_written_in_many_ways(self) -> None:
        for name in (
            "ISO-8859-2",
            "iso8859-2",
            "ISO_8859-2",
            "iso 8859 2",
            "x-iso-8859-2",
            "latin2",
            "L2",
            "charset=latin2",
        ):
            self.assertEqual(decode_text(b"\xb1", name), ("\u0105", ""), name)

    def test_codecs_that_are_no_charsets_are_not_known(self) -> None:
        for name in (
            "base64",
            "hex",
            "zlib",
            "bz2",
            "quopri",
            "rot13",
            "uu",
            "idna",
            "punycode",
            "unicode_escape",
            "undefined",
            "",
        ):
            self.assertFalse(is_known(name), name)

    def test_every_charset_of_python_reads_any_octets(self) -> None:
        octets = bytes(range(256))
        for name in {*aliases, *aliases.values()}:
            text, problem = decode_text(octets, name)
            self.assertIsInstance(text, str)
            self.assertIn(problem, ("", BAD_TEXT, UNKNOWN_CHARSET))

    def test_names_that_nobody_knows_are_not_remembered_by_python(self) -> None:
        import encodings

        before = len(encodings._cache)  # type: ignore[attr-defined]  # what would grow
        for number in range(100):
            decode_text(b"x", f"x-unknown-{number}")
        self.assertEqual(len(encodings._cache), before)  # type: ignore[attr-defined]  # as above

    def test_a_guess_takes_the_mark_away(self) -> None:
        for octets in (b"\xef\xbb\xbfa", b"\xff\xfea\0", b"\xfe\xff\0a"):
            self.assertEqual(guess_text(octets), "a")

    def test_utf_16_with_an_odd_octet_is_read(self) -> None:
        self.assertEqual(guess_text(b"\xff\xfea\0b"), "a\ufffd")

    @given(st.binary(max_size=100), st.sampled_from([*KNOWN, "", "x-none"]))
    @settings(deadline=None, max_examples=300)
    def test_any_octets_are_text(self, octets: bytes, charset: str) -> None:
        text, problem = decode_text(octets, charset)
        self.assertIsInstance(text, str)
        self.assertEqual(problem == UNKNOWN_CHARSET, charset in ("viscii", "x-none"))

    @given(st.text(st.characters(codec="utf-8"), min_size=1))
    @settings(deadline=None, max_examples=200)
    def test_utf_8_comes_back(self, text: str) -> None:
        self.assertEqual(decode_text(text.encode(), "utf-8"), (text.removeprefix("\ufeff"), ""))
