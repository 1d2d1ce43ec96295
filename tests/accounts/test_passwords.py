"""Tests of mailserver.accounts.passwords: what is kept, what matches, and what is never shown."""

from __future__ import annotations

import hmac
import unicodedata

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from mailserver.accounts import passwords
from mailserver.accounts.passwords import (
    ARGON2_LANES,
    ARGON2_MEMORY,
    ARGON2_TIME,
    DUMMY,
    MAX_PASSWORD,
    BadHash,
    BadPassword,
    hash_password,
    mechanisms_of,
    recognise,
    scheme_of,
    scram_keys,
    strongest,
    verify,
    verify_cram,
)

# All of the password "secret", made by doveadm of Dovecot 2.3.19.
ARGON2ID = (
    "{ARGON2ID}$argon2id$v=19$m=65536,t=3,p=1$LP34s/HjdGlqAs5TTKugYg$AK1x061SZQpxNS1HMpfUtMybEmBD1cxYPdoSkW+VI7M"
)
SHA512_CRYPT = (
    "{SHA512-CRYPT}$6$vtKwP604H1SeFaGc$"
    "3xaB79l3HyPBWaJVSaJ2hCDGemsGLUULRiYbrpaWIrO.HTh..eWd9GdnF7rCEAB7mzWvzkAd23x5gZxF51Gc0/"
)
BLF_CRYPT = "{BLF-CRYPT}$2y$05$/QOpWshXymFlhy2q88ZasudETAUN3UaDCOMwc4H1OSAstlscRt4wy"
CRAM_MD5 = "{CRAM-MD5}cd3ba7deaad6e5ca23448ba42e379747a9e0f7f1fbc00c8a81bbaac395731b56"

# Made by the tests' own hand after RFC 5802 3, with the salt and iterations of RFC 7677 3.
SCRAM = (
    "{SCRAM-SHA-256}4096,W22ZaJ0SNY7soEsUEjb6gQ==,"
    "bpq6mgw3iSqp1KV8rJl0GL6U7zFUFmok4g9ad338qAA=,0lCV+0qJolGHhrHx1tm7nVErmY0Neq9ZEJyq74xtC8g="
)

CHALLENGE = b"<1896.697170952@postoffice.reston.mci.net>"

#: text of a passwd file, the form in which it is kept
RECOGNISED = [
    (ARGON2ID, ARGON2ID),
    (ARGON2ID.replace("ARGON2ID", "argon2id"), ARGON2ID),
    (ARGON2ID.removeprefix("{ARGON2ID}"), ARGON2ID),
    (SHA512_CRYPT, SHA512_CRYPT),
    (SHA512_CRYPT.removeprefix("{SHA512-CRYPT}"), SHA512_CRYPT),
    (SHA512_CRYPT.replace("SHA512-CRYPT", "CRYPT"), SHA512_CRYPT),
    (CRAM_MD5, CRAM_MD5),
    (CRAM_MD5.replace("CRAM-MD5", "HMAC-MD5"), CRAM_MD5),
    (SCRAM, SCRAM),
    (SCRAM.replace("SCRAM-SHA-256", "scram-sha-256"), SCRAM),
]

#: text, a part of why it cannot be imported
UNUSABLE = [
    ("", "without a scheme"),
    ("secret", "without a scheme"),
    ("{CRYPT}rqXexS6ZhobKA", "without a scheme"),
    ("{SSHA256}SoB67UmXFNwK7DaWDbTvKlWtbBSBEbXBVAcxnkd8VWtl", "{SSHA256} is no scheme"),
    ("{PLAIN}secret", "{PLAIN} is no scheme"),
    ("{ARGON2ID}secret", "damaged {ARGON2ID}"),
    (ARGON2ID.replace("m=65536", "m=999999999"), "damaged {ARGON2ID}"),
    (ARGON2ID.replace("t=3", "t=9999"), "damaged {ARGON2ID}"),
    (ARGON2ID.replace("t=3", "t=0"), "damaged {ARGON2ID}"),
    ("{SHA512-CRYPT}$6$salt$short", "damaged {SHA512-CRYPT}"),
    ("{CRAM-MD5}abcdef", "damaged {CRAM-MD5}"),
    ("{SCRAM-SHA-256}secret", "damaged {SCRAM-SHA-256}"),
    (SCRAM.replace("4096", "1000001"), "damaged {SCRAM-SHA-256}"),
]


class HashTests(SynchronousTestCase):
    def test_a_password_is_kept_as_argon2id_and_contexts(self) -> None:
        kept = hash_password("secret")
        self.assertEqual([scheme_of(stored) for stored in kept], ["ARGON2ID", "SCRAM-SHA-256", "CRAM-MD5"])
        self.assertIn(f"$m={ARGON2_MEMORY},t={ARGON2_TIME},p={ARGON2_LANES}$", kept[0])
        self.assertEqual(kept[2], CRAM_MD5)
        self.assertNotIn("secret", "".join(kept))

    def test_contexts_and_keys_are_kept_only_when_wanted(self) -> None:
        for cram_md5, scram_sha_256, schemes in [
            (False, True, ["ARGON2ID", "SCRAM-SHA-256"]),
            (True, False, ["ARGON2ID", "CRAM-MD5"]),
            (False, False, ["ARGON2ID"]),
        ]:
            kept = hash_password("secret", cram_md5=cram_md5, scram_sha_256=scram_sha_256)
            self.assertEqual([scheme_of(stored) for stored in kept], schemes)

    def test_what_saslprep_forbids_can_be_a_password_without_scram(self) -> None:
        kept = hash_password("\U0001f600 smile")
        self.assertEqual([scheme_of(stored) for stored in kept], ["ARGON2ID", "CRAM-MD5"])
        self.assertTrue(verify(kept, "\U0001f600 smile"))
        self.assertIsNone(scram_keys(kept))

    def test_the_same_password_has_another_hash_each_time(self) -> None:
        self.assertNotEqual(hash_password("secret")[0], hash_password("secret")[0])

    def test_the_dummy_takes_the_same_work_and_matches_nothing(self) -> None:
        self.assertIn(f"$m={ARGON2_MEMORY},t={ARGON2_TIME},p={ARGON2_LANES}$", DUMMY)
        self.assertEqual(recognise(DUMMY), DUMMY)
        self.assertEqual(len(DUMMY), len(hash_password("secret")[0]))
        self.assertFalse(verify((DUMMY,), ""))

    def test_some_passwords_may_not_be_set(self) -> None:
        for password, reason in [
            ("", "the password is empty"),
            ("a" * (MAX_PASSWORD + 1), "the password is longer than 1,024 octets"),
            ("sec\0ret", "the password holds a control character"),
            ("sec\nret", "the password holds a control character"),
            ("sec\ud800ret", "the password holds a control character"),
        ]:
            self.assertEqual(str(self.assertRaises(BadPassword, hash_password, password)), reason)

    def test_the_longest_password_may_be_set_and_matches(self) -> None:
        longest = "a" * MAX_PASSWORD
        self.assertTrue(verify(hash_password(longest), longest))
        self.assertFalse(verify(hash_password(longest), longest + "a"))


class VerifyTests(SynchronousTestCase):
    def test_each_scheme_matches_its_password_only(self) -> None:
        for stored in (ARGON2ID, SHA512_CRYPT, SCRAM, CRAM_MD5):
            self.assertTrue(verify((stored,), "secret"), stored)
            self.assertFalse(verify((stored,), "Secret"), stored)
            self.assertFalse(verify((stored,), ""), stored)

    def test_bcrypt_matches_when_it_is_there_and_never_when_not(self) -> None:
        if passwords.bcrypt is None:
            self.assertFalse(verify((BLF_CRYPT,), "secret"))
            raise SkipTest("the package bcrypt is not installed")
        self.assertTrue(verify((BLF_CRYPT,), "secret"))
        self.assertFalse(verify((BLF_CRYPT,), "Secret"))
        self.assertFalse(verify((BLF_CRYPT,), "x" * 200))

    def test_bcrypt_is_not_needed(self) -> None:
        self.patch(passwords, "bcrypt", None)
        self.assertFalse(verify((BLF_CRYPT,), "secret"))
        self.assertIn("bcrypt", str(self.assertRaises(BadHash, recognise, BLF_CRYPT)))
        self.assertEqual(strongest((BLF_CRYPT, CRAM_MD5)), CRAM_MD5)

    def test_the_strongest_scheme_decides_alone(self) -> None:
        other = hash_password("other", cram_md5=False)[0]
        self.assertEqual(strongest((CRAM_MD5, SHA512_CRYPT, other)), other)
        self.assertFalse(verify((CRAM_MD5, SHA512_CRYPT, other), "secret"))
        self.assertTrue(verify((CRAM_MD5, SHA512_CRYPT, other), "other"))

    def test_unknown_and_damaged_hashes_never_match(self) -> None:
        for text, _reason in UNUSABLE:
            self.assertFalse(verify((text,), "secret"), text)
        self.assertFalse(verify((), "secret"))

    def test_the_work_of_an_argon2id_hash_is_always_done(self) -> None:
        done: list[str] = []
        real = passwords._SCHEMES["ARGON2ID"]

        def counted(rest: str, octets: bytes) -> bool:
            done.append(rest)
            return real(rest, octets)

        self.patch(passwords, "_SCHEMES", {**passwords._SCHEMES, "ARGON2ID": counted})
        dummy = DUMMY.removeprefix("{ARGON2ID}")
        for kept, expected in [
            ((), [dummy]),
            (("{SSHA}x",), [dummy]),
            ((CRAM_MD5,), [dummy]),
            ((ARGON2ID,), [ARGON2ID.removeprefix("{ARGON2ID}")]),
        ]:
            done.clear()
            verify(kept, "wrong")
            self.assertEqual(done, expected)

    def test_a_password_matches_however_it_is_composed(self) -> None:
        kept = hash_password("p\u00e4ssw\u00f6rd")
        for form in ("NFC", "NFD", "NFKC", "NFKD"):
            self.assertTrue(verify(kept, unicodedata.normalize(form, "p\u00e4ssw\u00f6rd")), form)
        self.assertFalse(verify(kept, "password"))
        self.assertTrue(verify(hash_password("\ufb01sh"), "fish"))

    def test_passwords_that_scram_takes_for_the_same_are_the_same_for_plain(self) -> None:
        # A soft hyphen, a no-break space and an Ogham blank: SASLprep takes them away or makes them blanks.
        for one, other in [("se\u00adcret", "secret"), ("a\u00a0b", "a b"), ("a\u1680b", "a b")]:
            for first, second in [(one, other), (other, one)]:
                self.assertTrue(verify(hash_password(first), second), (first, second))

    def test_a_hash_of_the_nfkc_alone_still_matches(self) -> None:
        stored = "{CRAM-MD5}" + passwords.md5_contexts.cram_contexts("se\u00adcr\u00e9t".encode())
        self.assertTrue(verify((stored,), "se\u00adcr\u00e9t"))
        self.assertFalse(verify((stored,), "secr\u00e9t"))

    def test_a_password_that_is_too_long_is_not_even_prepared(self) -> None:
        self.patch(passwords.scram, "prepared", lambda _password: self.fail("prepared"))
        self.assertFalse(verify((CRAM_MD5,), "\u00e4" * (MAX_PASSWORD + 1)))

    def test_an_imported_hash_of_a_decomposed_password_matches(self) -> None:
        decomposed = unicodedata.normalize("NFD", "p\u00e4ss")
        stored = "{CRAM-MD5}" + passwords.md5_contexts.cram_contexts(decomposed.encode())
        self.assertTrue(verify((stored,), decomposed))

    def test_a_password_with_a_lone_surrogate_is_wrong_and_no_accident(self) -> None:
        self.assertFalse(verify((CRAM_MD5,), "\ud800"))


class CramTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.digest = hmac.new(b"secret", CHALLENGE, "md5").hexdigest()

    def test_the_digest_of_the_password_matches(self) -> None:
        self.assertTrue(verify_cram((SHA512_CRYPT, CRAM_MD5), CHALLENGE, self.digest))

    def test_other_digests_and_challenges_do_not(self) -> None:
        other = hmac.new(b"Secret", CHALLENGE, "md5").hexdigest()
        for challenge, digest in [
            (CHALLENGE, other),
            (CHALLENGE + b" ", self.digest),
            (CHALLENGE, ""),
            (CHALLENGE, "\u00e4"),
            (CHALLENGE, self.digest[:-1]),
        ]:
            self.assertFalse(verify_cram((CRAM_MD5,), challenge, digest), digest)

    def test_without_usable_contexts_nothing_matches(self) -> None:
        zeros = passwords.md5_contexts.cram_digest("00" * 32, CHALLENGE)
        for kept in ((), (SHA512_CRYPT,), ("{CRAM-MD5}damaged",)):
            self.assertFalse(verify_cram(kept, CHALLENGE, self.digest), kept)
            # Not even what the contexts that stand in for them give.
            self.assertFalse(verify_cram(kept, CHALLENGE, zeros), kept)


class MechanismTests(SynchronousTestCase):
    def test_hashes_tell_by_which_mechanisms_one_can_log_in(self) -> None:
        plain, keys = ("PLAIN", "LOGIN"), ("SCRAM-SHA-256-PLUS", "SCRAM-SHA-256")
        for kept, mechanisms in [
            ((), ()),
            (("{SSHA}x",), ()),
            ((ARGON2ID,), plain),
            ((ARGON2ID, SCRAM), (*keys, *plain)),
            ((SCRAM,), (*keys, *plain)),
            ((CRAM_MD5,), (*plain, "CRAM-MD5")),
            ((ARGON2ID, SCRAM, CRAM_MD5), (*keys, *plain, "CRAM-MD5")),
            (("{SCRAM-SHA-256}damaged", "{CRAM-MD5}damaged"), ()),
        ]:
            self.assertEqual(mechanisms_of(kept), mechanisms, kept)


class RecogniseTests(SynchronousTestCase):
    def test_hashes_get_the_name_under_which_we_keep_them(self) -> None:
        for text, kept in RECOGNISED:
            self.assertEqual(recognise(text), kept)

    def test_bcrypt_is_recognised_by_its_prefix(self) -> None:
        self.patch(passwords, "bcrypt", passwords.bcrypt or object())
        for prefix in ("$2a$", "$2b$", "$2y$"):
            bare = BLF_CRYPT.removeprefix("{BLF-CRYPT}").replace("$2y$", prefix)
            self.assertEqual(recognise(bare), "{BLF-CRYPT}" + bare)
        self.assertRaises(BadHash, recognise, BLF_CRYPT.replace("$05$", "$31$"))

    def test_others_are_refused_with_the_reason_but_without_the_hash(self) -> None:
        for text, reason in UNUSABLE:
            told = str(self.assertRaises(BadHash, recognise, text))
            self.assertIn(reason, told)
            self.assertNotIn("secret", told)
