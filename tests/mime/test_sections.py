"""Header sections, written: what was read goes as it stood, what describes a part is written anew."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mailserver.mime import decode
from mailserver.mime.fields import EncodeError
from mailserver.mime.headers import Headers
from mailserver.mime.part import Part
from mailserver.mime.sections import Section, Style, as_it_stood
from mailserver.mime.values import Disposition

NOW = Style(now=1795189361, token=lambda: "t")


def section(part: Part, style: Style = NOW, *, whole: bool = True) -> str:
    """The section of a part whose body goes as 7bit."""
    octets = Section(part, style, whole=whole).octets()
    assert octets.endswith(b"\r\n")
    return octets.removesuffix(b"\r\n").decode()


def again(octets: bytes, *, utf8: bool = False, bcc: bool = False) -> str:
    """The section of a mail that was read."""
    return section(decode(octets + b"\r\nx\r\n"), Style(utf8=utf8, bcc=bcc))


class AsItStoodTests(SynchronousTestCase):
    def test_order_duplicates_and_folds_stay(self) -> None:
        octets = (
            b"Received: one\r\n\tby two\r\nReceived: three\r\nX-A: 1\r\nFrom: a@example.org,\r\n  b@example.org\r\n"
            b"x-a: 2\r\nSubject: =?iso-8859-1?q?=E4?=\r\nTo: undisclosed-recipients:;\r\nCc: not an address\r\n"
        )
        self.assertEqual(again(octets), octets.decode())

    def test_line_ends_become_crlf(self) -> None:
        self.assertEqual(again(b"Subject: a\n b\nTo: c\n"), "Subject: a\r\n b\r\nTo: c\r\n")

    def test_what_may_not_go_so_is_written_anew(self) -> None:
        for octets, written in (
            (b"Subject: Gr\xc3\xb6\xc3\x9fe\r\n", "Subject: =?utf-8?q?Gr=C3=B6=C3=9Fe?=\r\n"),
            (b"Subject: Gr\xf6\xdfe\r\n", "Subject: =?utf-8?q?Gr=C3=B6=C3=9Fe?=\r\n"),
            (
                b"From: J\xc3\xb6rg <a@example.org>, b\r\n",
                "From: =?utf-8?q?J=C3=B6rg?= <a@example.org>, b:;\r\n",
            ),
            (
                b"From: =?utf-8?q?evil=40example.com=2C?= <a@example.org>, J\xf6@example.org, b: c;\r\n",
                'From: "evil@example.com," <a@example.org>, =?utf-8?q?J=C3=B6=40example=2Eo?=\r\n =?utf-8?q?rg?= :;, b:;, c:;\r\n',
            ),
            (b"From: J\xc3\xb6rg <a@example.org>\r\n", "From: =?utf-8?q?J=C3=B6rg?= <a@example.org>\r\n"),
            (b"Subject : a\r\n", "Subject: a\r\n"),
            (b"Subject: a\r\n  \r\n b\r\n", "Subject: a   b\r\n"),
            (b"Subject: a\rb\r\n", "Subject: a b\r\n"),
            (b"Subject: a\0b\r\n", "Subject: a b\r\n"),
            (b"References: " + b"<a@b> " * 200 + b"\r\n", "References: " + ("<a@b> " * 11).rstrip() + "\r\n"),
            (b"Message-ID: <\xc3\xa4@b>\r\n", "Message-ID: =?utf-8?b?PMOkQGI+?=\r\n"),
        ):
            self.assertTrue(again(octets).startswith(written), (octets, again(octets)))
            self.assertTrue(again(octets).isascii())

    def test_utf8_stays_where_it_is_allowed(self) -> None:
        octets = "From: J\u00f6rg <j\u00f6rg@example.org>\r\nSubject: Gr\u00f6\u00dfe\r\n".encode()
        self.assertEqual(again(octets, utf8=True), octets.decode())
        self.assertEqual(again(b"Subject: Gr\xf6\xdfe\r\n", utf8=True), "Subject: Gr\u00f6\u00dfe\r\n")

    def test_a_run_of_crs_costs_what_it_is_long(self) -> None:
        # The square of this would be minutes.
        self.assertTrue(again(b"A: b\r\nX: y" + b"\r" * 500_000 + b"a\r\n b\r\nTo: c\r\n").endswith("To: c\r\n"))

    def test_a_field_whose_name_fits_no_line_is_left_out(self) -> None:
        self.assertEqual(again(b"X" * 2000 + b": a\r\nTo: b\r\n"), "To: b\r\n")

    def test_bcc_is_left_out_unless_asked(self) -> None:
        octets = b"Bcc: a@example.org\r\nTo: b@example.org\r\nResent-Bcc: c@example.org\r\n"
        self.assertEqual(again(octets), "To: b@example.org\r\n")
        self.assertEqual(again(octets, bcc=True), octets.decode())

    def test_a_field_that_a_program_made_is_none_that_stood_somewhere(self) -> None:
        self.assertEqual(as_it_stood(Headers([("X", "y")]).fields[0], utf8=False), b"")


class MadeTests(SynchronousTestCase):
    def test_text_is_meant_and_octets_are_what_stands_there(self) -> None:
        part = Part(headers=[("Subject", "=?utf-8?q?a?="), ("X-Raw", b"=?utf-8?q?a?=")])
        self.assertEqual(section(part), "Subject: =?utf-8?q?=3D=3Futf-8=3Fq=3Fa=3F=3D?=\r\nX-Raw: =?utf-8?q?a?=\r\n")

    def test_M45_addresses_are_checked(self) -> None:
        part = Part(headers=[("To", "J\u00f6 <a@example.org>, team: b@b\u00fccher.example;")])
        self.assertEqual(section(part), "To: =?utf-8?q?J=C3=B6?= <a@example.org>, team: b@xn--bcher-kva.example;\r\n")
        for value in ("a", "", "a@example.org b@example.org", "a@"):
            error = self.assertRaises(EncodeError, section, Part(headers=[("Resent-To", value)]))
            self.assertEqual((error.field, error.value), ("Resent-To", value))

    def test_identifiers_are_never_encoded(self) -> None:
        self.assertRaises(EncodeError, section, Part(headers=[("Message-ID", "<\u00e4@b>")]))


class DescriptionTests(SynchronousTestCase):
    def test_M43_plain_ascii_text_needs_none(self) -> None:
        self.assertEqual(section(Part()), "")
        self.assertEqual(section(Part(parameters={"charset": "us-ascii"})), "")

    def test_M43_other_types_are_said_behind_the_given_fields(self) -> None:
        part = Part("text", "html", parameters={"charset": "utf-8"}, headers=[("X-A", "b")])
        self.assertEqual(section(part), "X-A: b\r\nMIME-Version: 1.0\r\nContent-Type: text/html; charset=utf-8\r\n")
        self.assertEqual(section(part, whole=False), "X-A: b\r\nContent-Type: text/html; charset=utf-8\r\n")

    def test_M43_a_given_field_stays_in_its_place_and_is_not_doubled(self) -> None:
        part = Part("text", "html", headers=[("content-type", "x/y"), ("X-A", "b"), ("Content-Type", "x/z")])
        self.assertEqual(section(part, whole=False), "Content-Type: text/html\r\nX-A: b\r\n")

    def test_encoding_and_boundary_and_charset_are_those_of_the_body(self) -> None:
        written = Section(Part("text", "x", parameters={"charset": "us-ascii"}), NOW, whole=False)
        written.encoding, written.charset = "base64", "utf-8"
        self.assertEqual(
            written.octets(), b"Content-Type: text/x; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\n"
        )
        written = Section(Part("multipart", "mixed", parameters={"boundary": "old"}), NOW, whole=False)
        written.boundary = "new"
        self.assertEqual(written.octets(), b"Content-Type: multipart/mixed; boundary=new\r\n\r\n")

    def test_in_a_digest_messages_need_none_and_text_does(self) -> None:
        # RFC 2046 5.1.5
        self.assertEqual(Section(Part("message", "rfc822"), NOW, whole=False, in_digest=True).octets(), b"\r\n")
        self.assertEqual(
            Section(Part(), NOW, whole=False, in_digest=True).octets(), b"Content-Type: text/plain\r\n\r\n"
        )

    def test_a_disposition(self) -> None:
        part = Part(disposition=Disposition("attachment", {"filename": "Gr\u00f6\u00dfe\r\n.txt"}))
        self.assertEqual(
            section(part, whole=False),
            "Content-Disposition: attachment; filename*=utf-8''Gr%C3%B6%C3%9Fe%0D%0A.txt\r\n",
        )

    def test_what_was_read_stays_as_it_stood_while_it_is_true(self) -> None:
        octets = b'MIME-Version: 1.0\r\nContent-Type: Text/HTML; (a comment) Charset="UTF-8"\r\n'
        self.assertEqual(again(octets), octets.decode())
        part = decode(octets + b"\r\nx")
        part.subtype = "plain"
        self.assertEqual(section(part), "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=UTF-8\r\n")

    def test_what_was_read_and_is_nonsense_is_no_error(self) -> None:
        for octets in (
            b"Content-Type: text/plain; \xe4\xe4=b; c d=e; =f\r\n",
            b"Content-Type: \xe4/\xe4; a=b\r\n",
            b"Content-Disposition: a b; c\rd=e\r\n",
            b"Content-Disposition: \r\n",
            b"Content-Type: a/" + b"b" * 2000 + b"\r\n",
            b"Content-Transfer-Encoding: \xff\r\n",
        ):
            self.assertTrue(again(octets).isascii(), octets)


class CompleteTests(SynchronousTestCase):
    def complete(self, *headers: tuple[str, str]) -> str:
        return section(Part(headers=headers), Style(complete=True, now=1795189361, token=lambda: "t"))

    def test_TM15_what_a_mail_must_have_is_added_behind(self) -> None:
        self.assertEqual(
            self.complete(("From", "a@b\u00fccher.example"), ("X-A", "b")),
            "From: a@xn--bcher-kva.example\r\nX-A: b\r\nDate: Fri, 20 Nov 2026 15:42:41 +0000\r\n"
            "Message-ID: <1795189361.t@xn--bcher-kva.example>\r\nMIME-Version: 1.0\r\n",
        )

    def test_M41_what_is_there_stays(self) -> None:
        given = (("Message-ID", "<a@b>"), ("Date", "x"), ("MIME-Version", "1.0"), ("From", "a@example.org"))
        self.assertEqual(self.complete(*given), "".join(f"{name}: {value}\r\n" for name, value in given))

    def test_M41_a_mail_without_an_author_is_refused(self) -> None:
        self.assertEqual(self.assertRaises(EncodeError, self.complete, ("To", "a@example.org")).field, "From")

    def test_M42_references_come_from_in_reply_to(self) -> None:
        self.assertIn("References: <a@b>\r\n", self.complete(("From", "a@example.org"), ("In-Reply-To", "<a@b>")))

    def test_the_domain_of_the_identifier_can_be_given(self) -> None:
        part = Part(headers=[("From", "a@example.org")])
        style = Style(complete=True, token=lambda: "t", now=0, domain="mail.example.net")
        self.assertIn("Message-ID: <0.t@mail.example.net>", section(part, style))
        bad = Style(complete=True, domain="no domain")
        self.assertEqual(self.assertRaises(EncodeError, section, part, bad).field, "Message-ID")
