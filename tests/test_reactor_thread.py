"""The reactor in a thread: what is refused.  That it runs is seen in tests/testing/blocking_cases.py."""

from __future__ import annotations

import subprocess
import sys
import threading
from typing import Any

from twisted.internet import reactor
from twisted.trial.unittest import SynchronousTestCase, TestCase

from mailserver import reactor_thread

#: The reactor is stopped by somebody; a second start is refused in words.
STOPPED = """
from twisted.internet import reactor
from mailserver.reactor_thread import call, run_reactor
run_reactor(reactor)
print(call(reactor, lambda a, b: a + b, 1, 2))
reactor.callFromThread(reactor.stop)
import threading
for each in threading.enumerate():
    if each.name == "mailserver":  # unless it has ended already
        each.join(20)
try:
    run_reactor(reactor)
except RuntimeError as error:
    print(error)
"""


class Reactor:
    """One that runs elsewhere, or not at all."""

    def __init__(self, *, running: bool) -> None:
        self.running = running
        self.started: list[str] = []

    def callWhenRunning(self, function: Any) -> None:
        self.begun = function

    def run(self, *, installSignalHandlers: bool) -> None:
        self.started.append(threading.current_thread().name)
        self.begun()


class ThreadTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.patch(reactor_thread, "_thread", None)
        self.patch(reactor_thread, "isInIOThread", lambda: False)
        self.patch(reactor_thread.atexit, "register", lambda *arguments: None)

    def test_it_is_started_in_a_thread_of_its_own(self) -> None:
        reactor = Reactor(running=False)
        reactor_thread.run_reactor(reactor)
        self.assertEqual(reactor.started, ["mailserver"])

    def test_one_that_runs_is_left_alone(self) -> None:
        reactor = Reactor(running=True)
        reactor_thread.run_reactor(reactor)
        self.assertEqual(reactor.started, [])

    def test_one_whose_life_is_over_is_refused(self) -> None:
        done = subprocess.run([sys.executable, "-c", STOPPED], capture_output=True, text=True, timeout=60, check=True)
        self.assertEqual(
            done.stdout.splitlines(), ["3", "the reactor of this process was stopped, and cannot be started again"]
        )


class OwnThreadTests(TestCase):
    async def test_in_the_reactor_s_thread_nobody_waits_for_it(self) -> None:
        self.patch(reactor_thread, "isInIOThread", lambda: True)
        for running in (True, False):
            error = self.assertRaises(RuntimeError, reactor_thread.run_reactor, Reactor(running=running))
            self.assertIn("must not wait", str(error))
        error = self.assertRaises(RuntimeError, reactor_thread.call, Reactor(running=True), list)
        self.assertIn("must not wait", str(error))

    def test_the_one_of_these_tests_is_not_taken_away(self) -> None:
        self.patch(reactor_thread, "isInIOThread", lambda: True)
        self.assertRaises(RuntimeError, reactor_thread.run_reactor, reactor)
