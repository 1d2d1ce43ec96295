"""
Messages that tell by themselves whether they are whole.

In: an id and a size; or the octets of a Maildir file.  Out: a message as it crosses the wire, with its id, the number of
its octets and a SHA-256 in its header; or what a file is: which message, and whole or not.
The digest of the whole message stays with the driver (`tests/crash/notes.py`), so that also a change in the header is seen.
Everything is compared as it lies on the disk: with LF, without the trace fields that the server puts on top.
"""

from __future__ import annotations

import base64
import hashlib
import random
import re
from dataclasses import dataclass

from tests.interop.running import without_trace

SENDER = "driver@example.net"
_HEADER = re.compile(
    rb"From: <[^\n]+>\nSubject: crash test\nX-Crash-Id: ([0-9a-z-]+)\nX-Crash-Size: (\d+)\nX-Crash-Digest: ([0-9a-f]{64})\n\n"
)
# What line-wise code gets wrong: dots in front, an empty line, a long line, octets over 127.
_ODD = b".\n..\n.odd\n\n" + b"x" * 900 + b"\n" + "grün\n".encode()


@dataclass(frozen=True)
class Message:
    """One message. text: as it crosses the wire, CRLF, without dot-stuffing. digest: of the whole text with LF."""

    id: str
    text: bytes
    digest: str


@dataclass(frozen=True)
class Found:
    """What a file in a Maildir is. id: None when it cannot be told. trouble: None for a whole message."""

    id: str | None
    digest: str
    trouble: str | None


def compose(name: str, size: int, chance: random.Random) -> Message:
    """A message with this id and about this many octets."""
    body = _ODD + base64.encodebytes(chance.randbytes(max(size - len(_ODD) - 200, 1) * 3 // 4))
    header = (
        f"From: <{SENDER}>\nSubject: crash test\nX-Crash-Id: {name}\nX-Crash-Size: {len(body)}\n"
        f"X-Crash-Digest: {hashlib.sha256(body).hexdigest()}\n\n"
    )
    whole = header.encode() + body
    return Message(name, whole.replace(b"\n", b"\r\n"), hashlib.sha256(whole).hexdigest())


def inspect(stored: bytes) -> Found:
    """Which message is this file, and is it whole?"""
    try:
        text = without_trace(stored)
    except AssertionError as error:
        return Found(None, "", f"{len(stored)} octets, {error}")
    digest = hashlib.sha256(text).hexdigest()
    header = _HEADER.match(text)
    if header is None:
        return Found(None, digest, f"{len(stored)} octets, no header of ours: {text[:200]!r}")
    name, body = header[1].decode(), memoryview(text)[header.end() :]
    if len(body) != int(header[2]):
        return Found(name, digest, f"{len(body)} octets of {int(header[2])}")
    if hashlib.sha256(body).hexdigest() != header[3].decode():
        return Found(name, digest, f"{len(body)} octets, but other ones than were sent")
    return Found(name, digest, None)
