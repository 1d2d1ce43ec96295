"""
Mail into a program: an app of ours and a handler of aiosmtpd's, each in a process of its own, under the same load.

In: nothing, or options.  Out: a table: messages a second, processor time of the server's process for each message,
and the ratio to aiosmtpd in the same run.  Both programs count the octets and keep nothing.
`python -m bench.programs`; needs smtp-source (Debian: postfix); aiosmtpd is installed from PyPI for the run.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.load import Load, source_command
from bench.peers import Aiosmtpd
from bench.processes import cpu_seconds
from bench.run import answers, await_true, free_port, run

_OURS = """
import sys
from twisted.internet import reactor
import mailserver

async def take(envelope, message):
    octets = 0
    async for block in message.blocks():
        octets += len(block)

limits = {"messages_per_connection": 10000000, "connections_per_client": 1000, "connection_rate": 1000000}
mailserver.listen(take, f"127.0.0.1:{sys.argv[1]}", limits=limits)
reactor.run()
"""
_THEIRS = """
import asyncio, sys
from aiosmtpd.controller import UnthreadedController

class Take:
    async def handle_DATA(self, server, session, envelope):
        octets = len(envelope.content)
        return "250 OK"

async def main():
    Controller = UnthreadedController
    controller = Controller(Take(), hostname="127.0.0.1", port=int(sys.argv[1]), loop=asyncio.get_running_loop(),
                            data_size_limit=52428800)
    await controller._create_server()
    await asyncio.Event().wait()

asyncio.run(main())
"""
#: title -> load
_LOADS = {
    "4 KiB, new connections": Load(messages=2_000, size=4_096),
    "4 KiB, kept connections": Load(messages=4_000, size=4_096, kept=True),
    "1 MiB, kept connections": Load(messages=60, size=1_048_576, kept=True),
}


@dataclass(frozen=True, slots=True)
class Figure:
    """rate: messages a second.  cpu: microseconds of the server's processor time for each message."""

    rate: float
    cpu: float


@contextlib.contextmanager
def program(python: str, text: str) -> Iterator[tuple[int, int]]:
    """A server of this text: (its port, its process)."""
    port = free_port()
    with subprocess.Popen([python, "-c", text, str(port)], stdout=subprocess.DEVNULL) as process:
        try:
            await_true(lambda: answers(port), "the program listens")
            yield port, process.pid
        finally:
            process.terminate()


def once(port: int, pid: int, load: Load) -> Figure:
    """One round of a load."""
    before, begun = cpu_seconds(pid), time.perf_counter()
    run(source_command(load, port), patience=600)
    seconds, used = time.perf_counter() - begun, cpu_seconds(pid) - before
    return Figure(load.messages / seconds, used / load.messages * 1e6)


def medians(figures: Sequence[Figure]) -> Figure:
    """The medians of several rounds."""
    return Figure(statistics.median(each.rate for each in figures), statistics.median(each.cpu for each in figures))


def row(title: str, ours: Figure, theirs: Figure) -> str:
    """A row of the table."""
    return (
        f"| {title} | {ours.rate:,.0f}/s | {theirs.rate:,.0f}/s | {ours.rate / theirs.rate:.1f} "
        f"| {ours.cpu:,.0f} us | {theirs.cpu:,.0f} us | {theirs.cpu / ours.cpu:.1f} |"
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.programs", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="of each server, in turns (default: %(default)s)")
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        environment = Path(folder) / "aiosmtpd"
        Aiosmtpd.install(environment)
        servers = [
            stack.enter_context(program(sys.executable, _OURS)),
            stack.enter_context(program(str(environment / "bin" / "python"), _THEIRS)),
        ]
        print("| mail into a program | ours | aiosmtpd | ratio | our CPU | its CPU | ratio |")
        print("| --- | --- | --- | --- | --- | --- | --- |")
        for title, load in _LOADS.items():
            found: list[list[Figure]] = [[], []]
            for number in range(rounds + 1):
                for server, figures in zip(servers, found, strict=True):
                    figure = once(*server, load)
                    if number:  # the first round is to warm up
                        figures.append(figure)
            print(row(title, *map(medians, found)), flush=True)


if __name__ == "__main__":
    main()
