"""The Twisted half: order, back-pressure, timers, failures, logins, logs - on an in-memory wire."""

from __future__ import annotations

import errno
from typing import Any

from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse
from twisted.internet.defer import CancelledError, fail, succeed
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHandshakeListener
from twisted.logger import globalLogPublisher
from twisted.mail import smtp as stock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mailserver import reply as replies
from mailserver.interfaces import IAdmission
from mailserver.limits import Limits
from mailserver.policy.clients import ClientLimits
from mailserver.reply import Refusal, Reply
from mailserver.smtp.server import TURNED_AWAY_AT_ONCE, ESMTPServer, ESMTPServerFactory
from mailserver.smtp.session import SMTPSession
from tests.smtp.driver import MECHANISMS, settings
from tests.smtp.phrases import b64
from tests.smtp.wire import Line, SecureWire, waiting

EHLO, MAIL, RCPT, DATA = b"EHLO client.example.net", b"MAIL FROM:<a@example.net>", b"RCPT TO:<b@example.org>", b"DATA"
OPEN = (EHLO, MAIL, RCPT, DATA)


class LogCase(SynchronousTestCase):
    """Collects the events of the log."""

    def setUp(self) -> None:
        self.events: list[dict[str, Any]] = []
        globalLogPublisher.addObserver(self.events.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.events.append)

    def named(self, name: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event.get("event") == name]


class ConversationTests(LogCase):
    def test_a_message_from_the_banner_to_the_250(self) -> None:
        line = Line().say(*OPEN).say(b"Subject: x", b"", b"hello", b".", b"QUIT")
        self.assertEqual(line.codes, "220 250 250 250 354 250 221")
        self.assertEqual(line.delivery.text, b"Subject: x\r\n\r\nhello\r\n")
        self.assertEqual(line.delivery.done, ["write", "prepare", "commit"])
        self.assertTrue(line.wire.disconnecting)
        self.assertTrue(line.wire.no_delay)

    def test_the_replies_to_one_segment_leave_in_one_write(self) -> None:
        line = Line()
        line.say(EHLO)
        before = len(line.wire.writes)
        line.say(MAIL, RCPT, RCPT, b"NOOP")
        self.assertEqual(len(line.wire.writes), before + 1)

    def test_the_reply_is_the_deliverys_or_names_the_transaction(self) -> None:
        line = Line(steps={"commit": Reply(250, "2.0.0", "Ok: stored")}).say(*OPEN).say(b".")
        self.assertEqual(line.last, "250 2.0.0 Ok: stored")
        line = Line().say(*OPEN).say(b".")
        self.assertRegex(line.last, r"^250 2\.0\.0 Ok: queued as [a-z2-7]{8}$")

    def test_one_event_for_the_connection_and_one_for_each_message(self) -> None:
        line = Line().say(*OPEN).say(b"hi", b".", MAIL, RCPT, DATA, b".", b"QUIT")
        line.lose()
        self.assertEqual(len(self.named("message")), 2)
        (connection,) = self.named("connection")
        self.assertEqual((connection["peer"], connection["messages"], connection["reason"]), ("192.0.2.1", 2, "quit"))
        self.assertEqual(self.named("message")[0]["size"], 4)
        self.assertEqual(self.named("message")[0]["connection"], connection["connection"])


class OrderTests(LogCase):
    """A decision may take its time; nothing overtakes it."""

    def test_a_pipelined_command_waits_for_the_answer_before_it(self) -> None:
        decision = waiting()
        line = Line(steps={"rcpt": decision})
        line.say(EHLO, MAIL, RCPT, b"NOOP", b"QUIT")
        self.assertEqual(line.codes, "220 250 250")
        decision.callback(None)
        self.assertEqual(line.codes, "220 250 250 250 250 221")

    def test_what_was_answered_before_is_sent_while_it_waits(self) -> None:
        line = Line(steps={"mail": waiting()})
        line.say(EHLO, MAIL)
        self.assertEqual(line.codes, "220 250")

    def test_values_deferreds_and_coroutines_are_all_answers(self) -> None:
        async def coroutine() -> None:
            return None

        for answer in (None, succeed(None), coroutine(), Reply(250, "2.1.5", "Fine")):
            line = Line(steps={"rcpt": answer}).say(EHLO, MAIL, RCPT)
            self.assertEqual(line.codes, "220 250 250 250")

    def test_a_refusal_may_be_raised_or_come_later(self) -> None:
        async def coroutine() -> None:
            raise Refusal(replies.RELAYING_DENIED)

        for answer in (Refusal(replies.RELAYING_DENIED), fail(Refusal(replies.RELAYING_DENIED)), coroutine()):
            line = Line(steps={"rcpt": answer}).say(EHLO, MAIL, RCPT)
            self.assertEqual(line.last, "550 5.7.1 Relaying denied")

    def test_much_input_during_a_decision_stops_the_reading(self) -> None:
        decision = waiting()
        line = Line(steps={"mail": decision}).say(EHLO, MAIL)
        line.say(b"NOOP " + b"x" * 60_000)
        self.assertEqual(line.wire.producerState, "producing")
        line.say(b"NOOP " + b"x" * 60_000)
        self.assertEqual(line.wire.producerState, "paused")
        decision.callback(None)
        self.assertEqual(line.wire.producerState, "producing")

    def test_a_write_that_takes_time_holds_the_text_back(self) -> None:
        first = waiting()
        line = Line(steps={"write": first}).say(*OPEN).say(b"one")
        line.steps["write"] = None
        line.say(b"two", b".")
        self.assertEqual(line.delivery.text, b"one")
        first.callback(None)
        self.assertEqual(line.delivery.text, b"one\r\ntwo\r\n")
        self.assertEqual(line.codes[-3:], "250")


class TurnTests(LogCase):
    """A peer that pipelines much does not keep the reactor from the others."""

    def test_many_commands_take_several_turns_and_keep_their_order(self) -> None:
        line = Line().say(EHLO, MAIL, *[RCPT] * 200, b"NOOP")
        self.assertLess(len(line.codes.split()), 70)
        for _ in range(4):
            line.clock.advance(0)
        self.assertEqual(line.codes, "220" + " 250" * 203)

    def test_what_comes_meanwhile_waits_for_its_turn(self) -> None:
        line = Line().say(EHLO, MAIL, *[RCPT] * 100)
        line.say(b"QUIT")
        self.assertNotIn("221", line.codes)
        line.clock.advance(0)
        self.assertEqual(line.codes, "220" + " 250" * 102 + " 221")

    def test_a_peer_that_goes_between_two_turns(self) -> None:
        line = Line().say(EHLO, MAIL, *[RCPT] * 100)
        line.lose()
        self.assertEqual(line.clock.getDelayedCalls(), [])


class FailureTests(LogCase):
    """Trouble of ours is 451, is logged, and leaves the connection in step."""

    def trouble(self, step: str) -> Line:
        line = Line(steps={step: ValueError("secret cause")})
        line.say(EHLO, MAIL, RCPT, DATA)
        if line.codes.endswith("354"):
            line.say(b"text", b".")
        self.assertNotIn("secret", line.wire.value().decode())
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1, step)
        return line

    def test_in_each_decision(self) -> None:
        expected = {
            "mail": "220 250 451 503 354 554",
            "rcpt": "220 250 250 451 354 554",
            "data": "220 250 250 250 451",
            "write": "220 250 250 250 354 451",
            "prepare": "220 250 250 250 354 451",
            "commit": "220 250 250 250 354 451",
        }
        for step, codes in expected.items():
            line = self.trouble(step)
            self.assertEqual(line.codes, codes, step)
            line.steps.clear()
            line.say(b"RSET", MAIL, RCPT, DATA, b".")
            self.assertEqual(line.codes, f"{codes} 250 250 250 354 250", step)

    def test_a_delivery_that_fails_is_aborted(self) -> None:
        for step in ("write", "prepare", "commit"):
            self.assertIn("abort", self.trouble(step).delivery.done, step)

    def test_a_refusal_with_a_cause_is_logged_one_without_is_not(self) -> None:
        refusal = Refusal(replies.DISK_FULL)
        refusal.__cause__ = OSError(errno.ENOSPC, "no room")
        line = Line(steps={"commit": refusal}).say(*OPEN).say(b".")
        self.assertEqual(line.codes[-3:], "452")
        (told,) = self.named("trouble")
        self.assertIn("no room", told["error"])
        self.assertEqual(self.flushLoggedErrors(), [])
        Line(steps={"commit": Refusal(replies.MAILBOX_FULL)}).say(*OPEN).say(b".")
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_a_decision_that_never_comes_is_cancelled(self) -> None:
        cancelled: list[Any] = []
        decision = waiting()
        decision.addErrback(lambda failure: cancelled.append(failure.type) or failure)
        line = Line(steps={"rcpt": decision}).say(EHLO, MAIL, RCPT)
        line.clock.advance(109)
        self.assertEqual(line.codes, "220 250 250")
        line.clock.advance(1)
        self.assertEqual(line.codes, "220 250 250 451")
        self.assertEqual(cancelled, [CancelledError])
        self.flushLoggedErrors()

    def test_a_commit_is_never_cut_off(self) -> None:
        commit = waiting()
        line = Line(steps={"commit": commit}).say(*OPEN).say(b".")
        line.clock.advance(10_000)
        commit.callback(None)
        self.assertEqual(line.codes[-3:], "250")


class LostTests(LogCase):
    def test_in_the_text_the_delivery_is_aborted(self) -> None:
        line = Line().say(*OPEN).say(b"one")
        line.lose()
        self.assertEqual(line.delivery.done, ["write", "abort"])
        self.assertEqual(line.avatar.calls[-1], "logout")

    def test_during_a_decision_it_is_cancelled_and_nothing_is_said(self) -> None:
        decision = waiting()
        line = Line(steps={"rcpt": decision}).say(EHLO, MAIL, RCPT)
        line.lose()
        self.assertEqual(line.codes, "220 250 250")
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_a_delivery_that_opens_too_late_is_aborted(self) -> None:
        decision = waiting()
        decision.cancel = lambda: None  # type: ignore[method-assign]
        line = Line(steps={"data": decision}).say(*OPEN)
        line.lose()
        from tests.smtp.wire import Recording

        late = Recording({})
        decision.callback(late)
        self.assertEqual(late.done, ["abort"])

    def test_while_it_prepares_it_is_not_committed(self) -> None:
        prepare = waiting()
        prepare.cancel = lambda: None  # type: ignore[method-assign]
        line = Line(steps={"prepare": prepare}).say(*OPEN).say(b".")
        line.lose()
        prepare.callback(None)
        self.assertEqual(line.delivery.done[-1], "abort")
        self.assertNotIn("commit", line.delivery.done)

    def test_a_commit_goes_on(self) -> None:
        commit = waiting()
        line = Line(steps={"commit": commit}).say(*OPEN).say(b".")
        line.lose()
        commit.callback(None)
        self.assertEqual(line.delivery.done, ["prepare", "commit"])
        self.assertEqual(len(self.named("message")), 1)

    def test_a_peer_that_closes_its_side_behind_quit_hears_every_reply(self) -> None:
        """Exim pipelines BDAT and QUIT and closes its sending side."""
        decision, commit = waiting(), waiting()
        line = Line(steps={"rcpt": decision, "commit": commit}).say(EHLO, MAIL, RCPT, b"BDAT 4 LAST", b"hi", b"QUIT")
        line.server.readConnectionLost()
        self.assertEqual((line.codes, line.wire.disconnecting), ("220 250 250", False))
        decision.callback(None)
        commit.callback(None)
        self.assertEqual((line.codes, line.delivery.text), ("220 250 250 250 250 221", b"hi\r\n"))
        self.assertTrue(line.wire.disconnecting)
        line.lose()
        self.assertEqual(self.named("connection")[0]["reason"], "quit")

    def test_a_peer_that_closes_its_side_within_a_message_or_without_quit_is_gone(self) -> None:
        for sent in ((), (EHLO,), OPEN, (*OPEN, b"one"), (EHLO, b"STARTTLS")):
            line = Line().say(*sent)
            line.server.readConnectionLost()
            line.server.readConnectionLost()
            self.assertTrue(line.wire.disconnecting, sent)
            if sent[-1:] == (b"one",):
                self.assertEqual(line.delivery.done[-1], "abort")
            line.lose()
            self.assertEqual(self.named("connection")[-1]["reason"], "connection lost")

    def test_no_delayed_call_is_left_behind(self) -> None:
        for sent in ((), (EHLO,), OPEN, (*OPEN, b"one"), (b"FOO",) * 10):
            line = Line().say(*sent)
            line.lose()
            calls = line.clock.getDelayedCalls()
            # A pause for errors may run out by itself, and then does nothing.
            line.clock.advance(2)
            self.assertEqual(list(line.clock.getDelayedCalls()), [], (sent, calls))


class TimerTests(LogCase):
    def test_one_timer_runs_in_every_state(self) -> None:
        for sent in ((), (EHLO,), OPEN, (*OPEN, b"one"), (b"QUIT",)):
            self.assertEqual(len(Line().say(*sent).clock.getDelayedCalls()), 1, sent)

    def test_a_command_has_five_minutes(self) -> None:
        line = Line().say(EHLO)
        line.clock.advance(299)
        self.assertFalse(line.wire.disconnecting)
        line.clock.advance(1)
        self.assertEqual(line.codes, "220 250 421")
        self.assertTrue(line.wire.disconnecting)

    def test_single_octets_of_a_command_do_not_prolong_them(self) -> None:
        line = Line().say(EHLO)
        for _ in range(3):
            line.clock.advance(99)
            line.server.dataReceived(b"N")
        self.assertFalse(line.wire.disconnecting)
        line.clock.advance(3)
        self.assertEqual(line.codes, "220 250 421")
        self.assertTrue(line.wire.disconnecting)

    def test_every_command_starts_them_again(self) -> None:
        line = Line()
        for _ in range(5):
            line.clock.advance(200)
            line.say(b"NOOP")
        self.assertFalse(line.wire.disconnecting)

    def test_silence_in_a_text(self) -> None:
        line = Line().say(*OPEN).say(b"one")
        line.clock.advance(179)
        line.say(b"x" * 200_000)
        line.clock.advance(179)
        self.assertFalse(line.wire.disconnecting)
        line.clock.advance(1)
        self.assertEqual(line.codes[-3:], "421")
        self.assertIn("abort", line.delivery.done)

    def test_a_trickle_is_cut_and_a_flow_is_not(self) -> None:
        """gen_smtp D8: it cuts every message at 180 s."""
        line = Line().say(*OPEN)
        for _ in range(1000):
            line.clock.advance(10)
            line.say(b"x" * 5_000)
        self.assertFalse(line.wire.disconnecting)
        line = Line().say(*OPEN)
        for _ in range(60):
            line.clock.advance(1)
            line.say(b"x" * 490)
        self.assertFalse(line.wire.disconnecting)
        line.clock.advance(1)
        line.say(b"x" * 490)
        self.assertEqual(line.codes[-3:], "421")

    def test_time_that_we_need_ourselves_is_not_counted(self) -> None:
        write = waiting()
        line = Line(steps={"write": write}).say(*OPEN).say(b"one")
        line.clock.advance(100)
        line.steps["write"] = None
        write.callback(None)
        line.say(b"two")
        self.assertFalse(line.wire.disconnecting)

    def test_a_connection_has_an_hour_unless_a_message_flows(self) -> None:
        line = Line(settings(limits=Limits(idle_commands=10_000)))
        for _ in range(17):
            line.say(b"NOOP")
            line.clock.advance(200)
        line.say(b"NOOP")
        line.clock.advance(200)
        self.assertIn("421 4.4.2 Connection open for too long", line.last)
        line = Line().say(*OPEN)
        for _ in range(50):
            line.clock.advance(100)
            line.say(b"x" * 60_000)
        self.assertFalse(line.wire.disconnecting)

    def test_idle_clients_get_less_time_when_it_is_busy(self) -> None:
        admission = ClientLimits(Limits(connections=1), lambda: 0.0, lambda: 0.5)
        line = Line(admission=admission).say(EHLO)
        line.clock.advance(30)
        self.assertTrue(line.wire.disconnecting)

    def test_a_peer_that_does_not_read_is_not_served_and_then_cut(self) -> None:
        line = Line().say(EHLO)
        line.wire.producer.pauseProducing()
        self.assertEqual(line.wire.producerState, "paused")
        line.server.dataReceived(b"NOOP\r\n")
        self.assertEqual(line.codes, "220 250")
        line.clock.advance(59)
        self.assertFalse(line.wire.aborted)
        line.clock.advance(1)
        self.assertTrue(line.wire.aborted)

    def test_a_peer_that_reads_again_is_served(self) -> None:
        line = Line().say(EHLO)
        line.wire.producer.pauseProducing()
        line.server.dataReceived(b"NOOP\r\n")
        line.wire.producer.resumeProducing()
        self.assertEqual(line.codes, "220 250 250")
        self.assertEqual(line.wire.producerState, "producing")

    def test_a_peer_that_reads_again_during_a_decision_is_not_cut(self) -> None:
        decision = waiting()
        line = Line(steps={"rcpt": decision}).say(EHLO, MAIL, RCPT)
        line.wire.producer.pauseProducing()
        line.wire.producer.resumeProducing()
        line.clock.advance(100)
        decision.callback(None)
        self.assertEqual(line.codes, "220 250 250 250")

    def test_errors_are_answered_later_and_later_commands_wait(self) -> None:
        line = Line().say(*[b"FOO"] * 10, b"NOOP")
        self.assertEqual(line.codes, "220" + " 500" * 9)
        line.clock.advance(1)
        self.assertEqual(line.codes, "220" + " 500" * 10 + " 250")

    def test_a_closed_connection_that_lingers_is_cut(self) -> None:
        line = Line().say(b"QUIT")
        line.clock.advance(60)
        self.assertTrue(line.wire.aborted)

    def test_what_comes_behind_the_end_does_not_put_it_off(self) -> None:
        """TLS delivers octets also after `loseConnection`."""
        line = Line().say(b"QUIT")
        for _ in range(4):
            line.clock.advance(1)
            line.server.dataReceived(b"x")
        line.clock.advance(1)
        self.assertTrue(line.wire.aborted)


class DrainTests(LogCase):
    def test_the_idle_get_421_now(self) -> None:
        line = Line().say(EHLO)
        line.server.drain()
        self.assertEqual(line.codes, "220 250 421")
        self.assertTrue(line.wire.disconnecting)

    def test_a_transaction_may_end(self) -> None:
        line = Line().say(*OPEN)
        line.server.drain()
        self.assertFalse(line.wire.disconnecting)
        line.say(b"text", b".")
        self.assertEqual(line.codes, "220 250 250 250 354 250 421")

    def test_cutting_aborts_the_delivery(self) -> None:
        line = Line().say(*OPEN).say(b"text")
        line.server.cut()
        self.assertTrue(line.wire.disconnecting)
        self.assertEqual(line.codes[-3:], "421")
        self.assertIn("abort", line.delivery.done)

    def test_a_peer_that_is_cut_and_does_not_close_is_aborted(self) -> None:
        line = Line().say(*OPEN).say(b"text")
        line.server.cut()
        self.assertFalse(line.wire.aborted)
        line.clock.advance(5)
        self.assertTrue(line.wire.aborted)

    def test_one_that_is_closing_already_is_not_given_more_time(self) -> None:
        line = Line().say(b"QUIT")
        line.clock.advance(3)
        line.server.cut()
        line.clock.advance(2)
        self.assertTrue(line.wire.aborted)

    def test_the_factory_knows_its_connections(self) -> None:
        line = Line()
        self.assertEqual(len(line.factory.connections), 1)
        line.lose()
        self.assertEqual(len(line.factory.connections), 0)


class AdmissionTests(LogCase):
    def test_who_is_turned_away_gets_the_reply_and_is_not_counted(self) -> None:
        admission = ClientLimits(Limits(connections=1), lambda: 0.0, lambda: 0.5)
        verifyObject(IAdmission, admission)
        first = Line(admission=admission)
        second = Line(admission=admission)
        self.assertEqual(second.codes, "421")
        self.assertTrue(second.wire.disconnecting)
        second.lose()
        self.assertEqual(admission.connections, 1)
        first.lose()
        self.assertEqual(admission.connections, 0)


def password_checker() -> InMemoryUsernamePasswordDatabaseDontUse:
    checker = InMemoryUsernamePasswordDatabaseDontUse()
    checker.addUser(b"a@example.org", b"secret")
    return checker


LOGIN = b"AUTH PLAIN " + b64(b"\0a@example.org\0secret").strip()
WRONG = b"AUTH PLAIN " + b64(b"\0a@example.org\0wrong").strip()


class LoginTests(LogCase):
    """AUTH, through a stock Portal with stock checkers."""

    def line(self, **options: Any) -> Line:
        given = settings(insecure_auth=True, mechanisms=MECHANISMS)
        return Line(given, checkers=(password_checker(),), **options)

    def test_the_avatar_is_that_of_the_account(self) -> None:
        line = self.line().say(EHLO, LOGIN, MAIL)
        self.assertEqual(line.codes, "220 250 235 250")
        self.assertEqual(line.avatar.user, "a@example.org")
        self.assertEqual(line.server.session.peer.user, "a@example.org")

    def test_nobody_has_an_avatar_too(self) -> None:
        self.assertEqual(self.line().say(EHLO, MAIL).avatar.user, "")

    def test_cram_md5_with_a_checker_that_knows_the_password(self) -> None:
        checker = InMemoryUsernamePasswordDatabaseDontUse()
        checker.addUser(b"tim", b"tanstaaftanstaaf")
        line = Line(settings(insecure_auth=True, mechanisms=MECHANISMS), checkers=(checker,))
        line.say(EHLO, b"AUTH CRAM-MD5", b64(b"tim b913a602c7eda7a495b4e6e7334d3890").strip())
        self.assertEqual(line.codes, "220 250 334 235")

    def test_a_wrong_password(self) -> None:
        line = self.line().say(EHLO, WRONG, b"NOOP")
        self.assertEqual(line.codes, "220 250 535 250")

    def test_another_identity_reads_like_a_wrong_password(self) -> None:
        line = self.line().say(EHLO, b"AUTH PLAIN " + b64(b"root\0a@example.org\0secret").strip())
        self.assertEqual(line.codes, "220 250 535")

    def test_the_answer_waits_and_the_wait_doubles(self) -> None:
        line = self.line(admission=ClientLimits(Limits(), lambda: 0.0, lambda: 0.5))
        line.say(EHLO, WRONG, b"NOOP")
        line.clock.advance(1.9)
        self.assertEqual(line.codes, "220 250")
        line.clock.advance(0.2)
        self.assertEqual(line.codes, "220 250 535 250")
        line.say(WRONG)
        line.clock.advance(3.9)
        self.assertEqual(line.codes, "220 250 535 250")
        line.clock.advance(0.2)
        self.assertEqual(line.codes, "220 250 535 250 535")

    def test_a_client_with_too_many_failures_is_sent_away(self) -> None:
        admission = ClientLimits(Limits(auth_failures_per_minute=1), lambda: 0.0, lambda: 0.5)
        line = self.line(admission=admission).say(EHLO, WRONG)
        line.clock.advance(3)
        line.say(LOGIN)
        self.assertEqual(line.codes, "220 250 535 421")

    def test_a_login_ends_the_one_before(self) -> None:
        line = self.line().say(EHLO, MAIL, b"RSET", LOGIN)
        nobody = line.realm.avatars[0]
        self.assertIn("logout", nobody.calls)

    def test_a_peer_that_goes_while_it_waits(self) -> None:
        admission = ClientLimits(Limits(), lambda: 0.0, lambda: 0.5)
        line = self.line(admission=admission).say(EHLO, WRONG)
        line.lose()
        self.assertEqual(line.clock.getDelayedCalls(), [])
        self.assertEqual(self.flushLoggedErrors(), [])
        self.assertIsNone(admission.may_authenticate(line.server.session.peer))

    def test_trouble_with_the_checker_is_454(self) -> None:
        class Broken(InMemoryUsernamePasswordDatabaseDontUse):
            def requestAvatarId(self, credentials: Any) -> Any:
                return fail(RuntimeError("no database"))

        line = Line(settings(insecure_auth=True, mechanisms=MECHANISMS), checkers=(Broken(),)).say(EHLO, LOGIN)
        self.assertEqual(line.codes, "220 250 454")
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_no_password_reaches_the_log(self) -> None:
        line = self.line()
        secret = b64(b"\0a@example.org\0secret").strip()
        line.say(EHLO, b"AUTH PLAIN", b64(b"\0a@example.org\0wr0ng").strip(), b"AUTH PLAIN " + secret, *OPEN[1:])
        line.say(b"body text", b".", b"QUIT")
        line.lose()
        told = repr(self.events)
        for hidden in ("secret", "wr0ng", secret.decode(), "body text"):
            self.assertNotIn(hidden, told)

    def test_nobody_without_an_anonymous_checker(self) -> None:
        line = Line(settings())
        line.server.portal.checkers.clear()
        line.say(EHLO, MAIL)
        self.assertEqual(line.codes, "220 250 530")


class TLSTests(LogCase):
    def test_starttls(self) -> None:
        line = Line(settings(starttls=True), tls=object())
        line.say(EHLO, b"STARTTLS", MAIL)
        self.assertIs(line.wire.tls, line.factory.tls)
        self.assertEqual(line.codes, "220 250 220")
        line.server.handshakeCompleted()
        line.say(MAIL, EHLO, MAIL)
        self.assertEqual(line.codes, "220 250 220 503 250 250")
        self.assertNotIn(b"STARTTLS", line.wire.value().split(b"220 2.0.0")[1])
        self.assertEqual(line.server.session.peer.tls.server_name, "mx.example.org")

    def test_it_is_not_offered_without_certificates(self) -> None:
        line = Line(settings(starttls=True)).say(EHLO, b"STARTTLS")
        self.assertNotIn(b"STARTTLS\r\n", line.wire.value())
        self.assertEqual(line.codes, "220 250 500")

    def test_a_handshake_has_thirty_seconds(self) -> None:
        line = Line(settings(starttls=True), tls=object()).say(EHLO, b"STARTTLS")
        line.clock.advance(29)
        self.assertFalse(line.wire.aborted)
        line.clock.advance(1)
        self.assertTrue(line.wire.aborted)
        line.lose()
        self.assertEqual(self.named("connection")[0]["reason"], "TLS handshake took over 30 s")

    def test_who_is_turned_away_behind_tls_does_not_keep_a_file_for_long(self) -> None:
        admission = ClientLimits(Limits(connections=1), lambda: 0.0, lambda: 0.5)
        first = Line(settings(), admission=admission, wire=SecureWire())
        told, silent = (Line(settings(), admission=admission, wire=SecureWire()) for _ in range(2))
        told.server.handshakeCompleted()
        self.assertEqual(told.codes, "421")
        silent.clock.advance(5)
        self.assertTrue(silent.wire.aborted)
        self.assertFalse(first.wire.aborted)

    def test_of_those_only_a_few_may_wait_for_the_reply(self) -> None:
        line = Line(settings(), admission=ClientLimits(Limits(connections=1), lambda: 0.0, lambda: 0.5))
        wires = [SecureWire() for _ in range(TURNED_AWAY_AT_ONCE + 1)]
        for wire in wires:
            server = line.factory.buildProtocol(None)
            server.makeConnection(wire)
            self.addCleanup(server.connectionLost, Failure(ConnectionDone()))
        self.assertEqual([wire.aborted for wire in wires], [False] * TURNED_AWAY_AT_ONCE + [True])

    def test_implicit_tls_waits_for_the_handshake_before_the_banner(self) -> None:
        line = Line(settings(starttls=True), tls=object(), wire=SecureWire())
        self.assertTrue(IHandshakeListener.providedBy(line.server))
        self.assertEqual(line.wire.value(), b"")
        line.server.handshakeCompleted()
        line.say(EHLO)
        self.assertEqual(line.codes, "220 250")
        self.assertNotIn(b"STARTTLS", line.wire.value())

    def test_a_failed_handshake_is_told_in_the_log(self) -> None:
        line = Line(settings(starttls=True), tls=object()).say(EHLO, b"STARTTLS")
        line.lose()
        self.assertIn("TLS handshake failed", self.named("connection")[0]["reason"])

    def test_a_handshake_of_implicit_tls_that_does_not_come_is_told_in_the_log(self) -> None:
        line = Line(settings(), wire=SecureWire())
        line.clock.advance(30)
        self.assertTrue(line.wire.aborted)
        line.lose()
        self.assertEqual(self.named("connection")[0]["reason"], "TLS handshake took over 30 s")


class StockTests(SynchronousTestCase):
    """twisted.mail's classes are our base, and not one byte is read by their code."""

    def test_they_are_subclasses(self) -> None:
        self.assertTrue(issubclass(ESMTPServer, stock.ESMTP))
        self.assertTrue(issubclass(ESMTPServerFactory, stock.SMTPFactory))

    def test_no_inherited_wire_method_is_ever_called(self) -> None:
        def forbidden(name: str) -> Any:
            def method(self: Any, *args: Any, **named: Any) -> None:
                raise AssertionError(f"{name} of twisted.mail was called")

            return method

        wire_methods = [
            name
            for base in (stock.ESMTP, stock.SMTP, *stock.SMTP.__mro__[1:-1])
            for name in vars(base)
            if name.startswith(("do_", "ext_", "state_", "line", "raw", "send", "data", "_cb", "_eb", "_message"))
            or name in ("greeting", "extensions", "listExtensions", "lookupMethod", "setLineMode", "setRawMode",
                        "clearLineBuffer", "_disconnect", "connectionMade", "connectionLost", "timeoutConnection")
        ]  # fmt: skip
        own = vars(ESMTPServer)
        body = {name: forbidden(name) for name in wire_methods if name not in own}
        self.assertGreater(len(body), 25)
        guarded = type("Guarded", (ESMTPServer,), body)
        line = Line(
            settings(insecure_auth=True, mechanisms=MECHANISMS, starttls=True),
            checkers=(password_checker(),),
            protocol=guarded,
            tls=object(),
        )
        line.say(b"NOOP", EHLO, WRONG, LOGIN, MAIL, RCPT, b"x" * 20_000, DATA)
        line.say(b"x" * 20_000, b"..", b".", b"VRFY x", b"RSET", b"FOO", b"STARTTLS")
        line.server.handshakeCompleted()
        line.say(EHLO, b"QUIT")
        line.clock.advance(1000)
        line.lose()
        self.assertEqual(line.codes, "220 250 250 535 235 250 250 500 354 250 252 250 500 220 250 221")

    def test_every_wire_method_of_the_transport_is_ours(self) -> None:
        for name in ("connectionMade", "dataReceived", "connectionLost", "timeoutConnection"):
            self.assertIn(name, vars(ESMTPServer))

    def test_the_session_has_no_back_door(self) -> None:
        self.assertFalse(issubclass(SMTPSession, stock.SMTP))
