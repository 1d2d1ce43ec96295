"""Free space: one octet and one inode below and above what is asked for, and how often the disk is asked."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailserver.envelope import Envelope
from mailserver.policy.space import FRESH, FreeSpace
from mailserver.reply import DISK_FULL, Refusal

ENVELOPE = Envelope("id7", None)
SIZE = 1_000_000

#: what it is, free blocks of 1,000 octets, inodes, free inodes, is there room
FIGURES = [
    ("room", 10_000, 1000, 1000, True),
    ("just enough blocks", 1500, 1000, 1000, True),
    ("one block too few", 1499, 1000, 1000, False),
    ("nothing", 0, 1000, 0, False),
    ("just enough inodes", 10_000, 1000, 10, True),
    ("one inode too few", 10_000, 1000, 9, False),
    ("a file system without inodes", 10_000, 0, 0, True),
    ("a full file system without inodes", 0, 0, 0, False),
]


class Disk:
    """What `os.statvfs` says, and how often it was asked."""

    def __init__(self, blocks: int = 10_000, inodes: int = 1000, free_inodes: int = 1000) -> None:
        self.figures: Any = SimpleNamespace(
            f_bavail=blocks,
            f_frsize=1000,
            f_bsize=7,
            f_bfree=10**9,
            f_files=inodes,
            f_favail=free_inodes,
            f_ffree=10**9,
        )
        self.asked: list[Path] = []

    def __call__(self, path: Path) -> Any:
        self.asked.append(path)
        if isinstance(self.figures, Exception):
            raise self.figures
        return self.figures


class FreeSpaceTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()

    def policy(self, disk: Any) -> FreeSpace:
        return FreeSpace(Path("/data"), SIZE, self.clock.seconds, disk)

    def refused(self, policy: FreeSpace) -> bool:
        try:
            policy(ENVELOPE)
        except Refusal as refusal:
            self.assertEqual(refusal.reply, DISK_FULL)
            self.assertIn("id7", refusal.detail)
            return True
        return False

    def test_a_message_is_refused_when_there_is_too_little_room(self) -> None:
        for what, blocks, inodes, free_inodes, room in FIGURES:
            disk = Disk(blocks, inodes, free_inodes)
            self.assertIs(self.refused(self.policy(disk)), not room, what)
            self.assertEqual(disk.asked, [Path("/data")], what)

    def test_where_the_disk_cannot_be_asked_the_message_passes(self) -> None:
        disk = Disk()
        disk.figures = FileNotFoundError(2, "No such file or directory")
        self.assertFalse(self.refused(self.policy(disk)))

    def test_the_disk_is_asked_once_a_second(self) -> None:
        disk = Disk()
        policy = self.policy(disk)
        self.assertFalse(self.refused(policy))
        disk.figures.f_bavail = 0
        self.clock.advance(FRESH - 0.01)
        self.assertFalse(self.refused(policy))
        self.clock.advance(0.01)
        self.assertTrue(self.refused(policy))
        self.assertTrue(self.refused(policy))
        self.assertEqual(len(disk.asked), 2)
        disk.figures.f_bavail = 10_000
        self.clock.advance(FRESH)
        self.assertFalse(self.refused(policy))

    def test_a_clock_that_is_set_back_does_not_keep_old_figures(self) -> None:
        self.clock.advance(1000.0)
        disk = Disk(0)
        policy = self.policy(disk)
        self.assertTrue(self.refused(policy))
        disk.figures.f_bavail = 10_000
        self.clock.advance(-500.0)
        self.assertFalse(self.refused(policy))

    def test_the_real_disk_can_be_asked(self) -> None:
        policy = FreeSpace(Path.cwd(), 0, self.clock.seconds)
        figures = os.statvfs(Path.cwd())
        enough = figures.f_files == 0 or figures.f_favail >= figures.f_files / 100
        self.assertIs(self.refused(policy), not enough)
