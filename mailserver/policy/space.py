"""
Is there room for a message?  Asked at MAIL, so that a full disk is told before the text crosses the wire.

In: a directory, the size limit.  Out: nothing, or `Refusal` with 452 4.3.1.
limits.md's reason: Postfix's queue_minfree, 1.5 times the largest message; inodes end as surely as blocks.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path

from mailserver import reply as replies
from mailserver.envelope import Envelope
from mailserver.reply import Refusal

#: Free octets must be so many times the largest message.
SAFETY = 1.5
#: This part of all inodes must be free.
FREE_INODES = 0.01
#: The figures of the file system are asked for again after so many seconds.
FRESH = 1.0


class FreeSpace:
    """
    A policy for MAIL.  clock: seconds.  statvfs: like `os.statvfs`; where it fails (nothing mounted, say) the message
    is let through, for its delivery will tell.
    """

    def __init__(
        self,
        directory: Path,
        message_size: int,
        clock: Callable[[], float],
        statvfs: Callable[[Path], os.statvfs_result] = os.statvfs,
    ) -> None:
        self._directory = directory
        self._need = int(message_size * SAFETY)
        self._clock = clock
        self._statvfs = statvfs
        self._asked = -math.inf
        self._enough = True

    def __call__(self, envelope: Envelope) -> None:
        """Raises Refusal when the disk is too full for a message of the largest size."""
        now = self._clock()
        if not 0 <= now - self._asked < FRESH:  # a clock may also be set back
            self._asked = now
            self._enough = self._look()
        if not self._enough:
            raise Refusal(replies.DISK_FULL, f"{envelope.id}: {self._directory} is nearly full")

    def _look(self) -> bool:
        try:
            found = self._statvfs(self._directory)
        except OSError:
            return True
        inodes = found.f_favail >= found.f_files * FREE_INODES  # 0 of 0 where their number is not fixed (btrfs)
        return inodes and found.f_bavail * found.f_frsize >= self._need
