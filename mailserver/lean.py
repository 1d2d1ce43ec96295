"""
A lean transport: TCP and Unix connections of a server with as little as possible between the kernel and a protocol.

In: a socket that listens, a factory.  Out: `LeanPort` (IListeningPort), which gives each protocol a `LeanConnection`
(lean_connection.py; TLS: lean_tls.py).
Failures: an exception while a connection begins is logged and ends it.  When there are no descriptors left, clients
are shed, or accepting pauses for a moment; one log event says so.

What is different from Twisted's transport, and why it is a third cheaper: all connections are in one epoll of our
own, which the reactor knows as a single reader, so that an event costs neither a logging context nor the reactor's
books; what is written goes to the kernel at once and not in the next turn; several connections are accepted in one
turn; what a listening socket hands down to its connections (TCP_NODELAY, SO_KEEPALIVE) is not set again.
What is the same: when producers are paused and resumed, and that `connectionLost` never comes from inside another
call to the transport: connections that are over are buried when the round is over.
Only public names of Twisted are used.  Where epoll or a reactor for descriptors is missing, `available` says no, and
the stock transport serves.  MAILSERVER_TRANSPORT=stock in the environment asks for that one, to compare.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
from time import perf_counter
from typing import Any, Protocol
from weakref import WeakKeyDictionary

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IAddress, IListeningPort, IReactorFDSet, IReadDescriptor
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from mailserver.lean_connection import LeanConnection

#: So many descriptors are served before the reactor gets its turn; the others are ready still in the next.
EVENTS_PER_ROUND = 32
#: A round that takes longer than this (seconds) ends behind the one that is served: a TLS handshake costs 1 to 3 ms.
ROUND = 0.005
#: So many connections are accepted in a round: each costs some 0.1 ms, and other workers want theirs.
ACCEPTS_PER_ROUND = 16
#: Octets that are read at once, and above which a producer is told to pause: those of twisted.internet.abstract.
READ_SIZE = BUFFER_SIZE = 65_536
#: Octets of a queue that are offered to the kernel at once.
SEND_SIZE = 131_072
#: Seconds without accepting when there are no descriptors (or no memory) left, and between two words about it.
REST, SILENCE = 0.5, 60.0

# Python has no epoll on other systems; nothing here is reached there.
_IN, _OUT = getattr(select, "EPOLLIN", 0), getattr(select, "EPOLLOUT", 0)
_BROKEN = getattr(select, "EPOLLERR", 0) | getattr(select, "EPOLLHUP", 0)
#: accept(2): this one connection is gone, or was taken away by a firewall; the next may be fine.
_NEXT = frozenset({errno.ECONNABORTED, errno.EPERM, errno.EPROTO, errno.ECONNRESET})
_DONE, _LOST = Failure(CONNECTION_DONE), Failure(CONNECTION_LOST)
_RESET = struct.pack("ii", 1, 0)

_log = Logger(namespace="mailserver.lean")


def available(reactor: Any) -> bool:
    """Can connections of this reactor be lean ones?"""
    return (
        hasattr(select, "epoll")
        and IReactorFDSet.providedBy(reactor)
        and os.environ.get("MAILSERVER_TRANSPORT") != "stock"
    )


class Source(Protocol):
    """What has a descriptor in the epoll."""

    def ready(self, event: int) -> None:
        """Something happened there.  Never raises."""

    def lost(self, reason: Failure) -> None:
        """It is over."""


@implementer(IReadDescriptor)
class Poller:
    """
    The epoll of all lean ports and connections of a reactor; the reactor sees it as one reader.

    It exists for the reactor only while something is in it.
    """

    def __init__(self, reactor: Any) -> None:
        self.reactor = reactor
        self._sources: dict[int, Source] = {}
        self._over: list[Source] = []
        self._in_round = self._called = False
        self._epoll: Any = None
        self._reserve = -1

    def fileno(self) -> int:
        """Of the epoll: readable when something in it is ready (epoll(7), Questions and answers 3)."""
        return -1 if self._epoll is None else int(self._epoll.fileno())

    def logPrefix(self) -> str:
        """For events that a protocol logs without a namespace of its own."""
        return "mailserver"

    def doRead(self) -> None:
        """Serve what is ready."""
        if self._epoll is None:
            return
        sources = self._sources
        self._in_round = True
        end = perf_counter() + ROUND
        try:
            for descriptor, event in self._epoll.poll(0, EVENTS_PER_ROUND):
                source = sources.get(descriptor)
                if source is not None:
                    source.ready(event)
                    if perf_counter() > end:
                        break  # TLS handshakes, perhaps: the kernel will tell of the others again
            self._bury()
        finally:
            self._in_round = False

    def connectionLost(self, reason: Failure) -> None:
        """The reactor has stopped: so everything is over."""
        for source in tuple(self._sources.values()):
            source.lost(reason)

    def add(self, descriptor: int, source: Source) -> None:
        """From now on `ready` is called when there is something to read."""
        if self._epoll is None:
            self._epoll = select.epoll()
            self._reserve = _spare()
            self.reactor.addReader(self)
        self._sources[descriptor] = source
        self._epoll.register(descriptor, _IN)

    def watch(self, descriptor: int, old: int, new: int) -> None:
        """Wait for other events.  Where nothing is waited for, the kernel's EPOLLHUP is not wanted either."""
        if not old:
            self._epoll.register(descriptor, new)
        elif not new:
            self._epoll.unregister(descriptor)
        else:
            self._epoll.modify(descriptor, new)

    def remove(self, descriptor: int, mask: int) -> None:
        """It is going to be closed."""
        self._sources.pop(descriptor, None)
        if mask:
            # Closing alone would not do while a child process that was just forked has it too.
            self._epoll.unregister(descriptor)
        if not self._sources:
            self.reactor.removeReader(self)
            self._epoll.close()
            self._epoll = None
            if self._reserve >= 0:
                os.close(self._reserve)

    def over(self, source: Source) -> None:
        """
        Call `lost` when nobody is in the middle of anything.  Until then its descriptor is open: no new connection
        can get the number, and with it the events of an old one.
        """
        self._over.append(source)
        if not self._in_round and not self._called:
            self._called = True
            self.reactor.callLater(0, self._bury)

    def shed(self, listening: socket.socket) -> bool:
        """Accept one connection and close it, with the descriptor that was kept for this; False: there is none."""
        if self._reserve < 0:
            self._reserve = _spare()
            return False
        os.close(self._reserve)
        try:
            listening.accept()[0].close()
        except OSError:
            return False
        finally:
            self._reserve = _spare()
        return True

    def _bury(self) -> None:
        self._called = False
        over = self._over
        while over:
            source: Any = over.pop(0)
            source.lost(source.reason)


def _spare() -> int:
    try:
        return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return -1


_pollers: WeakKeyDictionary[Any, Poller] = WeakKeyDictionary()


def poller_of(reactor: Any) -> Poller:
    """The one of this reactor."""
    found = _pollers.get(reactor)
    if found is None:
        found = _pollers[reactor] = Poller(reactor)
    return found


@implementer(IListeningPort)
class LeanPort:
    """
    Accepts the connections of one socket.

    listening: it is bound and listens; it belongs to the port, which closes it at the end, and may be shared with
    other processes.
    """

    def __init__(self, reactor: Any, listening: socket.socket, factory: Any) -> None:
        self._poller = poller_of(reactor)
        self._socket = listening
        self._factory = factory
        self._mask = 0
        self._rest: Any = None
        self._silent_until = 0.0
        self._family = listening.family
        self._host = self._name(listening.getsockname())
        # Where it listens on all addresses, each connection has to ask for its own.
        self._each = None if getattr(self._host, "host", "") in ("0.0.0.0", "::") else self._host  # noqa: S104
        self.listening = False

    def __repr__(self) -> str:
        return f"<LeanPort {self._host}>"

    def startListening(self) -> None:
        """Accept from now on."""
        self._socket.setblocking(False)
        if self._family != socket.AF_UNIX:
            # Both are handed down to accepted connections by Linux.
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._factory.doStart()
        self.listening = True
        self._poller.add(self._socket.fileno(), self)
        self._mask = _IN

    def stopListening(self) -> Deferred[None]:
        """Accept no more; connections that were accepted go on."""
        if self.listening:
            self.listening = False
            if self._rest is not None:
                self._rest.cancel()
            self._poller.remove(self._socket.fileno(), self._mask)
            self._socket.close()
            self._factory.doStop()
        return succeed(None)

    def getHost(self) -> IAddress:
        """Its own address."""
        return self._host

    def lost(self, _reason: Failure) -> None:
        """The reactor has stopped."""
        self.stopListening()

    def ready(self, _event: int) -> None:
        """Somebody wants to connect."""
        for _ in range(ACCEPTS_PER_ROUND):
            if not self.listening:
                return  # a protocol has stopped us
            try:
                accepted, name = self._socket.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _NEXT:
                    continue
                if self._short(error):
                    return
                continue
            self._begin(accepted, name)

    def _begin(self, accepted: socket.socket, name: Any) -> None:
        connection = None
        try:
            accepted.setblocking(False)
            peer = self._name(name)
            protocol = self._factory.buildProtocol(peer)
            if protocol is None:
                accepted.close()
                return
            host = self._each or self._name(accepted.getsockname())
            connection = LeanConnection(self._poller, accepted, protocol, peer, host)
            protocol.makeConnection(connection)
        except BaseException:  # noqa: BLE001 - whatever it was, the next connection must be accepted
            _log.failure("a connection could not be begun")
            if connection is None:
                accepted.close()
            else:
                connection.fail(Failure())

    def _short(self, error: OSError) -> bool:
        """There is no room for a connection.  Must accepting pause?  Else the next one may be tried at once."""
        now = self._poller.reactor.seconds()
        if now >= self._silent_until:
            self._silent_until = now + SILENCE
            _log.error(
                "connections to {host} cannot be accepted: {reason}", host=str(self._host), reason=error.strerror
            )
        if error.errno == errno.EMFILE and self._poller.shed(self._socket):
            return False
        # What is not accepted stays ready: without a pause the process would turn in circles.
        self._watch(0)
        self._rest = self._poller.reactor.callLater(REST, self._go_on)
        return True

    def _go_on(self) -> None:
        self._rest = None
        self._watch(_IN)

    def _watch(self, mask: int) -> None:
        self._poller.watch(self._socket.fileno(), self._mask, mask)
        self._mask = mask

    def _name(self, name: Any) -> Any:
        if self._family == socket.AF_UNIX:
            return UNIXAddress(name or None)
        if self._family == socket.AF_INET:
            return IPv4Address("TCP", *name)
        host, port, flow, scope = name
        if scope:
            # Python leaves away the zone of a link-local address.
            host = socket.getnameinfo(name, socket.NI_NUMERICHOST | socket.NI_NUMERICSERV)[0]
        return IPv6Address("TCP", host, port, flow, scope)
