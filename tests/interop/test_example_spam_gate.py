"""The example of a spam gate (examples/spam_gate.py), with an HTTP service of the test's own."""

from __future__ import annotations

import json
from typing import Any

from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site

import mailserver
from mailserver.apps.installed import AppSettings
from mailserver.apps.loading import options_of
from tests.interop.app_wire import AppTestCase, Sent, example, reactor, smarthost, submit

MAIL = "Subject: hello\r\nX-Spam-Flag: NO\r\nX-Spam-Score: -99\r\n\r\nIt works.\r\n"


class Service(Resource):
    """Says what the test wants to hear."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.status, self.answer = 200, b'{"score": 0}'
        self.asked: list[tuple[str, str, bytes]] = []

    def render_POST(self, request: Any) -> Any:
        headers = request.requestHeaders
        sender, kind = (headers.getRawHeaders(name)[0] for name in ("X-Sender", "Content-Type"))
        self.asked.append((kind, sender, request.content.read()))
        request.setResponseCode(self.status)
        return self.answer or NOT_DONE_YET


class SpamGateTests(AppTestCase):
    def setUp(self) -> None:
        self.service = Service()
        web = reactor.listenTCP(0, Site(self.service), interface="127.0.0.1")
        self.addCleanup(web.stopListening)
        self.url = f"http://127.0.0.1:{web.getHost().port}/check"
        self.port = self.started_anew()

    def started_anew(self, **options: Any) -> int:
        """A server with the gate in front of a mailbox; its port."""
        cls = example("spam_gate.py:SpamGate")
        gate = AppSettings("gate", cls, options_of(cls, {"url": self.url, "patience": 5, **options}))
        mailbox, self.got = smarthost()
        return self.serve([gate, mailbox]).ports[0]

    async def submit(self, message: str = MAIL) -> str:
        return str(await self.in_thread(submit, self.port, "you@example.org", message))

    def marks(self, mail: Sent) -> dict[str, list[str]]:
        headers = mail.mail.headers
        return {
            name: headers.get_all(name)
            for name in ("X-Spam-Score", "X-Spam-Flag", "X-Spam-Status")
            if name in headers
        }

    async def test_mail_is_marked_with_our_marks_alone(self) -> None:
        for score, marks in (
            (1.5, {"X-Spam-Score": ["1.5"]}),
            (5, {"X-Spam-Score": ["5"], "X-Spam-Flag": ["YES"]}),
        ):
            self.service.answer = json.dumps({"score": score}).encode()
            self.assertEqual((await self.submit())[:3], "250")
            self.assertEqual(self.marks(self.got[-1]), marks)
        self.assertEqual(self.service.asked[0], ("message/rfc822", "me@example.net", MAIL.encode()))
        self.assertTrue(self.got[-1].raw.endswith(b"Subject: hello\r\n\r\nIt works.\r\n"))

    async def test_spam_is_refused(self) -> None:
        self.service.answer = b'{"score": 10}'
        self.assertEqual(await self.submit(), "554 5.7.1 This looks like spam")
        self.assertEqual(self.got, [])

    async def test_a_large_message_is_shown_whole(self) -> None:
        message = MAIL + "0123456789\r\n" * 50_000
        self.assertEqual((await self.submit(message))[:3], "250")
        self.assertEqual(self.service.asked[0][2], message.encode())

    async def test_while_the_service_is_away_mail_goes_through_with_a_mark(self) -> None:
        for status, answer in ((500, b"{}"), (200, b"no JSON"), (200, b"{}"), (200, b"x" * 10_001)):
            self.service.status, self.service.answer = status, answer
            self.assertEqual((await self.submit())[:3], "250")
            self.assertEqual(self.marks(self.got[-1]), {"X-Spam-Status": ["unchecked"]}, answer[:9])
        self.port = self.started_anew(url="http://127.0.0.1:1/")
        self.assertEqual((await self.submit())[:3], "250")
        self.assertEqual(self.marks(self.got[-1]), {"X-Spam-Status": ["unchecked"]})

    async def test_a_service_that_never_answers_is_away_too(self) -> None:
        self.service.answer = b""
        self.port = self.started_anew(patience=0.2)
        self.assertEqual((await self.submit())[:3], "250")
        self.assertEqual(self.marks(self.got[-1]), {"X-Spam-Status": ["unchecked"]})

    async def test_who_would_rather_wait_refuses_for_a_while(self) -> None:
        self.port = self.started_anew(url="http://127.0.0.1:1/", when_away="refuse")
        self.assertEqual(await self.submit(), "451 4.7.1 Cannot be checked now, try again later")
        self.assertEqual(self.got, [])

    def test_what_is_no_url_is_told_when_the_app_is_loaded(self) -> None:
        cls = example("spam_gate.py:SpamGate")
        error = self.assertRaises(mailserver.apps.loading.AppError, options_of, cls, {"url": "nowhere"})
        self.assertEqual(error.key, "options.url")
