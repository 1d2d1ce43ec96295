"""
The SMTP server where apps have a say: it asks the policies of a connection at each stage, and then goes on as usual.

In: `ISessionPolicies` for each connection, made by the factory's `policies`.  Out: their answers as those of
`ESMTPServer`, whose conversation this is.  Where no app is configured, nobody makes one of these.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, cast

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.python.failure import Failure
from twisted.python.threadable import isInIOThread

from mailserver import reply as replies
from mailserver.interfaces import IMailAvatar
from mailserver.reply import Reply
from mailserver.sasl import BearerLogin, CramLogin, PlainLogin
from mailserver.smtp import events
from mailserver.smtp.avatars import value
from mailserver.smtp.rules import SessionSettings
from mailserver.smtp.server import ESMTPServer, ESMTPServerFactory
from mailserver.smtp.stock import StockAvatar
from mailserver.sockets import local_of

#: What stands for "no limit" of a message's size: more than anybody has room for.
NO_LIMIT = 2**62


class PolicedServer(ESMTPServer):
    """One connection, under policies."""

    _policies: Any = None
    _securing: Deferred[Any] | None = None
    #: Did the peer hang up in a transaction?
    _cut_short = False

    def hang_up(self, reason: str) -> None:
        """Close the connection without a reply, in the middle of a question."""
        self._drop_delivery()  # the end of its text may be there already, and be asked about next
        self.session.abort(None, reason)

    def end(self, reason: str) -> None:
        """Say 421 and close the connection; from any thread."""
        clock: Any = self._clock()
        if not isInIOThread() and hasattr(clock, "callFromThread"):
            clock.callFromThread(self.end, reason)
        elif not self._lost:
            self._drop_delivery()
            self.session.abort(Reply(421, "4.3.0", "Closing connection"), reason)
            self._pump()

    @property
    def connection_id(self) -> str:
        """The name of the connection in the log."""
        return self._record.id

    @property
    def local(self) -> tuple[str, int]:
        """Our address and port."""
        return local_of(self.transport)

    # -- what the transport calls ----------------------------------------------------------------------------------

    def handshakeCompleted(self) -> None:
        """See `ESMTPServer`; behind STARTTLS the policies are told first."""
        policies = self._policies
        super().handshakeCompleted()
        if policies is not None:
            # The client speaks next, with EHLO, and that waits for this.
            self._securing = ensureDeferred(_awaited(policies.secured()))

    def timeoutConnection(self) -> None:
        """See `ESMTPServer`."""
        what = self._timed_for
        super().timeoutConnection()
        if self._policies is not None:
            self._policies.error("timeout", what)

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        """See `ESMTPServer`; the policies hear of it last."""
        in_handshake, in_transaction = self._handshaking, self.session.in_transaction
        super().connectionLost(reason)
        policies, self._policies = self._policies, None
        if policies is not None:
            if in_handshake:
                policies.error("tls", "TLS handshake failed")
            elif in_transaction or self._cut_short:
                policies.error("connection", "lost in a transaction")
            policies.disconnected(self._record.reason or "connection lost")

    def _cut_off(self) -> None:
        self._cut_short = self.session.in_transaction
        super()._cut_off()

    # -- what the events ask for -----------------------------------------------------------------------------------

    async def _greet_client(self, event: events.Connected) -> Reply | None:
        no = await value(super()._connected(event))
        if no is not None or not isinstance(self.factory, PolicedFactory):
            return cast("Reply | None", no)  # whom the limits turn away no app sees
        self._policies = self.factory.policies(self)
        return None if self._policies is None else cast("Reply | None", await value(self._policies.connected()))

    def _front_end(self, event: events.XClient) -> Reply | None:
        """Another client than it seemed: other apps may be for it, and it is greeted again."""
        no = super()._xclient(event)
        if no is None and self._policies is not None:
            policies, self._policies = self._policies, None
            policies.disconnected("XCLIENT")
        return no

    async def _greeted(self, event: events.Hello) -> events.Answer:
        policies, session = self._policies, self.session
        if policies is None:
            return None
        if self._securing is not None:
            securing, self._securing = self._securing, None
            await securing
        lines = session.extensions() if event.extended else [f"SIZE {session.settings.limits.message_size}"]
        extensions: dict[str, str | None] = {}
        for line in lines:
            keyword, blank, rest = line.partition(" ")
            extensions[keyword] = rest if blank else None
        wanted = await value(policies.hello(event.name, extensions))
        return None if wanted is None else _offer(wanted)

    async def _commanded(self, event: events.Command) -> Reply | None:
        if self._policies is None:
            return None
        answer = self._policies.command(event.verb, event.argument.decode("utf-8", "replace"))
        return cast("Reply | None", await value(answer))

    def _mistaken(self, event: events.Mistake) -> None:
        if self._policies is not None:
            self._policies.error("command", str(event.reply))

    def _message_refused(self, event: events.MessageRefused) -> None:
        super()._message_refused(event)
        if self._policies is not None:
            self._policies.error("message", str(event.reply))

    # -- logins ----------------------------------------------------------------------------------------------------

    async def _judge(self, event: events.Login) -> events.Answer:
        answer = await self._judged_by_policies(event)
        return await super()._judge(event) if answer is None else answer

    async def _judged_by_policies(self, event: events.Login) -> events.Answer:
        """Their answer; None: they leave it to the accounts."""
        credentials = event.credentials
        if self._policies is None or not isinstance(credentials, (PlainLogin, CramLogin, BearerLogin)):
            return None
        if isinstance(credentials, PlainLogin) and credentials.authzid not in ("", credentials.user):
            return None  # the accounts refuse it as a wrong password
        judged = ensureDeferred(self._ask_policies(event.mechanism, credentials))
        judged.addTimeout(self.session.settings.limits.decision_timeout, self._clock())
        user = await judged
        if user is False:
            return replies.BAD_CREDENTIALS
        if user is None:
            return None
        avatar, logout = await self._avatar_of(str(user))
        if self._lost:
            logout()
            return replies.AUTH_UNAVAILABLE
        self._logout()
        self._avatar, self._onLogout = self._policies.avatar(avatar), logout
        self.authenticated = True
        self._record.logged_in()
        return events.Identity(str(user))

    async def _ask_policies(self, mechanism: str, credentials: Any) -> Any:
        return await value(self._policies.authenticate(mechanism, credentials))

    async def _avatar_of(self, user: str) -> tuple[Any, Callable[[], None]]:
        """What the realm gives to somebody whom an app has let in; no account needs to have the name."""
        if self.portal is None:
            raise RuntimeError("a listener where apps let clients in needs a portal")
        _, avatar, logout = await value(self.portal.realm.requestAvatar(user.encode(), None, IMailAvatar))
        return avatar, logout

    async def _avatar_for(self, credentials: Any) -> tuple[Any, Callable[[], None]]:
        avatar, logout = await super()._avatar_for(credentials)
        return (avatar if self._policies is None else self._policies.avatar(avatar)), logout

    async def _log_in_nobody(self) -> Any:
        avatar = await super()._log_in_nobody()
        known = self._policies is None or not isinstance(avatar, StockAvatar)  # others come by `_avatar_for`
        return avatar if known else self._policies.avatar(avatar)

    def _own_settings(self, *, starttls: bool, trusted: bool) -> SessionSettings:
        settings = super()._own_settings(starttls=starttls, trusted=trusted)
        return dataclasses.replace(settings, tell_mistakes=True)

    #: As in `ESMTPServer`, with what policies are asked beside.
    _DO: ClassVar[Mapping[type, Callable[[Any, Any], Any]]] = {
        **ESMTPServer._DO,  # noqa: SLF001 - our own base class
        events.Connected: _greet_client,
        events.XClient: _front_end,
        events.Hello: _greeted,
        events.Command: _commanded,
        events.Mistake: _mistaken,
        events.MessageRefused: _message_refused,
    }


class PolicedFactory(ESMTPServerFactory):
    """
    Makes a `PolicedServer` for each connection of one listener.

    policies: makes the `ISessionPolicies` of a connection, or None for one that no app cares for.  The other
    arguments are those of `ESMTPServerFactory`.
    """

    protocol = PolicedServer

    def __init__(self, portal: Any = None, *, policies: Callable[[PolicedServer], Any], **others: Any) -> None:
        super().__init__(portal, **others)
        self.policies = policies


async def _awaited(answer: Any) -> None:
    await value(answer)


def _offer(wanted: Mapping[str, str | None]) -> events.Offer:
    """
    What shall be offered.  SIZE holds whether it is told or not; "0" means no limit and is not told (gen_smtp).

    Raises ValueError for a size that is no number.
    """
    extensions = {keyword.upper(): given for keyword, given in wanted.items()}
    size: int | None = None
    given = extensions.get("SIZE")
    if given is not None:
        size = int(given) or NO_LIMIT
        if size == NO_LIMIT:
            del extensions["SIZE"]
    return events.Offer(extensions, size)
