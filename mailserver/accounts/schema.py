"""
The file `accounts.sqlite3`: made so that nobody else can ever read it, opened, and brought to our schema.

In: a path.  Out: an SQLite connection in autocommit mode (WAL, foreign keys, synchronous=FULL).
Failures: `AccountsError` with the path and what is wrong.
Security: the file is created with mode 0600 before SQLite sees it, and never through a symbolic link; the files
`-wal` and `-shm` get its mode and owner from SQLite.  When root creates it, it belongs to the directory's owner.
"""

from __future__ import annotations

import os
import sqlite3
import stat
from pathlib import Path

#: How long a write waits for another process' write, in seconds.  Readers never wait for a writer (WAL).
BUSY_SECONDS = 5.0

#: Each entry brings a database from the version that is its index to the next one (PRAGMA user_version).
MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """
        CREATE TABLE accounts (
            key TEXT NOT NULL PRIMARY KEY,      -- Address.key
            local TEXT NOT NULL,                -- the address as it was given
            domain TEXT NOT NULL,
            quota INTEGER CHECK (quota >= 0),   -- octets; 0: no limit; NULL: the configuration's default
            enabled INTEGER NOT NULL CHECK (enabled IN (0, 1)),
            created INTEGER NOT NULL            -- seconds since the epoch
        ) WITHOUT ROWID
        """,
        """
        CREATE TABLE passwords (
            account TEXT NOT NULL REFERENCES accounts (key) ON DELETE CASCADE,
            position INTEGER NOT NULL,
            hash TEXT NOT NULL,                 -- {SCHEME}hash
            PRIMARY KEY (account, position)
        ) WITHOUT ROWID
        """,
        """
        CREATE TABLE aliases (
            key TEXT NOT NULL,                  -- Address.key, or "@domain" for a catch-all
            local TEXT NOT NULL,
            domain TEXT NOT NULL,
            target_key TEXT NOT NULL,
            target_local TEXT NOT NULL,
            target_domain TEXT NOT NULL,
            PRIMARY KEY (key, target_key)
        ) WITHOUT ROWID
        """,
        "CREATE INDEX aliases_by_target ON aliases (target_key)",
        """
        CREATE TABLE domains (
            name TEXT NOT NULL PRIMARY KEY,     -- in its normal form
            created INTEGER NOT NULL
        ) WITHOUT ROWID
        """,
    ),
    (
        """
        CREATE TABLE senders (                  -- whom an account may send as, beside itself and its aliases
            account TEXT NOT NULL REFERENCES accounts (key) ON DELETE CASCADE,
            key TEXT NOT NULL,                  -- Address.key, or "@domain" for every address of a domain
            local TEXT NOT NULL,
            domain TEXT NOT NULL,
            PRIMARY KEY (account, key)
        ) WITHOUT ROWID
        """,
        """
        CREATE TABLE secrets (                  -- random octets of this server
            name TEXT NOT NULL PRIMARY KEY,
            value BLOB NOT NULL
        ) WITHOUT ROWID
        """,
        # SQLite takes its randomness from the system's; this one hides who has an account, no more.
        "INSERT INTO secrets (name, value) VALUES ('scram', randomblob(32))",
    ),
)


class AccountsError(Exception):
    """Something about accounts, aliases or their database is not as asked for; `str()` is for the administrator."""


def prepare_database(path: Path, *, create: bool) -> None:
    """
    Make the file when it is missing (and create is true), and bring it to our schema.

    Raises AccountsError when it is missing, is no database of ours, or is from a newer version of this software.
    """
    try:
        if create:
            create_file(path)
        _check_file(path)
        connection = connect(path)
    except FileNotFoundError:
        raise AccountsError(f"{path}: no such file or directory") from None
    except OSError as error:
        raise AccountsError(f"{path}: {error.strerror}") from error
    except sqlite3.Error as error:
        raise AccountsError(f"{path}: {error}") from error
    try:
        _migrate(connection, path)
    except sqlite3.Error as error:
        raise AccountsError(f"{path}: {error}") from error
    finally:
        connection.close()


def connect(path: Path) -> sqlite3.Connection:
    """A connection of this thread to a database that exists.  Raises sqlite3.Error."""
    # mode=rw: never create it here, with whatever mode the umask leaves.
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=BUSY_SECONDS, isolation_level=None
    )
    try:
        connection.execute("PRAGMA foreign_keys = ON")
        # A changed password must survive a power cut: FULL also syncs the log of WAL at each commit.
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA journal_mode = WAL")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def create_file(path: Path) -> None:
    """Make an empty file of mode 0600 when there is none; what root makes belongs to the directory's owner."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        return
    try:
        os.fchmod(descriptor, 0o600)  # whatever the umask is
        if os.geteuid() == 0:
            # By the descriptor, and only for a file that we made: a path could lead root to somebody else's file.
            owner = os.stat(path.parent)
            os.fchown(descriptor, owner.st_uid, owner.st_gid)
    finally:
        os.close(descriptor)


def _check_file(path: Path) -> None:
    """Refuse what is no plain file of its own, and take away the rights that others should not have."""
    state = os.lstat(path)
    if not stat.S_ISREG(state.st_mode):
        raise AccountsError(f"{path}: not a regular file")
    if state.st_nlink != 1:
        raise AccountsError(f"{path}: has other names (hard links); a copy of a database must be a copy")
    if state.st_mode & 0o077 and state.st_uid == os.geteuid():
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.fchmod(descriptor, 0o600)
        finally:
            os.close(descriptor)


def _migrate(connection: sqlite3.Connection, path: Path) -> None:
    version = _version(connection)
    if version > len(MIGRATIONS):
        raise AccountsError(
            f"{path}: from a newer version of this software (schema {version}; this one knows {len(MIGRATIONS)})"
        )
    if version == len(MIGRATIONS):
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        # Again, inside the transaction: another process may have been quicker.
        for statements in MIGRATIONS[_version(connection) :]:
            for statement in statements:
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])
