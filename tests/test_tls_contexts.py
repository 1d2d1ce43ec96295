"""Clients with certificates, driven in memory: who comes in, as whom, and that no session goes around it."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import ExtendedKeyUsageOID
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from zope.interface.verify import verifyObject

from mailserver.tls import CertificateProblem, CertificateSet, tls_info
from tests.certs import write_pair
from tests.client_certs import BOTH, ClientsTestCase

MODES = ("request", "require")
OVER = (datetime(2000, 1, 1, tzinfo=UTC), datetime(2001, 1, 1, tzinfo=UTC))


class ModeTests(ClientsTestCase):
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


class ReloadTests(ClientsTestCase):
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


class ResumptionTests(ClientsTestCase):
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
