"""Between parent and worker: messages in any pieces, the brief, and what the parent does with what it hears."""

from __future__ import annotations

import json
import os
import signal
import socket
from typing import Any

from twisted.internet.error import ProcessDone, ProcessTerminated
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from mailserver.children import line_of
from mailserver.sockets import BoundSocket
from mailserver.workers import channel
from mailserver.workers.channel import (
    ANSWER_TIME,
    FROM_PARENT,
    SOCKETS,
    TO_PARENT,
    Brief,
    Hears,
    WorkerProcess,
    command,
    numbered,
)


class SharedSocketTests(SynchronousTestCase):
    def test_a_socket_that_siblings_share_is_never_made_blocking_not_even_by_its_duplicate(self) -> None:
        siblings = socket.socket()
        self.addCleanup(siblings.close)
        siblings.bind(("127.0.0.1", 0))
        siblings.listen()
        siblings.setblocking(False)
        bound = channel._bound(os.dup(siblings.fileno()), socket.AF_INET, "127.0.0.1", 0, "")
        self.addCleanup(bound.close)
        duplicate = bound.socket.dup()
        self.addCleanup(duplicate.close)
        self.assertFalse(os.get_blocking(siblings.fileno()))
        self.assertRaises(BlockingIOError, siblings.accept)


class BriefTests(SynchronousTestCase):
    def test_what_is_written_is_read(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listening, socket.socket(socket.AF_UNIX) as local:
            host, port = listening.getsockname()
            bound = {
                "one": [BoundSocket(listening, socket.AF_INET, host, port)],
                "two": [BoundSocket(local, socket.AF_UNIX, path="/run/x", file=(1, 2))],
            }
            rows, descriptors = numbered(bound)
            self.assertEqual(descriptors, {SOCKETS: listening.fileno(), SOCKETS + 1: local.fileno()})
            brief = Brief(2, False, True, 'hostname = "grün"', "/etc/x.toml", rows, {"format": "json"}, "reactor")
            descriptor = brief.write()
            self.assertFalse(os.get_inheritable(descriptor))
            read = Brief.read(descriptor)
            self.assertRaises(OSError, os.fstat, descriptor)
            self.assertEqual((read.number, read.first, read.sweep, read.text), (2, False, True, brief.text))
            # In the worker these numbers are open; here the sockets have others.
            copies = {number: os.dup(of) for number, of in descriptors.items()}
            moved = {key: [[copies[row[0]], *row[1:]] for row in each] for key, each in read.sockets.items()}
            found = Brief(**{**json.loads(json.dumps({"sockets": moved})), **_rest(read)}).bound()
            self.assertEqual(
                [str(each) for each in (*found["one"], *found["two"])], [f"{host}:{port}", "unix:/run/x"]
            )
            self.assertEqual(found["one"][0].socket.getsockname(), (host, port))
            self.assertIsNone(found["two"][0].file)
            for each in (*found["one"], *found["two"]):
                each.socket.close()

    def test_the_command_tells_the_number(self) -> None:
        self.assertEqual(command(7)[1:], ["-P", "-m", "mailserver.workers.process", "7"])


def _rest(brief: Brief) -> dict[str, Any]:
    return {name: getattr(brief, name) for name in ("number", "first", "sweep", "text", "source", "log", "reactor")}


class FakeTransport:
    pid: int | None = 77

    def __init__(self) -> None:
        self.written: list[tuple[int, dict[str, Any]]] = []
        self.open = True

    def writeToChild(self, descriptor: int, octets: bytes) -> None:
        if not self.open:
            raise KeyError(descriptor)
        self.written.append((descriptor, json.loads(octets)))


class WorkerProcessTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.heard: list[Any] = []
        hears = Hears(lambda: self.heard.append("ready"), self.heard.append, self.heard.append, self.heard.append)
        self.process = WorkerProcess(hears, self.clock)
        self.transport = FakeTransport()
        self.process.makeConnection(self.transport)  # type: ignore[arg-type]

    def says(self, **message: Any) -> None:
        self.process.childDataReceived(TO_PARENT, line_of(message))

    def ends(self, reason: Exception) -> Any:
        self.process.processEnded(Failure(reason))
        return self.heard[-1]

    def test_what_it_says(self) -> None:
        self.assertEqual(self.process.pid, 77)
        self.says(say="ready")
        self.says(say="last", told={"x": 1})
        self.assertEqual(self.heard, ["ready", {"x": 1}])

    def test_to_leave(self) -> None:
        self.process.leave(5.0)
        self.assertEqual(self.transport.written, [(FROM_PARENT, {"say": "leave", "linger": 5.0})])

    def test_who_has_just_died_is_told_nothing(self) -> None:
        self.transport.open = False
        self.process.leave(5.0)
        self.assertEqual(self.transport.written, [])

    def test_answers_find_their_questions(self) -> None:
        first, second = self.process.ask(), self.process.ask()
        (_, one), (_, two) = self.transport.written
        self.says(say="stats", id=two["id"], told={"n": 2})
        self.says(say="stats", id=one["id"], told={"n": 1})
        self.assertEqual((self.successResultOf(first), self.successResultOf(second)), ({"n": 1}, {"n": 2}))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_who_does_not_answer_is_not_waited_for(self) -> None:
        answer = self.process.ask()
        self.clock.advance(ANSWER_TIME - 0.1)
        self.assertNoResult(answer)
        self.clock.advance(0.1)
        self.assertIsNone(self.successResultOf(answer))
        self.says(say="stats", id=1, told={})  # too late, and no harm

    def test_who_dies_does_not_answer(self) -> None:
        answer = self.process.ask()
        self.ends(ProcessDone(0))
        self.assertIsNone(self.successResultOf(answer))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_how_it_ended(self) -> None:
        for reason, told in (
            (ProcessDone(0), "exit status 0"),
            (ProcessTerminated(3, None), "exit status 3"),
            (ProcessTerminated(None, signal.SIGKILL), "signal 9 (SIGKILL)"),
        ):
            self.assertEqual(self.ends(reason), told)

    def test_why_it_could_not_start(self) -> None:
        self.says(say="failed", lines=["one", "two"])
        self.assertEqual(self.ends(ProcessTerminated(1, None)), "one; two")

    def test_lines_of_its_log_are_passed_on_whole(self) -> None:
        for descriptor, octets in ((1, b"on"), (2, b"err"), (1, b"e\ntwo\nthr"), (1, b"ee\n")):
            self.process.childDataReceived(descriptor, octets)
        self.assertEqual(self.heard, [b"one\ntwo\n", b"three\n"])
        self.ends(ProcessDone(0))
        self.assertEqual(self.heard[2:], [b"err\n", "exit status 0"])

    def test_to_kill_one_that_is_gone_does_nothing(self) -> None:
        self.transport.pid = None
        self.process.kill()
        self.assertEqual(self.heard, [])
