"""Tests of mailserver.accounts.hashing: real threads, with a queue that ends."""

from __future__ import annotations

import threading
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from mailserver.accounts import hashing
from mailserver.accounts.hashing import HashingPool, LoginUnavailable
from mailserver.reply import AUTH_UNAVAILABLE, Refusal


class Turns:
    """A reactor of which only the door for threads is used: it keeps their calls until they are asked for."""

    def __init__(self) -> None:
        self._calls: list[tuple[Any, ...]] = []
        self._arrived = threading.Condition()

    def callFromThread(self, function: Any, *args: Any, **named: Any) -> None:
        with self._arrived:
            self._calls.append((function, args, named))
            self._arrived.notify_all()

    def run(self, count: int) -> None:
        """Wait for so many calls and make them, in this thread."""
        for _ in range(count):
            with self._arrived:
                if not self._arrived.wait_for(lambda: self._calls, 30):
                    raise AssertionError("no call came from a thread")
                function, args, named = self._calls.pop(0)
            function(*args, **named)


class HashingPoolTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = Turns()
        self.may_end = threading.Event()

    def start(self, threads: int = 2, waiting: int = 3) -> HashingPool:
        pool = HashingPool(self.reactor, threads=threads, waiting=waiting)  # type: ignore[arg-type]
        pool.startService()
        self.addCleanup(pool.stopService)
        self.addCleanup(self.may_end.set)  # runs first
        return pool

    def wait(self, result: object) -> object:
        self.may_end.wait(30)
        return result

    def test_the_result_comes_from_another_thread(self) -> None:
        work = self.start().run(lambda *args: (threading.current_thread(), args), 1, 2)
        self.reactor.run(1)
        thread, args = self.successResultOf(work)
        self.assertIsNot(thread, threading.current_thread())
        self.assertEqual(args, (1, 2))

    def test_what_the_function_raises_comes_back(self) -> None:
        work = self.start().run(int, "no number")
        self.reactor.run(1)
        self.failureResultOf(work, ValueError)

    def test_when_too_many_wait_the_next_is_sent_away(self) -> None:
        pool = self.start(threads=2, waiting=3)
        works = [pool.run(self.wait, number) for number in range(5)]
        refusal = self.failureResultOf(pool.run(self.wait, 5), LoginUnavailable).value
        self.assertIsInstance(refusal, Refusal)
        self.assertEqual(refusal.reply, AUTH_UNAVAILABLE)
        self.may_end.set()
        self.reactor.run(5)
        self.assertEqual([self.successResultOf(work) for work in works], [0, 1, 2, 3, 4])
        again = pool.run(self.wait, 6)
        self.reactor.run(1)
        self.assertEqual(self.successResultOf(again), 6)

    def test_a_cancelled_login_counts_until_its_work_is_done(self) -> None:
        pool = self.start(threads=1, waiting=0)
        work = pool.run(self.wait, 1)
        work.cancel()
        self.failureResultOf(work, CancelledError)
        self.failureResultOf(pool.run(self.wait, 2), LoginUnavailable)
        self.may_end.set()
        self.reactor.run(1)
        again = pool.run(self.wait, 3)
        self.reactor.run(1)
        self.assertEqual(self.successResultOf(again), 3)

    def test_nothing_is_taken_before_the_start_and_after_the_stop(self) -> None:
        pool = HashingPool(self.reactor)  # type: ignore[arg-type]
        self.failureResultOf(pool.run(int), LoginUnavailable)
        pool.startService()
        pool.stopService()
        self.failureResultOf(pool.run(int), LoginUnavailable)

    def test_it_can_be_started_again(self) -> None:
        pool = HashingPool(self.reactor)  # type: ignore[arg-type]
        for _ in range(2):
            pool.startService()
            work = pool.run(int, "7")
            self.reactor.run(1)
            self.assertEqual(self.successResultOf(work), 7)
            pool.stopService()

    def test_a_refused_login_is_not_counted(self) -> None:
        self.assertEqual((hashing.THREADS, hashing.MOST_WAITING), (2, 64))
        pool = self.start(threads=1, waiting=0)
        first = pool.run(self.wait, 1)
        for _ in range(3):
            self.failureResultOf(pool.run(self.wait, 2), LoginUnavailable)
        self.may_end.set()
        self.reactor.run(1)
        self.assertEqual(self.successResultOf(first), 1)
        last: Deferred[object] = pool.run(self.wait, 3)
        self.reactor.run(1)
        self.assertEqual(self.successResultOf(last), 3)
