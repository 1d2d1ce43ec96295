"""
What the workers count of their clients, where all of them can see it.

In: an anonymous file that the parent makes (`make_file`) and every worker inherits.  Out: `Parent`, which clears what
a dead worker has left, and `Table`, the `Elsewhere` of `mailserver.policy.clients`.
Each worker has a table of its own, writes to that one only, and reads those of all.  So nothing is locked, and a
number that is read may be a moment old: two workers that look at the same moment may both let somebody in.  That is
the whole error, at most one too many for each worker; nothing gets lost, nothing adds up.

A table has `SLOTS` rows, found by a keyed hash of the client (64 bits: nobody outside can make two of them meet).  A
row that finds its `PROBED` places taken takes that of the one not seen for the longest time; when all of them are in
use it has none, and is then counted by its own worker alone.
When a worker has ended the parent sets its connections and logins to 0.  Its spans stay: they end by time, and the
worker that gets the number next goes on with them.  So who guesses passwords gains nothing by a reload or a crash.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import secrets
import struct
from collections.abc import Sequence

from mailserver.policy.clients import SPANS, Told
from mailserver.workers.channel import anonymous_file

#: Rows of a table, a power of two: clients and accounts of which one worker tells the others.
SLOTS = 32_768
#: Places where a row may stand.
PROBED = 8
_SECRET = 64
_SPAN = struct.Struct("=dQ")
_ROW = _SPAN.size * len(SPANS)
#: Octets of a table: its connections, then a column of tags, one of what is now (three numbers), one of spans.
_TAGS, _NOW = 64, 64 + 8 * SLOTS
_SPANS = _NOW + 12 * SLOTS
_TABLE = _SPANS + _ROW * SLOTS


def make_file(tables: int) -> int:
    """A descriptor of a file for so many tables, all empty."""
    descriptor = anonymous_file("mailserver-clients")
    # Pages that nobody writes to take no memory.
    os.ftruncate(descriptor, _SECRET + tables * _TABLE)
    os.pwrite(descriptor, secrets.token_bytes(_SECRET), 0)
    return descriptor


class Parent:
    """What the parent does with the file."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def clear(self, number: int) -> None:
        """The worker of this number is dead: it has no connections and logins any more."""
        start = _SECRET + (number - 1) * _TABLE
        os.pwrite(self.descriptor, bytes(8), start)
        os.pwrite(self.descriptor, bytes(_SPANS - _NOW), start + _NOW)


class Table:
    """The table of one worker, and its view of the others.  number: from 1 on."""

    def __init__(self, descriptor: int, number: int) -> None:
        size = os.fstat(descriptor).st_size
        shared = memoryview(mmap.mmap(descriptor, size))
        self._secret = bytes(shared[:_SECRET])
        columns = [_Columns(shared[at : at + _TABLE]) for at in range(_SECRET, size, _TABLE)]
        self._own = columns.pop(number - 1)
        self._others = columns

    def connections(self) -> int:
        """See `Elsewhere`."""
        return sum(each.all[0] for each in self._others)

    def tell_connections(self, count: int) -> None:
        """See `Elsewhere`."""
        self._own.all[0] = count

    def others(self, key: str) -> Sequence[Told]:
        """See `Elsewhere`."""
        tag = self._tag(key)
        found = ((each, each.find(tag)) for each in self._others)
        return [each.read(at) for each, at in found if at is not None]

    def tell(self, key: str, told: Told) -> None:
        """See `Elsewhere`."""
        tag = self._tag(key)
        at = self._own.find(tag)
        if at is None:
            at = self._own.room(tag)
        if at is not None:
            self._own.write(at, tag, told)

    def left(self, key: str) -> Told | None:
        """See `Elsewhere`."""
        at = self._own.find(self._tag(key))
        return None if at is None else self._own.read(at)

    def _tag(self, key: str) -> int:
        octets = key.encode("utf-8", "surrogatepass")
        digest = hashlib.blake2b(octets, digest_size=8, key=self._secret).digest()
        return int.from_bytes(digest, "little") or 1  # 0 is an empty place


class _Columns:
    """The columns of one table."""

    def __init__(self, table: memoryview) -> None:
        self.all = table[:8].cast("Q")
        self._tags = table[_TAGS:_NOW].cast("Q")
        self._now = table[_NOW:_SPANS].cast("I")
        self._spans = table[_SPANS:]

    def find(self, tag: int) -> int | None:
        """Where the row of this tag stands."""
        for at in _places(tag):
            found = self._tags[at]
            if found == tag:
                return at
            if not found:  # rows are replaced, never taken away: behind an empty place there is none
                return None
        return None

    def room(self, tag: int) -> int | None:
        """Where a new row may stand."""
        idle: list[tuple[float, int]] = []
        for at in _places(tag):
            if not self._tags[at]:
                return at
            told = self.read(at)
            if not (told.connections or told.pending or told.waiting):
                idle.append((max(start for start, _ in told.spans), at))
        return min(idle)[1] if idle else None

    def read(self, at: int) -> Told:
        """The row at this place."""
        spans = _SPAN.iter_unpack(self._spans[at * _ROW : (at + 1) * _ROW])
        now = self._now
        return Told(now[3 * at], now[3 * at + 1], now[3 * at + 2], tuple(spans))

    def write(self, at: int, tag: int, told: Told) -> None:
        """Put a row there."""
        if self._tags[at] != tag:
            # For a moment nobody's, so that what is half written is never read as the new client's.
            self._tags[at] = 1
        self._now[3 * at], self._now[3 * at + 1], self._now[3 * at + 2] = told[:3]
        for place, span in enumerate(told.spans):
            _SPAN.pack_into(self._spans, at * _ROW + place * _SPAN.size, *span)
        self._tags[at] = tag


def _places(tag: int) -> list[int]:
    return [(tag + step) % SLOTS for step in range(PROBED)]
