"""
Files of certificates and keys: reading them, and judging them before a server starts.

In: two paths, of a certificate (with its chain behind it) and of its private key; both may be one file.  PEM.
Out: `LoadedPair`, or what is wrong as `Finding`s, in words for the owner of the files.
Failures: `CertificateProblem`, which names the file.  Nothing here ever says what stands in a key.

RFC 7468 (PEM), RFC 5280 (certificates), RFC 6125 6.4 (which names count), RFC 8446 4.4.2 (the order of a chain).
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from mailserver.address import AddressError, normal_domain

#: A certificate or key file; a chain of ten is a tenth of it (octets).
MAX_FILE = 1024 * 1024
#: RFC 9325 4.5: the least modulus of an RSA key (bits).
MIN_RSA = 2048

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
#: (certificate, key)
Pair = tuple[Path, Path]

_CERTIFICATE = re.compile(rb"-----BEGIN (?:X509 |TRUSTED )?CERTIFICATE-----")
# Parameters, certificates and comments may stand before the key.
_PRIVATE_KEY = re.compile(rb"-----BEGIN ([A-Z0-9 ]*PRIVATE KEY)-----.*?-----END \1-----", re.DOTALL)


class CertificateProblem(ValueError):  # noqa: N818 - the name says what it is about
    """
    A file cannot be used.  path: which one.  text: why, and what would help; it holds nothing of the file.
    """

    def __init__(self, path: Path, text: str) -> None:
        super().__init__(f"{path}: {text}")
        self.path = path
        self.text = text


@dataclass(frozen=True, slots=True)
class Finding:
    """Something to tell about a file.  warning: it works nevertheless."""

    path: Path
    text: str
    warning: bool = False

    def __str__(self) -> str:
        return f"{self.path}: {self.text}"


@dataclass(frozen=True, slots=True)
class LoadedPair:
    """
    A certificate with its key, which belong together.

    chain: the server's own certificate, then those of its issuers.
    names: what it is for, lower case, A-labels; a wildcard as "*.example.org".
    """

    chain: tuple[x509.Certificate, ...]
    key: PrivateKey = field(repr=False)
    names: tuple[str, ...]


def load_pair(certificate: Path, key: Path) -> LoadedPair:
    """The pair, read and found to belong together.  Raises CertificateProblem: the first thing that is wrong."""
    return _join(certificate, load_chain(certificate), key, _load_key(key))


def inspect_pair(certificate: Path, key: Path, *, now: datetime) -> tuple[LoadedPair | None, list[Finding]]:
    """
    The pair, or None when it cannot be used, and everything there is to tell about its files.  now: aware.
    """
    findings: list[Finding] = []
    chain: tuple[x509.Certificate, ...] = ()
    secret: PrivateKey | None = None
    loaded = None
    try:
        chain = load_chain(certificate)
    except CertificateProblem as problem:
        findings.append(Finding(problem.path, problem.text))
    try:
        secret = _load_key(key)
    except CertificateProblem as problem:
        findings.append(Finding(problem.path, problem.text))
    if chain and secret is not None:
        try:
            loaded = _join(certificate, chain, key, secret)
        except CertificateProblem as problem:
            findings.append(Finding(problem.path, problem.text))
    findings += _warn_of_dates(certificate, chain, now)
    if secret is not None and _is_open_to_all(key):
        findings.append(Finding(key, "the private key is open to every user of this host; chmod o= it", warning=True))
    return loaded, findings


def certificate_names(certificate: x509.Certificate) -> tuple[str, ...]:
    """
    The host names that a certificate is for: dNSName of subjectAltName, or the common name where there is none
    (RFC 6125 6.4.4).  What is no host name is left out.
    """
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        names = extension.value.get_values_for_type(x509.DNSName)
    except (x509.ExtensionNotFound, ValueError):
        names = []
    if not names:
        common = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
        names = [str(each.value) for each in common]
    normal = []
    for name in names:
        star = "*." if name.startswith("*.") else ""
        try:
            normal.append(star + normal_domain(name.removeprefix(star)))
        except AddressError:
            continue
    return tuple(dict.fromkeys(normal))


def _read(path: Path) -> bytes:
    try:
        with open(path, "rb", opener=_open_at_once) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise CertificateProblem(path, "is no regular file")
            content = file.read(MAX_FILE + 1)
    except FileNotFoundError as error:
        raise CertificateProblem(path, "there is no such file") from error
    except PermissionError as error:
        raise CertificateProblem(
            path, f"permission denied; user id {os.geteuid()} must be able to read it"
        ) from error
    except OSError as error:
        raise CertificateProblem(path, f"cannot be read: {error.strerror}") from error
    if not content.strip():
        raise CertificateProblem(path, "is empty")
    if len(content) > MAX_FILE:
        raise CertificateProblem(path, f"is larger than {MAX_FILE} octets; this is no certificate or key")
    if b"-----BEGIN " not in content:
        raise CertificateProblem(path, 'is not PEM; it must hold lines such as "-----BEGIN CERTIFICATE-----"')
    return content


def _open_at_once(path: str, flags: int) -> int:
    """As open(2), but a FIFO that nobody writes to is no reason to wait: check, start and reload would hang in it."""
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY)


def load_chain(path: Path) -> tuple[x509.Certificate, ...]:
    """All certificates of a file, in its order; at least one.  Raises CertificateProblem."""
    content = _read(path)
    if not _CERTIFICATE.search(content):
        raise CertificateProblem(path, "holds no certificate" + ("; it is a key" if b"KEY-----" in content else ""))
    try:
        return tuple(x509.load_pem_x509_certificates(content))
    except ValueError as error:
        raise CertificateProblem(path, "holds a certificate that is damaged") from error


def _load_key(path: Path) -> PrivateKey:
    block = _PRIVATE_KEY.search(_read(path))
    if block is None:
        raise CertificateProblem(path, "holds no private key")
    try:
        key = load_pem_private_key(block[0], None)
    except TypeError:
        # No cause on purpose, here and below: nothing of the key may reach a log.
        raise CertificateProblem(
            path, "the private key is encrypted, and nobody can type its passphrase; decrypt it with: openssl pkey"
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise CertificateProblem(path, "holds a private key that is damaged or of an unknown kind") from None
    if not isinstance(key, PrivateKey):
        raise CertificateProblem(path, "the private key is of a kind that TLS cannot use; take ECDSA or RSA")
    if isinstance(key, rsa.RSAPrivateKey) and key.key_size < MIN_RSA:
        raise CertificateProblem(path, f"the RSA key has {key.key_size} bits; it must have {MIN_RSA} or more")
    return key


def _is_open_to_all(path: Path) -> bool:
    try:
        return bool(stat.S_IMODE(path.stat().st_mode) & 0o007)
    except OSError:  # it was there a moment ago; the next look will tell
        return False


def _join(certificate: Path, chain: tuple[x509.Certificate, ...], key: Path, secret: PrivateKey) -> LoadedPair:
    public = secret.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    belongs = [_public_key(each) == public for each in chain]
    if not belongs[0]:
        if any(belongs):
            raise CertificateProblem(certificate, "the server's own certificate must come first, then its issuers'")
        raise CertificateProblem(key, f"the private key does not belong to the certificate in {certificate}")
    return LoadedPair(chain, secret, certificate_names(chain[0]))


def _public_key(certificate: x509.Certificate) -> bytes:
    try:
        return certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except (ValueError, UnsupportedAlgorithm):
        return b""


def _warn_of_dates(path: Path, chain: tuple[x509.Certificate, ...], now: datetime) -> list[Finding]:
    findings = []
    for number, each in enumerate(chain, 1):
        which = "the certificate" if number == 1 else f"certificate {number} of the chain"
        if now > each.not_valid_after_utc:
            text = f"{which} expired on {_day(each.not_valid_after_utc)}"
        elif now < each.not_valid_before_utc:
            text = f"{which} is not valid before {_day(each.not_valid_before_utc)}"
        else:
            continue
        findings.append(Finding(path, text, warning=True))
    return findings


def _day(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
