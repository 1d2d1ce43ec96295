"""The folder of held messages: one at a time for each, nothing lost, nothing that stops the others."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from mailserver.spool.folder import LEFTOVER_AGE, Claim
from mailserver.spool.held import Damaged, mark
from tests.spool.messages import ANNA, NOW, RECEIVED, TEXT, HeldOnDisk, held


class FolderCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.disk = HeldOnDisk(self.mktemp())
        self.folder = self.disk.folder

    def claim(self, id: str = "abc23456", kind: str = "held") -> Claim:  # noqa: A002 - the domain's term
        entry = self.folder.find(id, kind)
        assert entry is not None
        claim = self.folder.claim(entry)
        assert claim is not None
        self.addCleanup(claim.close)
        return claim


class ListTests(FolderCase):
    def test_the_earliest_release_comes_first(self) -> None:
        for number, release in enumerate((NOW + 5, NOW, NOW + 1_000_000)):
            self.disk.put(held(id=f"id{number}", release=release))
        self.assertEqual([entry.name.id for entry in self.folder.entries()[0]], ["id1", "id0", "id2"])

    def test_foreign_names_are_told_apart(self) -> None:
        self.disk.put(held())
        (self.folder.directory / "held" / "README").write_text("x")
        entries, foreign = self.folder.entries()
        self.assertEqual((len(entries), [Path(path).name for path in foreign]), (1, ["README"]))

    def test_where_there_is_no_folder_there_is_nothing(self) -> None:
        other = HeldOnDisk(self.mktemp())
        for name in ("held", "failed", "bad", "tmp"):
            (other.folder.directory / name).rmdir()
        self.assertEqual(other.folder.entries(), ([], []))
        self.assertEqual(other.folder.sweep(lambda _: True), 0)

    def test_each_account_is_counted_alone(self) -> None:
        self.disk.put(held(id="one"))
        self.assertEqual((self.folder.count(mark(ANNA)), self.folder.count(mark("x"))), (1, 0))

    def test_the_directories_are_ours_alone(self) -> None:
        for path in (self.folder.directory, *self.folder.directory.iterdir()):
            self.assertEqual(path.stat().st_mode & 0o777, 0o700, path)


class ClaimTests(FolderCase):
    def test_it_has_the_message(self) -> None:
        message = held()
        self.disk.put(message)
        claim = self.claim()
        self.assertEqual(claim.held, message)
        self.assertEqual((claim.text(0), claim.text(3, 4)), (RECEIVED + TEXT, (RECEIVED + TEXT)[3:7]))
        self.assertEqual((claim.octets, claim.text(claim.octets)), (len(RECEIVED + TEXT), b""))

    def test_nobody_else_can_have_it_until_it_is_closed(self) -> None:
        entry = self.disk.put(held())
        claim = self.claim()
        self.assertIsNone(self.folder.claim(entry))
        claim.close()
        claim.close()
        self.claim()

    def test_what_was_removed_or_replaced_meanwhile_cannot_be_had_by_its_old_file(self) -> None:
        entry = self.disk.put(held())
        claim = self.claim()
        claim.remove()
        self.assertIsNone(self.folder.claim(entry))
        self.assertEqual(self.disk.names(), [])

    def test_rescheduled_it_keeps_its_name_and_its_text(self) -> None:
        entry = self.disk.put(held())
        claim = self.claim()
        later = dataclasses.replace(claim.held, attempts=1, next_try=NOW + 300, trouble="452 x")
        claim.reschedule(later)
        claim.close()
        again = self.claim()
        self.assertEqual((again.entry, again.held, again.text(0)), (entry, later, RECEIVED + TEXT))

    def test_released_earlier_it_has_another_name(self) -> None:
        self.disk.put(held(release=NOW + 1000))
        claim = self.claim()
        now = dataclasses.replace(claim.held, release=NOW, next_try=NOW)
        claim.reschedule(now)
        claim.close()
        self.assertEqual(self.disk.names(), [now.name(claim.octets)])
        self.assertEqual(self.claim().held, now)

    def test_failed_it_is_kept_elsewhere(self) -> None:
        self.disk.put(held())
        claim = self.claim()
        claim.fail(dataclasses.replace(claim.held, lost=("x@example.org",)))
        claim.close()
        self.assertEqual((self.disk.names(), len(self.disk.names("failed"))), ([], 1))
        self.assertEqual(self.claim(kind="failed").held.lost, ("x@example.org",))

    def test_a_damaged_one_is_told(self) -> None:
        for damage in (b"", b"{}", b"{}\n", b"x" * 1000 + b"\n" + TEXT):
            entry = self.disk.put(held())
            Path(entry.path).write_bytes(damage)
            self.assertRaises(Damaged, self.folder.claim, entry)
            Path(entry.path).unlink()

    def test_a_torn_one_is_told(self) -> None:
        entry = self.disk.put(held())
        os.truncate(entry.path, os.stat(entry.path).st_size - 1)
        with self.assertRaisesRegex(Damaged, "its text has"):
            self.folder.claim(entry)

    def test_links_are_not_followed(self) -> None:
        entry = self.disk.put(held())
        other = self.disk.root / "other"
        Path(entry.path).rename(other)
        Path(entry.path).symlink_to(other)
        self.assertRaises(Damaged, self.folder.claim, entry)

    def test_descriptors_do_not_leak(self) -> None:
        entry = self.disk.put(held())
        Path(entry.path).write_bytes(b"x")
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(3):
            self.assertRaises(Damaged, self.folder.claim, entry)
        self.assertEqual(len(os.listdir("/proc/self/fd")), before)


class AsideTests(FolderCase):
    def test_nothing_is_lost(self) -> None:
        for content in (b"one", b"two"):
            path = self.folder.directory / "held" / "strange"
            path.write_bytes(content)
            self.folder.set_aside(str(path))
        contents = {(self.folder.directory / "bad" / name).read_bytes() for name in self.disk.names("bad")}
        self.assertEqual((contents, self.disk.names()), ({b"one", b"two"}, []))

    def test_leftovers_of_the_dead_and_of_old_times_are_swept(self) -> None:
        for name, age in (("dead", 0.0), ("alive", 0.0), ("old", LEFTOVER_AGE + 1)):
            path = self.folder.directory / "tmp" / name
            path.write_bytes(b"x")
            os.utime(path, (NOW - age, NOW - age))
        self.assertEqual(self.folder.sweep(lambda name: name == "dead", lambda: NOW), 2)
        self.assertEqual(self.disk.names("tmp"), ["alive"])
