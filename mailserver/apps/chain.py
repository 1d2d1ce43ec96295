"""
All apps of one connection, in the order of the configuration, as the SMTP server asks them.

In: the questions of `smtp/policed`.  Out: replies; and an avatar that asks the apps, then the one behind it.
An app is on a connection when its `match` names the listener (or none) and the client's network (or none); senders
and recipients are looked at when there are some.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from zope.interface import implementer

from mailserver import reply as replies
from mailserver.apps.answers import nonsense, reply_of
from mailserver.apps.app import CramProof, Disconnect, Login
from mailserver.apps.avatar import AppAvatar, Surroundings
from mailserver.apps.installed import InstalledApp, Instance
from mailserver.apps.view import Session
from mailserver.interfaces import ISessionPolicies
from mailserver.reply import Refusal, Reply
from mailserver.sasl import BearerLogin, CramLogin, PlainLogin

#: Characters of an answer that is none, in the log.
MOST_SHOWN = 200


@implementer(ISessionPolicies)
class AppChain:
    """hang_up: closes the connection without a reply, and is told why."""

    def __init__(
        self,
        instances: Sequence[Instance],
        session: Session,
        surroundings: Surroundings,
        hang_up: Callable[[str], None],
    ) -> None:
        self._instances = tuple(instances)
        self._session = session
        self._surroundings = surroundings
        self._hang_up = hang_up

    async def connected(self) -> Reply | None:
        """See `ISessionPolicies`; the last app that has a text gives the banner."""
        banner: Reply | None = None
        for instance in self._with("connected"):
            answer = await self._ask(instance, "connected")
            if isinstance(answer, str):
                answer = Reply(220, "", f"{self._session.hostname} {answer}")
            if answer is None:
                continue
            if not isinstance(answer, Reply):
                raise nonsense(instance, "connected", f"{type(answer).__name__} is no banner")
            if not answer.positive:
                return answer
            banner = answer
        return banner

    async def hello(self, name: str, extensions: dict[str, str | None]) -> Mapping[str, str | None] | None:
        """See `ISessionPolicies`; each app gets what the one before it has left."""
        wanted, usual = extensions, dict(extensions)
        for instance in self._with("helo"):
            answer = await self._ask(instance, "helo", name, wanted)
            if answer is not None:
                if not isinstance(answer, Mapping):
                    raise nonsense(instance, "helo", f"{type(answer).__name__} is no table of extensions")
                wanted = dict(answer)
            _check_extensions(wanted, instance)
        return None if list(wanted.items()) == list(usual.items()) else wanted

    async def secured(self) -> None:
        """See `ISessionPolicies`."""
        for instance in self._with("secured"):
            await self._ask(instance, "secured")

    async def authenticate(self, mechanism: str, credentials: Any) -> str | bool | None:
        """See `ISessionPolicies`; the first app with an opinion decides."""
        login = login_of(mechanism, credentials)
        if not _is_name(login.user):
            return None  # nobody has that name; the accounts say so
        for instance in self._with("authenticate"):
            answer = await self._ask(instance, "authenticate", login)
            if answer is None:
                continue
            if answer is True:
                return login.user
            if answer is False or (isinstance(answer, str) and _is_name(answer)):
                return answer
            if isinstance(answer, str):
                # Not a yes: "" is what many a look-up says for nobody.
                raise nonsense(instance, "authenticate", f"{answer[:MOST_SHOWN]!r} is nobody's name")
            raise nonsense(instance, "authenticate", f"{type(answer).__name__} is no verdict")
        return None

    def avatar(self, inner: Any) -> AppAvatar:
        """See `ISessionPolicies`."""
        return AppAvatar(self._instances, self._ask, inner, self._surroundings)

    async def command(self, verb: str, argument: str) -> Reply | None:
        """See `ISessionPolicies`; the first app that answers does."""
        for instance in self._with("command"):
            verbs = {each.upper() for each in getattr(instance.installed.cls, "verbs", ())}
            if verb in verbs or "*" in verbs:
                answer = reply_of(await self._ask(instance, "command", verb, argument), instance, "command", "")
                if answer is not None:
                    return answer
        return None

    def error(self, kind: str, detail: str) -> None:
        """See `ISessionPolicies`."""
        for instance in self._instances:
            instance.tell("error", kind, detail)

    def disconnected(self, reason: str) -> None:
        """See `ISessionPolicies`."""
        for instance in self._instances:
            instance.over(reason)

    def _with(self, callback: str) -> Iterable[Instance]:
        return (instance for instance in self._instances if instance.defines(callback))

    async def _ask(self, instance: Instance, callback: str, *arguments: Any) -> Any:
        """What the app says.  Raises Refusal; an app that wants to disconnect has its way."""
        try:
            return await instance.call(callback, *arguments)
        except Disconnect as wish:
            self._hang_up(f"app {instance.name}: {wish}" if str(wish) else f"app {instance.name}")
            raise Refusal(replies.SHUTTING_DOWN) from None


def chain_maker(
    apps: Sequence[InstalledApp],
    *,
    hostname: str,
    now: Callable[[], float],
    folder: Callable[[], Path],
    connections: Callable[[], int],
    vrfy: bool = False,
) -> Callable[[Any], AppChain | None]:
    """
    For a listener what makes the chain of each connection (`PolicedServer`), or None where no app cares for it.

    apps: those of the listener.  folder: where messages are held that are not small.  now: seconds since 1970.
    vrfy: may VRFY tell which accounts exist?
    """
    surroundings = Surroundings(hostname, now, folder, vrfy)

    def chain(server: Any) -> AppChain | None:
        for_client = [app for app in apps if app.match.client(server.session.peer.host)]
        if not for_client:
            return None
        session = Session(
            server.session,
            id=server.connection_id,
            local=server.local,
            connections=connections,
            end=server.end,
        )
        return AppChain([app.instance(session) for app in for_client], session, surroundings, server.hang_up)

    return chain


def login_of(mechanism: str, credentials: Any) -> Login:
    """What an app sees of credentials (`sasl.Credentials`)."""
    if isinstance(credentials, PlainLogin):
        return Login(mechanism, credentials.user, password=credentials.password)
    if isinstance(credentials, CramLogin):
        return Login(mechanism, credentials.user, _digest_of=CramProof(credentials.challenge, credentials.digest))
    if isinstance(credentials, BearerLogin):
        return Login(mechanism, credentials.user, token=credentials.token)
    return Login(mechanism, credentials.user)


def _check_extensions(extensions: Mapping[Any, Any], instance: Instance) -> None:
    """Raises Refusal when a line of the EHLO reply could not be written."""
    for keyword, given in extensions.items():
        sound = _is_word(keyword) and " " not in keyword and (given in (None, "") or _is_word(given))
        if sound and keyword.upper() == "SIZE" and given is not None:
            sound = given.isdecimal() and len(given) < 19
        if not sound:
            raise nonsense(instance, "helo", f"no extension: {keyword!r}: {given!r}"[:MOST_SHOWN])


def _is_name(text: str) -> bool:
    return bool(text) and text.isprintable()


def _is_word(text: Any) -> bool:
    return isinstance(text, str) and text.isascii() and text.isprintable() and bool(text)
