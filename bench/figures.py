"""
What was measured, as values: one round of one server, and the medians of all rounds.

Pure: numbers in, numbers out.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """
    One round of one server.  Times are seconds from the first connection on.

    messages: sent.  accepted: until the last 250.  delivered: until the last file lies in its Maildir.
    settled: until all is written back, as `sync` sees it.  cpu: seconds of all processes.  flushes: of the device.
    memory: octets, when it was over.  others: the part of the processors that went neither to the server nor to the
    load, but to kernel threads for the disk and whatever else runs on the machine.
    """

    messages: int
    accepted: float
    delivered: float
    settled: float
    cpu: float
    flushes: int
    memory: int
    others: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """
    What was looked at outside of the rounds, with numbered messages that were verified.

    p50, p99: seconds.  syncs: for each message; None when nothing could count, tool: what counted.
    stall: the longest stop of the reactor in seconds; None when the server does not tell.
    """

    p50: float
    p99: float
    syncs: float | None
    tool: str
    stall: float | None


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one server and one workload."""

    server: str
    durable: str
    rounds: Sequence[Round]
    observed: Observation

    def median(self, of: Callable[[Round], float]) -> float:
        """The median over the rounds."""
        return statistics.median(map(of, self.rounds))

    @property
    def accepted(self) -> float:
        """Messages per second until accepted."""
        return self.median(lambda each: each.messages / each.accepted)

    @property
    def delivered(self) -> float:
        """Messages per second until delivered."""
        return self.median(lambda each: each.messages / each.delivered)

    @property
    def range(self) -> tuple[float, float]:
        """The slowest and the fastest round, delivered."""
        rates = [each.messages / each.delivered for each in self.rounds]
        return min(rates), max(rates)

    @property
    def settled(self) -> float:
        """Messages per second until all is written back."""
        return self.median(lambda each: each.messages / each.settled)

    @property
    def cpu(self) -> float:
        """Microseconds of processor time for each message."""
        return self.median(lambda each: each.cpu / each.messages * 1e6)

    @property
    def flushes(self) -> float:
        """Flushes of the device for each message."""
        return self.median(lambda each: each.flushes / each.messages)

    @property
    def memory(self) -> float:
        """Octets."""
        return self.median(lambda each: each.memory)

    @property
    def others(self) -> float:
        """The part of the processors that others took."""
        return self.median(lambda each: each.others)

    def as_json(self) -> dict[str, object]:
        """For the file of `--json`: the medians, and each round."""
        return {
            "server": self.server,
            "durable_at_250": self.durable,
            "accepted_per_second": self.accepted,
            "delivered_per_second": self.delivered,
            "settled_per_second": self.settled,
            "cpu_us_per_message": self.cpu,
            "flushes_per_message": self.flushes,
            "syncs_per_message": self.observed.syncs,
            "syncs_counted_by": self.observed.tool,
            "p50_seconds": self.observed.p50,
            "p99_seconds": self.observed.p99,
            "longest_stall_seconds": self.observed.stall,
            "memory_octets": self.memory,
            "rounds": [{name: getattr(each, name) for name in Round.__slots__} for each in self.rounds],
        }


def ratio(figures: Figures, all_figures: Sequence[Figures], to: str = "postfix") -> float | None:
    """How many times as fast as another server, delivered; None when that was not measured."""
    for other in all_figures:
        if other.server == to:
            return figures.delivered / other.delivered
    return None


def longest_stall(statistics_of_server: object) -> float | None:
    """What `mailserver stats --json` says of the reactor: {"reactor": {"longest_stall": seconds}}."""
    reactor = statistics_of_server.get("reactor") if isinstance(statistics_of_server, dict) else None
    stall = reactor.get("longest_stall") if isinstance(reactor, dict) else None
    return float(stall) if isinstance(stall, int | float) else None
