"""
`mailserver alias`: addresses that stand for others, while the server runs; it sees every change at once.

In: addresses, "@domain" for a catch-all, which takes what has neither account nor alias.  Out: text, or JSON.
Failures: exit status 1 and a message on stderr: a domain that is not ours, an address with an account (it would take
all the mail), an alias that leads back to itself.
"""

from __future__ import annotations

import json

import click

from mailserver.accounts.database import Alias, show_source
from mailserver.address import Address
from mailserver.cli.directory import AddressArgument, database_file, open_directory

SOURCE = click.argument("address", type=AddressArgument(catch_all=True))


@click.group()
def alias() -> None:
    """Add, list and remove aliases."""


@alias.command()
@SOURCE
@click.argument("targets", metavar="TARGET...", type=AddressArgument(), nargs=-1, required=True)
@click.pass_context
def add(ctx: click.Context, address: Address, targets: tuple[Address, ...]) -> None:
    """
    Send what comes for ADDRESS to each TARGET, here or elsewhere.

    ADDRESS may be @domain: all addresses of the domain that have neither account nor alias. An alias that exists
    gets these targets too.
    """
    with open_directory(ctx) as directory:
        directory.check_ours(address)
        directory.database.add_alias(address, targets)
        missing = [target for target in targets if not directory.is_known(target)]
    for target in missing:
        click.echo(f"warning: {target} is neither an account nor an alias yet; mail for it will be refused", err=True)
    click.echo(f"{show_source(address)}: goes to {', '.join(map(str, targets))}")


@alias.command("list")
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", help="Default: text.")
@click.pass_context
def list_aliases(ctx: click.Context, form: str) -> None:
    """List all aliases."""
    found: tuple[Alias, ...] = ()
    if database_file(ctx).exists():
        with open_directory(ctx) as directory:
            found = directory.database.aliases()
    if form == "json":
        click.echo(
            json.dumps({show_source(entry.source): list(map(str, entry.targets)) for entry in found}, indent=2)
        )
    elif not found:
        click.echo("no aliases", err=True)
    for entry in found if form == "text" else ():
        click.echo(f"{show_source(entry.source)} -> {', '.join(map(str, entry.targets))}")


@alias.command()
@SOURCE
@click.argument("targets", metavar="[TARGET]...", type=AddressArgument(), nargs=-1)
@click.pass_context
def remove(ctx: click.Context, address: Address, targets: tuple[Address, ...]) -> None:
    """Remove an alias, or only these of its targets."""
    with open_directory(ctx) as directory:
        directory.database.remove_alias(address, targets)
    which = f" to {', '.join(map(str, targets))}" if targets else ""
    click.echo(f"{show_source(address)}{which}: removed")
