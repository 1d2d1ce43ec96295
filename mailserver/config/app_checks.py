"""
Can the apps of the configuration be used?  Their code is imported, their options are checked by their own models.

In: the parts of a configuration.  Out: remarks, as from `checks`.
An app that takes mail must say for which recipients: without that it would take all mail, for whatever domain.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from mailserver.config.classes import AppTable
from mailserver.config.lines import KeyPath
from mailserver.config.listener_checks import Remark
from mailserver.config.reading import Parts


def check_apps(parts: Parts, folder: Path) -> Iterator[Remark]:
    """All remarks on the apps.  folder: where their relative paths start."""
    if not parts.apps:
        return
    # They bring Twisted with them, which nobody needs who only wants to know where the data directory is.
    from mailserver.apps.installed import callbacks_of
    from mailserver.apps.loading import AppError, settings_of

    seen: dict[str, KeyPath] = {}
    listeners = set(parts.names.values())
    for path, app in parts.apps.items():
        if app.name in seen:
            yield Remark((*path, "name"), f'duplicate name: there is another app "{app.name}"; change one of them')
        seen.setdefault(app.name, path)
        for name in app.match.listener:
            if name not in listeners:
                known = ", ".join(sorted(listeners)) or "none"
                yield Remark((*path, "match", "listener"), f'there is no listener "{name}"; there are: {known}')
        try:
            settings = settings_of(app, folder)
        except AppError as error:
            yield Remark((*path, *error.key.split(".")), str(error))
            continue
        if "message" in callbacks_of(settings.app) and not app.match.recipients:
            yield Remark(
                (*path, "match"),
                'takes mail, so it needs recipients, such as match = { recipients = "tickets+*@example.org" }; '
                '"*" takes all mail, for whatever domain',
            )
        yield from _check_file(path, app, folder)
        if app.command is not None:
            from mailserver.apps.command import find_program

            if find_program(settings.options) is None:
                program = settings.options.run[0]
                text = f"there is no program {program}, or it may not be run: its mail gets 451 until there is"
                yield Remark((*path, "command", "run"), text, warning=True)


def _check_file(path: KeyPath, app: AppTable, folder: Path) -> Iterator[Remark]:
    place = (app.python or "").rpartition(":")[0]
    if place.endswith(".py"):
        file = folder / place
        mode = os.stat(file).st_mode
        if mode & stat.S_IWOTH:
            yield Remark((*path, "python"), f"{file} can be written by everybody; run chmod o-w on it", warning=True)
