"""The programs of docs/examples are what docs/programming.md says: each runs here, with a real client on loopback."""

from __future__ import annotations

import importlib.util
import smtplib
import ssl
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from twisted.internet import reactor as the_reactor
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface.verify import verifyObject

from mailserver.config import load
from mailserver.interfaces import IDelivery, IMailAvatar

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "docs" / "examples"
MESSAGE = b"Subject: hello\r\n\r\n.It works.\r\n"
CONFIGURATION = """\
[server]
hostname = "mail.example.org"
data_dir = "data"
[[listener]]
address = "127.0.0.1:0"
protocol = "smtp"
[[domain]]
name = "example.org"
"""
#: Seconds after which a client gives up.
PATIENCE = 20
reactor: Any = the_reactor


def example(name: str) -> ModuleType:
    """The module of an example."""
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def send(port: int, recipient: str, sender: str = "me@example.com") -> str:
    """Send the message; the reply to its end, or what was said instead."""
    with smtplib.SMTP("127.0.0.1", port, timeout=PATIENCE) as client:
        client.ehlo("client.example.com")
        return conversation(client, sender, recipient)


def conversation(client: smtplib.SMTP, sender: str, recipient: str) -> str:
    """One transaction, up to the first refusal."""
    for ask in (lambda: client.mail(sender), lambda: client.rcpt(recipient), lambda: client.data(MESSAGE)):
        try:
            code, text = ask()
        except smtplib.SMTPDataError as error:
            code, text = error.smtp_code, error.smtp_error
        if code >= 400:
            break
    return f"{code} {text.decode() if isinstance(text, bytes) else text}"


class ExampleTestCase(TestCase):
    timeout = 60

    def listen(self, factory: Any) -> int:
        """Listen on a free port until the test ends; the port."""
        port = reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        self.addCleanup(factory.connections.empty)
        return int(port.getHost().port)

    def folder(self) -> Path:
        """A new folder."""
        path = Path(self.mktemp()).absolute()
        path.mkdir()
        return path

    def in_thread(self, function: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        """The client, which blocks, beside the server."""
        return deferToThread(function, *arguments)


class StockDeliveryTests(ExampleTestCase):
    async def test_a_delivery_written_for_twisted_mail(self) -> None:
        subjects: list[str] = []
        port = self.listen(example("stock_delivery").make_factory(subjects.append))
        accepted = await self.in_thread(send, port, "you@example.org")
        refused = await self.in_thread(send, port, "you@example.net")
        self.assertEqual((accepted[:9], subjects), ("250 2.0.0", ["hello"]))
        self.assertEqual(refused[:9], "550 5.1.1")


class OwnLoginsTests(ExampleTestCase):
    def _log_in_and_send(self, port: int, password: str, sender: str) -> str:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        with smtplib.SMTP("127.0.0.1", port, timeout=PATIENCE) as client:
            client.starttls(context=context)
            client.ehlo("client.example.com")
            try:
                client.user, client.password = "alice", password
                client.auth("PLAIN", client.auth_plain)
            except smtplib.SMTPAuthenticationError as error:
                return f"{error.smtp_code} {error.smtp_error!r}"
            return conversation(client, sender, "bob@example.org")

    async def test_a_realm_and_a_checker_of_one_s_own(self) -> None:
        sizes: list[int] = []
        directory = self.folder()
        port = self.listen(example("own_logins").make_factory(directory, sizes.append))
        for password, sender, expected in (
            ("wonderland", "alice@example.org", "250 2.0.0"),
            ("wonderland", "bob@example.org", "550 5.7.1"),
            ("mirror", "alice@example.org", "535 b'5.7"),
        ):
            reply = await self.in_thread(self._log_in_and_send, port, password, sender)
            self.assertEqual(reply[:9], expected)
        self.assertEqual(sizes, [len(MESSAGE)])
        self.assertEqual((await self.in_thread(send, port, "bob@example.org"))[:9], "530 5.7.0")


class ContractTests(ExampleTestCase):
    def test_the_classes_of_the_examples_keep_their_contracts(self) -> None:
        tickets, logins = example("tickets"), example("own_logins")
        desk = tickets.Desk(reactor)
        self.assertTrue(verifyObject(IMailAvatar, tickets.TicketAvatar(desk)))
        self.assertTrue(verifyObject(IDelivery, tickets.Addition(desk, 1)))
        self.assertTrue(verifyObject(IMailAvatar, logins.Sender("alice", list)))
        self.assertTrue(verifyObject(IDelivery, logins.Counted(list)))


class TicketsTests(ExampleTestCase):
    async def test_mail_into_a_program(self) -> None:
        module = example("tickets")
        desk = module.Desk(reactor)
        port = self.listen(module.make_factory(desk))
        for recipient, expected in (
            ("ticket-7@example.org", "250 2.0.0 Added to ticket 7"),
            ("ticket-9@example.org", "550 5.1.1 There is no such ticket"),
            ("sales@example.org", "550 5.1.1 There is no such ticket"),
        ):
            # smtplib takes the enhanced code for text, and leaves it there.
            self.assertEqual(await self.in_thread(send, port, recipient), expected)
        self.assertEqual(desk.tickets, {7: [MESSAGE], 8: []})


class WholeServerTests(ExampleTestCase):
    async def test_the_whole_server_in_a_program(self) -> None:
        path = self.folder() / "mailserver.toml"
        path.write_text(CONFIGURATION)
        said: list[str] = []
        everything = example("whole_server").make_services(load(path), reactor, said.append)
        everything.startService()
        self.addCleanup(everything.stopService)
        port = int(said[0].rpartition(":")[2])
        refused = await self.in_thread(send, port, "nobody@example.org")
        self.assertEqual(refused[:9], "550 5.1.1")
        self.assertEqual(said[1], "0 connections are open")


class FolderTests(SynchronousTestCase):
    def test_each_example_is_in_the_manual_and_is_run_by_a_test(self) -> None:
        pages = "".join(path.read_text("utf-8") for path in (ROOT / "docs").glob("*.md"))
        tests = "".join(path.read_text("utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
        names = sorted(path.stem for path in EXAMPLES.glob("*.py"))
        self.assertTrue(names)
        for name in names:
            self.assertIn(f"(examples/{name}.py)", pages)
            self.assertIn(f'example("{name}")', tests)
