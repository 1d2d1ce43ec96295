"""The server in a program: under a reactor that runs, with smtplib in a thread."""

from __future__ import annotations

import smtplib
import subprocess
import sys
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase, TestCase

from mailserver import server
from mailserver.address import parse_address
from mailserver.apps.app import App
from mailserver.apps.installed import AppSettings
from mailserver.apps.loading import AppError
from mailserver.config import ConfigError


class Tickets(App):
    """Takes mail for tickets+NUMBER@example.org."""

    def rcpt(self, recipient: Any, parameters: Any) -> None:
        if not recipient.detail.isdigit():
            self.refuse(550, "5.1.1", "no such ticket")

    async def message(self, envelope: Any, message: Any) -> str:
        return f"{message.size} octets for ticket {envelope.recipients[0].address.detail}"


async def take(envelope: Any, message: Any) -> str:
    """A function is an app too."""
    return f"taken from {envelope.sender}"


class WordsTests(SynchronousTestCase):
    """What the arguments mean, without a socket."""

    def service(self, *where: Any, app: Any = Tickets, **settings: Any) -> server.Listening:
        made = server.service(app, *where, reactor=object(), **settings)
        self.addCleanup(lambda: made._folder and made._folder.rmdir())
        return made

    def test_where_to_listen(self) -> None:
        for where, address, protocol, tls in (
            (2525, "*:2525", "smtp", "starttls"),
            ("tcp:2525", "*:2525", "smtp", "starttls"),
            ("tcp:2525:interface=127.0.0.1", "127.0.0.1:2525", "smtp", "starttls"),
            ("tcp:2525:interface=\\:\\:1", "[::1]:2525", "smtp", "starttls"),
            ("127.0.0.1:2525", "127.0.0.1:2525", "smtp", "starttls"),
            ("[::1]:2525", "[::1]:2525", "smtp", "starttls"),
            ("tls:1465", "*:1465", "smtp", "implicit"),
            ("lmtp:127.0.0.1:2424", "127.0.0.1:2424", "lmtp", "off"),
            ("submission:2587", "*:2587", "submission", "starttls"),
            ({"port": 1465, "tls": "implicit"}, "*:1465", "smtp", "implicit"),
            ({"host": "::1", "port": 2525}, "[::1]:2525", "smtp", "starttls"),
            ({}, "*:2525", "smtp", "starttls"),
        ):
            (listener,) = self.service(where).config.listeners
            self.assertEqual(
                (str(listener.address), listener.protocol, listener.tls), (address, protocol, tls), repr(where)
            )

    def test_a_kind_that_is_none(self) -> None:
        error = self.assertRaises(ValueError, self.service, "tpc:2525")
        self.assertIn('did you mean "tcp:2525"?', str(error))

    def test_several_listeners_in_one_call(self) -> None:
        made = self.service("tcp:2525", {"tls": "implicit", "port": 1465}, "lmtp:127.0.0.1:2424")
        self.assertEqual(
            [listener.name for listener in made.config.listeners], ["smtp-2525", "smtp-1465", "lmtp-2424"]
        )

    def test_lmtp_on_port_25_is_refused(self) -> None:  # TS25
        error = self.assertRaises(ConfigError, self.service, "lmtp:25")
        self.assertIn("port 25", str(error))

    def test_settings(self) -> None:
        made = self.service(hostname="mx.example.org", limits={"errors": 5}, match={"recipients": ["a@example.org"]})
        self.assertEqual((made.config.server.hostname, made.config.limits.errors), ("mx.example.org", 5))
        self.assertEqual(made.apps[0].match.recipients, ("a@example.org",))
        self.assertRaises(TypeError, self.service, hostnam="x")
        made = self.service(match={"networks": "192.0.2.0/24"})
        self.assertEqual([str(each) for each in made.apps[0].match.networks], ["192.0.2.0/24"])
        error = self.assertRaises(AppError, self.service, match={"recipient": "a@example.org"})
        self.assertEqual((error.key, str(error)), ("match.recipient", "unknown key; did you mean recipients?"))

    def test_what_is_an_app(self) -> None:
        self.assertEqual(
            [app.name for app in self.service(app=[Tickets, take, Tickets]).apps], ["Tickets", "take", "Tickets-3"]
        )
        self.assertEqual(self.service(app=AppSettings("mine", Tickets)).apps[0].name, "mine")
        self.assertRaises(TypeError, self.service, app=lambda: None)
        self.assertRaises(TypeError, self.service, app=7)
        self.assertRaises(ValueError, self.service, app=[])
        self.assertRaises(AppError, self.service, app=type("Nothing", (App,), {}))
        self.assertRaises(AppError, self.service, options={"a": 1})


class ListenTests(TestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()

    def listen(self, *where: Any, app: Any = Tickets, **settings: Any) -> server.Listening:
        made = server.listen(app, *where, server={"drain_timeout": 0}, **settings)
        self.addCleanup(made.stop)
        return made

    @staticmethod
    def send(port: int, *recipients: str, tls: bool = False) -> Deferred[Any]:
        """(replies to RCPT, reply to the text) of a message to these."""

        def sent() -> Any:
            with smtplib.SMTP("127.0.0.1", port, timeout=10) as client:
                client.ehlo()
                if tls:
                    client.starttls()
                    client.ehlo()
                client.mail("a@example.net")
                replies = [client.rcpt(recipient)[0] for recipient in recipients]
                return replies, client.data(b"Subject: x\r\n\r\nhello\r\n")

        return deferToThread(sent)

    async def test_an_app_gets_mail_and_all_other_mail_is_refused(self) -> None:
        made = self.listen("127.0.0.1:0", match={"recipients": "tickets+*@example.org"})
        (port,) = made.ports
        replies, last = await self.send(
            port, "tickets+x@example.org", "b@example.org", "tickets+7@example.org", tls=True
        )
        self.assertEqual(replies, [550, 550, 250])
        self.assertEqual(last, (250, b"2.0.0 21 octets for ticket 7"))

    async def test_a_function_takes_everything(self) -> None:
        made = self.listen("127.0.0.1:0", app=take)
        replies, last = await self.send(made.ports[0], "b@example.org", "c@example.com")
        self.assertEqual((replies, last), ([250, 250], (250, b"2.0.0 taken from a@example.net")))

    async def test_nothing_is_left_when_it_has_stopped(self) -> None:
        made = server.listen(take, "127.0.0.1:0")
        folder = made.config.server.data_dir
        self.assertTrue(folder.exists())
        await made.stop()
        self.assertFalse(folder.exists())
        with self.assertRaises(ConnectionRefusedError):
            await self.send(made.ports[0] if made.ports else 1, "b@example.org")

    async def test_a_port_that_is_taken_is_said_and_nothing_is_left(self) -> None:
        made = self.listen("127.0.0.1:0", app=take)
        error = self.assertRaises(server.StartError, server.listen, take, f"127.0.0.1:{made.ports[0]}")
        self.assertIn(str(made.ports[0]), str(error))

    async def test_a_data_dir_has_accounts_too(self) -> None:
        folder = self.folder
        made = self.listen(
            "127.0.0.1:0", data_dir=folder, domains=["example.org"], match={"recipients": "tickets+*@example.org"}
        )
        made.ground.accounts.add_account(parse_address("b@example.org"), "a long password")
        replies, last = await self.send(made.ports[0], "tickets+1@example.org", "nobody@example.org", "b@example.org")
        self.assertEqual((replies, last[0]), ([250, 550, 250], 250))
        self.assertEqual(len(list(folder.glob("mail/**/new/*"))), 1)
        self.assertTrue((folder / "accounts.sqlite3").exists())


ENDING = """
import mailserver
from twisted.internet import reactor

async def take(envelope, message):
    return None

class Closes(mailserver.App):
    @classmethod
    def teardown(cls, shared):
        print("closed")

    def message(self, envelope, message):
        return None

made = mailserver.listen(Closes, "127.0.0.1:0")
other = mailserver.listen(take, "127.0.0.1:0")
print(made._folder.exists())
reactor.callWhenRunning(lambda: other.stop().addCallback(lambda _: reactor.stop()))
reactor.run()
print(made._folder.exists(), other._folder.exists())
"""
PROGRAM = """
import smtplib, mailserver
from mailserver import server
from mailserver.address import parse_address

async def take(envelope, message):
    return f"thanks for {message.size}"

made = mailserver.start(take, "tcp:127.0.0.1:0", {"address": "127.0.0.1:0", "protocol": "lmtp"})
with smtplib.SMTP("127.0.0.1", made.ports[0]) as client:
    client.ehlo()
    client.mail("a@example.org"), client.rcpt("b@example.org")
    print(client.data(b"hello"), server.sessions())
try:
    mailserver.start(take, "127.0.0.1:0")
except RuntimeError as error:
    print(error)
other = mailserver.start(take, "127.0.0.1:0", name="other")
mailserver.stop()
try:
    mailserver.stop()
except KeyError as error:
    print("no", error)
mailserver.start(take, "127.0.0.1:0")
print("end")
"""


class StartTests(SynchronousTestCase):
    """A program without a reactor; in a process of its own, for trial has one."""

    def test_what_listens_ends_with_the_reactor_and_leaves_nothing(self) -> None:
        done = subprocess.run([sys.executable, "-c", ENDING], capture_output=True, text=True, timeout=60, check=False)
        self.assertEqual((done.stderr, done.returncode), ("", 0))
        self.assertEqual(done.stdout.splitlines(), ["True", "closed", "False False"])

    def test_start_and_stop_beside_a_program(self) -> None:
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=False
        )
        self.assertEqual(done.stderr, "")
        self.assertEqual(
            done.stdout.splitlines(),
            [
                "(250, b'2.0.0 thanks for 7') 1",
                'there is a server "default" already; give this one another name, or stop that',
                "no 'default'",
                "end",
            ],
        )
        self.assertEqual(done.returncode, 0)
