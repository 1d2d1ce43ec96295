"""The apps of a process, over its start, its reloads and its end."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailserver.apps.app import App
from mailserver.apps.house import AppHouse
from mailserver.apps.message import IN_MEMORY, Message
from tests.apps.line import Calls, at_once, settings_of


class HouseTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.told: list[str] = []
        self.folder = Path(self.mktemp())
        self.house = AppHouse(Clock(), at_once, Calls(), self.folder)

    def app(self, name: str, **others: Any) -> Any:
        told = self.told

        class Tells(App):
            @classmethod
            def setup(cls, options: Any) -> None:
                told.append(f"+{name}")

            @classmethod
            def teardown(cls, shared: Any) -> None:
                told.append(f"-{name}")

        return settings_of(Tells, name=name, **others)

    def test_they_are_set_up_at_the_start_and_closed_at_the_end_the_last_first(self) -> None:
        self.house.use(self.house.installed([self.app("a"), self.app("b")]))
        self.assertEqual(self.told, [])
        self.house.startService()
        self.assertEqual(self.told, ["+a", "+b"])
        self.successResultOf(self.house.stopService())
        self.assertEqual(self.told, ["+a", "+b", "-b", "-a"])

    def test_a_reload_touches_only_what_has_changed(self) -> None:
        a, b = self.app("a"), self.app("b")
        self.house.use(self.house.installed([a, b]))
        self.house.startService()
        before = self.house.apps
        changed = self.app("b", timeout=5.0)
        self.house.use(self.house.installed([a, changed, self.app("c")]))
        self.assertIs(self.house.apps[0], before[0])
        self.assertEqual(self.told, ["+a", "+b", "+b", "+c", "-b"])

    def test_a_plan_that_is_not_used_begins_nothing(self) -> None:
        self.house.startService()
        self.house.installed([self.app("a")])
        self.assertEqual(self.told, [])

    def test_the_folder_is_made_when_it_is_needed_and_swept_at_a_start(self) -> None:
        self.house.sweep()
        self.assertFalse(self.folder.exists())
        message = Message(self.house.folder)
        message.write(b"x" * (IN_MEMORY + 1))
        self.assertEqual(stat.S_IMODE(self.folder.stat().st_mode), 0o700)
        (self.folder / "other").touch()
        self.house.sweep()
        self.assertEqual([path.name for path in self.folder.iterdir()], ["other"])
        message.close()
