"""
Transfer encodings: base64, quoted-printable, uuencode.

In: encoded octets, whole or block by block.  Out: the octets that were meant, and what was wrong with the encoding.
Reading never fails.  Each decoder has `feed(block) -> bytes`, `finish() -> bytes` and `problem`, "" or a word for the
list of defects; any cut of the input gives the same output.

RFC 2045 6.7 (quoted-printable), 6.8 (base64); POSIX uuencode (IEEE 1003.1).  The codes themselves are binascii's.
"""

from __future__ import annotations

import binascii
import re
import struct
from collections.abc import Iterable, Iterator
from typing import Protocol

BAD_BASE64 = "bad-base64"
BAD_QUOTED_PRINTABLE = "bad-quoted-printable"
BAD_UUENCODE = "bad-uuencode"
UNKNOWN_ENCODING = "unknown-encoding"

#: Octets that a decoder may hold back for a line that has no end.
_HELD = 64 * 1024


class Decoder(Protocol):
    """problem: "" or the kind of the first defect.  place: octets of the input before it, as near as is known."""

    problem: str

    def feed(self, block: bytes) -> bytes:
        """What is known of the output when `block` has come."""

    def finish(self) -> bytes:
        """The rest."""


_BLANKS = b" \t\r\n\x0b\x0c"
_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
#: The alphabet of URLs (RFC 4648 5) is read too.
_KNOWN = _ALPHABET + b"-_="
_JUNK = bytes(octet for octet in range(256) if octet not in _KNOWN)
_URL_ALPHABET = bytes.maketrans(b"-_", b"+/")
_BASE64_LINE = re.compile(rb"[A-Za-z0-9+/]+={0,2}")


class Base64Decoder:
    """
    Junk between the characters is skipped, missing padding is no matter.

    Padding ends the text; lines behind it are read on only while each is base64 that is complete in itself, as where
    two texts were put together.  The footer of a mailing list is not decoded into rubbish.
    """

    def __init__(self) -> None:
        self.problem = ""
        self._held = b""
        self._padded = False
        self._over = False
        self._line = b""

    def feed(self, block: bytes) -> bytes:
        if self._padded:
            return self._behind(block)
        padding = block.find(b"=")
        if padding < 0:
            return self._take(block)
        self._padded = True
        return self._take(block[:padding]) + self._end() + self._behind(block[padding:])

    def finish(self) -> bytes:
        if self._padded:
            return self._behind(b"\n") if self._line else b""
        return self._end(padded=False)

    def _take(self, block: bytes) -> bytes:
        if block.translate(None, _BLANKS + _ALPHABET):
            # URLs' alphabet or junk.  A dash between lines may be either; it is a character, as RFC 4648 5 has it.
            self.problem = self.problem or BAD_BASE64
        data = self._held + block.translate(_URL_ALPHABET, _JUNK)
        usable = len(data) & ~3
        self._held = data[usable:]
        return binascii.a2b_base64(data[:usable])

    def _end(self, *, padded: bool = True) -> bytes:
        held, self._held = self._held, b""
        if len(held) == 1 or (held and not padded) or (padded and not held):
            self.problem = self.problem or BAD_BASE64
        return binascii.a2b_base64(held + b"=" * (4 - len(held))) if len(held) > 1 else b""

    def _behind(self, block: bytes) -> bytes:
        if self._over:
            return b""
        *lines, self._line = (self._line + block).replace(b"\r", b"\n").split(b"\n")
        found = []
        for line in lines:
            line = line.strip(_BLANKS).lstrip(b"=")
            if not line:
                continue
            if len(line) % 4 or not _BASE64_LINE.fullmatch(line):
                self._over = True
            else:
                found.append(binascii.a2b_base64(line))
            self.problem = self.problem or BAD_BASE64
            if self._over:
                self._line = b""
                break
        if len(self._line) > _HELD:
            self._over, self._line, self.problem = True, b"", self.problem or BAD_BASE64
        return b"".join(found)


#: Blanks at the end of a line are not part of the text (RFC 2045 6.7 rule 3).  Looking back keeps the time linear.
_END_BLANKS = re.compile(rb"(?<![ \t])[ \t]++(?=\r?\n|\r|\Z)")
#: An equals sign that is neither an octet nor a soft line break.
_LONE_EQUALS = re.compile(rb"=(?![0-9A-Fa-f]{2}|\r|\n|\Z)")
_SOFT_CR = re.compile(rb"=\r(?!\n)")


class QuotedPrintableDecoder:
    """Lower-case digits are read, blanks before a line end dropped; an equals sign that means nothing stays."""

    def __init__(self) -> None:
        self.problem = ""
        self._held = b""

    def feed(self, block: bytes) -> bytes:
        data = self._held + block
        # Only whole lines: what the blanks and the "=" at the end mean, the next block says.
        end = max(data.rfind(b"\n"), data.rfind(b"\r", 0, -1)) + 1
        if not end and len(data) > _HELD:
            # A line without an end is cut where no blank and no "=" stands.
            end = len(data[:-2].rstrip(b" \t=")) - 2
            while end > 0 and b"=" in data[end - 2 : end]:
                end -= 1
            if end <= 0 and len(data) > 16 * _HELD:
                # A mebibyte of nothing else is no text that a cut could change.
                end = len(data)
        if end <= 0:
            self._held = data
            return b""
        self._held = data[end:]
        return self._decode(data[:end])

    def finish(self) -> bytes:
        return self._decode(self._held) if self._held else b""

    def _decode(self, data: bytes) -> bytes:
        # A pattern of one octet is looked for much faster than one of two.
        tabs = b"\t" in data and (b"\t\r" in data or b"\t\n" in data)
        if tabs or b" \n" in data or (b"\r" in data and b" \r" in data) or data[-1:] in (b" ", b"\t"):
            data = _END_BLANKS.sub(b"", data)
        # Where each "=" is an octet or a soft line break, the length tells it, and no "=" has to be looked at.
        decoded = binascii.a2b_qp(data)
        soft = data.count(b"=\r\n")
        if len(data) - len(decoded) == 2 * data.count(b"=") + soft and data.count(b"=\r") == soft:
            return decoded
        if _LONE_EQUALS.search(data):
            self.problem = self.problem or BAD_QUOTED_PRINTABLE
            data = _LONE_EQUALS.sub(b"=3D", data)
        if b"=\r" in data:
            # binascii takes all up to the next LF for the soft line break.
            data = _SOFT_CR.sub(b"=\n", data)
        return binascii.a2b_qp(data)


_UU_BEGIN = re.compile(rb"begin(?:-base64)? +[0-7]{3,4} +([^\r\n]+)")


class UuDecoder:
    """What is between a `begin` line and its `end`, of the first of them; lines that cannot be read are left out."""

    def __init__(self) -> None:
        self.problem = BAD_UUENCODE  # until the end is seen
        self.name = b""
        self._held = b""
        self._state = 0  # 0: before the beginning, 1: in the text, 2: behind the end
        self._bad = False

    def feed(self, block: bytes) -> bytes:
        if self._state == 2:
            return b""
        *lines, self._held = (self._held + block).split(b"\n")
        if len(self._held) > _HELD:
            self._held = self._held[:_HELD]
        return b"".join(map(self._read, lines))

    def finish(self) -> bytes:
        held, self._held = self._held, b""
        return self._read(held) if held else b""

    def _read(self, line: bytes) -> bytes:
        line = line.rstrip(b"\r")
        if self._state == 0:
            if begin := _UU_BEGIN.fullmatch(line.rstrip()):
                self._state, self.name = 1, begin[1]
            return b""
        if self._state == 2:
            return b""
        if line.rstrip() == b"end":
            self._state = 2
            self.problem = BAD_UUENCODE if self._bad else ""
            return b""
        octets = decode_uu_line(line)
        if octets is None:
            self._bad = True
            return b""
        return octets


def decode_uu_line(line: bytes) -> bytes | None:
    """The octets of one uuencoded line, without its end; None if it is none.  Blanks lost at its end are put back."""
    if not line:
        return b""
    length = (line[0] - 32) & 63
    needed = 1 + (length * 4 + 2) // 3
    # The last group may be filled up with anything, a check character may follow (as some encoders wrote), and blanks
    # that a relay cut off are missing.
    line = line[:needed].ljust(needed)
    try:
        return binascii.a2b_uu(line)
    except binascii.Error:
        return None


def find_uuencoded(octets: bytes) -> Iterator[tuple[bytes, bytes]]:
    """
    (name, octets) of each file that is uuencoded within a text: `begin`, lines that are good, `end`.

    Each line is read once, whatever it is.
    """
    if b"begin " not in octets:
        return
    name: bytes | None = None
    found: list[bytes] = []
    for line in octets.replace(b"\r", b"\n").split(b"\n"):
        if begin := _UU_BEGIN.fullmatch(line.rstrip()):
            name, found = begin[1], []
        elif name is None or not line:
            continue
        elif line.rstrip() == b"end":
            if any(found):
                yield name, b"".join(found)
            name = None
        elif (decoded := decode_uu_line(line)) is None:
            name = None
        else:
            found.append(decoded)


class _Plain:
    """7bit, 8bit and binary: nothing to do."""

    problem = ""

    def feed(self, block: bytes) -> bytes:
        return block

    def finish(self) -> bytes:
        return b""


class _Unknown(_Plain):
    """Of an encoding that nobody knows the octets are left as they are (RFC 2045 6.4)."""

    problem = UNKNOWN_ENCODING


_PLAIN = ("", "7bit", "8bit", "binary", "7-bit", "8-bit", "7bits", "8bits", "7 bit", "8 bit", "none")
_UUENCODE = ("x-uuencode", "uuencode", "x-uue", "uue", "x-uu")


def make_decoder(encoding: str) -> Decoder:
    """A decoder for a Content-Transfer-Encoding, in lower case."""
    if encoding in ("base64", "x-base64", "base-64"):
        return Base64Decoder()
    if encoding in ("quoted-printable", "quoted_printable", "quotedprintable", "x-quoted-printable"):
        return QuotedPrintableDecoder()
    if encoding in _UUENCODE:
        return UuDecoder()
    return _Plain() if encoding in _PLAIN else _Unknown()


def is_plain(encoding: str) -> bool:
    """Does this encoding leave the octets as they are?"""
    return encoding in _PLAIN


def decode_base64(octets: bytes) -> bytes:
    """The octets that this base64 means, whatever else stands in it."""
    decoder = Base64Decoder()
    return decoder.feed(octets) + decoder.finish()


def decode_quoted_printable(octets: bytes) -> bytes:
    """The octets that this quoted-printable means; what means nothing stays as it is."""
    decoder = QuotedPrintableDecoder()
    return decoder.feed(octets) + decoder.finish()


def decode_blocks(blocks: Iterable[bytes], encoding: str) -> Iterator[bytes]:
    """Decoded octets of encoded ones, block by block; no block of the output is empty."""
    decoder = make_decoder(encoding)
    for block in blocks:
        if octets := decoder.feed(block):
            yield octets
    if octets := decoder.finish():
        yield octets


# -- writing ---------------------------------------------------------------------------------------------------------

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

    text: is it of type text? Anything else is base64, unless it is empty: what is not text must arrive octet by
    octet, and servers on the way change line ends and blanks at the ends of lines.  eight_bit: is 8bit allowed?
    """
    if not survey.size:
        return "7bit"
    if text and survey.plain and (survey.ascii or eight_bit):
        return "7bit" if survey.ascii else "8bit"
    # In quoted-printable a line end is a line end; a CR or LF alone must arrive as what it is, and so goes as base64.
    # Up to a quarter of escapes it can still be read, and is hardly longer than base64.
    if text and survey.canonical and survey.escapes * 4 <= survey.size:
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
    Quoted-printable (RFC 2045 6.7): CRLF stays a line end, a CR or LF alone is escaped; lines of at most 76
    characters.

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


def _softly_ended(encoded: bytes) -> bytes:
    """The same with a soft line break behind it; the last line may have no room for its equals sign."""
    if len(encoded) - encoded.rfind(b"\n") - 1 > 75:
        last = -3 if encoded[-3:-2] == b"=" else -1
        encoded = encoded[:last] + b"=\r\n" + encoded[last:]
    return encoded + b"=\r\n"


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
            yield _softly_ended(encode_quoted_printable(block[:end]))
        else:
            yield encode_quoted_printable(block[:end])
        rest = block[end:]
    if rest:
        yield encode_quoted_printable(rest)
