"""
Whatever an app does, at whatever callback: one reply for each command or the end of the connection, and nothing left
behind (limits.md: "a callback raises, never answers, answers nonsense, answers after the peer is gone").
"""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet import defer
from twisted.internet.defer import Deferred, fail, succeed
from twisted.trial.unittest import SynchronousTestCase

from mailserver.apps.app import App, Changes, Disconnect
from mailserver.apps.installed import CALLBACKS
from mailserver.reply import Refusal, Reply
from tests.apps.line import AppLine, settings_of

TRANSACTION = (
    b"EHLO client.example.net\r\n"
    b"XPING\r\n"
    b"VRFY a@example.org\r\n"
    b"MAIL FROM:<a@example.net>\r\n"
    b"RCPT TO:<b@example.org>\r\n"
    b"RCPT TO:<c@example.org>\r\n"
    b"DATA\r\n"
)
SCRIPT = (TRANSACTION, b"Subject: x\r\n\r\nhello\r\n.\r\n", b"RSET\r\n", b"NOPE\r\n")
#: The banner, a reply for each line (also of a text whose DATA was refused), and a last one.
MOST_REPLIES = 17


class MistakeError(Exception):
    """What the apps of these tests raise."""


def answer(kind: str, callback: str, pending: list[Deferred[Any]]) -> Any:
    """What an app does."""
    match kind:
        case "raise":
            raise MistakeError(callback)
        case "refuse":
            raise Refusal(Reply(550, "5.7.1", f"no {callback}"))
        case "later refuse":
            return fail(Refusal(Reply(451, "4.7.1", f"not yet {callback}")))
        case "disconnect":
            raise Disconnect
        case "never" | "slow":
            pending.append(Deferred())
            return pending[-1]
        case "nonsense":
            return object()
        case "text":
            return "a@example.org"
        case "changes":
            return Changes(add=[("X-A", "1")])
        case "none later":
            return succeed(None)
    return None


KINDS = st.sampled_from(
    [
        "none",
        "raise",
        "refuse",
        "later refuse",
        "disconnect",
        "never",
        "slow",
        "nonsense",
        "text",
        "changes",
        "none later",
    ]
)


def app_of(behaviour: dict[str, str], pending: list[Deferred[Any]]) -> type[App]:
    """An app that has these callbacks."""

    def made(callback: str, kind: str) -> Any:
        def method(self: Any, *arguments: Any) -> Any:
            return answer(kind, callback, pending)

        return method

    return type("Any", (App,), {"verbs": ("XPING",), **{name: made(name, kind) for name, kind in behaviour.items()}})


class AnyAnswerTests(SynchronousTestCase):
    @settings(max_examples=150, deadline=None)
    @given(
        st.lists(st.dictionaries(st.sampled_from(CALLBACKS), KINDS, max_size=5), min_size=1, max_size=2),
        st.booleans(),
        st.integers(0, 3),
    )
    def test_one_reply_for_each_command_and_nothing_is_left(
        self, behaviours: list[dict[str, str]], in_octets: bool, lost_after: int
    ) -> None:
        pending: list[Deferred[Any]] = []
        apps = [settings_of(app_of(each, pending), name=f"a{number}") for number, each in enumerate(behaviours)]
        line = AppLine(*apps)
        closed = 0
        for number, part in enumerate(SCRIPT):
            if line.wire.disconnecting:
                break
            for chunk in [part[i : i + 1] for i in range(len(part))] if in_octets else [part]:
                line.server.dataReceived(chunk)
            if number < lost_after:
                self.settle(line, pending)
        line.lose()
        self.settle(line, pending)
        closed += line.wire.disconnecting
        codes = line.codes.split()
        self.assertLessEqual(len(codes), MOST_REPLIES)
        self.assertTrue(all(code[0] in "2345" for code in codes), codes)
        for delivery in (each for avatar in line.realm.avatars for each in avatar.deliveries):
            self.assertIn(delivery.done[-1], ("commit", "abort"), delivery.done)
        self.assertEqual(line.clock.getDelayedCalls(), [])
        self.assertEqual(line.installed[0]._users, 0)
        # Two that hang in a row take longer than the server itself waits for a decision; that is told too.
        self.flushLoggedErrors(MistakeError, defer.TimeoutError)
        self.assertEqual(self.flushLoggedErrors(), [])

    @staticmethod
    def settle(line: AppLine, pending: list[Deferred[Any]]) -> None:
        """Let some answers come, and the time of the others run out."""
        for _ in range(12):
            while pending:
                waiting = pending.pop(0)
                if not waiting.called and len(pending) % 2:
                    waiting.callback(None)
            line.clock.advance(61)

    @settings(max_examples=60, deadline=None)
    @given(
        st.dictionaries(st.sampled_from(CALLBACKS), st.sampled_from(["none", "refuse", "text", "raise"]), max_size=6)
    )
    def test_the_cutting_of_the_octets_changes_nothing(self, behaviour: dict[str, str]) -> None:
        said = []
        for in_octets in (False, True):
            line = AppLine(app_of(behaviour, []))
            for part in SCRIPT:
                for chunk in [part[i : i + 1] for i in range(len(part))] if in_octets else [part]:
                    if not line.wire.disconnecting:
                        line.server.dataReceived(chunk)
            said.append((line.codes, [(callback, outcome) for _, callback, outcome in line.calls.seen]))
            line.lose()
        self.assertEqual(said[0], said[1])
        self.flushLoggedErrors(MistakeError)
