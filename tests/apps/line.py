"""A server with apps on an in-memory wire, in front of the recording avatar of `tests.smtp.wire`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, execute

from mailserver.apps.chain import chain_maker
from mailserver.apps.installed import AppSettings, InstalledApp
from mailserver.apps.matching import Match
from mailserver.foundations import with_apps
from mailserver.smtp.policed import PolicedFactory
from mailserver.smtp.rules import SessionSettings
from tests.smtp.wire import Line

EHLO, MAIL, RCPT, DATA = b"EHLO client.example.net", b"MAIL FROM:<a@example.net>", b"RCPT TO:<b@example.org>", b"DATA"
OPEN = (EHLO, MAIL, RCPT, DATA)


class Calls:
    """Who counts: (app, callback, outcome) of each call."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, str]] = []

    def app_called(self, app: str, callback: str, seconds: float, outcome: str) -> None:
        self.seen.append((app, callback, outcome))


def at_once(function: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
    """A thread that is done before anybody waits for it."""
    return execute(function, *arguments)


def settings_of(app: Any, **others: Any) -> AppSettings:
    """App settings; the keys of `match` may be given in their place."""
    keys = {"listeners", "recipients", "senders", "networks"}
    match = Match(**{key: others.pop(key) for key in keys & others.keys()})
    return AppSettings(others.pop("name", app.__name__), app, match=match, **others)


class AppLine(Line):
    """apps: classes, or `AppSettings`, in their order."""

    def __init__(self, *apps: Any, settings: SessionSettings | None = None, **others: Any) -> None:
        self.calls = Calls()
        self.folder = Path("never-made")
        given = [each if isinstance(each, AppSettings) else settings_of(each) for each in apps]
        connect, others["connect"] = others.pop("connect", True), False
        super().__init__(
            settings,
            kind=self._factory,
            **others,
        )
        installed = [InstalledApp(each, self.clock, at_once, self.calls) for each in given]
        self.installed = installed
        self.factory.settings = with_apps(self.factory.settings, installed)
        self.factory.policies = chain_maker(
            installed, hostname="mx.example.org", now=lambda: 0.0, folder=lambda: self.folder, connections=lambda: 3
        )
        self.server = self.factory.buildProtocol(None)
        if connect:
            self.server.makeConnection(self.wire)

    @staticmethod
    def _factory(*arguments: Any, **others: Any) -> PolicedFactory:
        return PolicedFactory(*arguments, policies=lambda _server: None, **others)


def lmtp(**changes: Any) -> SessionSettings:
    """The settings of an LMTP listener."""
    return dataclasses.replace(SessionSettings("mx.example.org"), lmtp=True, **changes)
