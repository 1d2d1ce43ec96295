"""
Mail into a program, with the interfaces of mailserver: a message to ticket-7@example.org is added to ticket 7.

Shows what an avatar and a delivery may do: refuse with a reply of their own, answer later, keep the client waiting
while a block is written, and say yes only when the message is safe.

Run it:  python docs/examples/tickets.py
Send:    curl smtp://127.0.0.1:2626 --mail-from me@example.com --mail-rcpt ticket-7@example.org -T FILE
"""

from __future__ import annotations

import sys
from typing import Any

from twisted.cred.checkers import AllowAnonymousAccess
from twisted.cred.portal import IRealm, Portal
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater, react
from zope.interface import implementer

from mailserver.address import Address
from mailserver.envelope import Envelope, Recipient
from mailserver.interfaces import IDelivery, IMailAvatar
from mailserver.reply import CANNOT_VERIFY, Refusal, Reply
from mailserver.smtp.server import ESMTPServerFactory

NO_TICKET = Reply(550, "5.1.1", "There is no such ticket")
ONE_TICKET = Reply(452, "4.5.3", "One ticket for each message")
TOO_LONG = Reply(552, "5.3.4", "A message for a ticket has at most 1 MB")
MOST_OCTETS = 1_000_000


class Desk:
    """The tickets: number -> messages."""

    def __init__(self, reactor: Any) -> None:
        self.tickets: dict[int, list[bytes]] = {7: [], 8: []}
        self._reactor = reactor

    async def exists(self, number: int) -> bool:
        """Stands for a question to a database."""
        await deferLater(self._reactor, 0.01)
        return number in self.tickets


@implementer(IDelivery)
class Addition:
    """One message on its way to a ticket."""

    def __init__(self, desk: Desk, number: int) -> None:
        self._desk = desk
        self._number = number
        self._blocks: list[bytes] = []
        self._octets = 0

    def write(self, block: bytes) -> None:
        """Lines end in CRLF, dots are not doubled.  A Deferred here would keep the client from sending more."""
        self._octets += len(block)
        if self._octets > MOST_OCTETS:
            raise Refusal(TOO_LONG)
        self._blocks.append(block)

    def prepare(self) -> None:
        """All is here, and nobody sees it yet: the last moment to refuse."""

    async def commit(self) -> Reply:
        """When this returns the client is told yes, so what must be durable is durable now."""
        self._desk.tickets[self._number].append(b"".join(self._blocks))
        return Reply(250, "2.0.0", f"Added to ticket {self._number}")

    def abort(self) -> None:
        self._blocks.clear()


@implementer(IMailAvatar)
class TicketAvatar:
    """Decides about the mail of one connection."""

    user = ""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._number = 0

    def mail(self, envelope: Envelope) -> None:
        """Every sender is welcome."""

    async def rcpt(self, envelope: Envelope, recipient: Recipient) -> None:
        if envelope.recipients:
            raise Refusal(ONE_TICKET)
        word, _, number = recipient.address.local.partition("-")
        if word != "ticket" or not number.isdecimal() or not await self._desk.exists(int(number)):
            raise Refusal(NO_TICKET)
        self._number = int(number)

    def data(self, envelope: Envelope) -> Addition:
        return Addition(self._desk, self._number)

    def verify(self, address: Address) -> Reply:
        return CANNOT_VERIFY

    def reset(self) -> None:
        self._number = 0

    def logout(self) -> None:
        """No state beyond the transaction."""


@implementer(IRealm)
class Realm:
    """Everybody gets an avatar of the same desk."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def requestAvatar(self, avatarId: Any, mind: Any, *interfaces: Any) -> Any:
        return IMailAvatar, TicketAvatar(self._desk), lambda: None


def make_factory(desk: Desk) -> ESMTPServerFactory:
    """The factory for `listenTCP` or an endpoint."""
    portal = Portal(Realm(desk))
    portal.registerChecker(AllowAnonymousAccess())
    return ESMTPServerFactory(portal)


def main(reactor: Any) -> Deferred[None]:
    """Listen until Ctrl-C."""
    reactor.listenTCP(2626, make_factory(Desk(reactor)), interface="127.0.0.1")
    sys.stdout.write("tickets 7 and 8 take mail on 127.0.0.1:2626\n")
    return Deferred()


if __name__ == "__main__":
    react(main)
