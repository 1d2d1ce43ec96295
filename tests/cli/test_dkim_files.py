"""Where DKIM keys are: modes, owners, no link followed, nothing replaced, all or none."""

from __future__ import annotations

import os
import stat
from datetime import UTC, datetime
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver.cli import dkim_files
from mailserver.cli.dkim_files import KeyFolder, default_selector, normal_selector
from mailserver.durable import Files


class FolderCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.addCleanup(os.umask, os.umask(0))
        self.data = Path(self.mktemp()).absolute()
        self.data.mkdir(mode=0o700)
        self.folder = KeyFolder(self.data)

    def files(self) -> dict[str, bytes]:
        return {
            str(path.relative_to(self.data)): path.read_bytes() for path in self.data.rglob("*") if path.is_file()
        }


class WritingTests(FolderCase):
    def test_keys_are_for_the_server_alone(self) -> None:
        paths = self.folder.write("example.org", {"a": b"A", "b": b"B"})
        self.assertEqual(paths, (self.data / "dkim/example.org/a.pem", self.data / "dkim/example.org/b.pem"))
        self.assertEqual(self.files(), {"dkim/example.org/a.pem": b"A", "dkim/example.org/b.pem": b"B"})
        for name, mode in (("dkim", 0o700), ("dkim/example.org", 0o700), ("dkim/example.org/a.pem", 0o600)):
            self.assertEqual(stat.S_IMODE((self.data / name).stat().st_mode), mode, name)

    def test_none_is_replaced_and_then_none_is_written(self) -> None:
        self.folder.write("example.org", {"b": b"old"})
        error = self.assertRaises(FileExistsError, self.folder.write, "example.org", {"a": b"new", "b": b"new"})
        self.assertEqual(error.filename, str(self.data / "dkim/example.org/b.pem"))
        self.assertEqual(self.files(), {"dkim/example.org/b.pem": b"old"})

    def test_a_key_that_cannot_be_written_whole_is_taken_away(self) -> None:
        def full(_files: Files, _descriptor: int) -> None:
            raise OSError(28, "No space left on device")

        self.folder.write("example.org", {"old": b"old"})
        self.patch(Files, "fsync", full)
        self.assertRaises(OSError, self.folder.write, "example.org", {"a": b"A"})
        self.assertEqual(self.files(), {"dkim/example.org/old.pem": b"old"})

    def test_no_link_is_followed(self) -> None:
        elsewhere = self.data.parent / f"{self.data.name}-elsewhere"
        elsewhere.mkdir()
        (self.data / "dkim").symlink_to(elsewhere)
        self.assertRaises(OSError, self.folder.write, "example.org", {"a": b"A"})
        (self.data / "dkim").unlink()
        (self.data / "dkim").mkdir()
        (self.data / "dkim/example.org").symlink_to(elsewhere)
        self.assertRaises(OSError, self.folder.write, "example.org", {"a": b"A"})
        (self.data / "dkim/example.net").mkdir()
        (self.data / "dkim/example.net/a.pem").symlink_to(elsewhere / "a.pem")
        self.assertRaises(FileExistsError, self.folder.write, "example.net", {"a": b"A"})
        self.assertEqual(list(elsewhere.iterdir()), [])

    def test_what_root_makes_belongs_to_whom_the_data_directory_belongs_to(self) -> None:
        given: list[tuple[int, int, int]] = []
        self.patch(dkim_files.os, "geteuid", lambda: 0)
        self.patch(dkim_files.os, "fchown", lambda _file, uid, gid: given.append((uid, gid, 0)))
        self.folder.write("example.org", {"a": b"A"})
        status = self.data.stat()
        self.assertEqual(given, [(status.st_uid, status.st_gid, 0)] * 3)

    def test_others_leave_owners_alone(self) -> None:
        self.patch(dkim_files.os, "geteuid", lambda: 1000)
        self.patch(dkim_files.os, "fchown", lambda *_args: self.fail("not ours to give"))
        self.folder.write("example.org", {"a": b"A"})

    def test_files_and_folders_survive_a_power_cut(self) -> None:
        synced: list[str] = []
        sync = Files.fsync

        def record(files: Files, descriptor: int) -> None:
            synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
            sync(files, descriptor)

        self.patch(Files, "fsync", record)
        self.folder.write("example.org", {"a": b"A"})
        expected = [
            self.data,
            self.data / "dkim",
            self.data / "dkim/example.org/a.pem",
            self.data / "dkim/example.org",
        ]
        self.assertEqual(synced, [str(path) for path in expected])

    if not os.path.isdir("/proc/self/fd"):
        test_files_and_folders_survive_a_power_cut.skip = "needs /proc"  # type: ignore[attr-defined]


class ReadingTests(FolderCase):
    def test_keys_are_listed_in_order_and_read(self) -> None:
        self.assertEqual(self.folder.keys(), ())
        self.folder.write("example.org", {"s2": b"2", "s2-x": b"3", "s1.eu": b"1"})
        self.folder.write("example.com", {"s": b"4"})
        keys = (("example.com", "s"), ("example.org", "s1.eu"), ("example.org", "s2"), ("example.org", "s2-x"))
        self.assertEqual(self.folder.keys(), keys)
        self.assertEqual([self.folder.read(*key) for key in keys], [b"4", b"1", b"2", b"3"])

    def test_what_is_no_key_is_passed_over(self) -> None:
        self.folder.write("example.org", {"s": b"1"})
        folder = self.data / "dkim/example.org"
        for name in ("s.txt", ".s.pem.tmp", ".hidden.pem", "UPPER.pem", ".pem", "a b.pem"):
            (folder / name).write_text("")
        (self.data / "dkim/file.example").write_text("")
        (self.data / "dkim/Not Normal").mkdir()
        self.assertEqual(self.folder.keys(), (("example.org", "s"),))

    def test_only_regular_files_are_read(self) -> None:
        self.folder.write("example.org", {"s": b"1"})
        folder = self.data / "dkim/example.org"
        os.mkfifo(folder / "fifo.pem")
        (folder / "link.pem").symlink_to(folder / "s.pem")
        for name in ("fifo", "link", "missing"):
            error = self.assertRaises(OSError, self.folder.read, "example.org", name)
            self.assertEqual(error.filename, str(folder / f"{name}.pem"))


class NamesTests(SynchronousTestCase):
    def test_a_selector_has_its_month(self) -> None:
        self.assertEqual(default_selector(datetime(2026, 3, 31, tzinfo=UTC)), "ms202603")

    def test_selectors_are_normalised(self) -> None:
        self.assertEqual(normal_selector("S1.EU", "example.org"), "s1.eu")

    def test_what_the_dns_cannot_hold_is_refused(self) -> None:
        for text in (
            "",
            ".",
            "..",
            "../x",
            "a/b",
            "a b",
            "-a",
            "a\x00",
            "[192.0.2.1]",
            "a" * 64,
            ".".join(["a" * 60] * 4),
        ):
            self.assertRaises(ValueError, normal_selector, text, "example.org")

    @given(st.text(max_size=20))
    @settings(deadline=None, max_examples=200)
    def test_no_selector_leads_out_of_the_folder(self, text: str) -> None:
        try:
            selector = normal_selector(text, "example.org")
        except ValueError:
            return
        path = KeyFolder(Path("/data")).path("example.org", selector)
        self.assertEqual(path.parent, Path("/data/dkim/example.org"))
        self.assertFalse(path.name.startswith("."))
