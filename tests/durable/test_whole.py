"""Whole files are replaced, moved and removed for good, whatever a power cut takes."""

from __future__ import annotations

from itertools import count
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver.durable.whole import move_file, remove_file, sync_file, write_file
from tests.durable.disk import RecordingFiles, after_power_cut


class WholeTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.make()

    def make(self) -> None:
        self.dir = Path(self.mktemp()).absolute()
        for name in ("a", "b", "tmp"):
            (self.dir / name).mkdir(parents=True)
        self.files = RecordingFiles()
        self._numbers = count()

    def write(self, path: str, *blocks: bytes) -> int:
        """Returns the number of operations until it was promised."""
        temporary = f"{self.dir}/tmp/{next(self._numbers)}"
        write_file(f"{self.dir}/{path}", temporary, blocks, self.files)
        return len(self.files.operations)

    def test_a_file_is_written_and_replaced(self) -> None:
        for content in (b"old", b"new"):
            self.write("a/x", content[:1], content[1:])
            self.assertEqual((self.dir / "a/x").read_bytes(), content)
            self.assertEqual((self.dir / "a/x").stat().st_mode & 0o777, 0o600)
        self.assertEqual(list((self.dir / "tmp").iterdir()), [])

    def test_after_trouble_the_old_file_is_there_and_nothing_else(self) -> None:
        self.write("a/x", b"old")
        for call in ("write", "fsync", "rename"):
            self.files.fail = {call}
            self.assertRaises(OSError, self.write, "a/x", b"new")
            self.assertEqual((self.dir / "a/x").read_bytes(), b"old", call)
            self.assertEqual(list((self.dir / "tmp").iterdir()), [], call)

    def test_what_was_removed_or_moved_is_gone_from_there(self) -> None:
        self.write("a/x", b"x")
        move_file(f"{self.dir}/a/x", f"{self.dir}/b/y", self.files)
        self.assertEqual([path.name for path in self.dir.glob("[ab]/*")], ["y"])
        remove_file(f"{self.dir}/b/y", self.files)
        self.assertEqual(list(self.dir.glob("[ab]/*")), [])

    def test_a_file_of_others_is_synced_with_its_name(self) -> None:
        (self.dir / "a/x").write_bytes(b"x")
        sync_file(f"{self.dir}/a/x", self.files)
        self.assertEqual(self.files.calls.count("fsync"), 2)

    @settings(max_examples=60, deadline=None)
    @given(st.data())
    def test_what_was_promised_is_there_after_a_power_cut(self, data: st.DataObject) -> None:
        self.make()
        first = self.write("a/x", b"one")
        second = self.write("a/x", b"two" * 100)
        move_file(f"{self.dir}/a/x", f"{self.dir}/b/x", self.files)
        third = len(self.files.operations)
        remove_file(f"{self.dir}/b/x", self.files)
        fourth = len(self.files.operations)
        prefix = data.draw(st.integers(0, fourth))
        kept = data.draw(st.sets(st.integers(0, fourth)))
        left = after_power_cut(self.files.operations[:prefix], kept.__contains__)
        old, new = left.get(self.dir / "a/x"), left.get(self.dir / "b/x")
        if first <= prefix < second:
            self.assertIn(old, (b"one", b"two" * 100))
        elif prefix == second:
            self.assertEqual(old, b"two" * 100)
        if third <= prefix < fourth:
            self.assertIn(
                (old, new), ((None, b"two" * 100), (None, None)) if prefix > third else ((None, b"two" * 100),)
            )
        if prefix == fourth:
            self.assertEqual((old, new), (None, None))
