"""What a handshake has brought: names of clients, and bindings that both ends compute alike."""

from __future__ import annotations

import contextlib
import hashlib
import ssl
from datetime import timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings
from hypothesis import strategies as st
from OpenSSL import SSL
from scramp import ScramClient, ScramMechanism

from mailserver.handshake import channel_bindings, client_name, end_point_hash, tls_info
from mailserver.sasl import Challenge, Scram, ScramKeys, VerifiedLogin
from tests.certs import ec_key
from tests.client_certs import BOTH, LONG, ClientsTestCase

# OpenSSL 3; Python has no name for it.
NO_EXTENDED_MASTER_SECRET = 1


class NameTests(ClientsTestCase):
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

    def test_a_certificate_whose_names_cannot_be_read_has_none(self) -> None:
        for error in (
            ValueError("damaged"),
            x509.DuplicateExtension("twice", x509.ObjectIdentifier("2.5.29.17")),
            x509.UnsupportedGeneralNameType("new"),
        ):

            class Damaged:
                @property
                def extensions(self, error: Exception = error) -> None:
                    raise error

            self.assertEqual(client_name(Damaged()), "", error)  # type: ignore[arg-type]

    def test_a_certificate_that_cannot_be_read_is_none(self) -> None:
        _, server = self.connect(self.set.for_clients("require", self.ours.path), self.context(self.alices_file))

        def unreadable(*_args: object, **_named: object) -> None:
            raise ValueError("a negative serial number")

        self.patch(SSL.Connection, "get_peer_certificate", unreadable)
        self.assertEqual((tls_info(server).client_name, tls_info(server).client_fingerprint), ("", ""))

    @given(st.text(st.characters(blacklist_categories=("Cs",)), min_size=1, max_size=20))
    @settings(deadline=None, max_examples=25)
    def test_any_common_name_is_printable_or_not_told(self, name: str) -> None:
        told = client_name(self.ours.build(name, self.ours.key))
        self.assertEqual(told, name if name.isprintable() else "")


class BindingTests(ClientsTestCase):
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
