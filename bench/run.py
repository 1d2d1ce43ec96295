"""
Programs of others: run one to its end, wait for what one brings about.

Out: `BenchError`, whose text is for the user, when something does not go as it must; it ends the benchmark.
"""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Callable, Sequence

#: Seconds that a server may take to start or stop, and a program to run.
PATIENCE = 60.0


class BenchError(Exception):
    """The benchmark cannot go on; `str()` says why."""


def run(command: Sequence[str], given: bytes | None = None, patience: float = PATIENCE) -> str:
    """What the program prints.  Raises BenchError when it cannot be run, fails, or takes too long."""
    try:
        done = subprocess.run(
            command,
            input=given,
            stdin=subprocess.DEVNULL if given is None else None,
            capture_output=True,
            timeout=patience,
            check=False,
        )
    except FileNotFoundError as error:
        raise BenchError(f"{command[0]} is not installed") from error
    except subprocess.TimeoutExpired as error:
        raise BenchError(f"{command[0]} did not end within {patience:g} s") from error
    if done.returncode != 0:
        said = (done.stderr or done.stdout).decode("utf-8", "replace").strip()
        raise BenchError(f"{' '.join(command)}: exit status {done.returncode}\n{said[-2000:]}")
    return done.stdout.decode("utf-8", "replace")


def await_true(condition: Callable[[], bool], what: str, patience: float = PATIENCE) -> None:
    """Look again until it is so.  Raises BenchError."""
    deadline = time.monotonic() + patience
    while not condition():
        if time.monotonic() > deadline:
            raise BenchError(f"{what}: not within {patience:g} s")
        time.sleep(0.02)


def free_port() -> int:
    """A port that was free just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(port: int) -> bool:
    """Does somebody greet there?"""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.settimeout(5)
            return connection.recv(3) == b"220"
    except OSError:
        return False
