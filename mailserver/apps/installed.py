"""
An app of the configuration, installed in this process: its class, its options, how it is run, and its objects.

In: `AppSettings` and a class.  Out: an `Instance` for each connection that the app is for.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, ensureDeferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from mailserver import reply as replies
from mailserver.apps.app import App
from mailserver.apps.calling import Caller, Inline, Observer, Runner, Threaded
from mailserver.apps.matching import Match
from mailserver.apps.view import Session
from mailserver.reply import Refusal

#: Seconds that a callback may take; below the time after which the server itself gives up (`decision_timeout`).
TIMEOUT = 60.0
#: Seconds after which a `setup` that failed is tried again.
SETUP_AGAIN = 5.0
#: The callbacks of an app.
CALLBACKS = (
    "connected", "helo", "secured", "authenticate", "mail", "rcpt", "filter", "message", "reset", "verify", "command",
    "error", "disconnected",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class AppSettings:
    """
    What the configuration says of an app.

    name: unique.  app: its class.  options: as the class's `Options` made them.  match: whose turn it is.  timeout:
    seconds.  separator: of details.  source: how to import it again in another process ("tickets.py:Tickets"); ""
    when nobody knows.  folder: where its relative path starts.  configured: the options before `Options` has read
    them, for another process; None when there are only those that are made.
    """

    name: str
    app: type
    options: Any = None
    match: Match = field(default_factory=Match)
    timeout: float = TIMEOUT
    threaded: bool = False
    isolated: bool = False
    separator: str = "+"
    source: str = ""
    folder: Path = Path()
    configured: Mapping[str, Any] | None = None


class InstalledApp:
    """
    clock: the reactor.  run_in_thread: as `deferToThread`.  observer: counts calls.

    `defines` are the callbacks that the app has of its own.
    """

    def __init__(
        self,
        settings: AppSettings,
        clock: IReactorTime,
        run_in_thread: Callable[..., Deferred[Any]],
        observer: Observer,
    ) -> None:
        self.settings = settings
        self.name = settings.name
        self.match = settings.match
        self.cls: Any = settings.app  # any class with the callbacks; `App` is only the usual base
        self.defines = callbacks_of(self.cls)
        self.log = Logger(namespace=f"mailserver.app.{self.name}")
        self._clock = clock
        self.clock: Any = clock
        self._observer = observer
        self.runner: Runner = Threaded(run_in_thread) if settings.threaded else Inline(clock.seconds)
        self.shared: Any = None
        self._is_set_up = not _has_own(self.cls, "setup")
        self._setting_up: list[Deferred[None]] | None = None
        self._next_try = 0.0
        self._users = 0
        self._retired = False

    async def ready(self) -> None:
        """
        Wait until `setup` is done; begin with it if nobody has.

        Raises Refusal (451) when it fails.  It is tried again, but not before `SETUP_AGAIN` seconds have gone by.
        """
        if self._is_set_up:
            return
        if self._setting_up is not None:
            waiting: Deferred[None] = Deferred()
            self._setting_up.append(waiting)
            await waiting
            return
        if self._clock.seconds() < self._next_try:
            raise Refusal(replies.LOCAL_TROUBLE, f"setup of app {self.name} failed")
        self._setting_up = []
        refusal: Refusal | None = None
        try:
            self.shared = await self.caller().call("setup", self.cls.setup, self.settings.options)
            self._is_set_up = True
        except Refusal as error:
            refusal = error
            self._next_try = self._clock.seconds() + SETUP_AGAIN
        finally:
            waiters, self._setting_up = self._setting_up, None
            for each in waiters:
                each.callback(None) if refusal is None else each.errback(refusal)
        if refusal is not None:
            raise refusal

    def start(self) -> None:
        """Call `setup` now, so that the first client does not wait for it."""
        ensureDeferred(self.ready()).addErrback(lambda _failure: None)  # it is in the log

    async def stop(self) -> None:
        """Call `teardown`; what that raises is logged, and does not keep the process."""
        if _has_own(self.cls, "teardown") and self._is_set_up:
            self._is_set_up = False
            with contextlib.suppress(Refusal):
                await self.caller().call("teardown", self.cls.teardown, self.shared)

    def instance(self, session: Session) -> Instance:
        """An object of the app for this connection; `Instance.over` must follow."""
        self._users += 1
        return Instance(self, session)

    def left(self) -> None:
        """A connection is over."""
        self._users -= 1
        self._stop_if_unused()

    def retire(self) -> None:
        """A new configuration has no use for it: stop it when the connections that know it are over."""
        self._retired = True
        self._stop_if_unused()

    def _stop_if_unused(self) -> None:
        if self._retired and not self._users:
            self._retired = False
            ensureDeferred(self.stop())

    @property
    def is_set_up(self) -> bool:
        """Is there nothing to wait for?"""
        return self._is_set_up

    def words(self, name: str) -> list[str]:
        """What its class says of itself under this name (`verbs`, `mechanisms` ...), in upper case."""
        return [str(word).upper() for word in getattr(self.cls, name, ())]

    def caller(self) -> Caller:
        """What calls the callbacks of one object."""
        return Caller(self.name, self.runner, self._clock, self.settings.timeout, self._observer)

    def made(self, session: Session) -> Any:
        """A new object of the user's class."""
        app = self.cls()
        app.name, app.options, app.shared = self.name, self.settings.options, self.shared
        app.session, app.log = session, self.log
        return app

    def run(self, app: Any, callback: str, arguments: tuple[Any, ...]) -> Any:
        """Call what `made` has made."""
        return getattr(app, callback)(*arguments)

    def forget(self, app: Any) -> None:
        """The connection of this object is over, and its last callback too."""


class Instance:
    """One app on one connection.  Its object is made when the first callback is due."""

    def __init__(self, installed: InstalledApp, session: Session) -> None:
        self.installed = installed
        self.name = installed.name
        self.match = installed.match
        self._session = session
        self._caller = installed.caller()
        self._app: Any = None

    def defines(self, callback: str) -> bool:
        """Has the app this callback?"""
        return callback in self.installed.defines

    @property
    def takes(self) -> bool:
        """Does it take the mail that it matches?"""
        return "message" in self.installed.defines

    def call(self, callback: str, *arguments: Any) -> Deferred[Any]:
        """Call it, behind all calls before; see `Caller.call`."""
        if self.installed.is_set_up:
            return self._caller.call(callback, self._run, callback, *arguments)
        return ensureDeferred(self._call_later(callback, arguments))

    async def _call_later(self, callback: str, arguments: tuple[Any, ...]) -> Any:
        await self.installed.ready()
        return await self._caller.call(callback, self._run, callback, *arguments)

    def _run(self, callback: str, *arguments: Any) -> Any:
        if self._app is None:
            self._app = self.installed.made(self._session)
        return self.installed.run(self._app, callback, arguments)

    def tell(self, callback: str, *arguments: Any) -> None:
        """The same for what nobody waits for; a Refusal means nothing here."""
        if self.defines(callback):
            self.call(callback, *arguments).addErrback(lambda _failure: None)

    def over(self, reason: str) -> None:
        """The connection is over."""
        gone = self.call("disconnected", reason) if self.defines("disconnected") else succeed(None)
        gone.addBoth(self._forgotten)

    def _forgotten(self, _result: Any) -> None:
        if self._app is not None:
            self.installed.forget(self._app)
        self.installed.left()


def _has_own(cls: Any, name: str) -> bool:
    """Has it a class method of its own under this name, beside that of `App` which does nothing?"""
    own = getattr(cls, name, None)
    return own is not None and getattr(own, "__func__", own) is not getattr(App, name).__func__


def callbacks_of(cls: type) -> frozenset[str]:
    """The callbacks that a class has of its own."""
    return frozenset(name for name in CALLBACKS if getattr(cls, name, None) not in (None, getattr(App, name)))
