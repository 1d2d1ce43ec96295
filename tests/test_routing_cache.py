"""What the router said before is said again while it is true, and not a moment longer."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from mailserver import reply as replies
from mailserver.accounts.database import AccountsDatabase
from mailserver.accounts.schema import AccountsError
from mailserver.address import Address, parse_address
from mailserver.interfaces import IRouter, IVersionedDirectory
from mailserver.reply import Refusal
from mailserver.routing import Local, LocalDomain, Remote, Router
from mailserver.routing_cache import BUSY_EACH, MAX_BUSY, MAX_KEPT_TARGETS, CachedRouter, cached
from tests.test_routing import Directory, mailbox

DOMAINS = {"example.org": LocalDomain("example.org")}


@implementer(IVersionedDirectory)
class VersionedDirectory(Directory):
    """number: its version."""

    number: int | None = 0

    def version(self) -> int | None:
        return self.number


@implementer(IRouter)
class CountingRouter:
    """asked: what it was asked for, in order."""

    def __init__(self, router: Any) -> None:
        self.asked: list[str] = []
        self.router = router

    def route(self, recipient: Address, *, may_relay: bool) -> Any:
        self.asked.append(str(recipient))
        return self.router.route(recipient, may_relay=may_relay)


def answer(router: Any, text: str, *, may_relay: bool = False) -> Any:
    """Everything that can be seen of an answer; the domain of an address as it is written too."""
    try:
        targets = router.route(parse_address(text, need_domain=False), may_relay=may_relay)
    except Refusal as refusal:
        return refusal.reply, refusal.detail
    return [
        (type(each), str(each.address), getattr(each, "path", None), getattr(each, "quota", None)) for each in targets
    ]


class CacheTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = VersionedDirectory("joe@example.org", "ann@example.org", disabled=("off@example.org",))
        self.inner = CountingRouter(Router(DOMAINS, self.directory, mailbox))
        self.router = self.cache()

    def cache(self, known: int = 100, refused: int = 100) -> CachedRouter:
        return CachedRouter(self.inner, self.directory, known=known, refused=refused)

    def asked(self, *texts: str, times: int = 1, may_relay: bool = False, router: Any = None) -> int:
        """How often the router itself was asked."""
        before = len(self.inner.asked)
        for _ in range(times):
            for text in texts:
                answer(router or self.router, text, may_relay=may_relay)
        return len(self.inner.asked) - before

    def test_it_is_a_router(self) -> None:
        self.assertTrue(verifyObject(IRouter, self.router))

    def test_what_is_known_is_not_asked_for_again(self) -> None:
        self.directory.alias_of("all@example.org", "joe@example.org", "Ann@Example.ORG")
        for text in ("joe@example.org", "all@example.org", "nobody@example.org", "off@example.org", "a@example.com"):
            self.assertEqual(self.asked(text, times=3 * BUSY_EACH), 1, text)

    def test_a_kept_answer_is_the_routers_own_however_often_it_was_given(self) -> None:
        self.directory.alias_of("all@example.org", "joe@example.org", "Ann+X@Example.ORG")
        self.directory.alias_of("@example.org", "joe@example.org")
        uncached = self.inner.router
        texts = ("joe@example.org", "JOE@Example.Org", "joe+X@example.org", "All@example.org", "any@example.org")
        for text in (*texts, "off@example.org", "a@example.com", "postmaster"):
            for _ in range(2 * BUSY_EACH + 1):
                self.assertEqual(answer(self.router, text), answer(uncached, text), text)

    def test_the_address_is_told_as_it_was_written_this_time(self) -> None:
        for text in ("joe@example.org", "Joe@example.org", "joe@Example.ORG", "joe+a@example.org"):
            for _ in range(2):
                ((_kind, address, path, _quota),) = answer(self.router, text)
                self.assertEqual((address, path), (text, mailbox(parse_address("joe@example.org"))))

    def test_after_a_change_it_asks_again_once(self) -> None:
        texts = ("joe@example.org", "nobody@example.org")
        self.asked(*texts, times=2 * BUSY_EACH)
        self.directory.number = 1
        self.assertEqual(self.asked(*texts, times=2 * BUSY_EACH), 2)
        self.directory.accounts.clear()
        self.directory.number = 2
        self.assertEqual(answer(self.router, "joe@example.org")[0], replies.UNKNOWN_USER)

    def test_a_user_who_was_unknown_is_found_and_the_other_way_round(self) -> None:
        account = self.directory.accounts.pop("joe@example.org")
        for number in range(1, 5):
            self.assertEqual(answer(self.router, "joe@example.org")[0], replies.UNKNOWN_USER)
            self.directory.accounts["joe@example.org"] = account
            self.directory.number = 2 * number
            self.assertEqual(len(answer(self.router, "joe@example.org")), 1)
            del self.directory.accounts["joe@example.org"]
            self.directory.number = 2 * number + 1

    def test_without_a_version_nothing_is_kept_or_used(self) -> None:
        self.asked("joe@example.org", "nobody@example.org")
        self.directory.number = None
        self.assertEqual(self.asked("joe@example.org", "nobody@example.org", "ann@example.org", times=2), 6)
        self.directory.number = 0
        self.assertEqual(self.asked("joe@example.org", "nobody@example.org", "ann@example.org"), 1)

    def test_a_change_while_the_router_looks_is_not_missed(self) -> None:
        def change(address: Address) -> Path:
            self.directory.number = 1  # somebody writes after our router has read
            return mailbox(address)

        self.inner.router = Router(DOMAINS, self.directory, change)
        self.assertEqual(self.asked("joe@example.org", times=2), 2)

    def test_those_who_may_relay_have_answers_of_their_own(self) -> None:
        for _ in range(2 * BUSY_EACH):
            self.assertEqual(answer(self.router, "a@example.com")[0], replies.RELAYING_DENIED)
            (target,) = answer(self.router, "a@example.com", may_relay=True)
            self.assertIs(target[0], Remote)
        # An address like the mark of those who may relay is just another one.
        self.assertEqual(answer(self.router, '">"@example.com')[0], replies.RELAYING_DENIED)

    def test_trouble_is_looked_into_each_time_and_keeps_its_cause(self) -> None:
        self.directory.alias_of("a@example.org", "a@example.org")
        self.assertEqual(self.asked("a@example.org", times=3), 3)
        self.assertIn("circle", answer(self.router, "a@example.org")[1])

    def test_targets_elsewhere_and_long_lists_are_not_kept(self) -> None:
        self.directory.alias_of("far@example.org", "joe@example.org", "x@example.com")
        self.assertEqual(self.asked("far@example.org", times=2), 2)
        for count, asked in ((MAX_KEPT_TARGETS, 1), (MAX_KEPT_TARGETS + 1, 2)):
            names = [f"m{number}@example.org" for number in range(count)]
            for name in names:
                self.directory.accounts[name] = self.directory.accounts["joe@example.org"]
            self.inner.router = Router(DOMAINS, self.directory, mailbox)
            self.inner.router._mailbox_path = lambda _: Path("/mail", str(self.directory.asked))
            self.directory.alias_of(f"all{count}@example.org", *names)
            self.assertEqual(self.asked(f"all{count}@example.org", times=2), asked)

    def test_an_answer_that_comes_later_is_handed_on(self) -> None:
        later = object()

        @implementer(IRouter)
        class Slow:
            def route(self, recipient: Address, *, may_relay: bool) -> Any:
                return later

        router = CachedRouter(Slow(), self.directory)
        for _ in range(2):
            self.assertIs(router.route(parse_address("joe@example.org"), may_relay=False), later)

    def test_so_many_are_kept_and_the_oldest_goes(self) -> None:
        router = self.cache(known=3, refused=2)
        self.directory.alias_of("@example.org", "joe@example.org")
        names = [f"{name}@example.org" for name in "abcd"]
        self.assertEqual(self.asked(*names[:3], times=2, router=router), 3)
        self.assertEqual(self.asked(names[3], *names[1:], router=router), 1)
        self.assertEqual(self.asked(names[0], router=router), 1)
        foreign = [f"{name}@example.com" for name in "abc"]
        self.assertEqual(self.asked(*foreign[:2], times=2, router=router), 2)
        self.assertEqual(self.asked(foreign[2], foreign[1], foreign[0], router=router), 2)

    def test_with_room_for_none_nothing_is_kept(self) -> None:
        router = self.cache(known=0, refused=0)
        self.assertEqual(self.asked("joe@example.org", "nobody@example.org", times=2, router=router), 4)

    def test_guessing_names_pushes_out_nobody(self) -> None:
        router = self.cache(known=2, refused=3)
        known = ("joe@example.org", "ann@example.org")
        self.asked(*known, router=router)
        self.asked(*(f"guess{number}@example.org" for number in range(50)), router=router)
        self.assertEqual(self.asked(*known, router=router), 0)

    def test_what_is_kept_stays_bounded_whatever_changes(self) -> None:
        router = self.cache(known=5, refused=5)
        self.directory.alias_of("@example.org", "joe@example.org")
        for number in range(60):
            self.directory.number = number // 7
            self.asked(f"u{number % 11}@example.org", f"u{number % 11}@example.com", times=2, router=router)
        for kept in (router._known, router._refused):
            self.assertEqual(len(kept.answers), 5)
            self.assertEqual(sorted(kept._order), sorted(kept.answers))

    def test_the_busy_ones_are_few(self) -> None:
        router = self.cache(known=2 * MAX_BUSY)
        self.directory.alias_of("@example.org", "joe@example.org")
        names = [f"u{number}@example.org" for number in range(MAX_BUSY + 10)]
        self.asked(*names, times=2 * BUSY_EACH, router=router)
        self.assertLessEqual(len(router._busy.answers), MAX_BUSY)
        self.assertGreater(len(router._busy.answers), 0)

    def test_a_directory_without_a_version_gets_no_cache(self) -> None:
        router = Router(DOMAINS, Directory("joe@example.org"), mailbox)
        self.assertIs(cached(router, Directory()), router)
        self.assertIsInstance(cached(router, self.directory), CachedRouter)


NAMES = [
    parse_address(text) for text in ("a@example.org", "b@example.org", "a+b@example.org", "c@example.net", "d@x.org")
]
CATCH_ALLS = [Address("", "example.org"), Address("", "example.net")]
ASKED = [
    "a@example.org",
    "A@Example.org",
    "a+b@example.org",
    "b@example.org",
    "b+c@example.org",
    "z@example.org",
    "c@example.net",
    "d@x.org",
    "postmaster",
]
name = st.sampled_from(NAMES)
source = st.sampled_from([*NAMES, *CATCH_ALLS])
CHANGES = st.one_of(
    st.tuples(st.just("add_account"), name, st.just(())),
    st.tuples(st.just("remove_account"), name),
    st.tuples(st.just("set_quota"), name, st.sampled_from([None, 0, 5])),
    st.tuples(st.sampled_from(["enable", "disable"]), name),
    st.tuples(st.just("add_alias"), source, st.lists(name, min_size=1, max_size=2)),
    st.tuples(st.just("remove_alias"), source),
    st.tuples(st.sampled_from(["add_domain", "remove_domain"]), st.sampled_from(["example.net", "x.org"])),
    st.tuples(st.just("default_quota"), st.sampled_from([3, 4])),
    st.tuples(st.sampled_from(["close", "cut", "add_and_take_back"])),
)


class StaleTests(SynchronousTestCase):
    """The server's database and router, and the database of a command in another process."""

    def setUp(self) -> None:
        self.prepare()

    def prepare(self) -> None:
        self.now = 0.0
        self.path = Path(self.mktemp()) if not hasattr(self, "path") else self.path
        for file in self.path.parent.glob(f"{self.path.name}*"):
            file.unlink()
        self.server = AccountsDatabase(self.path, seconds=lambda: self.now)
        self.other = AccountsDatabase(self.path)
        self.addCleanup(self.server.close)
        self.addCleanup(self.other.close)
        self.plain = Router(DOMAINS, self.server, mailbox)
        self.router = CachedRouter(self.plain, self.server)

    def change(self, database: AccountsDatabase, what: str, *values: Any) -> None:
        if what in ("enable", "disable"):
            database.set_enabled(values[0], enabled=what == "enable")
        elif what == "default_quota":
            self.server.default_quota = values[0]
        elif what == "close":
            self.server.close()
        elif what == "cut":
            generation = self.path.with_name(self.path.name + "-generation")
            if generation.exists():
                generation.write_bytes(b"")
        elif what == "add_and_take_back":
            with database.together():
                for each in NAMES:
                    if database.account(each) is None and not database.alias(each):
                        database.add_account(each, ())
                # The server's own router may be asked meanwhile.
                for text in ASKED:
                    answer(self.router, text)
                raise AccountsError("not so")
        else:
            getattr(database, what)(*values)

    @given(st.lists(st.tuples(st.booleans(), CHANGES, st.sets(st.sampled_from(ASKED))), max_size=25))
    @settings(deadline=None, max_examples=60)
    def test_whatever_is_changed_by_whom_the_answers_are_those_of_now(self, steps: list[Any]) -> None:
        self.server.close()
        self.other.close()
        self.prepare()
        for by_server, change, asked in steps:
            for text in asked:
                answer(self.router, text)
            with contextlib.suppress(AccountsError):
                self.change(self.server if by_server else self.other, *change)
            for text in ASKED:
                self.assertEqual(answer(self.router, text), answer(self.plain, text), (change, text))

    def test_what_a_program_writes_that_knows_nothing_of_us_is_seen_within_a_second(self) -> None:
        self.other.add_account(NAMES[0], ())
        self.assertIs(answer(self.router, "a@example.org")[0][0], Local)
        stranger = sqlite3.connect(self.path)
        self.addCleanup(stranger.close)
        stranger.execute("UPDATE accounts SET enabled = 0")
        stranger.commit()
        self.now += 1.0
        self.assertEqual(answer(self.router, "a@example.org"), answer(self.plain, "a@example.org"))
        self.assertEqual(answer(self.router, "a@example.org")[0].code, 550)

    def test_a_missing_file_of_the_generation_costs_a_second_and_no_more(self) -> None:
        answer(self.router, "a@example.org")
        self.path.with_name(self.path.name + "-generation").unlink()
        self.other.add_account(NAMES[0], ())
        self.now += 1.0
        self.assertIs(answer(self.router, "a@example.org")[0][0], Local)
        answer(self.router, "a@example.org")
        self.other.remove_account(NAMES[0])
        self.assertEqual(answer(self.router, "a@example.org")[0], replies.UNKNOWN_USER)
