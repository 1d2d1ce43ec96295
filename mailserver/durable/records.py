"""
What a journal's octets mean: segments and the records in them, without files or clocks.

In: a header's fields, the names and the content of a message.  Out: octets; and back, whatever was done to them.

A segment begins with a header of one block (4,096 octets) that holds its mark: octets that nobody outside can guess,
new for each use.  Each record begins with the mark, so that records of an earlier use, and messages that look like
records, are never taken for one; and so that what stands behind a damaged record is found again.
A record is: mark (12), octets of names and content (4), of the names alone (4), CRC-32 of all that (4), the names
(paths below the mail root, with NUL between them), the content.  Integers are little-endian.  What is written at one
time begins at a block, so a torn write cannot touch records that were acknowledged before.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

BLOCK = 4096
MARK_SIZE = 12
_MARK = b"MJr1"
_MAGIC = b"mailserver-jrnl1"
_HEADER = struct.Struct("<16sBxxx12sQ32sd")  # magic, in use, mark, sequence, mount, time
_HEADER_CRC = struct.Struct("<I")
_RECORD = struct.Struct("<III")
#: Octets of a record before its names.
RECORD_HEADER = MARK_SIZE + _RECORD.size
_MOST_NAMES = 1 << 24


@dataclass(frozen=True, slots=True)
class Header:
    """
    Of a segment.

    in_use: False: all that its records hold is in the files themselves.  mark: see the module.  sequence: a later
    segment has a higher one.  mount: where its files were, see `files.mount_identity`; b"" when nobody could tell.
    since: when its use began, in seconds since 1970.
    """

    in_use: bool
    mark: bytes
    sequence: int
    mount: bytes = b""
    since: float = 0.0


@dataclass(frozen=True, slots=True)
class Record:
    """names: paths below the mail root, links to one file.  content: of that file.  at: where it was found."""

    names: tuple[bytes, ...]
    content: bytes
    at: int = 0

    @property
    def size(self) -> int:
        """The octets that it takes in its segment."""
        return RECORD_HEADER + sum(map(len, self.names)) + len(self.names) - 1 + len(self.content)


@dataclass(frozen=True, slots=True)
class Damage:
    """Octets that begin as a record and are none.  last: nothing whole follows, so it may never have been whole."""

    at: int
    last: bool


class NoHeader(ValueError):  # noqa: N818 - it names what was found
    """These octets are no header: the file is empty, foreign or damaged."""


def new_mark(random: bytes) -> bytes:
    """random: 8 octets."""
    return _MARK + random


def encode_header(header: Header) -> bytes:
    """One block."""
    fields = _HEADER.pack(_MAGIC, header.in_use, header.mark, header.sequence, header.mount, header.since)
    return (fields + _HEADER_CRC.pack(zlib.crc32(fields))).ljust(BLOCK, b"\0")


def decode_header(block: bytes) -> Header:
    """Raises NoHeader."""
    size = _HEADER.size
    if len(block) < size + _HEADER_CRC.size:
        raise NoHeader("too short")
    fields = block[:size]
    magic, in_use, mark, sequence, mount, since = _HEADER.unpack(fields)
    if magic != _MAGIC:
        raise NoHeader("not a journal segment")
    if _HEADER_CRC.unpack_from(block, size)[0] != zlib.crc32(fields):
        raise NoHeader("damaged header")
    return Header(bool(in_use), mark, sequence, mount.rstrip(b"\0"), since)


def encode_record(mark: bytes, names: bytes, content: bytes) -> bytes:
    """What stands before the content.  names: the paths with NUL between them.  Raises ValueError for too many."""
    if len(names) > _MOST_NAMES:
        raise ValueError("the names of a record are too long")
    sizes = (len(names) + len(content), len(names))
    crc = zlib.crc32(content, zlib.crc32(names, zlib.crc32(struct.pack("<II", *sizes))))
    return mark + _RECORD.pack(*sizes, crc) + names


def decode_records(mark: bytes, octets: bytes) -> list[Record | Damage]:
    """Everything in a segment's octets (behind its header's block too) that has the mark, in order."""
    found: list[Record | Damage] = []
    whole = -1  # the place of the last whole record
    at = octets.find(mark, BLOCK)
    while at >= 0:
        record = _record_at(octets, at)
        if record is None:
            found.append(Damage(at, last=True))
            at = octets.find(mark, at + 1)
        else:
            found.append(record)
            whole = at
            at = octets.find(mark, at + record.size)
    return [replace(each, last=each.at > whole) if isinstance(each, Damage) else each for each in found]


def _record_at(octets: bytes, at: int) -> Record | None:
    start = at + RECORD_HEADER
    if start > len(octets):
        return None
    total, of_names, crc = _RECORD.unpack_from(octets, at + MARK_SIZE)
    if of_names > total or start + total > len(octets):
        return None
    names = octets[start : start + of_names]
    content = octets[start + of_names : start + total]
    if crc != zlib.crc32(content, zlib.crc32(names, zlib.crc32(struct.pack("<II", total, of_names)))):
        return None
    return Record(tuple(names.split(b"\0")), content, at)


def padding(size: int) -> int:
    """Octets from `size` to the end of its block."""
    return -size % BLOCK


def names_of(paths: Sequence[str], root: str) -> bytes:
    """
    The paths below `root` (which ends in "/"), as a record has them.  Raises ValueError for one that is not below it.
    """
    start = len(root)
    for path in paths:
        if not path.startswith(root):
            raise ValueError(f"{path} is not below {root}")
    return "\0".join([path[start:] for path in paths]).encode("utf-8", "surrogateescape")
