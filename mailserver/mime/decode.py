"""
From octets to a tree of parts: where each part begins and ends, and nothing more.

In: a mail, in memory or in a file.  Out: its root `Part`.  Failures: none for bad mail; with `strict`, MimeError.

One pass over the octets.  Lines that begin with "--" are looked up in a dict of the boundaries that are open, as
whole lines: a boundary that is the beginning of another is no matter, and the depth costs nothing.  Headers are only
searched for Content-Type; all else is read when it is asked for.

RFC 2046 5.1 (multipart), 5.2.1 (message/rfc822); limits against bombs are `MimeLimits`.
What is read though it is against them is in docs/mime.md.
"""

from __future__ import annotations

import re
from typing import BinaryIO

from mailserver.mime.extents import Extent, read_encoding
from mailserver.mime.headers import SECTION, blank_line, find_field, unfold
from mailserver.mime.parameters import MESSAGE, PLAIN_TEXT, ContentType, parse_content_type
from mailserver.mime.part import MESSAGE_TYPES, Part, ReadPart
from mailserver.mime.source import File, Memory, Source
from mailserver.mime.transfer import is_plain
from mailserver.mime.values import MimeError, MimeLimits

EMPTY_PART = "empty-part"
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
WRONG_BOUNDARY = "wrong-boundary"

_HEADER_PROBLEMS = {
    BAD_HEADER_LINE: "a line that is no header field, and no empty line before it",
    HEADER_TOO_LONG: "a header section that is too long; the rest of it is text",
}

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
    octets: Source = Memory(bytes(source)) if isinstance(source, bytes | bytearray | memoryview) else File(source)
    root = _Work(limits).read(octets)
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


class _Level:
    """
    A part that has no end yet.

    names: its boundaries, each with the level that it had meant before.  delimited: did a part begin in it, or the
    multipart end?  guessing: has it no boundary, so that one is looked for?
    """

    __slots__ = ("delimited", "guessing", "names", "part")

    def __init__(self, part: Part) -> None:
        self.part = part
        self.names: list[tuple[bytes, int | None]] = []
        self.delimited = False
        self.guessing = False


class _Work:
    """
    What the passes over one mail, and over the encoded messages in it, share.

    waiting: such messages.  encoded: octets of them that may still be taken out.
    """

    def __init__(self, limits: MimeLimits) -> None:
        self.limits = limits
        self.count = 0
        self.encoded = limits.encoded_message_size
        self.waiting: list[tuple[Part, int, int]] = []

    def read(self, source: Source) -> Part:
        """The tree of a mail."""
        root = _Pass(self, source, depth=0, nested=0).read()
        while self.waiting:
            part, depth, nested = self.waiting.pop()
            extent = part.extent
            assert extent is not None
            size = extent.end - extent.body
            if nested > self.limits.encoded_messages or size > self.encoded:
                extent.add_defect(TOO_DEEP, extent.start, "an encoded message too large, or too deep, to be read")
            elif self.count < self.limits.parts:
                # All of them stay in memory, so what counts is their sum.
                self.encoded -= size
                inner = Memory(part.content, extent.place(extent.body))
                part.parts.append(_Pass(self, inner, depth=depth, nested=nested).read())
            else:
                extent.add_defect(TOO_MANY_PARTS, extent.start, f"more than {self.limits.parts} parts")
        return root


class _Pass:
    """
    One pass over one source.  depth: levels around it.  nested: how many encodings it was taken out of.

    The levels that are open are a list, so that no depth of the input is one of ours.
    """

    def __init__(self, work: _Work, source: Source, *, depth: int, nested: int) -> None:
        self._work = work
        self._limits = work.limits
        self._source = source
        self._depth = depth
        self._nested = nested
        self._levels: list[_Level] = []
        self._boundaries: dict[bytes, int] = {}
        self._position = 0
        #: A delimiter line that is longer is none; RFC 2046 5.1.1 allows blanks at its end.
        self._longest_line = work.limits.boundary + 128

    def read(self) -> Part:
        """The tree."""
        start = 0
        if from_line := _MBOX.match(self._source.lines(0, 1024)):
            start = from_line.end()
        root = self._open(start, PLAIN_TEXT, whole=True)
        if start:
            assert root.extent is not None
            root.extent.add_defect(BAD_HEADER_LINE, 0, "a From line of an mbox before the header")
        while self._boundaries or self._levels[-1].guessing:
            found = self._next_line(self._position)
            if found is None:
                break
            offset, after, line = found
            self._position = after
            level, last = self._find(line)
            if level is None:
                level = self._guess(line, offset, after)
            if level is not None:
                self._delimit(level, offset, after, last=last)
        self._close(0, self._source.size)
        return root

    # -- delimiters ------------------------------------------------------------------------------------------------

    def _next_line(self, position: int) -> tuple[int, int, bytes] | None:
        """
        The next line, from the one at `position` on, that begins with "--": its place, the place behind its end, and
        what is behind the dashes, without blanks at its end.
        """
        source, longest = self._source, self._longest_line
        while position < source.size:
            start = max(position - 1, 0)
            window, base = source.window(start, longest + 2)
            at = window.find(b"\n--", start - base) + 1
            if at == 0:
                if base + len(window) >= source.size:
                    return None
                position = base + len(window) - 1  # a LF, or LF and a dash, may be the last that we saw
                continue
            seen = base + len(window)
            if at + longest > len(window) and seen < source.size:
                position = base + at
                if base < position - 1:
                    continue  # the next window begins there
            end = window.find(b"\n", at, at + longest)
            if end < 0:
                if at + longest < len(window) or seen < source.size:
                    position = base + at + 2
                    continue
                end = len(window)
            return base + at, min(base + end + 1, source.size), window[at + 2 : end].rstrip(b" \t\r")
        return None

    def _find(self, line: bytes) -> tuple[int | None, bool]:
        """The level that has this delimiter, and whether it is its last one."""
        level = self._boundaries.get(line)
        if level is None and line.endswith(b"--"):
            return self._boundaries.get(line[:-2]), True
        return level, False

    def _guess(self, line: bytes, offset: int, after: int) -> int | None:
        """
        The level that a line belongs to which is no delimiter, but would be one: of a multipart that has none yet.

        Where a boundary was declared it must be followed by a field of a part, else by any field or an empty line.
        """
        level = self._levels[-1]
        if level.delimited or not (level.guessing or level.names) or line.endswith(b"--"):
            return None
        if not _GUESSED.fullmatch(line):
            return None
        pattern = _FIELD_AT if level.guessing else _CONTENT_FIELD
        if not pattern.match(self._source.lines(after, after + 256)):
            return None
        if level.names:
            _extent(level.part).add_defect(WRONG_BOUNDARY, offset, "the boundary is not the one that was declared")
        level.guessing = False
        self._declare(line)
        return len(self._levels) - 1

    def _declare(self, boundary: bytes) -> None:
        """A boundary of the innermost level."""
        self._levels[-1].names.append((boundary, self._boundaries.get(boundary)))
        self._boundaries[boundary] = len(self._levels) - 1

    def _withdraw(self, level: _Level) -> None:
        while level.names:
            boundary, shadowed = level.names.pop()
            if shadowed is None:
                del self._boundaries[boundary]
            else:
                self._boundaries[boundary] = shadowed

    def _delimit(self, number: int, offset: int, after: int, *, last: bool) -> None:
        """A delimiter at `offset`, of the level `number`: what is open there ends; a part begins, or none."""
        level = self._levels[number]
        if len(self._levels) == number + 2 and _extent(self._levels[-1].part).start == offset:
            # Two delimiters, and nothing between them: not even a header that is empty.
            self._withdraw(self._levels.pop())
            level.part.parts.pop()
            self._work.count -= 1
            _extent(level.part).add_defect(EMPTY_PART, offset, "two delimiters without a part between them")
        # The line end before a delimiter is a part of it (RFC 2046 5.1.1).
        before = self._source.lines(max(offset - 2, 0), offset)
        end = offset - (2 if before == b"\r\n" else 1 if before.endswith(b"\n") else 0)
        self._close(number + 1, end)
        level.delimited = True
        if last:
            self._withdraw(level)
        else:
            digest = level.part.subtype == "digest"
            level.part.parts.append(self._open(after, MESSAGE if digest else PLAIN_TEXT))

    def _close(self, number: int, end: int) -> None:
        """The levels from `number` on end at `end`."""
        while len(self._levels) > number:
            level = self._levels.pop()
            part, extent = level.part, _extent(level.part)
            extent.end = max(end, extent.body)
            if level.names or level.guessing:
                if level.delimited:
                    extent.add_defect(NO_END, extent.end, "a multipart without its last delimiter")
                else:
                    self._make_implicit(part, extent)
                self._withdraw(level)

    def _make_implicit(self, part: Part, extent: Extent) -> None:
        """A multipart in which no delimiter stands: what is there is its one part, so that no text is lost."""
        extent.add_defect(NO_DELIMITER, extent.body, "a multipart without any delimiter")
        if any(block.strip() for block in extent.blocks(65536)):
            inner = Extent(extent.source, extent.body, extent.body, PLAIN_TEXT)
            inner.end = extent.end
            part.parts.append(ReadPart(inner))
            self._work.count += 1

    # -- the beginning of a part -----------------------------------------------------------------------------------

    def _open(self, start: int, default: ContentType, *, whole: bool = False) -> Part:
        """
        A part that begins at `start` with its header section, and what begins in it without a delimiter.

        default: its type if it says none.  whole: is it a mail?
        """
        first = part = self._open_one(start, default, whole=whole)
        while (begins := self._find_inner(part)) is not None:
            inner = self._open_one(begins, PLAIN_TEXT, whole=not part.is_multipart)
            part.parts.append(inner)
            part = inner
        return first

    def _find_inner(self, part: Part) -> int | None:
        """Where another part begins in one that was just opened, before any delimiter."""
        extent = _extent(part)
        if part.content_type in MESSAGE_TYPES and not extent.verbatim and self._may_hold(part):
            return self._message_start(extent)
        if not part.is_multipart:
            return None
        # The fields of a part where a delimiter should be.
        field = _CONTENT_FIELD.match(self._source.lines(extent.body, extent.body + 256))
        if field is None:
            return None
        self._levels[-1].delimited = True
        extent.add_defect(NO_START, extent.body, "a multipart without its first delimiter")
        return extent.body + len(field[0]) - len(field[0].lstrip())

    def _open_one(self, start: int, default: ContentType, *, whole: bool) -> Part:
        body, section, problem = self._read_header(start)
        type_ = default
        if (value := _find_value(section, b"content-type")) is not None:
            type_ = parse_content_type(value, self._limits.parameters)
        if self._work.count >= self._limits.parts:
            body, type_ = start, _OPAQUE
        self._work.count += 1
        extent = Extent(self._source, start, body, type_)
        extent.whole = whole
        if problem:
            extent.add_defect(problem, body, _HEADER_PROBLEMS[problem])
        self._position = body
        boundary: bytes | None = None
        if self._work.count > self._limits.parts:
            self._make_opaque(extent, TOO_MANY_PARTS, f"more than {self._limits.parts} parts")
            # All that follows is in this one.
            for level in self._levels:
                level.names.clear()
                level.guessing = False
            self._boundaries.clear()
        elif type_.type == "multipart":
            boundary = type_.boundary
            if self._depth + len(self._levels) + 1 >= self._limits.depth:
                self._make_opaque(extent, TOO_DEEP, f"more than {self._limits.depth} levels of parts")
            elif boundary is not None and len(boundary) > self._limits.boundary:
                self._make_opaque(extent, BOUNDARY_TOO_LONG, f"a boundary of {len(boundary)} octets")
        part = ReadPart(extent)
        level = _Level(part)
        self._levels.append(level)
        if not part.is_multipart:
            return part
        if boundary is None:
            extent.add_defect(NO_BOUNDARY, extent.start, "a multipart that does not say its boundary")
            level.guessing = True
        else:
            self._declare(boundary)
        return part

    def _make_opaque(self, extent: Extent, kind: str, detail: str) -> None:
        extent.add_defect(kind, extent.start, detail)
        extent.type = _OPAQUE
        extent.verbatim = True

    def _may_hold(self, part: Part) -> bool:
        """May the message that stands in this part be read in this pass?"""
        extent = _extent(part)
        if self._work.count >= self._limits.parts:
            extent.add_defect(TOO_MANY_PARTS, extent.start, f"more than {self._limits.parts} parts")
            return False
        depth = self._depth + len(self._levels)
        if depth >= self._limits.depth:
            extent.add_defect(TOO_DEEP, extent.start, f"more than {self._limits.depth} levels of parts")
            return False
        value = _find_value(self._source.lines(extent.start, extent.body), b"content-transfer-encoding")
        encoding = "" if value is None else read_encoding(value)
        if is_plain(encoding):
            return True
        extent.add_defect(ENCODED_MESSAGE, extent.start, f"a message has no encoding, not {encoding[:40]}")
        if encoding != "quoted-printable" and _FIELD_AT.match(self._source.lines(extent.body, extent.body + 256)):
            extent.verbatim = True  # it says so, and it is not: base64 has no colon
            return True
        self._work.waiting.append((part, depth, self._nested + 1))
        return False

    def _message_start(self, extent: Extent) -> int:
        """Where the mail in this part begins: empty lines before its header are no empty header."""
        blanks = _BLANKS_AND_FIELD.match(self._source.lines(extent.body, extent.body + 256))
        if blanks is None:
            return extent.body
        extent.add_defect(BAD_HEADER_LINE, extent.body, "an empty line before the header of a message")
        return extent.body + blanks.end()

    def _read_header(self, start: int) -> tuple[int, bytes, str]:
        """Where the body begins, the octets of the header section, and the kind of defect that ended it, or ""."""
        size, limit = self._source.size, self._limits.header_size
        # What is seen behind it: an empty line, or a delimiter.
        behind = self._longest_line + 16
        least = 4096
        while True:
            window, base = self._source.window(start, least)
            at = start - base
            match = SECTION.match(window, at, at + limit)
            end = match.end() if match else at
            if end + behind <= len(window) or base + len(window) >= size or least > limit + behind:
                break
            least = min(least * 4, limit + behind + 1)
        problem = ""
        stop = at + limit
        ended = end == at or window.endswith(b"\n", at, end)
        if stop < len(window) and window.find(b"\n", end, stop) < 0 and not (ended and blank_line(window, end)):
            # A line goes on beyond the limit, or ends there and is not the last.
            problem = HEADER_TOO_LONG
            end = max(window.rfind(b"\n", at, end) + 1, at) or end
        if window.startswith(b"--", end) and self._is_delimiter(window, end):
            # The header of a part ends where the next one begins.
            return base + end, window[at:end], BAD_HEADER_LINE if end > at else ""
        blank = blank_line(window, end)
        if not blank and base + end < size and not problem:
            problem = BAD_HEADER_LINE
        return base + end + blank, window[at:end], problem

    def _is_delimiter(self, window: bytes, at: int) -> bool:
        stop = window.find(b"\n", at, at + self._longest_line)
        line = window[at + 2 : stop if stop >= 0 else at + self._longest_line].rstrip(b" \t\r")
        return self._find(line)[0] is not None


def _extent(part: Part) -> Extent:
    assert part.extent is not None
    return part.extent


def _find_value(section: bytes, name: bytes) -> bytes | None:
    """The body of the first field of this name, unfolded; None if there is none."""
    span = find_field(section, name)
    return None if span is None else unfold(section[slice(*span)].partition(b":")[2])
