"""
One lean connection: the transport of a protocol, with nothing between it and the kernel but OpenSSL.

In: a connected socket that a `LeanPort` has accepted; what the protocol writes.  Out: what the protocol receives.
Failures: a connection that is over ends with ConnectionDone, ConnectionLost, ConnectionAborted or the error of
OpenSSL; an exception of a protocol is logged and ends its connection with it.

What is written goes to the kernel at once; what the kernel does not take is queued.  When a producer is paused and
resumed, when loseConnection waits and what half-closing does, is as with twisted.internet.tcp, and so is that
`connectionLost` never comes from inside another call to the transport.  Unlike there, a connection of which nothing
is read loses nothing that its peer has sent before it went away.
TLS: the channels of lean_tls.py take the place of the socket's recv and send.
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
from collections.abc import Callable, Iterable
from typing import Any

from OpenSSL import SSL
from twisted.internet.address import UNIXAddress
from twisted.internet.error import ConnectionAborted
from twisted.internet.interfaces import (
    IConsumer,
    IHalfCloseableProtocol,
    IHandshakeListener,
    IPushProducer,
    ISSLTransport,
    ISystemHandle,
    ITCPTransport,
    ITLSTransport,
)
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import alsoProvides, implementer

from mailserver.lean_tls import Channel, channel_for

#: Octets that are read at once, and above which a producer is told to pause: those of twisted.internet.abstract.
READ_SIZE = BUFFER_SIZE = 65_536
#: Octets of a queue that are offered to the kernel at once.
SEND_SIZE = 131_072

# Python has no epoll on other systems; nothing here is reached there.
_IN, _OUT = getattr(select, "EPOLLIN", 0), getattr(select, "EPOLLOUT", 0)
_BROKEN = getattr(select, "EPOLLERR", 0) | getattr(select, "EPOLLHUP", 0)
_DONE, _LOST = Failure(CONNECTION_DONE), Failure(CONNECTION_LOST)
_RESET = struct.pack("ii", 1, 0)

_log = Logger(namespace="mailserver.lean")


@implementer(ITCPTransport, ITLSTransport, ISystemHandle, IConsumer, IPushProducer)
class LeanConnection:
    """
    See `ITCPTransport`, and the module for what is special.

    poller: the `Poller` that calls `ready`.
    connected, disconnecting, disconnected: as of Twisted's transports.  protocol: who gets what comes; it may be
    exchanged.  reason: why it is over, as soon as it is.
    """

    def __init__(self, poller: Any, connected: socket.socket, protocol: Any, peer: Any, host: Any) -> None:
        self._poller = poller
        self._socket = connected
        self._descriptor = connected.fileno()
        self._peer, self._host = peer, host
        # Whom octets are received from and sent to: the kernel, or what stands between it and us.
        self._recv: Callable[[int], bytes] = connected.recv
        self._send: Callable[[bytes], int] = connected.send
        self._channel: Channel | None = None
        self._creator: Any = None
        self._plain = self._unread = b""
        self._queue = bytearray()
        self._reading = True
        self._writing = self._read_over = False
        self._half_closing = self._half_closed = self._lingers = False
        self._mask = _IN
        self._no_delay = self._keep_alive = True
        self.protocol = protocol
        self.producer: Any = None
        self.streamingProducer = self._paused = False
        self.connected, self.disconnecting, self.disconnected = True, False, False
        self.reason: Failure | None = None
        poller.add(self._descriptor, self)

    # -- what the poller calls -------------------------------------------------------------------------------------

    def ready(self, event: int) -> None:
        """It can be read from, or written to, or is broken, which reading and writing will tell."""
        if self.reason is not None:
            return
        try:
            if self._reading and (event & ~_OUT or self._channel is not None):
                self._read()
            if self._writing and event & (_OUT | _BROKEN) and self.reason is None:
                self._flush()
            if self.reason is None:
                self._watch()
        except BaseException:  # noqa: BLE001 - the others must not suffer from it
            _log.failure("an error in a protocol ends its connection")
            self.fail(Failure())

    def lost(self, reason: Failure) -> None:
        """It is over: tell everybody."""
        if self.disconnected:
            return
        self.reason = reason
        self.connected, self.disconnected = False, True
        producer, self.producer = self.producer, None
        protocol, self.protocol = self.protocol, None
        try:
            if producer is not None:
                producer.stopProducing()
        except BaseException:  # noqa: BLE001 - the socket must be closed
            _log.failure("an error in a producer whose connection is over")
        self._poller.remove(self._descriptor, self._mask)
        # OpenSSL would go on to use the number of the descriptor, whoever has it then.
        self._channel = None
        self._recv = self._send = None  # type: ignore[assignment]
        with contextlib.suppress(OSError):
            if reason.check(ConnectionAborted):
                # A connection that is closed so is reset (RST); socket(7).
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            elif not self._read_over:
                # Closing alone would reset a peer that has sent more than we have read, before it has read the end.
                self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        try:
            protocol.connectionLost(reason)
        except BaseException:  # noqa: BLE001
            _log.failure("an error in a protocol whose connection is over")

    def fail(self, reason: Failure) -> None:
        """It is over for this reason; what is still to be sent is thrown away."""
        if self.reason is None:
            self.reason = reason
            self._poller.over(self)

    # -- reading ---------------------------------------------------------------------------------------------------

    def resumeProducing(self) -> None:
        """Read on."""
        if self.reason is None and not self.disconnecting and not self._read_over:
            self._reading = True
            if not self._mask & _IN:
                self._watch()
            if self._unread or (self._channel is not None and self._channel.holds):
                self._poller.reactor.callLater(0, self.ready, _IN)

    def pauseProducing(self) -> None:
        """Read no more.  The kernel is told only when something comes: most pauses are over before."""
        self._reading = False

    def stopProducing(self) -> None:
        """See `IPushProducer`."""
        self.loseConnection()

    def unread(self, octets: bytes) -> None:
        """What somebody has read that was meant for TLS, which was started meanwhile."""
        self._unread += octets
        self._poller.reactor.callLater(0, self.ready, _IN)

    def _read(self) -> None:
        if self._lingers:
            self._discard()
            return
        if self._creator is not None and (self._plain or not self._shake_hands()):
            return
        while True:
            try:
                octets = self._recv(READ_SIZE)
            except BlockingIOError:
                return
            except (OSError, SSL.Error):
                self._broken()
                return
            if not octets:
                break
            self.protocol.dataReceived(octets)
            channel = self._channel
            if channel is None or not channel.more or not self._reading or self.reason is not None:
                return
        self._end_of_input()

    def _end_of_input(self) -> None:
        self._read_over, self._reading = True, False
        if IHalfCloseableProtocol.providedBy(self.protocol):
            self.protocol.readConnectionLost()
        elif self._queue and self._channel is not None:
            self.loseConnection()
        else:
            self._say_goodbye()

    # -- writing ---------------------------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Send, at once if the kernel takes it; the rest is sent when it does."""
        if not isinstance(data, bytes):
            raise TypeError("Data must be bytes")
        if not data or self.reason is not None or self._half_closed:
            return
        if self.disconnecting and self.producer is None:
            return  # as with Twisted's TLS; only a producer may go on after loseConnection
        if not self._writing and self._creator is None:
            try:
                sent = self._send(data)
            except BlockingIOError:
                sent = 0
            except (OSError, SSL.Error):
                self._broken()
                return
            if sent == len(data) and not self._waits_for_room():
                return
            data = data[sent:]
        self._queue += data
        self._writing = True
        if not self._mask & _OUT and self._creator is None:
            self._watch()
        if len(self._queue) > BUFFER_SIZE and self.producer is not None and self.streamingProducer:
            self._paused = True
            self.producer.pauseProducing()

    def writeSequence(self, data: Iterable[bytes]) -> None:
        """Send all of them."""
        self.write(b"".join(data))

    def _waits_for_room(self) -> bool:
        """Everything was given away.  Is there something to be done as soon as more can be sent?"""
        if self._channel is not None and self._channel.blocked:
            return True
        return self.producer is not None and not self.streamingProducer

    def _flush(self) -> None:
        """More can be sent, or something waits for the moment when nothing is left to be."""
        try:
            if self._plain:
                self._plain = self._plain[self._socket.send(self._plain) :]
                if self.disconnecting and not self._plain and not self._queue:
                    self.fail(_DONE)
                return
            if self._queue and self._creator is None:
                del self._queue[: self._send(bytes(memoryview(self._queue)[:SEND_SIZE]))]
            elif self._channel is not None:
                self._channel.flush()
        except BlockingIOError:
            return
        except (OSError, SSL.Error):
            self._broken()
            return
        if not self._queue and self._creator is None and (self._channel is None or not self._channel.blocked):
            self._writing = False
            self._drained()

    def _drained(self) -> None:
        producer = self.producer
        if producer is not None and (self._paused or not self.streamingProducer):
            self._paused = False
            producer.resumeProducing()
        elif self.disconnecting:
            if producer is None or self._channel is None:
                self._say_goodbye()
        elif self._half_closing and not self._half_closed:
            self._half_closed = True
            if self._channel is not None:
                self._channel.close()
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_WR)
            if IHalfCloseableProtocol.providedBy(self.protocol):
                self.protocol.writeConnectionLost()

    def _broken(self) -> None:
        """Receiving or sending has failed, just now."""
        error = Failure()
        self.fail(error if error.check(SSL.Error) else _LOST)

    # -- the end ---------------------------------------------------------------------------------------------------

    def loseConnection(self) -> None:
        """Close, when all that was written has been sent; a producer that is registered may write first."""
        if self.reason is not None or self.disconnecting:
            return
        if self._half_closed:
            self.fail(_DONE)
            return
        self.disconnecting = True
        # In the middle of a handshake what was written can be sent only when the peer has said more.
        self._reading = self._reading and self._creator is not None
        if self._creator is not None and not self._plain and not self._queue:
            self.abortConnection()  # nobody is there yet to say goodbye to
        elif self._queue or self._plain or self._waits_for_room() or self._paused:
            self._start_writing()
        else:
            self._drained()

    def loseWriteConnection(self) -> None:
        """Close our sending side, when all that was written has been sent."""
        self._half_closing = True
        self._start_writing()

    def abortConnection(self) -> None:
        """Close now; the peer's side is reset."""
        self.fail(Failure(ConnectionAborted()))

    def _say_goodbye(self) -> None:
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.close()
            if not self._read_over:
                # Whoever speaks TLS answers our close_notify, and would be reset for it, or killed by SIGPIPE, if
                # nobody were there any more.  The protocol's own time for the end is the bound for this.
                self._lingers = self._reading = self._half_closed = True
                with contextlib.suppress(OSError):
                    self._socket.shutdown(socket.SHUT_WR)
                self._watch()
                return
        self.fail(_DONE)

    def _discard(self) -> None:
        """What comes behind our goodbye; its end is the end."""
        try:
            for _ in range(4):
                if not self._socket.recv(READ_SIZE):
                    break
            else:
                return  # there is more; the others come first
        except BlockingIOError:
            return
        except OSError:
            pass  # reset by the peer: over as well
        self.fail(_DONE)

    def _start_writing(self) -> None:
        if self.reason is None:
            self._writing = True
            self._watch()

    def _watch(self) -> None:
        channel = self._channel
        if channel is not None and channel.blocked:
            self._writing = True
        if self._plain:
            mask = _OUT
        elif channel is not None and channel.wants:
            mask = channel.wants if self._reading else 0
        else:
            # In a handshake what is written has to wait, however much room there is.
            writing = self._writing and (self._creator is None or (channel is not None and channel.blocked))
            mask = (_IN if self._reading else 0) | (_OUT if writing else 0)
        if mask != self._mask:
            self._poller.watch(self._descriptor, self._mask, mask)
            self._mask = mask

    # -- the consumer ----------------------------------------------------------------------------------------------

    def registerProducer(self, producer: Any, streaming: Any) -> None:
        """See `IConsumer`."""
        if self.producer is not None:
            raise RuntimeError(f"Cannot register producer {producer}: {self.producer} was never unregistered.")
        if self.disconnected:
            producer.stopProducing()
            return
        self.producer, self.streamingProducer, self._paused = producer, bool(streaming), False
        if not streaming:
            producer.resumeProducing()

    def unregisterProducer(self) -> None:
        """See `IConsumer`."""
        self.producer, self._paused = None, False
        if self.disconnecting and self.connected:
            self._start_writing()

    # -- TLS -------------------------------------------------------------------------------------------------------

    def startTLS(self, contextFactory: Any, normal: Any = True) -> None:
        """
        From now on all is TLS; what was written before goes first, what is written from now on after the handshake.

        contextFactory: `IOpenSSLServerConnectionCreator` or `IOpenSSLContextFactory`.  normal: we are its server.
        """
        if not normal:
            raise ValueError("a connection that was accepted is the server of its TLS")
        if self._creator is not None or self._channel is not None:
            raise RuntimeError("TLS has begun already")
        self._creator = contextFactory
        self._plain, self._queue = bytes(self._queue), bytearray()
        alsoProvides(self, ISSLTransport)

    def getHandle(self) -> Any:
        """The `SSL.Connection` under TLS, else the socket."""
        return self._socket if self._channel is None else self._channel.connection

    def getPeerCertificate(self) -> Any:
        """The certificate that the client showed, or None."""
        return None if self._channel is None else self._channel.connection.get_peer_certificate()

    def _shake_hands(self) -> bool:
        """Go on with the handshake.  Is it done?"""
        if self._channel is None:
            # OpenSSL reads the socket itself, unless somebody else has read from it already.
            self._channel = channel_for(
                self._creator, self._socket, self._unread, self.protocol, self._poller.reactor
            )
            self._unread = b""
        channel = self._channel
        try:
            channel.handshake()
        except BlockingIOError:
            return False
        except (OSError, SSL.Error):
            self._broken()
            return False
        self._creator = None
        self._recv, self._send = channel.recv, channel.send
        if self._queue:
            self._writing = True
        if IHandshakeListener.providedBy(self.protocol):
            self.protocol.handshakeCompleted()
        return self.reason is None and self._reading

    # -- what it is ------------------------------------------------------------------------------------------------

    def getPeer(self) -> Any:
        """The other end."""
        return self._peer

    def getHost(self) -> Any:
        """Our end."""
        return self._host

    def getTcpNoDelay(self) -> bool:
        """Are small writes sent at once?"""
        return bool(self._is_tcp() and self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))

    def setTcpNoDelay(self, enabled: Any) -> None:
        """They are from the beginning (`LeanPort`), so only a change costs something."""
        if bool(enabled) is not self._no_delay and self._is_tcp():
            self._no_delay = bool(enabled)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, enabled)

    def getTcpKeepAlive(self) -> bool:
        """Does the kernel look whether the peer is there still?"""
        return bool(self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))

    def setTcpKeepAlive(self, enabled: Any) -> None:
        """As `setTcpNoDelay`."""
        if bool(enabled) is not self._keep_alive and self._is_tcp():
            self._keep_alive = bool(enabled)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, enabled)

    def _is_tcp(self) -> bool:
        return not isinstance(self._host, UNIXAddress)
