"""Figures of made up rounds, for tests of what is made of them."""

from __future__ import annotations

from bench.figures import Figures, Observation, Round


def a_round(delivered: float, messages: int = 1000) -> Round:
    """A round that delivered in so many seconds."""
    return Round(
        messages=messages,
        accepted=delivered / 2,
        delivered=delivered,
        settled=delivered * 2,
        cpu=0.5,
        flushes=250,
        memory=64 * 2**20,
        others=0.25,
    )


def figures(server: str, *delivered: float, syncs: float | None = 1.5, stall: float | None = None) -> Figures:
    """Of a server whose rounds took so many seconds."""
    observed = Observation(p50=0.002, p99=0.0105, syncs=syncs, tool="perf", stall=stall)
    return Figures(server, "the file", [a_round(each) for each in delivered], observed)
