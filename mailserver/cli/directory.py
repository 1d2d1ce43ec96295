"""
What the commands for accounts, aliases and domains share: the database of the configuration, and what people type.

In: click's context, text of the command line.  Out: `Directory`, addresses, octets.
Failures: click.ClickException (exit status 1, the text on stderr); `problems_told` makes it of the rooms' own errors.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mailserver.accounts.database import FILE_NAME, AccountsDatabase
from mailserver.accounts.schema import AccountsError
from mailserver.address import Address, AddressError, normal_domain, parse_address
from mailserver.config.quantities import parse_size, render_size

if TYPE_CHECKING:
    from mailserver.config import Config


@dataclass(frozen=True, slots=True)
class Directory:
    """A configuration and its open database."""

    config: Config
    database: AccountsDatabase

    def configured(self) -> tuple[str, ...]:
        """The domains of the configuration, in their normal form."""
        return tuple(normal_domain(domain.name) for domain in self.config.domains)

    def is_ours(self, domain: str) -> bool:
        """Is this domain (in its normal form) one whose mail we take?  In development every domain is."""
        return self.config.development or domain in self.configured() or self.database.has_domain(domain)

    def is_known(self, address: Address) -> bool:
        """
        Does mail for this address go anywhere?  True for addresses of others' domains; of ours, for an account, an
        alias, either of them without its detail, or where a catch-all takes the rest.
        """
        if self.config.development or not self.is_ours(address.ascii_domain):
            return True
        ours = address.ascii_domain
        domain = next((each for each in self.config.domains if normal_domain(each.name) == ours), None)
        plain, _ = address.split_detail("+" if domain is None else domain.separator)
        return bool(
            any(self.database.account(name) or self.database.alias(name) for name in (address, plain))
            or self.database.catch_all(address.ascii_domain)
            or (domain is not None and domain.catch_all)
        )

    def check_ours(self, address: Address) -> None:
        """Raises AccountsError when the address' domain is not ours."""
        if not self.is_ours(address.ascii_domain):
            raise AccountsError(
                f"{address.domain} is not one of our domains; "
                f'add it to the configuration, or with "mailserver domain add {address.domain}"'
            )


@contextlib.contextmanager
def problems_told() -> Iterator[None]:
    """Turn what accounts and SQLite raise into a message and exit status 1."""
    try:
        yield
    except AccountsError as error:
        raise click.ClickException(str(error)) from error
    except sqlite3.Error as error:
        raise click.ClickException(f"the accounts database: {error}") from error


def database_file(ctx: click.Context) -> Path:
    """Where the accounts are; the file need not exist yet."""
    return _config(ctx).server.data_dir / FILE_NAME


@contextlib.contextmanager
def open_directory(ctx: click.Context) -> Iterator[Directory]:
    """
    The database of the configuration.  It is made when it is missing, and so is the data directory, as the first
    start of the server would make it.

    Raises click.ClickException, also for an AccountsError or sqlite3.Error within.
    """
    config = _config(ctx)
    data = config.server.data_dir
    if not data.is_dir():
        make_data_directory(config)
    with problems_told():
        database = AccountsDatabase(data / FILE_NAME, default_quota=config.storage.default_quota)
        with contextlib.closing(database):
            yield Directory(config, database)


def make_data_directory(config: Config) -> None:
    """Mode 0700; when root does it, it belongs to the user that the server will be."""
    from mailserver.durable import make_directories  # it needs Twisted: most commands can do without
    from mailserver.privileges import give, owner_of

    data = config.server.data_dir
    try:
        make_directories(data)
        if (owner := owner_of(config.server.user, config.server.group)) is not None:
            give(owner, [data])
    except OSError as error:
        raise click.ClickException(f"{error.filename or data}: {error.strerror}") from error


def _config(ctx: click.Context) -> Config:
    from mailserver.cli.main import config_of

    return config_of(ctx)


def weakness(password: str) -> str | None:
    """Why nobody should choose this password; None when it will do (or is empty: that is refused for itself)."""
    if 0 < len(password) < LEAST_PASSWORD:
        return f"the password is shorter than {LEAST_PASSWORD} characters; take a longer one, or give --allow-weak"
    return None


class AddressArgument(click.ParamType):
    """An address; with catch_all also "@domain", which gives an `Address` with an empty local part."""

    name = "address"

    def __init__(self, *, catch_all: bool = False) -> None:
        self._catch_all = catch_all

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Address:  # noqa: ARG002 - click's signature
        """The address.  Raises click.ClickException."""
        if isinstance(value, Address):
            return value
        try:
            if self._catch_all and value.startswith("@"):
                parse_address("anybody" + value)  # the domain is judged as that of every address
                return Address("", value[1:])
            return parse_address(value)
        except AddressError as error:
            raise click.ClickException(f"{value!r} is no address: {error}") from error


class DomainArgument(click.ParamType):
    """A domain name, in its normal form."""

    name = "domain"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:  # noqa: ARG002 - click's signature
        """The normal form.  Raises click.ClickException."""
        try:
            name = normal_domain(value)
        except AddressError as error:
            raise click.ClickException(f"{value!r} is no domain: {error}") from error
        if name.startswith("["):
            raise click.ClickException(f"{value!r} is an address literal, not a domain")
        return name


class QuotaArgument(click.ParamType):
    """A size such as "2 GiB" or a number of octets; 0 for no limit; "default", which gives -1."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:  # noqa: ARG002 - click's signature
        """Octets, or -1.  Raises click.ClickException."""
        if isinstance(value, int):
            return value
        if value == "default":
            return DEFAULT_QUOTA
        try:
            return int(value) if value.isascii() and value.isdecimal() else parse_size(value)
        except ValueError as error:
            raise click.ClickException(f"quota: {error}") from error


#: Characters of a password that somebody has chosen (NIST SP 800-63B, revision 3, 5.1.1.1).
LEAST_PASSWORD = 8
ALLOW_WEAK = click.option(
    "--allow-weak", is_flag=True, help=f"Take a password of less than {LEAST_PASSWORD} characters."
)
#: Where below the data directory the mail of all accounts is.
MAIL_FOLDER = "mail"
#: What `QuotaArgument` gives for "default"; click takes None for "not given".
DEFAULT_QUOTA = -1


def quota_text(octets: int) -> str:
    """A quota for a reader."""
    return render_size(octets) if octets else "no limit"
