"""
The log that docs/logs.md promises: one event for each message and each connection, with these fields.
"""

from __future__ import annotations

import re

from tests.interop.clients import HELO, SENDER, Errand, log_in, session, smtplib_send
from tests.interop.running import PASSWORDS, STANDARD, ServerTestCase, await_true

ANNA = "anna@example.org"
TEXT = b"Subject: a secret word\r\n\r\nhello\r\n"
EVERY = {"time", "level", "source", "event", "text"}
MESSAGE = EVERY | {
    *("connection", "transaction", "listener", "peer", "helo", "user", "tls", "protocol"),
    *("sender", "recipients", "size", "body", "smtputf8", "reply", "replies", "seconds"),
}
CONNECTION = EVERY | {
    *("connection", "listener", "peer", "port", "helo", "tls", "user"),
    *("messages", "errors", "refused", "login_failures", "refusals", "seconds", "reason"),
}


class JSONTests(ServerTestCase):
    """Lines for programs."""

    def test_one_event_for_the_message_and_one_for_the_connection(self) -> None:
        server = self.serve()
        smtplib_send(Errand(server.address("smtps6"), TEXT, tls="implicit"), self.new_directory())
        (connection,) = server.await_events("connection")
        (message,) = server.events("message")
        self.assertEqual(set(message), MESSAGE)
        self.assertEqual(set(connection), CONNECTION)
        expected = {
            "listener": "smtps6",
            "peer": "::1",
            "helo": HELO,
            "user": "",
            "protocol": "ESMTPS",
            "sender": SENDER,
            "recipients": [ANNA],
            "size": len(TEXT),
            "body": "8BITMIME",
            "smtputf8": False,
            "level": "info",
        }
        self.assertEqual({key: message[key] for key in expected}, expected)
        self.assertRegex(message["tls"], r"\ATLSv1\.3 TLS_\w+\Z")
        self.assertRegex(message["time"], r"\A\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z\Z")
        self.assertEqual(message["connection"], connection["connection"])
        self.assertIn(f" id {message['transaction']}".encode(), server.files(ANNA)[0].read_bytes())
        self.assertTrue(message["reply"].startswith("250 2.0.0 "), message["reply"])
        counts = {"messages": 1, "errors": 0, "refused": 0, "login_failures": 0, "refusals": []}
        self.assertEqual({key: connection[key] for key in counts}, counts)
        self.assertNotIn("secret word", server.told())

    def test_what_was_refused_is_told(self) -> None:
        server = self.serve()
        with session(server.address("submission4"), "starttls") as client:
            client.docmd("AUTH", "PLAIN AGFubmFAZXhhbXBsZS5vcmcAd3Jvbmc=")
            log_in(client, "PLAIN", ANNA, PASSWORDS[ANNA])
            client.docmd(f"MAIL FROM:<{ANNA}>")
            client.docmd("RCPT TO:<nobody@example.org>")
            client.quit()
        (connection,) = server.await_events("connection")
        self.assertEqual((connection["user"], connection["login_failures"], connection["refused"]), (ANNA, 1, 2))
        self.assertEqual(connection["reason"], "quit")
        self.assertEqual(len(connection["refusals"]), 2)
        self.assertIn("nobody@example.org", connection["refusals"][1])
        self.assertIn("550 5.1.1", connection["refusals"][1])

    def test_every_line_is_an_event(self) -> None:
        server = self.serve()
        with session(server.address("smtp4")) as client:
            client.docmd('MAIL FROM:<"\\"{x}\\n"@example.net>')
            client.docmd("RCPT TO:<{0}@example.org>")
        server.await_events("connection")
        lines = server.log.read_text("utf-8").splitlines()
        self.assertEqual(len(server.events()), len(lines))
        for event in server.events():
            self.assertLessEqual(EVERY, set(event))


class TextTests(ServerTestCase):
    """Lines for people."""

    def test_one_line_for_the_message(self) -> None:
        config = STANDARD.replace('log_format = "json"', 'log_format = "text"')
        server = self.serve(config)
        address = re.search(r"listening: on 127\.0\.0\.1:(\d+): smtp4 ", server.told())
        assert address is not None
        smtplib_send(Errand(("127.0.0.1", int(address[1])), TEXT), self.new_directory())
        line = re.compile(
            r"(?m)^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d info message: \w+ on \w+ from=<sender@example\.net>"
            r" to=<anna@example\.org> size=\d+: 250 2\.0\.0 "
        )
        # It is written at the end of the turn of the reactor, which may be behind the reply.
        await_true(lambda: line.search(server.told()) is not None, "the line of the message", server.told)
