"""
`mailserver spool`: the messages that wait for their release; release one now, delete one.

In: the data directory of the configuration.  Out: text for people, or JSON.
It works on the files alone, whether the server runs or not; a message that the server is at is left alone.  A server
that runs looks for released messages once in a minute.
Exit status 1: there is no such message, or the server is just delivering it.
Security: run by root, it works as the owner of the data directory, whose the files must be.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from mailserver.cli.journal import FORMAT
from mailserver.cli.main import config_of
from mailserver.cli.owner import become_owner

if TYPE_CHECKING:
    from mailserver.spool.folder import Claim, Folder

FAILED = click.option("--failed", is_flag=True, help="Those that could not be delivered, and nobody could be told.")


@click.group()
def spool() -> None:
    """Look at messages that wait for their release."""


@spool.command("list")
@FAILED
@FORMAT
@click.pass_context
def list_(ctx: click.Context, form: str, *, failed: bool) -> None:
    """List them, the earliest release first."""
    rows = list(_rows(_folder(ctx), "failed" if failed else "held"))
    click.echo(json.dumps(rows, indent=2) if form == "json" else "\n".join(_page(rows)))


@spool.command()
@click.argument("id")
@FAILED
@click.pass_context
def release(ctx: click.Context, id: str, *, failed: bool) -> None:  # noqa: A002 - as above
    """
    Release the message ID now; a failed one is tried again.

    A running server delivers it within a minute.
    """
    now = time.time()
    with _claimed(ctx, id, "failed" if failed else "held") as claim:
        held = claim.held
        again = dataclasses.replace(held, lost=(), attempts=0, release=min(now, held.release), next_try=now)
        if failed:
            again = dataclasses.replace(again, release=now)
        claim.reschedule(again)
    click.echo(f"{id} is released")


@spool.command()
@click.argument("id")
@FAILED
@click.pass_context
def delete(ctx: click.Context, id: str, *, failed: bool) -> None:  # noqa: A002 - as above
    """Delete the message ID: nobody gets it, and nobody is told."""
    with _claimed(ctx, id, "failed" if failed else "held") as claim:
        claim.remove()
    click.echo(f"{id} is deleted")


def _folder(ctx: click.Context) -> Folder:
    from mailserver.maildir.names import UniqueNames
    from mailserver.spool.folder import DIRECTORY, Folder

    config = config_of(ctx)
    if config.server.data_dir.is_dir():
        become_owner(config.server.data_dir)
    names = UniqueNames(config.server.hostname, os.getpid(), time.time)
    return Folder(config.server.data_dir / DIRECTORY, names.next)


@contextlib.contextmanager
def _claimed(ctx: click.Context, id: str, kind: str) -> Iterator[Claim]:  # noqa: A002 - the domain's term
    from mailserver.spool.held import Damaged

    folder = _folder(ctx)
    entry = folder.find(id, kind)
    if entry is None:
        raise click.ClickException(f"there is no message {id}")
    try:
        claim = folder.claim(entry)
        if claim is None:
            raise click.ClickException(f"{id} is just being delivered")
        with contextlib.closing(claim):
            yield claim
    except Damaged as error:
        raise click.ClickException(f"{entry.path}: {error}") from error
    except OSError as error:
        raise click.ClickException(f"{error.filename or entry.path}: {error.strerror}") from error


def _rows(folder: Folder, kind: str) -> Iterator[dict[str, Any]]:
    from mailserver.spool.held import Damaged

    for entry in folder.entries(kind)[0]:
        row: dict[str, Any] = {"id": entry.name.id, "release": _time(entry.name.due), "octets": entry.name.octets}
        try:
            held = folder.read(entry)
        except FileNotFoundError:
            continue  # delivered just now
        except (Damaged, OSError) as error:
            yield row | {"damaged": str(error)}
            continue
        envelope = held.envelope
        yield row | {
            "sender": str(envelope.sender or ""),
            "recipients": [str(each.address) for each in envelope.recipients],
            "attempts": held.attempts,
            "next_try": _time(held.next_try),
            "trouble": held.trouble,
        }


def _page(rows: list[dict[str, Any]]) -> Iterator[str]:
    """For people."""
    if not rows:
        yield "No message waits."
    for row in rows:
        if "damaged" in row:
            yield f"{row['id']}  {row['release']}  damaged: {row['damaged']}"
            continue
        yield f"{row['id']}  {row['release']}  <{row['sender']}> -> {', '.join(row['recipients'])}"
        if row["attempts"]:
            yield f"    {row['attempts']} tries, the next at {row['next_try']}: {row['trouble']}"


def _time(at: float) -> str:
    try:
        return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")
    except (ValueError, OverflowError, OSError):  # the name of a damaged file
        return str(at)
