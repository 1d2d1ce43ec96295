"""Arrivals, waits, inboxes by recipient, and who may log in."""

from __future__ import annotations

import hmac
from typing import Any

from twisted.cred.credentials import UsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mailserver.address import parse_address
from mailserver.credentials import BearerToken, VerifiedUser
from mailserver.envelope import Recipient
from mailserver.interfaces import IDelivery, IMailAvatar, IScramKeys
from mailserver.reply import Refusal, Reply
from mailserver.smtp.stock import CramMD5Credentials
from mailserver.testing.faults import Effect, Faults, for_recipient
from mailserver.testing.inbox import ITERATIONS, Inbox, Inboxes, InboxRealm, Passwords
from mailserver.testing.received import MessageNotReceived, UnexpectedMessage, Wanted
from tests.testing.messages import NOON, TEXT, envelope, received

ANY = Wanted()


class InboxTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.inbox = Inbox(self.clock)

    def wait(self, wanted: Wanted = ANY, *, count: int = 1, timeout: float = 5.0) -> Any:
        return self.inbox.wait(wanted, count=count, timeout=timeout)

    def test_what_is_there_is_there_at_once(self) -> None:
        message = received()
        self.inbox.add(message)
        self.assertIs(self.successResultOf(self.wait()), message)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_the_arrival_ends_the_wait(self) -> None:
        waiting = self.wait(Wanted(to="c@example.org"))
        self.inbox.add(received())
        self.assertNoResult(waiting)
        message = received(TEXT, "a@example.net", "c@example.org")
        self.inbox.add(message)
        self.assertIs(self.successResultOf(waiting), message)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_the_third_may_be_waited_for(self) -> None:
        waiting = self.wait(count=3)
        messages = [received() for _ in range(3)]
        for message in messages[:2]:
            self.inbox.add(message)
        self.assertNoResult(waiting)
        self.inbox.add(messages[2])
        self.assertIs(self.successResultOf(waiting), messages[2])

    def test_after_its_time_the_wait_fails_and_tells_what_came(self) -> None:
        waiting = self.wait(Wanted(to="c@example.org"), timeout=2.5)
        self.inbox.add(received())
        self.clock.advance(2.4)
        self.assertNoResult(waiting)
        self.clock.advance(0.2)
        error = self.failureResultOf(waiting, MessageNotReceived).value
        self.assertIn("no message to c@example.org within 2.5 s; 1 message has arrived", str(error))

    def test_too_few_are_told_as_such(self) -> None:
        waiting = self.wait(count=2, timeout=0)
        self.assertIn("not 2 times a message", str(self.failureResultOf(waiting, MessageNotReceived).value))

    def test_a_question_that_fails_fails_the_wait(self) -> None:
        waiting = self.wait(Wanted(where=lambda message: 1 / 0))
        self.inbox.add(received())
        self.failureResultOf(waiting, ZeroDivisionError)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(len(self.inbox.messages), 1)

    def test_who_gives_up_leaves_nothing_behind(self) -> None:
        waiting = self.wait()
        waiting.addErrback(lambda failure: None)
        waiting.cancel()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.inbox.add(received())

    def test_the_end_of_the_server_ends_the_waits(self) -> None:
        waiting = self.wait()
        self.inbox.close()
        self.assertIn("was stopped", str(self.failureResultOf(waiting, MessageNotReceived).value))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_number_that_makes_no_sense_is_refused(self) -> None:
        self.assertRaises(ValueError, self.wait, count=0)

    def test_nothing_may_be_asserted_at_once(self) -> None:
        self.assertIsNone(self.successResultOf(self.inbox.none(ANY, within=0)))
        message = received()
        self.inbox.add(message)
        error = self.failureResultOf(self.inbox.none(ANY, within=0), UnexpectedMessage).value
        self.assertIs(error.message, message)

    def test_nothing_may_be_asserted_for_a_while(self) -> None:
        first, second = self.inbox.none(ANY, within=1.0), self.inbox.none(ANY, within=3.0)
        self.clock.advance(1.5)
        self.assertIsNone(self.successResultOf(first))
        self.inbox.add(received())
        self.failureResultOf(second, UnexpectedMessage)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_messages_are_a_list_of_the_caller_s(self) -> None:
        self.inbox.add(received())
        self.inbox.messages.clear()
        self.assertEqual(len(self.inbox.messages), 1)
        self.inbox.clear()
        self.assertEqual(self.inbox.messages, [])


class InboxesTests(SynchronousTestCase):
    def test_each_recipient_has_an_inbox(self) -> None:
        inbox = Inbox(Clock())
        both = received(TEXT, "a@example.net", "b@example.org", "c@example.org")
        one = received(TEXT, "a@example.net", "B@example.org")
        inbox.add(both)
        inbox.add(one)
        inboxes = Inboxes(inbox)
        self.assertEqual(inboxes["b@example.org"], [both, one])
        self.assertEqual(inboxes["c@example.org"], [both])
        self.assertEqual(inboxes["nobody@example.org"], [])
        self.assertEqual((list(inboxes), len(inboxes)), (["b@example.org", "c@example.org"], 2))
        self.assertEqual(repr(inboxes), "<Inboxes b@example.org: 2, c@example.org: 1>")


class DeliveryTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.faults = Faults()
        self.inbox = Inbox(Clock())

    def realm(self, *inboxes: str) -> InboxRealm:
        return InboxRealm(self.inbox, self.faults, inboxes or None, lambda: NOON)

    def avatar(self, *inboxes: str) -> Any:
        return self.realm(*inboxes).requestAvatar(b"anna", None, IMailAvatar)[1]

    def test_they_keep_their_contracts(self) -> None:
        avatar = self.avatar()
        verifyObject(IMailAvatar, avatar)
        verifyObject(IDelivery, avatar.data(envelope()))
        self.assertEqual(avatar.user, "anna")

    def test_a_message_arrives_as_it_was_sent(self) -> None:
        delivery = self.avatar().data(envelope())
        delivery.write(TEXT[:10])
        delivery.write(TEXT[10:])
        self.assertIsNone(delivery.prepare())
        self.assertEqual(self.inbox.messages, [])
        self.assertIsNone(delivery.commit())
        (message,) = self.inbox.messages
        self.assertEqual((message.raw, message.time), (TEXT, NOON))

    def test_only_inboxes_that_exist_get_mail(self) -> None:
        avatar = self.avatar("b@example.org", "*@example.com")
        for address, exists in (("B@example.org", True), ("x@example.com", True), ("c@example.org", False)):
            recipient = Recipient(parse_address(address))
            if exists:
                self.assertIsNone(avatar.rcpt(envelope(), recipient))
            else:
                refusal = self.assertRaises(Refusal, avatar.rcpt, envelope(), recipient)
                self.assertEqual(refusal.reply.code, 550)
            self.assertEqual(avatar.verify(recipient.address).positive, exists)

    def test_by_lmtp_each_recipient_may_fail(self) -> None:
        no = Reply(450, "4.2.0", "not now")
        where = for_recipient("c@example.org")
        self.faults.add("message", Effect(reply=no), times=None, where=where)
        delivery = self.avatar().data(envelope("a@example.net", "b@example.org", "c@example.org", protocol="LMTP"))
        delivery.write(TEXT)
        first, second = delivery.commit()
        self.assertEqual((first.code, second), (250, no))
        self.assertEqual([each.recipients for each in self.inbox.messages], [("b@example.org",)])

    def test_by_lmtp_all_may_fail(self) -> None:
        self.faults.add("message", Effect(reply=Reply(550, "", "no")), times=None, where=None)
        delivery = self.avatar().data(envelope("a@example.net", protocol="LMTPS"))
        (reply,) = delivery.commit()
        self.assertEqual((reply.code, self.inbox.messages), (550, []))


class PasswordsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.passwords = Passwords({"anna": "Xk-anna"})

    def test_it_knows_scram(self) -> None:
        verifyObject(IScramKeys, self.passwords)
        keys = self.passwords.scram_keys("anna")
        self.assertEqual(keys.iterations, ITERATIONS)
        self.assertEqual(self.passwords.scram_keys("anna"), keys)
        self.assertNotEqual(self.passwords.scram_keys("bob").stored_key, keys.stored_key)

    def test_the_right_password_lets_in(self) -> None:
        challenge = b"<1@example.org>"
        digest = hmac.new(b"Xk-anna", challenge, "md5").hexdigest()
        for credentials in (
            UsernamePassword(b"anna", b"Xk-anna"),
            CramMD5Credentials(b"anna", challenge, digest),
            VerifiedUser(b"anna"),
            BearerToken(b"anna", "Xk-anna", "XOAUTH2"),
        ):
            self.assertEqual(self.successResultOf(self.passwords.requestAvatarId(credentials)), b"anna")

    def test_a_wrong_one_does_not(self) -> None:
        for credentials in (
            UsernamePassword(b"anna", b"Xk-bob"),
            UsernamePassword(b"bob", b"Xk-anna"),
            CramMD5Credentials(b"anna", b"<1@example.org>", "0" * 32),
            VerifiedUser(b"bob"),
            BearerToken(b"anna", "wrong", "OAUTHBEARER"),
        ):
            self.failureResultOf(self.passwords.requestAvatarId(credentials), UnauthorizedLogin)

    def test_everybody_may_be_believed(self) -> None:
        credentials = UsernamePassword(b"whoever", b"whatever")
        self.assertEqual(self.successResultOf(Passwords("any").requestAvatarId(credentials)), b"whoever")
