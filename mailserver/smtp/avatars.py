"""
Who is on the other end: logins through cred's portal, and the avatar that decides about the mail of a connection.

In: the questions `Login` and `Lookup`, and MAIL of somebody who did not log in.  Out: an `IMailAvatar`, or a reply.
A portal whose realm knows `IMessageDelivery` or `IMessageDeliveryFactory` only is as good (see `stock`).
RFC 4954 (AUTH) 4 and 6.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, cast

from twisted.cred.credentials import Anonymous, UsernamePassword
from twisted.cred.error import LoginFailed, UnauthorizedLogin, UnhandledCredentials
from twisted.cred.portal import Portal
from twisted.internet.defer import ensureDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.mail.interfaces import IMessageDelivery, IMessageDeliveryFactory

from mailserver import reply as replies
from mailserver.credentials import BearerToken, VerifiedUser
from mailserver.interfaces import IAdmission, IMailAvatar, IScramKeys
from mailserver.reply import Refusal, Reply
from mailserver.sasl import (
    BearerLogin,
    CramLogin,
    Credentials,
    ExternalLogin,
    PlainLogin,
    ScramKeys,
    VerifiedLogin,
    authzid_allowed,
)
from mailserver.smtp import events
from mailserver.smtp.record import ConnectionLog
from mailserver.smtp.session import SMTPSession
from mailserver.smtp.stock import CramMD5Credentials, StockAvatar
from mailserver.smtp.stock_import import stock


class AvatarServer(stock.ESMTP):
    """The part of `ESMTPServer` that deals with cred."""

    portal: Portal | None = None  # type: ignore[assignment]
    #: What cred gave us to call when the login ends; the stock class has it without a type.
    _onLogout: Callable[[], None] | None = None
    session: SMTPSession
    admission: IAdmission | None = None
    #: Who knows the keys for SCRAM; None: nobody.
    scram: Any = None
    _record: ConnectionLog
    _avatar: Any = None
    _lost = False

    def _clock(self) -> IReactorTime:
        raise TypeError("the server has the clock")

    async def _login(self, event: events.Login) -> events.Answer:
        peer, admission, user = self.session.peer, self.admission, event.credentials.user
        if admission is not None and (no := admission.may_authenticate(peer)) is not None:
            return no
        wait = 0.0
        try:
            answer = await self._judge(event)
            if answer is replies.BAD_CREDENTIALS:
                self._record.login_failed(user, event.mechanism)
                if admission is not None:
                    # Before it counts as judged: many at once are no more than as many in a row.
                    wait = admission.auth_failed(peer, user)
            elif isinstance(answer, events.Identity) and admission is not None:
                admission.auth_succeeded(peer, user)
        finally:
            if admission is not None:
                admission.auth_judged(peer)
        if answer is replies.BAD_CREDENTIALS and admission is not None:
            # The wait has the same length for a wrong password and for a user who does not exist.
            try:
                await deferLater(self._clock(), wait)
            finally:
                admission.auth_answered(peer)
        return answer

    async def _judge(self, event: events.Login) -> events.Answer:
        """Identity, or the reply: BAD_CREDENTIALS, or AUTH_UNAVAILABLE where nobody could judge."""
        if self.portal is None:
            return replies.AUTH_UNAVAILABLE
        try:
            login = ensureDeferred(self._avatar_for(credentials_of(event.credentials, event.mechanism)))
            # The wait for a wrong password has its own end; a checker may have none.
            login.addTimeout(self.session.settings.limits.decision_timeout, self._clock())
            avatar, logout = await login
        except UnauthorizedLogin:
            return replies.BAD_CREDENTIALS
        except LoginFailed:
            return replies.AUTH_UNAVAILABLE
        if self._lost:
            logout()
            return replies.AUTH_UNAVAILABLE
        self._logout()
        self._avatar, self._onLogout = avatar, logout
        self.authenticated = True
        self._record.logged_in()
        return events.Identity(getattr(avatar, "user", "") or event.credentials.user)

    async def _lookup(self, event: events.Lookup) -> events.Answer:
        peer, admission = self.session.peer, self.admission
        if admission is not None and (no := admission.may_authenticate(peer)) is not None:
            return no
        try:
            if self.scram is None:
                return replies.AUTH_UNAVAILABLE
            return cast("ScramKeys", await value(IScramKeys(self.scram).scram_keys(event.user)))
        finally:
            if admission is not None:
                admission.auth_judged(peer)

    async def _own_avatar(self) -> Any:
        """The avatar of this connection; of nobody, if nobody logged in."""
        if self._avatar is None:
            self._avatar = await self._log_in_nobody()
        return self._avatar

    async def _log_in_nobody(self) -> Any:
        if self.delivery is not None or self.deliveryFactory is not None or self._validates_itself():
            return StockAvatar(self)
        if self.portal is None:
            raise Refusal(Reply(550, "5.7.1", "No mail is taken here"))
        try:
            avatar, self._onLogout = await self._avatar_for(Anonymous())
        except UnhandledCredentials:
            raise Refusal(replies.AUTH_REQUIRED) from None
        except UnauthorizedLogin:
            raise Refusal(Reply(550, "5.7.1", "Senders must log in")) from None
        return avatar

    def _validates_itself(self) -> bool:
        """Has somebody overridden the methods by which stock twisted.mail decides?"""
        return type(self).validateFrom is not stock.SMTP.validateFrom

    async def _avatar_for(self, credentials: Any) -> tuple[Any, Callable[[], None]]:
        portal = cast("Portal", self.portal)
        wanted = (IMailAvatar, IMessageDeliveryFactory, IMessageDelivery)
        interface, avatar, logout = await portal.login(credentials, None, *wanted)
        if interface is IMessageDeliveryFactory:
            self.deliveryFactory, self.delivery = avatar, None
        elif interface is IMessageDelivery:
            self.deliveryFactory, self.delivery = None, avatar
        else:
            return avatar, logout
        return StockAvatar(self), logout

    def _logout(self) -> None:
        logout, self._onLogout = self._onLogout, None
        if self._avatar is not None and not isinstance(self._avatar, StockAvatar):
            self._avatar.logout()
        if logout is not None:
            logout()
            self.delivery = self.deliveryFactory = None
        self._avatar = None
        self.authenticated = False


def credentials_of(login: Credentials, mechanism: str) -> Any:
    """Credentials for cred's checkers.  Raises UnauthorizedLogin for what needs no checker to be wrong."""
    if isinstance(login, (PlainLogin, VerifiedLogin, ExternalLogin)) and not authzid_allowed(login):
        # RFC 4954 4, RFC 4616 2: we let nobody act for another; it reads like a wrong password.
        raise UnauthorizedLogin
    name = login.user.encode()
    if isinstance(login, PlainLogin):
        return UsernamePassword(name, login.password.encode())
    if isinstance(login, CramLogin):
        return CramMD5Credentials(name, login.challenge, login.digest)
    if isinstance(login, (VerifiedLogin, ExternalLogin)):
        return VerifiedUser(name)
    if isinstance(login, BearerLogin):
        return BearerToken(name, login.token, mechanism)
    raise UnauthorizedLogin  # a WrongProof


def value(result: Any) -> Any:
    """Something to await, whether `result` is a value, a Deferred or a coroutine."""
    return result if isinstance(result, Awaitable) else _There(result)


class _There:
    """Something to await that is there already; cheaper than a Deferred that was fired."""

    __slots__ = ("_result",)

    def __init__(self, result: Any) -> None:
        self._result = result

    def __await__(self) -> _There:
        return self

    def __iter__(self) -> _There:
        return self

    def __next__(self) -> None:
        raise StopIteration(self._result)
