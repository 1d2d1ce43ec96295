"""
Workload (h): does the server become slower as it grows?

In: a `Plan`.  Out: `GrowthFigures`: messages per second for each size, of our server alone.
Three series, all 4 KiB over 20 kept connections: more and more accounts, of which ten get mail; as many, of which all
get mail (then the file system has to go to a new directory for each message); a mailbox that holds more and more
messages.  Servers of all sizes run at the same time, and have their turns as in all workloads.  What is there before
is made without content, as it is names that count: hard links to a few empty files.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from bench.load import Load
from bench.peers import Server
from bench.rounds import Plan, count_files, start
from bench.run import BenchError

ACCOUNTS = (10, 1_000, 100_000)
HELD = (10, 10_000, 1_000_000)
#: Mailboxes that get the mail where it is not spread over all.
_TARGETS = 10
#: Names that one file may have on ext4, less some.
_LINKS = 60_000


@dataclass(frozen=True, slots=True)
class GrowthFigures:
    """series: what grows.  sizes: how far.  rates: messages per second at each."""

    server: str
    series: str
    sizes: tuple[int, ...]
    rates: tuple[float, ...]

    @property
    def spread(self) -> float:
        """How much slower the slowest is than the fastest: 0.2 is 20 %."""
        return 1 - min(self.rates) / max(self.rates)

    def as_json(self) -> dict[str, object]:
        """For the file of `--json`."""
        return {
            "server": self.server,
            "series": self.series,
            "sizes": self.sizes,
            "messages_per_second": self.rates,
            "spread": self.spread,
        }


@dataclass(frozen=True, slots=True)
class _Grown:
    """A server of one size.  accounts: that it has.  targets: how many get mail.  held: messages that these have."""

    accounts: int
    targets: int
    held: int = 0


_SERIES: tuple[tuple[str, tuple[int, ...], Callable[[int], _Grown]], ...] = (
    ("accounts, mail for ten of them", ACCOUNTS, lambda size: _Grown(size, _TARGETS)),
    ("accounts, mail for all of them", ACCOUNTS, lambda size: _Grown(size, size)),
    ("messages held by the mailbox that gets all mail", HELD, lambda size: _Grown(1, 1, size)),
)


def measure_growth(plan: Plan) -> list[GrowthFigures]:
    """The three series of each variant of our server that was asked for."""
    found = []
    for position, first in enumerate(plan.servers()):
        if not first.name.startswith("mailserver"):
            continue
        for series, sizes, of_size in _SERIES:
            servers = [plan.servers()[position] for _ in sizes]
            rates = _measure(plan, servers, [of_size(size) for size in sizes])
            for size, rate in zip(sizes, rates, strict=True):
                plan.say(f"  {first.name}, {series}: {size:,}: {rate:,.0f}/s")
            found.append(GrowthFigures(first.name, series, sizes, tuple(rates)))
    return found


def _measure(plan: Plan, servers: Sequence[Server], sizes: Sequence[_Grown]) -> list[float]:
    """Messages per second of each: the median of rounds, in which each has its turn."""
    load = Load(messages=300, size=4096, kept=True)
    rates: list[list[float]] = [[] for _ in servers]
    with plan.disk.fresh() as root, ExitStack() as stack:
        for number, (server, size) in enumerate(zip(servers, sizes, strict=True)):
            users = replace(load, spread=size.accounts).users()
            start(plan, stack, server, root / str(number), users)
            for user in users[: size.targets]:
                server.make_maildir(user)
                if size.held:
                    fill(server.maildir(user) / "new", size.held)
        messages = 300
        for number in range(plan.rounds + 1):
            for server, size, of_server in zip(servers, sizes, rates, strict=True):
                rate = _rate(plan, server, replace(load, messages=messages, spread=size.targets))
                if number:
                    of_server.append(rate)
            if not number:  # the first has warmed up
                messages = max(messages, int(rate * plan.seconds))
    return [statistics.median(each) for each in rates]


def _rate(plan: Plan, server: Server, load: Load) -> float:
    folders = server.folders(load.users())
    before = count_files(folders)
    plan.disk.sync()
    seconds = plan.generators.send(load, server.port).seconds
    if count_files(folders) != before + load.messages:
        raise BenchError(f"{server.name}: not all of {load.messages} messages have arrived")
    return load.messages / seconds


def fill(folder: Path, number: int) -> None:
    """So many messages in a folder of a Maildir: empty files, whose names tell a size."""
    names = (f"{1_000_000_000 + each}.M{each}P1Q{each}.bench,S=4096,W=4200" for each in range(number))
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _link_all(descriptor, names)
    finally:
        os.close(descriptor)


def _link_all(folder: int, names: Iterator[str]) -> None:
    source = ""
    for position, name in enumerate(names):
        if position % _LINKS == 0:
            source = name
            os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=folder))
        else:
            os.link(source, name, src_dir_fd=folder, dst_dir_fd=folder)
