"""
A spam gate: each message is shown to an HTTP service, which gives it a score; then it is marked, or refused.

The service gets the message by POST (message/rfc822, with X-Sender, X-Client and X-Helo) and answers with JSON:
{"score": 7.5}.  While it is away mail is let through, marked as unchecked (or refused for a while, `when_away`).
The app has no `message`, so what it lets go on is delivered as usual.

Run it:  mailserver app run examples/spam_gate.py --option url=http://127.0.0.1:8025/
Try it:  swaks --server 127.0.0.1:2525 --to you@example.org

[[app]]
name = "spam-gate"
python = "examples/spam_gate.py:SpamGate"
options = { url = "http://127.0.0.1:8025/check", mark = 5, refuse = 10 }
timeout = "30 s"             # of the whole callback; the service has less
"""

from __future__ import annotations

import json
from typing import Literal

from pydantic import AnyHttpUrl, BaseModel
from twisted.internet import reactor
from twisted.web.client import Agent, FileBodyProducer, readBody
from twisted.web.http_headers import Headers

import mailserver

#: Fields that only we may set.  What a sender has put there goes.
OURS = ("X-Spam-Score", "X-Spam-Flag", "X-Spam-Status")
LARGEST_ANSWER = 10_000  # octets


class Options(BaseModel):
    """url: of the service.  mark, refuse: scores.  patience: seconds.  when_away: "pass" or "refuse"."""

    url: AnyHttpUrl
    mark: float = 5
    refuse: float = 10
    patience: float = 10
    when_away: Literal["pass", "refuse"] = "pass"


class SpamGate(mailserver.App):
    """Decides in `filter`: after the whole message is there, before anybody gets it."""

    Options = Options

    async def filter(self, envelope, message):
        try:
            score = await self.ask(envelope, message)
        except Exception as error:  # noqa: BLE001 - whatever an HTTP client and a strange answer may raise
            self.log.warn("the spam service is away: {error}", error=str(error) or type(error).__name__)
            if self.options.when_away == "refuse":
                self.refuse(451, "4.7.1", "Cannot be checked now, try again later")
            return mailserver.Changes(add=[("X-Spam-Status", "unchecked")], remove=OURS)
        if score >= self.options.refuse:
            self.refuse(554, "5.7.1", "This looks like spam")
        fields = [("X-Spam-Score", f"{score:g}")]
        if score >= self.options.mark:
            fields.append(("X-Spam-Flag", "YES"))
        return mailserver.Changes(add=fields, remove=OURS)

    async def ask(self, envelope, message) -> float:
        """The score.  Raises what goes wrong."""
        agent = Agent(reactor, connectTimeout=self.options.patience)
        headers = Headers(
            {
                "Content-Type": ["message/rfc822"],
                "X-Sender": [str(envelope.sender or "")],
                "X-Client": [self.session.peer_host],
                "X-Helo": [self.session.helo],
            }
        )
        with message.path.open("rb") as file:  # it is read in blocks, while the service takes them
            asked = agent.request(b"POST", str(self.options.url).encode(), headers, FileBodyProducer(file))
            response = await asked.addTimeout(self.options.patience, reactor)
            if response.code != 200:
                raise ValueError(f"status {response.code}")
            if not isinstance(response.length, int) or response.length > LARGEST_ANSWER:
                raise ValueError("an answer without a length, or a long one")
            body = await readBody(response).addTimeout(self.options.patience, reactor)
        return float(json.loads(body)["score"])
