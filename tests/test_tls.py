"""The server's side of TLS, driven by a client in memory: names, versions, ciphers, resumption, reload, watch."""

from __future__ import annotations

import contextlib
import gc
import os
import ssl
from datetime import timedelta
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import LogLevel, capturedLogs
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mailserver.tls import (
    TICKET_KEYS,
    CertificateProblem,
    CertificateSet,
    CertificateWatch,
    check_pair,
    tls_info,
)
from tests.certs import (
    MADE,
    MemoryClient,
    client_context,
    ec_key,
    key_pem,
    make_certificate,
    pem,
    rsa_key,
    write_key,
    write_pair,
)

BOTH = (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)


class Base(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        self.default = self.pair("default", "mail.example.org")
        self.exact = self.pair("exact", "www.example.net", "exact.example.org")
        self.wildcard = self.pair("wildcard", "*.example.org", "mail.example.org")
        self.set = self.make(self.default, self.exact, self.wildcard)

    def pair(self, stem: str, *names: str) -> tuple[Path, Path]:
        return write_pair(self.directory, stem, *names)

    def make(self, *pairs: tuple[Path, Path], minimum_version: str = "1.2") -> CertificateSet:
        return CertificateSet(pairs, minimum_version=minimum_version, now=lambda: MADE + timedelta(days=1))

    def connect(
        self, name: str | None = None, context: ssl.SSLContext | None = None
    ) -> tuple[MemoryClient, SSL.Connection]:
        server = self.set.serverConnectionForTLS(None)
        client = MemoryClient(context or client_context(), name)
        client.handshake(server)
        return client, server

    def shown(self, name: str | None = None) -> str:
        return self.connect(name)[0].peer_name


class NameTests(Base):
    def test_the_certificate_is_chosen_by_name(self) -> None:
        for name, expected in [
            (None, "default"),
            ("mail.example.org", "default"),
            ("www.example.net", "exact"),
            ("WWW.Example.NET", "exact"),
            ("exact.example.org", "exact"),
            ("other.example.org", "wildcard"),
            ("a.b.example.org", "default"),
            ("example.org", "default"),
            ("unknown.example.com", "default"),
            ("xn--bcher-kva.example.org", "wildcard"),
        ]:
            self.assertEqual(self.shown(name), expected, name)

    def test_both_versions_choose_alike(self) -> None:
        for version in BOTH:
            client, _ = self.connect("www.example.net", client_context(version=version))
            self.assertEqual(client.peer_name, "exact")

    @settings(deadline=None, max_examples=200)
    @given(
        st.one_of(st.none(), st.binary(max_size=300), st.sampled_from([b".", b"..", b"*", b"*.example.org", b"\xff"]))
    )
    def test_no_server_name_raises(self, name: bytes | None) -> None:
        self.assertIsInstance(self.set._find(name), SSL.Context)

    def test_a_trailing_dot_is_ignored(self) -> None:
        self.assertIs(self.set._find(b"www.example.net."), self.set._find(b"www.example.net"))
        self.assertIsNot(self.set._find(b"www.example.net"), self.set._default)

    def test_names_and_end(self) -> None:
        self.assertEqual(
            self.set.names,
            (("mail.example.org",), ("www.example.net", "exact.example.org"), ("*.example.org", "mail.example.org")),
        )
        self.assertEqual(self.set.expires, MADE + timedelta(days=365))

    def test_the_chain_is_sent_and_verified(self) -> None:
        issuer, own = ec_key(), rsa_key()
        authority = make_certificate(issuer, (), common_name="issuer")
        leaf = make_certificate(own, ("mail.example.org",), common_name="leaf", issuer=("issuer", issuer))
        certificate = self.directory / "chain.crt"
        certificate.write_bytes(pem(leaf) + pem(authority))
        self.set = self.make((certificate, write_key(self.directory / "chain.key", key_pem(own))))
        server = self.set.serverConnectionForTLS(None)
        server.set_accept_state()
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        client = SSL.Connection(context, None)
        client.set_connect_state()
        for _ in range(4):
            for here, there in ((client, server), (server, client)):
                with contextlib.suppress(SSL.WantReadError):
                    here.do_handshake()
                with contextlib.suppress(SSL.WantReadError):
                    there.bio_write(here.bio_read(65536))
        self.assertEqual(client.get_peer_cert_chain(as_cryptography=True), [leaf, authority])


class VersionTests(Base):
    def test_both_versions_with_forward_secrecy(self) -> None:
        for version, cipher in zip(BOTH, ("ECDHE-ECDSA-AES128-GCM-SHA256", "TLS_AES_128_GCM_SHA256"), strict=True):
            client, server = self.connect("mail.example.org", client_context(version=version))
            info = tls_info(server)
            self.assertEqual((info.version, info.cipher), (client.tls.version(), cipher))
            self.assertEqual((info.bits, info.server_name, info.resumed), (128, "mail.example.org", False))

    def test_the_minimum_can_be_raised(self) -> None:
        self.set = self.make(self.default, minimum_version="1.3")
        self.assertEqual(self.connect()[0].tls.version(), "TLSv1.3")
        with self.assertRaises(SSL.Error) as caught:
            self.connect(context=client_context(version=ssl.TLSVersion.TLSv1_2))
        self.assertIn("unsupported protocol", str(caught.exception))

    def test_old_versions_are_refused(self) -> None:
        for version in (SSL.TLS1_VERSION, SSL.TLS1_1_VERSION):
            hello = SSL.Context(SSL.TLS_CLIENT_METHOD)
            hello.set_cipher_list(b"ALL:@SECLEVEL=0")
            hello.set_min_proto_version(version)
            hello.set_max_proto_version(version)
            client = SSL.Connection(hello, None)
            client.set_connect_state()
            with self.assertRaises(SSL.WantReadError):
                client.do_handshake()
            server = self.set.serverConnectionForTLS(None)
            server.set_accept_state()
            server.bio_write(client.bio_read(65536))
            with self.assertRaises(SSL.Error) as caught:
                server.do_handshake()
            self.assertIn("unsupported protocol", str(caught.exception))

    def test_weak_ciphers_are_refused(self) -> None:
        for ciphers in (
            "ECDHE-ECDSA-AES128-SHA",
            "AES128-GCM-SHA256",
            "ECDHE-ECDSA-AES256-SHA384",
            "DHE-RSA-AES128-GCM-SHA256",
        ):
            context = client_context(version=ssl.TLSVersion.TLSv1_2)
            context.set_ciphers(ciphers + ":@SECLEVEL=0")
            with self.assertRaises(SSL.Error, msg=ciphers) as caught:
                self.connect(context=context)
            self.assertIn("no shared cipher", str(caught.exception))

    def test_an_unknown_minimum_and_no_pairs_are_errors(self) -> None:
        with self.assertRaises(ValueError):
            self.make(self.default, minimum_version="1.1")
        with self.assertRaises(ValueError):
            self.make()

    def test_a_server_name_that_could_break_a_log_line_is_not_told(self) -> None:
        class Connection:
            name = b""

            def get_servername(self) -> bytes:
                return self.name

            def get_cipher_name(self) -> None:
                return None

            get_cipher_bits = get_cipher_name

            def get_peer_certificate(self, *, as_cryptography: bool) -> None:
                return None

            def get_protocol_version_name(self) -> str:
                return "Unknown"

        for name, told in [(b"A.example.org", "a.example.org"), (b"a\r\nX: y", ""), (b"\xff", ""), (b"a" * 256, "")]:
            Connection.name = name
            info = tls_info(Connection())  # type: ignore[arg-type]
            self.assertEqual((info.server_name, info.cipher, info.bits, info.resumed), (told, "", 0, False))


class ResumptionTests(Base):
    def resume(self, version: ssl.TLSVersion, name: str, *, reload: bool = False) -> bool:
        context = client_context(version=version)
        first, server = self.connect(name, context)
        server.send(b"hello")
        first.incoming.write(server.bio_read(65536))
        first.tls.read(5)  # the tickets of TLS 1.3 come with the first data
        if reload:
            self.set.reload()
        second = MemoryClient(context, name, first.tls.session)
        again = self.set.serverConnectionForTLS(None)
        second.handshake(again)
        self.assertEqual(tls_info(again).resumed, second.tls.session_reused)
        return bool(second.tls.session_reused)

    def test_sessions_are_resumed_whatever_the_name(self) -> None:
        for version in BOTH:
            for name in ("mail.example.org", "www.example.net", "other.example.org", "unknown.example.com"):
                self.assertTrue(self.resume(version, name), f"{version} {name}")

    def test_sessions_outlive_a_reload(self) -> None:
        for version in BOTH:
            self.assertTrue(self.resume(version, "www.example.net", reload=True), version)


class ReloadTests(Base):
    def renew(self, stem: str, common_name: str, *names: str) -> None:
        """Write a new pair for the names over the files of `stem`; its common name shows that it is new."""
        certificate, key = write_pair(self.directory, common_name, *names)
        certificate.replace(self.directory / f"{stem}.crt")
        key.replace(self.directory / f"{stem}.key")

    def test_a_renewed_pair_is_used_for_new_connections(self) -> None:
        old, _ = self.connect("www.example.net")
        self.renew("exact", "renewed", "www.example.net")
        self.assertEqual(self.shown("www.example.net"), "exact")
        self.assertEqual(self.set.reload(), [])
        self.assertEqual(self.shown("www.example.net"), "renewed")
        self.assertEqual(self.shown("exact.example.org"), "wildcard")
        self.assertEqual(old.peer_name, "exact")

    def test_a_renewed_default_is_used_for_clients_without_a_name(self) -> None:
        self.renew("default", "renewed", "mail.example.org")
        self.set.reload()
        self.assertEqual((self.shown(None), self.shown("unknown.example.com")), ("renewed", "renewed"))

    def test_a_running_connection_goes_on(self) -> None:
        client, server = self.connect("www.example.net")
        self.renew("exact", "renewed", "www.example.net")
        self.set.reload()
        server.send(b"still here")
        client.incoming.write(server.bio_read(65536))
        self.assertEqual(client.tls.read(10), b"still here")

    def test_a_connection_in_its_handshake_gets_the_new_one(self) -> None:
        server = self.set.serverConnectionForTLS(None)
        self.renew("exact", "renewed", "www.example.net")
        self.set.reload()
        client = MemoryClient(client_context(), "www.example.net")
        client.handshake(server)
        self.assertEqual(client.peer_name, "renewed")

    def test_a_broken_pair_keeps_the_old_one_and_is_told(self) -> None:
        self.renew("wildcard", "renewed", "*.example.org")
        self.exact[0].write_bytes(b"broken")
        (finding,) = self.set.reload()
        self.assertEqual((finding.path, finding.warning), (self.exact[0], False))
        self.assertEqual(self.shown("www.example.net"), "exact")
        self.assertEqual(self.shown("other.example.org"), "renewed")

    def test_a_certificate_whose_key_comes_later_is_taken_up_when_it_comes(self) -> None:
        certificate, key = write_pair(self.directory, "renewed", "www.example.net")
        certificate.replace(self.exact[0])
        self.assertTrue(self.set.changed())
        (finding,) = self.set.reload()
        self.assertEqual(finding.path, self.exact[1])
        self.assertFalse(self.set.changed())
        key.replace(self.exact[1])
        self.assertTrue(self.set.changed())
        self.assertEqual(self.set.reload(), [])
        self.assertEqual(self.shown("www.example.net"), "renewed")

    def test_every_kind_of_change_is_seen(self) -> None:
        self.assertFalse(self.set.changed())
        path = self.wildcard[0]
        status = path.stat()
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
        self.assertTrue(self.set.changed())
        self.set.reload()
        path.unlink()
        self.assertTrue(self.set.changed())
        self.set.reload()
        self.assertFalse(self.set.changed())

    def test_other_pairs_can_be_given(self) -> None:
        fresh = self.pair("fresh", "fresh.example.com")
        broken = (self.directory / "missing.crt", self.directory / "missing.key")
        findings = self.set.reload([self.wildcard, fresh, broken])
        self.assertEqual([finding.path for finding in findings], list(broken))
        self.assertEqual(self.shown(None), "wildcard")
        self.assertEqual(self.shown("fresh.example.com"), "fresh")
        self.assertEqual(self.shown("www.example.net"), "wildcard")
        self.set.reload([broken])
        self.assertEqual(self.shown("fresh.example.com"), "fresh")

    def test_a_broken_pair_at_the_start_is_an_error(self) -> None:
        self.exact[1].unlink()
        with self.assertRaises(CertificateProblem) as caught:
            self.make(self.default, self.exact)
        self.assertEqual(caught.exception.path, self.exact[1])

    def test_the_set_outlives_its_owner_while_a_handshake_runs(self) -> None:
        server = self.set.serverConnectionForTLS(None)
        del self.set
        gc.collect()
        client = MemoryClient(client_context(), "www.example.net")
        client.handshake(server)
        self.assertEqual(client.peer_name, "exact")


class CheckTests(Base):
    def test_a_good_and_an_expired_pair(self) -> None:
        self.assertEqual(check_pair(*self.default, now=MADE), [])
        (finding,) = check_pair(*self.default, now=MADE + timedelta(days=400))
        self.assertTrue(finding.warning)

    def test_what_openssl_refuses_is_a_finding(self) -> None:
        # What that is depends on OpenSSL's version and security level, so it is played.
        self.patch(SSL.Context, "use_certificate", self.refuse)
        (finding,) = check_pair(*self.default, now=MADE)
        self.assertEqual(str(finding), f"{self.default[0]}: OpenSSL does not take the certificate: ee key too small")

    def refuse(self, *_: object) -> None:
        raise SSL.Error([("SSL routines", "", "ee key too small")])


class Greeter(Protocol):
    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(b"hello")


class TwistedTests(Base):
    def test_it_makes_the_connections_of_twisted(self) -> None:
        verifyObject(IOpenSSLServerConnectionCreator, self.set)
        clock = Clock()
        factory = TLSMemoryBIOFactory(self.set, False, Factory.forProtocol(Greeter), clock=clock)
        protocol = factory.buildProtocol(None)
        transport = StringTransport()
        protocol.makeConnection(transport)
        client = MemoryClient(client_context(), "www.example.net")
        answer = b""
        for _ in range(4):
            if octets := client.turn(answer):
                protocol.dataReceived(octets)
            clock.advance(0)
            answer = transport.value()
            transport.clear()
        self.assertEqual((client.peer_name, client.tls.read(10)), ("exact", b"hello"))
        self.assertEqual(tls_info(protocol.getHandle()).server_name, "www.example.net")


class WatchTests(Base):
    def setUp(self) -> None:
        super().setUp()
        self.clock = Clock()
        self.renewals: list[bool | OSError] = []
        self.watch = CertificateWatch(self.set, self.clock, 60.0, self.renew)

    def renew(self) -> bool:
        outcome = self.renewals.pop(0) if self.renewals else False
        if isinstance(outcome, OSError):
            raise outcome
        return outcome

    def advance(self, times: int = 1) -> list[tuple[LogLevel, str]]:
        with capturedLogs() as events:
            for _ in range(times):
                self.clock.advance(60)
        return [(event["log_level"], event["log_format"].format(**event)) for event in events]

    def test_nothing_changed_is_nothing_told(self) -> None:
        self.watch.startService()
        self.assertEqual(self.advance(3), [])

    def test_a_changed_file_is_taken_up_and_told_once(self) -> None:
        self.watch.startService()
        write_pair(self.directory, "default", "mail.example.org", "new.example.org")
        ((level, text),) = self.advance(3)
        self.assertEqual(level, LogLevel.info)
        self.assertIn("mail.example.org, new.example.org; www.example.net", text)
        self.assertIn("2031-01-01", text)
        self.assertEqual(self.set.names[0], ("mail.example.org", "new.example.org"))

    def test_a_broken_file_is_told_once_with_its_name(self) -> None:
        self.watch.startService()
        self.exact[0].write_bytes(b"broken")
        told = self.advance(3)
        self.assertEqual([level for level, _ in told], [LogLevel.error, LogLevel.info])
        self.assertIn(str(self.exact[0]), told[0][1])
        self.exact[0].write_bytes(b"broken otherwise")
        self.assertEqual([level for level, _ in self.advance()], [LogLevel.info])

    def test_a_warning_is_told_as_one(self) -> None:
        self.watch.startService()
        self.exact[1].chmod(0o644)
        os.utime(self.exact[1], ns=(0, 0))
        self.assertEqual([level for level, _ in self.advance()], [LogLevel.warn, LogLevel.info])

    def test_a_renewal_leads_to_a_reload(self) -> None:
        self.watch.startService()
        self.renewals = [False, True]
        self.assertEqual(self.advance(), [])
        self.assertEqual([level for level, _ in self.advance()], [LogLevel.info])

    def test_a_renewal_that_fails_is_told_once_and_tried_again(self) -> None:
        self.watch.startService()
        full = OSError(28, "No space left on device", "/var/lib/x.key")
        self.renewals = [full, full, True]
        ((level, text),) = self.advance(2)
        self.assertEqual(level, LogLevel.error)
        self.assertIn("/var/lib/x.key: the certificate cannot be renewed: No space left on device", text)
        self.assertEqual([level for level, _ in self.advance()], [LogLevel.info])

    def test_trouble_that_nobody_thought_of_does_not_end_the_watch(self) -> None:
        self.watch.startService()
        self.patch(self.set, "changed", lambda: 1 / 0)
        self.advance(2)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)
        self.assertEqual(len(self.clock.getDelayedCalls()), 2)  # this, and the keys of the tickets

    def test_an_interval_of_zero_never_looks(self) -> None:
        self.watch = CertificateWatch(self.set, self.clock, 0)
        self.watch.startService()
        # Only the keys of the tickets are changed, once a week.
        self.assertEqual(
            [call.getTime() for call in self.clock.getDelayedCalls()], [self.clock.seconds() + TICKET_KEYS]
        )
        with capturedLogs() as events:
            self.assertEqual(self.watch.reload(), [])
        self.assertEqual(len(events), 1)
        self.watch.stopService()

    def test_when_stopped_it_leaves_no_timer(self) -> None:
        self.watch.startService()
        self.watch.stopService()
        self.assertEqual(self.clock.getDelayedCalls(), [])
