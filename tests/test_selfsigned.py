"""The self-signed certificate: made, kept, renewed, and verified by a real TLS client."""

from __future__ import annotations

import os
import ssl
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest import mock

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from twisted.trial.unittest import SynchronousTestCase

from mailserver import selfsigned
from mailserver.certificates import load_pair
from mailserver.selfsigned import RENEW_BEFORE, VALID, ensure_self_signed, renew_if_needed
from mailserver.tls import CertificateSet, check_pair
from tests.certs import MADE, MemoryClient, client_context, ec_key, key_pem, write_key

NAMES = ["mail.example.org", "localhost", "127.0.0.1", "::1"]


class SelfSignedTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        self.certificate, self.key = ensure_self_signed(self.directory, NAMES, now=MADE)

    def renewed(self, *, names: list[str] = NAMES, now: datetime = MADE) -> bool:
        """Whether a further call makes a new pair; in any case the pair is good afterwards."""
        before = self.certificate.read_bytes() if self.certificate.exists() else b""
        told = renew_if_needed(self.directory, names, now=now)
        self.assertEqual(self.certificate.read_bytes() != before, told)
        self.assertEqual(check_pair(self.certificate, self.key, now=now), [])
        return told

    def test_it_is_p256_and_no_authority_and_random(self) -> None:
        (leaf,) = load_pair(self.certificate, self.key).chain
        key = leaf.public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey)
        self.assertEqual(key.curve.name, "secp256r1")
        self.assertFalse(leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca)
        self.assertEqual(leaf.not_valid_after_utc, MADE + VALID)
        other, other_key = ensure_self_signed(Path(self.mktemp()), NAMES, now=MADE)
        self.assertNotEqual(load_pair(other, other_key).chain[0].serial_number, leaf.serial_number)

    def test_modes(self) -> None:
        modes = [stat.S_IMODE(path.stat().st_mode) for path in (self.directory, self.key, self.certificate)]
        self.assertEqual(modes, [0o700, 0o600, 0o644])
        self.assertEqual(sorted(os.listdir(self.directory)), ["self-signed.crt", "self-signed.key"])

    def test_the_key_is_never_open_to_others(self) -> None:
        seen = []
        real = Path.replace

        def watched(path: Path, target: Path) -> Path:
            seen.append((target.name, stat.S_IMODE(path.stat().st_mode)))
            return real(path, target)

        self.addCleanup(os.umask, os.umask(0))
        with mock.patch.object(Path, "replace", watched):
            ensure_self_signed(Path(self.mktemp()), NAMES, now=MADE)
        self.assertEqual(seen, [("self-signed.key", 0o600), ("self-signed.crt", 0o644)])

    def test_it_is_kept(self) -> None:
        self.assertFalse(self.renewed())
        self.assertFalse(self.renewed(names=[*reversed(NAMES), "LOCALHOST", "Mail.Example.org"]))
        self.assertFalse(self.renewed(now=MADE + VALID - RENEW_BEFORE - timedelta(seconds=1)))

    def test_it_is_renewed_before_it_ends(self) -> None:
        self.assertTrue(self.renewed(now=MADE + VALID - RENEW_BEFORE))

    def test_it_is_renewed_when_the_clock_was_wrong(self) -> None:
        self.assertTrue(self.renewed(now=MADE - timedelta(days=2)))

    def test_it_is_renewed_for_other_names(self) -> None:
        self.assertTrue(self.renewed(names=[*NAMES, "www.example.org"]))
        self.assertTrue(self.renewed(names=NAMES))

    def test_it_is_renewed_when_a_file_is_gone_or_broken(self) -> None:
        for path in (self.certificate, self.key):
            path.unlink()
            self.assertTrue(self.renewed())
            path.write_bytes(b"")
            path.chmod(0o600)
            self.assertTrue(self.renewed())
        write_key(self.key, key_pem(ec_key()))
        self.assertTrue(self.renewed())

    def test_it_is_renewed_when_others_could_read_the_key(self) -> None:
        self.key.chmod(0o640)
        self.assertTrue(self.renewed())
        self.assertEqual(stat.S_IMODE(self.key.stat().st_mode), 0o600)

    def test_what_cannot_be_written_leaves_nothing_behind(self) -> None:
        directory = Path(self.mktemp())
        with mock.patch.object(Path, "replace", side_effect=OSError(28, "full")), self.assertRaises(OSError):
            ensure_self_signed(directory, NAMES, now=MADE)
        self.assertEqual(os.listdir(directory), [])

    def test_a_name_that_is_none_is_an_error(self) -> None:
        with self.assertRaises(ValueError):
            ensure_self_signed(self.directory, ["not a name"], now=MADE)

    def test_long_and_international_names(self) -> None:
        long = ".".join(["a" * 60] * 4)
        certificate, key = ensure_self_signed(Path(self.mktemp()), [long, "bücher.example.org"], now=MADE)
        self.assertEqual(load_pair(certificate, key).names, (long, "xn--bcher-kva.example.org"))

    def test_addresses_alone_are_enough(self) -> None:
        certificate, key = ensure_self_signed(Path(self.mktemp()), ["192.0.2.1"], now=MADE)
        self.assertEqual(check_pair(certificate, key, now=MADE), [])

    def test_a_client_can_take_it_as_its_anchor(self) -> None:
        # The client has the real clock, so this pair is made for it.
        pair = ensure_self_signed(Path(self.mktemp()), NAMES, now=datetime.now(UTC))
        server = CertificateSet([pair])
        context = client_context(pair[0])
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        for name in NAMES:
            client = MemoryClient(context, name)
            client.handshake(server.serverConnectionForTLS(None))
            self.assertEqual(client.peer, load_pair(*pair).chain[0])
        with self.assertRaises(ssl.SSLCertVerificationError):
            MemoryClient(context, "www.example.org").handshake(server.serverConnectionForTLS(None))
        self.assertEqual(selfsigned.CERTIFICATE_FILE, pair[0].name)
