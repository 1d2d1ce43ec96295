"""Who takes a recipient: the first app that matches and takes mail, else who stands behind the apps."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mailserver.address import Address
from mailserver.apps.app import App
from mailserver.apps.avatar import AppAvatar, Surroundings
from mailserver.interfaces import IMailAvatar
from mailserver.reply import UNKNOWN_USER, Refusal, Reply
from mailserver.smtp.rules import SessionSettings
from tests.apps.line import DATA, EHLO, MAIL, OPEN, RCPT, AppLine, settings_of
from tests.smtp.test_server import LogCase
from tests.smtp.wire import Avatar


class Taking(App):
    taken: list[Any] = []

    def message(self, envelope: Any, message: Any) -> None:
        self.taken.append((self.name, [str(each.address) for each in envelope.recipients], message.read()))


class Seeing(App):
    seen: list[Any] = []

    def rcpt(self, recipient: Any, parameters: Any) -> None:
        self.seen.append((self.name, recipient.user, recipient.detail, recipient.domain))


class RoutingTests(LogCase):
    def setUp(self) -> None:
        super().setUp()
        Taking.taken.clear()
        Seeing.seen.clear()

    def test_it_is_an_avatar(self) -> None:
        inner = Avatar("user", {})
        avatar = AppAvatar((), lambda *_: None, inner, Surroundings("mx", lambda: 0.0, lambda: None))  # type: ignore[arg-type, return-value]
        verifyObject(IMailAvatar, avatar)
        self.assertEqual(avatar.user, "user")
        avatar.logout()
        self.assertEqual(inner.calls, ["logout"])

    def test_an_address_that_an_app_takes_needs_no_account(self) -> None:
        line = AppLine(
            settings_of(Taking, name="t", recipients=("b+*@example.org",)), steps={"rcpt": Refusal(UNKNOWN_USER)}
        )
        line.say(EHLO, MAIL, RCPT, b"RCPT TO:<b+1@example.org>", DATA).say(b"hi", b".")
        self.assertEqual(line.codes, "220 250 250 550 250 354 250")
        self.assertEqual(Taking.taken, [("t", ["b+1@example.org"], b"hi\r\n")])
        self.assertEqual(line.avatar.deliveries, [], "nobody behind has anything to do with it")

    def test_one_that_takes_nothing_lets_it_go_on(self) -> None:
        line = AppLine(settings_of(Seeing, name="s"), settings_of(Seeing, name="other", separator="-"))
        line.say(EHLO, MAIL, b"RCPT TO:<b+x@example.org>", DATA).say(b"hi", b".")
        self.assertEqual(Seeing.seen, [("s", "b", "x", "example.org"), ("other", "b+x", "", "example.org")])
        self.assertEqual(line.delivery.text, b"hi\r\n")

    def test_the_first_that_takes_it_is_the_last_that_is_asked(self) -> None:
        line = AppLine(
            settings_of(Taking, name="first", recipients=("b@*",)),
            settings_of(Seeing, name="never"),
            settings_of(Taking, name="second"),
        )
        line.say(*OPEN).say(b"hi", b".")
        self.assertEqual(([each[0] for each in Taking.taken], Seeing.seen), (["first"], []))

    def test_recipients_of_several_apps_and_of_mailboxes_in_one_message(self) -> None:
        line = AppLine(
            settings_of(Taking, name="x", recipients=("x*@example.org",)),
            settings_of(Taking, name="y", recipients=("y@example.org",)),
        )
        line.say(EHLO, MAIL, *(b"RCPT TO:<%s@example.org>" % name for name in (b"x1", b"b", b"y", b"x2")), DATA)
        line.say(b"hi", b".")
        self.assertEqual(
            Taking.taken,
            [("x", ["x1@example.org", "x2@example.org"], b"hi\r\n"), ("y", ["y@example.org"], b"hi\r\n")],
        )
        self.assertEqual(line.delivery.done, ["write", "prepare", "commit"])
        self.assertTrue(line.last.startswith("250"))

    def test_senders_are_matched(self) -> None:
        line = AppLine(settings_of(Taking, name="t", senders=("*@example.com",)))
        line.say(*OPEN).say(b"one", b".", b"MAIL FROM:<a@example.com>", RCPT, DATA, b"two", b".")
        self.assertEqual([each[2] for each in Taking.taken], [b"two\r\n"])
        self.assertEqual(line.delivery.text, b"one\r\n")

    def test_an_app_can_send_a_recipient_elsewhere(self) -> None:
        given: list[Any] = []

        class Moves(App):
            def rcpt(self, recipient: Any, parameters: Any) -> str:
                return "moved@example.org"

        class Behind(Avatar):
            def rcpt(self, envelope: Any, recipient: Any) -> Any:
                given.append((str(recipient.address), [str(each.address) for each in envelope.recipients]))

            def data(self, envelope: Any) -> Any:
                given.append([str(each.address) for each in envelope.recipients])
                return super().data(envelope)

        line = AppLine(settings_of(Moves, recipients=("b@*",)))
        line.realm.requestAvatar = lambda *_: (IMailAvatar, Behind("", {}), lambda: None)  # type: ignore[method-assign]
        line.say(EHLO, MAIL, RCPT, b"RCPT TO:<c@example.org>", DATA).say(b".")
        self.assertEqual(
            given,
            [
                ("moved@example.org", []),
                ("c@example.org", ["moved@example.org"]),
                ["moved@example.org", "c@example.org"],
            ],
        )

    def test_an_app_can_change_the_sender(self) -> None:
        seen: list[Any] = []

        class Moves(App):
            def mail(self, sender: Any, parameters: Any) -> Address:
                return Address("other", "example.net")

            def message(self, envelope: Any, message: Any) -> None:
                seen.append((str(envelope.sender), message.trace.split(b"\r\n")[0]))

        AppLine(Moves).say(*OPEN).say(b".")
        self.assertEqual(seen, [("other@example.net", b"Return-Path: <other@example.net>")])

    def test_what_is_no_address_is_trouble(self) -> None:
        class Bad(App):
            def rcpt(self, recipient: Any, parameters: Any) -> Any:
                return 7 if recipient.local == "b" else "no address"

        line = AppLine(Bad).say(EHLO, MAIL, RCPT, b"RCPT TO:<c@example.org>")
        self.assertEqual(line.codes, "220 250 250 451 451")
        self.assertEqual([event["app"] for event in self.named("app-failed")], ["Bad", "Bad"])

    def test_what_shall_be_held_is_refused_by_an_app_and_not_taken_now(self) -> None:
        settings = SessionSettings("mx.example.org", hold=1000, now=lambda: 0.0)
        line = AppLine(settings_of(Taking, name="t", recipients=("b@example.org",)), settings=settings)
        line.say(EHLO, b"MAIL FROM:<a@example.net> HOLDFOR=10", RCPT, b"RCPT TO:<c@example.org>", b"RSET")
        line.say(b"MAIL FROM:<a@example.net> HOLDFOR=0", RCPT)
        self.assertEqual(line.codes, "220 250 250 504 250 250 250 250")
        self.assertEqual(Taking.taken, [])

    def test_the_policies_behind_are_asked_first(self) -> None:
        class Never(App):
            def mail(self, sender: Any, parameters: Any) -> None:
                raise AssertionError("it was refused before")

        line = AppLine(Never, steps={"mail": Refusal(Reply(550, "5.7.1", "not you"))}).say(EHLO, MAIL)
        self.assertEqual(line.last, "550 5.7.1 not you")

    def test_reset_is_told_to_all(self) -> None:
        told: list[str] = []

        class Hears(App):
            def reset(self) -> None:
                told.append(self.name)

        line = AppLine(Hears).say(EHLO, MAIL, b"RSET")
        self.assertEqual((told, line.avatar.calls[-1]), (["Hears"], "reset"))


class VerifyTests(SynchronousTestCase):
    def test_an_app_answers_or_leaves_it(self) -> None:
        class Knows(App):
            def verify(self, address: Any) -> Any:
                if address.local == "someuser":
                    return f"{address} is here"
                if address.local == "nobody":
                    self.refuse(550, "5.1.1", "nobody here")
                return Reply(252, "2.5.0", "VRFY disabled by policy, just send some mail")

        line = AppLine(Knows).say(
            EHLO, b"VRFY someuser@example.org", b"VRFY nobody@example.org", b"VRFY x@example.org"
        )
        self.assertEqual(line.codes, "220 250 250 550 252")
        self.assertIn("250 2.1.5 someuser@example.org is here", line.wire.value().decode())

    def test_what_the_app_leaves_tells_nothing_about_accounts(self) -> None:
        class Leaves(App):
            def verify(self, address: Any) -> None:
                pass

        line = AppLine(Leaves).say(EHLO, b"VRFY someuser@example.org")
        self.assertTrue(line.last.startswith("252"))
