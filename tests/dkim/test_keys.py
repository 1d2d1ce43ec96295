"""Private keys: every form of PEM, errors without secrets, new ones."""

from __future__ import annotations

import hashlib

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from twisted.trial.unittest import SynchronousTestCase

from mailserver.dkim.keys import Algorithm, BadKey, load_private_key, new_private_key
from mailserver.dkim.record import parse_record
from tests.dkim.vectors import BRISBANE, ED25519, ED25519_PEM, RSA, RSA_PEM

PASSWORD = b"password"
#: The Ed25519 key of gen_smtp's own tests: PKCS 8 with PBES2 and 3DES, password "password"; its record.
GEN_SMTP_PEM = b"""\
-----BEGIN ENCRYPTED PRIVATE KEY-----
MIGKME4GCSqGSIb3DQEFDTBBMCkGCSqGSIb3DQEFDDAcBAjWxBqVOoAQmQICCAAw
DAYIKoZIhvcNAgkFADAUBggqhkiG9w0DBwQINxHTI3T4bPEEOFrkHOCl0Y4wOEPa
TEMzq2vB5tqpSVcbbup6BdRGV1f7yDsk+9l9f08m3pZUIbeNgUy1Y9JmUjxU
-----END ENCRYPTED PRIVATE KEY-----
"""
GEN_SMTP_RECORD = "v=DKIM1; k=ed25519; p=HWHDpSxS5ABadBDrOKcpyaImlzV4//pJ3A3UgdLuFMk="

#: 512 bits: made for this test, it guards nothing.
SHORT_PEM = b"""\
-----BEGIN RSA PRIVATE KEY-----
MIIBPQIBAAJBAMc2FRc7/20ICBMjHz2GSa715+f/i7vrlUnZ88QP1NY7TVY6g/Wn
ewTWnuEd7xLja0djdm8QyOR7DkGTRCB/CgsCAwEAAQJBAKCHQUmezH7E6RTayZLf
gsLdX8pA0A5Xkc6YNmn4w+75HnVjrrUjtqqEVOEuvlPf8z4dwFaQl5QhiEvmd2KX
8nECIQD8KOrxNyc++6tffJCMJqr5PEwn1SwFTgz0pvmoKml4aQIhAMo+vKBbUc0u
wZrMk3orERBj/6TxXdur1MW2HswMRQBTAiEA8PeZLNHr60BNUH6VE5mQIYUBsb8A
xkEEGHfIdG+zQqECIQCvmpmdgq0cQyTHjCnhQdOnL6yhQxID0scEhIVpFp4zEQIh
AKUlI8yL1TYGFSnSZBleDaMobPIO4B1D4MeoghVarM4R
-----END RSA PRIVATE KEY-----
"""


def rsa_as(form: PrivateFormat, password: bytes | None) -> bytes:
    encryption = BestAvailableEncryption(password) if password else NoEncryption()
    return load_pem_private_key(RSA_PEM, None).private_bytes(Encoding.PEM, form, encryption)


class LoadingTests(SynchronousTestCase):
    def test_every_form_of_pem_gives_the_same_key(self) -> None:
        for form in (PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL):
            for password in (None, PASSWORD):
                pem = rsa_as(form, password)
                self.assertEqual(b"ENCRYPTED" in pem, password is not None)
                key = load_private_key(pem, password)
                self.assertEqual((key.record, key.algorithm, key.bits), (RSA.record, Algorithm.RSA, 1024))

    def test_ed25519_keys(self) -> None:
        for pem, password in ((ED25519_PEM, None), (ED25519.pem(PASSWORD), PASSWORD)):
            key = load_private_key(pem, password)
            self.assertEqual((key.record, key.algorithm, key.bits), (ED25519.record, Algorithm.ED25519, 0))

    def test_the_encrypted_key_of_gen_smtp(self) -> None:
        self.assertEqual(load_private_key(GEN_SMTP_PEM, PASSWORD).record, GEN_SMTP_RECORD)

    def test_errors_say_what_is_wrong_and_nothing_of_the_secrets(self) -> None:
        secret = b"open sesame"
        other = ec.generate_private_key(ec.SECP256R1())
        short = rsa.generate_private_key(public_exponent=65537, key_size=1024)
        for pem, password, reason in [
            (b"", None, "not PEM"),
            (b"MIICXQIBAAKBgQDkHlOQoBTzWRiGs5V6NpP3idY6", None, "not PEM"),
            (RSA_PEM[:200], None, "no private key"),
            (RSA_PEM.replace(b"MIIC", b"AAAA"), None, "no private key"),
            (rsa_as(PrivateFormat.PKCS8, PASSWORD), None, "no password was given"),
            (rsa_as(PrivateFormat.TraditionalOpenSSL, PASSWORD), None, "no password was given"),
            (rsa_as(PrivateFormat.PKCS8, PASSWORD), secret, "another password"),
            (rsa_as(PrivateFormat.TraditionalOpenSSL, PASSWORD), secret, "another password"),
            (RSA_PEM, secret, "not encrypted"),
            (other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), None, "neither RSA nor Ed25519"),
            (
                short.public_key().public_bytes(Encoding.PEM, PublicFormat.PKCS1),
                None,
                "no private key",
            ),
        ]:
            error = self.assertRaises(BadKey, load_private_key, pem, password)
            self.assertIn(reason, str(error))
            told = f"{error!r} {error.__cause__!r}"
            for word in (secret.decode(), PASSWORD.decode() + "'", *pem.decode().split()):
                if len(word) > 20 or word == secret.decode():
                    self.assertNotIn(word, told)
            self.assertTrue(error.__suppress_context__ or error.__context__ is None)

    def test_less_than_1024_bits_are_refused(self) -> None:
        error = self.assertRaises(BadKey, load_private_key, SHORT_PEM)
        self.assertIn("1024 bits", str(error))

    def test_short_keys_are_told(self) -> None:
        self.assertEqual([RSA.is_short, BRISBANE.is_short, ED25519.is_short], [True, True, False])


class SecrecyTests(SynchronousTestCase):
    def test_no_repr_shows_a_key(self) -> None:
        for key in (RSA, ED25519):
            self.assertNotIn("_key", repr(key))
            self.assertNotIn("PRIVATE", repr(key))


class NewKeysTests(SynchronousTestCase):
    def test_a_new_key_signs_what_its_record_verifies(self) -> None:
        digest = hashlib.sha256(b"mail").digest()
        for algorithm, bits in ((Algorithm.RSA, 2048), (Algorithm.ED25519, 0)):
            key = new_private_key(algorithm)
            self.assertEqual((key.algorithm, key.bits, key.is_short), (algorithm, bits, False))
            self.assertTrue(parse_record(key.record.encode()).verifies(key.sign(digest), digest))
            self.assertEqual(load_private_key(key.pem()).record, key.record)
            self.assertEqual(load_private_key(key.pem(PASSWORD), PASSWORD).record, key.record)
            self.assertIn(b"ENCRYPTED", key.pem(PASSWORD))

    def test_lengths_that_nobody_should_use_are_refused(self) -> None:
        for bits in (0, 1024, 2047, 4097, 16_384):
            self.assertRaises(BadKey, new_private_key, Algorithm.RSA, bits)

    def test_signatures_are_deterministic(self) -> None:
        digest = hashlib.sha256(b"mail").digest()
        for key in (RSA, ED25519):
            self.assertEqual(key.sign(digest), key.sign(digest))
