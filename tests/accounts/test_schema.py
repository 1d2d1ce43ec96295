"""Tests of mailserver.accounts.schema: the file, its rights and its versions."""

from __future__ import annotations

import os
import sqlite3
import stat
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from mailserver.accounts import schema
from mailserver.accounts.schema import MIGRATIONS, AccountsError, connect, prepare_database


class FileTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.path = self.folder / "accounts.sqlite3"

    def _connect(self) -> sqlite3.Connection:
        connection = connect(self.path)
        self.addCleanup(connection.close)
        return connection

    def _files(self) -> list[Path]:
        return sorted(self.folder.iterdir())

    def test_nobody_else_can_read_the_file_or_its_log_whatever_the_umask(self) -> None:
        for mask in (0o000, 0o022, 0o277):
            before = os.umask(mask)
            try:
                self.path.unlink(missing_ok=True)
                prepare_database(self.path, create=True)
                connection = self._connect()
                connection.execute("INSERT INTO domains VALUES ('example.org', 0)")
            finally:
                os.umask(before)
            self.assertEqual([file.name[16:] for file in self._files()], ["", "-shm", "-wal"])
            for file in self._files():
                self.assertEqual(stat.S_IMODE(file.stat().st_mode), 0o600, file)
            connection.close()

    def test_the_file_is_never_open_to_others_while_it_is_made(self) -> None:
        modes: list[int] = []
        real = os.open

        def recorded(path: Path, flags: int, mode: int = 0o777) -> int:
            self.assertTrue(flags & os.O_EXCL and flags & os.O_NOFOLLOW)
            descriptor = real(path, flags, mode)
            modes.append(stat.S_IMODE(os.fstat(descriptor).st_mode))
            return descriptor

        self.patch(schema.os, "open", recorded)
        before = os.umask(0)
        try:
            prepare_database(self.path, create=True)
        finally:
            os.umask(before)
        self.assertEqual(modes, [0o600])

    def test_rights_that_others_have_are_taken_away(self) -> None:
        prepare_database(self.path, create=True)
        self.path.chmod(0o644)
        prepare_database(self.path, create=False)
        self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), 0o600)

    def test_root_gives_the_files_to_the_owner_of_the_directory(self) -> None:
        if os.geteuid() != 0:
            raise SkipTest("needs root")
        os.chown(self.folder, 12345, 23456)
        prepare_database(self.path, create=True)
        self._connect().execute("INSERT INTO domains VALUES ('example.org', 0)")
        self.assertEqual(len(self._files()), 3)
        for file in self._files():
            self.assertEqual((file.stat().st_uid, file.stat().st_gid), (12345, 23456), file)

    def test_a_commit_waits_for_the_disk_and_the_log_is_a_wal(self) -> None:
        prepare_database(self.path, create=True)
        connection = self._connect()
        for pragma, value in [
            ("synchronous", 2),
            ("journal_mode", "wal"),
            ("foreign_keys", 1),
            ("busy_timeout", 5000),
        ]:
            self.assertEqual(connection.execute(f"PRAGMA {pragma}").fetchone(), (value,), pragma)

    def test_what_is_no_database_of_ours_is_refused_by_name(self) -> None:
        def other_text() -> None:
            self.path.write_text("no database, but long enough to be taken for one\n" * 100)

        def directory() -> None:
            self.path.mkdir()

        def symbolic_link() -> None:
            (self.folder / "target").touch()
            self.path.symlink_to("target")

        def hard_link() -> None:
            (self.folder / "target").touch()
            os.link(self.folder / "target", self.path)

        for make, reason in [
            (other_text, "file is not a database"),
            (directory, "not a regular file"),
            (symbolic_link, "not a regular file"),
            (hard_link, "has other names"),
        ]:
            make()
            error = self.assertRaises(AccountsError, prepare_database, self.path, create=True)
            self.assertIn(f"{self.path}: ", str(error))
            self.assertIn(reason, str(error))
            self.path.rmdir() if self.path.is_dir() else self.path.unlink()
            (self.folder / "target").unlink(missing_ok=True)

    def test_a_missing_file_is_made_only_when_asked_for(self) -> None:
        error = self.assertRaises(AccountsError, prepare_database, self.path, create=False)
        self.assertEqual(str(error), f"{self.path}: no such file or directory")
        self.assertEqual(self._files(), [])

    def test_a_missing_directory_is_told(self) -> None:
        path = self.folder / "none" / "accounts.sqlite3"
        error = self.assertRaises(AccountsError, prepare_database, path, create=True)
        self.assertEqual(str(error), f"{path}: no such file or directory")


class VersionTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.path = Path(self.mktemp())
        prepare_database(self.path, create=True)

    def _version(self) -> int:
        connection = connect(self.path)
        try:
            return int(connection.execute("PRAGMA user_version").fetchone()[0])
        finally:
            connection.close()

    def test_a_new_database_has_our_version(self) -> None:
        self.assertEqual(self._version(), len(MIGRATIONS))

    def test_a_newer_schema_is_refused_and_left_alone(self) -> None:
        self.patch(schema, "MIGRATIONS", ())
        error = self.assertRaises(AccountsError, prepare_database, self.path, create=False)
        self.assertIn(f"newer version of this software (schema {len(MIGRATIONS)}; this one knows 0)", str(error))
        self.assertEqual(self._version(), len(MIGRATIONS))

    def test_an_older_schema_is_brought_to_ours_and_keeps_its_rows(self) -> None:
        connection = connect(self.path)
        connection.execute("INSERT INTO domains VALUES ('example.org', 7)")
        connection.close()
        self.patch(schema, "MIGRATIONS", (*MIGRATIONS, ("ALTER TABLE domains ADD COLUMN note TEXT",)))
        prepare_database(self.path, create=False)
        self.assertEqual(self._version(), len(MIGRATIONS) + 1)
        connection = connect(self.path)
        self.addCleanup(connection.close)
        self.assertEqual(connection.execute("SELECT * FROM domains").fetchall(), [("example.org", 7, None)])

    def test_a_migration_that_fails_leaves_the_old_version_whole(self) -> None:
        broken = ("ALTER TABLE domains ADD COLUMN note TEXT", "ALTER TABLE absent ADD COLUMN note TEXT")
        self.patch(schema, "MIGRATIONS", (*MIGRATIONS, broken))
        error = self.assertRaises(AccountsError, prepare_database, self.path, create=False)
        self.assertIn("no such table: absent", str(error))
        self.assertEqual(self._version(), len(MIGRATIONS))
        connection = connect(self.path)
        self.addCleanup(connection.close)
        self.assertRaises(sqlite3.Error, connection.execute, "SELECT note FROM domains")
