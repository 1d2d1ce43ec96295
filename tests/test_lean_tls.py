"""TLS of the lean transport, with OpenSSL's own client on the other end of a socket; every round is made by hand."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import ssl
from pathlib import Path
from typing import Any
from unittest import mock

from cryptography.x509 import DNSName
from OpenSSL import SSL, crypto
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IHandshakeListener, IOpenSSLServerConnectionCreator, ISSLTransport
from twisted.internet.protocol import Factory
from twisted.internet.ssl import CertificateOptions
from twisted.internet.testing import StringTransport
from zope.interface import implementer

from mailserver.handshake import channel_bindings, tls_info
from mailserver.lean_connection import BUFFER_SIZE, LeanConnection
from mailserver.lean_tls import RECORD, LeanTLSFactory, MemoryTLS, SocketTLS
from mailserver.tls import CertificateSet
from tests.certs import MADE, client_context, write_pair
from tests.client_certs import Authority
from tests.lean_rounds import HalfRecorder, LeanTestCase, Recorder
from tests.test_lean_connection import Producer

VERSIONS = (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)
BIG = os.urandom(1 << 20)


@implementer(IHandshakeListener)
class TLSRecorder(Recorder):
    def handshakeCompleted(self) -> None:
        self.calls.append("shaken")


@implementer(IHandshakeListener)
class HalfTLSRecorder(HalfRecorder):
    def handshakeCompleted(self) -> None:
        self.calls.append("shaken")


class Client:
    """OpenSSL's client on a socket that does not block."""

    def __init__(self, case: TLSTestCase, theirs: socket.socket, context: ssl.SSLContext, **more: Any) -> None:
        theirs.setblocking(False)
        self.case = case
        self.tls = context.wrap_socket(theirs, do_handshake_on_connect=False, **more)
        case.addCleanup(self.tls.close)

    def do(self, function: Any, *arguments: Any) -> Any:
        """One call of the client's, with rounds of the server's as they are needed."""
        for _ in range(20_000):
            try:
                return function(*arguments)
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError, BlockingIOError):
                self.case.rounds(1)
        raise AssertionError("it hangs")

    def shake(self) -> Client:
        self.do(self.tls.do_handshake)
        self.case.rounds()
        return self

    def send(self, octets: bytes) -> None:
        view = memoryview(octets)
        while view:
            view = view[self.do(self.tls.send, view) :]
        self.case.rounds()

    def take(self, count: int) -> bytes:
        got = bytearray()
        while len(got) < count:
            try:
                octets = self.do(self.tls.recv, 65_536)
            except ssl.SSLZeroReturnError:  # how it is told when the client has said goodbye itself
                break
            if not octets:
                break
            got += octets
        return bytes(got)


@implementer(IOpenSSLServerConnectionCreator)
class Foreign:
    """What others make TLS connections with: it knows nothing of sockets."""

    def __init__(self, certificates: CertificateSet) -> None:
        self.serverConnectionForTLS = certificates.serverConnectionForTLS


class TLSTestCase(LeanTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.directory = Path(self.mktemp())
        self.certificate, self.key = write_pair(self.directory, "mail", "mail.example.org")
        write_pair(self.directory, "www", "www.example.net")
        self.set = CertificateSet(
            [(self.directory / f"{name}.crt", self.directory / f"{name}.key") for name in ("mail", "www")],
            now=lambda: MADE,
        )

    def creators(self) -> list[Any]:
        """One that works on the socket, and one in memory."""
        return [self.set, Foreign(self.set)]

    def begin(
        self, creator: Any = None, kind: type[Recorder] = TLSRecorder, context: Any = None, **more: Any
    ) -> tuple[Any, LeanConnection, Client]:
        """A protocol, its connection on which TLS begins, and a client that has said nothing yet."""
        protocol = kind()
        connection, theirs = self.pair(protocol)
        connection.startTLS(creator or self.set)
        return protocol, connection, Client(self, theirs, context or client_context(), **more)

    def secured(self, *arguments: Any, **more: Any) -> tuple[Any, LeanConnection, Client]:
        protocol, connection, client = self.begin(*arguments, **more)
        client.shake()
        return protocol, connection, client


class HandshakeTests(TLSTestCase):
    def test_both_versions_with_names_and_all_that_is_known_of_them(self) -> None:
        for version in VERSIONS:
            for creator in self.creators():
                protocol, connection, client = self.secured(creator, context=client_context(version=version))
                self.assertEqual(protocol.calls, ["made", "shaken"])
                self.assertTrue(ISSLTransport.providedBy(connection))
                info = tls_info(connection.getHandle())
                self.assertEqual((info.version, info.cipher), (client.tls.version(), client.tls.cipher()[0]))  # type: ignore[index]
                self.assertIn("tls-server-end-point", channel_bindings(connection.getHandle()))
                client.send(b"hello")
                connection.write(b"world")
                self.assertEqual(client.take(5), b"world")
                self.assertEqual(protocol.calls[2:], [b"hello"])

    def test_the_certificate_is_that_of_the_name(self) -> None:
        _, _, client = self.secured(server_hostname="www.example.net")
        shown = client.tls.getpeercert(binary_form=True)
        self.assertEqual(shown, crypto.dump_certificate(crypto.FILETYPE_ASN1, self.load("www")))

    def load(self, name: str) -> crypto.X509:
        return crypto.load_certificate(crypto.FILETYPE_PEM, (self.directory / f"{name}.crt").read_bytes())

    def test_the_certificate_of_a_client_can_be_had(self) -> None:
        authority = Authority(self.directory, "ours")
        _, file = authority.issue("x", DNSName("client.example.net"))
        context = client_context()
        context.load_cert_chain(file)
        _, connection, _ = self.secured(self.set.for_clients("require", authority.path), context=context)
        self.assertEqual(tls_info(connection.getHandle()).client_name, "client.example.net")
        self.assertIsNotNone(connection.getPeerCertificate())
        plain, _ = self.pair(Recorder())
        self.assertIsNone(plain.getPeerCertificate())

    def test_before_the_handshake_it_is_tls_already_and_nothing_is_said(self) -> None:
        protocol, connection, client = self.begin()
        self.assertTrue(ISSLTransport.providedBy(connection))
        self.rounds()
        self.assertRaises(ssl.SSLWantReadError, client.tls.recv, 1)
        self.assertEqual(protocol.calls, ["made"])

    def test_octet_by_octet_it_works_too(self) -> None:
        for creator in self.creators():
            protocol, _, client = self.begin(creator)
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            inner = client_context().wrap_bio(incoming, outgoing)
            raw = socket.socket(fileno=client.tls.detach())
            self.addCleanup(raw.close)
            for _ in range(10):
                with contextlib.suppress(ssl.SSLWantReadError):
                    inner.do_handshake()
                for octet in outgoing.read():
                    raw.sendall(bytes([octet]))
                    self.rounds(1)
                with contextlib.suppress(BlockingIOError):
                    incoming.write(raw.recv(65_536))
            self.assertEqual(protocol.calls, ["made", "shaken"])

    def test_what_was_written_before_goes_first_and_in_clear_text(self) -> None:
        protocol = TLSRecorder()
        connection, theirs = self.pair(protocol)
        before = b"p" * 300_000
        connection.write(before)
        connection.startTLS(self.set)
        connection.write(b"behind the handshake")
        self.assertEqual(self.take_exactly(theirs, len(before)), before)
        client = Client(self, theirs, client_context()).shake()
        self.assertEqual(client.take(20), b"behind the handshake")

    def take_exactly(self, theirs: socket.socket, count: int) -> bytes:
        got = b""
        while len(got) < count:
            self.rounds(1)
            got += theirs.recv(min(65_536, count - len(got)))
        return got

    def test_starttls_inside_data_received(self) -> None:
        protocol = TLSRecorder()
        connection, theirs = self.pair(protocol)

        def start(data: bytes) -> None:
            protocol.on_data = lambda data: None
            connection.write(b"220 go")
            connection.startTLS(self.set)

        protocol.on_data = start
        theirs.sendall(b"STARTTLS")
        self.rounds()
        self.assertEqual(theirs.recv(100), b"220 go")
        client = Client(self, theirs, client_context()).shake()
        client.send(b"EHLO")
        self.assertEqual(protocol.calls, ["made", b"STARTTLS", "shaken", b"EHLO"])

    def test_it_begins_once_and_on_our_side(self) -> None:
        _, connection, _ = self.begin()
        self.assertRaises(RuntimeError, connection.startTLS, self.set)
        other, _ = self.pair(Recorder())
        self.assertRaises(ValueError, other.startTLS, self.set, False)

    def test_a_session_is_taken_up_again(self) -> None:
        for version in VERSIONS:
            for creator in self.creators()[:1]:
                context = client_context(version=version)
                _, connection, client = self.secured(creator, context=context)
                connection.write(b"x")
                client.take(1)
                session = client.tls.session
                _, connection, client = self.secured(creator, context=context, session=session)
                self.assertTrue(client.tls.session_reused, version)
                self.assertTrue(tls_info(connection.getHandle()).resumed)

    def test_who_made_the_connections_of_others_is_asked_as_twisted_asks(self) -> None:
        options = CertificateOptions(
            privateKey=crypto.load_privatekey(crypto.FILETYPE_PEM, self.key.read_bytes()),
            certificate=crypto.load_certificate(crypto.FILETYPE_PEM, self.certificate.read_bytes()),
        )
        old: Any = mock.Mock(spec=["getContext"])  # IOpenSSLContextFactory, which has no connections
        old.getContext.return_value = options.getContext()
        for foreign in (options, old):
            protocol, connection, client = self.secured(foreign)
            client.send(b"x")
            self.assertEqual(protocol.calls, ["made", "shaken", b"x"])
            self.assertIsInstance(connection._channel, MemoryTLS)
        _, connection, _ = self.secured()
        self.assertIsInstance(connection._channel, SocketTLS)


class TroubleTests(TLSTestCase):
    def test_rubbish_instead_of_a_handshake_is_told_with_openssls_error(self) -> None:
        for creator in self.creators():
            protocol, _, client = self.begin(creator)
            raw = socket.socket(fileno=client.tls.detach())
            self.addCleanup(raw.close)
            raw.sendall(b"EHLO client.example.net\r\n")
            self.rounds()
            self.assertEqual(protocol.calls, ["made", ("lost", SSL.Error)])

    def test_a_client_that_is_refused_is_told_why(self) -> None:
        pair = (self.directory / "mail.crt", self.directory / "mail.key")
        strict = CertificateSet([pair], minimum_version="1.3", now=lambda: MADE)
        for creator in (strict, Foreign(strict)):
            protocol, _, client = self.begin(creator, context=client_context(version=ssl.TLSVersion.TLSv1_2))
            error = self.assertRaises(ssl.SSLError, client.shake)
            self.assertIn("ALERT_PROTOCOL_VERSION", str(error))
            self.rounds()
            self.assertEqual(protocol.calls, ["made", ("lost", SSL.Error)])

    def test_a_client_that_goes_away_in_the_handshake(self) -> None:
        for creator in self.creators():
            protocol, _, client = self.begin(creator)
            with contextlib.suppress(ssl.SSLWantReadError):
                client.tls.do_handshake()
            self.rounds()
            client.tls.close()
            self.rounds()
            self.assertEqual(protocol.calls, ["made", ("lost", ConnectionLost)])

    def test_an_end_without_goodbye_is_a_lost_connection(self) -> None:
        for creator in self.creators():
            protocol, _, client = self.secured(creator)
            client.tls.close()
            self.rounds()
            self.assertEqual(protocol.calls, ["made", "shaken", ("lost", ConnectionLost)])

    def test_a_damaged_record_ends_it(self) -> None:
        for creator in self.creators():
            protocol, _, client = self.secured(creator)
            raw = socket.socket(fileno=client.tls.detach())
            self.addCleanup(raw.close)
            raw.sendall(b"\x17\x03\x03\x00\x20" + bytes(32))
            self.rounds()
            self.assertEqual(protocol.calls, ["made", "shaken", ("lost", SSL.Error)])

    def test_writing_to_one_that_is_gone(self) -> None:
        for creator in self.creators():
            protocol, connection, client = self.secured(creator)
            client.tls.close()
            connection.pauseProducing()
            for _ in range(3):
                connection.write(b"x" * 100_000)
                self.rounds()
            connection.resumeProducing()
            self.rounds()
            self.assertEqual(protocol.calls, ["made", "shaken", ("lost", ConnectionLost)])

    def test_who_refuses_our_certificate_is_told_apart(self) -> None:
        protocol, _, client = self.begin(context=client_context(self.directory / "www.crt"), server_hostname="x.org")
        self.assertRaises(ssl.SSLError, client.shake)
        self.rounds()
        self.assertEqual(protocol.calls[-1], ("lost", SSL.Error))


class DataTests(TLSTestCase):
    def test_much_goes_both_ways_whole(self) -> None:
        for version in VERSIONS:
            for creator in self.creators():
                protocol, connection, client = self.secured(creator, context=client_context(version=version))
                got = bytearray()
                protocol.on_data = got.extend
                client.send(BIG)
                for _ in range(10_000):
                    if len(got) >= len(BIG):
                        break
                    self.rounds(1)
                self.assertEqual(got, BIG)
                connection.write(BIG)
                self.assertEqual(client.take(len(BIG)), BIG)

    def test_a_producer_waits_while_the_client_does_not_read(self) -> None:
        for creator in self.creators():
            protocol, connection, client = self.secured(creator)
            connection.registerProducer(Producer(protocol.calls), True)
            connection.write(BIG)
            connection.write(BIG)
            self.assertEqual(client.take(2 * len(BIG)), 2 * BIG)
            self.rounds()
            self.assertEqual(protocol.calls[2], "pause")
            self.assertEqual(protocol.calls[-1], "resume")

    def test_a_pull_producer_is_asked_each_time(self) -> None:
        for creator in self.creators():
            _, connection, client = self.secured(creator)
            producer = Producer([])
            left = [b"one", b"two", b"three"]

            def produce(connection: LeanConnection = connection, left: list[bytes] = left) -> None:
                if left:
                    connection.write(left.pop(0))
                else:
                    connection.unregisterProducer()
                    connection.loseConnection()

            producer.on_resume = produce
            connection.registerProducer(producer, False)
            self.assertEqual(client.take(100), b"onetwothree")

    def test_a_pause_keeps_records_back_and_loses_none(self) -> None:
        for creator in self.creators():
            protocol, connection, client = self.secured(creator)
            protocol.on_data = lambda _, connection=connection: connection.pauseProducing()
            for _ in range(3):
                client.tls.send(b"x")
            self.rounds()
            self.assertEqual(protocol.calls, ["made", "shaken", b"x"])
            for count in (2, 3):
                connection.resumeProducing()
                self.rounds()
                self.assertEqual(protocol.calls.count(b"x"), count)

    def test_what_is_written_before_the_handshake_waits_for_it_and_is_bounded(self) -> None:
        for creator in self.creators():
            protocol, connection, client = self.begin(creator)
            connection.registerProducer(Producer(protocol.calls), True)
            connection.write(b"x" * (BUFFER_SIZE + 1))
            self.rounds()
            self.assertEqual(protocol.calls, ["made", "pause"])
            client.shake()
            self.assertEqual(len(client.take(BUFFER_SIZE + 1)), BUFFER_SIZE + 1)
            self.rounds()
            self.assertEqual(protocol.calls, ["made", "pause", "shaken", "resume"])

    def test_one_connection_does_not_keep_the_round_for_itself(self) -> None:
        channel = SocketTLS(mock.Mock(**{"recv.return_value": bytes(RECORD)}))
        row = 0
        channel.recv(0)
        while channel.more:
            row += 1
            channel.recv(0)
        self.assertLess(row, 10)
        channel = SocketTLS(mock.Mock(**{"recv.return_value": b"little"}))
        channel.recv(0)
        self.assertFalse(channel.more)

    def test_a_reading_that_waits_for_room_is_not_tried_before(self) -> None:
        protocol, connection, _ = self.secured()
        channel: Any = connection._channel
        real, channel.connection = channel.connection, mock.Mock()
        channel.connection.recv.side_effect = SSL.WantWriteError
        connection.ready(select.EPOLLIN)
        self.assertEqual(connection._mask, select.EPOLLOUT)
        channel.connection = real
        connection.ready(select.EPOLLOUT)
        self.assertEqual(connection._mask, select.EPOLLIN)
        self.assertEqual(protocol.calls, ["made", "shaken"])

    def test_a_handshake_that_waits_for_room_is_not_tried_before(self) -> None:
        channel = SocketTLS(mock.Mock(**{"do_handshake.side_effect": SSL.WantWriteError}))
        self.assertRaises(BlockingIOError, channel.handshake)
        self.assertEqual(channel.wants, select.EPOLLOUT)


class EndTests(TLSTestCase):
    def test_we_say_goodbye_behind_all_that_was_written(self) -> None:
        for creator in self.creators():
            protocol, connection, client = self.secured(creator)
            connection.write(BIG)
            connection.loseConnection()
            self.assertEqual(client.take(len(BIG) + 1), BIG)  # an end without close_notify would raise
            self.rounds()
            self.assertEqual(protocol.calls, ["made", "shaken"])
            self.goodbye(client)
            self.assertEqual(protocol.calls, ["made", "shaken", ("lost", ConnectionDone)])

    def goodbye(self, client: Client) -> None:
        """The client closes its side too."""
        client.tls.close()
        self.rounds()

    def test_what_the_client_says_behind_our_goodbye_meets_nobody_and_no_reset(self) -> None:
        for creator in self.creators():
            protocol, connection, client = self.secured(creator)
            connection.write(b"221 bye")
            connection.loseConnection()
            self.rounds()
            for _ in range(20):
                client.tls.send(b"x" * 16384)
                self.rounds()
            self.assertEqual(client.take(100), b"221 bye")
            self.assertEqual(protocol.calls, ["made", "shaken"])
            connection.write(b"nothing more")
            self.goodbye(client)
            self.assertEqual(protocol.calls, ["made", "shaken", ("lost", ConnectionDone)])

    def test_who_does_not_close_its_side_can_be_cut(self) -> None:
        protocol, connection, _ = self.secured()
        connection.loseConnection()
        self.rounds()
        connection.abortConnection()
        self.rounds()
        self.assertEqual(protocol.calls, ["made", "shaken", ("lost", ConnectionAborted)])

    def test_a_client_that_says_goodbye_behind_its_question_gets_its_answer(self) -> None:
        for creator in self.creators():
            protocol, connection, client = self.secured(creator, HalfTLSRecorder)
            client.tls.send(b"QUIT\r\n")
            with contextlib.suppress(ssl.SSLWantReadError):
                client.tls.unwrap()
            self.rounds()
            self.assertEqual(protocol.calls, ["made", "shaken", b"QUIT\r\n", "read over"])
            connection.write(b"221 bye\r\n")
            connection.loseConnection()
            self.rounds()
            self.assertEqual(client.take(100), b"221 bye\r\n")
            self.assertEqual(protocol.calls[4:], [("lost", ConnectionDone)])

    def test_a_goodbye_ends_a_protocol_that_knows_no_half(self) -> None:
        for creator in self.creators():
            protocol, _, client = self.secured(creator)
            with contextlib.suppress(ssl.SSLWantReadError):
                client.tls.unwrap()
            self.rounds()
            self.assertEqual(protocol.calls, ["made", "shaken", ("lost", ConnectionDone)])
            self.assertEqual(client.take(1), b"")

    def test_a_goodbye_does_not_throw_away_what_is_queued(self) -> None:
        protocol, connection, client = self.secured()
        connection.write(BIG)
        with contextlib.suppress(ssl.SSLError):  # it has been sent nevertheless
            client.tls.unwrap()
        self.rounds()
        self.assertEqual(protocol.calls, ["made", "shaken"])
        self.assertFalse(connection.disconnected)

    def test_our_sending_side_alone_can_be_closed(self) -> None:
        for creator in self.creators():
            protocol, connection, client = self.secured(creator, HalfTLSRecorder)
            connection.write(b"last")
            connection.loseWriteConnection()
            self.rounds()
            self.assertEqual(client.take(100), b"last")
            self.assertEqual(protocol.calls, ["made", "shaken", "write over"])

    def test_closing_in_the_handshake_aborts(self) -> None:
        protocol, connection, client = self.begin()
        with contextlib.suppress(ssl.SSLWantReadError):
            client.tls.do_handshake()
        self.rounds()
        connection.loseConnection()
        self.rounds()
        self.assertEqual(protocol.calls, ["made", ("lost", ConnectionAborted)])

    def test_closing_in_the_handshake_waits_for_what_was_written(self) -> None:
        protocol, connection, client = self.begin()
        connection.write(b"421 later")
        connection.loseConnection()
        self.assertEqual(client.shake().take(100), b"421 later")
        self.goodbye(client)
        self.assertEqual(protocol.calls, ["made", "shaken", ("lost", ConnectionDone)])

    def test_closing_before_the_plain_text_is_out_sends_it(self) -> None:
        protocol = TLSRecorder()
        connection, theirs = self.pair(protocol)
        connection.write(BIG)
        connection.startTLS(self.set)
        connection.loseConnection()
        self.assertEqual(self.take(theirs, 1 << 30), BIG)
        self.assertEqual(protocol.calls, ["made", ("lost", ConnectionDone)])

    def test_closing_waits_for_a_producer(self) -> None:
        protocol, connection, client = self.secured()
        connection.registerProducer(Producer(protocol.calls), True)
        connection.loseConnection()
        self.rounds()
        connection.write(b"more")
        connection.unregisterProducer()
        self.assertEqual(client.take(100), b"more")

    def test_closing_in_the_moment_of_the_handshake(self) -> None:
        protocol, connection, client = self.begin()
        with mock.patch.object(TLSRecorder, "handshakeCompleted", lambda _: connection.loseConnection()):
            client.shake()
        self.assertEqual(client.take(1), b"")
        self.goodbye(client)
        self.assertEqual(protocol.calls, ["made", ("lost", ConnectionDone)])

    def test_when_it_is_over_openssl_does_not_touch_the_number_of_the_descriptor(self) -> None:
        _, connection, _ = self.secured()
        connection.abortConnection()
        self.rounds()
        self.assertIsNone(connection._channel)
        self.assertIsNone(connection._send)
        connection.write(b"x")


class FactoryTests(TLSTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.made: list[TLSRecorder] = []
        wrapped = Factory()
        wrapped.noisy = False
        wrapped.buildProtocol = self.build  # type: ignore[method-assign,assignment]
        self.wrapped = wrapped
        self.factory = LeanTLSFactory(self.set, wrapped, self.reactor)

    def build(self, addr: Any) -> Any:
        if addr is None:
            return None
        self.made.append(TLSRecorder())
        return self.made[-1]

    def test_it_is_tls_when_the_connection_is_made(self) -> None:
        seen: list[bool] = []
        with mock.patch.object(
            TLSRecorder, "connectionMade", lambda self: seen.append(ISSLTransport.providedBy(self.transport))
        ):
            connection, theirs = self.pair(self.factory.buildProtocol("somebody"))
        self.assertEqual(seen, [True])
        client = Client(self, theirs, client_context()).shake()
        client.send(b"hello")
        self.assertEqual(self.made[0].calls, ["shaken", b"hello"])
        self.assertIs(self.made[0].transport, connection)

    def test_octets_that_were_read_before_belong_to_it(self) -> None:
        for size in (1, 100, 10_000):
            protocol = self.factory.buildProtocol("somebody")
            reader = Recorder()
            connection, theirs = self.pair(reader)

            def hand_over(data: bytes, connection: Any = connection, protocol: Any = protocol) -> None:
                connection.protocol = protocol
                protocol.makeConnection(connection)
                protocol.dataReceived(data)

            reader.on_data = hand_over
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            inner = client_context().wrap_bio(incoming, outgoing)
            with contextlib.suppress(ssl.SSLWantReadError):
                inner.do_handshake()
            hello = outgoing.read()
            theirs.sendall(hello[:size])
            self.rounds()
            theirs.sendall(hello[size:])
            theirs.setblocking(False)
            for _ in range(4):
                self.rounds()
                with contextlib.suppress(BlockingIOError):
                    incoming.write(theirs.recv(65_536))
                with contextlib.suppress(ssl.SSLWantReadError):
                    inner.do_handshake()
                theirs.sendall(outgoing.read())
            self.assertEqual(self.made[-1].calls, ["made", "shaken"])

    def test_octets_that_were_read_before_wait_while_reading_pauses(self) -> None:
        connection, _ = self.pair(self.factory.buildProtocol("somebody"))
        connection.pauseProducing()
        connection.unread(b"rubbish that is long enough to be seen as such")
        self.rounds()
        self.assertEqual(self.made[0].calls, ["made"])
        connection.resumeProducing()
        self.rounds()
        self.assertEqual(self.made[0].calls, ["made", ("lost", SSL.Error)])

    def test_on_another_transport_it_is_twisteds_tls(self) -> None:
        protocol = self.factory.buildProtocol("somebody")
        transport: Any = StringTransport()
        protocol.makeConnection(transport)
        self.assertEqual(self.made[0].calls, ["made"])
        self.assertTrue(ISSLTransport.providedBy(self.made[0].transport))
        self.assertIsNot(transport.protocol, protocol)
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        inner = client_context().wrap_bio(incoming, outgoing)
        for _ in range(4):
            with contextlib.suppress(ssl.SSLWantReadError):
                inner.do_handshake()
            if octets := outgoing.read():
                protocol.dataReceived(octets)
            self.reactor.advance(0)
            incoming.write(transport.value())
            transport.clear()
        self.assertEqual(self.made[0].calls, ["made", "shaken"])
        protocol.connectionLost()
        self.assertEqual(self.made[0].calls[2][0], "lost")

    def test_a_factory_that_wants_nobody_is_heard(self) -> None:
        self.assertIsNone(self.factory.buildProtocol(None))

    def test_the_factory_behind_hears_of_the_begin_and_the_end(self) -> None:
        self.factory.doStart()
        self.assertEqual(self.wrapped.numPorts, 1)
        self.factory.doStop()
        self.assertEqual(self.wrapped.numPorts, 0)
