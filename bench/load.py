"""
The load: Postfix's smtp-source, which knows no server better than another, and bench/generator.c for what it cannot
do.

In: a `Load` and a port.  Out: the seconds until the last message was accepted; from the generator latencies too.
Both keep their connections busy one command at a time, without pipelining.  A message of 4 KiB over a kept connection
costs them about 18 and 28 us of processor time, the text read and thrown away by smtp-sink.
Failures: BenchError, when a message was not accepted.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from bench.peers import DOMAIN
from bench.run import BenchError, run

SOURCE = Path(__file__).with_name("generator.c")
#: Seconds for one load.
_PATIENCE = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """
    What is sent.  messages: in all.  size: octets of each.  recipients: of each.  kept: connections are kept for many
    messages.  tls: STARTTLS.  parallel: connections at the same time.  user: the recipient; several have a number in
    front of it.  spread: over how many accounts; 0: all to the same.
    """

    messages: int
    size: int
    recipients: int = 1
    kept: bool = False
    tls: bool = False
    parallel: int = 20
    user: str = "bench"
    spread: int = 0

    def users(self) -> list[str]:
        """Who gets mail."""
        if self.spread:
            return [f"{number}{self.user}" for number in range(self.spread)]
        # smtp-source numbers them so, and so does the generator: all but one.
        return [self.user, *(f"{number}{self.user}" for number in range(2, self.recipients + 1))]

    def of(self, messages: int, user: str | None = None) -> Load:
        """The same with another number of messages, and for another user."""
        return replace(self, messages=messages, user=self.user if user is None else user)


@dataclass(frozen=True, slots=True)
class Timing:
    """seconds: of the whole load.  p50, p99: latencies in seconds; None when they were not measured."""

    seconds: float
    p50: float | None = None
    p99: float | None = None


def source_command(load: Load, port: int) -> list[str]:
    """How smtp-source is called for this load."""
    if load.tls or load.spread:
        raise ValueError("smtp-source cannot do this")
    command = ["smtp-source", "-s", str(load.parallel), "-m", str(load.messages), "-l", str(load.size)]
    command += ["-M", "bench.example.org", "-f", "sender@example.com", "-t", f"{load.user}@{DOMAIN}"]
    command += ["-d"] * load.kept + ["-r", str(load.recipients)] * (load.recipients > 1)
    return [*command, f"inet:127.0.0.1:{port}"]


def generator_command(program: Path, load: Load, port: int) -> list[str]:
    """How the generator is called for this load."""
    command = [str(program), "-s", str(load.parallel), "-m", str(load.messages), "-l", str(load.size)]
    command += ["-t", f"{load.user}@{DOMAIN}", "-r", str(load.recipients), "-n", str(load.spread)]
    command += ["-k"] * load.kept + ["-T"] * load.tls
    return [*command, str(port)]


class Generators:
    """program: generator.c, compiled by `compile_generator`."""

    def __init__(self, program: Path) -> None:
        self._program = program

    def send(self, load: Load, port: int) -> Timing:
        """With smtp-source where it can."""
        if load.tls or load.spread:
            return self.observe(load, port)
        begun = time.perf_counter()
        run(source_command(load, port), patience=_PATIENCE)
        return Timing(time.perf_counter() - begun)

    def observe(self, load: Load, port: int) -> Timing:
        """With the generator: each message has a number, and its latency is measured."""
        told = json.loads(run(generator_command(self._program, load, port), patience=_PATIENCE))
        return Timing(told["seconds"], told["p50"], told["p99"])

    @contextmanager
    def idle(self, port: int, connections: int, sources: int, *, tls: bool) -> Iterator[None]:
        """So many connections that have said EHLO, until the end of the block."""
        command = [str(self._program), "-I", str(connections), "-b", str(sources), *["-T"] * tls, str(port)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            try:
                if process.stdout.readline() != b"ready\n":
                    raise BenchError(f"the server does not stand {connections} idle connections")
                yield
            finally:
                process.stdin.close()


def compile_generator(directory: Path) -> Path:
    """The program, in that directory.  Needs a C compiler and OpenSSL's headers (Debian: gcc, libssl-dev)."""
    program = directory / "generator"
    run(["cc", "-O2", "-o", str(program), str(SOURCE), "-lssl", "-lcrypto", "-lpthread"])
    return program
