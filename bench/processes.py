"""
What the processes of a server take: processor time and memory of a whole tree.

In: the id of the first process, and /proc (another folder in tests).  Out: seconds, octets.
A child that has ended is in the times of the parent that waited for it (`cutime`, `cstime`), so the sum over the
living is the whole: proc(5).  Memory is PSS: what processes share is divided among them, so that it can be added up.
What the kernel does in threads of its own (the journal of the file system, the loop device) is in neither.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
#: Positions in /proc/PID/stat behind the name in brackets: parent, utime, stime, cutime, cstime.
_PARENT, _TIMES = 1, slice(11, 15)


@dataclass(frozen=True, slots=True)
class _Stat:
    parent: int
    ticks: int


def _stat(pid: int, proc: Path) -> _Stat | None:
    """None when it has ended."""
    try:
        text = (proc / str(pid) / "stat").read_text("utf-8", "replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return _Stat(int(fields[_PARENT]), sum(map(int, fields[_TIMES])))


def _living(proc: Path) -> dict[int, _Stat]:
    found = {int(entry.name): _stat(int(entry.name), proc) for entry in os.scandir(proc) if entry.name.isdigit()}
    return {pid: stat for pid, stat in found.items() if stat is not None}


def _descent(root: int, living: dict[int, _Stat]) -> list[int]:
    children: dict[int, list[int]] = {}
    for pid, stat in living.items():
        children.setdefault(stat.parent, []).append(pid)
    found, waiting = [], [root] if root in living else []
    while waiting:
        pid = waiting.pop()
        found.append(pid)
        waiting += children.get(pid, ())
    return sorted(found)


def tree(root: int, proc: Path = PROC) -> list[int]:
    """The process and all below it that are alive."""
    return _descent(root, _living(proc))


def cpu_seconds(root: int, proc: Path = PROC, ticks_a_second: int | None = None) -> float:
    """The processor time that the tree has taken until now, its children that have ended included."""
    living = _living(proc)
    ticks = sum(living[pid].ticks for pid in _descent(root, living))
    return ticks / (ticks_a_second or os.sysconf("SC_CLK_TCK"))


def machine_seconds(proc: Path = PROC, ticks_a_second: int | None = None) -> float:
    """The time that all processors of the machine were busy, or taken away by the host of a virtual one."""
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, (proc / "stat").read_text().split()[1:9])
    return (user + nice + system + irq + softirq + steal) / (ticks_a_second or os.sysconf("SC_CLK_TCK"))


def memory(root: int, proc: Path = PROC) -> int:
    """PSS of the tree, in octets."""
    total = 0
    for pid in tree(root, proc):
        try:
            lines = (proc / str(pid) / "smaps_rollup").read_text().splitlines()
        except OSError:
            continue  # it has ended meanwhile
        total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    return total
