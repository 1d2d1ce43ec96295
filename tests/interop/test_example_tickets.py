"""The example of tickets (examples/tickets.py), with a real client and a second server for what it sends."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from mailserver.apps.loading import AppError
from tests.interop.app_wire import AppTestCase, Sent, example, smarthost, submit

MAIL = (
    "From: Me <me@example.net>\r\nTo: tickets@example.org\r\nMessage-ID: <1@example.net>\r\nSubject: {}\r\n\r\n{}\r\n"
)


class TicketsTests(AppTestCase):
    def setUp(self) -> None:
        self.tickets = example("tickets.py:Tickets")
        folder = self.folder()
        (folder / "secret").write_text("correct-horse-battery-staple\n")
        app, self.sent = smarthost()
        self.database = folder / "tickets.sqlite"
        options = {
            "secret_file": folder / "secret",
            "database": self.database,
            "smarthost": f"127.0.0.1:{self.serve(app).ports[0]}",
        }
        match = {"recipients": ["tickets@example.org", "tickets+*@example.org"]}
        self.port = self.serve(self.tickets, options=options, match=match, threaded=True).ports[0]

    async def submit(self, recipient: str, message: str, sender: str = "me@example.net") -> str:
        return str(await self.in_thread(submit, self.port, recipient, message, sender))

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.database)) as database:
            return database.execute(query).fetchall()

    async def test_a_mail_opens_a_ticket_and_its_answer_is_attached(self) -> None:
        said = await self.submit("tickets@example.org", MAIL.format("=?utf-8?q?Stra=C3=9Fe?=", "It is broken."))
        self.assertEqual(said, "250 2.0.0 This is ticket 1")
        (confirmation,) = self.sent
        self.assertEqual((confirmation.sender, confirmation.recipients), ("", ["me@example.net"]))
        self.assertEqual(confirmation["Subject"], "[1] Re: Straße")
        self.assertEqual(confirmation["In-Reply-To"], "<1@example.net>")
        self.assertEqual(confirmation["Auto-Submitted"], "auto-replied")
        address = confirmation["Reply-To"]
        self.assertRegex(address, r"\Atickets\+1\.[0-9a-f]{24}@example\.org\Z")
        answer = MAIL.format("Re: [1]", "It works again.").replace("<1@", "<2@")
        self.assertEqual(await self.submit(address.upper(), answer), "250 2.0.0 Added to ticket 1")
        self.assertEqual(self.rows("SELECT id, customer, subject FROM ticket"), [(1, "me@example.net", "Straße")])
        self.assertEqual(
            self.rows("SELECT ticket, sender, text FROM message ORDER BY at"),
            [(1, "me@example.net", "It is broken.\n"), (1, "me@example.net", "It works again.\n")],
        )
        self.assertEqual(len(self.sent), 1)

    async def test_a_token_that_is_not_ours_is_refused_at_rcpt(self) -> None:
        await self.submit("tickets@example.org", MAIL.format("a", "b"))
        token = self.sent[0]["Reply-To"].partition(".")[2].partition("@")[0]
        for detail in (f"2.{token}", f"1.{token[:-1]}", f"1.{'0' * 24}", "1", token, f"x.{token}"):
            said = await self.submit(f"tickets+{detail}@example.org", MAIL.format("a", "b"))
            self.assertEqual(said, "550 5.1.1 There is no such ticket", detail)
        self.assertEqual(len(self.rows("SELECT * FROM message")), 1)

    async def test_a_message_that_comes_twice_opens_one_ticket(self) -> None:
        for _ in range(2):
            self.assertEqual(
                await self.submit("tickets@example.org", MAIL.format("a", "b")), "250 2.0.0 This is ticket 1"
            )
        self.assertEqual((len(self.rows("SELECT * FROM ticket")), len(self.sent)), (1, 1))

    async def test_programs_open_no_tickets_and_are_not_answered(self) -> None:
        for field, sender in (
            ("Auto-Submitted: auto-replied", "me@example.net"),
            ("Precedence: bulk", "me@example.net"),
            ("List-Id: <a.example.net>", "me@example.net"),
            ("X-Nothing: x", ""),
        ):
            message = f"{field}\r\n" + MAIL.format("a", "b")
            said = await self.submit("tickets@example.org", message, sender)
            self.assertEqual(said, "250 2.0.0 No ticket for automatic mail", field)
        self.assertEqual((self.rows("SELECT * FROM ticket"), self.sent), ([], []))

    async def test_the_confirmation_goes_to_the_sender_and_not_where_the_header_would_like_it(self) -> None:
        message = "Reply-To: victim@example.com\r\n" + MAIL.format("a", "b")
        await self.submit("tickets@example.org", message)
        confirmation: Sent = self.sent[0]
        self.assertEqual((confirmation.recipients, confirmation["To"]), (["me@example.net"], "me@example.net"))

    async def test_a_ticket_is_kept_although_the_smarthost_is_away(self) -> None:
        folder = self.database.parent
        options = {"secret_file": folder / "secret", "database": self.database, "smarthost": "127.0.0.1:1"}
        port = self.serve(self.tickets, options=options, threaded=True).ports[0]
        said = await self.in_thread(submit, port, "tickets@example.org", MAIL.format("a", "b"))
        self.assertEqual(said, "250 2.0.0 This is ticket 1")
        self.assertEqual(len(self.rows("SELECT * FROM message")), 1)

    def test_a_secret_that_can_be_guessed_is_refused(self) -> None:
        path = Path(self.mktemp()).absolute()
        path.write_text("short\n")
        error = self.assertRaises(AppError, self.serve, self.tickets, options={"secret_file": path})
        self.assertIn("must hold a secret of at least 20 characters", str(error))
        self.assertNotIn("short\n", str(error))
        self.assertRaises(ValidationError, self.tickets.Options, secret_file=path)
