"""
The thin half of the SMTP server: sockets, timers, TLS and Deferreds around `smtp/session`, which knows the protocol.

In: a connection, a `Portal`, `SessionSettings`.  Out: calls on the avatar (`IMailAvatar`) and its deliveries; one log
event for each connection and each message.
`ESMTPServer` and `ESMTPServerFactory` are twisted.mail's classes as far as others plug into them (`portal`,
`challengers`, `delivery`, `validateFrom`, `validateTo`, `receivedHeader`); not one byte is read by the code that they
inherit, which is unsafe (OVERVIEW.md says how).

RFC 5321 3.8 and 4.5.3.2 (time-outs), RFC 3207 (STARTTLS), RFC 4954 (AUTH).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable, Mapping
from types import CoroutineType
from typing import Any, ClassVar, cast

from twisted.cred.portal import Portal
from twisted.internet.defer import CancelledError, Deferred, ensureDeferred
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IHalfCloseableProtocol,
    IHandshakeListener,
    IPushProducer,
    IReactorTime,
    ISSLTransport,
    ITCPTransport,
    ITLSTransport,
)
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from mailserver import reply as replies
from mailserver.connections import OpenConnections
from mailserver.envelope import Peer
from mailserver.interfaces import IAdmission, IDelivery
from mailserver.limits import DEFAULT_LIMITS, Limits
from mailserver.reply import Refusal, Reply
from mailserver.smtp import events
from mailserver.smtp.avatars import AvatarServer, value
from mailserver.smtp.ids import new_id
from mailserver.smtp.lmtp import LMTPSession
from mailserver.smtp.record import ConnectionLog
from mailserver.smtp.rules import SessionSettings, State
from mailserver.smtp.session import SMTPSession
from mailserver.smtp.stock import mechanisms_of, reply_of
from mailserver.smtp.stock_import import stock
from mailserver.smtp.timers import TimedServer
from mailserver.sockets import local_of, peer_of
from mailserver.tls import channel_bindings, tls_info

#: While a question is open, so many octets more are taken from the socket before it is left alone.
READ_AHEAD = 64 * 1024
#: So many questions and notices are dealt with before the reactor gets its turn: some 5 ms.
EVENTS_PER_TURN = 64
#: Clients that are turned away behind implicit TLS: so many at once are told why, within so many seconds.
TURNED_AWAY_AT_ONCE, TURNED_AWAY_HANDSHAKE = 20, 5.0
#: Who talks before the banner, where `banner_delay` asks for patience.
EARLY_TALKER = Reply(554, "5.5.1", "You talk before you were greeted")

_log = Logger(namespace="mailserver.smtp")


@implementer(IPushProducer)
class _Output:
    """What the transport is told to stop when the peer does not read: not our writing only, but our reading."""

    def __init__(self, server: ESMTPServer) -> None:
        self._server = server

    def pauseProducing(self) -> None:
        self._server.peer_stopped_reading()

    def resumeProducing(self) -> None:
        self._server.peer_reads_again()

    def stopProducing(self) -> None:
        pass  # connectionLost follows and does all there is to do


@implementer(IHandshakeListener, IHalfCloseableProtocol)
class ESMTPServer(TimedServer):
    """One connection.  See the module; the laws of the conversation are in `smtp/session`."""

    # Beyond 30 attributes Python gives each object a table of its own, 1,300 octets larger: these stand beside it.
    __slots__ = (
        "_busy",
        "_committing",
        "_decision",
        "_delivery",
        "_input_over",
        "_let_in",
        "_producing",
        "_reading",
        "_turn",
        "_turned_away",
    )
    noisy = False
    factory: ESMTPServerFactory | None = None  # type: ignore[assignment]
    #: ITCPTransport or ISSLTransport; the stock class knows ITransport only.
    transport: Any = None
    #: What a conversation is, and what one by LMTP is.
    session_class: ClassVar[type[SMTPSession]] = SMTPSession
    lmtp_session_class: ClassVar[type[SMTPSession]] = LMTPSession

    def __init__(self, chal: Mapping[bytes, Any] | None = None, contextFactory: Any = None) -> None:
        super().__init__(chal, contextFactory)
        self.settings: SessionSettings | None = None
        self.clock: IReactorTime | None = None
        self._delivery: Any = None
        self._busy = False
        self._decision: Deferred[Any] | None = None
        self._turn: IDelayedCall | None = None
        self._reading = True
        self._input_over = False
        self._let_in = False
        self._producing = False
        self._committing = False
        self._turned_away: Reply | None = None

    # -- what the transport calls ----------------------------------------------------------------------------------

    def connectionMade(self) -> None:
        """The TCP connection is there; behind implicit TLS the handshake is still to come."""
        clock = self._clock()
        self._started = clock.seconds()
        host, port = peer_of(self.transport)
        settings = self._session_settings(host)
        self._limits: Limits = settings.limits
        kind = self.lmtp_session_class if settings.lmtp else self.session_class
        self.session = kind(settings, Peer(host, port), new_id=new_id, local=local_of(self.transport))
        counters = None if self.factory is None else self.factory.counters
        self._record = ConnectionLog(_log, new_id(), self.session, clock, counters)
        if ITCPTransport.providedBy(self.transport):
            # Two small writes in a row would wait 40 ms for each other.
            self.transport.setTcpNoDelay(True)
            self.transport.setTcpKeepAlive(True)
        if self.factory is not None:
            self.factory.connections.add(self)
        self._turned_away = None if self.admission is None else self.admission.connected(self.session.peer)
        self._let_in = self._turned_away is None
        if self._turned_away is None:
            self._record.begun()
        if ISSLTransport.providedBy(self.transport):
            self._handshaking = True
            if self._turned_away is not None:
                # It can be told so only after the handshake.  Until then it is counted nowhere and costs us a file:
                # a few may wait for it, and not for long.
                if self.factory is None or not self.factory.connections.may_wait(self, TURNED_AWAY_AT_ONCE):
                    self._record.reason = "turned away"
                    self.transport.abortConnection()
                    return
                short = min(TURNED_AWAY_HANDSHAKE, self._limits.tls_handshake_timeout)
                self._limits = dataclasses.replace(self._limits, tls_handshake_timeout=short)
            self._timed_for = "TLS handshake"
            self.setTimeout(self._limits.tls_handshake_timeout)
        else:
            self._begin()

    def handshakeCompleted(self) -> None:
        """The TLS handshake is done: the first octet of the conversation may be exchanged, or the next."""
        self._handshaking = False
        self.startedTLS = True
        handle = self.transport.getHandle()
        self.session.secured(tls_info(handle), channel_bindings(handle))
        if self.session.state is State.START:
            self._begin()
        else:
            self._logout()
            self._pump()

    def dataReceived(self, data: bytes) -> None:
        """Octets came in."""
        if self.session.state is State.CLOSED:
            return  # TLS still gives us what comes behind our goodbye; it must not put off the end
        self.session.receive(data)
        if self._busy:
            if self.session.buffered > READ_AHEAD:
                self._read(on=False)
            return
        self._pump()

    def readConnectionLost(self) -> None:
        """
        The peer has closed its sending side; that of ours is open.  Exim does so right behind a pipelined QUIT, and
        still reads: what it has sent is answered to its end, or it would send a message again that we have.
        """
        self._input_over = True
        self._pump()

    def writeConnectionLost(self) -> None:
        """See `IHalfCloseableProtocol`; we never close our sending side alone."""

    def timeoutConnection(self) -> None:
        """The one timer ran out: what for, `_arm` has noted."""
        what = self._timed_for
        took = f"{self._limits.tls_handshake_timeout:g} s"
        why = f"TLS handshake took over {took}" if what == "TLS handshake" else f"timeout: {what}"
        self._record.reason = self._record.reason or why
        if what == "TLS handshake" or not self._peer_reads or what == "closing":
            # Nothing that we could say would arrive.
            self.session.abort(None, what)
            self.transport.abortConnection()
            return
        too_long = what == "connection time"
        self.session.abort(replies.SESSION_TOO_LONG if too_long else replies.IDLE_TOO_LONG, f"timeout: {what}")
        self._pump()

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        """The connection is over, however it came to that."""
        self._lost = True
        self._forget_time()
        in_handshake, self._handshaking = self._handshaking, False
        self.session.abort(None, "TLS handshake failed" if in_handshake else "connection lost")
        self._drop_delivery()
        self._logout()
        if self._turn is not None:
            self._turn.cancel()
        if self._decision is not None and not self._committing:
            self._decision.cancel()
        if self._let_in and self.admission is not None:
            self.admission.disconnected(self.session.peer)
        if self.factory is not None:
            self.factory.connections.discard(self)
        self._record.over(reason, in_handshake=in_handshake)

    # -- the loop --------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        self.transport.registerProducer(_Output(self), True)
        self._producing = True
        self._pump()

    def _pump(self) -> None:
        """Flush, ask, wait, answer - until there is nothing more to be done now."""
        if self._busy:
            return
        self._busy = True
        asked = 0
        next_event = self.session.next_event
        while self._peer_reads and (event := next_event()) is not None:
            try:
                result = self._DO[type(event)](self, event)
            except Exception:  # noqa: BLE001 - told to the peer as 451, and logged, by _answer
                result = Failure()
            waiting = None if result is None else _to_wait_for(result)
            if waiting is not None and (result := _already_there(waiting)) is waiting:
                self._flush()
                self._wait_for(waiting, event)
                return
            if result is not None or type(event) is not events.Text:
                self._answer(event, result)
            asked += 1
            if asked == EVENTS_PER_TURN:
                # A peer that pipelines a thousand commands must not make all others wait for them.
                self._flush()
                self._turn = self._clock().callLater(0, self._next_turn)
                return
        self._busy = False
        if self._input_over and self._peer_reads and self.session.state is not State.CLOSED:
            # All that came has been answered, and no more will come.
            self._cut_off()
            self._pump()
            return
        self._flush()
        self._read(on=self._peer_reads)
        self._arm()

    def _cut_off(self) -> None:
        """The peer has hung up without a QUIT."""
        self.session.abort(None, "connection lost")

    def _next_turn(self) -> None:
        self._turn = None
        self._busy = False
        self._pump()

    def _wait_for(self, waiting: Deferred[Any], event: events.Event) -> None:
        self._decision = waiting
        asked = self._clock().seconds()
        self.setTimeout(None)
        if not isinstance(event, (events.EndOfText, events.Pause, events.Login)):
            # A commit must not be cut off: the disk says when it is done.  The other two end by themselves.
            waiting.addTimeout(self._limits.decision_timeout, self._clock())

        def decided(result: Any) -> None:
            self._decision = None
            self._busy = False
            self._text_waited += self._clock().seconds() - asked
            self._answer(event, result)
            if not self._lost:
                self._pump()

        waiting.addBoth(decided)

    def _answer(self, event: events.Event, result: Any) -> None:
        """Give the result of a question back to the session; for a notice look only whether it failed."""
        kind = type(event)
        reply = None
        if isinstance(result, Failure):
            reply = self._trouble(event, result)
        elif not _makes_sense(event, result):
            failure = Failure(TypeError(f"{type(result).__name__} is no answer to {kind.__name__}"))
            reply = self._trouble(event, failure)
        session = self.session
        if self._lost or session.state is State.CLOSED:
            if kind is events.Data and reply is None:
                result.abort()
            elif isinstance(event, events.EndOfText) and reply is None:
                # Nobody is left to hear the 250, but the message is there.
                self._record.answered(event, result)
            return
        if kind is events.Text:
            if reply is not None:
                self._drop_delivery()
                session.refuse_text(reply)
        elif isinstance(event, events.Question):
            if kind is events.Data and reply is None:
                self._delivery, result = result, None
                self._time_text()
            elif kind is events.EndOfText:
                self._text_timed = False  # the next text has a time of its own
            answer = reply if reply is not None else result
            if answer is not None or kind is events.Mail or kind is events.EndOfText:
                self._record.answered(event, answer)
            session.answer(answer)

    def _trouble(self, event: events.Event, failure: Failure) -> Reply:
        """The reply for a failed decision; its cause goes to the log, never to the peer."""
        if failure.check(CancelledError) and self._lost:
            return replies.LOCAL_TROUBLE
        reply, log_it = reply_of(failure)
        cause = failure.value.__cause__ if isinstance(failure.value, Refusal) else None
        if isinstance(cause, OSError):
            # Trouble with the disk comes to every message alike: a line each, without the way it took through here.
            _log.error(
                "{asked} on connection {connection}: {reply} because of {error}",
                event="trouble",
                asked=type(event).__name__,
                connection=self._record.id,
                reply=str(reply),
                error=str(cause),
            )
        elif log_it:
            _log.failure(
                "{asked} failed on connection {connection}",
                failure=failure,
                asked=type(event).__name__,
                connection=self._record.id,
                reply=str(reply),
            )
        if isinstance(event, (events.Login, events.Lookup)) and reply is replies.LOCAL_TROUBLE:
            return replies.AUTH_UNAVAILABLE  # RFC 4954 4.7.0: no word about the credentials
        return reply

    # -- what the events ask for -----------------------------------------------------------------------------------

    def _connected(self, _event: events.Connected) -> Any:
        delay = self.session.settings.banner_delay
        if self._turned_away is not None or not delay:
            return self._turned_away
        return deferLater(self._clock(), delay).addCallback(lambda _: self._judge_early_talker())

    def _judge_early_talker(self) -> Reply | None:
        # RFC 5321 3.1 and 4.3.1: the client waits for the banner.  Who does not is a spammer's program, or one that
        # repeats what somebody else has put into its mouth.
        return EARLY_TALKER if self.session.buffered else None

    def _hello(self, _event: events.Hello) -> None:
        return None

    def _mail(self, event: events.Mail) -> Any:
        if self.admission is not None and (no := self.admission.may_send(self.session.peer)) is not None:
            return no
        return self._first_mail(event) if self._avatar is None else self._avatar.mail(event.envelope)

    async def _first_mail(self, event: events.Mail) -> Reply | None:
        avatar = await self._own_avatar()
        return cast("Reply | None", await value(avatar.mail(event.envelope)))

    def _rcpt(self, event: events.Rcpt) -> Any:
        if self.admission is not None and (no := self.admission.may_address(self.session.peer)) is not None:
            return no
        return self._avatar.rcpt(event.envelope, event.recipient)

    async def _verify(self, event: events.Verify) -> Reply:
        avatar = await self._own_avatar()
        return cast("Reply", await value(avatar.verify(event.address)))

    def _xclient(self, event: events.XClient) -> Reply | None:
        """The limits are those of the client that the front end speaks for."""
        if self.admission is not None and self._let_in:
            no = self.admission.connected(event.peer)
            if no is not None:
                return no
            self.admission.disconnected(self.session.peer)
        self._logout()
        return None

    def _data(self, event: events.Data) -> Any:
        return self._avatar.data(event.envelope)

    def _text(self, event: events.Text) -> Any:
        if self.session.text_failed or self._delivery is None:
            return None
        return self._delivery.write(event.block)

    def _text_failed(self, _event: events.TextFailed) -> None:
        self._drop_delivery()

    def _end_of_text(self, _event: events.EndOfText) -> Any:
        delivery = self._delivery
        if self.session.text_failed or delivery is None:
            return None  # the session knows the reply
        # Nearly every delivery is prepared at once, and nearly every commit is a Deferred: no coroutine is needed.
        try:
            prepared = delivery.prepare()
        except BaseException:
            self._committed(delivery).abort()
            raise
        return self._commit(delivery) if prepared is None else self._commit_later(prepared, delivery)

    async def _commit_later(self, prepared: Any, delivery: Any) -> events.Answer:
        try:
            await value(prepared)
        except BaseException:
            self._committed(delivery).abort()
            raise
        return cast("events.Answer", await value(self._commit(delivery)))

    def _commit(self, delivery: Any) -> Any:
        try:
            if self._lost:
                # RFC 5321 4.1.1.4 would allow to deliver it; but the client cannot know, and sends it again.
                raise Refusal(replies.LOCAL_TROUBLE, "connection lost")
            self._committing = True
            reply = delivery.commit()
            waiting = _to_wait_for(reply)
        except BaseException:
            self._committed(delivery).abort()
            raise

        def failed(failure: Failure) -> Failure:
            self._committed(delivery).abort()
            return failure

        def done(reply: Any) -> Any:
            self._committed(delivery)
            return reply

        return done(reply) if waiting is None else waiting.addCallbacks(done, failed)

    def _committed(self, delivery: Any) -> Any:
        """The commit is over, one way or the other."""
        self._committing = False
        self._delivery = None
        return delivery

    def _message_refused(self, event: events.MessageRefused) -> None:
        self._record.message_refused(event)

    def _reset(self, _event: events.Reset) -> None:
        self._drop_delivery()
        self._record.reset()
        if self._avatar is not None:
            self._avatar.reset()

    def _start_tls(self, _event: events.StartTLS) -> None:
        self._flush()
        self._handshaking = True
        self._read(on=True)
        self.transport.startTLS(self.ctx)

    def _pause(self, event: events.Pause) -> Deferred[None]:
        self._flush()
        return deferLater(self._clock(), event.seconds)

    def _close(self, event: events.Close) -> None:
        self._record.reason = self._record.reason or event.reason
        self._flush()
        self._read(on=True)  # only then is the peer's own closing noticed
        if self._producing:
            # A registered producer would make loseConnection wait for ever.
            self._producing = False
            self.transport.unregisterProducer()
        self.transport.loseConnection()

    # -- small parts -----------------------------------------------------------------------------------------------

    def peer_stopped_reading(self) -> None:
        """Our output is stuck: take no more input, ask no more questions, and do not wait for ever."""
        self._peer_reads = False
        if not self._lost:
            self._read(on=False)
            self._arm()

    def peer_reads_again(self) -> None:
        """The output flows again."""
        self._peer_reads = True
        if not self._lost:
            if self._busy:
                self.setTimeout(None)  # it was for the replies that were not read
            self._read(on=not self._busy or self.session.buffered <= READ_AHEAD)
            self._pump()

    def drain(self) -> None:
        """Say 421 and close as soon as no transaction is open."""
        if self._handshaking:
            self.transport.abortConnection()
            return
        self.session.drain()
        self._pump()

    def cut(self) -> None:
        """End the connection now, with a 421: the time for draining is over."""
        if self.session.state is State.CLOSED and self._timed_for == "closing":
            return  # its end is already measured, and would only be put off
        self.session.abort(replies.SHUTTING_DOWN, "shutting down")
        self._drop_delivery()
        self._close(events.Close("shutting down"))
        self._arm()  # a peer that does not close its side is not waited for

    def _clock(self) -> IReactorTime:
        if self.clock is None:
            from twisted.internet import reactor  # only when nobody gave one (a stock factory)

            self.clock = cast("IReactorTime", reactor)
        return self.clock

    def _session_settings(self, peer: str) -> SessionSettings:
        factory, given = self.factory, self.settings
        starttls = self.ctx is not None and ITLSTransport.providedBy(self.transport)
        trusted = factory is not None and factory.trusts(peer)
        if factory is None or given is None or given is not factory.settings or self.challengers:
            return self._own_settings(starttls=starttls, trusted=trusted)
        # The same for all connections of a listener.
        known = factory.known_settings.get((starttls, trusted))
        if known is None:
            known = self._own_settings(starttls=starttls, trusted=trusted)
            factory.known_settings[(starttls, trusted)] = known
        return known

    def _own_settings(self, *, starttls: bool, trusted: bool) -> SessionSettings:
        settings = session_settings(
            self.settings, hostname=self.host.decode("ascii"), challengers=self.challengers, starttls=starttls
        )
        return dataclasses.replace(settings, xclient=True) if trusted else settings

    def _flush(self) -> None:
        if (data := self.session.data_to_send()) and not self._lost:
            self._spoke = True
            self.transport.write(data)

    def _read(self, *, on: bool) -> None:
        if on is not self._reading and not self._lost:
            self._reading = on
            if on:
                self.transport.resumeProducing()
            else:
                self.transport.pauseProducing()

    def _drop_delivery(self) -> None:
        if self._delivery is not None and not self._committing:
            delivery, self._delivery = self._delivery, None
            delivery.abort()

    #: event -> what is done about it; its result answers a question.
    _DO: ClassVar[Mapping[type, Callable[[ESMTPServer, Any], Any]]] = {
        events.Connected: _connected,
        events.Hello: _hello,
        events.Mail: _mail,
        events.Rcpt: _rcpt,
        events.Data: _data,
        events.Text: _text,
        events.TextFailed: _text_failed,
        events.EndOfText: _end_of_text,
        events.MessageRefused: _message_refused,
        events.Reset: _reset,
        events.Login: AvatarServer._login,  # noqa: SLF001 - our own part
        events.Lookup: AvatarServer._lookup,  # noqa: SLF001
        events.Verify: _verify,
        events.XClient: _xclient,
        events.StartTLS: _start_tls,
        events.Pause: _pause,
        events.Close: _close,
    }


class ESMTPServerFactory(stock.SMTPFactory):
    """
    Makes an `ESMTPServer` for each connection of one listener.

    tls: makes TLS connections (`IOpenSSLServerConnectionCreator`), for STARTTLS.  connections: where the open ones
    are kept, when several factories share that.  counters: a `Counters`.  scram: an `IScramKeys`.  xclient: tells of
    a peer's address whether it may use XCLIENT.
    """

    protocol = ESMTPServer
    noisy = False

    def __init__(
        self,
        portal: Portal | None = None,
        *,
        settings: SessionSettings | None = None,
        tls: Any = None,
        admission: IAdmission | None = None,
        clock: IReactorTime | None = None,
        connections: OpenConnections | None = None,
        counters: Any = None,
        scram: Any = None,
        xclient: Callable[[str], bool] | None = None,
    ) -> None:
        super().__init__(portal)
        self.settings = settings
        self.known_settings: dict[tuple[bool, bool], SessionSettings] = {}
        self.tls = tls
        self.admission = admission
        self.clock = clock
        self.connections = OpenConnections() if connections is None else connections
        self.counters = counters
        self.scram = scram
        self._xclient = xclient

    def buildProtocol(self, addr: IAddress | None) -> ESMTPServer:  # type: ignore[override]
        """A server for a connection from `addr`."""
        server = cast("ESMTPServer", super().buildProtocol(addr))
        if self.settings is not None:
            server.host = self.settings.hostname
            server.settings = self.settings
        server.ctx = server.ctx or self.tls
        server.admission = self.admission
        server.clock = self.clock
        server.scram = self.scram
        return server

    def trusts(self, peer: str) -> bool:
        """May the peer of this address speak for other clients (XCLIENT)?"""
        return self._xclient is not None and self._xclient(peer)


def _to_wait_for(result: Any) -> Deferred[Any] | None:
    """The Deferred that brings the result; None when it is there."""
    kind = type(result)
    if kind is Reply or kind is Failure or kind is tuple:
        return None
    if isinstance(result, Deferred):
        return result
    if kind is CoroutineType or isinstance(result, Awaitable):
        return ensureDeferred(result)
    return None


def _already_there(waiting: Deferred[Any]) -> Any:
    """The result of a Deferred that has it already; else the Deferred."""
    if not waiting.called or waiting.paused or isinstance(waiting.result, Deferred):
        return waiting
    outcome: list[Any] = []
    waiting.addBoth(outcome.append)
    return outcome[0]


def _makes_sense(event: events.Event, result: Any) -> bool:
    """Is this an answer to that question?  What an app gives is not taken for a yes because it is no Reply."""
    kind = type(event)
    if kind is events.Data:
        return bool(IDelivery.providedBy(result))
    if kind is events.Verify:
        return isinstance(result, Reply)
    if kind is events.EndOfText and isinstance(result, tuple):
        return bool(result) and all(isinstance(each, Reply) for each in result)
    if kind in _YES_OR_REPLY:
        return result is None or isinstance(result, Reply)
    return True


_YES_OR_REPLY = frozenset({events.Mail, events.Rcpt, events.EndOfText})


def session_settings(
    given: SessionSettings | None, *, hostname: str, challengers: Mapping[bytes, Any], starttls: bool
) -> SessionSettings:
    """
    What a session works with: what the listener gave; without that, what a stock factory has set on the protocol
    (host, challengers, a TLS context), with passwords under TLS only.
    """
    if given is None:
        given = SessionSettings(hostname, limits=DEFAULT_LIMITS, starttls=True, bare_newlines="fix")
    if challengers:
        given = dataclasses.replace(given, mechanisms=mechanisms_of(challengers, hostname))
    return dataclasses.replace(given, starttls=given.starttls and starttls)
