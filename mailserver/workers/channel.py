"""
How the parent and a worker talk: lines of JSON through two pipes; and how a worker is started.

In and out, parent to worker: {"say": "leave", "linger": seconds}; {"say": "stats", "id": n}.  Worker to parent:
{"say": "ready"}; {"say": "stats", "id": n, "told": {...}}; {"say": "last", "told": {...}} (the counts of a worker
that ends); {"say": "failed", "lines": [...]} (why it cannot start).
What a worker needs to begin with stands in an anonymous file (`Brief`).  Its descriptors: 0 /dev/null, 1 the log,
2 standard error, `FROM_PARENT`, `TO_PARENT`, `BRIEF`, `TABLES`, and from `SOCKETS` on those that it accepts on.
Failures: the end of the pipe is the end of the other side.  A line that is none is an error of ours: ValueError.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from mailserver.children import Lines, how_it_ended, line_of
from mailserver.sockets import BoundSocket

FROM_PARENT, TO_PARENT, BRIEF, TABLES, SOCKETS = range(3, 8)
#: Seconds that the parent waits for an answer of a worker.
ANSWER_TIME = 5.0

Message = Mapping[str, Any]


def anonymous_file(name: str) -> int:
    """
    A descriptor of a file without a name in the file system, closed on exec; name: for whoever looks into /proc.

    Linux: memfd_create(2); elsewhere a file in the temporary directory.
    """
    if hasattr(os, "memfd_create"):
        return os.memfd_create(name, os.MFD_CLOEXEC)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


@dataclass(frozen=True, slots=True)
class Brief:
    """
    What a worker needs to begin with.

    number, first, sweep: see `supervisor.Order`.  text, source: the configuration, and the file that it stood in.
    sockets: for the key of each listener (`service.key_of`) the rows (descriptor, family, host, port, path).
    log: see `mailserver.logs.Destination.words`.  reactor: the module of the parent's.
    """

    number: int
    first: bool
    sweep: bool
    text: str
    source: str
    sockets: Mapping[str, Sequence[tuple[int, int, str, int, str]]]
    log: Mapping[str, Any]
    reactor: str

    def write(self) -> int:
        """A descriptor from which `read` makes it again."""
        descriptor = anonymous_file("mailserver-brief")
        with os.fdopen(descriptor, "wb", closefd=False) as file:
            file.write(json.dumps(asdict(self)).encode())
        os.lseek(descriptor, 0, os.SEEK_SET)
        return descriptor

    @classmethod
    def read(cls, descriptor: int) -> Brief:
        """What was written; the descriptor is closed."""
        with os.fdopen(descriptor, "rb") as file:
            return cls(**json.load(file))

    def bound(self) -> dict[str, list[BoundSocket]]:
        """The sockets.  Their files, of Unix sockets, are the parent's to remove."""
        return {key: [_bound(*row) for row in rows] for key, rows in self.sockets.items()}


def _bound(descriptor: int, family: int, host: str, port: int, path: str) -> BoundSocket:
    opened = socket.socket(fileno=descriptor)
    # It is so already; but Python's object does not know it, and its duplicates would make it blocking for all the
    # processes that share it: a sibling that is just about to accept would then wait for the next client.
    opened.setblocking(False)
    return BoundSocket(opened, family, host, port, path)


def numbered(sockets: Mapping[str, Sequence[BoundSocket]]) -> tuple[dict[str, list[Any]], dict[int, int]]:
    """The rows of `Brief.sockets`, and which descriptor of the parent each one of the worker is."""
    rows: dict[str, list[Any]] = {}
    descriptors: dict[int, int] = {}
    for key, bound in sockets.items():
        rows[key] = []
        for each in bound:
            number = SOCKETS + len(descriptors)
            descriptors[number] = each.socket.fileno()
            rows[key].append((number, int(each.family), each.host, each.port, each.path))
    return rows, descriptors


def command(number: int) -> list[str]:
    """The command line of a worker; -P: no module comes from the current folder."""
    return [sys.executable, "-P", "-m", "mailserver.workers.process", str(number)]


@dataclass(frozen=True, slots=True)
class Hears:
    """
    What the parent does with what a process says.

    ready, ended: of its `Worker`.  last: its counts, at its end.  lines: octets that it wrote to descriptors 1 and 2,
    where these are pipes to the parent.
    """

    ready: Callable[[], None]
    ended: Callable[[str], None]
    last: Callable[[Message], None]
    lines: Callable[[bytes], None]


class WorkerProcess(ProcessProtocol):
    """The parent's side: a `supervisor.Process`."""

    transport: Any

    def __init__(self, hears: Hears, clock: IReactorTime) -> None:
        self._hears = hears
        self._clock = clock
        self._lines = Lines()
        self._log = {1: b"", 2: b""}
        self._asked: dict[int, Deferred[Message | None]] = {}
        self._count = 0
        self._failed = ""
        self.pid = 0

    def leave(self, linger: float) -> None:
        """See `supervisor.Process`."""
        self._say({"say": "leave", "linger": linger})

    def kill(self) -> None:
        """See `supervisor.Process`."""
        if self.transport is not None and self.transport.pid is not None:
            os.kill(self.transport.pid, signal.SIGKILL)

    def ask(self) -> Deferred[Message | None]:
        """Its counts; None when it does not answer within `ANSWER_TIME`."""
        self._count += 1
        number, answer = self._count, Deferred[Message | None]()
        self._asked[number] = answer
        timer = self._clock.callLater(ANSWER_TIME, self._answered, number, None)

        def over(told: Message | None) -> Message | None:
            if timer.active():
                timer.cancel()
            return told

        answer.addCallback(over)
        self._say({"say": "stats", "id": number})
        return answer

    # -- what Twisted calls ----------------------------------------------------------------------------------------

    def connectionMade(self) -> None:
        """It was started."""
        self.pid = self.transport.pid

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        """It says something, or it logs."""
        if childFD == TO_PARENT:
            for message in self._lines.feed(data):
                self._heard(message)
            return
        whole, newline, rest = data.rpartition(b"\n")
        if newline:
            self._hears.lines(self._log[childFD] + whole + newline)
            self._log[childFD] = rest
        else:
            self._log[childFD] += data

    def processEnded(self, reason: Failure) -> None:
        """It is gone, and all that it said was heard."""
        for rest in self._log.values():
            if rest:
                self._hears.lines(rest + b"\n")
        for number in tuple(self._asked):
            self._answered(number, None)
        self._hears.ended(self._failed or how_it_ended(reason.value))

    # -- small parts -----------------------------------------------------------------------------------------------

    def _say(self, message: Message) -> None:
        with contextlib.suppress(KeyError):  # it has just died: there is no such pipe any more
            self.transport.writeToChild(FROM_PARENT, line_of(message))

    def _heard(self, message: Message) -> None:
        match message["say"]:
            case "ready":
                self._hears.ready()
            case "stats":
                self._answered(message["id"], message["told"])
            case "last":
                self._hears.last(message["told"])
            case "failed":
                self._failed = "; ".join(message["lines"])

    def _answered(self, number: int, told: Message | None) -> None:
        answer = self._asked.pop(number, None)
        if answer is not None:
            answer.callback(told)
