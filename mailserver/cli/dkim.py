"""
`mailserver dkim`: keys to sign mail with, and the DNS records that publish them.

In: a domain, a selector.  Out: a private key in the data directory; on standard output nothing but the records.
Failures: exit status 1 and a message on stderr, which holds nothing of a key.  A key that is there is never replaced:
its record may be published, and mail may be under way that it has signed.

RFC 6376 3.1 (selectors), 3.6 (records); RFC 8301 3.2 (lengths); RFC 8463 6 (both algorithms, two selectors).
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from mailserver.cli.directory import DomainArgument, make_data_directory
from mailserver.cli.dkim_files import KeyFolder, default_selector, normal_selector
from mailserver.cli.dns_records import Record, as_values, as_zone, dkim_record
from mailserver.cli.main import config_of

if TYPE_CHECKING:
    from mailserver.dkim import PrivateKey

FORMAT = click.option(
    "--format",
    "form",
    type=click.Choice(("zone", "json")),
    default="zone",
    show_default=True,
    help="How the records are printed.",
)


@click.group()
def dkim() -> None:
    """Make and show the keys that mail is signed with (DKIM)."""


@dkim.command()
@click.argument("domain", type=DomainArgument())
@click.option("--selector", help="Name of the key.  [default: msYYYYMM]")
@click.option(
    "--algorithm",
    type=click.Choice(("rsa", "ed25519", "both")),
    default="rsa",
    show_default=True,
    help="Both makes two keys; that of Ed25519 is called SELECTOR-ed25519.",
)
@click.option(
    "--bits", type=click.IntRange(2048, 4096), default=2048, show_default=True, help="Length of an RSA key."
)
@FORMAT
@click.pass_context
def new(ctx: click.Context, domain: str, selector: str | None, algorithm: str, bits: int, form: str) -> None:
    """
    Make a key for DOMAIN, and print the DNS records to publish.

    The key goes to dkim/DOMAIN/SELECTOR.pem in the data directory.  One that exists is not replaced.
    """
    from mailserver.dkim import Algorithm, new_private_key

    config = config_of(ctx)
    selector = selector or default_selector(datetime.now(UTC))
    wanted = {}
    if algorithm != "ed25519":
        wanted[_selector(selector, domain)] = Algorithm.RSA
    if algorithm != "rsa":
        name = f"{selector}-ed25519" if algorithm == "both" else selector
        wanted[_selector(name, domain)] = Algorithm.ED25519
    if not config.server.data_dir.is_dir():
        make_data_directory(config)
    folder = KeyFolder(config.server.data_dir)
    with _trouble_told():
        for name in wanted:  # before a key is made, which takes its time
            if folder.path(domain, name).exists():
                raise FileExistsError(17, "File exists", str(folder.path(domain, name)))
        keys = {name: new_private_key(kind, bits) for name, kind in wanted.items()}
        paths = folder.write(domain, {name: key.pem() for name, key in keys.items()})
    for path in paths:
        click.echo(f"Private key: {path}", err=True)
    _print([dkim_record(domain, name, key.record) for name, key in keys.items()], form)


@dkim.command()
@click.argument("domain", type=DomainArgument(), required=False)
@FORMAT
@click.pass_context
def show(ctx: click.Context, domain: str | None, form: str) -> None:
    """Print the DNS records of the keys that exist, of DOMAIN or of all domains."""
    folder = KeyFolder(config_of(ctx).server.data_dir)
    with _trouble_told():
        found = [key for key in folder.keys() if domain in (None, key[0])]  # noqa: SIM118 - not those of a dict
    if not found and domain:
        raise click.ClickException(f'{domain} has no DKIM key; make one with "mailserver dkim new {domain}"')
    records, broken = [], []
    for name, selector in found:
        try:
            key = _load(folder.read(name, selector))
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            broken.append(f"{folder.path(name, selector)}: {reason}")
            continue
        records.append(dkim_record(name, selector, key.record))
        if key.is_short:
            click.echo(f"{folder.path(name, selector)}: only {key.bits} bits; make a new key", err=True)
    _print(records, form)
    if broken:
        raise click.ClickException("\n".join(broken))


def _load(pem: bytes) -> PrivateKey:
    from mailserver.dkim import load_private_key

    return load_private_key(pem)


def _selector(text: str, domain: str) -> str:
    try:
        return normal_selector(text, domain)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--selector") from error


@contextlib.contextmanager
def _trouble_told() -> Iterator[None]:
    try:
        yield
    except FileExistsError as error:
        raise click.ClickException(
            f"{error.filename} exists and is kept; name another key with --selector"
        ) from error
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        raise click.ClickException(f"{where}{error.strerror or error}") from error


def _print(records: list[Record], form: str) -> None:
    if form == "json":
        click.echo(json.dumps(as_values(records), indent=2))
    elif records:
        click.echo(as_zone(records), nl=False)
