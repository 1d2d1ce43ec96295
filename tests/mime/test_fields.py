"""Single fields, written: encoded, folded, and never more than one field."""

from __future__ import annotations

import email
import email.policy

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver.mime.addresses import Group, NamedAddress, parse_addresses
from mailserver.mime.fields import (
    EncodeError,
    address_field,
    encode_field,
    is_structured,
    parameter_field,
    structured_field,
    text_field,
)
from mailserver.mime.headers import Headers

texts = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\ufeff"), max_size=150) | st.text(
    "ab \t\u00e4=?", max_size=200
)


def read(octets: bytes) -> str:
    """The decoded value of a field, read as a whole header section: it must be the only one in it."""
    headers = Headers.read(octets)
    assert len(headers) == 1, octets
    assert octets.endswith(b"\r\n")
    assert sum(len(field.raw) for field in headers.fields) == len(octets), octets
    return headers.fields[0].value


def lines(octets: bytes) -> list[bytes]:
    """The lines without their CRLFs."""
    return octets.removesuffix(b"\r\n").split(b"\r\n")


class TextTests(SynchronousTestCase):
    def test_text(self) -> None:
        for what, text, written in (
            ("plain", "hello world", "Subject: hello world\r\n"),
            ("empty", "", "Subject:\r\n"),
            ("blanks within stay", "a  b\tc", "Subject: a  b\tc\r\n"),
            ("a word in the middle", "Re: Gr\u00f6\u00dfe ok", "Subject: Re: =?utf-8?q?Gr=C3=B6=C3=9Fe?= ok\r\n"),
            (
                "two words with one between",
                "\u00e4bc to \u00f6bc now",
                "Subject: =?utf-8?q?=C3=A4bc_to_=C3=B6bc?= now\r\n",
            ),
            ("blanks at the ends", " a ", "Subject: =?utf-8?q?_a_?=\r\n"),
            (
                "what looks like an encoded word",
                "=?utf-8?q?a?=",
                "Subject: =?utf-8?q?=3D=3Futf-8=3Fq=3Fa=3F=3D?=\r\n",
            ),
            ("a control character", "a\x07b c", "Subject: =?utf-8?q?a=07b?= c\r\n"),
            ("a line separator", "ab\u2028cdef", "Subject: =?utf-8?q?ab=E2=80=A8cdef?=\r\n"),
        ):
            self.assertEqual(text_field("Subject", text).decode(), written, what)
            self.assertEqual(read(text_field("Subject", text)), text, what)

    def test_M46_nothing_can_become_a_second_field(self) -> None:
        for text in (
            "a\r\nBcc: b@example.org",
            "a\nBcc: b",
            "a\rBcc: b",
            "a\0b",
            "a\r\n\r\nbody",
            "\r\n",
            "a\u2028Bcc: b",
        ):
            written = text_field("Subject", text)
            self.assertEqual(len(lines(written)), 1, text)
            self.assertNotIn(b"Bcc: ", written)

    def test_M46_half_a_surrogate_pair_is_no_crash(self) -> None:
        self.assertEqual(text_field("Subject", "a\ud800b").decode(), "Subject: =?utf-8?q?a=3Fb?=\r\n")

    def test_M47_a_long_ascii_subject_is_folded_at_blanks(self) -> None:
        text = "word " * 60 + "end"
        written = text_field("Subject", text)
        self.assertGreater(len(lines(written)), 3)
        self.assertLessEqual(max(map(len, lines(written))), 78)
        self.assertNotIn(b"=?", written)
        self.assertEqual(read(written), text)

    def test_M47_a_long_ascii_subject_without_blanks_is_encoded(self) -> None:
        for text in ("x" * 77, "x" * 2000, "a " + "x" * 500 + " b"):
            written = text_field("Subject", text)
            self.assertLessEqual(max(map(len, lines(written))), 78)
            self.assertEqual(read(written), text)

    def test_a_key_in_a_field_for_programs_stays_as_it_is(self) -> None:
        self.assertEqual(text_field("X-Key", "x" * 500), b"X-Key: " + b"x" * 500 + b"\r\n")
        self.assertLessEqual(max(map(len, lines(text_field("X-Key", "x" * 2000)))), 78)

    def test_no_line_is_only_blanks(self) -> None:
        for text in ("a" + " " * 200 + "b", " " * 200, "a" + " " * 75 + "b" + "\t" * 100 + "c"):
            written = text_field("Subject", text)
            for line in lines(written):
                self.assertTrue(line.strip(), text)
            self.assertEqual(read(written), text)

    def test_a_line_with_an_encoded_word_has_76_columns(self) -> None:
        # RFC 2047 2
        for before in range(80):
            for line in lines(text_field("Subject", "a" * before + " \u00e4" * 30 + " end")):
                self.assertLessEqual(len(line), 76 if b"=?" in line else 78)

    def test_utf8_is_not_encoded_where_that_is_allowed(self) -> None:
        self.assertEqual(text_field("Subject", "Gr\u00f6\u00dfe", utf8=True), "Subject: Gr\u00f6\u00dfe\r\n".encode())

    def test_what_is_no_name_of_a_field_is_refused(self) -> None:
        for name in ("", "a b", "a:", "a\r\nb", "\u00e4", "a\0", "x" * 201):
            self.assertRaises(EncodeError, text_field, name, "x")

    @given(texts, st.booleans())
    @example("a\t=?", False)
    @example("\t\u00e4 \t\u00e4", False)
    @settings(deadline=None, max_examples=300)
    def test_it_is_read_as_what_was_meant(self, text: str, utf8: bool) -> None:
        written = text_field("Subject", text, utf8=utf8)
        harmless = text.replace("\r", " ").replace("\n", " ").replace("\0", " ")
        self.assertEqual(read(written), harmless)
        self.assertTrue(utf8 or written.isascii())
        self.assertLessEqual(max(len(line.decode()) for line in lines(written)), 78)


class StructuredTests(SynchronousTestCase):
    def test_which_they_are(self) -> None:
        for name in (
            "Message-ID",
            "References",
            "List-Unsubscribe",
            "DKIM-Signature",
            "Date",
            "Content-ID",
            "ARC-Seal",
        ):
            self.assertTrue(is_structured(name), name)
        for name in ("Subject", "List-Id", "X-References", "Comments", "Dates"):
            self.assertFalse(is_structured(name), name)

    def test_they_are_folded_and_never_encoded(self) -> None:
        value = " ".join(f"<{number}@example.org>" for number in range(20))
        written = encode_field("References", value)
        self.assertEqual(read(written), value)
        self.assertLessEqual(max(map(len, lines(written))), 78)
        self.assertEqual(encode_field("List-Unsubscribe", "<https://example.org/=?x?=>"),
                         b"List-Unsubscribe: <https://example.org/=?x?=>\r\n")  # fmt: skip

    def test_a_long_identifier_stays_in_the_line_of_its_name(self) -> None:
        self.assertEqual(len(lines(encode_field("Message-ID", "<" + "x" * 200 + "@example.org>"))), 1)

    def test_what_cannot_be_written_is_refused_with_its_name(self) -> None:
        for value in ("<\u00e4@example.org>", "<a\r\nBcc: b>", "<a\0>", "x" * 999):
            error = self.assertRaises(EncodeError, structured_field, "Message-ID", value)
            self.assertEqual(error.field, "Message-ID")
            self.assertIn("Message-ID: ", str(error))

    def test_utf8_where_it_is_allowed(self) -> None:
        self.assertEqual(
            structured_field("Message-ID", "<\u00e4@b>", utf8=True), "Message-ID: <\u00e4@b>\r\n".encode()
        )


class AddressTests(SynchronousTestCase):
    def written(self, text: str, *, utf8: bool = False) -> bytes:
        return address_field("To", parse_addresses(text, strict=True), utf8=utf8)

    def test_lists(self) -> None:
        for text, written in (
            ("a@example.org", "To: a@example.org\r\n"),
            ("Joe Doe <a@example.org>, b@example.org", "To: Joe Doe <a@example.org>, b@example.org\r\n"),
            ('"Doe, J" <a@example.org>', 'To: "Doe, J" <a@example.org>\r\n'),
            ("J\u00f6 D\u00f6 <a@example.org>", "To: =?utf-8?q?J=C3=B6_D=C3=B6?= <a@example.org>\r\n"),
            ("undisclosed-recipients:;", "To: undisclosed-recipients:;\r\n"),
            ("two words: a@example.org, X <b@example.org>;, c@example.org",
             "To: two words: a@example.org, X <b@example.org>;, c@example.org\r\n"),
            ("k\u00e4se: a@example.org;", "To: =?utf-8?q?k=C3=A4se?= : a@example.org;\r\n"),
            ('"a b"@example.org', 'To: "a b"@example.org\r\n'),
        ):  # fmt: skip
            self.assertEqual(self.written(text).decode(), written, text)
            self.assertEqual(parse_addresses(Headers.read(written.encode()).fields[0].body.decode(), strict=True),
                             parse_addresses(text, strict=True), text)  # fmt: skip

    def test_M45_what_is_no_address_is_an_error_that_names_it(self) -> None:
        error = self.assertRaises(EncodeError, address_field, "Cc", [NamedAddress("Jan", "a,a@a.com")])
        self.assertEqual((error.field, error.value), ("Cc", "a,a@a.com"))
        self.assertEqual(str(error), "Cc: not an address: 'a,a@a.com'")

    def test_M45_a_group_is_written_with_its_members(self) -> None:
        self.assertEqual(address_field("To", [Group("g", (NamedAddress("", "a@b.c"),))]), b"To: g: a@b.c;\r\n")

    def test_internationalised_domains_are_a_labels_unless_utf8(self) -> None:
        self.assertEqual(self.written("a@b\u00fccher.example"), b"To: a@xn--bcher-kva.example\r\n")
        self.assertEqual(self.written("a@b\u00fccher.example", utf8=True), "To: a@b\u00fccher.example\r\n".encode())

    def test_a_local_part_beyond_ascii_needs_utf8(self) -> None:
        error = self.assertRaises(EncodeError, self.written, "j\u00f6@example.org")
        self.assertIn("j\u00f6@example.org", str(error))
        self.assertIn("utf8=True", str(error))
        self.assertEqual(self.written("j\u00f6@example.org", utf8=True), "To: j\u00f6@example.org\r\n".encode())

    def test_names_cannot_end_the_field(self) -> None:
        for name in ("a\r\nBcc: x@example.org", "\u00e4\r\nBcc: x", "a\0", '"\r\n', "=?utf-8?q?=0D=0ABcc:_x?="):
            written = address_field("To", [NamedAddress(name, "a@example.org")])
            self.assertEqual(len(Headers.read(written)), 1)
            self.assertEqual([name for name, _ in email.message_from_bytes(written).items()], ["To"])
            self.assertNotIn(b"\0", written)

    @given(st.lists(st.builds(NamedAddress, texts, st.sampled_from(["a@b.c", '"x y"@b.c'])), min_size=1, max_size=3))
    @settings(deadline=None)
    def test_they_are_read_as_what_was_meant(self, addresses: list[NamedAddress]) -> None:
        written = address_field("To", addresses)
        read(written)
        found = parse_addresses(Headers.read(written).fields[0].body.decode("ascii"), strict=True)
        self.assertEqual(
            [each.text for each in found if isinstance(each, NamedAddress)], [each.text for each in addresses]
        )
        for each, wanted in zip(found, addresses, strict=True):
            if wanted.name.isprintable() and wanted.name.strip():
                self.assertEqual(each.name, wanted.name)
        self.assertLessEqual(max(map(len, lines(written))), 78)

    def test_python_reads_the_same(self) -> None:
        text = 'J\u00f6rg "x" M <a@example.org>, "B, c" <b@example.org>, team: d@example.org;'
        message = email.message_from_bytes(self.written(text) + b"\r\n", policy=email.policy.default)
        found = [(each.display_name, each.addr_spec) for each in message["to"].addresses]
        self.assertEqual(
            found, [("J\u00f6rg x M", "a@example.org"), ("B, c", "b@example.org"), ("", "d@example.org")]
        )


class ParameterTests(SynchronousTestCase):
    def test_fields(self) -> None:
        self.assertEqual(parameter_field("Content-Type", "text/plain", []), b"Content-Type: text/plain\r\n")
        written = parameter_field("Content-Type", "text/plain", [("charset", "utf-8"), ("name", "x" * 60)])
        self.assertEqual(written, b"Content-Type: text/plain; charset=utf-8;\r\n name=" + b"x" * 60 + b"\r\n")

    def test_what_is_no_value_is_refused(self) -> None:
        for value in ("", "text/", "text/plain\r\nX: y", "text/plain; a=b", "a/b/c", "t\u00e4xt/plain"):
            self.assertRaises(EncodeError, parameter_field, "Content-Type", value, [])

    def test_what_is_no_name_is_refused(self) -> None:
        error = self.assertRaises(EncodeError, parameter_field, "Content-Type", "a/b", [("x\r\ny", "z")])
        self.assertEqual(error.field, "Content-Type")


class EncodeErrorTests(SynchronousTestCase):
    def test_a_long_value_is_quoted_in_part(self) -> None:
        error = EncodeError("X", "y" * 5000, "too long")
        self.assertLess(len(str(error)), 200)
        self.assertEqual(error.value, "y" * 5000)
