"""What a connection adds to the counters: connections, messages, recipients, refusals, logins."""

from __future__ import annotations

import dataclasses
from typing import Any, cast

from twisted.logger import Logger
from twisted.trial.unittest import SynchronousTestCase

from mailserver import reply as replies
from mailserver.counters import Counters
from mailserver.limits import Limits
from mailserver.policy.clients import ClientLimits
from mailserver.reply import MAILBOX_FULL, OK, RELAYING_DENIED, Refusal, Reply
from mailserver.smtp import events
from mailserver.smtp.record import ConnectionLog
from mailserver.smtp.session import SMTPSession
from tests.smtp.driver import MECHANISMS, settings
from tests.smtp.test_record import DONE, ENVELOPE, RecordCase, recipients
from tests.smtp.test_server import DATA, EHLO, LOGIN, MAIL, RCPT, WRONG, password_checker
from tests.smtp.wire import Line


class CountersCase(RecordCase):
    def setUp(self) -> None:
        super().setUp()
        self.counters = Counters(lambda: 0.0)
        self.record = ConnectionLog(
            Logger(namespace="mailserver.smtp", observer=self.told.append),  # type: ignore[arg-type]
            "c1",
            cast("SMTPSession", self.session),
            self.clock,
            self.counters,
        )

    def told_numbers(self, *path: str) -> Any:
        found: Any = self.counters.snapshot()
        for key in path:
            found = found[key]
        return found


class ConnectionTests(CountersCase):
    def test_a_connection_comes_and_goes(self) -> None:
        self.record.begun()
        self.assertEqual(self.told_numbers("connections", "now"), 1)
        self.record.over(DONE, in_handshake=False)
        told = self.told_numbers("connections")
        self.assertEqual((told["now"], told["most"], told["total"], told["turned_away"]), (0, 1, 1, 0))

    def test_one_that_was_turned_away_never_was_there(self) -> None:
        self.record.answered(events.Connected(), replies.TOO_MANY_CONNECTIONS)
        self.record.over(DONE, in_handshake=False)
        told = self.told_numbers("connections")
        self.assertEqual((told["now"], told["total"], told["turned_away"]), (0, 0, 1))
        self.assertEqual(self.told_numbers("refusals"), {"421 4.3.2": 1})

    def test_logins(self) -> None:
        self.record.logged_in()
        self.record.login_failed("joe", "PLAIN")
        self.record.login_failed("joe", "PLAIN")
        self.assertEqual(self.told_numbers("auth"), {"succeeded": 1, "failed": 2})

    def test_a_login_that_is_no_longer_tried_is_told_in_the_log(self) -> None:
        for question in (events.Lookup("joe"), events.Login("PLAIN", cast("Any", None))):
            self.record.answered(question, replies.TOO_MANY_AUTH_FAILURES)
            self.record.answered(question, replies.BAD_CREDENTIALS)  # `login_failed` has told it
            self.record.answered(question, None)
        self.record.over(DONE, in_handshake=False)
        self.assertEqual(self.told_fields()["refusals"], [f"login: {replies.TOO_MANY_AUTH_FAILURES}"] * 2)


class MessageTests(CountersCase):
    def end(self, answer: Any, count: int = 2) -> tuple[dict[str, Any], dict[str, Any], dict[str, int]]:
        """The counts of messages, recipients and refusals behind the end of a message."""
        names = [f"r{number}" for number in range(count)]
        envelope = dataclasses.replace(ENVELOPE, recipients=recipients(*names))
        self.record.answered(events.EndOfText(envelope, 100), answer)
        told = self.counters.snapshot()
        return told["messages"], told["recipients"], told["refusals"]

    def test_a_message_that_was_taken(self) -> None:
        for answer in (None, OK, (OK, OK)):
            self.setUp()
            messages, counted, refusals = self.end(answer)
            self.assertEqual((messages["accepted"], messages["refused"], messages["octets"]), (1, 0, 100))
            self.assertEqual((counted, refusals), ({"accepted": 2, "refused": 0}, {}))

    def test_a_message_that_was_refused(self) -> None:
        for answer in (MAILBOX_FULL, (MAILBOX_FULL, MAILBOX_FULL)):
            self.setUp()
            messages, counted, refusals = self.end(answer)
            self.assertEqual((messages["accepted"], messages["refused"], messages["octets"]), (0, 1, 0))
            self.assertEqual((counted["accepted"], refusals), (0, {"452 4.2.2": 1}))

    def test_a_message_that_some_have_got(self) -> None:
        messages, counted, refusals = self.end((OK, MAILBOX_FULL, RELAYING_DENIED), 3)
        self.assertEqual((messages["accepted"], messages["refused"], messages["octets"]), (1, 0, 100))
        self.assertEqual(counted, {"accepted": 1, "refused": 2})
        self.assertEqual(refusals, {"452 4.2.2": 1, "550 5.7.1": 1})

    def test_the_log_has_every_reply_and_the_worst_one(self) -> None:
        self.end((OK, MAILBOX_FULL, RELAYING_DENIED), 3)
        told = self.told_fields()
        self.assertEqual(told["replies"], [str(OK), str(MAILBOX_FULL), str(RELAYING_DENIED)])
        self.assertEqual(told["reply"], str(RELAYING_DENIED))

    def test_what_is_refused_before_its_text(self) -> None:
        self.record.answered(events.Mail(ENVELOPE), replies.SENDING_TOO_FAST)
        self.record.answered(events.Data(ENVELOPE), replies.DISK_FULL)
        self.record.answered(events.Rcpt(ENVELOPE, ENVELOPE.recipients[0]), Reply(550, "5.1.1", "joe is nobody"))
        told = self.counters.snapshot()
        self.assertEqual(told["messages"]["refused"], 2)
        self.assertEqual(told["recipients"]["refused"], 1)
        # By their codes: their words hold names, and there is no end to names.
        self.assertEqual(told["refusals"], {"421 4.7.0": 1, "452 4.3.1": 1, "550 5.1.1": 1})

    def test_a_message_that_failed_is_counted_once(self) -> None:
        self.session.text_failed = True
        self.record.answered(events.EndOfText(ENVELOPE, 5), None)
        self.record.message_refused(events.MessageRefused(ENVELOPE, 5, replies.MESSAGE_TOO_BIG))
        self.assertEqual(self.told_numbers("messages", "refused"), 1)


class ServerTests(SynchronousTestCase):
    """The same through the server."""

    def test_all_that_happens_is_counted(self) -> None:
        counters = Counters(lambda: 0.0)
        admission = ClientLimits(Limits(auth_failure_delay=0.0), lambda: 0.0, lambda: 0.5)
        given = settings(listener="in", insecure_auth=True, mechanisms=MECHANISMS)
        line = Line(given, checkers=(password_checker(),), counters=counters, admission=admission)
        line.say(EHLO, WRONG)
        line.clock.advance(1)
        line.say(LOGIN, MAIL, RCPT, DATA).say(b"hi", b".")
        line.steps["rcpt"] = Refusal(replies.UNKNOWN_USER)
        line.say(MAIL, RCPT, b"RSET")
        told = counters.snapshot()
        self.assertEqual(told["connections"]["now"], 1)
        line.lose()
        told = counters.snapshot()
        self.assertEqual((told["connections"]["now"], told["connections"]["total"]), (0, 1))
        self.assertEqual(told["messages"], {"accepted": 1, "refused": 0, "octets": 4})
        self.assertEqual(told["recipients"], {"accepted": 1, "refused": 1})
        self.assertEqual(told["auth"], {"succeeded": 1, "failed": 1})
        self.assertEqual(told["listeners"]["in"]["accepted"], 1)
        self.assertEqual(told["clients"]["by_connections"][0]["client"], "192.0.2.1")

    def test_who_was_let_in_and_then_refused_is_gone_afterwards(self) -> None:
        counters = Counters(lambda: 0.0)
        line = Line(settings(banner_delay=1.0), counters=counters)
        line.say(EHLO)
        line.clock.advance(1)
        line.lose()
        told = counters.snapshot()["connections"]
        self.assertEqual((told["now"], told["total"], told["turned_away"]), (0, 1, 1))
