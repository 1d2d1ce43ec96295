"""
MAIL, RCPT, DATA and BDAT: one mail transaction after the other.

In: the commands, and the text behind DATA and BDAT.  Out: the questions `Mail`, `Rcpt`, `Data`, `EndOfText`, the
text in blocks, and the replies.
RFC 5321 3.3 and 4.1.1 (transactions), 2920 (PIPELINING), 3030 (CHUNKING, BINARYMIME), 3461 (DSN), 4865, 6531, 8689.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from mailserver import reply as replies
from mailserver.envelope import NO_PARAMETERS, Envelope, Parameters, Recipient, with_protocol
from mailserver.reply import Reply
from mailserver.smtp import events
from mailserver.smtp.conversation import Conversation, refused
from mailserver.smtp.data import ChunkReceiver, Receiver, TextReceiver
from mailserver.smtp.events import Answer
from mailserver.smtp.parameters import (
    NOTHING_WANTED,
    MailParameters,
    Unacceptable,
    date_time,
    mail_parameters,
    rcpt_parameters,
    release_time,
)
from mailserver.smtp.rules import State
from mailserver.smtp.syntax import BadSyntax, parse_path

#: RFC 3030 2: chunk-size and end-marker.
_CHUNK = re.compile(rb"([0-9]{1,20})(?: +(LAST))?\Z", re.IGNORECASE)


class MailCommands(Conversation):
    """What a conversation does about mail."""

    lmtp = False
    _unknown_recipients = 0
    _idle_commands = 0
    _refused_recipients = False
    #: MAIL was refused, and nothing has ended that yet: what belongs to its transaction may still come, pipelined.
    _refused_sender = False
    #: RCPT commands behind a refused MAIL.
    _vain_recipients = 0
    #: BDAT: octets of a refused chunk that are still to be thrown away, and the reply that then follows.
    _swallow = 0
    _swallowed: Reply | None = None
    _after_chunk = State.READY
    #: BDAT: octets of the present chunk, as announced.
    _chunk_size = 0

    def _give_up(self) -> None:
        super()._give_up()
        self._refused_recipients = self._refused_sender = False

    def working_extensions(self) -> frozenset[str]:
        """The extensions that work on this connection as it is now."""
        return self.settings.working(tls=self.peer.tls is not None)

    def _mail(self, argument: bytes) -> None:
        self._refused_sender, self._vain_recipients = True, 0  # until it is accepted
        if self.messages >= self._limits.messages_per_connection:
            self.abort(replies.TOO_MANY_MESSAGES, "too many messages in one connection")
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
            wanted = self._mail_parameters(rest) if rest else NOTHING_WANTED
        except Unacceptable as error:
            self._error(error.reply)
            return
        if rest and "FUTURERELEASE" in self.working_extensions() and self._held_too_long(wanted.given):
            return
        if sender is not None and not sender.is_ascii and not wanted.smtputf8:
            # RFC 6531 3.5: an internationalised address needs the parameter.
            self._error(replies.UTF8_NEEDED)
            return
        protocol = with_protocol(
            extended=self._extended,
            tls=self.peer.tls is not None,
            authenticated=bool(self.peer.user),
            utf8=wanted.smtputf8,
            lmtp=self.lmtp,
        )
        envelope = Envelope(
            id=self._new_id(),
            sender=sender,
            parameters=wanted.given,
            peer=self.peer,
            protocol=protocol,
            size=wanted.size,
            body=wanted.body,
            smtputf8=wanted.smtputf8,
            listener=self.settings.listener,
            local_host=self._local[0],
            local_port=self._local[1],
        )

        def answered(answer: Answer) -> None:
            if (no := refused(answer)) is not None:
                self._sender_refused(no)
                return
            self._envelope = envelope
            self._refused_sender = False
            self.state = State.MAIL
            self._reply(answer if isinstance(answer, Reply) else replies.SENDER_OK)

        self._ask(events.Mail(envelope), answered)

    def _held_too_long(self, given: Parameters) -> bool:
        """Say 501 to a hold that is longer than EHLO has told."""
        now, most = self.settings.now(), self.settings.hold
        if (release_time(given, now) or now) - now <= most:
            return False
        self._error(Reply(501, "5.5.4", f"Held for {most} seconds at most, until {date_time(now + most)}"))
        return True

    def _mail_parameters(self, text: bytes) -> MailParameters:
        return mail_parameters(text, self._limits, self.working_extensions(), self.settings.mail_parameters)

    def _rcpt_parameters(self, text: bytes) -> Parameters:
        return rcpt_parameters(text, self.working_extensions(), self.settings.rcpt_parameters)

    def _sender_refused(self, reply: Reply) -> None:
        if reply.code < 500:
            # No error of the client's; but it moves no mail, and may not come for ever.
            self._idle_commands += 1
            if self._idle_commands > self._limits.idle_commands:
                self.abort(replies.TOO_MANY_IDLE_COMMANDS, "too many commands without a message")
                return
        self._refuse(reply)

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
            parameters: Parameters = self._rcpt_parameters(rest) if rest else NO_PARAMETERS
        except Unacceptable as error:
            self._error(error.reply)
            return
        if not envelope.smtputf8 and not (address.is_ascii and (parameters.get("ORCPT") or "").isascii()):
            # RFC 6531 3.5 for the address, RFC 6533 3 for ORCPT.
            self._error(replies.UTF8_NEEDED)
            return
        if len(envelope.recipients) >= self._limits.recipients:
            # RFC 5321 4.5.3.1.10: 452, and the transaction goes on for those before it.
            self._reply(replies.TOO_MANY_RECIPIENTS)
            return
        recipient = Recipient(address, parameters)

        def answered(answer: Answer) -> None:
            if (no := refused(answer)) is not None:
                self._recipient_refused(no)
                return
            self._envelope = envelope.with_recipient(recipient)
            self._refused_recipients = False
            self.state = State.RCPT
            self._reply(answer if isinstance(answer, Reply) else replies.RECIPIENT_OK)

        self._ask(events.Rcpt(envelope, recipient), answered)

    def _recipient_refused(self, reply: Reply) -> None:
        if reply.code < 500 or not reply.enhanced.startswith("5.1."):
            self._refuse(reply)
            return
        self._unknown_recipients += 1
        if self._unknown_recipients >= self._limits.unknown_recipients:
            self.abort(replies.TOO_MANY_UNKNOWN, "too many unknown recipients")
        else:
            self._reply(reply)

    # -- DATA ------------------------------------------------------------------------------------------------------

    def _data(self, argument: bytes) -> None:
        envelope = self._envelope
        assert envelope is not None
        if argument:
            self._error(Reply(501, "5.5.4", "Syntax: DATA takes no parameter"))
        elif envelope.body == "BINARYMIME":
            # RFC 3030 3: binary text has no line that could end it.
            self._error(Reply(503, "5.5.1", "BODY=BINARYMIME is sent with BDAT"))
        elif envelope.recipients:
            self._ask(events.Data(envelope), self._data_answered)
        elif self._refused_recipients and not self.lmtp:
            self._take_vain_text()
        else:
            # RFC 2033 4.2: in LMTP it must be refused: there would be no recipient to reply for.
            self._error(Reply(503, "5.5.1", "Need RCPT command first"))

    def _take_vain_text(self) -> None:
        # RFC 2920 3.1: a client that pipelines may send its text behind a DATA for which no recipient stands.  Were
        # DATA refused, that text would be run as commands; so it is read, and refused at its end.
        self._start_text()
        self.refuse_text(replies.NO_VALID_RECIPIENTS)

    def _behind_refused_mail(self, verb: bytes) -> bool:
        """
        Is this a command of a transaction whose MAIL was refused?  A client that pipelines sent it before it knew, so
        it is answered, and counts as no error as long as there are no more of them than a transaction may have.
        """
        if not self._refused_sender or self.state is not State.READY:
            return False
        if verb == b"DATA" and not self.lmtp:
            self._take_vain_text()
            return True
        if verb == b"RCPT" and self._vain_recipients < self._limits.recipients:
            self._vain_recipients += 1
            self._reply(replies.NEED_MAIL)
            return True
        return False

    def _data_answered(self, answer: Answer) -> None:
        if (no := refused(answer)) is not None:
            self._give_up()
            self._refuse(no)
            return
        self._start_text()

    def _start_text(self) -> None:
        self._receive_into(TextReceiver(self._limits, self.settings.bare_newlines))
        self.state = State.TEXT
        self._reply(replies.START_INPUT)

    def _receive_into(self, text: Receiver) -> None:
        self._text = text
        self._text_told = False
        self.text_octets = 0

    # -- BDAT ------------------------------------------------------------------------------------------------------

    def _bdat(self, argument: bytes) -> None:
        chunk = _CHUNK.match(argument)
        if not self.settings.offers("CHUNKING"):
            chunk = None
        if chunk is None:
            # Nobody knows how many octets follow, and none of them may be taken for a command.
            self.abort(Reply(501, "5.5.4", "Syntax: BDAT size [LAST]"), "malformed BDAT")
            return
        size, last = int(chunk[1]), chunk[2] is not None
        envelope = self._envelope
        if self.state is State.CHUNKS:
            self._begin_chunk(size, last=last)
        elif not self.allowed_by_tls:
            self._refuse_chunk(size, replies.STARTTLS_FIRST)
        elif envelope is None or not envelope.recipients:
            nobody = replies.NO_VALID_RECIPIENTS if self._refused_recipients else replies.BAD_SEQUENCE
            self._refuse_chunk(size, nobody)
        else:
            # The commands that came before it were answered; its own answer waits for the place to put the text.
            self._ask(events.Data(envelope), lambda answer: self._first_chunk(answer, size, last=last))

    def _first_chunk(self, answer: Answer, size: int, *, last: bool) -> None:
        envelope = self._envelope
        assert envelope is not None
        if (no := refused(answer)) is not None:
            self._give_up()
            self._refuse_chunk(size, no)
            return
        binary = envelope.body == "BINARYMIME"
        self._receive_into(ChunkReceiver(self._limits, self.settings.bare_newlines, binary=binary))
        self._begin_chunk(size, last=last)

    def _begin_chunk(self, size: int, *, last: bool) -> None:
        text = self._text
        assert isinstance(text, ChunkReceiver)
        if text.size + size > self._limits.message_size:
            text.fail(replies.MESSAGE_TOO_BIG)
        if size > self._limits.message_size:
            # Too many octets to be read only to be thrown away: the answer comes at once, and is the last.
            self._refuse_chunk(size, replies.MESSAGE_TOO_BIG)
            return
        text.begin(size, last=last)
        self._chunk_size = size
        self.state = State.CHUNK

    def _refuse_chunk(self, size: int, reply: Reply) -> None:
        """Throw the octets of a chunk away, then give the reply; an endless one ends the connection."""
        if size > self._limits.message_size:
            self.abort(reply, "refused chunk is too large")
            return
        self._swallow, self._swallowed = size, reply
        self.text_octets = 0
        self._after_chunk, self.state = self.state, State.CHUNK

    def _take_text(self) -> bool:
        if self._swallowed is not None:
            return self._swallow_chunk()
        text, envelope = self._text, self._envelope
        assert text is not None
        empty_chunk = isinstance(text, ChunkReceiver) and text.left == 0
        if not self._input and not empty_chunk:
            return False
        # Of many small chunks each is taken alone: to copy what is behind it every time would cost their square.
        if isinstance(text, ChunkReceiver) and text.left < len(self._input):
            chunk = bytes(self._input[: text.left])
            del self._input[: text.left]
        else:
            chunk = bytes(self._input)
            self._input.clear()
        block, rest = text.receive(chunk)
        self.text_octets += len(chunk) - len(rest or b"")
        if block:
            self._events.append(events.Text(block))
        if text.failure is not None and not self._text_told:
            self._text_told = True
            self._events.append(events.TextFailed(text.failure))
        if rest is None:
            return True
        self._input[:0] = rest
        if text.failure is not None:
            self._message_over(text.failure)
        elif isinstance(text, ChunkReceiver) and not text.last:
            self.state = State.CHUNKS
            self._reply(Reply(250, "2.0.0", f"{self._chunk_size} octets received"))
        else:
            # The last block's trouble may still come (`refuse_text`): the end is asked for behind it.
            assert envelope is not None
            self._ask(events.EndOfText(envelope, text.size), self._message_over)
        return True

    def _swallow_chunk(self) -> bool:
        taken = min(len(self._input), self._swallow)
        del self._input[:taken]
        self._swallow -= taken
        self.text_octets += taken
        if self._swallow:
            return False
        reply, self._swallowed = self._swallowed, None
        self.state = self._after_chunk
        assert reply is not None
        self._refuse(reply)
        return True

    # -- the end of a message --------------------------------------------------------------------------------------

    def _message_over(self, answer: Answer) -> None:
        envelope, text = self._envelope, self._text
        assert text is not None
        if envelope is None:
            # There never was a message: MAIL was refused.
            assert text.failure is not None
            self._give_up()
            self._reply(text.failure)
            return
        last = not isinstance(text, ChunkReceiver) or text.last
        given = self._replies_to(envelope, text.failure or answer, last=last)
        if text.failure is not None:
            self._events.append(events.MessageRefused(envelope, text.size, text.failure))
        self.messages += 1
        self._idle_commands = 0
        self._envelope = self._text = None
        self._refused_recipients = False
        self.state = State.READY
        for reply in given:
            if reply.code == 421:
                self.abort(reply, "refused with 421")
                return
            # Not counted as an error: what a message holds is seldom the fault of the program that sends it.
            self._reply(reply)

    def _replies_to(self, envelope: Envelope, answer: Answer, *, last: bool) -> Sequence[Reply]:  # noqa: ARG002 - LMTP
        """The replies to the end of a message; SMTP has one for all recipients."""
        if isinstance(answer, Reply):
            return [answer]
        if answer == ():
            return [replies.LOCAL_TROUBLE]  # nobody has said what became of it
        if isinstance(answer, tuple):
            # One reply must speak for all: if some have it and some have not, those that have it must not lose it by
            # a no that is final, nor may those that have it not be told yes.
            failed = [reply for reply in answer if not reply.positive]
            return [next((reply for reply in failed if reply.code < 500), failed[0] if failed else answer[0])]
        return [Reply(250, "2.0.0", f"Ok: queued as {envelope.id}")]
