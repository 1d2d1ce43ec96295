"""
The commit that works on every file system, in a thread: contents first, then names, then directories.

In: `NewFile`s.  Out: nothing; what could not be had is told by OSError, and then nothing is left.
It is what is done where the quick ways (`placing`, with a committer) cannot: a directory has to be made, a large file
has to be copied, the file system does not keep names by fsync of their file, or this is no Linux.
Maildir: https://cr.yp.to/proto/maildir.html; fsync: POSIX.1-2017, and fsync(2) "NOTES" for directories.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from twisted.logger import Logger

from mailserver.durable.drafts import Draft, NewFile, Temporary, Tools, slices
from mailserver.durable.files import Layout, sync_directory

#: What link(2) says when a file cannot have this further name, yet a copy can: another file system, too many links, a
#: file system without hard links.
COPY_INSTEAD = frozenset({errno.EXDEV, errno.EMLINK, errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS})
#: Trouble with the whole disk or process, not with one directory.
EVERYBODYS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.EROFS, errno.ENOMEM})

_log = Logger(namespace="mailserver.durable")


class Commit:
    """
    The work of one `create`, in a thread.  What it has made visible is taken away again when it fails.

    partial: a place that cannot be had, as its directory is damaged, is left out, and stands in `failed`; with all of
    them failed it is an error as ever.
    """

    def __init__(self, new: Sequence[NewFile], tools: Tools, *, partial: bool = False) -> None:
        self._new = new
        self._tools = tools
        self._files = tools.files
        self._partial = partial
        self._drafts = list(dict.fromkeys(file.draft for file in new))
        self._finished: dict[Draft, Temporary] = {}
        self._copies: list[Temporary] = []
        self._visible: list[str] = []
        self.failed: dict[str, OSError] = {}

    def run(self) -> dict[str, OSError]:
        """Do it.  Returns `failed`.  Raises OSError."""
        try:
            self._make_durable()
        except BaseException:
            self._undo()
            raise
        # Another thread may have made one of our directories and still be at the fsync of its parent: without that
        # parent our files are lost.  It holds this lock until it has done so; mostly the lock is free.
        with self._tools.making:
            pass
        return self.failed

    def _make_durable(self) -> None:
        # The contents first, then the names, then the directories: so a name never shows a file whose octets are not
        # yet on the disk, whatever the moment of the power cut; and when the last fsync is back, the names are there.
        for draft in self._drafts:
            self._finished[draft] = draft.finish()
        for file in self._new:
            self._show(file)
        if not self._visible:
            raise next(iter(self.failed.values()))
        # Before the directories are synced, so that a failure here can still be answered by taking all away.  The
        # directory tmp/ itself needs no fsync: a name that comes back in it is swept.
        for temporary in (*self._finished.values(), *self._copies):
            temporary.remove()
        for directory in dict.fromkeys(map(os.path.dirname, self._visible)):
            sync_directory(directory, self._files)

    def _show(self, file: NewFile) -> None:
        source: Temporary | None = None if file.head or file.skip else self._finished[file.draft]
        at = ""
        for place in file.places:
            try:
                if source is None:
                    source = self._copy(self._finished[file.draft].path, place, file)
                at = self._give(at or source.path, place, file)
            except OSError as error:
                if not self._partial or error.errno in EVERYBODYS:
                    raise
                self.failed[place] = error

    def _give(self, source: str, place: str, file: NewFile) -> str:
        """Make `place` a name of `source`, or a copy.  Returns the source for the next place."""
        try:
            self._link(source, place, file.draft.layout)
        except OSError as error:
            if error.errno not in COPY_INSTEAD:
                raise
            self._rename(self._copy(source, place, replace(file, head=b"", skip=0)), place)
            return place  # the next one is more likely to be a neighbour of this
        self._visible.append(place)
        return source

    def _link(self, source: str, place: str, layout: Layout) -> None:
        # link(2) and not rename(2): rename would overwrite a file that has this name already.
        try:
            self._files.link(source, place)
        except FileNotFoundError:
            self._tools.make(os.path.dirname(place), layout)
            self._files.link(source, place)

    def _rename(self, copy: Temporary, place: str) -> None:
        # Where there are no hard links, rename is all there is.  The names are unique; this look only guards them.
        if self._files.exists(place):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), place)
        copy.rename(place)
        self._visible.append(place)

    def _copy(self, source: str, place: str, file: NewFile) -> Temporary:
        beside = Path(place).parent.parent / os.path.basename(file.draft.directory)
        copy = self._tools.open(str(beside), file.draft.layout)
        try:
            if file.head:
                copy.append(file.head)
            with contextlib.closing(slices(source, file.skip, self._files)) as blocks:
                for block in blocks:
                    copy.append(block)
            copy.sync_and_close()
        except BaseException:
            copy.discard()  # a partial creation goes on without it
            raise
        self._copies.append(copy)
        return copy

    def _undo(self) -> None:
        take_away(self._visible, self._tools)
        for copy in self._copies:
            copy.discard()
        for draft in self._drafts:
            draft.discard()


def take_away(visible: Sequence[str], tools: Tools) -> None:
    """
    Remove names that were given to files which are refused.  Without an fsync: should the power go now, what was
    refused may be there, whole, and come again: one double.
    """
    for place in visible:
        try:
            tools.files.unlink(place)
        except OSError as error:
            _log.error("{path}: cannot be taken away, will be there twice: {error}", path=place, error=error)
