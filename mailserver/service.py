"""
The composition root: starts the house on its foundations, exchanges what a reload changes, stops it in good order.

In: `Config`, a reactor.  Out: `MailService`, an `IService` for twistd, twist, or a program of the user's own.
What is built, and which talker gets which store, stands in `foundations`; nobody but these two files knows all rooms.

Failures: `StartError` with lines for the user, before anything listens.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from twisted.internet import defer
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.protocol import ServerFactory
from twisted.logger import Logger

from mailserver.apps.installed import AppSettings
from mailserver.config import Config, Listener
from mailserver.foundations import ONLY, Foundations, Place, StartError, apps_of, factory_of, rooms_of
from mailserver.privileges import Owner, become, owner_of
from mailserver.reloading import ReloadingService, tell_what_needs_a_restart
from mailserver.sockets import BindError, BoundSocket, adopt, bind, owner_ids
from mailserver.systemd import notify

#: Development mode: how many ports behind the usual one are tried.
FURTHER_PORTS = 50

_log = Logger(namespace="mailserver.service")


class CurrentFactory(ServerFactory):
    """What a port asks for protocols: a factory that a reload can exchange while the port listens."""

    noisy = False

    def __init__(self, current: Any) -> None:
        self.current = current

    def buildProtocol(self, addr: Any) -> Any:
        """A protocol of the present factory."""
        return self.current.buildProtocol(addr)


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


def tell_listening(listener: Listener, bound: Sequence[BoundSocket]) -> None:
    """Log where it listens."""
    for each in bound:
        _log.info(
            "listening on {address}: {name} ({protocol}, TLS {tls}, AUTH {auth})",
            event="listening",
            address=str(each),
            name=listener.name,
            protocol=listener.protocol,
            tls=listener.tls,
            auth=listener.auth,
        )


def bind_listener(config: Config, listener: Listener, owner: Owner | None = None) -> list[BoundSocket]:
    """
    Its sockets.  owner: who gets a Unix socket whose owner is not configured: the process must be able to use it.

    Raises StartError: which listener, which line, what is wrong.
    """
    try:
        further = FURTHER_PORTS if listener.next_free_port else 0
        belongs = owner_ids(listener.unix_owner) if listener.unix_owner else None
        if belongs is None and owner is not None and os.geteuid() == 0:
            belongs = (owner.uid, owner.gid)
        mode = int(listener.unix_mode, 8)
        return bind(listener.address, next_free_port=further, unix_mode=mode, unix_owner=belongs)
    except BindError as error:
        where = f"{config.source}:{listener.line}: " if config.source is not None else ""
        raise StartError([f'{where}listener "{listener.name}": {error}']) from error


def key_of(listener: Listener) -> str:
    """What tells a listener from the others, also after a reload; any number of them may ask for any free port."""
    address = listener.address
    if address.kind == "unix":
        # Another mode or owner is another socket file: the old one is closed, and the new one bound in its place.
        return f"{address} {listener.unix_mode} {listener.unix_owner or ''}"
    return f"{address} {listener.name}" if address.kind == "tcp" and address.port == 0 else str(address)


class Makers:
    """For the key of each listener what makes its protocols; and the rooms and apps they know.  Raises StartError."""

    def __init__(self, config: Config, ground: Foundations, reactor: Any) -> None:
        self.rooms, self.apps = rooms_of(config, ground), apps_of(config, ground)
        self.factories = {
            key_of(listener): factory_of(config, listener, self.rooms, ground, reactor, self.apps)
            for listener in config.listeners
        }


class MailService(ReloadingService):
    """
    The whole server, or one worker of it.

    load: reads the configuration again, for SIGHUP; None: signals are not ours to use.  told: gets the addresses,
    (listener, "host:port") each, when all listeners listen.  owner: whose the process will be, when somebody else
    (twistd --uid) sees to that; by default what the configuration says, and then root is given up here.
    apps: of the program that this is a part of, beside those of the configuration.  place: of a worker;
    sockets: those that its parent has bound, by `key_of` their listeners.
    """

    def __init__(
        self,
        config: Config,
        reactor: Any,
        *,
        load: Callable[[], Config] | None = None,
        told: Callable[[Config, list[tuple[Listener, str]]], None] | None = None,
        owner: Owner | None = None,
        place: Place = ONLY,
        sockets: Mapping[str, Sequence[BoundSocket]] | None = None,
        apps: Sequence[AppSettings] = (),
    ) -> None:
        super().__init__(config, reactor, load)
        self.apps = tuple(apps)
        self._told = told
        self._place = place
        self._sockets = sockets
        self._owner = owner
        self._given_up = owner is not None
        self._ground: Foundations | None = None
        self._open: dict[str, _Open] = {}

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
        owner = self._owner or owner_of(self.config.server.user, self.config.server.group)
        ground = Foundations(self.config, self._reactor, owner, self._place)
        ground.embedded_apps = self.apps
        lines: list[str] = []
        for listener in self.config.listeners:
            try:
                self._open[key_of(listener)] = self._bound(listener, owner)
            except StartError as error:
                lines += error.lines
        try:
            makers = Makers(self.config, ground, self._reactor)
        except StartError as error:
            lines += error.lines
        if lines:
            for each in self._open.values():
                for bound in each.bound:
                    bound.close()
            self._open.clear()
            raise StartError(lines)
        self._ground = ground
        self._use(makers)
        ground.setServiceParent(self)
        if owner is not None and os.geteuid() == 0:
            self._owner = owner

    def _bound(self, listener: Listener, owner: Owner | None) -> _Open:
        if self._sockets is not None:
            return _Open(listener, self._sockets[key_of(listener)])
        return _Open(listener, bind_listener(self.config, listener, owner))

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
        try:
            super().startService()
        except StartError as error:
            if self._load is None:
                raise
            raise SystemExit("\n".join(f"mailserver: {line}" for line in error.lines)) from None
        for each in self._open.values():
            self._listen(each)
        if self._load is not None:
            self.take(signal.SIGHUP, self.hung_up)
        if self._told is not None:
            self._told(self.config, self.addresses)
        self._reactor.callWhenRunning(self._ready)

    def _ready(self) -> None:
        if self._load is not None:
            # The reactor takes SIGTERM when it runs, and then makes twistd end by that signal: no exit status 0.
            self.take(signal.SIGTERM, self.terminated)
        notify("READY=1", os.environ)

    def _listen(self, opened: _Open) -> None:
        opened.listen(self._reactor)
        if self._sockets is None:  # of those that its workers share the parent tells
            tell_listening(opened.listener, opened.bound)

    async def leave(self, seconds: float) -> None:
        """Accept no more; return when all connections are over, at the latest after so many seconds."""
        await self._close()
        with contextlib.suppress(defer.TimeoutError):
            await self.ground.connections.empty().addTimeout(seconds, self._reactor)

    async def _close(self) -> None:
        for each in tuple(self._open.values()):  # a reload that was under way may change it meanwhile
            await each.close()

    def stopService(self) -> Deferred[None]:
        """Accept no more, let transactions end, say 421 to the idle, stop the rest."""
        notify("STOPPING=1", os.environ)
        return ensureDeferred(self._stop())

    async def _stop(self) -> None:
        self._stopping = True
        try:
            await self._close()
            open_now = len(self.ground.connections)
            if open_now:
                _log.info("{count} connections are open and may end", event="draining", count=open_now)
            await self.ground.connections.drain(self._reactor, self.config.server.drain_timeout)
        finally:
            # The threads of the rooms would keep the process alive for ever.
            stopped = super().stopService()
            if stopped is not None:
                await stopped
        self.give_back()
        _log.info("stopped", event="stopped")

    # -- reload ----------------------------------------------------------------------------------------------------

    async def change_to(self, config: Config) -> None:
        """Raises StartError when a new listener cannot be had; then everything is as before."""
        gone_for_good = self.config.tls.certificates and not config.tls.certificates
        more = ["tls.certificate (none is left, so the old ones stay in use)"] if gone_for_good else []
        tell_what_needs_a_restart(config, self.config, more)
        # All that can fail comes before anything is changed.
        makers = Makers(config, self.ground, self._reactor)
        wanted = {key_of(listener): listener for listener in config.listeners}
        gone = {address: each for address, each in self._open.items() if address not in wanted}
        new = [listener for address, listener in wanted.items() if address not in self._open]
        # A socket cannot be bound where an old one that goes is in its way.
        in_the_way = [each for each in gone.values() if any(each.listener.address.overlaps(n.address) for n in new)]
        for each in in_the_way:
            await each.close()
        opened: list[_Open] = []
        await self._go_on_with(opened)
        try:
            for listener in new:
                opened.append(_Open(listener, bind_listener(config, listener)))  # noqa: PERF401 - closed if one fails
        except StartError:
            for each in opened:
                await each.close()
            self._listen_again(in_the_way)
            raise
        for each in gone.values():
            if each not in in_the_way:
                await each.close()
            self._open.pop(key_of(each.listener), None)
            _log.info("{name} is closed", event="closed", name=each.listener.name)
        await self._go_on_with(opened)
        for each in opened:
            self._open[key_of(each.listener)] = each
        for address, listener in wanted.items():
            self._open[address].listener = listener
        self.config = config
        self.ground.accounts.default_quota = config.storage.default_quota
        self.ground.admission.limits = config.limits
        self.ground.watch.reload([(each.certificate, each.key) for each in config.tls.certificates] or None)
        self._use(makers)
        for each in opened:
            self._listen(each)

    async def _go_on_with(self, opened: Sequence[_Open]) -> None:
        """Raises StartError, and closes these, when the server was told to stop while a listener was being closed."""
        if self._stopping:
            for each in opened:
                await each.close()
            raise StartError(["the server stops before the new configuration is in use"])

    def _listen_again(self, closed: Sequence[_Open]) -> None:
        for each in closed:
            try:
                each.bound = bind_listener(self.config, each.listener)
                self._listen(each)
            except StartError as error:
                _log.error("{problem}: it could not be opened again", event="config", problem=str(error))

    def _use(self, makers: Makers) -> None:
        """New connections find what these factories know."""
        self.ground.apps.use(makers.apps)
        self.ground.releasing.use(makers.rooms)
        for key, each in self._open.items():
            each.factory.current = makers.factories[key]
