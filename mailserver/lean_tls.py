"""
TLS for the lean transport: OpenSSL reads from the socket and writes to it itself.

In: what makes connections (`IOpenSSLServerConnectionCreator`), a connected socket.  Out: a `Channel`, from which a
`LeanConnection` receives and to which it sends as to a socket; `LeanTLSFactory` for ports with implicit TLS.
Failures: BlockingIOError when the socket has nothing or no room; OSError when the connection is gone, also one that
ends without the close_notify of RFC 8446 6.1; SSL.Error when the peer breaks the rules (OpenSSL has sent the alert).

`SocketTLS` saves the copies through memory and the layers of Python that twisted.protocols.tls needs, and the memory
they keep for each connection.  `MemoryTLS` is for what OpenSSL cannot read from the socket: octets that came behind a
PROXY header and were read with it, and for connections that others than our certificate sets make.
Security: a channel is used only while its socket is open; no renegotiation (tls_contexts.py).
"""

from __future__ import annotations

import contextlib
import select
import socket
from typing import Any, Protocol

from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator, IReactorTime
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.internet.protocol import ServerFactory, connectionDone
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure

#: The octets of one record, RFC 8446 5.1.
RECORD = 16_384
#: So many full records are read in a row before others get their turn.
RECORDS_IN_A_ROW = 4
#: Octets read from a socket at once for `MemoryTLS`.
CHUNK = 65_536

_OUT = getattr(select, "EPOLLOUT", 0)


class Channel(Protocol):
    """
    What stands between a connection and its socket.

    connection: OpenSSL's.  more: read again at once.  holds: there may be octets to receive of which the epoll does
    not know.  blocked: octets wait here for room in the socket; `flush` gives them away.  wants: 0, or EPOLLOUT when
    the reading waits for room to write in the socket (a key update, a handshake).
    """

    connection: SSL.Connection
    holds: bool
    wants: int

    @property
    def more(self) -> bool:
        """See above."""

    @property
    def blocked(self) -> bool:
        """See above."""

    def handshake(self) -> None:
        """Go on with it; returns when it is done."""

    def recv(self, size: int, /) -> bytes:
        """Some octets; b"" after the peer's close_notify."""

    def send(self, data: bytes, /) -> int:
        """How many were taken."""

    def flush(self) -> None:
        """Give away what was taken and waits."""

    def close(self) -> None:
        """Send close_notify if there is room for it.  Never raises."""


def channel_for(creator: Any, connected: socket.socket, octets: bytes, protocol: Any, clock: Any) -> Channel:
    """
    The server's side of TLS on a socket.

    creator: see the module; a certificate set of ours, or anything that Twisted takes for a server.  octets: what was
    read from the socket already.  protocol, clock: what a foreign creator is told is Twisted's TLS for this protocol.
    """
    on_socket = getattr(creator, "server_connection_on", None)
    if on_socket is not None and not octets:
        return SocketTLS(on_socket(connected))
    if on_socket is not None:
        connection = creator.serverConnectionForTLS(None)
    elif IOpenSSLServerConnectionCreator.providedBy(creator):
        factory = TLSMemoryBIOFactory(creator, False, None, clock=clock)  # type: ignore[arg-type]
        connection = creator.serverConnectionForTLS(factory.protocol(factory, protocol))
    else:
        connection = SSL.Connection(creator.getContext(), None)
    return MemoryTLS(connection, connected, octets)


class SocketTLS:
    """OpenSSL does it all.  See `Channel`."""

    holds = False
    blocked = False

    def __init__(self, connection: SSL.Connection) -> None:
        connection.set_accept_state()
        self.connection = connection
        self.more = False
        self.wants = 0
        self._row = 0

    def handshake(self) -> None:
        """See `Channel`."""
        self.wants = 0
        try:
            self.connection.do_handshake()
        except SSL.WantReadError:
            raise BlockingIOError from None
        except SSL.WantWriteError:
            self.wants = _OUT
            raise BlockingIOError from None
        except SSL.SysCallError as error:
            raise ConnectionResetError(*error.args) from None

    def recv(self, _size: int) -> bytes:
        """See `Channel`."""
        self.wants = 0
        try:
            octets = self.connection.recv(RECORD)
        except SSL.WantReadError:
            self.more, self._row = False, 0
            raise BlockingIOError from None
        except SSL.WantWriteError:
            self.more, self.wants = False, _OUT
            raise BlockingIOError from None
        except SSL.ZeroReturnError:
            return b""
        except SSL.SysCallError as error:
            raise ConnectionResetError(*error.args) from None
        # A record was taken whole, so OpenSSL keeps nothing back: what follows is in the socket.
        self._row = self._row + 1 if len(octets) == RECORD else 0
        self.more = self._row % RECORDS_IN_A_ROW > 0
        return bytes(octets)

    def send(self, data: bytes) -> int:
        """See `Channel`."""
        sent = 0
        try:
            if len(data) <= RECORD:
                return int(self.connection.send(data))
            while sent < len(data):
                sent += self.connection.send(data[sent : sent + RECORD])
        except (SSL.WantWriteError, SSL.WantReadError):
            # It must be called again with the same octets, and so it is: they stay at the head of the queue.
            if not sent:
                raise BlockingIOError from None
        except SSL.SysCallError as error:
            raise ConnectionResetError(*error.args) from None
        return sent

    def flush(self) -> None:
        """See `Channel`: nothing waits here."""

    def close(self) -> None:
        """See `Channel`."""
        with contextlib.suppress(SSL.Error):
            self.connection.shutdown()


class MemoryTLS:
    """OpenSSL works in memory, and we read and write the socket.  See `Channel`."""

    wants = 0

    def __init__(self, connection: SSL.Connection, connected: socket.socket, octets: bytes) -> None:
        connection.set_accept_state()
        self.connection = connection
        self._socket = connected
        self._out = b""
        self.holds = bool(octets)
        if octets:
            connection.bio_write(octets)

    @property
    def more(self) -> bool:
        """See `Channel`."""
        return self.holds

    @property
    def blocked(self) -> bool:
        """See `Channel`."""
        return bool(self._out)

    def handshake(self) -> None:
        """See `Channel`."""
        if not self.holds:
            self._read()
        try:
            self.connection.do_handshake()
        except SSL.WantReadError:
            self.holds = False
            raise BlockingIOError from None
        except SSL.SysCallError as error:
            raise ConnectionResetError(*error.args) from None
        finally:
            self._give()

    def recv(self, _size: int) -> bytes:
        """See `Channel`."""
        if not self.holds:
            self._read()
        try:
            return bytes(self.connection.recv(RECORD))
        except SSL.WantReadError:
            self.holds = False
            raise BlockingIOError from None
        except SSL.ZeroReturnError:
            return b""
        except SSL.SysCallError as error:
            raise ConnectionResetError(*error.args) from None
        finally:
            self._give()

    def send(self, data: bytes) -> int:
        """See `Channel`."""
        if self._out:
            self.flush()
            if self._out:
                raise BlockingIOError
        for start in range(0, len(data), RECORD):
            self.connection.send(data[start : start + RECORD])
        self._give()
        return len(data)

    def flush(self) -> None:
        """See `Channel`."""
        self._out = self._out[self._socket.send(self._out) :]

    def close(self) -> None:
        """See `Channel`."""
        with contextlib.suppress(SSL.Error):
            self.connection.shutdown()
        self._give()

    def _read(self) -> None:
        octets = self._socket.recv(CHUNK)
        if not octets:
            raise ConnectionResetError("the end came without close_notify")
        self.connection.bio_write(octets)
        self.holds = True

    def _give(self) -> None:
        """Everything that OpenSSL has to send, to the socket; what does not go now waits.  Never raises."""
        parts = [self._out]
        with contextlib.suppress(SSL.WantReadError):
            while True:
                parts.append(self.connection.bio_read(CHUNK))
        self._out = b"".join(parts)
        if self._out:
            with contextlib.suppress(OSError):  # one that is more than "no room now" is met by the next call
                self.flush()


class LeanTLSFactory(ServerFactory):
    """
    Makes the protocols of another factory, behind TLS from the first octet on.

    tls: makes TLS connections.  wrapped: whose protocols.  With a transport that is not lean, TLS is Twisted's
    `TLSMemoryBIOFactory`.
    """

    noisy = False

    def __init__(self, tls: Any, wrapped: Any, clock: IReactorTime) -> None:
        self.tls = tls
        self.wrapped = wrapped
        self._stock = TLSMemoryBIOFactory(tls, False, wrapped, clock=clock)

    def doStart(self) -> None:
        """A port begins to use it."""
        super().doStart()
        self.wrapped.doStart()

    def doStop(self) -> None:
        """A port uses it no more."""
        super().doStop()
        self.wrapped.doStop()

    def buildProtocol(self, addr: Any) -> Any:
        """What starts TLS as soon as it has a transport."""
        behind = self.wrapped.buildProtocol(addr)
        return None if behind is None else _StartsTLS(self, behind)

    def stock(self, behind: Any) -> Any:
        """Twisted's TLS for a protocol."""
        return self._stock.protocol(self._stock, behind)


class _StartsTLS(TwistedProtocol):
    """Leaves its transport to the protocol behind it at once, when TLS has begun."""

    def __init__(self, factory: LeanTLSFactory, behind: Any) -> None:
        self._factory, self._behind = factory, behind
        self._lean: Any = None

    def makeConnection(self, transport: Any) -> None:
        """TLS begins."""
        if hasattr(transport, "unread"):
            self._lean = transport
            transport.startTLS(self._factory.tls)
        else:
            self._behind = self._factory.stock(self._behind)
        transport.protocol = self._behind
        self._behind.makeConnection(transport)

    def dataReceived(self, data: bytes) -> None:
        """What was read before TLS began and belongs to it: whoever handed the transport over gives it to us."""
        if self._lean is not None:
            self._lean.unread(data)
        else:
            self._behind.dataReceived(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """From a transport that goes on to call us."""
        self._behind.connectionLost(reason)
