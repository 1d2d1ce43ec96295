"""Tests of mailserver.accounts.database: accounts, aliases and domains on a real SQLite file."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mailserver.accounts import database as database_module
from mailserver.accounts.database import AccountsDatabase, Alias, show_source
from mailserver.accounts.schema import AccountsError
from mailserver.address import Address, parse_address
from mailserver.interfaces import AccountEntry, IDirectory

ALICE = parse_address("alice@example.org")
BOB = parse_address("bob@example.org")
CAROL = parse_address("carol@example.org")
REMOTE = parse_address("somebody@example.net")
EVERYBODY = Address("", "example.org")


class DatabaseTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.path = Path(self.mktemp())
        self.database = self.open(default_quota=1000)

    def open(self, default_quota: int = 0) -> AccountsDatabase:
        database = AccountsDatabase(self.path, default_quota=default_quota, now=lambda: 1234567890.9)
        self.addCleanup(database.close)
        return database

    def refused(self, *call: object, **named: object) -> str:
        return str(self.assertRaises(AccountsError, *call, **named))


class AccountTests(DatabaseTestCase):
    def test_it_is_a_directory_and_gives_entries(self) -> None:
        verifyObject(IDirectory, self.database)
        self.database.add_account(ALICE, ("{A}a",))
        verifyObject(AccountEntry, self.database.account(ALICE))

    def test_an_account_is_found_by_its_key_and_keeps_its_spelling(self) -> None:
        self.database.add_account(Address("Alice.Smith", "B\u00fccher.example"), ())
        for text in ("alice.smith@xn--bcher-kva.example", "ALICE.SMITH@b\u00fccher.EXAMPLE"):
            found = self.database.account(parse_address(text))
            assert found is not None
            self.assertEqual(str(found.address), "Alice.Smith@B\u00fccher.example")
        self.assertIsNone(self.database.account(parse_address("alice@xn--bcher-kva.example")))

    def test_a_new_account_is_enabled_and_has_the_default_quota(self) -> None:
        self.database.add_account(ALICE, ())
        found = self.database.known(ALICE)
        self.assertEqual((found.enabled, found.quota, found.own_quota, found.created), (True, 1000, None, 1234567890))
        self.database.default_quota = 7
        self.assertEqual(self.database.known(ALICE).quota, 7)

    def test_an_own_quota_stays_whatever_the_default_is(self) -> None:
        self.database.add_account(ALICE, (), quota=0)
        self.assertEqual((self.database.known(ALICE).quota, self.database.known(ALICE).own_quota), (0, 0))
        self.database.set_quota(ALICE, 5)
        self.assertEqual(self.database.known(ALICE).quota, 5)
        self.database.set_quota(ALICE, None)
        self.assertEqual(self.database.known(ALICE).quota, 1000)

    def test_a_quota_that_cannot_be_is_refused(self) -> None:
        for quota in (-1, 2**63):
            self.assertIn("quota", self.refused(self.database.add_account, ALICE, (), quota=quota))
        self.database.add_account(ALICE, (), quota=2**63 - 1)
        self.assertIn("quota", self.refused(self.database.set_quota, ALICE, 2**63))

    def test_an_account_is_there_once(self) -> None:
        self.database.add_account(ALICE, ("{A}a",))
        told = self.refused(self.database.add_account, Address("ALICE", "example.org"), ("{B}b",))
        self.assertEqual(told, "ALICE@example.org: there is an account of this address")
        self.assertEqual(self.database.credentials(ALICE.key), ("{A}a",))

    def test_hashes_are_kept_in_their_order_and_replaced_together(self) -> None:
        self.database.add_account(ALICE, ("{B}b", "{A}a"))
        self.database.add_account(BOB, ("{C}c",))
        self.assertEqual(self.database.credentials(ALICE.key), ("{B}b", "{A}a"))
        self.database.set_passwords(ALICE, ("{D}d",))
        self.assertEqual(self.database.credentials(ALICE.key), ("{D}d",))
        self.assertEqual(self.database.credentials(BOB.key), ("{C}c",))
        self.assertEqual(self.database.credentials(CAROL.key), ())

    def test_no_repr_shows_a_hash(self) -> None:
        self.database.add_account(ALICE, ("{A}verysecret",))
        for value in (self.database, self.database.known(ALICE), self.database.accounts()):
            self.assertNotIn("verysecret", repr(value))

    def test_disabled_accounts_are_found(self) -> None:
        self.database.add_account(ALICE, ())
        self.database.set_enabled(ALICE, enabled=False)
        self.assertIs(self.database.known(ALICE).enabled, False)
        self.database.set_enabled(ALICE, enabled=True)
        self.assertIs(self.database.known(ALICE).enabled, True)

    def test_a_removed_account_leaves_no_hash(self) -> None:
        self.assertFalse(self.database.any_account())
        self.database.add_account(ALICE, ("{A}a",))
        self.assertTrue(self.database.any_account())
        self.database.remove_account(ALICE)
        self.assertIsNone(self.database.account(ALICE))
        self.assertEqual(self.database.credentials(ALICE.key), ())
        self.assertFalse(self.database.any_account())

    def test_changes_of_an_unknown_account_are_refused(self) -> None:
        for change, more in [
            (self.database.remove_account, {}),
            (self.database.set_enabled, {"enabled": True}),
            (self.database.known, {}),
        ]:
            self.assertEqual(self.refused(change, BOB, **more), "bob@example.org: no such account")
        self.assertIn("no such account", self.refused(self.database.set_passwords, BOB, ("{A}a",)))
        self.assertIn("no such account", self.refused(self.database.set_quota, BOB, 1))

    def test_accounts_are_listed_by_domain_and_name(self) -> None:
        for address in (REMOTE, BOB, ALICE):
            self.database.add_account(address, ())
        self.assertEqual([found.address for found in self.database.accounts()], [REMOTE, ALICE, BOB])

    @given(st.text(min_size=1, max_size=20))
    @settings(deadline=None, max_examples=100)
    def test_any_local_part_is_found_again(self, local: str) -> None:
        try:
            address = parse_address(str(Address(local, "example.com")))
        except ValueError:
            return
        if self.database.account(address) is None:
            self.database.add_account(address, ())
        self.assertEqual(self.database.known(address).address.key, address.key)


class AliasTests(DatabaseTestCase):
    def test_an_alias_has_targets_here_and_elsewhere(self) -> None:
        self.database.add_alias(ALICE, [BOB, REMOTE])
        self.database.add_alias(ALICE, [CAROL, BOB])
        self.assertEqual(set(self.database.alias(Address("ALICE", "Example.ORG"))), {BOB, REMOTE, CAROL})
        self.assertEqual(len(self.database.alias(ALICE)), 3)
        self.assertEqual(self.database.alias(BOB), ())
        self.assertEqual(self.database.aliases_to(BOB), (ALICE,))

    def test_targets_keep_their_spelling(self) -> None:
        target = parse_address("Some.Body@Example.NET")
        self.database.add_alias(ALICE, [target])
        self.assertEqual(str(self.database.alias(ALICE)[0]), "Some.Body@Example.NET")

    def test_a_catch_all_is_that_of_its_domain(self) -> None:
        self.database.add_alias(EVERYBODY, [REMOTE])
        self.assertEqual(self.database.catch_all("example.org"), (REMOTE,))
        self.assertEqual(self.database.catch_all("example.com"), ())
        self.assertEqual(self.database.alias(ALICE), ())
        self.assertEqual(show_source(EVERYBODY), "@example.org")

    def test_an_account_and_an_alias_cannot_share_an_address(self) -> None:
        self.database.add_account(ALICE, ())
        self.assertIn("there is an account", self.refused(self.database.add_alias, ALICE, [BOB]))
        self.database.add_alias(BOB, [ALICE])
        self.assertIn("there is an alias", self.refused(self.database.add_account, BOB, ()))

    def test_an_alias_never_leads_back_to_itself(self) -> None:
        self.database.add_account(CAROL, ())
        for steps, told in [
            ([(ALICE, [ALICE])], "alice@example.org -> alice@example.org"),
            ([(ALICE, [REMOTE, BOB]), (BOB, [ALICE])], "bob@example.org -> alice@example.org -> bob@example.org"),
            ([(EVERYBODY, [ALICE])], "@example.org -> alice@example.org -> @example.org"),
            (
                [(ALICE, [REMOTE]), (EVERYBODY, [ALICE]), (ALICE, [BOB])],
                "alice@example.org -> bob@example.org -> @example.org -> alice@example.org",
            ),
        ]:
            *earlier, last = steps
            for source, targets in earlier:
                self.database.add_alias(source, targets)
            self.assertIn(f"{told}: the alias would lead back", self.refused(self.database.add_alias, *last))
            for alias in self.database.aliases():
                self.database.remove_alias(alias.source)

    def test_a_refused_alias_changes_nothing(self) -> None:
        self.database.add_alias(ALICE, [REMOTE])
        self.refused(self.database.add_alias, ALICE, [BOB, ALICE])
        self.assertEqual(self.database.alias(ALICE), (REMOTE,))

    def test_a_way_that_ends_at_an_account_is_no_loop(self) -> None:
        self.database.add_account(CAROL, ())
        self.database.add_alias(EVERYBODY, [CAROL])
        self.database.add_alias(ALICE, [CAROL, BOB])
        self.database.add_alias(BOB, [CAROL])
        self.assertEqual(len(self.database.aliases()), 3)

    def test_aliases_are_listed_with_all_their_targets(self) -> None:
        self.database.add_alias(ALICE, [BOB])
        self.database.add_alias(EVERYBODY, [REMOTE])
        self.database.add_alias(Address("ALICE", "example.org"), [CAROL])
        self.assertEqual(self.database.aliases(), (Alias(EVERYBODY, (REMOTE,)), Alias(ALICE, (BOB, CAROL))))

    def test_targets_are_removed_one_by_one_or_all(self) -> None:
        self.database.add_alias(ALICE, [BOB, CAROL, REMOTE])
        self.database.remove_alias(ALICE, [Address("BOB", "example.org")])
        self.assertEqual(self.database.alias(ALICE), (CAROL, REMOTE))
        self.assertIn("not among its targets", self.refused(self.database.remove_alias, ALICE, [CAROL, BOB]))
        self.assertEqual(self.database.alias(ALICE), (CAROL, REMOTE))
        self.database.remove_alias(ALICE)
        self.assertEqual(self.refused(self.database.remove_alias, ALICE), "alice@example.org: no such alias")


class DomainTests(DatabaseTestCase):
    def test_domains_are_added_and_removed(self) -> None:
        self.database.add_domain("example.com")
        self.database.add_domain("example.net")
        self.assertTrue(self.database.has_domain("example.com"))
        self.assertFalse(self.database.has_domain("example.org"))
        self.assertEqual(self.database.domains(), ("example.com", "example.net"))
        self.assertEqual(self.refused(self.database.add_domain, "example.com"), "example.com: this domain is there")
        self.database.remove_domain("example.com")
        self.assertEqual(self.database.domains(), ("example.net",))
        self.assertIn("no such domain", self.refused(self.database.remove_domain, "example.com"))


class SenderTests(DatabaseTestCase):
    def may(self, sender: str, separator: str = "+") -> bool:
        return self.database.may_send_as(ALICE, parse_address(sender), separator)

    def test_the_own_address_and_aliases_may_be_used(self) -> None:
        self.database.add_account(ALICE, ())
        self.database.add_account(BOB, ())
        self.database.add_alias(parse_address("info@example.net"), [BOB, ALICE])
        self.database.add_alias(parse_address("sales@example.net"), [BOB])
        for sender, separator, may in [
            (ALICE.key, "+", True),
            (ALICE.key.upper(), "+", True),
            (ALICE.key.replace("@", "+list@"), "+", True),
            (ALICE.key.replace("@", "+list@"), "", False),
            (ALICE.key.replace("@", "+list@"), "-", False),
            (ALICE.key.replace("@", "-list@"), "-", True),
            ("info@example.net", "+", True),
            ("INFO+x@Example.net", "+", True),
            ("sales@example.net", "+", False),
            (BOB.key, "+", False),
            (ALICE.local + "@example.com", "+", False),
        ]:
            self.assertIs(self.may(sender, separator), may, (sender, separator))

    def test_a_catch_all_alone_allows_nothing(self) -> None:
        self.database.add_account(ALICE, ())
        self.database.add_alias(Address("", "example.net"), [ALICE])
        self.assertFalse(self.may("boss@example.net"))
        self.assertFalse(self.database.may_send_as(ALICE, Address("", "example.net"), "+"))

    def test_entries_allow_addresses_and_whole_domains(self) -> None:
        self.database.add_account(ALICE, ())
        self.database.change_senders(ALICE, add=[parse_address("Boss@example.com"), Address("", "example.net")])
        for sender, may in [
            ("boss@example.com", True),
            ("boss+x@example.com", False),
            ("other@example.com", False),
            ("any+thing@EXAMPLE.net", True),
            ("any@sub.example.net", False),
        ]:
            self.assertIs(self.may(sender), may, sender)
        self.assertFalse(self.database.may_send_as(BOB, parse_address("boss@example.com"), "+"))
        self.assertEqual(
            [show_source(each) for each in self.database.senders(ALICE)], ["Boss@example.com", "@example.net"]
        )

    def test_entries_go_with_their_account(self) -> None:
        self.database.add_account(ALICE, ())
        self.database.change_senders(ALICE, add=[BOB])
        self.database.remove_account(ALICE)
        self.database.add_account(ALICE, ())
        self.assertEqual(self.database.senders(ALICE), ())

    def test_a_change_happens_whole_or_not_at_all(self) -> None:
        self.database.add_account(ALICE, ())
        self.assertIn(
            "not among what it may send as",
            self.refused(self.database.change_senders, ALICE, add=[BOB], remove=[parse_address("x@example.org")]),
        )
        self.assertEqual(self.database.senders(ALICE), ())
        self.assertIn("no such account", self.refused(self.database.change_senders, BOB, add=[ALICE]))

    @given(
        st.sampled_from(["a", "A", "b", "a+x", "@"]), st.sampled_from(["example.org", "EXAMPLE.org", "example.net"])
    )
    @settings(deadline=None, max_examples=50)
    def test_nobody_is_somebody_else_without_an_entry(self, local: str, domain: str) -> None:
        sender = Address(local, domain)
        own = parse_address("a@example.org")
        self.assertIs(self.database.may_send_as(own, sender, "+"), sender.split_detail("+")[0].key == own.key)


class SecretTests(DatabaseTestCase):
    def test_a_secret_stays_and_every_file_has_its_own(self) -> None:
        secret = self.database.secret("scram")
        self.assertEqual((len(secret), self.open().secret("scram")), (32, secret))
        other = AccountsDatabase(Path(self.mktemp()))
        self.addCleanup(other.close)
        self.assertNotEqual(other.secret("scram"), secret)
        self.assertRaises(KeyError, self.database.secret, "none")


class VersionTests(DatabaseTestCase):
    """See also tests/test_routing_cache.py: what is kept by the version is never stale."""

    def setUp(self) -> None:
        super().setUp()
        self.other = self.open()
        self.seconds = 100.0
        self.patch(self.database, "_seconds", lambda: self.seconds)
        self.before = self.database.version()

    def changed(self) -> bool:
        before, self.before = self.before, self.database.version()
        return self.before != before

    def raw(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, isolation_level=None)
        self.addCleanup(connection.close)
        return connection

    def test_it_stays_while_nothing_is_written(self) -> None:
        self.other.account(ALICE)
        for seconds in (0, 0.5, 1, 100, -50):
            self.seconds += seconds
            self.assertFalse(self.changed(), seconds)
            self.assertIsNotNone(self.before)

    def test_every_write_changes_it_at_once_for_all(self) -> None:
        for write in (
            lambda database: database.add_account(ALICE, ("{A}a",)),
            lambda database: database.set_passwords(ALICE, ()),
            lambda database: database.set_quota(ALICE, 5),
            lambda database: database.set_enabled(ALICE, enabled=False),
            lambda database: database.change_senders(ALICE, add=(BOB,)),
            lambda database: database.add_alias(BOB, (ALICE,)),
            lambda database: database.remove_alias(BOB),
            lambda database: database.add_domain("example.com"),
            lambda database: database.remove_domain("example.com"),
            lambda database: database.remove_account(ALICE),
        ):
            with self.assertRaises(AccountsError), self.other.together():
                write(self.other)
                raise AccountsError("not so")
            self.changed()
            write(self.other)
            self.assertTrue(self.changed())
            self.assertFalse(self.changed())
        self.database.add_account(CAROL, ())
        self.assertTrue(self.changed())

    def test_the_default_quota_changes_it_too(self) -> None:
        self.database.default_quota = 5
        self.assertTrue(self.changed())

    def test_writes_together_change_it_when_they_are_done(self) -> None:
        with self.other.together():
            self.other.add_account(ALICE, ())
            self.assertFalse(self.changed())
        self.assertTrue(self.changed())

    def test_there_is_none_amid_writes_of_its_own(self) -> None:
        with self.database.together():
            self.database.add_account(ALICE, ())
            self.assertIsNone(self.database.version())
        self.assertIsNotNone(self.database.version())

    def test_there_is_none_when_others_could_not_tell_of_their_writes(self) -> None:
        self.database.close()
        generation = self.path.with_name(self.path.name + "-generation")
        generation.unlink()
        generation.mkdir()
        self.assertIsNone(self.database.version())
        generation.rmdir()
        self.assertIsNotNone(self.database.version())

    def test_writes_by_other_programs_change_it_within_a_second(self) -> None:
        for step in (database_module.LOOK_SECONDS, -1.0):  # a clock that goes back is no clock to wait for
            self.raw().execute("INSERT INTO domains VALUES (?, 0)", (f"{step}.example.org",))
            self.seconds += step
            self.assertTrue(self.changed())

    def test_what_was_closed_may_have_changed(self) -> None:
        self.database.close()
        self.raw().execute("INSERT INTO domains VALUES ('example.com', 0)")
        self.assertTrue(self.changed())

    def test_nothing_is_missed_when_the_file_is_replaced(self) -> None:
        self.path.with_name(self.path.name + "-generation").unlink()
        self.other.version()
        self.seconds += 1
        self.changed()
        self.other.add_account(ALICE, ())
        self.assertTrue(self.changed())


class SharingTests(DatabaseTestCase):
    def test_changes_by_another_are_seen_at_once(self) -> None:
        other = self.open()
        self.assertIsNone(self.database.account(ALICE))
        other.add_account(ALICE, ("{A}a",))
        self.assertIsNotNone(self.database.account(ALICE))
        other.set_passwords(ALICE, ("{B}b",))
        self.assertEqual(self.database.credentials(ALICE.key), ("{B}b",))
        other.set_enabled(ALICE, enabled=False)
        self.assertIs(self.database.known(ALICE).enabled, False)
        other.add_alias(BOB, [ALICE])
        other.add_domain("example.com")
        self.assertEqual(self.database.alias(BOB), (ALICE,))
        self.assertTrue(self.database.has_domain("example.com"))
        other.remove_account(ALICE)
        self.assertIsNone(self.database.account(ALICE))

    def test_a_reader_does_not_wait_for_a_writer_and_sees_only_what_is_done(self) -> None:
        other = self.open()
        with other.together():
            other.add_account(ALICE, ())
            self.assertIsNone(self.database.account(ALICE))
        self.assertIsNotNone(self.database.account(ALICE))

    def test_writes_together_happen_all_or_not_at_all(self) -> None:
        with self.assertRaises(AccountsError), self.database.together():
            self.database.add_account(ALICE, ())
            self.database.add_account(ALICE, ())
        self.assertIsNone(self.database.account(ALICE))
        with self.database.together():
            self.database.add_account(ALICE, ())
            self.database.add_account(BOB, ())
        self.assertEqual(len(self.database.accounts()), 2)

    def test_a_closed_database_opens_itself_again(self) -> None:
        self.database.add_account(ALICE, ())
        self.database.close()
        self.database.close()
        self.assertIsNotNone(self.database.account(ALICE))

    def test_a_connection_is_not_carried_over_a_fork(self) -> None:
        self.database.add_account(ALICE, ())
        before = self.database._open()
        real = database_module.os.getpid()
        self.patch(database_module.os, "getpid", lambda: real + 1)
        self.assertIsNot(self.database._open(), before)
        self.assertIsNotNone(self.database.account(ALICE))
        self.database.close()
        # That of the parent was not closed.
        self.assertEqual(before.execute("SELECT 1").fetchone(), (1,))
        self.patch(database_module.os, "getpid", lambda: real)

    def test_another_thread_is_refused(self) -> None:
        self.database.any_account()
        caught: list[Exception] = []

        def use() -> None:
            try:
                self.database.any_account()
            except sqlite3.Error as error:
                caught.append(error)

        thread = threading.Thread(target=use)
        thread.start()
        thread.join()
        self.assertEqual(len(caught), 1)
