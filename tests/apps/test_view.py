"""What an app sees: always the connection of now."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mailserver.address import Address, parse_address
from mailserver.apps.view import AppAddress, Session
from mailserver.envelope import Peer, TLSInfo
from mailserver.smtp.session import SMTPSession
from tests.smtp.driver import settings


class AddressTests(SynchronousTestCase):
    def test_its_parts(self) -> None:
        address = AppAddress("tickets+42", "example.org")
        self.assertEqual((address.local, address.user, address.detail), ("tickets+42", "tickets", "42"))
        self.assertEqual(str(address), "tickets+42@example.org")

    def test_another_separator_or_none(self) -> None:
        self.assertEqual(AppAddress("a-b+c", "example.org", separator="-").detail, "b+c")
        self.assertEqual(AppAddress("a+b", "example.org", separator="").detail, "")

    def test_it_is_the_same_as_any_address(self) -> None:
        seen, plain = AppAddress("a", "EXAMPLE.org"), Address("a", "example.org")
        self.assertEqual(seen, plain)
        self.assertEqual(plain, seen)
        self.assertEqual({plain: 1}[seen], 1)
        self.assertNotEqual(seen, "a@example.org")
        self.assertNotEqual(seen, parse_address("b@example.org"))


class SessionTests(SynchronousTestCase):
    def test_it_shows_what_is_known_now(self) -> None:
        conversation = SMTPSession(settings(listener="smtp-25"), Peer("192.0.2.1", 4711), new_id=lambda: "t1")
        ended: list[str] = []
        session = Session(conversation, id="c1", local=("192.0.2.25", 25), connections=lambda: 7, end=ended.append)
        self.assertEqual((session.peer_host, session.peer_port, session.helo), ("192.0.2.1", 4711, ""))
        self.assertEqual((session.local_host, session.local_port), ("192.0.2.25", 25))
        self.assertEqual(
            (session.listener, session.protocol, session.hostname), ("smtp-25", "smtp", "mx.example.org")
        )
        self.assertEqual((session.messages, session.errors, session.connections), (0, 0, 7))
        self.assertIsNone(session.tls)
        self.assertIsNone(session.envelope)
        conversation.secured(TLSInfo("TLSv1.3", "TLS_AES_128_GCM_SHA256", 128, server_name="mx.example.org"))
        assert session.tls is not None
        self.assertEqual(session.tls.server_name, "mx.example.org")
        session.end("enough")
        self.assertEqual(ended, ["enough"])
        self.assertIn("c1", repr(session))
