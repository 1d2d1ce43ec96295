"""Certificates for tests, and a TLS client in memory: no network, no files but those that are asked for."""

from __future__ import annotations

import contextlib
import ssl
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)
from OpenSSL import SSL

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
#: When the certificates below were made; they are valid for a year.
MADE = datetime(2030, 1, 1, tzinfo=UTC)


@lru_cache
def rsa_key(bits: int = 2048) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, bits)


def ec_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def make_certificate(
    key: Key, names: tuple[str, ...], *, common_name: str = "test", issuer: tuple[str, Key] | None = None
) -> x509.Certificate:
    """issuer: (common name, key); None for a certificate that signs itself, and may sign others."""
    signer_name, signer_key = issuer or (common_name, key)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name)]))
        .issuer_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, signer_name)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(MADE)
        .not_valid_after(MADE + timedelta(days=365))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer_key.public_key()), critical=False)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(list(map(x509.DNSName, names))), critical=False)
    return builder.sign(signer_key, hashes.SHA256())


def pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.PEM)


def key_pem(key: Key, *, password: bytes = b"", old_style: bool = False) -> bytes:
    encryption: KeySerializationEncryption = BestAvailableEncryption(password) if password else NoEncryption()
    style = PrivateFormat.TraditionalOpenSSL if old_style else PrivateFormat.PKCS8
    return key.private_bytes(Encoding.PEM, style, encryption)


def write_key(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    path.chmod(0o600)
    return path


def write_pair(directory: Path, stem: str, *names: str) -> tuple[Path, Path]:
    """A new certificate for the names and its key, as STEM.crt and STEM.key."""
    directory.mkdir(exist_ok=True)
    key = ec_key()
    certificate = directory / f"{stem}.crt"
    certificate.write_bytes(pem(make_certificate(key, names, common_name=stem)))
    return certificate, write_key(directory / f"{stem}.key", key_pem(key))


def client_context(anchor: Path | None = None, *, version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    """A client's context.  anchor: what it trusts; None: it does not verify.  version: the only one, or any."""
    context = ssl.create_default_context(cafile=str(anchor)) if anchor else ssl.create_default_context()
    if anchor is None:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if version is not None:
        context.minimum_version = context.maximum_version = version
    return context


class MemoryClient:
    """The client's end of a TLS connection that is kept in memory."""

    def __init__(
        self, context: ssl.SSLContext, server_name: str | None = None, session: ssl.SSLSession | None = None
    ) -> None:
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname=server_name, session=session)
        self.done = False

    def turn(self, octets: bytes) -> bytes:
        """Take what the server sent, go on with the handshake, and return what there is to send."""
        self.incoming.write(octets)
        if not self.done:
            try:
                self.tls.do_handshake()
                self.done = True
            except ssl.SSLWantReadError:
                pass
        return self.outgoing.read()

    def handshake(self, server: SSL.Connection) -> None:
        """With a pyOpenSSL connection.  Raises what either side raises."""
        server.set_accept_state()
        octets = self.turn(b"")
        for _ in range(4):
            if octets:
                server.bio_write(octets)
            with contextlib.suppress(SSL.WantReadError):
                server.do_handshake()
            answer = b""
            with contextlib.suppress(SSL.WantReadError):
                answer = server.bio_read(65536)
            octets = self.turn(answer)
        if not self.done:
            raise AssertionError("the handshake did not end")

    @property
    def peer(self) -> x509.Certificate:
        """The certificate that the server showed."""
        raw = self.tls.getpeercert(binary_form=True)
        if raw is None:
            raise AssertionError("no certificate")
        return x509.load_der_x509_certificate(raw)

    @property
    def peer_name(self) -> str:
        return str(self.peer.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)[0].value)
