"""
The certificate of a server that was given none: self-signed, made at the first start, renewed before it ends.

In: a directory of our own, the names of the server, the time.  Out: `self-signed.crt` and `self-signed.key` in it.
Failures: OSError, when the files cannot be written.

ECDSA with P-256, one year.  Clients that want to verify it can take the certificate itself as their anchor
(`curl --cacert`, `swaks --tls-ca-path`): RFC 5280 allows any certificate to be one, also one that is no authority.
It is none on purpose: who trusts it shall trust this server, not everything that its key could sign.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import secrets
import stat
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID

from mailserver.address import normal_domain
from mailserver.certificates import CertificateProblem, load_pair

CERTIFICATE_FILE = "self-signed.crt"
KEY_FILE = "self-signed.key"
#: Below the 825 days that some clients accept at most.
VALID = timedelta(days=365)
#: A new one is made when less than this remains.
RENEW_BEFORE = timedelta(days=30)
#: It is valid from this long before it was made, for peers whose clock is behind.
BACKDATED = timedelta(days=1)

#: RFC 5280 A.1, ub-common-name (characters).
_MAX_COMMON_NAME = 64


def ensure_self_signed(directory: Path, names: Sequence[str], *, now: datetime) -> tuple[Path, Path]:
    """
    (certificate, key) in `directory`, made or renewed if need be.  The arguments are those of `renew_if_needed`.
    """
    renew_if_needed(directory, names, now=now)
    return directory / CERTIFICATE_FILE, directory / KEY_FILE


def renew_if_needed(directory: Path, names: Sequence[str], *, now: datetime) -> bool:
    """
    Write a new pair, with a new key, when there is none, when it ends within 30 days, is for other names, is broken,
    or was open to others.  Returns whether it did.  A long-running server calls this every now and then.

    directory: made with mode 0700 when it is not there.  names: host names and IP addresses, at least one, the
    server's own first.  now: aware.
    Raises OSError; ValueError (AddressError) for what is no name.
    """
    general = _general_names(names)
    certificate, key = directory / CERTIFICATE_FILE, directory / KEY_FILE
    if _is_good(certificate, key, general, now):
        return False
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    secret = ec.generate_private_key(ec.SECP256R1())
    signed = _sign(secret, general, now)
    # The key first: a crash in between leaves a pair that does not match, and the next call makes a new one.
    _write(key, secret.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), 0o600)
    _write(certificate, signed.public_bytes(Encoding.PEM), 0o644)
    return True


def _general_names(names: Sequence[str]) -> list[x509.GeneralName]:
    general: list[x509.GeneralName] = []
    for name in names:
        try:
            general.append(x509.IPAddress(ipaddress.ip_address(name)))
        except ValueError:
            general.append(x509.DNSName(normal_domain(name)))
    return list(dict.fromkeys(general))


def _is_good(certificate: Path, key: Path, general: list[x509.GeneralName], now: datetime) -> bool:
    try:
        leaf = load_pair(certificate, key).chain[0]
        found = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        private = stat.S_IMODE(key.stat().st_mode) & 0o077 == 0
    except (CertificateProblem, x509.ExtensionNotFound, ValueError, OSError):
        return False
    in_time = leaf.not_valid_before_utc <= now < leaf.not_valid_after_utc - RENEW_BEFORE
    return private and in_time and set(found) == set(general)


def _sign(key: ec.EllipticCurvePrivateKey, general: list[x509.GeneralName], now: datetime) -> x509.Certificate:
    common = next((name.value for name in general if isinstance(name, x509.DNSName)), "mailserver")
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common[:_MAX_COMMON_NAME])])
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + VALID)
        .add_extension(x509.SubjectAlternativeName(general), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(identifier, critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier),
            critical=False,
        )
    )
    return builder.sign(key, hashes.SHA256())


def _write(path: Path, content: bytes, mode: int) -> None:
    """The file with this content and mode, all at once; at no moment with a wider mode."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
