"""
Transfer encodings as they are written (RFC 2045 6): which one a body needs, and the body in it, block by block.

In: octets in blocks of any size.  Out: octets in blocks, with CRLF for line ends, in lines of at most 76 characters.
Failures: none.  Nothing is kept but the rest of a line, so that memory does not grow with the body.
"""

from __future__ import annotations

import binascii
import re
import struct
from collections.abc import Iterable, Iterator

#: RFC 5322 2.1.1: a line without its CRLF.
MOST_IN_A_LINE = 998
#: What is read, encoded and written at once.  A multiple of 57, so that base64 has only full lines.
BLOCK = 57 * 1024

# Octets that quoted-printable leaves alone, with the line ends among them.
_READABLE = bytes([9, 10, 13, *range(32, 61), *range(62, 127)])


class Survey:
    """
    What is in a body: `update` with each block, then ask.

    size: octets.  escapes: octets that quoted-printable must escape.  ascii: none is above 127.  plain: no NUL, no CR
    or LF that is not of a CRLF, no line over 998 octets; then a body may go as 7bit, or as 8bit when it is not ascii.
    canonical: every CR and LF is of a CRLF.
    """

    def __init__(self) -> None:
        self.size = 0
        self.escapes = 0
        self.ascii = True
        self.canonical = True
        self._short = True
        self._nul = False
        self._line = 0  # octets of the line that is open
        self._open_cr = False

    def update(self, block: bytes) -> None:
        """Look at the next block."""
        if not block:
            return
        self.size += len(block)
        self.escapes += len(block.translate(None, _READABLE))
        self.ascii = self.ascii and block.isascii()
        self._nul = self._nul or b"\0" in block
        if self._open_cr:
            block = b"\r" + block
            self._line -= 1
        self._open_cr = block.endswith(b"\r")
        closed = block[:-1] if self._open_cr else block
        pairs = closed.count(b"\r\n")
        if closed.count(b"\r") != pairs or closed.count(b"\n") != pairs:
            self.canonical = False
        self._measure(block)

    def _measure(self, block: bytes) -> None:
        if not (self.canonical and self._short):
            return
        first = block.find(b"\r\n")
        if first < 0:
            self._line += len(block)
            self._short = self._line <= MOST_IN_A_LINE + 1  # one more: a CR may be open
            return
        if self._line + first > MOST_IN_A_LINE:
            self._short = False
            return
        # From line end to line end, in leaps as long as a line may be: few for a text of short lines.
        at = first + 2
        while len(block) - at > MOST_IN_A_LINE + 1:
            end = block.rfind(b"\r\n", at, at + MOST_IN_A_LINE + 2)
            if end < 0:
                self._short = False
                return
            at = end + 2
        last = block.rfind(b"\r\n", at)
        self._line = len(block) - (last + 2 if last >= 0 else at)

    @property
    def plain(self) -> bool:
        """May the body go as it is?  Ask when all was seen."""
        short = self._short and self._line <= MOST_IN_A_LINE
        return self.canonical and short and not self._open_cr and not self._nul


def choose(survey: Survey, *, text: bool, eight_bit: bool) -> str:
    """
    The transfer encoding for a body: "7bit", "8bit", "quoted-printable" or "base64".

    text: is it of type text?  Anything else is base64, unless it is empty: what is not text must arrive octet by octet,
    and servers on the way change line ends and blanks at the ends of lines.  eight_bit: is 8bit allowed?
    """
    if not survey.size:
        return "7bit"
    if text and survey.plain and (survey.ascii or eight_bit):
        return "7bit" if survey.ascii else "8bit"
    # In quoted-printable a line end is a line end; a CR or LF alone must arrive as what it is, and so goes as base64.
    if text and survey.canonical and survey.size + 2 * survey.escapes <= (survey.size + 2) // 3 * 4:
        return "quoted-printable"
    return "base64"


def survey(blocks: Iterable[bytes]) -> Survey:
    """Look at a whole body."""
    found = Survey()
    for block in blocks:
        found.update(block)
    return found


def encode_transfer(blocks: Iterable[bytes], encoding: str) -> Iterator[bytes]:
    """
    A body in "base64" or "quoted-printable"; any other encoding gives it as it is.

    Base64 comes without a line end behind its last line; an empty body stays empty.
    """
    if encoding == "base64":
        return _base64(blocks)
    if encoding == "quoted-printable":
        return _quoted_printable(blocks)
    return iter(blocks)


def encode_base64(body: bytes) -> bytes:
    """Base64 in lines of 76 characters with CRLF between them (RFC 2045 6.8)."""
    encoded = binascii.b2a_base64(body, newline=False)
    full = len(encoded) // 76 * 76
    lines = [line for (line,) in struct.iter_unpack("76s", encoded[:full])]
    if full < len(encoded):
        lines.append(encoded[full:])
    return b"\r\n".join(lines)


def _base64(blocks: Iterable[bytes]) -> Iterator[bytes]:
    rest = b""
    between = b""
    for block in blocks:
        block = rest + block if rest else block
        full = len(block) // 57 * 57
        rest = block[full:]
        if full:
            yield between + encode_base64(block[:full])
            between = b"\r\n"
    if rest:
        yield between + encode_base64(rest)


def encode_quoted_printable(body: bytes) -> bytes:
    """
    Quoted-printable (RFC 2045 6.7): CRLF stays a line end, a CR or LF alone is escaped; lines of at most 76 characters.

    Blanks at the end of a line are escaped, and a dot alone in its line (RFC 2049 3).
    """
    pairs = body.count(b"\r\n")
    if body.count(b"\r") == pairs == body.count(b"\n"):
        return _line_ends(binascii.b2a_qp(body))
    return b"\r\n".join([_escaped(line) for line in body.split(b"\r\n")])


# For a CR or LF alone b2a_qp has two bad ways: it lets it be, or makes its line too long.
_ESCAPES = tuple(
    bytes([octet]) if octet in (9, 32) or (33 <= octet <= 126 and octet != 61) else b"=%02X" % octet
    for octet in range(256)
)


def _escaped(line: bytes) -> bytes:
    """One line of quoted-printable in which a CR or LF is nothing special."""
    pieces = [_ESCAPES[octet] for octet in line]
    if pieces and (pieces[-1] in b" \t" or pieces == [b"."]):
        pieces[-1] = b"=%02X" % line[-1]
    lines: list[bytes] = []
    open_line = b""
    for piece in pieces:
        if len(open_line) + len(piece) > 75:
            lines.append(open_line + b"=")
            open_line = b""
        open_line += piece
    return b"\r\n".join([*lines, open_line])


# b2a_qp escapes a blank at the end of a line after it has measured the line, which then has 77 or 78 characters.
_TOO_LONG = re.compile(rb"^([^\n]{74,75})(=20|=09)$", re.MULTILINE)


def _line_ends(encoded: bytes) -> bytes:
    # b2a_qp ends soft lines as the first hard line does.  No other CR or LF is left by now.
    encoded = encoded.replace(b"\r\n", b"\n")
    if b"=20" in encoded or b"=09" in encoded:
        encoded = _TOO_LONG.sub(rb"\1=\n\2", encoded)
    return encoded.replace(b"\n", b"\r\n")


def _quoted_printable(blocks: Iterable[bytes]) -> Iterator[bytes]:
    rest = b""
    for block in blocks:
        block = rest + block if rest else block
        end = block.rfind(b"\r\n") + 2
        if end == 1:
            if len(block) <= BLOCK:
                rest = block
                continue
            # A line without an end: cut, but not within a CRLF.
            end = len(block) - block.endswith(b"\r")
            yield encode_quoted_printable(block[:end]) + b"=\r\n"
        else:
            yield encode_quoted_printable(block[:end])
        rest = block[end:]
    if rest:
        yield encode_quoted_printable(rest)
