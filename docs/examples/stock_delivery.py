"""
A mail program with the interfaces of twisted.mail: takes mail for example.org and shows the subject of each message.

Run it:  python docs/examples/stock_delivery.py
Send:    curl smtp://127.0.0.1:2626 --mail-from me@example.com --mail-rcpt you@example.org -T FILE
"""

from __future__ import annotations

import email
import sys
from collections.abc import Callable
from typing import Any

from twisted.cred.checkers import AllowAnonymousAccess
from twisted.cred.portal import IRealm, Portal
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import react
from twisted.mail.interfaces import IMessageDelivery, IMessageSMTP
from twisted.mail.smtp import SMTPBadRcpt, User
from zope.interface import implementer

from mailserver.smtp.server import ESMTPServerFactory


@implementer(IMessageSMTP)
class Subject:
    """One message: its lines come one by one, without their CRLF."""

    def __init__(self, show: Callable[[str], object]) -> None:
        self._show = show
        self._lines: list[bytes] = []

    def lineReceived(self, line: bytes) -> None:
        self._lines.append(line)

    def eomReceived(self) -> Deferred[None]:
        """The message is complete.  The client gets its 250 when this Deferred fires."""
        message = email.message_from_bytes(b"\r\n".join(self._lines))
        self._show(str(message["Subject"]))
        return succeed(None)

    def connectionLost(self) -> None:
        """The message will never be complete."""


@implementer(IMessageDelivery)
class Delivery:
    """Who may send, and to whom."""

    def __init__(self, show: Callable[[str], object]) -> None:
        self._show = show

    def receivedHeader(self, helo: Any, origin: Any, recipients: Any) -> bytes:
        return b""

    def validateFrom(self, helo: Any, origin: Any) -> Any:
        return origin

    def validateTo(self, user: User) -> Callable[[], Subject]:
        if user.dest.domain != b"example.org":
            raise SMTPBadRcpt(user)
        return lambda: Subject(self._show)


@implementer(IRealm)
class Realm:
    """Gives everybody a delivery."""

    def __init__(self, show: Callable[[str], object]) -> None:
        self._show = show

    def requestAvatar(self, avatarId: Any, mind: Any, *interfaces: Any) -> Any:
        return IMessageDelivery, Delivery(self._show), lambda: None


def make_factory(show: Callable[[str], object]) -> ESMTPServerFactory:
    """The factory for `listenTCP` or an endpoint; show: called with the subject of each message."""
    portal = Portal(Realm(show))
    portal.registerChecker(AllowAnonymousAccess())
    return ESMTPServerFactory(portal)


def main(reactor: Any) -> Deferred[None]:
    """Listen until Ctrl-C."""
    reactor.listenTCP(2626, make_factory(lambda subject: sys.stdout.write(subject + "\n")), interface="127.0.0.1")
    return Deferred()


if __name__ == "__main__":
    react(main)
