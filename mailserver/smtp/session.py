"""
The server's side of one SMTP conversation, without sockets, clocks, files or Twisted.

In: octets from the peer (`receive`), answers (`answer`).  Out: events (`next_event`), octets for it (`data_to_send`).

The laws:
1. One question at a time.  While one is open (`waits_for_answer`) nothing more is parsed; so replies stay in order,
   and a peer that pipelines cannot run ahead of a decision.
2. One reply for each command, and for each message; a refused command leaves the state as it was.
3. A session never raises for what a peer sent, never logs, never waits.
4. Only CRLF ends a command, only CRLF "." CRLF ends a message.
5. What stands behind STARTTLS in clear text is dropped, and so is all that was known before it.
6. The same octets give the same events and replies, however they were cut into chunks.

RFC 5321 (SMTP), 1870 (SIZE), 2034 and 3463 (enhanced codes), 2920 (PIPELINING), 3207 (STARTTLS), 4954 (AUTH),
6152 (8BITMIME), 6531 (SMTPUTF8); limits: mailserver/limits.py.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
from collections import deque
from collections.abc import Callable, Mapping
from typing import ClassVar

from mailserver import reply as replies
from mailserver.envelope import Envelope, Parameters, Peer, Recipient, TLSInfo, with_protocol
from mailserver.reply import Reply, echo
from mailserver.sasl import Challenge, Malformed, SaslServer
from mailserver.smtp import events
from mailserver.smtp.data import TextReceiver
from mailserver.smtp.events import Answer, Event, Identity
from mailserver.smtp.parameters import Unacceptable, mail_parameters, rcpt_parameters
from mailserver.smtp.rules import ALLOWED, HTTP, IDLE, NOT_DONE, SessionSettings, State
from mailserver.smtp.syntax import BadSyntax, parse_command, parse_hello_name, parse_path


class SMTPSession:
    """
    One conversation.  `peer` tells what is known of the other end; `state` where the conversation stands;
    `messages` and `error_count` what it has seen; `text_octets` how much of the present message's text has come.

    new_id: makes the id of a transaction.  local: our own address and port, for the envelope.
    """

    def __init__(
        self, settings: SessionSettings, peer: Peer, *, new_id: Callable[[], str], local: tuple[str, int] = ("", 0)
    ) -> None:
        self.settings = settings
        self.peer = peer
        self.state = State.START
        self.waits_for_answer = True
        self.messages = 0
        self.error_count = 0
        self._limits = settings.limits
        self._new_id = new_id
        self._local = local
        self._input = bytearray()
        self._output: list[bytes] = []
        self._events: deque[Event] = deque([events.Connected()])
        self._on_answer: Callable[[Answer], None] = self._greet
        self._extended = False
        self._discarding = False
        self._first_line = True
        self._draining = False
        self._auth_failures = self._idle_commands = self._unknown_recipients = 0
        self._envelope: Envelope | None = None
        self._refused_recipients = False
        self._exchange: SaslServer | None = None
        self._text: TextReceiver | None = None
        self._text_told = False
        self.text_octets = 0

    # -- the four verbs --------------------------------------------------------------------------------------------

    def receive(self, data: bytes) -> None:
        """Octets from the peer, any number of them.  They wait here until `next_event` asks for them."""
        if self.state not in (State.TLS, State.CLOSED):
            self._input += data

    def next_event(self) -> Event | None:
        """The next question or notice; None when an answer or more input is needed, or all is over."""
        while not self._events:
            if self.waits_for_answer or not self._advance():
                return None
        return self._events.popleft()

    def answer(self, answer: Answer) -> None:
        """Answer the open question.  Raises RuntimeError when there is none: a mistake of ours, not of a peer's."""
        if not self.waits_for_answer:
            raise RuntimeError("there is no open question")
        self.waits_for_answer = False
        self._on_answer(answer)

    def data_to_send(self) -> bytes:
        """The octets that are to be sent now; each is given once."""
        data = b"".join(self._output)
        self._output.clear()
        return data

    # -- what else can happen --------------------------------------------------------------------------------------

    @property
    def in_transaction(self) -> bool:
        """Is a sender accepted and its message not yet answered?"""
        return self._envelope is not None

    @property
    def in_text(self) -> bool:
        """Is the text of a message coming in?"""
        return self.state is State.TEXT

    @property
    def text_failed(self) -> bool:
        """Is the text that comes in thrown away?"""
        return self._text is not None and self._text.failure is not None

    @property
    def buffered(self) -> int:
        """Octets received and not yet looked at."""
        return len(self._input)

    def secured(self, tls: TLSInfo) -> None:
        """The handshake is done, behind STARTTLS or before the banner (then the state is START)."""
        self.peer = dataclasses.replace(self.peer, tls=tls, helo="" if self.state is State.TLS else self.peer.helo)
        if self.state is State.TLS:
            # RFC 3207 4.2: forget all that the client has told, AUTH included.
            self.peer = dataclasses.replace(self.peer, user="")
            self._extended = False
            self.state = State.CONNECTED

    def refuse_text(self, reply: Reply) -> None:
        """The text that is coming in cannot be stored: read it to its end, then answer with `reply`."""
        if self._text is not None:
            self._text.fail(reply)
            self._text_told = True  # whoever tells us does not need to be told

    def drain(self) -> None:
        """Say 421 as soon as no transaction is open (RFC 5321 3.8), and close."""
        self._draining = True

    def abort(self, reply: Reply | None, reason: str) -> None:
        """End the conversation at once, with a last reply when there is one (a time-out, a shutdown)."""
        if self.state is State.CLOSED:
            return
        self.waits_for_answer = False
        if self.state is not State.TLS and reply is not None:
            self._reply(reply)
        self._close(reason)

    # -- from input to events --------------------------------------------------------------------------------------

    def _advance(self) -> bool:
        """Take the next command, response or block from the input.  False: there is nothing to take."""
        if self.state is State.TEXT:
            return self._take_text()
        if self.state in (State.START, State.TLS, State.CLOSED):
            return False
        if self._draining and not self.in_transaction:
            self.abort(replies.SHUTTING_DOWN, "shutting down")
            return True
        return self._take_line()

    def _take_line(self) -> bool:
        limit = self._limits.auth_line if self.state is State.AUTH else self._limits.command_line
        end = self._input.find(b"\r\n")
        if self._first_line and self._is_no_smtp():
            return True
        if end < 0:
            if len(self._input) > self._limits.line_without_end:
                self.abort(replies.LINE_WITHOUT_END, "line without an end")
                return True
            return False
        if end > self._limits.line_without_end:  # however the chunks came, this line was too long to be waited for
            self.abort(replies.LINE_WITHOUT_END, "line without an end")
            return True
        line = bytes(self._input[:end])
        del self._input[: end + 2]
        self._first_line = False
        if end + 2 > limit:
            self._line_too_long()
        elif self.state is State.AUTH:
            self._auth_response(line)
        else:
            self._command(line)
        return True

    def _is_no_smtp(self) -> bool:
        """
        Is the other end a browser, or does it speak TLS?  What such a peer sends may be somebody else's text
        (cross-protocol attacks, ALPACA); not one line of it is taken for a command.
        """
        if self._input.startswith(b"\x16\x03"):
            self.abort(None, "TLS ClientHello in clear text")
            return True
        if HTTP.match(self._input):
            self.abort(Reply(421, "4.7.0", "This is a mail server"), "HTTP request")
            return True
        return False

    def _line_too_long(self) -> None:
        if self.state is State.AUTH:
            self._end_exchange()
            self._error(replies.AUTH_TOO_LONG)
        else:
            self._error(replies.LINE_TOO_LONG)

    def _command(self, line: bytes) -> None:
        try:
            command = parse_command(line)
        except BadSyntax:
            self._error(replies.BAD_LINE)
            return
        verb = command.verb
        if verb in IDLE:
            self._idle_commands += 1
            if self._idle_commands > self._limits.idle_commands:
                self.abort(replies.TOO_MANY_IDLE_COMMANDS, "too many commands without a message")
                return
        allowed = ALLOWED.get(verb)
        if allowed is None:
            self._error(replies.NOT_IMPLEMENTED if verb in NOT_DONE else _unknown(verb))
        elif self.state not in allowed:
            self._error(self._out_of_sequence(verb))
        else:
            self._COMMANDS[verb](self, command.argument)

    def _out_of_sequence(self, verb: bytes) -> Reply:
        if self.state is State.CONNECTED:
            return replies.HELLO_FIRST
        if verb == b"MAIL":
            return Reply(503, "5.5.1", "Nested MAIL command")
        if verb == b"AUTH":
            return Reply(503, "5.5.1", "AUTH is not allowed in a transaction")
        return Reply(503, "5.5.1", "Need MAIL command first")

    # -- replies ---------------------------------------------------------------------------------------------------

    def _reply(self, reply: Reply) -> None:
        self._output.append(reply.encode())

    def _error(self, reply: Reply) -> None:
        """A reply that the client has earned by a mistake; it is counted."""
        self.error_count += 1
        if self.error_count >= self._limits.errors:
            self.abort(replies.TOO_MANY_ERRORS, "too many errors")
            return
        if self.error_count >= self._limits.errors_before_delay and self._limits.error_delay:
            self._ask(events.Pause(self._limits.error_delay), lambda _: self._reply(reply))
        else:
            self._reply(reply)

    def _refuse(self, reply: Reply) -> None:
        """Somebody said no.  Only a permanent no is the client's mistake; a 421 is also the end."""
        if reply.code == 421:
            self.abort(reply, "refused with 421")
        elif reply.code >= 500:
            self._error(reply)
        else:
            self._reply(reply)

    def _ask(self, question: events.Question, on_answer: Callable[[Answer], None]) -> None:
        self._on_answer = on_answer
        self.waits_for_answer = True
        self._events.append(question)

    def _close(self, reason: str) -> None:
        if self._envelope is not None:
            self._give_up()
        self.state = State.CLOSED
        self._input.clear()
        self._events.append(events.Close(reason))

    def _give_up(self) -> None:
        """Forget the transaction."""
        if self._envelope is not None:
            self._events.append(events.Reset())
        self._envelope = None
        self._text = None
        self._refused_recipients = False
        if self.state in (State.MAIL, State.RCPT, State.TEXT):
            self.state = State.READY

    # -- greeting --------------------------------------------------------------------------------------------------

    def _greet(self, answer: Answer) -> None:
        if isinstance(answer, Reply) and not answer.positive:
            # RFC 5321 3.1: 554 (or 421) instead of the banner; only QUIT would be left to say.
            self.abort(answer, "turned away")
            return
        self.state = State.CONNECTED
        text = f"{self.settings.hostname} {self.settings.banner}".rstrip()
        self._reply(answer if isinstance(answer, Reply) else Reply(220, "", text))

    def _hello(self, argument: bytes, *, extended: bool) -> None:
        verb = "EHLO" if extended else "HELO"
        try:
            name = parse_hello_name(argument)
        except BadSyntax:
            self._error(Reply(501, "5.5.4", f"Syntax: {verb} hostname"))
            return

        def answered(answer: Answer) -> None:
            if isinstance(answer, Reply) and not answer.positive:
                self._refuse(answer)
                return
            self._give_up()
            self.state = State.READY
            self._extended = extended
            self.peer = dataclasses.replace(self.peer, helo=name)
            lines = [self.settings.hostname]
            if extended:
                lines += self.extensions()
            self._reply(Reply(250, "", "\n".join(lines)))

        self._ask(events.Hello(name, extended), answered)

    def extensions(self) -> list[str]:
        """The lines of the EHLO reply behind the first, in their order; each only where it works."""
        tls = self.peer.tls is not None
        lines = [
            f"SIZE {self._limits.message_size}",
            "8BITMIME",
            "PIPELINING",
            "SMTPUTF8",
            "ENHANCEDSTATUSCODES",
        ]
        if self.settings.starttls and not tls:
            lines.append("STARTTLS")
        if self._auth_offered():
            lines.append("AUTH " + " ".join(self.settings.mechanisms))
        return lines

    def _auth_offered(self) -> bool:
        return bool(self.settings.mechanisms) and (self.peer.tls is not None or self.settings.insecure_auth)

    # -- STARTTLS and AUTH -----------------------------------------------------------------------------------------

    def _starttls(self, argument: bytes) -> None:
        if self.peer.tls is not None:
            self._error(Reply(503, "5.5.1", "TLS is already active"))
        elif not self.settings.starttls:
            self._error(_unknown(b"STARTTLS"))
        elif argument:
            self._error(Reply(501, "5.5.4", "Syntax: STARTTLS takes no parameter"))
        else:
            self._give_up()
            self._reply(replies.GO_AHEAD_TLS)
            # RFC 3207 4.2 and the command injection of 2011: no octet that came in clear text outlives this line.
            self._input.clear()
            self.state = State.TLS
            self._events.append(events.StartTLS())

    def _auth(self, argument: bytes) -> None:
        word, _, initial = argument.partition(b" ")
        name = word.upper().decode("ascii", "replace")
        if not self.settings.mechanisms:
            self._error(replies.NOT_IMPLEMENTED)
        elif self.peer.user:
            self._error(replies.NO_SECOND_AUTH)
        elif not self._auth_offered():
            # RFC 4954 4: never let a password cross in clear text.
            self._error(replies.ENCRYPTION_NEEDED)
        elif not name:
            self._error(Reply(501, "5.5.4", "Syntax: AUTH mechanism"))
        elif name not in self.settings.mechanisms:
            self._error(replies.UNKNOWN_MECHANISM)
        else:
            self._exchange = self.settings.mechanisms[name]()
            self.state = State.AUTH
            # RFC 4954 4: "=" stands for an initial response of no octets.
            self._auth_step(None if not initial else b"" if initial == b"=" else initial, initial=True)

    def _auth_response(self, line: bytes) -> None:
        if line == b"*":
            self._end_exchange()
            self._error(replies.AUTH_CANCELLED)
        else:
            self._auth_step(line, initial=False)

    def _auth_step(self, encoded: bytes | None, *, initial: bool) -> None:
        exchange = self._exchange
        assert exchange is not None
        try:
            raw = None if encoded is None else base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            self._end_exchange()
            self._error(replies.BAD_BASE64)
            return
        try:
            outcome = exchange.start(raw) if initial else exchange.respond(raw or b"")
        except Malformed:
            self._end_exchange()
            self._error(Reply(501, "5.5.2", "Malformed authentication response"))
            return
        if isinstance(outcome, Challenge):
            self._output.append(b"334 " + base64.b64encode(outcome.octets) + b"\r\n")
        else:
            name = exchange.name
            self._end_exchange()
            self._ask(events.Login(name, outcome), self._logged_in)

    def _end_exchange(self) -> None:
        self._exchange = None
        self.state = State.READY

    def _logged_in(self, answer: Answer) -> None:
        if isinstance(answer, Identity):
            self.peer = dataclasses.replace(self.peer, user=answer.user)
            self._reply(replies.AUTHENTICATED)
            return
        reply = answer if isinstance(answer, Reply) else replies.BAD_CREDENTIALS
        if reply.code >= 500:
            self._auth_failures += 1
            if self._auth_failures >= self._limits.auth_failures:
                self.abort(replies.TOO_MANY_AUTH_FAILURES, "too many failed authentications")
                return
        self._refuse(reply)

    # -- the transaction -------------------------------------------------------------------------------------------

    def _mail(self, argument: bytes) -> None:
        if self.messages >= self._limits.messages_per_connection:
            self.abort(replies.TOO_MANY_MESSAGES, "too many messages in one connection")
            return
        if self.settings.tls_required and self.peer.tls is None:
            self._error(replies.STARTTLS_FIRST)
            return
        if self.settings.auth_required and not self.peer.user:
            self._error(replies.AUTH_REQUIRED)
            return
        if argument[:5].upper() != b"FROM:":
            self._error(Reply(501, "5.5.4", "Syntax: MAIL FROM:<address>"))
            return
        try:
            sender, rest = parse_path(argument[5:], null=True, postmaster=False)
        except BadSyntax as error:
            self._error(Reply(501, "5.1.7", f"Bad sender address syntax: {error}"))
            return
        try:
            wanted = mail_parameters(rest, self._limits, auth=bool(self.settings.mechanisms))
        except Unacceptable as error:
            self._error(error.reply)
            return
        if sender is not None and not sender.is_ascii and not wanted.smtputf8:
            # RFC 6531 3.5: an internationalised address needs the parameter.
            self._error(replies.UTF8_NEEDED)
            return
        envelope = Envelope(
            id=self._new_id(),
            sender=sender,
            parameters=wanted.given,
            peer=self.peer,
            protocol=with_protocol(
                extended=self._extended,
                tls=self.peer.tls is not None,
                authenticated=bool(self.peer.user),
                utf8=wanted.smtputf8,
            ),
            size=wanted.size,
            body=wanted.body,
            smtputf8=wanted.smtputf8,
            listener=self.settings.listener,
            local_host=self._local[0],
            local_port=self._local[1],
        )

        def answered(answer: Answer) -> None:
            if isinstance(answer, Reply) and not answer.positive:
                self._refuse(answer)
                return
            self._envelope = envelope
            self.state = State.MAIL
            self._reply(answer if isinstance(answer, Reply) else replies.SENDER_OK)

        self._ask(events.Mail(envelope), answered)

    def _rcpt(self, argument: bytes) -> None:
        envelope = self._envelope
        assert envelope is not None
        self._refused_recipients = True  # until one is accepted
        if argument[:3].upper() != b"TO:":
            self._error(Reply(501, "5.5.4", "Syntax: RCPT TO:<address>"))
            return
        try:
            address, rest = parse_path(argument[3:], null=False, postmaster=True)
        except BadSyntax as error:
            self._error(Reply(501, "5.1.3", f"Bad recipient address syntax: {error}"))
            return
        assert address is not None
        try:
            parameters: Parameters = rcpt_parameters(rest)
        except Unacceptable as error:
            self._error(error.reply)
            return
        if not address.is_ascii and not envelope.smtputf8:
            self._error(replies.UTF8_NEEDED)
            return
        if len(envelope.recipients) >= self._limits.recipients:
            # RFC 5321 4.5.3.1.10: 452, and the transaction goes on for those before it.
            self._reply(replies.TOO_MANY_RECIPIENTS)
            return
        recipient = Recipient(address, parameters)

        def answered(answer: Answer) -> None:
            if isinstance(answer, Reply) and not answer.positive:
                self._recipient_refused(answer)
                return
            self._envelope = dataclasses.replace(envelope, recipients=(*envelope.recipients, recipient))
            self.state = State.RCPT
            self._reply(answer if isinstance(answer, Reply) else replies.RECIPIENT_OK)

        self._ask(events.Rcpt(envelope, recipient), answered)

    def _recipient_refused(self, reply: Reply) -> None:
        if reply.enhanced.startswith("5.1."):
            self._unknown_recipients += 1
            if self._unknown_recipients >= self._limits.unknown_recipients:
                self.abort(replies.TOO_MANY_UNKNOWN, "too many unknown recipients")
            else:
                self._reply(reply)
        else:
            self._refuse(reply)

    def _data(self, argument: bytes) -> None:
        envelope = self._envelope
        assert envelope is not None
        if argument:
            self._error(Reply(501, "5.5.4", "Syntax: DATA takes no parameter"))
        elif envelope.recipients:
            self._ask(events.Data(envelope), self._data_answered)
        elif self._refused_recipients:
            # RFC 2920 3.1: a client that pipelines may send its text behind a DATA for which no recipient stands.
            # Were DATA refused, that text would be run as commands; so it is read, and refused at its end.
            self._start_text()
            self.refuse_text(replies.NO_VALID_RECIPIENTS)
        else:
            self._error(Reply(503, "5.5.1", "Need RCPT command first"))

    def _data_answered(self, answer: Answer) -> None:
        if isinstance(answer, Reply) and not answer.positive:
            self._refuse(answer)
            if self.state is not State.CLOSED:
                self._give_up()
            return
        self._start_text()

    def _start_text(self) -> None:
        self._text = TextReceiver(self._limits, self.settings.bare_newlines)
        self._text_told = False
        self.text_octets = 0
        self.state = State.TEXT
        self._reply(replies.START_INPUT)

    def _take_text(self) -> bool:
        text, envelope = self._text, self._envelope
        assert text is not None
        assert envelope is not None
        if not self._input:
            return False
        chunk = bytes(self._input)
        self._input.clear()
        self.text_octets += len(chunk)
        block, rest = text.receive(chunk)
        if block:
            self._events.append(events.Text(block))
        if text.failure is not None and not self._text_told:
            self._text_told = True
            self._events.append(events.TextFailed(text.failure))
        if rest is None:
            return True
        self._input += rest
        if text.failure is not None:
            self._message_over(text.failure)
        else:
            # The last block's trouble may still come (`refuse_text`): the end is asked for behind it.
            self._ask(events.EndOfText(envelope, text.size), self._message_over)
        return True

    def _message_over(self, answer: Answer) -> None:
        envelope, text = self._envelope, self._text
        assert envelope is not None
        assert text is not None
        reply = text.failure or (answer if isinstance(answer, Reply) else None)
        if reply is None:
            reply = Reply(250, "2.0.0", f"Ok: queued as {envelope.id}")
        if text.failure is not None:
            self._events.append(events.MessageRefused(envelope, text.size, reply))
        self.messages += 1
        self._idle_commands = 0
        self._envelope = self._text = None
        self._refused_recipients = False
        self.state = State.READY
        if reply.code == 421:
            self.abort(reply, "refused with 421")
        else:
            # Not counted as an error: what a message holds is seldom the fault of the program that sends it.
            self._reply(reply)

    # -- the rest --------------------------------------------------------------------------------------------------

    def _rset(self, _argument: bytes) -> None:
        self._give_up()
        self._reply(replies.OK)

    def _noop(self, _argument: bytes) -> None:
        self._reply(replies.OK)

    def _quit(self, _argument: bytes) -> None:
        self._reply(replies.BYE)
        self._close("quit")

    def _vrfy(self, argument: bytes) -> None:
        if argument:
            self._reply(replies.CANNOT_VERIFY)
        else:
            self._error(Reply(501, "5.5.4", "Syntax: VRFY address"))

    def _help(self, _argument: bytes) -> None:
        verbs = b" ".join(ALLOWED).decode()
        self._reply(Reply(214, "2.0.0", f"Commands: {verbs}\nSee RFC 5321"))

    def _ehlo(self, argument: bytes) -> None:
        self._hello(argument, extended=True)

    def _helo(self, argument: bytes) -> None:
        self._hello(argument, extended=False)

    #: verb -> what is done about it, once `ALLOWED` has let it through.
    _COMMANDS: ClassVar[Mapping[bytes, Callable[[SMTPSession, bytes], None]]] = {
        b"EHLO": _ehlo,
        b"HELO": _helo,
        b"NOOP": _noop,
        b"QUIT": _quit,
        b"RSET": _rset,
        b"HELP": _help,
        b"VRFY": _vrfy,
        b"STARTTLS": _starttls,
        b"AUTH": _auth,
        b"MAIL": _mail,
        b"RCPT": _rcpt,
        b"DATA": _data,
    }


def _unknown(verb: bytes) -> Reply:
    return Reply(500, "5.5.1", f"Command not recognized: '{echo(verb)}'") if verb else replies.UNKNOWN_COMMAND
