"""The parent without workers: what it binds, what it tells them, what it adds up.  With workers: tests/interop."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailserver.config import Config, load
from mailserver.counters import Counters
from mailserver.foundations import StartError
from mailserver.logs import Destination
from mailserver.workers import parent
from mailserver.workers.channel import BRIEF, FROM_PARENT, SOCKETS, TABLES, TO_PARENT, Brief, WorkerProcess, line_of
from mailserver.workers.parent import WorkersService, processes

SMTP = 'address = "127.0.0.1:0"\nprotocol = "smtp"\nname = "in"'


class FakeReactor(Clock):
    """A clock that writes down which processes it was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.spawned: list[tuple[WorkerProcess, list[str], dict[int, Any], Brief]] = []
        self.stopped = 0

    def callWhenRunning(self, function: Any, *arguments: Any) -> None:
        self.callLater(0, function, *arguments)

    def spawnProcess(self, process: Any, program: str, command: list[str], *, env: Any, childFDs: Any) -> None:
        del program, env
        brief = Brief.read(os.dup(childFDs[BRIEF]))
        self.spawned.append((process, command, childFDs, brief))
        process.makeConnection(FakeTransport(100 + len(self.spawned)))

    def stop(self) -> None:
        self.stopped += 1


class FakeTransport:
    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.written: list[dict[str, Any]] = []

    def writeToChild(self, descriptor: int, octets: bytes) -> None:
        del descriptor
        self.written.append(json.loads(octets))


class ParentCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.dir = Path(self.mktemp())
        self.dir.mkdir()
        self.file = self.dir / "mailserver.toml"
        self.reactor = FakeReactor()
        self.patch(parent.ControlService, "startService", lambda _: None)  # its path may be too long here

    def configure(self, *listeners: str, more: str = "") -> Config:
        text = f'[server]\nhostname = "mx.example.org"\ndata_dir = "data"\nworkers = 2\n{more}\n'
        self.file.write_text(text + "".join(f"[[listener]]\n{listener}\n" for listener in listeners))
        return load(self.file)

    def prepared(self, config: Config) -> WorkersService:
        service = WorkersService(config, self.reactor, 2, Destination("json", "info"))
        service.prepare()
        self.addCleanup(lambda: parent._close(service._sockets))
        return service

    def serving(self, *listeners: str) -> WorkersService:
        """With both of its workers ready."""
        service = self.prepared(self.configure(*listeners or (SMTP,)))
        service.startService()
        self.reactor.advance(0)
        for number in range(2):
            self.says(number, say="ready")
        return service

    def says(self, place: int, **message: Any) -> None:
        self.reactor.spawned[place][0].childDataReceived(TO_PARENT, line_of(message))


class CountTests(SynchronousTestCase):
    def test_how_many(self) -> None:
        self.assertEqual((processes(1), processes(7)), (1, 7))
        self.patch(os, "sched_getaffinity", lambda _: {0, 3, 5})
        self.assertEqual(processes("auto"), 3)


class StartTests(ParentCase):
    def test_what_is_wrong_is_told_at_once_and_nothing_stays_bound(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            config = self.configure(
                SMTP,
                f'address = "127.0.0.1:{port}"\nprotocol = "smtp"\nname = "a"',
                'address = "192.0.2.1:25"\nprotocol = "smtp"\nname = "b"',
            )
            service = WorkersService(config, self.reactor, 2, Destination("json", "info"))
            error = self.assertRaises(StartError, service.prepare)
        self.assertEqual([line.split('"')[1] for line in error.lines], ["a", "b"])
        self.assertEqual(service._sockets, {})

    def test_the_workers_get_the_sockets_and_what_was_judged(self) -> None:
        service = self.serving()
        self.file.write_text("nonsense")
        self.assertEqual([brief.number for _, _, _, brief in self.reactor.spawned], [1, 2])
        self.assertEqual([brief.first for _, _, _, brief in self.reactor.spawned], [True, False])
        for _, command, descriptors, brief in self.reactor.spawned:
            self.assertEqual(command[-1], str(brief.number))
            self.assertEqual((descriptors[FROM_PARENT], descriptors[TO_PARENT]), ("w", "r"))
            self.assertEqual(descriptors[TABLES], service._tables.descriptor)
            ((bound,),) = service._sockets.values()
            self.assertEqual(descriptors[SOCKETS], bound.socket.fileno())
            self.assertIn('hostname = "mx.example.org"', brief.text)
            self.assertEqual(brief.source, str(self.file.absolute()))
        self.assertTrue((self.dir / "data" / "accounts.sqlite3").exists())
        self.assertTrue(list((self.dir / "data" / "tls").glob("*.crt")))

    def test_a_first_worker_that_cannot_start_ends_it_with_status_1(self) -> None:
        registered: list[Any] = []
        self.patch(parent.atexit, "register", registered.append)
        service = self.prepared(self.configure(SMTP))
        service.startService()
        self.reactor.advance(0)
        self.says(0, say="failed", lines=["no key"])
        from twisted.internet.error import ProcessTerminated
        from twisted.python.failure import Failure

        self.reactor.spawned[0][0].processEnded(Failure(ProcessTerminated(1, None)))
        self.assertEqual((self.reactor.stopped, registered), (1, [parent._exit_with_1]))
        self.assertEqual(len(self.reactor.spawned), 1)


class StatsTests(ParentCase):
    def snapshot(self, messages: int) -> dict[str, Any]:
        counters = Counters(Clock().seconds)
        counters.connection_opened("in", "192.0.2.1")
        for _ in range(messages):
            counters.message_accepted("in", "192.0.2.1", octets=10, recipients=1)
        return counters.snapshot()

    def stats(self, service: WorkersService) -> dict[str, Any]:
        """Both are asked; the second one does not answer in time."""
        asked: Deferred[dict[str, Any]] = service.stats()
        self.says(0, say="stats", id=self.reactor.spawned[0][0]._count, told=self.snapshot(3))
        self.assertNoResult(asked)
        self.reactor.advance(100)
        return self.successResultOf(asked)

    def test_the_sum_and_the_list(self) -> None:
        service = self.serving()
        told = self.stats(service)
        self.assertEqual((told["messages"]["accepted"], told["connections"]["now"]), (3, 1))
        self.assertEqual([row["worker"] for row in told["workers"]], [1, 2])
        self.assertEqual([row["state"] for row in told["workers"]], ["ready", "ready, no answer"])
        self.assertEqual([row["pid"] for row in told["workers"]], [101, 102])
        self.assertEqual(told["pid"], os.getpid())

    def test_what_one_that_ended_had_counted_stays_in_the_sum(self) -> None:
        service = self.serving()
        for _ in range(2):
            self.says(1, say="last", told=self.snapshot(5))
        told = self.stats(service)
        self.assertEqual((told["messages"]["accepted"], told["connections"]["total"]), (13, 3))
        self.assertEqual((told["connections"]["now"], told["listeners"]["in"]["now"]), (1, 1))


class ReloadTests(ParentCase):
    def test_a_listener_that_overlaps_needs_a_restart(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        service = self.serving(f'address = "127.0.0.1:{port}"\nprotocol = "smtp"\nname = "narrow"')
        config = self.configure(f'address = "0.0.0.0:{port}"\nprotocol = "smtp"\nname = "wide"')
        failure = self.failureResultOf(ensureDeferred(service.change_to(config)), StartError)
        self.assertIn(f'listener "wide": 0.0.0.0:{port} overlaps 127.0.0.1:{port} of "narrow"', str(failure.value))
        self.assertEqual(len(self.reactor.spawned), 2)

    def test_new_listeners_are_bound_and_old_ones_closed_when_all_are_replaced(self) -> None:
        other = 'address = "127.0.0.2:0"\nprotocol = "smtp"\nname = "other"'
        service = self.serving()
        ((old,),) = service._sockets.values()
        changed = ensureDeferred(service.change_to(self.configure(other)))
        self.says(2, say="ready")
        self.assertNotEqual(old.socket.fileno(), -1)
        self.assertNoResult(changed)
        self.says(3, say="ready")
        self.successResultOf(changed)
        self.assertEqual(old.socket.fileno(), -1)
        self.assertEqual(list(service._sockets), ["127.0.0.2:0 other"])
        leave = [process.transport.written[-1]["say"] for process, _, _, _ in self.reactor.spawned[:2]]
        self.assertEqual(leave, ["leave", "leave"])

    def test_when_no_worker_starts_the_new_listeners_are_closed_again(self) -> None:
        from twisted.internet.error import ProcessTerminated
        from twisted.python.failure import Failure

        other = 'address = "127.0.0.2:0"\nprotocol = "smtp"\nname = "other"'
        service = self.serving()
        before = dict(service._sockets)
        changed = ensureDeferred(service.change_to(self.configure(SMTP, other)))
        self.reactor.spawned[2][0].processEnded(Failure(ProcessTerminated(None, 9)))
        failure = self.failureResultOf(changed, StartError)
        self.assertIn("signal 9", str(failure.value))
        self.assertEqual(service._sockets, before)


class RenewalTests(ParentCase):
    def test_the_certificate_is_renewed_here(self) -> None:
        service = self.serving()
        looks: list[Any] = []
        self.patch(parent, "renew_if_needed", lambda *arguments, now: looks.append(arguments))
        self.reactor.advance(service.config.tls.check_interval)
        self.assertEqual(looks, [(self.dir.absolute() / "data" / "tls", parent.self_signed_names(service.config))])

    def test_trouble_is_told_and_not_the_end(self) -> None:
        service = self.serving()
        looks: list[int] = []

        def refuse(*_: Any, now: Any) -> None:
            del now
            looks.append(1)
            raise OSError(28, "No space left on device")

        self.patch(parent, "renew_if_needed", refuse)
        for _ in range(2):
            self.reactor.advance(service.config.tls.check_interval)
        self.assertEqual(len(looks), 2)
