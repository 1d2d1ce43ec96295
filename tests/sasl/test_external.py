"""Tests of mailserver.sasl.external: the examples of RFC 4422 A.4 and what is malformed."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver.sasl import Challenge, External, ExternalLogin, Malformed, authzid_allowed

USER = "fred@example.org"


class ExternalTests(SynchronousTestCase):
    def test_the_certificate_says_who_it_is(self) -> None:
        self.assertEqual(External(USER).start(b""), ExternalLogin(USER))
        self.assertEqual(External(USER).name, "EXTERNAL")

    def test_without_an_initial_response_there_is_an_empty_challenge(self) -> None:
        exchange = External(USER)
        self.assertEqual(exchange.start(None), Challenge(b""))
        self.assertEqual(exchange.respond(b""), ExternalLogin(USER))

    def test_the_response_is_the_authorization_identity(self) -> None:
        for authzid, allowed in [("FRED@example.org", True), ("other@example.org", False)]:
            login = External(USER).start(authzid.encode())
            assert isinstance(login, ExternalLogin)
            self.assertEqual(login, ExternalLogin(USER, authzid))
            self.assertIs(authzid_allowed(login), allowed, authzid)

    def test_other_responses_are_malformed(self) -> None:
        for response in (b"\0", b"a\0b", b"\xff", b"a\nb"):
            self.assertRaises(Malformed, External(USER).start, response)

    def test_nobody_is_no_identity(self) -> None:
        self.assertRaises(ValueError, External, "")

    @given(st.binary(max_size=30))
    @settings(deadline=None, max_examples=100)
    def test_no_response_changes_the_user(self, response: bytes) -> None:
        try:
            login = External(USER).start(response)
        except Malformed:
            return
        assert isinstance(login, ExternalLogin)
        self.assertEqual((login.user, login.authzid.encode()), (USER, response))
