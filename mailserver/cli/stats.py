"""
`mailserver stats`: what the running server has counted.

In: the data directory of the configuration, whose server is asked.  Out: text for people, or JSON.
Exit status 1 when no server runs, or it does not answer.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import click

from mailserver.cli.main import config_of
from mailserver.config.quantities import render_size

#: How many kinds of refusal are shown to people.
MOST_REFUSALS = 20


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object, for programs.")
@click.pass_context
def stats(ctx: click.Context, *, as_json: bool) -> None:
    """
    Show what the running server has counted since its start.

    Connections, messages, refusals by reply, logins, and the busiest clients. Nothing is kept over a restart.
    """
    from mailserver.control import FILE_NAME, ControlError, ask

    try:
        told = ask(config_of(ctx).server.data_dir / FILE_NAME, "stats")
    except ControlError as error:
        raise click.ClickException(str(error)) from error
    click.echo(json.dumps(told, indent=2) if as_json else "\n".join(_page(told)))


def _page(told: Mapping[str, Any]) -> Iterator[str]:
    """The lines for people.  What the server does not tell (it may be of another version) is left out."""
    version = f"mailserver {told['version']}, " if "version" in told else ""
    yield f"{version}process {told.get('pid', '?')}, up {duration(told.get('uptime', 0))}"
    connections, messages = _table(told, "connections"), _table(told, "messages")
    yield (
        f"connections  {_number(connections, 'now')} now, {_number(connections, 'most')} at most, "
        f"{_number(connections, 'total')} in all, {_number(connections, 'turned_away')} turned away"
    )
    yield (
        f"messages     {_number(messages, 'accepted')} accepted ({_size(messages.get('octets', 0))}), "
        f"{_number(messages, 'refused')} refused"
    )
    recipients, auth = _table(told, "recipients"), _table(told, "auth")
    yield f"recipients   {_number(recipients, 'accepted')} accepted, {_number(recipients, 'refused')} refused"
    yield f"logins       {_number(auth, 'succeeded')} succeeded, {_number(auth, 'failed')} failed"
    reactor = _table(told, "reactor")
    if reactor:
        longest = reactor.get("longest_stall", 0) * 1000
        yield f"reactor      stopped for {longest:,.0f} ms at most, {_number(reactor, 'stalls')} times over 50 ms"
    yield from _workers(told)
    columns = ("now", "most", "connections", "turned_away", "accepted", "refused")
    rows = [(name, *(_number(each, key) for key in columns)) for name, each in _table(told, "listeners").items()]
    yield from _rows(("listener", "now", "most", "connections", "turned away", "accepted", "refused"), rows)
    yield from _rows(
        ("app", "calls", "refused", "failed", "timeouts", "restarts", "longest stall", "in"),
        list(_apps(_table(told, "apps"))),
    )
    refusals = list(_table(told, "refusals").items())[:MOST_REFUSALS]
    yield from _rows(("refused with", "times"), [(reply, f"{count:,}") for reply, count in refusals])
    clients = _table(told, "clients")
    of_client = ("connections", "messages", "refused", "failures")
    for key, title in (("by_connections", "busiest clients"), ("by_failures", "failed logins of")):
        rows = [(each.get("client", "?"), *(_number(each, of) for of in of_client)) for each in clients.get(key, [])]
        yield from _rows((title, "connections", "messages", "refused", "failed logins"), rows)


def _apps(told: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """A row for each app: the stall is the longest time for which one of its callbacks held up everybody else."""
    for name, each in told.items():
        stall = f"{each.get('longest_stall', 0) * 1000:,.0f} ms"
        numbers = (_number(each, key) for key in ("calls", "refused", "failed", "timeouts", "restarts"))
        yield (name, *numbers, stall, str(each.get("longest_in", "")) or "-")


def _workers(told: Mapping[str, Any]) -> Iterator[str]:
    """A table where several processes serve."""
    rows = [
        (
            str(each.get("worker", "?")),
            str(each.get("pid", "?")),
            str(each.get("state", "?")),
            duration(each.get("uptime", 0)),
            _number(each, "restarts"),
            _number(each, "connections"),
        )
        for each in told.get("workers") or ()
    ]
    yield from _rows(("worker", "process", "state", "since", "restarts", "connections"), rows)


def _table(told: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    table = told.get(key)
    return table if isinstance(table, Mapping) else {}


def _number(table: Mapping[str, Any], key: str) -> str:
    return f"{table.get(key, 0):,}"


def _size(octets: int) -> str:
    """About how much: two digits behind the point at most."""
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if octets >= size:
            return f"{octets / size:,.1f} {unit}"
    return render_size(octets)


def duration(seconds: float) -> str:
    """A time for a reader, in its two largest units: "3 d 4 h", "5 min 2 s"."""
    whole = int(seconds)
    parts: list[str] = []
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1)):
        if whole >= size or (unit == "s" and not parts):
            parts.append(f"{whole // size:,} {unit}")
            whole %= size
    return " ".join(parts[:2])


def _rows(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """A table behind an empty line: the first column to the left, the others to the right; nothing without rows."""
    if not rows:
        return
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    yield ""
    for row in (head, *rows):
        cells = [
            row[0].ljust(widths[0]),
            *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)),
        ]
        yield "  ".join(cells).rstrip()
