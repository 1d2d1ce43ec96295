"""
What a submission server does to a message of its own user: may they write it so, and what did they leave out?

In: the header section, who logged in.  Out: the header with what was missing, and without what must not leave; or
`Refusal`: 550 5.7.1 for a sender that is not theirs, 554 5.6.0 for a From that is none.
RFC 6409 5 (mandatory), 6.1 (who may), 8 (what may be added); RFC 5322 3.6 (fields), 3.6.3 (Bcc); RFC 5321 4.4
(Return-Path belongs to the last server).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import getaddresses
from typing import Any

from mailserver.address import Address, AddressError, parse_address
from mailserver.delivery import trace
from mailserver.delivery.gate import body_of, fields
from mailserver.envelope import Envelope
from mailserver.reply import Refusal, Reply

NOT_YOURS = Reply(550, "5.7.1", "Sender address is not yours")
BAD_FROM = Reply(554, "5.6.0", "Message needs one From field with an address")

#: RFC 5322 3.6.3 and 3.6.6: who got a blind copy is told to nobody.
REMOVED = frozenset({b"bcc", b"resent-bcc", b"return-path"})
#: Octets of a From field; far above what people write, and little to take apart.
MOST_FROM = 8_192
#: Line ends in a header section, whole or bare, one or several: nothing in it can be an empty line.
_LINE_ENDS = re.compile(rb"[\r\n]+")


@dataclass(frozen=True, slots=True)
class Senders:
    """
    Whom a user may write as.  directory: an `IDirectory`.  separator: domain -> what stands before a detail there.
    """

    directory: Any
    separator: Callable[[str], str]

    def check(self, user: str, sender: Address) -> None:
        """Raises Refusal when this user may not write as this sender."""
        try:
            account = parse_address(user)
        except AddressError:
            raise Refusal(NOT_YOURS, f"{user} is no address") from None
        if not self.directory.may_send_as(account, sender, self.separator(sender.ascii_domain)):
            raise Refusal(NOT_YOURS, f"{user} as {sender}")


class Submission:
    """
    A judge of the header sections that a user submits.

    senders: None where everybody may write as everybody (development mode).  now: seconds since 1970.
    """

    def __init__(self, envelope: Envelope, user: str, senders: Senders | None, *, hostname: str, now: float) -> None:
        self._envelope = envelope
        self._user = user
        self._senders = senders
        self._hostname = hostname
        self._now = now

    def __call__(self, header: bytes) -> bytes:
        """The header as it may leave.  Raises Refusal."""
        # Where a policy lets a bare CR or LF be, or in a binary message: who reads it as the end of a line would see
        # fields (a second From, a Bcc) that were not seen here.
        header = _LINE_ENDS.sub(b"\r\n", header)
        kept = [(name, field) for name, field in fields(header) if name not in REMOVED]
        names = {name for name, _ in kept}
        added = b""
        authors = [field for name, field in kept if name == b"from"]
        if not authors and self._envelope.sender is not None:
            # RFC 6409 8: what is plain from the login and the envelope may be added; MAIL has judged it.
            added += b"From: <" + str(self._envelope.sender).encode() + b">\r\n"
        else:
            self._check_authors(authors)
        if b"date" not in names:
            added += b"Date: " + trace.date(self._now).encode() + b"\r\n"
        if b"message-id" not in names:
            added += f"Message-ID: <{self._envelope.id}.{int(self._now)}@{self._hostname}>\r\n".encode()
        return added + b"".join(field for _, field in kept)

    def _check_authors(self, authors: list[bytes]) -> None:
        # RFC 5322 3.6: exactly one From.  Two would show one author to this server and another to the reader.
        if len(authors) != 1:
            raise Refusal(BAD_FROM, f"{len(authors)} From fields")
        if len(authors[0]) > MOST_FROM:
            raise Refusal(BAD_FROM, "From is too long")
        try:
            addresses = [address for _, address in getaddresses([body_of(authors[0])])]
        except RecursionError:  # groups in groups, comments in comments
            raise Refusal(BAD_FROM, "From is nested too deep") from None
        if not addresses:
            raise Refusal(BAD_FROM, "no address in From")
        for text in addresses:
            try:
                author = parse_address(text)
            except AddressError as error:
                raise Refusal(BAD_FROM, f"From: {error}") from None
            if self._senders is not None and self._user:
                self._senders.check(self._user, author)
