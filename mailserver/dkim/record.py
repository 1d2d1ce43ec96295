"""
A key record: the TXT in the DNS that holds the public key of a selector.

In: the text of a record, its strings joined.  Out: `KeyRecord`; the text of a record for a key of ours.
Failures: `BadRecord`, with the reason in words of our own: PERMFAIL in RFC 6376 6.1.2.
Strictness: the grammar is taken as it stands.  Of RSA keys both forms are read, the RSAPublicKey that RFC 6376 3.6.1
asks for and the SubjectPublicKeyInfo of its own examples (erratum 3017), which all the world publishes.

RFC 6376 3.6.1 (the tags), 6.1.2 (what is checked); RFC 8301 3.2 (lengths); RFC 8463 4.2 (ed25519).
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from mailserver.dkim.tags import BadTags, parse_base64, parse_list, parse_tags

#: Octets of a record; one with a key of 8192 bits has 1,500.
MOST_RECORD = 16 * 1024
#: RFC 8301 3.2: signatures of shorter RSA keys count for nothing; 2048 is what signers should have.
LEAST_BITS, GOOD_BITS = 1024, 2048
#: RFC 8301 3.2 asks for 4096; longer ones cost the verifier more than they are worth.
MOST_BITS = 8192
#: An exponent has no reason to be longer (65537 is the rule); a huge one makes verifying as slow as signing.
_MOST_EXPONENT = 2**64

_WORD = re.compile(r"[A-Za-z](?:[A-Za-z0-9-]*[A-Za-z0-9])?\Z")


class BadRecord(ValueError):  # noqa: N818 - named for what the record is
    """The record cannot be used; `str()` says why."""


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """
    key_type: "rsa" or "ed25519".  bits: of an RSA key; 0 else.  testing: t=y.  exact: t=s, `i=` must be of the domain
    itself.
    """

    key_type: str
    bits: int
    testing: bool
    exact: bool
    _key: RSAPublicKey | Ed25519PublicKey = field(repr=False, compare=False)

    def verifies(self, signature: bytes, digest: bytes) -> bool:
        """Is `signature` one of the SHA-256 `digest` (RFC 6376 3.3.2, RFC 8463 3)?"""
        try:
            if isinstance(self._key, RSAPublicKey):
                self._key.verify(signature, digest, padding.PKCS1v15(), Prehashed(hashes.SHA256()))
            else:
                self._key.verify(signature, digest)
        except InvalidSignature:
            return False
        return True


def parse_record(text: bytes) -> KeyRecord:
    """
    The key of a record.

    text: all strings of one TXT record, joined without anything between them (RFC 6376 3.6.2.2).
    Raises BadRecord.
    """
    if len(text) > MOST_RECORD:
        raise BadRecord(f"the key record is longer than {MOST_RECORD} octets")
    try:
        return _parse(parse_tags(text))
    except BadTags as error:
        raise BadRecord(f"syntax of the key record: {error}") from error


def _parse(tags: dict[str, str]) -> KeyRecord:
    if "v" in tags and (next(iter(tags)) != "v" or tags["v"] != "DKIM1"):
        raise BadRecord("the key record is of another version, or v= is not its first tag")
    if "p" not in tags:
        raise BadRecord("the key record has no key")
    flags = _words(tags["t"]) if tags.get("t") else ()
    if "h" in tags and "sha256" not in _words(tags["h"]):
        raise BadRecord("the key may not be used with SHA-256")
    if "s" in tags and not {"*", "email"} & {*_words(tags["s"])}:
        raise BadRecord("the key is not for mail")
    if not tags["p"]:
        raise BadRecord("the key has been revoked")
    octets = parse_base64(tags["p"])
    key_type = tags.get("k", "rsa")
    if key_type == "rsa":
        rsa = _rsa(octets)
        return KeyRecord("rsa", rsa.key_size, "y" in flags, "s" in flags, rsa)
    if key_type == "ed25519":
        return KeyRecord("ed25519", 0, "y" in flags, "s" in flags, _ed25519(octets))
    raise BadRecord("a type of key that is not known")


def _words(value: str) -> tuple[str, ...]:
    words = parse_list(value)
    if not all(word == "*" or _WORD.match(word) for word in words):
        raise BadTags("a list has a word that is none")
    return words


def _rsa(octets: bytes) -> RSAPublicKey:
    try:
        key = load_der_public_key(octets)  # it reads both forms
    except (ValueError, UnsupportedAlgorithm) as error:
        raise BadRecord("the key record holds no RSA key") from error
    if not isinstance(key, RSAPublicKey):
        raise BadRecord("the key record holds no RSA key")
    if key.key_size < LEAST_BITS:
        raise BadRecord(f"an RSA key of less than {LEAST_BITS} bits is not safe and counts for nothing (RFC 8301)")
    if key.key_size > MOST_BITS or key.public_numbers().e >= _MOST_EXPONENT:
        raise BadRecord(f"an RSA key of more than {MOST_BITS} bits, or with a huge exponent")
    return key


def _ed25519(octets: bytes) -> Ed25519PublicKey:
    try:
        return Ed25519PublicKey.from_public_bytes(octets)
    except ValueError as error:
        raise BadRecord("the key record holds no Ed25519 key") from error


def record_text(public: RSAPublicKey | Ed25519PublicKey) -> str:
    """The text of the record for a public key, to be published as `SELECTOR._domainkey.DOMAIN` (RFC 6376 3.6.1)."""
    if isinstance(public, Ed25519PublicKey):
        key_type, octets = "ed25519", public.public_bytes(Encoding.Raw, PublicFormat.Raw)
    else:
        key_type, octets = "rsa", public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return f"v=DKIM1; k={key_type}; p={base64.b64encode(octets).decode('ascii')}"
