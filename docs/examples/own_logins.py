"""
Logins of one's own with twisted.cred: a portal with a checker, a realm that gives each user something else.

Run it:  python docs/examples/own_logins.py DIRECTORY     (where the self-signed certificate is kept)
Send:    swaks --server 127.0.0.1 --port 2626 --tls --auth PLAIN --auth-user alice --auth-password wonderland \
               --from alice@example.org --to bob@example.org
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.portal import IRealm, Portal
from twisted.internet.defer import Deferred
from twisted.internet.task import react
from zope.interface import implementer

from mailserver.address import Address
from mailserver.envelope import Envelope, Recipient
from mailserver.interfaces import IDelivery, IMailAvatar
from mailserver.reply import CANNOT_VERIFY, Refusal, Reply
from mailserver.selfsigned import ensure_self_signed
from mailserver.smtp.rules import SessionSettings
from mailserver.smtp.server import ESMTPServerFactory
from mailserver.smtp.stock import mechanisms_of
from mailserver.tls import CertificateSet

NOT_YOURS = Reply(550, "5.7.1", "That is not your address")


@implementer(IDelivery)
class Counted:
    """A message whose octets are counted, and no more."""

    def __init__(self, done: Callable[[int], object]) -> None:
        self._done = done
        self._octets = 0

    def write(self, block: bytes) -> None:
        self._octets += len(block)

    def prepare(self) -> None:
        """Nothing to hold."""

    def commit(self) -> None:
        self._done(self._octets)

    def abort(self) -> None:
        """Nothing to forget."""


@implementer(IMailAvatar)
class Sender:
    """One login: may send as user@example.org only."""

    def __init__(self, user: str, done: Callable[[int], object]) -> None:
        self.user = user
        self._done = done

    def mail(self, envelope: Envelope) -> None:
        if str(envelope.sender) != f"{self.user}@example.org":
            raise Refusal(NOT_YOURS)

    def rcpt(self, envelope: Envelope, recipient: Recipient) -> None:
        """All recipients are welcome."""

    def data(self, envelope: Envelope) -> Counted:
        return Counted(self._done)

    def verify(self, address: Address) -> Reply:
        return CANNOT_VERIFY

    def reset(self) -> None:
        """No state to forget."""

    def logout(self) -> None:
        """No state to forget."""


@implementer(IRealm)
class Realm:
    """A `Sender` for each login."""

    def __init__(self, done: Callable[[int], object]) -> None:
        self._done = done

    def requestAvatar(self, avatarId: Any, mind: Any, *interfaces: Any) -> Any:
        return IMailAvatar, Sender(avatarId.decode(), self._done), lambda: None


def make_factory(directory: Path, done: Callable[[int], object]) -> ESMTPServerFactory:
    """
    A factory that offers STARTTLS, and AUTH behind it.

    directory: for the certificate.  done: called with the size of each message.
    """
    portal = Portal(Realm(done))
    portal.registerChecker(InMemoryUsernamePasswordDatabaseDontUse(alice=b"wonderland"))
    pair = ensure_self_signed(directory, ["localhost"], now=datetime.now(UTC))
    settings = SessionSettings(
        "localhost",
        mechanisms=mechanisms_of({b"PLAIN": None, b"CRAM-MD5": None}, "localhost"),
        auth_required=True,
        starttls=True,
        bare_newlines="fix",
    )
    return ESMTPServerFactory(portal, settings=settings, tls=CertificateSet([pair]))


def main(reactor: Any, directory: str) -> Deferred[None]:
    """Listen until Ctrl-C."""
    factory = make_factory(Path(directory), lambda octets: sys.stdout.write(f"{octets} octets\n"))
    reactor.listenTCP(2626, factory, interface="127.0.0.1")
    return Deferred()


if __name__ == "__main__":
    react(main, sys.argv[1:2])
