"""The example of an anonymous group (examples/group_list.py): who writes, who gets it, and what nobody learns."""

from __future__ import annotations

import sys
import urllib.error
import urllib.request
from typing import Any

from twisted.internet.defer import Deferred

import mailserver
from tests.interop.app_wire import PATIENCE, AppTestCase, Sent, example, reactor, smarthost, submit

MAIL = """\
Received: from secret-host.example.net ([192.0.2.7])\r
From: Ada Lovelace <ada@example.net>\r
Sender: ada@example.net\r
Reply-To: ada@example.net\r
To: {to}\r
Message-ID: <{id}@ada-laptop.example.net>\r
X-Originating-IP: 192.0.2.7\r
Subject: {subject}\r
MIME-Version: 1.0\r
Content-Type: multipart/mixed; boundary=b\r
\r
--b\r
Content-Type: text/plain; charset=utf-8\r
\r
{text}\r
--b\r
Content-Type: text/x-vcard; name="ada.vcf"\r
Content-Disposition: attachment; filename="ada.vcf"\r
\r
EMAIL:ada@example.net\r
--b--\r
"""
SECRET = "correct-horse-battery-staple"


class GroupListTests(AppTestCase):
    def setUp(self) -> None:
        self.example = example("group_list.py:GroupList")
        self.module = sys.modules[self.example.__module__]
        self.folder_ = self.folder()
        (self.folder_ / "secret").write_text(SECRET)
        app, self.sent = smarthost()
        self.smarthost = self.serve(app)
        self.lists = self.module.Lists(self.options())
        self.ada, self.bob, self.eve = (
            self.lists.add("course", nick, address)
            for nick, address in (("Ada", "ada@example.net"), ("Bob", "bob@example.com"), ("Eve", "eve@example.org"))
        )
        self.other = self.lists.add("other", "Bob", "bob@example.com")

    def options(self, port: int | None = None) -> Any:
        return self.module.Options(
            secret_file=self.folder_ / "secret",
            database=self.folder_ / "lists.sqlite",
            smarthost=f"127.0.0.1:{self.smarthost.ports[0] if port is None else port}",
            web="127.0.0.1:0",
            base_url="https://lists.example.org",
        )

    def start(self, port: int | None = None) -> None:
        """Run the list; `running` is what its connections share."""
        example, ready = self.example, Deferred()

        class GroupList(example):
            @classmethod
            def setup(cls, options: Any) -> Any:
                self.running = super().setup(options)
                reactor.callLater(0, ready.callback, None)
                return self.running

        match = {"recipients": ["*@lists.example.org"]}
        self.port = self.serve(GroupList, options=self.options(port), match=match).ports[0]

    async def submit(self, to: str, text: str = "Hello all", sender: str = "ada@example.net", **more: str) -> str:
        message = MAIL.format(**{"to": to, "id": "1", "subject": "A question", "text": text, **more})
        return str(await self.in_thread(submit, self.port, to, message, sender))

    async def copies(self) -> dict[str, Sent]:
        """Recipient -> its last copy, when all are sent."""
        while self.running.is_busy:
            pause: Deferred[None] = Deferred()
            reactor.callLater(0.01, pause.callback, None)
            await pause
        return {copy.recipients[0]: copy for copy in self.sent}

    async def test_all_others_get_a_copy_that_tells_no_address(self) -> None:
        self.start()
        self.assertEqual(await self.submit(self.ada), "250 2.0.0 2 copies")
        copies = await self.copies()
        self.assertEqual(sorted(copies), ["bob@example.com", "eve@example.org"])
        for address, own in (("bob@example.com", self.bob), ("eve@example.org", self.eve)):
            copy = copies[address]
            self.assertEqual(copy["From"], f'"Ada (course)" <{own}>')
            self.assertEqual((copy.sender, copy["To"], copy["Subject"]), (own, address, "A question"))
            self.assertTrue(copy.text.startswith("From: Ada\n\nHello all\n"), copy.text)
            self.assertIn("[What is no plain text was left out: 1]", copy.text)
            raw = copy.raw.replace(address.encode(), b"").replace(own.encode(), b"")
            for leak in (b"ada@", b"bob@", b"eve@", b"ada-laptop", b"secret-host", b"192.0.2.7", b"Lovelace", b"vcf"):
                self.assertNotIn(leak, raw)
            for name in ("Reply-To", "Sender", "Received", "References", "In-Reply-To", "X-Originating-IP"):
                self.assertEqual(copy[name], "", name)

    async def test_an_answer_says_by_itself_who_has_written_it_and_threads_are_kept(self) -> None:
        self.start()
        await self.submit(self.ada)
        copy = (await self.copies())["bob@example.com"]
        to = self.module.re.search(r"<(.*)>", copy["From"])[1]
        link = copy["List-Unsubscribe"].strip("<>")
        wrote = f"On Monday Ada (course) <{self.bob.upper()}> wrote to bob@example.com:"
        quoted = f"Yes.\r\n\r\n{wrote}\r\n> Hello all\r\n> Leave the group: {link}"
        thread = f"2@bob.example.com>\r\nIn-Reply-To: {copy['Message-ID']}\r\nX-Rest: <x"
        said = await self.submit(to, quoted, "bob@example.com", id=thread)
        self.assertEqual(said, "250 2.0.0 2 copies")
        first = {copy.recipients[0]: copy["Message-ID"] for copy in self.sent[:2]}
        await self.copies()
        answers = self.sent[2:]
        self.assertEqual(sorted(each.recipients[0] for each in answers), ["ada@example.net", "eve@example.org"])
        for answer in answers:
            self.assertTrue(answer["From"].startswith('"Bob (course)"'))
            # The address that a copy came from is the key to write as its member: a quote must not give it away.
            self.assertNotIn(self.bob.encode(), answer.raw.lower())
            self.assertNotIn(b"bob@example.com", answer.raw)
            self.assertNotIn(link.encode(), answer.raw)
            self.assertIn("<COURSE> wrote to Bob:\n> Hello all\n> Leave the group: ...\n", answer.text)
            if answer.recipients == ["eve@example.org"]:
                self.assertEqual(answer["In-Reply-To"], first["eve@example.org"])

    async def test_who_has_no_token_is_refused_at_rcpt(self) -> None:
        self.start()
        number, _, token = self.ada.partition("+")[2].partition("@")[0].partition(".")
        leave = self.lists.link_of(self.lists.member("post", f"{number}.{token}")).rpartition(".")[2]
        other = self.other.partition(".")[2].partition("@")[0]
        for local in (
            "course",
            "course+",
            f"course+{number}",
            f"course+{number}.{'0' * 24}",
            f"course+{int(number) + 1}.{token}",
            f"course+{number}.{leave}",
            f"course+4.{other}",
            f"other+{number}.{token}",
            "nobody",
        ):
            self.assertEqual(
                await self.submit(f"{local}@lists.example.org"), "550 5.1.1 There is no such member", local
            )
        self.assertEqual(self.sent, [])
        self.assertEqual((await self.submit(self.ada.upper()))[:3], "250")

    async def test_a_post_that_comes_twice_goes_out_once_and_programs_are_not_heard(self) -> None:
        self.start()
        self.assertEqual(await self.submit(self.ada), "250 2.0.0 2 copies")
        self.assertEqual(await self.submit(self.ada), "250 2.0.0 0 copies")
        said = await self.submit(self.ada, id="2", subject="Away\r\nAuto-Submitted: auto-replied")
        self.assertEqual(said, "250 2.0.0 0 copies")
        await self.copies()
        self.assertEqual(len(self.sent), 2)

    async def test_what_cannot_be_sent_now_is_sent_later(self) -> None:
        self.start(1)
        self.assertEqual(await self.submit(self.ada), "250 2.0.0 2 copies")
        self.assertEqual(await self.copies(), {})
        self.assertEqual(await self.in_thread(self.lists.send_all), 2)
        self.assertEqual(await self.in_thread(self.lists.send_all), 0)
        self.assertEqual(len(self.sent), 2)

    async def test_who_cannot_be_reached_for_long_is_no_member_any_more(self) -> None:
        self.start()
        for _ in range(5):
            self.assertEqual((await self.submit(self.bob, sender=""))[:3], "250")
        self.assertEqual(await self.submit(self.bob), "550 5.1.1 There is no such member")
        self.assertEqual(await self.copies(), {})

    async def test_one_click_leaves_and_a_look_does_not(self) -> None:
        self.start()
        await self.submit(self.ada)
        copy = (await self.copies())["bob@example.com"]
        self.assertEqual(copy["List-Unsubscribe-Post"], "List-Unsubscribe=One-Click")
        self.assertEqual(copy["List-Id"], "<course.lists.example.org>")
        link = copy["List-Unsubscribe"].strip("<>")
        self.assertTrue(link.startswith("https://lists.example.org/leave/"))
        here = link.replace("https://lists.example.org", f"http://127.0.0.1:{self.running.port.getHost().port}")
        self.assertEqual(await self.in_thread(ask, here, None), 200)
        self.assertEqual((await self.submit(self.bob, id="2"))[:3], "250")
        self.assertEqual(await self.in_thread(ask, here[:-1], b"List-Unsubscribe=One-Click"), 404)
        self.assertEqual(await self.in_thread(ask, here + "/x", b"List-Unsubscribe=One-Click"), 404)
        self.assertEqual((await self.submit(self.bob, id="3"))[:3], "250")
        self.assertEqual(await self.in_thread(ask, here, b"List-Unsubscribe=One-Click"), 200)
        self.assertEqual(await self.in_thread(ask, here, b"List-Unsubscribe=One-Click"), 404)
        self.assertEqual(await self.submit(self.bob, id="4"), "550 5.1.1 There is no such member")
        self.assertEqual(await self.submit(self.ada, id="5"), "250 2.0.0 1 copies")
        self.assertEqual((await self.submit(self.other, id="6"))[:3], "250")  # one group at a time

    def test_names_of_groups_and_addresses_are_checked(self) -> None:
        self.assertRaises(ValueError, self.lists.add, "a+b", "Eve", "eve@example.org")
        self.assertRaises(mailserver.address.AddressError, self.lists.add, "course", "Eve", "nobody")
        (self.folder_ / "secret").write_text("short")
        self.assertRaises(ValueError, self.module.Lists, self.options())


def ask(url: str, body: bytes | None) -> int:
    """GET, or POST with a body; the status."""
    try:
        with urllib.request.urlopen(url, body, PATIENCE) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code
