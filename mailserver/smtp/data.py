"""
Text of one message as it crosses the wire behind DATA or BDAT: where it ends, and what stands in it.

In: octets after the 354 or a BDAT line, in chunks of any size.  Out: blocks without dot-stuffing, then the end, and
what follows it.
Failures, told once and never raised: a bare CR or LF (550), a line too long (554), too big (552), a header section
too big (554), a mail loop (554).  After a failure the rest is read to its real end and thrown away; the connection
lives.

Security, "smuggling": a message ends with CRLF "." CRLF and nothing else, under every policy.  What a policy does to
a bare newline happens after the end was found; were it the other way round, LF "." LF would end the message for us
and not for the server that sent it, and what follows would be taken for commands.

RFC 5321 4.1.1.4, 4.5.2 (transparency), 2.3.8 (bare CR and LF), 4.5.3.1 (sizes), 6.3 (loops); RFC 1870 (SIZE);
RFC 3030 (BDAT, BINARYMIME).
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from typing import Literal

from mailserver.envelope import CleanText
from mailserver.limits import Limits
from mailserver.reply import BARE_NEWLINE, HEADER_TOO_BIG, MAIL_LOOP, MESSAGE_TOO_BIG, TEXT_LINE_TOO_LONG, Reply

#: What is done with a CR or LF that is no part of a CRLF: refuse the message, make it a CRLF, drop it, let it be.
BareNewlines = Literal["reject", "fix", "strip", "ignore"]

_END = b"\r\n.\r\n"
_DOTTED = re.compile(rb"\r\n\.")
_BARE_CR = re.compile(rb"\r(?!\n)")
_NEWLINE = re.compile(rb"\r\n|\r|\n")
_BARE_OR_NOT = re.compile(rb"(\r\n)|\r|\n")


class Receiver(ABC):
    """
    What is asked of a message's text, wherever its end is.  `failure` is the reply that it has earned, or None.

    size: octets so far, as RFC 1870 counts them (CRLF ends, without dot-stuffing).
    """

    def __init__(self, limits: Limits, bare_newlines: BareNewlines, *, binary: bool = False) -> None:
        """binary: BODY=BINARYMIME: it has no lines, so nothing is asked of them (RFC 3030 3)."""
        self.size = 0
        self.failure: Reply | None = None
        self._limits = limits
        self._bare_newlines: BareNewlines = "ignore" if binary else bare_newlines
        self._binary = binary
        self._header = HeaderWatch(limits)
        self._line = 0

    def fail(self, reply: Reply) -> None:
        """Note a failure, unless there is one already; the rest of the text is thrown away."""
        if self.failure is None:
            self.failure = reply

    @abstractmethod
    def receive(self, chunk: bytes) -> tuple[bytes, bytes | None]:
        """
        Take the next octets.  Returns the block of text in them (b"" once the message has failed) and, when the end
        has come, the octets behind it; None before that.  No block ends between a CR and its LF.
        """

    def _check(self, text: bytes) -> bytes:
        """The text as it may be kept: changed by the policy, or b"" once the message has failed."""
        if self.failure is None and text:
            text = self._newlines(text)
            if self._bare_newlines != "ignore":
                text = CleanText(text)
            self.size += len(text)
            # Read on to the real end even when the message is too big: what is left in the stream must never be
            # taken for commands.
            if self.size > self._limits.message_size:
                self.fail(MESSAGE_TOO_BIG)
            if not self._binary:
                self._line_lengths(text)
            if not self._header.over and (failure := self._header.receive(text)) is not None:
                self.fail(failure)
        return text if self.failure is None else b""

    def _newlines(self, text: bytes) -> bytes:
        # A pattern that begins with a letter is quick, and so is counting one letter; one that looks back takes 40
        # times as long.  Nearly every block is clean: no CR without its LF, and as many of each.
        if _BARE_CR.search(text) is None and text.count(b"\r") == text.count(b"\n"):
            return text
        if self._bare_newlines == "reject":
            self.fail(BARE_NEWLINE)
        elif self._bare_newlines == "fix":
            return _NEWLINE.sub(b"\r\n", text)
        elif self._bare_newlines == "strip":
            return _BARE_OR_NOT.sub(lambda match: match.group(1) or b"", text)
        return text

    def _line_lengths(self, text: bytes) -> None:
        most = self._limits.text_line
        first, last = text.find(b"\r\n"), text.rfind(b"\r\n")
        if first < 0:
            self._line += len(text)
            longest = self._line
        else:
            longest = self._line + first
            self._line = len(text) - last - 2
            if self._line > longest:
                longest = self._line
            if len(text) > most:  # only then can a line between the first and the last be too long
                longest = max(longest, *map(len, text[first + 2 : last + 2].split(b"\r\n")))
        if longest > most:
            self.fail(TEXT_LINE_TOO_LONG)


class TextReceiver(Receiver):
    """The text behind DATA: ends with CRLF "." CRLF, dots are stuffed."""

    def __init__(self, limits: Limits, bare_newlines: BareNewlines) -> None:
        super().__init__(limits, bare_newlines)
        # The text begins as if a CRLF stood before it: "." CRLF right behind the 354 is an empty message (and a first
        # line can be dot-stuffed).  These two octets are taken off the first block again.
        self._held = b"\r\n"
        self._skip = 2

    def receive(self, chunk: bytes) -> tuple[bytes, bytes | None]:
        """See `Receiver`: the end is CRLF "." CRLF."""
        data = self._held + chunk
        # One look for both, the end and stuffed dots: nearly no block has either.
        dotted = _DOTTED.search(data)
        end = data.find(_END, dotted.start()) if dotted is not None else -1
        rest: bytes | None
        if end >= 0:
            text, rest, self._held = data[: end + 2], data[end + 5 :], b""
        else:
            keep = _start_of_end(data)
            cut = len(data) - keep
            text, rest, self._held = data[:cut], None, data[cut:]
        # RFC 5321 4.5.2: the first dot of a line goes.  No line is split here: a held CRLF stays with what follows.
        if dotted is not None:
            text = text.replace(b"\r\n.", b"\r\n")
        if self._skip and text:
            text, self._skip = text[2:], 0
        return self._check(text), rest


class ChunkReceiver(Receiver):
    """The text of BDAT chunks (RFC 3030): as many octets as were announced, and nothing is stuffed."""

    def __init__(self, limits: Limits, bare_newlines: BareNewlines, *, binary: bool) -> None:
        super().__init__(limits, bare_newlines, binary=binary)
        self.left = 0
        self.last = False
        self._held = b""

    def begin(self, size: int, *, last: bool) -> None:
        """The next chunk.  size: its octets.  last: the message ends with it."""
        self.left, self.last = size, last

    def receive(self, chunk: bytes) -> tuple[bytes, bytes | None]:
        """See `Receiver`: the end is that of the chunk."""
        own, rest = chunk[: self.left], chunk[self.left :]
        self.left -= len(own)
        over = self.left == 0
        text = self._held + own
        self._held = b""
        # A CR at the end of a piece may have its LF in the next one; only the end of the message settles that.
        if text.endswith(b"\r") and not (over and self.last):
            text, self._held = text[:-1], b"\r"
        return self._check(text), rest if over else None


def _start_of_end(data: bytes) -> int:
    """How many octets at the end of `data` could be the start of CRLF "." CRLF."""
    for length in (4, 3, 2, 1):
        if data.endswith(_END[:length]):
            return length
    return 0


_RECEIVED = re.compile(rb"(?im)^Received[ \t]*:")
_EMPTY_LINE = re.compile(rb"(?m)^\r\n")
#: As much of a line as must be kept when a block ends within it: more than "Received", blanks and ":".
_LINE_START = 64


class HeaderWatch:
    """The header section of one message, as far as limits ask: its size, its lines, its Received fields."""

    def __init__(self, limits: Limits) -> None:
        self.over = False
        self._limits = limits
        self._size = self._lines = self._received = 0
        self._start = b""
        self._behind_crlf = True  # stands a CRLF, or nothing, before `_start`?

    def receive(self, text: bytes) -> Reply | None:
        """Look at the next block; the reply that the header section has earned, or None."""
        whole, carried = self._start + text, len(self._start)
        end = self._end(whole)
        if end is not None:
            self.over = True
            self._size += max(0, end - carried)
            whole = whole[:end]
        else:
            self._size += len(text)
            cut = whole.rfind(b"\n") + 1
            if cut:
                self._behind_crlf = whole[:cut].endswith(b"\r\n")
            # The start of the unfinished line is looked at again with the next block.
            self._start = whole[cut : cut + _LINE_START]
            whole = whole[:cut]
        self._lines += whole.count(b"\n")
        self._received += len(_RECEIVED.findall(whole))
        if self._received > self._limits.received_fields:
            return MAIL_LOOP
        if self._size > self._limits.header_size or self._lines > self._limits.header_lines:
            return HEADER_TOO_BIG
        return None

    def _end(self, whole: bytes) -> int | None:
        """
        Where the empty line stands.  Behind a bare LF, where a policy lets it be, stands none: the header section
        would end here, and go on, without a limit to its size, for those who look for CRLF CRLF.
        """
        for empty in _EMPTY_LINE.finditer(whole):
            at = empty.start()
            if self._behind_crlf if at == 0 else whole[max(0, at - 2) : at] == b"\r\n":
                return at
        return None
