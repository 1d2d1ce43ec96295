"""
Child processes of ours, whatever they do: how they talk, what they begin with, how they end, and when one that has
died is started again.

In: octets from a pipe, an environment, the reason of an end.  Out: messages (JSON objects, one on a line), texts,
seconds.  Used by the workers (`workers`) and by the apps with a process of their own (`apps.isolated`).
Failures: a line that is no message, or has no end, is ValueError.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from twisted.internet.error import ProcessDone, ProcessTerminated

#: Octets of a message; counts of workers with their busiest clients have some 100 KiB.
MAX_MESSAGE = 16 * 1024 * 1024
#: What a child has no business with: its parent talks to systemd.
NOT_INHERITED = ("NOTIFY_SOCKET", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "WATCHDOG_PID", "WATCHDOG_USEC")
#: Seconds until what has died is started again: the first time, and at most.
FIRST_DELAY, MOST_DELAY = 0.1, 30.0
#: Who has served for so many seconds has nothing to do with the deaths before.
RAN_WELL = 60.0


def line_of(message: Mapping[str, Any]) -> bytes:
    """A message as it crosses the pipe.  Raises TypeError, ValueError: it holds what JSON has not."""
    return json.dumps(message).encode() + b"\n"


@dataclass(slots=True)
class Lines:
    """Puts what comes through a pipe together to messages.  most: octets of one, `MAX_MESSAGE` by default."""

    most: int = 0
    _parts: list[bytes] = field(default_factory=list)

    def feed(self, octets: bytes) -> Iterator[dict[str, Any]]:
        """The messages that are whole now.  Raises ValueError."""
        most = self.most or MAX_MESSAGE
        self._parts.append(octets)
        if b"\n" not in octets:
            if sum(map(len, self._parts)) > most:
                raise ValueError("a message between two processes is too long")
            return
        *lines, rest = b"".join(self._parts).split(b"\n")
        self._parts = [rest] if rest else []
        for line in lines:
            if len(line) > most:
                raise ValueError("a message between two processes is too long")
            try:
                message = json.loads(line)
            except RecursionError:
                raise ValueError("a message between two processes is nested too deeply") from None
            if not isinstance(message, dict):
                raise ValueError(f"no message: {line[:60]!r}")  # noqa: TRY004 - one kind of error for what is none
            yield message


def environment(environ: Mapping[str, str], path: Sequence[str]) -> dict[str, str]:
    """The environment of a child.  path: where the parent finds modules, and so the child finds the same ones."""
    kept = {name: value for name, value in environ.items() if name not in NOT_INHERITED}
    return {**kept, "PYTHONPATH": os.pathsep.join(path)}


def restart_delay(row: int) -> float:
    """Seconds to wait before the next start.  row: deaths one after the other, this one included."""
    return float(min(FIRST_DELAY * 2.0 ** min(max(row, 1) - 1, 30), MOST_DELAY))


def how_it_ended(reason: Any) -> str:
    """What Twisted tells of the end of a process, in words."""
    if isinstance(reason, ProcessTerminated) and reason.signal is not None:
        return f"signal {reason.signal} ({signal.Signals(reason.signal).name})"
    if isinstance(reason, ProcessDone | ProcessTerminated):
        return f"exit status {reason.exitCode}"
    return str(reason)
