"""
The text of a message of bench/generator.c, and whether what lies in a Maildir is that text.

In: the number and the size of a message; the octets of a file.  Out: the number of the message, or why it is not
whole. The text depends on the number, so that a message that was cut, mixed or stored twice is noticed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

#: Octets of a line of the text, with its CRLF.
LINE = 72
_NUMBER = re.compile(rb"^X-Bench: ([0-9]{1,12})$", re.MULTILINE)


class DamagedError(Exception):
    """A message did not arrive as it was sent."""


def compose(number: int, size: int, user: str, domain: str = "example.org") -> bytes:
    """The text of a message as it crosses the wire, without the final dot; `compose` of generator.c."""
    head = (
        f"From: <sender@example.com>\r\nTo: <{user}@{domain}>\r\nSubject: bench\r\nX-Bench: {number}\r\n\r\n".encode()
    )
    lines = max(0, -(-(size - LINE - len(head)) // LINE))
    letter = bytes([ord("a") + number % 26])
    return head + (letter * (LINE - 2) + b"\r\n") * lines + b"end of %d\r\n" % number


def identify(content: bytes, size: int, user: str) -> int:
    """
    The number of the message that a file holds.  The server's own trace fields may stand before it.

    Raises DamagedError when the text is not, octet by octet, the one that was sent.
    """
    text = content.replace(b"\r\n", b"\n")
    found = _NUMBER.search(text.partition(b"\n\n")[0] + b"\n")
    if found is None:
        raise DamagedError("a file holds no message of the benchmark")
    number = int(found[1])
    body = compose(number, size, user).replace(b"\r\n", b"\n").partition(b"\n\n")[2]
    if text.partition(b"\n\n")[2].rstrip(b"\n") != body.rstrip(b"\n"):
        raise DamagedError(f"message {number} is not as it was sent")
    return number


def verify(paths: Iterable[Path], count: int, copies: int, size: int, user: str) -> None:
    """
    Are the messages 0 ... count-1 there, each `copies` times, and nothing else?

    paths: all files of all recipients.  Raises DamagedError.
    """
    seen: dict[int, int] = {}
    for path in paths:
        number = identify(path.read_bytes(), size, user)
        seen[number] = seen.get(number, 0) + 1
    wrong = [number for number in range(count) if seen.get(number, 0) != copies]
    if wrong or len(seen) != count:
        raise DamagedError(
            f"{len(wrong)} of {count} messages are not there {copies} times, {len(seen)} are there at all"
        )
