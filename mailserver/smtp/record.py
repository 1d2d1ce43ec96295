"""
What the log tells of a connection: one event for it, one for each message, and nothing in between.

In: what the server asked and was answered.  Out: events of `twisted.logger` with plain fields (docs/logs.md).
No password, no line of an AUTH exchange and no octet of a message ever comes here.

These two are the events of which a busy server has thousands in a second.  So they are built here, once, as a Logger
builds them, and given to the Logger's own observer: whoever listens to the log gets them as any other.  Their values
are texts, numbers and lists of texts, which the log writes the short way.
"""

from __future__ import annotations

from collections.abc import Sequence
from time import time
from typing import Any

from twisted.internet.interfaces import IReactorTime
from twisted.logger import LogEvent, Logger, LogLevel
from twisted.python.failure import Failure

from mailserver.address import Address
from mailserver.envelope import Envelope, TLSInfo
from mailserver.reply import BAD_CREDENTIALS, OK, Reply
from mailserver.smtp import events
from mailserver.smtp.session import SMTPSession

#: So many refusals of a connection are told word by word, the others are only counted.
REFUSALS_TOLD = 5
#: So many recipients of a message stand in the text of its event; its field has all of them.
RECIPIENTS_TOLD = 10

#: The texts of the two events.  What begins with "log_" is for the text alone, and no field of a line.
MESSAGE = "message {transaction} on {connection} from=<{sender}> to={log_to} size={size}: {reply}{log_more}"
CONNECTION = (
    "connection {connection} from {peer} on {listener} closed: {reason};"
    " {messages} messages, {errors} errors, {refused} refusals, {seconds} s{log_more}"
)


class ConnectionLog:
    """Collects what is worth telling.  reason: why the connection ended, as far as the session knows."""

    def __init__(
        self, log: Logger, connection: str, session: SMTPSession, clock: IReactorTime, counters: Any = None
    ) -> None:
        self.id = connection
        self.reason = ""
        self._log = log
        self._listener = session.settings.listener
        self._counters = counters
        self._counted = False
        self._session = session
        self._clock = clock
        self._started = self._mail_started = clock.seconds()
        self._refusals: list[str] = []
        self._refused = 0
        self._login_failures = 0

    def begun(self) -> None:
        """The connection was let in."""
        if self._counters is not None:
            self._counted = True
            self._counters.connection_opened(self._listener, self._session.peer.host)

    def logged_in(self) -> None:
        """Somebody has logged in."""
        if self._counters is not None:
            self._counters.auth_succeeded()

    def answered(self, event: events.Question, answer: Any) -> None:
        """A question got its answer."""
        if isinstance(event, events.Mail):
            self._mail_started = self._clock.seconds()
        refused = answer if isinstance(answer, Reply) and not answer.positive else None
        if isinstance(event, events.EndOfText):
            if not self._session.text_failed:
                several = answer if isinstance(answer, tuple) else (answer if isinstance(answer, Reply) else OK,)
                self._message(event.envelope, event.size, *several)
        elif refused is not None:
            self._refusal(event, refused)

    def _refusal(self, event: events.Question, refused: Reply) -> None:
        counters, host = self._counters, self._session.peer.host
        if isinstance(event, events.Mail):
            self._note(f"sender <{_path(event.envelope.sender)}>: {refused}")
            if counters is not None:
                counters.message_refused(self._listener, host, _kind(refused))
        elif isinstance(event, events.Rcpt):
            self._note(f"recipient <{event.recipient.address}>: {refused}")
            if counters is not None:
                counters.recipient_refused(host, _kind(refused))
        elif isinstance(event, events.Data):
            self._message(event.envelope, 0, refused)
        elif isinstance(event, events.Connected):
            self._note(f"connection: {refused}")
            if counters is not None:
                counters.connection_refused(self._listener, host, _kind(refused))
        elif isinstance(event, (events.Login, events.Lookup)) and refused.code != BAD_CREDENTIALS.code:
            self._note(f"login: {refused}")  # wrong credentials are told by `login_failed`

    def message_refused(self, event: events.MessageRefused) -> None:
        """A message was refused for what it held, or because it could not be stored."""
        self._message(event.envelope, event.size, event.reply)

    def login_failed(self, user: str, mechanism: str) -> None:
        """Wrong credentials.  The name is told (it is what an operator searches for), the rest is not."""
        self._login_failures += 1
        if self._counters is not None:
            self._counters.auth_failed(self._session.peer.host)
        self._note(f"login {mechanism} as {user}: wrong credentials")

    def reset(self) -> None:
        """The transaction was given up."""

    def over(self, reason: Failure, *, in_handshake: bool) -> None:
        """The connection is closed."""
        session = self._session
        if self._counted:
            self._counters.connection_closed(self._listener)
        why = self.reason or "connection lost"
        if in_handshake and not self.reason:
            why = f"TLS handshake failed: {_tls_error(reason)}"
        peer, tls = session.peer, _tls(session.peer.tls)
        self._tell(
            {
                "log_format": CONNECTION,
                "event": "connection",
                "connection": self.id,
                "listener": self._listener,
                "peer": peer.host,
                "port": peer.port,
                "helo": peer.helo,
                "tls": tls,
                "user": peer.user,
                "messages": session.messages,
                "errors": session.error_count,
                "refused": self._refused,
                "refusals": list(self._refusals),
                "login_failures": self._login_failures,
                "seconds": round(self._clock.seconds() - self._started, 3),
                "reason": why,
                "log_more": _more(peer.user, tls, self._refusals),
            }
        )

    def _tell(self, event: LogEvent) -> None:
        """What `Logger.info` does, without what it asks about each event."""
        log = self._log
        event["log_logger"] = log
        event["log_level"] = LogLevel.info
        event["log_namespace"] = log.namespace
        event["log_source"] = log.source
        event["log_time"] = time()
        log.observer(event)

    def _note(self, text: str) -> None:
        self._refused += 1
        if len(self._refusals) < REFUSALS_TOLD:
            self._refusals.append(text)

    def _message(self, envelope: Envelope, size: int, *several: Reply) -> None:
        """several: one reply for all recipients, or (LMTP) one for each."""
        # What stands for the message as a whole is the worst that was said.
        reply = several[0] if len(several) == 1 else max(several, key=_code)
        if self._counters is not None:
            self._count(envelope, size, several)
        peer, tls = envelope.peer, _tls(envelope.peer.tls)
        recipients = [str(recipient.address) for recipient in envelope.recipients]
        text = str(reply)
        self._tell(
            {
                "log_format": MESSAGE,
                "event": "message",
                "connection": self.id,
                "transaction": envelope.id,
                "listener": envelope.listener,
                "peer": peer.host,
                "helo": peer.helo,
                "tls": tls,
                "user": peer.user,
                "protocol": envelope.protocol,
                "sender": _path(envelope.sender),
                "recipients": recipients,
                "size": size,
                "body": envelope.body,
                "smtputf8": envelope.smtputf8,
                "reply": text,
                "replies": [text] if len(several) == 1 else [str(each) for each in several],
                "seconds": round(self._clock.seconds() - self._mail_started, 3),
                "log_to": _told(recipients),
                "log_more": _more(peer.user, tls),
            }
        )

    def _count(self, envelope: Envelope, size: int, several: tuple[Reply, ...]) -> None:
        """A message that one recipient has got is accepted; who has not got it is a refused recipient."""
        counters, host = self._counters, envelope.peer.host
        if len(several) == 1 and several[0].code < 400:
            counters.message_accepted(self._listener, host, octets=size, recipients=len(envelope.recipients))
            return
        failed = [reply for reply in several if not reply.positive]
        if len(failed) == len(several):
            counters.message_refused(self._listener, host, _kind(failed[0]))
            return
        accepted = len(envelope.recipients) - len(failed)
        counters.message_accepted(self._listener, host, octets=size, recipients=accepted)
        for reply in failed:
            counters.recipient_refused(host, _kind(reply))


def _told(recipients: Sequence[str]) -> str:
    """`<a@example.org>,<b@example.org> and 3 more`."""
    told = ",".join([f"<{address}>" for address in recipients[:RECIPIENTS_TOLD]])
    more = len(recipients) - RECIPIENTS_TOLD
    return f"{told} and {more} more" if more > 0 else told


def _more(user: str, tls: str, refusals: Sequence[str] = ()) -> str:
    """What the text of an event has at its end, as far as there is something to tell."""
    if not (user or tls or refusals):
        return ""
    parts = [f"user={user}"] if user else []
    parts += [f"tls={tls}"] if tls else []
    parts += [f"refused {each}" for each in refusals]
    return "".join(f"; {part}" for part in parts)


def _code(reply: Reply) -> int:
    return reply.code


def _kind(reply: Reply) -> str:
    """By what refusals are counted: the codes; their texts hold names."""
    return f"{reply.code} {reply.enhanced}".rstrip()


def _path(sender: Address | None) -> str:
    return "" if sender is None else str(sender)


def _tls(tls: TLSInfo | None) -> str:
    return "" if tls is None else f"{tls.version} {tls.cipher}"


def _tls_error(reason: Failure) -> str:
    """OpenSSL's words for what went wrong, or the transport's."""
    words = getattr(reason.value, "args", ())
    if words and isinstance(words[0], list) and words[0]:
        return str(words[0][-1][-1])
    return reason.getErrorMessage() or type(reason.value).__name__
