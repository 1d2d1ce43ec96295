"""`mailserver config check`, `show` and `sample`."""

from __future__ import annotations

import json
import os
from pathlib import Path

from click.testing import CliRunner
from twisted.trial.unittest import SynchronousTestCase

from mailserver.cli.main import mailserver
from mailserver.config import loading
from mailserver.config.manual import manual
from mailserver.config.sample import sample

GOOD = '[server]\nhostname = "mail.example.org"\ndata_dir = "data"\n[[listener]]\naddress = 25\nprotocol = "smtp"\n'


class ConfigTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        self.path = self.folder / "mailserver.toml"
        self.patch(loading, "DEFAULT_PATH", self.folder / "missing.toml")
        self.patch(os, "environ", {key: value for key, value in os.environ.items() if key != "MAILSERVER_CONFIG"})

    def run_on(self, text: str, *arguments: str) -> tuple[int, str, str]:
        """(exit status, stdout, stderr) of a `mailserver config` command with this file; "FILE" stands for it."""
        self.path.write_text(text)
        result = CliRunner().invoke(mailserver, ["--config", str(self.path), "config", *arguments])
        return result.exit_code, *(out.replace(str(self.path), "FILE") for out in (result.stdout, result.stderr))


class CheckTests(ConfigTestCase):
    def test_a_good_file(self) -> None:
        domain = '[[domain]]\nname = "example.org"\n'
        for text, told in (
            (GOOD, "1 listener, 0 domains, 0 certificates"),
            (GOOD + domain + domain.replace("org", "net"), "1 listener, 2 domains, 0 certificates"),
        ):
            self.assertEqual(self.run_on(text, "check"), (0, f"FILE: ok ({told})\n", ""))

    def test_warnings_are_told_and_do_no_harm(self) -> None:
        status, out, err = self.run_on(GOOD + 'tls = "implicit"\n', "check")
        warning, told = out.splitlines()
        self.assertEqual((status, err), (0, ""))
        self.assertTrue(warning.startswith('FILE:7: listener.smtp-25.tls: warning: "implicit" on port 25, '), warning)
        self.assertEqual(told, "FILE: ok (1 listener, 0 domains, 0 certificates, 1 warning)")

    def test_all_problems_of_a_bad_file(self) -> None:
        status, out, err = self.run_on(GOOD + "colour = 1\ntls = 5\n", "check")
        self.assertEqual((status, out), (1, ""))
        self.assertEqual([line.split(": ")[:2] for line in err.splitlines()], [
            ["FILE:7", "listener.smtp-25.colour"], ["FILE:8", "listener.smtp-25.tls"],
        ])  # fmt: skip

    def test_development_mode(self) -> None:
        result = CliRunner().invoke(mailserver, ["config", "check"])
        self.assertEqual(
            (result.exit_code, result.stdout),
            (0, "development mode, no file: ok (6 listeners, 0 domains, 0 certificates)\n"),
        )

    def test_why_it_is_development_mode_is_told_once(self) -> None:
        default = self.path.with_name("default.toml")
        default.write_text(GOOD)
        self.patch(loading, "DEFAULT_PATH", default)
        access = os.access
        self.patch(os, "access", lambda path, mode: path != default and access(path, mode))
        result = CliRunner().invoke(mailserver, ["config", "check"])
        self.assertEqual(result.output.count("so this is development mode"), 1)
        self.assertIn("1 warning", result.stdout)


class ShowTests(ConfigTestCase):
    def test_a_line_for_every_key_with_its_origin(self) -> None:
        status, out, _ = self.run_on(GOOD, "show")
        lines = [line.split("  # ") for line in out.splitlines()]
        self.assertEqual(status, 0)
        told = {text.rstrip(): origin for text, origin in lines}
        self.assertEqual(told['server.hostname = "mail.example.org"'], "FILE:2")
        self.assertEqual(told["server.user = (none)"], "default")
        self.assertEqual(told['listener.smtp-25.hostname = "mail.example.org"'], "[server] hostname")
        mechanisms = '["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "PLAIN", "LOGIN", "CRAM-MD5"]'
        self.assertEqual(told[f"auth.mechanisms = {mechanisms}"], "default")

    def test_as_json(self) -> None:
        status, out, _ = self.run_on(GOOD, "show", "--json")
        told = json.loads(out)
        self.assertEqual(status, 0)
        self.assertEqual(told["server.hostname"], {"value": "mail.example.org", "origin": "FILE:2"})
        self.assertEqual(told["server.user"], {"value": None, "origin": "default"})

    def test_a_bad_file_is_not_shown(self) -> None:
        status, out, err = self.run_on("", "show")
        self.assertEqual((status, out), (1, ""))
        self.assertIn("FILE:1: listener: ", err)


class SampleTests(ConfigTestCase):
    def run_sample(self, *arguments: str) -> tuple[int, str, str]:
        result = CliRunner().invoke(mailserver, ["config", "sample", *arguments])
        return result.exit_code, result.stdout, result.stderr

    def test_to_stdout(self) -> None:
        self.assertEqual(self.run_sample(), (0, sample(), ""))

    def test_a_broken_configuration_is_no_reason_not_to_write_one(self) -> None:
        self.assertEqual(self.run_on("[", "sample")[0], 0)

    def test_to_a_file_but_never_over_one_without_force(self) -> None:
        self.assertEqual(self.run_sample("--output", str(self.path)), (0, "", ""))
        self.assertEqual(self.path.read_text(), sample())
        self.path.write_text("mine")
        status, _, err = self.run_sample("--output", str(self.path))
        self.assertEqual((status, self.path.read_text()), (1, "mine"))
        self.assertIn("use --force", err)
        self.assertEqual(self.run_sample("--output", str(self.path), "--force"), (0, "", ""))
        self.assertEqual(self.path.read_text(), sample())

    def test_to_a_place_where_nothing_can_be_written(self) -> None:
        status, _, err = self.run_sample("--output", str(self.folder / "missing" / "x.toml"))
        self.assertEqual(status, 1)
        self.assertIn("cannot be written: No such file or directory", err)


class ManualTests(ConfigTestCase):
    def test_to_stdout_or_to_a_file_as_the_sample(self) -> None:
        result = CliRunner().invoke(mailserver, ["config", "manual"])
        self.assertEqual((result.exit_code, result.stdout, result.stderr), (0, manual(), ""))
        result = CliRunner().invoke(mailserver, ["config", "manual", "--output", str(self.path)])
        self.assertEqual((result.exit_code, self.path.read_text(encoding="utf-8")), (0, manual()))
        result = CliRunner().invoke(mailserver, ["config", "manual", "--output", str(self.path)])
        self.assertEqual(result.exit_code, 1)
        self.assertIn("use --force", result.stderr)
