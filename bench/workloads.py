"""
What is measured: the workloads (a) to (f).  (g) is bench/idle.py, (h) is bench/growth.py.

A table; the goals are ratios to Postfix in the same run: the floor, and what to reach for.
"""

from __future__ import annotations

from dataclasses import dataclass

from bench.load import Load

KIB = 1024
MIB = 1024 * KIB


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """
    key: its letter.  title: for people.  load: without a number of messages.  most: messages in a round at most, for
    the room on the disk.  floor, reach: the goals.
    """

    key: str
    title: str
    load: Load
    most: int
    floor: float
    reach: float


WORKLOADS = (
    Workload(
        key="a",
        title="4 KiB, a new connection for each message",
        load=Load(messages=1, size=4 * KIB),
        most=60_000,
        floor=5,
        reach=7,
    ),
    Workload(
        key="b",
        title="4 KiB, kept connections",
        load=Load(messages=1, size=4 * KIB, kept=True),
        most=60_000,
        floor=7,
        reach=10,
    ),
    Workload(
        key="b100",
        title="4 KiB, kept connections",
        load=Load(messages=1, size=4 * KIB, kept=True, parallel=100),
        most=60_000,
        floor=10,
        reach=14,
    ),
    Workload(
        key="c",
        title="1 MiB, kept connections",
        load=Load(messages=1, size=MIB, kept=True),
        most=800,
        floor=2,
        reach=2.5,
    ),
    Workload(
        key="d",
        title="50 KiB to 10 recipients, kept connections",
        load=Load(messages=1, size=50 * KIB, recipients=10, kept=True),
        most=12_000,
        floor=7,
        reach=10,
    ),
    Workload(
        key="e",
        title="4 KiB, a new connection with a STARTTLS handshake for each message",
        load=Load(messages=1, size=4 * KIB, tls=True),
        most=60_000,
        floor=2.2,
        reach=3,
    ),
    Workload(
        key="f",
        title="4 KiB, kept TLS connections",
        load=Load(messages=1, size=4 * KIB, kept=True, tls=True),
        most=60_000,
        floor=5,
        reach=6,
    ),
)
BY_KEY = {workload.key: workload for workload in WORKLOADS}
#: With those that are no load of messages.
KEYS = (*BY_KEY, "g", "h")
