"""Tests of mailserver.sasl.plain: the message of RFC 4616 in all its forms."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver.sasl import Challenge, Malformed, Plain, PlainLogin

#: what it is, message, login
GOOD = [
    ("RFC 4616 4, first example", b"\0tim\0tanstaaftanstaaf", PlainLogin("tim", "tanstaaftanstaaf")),
    ("RFC 4616 4, second example", b"Ursel\0Kurt\0xipj3plmq", PlainLogin("Kurt", "xipj3plmq", "Ursel")),
    ("two fields, gen_smtp S110", b"tim\0tanstaaf", PlainLogin("tim", "tanstaaf")),
    ("with identity, gen_smtp TS16", b"username\0username\0PaSSw0rd", PlainLogin("username", "PaSSw0rd", "username")),
    ("UTF-8", "\0j\u00f6rg\0p\u00e4ss".encode(), PlainLogin("j\u00f6rg", "p\u00e4ss")),
    ("blanks belong to the password", b"\0tim\0 a b ", PlainLogin("tim", " a b ")),
]

BAD = [
    ("nothing", b""),
    ("one field", b"tim"),
    ("four fields: a NUL in the password", b"\0tim\0tanst\0aaf"),
    ("five fields", b"\0\0\0\0"),
    ("no user", b"\0\0tanstaaf"),
    ("no user, two fields", b"\0tanstaaf"),
    ("no password", b"\0tim\0"),
    ("user not UTF-8", b"\0t\xffm\0tanstaaf"),
    ("password not UTF-8", b"\0tim\0\xff"),
    ("authzid not UTF-8", b"\xff\0tim\0tanstaaf"),
    ("line feed in the user", b"\0ti\nm\0tanstaaf"),
]


class PlainTests(SynchronousTestCase):
    def test_messages_are_understood_at_once_and_after_the_challenge(self) -> None:
        for what, message, login in GOOD:
            self.assertEqual(Plain().start(message), login, what)
            exchange = Plain()
            self.assertEqual(exchange.start(None), Challenge(b""), what)
            self.assertEqual(exchange.respond(message), login, what)

    def test_other_messages_are_malformed(self) -> None:
        for what, message in BAD:
            with self.assertRaises(Malformed, msg=what):
                Plain().start(message)
            with self.assertRaises(Malformed, msg=what):
                Plain().respond(message)

    @given(st.binary(max_size=60))
    @settings(deadline=None, max_examples=150)
    def test_any_octets_are_a_login_or_malformed(self, message: bytes) -> None:
        try:
            login = Plain().respond(message)
        except Malformed:
            return
        assert isinstance(login, PlainLogin)
        again = b"\0".join(part.encode() for part in (login.authzid, login.user, login.password))
        self.assertIn(message, (again, again[1:]))

    def test_it_is_announced_as_plain(self) -> None:
        self.assertEqual(Plain.name, "PLAIN")
