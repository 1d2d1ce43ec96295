"""
What `mailserver init` puts where: the configuration, the data directory, the DKIM key, the first account.

In: `Plan`, in which every question is answered.  Out: directories and files with their modes and owners.
Failures: ConfigError when the configuration would not pass `mailserver config check`, OSError and the like for
trouble with the disk; nothing of it is left behind then: files are written beside their place and moved there last.
Security: key and data directories 0700, keys 0600, configuration 0640; of the password only hashes come here.

RFC 2142 (postmaster, abuse), RFC 6376 (DKIM keys).
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import grp
import os
import pwd
import secrets
import stat
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from mailserver.accounts.database import FILE_NAME, AccountsDatabase
from mailserver.address import Address
from mailserver.cli.dns_records import Site, as_zone, records, reminders
from mailserver.config import ConfigError, load
from mailserver.config.quantities import toml

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

#: RFC 8301 3.2 asks signers for at least 1024 bits and recommends 2048; longer keys do not fit every DNS.
DKIM_BITS = 2048
#: Names that every domain must or should have (RFC 5321 4.5.1, RFC 2142 4 and 5).
ROLES = ("postmaster", "abuse")
#: Letters and digits that are not mistaken for each other; 18 of 31 are 89 bits.
PASSWORD_ALPHABET, PASSWORD_GROUPS, PASSWORD_GROUP = "abcdefghjkmnpqrstuvwxyz23456789", 3, 6

PORTS = {"standard": (25, 465, 587), "high": (2525, 4650, 2587)}


@dataclass(frozen=True, slots=True)
class Owner:
    """Whom the data belongs to when root runs init: names for the configuration, numbers for chown."""

    user: str
    group: str
    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class Plan:
    """
    Every answer that init needs.

    domain, hostname: normal names.  account: the first one, of that domain.  config_dir, data_dir: absolute.
    ports: a key of `PORTS`.  selector: of the DKIM key.  certificate, key: absolute paths, both or none.
    owner: None unless root runs it and the user exists.
    """

    domain: str
    hostname: str
    account: Address
    config_dir: Path
    data_dir: Path
    ports: str
    selector: str
    certificate: Path | None = None
    key: Path | None = None
    owner: Owner | None = None

    @property
    def config_file(self) -> Path:
        """The configuration."""
        return self.config_dir / "mailserver.toml"

    @property
    def zone_file(self) -> Path:
        """The DNS records, to look them up again."""
        return self.config_dir / "dns.zone"

    @property
    def dkim_key(self) -> Path:
        """The private key, PEM (PKCS 8); the public record stands beside it."""
        return self.data_dir / "dkim" / self.domain / f"{self.selector}.pem"

    @property
    def dkim_record(self) -> Path:
        """The DKIM record as a line of a zone file."""
        return self.dkim_key.with_suffix(".txt")

    @property
    def accounts_file(self) -> Path:
        """The accounts (SQLite)."""
        return self.data_dir / FILE_NAME


@dataclass(frozen=True, slots=True)
class DKIMKey:
    """private: PEM (PKCS 8, no passphrase), never shown.  public: DER, base64."""

    private: bytes = field(repr=False)
    public: str


@dataclass(frozen=True, slots=True)
class _File:
    path: Path
    content: bytes = field(repr=False)
    mode: int
    owner: tuple[int, int] | None


def find_owner(user: str, group: str | None) -> Owner:
    """The user and the group (None: the user's own).  KeyError when this machine does not know one of them."""
    entry = pwd.getpwnam(user)
    group_entry = grp.getgrnam(group) if group else grp.getgrgid(entry.pw_gid)
    return Owner(user, group_entry.gr_name, entry.pw_uid, group_entry.gr_gid)


def new_password() -> str:
    """A password of 89 bits that is easy to read and to type: `k7m2px-...`."""
    groups = [
        "".join(secrets.choice(PASSWORD_ALPHABET) for _ in range(PASSWORD_GROUP)) for _ in range(PASSWORD_GROUPS)
    ]
    return "-".join(groups)


def new_dkim_key() -> DKIMKey:
    """A fresh RSA key pair."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(public_exponent=65537, key_size=DKIM_BITS)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return DKIMKey(private, _public(key))


def _public(key: RSAPrivateKey) -> str:
    from cryptography.hazmat.primitives import serialization

    form = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(key.public_key().public_bytes(*form)).decode("ascii")


class BadKey(ValueError):  # noqa: N818 - it is what the key is
    """The DKIM key that is there cannot be used; `str()` says why, and nothing of the key."""


def kept_dkim_key(plan: Plan) -> DKIMKey | None:
    """The key pair of an earlier init, or None.  Raises OSError, and BadKey when it is no RSA key."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    try:
        private = plan.dkim_key.read_bytes()
    except FileNotFoundError:
        return None
    try:
        key = serialization.load_pem_private_key(private, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, rsa.RSAPrivateKey):
        raise BadKey(f"{plan.dkim_key}: holds no RSA key that can be used; --new-dkim-key replaces it")
    return DKIMKey(private, _public(key))


def kept_selector(data_dir: Path, domain: str) -> str | None:
    """
    The selector of the DKIM key that is there, the newest one of several; None when there is none.

    Ed25519 keys, which `mailserver dkim new` makes too, stand beside one that every verifier knows, and do not count.
    """
    keys = [path for path in (data_dir / "dkim" / domain).glob("*.pem") if path.is_file() and not _is_ed25519(path)]
    return max(keys, key=lambda path: (path.stat().st_mtime_ns, path.name)).stem if keys else None


def _is_ed25519(path: Path) -> bool:
    from mailserver.dkim import Algorithm, BadKey, load_private_key

    try:
        return load_private_key(path.read_bytes()).algorithm is Algorithm.ED25519
    except (BadKey, OSError):
        return False  # whoever uses it tells what is wrong


def has_account(plan: Plan) -> bool:
    """Is there the first account already?  Raises AccountsError, sqlite3.Error."""
    if not os.path.lexists(plan.accounts_file):
        return False
    with contextlib.closing(AccountsDatabase(plan.accounts_file, create=False)) as database:
        return database.account(plan.account) is not None


def existing(plan: Plan) -> tuple[Path, ...]:
    """What would be overwritten or changed, in the order of writing; () when the way is free."""
    ours = (plan.config_file, plan.zone_file, plan.dkim_key, plan.dkim_record, plan.accounts_file)
    return tuple(path for path in ours if os.path.lexists(path))


def write(plan: Plan, site: Site, key: DKIMKey, hashes: Sequence[str] | None) -> None:
    """
    Write everything, replacing what is there.  An accounts database that exists is kept: the account is added to it,
    or gets the new password.  What an earlier init has left to root becomes the owner's.

    hashes: of the account's password, from `accounts.passwords`; None: the account exists and keeps its own.

    Raises OSError, sqlite3.Error, AccountsError and ConfigError; nothing is left behind then.
    """
    with ExitStack() as undo:
        _make_directories(plan, undo)
        pending = [(_write_beside(file, undo), file.path) for file in _files(plan, site, key)]
        _check(plan, pending[0][0])
        _write_account(plan, hashes, undo)
        _hand_over(plan)
        for written, place in pending:
            if not os.path.lexists(place):
                undo.callback(_forget, place.unlink)
            os.replace(written, place)
        undo.pop_all()


def configuration(plan: Plan) -> str:
    """The text of mailserver.toml."""
    smtp, submissions, submission = PORTS[plan.ports]
    return f"""\
# The mail server of {plan.domain}, as `mailserver init` set it up.
#
# mailserver config check    looks for mistakes
# mailserver config show     tells every value in force and where it comes from
# mailserver config sample   describes every key there is
#
# A running server reads this file again on SIGHUP.

[server]
hostname = {toml(plan.hostname)}
# Accounts, mail and keys; a relative path starts at the folder of this file.
data_dir = {toml(_data_dir(plan))}
{_owner_lines(plan.owner)}
# Who gets the mail for <postmaster> without a domain.
postmaster = {toml(str(plan.account))}
# "text" for people, "json" for programs.
log_format = "text"
log_level = "info"

[tls]
minimum_version = "1.2"
{_certificate_lines(plan)}
[storage]
# Space for an account that has no quota of its own; 0: no limit.
default_quota = 0

[limits]
message_size = "50 MiB"

# Mail from other servers.{_forward(smtp, 25)}
[[listener]]
address = {smtp}
protocol = "smtp"
tls = "starttls"
auth = "off"

# Mail from our own users, encrypted from the first byte on.{_forward(submissions, 465)}
[[listener]]
address = {submissions}
protocol = "submission"
tls = "implicit"
auth = "required"

# The same, encrypted on request.{_forward(submission, 587)}
[[listener]]
address = {submission}
protocol = "submission"
tls = "starttls"
auth = "required"

[[domain]]
name = {toml(plan.domain)}
# user+detail@{plan.domain} is delivered to user.
separator = "+"
"""


def _data_dir(plan: Plan) -> str:
    if plan.data_dir.is_relative_to(plan.config_dir) and plan.data_dir != plan.config_dir:
        return str(plan.data_dir.relative_to(plan.config_dir))
    return str(plan.data_dir)


def _owner_lines(owner: Owner | None) -> str:
    lines = "# Started as root, the server becomes this user as soon as its ports are open.\n"
    if owner is None:
        return lines + '#user = "mailserver"\n#group = "mailserver"'
    return lines + f"user = {toml(owner.user)}\ngroup = {toml(owner.group)}"


def _certificate_lines(plan: Plan) -> str:
    if plan.certificate is None:
        return """
# Without a certificate a self-signed one is made and kept in the data directory: enough for mail from other servers,
# not for mail programs.
#[[tls.certificate]]
#certificate = "/etc/mailserver/tls/fullchain.pem"
#key = "/etc/mailserver/tls/privkey.pem"
"""
    return f"\n[[tls.certificate]]\ncertificate = {toml(str(plan.certificate))}\nkey = {toml(str(plan.key))}\n"


def _forward(port: int, public: int) -> str:
    return "" if port == public else f"  The world calls port {public}: forward it to this one."


# -- writing -----------------------------------------------------------------------------------------------------


def _files(plan: Plan, site: Site, key: DKIMKey) -> tuple[_File, ...]:
    """The files, the configuration first."""
    wanted = records(site)
    readable = (-1, plan.owner.gid) if plan.owner else None  # root keeps it, the server may read it
    owned = (plan.owner.uid, plan.owner.gid) if plan.owner else None
    dkim = as_zone(record for record in wanted if "._domainkey." in record.name)
    zone = as_zone(wanted, notes=(f"DNS records for {plan.domain}, by mailserver init", *reminders(site)))
    return (
        _File(plan.config_file, configuration(plan).encode(), 0o640, readable),
        _File(plan.zone_file, zone.encode(), 0o640, readable),
        _File(plan.dkim_key, key.private, 0o600, owned),
        _File(plan.dkim_record, dkim.encode(), 0o600, owned),
    )


def _make_directories(plan: Plan, undo: ExitStack) -> None:
    owned = (plan.owner.uid, plan.owner.gid) if plan.owner else None
    if plan.owner is None:
        _make_directory(plan.config_dir, 0o700, None, undo)
    else:
        _make_directory(plan.config_dir, 0o750, (-1, plan.owner.gid), undo)
    for directory in (plan.data_dir, plan.dkim_key.parent.parent, plan.dkim_key.parent):
        _make_directory(directory, 0o700, owned, undo)


def _make_directory(path: Path, mode: int, owner: tuple[int, int] | None, undo: ExitStack) -> None:
    """Make it, and its parents as anybody would; one that exists stays as it is."""
    if path.is_dir():
        return
    missing = [path]
    while not missing[-1].parent.exists():
        missing.append(missing[-1].parent)
    for directory in reversed(missing):
        directory.mkdir()
        undo.callback(_forget, directory.rmdir)
    path.chmod(mode)
    if owner is not None:
        os.chown(path, *owner)


def _write_beside(file: _File, undo: ExitStack) -> Path:
    """Write the file under another name in its directory; returns that name."""
    if file.path.is_dir():
        raise IsADirectoryError(21, "Is a directory", str(file.path))
    handle, name = tempfile.mkstemp(prefix=f".{file.path.name}.", dir=file.path.parent)
    undo.callback(_forget, Path(name).unlink)
    with open(handle, "wb") as stream:
        stream.write(file.content)
        stream.flush()
        if file.owner is not None:
            os.fchown(handle, *file.owner)
        os.fchmod(handle, file.mode)
        os.fsync(handle)
    return Path(name)


def _check(plan: Plan, written: Path) -> None:
    """`mailserver config check` before the file is in its place."""
    try:
        load(written)
    except ConfigError as error:
        named = (dataclasses.replace(problem, file=str(plan.config_file)) for problem in error.problems)
        raise ConfigError(tuple(named)) from error


def _hand_over(plan: Plan) -> None:
    """
    Give the owner what an earlier init made for root alone: that one had advised to make the user and come again.

    Security: in a data directory that is root's nobody else can have put a link to somebody else's file.
    """
    if plan.owner is None:
        return
    me = os.geteuid()
    if plan.data_dir.stat().st_uid == me:
        for folder, _, names in os.walk(plan.data_dir):
            for path in (folder, *(os.path.join(folder, name) for name in names)):
                os.chown(path, plan.owner.uid, plan.owner.gid, follow_symlinks=False)
    status = plan.config_dir.stat()
    if status.st_uid == me and stat.S_IMODE(status.st_mode) == 0o700:
        os.chown(plan.config_dir, -1, plan.owner.gid)
        plan.config_dir.chmod(0o750)


def _write_account(plan: Plan, hashes: Sequence[str] | None, undo: ExitStack) -> None:
    if not os.path.lexists(plan.accounts_file):
        for suffix in ("", "-wal", "-shm"):
            undo.callback(_forget, Path(f"{plan.accounts_file}{suffix}").unlink)
    database = AccountsDatabase(plan.accounts_file)
    with contextlib.closing(database):
        if hashes is None:
            database.known(plan.account)
        elif database.account(plan.account) is None:
            database.add_account(plan.account, hashes)
        else:
            database.set_passwords(plan.account, hashes)
        for role in (Address(name, plan.domain) for name in ROLES):
            if database.account(role) is None and not database.alias(role):
                database.add_alias(role, [plan.account])


def _forget(remove: Callable[[], None]) -> None:
    """Take away what was made; a failure of this must not hide the one that led here."""
    with contextlib.suppress(OSError):
        remove()
