"""
The LMTP variant of the session: LHLO, and one reply for each recipient at the end of a message.

In and out: as in `session`.  LMTP is for the last step, from a mail system's queue into mailboxes; there is no queue
behind it, so each recipient's success or failure must be told (RFC 2033 4.2).
RFC 2033.
"""

from __future__ import annotations

from collections.abc import Sequence

from mailserver import reply as replies
from mailserver.envelope import Envelope, Recipient
from mailserver.reply import Reply
from mailserver.smtp.events import Answer
from mailserver.smtp.rules import ALLOWED_LMTP
from mailserver.smtp.session import SMTPSession


class LMTPSession(SMTPSession):
    """One LMTP conversation."""

    lmtp = True
    allowed = ALLOWED_LMTP

    def _unknown(self, verb: bytes) -> Reply:
        if verb in (b"EHLO", b"HELO"):
            # RFC 2033 4.1: they must not be accepted.
            return Reply(500, "5.5.1", "This is LMTP: send LHLO instead of HELO and EHLO")
        return super()._unknown(verb)

    def _hello_words(self) -> str:
        return "LHLO"

    def _replies_to(self, envelope: Envelope, answer: Answer, *, last: bool) -> Sequence[Reply]:
        if not last:
            # RFC 2033 4.2 and RFC 3030: only the last chunk has a reply for each recipient.
            return super()._replies_to(envelope, answer, last=last)
        if isinstance(answer, tuple):
            if len(answer) == len(envelope.recipients):
                return [_of(recipient, reply) for recipient, reply in zip(envelope.recipients, answer, strict=True)]
            # Whoever answered has miscounted: what became of each is not known, so each is tried again.
            return [replies.LOCAL_TROUBLE] * len(envelope.recipients)
        (reply,) = super()._replies_to(envelope, answer, last=last)
        return [_of(recipient, reply) for recipient in envelope.recipients]


def _of(recipient: Recipient, reply: Reply) -> Reply:
    """The reply, with the name of whom it is for; as Postfix and Dovecot write it."""
    return Reply(reply.code, reply.enhanced, f"<{recipient.address}> {reply.text}")
