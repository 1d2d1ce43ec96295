"""
Talking to the running server: questions from the command line, through a Unix socket in the data directory.

In: one JSON object a line, {"command": "stats"}.  Out: one JSON object a line: what the command returns, or
{"error": "..."}.  Both sides stand here: `ControlService` answers, `ask` asks.
Security: the socket has mode 0600 in a directory of mode 0700, so only the server's user and root can ask; a line and
an answer are bounded; a peer that says nothing is hung up on.
Failures: `ControlError` on the asking side, in words for the user.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, ensureDeferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import ServerFactory, connectionDone
from twisted.logger import Logger
from twisted.protocols.basic import LineOnlyReceiver
from twisted.protocols.policies import TimeoutMixin
from twisted.python.failure import Failure

from mailserver.sockets import BindError, ListenAddress, adopt, bind

#: Of the socket, in the data directory.
FILE_NAME = "control"
#: A question (octets); none has more than a few words.
MAX_QUESTION = 4096
#: An answer (octets).
MAX_ANSWER = 16 * 1024 * 1024
#: How long the server waits for a question, and the command line for an answer (seconds).
TIMEOUT = 10.0

#: Command -> what it answers: anything that JSON can write, or a Deferred that fires with it.
Commands = Mapping[str, Callable[[], object]]

_log = Logger(namespace="mailserver.control")


class ControlError(Exception):
    """The server could not be asked; `str()` is a line for the user."""


def ask(path: Path, command: str, *, timeout: float = TIMEOUT) -> dict[str, Any]:
    """
    What the server behind the socket `path` answers.  timeout: for everything together, in seconds.

    Blocks.  Raises ControlError.
    """
    question = json.dumps({"command": command}).encode() + b"\n"
    answer = b""
    deadline = time.monotonic() + timeout
    try:
        path.lstat()  # a path that is too long for a socket can still be none
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(timeout)
            connection.connect(str(path))
            connection.sendall(question)
            while not answer.endswith(b"\n") and (octets := connection.recv(65_536)):
                answer += octets
                connection.settimeout(max(deadline - time.monotonic(), 0.001))
                if len(answer) > MAX_ANSWER:
                    raise ControlError(f"{path}: the answer is too long")
    except TimeoutError as error:
        raise ControlError(f"{path}: the server did not answer within {timeout:g} s") from error
    except OSError as error:
        raise ControlError(_explain(path, error)) from error
    try:
        told = json.loads(answer)
    except ValueError as error:
        raise ControlError(f"{path}: the server hung up, or its answer is no JSON") from error
    if not isinstance(told, dict):
        raise ControlError(f"{path}: the answer is no JSON object")
    if "error" in told:
        raise ControlError(f"the server: {told['error']}")
    return told


def _explain(path: Path, error: OSError) -> str:
    if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ECONNREFUSED):
        return f"no server is running with the data directory {path.parent} (nobody listens on {path})"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"{path}: permission denied; ask as the server's user or as root"
    # A path that is too long has no number.
    return f"{path}: {os.strerror(error.errno) if error.errno else error}"


class ControlProtocol(LineOnlyReceiver, TimeoutMixin):
    """The server's side of one conversation."""

    noisy = False
    delimiter = b"\n"
    MAX_LENGTH = MAX_QUESTION
    factory: ControlFactory
    transport: Any = None

    def __init__(self) -> None:
        # Fires when all that was asked is answered: answers keep the order of the questions.
        self._answered: Deferred[Any] = succeed(None)

    def connectionMade(self) -> None:
        """Wait for a question."""
        self.setTimeout(TIMEOUT)

    def lineReceived(self, line: bytes) -> None:
        """A question."""
        self.resetTimeout()
        self._answered.addCallback(lambda _: ensureDeferred(self._answer(line)))
        self._answered.addCallback(lambda answer: self.transport.write(answer.encode() + b"\n"))

    def lineLengthExceeded(self, line: bytes) -> None:  # type: ignore[override]  # noqa: ARG002 - Twisted gives it
        """Nobody asks so long a question."""
        self.transport.write(_error("the line is too long").encode() + b"\n")
        self.transport.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:  # noqa: ARG002 - Twisted gives it
        """It is over."""
        self.setTimeout(None)

    def callLater(self, period: float, func: Callable[[], None]) -> Any:
        """For `TimeoutMixin`: the factory's clock."""
        return self.factory.clock.callLater(period, func)

    async def _answer(self, line: bytes) -> str:
        try:
            question = json.loads(line)
        except (ValueError, RecursionError):
            return _error("the question is no JSON")
        command = question.get("command") if isinstance(question, dict) else None
        if not isinstance(command, str) or command not in self.factory.commands:
            return _error(f"unknown command; there are: {', '.join(sorted(self.factory.commands))}")
        try:
            answer = self.factory.commands[command]()
            return json.dumps(await answer if isinstance(answer, Deferred) else answer)
        except Exception:  # noqa: BLE001 - logged; who asks is told that it failed
            _log.failure("the control command {command} failed", command=command)
            return _error(f"{command} failed; the log says why")


def _error(text: str) -> str:
    return json.dumps({"error": text})


class ControlFactory(ServerFactory):
    """Makes a `ControlProtocol` for each who asks."""

    noisy = False

    def __init__(self, commands: Commands, clock: IReactorTime) -> None:
        self.commands = commands
        self.clock = clock

    def buildProtocol(self, addr: Any) -> Any:  # noqa: ARG002 - Twisted gives it
        """For one connection."""
        protocol = ControlProtocol()
        protocol.factory = self
        return protocol


class ControlService(Service):
    """
    Answers on the socket while the server runs.

    directory: the data directory, with mode 0700.  reactor: one that has `IReactorSocket`.
    Start it when root has been given up: the socket belongs to whom the process belongs then.  When the socket cannot
    be had, a warning is logged, and the server runs without.
    """

    def __init__(self, directory: Path, commands: Commands, reactor: Any) -> None:
        self.path = directory / FILE_NAME
        self._factory = ControlFactory(commands, reactor)
        self._reactor = reactor
        self._port: Any = None

    def startService(self) -> None:
        """Listen; the socket that a crash left behind is replaced."""
        super().startService()
        try:
            (bound,) = bind(ListenAddress.parse(f"unix:{self.path}"), unix_mode=0o600)
        except (BindError, ValueError) as error:
            _log.warn("no control socket, so `mailserver stats` cannot ask: {reason}", reason=str(error))
            return
        self._port = adopt(self._reactor, bound, self._factory)

    def stopService(self) -> Deferred[None] | None:
        """Listen no more."""
        super().stopService()
        port, self._port = self._port, None
        return None if port is None else port.stopListening()
