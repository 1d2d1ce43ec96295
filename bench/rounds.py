"""
The rounds of one workload: all servers in turns, on a fresh file system.

In: a `Plan` and a `Workload`.  Out: `Figures` for each server.
Servers are started on an empty file system and warmed up with mail of their own; then, round by round, each in turn
gets its load, for mailboxes that nobody has written to; the first in one round is the last in the next.  Nothing is
deleted: when the room runs out, the next round begins on an empty file system again.  What a server has left to be
written back is written before the next one begins.  Each server gets as many messages as keep it busy for about the
same time.  A message is done when it lies in its Maildir, whole; sizes are looked at in every round, every octet in
the round that is observed.
Failures: BenchError or DamagedError: a server did not start, a message was refused, or is not there.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench import processes
from bench.disk import Disk
from bench.figures import Figures, Observation, Round, longest_stall
from bench.load import Generators, Load
from bench.peers import Place, Server
from bench.run import BenchError
from bench.syncs import counting
from bench.texts import verify
from bench.workloads import Workload

#: Whose mail only warms up, and whose is observed.
WARM, OBSERVED = "warm", "watched"
#: Seconds that delivery may take after the last message was accepted.
_PATIENCE = 300.0
_FEWEST = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """
    What all workloads share.  servers: makes them, fresh.  seconds: that a round should keep a server busy.
    say: told what is going on.
    """

    disk: Disk
    generators: Generators
    servers: Callable[[], list[Server]]
    certificate: Path
    key: Path
    rounds: int
    seconds: float
    say: Callable[[str], None]


@contextmanager
def running(plan: Plan, servers: Sequence[Server], users: Sequence[str], connections: int = 1000) -> Iterator[None]:
    """The servers, started on a fresh file system, until the end of the block."""
    with plan.disk.fresh() as root, ExitStack() as stack:
        for server in servers:
            start(plan, stack, server, root / server.name, users, connections)
        yield


def start(
    plan: Plan, stack: ExitStack, server: Server, directory: Path, users: Sequence[str], connections: int = 1000
) -> None:
    """A server in a directory of its own, until the stack is unwound."""
    directory.mkdir(mode=0o755)
    stack.callback(server.stop)
    server.start(Place(directory, users, plan.certificate, plan.key, connections))


def count_files(folders: Sequence[Path]) -> int:
    """How many files there are; a folder that is not there yet has none."""
    total = 0
    for folder in folders:
        try:
            with os.scandir(folder) as entries:
                total += sum(1 for _ in entries)
        except FileNotFoundError:
            continue
    return total


def files_of(server: Server, load: Load) -> int:
    """How many files this load becomes."""
    return load.messages * (load.recipients if server.file_for_each else 1)


def await_files(folders: Sequence[Path], wanted: int, begun: float) -> None:
    """
    Wait until so many files are there.  Looking costs processor time that the servers need: the wait between two
    looks is a part of what the rate so far says is left.  begun: when the load did (time.perf_counter).
    """
    deadline = time.perf_counter() + _PATIENCE
    while (found := count_files(folders)) < wanted:
        now = time.perf_counter()
        if now > deadline:
            raise BenchError(f"{wanted} files must be there, {found} are")
        left = (wanted - found) * (now - begun) / max(found, 1)
        time.sleep(min(max(left / 4, 0.01), 1.0))


def timed(plan: Plan, server: Server, load: Load) -> Round:
    """One load for one server, whose mailboxes have nothing else for these users."""
    folders, wanted = server.folders(load.users()), files_of(server, load)
    wanted += count_files(folders)  # aiosmtpd has one for everybody
    plan.disk.sync()
    cpu, flushes = processes.cpu_seconds(server.pid), plan.disk.flushes()
    everybody = processes.machine_seconds() - ours()
    begun = time.perf_counter()
    sent = plan.generators.send(load, server.port)
    accepted = delivered = sent.seconds
    if count_files(folders) < wanted:
        await_files(folders, wanted, begun)
        delivered = time.perf_counter() - begun
    flushes = plan.disk.flushes() - flushes
    synced = time.perf_counter()
    plan.disk.sync()
    settled = delivered + time.perf_counter() - synced
    cpu = processes.cpu_seconds(server.pid) - cpu
    everybody = processes.machine_seconds() - ours() - everybody
    took = time.perf_counter() - begun
    check_sizes(folders, wanted, load.size)
    return Round(
        messages=load.messages,
        accepted=accepted,
        delivered=delivered,
        settled=settled,
        cpu=cpu,
        flushes=flushes,
        memory=processes.memory(server.pid),
        others=max(0.0, everybody - cpu) / (took * (os.cpu_count() or 1)),
    )


def ours() -> float:
    """Processor time of the benchmark itself and of the load."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def check_sizes(folders: Sequence[Path], count: int, size: int) -> None:
    """As many files as there must be, and none is shorter than its message (line ends may have become shorter)."""
    sizes = [entry.stat().st_size for folder in folders for entry in os.scandir(folder)]
    least = size * 0.95
    if len(sizes) != count or min(sizes) < least:
        raise BenchError(
            f"{count} files of {size} octets must be there, {len(sizes)} are, the smallest has {min(sizes)}"
        )


def observed(plan: Plan, server: Server, load: Load) -> Observation:
    """The same load once more with numbered messages: latencies and syncs; then every message is read."""
    before = set(all_files(server, load))
    with counting(plan.disk.number(), processes.tree(server.pid)) as syncs:
        begun = time.perf_counter()
        timing = plan.generators.observe(load, server.port)
        await_files(server.folders(load.users()), len(before) + files_of(server, load), begun)
    copies = files_of(server, load) // load.messages
    verify(
        [path for path in all_files(server, load) if path not in before], load.messages, copies, load.size, load.user
    )
    assert timing.p50 is not None
    assert timing.p99 is not None
    return Observation(
        p50=timing.p50,
        p99=timing.p99,
        syncs=None if syncs.number is None else syncs.number / load.messages,
        tool=syncs.tool,
        stall=longest_stall(server.statistics()),
    )


def all_files(server: Server, load: Load) -> list[Path]:
    """What lies in the mailboxes of a load."""
    return [path for folder in server.folders(load.users()) if folder.exists() for path in folder.iterdir()]


def measure(plan: Plan, workload: Workload) -> list[Figures]:
    """All rounds of all servers, and the one that is observed."""
    load, counts = workload.load, dict[str, int]()
    names = [f"{load.user}{number}" for number in range(plan.rounds)]
    users = [user for name in (*names, WARM, OBSERVED) for user in load.of(1, name).users()]
    found: dict[str, list[Round]] = {server.name: [] for server in plan.servers()}
    while names:
        servers = plan.servers()
        with running(plan, servers, users):
            for server in servers:
                rate = warm_up(plan, server, load)
                counts.setdefault(server.name, messages_for(rate, plan.seconds, workload.most))
            for _ in range(rounds_that_fit(plan.disk.size, [(each, load.of(counts[each.name])) for each in servers])):
                number = plan.rounds - len(names)
                for server in turn(servers, number):
                    done = timed(plan, server, load.of(counts[server.name], names[0]))
                    found[server.name].append(done)
                    plan.say(f"  round {number + 1}: {server.name} {done.messages / done.delivered:,.0f}/s")
                del names[0]
                if not names:
                    break
    servers = plan.servers()
    observations = {}
    with running(plan, servers, users):
        for server in servers:
            warm_up(plan, server, load)
            plan.disk.sync()
            messages = max(_FEWEST, counts[server.name] // 2)
            observations[server.name] = observed(plan, server, load.of(messages, OBSERVED))
    return [Figures(each.name, each.durable, found[each.name], observations[each.name]) for each in servers]


def rounds_that_fit(size: int, loads: Sequence[tuple[Server, Load]]) -> int:
    """How many rounds the file system has room for; at least one."""
    each = sum(load.messages * server.copies(load.recipients) * (load.size + 8192) for server, load in loads)
    return max(1, size // 2 // each)


def warm_up(plan: Plan, server: Server, load: Load) -> float:
    """Some messages, until they are delivered, twice: the first find out how many a second to expect."""
    messages, rate = 20 if load.size > 2**19 else 200, 0.0
    for _ in range(2):
        warm = load.of(messages, WARM)
        folders = server.folders(warm.users())
        wanted = count_files(folders) + files_of(server, warm)
        begun = time.perf_counter()
        plan.generators.send(warm, server.port)
        await_files(folders, wanted, begun)
        rate = messages / (time.perf_counter() - begun)
        messages = min(messages_for(rate, plan.seconds / 4, 100_000), 10 * messages)
    return rate


def messages_for(rate: float, seconds: float, most: int) -> int:
    """As many as take about so long; a round number."""
    wanted = min(max(rate * seconds, _FEWEST), most)
    step = 10 if wanted < 1000 else 100
    return int(wanted // step * step)


def turn(servers: Sequence[Server], number: int) -> list[Server]:
    """In another order in each round, so that none is always the first."""
    first = number % len(servers)
    return [*servers[first:], *servers[:first]]
