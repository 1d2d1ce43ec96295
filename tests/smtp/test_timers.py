"""The one timer: a deadline that is put off costs no delayed call, one that comes nearer is kept to the moment."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailserver.smtp.timers import TimedServer


class Timed(TimedServer):
    """Only its timer."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.clock.advance(1000.0)
        self.ended: list[float] = []

    def _clock(self) -> Clock:
        assert isinstance(self.clock, Clock)
        return self.clock

    def timeoutConnection(self) -> None:
        self.ended.append(self._clock().seconds())


class DeadlineTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.timed = Timed()
        self.clock = self.timed._clock()

    def pass_by(self, seconds: float, step: float = 0.25) -> None:
        end = self.clock.seconds() + seconds
        while self.clock.seconds() < end:
            self.clock.advance(step)

    def test_it_ends_at_its_moment_once(self) -> None:
        self.timed.setTimeout(10)
        self.pass_by(30)
        self.assertEqual(self.timed.ended, [1010.0])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_one_that_is_put_off_moves_no_call_and_still_ends_at_its_moment(self) -> None:
        self.timed.setTimeout(10)
        (call,) = self.clock.getDelayedCalls()
        for _ in range(5):
            self.clock.advance(1)
            self.timed.setTimeout(10)
            self.assertEqual((self.clock.getDelayedCalls(), call.getTime()), ([call], 1010.0))
        self.pass_by(30)
        self.assertEqual(self.timed.ended, [1015.0])

    def test_a_nearer_one_is_kept(self) -> None:
        self.timed.setTimeout(100)
        self.timed.setTimeout(5)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.pass_by(200)
        self.assertEqual(self.timed.ended, [1005.0])

    def test_none_is_no_end_and_a_new_one_counts_again(self) -> None:
        self.timed.setTimeout(10)
        self.timed.setTimeout(None)
        self.pass_by(50)
        self.assertEqual((self.timed.ended, self.clock.getDelayedCalls()), ([], []))
        self.timed.setTimeout(10)
        self.pass_by(50)
        self.assertEqual(self.timed.ended, [1060.0])

    def test_a_connection_that_is_over_leaves_no_call(self) -> None:
        self.timed.setTimeout(10)
        self.timed._forget_time()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.timed._forget_time()
        self.pass_by(20)
        self.assertEqual(self.timed.ended, [])
