"""Tests of mailserver.accounts.sha512_crypt: the vectors of its specification, and what must not match."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver.accounts.sha512_crypt import ACCEPTED_ROUNDS, matches, sha512_crypt, well_formed

#: salt, rounds, password, hash: from U. Drepper's sha512crypt.c
VECTORS = [
    (
        "saltstring",
        None,
        b"Hello world!",
        "$6$saltstring$svn8UoSVapNtMuq1ukKS4tPQd8iKwSMHWjl/O817G3uBnIFNjnQJuesI68u4OTLiBFdcbYEdFCoEOfaS35inz1",
    ),
    (
        "saltstringsaltstring",
        10_000,
        b"Hello world!",
        (
            "$6$rounds=10000$saltstringsaltst$"
            "OW1/O6BYHV6BcXZu8QVeXbDWra3Oeqh0sbHbbMCVNSnCM/UrjmM0Dp8vOuZeHBy/YTBmSK6H9qs/y3RnOaw5v."
        ),
    ),
    (
        "toolongsaltstring",
        5_000,
        b"This is just a test",
        (
            "$6$rounds=5000$toolongsaltstrin$"
            "lQ8jolhgVRVhY4b5pZKaysCLi0QBxGoNeKQzQ3glMhwllF7oGDZxUhx1yxdYcz/e1JSbq3y6JMxxl8audkUEm0"
        ),
    ),
    (
        "anotherlongsaltstring",
        1_400,
        b"a very much longer text to encrypt.  This one even stretches over morethan one line.",
        (
            "$6$rounds=1400$anotherlongsalts$"
            "POfYwTEok97VWcjxIiSOjiykti.o/pQs.wPvMxQ6Fm7I6IoYN3CmLs66x9t0oSwbtEW7o7UmJEiDwGqd8p4ur1"
        ),
    ),
    (
        "short",
        77_777,
        b"we have a short salt string but not a short password",
        (
            "$6$rounds=77777$short$"
            "WuQyW2YR.hBNpjjRhpYD/ifIw05xdfeEyQoMxIXbkvr0gge1a1x3yRULJ5CCaUeOxFmtlcGZelFl5CxtgfiAc0"
        ),
    ),
    (
        "roundstoolow",
        10,
        b"the minimum number is still observed",
        (
            "$6$rounds=1000$roundstoolow$"
            "kUMsbe306n21p9R.FRkW3IGn.S9NPN0x50YhH1xhLsPuWGsUSklZt58jaTfF4ZEQpyUNGc0dqbpBYYBaHHrsX."
        ),
    ),
]

#: what `doveadm pw -s SHA512-CRYPT -p secret` of Dovecot 2.3.19 gave once
DOVECOT = "$6$vtKwP604H1SeFaGc$3xaB79l3HyPBWaJVSaJ2hCDGemsGLUULRiYbrpaWIrO.HTh..eWd9GdnF7rCEAB7mzWvzkAd23x5gZxF51Gc0/"


class Sha512CryptTests(SynchronousTestCase):
    def test_the_vectors_of_the_specification(self) -> None:
        for salt, rounds, password, expected in VECTORS:
            self.assertEqual(sha512_crypt(password, salt, rounds), expected, salt)

    def test_a_hash_of_dovecot_matches_its_password_only(self) -> None:
        self.assertTrue(matches(DOVECOT, b"secret"))
        self.assertFalse(matches(DOVECOT, b"Secret"))
        self.assertFalse(matches(DOVECOT, b""))

    def test_text_of_another_form_never_matches(self) -> None:
        bad = [
            "",
            "secret",
            "$6$",
            DOVECOT[:-1],
            DOVECOT + "a",
            DOVECOT + "\n",
            DOVECOT.replace("$6$", "$5$"),
            DOVECOT.replace("$6$", "$6$rounds=1000000000$"),
            DOVECOT.replace("$6$", "$6$rounds=x$"),
        ]
        for stored in bad:
            self.assertFalse(well_formed(stored), stored)
            self.assertFalse(matches(stored, b"secret"), stored)

    def test_a_hash_with_too_many_rounds_is_not_computed(self) -> None:
        self.assertTrue(well_formed(DOVECOT.replace("$6$", f"$6$rounds={ACCEPTED_ROUNDS}$")))
        self.assertFalse(matches(DOVECOT.replace("$6$", f"$6$rounds={ACCEPTED_ROUNDS + 1}$"), b"secret"))

    @given(st.binary(max_size=80), st.text("abcXYZ019./", max_size=16))
    @settings(deadline=None, max_examples=25)
    def test_what_is_made_matches(self, password: bytes, salt: str) -> None:
        stored = sha512_crypt(password, salt, 1_000)
        self.assertTrue(matches(stored, password))
        self.assertFalse(matches(stored, password + b"x"))
