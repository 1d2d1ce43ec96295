"""Runs a session without a server: answers its questions, collects what it sends and what it was given."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable
from typing import Any

from mailserver import reply as replies
from mailserver.envelope import Envelope, Peer, TLSInfo
from mailserver.reply import Reply
from mailserver.sasl import CramMD5, Login, Plain, PlainLogin
from mailserver.smtp import events
from mailserver.smtp.rules import SessionSettings
from mailserver.smtp.session import SMTPSession

TLS = TLSInfo("TLSv1.3", "TLS_AES_128_GCM_SHA256", 128)
#: RFC 2195 2.
CHALLENGE = b"<1896.697170952@postoffice.reston.mci.net>"
MECHANISMS = {
    "PLAIN": lambda _context: Plain(),
    "LOGIN": lambda _context: Login(),
    "CRAM-MD5": lambda _context: CramMD5(CHALLENGE),
}


def settings(**changes: Any) -> SessionSettings:
    """Of a listener called mx.example.org."""
    return SessionSettings("mx.example.org", **changes)


class Conversation:
    """
    Decides by the local part: unknown@ -> 550 5.1.1, denied@ -> 550 5.7.1, later@ -> 451, bye@ -> 421; at MAIL, RCPT,
    DATA (datadenied@ as a sender) and the end of text (enddenied@, endlater@, endbye@ as senders).
    """

    def __init__(
        self, given: SessionSettings | None = None, *, tls: bool = False, kind: type[SMTPSession] = SMTPSession
    ) -> None:
        peer = Peer("192.0.2.1", 4711, tls=TLS if tls else None)
        numbers = itertools.count(1)
        self.session = kind(given or settings(), peer, new_id=lambda: f"t{next(numbers)}", local=("192.0.2.25", 25))
        self.output = b""
        self.messages: list[tuple[Envelope, bytes]] = []
        self.events: list[str] = []
        self.logins: list[Any] = []
        self.pauses: list[float] = []
        self.closed = ""
        self._text = b""

    def feed(self, chunks: Iterable[bytes]) -> Conversation:
        """Give the chunks one after the other, and run the session after each."""
        self.run()
        for chunk in chunks:
            self.session.receive(chunk)
            self.run()
        return self

    def run(self) -> None:
        """Until the session has nothing more to say."""
        while (event := self.session.next_event()) is not None:
            self.output += self.session.data_to_send()
            self.events.append(type(event).__name__)
            if isinstance(event, events.Question):
                self.session.answer(self._answer(event))
            else:
                self._notice(event)
            self.output += self.session.data_to_send()
        self.output += self.session.data_to_send()

    @property
    def codes(self) -> str:
        """The codes of all replies, in order."""
        lines = self.output.decode("ascii").split("\r\n")
        assert lines[-1] == "", "the output ends within a line"
        return " ".join(line[:3] for line in lines[:-1] if line[3:4] == " ")

    @property
    def replies(self) -> list[str]:
        """The last line of each reply."""
        return [line for line in self.output.decode("ascii").split("\r\n") if re.match(r"\d{3} ", line)]

    def _answer(self, event: events.Question) -> events.Answer:
        if isinstance(event, events.Login):
            self.logins.append(event.credentials)
            if isinstance(event.credentials, PlainLogin):
                right = event.credentials.password == "secret"
            else:
                right = event.credentials.digest == "b913a602c7eda7a495b4e6e7334d3890"
            return events.Identity(event.credentials.user) if right else replies.BAD_CREDENTIALS
        if isinstance(event, events.Pause):
            self.pauses.append(event.seconds)
        if isinstance(event, events.Mail):
            return self._judge(event.envelope.sender)
        if isinstance(event, events.Rcpt):
            return self._judge(event.recipient.address)
        if isinstance(event, events.Data):
            self._text = b""
            return self._judge(event.envelope.sender, "data")
        if isinstance(event, events.EndOfText):
            answer = self._judge(event.envelope.sender, "end")
            if answer is None:
                self.messages.append((event.envelope, self._text))
                several = {"endmixed": (replies.OK, replies.MAILBOX_FULL), "endfew": (replies.OK,)}
                return several.get(getattr(event.envelope.sender, "local", ""))
            return answer
        if isinstance(event, events.Verify):
            return self._judge(event.address)
        return None

    @staticmethod
    def _judge(address: Any, prefix: str = "") -> Reply | None:
        local = getattr(address, "local", "")
        return {
            prefix + "unknown": replies.UNKNOWN_USER,
            prefix + "denied": replies.RELAYING_DENIED,
            prefix + "later": replies.LOCAL_TROUBLE,
            prefix + "bye": replies.SHUTTING_DOWN,
        }.get(local)

    def _notice(self, event: events.Event) -> None:
        if isinstance(event, events.Text):
            split = self._text.endswith(b"\r") and event.block.startswith(b"\n")
            assert not split, "a block ends between a CR and its LF"
            self._text += event.block
        elif isinstance(event, events.StartTLS):
            self.session.secured(TLS)
        elif isinstance(event, events.Close):
            self.closed = event.reason
