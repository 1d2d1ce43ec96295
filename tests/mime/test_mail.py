"""Mails and attachments: what they check, and the trees they become."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from mailserver.address import Address
from mailserver.mime.addresses import Group, NamedAddress
from mailserver.mime.fields import EncodeError
from mailserver.mime.mail import Attachment, Mail
from mailserver.mime.part import Part

ME = "Me <me@example.org>"


def tree(part: Part) -> str:
    """`mixed[plain, pdf]`"""
    return f"{part.subtype}[{', '.join(map(tree, part.parts))}]" if part.parts else part.subtype


class AddressTests(SynchronousTestCase):
    def test_they_may_be_given_in_many_ways(self) -> None:
        jo = NamedAddress("Jo", "jo@example.org")
        for given, kept in (
            ("Jo <jo@example.org>", (jo,)),
            (jo, (jo,)),
            ([jo], (jo,)),
            (["Jo <jo@example.org>", Address("b", "example.org")], (jo, NamedAddress("", "b@example.org"))),
            (Address("b", "example.org"), (NamedAddress("", "b@example.org"),)),
            ("a@example.org, team: Jo <jo@example.org>;", (NamedAddress("", "a@example.org"), Group("team", (jo,)))),
            (
                ["team: Jo <jo@example.org>;", "a@example.org"],
                (Group("team", (jo,)), NamedAddress("", "a@example.org")),
            ),
            ((), ()),
            ("", ()),
        ):
            self.assertEqual(Mail(ME, given).to, kept, given)

    def test_M45_a_bad_address_is_an_error_that_names_field_and_address(self) -> None:
        for field, arguments, value in (
            ("From", {"from_": "joe"}, "joe"),
            ("To", {"to": "Jan <a,a@a.com>"}, "Jan <a,a@a.com>"),
            ("To", {"to": ["a@example.org", ""]}, ""),
            ("Cc", {"cc": NamedAddress("x", "y")}, "y"),
            ("Bcc", {"bcc": Group("g", (NamedAddress("", "z@"),))}, "z@"),
            ("Reply-To", {"reply_to": "a@b.c\r\nBcc: d@e.f"}, "a@b.c\r\nBcc: d@e.f"),
            ("Sender", {"headers": {"Sender": "nobody"}}, "nobody"),
        ):
            error = self.assertRaises(EncodeError, Mail, **{"from_": ME, **arguments})
            self.assertEqual((error.field, error.value), (field, value))
            self.assertIn(field, str(error))

    def test_there_must_be_an_author_who_is_no_group(self) -> None:
        for from_ in ("", (), "team: a@example.org;", "nobody:;"):
            self.assertEqual(self.assertRaises(EncodeError, Mail, from_).field, "From")

    def test_recipients_are_all_each_once(self) -> None:
        mail = Mail(
            ME,
            "a@example.org, g: b@example.org;",
            cc="A@EXAMPLE.ORG, c@example.org",
            bcc="a@Example.Org, d@example.org",
        )
        self.assertEqual(
            [str(each) for each in mail.recipients],
            ["a@example.org", "b@example.org", "A@EXAMPLE.ORG", "c@example.org", "d@example.org"],
        )
        self.assertEqual(mail.sender, Address("me", "example.org"))


class HeaderTests(SynchronousTestCase):
    def names(self, mail: Mail) -> list[str]:
        return [name for name, _ in mail.part().headers]

    def test_usual_fields_come_first(self) -> None:
        mail = Mail(
            ME, "a@example.org", "hello", headers={"X-A": "1"}, cc="b@example.org", bcc="c@example.org",
            reply_to="d@example.org", date=0, message_id="<m@example.org>", in_reply_to="<i@example.org>",
        )  # fmt: skip
        self.assertEqual(
            self.names(mail),
            [
                "Date",
                "From",
                "Reply-To",
                "To",
                "Cc",
                "Bcc",
                "Subject",
                "Message-ID",
                "In-Reply-To",
                "References",
                "X-A",
            ],
        )

    def test_further_fields_may_come_twice(self) -> None:
        mail = Mail(ME, headers=[("X-A", "1"), ("X-B", "2"), ("x-a", "3")])
        self.assertEqual([*mail.part().headers], [("From", ME), ("X-A", "1"), ("X-B", "2"), ("x-a", "3")])

    def test_what_can_be_once_is_not_given_twice(self) -> None:
        for arguments in (
            {"headers": {"From": ME}},
            {"headers": {"subject": "x"}, "subject": "y"},
            {"headers": [("Date", "x"), ("date", "y")]},
            {"headers": {"Date": "x"}, "date": 0},
            {"headers": {"To": "a@example.org"}, "to": "a@example.org"},
        ):
            error = self.assertRaises(EncodeError, Mail, ME, **arguments)
            self.assertEqual(error.reason, "is given twice")

    def test_fields_of_mime_are_ours(self) -> None:
        for name in (
            "Content-Type",
            "MIME-Version",
            "content-transfer-encoding",
            "Content-Disposition",
            "Content-ID",
        ):
            self.assertEqual(self.assertRaises(EncodeError, Mail, ME, headers={name: "x"}).field, name)

    def test_nothing_that_is_given_ends_its_field(self) -> None:
        bad = "x\r\nBcc: evil@example.org"
        for arguments in (
            {"subject": bad},
            {"subject": "x\ny"},
            {"subject": "x\0y"},
            {"headers": {"X-A": bad}},
            {"headers": {bad: "x"}},
            {"headers": {"X A": "x"}},
            {"message_id": "<a@b>\r\nBcc: x"},
            {"message_id": "a@b"},
            {"in_reply_to": "<a\0@b>"},
            {"references": ["<a@b>", "<c@d>\r\nBcc:x"]},
            {"cc": NamedAddress("x", bad)},
        ):
            self.assertRaises(EncodeError, Mail, ME, **arguments)

    def test_M42_references_come_from_in_reply_to(self) -> None:
        def references(**arguments: object) -> str | None:
            return Mail(ME, **arguments).part().headers.get("references")  # type: ignore[arg-type]

        self.assertEqual(references(in_reply_to="<a@b>"), "<a@b>")
        self.assertEqual(references(in_reply_to="<a@b>", references="<c@d> <e@f>"), "<c@d> <e@f> <a@b>")
        self.assertEqual(references(in_reply_to="<a@b>", references=["<a@b>", "<c@d>"]), "<a@b> <c@d>")
        self.assertEqual(references(references="<c@d> <c@d>"), "<c@d>")
        self.assertIsNone(references())

    def test_several_authors_have_a_sender(self) -> None:
        # RFC 5322 3.6.2
        self.assertEqual(Mail([ME, "you@example.org"]).part().headers.get("sender"), "me@example.org")
        mail = Mail([ME, "you@example.org"], headers={"Sender": "office@example.org"})
        self.assertEqual(mail.part().headers.get_all("sender"), ["office@example.org"])

    def test_a_date_is_seconds_or_a_datetime(self) -> None:
        for date in (1795189361, datetime(2026, 11, 20, 15, 42, 41, tzinfo=UTC)):
            self.assertEqual(Mail(ME, date=date).part().headers.get("date"), "Fri, 20 Nov 2026 15:42:41 +0000")

    def test_nothing_of_the_text_is_in_the_repr(self) -> None:
        mail = Mail(
            ME, "a@example.org", "SECRET", text="SECRET", html="SECRET", attachments=[Attachment("x", "SECRET")]
        )
        self.assertNotIn("SECRET", repr(mail) + repr(mail.attachments))


class TreeTests(SynchronousTestCase):
    def test_M52_the_tree_is_what_is_needed_and_no_more(self) -> None:
        pdf, logo = Attachment("a.pdf", b"%PDF"), Attachment("logo.png", b"PNG")
        for what, arguments, wanted in (
            ("nothing", {}, "plain"),
            ("text", {"text": "x"}, "plain"),
            ("html", {"html": "x"}, "html"),
            ("both", {"text": "x", "html": "y"}, "alternative[plain, html]"),
            ("html and a picture", {"html": "y", "inline": [logo]}, "related[html, png]"),
            ("both and a picture", {"text": "x", "html": "y", "inline": [logo]}, "alternative[plain, related[html, png]]"),
            ("text and a file", {"text": "x", "attachments": [pdf]}, "mixed[plain, pdf]"),
            ("a file only", {"attachments": [pdf]}, "mixed[pdf]"),
            ("a picture without html", {"text": "x", "inline": [logo]}, "mixed[plain, png]"),
            ("all", {"text": "x", "html": "y", "inline": [logo], "attachments": [pdf, pdf]},
             "mixed[alternative[plain, related[html, png]], pdf, pdf]"),
        ):  # fmt: skip
            self.assertEqual(tree(Mail(ME, **arguments).part()), wanted, what)  # type: ignore[arg-type]

    def test_related_names_the_type_of_its_root(self) -> None:
        # RFC 2387 3.1
        part = Mail(ME, html="x", inline=[Attachment("a.png", b"")]).part()
        self.assertEqual(part.parameters, {"type": "text/html"})


class AttachmentTests(SynchronousTestCase):
    def test_the_type_is_guessed_from_the_name(self) -> None:
        for name, content, guessed in (
            ("a.pdf", b"", "application/pdf"),
            ("a.png", b"", "image/png"),
            ("a.txt", b"", "text/plain"),
            ("A.TXT", b"", "text/plain"),
            ("a.tar.gz", b"", "application/octet-stream"),
            ("a", b"", "application/octet-stream"),
            ("a", "text", "text/plain"),
            ("", b"", "application/octet-stream"),
            ("a.eml", b"", "message/rfc822"),
            ("a.mht", b"", "message/rfc822"),
            ("", Part(), "message/rfc822"),
        ):
            self.assertEqual(Attachment(name, content).part().content_type, guessed, name)
        self.assertEqual(Attachment("a.pdf", b"", "Text/X-Other").part().content_type, "text/x-other")

    def test_a_message_id_is_one_identifier(self) -> None:
        for bad in (" ", "\t ", "<a@example.org> <b@example.org>"):
            with self.assertRaises(EncodeError, msg=repr(bad)) as caught:
                Mail("a@example.org", message_id=bad)
            self.assertEqual(caught.exception.field, "Message-ID")

    def test_what_is_no_type_name_or_id_is_refused(self) -> None:
        for arguments in (
            {"name": "a\r\nb"},
            {"name": "a\0"},
            {"name": "a\u2028b"},
            {"type": "text"},
            {"type": "text/plain\r\nX: y"},
            {"type": "multipart/mixed"},
            {"content_id": "a>\r\nX: y"},
            {"content_id": "a b"},
            {"content_id": "<a>"},
        ):
            self.assertRaises(EncodeError, Attachment, **{"name": "a", "content": b"", **arguments})

    def test_its_fields(self) -> None:
        part = Attachment("Gr\u00f6\u00dfe.png", b"x", content_id="logo", description="our logo").part("inline")
        self.assertEqual([*part.headers], [("Content-ID", "<logo>"), ("Content-Description", "our logo")])
        self.assertEqual(part.disposition.kind if part.disposition else "", "inline")
        self.assertEqual(part.filename, "Gr\u00f6\u00dfe.png")

    def test_the_content_id_of_an_inline_file_is_its_name_where_that_can_be_one(self) -> None:
        self.assertEqual(Attachment("logo.png", b"").part("inline").content_id, "logo.png")
        self.assertEqual(Attachment("my logo.png", b"").part("inline").content_id, "")
        self.assertEqual(Attachment("logo.png", b"").part().content_id, "")

    def test_content_is_read_from_where_it_is(self) -> None:
        path = Path(self.mktemp())
        path.write_bytes(b"on disk")
        for content, wanted in (
            (b"octets", b"octets"),
            (path, b"on disk"),
            (io.BytesIO(b"open"), b"open"),
            (lambda: path.open("rb"), b"on disk"),
            ("t\u00e4xt", "t\u00e4xt".encode()),
        ):
            self.assertEqual(Attachment("a", content).part().content, wanted)

    def test_a_part_is_sent_as_a_message(self) -> None:
        inner = Part("text", "html")
        self.assertEqual(Attachment("x.eml", inner).part().parts, [inner])
