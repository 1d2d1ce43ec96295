"""Tests of mailserver.sasl.cram_md5: the exchange of RFC 2195 and the challenge's form."""

from __future__ import annotations

import base64
import hmac

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver.sasl import Challenge, CramLogin, CramMD5, Malformed, make_challenge

# RFC 2195 2, as it stands there.
CHALLENGE = base64.b64decode("PDE4OTYuNjk3MTcwOTUyQHBvc3RvZmZpY2UucmVzdG9uLm1jaS5uZXQ+")
RESPONSE = base64.b64decode("dGltIGI5MTNhNjAyYzdlZGE3YTQ5NWI0ZTZlNzMzNGQzODkw")
DIGEST = "b913a602c7eda7a495b4e6e7334d3890"

#: what it is, response, user
GOOD = [
    ("RFC 2195 2", RESPONSE, "tim"),
    ("a blank in the name", b"tim tom " + DIGEST.encode(), "tim tom"),
    ("UTF-8", "j\u00f6rg ".encode() + DIGEST.encode(), "j\u00f6rg"),
    ("digits in upper case", b"tim " + DIGEST.upper().encode(), "tim"),
]

BAD = [
    ("empty", b""),
    ("no digest", b"tim"),
    ("no user", b" " + DIGEST.encode()),
    ("digest alone", DIGEST.encode()),
    ("31 digits", b"tim " + DIGEST[1:].encode()),
    ("33 digits", b"tim 0" + DIGEST.encode()),
    ("no hexadecimal digit", b"tim g" + DIGEST[1:].encode()),
    ("line feed behind it", b"tim " + DIGEST.encode() + b"\n"),
    ("NUL in the user", b"ti\0m " + DIGEST.encode()),
    ("not UTF-8", b"\xff " + DIGEST.encode()),
]


class CramMD5Tests(SynchronousTestCase):
    def test_responses_are_understood(self) -> None:
        for what, response, user in GOOD:
            exchange = CramMD5(CHALLENGE)
            self.assertEqual(exchange.start(None), Challenge(CHALLENGE), what)
            self.assertEqual(exchange.respond(response), CramLogin(user, CHALLENGE, DIGEST), what)

    def test_the_vector_of_the_rfc_is_an_hmac(self) -> None:
        login = CramMD5(CHALLENGE).respond(RESPONSE)
        assert isinstance(login, CramLogin)
        self.assertEqual(login.digest, hmac.new(b"tanstaaftanstaaf", login.challenge, "md5").hexdigest())

    def test_other_responses_are_malformed(self) -> None:
        for what, response in BAD:
            with self.assertRaises(Malformed, msg=what):
                CramMD5(CHALLENGE).respond(response)

    def test_the_server_speaks_first(self) -> None:
        for initial in (b"", RESPONSE):
            self.assertRaises(Malformed, CramMD5(CHALLENGE).start, initial)

    def test_it_is_announced_as_cram_md5(self) -> None:
        self.assertEqual(CramMD5.name, "CRAM-MD5")


class ChallengeTests(SynchronousTestCase):
    def test_a_challenge_has_random_digits_time_and_host(self) -> None:
        self.assertEqual(
            make_challenge("Mail.Example.org", bytes(15) + b"\x05", 697170952.75), b"<5.697170952@mail.example.org>"
        )

    def test_a_host_name_that_is_none_becomes_localhost(self) -> None:
        for name in ("", "a b", "x>y", "\x00"):
            self.assertTrue(make_challenge(name, bytes(16), 1.0).endswith(b"@localhost>"), name)

    def test_too_little_randomness_is_an_error(self) -> None:
        self.assertRaises(ValueError, make_challenge, "example.org", bytes(15), 1.0)

    @given(st.text(max_size=20), st.binary(min_size=16, max_size=32), st.floats(0, 2e9))
    @settings(deadline=None, max_examples=100)
    def test_any_challenge_is_a_msg_id(self, name: str, random: bytes, now: float) -> None:
        self.assertRegex(make_challenge(name, random, now), rb"\A<[0-9]+\.[0-9]+@[A-Za-z0-9._:\[\]-]+>\Z")
