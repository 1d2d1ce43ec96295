"""
From octets to a tree of parts: where each part begins and ends, and nothing more.

In: a mail, in memory or in a file.  Out: its root `Part`.  Failures: none for bad mail; with `strict`, MimeError.

One pass over the octets.  Lines that begin with "--" are looked up in a dict of the boundaries that are open, as whole
lines: a boundary that is the beginning of another is no matter, and the depth costs nothing.  Headers are only searched
for Content-Type; all else is read when it is asked for.

RFC 2046 5.1 (multipart), 5.2.1 (message/rfc822); limits against bombs are `MimeLimits`.
What is read though it is against them is in docs/mime.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import BinaryIO

from mailserver.mime.extents import Extent, read_encoding
from mailserver.mime.headers import FIELD, SECTION, blank_line
from mailserver.mime.parameters import MESSAGE, PLAIN_TEXT, ContentType, parse_content_type
from mailserver.mime.part import MESSAGE_TYPES, Part
from mailserver.mime.source import File, Memory, Source
from mailserver.mime.transfer import is_plain
from mailserver.mime.values import MimeError, MimeLimits

EMPTY_MULTIPART = "empty-multipart"
ENCODED_MESSAGE = "encoded-message"
HEADER_TOO_LONG = "header-too-long"
BAD_HEADER_LINE = "bad-header-line"
BOUNDARY_TOO_LONG = "boundary-too-long"
NO_BOUNDARY = "no-boundary"
NO_END = "no-end-boundary"
NO_START = "no-start-boundary"
NO_DELIMITER = "no-delimiter"
TOO_DEEP = "too-deep"
TOO_MANY_PARTS = "too-many-parts"

_OPAQUE = ContentType("application", "octet-stream")
_NO_LIMITS = MimeLimits()

#: A header field that only parts have, where a part should begin and no delimiter stands.
_CONTENT_FIELD = re.compile(rb"[ \t\r\n]*content-[!-9;-~]+[ \t]*:", re.IGNORECASE)
#: Blank lines, and then something like a header field.
_BLANKS_AND_FIELD = re.compile(rb"(?:\r*\n)+(?=[A-Za-z][!-9;-~]*:)")
#: What can be a boundary that nobody declared: RFC 2046 5.1.1, and not only dashes, as in a line drawn across.
_GUESSED = re.compile(rb"(?=.*[0-9A-Za-z])[0-9A-Za-z'()+_,./:=?-]{1,70}")
_FIELD_AT = re.compile(rb"[!-9;-~]+[ \t]*:|\r*\n")
_MBOX = re.compile(rb">?From [^\n]*\n")


def decode(
    source: bytes | bytearray | memoryview | BinaryIO, *, strict: bool = False, limits: MimeLimits = _NO_LIMITS
) -> Part:
    """
    Read a mail.

    source: octets, or a seekable binary file that stands at the beginning of the mail.  A file is read in blocks and
    must stay open, and as it is, for as long as the parts are used.
    strict: raise MimeError for the first defect, with its kind, octet and line.
    Never raises for what a mail may hold otherwise: `defects` of the part has what was wrong.
    """
    octets: Source
    if isinstance(source, bytes | bytearray | memoryview):
        octets = Memory(bytes(source))
    else:
        octets = File(source)
    root = _Decoding(octets, limits).read()
    if strict and (defects := root.defects):
        first = defects[0]
        line = 1 + _count_lines(octets, first.place)
        raise MimeError(first.kind, first.place, line, first.detail)
    return root


def _count_lines(source: Source, end: int) -> int:
    count = 0
    for start in range(0, end, 65536):
        count += source.lines(start, min(start + 65536, end)).count(b"\n")
    return count


class _Open:
    """
    A part that has no end yet.  boundary: of a multipart, while delimiters of it are looked for.  shadowed: the level
    that had this boundary before.  delimited: has one been seen?
    """

    __slots__ = ("boundary", "closed", "delimited", "guessing", "part", "shadowed")

    def __init__(self, part: Part) -> None:
        self.part = part
        self.boundary: bytes | None = None
        self.shadowed: int | None = None
        self.delimited = False
        self.closed = False
        self.guessing = False


class _Decoding:
    """The work on one mail.  The levels that are open are a list, so that no depth of the input is one of ours."""

    def __init__(self, source: Source, limits: MimeLimits) -> None:
        self._source = source
        self._limits = limits
        self._count = 0
        self._levels: list[_Open] = []
        self._boundaries: dict[bytes, int] = {}
        self._guessing = 0
        #: Encoded messages, with the depth each has, and how many encoded ones it is in.
        self._encoded: list[tuple[Part, int, int]] = []
