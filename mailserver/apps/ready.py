"""
`discard` and `reject`: the two simplest things that can become of mail.

In: recipients, messages.  Out: a 250 and nothing else; or a refusal at RCPT, before any text was sent.
Failures: none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field, model_validator
from twisted.logger import Logger

from mailserver.apps.app import App
from mailserver.apps.common import ReadyOptions
from mailserver.apps.message import Message
from mailserver.apps.view import AppAddress
from mailserver.envelope import Envelope, Parameters
from mailserver.reply import Reply


class DiscardOptions(ReadyOptions):
    """There is nothing to say."""


@dataclass(slots=True)
class Discarded:
    """What was thrown away since the start: messages and their octets."""

    messages: int = 0
    octets: int = 0


class Discard(App):
    """Takes the mail and throws it away.  `shared` counts."""

    Options = DiscardOptions
    shared: Discarded
    log = Logger()

    @classmethod
    def setup(cls, options: DiscardOptions) -> Discarded:  # noqa: ARG003 - the base's signature
        """The counts, from nothing."""
        return Discarded()

    def message(self, envelope: Envelope, message: Message) -> None:
        """Count it, say so, forget it."""
        self.shared.messages += 1
        self.shared.octets += message.size
        self.log.info(
            "{app}: {transaction} discarded, of {size} octets, for {recipients}",
            event="discarded",
            app=self.name,
            transaction=envelope.id,
            size=message.size,
            recipients=[str(each.address) for each in envelope.recipients],
            messages=self.shared.messages,
        )


class RejectOptions(ReadyOptions):
    """With which words."""

    text: Annotated[str, Field(min_length=1, max_length=400)] = Field(
        default="Not accepted here", description="The text of the reply."
    )
    code: Annotated[int, Field(ge=400, le=599)] = Field(default=550, description="Its code: 4xx or 5xx.")
    enhanced: str = Field(default="", description='Its enhanced code; default "5.7.1", or "4.7.1" with a 4xx.')

    @model_validator(mode="after")
    def _is_reply(self) -> RejectOptions:
        self.reply()
        return self

    def reply(self) -> Reply:
        """What is said.  Raises ValueError for codes that do not go together."""
        return Reply(self.code, self.enhanced or f"{self.code // 100}.7.1", self.text)


class Reject(App):
    """Refuses each recipient."""

    Options = RejectOptions
    options: RejectOptions

    def rcpt(self, recipient: AppAddress, parameters: Parameters) -> None:  # noqa: ARG002 - the base's signature
        """Raises Refusal, always."""
        reply = self.options.reply()
        self.refuse(reply.code, reply.enhanced, reply.text)
