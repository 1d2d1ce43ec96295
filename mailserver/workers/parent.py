"""
The parent of the workers: the process that was started, where `[server] workers` is more than 1.

In: `Config`, a reactor, where the log goes.  Out: `WorkersService`, an `IService` in the place of `MailService`.
It carries no mail.  It does what may be done only once: binds the sockets, makes directories, accounts file and
certificate, renews the self-signed one, answers on the control socket, takes the signals, talks to systemd, writes a
log file that is rotated.  Then it gives up root like a single process does, and `supervisor` looks after the workers,
which inherit the sockets.  So a listener never closes while the parent lives, and no connection is refused because a
worker dies or is replaced: it waits in the socket's queue for another one.

Reload: the new configuration is judged here and its new listeners are bound; then workers with it take the places of
the old ones one by one.  The text that was judged is what they get, not the file: one that died meanwhile comes back
with what is in force, whatever the file says by then.  A listener that would overlap one that is open (0.0.0.0:25 and
127.0.0.1:25, or a Unix socket with another mode) needs a restart: the old workers keep theirs open.
Stop: all workers drain at the same time, at most `drain_timeout`.
Failures: `StartError` before anything listens.  When the first worker cannot start, the log says why and the exit
status is 1.  When the parent is killed, the pipes end, and the workers drain and end.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, ensureDeferred, gatherResults
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from mailserver import __version__
from mailserver.children import environment
from mailserver.config import Config, Listener
from mailserver.control import ControlService
from mailserver.counters import TOP, TOP_OF_WORKER, add_up, ended
from mailserver.foundations import StartError, lay, self_signed_names
from mailserver.logs import Destination
from mailserver.privileges import Owner, become, owner_of
from mailserver.reloading import ReloadingService, tell_what_needs_a_restart
from mailserver.selfsigned import renew_if_needed
from mailserver.service import bind_listener, key_of, tell_listening
from mailserver.sockets import BoundSocket
from mailserver.systemd import notify, status
from mailserver.workers import tables
from mailserver.workers.channel import (
    BRIEF,
    FROM_PARENT,
    TABLES,
    TO_PARENT,
    Brief,
    Hears,
    Message,
    WorkerProcess,
    command,
    numbered,
)
from mailserver.workers.supervisor import Supervisor, Worker, WorkerError

_log = Logger(namespace="mailserver.workers")


def processes(workers: int | str) -> int:
    """How many processes that means; "auto": one for each processor that this process may use."""
    if workers != "auto":
        return int(workers)
    # Only Linux knows which processors are ours; elsewhere all are.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True, slots=True)
class ServingPlan:
    """What workers serve with: see `supervisor.Plan`.  sockets: by the keys of the configuration's listeners."""

    config: Config
    sockets: Mapping[str, Sequence[BoundSocket]]

    @property
    def drain_timeout(self) -> float:
        """Seconds."""
        return self.config.server.drain_timeout


class WorkersService(ReloadingService):
    """
    The whole server, as several processes.

    count: of workers.  log: where this process logs to.  load, owner: see `MailService`.
    """

    def __init__(
        self,
        config: Config,
        reactor: Any,
        count: int,
        log: Destination,
        *,
        load: Callable[[], Config] | None = None,
        owner: Owner | None = None,
    ) -> None:
        super().__init__(config, reactor, load)
        self._log = log
        self._owner = owner
        self._given_up = owner is not None
        self._sockets: dict[str, list[BoundSocket]] = {}
        self._tables = tables.Parent(tables.make_file(2 * count))
        self._started = time.monotonic()
        #: What workers that have ended in good order had counted.
        self._past: dict[str, Any] = add_up(())
        self.supervisor = Supervisor(self._spawn, reactor, count, self._tables.clear)

    # -- start -----------------------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """
        Make the directories, the accounts file and the certificate, bind all sockets.  Nothing is accepted yet.

        Raises StartError with all that is wrong; then nothing is left bound.
        """
        owner = self._owner or owner_of(self.config.server.user, self.config.server.group)
        accounts, _ = lay(self.config, owner)
        accounts.close()
        self._sockets = self._bind(self.config.listeners, self.config, owner)
        if owner is not None and os.geteuid() == 0:
            self._owner = owner
        data = self.config.server.data_dir
        ControlService(data, {"stats": self.stats}, self._reactor).setServiceParent(self)
        _Renewal(self).setServiceParent(self)

    def _bind(
        self, listeners: Sequence[Listener], config: Config, owner: Owner | None = None
    ) -> dict[str, list[BoundSocket]]:
        """The sockets of these listeners, or none: raises StartError."""
        bound: dict[str, list[BoundSocket]] = {}
        lines: list[str] = []
        for listener in listeners:
            try:
                bound[key_of(listener)] = bind_listener(config, listener, owner)
            except StartError as error:
                lines += error.lines
        if lines:
            _close(bound)
            raise StartError(lines)
        return bound

    def privilegedStartService(self) -> None:
        """While still root: give it up."""
        super().privilegedStartService()
        if self._owner is not None and not self._given_up:
            become(self._owner)
            self._given_up = True

    def startService(self) -> None:
        """Start the workers as soon as the reactor runs."""
        super().startService()
        self._reactor.callWhenRunning(self._begin)

    def _begin(self) -> None:
        if self._load is not None:
            # The reactor has taken SIGTERM by now, and would make twistd end by that signal: no exit status 0.
            self.take(signal.SIGHUP, self.hung_up)
            self.take(signal.SIGTERM, self.terminated)
        ensureDeferred(self._start_workers()).addErrback(self._failed)

    async def _start_workers(self) -> None:
        self._busy = True  # a SIGHUP waits until they are there
        try:
            await self.supervisor.start(ServingPlan(self.config, self._sockets))
        except WorkerError as error:
            _log.error("the first worker could not start: {why}", event="worker", why=str(error))
            self._fail()
            return
        finally:
            self._busy = False
        if self._stopping:
            return
        for listener in self.config.listeners:
            tell_listening(listener, self._sockets[key_of(listener)])
        self.say_ready(status(f"{len(self.supervisor.slots)} workers"))
        if self._again:
            self._again = False
            self.reload()

    def _failed(self, failure: Any) -> None:
        _log.failure("the workers could not be started", failure=failure)
        self._fail()

    def _fail(self) -> None:
        """End with exit status 1.  twistd has no way to say that, and asks nobody at its end."""
        atexit.register(_exit_with_1)
        self._reactor.stop()

    def _spawn(self, worker: Worker) -> WorkerProcess:
        """See `supervisor.Spawn`."""
        plan: ServingPlan = worker.order.plan
        order, destination = worker.order, self._log.descriptor()
        rows, descriptors = numbered(plan.sockets)
        brief = Brief(
            number=order.number,
            first=order.first,
            sweep=order.sweep,
            text=plan.config.text,
            source=str(plan.config.source),
            sockets=rows,
            log=self._log.words(),
            reactor=type(self._reactor).__module__,
        )
        process = WorkerProcess(Hears(worker.ready, worker.ended, self._last, self._relay), self._reactor)
        written = brief.write()
        nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        try:
            inherited: dict[int, Any] = {0: nothing, FROM_PARENT: "w", TO_PARENT: "r", BRIEF: written}
            inherited |= {1: "r", 2: "r"} if destination is None else {1: destination, 2: 2}
            inherited |= {TABLES: self._tables.descriptor, **descriptors}
            environ = environment(os.environ, sys.path)
            self._reactor.spawnProcess(
                process, sys.executable, command(order.number), env=environ, childFDs=inherited
            )
        finally:
            os.close(nothing)
            os.close(written)
        return process

    def _relay(self, octets: bytes) -> None:
        if self._log.observer is not None:
            self._log.observer.relay(octets.decode("utf-8", "backslashreplace"))

    # -- reload and stop -------------------------------------------------------------------------------------------

    async def change_to(self, config: Config) -> None:
        """See `ReloadingService`."""
        tell_what_needs_a_restart(config, self.config)
        old = {key_of(listener): listener for listener in self.config.listeners}
        wanted = {key_of(listener): listener for listener in config.listeners}
        new = [listener for key, listener in wanted.items() if key not in old]
        _check_overlaps(new, old.values())
        opened = self._bind(new, config)
        sockets = {key: opened[key] if key in opened else self._sockets[key] for key in wanted}
        try:
            lay(config)[0].close()
            await self.supervisor.replace(ServingPlan(config, sockets))
        except (WorkerError, StartError) as error:
            _close(opened)
            raise StartError([f"no worker could start with the new configuration: {error}"]) from error
        gone = {key: bound for key, bound in self._sockets.items() if key not in wanted}
        self.config, self._sockets = config, sockets
        _close(gone)
        for key in gone:
            _log.info("{name} is closed", event="closed", name=old[key].name)
        for key in opened:
            tell_listening(wanted[key], opened[key])

    def stopService(self) -> Deferred[None]:
        """Close the listeners, let all workers drain, stop the rest."""
        notify("STOPPING=1", os.environ)
        self._stopping = True
        return ensureDeferred(self._stop())

    async def _stop(self) -> None:
        _close(self._sockets)
        try:
            await self.supervisor.stop()
        finally:
            stopped = super().stopService()
            if stopped is not None:
                await stopped
        self.give_back()
        _log.info("stopped", event="stopped")

    # -- what it tells ---------------------------------------------------------------------------------------------

    def stats(self) -> Deferred[dict[str, Any]]:
        """What `mailserver stats` shows: the sum, and the list of the workers."""
        return ensureDeferred(self._stats())

    async def _stats(self) -> dict[str, Any]:
        workers = sorted(self.supervisor.workers, key=lambda each: each.order.number)
        answers: list[Message | None] = await gatherResults([_process(each).ask() for each in workers])
        told = [answer for answer in answers if answer is not None]
        now = self._reactor.seconds()
        rows = [
            {
                "worker": each.order.number,
                "pid": each.process.pid,
                "state": each.state.value if answer is not None else f"{each.state.value}, no answer",
                "uptime": round(now - each.since, 1),
                "restarts": each.slot.restarts,
                "connections": answer["connections"]["now"] if answer is not None else 0,
            }
            for each, answer in zip(workers, answers, strict=True)
        ]
        return {
            "version": __version__,
            "pid": os.getpid(),
            "uptime": round(time.monotonic() - self._started, 1),
            **add_up([self._past, *told], TOP),
            "workers": rows,
        }

    def _last(self, told: Message) -> None:
        self._past = add_up([self._past, ended(told)], TOP_OF_WORKER)


class _Renewal(Service):
    """Renews the self-signed certificate; the workers see the new file by themselves."""

    def __init__(self, server: WorkersService) -> None:
        self._server = server
        self._loop = LoopingCall(self._look)
        self._loop.clock = server._reactor  # noqa: SLF001 - its own part

    def startService(self) -> None:
        """Look once in each `check_interval`."""
        super().startService()
        interval = self._server.config.tls.check_interval
        if interval > 0:
            self._loop.start(interval, now=False)

    def stopService(self) -> None:
        """Look no more."""
        super().stopService()
        if self._loop.running:
            self._loop.stop()

    def _look(self) -> None:
        config = self._server.config
        if config.tls.certificates:
            return
        try:
            renew_if_needed(config.server.data_dir / "tls", self_signed_names(config), now=datetime.now(UTC))
        except OSError as error:
            _log.error("the certificate cannot be renewed: {reason}", reason=error.strerror)


def _check_overlaps(new: Sequence[Listener], old: Any) -> None:
    """Raises StartError."""
    lines = [
        f'listener "{listener.name}": {listener.address} overlaps {other.address} of "{other.name}", which the '
        "workers have open; that needs a restart"
        for listener in new
        for other in old
        if listener.address.overlaps(other.address)
    ]
    if lines:
        raise StartError(lines)


def _process(worker: Worker) -> WorkerProcess:
    process = worker.process
    assert isinstance(process, WorkerProcess)
    return process


def _close(sockets: dict[str, list[BoundSocket]]) -> None:
    for bound in sockets.values():
        for each in bound:
            each.close()


def _exit_with_1() -> None:
    os._exit(1)
