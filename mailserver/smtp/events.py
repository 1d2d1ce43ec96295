"""
What a session tells and asks: questions, which wait for an answer, and notices, which do not.

In: values that a session has checked.  Out: values for whoever runs the session (`smtp/server`).
A question that is refused is answered with the refusal's `Reply`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from mailserver.address import Address
from mailserver.envelope import Envelope, Peer, Recipient
from mailserver.reply import Reply
from mailserver.sasl import Credentials, ScramKeys


@dataclass(frozen=True, slots=True)
class Identity:
    """The answer to `Login` that means yes.  user: the account's address."""

    user: str


@dataclass(frozen=True, slots=True)
class Offer:
    """
    An answer to `Hello`: what is offered instead of the usual.

    extensions: keyword -> value, or None where it has none, in the order of the reply.  size: octets that a message
    may have on this connection; None: as it was.
    """

    extensions: Mapping[str, str | None]
    size: int | None = None


#: None: yes, with the usual reply.  A positive Reply: yes, in these words.  Any other Reply: no.  Several Replies:
#: one for each recipient, in the order of the envelope (`EndOfText` only).  `Identity`: to `Login`.  `ScramKeys`: to
#: `Lookup`.
#: `Offer`: to `Hello`.
Answer: TypeAlias = Reply | tuple[Reply, ...] | Identity | ScramKeys | Offer | None


class Question:
    """The session parses nothing more until this is answered."""

    __slots__ = ()


class Notice:
    """Something happened; the session goes on as soon as the next event is asked for."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Connected(Question):
    """A peer is there (and its TLS handshake done, on an implicit TLS listener): shall it be greeted?"""


@dataclass(frozen=True, slots=True)
class Hello(Question):
    """EHLO, LHLO or HELO with this name."""

    name: str
    extended: bool


@dataclass(frozen=True, slots=True)
class Command(Question):
    """A verb of `SessionSettings.verbs`.  Answer with a Reply, or None: it is unknown after all."""

    verb: str
    argument: bytes


@dataclass(frozen=True, slots=True)
class Mistake(Notice):
    """The client has earned this reply by a mistake; told where `SessionSettings.tell_mistakes` asks for it."""

    reply: Reply


@dataclass(frozen=True, slots=True)
class Mail(Question):
    """MAIL: may this transaction start?  The envelope has no recipients yet."""

    envelope: Envelope


@dataclass(frozen=True, slots=True)
class Rcpt(Question):
    """RCPT: may this recipient be added to the envelope?"""

    envelope: Envelope
    recipient: Recipient


@dataclass(frozen=True, slots=True)
class Data(Question):
    """DATA: is there a place for the text of this message?"""

    envelope: Envelope


@dataclass(frozen=True, slots=True)
class Text(Notice):
    """The next block of the message: CRLF line ends, no dot-stuffing."""

    block: bytes


@dataclass(frozen=True, slots=True)
class TextFailed(Notice):
    """The message cannot be taken; no more text follows, and no `EndOfText`.  The session answers by itself."""

    reply: Reply


@dataclass(frozen=True, slots=True)
class EndOfText(Question):
    """The whole message was given: is it safe?  size: its octets."""

    envelope: Envelope
    size: int


@dataclass(frozen=True, slots=True)
class MessageRefused(Notice):
    """The text of a message that had failed has come to its end and was answered with `reply`.  For the log."""

    envelope: Envelope
    size: int
    reply: Reply


@dataclass(frozen=True, slots=True)
class Reset(Notice):
    """The transaction was given up (RSET, EHLO, STARTTLS)."""


@dataclass(frozen=True, slots=True)
class Login(Question):
    """
    AUTH has come to its end: are these right?  Answer with `Identity` or a Reply.

    A `WrongProof` is never right: it is asked about because its answer has to wait like that to a wrong password.
    """

    mechanism: str
    credentials: Credentials


@dataclass(frozen=True, slots=True)
class Lookup(Question):
    """SCRAM needs what is kept of this user: answer with `ScramKeys`."""

    user: str


@dataclass(frozen=True, slots=True)
class Verify(Question):
    """VRFY, where it is allowed: does this address exist?  Answer with a Reply."""

    address: Address


@dataclass(frozen=True, slots=True)
class XClient(Question):
    """XCLIENT: a trusted front end says who the client really is.  After a yes the conversation begins anew."""

    peer: Peer


@dataclass(frozen=True, slots=True)
class StartTLS(Notice):
    """Start the handshake now, and call `secured` or `close` when it is over.  The 220 is in the output."""


@dataclass(frozen=True, slots=True)
class Pause(Question):
    """The peer makes too many errors: answer (with None) after so many seconds; its reply waits for that."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Close(Notice):
    """Send what is to be sent and close the connection.  reason: for the log."""

    reason: str


Event = Question | Notice
