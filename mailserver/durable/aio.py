"""
fsync by the kernel's asynchronous I/O: no thread waits, and no thread has to be woken.

In: descriptors.  Out: their errors, when the kernel tells by an eventfd, which the reactor watches, that all is done.
io_setup(2), io_submit(2), io_getevents(2), IOCB_CMD_FSYNC and IOCB_CMD_FDSYNC (Linux 4.18), eventfd(2); called by
their numbers, as the C library has no names for them.
Failures: `Unavailable` where the kernel, or who confines this process (seccomp in a container), does not allow it:
then a `ThreadSyncer` does the same work.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys
from collections.abc import Sequence
from typing import Any

from twisted.internet.interfaces import IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from mailserver.durable.committers import Synced

#: machine -> the numbers of io_setup, io_destroy, io_getevents, io_submit.
_CALLS = {"x86_64": (206, 207, 208, 209), "aarch64": (0, 1, 4, 2), "riscv64": (0, 1, 4, 2)}
_FSYNC, _FDSYNC = 2, 3
_RESFD = 1
#: struct iocb of linux/aio_abi.h: data, key and flags, opcode, priority, descriptor, buf, bytes, offset, 2, flags,
#: resfd.
_IOCB = struct.Struct("<QIIHhIQQqQII")
_IO_EVENT = struct.Struct("<QQqq")
#: Requests under way at the same time, at most; more of them wait here.
MOST = 256

#: These calls return at once, so the interpreter's lock is kept: to get it back costs more than they do.
_libc: Any = ctypes.PyDLL(None, use_errno=True)


class Unavailable(Exception):  # noqa: N818 - said once, at the start
    """There is no asynchronous I/O here; `str()` says why."""


class _Batch:
    def __init__(self, descriptors: Sequence[int], synced: Synced, opcode: int) -> None:
        self.descriptors = descriptors
        self.synced = synced
        self.opcode = opcode
        self.errors: list[OSError | None] = [None] * len(descriptors)
        self.submitted = 0
        self.left = len(descriptors)


@implementer(IReadDescriptor)
class AioSyncer:
    """See `committers.Syncer`.  reactor: an `IReactorFDSet`.  Raises Unavailable."""

    def __init__(self, reactor: Any) -> None:
        if sys.platform != "linux" or platform.machine() not in _CALLS or not hasattr(os, "eventfd"):
            raise Unavailable(f"{sys.platform} on {platform.machine()}")
        self._setup, self._destroy, self._getevents, self._submit = _CALLS[platform.machine()]
        self._context = ctypes.c_ulong(0)
        if _libc.syscall(self._setup, MOST, ctypes.byref(self._context)):
            raise Unavailable(f"io_setup: {os.strerror(ctypes.get_errno())}")
        self._eventfd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._iocbs = ctypes.create_string_buffer(_IOCB.size * MOST)
        self._pointers = (ctypes.c_void_p * MOST)()
        self._found = ctypes.create_string_buffer(_IO_EVENT.size * MOST)
        self._batches: list[_Batch] = []
        #: Number of a request under way -> its batch and its place there.
        self._requests: dict[int, tuple[_Batch, int]] = {}
        self._number = 0
        self._reactor = reactor
        reactor.addReader(self)

    def sync(self, descriptors: Sequence[int], synced: Synced, *, data_only: bool) -> None:
        """See `Syncer`."""
        batch = _Batch(tuple(descriptors), synced, _FDSYNC if data_only else _FSYNC)
        self._batches.append(batch)
        if not batch.left:
            self._reactor.callLater(0, self._finish)
        self._submit_more()

    def stop(self) -> None:
        """See `Syncer`."""
        self._reactor.removeReader(self)
        _libc.syscall(self._destroy, self._context)
        os.close(self._eventfd)

    # -- what the reactor calls ------------------------------------------------------------------------------------

    def fileno(self) -> int:
        """The eventfd."""
        return self._eventfd

    def logPrefix(self) -> str:
        """For Twisted's log."""
        return "aio"

    def connectionLost(self, reason: Failure) -> None:
        """The reactor is done with us."""

    def doRead(self) -> None:
        """Some requests are done."""
        try:
            os.eventfd_read(self._eventfd)
        except BlockingIOError:
            return
        self._collect()
        self._submit_more()
        self._finish()

    # -- small parts -----------------------------------------------------------------------------------------------

    def _submit_more(self) -> None:
        count, packed = 0, bytearray()
        base = ctypes.addressof(self._iocbs)
        numbers: list[int] = []
        for batch in self._batches:
            while batch.submitted < len(batch.descriptors) and len(self._requests) < MOST:
                self._number += 1
                self._requests[self._number] = (batch, batch.submitted)
                numbers.append(self._number)
                descriptor = batch.descriptors[batch.submitted]
                packed += _IOCB.pack(
                    self._number, 0, 0, batch.opcode, 0, descriptor, 0, 0, 0, 0, _RESFD, self._eventfd
                )
                self._pointers[count] = base + count * _IOCB.size
                batch.submitted += 1
                count += 1
        if not count:
            return
        # The kernel copies what it needs before the call returns.
        ctypes.memmove(self._iocbs, bytes(packed), len(packed))
        at, failed = 0, False
        while at < count:
            pointers = ctypes.byref(self._pointers, at * ctypes.sizeof(ctypes.c_void_p))
            taken = _libc.syscall(self._submit, self._context, ctypes.c_long(count - at), pointers)
            if taken > 0:
                at += taken
                continue
            # The kernel stops at the first that it does not take, and tells why when it is asked for that one alone.
            self._done(numbers[at], -(ctypes.get_errno() if taken < 0 else errno.EAGAIN))
            at, failed = at + 1, True
        if failed:
            self._reactor.callLater(0, self._finish)

    def _collect(self) -> None:
        found = 0
        while True:
            found = _libc.syscall(
                self._getevents, self._context, ctypes.c_long(0), ctypes.c_long(MOST), self._found, None
            )
            for at in range(max(found, 0)):
                number, _, result, _ = _IO_EVENT.unpack_from(self._found, at * _IO_EVENT.size)
                self._done(number, result)
            if found < MOST:
                return

    def _done(self, number: int, result: int) -> None:
        batch, at = self._requests.pop(number)
        if result < 0:
            batch.errors[at] = OSError(-result, os.strerror(-result))
        batch.left -= 1

    def _finish(self) -> None:
        done = [batch for batch in self._batches if not batch.left]
        self._batches = [batch for batch in self._batches if batch.left]
        for batch in done:
            batch.synced(batch.errors)
