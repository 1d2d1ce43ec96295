"""
A message on its way to the apps that take it, past those that judge it, and to whoever is behind them.

In: blocks.  Out: the answer of each app for its recipients; one reply for all (SMTP), or one for each (LMTP).
The order: filters, *prepare* of what lies behind, the apps, *commit* of what lies behind.  An app cannot take back
what it has done, a mailbox can; so the mailboxes come last, and where the reply must be a no for all (SMTP has one
reply only) they get nothing, and the sender hears of it.  RFC 5321 4.2.5, 6.1; RFC 2033 4.2 (LMTP).
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Awaitable, Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from twisted.internet.task import deferLater
from twisted.logger import Logger
from zope.interface import implementer

from mailserver import reply as replies
from mailserver.address import Address, AddressError, parse_address
from mailserver.apps.answers import nonsense
from mailserver.apps.app import Changes
from mailserver.apps.installed import Instance
from mailserver.apps.message import Message
from mailserver.apps.view import AppAddress
from mailserver.delivery.gate import fields, has_header
from mailserver.delivery.transaction import reply_for
from mailserver.envelope import Envelope, Recipient
from mailserver.interfaces import IDelivery
from mailserver.reply import Refusal, Reply
from mailserver.smtp.avatars import value

_log = Logger(namespace="mailserver.apps")
# Control characters but the tab, and what Unicode takes for the end of a line.
_UNFIT = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
# RFC 5322 2.2.3: only what begins with a blank goes on with the field of the line before; no line is empty.
_WHOLE = re.compile(rb"[!-9;-~]{1,76}:[^\r\n\0]*\r\n(?:[ \t][^\r\n\0]*[^ \t\r\n\0][^\r\n\0]*\r\n)*")
#: RFC 5322 2.1.1, without the CRLF.
LONGEST_LINE = 998
#: Blocks of 64 KiB that are written before the reactor gets its turn: a few milliseconds.
BLOCKS_AT_ONCE = 16
_NAME = re.compile(r"[!-9;-~]{1,76}\Z")


@dataclass(slots=True)
class Share:
    """What one app takes of a message.  numbers: of its recipients in the envelope."""

    instance: Instance
    numbers: list[int] = field(default_factory=list)


@implementer(IDelivery)
class AppDelivery:
    """
    behind: the delivery behind the apps (or None), and the numbers of its recipients.  ask: calls an app.
    message: where the text is collected.  clock: the reactor.
    """

    def __init__(
        self,
        envelope: Envelope,
        shares: Sequence[Share],
        filters: Sequence[Instance],
        behind: tuple[Any, Sequence[int]],
        *,
        ask: Callable[..., Awaitable[Any]],
        message: Message,
        clock: Any,
    ) -> None:
        self._envelope = envelope
        self._shares = tuple(shares)
        self._filters = tuple(filters)
        self._inner, self._behind = behind
        self._ask = ask
        self._message = message
        self._clock = clock
        self._aborted = False
        self._each = envelope.protocol.startswith(("LMTP", "UTF8LMTP"))

    def write(self, block: bytes) -> Any:
        """See `IDelivery.write`: it is collected, and goes on at once unless somebody may change it."""
        try:
            self._message.write(block)
        except OSError as error:
            raise Refusal(reply_for(error)) from error
        if self._inner is not None and not self._filters:
            return self._inner.write(block)
        return None

    async def prepare(self) -> None:
        """Let the filters judge, then prepare what lies behind."""
        try:
            self._message.flush()
        except OSError as error:
            raise Refusal(reply_for(error)) from error
        for instance in self._filters:
            seen = self._seen_by(instance, range(len(self._envelope.recipients)))
            changes = await self._ask(instance, "filter", seen, self._message)
            self._go_on()
            if changes is not None:
                await self._change(instance, changes)
        if self._inner is None:
            return
        if self._filters:
            for number, block in enumerate(self._message.iter_blocks(), 1):
                await value(self._inner.write(block))
                if number % BLOCKS_AT_ONCE == 0:
                    await self._breathe()
        await value(self._inner.prepare())

    def _go_on(self) -> None:
        """Raises Refusal when the message was given up meanwhile: what is left of it nobody may take."""
        if self._aborted:
            raise Refusal(replies.LOCAL_TROUBLE, "the message was given up while an app judged it")

    async def _breathe(self) -> None:
        """Let others have the reactor."""
        await deferLater(self._clock, 0)
        self._go_on()

    async def _change(self, instance: Instance, changes: Any) -> None:
        changing = _changing(self._message, changes)
        try:
            number = 0
            while (message := next(changing)) is None:
                number += 1
                if number % BLOCKS_AT_ONCE == 0:
                    await self._breathe()
            message.flush()
        except (TypeError, ValueError) as error:
            raise nonsense(instance, "filter", str(error)) from None
        except OSError as error:
            raise Refusal(reply_for(error)) from error
        finally:
            changing.close()
        self._message.close()
        self._message = message

    async def commit(self) -> Reply | tuple[Reply, ...] | None:
        """Ask the apps, then commit what lies behind, and say what became of each recipient."""
        self._go_on()
        answers: dict[int, Reply] = {}
        for share in self._shares:
            answers |= await self._given_to(share)
        refused = [reply for reply in answers.values() if not reply.positive]
        if refused and not self._each:
            self._abort_behind()
            self._message.close()
            self._tell_half_done(answers)
            # Who is refused for a while may have it later; a final no for one is told at once, for all.
            return next((reply for reply in refused if reply.code < 500), refused[0])
        usual = Reply(250, "2.0.0", f"Ok: queued as {self._envelope.id}")
        if self._inner is not None:
            try:
                reply = await value(self._inner.commit())
            except (Refusal, OSError) as error:
                if not self._each:
                    self._tell_half_done(answers)
                    raise
                reply = self._behind_failed(error)
            each = reply if isinstance(reply, tuple) else (reply or usual,) * len(self._behind)
            answers |= dict(zip(self._behind, each, strict=True))
        self._message.close()
        if self._each:
            return tuple(answers[number] for number in range(len(self._envelope.recipients)))
        said = [answers[number] for number in sorted(answers)]
        failed = [reply for reply in said if not reply.positive]
        return failed[0] if failed else next((reply for reply in said if reply != usual), usual)

    def _behind_failed(self, error: Refusal | OSError) -> Reply:
        """The reply for the recipients behind the apps alone; those of the apps have theirs (RFC 2033 4.2)."""
        if isinstance(error, Refusal):
            return error.reply
        reply = reply_for(error)
        _log.error(
            "{transaction}: {reply} because of {error}",
            event="trouble",
            transaction=self._envelope.id,
            reply=str(reply),
            error=str(error),
        )
        return reply

    def _tell_half_done(self, answers: Mapping[int, Reply]) -> None:
        taken = [str(self._envelope.recipients[number].address) for number, no in answers.items() if no.positive]
        if taken:
            _log.warn(
                "{transaction}: an app has taken the mail for {recipients}, and another app or a mailbox has not: "
                "the sender is told that it failed, and may send it again",
                event="app-half-done",
                transaction=self._envelope.id,
                recipients=taken,
            )

    async def _given_to(self, share: Share) -> dict[int, Reply]:
        """The reply for each recipient of an app."""
        seen = self._seen_by(share.instance, share.numbers)
        try:
            answer = await self._ask(share.instance, "message", seen, self._message)
            return self._understood(share, seen, answer)
        except Refusal as refusal:
            return dict.fromkeys(share.numbers, refusal.reply)
        except TypeError as error:
            return dict.fromkeys(share.numbers, nonsense(share.instance, "message", str(error)).reply)

    def _understood(self, share: Share, seen: Envelope, answer: Any) -> dict[int, Reply]:
        if not isinstance(answer, Mapping):
            return dict.fromkeys(share.numbers, self._reply(answer))
        given = {_key(name): self._reply(each) for name, each in answer.items()}
        usual = self._reply(None)
        replied = {
            number: given.get(_key(recipient.address), usual)  # two may be one: RCPT twice, or by the app's wish
            for number, recipient in zip(share.numbers, seen.recipients, strict=True)
        }
        others = given.keys() - {_key(recipient.address) for recipient in seen.recipients}
        if others:
            raise TypeError(f"it names {', '.join(sorted(map(str, others)))}, which is no recipient of the message")
        return replied

    def _reply(self, answer: Any) -> Reply:
        """Raises TypeError."""
        if answer is None:
            return Reply(250, "2.0.0", f"Ok: queued as {self._envelope.id}")
        if isinstance(answer, str):
            return Reply(250, "2.0.0", answer)
        if isinstance(answer, Refusal):
            return answer.reply
        if isinstance(answer, Reply):
            return answer
        raise TypeError(f"{type(answer).__name__} is no reply")

    def _seen_by(self, instance: Instance, numbers: Sequence[int]) -> Envelope:
        """The envelope with these recipients, as the app sees addresses."""
        separator = instance.installed.settings.separator
        recipients = tuple(
            Recipient(AppAddress(each.address.local, each.address.domain, separator=separator), each.parameters)
            for each in (self._envelope.recipients[number] for number in numbers)
        )
        return dataclasses.replace(self._envelope, recipients=recipients)

    def _abort_behind(self) -> None:
        inner, self._inner = self._inner, None
        if inner is not None:
            inner.abort()

    def abort(self) -> None:
        """See `IDelivery.abort`."""
        self._aborted = True
        self._message.close()
        self._abort_behind()


def changed(message: Message, changes: Any) -> Message:
    """
    The message as a filter wants it: `Changes`, or the octets of another one.

    Raises TypeError or ValueError: what is wrong with the changes; OSError.
    """
    return next(each for each in _changing(message, changes) if each is not None)


def _changing(message: Message, changes: Any) -> Generator[Message | None, None, None]:
    """The same in steps: None behind each block that was written, at last the message."""
    if isinstance(changes, bytes | bytearray):
        changes = Changes(message=bytes(changes))
    if not isinstance(changes, Changes):
        raise TypeError(f"{type(changes).__name__} is no Changes")
    new = Message(message._folder, message.trace)  # noqa: SLF001 - our own
    try:
        source = _blocks_of(message if changes.message is None else changes.message)
        header, rest = _split(source)
        new.write(b"".join(_added(each) for each in changes.add))
        unwanted = _names(changes.remove)
        new.write(b"".join(whole for name, whole in fields(header) if name not in unwanted))
        new.write(rest)
        for block in source:
            new.write(block)
            yield None
    except BaseException:
        new.close()
        raise
    finally:
        if isinstance(changes.message, Message) and changes.message is not message:
            changes.message.close()
    yield new


def _blocks_of(source: Message | bytes) -> Iterator[bytes]:
    return source.iter_blocks() if isinstance(source, Message) else iter([source])


def _split(source: Any) -> tuple[bytes, bytes]:
    """The header section of a message, and what was read behind it; the session has bounded the section."""
    held = b""
    for block in source:
        start = max(0, len(held) - 3)
        held += block
        if held.startswith(b"\r\n"):
            return b"", held
        end = held.find(b"\r\n\r\n", start)
        if end >= 0:
            return (held[: end + 2], held[end + 2 :]) if has_header(held) else (b"", b"\r\n" + held)
    return (held, b"") if has_header(held) or not held else (b"", b"\r\n" + held)


def _names(remove: Any) -> set[bytes]:
    """The fields that go.  Raises TypeError: a text alone would be a list of its letters."""
    if isinstance(remove, str) or not all(isinstance(name, str) for name in remove):
        raise TypeError("remove is no list of names")
    return {name.lower().encode("ascii", "replace") for name in remove}


def _added(field: tuple[str, str] | bytes) -> bytes:
    """A field of `Changes.add`.  Raises ValueError for octets that are not one field."""
    if not isinstance(field, bytes):
        return field_of(*field)
    if not _WHOLE.fullmatch(field):
        raise ValueError(f"{field[:40]!r} is no field with its CRLF")
    if max(map(len, field.split(b"\r\n"))) > LONGEST_LINE:
        raise ValueError(f"{field[:40]!r} has a line of more than {LONGEST_LINE} octets")
    return field


def field_of(name: str, value: str) -> bytes:
    """
    A header field, encoded and folded (`mime.fields`).

    Raises ValueError for a name that is none, and for a value that would begin another line.
    """
    if not isinstance(name, str) or not _NAME.match(name):
        raise ValueError(f"{name!r} is no name of a field")
    if _UNFIT.search(value):
        raise ValueError(f"the value of {name} holds a line end or another control character")
    from mailserver.mime.fields import encode_field  # who has no filter does not wait for it

    return encode_field(name, value)


def _key(name: Any) -> Address | str:
    """What stands for a recipient; it is the same however its domain is written.  Raises TypeError."""
    if isinstance(name, Recipient):
        name = name.address
    if isinstance(name, str):
        try:
            return parse_address(name, need_domain=False)
        except AddressError:
            return name
    if isinstance(name, Address):
        return name
    raise TypeError(f"{type(name).__name__} is no recipient")
