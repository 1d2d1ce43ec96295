"""Tests of mailserver.sasl.login: two questions with the words that clients wait for."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mailserver.sasl import Challenge, Login, Malformed, PlainLogin

BAD = [("empty", b""), ("NUL", b"ti\0m"), ("not UTF-8", b"\xff")]


class LoginTests(SynchronousTestCase):
    def test_it_asks_for_the_name_and_then_for_the_password(self) -> None:
        exchange = Login()
        self.assertEqual(exchange.start(None), Challenge(b"Username:"))
        self.assertEqual(exchange.respond(b"tim"), Challenge(b"Password:"))
        self.assertEqual(exchange.respond(b"tanstaaftanstaaf"), PlainLogin("tim", "tanstaaftanstaaf"))

    def test_an_initial_response_is_the_name(self) -> None:
        exchange = Login()
        self.assertEqual(exchange.start(b"tim"), Challenge(b"Password:"))
        self.assertEqual(exchange.respond("p\u00e4ss".encode()), PlainLogin("tim", "p\u00e4ss"))

    def test_bad_names_and_passwords_are_malformed(self) -> None:
        for what, octets in BAD:
            with self.assertRaises(Malformed, msg=what):
                Login().start(octets)
            exchange = Login()
            exchange.start(None)
            with self.assertRaises(Malformed, msg=what):
                exchange.respond(octets)
            exchange = Login()
            exchange.start(b"tim")
            with self.assertRaises(Malformed, msg=what):
                exchange.respond(octets)

    def test_it_is_announced_as_login(self) -> None:
        self.assertEqual(Login.name, "LOGIN")
