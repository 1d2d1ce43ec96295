"""
The header section of a message: found in a stream of blocks, and taken apart into fields.

In: blocks of a message, cut anywhere.  Out: the header section once it is whole, then the body's octets; `Field`
values. Failures: `HeaderTooLong`.  A line that is no field becomes one without a name; nothing else is refused here.
What stands behind the first empty line is body.  Without an empty line all is header (RFC 6376 3.4.3: "missing
body").

RFC 5322 2.1 (header and body), 2.2 (fields), 2.2.3 (folding); RFC 6376 5.4.2 (the last field of a name comes first).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from mailserver.dkim.canonical import Canonicalization, canonical_field

#: Octets and lines of a header section: the defaults of `Limits.header_size` and `Limits.header_lines`.
MOST_HEADER, MOST_LINES = 1024 * 1024, 10_000

_CRLF = b"\r\n"
# RFC 5322 3.6.8: printable ASCII without the colon; 4.5.8 allows blanks behind it.
_NAME = re.compile(rb"([!-9;-~]+)[ \t]*:")

_BARE_NEWLINE = re.compile(rb"\r(?!\n)|(?<!\r)\n")


class HeaderTooLong(ValueError):  # noqa: N818 - named for what the header is
    """No empty line within the octets and lines that a header section may have."""


@dataclass(frozen=True, slots=True)
class Field:
    """name: lower case; "" for a line that is no field.  raw: the whole field, with folds and the CRLF at its end."""

    name: str
    raw: bytes


class MessageSplitter:
    """`write` takes the blocks of a message and gives what is body in them; `header` is None until it is whole."""

    def __init__(self, most: int = MOST_HEADER, most_lines: int = MOST_LINES) -> None:
        self.header: bytes | None = None
        self._most = most
        self._most_lines = most_lines
        self._held = bytearray()

    def write(self, block: bytes) -> bytes:
        """The next block of the message.  Raises HeaderTooLong."""
        if self.header is not None:
            return block
        held = self._held
        start = max(0, len(held) - 3)
        held += block
        if held.startswith(_CRLF):
            return self._open(0)
        end = held.find(b"\r\n\r\n", start)
        if end >= 0:
            return self._open(end + 2)
        if len(held) >= self._most + 2:  # the empty line can only come too late now
            raise HeaderTooLong(f"the header section is longer than {self._most} octets")
        return b""

    def finish(self) -> bytes:
        """The message has ended: the header section.  Raises HeaderTooLong."""
        if self.header is None:
            self._open(len(self._held))
        assert self.header is not None
        return self.header

    def _open(self, end: int) -> bytes:
        if end > self._most:
            raise HeaderTooLong(f"the header section is longer than {self._most} octets")
        if self._held.count(_CRLF, 0, end) > self._most_lines:
            raise HeaderTooLong(f"the header section has more than {self._most_lines} lines")
        held, self._held = bytes(self._held), bytearray()
        self.header = held[:end]
        return held[end + 2 :]


def fields_of(header: bytes) -> tuple[Field, ...]:
    """
    The fields of a header section, in their order.

    A line in front of all fields that starts with a blank, or one without a name and a colon, has the name "".
    """
    found: list[list[bytes]] = []
    for line in _lines(header):
        if found and line[:1] in (b" ", b"\t"):
            found[-1].append(line)
        else:
            found.append([line])
    # Joined at the end: to add line by line to a field of a million octets would cost their square.
    return tuple(_field(b"".join(lines)) for lines in found)


def _field(raw: bytes) -> Field:
    match = _NAME.match(raw)
    return Field(match[1].decode("ascii").lower() if match else "", raw)


def _lines(header: bytes) -> Iterator[bytes]:
    # Not `splitlines`: it takes a bare CR or LF, and other octets, for the end of a line.
    lines = header.removesuffix(_CRLF).split(_CRLF) if header else []
    for line in lines:
        yield line + _CRLF


class FieldSet:
    """
    The fields of a message, to be chosen by name.

    fields: in the order of the message.  counts: name -> how many there are.
    has_bare_newline: is there a CR or LF that is no part of a CRLF?  Some readers take it for the end of a line.
    """

    def __init__(self, fields: Sequence[Field]) -> None:
        self.fields = tuple(fields)
        self._by_name: dict[str, list[Field]] = {}
        for each in fields:
            if each.name:
                self._by_name.setdefault(each.name, []).append(each)
        self.counts: Mapping[str, int] = {name: len(each) for name, each in self._by_name.items()}
        self.has_bare_newline = any(_BARE_NEWLINE.search(each.raw) for each in fields)
        self._canonical: dict[tuple[Canonicalization, int], bytes] = {}

    def selected(self, canonicalization: Canonicalization, names: Iterable[str]) -> Iterator[bytes]:
        """
        The canonical fields that a list of names (lower case; `h=`) stands for, in its order (RFC 6376 5.4.2): of
        each name first the last field of the message, then the one above it.  Names of which no field is left stand
        for nothing (5.4).
        """
        left = dict(self.counts)
        for name in names:
            if number := left.get(name, 0):
                left[name] = number - 1
                yield self._canonical_form(canonicalization, self._by_name[name][number - 1])

    def _canonical_form(self, canonicalization: Canonicalization, field: Field) -> bytes:
        # Several signatures mostly sign the same fields.
        key = (canonicalization, id(field))
        if key not in self._canonical:
            self._canonical[key] = canonical_field(canonicalization, field.raw)
        return self._canonical[key]
