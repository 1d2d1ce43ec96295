"""
The machine on which it was measured, in lines for the report.

In: /proc, the disk, the servers.  Out: texts.  No names of hosts, users or paths.
"""

from __future__ import annotations

import os
import platform
import re
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from bench.disk import Disk
from bench.peers import Server
from bench.run import BenchError, run

#: Synchronous writes of 4 KiB that show what the disk can do.
_WRITES = 500


def describe(disk: Disk, servers: Sequence[Server]) -> list[str]:
    """One fact a line."""
    with disk.fresh() as root:
        rate = sync_rate(root)
    software = [f"Linux {platform.release().split('-')[0]}", distribution(), f"Python {platform.python_version()}"]
    software += [f"Twisted {version('twisted')}", openssl()]
    lines = [
        f"{os.cpu_count()} processors: {model(Path('/proc/cpuinfo').read_text())}",
        f"{memory(Path('/proc/meminfo').read_text()):.0f} GiB of memory",
        ", ".join(software),
        f"disk: {disk.describe()}; {rate:,.0f} writes of 4 KiB a second with an fdatasync each, one after the other",
    ]
    return [*lines, *(f"{server.name} {server.version()}" for server in servers)]


def model(cpuinfo: str) -> str:
    """The model that /proc/cpuinfo names."""
    found = re.search(r"^model name\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    return found[1].strip() if found else platform.machine()


def memory(meminfo: str) -> float:
    """GiB, as /proc/meminfo has them."""
    found = re.search(r"^MemTotal:\s*(\d+) kB$", meminfo, re.MULTILINE)
    return int(found[1]) / 2**20 if found else 0.0


def distribution() -> str:
    """Debian and the like."""
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")
    except OSError:
        return "Linux"


def openssl() -> str:
    """Of the generator and of Postfix; Python may have another."""
    try:
        return " ".join(run(["openssl", "version"]).split()[:2])
    except BenchError:
        return "no openssl"


def sync_rate(root: Path) -> float:
    """How many synchronous writes a second the disk takes from one who waits for each."""
    descriptor = os.open(root / "probe", os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        os.pwrite(descriptor, bytes(4096 * _WRITES), 0)
        os.fsync(descriptor)
        begun = time.perf_counter()
        for number in range(_WRITES):
            os.pwrite(descriptor, b"x" * 4096, number * 4096)
            os.fdatasync(descriptor)
        return _WRITES / (time.perf_counter() - begun)
    finally:
        os.close(descriptor)
