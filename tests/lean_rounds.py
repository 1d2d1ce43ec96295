"""What drives the lean transport by hand: a reactor that is only a clock and a set of readers, and a talkative protocol."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IHalfCloseableProtocol, IReactorFDSet
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from mailserver.lean import poller_of
from mailserver.lean_connection import LeanConnection


@implementer(IReactorFDSet)
class Reactor(Clock):
    def __init__(self) -> None:
        super().__init__()
        self.readers: set[Any] = set()

    def addReader(self, reader: Any) -> None:
        self.readers.add(reader)

    def removeReader(self, reader: Any) -> None:
        self.readers.discard(reader)

    def addWriter(self, writer: Any) -> None:
        raise AssertionError("the epoll is only read")

    def removeWriter(self, writer: Any) -> None:
        raise AssertionError("the epoll is only read")

    def removeAll(self) -> list[Any]:
        return []

    def getReaders(self) -> list[Any]:
        return list(self.readers)

    def getWriters(self) -> list[Any]:
        return []


class Recorder(Protocol):
    """Writes down what it is told.  on_data, on_lost: what it does then."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.on_data: Callable[[bytes], Any] = lambda data: None
        self.on_lost: Callable[[], Any] = lambda: None

    def connectionMade(self) -> None:
        self.calls.append("made")

    def dataReceived(self, data: bytes) -> None:
        self.calls.append(data)
        self.on_data(data)

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        self.calls.append(("lost", reason.type))
        self.on_lost()


@implementer(IHalfCloseableProtocol)
class HalfRecorder(Recorder):
    """One that knows of half-closed connections."""

    def readConnectionLost(self) -> None:
        self.calls.append("read over")

    def writeConnectionLost(self) -> None:
        self.calls.append("write over")


class LeanTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = Reactor()
        self.poller = poller_of(self.reactor)
        self.addCleanup(self.end)

    def end(self) -> None:
        for source in tuple(self.poller._sources.values()):
            source.lost(Failure(AssertionError("left open by the test")))

    def rounds(self, count: int = 4) -> None:
        """Some rounds; as many as the tests need for everything that can happen to have happened."""
        for _ in range(count):
            self.poller.doRead()
            self.reactor.advance(0)

    def pair(self, protocol: Any, family: int = socket.AF_INET) -> tuple[LeanConnection, socket.socket]:
        """A protocol on a connection with small buffers, and the socket of its peer."""
        if family == socket.AF_UNIX:
            ours, theirs = socket.socketpair()
        else:
            with socket.socket() as listening:
                listening.bind(("127.0.0.1", 0))
                listening.listen()
                theirs = socket.socket()
                theirs.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
                theirs.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                theirs.connect(listening.getsockname())
                ours = listening.accept()[0]
                ours.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # as `LeanPort` sees to it
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
        ours.setblocking(False)
        theirs.settimeout(5)
        self.addCleanup(theirs.close)
        connection = LeanConnection(self.poller, ours, protocol, "peer", "host")
        protocol.makeConnection(connection)
        return connection, theirs

    def take(self, theirs: socket.socket, count: int) -> bytes:
        """So many octets (or all, up to the end) of what we send, with rounds as they are needed."""
        theirs.setblocking(False)
        got = bytearray()
        for _ in range(100_000):
            try:
                octets = theirs.recv(65_536)
            except BlockingIOError:
                self.rounds(1)
                continue
            got += octets
            if not octets or len(got) >= count:
                break
        theirs.settimeout(5)
        return bytes(got)
