"""
A message that a test server has taken, and how a test asks for it.

In: an envelope and octets.  Out: `Received`, a value; `Wanted`, which says whether a message is the one; the errors
that tell what did arrive instead.
RFC 5321 2.3.1 (envelope and content are two things: the recipients of a message are those of its envelope).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING

from mailserver.address import Address
from mailserver.address_patterns import NULL_SENDER, compile_pattern
from mailserver.envelope import Envelope, TLSInfo

if TYPE_CHECKING:
    from mailserver.mime import Headers, Part

#: So many messages are told one by one in an error.
TOLD = 20


@dataclass(frozen=True, slots=True)
class SessionFacts:
    """
    The connection that brought a message.

    host, port: the client's.  helo: the name it gave.  tls: version, cipher and so on; None on a plain connection.
    identity: who logged in, "" for nobody.  protocol: the `with` value of RFC 3848 ("ESMTPSA", "LMTP").
    listener: "smtp", "smtps" or "lmtp".
    """

    host: str
    port: int
    helo: str
    tls: TLSInfo | None
    identity: str
    protocol: str
    listener: str


@dataclass(frozen=True, eq=False)
class Received:
    """
    A message as it was sent: no trace fields, CRLF line ends.

    envelope: sender, recipients and all ESMTP parameters.  raw: its octets.  time: when it was taken (aware, UTC).
    """

    envelope: Envelope
    raw: bytes = field(repr=False)
    time: datetime

    @property
    def sender(self) -> str:
        """The sender of the envelope; "" for <>."""
        return "" if self.envelope.sender is None else str(self.envelope.sender)

    @property
    def recipients(self) -> tuple[str, ...]:
        """The recipients of the envelope, in their order; those that were refused are not among them."""
        return tuple(str(each.address) for each in self.envelope.recipients)

    @property
    def size(self) -> int:
        """Its octets."""
        return len(self.raw)

    @property
    def session(self) -> SessionFacts:
        """The connection, as it was at MAIL."""
        envelope, peer = self.envelope, self.envelope.peer
        return SessionFacts(
            peer.host, peer.port, peer.helo, peer.tls, peer.user, envelope.protocol, envelope.listener
        )

    @cached_property
    def mime(self) -> Part:
        """The message decoded (`mailserver.mime`).  Never raises for bad mail; `defects` says what is odd."""
        from mailserver.mime import decode

        return decode(self.raw)

    @property
    def headers(self) -> Headers:
        """Its header fields, in their order; `headers["Subject"]` is decoded."""
        return self.mime.headers

    @property
    def subject(self) -> str:
        """The field Subject, decoded; "" when there is none."""
        return self.mime.headers.get("Subject") or ""

    @property
    def text(self) -> str:
        """Its plain text, without attachments; "" when it has none."""
        return self._body("plain")

    @property
    def html(self) -> str:
        """Its HTML, without attachments; "" when it has none."""
        return self._body("html")

    def _body(self, subtype: str) -> str:
        found = self.mime.body((subtype,))
        return "" if found is None else found.text

    def __repr__(self) -> str:
        to = ", ".join(self.recipients)
        return f"<Received {self.subject!r} from <{self.sender}> to {to}, {self.size} octets>"


class MessageNotReceived(AssertionError):  # noqa: N818 - it is the test's, not an error of ours
    """Nothing that was waited for has come.  received: what has."""

    def __init__(self, text: str, received: Sequence[Received] = ()) -> None:
        super().__init__(f"{text}; {told(received)}")
        self.received = tuple(received)


class UnexpectedMessage(AssertionError):  # noqa: N818 - the same
    """There is a message that should not be.  message: the first of them."""

    def __init__(self, text: str, message: Received) -> None:
        super().__init__(f"{text}: {message!r}")
        self.message = message


def told(received: Sequence[Received]) -> str:
    """A list of messages, for an error."""
    if not received:
        return "no message has arrived"
    more = len(received) - TOLD
    lines = [f"  {number}. {each!r}" for number, each in enumerate(received[:TOLD], 1)]
    lines += [f"  and {more} more"] if more > 0 else []
    have = "1 message has arrived:" if len(received) == 1 else f"{len(received)} messages have arrived:"
    return "\n".join([have, *lines])


@dataclass(frozen=True, slots=True)
class Wanted:
    """
    Which message.  What is None is not looked at.

    to: an address, or a pattern ("*@example.org"), that one of the recipients fits.  sender: the same for the sender,
    "" or "<>" for the null sender.  subject: the whole of it, or a compiled pattern that is found in it.
    where: whatever else must be true.  Raises ValueError for a pattern that is none.
    """

    to: str | None = None
    subject: str | re.Pattern[str] | None = None
    sender: str | None = None
    where: Callable[[Received], object] | None = None
    _to: re.Pattern[str] | None = field(init=False, repr=False, compare=False)
    _sender: re.Pattern[str] | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        to = None if self.to is None else compile_pattern(self.to)
        sender = compile_pattern(self.sender) if self.sender not in (None, "", NULL_SENDER) else None
        object.__setattr__(self, "_to", to)
        object.__setattr__(self, "_sender", sender)

    def fits(self, message: Received) -> bool:
        """Is it this one?  Raises what `where` raises."""
        envelope = message.envelope
        if self._to is not None and not any(_is(self._to, each.address) for each in envelope.recipients):
            return False
        if self.sender is not None:
            if self._sender is None or envelope.sender is None:
                if self._sender is not None or envelope.sender is not None:
                    return False
            elif not _is(self._sender, envelope.sender):
                return False
        if isinstance(self.subject, re.Pattern):
            if not self.subject.search(message.subject):
                return False
        elif self.subject is not None and message.subject != self.subject:
            return False
        return self.where is None or bool(self.where(message))

    def __str__(self) -> str:
        parts = [f"to {self.to}"] if self.to is not None else []
        parts += [f"from <{self.sender.strip('<>')}>"] if self.sender is not None else []
        if self.subject is not None:
            pattern = isinstance(self.subject, re.Pattern)
            text = self.subject.pattern if isinstance(self.subject, re.Pattern) else self.subject
            parts.append(f"with a subject {'like ' if pattern else ''}{text!r}")
        parts += [f"where {getattr(self.where, '__name__', self.where)}"] if self.where is not None else []
        return " ".join(["message", *parts])


def _is(pattern: re.Pattern[str], address: Address) -> bool:
    return pattern.fullmatch(address.key) is not None
