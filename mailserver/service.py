"""
The composition root: builds the rooms from the configuration, wires them, starts and stops them.

In: `Config`, a reactor.  Out: `MailService`, an `IService` for twistd, twist, or a program of the user's own.
Nobody but this file knows all rooms; here stands which talker gets which store.  What is built once and lives as long
as the process is `Foundations`; what a reload builds anew is in `_Listening.change`.

Failures: `StartError` with lines for the user, before anything listens.
"""

from __future__ import annotations

import ipaddress
import os
import random
import resource
import signal
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from twisted.application.service import MultiService, Service
from twisted.cred.checkers import AllowAnonymousAccess
from twisted.cred.portal import Portal
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.protocol import ServerFactory
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.threadpool import ThreadPool

from mailserver import __version__
from mailserver.accounts.checker import AccountsChecker, AnyPassword
from mailserver.accounts.database import FILE_NAME as ACCOUNTS_FILE
from mailserver.accounts.database import AccountsDatabase
from mailserver.accounts.hashing import HashingPool
from mailserver.accounts.schema import AccountsError
from mailserver.address import parse_address
from mailserver.config import Config, ConfigError, Listener
from mailserver.connections import OpenConnections
from mailserver.control import ControlService
from mailserver.counters import Counters
from mailserver.delivery.inbound import MailRealm, Rooms
from mailserver.delivery.submission import Senders
from mailserver.durable import Durable, make_directories
from mailserver.maildir.delivery import MaildirStore
from mailserver.maildir.names import UniqueNames, mailbox_path
from mailserver.maildir.quota import Quotas
from mailserver.maildir.sweep import Sweep
from mailserver.policy.clients import ClientLimits, network
from mailserver.policy.space import FreeSpace
from mailserver.privileges import Owner, become, give, owner_of, unix_owner_of
from mailserver.proxy import ProxyFactory
from mailserver.routing import DEVELOPMENT_INBOX, DevelopmentRouter, LocalDomain, Router
from mailserver.selfsigned import ensure_self_signed, renew_if_needed
from mailserver.smtp.rules import SessionSettings
from mailserver.smtp.server import ESMTPServerFactory
from mailserver.smtp.stock import mechanisms_of
from mailserver.sockets import BindError, BoundSocket, adopt, bind
from mailserver.systemd import notify, reloading
from mailserver.tls import CertificateProblem, CertificateSet, CertificateWatch

#: Threads that write mail; the disk, not the processor, is what they wait for.
FILE_THREADS = 8
#: Development mode: how many ports behind the usual one are tried.
FURTHER_PORTS = 50

_log = Logger(namespace="mailserver.service")


class StartError(Exception):
    """The server cannot start.  lines: for the user, each names what is wrong and where."""

    def __init__(self, lines: Sequence[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = tuple(lines)


class CurrentFactory(ServerFactory):
    """What a port asks for protocols: a factory that a reload can exchange while the port listens."""

    noisy = False

    def __init__(self, current: Any) -> None:
        self.current = current

    def buildProtocol(self, addr: Any) -> Any:
        """A protocol of the present factory."""
        return self.current.buildProtocol(addr)


class FileThreads(Service):
    """The threads in which files are written; made at the start, for threads do not survive twistd's fork."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._pool: ThreadPool | None = None

    def startService(self) -> None:
        """Start them."""
        super().startService()
        self._pool = ThreadPool(0, FILE_THREADS, name="files")
        self._pool.start()

    def stopService(self) -> None:
        """Stop them, when what they do is done."""
        super().stopService()
        if self._pool is not None:
            self._pool.stop()

    def run(self, function: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        """Run the function in a thread."""
        if self._pool is None:
            raise RuntimeError("the threads do not run yet")
        return deferToThreadPool(self._reactor, self._pool, function, *arguments)


class Foundations(MultiService):
    """What lives as long as the process: accounts, certificates, threads, the door to the disk, the limits."""

    def __init__(self, config: Config, reactor: Any) -> None:
        """Raises StartError."""
        super().__init__()
        self.data_dir = config.server.data_dir
        self.mail = self.data_dir / "mail"
        self.connections = OpenConnections()
        try:
            make_directories(self.data_dir)
            make_directories(self.mail)
            self.accounts = AccountsDatabase(
                self.data_dir / ACCOUNTS_FILE, default_quota=config.storage.default_quota
            )
            self.certificates = certificates_of(config)
        except AccountsError as error:
            raise StartError([str(error)]) from error
        except CertificateProblem as error:
            raise StartError([f"{error.path}: {error.text}"]) from error
        except OSError as error:
            raise StartError([f"{error.filename or self.data_dir}: {error.strerror}"]) from error
        open_files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self.admission = ClientLimits(config.limits, reactor.seconds, random.random, open_files=open_files)
        # Those that are stopped last are added first: what uses the threads stops before them.
        self.files = FileThreads(reactor)
        self.hashing = HashingPool(reactor)
        self.names = UniqueNames(config.server.hostname, os.getpid(), time.time)
        self.durable = Durable(run_in_thread=self.files.run, unique_name=self.names.next)
        self.quotas = Quotas(run_in_thread=self.files.run, seconds=reactor.seconds)
        self.watch = CertificateWatch(
            self.certificates, reactor, config.tls.check_interval, None if config.tls.certificates else self._renew
        )
        self._self_signed_names = self_signed_names(config)
        self.checker = AccountsChecker(self.accounts, run_in_thread=self.hashing.run, clock=reactor)
        self.counters = Counters(time.monotonic, network)
        self.control = ControlService(self.data_dir, {"stats": self.stats}, reactor)
        for service in (self.hashing, self.durable, self.watch, self.control):
            service.setServiceParent(self)

    def paths(self) -> list[Path]:
        """The files and directories that were made here, for the user who will work with them."""
        found = [self.data_dir, self.mail, self.data_dir / "tls", *self.data_dir.glob(ACCOUNTS_FILE + "*")]
        return [*found, *(self.data_dir / "tls").glob("self-signed.*")]

    def stats(self) -> dict[str, Any]:
        """What `mailserver stats` shows."""
        return {"version": __version__, "pid": os.getpid(), **self.counters.snapshot()}

    def startService(self) -> None:
        """Start; then look for what a crash has left behind."""
        # twistd may have forked since: names carry the number of the process that gives them.
        self.names.pid = os.getpid()
        self.files.startService()
        super().startService()
        sweep = Sweep(self.mail, self.names, time.time, self.files.run)
        sweep.start().addCallbacks(_swept, lambda failure: _log.failure("sweeping failed", failure=failure))

    def stopService(self) -> Deferred[None]:
        """Stop everything, the threads last; then close the accounts."""
        return ensureDeferred(self._stop())

    async def _stop(self) -> None:
        stopped = super().stopService()
        if stopped is not None:
            await stopped
        self.files.stopService()
        self.accounts.close()

    def _renew(self) -> bool:
        return renew_if_needed(self.data_dir / "tls", self._self_signed_names, now=datetime.now(UTC))


def _swept(count: int) -> None:
    if count:
        _log.info("{count} unfinished files of an earlier run removed", event="swept", count=count)


def self_signed_names(config: Config) -> list[str]:
    """The names in a certificate that we sign ourselves."""
    return list(dict.fromkeys([config.server.hostname, "localhost", "127.0.0.1", "::1"]))


def certificates_of(config: Config) -> CertificateSet:
    """The configured certificates, or a self-signed one.  Raises CertificateProblem, OSError."""
    pairs = [(each.certificate, each.key) for each in config.tls.certificates]
    if not pairs:
        names = self_signed_names(config)
        pairs = [ensure_self_signed(config.server.data_dir / "tls", names, now=datetime.now(UTC))]
    return CertificateSet(pairs, minimum_version=config.tls.minimum_version)


def settings_of(config: Config, listener: Listener) -> SessionSettings:
    """What the sessions of this listener work with."""
    names = config.auth.mechanisms if listener.auth != "off" else ()
    return SessionSettings(
        hostname=listener.hostname,
        banner=listener.banner or "ESMTP",
        listener=listener.name,
        limits=listener.limits,
        mechanisms=mechanisms_of(dict.fromkeys(name.encode() for name in names), listener.hostname),
        auth_required=listener.auth == "required",
        insecure_auth=listener.allow_insecure_auth,
        starttls=listener.tls == "starttls",
        tls_required=listener.tls_required,
        bare_newlines=listener.bare_newlines,
        off=frozenset(listener.extensions_off),
        lmtp=listener.protocol == "lmtp",
        banner_delay=listener.banner_delay,
        vrfy=listener.vrfy,
    )


def rooms_of(config: Config, ground: Foundations) -> Rooms:
    """The router, the store and the policies, as this configuration has them."""
    router: Any
    senders: Senders | None = None
    if config.development:
        inbox = mailbox_path(ground.mail, DEVELOPMENT_INBOX)
        router = DevelopmentRouter(ground.accounts, lambda address: mailbox_path(ground.mail, address), inbox)
    else:
        domains = {
            domain.name: LocalDomain(
                domain.name, parse_address(domain.catch_all) if domain.catch_all else None, domain.separator
            )
            for domain in config.domains
        }
        postmaster = parse_address(config.server.postmaster) if config.server.postmaster else None
        router = Router(domains, ground.accounts, lambda address: mailbox_path(ground.mail, address), postmaster)
        separators = {name: domain.separator for name, domain in domains.items()}
        senders = Senders(ground.accounts, lambda domain: separators.get(domain, LocalDomain(domain).separator))
    largest = max((listener.limits.message_size for listener in config.listeners), default=0)
    return Rooms(
        hostname=config.server.hostname,
        router=router,
        store=MaildirStore(ground.durable, ground.names, ground.quotas, config.storage.line_endings),
        now=time.time,
        policies=(FreeSpace(ground.data_dir, largest, time.monotonic),),
        delivered_to=config.storage.delivered_to,
        senders=senders,
    )


def factory_of(config: Config, listener: Listener, rooms: Rooms, ground: Foundations, reactor: Any) -> Any:
    """What makes the protocols of a listener."""
    portal = Portal(MailRealm(rooms, submission=listener.protocol == "submission"))
    if listener.auth != "off":
        portal.registerChecker(AnyPassword() if config.development else ground.checker)
    if listener.auth != "required":
        portal.registerChecker(AllowAnonymousAccess())
    try:
        tls = ground.certificates.for_clients(listener.client_certificates, listener.client_ca)
    except CertificateProblem as error:
        raise StartError([f"{error.path}: {error.text}"]) from error
    factory: Any = ESMTPServerFactory(
        portal,
        settings=settings_of(config, listener),
        tls=tls,
        admission=ground.admission,
        clock=reactor,
        connections=ground.connections,
        counters=ground.counters,
        scram=None if config.development else ground.checker,
        xclient=(lambda host: is_within(host, listener.xclient)) if listener.xclient else None,
    )
    if listener.tls == "implicit":
        factory = TLSMemoryBIOFactory(tls, False, factory, clock=reactor)
    if listener.proxy_protocol:
        factory = ProxyFactory(
            factory, listener.trusted_proxies, reactor, listener=listener.name, connections=ground.connections
        )
    return factory


def is_within(host: str, networks: Sequence[Any]) -> bool:
    """Is this address in one of the networks?  A Unix socket ("") is in none."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return any(address in network for network in networks)


class _Open:
    """A listener that listens, or is about to."""

    def __init__(self, listener: Listener, bound: Sequence[BoundSocket]) -> None:
        self.listener = listener
        self.bound = list(bound)
        self.factory = CurrentFactory(None)
        self.ports: list[Any] = []

    def listen(self, reactor: Any) -> None:
        """Accept connections from now on."""
        self.ports = [adopt(reactor, each, self.factory) for each in self.bound]
        listener = self.listener
        for each in self.bound:
            _log.info(
                "listening on {address}: {name} ({protocol}, TLS {tls}, AUTH {auth})",
                event="listening",
                address=str(each),
                name=listener.name,
                protocol=listener.protocol,
                tls=listener.tls,
                auth=listener.auth,
            )

    async def close(self) -> None:
        """Accept no more; connections go on."""
        if not self.ports:
            for each in self.bound:
                each.close()
        ports, self.ports, self.bound = self.ports, [], []
        for port in ports:
            stopped = port.stopListening()
            if stopped is not None:
                await stopped


def bind_listener(config: Config, listener: Listener) -> _Open:
    """Its sockets.  Raises StartError: which listener, which line, what is wrong."""
    try:
        further = FURTHER_PORTS if listener.next_free_port else 0
        mode, owner = int(listener.unix_mode, 8), unix_owner_of(listener.unix_owner)
        bound = bind(listener.address, next_free_port=further, unix_mode=mode, unix_owner=owner)
        return _Open(listener, bound)
    except BindError as error:
        where = f"{config.source}:{listener.line}: " if config.source is not None else ""
        raise StartError([f'{where}listener "{listener.name}": {error}']) from error


def _key(listener: Listener) -> str:
    """What tells a listener from the others, also after a reload; any number of them may ask for any free port."""
    address = listener.address
    return f"{address} {listener.name}" if address.kind == "tcp" and address.port == 0 else str(address)


class MailService(MultiService):
    """
    The whole server.

    load: reads the configuration again, for SIGHUP; None: signals are not ours to use.  told: gets the addresses,
    (listener, "host:port") each, when all listeners listen.  owner: whose the process will be, when somebody else
    (twistd --uid) sees to that; by default what the configuration says, and then root is given up here.
    """

    def __init__(
        self,
        config: Config,
        reactor: Any,
        *,
        load: Callable[[], Config] | None = None,
        told: Callable[[Config, list[tuple[Listener, str]]], None] | None = None,
        owner: Owner | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self._reactor = reactor
        self._load = load
        self._told = told
        self._owner = owner
        self._given_up = owner is not None
        self._ground: Foundations | None = None
        self._open: dict[str, _Open] = {}
        self._busy = False
        self._old_signals: dict[int, Any] = {}

    @property
    def ground(self) -> Foundations:
        """What `prepare` has built."""
        if self._ground is None:
            raise RuntimeError("prepare() comes first")
        return self._ground

    @property
    def addresses(self) -> list[tuple[Listener, str]]:
        """Each socket that listens: its listener and its address."""
        return [(each.listener, str(bound)) for each in self._open.values() for bound in each.bound]

    def prepare(self) -> None:
        """
        Make the directories, read accounts and certificates, bind all sockets.  Nothing is accepted yet.

        Raises StartError with all that is wrong; then nothing is left bound.
        """
        ground = Foundations(self.config, self._reactor)
        lines: list[str] = []
        for listener in self.config.listeners:
            try:
                self._open[_key(listener)] = bind_listener(self.config, listener)
            except StartError as error:
                lines += error.lines
        if lines:
            for each in self._open.values():
                for bound in each.bound:
                    bound.close()
            self._open.clear()
            raise StartError(lines)
        self._ground = ground
        ground.setServiceParent(self)
        owner = self._owner or owner_of(self.config.server.user, self.config.server.group)
        if owner is not None and os.geteuid() == 0:
            # Closed before it changes hands: SQLite keeps what it has opened.
            ground.accounts.close()
            give(owner, ground.paths())
            self._owner = owner

    def privilegedStartService(self) -> None:
        """While still root: bind, unless that is done; then give up root."""
        if self._ground is None:
            self.prepare()
        super().privilegedStartService()
        if self._owner is not None and not self._given_up:
            become(self._owner)
            self._given_up = True

    def startService(self) -> None:
        """Listen."""
        if self._ground is None:
            self.prepare()
        super().startService()
        self._use(self.config)
        for each in self._open.values():
            each.listen(self._reactor)
        if self._load is not None:
            self._take(signal.SIGHUP, self._hung_up)
        if self._told is not None:
            self._told(self.config, self.addresses)
        self._reactor.callWhenRunning(self._ready)

    def _ready(self) -> None:
        if self._load is not None:
            # The reactor takes SIGTERM when it runs, and then makes twistd end by that signal: no exit status 0.
            self._take(signal.SIGTERM, self._terminated)
        notify("READY=1", os.environ)

    def stopService(self) -> Deferred[None]:
        """Accept no more, let transactions end, say 421 to the idle, stop the rest."""
        notify("STOPPING=1", os.environ)
        return ensureDeferred(self._stop())

    async def _stop(self) -> None:
        for each in self._open.values():
            await each.close()
        open_now = len(self.ground.connections)
        if open_now:
            _log.info("{count} connections are open and may end", event="draining", count=open_now)
        await self.ground.connections.drain(self._reactor, self.config.server.drain_timeout)
        stopped = super().stopService()
        if stopped is not None:
            await stopped
        for number, old in self._old_signals.items():
            signal.signal(number, old)
        self._old_signals.clear()
        _log.info("stopped", event="stopped")

    def _take(self, number: int, handle: Callable[[int, Any], None]) -> None:
        self._old_signals[number] = signal.signal(number, handle)

    def _terminated(self, number: int, _frame: Any) -> None:
        signal.signal(number, signal.SIG_IGN)  # once is enough: the end is bounded by `drain_timeout`
        self._reactor.callFromThread(self._reactor.stop)

    # -- reload ----------------------------------------------------------------------------------------------------

    def _hung_up(self, _signal: int, _frame: Any) -> None:
        self._reactor.callFromThread(self.reload)

    def reload(self) -> Deferred[None]:
        """
        Read configuration and certificates again.  What is broken changes nothing and is logged; connections go on.
        """
        return ensureDeferred(self._reload()).addErrback(
            lambda failure: _log.failure("reload failed; the old configuration stays", failure=failure)
        )

    async def _reload(self) -> None:
        if self._busy or self._load is None:
            return
        self._busy = True
        notify(reloading(), os.environ)
        try:
            config = self._load()
            await self._change_to(config)
        except ConfigError as error:
            for problem in error.problems:
                _log.error("{problem}", event="config", problem=str(problem))
            _log.error("the old configuration stays", event="reload")
        except StartError as error:
            for line in error.lines:
                _log.error("{problem}", event="config", problem=line)
            _log.error("the old configuration stays", event="reload")
        else:
            _log.info("configuration reloaded", event="reload", file=str(config.source or ""))
        finally:
            self._busy = False
            notify("READY=1", os.environ)

    async def _change_to(self, config: Config) -> None:
        """Raises StartError when a new listener cannot be had; then everything is as before."""
        for key in ("data_dir", "user", "group", "log_format", "log_level"):
            if getattr(config.server, key) != getattr(self.config.server, key):
                _log.warn("server.{name} has changed: that needs a restart", event="reload", name=key)
        wanted = {_key(listener): listener for listener in config.listeners}
        gone = {address: each for address, each in self._open.items() if address not in wanted}
        new = [listener for address, listener in wanted.items() if address not in self._open]
        # A socket cannot be bound where an old one that goes is in its way.
        in_the_way = [each for each in gone.values() if any(each.listener.address.overlaps(n.address) for n in new)]
        for each in in_the_way:
            await each.close()
        opened: list[_Open] = []
        try:
            for listener in new:
                opened.append(bind_listener(config, listener))  # noqa: PERF401 - those before a failure are closed
        except StartError:
            for each in opened:
                await each.close()
            self._listen_again(in_the_way)
            raise
        for each in gone.values():
            if each not in in_the_way:
                await each.close()
            del self._open[_key(each.listener)]
            _log.info("{name} is closed", event="closed", name=each.listener.name)
        for each in opened:
            self._open[_key(each.listener)] = each
        for address, listener in wanted.items():
            self._open[address].listener = listener
        self.config = config
        self.ground.accounts.default_quota = config.storage.default_quota
        self.ground.admission.limits = config.limits
        self.ground.watch.reload([(each.certificate, each.key) for each in config.tls.certificates] or None)
        self._use(config)
        for each in opened:
            each.listen(self._reactor)

    def _listen_again(self, closed: Sequence[_Open]) -> None:
        for each in closed:
            try:
                each.bound = bind_listener(self.config, each.listener).bound
                each.listen(self._reactor)
            except StartError as error:
                _log.error("{problem}: it could not be opened again", event="config", problem=str(error))

    def _use(self, config: Config) -> None:
        """New connections find what `config` says."""
        rooms = rooms_of(config, self.ground)
        for each in self._open.values():
            each.factory.current = factory_of(config, each.listener, rooms, self.ground, self._reactor)
