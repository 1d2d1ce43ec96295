"""
Limits across connections: how many a client may have, how quickly, and how often it may guess a password.

In: connections and logins as they come and end.  Out: replies that turn a client away, and waits for failed logins.
A client is an IPv4 address or an IPv6 /64.  What is remembered is in memory, expires, and is bounded.  The clock
may be set back: a span that begins in the future is over.
A server of several processes counts in each of them; what the others count is asked of `Elsewhere` and added, so that
a limit holds for all of them together.  Two that let somebody in at the same moment may be over it by one each.
limits.md; precedents: Postfix anvil(8), Dovecot's auth penalty, mox.
"""

from __future__ import annotations

import copy
import ipaddress
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeVar

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
#: What is told of an account and of a listener has such a key; no client's key begins so.
ACCOUNT, LISTENER = "account ", "listener "
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


class Told(NamedTuple):
    """
    What one process tells the others of one client, account or listener.

    connections: open now.  pending, waiting: logins that are judged now, and that wait for their answer.
    spans: (start, count) of `SPANS`.
    """

    connections: int = 0
    pending: int = 0
    waiting: int = 0
    spans: tuple[tuple[float, int], ...] = ((0.0, 0),) * 6


#: The spans of a `Told`, by their places.
NEW, MESSAGES, RECIPIENTS, FAILURES_MINUTE, FAILURES_DAY, FAILURES_ROW = SPANS = range(6)


class Elsewhere(Protocol):
    """What the other processes of the same server count; `mailserver.workers.tables` has one."""

    def connections(self) -> int:
        """Those of the others, in all."""

    def tell_connections(self, count: int) -> None:
        """Ours, in all."""

    def others(self, key: str) -> Sequence[Told]:
        """What others have told of this key."""

    def tell(self, key: str, told: Told) -> None:
        """What we count of this key now."""

    def left(self, key: str) -> Told | None:
        """What a process that had our place before has told of this key."""


class Nowhere:
    """`Elsewhere` where there is one process."""

    def connections(self) -> int:
        """None."""
        return 0

    def tell_connections(self, count: int) -> None:
        """Nobody asks."""

    def others(self, key: str) -> Sequence[Told]:  # noqa: ARG002 - see `Elsewhere`
        """There are none."""
        return ()

    def tell(self, key: str, told: Told) -> None:
        """Nobody asks."""

    def left(self, key: str) -> Told | None:  # noqa: ARG002 - see `Elsewhere`
        """Nothing."""
        return None


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

    def __init__(self, left: Told | None = None) -> None:
        spans = (left or Told()).spans
        self.connections = 0
        self.waiting = 0
        self.pending = 0
        self.new = Window(*spans[NEW])
        self.messages = Window(*spans[MESSAGES])
        self.recipients = Window(*spans[RECIPIENTS])
        self.failures_minute = Window(*spans[FAILURES_MINUTE])
        self.failures_day = Window(*spans[FAILURES_DAY])
        self.failures = _failures(left)

    def told(self) -> Told:
        """What the other processes are told."""
        windows = (self.new, self.messages, self.recipients, self.failures_minute, self.failures_day)
        spans = tuple((window.start, window.count) for window in windows)
        row = (self.failures.last, self.failures.count)
        return Told(self.connections, self.pending, self.waiting, (*spans, row))

    @property
    def in_use(self) -> bool:
        """Must it be remembered whatever happens?"""
        return self.connections > 0 or self.waiting > 0 or self.pending > 0


def _failures(left: Told | None) -> Failures:
    """Those that a process before us has told."""
    last, count = (left or Told()).spans[FAILURES_ROW]
    return Failures(count, last)


class _Ledger:
    """What is remembered, of all listeners together."""

    def __init__(self, remembered: int, elsewhere: Elsewhere) -> None:
        self.remembered = remembered
        self.elsewhere = elsewhere
        self.clients: OrderedDict[str, Client] = OrderedDict()
        self.accounts: OrderedDict[str, Failures] = OrderedDict()
        self.connections = 0
        self.at_listener: Counter[str] = Counter()

    def client(self, key: str) -> Client:
        """The client of this key, new if need be."""
        return _entry(self.clients, key, lambda: Client(self.elsewhere.left(key)), self.remembered)

    def tell(self, key: str) -> None:
        """Tell the other processes of this client."""
        self.elsewhere.tell(key, self.clients[key].told())

    def also(self, key: str, place: int, now: float, span: float) -> int:
        """How many the other processes count in a present span (see `SPANS`) of this client."""
        return sum(Window(*told.spans[place]).present(now, span) for told in self.elsewhere.others(key))

    def failed(self, key: str, own: Failures, now: float) -> int:
        """One more failed login; how many in a row, in all processes, since the last success."""
        others = [told.spans[FAILURES_ROW] for told in self.elsewhere.others(key)]
        success = max((last for last, count in others if not count), default=-1.0)
        if own.last <= success:
            own.count = 0
        recent = (count for last, count in others if last > success and 0 <= now - last < FORGIVEN)
        return own.add(now) + sum(recent)


@implementer(IAdmission)
class ClientLimits:
    """
    The door of the whole server; `for_listener` gives that of one listener.

    clock: seconds.  random: 0.0 to 1.0, spreads the waits.  most_connections: the limit, or 80 % of the files that
    the process may open if that is less.  elsewhere: what other processes of the same server count.
    """

    def __init__(
        self,
        limits: Limits,
        clock: Callable[[], float],
        random: Callable[[], float],
        *,
        open_files: int | None = None,
        remembered: int = REMEMBERED,
        elsewhere: Elsewhere | None = None,
    ) -> None:
        self._open_files = open_files
        self.limits = limits
        self._clock = clock
        self._random = random
        self._ledger = _Ledger(remembered, elsewhere or Nowhere())
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
        """Connections that are open now in this process, at all listeners."""
        return self._ledger.connections

    def connected(self, peer: Peer) -> Reply | None:
        """See `IAdmission`."""
        ledger, listener = self._ledger, self._listener
        whole = self._whole
        if (
            ledger.connections >= whole.most_connections
            or ledger.connections + ledger.elsewhere.connections() >= whole.limits.connections
            or ("connections" in self._own and self._at_listener() >= self.most_connections)
        ):
            return replies.TOO_MANY_CONNECTIONS
        key, local = self._key("connections_per_client", peer), is_local(network(peer.host))
        client = ledger.client(key)
        if not local:
            if self._added(NEW, "connection_rate", peer) > self._limits.connection_rate:
                return replies.CONNECTING_TOO_FAST
            elsewhere = sum(told.connections for told in ledger.elsewhere.others(key))
            if client.connections + elsewhere >= self._limits.connections_per_client:
                return replies.TOO_MANY_OF_CLIENT
        client.connections += 1
        ledger.connections += 1
        ledger.at_listener[listener] += 1
        self._tell_connections(key, local=local)
        return None

    def disconnected(self, peer: Peer) -> None:
        """See `IAdmission`.  For a connection that was never let in, nothing happens."""
        ledger, key = self._ledger, self._key("connections_per_client", peer)
        client = ledger.clients.get(key)
        if client is not None and client.connections > 0:
            client.connections -= 1
            ledger.connections -= 1
            ledger.at_listener[self._listener] -= 1
            self._tell_connections(key, local=is_local(network(peer.host)))

    def busy(self) -> bool:
        """See `IAdmission`."""
        ledger, whole = self._ledger, self._whole
        together = ledger.connections + ledger.elsewhere.connections()
        return ledger.connections > whole.most_connections * BUSY or together > whole.limits.connections * BUSY

    def may_send(self, peer: Peer) -> Reply | None:
        """See `IAdmission`."""
        most = self._limits.messages_per_minute
        if not most or is_local(network(peer.host)):
            return None
        sent = self._added(MESSAGES, "messages_per_minute", peer)
        return replies.SENDING_TOO_FAST if sent > most else None

    def may_address(self, peer: Peer) -> Reply | None:
        """See `IAdmission`."""
        most = self._limits.recipients_per_minute
        if not most or is_local(network(peer.host)):
            return None
        addressed = self._added(RECIPIENTS, "recipients_per_minute", peer)
        return replies.ADDRESSING_TOO_FAST if addressed > most else None

    def may_authenticate(self, peer: Peer) -> Reply | None:
        """
        See `IAdmission`.  Programs of this machine (a web mail) speak for many people: the counts of their failures
        turn nobody away, only the delays of the account do.
        """
        key, now, limits, ledger = network(peer.host), self._clock(), self._limits, self._ledger
        client, also = ledger.client(key), ledger.also
        others = ledger.elsewhere.others(key)
        # Those that are judged right now may all be wrong: in parallel nobody guesses more than in a row.
        pending = client.pending + sum(told.pending for told in others)
        waiting = client.waiting + sum(told.waiting for told in others)
        minute = client.failures_minute.present(now, MINUTE) + also(key, FAILURES_MINUTE, now, MINUTE) + pending
        day = client.failures_day.present(now, DAY) + also(key, FAILURES_DAY, now, DAY) + pending
        if not is_local(key) and (minute >= limits.auth_failures_per_minute or day >= limits.auth_failures_per_day):
            return replies.TOO_MANY_AUTH_FAILURES
        if waiting + pending >= limits.auth_delays:
            return replies.TOO_MANY_AUTH_FAILURES
        client.pending += 1
        ledger.tell(key)
        return None

    def auth_judged(self, peer: Peer) -> None:
        """See `IAdmission`."""
        client = self._ledger.clients.get(key := network(peer.host))
        if client is not None and client.pending > 0:
            client.pending -= 1
            self._ledger.tell(key)

    def auth_failed(self, peer: Peer, user: str) -> float:
        """See `IAdmission`.  The wait doubles with each failure in a row, of the client or of the account."""
        ledger, key, now = self._ledger, network(peer.host), self._clock()
        client = ledger.client(key)
        client.failures_minute.add(now, MINUTE)
        client.failures_day.add(now, DAY)
        client.waiting += 1
        # The name is remembered whether it exists or not: the wait tells nothing.
        name = _account_key(user)
        account = _entry(
            ledger.accounts, name, lambda: _failures(ledger.elsewhere.left(ACCOUNT + name)), ledger.remembered
        )
        row = max(ledger.failed(key, client.failures, now), ledger.failed(ACCOUNT + name, account, now))
        ledger.tell(key)
        ledger.elsewhere.tell(ACCOUNT + name, _row_of(account))
        wait = min(self._limits.auth_failure_delay * 2.0 ** min(row - 1, 30), self._limits.auth_failure_delay_most)
        return min(wait * (0.9 + 0.2 * self._random()), self._limits.auth_failure_delay_most)

    def auth_answered(self, peer: Peer) -> None:
        """See `IAdmission`."""
        client = self._ledger.clients.get(key := network(peer.host))
        if client is not None and client.waiting > 0:
            client.waiting -= 1
            self._ledger.tell(key)

    def auth_succeeded(self, peer: Peer, user: str) -> None:
        """See `IAdmission`.  The failures of the day stay: a guesser may own one account."""
        ledger, key, name = self._ledger, network(peer.host), _account_key(user)
        # None in a row, since now: so the others know that theirs are over too.
        success = Failures(0, self._clock())
        ledger.client(key).failures = success
        ledger.tell(key)
        ledger.accounts.pop(name, None)
        ledger.elsewhere.tell(ACCOUNT + name, _row_of(success))

    def _added(self, place: int, limit: str, peer: Peer) -> int:
        """One more in a span of a minute (see `SPANS`); how many there are, for this limit, in all processes."""
        ledger, key, now = self._ledger, self._key(limit, peer), self._clock()
        client = ledger.client(key)
        window = (client.new, client.messages, client.recipients)[place]
        count = window.add(now, MINUTE) + ledger.also(key, place, now, MINUTE)
        ledger.tell(key)
        return count

    def _at_listener(self) -> int:
        """Connections at this listener, in all processes."""
        ledger = self._ledger
        others = ledger.elsewhere.others(LISTENER + self._listener)
        return ledger.at_listener[self._listener] + sum(told.connections for told in others)

    def _tell_connections(self, key: str, *, local: bool) -> None:
        """Tell the other processes how many are open now."""
        ledger = self._ledger
        ledger.elsewhere.tell_connections(ledger.connections)
        if not local:
            ledger.tell(key)
        if "connections" in self._own:
            ledger.elsewhere.tell(LISTENER + self._listener, Told(ledger.at_listener[self._listener]))

    def _key(self, limit: str, peer: Peer) -> str:
        client = network(peer.host)
        return f"{client} at {self._listener}" if limit in self._own else client


def _row_of(failures: Failures) -> Told:
    return Told(spans=(*Told().spans[:FAILURES_ROW], (failures.last, failures.count)))


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
