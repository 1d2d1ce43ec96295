"""A server that goes wrong, on a wire in memory: each stage, each way."""

from __future__ import annotations

import dataclasses
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mailserver.reply import Reply
from mailserver.smtp.rules import SessionSettings
from mailserver.smtp.stock import mechanisms_of
from mailserver.testing.faults import STAGES, Effect, Fault, Faults
from mailserver.testing.inbox import Inbox, InboxRealm, Passwords
from mailserver.testing.wire import FaultyFactory
from tests.smtp.phrases import b64
from tests.smtp.wire import Line
from tests.testing.messages import NOON

EHLO, MAIL, RCPT = b"EHLO client.example.net", b"MAIL FROM:<a@example.net>", b"RCPT TO:<b@example.org>"
OPEN = (EHLO, MAIL, RCPT, b"DATA")
TEXT = (b"Subject: x", b"", b"body", b".")
PLAIN = b"AUTH PLAIN " + b64(b"\0anna\0Xk-anna").strip()
NO = Reply(451, "4.7.1", "not yet")
#: stage -> what the client says to come there.
WAYS: dict[str, tuple[bytes, ...]] = {
    "connect": (),
    "helo": (EHLO,),
    "starttls": (EHLO, b"STARTTLS"),
    "auth": (EHLO, PLAIN),
    "mail": (EHLO, MAIL),
    "rcpt": (EHLO, MAIL, RCPT),
    "data": OPEN,
    "text": (*OPEN, *TEXT),
    "message": (*OPEN, *TEXT),
    "vrfy": (EHLO, b"VRFY <b@example.org>"),
    "noop": (EHLO, b"NOOP"),
    "rset": (EHLO, b"RSET"),
    "quit": (EHLO, b"QUIT"),
}


class FaultyLine(Line):
    """A connection to a server on which things go wrong."""

    def __init__(self, faults: Faults, **changes: Any) -> None:
        settings = SessionSettings("mx.example.org", starttls=True, insecure_auth=True, vrfy=True)
        settings = dataclasses.replace(settings, mechanisms=mechanisms_of({b"PLAIN": None}, "mx"), **changes)

        def made(*arguments: Any, **others: Any) -> FaultyFactory:
            return FaultyFactory(*arguments, faults=faults, policies=lambda _server: None, **others)

        super().__init__(settings, kind=made, connect=False, checkers=(Passwords("any"),), tls=object())
        self.inbox = Inbox(self.clock)
        assert self.factory.portal is not None
        self.factory.portal.realm = InboxRealm(self.inbox, faults, None, lambda: NOON)
        self.server.makeConnection(self.wire)


class Case(SynchronousTestCase):
    def setUp(self) -> None:
        self.faults = Faults()

    def wrong(self, stage: str, effect: Effect, times: int | None = 1, where: Any = None) -> Fault:
        return self.faults.add(stage, effect, times=times, where=where)

    def line(self, *said: bytes, **changes: Any) -> FaultyLine:
        line = FaultyLine(self.faults, **changes)
        for each in said:
            line.say(each)
        return line


class StagesTests(Case):
    def test_there_is_a_way_to_each_stage(self) -> None:
        self.assertEqual(tuple(WAYS), STAGES)

    def test_all_is_well_without_faults(self) -> None:
        line = self.line(EHLO, PLAIN, MAIL, RCPT, b"DATA", *TEXT, b"VRFY <b@example.org>", b"NOOP", b"RSET", b"QUIT")
        self.assertEqual(line.codes, "220 250 235 250 250 354 250 250 250 250 221")
        (message,) = line.inbox.messages
        self.assertEqual((message.raw, message.session.identity), (b"Subject: x\r\n\r\nbody\r\n", "anna"))

    def test_each_stage_can_refuse(self) -> None:
        for stage, said in WAYS.items():
            if stage == "text":
                continue
            fault = self.wrong(stage, Effect(reply=NO))
            line = self.line(*said)
            self.assertEqual((line.last, fault.count), (str(NO), 1), stage)
            self.assertEqual(line.inbox.messages, [])
            self.assertEqual(line.wire.disconnecting, stage == "connect", stage)

    def test_after_a_refusal_all_goes_on(self) -> None:
        self.wrong("rcpt", Effect(reply=NO))
        self.wrong("message", Effect(reply=NO))
        line = self.line(EHLO, MAIL, RCPT, RCPT, b"DATA", *TEXT, MAIL, RCPT, b"DATA", *TEXT)
        self.assertEqual(line.codes, "220 250 250 451 250 354 451 250 250 354 250")
        self.assertEqual(len(line.inbox.messages), 1)

    def test_after_a_refused_starttls_there_is_none(self) -> None:
        self.wrong("starttls", Effect(reply=Reply(454, "4.7.0", "TLS not available")))
        line = self.line(EHLO, b"STARTTLS")
        self.assertIsNone(line.wire.tls)
        line.say(b"STARTTLS")
        self.assertIsNotNone(line.wire.tls)

    def test_a_421_is_the_end(self) -> None:
        self.wrong("mail", Effect(reply=Reply(421, "4.3.2", "going down")))
        line = self.line(EHLO, MAIL)
        self.assertEqual(line.last, "421 4.3.2 going down")
        self.assertTrue(line.wire.disconnecting)

    def test_each_stage_can_hang_up_without_a_word(self) -> None:
        for stage, said in WAYS.items():
            before = self.line(*said[: -len(TEXT)] if stage in ("text", "message") else said[:-1]).codes
            self.wrong(stage, Effect(drop=True))
            line = self.line(*said)
            self.assertTrue(line.wire.disconnecting, stage)
            self.assertFalse(line.wire.aborted, stage)
            self.assertEqual(line.codes, "" if stage == "connect" else before, stage)
            self.assertEqual(line.inbox.messages, [])
            line.lose()

    def test_it_can_hang_up_like_one_that_has_crashed(self) -> None:
        self.wrong("mail", Effect(drop=True, reset=True))
        self.assertTrue(self.line(EHLO, MAIL).wire.aborted)

    def test_each_stage_can_wait(self) -> None:
        for stage, said in WAYS.items():
            self.wrong(stage, Effect(seconds=2.0))
            line = self.line(*said)
            before = line.codes
            line.clock.advance(1.9)
            self.assertEqual(line.codes, before, stage)
            line.clock.advance(0.2)
            self.assertNotEqual(line.codes, before, stage)
            line.lose()
            self.assertEqual(line.clock.getDelayedCalls(), [], stage)

    def test_who_goes_away_meanwhile_leaves_nothing_behind(self) -> None:
        for stage, said in WAYS.items():
            self.wrong(stage, Effect(seconds=2.0))
            line = self.line(*said)
            line.lose()
            self.assertEqual(line.clock.getDelayedCalls(), [], stage)
            self.assertEqual(line.inbox.messages, [])

    def test_each_stage_can_say_yes_in_other_words(self) -> None:
        for stage, said in WAYS.items():
            if stage == "text":
                continue
            code = {"connect": 220, "starttls": 220, "auth": 235, "data": 354, "quit": 221}.get(stage, 250)
            self.wrong(stage, Effect(reply=Reply(code, "", "as you like it")))
            line = self.line(*said)
            self.assertEqual(line.last, f"{code} as you like it", stage)
            self.assertEqual(len(line.inbox.messages), 1 if stage == "message" else 0)

    def test_it_can_say_what_no_server_should(self) -> None:
        self.wrong("mail", Effect(raw=b"two hundred and fifty\r\n"))
        line = self.line(EHLO, MAIL, RCPT)
        self.assertTrue(line.wire.value().endswith(b"two hundred and fifty\r\n250 2.1.5 Recipient ok\r\n"))

    def test_other_words_do_not_hide_a_no(self) -> None:
        self.wrong("helo", Effect(reply=Reply(250, "", "hello")))
        line = self.line(b"EHLO")
        self.assertEqual(line.last[:3], "501")
        self.assertEqual(line.say(EHLO).last, "250 hello")


class MomentTests(Case):
    def test_what_a_where_is_told(self) -> None:
        seen: list[Any] = []
        for stage in STAGES:
            self.wrong(stage, Effect(reply=NO) if stage != "text" else Effect(drop=True), where=seen.append)
        self.line(EHLO, PLAIN, MAIL, RCPT, b"DATA", *TEXT, b"QUIT", listener="smtp")
        told = {each.stage: each for each in seen}
        self.assertEqual(set(told), set(STAGES) - {"starttls", "vrfy", "noop", "rset"})
        self.assertEqual({each.listener for each in seen}, {"smtp"})
        self.assertEqual({each.peer.host for each in seen}, {"192.0.2.1"})
        self.assertEqual(told["helo"].name, "client.example.net")
        self.assertEqual((told["auth"].user, told["mail"].user), ("anna", "anna"))
        self.assertEqual((told["mail"].sender, told["mail"].recipients), ("a@example.net", ()))
        self.assertEqual((told["rcpt"].recipient, told["data"].recipients), ("b@example.org", ("b@example.org",)))
        self.assertEqual((told["text"].octets, told["message"].message.subject), (23, "x"))

    def test_a_where_that_fails_costs_a_451(self) -> None:
        for stage in ("mail", "message"):
            self.wrong(stage, Effect(reply=NO), where=lambda moment: 1 / 0)
            line = self.line(*WAYS[stage])
            self.assertEqual(line.last[:9], "451 4.3.0", stage)
            self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
            self.faults.clear()
            line.lose()


class TextTests(Case):
    def test_it_hangs_up_in_the_middle_of_a_text(self) -> None:
        fault = self.wrong("text", Effect(drop=True, octets=100))
        line = self.line(*OPEN)
        line.say(b"x" * 90)
        self.assertFalse(line.wire.disconnecting)
        line.say(b"x" * 90)
        self.assertTrue(line.wire.disconnecting)
        self.assertEqual((fault.count, line.codes, line.inbox.messages), (1, "220 250 250 250 354", []))

    def test_it_does_so_when_the_end_of_the_text_is_there_already(self) -> None:
        drop = self.wrong("text", Effect(drop=True))
        kept = self.wrong("message", Effect(drop=True, keep=True))
        line = self.line(*OPEN)
        line.say(*TEXT)
        self.assertEqual((drop.count, kept.count, line.codes), (1, 0, "220 250 250 250 354"))
        self.assertEqual((line.wire.disconnecting, line.inbox.messages), (True, []))

    def test_a_text_that_is_shorter_goes_through(self) -> None:
        self.wrong("text", Effect(drop=True, octets=100))
        self.assertEqual(len(self.line(*OPEN, *TEXT).inbox.messages), 1)

    def test_a_dropped_message_may_be_kept(self) -> None:
        self.wrong("message", Effect(drop=True, keep=True))
        line = self.line(*OPEN, *TEXT)
        self.assertTrue(line.wire.disconnecting)
        self.assertEqual((line.codes, len(line.inbox.messages)), ("220 250 250 250 354", 1))


class LMTPTests(Case):
    OPEN = (b"LHLO client.example.net", MAIL, RCPT, b"RCPT TO:<c@example.org>", b"DATA")

    def test_a_message_can_fail_for_some(self) -> None:
        self.wrong("message", Effect(reply=NO), where=lambda moment: moment.recipient == "b@example.org")
        line = self.line(*self.OPEN, *TEXT, lmtp=True)
        self.assertEqual(line.codes, "220 250 250 250 250 354 451 250")
        self.assertEqual([each.recipients for each in line.inbox.messages], [("c@example.org",)])

    def test_all_else_is_as_by_smtp(self) -> None:
        self.wrong("helo", Effect(reply=NO))
        self.wrong("message", Effect(drop=True))
        line = self.line(self.OPEN[0], *self.OPEN, *TEXT, lmtp=True)
        self.assertEqual((line.codes, line.wire.disconnecting), ("220 451 250 250 250 250 354", True))


class EndTests(Case):
    def test_the_end_waits_for_nobody(self) -> None:
        line = self.line(*OPEN, b"Subject: x")
        line.server.end_now()
        self.assertTrue(line.wire.aborted)
        line.lose()
        self.assertEqual(line.clock.getDelayedCalls(), [])
