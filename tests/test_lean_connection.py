"""
One lean connection on a real socket: that it does what the stock transport does, and what only it does.

`SCRIPTS` run twice, with the stock transport and with ours, on a reactor of which every turn is made by hand.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from typing import Any
from unittest import mock

from twisted.internet import tcp
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.selectreactor import SelectReactor
from twisted.trial.unittest import SynchronousTestCase

from mailserver.lean import poller_of
from mailserver.lean_connection import BUFFER_SIZE, LeanConnection
from tests.lean_rounds import HalfRecorder, LeanTestCase, Recorder

BIG = bytes(range(256)) * 4096  # 1 MiB: more than the buffers of the kernel take


class Producer:
    """Writes down what the transport asks of it; `on_resume`: what it does then."""

    def __init__(self, calls: list[Any]) -> None:
        self.calls = calls
        self.on_resume: Callable[[], Any] = lambda: None

    def pauseProducing(self) -> None:
        self.calls.append("pause")

    def resumeProducing(self) -> None:
        self.calls.append("resume")
        self.on_resume()

    def stopProducing(self) -> None:
        self.calls.append("stop")


class Stage:
    """A protocol, its transport, and the socket of the peer."""

    def __init__(self, kind: type[Recorder], begin: Callable[[Any, Any, Any], Any]) -> None:
        self.reactor: Any = SelectReactor()
        with socket.socket() as listening:
            listening.bind(("127.0.0.1", 0))
            listening.listen()
            self.peer = socket.socket()
            self.peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
            self.peer.connect(listening.getsockname())
            ours = listening.accept()[0]
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
        ours.setblocking(False)
        self.peer.settimeout(5)
        self.protocol = kind()
        self.calls = self.protocol.calls
        self.transport = begin(self.reactor, ours, self.protocol)
        self.protocol.makeConnection(self.transport)

    def turn(self, count: int = 6) -> None:
        """Some turns of the reactor."""
        for _ in range(count):
            self.reactor.runUntilCurrent()
            self.reactor.doIteration(0)

    def take(self, count: int = 1 << 30) -> bytes:
        """So many octets that the peer receives, or all up to the end."""
        self.peer.setblocking(False)
        got = bytearray()
        for _ in range(100_000):
            try:
                octets = self.peer.recv(65_536)
            except BlockingIOError:
                self.turn(1)
                continue
            got += octets
            if not octets or len(got) >= count:
                break
        self.peer.settimeout(5)
        return bytes(got)

    def reset(self) -> None:
        """The peer goes away with a RST."""
        self.peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.peer.close()

    def end(self) -> None:
        self.peer.close()
        self.transport.abortConnection()
        self.turn()
        self.reactor.removeAll()
        for each in list(self.reactor._internalReaders):
            self.reactor._internalReaders.discard(each)
            each.connectionLost(None)


def stock(reactor: Any, ours: socket.socket, protocol: Any) -> Any:
    return tcp.Server(ours, protocol, ours.getpeername(), None, 0, reactor)  # type: ignore[arg-type]


def lean(reactor: Any, ours: socket.socket, protocol: Any) -> Any:
    return LeanConnection(poller_of(reactor), ours, protocol, None, None)


# -- scripts: what they return is compared too ---------------------------------------------------------------------


def an_echo(stage: Stage) -> Any:
    stage.protocol.on_data = stage.transport.write
    for words in (b"one", b"two"):
        stage.peer.sendall(words)
        stage.turn()
    got = stage.take(6)
    stage.peer.close()
    stage.turn()
    return got


def closing_inside_data_received(stage: Stage) -> Any:
    def close(data: bytes) -> None:
        stage.transport.write(b"bye")
        stage.transport.loseConnection()
        stage.transport.loseConnection()
        stage.calls.append("closed")

    stage.protocol.on_data = close
    stage.peer.sendall(b"x")
    stage.turn()
    return stage.take()


def aborting_inside_data_received(stage: Stage) -> Any:
    def abort(data: bytes) -> None:
        stage.transport.write(b"lost")
        stage.transport.abortConnection()
        stage.transport.abortConnection()
        stage.transport.write(b"never sent")
        stage.calls.append("aborted")

    stage.protocol.on_data = abort
    stage.peer.sendall(b"x")
    stage.turn()


def everything_written_is_sent_before_the_end(stage: Stage) -> Any:
    stage.transport.write(BIG)
    stage.transport.writeSequence([b"and", b" ", b"more"])
    stage.transport.loseConnection()
    return stage.take()


def a_peer_that_goes_away_hard(stage: Stage) -> Any:
    stage.reset()
    stage.turn()


def a_peer_that_goes_away_while_much_is_to_be_sent(stage: Stage) -> Any:
    stage.transport.write(BIG)
    stage.turn()
    stage.reset()
    stage.turn()


def half_closed_by_the_peer(stage: Stage) -> Any:
    stage.peer.sendall(b"the last word")
    stage.peer.shutdown(socket.SHUT_WR)
    stage.turn()
    stage.transport.write(b"an answer to it")
    stage.transport.loseConnection()
    stage.turn()
    return stage.take()


def half_closed_by_us(stage: Stage) -> Any:
    stage.transport.write(BIG)
    stage.transport.loseWriteConnection()
    got = stage.take()
    stage.transport.write(b"too late")
    stage.peer.sendall(b"still heard")
    stage.turn()
    stage.peer.close()
    stage.turn()
    stage.transport.loseConnection()
    stage.turn()
    return got


def a_streaming_producer_waits_while_much_is_queued(stage: Stage) -> Any:
    stage.transport.registerProducer(Producer(stage.calls), True)
    stage.transport.write(BIG)
    got = stage.take(len(BIG))
    stage.turn()
    stage.transport.write(b"little")
    got += stage.take(6)
    stage.turn()
    stage.transport.abortConnection()
    stage.turn()
    return got


def a_pull_producer_is_asked_each_time(stage: Stage) -> Any:
    producer = Producer(stage.calls)
    left = [b"one", b"two", b"three"]

    def produce() -> None:
        if left:
            stage.transport.write(left.pop(0))
        else:
            stage.transport.unregisterProducer()
            stage.transport.loseConnection()

    producer.on_resume = produce
    stage.transport.registerProducer(producer, False)
    return stage.take()


def closing_waits_for_a_paused_producer(stage: Stage) -> Any:
    producer = Producer(stage.calls)
    stage.transport.registerProducer(producer, True)
    stage.transport.write(BIG)
    stage.transport.loseConnection()

    def last() -> None:
        stage.transport.write(b"the end")
        stage.transport.unregisterProducer()

    producer.on_resume = last
    return stage.take()


def two_producers(stage: Stage) -> Any:
    stage.transport.registerProducer(Producer(stage.calls), True)
    try:
        stage.transport.registerProducer(Producer(stage.calls), True)
    except RuntimeError:
        stage.calls.append("refused")
    stage.transport.unregisterProducer()
    stage.transport.registerProducer(Producer(stage.calls), True)


def a_producer_that_comes_too_late(stage: Stage) -> Any:
    transport = stage.transport
    transport.abortConnection()
    stage.turn()
    transport.registerProducer(Producer(stage.calls), True)
    transport.unregisterProducer()
    transport.write(b"nobody is there")
    transport.loseConnection()
    transport.resumeProducing()
    stage.turn()


def pausing(stage: Stage) -> Any:
    stage.transport.pauseProducing()
    stage.peer.sendall(b"one")
    stage.turn()
    stage.peer.sendall(b" two")
    stage.peer.shutdown(socket.SHUT_WR)
    stage.turn()
    stage.calls.append("resumed")
    stage.transport.resumeProducing()
    stage.turn()


def pausing_inside_data_received(stage: Stage) -> Any:
    stage.protocol.on_data = lambda _: stage.transport.pauseProducing()
    for words in (b"one", b"two", b"three"):
        stage.peer.sendall(words)
        stage.turn()
        stage.calls.append("sent")
    stage.transport.resumeProducing()
    stage.turn()


def an_error_in_the_protocol(stage: Stage) -> Any:
    def fail(data: bytes) -> None:
        raise ZeroDivisionError

    stage.protocol.on_data = fail
    stage.peer.sendall(b"x")
    stage.turn()


def a_protocol_that_is_exchanged(stage: Stage) -> Any:
    other = type(stage.protocol)()
    other.calls = stage.calls

    def exchange(data: bytes) -> None:
        stage.transport.protocol = other
        stage.calls.append("exchanged")

    stage.protocol.on_data = exchange
    stage.peer.sendall(b"one")
    stage.turn()
    stage.peer.sendall(b"two")
    stage.turn()


def input_while_it_is_being_closed(stage: Stage) -> Any:
    stage.transport.write(b"one")
    stage.transport.loseConnection()
    stage.transport.resumeProducing()
    stage.peer.sendall(b"not heard any more")
    stage.turn()
    return stage.take()


def doing_things_when_it_is_over(stage: Stage) -> Any:
    def late() -> None:
        stage.transport.write(b"x")
        stage.transport.loseConnection()
        stage.transport.abortConnection()
        stage.transport.pauseProducing()

    stage.protocol.on_lost = late
    stage.peer.close()
    stage.turn()


def text_is_refused(stage: Stage) -> Any:
    for wrong in (stage.transport.write, lambda text: stage.transport.writeSequence([text])):
        try:
            wrong("text")
        except TypeError:
            stage.calls.append("refused")


SCRIPTS: list[Callable[[Stage], Any]] = [
    an_echo,
    closing_inside_data_received,
    aborting_inside_data_received,
    everything_written_is_sent_before_the_end,
    a_peer_that_goes_away_hard,
    a_peer_that_goes_away_while_much_is_to_be_sent,
    half_closed_by_the_peer,
    half_closed_by_us,
    a_streaming_producer_waits_while_much_is_queued,
    a_pull_producer_is_asked_each_time,
    closing_waits_for_a_paused_producer,
    two_producers,
    a_producer_that_comes_too_late,
    pausing,
    pausing_inside_data_received,
    an_error_in_the_protocol,
    a_protocol_that_is_exchanged,
    input_while_it_is_being_closed,
    doing_things_when_it_is_over,
    text_is_refused,
]


class SameTests(SynchronousTestCase):
    def play(self, script: Callable[[Stage], Any], kind: type[Recorder], begin: Any) -> tuple[list[Any], Any]:
        stage = Stage(kind, begin)
        try:
            result = script(stage)
            calls = list(stage.calls)
        finally:
            stage.end()
        self.flushLoggedErrors(ZeroDivisionError)
        return joined(calls), result

    def test_the_stock_transport_and_ours_do_the_same(self) -> None:
        for script in SCRIPTS:
            for kind in (Recorder, HalfRecorder):
                if script is half_closed_by_the_peer and kind is Recorder:
                    continue  # then it is over before the answer, in both, and whether that is sent is chance
                expected = self.play(script, kind, stock)
                self.assertEqual(self.play(script, kind, lean), expected, f"{script.__name__}, {kind.__name__}")

    def test_the_scripts_tell_something(self) -> None:
        calls, got = self.play(closing_waits_for_a_paused_producer, Recorder, lean)
        self.assertEqual(calls, ["made", "pause", "resume", ("lost", ConnectionDone)])
        self.assertEqual(got, BIG + b"the end")
        calls, got = self.play(half_closed_by_us, HalfRecorder, lean)
        self.assertEqual(calls, ["made", "write over", b"still heard", "read over", ("lost", ConnectionDone)])
        self.assertEqual(got, BIG)


def joined(calls: list[Any]) -> list[Any]:
    """Octets that came in several pieces as one."""
    whole: list[Any] = []
    for call in calls:
        if whole and isinstance(call, bytes) and isinstance(whole[-1], bytes):
            whole[-1] += call
        else:
            whole.append(call)
    return whole


class ReadingTests(LeanTestCase):
    def test_an_error_that_looks_like_one_of_the_socket_is_the_protocols(self) -> None:
        for error in (BlockingIOError, ConnectionResetError):
            protocol = Recorder()
            _, theirs = self.pair(protocol)
            protocol.on_data = mock.Mock(side_effect=error)
            theirs.sendall(b"x")
            self.rounds()
            self.assertEqual(protocol.calls, ["made", b"x", ("lost", error)])
            self.assertEqual(len(self.flushLoggedErrors(error)), 1)

    def test_a_pause_without_input_costs_no_system_call(self) -> None:
        connection, theirs = self.pair(Recorder())
        with mock.patch.object(self.poller, "watch", wraps=self.poller.watch) as watch:
            for _ in range(5):
                connection.pauseProducing()
                connection.resumeProducing()
            self.assertEqual(watch.call_count, 0)
            connection.pauseProducing()
            theirs.sendall(b"x")
            self.rounds()
            self.assertEqual(watch.call_count, 1, "or the epoll would tell the same for ever")

    def test_what_was_sent_before_the_peer_went_is_read_after_a_pause(self) -> None:
        for family in (socket.AF_UNIX, socket.AF_INET):
            protocol = Recorder()
            connection, theirs = self.pair(protocol, family)
            connection.pauseProducing()
            theirs.sendall(b"QUIT")
            theirs.close()
            self.rounds()
            self.assertEqual(protocol.calls, ["made"])
            connection.resumeProducing()
            self.rounds()
            self.assertEqual(protocol.calls, ["made", b"QUIT", ("lost", ConnectionDone)])

    def test_the_end_of_the_input_is_told_once(self) -> None:
        protocol = HalfRecorder()
        connection, theirs = self.pair(protocol)
        theirs.shutdown(socket.SHUT_WR)
        self.rounds()
        connection.resumeProducing()
        self.rounds()
        self.assertEqual(protocol.calls, ["made", "read over"])


class WritingTests(LeanTestCase):
    def test_what_is_written_goes_at_once(self) -> None:
        connection, theirs = self.pair(Recorder())
        connection.write(b"220 hello\r\n")
        self.assertEqual(theirs.recv(100), b"220 hello\r\n")

    def test_short_writes_and_a_full_socket_lose_nothing_and_change_no_order(self) -> None:
        connection, theirs = self.pair(Recorder())
        parts = [bytes([number]) * 1000 * number for number in range(1, 100)]
        for part in parts:
            connection.write(part)
        connection.loseConnection()
        self.assertEqual(self.take(theirs, 1 << 30), b"".join(parts))

    def test_what_is_written_after_the_goodbye_is_not_sent_however_much_is_queued(self) -> None:
        for before in (b"one", BIG):
            connection, theirs = self.pair(Recorder())
            connection.write(before)
            connection.loseConnection()
            connection.write(b"two")
            self.rounds()
            self.assertEqual(self.take(theirs, 1 << 30), before)

    def test_a_producer_is_paused_above_the_limit_and_not_at_it(self) -> None:
        connection, _ = self.pair(Recorder())
        calls: list[Any] = []
        connection.registerProducer(Producer(calls), True)
        with mock.patch.object(connection, "_send", side_effect=BlockingIOError):
            connection.write(bytes(BUFFER_SIZE))
            self.assertEqual(calls, [])
            connection.write(b"x")
            self.assertEqual(calls, ["pause"])

    def test_a_peer_that_is_gone_is_met_when_writing_and_told_after_it(self) -> None:
        protocol = Recorder()
        connection, _ = self.pair(protocol)
        with mock.patch.object(connection, "_send", side_effect=BrokenPipeError):
            connection.write(b"x")
        self.assertEqual(protocol.calls, ["made"])
        connection.write(b"y")
        self.rounds()
        self.assertEqual(protocol.calls, ["made", ("lost", ConnectionLost)])

    def test_when_all_is_sent_the_socket_is_not_watched_for_room(self) -> None:
        connection, theirs = self.pair(Recorder())
        connection.write(BIG)
        self.take(theirs, len(BIG))
        self.rounds()
        self.assertEqual(self.poller._epoll.poll(0), [])

    def test_an_error_in_a_producer_ends_the_connection(self) -> None:
        protocol = Recorder()
        connection, theirs = self.pair(protocol)
        producer = Producer([])
        producer.on_resume = mock.Mock(side_effect=ZeroDivisionError)
        connection.registerProducer(producer, True)
        connection.write(BIG)
        self.take(theirs, len(BIG))
        self.rounds()
        self.assertEqual(protocol.calls[-1], ("lost", ZeroDivisionError))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class EndTests(LeanTestCase):
    def test_an_abort_resets_the_peer(self) -> None:
        protocol = Recorder()
        connection, theirs = self.pair(protocol)
        connection.abortConnection()
        self.rounds()
        self.assertEqual(protocol.calls, ["made", ("lost", ConnectionAborted)])
        self.assertRaises(ConnectionResetError, theirs.recv, 1)

    def test_errors_at_the_end_are_logged_and_the_socket_is_closed(self) -> None:
        protocol = Recorder()
        connection, _ = self.pair(protocol)
        producer = Producer([])
        producer.stopProducing = mock.Mock(side_effect=ZeroDivisionError)  # type: ignore[method-assign]
        protocol.on_lost = mock.Mock(side_effect=ZeroDivisionError)
        connection.registerProducer(producer, True)
        connection.abortConnection()
        self.rounds()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)
        self.assertEqual(connection.getHandle().fileno(), -1)

    def test_stop_producing_closes(self) -> None:
        protocol = Recorder()
        connection, _ = self.pair(protocol)
        connection.stopProducing()
        self.rounds()
        self.assertEqual(protocol.calls, ["made", ("lost", ConnectionDone)])
        connection.fail(mock.Mock())
        self.rounds()
        self.assertEqual(len(protocol.calls), 2)
