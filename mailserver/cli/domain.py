"""
`mailserver domain`: domains that we take mail for, beside those of the configuration, without a restart.

In: domain names.  Out: text.  Failures: exit status 1 and a message on stderr.
"""

from __future__ import annotations

import click

from mailserver.cli.directory import DomainArgument, open_directory

NAME = click.argument("name", type=DomainArgument())


@click.group()
def domain() -> None:
    """Add, list and remove domains beside those of the configuration."""


@domain.command()
@NAME
@click.pass_context
def add(ctx: click.Context, name: str) -> None:
    """Take mail for one more domain."""
    with open_directory(ctx) as directory:
        if name in directory.configured():
            raise click.ClickException(f"{name}: this domain is in the configuration")
        directory.database.add_domain(name)
    click.echo(f"{name}: added")


@domain.command("list")
@click.pass_context
def list_domains(ctx: click.Context) -> None:
    """List all domains, those of the configuration too."""
    with open_directory(ctx) as directory:
        configured, added = directory.configured(), directory.database.domains()
    for name in sorted({*configured, *added}):
        click.echo(f"{name}  (configuration)" if name in configured else name)


@domain.command()
@NAME
@click.pass_context
def remove(ctx: click.Context, name: str) -> None:
    """Take no mail for a domain any more; its accounts, aliases and mail stay."""
    with open_directory(ctx) as directory:
        if name in directory.configured():
            raise click.ClickException(f"{name}: this domain is in the configuration; remove it there")
        directory.database.remove_domain(name)
        left = sum(entry.address.ascii_domain == name for entry in directory.database.accounts())
    click.echo(f"{name}: removed")
    if left:
        click.echo(f"{left} of its accounts stay", err=True)
