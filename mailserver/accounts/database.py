"""
Accounts, aliases and domains in one SQLite file: the `IDirectory` of the server, and the writes of the command line.

In: addresses.  Out: `Account`, target addresses, stored password hashes, who may send as whom.
Failures: `AccountsError` for what may not be (told to the administrator); sqlite3.Error for trouble with the file.
Each read is a statement of its own on the file, so what another process has written is seen at once.  Who keeps
answers asks `version` whether they still hold: it changes with each write, by whatever process.

Threads: an object belongs to one thread (the reactor's, or the command's); SQLite refuses the others.  Its
connection is opened at the first use and is not carried over a fork: SQLite's locks would not be.
"""

from __future__ import annotations

import contextlib
import math
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from zope.interface import implementer

from mailserver.accounts.generation import SUFFIX, Generation
from mailserver.accounts.schema import AccountsError, connect, prepare_database
from mailserver.address import Address
from mailserver.interfaces import AccountEntry, IVersionedDirectory

#: The file's name in the data directory.
FILE_NAME = "accounts.sqlite3"
#: So often SQLite is asked for writes by those who know nothing of our generation file (`sqlite3`, say), in seconds.
LOOK_SECONDS = 1.0
_MOST_QUOTA = 2**63 - 1

_ACCOUNT = "SELECT local, domain, quota, enabled, created FROM accounts"
_TARGETS = "SELECT target_local, target_domain FROM aliases WHERE key = ? ORDER BY target_key"


@implementer(AccountEntry)
@dataclass(frozen=True, slots=True)
class Account:
    """
    One account.

    address: as it was given.  quota: octets, 0 for no limit.  enabled: may it log in and receive?
    own_quota: None when quota is the configuration's default.  created: seconds since the epoch.
    """

    address: Address
    quota: int
    enabled: bool
    own_quota: int | None
    created: int


@dataclass(frozen=True, slots=True)
class Alias:
    """One alias.  source: of a catch-all its local part is empty (and its key "@domain").  targets: at least one."""

    source: Address
    targets: tuple[Address, ...]


@implementer(IVersionedDirectory)
class AccountsDatabase:
    """
    path: the file; its directory must exist.  create: make the file when it is missing.
    default_quota: octets for accounts without a quota of their own; may be set anew at any time.
    now: gives seconds since the epoch.  seconds: a clock that is never set.

    Raises AccountsError when the file cannot be used.
    """

    def __init__(
        self,
        path: Path,
        *,
        create: bool = True,
        default_quota: int = 0,
        now: Callable[[], float] = time.time,
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        self.path = path
        self._default_quota = default_quota
        self._now = now
        self._seconds = seconds
        self._generation = Generation(path.with_name(path.name + SUFFIX))
        #: What `version` gives, and what it was last compared with.
        self._version = 0
        self._token: bytes | None = None
        self._looked = -math.inf
        self._data_version: tuple[sqlite3.Connection, int] | None = None
        self._writing = False
        #: process id -> its connection; one of another process (before a fork) is kept, never used or closed.
        self._connections: dict[int, sqlite3.Connection] = {}
        prepare_database(path, create=create)

    def close(self) -> None:
        """Close the files; the next use opens them again."""
        self._generation.close()
        self._looked = -math.inf
        if (connection := self._connections.pop(os.getpid(), None)) is not None:
            connection.close()

    @property
    def default_quota(self) -> int:
        """Octets for accounts without a quota of their own."""
        return self._default_quota

    @default_quota.setter
    def default_quota(self, octets: int) -> None:
        self._default_quota = octets
        self._version += 1

    # -- IDirectory --------------------------------------------------------------------------------------------

    def version(self) -> int | None:
        """
        See `IVersionedDirectory`.  It changes as soon as a write by this software, in whatever process, has returned;
        within a second after a write by others.  Raises sqlite3.Error.
        """
        token, now = self._generation.read(), self._seconds()
        if token != self._token or not 0 <= now - self._looked < LOOK_SECONDS:
            self._look(token, now)
        # What this object itself is about to write may yet come to nothing.
        return None if token is None or self._writing else self._version

    def account(self, address: Address) -> Account | None:
        """The account of exactly this address (compared by key), or None.  Disabled accounts are found."""
        row = self._open().execute(f"{_ACCOUNT} WHERE key = ?", (address.key,)).fetchone()
        return self._account(row) if row else None

    def alias(self, address: Address) -> tuple[Address, ...]:
        """The targets of an alias of exactly this address (compared by key), or ()."""
        return self._targets(address.key)

    def catch_all(self, domain: str) -> tuple[Address, ...]:
        """The targets of the domain's catch-all, or ().  domain: in its normal form."""
        return self._targets(f"@{domain}")

    def has_domain(self, domain: str) -> bool:
        """Was this domain (in its normal form) added here?"""
        return self._exists("SELECT 1 FROM domains WHERE name = ?", domain)

    def any_account(self) -> bool:
        """Is there at least one account?"""
        return self._exists("SELECT 1 FROM accounts")

    def may_send_as(self, account: Address, sender: Address, separator: str) -> bool:
        """See `IDirectory`."""
        if not sender.local:
            return False
        for name in (sender, sender.split_detail(separator)[0]):
            if name.key == account.key or self._exists(
                "SELECT 1 FROM aliases WHERE key = ? AND target_key = ?", name.key, account.key
            ):
                return True
        return self._exists(
            "SELECT 1 FROM senders WHERE account = ? AND key IN (?, ?)",
            account.key,
            sender.key,
            f"@{sender.ascii_domain}",
        )

    # -- other reads -------------------------------------------------------------------------------------------

    def credentials(self, key: str) -> tuple[str, ...]:
        """The stored hashes (`{SCHEME}hash`) of the account with this `Address.key`; () when there are none."""
        rows = self._open().execute("SELECT hash FROM passwords WHERE account = ? ORDER BY position", (key,))
        return tuple(stored for (stored,) in rows)

    def secret(self, name: str) -> bytes:
        """The random octets of this name, made with the file.  KeyError when there are none of the name."""
        row = self._open().execute("SELECT value FROM secrets WHERE name = ?", (name,)).fetchone()
        if row is None:
            raise KeyError(name)
        return bytes(row[0])

    def senders(self, address: Address) -> tuple[Address, ...]:
        """What this account may send as by an entry of its own; of a whole domain the local part is empty."""
        rows = self._open().execute(
            "SELECT local, domain FROM senders WHERE account = ? ORDER BY domain, key", (address.key,)
        )
        return tuple(Address(local, domain) for local, domain in rows)

    def accounts(self) -> tuple[Account, ...]:
        """All accounts, by domain and name."""
        rows = self._open().execute(f"{_ACCOUNT} ORDER BY domain, key")
        return tuple(map(self._account, rows))

    def aliases(self) -> tuple[Alias, ...]:
        """All aliases, by domain and key."""
        rows = self._open().execute(
            "SELECT local, domain, target_local, target_domain FROM aliases ORDER BY domain, key, target_key"
        )
        found: dict[str, Alias] = {}
        for local, domain, target_local, target_domain in rows:
            source, target = Address(local, domain), Address(target_local, target_domain)
            known = found.get(source.key)
            found[source.key] = Alias(known.source if known else source, (*(known.targets if known else ()), target))
        return tuple(found.values())

    def aliases_to(self, address: Address) -> tuple[Address, ...]:
        """The sources of the aliases that have this address (compared by key) among their targets."""
        rows = self._open().execute(
            "SELECT local, domain FROM aliases WHERE target_key = ? ORDER BY key", (address.key,)
        )
        return tuple(Address(local, domain) for local, domain in rows)

    def domains(self) -> tuple[str, ...]:
        """All domains that were added here, in their normal form."""
        return tuple(name for (name,) in self._open().execute("SELECT name FROM domains ORDER BY name"))

    # -- writes ------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """The writes within happen all or, when an exception leaves it, not at all; nobody else writes meanwhile."""
        with self._transaction():
            yield

    def add_account(
        self, address: Address, hashes: Sequence[str], *, quota: int | None = None, enabled: bool = True
    ) -> None:
        """
        A new account.  hashes: `{SCHEME}hash`.  quota: octets, 0 for no limit, None for the default.

        Raises AccountsError when there is an account or an alias of this address.
        """
        _check_quota(quota)
        with self._transaction() as connection:
            if self.account(address) is not None:
                raise AccountsError(f"{address}: there is an account of this address")
            if self.alias(address):
                raise AccountsError(f"{address}: there is an alias of this address; remove it first")
            connection.execute(
                "INSERT INTO accounts (key, local, domain, quota, enabled, created) VALUES (?, ?, ?, ?, ?, ?)",
                (address.key, address.local, address.domain, quota, int(enabled), int(self._now())),
            )
            _insert_hashes(connection, address.key, hashes)

    def set_passwords(self, address: Address, hashes: Sequence[str]) -> None:
        """Replace all hashes of an account.  Raises AccountsError when there is no such account."""
        with self._transaction() as connection:
            self.known(address)
            connection.execute("DELETE FROM passwords WHERE account = ?", (address.key,))
            _insert_hashes(connection, address.key, hashes)

    def set_quota(self, address: Address, quota: int | None) -> None:
        """quota: octets, 0: no limit, None: the default.  Raises AccountsError when there is no such account."""
        _check_quota(quota)
        with self._transaction() as connection:
            self.known(address)
            connection.execute("UPDATE accounts SET quota = ? WHERE key = ?", (quota, address.key))

    def set_enabled(self, address: Address, *, enabled: bool) -> None:
        """May it log in and receive?  Raises AccountsError when there is no such account."""
        with self._transaction() as connection:
            self.known(address)
            connection.execute("UPDATE accounts SET enabled = ? WHERE key = ?", (int(enabled), address.key))

    def change_senders(
        self, address: Address, *, add: Sequence[Address] = (), remove: Sequence[Address] = ()
    ) -> None:
        """
        Let an account send as these addresses (again is no error), and as those no more; an empty local part means
        the whole domain.  Raises AccountsError when there is no such account, or no such entry to remove.
        """
        with self._transaction() as connection:
            self.known(address)
            have = {sender.key for sender in self.senders(address)}
            for sender in remove:
                if sender.key not in have:
                    raise AccountsError(f"{address}: {show_source(sender)} is not among what it may send as")
            connection.executemany(
                "DELETE FROM senders WHERE account = ? AND key = ?", [(address.key, sender.key) for sender in remove]
            )
            connection.executemany(
                "INSERT OR IGNORE INTO senders (account, key, local, domain) VALUES (?, ?, ?, ?)",
                [(address.key, sender.key, sender.local, sender.domain) for sender in add],
            )

    def remove_account(self, address: Address) -> None:
        """Forget an account and its passwords; its mail is not touched.  Raises AccountsError when there is none."""
        with self._transaction() as connection:
            self.known(address)
            connection.execute("DELETE FROM accounts WHERE key = ?", (address.key,))

    def known(self, address: Address) -> Account:
        """The account of this address.  Raises AccountsError when there is none."""
        if (found := self.account(address)) is None:
            raise AccountsError(f"{address}: no such account")
        return found

    def add_alias(self, source: Address, targets: Sequence[Address]) -> None:
        """
        Send what comes for source to these targets too.  source: a catch-all has an empty local part.

        Raises AccountsError when there is an account of this address, or when mail would come back to source: by
        other aliases, or by a catch-all that takes what has no account and no alias.
        """
        with self._transaction() as connection:
            if self.account(source) is not None:
                raise AccountsError(f"{source}: there is an account of this address, which would take all the mail")
            for target in targets:
                if way := self._way_back(source, target):
                    raise AccountsError(f"{' -> '.join(map(show_source, way))}: the alias would lead back to itself")
            connection.executemany(
                "INSERT OR IGNORE INTO aliases (key, local, domain, target_key, target_local, target_domain)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                [(source.key, source.local, source.domain, to.key, to.local, to.domain) for to in targets],
            )

    def remove_alias(self, source: Address, targets: Sequence[Address] = ()) -> None:
        """Remove these targets, or all.  Raises AccountsError when there is no such alias, or target of it."""
        with self._transaction() as connection:
            have = {target.key for target in self.alias(source)}
            if not have:
                raise AccountsError(f"{show_source(source)}: no such alias")
            for target in targets:
                if target.key not in have:
                    raise AccountsError(f"{show_source(source)}: {target} is not among its targets")
            gone = [target.key for target in targets] or sorted(have)
            connection.executemany(
                "DELETE FROM aliases WHERE key = ? AND target_key = ?", [(source.key, key) for key in gone]
            )

    def add_domain(self, domain: str) -> None:
        """domain: in its normal form.  Raises AccountsError when it is there."""
        with self._transaction() as connection:
            if self.has_domain(domain):
                raise AccountsError(f"{domain}: this domain is there")
            connection.execute("INSERT INTO domains (name, created) VALUES (?, ?)", (domain, int(self._now())))

    def remove_domain(self, domain: str) -> None:
        """domain: in its normal form.  Its accounts and aliases stay.  Raises AccountsError when it is not there."""
        with self._transaction() as connection:
            if not self.has_domain(domain):
                raise AccountsError(f"{domain}: no such domain here")
            connection.execute("DELETE FROM domains WHERE name = ?", (domain,))

    # -- within ------------------------------------------------------------------------------------------------

    def _open(self) -> sqlite3.Connection:
        connection = self._connections.get(os.getpid())
        if connection is None:
            connection = self._connections[os.getpid()] = connect(self.path)
        return connection

    def _look(self, token: bytes | None, now: float) -> None:
        """Count a change when the file of the generation, or SQLite, tells of one."""
        self._generation.look()
        connection = self._open()
        # Another number after each commit by another connection (sqlite.org/pragma.html); a number of its own for
        # each connection.
        (number,) = connection.execute("PRAGMA data_version").fetchone()
        if token != self._token or self._data_version != (connection, number):
            self._version += 1
        self._token, self._data_version, self._looked = token, (connection, number), now

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """Writes that happen together or not at all; what they read does not change meanwhile."""
        connection = self._open()
        if connection.in_transaction:  # within `together`
            yield connection
            return
        connection.execute("BEGIN IMMEDIATE")
        self._writing = True
        try:
            yield connection
            connection.execute("COMMIT")
        except BaseException:
            _roll_back(connection)
            raise
        finally:
            self._writing = False
            # Behind the commit: who reads the new generation must find the new data.
            self._version += 1
            self._generation.change()

    def _account(self, row: tuple[str, str, int | None, int, int]) -> Account:
        local, domain, quota, enabled, created = row
        return Account(
            Address(local, domain), self.default_quota if quota is None else quota, bool(enabled), quota, created
        )

    def _targets(self, key: str) -> tuple[Address, ...]:
        return tuple(Address(local, domain) for local, domain in self._open().execute(_TARGETS, (key,)))

    def _exists(self, statement: str, *values: str) -> bool:
        return self._open().execute(f"{statement} LIMIT 1", values).fetchone() is not None

    def _way_back(self, source: Address, target: Address) -> tuple[Address, ...]:
        """The way that mail for source would take from target back to source; () when it does not come back."""
        seen: set[str] = set()
        open_ways: list[tuple[Address, ...]] = [(source, target)]
        while open_ways:
            way = open_ways.pop()
            here = way[-1]
            if here.key == source.key:
                return way
            if here.key in seen or self.account(here) is not None:
                continue
            seen.add(here.key)
            # What has no account and no alias goes to the domain's catch-all.
            everybody = Address("", here.domain)
            if (onward := self.alias(here)) or not here.local:
                open_ways.extend((*way, further) for further in onward)
            elif everybody.key == source.key or self.alias(everybody):
                open_ways.append((*way, everybody))
        return ()


def show_source(source: Address) -> str:
    """As people write it: the address, or "@domain" for a catch-all and for what stands for a whole domain."""
    return str(source) if source.local else f"@{source.domain}"


def _roll_back(connection: sqlite3.Connection) -> None:
    if connection.in_transaction:  # SQLite has ended it itself after some errors
        connection.execute("ROLLBACK")


def _insert_hashes(connection: sqlite3.Connection, key: str, hashes: Iterable[str]) -> None:
    connection.executemany(
        "INSERT INTO passwords (account, position, hash) VALUES (?, ?, ?)",
        [(key, position, stored) for position, stored in enumerate(hashes)],
    )


def _check_quota(quota: int | None) -> None:
    if quota is not None and not 0 <= quota <= _MOST_QUOTA:
        raise AccountsError(f"a quota is between 0 (no limit) and {_MOST_QUOTA:,} octets, not {quota:,}")
