"""
Which processes there shall be: starts workers, starts again what has died, replaces and ends them in good order.

In: `spawn`, which starts a process, a clock, and what the processes tell (`Worker.ready`, `Worker.ended`).
Out: Deferreds; a log that says what has died.  No process is touched here: what a process is, `spawn` knows.

- There are so many *slots* as workers are configured; each has one worker that serves.  A worker has a *number*, from
  1 on, that no other living worker has.  What died is started again in its slot and with its number, so that what
  belongs to the number (a journal) is taken over.
- At the start the first worker begins alone (`Order.first`): what earlier runs have left under any number is then
  nobody else's.  The others follow when it is ready.
- What dies is started again after `FIRST_DELAY`; the delay doubles with each death in a row, up to `MOST_DELAY`, and
  begins anew when a worker has served for `RAN_WELL`.
- A new plan (a reload) replaces the workers one by one: a new one starts beside the old one; when it is ready the
  old one is told to leave.  When the very first new one cannot start, the old plan stays.  As old ones may take a
  while to leave, there can be twice as many processes for that time, and never more.
- Who does not leave in time, or is not ready in time, is killed.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from mailserver.children import RAN_WELL, restart_delay

#: Seconds that a start may take; what a power cut has left may have to be read.
START_TIME = 300.0
#: Seconds beyond the time that a worker has to leave; then it is killed.  With `drain_timeout` (30 s) this is below
#: the TimeoutStopSec= of etc/mailserver.service.
GRACE = 10.0

_log = Logger(namespace="mailserver.workers")


class Plan(Protocol):
    """What workers serve with.  drain_timeout: seconds that they may take to end."""

    @property
    def drain_timeout(self) -> float:
        """See above."""


@dataclass(frozen=True, slots=True)
class Order:
    """
    How a process is to be started.

    number: of the worker.  first: no other worker lives.  sweep: one has died, or the whole server may have: look for
    what was left behind.
    """

    number: int
    plan: Any
    first: bool = False
    sweep: bool = False


class Process(Protocol):
    """A process that was spawned."""

    pid: int

    def leave(self, linger: float) -> None:
        """
        Tell it to accept no more, to let its connections go on for at most `linger` seconds, and then to end them in
        good order.
        """

    def kill(self) -> None:
        """End it now."""


Spawn = Callable[["Worker"], Process]


class WorkerError(Exception):
    """The first worker of a plan has ended before it was ready, or all shall stop.  `str()` is why."""


class State(enum.Enum):
    """Of a worker."""

    STARTING = "starting"
    READY = "ready"
    LEAVING = "leaving"


class Worker:
    """One process, from its start to its end.  up: fires with True when it is ready, else, at its end, with False."""

    process: Process

    def __init__(self, supervisor: Supervisor, slot: Slot, order: Order, now: float) -> None:
        self._supervisor = supervisor
        self.slot = slot
        self.order = order
        self.state = State.STARTING
        self.since = now
        self.up: Deferred[bool] = Deferred()
        self.why = ""
        self.timer: Any = None

    def ready(self) -> None:
        """It says that it serves."""
        self._supervisor.is_ready(self)

    def ended(self, why: str) -> None:
        """It is gone."""
        self._supervisor.has_ended(self, why)


class Slot:
    """A place for one worker that serves.  restarts: how often one died here; row: deaths without serving well."""

    def __init__(self) -> None:
        self.worker: Worker | None = None
        self.successor: Worker | None = None
        self.restarts = 0
        self.row = 0
        self.timer: Any = None
        #: The number of one that died and is started again.
        self.number: int | None = None


class Supervisor:
    """
    count: how many workers.  gone: called with the number of each worker that has ended, before another one gets it.
    """

    def __init__(self, spawn: Spawn, clock: IReactorTime, count: int, gone: Callable[[int], None]) -> None:
        self._spawn = spawn
        self._clock = clock
        self._gone = gone
        self._plan: Any = None
        self._serving = self._stopping = False
        self.slots = [Slot() for _ in range(count)]
        #: All processes, those that leave too.
        self.workers: set[Worker] = set()
        #: Each fires at the next end, or the next worker that is ready.
        self._changes: list[Deferred[None]] = []

    # -- what is asked of it ---------------------------------------------------------------------------------------

    async def start(self, plan: Plan) -> None:
        """Start all; returns when all are ready, or when it was told to stop.  Raises WorkerError."""
        self._plan = plan
        first = self._launch(self.slots[0], plan, first=True, sweep=True)
        self.slots[0].worker = first
        if not await first.up:
            if self._stopping:
                return
            raise WorkerError(first.why)
        self._serving = True
        for slot in self.slots[1:]:
            if not self._stopping:
                slot.worker = self._launch(slot, plan)
        while not self._stopping and not all(self._is_served(slot) for slot in self.slots):
            await self._change()

    async def replace(self, plan: Plan) -> None:
        """
        Put workers with this plan into the places of all; returns when the last new one is ready.

        Raises WorkerError when the first new one does not start; then the old plan stays.  Also when all are told to
        stop meanwhile.
        """
        for slot in self.slots:
            while (why := await self._put(slot, plan)) is not None:
                if self._stopping:
                    raise WorkerError("the server stops")
                if self._plan is not plan:
                    self._restart_if_empty(slot)
                    raise WorkerError(why)
                await self._wait(restart_delay(slot.row))
            self._plan = plan

    def stop(self) -> Deferred[Any]:
        """Tell all to leave; fires when none is left."""
        self._stopping = True
        for slot in self.slots:
            if slot.timer is not None:
                slot.timer.cancel()
                slot.timer = None
        for worker in tuple(self.workers):
            self._leave(worker, 0.0)
        self._changed()
        return self._empty()

    def _empty(self) -> Deferred[Any]:
        if not self.workers:
            return succeed(None)
        return self._change().addCallback(lambda _: self._empty())

    # -- what processes tell ---------------------------------------------------------------------------------------

    def is_ready(self, worker: Worker) -> None:
        """See `Worker.ready`."""
        if worker.state is not State.STARTING:
            return
        worker.state = State.READY
        worker.since = self._clock.seconds()
        _cancel(worker)
        _log.info(
            "worker {number} is ready (process {pid})", event="worker", number=worker.order.number, pid=_pid(worker)
        )
        worker.up.callback(True)
        self._changed()

    def has_ended(self, worker: Worker, why: str) -> None:
        """See `Worker.ended`."""
        _cancel(worker)
        self.workers.discard(worker)
        worker.why = why
        number, slot = worker.order.number, worker.slot
        self._gone(number)
        if worker.state is State.LEAVING:
            _log.info("worker {number} has left: {why}", event="worker", number=number, why=why)
        else:
            self._died(worker)
        if slot.successor is worker:
            slot.successor = None
        if slot.worker is worker:
            slot.worker = None
            if self._serving and not self._stopping and slot.successor is None:
                self._restart_later(slot, number)
        if not worker.up.called:
            worker.up.callback(False)
        self._changed()

    def _died(self, worker: Worker) -> None:
        slot, number = worker.slot, worker.order.number
        served = self._clock.seconds() - worker.since if worker.state is State.READY else 0.0
        slot.row = 1 if served >= RAN_WELL else slot.row + 1
        _log.error(
            "worker {number} (process {pid}) has died: {why}",
            event="worker-died",
            number=number,
            pid=_pid(worker),
            why=worker.why,
        )

    # -- starting --------------------------------------------------------------------------------------------------

    def _launch(self, slot: Slot, plan: Plan, number: int | None = None, **flags: bool) -> Worker:
        number = number or self._free_number()
        assert number is not None  # whoever calls has looked
        worker = Worker(self, slot, Order(number, plan, **flags), self._clock.seconds())
        self.workers.add(worker)
        worker.timer = self._clock.callLater(START_TIME, self._too_slow, worker, "is not ready")
        try:
            worker.process = self._spawn(worker)
        except OSError as error:  # no more processes, or descriptors
            worker.process = _NotStarted()
            self._clock.callLater(0, worker.ended, f"it cannot be started: {error}")
        return worker

    def _free_number(self) -> int | None:
        """The least number that nobody has; of twice as many as there are slots."""
        taken = {worker.order.number for worker in self.workers} | {slot.number for slot in self.slots}
        return next((number for number in range(1, 2 * len(self.slots) + 1) if number not in taken), None)

    def _restart_later(self, slot: Slot, number: int) -> None:
        delay = restart_delay(slot.row)
        slot.number = number
        _log.warn(
            "worker {number} is started again in {seconds:g} s", event="worker-restart", number=number, seconds=delay
        )
        slot.timer = self._clock.callLater(delay, self._restart, slot)

    def _restart(self, slot: Slot) -> None:
        number, slot.number, slot.timer = slot.number, None, None
        slot.restarts += 1
        slot.worker = self._launch(slot, self._plan, number, sweep=True)

    def _restart_if_empty(self, slot: Slot) -> None:
        """One that died while its successor was starting, which died too."""
        number = slot.number or self._free_number()
        if slot.worker is None and slot.timer is None and number is not None:
            self._restart_later(slot, number)

    async def _put(self, slot: Slot, plan: Plan) -> str | None:
        """Start a successor and, when it is ready, let the old one leave.  A text: why it has ended before that."""
        dead = slot.number
        if slot.timer is not None:
            slot.timer.cancel()
            slot.timer = None
        while dead is None and self._free_number() is None:
            await self._change()  # those that still leave have all the numbers
        if self._stopping:
            return "the server stops"
        successor = slot.successor = self._launch(slot, plan, dead, sweep=dead is not None)
        if not await successor.up:
            return successor.why
        old, slot.worker, slot.successor, slot.number = slot.worker, successor, None, None
        if old is not None:
            self._leave(old, plan.drain_timeout)
        return None

    def _is_served(self, slot: Slot) -> bool:
        return slot.worker is not None and slot.worker.state is State.READY

    # -- ending ----------------------------------------------------------------------------------------------------

    def _leave(self, worker: Worker, linger: float) -> None:
        _cancel(worker)
        worker.state = State.LEAVING
        limit = linger + worker.order.plan.drain_timeout + GRACE
        worker.timer = self._clock.callLater(limit, self._too_slow, worker, "does not end")
        worker.process.leave(linger)

    def _too_slow(self, worker: Worker, what: str) -> None:
        _log.error(
            "worker {number} (process {pid}) {what}: it is killed",
            event="worker-killed",
            number=worker.order.number,
            pid=_pid(worker),
            what=what,
        )
        worker.timer = None
        worker.process.kill()

    # -- waiting ---------------------------------------------------------------------------------------------------

    def _change(self) -> Deferred[None]:
        waiting: Deferred[None] = Deferred()
        self._changes.append(waiting)
        return waiting

    def _changed(self) -> None:
        waiting, self._changes = self._changes, []
        for each in waiting:
            each.callback(None)

    async def _wait(self, seconds: float) -> None:
        """So long, or until it was told to stop."""
        until = self._clock.seconds() + seconds
        timer = self._clock.callLater(seconds, self._changed)
        while self._clock.seconds() < until and not self._stopping:
            await self._change()
        if timer.active():
            timer.cancel()


class _NotStarted:
    """In the place of a process that the system did not give us."""

    pid = 0

    def leave(self, linger: float) -> None:
        """It is not there."""

    def kill(self) -> None:
        """It is not there."""


def _cancel(worker: Worker) -> None:
    if worker.timer is not None and worker.timer.active():
        worker.timer.cancel()
    worker.timer = None


def _pid(worker: Worker) -> int:
    return worker.process.pid
