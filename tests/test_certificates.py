"""Files of certificates and keys: each thing that can be wrong with them, and the words for it."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from unittest import mock

from cryptography.hazmat.primitives.asymmetric import dsa, x25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from twisted.trial.unittest import SynchronousTestCase

from mailserver import certificates
from mailserver.certificates import CertificateProblem, certificate_names, inspect_pair, load_chain, load_pair
from tests.certs import MADE, ec_key, key_pem, make_certificate, pem, rsa_key, write_key, write_pair

IN_TIME = MADE + timedelta(days=100)


class PairTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        self.certificate, self.key = write_pair(self.directory, "mail", "mail.example.org")

    def findings(self, certificate: Path | None = None, key: Path | None = None) -> list[tuple[str, str, bool]]:
        _, found = inspect_pair(certificate or self.certificate, key or self.key, now=IN_TIME)
        return [(finding.path.name, finding.text, finding.warning) for finding in found]

    def assert_finding(self, name: str, words: str, **files: Path) -> None:
        (found,) = self.findings(**files)
        self.assertEqual((found[0], found[2]), (name, False))
        self.assertIn(words, found[1])

    def test_a_good_pair_has_no_findings(self) -> None:
        loaded, found = inspect_pair(self.certificate, self.key, now=IN_TIME)
        self.assertEqual(found, [])
        assert loaded is not None
        self.assertEqual(loaded.names, ("mail.example.org",))
        self.assertNotIn("key", repr(loaded))

    def test_old_style_keys_parameters_and_comments_are_read(self) -> None:
        key = rsa_key()
        self.certificate.write_bytes(b"subject: x\n" + pem(make_certificate(key, ("mail.example.org",))))
        before = b"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
        write_key(self.key, before + key_pem(key, old_style=True))
        self.assertEqual(self.findings(), [])

    def test_certificate_and_key_may_be_one_file(self) -> None:
        both = write_key(self.directory / "both.pem", self.certificate.read_bytes() + self.key.read_bytes())
        self.assertEqual(self.findings(certificate=both, key=both), [])

    def test_all_certificates_of_a_chain_are_read(self) -> None:
        issuer, own = ec_key(), ec_key()
        chain = [
            make_certificate(own, ("mail.example.org",), issuer=("issuer", issuer)),
            make_certificate(issuer, (), common_name="issuer"),
        ]
        self.certificate.write_bytes(b"".join(map(pem, chain)))
        write_key(self.key, key_pem(own))
        self.assertEqual(list(load_pair(self.certificate, self.key).chain), chain)
        self.certificate.write_bytes(b"".join(map(pem, reversed(chain))))
        self.assert_finding("mail.crt", "must come first")

    def test_all_problems_are_told_together(self) -> None:
        missing = self.directory / "missing"
        self.assertEqual(
            self.findings(missing, missing),
            [("missing", "there is no such file", False), ("missing", "there is no such file", False)],
        )

    def test_bad_files(self) -> None:
        public = ec_key().public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        good = self.certificate.read_bytes()
        for content, words in [
            (b"", "is empty"),
            (b" \n", "is empty"),
            (b"\x30\x82 DER", "is not PEM"),
            (b"x" * (certificates.MAX_FILE + 1), "is larger than"),
            (public, "it is a key"),
            (b"-----BEGIN NOTHING-----\n-----END NOTHING-----\n", "holds no certificate"),
            (good[:100] + good[120:], "damaged"),
            (good.replace(b"-----END", b""), "damaged"),
        ]:
            bad = self.directory / "bad"
            bad.write_bytes(content)
            self.assert_finding("bad", words, certificate=bad)

    def test_bad_keys(self) -> None:
        exchange = x25519.X25519PrivateKey.generate()
        raw = self.key.read_bytes()
        for content, words in [
            (b"", "is empty"),
            (self.certificate.read_bytes(), "holds no private key"),
            (key_pem(ec_key(), password=b"secret"), "is encrypted"),
            (key_pem(ec_key(), password=b"secret", old_style=True), "is encrypted"),
            (raw[:60] + raw[70:], "damaged"),
            (
                exchange.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
                "of a kind that TLS cannot use",
            ),
            (key_pem(rsa_key(1024)), "has 1024 bits"),
            (key_pem(ec_key()), f"does not belong to the certificate in {self.certificate}"),
        ]:
            self.assert_finding("bad", words, key=write_key(self.directory / "bad", content))

    def test_files_that_cannot_be_opened(self) -> None:
        self.assert_finding(self.directory.name, "cannot be read", certificate=self.directory)
        real = os.open

        def refuse(path: str, flags: int) -> int:
            if Path(path) == self.key:
                raise PermissionError(13, "no")
            return real(path, flags)

        with mock.patch.object(certificates.os, "open", refuse):
            self.assert_finding("mail.key", f"permission denied; user id {os.geteuid()}")

    def test_a_fifo_or_a_device_is_told_and_not_waited_for(self) -> None:
        fifo = self.directory / "fifo"
        os.mkfifo(fifo)
        self.assert_finding("fifo", "is no regular file", certificate=fifo)
        self.assert_finding("fifo", "is no regular file", key=fifo)
        self.assert_finding("zero", "is no regular file", key=Path("/dev/zero"))
        self.assertRaises(CertificateProblem, load_chain, fifo)  # as client_ca is read

    def test_warnings_about_dates(self) -> None:
        for now, expected in [
            (MADE, []),
            (MADE - timedelta(seconds=1), ["the certificate is not valid before 2030-01-01 00:00 UTC"]),
            (MADE + timedelta(days=365), []),
            (MADE + timedelta(days=365, seconds=1), ["the certificate expired on 2031-01-01 00:00 UTC"]),
        ]:
            loaded, found = inspect_pair(self.certificate, self.key, now=now)
            self.assertIsNotNone(loaded)
            self.assertEqual([finding.text for finding in found], expected)
            self.assertTrue(all(finding.warning for finding in found))

    def test_warning_about_a_key_that_everybody_can_read(self) -> None:
        self.key.chmod(0o640)
        self.assertEqual(self.findings(), [])
        self.key.chmod(0o644)
        ((name, text, warning),) = self.findings()
        self.assertEqual((name, warning), ("mail.key", True))
        self.assertIn("chmod", text)

    def test_no_octet_of_the_key_is_told(self) -> None:
        raw = key_pem(ec_key())
        body = raw.split(b"\n")[1].decode()
        write_key(self.key, raw[:60] + raw[70:])
        with self.assertRaises(CertificateProblem) as caught:
            load_pair(self.certificate, self.key)
        self.assertNotIn(body[:8], str(caught.exception))
        self.assertIsNone(caught.exception.__cause__)
        self.assertEqual(
            (caught.exception.path, str(caught.exception)[: len(str(self.key))]), (self.key, str(self.key))
        )


class NameTests(SynchronousTestCase):
    def names(self, *names: str, common_name: str = "common.example.org") -> tuple[str, ...]:
        return certificate_names(make_certificate(ec_key(), names, common_name=common_name))

    def test_the_alternative_names_count(self) -> None:
        self.assertEqual(self.names("Mail.Example.ORG", "*.example.net"), ("mail.example.org", "*.example.net"))

    def test_the_common_name_counts_where_there_are_none(self) -> None:
        self.assertEqual(self.names(), ("common.example.org",))
        self.assertEqual(self.names("mail.example.org"), ("mail.example.org",))

    def test_what_is_no_host_name_is_left_out(self) -> None:
        self.assertEqual(self.names("not a name", "a.*.example.org", "*", "mail.example.org"), ("mail.example.org",))
        self.assertEqual(self.names(common_name="Example Company"), ())

    def test_a_dsa_key_is_refused(self) -> None:
        path = Path(self.mktemp())
        key = dsa.generate_private_key(1024)
        write_key(path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        with self.assertRaises(CertificateProblem) as caught:
            certificates._load_key(path)
        self.assertIn("of a kind that TLS cannot use", caught.exception.text)
