"""Envelopes and messages for the tests of the test server."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from mailserver.address import parse_address
from mailserver.envelope import Envelope, Peer, Recipient
from mailserver.testing.received import Received

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)
TEXT = b"Subject: hello\r\n\r\nIt works.\r\n"


def envelope(sender: str = "a@example.net", *recipients: str, **others: Any) -> Envelope:
    """recipients: by default b@example.org."""
    to = tuple(Recipient(parse_address(each)) for each in recipients or ("b@example.org",))
    others.setdefault("peer", Peer("192.0.2.1", 4711, "client.example.net"))
    return Envelope("t1", parse_address(sender) if sender else None, to, **others)


def received(raw: bytes = TEXT, sender: str = "a@example.net", *recipients: str, **others: Any) -> Received:
    """A message that has arrived."""
    return Received(envelope(sender, *recipients, **others), raw, NOON)
