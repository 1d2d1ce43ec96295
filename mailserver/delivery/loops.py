"""
Has this message been here before?  A judge of header sections.

In: a header section, and the mailboxes that the message is for.  Out: the same header, or `Refusal` with 554 5.4.6.
RFC 5321 6.3 (loops); Delivered-To as qmail and Postfix use it.  Received fields are counted by the session.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from mailserver.address import Address, AddressError, parse_address
from mailserver.delivery.gate import body_of, fields
from mailserver.reply import Refusal, Reply

SEEN = Reply(554, "5.4.6", "Message has been delivered here before: mail loop")
#: More Delivered-To fields than this are a loop too, whomever they name: each is a hop to a mailbox.
MOST_DELIVERED_TO = 100


class LoopCheck:
    """
    mailboxes: the addresses that the message will be delivered to.  leave_out: told the key of each mailbox that has
    seen the message, where the others can have it all the same (LMTP); None: one refuses the message for all.
    """

    def __init__(self, mailboxes: Collection[Address], *, leave_out: Callable[[str], None] | None = None) -> None:
        self._mailboxes = mailboxes
        self._leave_out = leave_out

    def __call__(self, header: bytes) -> bytes:
        """The header as it was.  Raises Refusal when a Delivered-To field names one of the mailboxes."""
        if b"delivered-to" not in header.lower():
            return header  # nearly every message that did not pass a list or an alias
        hops = [field for name, field in fields(header) if name == b"delivered-to"]
        if len(hops) > MOST_DELIVERED_TO:
            raise Refusal(SEEN)
        seen = {address.key for address in self._mailboxes} & {
            key for field in hops if (key := _key_of(body_of(field))) is not None
        }
        if seen and self._leave_out is None:
            raise Refusal(SEEN)
        for key in seen:
            assert self._leave_out is not None
            self._leave_out(key)
        return header


def _key_of(text: str) -> str | None:
    try:
        return parse_address(text.strip("<>")).key
    except AddressError:
        return None
