"""
What a module with callbacks can do in gen_smtp, an app can do here: the stages of a mail, rows S30 to S38 of
docs/gen_smtp.md, with a real server and a client that says every word itself.

Texts of gen_smtp are not ours; that an app's own texts and codes reach the client as they are is what matters.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from twisted.internet.defer import Deferred

import mailserver
from tests.interop.app_wire import LMTP, MESSAGE, AppTestCase, Recording, Wire


class GreetingTests(AppTestCase):
    async def test_S30_the_banner_is_the_app_s_to_say(self) -> None:
        class App(mailserver.App):
            def connected(self) -> str:
                return "at your service"

        def talk(port: int) -> str:
            with Wire(port) as wire:
                return wire.reply()

        server = self.serve(App, hostname="mail.example.org")
        self.assertEqual(await self.in_thread(talk, server.ports[0]), "220 mail.example.org at your service")

    async def test_S30_a_client_is_turned_away_in_the_app_s_words(self) -> None:
        class App(Recording):
            def connected(self) -> None:
                self.refuse(421, "4.3.2", f"not from {self.session.peer_host}")

            def disconnected(self, reason: str) -> None:
                self.heard.append(reason)
                over.callback(None)

        def talk(port: int) -> list[str]:
            with Wire(port) as wire:
                return [wire.reply(), wire.reply()]

        over: Deferred[None] = Deferred()
        said = await self.in_thread(talk, self.serve(App).ports[0])
        await over
        self.assertEqual(said, ["421 4.3.2 not from 127.0.0.1", ""])
        self.assertEqual(len(App.heard), 1)

    async def test_S30_a_client_that_is_ignored_gets_not_one_octet(self) -> None:
        class App(mailserver.App):
            def connected(self) -> None:
                raise mailserver.Disconnect

        def talk(port: int) -> str:
            with Wire(port) as wire:
                return wire.reply()

        self.assertEqual(await self.in_thread(talk, self.serve(App).ports[0]), "")

    async def test_S31_helo_sets_the_limit_of_a_message(self) -> None:
        class App(mailserver.App):
            def helo(self, name: str, extensions: dict[str, str | None]) -> None:
                if name == "small.example.net":
                    extensions["SIZE"] = "100"
                elif name == "endless.example.net":
                    extensions["SIZE"] = "0"

            def message(self, envelope: Any, message: Any) -> None: ...

        def talk(port: int) -> Iterator[list[str]]:
            long = MESSAGE + ("x" * 98 + "\r\n") * 700
            for name in ("small.example.net", "usual.example.net", "endless.example.net"):
                with Wire(port) as wire:
                    wire.reply()
                    yield [wire.say(f"HELO {name}"), wire.transaction("you@example.org", message=long)[-1][:3]]

        server = self.serve(App, hostname="mail.example.org", limits={"message_size": 65536})
        said = await self.in_thread(list, talk(server.ports[0]))
        self.assertEqual(
            said,
            [["250 mail.example.org", "552"], ["250 mail.example.org", "552"], ["250 mail.example.org", "250"]],
        )

    async def test_S31_a_name_that_is_refused_is_no_greeting(self) -> None:
        class App(mailserver.App):
            def helo(self, name: str, extensions: dict[str, str | None]) -> None:
                if name == "invalid":
                    self.refuse(554, "", "invalid hostname")

        def talk(port: int) -> list[str]:
            with Wire(port) as wire:
                wire.reply()
                lines = ("HELO invalid", "MAIL FROM:<me@example.net>", "EHLO invalid", "MAIL FROM:<me@example.net>")
                return [wire.say(line) for line in lines]

        said = await self.in_thread(talk, self.serve(App).ports[0])
        self.assertEqual(said[0], "554 invalid hostname")
        self.assertEqual(said[2], "554 invalid hostname")
        self.assertEqual([said[1][:3], said[3][:3]], ["503", "503"])

    async def test_S32_the_list_of_extensions_is_the_app_s_with_its_order(self) -> None:
        seen: list[dict[str, str | None]] = []

        class App(mailserver.App):
            def helo(self, name: str, extensions: dict[str, str | None]) -> dict[str, str | None]:
                seen.append(dict(extensions))
                return {"x-first": None, "SMTPUTF8": None, "SIZE": "100", "X-LAST": "a b", "8BITMIME": None}

        def talk(port: int) -> list[str]:
            with Wire(port) as wire:
                wire.reply()
                return [
                    wire.say("EHLO client.example.net"),
                    wire.say("MAIL FROM:<me@example.net> SIZE=101"),
                    wire.say("STARTTLS"),
                    wire.say("MAIL FROM:<me@example.net> SIZE=100 BODY=8BITMIME RET=HDRS"),
                    wire.say("MAIL FROM:<me@example.net> SIZE=100 BODY=8BITMIME"),
                ]

        server = self.serve(App, hostname="mail.example.org")
        ehlo, *codes = await self.in_thread(talk, server.ports[0])
        self.assertEqual(
            ehlo.splitlines(),
            [
                "250-mail.example.org",
                "250-X-FIRST",
                "250-SMTPUTF8",
                "250-SIZE 100",
                "250-X-LAST a b",
                "250 8BITMIME",
            ],
        )
        # What is not offered does not work.
        self.assertEqual([code[:3] for code in codes], ["552", "500", "555", "250"])
        self.assertEqual(list(seen[0])[:4], ["SIZE", "8BITMIME", "PIPELINING", "SMTPUTF8"])

    async def test_S32_no_size_means_no_limit_and_no_line(self) -> None:
        class App(mailserver.App):
            def helo(self, name: str, extensions: dict[str, str | None]) -> None:
                extensions["SIZE"] = "0"

        def talk(port: int) -> list[str]:
            with Wire(port) as wire:
                wire.reply()
                return [wire.say("EHLO x.example.net"), wire.say("MAIL FROM:<me@example.net> SIZE=100000000")]

        ehlo, mail = await self.in_thread(talk, self.serve(App, limits={"message_size": 65536}).ports[0])
        self.assertNotIn("SIZE", ehlo)
        self.assertEqual(mail[:3], "250")

    async def test_S32_an_empty_list_is_one_line_and_mail_is_taken(self) -> None:
        class App(mailserver.App):
            def helo(self, name: str, extensions: dict[str, str | None]) -> dict[str, str | None]:
                return {}

            def message(self, envelope: Any, message: Any) -> None: ...

        def talk(port: int) -> list[str]:
            with Wire(port) as wire:
                wire.reply()
                return [wire.say("EHLO x.example.net"), *wire.transaction("you@example.org")]

        said = await self.in_thread(talk, self.serve(App, hostname="mail.example.org").ports[0])
        self.assertEqual(said[0], "250 mail.example.org")
        self.assertEqual([each[:3] for each in said[1:]], ["250", "250", "354", "250"])

    async def test_S32_starttls_is_not_offered_inside_tls(self) -> None:
        class App(mailserver.App):
            def helo(self, name: str, extensions: dict[str, str | None]) -> None: ...

        def talk(port: int) -> list[str]:
            with Wire(port) as wire:
                wire.reply()
                before = wire.say("EHLO x.example.net")
                wire.secure()
                return [before, wire.say("EHLO x.example.net")]

        before, inside = await self.in_thread(talk, self.serve(App).ports[0])
        self.assertIn("250-STARTTLS", before)
        self.assertNotIn("STARTTLS", inside)


class TransactionTests(AppTestCase):
    async def test_S33_mail_is_asked_behind_its_parameters_and_answers_in_its_words(self) -> None:
        class App(Recording):
            def mail(self, sender: Any, parameters: Any) -> None:
                self.heard.append((sender and str(sender), dict(parameters)))
                if sender is not None and sender.domain == "blacklist.example.com":
                    self.refuse(552, "5.7.1", "go away")

        def talk(port: int) -> list[str]:
            lines = (
                "MAIL FROM:<me@example.net> SIZE=abc",
                "MAIL FROM:<badguy@blacklist.example.com>",
                "MAIL FROM:<>",
                "RSET",
                "MAIL FROM:<me@example.net> SIZE=10",
            )
            with Wire(port) as wire:
                return [wire.greeted().say(line) if line is lines[0] else wire.say(line) for line in lines]

        said = await self.in_thread(talk, self.serve(App).ports[0])
        self.assertEqual(said[1], "552 5.7.1 go away")
        self.assertEqual([each[:3] for each in said], ["501", "552", "250", "250", "250"])
        self.assertEqual(
            App.heard,
            [("badguy@blacklist.example.com", {}), (None, {}), ("me@example.net", {"SIZE": "10"})],
        )

    async def test_S34_parameters_of_mail_that_the_app_understands(self) -> None:
        class App(Recording):
            mail_parameters = ("X-SomeExtension",)

            def mail(self, sender: Any, parameters: Any) -> None:
                self.kept = parameters["X-SOMEEXTENSION"]

            def rcpt(self, recipient: Any, parameters: Any) -> None:
                self.heard.append(self.kept)

        def talk(port: int) -> list[str]:
            with Wire(port) as wire:
                return [
                    wire.greeted().say("MAIL FROM:<me@example.net> X-Other=1"),
                    wire.say("MAIL FROM:<me@example.net> x-someextension=Some-Value"),
                    wire.say("RCPT TO:<you@example.org>"),
                ]

        said = await self.in_thread(talk, self.serve(App).ports[0])
        self.assertEqual([each[:3] for each in said[:2]], ["555", "250"])
        # The value as it was written, and what the app keeps is there in the next callback.
        self.assertEqual(App.heard, ["Some-Value"])

    async def test_S35_rcpt_answers_in_its_words(self) -> None:
        class App(mailserver.App):
            def rcpt(self, recipient: Any, parameters: Any) -> None:
                if str(recipient) == "nobody@example.com":
                    self.refuse(550, "", "No such recipient")

            def message(self, envelope: Any, message: Any) -> str:
                return ", ".join(str(each.address) for each in envelope.recipients)

        def talk(port: int) -> list[str]:
            with Wire(port) as wire:
                return wire.greeted().transaction("nobody@example.com", "a@example.com", "b@example.org")

        said = await self.in_thread(talk, self.serve(App).ports[0])
        self.assertEqual(said[1], "550 No such recipient")
        self.assertEqual(said[-1], "250 2.0.0 a@example.com, b@example.org")

    async def test_S36_parameters_of_rcpt_reach_the_app(self) -> None:
        class App(Recording):
            rcpt_parameters = ("X-PRIORITY",)

            def rcpt(self, recipient: Any, parameters: Any) -> None:
                self.heard.append(dict(parameters))

            def message(self, envelope: Any, message: Any) -> None:
                self.heard.append([dict(each.parameters) for each in envelope.recipients])

        def talk(port: int) -> list[str]:
            with Wire(port) as wire:
                return [
                    wire.greeted().say("MAIL FROM:<me@example.net>"),
                    wire.say("RCPT TO:<a@example.org> X-Unknown=1"),
                    wire.say("RCPT TO:<a@example.org> NOTIFY=NEVER X-Priority=High"),
                    wire.say("DATA"),
                    wire.say(f"{MESSAGE}."),
                ]

        said = await self.in_thread(talk, self.serve(App).ports[0])
        self.assertEqual([each[:3] for each in said], ["250", "555", "250", "354", "250"])
        expected = {"NOTIFY": "NEVER", "X-PRIORITY": "High"}
        self.assertEqual(App.heard, [expected, [expected]])

    async def test_S37_the_end_of_a_message_is_answered_in_the_app_s_words(self) -> None:
        class App(Recording):
            async def message(self, envelope: Any, message: Any) -> str:
                text = b"".join([block async for block in message.blocks()])
                self.heard.append((str(envelope.sender), text))
                if b"spam" in text:
                    self.refuse(554, "5.7.1", "no spam here")
                return "queued as 4711"

        def talk(port: int) -> list[str]:
            with Wire(port) as wire:
                wire.greeted()
                texts = (".. dots\r\n", "spam\r\n")
                return [wire.transaction("you@example.org", message=text)[-1] for text in texts]

        said = await self.in_thread(talk, self.serve(App).ports[0])
        self.assertEqual(said, ["250 2.0.0 queued as 4711", "554 5.7.1 no spam here"])
        self.assertEqual(App.heard, [("me@example.net", b". dots\r\n"), ("me@example.net", b"spam\r\n")])

    async def test_S37_by_lmtp_each_recipient_has_an_answer_of_its_own(self) -> None:
        class App(mailserver.App):
            def message(self, envelope: Any, message: Any) -> dict[str, Any]:
                full = mailserver.Refusal(mailserver.Reply(452, "4.2.2", "mailbox is full"))
                return {"b@example.org": full, "c@example.org": "put on the pile"}

        def talk(port: int) -> list[str]:
            with Wire(port) as wire:
                wire.reply()
                wire.say("LHLO client.example.net")
                said = wire.transaction("a@example.org", "b@example.org", "c@example.org")
                return [said[-1], wire.reply(), wire.reply(), wire.say("QUIT")[:3]]

        said = await self.in_thread(talk, self.serve(App, LMTP).ports[0])
        self.assertEqual(said[0][:9], "250 2.0.0")
        self.assertEqual(
            said[1:],
            ["452 4.2.2 <b@example.org> mailbox is full", "250 2.0.0 <c@example.org> put on the pile", "221"],
        )

    async def test_S37_by_smtp_one_no_speaks_for_all_and_the_session_goes_on(self) -> None:
        class App(mailserver.App):
            def message(self, envelope: Any, message: Any) -> dict[str, Any]:
                gone = mailserver.Refusal(mailserver.Reply(550, "5.1.6", "has moved"))
                full = mailserver.Refusal(mailserver.Reply(452, "4.2.2", "mailbox is full"))
                answers = {"a@example.org": None, "b@example.org": gone, "c@example.org": full}
                return {each.address: answers[str(each.address)] for each in envelope.recipients}

        def talk(port: int) -> list[str]:
            with Wire(port) as wire:
                wire.greeted()
                return [
                    wire.transaction("a@example.org", "b@example.org", "c@example.org")[-1],
                    wire.transaction("a@example.org", "b@example.org")[-1],
                    wire.transaction("a@example.org")[-1][:3],
                ]

        said = await self.in_thread(talk, self.serve(App).ports[0])
        # For a while is told before for good: the sender tries again, and nobody's mail is lost.
        self.assertEqual(said, ["452 4.2.2 mailbox is full", "550 5.1.6 has moved", "250"])

    async def test_S37_an_answer_for_somebody_who_was_not_asked_about_is_a_mistake(self) -> None:
        class App(mailserver.App):
            def message(self, envelope: Any, message: Any) -> dict[str, Any]:
                return {"stranger@example.org": None}

        def talk(port: int) -> str:
            with Wire(port) as wire:
                return wire.greeted().transaction("a@example.org")[-1]

        self.assertEqual((await self.in_thread(talk, self.serve(App).ports[0]))[:3], "451")

    async def test_S38_rset_is_told(self) -> None:
        class App(Recording):
            def mail(self, sender: Any, parameters: Any) -> None:
                self.heard.append("mail")

            def reset(self) -> None:
                self.heard.append("reset")

        def talk(port: int) -> list[str]:
            with Wire(port) as wire:
                lines = ("MAIL FROM:<me@example.net>", "RSET", "MAIL FROM:<me@example.net>", "EHLO again.example.net")
                wire.greeted()
                return [wire.say(line)[:3] for line in lines]

        said = await self.in_thread(talk, self.serve(App).ports[0])
        self.assertEqual(said, ["250"] * 4)
        self.assertEqual(App.heard, ["mail", "reset", "mail", "reset"])
