"""
The PROXY protocol, versions 1 and 2: who the client of a proxy in front of us is (the receiving side).

In: a connection from a proxy that we trust, whose first octets are the header.  Out: the same connection for the
protocol behind it, as if the client had connected itself: `getPeer` and `getHost` tell the addresses of the header.
Nothing is sent, and the protocol behind is not even built, before the header is complete; octets behind the header go
to it.  It works below implicit TLS (the protocol behind is then that of a `TLSMemoryBIOFactory`) and with STARTTLS.
Failures: `ProxyError`, a proxy that takes too long, a peer that is no trusted proxy: the connection is closed without
a word, for whoever is there does not speak our language; one log event says why.
Security: whoever may send a header may pretend to be anybody, so there is no listener that takes connections with and
without one, and none that takes headers from everywhere.

proxy-protocol.txt of HAProxy (2020/03/05), sections 2.1 and 2.2.
"""

from __future__ import annotations

import ipaddress
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IAddress, IDelayedCall, IProtocol, IReactorTime
from twisted.internet.protocol import Protocol, ServerFactory, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from mailserver.connections import OpenConnections
from mailserver.sockets import Network, peer_of, within

#: proxy-protocol.txt 2.1: the longest header of version 1 (octets, with its CRLF).
MAX_V1 = 107
#: A header of version 2 with its TLVs (octets); the addresses take 232 at most, a certificate's names a few hundred.
MAX_V2 = 4096
#: How long a header may take (seconds); a proxy sends it at once.
HEADER_TIMEOUT = 5.0

_V1 = b"PROXY "
_V2 = b"\r\n\r\n\x00\r\nQUIT\n"
#: The fixed part of version 2: signature, version and command, family and protocol, length of what follows.
_FIXED = struct.Struct("!12sBBH")
#: Family -> octets of its two addresses and what follows them (AF_UNSPEC, AF_INET, AF_INET6, AF_UNIX).
_ADDRESSES = {0: 0, 1: 12, 2: 36, 3: 216}
_STREAM, _DGRAM = 1, 2
# ASCII digits only, no leading zeros: "Heading zeroes are not permitted".
_PORT = re.compile(r"(?:0|[1-9][0-9]{0,4})\Z")
_UNKNOWN = re.compile(rb"PROXY UNKNOWN(?: [^\r\n]*)?\Z")

_log = Logger(namespace="mailserver.proxy")


class ProxyError(ValueError):
    """These octets are no PROXY header that we take; `str()` says why, and quotes nothing of them."""


@dataclass(frozen=True, slots=True)
class ProxyHeader:
    """
    What a proxy said.

    source, destination: (address, port) of the client and of what it connected to, in their normal form, an IPv4
    address never as ::ffff:192.0.2.1.  None: there are none (UNKNOWN, LOCAL, a Unix socket); the connection's own
    hold.
    """

    source: tuple[str, int] | None = None
    destination: tuple[str, int] | None = None


def read_header(octets: bytes) -> tuple[ProxyHeader, int] | None:
    """
    The header at the start of a connection, and how many octets it takes; None when more octets are needed.

    octets: everything that came so far.  Raises ProxyError, as soon as no further octet could make it a header.
    """
    if octets.startswith(_V2):
        return _read_v2(octets)
    if octets.startswith(_V1):
        return _read_v1(octets)
    if _V1.startswith(octets) or _V2.startswith(octets):
        return None
    raise ProxyError("no PROXY header")


# -- version 1: a line of text -------------------------------------------------------------------------------------


def _read_v1(octets: bytes) -> tuple[ProxyHeader, int] | None:
    end = octets.find(b"\r\n", 0, MAX_V1)
    if end < 0:
        if len(octets) >= MAX_V1:
            raise ProxyError(f"a header of version 1 without CRLF within {MAX_V1} octets")
        return None
    line, size = octets[:end], end + 2
    if _UNKNOWN.match(line):
        return ProxyHeader(), size
    words = line.decode("latin-1").split(" ")
    if len(words) != 6 or words[1] not in ("TCP4", "TCP6"):
        raise ProxyError("a header of version 1 that is not complete, or of an unknown protocol")
    _, protocol, source, destination, source_port, destination_port = words
    return (
        ProxyHeader(
            (_v1_address(protocol, source), _v1_port(source_port)),
            (_v1_address(protocol, destination), _v1_port(destination_port)),
        ),
        size,
    )


def _v1_address(protocol: str, text: str) -> str:
    try:
        if protocol == "TCP4":
            return str(ipaddress.IPv4Address(text))
        # A zone ("%eth0") is none of the protocol's characters.
        return _normal(ipaddress.IPv6Address(text.replace("%", " ")))
    except ValueError:
        raise ProxyError(f"a header of version 1 with a bad {protocol} address") from None


def _v1_port(text: str) -> int:
    if not _PORT.match(text) or int(text) > 65_535:
        raise ProxyError("a header of version 1 with a bad port")
    return int(text)


def _normal(address: ipaddress.IPv6Address) -> str:
    return str(address.ipv4_mapped or address)


# -- version 2: binary ---------------------------------------------------------------------------------------------


def _read_v2(octets: bytes) -> tuple[ProxyHeader, int] | None:
    if len(octets) < _FIXED.size:
        return None
    _, version_command, family_protocol, length = _FIXED.unpack_from(octets)
    version, command = version_command >> 4, version_command & 0x0F
    family, protocol = family_protocol >> 4, family_protocol & 0x0F
    size = _FIXED.size + length
    if version != 2 or command > 1:
        raise ProxyError(f"a binary header of version {version} and command {command}")
    if size > MAX_V2:
        raise ProxyError(f"a header of version 2 with {size} octets; {MAX_V2} are taken")
    if command == 1:  # with LOCAL the family means nothing
        if family not in _ADDRESSES or protocol > _DGRAM:
            raise ProxyError(f"a header of version 2 with family {family} and protocol {protocol}")
        if length < _ADDRESSES[family]:
            raise ProxyError(f"a header of version 2 with {length} octets, too few for its addresses")
    if len(octets) < size:
        return None
    # What stands behind the addresses (TLVs) is skipped.  Of connections that are no TCP we know no address.
    block = octets[_FIXED.size : size]
    if command == 1 and protocol == _STREAM and family == 1:
        source4, destination4, *ports = struct.unpack_from("!4s4sHH", block)
        hosts = str(ipaddress.IPv4Address(source4)), str(ipaddress.IPv4Address(destination4))
    elif command == 1 and protocol == _STREAM and family == 2:
        source6, destination6, *ports = struct.unpack_from("!16s16sHH", block)
        hosts = _normal(ipaddress.IPv6Address(source6)), _normal(ipaddress.IPv6Address(destination6))
    else:
        return ProxyHeader(), size
    return ProxyHeader((hosts[0], ports[0]), (hosts[1], ports[1])), size


# -- Twisted -------------------------------------------------------------------------------------------------------


class ProxyProtocol(Protocol):
    """
    Reads the header of one connection, and then leaves the transport to the protocol behind it.

    The transport itself is handed over, with two methods changed: so everything that it can do (startTLS, producers,
    TCP options) works as ever, and costs nothing more.
    """

    noisy = False
    factory: ProxyFactory
    transport: Any = None

    def __init__(self) -> None:
        self._octets = b""
        self._timer: IDelayedCall | None = None
        self._behind: IProtocol | None = None

    def connectionMade(self) -> None:
        """Is it a proxy of ours?"""
        factory = self.factory
        if factory.connections is not None:
            factory.connections.add(self)
        if not factory.trusts(self.transport):
            self._refuse("not a trusted proxy")
            return
        self._timer = factory.clock.callLater(factory.timeout, self._timed_out)

    def dataReceived(self, data: bytes) -> None:
        """Octets of the header, and what is behind it."""
        if self._behind is not None:  # a transport that goes on to call us
            self._behind.dataReceived(data)
            return
        if self._timer is None:  # refused
            return
        self._octets += data
        try:
            found = read_header(self._octets)
        except ProxyError as error:
            self._refuse(str(error))
            return
        if found is not None:
            header, size = found
            rest, self._octets = self._octets[size:], b""
            self._hand_over(header, rest)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The connection is over; only while the header was being read the transport tells it to us."""
        self._forget()
        if self._behind is not None:
            self._behind.connectionLost(reason)

    def drain(self) -> None:
        """End: nothing has begun."""
        self.cut()

    def cut(self) -> None:
        """End now."""
        self._forget()
        self.transport.abortConnection()

    def _hand_over(self, header: ProxyHeader, rest: bytes) -> None:
        self._forget()
        transport = self.transport
        peer = _address(header.source) or transport.getPeer()
        host = _address(header.destination) or transport.getHost()
        behind = self.factory.wrapped.buildProtocol(peer)
        if behind is None:
            transport.abortConnection()
            return
        self._behind = behind
        # As Twisted itself does for startTLS, which will find its protocol here.
        transport.getPeer = lambda: peer
        transport.getHost = lambda: host
        transport.protocol = behind
        behind.makeConnection(transport)
        if rest:
            behind.dataReceived(rest)

    def _timed_out(self) -> None:
        self._timer = None
        self._refuse(f"no PROXY header within {self.factory.timeout:g} s")

    def _refuse(self, reason: str) -> None:
        self._forget()
        proxy, port = peer_of(self.transport)
        _log.info(
            "connection from {proxy} to {listener} closed: {reason}",
            event="proxy",
            listener=self.factory.listener,
            proxy=proxy,
            port=port,
            reason=reason,
        )
        self.transport.abortConnection()

    def _forget(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
        if self.factory.connections is not None:
            self.factory.connections.discard(self)


class ProxyFactory(ServerFactory):
    """
    Puts the PROXY protocol below another factory's protocols.

    wrapped: makes the protocol behind, with the address of the header; it is one of ours or a `TLSMemoryBIOFactory`.
    trusted: where proxies are.  Who comes through a Unix socket is trusted: the mode of its file says who may.
    timeout: for the header, in seconds.  listener: its name, for the log.  connections: where those are kept that
    have not sent their header yet.
    """

    noisy = False

    def __init__(
        self,
        wrapped: Any,
        trusted: Sequence[Network],
        clock: IReactorTime,
        *,
        timeout: float = HEADER_TIMEOUT,
        listener: str = "",
        connections: OpenConnections | None = None,
    ) -> None:
        self.wrapped = wrapped
        self.trusted = tuple(trusted)
        self.clock = clock
        self.timeout = timeout
        self.listener = listener
        self.connections = connections

    def doStart(self) -> None:
        """A port begins to use it."""
        super().doStart()
        self.wrapped.doStart()

    def doStop(self) -> None:
        """A port uses it no more."""
        super().doStop()
        self.wrapped.doStop()

    def buildProtocol(self, addr: Any) -> Any:  # noqa: ARG002 - of the proxy; Twisted gives it
        """A reader of one header."""
        protocol = ProxyProtocol()
        protocol.factory = self
        return protocol

    def trusts(self, transport: Any) -> bool:
        """May this peer say who its client is?"""
        if isinstance(transport.getHost(), UNIXAddress):
            return True
        return within(peer_of(transport)[0], self.trusted)


def _address(end: tuple[str, int] | None) -> IAddress | None:
    if end is None:
        return None
    return (IPv6Address if ":" in end[0] else IPv4Address)("TCP", *end)
