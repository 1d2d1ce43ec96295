"""What workers tell each other of their clients: what one writes the others read, and the limits hold for all."""

from __future__ import annotations

import dataclasses
import os

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailserver import reply as replies
from mailserver.envelope import Peer
from mailserver.limits import DEFAULT_LIMITS
from mailserver.policy.clients import DAY, FORGIVEN, MINUTE, ClientLimits, Told
from mailserver.workers import tables
from mailserver.workers.tables import PROBED, Parent, Table, make_file

A = Peer("192.0.2.1", 1025)
SPANS = tuple((float(start), start) for start in range(1, 7))


class TablesCase(SynchronousTestCase):
    count = 3

    def setUp(self) -> None:
        self.descriptor = make_file(self.count)
        self.addCleanup(os.close, self.descriptor)
        self.one, self.two, self.three = (Table(self.descriptor, number) for number in (1, 2, 3))


class TableTests(TablesCase):
    def test_what_one_tells_the_others_read(self) -> None:
        told = Told(3, 2, 1, SPANS)
        self.one.tell("192.0.2.1", told)
        self.assertEqual(self.two.others("192.0.2.1"), [told])
        self.assertEqual(self.three.others("192.0.2.1"), [told])
        self.assertEqual(self.one.others("192.0.2.1"), [])
        self.assertEqual(self.two.others("192.0.2.2"), [])

    def test_the_last_word_counts(self) -> None:
        for count in (1, 2, 3):
            self.one.tell("x", Told(count))
        self.two.tell("x", Told(7))
        self.assertEqual([told.connections for told in self.three.others("x")], [3, 7])

    def test_connections_in_all_are_those_of_the_others(self) -> None:
        self.one.tell_connections(5)
        self.two.tell_connections(7)
        self.assertEqual([each.connections() for each in (self.one, self.two, self.three)], [7, 5, 12])

    def test_a_dead_worker_has_no_connections_but_its_spans_stay(self) -> None:
        self.one.tell("x", Told(3, 2, 1, SPANS))
        self.one.tell_connections(3)
        self.two.tell("x", Told(4))
        self.two.tell_connections(4)
        Parent(self.descriptor).clear(1)
        self.assertEqual(self.three.connections(), 4)
        self.assertEqual(self.three.others("x"), [Told(0, 0, 0, SPANS), Told(4)])
        self.assertEqual(Table(self.descriptor, 1).left("x"), Told(0, 0, 0, SPANS))
        self.assertIsNone(self.one.left("y"))

    def test_names_of_any_kind(self) -> None:
        for key in ("", "x" * 10_000, "grün@example.org", "\udcff"):
            self.one.tell(key, Told(1))
            self.assertEqual(self.two.others(key), [Told(1)])

    def test_two_servers_hash_differently(self) -> None:
        other = make_file(1)
        self.addCleanup(os.close, other)
        self.assertNotEqual(Table(other, 1)._tag("x"), self.one._tag("x"))

    @settings(deadline=None, max_examples=50)
    @given(st.lists(st.tuples(st.integers(0, 400), st.integers(0, 3)), max_size=300))
    def test_as_a_dictionary_does_while_there_is_room(self, tellings: list[tuple[int, int]]) -> None:
        expected: dict[str, int] = {}
        for client, connections in tellings:
            self.one.tell(f"c{client}", Told(connections))
            expected[f"c{client}"] = connections
        for key, connections in expected.items():
            self.assertEqual(self.two.others(key), [Told(connections)])
        for key in expected:
            self.one.tell(key, Told())


class FullTests(TablesCase):
    """A table so small that all rows meet."""

    def setUp(self) -> None:
        for name, value in (("SLOTS", PROBED), ("_NOW", 64 + 8 * PROBED)):
            self.patch(tables, name, value)
        self.patch(tables, "_SPANS", tables._NOW + 12 * PROBED)
        self.patch(tables, "_TABLE", tables._SPANS + tables._ROW * PROBED)
        super().setUp()

    def found(self) -> set[str]:
        return {f"c{number}" for number in range(PROBED + 2) if self.two.others(f"c{number}")}

    def test_who_was_not_seen_for_the_longest_time_makes_room(self) -> None:
        for number in range(PROBED):
            self.one.tell(f"c{number}", Told(spans=((100.0 - number, 1),) * 6))
        self.one.tell(f"c{PROBED}", Told(1))
        self.assertEqual(self.found(), {f"c{number}" for number in range(PROBED + 1)} - {f"c{PROBED - 1}"})

    def test_who_is_connected_stays(self) -> None:
        for number in range(PROBED):
            self.one.tell(f"c{number}", Told(1))
        self.one.tell(f"c{PROBED}", Told(1))
        self.assertEqual(self.found(), {f"c{number}" for number in range(PROBED)})
        self.one.tell("c3", Told(0))
        self.one.tell(f"c{PROBED}", Told(1))
        self.assertEqual(self.found(), {f"c{number}" for number in range(PROBED + 1)} - {"c3"})


class LimitsTests(TablesCase):
    """`ClientLimits` of two workers."""

    def setUp(self) -> None:
        super().setUp()
        self.clock = Clock()
        self.clock.advance(1_000_000)

    def doors(self, **changes: float) -> tuple[ClientLimits, ClientLimits]:
        one, two = (self.door(table, **changes) for table in (self.one, self.two))
        return one, two

    def door(self, table: Table, **changes: float) -> ClientLimits:
        limits = dataclasses.replace(DEFAULT_LIMITS, **changes)  # type: ignore[arg-type]
        return ClientLimits(limits, self.clock.seconds, lambda: 0.5, elsewhere=table)

    def test_connections_of_a_client(self) -> None:
        one, two = self.doors(connections_per_client=5)
        for door in (one, two, one, two, one):
            self.assertIsNone(door.connected(A))
        for door in (one, two):
            self.assertEqual(door.connected(A), replies.TOO_MANY_OF_CLIENT)
        one.disconnected(A)
        self.assertIsNone(two.connected(A))
        self.assertEqual(one.connected(A), replies.TOO_MANY_OF_CLIENT)

    def test_connections_in_all_and_busy(self) -> None:
        one, two = self.doors(connections=10)
        for number in range(9):
            (one, two)[number % 2].connected(Peer(f"192.0.2.{number}", 1))
        self.assertTrue(one.busy() and two.busy())
        self.assertIsNone(one.connected(A))
        self.assertEqual(two.connected(A), replies.TOO_MANY_CONNECTIONS)
        for number in range(0, 4, 2):
            one.disconnected(Peer(f"192.0.2.{number}", 1))
        self.assertFalse(two.busy())

    def test_connections_in_all_at_a_listener_with_a_limit_of_its_own(self) -> None:
        base = DEFAULT_LIMITS
        own = dataclasses.replace(base, connections=2)
        one, two = (self.door(table).for_listener("in", own, base) for table in (self.one, self.two))
        self.assertIsNone(one.connected(A))
        self.assertIsNone(two.connected(A))
        self.assertEqual(one.connected(A), replies.TOO_MANY_CONNECTIONS)

    def test_rates(self) -> None:
        one, two = self.doors(connection_rate=3, messages_per_minute=3, recipients_per_minute=3)
        for ask in ("connected", "may_send", "may_address"):
            for door in (one, two, two):
                self.assertIsNone(getattr(door, ask)(A))
            for door in (one, two):
                self.assertIsNotNone(getattr(door, ask)(A), ask)
        self.clock.advance(MINUTE)
        for ask in ("connected", "may_send", "may_address"):
            self.assertIsNone(getattr(one, ask)(A))

    def fail(self, door: ClientLimits, user: str = "anna@example.org") -> float:  # type: ignore[override]
        self.assertIsNone(door.may_authenticate(A))
        door.auth_judged(A)
        wait = door.auth_failed(A, user)
        door.auth_answered(A)
        return wait

    def test_failed_logins(self) -> None:
        for limit, span in (("auth_failures_per_minute", MINUTE), ("auth_failures_per_day", DAY)):
            one, two = self.doors(**{"auth_failures_per_minute": 1000, limit: 4})
            for door in (one, two, two, one):
                self.fail(door)
            for door in (one, two):
                self.assertEqual(door.may_authenticate(A), replies.TOO_MANY_AUTH_FAILURES)
            self.clock.advance(span)
            self.assertIsNone(one.may_authenticate(A))
            one.auth_judged(A)
            self.clock.advance(DAY)

    def test_logins_that_are_judged_elsewhere_may_fail_too(self) -> None:
        one, two = self.doors(auth_failures_per_minute=2)
        self.assertIsNone(one.may_authenticate(A))
        self.assertIsNone(two.may_authenticate(A))
        self.assertEqual(one.may_authenticate(A), replies.TOO_MANY_AUTH_FAILURES)
        two.auth_judged(A)
        self.assertIsNone(one.may_authenticate(A))

    def test_the_wait_doubles_over_all_and_a_success_anywhere_ends_that(self) -> None:
        one, two = self.doors(auth_failure_delay=1.0, auth_failures_per_minute=1000)
        waits = []
        for door in (one, two, one, two):
            waits.append(self.fail(door))
            self.clock.advance(1)
        self.assertEqual(waits, [1.0, 2.0, 4.0, 8.0])
        two.auth_succeeded(A, "anna@example.org")
        self.clock.advance(1)
        self.assertEqual([self.fail(one), self.fail(two)], [1.0, 2.0])
        self.clock.advance(FORGIVEN)
        self.assertEqual(self.fail(one), 1.0)

    def test_an_account_that_is_guessed_at_from_many_addresses(self) -> None:
        one, two = self.doors(auth_failure_delay=1.0)
        self.assertEqual(one.auth_failed(A, "anna@example.org"), 1.0)
        self.assertEqual(two.auth_failed(Peer("198.51.100.1", 1), "Anna@EXAMPLE.org"), 2.0)

    def test_who_comes_after_a_dead_one_remembers_its_failures(self) -> None:
        one, _ = self.doors(auth_failures_per_minute=2)
        self.fail(one)
        one.connected(A)
        Parent(self.descriptor).clear(1)
        again = self.door(Table(self.descriptor, 1), auth_failures_per_minute=2, connections_per_client=1)
        self.assertIsNone(again.connected(A))
        self.fail(again)
        self.assertEqual(again.may_authenticate(A), replies.TOO_MANY_AUTH_FAILURES)
