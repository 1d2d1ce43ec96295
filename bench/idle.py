"""
Workload (g): what an idle connection costs in memory, plain and with TLS.

In: a `Plan`.  Out: `IdleFigures` for each server: how many connections stood, PSS before and with them.
PSS is the memory of the processes; what the kernel keeps for a socket is not in it.  The clients have said EHLO, and
come from several addresses of loopback, as no server lets one client have ten thousand.
Postfix has a process for each connection, so it is shown with fewer.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from bench import processes
from bench.peers import Server
from bench.rounds import Plan, running

CONNECTIONS = 10_000
#: Of Postfix: below its process limit.
CONNECTIONS_OF_POSTFIX = 150
#: Of one source address.
_EACH = 40
#: Connections before the first look, so that what the first one brings in is not counted.
_WARM = 100


@dataclass(frozen=True, slots=True)
class IdleFigures:
    """before, during: PSS in octets."""

    server: str
    tls: bool
    connections: int
    before: int
    during: int

    @property
    def each(self) -> float:
        """Octets of one connection."""
        return (self.during - self.before) / self.connections

    def as_json(self) -> dict[str, object]:
        """For the file of `--json`."""
        return {
            "server": self.server,
            "tls": self.tls,
            "connections": self.connections,
            "memory_before_octets": self.before,
            "memory_with_them_octets": self.during,
            "octets_each": self.each,
        }


def measure_idle(plan: Plan, connections: int = CONNECTIONS) -> list[IdleFigures]:
    """All servers, plain and with TLS, each started afresh."""
    found = []
    for tls in (False, True):
        for server in plan.servers():
            # Twice as many may come: near their limit servers become impatient.
            with running(plan, [server], ["bench"], connections * 2):
                number = min(connections, CONNECTIONS_OF_POSTFIX if server.name == "postfix" else connections)
                done = _measure(plan, server, number, tls=tls)
            found.append(done)
            plan.say(f"  {server.name}{', TLS' if tls else ''}: {done.each / 1024:,.1f} KiB each")
    return found


def _measure(plan: Plan, server: Server, number: int, *, tls: bool) -> IdleFigures:
    with plan.generators.idle(server.port, min(_WARM, number), _WARM // _EACH + 1, tls=tls):
        pass
    time.sleep(1)
    before = processes.memory(server.pid)
    with plan.generators.idle(server.port, number, number // _EACH + 1, tls=tls):
        time.sleep(1)
        during = processes.memory(server.pid)
    return IdleFigures(server.name, tls, number, before, during)
