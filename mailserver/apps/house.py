"""
The apps of a process: installed when it starts, exchanged by a reload, closed when it stops.

In: `AppSettings`.  Out: `InstalledApp`s; one whose settings a reload has not changed goes on with what it has.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.interfaces import IReactorTime

from mailserver.apps.calling import Observer
from mailserver.apps.installed import AppSettings, InstalledApp
from mailserver.apps.isolated import IsolatedApp
from mailserver.apps.message import PREFIX


class AppHouse(Service):
    """
    clock: the reactor; it spawns processes too.  run_in_thread: as `deferToThread`.  observer: counts calls.
    folder: of messages that are not small; it is made when it is needed.
    """

    def __init__(
        self,
        clock: IReactorTime,
        run_in_thread: Callable[..., Deferred[Any]],
        observer: Observer,
        folder: Path,
    ) -> None:
        self._clock = clock
        self._run_in_thread = run_in_thread
        self._observer = observer
        self._folder = folder
        self.apps: tuple[InstalledApp, ...] = ()

    def installed(self, wanted: Sequence[AppSettings]) -> tuple[InstalledApp, ...]:
        """
        Apps with these settings; those that are in use already are the same objects.  Nothing is begun.

        Raises AppError for one that cannot have the process of its own that it shall have.
        """
        known = {app.name: app for app in self.apps}
        return tuple(
            app if (app := known.get(each.name)) is not None and app.settings == each else self._install(each)
            for each in wanted
        )

    def _install(self, settings: AppSettings) -> InstalledApp:
        cls = IsolatedApp if settings.isolated else InstalledApp
        return cls(settings, self._clock, self._run_in_thread, self._observer)

    def use(self, apps: Sequence[InstalledApp]) -> None:
        """From now on it is these."""
        before, self.apps = self.apps, tuple(apps)
        if self.running:
            for app in self.apps:
                if app not in before:
                    app.start()
        for app in before:
            if app not in self.apps:
                app.retire()

    def startService(self) -> None:
        """Set them up."""
        super().startService()
        for app in self.apps:
            app.start()

    def stopService(self) -> Deferred[None]:
        """Close them, the last first."""
        super().stopService()
        return ensureDeferred(self._stop())

    async def _stop(self) -> None:
        for app in reversed(self.apps):
            await app.stop()

    def folder(self) -> Path:
        """The folder for messages.  Raises OSError."""
        self._folder.mkdir(mode=0o700, exist_ok=True)
        return self._folder

    def sweep(self) -> None:
        """Remove what a process that is gone has left there."""
        with contextlib.suppress(OSError):
            for entry in os.scandir(self._folder):
                if entry.name.startswith(PREFIX):
                    os.unlink(entry.path)
