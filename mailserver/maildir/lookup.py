"""
Is a message in a mailbox already?  Asked before one that a crash may have interrupted is delivered again.

In: Maildirs, the unique name of the message.  Out: those that have it, whole and durable.
It is looked for in `new/` and `cur/`, also of the folders below (`.Archive/cur/`): a reader may have moved it, and
added flags to its name.  What is torn is removed, as nobody was told that it is there.
Every function may block.  Failures: OSError.
Maildir: https://cr.yp.to/proto/maildir.html; Maildir++ (folders, `,S=`).
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from pathlib import Path

from mailserver.durable.whole import remove_file, sync_file
from mailserver.maildir.names import sizes


def delivered(paths: Collection[Path], unique: str) -> set[Path]:
    """Those of these Maildirs that hold the message of this name; of what they hold a power cut takes nothing."""
    return {path for path in paths if _has(path, unique)}


def _has(path: Path, unique: str) -> bool:
    for directory in _directories(path):
        for entry in _entries(directory):
            if not entry.name.startswith(unique + ","):
                continue
            if entry.stat(follow_symlinks=False).st_size == sizes(entry.name)[0]:
                # It may have come a moment before a kill, and not be synced: it will not be written again.
                sync_file(entry.path)
                return True
            remove_file(entry.path)
    return False


def _directories(path: Path) -> Iterator[str]:
    folders = [entry.path for entry in _entries(str(path)) if entry.name.startswith(".") and entry.is_dir()]
    for folder in (str(path), *folders):
        yield f"{folder}/new"
        yield f"{folder}/cur"


def _entries(directory: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(directory) as entries:
            return list(entries)
    except (FileNotFoundError, NotADirectoryError):
        return []
