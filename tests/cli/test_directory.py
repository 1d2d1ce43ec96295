"""Tests of mailserver.cli.directory: the data directory, and what people type."""

from __future__ import annotations

import os
import pwd
import shutil
from pathlib import Path

import click
from twisted.trial.unittest import SynchronousTestCase

from mailserver import durable, privileges
from mailserver.cli.directory import DEFAULT_QUOTA, AddressArgument, DomainArgument, QuotaArgument, quota_text
from mailserver.config import loading
from tests.cli.with_accounts import AccountsCommandCase
from tests.config.pairs import ordinary_user


class OpenTests(AccountsCommandCase):
    def test_a_missing_data_directory_is_made_as_the_server_would(self) -> None:
        self.addCleanup(os.umask, os.umask(0))
        for command in (
            ("account", "add", "alice@example.org", "--password-stdin"),
            ("alias", "add", "a@example.org", "b@example.org"),
            ("domain", "add", "example.net"),
        ):
            shutil.rmtree(self.data)
            self.works(*command, stdin="open sesame\n")
            self.assertEqual(self.data.stat().st_mode & 0o7777, 0o700, command)

    def test_it_survives_a_power_cut(self) -> None:
        self.data.rmdir()
        made: list[tuple[Path, ...]] = []
        self.patch(durable, "make_directories", lambda *paths: (made.append(paths), self.data.mkdir()))
        self.works("domain", "add", "example.net")
        self.assertEqual(made, [(self.data,)])

    def test_what_root_makes_belongs_to_the_user_of_the_configuration(self) -> None:
        user = pwd.getpwnam(ordinary_user())
        self.config.write_text(self.config.read_text().replace("[server]", f'[server]\nuser = "{user.pw_name}"'))
        self.data.rmdir()
        given: list[tuple[object, ...]] = []
        self.patch(privileges.os, "chown", lambda *args, **_named: given.append(args))
        self.patch(privileges.os, "geteuid", lambda: 0)
        self.works("domain", "add", "example.net")
        self.assertEqual(given[0], (self.data, user.pw_uid, user.pw_gid))

    def test_a_data_directory_that_cannot_be_made_is_told(self) -> None:
        self.patch(loading, "DEFAULT_PATH", self.folder / "none.toml")
        (self.folder / "file").write_text("")
        data = self.folder / "file" / "data"
        self.options = ["--data", str(data)]
        self.assertEqual(self.fails("account", "show", "alice@example.org"), f"Error: {data}: Not a directory\n")


class ArgumentTests(SynchronousTestCase):
    def test_sizes(self) -> None:
        for text, octets in [("0", 0), ("17", 17), ("1 KiB", 1024), ("1 GB", 10**9), ("default", DEFAULT_QUOTA)]:
            self.assertEqual(QuotaArgument().convert(text, None, None), octets)
        for text in ("", "-1", "1.5", "+5", "1_0", "\u0661", "5 parsecs"):
            with self.assertRaises(click.ClickException, msg=text):
                QuotaArgument().convert(text, None, None)

    def test_addresses(self) -> None:
        self.assertEqual(str(AddressArgument().convert("a@example.org", None, None)), "a@example.org")
        self.assertEqual(AddressArgument(catch_all=True).convert("@Example.org", None, None).key, "@example.org")
        for text in ("", "a", "@example.org", "a@b@example.org", "a@-"):
            with self.assertRaises(click.ClickException, msg=text):
                AddressArgument().convert(text, None, None)
        for text in ("@", "@-", "@ex ample.org"):
            with self.assertRaises(click.ClickException, msg=text):
                AddressArgument(catch_all=True).convert(text, None, None)

    def test_domains_have_their_normal_form(self) -> None:
        self.assertEqual(DomainArgument().convert("Example.ORG.", None, None), "example.org")
        self.assertRaises(click.ClickException, DomainArgument().convert, "", None, None)

    def test_no_quota_is_told_in_words(self) -> None:
        self.assertEqual([quota_text(octets) for octets in (0, 2**20)], ["no limit", "1 MiB"])
