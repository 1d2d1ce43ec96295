"""sslyze looks at the ports as an auditor does: implicit TLS and STARTTLS, with certificates of both kinds of keys."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from tests.interop.clients import CLIENT_TIME, missing
from tests.interop.running import DOMAINS, LIMITS, SERVER, RunningServer, ServerTestCase, listener, run

DOORS = listener("submissions", "127.0.0.1:0", "submission", tls='"implicit"') + listener("smtp", "127.0.0.1:0")
RSA = '[[tls.certificate]]\ncertificate = "rsa.crt"\nkey = "rsa.key"\n'
SCANS = ["certinfo", "sslv2", "sslv3", "tlsv1", "tlsv1_1", "tlsv1_2", "tlsv1_3", "compression", "early_data", "ems"]
SCANS += ["openssl_ccs", "fallback", "heartbleed", "robot", "reneg", "elliptic_curves"]
#: What sslyze must say of each: part of its result -> value.
EXPECTED: dict[str, dict[str, object]] = {
    "ssl_2_0_cipher_suites": {"is_tls_version_supported": False},
    "ssl_3_0_cipher_suites": {"is_tls_version_supported": False},
    "tls_1_0_cipher_suites": {"is_tls_version_supported": False},
    "tls_1_1_cipher_suites": {"is_tls_version_supported": False},
    "tls_1_2_cipher_suites": {"is_tls_version_supported": True},
    "tls_1_3_cipher_suites": {"is_tls_version_supported": True},
    "tls_compression": {"supports_compression": False},
    "tls_1_3_early_data": {"supports_early_data": False},
    "openssl_ccs_injection": {"is_vulnerable_to_ccs_injection": False},
    "tls_fallback_scsv": {"supports_fallback_scsv": True},
    "heartbleed": {"is_vulnerable_to_heartbleed": False},
    "robot": {"robot_result": "NOT_VULNERABLE_RSA_NOT_SUPPORTED"},
    "session_renegotiation": {
        "supports_secure_renegotiation": True,
        "is_vulnerable_to_client_renegotiation_dos": False,
    },
    "tls_extended_master_secret": {"supports_ems_extension": True},
}


class SslyzeTests(ServerTestCase):
    skip = missing("sslyze")

    def scan(self, server: RunningServer, door: str, *options: str) -> dict[str, Any]:
        """All scans of one port: name -> result."""
        host, port = server.address(door)
        told = Path(server.directory, "sslyze.json")
        command = ["sslyze", "--quiet", "--mozilla_config=disable", f"--json_out={told}", *options]
        subprocess.run(
            [*command, *(f"--{scan}" for scan in SCANS), f"{host}:{port}"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=CLIENT_TIME,
            check=True,
        )
        (found,) = json.loads(told.read_text())["server_scan_results"]
        self.assertEqual(found["scan_status"], "COMPLETED")
        return {name: scan["result"] for name, scan in found["scan_result"].items() if scan["result"] is not None}

    def assert_sound(self, results: dict[str, Any], key: str) -> None:
        for scan, expected in EXPECTED.items():
            self.assertEqual({name: results[scan][name] for name in expected}, expected, scan)
        accepted = [
            suite["cipher_suite"]
            for version in ("tls_1_2", "tls_1_3")
            for suite in results[f"{version}_cipher_suites"]["accepted_cipher_suites"]
        ]
        self.assertGreaterEqual(len(accepted), 6)
        for suite in accepted:
            self.assertRegex(
                suite["name"], rf"\ATLS_(?:ECDHE_{key}_WITH_)?(?:AES_\d+_GCM|CHACHA20_POLY1305)_SHA\d+\Z"
            )
            self.assertGreaterEqual(suite["key_size"], 128)
            self.assertFalse(suite["is_anonymous"])
        curves = {each["name"] for each in results["elliptic_curves"]["supported_curves"]}
        self.assertEqual(curves - {"X25519", "X448", "secp256r1", "secp384r1", "secp521r1"}, set())
        for deployment in results["certificate_info"]["certificate_deployments"]:
            self.assertTrue(deployment["received_chain_has_valid_order"])

    def test_the_certificate_that_the_server_makes(self) -> None:
        server = self.serve(SERVER + LIMITS + DOORS + DOMAINS)
        self.assert_sound(self.scan(server, "submissions"), "ECDSA")
        self.assert_sound(self.scan(server, "smtp", "--starttls=smtp"), "ECDSA")

    def test_a_certificate_with_an_rsa_key(self) -> None:
        directory = self.new_directory()
        files = ["-keyout", str(directory / "rsa.key"), "-out", str(directory / "rsa.crt")]
        names = ["-subj", "/CN=mail.example.org", "-addext", "subjectAltName=DNS:mail.example.org,IP:127.0.0.1"]
        run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *files, *names])
        server = self.serve(SERVER + LIMITS + DOORS + DOMAINS + RSA.replace('"rsa.', f'"{directory}/rsa.'))
        self.assert_sound(self.scan(server, "submissions"), "RSA")
        self.assert_sound(self.scan(server, "smtp", "--starttls=smtp"), "RSA")
