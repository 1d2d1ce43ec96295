"""
`mailserver init DOMAIN`: the way from nothing to a server for a real domain.

In: a domain, and options or answers.  Out: a configuration, a data directory with a DKIM key and the first account,
and on standard output the DNS records to publish.  No network is asked, and root is not needed.
With `--format zone` or `json` standard output holds the records alone, and what is for people goes to standard error.
Failures: told on standard error, exit status 1 (2 for wrong options); nothing is left half done.
`--force` replaces the configuration and the records, and keeps what others rely on: accounts with their passwords,
and the DKIM key, whose record is published.
Security: the generated password is shown once, on the terminal, past every redirection into files and logs; on
standard error where there is no terminal.  It is in no file.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import shlex
import sqlite3
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import click

from mailserver.accounts.passwords import BadPassword, hash_password
from mailserver.accounts.schema import AccountsError
from mailserver.address import Address, AddressError, parse_address
from mailserver.cli import layout
from mailserver.cli.directory import ALLOW_WEAK, weakness
from mailserver.cli.dkim_files import default_selector
from mailserver.cli.dns_records import IPAddress, Record, Site, as_table, as_values, as_zone, records, reminders
from mailserver.cli.main import Invocation
from mailserver.config import ConfigError
from mailserver.config.checked import hostname as checked_hostname
from mailserver.config.checked import mail_domain
from mailserver.config.loading import DEFAULT_PATH

T = TypeVar("T")

ROOT_DATA_DIR = Path("/var/lib/mailserver")
SERVICE_USER = "mailserver"
FIRST_ACCOUNT = "admin"
#: The terminal, whatever the standard streams are.
TERMINAL = "/dev/tty"


def _checked(check: Callable[[str], T]) -> Callable[[click.Context, click.Parameter, str | None], T | None]:
    """A click callback that turns the ValueError of `check` into a message about the option."""

    def callback(_context: click.Context, _parameter: click.Parameter, value: str | None) -> T | None:
        return None if value is None else _or_bad_parameter(check, value)

    return callback


def _or_bad_parameter(check: Callable[[str], T], value: str) -> T:
    try:
        return check(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def _domain(text: str) -> str:
    domain = mail_domain(text)
    if domain.startswith("["):
        raise ValueError("a literal has no DNS records; give a domain such as example.org")
    return domain


def _ip(text: str) -> IPAddress:
    address = ipaddress.ip_address(text.strip())
    if getattr(address, "scope_id", None):
        raise ValueError(f"{text} has a zone, which means something on this machine only")
    if address.is_unspecified or address.is_multicast or address.is_loopback or address.is_link_local:
        raise ValueError(f"{text} is no address that others can reach")
    return address


def _ips(_context: click.Context, _parameter: click.Parameter, values: tuple[str, ...]) -> tuple[IPAddress, ...]:
    return tuple(dict.fromkeys(_or_bad_parameter(_ip, value) for value in values))


def _ip_list(text: str) -> tuple[IPAddress, ...]:
    return tuple(dict.fromkeys(_ip(part) for part in text.replace(",", " ").split()))


@click.command("init", short_help="Set up a server for a domain.")
@click.argument("domain", callback=_checked(_domain))
@click.option("--hostname", callback=_checked(checked_hostname), help="Name of the server.  [default: mail.DOMAIN]")
@click.option("--account", help="First account.  [default: admin@DOMAIN]")
@click.option("--password-stdin", is_flag=True, help="Read its password from standard input, instead of making one.")
@ALLOW_WEAK
@click.option("--new-password", is_flag=True, help="Make it a new password, also when it exists.")
@click.option(
    "--ip", "ips", multiple=True, callback=_ips, metavar="ADDRESS", help="IP address of the server; may be repeated."
)
@click.option(
    "--config-dir",
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where the configuration goes.  [default: /etc/mailserver for root, else ./mailserver-DOMAIN]",
)
@click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where mail, accounts and keys go.  [default: /var/lib/mailserver for root without --config-dir, else data "
    "beside the configuration]",
)
@click.option("--certificate", type=click.Path(dir_okay=False, path_type=Path), help="TLS certificate chain, PEM.")
@click.option("--key", type=click.Path(dir_okay=False, path_type=Path), help="Its private key, PEM.")
@click.option(
    "--ports",
    type=click.Choice(tuple(layout.PORTS)),
    help="25, 465, 587 or 2525, 4650, 2587.  [default: standard for root, else high]",
)
@click.option(
    "--dkim-selector",
    callback=_checked(checked_hostname),
    help="Name of the DKIM key.  [default: that of the key that exists, else msYYYYMM]",
)
@click.option("--new-dkim-key", is_flag=True, help="Make a new DKIM key, also when there is one.")
@click.option("--user", help="User that the server becomes (root only).  [default: mailserver, when it exists]")
@click.option("--group", help="Group that the server becomes (root only).  [default: that of the user]")
@click.option(
    "--format",
    "form",
    type=click.Choice(("table", "zone", "json")),
    default="table",
    show_default=True,
    help="How the DNS records are printed.",
)
@click.option("--yes", is_flag=True, help="Ask nothing.")
@click.option("--force", is_flag=True, help="Replace files that exist; accounts and the DKIM key are kept.")
@click.pass_context
def init(ctx: click.Context, **given: Any) -> None:
    """
    Set up a mail server for DOMAIN: configuration, keys, first account; and print the DNS records it needs.

    Nothing is asked of the network.  Files that exist are not touched without --force.
    """
    _refuse_options_before(ctx)
    password = _read_password(allow_weak=given["allow_weak"]) if given["password_stdin"] else ""
    asking = not given["yes"] and not given["password_stdin"] and is_terminal()
    plan = _plan(given, asking=asking)
    _refuse_to_overwrite(plan, force=given["force"])
    ips = given["ips"]
    if asking:
        ips = ips or click.prompt(
            "IP addresses that others reach it by (blank: later)",
            default="",
            show_default=False,
            value_proc=_asked(_ip_list),
        )
        click.confirm(f"Write {_shown(plan.config_file)} and {_shown(plan.data_dir)}?", default=True, abort=True)
    generated = "" if password or _keeps_password(plan, given) else layout.new_password()
    site = _write(plan, ips, password or generated, new_key=given["new_dkim_key"])
    _report(plan, site, form=given["form"])
    if generated:
        show_secret(f"\nPassword of {plan.account}, shown this once:  {generated}")
    elif not password:
        click.echo(f"\n{plan.account} keeps its password; --new-password makes another.", err=True)


def is_terminal() -> bool:
    """Can somebody answer?"""
    return sys.stdin.isatty()


def is_root() -> bool:
    """Are the machine's own places ours to write?"""
    return os.geteuid() == 0


def show_secret(text: str) -> None:
    """On the terminal, where no redirection can take it along; on standard error when there is no terminal."""
    try:
        # Not by open(): it would make a file of this name where a container has no terminals.
        descriptor = os.open(TERMINAL, os.O_WRONLY | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        click.echo(text, err=True)
        return
    with open(descriptor, "w", encoding="utf-8") as terminal:
        terminal.write(f"{text}\n")


def _refuse_options_before(ctx: click.Context) -> None:
    """`mailserver --config FILE init` would mean a configuration that is there; init makes one."""
    invocation: Invocation = ctx.find_object(Invocation) or Invocation()
    for name, value in (("config", invocation.config), ("data", invocation.data)):
        if value is not None:
            raise click.UsageError(f"Give --{name}-dir after init instead of --{name} before it.")


# -- questions ---------------------------------------------------------------------------------------------------


def _plan(given: dict[str, Any], *, asking: bool) -> layout.Plan:
    """All answers: from options, else from the terminal, else the defaults."""
    domain, root = given["domain"], is_root()
    hostname = given["hostname"] or _answer("Name of the server", f"mail.{domain}", checked_hostname, asking=asking)

    def account_of_domain(text: str) -> Address:
        return _account(text, domain)

    account = given["account"]
    if account is not None:
        account = _option("--account", account_of_domain, account)
    else:
        account = _answer("First account", f"{FIRST_ACCOUNT}@{domain}", account_of_domain, asking=asking)
    config_dir = given["config_dir"] or (DEFAULT_PATH.parent if root else Path(f"mailserver-{domain}"))
    data_dir = given["data_dir"] or (ROOT_DATA_DIR if root and not given["config_dir"] else config_dir / "data")
    if bool(given["certificate"]) != bool(given["key"]):
        raise click.UsageError("--certificate and --key go together.")
    return layout.Plan(
        domain=domain,
        hostname=hostname,
        account=account,
        config_dir=_absolute(config_dir),
        data_dir=_absolute(data_dir),
        ports=given["ports"] or ("standard" if root else "high"),
        selector=given["dkim_selector"] or _selector(given, data_dir),
        certificate=_absolute(given["certificate"]) if given["certificate"] else None,
        key=_absolute(given["key"]) if given["key"] else None,
        owner=_owner(given["user"], given["group"], root=root),
    )


def _selector(given: dict[str, Any], data_dir: Path) -> str:
    kept = None if given["new_dkim_key"] else layout.kept_selector(_absolute(data_dir), given["domain"])
    return kept or default_selector(datetime.now(UTC))


def _answer(question: str, default: str, check: Callable[[str], T], *, asking: bool) -> T:
    if not asking:
        return _option(question, check, default)
    answer: T = click.prompt(question, default=default, value_proc=_asked(check))
    return answer


def _asked(check: Callable[[str], T]) -> Callable[[str], T]:
    return lambda text: _or_bad_parameter(check, text)


def _option(name: str, check: Callable[[str], T], value: str) -> T:
    try:
        return check(value)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint=name) from error


def _account(text: str, domain: str) -> Address:
    try:
        address = parse_address(text if "@" in text else f"{text}@{domain}")
    except AddressError as error:
        raise ValueError(f"no address: {error}") from error
    if address.ascii_domain != domain:
        raise ValueError(f"the first account must be one of {domain}")
    return Address(address.local, domain)


def _owner(user: str | None, group: str | None, *, root: bool) -> layout.Owner | None:
    if not root:
        if user or group:
            raise click.UsageError("Only root can give the server to another user: leave --user and --group out.")
        return None
    try:
        return layout.find_owner(user or SERVICE_USER, group)
    except (KeyError, ValueError) as error:
        if user is None and group is None:
            return None
        raise click.UsageError(f"This machine does not know the user or the group: {error.args[0]}") from error


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(path))


def _read_password(*, allow_weak: bool) -> str:
    password = sys.stdin.readline().rstrip("\r\n")
    if not password:
        raise click.UsageError("--password-stdin: standard input has no password.")
    if not allow_weak and (reason := weakness(password)) is not None:
        raise click.UsageError(f"{reason}.")
    return password


# -- acting and telling ------------------------------------------------------------------------------------------


def _refuse_to_overwrite(plan: layout.Plan, *, force: bool) -> None:
    found = layout.existing(plan)
    if found and not force:
        lines = "".join(f"  {_shown(path)}\n" for path in found)
        raise click.ClickException(
            f"these files exist:\n{lines}Nothing was changed.  --force replaces them (accounts, their passwords and "
            "the DKIM key are kept)."
        )


def _keeps_password(plan: layout.Plan, given: dict[str, Any]) -> bool:
    with _trouble_told(plan):
        return not given["new_password"] and layout.has_account(plan)


def _write(plan: layout.Plan, ips: tuple[IPAddress, ...], password: str, *, new_key: bool) -> Site:
    """Write it all.  password: "" for that of the account that exists."""
    try:
        hashes = hash_password(password) if password else None
    except BadPassword as error:
        raise click.UsageError(f"{error}.") from error
    with _trouble_told(plan):
        key = (None if new_key else layout.kept_dkim_key(plan)) or layout.new_dkim_key()
        site = Site(plan.domain, plan.hostname, ips, plan.selector, key.public)
        layout.write(plan, site, key, hashes)
    return site


@contextlib.contextmanager
def _trouble_told(plan: layout.Plan) -> Iterator[None]:
    try:
        yield
    except (ConfigError, AccountsError, layout.BadKey) as error:
        raise click.ClickException(f"nothing was changed:\n{error}") from error
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        raise click.ClickException(f"nothing was changed: {where}{error.strerror or error}") from error
    except sqlite3.Error as error:
        raise click.ClickException(f"nothing was changed: {plan.accounts_file}: {error}") from error


def _report(plan: layout.Plan, site: Site, *, form: str) -> None:
    wanted = records(site)
    if form == "zone":
        click.echo(as_zone(wanted, notes=reminders(site)), nl=False)
    elif form == "json":
        click.echo(json.dumps(_values(plan, site, wanted), indent=2))
    else:
        click.echo(_summary(plan))
        click.echo(f"DNS records for {plan.domain} (kept in {_shown(plan.zone_file)}; * can wait):\n")
        click.echo(as_table(record for record in wanted if not record.foreign))
        click.echo(_notes(plan, site))
        return
    click.echo(_summary(plan) + "\n" + _notes(plan, site), err=True)


def _summary(plan: layout.Plan) -> str:
    smtp, submissions, submission = layout.PORTS[plan.ports]
    roles = " and ".join(f"{role}@" for role in layout.ROLES if role != plan.account.local)
    return (
        f"Configuration  {_shown(plan.config_file)}\n"
        f"Data           {_shown(plan.data_dir)}\n"
        f"Account        {plan.account} (also gets {roles})\n"
        f"Ports          {smtp} (other servers), {submissions} and {submission} (mail programs)\n"
    )


def _notes(plan: layout.Plan, site: Site) -> str:
    notes = list(reminders(site))
    if plan.ports == "high":
        notes.append("The world calls ports 25, 465 and 587: forward them to 2525, 4650 and 2587.")
    if plan.certificate is None:
        notes.append(
            f"Mail programs want a certificate for {plan.hostname} from an authority: [tls] in the configuration."
        )
    if is_root() and plan.owner is None:
        notes.append(
            f"There is no user {SERVICE_USER}, so the server would stay root: `useradd --system {SERVICE_USER}`, "
            "then init again with --force (the DKIM key and passwords stay)."
        )
    return "".join(f"- {note}\n" for note in notes) + f"\nNext:  {_next_command(plan)}"


def _next_command(plan: layout.Plan) -> str:
    return f"twistd --nodaemon mailserver --config {shlex.quote(_shown(plan.config_file))}"


def _values(plan: layout.Plan, site: Site, wanted: tuple[Record, ...]) -> dict[str, Any]:
    smtp, submissions, submission = layout.PORTS[plan.ports]
    return {
        "domain": plan.domain,
        "hostname": plan.hostname,
        "configuration": str(plan.config_file),
        "data_dir": str(plan.data_dir),
        "account": str(plan.account),
        "ports": {"smtp": smtp, "submissions": submissions, "submission": submission},
        "records": as_values(wanted),
        "reminders": list(reminders(site)),
        "next": _next_command(plan),
    }


def _shown(path: Path) -> str:
    """The path as it is shortest from here."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path != here and path.is_relative_to(here) else str(path)
