"""
Limits across connections: how many a client may have, how quickly, and how often it may guess a password.

In: connections and logins as they come and end.  Out: replies that turn a client away, and waits for failed logins.
A client is an IPv4 address or an IPv6 /64.  What is remembered is in memory, expires, and is bounded.  The clock
may be set back: a span that begins in the future is over.
limits.md; precedents: Postfix anvil(8), Dovecot's auth penalty, mox.
"""

from __future__ import annotations

import copy
import ipaddress
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from zope.interface import implementer

from mailserver import reply as replies
from mailserver.address import MAX_ADDRESS, AddressError, fold_local, parse_address
from mailserver.envelope import Peer
from mailserver.interfaces import IAdmission
from mailserver.limits import COUNTED_TOGETHER, Limits
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
        address = ipaddress.IPv6Address(host.partition("%")[0])
    except ValueError:
        return host
    # A socket that somebody else opened for both families shows IPv4 clients as ::ffff:192.0.2.1 (RFC 4291 2.5.5.2):
    # by their /64 they would all be one client.
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    if address.is_loopback:
        return str(address)
    return str(ipaddress.IPv6Network((address.packed[:8] + bytes(8), 64)))


def is_local(client: str) -> bool:
    """
    A Unix socket or a loopback address, as `network` gives it: programs of this machine, which are not counted as
    one client.
    """
    return client in ("", "::1") or client.startswith("127.")


@dataclass(slots=True)
class Window:
    """Events in a fixed span of time."""

    start: float = 0.0
    count: int = 0

    def add(self, now: float, span: float) -> int:
        """One more; how many there are in the present span."""
        self.count = self.present(now, span)
        if not self.count:
            self.start = now
        self.count += 1
        return self.count

    def present(self, now: float, span: float) -> int:
        """How many there are in the present span."""
        return self.count if 0 <= now - self.start < span else 0


@dataclass(slots=True)
class Failures:
    """Failed logins in a row.  last: when the last one was."""

    count: int = 0
    last: float = 0.0

    def add(self, now: float) -> int:
        """One more; how many in a row."""
        self.count = self.count + 1 if 0 <= now - self.last < FORGIVEN else 1
        self.last = now
        return self.count


class Client:
    """What is remembered of one client."""

    __slots__ = (
        "connections",
        "failures",
        "failures_day",
        "failures_minute",
        "messages",
        "new",
        "pending",
        "recipients",
        "waiting",
    )

    def __init__(self) -> None:
        self.connections = 0
        self.waiting = 0
        self.pending = 0
        self.new = Window()
        self.messages = Window()
        self.recipients = Window()
        self.failures = Failures()
        self.failures_minute = Window()
        self.failures_day = Window()

    @property
    def in_use(self) -> bool:
        """Must it be remembered whatever happens?"""
        return self.connections > 0 or self.waiting > 0 or self.pending > 0


class _Ledger:
    """What is remembered, of all listeners together."""

    def __init__(self, remembered: int) -> None:
        self.remembered = remembered
        self.clients: OrderedDict[str, Client] = OrderedDict()
        self.accounts: OrderedDict[str, Failures] = OrderedDict()
        self.connections = 0
        self.at_listener: Counter[str] = Counter()

    def client(self, key: str) -> Client:
        """The client of this key, new if need be."""
        return _entry(self.clients, key, Client, self.remembered)


@implementer(IAdmission)
class ClientLimits:
    """
    The door of the whole server; `for_listener` gives that of one listener.

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
        self._ledger = _Ledger(remembered)
        self._whole = self
        self._listener = ""
        self._own: frozenset[str] = frozenset()

    def for_listener(self, name: str, limits: Limits, base: Limits) -> ClientLimits:
        """
        The door of the listener `name`.  limits: its own; base: those of the server.  A limit that differs from the
        server's is counted at this listener alone; the others are counted over all listeners that have none of their
        own.  Failed logins are always counted over all: who is turned away on 465 shall not go on at 587.
        """
        own = copy.copy(self)
        own.limits = limits
        own._whole, own._listener = self, name  # noqa: SLF001 - our own copy
        own._own = frozenset(key for key in COUNTED_TOGETHER if getattr(limits, key) != getattr(base, key))  # noqa: SLF001
        return own

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
        """Connections that are open now, at all listeners."""
        return self._ledger.connections

    def connected(self, peer: Peer) -> Reply | None:
        """See `IAdmission`."""
        ledger, listener = self._ledger, self._listener
        if ledger.connections >= self._whole.most_connections or (
            "connections" in self._own and ledger.at_listener[listener] >= self.most_connections
        ):
            return replies.TOO_MANY_CONNECTIONS
        most = self._counted("connections_per_client", peer)
        if not is_local(network(peer.host)):
            if self._counted("connection_rate", peer).new.add(self._clock(), MINUTE) > self._limits.connection_rate:
                return replies.CONNECTING_TOO_FAST
            if most.connections >= self._limits.connections_per_client:
                return replies.TOO_MANY_OF_CLIENT
        most.connections += 1
        ledger.connections += 1
        ledger.at_listener[listener] += 1
        return None

    def disconnected(self, peer: Peer) -> None:
        """See `IAdmission`.  For a connection that was never let in, nothing happens."""
        ledger = self._ledger
        client = ledger.clients.get(self._key("connections_per_client", peer))
        if client is not None and client.connections > 0:
            client.connections -= 1
            ledger.connections -= 1
            ledger.at_listener[self._listener] -= 1

    def busy(self) -> bool:
        """See `IAdmission`."""
        return self._ledger.connections > self._whole.most_connections * BUSY

    def may_send(self, peer: Peer) -> Reply | None:
        """See `IAdmission`."""
        most = self._limits.messages_per_minute
        if not most or is_local(network(peer.host)):
            return None
        sent = self._counted("messages_per_minute", peer).messages.add(self._clock(), MINUTE)
        return replies.SENDING_TOO_FAST if sent > most else None

    def may_address(self, peer: Peer) -> Reply | None:
        """See `IAdmission`."""
        most = self._limits.recipients_per_minute
        if not most or is_local(network(peer.host)):
            return None
        addressed = self._counted("recipients_per_minute", peer).recipients.add(self._clock(), MINUTE)
        return replies.ADDRESSING_TOO_FAST if addressed > most else None

    def may_authenticate(self, peer: Peer) -> Reply | None:
        """
        See `IAdmission`.  Programs of this machine (a web mail) speak for many people: the counts of their failures
        turn nobody away, only the delays of the account do.
        """
        client, now, limits = self._client(peer), self._clock(), self._limits
        # Those that are judged right now may all be wrong: in parallel nobody guesses more than in a row.
        if not is_local(network(peer.host)) and (
            client.failures_minute.present(now, MINUTE) + client.pending >= limits.auth_failures_per_minute
            or client.failures_day.present(now, DAY) + client.pending >= limits.auth_failures_per_day
        ):
            return replies.TOO_MANY_AUTH_FAILURES
        if client.waiting + client.pending >= limits.auth_delays:
            return replies.TOO_MANY_AUTH_FAILURES
        client.pending += 1
        return None

    def auth_judged(self, peer: Peer) -> None:
        """See `IAdmission`."""
        client = self._ledger.clients.get(network(peer.host))
        if client is not None and client.pending > 0:
            client.pending -= 1

    def auth_failed(self, peer: Peer, user: str) -> float:
        """See `IAdmission`.  The wait doubles with each failure in a row, of the client or of the account."""
        client, now = self._client(peer), self._clock()
        client.failures_minute.add(now, MINUTE)
        client.failures_day.add(now, DAY)
        client.waiting += 1
        # The name is remembered whether it exists or not: the wait tells nothing.
        account = _entry(self._ledger.accounts, _account_key(user), Failures, self._ledger.remembered)
        row = max(client.failures.add(now), account.add(now))
        wait = min(self._limits.auth_failure_delay * 2.0 ** min(row - 1, 30), self._limits.auth_failure_delay_most)
        return min(wait * (0.9 + 0.2 * self._random()), self._limits.auth_failure_delay_most)

    def auth_answered(self, peer: Peer) -> None:
        """See `IAdmission`."""
        client = self._ledger.clients.get(network(peer.host))
        if client is not None and client.waiting > 0:
            client.waiting -= 1

    def auth_succeeded(self, peer: Peer, user: str) -> None:
        """See `IAdmission`.  The failures of the day stay: a guesser may own one account."""
        self._client(peer).failures = Failures()
        self._ledger.accounts.pop(_account_key(user), None)

    def _client(self, peer: Peer) -> Client:
        return self._ledger.client(network(peer.host))

    def _counted(self, limit: str, peer: Peer) -> Client:
        """The client, as it is counted for this limit."""
        return self._ledger.client(self._key(limit, peer))

    def _key(self, limit: str, peer: Peer) -> str:
        client = network(peer.host)
        return f"{client} at {self._listener}" if limit in self._own else client


def _account_key(user: str) -> str:
    """One name for all ways to write an account's: else each of them would have failures of its own."""
    try:
        return parse_address(user).key
    except AddressError:
        return fold_local(user[:MAX_ADDRESS])


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
