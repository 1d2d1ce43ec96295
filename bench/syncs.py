"""
How often a server asks for durability: fsync and its kin on the measured file system.

In: the device and the processes, while a load runs.  Out: a count, and how it was made.
perf counts ext4's own trace points (fsync, fdatasync, synchronous writes and those of kernel AIO alike; syncfs), and
costs next to nothing.  Where it cannot, strace counts system calls; it slows the server down, so that fewer messages
share a sync than at full speed.  Without both nothing is counted.
"""

from __future__ import annotations

import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench.run import PATIENCE

POINTS = ("ext4:ext4_sync_file_enter", "ext4:ext4_sync_fs")
_CALLS = "fsync,fdatasync,syncfs,sync,sync_file_range,io_submit"
_CALL = re.compile(r"\b(?:fsync|fdatasync|syncfs|sync|sync_file_range)\(")
#: Operations within an io_submit.
_ASYNCHRONOUS = re.compile(r"IOCB_CMD_FD?SYNC|RWF_D?SYNC")


class Count:
    """number: None when nothing could count.  tool: what has counted."""

    def __init__(self) -> None:
        self.number: int | None = None
        self.tool = ""


def perf_command(device: int, points: Sequence[str] = POINTS) -> list[str]:
    """Counts until it is interrupted; on one file system only."""
    command = ["perf", "stat", "-a", "-x,"]
    for point in points:
        command += ["-e", point, "--filter", f"dev == {device}"]
    return command


def perf_total(text: str) -> int | None:
    """The sum of what `perf stat -x,` prints; None when it has counted nothing at all."""
    counts = [line.split(",")[0] for line in text.splitlines() if "ext4:" in line]
    if not counts or not all(count.isdigit() for count in counts):
        return None
    return sum(map(int, counts))


def strace_total(lines: Iterable[str]) -> int:
    """The calls in an output of strace.  One printed in two lines (another thread came) counts once."""
    total = 0
    for line in lines:
        if "resumed>" not in line:
            total += len(_CALL.findall(line)) + len(_ASYNCHRONOUS.findall(line))
    return total


@contextmanager
def _tracing(command: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        time.sleep(0.5)  # until it has attached itself; neither of them says so
        yield process
        if process.poll() is None:
            process.send_signal(signal.SIGINT)


@contextmanager
def counting(device: int, pids: Sequence[int]) -> Iterator[Count]:
    """What the block causes; the count is there after its end."""
    count = Count()
    if _works(["perf", "stat", "-a", "-x,", "-e", POINTS[0], "true"]):
        with _tracing(perf_command(device)) as process:
            yield count
            process.send_signal(signal.SIGINT)
            count.number, count.tool = perf_total(process.communicate(timeout=PATIENCE)[1]), "perf"
    elif _works(["strace", "-V"]):
        with tempfile.TemporaryDirectory(prefix="mailserver-bench-") as directory:
            output = Path(directory) / "calls"
            command = ["strace", "-f", "-e", f"trace={_CALLS}", "-o", str(output)]
            for pid in pids:
                command += ["-p", str(pid)]
            with _tracing(command) as process:
                yield count
                process.send_signal(signal.SIGINT)
                process.communicate(timeout=PATIENCE)
            with output.open() as lines:
                count.number, count.tool = strace_total(lines), "strace"
    else:
        yield count


def _works(command: Sequence[str]) -> bool:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    except FileNotFoundError:
        return False
    return done.returncode == 0 and "not supported" not in done.stderr
