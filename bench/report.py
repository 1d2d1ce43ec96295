"""
The results, for people: tables as text and as Markdown, and the section of docs/performance.md.

Pure, but for `update`: figures in, text out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.figures import Figures, ratio
from bench.growth import GrowthFigures
from bench.idle import IdleFigures
from bench.run import BenchError
from bench.workloads import Workload

#: Between these lines a page has what the benchmark writes.
BEGIN = "<!-- begin: written by python -m bench -->"
END = "<!-- end: written by python -m bench -->"
NOTHING = "-"


@dataclass(frozen=True, slots=True)
class Section:
    """A title, a table, and lines below it."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()


def loaded(workload: Workload, figures: Sequence[Figures]) -> Section:
    """The table of one of the workloads (a) to (f)."""
    head = (
        "server",
        "accepted/s",
        "delivered/s",
        "slowest - fastest",
        "written back/s",
        "to Postfix",
        "CPU us",
        "syncs",
        "flushes",
        "p50 ms",
        "p99 ms",
        "longest stall ms",
        "memory MiB",
        "durable at the 250",
    )
    load = workload.load
    messages = ", ".join(f"{each.server} {each.rounds[0].messages:,}" for each in figures)
    others = ", ".join(f"{each.server} {each.others:.0%}" for each in figures)
    goal = f"Goal: {workload.floor:g} times Postfix, to reach for: {workload.reach:g}."
    return Section(
        f"({workload.key}) {workload.title}, {load.parallel} parallel",
        head,
        [_row(each, figures) for each in figures],
        (
            f"{goal} Medians of {len(figures[0].rounds)} rounds; messages in each: {messages}.",
            f"Kernel threads for the disk, and all others on the machine, took of the processors: {others}.",
        ),
    )


def _row(figures: Figures, everybody: Sequence[Figures]) -> list[str]:
    observed = figures.observed
    slowest, fastest = figures.range
    to_postfix = ratio(figures, everybody)
    return [
        figures.server,
        f"{figures.accepted:,.0f}",
        f"{figures.delivered:,.0f}",
        f"{slowest:,.0f} - {fastest:,.0f}",
        f"{figures.settled:,.0f}",
        NOTHING if to_postfix is None else f"{to_postfix:.2f}",
        f"{figures.cpu:,.0f}",
        NOTHING if observed.syncs is None else f"{observed.syncs:.2f}",
        f"{figures.flushes:.2f}",
        f"{observed.p50 * 1000:,.1f}",
        f"{observed.p99 * 1000:,.1f}",
        NOTHING if observed.stall is None else f"{observed.stall * 1000:,.1f}",
        f"{figures.memory / 2**20:,.0f}",
        figures.durable,
    ]


def idle(figures: Sequence[IdleFigures]) -> Section:
    """The table of (g)."""
    rows = [
        [
            each.server,
            "TLS" if each.tls else "plain",
            f"{each.connections:,}",
            f"{each.before / 2**20:,.1f}",
            f"{each.during / 2**20:,.1f}",
            f"{each.each / 1024:,.2f}",
        ]
        for each in figures
    ]
    head = ("server", "connection", "how many", "MiB before", "MiB with them", "KiB each")
    notes = ("PSS of all processes; what the kernel keeps is not in it. Goal: below 4 KiB plain, 32 KiB with TLS.",)
    return Section("(g) Idle connections", head, rows, notes)


def growth(figures: Sequence[GrowthFigures]) -> Section:
    """The table of (h)."""
    rows = [
        [
            each.server,
            each.series,
            *(f"{rate:,.0f} ({size:,})" for size, rate in zip(each.sizes, each.rates, strict=True)),
            f"{each.spread:.0%}",
        ]
        for each in figures
    ]
    head = ("server", "what grows", "messages/s at (size)", "", "", "slowest below fastest")
    return Section("(h) Growth", head, rows, ("4 KiB, 20 kept connections. Goal: flat within 20 %.",))


def as_text(section: Section) -> str:
    """For the terminal."""
    rows = [section.head, *section.rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(section.head))]
    lines = [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return "\n".join([section.title, *lines, *section.notes, ""])


def as_markdown(section: Section) -> str:
    """For a page."""
    lines = [f"### {section.title}", "", *section.notes, ""] if section.notes else [f"### {section.title}", ""]
    lines.append("| " + " | ".join(section.head) + " |")
    lines.append("|---|" + "---:|" * (len(section.head) - 1))
    lines += ["| " + " | ".join(row) + " |" for row in section.rows]
    return "\n".join([*lines, ""])


def page(sections: Sequence[Section], machine: Sequence[str], command: str, plot: str | None) -> str:
    """What stands between the two marks of a page.  plot: the name of the picture."""
    lines = [f"Command: `{command}`", "", "The machine:", *(f"- {line}" for line in machine), ""]
    if plot is not None:
        lines += [f"![Messages per second as a multiple of Postfix]({plot})", ""]
    return "\n".join([*lines, *(as_markdown(section) for section in sections)])


def replaced(text: str, written: str) -> str:
    """A page with another text between its marks.  Raises ValueError when it has no marks."""
    before, begun, rest = text.partition(BEGIN)
    _, ended, after = rest.partition(END)
    if not begun or not ended:
        raise ValueError(f"there are no lines {BEGIN!r} and {END!r}")
    return f"{before}{BEGIN}\n{written.strip()}\n{END}{after}"


def update(path: Path, written: str) -> None:
    """Write into a page.  Raises BenchError."""
    try:
        path.write_text(replaced(path.read_text("utf-8"), written), "utf-8")
    except (OSError, ValueError) as error:
        raise BenchError(f"{path}: {error}") from error
