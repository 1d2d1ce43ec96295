"""The open connections: empty is told once to each who asks, and a drain ends, whatever they do."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailserver.connections import OpenConnections


class FakeConnection:
    """Ends when it is told to, as far as it is willing.  done: what it was told."""

    def __init__(self, all_of_them: OpenConnections, *, ends_on: str = "cut") -> None:
        self.all_of_them = all_of_them
        self.ends_on = ends_on
        self.done: list[str] = []
        all_of_them.add(self)

    def drain(self) -> None:
        self._told("drain")

    def cut(self) -> None:
        self._told("cut")

    def _told(self, what: str) -> None:
        self.done.append(what)
        if what == self.ends_on:
            self.all_of_them.discard(self)


class OpenConnectionsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.open = OpenConnections()

    def test_connections_are_counted(self) -> None:
        first, second = FakeConnection(self.open), FakeConnection(self.open)
        self.open.add(first)
        self.assertEqual((len(self.open), set(self.open)), (2, {first, second}))
        self.open.discard(first)
        self.open.discard(first)
        self.assertEqual(list(self.open), [second])

    def test_a_few_that_were_turned_away_may_wait_to_be_told(self) -> None:
        everyone = OpenConnections()
        first, second, third = (FakeConnection(everyone) for _ in range(3))
        self.assertEqual([everyone.may_wait(each, 2) for each in (first, second, third)], [True, True, False])
        everyone.discard(first)
        self.assertTrue(everyone.may_wait(third, 2))

    def test_none_is_told_at_once(self) -> None:
        self.successResultOf(self.open.empty())

    def test_all_who_ask_are_told_when_the_last_has_ended(self) -> None:
        first, second = FakeConnection(self.open), FakeConnection(self.open)
        asked = [self.open.empty(), self.open.empty()]
        self.open.discard(first)
        for waiting in asked:
            self.assertNoResult(waiting)
        self.open.discard(second)
        for waiting in asked:
            self.successResultOf(waiting)

    def test_it_can_be_empty_twice(self) -> None:
        for _ in range(2):
            connection = FakeConnection(self.open)
            waiting = self.open.empty()
            self.assertNoResult(waiting)
            self.open.discard(connection)
            self.successResultOf(waiting)
        self.open.discard(connection)

    def test_it_can_change_while_it_is_walked_through(self) -> None:
        for _ in range(3):
            FakeConnection(self.open)
        for connection in self.open:
            self.open.discard(connection)
        self.assertEqual(len(self.open), 0)


class DrainTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.open = OpenConnections()

    def test_with_no_connection_a_drain_is_done_at_once(self) -> None:
        self.successResultOf(self.open.drain(self.clock, 30.0))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_the_idle_end_at_once_and_no_timer_is_left(self) -> None:
        idle = [FakeConnection(self.open, ends_on="drain") for _ in range(3)]
        self.successResultOf(self.open.drain(self.clock, 30.0))
        self.assertEqual([connection.done for connection in idle], [["drain"]] * 3)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_the_others_may_end_their_transaction(self) -> None:
        busy = FakeConnection(self.open)
        done = self.open.drain(self.clock, 30.0)
        self.clock.advance(29.9)
        self.assertNoResult(done)
        self.open.discard(busy)
        self.successResultOf(done)
        self.assertEqual(busy.done, ["drain"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_after_the_limit_they_are_cut(self) -> None:
        busy, idle = FakeConnection(self.open), FakeConnection(self.open, ends_on="drain")
        done = self.open.drain(self.clock, 30.0)
        self.clock.advance(29.9)
        self.assertEqual(busy.done, ["drain"])
        self.clock.advance(0.1)
        self.successResultOf(done)
        self.assertEqual((busy.done, idle.done), (["drain", "cut"], ["drain"]))

    def test_one_that_came_meanwhile_is_cut_too(self) -> None:
        FakeConnection(self.open)
        done = self.open.drain(self.clock, 30.0)
        late = FakeConnection(self.open)
        self.clock.advance(30.0)
        self.assertEqual(late.done, ["cut"])
        self.successResultOf(done)

    def test_a_second_drain_ends_with_the_first(self) -> None:
        FakeConnection(self.open)
        first, second = self.open.drain(self.clock, 30.0), self.open.drain(self.clock, 5.0)
        self.clock.advance(5.0)
        self.successResultOf(first)
        self.successResultOf(second)
        self.assertEqual(self.clock.getDelayedCalls(), [])
