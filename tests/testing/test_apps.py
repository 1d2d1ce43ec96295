"""Apps under test, in a test server."""

from __future__ import annotations

import smtplib
from typing import Any

from twisted.internet.threads import deferToThread

from mailserver.apps.app import App
from mailserver.apps.installed import AppSettings
from mailserver.apps.matching import Match
from mailserver.testing.trial import MailServerTestCase
from tests.testing.clients import send


class Tickets(App):
    """Takes mail for tickets that exist."""

    log_of_calls: list[Any] = []
    verbs = ("XTICKET",)

    @classmethod
    def teardown(cls, shared: Any) -> None:
        cls.log_of_calls.append("closed")

    def rcpt(self, recipient: Any, parameters: Any) -> None:
        if recipient.detail != "1":
            self.refuse(550, "5.1.1", "no such ticket")

    async def message(self, envelope: Any, message: Any) -> str:
        self.log_of_calls.append(message.path.parent)  # a large one, or one that is asked for: in a folder of its own
        return "taken"

    def command(self, verb: str, argument: str) -> str:
        return "here"


class Threaded(App):
    """Looks at each sender in a thread."""

    def mail(self, sender: Any, parameters: Any) -> None:
        import threading

        Tickets.log_of_calls.append(threading.current_thread().name)


class AppsTests(MailServerTestCase):
    timeout = 60

    def setUp(self) -> Any:
        Tickets.log_of_calls = []
        self.mailserver_options = {
            "apps": [
                AppSettings("threaded", Threaded, threaded=True),
                AppSettings("tickets", Tickets, match=Match(recipients=("tickets+*@example.org",))),
            ]
        }
        return super().setUp()

    async def test_what_apps_take_comes_to_no_inbox(self) -> None:
        refused = await deferToThread(
            send, self.mailserver, "tickets+1@example.org", "tickets+2@example.org", "b@example.org"
        )
        self.assertEqual(list(refused), ["tickets+2@example.org"])
        self.assertEqual([each.recipients for each in self.mailserver.messages], [("b@example.org",)])
        thread, folder = Tickets.log_of_calls
        self.assertIn("apps", thread)
        self.assertTrue(folder.exists())
        await self.mailserver.stop()
        self.assertFalse(folder.exists())
        self.assertEqual(Tickets.log_of_calls[-1], "closed")

    async def test_faults_come_first(self) -> None:
        self.mailserver.fail_rcpt("tickets+1@example.org", 452)
        error = await self.assertFailure(
            deferToThread(send, self.mailserver, "tickets+1@example.org"), smtplib.SMTPRecipientsRefused
        )
        self.assertEqual(error.recipients["tickets+1@example.org"][0], 452)

    async def test_its_own_commands_work(self) -> None:
        def talk() -> tuple[int, bytes]:
            with smtplib.SMTP(self.mailserver.host, self.mailserver.port) as client:
                client.ehlo()
                return client.docmd("XTICKET")

        self.assertEqual(await deferToThread(talk), (250, b"here"))
