"""
`mailserver journal`: what the journals hold, and their recovery by hand.

In: the data directory of the configuration.  Out: text for people, or JSON.
`check` reads only, also while the server runs: what is being written then may look torn at the end, and is no damage.
`replay` does what the server does at its start (`durable/recovery.py`), so it needs the locks of all journals.
Exit status 1: `check` has found damage; `replay` could not write something, or the server runs.
Security: run by root, `replay` works as the owner of the data directory, whose the files must be.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mailserver.cli.main import config_of
from mailserver.cli.owner import become_owner

if TYPE_CHECKING:
    from mailserver.config import Config
    from mailserver.durable.recovery import Place

FORMAT = click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", help="Default: text.")


@click.group()
def journal() -> None:
    """Look at the journals of the mail storage; recover them by hand."""


@journal.command()
@FORMAT
@click.pass_context
def check(ctx: click.Context, form: str) -> None:
    """
    Tell what each journal and segment holds, and what is damaged. Nothing is changed.

    Works while the server runs.
    """
    from mailserver.durable.storage import journals

    found = [_look(directory) for directory in journals(config_of(ctx).server.data_dir)]
    click.echo(json.dumps(found, indent=2) if form == "json" else "\n".join(_page(found)))
    if any(segment["damage"] for each in found for segment in each["segments"]):
        ctx.exit(1)


@journal.command()
@FORMAT
@click.pass_context
def replay(ctx: click.Context, form: str) -> None:
    """
    Recover all journals now, without starting the server.

    The server does the same at its start. It must not be running.
    """
    from mailserver.durable.segments import InUse, recovering
    from mailserver.durable.storage import DIRECTORY, journals, recover_alone

    config = config_of(ctx)
    data = config.server.data_dir
    reports: list[dict[str, Any]] = []
    if (data / DIRECTORY).is_dir():
        try:
            become_owner(data)
            place = _place(config)
            with recovering(data / DIRECTORY):
                for directory in journals(data):
                    report = recover_alone(directory, place)
                    reports.append({"journal": str(directory), **dataclasses.asdict(report)})
        except InUse as error:
            raise click.ClickException(
                f"{error}; the server is running, and has recovered them at its start"
            ) from error
        except OSError as error:
            raise click.ClickException(str(error)) from error
    click.echo(json.dumps(reports, indent=2) if form == "json" else "\n".join(_told(reports)))
    if any(each["failed"] for each in reports):
        ctx.exit(1)


def _look(directory: Path) -> dict[str, Any]:
    """What `check` tells of one journal."""
    from mailserver.durable import segments

    return {
        "journal": str(directory),
        "state": segments.state(directory),
        "segments": [_look_at(path) for path in segments.segment_paths(directory)],
        "set_aside": sorted(path.name for path in directory.glob("unreadable-*")),
    }


def _look_at(path: Path) -> dict[str, Any]:
    from mailserver.durable import segments
    from mailserver.durable.records import Record

    told: dict[str, Any] = {"segment": path.name, "state": "unused", "records": 0, "octets": 0, "damage": []}
    try:
        found = segments.read(path)
    except OSError as error:
        return told | {"state": "unreadable", "damage": [str(error)]}
    if found.header is None:
        return told if found.unused else told | {"state": "unreadable", "damage": [found.trouble]}
    records = [each for each in found.found if isinstance(each, Record)]
    if not found.header.in_use:
        return told | {"state": "free"}
    return told | {
        "state": "in use",
        "since": datetime.fromtimestamp(found.header.since, UTC).isoformat(timespec="seconds"),
        "records": len(records),
        "octets": sum(each.size for each in records),
        "damage": [
            f"octet {each.at}: a record is damaged"
            for each in found.found
            if not isinstance(each, Record) and not each.last
        ],
    }


def _page(found: list[dict[str, Any]]) -> Iterator[str]:
    """For people."""
    if not found:
        yield "There is no journal."
    for each in found:
        yield f"{each['journal']}: {each['state']}"
        for segment in each["segments"]:
            line = f"  {segment['segment']}  {segment['state']}"
            if "since" in segment:
                line += f" since {segment['since']}: {segment['records']:,} records, {segment['octets']:,} octets"
            yield line
            yield from (f"    damaged: {text}" for text in segment["damage"])
        yield from (f"  {name}  set aside by a recovery" for name in each["set_aside"])


def _told(reports: list[dict[str, Any]]) -> Iterator[str]:
    """What was done, for people."""
    if not reports:
        yield "There is no journal."
    for each in reports:
        yield (
            f"{each['journal']}: {each['records']:,} records in {each['segments']:,} segments:"
            f" {each['whole']:,} whole, {each['written']:,} written again,"
            f" {each['expunged']:,} expunged, {each['torn']:,} never whole;"
            f" {each['removed']:,} torn files removed"
        )
        yield from _problems(each)


def _problems(report: Mapping[str, Any]) -> Iterator[str]:
    for key, text in (("damaged", "damaged"), ("foreign", "set aside"), ("failed", "failed, kept")):
        yield from (f"  {text}: {problem}" for problem in report[key])


def _place(config: Config) -> Place:
    """For `recover`."""
    import time

    from mailserver.durable.files import FILES, mount_identity
    from mailserver.durable.recovery import Place
    from mailserver.maildir.names import UniqueNames, sizes

    mail = config.server.data_dir / "mail"
    names = UniqueNames(config.server.hostname, os.getpid(), time.time)
    return Place(
        root=mail,
        files=FILES,
        unique_name=names.next,
        mount=mount_identity(mail),
        size_of_name=lambda name: sizes(name)[0] if names.pid_of(name) is not None else None,
    )
