"""
AUTH: the exchange of a SASL mechanism, line by line, until there are credentials to judge.

In: the AUTH command and the responses.  Out: challenges (334), the questions `Lookup` and `Login`, and their replies.
RFC 4954 (AUTH), RFC 4422 (SASL), RFC 5802 and 7677 (SCRAM), RFC 7628 (OAUTHBEARER).
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
from collections.abc import Callable

from mailserver import reply as replies
from mailserver.reply import Reply
from mailserver.sasl import (
    BearerLogin,
    Challenge,
    Lookup,
    LookupServer,
    Malformed,
    Outcome,
    RefusableServer,
    SaslServer,
    ScramKeys,
)
from mailserver.smtp import events
from mailserver.smtp.conversation import Conversation
from mailserver.smtp.events import Answer, Identity
from mailserver.smtp.rules import LoginContext, State


class LoginCommands(Conversation):
    """What a conversation does about AUTH."""

    _auth_failures = 0
    _exchange: SaslServer | None = None
    #: The reply that the next response brings, whatever it holds: the exchange failed and must still come to its end.
    _verdict: Reply | None = None
    #: Did the exchange end with a token, whose refusal it tells by itself?
    _refusable = False

    def offered_mechanisms(self) -> list[str]:
        """The mechanisms that work on this connection as it is now, in the order of the settings."""
        tls = self.peer.tls
        if not self.settings.offers("AUTH") or (tls is None and not self.settings.insecure_auth):
            return []
        return [
            name
            for name in self.settings.mechanisms
            # Without a channel to bind to, or a verified certificate, these cannot succeed.
            if not (name.endswith("-PLUS") and not self._bindings)
            and not (name == "EXTERNAL" and (tls is None or not tls.client_name))
        ]

    def _auth(self, argument: bytes) -> None:
        word, _, initial = argument.partition(b" ")
        name = word.upper().decode("ascii", "replace")
        if not self.settings.mechanisms or not self.settings.offers("AUTH"):
            self._error(replies.NOT_IMPLEMENTED)
        elif self.peer.user:
            self._error(replies.NO_SECOND_AUTH)
        elif self.peer.tls is None and not self.settings.insecure_auth:
            # RFC 4954 4: never let a password cross in clear text.
            self._error(replies.ENCRYPTION_NEEDED)
        elif not name:
            self._error(Reply(501, "5.5.4", "Syntax: AUTH mechanism"))
        elif name not in self.offered_mechanisms():
            self._error(replies.UNKNOWN_MECHANISM)
        else:
            self._begin(name, initial)

    def _begin(self, name: str, initial: bytes) -> None:
        exchange = self.settings.mechanisms[name](LoginContext(self.peer, self._bindings))
        self._exchange = exchange
        self.state = State.AUTH
        if initial and getattr(exchange, "server_first", False):
            # RFC 4954 4: here the server speaks first, so there is nothing yet to be answered.
            self._end_exchange()
            self._error(Reply(501, "5.7.0", f"{name} takes no initial response"))
        elif not initial:
            self._step(lambda: exchange.start(None))
        # RFC 4954 4: "=" stands for an initial response of no octets.
        elif (raw := self._decode(b"" if initial == b"=" else initial)) is not None:
            self._step(lambda: exchange.start(raw))

    def _auth_response(self, line: bytes) -> None:
        exchange = self._exchange
        assert exchange is not None
        if self._verdict is not None:
            reply = self._verdict
            self._end_exchange()
            self._failed(reply)
        elif line == b"*":
            self._end_exchange()
            self._error(replies.AUTH_CANCELLED)
        elif (raw := self._decode(line)) is not None:
            self._step(lambda: exchange.respond(raw))

    def _auth_line_too_long(self) -> None:
        reply = self._verdict
        self._end_exchange()
        if reply is not None:
            # The login has failed before: a line of any length comes to the same.
            self._failed(reply)
        else:
            self._error(replies.AUTH_TOO_LONG)

    def _decode(self, encoded: bytes) -> bytes | None:
        """The octets of a response; None when it is no base64, which was answered."""
        try:
            return base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            self._end_exchange()
            self._error(replies.BAD_BASE64)
            return None

    def _step(self, step: Callable[[], Outcome]) -> None:
        exchange = self._exchange
        assert exchange is not None
        try:
            outcome = step()
        except Malformed:
            self._end_exchange()
            self._error(Reply(501, "5.5.2", "Malformed authentication response"))
            return
        if isinstance(outcome, Challenge):
            self._challenge(outcome)
        elif isinstance(outcome, Lookup):
            self._ask(events.Lookup(outcome.user), self._looked_up)
        else:
            # A `WrongProof` too: it waits like every wrong password before the server says no.
            self._refusable = isinstance(outcome, BearerLogin)
            self._ask(events.Login(exchange.name, outcome), self._logged_in)

    def _looked_up(self, answer: Answer) -> None:
        exchange = self._exchange
        if isinstance(answer, ScramKeys) and isinstance(exchange, LookupServer):
            self._step(lambda: exchange.found(answer))
            return
        self._end_exchange()
        self._refuse(answer if isinstance(answer, Reply) else replies.AUTH_UNAVAILABLE)

    def _challenge(self, challenge: Challenge) -> None:
        self._output.append(b"334 " + base64.b64encode(challenge.octets) + b"\r\n")

    def _end_exchange(self) -> None:
        self._exchange = self._verdict = None
        self.state = State.READY

    def _logged_in(self, answer: Answer) -> None:
        exchange = self._exchange
        if isinstance(answer, Identity):
            self._end_exchange()
            self.peer = dataclasses.replace(self.peer, user=answer.user)
            self._reply(replies.AUTHENTICATED)
            return
        reply = answer if isinstance(answer, Reply) else replies.BAD_CREDENTIALS
        if reply.code >= 500 and self._refusable and isinstance(exchange, RefusableServer):
            # RFC 7628 3.2.3: the error is told in a challenge, and only behind its response stands the 535.
            self._challenge(exchange.refused())
            self._verdict = reply
            return
        self._end_exchange()
        self._failed(reply)

    def _failed(self, reply: Reply) -> None:
        if reply.code >= 500:
            self._auth_failures += 1
            if self._auth_failures >= self._limits.auth_failures:
                self.abort(replies.TOO_MANY_AUTH_FAILURES, "too many failed authentications")
                return
        self._refuse(reply)
