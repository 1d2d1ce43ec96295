"""
Held messages are delivered when their time has come.

In: the spool's folder, a clock.  Out: files in Maildirs; then the held message is gone.  `Releasing` is the service
that looks for what is due, `Attempt` is one try for one message.

- What is due: the names of the files tell, and of those that were tried before their first lines.  The folder is
  looked at when a release is due, when this process has held a message, after a reload, and once in `LOOK` seconds:
  another process may have put something there, or the clock may have been set.
- Every process looks; a claim on the message (`spool/folder`) sees to it that one delivers it.
- No message is delivered twice: its name in the Maildirs was given when it came, so a try finds what an earlier one
  has delivered before it died; and it is removed only when the delivery is durable.  (A reader who deletes it within
  the moment between a delivery and a crash gets it once more.)
- Whoever cannot have it now is tried again after 5 minutes, 10, 20 ... 4 hours, for five days since its release.
- Whoever cannot have it at all: a report goes to the sender's mailbox, if that is ours and the sender wants one
  (`bounce`); else the message is kept in `spool/failed/`, and the log says so.
- Stop: the message under way is finished, no other is begun.

Failures: none leave this file; trouble is logged and tried again.
RFC 4865 (FUTURERELEASE), RFC 5321 4.5.4.1 (retries), 6.1 (no message is lost), RFC 3461 (reports).
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.logger import Logger

from mailserver import reply as replies
from mailserver.delivery.bounce import Failed, report, wants_report, wants_whole
from mailserver.delivery.inbound import Rooms, only_local, targets_for
from mailserver.delivery.transaction import EachRecipient, Transaction, reply_for
from mailserver.durable import RunInThread
from mailserver.envelope import Envelope, Recipient
from mailserver.maildir.lookup import delivered
from mailserver.maildir.names import OneName
from mailserver.reply import Refusal, Reply
from mailserver.routing import Local
from mailserver.smtp.avatars import value
from mailserver.spool.folder import BLOCK, Claim, Entry, Folder
from mailserver.spool.held import Damaged, Held

#: Seconds between two looks at the folder, when nothing is due earlier.
LOOK = 60.0
#: Seconds to the second try, and the most between two.
FIRST_DELAY, MOST_DELAY = 300.0, 4 * 3600.0
#: Seconds after its release that a message is given up (RFC 5321 4.5.4.1: at least 4 to 5 days), and tries before
#: that: a clock that was set forward makes nothing old.
GIVE_UP, LEAST_TRIES = 5 * 86_400.0, 10
#: Octets of a header section that are sent back.
MOST_HEADER = 64 * 1024

DELIVERED = Reply(250, "2.0.0", "Delivered")

_log = Logger(namespace="mailserver.delivery")


def next_delay(tries: int) -> float:
    """Seconds from this failed try (1: the first) to the next."""
    return min(MOST_DELAY, FIRST_DELAY * 2.0 ** min(tries - 1, 20))


class Told(enum.Enum):
    """What became of a report to the sender."""

    YES = "it is in a mailbox"
    LATER = "not now"
    NOBODY = "there is nobody to tell"


@dataclass(frozen=True, slots=True)
class Attempt:
    """
    One try for one message.

    run: runs what blocks in a thread.
    """

    rooms: Rooms
    folder: Folder
    run: RunInThread

    async def make(self, entry: Entry) -> None:
        """Claim it, deliver it, and write down what came of that."""
        try:
            claim = await self.run(self.folder.claim, entry)
        except Damaged as error:
            place = await self.run(self.folder.set_aside, entry.path)
            tell_damaged(entry.path, place, str(error))
            return
        if claim is None:
            return  # somebody else is at it, or it is gone
        try:
            if claim.held.next_try <= self.rooms.now():
                await self._settle(claim, await self._deliver(claim))
        finally:
            claim.close()

    # -- to the recipients -----------------------------------------------------------------------------------------

    async def _deliver(self, claim: Claim) -> list[tuple[Recipient, Reply]]:
        """A reply for each recipient."""
        envelope = claim.held.envelope
        refused: list[tuple[Recipient, Reply]] = []
        routes: list[tuple[Recipient, tuple[Local, ...]]] = []
        for recipient in envelope.recipients:
            try:
                routes.append((recipient, await self._route(envelope, recipient)))
            except Exception as error:  # noqa: BLE001 - told below
                refused.append((recipient, _reply_of(error, envelope)))
        try:
            given = await self._to_mailboxes(claim, [route for _, route in routes])
        except Exception as error:  # noqa: BLE001 - as above
            given = [_reply_of(error, envelope)] * len(routes)
        return [*refused, *((recipient, reply) for (recipient, _), reply in zip(routes, given, strict=True))]

    async def _route(self, envelope: Envelope, recipient: Recipient) -> tuple[Local, ...]:
        targets = self.rooms.router.route(recipient.address, may_relay=bool(envelope.peer.user))
        if isinstance(targets, Awaitable):
            targets = await targets
        return only_local(envelope, recipient, targets)

    async def _to_mailboxes(self, claim: Claim, routes: Sequence[tuple[Local, ...]]) -> list[Reply]:
        held = claim.held
        mailboxes: dict[Path, Local] = {}
        for route in routes:
            for local in route:
                mailboxes.setdefault(local.path, local)
        there = await self.run(delivered, list(mailboxes), held.unique)
        missing = {path: local for path, local in mailboxes.items() if path not in there}
        open_routes = [tuple(local for local in route if local.path in missing) for route in routes]
        given: list[Reply] = []
        if missing:
            targets = targets_for(self.rooms, held.envelope, missing, b"")
            store = replace(self.rooms.store, names=OneName(held.unique))
            inner = store.deliver(targets, partial=True)
            delivery = EachRecipient(inner, [route for route in open_routes if route], DELIVERED)
            given = await self._carry(claim, delivery)
        replies_given = iter(given)
        return [next(replies_given) if route else DELIVERED for route in open_routes]

    async def _carry(self, claim: Claim, inner: Any) -> list[Reply]:
        delivery = Transaction([inner], DELIVERED)
        try:
            at = 0
            while block := await self.run(claim.text, at, BLOCK):
                at += len(block)
                await value(delivery.write(block))
            await value(delivery.prepare())
        except BaseException:
            delivery.abort()
            raise
        given: tuple[Reply, ...] = await value(delivery.commit())
        return list(given)

    # -- what comes of it ------------------------------------------------------------------------------------------

    async def _settle(self, claim: Claim, results: Sequence[tuple[Recipient, Reply]]) -> None:
        held, now = claim.held, self.rooms.now()
        tries = held.attempts + 1
        over = now - held.release >= GIVE_UP and tries >= LEAST_TRIES
        waiting = [(recipient, reply) for recipient, reply in results if 400 <= reply.code < 500 and not over]
        failed = [
            (recipient, reply)
            for recipient, reply in results
            if not reply.positive and (recipient, reply) not in waiting
        ]
        lost = list(held.lost)
        if failed:
            told = await self._tell_sender(claim, [each for each in failed if wants_report(each[0])], over=over)
            if told is Told.LATER:
                waiting += failed
            else:
                lost += [str(each[0].address) for each in failed if told is Told.NOBODY or not wants_report(each[0])]
        _tell_results(held, results)
        left = replace(
            held,
            envelope=dataclasses.replace(held.envelope, recipients=tuple(recipient for recipient, _ in waiting)),
            attempts=tries,
            next_try=now + next_delay(tries),
            trouble="; ".join(dict.fromkeys(str(reply) for _, reply in [*waiting, *failed])),
            lost=tuple(lost),
        )
        if waiting:
            await self.run(claim.reschedule, left)
        elif lost:
            everybody = tuple(each for each in held.envelope.recipients if str(each.address) in lost)
            kept = replace(left, envelope=dataclasses.replace(held.envelope, recipients=everybody))
            place = await self.run(claim.fail, kept)
            _log.critical(
                "{transaction}: not delivered to {recipients}, and nobody could be told: kept as {path}",
                event="held-failed",
                transaction=held.id,
                recipients=lost,
                path=place,
                trouble=left.trouble,
            )
        else:
            await self.run(claim.remove)

    async def _tell_sender(self, claim: Claim, failed: Sequence[Failed], *, over: bool) -> Told:
        """Put a report into the sender's mailbox."""
        sender = claim.held.envelope.sender
        if sender is None or not failed:
            return Told.NOBODY
        try:
            targets = self.rooms.router.route(sender, may_relay=False)
            if isinstance(targets, Awaitable):
                targets = await targets
            mailboxes = {each.path: each for each in targets if isinstance(each, Local)}
            if not mailboxes:
                return Told.NOBODY  # it leads elsewhere, and there is no queue
            given = await self._report(claim, failed, mailboxes)
        except Exception as error:  # noqa: BLE001 - it becomes a reply
            given = [_reply_of(error, claim.held.envelope)]
        if all(reply.positive for reply in given):
            return Told.YES
        later = not over and all(reply.positive or reply.code < 500 for reply in given)
        return Told.LATER if later else Told.NOBODY

    async def _report(self, claim: Claim, failed: Sequence[Failed], mailboxes: dict[Path, Local]) -> list[Reply]:
        held = claim.held
        unique = report_name(held)
        there = await self.run(delivered, list(mailboxes), unique)
        missing = {path: local for path, local in mailboxes.items() if path not in there}
        if not missing:
            return [DELIVERED]
        whole = wants_whole(held, claim.octets)
        returned = await self.run(_whole if whole else _header, claim)
        rooms = self.rooms
        text = report(held, failed, returned, hostname=rooms.hostname, now=rooms.now(), whole=whole)
        envelope = Envelope(held.id, None, (Recipient(next(iter(missing.values())).address),))
        store = replace(rooms.store, names=OneName(unique))
        delivery = Transaction([store.deliver(targets_for(rooms, envelope, missing, b""))], DELIVERED)
        try:
            await value(delivery.write(text))
            await value(delivery.prepare())
        except BaseException:
            delivery.abort()
            raise
        await value(delivery.commit())
        return [DELIVERED]


def report_name(held: Held) -> str:
    """The unique name of the report after this try; of the form that our own names have."""
    first, _, rest = held.unique.partition(".")
    middle, _, host = rest.partition(".")
    return f"{first}.{middle}{held.attempts:06d}.{host}"


def _whole(claim: Claim) -> bytes:
    blocks = []
    at = 0
    while block := claim.text(at):
        blocks.append(block)
        at += len(block)
    return b"".join(blocks)


def _header(claim: Claim) -> bytes:
    """Its header section, with whole lines; a very long one is cut."""
    text = claim.text(0, MOST_HEADER)
    end = text.find(b"\r\n\r\n")
    return text[: end + 2] if end >= 0 else text[: text.rfind(b"\r\n") + 2]


def _reply_of(error: Exception, envelope: Envelope) -> Reply:
    """What it would be to a client; what nobody has expected is logged, and never final."""
    if isinstance(error, Refusal):
        return error.reply
    if isinstance(error, OSError):
        _log.error("{transaction}: {error}", event="held-trouble", transaction=envelope.id, error=str(error))
        return reply_for(error)
    _log.failure("{transaction}: cannot be delivered now", event="held-trouble", transaction=envelope.id)
    return replies.LOCAL_TROUBLE


def _tell_results(held: Held, results: Sequence[tuple[Recipient, Reply]]) -> None:
    _log.info(
        "{transaction}: released, try {attempt}: {results}",
        event="released",
        transaction=held.id,
        attempt=held.attempts + 1,
        sender=str(held.envelope.sender or ""),
        results={str(recipient.address): str(reply) for recipient, reply in results},
    )


def tell_damaged(path: str, place: str, reason: str) -> None:
    """Log that a file in the spool is none of ours."""
    _log.critical(
        "{path}: no held message: {reason}; moved to {place}",
        event="held-damaged",
        path=path,
        reason=reason,
        place=place,
    )


class Releasing(Service):
    """
    Looks for what is due, and has it delivered, one message after the other.

    run: runs what blocks in a thread; clock: for its timer.  is_leftover: see `Folder.sweep`.
    """

    def __init__(
        self, folder: Folder, run: RunInThread, clock: Any, is_leftover: Callable[[str], bool] = lambda _: False
    ) -> None:
        self._rooms: Rooms | None = None
        self._folder = folder
        self._run = run
        self._clock = clock
        self._is_leftover = is_leftover
        self._timer: Any = None
        self._busy = False
        self._again = False
        self._idle: list[Deferred[None]] = []

    def use(self, rooms: Rooms) -> None:
        """From now on messages are delivered as this configuration has it; look, too."""
        self._rooms = rooms
        self.look()

    def startService(self) -> None:
        """Begin."""
        super().startService()
        self._busy = True
        ensureDeferred(self._begin()).addBoth(self._ended)

    def stopService(self) -> Deferred[None] | None:
        """Begin nothing new; wait for the message under way."""
        super().stopService()
        self._sleep(None)
        if not self._busy:
            return None
        idle: Deferred[None] = Deferred()
        self._idle.append(idle)
        return idle

    def held(self, _due: float) -> None:
        """This process has held a message."""
        self.look()

    def look(self) -> None:
        """Look now, or when the look under way is over."""
        if not self.running:
            return
        if self._busy:
            self._again = True
            return
        self._busy = True
        self._sleep(None)
        ensureDeferred(self._look()).addBoth(self._ended)

    async def _begin(self) -> float:
        await self._run(self._folder.make)
        await self._run(self._folder.sweep, self._is_leftover)
        return await self._look()

    async def _look(self) -> float:
        """Seconds to the next look."""
        entries, foreign = await self._run(self._folder.entries)
        for path in foreign:
            try:
                tell_damaged(path, await self._run(self._folder.set_aside, path), "the name is none of ours")
            except OSError as error:
                _log.error("{path}: {error}", event="held-trouble", path=path, error=str(error))
        if self._rooms is None:
            return LOOK
        for entry in entries:
            wait = entry.name.due - self._rooms.now()
            if wait > 0:
                return min(LOOK, wait)
            if not self.running:
                break
            try:
                await Attempt(self._rooms, self._folder, self._run).make(entry)
            except Exception:  # noqa: BLE001 - the others must not wait for it; it is tried again in a minute
                _log.failure("{path}: cannot be released now", event="held-trouble", path=entry.path)
        return LOOK

    def _ended(self, result: Any) -> None:
        self._busy = False
        wait = LOOK
        if isinstance(result, float):
            wait = result
        elif result is not None:
            _log.failure("the spool cannot be looked at", failure=result, event="held-trouble")
        idle, self._idle = self._idle, []
        for waiter in idle:
            waiter.callback(None)
        if not self.running:
            return
        if self._again:
            self._again = False
            self.look()
        else:
            self._sleep(wait)

    def _sleep(self, seconds: float | None) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None if seconds is None else self._clock.callLater(seconds, self.look)
