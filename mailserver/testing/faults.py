"""
What a test server shall do wrong, and when: refuse, answer otherwise, wait, hang up.

In: `Fault`s, from the test's thread.  Out: those that are due at a `Moment`, in the reactor's thread.
Faults are asked in the order in which they were made; several delays add up, and the first that is more than a delay
is the last that counts.
RFC 5321 4.2 (replies), 4.1.1 (commands); RFC 3463 (enhanced codes).
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from mailserver.address import parse_address
from mailserver.address_patterns import NULL_SENDER, compile_pattern
from mailserver.envelope import Envelope, Peer
from mailserver.reply import Refusal, Reply
from mailserver.testing.received import Received

#: Where something can go wrong: the connection, the commands, each block of a text that comes in ("text"), and the
#: end of a message ("message").
STAGES = (
    "connect", "helo", "starttls", "auth", "mail", "rcpt", "data", "text", "message", "vrfy", "noop", "rset", "quit",
)  # fmt: skip
#: Where the reply is not ours to choose: a text is answered at its end.
WITHOUT_REPLY = ("text",)

#: What may be given as a reply: a code, "451 4.3.0 text", (451, "4.3.0", "text"), a Reply, a Refusal.
ReplyLike = Reply | Refusal | int | str | tuple[int, str] | tuple[int, str, str]

_REPLY = re.compile(r"([2-5][0-9]{2})(?:[ -]([245]\.[0-9]{1,3}\.[0-9]{1,3}))?(?:[ -](.*))?\Z", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Moment:
    """
    What a `where` is asked about.

    stage: one of `STAGES`.  peer: the client, as known by now.  listener: "smtp", "smtps" or "lmtp".
    name: what EHLO said.  user: who logs in.  envelope: the transaction, from MAIL on.  recipient: of RCPT, and of
    the end of a message by LMTP.  message: what has come, at the end of a message that goes to an inbox.
    octets: of the text so far.
    """

    stage: str
    peer: Peer
    listener: str = ""
    name: str = ""
    user: str = ""
    envelope: Envelope | None = None
    recipient: str = ""
    message: Received | None = None
    octets: int = 0

    @property
    def sender(self) -> str:
        """The sender of the transaction; "" for <>, and before MAIL."""
        sender = None if self.envelope is None else self.envelope.sender
        return "" if sender is None else str(sender)

    @property
    def recipients(self) -> tuple[str, ...]:
        """The recipients that were accepted so far."""
        return () if self.envelope is None else tuple(str(each.address) for each in self.envelope.recipients)


@dataclass(frozen=True, slots=True)
class Effect:
    """
    What goes wrong.

    reply: instead of the usual one; one that is no refusal stands for the usual yes.  raw: octets instead of it.
    seconds: to wait first.  drop: close the connection without a reply.  reset: with RST, not FIN.  octets: of the
    text that must have come.  keep: of a message whose connection is dropped, whether it is taken all the same.
    """

    reply: Reply | None = None
    raw: bytes | None = None
    seconds: float = 0.0
    drop: bool = False
    reset: bool = False
    octets: int = 0
    keep: bool = False

    @property
    def is_delay(self) -> bool:
        """Does everything go on as usual after it?"""
        return self.reply is None and self.raw is None and not self.drop

    @property
    def refuses(self) -> bool:
        """Is it a no?"""
        return self.reply is not None and not self.reply.positive


class Fault:
    """
    Something that goes wrong, for as often as it was said, or until it is taken back.

    As a context manager it goes wrong every time within the block, unless it was said how often.
    """

    def __init__(
        self,
        faults: Faults,
        stage: str,
        effect: Effect,
        *,
        times: int | None,
        where: Callable[[Moment], object] | None,
        to_block: bool,
    ) -> None:
        self._faults = faults
        self._where = where
        self._to_block = to_block
        self.stage = stage
        self.effect = effect
        #: How often it still will; None: until it is taken back.
        self.left = times
        #: How often it has.
        self.count = 0

    def take_back(self) -> None:
        """From now on it does not go wrong any more; also twice."""
        self._faults.remove(self)

    def __enter__(self) -> Self:
        if self._to_block:
            self.left = None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.take_back()

    def due(self, moment: Moment) -> bool:
        """Is it this moment?  Raises what `where` raises."""
        return (
            moment.stage == self.stage
            and moment.octets >= self.effect.octets
            and (self._where is None or bool(self._where(moment)))
        )

    def __repr__(self) -> str:
        left = "until taken back" if self.left is None else f"{self.left} more"
        return f"<Fault at {self.stage}: {self.effect}; {self.count} times, {left}>"


class Faults:
    """All that shall go wrong on one server.  Any thread may use it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._faults: tuple[Fault, ...] = ()

    def __len__(self) -> int:
        return len(self._faults)

    def add(
        self,
        stage: str,
        effect: Effect,
        *,
        times: int | None,
        where: Callable[[Moment], object] | None,
        to_block: bool = False,
    ) -> Fault:
        """
        From now on.  times: None for until it is taken back.  to_block: as a context manager, for the block.

        Raises ValueError for a stage that is none, and for a number of times that makes no sense.
        """
        if stage not in STAGES:
            raise ValueError(f"{stage!r} is no stage; there are {', '.join(STAGES)}")
        if times is not None and times < 1:
            raise ValueError(f"{times} times: write 1 or more, or None")
        if stage in WITHOUT_REPLY and not (effect.is_delay or effect.drop):
            raise ValueError(f'a text is answered at its end: use the stage "message", not {stage!r}')
        fault = Fault(self, stage, effect, times=times, where=where, to_block=to_block)
        with self._lock:
            self._faults = (*self._faults, fault)
        return fault

    def remove(self, fault: Fault) -> None:
        """No more."""
        with self._lock:
            self._faults = tuple(each for each in self._faults if each is not fault)

    def clear(self) -> None:
        """Nothing goes wrong any more."""
        with self._lock:
            self._faults = ()

    def take(self, moment: Moment, only: Callable[[Effect], bool] = lambda _effect: True) -> Sequence[Effect]:
        """
        What goes wrong now; it counts as having done so.  only: those that are looked at.

        Raises what a `where` raises.
        """
        found: list[Effect] = []
        for fault in self._faults:
            if not only(fault.effect) or not fault.due(moment) or not self._used(fault):
                continue
            found.append(fault.effect)
            if not fault.effect.is_delay:
                break
        return found

    def _used(self, fault: Fault) -> bool:
        with self._lock:
            if fault not in self._faults:  # another thread was quicker
                return False
            fault.count += 1
            if fault.left is not None:
                fault.left -= 1
                if not fault.left:
                    self._faults = tuple(each for each in self._faults if each is not fault)
        return True


def reply_of(given: ReplyLike) -> Reply:
    """
    A `Reply` from what is easy to write.

    Raises ValueError for what is none.
    """
    if isinstance(given, Reply):
        return given
    if isinstance(given, Refusal):
        return given.reply
    if isinstance(given, bool):
        raise ValueError(f"{given!r} is no reply")  # noqa: TRY004 - one kind of error
    if isinstance(given, int):
        return Reply(given, f"{given // 100}.0.0" if given // 100 in (2, 4, 5) else "", "As the test wants it")
    if isinstance(given, str):
        found = _REPLY.match(given)
        if found is None:
            raise ValueError(f'{given!r} is no reply; write "451 4.3.0 Try again later"')
        return Reply(int(found[1]), found[2] or "", found[3] or "")
    code, *words = given
    if len(words) == 1:
        return Reply(code, "", words[0])
    enhanced, text = words
    return Reply(code, enhanced, text)


def refusal_of(given: ReplyLike) -> Reply:
    """The same.  Raises ValueError for a reply that is no refusal."""
    reply = reply_of(given)
    if reply.positive:
        raise ValueError(f"{reply.code} is no refusal; 4yz and 5yz are")
    return reply


def for_sender(pattern: str) -> Callable[[Moment], bool]:
    """A `where` for senders; "" and "<>" are the null sender.  Raises ValueError."""
    if pattern in ("", NULL_SENDER):
        return lambda moment: moment.envelope is not None and moment.envelope.sender is None
    compiled = compile_pattern(pattern)

    def fits(moment: Moment) -> bool:
        sender = None if moment.envelope is None else moment.envelope.sender
        return sender is not None and compiled.fullmatch(sender.key) is not None

    return fits


def for_recipient(pattern: str) -> Callable[[Moment], bool]:
    """
    A `where` for the recipient of the moment, or where it has none (the end of a message by SMTP), for any of the
    message's.  Raises ValueError.
    """
    compiled = compile_pattern(pattern)

    def fits(moment: Moment) -> bool:
        texts = (moment.recipient,) if moment.recipient else moment.recipients
        return any(compiled.fullmatch(parse_address(each, need_domain=False).key) for each in texts)

    return fits


def both(*asked: Callable[[Moment], object] | None) -> Callable[[Moment], object] | None:
    """A `where` that is true when each of those is that there are."""
    given = [each for each in asked if each is not None]
    if len(given) < 2:
        return given[0] if given else None
    return lambda moment: all(each(moment) for each in given)
