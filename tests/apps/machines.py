"""A machine without processes: `spawnProcess` is recorded, signals too, time is a `Clock`."""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from typing import Any

from twisted.internet.error import ProcessDone, ProcessExitedAlready, ProcessTerminated
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from mailserver.apps.programs import Machine

#: The number of the first process.
FIRST_PID = 1000


class FakeProcess:
    """The transport of a process.  It reads its stdin when told to."""

    def __init__(self, protocol: Any, pid: int) -> None:
        self.protocol = protocol
        self.pid = pid
        self.stdin = bytearray()
        self.waiting = bytearray()
        self.eof = self.let_go = False
        self.signals: list[str] = []
        self.producer: Any = None
        self._gone = False

    # -- IProcessTransport -----------------------------------------------------------------------------------------

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        assert not streaming
        self.producer = producer
        producer.resumeProducing()

    def unregisterProducer(self) -> None:
        self.producer = None

    def write(self, data: bytes) -> None:
        assert not self.waiting, "a block was given before the one before was read"
        self.waiting += data

    def closeStdin(self) -> None:
        self.eof = True

    def loseConnection(self) -> None:
        self.let_go = True

    def signalProcess(self, name: str) -> None:
        if self._gone:
            raise ProcessExitedAlready
        self.signals.append(name)

    # -- what the program does -------------------------------------------------------------------------------------

    def read(self, blocks: int = 1000) -> bytes:
        """Read so many blocks of stdin."""
        for _ in range(blocks):
            self.stdin += self.waiting
            self.waiting.clear()
            if self.producer is None:
                break
            self.producer.resumeProducing()
        return bytes(self.stdin)

    def close_stdin(self) -> None:
        """The program reads no more."""
        producer, self.producer = self.producer, None
        if producer is not None:
            producer.stopProducing()

    def prints(self, out: bytes = b"", err: bytes = b"") -> None:
        """Output."""
        self.protocol.childDataReceived(1, out)
        self.protocol.childDataReceived(2, err)

    def exits(self, status: int | None = 0, killed_by: int | None = None, *, pipes: bool = True) -> None:
        """The end.  pipes: are they closed too?"""
        self._gone = True
        self.close_stdin()
        how = ProcessDone(0) if status == 0 else ProcessTerminated(status, killed_by, 0)
        self.protocol.processExited(Failure(how))
        if pipes:
            self.protocol.processEnded(Failure(how))


class FakeReactor(Clock):
    """Records what is started."""

    def __init__(self) -> None:
        super().__init__()
        self.processes: list[FakeProcess] = []
        self.spawned: list[dict[str, Any]] = []
        self.failure: OSError | None = None

    def spawnProcess(
        self, protocol: Any, executable: bytes, arguments: Sequence[bytes], env: Mapping[bytes, bytes], **more: Any
    ) -> FakeProcess:
        if self.failure is not None:
            raise self.failure
        self.spawned.append({"executable": executable, "arguments": list(arguments), "env": dict(env), **more})
        process = FakeProcess(protocol, FIRST_PID + len(self.processes))
        self.processes.append(process)
        protocol.transport = process
        protocol.connectionMade()
        return process


class FakeMachine:
    """`machine` is what the code takes; groups: (pid, signal name) of each signal to a group."""

    def __init__(self, *, setsid: str = "/usr/bin/setsid") -> None:
        self.reactor = FakeReactor()
        self.groups: list[tuple[int, str]] = []
        self.group_error: OSError | None = None
        self.reaped = 0
        self.machine = Machine(self.reactor, self._reap, self._killpg, setsid)

    def _reap(self) -> None:
        self.reaped += 1

    def _killpg(self, pid: int, number: int) -> None:
        if self.group_error is not None:
            raise self.group_error
        self.groups.append((pid, signal.Signals(number).name))

    @property
    def last(self) -> FakeProcess:
        """The process that was started last."""
        return self.reactor.processes[-1]
