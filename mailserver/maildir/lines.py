"""
Line ends on the disk: LF as Maildir readers expect, or CRLF when LF could not carry the message exactly.

In: the octets of a message with CRLF line ends, in blocks cut anywhere.  Out: the octets for the file.
A file is of one kind: either no octet of it is CR, and each LF stands for CRLF; or it is the message itself, octet by
octet.  The end of the first line tells a reader which; so what is written first must be a line that ends in CRLF, as
our trace fields do.  A message with a bare CR or LF in it is kept the second way.

RFC 5321 2.3.8 (a line ends in CRLF and nothing else).
"""

from __future__ import annotations

from mailserver.envelope import CleanText


def to_lf(block: bytes) -> bytes:
    """CRLF -> LF."""
    return block.replace(b"\r\n", b"\n")


def to_crlf(block: bytes) -> bytes:
    """LF -> CRLF; undoes `to_lf` for text whose only CR and LF are those of CRLF, however it is cut."""
    return block.replace(b"\n", b"\r\n")


class LineEndings:
    """
    Converts one message, block by block.

    crlf: the file has CRLF: from the start by choice, or from the block on in which a bare CR or LF shows up.  When a
    call has turned it to True, all that was got before must be passed through `to_crlf`; what that call returned is
    CRLF already.
    stored, virtual: octets of the file so far, and of the message (S= and W= of its name).
    """

    def __init__(self, *, crlf: bool = False) -> None:
        self.crlf = crlf
        self.stored = 0
        self.virtual = 0
        self._held = b""  # a CR that ended a block: nobody knows yet whether LF follows

    def feed(self, block: bytes) -> bytes:
        """The next octets for the file."""
        if type(block) is CleanText and not self._held and not self.crlf:
            converted = block.translate(None, b"\r")
            self.virtual += len(block)
            self.stored += len(converted)
            return converted
        if self._held:
            block, self._held = self._held + block, b""
        if self.crlf:
            return self._as_it_is(block)
        if block.endswith(b"\r"):
            block, self._held = block[:-1], b"\r"
        converted = b"\n".join(block.split(b"\r\n"))  # quicker than `to_lf` where there are many lines
        if b"\r" in converted or converted.count(b"\n") != len(block) - len(converted):
            block, self._held = block + self._held, b""
            return self._keep(block)
        self.virtual += len(block)
        self.stored += len(converted)
        return converted

    def finish(self) -> bytes:
        """The last octets: a CR at the very end is a bare one."""
        held, self._held = self._held, b""
        return self._keep(held) if held else b""

    def _keep(self, block: bytes) -> bytes:
        self.crlf = True
        self.stored = self.virtual  # what to_crlf makes of all before
        return self._as_it_is(block)

    def _as_it_is(self, block: bytes) -> bytes:
        self.virtual += len(block)
        self.stored += len(block)
        return block
