"""
Whole files that are replaced, moved and removed, so that a power cut leaves the old state or the new one.

In: paths, blocks.  Out: when a function has returned, what it did survives a power cut.  Every function may block.
Failures: OSError; then the old file is still there.
rename(2): POSIX.1-2017; fsync(2) "NOTES" for directories.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from mailserver.durable.drafts import Temporary
from mailserver.durable.files import FILES, OLD, Files, sync_directory


def write_file(path: str, temporary: str, blocks: Iterable[bytes], files: Files = FILES) -> None:
    """
    Give the file `path`, old or new, this content.

    temporary: a new name on the same file system, for the time of writing.  At every moment `path` has the old
    content or the new one, whole.
    """
    new = Temporary(temporary, files)
    try:
        for block in blocks:
            new.append(block)
        new.sync_and_close()
        new.rename(path)
    except BaseException:
        new.discard()
        raise
    sync_directory(os.path.dirname(path), files)


def move_file(path: str, target: str, files: Files = FILES) -> None:
    """Another name for this file, on the same file system; what has that name already is replaced."""
    files.rename(path, target)
    for directory in dict.fromkeys((os.path.dirname(target), os.path.dirname(path))):
        sync_directory(directory, files)


def remove_file(path: str, files: Files = FILES) -> None:
    """It will not come back."""
    files.unlink(path)
    sync_directory(os.path.dirname(path), files)


def sync_file(path: str, files: Files = FILES) -> None:
    """Make a file durable that somebody has written and perhaps not synced, and its name too."""
    descriptor = files.open(path, OLD)
    try:
        files.fsync(descriptor)
    finally:
        files.close(descriptor)
    sync_directory(os.path.dirname(path), files)
