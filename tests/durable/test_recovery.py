"""After a crash what was acknowledged is there whole and once; what a reader has done to it stays done."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from itertools import count
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from mailserver.durable import segments
from mailserver.durable.files import FILES, Files
from mailserver.durable.records import BLOCK, Header, encode_header, encode_record, padding
from mailserver.durable.recovery import MARGIN, Place, Report, recover, rewrite
from mailserver.durable.segments import Running
from mailserver.maildir.names import sizes
from tests.durable.disk import RecordingFiles

SIZE = 16 * BLOCK
TEXT = b"Subject: x\n\ntext\n"
NAME = f"1000.M1P2Q3.h,S={len(TEXT)},W=20"


class JournalOnDisk:
    """A journal and its mail, made by hand."""

    def __init__(self, root: str) -> None:
        self.root = Path(root).absolute()
        self.mail, self.journal = self.root / "mail", self.root / "journal"
        self.journal.mkdir(parents=True)
        self.mailbox("u")

    def mailbox(self, name: str) -> Path:
        for kind in ("tmp", "new", "cur"):
            (self.mail / "d" / name / kind).mkdir(parents=True)
        return self.mail / "d" / name

    def path(self, name: str = NAME, mailbox: str = "u", kind: str = "new") -> Path:
        return self.mail / "d" / mailbox / kind / name

    def segment(
        self,
        number: int,
        *records: tuple[str, bytes],
        mount: bytes = b"before",
        sequence: int = 1,
        since: float = 900.0,
    ) -> Path:
        """Each record begins at a block: the first at BLOCK.  Names with "," between."""
        header = Header(True, segments.new_mark(b"%08d" % sequence), sequence, mount, since)
        octets = encode_header(header)
        for names, content in records:
            octets += encode_record(header.mark, names.replace("|", "\0").encode(), content) + content
            octets += bytes(padding(len(octets)))
        path = self.journal / f"segment-{number:04}"
        path.write_bytes(octets.ljust(SIZE, b"\0"))
        return path

    def recover(
        self,
        *,
        files: Files = FILES,
        mount: bytes = b"after",
        last: Running | None = None,
        expunged: Callable[[str], bool] = lambda path: False,
    ) -> Report:
        numbers = count()
        place = Place(
            self.mail, files, lambda: f"r{next(numbers)}", mount, expunged, lambda name: sizes(name)[0]
        )  # fmt: skip
        return recover(self.journal, place, last)

    def messages(self) -> dict[str, bytes]:
        """Everything below the mail: path -> content."""
        return {
            str(path.relative_to(self.mail / "d")): path.read_bytes()
            for path in self.mail.rglob("*")
            if path.is_file()
        }

    def in_use(self) -> list[str]:
        return [path.name for path in segments.segment_paths(self.journal)
                if (header := segments.read(path).header) and header.in_use]  # fmt: skip


def name_of(kind: str = "new", mailbox: str = "u") -> str:
    return f"d/{mailbox}/{kind}/{NAME}"


class RecoverTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.disk = JournalOnDisk(self.mktemp())

    def test_nothing_to_do_is_done(self) -> None:
        self.assertEqual(self.disk.recover(), Report())

    def test_what_is_missing_is_written_and_the_segment_is_free(self) -> None:
        self.disk.segment(1, (name_of(), TEXT))
        report = self.disk.recover()
        self.assertEqual((report.segments, report.records, report.written, report.whole), (1, 1, 1, 0))
        self.assertEqual(self.disk.messages(), {f"u/new/{NAME}": TEXT})
        self.assertEqual(self.disk.path().stat().st_mode & 0o777, 0o600)
        self.assertEqual(self.disk.in_use(), [])
        self.assertEqual(self.disk.recover(), Report())

    def test_what_is_torn_is_written_again(self) -> None:
        for torn in (b"", TEXT[:5], bytes(len(TEXT)), TEXT + b"more"):
            self.disk.segment(1, (name_of(), TEXT))
            self.disk.path().write_bytes(torn)
            self.assertEqual(self.disk.recover().written, 1)
            self.assertEqual(self.disk.messages(), {f"u/new/{NAME}": TEXT})

    def test_what_is_torn_under_another_name_is_written_there(self) -> None:
        self.disk.segment(1, (name_of(), TEXT))
        self.disk.path(NAME + ":2,S", kind="cur").write_bytes(TEXT[:3])
        self.disk.recover()
        self.assertEqual(self.disk.messages(), {f"u/cur/{NAME}:2,S": TEXT})

    def test_what_a_reader_has_moved_is_not_delivered_again(self) -> None:
        folder = self.disk.mail / "d" / "u" / ".Sent"
        (folder / "cur").mkdir(parents=True)
        for path in (
            self.disk.path(NAME + ":2,S", kind="cur"),
            self.disk.path(NAME.partition(",")[0] + ":2,FRS", kind="cur"),
            self.disk.path(NAME, kind="cur"),
            folder / "cur" / f"{NAME}:2,",
        ):
            self.disk.segment(1, (name_of(), TEXT))
            path.write_bytes(TEXT)
            report = self.disk.recover()
            self.assertEqual((report.whole, report.written), (1, 0))
            self.assertEqual(list(self.disk.messages()), [str(path.relative_to(self.disk.mail / "d"))])
            path.unlink()

    def test_one_torn_message_does_not_hide_that_the_next_was_moved(self) -> None:
        self.disk.segment(1, ("d/u/new/torn", b"torn text"), (name_of(), TEXT))
        self.disk.path("torn").write_bytes(b"to")
        self.disk.path(NAME + ":2,S", kind="cur").write_bytes(TEXT)
        self.disk.recover()
        self.assertEqual(self.disk.messages(), {"u/new/torn": b"torn text", f"u/cur/{NAME}:2,S": TEXT})

    def test_what_a_reader_has_deleted_stays_deleted(self) -> None:
        asked: list[str] = []

        def expunged(path: str) -> bool:
            asked.append(path)
            return True

        self.disk.segment(1, (name_of(), TEXT))
        report = self.disk.recover(expunged=expunged)
        self.assertEqual((report.expunged, report.written, self.disk.messages()), (1, 0, {}))
        self.assertEqual((asked, self.disk.in_use()), ([name_of()], []))

    def test_on_the_same_mount_nothing_comes_back_and_the_segment_is_free(self) -> None:
        self.disk.segment(1, (name_of(), TEXT), mount=b"after")
        report = self.disk.recover(last=Running(b"after", 1000.0))
        self.assertEqual((report.records, report.written, self.disk.messages()), (1, 0, {}))
        self.assertEqual(self.disk.in_use(), [])

    def test_a_segment_of_this_mount_is_not_replayed_because_of_another(self) -> None:
        self.disk.segment(1, ("d/u/new/old", b"old"), mount=b"before")
        self.disk.segment(2, ("d/u/new/young", b"young"), mount=b"after", sequence=2)
        self.disk.recover()
        self.assertEqual(list(self.disk.messages()), ["u/new/old"])

    def test_where_no_mount_can_be_told_it_is_replayed(self) -> None:
        self.disk.segment(1, (name_of(), TEXT), mount=b"")
        self.assertEqual(self.disk.recover(mount=b"").written, 1)

    def test_several_names_are_one_file_again(self) -> None:
        self.disk.mailbox("v")
        self.disk.mailbox("w")
        self.disk.segment(1, ("|".join(name_of(mailbox=each) for each in "uvwx"), TEXT))
        self.disk.path(mailbox="v").write_bytes(TEXT[:2])
        report = self.disk.recover()
        self.assertEqual(report.written, 4)
        self.assertEqual(self.disk.messages(), {f"{each}/new/{NAME}": TEXT for each in "uvwx"})
        inodes = {os.stat(self.disk.path(mailbox=each)).st_ino for each in "uw"}
        self.assertEqual(len(inodes), 1)
        self.assertTrue((self.disk.mail / "d/x/tmp").is_dir() and (self.disk.mail / "d/x/cur").is_dir())

    def test_a_damaged_record_is_told_and_those_around_it_are_restored(self) -> None:
        path = self.disk.segment(1, *((f"d/u/new/{each}", each.encode()) for each in "abc"))
        octets = bytearray(path.read_bytes())
        octets[2 * BLOCK + 20] ^= 1
        path.write_bytes(octets)
        report = self.disk.recover()
        self.assertEqual(report.damaged, [f"{path}: octet {2 * BLOCK}: a record is damaged and cannot be read"])
        self.assertEqual(sorted(self.disk.messages()), ["u/new/a", "u/new/c"])
        self.assertEqual(self.disk.in_use(), [])

    def test_a_torn_tail_was_never_acknowledged(self) -> None:
        path = self.disk.segment(1, ("d/u/new/a", b"a"), ("d/u/new/b", b"b" * 5000))
        path.write_bytes(path.read_bytes()[: 2 * BLOCK + 1000])
        report = self.disk.recover()
        self.assertEqual((report.damaged, report.torn, list(self.disk.messages())), ([], 1, ["u/new/a"]))

    def test_records_of_an_earlier_use_are_not_replayed(self) -> None:
        path = self.disk.segment(1, *((f"d/u/new/old{each}", b"old") for each in range(5)), sequence=1)
        old = path.read_bytes()
        self.disk.segment(1, ("d/u/new/young", b"young"), sequence=2)
        path.write_bytes(path.read_bytes()[: 2 * BLOCK] + old[2 * BLOCK :])
        report = self.disk.recover()
        self.assertEqual((report.records, list(self.disk.messages())), (1, ["u/new/young"]))

    def test_a_name_that_leads_out_of_the_mail_is_not_followed(self) -> None:
        self.disk.segment(1, ("../x", b"1"), (f"{self.disk.root}/y", b"2"), ("d/../../z", b"3"))
        self.assertEqual(self.disk.recover().written, 0)
        self.assertEqual(sorted(path.name for path in self.disk.root.iterdir()), ["journal", "mail"])

    def test_files_that_are_no_segments_are_set_aside_and_unused_ones_removed(self) -> None:
        journal = self.disk.journal
        (journal / "segment-0001").write_bytes(b"")
        (journal / "segment-0002").write_bytes(bytes(SIZE))
        (journal / "segment-0003").write_bytes(b"text" * 2000)
        (journal / "segment-0004").mkdir()
        self.disk.segment(5, (name_of(), TEXT))
        report = self.disk.recover()
        self.assertEqual([text.rpartition("/")[2] for text in report.foreign],
                         ["segment-0003: not a journal segment", "segment-0004: not a file"])  # fmt: skip
        (journal / "segment-0003").write_bytes(b"other" * 2000)
        self.disk.recover()
        self.assertEqual(
            sorted(path.name for path in journal.iterdir()),
            ["segment-0005", "unreadable-1-segment-0003", "unreadable-1-segment-0004", "unreadable-2-segment-0003"],
        )
        self.assertEqual((report.failed, len(self.disk.messages())), ([], 1))

    def test_a_full_disk_keeps_what_could_not_be_written_and_only_that(self) -> None:
        self.disk.segment(1, *((f"d/u/new/{each}", each.encode()) for each in "abc"))

        class Full(Files):
            writes = 0

            def write(self, descriptor: int, data: bytes | memoryview) -> int:
                self.writes += 1
                if self.writes >= 2:
                    raise OSError(errno.ENOSPC, "full")
                return super().write(descriptor, data)

        report = self.disk.recover(files=Full())
        self.assertEqual((len(report.failed), self.disk.in_use()), (2, ["segment-0001"]))
        self.assertEqual(self.disk.messages(), {"u/new/a": b"a"})
        self.disk.path("a").unlink()  # a reader has it
        report = self.disk.recover()
        self.assertEqual((report.written, report.failed, self.disk.in_use()), (2, [], []))
        self.assertEqual(self.disk.messages(), {"u/new/b": b"b", "u/new/c": b"c"})

    def test_whatever_call_fails_the_next_start_has_it_all(self) -> None:
        self.disk.segment(1, (f"{name_of()}|{name_of(mailbox='v')}", TEXT))
        files = RecordingFiles()
        self.disk.recover(files=files)
        for fail_at in range(len(files.calls)):
            disk = JournalOnDisk(self.mktemp())
            disk.segment(1, (f"{name_of()}|{name_of(mailbox='v')}", TEXT))
            failing = RecordingFiles(fail_at, errno.ENOSPC)
            report = disk.recover(files=failing)
            if report.failed:
                if "fdatasync" not in failing.calls[-2:]:  # of the header, which says "free"
                    self.assertEqual(disk.in_use(), ["segment-0001"], failing.calls)
                self.assertEqual(disk.recover().failed, [])
            self.assertEqual(disk.messages(), {f"{each}/new/{NAME}": TEXT for each in "uv"}, failing.calls)
            self.assertEqual((failing.opened, disk.in_use()), ({}, []))

    def test_a_sync_that_fails_frees_nothing(self) -> None:
        self.disk.segment(1, (name_of(), TEXT))
        files = RecordingFiles()
        files.fail = {"syncfs"}
        self.assertEqual(len(self.disk.recover(files=files).failed), 1)
        self.assertEqual(self.disk.in_use(), ["segment-0001"])

    def test_a_segment_that_cannot_be_read_keeps_no_other_from_being_recovered(self) -> None:
        bad = self.disk.segment(1, ("d/u/new/a", b"a"))
        self.disk.segment(2, (name_of(), TEXT), sequence=2)
        read = segments.read

        def failing(path: Path, *, contents: bool = True) -> segments.Found:
            if path == bad:
                raise OSError(errno.EIO, "unreadable", str(path))
            return read(path, contents=contents)

        self.patch(segments, "read", failing)
        report = self.disk.recover()
        self.assertEqual((len(report.failed), list(self.disk.messages())), (1, [f"u/new/{NAME}"]))
        self.patch(segments, "read", read)
        self.assertEqual(self.disk.in_use(), ["segment-0001"])

    def test_after_lost_pages_what_looks_whole_is_written_again(self) -> None:
        for last, came_back in ((Running(b"after", 1.0), False), (Running(b"before", 1.0), True), (None, True)):
            disk = JournalOnDisk(self.mktemp())
            disk.segment(1, (name_of(), TEXT), ("d/u/new/deleted", b"x"), mount=segments.SUSPECT)
            disk.path().write_bytes(TEXT)
            before = disk.path().stat().st_ino
            disk.recover(last=last)
            self.assertNotEqual(disk.path().stat().st_ino, before)
            self.assertEqual("u/new/deleted" in disk.messages(), came_back)


class TornTests(SynchronousTestCase):
    """Files that nobody was told about."""

    def setUp(self) -> None:
        self.disk = JournalOnDisk(self.mktemp())

    def test_young_ones_that_are_too_short_are_removed_and_no_others(self) -> None:
        for name in ("999.M1,S=5", "1000.M1,S=5", "1000.M2,S=4,W=5:2,S", "500.M1,S=5", "1000.M3", "word,S=5"):
            self.disk.path(name).write_bytes(b"four")
        self.disk.path("1000.M4,S=3").write_bytes(b"four")  # an editor has made it longer
        report = self.disk.recover(last=Running(b"before", 1000.0 + MARGIN))
        self.assertEqual(report.removed, 2)
        self.assertEqual(
            sorted(self.disk.messages()),
            sorted(f"u/new/{name}" for name in
                   ("1000.M2,S=4,W=5:2,S", "500.M1,S=5", "1000.M3", "word,S=5", "1000.M4,S=3")),
        )  # fmt: skip

    def test_on_the_same_mount_and_after_a_clean_stop_nothing_is_looked_at(self) -> None:
        self.disk.path("1000.M1,S=5").write_bytes(b"four")
        for last in (None, Running(b"after", 1000.0)):
            self.assertEqual(self.disk.recover(last=last).removed, 0)
        self.assertEqual(len(self.disk.messages()), 1)

    def test_stray_files_and_closed_directories_are_no_trouble(self) -> None:
        (self.disk.mail / "stray").write_bytes(b"")
        (self.disk.mail / "d" / "stray").write_bytes(b"")
        (self.disk.mail / "e").mkdir()
        (self.disk.mail / "a").symlink_to("a")
        self.disk.path("1000.M1,S=5").write_bytes(b"four")
        self.assertEqual(self.disk.recover(last=Running(b"before", 1000.0)).removed, 1)

    def test_one_that_cannot_be_removed_is_told(self) -> None:
        self.disk.path("1000.M1,S=5").write_bytes(b"four")
        files = RecordingFiles()
        files.fail = {"unlink"}
        self.assertEqual(len(self.disk.recover(files=files, last=Running(b"before", 1000.0)).failed), 1)


class RewriteTests(SynchronousTestCase):
    def test_what_is_still_there_is_written_again_and_synced_with_its_directory(self) -> None:
        disk = JournalOnDisk(self.mktemp())
        path = disk.segment(1, (name_of(), TEXT), ("d/u/new/moved", b"m"), ("d/u/new/deleted", b"x"))
        disk.path().write_bytes(TEXT)
        disk.path("moved:2,S", kind="cur").write_bytes(b"?")
        files = RecordingFiles()
        numbers = count()
        rewrite(path, Place(disk.mail, files, lambda: f"r{next(numbers)}"))
        self.assertEqual(disk.messages(), {f"u/new/{NAME}": TEXT, "u/cur/moved:2,S": b"m"})
        one = ["open", "write", "fsync", "rename", "close", "open", "fsync", "close"]
        self.assertEqual(files.calls, one * 2)
        files.fail = {"fsync"}
        self.assertRaises(OSError, rewrite, path, Place(disk.mail, files, lambda: f"r{next(numbers)}"))
        self.assertEqual((len(disk.messages()), files.opened), (2, {}))
