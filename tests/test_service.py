"""The composition root on real loopback sockets: start, first mail, reload, drain, and what keeps it from starting."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.application.service import IService
from twisted.internet import reactor
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.endpoints import HostnameEndpoint, connectProtocol
from twisted.internet.protocol import Protocol
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import TestCase
from zope.interface.verify import verifyObject

from mailserver.accounts.passwords import hash_password
from mailserver.address import parse_address
from mailserver.config import Config, ConfigError, development, load
from mailserver.foundations import Place, StartError
from mailserver.service import MailService, bind_listener, key_of


class Client(Protocol):
    """Says lines, waits for replies."""

    transport: Any = None

    def __init__(self) -> None:
        self.received = b""
        self.closed: Deferred[None] = Deferred()
        self._waiting: list[tuple[Callable[[bytes], bool], Deferred[bytes]]] = []

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        self._look()

    def connectionLost(self, reason: Any = None) -> None:
        self.closed.callback(None)

    def until(self, codes: str) -> Deferred[bytes]:
        """Fires with all that came when these codes have been received."""
        done: Deferred[bytes] = Deferred()
        self._waiting.append((lambda received: codes_of(received).endswith(codes), done))
        self._look()
        return done

    def _look(self) -> None:
        for entry in list(self._waiting):
            if entry[0](self.received):
                self._waiting.remove(entry)
                entry[1].callback(self.received)

    def say(self, *lines: str) -> None:
        self.transport.write("".join(line + "\r\n" for line in lines).encode())


def codes_of(received: bytes) -> str:
    return " ".join(line[:3] for line in received.decode().split("\r\n") if line[3:4] == " ")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


OPEN = ("EHLO client", "MAIL FROM:<a@example.net>", "RCPT TO:<b@example.org>", "DATA")


class ServiceCase(TestCase):
    timeout = 60

    def setUp(self) -> None:
        self.dir = Path(self.mktemp())
        self.dir.mkdir()
        self.file = self.dir / "mailserver.toml"
        self.events: list[dict[str, Any]] = []
        globalLogPublisher.addObserver(self.events.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.events.append)

    def configure(self, *listeners: str, more: str = "") -> Config:
        """A configuration of example.org with these listeners ("address, other keys")."""
        text = f'[server]\nhostname = "mx.example.org"\ndata_dir = "data"\n{more}\n[[domain]]\nname = "example.org"\n'
        for listener in listeners:
            text += f"[[listener]]\n{listener}\n"
        self.file.write_text(text)
        return load(self.file)

    async def start(self, config: Config, **options: Any) -> MailService:
        service = MailService(config, reactor, **options)
        service.prepare()
        service.privilegedStartService()
        service.startService()
        self.addCleanup(self.stop, service)
        return service

    async def stop(self, service: MailService) -> None:
        if service.running:
            await service.stopService()

    async def connect(self, address: str) -> Client:
        host, _, port = address.rpartition(":")
        endpoint = HostnameEndpoint(reactor, host.strip("[]"), int(port))
        client = Client()
        await connectProtocol(endpoint, client)
        self.addCleanup(client.transport.abortConnection)
        await client.until("220")
        return client

    def account(self, service: MailService, name: str, password: str = "secret") -> None:
        service.ground.accounts.add_account(parse_address(name), hash_password(password))

    def new(self, service: MailService, name: str) -> list[Path]:
        domain, local = name.split("@")[1], name.split("@", maxsplit=1)[0]
        return sorted((service.ground.mail / domain / local / "new").glob("*"))

    def named(self, name: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event.get("event") == name]

    def where(self, service: MailService, name: str = "") -> str:
        return next(address for listener, address in service.addresses if not name or listener.name == name)


SMTP = 'address = "127.0.0.1:0"\nprotocol = "smtp"\nname = "in"'


class DeliveryTests(ServiceCase):
    async def test_a_mail_from_the_socket_to_the_maildir(self) -> None:
        service = await self.start(self.configure(SMTP))
        verifyObject(IService, service)
        self.account(service, "b@example.org")
        client = await self.connect(self.where(service))
        client.say(*OPEN)
        await client.until("354")
        client.say("Subject: x", "", "..dot", ".", "QUIT")
        await client.until("250 221")
        await client.closed
        (file,) = self.new(service, "b@example.org")
        self.assertEqual(stat.S_IMODE(file.stat().st_mode), 0o600)
        content = file.read_bytes()
        self.assertTrue(content.endswith(b"Subject: x\n\n.dot\n"), content)
        self.assertTrue(
            content.startswith(b"Return-Path: <a@example.net>\nDelivered-To: b@example.org\nReceived: from client (")
        )

    async def test_who_is_nobody_here_and_what_is_not_ours(self) -> None:
        service = await self.start(self.configure(SMTP))
        client = await self.connect(self.where(service))
        client.say("EHLO c", "MAIL FROM:<a@example.net>", "RCPT TO:<x@example.org>", "RCPT TO:<x@example.com>")
        received = await client.until("550 550")
        self.assertIn(b"550 5.1.1 ", received)
        self.assertIn(b"550 5.7.1 ", received)

    async def test_an_account_made_while_it_runs_is_seen_at_once(self) -> None:
        service = await self.start(self.configure(SMTP))
        client = await self.connect(self.where(service))
        client.say("EHLO c", "MAIL FROM:<a@example.net>", "RCPT TO:<b@example.org>")
        await client.until("550")
        self.account(service, "b@example.org")
        client.say("RCPT TO:<b@example.org>")
        await client.until("550 250")

    async def test_development_mode_takes_everything(self) -> None:
        config = development((self.dir / "dev").absolute())
        free = [listener.model_copy(update={"address": listener.address.parse(f"127.0.0.1:{free_port()}")})
                for listener in config.listeners[:1]]  # fmt: skip
        import dataclasses

        told: list[Any] = []
        config = dataclasses.replace(config, listeners=tuple(free))
        service = await self.start(config, told=lambda config, addresses: told.extend(addresses))
        client = await self.connect(told[0][1])
        client.say(
            "EHLO c", "AUTH PLAIN AHdob2V2ZXIAd2hhdGV2ZXI=", "MAIL FROM:<a@b>", "RCPT TO:<any@where.example>", "DATA"
        )
        await client.until("250 235 250 250 354")
        client.say("hello", ".")
        await client.until("354 250")
        self.assertEqual(len(self.new(service, "inbox@localhost")), 1)


class StartTests(ServiceCase):
    def prepare(self, config: Config) -> list[str]:
        error = self.assertRaises(StartError, MailService(config, reactor).prepare)
        return list(error.lines)

    def test_a_port_in_use_is_told_with_listener_and_line(self) -> None:
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            other.listen()
            port = other.getsockname()[1]
            config = self.configure(
                f'address = "127.0.0.1:{port}"\nprotocol = "smtp"\nname = "in"', SMTP.replace('"in"', '"two"')
            )
            (line,) = self.prepare(config)
        expected = f'{self.file.absolute()}:7: listener "in": 127.0.0.1:{port}: address already in use'
        self.assertEqual(line, expected)

    def test_nothing_stays_bound_when_one_cannot_be_had(self) -> None:
        port = free_port()
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            other.listen()
            taken = other.getsockname()[1]
            config = self.configure(
                f'address = "127.0.0.1:{port}"\nprotocol = "smtp"\nname = "free"',
                f'address = "127.0.0.1:{taken}"\nprotocol = "smtp"\nname = "taken"',
            )
            self.prepare(config)
        with socket.socket() as again:
            again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            again.bind(("127.0.0.1", port))

    def test_a_newer_database_is_not_touched(self) -> None:
        import sqlite3

        config = self.configure(SMTP)
        data = self.dir / "data"
        data.mkdir()
        with sqlite3.connect(data / "accounts.sqlite3") as database:
            database.execute("PRAGMA user_version = 9999")
        database.close()
        (line,) = self.prepare(config)
        self.assertIn("accounts.sqlite3", line)

    async def test_the_directories_are_private(self) -> None:
        service = await self.start(self.configure(SMTP))
        for path in (service.ground.data_dir, service.ground.mail, service.ground.data_dir / "tls"):
            self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o700, path)

    async def test_ipv4_and_ipv6_on_one_port_side_by_side(self) -> None:
        port = free_port()
        config = self.configure(
            f'address = "0.0.0.0:{port}"\nprotocol = "smtp"\nname = "four"',
            f'address = "[::]:{port}"\nprotocol = "smtp"\nname = "six"',
        )
        service = await self.start(config)
        for host in ("127.0.0.1", "[::1]"):
            await self.connect(f"{host}:{port}")
        self.assertEqual(len(service.addresses), 2)


class ReloadTests(ServiceCase):
    async def reload(self, service: MailService) -> None:
        await service.reload()

    async def test_listeners_come_and_go_and_the_others_are_not_touched(self) -> None:
        one, two = free_port(), free_port()
        stays = f'address = "127.0.0.1:{one}"\nprotocol = "smtp"\nname = "stays"'
        goes = f'address = "127.0.0.1:{two}"\nprotocol = "smtp"\nname = "goes"'
        comes = f'address = "[::1]:{two}"\nprotocol = "smtp"\nname = "comes"'
        service = await self.start(self.configure(stays, goes), load=lambda: load(self.file))
        client = await self.connect(f"127.0.0.1:{one}")
        leaving = await self.connect(f"127.0.0.1:{two}")
        self.configure(stays + '\nbanner = "new"', comes)
        await self.reload(service)
        await self.connect(f"[::1]:{two}")
        with self.assertRaises(ConnectionRefusedError), socket.socket() as probe:
            probe.connect(("127.0.0.1", two))
        for old in (client, leaving):
            old.say("EHLO c")
            await old.until("250")
        self.assertIn(b"new", (await self.connect(f"127.0.0.1:{one}")).received)

    async def test_a_broken_file_changes_nothing_and_is_logged(self) -> None:
        service = await self.start(self.configure(SMTP), load=lambda: load(self.file))
        before = service.config
        self.file.write_text('[server]\nhostnam = "x"\n')
        await self.reload(service)
        self.assertIs(service.config, before)
        self.assertIn(
            f"{self.file}:2: server.hostnam: unknown key", " ".join(e["problem"] for e in self.named("config"))
        )
        await self.connect(self.where(service))

    async def test_a_listener_that_cannot_be_had_changes_nothing(self) -> None:
        one, two = free_port(), free_port()
        old = f'address = "127.0.0.1:{one}"\nprotocol = "smtp"\nname = "old"'
        service = await self.start(self.configure(old), load=lambda: load(self.file))
        with socket.socket() as other:
            other.bind(("127.0.0.1", two))
            other.listen()
            self.configure(f'address = "{one}"\nprotocol = "smtp"\nname = "wide"',
                           f'address = "127.0.0.1:{two}"\nprotocol = "smtp"\nname = "taken"')  # fmt: skip
            await self.reload(service)
        self.assertIn("address already in use", self.named("config")[0]["problem"])
        await self.connect(f"127.0.0.1:{one}")

    async def test_a_wider_address_takes_the_place_of_a_narrow_one(self) -> None:
        port = free_port()
        service = await self.start(
            self.configure(f'address = "127.0.0.1:{port}"\nprotocol = "smtp"\nname = "in"'),
            load=lambda: load(self.file),
        )
        self.configure(f'address = "{port}"\nprotocol = "smtp"\nname = "in"')
        await self.reload(service)
        await self.connect(f"[::1]:{port}")
        await self.connect(f"127.0.0.1:{port}")

    async def test_a_unix_socket_gets_its_new_mode(self) -> None:
        path = Path("/tmp") / f"mailserver-test-{os.getpid()}.sock"  # a short path: sun_path has 108 octets
        text = f'address = "unix:{path}"\nprotocol = "lmtp"\nname = "in"'
        service = await self.start(self.configure(text), load=lambda: load(self.file))
        self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o600)
        self.configure(text + '\nunix_mode = "0660"')
        await self.reload(service)
        self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o660)
        await service.stopService()
        self.assertFalse(path.exists())

    async def test_a_reload_during_a_reload_is_not_lost(self) -> None:
        reads: list[Config] = []
        config = self.configure(SMTP)

        def read() -> Config:
            reads.append(config)
            if len(reads) == 1:
                service.reload()
            return config

        service = await self.start(config, load=read)
        await self.reload(service)
        self.assertEqual(len(reads), 2)

    async def test_trouble_in_a_reload_is_logged_and_the_next_one_works(self) -> None:
        answers: list[Any] = [ConfigError(()), RuntimeError("x"), None]
        config = self.configure(SMTP)

        def read() -> Config:
            answer = answers.pop(0)
            if answer is not None:
                raise answer
            return config

        service = await self.start(config, load=read)
        for _ in range(3):
            await self.reload(service)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertEqual(self.named("reload")[-1]["log_format"], "configuration reloaded")


class StopTests(ServiceCase):
    async def test_the_idle_get_421_and_a_transaction_may_end(self) -> None:
        service = await self.start(self.configure(SMTP))
        self.account(service, "b@example.org")
        idle, busy = await self.connect(self.where(service)), await self.connect(self.where(service))
        busy.say(*OPEN)
        await busy.until("354")
        stopped = not_awaited(service.stopService())
        await idle.until("220 421")
        await idle.closed
        self.assertFalse(stopped.called)
        busy.say("late but whole", ".")
        await busy.until("250 421")
        await busy.closed
        await stopped
        self.assertEqual(len(self.new(service, "b@example.org")), 1)

    async def test_a_transaction_that_does_not_end_is_cut(self) -> None:
        service = await self.start(self.configure(SMTP, more="drain_timeout = 0.2"))
        self.account(service, "b@example.org")
        client = await self.connect(self.where(service))
        client.say(*OPEN)
        await client.until("354")
        client.say("half a mes")
        await service.stopService()
        await client.closed
        self.assertEqual(self.new(service, "b@example.org"), [])
        self.assertEqual(list((service.ground.mail / "example.org" / "b").glob("tmp/*")), [])


class WorkerTests(ServiceCase):
    """A service on sockets that its parent has bound."""

    async def worker(self, place: Place) -> MailService:
        config = self.configure(SMTP)
        sockets = {key_of(listener): bind_listener(config, listener) for listener in config.listeners}
        return await self.start(config, place=place, sockets=sockets)

    async def test_it_serves_and_leaves_to_its_parent_what_is_done_once(self) -> None:
        service = await self.worker(Place(worker=3, unique=False, first=False, sweep=False))
        await self.connect(self.where(service))
        self.assertEqual(service.ground.place.worker, 3)
        self.assertEqual(self.named("listening"), [])
        self.assertFalse((service.ground.data_dir / "control").exists())
        self.assertIsNone(service.ground.watch._renew)

    async def test_it_sweeps_when_it_is_told_to(self) -> None:
        tmp = self.dir / "data" / "mail" / "example.org" / "b" / "tmp"
        for sweep in (False, True):
            tmp.mkdir(parents=True, exist_ok=True)
            left = tmp / "1.M1P999999999Q1.mx.example.org"
            left.touch()
            service = await self.worker(Place(worker=1, unique=False, sweep=sweep))
            await service.stopService()  # waits for what the threads have begun
            self.assertEqual(left.exists(), not sweep)

    async def test_to_leave_lets_connections_go_on(self) -> None:
        service = await self.worker(Place(worker=1, unique=False))
        self.account(service, "b@example.org")
        client = await self.connect(self.where(service))
        left = ensureDeferred(service.leave(60))
        client.say(*OPEN)
        await client.until("354")
        self.assertFalse(left.called)
        client.say("x", ".", "QUIT")
        await client.until("250 221")
        await client.closed
        await left

    async def test_to_leave_has_an_end(self) -> None:
        service = await self.worker(Place(worker=1, unique=False))
        client = await self.connect(self.where(service))
        await service.leave(0.01)
        self.assertFalse(client.closed.called)


def not_awaited(deferred: Deferred[Any]) -> Deferred[Any]:
    """The same Deferred: a name that says that it is not awaited yet."""
    return deferred
