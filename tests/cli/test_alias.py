"""Tests of mailserver.cli.alias: each subcommand with a real configuration and database."""

from __future__ import annotations

import json
import os

from mailserver.address import parse_address
from tests.cli.with_accounts import AccountsCommandCase


class AliasTests(AccountsCommandCase):
    def test_aliases_are_added_to_local_and_remote_addresses(self) -> None:
        self.assertEqual(
            self.works("alias", "add", "info@example.org", "alice@example.org", "Bob@example.net"),
            "info@example.org: goes to alice@example.org, Bob@example.net\n",
        )
        self.works("alias", "add", "info@example.org", "carol@example.org")
        targets = self.database.alias(parse_address("INFO@example.org"))
        self.assertEqual(list(map(str, targets)), ["alice@example.org", "Bob@example.net", "carol@example.org"])

    def test_a_catch_all_starts_with_an_at_sign(self) -> None:
        self.works("alias", "add", "@Example.ORG", "somebody@example.net")
        self.assertEqual(len(self.database.catch_all("example.org")), 1)
        self.works("alias", "remove", "@example.org")
        self.assertEqual(self.database.catch_all("example.org"), ())

    def test_a_target_of_ours_that_nobody_has_is_told(self) -> None:
        self.add_account("alice@example.org")
        told = self.run_command(
            "alias", "add", "info@example.org", "alice+x@example.org", "bob@example.net", "typo@example.org"
        )
        self.assertEqual(told.exit_code, 0)
        self.assertEqual(
            told.stderr,
            "warning: typo@example.org is neither an account nor an alias yet; mail for it will be refused\n",
        )

    def test_what_cannot_be_is_refused(self) -> None:
        self.add_account("alice@example.org")
        self.works("alias", "add", "a@example.org", "b@example.org")
        for source, target, reason in [
            ("alice@example.org", "bob@example.net", "there is an account of this address"),
            (
                "b@example.org",
                "a@example.org",
                "b@example.org -> a@example.org -> b@example.org: the alias would lead",
            ),
            ("a@example.org", "A@example.org", "a@example.org -> A@example.org: the alias would lead back to itself"),
            ("a@example.net", "alice@example.org", "example.net is not one of our domains"),
            ("@example.net", "alice@example.org", "example.net is not one of our domains"),
            ("@", "alice@example.org", "is no address: domain is missing"),
            ("a", "alice@example.org", "is no address: domain is missing"),
            ("c@example.org", "@example.net", "is no address: local part is empty"),
            ("c@example.org", "postmaster", "is no address: domain is missing"),
        ]:
            self.assertIn(reason, self.fails("alias", "add", source, target), source)
        self.assertEqual(len(self.database.aliases()), 1)

    def test_a_list_is_text_or_json(self) -> None:
        self.works("alias", "add", "info@example.org", "bob@example.net", "alice@example.org")
        self.works("alias", "add", "@example.org", "bob@example.net")
        self.assertEqual(
            self.works("alias", "list"),
            "@example.org -> bob@example.net\ninfo@example.org -> alice@example.org, bob@example.net\n",
        )
        self.assertEqual(
            json.loads(self.works("alias", "list", "--format", "json")),
            {"@example.org": ["bob@example.net"], "info@example.org": ["alice@example.org", "bob@example.net"]},
        )

    def test_an_empty_list_makes_no_database(self) -> None:
        result = self.run_command("alias", "list")
        self.assertEqual((result.exit_code, result.stdout, result.stderr), (0, "", "no aliases\n"))
        self.assertEqual(self.works("alias", "list", "--format", "json"), "{}\n")
        self.assertEqual(os.listdir(self.data), [])

    def test_an_alias_is_removed_whole_or_by_target(self) -> None:
        self.works("alias", "add", "info@example.org", "a@example.org", "b@example.org", "c@example.org")
        self.assertEqual(
            self.works("alias", "remove", "info@example.org", "b@example.org"),
            "info@example.org to b@example.org: removed\n",
        )
        self.assertEqual(len(self.database.alias(parse_address("info@example.org"))), 2)
        self.assertIn("not among its targets", self.fails("alias", "remove", "info@example.org", "b@example.org"))
        self.works("alias", "remove", "info@example.org")
        self.assertEqual(
            self.fails("alias", "remove", "info@example.org"), "Error: info@example.org: no such alias\n"
        )
