"""
From root to the server's own user, once the ports are bound.

In: names of the configuration, or ids.  Out: a process that cannot go back; files that belong to the user.
`mailserver` started as a user does nothing here.
"""

from __future__ import annotations

import grp
import os
import pwd
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose process and files these shall be.  name: for the supplementary groups, "" for none."""

    uid: int
    gid: int
    name: str = ""


def owner_of(user: str | None, group: str | None) -> Owner | None:
    """
    The owner that the configuration names; None without a user, or when we are not root and cannot change.

    Raises KeyError for a user or group that does not exist (the configuration check has told that before).
    """
    if user is None or os.geteuid() != 0:
        return None
    entry = pwd.getpwnam(user)
    gid = grp.getgrnam(group).gr_gid if group is not None else entry.pw_gid
    return Owner(entry.pw_uid, gid, entry.pw_name)


def give(owner: Owner, paths: Iterable[Path]) -> None:
    """Make those of the paths that exist the owner's; links are not followed."""
    for path in paths:
        if os.path.lexists(path):
            os.chown(path, owner.uid, owner.gid, follow_symlinks=False)


def become(owner: Owner) -> None:
    """Give up root for good: groups, then group, then user (the other order would leave the groups of root)."""
    if owner.name:
        os.initgroups(owner.name, owner.gid)
    else:
        os.setgroups([owner.gid])
    os.setgid(owner.gid)
    os.setuid(owner.uid)
