"""Leftovers go; what is young, of others, or no plain file in a mailbox's tmp/ stays."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from unittest.mock import patch

from twisted.internet.defer import CancelledError, Deferred, execute
from twisted.trial.unittest import SynchronousTestCase

from mailserver.maildir import sweep
from mailserver.maildir.names import UniqueNames
from mailserver.maildir.sweep import LEFTOVER_AGE, Sweep, is_running

NOW = 1_700_000_000.0
RUNNING, DEAD = 100, 200
YOUNG, OLD = 1.0, LEFTOVER_AGE + 1


def name_of(pid: int, host: str = "h") -> str:
    return UniqueNames(host, pid, lambda: NOW).next()


class SweepTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.root = Path(self.mktemp())
        self.jobs = 0
        self.sweep = Sweep(
            root=self.root,
            names=UniqueNames("h", RUNNING, lambda: NOW),
            seconds=lambda: NOW,
            run_in_thread=self.run_in_thread,
            running=lambda pid: pid == RUNNING,
        )

    def run_in_thread(self, *job: Any) -> Deferred[Any]:
        self.jobs += 1
        return execute(*job)

    def file(self, path: str, age: float) -> Path:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"x")
        os.utime(file, (NOW - age, NOW - age))
        return file

    def test_what_goes_and_what_stays(self) -> None:
        for path, age, goes in (
            ("example.org/a/tmp/foreign", OLD, True),
            ("example.org/a/tmp/foreign2", LEFTOVER_AGE, False),
            (f"example.org/a/tmp/{name_of(DEAD)}", YOUNG, True),
            (f"example.org/a/tmp/{name_of(RUNNING)}", YOUNG, False),
            (f"example.org/b/tmp/{name_of(RUNNING)}", OLD, True),
            (f"example.org/b/tmp/{name_of(DEAD, 'other')}", YOUNG, False),
            (f"example.net/c/.Sent/tmp/{name_of(DEAD)}", YOUNG, True),
            # a mailbox, or a domain, that is called tmp is none
            (f"example.net/tmp/{name_of(DEAD)}", OLD, False),
            (f"tmp/{name_of(DEAD)}", OLD, False),
            (f"example.net/tmp/tmp/{name_of(DEAD)}", YOUNG, True),
            (f"example.org/a/new/{name_of(DEAD)}", OLD, False),
            (f"example.org/a/cur/{name_of(DEAD)}", OLD, False),
            (f"example.org/a/tmp/deeper/{name_of(DEAD)}", OLD, False),
            (f"example.org/a/other/tmp/{name_of(DEAD)}", OLD, False),
        ):
            with self.subTest(path=path, age=age):
                file = self.file(path, age)
                self.assertEqual(self.successResultOf(self.sweep.start()), int(goes))
                self.assertEqual(file.exists(), not goes)

    def test_a_file_that_was_read_or_written_lately_is_young(self) -> None:
        for times in ((NOW - OLD, NOW), (NOW, NOW - OLD)):
            file = self.file("example.org/a/tmp/x", OLD)
            os.utime(file, times)
            self.assertEqual(self.successResultOf(self.sweep.start()), 0)

    def test_symbolic_links_are_neither_followed_nor_removed(self) -> None:
        self.file(f"../{self.root.name}-outside/tmp/{name_of(DEAD)}", OLD)
        outside = (self.root.parent / f"{self.root.name}-outside").absolute()
        (self.root / "example.org" / "a" / "tmp").mkdir(parents=True)
        links = [
            self.root / "linked-domain",
            self.root / "example.org" / "linked-mailbox",
            self.root / "example.org" / "a" / ".Linked",
            self.root / "example.org" / "a" / "tmp" / name_of(DEAD),
        ]
        for link in links:
            link.symlink_to(outside)
        (self.root / "example.org" / "b").mkdir()
        (self.root / "example.org" / "b" / "tmp").symlink_to(outside / "tmp")
        self.assertEqual(self.successResultOf(self.sweep.start()), 0)
        self.assertEqual(len(list((outside / "tmp").iterdir())), 1)
        self.assertTrue(all(link.is_symlink() for link in links))

    def test_without_a_mail_root_there_is_nothing_to_do(self) -> None:
        self.assertEqual(self.successResultOf(self.sweep.start()), 0)

    def test_the_work_is_done_in_slices(self) -> None:
        for number in range(10):
            self.file(f"example.org/a/tmp/{number}", OLD)
        with patch.object(sweep, "SLICE", 4):
            self.assertEqual(self.successResultOf(self.sweep.start()), 10)
        self.assertEqual(self.jobs, 4)  # 10 files and 3 directories on the way

    def test_it_can_be_stopped_between_two_slices(self) -> None:
        for number in range(10):
            self.file(f"example.org/a/tmp/{number}", OLD)
        waiting: list[tuple[Deferred[Any], tuple[Any, ...]]] = []

        def late(*job: Any) -> Deferred[Any]:
            waiting.append((Deferred(), job))
            return waiting[-1][0]

        stopped = Sweep(self.root, self.sweep.names, lambda: NOW, late).start()
        stopped.cancel()
        self.failureResultOf(stopped, CancelledError)
        self.assertEqual(len(waiting), 1)

    def test_what_cannot_be_read_or_removed_is_left(self) -> None:
        self.file("example.org/a/tmp/x", OLD)
        self.file("example.org/b/tmp/y", OLD)
        unlink, scandir = os.unlink, os.scandir

        def no_unlink(path: str) -> None:
            if path.endswith("x"):
                raise PermissionError(13, "no", path)
            unlink(path)

        def no_scandir(path: str) -> Any:
            if path.endswith("c"):
                raise PermissionError(13, "no", path)
            return scandir(path)

        (self.root / "example.org" / "c").mkdir()
        with patch.object(os, "unlink", no_unlink), patch.object(os, "scandir", no_scandir):
            self.assertEqual(self.successResultOf(self.sweep.start()), 1)


class IsRunningTests(SynchronousTestCase):
    def test_this_process_is_running_and_one_that_has_ended_is_not(self) -> None:
        self.assertTrue(is_running(os.getpid()))
        self.assertTrue(is_running(1))
        self.assertFalse(is_running(999_999_999))
        self.assertTrue(is_running(2**70))

    def test_one_that_has_ended_and_was_not_waited_for_does_not_run(self) -> None:
        child = os.fork()
        if not child:
            os._exit(0)
        self.addCleanup(os.waitpid, child, 0)
        os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
        self.assertFalse(is_running(child))
