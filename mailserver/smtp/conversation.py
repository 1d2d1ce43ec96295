"""
The ground on which the server's side of a conversation stands: input, lines, events, answers, replies, the end.

In: octets from the peer (`receive`), answers (`answer`).  Out: events (`next_event`), octets for it (`data_to_send`).
What the commands mean is in `logins`, `transactions`, `session` and `lmtp`; the laws are in `session`.
RFC 5321 2.3.8 and 4.1.1 (lines), 4.2 (replies), 3.8 (421); limits: mailserver/limits.py.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping

from mailserver import reply as replies
from mailserver.envelope import Envelope, Peer, TLSInfo
from mailserver.reply import Reply
from mailserver.smtp import events
from mailserver.smtp.data import Receiver
from mailserver.smtp.events import Answer, Event
from mailserver.smtp.rules import HTTP, SessionSettings, State

_NO_BINDINGS: Mapping[str, bytes] = {}


class Conversation(ABC):
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
        self.messages = self.error_count = self.text_octets = 0
        self._limits = settings.limits
        self._enhanced = settings.offers("ENHANCEDSTATUSCODES")
        self._new_id = new_id
        self._local = local
        self._bindings = _NO_BINDINGS
        self._input = bytearray()
        self._searched = 0
        self._output: list[bytes] = []
        # A list: it holds one event or two, and an empty deque takes 700 octets of each idle connection.
        self._events: list[Event] = [events.Connected()]
        self._on_answer: Callable[[Answer], None] = self._greet
        self._extended = False
        self._first_line = True
        self._draining = False
        self._envelope: Envelope | None = None
        self._text: Receiver | None = None
        self._text_told = False

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
        return self._events.pop(0)

    def answer(self, answer: Answer) -> None:
        """Answer the open question.  Raises RuntimeError when there is none: a mistake of ours, not of a peer's."""
        if not self.waits_for_answer:
            raise RuntimeError("there is no open question")
        self.waits_for_answer = False
        self._on_answer(answer)

    def data_to_send(self) -> bytes:
        """The octets that are to be sent now; each is given once."""
        output = self._output
        if not output:
            return b""
        self._output = []
        return output[0] if len(output) == 1 else b"".join(output)

    # -- what else can happen --------------------------------------------------------------------------------------

    @property
    def envelope(self) -> Envelope | None:
        """The open transaction, with the recipients that were accepted so far."""
        return self._envelope

    @property
    def in_transaction(self) -> bool:
        """Is a sender accepted and its message not yet answered?"""
        return self._envelope is not None

    @property
    def in_text(self) -> bool:
        """Is the text of a message coming in?"""
        return self.state is State.TEXT or self.state is State.CHUNK

    @property
    def in_message(self) -> bool:
        """The same, and between two chunks of a message."""
        return self.in_text or self.state is State.CHUNKS

    @property
    def text_failed(self) -> bool:
        """Is the text that comes in thrown away?"""
        return self._text is not None and self._text.failure is not None

    @property
    def allowed_by_tls(self) -> bool:
        """Is the connection as safe as the listener asks for (RFC 3207 4)?"""
        return self.peer.tls is not None or not self.settings.tls_required

    @property
    def buffered(self) -> int:
        """Octets received and not yet looked at."""
        return len(self._input)

    def secured(self, tls: TLSInfo, bindings: Mapping[str, bytes] = _NO_BINDINGS) -> None:
        """
        The handshake is done, behind STARTTLS or before the banner (then the state is START).

        bindings: of the TLS channel, by their names in RFC 5929 and RFC 9266, for SASL.
        """
        self._bindings = bindings
        if self.state is State.TLS:
            # RFC 3207 4.2: forget all that the client has told, AUTH included.
            self.peer = dataclasses.replace(self.peer, helo="", user="")
            self._extended = False
            self.state = State.CONNECTED
        self.peer = dataclasses.replace(self.peer, tls=tls)

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

    # -- from input to lines ---------------------------------------------------------------------------------------

    def _advance(self) -> bool:
        """Take the next command, response or block from the input.  False: there is nothing to take."""
        state = self.state
        if state is State.TEXT or state is State.CHUNK:
            return self._take_text()
        if not self._input and not self._draining:
            return False
        if state is State.START or state is State.TLS or state is State.CLOSED:
            return False
        if self._draining and not self.in_transaction:
            self.abort(replies.SHUTTING_DOWN, "shutting down")
            return True
        return self._take_line()

    def _take_line(self) -> bool:
        octets, limits = self._input, self._limits
        if self._first_line and self._is_no_smtp():
            return True
        # What was searched before is not searched again, or a line that comes in octets would cost their square.
        end = octets.find(b"\r\n", self._searched - 1 if self._searched else 0)
        self._searched = len(octets) if end < 0 else 0
        if (len(octets) if end < 0 else end) > limits.line_without_end:
            self.abort(replies.LINE_WITHOUT_END, "line without an end")
            return True
        if end < 0:
            return False
        line = bytes(octets[:end])
        del octets[: end + 2]
        self._first_line = False
        in_auth = self.state is State.AUTH
        if end + 2 > (limits.auth_line if in_auth else limits.command_line):
            self._line_too_long()
        elif in_auth:
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

    # -- replies ---------------------------------------------------------------------------------------------------

    def _reply(self, reply: Reply) -> None:
        self._output.append(reply.encode(enhanced=self._enhanced))

    def _error(self, reply: Reply) -> None:
        """A reply that the client has earned by a mistake; it is counted."""
        self.error_count += 1
        if self.settings.tell_mistakes:
            self._events.append(events.Mistake(reply))
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
        if self.state in (State.MAIL, State.RCPT, State.TEXT, State.CHUNK, State.CHUNKS):
            self.state = State.READY

    # -- what the parts above this one do --------------------------------------------------------------------------

    @abstractmethod
    def _greet(self, answer: Answer) -> None:
        """The peer was let in, or not."""

    @abstractmethod
    def _command(self, line: bytes) -> None:
        """A line that is a command."""

    @abstractmethod
    def _line_too_long(self) -> None:
        """A line, whatever it was, that is over its limit."""

    @abstractmethod
    def _auth_response(self, line: bytes) -> None:
        """A line of an AUTH exchange."""

    @abstractmethod
    def _take_text(self) -> bool:
        """Take what has come of a message's text; False: nothing has."""


def refused(answer: Answer) -> Reply | None:
    """The reply, when the answer means no."""
    return answer if isinstance(answer, Reply) and not answer.positive else None
