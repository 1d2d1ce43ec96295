"""Tests of mailserver.cli.account: each subcommand with a real configuration and database."""

from __future__ import annotations

import getpass
import json
import os
import sqlite3
import warnings

from mailserver.accounts.database import AccountsDatabase
from mailserver.accounts.passwords import scheme_of, verify
from mailserver.address import parse_address
from mailserver.cli import account
from mailserver.config import loading
from tests.cli.with_accounts import AccountsCommandCase

ALICE = parse_address("alice@example.org")
CRAM_MD5 = "{CRAM-MD5}cd3ba7deaad6e5ca23448ba42e379747a9e0f7f1fbc00c8a81bbaac395731b56"


class AddTests(AccountsCommandCase):
    def test_the_password_is_asked_for_twice_and_never_shown(self) -> None:
        result = self.run_command("account", "add", "alice@example.org", stdin="open sesame\nopen sesame\n")
        self.assertEqual(result.exit_code, 0, result.output)
        self.assertIn("Password: \nRepeat for confirmation: \n", result.stdout)
        self.assertNotIn("sesame", result.output)
        self.assertTrue(verify(self.database.credentials(ALICE.key), "open sesame"))

    def test_without_a_terminal_it_does_not_ask(self) -> None:
        def no_terminal(_prompt: str) -> str:
            warnings.warn("Can not control echo on the terminal.", getpass.GetPassWarning, stacklevel=2)
            return "open sesame"

        # click's runner puts its own answers here while a command runs.
        self.patch(account.click, "prompt", lambda text, **_named: no_terminal(text))
        told = self.fails("account", "add", "alice@example.org")
        self.assertEqual(told, "Error: no terminal to ask for the password; use --password-stdin\n")

    def test_two_different_answers_are_asked_for_again(self) -> None:
        self.works(
            "account", "add", "alice@example.org", stdin="one sesame\ntwo sesame\nthree sesame\nthree sesame\n"
        )
        self.assertTrue(verify(self.database.credentials(ALICE.key), "three sesame"))

    def test_a_line_of_stdin_can_be_the_password(self) -> None:
        for number, (line, password) in enumerate(
            [
                ("open sesame\nmore\n", "open sesame"),
                ("without end", "without end"),
                ("of windows\r\n", "of windows"),
                ("\u00fcbermut \n", "\u00fcbermut "),
            ]
        ):
            address = f"a{number}@example.org"
            self.assertEqual(
                self.works("account", "add", address, "--password-stdin", stdin=line), f"{address}: added\n"
            )
            self.assertTrue(verify(self.database.credentials(address), password), line)

    def test_passwords_that_cannot_be_are_refused(self) -> None:
        for line, reason in [
            (b"\n", "the password is empty"),
            (b"", "the password is empty"),
            (b"a" * 1025 + b"\n", "the password is longer than 1,024 octets"),
            (b"tabula\ttor\n", "the password holds a control character"),
            (b"\xff\n", "the password on stdin is not UTF-8"),
        ]:
            told = self.fails("account", "add", "alice@example.org", "--password-stdin", stdin=line)
            self.assertEqual(told, f"Error: {reason}\n")
        self.assertIn("the password is empty", self.fails("account", "add", "alice@example.org", stdin="\n\n"))
        self.assertFalse(self.database.any_account())

    def test_a_short_password_must_be_meant(self) -> None:
        add = ("account", "add", "alice@example.org")
        reason = "the password is shorter than 8 characters; take a longer one, or give --allow-weak"
        for told in (
            self.fails(*add, "--password-stdin", stdin="1234567\n"),
            self.fails(*add, "--password-stdin", stdin="\u00fc\u00fc\u00fc\u00fc\n"),  # eight octets
            self.fails(*add, stdin="1234567\n1234567\n"),
        ):
            self.assertEqual(told.splitlines()[-1], f"Error: {reason}")
        self.assertFalse(self.database.any_account())
        self.works(*add, "--password-stdin", "--allow-weak", stdin="1234567\n")
        self.assertTrue(verify(self.database.credentials(ALICE.key), "1234567"))
        passwd = ("account", "passwd", "alice@example.org", "--password-stdin")
        self.assertIn(reason, self.fails(*passwd, stdin="7654321\n"))
        self.assertTrue(verify(self.database.credentials(ALICE.key), "1234567"))
        self.works(*passwd, stdin="12345678\n")
        self.works(*passwd, "--allow-weak", stdin="1\n")

    def test_what_other_mechanisms_need_is_kept_unless_not_wanted(self) -> None:
        self.add_account("alice@example.org")
        self.works("account", "add", "bob@example.org", "--no-cram-md5", "--password-stdin", stdin="open sesame\n")
        self.works(
            "account",
            "add",
            "c@example.org",
            "--no-scram",
            "--no-cram-md5",
            "--password-stdin",
            stdin="open sesame\n",
        )
        for key, schemes in [
            ("alice@example.org", ["ARGON2ID", "SCRAM-SHA-256", "CRAM-MD5"]),
            ("bob@example.org", ["ARGON2ID", "SCRAM-SHA-256"]),
            ("c@example.org", ["ARGON2ID"]),
        ]:
            self.assertEqual([scheme_of(stored) for stored in self.database.credentials(key)], schemes)

    def test_a_quota_is_octets_or_a_size(self) -> None:
        for number, (text, octets) in enumerate([("2 GiB", 2**31), ("0", 0), ("1000", 1000), ("default", None)]):
            address = f"a{number}@example.org"
            self.works("account", "add", address, "--quota", text, "--password-stdin", stdin="open sesame\n")
            self.assertEqual(self.database.known(parse_address(address)).own_quota, octets)
        told = self.fails(
            "account", "add", "b@example.org", "--quota", "much", "--password-stdin", stdin="open sesame\n"
        )
        self.assertIn("quota: must be a number of octets", told)

    def test_what_cannot_be_added_is_told_before_a_password_is_asked_for(self) -> None:
        self.add_account("alice@example.org")
        self.works("alias", "add", "info@example.org", "alice@example.org")
        for address, reason in [
            ("ALICE@example.org", "there is an account of this address"),
            ("info@example.org", "there is an alias of this address; remove it first"),
            ("alice@example.net", "example.net is not one of our domains"),
            ("alice", "'alice' is no address: domain is missing"),
            ("@example.org", "is no address: local part is empty"),
        ]:
            result = self.run_command("account", "add", address)
            self.assertEqual(result.exit_code, 1, address)
            self.assertIn(reason, result.stderr)
            self.assertNotIn("Password", result.output)

    def test_a_domain_that_was_added_is_ours(self) -> None:
        self.database.add_domain("example.net")
        self.add_account("alice@example.net")
        self.assertTrue(self.database.any_account())

    def test_in_development_every_domain_is_ours_and_the_folder_is_made(self) -> None:
        data = self.folder / "development"
        self.options = ["--data", str(data)]
        self.patch(loading, "DEFAULT_PATH", self.folder / "none.toml")
        self.add_account("alice@example.com")
        self.assertEqual(data.stat().st_mode & 0o777, 0o700)
        self.assertIn("alice@example.com", self.works("account", "list"))

    def test_the_server_sees_it_at_once(self) -> None:
        server = self.database
        self.assertIsNone(server.account(ALICE))
        self.add_account("alice@example.org")
        self.assertIsNotNone(server.account(ALICE))

    def test_a_database_that_cannot_be_used_is_told_by_name(self) -> None:
        path = self.data / "accounts.sqlite3"
        path.write_text("no database " * 1000)
        told = self.fails("account", "add", "alice@example.org", "--password-stdin", stdin="open sesame\n")
        self.assertEqual(told, f"Error: {path}: file is not a database\n")

    def test_trouble_with_the_disk_is_told(self) -> None:
        def broken(*_args: object, **_named: object) -> None:
            raise sqlite3.OperationalError("disk I/O error")

        self.patch(AccountsDatabase, "add_account", broken)
        told = self.fails("account", "add", "alice@example.org", "--password-stdin", stdin="open sesame\n")
        self.assertEqual(told, "Error: the accounts database: disk I/O error\n")


class ChangeTests(AccountsCommandCase):
    def setUp(self) -> None:
        super().setUp()
        self.add_account("alice@example.org")

    def test_passwd_sets_a_new_password(self) -> None:
        self.works("account", "passwd", "alice@example.org", "--password-stdin", stdin="new sesame\n")
        self.assertTrue(verify(self.database.credentials(ALICE.key), "new sesame"))
        self.assertFalse(verify(self.database.credentials(ALICE.key), "open sesame"))

    def test_passwd_keeps_only_what_is_wanted(self) -> None:
        self.works("account", "passwd", "alice@example.org", "--no-scram", "--password-stdin", stdin="new sesame\n")
        kept = self.database.credentials(ALICE.key)
        self.assertEqual([scheme_of(stored) for stored in kept], ["ARGON2ID", "CRAM-MD5"])

    def test_may_send_as_is_shown_and_changed(self) -> None:
        start = "alice@example.org: may send as "
        for options, told in [
            ([], "nobody else"),
            (["--add", "Boss@example.org", "--add", "@example.net"], "@example.net, Boss@example.org"),
            (["--add", "boss@example.org"], "@example.net, Boss@example.org"),
            (["--remove", "BOSS@example.org", "--add", "x@example.com"], "x@example.com, @example.net"),
            (["--remove", "@example.net", "--remove", "x@example.com"], "nobody else"),
        ]:
            self.assertEqual(self.works("account", "may-send-as", "ALICE@example.org", *options), f"{start}{told}\n")

    def test_what_cannot_be_allowed_or_forbidden_is_told_and_changes_nothing(self) -> None:
        for options, told in [
            (["--remove", "x@example.org"], "x@example.org is not among what it may send as"),
            (["--add", "b@example.org", "--remove", "@example.net"], "@example.net is not among what it may send as"),
            (["--add", "nobody"], "'nobody' is no address"),
            (["--add", "@-"], "'@-' is no address"),
        ]:
            self.assertIn(told, self.fails("account", "may-send-as", "alice@example.org", *options))
            self.assertEqual(self.database.senders(ALICE), ())

    def test_disable_and_enable(self) -> None:
        self.assertEqual(self.works("account", "disable", "alice@example.org"), "alice@example.org: disabled\n")
        self.assertIs(self.database.known(ALICE).enabled, False)
        self.assertIn("disabled", self.works("account", "list"))
        self.works("account", "enable", "alice@example.org")
        self.assertIs(self.database.known(ALICE).enabled, True)

    def test_quota_is_changed(self) -> None:
        for size, told in [("5 MiB", "5 MiB"), ("0", "no limit"), ("default", "1 GiB (default)")]:
            self.assertEqual(
                self.works("account", "quota", "alice@example.org", size), f"alice@example.org: quota is {told}\n"
            )

    def test_remove_asks_and_says_where_the_mail_stays(self) -> None:
        mail = self.data / "mail" / "example.org" / "alice"
        result = self.run_command("account", "remove", "alice@example.org", stdin="n\n")
        self.assertEqual(result.exit_code, 1)
        self.assertIn(str(mail), result.stdout)
        self.assertTrue(self.database.any_account())
        self.works("account", "remove", "alice@example.org", stdin="y\n")
        self.assertFalse(self.database.any_account())

    def test_remove_tells_which_aliases_still_lead_there(self) -> None:
        self.works("alias", "add", "info@example.org", "alice@example.org")
        result = self.run_command("account", "remove", "--yes", "alice@example.org")
        self.assertEqual(result.exit_code, 0)
        self.assertEqual(result.stderr, "aliases still lead to it: info@example.org\n")

    def test_accounts_that_are_not_there_cannot_be_changed(self) -> None:
        for command in (["passwd"], ["disable"], ["enable"], ["remove", "--yes"], ["show"], ["may-send-as"]):
            told = self.fails("account", *command, "bob@example.org", stdin="x\n")
            self.assertEqual(told, "Error: bob@example.org: no such account\n", command)
        self.assertIn("no such account", self.fails("account", "quota", "bob@example.org", "0"))


class ShowTests(AccountsCommandCase):
    def test_a_list_is_text_or_json(self) -> None:
        self.add_account("Bob@example.org")
        self.works("account", "add", "alice@example.org", "--quota", "0", "--password-stdin", stdin="open sesame\n")
        self.assertEqual(self.works("account", "list"), "alice@example.org  no limit\nBob@example.org    1 GiB\n")
        entries = json.loads(self.works("account", "list", "--format", "json"))
        self.assertEqual([entry["address"] for entry in entries], ["alice@example.org", "Bob@example.org"])
        self.assertEqual([entry["quota"] for entry in entries], [0, 2**30])
        self.assertEqual([entry["quota_is_default"] for entry in entries], [False, True])

    def test_an_empty_list_makes_no_database(self) -> None:
        result = self.run_command("account", "list")
        self.assertEqual((result.exit_code, result.stdout, result.stderr), (0, "", "no accounts\n"))
        self.assertEqual(self.works("account", "list", "--format", "json"), "[]\n")
        self.assertEqual(os.listdir(self.data), [])

    def test_show_tells_all_but_the_hashes(self) -> None:
        self.add_account("alice@example.org")
        self.works("alias", "add", "@example.org", "alice@example.org")
        shown = self.works("account", "show", "ALICE@example.org")
        for line in (
            "address   alice@example.org",
            "enabled   yes",
            "quota     1 GiB (default)",
            "password  ARGON2ID, SCRAM-SHA-256, CRAM-MD5",
            "logins    SCRAM-SHA-256-PLUS, SCRAM-SHA-256, PLAIN, LOGIN, CRAM-MD5",
            "aliases   @example.org",
            "sends as  itself and its aliases",
            f"mail      {self.data}/mail/example.org/alice",
        ):
            self.assertIn(line + "\n", shown)
        entry = json.loads(self.works("account", "show", "alice@example.org", "--format", "json"))
        self.assertEqual(
            (entry["schemes"], entry["aliases"]), (["ARGON2ID", "SCRAM-SHA-256", "CRAM-MD5"], ["@example.org"])
        )
        self.assertEqual(entry["mechanisms"], ["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "PLAIN", "LOGIN", "CRAM-MD5"])
        for stored in self.database.credentials(ALICE.key):
            self.assertNotIn(stored[-20:], shown + json.dumps(entry))

    def test_show_tells_what_an_account_without_keys_can_do_and_whom_it_may_be(self) -> None:
        self.database.add_account(ALICE, (CRAM_MD5,))
        self.works("account", "may-send-as", "alice@example.org", "--add", "@example.net", "--add", "b@example.org")
        shown = self.works("account", "show", "alice@example.org")
        self.assertIn("logins    PLAIN, LOGIN, CRAM-MD5\n", shown)
        self.assertIn("sends as  @example.net, b@example.org\n", shown)
        entry = json.loads(self.works("account", "show", "alice@example.org", "--format", "json"))
        self.assertEqual(entry["may_send_as"], ["@example.net", "b@example.org"])


class ImportTests(AccountsCommandCase):
    def test_good_lines_are_imported(self) -> None:
        path = self.write(
            "users",
            f"alice@example.org:{CRAM_MD5}::::::userdb_quota_rule=*:storage=1G\nbob:{{PLAIN}}secret\n",
        )
        self.assertEqual(self.works("account", "import", path, "--domain", "example.org"), "2 imported, 0 skipped\n")
        self.assertEqual(self.database.known(ALICE).own_quota, 2**30)
        self.assertTrue(verify(self.database.credentials("alice@example.org"), "secret"))
        self.assertTrue(verify(self.database.credentials("bob@example.org"), "secret"))
        self.assertEqual(len(self.database.credentials("bob@example.org")), 3)

    def test_contexts_are_not_made_when_not_wanted(self) -> None:
        path = self.write("users", "bob@example.org:{PLAIN}secret\n")
        self.works("account", "import", path, "--no-cram-md5", "--no-scram")
        self.assertEqual(len(self.database.credentials("bob@example.org")), 1)

    def test_problems_are_told_by_line_and_nothing_is_imported(self) -> None:
        self.add_account("alice@example.org")
        self.works("alias", "add", "info@example.org", "alice@example.org")
        path = self.write(
            "users",
            "\n".join(
                [
                    f"new@example.org:{CRAM_MD5}",
                    f"ALICE@example.org:{CRAM_MD5}",
                    "broken",
                    f"info@example.org:{CRAM_MD5}",
                    f"alice@example.net:{CRAM_MD5}",
                ]
            ),
        )
        told = self.fails("account", "import", path).splitlines()
        self.assertEqual(
            told,
            [
                f"{path}:2: ALICE@example.org: there is an account of this address",
                f"{path}:3: no colon: user:{{SCHEME}}hash:... was expected",
                f"{path}:4: info@example.org: there is an alias of this address",
                f"{path}:5: alice@example.net: example.net is not one of our domains",
                "Error: nothing was imported; --skip-problems imports the other lines",
            ],
        )
        self.assertEqual(len(self.database.accounts()), 1)
        result = self.run_command("account", "import", path, "--skip-problems")
        self.assertEqual((result.exit_code, result.stdout), (0, "1 imported, 4 skipped\n"))
        self.assertEqual(len(self.database.accounts()), 2)

    def test_files_that_cannot_be_read_are_told(self) -> None:
        path = self.write("users", b"\xff:\n")
        self.assertEqual(self.fails("account", "import", path), f"Error: {path}: not UTF-8\n")
        missing = str(self.folder / "missing")
        self.assertEqual(self.fails("account", "import", missing), f"Error: {missing}: No such file or directory\n")
