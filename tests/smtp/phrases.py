"""The words that transcripts are made of: what a client says, in the pieces that come again and again."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from typing import Any

from mailserver.limits import Limits
from tests.smtp.driver import MECHANISMS


@dataclass(frozen=True)
class Transcript:
    """codes: of all replies behind the banner.  texts: of the messages taken.  closed: the session ends it."""

    name: str
    sent: bytes
    codes: str
    texts: tuple[bytes, ...] = ()
    closed: bool = False
    settings: dict[str, Any] = field(default_factory=dict)
    tls: bool = False


def b64(text: bytes) -> bytes:
    """In base64, with CRLF."""
    return base64.b64encode(text) + b"\r\n"


EHLO = b"EHLO client.example.net\r\n"
HELO = b"HELO client.example.net\r\n"
MAIL = b"MAIL FROM:<a@example.net>\r\n"
RCPT = b"RCPT TO:<b@example.org>\r\n"
DATA = b"DATA\r\n"
START = EHLO + MAIL + RCPT + DATA
OPEN = "250 250 250 354"
#: Up to the first chunk.
BDAT = EHLO + MAIL + RCPT
SENT = "250 250 250"
AUTH = {"mechanisms": MECHANISMS}
TEXT = b"Subject: x\r\n\r\nhello\r\n"


def message(text: bytes, codes: str = "250", taken: bytes | None = None, **settings: Any) -> dict[str, Any]:
    """The parts of a transcript with one message."""
    texts = () if taken is None else (taken,)
    return {"sent": START + text, "codes": f"{OPEN} {codes}", "texts": texts, "settings": settings}


def chunk(octets: bytes, *, last: bool = False) -> bytes:
    """A BDAT command and its octets."""
    return b"BDAT %d%s\r\n" % (len(octets), b" LAST" if last else b"") + octets


def limits(**changes: Any) -> dict[str, Any]:
    return {"limits": Limits(**changes)}
