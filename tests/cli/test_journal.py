"""`mailserver journal`: check tells and changes nothing; replay does what a start does, and never beside a server."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path

from mailserver.durable import segments
from mailserver.durable.files import FILES
from mailserver.durable.records import BLOCK, encode_header, encode_record
from mailserver.durable.segments import Running
from tests.cli.with_accounts import AccountsCommandCase

SIZE = 8 * BLOCK


class JournalTests(AccountsCommandCase):
    def setUp(self) -> None:
        super().setUp()
        self.maildir = self.data / "mail" / "example.org" / "joe"
        for kind in ("tmp", "new", "cur"):
            (self.maildir / kind).mkdir(parents=True)
        self.journal = self.data / "journal" / "1"

    def make(self, *records: tuple[str, bytes], running: bool = True) -> Path:
        """A journal whose server was killed; segment 1 is free, segment 2 has these records, a block each."""
        self.journal.mkdir(parents=True)
        (self.data / "journal" / "lock").touch()
        lock = segments.lock(self.journal, FILES)
        if running:
            segments.note_running(lock, Running(b"another mount", 1000.0))
        os.close(lock)
        for number in (1, 2):
            os.close(segments.make(self.journal / f"segment-{number:04}", SIZE, FILES))
        header = segments.in_use_header(1, b"another mount", 0.0)
        path = self.journal / "segment-0002"
        with path.open("r+b") as stream:
            stream.write(encode_header(header))
            for at, (name, content) in enumerate(records, 1):
                stream.seek(at * BLOCK)
                stream.write(encode_record(header.mark, f"example.org/joe/new/{name}".encode(), content) + content)
        return path

    def snapshot(self) -> dict[str, tuple[bytes, int]]:
        files = (path for path in self.data.rglob("*") if path.is_file())
        return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}

    def damage(self, path: Path, at: int) -> None:
        with path.open("r+b") as stream:
            stream.seek(at)
            stream.write(b"\xff")

    def messages(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (self.maildir / "new").iterdir()}

    def test_without_a_journal_there_is_nothing_to_tell(self) -> None:
        for command in ("check", "replay"):
            self.assertEqual(self.works("journal", command), "There is no journal.\n")
            self.assertEqual(json.loads(self.works("journal", command, "--format", "json")), [])
        self.assertFalse((self.data / "journal").exists())

    def test_check_lists_all_and_changes_nothing(self) -> None:
        self.make(("1", b"text"), ("2", b"more text"))
        (self.journal / "segment-0003").touch()
        before = self.snapshot()
        self.assertEqual(
            self.works("journal", "check"),
            f"{self.journal}: not stopped in good order\n"
            "  segment-0001  free\n"
            "  segment-0002  in use since 1970-01-01T00:00:00+00:00: 2 records, 103 octets\n"
            "  segment-0003  unused\n",
        )
        self.assertEqual(self.snapshot(), before)

    def test_check_tells_of_a_server_that_runs_and_of_one_that_has_stopped(self) -> None:
        self.make(running=False)
        self.assertIn(": stopped in good order\n", self.works("journal", "check"))
        lock = segments.lock(self.journal, FILES)
        self.addCleanup(os.close, lock)
        self.assertIn(": in use by a running server\n", self.works("journal", "check"))
        fcntl.flock(lock, fcntl.LOCK_UN)
        (self.journal / "lock").unlink()
        self.assertIn(": never used\n", self.works("journal", "check"))

    def test_damage_is_told_with_exit_status_1(self) -> None:
        path = self.make(("1", b"text"), ("2", b"text"), ("3", b"text"))
        self.damage(path, 2 * BLOCK + 30)
        (self.journal / "segment-0003").write_bytes(b"text" * 2000)
        (self.journal / "unreadable-1-segment-0009").touch()
        result = self.run_command("journal", "check")
        self.assertEqual(result.exit_code, 1)
        self.assertIn(f"    damaged: octet {2 * BLOCK}: a record is damaged\n", result.stdout)
        self.assertIn("  segment-0003  unreadable\n    damaged: not a journal segment\n", result.stdout)
        self.assertIn("  unreadable-1-segment-0009  set aside by a recovery\n", result.stdout)
        (told,) = json.loads(self.run_command("journal", "check", "--format", "json").stdout)
        self.assertEqual([len(each["damage"]) for each in told["segments"]], [0, 1, 1])

    def test_a_torn_end_is_no_damage(self) -> None:
        path = self.make(("1", b"text"), ("2", b"text"))
        self.damage(path, 2 * BLOCK + 30)
        self.assertIn(": 1 records,", self.works("journal", "check"))

    def test_a_segment_that_cannot_be_read_is_damage(self) -> None:
        self.make()

        def failing(path: Path) -> None:
            raise OSError(5, "cannot be read", str(path))

        self.patch(segments, "read", failing)
        self.assertEqual(self.run_command("journal", "check").exit_code, 1)

    def test_replay_recovers_and_tells(self) -> None:
        self.make(("1", b"text"), ("2", b"more"), ("3", b"moved"))
        (self.maildir / "new" / "2").write_bytes(b"mo")
        (self.maildir / "cur" / "3:2,S").write_bytes(b"moved")
        self.assertEqual(
            self.works("journal", "replay"),
            f"{self.journal}: 3 records in 1 segments: 1 whole, 2 written again, 0 expunged, 0 never whole;"
            " 0 torn files removed\n",
        )
        self.assertEqual(self.messages(), {"1": b"text", "2": b"more"})
        (told,) = json.loads(self.works("journal", "replay", "--format", "json"))
        self.assertEqual((told["records"], told["failed"], told["journal"]), (0, [], str(self.journal)))
        self.assertIn(
            ": stopped in good order\n  segment-0001  free\n  segment-0002  free\n", self.works("journal", "check")
        )

    def test_replay_beside_a_server_is_refused(self) -> None:
        self.make(("1", b"text"))
        lock = segments.lock(self.journal, FILES)
        self.addCleanup(os.close, lock)
        self.assertIn("another process uses this journal; the server is running", self.fails("journal", "replay"))
        self.assertEqual(self.messages(), {})

    def test_what_cannot_be_written_is_told_with_exit_status_1_and_kept(self) -> None:
        self.make(("1", b"text"), ("2", b"text"))
        (self.maildir / "new" / "1").mkdir()
        result = self.run_command("journal", "replay")
        self.assertEqual(result.exit_code, 1)
        self.assertIn("  failed, kept: example.org/joe/new/1: ", result.stdout)
        (self.maildir / "new" / "1").rmdir()
        self.assertIn(": 1 records in 1 segments: 0 whole, 1 written again", self.works("journal", "replay"))

    def test_a_journal_that_cannot_be_had_is_told(self) -> None:
        self.make()
        (self.journal / "lock").unlink()
        (self.journal / "lock").mkdir()
        self.assertIn("lock", self.fails("journal", "replay"))

    def test_root_works_as_the_owner_of_the_data(self) -> None:
        self.make(("1", b"text"))
        became: list[tuple[str, object]] = []
        for name in ("setgroups", "setegid", "seteuid"):
            self.patch(os, name, lambda value, name=name: became.append((name, value)))
        self.patch(os, "geteuid", lambda: 0)
        stat = Path.stat

        def owned(path: Path, **options: bool) -> os.stat_result:
            found = stat(path, **options)
            return os.stat_result((*found[:4], 123, 456, *found[6:])) if path == self.data else found

        self.patch(Path, "stat", owned)
        self.works("journal", "replay")
        self.assertEqual(became, [("setgroups", []), ("setegid", 456), ("seteuid", 123)])
