"""
What the house stands on, and how its rooms are made: everything that is built from the configuration.

In: `Config`, a reactor.  Out: `Foundations`, which live as long as the process; rooms, settings and factories, which
a reload makes anew.  Here stands which talker gets which store; `service` starts and stops it all.
Failures: `StartError`.
"""

from __future__ import annotations

import dataclasses
import os
import random
import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any

from twisted.application.service import MultiService, Service
from twisted.cred.checkers import AllowAnonymousAccess
from twisted.cred.portal import Portal
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.threadpool import ThreadPool

from mailserver import __version__
from mailserver.accounts.checker import AccountsChecker, AnyPassword
from mailserver.accounts.database import FILE_NAME as ACCOUNTS_FILE
from mailserver.accounts.database import AccountsDatabase
from mailserver.accounts.hashing import HashingPool
from mailserver.accounts.schema import AccountsError
from mailserver.address import parse_address
from mailserver.apps.chain import chain_maker
from mailserver.apps.house import AppHouse
from mailserver.apps.installed import AppSettings, InstalledApp
from mailserver.apps.loading import AppError
from mailserver.apps.loading import settings_of as settings_of_app
from mailserver.config import Config, Listener
from mailserver.connections import OpenConnections
from mailserver.control import ControlService
from mailserver.counters import Counters
from mailserver.delivery.inbound import MailRealm, Rooms
from mailserver.delivery.release import Releasing
from mailserver.delivery.submission import Senders
from mailserver.durable import Durable, make_directories
from mailserver.durable.storage import Storage, StorageError, StorageSettings, Surroundings
from mailserver.lean_tls import LeanTLSFactory
from mailserver.maildir.delivery import MaildirStore
from mailserver.maildir.names import UniqueNames, mailbox_path, sizes
from mailserver.maildir.quota import Quotas
from mailserver.maildir.sweep import Sweep, is_running
from mailserver.policy.clients import ClientLimits, Elsewhere, network
from mailserver.policy.space import FreeSpace
from mailserver.privileges import Owner, give
from mailserver.proxy import ProxyFactory
from mailserver.routing import DEVELOPMENT_INBOX, DevelopmentRouter, LocalDomain, Router
from mailserver.routing_cache import cached
from mailserver.selfsigned import ensure_self_signed, renew_if_needed
from mailserver.smtp.policed import PolicedFactory
from mailserver.smtp.rules import SessionSettings
from mailserver.smtp.server import ESMTPServerFactory
from mailserver.smtp.stock import mechanisms_of
from mailserver.sockets import within
from mailserver.spool.folder import DIRECTORY as SPOOL
from mailserver.spool.folder import Folder
from mailserver.spool.holding import Spool
from mailserver.stalls import StallWatch
from mailserver.tls import CertificateProblem, CertificateSet, CertificateWatch

#: Threads that write mail; the disk, not the processor, is what they wait for.
FILE_THREADS = 8
#: Threads for apps that block (`threaded = true`), all of them together.
APP_THREADS = 20
#: Seconds that they are given to end.
APP_THREADS_END = 5.0

_log = Logger(namespace="mailserver.service")


class StartError(Exception):
    """The server cannot start.  lines: for the user, each names what is wrong and where."""

    def __init__(self, lines: Sequence[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = tuple(lines)


@dataclass(frozen=True, slots=True)
class Place:
    """
    Which of the server's processes this is; the default is the only one.

    worker: its number, from 1 on; no other process that lives has it.
    unique: does it what may be done only once: the control socket, the renewal of our own certificate?
    first: does no other worker live?  Then what all earlier ones have left may be taken over.
    sweep: look for what deliveries of processes that are gone have left.
    elsewhere: what the other workers count of the clients.
    """

    worker: int = 1
    unique: bool = True
    first: bool = True
    sweep: bool = True
    elsewhere: Elsewhere | None = None


#: Of a server with one process.
ONLY = Place()


class FileThreads(Service):
    """The threads in which files are written; made at the start, for threads do not survive twistd's fork."""

    name = "files"
    most = FILE_THREADS

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._pool: ThreadPool | None = None

    def startService(self) -> None:
        """Start them."""
        super().startService()
        self._pool = self._make_pool()
        self._pool.start()

    def _make_pool(self) -> ThreadPool:
        return ThreadPool(0, self.most, name=self.name)

    def stopService(self) -> Any:
        """Stop them, when what they do is done."""
        super().stopService()
        if self._pool is not None:
            self._pool.stop()

    def run(self, function: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        """Run the function in a thread."""
        if self._pool is None:
            raise RuntimeError("the threads do not run yet")
        return deferToThreadPool(self._reactor, self._pool, function, *arguments)


class AppThreads(FileThreads):
    """
    The threads of apps that block.  One that hangs for ever keeps neither the process nor its end waiting.
    """

    name = "apps"
    most = APP_THREADS

    def _make_pool(self) -> ThreadPool:
        pool = super()._make_pool()
        pool.threadFactory = partial(Thread, daemon=True)  # type: ignore[assignment]
        return pool

    def stopService(self) -> Any:
        """Wait for them, but not for long."""
        Service.stopService(self)
        pool, self._pool = self._pool, None
        if pool is None:
            return None
        stopped: Deferred[None] = Deferred()
        late = self._reactor.callLater(APP_THREADS_END, stopped.callback, None)

        def over() -> None:
            if late.active():
                late.cancel()
                stopped.callback(None)

        def stop() -> None:
            pool.stop()
            self._reactor.callFromThread(over)

        Thread(target=stop, daemon=True, name="apps-end").start()
        return stopped


class Foundations(MultiService):
    """What lives as long as the process: accounts, certificates, threads, the door to the disk, the limits."""

    def __init__(self, config: Config, reactor: Any, owner: Owner | None = None, place: Place = ONLY) -> None:
        """
        owner: who gets all files that are made here, also when it fails half-way: whoever tries again may be them.

        Raises StartError.
        """
        super().__init__()
        self.place = place
        self.data_dir = config.server.data_dir
        self.mail = self.data_dir / "mail"
        self.connections = OpenConnections()
        self.accounts, self.certificates = lay(config, owner)
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        open_files = None if most == resource.RLIM_INFINITY else most
        self.admission = ClientLimits(
            config.limits, reactor.seconds, random.random, open_files=open_files, elsewhere=place.elsewhere
        )
        # Those that are stopped last are added first: what uses the threads stops before them.
        self.files = FileThreads(reactor)
        self.hashing = HashingPool(reactor)
        self.app_threads = AppThreads(reactor)
        self.names = UniqueNames(config.server.hostname, os.getpid(), time.time)
        self.storage = Storage(storage_settings(config, place.worker), self._surroundings(reactor))
        self.durable = self.storage.durable
        self.quotas = Quotas(run_in_thread=self.files.run, seconds=reactor.seconds)
        self.watch = CertificateWatch(
            self.certificates,
            reactor,
            config.tls.check_interval,
            self._renew if place.unique and not config.tls.certificates else None,
        )
        self._self_signed_names = self_signed_names(config)
        self.checker = AccountsChecker(self.accounts, run_in_thread=self.hashing.run, clock=reactor)
        self.counters = Counters(time.monotonic, network)
        self.stalls = StallWatch(reactor, self.counters.stalled)
        # Given by the program that the server is a part of; see `mailserver.server`.
        self.embedded_apps: Sequence[AppSettings] = ()
        self.apps = AppHouse(reactor, self.app_threads.run, self.counters, self.data_dir / "apps")
        # A door without the journal: see `spool.holding`.
        door = Durable(run_in_thread=self.files.run, unique_name=self.names.next)
        folder = Folder(self.data_dir / SPOOL, self.names.next)
        self.releasing = Releasing(folder, door.run, reactor, self._is_leftover)
        self.spool = Spool(folder, door, door.run, self.names.next, self.releasing.held)
        for service in (self.app_threads, self.apps, self.hashing, self.storage, door, self.watch, self.stalls):
            service.setServiceParent(self)
        self.releasing.setServiceParent(self)
        if place.unique:
            ControlService(self.data_dir, {"stats": self.stats}, reactor).setServiceParent(self)

    def _is_leftover(self, name: str) -> bool:
        """Was this temporary file made by a process of ours that is gone?"""
        pid = self.names.pid_of(name)
        return pid is not None and not is_running(pid)

    def _surroundings(self, reactor: Any) -> Surroundings:
        return Surroundings(
            reactor=reactor,
            run=self.files.run,
            unique_name=self.names.next,
            now=time.time,
            seconds=time.perf_counter,
            size_of_name=lambda name: sizes(name)[0] if self.names.pid_of(name) is not None else None,
        )

    def stats(self) -> dict[str, Any]:
        """What `mailserver stats` shows."""
        return {"version": __version__, "pid": os.getpid(), **self.counters.snapshot()}

    def startService(self) -> None:
        """Start; then look for what a crash has left behind.  Raises StartError."""
        # twistd may have forked since: names carry the number of the process that gives them.
        self.names.pid = os.getpid()
        self.files.startService()
        try:
            super().startService()
        except StorageError as error:
            raise StartError([str(error)]) from error
        if self.place.sweep:
            self._sweep()
        if self.place.first:
            self.apps.sweep()

    def _sweep(self) -> None:
        sweep = Sweep(self.mail, self.names, time.time, self.files.run)
        sweep.start().addCallbacks(_swept, lambda failure: _log.failure("sweeping failed", failure=failure))

    def stopService(self) -> Deferred[None]:
        """Stop everything, the threads last; then close the accounts."""
        return ensureDeferred(self._stop())

    async def _stop(self) -> None:
        # It uses nearly all of the others.
        released = self.releasing.stopService()
        if released is not None:
            await released
        stopped = super().stopService()
        if stopped is not None:
            await stopped
        self.files.stopService()
        self.accounts.close()

    def _renew(self) -> bool:
        return renew_if_needed(self.data_dir / "tls", self._self_signed_names, now=datetime.now(UTC))


def lay(config: Config, owner: Owner | None = None) -> tuple[AccountsDatabase, CertificateSet]:
    """
    Make what is missing of directories, accounts and certificate; open them.

    owner: who gets all that was made, also when it fails half-way.  Raises StartError.
    """
    data = config.server.data_dir
    try:
        make_directories(data)
        make_directories(data / "mail")
        accounts = AccountsDatabase(data / ACCOUNTS_FILE, default_quota=config.storage.default_quota)
        return accounts, certificates_of(config)
    except AccountsError as error:
        raise StartError([str(error)]) from error
    except CertificateProblem as error:
        raise StartError([f"{error.path}: {error.text}"]) from error
    except OSError as error:
        raise StartError([f"{error.filename or data}: {error.strerror}"]) from error
    finally:
        if owner is not None and os.geteuid() == 0:
            made = [data, data / "mail", data / "tls", *data.glob(ACCOUNTS_FILE + "*")]
            give(owner, [*made, *(data / "tls").glob("self-signed.*")])


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


def storage_settings(config: Config, worker: int = 1) -> StorageSettings:
    """How mail becomes durable, in the worker of this number."""
    storage = config.storage
    return StorageSettings(
        data_dir=config.server.data_dir,
        mail=config.server.data_dir / "mail",
        durability=storage.durability,
        commit=storage.commit,
        segments=storage.journal_segments,
        segment_size=storage.journal_segment_size,
        body_limit=storage.journal_body_limit,
        worker=worker,
    )


def settings_of(config: Config, listener: Listener) -> SessionSettings:
    """What the sessions of this listener work with."""
    names = config.auth.mechanisms if listener.auth != "off" else ()
    return SessionSettings(
        hostname=listener.hostname,
        banner=listener.banner or ("LMTP" if listener.protocol == "lmtp" else "ESMTP"),
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
        # RFC 4865 is an extension of submission alone.
        hold=int(listener.limits.hold) if listener.protocol == "submission" else 0,
        now=time.time,
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
        # What it keeps depends on this configuration too, and goes with it.
        router = cached(router, ground.accounts)
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
        # Who develops sends the same message twice, and stored ones again.
        check_loops=not config.development,
        spool=ground.spool,
    )


def apps_of(config: Config, ground: Foundations) -> tuple[InstalledApp, ...]:
    """
    The apps of the configuration, installed; those that are in use already are the same objects.

    Raises StartError.
    """
    folder = config.source.parent if config.source is not None else Path.cwd()
    wanted = []
    for table in config.apps:
        try:
            wanted.append(settings_of_app(table, folder))
        except AppError as error:
            raise StartError([f"app.{table.name}.{error.key}: {error}"]) from error
    try:
        return ground.apps.installed([*wanted, *ground.embedded_apps])
    except AppError as error:
        raise StartError([f"app: {error}"]) from error


def with_apps(settings: SessionSettings, apps: Sequence[InstalledApp]) -> SessionSettings:
    """The settings of a listener where these apps have a say."""
    names = [name for app in apps for name in app.words("mechanisms") if name not in settings.mechanisms]
    mechanisms = dict(settings.mechanisms)
    if mechanisms and names:
        mechanisms |= mechanisms_of(dict.fromkeys(name.encode() for name in names), settings.hostname)
    verbs = {verb.encode() for app in apps if "command" in app.defines for verb in app.words("verbs")}
    return dataclasses.replace(
        settings,
        mechanisms=mechanisms,
        verbs=frozenset(verbs),
        mail_parameters=frozenset(word for app in apps for word in app.words("mail_parameters")),
        rcpt_parameters=frozenset(word for app in apps for word in app.words("rcpt_parameters")),
        vrfy=settings.vrfy or any("verify" in app.defines for app in apps),
    )


def factory_of(
    config: Config,
    listener: Listener,
    rooms: Rooms,
    ground: Foundations,
    reactor: Any,
    apps: Sequence[InstalledApp] = (),
) -> Any:
    """What makes the protocols of a listener.  apps: all that there are."""
    settings = settings_of(config, listener)
    held_messages = listener.limits.held_messages if settings.hold and settings.offers("FUTURERELEASE") else 0
    portal = Portal(MailRealm(rooms, submission=listener.protocol == "submission", held_messages=held_messages))
    if listener.auth != "off":
        portal.registerChecker(AnyPassword() if config.development else ground.checker)
    if listener.auth != "required":
        portal.registerChecker(AllowAnonymousAccess())
    try:
        tls = ground.certificates.for_clients(listener.client_certificates, listener.client_ca)
    except CertificateProblem as error:
        raise StartError([f"{error.path}: {error.text}"]) from error
    here = [app for app in apps if app.match.listener(listener.name)]
    kind: Callable[..., Any] = ESMTPServerFactory
    if here:
        settings = with_apps(settings, here)
        kind = partial(
            PolicedFactory,
            policies=chain_maker(
                here,
                hostname=listener.hostname,
                now=time.time,
                folder=ground.apps.folder,
                connections=lambda: len(ground.connections),
                vrfy=listener.vrfy,
            ),
        )
    factory: Any = kind(
        portal,
        settings=settings,
        tls=tls,
        admission=ground.admission.for_listener(listener.name, listener.limits, config.limits),
        clock=reactor,
        connections=ground.connections,
        counters=ground.counters,
        scram=None if config.development else ground.checker,
        xclient=(lambda host: within(host, listener.xclient)) if listener.xclient else None,
    )
    if listener.tls == "implicit":
        factory = LeanTLSFactory(tls, factory, reactor)
    if listener.proxy_protocol:
        factory = ProxyFactory(
            factory,
            listener.trusted_proxies,
            reactor,
            timeout=listener.limits.proxy_header_timeout,
            listener=listener.name,
            connections=ground.connections,
        )
    return factory
