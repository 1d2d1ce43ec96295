"""
Where a part stands in a mail, and what is wrong there.

In: places that were found by `decode.py`.  Out: octets of them, and defects: those found together with the places,
and those that only show when headers and content are read, which is done when somebody asks.
RFC 2045 4 (MIME-Version), 6 (Content-Transfer-Encoding); RFC 5322 2.3 (CR and LF only together).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from mailserver.mime.charsets import decode_text
from mailserver.mime.headers import Field, Headers
from mailserver.mime.parameters import ContentType, decode_parameters, parse_disposition, strip_comments
from mailserver.mime.source import BLOCK, Source, blocks
from mailserver.mime.transfer import UNKNOWN_ENCODING, is_plain, make_decoder
from mailserver.mime.values import Defect
from mailserver.mime.words import decode_words

BAD_HEADER = "8bit-header"
BAD_BODY = "8bit-body"
BAD_VERSION = "bad-mime-version"
BARE_NEWLINE = "bare-newline"
DUPLICATE_FIELD = "duplicate-field"
ENCODED_MULTIPART = "encoded-multipart"
NO_VERSION = "no-mime-version"

_EIGHT_BIT = re.compile(rb"[\x80-\xff]")
_BARE = re.compile(rb"(?<!\r)\n|\r(?!\n)")
#: Fields that stand once at most (RFC 2045 3, RFC 2183 2, RFC 2392).
_ONCE = frozenset(
    (
        "mime-version",
        "content-type",
        "content-transfer-encoding",
        "content-disposition",
        "content-id",
        "content-description",
    )
)


class Extent:
    """
    A part stands in `source` from `start` to `end`, its body from `body` on.

    type: its Content-Type as it was understood.  whole: is it a mail, not only a part of one?  defects: those that
    were found together with the place.  verbatim: are its octets the content as they stand, whatever was declared?
    """

    __slots__ = ("body", "defects", "end", "source", "start", "type", "verbatim", "whole")

    def __init__(self, source: Source, start: int, body: int, type_: ContentType) -> None:
        self.source = source
        self.start = start
        self.body = body
        self.end = source.size
        self.type = type_
        self.whole = False
        self.verbatim = False
        self.defects: list[Defect] | None = None

    def add_defect(self, kind: str, offset: int, detail: str) -> None:
        """Remember a defect.  offset: in the source."""
        if self.defects is None:
            self.defects = []
        self.defects.append(self.defect(kind, offset, detail))

    def defect(self, kind: str, offset: int, detail: str) -> Defect:
        """One at `offset` of the source: told as a place in the mail that was decoded."""
        return Defect(kind, self.place(offset), detail)

    def place(self, offset: int) -> int:
        """`offset` of the source, as a place in the mail that was decoded."""
        return offset if self.source.anchor is None else self.source.anchor

    def headers(self) -> Headers:
        """The fields, raw as they stood."""
        raw = self.source.read(self.start, self.body)
        lines = self.source.lines(self.start, self.body)
        return Headers.read(lines, None if lines == raw else raw)

    def blocks(self, size: int) -> Iterator[bytes]:
        """The body as it stood."""
        return blocks(self.source, self.body, self.end, size)


def read_encoding(body: bytes) -> str:
    """The value of a Content-Transfer-Encoding field, in lower case."""
    if b"(" in body:
        body = strip_comments(body)
    return body.strip(b" \t\"';.").decode("ascii", "replace").lower()


def examine(extent: Extent, *, leaf: bool) -> list[Defect]:
    """
    All that is wrong with one part, without those in it, in order of place.

    leaf: has it content of its own?  Then that is decoded, and dropped.
    """
    found = list(extent.defects or ())
    headers = extent.headers()
    place = extent.start
    seen: set[str] = set()
    for field in headers.fields:
        name = field.name.lower()
        for kind, detail in _examine_field(field, name, extent.type):
            found.append(extent.defect(kind, place, f"{field.name}: {detail}"))
        if name in seen and name in _ONCE:
            found.append(extent.defect(DUPLICATE_FIELD, place, f"a second {field.name}; the first counts"))
        seen.add(name)
        place += len(field.raw)
    if extent.whole and "mime-version" not in seen and {"content-type", "content-transfer-encoding"} & seen:
        found.append(extent.defect(NO_VERSION, extent.start, "MIME fields without MIME-Version"))
    if not extent.verbatim:
        encoding = headers.find("content-transfer-encoding")
        found += _examine_body(extent, "" if encoding is None else read_encoding(encoding.body), leaf=leaf)
    found.sort(key=lambda defect: defect.place)
    return found


def _examine_field(field: Field, name: str, type_: ContentType) -> Iterator[tuple[str, str]]:
    body = field.body
    if not body.isascii():
        try:
            body.decode("utf-8")
        except UnicodeDecodeError:
            yield BAD_HEADER, "octets above 127 that are not UTF-8"
    if name == "content-type":
        yield from type_.problems
        yield from decode_parameters(type_.pairs)[1]
    elif name == "content-disposition":
        yield from parse_disposition(body)[1]
    elif name == "mime-version" and not re.fullmatch(rb"1\s*\.\s*0", strip_comments(body).strip()):
        yield BAD_VERSION, "not 1.0"
    elif b"=?" in body:
        problems: list[str] = []
        decode_words(body, problems)
        yield from ((problem, "an encoded word") for problem in problems)


def _examine_body(extent: Extent, encoding: str, *, leaf: bool) -> Iterator[Defect]:
    plain = is_plain(encoding)
    if not leaf:
        if not plain and extent.type.type == "multipart":
            yield extent.defect(ENCODED_MULTIPART, extent.start, f"a multipart has no encoding, not {encoding[:40]}")
        return
    decoder = make_decoder(encoding)
    kept = []
    text = extent.type.type == "text"
    eight = -1
    offset = extent.body
    for block in extent.blocks(BLOCK):
        if eight < 0 and (found := _EIGHT_BIT.search(block)):
            eight = offset + found.start()
        octets = decoder.feed(block)
        if text:
            kept.append(octets)
        offset += len(block)
    kept.append(decoder.finish())
    if eight >= 0 and encoding not in ("8bit", "binary") and decoder.problem != UNKNOWN_ENCODING:
        yield extent.defect(BAD_BODY, eight, "octets above 127, and not declared as 8bit")
    if decoder.problem:
        yield extent.defect(decoder.problem, extent.body, f"the body is not good {encoding[:40]}")
    if text:
        charset = extent.type.parameters.get("charset", "")
        problem = decode_text(b"".join(kept), charset)[1]
        if problem:
            yield extent.defect(problem, extent.body, f"the text is not {charset[:40]}")


def find_bare_newlines(source: Source, binary: list[tuple[int, int]]) -> Iterator[Defect]:
    """
    The first line end that is not CRLF.  binary: places (start, end) in which it is no line end, in their order.
    """
    before = b""  # the last octet: judged already, or a CR of which the next octet decides
    judged = 0
    place = 0
    spans = iter([*binary, (source.size, source.size)])
    span = next(spans)
    for block in blocks(source, 0, source.size, BLOCK):
        octets = before + block
        start = place - len(before)
        place += len(block)
        waits = octets.endswith(b"\r") and place < source.size
        for match in _BARE.finditer(octets, judged, len(octets) - waits):
            where = start + match.start()
            while span[1] <= where and span[1] < source.size:
                span = next(spans)
            if not span[0] <= where < span[1]:
                yield Defect(BARE_NEWLINE, where, "a CR or LF without the other")
                return
        before, judged = octets[-1:], 0 if waits else 1
