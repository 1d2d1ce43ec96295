"""The session against a model of RFC 5321 4.1.4, by a state machine of hypothesis: codes and states agree after each command."""

from __future__ import annotations

from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from twisted.trial.unittest import SynchronousTestCase

from mailserver.limits import Limits
from mailserver.smtp.rules import State
from tests.smtp.driver import Conversation, settings
from tests.smtp.phrases import chunk

LIMITS = Limits(errors=100_000, errors_before_delay=100_000, idle_commands=100_000, unknown_recipients=100_000)
GREETED = (State.READY, State.MAIL, State.RCPT, State.CHUNKS)


class Model(RuleBasedStateMachine):
    """What RFC 5321 (and 3030) say of each command in each state."""

    def __init__(self) -> None:
        super().__init__()
        self.conversation = Conversation(settings(limits=LIMITS)).feed([])
        self.state = State.CONNECTED
        self.asked = False  # was a recipient asked for in this transaction, and refused?
        self.vain = False  # was MAIL refused?
        self.text = b""
        self.taken: list[bytes] = []

    def say(self, octets: bytes, code: str, state: State | None = None) -> None:
        """Send it; `code` must be the reply, and `state` the state afterwards (None: the same as before)."""
        before = len(self.conversation.replies)
        self.conversation.feed([octets])
        told = self.conversation.replies[before:]
        assert [reply[:3] for reply in told] == [code], (octets, told, code)
        self.state = state or self.state

    @precondition(lambda self: self.state is not State.TEXT)
    @rule(verb=st.sampled_from([b"EHLO", b"HELO", b"ehlo"]))
    def greet(self, verb: bytes) -> None:
        self.say(verb + b" client\r\n", "250", State.READY)
        self.asked = self.vain = False

    @precondition(lambda self: self.state is not State.TEXT)
    @rule(local=st.sampled_from([b"a", b"denied", b"later"]))
    def mail(self, local: bytes) -> None:
        line = b"MAIL FROM:<%s@example.net>\r\n" % local
        if self.state is not State.READY:
            self.say(line, "503")
        elif local == b"a":
            self.say(line, "250", State.MAIL)
            self.asked = self.vain = False
        else:
            self.vain = True
            self.say(line, {b"denied": "550", b"later": "451"}[local])

    @precondition(lambda self: self.state is not State.TEXT)
    @rule(local=st.sampled_from([b"b", b"unknown", b"later", b""]))
    def rcpt(self, local: bytes) -> None:
        line = b"RCPT TO:<%s>\r\n" % (local + b"@example.org" if local else b"")
        if self.state not in (State.MAIL, State.RCPT):
            self.say(line, "503")
        elif local == b"b":
            self.say(line, "250", State.RCPT)
            self.asked = False
        else:
            self.say(line, {b"unknown": "550", b"later": "451", b"": "501"}[local])
            self.asked = True

    @precondition(lambda self: self.state is not State.TEXT)
    @rule()
    def data(self) -> None:
        nobody = (self.state is State.MAIL and self.asked) or (self.state is State.READY and self.vain)
        if self.state is State.RCPT or nobody:
            self.refused = nobody
            self.say(b"DATA\r\n", "354", State.TEXT)
            self.text = b""
        else:
            self.say(b"DATA\r\n", "503")

    @precondition(lambda self: self.state is State.TEXT)
    @rule(line=st.sampled_from([b"QUIT", b"..", b"MAIL FROM:<e@e>", b"", b"x" * 100]))
    def write(self, line: bytes) -> None:
        before = len(self.conversation.replies)
        self.conversation.feed([line + b"\r\n"])
        assert self.conversation.replies[before:] == []
        self.text += line.removeprefix(b".") + b"\r\n"

    @precondition(lambda self: self.state is State.TEXT)
    @rule()
    def end(self) -> None:
        self.say(b".\r\n", "554" if self.refused else "250", State.READY)
        if not self.refused:
            self.taken.append(self.text)
        self.asked = self.vain = False

    @precondition(lambda self: self.state is not State.TEXT)
    @rule(octets=st.sampled_from([b"", b"QUIT\r\n", b"a\r\nb"]), last=st.booleans())
    def bdat(self, octets: bytes, last: bool) -> None:
        command = chunk(octets, last=last)
        if self.state not in (State.RCPT, State.CHUNKS):
            self.say(command, "554" if self.state is State.MAIL and self.asked else "503")
            return
        self.text = (self.text if self.state is State.CHUNKS else b"") + octets
        self.say(command, "250", State.READY if last else State.CHUNKS)
        if last:
            self.taken.append(self.text)
            self.asked = False

    @precondition(lambda self: self.state is not State.TEXT)
    @rule()
    def reset(self) -> None:
        self.say(b"RSET\r\n", "250", State.READY if self.state in GREETED else None)
        self.asked = self.vain = False

    @precondition(lambda self: self.state is not State.TEXT)
    @rule(
        line=st.sampled_from(
            [
                (b"NOOP", "250"),
                (b"VRFY x", "252"),
                (b"HELP", "214"),
                (b"EXPN x", "502"),
                (b"FOO", "500"),
                (b"MAIL\0", "500"),
            ]
        )
    )
    def other(self, line: tuple[bytes, str]) -> None:
        self.say(line[0] + b"\r\n", line[1])

    @invariant()
    def they_agree(self) -> None:
        assert self.conversation.session.state is self.state
        assert [text for _, text in self.conversation.messages] == self.taken
        in_vain_text = self.state is State.TEXT and self.vain
        assert self.conversation.session.in_transaction == (
            self.state in (State.MAIL, State.RCPT, State.TEXT, State.CHUNKS) and not in_vain_text
        )


class ModelTests(SynchronousTestCase):
    def test_the_session_agrees_with_the_model(self) -> None:
        run_state_machine_as_test(
            Model, settings=hypothesis_settings(max_examples=120, stateful_step_count=40, deadline=None)
        )
