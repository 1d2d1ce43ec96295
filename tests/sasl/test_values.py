"""Tests of mailserver.sasl.values: nothing secret shows, names are plain text, nobody acts as somebody else."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver.sasl import CramLogin, Malformed, PlainLogin, authzid_allowed
from mailserver.sasl.values import decode_name, decode_text

#: user, authzid, may it be?
AUTHZIDS = [
    ("user@example.org", "", True),
    ("user@example.org", "user@example.org", True),
    ("user@example.org", "USER@Example.ORG", True),
    ("user@b\u00fccher.example", "user@xn--bcher-kva.example", True),
    ("u\u0308ser@example.org", "\u00fcser@example.org", True),
    ("tim", "TIM", True),
    ("user@example.org", "other@example.org", False),
    ("user@example.org", "user@example.net", False),
    ("user@example.org", "user", False),
    ("tim", "tom", False),
]

#: octets, why they are no name
BAD_NAMES = [
    (b"", "a field is empty"),
    (b"a\0b", "a field holds a NUL"),
    (b"a\xffb", "a field is not UTF-8"),
    (b"a\r\nb", "a user name holds a control character"),
    (b"a\x7fb", "a user name holds a control character"),
    ("a\u2028b".encode(), "a user name holds a control character"),
]


class ValuesTests(SynchronousTestCase):
    def test_only_the_own_identity_may_be_taken(self) -> None:
        for user, authzid, allowed in AUTHZIDS:
            self.assertIs(authzid_allowed(PlainLogin(user, "secret", authzid)), allowed, (user, authzid))

    def test_bad_names_are_refused_with_the_reason(self) -> None:
        for octets, reason in BAD_NAMES:
            self.assertEqual(str(self.assertRaises(Malformed, decode_name, octets)), reason, octets)

    def test_names_and_texts_are_utf8(self) -> None:
        self.assertEqual(decode_name("j\u00f6rg@example.org".encode()), "j\u00f6rg@example.org")
        self.assertEqual(decode_text(b"with\ttab and blank "), "with\ttab and blank ")

    def test_no_repr_shows_a_secret(self) -> None:
        for login in (PlainLogin("tim", "tanstaaf"), CramLogin("tim", b"<1@example.org>", "b913a602")):
            self.assertIn("tim", repr(login))
            self.assertNotIn("tanstaaf", repr(login))
            self.assertNotIn("b913a602", repr(login))

    def test_the_error_for_bad_octets_does_not_carry_them(self) -> None:
        error = self.assertRaises(Malformed, decode_text, b"tanstaaf\xff")
        self.assertNotIn("tanstaaf", repr(error))
        self.assertIsNone(error.__cause__)
        self.assertTrue(error.__suppress_context__)

    @given(st.binary(max_size=40))
    @settings(deadline=None, max_examples=100)
    def test_any_octets_are_a_text_or_malformed(self, octets: bytes) -> None:
        try:
            text = decode_text(octets)
        except Malformed:
            return
        self.assertEqual(text.encode(), octets)
