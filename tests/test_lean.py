"""Ports and the epoll of the lean transport: real sockets on loopback, no reactor; every round is made by hand."""

from __future__ import annotations

import errno
import os
import select
import socket
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IListeningPort, IReactorFDSet, IReadDescriptor, ITCPTransport, ITLSTransport
from twisted.internet.main import CONNECTION_LOST
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mailserver import lean
from mailserver.lean import LeanPort, Poller, available, poller_of
from tests.lean_rounds import LeanTestCase, Reactor, Recorder


class Recorders(Factory):
    noisy = False

    def __init__(self) -> None:
        self.made: list[Recorder] = []
        self.addresses: list[Any] = []
        self.refuse = False

    def buildProtocol(self, addr: Any) -> Any:
        self.addresses.append(addr)
        if self.refuse:
            return None
        self.made.append(Recorder())
        return self.made[-1]


class PortTestCase(LeanTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.factory = Recorders()

    def listen(self, family: int = socket.AF_INET, where: Any = ("127.0.0.1", 0)) -> LeanPort:
        listening = socket.socket(family, socket.SOCK_STREAM)
        listening.bind(where)
        listening.listen(64)
        port = LeanPort(self.reactor, listening, self.factory)
        self.addCleanup(port.stopListening)
        port.startListening()
        self.where = listening.getsockname()
        self.family = family
        return port

    def connect(self) -> socket.socket:
        client = socket.socket(self.family, socket.SOCK_STREAM)
        self.addCleanup(client.close)
        client.settimeout(5)
        client.connect(self.where)
        return client

    def connected(self, count: int = 1) -> list[socket.socket]:
        clients = [self.connect() for _ in range(count)]
        self.rounds()
        return clients


class AcceptTests(PortTestCase):
    def test_a_connection_goes_to_a_protocol_of_the_factory_with_both_addresses(self) -> None:
        port = self.listen()
        (client,) = self.connected()
        (protocol,) = self.factory.made
        self.assertEqual(protocol.calls, ["made"])
        peer = IPv4Address("TCP", *client.getsockname())
        self.assertEqual((protocol.transport.getPeer(), self.factory.addresses), (peer, [peer]))
        self.assertEqual(protocol.transport.getHost(), IPv4Address("TCP", *self.where))
        self.assertEqual(port.getHost(), protocol.transport.getHost())
        self.assertIn(str(self.where[1]), repr(port))
        verifyObject(IListeningPort, port)
        verifyObject(IReadDescriptor, poller_of(self.reactor))
        verifyObject(ITCPTransport, protocol.transport)
        verifyObject(ITLSTransport, protocol.transport)

    def test_where_all_addresses_listen_each_connection_knows_its_own(self) -> None:
        self.listen(where=("0.0.0.0", 0))
        client = socket.create_connection(("127.0.0.2", self.where[1]), 5)
        self.addCleanup(client.close)
        self.rounds()
        self.assertEqual(self.factory.made[0].transport.getHost(), IPv4Address("TCP", "127.0.0.2", self.where[1]))

    def test_ipv6_and_its_zone(self) -> None:
        try:
            port = self.listen(socket.AF_INET6, ("::1", 0))
        except OSError:
            return  # a machine without IPv6
        (client,) = self.connected()
        peer = self.factory.made[0].transport.getPeer()
        self.assertEqual(peer, IPv6Address("TCP", *client.getsockname()))
        with mock.patch("mailserver.lean.socket.getnameinfo", return_value=("fe80::1%eth0", "25")):
            self.assertEqual(port._name(("fe80::1", 25, 0, 2)).host, "fe80::1%eth0")

    def test_unix_sockets(self) -> None:
        directory = tempfile.mkdtemp()
        path = os.path.join(directory, "s")
        self.addCleanup(os.rmdir, directory)
        self.addCleanup(os.unlink, path)
        self.listen(socket.AF_UNIX, path)
        self.connected()
        transport = self.factory.made[0].transport
        self.assertEqual((transport.getPeer(), transport.getHost()), (UNIXAddress(None), UNIXAddress(path.encode())))
        transport.setTcpNoDelay(False)
        transport.setTcpNoDelay(True)
        self.assertFalse(transport.getTcpNoDelay())

    def test_small_writes_do_not_wait_and_dead_peers_are_looked_for(self) -> None:
        self.listen()
        self.connected()
        transport = self.factory.made[0].transport
        for get, put in (
            (transport.getTcpNoDelay, transport.setTcpNoDelay),
            (transport.getTcpKeepAlive, transport.setTcpKeepAlive),
        ):
            self.assertTrue(get())
            put(False)
            self.assertFalse(get())
            put(True)
            self.assertTrue(get())

    def test_many_are_accepted_in_one_round_but_not_all(self) -> None:
        self.listen()
        for _ in range(lean.ACCEPTS_PER_ROUND + 3):
            self.connect()
        self.poller.doRead()
        self.assertEqual(len(self.factory.made), lean.ACCEPTS_PER_ROUND)
        self.poller.doRead()
        self.assertEqual(len(self.factory.made), lean.ACCEPTS_PER_ROUND + 3)

    def test_a_factory_that_wants_nobody_ends_the_connection(self) -> None:
        self.listen()
        self.factory.refuse = True
        (client,) = self.connected()
        self.assertEqual(client.recv(1), b"")

    def test_an_error_of_the_factory_ends_that_connection_only(self) -> None:
        self.listen()
        with mock.patch.object(self.factory, "buildProtocol", side_effect=ZeroDivisionError):
            (client,) = self.connected()
        self.assertEqual(client.recv(1), b"")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.connected()
        self.assertEqual(len(self.factory.made), 1)

    def test_an_error_when_a_connection_begins_ends_it(self) -> None:
        self.listen()
        with mock.patch.object(Recorder, "connectionMade", side_effect=ZeroDivisionError):
            (client,) = self.connected()
        self.assertEqual(client.recv(1), b"")
        self.assertEqual(self.factory.made[0].calls, [("lost", ZeroDivisionError)])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_who_has_gone_while_waiting_does_not_hide_the_next(self) -> None:
        port = self.listen()
        real = port._socket
        for code in (errno.ECONNABORTED, errno.EPERM):
            port._socket = mock.Mock(wraps=real)
            port._socket.accept.side_effect = failing_once(OSError(code, "gone"), real)
            self.connected()
        port._socket = real
        self.assertEqual(len(self.factory.made), 2)

    def test_a_port_that_a_protocol_stops_accepts_nobody_more(self) -> None:
        port = self.listen()
        with mock.patch.object(Recorder, "connectionMade", lambda _: port.stopListening()):
            self.connect()
            self.connect()
            self.rounds()
        self.assertEqual(len(self.factory.made), 1)


def failing_once(error: OSError, real: socket.socket) -> Any:
    """accept() that fails once, and then is the real one."""
    yield error
    while True:
        try:
            yield real.accept()
        except BlockingIOError as nobody:
            yield nobody


class ShortageTests(PortTestCase):
    """No descriptors, no memory."""

    def failing(self, port: LeanPort, code: int) -> Any:
        real = port._socket
        port._socket = mock.Mock(wraps=real)
        port._socket.accept.side_effect = OSError(code, os.strerror(code))
        return real

    def test_without_memory_accepting_rests_and_goes_on(self) -> None:
        port = self.listen()
        for code in (errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
            before = len(self.factory.made)
            real = self.failing(port, code)
            self.connect()
            self.rounds()
            self.assertEqual(port._socket.accept.call_count, 1, "it does not turn in circles")
            port._socket = real
            self.reactor.advance(lean.REST / 2)
            self.rounds()
            self.assertEqual(len(self.factory.made), before)
            self.reactor.advance(lean.REST)
            self.rounds()
            self.assertEqual(len(self.factory.made), before + 1)

    def test_without_descriptors_clients_are_shed_with_the_one_in_reserve(self) -> None:
        port = self.listen()
        real = self.failing(port, errno.EMFILE)
        clients = [self.connect(), self.connect()]
        port._socket.accept.side_effect = [
            OSError(errno.EMFILE, "full"),
            real.accept(),
            OSError(errno.EMFILE, "full"),
            real.accept(),
            BlockingIOError(),
        ]
        port.ready(select.EPOLLIN)
        port._socket = real
        self.assertEqual([client.recv(1) for client in clients], [b"", b""])
        self.assertEqual(self.factory.made, [])
        self.connected()
        self.assertEqual(len(self.factory.made), 1)

    def test_without_a_reserve_it_rests_and_gets_one_again(self) -> None:
        port = self.listen()
        real = self.failing(port, errno.EMFILE)
        os.close(self.poller._reserve)
        self.poller._reserve = -1
        self.connect()
        self.rounds()
        self.assertGreaterEqual(self.poller._reserve, 0)
        port._socket = real
        self.reactor.advance(lean.REST)
        self.rounds()
        self.assertEqual(len(self.factory.made), 1)

    def test_a_reserve_that_cannot_be_had_is_no_error(self) -> None:
        with mock.patch("mailserver.lean.os.open", side_effect=OSError(errno.EMFILE, "full")):
            self.assertEqual(lean._spare(), -1)

    def test_it_is_told_once_in_a_while(self) -> None:
        port = self.listen()
        with mock.patch.object(lean, "_log") as log:
            self.failing(port, errno.ENFILE)
            self.connect()
            for _ in range(5):
                self.rounds()
                self.reactor.advance(lean.REST)
            self.assertEqual(log.error.call_count, 1)
            self.reactor.advance(lean.SILENCE)
            self.rounds()
            self.reactor.advance(lean.REST)
        self.assertEqual(log.error.call_count, 2)

    def test_a_port_that_rests_can_be_stopped(self) -> None:
        port = self.listen()
        real = self.failing(port, errno.ENFILE)
        self.connect()
        self.rounds()
        port._socket = real
        port.stopListening()
        self.assertEqual(self.reactor.getDelayedCalls(), [])


class StopTests(PortTestCase):
    def test_a_stopped_port_accepts_nobody_and_its_connections_go_on(self) -> None:
        port = self.listen()
        (client,) = self.connected()
        self.successResultOf(port.stopListening())
        self.successResultOf(port.stopListening())
        self.assertRaises(ConnectionRefusedError, self.connect)
        client.sendall(b"still here")
        self.rounds()
        self.assertEqual(self.factory.made[0].calls, ["made", b"still here"])
        self.assertEqual(self.reactor.readers, {self.poller})

    def test_with_the_last_connection_the_reactor_forgets_the_epoll_and_finds_it_again(self) -> None:
        port = self.listen()
        (client,) = self.connected()
        port.stopListening()
        client.close()
        self.rounds()
        self.assertEqual((self.reactor.readers, self.poller.fileno()), (set(), -1))
        self.poller.doRead()  # by a reactor that had its event already
        self.listen()
        self.connected()
        self.assertEqual(len(self.factory.made), 2)

    def test_the_factory_hears_of_the_begin_and_the_end(self) -> None:
        with mock.patch.object(Recorders, "doStart") as start, mock.patch.object(Recorders, "doStop") as stop:
            port = self.listen()
            self.assertEqual((start.call_count, stop.call_count), (1, 0))
            port.stopListening()
            port.stopListening()
        self.assertEqual((start.call_count, stop.call_count), (1, 1))

    def test_when_the_reactor_stops_all_are_told_and_all_is_closed(self) -> None:
        port = self.listen()
        self.connected(2)
        self.poller.connectionLost(Failure(CONNECTION_LOST))
        self.assertEqual([each.calls for each in self.factory.made], [["made", ("lost", ConnectionLost)]] * 2)
        self.assertFalse(port.listening)
        self.assertEqual(self.poller.fileno(), -1)


class RoundTests(PortTestCase):
    def test_one_round_serves_so_many_and_the_next_the_others(self) -> None:
        self.listen()
        clients = self.connected(6)
        for client in clients:
            client.sendall(b"x")
        with mock.patch.object(lean, "EVENTS_PER_ROUND", 4):
            self.poller.doRead()
            self.assertEqual(sum(b"x" in each.calls for each in self.factory.made), 4)
            self.poller.doRead()
        self.assertEqual(sum(b"x" in each.calls for each in self.factory.made), 6)

    def test_a_round_that_takes_long_ends_and_all_get_their_turn(self) -> None:
        self.patch(lean, "ROUND", -1.0)
        ends = []
        for _ in range(5):
            protocol = Recorder()
            _, theirs = self.pair(protocol)
            theirs.sendall(b"hello")
            ends.append(protocol)
        for served in range(1, 6):
            self.rounds(1)
            self.assertEqual(sum(b"hello" in protocol.calls for protocol in ends), served)

    def test_one_that_ends_another_in_the_same_round_is_no_trouble(self) -> None:
        self.listen()
        clients = self.connected(2)
        first, second = self.factory.made
        for each, other in ((first, second), (second, first)):
            each.on_data = lambda data, other=other: other.transport.abortConnection()
        for client in clients:
            client.sendall(b"x")
        self.rounds()
        ended = [each for each in (first, second) if ("lost", ConnectionAborted) in each.calls]
        self.assertEqual(len(ended), 1, "the other was over before its turn came")

    def test_the_number_of_a_closed_descriptor_is_not_given_away_within_the_round(self) -> None:
        self.listen()
        (client,) = self.connected()
        first = self.factory.made[0]
        number = first.transport.getHandle().fileno()
        seen: list[int] = []
        first.on_data = lambda _: (first.transport.abortConnection(), seen.append(os.dup(client.fileno())))
        client.sendall(b"x")
        self.rounds()
        for each in seen:
            os.close(each)
        self.assertNotIn(number, seen)

    def test_outside_of_a_round_the_end_comes_with_the_next_turn(self) -> None:
        self.listen()
        self.connected(2)
        for each in self.factory.made:
            each.transport.loseConnection()
            self.assertEqual(each.calls, ["made"])
        self.assertEqual(len(self.reactor.getDelayedCalls()), 1)
        self.reactor.advance(0)
        self.assertEqual([each.calls[1:] for each in self.factory.made], [[("lost", ConnectionDone)]] * 2)


class ChoiceTests(SynchronousTestCase):
    def test_a_reactor_for_descriptors_and_an_epoll_are_needed(self) -> None:
        self.patch(os, "environ", {})
        self.assertTrue(available(Reactor()))
        self.assertFalse(available(object()))
        with mock.patch("mailserver.lean.select", object()):
            self.assertFalse(available(Reactor()))

    def test_the_environment_can_ask_for_the_stock_transport(self) -> None:
        self.patch(os, "environ", {"MAILSERVER_TRANSPORT": "stock"})
        self.assertFalse(available(Reactor()))

    def test_a_reactor_has_one_poller(self) -> None:
        first, second = Reactor(), Reactor()
        self.assertIs(poller_of(first), poller_of(first))
        self.assertIsNot(poller_of(first), poller_of(second))
        self.assertTrue(IReactorFDSet.providedBy(first))
        self.assertEqual(Poller(first).logPrefix(), "mailserver")

    def test_no_private_name_of_twisted_is_used(self) -> None:
        for path in Path(lean.__file__).parent.glob("lean*.py"):
            self.assertNotRegex(path.read_text(), r"(?m)^\s*(?:from|import) twisted[\w.]*\._|import _")
