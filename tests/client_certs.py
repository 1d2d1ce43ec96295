"""Certificates of clients, and a server that asks for them, in memory."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import NameOID
from OpenSSL import SSL
from twisted.trial.unittest import SynchronousTestCase

from mailserver.tls import CertificateSet
from tests.certs import MADE, MemoryClient, client_context, ec_key, key_pem, pem, write_key, write_pair

BOTH = (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)
# OpenSSL compares with its own clock: so wide that it does not matter when the tests run.
LONG = (datetime(2000, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC))


class Authority:
    """Signs certificates for clients."""

    def __init__(self, directory: Path, name: str) -> None:
        self.directory, self.name = directory, name
        self.key = ec_key()
        self.path = directory / f"{name}.pem"
        self.path.write_bytes(pem(self.build(name, self.key, authority=True)))

    def build(
        self,
        common_name: str,
        key: Any,
        *names: x509.GeneralName,
        authority: bool = False,
        valid: tuple[datetime, datetime] = LONG,
        usage: x509.ObjectIdentifier | None = None,
    ) -> x509.Certificate:
        def name(text: str) -> x509.Name:
            return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)] if text else [])

        builder = (
            x509.CertificateBuilder()
            .subject_name(name(common_name))
            .issuer_name(name(self.name))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(valid[0])
            .not_valid_after(valid[1])
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        if usage is not None:
            builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        return builder.sign(self.key, hashes.SHA256())

    def issue(self, common_name: str, *names: x509.GeneralName, **more: Any) -> tuple[x509.Certificate, Path]:
        """A certificate, and a file with it and its key."""
        key = ec_key()
        certificate = self.build(common_name, key, *names, **more)
        number = len(list(self.directory.iterdir()))
        return certificate, write_key(self.directory / f"client{number}.pem", pem(certificate) + key_pem(key))


class ClientsTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        pairs = [
            write_pair(self.directory, "mail", "mail.example.org"),
            write_pair(self.directory, "www", "www.example.net"),
        ]
        self.set = CertificateSet(pairs, now=lambda: MADE)
        self.ours, self.theirs = Authority(self.directory, "ours"), Authority(self.directory, "theirs")
        self.alice, self.alices_file = self.ours.issue("x", x509.RFC822Name("alice@example.org"))

    def context(self, file: Path | None = None, version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
        context = client_context(version=version)
        if file is not None:
            context.load_cert_chain(file)
        return context

    def connect(
        self, creator: Any, context: ssl.SSLContext, name: str | None = None, session: ssl.SSLSession | None = None
    ) -> tuple[MemoryClient, SSL.Connection]:
        server = creator.serverConnectionForTLS(None)
        client = MemoryClient(context, name, session)
        client.handshake(server)
        # In TLS 1.3 a client is done before its certificate has been looked at.
        server.send(b"hello")
        client.incoming.write(server.bio_read(65536))
        assert client.tls.read(5) == b"hello"
        return client, server

    def refused(self, creator: Any, context: ssl.SSLContext, **more: Any) -> str:
        with self.assertRaises(SSL.Error) as caught:
            self.connect(creator, context, **more)
        return str(caught.exception)
