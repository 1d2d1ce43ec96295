"""
What a module with callbacks can do in gen_smtp, an app can do here: commands, logins and the end, rows S39 to S46 of
docs/gen_smtp.md, with a real server and a client that says every word itself.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Iterator
from typing import Any

from twisted.internet.defer import Deferred

import mailserver
from tests.interop.app_wire import CLEAR_AUTH, MESSAGE, AppTestCase, Recording, Wire, b64, reactor


class CommandTests(AppTestCase):
    async def test_S39_vrfy_also_before_ehlo(self) -> None:
        class App(mailserver.App):
            def verify(self, address: Any) -> str | mailserver.Reply:
                if address.local == "someuser":
                    return f"{address.local}@{self.session.hostname}"
                if address.local == "nobody":
                    self.refuse(550, "5.1.1", "no such user")
                return mailserver.Reply(252, "2.5.0", "VRFY disabled by policy, just send some mail")

        def talk(port: int) -> list[str]:
            with Wire(port) as wire:
                wire.reply()
                lines = (" someuser@example.org", " nobody@example.org", " other@example.org", "")
                return [wire.say(f"VRFY{each}") for each in lines]

        said = await self.in_thread(talk, self.serve(App, hostname="mail.example.org").ports[0])
        self.assertEqual(
            said[:3],
            [
                "250 2.1.5 someuser@mail.example.org",
                "550 5.1.1 no such user",
                "252 2.5.0 VRFY disabled by policy, just send some mail",
            ],
        )
        self.assertEqual(said[3][:3], "501")

    async def test_S40_other_verbs(self) -> None:
        class App(mailserver.App):
            verbs = ("*", "HELP")  # "*" is what the server itself does not know

            def command(self, verb: str, argument: str) -> str | mailserver.Reply | None:
                if verb == "HELP":
                    return mailserver.Reply(214, "2.0.0", "There is none")
                if verb == "XSECRET":
                    raise mailserver.Disconnect
                return f"{verb.lower()}: {argument}" if verb.startswith("X") else None

        def talk(port: int) -> list[str]:
            with Wire(port) as wire:
                wire.greeted()
                lines = ("HELP", "xecho Hello  World", "EXPN list", "QUUX", "NOOP", "XSECRET")
                return [wire.say(line) for line in lines]

        said = await self.in_thread(talk, self.serve(App).ports[0])
        self.assertEqual(said[:2], ["214 2.0.0 There is none", "250 xecho: Hello  World"])
        self.assertEqual([each[:3] for each in said[2:]], ["502", "500", "250", ""])

    async def test_S43_whatever_else_happens_in_the_program_may_speak_to_the_client(self) -> None:
        sessions: list[Any] = []

        class App(mailserver.App):
            verbs = ("XWAIT",)

            def connected(self) -> None:
                sessions.append(self.session)

            async def command(self, verb: str, argument: str) -> str:
                return await news

        def talk(port: int) -> list[str]:
            with Wire(port) as wire:
                wire.greeted()
                wire.send("XWAIT\r\n")
                reactor.callFromThread(reactor.callLater, 0, news.callback, "there are news")
                first = wire.reply()
                reactor.callFromThread(sessions[0].end, "enough")
                return [first, wire.reply(), wire.reply()]

        news: Deferred[str] = Deferred()
        said = await self.in_thread(talk, self.serve(App).ports[0])
        self.assertEqual(said[0], "250 there are news")
        self.assertEqual([said[1][:3], said[2]], ["421", ""])


class LoginTests(AppTestCase):
    class App(Recording):
        """The one user of gen_smtp's example."""

        mechanisms = ("PLAIN", "LOGIN", "CRAM-MD5")

        def authenticate(self, login: mailserver.Login) -> bool:
            self.heard.append((login.mechanism, login.user, login.password))
            return login.user == "username" and login.check("PaSSw0rd")

        def mail(self, sender: Any, parameters: Any) -> None:
            self.heard.append(self.session.identity)

    async def test_S41_plain_login_and_cram_md5_are_the_app_s_to_judge(self) -> None:
        def cram(wire: Wire, password: str) -> str:
            challenge = base64.b64decode(wire.say("AUTH CRAM-MD5").partition(" ")[2])
            return wire.say(b64(f"username {hmac.new(password.encode(), challenge, hashlib.md5).hexdigest()}"))

        def login(wire: Wire, password: str) -> str:
            wire.say("AUTH LOGIN")
            wire.say(b64("username"))
            return wire.say(b64(password))

        def plain(wire: Wire, password: str) -> str:
            return wire.say("AUTH PLAIN " + b64(f"\0username\0{password}"))

        def talk(port: int) -> Iterator[tuple[str, str, str]]:
            for way in (plain, login, cram):
                with Wire(port) as wire:
                    wire.greeted()
                    yield (
                        way(wire, "mirror")[:3],
                        way(wire, "PaSSw0rd")[:3],
                        wire.say("MAIL FROM:<a@example.net>")[:3],
                    )

        self.App.heard.clear()
        said = await self.in_thread(list, talk(self.serve(self.App, CLEAR_AUTH).ports[0]))
        self.assertEqual(said, [("535", "235", "250")] * 3)
        self.assertEqual(
            self.App.heard,
            [
                ("PLAIN", "username", "mirror"),
                ("PLAIN", "username", "PaSSw0rd"),
                "username",
                ("LOGIN", "username", "mirror"),
                ("LOGIN", "username", "PaSSw0rd"),
                "username",
                ("CRAM-MD5", "username", None),
                ("CRAM-MD5", "username", None),
                "username",
            ],
        )

    async def test_S41_without_an_opinion_it_is_a_no(self) -> None:
        class App(mailserver.App):
            def authenticate(self, login: mailserver.Login) -> None: ...

        def talk(port: int) -> str:
            with Wire(port) as wire:
                return wire.greeted().say("AUTH PLAIN " + b64("\0username\0PaSSw0rd"))

        self.assertEqual((await self.in_thread(talk, self.serve(App, CLEAR_AUTH).ports[0]))[:3], "535")

    async def test_S42_starttls_is_told_with_what_was_agreed(self) -> None:
        class App(Recording):
            def secured(self) -> None:
                tls = self.session.tls
                assert tls is not None
                self.heard.append((tls.version, bool(tls.cipher), tls.server_name, self.session.helo))

        def talk(port: int) -> list[str]:
            with Wire(port) as wire:
                wire.greeted()
                wire.secure("mail.example.org")
                return [wire.say("MAIL FROM:<me@example.net>")[:3], wire.say("EHLO x.example.net")[:3]]

        said = await self.in_thread(talk, self.serve(App).ports[0])
        self.assertEqual(said, ["503", "250"])
        self.assertEqual(App.heard, [("TLSv1.3", True, "mail.example.org", "")])

    async def test_S42_implicit_tls_is_there_when_the_client_is(self) -> None:
        class App(Recording):
            def connected(self) -> None:
                self.heard.append(self.session.tls is not None)

        def talk(port: int) -> str:
            with Wire(port, tls=True) as wire:
                return wire.reply()[:3]

        self.assertEqual(await self.in_thread(talk, self.serve(App, "tls:127.0.0.1:0").ports[0]), "220")
        self.assertEqual(App.heard, [True])


class EndTests(AppTestCase):
    async def test_S44_errors_are_told(self) -> None:
        class App(Recording):
            def message(self, envelope: Any, message: Any) -> None: ...

            def error(self, kind: str, detail: str) -> None:
                self.heard.append((kind, detail[:3]))

        def talk(port: int) -> None:
            with Wire(port) as wire:
                wire.reply()
                wire.say("MAIL FROM:<me@example.net>")
                wire.say("EHLO x.example.net")
                wire.say("NONSENSE")
                wire.transaction("you@example.org", message="a\nb\r\n")
                wire.transaction("you@example.org", message=("x" * 900 + "\r\n") * 100)

        await self.in_thread(talk, self.serve(App, limits={"message_size": 65536}).ports[0])
        self.assertEqual(App.heard, [("command", "503"), ("command", "500"), ("message", "550"), ("message", "552")])

    async def test_S44_a_failed_handshake_and_a_lost_connection_are_told(self) -> None:
        class App(Recording):
            def error(self, kind: str, detail: str) -> None:
                self.heard.append(kind)

            def disconnected(self, reason: str) -> None:
                over[len(over) - 1].callback(None)

        def bad_handshake(port: int) -> None:
            with Wire(port) as wire:
                wire.greeted().say("STARTTLS")
                wire.send("this is no handshake\r\n")
                wire.reply()

        def lost(port: int) -> None:
            with Wire(port) as wire:
                wire.greeted().say("MAIL FROM:<me@example.net>")

        over: list[Deferred[None]] = []
        port = self.serve(App).ports[0]
        for client in (bad_handshake, lost):
            over.append(Deferred())
            await self.in_thread(client, port)
            await over[-1]
        self.assertEqual(App.heard, ["tls", "connection"])

    async def test_S44_a_timeout_is_told(self) -> None:
        class App(Recording):
            def error(self, kind: str, detail: str) -> None:
                self.heard.append(kind)

        def talk(port: int) -> list[str]:
            with Wire(port) as wire:
                wire.greeted()
                return [wire.reply()[:3], wire.reply()]

        said = await self.in_thread(
            talk, self.serve(App, limits={"command_timeout": 1, "busy_command_timeout": 1}).ports[0]
        )
        self.assertEqual((said, App.heard), (["421", ""], ["timeout"]))

    async def test_S45_the_end_is_the_last_thing_an_app_hears(self) -> None:
        class App(Recording):
            def __init__(self) -> None:
                self.sent = 0

            def message(self, envelope: Any, message: Any) -> None:
                self.sent += 1

            def disconnected(self, reason: str) -> None:
                self.heard.append((self.sent, self.session.messages, reason))
                over.callback(None)

        def talk(port: int) -> str:
            with Wire(port) as wire:
                wire.greeted()
                wire.transaction("you@example.org")
                wire.transaction("you@example.org")
                return wire.say("QUIT")[:3]

        over: Deferred[None] = Deferred()
        self.assertEqual(await self.in_thread(talk, self.serve(App).ports[0]), "221")
        await over
        self.assertEqual(App.heard, [(2, 2, "quit")])

    async def test_S26_the_number_of_sessions_is_the_real_one(self) -> None:
        class App(mailserver.App):
            def connected(self) -> None:
                if self.session.connections > 2:
                    self.refuse(421, "4.3.2", "host is too busy to accept mail right now")

        def talk(port: int) -> list[str]:
            with Wire(port) as one, Wire(port) as two, Wire(port) as three:
                said = [each.reply()[:3] for each in (one, two, three)]
                one.say("QUIT")
                one.reply()
                with Wire(port) as four:
                    return [*said, four.reply()[:3]]

        server = self.serve(App)
        self.assertEqual(await self.in_thread(talk, server.ports[0]), ["220", "220", "421", "220"])

    async def test_S46_nothing_is_hidden_from_an_app(self) -> None:
        class App(Recording):
            mechanisms = ("PLAIN",)

            def authenticate(self, login: mailserver.Login) -> str:
                return "anna"

            def message(self, envelope: Any, message: Any) -> None:
                session = self.session
                self.heard.append(
                    {
                        "size": envelope.size,
                        "body": envelope.body,
                        "utf8": envelope.smtputf8,
                        "parameters": dict(envelope.parameters),
                        "identity": (session.identity, envelope.peer.user),
                        "tls": session.tls is not None,
                        "server name": envelope.peer.tls.server_name,
                        "peer": (session.peer_host, session.peer_port),
                        "local": (session.local_host, session.local_port),
                        "helo": session.helo,
                        "listener": session.listener,
                        "with": envelope.protocol,
                        "counted": (session.messages, session.errors),
                    }
                )

        def talk(port: int) -> int:
            with Wire(port) as wire:
                wire.greeted().secure("mail.example.org")
                wire.say("EHLO ünter.example.net")
                wire.say("EHLO under.example.net")
                wire.say("AUTH PLAIN " + b64("\0name\0password"))
                wire.say("MAIL FROM:<mé@example.net> SIZE=40 BODY=8BITMIME SMTPUTF8 ENVID=a+2Bb")
                wire.say("RCPT TO:<you@example.org>")
                wire.say("DATA")
                self.assertEqual(wire.say(f"{MESSAGE}.")[:3], "250")
                return int(wire._socket.getsockname()[1])

        listener = {"name": "door", "address": "127.0.0.1:0", "auth": "optional"}
        server = self.serve(App, listener)
        port = await self.in_thread(talk, server.ports[0])
        (seen,) = App.heard
        self.assertEqual(
            seen,
            {
                "size": 40,
                "body": "8BITMIME",
                "utf8": True,
                "parameters": {"SIZE": "40", "BODY": "8BITMIME", "SMTPUTF8": None, "ENVID": "a+2Bb"},
                "identity": ("anna", "anna"),
                "tls": True,
                "server name": "mail.example.org",
                "peer": ("127.0.0.1", port),
                "local": ("127.0.0.1", server.ports[0]),
                "helo": "under.example.net",
                "listener": "door",
                "with": "UTF8SMTPSA",
                "counted": (0, seen["counted"][1]),
            },
        )
