"""
Has this message been here before?  A judge of header sections.

In: a header section, and the mailboxes that the message is for.  Out: the same header, or `Refusal` with 554 5.4.6.
RFC 5321 6.3 (loops); Delivered-To as qmail and Postfix use it.  Received fields are counted by the session.
"""

from __future__ import annotations

from collections.abc import Collection

from mailserver.address import Address, AddressError, parse_address
from mailserver.delivery.gate import body_of, fields
from mailserver.reply import Refusal, Reply

SEEN = Reply(554, "5.4.6", "Message has been delivered here before: mail loop")
#: More Delivered-To fields than this are a loop too, whomever they name: each is a hop to a mailbox.
MOST_DELIVERED_TO = 100


class LoopCheck:
    """mailboxes: the addresses that the message will be delivered to."""

    def __init__(self, mailboxes: Collection[Address]) -> None:
        self._keys = frozenset(address.key for address in mailboxes)

    def __call__(self, header: bytes) -> bytes:
        """The header as it was.  Raises Refusal when a Delivered-To field names one of the mailboxes."""
        if b"delivered-to" not in header.lower():
            return header  # nearly every message that did not pass a list or an alias
        hops = [field for name, field in fields(header) if name == b"delivered-to"]
        if len(hops) > MOST_DELIVERED_TO or any(self._is_ours(body_of(field)) for field in hops):
            raise Refusal(SEEN)
        return header

    def _is_ours(self, text: str) -> bool:
        try:
            return parse_address(text.strip("<>")).key in self._keys
        except AddressError:
            return False
