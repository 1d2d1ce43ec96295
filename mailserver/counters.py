"""
What has happened since the start, in numbers: connections, messages, refusals, logins; and the busiest clients.

In: calls from servers and policies, each as something happens.  Out: `snapshot()`, which `mailserver stats` shows.
A server of several processes counts in each of them; `add_up` makes one snapshot of theirs.
Everything is in memory, and nothing grows with what peers send: replies and clients are remembered up to a bound, the
clients not seen for the longest time go first.  One thread only, the reactor's.
"""

from __future__ import annotations

import heapq
import os
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from operator import itemgetter
from typing import Any

#: Clients remembered at most.
REMEMBERED = 10_000
#: Different names of replies, and of listeners; what comes then is counted as `OTHER`.
MOST_NAMES = 200
#: Clients in a snapshot, for each of the two orders.
TOP = 10
#: The same where the snapshots of several processes are added up: who is in none of their lists is not in the sum.
TOP_OF_WORKER = 100
OTHER = "other"
#: A stop of the reactor that is worth counting (seconds): nothing a peer sends may make one.
LONG_STALL = 0.05


@dataclass(slots=True)
class ListenerCounts:
    """Of one listener: connections now, at the same time at most, in all, turned away at once; messages."""

    now: int = 0
    most: int = 0
    connections: int = 0
    turned_away: int = 0
    accepted: int = 0
    refused: int = 0


@dataclass(slots=True)
class AppCounts:
    """
    Of one app: calls, and how they ended.  stalls: calls that held up the reactor for longer than `LONG_STALL`.
    longest_stall: the longest of these times, in seconds.  longest_in: the callback that it was.  restarts: how often
    its own process has died and was started again.
    """

    calls: int = 0
    refused: int = 0
    failed: int = 0
    timeouts: int = 0
    stalls: int = 0
    longest_stall: float = 0.0
    longest_in: str = ""
    restarts: int = 0


@dataclass(slots=True)
class ClientCounts:
    """Of one client.  failures: logins that failed.  refused: connections, recipients and messages."""

    connections: int = 0
    messages: int = 0
    refused: int = 0
    failures: int = 0


class Counters:
    """
    The counters of a whole server.

    seconds: a clock that is never set back.  client_of: an IP address -> the client it belongs to (an IPv4 address,
    an IPv6 /64).  remembered: how many clients.
    """

    def __init__(
        self, seconds: Callable[[], float], client_of: Callable[[str], str] = str, *, remembered: int = REMEMBERED
    ) -> None:
        self._seconds = seconds
        self._started = seconds()
        # To read an IPv6 address takes longer than all else here, and a client comes back with each of its messages.
        self._client_of = lru_cache(maxsize=remembered)(client_of)
        self._remembered = remembered
        self._all = ListenerCounts()
        self._listeners: dict[str, ListenerCounts] = {}
        self._clients: OrderedDict[str, ClientCounts] = OrderedDict()
        self._refusals: dict[str, int] = {}
        self._recipients_accepted = self._recipients_refused = self._octets = 0
        self._auth_succeeded = self._auth_failed = 0
        self._longest_stall, self._stalls = 0.0, 0
        self._apps: dict[str, AppCounts] = {}

    # -- what happens ----------------------------------------------------------------------------------------------

    def connection_opened(self, listener: str, host: str) -> None:
        """A connection was let in.  host: the client's IP address, "" for a Unix socket."""
        for counts in (self._all, self._listener(listener)):
            counts.connections += 1
            counts.now += 1
            if counts.now > counts.most:
                counts.most = counts.now
        self._client(host).connections += 1

    def connection_closed(self, listener: str) -> None:
        """A connection that had been let in is over."""
        for counts in (self._all, self._listener(listener)):
            counts.now = max(0, counts.now - 1)

    def connection_refused(self, listener: str, host: str, reply: str) -> None:
        """A connection was turned away with this reply ("421 4.7.0")."""
        self._all.turned_away += 1
        self._listener(listener).turned_away += 1
        self._refused(host, reply)

    def message_accepted(self, listener: str, host: str, *, octets: int, recipients: int) -> None:
        """A message was taken."""
        self._all.accepted += 1
        self._listener(listener).accepted += 1
        self._client(host).messages += 1
        self._octets += octets
        self._recipients_accepted += recipients

    def message_refused(self, listener: str, host: str, reply: str) -> None:
        """A message was refused at its end, or at MAIL or DATA, with this reply ("552 5.3.4")."""
        self._all.refused += 1
        self._listener(listener).refused += 1
        self._refused(host, reply)

    def recipient_refused(self, host: str, reply: str) -> None:
        """A recipient was refused with this reply ("550 5.1.1")."""
        self._recipients_refused += 1
        self._refused(host, reply)

    def auth_succeeded(self) -> None:
        """Somebody logged in."""
        self._auth_succeeded += 1

    def auth_failed(self, host: str) -> None:
        """A login failed."""
        self._auth_failed += 1
        self._client(host).failures += 1

    def stalled(self, seconds: float) -> None:
        """The reactor came round late by so much."""
        self._longest_stall = max(self._longest_stall, seconds)
        self._stalls += seconds > LONG_STALL

    def app_called(self, app: str, callback: str, seconds: float, outcome: str) -> None:
        """
        A callback of an app is over.  seconds: the longest that it held up the reactor.  outcome: "ok", "refused",
        "failed" or "timeout".
        """
        counts = self._app(app)
        counts.calls += 1
        counts.refused += outcome == "refused"
        counts.failed += outcome == "failed"
        counts.timeouts += outcome == "timeout"
        counts.stalls += seconds > LONG_STALL
        if seconds > counts.longest_stall:
            counts.longest_stall, counts.longest_in = round(seconds, 4), callback

    def app_restarted(self, app: str) -> None:
        """The process of an app is started again, because it has died."""
        self._app(app).restarts += 1

    # -- what is told ----------------------------------------------------------------------------------------------

    def snapshot(self, top: int = TOP) -> dict[str, Any]:
        """
        All numbers, as JSON takes them.

        uptime: seconds.  reactor: the longest time (seconds) in which it did not come round, and how often it took
        longer than `LONG_STALL`.  refusals: reply -> how often, the most frequent first.  clients: the busiest by
        connections and by failed logins, those with neither left out; `top` in each order.
        """
        everything = asdict(self._all)
        return {
            "pid": os.getpid(),
            "uptime": round(self._seconds() - self._started, 1),
            "connections": {
                "now": everything["now"],
                "most": everything["most"],
                "total": everything["connections"],
                "turned_away": everything["turned_away"],
            },
            "messages": {
                "accepted": everything["accepted"],
                "refused": everything["refused"],
                "octets": self._octets,
            },
            "recipients": {"accepted": self._recipients_accepted, "refused": self._recipients_refused},
            "reactor": {"longest_stall": round(self._longest_stall, 4), "stalls": self._stalls},
            "apps": {name: asdict(counts) for name, counts in self._apps.items()},
            "auth": {"succeeded": self._auth_succeeded, "failed": self._auth_failed},
            "listeners": {name: asdict(counts) for name, counts in self._listeners.items()},
            "refusals": dict(sorted(self._refusals.items(), key=lambda item: (-item[1], item[0]))),
            "clients": {
                "remembered": len(self._clients),
                "by_connections": self._top("connections", top),
                "by_failures": self._top("failures", top),
            },
        }

    def _top(self, field: str, most: int) -> list[dict[str, Any]]:
        rows = ({"client": name, **asdict(each)} for name, each in self._clients.items() if getattr(each, field))
        return heapq.nlargest(most, rows, key=lambda row: row[field])

    # -- small parts -----------------------------------------------------------------------------------------------

    def _listener(self, name: str) -> ListenerCounts:
        counts = self._listeners.get(name)
        if counts is None:
            if len(self._listeners) >= MOST_NAMES:
                name = OTHER
            counts = self._listeners.setdefault(name, ListenerCounts())
        return counts

    def _app(self, name: str) -> AppCounts:
        counts = self._apps.get(name)
        if counts is None:
            if len(self._apps) >= MOST_NAMES:
                name = OTHER
            counts = self._apps.setdefault(name, AppCounts())
        return counts

    def _refused(self, host: str, reply: str) -> None:
        if reply not in self._refusals and len(self._refusals) >= MOST_NAMES:
            reply = OTHER
        self._refusals[reply] = self._refusals.get(reply, 0) + 1
        self._client(host).refused += 1

    def _client(self, host: str) -> ClientCounts:
        name = self._client_of(host) or "unix"
        counts = self._clients.get(name)
        if counts is None:
            while len(self._clients) >= self._remembered:
                self._clients.popitem(last=False)
            counts = self._clients[name] = ClientCounts()
        self._clients.move_to_end(name)
        return counts


# -- of several processes --------------------------------------------------------------------------------------------


def add_up(snapshots: Iterable[Mapping[str, Any]], top: int = TOP) -> dict[str, Any]:
    """
    One snapshot of those of several processes, without `pid` and `uptime`.

    top: clients in each order.  "most" is the sum of what each of them had at most: they need not have had it at the
    same moment.
    """
    whole: dict[str, Any] = Counters(lambda: 0.0).snapshot()
    del whole["pid"], whole["uptime"]
    seen: dict[str, dict[str, dict[str, Any]]] = {"by_connections": {}, "by_failures": {}}
    for snapshot in snapshots:
        for name, value in snapshot.items():
            if name == "clients":
                whole[name]["remembered"] += value["remembered"]
                for order, rows in seen.items():
                    _add_clients(rows, value[order])
            elif name == "reactor":
                whole[name]["longest_stall"] = max(whole[name]["longest_stall"], value["longest_stall"])
                whole[name]["stalls"] += value["stalls"]
            elif name == "apps":
                _add_apps(whole[name], value)
            elif name in whole:
                whole[name] = _sum(whole[name], value)
    for order, rows in seen.items():
        whole["clients"][order] = heapq.nlargest(top, rows.values(), key=itemgetter(order.removeprefix("by_")))
    whole["refusals"] = dict(sorted(whole["refusals"].items(), key=lambda item: (-item[1], item[0])))
    return whole


def ended(snapshot: Mapping[str, Any]) -> dict[str, Any]:
    """The last snapshot of a process that is gone: nothing of it is open any more."""
    gone = dict(snapshot)
    gone["connections"] = {**snapshot["connections"], "now": 0}
    gone["listeners"] = {name: {**counts, "now": 0} for name, counts in snapshot["listeners"].items()}
    return gone


def _sum(one: Any, other: Any) -> Any:
    if isinstance(one, Mapping) or isinstance(other, Mapping):
        one, other = one or {}, other or {}  # 0: a listener that only one of them has
        return {key: _sum(one.get(key, 0), other.get(key, 0)) for key in dict.fromkeys((*one, *other))}
    return one + other


def _add_apps(whole: dict[str, dict[str, Any]], more: Mapping[str, Mapping[str, Any]]) -> None:
    for name, counts in more.items():
        known = whole.setdefault(name, asdict(AppCounts()))
        longer = counts["longest_stall"] > known["longest_stall"]
        for key in counts:
            if key not in ("longest_stall", "longest_in"):
                known[key] = known.get(key, 0) + counts[key]
        if longer:
            known["longest_stall"], known["longest_in"] = counts["longest_stall"], counts["longest_in"]


def _add_clients(rows: dict[str, dict[str, Any]], more: Iterable[Mapping[str, Any]]) -> None:
    for row in more:
        name = row["client"]
        known = rows.get(name, {})
        rows[name] = {"client": name, **{key: known.get(key, 0) + row[key] for key in row if key != "client"}}
