"""
Apps under test: those of a test server, as a configured server would have them.

In: `Settings.apps`.  Out: the settings of sessions and the policies of connections; what they wrote is gone when the
server stops.
Who has apps pays for the configuration, which says what an app is.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from twisted.internet.defer import Deferred

from mailserver.apps.chain import chain_maker
from mailserver.apps.house import AppHouse
from mailserver.foundations import AppThreads, with_apps
from mailserver.server import app_settings
from mailserver.smtp.rules import SessionSettings
from mailserver.testing.settings import Settings


class _NobodyCounts:
    def app_called(self, app: str, callback: str, seconds: float, outcome: str) -> None:
        """See `Observer`."""

    def app_restarted(self, app: str) -> None:
        """See `Observer`."""


class AppsUnderTest:
    """connections: how many there are.  Raises AppError, TypeError, ValueError for what is no app."""

    def __init__(self, settings: Settings, reactor: Any, connections: Callable[[], int]) -> None:
        self._connections = connections
        self._folder: TemporaryDirectory[str] | None = None
        self._threads = AppThreads(reactor)
        self._house = AppHouse(reactor, self._run_in_thread, _NobodyCounts(), Path())
        self._house.use(self._house.installed(app_settings(settings.apps)))

    def on(self, session: SessionSettings) -> tuple[SessionSettings, Callable[[Any], Any]]:
        """For a listener: its settings, and what makes the policies of a connection."""
        here = [app for app in self._house.apps if app.match.listener(session.listener)]
        maker = chain_maker(
            here, hostname=session.hostname, now=time.time, folder=self._new_folder, connections=self._connections
        )
        return with_apps(session, here), maker

    def start(self) -> None:
        """Set them up."""
        self._house.startService()

    async def stop(self) -> None:
        """Close them."""
        await self._house.stopService()
        if self._threads.running and (stopped := self._threads.stopService()) is not None:
            await stopped
        folder, self._folder = self._folder, None
        if folder is not None:
            folder.cleanup()

    def _run_in_thread(self, *arguments: Any) -> Deferred[Any]:
        if not self._threads.running:
            self._threads.startService()
        return self._threads.run(*arguments)

    def _new_folder(self) -> Path:
        if self._folder is None:
            self._folder = TemporaryDirectory(prefix="mailserver-")
        return Path(self._folder.name)
