"""`mailserver init`: everything is written with the right modes, nothing is overwritten, the password is in no file."""

from __future__ import annotations

import json
import os
import pwd
import re
import stat
from functools import cache
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result
from twisted.trial.unittest import SynchronousTestCase

from mailserver.accounts.database import AccountsDatabase
from mailserver.accounts.passwords import verify
from mailserver.address import Address, parse_address
from mailserver.cli import init as init_module
from mailserver.cli import layout
from mailserver.cli.init import init
from mailserver.cli.main import mailserver
from mailserver.config import load
from tests.cli.test_dns_records import read_zone
from tests.dkim.vectors import ED25519_PEM

PASSWORD = re.compile(r"Password of (\S+), shown this once:  (\S+)")
#: One key for all tests: a pair takes a tenth of a second.
new_dkim_key = layout.new_dkim_key
dkim_key = cache(new_dkim_key)


class InitCase(SynchronousTestCase):
    root = False

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        before = Path.cwd()
        os.chdir(self.folder)
        self.addCleanup(os.chdir, before)
        self.patch(init_module, "is_root", lambda: self.root)
        self.patch(layout, "new_dkim_key", dkim_key)
        # Whoever runs the tests may have a terminal.
        self.patch(init_module, "TERMINAL", str(self.folder / "no terminal"))

    def run_init(self, *arguments: str, **more: Any) -> Result:
        return CliRunner().invoke(init, arguments, **more)

    def succeed(self, *arguments: str, **more: Any) -> Result:
        result = self.run_init(*arguments, **more)
        self.assertEqual(result.exit_code, 0, result.output)
        return result

    def snapshot(self) -> dict[str, bytes]:
        return {
            str(path.relative_to(self.folder)): path.read_bytes() for path in self.folder.rglob("*") if path.is_file()
        }

    def mode(self, name: str) -> int:
        return stat.S_IMODE((self.folder / name).stat().st_mode)

    def credentials(self, address: str, data: str) -> tuple[str, ...]:
        database = AccountsDatabase(self.folder / data / "accounts.sqlite3", create=False)
        self.addCleanup(database.close)
        return database.credentials(parse_address(address).key)


class Written(InitCase):
    def test_an_empty_directory_and_yes_are_enough(self) -> None:
        self.succeed("example.org", "--yes")
        config = load(self.folder / "mailserver-example.org/mailserver.toml")
        self.assertEqual(config.server.hostname, "mail.example.org")
        self.assertEqual(config.server.data_dir, self.folder / "mailserver-example.org/data")
        self.assertEqual(config.server.postmaster, "admin@example.org")
        self.assertEqual([domain.name for domain in config.domains], ["example.org"])
        self.assertEqual(config.warnings, ())
        self.assertEqual(
            [(one.address.port, one.protocol, one.tls, one.auth) for one in config.listeners],
            [
                (2525, "smtp", "starttls", "off"),
                (4650, "submission", "implicit", "required"),
                (2587, "submission", "starttls", "required"),
            ],
        )

    def test_flags_answer_every_question(self) -> None:
        self.succeed(
            "example.org", "--yes", "--hostname", "MX.example.net", "--account", "anna", "--config-dir", "conf",
            "--data-dir", "store", "--ports", "standard", "--dkim-selector", "s1",
        )  # fmt: skip
        config = load(self.folder / "conf/mailserver.toml")
        self.assertEqual(config.server.hostname, "mx.example.net")
        self.assertEqual(config.server.data_dir, self.folder / "store")
        self.assertEqual([one.address.port for one in config.listeners], [25, 465, 587])
        self.assertTrue(self.credentials("anna@example.org", "store"))
        self.assertTrue((self.folder / "store/dkim/example.org/s1.pem").exists())

    def test_nobody_else_can_read_what_is_written(self) -> None:
        self.addCleanup(os.umask, os.umask(0))
        self.succeed("example.org", "--yes", "--config-dir", "c", "--data-dir", "d", "--dkim-selector", "s")
        modes = {str(path.relative_to(self.folder)): self.mode(str(path)) for path in self.folder.rglob("*")}
        self.assertEqual(
            {name: oct(mode) for name, mode in modes.items() if not name.endswith(("-wal", "-shm"))},
            {
                "c": "0o700",
                "c/mailserver.toml": "0o640",
                "c/dns.zone": "0o640",
                "d": "0o700",
                "d/accounts.sqlite3": "0o600",
                "d/dkim": "0o700",
                "d/dkim/example.org": "0o700",
                "d/dkim/example.org/s.pem": "0o600",
                "d/dkim/example.org/s.txt": "0o600",
            },
        )

    def test_a_directory_that_exists_keeps_its_mode(self) -> None:
        (self.folder / "c").mkdir(0o755)
        (self.folder / "c").chmod(0o755)
        self.succeed("example.org", "--yes", "--config-dir", "c")
        self.assertEqual(self.mode("c"), 0o755)
        self.assertEqual(self.mode("c/data"), 0o700)

    def test_the_roles_go_to_the_first_account(self) -> None:
        self.succeed("example.org", "--yes", "--config-dir", "c", "--account", "Postmaster@EXAMPLE.ORG")
        database = AccountsDatabase(self.folder / "c/data/accounts.sqlite3", create=False)
        self.addCleanup(database.close)
        self.assertEqual([str(one.address) for one in database.accounts()], ["Postmaster@example.org"])
        self.assertEqual(
            [(str(one.source), one.targets) for one in database.aliases()],
            [("abuse@example.org", (Address("Postmaster", "example.org"),))],
        )

    def test_certificate_files_must_be_there(self) -> None:
        result = self.run_init(
            "example.org", "--yes", "--config-dir", "c", "--certificate", "no.pem", "--key", "k.pem"
        )
        self.assertEqual(result.exit_code, 1)
        self.assertIn("mailserver.toml:", result.stderr)
        self.assertIn("no.pem", result.stderr)
        self.assertEqual(list(self.folder.iterdir()), [])


class Root(InitCase):
    root = True

    def test_root_gives_the_data_to_the_user(self) -> None:
        me = pwd.getpwuid(os.getuid()).pw_name
        self.succeed("example.org", "--yes", "--config-dir", "c", "--data-dir", "d", "--user", me)
        config = load(self.folder / "c/mailserver.toml")
        self.assertEqual(config.server.user, me)
        self.assertIsNotNone(config.server.group)
        self.assertEqual([one.address.port for one in config.listeners], [25, 465, 587])
        self.assertEqual(self.mode("c"), 0o750)
        self.assertEqual(self.mode("d"), 0o700)

    def test_without_the_usual_user_init_works_and_says_so(self) -> None:
        def nobody(*_: object) -> layout.Owner:
            raise KeyError("getpwnam(): name not found: 'mailserver'")

        self.patch(layout, "find_owner", nobody)
        result = self.succeed("example.org", "--yes", "--config-dir", "c", "--data-dir", "d")
        self.assertIn("useradd", result.stdout)
        self.assertIsNone(load(self.folder / "c/mailserver.toml").server.user)

    def test_a_user_that_is_named_must_exist(self) -> None:
        result = self.run_init("example.org", "--yes", "--config-dir", "c", "--user", "no-such-user-here")
        self.assertEqual(result.exit_code, 2)
        self.assertIn("no-such-user-here", result.stderr)
        self.assertEqual(list(self.folder.iterdir()), [])


class Passwords(InitCase):
    def test_the_password_is_shown_once_works_and_is_in_no_file(self) -> None:
        for form in ("table", "zone", "json"):
            result = self.succeed("example.org", "--yes", "--config-dir", form, "--format", form)
            found = PASSWORD.findall(result.stderr)
            self.assertEqual(len(found), 1)
            address, password = found[0]
            self.assertEqual(address, "admin@example.org")
            self.assertEqual(result.output.count(password), 1)
            self.assertNotIn(password, result.stdout)
            self.assertTrue(verify(self.credentials(address, f"{form}/data"), password))
            for name, content in self.snapshot().items():
                self.assertNotIn(password.encode(), content, name)

    def test_no_private_key_is_printed(self) -> None:
        result = self.succeed("example.org", "--yes", "--format", "json")
        self.assertNotIn("PRIVATE", result.output)
        self.assertNotIn("PRIVATE", repr(dkim_key()))

    def test_a_password_of_ones_own_comes_from_standard_input_and_is_not_shown(self) -> None:
        result = self.succeed("example.org", "--config-dir", "c", "--password-stdin", input="correct horse\nmore\n")
        self.assertNotIn("correct horse", result.output)
        self.assertNotIn("shown this once", result.output)
        self.assertTrue(verify(self.credentials("admin@example.org", "c/data"), "correct horse"))

    def test_a_password_that_cannot_be_is_refused_before_anything_is_written(self) -> None:
        for given in ("", "\n", "tab\tin here\n", "1234567\n"):
            result = self.run_init("example.org", "--config-dir", "c", "--password-stdin", input=given)
            self.assertEqual(result.exit_code, 2, given)
            self.assertEqual(list(self.folder.iterdir()), [])

    def test_a_short_password_must_be_meant(self) -> None:
        options = ("example.org", "--config-dir", "c", "--password-stdin")
        self.assertIn("shorter than 8 characters", self.run_init(*options, input="1234567\n").stderr)
        self.succeed(*options, "--allow-weak", input="1234567\n")
        self.assertTrue(verify(self.credentials("admin@example.org", "c/data"), "1234567"))

    def test_on_a_terminal_no_redirection_takes_the_password_along(self) -> None:
        ours, theirs = os.openpty()
        self.addCleanup(os.close, ours)
        self.addCleanup(os.close, theirs)
        self.patch(init_module, "TERMINAL", os.ttyname(theirs))
        result = self.succeed("example.org", "--yes", "--config-dir", "c")
        [(address, password)] = PASSWORD.findall(os.read(ours, 1024).decode())
        self.assertTrue(verify(self.credentials(address, "c/data"), password))
        self.assertNotIn(password, result.output)

    def test_no_file_is_made_where_a_terminal_would_be(self) -> None:
        self.succeed("example.org", "--yes", "--config-dir", "c")
        self.assertEqual([path.name for path in self.folder.iterdir()], ["c"])


class Overwriting(InitCase):
    def test_a_second_run_names_what_exists_and_changes_nothing(self) -> None:
        self.succeed("example.org", "--yes")
        before = self.snapshot()
        result = self.run_init("example.org", "--yes")
        self.assertEqual(result.exit_code, 1)
        for name in ("mailserver.toml", "dns.zone", ".pem", "accounts.sqlite3"):
            self.assertIn(name, result.stderr)
        self.assertIn("Nothing was changed", result.stderr)
        self.assertNotIn("shown this once", result.output)
        self.assertEqual(self.snapshot(), before)

    def test_one_file_that_exists_is_enough_to_stop(self) -> None:
        (self.folder / "c/data").mkdir(parents=True)
        for name in ("c/mailserver.toml", "c/dns.zone", "c/data/accounts.sqlite3"):
            path = self.folder / name
            path.symlink_to("nowhere")
            self.assertEqual(self.run_init("example.org", "--yes", "--config-dir", "c").exit_code, 1, name)
            self.assertEqual([one for one in self.folder.rglob("*") if one.is_symlink()], [path])
            path.unlink()

    def test_force_replaces_files_and_keeps_accounts(self) -> None:
        self.succeed("example.org", "--yes", "--config-dir", "c")
        database = AccountsDatabase(self.folder / "c/data/accounts.sqlite3")
        self.addCleanup(database.close)
        database.add_account(parse_address("anna@example.org"), ["{ARGON2ID}x"])
        (self.folder / "c/mailserver.toml").write_text("broken")
        result = self.succeed("example.org", "--yes", "--force", "--config-dir", "c", "--new-password")
        [(address, password)] = PASSWORD.findall(result.stderr)
        self.assertEqual(load(self.folder / "c/mailserver.toml").server.hostname, "mail.example.org")
        self.assertTrue(verify(self.credentials(address, "c/data"), password))
        self.assertEqual(len(database.accounts()), 2)

    def test_force_keeps_the_password_unless_another_one_is_wanted(self) -> None:
        again = ("example.org", "--yes", "--force", "--config-dir", "c")
        first = PASSWORD.findall(self.succeed("example.org", "--yes", "--config-dir", "c").stderr)[0][1]
        result = self.succeed(*again)
        self.assertIn("admin@example.org keeps its password; --new-password makes another.", result.stderr)
        self.assertNotIn("shown this once", result.output)
        self.assertTrue(verify(self.credentials("admin@example.org", "c/data"), first))
        self.succeed(*again, "--password-stdin", input="correct horse\n")
        self.assertTrue(verify(self.credentials("admin@example.org", "c/data"), "correct horse"))
        # Another account than the first time is new, and gets one.
        [(address, second)] = PASSWORD.findall(self.succeed(*again, "--account", "anna").stderr)
        self.assertEqual(address, "anna@example.org")
        self.assertTrue(verify(self.credentials(address, "c/data"), second))

    def test_force_keeps_the_dkim_key_unless_another_one_is_wanted(self) -> None:
        self.patch(layout, "new_dkim_key", new_dkim_key)
        again = ("example.org", "--yes", "--force", "--config-dir", "c", "--format", "zone")
        self.succeed("example.org", "--yes", "--config-dir", "c", "--dkim-selector", "old")
        key, record = (self.folder / f"c/data/dkim/example.org/old.{end}" for end in ("pem", "txt"))
        before = (key.read_bytes(), record.read_bytes())
        records = read_zone((self.folder / "c/dns.zone").read_text())
        # The selector stays too: by default it would be that of the month.
        self.assertEqual(read_zone(self.succeed(*again).stdout), records)
        self.assertEqual((key.read_bytes(), record.read_bytes()), before)
        self.assertEqual([path.name for path in key.parent.iterdir() if path.suffix == ".pem"], ["old.pem"])
        self.succeed(*again, "--new-dkim-key", "--dkim-selector", "old")
        self.assertNotEqual(key.read_bytes(), before[0])
        self.succeed(*again, "--new-dkim-key")
        self.assertEqual(len(list(key.parent.glob("*.pem"))), 2)

    def test_an_ed25519_key_beside_it_changes_nothing(self) -> None:
        again = ("example.org", "--yes", "--force", "--config-dir", "c", "--format", "zone")
        self.succeed("example.org", "--yes", "--config-dir", "c", "--dkim-selector", "old")
        records = read_zone((self.folder / "c/dns.zone").read_text())
        other = self.folder / "c/data/dkim/example.org/new.pem"
        other.write_bytes(ED25519_PEM)
        os.utime(other, (2**33, 2**33))
        self.assertEqual(read_zone(self.succeed(*again).stdout), records)
        self.assertEqual(other.read_bytes(), ED25519_PEM)

    def test_a_dkim_key_that_cannot_be_used_is_not_replaced_by_itself(self) -> None:
        again = ("example.org", "--yes", "--force", "--config-dir", "c", "--dkim-selector", "s")
        self.succeed(*again)
        key = self.folder / "c/data/dkim/example.org/s.pem"
        key.write_text("-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----\n")
        before = self.snapshot()
        result = self.run_init(*again)
        self.assertEqual(result.exit_code, 1)
        self.assertIn("s.pem: holds no RSA key that can be used; --new-dkim-key replaces it", result.stderr)
        self.assertNotIn("hunter2", result.output)
        self.assertEqual(self.snapshot(), before)
        self.succeed(*again, "--new-dkim-key")

    def test_trouble_with_the_disk_is_told_in_a_line(self) -> None:
        def disk_full(*_: object) -> None:
            raise OSError(28, "No space left on device", "somewhere")

        self.patch(layout, "write", disk_full)
        result = self.run_init("example.org", "--yes")
        self.assertEqual(result.exit_code, 1)
        self.assertEqual(result.stderr, "Error: nothing was changed: somewhere: No space left on device\n")

    def test_a_directory_in_the_place_of_a_file_is_an_error(self) -> None:
        (self.folder / "c/mailserver.toml").mkdir(parents=True)
        result = self.run_init("example.org", "--yes", "--force", "--config-dir", "c")
        self.assertEqual(result.exit_code, 1)
        self.assertIn("Is a directory", result.stderr)


class Printed(InitCase):
    def test_the_table_is_short_and_ends_with_the_next_command(self) -> None:
        result = self.succeed("example.org", "--yes", "--ip", "192.0.2.1")
        lines = result.stdout.splitlines()
        self.assertLess(len(lines), 30)
        self.assertIn("twistd --nodaemon mailserver --config mailserver-example.org/mailserver.toml", lines[-1])
        self.assertRegex(result.stdout, r"mail\.example\.org\. +A +192\.0\.2\.1\n")
        for port in ("25", "465", "587", "2525", "4650", "2587"):
            self.assertIn(port, result.stdout)

    def test_a_zone_file_alone_is_on_standard_output(self) -> None:
        result = self.succeed("example.org", "--yes", "--ip", "2001:db8::1", "--format", "zone")
        found = read_zone(result.stdout)
        self.assertEqual(found[0], ("mail.example.org.", "AAAA", "2001:db8::1"))
        self.assertIn(("example.org.", "MX", "10 mail.example.org."), found)
        self.assertEqual(read_zone((self.folder / "mailserver-example.org/dns.zone").read_text()), found)
        self.assertIn("Next:", result.stderr)

    def test_json_alone_is_on_standard_output(self) -> None:
        result = self.succeed("example.org", "--yes", "--format", "json")
        told = json.loads(result.stdout)
        self.assertEqual(told["ports"], {"smtp": 2525, "submissions": 4650, "submission": 2587})
        self.assertIn("v=spf1 mx ~all", [record["value"] for record in told["records"]])
        self.assertTrue(Path(told["configuration"]).exists())
        self.assertIn("--ip", told["reminders"][0])
        self.assertFalse([key for key in told if "password" in key])

    def test_an_international_domain_is_written_in_a_labels(self) -> None:
        result = self.succeed("bücher.example.org", "--yes", "--config-dir", "c", "--format", "zone")
        self.assertTrue(result.stdout.isascii())
        self.assertIn(("xn--bcher-kva.example.org.", "TXT", "v=spf1 mx ~all"), read_zone(result.stdout))
        config = load(self.folder / "c/mailserver.toml")
        self.assertEqual(config.domains[0].name, "xn--bcher-kva.example.org")
        self.assertTrue(self.credentials("admin@bücher.example.org", "c/data"))


class Answers(InitCase):
    def test_what_cannot_be_is_refused_before_anything_is_written(self) -> None:
        for arguments, told in [
            (("bad-.example.org",), "domain"),
            (("exa mple.org",), "domain"),
            (("192.0.2.1",), "IP address"),
            (("[192.0.2.1]",), "literal"),
            (("",), "empty"),
            (("example.org", "--hostname", "192.0.2.1"), "IP address"),
            (("example.org", "--account", "a@example.net"), "one of example.org"),
            (("example.org", "--account", "a b"), "no address"),
            (("example.org", "--ip", "192.0.2.300"), "192.0.2.300"),
            (("example.org", "--ip", "127.0.0.1"), "no address that others can reach"),
            (("example.org", "--ip", "fe80::1%eth0"), "zone"),
            (("example.org", "--certificate", "c.pem"), "go together"),
            (("example.org", "--dkim-selector", "a/b"), "label"),
            (("example.org", "--user", "mail"), "Only root"),
            (("example.org", "--ports", "25"), "standard"),
        ]:
            result = self.run_init(*arguments, "--yes")
            self.assertEqual(result.exit_code, 2, arguments)
            self.assertIn(told, result.stderr, arguments)
            self.assertEqual(list(self.folder.iterdir()), [])

    def test_the_options_of_other_commands_are_refused(self) -> None:
        for option in ("config", "data"):
            result = CliRunner().invoke(mailserver, [f"--{option}", "x", "init", "example.org", "--yes"])
            self.assertEqual(result.exit_code, 2)
            self.assertIn(f"--{option}-dir after init", result.stderr)
            self.assertEqual(list(self.folder.iterdir()), [])

    def test_on_a_terminal_what_is_missing_is_asked_for(self) -> None:
        self.patch(init_module, "is_terminal", lambda: True)
        answers = "192.0.2.9\nmx.example.org\nanna@example.net\nanna\nnowhere\n192.0.2.9, 2001:db8::9\ny\n"
        result = self.succeed("example.org", "--config-dir", "c", input=answers)
        self.assertIn("one of example.org", result.output)  # asked again
        self.assertEqual(load(self.folder / "c/mailserver.toml").server.hostname, "mx.example.org")
        self.assertRegex(result.stdout, r"mx\.example\.org\. +AAAA +2001:db8::9")
        self.assertTrue(self.credentials("anna@example.org", "c/data"))

    def test_what_flags_say_is_not_asked_for(self) -> None:
        self.patch(init_module, "is_terminal", lambda: True)
        result = self.succeed(
            "example.org", "--hostname", "mx.example.org", "--account", "anna", "--ip", "192.0.2.1", input="y\n"
        )
        self.assertNotIn("First account", result.stdout)

    def test_a_no_at_the_end_writes_nothing(self) -> None:
        self.patch(init_module, "is_terminal", lambda: True)
        self.assertEqual(self.run_init("example.org", input="\n\n\nn\n").exit_code, 1)
        self.assertEqual(list(self.folder.iterdir()), [])

    def test_without_a_terminal_nothing_is_asked(self) -> None:
        result = self.succeed("example.org", input="")
        for question in ("First account", "[y/N]", "[Y/n]"):
            self.assertNotIn(question, result.output)
        self.assertIn("mailserver-example.org/mailserver.toml", self.snapshot())
