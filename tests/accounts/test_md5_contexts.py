"""Tests of mailserver.accounts.md5_contexts, against Dovecot's doveadm and the standard library's HMAC."""

from __future__ import annotations

import hashlib
import hmac

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver.accounts.md5_contexts import cram_contexts, cram_digest, finish

_START = (0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476)

#: password, what `doveadm pw -s CRAM-MD5` of Dovecot 2.3.19 makes of it
DOVECOT = [
    (b"tanstaaftanstaaf", "d06d4e1b26fccaa4b0b61801132340a354b21152711fb604ca3e035e7015116b"),
    (b"secret", "cd3ba7deaad6e5ca23448ba42e379747a9e0f7f1fbc00c8a81bbaac395731b56"),
    ("p\u00e4ssw\u00f6rd".encode(), "4a60bd37924fc5d45b4c92ce695bac86cb234bc3028aab2a71a225cb0dedfbb9"),
    (b"k" * 100, "3ae21d35bcb420cc10d678a30813dfaff1c856d356b2c5f8429dc6087392415f"),
]

#: RFC 1321 A.5
MD5 = [
    (b"", "d41d8cd98f00b204e9800998ecf8427e"),
    (b"a", "0cc175b9c0f1b6a831c399e269772661"),
    (b"abc", "900150983cd24fb0d6963f7d28e17f72"),
    (b"message digest", "f96b697d7cb7938d525a2f31aaf161d0"),
    (b"abcdefghijklmnopqrstuvwxyz", "c3fcd3d76192e4007dfb496cca67e13b"),
    (b"1234567890" * 8, "57edf4a22be3c955ac49da2e2107b67a"),
]


class ContextsTests(SynchronousTestCase):
    def test_our_md5_agrees_with_the_rfc(self) -> None:
        for text, digest in MD5:
            self.assertEqual(finish(_START, 0, text).hex(), digest, text)

    def test_contexts_are_those_of_dovecot(self) -> None:
        for password, contexts in DOVECOT:
            self.assertEqual(cram_contexts(password), contexts, password)

    def test_the_digest_of_rfc_2195_comes_from_the_contexts_alone(self) -> None:
        challenge = b"<1896.697170952@postoffice.reston.mci.net>"
        self.assertEqual(cram_digest(DOVECOT[0][1], challenge), "b913a602c7eda7a495b4e6e7334d3890")

    def test_other_text_is_an_error_that_does_not_quote_it(self) -> None:
        for contexts in ("", "ab" * 31, "ab" * 33, "xy" * 32):
            error = self.assertRaises(ValueError, cram_digest, contexts, b"<1@example.org>")
            self.assertEqual(str(error), "CRAM-MD5 contexts are 64 hexadecimal digits")

    @given(st.binary(max_size=200), st.binary(max_size=200))
    @example(b"k" * 63, b"")
    @example(b"k" * 64, b"c" * 55)
    @example(b"k" * 65, b"c" * 56)
    @example(b"", b"c" * 64)
    @settings(deadline=None, max_examples=100)
    def test_any_password_and_challenge_give_the_hmac(self, password: bytes, challenge: bytes) -> None:
        expected = hmac.new(password, challenge, "md5").hexdigest()
        self.assertEqual(cram_digest(cram_contexts(password), challenge), expected)

    @given(st.binary(max_size=300))
    @settings(deadline=None, max_examples=100)
    def test_any_text_has_the_md5_of_the_standard_library(self, text: bytes) -> None:
        self.assertEqual(finish(_START, 0, text), hashlib.md5(text).digest())
