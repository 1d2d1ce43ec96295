"""The kernel syncs without a thread and tells each error; tried on real files, where the machine allows it."""

from __future__ import annotations

import errno
import os
import select
from pathlib import Path
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailserver.durable import aio
from mailserver.durable.aio import MOST, AioSyncer, Unavailable


class SmallReactor(Clock):
    """Watches descriptors when told to."""

    def __init__(self) -> None:
        super().__init__()
        self.readers: list[Any] = []

    def addReader(self, reader: Any) -> None:
        self.readers.append(reader)

    def removeReader(self, reader: Any) -> None:
        self.readers.remove(reader)

    def turn(self) -> None:
        """Wait for something to read, unless something is to be called; never for ever."""
        if not self.getDelayedCalls():
            ready, _, _ = select.select(self.readers, [], [], 10)
            for reader in ready:
                reader.doRead()
        self.advance(0)


def reason() -> str:
    """Why there is no asynchronous I/O here; "" where there is."""
    try:
        AioSyncer(SmallReactor()).stop()
    except Unavailable as error:
        return str(error)
    return ""


class AioSyncerTests(SynchronousTestCase):
    if reason():
        skip = reason()

    def setUp(self) -> None:
        self.reactor = SmallReactor()
        self.syncer = AioSyncer(self.reactor)
        self.addCleanup(self.syncer.stop)

    def open(self) -> int:
        descriptor = os.open(self.mktemp(), os.O_RDWR | os.O_CREAT)
        self.addCleanup(os.close, descriptor)
        os.write(descriptor, b"text")
        return descriptor

    def wait(self, *batches: list[Any]) -> None:
        for _ in range(1000):
            if all(batches):
                return
            self.reactor.turn()
        self.fail("the kernel does not answer")

    def sync(self, descriptors: list[int], *, data_only: bool = False) -> list[Any]:
        """A list that will hold the list of errors."""
        got: list[Any] = []
        self.syncer.sync(descriptors, got.append, data_only=data_only)
        self.assertEqual(got, [])  # never before it has returned
        return got

    def test_files_are_synced_by_both_calls(self) -> None:
        for data_only in (False, True):
            got = self.sync([self.open() for _ in range(3)], data_only=data_only)
            self.wait(got)
            self.assertEqual(got, [[None] * 3])

    def test_batches_go_on_side_by_side(self) -> None:
        both = self.sync([self.open()]), self.sync([self.open(), self.open()], data_only=True)
        self.wait(*both)
        self.assertEqual(both, ([[None]], [[None, None]]))

    def test_nothing_to_sync_is_done_in_the_next_turn(self) -> None:
        got = self.sync([])
        self.wait(got)
        self.assertEqual(got, [[]])

    def test_more_than_the_kernel_takes_at_once_wait_here(self) -> None:
        descriptor = self.open()
        many, more = self.sync([descriptor] * (2 * MOST + 7)), self.sync([descriptor] * MOST)
        self.wait(many, more)
        self.assertEqual((many, more), ([[None] * (2 * MOST + 7)], [[None] * MOST]))

    def test_a_descriptor_that_is_closed_is_an_error_of_its_own(self) -> None:
        closed = os.open(self.mktemp(), os.O_RDWR | os.O_CREAT)
        descriptor = self.open()
        os.close(closed)
        for place in range(3):
            descriptors = [descriptor] * 3
            descriptors[place] = closed
            got = self.sync(descriptors)
            self.wait(got)
            self.assertEqual([getattr(error, "errno", None) for error in got[0]],
                             [errno.EBADF if at == place else None for at in range(3)])  # fmt: skip

    def test_what_cannot_be_synced_is_an_error(self) -> None:
        reading, writing = os.pipe()
        self.addCleanup(os.close, reading)
        self.addCleanup(os.close, writing)
        got = self.sync([writing, self.open()])
        self.wait(got)
        self.assertEqual([getattr(error, "errno", None) for error in got[0]], [errno.EINVAL, None])

    def test_a_call_for_nothing_does_nothing(self) -> None:
        self.syncer.doRead()
        self.assertEqual((self.syncer.logPrefix(), self.reactor.readers), ("aio", [self.syncer]))

    def test_it_leaves_no_descriptor_and_no_reader(self) -> None:
        before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").is_dir() else 0
        reactor = SmallReactor()
        syncer = AioSyncer(reactor)
        syncer.stop()
        after = len(os.listdir("/proc/self/fd")) if before else 0
        self.assertEqual((reactor.readers, after), ([], before))


class UnavailableTests(SynchronousTestCase):
    def test_another_machine_is_told(self) -> None:
        self.patch(aio.platform, "machine", lambda: "pdp11")
        with self.assertRaises(Unavailable) as raised:
            AioSyncer(SmallReactor())
        self.assertIn("pdp11", str(raised.exception))

    def test_a_kernel_that_refuses_is_told(self) -> None:
        class Refusing:
            def syscall(self, *arguments: object) -> int:
                aio.ctypes.set_errno(errno.EPERM)
                return -1

        self.patch(aio, "_libc", Refusing())
        self.patch(aio.platform, "machine", lambda: "x86_64")
        reactor = SmallReactor()
        with self.assertRaises(Unavailable) as raised:
            AioSyncer(reactor)
        self.assertEqual((str(raised.exception)[:10], reactor.readers), ("io_setup: ", []))
