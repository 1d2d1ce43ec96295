"""
A fuzz target: whole conversations of SMTP and LMTP, against the laws of `mailserver/smtp/session.py`.

In: octets from libFuzzer.  The first choose the listener and how the rest is cut; the rest is what a peer sends.
Out: nothing; an exception is a finding.  Exceptions that are allowed: none.
The laws: nothing is raised; replies are lines of printable ASCII in the shape of RFC 5321 4.2, of at most 512 octets;
the codes of a reply's lines are one; nothing is said or asked behind the end; and every cut of the same octets gives
the same replies, messages and events.
How to run it: fuzz/README.md.  `tests/smtp/test_session.py` holds the same laws in every test run (hypothesis).
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mailserver import reply as replies
from mailserver.limits import DEFAULT_LIMITS
from mailserver.sasl import CramLogin, External, OAuthBearer, PlainLogin, Scram, ScramKeys, VerifiedLogin, XOAuth2
from mailserver.smtp import events
from mailserver.smtp.lmtp import LMTPSession
from mailserver.smtp.session import SMTPSession
from tests.smtp.driver import MECHANISMS, Conversation, settings
from tests.smtp.transcripts import TRANSCRIPTS

#: Octets in front of what the peer sends: which listener, TLS or not, how it is cut.
CHOICES = 3
#: RFC 5321 4.5.3.1.5; a challenge of AUTH may be longer (RFC 4954 4).
REPLY = re.compile(rb"334 [A-Za-z0-9+/=]*\r\n|[2345][0-9]{2}(?:-[ -~]*\r\n[2345][0-9]{2})* [ -~]*\r\n")
#: What a message can have done wrong.
_FAULTS = (
    replies.BARE_NEWLINE,
    replies.HEADER_TOO_BIG,
    replies.MAIL_LOOP,
    replies.MESSAGE_TOO_BIG,
    replies.TEXT_LINE_TOO_LONG,
)
FAULTS = re.compile(
    b"|".join(re.escape(reply.encode(enhanced=enhanced)) for reply in _FAULTS for enhanced in (True, False))
)
KEYS = ScramKeys(bytes(16), bytes(32), bytes(32), 4_096)
#: Small enough that a fuzzer reaches them.
LIMITS = replace(
    DEFAULT_LIMITS,
    command_line=600,
    auth_line=2_000,
    line_without_end=3_000,
    text_line=1_100,
    message_size=5_000,
    header_size=3_000,
    header_lines=40,
    received_fields=10,
    recipients=5,
    unknown_recipients=3,
    idle_commands=8,
)
ALL_MECHANISMS: Mapping[str, Callable[[Any], Any]] = {
    **MECHANISMS,
    "SCRAM-SHA-256": lambda _context: Scram({}, plus=False, nonce="fixed"),
    "SCRAM-SHA-256-PLUS": lambda _context: Scram({"tls-exporter": b"channel"}, plus=True, nonce="fixed"),
    "EXTERNAL": lambda _context: External("user@example.org"),
    "OAUTHBEARER": lambda _context: OAuthBearer(),
    "XOAUTH2": lambda _context: XOAuth2(),
}
NEWLINES = ("reject", "fix", "strip", "ignore")


class Fuzzed(Conversation):
    """Knows every kind of question, and looks at each reply."""

    def _answer(self, event: events.Question) -> events.Answer:
        if isinstance(event, events.Lookup):
            return KEYS if "@" in event.user else None
        if isinstance(event, events.Login) and not isinstance(event.credentials, (PlainLogin, CramLogin)):
            self.logins.append(event.credentials)
            known = isinstance(event.credentials, VerifiedLogin)
            return events.Identity(event.credentials.user) if known else replies.BAD_CREDENTIALS
        return super()._answer(event)


def converse(choices: bytes, chunks: Sequence[bytes]) -> Fuzzed:
    """The listener that the choices stand for, and one conversation with it."""
    listener, more = choices[0], choices[1]
    kind: type[SMTPSession] = LMTPSession if listener & 1 else SMTPSession
    given = settings(
        limits=LIMITS,
        mechanisms=ALL_MECHANISMS if listener & 2 else {},
        auth_required=bool(listener & 4 and listener & 2),
        insecure_auth=bool(listener & 8),
        starttls=bool(listener & 16),
        tls_required=bool(listener & 32 and listener & 16),
        bare_newlines=NEWLINES[listener >> 6],
        xclient=bool(more & 1),
        vrfy=bool(more & 2),
        hold=3600 if more & 4 else 0,
        lmtp=bool(listener & 1),
        off=frozenset({"PIPELINING", "ENHANCEDSTATUSCODES"} if more & 8 else ()),
    )
    conversation = Fuzzed(given, tls=bool(more & 16), kind=kind)
    conversation.feed(chunks)
    return conversation


def cut(data: bytes, size: int) -> list[bytes]:
    """Pieces of this size; 0: one piece."""
    return [data[at : at + size] for at in range(0, len(data), size)] if size else [data]


def told(conversation: Fuzzed) -> tuple[Any, ...]:
    """What must not depend on the cut: all but which of several faults of one message is named."""
    messages = [(str(envelope), text) for envelope, text in conversation.messages]
    output = FAULTS.sub(b"<the message is at fault>", conversation.output)
    return output, messages, conversation.logins, conversation.closed


def check(data: bytes) -> None:
    """The laws, for one input.  Raises AssertionError, or whatever a session raised."""
    choices, sent = data[:CHOICES].ljust(CHOICES, b"\0"), data[CHOICES:]
    whole = converse(choices, [sent])
    at = 0
    while at < len(whole.output):
        found = REPLY.match(whole.output, at)
        assert found is not None, f"no reply: {whole.output[at : at + 600]!r}"
        lines = found[0].split(b"\r\n")[:-1]
        assert len({line[:3] for line in lines}) == 1, f"two codes in one reply: {found[0]!r}"
        assert lines[0].startswith(b"334") or all(len(line) <= 510 for line in lines), f"too long: {found[0]!r}"
        at = found.end()
    pieces = converse(choices, cut(sent, choices[2]))
    # Law 5: what came behind STARTTLS is dropped; what comes later is, to a session, already within TLS.
    assert "StartTLS" in whole.events or told(pieces) == told(whole), (
        f"another cut: {told(pieces)!r} instead of {told(whole)!r}"
    )
    if whole.closed:
        before = len(whole.output), len(whole.events)
        whole.feed([b"NOOP\r\n"])
        assert (len(whole.output), len(whole.events)) == before, "something behind the end"


def write_seeds(directory: Path) -> None:
    """The transcripts of the unit tests, as a corpus to start from."""
    directory.mkdir(parents=True, exist_ok=True)
    for number, transcript in enumerate(TRANSCRIPTS):
        if len(transcript.sent) < 6_000:
            choices = bytes((0x5A, 0x17, 7)) if b"AUTH" in transcript.sent else bytes((0x10, 0x07, 5))
            (directory / f"transcript-{number:03}").write_bytes(choices + transcript.sent)


if __name__ == "__main__":
    if len(sys.argv) == 3 and sys.argv[1] == "--seeds":
        write_seeds(Path(sys.argv[2]))
    else:
        atheris: Any = importlib.import_module("atheris")  # has no types
        atheris.instrument_all()
        atheris.Setup(sys.argv, check)
        atheris.Fuzz()
