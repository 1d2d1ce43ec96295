"""Whole mails, written: exact ones, the choice of transfer encodings, parts within parts, files, memory."""

from __future__ import annotations

import io
import itertools
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

from twisted.trial.unittest import SynchronousTestCase

from mailserver.mime import decode
from mailserver.mime.encode import MOST_DEPTH, encode, encode_blocks, text_octets
from mailserver.mime.fields import EncodeError
from mailserver.mime.mail import Attachment, Mail
from mailserver.mime.part import Part
from mailserver.mime.stamps import generate_boundary
from mailserver.mime.values import Disposition

ME = "Me <me@example.org>"


def tokens() -> Callable[[], str]:
    """Tokens "1", "2"... in place of random ones."""
    numbers = itertools.count(1)
    return lambda: str(next(numbers))


def written(mail: Mail | Part, **arguments: Any) -> str:
    """The mail at a fixed time with fixed tokens, with LF for its line ends; it must be 7-bit and of proper lines."""
    octets = encode(mail, now=1795189361, token=tokens(), **arguments)
    check_form(octets)
    return octets.decode("ascii").replace("\r\n", "\n")


def check_form(octets: bytes, *, eight_bit: bool = False) -> None:
    """TM20: no bare CR or LF, no NUL, no line over 998, nothing above 127 where it is not allowed."""
    for line in octets.split(b"\r\n"):
        if len(line) > 998 or b"\r" in line or b"\n" in line or b"\0" in line:
            raise AssertionError(f"bad line {line[:100]!r}")
    if not eight_bit and not octets.isascii():
        raise AssertionError("octets above 127")


class ExactTests(SynchronousTestCase):
    """TM13: whole mails, octet by octet."""

    maxDiff = None

    def test_TM13_simple(self) -> None:
        self.assertEqual(
            written(Mail(ME, "a@example.com", "hello", text="Hello\n")),
            "From: Me <me@example.org>\n"
            "To: a@example.com\n"
            "Subject: hello\n"
            "Date: Fri, 20 Nov 2026 15:42:41 +0000\n"
            "Message-ID: <1795189361.1@example.org>\n"
            "MIME-Version: 1.0\n"
            "\n"
            "Hello\n",
        )

    def test_TM13_utf8_in_subject_and_from(self) -> None:
        self.assertEqual(
            written(Mail("J\u00f6rg <me@example.org>", "a@example.com", "Gr\u00f6\u00dfe", text="Sch\u00f6n\n")),
            "From: =?utf-8?q?J=C3=B6rg?= <me@example.org>\n"
            "To: a@example.com\n"
            "Subject: =?utf-8?q?Gr=C3=B6=C3=9Fe?=\n"
            "Date: Fri, 20 Nov 2026 15:42:41 +0000\n"
            "Message-ID: <1795189361.1@example.org>\n"
            "MIME-Version: 1.0\n"
            "Content-Type: text/plain; charset=utf-8\n"
            "Content-Transfer-Encoding: quoted-printable\n"
            "\n"
            "Sch=C3=B6n\n",
        )

    def test_TM13_special_characters_in_from(self) -> None:
        head = written(Mail('"Admin & \' ( \\"hans\\" ) ; <info>, x" <me@example.org>')).partition("\n")[0]
        self.assertEqual(head, 'From: "Admin & \' ( \\"hans\\" ) ; <info>, x" <me@example.org>')

    def test_TM13_a_utf8_file_name(self) -> None:
        name = "\u0442\u0435\u0441\u0442\u043e\u0432\u044b\u0439 \u0444\u0430\u0439\u043b.txt"
        mail = Mail(ME, "a@example.com", "file", text="see", attachments=[Attachment(name, b"x\r\n")])
        self.assertEqual(
            written(mail).partition("MIME-Version: 1.0\n")[2],
            'Content-Type: multipart/mixed; boundary="=_1=="\n'
            "\n"
            "--=_1==\n"
            "\n"
            "see\n"
            "--=_1==\n"
            "Content-Disposition: attachment;\n"
            " filename*0*=utf-8''%D1%82%D0%B5%D1%81%D1%82%D0%BE%D0%B2%D1%8B%D0%B9%20%D1%84;\n"
            " filename*1*=%D0%B0%D0%B9%D0%BB.txt\n"
            "\n"
            "x\n"
            "\n"
            "--=_1==--\n",
        )

    def test_M50_nested_multiparts_have_no_extra_lines(self) -> None:
        mail = Mail(
            ME, "a@example.com", "x", text="t", html="<p>M\u00e4rz", attachments=[Attachment("a.png", b"PNG")],
            inline=[Attachment("l.png", b"\0")],
        )  # fmt: skip
        self.assertEqual(
            written(mail).partition("MIME-Version: 1.0\n")[2],
            'Content-Type: multipart/mixed; boundary="=_1=="\n\n'
            '--=_1==\nContent-Type: multipart/alternative; boundary="=_2=="\n\n'
            "--=_2==\n\nt\n"
            '--=_2==\nContent-Type: multipart/related; type="text/html"; boundary="=_3=="\n\n'
            "--=_3==\nContent-Type: text/html; charset=utf-8\nContent-Transfer-Encoding: quoted-printable\n\n<p>M=C3=A4rz\n"
            "--=_3==\nContent-ID: <l.png>\nContent-Type: image/png\nContent-Transfer-Encoding: base64\n"
            "Content-Disposition: inline; filename=l.png\n\nAA==\n"
            "--=_3==--\n--=_2==--\n"
            "--=_1==\nContent-Type: image/png\nContent-Transfer-Encoding: base64\n"
            "Content-Disposition: attachment; filename=a.png\n\nUE5H\n"
            "--=_1==--\n",
        )


class EncodingTests(SynchronousTestCase):
    def body(self, part: Part, **arguments: Any) -> tuple[str, bytes]:
        """The transfer encoding a leaf was written with, and the body."""
        octets = encode(part, **arguments)
        check_form(octets, eight_bit=bool(arguments.get("eight_bit")))
        found = decode(octets)
        return found.encoding or "7bit", octets.partition(b"\r\n\r\n")[2]

    def test_M44_text_goes_as_it_needs(self) -> None:
        for content, encoding in (
            ("plain\n", "7bit"),
            ("", "7bit"),
            ("Gr\u00fc\u00dfe aus Berlin\n", "quoted-printable"),
            ("\u03b1\u03b2\u03b3\n", "base64"),
            ("x" * 999, "quoted-printable"),
            ("a\0bc", "quoted-printable"),
            (b"unix\nlines\n", "base64"),
        ):
            self.assertEqual(self.body(Part("text", "plain", content=content))[0], encoding, content)

    def test_M52_8bit_when_asked(self) -> None:
        part = Part("text", "plain", content="Gr\u00fc\u00dfe\n")
        self.assertEqual(self.body(part, eight_bit=True), ("8bit", "Gr\u00fc\u00dfe\r\n".encode()))
        self.assertEqual(self.body(Part(content="\u00e4" * 600), eight_bit=True)[0], "base64")
        both = Mail(ME, text="\u00e4", html="\u00e4").part()
        self.assertEqual([each.encoding for each in decode(encode(both, eight_bit=True)).walk()], ["8bit"] * 3)

    def test_TM16_a_declared_encoding_is_kept_where_it_can_be(self) -> None:
        for declared, content, encoding in (
            ("base64", "plain\n", "base64"),
            ("quoted-printable", "plain\n", "quoted-printable"),
            ("quoted-printable", b"a\nb\r", "quoted-printable"),
            ("7bit", "Gr\u00fc\u00dfe aus Berlin\n", "quoted-printable"),
            ("8bit", "Gr\u00fc\u00dfe aus Berlin\n", "quoted-printable"),
            ("x-strange", "plain\n", "7bit"),
        ):
            part = Part("text", "plain", content=content, encoding=declared)
            self.assertEqual(self.body(part)[0], encoding, (declared, content))
            wanted = content.replace("\n", "\r\n").encode() if isinstance(content, str) else content
            self.assertEqual(decode(encode(part)).content, wanted)

    def test_files_that_are_no_text_are_base64_unless_it_is_said_otherwise(self) -> None:
        self.assertEqual(self.body(Part("application", "json", content=b"{}"))[0], "base64")
        self.assertEqual(self.body(Part("application", "json", content=b"{}", encoding="7bit"))[0], "7bit")
        self.assertEqual(self.body(Part("application", "x", content=b"\0\xff", encoding="binary"))[0], "base64")

    def test_text_has_crlf_and_a_charset_that_has_all_of_it(self) -> None:
        for text, charset, wanted in (
            ("a\nb\r\nc\rd", "", (b"a\r\nb\r\nc\r\nd", "us-ascii")),
            ("\u00e4", "", (b"\xc3\xa4", "utf-8")),
            ("\u00e4", "us-ascii", (b"\xc3\xa4", "utf-8")),
            ("\u00e4", "iso-8859-1", (b"\xe4", "iso-8859-1")),
            ("\u20ac", "iso-8859-1", (b"\xe2\x82\xac", "utf-8")),
            ("a", "no-such-charset", (b"a", "utf-8")),
            ("\ud800", "utf-8", (b"?", "utf-8")),
        ):
            self.assertEqual(text_octets(text, charset, text=True), wanted, (text, charset))
        self.assertEqual(text_octets("a\nb", "", text=False), (b"a\nb", "us-ascii"))

    def test_base64_at_the_top_ends_with_a_line_end(self) -> None:
        self.assertEqual(self.body(Part("a", "b", content=b"x"))[1], b"eA==\r\n")
        self.assertEqual(self.body(Part(content="\u03b1\u03b2"))[1], b"zrHOsg==\r\n")

    def test_an_unknown_encoding_that_was_read_is_said_on(self) -> None:
        octets = b"MIME-Version: 1.0\r\nContent-Transfer-Encoding: x-strange\r\n\r\nbody\r\n"
        self.assertEqual(encode(decode(octets)), octets)


class MultipartTests(SynchronousTestCase):
    def test_TM16_the_boundary_is_generated_once_and_never_that_of_others(self) -> None:
        part = Part("multipart", "mixed", parameters={"boundary": "old"}, parts=[Part(content="--old\n\n--old--\n")])
        self.assertEqual(
            written(part),
            'MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary="=_1=="\n\n'
            "--=_1==\n\n--old\n\n--old--\n\n--=_1==--\n",
        )

    def test_what_was_hidden_in_base64_cannot_become_a_part(self) -> None:
        # Written as 7bit with the boundary it was read with, this text would be a second part.
        octets = (
            b'Content-Type: multipart/mixed; boundary="b"\r\n\r\n--b\r\nContent-Transfer-Encoding: 7bit\r\n\r\nx\r\n'
            b"--b\r\nContent-Type: text/plain\r\nContent-Transfer-Encoding: base64\r\n\r\n"
            b"LS1iDQpDb250ZW50LVR5cGU6IHRleHQvaHRtbA0KDQpldmlsDQotLWItLQ0K\r\n--b--\r\n"
        )
        part = decode(octets)
        for leaf in part.parts:
            leaf._encoding = "7bit"
        again = decode(encode(part))
        self.assertEqual([leaf.content for leaf in again.parts], [leaf.content for leaf in part.parts])

    def test_a_multipart_without_parts_is_refused(self) -> None:
        self.assertEqual(self.assertRaises(EncodeError, encode, Part("multipart", "mixed")).field, "parts")

    def test_one_that_was_read_without_parts_stays_one(self) -> None:
        for body in (b"", b"--b--\r\n", b"\n", b"--b--\r\n\xff\xff\r\n"):
            part = decode(b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + body)
            if part.parts:
                continue
            again = decode(encode(part))
            self.assertEqual((again.content_type, again.parts), ("multipart/mixed", []), body)

    def test_parts_too_deep_are_refused(self) -> None:
        part = Part()
        for _ in range(MOST_DEPTH):
            part = Part("multipart", "mixed", parts=[part])
        self.assertRaises(EncodeError, encode, part)
        self.assertTrue(encode(part.parts[0]))

    def test_a_signed_part_that_was_read_goes_as_it_stood(self) -> None:
        # RFC 1847 2.1
        octets = (
            b'MIME-Version: 1.0\r\nContent-Type: multipart/signed; protocol="application/pgp-signature"; boundary=b\r\n'
            b"\r\npreamble\r\n--b\r\nContent-Type:  text/plain;charset=us-ascii\r\nX-A:\r\n\tb\r\n\r\nsigned =20\r\n"
            b"--b\r\nContent-Type: application/pgp-signature\r\n\r\nSIG\r\n--b--\r\n"
        )
        self.assertEqual(encode(decode(octets)), octets)
        whole = Part("multipart", "mixed", parts=[decode(octets)])
        self.assertIn(octets.partition(b"\r\n\r\n")[2], encode(whole))

    def test_a_signed_part_of_8_bits_is_taken_apart_unless_they_may_go(self) -> None:
        octets = (
            b"MIME-Version: 1.0\r\nContent-Type: multipart/signed; boundary=b\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
            b"--b\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n\xc3\xa4\r\n--b\r\n\r\nSIG\r\n--b--\r\n"
        )
        self.assertEqual(encode(decode(octets), eight_bit=True), octets)
        written_anew = encode(decode(octets))
        check_form(written_anew)
        self.assertEqual(decode(written_anew).parts[0].text, "\u00e4")


class MessageTests(SynchronousTestCase):
    """M51: messages in messages."""

    INNER = b"From: a@example.org\r\nBcc: b@example.org\r\nX-A:  b\r\n\r\nhello\r\n"

    def test_M51_as_parts_at_the_top_and_in_a_multipart(self) -> None:
        message = Part("message", "rfc822", parts=[decode(self.INNER)])
        self.assertEqual(encode(message), b"MIME-Version: 1.0\r\nContent-Type: message/rfc822\r\n\r\n" + self.INNER)
        found = decode(encode(Part("multipart", "mixed", parts=[Part(), message])))
        self.assertEqual(found.parts[1].parts[0].headers.get("x-a"), "b")
        self.assertIn(self.INNER, encode(Part("multipart", "mixed", parts=[message])))

    def test_M51_as_octets(self) -> None:
        part = Part("message", "rfc822", content=self.INNER)
        self.assertEqual(encode(part), b"MIME-Version: 1.0\r\nContent-Type: message/rfc822\r\n\r\n" + self.INNER)

    def test_octets_that_cannot_go_so_are_taken_apart_and_never_encoded_as_a_whole(self) -> None:
        # RFC 2046 5.2.1
        inner = (
            b"Subject: \xc3\xa4\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nGr\xc3\xbc\xc3\x9fe aus Berlin\n"
        )
        for content in (inner, io.BytesIO(inner), Unseekable(inner)):
            octets = encode(Part("message", "rfc822", content=content))  # type: ignore[arg-type]
            check_form(octets)
            found = decode(octets)
            self.assertIn(found.encoding or "7bit", ("7bit", "8bit"))
            self.assertEqual(found.parts[0].headers.get("subject"), "\u00e4")
            self.assertEqual(found.parts[0].text, "Gr\u00fc\u00dfe aus Berlin\n")

    def test_with_8_bits_allowed_they_stay_and_what_is_around_says_8bit(self) -> None:
        inner = b"Content-Type: text/plain; charset=utf-8\r\n\r\nGr\xc3\xbc\xc3\x9fe\r\n"
        octets = encode(Mail(ME, attachments=[Attachment("a.eml", inner)]), eight_bit=True)
        self.assertIn(inner, octets)
        self.assertEqual([each.encoding for each in decode(octets).walk()], ["8bit", "8bit", None])

    def test_nothing_is_added_to_a_message_in_a_message(self) -> None:
        octets = encode(Mail(ME, attachments=[Attachment("a.eml", decode(self.INNER))]))
        self.assertIn(b"\r\n\r\n" + self.INNER, octets)

    def test_fields_in_utf8_are_for_message_global(self) -> None:
        inner = Part(headers=[("Subject", "\u00e4")])
        octets = encode(Part("message", "global", parts=[inner]), utf8=True)
        self.assertIn("Subject: \u00e4".encode(), octets)
        self.assertIn(b"Content-Transfer-Encoding: 8bit", octets)
        self.assertTrue(encode(Part("message", "rfc822", parts=[inner]), utf8=True).isascii())


class Unseekable(io.RawIOBase):
    """Octets that can be read once, as from a pipe."""

    def __init__(self, octets: bytes) -> None:
        super().__init__()
        self._file = io.BytesIO(octets)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False

    def read(self, size: int = -1) -> bytes:
        return self._file.read(size)


class FileTests(SynchronousTestCase):
    def test_what_can_be_read_once_is_read_once(self) -> None:
        mail = Mail(ME, attachments=[Attachment("a.txt", Unseekable(b"text\r\n"))])  # type: ignore[arg-type]
        found = decode(encode(mail)).parts[0]
        self.assertEqual((found.encoding, found.content), ("base64", b"text\r\n"))

    def test_a_file_is_read_from_where_it_stands(self) -> None:
        file = io.BytesIO(b"header|the rest\r\n")
        file.seek(7)
        self.assertEqual(
            decode(encode(Mail(ME, attachments=[Attachment("a.txt", file)]))).parts[0].content, b"the rest\r\n"
        )

    def test_a_file_that_is_not_there_fails_when_its_turn_comes(self) -> None:
        mail = Mail(ME, text="x", attachments=[Attachment("a.pdf", Path(self.mktemp()))])
        blocks = encode_blocks(mail)
        self.assertIn(b"From: ", next(blocks))
        self.assertRaises(FileNotFoundError, list, blocks)

    def test_errors_come_before_the_first_block(self) -> None:
        self.assertRaises(EncodeError, encode_blocks, Part(headers=[("To", "nobody")]))

    def test_blocks_are_the_whole(self) -> None:
        path = Path(self.mktemp())
        path.write_bytes(bytes(range(256)) * 1000)
        mail = Mail(ME, "a@example.org", "x", text="\u00e4" * 5000, attachments=[Attachment("a.bin", path)] * 2)
        blocks = list(encode_blocks(mail, now=0, token=tokens()))
        self.assertGreater(len(blocks), 6)
        self.assertEqual(b"".join(blocks), encode(mail, now=0, token=tokens()))
        self.assertEqual(decode(b"".join(blocks)).parts[1].content, path.read_bytes())

    def test_memory_does_not_grow_with_the_files(self) -> None:
        class Endless(io.RawIOBase):
            """So many octets, of lines of text, made while they are read."""

            def __init__(self, size: int) -> None:
                super().__init__()
                self._left = size

            def __enter__(self) -> Self:
                return self

            def read(self, size: int = -1) -> bytes:
                size = min(size, self._left)
                self._left -= size
                return (b"Gr\xc3\xbc\xc3\x9fe, " * (size // 9 + 1))[:size]

        def most(size: int) -> int:
            files = [Attachment(name, lambda: Endless(size)) for name in ("a.pdf", "a.txt")]  # type: ignore[arg-type, return-value]
            tracemalloc.start()
            try:
                written = sum(len(block) for block in encode_blocks(Mail(ME, attachments=files)))
                self.assertGreater(written, 2 * size)
                return tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()

        self.assertLess(most(8_000_000), most(500_000) + 500_000)


class CompleteTests(SynchronousTestCase):
    def test_a_part_is_left_as_it_is_unless_asked(self) -> None:
        part = Part(headers=[("From", "a@example.org")], content="x")
        self.assertEqual(written(part), "From: a@example.org\n\nx")
        self.assertEqual(
            written(part, complete=True),
            "From: a@example.org\nDate: Fri, 20 Nov 2026 15:42:41 +0000\n"
            "Message-ID: <1795189361.1@example.org>\nMIME-Version: 1.0\n\nx",
        )

    def test_bcc_is_written_only_when_asked(self) -> None:
        mail = Mail(ME, "a@example.org", bcc="secret@example.org", headers={"Resent-Bcc": "secret@example.org"})
        self.assertNotIn("secret", written(mail))
        self.assertIn("Bcc: secret@example.org\n", written(mail, bcc=True))

    def test_the_domain_can_be_given(self) -> None:
        self.assertIn("Message-ID: <1795189361.1@mx.example.net>\n", written(Mail(ME), domain="mx.example.net"))

    def test_two_mails_are_not_the_same(self) -> None:
        mail = Mail(ME, text="a", html="b")
        self.assertNotEqual(encode(mail), encode(mail))
        self.assertNotEqual(decode(encode(mail)).parameters, decode(encode(mail)).parameters)

    def test_utf8_headers_where_they_are_allowed(self) -> None:
        mail = Mail(
            "J\u00f6 <j\u00f6@b\u00fccher.example>", "a@example.org", "Gr\u00f6\u00dfe",
            attachments=[Attachment("Gr\u00f6\u00dfe.png", b"x")],
        )  # fmt: skip
        octets = encode(mail, utf8=True)
        check_form(octets, eight_bit=True)
        for text in (
            "From: J\u00f6 <j\u00f6@b\u00fccher.example>\r\n",
            "Subject: Gr\u00f6\u00dfe\r\n",
            '="Gr\u00f6\u00dfe.png"',
        ):
            self.assertIn(text.encode(), octets)
        self.assertIn(b"Content-Transfer-Encoding: 8bit", octets)  # of the multipart, for the name in its part
        error = self.assertRaises(EncodeError, encode, mail)
        self.assertEqual((error.field, error.value), ("From", "j\u00f6@b\u00fccher.example"))

    def test_all_parts_of_a_mail_are_read_back(self) -> None:
        mail = Mail(
            ME, "a@example.org", "all", text="t\u00e4xt\n", html="<p>\u00e4</p>",
            attachments=[Attachment("a.pdf", b"%PDF"), Attachment("b.txt", "\u03b1")],
            inline=[Attachment("logo.png", b"\x89PNG", content_id="logo@example.org")],
        )  # fmt: skip
        found = decode(encode(mail))
        self.assertEqual(found.defects, [])
        self.assertEqual([each.content_type for each in found.walk()], [
            "multipart/mixed", "multipart/alternative", "text/plain", "multipart/related", "text/html", "image/png",
            "application/pdf", "text/plain",
        ])  # fmt: skip
        leaves = [each for each in found.walk() if not each.parts]
        self.assertEqual([each.filename for each in leaves], ["", "", "logo.png", "a.pdf", "b.txt"])
        self.assertEqual(leaves[2].content_id, "logo@example.org")
        self.assertEqual([leaves[0].text, leaves[1].text, leaves[4].text], ["t\u00e4xt\n", "<p>\u00e4</p>", "\u03b1"])
        self.assertEqual([leaves[2].content, leaves[3].content], [b"\x89PNG", b"%PDF"])
        self.assertEqual([each.filename for each in found.attachments], ["a.pdf", "b.txt"])

    def test_TM14_a_multipart_that_was_read_is_written_with_one_empty_line_less_than_two(self) -> None:
        octets = encode(
            Mail(ME, text="a", html="b", attachments=[Attachment("c.ics", "BEGIN:VCALENDAR", "text/calendar")])
        )
        self.assertEqual(octets.count(b"\r\n\r\n\r\n"), 0)
        self.assertEqual(encode(decode(octets)).count(b"\r\n\r\n\r\n"), 0)


class InjectionTests(SynchronousTestCase):
    """Nothing that a caller passes becomes a field, a part or a parameter of its own."""

    BAD = "x\r\nBcc: evil@example.org\r\n\r\n--=_1==\r\nContent-Type: text/html\r\n\r\n<script>"

    def attempts(self) -> Iterator[tuple[str, Callable[[], Mail | Part]]]:
        bad = self.BAD
        yield "subject", lambda: Mail(ME, subject=bad)
        yield "name", lambda: Mail(ME, attachments=[Attachment(bad, b"")])
        yield "type", lambda: Mail(ME, attachments=[Attachment("a", b"", bad)])
        yield "description", lambda: Mail(ME, attachments=[Attachment("a", b"", description=bad)])
        yield "content id", lambda: Mail(ME, attachments=[Attachment("a", b"", content_id=bad)])
        yield "header", lambda: Mail(ME, headers={"X": bad})
        yield "header name", lambda: Mail(ME, headers={bad: "x"})
        yield "type of a part", lambda: Part(bad, "x")
        yield "subtype of a part", lambda: Part("text", bad)
        yield "disposition", lambda: Part(disposition=Disposition(bad))
        yield "disposition's parameter", lambda: Part(disposition=Disposition("attachment", {bad: "x"}))
        yield "disposition's value", lambda: Part(disposition=Disposition("attachment", {"filename": bad}))
        yield "parameter", lambda: Part("a", "b", parameters={bad: "x"})
        yield "parameter's value", lambda: Part("a", "b", parameters={"c": bad})
        yield "boundary", lambda: Part("multipart", "mixed", parameters={"boundary": bad}, parts=[Part()])
        yield "charset", lambda: Part(content="x", parameters={"charset": bad})
        yield "encoding", lambda: Part(content="x", encoding=bad)
        yield "body", lambda: Mail(ME, text=bad, html=bad)
        yield "author's name", lambda: Mail('"x\\\r\nBcc: evil@example.org" <a@example.org>')

    def test_it_is_refused_or_harmless(self) -> None:
        for what, attempt in self.attempts():
            try:
                mail = attempt()
                count = len(mail.part().headers) if isinstance(mail, Mail) else 0
                octets = encode(mail)
            except ValueError:
                continue
            found = decode(octets)
            names = [name.lower() for part in found.walk() for name, _ in part.headers]
            self.assertNotIn("bcc", names, what)
            self.assertLessEqual(count, len(found.headers), what)
            for part in found.walk():
                self.assertTrue(part.subtype != "html" or what == "body", what)

    def test_a_token_that_is_no_part_of_a_boundary_is_refused_or_quoted(self) -> None:
        self.assertEqual(generate_boundary("a b"), "=_a b==")
        found = decode(encode(Part("multipart", "mixed", parts=[Part(content="x")]), token=lambda: "a b"))
        self.assertEqual(found.parts[0].text, "x")
