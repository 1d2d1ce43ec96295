"""
`mailserver config`: check the configuration, show what is in force, write the sample and the manual.

In: the file of `--config`, or where else it is found.  Out: text for people, or JSON.
"""

from __future__ import annotations

import json
from pathlib import Path

import click

from mailserver.cli.main import config_of
from mailserver.config import Config
from mailserver.config.quantities import toml


@click.group()
def config() -> None:
    """Check, show or write the configuration."""


@config.command()
@click.pass_context
def check(ctx: click.Context) -> None:
    """
    Look for everything that is wrong with the configuration.

    Nothing is started or changed. Exit status: 0 when the server can start with it, also with warnings; else 1.
    """
    checked = config_of(ctx)
    for warning in checked.warnings if not checked.development else ():  # `config_of` has told those of development
        click.echo(warning)
    click.echo(f"{checked.source or 'development mode, no file'}: ok ({summary(checked)})")


def summary(checked: Config) -> str:
    """What a configuration holds, in numbers."""
    parts = [
        _counted(len(checked.listeners), "listener"),
        _counted(len(checked.domains), "domain"),
        _counted(len(checked.tls.certificates), "certificate"),
    ]
    if checked.warnings:
        parts.append(_counted(len(checked.warnings), "warning"))
    return ", ".join(parts)


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" + "s" * (number != 1)


@config.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object: key, then value and origin.")
@click.pass_context
def show(ctx: click.Context, *, as_json: bool) -> None:
    """
    Tell for every key the value in force, and where it comes from.

    Of a listener's limits only those are told that differ from [limits].
    """
    entries = config_of(ctx).effective
    if as_json:
        click.echo(json.dumps({e.key: {"value": e.value, "origin": e.origin} for e in entries}, indent=2))
        return
    rows = [(f"{e.key} = {'(none)' if e.value is None else toml(e.value)}", e.origin) for e in entries]
    width = min(60, max(len(text) for text, _ in rows))
    for text, origin in rows:
        click.echo(f"{text:{width}}  # {origin}")


OUTPUT = click.option("--output", metavar="FILE", help="Write to this file instead of stdout.")
FORCE = click.option("--force", is_flag=True, help="Replace the file when it exists.")


@config.command()
@OUTPUT
@FORCE
def sample(*, output: str | None, force: bool) -> None:
    """Write a configuration with every key, its meaning and its default."""
    from mailserver.config.sample import sample as text

    _write(text(), output, force=force)


@config.command()
@OUTPUT
@FORCE
def manual(*, output: str | None, force: bool) -> None:
    """Write the manual of the configuration, in Markdown."""
    from mailserver.config.manual import manual as text

    _write(text(), output, force=force)


def _write(text: str, output: str | None, *, force: bool) -> None:
    if output is None:
        click.echo(text, nl=False)
        return
    try:
        with Path(output).open("w" if force else "x", encoding="utf-8") as stream:
            stream.write(text)
    except FileExistsError as error:
        raise click.ClickException(f"{output} exists already; use --force to replace it") from error
    except OSError as error:
        raise click.ClickException(f"{output} cannot be written: {error.strerror}") from error
