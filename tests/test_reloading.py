"""Signals of the process that was started: what a reload does with what it reads, and who gets the signals back."""

from __future__ import annotations

import dataclasses
import signal
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.testing import EventLoggingObserver
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from mailserver import reloading
from mailserver.config import Config, ConfigError, Problem, development
from mailserver.foundations import StartError
from mailserver.reloading import ReloadingService, tell_what_needs_a_restart


class FakeReactor:
    stopped = 0

    def __init__(self) -> None:
        self.later: list[tuple[float, Any, tuple[Any, ...]]] = []

    def callFromThread(self, function: Any, *arguments: Any) -> None:
        function(*arguments)

    def callLater(self, delay: float, function: Any, *arguments: Any) -> None:
        self.later.append((delay, function, arguments))

    def stop(self) -> None:
        self.stopped += 1


class Changing(ReloadingService):
    """Writes down the configurations that it gets, and fails when it is told to."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.got: list[Config] = []
        self.error: Exception | None = None
        self.wait: Deferred[None] | None = None

    async def change_to(self, config: Config) -> None:
        if self.wait is not None:
            await self.wait
        if self.error is not None:
            raise self.error
        self.got.append(config)


class ReloadingCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.events = EventLoggingObserver.createWithCleanup(self, globalLogPublisher)
        self.config = development(Path("data"))
        self.reads: list[Any] = []
        self.reactor = FakeReactor()
        self.service = Changing(self.config, self.reactor, self.read)

    def read(self) -> Config:
        answer = self.reads.pop(0) if self.reads else self.config
        if isinstance(answer, Exception):
            raise answer
        return answer

    def reloads(self) -> list[str]:
        """What was logged of reloads and problems."""
        return [
            str(event.get("problem") or event["log_format"])
            for event in self.events
            if event.get("event") in ("reload", "config")
        ]


class ReloadTests(ReloadingCase):
    def test_the_new_configuration_is_used(self) -> None:
        self.successResultOf(self.service.reload())
        self.assertEqual(self.service.got, [self.config])
        self.assertEqual(self.reloads(), ["configuration reloaded"])

    def test_problems_are_told_and_nothing_changes(self) -> None:
        self.reads = [ConfigError((Problem("x.toml", 3, "key", "is wrong"),))]
        self.successResultOf(self.service.reload())
        self.assertEqual(self.reloads(), ["x.toml:3: key: is wrong", "the old configuration stays"])
        self.service.error = StartError(["no port", "no key"])
        self.successResultOf(self.service.reload())
        self.assertEqual(self.reloads()[2:], ["no port", "no key", "the old configuration stays"])
        self.assertEqual(self.service.got, [])

    def test_what_nobody_expected_is_logged_and_the_next_reload_works(self) -> None:
        self.service.error = RuntimeError("x")
        self.successResultOf(self.service.reload())
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.service.error = None
        self.successResultOf(self.service.reload())
        self.assertEqual(len(self.service.got), 1)

    def test_a_reload_during_a_reload_follows_it(self) -> None:
        self.service.wait = Deferred()
        first = self.service.reload()
        self.successResultOf(self.service.reload())
        self.assertEqual(self.service.got, [])
        self.service.wait.callback(None)
        self.successResultOf(first)
        self.assertEqual(len(self.service.got), 2)

    def test_systemd_is_told_when_it_is_over_and_not_when_all_stops(self) -> None:
        told: list[str] = []
        self.patch(reloading, "notify", lambda state, environ: told.append(state.partition("\n")[0]))
        for stopping, last in ((False, "READY=1"), (True, "RELOADING=1")):
            self.successResultOf(self.service.reload())
            ((delay, function, arguments),) = self.reactor.later
            self.reactor.later.clear()
            self.assertEqual((delay, told[-1]), (0, "RELOADING=1"))
            self.service._stopping = stopping
            function(*arguments)
            self.assertEqual(told[-1], last)

    def test_without_a_file_there_is_no_reload(self) -> None:
        service = Changing(self.config, self.reactor, None)
        self.successResultOf(service.reload())
        self.assertEqual(service.got, [])

    def test_what_needs_a_restart_is_told(self) -> None:
        server = self.config.server.model_copy(update={"workers": 4, "drain_timeout": 1.0, "log_format": "json"})
        tell_what_needs_a_restart(dataclasses.replace(self.config, server=server), self.config, ["more"])
        self.assertEqual([event["name"] for event in self.events], ["server.log_format", "server.workers", "more"])


class SignalTests(ReloadingCase):
    def test_they_are_given_back(self) -> None:
        before = signal.getsignal(signal.SIGHUP)
        self.addCleanup(signal.signal, signal.SIGHUP, before)
        self.service.take(signal.SIGHUP, self.service.hung_up)
        self.assertEqual(signal.getsignal(signal.SIGHUP), self.service.hung_up)
        self.service.give_back()
        self.assertEqual(signal.getsignal(signal.SIGHUP), before)

    def test_sighup_reloads(self) -> None:
        self.service.hung_up(signal.SIGHUP, None)
        self.assertEqual(len(self.service.got), 1)

    def test_sigterm_stops_once(self) -> None:
        before = signal.getsignal(signal.SIGTERM)
        self.addCleanup(signal.signal, signal.SIGTERM, before)
        self.service.take(signal.SIGTERM, self.service.terminated)
        self.service.terminated(signal.SIGTERM, None)
        self.assertEqual(self.reactor.stopped, 1)
        self.assertEqual(signal.getsignal(signal.SIGTERM), signal.SIG_IGN)
