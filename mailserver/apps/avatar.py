"""
The avatar of a connection with apps: asks them about sender and recipients, then whoever is behind them.

In: MAIL, RCPT, DATA, VRFY.  Out: refusals; addresses that apps have changed; a delivery to the apps that take the
message and to the avatar behind them.
The first app that matches a recipient and has `message` takes it, and nobody behind it is asked about it; one without
lets it go on.  RFC 5321 3.3.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twisted.logger import Logger
from zope.interface import implementer

from mailserver import reply as replies
from mailserver.address import Address
from mailserver.apps.answers import address_of, reply_of
from mailserver.apps.destination import AppDelivery, Share
from mailserver.apps.installed import Instance
from mailserver.apps.message import Message
from mailserver.apps.view import AppAddress
from mailserver.delivery import trace
from mailserver.envelope import Envelope, Recipient
from mailserver.interfaces import IMailAvatar
from mailserver.reply import Refusal, Reply
from mailserver.smtp.avatars import value
from mailserver.smtp.parameters import release_time

_log = Logger(namespace="mailserver.apps")

#: FUTURERELEASE holds mail for mailboxes; an app would get it now.
CANNOT_HOLD = Reply(504, "5.5.4", "Messages for this address cannot be held")
#: Asks an app: instance, callback, arguments.
Ask = Callable[..., Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Surroundings:
    """
    hostname: ours.  now: seconds since 1970.  folder: makes and returns the folder for messages.  vrfy: may VRFY tell
    which accounts exist?
    """

    hostname: str
    now: Callable[[], float]
    folder: Callable[[], Path]
    vrfy: bool = False


@implementer(IMailAvatar)
class AppAvatar:
    """ask: calls an app.  inner: the avatar behind the apps."""

    def __init__(self, instances: Sequence[Instance], ask: Ask, inner: Any, surroundings: Surroundings) -> None:
        self._instances = tuple(instances)
        self._ask = ask
        self._inner = inner
        self._surroundings = surroundings
        self._forget()

    def _forget(self) -> None:
        self._active: list[Instance] = []
        self._sender: Address | None = None
        #: Recipient as it was given -> who takes it (None: the avatar behind us), and under which address.
        self._places: dict[Address, tuple[Instance | None, Address]] = {}

    @property
    def user(self) -> str:
        """See `IMailAvatar`."""
        return str(getattr(self._inner, "user", ""))

    async def mail(self, envelope: Envelope) -> Reply | None:
        """First the policies behind us, which ask whether this client may send at all; then the apps."""
        self._forget()
        self._active = [each for each in self._instances if each.match.sender(envelope.sender)]
        self._sender = envelope.sender
        reply = await value(self._inner.mail(envelope))
        if reply is not None and not reply.positive:
            return reply  # type: ignore[no-any-return]
        for instance in self._active:
            if instance.defines("mail"):
                answer = await self._ask(instance, "mail", self._sender, envelope.parameters)
                if answer is not None:
                    self._sender = address_of(answer, instance, "mail")
        return reply  # type: ignore[no-any-return]

    async def rcpt(self, envelope: Envelope, recipient: Recipient) -> Reply | None:
        """The apps in their order, up to the one that takes the recipient."""
        address: Address = recipient.address
        for instance in self._active:
            if not instance.match.recipient(address):
                continue
            if instance.defines("rcpt"):
                seen = _app_address(address, instance)
                answer = await self._ask(instance, "rcpt", seen, recipient.parameters)
                if answer is not None:
                    address = address_of(answer, instance, "rcpt")
            if instance.takes:
                if release_time(envelope.parameters, self._surroundings.now()) is not None:
                    # RFC 4865 5: it was asked for, and must not be accepted and then not be done.
                    raise Refusal(CANNOT_HOLD)
                self._places[recipient.address] = (instance, address)
                return None
        behind = [
            Recipient(self._places[each.address][1], each.parameters)
            for each in envelope.recipients
            if self._places[each.address][0] is None
        ]
        now = dataclasses.replace(envelope, sender=self._sender, recipients=tuple(behind))
        reply = await value(self._inner.rcpt(now, Recipient(address, recipient.parameters)))
        if reply is None or reply.positive:
            self._places[recipient.address] = (None, address)
        return reply  # type: ignore[no-any-return]

    async def data(self, envelope: Envelope) -> Any:
        """A delivery to the apps, and to the avatar behind us when it has recipients."""
        shares: dict[int, Share] = {}
        behind: list[int] = []
        moved: list[Recipient] = []
        for number, recipient in enumerate(envelope.recipients):
            instance, address = self._places[recipient.address]
            moved.append(Recipient(address, recipient.parameters))
            if instance is None:
                behind.append(number)
            else:
                shares.setdefault(id(instance), Share(instance)).numbers.append(number)
        envelope = dataclasses.replace(envelope, sender=self._sender, recipients=tuple(moved))
        filters = [
            instance
            for instance in self._active
            if instance.defines("filter") and any(instance.match.recipient(each.address) for each in moved)
        ]
        inner: Any = None
        if behind:
            theirs = dataclasses.replace(envelope, recipients=tuple(moved[number] for number in behind))
            inner = await value(self._inner.data(theirs))
            if not shares and not filters:
                return inner
        fields = trace.return_path(envelope.sender)
        fields += trace.received(envelope, hostname=self._surroundings.hostname, now=self._surroundings.now())
        return AppDelivery(
            envelope,
            list(shares.values()),
            filters,
            (inner, behind),
            ask=self._ask,
            message=Message(self._surroundings.folder, fields),
            clock=self._active[0].installed.clock,
        )

    async def verify(self, address: Address) -> Reply:
        """The first app that answers, else the avatar behind us."""
        for instance in self._instances:
            if instance.defines("verify"):
                answer = await self._ask(instance, "verify", _app_address(address, instance))
                reply = reply_of(answer, instance, "verify", "2.1.5")
                if reply is not None:
                    return reply
        if not self._surroundings.vrfy:
            return replies.CANNOT_VERIFY  # only for the app's sake the question was asked
        return await value(self._inner.verify(address))  # type: ignore[no-any-return]

    def reset(self) -> None:
        """See `IMailAvatar`."""
        self._forget()
        self._inner.reset()
        for instance in self._instances:
            instance.tell("reset")

    def logout(self) -> None:
        """See `IMailAvatar`."""
        self._forget()
        self._inner.logout()


def _app_address(address: Address, instance: Instance) -> AppAddress:
    return AppAddress(address.local, address.domain, separator=instance.installed.settings.separator)
