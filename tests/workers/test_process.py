"""One worker: what it does when its parent speaks, and when it is silent for ever.  Whole workers: tests/interop."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import EventLoggingObserver
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from mailserver.children import line_of
from mailserver.counters import Counters
from mailserver.workers.channel import BRIEF, FROM_PARENT, TABLES, TO_PARENT, Brief
from mailserver.workers.process import Serving, _parent_line


class FakeReactor(Clock):
    stopped = 0

    def stop(self) -> None:
        self.stopped += 1


class FakeGround:
    def __init__(self) -> None:
        self.counters = Counters(Clock().seconds)


class FakeService:
    def __init__(self) -> None:
        self.ground = FakeGround()
        self.leaving: list[float] = []
        self.left: Deferred[None] = Deferred()

    async def leave(self, seconds: float) -> None:
        self.leaving.append(seconds)
        await self.left


class FakePipe:
    def __init__(self) -> None:
        self.written: list[dict[str, Any]] = []

    def write(self, octets: bytes) -> None:
        self.written.append(json.loads(octets))


class ServingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.events = EventLoggingObserver.createWithCleanup(self, globalLogPublisher)
        self.reactor, self.service = FakeReactor(), FakeService()
        self.serving = Serving(self.service, self.reactor)  # type: ignore[arg-type]
        self.serving._pipe = self.pipe = FakePipe()
        self.line = _parent_line(self.serving)

    def hears(self, **message: Any) -> None:
        self.line.dataReceived(line_of(message))

    def test_it_tells_its_counts(self) -> None:
        self.service.ground.counters.auth_succeeded()
        self.hears(say="stats", id=7)
        (told,) = self.pipe.written
        self.assertEqual((told["say"], told["id"], told["told"]["auth"]["succeeded"]), ("stats", 7, 1))

    def test_told_to_leave_it_ends_when_its_connections_have(self) -> None:
        self.hears(say="leave", linger=30.0)
        self.assertEqual((self.service.leaving, self.reactor.stopped), ([30.0], 0))
        self.service.left.callback(None)
        self.assertEqual(self.reactor.stopped, 1)

    def test_told_to_hurry_it_ends_at_once_and_once(self) -> None:
        self.hears(say="leave", linger=30.0)
        self.hears(say="leave", linger=0.0)
        self.assertEqual(self.reactor.stopped, 1)
        self.service.left.callback(None)
        self.assertEqual(self.reactor.stopped, 1)

    def test_without_a_parent_it_ends_and_says_so(self) -> None:
        self.line.connectionLost()
        self.assertEqual(self.reactor.stopped, 1)
        self.assertEqual([event["event"] for event in self.events], ["worker-orphan"])

    def test_the_end_of_the_pipe_at_its_own_end_is_nothing(self) -> None:
        self.serving.stop()
        self.line.connectionLost()
        self.assertEqual((self.reactor.stopped, list(self.events)), (1, []))


class FailureTests(SynchronousTestCase):
    """A real process, which cannot start."""

    def test_the_parent_is_told_why(self) -> None:
        words = {"format": "json", "level": "info", "logger": None, "syslog": None}
        brief = Brief(2, False, False, "[nonsense]\n", "/etc/x.toml", {}, words, "twisted.internet.selectreactor")
        read, write = os.pipe()
        written = brief.write()
        code = (
            "import fcntl, os, sys\n"
            f"copies = [fcntl.fcntl(each, fcntl.F_DUPFD, 100) for each in ({read}, {write}, {written}, {written})]\n"
            f"for at, copy in zip({(FROM_PARENT, TO_PARENT, BRIEF, TABLES)}, copies): os.dup2(copy, at)\n"
            "os.execv(sys.executable, [sys.executable, '-P', '-m', 'mailserver.workers.process', '2'])\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", code],
            pass_fds=(read, write, written),
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            timeout=60,
            check=False,
        )
        os.close(write)
        with os.fdopen(read, "rb") as pipe:
            told = [json.loads(line) for line in pipe]
        os.close(written)
        self.assertEqual((done.returncode, done.stderr), (1, b""))
        (failed,) = told
        self.assertEqual(failed["say"], "failed")
        self.assertTrue(any(line.startswith("/etc/x.toml:1: nonsense: unknown") for line in failed["lines"]), failed)
