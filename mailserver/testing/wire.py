"""
The SMTP server of a test: `PolicedServer`, which before each step looks whether something shall go wrong.

In: `Faults`, asked at the events of the session.  Out: refusals, other replies, waits, connections that end.
It is the server of the house in all else: what a client meets here it meets in production.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from twisted.internet.task import deferLater

from mailserver import reply as replies
from mailserver.envelope import Envelope
from mailserver.reply import Refusal, Reply
from mailserver.smtp import events
from mailserver.smtp.avatars import value
from mailserver.smtp.conversation import refused
from mailserver.smtp.events import Answer
from mailserver.smtp.lmtp import LMTPSession
from mailserver.smtp.policed import PolicedFactory, PolicedServer
from mailserver.smtp.rules import State
from mailserver.smtp.session import SMTPSession
from mailserver.testing.faults import Effect, Faults, Moment
from mailserver.testing.inbox import InboxDelivery

#: Commands that the session does by itself and here asks about first.
ASKED_FIRST = (b"STARTTLS", b"VRFY", b"NOOP", b"RSET", b"QUIT")


def _asked_first(verb: bytes) -> Callable[[Any, bytes], None]:
    usual = SMTPSession._COMMANDS[verb]  # noqa: SLF001 - our own base class

    def ask(session: Any, argument: bytes) -> None:
        def answered(answer: Answer) -> None:
            if (no := refused(answer)) is not None:
                session._refuse(no)  # noqa: SLF001
            else:
                usual(session, argument)

        session._ask(events.Command(verb.decode(), argument), answered)  # noqa: SLF001

    return ask


class FaultySession(SMTPSession):
    """A conversation that asks about more commands, and in which the next yes may have other words."""

    #: What is said instead of the next yes: a reply, or octets; None: the yes.
    instead: Reply | bytes | None = None

    def _reply(self, reply: Reply) -> None:
        instead, self.instead = self.instead, None
        if instead is None or not reply.positive:
            super()._reply(reply)
        elif isinstance(instead, bytes):
            self._output.append(instead)
        else:
            super()._reply(instead)

    #: As in `SMTPSession`.
    _COMMANDS: ClassVar[Mapping[bytes, Callable[[Any, bytes], None]]] = {
        **SMTPSession._COMMANDS,  # noqa: SLF001
        **{verb: _asked_first(verb) for verb in ASKED_FIRST},
    }


class FaultyLMTPSession(FaultySession, LMTPSession):
    """The same by LMTP."""


def _at(stage: str, kind: type) -> Callable[[Any, Any], Any]:
    usual = PolicedServer._DO[kind]  # noqa: SLF001

    def do(server: Any, event: Any) -> Any:
        return server._asked(stage, event, usual)  # noqa: SLF001

    return do


class FaultyServer(PolicedServer):
    """One connection, on which things go wrong when they shall."""

    session_class = FaultySession
    lmtp_session_class = FaultyLMTPSession
    _reset_it = False

    @property
    def _faults(self) -> Faults:
        factory = self.factory
        assert isinstance(factory, FaultyFactory)
        return factory.faults

    def _moment(self, stage: str, event: Any) -> Moment:
        session = self.session
        envelope: Envelope | None = getattr(event, "envelope", None) or session.envelope
        message = None
        if stage == "message" and isinstance(self._delivery, InboxDelivery):
            message = self._delivery.received()
        return Moment(
            stage,
            session.peer,
            session.settings.listener,
            name=event.name if isinstance(event, events.Hello) else session.peer.helo,
            user=event.credentials.user if isinstance(event, events.Login) else session.peer.user,
            envelope=envelope,
            recipient=str(event.recipient.address) if isinstance(event, events.Rcpt) else "",
            message=message,
            octets=session.text_octets if stage == "text" else 0,
        )

    def _asked(self, stage: str, event: Any, usual: Callable[[Any, Any], Any]) -> Any:
        """The usual answer, unless something goes wrong."""
        if not len(self._faults) or self.session.state is State.CLOSED:
            return usual(self, event)
        # By LMTP a message may be refused to some of its recipients: that is seen to where it is delivered.
        each = stage == "message" and self.session.settings.lmtp
        try:
            effects = self._faults.take(self._moment(stage, event), lambda effect: not (each and effect.refuses))
        except BaseException:  # of a `where`: the client gets 451, the log has the traceback
            if isinstance(event, events.EndOfText):
                self._drop_delivery()
            raise
        return self._wrong(effects, event, usual) if effects else usual(self, event)

    async def _wrong(self, effects: Sequence[Effect], event: Any, usual: Callable[[Any, Any], Any]) -> Any:
        """Raises Refusal."""
        for effect in effects:
            if effect.seconds:
                await deferLater(self._clock(), effect.seconds)
        last = effects[-1]
        if last.drop and last.keep:
            await value(usual(self, event))
        if last.drop:
            self._reset_it = last.reset
            self.hang_up("dropped by the test")
            raise Refusal(replies.SHUTTING_DOWN)
        if last.refuses:
            assert last.reply is not None
            if isinstance(event, events.EndOfText):
                self._drop_delivery()
            raise Refusal(last.reply)
        self.session.instead = last.reply if last.raw is None else last.raw  # type: ignore[attr-defined]
        return await value(usual(self, event))

    def _commanded_by(self, event: events.Command) -> Any:
        stage = event.verb.lower()
        if event.verb.encode() in ASKED_FIRST:
            return self._asked(stage, event, lambda _server, _event: None)
        return PolicedServer._DO[events.Command](self, event)  # noqa: SLF001

    def _close(self, event: events.Close) -> None:
        if self._reset_it:
            self._record.reason = self._record.reason or event.reason
            self.transport.abortConnection()
        else:
            super()._close(event)

    def end_now(self) -> None:
        """The server stops: nobody is waited for."""
        self.session.abort(None, "the server was stopped")
        self._drop_delivery()
        self.transport.abortConnection()

    #: As in `PolicedServer`, but asked about first.
    _DO: ClassVar[Mapping[type, Callable[[Any, Any], Any]]] = {
        **PolicedServer._DO,  # noqa: SLF001
        events.Connected: _at("connect", events.Connected),
        events.Hello: _at("helo", events.Hello),
        events.Login: _at("auth", events.Login),
        events.Mail: _at("mail", events.Mail),
        events.Rcpt: _at("rcpt", events.Rcpt),
        events.Data: _at("data", events.Data),
        events.Text: _at("text", events.Text),
        events.EndOfText: _at("message", events.EndOfText),
        events.Command: _commanded_by,
        events.Close: _close,
    }


class FaultyFactory(PolicedFactory):
    """Makes a `FaultyServer` for each connection.  The arguments are those of `PolicedFactory`, and the faults."""

    protocol = FaultyServer

    def __init__(self, portal: Any, *, faults: Faults, **others: Any) -> None:
        super().__init__(portal, **others)
        self.faults = faults
