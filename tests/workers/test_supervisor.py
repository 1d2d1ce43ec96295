"""Which processes there shall be: with a clock and processes that only write down what they are told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailserver.children import FIRST_DELAY, MOST_DELAY, RAN_WELL
from mailserver.workers.supervisor import (
    GRACE,
    START_TIME,
    State,
    Supervisor,
    Worker,
    WorkerError,
)


@dataclass(frozen=True)
class FakePlan:
    name: str
    drain_timeout: float = 30.0


class FakeProcess:
    """Writes down what it is told."""

    def __init__(self, worker: Worker, pid: int) -> None:
        self.worker = worker
        self.pid = pid
        self.told: list[Any] = []

    def leave(self, linger: float) -> None:
        self.told.append(linger)

    def kill(self) -> None:
        self.told.append("kill")


OLD, NEW = FakePlan("old"), FakePlan("new", drain_timeout=5.0)


class SupervisorCase(SynchronousTestCase):
    count = 2

    def setUp(self) -> None:
        self.clock = Clock()
        self.spawned: list[FakeProcess] = []
        self.gone: list[int] = []
        self.refusal: OSError | None = None
        self.supervisor = Supervisor(self.spawn, self.clock, self.count, self.gone.append)

    def spawn(self, worker: Worker) -> FakeProcess:
        if self.refusal is not None:
            raise self.refusal
        process = FakeProcess(worker, 100 + len(self.spawned))
        self.spawned.append(process)
        return process

    @property
    def last(self) -> Worker:
        return self.spawned[-1].worker

    def numbers(self) -> list[int]:
        """Of all that were spawned, in their order."""
        return [process.worker.order.number for process in self.spawned]

    def serving(self) -> Deferred[None]:
        """All serve."""
        started = ensureDeferred(self.supervisor.start(OLD))
        for _ in range(self.count):
            for process in self.spawned:
                process.worker.ready()
        self.successResultOf(started)
        return started

    def served_by(self) -> list[tuple[int, str]]:
        """Number and plan of who serves in each slot."""
        workers = [slot.worker for slot in self.supervisor.slots]
        return [(w.order.number, w.order.plan.name) for w in workers if w is not None and w.state is State.READY]


class StartTests(SupervisorCase):
    count = 3

    def test_the_first_begins_alone_and_the_others_follow(self) -> None:
        started = ensureDeferred(self.supervisor.start(OLD))
        self.assertEqual(self.numbers(), [1])
        self.assertTrue(self.last.order.first and self.last.order.sweep)
        self.last.ready()
        self.assertEqual(self.numbers(), [1, 2, 3])
        self.assertFalse(self.last.order.first or self.last.order.sweep)
        self.spawned[2].worker.ready()
        self.assertNoResult(started)
        self.spawned[1].worker.ready()
        self.successResultOf(started)
        self.assertEqual(self.served_by(), [(1, "old"), (2, "old"), (3, "old")])

    def test_a_first_one_that_cannot_start_is_the_end(self) -> None:
        started = ensureDeferred(self.supervisor.start(OLD))
        self.last.ended("no certificate")
        self.assertIn("no certificate", str(self.failureResultOf(started, WorkerError).value))
        self.clock.advance(1000)
        self.assertEqual(len(self.spawned), 1)

    def test_another_one_that_cannot_start_is_tried_again(self) -> None:
        started = ensureDeferred(self.supervisor.start(OLD))
        self.last.ready()
        self.spawned[1].worker.ready()
        self.last.ended("x")
        self.clock.advance(FIRST_DELAY)
        self.assertNoResult(started)
        self.last.ready()
        self.successResultOf(started)
        self.assertEqual(self.numbers(), [1, 2, 3, 3])

    def test_a_system_without_room_for_a_process(self) -> None:
        self.refusal = OSError(11, "Resource temporarily unavailable")
        started = ensureDeferred(self.supervisor.start(OLD))
        self.clock.advance(0)
        self.assertIn("temporarily unavailable", str(self.failureResultOf(started, WorkerError).value))

    def test_a_stop_meanwhile(self) -> None:
        started = ensureDeferred(self.supervisor.start(OLD))
        stopped = self.supervisor.stop()
        self.assertEqual(self.spawned[0].told, [0.0])
        self.last.ready()  # what was on its way
        self.assertEqual(self.numbers(), [1])
        self.last.ended("exit status 0")
        self.successResultOf(started)
        self.successResultOf(stopped)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_who_is_never_ready_is_killed(self) -> None:
        ensureDeferred(self.supervisor.start(OLD)).addErrback(lambda _: None)
        self.clock.advance(START_TIME - 1)
        self.assertEqual(self.spawned[0].told, [])
        self.clock.advance(1)
        self.assertEqual(self.spawned[0].told, ["kill"])


class DeathTests(SupervisorCase):
    def setUp(self) -> None:
        super().setUp()
        self.serving()

    def kill(self) -> None:
        """The worker in the second slot dies."""
        worker = self.supervisor.slots[1].worker
        assert worker is not None
        worker.ended("signal 9")

    def test_what_died_is_started_again_with_its_number(self) -> None:
        self.kill()
        self.assertEqual(self.gone, [2])
        self.clock.advance(FIRST_DELAY / 2)
        self.assertEqual(len(self.spawned), 2)
        self.clock.advance(FIRST_DELAY / 2)
        self.assertEqual((self.last.order.number, self.last.order.sweep, self.last.order.first), (2, True, False))
        self.last.ready()
        self.assertEqual(self.served_by(), [(1, "old"), (2, "old")])
        self.assertEqual([slot.restarts for slot in self.supervisor.slots], [0, 1])

    def test_the_delay_grows_up_to_its_most(self) -> None:
        delays = []
        for _ in range(12):
            self.kill()
            (timer,) = list(self.clock.getDelayedCalls())
            delays.append(timer.getTime() - self.clock.seconds())
            self.clock.advance(delays[-1])
            self.last.ready()
        self.assertEqual([round(delay, 3) for delay in delays[:3]], [FIRST_DELAY, 2 * FIRST_DELAY, 4 * FIRST_DELAY])
        self.assertAlmostEqual(delays[-1], MOST_DELAY)
        self.assertEqual(sorted(delays), delays)

    def test_who_ran_well_begins_anew(self) -> None:
        for served, row in ((RAN_WELL - 1, 2), (RAN_WELL, 1)):
            self.kill()
            self.clock.advance(MOST_DELAY)
            self.last.ready()
            self.clock.advance(served)
            self.kill()
            self.assertEqual(self.supervisor.slots[1].row, row)
            self.clock.advance(MOST_DELAY)
            self.last.ready()
            self.supervisor.slots[1].row = 0

    def test_all_at_once(self) -> None:
        for process in tuple(self.spawned):
            process.worker.ended("signal 9")
        self.clock.advance(FIRST_DELAY)
        for process in self.spawned[2:]:
            process.worker.ready()
        self.assertEqual(self.served_by(), [(1, "old"), (2, "old")])


class ReplaceTests(SupervisorCase):
    def setUp(self) -> None:
        super().setUp()
        self.serving()
        self.replaced = ensureDeferred(self.supervisor.replace(NEW))

    def test_one_by_one(self) -> None:
        self.assertEqual(self.numbers(), [1, 2, 3])
        self.assertEqual(self.spawned[0].told, [])
        self.last.ready()
        self.assertEqual((self.spawned[0].told, self.spawned[1].told), ([5.0], []))
        self.assertEqual(self.numbers(), [1, 2, 3, 4])
        self.assertNoResult(self.replaced)
        self.last.ready()
        self.assertEqual(self.spawned[1].told, [5.0])
        self.successResultOf(self.replaced)
        self.assertEqual(self.served_by(), [(3, "new"), (4, "new")])

    def test_those_that_left_are_not_started_again_and_their_numbers_are_free(self) -> None:
        for _ in range(2):
            self.last.ready()
        for process in self.spawned[:2]:
            process.worker.ended("exit status 0")
        self.clock.advance(1000)
        self.assertEqual(len(self.spawned), 4)
        again = ensureDeferred(self.supervisor.replace(OLD))
        for _ in range(2):
            self.last.ready()
        self.successResultOf(again)
        self.assertEqual(self.numbers(), [1, 2, 3, 4, 1, 2])

    def test_while_all_numbers_are_taken_by_those_that_leave_it_waits(self) -> None:
        for _ in range(2):
            self.last.ready()
        again = ensureDeferred(self.supervisor.replace(OLD))
        self.assertEqual(len(self.spawned), 4)
        self.spawned[1].worker.ended("exit status 0")
        self.assertEqual(self.numbers()[4:], [2])
        self.last.ready()
        self.spawned[0].worker.ended("exit status 0")
        self.last.ready()
        self.successResultOf(again)

    def test_who_does_not_leave_is_killed(self) -> None:
        self.last.ready()
        self.clock.advance(NEW.drain_timeout + OLD.drain_timeout + GRACE - 1)
        self.assertEqual(self.spawned[0].told, [5.0])
        self.clock.advance(1)
        self.assertEqual(self.spawned[0].told, [5.0, "kill"])

    def test_a_plan_that_does_not_start_changes_nothing(self) -> None:
        self.last.ended("no certificate")
        self.assertIn("no certificate", str(self.failureResultOf(self.replaced, WorkerError).value))
        self.assertEqual(self.served_by(), [(1, "old"), (2, "old")])
        self.spawned[1].worker.ended("signal 9")
        self.clock.advance(MOST_DELAY)
        self.assertEqual(self.last.order.plan, OLD)

    def test_an_old_one_that_dies_meanwhile_is_not_started_again_beside_its_successor(self) -> None:
        self.spawned[0].worker.ended("signal 9")
        self.clock.advance(MOST_DELAY)
        self.assertEqual(len(self.spawned), 3)
        self.last.ready()
        self.last.ready()
        self.successResultOf(self.replaced)
        self.assertEqual([plan for _, plan in self.served_by()], ["new", "new"])

    def test_when_both_die_the_old_plan_comes_back(self) -> None:
        self.spawned[0].worker.ended("signal 9")
        self.last.ended("no certificate")
        self.failureResultOf(self.replaced, WorkerError)
        self.clock.advance(MOST_DELAY)
        self.last.ready()
        self.assertEqual([plan for _, plan in self.served_by()], ["old", "old"])

    def test_a_later_one_that_does_not_start_is_tried_again(self) -> None:
        self.last.ready()
        self.last.ended("signal 9")
        self.assertNoResult(self.replaced)
        self.assertEqual(self.spawned[1].told, [])
        self.clock.advance(MOST_DELAY)
        self.last.ready()
        self.successResultOf(self.replaced)
        self.assertEqual([plan for _, plan in self.served_by()], ["new", "new"])

    def test_one_that_waits_to_be_started_again_gets_the_new_plan_and_its_number(self) -> None:
        self.spawned[1].worker.ended("signal 9")
        self.last.ready()
        self.assertEqual((self.last.order.number, self.last.order.plan, self.last.order.sweep), (2, NEW, True))
        self.last.ready()
        self.successResultOf(self.replaced)
        self.clock.advance(MOST_DELAY)
        self.assertEqual(len(self.spawned), 4)

    def test_a_stop_meanwhile(self) -> None:
        stopped = self.supervisor.stop()
        self.assertEqual([process.told for process in self.spawned], [[0.0]] * 3)
        for process in self.spawned:
            process.worker.ended("exit status 0")
        self.successResultOf(stopped)
        self.failureResultOf(self.replaced, WorkerError)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class StopTests(SupervisorCase):
    def setUp(self) -> None:
        super().setUp()
        self.serving()

    def test_all_are_told_and_it_waits_for_the_last(self) -> None:
        stopped = self.supervisor.stop()
        self.assertEqual([process.told for process in self.spawned], [[0.0], [0.0]])
        self.spawned[0].worker.ended("exit status 0")
        self.assertNoResult(stopped)
        self.spawned[1].worker.ended("exit status 0")
        self.successResultOf(stopped)
        self.assertEqual(self.gone, [1, 2])

    def test_who_does_not_end_is_killed(self) -> None:
        self.supervisor.stop()
        self.clock.advance(OLD.drain_timeout + GRACE)
        self.assertEqual(self.spawned[0].told, [0.0, "kill"])

    def test_nothing_is_started_again(self) -> None:
        self.spawned[0].worker.ended("signal 9")
        stopped = self.supervisor.stop()
        self.spawned[1].worker.ended("signal 9")
        self.successResultOf(stopped)
        self.clock.advance(1000)
        self.assertEqual(len(self.spawned), 2)

    def test_who_lingers_is_told_to_hurry(self) -> None:
        ensureDeferred(self.supervisor.replace(NEW))
        self.last.ready()
        self.supervisor.stop()
        self.assertEqual(self.spawned[0].told, [5.0, 0.0])
