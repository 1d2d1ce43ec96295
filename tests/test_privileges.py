"""Giving up root: the right calls in the right order, and nothing where there is nothing to give up."""

from __future__ import annotations

import grp
import os
import pwd
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mailserver.privileges import Owner, become, give, owner_of


class PrivilegesCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.patch(os, "geteuid", lambda: 0)
        users = {"mail": SimpleNamespace(pw_uid=8, pw_gid=12, pw_name="mail")}
        self.patch(pwd, "getpwnam", users.__getitem__)
        self.patch(grp, "getgrnam", {"vmail": SimpleNamespace(gr_gid=77)}.__getitem__)

    def record(self, *names: str) -> None:
        for name in names:
            self.patch(os, name, lambda *args, name=name, **options: self.calls.append((name, *args, options)))


class OwnerTests(PrivilegesCase):
    def test_it_is_the_user_with_its_own_group_or_the_named_one(self) -> None:
        self.assertEqual(owner_of("mail", None), Owner(8, 12, "mail"))
        self.assertEqual(owner_of("mail", "vmail"), Owner(8, 77, "mail"))

    def test_without_a_user_there_is_none(self) -> None:
        self.assertIsNone(owner_of(None, None))
        self.assertIsNone(owner_of(None, "vmail"))

    def test_who_is_not_root_changes_nothing(self) -> None:
        self.patch(os, "geteuid", lambda: 1000)
        self.assertIsNone(owner_of("mail", "vmail"))
        self.assertIsNone(owner_of("nobody-of-that-name", None))

    def test_unknown_names_are_key_errors(self) -> None:
        for user, group in [("gone", None), ("mail", "gone")]:
            with self.assertRaises(KeyError):
                owner_of(user, group)


class BecomeTests(PrivilegesCase):
    def test_groups_go_before_the_group_and_the_group_before_the_user(self) -> None:
        self.record("initgroups", "setgroups", "setgid", "setuid")
        become(Owner(8, 77, "mail"))
        self.assertEqual(self.calls, [("initgroups", "mail", 77, {}), ("setgid", 77, {}), ("setuid", 8, {})])

    def test_without_a_name_the_only_group_is_the_owners(self) -> None:
        self.record("initgroups", "setgroups", "setgid", "setuid")
        become(Owner(8, 77))
        self.assertEqual(self.calls, [("setgroups", [77], {}), ("setgid", 77, {}), ("setuid", 8, {})])

    def test_when_the_groups_cannot_be_given_up_nothing_goes_on(self) -> None:
        self.record("setgid", "setuid")

        def refused(*_: Any) -> None:
            raise PermissionError

        self.patch(os, "initgroups", refused)
        with self.assertRaises(PermissionError):
            become(Owner(8, 77, "mail"))
        self.assertEqual(self.calls, [])


class GiveTests(PrivilegesCase):
    def test_those_that_exist_are_given_and_links_are_not_followed(self) -> None:
        self.record("chown")
        root = Path(self.mktemp())
        root.mkdir()
        (root / "file").write_text("x")
        (root / "link").symlink_to(root / "file")
        give(Owner(8, 77), [root, root / "file", root / "missing", root / "link"])
        options = {"follow_symlinks": False}
        given = [(root, 8, 77), (root / "file", 8, 77), (root / "link", 8, 77)]
        self.assertEqual(self.calls, [("chown", *each, options) for each in given])
