"""
What both forms of a test server have: where it is, what has arrived, and what shall go wrong.

In: `Options`; calls from the test.  Out: values and `Fault`s.  Nothing here waits; `blocking` and `asynchronous` do.
Failures: RuntimeError for a server that does not run, or for a port that was not asked for.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypedDict, Unpack

from mailserver.testing.core import LMTP, SMTP, SMTPS, Core
from mailserver.testing.faults import (
    Effect,
    Fault,
    Faults,
    Moment,
    ReplyLike,
    both,
    for_recipient,
    for_sender,
    refusal_of,
    reply_of,
)
from mailserver.testing.inbox import Inboxes
from mailserver.testing.received import Received, Wanted
from mailserver.testing.settings import Options, Settings


class How(TypedDict, total=False):
    """
    When a fault comes.  times: how often; None: until it is taken back.  By default once, and as a context manager
    until the end of the block.  where: asked each time, in the reactor's thread.
    """

    times: int | None
    where: Callable[[Moment], object] | None


class Front:
    """
    A mail server for a test.  The arguments are those of `Settings`.

    Raises TypeError for one that does not exist, ValueError for one that makes no sense.
    """

    def __init__(self, **options: Unpack[Options]) -> None:
        self.settings = Settings(**options)
        self.settings.all_limits  # noqa: B018 - raises for what is no limit
        self._faults = Faults()
        self._core: Core | None = None

    @property
    def core(self) -> Core:
        """What runs.  Raises RuntimeError when nothing does."""
        if self._core is None:
            raise RuntimeError("the server does not run; start it first")
        return self._core

    # -- where it is -----------------------------------------------------------------------------------------------

    @property
    def host(self) -> str:
        """The address it listens on."""
        return self.settings.host

    @property
    def port(self) -> int:
        """The port for SMTP."""
        return self._port(SMTPS if self.settings.tls == "implicit" else SMTP, "")

    @property
    def tls_port(self) -> int:
        """The port for SMTP that is TLS from the first octet on."""
        return self._port(SMTPS, 'tls="implicit" or tls="both"')

    @property
    def lmtp_port(self) -> int:
        """The port for LMTP."""
        return self._port(LMTP, "lmtp=True")

    def _port(self, name: str, argument: str) -> int:
        port = self.core.ports.get(name)
        if port is None:
            raise RuntimeError(f"the server has no such port; make it with {argument}")
        return port

    @property
    def certificate(self) -> Path:
        """
        The PEM file of the certificate, self-signed, which clients trust as their only authority; it is for the names
        localhost, 127.0.0.1, ::1, the host and the hostname.  The file is gone when the server has stopped.
        """
        if self.core.certificate is None:
            raise RuntimeError('the server has no certificate; make it with tls="starttls"')
        return self.core.certificate

    def ssl_context(self) -> ssl.SSLContext:
        """What a client of Python's own needs to trust the certificate, and nothing else."""
        return ssl.create_default_context(cafile=str(self.certificate))

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self.core.connections)

    # -- what has arrived ------------------------------------------------------------------------------------------

    @property
    def messages(self) -> list[Received]:
        """All messages, the oldest first."""
        return self.core.inbox.messages

    @property
    def inboxes(self) -> Inboxes:
        """The messages by recipient: `server.inboxes["anna@example.org"]` is a list."""
        return Inboxes(self.core.inbox)

    def find(
        self,
        to: str | None = None,
        subject: Any = None,
        sender: str | None = None,
        where: Callable[[Received], object] | None = None,
    ) -> list[Received]:
        """The messages that fit, see `Wanted`.  Raises ValueError."""
        return self.core.inbox.find(Wanted(to, subject, sender, where))

    def clear(self) -> None:
        """Forget the messages."""
        self.core.inbox.clear()

    # -- what goes wrong -------------------------------------------------------------------------------------------

    def fail(self, stage: str, reply: ReplyLike = 451, **how: Unpack[How]) -> Fault:
        """
        Refuse at a stage (`STAGES`).  reply: what is said, 4yz or 5yz; 421 ends the connection too.

        Raises ValueError.
        """
        return self._wrong(stage, Effect(reply=refusal_of(reply)), how)

    def fail_sender(self, sender: str, reply: ReplyLike = 550, **how: Unpack[How]) -> Fault:
        """Refuse MAIL from this address or pattern; "" is the null sender.  Raises ValueError."""
        return self._wrong("mail", Effect(reply=refusal_of(reply)), how, for_sender(sender))

    def fail_rcpt(self, recipient: str = "*", reply: ReplyLike = 550, **how: Unpack[How]) -> Fault:
        """Refuse RCPT for this address or pattern ("*@example.org").  Raises ValueError."""
        return self._wrong("rcpt", Effect(reply=refusal_of(reply)), how, for_recipient(recipient))

    def fail_message(self, to: str | None = None, reply: ReplyLike = 451, **how: Unpack[How]) -> Fault:
        """
        Refuse a message at its end.  to: one with a recipient of this address or pattern; by LMTP it is refused to
        that recipient only.  Raises ValueError.
        """
        where = None if to is None else for_recipient(to)
        return self._wrong("message", Effect(reply=refusal_of(reply)), how, where)

    def reply(self, stage: str, reply: ReplyLike | bytes, **how: Unpack[How]) -> Fault:
        """
        Say something else at a stage: a refusal, or other words for a yes ("250 As you like it").  bytes are sent as
        they are, line ends and all, where a yes would stand: what no server should say.  Raises ValueError.
        """
        if isinstance(reply, bytes):
            return self._wrong(stage, Effect(raw=reply), how)
        return self._wrong(stage, Effect(reply=reply_of(reply)), how)

    def delay(self, stage: str, seconds: float, **how: Unpack[How]) -> Fault:
        """Wait at a stage, then go on.  At "text" it is each block that waits: the server reads slowly."""
        if seconds < 0:
            raise ValueError(f"seconds: {seconds}; nothing can be done before it was asked for")
        return self._wrong(stage, Effect(seconds=seconds), how)

    def drop_after(
        self,
        stage: str,
        *,
        octets: int | None = None,
        keep: bool = False,
        reset: bool = False,
        **how: Unpack[How],
    ) -> Fault:
        """
        Close the connection at a stage, without a reply.

        octets: for "data": in the middle of the text, when so many of its octets have come.  keep: for "message":
        the message is taken all the same, the client only never hears of it.  reset: end the connection by RST, as a
        server that has crashed.  Raises ValueError.
        """
        if octets is not None and stage not in ("data", "text"):
            raise ValueError(f'octets: only of the text, so drop_after("data", octets={octets})')
        if keep and stage != "message":
            raise ValueError('keep: only of a whole message, so drop_after("message", keep=True)')
        if octets is not None:
            stage = "text"
        return self._wrong(stage, Effect(drop=True, octets=octets or 0, keep=keep, reset=reset), how)

    def clear_faults(self) -> None:
        """From now on nothing goes wrong."""
        self._faults.clear()

    def _wrong(self, stage: str, effect: Effect, how: How, where: Callable[[Moment], object] | None = None) -> Fault:
        return self._faults.add(
            stage,
            effect,
            times=how.get("times", 1),
            where=both(where, how.get("where")),
            to_block="times" not in how,
        )
