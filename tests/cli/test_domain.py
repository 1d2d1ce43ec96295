"""Tests of mailserver.cli.domain: domains beside those of the configuration."""

from __future__ import annotations

from click.testing import CliRunner, Result

from mailserver.cli.domain import domain
from mailserver.cli.main import Invocation
from tests.cli.with_accounts import AccountsCommandCase


class DomainTests(AccountsCommandCase):
    def run_domain(self, *args: str) -> Result:
        return CliRunner().invoke(domain, list(args), obj=Invocation(config=str(self.config)))

    def test_a_domain_is_added_in_its_normal_form_listed_and_removed(self) -> None:
        self.assertEqual(self.run_domain("add", "B\u00fccher.Example").stdout, "xn--bcher-kva.example: added\n")
        self.assertEqual(self.run_domain("list").stdout, "example.org  (configuration)\nxn--bcher-kva.example\n")
        self.assertEqual(self.run_domain("remove", "b\u00fccher.example").stdout, "xn--bcher-kva.example: removed\n")
        self.assertEqual(self.database.domains(), ())

    def test_what_cannot_be_is_refused(self) -> None:
        self.run_domain("add", "example.net")
        for args, reason in [
            (("add", "example.net"), "this domain is there"),
            (("add", "EXAMPLE.org"), "example.org: this domain is in the configuration"),
            (("remove", "example.org"), "this domain is in the configuration; remove it there"),
            (("remove", "example.com"), "example.com: no such domain here"),
            (("add", "a b"), "'a b' is no domain"),
            (("add", "[192.0.2.1]"), "is an address literal"),
        ]:
            result = self.run_domain(*args)
            self.assertEqual(result.exit_code, 1, args)
            self.assertIn(reason, result.stderr)

    def test_accounts_of_a_removed_domain_stay_and_are_counted(self) -> None:
        self.run_domain("add", "example.net")
        self.add_account("alice@example.net")
        result = self.run_domain("remove", "example.net")
        self.assertEqual((result.exit_code, result.stderr), (0, "1 of its accounts stay\n"))
        self.assertTrue(self.database.any_account())
