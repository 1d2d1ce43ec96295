"""What a webhook posts, in each of its forms; and that memory stays bounded."""

from __future__ import annotations

import base64
import io
import json
import tracemalloc
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver.address import parse_address
from mailserver.apps import payload
from mailserver.apps.message import IN_MEMORY, Message
from mailserver.apps.payload import Body, Facts, Source, Wanted, body_of, identifier, raw_headers
from mailserver.envelope import Envelope, Peer, Recipient, TLSInfo

MAIL = (
    b"From: =?utf-8?q?Gr=C3=BCn?= <a@example.com>\r\n"
    b"To: b@example.org\r\n"
    b"Subject: =?utf-8?q?gr=C3=BCn?=\r\n"
    b"Received: one\r\nReceived: two\r\n"
    b"MIME-Version: 1.0\r\n"
    b"Content-Type: multipart/mixed; boundary=b\r\n\r\n"
    b"--b\r\nContent-Type: multipart/alternative; boundary=c\r\n\r\n"
    b"--c\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nhell\xc3\xb6\r\n"
    b"--c\r\nContent-Type: text/html\r\n\r\n<p>hello</p>\r\n--c--\r\n"
    b'--b\r\nContent-Type: application/pdf\r\nContent-Disposition: attachment; filename="a\\"b.pdf"\r\n'
    b"Content-Transfer-Encoding: base64\r\n\r\nAAECAw==\r\n"
    b"--b\r\nContent-Type: image/png; name=x.png\r\nContent-ID: <x@y>\r\n"
    b"Content-Transfer-Encoding: base64\r\n\r\n" + base64.b64encode(b"p" * 100) + b"\r\n"
    b"--b--\r\n"
)
TLS = TLSInfo("TLSv1.3", "TLS_AES", 256, "mx.example.org", client_name="c")
PEER = Peer("192.0.2.1", 4711, "client.example.com", TLS, "anna")
ENVELOPE = Envelope(
    "ID1",
    parse_address("a@example.com"),
    parameters={"SIZE": "100"},
    peer=PEER,
    protocol="ESMTPSA",
    listener="in",
    smtputf8=True,
)
ANNA = Recipient(parse_address("run+a=1@example.org"), {"NOTIFY": "NEVER"})
BOB = Recipient(parse_address("bob@example.org"))


def facts(*recipients: Recipient, **arguments: str) -> Facts:
    """At the first of January 2027."""
    return Facts(ENVELOPE, recipients or (ANNA,), 1798761600.5, arguments)


class BodyCase(SynchronousTestCase):
    def body(self, mail: bytes | Message = MAIL, facts_: Facts | None = None, **wanted: Any) -> Body:
        message = mail if isinstance(mail, Message) else Message.of(mail)
        body = body_of(Wanted(**wanted), facts_ or facts(), Source(message))
        self.addCleanup(body.file.close)
        return body

    def octets(self, *arguments: Any, **wanted: Any) -> bytes:
        body = self.body(*arguments, **wanted)
        octets = b"".join(body.blocks())
        self.assertEqual(len(octets), body.length)
        self.assertEqual(body.file.read(), octets)  # it is at its start again
        return octets

    def told(self, *arguments: Any, **wanted: Any) -> Any:
        return json.loads(self.octets(*arguments, **wanted))


class JSONTests(BodyCase):
    maxDiff = None

    def test_the_envelope_and_the_client(self) -> None:
        told = self.told(MAIL, facts(ANNA, a="1"))
        self.assertEqual((told["type"], told["id"]), ("message.received", "ID1"))
        self.assertEqual(told["timestamp"], "2027-01-01T00:00:00.500+00:00")
        self.assertEqual((told["arguments"], told["size"]), ({"a": "1"}, len(MAIL)))
        self.assertEqual(
            told["envelope"],
            {
                "sender": "a@example.com",
                "recipients": [
                    {
                        "address": "run+a=1@example.org",
                        "local": "run+a=1",
                        "domain": "example.org",
                        "user": "run",
                        "detail": "a=1",
                        "parameters": {"NOTIFY": "NEVER"},
                    }
                ],
                "parameters": {"SIZE": "100"},
                "body": "7BIT",
                "smtputf8": True,
            },
        )
        self.assertEqual(
            told["client"],
            {
                "address": "192.0.2.1",
                "port": 4711,
                "helo": "client.example.com",
                "tls": {
                    "version": "TLSv1.3",
                    "cipher": "TLS_AES",
                    "bits": 256,
                    "server_name": "mx.example.org",
                    "client_name": "c",
                },
                "identity": "anna",
                "protocol": "ESMTPSA",
                "listener": "in",
            },
        )

    def test_header_text_and_html(self) -> None:
        told = self.told()
        self.assertEqual(told["subject"], "grün")
        self.assertEqual(told["from"], "Grün <a@example.com>")
        self.assertEqual([value for name, value in told["headers"] if name == "Received"], ["one", "two"])
        self.assertEqual((told["text"], told["html"], told["left_out"]), ("hellö", "<p>hello</p>", []))

    def test_attachments(self) -> None:
        pdf, png = self.told()["attachments"]
        self.assertEqual(base64.b64decode(pdf.pop("content")), b"\0\1\2\3")
        self.assertEqual(
            pdf,
            {
                "name": 'a"b.pdf',
                "type": "application/pdf",
                "size": 4,
                "disposition": "attachment",
                "content_id": "",
                "left_out": False,
            },
        )
        self.assertEqual((png["name"], png["content_id"]), ("x.png", "x@y"))
        self.assertEqual(base64.b64decode(png["content"]), b"p" * 100)

    def test_attachments_over_the_limit_are_left_out_and_the_body_says_so(self) -> None:
        pdf, png = self.told(attachment_limit=100)["attachments"]
        self.assertEqual((pdf["left_out"], png["left_out"], png["content"], png["size"]), (False, True, None, 100))
        pdf, png = self.told(attachment_limit=104)["attachments"]
        self.assertFalse(pdf["left_out"] or png["left_out"])
        pdf, png = self.told(attachment_limit=0)["attachments"]
        self.assertTrue(pdf["left_out"] and png["left_out"])

    def test_text_over_the_limit_is_left_out_and_the_body_says_so(self) -> None:
        told = self.told(text_limit=6)
        self.assertEqual((told["text"], told["html"], told["left_out"]), ("hellö", None, ["html"]))
        self.assertEqual(self.told(text_limit=5)["left_out"], ["text", "html"])

    def test_the_whole_message_when_it_is_wanted(self) -> None:
        self.assertNotIn("raw", self.told())
        self.assertEqual(base64.b64decode(self.told(raw=True)["raw"]), MAIL)

    def test_several_recipients(self) -> None:
        told = self.told(MAIL, facts(ANNA, BOB))
        self.assertEqual([each["user"] for each in told["envelope"]["recipients"]], ["run", "bob"])

    @given(st.binary(max_size=300))
    def test_any_octets_give_json(self, octets: bytes) -> None:
        told = json.loads(b"".join(body_of(Wanted(raw=True), facts(), Source(Message.of(octets))).blocks()))
        self.assertEqual(base64.b64decode(told["raw"]), octets)


class Base64Tests(SynchronousTestCase):
    @given(st.lists(st.binary(max_size=10), max_size=10))
    def test_blocks_of_any_size(self, blocks: list[bytes]) -> None:
        self.assertEqual(b"".join(payload._base64(blocks)), base64.b64encode(b"".join(blocks)))


class RawTests(BodyCase):
    def test_the_message_as_it_came_with_its_envelope_beside(self) -> None:
        body = self.body(MAIL, facts(ANNA, a="ü"), form="raw")
        self.assertEqual((b"".join(body.blocks()), body.content_type), (MAIL, "message/rfc822"))
        self.assertEqual(
            body.headers,
            {
                "X-Envelope-Id": "ID1",
                "X-Envelope-From": "a@example.com",
                "X-Envelope-To": "run+a=1@example.org",
                "X-Client-Address": "192.0.2.1",
                "X-Client-Helo": "client.example.com",
                "X-Client-Protocol": "ESMTPSA",
                "X-Client-Identity": "anna",
                "X-Client-Tls": "TLSv1.3 TLS_AES",
                "X-Listener": "in",
                "X-Arguments": '{"a":"\\u00fc"}',
            },
        )

    def test_no_value_makes_a_field_of_its_own(self) -> None:
        peer = Peer("192.0.2.1", 25, "x\r\nX-Evil: 1")
        told = raw_headers(Facts(Envelope("ID1", None, peer=peer), (BOB,), 0.0))
        self.assertEqual(told["X-Client-Helo"], "xX-Evil: 1")
        self.assertEqual(told["X-Envelope-From"], "")


class FormTests(BodyCase):
    def parts(self, *arguments: Any, **wanted: Any) -> dict[str, tuple[str, bytes]]:
        """name -> (the rest of its head, its content)."""
        body = self.body(*arguments, form="form", **wanted)
        kind, _, boundary = body.content_type.partition("; boundary=")
        self.assertEqual(kind, "multipart/form-data")
        octets = b"".join(body.blocks())
        self.assertTrue(octets.endswith(f"\r\n--{boundary}--\r\n".encode()))
        found = {}
        for part in (b"\r\n" + octets).split(f"\r\n--{boundary}".encode())[1:-1]:
            head, _, content = part.partition(b"\r\n\r\n")
            name, _, rest = head.decode().partition('name="')[2].partition('"')
            found[name] = (rest, content)
        return found

    def test_the_fields_that_users_of_other_services_know(self) -> None:
        parts = self.parts(MAIL, facts(ANNA, BOB))
        texts = {name: content.decode("utf-8", "replace") for name, (_rest, content) in parts.items()}
        self.assertEqual((texts["subject"], texts["text"], texts["html"]), ("grün", "hellö", "<p>hello</p>"))
        self.assertEqual((texts["sender"], texts["to"]), ("a@example.com", "b@example.org"))
        self.assertEqual(texts["recipient"], "run+a=1@example.org, bob@example.org")
        envelope = json.loads(texts["envelope"])
        self.assertEqual(envelope["to"], ["run+a=1@example.org", "bob@example.org"])
        self.assertEqual((envelope["from"], texts["attachments"]), ("a@example.com", "2"))
        self.assertIn(["Received", "two"], json.loads(texts["message-headers"]))

    def test_attachments_are_files_whose_names_cannot_break_out(self) -> None:
        parts = self.parts()
        rest, content = parts["attachment1"]
        self.assertEqual(content, b"\0\1\2\3")
        self.assertEqual(rest, '; filename="a%22b.pdf"\r\nContent-Type: application/pdf')
        self.assertEqual(payload._escaped('a"\r\nb'), "a%22%0D%0Ab")

    def test_what_is_over_a_limit_is_left_out_and_the_form_says_so(self) -> None:
        parts = self.parts(attachment_limit=50, text_limit=5)
        self.assertNotIn("attachment2", parts)
        self.assertTrue(json.loads(parts["attachment-info"][1])["attachment2"]["left_out"])
        self.assertEqual((parts["text"][1], parts["text-left-out"][1]), (b"", b"true"))

    def test_the_whole_message_when_it_is_wanted(self) -> None:
        self.assertEqual(self.parts(raw=True)["email"][1], MAIL)


class IdentifierTests(SynchronousTestCase):
    def test_it_is_the_same_for_another_try_and_another_for_anything_else(self) -> None:
        def of(mail: bytes = MAIL, *recipients: Recipient, envelope: Envelope = ENVELOPE) -> str:
            return identifier(Facts(envelope, recipients or (ANNA,), 0.0), Source(Message.of(mail)))

        again = Envelope("ID2", parse_address("a@example.com"))
        self.assertEqual(of(), of(envelope=again))
        bounce = Envelope("ID1", None)
        self.assertEqual(len({of(), of(MAIL + b"x"), of(MAIL, BOB), of(MAIL, ANNA, BOB), of(envelope=bounce)}), 5)
        self.assertNotIn(".", of())


class MemoryTests(BodyCase):
    def large(self, megabytes: int) -> Message:
        folder = Path(self.mktemp())
        folder.mkdir()
        message = Message(lambda: folder)
        self.addCleanup(message.close)
        message.write(b"Content-Type: application/pdf\r\nContent-Disposition: attachment\r\n")
        message.write(b"Content-Transfer-Encoding: base64\r\n\r\n")
        line = base64.b64encode(b"x" * 57) + b"\r\n"
        for _ in range(megabytes * 17):
            message.write(line * 840)
        return message

    def test_a_large_message_is_never_held_whole(self) -> None:
        message = self.large(16)
        self.assertGreater(message.size, 16 * 2**20)
        for wanted in ({"form": "json", "raw": True}, {"form": "form", "raw": True}, {"form": "raw"}):
            tracemalloc.start()
            try:
                body = self.body(message, attachment_limit=2**30, **wanted)
                self.assertGreaterEqual(body.length, message.size)
                for _ in body.blocks():
                    pass
                most = tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()
            self.assertLess(most, 6 * 2**20, wanted)

    def test_what_becomes_of_the_message_meanwhile_changes_nothing(self) -> None:
        for size in (100, IN_MEMORY + 100):
            folder = Path(self.mktemp())
            folder.mkdir()
            message = Message(lambda folder=folder: folder)
            message.write(b"x" * size)
            source = Source(message)
            message.close()
            self.assertEqual(b"".join(source.blocks()), b"x" * size)
            source.file.close()

    def test_a_body_that_cannot_be_made_leaves_no_file_open(self) -> None:
        source = Source(Message.of(MAIL))
        self.patch(payload, "_json", lambda *_: iter([b"{", None]))
        self.assertRaises(TypeError, body_of, Wanted(), facts(), source)
        assert isinstance(source.file, io.BytesIO)
        self.assertTrue(source.file.closed)
