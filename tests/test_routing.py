"""Where mail goes: accounts before aliases before details before catch-alls, no open relay, and no circle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from mailserver import reply as replies
from mailserver.accounts.database import Account
from mailserver.address import Address, parse_address
from mailserver.interfaces import IDirectory
from mailserver.reply import Refusal, Reply
from mailserver.routing import DISABLED, MAX_DEPTH, MAX_TARGETS, DevelopmentRouter, Local, LocalDomain, Remote, Router


@implementer(IDirectory)
class Directory:
    """Accounts, aliases and domains in memory.  asked: how many addresses were looked up."""

    def __init__(self, *accounts: str, disabled: tuple[str, ...] = (), domains: tuple[str, ...] = ()) -> None:
        self.asked = 0
        self.domains = domains
        self.aliases: dict[str, tuple[Address, ...]] = {}
        self.accounts: dict[str, Account] = {}
        for text in (*accounts, *disabled):
            address = parse_address(text)
            self.accounts[address.key] = Account(address, 7, text not in disabled, None, 0)

    def alias_of(self, source: str, *targets: str) -> None:
        key = source if source.startswith("@") else parse_address(source).key
        self.aliases[key] = tuple(map(parse_address, targets))

    def account(self, address: Address) -> Account | None:
        self.asked += 1
        return self.accounts.get(address.key)

    def alias(self, address: Address) -> tuple[Address, ...]:
        return self.aliases.get(address.key, ())

    def catch_all(self, domain: str) -> tuple[Address, ...]:
        return self.aliases.get(f"@{domain}", ())

    def has_domain(self, domain: str) -> bool:
        return domain in self.domains

    def any_account(self) -> bool:
        return bool(self.accounts)

    def may_send_as(self, account: Address, sender: Address, separator: str) -> bool:
        return account.key == sender.key


def mailbox(address: Address) -> Path:
    return Path("/mail", address.key)


def local(text: str, account: str = "") -> Local:
    return Local(mailbox(parse_address(account or text)), parse_address(text), 7)


def remote(text: str) -> Remote:
    return Remote(parse_address(text))


class RouterCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = Directory(
            "joe@example.org",
            "ann@example.org",
            "a+b@example.org",
            "j\u00f6rg@b\u00fccher.example.org",
            disabled=("off@example.org",),
        )

    def router(self, *domains: LocalDomain, postmaster: str | None = None) -> Router:
        own = domains or (LocalDomain("example.org"), LocalDomain("xn--bcher-kva.example.org"))
        return Router(
            {domain.name: domain for domain in own},
            self.directory,
            mailbox,
            parse_address(postmaster) if postmaster else None,
        )

    def route(self, text: str, router: Router | None = None, *, may_relay: bool = False) -> list[Any]:
        address = parse_address(text, need_domain=False)
        return list((router or self.router()).route(address, may_relay=may_relay))

    def refused(self, text: str, reply: Reply, router: Router | None = None, *, may_relay: bool = False) -> None:
        with self.assertRaises(Refusal) as caught:
            self.route(text, router, may_relay=may_relay)
        self.assertEqual(caught.exception.reply, reply, text)


class AccountTests(RouterCase):
    def test_mail_for_an_account_goes_into_its_mailbox(self) -> None:
        self.assertEqual(self.route("joe@example.org"), [local("joe@example.org")])

    def test_the_address_is_kept_as_it_was_given(self) -> None:
        (target,) = self.route("JOE@Example.ORG")
        self.assertEqual(
            (target.path, str(target.address)), (mailbox(parse_address("joe@example.org")), "JOE@Example.ORG")
        )

    def test_the_detail_is_kept_in_the_address(self) -> None:
        (target,) = self.route("Joe+List@example.org")
        self.assertEqual(target, local("Joe+List@example.org", "joe@example.org"))

    def test_an_account_with_a_separator_in_its_name_comes_before_the_detail(self) -> None:
        self.directory.accounts["a@example.org"] = Account(parse_address("a@example.org"), 7, True, None, 0)
        self.assertEqual(self.route("a+b@example.org"), [local("a+b@example.org")])
        self.assertEqual(self.route("a+c@example.org"), [local("a+c@example.org", "a@example.org")])

    def test_an_empty_detail_is_a_detail(self) -> None:
        self.assertEqual(self.route("joe+@example.org"), [local("joe+@example.org", "joe@example.org")])

    def test_the_separator_is_the_domains(self) -> None:
        dash, none = (
            self.router(LocalDomain("example.org", separator="-")),
            self.router(LocalDomain("example.org", separator="")),
        )
        self.assertEqual(self.route("joe-x@example.org", dash), [local("joe-x@example.org", "joe@example.org")])
        self.refused("joe+x@example.org", replies.UNKNOWN_USER, dash)
        self.refused("joe+x@example.org", replies.UNKNOWN_USER, none)

    def test_unknown_and_disabled_users_are_refused(self) -> None:
        self.refused("nobody@example.org", replies.UNKNOWN_USER)
        self.refused("off@example.org", DISABLED)
        self.refused("off+x@example.org", DISABLED)
        self.refused("+joe@example.org", replies.UNKNOWN_USER)

    def test_international_domains_are_found_in_any_form(self) -> None:
        for text in ("j\u00f6rg@b\u00fccher.example.org", "JO\u0308RG@xn--BCHER-kva.example.org"):
            (target,) = self.route(text)
            self.assertEqual(target.path, mailbox(parse_address("j\u00f6rg@b\u00fccher.example.org")), text)

    def test_a_domain_of_the_directory_is_ours_too(self) -> None:
        self.refused("joe@example.net", replies.RELAYING_DENIED)
        self.directory.domains = ("example.net",)
        self.refused("joe@example.net", replies.UNKNOWN_USER)
        self.directory.accounts["joe@example.net"] = Account(parse_address("joe@example.net"), 7, True, None, 0)
        self.assertEqual(self.route("joe+x@example.net"), [local("joe+x@example.net", "joe@example.net")])


class RelayTests(RouterCase):
    def test_mail_for_other_domains_is_for_those_who_may_relay(self) -> None:
        for text in (
            "a@example.com",
            "a@sub.example.org",
            "a@[192.0.2.1]",
            "a@xexample.org",
            "a@example.org.example.com",
        ):
            self.refused(text, replies.RELAYING_DENIED)
            self.assertEqual(self.route(text, may_relay=True), [remote(text)])

    def test_routes_written_into_the_local_part_are_only_names(self) -> None:
        for text in ("a%example.com@example.org", '"a@example.com"@example.org', "example.com!a@example.org"):
            self.refused(text, replies.UNKNOWN_USER, may_relay=True)

    @given(
        st.sampled_from(["joe", "nobody", "off", "joe+x", "a%example.com", "example.com!a", "postmaster", "list"]),
        st.text("abc.-0127[]:IPv6example.orgcom", min_size=1, max_size=30),
        st.booleans(),
    )
    @settings(deadline=None, max_examples=200)
    def test_nobody_reaches_a_foreign_domain_without_a_login(self, name: str, domain: str, wide: bool) -> None:
        directory = Directory("joe@example.org", domains=("example.net",) if wide else ())
        directory.alias_of("list@example.org", "x@example.com", "joe@example.org")
        router = Router({"example.org": LocalDomain("example.org")}, directory, mailbox)
        try:
            recipient = parse_address(f"{name}@{domain}")
        except ValueError:
            return
        ours = recipient.ascii_domain == "example.org" or (wide and recipient.ascii_domain == "example.net")
        try:
            targets = router.route(recipient, may_relay=False)
        except Refusal as refusal:
            self.assertEqual(refusal.reply == replies.RELAYING_DENIED, not ours)
        else:
            self.assertTrue(ours)
            self.assertNotIn(Remote(recipient), targets)
            self.assertTrue(targets)


class AliasTests(RouterCase):
    def test_an_account_comes_before_an_alias(self) -> None:
        self.directory.alias_of("joe@example.org", "ann@example.org")
        self.assertEqual(self.route("joe@example.org"), [local("joe@example.org")])

    def test_a_disabled_account_comes_before_an_alias_too(self) -> None:
        self.directory.alias_of("off@example.org", "ann@example.org")
        self.refused("off@example.org", DISABLED)

    def test_an_alias_leads_to_all_its_targets_here_and_elsewhere(self) -> None:
        self.directory.alias_of("All@example.org", "joe@example.org", "x@example.com", "ann+all@example.org")
        expected = [
            local("joe@example.org"),
            remote("x@example.com"),
            local("ann+all@example.org", "ann@example.org"),
        ]
        self.assertEqual(self.route("all@example.org"), expected)
        self.assertEqual(self.route("all+detail@example.org"), expected)

    def test_an_alias_with_a_detail_in_its_name_comes_first(self) -> None:
        self.directory.alias_of("joe+work@example.org", "ann@example.org")
        self.assertEqual(self.route("joe+work@example.org"), [local("ann@example.org")])

    def test_each_mailbox_gets_one_copy(self) -> None:
        self.directory.alias_of("b@example.org", "joe@example.org", "JOE+x@example.org", "x@example.com")
        self.directory.alias_of(
            "all@example.org", "joe@example.org", "b@example.org", "x@EXAMPLE.com", "b@example.org"
        )
        self.assertEqual(self.route("all@example.org"), [local("joe@example.org"), remote("x@example.com")])

    def test_a_target_that_is_unknown_or_disabled_is_skipped_while_another_works(self) -> None:
        for bad in ("gone@example.org", "off@example.org"):
            self.directory.alias_of("all@example.org", bad, "joe@example.org", bad)
            self.assertEqual(self.route("all@example.org"), [local("joe@example.org")])
            self.directory.alias_of("all@example.org", bad, "x@example.com")
            self.assertEqual(self.route("all@example.org"), [remote("x@example.com")])

    def test_when_no_target_works_the_first_refusal_is_told(self) -> None:
        self.directory.alias_of("all@example.org", "off@example.org", "gone@example.org")
        self.refused("all@example.org", DISABLED)
        self.directory.alias_of("all@example.org", "gone@example.org", "off@example.org")
        self.refused("all@example.org", replies.UNKNOWN_USER)

    def test_aliases_of_aliases_are_followed_to_a_depth(self) -> None:
        for length in (1, MAX_DEPTH):
            for number in range(length):
                self.directory.alias_of(f"l{number}@example.org", f"l{number + 1}@example.org")
            self.directory.alias_of(f"l{length - 1}@example.org", "joe@example.org")
            self.assertEqual(self.route("l0@example.org"), [local("joe@example.org")])
        self.directory.alias_of("start@example.org", "l0@example.org")
        self.refused("start@example.org", replies.LOCAL_TROUBLE)

    def test_a_circle_is_trouble_of_ours_and_nothing_is_lost(self) -> None:
        self.directory.alias_of("a@example.org", "b@example.org", "joe@example.org")
        self.directory.alias_of("b@example.org", "A@Example.org")
        for text in ("a@example.org", "b@example.org"):
            self.refused(text, replies.LOCAL_TROUBLE)
        self.directory.alias_of("self@example.org", "self@example.org")
        self.refused("self@example.org", replies.LOCAL_TROUBLE)
        self.directory.alias_of("plus@example.org", "plus+1@example.org")
        self.refused("plus@example.org", replies.LOCAL_TROUBLE)

    def test_an_alias_reached_in_two_ways_is_no_circle(self) -> None:
        self.directory.alias_of("a@example.org", "b@example.org", "c@example.org")
        self.directory.alias_of("b@example.org", "d@example.org")
        self.directory.alias_of("c@example.org", "d@example.org")
        self.directory.alias_of("d@example.org", "joe@example.org")
        self.assertEqual(self.route("a@example.org"), [local("joe@example.org")])

    def test_lists_that_hold_each_other_cost_no_more_than_their_members(self) -> None:
        # Without a memory of what was seen, this would be 20 ** 9 look-ups.
        names = [[f"l{level}-{number}@example.org" for number in range(20)] for level in range(9)]
        for level, following in zip(names, [*names[1:], ["joe@example.org"]], strict=True):
            for name in level:
                self.directory.alias_of(name, *following)
        self.assertEqual(self.route("l0-0@example.org"), [local("joe@example.org")])
        self.assertLess(self.directory.asked, 500)

    def test_a_list_of_1000_members_passes_and_a_longer_one_does_not(self) -> None:
        members = [f"m{number}@example.com" for number in range(MAX_TARGETS)]
        self.directory.alias_of("all@example.org", *members, members[0])
        self.assertEqual(len(self.route("all@example.org")), MAX_TARGETS)
        self.directory.alias_of("all@example.org", *members, "joe@example.org")
        self.refused("all@example.org", replies.LOCAL_TROUBLE)

    @given(
        st.dictionaries(
            st.sampled_from("abcdef"), st.lists(st.sampled_from([*"abcdefgx", "joe", "off"]), min_size=1, max_size=4)
        )
    )
    @settings(deadline=None, max_examples=200)
    def test_any_aliases_give_targets_or_a_refusal(self, aliases: dict[str, list[str]]) -> None:
        directory = Directory("joe@example.org", disabled=("off@example.org",))
        for source, names in aliases.items():
            directory.alias_of(
                f"{source}@example.org", *(f"{name}@example.{'com' if name == 'x' else 'org'}" for name in names)
            )
        router = Router({"example.org": LocalDomain("example.org")}, directory, mailbox)
        try:
            targets = router.route(parse_address("a@example.org"), may_relay=False)
        except Refusal as refusal:
            self.assertIn(refusal.reply, (replies.UNKNOWN_USER, DISABLED, replies.LOCAL_TROUBLE))
        else:
            self.assertLessEqual(set(targets), {local("joe@example.org"), remote("x@example.com")})
            self.assertTrue(targets)


class CatchAllTests(RouterCase):
    def setUp(self) -> None:
        super().setUp()
        self.caught = self.router(LocalDomain("example.org", parse_address("ann@example.org")))

    def test_it_takes_what_nobody_else_takes(self) -> None:
        self.assertEqual(self.route("nobody@example.org", self.caught), [local("ann@example.org")])
        self.assertEqual(self.route("nobody+x@example.org", self.caught), [local("ann@example.org")])

    def test_it_never_takes_the_mail_of_an_account_or_alias(self) -> None:
        self.assertEqual(self.route("joe@example.org", self.caught), [local("joe@example.org")])
        self.assertEqual(
            self.route("joe+x@example.org", self.caught), [local("joe+x@example.org", "joe@example.org")]
        )
        self.refused("off@example.org", DISABLED, self.caught)
        self.refused("off+x@example.org", DISABLED, self.caught)
        self.directory.alias_of("list@example.org", "joe@example.org")
        self.assertEqual(self.route("list@example.org", self.caught), [local("joe@example.org")])
        self.directory.alias_of("list@example.org", "off@example.org")
        self.refused("list@example.org", DISABLED, self.caught)

    def test_that_of_the_directory_comes_before_that_of_the_configuration(self) -> None:
        self.directory.alias_of("@example.org", "joe@example.org", "x@example.com")
        self.assertEqual(
            self.route("nobody@example.org", self.caught), [local("joe@example.org"), remote("x@example.com")]
        )

    def test_it_is_its_own_domains(self) -> None:
        self.directory.domains = ("example.net",)
        self.refused("nobody@example.net", replies.UNKNOWN_USER, self.caught)

    def test_one_that_leads_to_nobody_is_an_unknown_user(self) -> None:
        for target in ("gone@example.org", "gone+x@example.org"):
            router = self.router(LocalDomain("example.org", parse_address(target)))
            for text in ("nobody@example.org", "gone@example.org", "GONE@example.org"):
                self.refused(text, replies.UNKNOWN_USER, router)

    def test_one_of_its_targets_that_leads_to_nobody_is_skipped(self) -> None:
        self.directory.alias_of("@example.org", "gone@example.org", "joe@example.org")
        for text in ("nobody@example.org", "gone@example.org"):
            self.assertEqual(self.route(text), [local("joe@example.org")])


class PostmasterTests(RouterCase):
    def test_without_a_domain_it_is_that_of_our_first_domain_that_has_one(self) -> None:
        self.directory.alias_of("postmaster@b\u00fccher.example.org", "joe@example.org")
        self.assertEqual(self.route("Postmaster"), [local("joe@example.org")])
        self.directory.alias_of("postmaster@example.org", "ann@example.org")
        self.assertEqual(self.route("postmaster"), [local("ann@example.org")])

    def test_where_there_is_none_the_configured_one_gets_it(self) -> None:
        router = self.router(postmaster="ann@example.org")
        for text in ("postmaster", "postmaster@example.org", "POSTMASTER@b\u00fccher.example.org"):
            self.assertEqual(self.route(text, router), [local("ann@example.org")], text)
        self.refused("hostmaster@example.org", replies.UNKNOWN_USER, router)

    def test_it_may_be_elsewhere_but_then_for_postmaster_alone(self) -> None:
        router = self.router(postmaster="x@example.com")
        for text in ("postmaster", "postmaster@example.org"):
            self.assertEqual(self.route(text, router), [remote("x@example.com")])
        self.refused("postmaster@example.com", replies.RELAYING_DENIED, router)

    def test_an_alias_or_catch_all_of_the_domain_comes_before_the_configured_one(self) -> None:
        router = self.router(
            LocalDomain("example.org", parse_address("joe@example.org")), postmaster="ann@example.org"
        )
        self.assertEqual(self.route("postmaster@example.org", router), [local("joe@example.org")])
        self.directory.alias_of("postmaster@example.org", "j@example.org", "joe+p@example.org")
        self.assertEqual(len(self.route("postmaster@example.org", router)), 1)

    def test_a_catch_all_takes_it_where_nobody_is_configured(self) -> None:
        router = self.router(LocalDomain("example.net"), LocalDomain("example.org", parse_address("joe@example.org")))
        self.assertEqual(self.route("postmaster", router), [local("joe@example.org")])

    def test_with_nobody_at_all_it_is_refused(self) -> None:
        for router in (
            self.router(),
            self.router(postmaster="postmaster@example.org"),
            self.router(postmaster="gone@example.org"),
        ):
            for text in ("postmaster", "postmaster@example.org"):
                self.refused(text, replies.UNKNOWN_USER, router)


class DevelopmentRouterTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.inbox = Path("/inbox")
        directory = Directory("joe@example.org", disabled=("off@example.org",))
        directory.alias_of("list@example.org", "x@example.com")
        self.router = DevelopmentRouter(directory, mailbox, self.inbox)

    def test_an_account_gets_its_mail_and_the_inbox_all_other(self) -> None:
        for text, path in [
            ("joe@example.org", mailbox(parse_address("joe@example.org"))),
            ("JOE+x@example.org", mailbox(parse_address("joe@example.org"))),
            ("off@example.org", self.inbox),
            ("nobody@example.org", self.inbox),
            ("list@example.org", self.inbox),
            ("a@example.com", self.inbox),
            ("postmaster", self.inbox),
        ]:
            recipient = parse_address(text, need_domain=False)
            for may_relay in (False, True):
                (target,) = self.router.route(recipient, may_relay=may_relay)
                assert isinstance(target, Local)
                self.assertEqual((target.path, target.address), (path, recipient), text)
