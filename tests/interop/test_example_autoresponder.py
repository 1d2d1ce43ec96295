"""The example of an auto-responder (examples/autoresponder.py): whom it answers, and whom it must not (RFC 3834)."""

from __future__ import annotations

from typing import Any

import mailserver
from tests.interop.app_wire import AppTestCase, example, smarthost, submit

MAIL = (
    "From: Me <me@example.net>\r\nTo: you@example.org\r\nMessage-ID: <1@example.net>\r\nSubject: Re: lunch\r\n"
    "\r\nToday?\r\n"
)


class Mailbox(mailserver.App):
    """Stands for the account behind the auto-responder."""

    got: list[str]

    def message(self, envelope: Any, message: Any) -> None:
        self.got.append(str(envelope.sender or ""))


class AutoresponderTests(AppTestCase):
    def setUp(self) -> None:
        app, self.sent = smarthost()
        self.got = Mailbox.got = []
        self.options: dict[str, Any] = {
            "addresses": ["you@example.org", "yours@example.org"],
            "text": "I am away until Monday.",
            "database": self.folder() / "away.sqlite",
            "smarthost": f"127.0.0.1:{self.serve(app).ports[0]}",
        }
        self.port = self.started_anew()

    def started_anew(self, **options: Any) -> int:
        """A server with the responder in front of the mailbox; its port."""
        from mailserver.apps.installed import AppSettings
        from mailserver.apps.loading import options_of

        cls = example("autoresponder.py:Autoresponder")
        responder = AppSettings("away", cls, options_of(cls, self.options | options), threaded=True)
        return self.serve([responder, Mailbox]).ports[0]

    async def submit(self, message: str = MAIL, sender: str = "me@example.net", to: str = "you@example.org") -> None:
        said = await self.in_thread(submit, self.port, to, message, sender)
        self.assertEqual(said[:3], "250")

    async def test_a_person_is_answered_and_the_mail_goes_on(self) -> None:
        await self.submit()
        (answer,) = self.sent
        self.assertEqual(self.got, ["me@example.net"])
        self.assertEqual((answer.sender, answer.recipients), ("", ["me@example.net"]))
        self.assertEqual(
            [answer[name] for name in ("From", "To", "Subject", "Auto-Submitted", "In-Reply-To", "References")],
            [
                "you@example.org",
                "me@example.net",
                "Auto: lunch",
                "auto-replied",
                "<1@example.net>",
                "<1@example.net>",
            ],
        )
        self.assertEqual(answer.text, "I am away until Monday.\n")

    async def test_nobody_is_answered_twice_a_day_also_behind_a_restart(self) -> None:
        await self.submit()
        await self.submit(sender="ME@EXAMPLE.NET")
        self.port = self.started_anew()
        await self.submit()
        self.assertEqual((len(self.got), len(self.sent)), (3, 1))
        await self.submit(sender="other@example.net")
        self.assertEqual(len(self.sent), 2)

    async def test_when_the_day_is_over_there_is_an_answer_again(self) -> None:
        self.port = self.started_anew(wait=0)
        await self.submit()
        await self.submit()
        self.assertEqual(len(self.sent), 2)

    async def test_programs_and_lists_are_never_answered(self) -> None:
        for field in (
            "Auto-Submitted: auto-generated",
            "Auto-Submitted: auto-replied (vacation)",
            "Precedence: list",
            "Precedence: BULK",
            "List-Id: <a.example.net>",
            "List-Unsubscribe: <mailto:a@example.net>",
            "X-Auto-Response-Suppress: All",
        ):
            await self.submit(f"{field}\r\n{MAIL}")
            self.assertEqual(self.sent, [], field)
        for sender in (
            "",
            "owner-list@example.net",
            "list-request@example.net",
            "MAILER-DAEMON@example.net",
            "noreply@example.net",
        ):
            await self.submit(sender=sender)
            self.assertEqual(self.sent, [], sender)
        await self.submit(f"Auto-Submitted: no\r\n{MAIL}")
        self.assertEqual(len(self.sent), 1)

    async def test_mail_that_does_not_name_us_is_not_answered(self) -> None:
        await self.submit(MAIL.replace("To: you@", "To: everybody@"))
        await self.submit(to="else@example.org")
        await self.submit(sender="yours@example.org")
        self.assertEqual((self.sent, len(self.got)), ([], 3))
        await self.submit(MAIL.replace("To: you@", "Cc: x@example.com, YOU@"))
        self.assertEqual(len(self.sent), 1)

    async def test_the_answer_goes_to_the_envelope_s_sender(self) -> None:
        await self.submit("Reply-To: victim@example.com\r\n" + MAIL.replace("Me <me@", "Victim <victim@"))
        self.assertEqual((self.sent[0].recipients, self.sent[0]["To"]), (["me@example.net"], "me@example.net"))

    async def test_mail_is_taken_although_the_smarthost_is_away(self) -> None:
        self.port = self.started_anew(smarthost="127.0.0.1:1")
        await self.submit()
        self.assertEqual((self.got, self.sent), (["me@example.net"], []))
