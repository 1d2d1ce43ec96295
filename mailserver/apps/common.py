"""
What the apps without code share: the form of their options, places for what runs at once, an answer per recipient.

In: options of the configuration, envelopes.  Out: checked values; a `Slots` that bounds; a mapping of answers.
Failures: `BUSY` (451 4.3.2) when too many messages wait; 553 for arguments in an address that cannot be taken.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from twisted.internet.defer import CancelledError, Deferred, DeferredList, DeferredSemaphore
from twisted.logger import Logger

from mailserver.apps.app import App
from mailserver.apps.arguments import ArgumentsError, script_arguments
from mailserver.apps.view import AppAddress
from mailserver.envelope import Envelope, Parameters, Recipient
from mailserver.reply import LOCAL_TROUBLE, Refusal, Reply

BUSY = Reply(451, "4.3.2", "Too much to do, try again later")

#: Octets and seconds as people write them; `mailserver.config.quantities` is a floor above.
_SIZES = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
_TIMES = {"": 1, "ms": 0.001, "s": 1, "sec": 1, "min": 60, "h": 3600}
_QUANTITY = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,6})?) *([A-Za-z]*)\Z")


def _quantity(value: object, units: Mapping[str, float], hint: str) -> Any:
    if not isinstance(value, str):
        return value
    match = _QUANTITY.match(value.strip())
    if match is None or (factor := units.get(match[2].lower())) is None:
        raise ValueError(f"must be {hint}")
    return float(match[1]) * factor


def _octets(value: object) -> Any:
    return _quantity(value, _SIZES, 'a number of octets, or text such as "5 MiB"')


def _seconds(value: object) -> Any:
    return _quantity(value, _TIMES, 'a number of seconds, or text such as "30 s" or "2 min"')


Octets = Annotated[int, BeforeValidator(_octets), Field(ge=0, le=2**30)]
Seconds = Annotated[float, BeforeValidator(_seconds), Field(gt=0, le=3600)]
Count = Annotated[int, Field(ge=1, le=10_000)]


class ReadyOptions(BaseModel):
    """The base of the options of apps without code: no key that is not known."""

    # A wrong value is not quoted: it may be a secret.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class DeliveryOptions(ReadyOptions):
    """What `command` and `webhook` have in common."""

    each: Literal["message", "recipient"] = Field(
        default="recipient",
        description='"recipient": once for each recipient, so that each has its own answer; "message": once for all.',
    )
    arguments: bool = Field(
        default=False,
        description="Hand over what stands in the address as +NAME=VALUE; names and values are checked.",
    )
    concurrency: Count = Field(
        default=10,
        description="So many at once, in each worker; more wait. Webhooks with the same url count together.",
    )
    waiting: Annotated[int, Field(ge=0, le=100_000)] = Field(
        default=100, description="So many messages may wait; more are refused with 451 4.3.2."
    )


class Slots:
    """
    Places for what runs at once.

    concurrency: so many runs at once; others wait for their turn.  waiting: so many messages may wait beyond those
    that could run; each has a bounded number of recipients, so what waits is bounded.
    """

    def __init__(self, concurrency: int, waiting: int) -> None:
        self._most = concurrency + waiting
        self._places = DeferredSemaphore(concurrency)
        #: Messages that are under way.
        self.messages = 0

    @contextmanager
    def message(self) -> Iterator[None]:
        """A message is under way.  Raises Refusal (`BUSY`) when too many are."""
        if self.messages >= self._most:
            raise Refusal(BUSY)
        self.messages += 1
        try:
            yield
        finally:
            self.messages -= 1

    async def take(self) -> Callable[[], None]:
        """Wait for a place; call what is returned to give it back, once."""
        await self._places.acquire()
        return self._places.release


class Delivering(App):
    """The base of `Command` and `Webhook`: one act for each recipient or message, within `self.shared.slots`."""

    log = Logger()

    def rcpt(self, recipient: AppAddress, parameters: Parameters) -> None:  # noqa: ARG002 - the base's signature
        """Arguments that cannot be taken are refused while the sender still hears which address it was."""
        if self.options.arguments:
            self.arguments_of(Recipient(recipient))

    def arguments_of(self, recipient: Recipient) -> dict[str, str]:
        """The arguments in a recipient's address.  Raises Refusal (553 5.1.3)."""
        try:
            return script_arguments(recipient.address)
        except ArgumentsError as error:
            raise Refusal(Reply(553, "5.1.3", f"Address not taken: {error}")) from None

    async def deliver(
        self, envelope: Envelope, act: Callable[[tuple[Recipient, ...]], Awaitable[Any]]
    ) -> Reply | str | Mapping[Any, Any] | None:
        """
        `act` for all recipients together, or for each, as the options say.  What it returns or refuses is the answer;
        for several recipients, and `each = "recipient"`, a mapping.  Raises Refusal.
        """
        with self.shared.slots.message():
            if self.options.each == "message" or len(envelope.recipients) == 1:
                return await act(envelope.recipients)
            acts = [Deferred.fromCoroutine(self._one(act, each)) for each in envelope.recipients]
            results = await DeferredList(acts, consumeErrors=True)
        # A list of Deferreds that is cancelled comes to a good end all the same.
        if any(not done and result.check(CancelledError) for done, result in results):
            raise CancelledError
        answers: dict[Any, Any] = {}
        for recipient, (done, result) in zip(envelope.recipients, results, strict=True):
            if not done:
                self.log.failure(
                    "app {app}: {callback} failed",
                    failure=result,
                    event="app-failed",
                    app=self.name,
                    callback="message",
                )
            answers[recipient.address] = result if done else Refusal(LOCAL_TROUBLE)
        return answers

    async def _one(self, act: Callable[[tuple[Recipient, ...]], Awaitable[Any]], recipient: Recipient) -> Any:
        try:
            return await act((recipient,))
        except Refusal as refusal:
            return refusal
