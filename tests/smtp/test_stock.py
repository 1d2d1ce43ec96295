"""What was written for stock twisted.mail plugs in unchanged: deliveries, messages, realms, checkers, challengers."""

from __future__ import annotations

from typing import Any

from twisted.cred.checkers import AllowAnonymousAccess, InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.credentials import CramMD5Credentials, IUsernameHashedPassword
from twisted.cred.portal import IRealm, Portal
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.mail.imap4 import LOGINCredentials, PLAINCredentials
from twisted.mail.interfaces import IMessageDelivery, IMessageDeliveryFactory, IMessageSMTP
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from mailserver import reply as replies
from mailserver.interfaces import ICramMD5Response, IDelivery, IMailAvatar
from mailserver.reply import Refusal, Reply
from mailserver.sasl import Challenge, Malformed
from mailserver.smtp import stock as ours
from mailserver.smtp.server import ESMTPServer, ESMTPServerFactory
from mailserver.smtp.stock_import import stock
from tests.smtp.phrases import b64
from tests.smtp.wire import PEER, Wire


@implementer(IMessageSMTP)
class Message:
    """As in twisted.mail's documentation: lines, end, loss."""

    def __init__(self, box: list[Any]) -> None:
        self.lines: list[bytes] = []
        self.lost = False
        self.result: Any = succeed(None)
        box.append(self)

    def lineReceived(self, line: bytes) -> None:
        self.lines.append(line)

    def eomReceived(self) -> Any:
        self.lines.append(b"<eom>")
        return self.result

    def connectionLost(self) -> None:
        self.lost = True


@implementer(IMessageDelivery)
class Delivery:
    """A delivery as a user of twisted.mail writes it."""

    def __init__(self) -> None:
        self.box: list[Any] = []
        self.senders: list[Any] = []

    def receivedHeader(self, helo: Any, origin: Any, recipients: Any) -> bytes:
        assert isinstance(helo[0], bytes)
        return b"Received: from " + helo[0] + b"\n\tfor " + bytes(recipients[0])

    def validateFrom(self, helo: Any, origin: Any) -> Any:
        self.senders.append(bytes(origin))
        if origin.local == b"bad":
            raise stock.SMTPBadSender(origin)
        return origin

    def validateTo(self, user: Any) -> Any:
        if user.dest.local == b"nobody":
            raise stock.SMTPBadRcpt(user)
        if user.dest.local == b"later":
            return fail(stock.SMTPServerError(452, b"box is full"))
        if user.dest.local == b"broken":
            raise ValueError("broken")
        if user.dest.local == b"slow":
            return succeed(lambda: Message(self.box))
        return lambda: Message(self.box)


class Factory(ESMTPServerFactory):
    """As users of twisted.mail write it: buildProtocol sets what the protocol needs."""

    def __init__(self, delivery: Any = None, challengers: dict[bytes, Any] | None = None, portal: Any = None) -> None:
        super().__init__(portal, clock=Clock())
        self.domain = b"mx.example.org"
        self.delivery = delivery
        self.challengers = challengers or {}

    def buildProtocol(self, addr: Any) -> ESMTPServer:
        server = super().buildProtocol(addr)
        server.delivery = self.delivery
        server.challengers = self.challengers
        return server


def connect(factory: ESMTPServerFactory) -> tuple[ESMTPServer, Wire]:
    server, wire = factory.buildProtocol(PEER), Wire()
    server.makeConnection(wire)
    return server, wire


def codes(wire: Wire) -> str:
    lines = wire.value().decode("ascii").split("\r\n")[:-1]
    return " ".join(line[:3] for line in lines if line[3:4] == " ")


def say(server: ESMTPServer, *lines: bytes) -> None:
    server.dataReceived(b"".join(line + b"\r\n" for line in lines))


class DeliveryTests(SynchronousTestCase):
    def test_a_message_reaches_each_recipients_own_object(self) -> None:
        delivery = Delivery()
        server, wire = connect(Factory(delivery))
        say(
            server,
            b"EHLO client",
            b"MAIL FROM:<a@example.net>",
            b"RCPT TO:<b@example.org>",
            b"RCPT TO:<slow@example.org>",
        )
        say(server, b"DATA")
        say(server, b"Subject: x", b"", b"..dot", b".")
        self.assertEqual(codes(wire), "220 250 250 250 250 354 250")
        first, second = delivery.box
        self.assertEqual(first.lines[0], b"Received: from client\n\tfor b@example.org")
        self.assertEqual(first.lines[1:], [b"Subject: x", b"", b".dot", b"<eom>"])
        self.assertEqual(second.lines[1:], first.lines[1:])
        self.assertEqual(delivery.senders, [b"a@example.net"])

    def test_its_refusals_keep_their_code(self) -> None:
        server, wire = connect(Factory(Delivery()))
        say(server, b"EHLO client", b"MAIL FROM:<bad@example.net>", b"MAIL FROM:<a@example.net>")
        say(server, b"RCPT TO:<nobody@example.org>", b"RCPT TO:<later@example.org>", b"RCPT TO:<broken@example.org>")
        self.assertEqual(codes(wire), "220 250 550 250 550 452 451")
        self.assertIn(b"452 4.0.0 box is full", wire.value())
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_the_null_sender(self) -> None:
        delivery = Delivery()
        server, wire = connect(Factory(delivery))
        say(server, b"EHLO client", b"MAIL FROM:<>")
        self.assertEqual((codes(wire), delivery.senders), ("220 250 250", [b""]))

    def test_a_lost_connection_is_told(self) -> None:
        delivery = Delivery()
        server, _ = connect(Factory(delivery))
        say(server, b"EHLO c", b"MAIL FROM:<a@b>", b"RCPT TO:<c@d>", b"DATA", b"x")
        server.connectionLost(Failure(ConnectionResetError()))
        self.assertTrue(delivery.box[0].lost)

    def test_an_end_that_comes_later_and_one_that_fails(self) -> None:
        for result, code in ((stock.SMTPServerError(554, b"spam"), "554"), (ValueError("x"), "451"), (None, "250")):
            delivery = Delivery()
            server, wire = connect(Factory(delivery))
            say(server, b"EHLO c", b"MAIL FROM:<a@b>", b"RCPT TO:<c@d>", b"DATA")
            end: Deferred[None] = Deferred()
            delivery.box[0].result = end
            say(server, b"x", b".")
            self.assertEqual(codes(wire)[-3:], "354")
            end.callback(None) if result is None else end.errback(result)
            self.assertEqual(codes(wire)[-3:], code)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_a_message_without_a_header_gets_an_empty_line_first(self) -> None:
        delivery = Delivery()
        server, _ = connect(Factory(delivery))
        say(server, b"EHLO c", b"MAIL FROM:<a@b>", b"RCPT TO:<c@d>", b"DATA")
        say(server, b"no header at all", b".")
        self.assertEqual(delivery.box[0].lines[1:], [b"", b"no header at all", b"<eom>"])

    def test_a_server_whose_validate_methods_are_overridden(self) -> None:
        box: list[Any] = []

        class Own(ESMTPServer):
            def validateFrom(self, helo: Any, origin: Any) -> Any:
                return origin

            def validateTo(self, user: Any) -> Any:
                return lambda: Message(box)

            def receivedHeader(self, helo: Any, origin: Any, recipients: Any) -> None:
                return None

        factory = Factory()
        factory.protocol = Own
        server, wire = connect(factory)
        say(server, b"EHLO c", b"MAIL FROM:<a@b>", b"RCPT TO:<c@d>", b"DATA", b"A: b", b".")
        self.assertEqual(codes(wire), "220 250 250 250 354 250")
        self.assertEqual(box[0].lines, [b"A: b", b"<eom>"])

    def test_without_delivery_and_portal_nothing_is_taken(self) -> None:
        server, wire = connect(Factory())
        say(server, b"EHLO c", b"MAIL FROM:<a@b>")
        self.assertEqual(codes(wire), "220 250 550")


@implementer(IRealm)
class StockRealm:
    """Gives an IMessageDelivery, or a factory of them, as realms for twisted.mail do."""

    def __init__(self, interface: Any) -> None:
        self.interface = interface
        self.deliveries: list[Delivery] = []
        self.logouts = 0

    def requestAvatar(self, avatarId: Any, mind: Any, *interfaces: Any) -> Any:
        assert self.interface in interfaces
        return self.interface, self, self.logout

    def getMessageDelivery(self) -> Delivery:
        self.deliveries.append(Delivery())
        return self.deliveries[-1]

    def __getattr__(self, name: str) -> Any:
        if not self.deliveries:
            self.getMessageDelivery()
        return getattr(self.deliveries[-1], name)

    def logout(self) -> None:
        self.logouts += 1


class PortalTests(SynchronousTestCase):
    """A stock Portal, realm and checkers."""

    def checker(self) -> InMemoryUsernamePasswordDatabaseDontUse:
        checker = InMemoryUsernamePasswordDatabaseDontUse()
        checker.addUser(b"tim", b"tanstaaftanstaaf")
        return checker

    def test_an_anonymous_login_gives_the_delivery(self) -> None:
        for interface in (IMessageDelivery, IMessageDeliveryFactory):
            realm = StockRealm(interface)
            server, wire = connect(Factory(portal=Portal(realm, [AllowAnonymousAccess()])))
            say(server, b"EHLO c", b"MAIL FROM:<a@b>", b"RCPT TO:<c@d>", b"DATA")
            say(server, b"A: b", b".")
            self.assertEqual(codes(wire), "220 250 250 250 354 250")
            self.assertEqual(realm.deliveries[-1].box[0].lines[1:], [b"A: b", b"<eom>"])
            server.connectionLost(Failure(ConnectionResetError()))
            self.assertEqual(realm.logouts, 1)

    def test_the_stock_challengers_log_in(self) -> None:
        challengers = {b"LOGIN": LOGINCredentials, b"PLAIN": PLAINCredentials, b"CRAM-MD5": CramMD5Credentials}
        realm = StockRealm(IMessageDelivery)
        for commands in (
            (b"AUTH PLAIN " + b64(b"\0tim\0tanstaaftanstaaf").strip(),),
            (b"AUTH LOGIN", b64(b"tim").strip(), b64(b"tanstaaftanstaaf").strip()),
        ):
            server, wire = connect(Factory(challengers=challengers, portal=Portal(realm, [self.checker()])))
            server.settings = None
            server.session.settings = _insecure(server)
            say(server, b"EHLO c", *commands, b"MAIL FROM:<a@b>")
            self.assertEqual(codes(wire)[-7:], "235 250")

    def test_a_challenger_of_somebody_elses_make(self) -> None:
        realm = StockRealm(IMessageDelivery)
        server, wire = connect(
            Factory(challengers={b"X-LOGIN": LOGINCredentials}, portal=Portal(realm, [self.checker()]))
        )
        server.session.settings = _insecure(server)
        say(
            server,
            b"EHLO c",
            b"AUTH X-LOGIN",
            b64(b"tim").strip(),
            b64(b"tanstaaftanstaaf").strip(),
            b"MAIL FROM:<a@b>",
        )
        self.assertEqual(codes(wire), "220 250 334 334 235 250")

    def test_passwords_are_for_tls_only_unless_said_otherwise(self) -> None:
        server, wire = connect(
            Factory(challengers={b"PLAIN": PLAINCredentials}, portal=Portal(StockRealm(IMessageDelivery), []))
        )
        say(server, b"EHLO c", b"AUTH PLAIN AGEAYg==")
        self.assertNotIn(b"AUTH", wire.value())
        self.assertEqual(codes(wire), "220 250 538")


def _insecure(server: ESMTPServer) -> Any:
    import dataclasses

    return dataclasses.replace(server.session.settings, insecure_auth=True)


class ReplyTests(SynchronousTestCase):
    def test_what_a_failure_is_told_as(self) -> None:
        cause = Refusal(replies.DISK_FULL)
        cause.__cause__ = OSError()
        table = (
            (Refusal(replies.UNKNOWN_USER), replies.UNKNOWN_USER, False),
            (cause, replies.DISK_FULL, True),
            (stock.SMTPServerError(554, b"no"), Reply(554, "5.0.0", "no"), False),
            (stock.SMTPServerError(250, b"odd"), replies.LOCAL_TROUBLE, False),
            (stock.SMTPServerError("x", b"odd"), replies.LOCAL_TROUBLE, False),
            (KeyError("x"), replies.LOCAL_TROUBLE, True),
        )
        for error, reply, logged in table:
            self.assertEqual(ours.reply_of(Failure(error)), (reply, logged))


class AdapterTests(SynchronousTestCase):
    def test_they_are_what_they_say(self) -> None:
        verifyObject(IMailAvatar, ours.StockAvatar(object()))
        verifyObject(IDelivery, ours.StockDelivery([]))
        credentials = ours.CramMD5Credentials(b"tim", b"c", "d")
        verifyObject(ICramMD5Response, credentials)
        verifyObject(IUsernameHashedPassword, credentials)

    def test_a_line_cut_in_two_blocks_is_one_line(self) -> None:
        message = Message([])
        delivery = ours.StockDelivery([message])
        for block in (b"A: ", b"b\r", b"\nend"):
            delivery.write(block)
        delivery.prepare()
        self.assertEqual(message.lines, [b"A: b", b"end"])

    def test_abort_never_raises(self) -> None:
        class Broken:
            def connectionLost(self) -> None:
                raise ValueError

        delivery = ours.StockDelivery([Broken(), message := Message([])])
        delivery.abort()
        delivery.abort()
        self.assertTrue(message.lost)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_a_foreign_exchange_without_a_password_is_malformed(self) -> None:
        class Odd:
            def getChallenge(self) -> bytes:
                return b"?"

            def setResponse(self, response: bytes) -> None:
                pass

            def moreChallenges(self) -> bool:
                return False

        mechanism = ours.ForeignMechanism("X", Odd())
        self.assertEqual(mechanism.start(None), Challenge(b"?"))
        self.assertRaises(Malformed, mechanism.respond, b"x")
