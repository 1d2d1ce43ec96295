"""The reactor's stops are seen, and its ordinary work is not."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailserver.counters import LONG_STALL, Counters
from mailserver.stalls import INTERVAL, ORDINARY, STARTING, StallWatch


class StallTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.told: list[float] = []
        self.watch = StallWatch(self.clock, self.told.append)
        self.watch.startService()
        self.clock.advance(STARTING)

    def tearDown(self) -> None:
        if self.watch.running:
            self.watch.stopService()

    def test_a_reactor_that_comes_round_stalls_never(self) -> None:
        for _ in range(100):
            self.clock.advance(INTERVAL)
        self.assertEqual(self.told, [])

    def test_a_late_look_is_told_with_its_lateness(self) -> None:
        self.clock.advance(INTERVAL + ORDINARY / 2)
        self.assertEqual(self.told, [])
        self.clock.advance(INTERVAL + 0.2)
        (late,) = self.told
        self.assertAlmostEqual(late, 0.2)

    def test_the_start_does_not_count(self) -> None:
        clock, told = Clock(), list[float]()
        watch = StallWatch(clock, told.append)
        watch.startService()
        clock.advance(STARTING * 0.9)
        self.assertEqual(told, [])
        watch.stopService()

    def test_one_that_is_stopped_leaves_no_call(self) -> None:
        self.watch.stopService()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_the_counters_keep_the_longest_and_count_the_long_ones(self) -> None:
        counters = Counters(lambda: 0.0)
        for seconds in (0.01, LONG_STALL, LONG_STALL + 0.001, 0.02):
            counters.stalled(seconds)
        self.assertEqual(counters.snapshot()["reactor"], {"longest_stall": round(LONG_STALL + 0.001, 4), "stalls": 1})
