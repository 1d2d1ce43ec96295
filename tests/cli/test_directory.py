"""Tests of mailserver.cli.directory: the data directory, and what people type."""

from __future__ import annotations

import click
from twisted.trial.unittest import SynchronousTestCase

from mailserver.cli.directory import DEFAULT_QUOTA, AddressArgument, DomainArgument, QuotaArgument, quota_text
from mailserver.config import loading
from tests.cli.with_accounts import AccountsCommandCase


class OpenTests(AccountsCommandCase):
    def test_a_missing_data_directory_is_told(self) -> None:
        self.data.rmdir()
        told = self.fails("account", "add", "alice@example.org")
        self.assertEqual(
            told, f'Error: {self.data}: the data directory is missing; make it, or run "mailserver init"\n'
        )
        self.assertFalse(self.data.exists())

    def test_a_data_directory_that_cannot_be_made_is_told(self) -> None:
        self.patch(loading, "DEFAULT_PATH", self.folder / "none.toml")
        data = self.folder / "missing" / "data"
        self.options = ["--data", str(data)]
        self.assertEqual(
            self.fails("account", "show", "alice@example.org"), f"Error: {data}: No such file or directory\n"
        )


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
