"""
Workload (h): does the server become slower as it grows?

In: a `Plan`.  Out: `GrowthFigures`: messages per second for each size, of our server alone.
Three series, all 4 KiB over 20 kept connections: more and more accounts, of which ten get mail; as many, of which all
get mail (then the file system has to go to a new directory for each message); mailboxes that hold more and more
messages. What is there before is made without content, as it is names that count: hard links to a few empty files.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.load import Load
from bench.peers import Server
from bench.rounds import Plan, count_files, running
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


def measure_growth(plan: Plan) -> list[GrowthFigures]:
    """The three series of each variant of our server that was asked for."""
    found = []
    for position, first in enumerate(plan.servers()):
        if not first.name.startswith("mailserver"):
            continue
        for series, sizes, measure in (
            ("accounts, mail for ten of them", ACCOUNTS, _few_of),
            ("accounts, mail for all of them", ACCOUNTS, _all_of),
            ("messages held by a mailbox", HELD, _holding),
        ):
            rates = []
            for size in sizes:
                rates.append(measure(plan, plan.servers()[position], size))
                plan.say(f"  {first.name}, {series}: {size:,}: {rates[-1]:,.0f}/s")
            found.append(GrowthFigures(first.name, series, sizes, tuple(rates)))
    return found


def _few_of(plan: Plan, server: Server, accounts: int) -> float:
    return _rate(plan, server, accounts, _TARGETS)


def _all_of(plan: Plan, server: Server, accounts: int) -> float:
    return _rate(plan, server, accounts, accounts)


def _holding(plan: Plan, server: Server, held: int) -> float:
    return _rate(plan, server, _TARGETS, _TARGETS, lambda folder: fill(folder, held // _TARGETS))


def _rate(
    plan: Plan, server: Server, accounts: int, targets: int, prepare: Callable[[Path], object] | None = None
) -> float:
    """Messages per second: the median of some loads."""
    load = Load(messages=1, size=4096, kept=True, spread=targets)
    users = load.of(1).users() if targets == accounts else [f"{number}{load.user}" for number in range(accounts)]
    with running(plan, [server], users):
        for user in users[:targets]:
            server.make_maildir(user)
        folders = server.folders(users[:targets])
        if prepare is not None:
            for folder in folders:
                prepare(folder)
        plan.disk.sync()
        messages, rates = 300, []
        for number in range(plan.rounds + 1):
            before = count_files(folders)
            plan.disk.sync()
            begun = time.perf_counter()
            seconds = plan.generators.send(load.of(messages), server.port).seconds
            if count_files(folders) != before + messages:
                raise BenchError(f"{server.name}: not all of {messages} messages have arrived")
            if number:
                rates.append(messages / seconds)
            else:  # the first has warmed up
                messages = max(300, int(messages / (time.perf_counter() - begun) * plan.seconds))
    return statistics.median(rates)


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
