"""Key records: the tags, the forms of a key, and what is refused."""

from __future__ import annotations

import base64
import hashlib

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver.dkim.record import MOST_RECORD, BadRecord, parse_record, record_text
from tests.dkim.vectors import BRISBANE, ED25519, RECORDS, RSA

SPKI = base64.b64decode(BRISBANE.record.partition("p=")[2])
PUBLIC = load_der_public_key(SPKI)
assert isinstance(PUBLIC, RSAPublicKey)
P = base64.b64encode(SPKI).decode()
BARE = base64.b64encode(PUBLIC.public_bytes(Encoding.DER, PublicFormat.PKCS1)).decode()
ED = ED25519.record.partition("p=")[2]

#: text, attribute, value
READ = [
    (f"v=DKIM1; k=rsa; p={P}", "key_type", "rsa"),
    (f"p={P}", "key_type", "rsa"),
    (f"p={P}", "bits", 1024),
    (f"p={BARE}", "bits", 1024),
    (f"v=DKIM1; p={P[:50]} {P[50:90]}\t{P[90:]};", "bits", 1024),
    (f"k=ed25519; p={ED}", "key_type", "ed25519"),
    (f"k=ed25519; p={ED}", "bits", 0),
    (f"p={P}", "testing", False),
    (f"t=y; p={P}", "testing", True),
    (f"t=s; p={P}", "testing", False),
    (f"p={P}", "exact", False),
    (f"t=x : s:y; p={P}", "exact", True),
    (f"t=; p={P}", "exact", False),
    (f"h=sha1 : sha256; p={P}", "bits", 1024),
    (f"s=email; p={P}", "bits", 1024),
    (f"s=other:*; p={P}", "bits", 1024),
    (f"n=a note, with =3B; g=; unknown=x; p={P}", "bits", 1024),
]

#: text, a part of the reason
REFUSED = [
    ("", "syntax"),
    ("v=spf1 mx -all", "another version"),
    ("hello", "syntax"),
    (f"v=DKIM2; p={P}", "version"),
    (f"v=DKIM1.0; p={P}", "version"),
    (f"v=dkim1; p={P}", "version"),
    (f"p={P}; v=DKIM1", "first tag"),
    ("v=DKIM1", "no key"),
    ("v=DKIM1; p=", "revoked"),
    ("v=DKIM1; p= ;", "revoked"),
    (f"v=DKIM1; p={P}; p={P}", "twice"),
    (f"h=sha1; p={P}", "SHA-256"),
    (f"h=; p={P}", "syntax"),
    (f"s=other; p={P}", "not for mail"),
    (f"s=; p={P}", "syntax"),
    (f"t=y y; p={P}", "syntax"),
    (f"k=dsa; p={P}", "not known"),
    (f"k=RSA; p={P}", "not known"),
    (f"k=ed25519; p={P}", "no Ed25519"),
    (f"k=ed25519; p={ED[:-4]}", "no Ed25519"),
    (f"k=rsa; p={ED}", "no RSA"),
    ("p=!!!", "base64"),
    (f"p={P[:-8]}", "no RSA"),
    (f"p={P}\x00", "syntax"),
    (f"p={P};;", "syntax"),
]


def bits(number: int) -> str:
    """A record of an RSA key so long, which need not be a real one: only its length counts."""
    numbers = rsa.RSAPublicNumbers(65537, 2 ** (number - 1) + 1)
    return base64.b64encode(numbers.public_key().public_bytes(Encoding.DER, PublicFormat.PKCS1)).decode()


class RecordTests(SynchronousTestCase):
    def test_what_is_right_is_read(self) -> None:
        for text, attribute, value in READ:
            self.assertEqual(getattr(parse_record(text.encode()), attribute), value, text)

    def test_what_is_wrong_is_refused(self) -> None:
        for text, reason in REFUSED:
            error = self.assertRaises(BadRecord, parse_record, text.encode())
            self.assertIn(reason, str(error), text)

    def test_the_records_of_the_rfcs(self) -> None:
        found = {name: parse_record(b"".join(records[0])).key_type for name, records in RECORDS.items()}
        self.assertEqual([*found.values()], ["ed25519", "rsa", "rsa"])

    def test_rsa_keys_have_1024_to_8192_bits(self) -> None:
        for number in (1024, 4096, 8192):
            self.assertEqual(parse_record(b"p=" + bits(number).encode()).bits, number)
        for number, reason in ((1023, "RFC 8301"), (512, "RFC 8301"), (8193, "more than 8192")):
            self.assertIn(reason, str(self.assertRaises(BadRecord, parse_record, b"p=" + bits(number).encode())))

    def test_a_huge_exponent_is_refused(self) -> None:
        for exponent, taken in ((2**64 - 1, True), (2**64 + 1, False)):
            numbers = rsa.RSAPublicNumbers(exponent, 2**1023 + 1)
            octets = numbers.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
            text = b"p=" + base64.b64encode(octets)
            if taken:
                self.assertEqual(parse_record(text).bits, 1024)
            else:
                self.assertIn("exponent", str(self.assertRaises(BadRecord, parse_record, text)))

    def test_keys_of_other_kinds_are_no_rsa_keys(self) -> None:
        other = ec.generate_private_key(ec.SECP256R1()).public_key()
        octets = other.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        error = self.assertRaises(BadRecord, parse_record, b"p=" + base64.b64encode(octets))
        self.assertIn("no RSA key", str(error))

    def test_a_record_that_is_too_long_is_not_read(self) -> None:
        text = f"p={P}; n=".encode()
        self.assertEqual(parse_record(text + b"x" * (MOST_RECORD - len(text))).bits, 1024)
        error = self.assertRaises(BadRecord, parse_record, text + b"x" * (MOST_RECORD - len(text) + 1))
        self.assertIn("longer than", str(error))

    @given(
        st.one_of(st.binary(max_size=60), st.binary(max_size=60).map(lambda octets: b"p=" + base64.b64encode(octets)))
    )
    @settings(deadline=None, max_examples=300)
    def test_any_octets_are_a_record_or_refused(self, text: bytes) -> None:
        try:
            self.assertIn(parse_record(text).key_type, ("rsa", "ed25519"))
        except BadRecord as error:
            self.assertTrue(str(error))

    def test_a_repr_does_not_end_in_the_key(self) -> None:
        self.assertNotIn("_key=", repr(parse_record(f"p={P}".encode())))


class VerifyTests(SynchronousTestCase):
    def test_a_key_verifies_what_its_private_key_has_signed(self) -> None:
        digest = hashlib.sha256(b"mail").digest()
        for private in (RSA, ED25519):
            key = parse_record(private.record.encode())
            signature = private.sign(digest)
            self.assertTrue(key.verifies(signature, digest))
            self.assertFalse(key.verifies(signature, hashlib.sha256(b"other").digest()))
            for octets in (b"", signature[:-1], signature + b"\x00", bytes(len(signature)), b"\xff" * len(signature)):
                self.assertFalse(key.verifies(octets, digest))

    def test_a_modulus_that_is_none_verifies_nothing(self) -> None:
        numbers = rsa.RSAPublicNumbers(3, 2**1024)
        octets = numbers.public_key().public_bytes(Encoding.DER, PublicFormat.PKCS1)
        key = parse_record(b"p=" + base64.b64encode(octets))
        self.assertFalse(key.verifies(b"\x01" * 128, bytes(32)))


class TextTests(SynchronousTestCase):
    def test_the_text_of_a_key_is_that_of_the_rfcs(self) -> None:
        [[text]] = RECORDS["brisbane._domainkey.football.example.com"]
        self.assertEqual(ED25519.record, text.decode())
        self.assertEqual(RSA.record, b"".join(RECORDS["test._domainkey.football.example.com"][0]).decode())
        self.assertEqual(record_text(PUBLIC), f"v=DKIM1; k=rsa; p={P}")
