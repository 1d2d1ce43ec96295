"""Clients with certificates, driven in memory: who comes in, as whom, that no session goes around it; bindings."""

from __future__ import annotations

import contextlib
import hashlib
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given, settings
from hypothesis import strategies as st
from OpenSSL import SSL
from scramp import ScramClient, ScramMechanism
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mailserver.certificates import client_name, end_point_hash
from mailserver.sasl import Challenge, Scram, ScramKeys, VerifiedLogin
from mailserver.tls import CertificateProblem, CertificateSet, channel_bindings, tls_info
from tests.certs import MADE, MemoryClient, client_context, ec_key, key_pem, pem, write_key, write_pair

BOTH = (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)
# OpenSSL 3; Python has no name for it.
NO_EXTENDED_MASTER_SECRET = 1
MODES = ("request", "require")
# OpenSSL compares with its own clock: so wide that it does not matter when the tests run.
LONG = (datetime(2000, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC))
OVER = (datetime(2000, 1, 1, tzinfo=UTC), datetime(2001, 1, 1, tzinfo=UTC))


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


class Base(SynchronousTestCase):
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


class ModeTests(Base):
    def test_a_verified_client_has_a_name_and_a_fingerprint(self) -> None:
        for mode in MODES:
            creator = self.set.for_clients(mode, self.ours.path)
            verifyObject(IOpenSSLServerConnectionCreator, creator)
            for version in BOTH:
                _, server = self.connect(creator, self.context(self.alices_file, version), "www.example.net")
                info = tls_info(server)
                self.assertEqual(info.client_name, "alice@example.org")
                self.assertEqual(info.client_fingerprint, self.alice.fingerprint(hashes.SHA256()).hex())
                self.assertEqual(info.server_name, "www.example.net")

    def test_without_a_certificate_only_request_goes_on(self) -> None:
        for version in BOTH:
            _, server = self.connect(self.set.for_clients("request", self.ours.path), self.context(None, version))
            self.assertEqual((tls_info(server).client_name, tls_info(server).client_fingerprint), ("", ""))
            told = self.refused(self.set.for_clients("require", self.ours.path), self.context(None, version))
            self.assertIn("peer did not return a certificate", told)

    def test_a_certificate_that_is_not_valid_ends_the_handshake_in_both_modes(self) -> None:
        for what, file in [
            ("another authority", self.theirs.issue("x")[1]),
            ("expired", self.ours.issue("x", valid=OVER)[1]),
            ("for servers only", self.ours.issue("x", usage=ExtendedKeyUsageOID.SERVER_AUTH)[1]),
        ]:
            for mode in MODES:
                for version in BOTH:
                    told = self.refused(self.set.for_clients(mode, self.ours.path), self.context(file, version))
                    self.assertIn("certificate verify failed", told, what)

    def test_the_name_of_the_server_changes_nothing_about_clients(self) -> None:
        creator = self.set.for_clients("require", self.ours.path)
        for name in (None, "mail.example.org", "www.example.net", "unknown.example.com"):
            self.assertIn("peer did not return", self.refused(creator, self.context(), name=name))
            bad = self.context(self.theirs.issue("x")[1])
            self.assertIn("verify failed", self.refused(creator, bad, name=name))
            client, _ = self.connect(creator, self.context(self.alices_file), name)
            self.assertEqual(client.peer_name, "www" if name == "www.example.net" else "mail")

    def test_where_nobody_asks_a_client_shows_nothing(self) -> None:
        self.assertIs(self.set.for_clients("off"), self.set)
        _, server = self.connect(self.set, self.context(self.alices_file))
        self.assertEqual((tls_info(server).client_name, tls_info(server).client_fingerprint), ("", ""))

    def test_listeners_of_the_same_kind_share_and_others_do_not(self) -> None:
        first = self.set.for_clients("require", self.ours.path)
        self.assertIs(self.set.for_clients("require", self.ours.path), first)
        self.assertIsNot(self.set.for_clients("request", self.ours.path), first)
        _, file = self.theirs.issue("x")
        self.connect(self.set.for_clients("require", self.theirs.path), self.context(file))
        self.assertIn("verify failed", self.refused(first, self.context(file)))

    def test_a_certificate_that_our_context_did_not_verify_has_no_name(self) -> None:
        certificate = self.alice

        class Shown:
            """What pyOpenSSL tells of a connection whose certificate nobody judged."""

            _ssl = None

            def get_peer_certificate(self, *, as_cryptography: bool) -> x509.Certificate:
                return certificate

            def get_verify_mode(self) -> int:
                return SSL.VERIFY_NONE

            def __getattr__(self, name: str) -> Any:
                return lambda: None

        self.patch(SSL, "_lib", None)
        info = tls_info(Shown())  # type: ignore[arg-type]
        self.assertEqual((info.client_name, info.client_fingerprint), ("", ""))
        # Nor has one whose result cannot be asked for.
        self.patch(Shown, "get_verify_mode", lambda _self: SSL.VERIFY_PEER)
        self.assertEqual(tls_info(Shown()).client_name, "")  # type: ignore[arg-type]

    def test_wrong_arguments_and_files_are_told(self) -> None:
        self.assertRaises(ValueError, self.set.for_clients, "maybe", self.ours.path)
        self.assertRaises(ValueError, self.set.for_clients, "require")
        missing, empty = self.directory / "missing.pem", self.directory / "empty.pem"
        empty.touch()
        for path, reason in [(missing, "no such file"), (empty, "is empty")]:
            error = self.assertRaises(CertificateProblem, self.set.for_clients, "require", path)
            self.assertIn(reason, str(error))
            self.assertEqual(error.path, path)
        self.assertEqual(self.set.reload(), [])

    def test_a_raised_minimum_holds_for_them_too(self) -> None:
        strict = CertificateSet([(self.directory / "mail.crt", self.directory / "mail.key")], minimum_version="1.3")
        creator = strict.for_clients("request", self.ours.path)
        told = self.refused(creator, self.context(version=ssl.TLSVersion.TLSv1_2))
        self.assertIn("unsupported protocol", told)


class ReloadTests(Base):
    def test_a_renewed_certificate_of_ours_is_shown(self) -> None:
        creator = self.set.for_clients("require", self.ours.path)
        certificate, key = write_pair(self.directory, "renewed", "mail.example.org")
        certificate.replace(self.directory / "mail.crt")
        key.replace(self.directory / "mail.key")
        self.set.reload()
        self.assertEqual(self.connect(creator, self.context(self.alices_file))[0].peer_name, "renewed")

    def test_a_changed_file_of_authorities_counts_from_the_next_connection(self) -> None:
        creator = self.set.for_clients("require", self.ours.path)
        self.assertFalse(self.set.changed())
        self.theirs.path.replace(self.ours.path)
        self.assertTrue(self.set.changed())
        self.assertEqual(self.set.reload(), [])
        self.assertFalse(self.set.changed())
        self.assertIn("verify failed", self.refused(creator, self.context(self.alices_file)))
        self.connect(creator, self.context(self.theirs.issue("x")[1]))

    def test_a_broken_file_of_authorities_keeps_the_old_ones_and_is_told(self) -> None:
        creator = self.set.for_clients("require", self.ours.path)
        self.ours.path.write_bytes(b"broken")
        (finding,) = self.set.reload()
        self.assertEqual((finding.path, finding.warning), (self.ours.path, False))
        self.connect(creator, self.context(self.alices_file))
        self.assertIn("peer did not return", self.refused(creator, self.context()))


class ResumptionTests(Base):
    def session(self, creator: Any, context: ssl.SSLContext) -> ssl.SSLSession | None:
        return self.connect(creator, context)[0].tls.session

    def test_a_session_without_a_certificate_opens_no_listener_that_requires_one(self) -> None:
        required = self.set.for_clients("require", self.ours.path)
        for version in BOTH:
            for creator in (self.set, self.set.for_clients("request", self.ours.path)):
                context = self.context(None, version)
                session = self.session(creator, context)
                self.assertIn("peer did not return", self.refused(required, context, session=session))

    def test_a_session_of_the_plain_set_can_be_resumed_so_the_test_above_can_fail(self) -> None:
        for version in BOTH:
            context = self.context(None, version)
            session = self.session(self.set, context)
            self.assertTrue(self.connect(self.set, context, session=session)[0].tls.session_reused, version)

    def test_a_session_with_a_certificate_is_judged_anew_each_time(self) -> None:
        creator = self.set.for_clients("require", self.ours.path)
        for version in BOTH:
            context = self.context(self.alices_file, version)
            session = self.session(creator, context)
            again, server = self.connect(creator, context, session=session)
            self.assertFalse(again.tls.session_reused, version)
            self.assertFalse(tls_info(server).resumed)
            self.assertEqual(tls_info(server).client_name, "alice@example.org")

    def test_a_session_does_not_outlive_its_authority(self) -> None:
        creator = self.set.for_clients("require", self.ours.path)
        before = self.ours.path.read_bytes()
        for version in BOTH:
            context = self.context(self.alices_file, version)
            session = self.session(creator, context)
            self.ours.path.write_bytes(self.theirs.path.read_bytes())
            self.set.reload()
            self.assertIn("verify failed", self.refused(creator, context, session=session))
            self.ours.path.write_bytes(before)
            self.set.reload()


class NameTests(Base):
    def test_the_name_is_the_first_of_the_best_kind(self) -> None:
        mail, host, other = x509.RFC822Name, x509.DNSName, x509.UniformResourceIdentifier
        for what, common_name, names, expected in [
            ("mail before host", "cn", (host("h.example.org"), mail("a@example.org")), "a@example.org"),
            ("the first mail address", "cn", (mail("a@example.org"), mail("b@example.org")), "a@example.org"),
            ("host before common name", "cn", (host("h.example.org"),), "h.example.org"),
            ("common name", "cn", (), "cn"),
            ("common name beside other kinds", "cn", (other("https://example.org"),), "cn"),
            ("nothing", "", (other("https://example.org"),), ""),
            ("a line feed", "a\nb", (), ""),
            ("too long", "", (host("h" * 256),), ""),
            ("as long as may be", "", (host("h" * 255),), "h" * 255),
            ("no fallback from a bad one", "cn", (host("h\r\n"),), ""),
        ]:
            certificate = self.ours.build(common_name, ec_key(), *names)
            self.assertEqual(client_name(certificate), expected, what)

    @given(st.text(st.characters(blacklist_categories=("Cs",)), min_size=1, max_size=20))
    @settings(deadline=None, max_examples=25)
    def test_any_common_name_is_printable_or_not_told(self, name: str) -> None:
        told = client_name(self.ours.build(name, self.ours.key))
        self.assertEqual(told, name if name.isprintable() else "")


class BindingTests(Base):
    def test_both_ends_have_the_same_bindings(self) -> None:
        shown = x509.load_pem_x509_certificate((self.directory / "www.crt").read_bytes())
        end_point = shown.fingerprint(hashes.SHA256())
        for version in BOTH:
            server = self.set.serverConnectionForTLS(None)
            server.set_accept_state()
            context = SSL.Context(SSL.TLS_CLIENT_METHOD)
            context.set_min_proto_version({BOTH[0]: SSL.TLS1_2_VERSION}.get(version, SSL.TLS1_3_VERSION))
            context.set_max_proto_version({BOTH[0]: SSL.TLS1_2_VERSION}.get(version, SSL.TLS1_3_VERSION))
            client = SSL.Connection(context, None)
            client.set_connect_state()
            client.set_tlsext_host_name(b"www.example.net")
            for _ in range(4):
                for here, there in ((client, server), (server, client)):
                    with contextlib.suppress(SSL.WantReadError):
                        here.do_handshake()
                    with contextlib.suppress(SSL.WantReadError):
                        there.bio_write(here.bio_read(65536))
            exported = client.export_keying_material(b"EXPORTER-Channel-Binding", 32)
            self.assertEqual(
                channel_bindings(server), {"tls-exporter": exported, "tls-server-end-point": end_point}, version
            )
            self.assertEqual(len(exported), 32)

    def test_every_connection_has_another_exporter(self) -> None:
        servers = [self.connect(self.set, self.context())[1] for _ in range(2)]
        self.assertEqual(len({channel_bindings(server)["tls-exporter"] for server in servers}), 2)

    def test_without_the_extended_master_secret_there_is_no_exporter(self) -> None:
        for version, bindings in [
            (ssl.TLSVersion.TLSv1_2, ["tls-server-end-point"]),
            (ssl.TLSVersion.TLSv1_3, ["tls-exporter", "tls-server-end-point"]),
        ]:
            context = self.context(version=version)
            context.options |= NO_EXTENDED_MASTER_SECRET
            _, server = self.connect(self.set, context)
            self.assertEqual(list(channel_bindings(server)), bindings, version)

    def test_the_end_point_is_hashed_as_it_was_signed(self) -> None:
        key = ec_key()
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(x509.Name([]))
            .public_key(key.public_key())
            .serial_number(1)
            .not_valid_before(LONG[0])
            .not_valid_after(LONG[0] + timedelta(days=1))
        )
        for algorithm, digest in [
            (hashes.SHA256(), "sha256"),
            (hashes.SHA384(), "sha384"),
            (hashes.SHA512(), "sha512"),
        ]:
            certificate = builder.sign(key, algorithm)
            self.assertEqual(
                end_point_hash(certificate),
                hashlib.new(digest, certificate.public_bytes(Encoding.DER)).digest(),
                digest,
            )
        self.assertIsNone(end_point_hash(builder.sign(ed25519.Ed25519PrivateKey.generate(), None)))

    def test_scram_plus_holds_over_a_real_connection(self) -> None:
        keys = ScramKeys(*ScramMechanism("SCRAM-SHA-256").make_auth_info("pencil", 4096, bytes(16)))
        client, server = self.connect(self.set, self.context())
        binding = client.tls  # the library hashes the certificate that it was shown
        exchange = Scram(channel_bindings(server), plus=True)
        scram = ScramClient(["SCRAM-SHA-256-PLUS"], "user", "pencil", ("tls-server-end-point", binding))
        exchange.start(scram.get_client_first().encode())
        first = exchange.found(keys)
        assert isinstance(first, Challenge)
        scram.set_server_first(first.octets.decode())
        final = exchange.respond(scram.get_client_final().encode())
        assert isinstance(final, Challenge)
        scram.set_server_final(final.octets.decode())
        self.assertEqual(exchange.respond(b""), VerifiedLogin("user"))
