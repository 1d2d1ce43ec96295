"""The effective configuration: every key, its value, its origin."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from mailserver.config import TLS, CertificateFiles, Config, Server, development, load
from mailserver.config.reading import TABLES, keys_of

TEXT = """\
[server]
hostname = "mail.example.org"
data_dir = "data"
[[listener]]
address = 25
protocol = "smtp"
limits = { errors = 30 }
[[listener]]
name = "users"
address = 465
protocol = "submission"
hostname = "smtp.example.org"
[[domain]]
name = "B\u00fccher.example"
separator = "-"
"""


class EffectiveTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.path = Path(self.mktemp()).absolute()
        self.path.write_text(TEXT, encoding="utf-8")
        self.config = load(self.path)
        self.told = {entry.key: (entry.value, entry.origin) for entry in self.config.effective}

    def test_values_and_origins(self) -> None:
        for key, value, origin in (
            ("server.hostname", "mail.example.org", f"{self.path}:2"),
            ("server.data_dir", str(self.path.parent / "data"), f"{self.path}:3"),
            ("server.user", None, "default"),
            ("limits.errors", 20, "default"),
            ("listener.smtp-25.address", "*:25", f"{self.path}:5"),
            ("listener.smtp-25.name", "smtp-25", "default (protocol and port)"),
            ("listener.smtp-25.tls", "starttls", "default of smtp"),
            ("listener.smtp-25.hostname", "mail.example.org", "[server] hostname"),
            ("listener.smtp-25.limits.errors", 30, f"{self.path}:7"),
            ("listener.users.name", "users", f"{self.path}:9"),
            ("listener.users.tls", "implicit", "default of submission"),
            ("listener.users.hostname", "smtp.example.org", f"{self.path}:12"),
            ('domain."xn--bcher-kva.example".separator', "-", f"{self.path}:15"),
        ):
            with self.subTest(key):
                self.assertEqual(self.told[key], (value, origin))

    def test_every_key_that_a_file_may_have_is_told(self) -> None:
        expected = {
            f"{name}.{key}" for name in ("server", "storage", "auth", "limits") for key in keys_of(TABLES[name])
        }
        expected |= {f"listener.users.{key}" for key in keys_of(TABLES["listener"]) if key != "limits"}
        self.assertEqual(expected - set(self.told), set())

    def test_limits_of_a_listener_are_told_only_where_they_differ(self) -> None:
        limits = [key for key in self.told if key.startswith("listener.") and ".limits." in key]
        self.assertEqual(limits, ["listener.smtp-25.limits.errors"])

    def test_certificates_are_told_by_their_number(self) -> None:
        pair = CertificateFiles(certificate=Path("/a.pem"), key=Path("/a.key"))
        config = dataclasses.replace(self.config, tls=TLS(certificate=(pair, pair)))
        told = {entry.key: entry.value for entry in config.effective}
        self.assertEqual(
            (told["tls.certificate[1].certificate"], told["tls.certificate[2].key"]), ("/a.pem", "/a.key")
        )

    def test_development_mode_says_so(self) -> None:
        told = {entry.key: entry.origin for entry in development(Path("x")).effective}
        for key in ("server.data_dir", "listener.smtp.address", "limits.auth_failure_delay"):
            self.assertEqual(told[key], "development mode")
        self.assertEqual((told["listener.smtp.banner"], told["server.user"]), ("default", "default"))


class FrozenTests(SynchronousTestCase):
    def test_nothing_can_be_changed(self) -> None:
        config = Config(source=None, server=Server())
        self.assertRaises(dataclasses.FrozenInstanceError, setattr, config, "development", True)
