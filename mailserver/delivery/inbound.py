"""
The avatar of a connection: decides about mail with the policies and the router, and opens its delivery.

In: the questions of `smtp/server`.  Out: yes, `Refusal`, and a delivery to all destinations of a message.
The realm makes one for each login; `Rooms` is what all of them share.
What a user wants to be held (FUTURERELEASE) goes into the spool instead; `release` delivers it later.
RFC 5321 3.3 to 3.6 (transactions, relaying), RFC 6409 (submission), RFC 4865 (held messages).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from twisted.cred.checkers import ANONYMOUS
from twisted.cred.portal import IRealm
from twisted.logger import Logger
from zope.interface import implementer

from mailserver import reply as replies
from mailserver.address import Address
from mailserver.delivery import trace
from mailserver.delivery.gate import HeaderGate, Judge
from mailserver.delivery.loops import SEEN, LoopCheck
from mailserver.delivery.submission import Senders, Submission
from mailserver.delivery.transaction import EachRecipient, Transaction
from mailserver.envelope import Envelope, Recipient
from mailserver.interfaces import IDelivery, IMailAvatar
from mailserver.maildir.delivery import MaildirStore, Target
from mailserver.reply import Refusal, Reply
from mailserver.routing import Local, Remote
from mailserver.smtp.parameters import release_time
from mailserver.spool.held import Held
from mailserver.spool.holding import Holding, Spool

_log = Logger(namespace="mailserver.delivery")


@dataclass(frozen=True, slots=True)
class Rooms:
    """
    What every avatar uses.

    router: an `IRouter`.  store: where local mail goes.  policies: asked in order at MAIL, each raises `Refusal`.
    delivered_to: "single", "always" or "never".  now: seconds since 1970.  senders: whom users may write as; None: as
    everybody.  check_loops: is mail refused that was delivered to the same mailbox before?  spool: where messages
    wait that shall be delivered later; None: none does.
    """

    hostname: str
    router: Any
    store: MaildirStore
    now: Callable[[], float]
    policies: tuple[Callable[[Envelope], None], ...] = ()
    delivered_to: str = "single"
    senders: Senders | None = None
    check_loops: bool = True
    spool: Spool | None = None


@implementer(IRealm)
class MailRealm:
    """
    Gives a `MailAvatar` to whoever logged in.

    submission: the listener takes the mail of our own users: those who logged in may send to other servers, but only
    as themselves, and what their messages lack is added (RFC 6409).  held_messages: how many of a user's messages may
    wait for their release; 0: FUTURERELEASE is not offered here.
    """

    def __init__(self, rooms: Rooms, *, submission: bool, held_messages: int = 0) -> None:
        self._rooms = rooms
        self._submission = submission
        self._held_messages = held_messages

    def requestAvatar(self, avatarId: Any, mind: Any, *interfaces: Any) -> tuple[Any, Any, Callable[[], None]]:  # noqa: ARG002, N803
        """See `IRealm`.  Raises NotImplementedError for interfaces other than `IMailAvatar`."""
        if IMailAvatar not in interfaces:
            raise NotImplementedError("this realm has mail avatars only")
        # Checkers give bytes, or (foreign ones) text.
        user = "" if avatarId is ANONYMOUS else avatarId if isinstance(avatarId, str) else avatarId.decode("utf-8")
        avatar = MailAvatar(self._rooms, user, submission=self._submission, held_messages=self._held_messages)
        return IMailAvatar, avatar, _nothing


def _nothing() -> None:
    """The avatar's own `logout` does what there is to do."""


def only_local(envelope: Envelope, recipient: Recipient, targets: tuple[Local | Remote, ...]) -> tuple[Local, ...]:
    """These targets, all of which must be mailboxes of ours.  Raises Refusal."""
    remote = [str(target.address) for target in targets if isinstance(target, Remote)]
    if remote:
        # There is no queue yet: whoever sends keeps the message and tries again.
        _log.warn(
            "{transaction}: mail for {remote} cannot be sent: this version has no outgoing queue",
            event="no-queue",
            transaction=envelope.id,
            recipient=str(recipient.address),
            remote=remote,
        )
        raise Refusal(replies.NO_QUEUE_YET)
    return tuple(target for target in targets if isinstance(target, Local))


def targets_for(rooms: Rooms, envelope: Envelope, mailboxes: Mapping[Any, Local], received: bytes) -> list[Target]:
    """
    The message for each of these mailboxes (Maildir -> `Local`), with our fields on top.
    received: that of our own Received field; b"" when the message has it already.
    """
    first = trace.return_path(envelope.sender)
    named = rooms.delivered_to == "always" or (
        rooms.delivered_to == "single" and len(envelope.recipients) == 1 and len(mailboxes) == 1
    )
    return [
        Target(
            path=local.path,
            quota=local.quota,
            header=first + (trace.delivered_to(local.address) if named else b"") + received,
        )
        for local in mailboxes.values()
    ]


@implementer(IMailAvatar)
@dataclass(slots=True)
class MailAvatar:
    """One login, or nobody's connection.  user: the account, "" for nobody."""

    _rooms: Rooms
    user: str
    submission: bool = field(kw_only=True)
    held_messages: int = field(default=0, kw_only=True)
    _routes: dict[Address, tuple[Local, ...]] = field(default_factory=dict)

    @property
    def may_relay(self) -> bool:
        """May this login send to other servers?  Never without a login (RFC 5321 3.6.2)."""
        return self.submission and bool(self.user)

    def mail(self, envelope: Envelope) -> None:
        """Ask the policies; and whether the user may write as this sender."""
        self._routes.clear()
        if self.may_relay and self._rooms.senders is not None and envelope.sender is not None:
            self._rooms.senders.check(self.user, envelope.sender)
        if not self.user and self._rooms.senders is not None and self._release_time(envelope) is not None:
            # A report of its failure would go to a sender whom nobody has checked.
            raise Refusal(replies.AUTH_REQUIRED)
        for policy in self._rooms.policies:
            policy(envelope)

    def rcpt(self, envelope: Envelope, recipient: Recipient) -> Awaitable[None] | None:
        """Ask the router, and whether there is room; keep what the router says for `data`."""
        targets = self._rooms.router.route(recipient.address, may_relay=self.may_relay)
        if isinstance(targets, Awaitable):
            return self._keep_later(envelope, recipient, targets)
        local = only_local(envelope, recipient, targets)
        if any(each.quota for each in local) and self._release_time(envelope) is None:
            return self._keep_if_room(envelope, recipient, local)
        self._routes[recipient.address] = local
        return None

    async def _keep_later(self, envelope: Envelope, recipient: Recipient, targets: Awaitable[Any]) -> None:
        local = only_local(envelope, recipient, await targets)
        if self._release_time(envelope) is None:
            await self._keep_if_room(envelope, recipient, local)
        else:
            self._routes[recipient.address] = local

    async def _keep_if_room(self, envelope: Envelope, recipient: Recipient, local: tuple[Local, ...]) -> None:
        # A full mailbox is told here, where the reply is for this recipient alone: at the end of the text it would
        # be for all, and keep the others from their mail until there is room.
        for each in local:
            if each.quota:
                await self._rooms.store.check_room(each.path, envelope.size or 1, each.quota)
        self._routes[recipient.address] = local

    def _release_time(self, envelope: Envelope) -> float | None:
        """When the message shall be released; None: it is not held."""
        rooms = self._rooms
        if rooms.spool is None or not self.held_messages or not envelope.parameters:
            return None
        return release_time(envelope.parameters, rooms.now())

    def data(self, envelope: Envelope) -> IDelivery:
        """A delivery to the mailboxes of all recipients."""
        mailboxes: dict[Any, Local] = {}
        for recipient in envelope.recipients:
            for local in self._routes[recipient.address]:
                # Whoever is reached in two ways gets one copy.
                mailboxes.setdefault(local.path, local)
        accepted = Reply(250, "2.0.0", f"Ok: queued as {envelope.id}")
        rooms = self._rooms
        judges: list[Judge] = []
        inner: Any
        leave_out = None
        release = self._release_time(envelope)
        received = trace.received(envelope, hostname=rooms.hostname, now=rooms.now())
        if release is not None:
            inner = self._held(envelope, release, received)
        elif envelope.protocol.startswith(("LMTP", "UTF8LMTP")) and len(envelope.recipients) > 1:
            routes = [self._routes[recipient.address] for recipient in envelope.recipients]
            targets = targets_for(rooms, envelope, mailboxes, received)
            each = inner = EachRecipient(rooms.store.deliver(targets, partial=True), routes, accepted)

            def leave_out(key: str) -> None:
                for local in mailboxes.values():
                    if local.address.key == key:
                        each.refuse(local.path, Refusal(SEEN))
        else:
            inner = rooms.store.deliver(targets_for(rooms, envelope, mailboxes, received))
        if rooms.check_loops:
            judges.append(LoopCheck([local.address for local in mailboxes.values()], leave_out=leave_out))
        if self.submission:
            judges.append(Submission(envelope, self.user, rooms.senders, hostname=rooms.hostname, now=rooms.now()))
        # The trace fields that a Target holds stand above what the gate lets through.
        return HeaderGate(Transaction([inner], accepted), judges)  # type: ignore[return-value]

    def _held(self, envelope: Envelope, release: float, received: bytes) -> Holding:
        rooms = self._rooms
        spool = rooms.spool
        assert spool is not None
        held = Held(envelope, spool.unique(), received=rooms.now(), release=release, next_try=release)
        return spool.hold(held, received, self.held_messages)

    async def verify(self, address: Address) -> Reply:
        """See `IMailAvatar`: what RCPT would say, without a word about aliases."""
        targets = self._rooms.router.route(address, may_relay=self.may_relay)
        if isinstance(targets, Awaitable):
            targets = await targets
        if any(isinstance(target, Remote) for target in targets):
            return replies.CANNOT_VERIFY
        return Reply(250, "2.1.5", f"<{address}>")

    def reset(self) -> None:
        """Forget the transaction."""
        self._routes.clear()

    def logout(self) -> None:
        """Forget everything."""
        self._routes.clear()
