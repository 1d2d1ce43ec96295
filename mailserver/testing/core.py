"""
A test server in the reactor: its listeners, from the first socket to the last connection.

In: `Settings`, a reactor.  Out: ports, an `Inbox`; the server's end without a trace: no socket, no delayed call, no
thread, no file.
It has no storage, no accounts and no configuration, so it stands after a millisecond; what speaks SMTP is the
server's own (see `wire`).  Everything here is called in the reactor's thread.
Failures: `BindError` for an address that cannot be had.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from twisted.cred.checkers import AllowAnonymousAccess
from twisted.cred.portal import Portal

from mailserver.connections import OpenConnections
from mailserver.smtp.rules import SessionSettings
from mailserver.smtp.stock import mechanisms_of
from mailserver.sockets import BoundSocket, ListenAddress, adopt, bind
from mailserver.testing.faults import Faults
from mailserver.testing.inbox import Inbox, InboxRealm, Passwords
from mailserver.testing.settings import Settings
from mailserver.testing.wire import FaultyFactory

#: The names of the listeners: the usual one, TLS from the first octet on, LMTP.
SMTP, SMTPS, LMTP = "smtp", "smtps", "lmtp"


def utc_now() -> datetime:
    """Aware."""
    return datetime.now(UTC)


@dataclass(slots=True)
class _Door:
    """One listener.  address: with its real port, when it has one."""

    address: ListenAddress
    factory: Any
    port: Any = None
    #: While it does not listen, its port is kept for it: nobody else gets it, and who connects is refused.
    held: list[socket.socket] = field(default_factory=list)

    def open(self, reactor: Any) -> None:
        """Listen.  Raises BindError."""
        self.release()
        (bound,) = bind(self.address)
        self.address = ListenAddress("tcp", bound.host, bound.port)
        self.port = adopt(reactor, bound, self.factory)

    async def close(self, *, hold: bool) -> None:
        """Listen no more.  hold: keep the port."""
        port, self.port = self.port, None
        if port is None:
            return
        bound: BoundSocket = port.bound
        stopped = port.stopListening()
        if stopped is not None:
            await stopped
        if hold:
            kept = socket.socket(bound.family, socket.SOCK_STREAM)
            self.held.append(kept)
            kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):  # somebody was quicker: it is told when it shall be opened again
                kept.bind((bound.host, bound.port))

    def release(self) -> None:
        """Give the port back."""
        held, self.held = self.held, []
        for each in held:
            each.close()


class Core:
    """settings: what the test wants.  reactor: where it runs."""

    def __init__(self, settings: Settings, reactor: Any, faults: Faults) -> None:
        self._settings = settings
        self._reactor = reactor
        self._faults = faults
        self.inbox = Inbox(reactor)
        self.connections = OpenConnections()
        self.certificate: Path | None = None
        self._folder: TemporaryDirectory[str] | None = None
        self._doors: dict[str, _Door] = {}
        self._apps: Any = None
        self._passwords = Passwords(settings.auth) if settings.auth is not None else None

    @property
    def ports(self) -> Mapping[str, int]:
        """Listener -> port, also while it does not listen."""
        return {name: door.address.port for name, door in self._doors.items()}

    def start(self) -> None:
        """Listen.  Raises BindError, and AppError for apps that are none; then nothing is left open."""
        settings = self._settings
        try:
            tls = self._certificates() if settings.tls else None
            portal = self._portal()
            if settings.apps is not None:
                from mailserver.testing.apps import AppsUnderTest

                self._apps = AppsUnderTest(settings, self._reactor, lambda: len(self.connections))
            where = _endpoint(settings.host, settings.port)
            if settings.tls == "implicit":
                self._add(SMTPS, where, portal, tls)
            else:
                self._add(SMTP, where, portal, tls)
            anywhere = _endpoint(settings.host, 0)
            if settings.tls == "both":
                self._add(SMTPS, anywhere, portal, tls)
            if settings.lmtp:
                self._add(LMTP, anywhere, portal, tls)
            self.listen()
        except BaseException:
            self._close_at_once()
            raise
        if self._apps is not None:
            self._apps.start()

    def listen(self) -> None:
        """Listen, where it does not.  Raises BindError."""
        for door in self._doors.values():
            if door.port is None:
                door.open(self._reactor)

    async def stop_listening(self) -> None:
        """Refuse connections from now on; those that are open go on."""
        for door in self._doors.values():
            await door.close(hold=True)

    async def stop(self) -> None:
        """End everything, at once."""
        for door in self._doors.values():
            await door.close(hold=False)
            door.release()
        for connection in self.connections:
            connection.end_now()
        await self.connections.empty()
        self.inbox.close()
        if self._apps is not None:
            await self._apps.stop()
        self._clean_up()

    def _close_at_once(self) -> None:
        """After a start that failed."""
        for door in self._doors.values():
            door.release()
            if door.port is not None:
                door.port.stopListening()
        self._doors.clear()
        self._clean_up()

    def _clean_up(self) -> None:
        folder, self._folder, self.certificate = self._folder, None, None
        if folder is not None:
            folder.cleanup()

    # -- what it is made of ----------------------------------------------------------------------------------------

    def _certificates(self) -> Any:
        from mailserver.selfsigned import ensure_self_signed
        from mailserver.tls import CertificateSet

        self._folder = TemporaryDirectory(prefix="mailserver-")
        host = [self._settings.host] if self._settings.host not in ("0.0.0.0", "::") else []  # noqa: S104
        names = dict.fromkeys([self._settings.hostname, "localhost", "127.0.0.1", "::1", *host])
        pair = ensure_self_signed(Path(self._folder.name), list(names), now=utc_now())
        self.certificate = pair[0]
        return CertificateSet([pair])

    def _portal(self) -> Portal:
        settings = self._settings
        realm = InboxRealm(self.inbox, self._faults, settings.inboxes, utc_now)
        portal = Portal(realm)
        if self._passwords is not None:
            portal.registerChecker(self._passwords)
        if not settings.auth_required:
            portal.registerChecker(AllowAnonymousAccess())
        return portal

    def _add(self, name: str, where: ListenAddress, portal: Portal, tls: Any) -> None:
        settings = self._settings
        session = SessionSettings(
            hostname=settings.hostname,
            banner="LMTP" if name == LMTP else "ESMTP",
            listener=name,
            limits=settings.all_limits,
            mechanisms=mechanisms_of(
                dict.fromkeys(each.encode() for each in settings.offered_mechanisms), settings.hostname
            ),
            auth_required=settings.auth_required,
            insecure_auth=not settings.tls if settings.insecure_auth is None else settings.insecure_auth,
            starttls=settings.tls in ("starttls", "both"),
            bare_newlines=settings.bare_newlines,
            off=frozenset(each.upper() for each in settings.extensions_off),
            lmtp=name == LMTP,
            vrfy=True,
        )
        policies: Any = _no_policies
        if self._apps is not None:
            session, policies = self._apps.on(session)
        factory: Any = FaultyFactory(
            portal,
            faults=self._faults,
            policies=policies,
            settings=session,
            tls=tls,
            clock=self._reactor,
            connections=self.connections,
            scram=self._passwords,
        )
        if name == SMTPS:
            from mailserver.lean_tls import LeanTLSFactory

            factory = LeanTLSFactory(tls, factory, self._reactor)
        self._doors[name] = _Door(where, factory)


def _no_policies(_server: Any) -> None:
    return None


def _endpoint(host: str, port: int) -> ListenAddress:
    return ListenAddress.parse(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
