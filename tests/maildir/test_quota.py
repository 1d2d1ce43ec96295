"""Nobody is refused on an old count, and no two deliveries get the same room."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self
from unittest.mock import patch

from twisted.internet.defer import Deferred, execute
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailserver.maildir import quota
from mailserver.maildir.quota import COUNT_AGE, Quotas, count_usage
from mailserver.reply import MAILBOX_FULL, Refusal


def maildir(path: Path) -> Path:
    for kind in ("tmp", "new", "cur"):
        (path / kind).mkdir(parents=True)
    return path


class Vanished:
    """scandir, whose entries are gone when they are looked at."""

    def __init__(self, path: str) -> None:
        self.name, self.path = "foreign", path

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *args: object) -> None: ...

    def __iter__(self) -> Iterator[Vanished]:
        return iter([self])

    def is_file(self, *, follow_symlinks: bool) -> bool:
        return True

    def stat(self, *, follow_symlinks: bool) -> os.stat_result:
        raise FileNotFoundError


class CountUsageTests(SynchronousTestCase):
    def test_the_sizes_in_the_names_of_all_folders_are_added(self) -> None:
        box = maildir(Path(self.mktemp()))
        folder = maildir(box / ".Sent")
        (box / "new" / "1.M1P1Q1.h,S=100,W=110").write_bytes(b"")
        (box / "cur" / "2.M1P1Q1.h,S=1000:2,S").write_bytes(b"")
        (folder / "cur" / "3.M1P1Q1.h,S=10000:2,").write_bytes(b"")
        (box / "cur" / "4.foreign:2,").write_bytes(b"seven..")
        self.assertEqual(count_usage(box), 11107)

    def test_what_is_no_message_does_not_count(self) -> None:
        box = maildir(Path(self.mktemp()))
        (box / "tmp" / "1.M1P1Q1.h,S=1").write_bytes(b"x")
        (box / "new" / ".hidden").write_bytes(b"x")
        (box / "new" / "directory").mkdir()
        (box / "new" / "symlink").symlink_to("/etc/passwd")
        (box / "index.sqlite").write_bytes(b"x")
        other = maildir(Path(self.mktemp()).absolute())
        (other / "new" / "1.M1P1Q1.h,S=100").write_bytes(b"")
        (box / ".Shared").symlink_to(other)
        self.assertEqual(count_usage(box), 0)

    def test_a_message_that_goes_while_it_is_counted_is_nothing(self) -> None:
        box = maildir(Path(self.mktemp()))
        (box / "new" / "1.foreign").write_bytes(b"x")
        with patch.object(os, "scandir", Vanished):
            self.assertEqual(count_usage(box), 0)

    def test_a_mailbox_that_is_not_there_is_empty(self) -> None:
        self.assertEqual(count_usage(Path(self.mktemp())), 0)

    def test_a_mailbox_that_cannot_be_read_is_an_error(self) -> None:
        box = Path(self.mktemp())
        box.mkdir()
        (box / "new").write_bytes(b"a file")
        self.assertRaises(NotADirectoryError, count_usage, box)


class QuotasTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.box = maildir(Path(self.mktemp()))
        self.counts = 0
        self.late: list[tuple[Deferred[Any], tuple[Any, ...]]] | None = None
        self.quotas = Quotas(run_in_thread=self.run_in_thread, seconds=self.clock.seconds)

    def run_in_thread(self, *job: Any) -> Deferred[Any]:
        self.counts += 1
        if self.late is None:
            return execute(*job)
        self.late.append((Deferred(), job))
        return self.late[-1][0]

    def end_count(self) -> None:
        assert self.late
        result, job = self.late.pop(0)
        execute(*job).chainDeferred(result)

    def start(self, size: int, limit: int = 1000) -> Deferred[Any]:
        return Deferred.fromCoroutine(self.quotas.reserve(self.box, size, limit))

    def reserve(self, size: int, limit: int = 1000) -> Any:
        return self.successResultOf(self.start(size, limit))

    def refused(self, size: int, limit: int = 1000) -> None:
        failure = self.failureResultOf(self.start(size, limit), Refusal)
        self.assertEqual(failure.value.reply, MAILBOX_FULL)

    def message(self, size: int, name: str = "1") -> Path:
        path = self.box / "new" / f"{name}.M1P1Q1.h,S={size}"
        path.write_bytes(b"")
        return path

    def test_the_last_octet_fits_and_one_more_does_not(self) -> None:
        self.message(400)
        self.reserve(600).release()
        self.refused(601)

    def test_without_a_limit_nothing_is_counted(self) -> None:
        self.assertIsNone(self.reserve(10**12, 0))
        self.assertEqual(self.counts, 0)

    def test_the_count_is_kept_and_our_deliveries_added(self) -> None:
        self.reserve(600).keep()
        self.message(600)
        self.reserve(400).keep()
        self.message(400, "2")
        self.assertEqual(self.counts, 1)
        self.refused(1)

    def test_what_others_have_deleted_is_honoured_before_a_refusal(self) -> None:
        self.reserve(900).keep()
        message = self.message(900)
        self.refused(200)
        message.unlink()
        self.reserve(200).keep()
        self.message(200, "2")
        self.reserve(800).release()
        self.refused(801)

    def test_what_others_have_added_is_seen_when_the_count_is_old(self) -> None:
        self.reserve(1).release()
        self.message(1000)
        self.clock.advance(COUNT_AGE - 1)
        self.reserve(1).release()
        self.clock.advance(1)
        self.refused(1)

    def test_a_clock_that_goes_back_makes_a_count_old(self) -> None:
        self.clock.advance(10)
        self.reserve(1).release()
        self.clock.rightNow = 5
        self.reserve(1).release()
        self.assertEqual(self.counts, 2)

    def test_room_that_is_promised_is_not_promised_again(self) -> None:
        first = self.reserve(600)
        self.refused(600)
        first.release()
        first.release()
        second = self.reserve(600)
        second.keep()
        second.release()
        self.message(600)
        self.refused(401)
        self.reserve(400)

    def test_those_who_come_while_it_is_counted_wait_for_the_same_count(self) -> None:
        self.late = []
        waiting = [self.start(300) for _ in range(3)]
        self.assertEqual(len(self.late), 1)
        self.end_count()
        for result in waiting:
            self.successResultOf(result)
        self.assertEqual(self.counts, 1)

    def test_who_has_joined_a_count_is_refused_only_on_one_of_its_own(self) -> None:
        old = self.message(900)
        self.late = []
        first, second = self.start(50), self.start(500)
        result, job = self.late.pop(0)
        usage = job[0](*job[1:])  # counted ...
        old.unlink()  # ... and then deleted, before the result is back
        result.callback(usage)
        self.successResultOf(first)
        self.assertNoResult(second)
        self.end_count()
        self.successResultOf(second)

    def test_a_delivery_that_ends_during_a_count_is_not_lost(self) -> None:
        reservation = self.reserve(600)
        self.late = []
        waiting = self.start(600)
        result, job = self.late.pop(0)
        usage = job[0](*job[1:])
        reservation.keep()  # in the mailbox now, but the count did not see it
        self.message(600)
        result.callback(usage)
        self.failureResultOf(waiting, Refusal)

    def test_when_it_cannot_be_counted_all_who_wait_hear_of_it_and_the_next_tries_again(self) -> None:
        self.late = []
        waiting = [self.start(1), self.start(1)]
        self.late.pop(0)[0].errback(PermissionError("no"))
        for result in waiting:
            self.failureResultOf(result, PermissionError)
        self.late = None
        self.reserve(1)

    def test_a_count_that_failed_leaves_the_old_one_old(self) -> None:
        self.reserve(1).release()
        self.message(1000)
        self.clock.advance(COUNT_AGE)
        self.late = []
        waiting = self.start(1)
        self.late.pop(0)[0].errback(PermissionError("no"))
        self.failureResultOf(waiting, PermissionError)
        self.late = None
        self.refused(1)

    def test_a_mailbox_that_once_had_no_limit_is_counted_afresh(self) -> None:
        self.reserve(1).release()
        self.reserve(900, 0)
        self.message(900)
        self.refused(200)

    def test_only_so_many_counts_are_kept_and_those_in_use_among_them(self) -> None:
        with patch.object(quota, "MAILBOXES", 3):
            boxes = [Path(f"{self.box}{number}") for number in range(5)]
            held = self.successResultOf(Deferred.fromCoroutine(self.quotas.reserve(boxes[0], 900, 1000)))
            for box in boxes[1:]:
                self.successResultOf(Deferred.fromCoroutine(self.quotas.reserve(box, 1, 1000))).release()
            self.assertEqual([os.fspath(box)[-1] for box in self.quotas._mailboxes], ["0", "3", "4"])
            self.assertIsNotNone(held)
