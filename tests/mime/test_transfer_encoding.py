"""Transfer encodings, written (RFC 2045 6)."""

from __future__ import annotations

import base64
import binascii
import quopri
from collections.abc import Iterable

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver.mime import transfer
from mailserver.mime.transfer import (
    choose,
    decode_base64,
    decode_quoted_printable,
    encode_base64,
    encode_quoted_printable,
    encode_transfer,
    survey,
)

bodies = st.binary(max_size=400) | st.lists(
    st.sampled_from(
        [b"\r\n", b"\n", b"\r", b" ", b"\t", b".", b"=", b"a", b"\xc3\xa4", b"x" * 70, b"x" * 990, b"\0"]
    ),
    max_size=20,
).map(b"".join)


def cut(body: bytes, places: Iterable[int]) -> list[bytes]:
    """The body in blocks, some of them empty."""
    ends = sorted(min(place, len(body)) for place in places)
    return [body[start:end] for start, end in zip([0, *ends], [*ends, len(body)], strict=True)]


class SurveyTests(SynchronousTestCase):
    def test_TM8_what_can_go_as_it_is(self) -> None:
        for what, body, plain in (
            ("nothing", b"", True),
            ("a line", b"a\r\n", True),
            ("no line end", b"a", True),
            ("998 octets", b"x" * 998 + b"\r\n", True),
            ("998 octets without an end", b"x" * 998, True),
            ("999 octets", b"x" * 999 + b"\r\n", False),
            ("999 octets without an end", b"x" * 999, False),
            ("999 octets in the middle", b"a\r\n" + b"x" * 999 + b"\r\nb\r\n", False),
            ("many of 998", (b"x" * 998 + b"\r\n") * 5, True),
            ("a bare LF", b"a\nb", False),
            ("a bare CR", b"a\rb", False),
            ("a CR at the end", b"a\r", False),
            ("LF CR", b"a\n\rb", False),
            ("a NUL", b"a\0b", False),
            ("8 bits", b"\xc3\xa4\r\n", True),
        ):
            found = survey([body])
            self.assertEqual(found.plain, plain, what)
            self.assertEqual(found.ascii, body.isascii(), what)

    @given(bodies, st.lists(st.integers(0, 3000), max_size=4))
    @example(b"x" * 998 + b"\r\n" + b"x" * 998 + b"\r", [998, 999])
    @example(b"a\r\nb\r\n", [2, 5])
    @settings(deadline=None)
    def test_any_cut_gives_what_the_definition_says(self, body: bytes, places: list[int]) -> None:
        lines = body.split(b"\r\n")
        bare = any(b"\r" in line or b"\n" in line for line in lines)
        found = survey(cut(body, places))
        self.assertEqual(found.plain, not bare and b"\0" not in body and max(map(len, lines)) <= 998)
        self.assertEqual((found.size, found.ascii), (len(body), body.isascii()))


class ChooseTests(SynchronousTestCase):
    def choice(self, body: bytes, *, text: bool = True, eight_bit: bool = False) -> str:
        return choose(survey([body]), text=text, eight_bit=eight_bit)

    def test_text(self) -> None:
        german, greek = b"Gr\xc3\xbc\xc3\x9fe aus Berlin\r\n", b"\xce\xb1\xce\xb2\xce\xb3\r\n"
        self.assertEqual(self.choice(b"a\r\n"), "7bit")
        self.assertEqual(self.choice(b""), "7bit")
        self.assertEqual(self.choice(german), "quoted-printable")
        self.assertEqual(self.choice(greek), "base64")
        self.assertEqual(self.choice(german, eight_bit=True), "8bit")
        self.assertEqual(self.choice(b"x" * 999), "quoted-printable")
        self.assertEqual(self.choice(german + b"x" * 999, eight_bit=True), "quoted-printable")
        self.assertEqual(self.choice(b"a\nb"), "base64")

    def test_what_is_no_text_is_base64(self) -> None:
        self.assertEqual(self.choice(b"{}\r\n", text=False), "base64")
        self.assertEqual(self.choice(b"", text=False), "7bit")


class Base64Tests(SynchronousTestCase):
    @given(st.binary(max_size=300))
    @settings(deadline=None)
    def test_it_is_what_python_writes(self, body: bytes) -> None:
        self.assertEqual(encode_base64(body), base64.encodebytes(body).replace(b"\n", b"\r\n").removesuffix(b"\r\n"))

    @given(st.binary(max_size=400), st.lists(st.integers(0, 400), max_size=4))
    @settings(deadline=None)
    def test_any_cut_gives_the_same(self, body: bytes, places: list[int]) -> None:
        self.assertEqual(b"".join(encode_transfer(cut(body, places), "base64")), encode_base64(body))
        self.assertEqual(decode_base64(encode_base64(body)), body)


class QuotedPrintableTests(SynchronousTestCase):
    def test_TM9_edges(self) -> None:
        for what, body, encoded in (
            ("nothing", b"", b""),
            ("an equals sign", b"a=b", b"a=3Db"),
            ("8 bits", b"\xc3\xa4", b"=C3=A4"),
            ("a blank at the end", b"a ", b"a=20"),
            ("a tab at the end of a line", b"a\t\r\nb", b"a=09\r\nb"),
            ("blanks within", b"a \tb", b"a \tb"),
            ("75 columns", b"x" * 75 + b"\r\n", b"x" * 75 + b"\r\n"),
            ("76 columns", b"x" * 76, b"x" * 76),
            ("77 columns", b"x" * 77, b"x" * 75 + b"=\r\nxx"),
            ("an escape at the end of a line", b"x" * 74 + b"=\r\n", b"x" * 74 + b"=\r\n=3D\r\n"),
            ("a blank in column 75", b"x" * 74 + b" \r\ny", b"x" * 74 + b"=\r\n=20\r\ny"),
            ("a bare LF", b"a\nb\r\nc", b"a=0Ab\r\nc"),
            ("a bare CR", b"a\rb", b"a=0Db"),
            ("a NUL", b"\0", b"=00"),
            ("a dot alone in its line", b"a\r\n.\r\nb", b"a\r\n=2E\r\nb"),
        ):
            self.assertEqual(encode_quoted_printable(body), encoded, what)

    @given(bodies, st.lists(st.integers(0, 3000), max_size=4), st.sampled_from([40, 100, transfer.BLOCK]))
    @example(b"x" * 74 + b" \r\n", [], 40)
    @example(b"x" * 76 + b"y", [76], 40)
    @example(b"x" * 73 + b"\xff" + b"y", [74], 40)
    @example(b"x" * 39 + b"\r\n" + b"x" * 60, [40], 40)
    @settings(deadline=None)
    def test_TM20_it_is_read_back_and_its_lines_are_short(self, body: bytes, places: list[int], block: int) -> None:
        patch = self.patch(transfer, "BLOCK", block)
        try:
            written = b"".join(encode_transfer(cut(body, places), "quoted-printable"))
        finally:
            patch.restore()
        for encoded in (written, encode_quoted_printable(body)):
            self.assertEqual(decode_quoted_printable(encoded), body)
            self.assertEqual(binascii.a2b_qp(encoded), body)
            self.assertTrue(encoded.isascii())
            lines = encoded.split(b"\r\n")
            for line in lines:
                self.assertLessEqual(len(line), 76)
                self.assertNotRegex(line, rb"[\r\n\0]|[ \t]\Z")
        self.assertEqual(quopri.decodestring(written), body)


class IdentityTests(SynchronousTestCase):
    def test_other_encodings_give_it_as_it_is(self) -> None:
        for encoding in ("7bit", "8bit", "x-unknown"):
            self.assertEqual(list(encode_transfer([b"a", b"b"], encoding)), [b"a", b"b"])
