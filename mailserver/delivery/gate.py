"""
A gate in front of a delivery: the header section of a message is held until it is whole, judged, perhaps changed, and
only then goes on; the body flows through.

In: blocks.  Out: blocks; or `Refusal` from whoever judges.  The header is bounded by the session's limits.
A text without any header gets an empty line in front, or it would become a part of the fields that we put on top.
RFC 5322 2.1 (header and body), 2.2.3 (folding).
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from zope.interface import implementer

from mailserver.interfaces import IDelivery

#: The header section (whole lines with CRLF, without the empty line) -> what goes on in its place.  Raises Refusal.
Judge = Callable[[bytes], bytes]


# RFC 5322 2.2 and 4.5.8: a name of printable ASCII, perhaps blanks, a colon.  Or the first line of an mbox file.
_HEADER = re.compile(rb"[!-9;-~]+[ \t]*:|>?From ")


@implementer(IDelivery)
class HeaderGate:
    """A delivery in front of another one."""

    def __init__(self, inner: Any, judges: Sequence[Judge]) -> None:
        self._inner = inner
        self._judges = tuple(judges)
        self._held: bytearray | None = bytearray()

    def write(self, block: bytes) -> Any:
        """See `IDelivery.write`; the first octets go on when the header section has ended."""
        held = self._held
        if held is None:
            return self._inner.write(block)
        start = max(0, len(held) - 3)
        held += block
        if held.startswith(b"\r\n"):
            end = 0
        else:
            found = held.find(b"\r\n\r\n", start)
            if found < 0:
                return None
            end = found + 2
        return self._open(end)

    def prepare(self) -> Any:
        """See `IDelivery.prepare`; a message may be all header."""
        if self._held is not None:
            passed = self._open(len(self._held))
            if isinstance(passed, Awaitable):
                return self._prepare_later(passed)
        return self._inner.prepare()

    async def _prepare_later(self, passed: Awaitable[None]) -> None:
        await passed
        prepared = self._inner.prepare()
        if isinstance(prepared, Awaitable):
            await prepared

    def commit(self) -> Any:
        """See `IDelivery.commit`."""
        return self._inner.commit()

    def abort(self) -> None:
        """See `IDelivery.abort`."""
        self._held = None
        self._inner.abort()

    def _open(self, end: int) -> Any:
        held, self._held = bytes(self._held or b""), None
        if end and not has_header(held):
            held, end = b"\r\n" + held, 0
        header = held[:end]
        for judge in self._judges:
            header = judge(header)
        block = header + held[end:]
        return self._inner.write(block) if block else None


def has_header(text: bytes) -> bool:
    """Does a message that begins so begin with a header section?"""
    return _HEADER.match(text) is not None


def fields(header: bytes) -> list[tuple[bytes, bytes]]:
    """
    The fields of a header section in their order: (name in lower case, the whole field with its folds and CRLF).

    A line that is no field (before the first field, or without a colon) has the name b"".
    """
    found: list[tuple[bytes, list[bytes]]] = []
    for line in _lines(header):
        folded = line[:1] in (b" ", b"\t")
        if folded and found:
            found[-1][1].append(line)
            continue
        name, colon, _ = line.partition(b":")
        found.append((name.strip().lower() if colon and not folded else b"", [line]))
    # Joined at the end: to add line by line to a field of ten thousand would cost their square.
    return [(name, b"".join(lines)) for name, lines in found]


def _lines(header: bytes) -> list[bytes]:
    # Not `splitlines`: it takes a bare CR or LF, and other octets, for the end of a line.
    lines = [line + b"\r\n" for line in header.split(b"\r\n")]
    lines[-1] = lines[-1][:-2]
    return [line for line in lines if line]


def body_of(field: bytes) -> str:
    """What stands behind the colon: unfolded, as text (UTF-8, other octets replaced), without blanks around it."""
    return field.partition(b":")[2].replace(b"\r\n", b"").decode("utf-8", "replace").strip()
