"""XCLIENT: whom a trusted front end speaks for, and what is forgotten of the front end itself."""

from __future__ import annotations

from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver.envelope import Peer
from mailserver.smtp.session import xclient_peer
from mailserver.smtp.syntax import BadSyntax
from tests.smtp.driver import MECHANISMS, TLS, Conversation, settings
from tests.smtp.phrases import EHLO, MAIL, b64

FRONT_END = Peer("192.0.2.1", 4711, "front.example.net", TLS, "front@example.org")

#: argument, what is known of the peer then: host, port, helo, user
GOOD = [
    (b"NAME=x", ("192.0.2.1", 4711, "", "")),
    (b"ADDR=198.51.100.7", ("198.51.100.7", 4711, "", "")),
    (b"addr=IPv6:2001:DB8:0::7 port=99", ("2001:db8::7", 99, "", "")),
    (b"ADDR=ipv6:::ffff:198.51.100.7", ("198.51.100.7", 4711, "", "")),
    (b"ADDR=[UNAVAILABLE] NAME=[TEMPUNAVAIL] PORT=[unavailable]", ("192.0.2.1", 4711, "", "")),
    (b"HELO=client.example.net LOGIN=joe@example.org", ("192.0.2.1", 4711, "client.example.net", "joe@example.org")),
    (b"HELO=a+2Bb LOGIN=[UNAVAILABLE]", ("192.0.2.1", 4711, "a+b", "")),
    (b"LOGIN=", ("192.0.2.1", 4711, "", "")),
    (b"PROTO=ESMTP DESTADDR=192.0.2.25 DESTPORT=25 PORT=1", ("192.0.2.1", 1, "", "")),
    (b"PORT=65535", ("192.0.2.1", 65535, "", "")),
]
BAD = (
    b"",
    b"ADDR",
    b"ADDR=",
    b"ADDR=x",
    b"ADDR=192.0.2.256",
    b"ADDR=IPv6:fe80::1%eth0",
    b"ADDR=IPv6:fe80::1%+0D+0A",
    b"PORT=0",
    b"PORT=65536",
    b"PORT=-1",
    b"PORT=+2B1",
    b"PORT=",
    b"PORT=1_0",
    b"HELO=",
    b"HELO=a+20b",
    b"HELO=a+0Ab",
    b"LOGIN=a+0Ab",
    b"LOGIN=a+0",
    b"FOO=1",
    b"ADDR=192.0.2.1 FOO",
    b"ADDR=192.0.2.1 addr=192.0.2.1",
    b"LOGIN=\xff",
)


class PeerTests(SynchronousTestCase):
    def test_the_client_is_who_the_front_end_says(self) -> None:
        for argument, told in GOOD:
            peer = xclient_peer(argument, FRONT_END)
            self.assertEqual((peer.host, peer.port, peer.helo, peer.user), told, argument)
            self.assertIs(peer.tls, TLS)

    def test_other_things_are_refused(self) -> None:
        for argument in BAD:
            with self.assertRaises(BadSyntax):
                xclient_peer(argument, FRONT_END)

    @hypothesis_settings(deadline=None, max_examples=150)
    @given(st.sampled_from([b"ADDR=", b"LOGIN=", b"HELO=", b"PORT=", b""]), st.binary(max_size=30))
    def test_nothing_can_start_a_line(self, attribute: bytes, value: bytes) -> None:
        try:
            peer = xclient_peer(attribute + value, FRONT_END)
        except BadSyntax:
            return
        for text in (peer.host, peer.helo, peer.user):
            self.assertTrue(text.isprintable(), text)


class SessionTests(SynchronousTestCase):
    def test_the_login_of_the_front_end_is_not_that_of_the_client(self) -> None:
        given_settings = settings(xclient=True, mechanisms=MECHANISMS, insecure_auth=True, auth_required=True)
        login = b"AUTH PLAIN " + b64(b"\0a@b\0secret")
        conversation = Conversation(given_settings).feed([EHLO, login, b"XCLIENT ADDR=198.51.100.7\r\n", EHLO, MAIL])
        self.assertEqual(conversation.codes, "220 250 235 220 250 530")
        self.assertEqual(conversation.session.peer.user, "")
        self.assertEqual(conversation.feed([login, MAIL]).codes[-7:], "235 250")

    def test_the_greeting_begins_anew(self) -> None:
        conversation = Conversation(settings(xclient=True)).feed([EHLO, b"XCLIENT HELO=x PORT=7\r\n", MAIL])
        self.assertEqual(conversation.codes, "220 250 220 503")
        self.assertEqual((conversation.session.peer.host, conversation.session.peer.port), ("192.0.2.1", 7))
