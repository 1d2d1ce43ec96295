"""Asking the running server: the conversation with the transport of the tests, both sides over a real socket."""

from __future__ import annotations

import json
import os
import socket
import stat
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import EventLoggingObserver, StringTransport
from twisted.internet.threads import deferToThread
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase, TestCase

from mailserver import control
from mailserver.control import FILE_NAME, MAX_QUESTION, TIMEOUT, ControlError, ControlFactory, ControlService, ask


def broken() -> object:
    raise RuntimeError("a secret cause")


COMMANDS: dict[str, Callable[[], object]] = {
    "stats": lambda: {"uptime": 5},
    "broken": broken,
    "unwritable": lambda: {"x": object()},
}


class ConversationTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.transport = StringTransport()
        self.protocol = ControlFactory(COMMANDS, self.clock).buildProtocol(None)
        self.protocol.makeConnection(self.transport)

    def say(self, octets: bytes) -> list[Any]:
        self.transport.clear()
        self.protocol.dataReceived(octets)
        return [json.loads(line) for line in self.transport.value().splitlines()]

    def test_a_command_is_answered_with_one_line(self) -> None:
        self.assertEqual(self.say(b'{"command": "stats"}\n'), [{"uptime": 5}])
        self.assertTrue(self.transport.value().endswith(b"\n"))

    def test_several_are_answered_in_order(self) -> None:
        answers = self.say(b'{"command": "stats"}\n{"command": "?"}\n{"command": "stats"}\n')
        self.assertEqual([list(answer) for answer in answers], [["uptime"], ["error"], ["uptime"]])

    def test_what_is_no_question_gets_an_error(self) -> None:
        for octets, told in (
            (b'{"command": "reload"}\n', "unknown command; there are: broken, stats, unwritable"),
            (b'{"command": ["stats"]}\n', "unknown command"), (b"{}\n", "unknown command"), (b"[]\n", "unknown command"),
            (b'"stats"\n', "unknown command"), (b"stats\n", "no JSON"), (b"\n", "no JSON"), (b"\xff\n", "no JSON"),
            (b"[" * 4000 + b"\n", "no JSON"),
        ):  # fmt: skip
            with self.subTest(repr(octets[:30])):
                (answer,) = self.say(octets)
                self.assertIn(told, answer["error"])
        self.assertFalse(self.transport.disconnecting)

    def test_a_command_that_fails_is_logged_and_its_cause_not_told(self) -> None:
        for command, kind in (("broken", RuntimeError), ("unwritable", TypeError)):
            (answer,) = self.say(b'{"command": "%s"}\n' % command.encode())
            self.assertEqual(answer, {"error": f"{command} failed; the log says why"})
            self.assertEqual(len(self.flushLoggedErrors(kind)), 1)

    def test_answers_that_take_a_while_keep_the_order_of_the_questions(self) -> None:
        later: list[Deferred[object]] = []

        def wait() -> object:
            later.append(Deferred())
            return later[-1]

        self.protocol = ControlFactory({**COMMANDS, "wait": wait}, self.clock).buildProtocol(None)
        self.protocol.makeConnection(self.transport)
        self.assertEqual(self.say(b'{"command": "wait"}\n{"command": "stats"}\n'), [])
        later[0].callback({"n": 1})
        self.assertEqual(
            [json.loads(line) for line in self.transport.value().splitlines()], [{"n": 1}, {"uptime": 5}]
        )
        self.assertEqual(self.say(b'{"command": "wait"}\n'), [])
        later[1].errback(RuntimeError("a secret cause"))
        self.assertIn(b"wait failed; the log says why", self.transport.value())
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_a_line_has_an_end(self) -> None:
        self.assertEqual(self.say(b" " * MAX_QUESTION), [])
        self.assertFalse(self.transport.disconnecting)
        self.assertEqual(self.say(b"  "), [{"error": "the line is too long"}])
        self.assertTrue(self.transport.disconnecting)

    def test_who_says_nothing_is_hung_up_on(self) -> None:
        self.clock.advance(TIMEOUT - 0.1)
        self.say(b'{"command": "stats"}\n')
        self.clock.advance(TIMEOUT - 0.1)
        self.assertFalse(self.transport.disconnecting)
        self.clock.advance(0.2)
        self.assertTrue(self.transport.disconnecting)

    def test_no_timer_is_left_behind(self) -> None:
        self.protocol.connectionLost()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    @settings(deadline=None, max_examples=100)
    @given(st.binary(max_size=60), st.integers(1, 9))
    def test_any_line_has_one_answer_in_any_pieces(self, octets: bytes, size: int) -> None:
        line = octets.replace(b"\n", b"") + b"\n"
        whole = self.say(line)
        answers = [answer for at in range(0, len(line), size) for answer in self.say(line[at : at + size])]
        self.assertEqual(answers, whole)
        self.assertEqual(len(whole), 1)


class SocketCase(TestCase):
    """A directory whose name is short: the path of a Unix socket has 103 octets at most."""

    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = Path(directory.name)
        self.path = self.directory / FILE_NAME

    def refused(self, path: Path | None = None, **options: Any) -> str:
        return str(self.assertRaises(ControlError, ask, path or self.path, "stats", **options))


class ServiceTests(SocketCase):
    def service(self, directory: Path | None = None) -> ControlService:
        service = ControlService(directory or self.directory, COMMANDS, reactor)
        service.startService()
        self.addCleanup(service.stopService)
        return service

    def test_it_answers_on_a_socket_for_its_owner_only(self) -> Deferred[None]:
        async def run() -> None:
            self.service()
            self.assertEqual(stat.S_IMODE(os.lstat(self.path).st_mode), 0o600)
            self.assertEqual(await deferToThread(ask, self.path, "stats"), {"uptime": 5})
            with self.assertRaises(ControlError) as caught:
                await deferToThread(ask, self.path, "x")
            self.assertIn("the server: unknown command", str(caught.exception))

        return Deferred.fromCoroutine(run())

    def test_when_it_stops_the_socket_is_gone(self) -> Deferred[None]:
        async def run() -> None:
            service = self.service()
            stopped = service.stopService()
            assert stopped is not None
            self.assertFalse(self.path.exists())
            await stopped
            self.assertIsNone(service.stopService())

        return Deferred.fromCoroutine(run())

    def test_a_socket_that_a_crash_left_is_replaced(self) -> Deferred[None]:
        async def run() -> None:
            with socket.socket(socket.AF_UNIX) as dead:
                dead.bind(str(self.path))
            self.assertIn("no server is running", self.refused())
            self.service()
            self.assertEqual(await deferToThread(ask, self.path, "stats"), {"uptime": 5})

        return Deferred.fromCoroutine(run())

    def test_without_a_socket_the_server_runs_all_the_same_and_says_so(self) -> None:
        events = EventLoggingObserver.createWithCleanup(self, globalLogPublisher)
        for directory in (self.directory / "missing", self.directory / ("x" * 120)):
            service = self.service(directory)
            self.assertIsNone(service.stopService())
        self.service()
        self.service()  # another server in the same directory
        told = [event["reason"] for event in events if "no control socket" in (event["log_format"] or "")]
        self.assertEqual(len(told), 3)
        for reason, piece in zip(told, ("no directory", "at most 103", "in use"), strict=True):
            self.assertIn(piece, reason)


class AskTests(SocketCase):
    """Servers that are none."""

    def serve(self, answer: bytes, *, hang_up: bool = True) -> None:
        listening = socket.socket(socket.AF_UNIX)
        self.addCleanup(listening.close)
        listening.bind(str(self.path))
        listening.listen()

        def run() -> None:
            connection, _ = listening.accept()
            self.addCleanup(connection.close)
            connection.recv(MAX_QUESTION)
            connection.sendall(answer)
            if hang_up:
                connection.close()

        thread = threading.Thread(target=run)
        self.addCleanup(thread.join)
        thread.start()

    def test_nobody_is_there(self) -> None:
        self.assertEqual(
            self.refused(),
            f"no server is running with the data directory {self.directory} (nobody listens on {self.path})",
        )
        self.assertIn("no server is running", self.refused(self.directory / "missing" / FILE_NAME))

    def test_a_path_that_no_socket_can_have(self) -> None:
        path = self.directory / ("x" * 200)
        self.assertIn("no server is running", self.refused(path))
        path.touch()
        self.assertIn("too long", self.refused(path))

    def test_permission_denied(self) -> None:
        text = control._explain(self.path, PermissionError(13, "Permission denied"))
        self.assertEqual(text, f"{self.path}: permission denied; ask as the server's user or as root")

    def test_a_server_that_hangs_up(self) -> None:
        self.serve(b"")
        self.assertIn("hung up", self.refused())

    def test_a_server_that_stops_within_its_answer(self) -> None:
        self.serve(b'{"uptime": ')
        self.assertIn("hung up", self.refused())

    def test_an_answer_that_is_no_object(self) -> None:
        self.serve(b"[1]\n")
        self.assertIn("no JSON object", self.refused())

    def test_an_answer_without_end(self) -> None:
        self.patch(control, "MAX_ANSWER", 100)
        self.serve(b"x" * 101)
        self.assertIn("too long", self.refused())

    def test_a_server_that_never_answers(self) -> None:
        self.serve(b"{", hang_up=False)
        self.assertEqual(self.refused(timeout=0.01), f"{self.path}: the server did not answer within 0.01 s")
