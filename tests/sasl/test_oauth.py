"""Tests of mailserver.sasl.oauth: the examples of RFC 7628 4 and of Google's manual, and what is malformed."""

from __future__ import annotations

import base64
import json

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver.sasl import (
    BearerLogin,
    Challenge,
    Malformed,
    OAuthBearer,
    Outcome,
    RefusableServer,
    WrongProof,
    XOAuth2,
)

TOKEN = "vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg=="
# RFC 7628 4.1, the initial response as it stands there.
RFC_7628 = base64.b64decode(
    "bixhPXVzZXJAZXhhbXBsZS5jb20sAWhvc3Q9c2VydmVyLmV4YW1wbGUuY29tAXBvcnQ9MTQzAWF1dGg9QmVhcmVyIHZGOWRmdDRxbVRjMk52"
    "YjNSbGNrQmhiSFJoZG1semRHRXVZMjl0Q2c9PQEB"
)
# RFC 7628 4.3: no token, to learn the scope.
NO_TOKEN = base64.b64decode("bixhPXVzZXJAZXhhbXBsZS5jb20sAWhvc3Q9c2VydmVyLmV4YW1wbGUuY29tAXBvcnQ9MTQzAWF1dGg9AQE=")
# "The SASL XOAUTH2 Mechanism" of Google's manual.
GOOGLE = base64.b64decode(
    "dXNlcj1zb21ldXNlckBleGFtcGxlLmNvbQFhdXRoPUJlYXJlciB5YTI5LnZGOWRmdDRxbVRjMk52YjNSbGNrQmhkSFJoZG1semRHRXVZMjl0"
    "Q2cBAQ=="
)
CONFIGURATION = "https://example.com/.well-known/openid-config"

#: what it is, message, login
BEARER = [
    ("RFC 7628 4.1", RFC_7628, BearerLogin("user@example.com", TOKEN, "server.example.com", 143)),
    ("no user", b"n,,\x01auth=Bearer abc\x01\x01", BearerLogin("", "abc")),
    ("scheme in another case", b"y,,\x01auth=bEARER  a.b-c_d~e+f/g==\x01\x01", BearerLogin("", "a.b-c_d~e+f/g==")),
    ("unknown fields", b"n,,\x01mthd=POST\x01qs=\x01auth=Bearer abc\x01\x01", BearerLogin("", "abc")),
    ("an IPv6 host", b"n,,\x01host=[::1]\x01auth=Bearer abc\x01\x01", BearerLogin("", "abc", "[::1]")),
]

#: what it is, message of OAUTHBEARER
BAD_BEARER = [
    ("empty", b""),
    ("the dummy response", b"\x01"),
    ("no header", b"auth=Bearer abc\x01\x01"),
    ("channel binding", b"p=tls-exporter,,\x01auth=Bearer abc\x01\x01"),
    ("something behind the header", b"n,,x\x01auth=Bearer abc\x01\x01"),
    ("no fields", b"n,,\x01\x01"),
    ("nothing behind the header", b"n,,"),
    ("one separator at the end", b"n,,\x01auth=Bearer abc\x01"),
    ("none", b"n,,\x01auth=Bearer abc"),
    ("three", b"n,,\x01auth=Bearer abc\x01\x01\x01"),
    ("no key", b"n,,\x01=x\x01auth=Bearer abc\x01\x01"),
    ("a key with a digit", b"n,,\x01a1=x\x01auth=Bearer abc\x01\x01"),
    ("a value beyond ASCII", b"n,,\x01auth=Bearer ab\xffc\x01\x01"),
    ("a NUL", b"n,,\x01auth=Bearer ab\0c\x01\x01"),
    ("two tokens", b"n,,\x01auth=Bearer abc\x01auth=Bearer abd\x01\x01"),
    ("another scheme", b"n,,\x01auth=Basic abc\x01\x01"),
    ("a scheme alone", b"n,,\x01auth=Bearer\x01\x01"),
    ("a blank in the token", b"n,,\x01auth=Bearer a b\x01\x01"),
    ("a line feed behind it", b"n,,\x01auth=Bearer abc\n\x01\x01"),
    ("a host with a blank", b"n,,\x01host=a b\x01auth=Bearer abc\x01\x01"),
    ("a port of 0", b"n,,\x01port=0\x01auth=Bearer abc\x01\x01"),
    ("a port of 65536", b"n,,\x01port=65536\x01auth=Bearer abc\x01\x01"),
    ("a port with a sign", b"n,,\x01port=+25\x01auth=Bearer abc\x01\x01"),
]

BAD_XOAUTH2 = [
    ("empty", b""),
    ("no user", b"auth=Bearer abc\x01\x01"),
    ("an empty user", b"user=\x01auth=Bearer abc\x01\x01"),
    ("a control character in the user", b"user=a\rb\x01auth=Bearer abc\x01\x01"),
    ("a user beyond UTF-8", b"user=\xff\x01auth=Bearer abc\x01\x01"),
    ("no token", b"user=a\x01\x01"),
    ("one separator at the end", b"user=a\x01auth=Bearer abc\x01"),
]


class OAuthTests(SynchronousTestCase):
    def told(self, outcome: Outcome) -> dict[str, str]:
        assert isinstance(outcome, Challenge)
        told = json.loads(outcome.octets)
        assert isinstance(told, dict)
        return told

    def test_messages_of_oauthbearer_are_understood(self) -> None:
        for what, message, login in BEARER:
            self.assertEqual(OAuthBearer().start(message), login, what)
            exchange = OAuthBearer()
            self.assertEqual(exchange.start(None), Challenge(b""))
            self.assertEqual(exchange.respond(message), login, what)

    def test_messages_of_xoauth2_are_understood(self) -> None:
        self.assertEqual(
            XOAuth2().start(GOOGLE),
            BearerLogin("someuser@example.com", "ya29.vF9dft4qmTc2Nvb3RlckBhdHRhdmlzdGEuY29tCg"),
        )

    def test_other_messages_are_malformed(self) -> None:
        for what, message in BAD_BEARER:
            with self.assertRaises(Malformed, msg=what):
                OAuthBearer().start(message)
        for what, message in BAD_XOAUTH2:
            with self.assertRaises(Malformed, msg=what):
                XOAuth2().start(message)

    def test_a_refusal_tells_the_reason_before_the_end(self) -> None:
        bearer = OAuthBearer(scope="example_scope", openid_configuration=CONFIGURATION)
        google = XOAuth2(scope="mail")
        for exchange, message, told, user in [
            (
                bearer,
                RFC_7628,
                {"status": "invalid_token", "scope": "example_scope", "openid-configuration": CONFIGURATION},
                "user@example.com",
            ),
            (OAuthBearer(), RFC_7628, {"status": "invalid_token"}, "user@example.com"),
            (google, GOOGLE, {"status": "401", "schemes": "bearer", "scope": "mail"}, "someuser@example.com"),
        ]:
            self.assertIsInstance(exchange, RefusableServer)
            exchange.start(message)
            self.assertEqual(self.told(exchange.refused()), told)
            # Whatever comes now, it is over.
            for response in (b"\x01", b"", message):
                outcome = exchange.respond(response)
                assert isinstance(outcome, WrongProof)
                self.assertEqual(outcome.user, user)

    def test_without_a_token_the_scope_is_told_at_once(self) -> None:
        exchange = OAuthBearer(scope="example_scope")
        self.assertEqual(self.told(exchange.start(NO_TOKEN)), {"status": "invalid_token", "scope": "example_scope"})
        self.assertIsInstance(exchange.respond(b"\x01"), WrongProof)

    def test_the_token_is_not_shown(self) -> None:
        login = OAuthBearer().start(RFC_7628)
        self.assertIn("user@example.com", repr(login))
        self.assertNotIn(TOKEN, repr(login))
        error = self.assertRaises(Malformed, OAuthBearer().start, RFC_7628 + b"x")
        self.assertNotIn(TOKEN[:8], repr(error))

    @given(
        st.binary(max_size=60)
        | st.lists(st.sampled_from([b"n,,", b"\x01", b"auth=", b"Bearer ", b"abc", b"user=", b"host=", b"="])).map(
            b"".join
        )
    )
    @settings(deadline=None, max_examples=200)
    def test_any_octets_are_a_login_an_error_or_malformed(self, message: bytes) -> None:
        for exchange in (OAuthBearer(), XOAuth2()):
            try:
                outcome = exchange.start(message)
            except Malformed:
                continue
            self.assertIsInstance(outcome, BearerLogin | Challenge)
