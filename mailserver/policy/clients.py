"""
Limits across connections: how many a client may have, how quickly, and how often it may guess a password.

In: connections and logins as they come and end.  Out: replies that turn a client away, and waits for failed logins.
A client is an IPv4 address or an IPv6 /64.  What is remembered is in memory, expires, and is bounded.
limits.md; precedents: Postfix anvil(8), Dovecot's auth penalty, mox.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from zope.interface import implementer

from mailserver import reply as replies
from mailserver.envelope import Peer
from mailserver.interfaces import IAdmission
from mailserver.limits import Limits
from mailserver.reply import Reply

T = TypeVar("T")

MINUTE, DAY = 60.0, 86_400.0
#: After so many seconds without a failure the waits begin small again.
FORGIVEN = 900.0
#: Clients and accounts remembered at most; the ones not seen for the longest time go first.
REMEMBERED = 100_000
#: More than this part of all connections in use: idle ones get less time.
BUSY = 0.8


def network(host: str) -> str:
    """The client that an IP address belongs to: itself, or for IPv6 its /64.  "" for a Unix socket."""
    if ":" not in host:
        return host
    try:
        return str(ipaddress.IPv6Network((ipaddress.IPv6Address(host.partition("%")[0]).packed[:8] + bytes(8), 64)))
    except ValueError:
        return host


def is_local(host: str) -> bool:
    """A Unix socket or a loopback address: programs of this machine, which are not counted as one client."""
    return host in ("", "::1") or host.startswith("127.")


@dataclass(slots=True)
class Window:
    """Events in a fixed span of time."""

    start: float = 0.0
    count: int = 0

    def add(self, now: float, span: float) -> int:
        """One more; how many there are in the present span."""
        if now - self.start >= span:
            self.start, self.count = now, 0
        self.count += 1
        return self.count

    def present(self, now: float, span: float) -> int:
        """How many there are in the present span."""
        return self.count if now - self.start < span else 0


@dataclass(slots=True)
class Failures:
    """Failed logins in a row.  last: when the last one was."""

    count: int = 0
    last: float = 0.0

    def add(self, now: float) -> int:
        """One more; how many in a row."""
        self.count = self.count + 1 if now - self.last < FORGIVEN else 1
        self.last = now
        return self.count


class Client:
    """What is remembered of one client."""

    __slots__ = ("connections", "failures", "failures_day", "failures_minute", "new", "waiting")

    def __init__(self) -> None:
        self.connections = 0
        self.waiting = 0
        self.new = Window()
        self.failures = Failures()
        self.failures_minute = Window()
        self.failures_day = Window()

    @property
    def in_use(self) -> bool:
        """Must it be remembered whatever happens?"""
        return self.connections > 0 or self.waiting > 0


@implementer(IAdmission)
class ClientLimits:
    """
    The door, for one listener or several.

    clock: seconds.  random: 0.0 to 1.0, spreads the waits.  most_connections: the limit, or 80 % of the files that
    the process may open if that is less.
    """

    def __init__(
        self,
        limits: Limits,
        clock: Callable[[], float],
        random: Callable[[], float],
        *,
        open_files: int | None = None,
        remembered: int = REMEMBERED,
    ) -> None:
        self._open_files = open_files
        self.limits = limits
        self._clock = clock
        self._random = random
        self._remembered = remembered
        self._clients: OrderedDict[str, Client] = OrderedDict()
        self._accounts: OrderedDict[str, Failures] = OrderedDict()
        self._connections = 0

    @property
    def limits(self) -> Limits:
        """The limits in force; a reload sets others."""
        return self._limits

    @limits.setter
    def limits(self, limits: Limits) -> None:
        self._limits = limits
        self.most_connections = limits.connections
        if self._open_files is not None:
            self.most_connections = max(1, min(limits.connections, int(self._open_files * BUSY)))

    @property
    def connections(self) -> int:
        """Connections that are open now."""
        return self._connections

    def connected(self, peer: Peer) -> Reply | None:
        """See `IAdmission`."""
        if self._connections >= self.most_connections:
            return replies.TOO_MANY_CONNECTIONS
        if not is_local(peer.host):
            client = self._client(peer)
            if client.new.add(self._clock(), MINUTE) > self._limits.connection_rate:
                return replies.CONNECTING_TOO_FAST
            if client.connections >= self._limits.connections_per_client:
                return replies.TOO_MANY_OF_CLIENT
            client.connections += 1
        self._connections += 1
        return None

    def disconnected(self, peer: Peer) -> None:
        """See `IAdmission`."""
        self._connections -= 1
        if not is_local(peer.host):
            self._client(peer).connections -= 1

    def busy(self) -> bool:
        """See `IAdmission`."""
        return self._connections > self.most_connections * BUSY

    def may_authenticate(self, peer: Peer) -> Reply | None:
        """See `IAdmission`."""
        client, now, limits = self._client(peer), self._clock(), self._limits
        if (
            client.failures_minute.present(now, MINUTE) >= limits.auth_failures_per_minute
            or client.failures_day.present(now, DAY) >= limits.auth_failures_per_day
            or client.waiting >= limits.auth_delays
        ):
            return replies.TOO_MANY_AUTH_FAILURES
        return None

    def auth_failed(self, peer: Peer, user: str) -> float:
        """See `IAdmission`.  The wait doubles with each failure in a row, of the client or of the account."""
        client, now = self._client(peer), self._clock()
        client.failures_minute.add(now, MINUTE)
        client.failures_day.add(now, DAY)
        client.waiting += 1
        # The name is remembered whether it exists or not: the wait tells nothing.
        account = _entry(self._accounts, user.casefold()[:320], Failures, self._remembered)
        row = max(client.failures.add(now), account.add(now))
        wait = min(self._limits.auth_failure_delay * 2.0 ** min(row - 1, 30), self._limits.auth_failure_delay_most)
        return wait * (0.9 + 0.2 * self._random())

    def auth_answered(self, peer: Peer) -> None:
        """See `IAdmission`."""
        self._client(peer).waiting -= 1

    def auth_succeeded(self, peer: Peer, user: str) -> None:
        """See `IAdmission`.  The failures of the day stay: a guesser may own one account."""
        self._client(peer).failures = Failures()
        self._accounts.pop(user.casefold()[:320], None)

    def _client(self, peer: Peer) -> Client:
        return _entry(self._clients, network(peer.host), Client, self._remembered)


def _entry(entries: OrderedDict[str, T], key: str, make: Callable[[], T], most: int) -> T:
    """The entry of `key`, new if need be, moved to the end; the oldest one that is not in use goes."""
    entry = entries.get(key)
    if entry is None:
        if len(entries) >= most:
            _forget_oldest(entries)
        entry = entries[key] = make()
    entries.move_to_end(key)
    return entry


def _forget_oldest(entries: OrderedDict[str, T]) -> None:
    for key, entry in entries.items():
        if not getattr(entry, "in_use", False):
            del entries[key]
            return
