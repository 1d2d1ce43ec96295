"""
Where the mail of a test server goes: a list in memory, and those who wait for something to arrive there.

In: envelopes and blocks, from the SMTP server; logins.  Out: `Received`s, in the order of their arrival; Deferreds
that fire at the arrival itself.
A message is in the list before its client is told 250, so who has sent one need not wait for it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from scramp import ScramMechanism
from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.cred.portal import IRealm
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from zope.interface import implementer

from mailserver import reply as replies
from mailserver.accounts.scram import made_up
from mailserver.address import Address
from mailserver.address_patterns import compile_pattern
from mailserver.envelope import Envelope, Recipient
from mailserver.interfaces import (
    IBearerToken,
    ICramMD5Response,
    IDelivery,
    IMailAvatar,
    IScramKeys,
    IVerifiedUser,
)
from mailserver.reply import Refusal, Reply
from mailserver.sasl import ScramKeys
from mailserver.testing.faults import Faults, Moment
from mailserver.testing.received import MessageNotReceived, Received, UnexpectedMessage, Wanted

#: Of SCRAM; the least that RFC 7677 4 allows, for a test logs in often and protects nothing.
ITERATIONS = 4096


@dataclass(eq=False, slots=True)
class _Wait:
    wanted: Wanted
    count: int
    done: Deferred[Any]
    #: Is it an error when it comes?
    unwanted: bool
    timer: IDelayedCall | None = None


class Inbox:
    """All messages of one server.  Only `messages` may be used in other threads than the reactor's."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._messages: list[Received] = []
        self._waits: list[_Wait] = []

    @property
    def messages(self) -> list[Received]:
        """Those that have arrived, the oldest first; the list is the caller's."""
        return list(self._messages)

    def find(self, wanted: Wanted) -> list[Received]:
        """Those of them that fit."""
        return [each for each in self.messages if wanted.fits(each)]

    def add(self, message: Received) -> None:
        """One has arrived."""
        self._messages.append(message)
        for wait in tuple(self._waits):
            self._look(wait)

    def clear(self) -> None:
        """Forget them; who waits for several waits for all of them again."""
        self._messages = []

    def wait(self, wanted: Wanted, *, count: int, timeout: float) -> Deferred[Received]:
        """
        The message number `count` of those that fit, when it is there.

        Fails with MessageNotReceived after `timeout` seconds, and with what `where` raises.
        """
        if count < 1:
            raise ValueError(f"count: {count}; write 1 or more")
        return self._waiting(_Wait(wanted, count, Deferred(self._given_up), unwanted=False), timeout)

    def none(self, wanted: Wanted, *, within: float) -> Deferred[None]:
        """Fires after so many seconds when none that fits is there; fails with UnexpectedMessage when one is."""
        return self._waiting(_Wait(wanted, 1, Deferred(self._given_up), unwanted=True), within)

    def close(self) -> None:
        """The server stops: nothing more will arrive."""
        for wait in tuple(self._waits):
            self._over(wait, f"no {wait.wanted}: the server was stopped")

    def _waiting(self, wait: _Wait, seconds: float) -> Deferred[Any]:
        self._waits.append(wait)
        self._look(wait)
        if wait in self._waits:
            if seconds > 0:
                wait.timer = self._clock.callLater(seconds, self._too_late, wait, seconds)
            else:
                self._too_late(wait, seconds)
        return wait.done

    def _look(self, wait: _Wait) -> None:
        try:
            found = self.find(wait.wanted)
        except Exception as error:  # noqa: BLE001 - whatever a `where` raises is for who gave it
            self._forget(wait)
            wait.done.errback(error)
            return
        if len(found) < wait.count:
            return
        self._forget(wait)
        if wait.unwanted:
            wait.done.errback(UnexpectedMessage(f"{wait.wanted} has arrived", found[0]))
        else:
            wait.done.callback(found[wait.count - 1])

    def _too_late(self, wait: _Wait, seconds: float) -> None:
        number = "no" if wait.count == 1 else f"not {wait.count} times a"
        self._over(wait, f"{number} {wait.wanted} within {seconds:g} s")

    def _over(self, wait: _Wait, text: str) -> None:
        self._forget(wait)
        if wait.unwanted:
            wait.done.callback(None)
        else:
            wait.done.errback(MessageNotReceived(text, self.messages))

    def _forget(self, wait: _Wait) -> None:
        self._waits.remove(wait)
        timer, wait.timer = wait.timer, None
        if timer is not None and timer.active():
            timer.cancel()

    def _given_up(self, done: Deferred[Any]) -> None:
        for wait in tuple(self._waits):
            if wait.done is done:
                self._forget(wait)


class Inboxes(Mapping[str, list[Received]]):
    """
    The messages by recipient: address -> those that were sent to it.  Any address may be asked for; iterating gives
    those that have got something.
    """

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox

    def __getitem__(self, address: str) -> list[Received]:
        """Raises ValueError for what is no address."""
        return self._inbox.find(Wanted(to=address))

    def __iter__(self) -> Any:
        each = (recipient for message in self._inbox.messages for recipient in message.envelope.recipients)
        return iter(list(dict.fromkeys(recipient.address.key for recipient in each)))

    def __len__(self) -> int:
        return len(list(iter(self)))

    def __repr__(self) -> str:
        return f"<Inboxes {', '.join(f'{address}: {len(self[address])}' for address in self)}>"


# -- what the SMTP server asks ---------------------------------------------------------------------------------------


@implementer(IRealm)
class InboxRealm:
    """
    Gives everybody an avatar that puts mail into the inbox.

    inboxes: patterns of addresses that exist; None: all do.  now: aware.
    """

    def __init__(
        self, inbox: Inbox, faults: Faults, inboxes: Sequence[str] | None, now: Callable[[], datetime]
    ) -> None:
        self.inbox = inbox
        self.faults = faults
        self.now = now
        self._known = None if inboxes is None else [compile_pattern(each) for each in inboxes]

    def exists(self, address: Address) -> bool:
        """Is there such an inbox?"""
        return self._known is None or any(pattern.fullmatch(address.key) for pattern in self._known)

    def requestAvatar(self, avatarId: Any, mind: Any, *interfaces: Any) -> Any:  # noqa: ARG002, N803 - cred's names
        """See `IRealm`."""
        user = avatarId.decode() if isinstance(avatarId, bytes) else ""
        return IMailAvatar, InboxAvatar(self, user), lambda: None


@implementer(IMailAvatar)
class InboxAvatar:
    """Takes mail for every inbox that exists."""

    def __init__(self, realm: InboxRealm, user: str) -> None:
        self._realm = realm
        self.user = user

    def mail(self, envelope: Envelope) -> None:
        """Whoever it is."""

    def rcpt(self, envelope: Envelope, recipient: Recipient) -> None:  # noqa: ARG002
        """Raises Refusal: there is no such inbox."""
        if not self._realm.exists(recipient.address):
            raise Refusal(replies.UNKNOWN_USER)

    def data(self, envelope: Envelope) -> InboxDelivery:
        """A place for the text."""
        return InboxDelivery(self._realm, envelope)

    def verify(self, address: Address) -> Reply:
        """Does it exist?"""
        return Reply(250, "2.1.5", f"<{address}>") if self._realm.exists(address) else replies.UNKNOWN_USER

    def reset(self) -> None:
        """Nothing is kept."""

    def logout(self) -> None:
        """Nothing is kept."""


@implementer(IDelivery)
class InboxDelivery:
    """One message on its way into the inbox."""

    def __init__(self, realm: InboxRealm, envelope: Envelope) -> None:
        self._realm = realm
        self._envelope = envelope
        self._blocks: list[bytes] = []

    def received(self, recipients: tuple[Recipient, ...] | None = None) -> Received:
        """What has come so far.  recipients: for whom; None: all of the envelope."""
        envelope = self._envelope
        if recipients is not None and recipients != envelope.recipients:
            envelope = dataclasses.replace(envelope, recipients=recipients)
        return Received(envelope, b"".join(self._blocks), self._realm.now())

    def write(self, block: bytes) -> None:
        """See `IDelivery`."""
        self._blocks.append(block)

    def prepare(self) -> None:
        """See `IDelivery`."""

    def commit(self) -> tuple[Reply, ...] | None:
        """Into the inbox; by LMTP not for those recipients for whom it shall fail."""
        envelope = self._envelope
        if not envelope.protocol.startswith(("LMTP", "UTF8LMTP")):
            self._realm.inbox.add(self.received())
            return None
        message = self.received()
        told = [self._for_each(recipient, message) for recipient in envelope.recipients]
        taken = tuple(each for each, reply in zip(envelope.recipients, told, strict=True) if reply.positive)
        if taken:
            self._realm.inbox.add(self.received(taken))
        return tuple(told)

    def _for_each(self, recipient: Recipient, message: Received) -> Reply:
        envelope = self._envelope
        moment = Moment(
            "message",
            envelope.peer,
            envelope.listener,
            name=envelope.peer.helo,
            user=envelope.peer.user,
            envelope=envelope,
            recipient=str(recipient.address),
            message=message,
        )
        for effect in self._realm.faults.take(moment, lambda effect: effect.refuses):
            assert effect.reply is not None
            return effect.reply
        return Reply(250, "2.0.0", f"Ok: queued as {envelope.id}")

    def abort(self) -> None:
        """See `IDelivery`."""
        self._blocks = []


@implementer(ICredentialsChecker, IScramKeys)
class Passwords:
    """Who may log in: user -> password, or "any" for everybody with every password."""

    credentialInterfaces = (IUsernamePassword, ICramMD5Response, IVerifiedUser, IBearerToken)

    def __init__(self, passwords: Mapping[str, str] | Literal["any"]) -> None:
        self._passwords = None if isinstance(passwords, str) else dict(passwords)
        self._secret = os.urandom(32)
        self._keys: dict[str, ScramKeys] = {}

    def requestAvatarId(self, credentials: Any) -> Deferred[bytes | tuple[()]]:
        """The user's name in UTF-8.  Fails with UnauthorizedLogin."""
        name = credentials.username
        if self._passwords is not None and not self._right(credentials, self._passwords.get(name.decode())):
            return fail(UnauthorizedLogin())
        return succeed(bytes(name))

    def _right(self, credentials: Any, password: str | None) -> bool:
        if password is None:
            return False
        if IVerifiedUser.providedBy(credentials):
            return True
        if IBearerToken.providedBy(credentials):
            return hmac.compare_digest(credentials.token.encode(), password.encode())
        return bool(credentials.checkPassword(password.encode()))

    def scram_keys(self, user: str) -> ScramKeys:
        """See `IScramKeys`."""
        password = None if self._passwords is None else self._passwords.get(user)
        if password is None:
            return made_up(self._secret, user)
        if user not in self._keys:
            salt = hashlib.sha256(self._secret + user.encode()).digest()[:16]
            mechanism = ScramMechanism("SCRAM-SHA-256")
            salt, stored, server, iterations = mechanism.make_auth_info(password, ITERATIONS, salt)
            self._keys[user] = ScramKeys(salt, stored, server, iterations)
        return self._keys[user]
