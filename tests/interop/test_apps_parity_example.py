"""
The example module of gen_smtp as an app: rows S140 to S142 of docs/gen_smtp.md.

Its option `relay` is no row here: there is no queue yet, see docs/gen_smtp.md.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel

import mailserver
from tests.interop.app_wire import CLEAR_AUTH, LMTP, MESSAGE, AppTestCase, Wire, b64


class ExampleOptions(BaseModel):
    """The callback options of gen_smtp's example module.  dump: a folder.  size: octets."""

    auth: bool = False
    size: int | None = None
    parse: bool = False
    dump: Path | None = None


class Example(mailserver.App):
    """The example module of gen_smtp, as an app."""

    Options = ExampleOptions
    mechanisms = ("PLAIN", "LOGIN", "CRAM-MD5")

    def connected(self) -> str:
        if self.session.connections > 20:
            self.refuse(421, "4.3.2", "host is too busy to accept mail right now")
        return "ESMTP example"

    def helo(self, name: str, extensions: dict[str, str | None]) -> None:
        if name == "invalid":
            self.refuse(554, "5.7.1", "invalid hostname")
        if self.options.size is not None:
            extensions["SIZE"] = str(self.options.size)
        if not self.options.auth:
            extensions.pop("AUTH", None)

    def authenticate(self, login: mailserver.Login) -> bool:
        return login.user == "username" and login.check("PaSSw0rd")

    def mail(self, sender: mailserver.Address | None, parameters: Any) -> None:
        if str(sender) == "badguy@blacklist.com":
            self.refuse(552, "5.7.1", "go away")

    def rcpt(self, recipient: mailserver.Address, parameters: Any) -> None:
        if str(recipient) == "nobody@example.com":
            self.refuse(550, "5.1.1", "No such recipient")

    def message(self, envelope: mailserver.Envelope, message: Any) -> str | dict[Any, str]:
        text = message.read()
        if not text:
            self.refuse(552, "5.6.0", "Message too small")
        reference = hashlib.md5(text, usedforsecurity=False).hexdigest()
        if self.options.dump is not None:
            (self.options.dump / reference).write_bytes(text)
        if self.session.protocol == "lmtp":
            return dict.fromkeys((each.address for each in envelope.recipients), "delivered")
        return f"queued as {reference}"

    def verify(self, address: mailserver.Address) -> str | mailserver.Reply:
        if address.local == "someuser":
            return f"{address.local}@{self.session.hostname}"
        return mailserver.Reply(252, "2.5.0", "VRFY disabled by policy, just send some mail")


class ExampleModuleTests(AppTestCase):
    async def test_S140_auth_and_size_are_options(self) -> None:
        def talk(ports: list[int]) -> Iterator[list[str]]:
            for port in ports:
                with Wire(port) as wire:
                    wire.reply()
                    yield [
                        *wire.say("EHLO x.example.net").splitlines(),
                        wire.say("AUTH PLAIN " + b64("\0username\0PaSSw0rd"))[:3],
                        wire.say("MAIL FROM:<me@example.net> SIZE=101")[:3],
                    ]

        ports = [
            self.serve(Example, CLEAR_AUTH, options=options).ports[0]
            for options in ({"auth": True, "size": 100}, {"size": 0}, {})
        ]
        offered, bare, usual = await self.in_thread(list, talk(ports))
        self.assertIn("250-SIZE 100", offered)
        self.assertTrue([line for line in offered if line[4:].startswith("AUTH ") and "CRAM-MD5" in line])
        self.assertEqual(offered[-2:], ["235", "552"])
        self.assertEqual([line for line in bare if "AUTH" in line or "SIZE" in line], [])
        self.assertEqual(bare[-2:], ["502", "250"])
        self.assertIn("250-SIZE 52428800", usual)

    async def test_S140_a_message_may_be_dumped(self) -> None:
        def talk(port: int) -> str:
            with Wire(port) as wire:
                return wire.greeted().transaction("you@example.org")[-1]

        folder = self.folder()
        said = await self.in_thread(talk, self.serve(Example, options={"dump": str(folder)}).ports[0])
        (file,) = folder.iterdir()
        self.assertEqual((said, file.read_bytes()), (f"250 2.0.0 queued as {file.name}", MESSAGE.encode()))

    async def test_S140_what_cannot_be_decoded_well_is_read_all_the_same(self) -> None:
        """Of gen_smtp one such mail kills the session, and the sender tries again for days (its issue 88)."""

        class Reading(mailserver.App):
            def message(self, envelope: Any, message: Any) -> str:
                mail = message.mime
                return f"{len(mail.body().text)} characters, {len(mail.defects) > 0}"

        def talk(port: int) -> list[str]:
            with Wire(port) as wire:
                wire.greeted()
                return [
                    wire.transaction(
                        "you@example.org",
                        message=f"Content-Type: text/plain; charset={charset}\r\nContent-Transfer-Encoding: {encoding}"
                        f"\r\nMIME-Version: 1.0\r\n\r\n{body}\r\n",
                    )[-1]
                    for charset, encoding, body in (
                        ("iso-8859-8-i", "quoted-printable", "=F9=EC=E5=ED"),
                        ("nobody-knows", "8bit", "plain"),
                        ("utf-8", "base64", "4pyT4pyT*"),
                    )
                ]

        said = await self.in_thread(talk, self.serve(Reading).ports[0])
        self.assertEqual(said[0], "250 2.0.0 5 characters, False")
        self.assertEqual(said[1:], ["250 2.0.0 6 characters, True", "250 2.0.0 2 characters, True"])

    async def test_S141_what_the_example_refuses(self) -> None:
        def talk(port: int) -> list[str]:
            with Wire(port) as wire:
                wire.reply()
                said = [wire.say("EHLO invalid"), wire.say("HELO invalid"), wire.say("VRFY someuser@example.org")]
                said += [wire.say("VRFY other@example.org"), wire.say("EHLO x.example.net").splitlines()[0]]
                said += [wire.say("MAIL FROM:<badguy@blacklist.com>"), wire.say("MAIL FROM:<me@example.net>")]
                said += [wire.say("RCPT TO:<nobody@example.com>"), wire.say("RCPT TO:<you@example.com>")]
                return [*said, wire.say("DATA"), wire.say(".")]

        said = await self.in_thread(talk, self.serve(Example).ports[0])
        self.assertEqual(
            said[:6],
            [
                "554 5.7.1 invalid hostname",
                "554 5.7.1 invalid hostname",
                "250 2.1.5 someuser@localhost",
                "252 2.5.0 VRFY disabled by policy, just send some mail",
                "250-localhost",
                "552 5.7.1 go away",
            ],
        )
        self.assertEqual((said[7], said[10]), ("550 5.1.1 No such recipient", "552 5.6.0 Message too small"))

    async def test_S142_the_reference_of_a_message_is_told(self) -> None:
        def smtp(port: int) -> str:
            with Wire(port) as wire:
                return wire.greeted().transaction("you@example.org")[-1]

        def lmtp(port: int) -> list[str]:
            with Wire(port) as wire:
                wire.reply()
                wire.say("LHLO x.example.net")
                return [wire.transaction("a@example.org", "b@example.org")[-1], wire.reply()]

        server = self.serve(Example, "127.0.0.1:0", LMTP)
        self.assertRegex(await self.in_thread(smtp, server.ports[0]), r"\A250 2\.0\.0 queued as [0-9a-f]{32}\Z")
        self.assertEqual(
            await self.in_thread(lmtp, server.ports[1]),
            ["250 2.0.0 <a@example.org> delivered", "250 2.0.0 <b@example.org> delivered"],
        )
