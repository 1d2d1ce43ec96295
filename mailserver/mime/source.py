"""
The octets of a mail that is read: in memory, or in a file from which only blocks are taken.

In: bytes or a seekable file object.  Out: octets between two places, counted from the start of the mail.
`read` gives them as they stand.  `lines` gives as many octets in which each line ends with LF or CRLF: in a mail that
has only CR (RFC 2049 appendix A has met them) each is an LF there, so that places are the same in both.
Failures: OSError of the file, and what a closed file raises.
"""

from __future__ import annotations

from collections.abc import Iterator
from io import SEEK_END
from typing import BinaryIO, Protocol

#: Octets that are taken from a file at once.
BLOCK = 256 * 1024


class Source(Protocol):
    """
    size: octets.  held: are they in memory?

    anchor: where this mail stands in the one that holds it, if it was encoded there: its own places mean nothing
    then.
    """

    size: int
    held: bool
    anchor: int | None

    def read(self, start: int, end: int) -> bytes:
        """Octets as they stand."""

    def lines(self, start: int, end: int) -> bytes:
        """Octets with lines that can be read."""

    def window(self, start: int, least: int) -> tuple[bytes, int]:
        """Lines from `start` or before it, `least` octets behind it if there are so many; and where they begin."""


def _has_only_cr(octets: bytes) -> bool:
    return b"\n" not in octets and b"\r" in octets


class Memory:
    """A mail in memory."""

    __slots__ = ("_lines", "_octets", "anchor", "held", "size")

    def __init__(self, octets: bytes, anchor: int | None = None) -> None:
        self.size = len(octets)
        self.held = True
        self.anchor = anchor
        self._octets = octets
        # The same as for a file: the first block decides.
        self._lines = octets.replace(b"\r", b"\n") if _has_only_cr(octets[:BLOCK]) else octets

    def read(self, start: int, end: int) -> bytes:
        """See `Source`."""
        return self._octets[start:end]

    def lines(self, start: int, end: int) -> bytes:
        """See `Source`."""
        return self._lines[start:end]

    def window(self, start: int, least: int) -> tuple[bytes, int]:  # noqa: ARG002 - all of it is more than any least
        """See `Source`."""
        return self._lines, 0


class File:
    """A mail in a file, from where the file stands to its end.  The file must stay open, and as it is."""

    __slots__ = ("_base", "_cr", "_file", "_window", "_window_start", "anchor", "held", "size")

    def __init__(self, file: BinaryIO) -> None:
        """Raises ValueError for a file that cannot be read from any place (a pipe, a socket)."""
        if not file.seekable():
            raise ValueError("a mail is decoded from bytes or from a file that is seekable")
        self._file = file
        self._base = file.tell()
        self.size = max(file.seek(0, SEEK_END) - self._base, 0)
        self.held = False
        self.anchor: int | None = None
        self._window = b""
        self._window_start = 0
        self._cr = _has_only_cr(self.read(0, BLOCK))

    def read(self, start: int, end: int) -> bytes:
        """See `Source`."""
        self._file.seek(self._base + start)
        wanted = min(end, self.size) - start
        found = []
        # An unbuffered file may give less than it has.
        while wanted > 0 and (block := self._file.read(wanted)):
            found.append(block)
            wanted -= len(block)
        return found[0] if len(found) == 1 else b"".join(found)

    def lines(self, start: int, end: int) -> bytes:
        """See `Source`."""
        octets = self.read(start, end)
        return octets.replace(b"\r", b"\n") if self._cr else octets

    def window(self, start: int, least: int) -> tuple[bytes, int]:
        """See `Source`."""
        end = min(start + least, self.size)
        if not (self._window_start <= start and end <= self._window_start + len(self._window)):
            self._window_start = start
            self._window = self.lines(start, max(end, start + BLOCK))
        return self._window, self._window_start


def blocks(source: Source, start: int, end: int, size: int) -> Iterator[bytes]:
    """Octets as they stand, in blocks of at most `size`."""
    while start < end:
        block = source.read(start, min(start + size, end))
        if not block:  # the file has become shorter
            return
        yield block
        start += len(block)
