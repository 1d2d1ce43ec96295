"""
`mailserver account`: add, list and change accounts while the server runs; it sees every change at once.

In: addresses, and passwords from the terminal (twice, without echo) or as a line on stdin; never as an argument,
which everybody on the machine could read.  Out: text for people, or JSON.
Failures: exit status 1 and a message on stderr.
"""

from __future__ import annotations

import getpass
import json
import sys
import warnings
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from mailserver.accounts.database import Account, AccountsDatabase, show_source
from mailserver.accounts.passwd_file import PasswdRow, Problem, import_passwd_file
from mailserver.accounts.passwords import BadPassword, hash_password, mechanisms_of, scheme_of
from mailserver.address import Address
from mailserver.cli.directory import (
    ALLOW_WEAK,
    DEFAULT_QUOTA,
    MAIL_FOLDER,
    AddressArgument,
    Directory,
    DomainArgument,
    QuotaArgument,
    database_file,
    open_directory,
    quota_text,
    weakness,
)
from mailserver.maildir.names import mailbox_path

ADDRESS = click.argument("address", type=AddressArgument())
FORMAT = click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", help="Default: text.")
PASSWORD_STDIN = click.option("--password-stdin", is_flag=True, help="Read the password as one line from stdin.")
CRAM_MD5 = click.option(
    "--cram-md5/--no-cram-md5",
    default=True,
    help="Keep what CRAM-MD5 logins need beside the hash, or not. Default: do.",
)

SCRAM = click.option(
    "--scram/--no-scram",
    "scram_sha_256",
    default=True,
    help="Keep what SCRAM-SHA-256 logins need beside the hash, or not. Default: do.",
)
SENDER = AddressArgument(catch_all=True)


@click.group()
def account() -> None:
    """Add, list and change accounts."""


@account.command()
@ADDRESS
@click.option(
    "--quota", type=QuotaArgument(), help='Space for the mail: "2 GiB", 0 for no limit. Default: configured.'
)
@PASSWORD_STDIN
@ALLOW_WEAK
@CRAM_MD5
@SCRAM
@click.pass_context
def add(ctx: click.Context, address: Address, *, quota: int | None, **wanted: bool) -> None:
    """Add an account; the password is asked for twice."""
    with open_directory(ctx) as directory:
        directory.check_ours(address)
        _check_free(directory.database, address)
        hashes = _ask_password(**wanted)
        directory.database.add_account(address, hashes, quota=None if quota == DEFAULT_QUOTA else quota)
    click.echo(f"{address}: added")


@account.command()
@ADDRESS
@PASSWORD_STDIN
@ALLOW_WEAK
@CRAM_MD5
@SCRAM
@click.pass_context
def passwd(ctx: click.Context, address: Address, **wanted: bool) -> None:
    """Set a new password; the old one ends at once."""
    with open_directory(ctx) as directory:
        directory.database.known(address)
        directory.database.set_passwords(address, _ask_password(**wanted))
    click.echo(f"{address}: password changed")


@account.command("list")
@FORMAT
@click.pass_context
def list_accounts(ctx: click.Context, form: str) -> None:
    """List all accounts."""
    found: tuple[Account, ...] = ()
    if database_file(ctx).exists():
        with open_directory(ctx) as directory:
            found = directory.database.accounts()
    if form == "json":
        click.echo(json.dumps([_as_json(entry) for entry in found], indent=2))
    elif not found:
        click.echo("no accounts", err=True)
    width = max((len(str(entry.address)) for entry in found), default=0)
    for entry in found if form == "text" else ():
        click.echo(f"{entry.address!s:{width}}  {quota_text(entry.quota)}{'' if entry.enabled else '  disabled'}")


@account.command()
@ADDRESS
@FORMAT
@click.pass_context
def show(ctx: click.Context, address: Address, form: str) -> None:
    """Show one account; of its passwords only the schemes."""
    with open_directory(ctx) as directory:
        entry = directory.database.known(address)
        kept = directory.database.credentials(address.key)
        schemes, mechanisms = [scheme_of(stored) for stored in kept], mechanisms_of(kept)
        senders = [show_source(sender) for sender in directory.database.senders(address)]
        sources = [show_source(source) for source in directory.database.aliases_to(address)]
        mail = mail_folder(directory, entry.address)
    if form == "json":
        more = {
            "schemes": schemes,
            "mechanisms": mechanisms,
            "aliases": sources,
            "may_send_as": senders,
            "mail": str(mail),
        }
        click.echo(json.dumps({**_as_json(entry), **more}, indent=2))
        return
    click.echo(f"address   {entry.address}")
    click.echo(f"enabled   {'yes' if entry.enabled else 'no'}")
    click.echo(f"quota     {quota_text(entry.quota)}{' (default)' if entry.own_quota is None else ''}")
    click.echo(f"created   {_time(entry.created)}")
    click.echo(f"password  {', '.join(schemes) or 'none'}")
    click.echo(f"logins    {', '.join(mechanisms) or 'none'}")
    click.echo(f"aliases   {', '.join(sources) or 'none'}")
    click.echo(f"sends as  {', '.join(senders) or 'itself and its aliases'}")
    click.echo(f"mail      {mail}")


@account.command("may-send-as")
@ADDRESS
@click.option("--add", type=SENDER, multiple=True, help="Allow this address, or @example.org for the whole domain.")
@click.option("--remove", type=SENDER, multiple=True, help="Allow it no more.")
@click.pass_context
def may_send_as(
    ctx: click.Context, address: Address, *, add: tuple[Address, ...], remove: tuple[Address, ...]
) -> None:
    """
    Show and change as whom an account may send, beside its own address and its aliases.

    Both options can be given several times.
    """
    with open_directory(ctx) as directory:
        if add or remove:
            directory.database.change_senders(address, add=add, remove=remove)
        entry = directory.database.known(address)
        senders = directory.database.senders(address)
    click.echo(f"{entry.address}: may send as {', '.join(map(show_source, senders)) or 'nobody else'}")


@account.command()
@ADDRESS
@click.argument("size", type=QuotaArgument())
@click.pass_context
def quota(ctx: click.Context, address: Address, size: int) -> None:
    """Set the space for an account's mail: "2 GiB", 0 for no limit, "default" for what is configured."""
    with open_directory(ctx) as directory:
        directory.database.set_quota(address, None if size == DEFAULT_QUOTA else size)
        entry = directory.database.known(address)
    click.echo(f"{address}: quota is {quota_text(entry.quota)}{' (default)' if entry.own_quota is None else ''}")


@account.command()
@ADDRESS
@click.pass_context
def disable(ctx: click.Context, address: Address) -> None:
    """Let nobody log in to an account, and take no mail for it; what it has stays."""
    _set_enabled(ctx, address, enabled=False)


@account.command()
@ADDRESS
@click.pass_context
def enable(ctx: click.Context, address: Address) -> None:
    """Undo disable."""
    _set_enabled(ctx, address, enabled=True)


@account.command()
@ADDRESS
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_context
def remove(ctx: click.Context, address: Address, *, yes: bool) -> None:
    """Remove an account; its mail stays on the disk."""
    with open_directory(ctx) as directory:
        entry = directory.database.known(address)
        mail = mail_folder(directory, entry.address)
        if not yes:
            click.confirm(f"Remove the account {entry.address}? Its mail stays in {mail}.", abort=True)
        directory.database.remove_account(address)
        sources = directory.database.aliases_to(address)
    click.echo(f"{address}: removed; its mail stays in {mail}")
    if sources:
        click.echo(f"aliases still lead to it: {', '.join(map(show_source, sources))}", err=True)


@account.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--domain", type=DomainArgument(), help="The domain of users that are named without one.")
@click.option("--skip-problems", is_flag=True, help="Import the good lines although others have problems.")
@CRAM_MD5
@SCRAM
@click.pass_context
def import_accounts(ctx: click.Context, file: Path, domain: str | None, *, skip_problems: bool, **kept: bool) -> None:
    """
    Import accounts from a passwd file of Dovecot.

    Lines are user:{SCHEME}hash:..., with ARGON2ID, BLF-CRYPT, SHA512-CRYPT, SCRAM-SHA-256, CRAM-MD5, or PLAIN, which
    is hashed.
    When a line has a problem nothing is imported, unless --skip-problems is given.
    """
    try:
        with file.open(encoding="utf-8", newline="\n") as lines:
            rows, problems = import_passwd_file(
                lines, default_domain=domain or "", hash_plain=lambda password: hash_password(password, **kept)
            )
    except OSError as error:
        raise click.ClickException(f"{file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise click.ClickException(f"{file}: not UTF-8") from error
    with open_directory(ctx) as directory, directory.database.together():
        more = [problem for row in rows if (problem := _obstacle(directory, row))]
        bad = {problem.line for problem in more}
        good = [row for row in rows if row.line not in bad]
        all_problems = sorted([*problems, *more], key=lambda problem: problem.line)
        for problem in all_problems:
            click.echo(f"{file}:{problem}", err=True)
        if all_problems and not skip_problems:
            raise click.ClickException("nothing was imported; --skip-problems imports the other lines")
        for row in good:
            directory.database.add_account(row.address, row.hashes, quota=row.quota, enabled=row.enabled)
    click.echo(f"{len(good)} imported, {len(all_problems)} skipped")


def mail_folder(directory: Directory, address: Address) -> Path:
    """Where the mail of this account is, or will be."""
    return mailbox_path(directory.config.server.data_dir / MAIL_FOLDER, address)


def _check_free(database: AccountsDatabase, address: Address) -> None:
    """Before a password is asked for: what `add_account` would refuse.  Raises click.ClickException."""
    if database.account(address) is not None:
        raise click.ClickException(f"{address}: there is an account of this address")
    if database.alias(address):
        raise click.ClickException(f"{address}: there is an alias of this address; remove it first")


def _obstacle(directory: Directory, row: PasswdRow) -> Problem | None:
    """Why this row cannot be imported."""
    if not directory.is_ours(row.address.ascii_domain):
        return Problem(row.line, f"{row.address}: {row.address.domain} is not one of our domains")
    if directory.database.account(row.address) is not None:
        return Problem(row.line, f"{row.address}: there is an account of this address")
    if directory.database.alias(row.address):
        return Problem(row.line, f"{row.address}: there is an alias of this address")
    return None


def _ask_password(*, password_stdin: bool, allow_weak: bool, **kept: bool) -> tuple[str, ...]:
    """The hashes of a new password; kept: as `hash_password`.  Raises click.ClickException when it may not be one."""
    password = _read_password() if password_stdin else _prompt_password()
    if not allow_weak and (reason := weakness(password)) is not None:
        raise click.ClickException(reason)
    try:
        return hash_password(password, **kept)
    except BadPassword as error:
        raise click.ClickException(str(error)) from error


def _read_password() -> str:
    try:
        line = sys.stdin.buffer.readline().decode()
    except UnicodeDecodeError:
        raise click.ClickException("the password on stdin is not UTF-8") from None
    return line.removesuffix("\n").removesuffix("\r")


def _prompt_password() -> str:
    with warnings.catch_warnings():
        # Where there is no terminal to be silent getpass only warns, and reads stdin with whatever echo it has.
        warnings.simplefilter("error", getpass.GetPassWarning)
        try:
            # default="" lets an empty answer through, to be refused with a reason instead of asked for again.
            answer = click.prompt(
                "Password", hide_input=True, confirmation_prompt=True, default="", show_default=False
            )
        except getpass.GetPassWarning:
            raise click.ClickException("no terminal to ask for the password; use --password-stdin") from None
    return str(answer)


def _set_enabled(ctx: click.Context, address: Address, *, enabled: bool) -> None:
    with open_directory(ctx) as directory:
        directory.database.set_enabled(address, enabled=enabled)
    click.echo(f"{address}: {'enabled' if enabled else 'disabled'}")


def _as_json(entry: Account) -> dict[str, Any]:
    return {
        "address": str(entry.address),
        "enabled": entry.enabled,
        "quota": entry.quota,
        "quota_is_default": entry.own_quota is None,
        "created": _time(entry.created),
    }


def _time(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()
