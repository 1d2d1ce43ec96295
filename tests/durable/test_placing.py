"""Files are put in their places at once, or nothing of them is left; what cannot be done at once is told."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mailserver.durable import NewFile
from mailserver.durable.placing import NotAtOnce, Placed, place
from tests.durable.disk import SMALL, Disk, RecordingFiles


class PlaceTests(SynchronousTestCase):
    def disk(self, files: RecordingFiles | None = None) -> Disk:
        disk = Disk(self.mktemp(), files)
        disk.maildirs("a", "b", "c")
        return disk

    def place(self, disk: Disk, *files: NewFile, keep_open: bool = False, partial: bool = False) -> Placed:
        return place(files, disk.durable._tools, keep_open=keep_open, partial=partial)

    def file(self, disk: Disk, content: bytes, *mailboxes: str, **options: Any) -> NewFile:
        return NewFile(disk.draft(content), tuple(disk.place(each, "x") for each in mailboxes), **options)

    def check_clean(self, disk: Disk) -> None:
        self.assertEqual((disk.tree("new"), disk.tree("tmp"), disk.files.opened), ({}, {}, {}))

    def test_a_small_file_is_written_linked_and_closed_and_its_octets_are_kept_for_the_journal(self) -> None:
        disk = self.disk()
        placed = self.place(disk, self.file(disk, b"text", "a", "b"))
        self.assertEqual(disk.files.calls, ["open", "write", "link", "link", "unlink", "close"])
        self.assertEqual(placed.contents, [([disk.place("a", "x"), disk.place("b", "x")], b"text")])
        self.assertEqual((placed.octets, placed.open, disk.files.opened), (4, [], {}))
        self.assertEqual(disk.tree("new"), {"a/x": b"text", "b/x": b"text"})

    def test_for_fsync_its_descriptor_is_kept_and_not_its_octets(self) -> None:
        disk = self.disk()
        placed = self.place(disk, self.file(disk, b"text", "a"), keep_open=True)
        self.assertEqual((placed.contents, len(placed.open)), (None, 1))
        placed.undo()
        self.check_clean(disk)

    def test_a_large_file_is_its_drafts_own(self) -> None:
        disk = self.disk()
        file = self.file(disk, b"x" * SMALL * 2, "a", "b")
        placed = self.place(disk, file)
        self.assertEqual((placed.contents, len(placed.open), file.draft.temporary), (None, 1, None))
        self.assertEqual((disk.tree("tmp"), len(disk.tree("new"))), ({}, 2))
        placed.undo()
        self.check_clean(disk)

    def test_what_a_large_draft_still_has_in_memory_is_written_too(self) -> None:
        for keep_open in (False, True):
            disk = self.disk()
            new = NewFile(disk.draft(b"x" * SMALL * 2, b"the ", b"rest"), (disk.place("a", "x"),))
            self.place(disk, new, keep_open=keep_open).close()
            self.assertEqual((disk.tree("new"), disk.files.opened), ({"a/x": b"x" * SMALL * 2 + b"the rest"}, {}))

    def test_starts_that_differ_are_files_of_their_own(self) -> None:
        disk = self.disk()
        draft = disk.draft(b"one:text")
        first, second = NewFile(draft, (disk.place("a", "x"),)), NewFile(draft, (disk.place("b", "x"),), b"two:", 4)
        self.place(disk, first, second)
        self.assertEqual(disk.tree("new"), {"a/x": b"one:text", "b/x": b"two:text"})

    def test_what_takes_long_is_left_to_a_thread_and_nothing_of_it_is_there(self) -> None:
        large = b"x" * SMALL * 2
        for files in (
            lambda disk: [self.file(disk, b"text", "a", "missing")],
            lambda disk: [NewFile(disk.draft(b"text", mailbox="missing"), (disk.place("a", "x"),))],
            lambda disk: [self.file(disk, large, "a", head=b"1", skip=1)],
            lambda disk: [self.file(disk, b"text", "a"), NewFile(disk.draft(large), (disk.place("b", "y"),))],
            lambda disk: [self.file(disk, large, "a"), NewFile(disk.draft(b"t"), (disk.place("missing", "y"),))],
        ):
            for keep_open in (False, True):
                disk = self.disk()
                new = files(disk)
                self.assertRaises(NotAtOnce, self.place, disk, *new, keep_open=keep_open)
                self.assertEqual(disk.tree("new"), {})
                for file in new:
                    file.draft.discard()
                self.check_clean(disk)

    def test_another_file_system_is_left_to_a_thread(self) -> None:
        for content in (b"text", b"x" * SMALL * 2):
            disk = self.disk()
            disk.durable.device = os.stat(disk.root).st_dev
            self.place(disk, self.file(disk, content, "b"))
            disk.files.devices = lambda descriptor: 1
            file = self.file(disk, content, "a")
            self.assertRaises(NotAtOnce, self.place, disk, file)
            file.draft.discard()
            self.assertEqual((list(disk.tree("new")), disk.tree("tmp")), (["b/x"], {}))

    def test_a_file_that_needs_copies_is_left_to_a_thread(self) -> None:
        disk = self.disk()
        disk.files.links = lambda source, target: errno.EXDEV if "/b/" in target else 0
        self.assertRaises(NotAtOnce, self.place, disk, self.file(disk, b"text", "a", "b"))
        self.check_clean(disk)

    def test_a_name_that_is_taken_is_not_overwritten(self) -> None:
        disk = self.disk()
        Path(disk.place("b", "x")).write_bytes(b"old")
        for content in (b"text", b"x" * SMALL * 2):
            file = self.file(disk, content, "a", "b")
            self.assertRaises(FileExistsError, self.place, disk, file)
            file.draft.discard()
            self.assertEqual((disk.tree("new"), disk.tree("tmp")), ({"b/x": b"old"}, {}))

    def test_whatever_call_fails_nothing_is_left(self) -> None:
        for size in (4, SMALL * 2):
            for keep_open in (False, True):
                total = None
                for fail_at in range(-1, 20):
                    disk = self.disk()
                    file = self.file(disk, b"x" * size, "a", "b")
                    disk.files.calls.clear()
                    disk.files.fail_at = fail_at
                    if fail_at < 0:
                        self.place(disk, file, keep_open=keep_open).close()
                        total = len(disk.files.calls) - keep_open - (size > SMALL and not keep_open)
                    elif total is not None and fail_at < total:
                        self.assertRaises(OSError, self.place, disk, file, keep_open=keep_open)
                        file.draft.discard()
                        self.check_clean(disk)

    def test_of_a_partial_creation_a_damaged_place_is_left_out(self) -> None:
        for content in (b"text", b"x" * SMALL * 2):
            disk = self.disk()
            (disk.root / "b" / "new").rmdir()
            (disk.root / "b" / "new").write_bytes(b"")
            placed = self.place(disk, self.file(disk, content, "a", "b", "c"), partial=True)
            self.assertEqual(list(placed.failed), [disk.place("b", "x")])
            self.assertEqual(disk.tree("new"), {"a/x": content, "c/x": content})
            placed.close()
            self.assertEqual((disk.tree("tmp"), disk.files.opened), ({}, {}))

    def test_of_a_partial_creation_any_tmp_will_do(self) -> None:
        disk = self.disk()
        (disk.root / "a" / "tmp").rmdir()
        (disk.root / "a" / "tmp").write_bytes(b"")
        placed = self.place(disk, self.file(disk, b"text", "a", "b"), partial=True)
        self.assertEqual((placed.failed, disk.tree("new")), ({}, {"a/x": b"text", "b/x": b"text"}))

    def test_a_partial_creation_without_a_place_fails_and_so_does_one_on_a_full_disk(self) -> None:
        for links, number in ((lambda s, t: errno.EACCES, errno.EACCES),
                              (lambda s, t: errno.ENOSPC if "/b/" in t else 0, errno.ENOSPC)):  # fmt: skip
            disk = self.disk()
            disk.files.links = links
            error = self.assertRaises(OSError, self.place, disk, self.file(disk, b"text", "a", "b"), partial=True)
            self.assertEqual(error.errno, number)
            self.check_clean(disk)

    def test_what_a_reader_has_moved_meanwhile_cannot_be_taken_away(self) -> None:
        disk = self.disk()
        placed = self.place(disk, self.file(disk, b"text", "a", "b"))
        os.rename(disk.place("a", "x"), disk.root / "x:2,S")
        placed.undo()
        self.check_clean(disk)
