"""Root works as the owner of the data directory; everybody else as themselves."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from twisted.trial.unittest import SynchronousTestCase

from mailserver.cli.owner import become_owner


class OwnerTests(SynchronousTestCase):
    def become(self, me: int, owner: int) -> list[Any]:
        done: list[Any] = []
        self.patch(os, "geteuid", lambda: me)
        for name in ("setgroups", "setegid", "seteuid"):
            self.patch(os, name, lambda value, name=name: done.append((name, value)))
        become_owner(cast("Path", SimpleNamespace(stat=lambda: SimpleNamespace(st_uid=owner, st_gid=owner + 1))))
        return done

    def test_root_gives_up_its_groups_first_and_its_user_last(self) -> None:
        self.assertEqual(self.become(0, 500), [("setgroups", []), ("setegid", 501), ("seteuid", 500)])

    def test_where_there_is_nothing_to_give_up(self) -> None:
        self.assertEqual(self.become(0, 0), [])
        self.assertEqual(self.become(500, 500), [])
        self.assertEqual(self.become(500, 600), [])
