"""Parts, read and made: content, text, body, attachments."""

from __future__ import annotations

import io

from twisted.trial.unittest import SynchronousTestCase

from mailserver.mime import Disposition, Headers, Part, decode
from tests.mime.pieces import ALTERNATIVE, BOTH, HTML, JPEG, MIXED, TEXT, crlf, file_part, mail, multipart, part


class ReadTests(SynchronousTestCase):
    """Parts of a mail."""

    def test_what_a_part_is(self) -> None:
        octets = mail(MIXED, multipart("mix", TEXT, file_part("image/JPEG", JPEG, "a.jpg")))
        root = decode(octets)
        text, image = root.parts
        self.assertEqual((root.type, root.subtype, root.content_type), ("multipart", "mixed", "multipart/mixed"))
        self.assertTrue(root.is_multipart)
        self.assertFalse(text.is_multipart)
        self.assertEqual(root.parameters, {"boundary": "mix"})
        self.assertEqual(text.parameters, {"charset": "us-ascii"})
        self.assertIsNone(text.disposition)
        self.assertEqual(image.disposition, Disposition("attachment", {"filename": "a.jpg"}))
        self.assertEqual((text.encoding, image.encoding), (None, "base64"))
        self.assertEqual((text.filename, image.filename), ("", "a.jpg"))
        self.assertEqual((text.content, image.content), (b"plain", JPEG))
        self.assertEqual(root.raw, octets)
        self.assertEqual(text.raw, b"Content-Type: text/plain; charset=us-ascii\r\n\r\nplain")

    def test_a_name_is_that_of_the_disposition_or_that_of_the_type(self) -> None:
        for fields, name in (
            ("Content-Type: text/plain; name=a", "a"),
            ("Content-Type: text/plain; name=a\nContent-Disposition: inline; filename=b", "b"),
            ("Content-Type: text/plain; name=a\nContent-Disposition: inline", "a"),
            ("Content-Disposition: inline; filename=b", "b"),
            ("Subject: x", ""),
        ):
            self.assertEqual(decode(crlf(fields + "\n\n")).filename, name)

    def test_a_content_id_has_no_brackets(self) -> None:
        for value, expected in (("<a@b>", "a@b"), (" a@b ", "a@b"), ("", ""), ("< a >", "a")):
            self.assertEqual(decode(crlf(f"Content-ID: {value}\n\n")).content_id, expected)
        self.assertEqual(decode(b"\r\n").content_id, "")

    def test_content_in_memory_is_decoded_once(self) -> None:
        image = decode(mail(MIXED, multipart("mix", file_part("image/png", JPEG, "a")))).parts[0]
        self.assertIs(image.content, image.content)

    def test_content_of_a_multipart_and_of_a_message_is_what_stands_there(self) -> None:
        root = decode(mail(ALTERNATIVE, BOTH))
        self.assertEqual(root.content, crlf(BOTH))
        self.assertEqual(root.text, "")
        message = decode(mail("message/rfc822", "Subject: x\n\ny"))
        self.assertEqual((message.content, message.text), (b"Subject: x\r\n\r\ny", "Subject: x\n\ny"))
        self.assertTrue(message.is_message)

    def test_html_says_its_charset_where_the_mail_does_not(self) -> None:
        for field, markup, text in (
            ("text/html", b'<meta charset="koi8-r">\xd4', "\u0442"),
            ("text/html", b'<META http-equiv=Content-Type content="text/html; charset=koi8-r">\xd4', "\u0442"),
            ("text/html; charset=windows-1251", b'<meta charset="koi8-r">\xf2', "\u0442"),
            ("text/html", b"\xd4", "\u00d4"),
            ("text/plain", b'<meta charset="koi8-r">\xd4', "\u00d4"),
        ):
            root = decode(b"Content-Type: " + field.encode() + b"\r\n\r\n" + markup)
            self.assertEqual(root.text[-1], text)

    def test_changed_headers_are_changed_and_what_was_read_is_not(self) -> None:
        root = decode(mail("text/html", "x"))
        root.headers.set("Content-Type", "text/plain")
        root.headers.insert(0, "X-First", "1")
        self.assertEqual(root.headers.fields[0].name, "X-First")
        self.assertEqual(root.content_type, "text/html")

    def test_a_walk_is_in_the_order_of_the_mail(self) -> None:
        inner = part("message/rfc822", "Subject: x\n\ny")
        root = decode(mail(MIXED, multipart("mix", part(ALTERNATIVE, BOTH), inner, HTML)))
        kinds = [each.subtype for each in root.walk()]
        self.assertEqual(kinds, ["mixed", "alternative", "plain", "html", "rfc822", "plain", "html"])

    def test_a_repr_has_no_text(self) -> None:
        root = decode(b"Subject: secret\r\n\r\nsecret")
        self.assertNotIn("secret", repr(root) + repr(root.parts))


class BodyTests(SynchronousTestCase):
    """Which part is the text of the mail, and which are attachments."""

    def body(self, octets: bytes, *preference: str) -> str | None:
        found = decode(octets).body(preference) if preference else decode(octets).body()
        return None if found is None else found.text

    def test_plain_text_is_preferred_unless_asked_otherwise(self) -> None:
        octets = mail(ALTERNATIVE, BOTH)
        self.assertEqual(self.body(octets), "plain")
        self.assertEqual(self.body(octets, "html", "plain"), "<b>html</b>")
        self.assertEqual(self.body(octets, "calendar"), None)

    def test_html_is_taken_where_there_is_no_plain_text(self) -> None:
        self.assertEqual(self.body(mail(MIXED, multipart("mix", HTML))), "<b>html</b>")

    def test_attachments_and_files_are_no_body(self) -> None:
        attached = part("text/plain", "no", "Content-Disposition: attachment")
        named = part("text/plain; name=a.txt", "no")
        self.assertEqual(self.body(mail(MIXED, multipart("mix", attached, named, TEXT))), "plain")
        self.assertIsNone(self.body(mail(MIXED, multipart("mix", attached, named))))
        self.assertIsNone(self.body(mail("image/png", "x")))

    def test_a_mail_that_is_one_text_with_a_name_is_its_body(self) -> None:
        self.assertEqual(self.body(mail("text/plain; name=a.txt", "x")), "x")

    def test_text_of_a_message_in_the_mail_is_not_its_body(self) -> None:
        inner = part("message/rfc822", "Subject: x\n\nno")
        self.assertIsNone(self.body(mail(MIXED, multipart("mix", inner))))

    def test_a_mail_that_is_a_message_has_the_body_and_attachments_of_that(self) -> None:
        whole = mail(MIXED, multipart("mix", TEXT, file_part("image/png", JPEG, "a.png"))).decode().replace("\r", "")
        root = decode(mail("message/rfc822", whole))
        body = root.body()
        assert body is not None
        self.assertEqual(body.text, "plain")
        self.assertEqual([each.filename for each in root.attachments], ["a.png"])

    def test_uuencoded_files_are_attachments_and_stay_in_the_text(self) -> None:
        root = decode(b"Subject: x\r\n\r\nsee\r\nbegin 644 a.txt\r\n#86)C\r\n`\r\nend\r\n")
        (found,) = root.attachments
        self.assertEqual(
            (found.content, found.filename, found.content_type), (b"abc", "a.txt", "application/octet-stream")
        )
        self.assertIn("begin 644 a.txt", root.text)
        self.assertEqual(root.parts, [])


class MadeTests(SynchronousTestCase):
    """Parts of a program."""

    def test_all_forms_of_content(self) -> None:
        file = io.BytesIO(b"skip" + b"h\xc3\xa4llo")
        file.seek(4)
        opened: list[io.BytesIO] = []

        def open_one() -> io.BytesIO:
            opened.append(io.BytesIO(b"h\xc3\xa4llo"))
            return opened[-1]

        for content in ("h\u00e4llo", b"h\xc3\xa4llo", file, open_one):
            made = Part("text", "plain", content=content, parameters={"Charset": "utf-8"})
            for _ in range(2):
                self.assertEqual(made.content, b"h\xc3\xa4llo")
                self.assertEqual(made.text, "h\u00e4llo")
                self.assertEqual(list(made.blocks(4)), [b"h\xc3\xa4l", b"lo"])
        self.assertEqual(len(opened), 6)
        self.assertTrue(all(each.closed for each in opened))

    def test_text_is_encoded_with_its_charset(self) -> None:
        self.assertEqual(Part(content="\u00e4", parameters={"charset": "iso-8859-1"}).content, b"\xe4")
        self.assertEqual(Part(content="\u00e4").content, b"\xc3\xa4")
        self.assertEqual(Part(content="a\r\nb\rc").text, "a\nb\nc")

    def test_what_was_given_is_there(self) -> None:
        inner = Part("Text", "HTML", content="x")
        made = Part(
            "multipart",
            "Related",
            parts=[inner],
            headers=[("Content-ID", "<a>")],
            disposition="Attachment",
            parameters={"TYPE": "text/html"},
            encoding="7BIT",
        )
        self.assertEqual(made.content_type, "multipart/related")
        self.assertEqual(inner.content_type, "text/html")
        self.assertEqual(made.parameters, {"type": "text/html"})
        self.assertEqual((made.content_id, made.encoding), ("a", "7bit"))
        self.assertEqual(made.disposition, Disposition("attachment"))
        self.assertEqual([*made.walk()], [made, inner])
        self.assertEqual((made.raw, made.defects, made.extent), (b"", [], None))

    def test_nothing_given_is_an_empty_text(self) -> None:
        made = Part()
        self.assertEqual((made.content_type, made.content, made.text), ("text/plain", b"", ""))
        self.assertEqual((made.disposition, made.encoding, made.filename, made.parts), (None, None, "", []))
        self.assertEqual(len(made.headers), 0)

    def test_headers_may_be_given_as_headers(self) -> None:
        headers = Headers([("A", "b")])
        self.assertIs(Part(headers=headers).headers, headers)
        with self.assertRaises(ValueError):
            Part(headers=[("A", "b\n")])

    def test_parts_are_a_list_of_its_own(self) -> None:
        parts: list[Part] = []
        made = Part("multipart", "mixed", parts=parts)
        made.parts.append(Part())
        self.assertEqual(parts, [])

    def test_parts_that_were_read_and_made_go_together(self) -> None:
        read = decode(mail("image/png; name=a.png", "x"))
        made = Part("multipart", "mixed", parts=[Part(content="hello"), read])
        self.assertEqual(made.attachments, [read])
        body = made.body()
        assert body is not None
        self.assertEqual(body.text, "hello")
        self.assertEqual(made.defects, read.defects)
