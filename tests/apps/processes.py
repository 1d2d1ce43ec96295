"""An app's own process without a process: the reactor that spawns it, and the child's side in this one."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.error import ProcessDone, ProcessExitedAlready, ProcessTerminated
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from mailserver.apps.child import Child
from mailserver.apps.crossing import FROM_PARENT, TO_PARENT
from mailserver.children import line_of
from tests.apps.line import at_once


class FakeProcess:
    """
    A process as its protocol sees it.

    heard: what it was told.  signals: what it was sent; SIGKILL ends it, unless it is `immortal`.
    """

    immortal = False
    #: The child's side; None: the test says what it says.
    child: Child | None = None

    def __init__(self, protocol: Any, pid: int) -> None:
        self.protocol = protocol
        self.pid: int | None = pid
        self.heard: list[dict[str, Any]] = []
        self.signals: list[str] = []
        self.reaped = 0
        self.closed = False
        protocol.makeConnection(self)

    # -- what its protocol calls -----------------------------------------------------------------------------------

    def writeToChild(self, descriptor: int, octets: bytes) -> None:
        assert descriptor == FROM_PARENT
        if self.pid is None:
            raise KeyError(descriptor)
        self.heard += [json.loads(line) for line in octets.splitlines()]
        if self.child is not None:
            self.child.heard(octets)

    def signalProcess(self, name: str) -> None:
        if self.pid is None:
            raise ProcessExitedAlready
        self.signals.append(name)
        if name == "KILL" and not self.immortal:
            self.ends(signal=9)

    def reapProcess(self) -> None:
        self.reaped += 1

    def loseConnection(self) -> None:
        self.closed = True

    # -- what the test does ----------------------------------------------------------------------------------------

    def says(self, **message: Any) -> None:
        self.protocol.childDataReceived(TO_PARENT, line_of(message))

    def ends(self, status: int = 0, signal: int | None = None) -> None:
        """It is gone, and all that it said was heard."""
        self.pid = None
        reason = ProcessTerminated(status, signal) if status or signal else ProcessDone(0)
        self.protocol.processEnded(Failure(reason))

    def told(self, say: str) -> list[dict[str, Any]]:
        """The messages of this kind that it has heard."""
        return [each for each in self.heard if each["say"] == say]


class SpawningClock(Clock):
    """whole: each process has a child's side of its own."""

    def __init__(self, *, whole: bool = False) -> None:
        super().__init__()
        self.whole = whole
        self.processes: list[FakeProcess] = []
        self.spawned: list[tuple[list[str], dict[str, Any]]] = []
        self.error: OSError | None = None

    def spawnProcess(self, protocol: Any, executable: str, args: list[str], **others: Any) -> None:
        self.spawned.append((args, others))
        if self.error is not None:
            raise self.error
        process = FakeProcess(protocol, 1000 + len(self.spawned))
        self.processes.append(process)
        if self.whole:

            def say(message: Any) -> None:
                # Through JSON, as through the pipe; and what is said behind the end nobody hears.
                if process.pid is not None:
                    process.says(**message)

            process.child = Child(self, at_once, say, process.ends)

    @property
    def process(self) -> FakeProcess:
        """The last one."""
        return self.processes[-1]
