"""Texts, replies and addresses of apps; and what is none of them."""

from __future__ import annotations

from types import SimpleNamespace

from mailserver.address import Address
from mailserver.apps.answers import address_of, reply_of
from mailserver.reply import LOCAL_TROUBLE, Refusal, Reply
from tests.smtp.test_server import LogCase

APP = SimpleNamespace(name="mine")


class AnswersTests(LogCase):
    def test_texts_and_replies(self) -> None:
        self.assertIsNone(reply_of(None, APP, "command", ""))
        self.assertEqual(reply_of("hello", APP, "command", "2.0.0"), Reply(250, "2.0.0", "hello"))
        self.assertEqual(reply_of(Reply(211, "", "x"), APP, "command", ""), Reply(211, "", "x"))

    def test_addresses(self) -> None:
        alice = Address("alice", "example.org")
        self.assertEqual(address_of("alice@example.org", APP, "rcpt"), alice)
        self.assertIs(address_of(alice, APP, "rcpt"), alice)

    def test_an_address_that_an_app_has_built_is_one_that_could_have_been_sent(self) -> None:
        for local in ("a\r\nBcc: b", "a\0", "\udcff", "", "x" * 65):
            self.assertRaises(Refusal, address_of, Address(local, "example.org"), APP, "rcpt")
        for kept in (Address("postmaster", ""), Address("a b", "example.org"), Address("jörg", "[192.0.2.1]")):
            self.assertIs(address_of(kept, APP, "rcpt"), kept)

    def test_nonsense_is_temporary_and_has_a_name(self) -> None:
        for understand, answer in ((reply_of, 7), (address_of, 7), (address_of, "no address"), (address_of, "")):
            arguments = (answer, APP, "rcpt", "") if understand is reply_of else (answer, APP, "rcpt")
            refusal = self.assertRaises(Refusal, understand, *arguments)
            self.assertEqual(refusal.reply, LOCAL_TROUBLE)
        self.assertEqual(
            {(event["app"], event["callback"]) for event in self.named("app-failed")}, {("mine", "rcpt")}
        )
