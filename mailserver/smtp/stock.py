"""
Doors for what was written for stock twisted.mail: deliveries, messages, challengers, its exceptions.

In: an `IMessageDelivery` (through the server's `validateFrom`, `validateTo` and `receivedHeader`), `IMessage`s that
take lines, `IChallengeResponse`s.  Out: an `IMailAvatar`, an `IDelivery` that takes blocks, SASL exchanges, replies.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import time
from collections.abc import Mapping
from typing import Any

from twisted.cred.credentials import IUsernameHashedPassword
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from mailserver import reply as replies
from mailserver.address import Address
from mailserver.envelope import Envelope, Recipient
from mailserver.interfaces import ICramMD5Response, IDelivery, IMailAvatar
from mailserver.reply import Refusal, Reply
from mailserver.sasl import (
    Challenge,
    CramLogin,
    CramMD5,
    External,
    Login,
    Malformed,
    OAuthBearer,
    Plain,
    PlainLogin,
    Scram,
    XOAuth2,
    make_challenge,
)
from mailserver.smtp.rules import MechanismFactory
from mailserver.smtp.stock_import import stock

_log = Logger(namespace="mailserver.smtp")


def reply_of(failure: Failure) -> tuple[Reply, bool]:
    """
    What the peer is told when a decision failed, and whether the failure is trouble of ours that belongs in the log.

    Unknown trouble is transient: 451, never 550 for what we did not understand.
    """
    error = failure.value
    if isinstance(error, Refusal):
        # A refusal with a cause was made of trouble (a full disk, say): the operator must see it.
        return error.reply, error.__cause__ is not None
    if isinstance(error, stock.SMTPServerError):
        return _stock_reply(error), False
    return replies.LOCAL_TROUBLE, True


def _stock_reply(error: Any) -> Reply:
    try:
        code = int(error.code)
    except (TypeError, ValueError):
        return replies.LOCAL_TROUBLE
    if not 400 <= code <= 599:
        return replies.LOCAL_TROUBLE
    if isinstance(error, stock.SMTPBadRcpt):
        detail = "1.1"
    elif isinstance(error, stock.SMTPBadSender):
        detail = "1.0"
    else:
        detail = "0.0"
    resp = error.resp.decode("utf-8", "replace") if isinstance(error.resp, bytes) else str(error.resp)
    return Reply(code, f"{code // 100}.{detail}", resp)


@implementer(IMailAvatar)
class StockAvatar:
    """Asks the server's `validateFrom`, `validateTo` and `receivedHeader`, which ask an `IMessageDelivery`."""

    user = ""

    def __init__(self, server: Any) -> None:
        self._server = server
        self._origin: Any = None
        self._receivers: list[tuple[Any, Any]] = []

    async def mail(self, envelope: Envelope) -> None:
        """Ask `validateFrom`."""
        self.reset()
        sender = "" if envelope.sender is None else str(envelope.sender)
        origin = stock.Address(sender.encode())
        # twisted.mail documents that the address to go on with may be another one.
        self._origin = await maybeDeferred(self._server.validateFrom, _helo(envelope), origin)

    async def rcpt(self, envelope: Envelope, recipient: Recipient) -> None:
        """Ask `validateTo`; keep what makes the message."""
        destination = stock.Address(str(recipient.address).encode())
        user = stock.User(destination, _helo(envelope), self._server, self._origin)
        self._receivers.append((user, await maybeDeferred(self._server.validateTo, user)))

    def data(self, envelope: Envelope) -> StockDelivery:
        """Make a message for each recipient and give it its Received header."""
        receivers, self._receivers = self._receivers, []
        messages: list[Any] = []
        try:
            for user, make in receivers:
                message = make()
                messages.append(message)
                header = self._server.receivedHeader(_helo(envelope), self._origin, [user])
                if header:
                    message.lineReceived(header)
        except BaseException:
            StockDelivery(messages).abort()
            raise
        return StockDelivery(messages)

    def verify(self, address: Address) -> Reply:  # noqa: ARG002 - twisted.mail has no question for it
        """252: an `IMessageDelivery` is asked about transactions only."""
        return replies.CANNOT_VERIFY

    def reset(self) -> None:
        """Forget the transaction."""
        self._origin = None
        self._receivers = []

    def logout(self) -> None:
        """Nothing to do: cred's own logout is called by the server."""


def _helo(envelope: Envelope) -> tuple[bytes, bytes]:
    return envelope.peer.helo.encode("ascii"), envelope.peer.host.encode("ascii")


@implementer(IDelivery)
class StockDelivery:
    """Gives blocks to `IMessage`s line by line.  They have no second phase: `eomReceived` is the commit."""

    def __init__(self, messages: list[Any]) -> None:
        self._messages = messages
        self._partial = b""
        self._seen_line = False

    def write(self, block: bytes) -> None:
        """Lines, without their CRLF, to every message."""
        lines = (self._partial + block).split(b"\r\n")
        self._partial = lines.pop()
        for line in lines:
            self._line(line)

    def _line(self, line: bytes) -> None:
        if not self._seen_line:
            self._seen_line = True
            if line and b":" not in line:
                # A message without a header: keep our Received apart from its text, as twisted.mail does.
                self._give(b"")
        self._give(line)

    def _give(self, line: bytes) -> None:
        for message in self._messages:
            message.lineReceived(line)

    def prepare(self) -> None:
        """The last line, if it has no end."""
        if self._partial:
            self._line(self._partial)
            self._partial = b""

    async def commit(self) -> None:
        """`eomReceived` of each; the first failure is the answer."""
        messages, self._messages = self._messages, []
        waiting = [maybeDeferred(message.eomReceived) for message in messages]
        done: Deferred[list[Any]] = gatherResults(waiting, consumeErrors=True)
        try:
            await done
        except Exception as error:  # noqa: BLE001 - it is raised again, unwrapped
            # gatherResults wraps what happened into a FirstError.
            failure = getattr(error, "subFailure", None)
            raise failure.value if failure is not None else error from None

    def abort(self) -> None:
        """`connectionLost` of each: the way twisted.mail says that no more will come."""
        messages, self._messages = self._messages, []
        for message in messages:
            try:
                message.connectionLost()
            except Exception:  # noqa: BLE001 - somebody else's code, and abort never raises
                _log.failure("connectionLost of a message failed")


@implementer(ICramMD5Response, IUsernameHashedPassword)
class CramMD5Credentials:
    """What CRAM-MD5 brought, both for a checker that keeps contexts and for one that knows the password."""

    def __init__(self, username: bytes, challenge: bytes, digest: str) -> None:
        self.username = username
        self.challenge = challenge
        self.digest = digest

    def checkPassword(self, password: bytes) -> bool:
        """For checkers that keep passwords in clear text (RFC 2195)."""
        mac = hmac.new(password, self.challenge, hashlib.md5)
        return hmac.compare_digest(mac.hexdigest(), self.digest)


def mechanisms_of(challengers: Mapping[bytes, Any], hostname: str) -> dict[str, MechanismFactory]:
    """SASL exchanges for the names of `challengers`: our own for those that we know, the given ones for others."""
    names = [name.decode("ascii").upper() for name in challengers]
    plus = "SCRAM-SHA-256-PLUS" in names
    own: dict[str, MechanismFactory] = {
        "SCRAM-SHA-256-PLUS": lambda context: Scram(context.bindings, plus=True),
        # A client that says it could bind channels, where we do not offer to, has not been lied to.
        "SCRAM-SHA-256": lambda context: Scram(context.bindings if plus else {}, plus=False),
        "PLAIN": lambda _context: Plain(),
        "LOGIN": lambda _context: Login(),
        "CRAM-MD5": lambda _context: CramMD5(make_challenge(hostname, os.urandom(16), time.time())),
        "EXTERNAL": lambda context: External(context.peer.tls.client_name if context.peer.tls else ""),
        "OAUTHBEARER": lambda _context: OAuthBearer(),
        "XOAUTH2": lambda _context: XOAuth2(),
    }
    return {name: own.get(name) or _foreign(name, challengers) for name in names}


def _foreign(name: str, challengers: Mapping[bytes, Any]) -> MechanismFactory:
    return lambda _context: ForeignMechanism(name, challengers[name.encode("ascii")]())


class ForeignMechanism:
    """An exchange of ours around an `IChallengeResponse`, which ends as a user name and a password."""

    def __init__(self, name: str, challenger: Any) -> None:
        self.name = name
        self._challenger = challenger

    def start(self, initial: bytes | None) -> Challenge | PlainLogin | CramLogin:
        """The first challenge, thrown away when the client has already answered it (as twisted.mail does)."""
        challenge = Challenge(self._challenger.getChallenge())
        return challenge if initial is None else self.respond(initial)

    def respond(self, response: bytes) -> Challenge | PlainLogin | CramLogin:
        """The next challenge, or what the exchange has brought.  Raises Malformed."""
        self._challenger.setResponse(response)
        if self._challenger.moreChallenges():
            return Challenge(self._challenger.getChallenge())
        user, password = getattr(self._challenger, "username", None), getattr(self._challenger, "password", None)
        if not isinstance(user, bytes) or not isinstance(password, bytes):
            raise Malformed("the mechanism gave no user name and password")
        try:
            return PlainLogin(user=user.decode(), password=password.decode(), authzid="")
        except UnicodeDecodeError as error:
            raise Malformed("not UTF-8") from error
