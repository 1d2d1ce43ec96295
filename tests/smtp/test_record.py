"""The log of a connection: one event for it, one for each message, and nothing that is secret."""

from __future__ import annotations

import dataclasses
import json
import time
from types import SimpleNamespace
from typing import Any, cast

from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.logger import Logger, LogLevel, formatEvent
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from mailserver import log_lines
from mailserver.address import parse_address
from mailserver.envelope import Envelope, Peer, Recipient, TLSInfo
from mailserver.reply import DISK_FULL, RELAYING_DENIED, UNKNOWN_USER, Reply
from mailserver.sasl import PlainLogin
from mailserver.smtp import events
from mailserver.smtp.record import RECIPIENTS_TOLD, REFUSALS_TOLD, ConnectionLog
from mailserver.smtp.session import SMTPSession

TLS = TLSInfo("TLSv1.3", "TLS_AES_256_GCM_SHA384", 256)
PEER = Peer("192.0.2.1", 1025, "client.example.com", TLS, "joe@example.org")
DONE = Failure(ConnectionDone())


def recipients(*names: str) -> tuple[Recipient, ...]:
    return tuple(Recipient(parse_address(f"{name}@example.org")) for name in names)


ENVELOPE = Envelope(
    "id7",
    parse_address("a@example.com"),
    recipients("ann", "bob"),
    peer=PEER,
    protocol="ESMTPSA",
    body="8BITMIME",
    listener="smtp-25",
)
#: What every event of the log has from Twisted.
TWISTED = {"log_logger", "log_level", "log_namespace", "log_source", "log_format", "log_time", "log_more", "log_to"}


class RecordCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1000.0)
        self.told: list[Any] = []
        self.session = SimpleNamespace(
            peer=PEER,
            messages=2,
            error_count=1,
            text_failed=False,
            settings=SimpleNamespace(listener="smtp-25"),
        )
        self.log = Logger(namespace="mailserver.smtp", observer=self.told.append)  # type: ignore[arg-type]
        self.record = ConnectionLog(
            self.log,
            "c1",
            cast("SMTPSession", self.session),
            self.clock,
        )

    def told_fields(self) -> dict[str, Any]:
        (event,) = self.told
        self.assertEqual(event["log_level"], LogLevel.info)
        return {key: value for key, value in event.items() if key not in TWISTED}

    def told_text(self) -> str:
        (event,) = self.told
        return formatEvent(event)


class MessageTests(RecordCase):
    def test_a_message_is_told_with_its_envelope_and_reply(self) -> None:
        self.record.answered(events.Mail(ENVELOPE), None)
        self.clock.advance(1.5)
        self.record.answered(events.EndOfText(ENVELOPE, 123), Reply(250, "2.0.0", "Ok: queued as id7"))
        expected = {
            "event": "message",
            "connection": "c1",
            "transaction": "id7",
            "listener": "smtp-25",
            "peer": "192.0.2.1",
            "helo": "client.example.com",
            "tls": "TLSv1.3 TLS_AES_256_GCM_SHA384",
            "user": "joe@example.org",
            "protocol": "ESMTPSA",
            "sender": "a@example.com",
            "recipients": ["ann@example.org", "bob@example.org"],
            "size": 123,
            "body": "8BITMIME",
            "smtputf8": False,
            "reply": "250 2.0.0 Ok: queued as id7",
            "replies": ["250 2.0.0 Ok: queued as id7"],
            "seconds": 1.5,
        }
        self.assertEqual(self.told_fields(), expected)
        self.assertEqual(
            self.told_text(),
            "message id7 on c1 from=<a@example.com> to=<ann@example.org>,<bob@example.org> size=123:"
            " 250 2.0.0 Ok: queued as id7; user=joe@example.org; tls=TLSv1.3 TLS_AES_256_GCM_SHA384",
        )

    def test_the_null_sender_and_a_plain_connection_are_empty_texts(self) -> None:
        envelope = dataclasses.replace(ENVELOPE, sender=None, peer=Peer("192.0.2.1"))
        self.record.answered(events.EndOfText(envelope, 1), None)
        told = self.told_fields()
        self.assertEqual((told["sender"], told["tls"], told["user"], told["reply"]), ("", "", "", "250 2.0.0 Ok"))
        self.assertIn("from=<> ", self.told_text())

    def test_up_to_10_recipients_stand_in_the_text_and_all_in_the_field(self) -> None:
        for count, end in [
            (1, "<r0@example.org> "),
            (9, "<r8@example.org> "),
            (10, "<r9@example.org> "),
            (11, "<r9@example.org> and 1 more "),
            (13, "<r9@example.org> and 3 more "),
        ]:
            self.told.clear()
            envelope = dataclasses.replace(ENVELOPE, recipients=recipients(*(f"r{n}" for n in range(count))))
            self.record.answered(events.EndOfText(envelope, 1), None)
            self.assertEqual(len(self.told_fields()["recipients"]), count)
            self.assertIn(end + "size=", self.told_text())
            self.assertEqual(self.told_text().count("@example.org"), min(count, RECIPIENTS_TOLD) + 1)

    def test_of_several_replies_the_worst_is_told_and_all_of_them(self) -> None:
        accepted = Reply(250, "2.0.0", "Ok: queued as id7")
        self.record.answered(events.EndOfText(ENVELOPE, 1), (accepted, DISK_FULL))
        told = self.told_fields()
        self.assertEqual((told["reply"], told["replies"]), (str(DISK_FULL), [str(accepted), str(DISK_FULL)]))

    def test_the_event_is_what_a_logger_makes(self) -> None:
        before = time.time()
        self.record.answered(events.EndOfText(ENVELOPE, 1), None)
        self.log.info("{x}", x=1)
        event, logged = self.told
        for key in ("log_logger", "log_level", "log_namespace", "log_source"):
            self.assertEqual(event[key], logged[key], key)
        self.assertTrue(before <= event["log_time"] <= logged["log_time"])

    def test_its_line_is_written_the_short_way(self) -> None:
        self.patch(log_lines, "formatEvent", lambda *_: self.fail("formatted by Twisted"))
        self.patch(log_lines, "_plain", lambda *_: self.fail("a value that is neither text nor number"))
        self.record.answered(events.EndOfText(ENVELOPE, 1), None)
        self.record.over(DONE, in_handshake=False)
        for event in self.told:
            line = json.loads(log_lines.json_line(event))
            self.assertEqual(line["user"], "joe@example.org")
            self.assertIn(line["text"].partition(" ")[2], log_lines.text_line(event))

    def test_a_message_that_could_not_begin_is_told(self) -> None:
        self.record.answered(events.Data(ENVELOPE), DISK_FULL)
        told = self.told_fields()
        self.assertEqual((told["event"], told["size"], told["reply"]), ("message", 0, str(DISK_FULL)))

    def test_a_message_that_failed_is_told_once(self) -> None:
        self.session.text_failed = True
        self.record.answered(events.EndOfText(ENVELOPE, 5), None)
        self.assertEqual(self.told, [])
        self.record.message_refused(events.MessageRefused(ENVELOPE, 5, DISK_FULL))
        self.assertEqual((self.told_fields()["size"], self.told_fields()["reply"]), (5, str(DISK_FULL)))

    def test_nothing_else_is_told_while_the_connection_lasts(self) -> None:
        for question, answer in [
            (events.Connected(), None),
            (events.Hello("client.example.com", True), None),
            (events.Mail(ENVELOPE), None),
            (events.Rcpt(ENVELOPE, ENVELOPE.recipients[0]), None),
            (events.Rcpt(ENVELOPE, ENVELOPE.recipients[0]), UNKNOWN_USER),
            (events.Data(ENVELOPE), object()),
        ]:
            self.record.answered(question, answer)
        self.record.reset()
        self.assertEqual(self.told, [])


class ConnectionTests(RecordCase):
    def test_a_connection_is_told_when_it_is_over(self) -> None:
        self.record.reason = "quit"
        self.clock.advance(2.25)
        self.record.over(DONE, in_handshake=False)
        expected = {
            "event": "connection",
            "connection": "c1",
            "listener": "smtp-25",
            "peer": "192.0.2.1",
            "port": 1025,
            "helo": "client.example.com",
            "tls": "TLSv1.3 TLS_AES_256_GCM_SHA384",
            "user": "joe@example.org",
            "messages": 2,
            "errors": 1,
            "refused": 0,
            "refusals": [],
            "login_failures": 0,
            "seconds": 2.25,
            "reason": "quit",
        }
        self.assertEqual(self.told_fields(), expected)
        self.assertEqual(
            self.told_text(),
            "connection c1 from 192.0.2.1 on smtp-25 closed: quit; 2 messages, 1 errors, 0 refusals, 2.25 s;"
            " user=joe@example.org; tls=TLSv1.3 TLS_AES_256_GCM_SHA384",
        )

    def test_refusals_are_told_word_by_word_up_to_5_and_counted(self) -> None:
        for count in (REFUSALS_TOLD - 1, REFUSALS_TOLD, REFUSALS_TOLD + 1):
            self.setUp()
            for _ in range(count):
                self.record.answered(events.Rcpt(ENVELOPE, ENVELOPE.recipients[0]), UNKNOWN_USER)
            self.record.over(DONE, in_handshake=False)
            told = self.told_fields()
            self.assertEqual((told["refused"], len(told["refusals"])), (count, min(count, REFUSALS_TOLD)))

    def test_each_kind_of_refusal_is_told_in_its_words(self) -> None:
        self.record.answered(events.Connected(), DISK_FULL)
        self.record.answered(events.Mail(ENVELOPE), DISK_FULL)
        self.record.answered(events.Mail(dataclasses.replace(ENVELOPE, sender=None)), DISK_FULL)
        self.record.answered(events.Rcpt(ENVELOPE, ENVELOPE.recipients[0]), RELAYING_DENIED)
        self.record.login_failed("joe", "PLAIN")
        self.record.over(DONE, in_handshake=False)
        told = self.told_fields()
        self.assertEqual(
            told["refusals"],
            [
                f"connection: {DISK_FULL}",
                f"sender <a@example.com>: {DISK_FULL}",
                f"sender <>: {DISK_FULL}",
                f"recipient <ann@example.org>: {RELAYING_DENIED}",
                "login PLAIN as joe: wrong credentials",
            ],
        )
        self.assertEqual((told["refused"], told["login_failures"]), (5, 1))

    def test_a_positive_answer_is_no_refusal(self) -> None:
        for question in (events.Connected(), events.Mail(ENVELOPE), events.Rcpt(ENVELOPE, ENVELOPE.recipients[0])):
            self.record.answered(question, Reply(250, "2.0.0", "Welcome"))
        self.record.over(DONE, in_handshake=False)
        self.assertEqual(self.told_fields()["refused"], 0)

    def test_the_reason_is_the_sessions_or_that_of_the_line(self) -> None:
        ssl = Failure(ValueError([("SSL routines", "", "wrong version number")]))
        for reason, failure, in_handshake, told in [
            ("", DONE, False, "connection lost"),
            ("quit", DONE, False, "quit"),
            ("timeout: TLS handshake", ssl, True, "timeout: TLS handshake"),
            ("", ssl, True, "TLS handshake failed: wrong version number"),
            ("", Failure(ValueError([])), True, "TLS handshake failed: []"),
            ("", Failure(ValueError()), True, "TLS handshake failed: ValueError"),
            ("", DONE, True, "TLS handshake failed: Connection was closed cleanly."),
        ]:
            self.setUp()
            self.record.reason = reason
            self.record.over(failure, in_handshake=in_handshake)
            self.assertEqual(self.told_fields()["reason"], told)


class SecretTests(RecordCase):
    def test_no_password_comes_into_the_log(self) -> None:
        login = events.Login("PLAIN", PlainLogin("joe", "SECRET"))
        for answer in (None, DISK_FULL, events.Identity("joe@example.org")):
            self.record.answered(login, answer)
        self.record.login_failed("joe", "PLAIN")
        self.record.answered(events.EndOfText(ENVELOPE, 5), None)
        self.record.over(DONE, in_handshake=False)
        self.assertEqual(len(self.told), 2)
        for event in self.told:
            self.assertNotIn("SECRET", repr(event) + formatEvent(event))
