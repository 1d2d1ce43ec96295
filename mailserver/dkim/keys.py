"""
Private keys: read from PEM, made, written as PEM; and what is signed with them.

In: PEM text, perhaps encrypted, or an algorithm.  Out: `PrivateKey`.
Failures: `BadKey`; its text, and every repr, holds nothing of the key or the password.

PEM comes as PKCS 8 (RFC 5958), also encrypted, as PKCS 1 (RFC 8017 A.1.2), also with OpenSSL's old encryption.
RFC 6376 3.3.2 (rsa-sha256), RFC 8463 3 (ed25519-sha256), RFC 8301 3.2 (lengths).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from mailserver.dkim.record import GOOD_BITS, LEAST_BITS, record_text


class Algorithm(StrEnum):
    """What this room signs with; the values are those of `a=`."""

    RSA = "rsa-sha256"
    ED25519 = "ed25519-sha256"


class BadKey(ValueError):  # noqa: N818 - named for what the key is
    """The key cannot be used; `str()` says why, and nothing of the key or its password."""


@dataclass(frozen=True, slots=True)
class PrivateKey:
    """bits: of an RSA key, 0 for Ed25519.  Made by `load_private_key` and `new_private_key`."""

    algorithm: Algorithm
    bits: int
    _key: RSAPrivateKey | Ed25519PrivateKey = field(repr=False, compare=False)

    @property
    def is_short(self) -> bool:
        """An RSA key below the 2048 bits that RFC 8301 3.2 asks signers for: make a new one."""
        return 0 < self.bits < GOOD_BITS

    @property
    def record(self) -> str:
        """The text of its key record: see `mailserver/dkim/record.py`."""
        return record_text(self._key.public_key())

    def sign(self, digest: bytes) -> bytes:
        """The signature of a SHA-256 digest.  It takes 0.5 ms with 2048 bits, 0.05 ms with Ed25519."""
        if isinstance(self._key, Ed25519PrivateKey):
            return self._key.sign(digest)
        return self._key.sign(digest, padding.PKCS1v15(), Prehashed(hashes.SHA256()))

    def pem(self, password: bytes | None = None) -> bytes:
        """The key in PKCS 8, encrypted when there is a password.  Secret."""
        encryption: KeySerializationEncryption = BestAvailableEncryption(password) if password else NoEncryption()
        return self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)


def load_private_key(pem: bytes, password: bytes | None = None) -> PrivateKey:
    """
    The private key in a PEM text.

    password: of an encrypted one; None otherwise.  Raises BadKey: no such key, a wrong or missing password, another
    kind of key, RSA below 1024 bits (RFC 8301 3.2).
    """
    if b"-----BEGIN " not in pem:
        raise BadKey("no key: the text is not PEM")
    try:
        key = load_pem_private_key(pem, password)
    except TypeError:
        # The causes are left out on purpose, here and below: nobody has promised what stands in their texts.
        said = "the key is encrypted, and no password was given" if password is None else "the key is not encrypted"
        raise BadKey(said) from None
    except (ValueError, UnsupportedAlgorithm):
        said = "no private key that can be read" if password is None else "not a private key, or another password"
        raise BadKey(said) from None
    return _private_key(key)


def _private_key(key: object) -> PrivateKey:
    if isinstance(key, Ed25519PrivateKey):
        return PrivateKey(Algorithm.ED25519, 0, key)
    if not isinstance(key, RSAPrivateKey):
        raise BadKey("the key is neither RSA nor Ed25519")
    if key.key_size < LEAST_BITS:
        raise BadKey(f"the RSA key has less than {LEAST_BITS} bits, which nobody accepts (RFC 8301)")
    return PrivateKey(Algorithm.RSA, key.key_size, key)


def new_private_key(algorithm: Algorithm, bits: int = GOOD_BITS) -> PrivateKey:
    """A fresh key.  bits: of RSA, 2048 to 4096; it takes a tenth of a second, or seconds.  Raises BadKey."""
    if algorithm is Algorithm.ED25519:
        return PrivateKey(algorithm, 0, Ed25519PrivateKey.generate())
    if not GOOD_BITS <= bits <= 2 * GOOD_BITS:
        raise BadKey(f"a new RSA key has {GOOD_BITS} to {2 * GOOD_BITS} bits")
    return PrivateKey(algorithm, bits, rsa.generate_private_key(public_exponent=65537, key_size=bits))
