"""Messages as values, what fits a wish, and what errors tell."""

from __future__ import annotations

import re
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mailserver.envelope import Peer, TLSInfo
from mailserver.testing.received import TOLD, MessageNotReceived, UnexpectedMessage, Wanted
from tests.testing.messages import NOON, TEXT, received

MULTIPART = (
    b"Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\nMIME-Version: 1.0\r\n"
    b'Content-Type: multipart/alternative; boundary="b"\r\n\r\n'
    b"--b\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nPlain \xc3\xbc\r\n"
    b"--b\r\nContent-Type: text/html\r\n\r\n<p>HTML</p>\r\n--b--\r\n"
)


class ReceivedTests(SynchronousTestCase):
    def test_envelope_and_content_are_two_things(self) -> None:
        message = received(TEXT, "a@example.net", "b@example.org", "c@example.org")
        self.assertEqual(message.sender, "a@example.net")
        self.assertEqual(message.recipients, ("b@example.org", "c@example.org"))
        self.assertEqual((message.raw, message.size, message.time), (TEXT, len(TEXT), NOON))

    def test_the_null_sender_is_an_empty_text(self) -> None:
        self.assertEqual(received(TEXT, "").sender, "")

    def test_subject_text_and_html_are_decoded(self) -> None:
        message = received(MULTIPART)
        self.assertEqual(message.subject, "Grüße")
        self.assertEqual(message.text.strip(), "Plain ü")
        self.assertEqual(message.html.strip(), "<p>HTML</p>")
        self.assertEqual(message.headers["subject"], "Grüße")
        self.assertEqual([part.subtype for part in message.mime.parts], ["plain", "html"])

    def test_what_is_not_there_is_empty(self) -> None:
        message = received(b"\r\nno header\r\n")
        self.assertEqual((message.subject, message.html), ("", ""))
        self.assertEqual(message.text.strip(), "no header")

    def test_the_session_tells_of_the_connection(self) -> None:
        tls = TLSInfo("TLSv1.3", "TLS_AES_128_GCM_SHA256", 128)
        peer = Peer("192.0.2.7", 99, "client", tls, "anna")
        facts = received(peer=peer, protocol="ESMTPSA", listener="smtp").session
        self.assertEqual((facts.host, facts.port, facts.helo), ("192.0.2.7", 99, "client"))
        self.assertEqual(
            (facts.tls, facts.identity, facts.protocol, facts.listener), (tls, "anna", "ESMTPSA", "smtp")
        )

    def test_it_shows_what_it_is_and_none_of_its_text(self) -> None:
        shown = repr(received())
        self.assertEqual(shown, f"<Received 'hello' from <a@example.net> to b@example.org, {len(TEXT)} octets>")


class WantedTests(SynchronousTestCase):
    def test_what_fits(self) -> None:
        message = received(TEXT, "a@example.net", "b@example.org", "c+tag@example.com")
        cases: list[tuple[dict[str, Any], bool]] = [
            ({}, True),
            ({"to": "b@example.org"}, True),
            ({"to": "B@EXAMPLE.ORG"}, True),
            ({"to": "c+*@example.com"}, True),
            ({"to": "*@example.net"}, False),
            ({"sender": "a@example.net"}, True),
            ({"sender": "*@example.org"}, False),
            ({"sender": ""}, False),
            ({"sender": "<>"}, False),
            ({"subject": "hello"}, True),
            ({"subject": "hell"}, False),
            ({"subject": re.compile("^hel+")}, True),
            ({"subject": re.compile("bye")}, False),
            ({"where": lambda each: b"works" in each.raw}, True),
            ({"where": lambda each: False}, False),
            ({"to": "b@example.org", "subject": "bye"}, False),
        ]
        for wish, fits in cases:
            self.assertIs(Wanted(**wish).fits(message), fits, str(wish))

    def test_the_null_sender_may_be_written_in_two_ways(self) -> None:
        bounce = received(TEXT, "")
        self.assertTrue(Wanted(sender="").fits(bounce))
        self.assertTrue(Wanted(sender="<>").fits(bounce))
        self.assertFalse(Wanted(sender="*@example.net").fits(bounce))

    def test_a_bad_pattern_is_named(self) -> None:
        error = self.assertRaises(ValueError, Wanted, to="nobody")
        self.assertIn('"nobody" has no "@"', str(error))

    def test_it_says_what_is_wanted(self) -> None:
        self.assertEqual(str(Wanted()), "message")
        self.assertEqual(
            str(Wanted(to="b@example.org", sender="<>", subject="hi")),
            "message to b@example.org from <> with a subject 'hi'",
        )
        self.assertIn("with a subject like '^x'", str(Wanted(subject=re.compile("^x"))))

        def is_signed(message: object) -> bool:
            return False

        self.assertEqual(str(Wanted(where=is_signed)), "message where is_signed")


class ErrorTests(SynchronousTestCase):
    def test_what_has_arrived_instead_is_told(self) -> None:
        error = MessageNotReceived("no message to x", [received(), received(TEXT, "")])
        self.assertIsInstance(error, AssertionError)
        self.assertEqual(len(error.received), 2)
        self.assertIn("no message to x; 2 messages have arrived:\n  1. <Received 'hello'", str(error))
        self.assertIn("2. <Received 'hello' from <>", str(error))

    def test_so_is_nothing(self) -> None:
        self.assertEqual(str(MessageNotReceived("no mail")), "no mail; no message has arrived")

    def test_a_flood_is_counted(self) -> None:
        text = str(MessageNotReceived("no mail", [received()] * (TOLD + 3)))
        self.assertIn("and 3 more", text)
        self.assertEqual(len(text.splitlines()), TOLD + 2)

    def test_an_unexpected_message_is_shown(self) -> None:
        message = received()
        error = UnexpectedMessage("message has arrived", message)
        self.assertIs(error.message, message)
        self.assertIn(repr(message), str(error))
