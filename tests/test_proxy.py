"""
The PROXY protocol: headers as tables, fed whole, byte by byte and with a tail; the connection behind them, with the
transport of the tests, and over real sockets with STARTTLS and implicit TLS.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st
from OpenSSL import SSL
from twisted.internet import reactor
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.interfaces import (
    IHandshakeListener,
    IOpenSSLContextFactory,
    ISSLTransport,
    ITCPTransport,
    ITLSTransport,
)
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import EventLoggingObserver, StringTransport
from twisted.logger import globalLogPublisher
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer

from mailserver.connections import OpenConnections
from mailserver.proxy import MAX_V1, ProxyError, ProxyFactory, read_header
from mailserver.sockets import local_of, parse_network, peer_of
from mailserver.tls import CertificateSet
from tests.certs import write_pair
from tests.proxy_headers import BAD, GOOD, MAPPED, SIGNATURE, TLVS, V4, V6, binary


class HeaderTests(SynchronousTestCase):
    def test_good_headers_whole_and_with_a_tail(self) -> None:
        for name, octets, header in GOOD:
            for tail in (b"", b"EHLO x\r\n", b"\r\n", octets, b"\x16\x03"):
                with self.subTest(f"{name}, {tail!r} behind it"):
                    self.assertEqual(read_header(octets + tail), (header, len(octets)))

    def test_good_headers_need_all_their_octets(self) -> None:
        for name, octets, _ in GOOD:
            with self.subTest(name):
                self.assertEqual({read_header(octets[:end]) for end in range(len(octets))}, {None})

    def test_everything_else_is_refused_whole_and_octet_by_octet(self) -> None:
        for name, octets in BAD:
            with self.subTest(name):
                self.assertRaises(ProxyError, read_header, octets)
                ends = []
                for end in range(len(octets) + 1):
                    try:
                        self.assertIsNone(read_header(octets[:end]))
                    except ProxyError:
                        ends.append(end)
                # Once refused, always refused.
                self.assertEqual(ends, list(range(ends[0], len(octets) + 1)))

    def test_a_wrong_start_is_refused_at_its_first_wrong_octet(self) -> None:
        for octets in (b"E", b"PROXX", b"PROXY\t", b"\r\n\r\n\x00\r\nQUIX", b"\r\r", SIGNATURE[:-1] + b"\r"):
            self.assertIsNone(read_header(octets[:-1]))
            self.assertRaises(ProxyError, read_header, octets)

    def test_version_1_waits_for_107_octets_and_no_longer(self) -> None:
        self.assertIsNone(read_header(b"PROXY UNKNOWN ".ljust(MAX_V1 - 1, b"x")))
        self.assertRaises(ProxyError, read_header, b"PROXY UNKNOWN ".ljust(MAX_V1, b"x"))

    def test_an_error_quotes_nothing_of_the_peer(self) -> None:
        for _, octets in BAD:
            error = self.assertRaises(ProxyError, read_header, octets)
            self.assertTrue(str(error).isascii() and str(error).isprintable())
            self.assertLess(len(str(error)), 120)

    @settings(deadline=None, max_examples=300)
    @given(
        st.binary(max_size=80)
        | st.binary(max_size=80).map(lambda b: b"PROXY " + b)
        | st.binary(max_size=80).map(lambda b: SIGNATURE + b)
    )
    @example(b"")
    def test_any_octets_are_a_header_or_the_start_of_one_or_an_error(self, octets: bytes) -> None:
        try:
            found = read_header(octets)
        except ProxyError:
            return
        if found is None:
            self.assertLess(len(octets), 16 + 0xFFFF)
        else:
            self.assertLessEqual(found[1], len(octets))
            self.assertEqual(read_header(octets[: found[1]]), found)

    @settings(deadline=None, max_examples=200)
    @given(
        st.ip_addresses(v=4),
        st.ip_addresses(v=6),
        st.integers(0, 65_535),
        st.integers(0, 65_535),
        st.binary(max_size=50),
    )
    def test_both_versions_say_the_same(
        self, four: Any, six: Any, source: int, destination: int, tlvs: bytes
    ) -> None:
        for word, family, address in (("TCP4", 0x11, four), ("TCP6", 0x21, six)):
            line = f"PROXY {word} {address} {address} {source} {destination}\r\n".encode()
            block = address.packed * 2 + struct.pack("!HH", source, destination) + tlvs
            one, two = read_header(line), read_header(binary(family, block))
            assert one is not None
            assert two is not None
            self.assertEqual((one[0], two[1]), (two[0], 16 + len(block)))


class Behind(Protocol):
    """Notes what happens to it, and greets as SMTP does."""

    def connectionMade(self) -> None:
        self.told: list[object] = [("made", peer_of(self.transport), local_of(self.transport))]
        self.transport.write(b"220 ready\r\n")  # type: ignore[union-attr]

    def dataReceived(self, data: bytes) -> None:
        self.told.append(data)

    def connectionLost(self, reason: object = None) -> None:
        self.told.append("lost")


class BehindFactory(Factory):
    """Keeps the protocols that it made, and the addresses for which it made them."""

    noisy = False
    refuses = False

    def __init__(self) -> None:
        self.made: list[Behind] = []
        self.addresses: list[object] = []
        self.running = 0

    def doStart(self) -> None:
        self.running += 1

    def doStop(self) -> None:
        self.running -= 1

    def buildProtocol(self, addr: object) -> Any:
        self.addresses.append(addr)
        if self.refuses:
            return None
        self.made.append(Behind())
        return self.made[-1]


class ConnectionTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.behind = BehindFactory()
        self.connections = OpenConnections()
        trusted = [parse_network("192.0.2.0/28"), parse_network("2001:db8:1::/64")]
        self.factory = ProxyFactory(
            self.behind, trusted, self.clock, listener="smtp-25", connections=self.connections
        )
        self.events = EventLoggingObserver.createWithCleanup(self, globalLogPublisher)

    def connect(self, peer: Any = None, host: Any = None) -> tuple[Any, StringTransport]:
        """From a trusted proxy, unless another peer is named."""
        transport = StringTransport(
            hostAddress=host or IPv4Address("TCP", "192.0.2.20", 25),
            peerAddress=peer or IPv4Address("TCP", "192.0.2.9", 5000),
        )
        transport.protocol = self.factory.buildProtocol(peer)  # type: ignore[attr-defined]
        transport.protocol.makeConnection(transport)  # type: ignore[attr-defined]
        return transport.protocol, transport  # type: ignore[attr-defined]

    def told(self) -> list[str]:
        """The reasons in the log."""
        return [event["reason"] for event in self.events if event.get("event") == "proxy"]

    def test_nothing_is_sent_or_built_before_the_header(self) -> None:
        for name, octets, _ in GOOD:
            with self.subTest(name):
                protocol, transport = self.connect()
                for end in range(len(octets) - 1):
                    protocol.dataReceived(octets[end : end + 1])
                self.assertEqual((transport.value(), self.behind.made, len(self.connections)), (b"", [], 1))
                protocol.dataReceived(octets[-1:])
                self.assertEqual((transport.value(), len(self.behind.made)), (b"220 ready\r\n", 1))
                self.assertEqual((len(self.connections), self.clock.getDelayedCalls()), (0, []))
                self.behind.made.clear()

    def test_the_addresses_are_those_of_the_header_or_of_the_connection(self) -> None:
        for name, octets, header in GOOD:
            with self.subTest(name):
                protocol, _ = self.connect()
                protocol.dataReceived(octets)
                source, destination = header.source or ("192.0.2.9", 5000), header.destination or ("192.0.2.20", 25)
                self.assertEqual(self.behind.made[-1].told, [("made", source, destination)])

    def test_they_are_of_twisted_s_classes_and_the_factory_sees_them(self) -> None:
        protocol, transport = self.connect()
        protocol.dataReceived(binary(0x21, V6))
        self.assertEqual(transport.getPeer(), IPv6Address("TCP", "2001:db8::1", 4000))
        self.assertEqual(transport.getHost(), IPv6Address("TCP", "2001:db8::2", 25))
        protocol, transport = self.connect()
        protocol.dataReceived(binary(0x21, MAPPED))
        self.assertEqual(transport.getPeer(), IPv4Address("TCP", "192.0.2.1", 1))
        protocol, transport = self.connect()
        protocol.dataReceived(b"PROXY UNKNOWN\r\n")
        self.assertEqual(
            self.behind.addresses,
            [
                IPv6Address("TCP", "2001:db8::1", 4000),
                IPv4Address("TCP", "192.0.2.1", 1),
                IPv4Address("TCP", "192.0.2.9", 5000),
            ],
        )

    def test_what_stands_behind_the_header_goes_to_the_protocol(self) -> None:
        protocol, transport = self.connect()
        protocol.dataReceived(GOOD[0][1] + b"EHLO x\r\n")
        (behind,) = self.behind.made
        self.assertEqual(behind.told[1:], [b"EHLO x\r\n"])
        # The transport has another protocol now; but one that still calls us does no harm.
        self.assertIs(transport.protocol, behind)  # type: ignore[attr-defined]
        protocol.dataReceived(b"QUIT\r\n")
        protocol.connectionLost()
        self.assertEqual(behind.told[2:], [b"QUIT\r\n", "lost"])

    def test_garbage_ends_the_connection_without_a_word(self) -> None:
        for name, octets in BAD:
            with self.subTest(name):
                protocol, transport = self.connect()
                for octet in octets:
                    protocol.dataReceived(bytes([octet]))
                self.assertTrue(transport.disconnecting)
                self.assertEqual((transport.value(), self.behind.made, len(self.connections)), (b"", [], 0))
                self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(len(self.told()), len(BAD))
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_only_trusted_proxies_are_heard(self) -> None:
        for peer, trusted in (
            (IPv4Address("TCP", "192.0.2.0", 1), True),
            (IPv4Address("TCP", "192.0.2.15", 1), True),
            (IPv4Address("TCP", "192.0.2.16", 1), False),
            (IPv4Address("TCP", "127.0.0.1", 1), False),
            (IPv6Address("TCP", "2001:db8:1::ff", 1), True),
            (IPv6Address("TCP", "2001:db8:2::ff", 1), False),
            (IPv6Address("TCP", "::ffff:192.0.2.1", 1), True),
        ):
            with self.subTest(peer.host):
                self.behind.made.clear()
                protocol, transport = self.connect(peer)
                self.assertIs(transport.disconnecting, not trusted)
                protocol.dataReceived(GOOD[0][1])
                self.assertEqual(
                    (len(self.behind.made), transport.value()), (1, b"220 ready\r\n") if trusted else (0, b"")
                )
                self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.told(), ["not a trusted proxy"] * 3)
        self.assertEqual(
            [(event["proxy"], event["listener"]) for event in self.events if event.get("event") == "proxy"],
            [("192.0.2.16", "smtp-25"), ("127.0.0.1", "smtp-25"), ("2001:db8:2::ff", "smtp-25")],
        )

    def test_a_unix_socket_is_trusted_for_its_mode_says_who_may_connect(self) -> None:
        protocol, _ = self.connect(UNIXAddress(b""), UNIXAddress(b"/run/x"))
        protocol.dataReceived(GOOD[0][1])
        self.assertEqual(self.behind.made[0].told, [("made", ("192.0.2.1", 4000), ("192.0.2.2", 25))])
        protocol, _ = self.connect(UNIXAddress(b""), UNIXAddress(b"/run/x"))
        protocol.dataReceived(b"PROXY UNKNOWN\r\n")
        self.assertEqual(self.behind.made[1].told, [("made", ("", 0), ("", 0))])

    def test_a_header_has_five_seconds_whatever_drips_in(self) -> None:
        protocol, transport = self.connect()
        for octet in b"PROX":
            self.clock.advance(1.2)
            protocol.dataReceived(bytes([octet]))
        self.clock.advance(0.19)
        self.assertFalse(transport.disconnecting)
        self.clock.advance(0.01)
        self.assertTrue(transport.disconnecting)
        self.assertEqual((transport.value(), self.told()), (b"", ["no PROXY header within 5 s"]))
        protocol.dataReceived(b"Y UNKNOWN\r\n")
        self.assertEqual(self.behind.made, [])

    def test_the_time_can_be_chosen(self) -> None:
        self.factory.timeout = 30.0
        _, transport = self.connect()
        self.clock.advance(29.9)
        self.assertFalse(transport.disconnecting)
        self.clock.advance(0.1)
        self.assertTrue(transport.disconnecting)

    def test_who_hangs_up_leaves_nothing_behind(self) -> None:
        protocol, _ = self.connect()
        protocol.connectionLost()
        self.assertEqual((self.clock.getDelayedCalls(), len(self.connections), self.told()), ([], 0, []))

    def test_those_who_wait_end_when_the_server_does(self) -> None:
        for end in ("drain", "cut"):
            protocol, transport = self.connect()
            for connection in self.connections:
                getattr(connection, end)()
            self.assertTrue(transport.disconnecting)
            self.assertEqual((self.clock.getDelayedCalls(), len(self.connections)), ([], 0))
            protocol.dataReceived(GOOD[0][1])
            self.assertEqual(self.behind.made, [])

    def test_a_factory_that_wants_no_connection_gets_none(self) -> None:
        self.behind.refuses = True
        protocol, transport = self.connect()
        protocol.dataReceived(GOOD[0][1] + b"EHLO x\r\n")
        self.assertTrue(transport.disconnecting)

    def test_the_factory_behind_starts_and_stops_with_it(self) -> None:
        self.factory.doStart()
        self.assertEqual(self.behind.running, 1)
        self.factory.doStop()
        self.assertEqual(self.behind.running, 0)


@implementer(IHandshakeListener)
class Server(Protocol):
    """As an SMTP server is to its transport: greets, starts TLS when asked, tells who the client is."""

    def __init__(self, certificates: CertificateSet) -> None:
        self.certificates = certificates

    def connectionMade(self) -> None:
        transport: Any = self.transport
        provided = [each.providedBy(transport) for each in (ITCPTransport, ITLSTransport)]
        transport.setTcpNoDelay(True)
        transport.setTcpKeepAlive(True)
        transport.registerProducer(self, True)
        self.say("220", *provided)

    def say(self, *words: object) -> None:
        secure = ISSLTransport.providedBy(self.transport)
        line = " ".join(map(str, (*words, *peer_of(self.transport), *local_of(self.transport), secure)))
        self.transport.write(line.encode() + b"\r\n")  # type: ignore[union-attr]

    def handshakeCompleted(self) -> None:
        transport: Any = self.transport
        self.say("secured", transport.getHandle().get_protocol_version_name())

    def dataReceived(self, data: bytes) -> None:
        transport: Any = self.transport
        if data == b"STARTTLS\r\n":
            transport.write(b"go\r\n")
            transport.startTLS(self.certificates)
        elif data == b"QUIT\r\n":
            transport.unregisterProducer()
            transport.write(b"bye\r\n")
            transport.loseConnection()
        else:
            transport.pauseProducing()
            transport.resumeProducing()
            self.say("250", data.strip().decode())

    def pauseProducing(self) -> None: ...

    def resumeProducing(self) -> None: ...

    def stopProducing(self) -> None: ...


class Client(Protocol):
    """Sends a header and waits for lines."""

    def __init__(self) -> None:
        self.received = b""
        self.waiting: tuple[bytes, Deferred[bytes]] | None = None
        self.over: Deferred[None] = Deferred()

    def until(self, word: bytes) -> Deferred[bytes]:
        """Fires with everything that came, when this word has come and a line has ended."""
        deferred: Deferred[bytes] = Deferred()
        self.waiting = (word, deferred)
        self.look()
        return deferred.addTimeout(10, reactor)

    def look(self) -> None:
        if self.waiting is not None and self.waiting[0] in self.received and self.received.endswith(b"\r\n"):
            (_, deferred), self.waiting = self.waiting, None
            received, self.received = self.received, b""
            deferred.callback(received)

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        self.look()

    def connectionLost(self, reason: object = None) -> None:
        self.over.callback(None)


@implementer(IOpenSSLContextFactory)
class ContextFactory:
    """TLS for the client of a test: nothing is verified."""

    def getContext(self) -> SSL.Context:
        return SSL.Context(SSL.TLS_CLIENT_METHOD)


class RealTests(TestCase):
    """Real sockets on loopback and real TLS: startTLS exchanges the transport's protocol, as we did before."""

    def setUp(self) -> None:
        self.certificates = CertificateSet([write_pair(Path(self.mktemp()), "test", "mail.example.org")])

    def serve(self, *, implicit: bool) -> int:
        factory: Any = Factory.forProtocol(lambda: Server(self.certificates))
        factory.noisy = False
        if implicit:
            factory = TLSMemoryBIOFactory(self.certificates, False, factory)
            factory.noisy = False
        proxied = ProxyFactory(factory, [parse_network("127.0.0.0/8")], reactor)  # type: ignore[arg-type]
        port = reactor.listenTCP(0, proxied, interface="127.0.0.1")  # type: ignore[attr-defined]
        self.addCleanup(port.stopListening)
        return int(port.getHost().port)

    async def connect(self, port: int) -> Client:
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port)
        client: Client = await connectProtocol(endpoint, Client())
        return client

    def test_starttls_behind_a_header(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._starttls(GOOD[0][1], "192.0.2.1 4000 192.0.2.2 25"))

    def test_starttls_behind_a_binary_header(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._starttls(binary(0x21, V6 + TLVS), "2001:db8::1 4000 2001:db8::2 25"))

    async def _starttls(self, header: bytes, ends: str) -> None:
        client = await self.connect(self.serve(implicit=False))
        client.transport.write(header[:7])  # type: ignore[union-attr]
        client.transport.write(header[7:])  # type: ignore[union-attr]
        self.assertEqual(await client.until(b"220"), f"220 True True {ends} False\r\n".encode())
        client.transport.write(b"EHLO\r\n")  # type: ignore[union-attr]
        self.assertEqual(await client.until(b"250"), f"250 EHLO {ends} False\r\n".encode())
        client.transport.write(b"STARTTLS\r\n")  # type: ignore[union-attr]
        await client.until(b"go")
        client.transport.startTLS(ContextFactory())  # type: ignore[union-attr]
        self.assertEqual(await client.until(b"secured"), f"secured TLSv1.3 {ends} True\r\n".encode())
        client.transport.write(b"EHLO\r\n")  # type: ignore[union-attr]
        self.assertEqual(await client.until(b"250"), f"250 EHLO {ends} True\r\n".encode())
        client.transport.write(b"QUIT\r\n")  # type: ignore[union-attr]
        await client.until(b"bye")
        await client.over

    def test_implicit_tls_behind_a_header(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._implicit())

    async def _implicit(self) -> None:
        client = await self.connect(self.serve(implicit=True))
        client.transport.write(binary(0x11, V4))  # type: ignore[union-attr]
        client.transport.startTLS(ContextFactory())  # type: ignore[union-attr]
        told = await client.until(b"secured")
        ends = b"192.0.2.1 4000 192.0.2.2 25 True\r\n"
        self.assertEqual(told, b"220 True True " + ends + b"secured TLSv1.3 " + ends)
        client.transport.write(b"QUIT\r\n")  # type: ignore[union-attr]
        await client.until(b"bye")
        await client.over

    def test_garbage_and_strangers_are_hung_up_on(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._garbage())

    async def _garbage(self) -> None:
        client = await self.connect(self.serve(implicit=False))
        client.transport.write(b"EHLO x\r\n")  # type: ignore[union-attr]
        await client.over
        self.assertEqual(client.received, b"")
