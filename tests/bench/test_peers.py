"""bench/peers.py: configurations, and where mail lies."""

from __future__ import annotations

import tomllib
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from bench.peers import Aiosmtpd, Mailserver, Place, Postfix, Variant


class VariantTests(SynchronousTestCase):
    def test_keys_are_written_only_when_they_are_given(self) -> None:
        self.assertEqual(Variant().lines(), ("", ""))
        server, storage = Variant(durability="filesync", workers="2").lines()
        self.assertEqual(
            tomllib.loads(f"[server]\n{server}{storage}"),
            {"server": {"workers": 2}, "storage": {"durability": "filesync"}},
        )
        self.assertEqual(tomllib.loads(Variant(workers="auto").lines()[0]), {"workers": "auto"})

    def test_nothing_is_promised_without_durability(self) -> None:
        self.assertEqual(Mailserver(Variant(durability="none")).durable, "nothing")
        self.assertIn("Maildir", Mailserver(Variant(durability="filesync")).durable)
        self.assertIn("Maildir", Mailserver(Variant()).durable)


class ConfigurationTests(SynchronousTestCase):
    def test_ours_is_as_shipped_but_for_the_counts_of_one_client(self) -> None:
        directory = Path(self.mktemp()).absolute()
        directory.mkdir()
        server = Mailserver(Variant())
        path = server.configure(Place(directory, ["bench"], Path("/c.pem"), Path("/k.pem"), 2000))
        written = tomllib.loads(path.read_text())
        self.assertEqual(written["limits"]["connections"], 2000)
        self.assertEqual(set(written), {"server", "limits", "tls", "listener", "domain"})
        self.assertEqual(set(written["server"]), {"hostname", "data_dir"})
        self.assertTrue(
            all("connection" in key or "recipients" in key or "messages" in key for key in written["limits"])
        )
        self.assertEqual(server.maildir("bench"), directory / "data" / "mail" / "example.org" / "bench")


class FoldersTests(SynchronousTestCase):
    def test_aiosmtpd_has_one_folder_for_everybody(self) -> None:
        self.assertEqual(len(Aiosmtpd(Path()).folders(["a", "b", "c"])), 1)
        self.assertFalse(Aiosmtpd(Path()).file_for_each)
        self.assertTrue(Postfix().file_for_each)
