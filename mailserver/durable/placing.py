"""
Files put in their places at once, not yet durable: the first half of the quick commits, on the reactor.

In: `NewFile`s.  Out: `Placed`: what is visible, and what a committer needs to make it durable: contents and names for
the journal, open descriptors for fsync.
Nothing here waits for the disk: it is open(2), write(2), link(2), unlink(2), which work in the kernel's memory.
Failures: OSError, and `NotAtOnce` for what has to be done in a thread; either way nothing is left.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from mailserver.durable.commit import COPY_INSTEAD, EVERYBODYS, take_away
from mailserver.durable.drafts import NewFile, Temporary, Tools


class NotAtOnce(Exception):  # noqa: N818 - no error
    """A directory is missing, a large file has to be copied or is not alone, or it is another file system."""


class Placed:
    """
    The files of one creation.

    contents: (names of one file, its content), when descriptors were not asked for; None in its place for a large
    file, which is the only one then.
    open: descriptors of the files, when they were asked for; they belong to whoever has this.
    visible: all names.  failed: places that could not be had, of a partial creation.
    """

    __slots__ = ("contents", "failed", "octets", "open", "tools", "visible")

    def __init__(self, tools: Tools) -> None:
        self.tools = tools
        self.contents: list[tuple[list[str], bytes]] | None = []
        self.open: list[int] = []
        self.visible: list[str] = []
        self.failed: dict[str, OSError] = {}
        self.octets = 0

    def close(self) -> None:
        """Close the descriptors.  Never raises OSError: what was written is synced, or given up."""
        descriptors, self.open = self.open, []
        for descriptor in descriptors:
            try:
                self.tools.files.close(descriptor)
            except OSError:
                continue  # Linux has closed it all the same

    def undo(self) -> None:
        """Take everything away again."""
        self.close()
        take_away(self.visible, self.tools)


def place(new: Sequence[NewFile], tools: Tools, *, keep_open: bool, partial: bool) -> Placed:
    """
    Put all files in their places.  keep_open: the committer needs descriptors, also of small files.
    partial: see `Commit`.  Raises OSError, NotAtOnce.
    """
    placed = Placed(tools)
    if len(new) > 1 and any(file.draft.temporary is not None for file in new):
        raise NotAtOnce  # before anything is visible that would have to be taken away again
    if keep_open:
        placed.contents = None
    try:
        for file in new:
            if file.draft.temporary is not None:
                _place_large(file, placed, partial=partial)
            else:
                _place_small(file, placed, keep_open=keep_open, partial=partial)
        if not placed.visible:
            raise next(iter(placed.failed.values()))
    except BaseException:
        placed.undo()
        raise
    return placed


def _place_small(file: NewFile, placed: Placed, *, keep_open: bool, partial: bool) -> None:
    content = file.draft.content()
    if file.head or file.skip:
        content = file.head + content[file.skip :]
    temporary = _open(file, placed, partial=partial)
    kept = False
    try:
        _check_device(temporary, placed.tools)
        temporary.append(content)
        names = _link(temporary.path, file.places, placed, partial=partial)
        temporary.remove()
        if keep_open:
            placed.open.append(temporary.descriptor)
            kept = True
        else:
            temporary.close()
    except BaseException:
        if not kept:
            temporary.discard()
        raise
    if placed.contents is not None and names:
        placed.contents.append((names, content))
        placed.octets += len(content)


def _check_device(temporary: Temporary, tools: Tools) -> None:
    """The committer knows one file system, and syncs no other.  Raises NotAtOnce."""
    if (device := tools.device()) and tools.files.device(temporary.descriptor) != device:
        raise NotAtOnce


def _open(file: NewFile, placed: Placed, *, partial: bool) -> Temporary:
    """In the `tmp/` of the draft; where one Maildir may fail alone, else in that of any place."""
    directory = file.draft.directory
    if not partial:
        return _temporary(directory, placed.tools)
    name = os.path.basename(directory)
    beside = (f"{os.path.dirname(os.path.dirname(each))}/{name}" for each in file.places)
    first: OSError | None = None
    for each in dict.fromkeys((directory, *beside)):
        try:
            return _temporary(each, placed.tools)
        except OSError as error:
            if error.errno in EVERYBODYS:
                raise
            first = first or error
    assert first is not None
    raise first


def _temporary(directory: str, tools: Tools) -> Temporary:
    try:
        return tools.open_at_once(directory)
    except FileNotFoundError:
        raise NotAtOnce from None


def _link(source: str, places: Sequence[str], placed: Placed, *, partial: bool) -> list[str]:
    """Returns the names that it got."""
    names: list[str] = []
    link = placed.tools.files.link
    for each in places:
        try:
            # Not rename(2): it would overwrite a file that has this name already.
            link(source, each)
        except OSError as error:
            if isinstance(error, FileNotFoundError) or error.errno in COPY_INSTEAD:
                raise NotAtOnce from None
            if not partial or error.errno in EVERYBODYS:
                raise
            placed.failed[each] = error
        else:
            names.append(each)
            placed.visible.append(each)
    return names


def _place_large(file: NewFile, placed: Placed, *, partial: bool) -> None:
    draft = file.draft
    temporary = draft.temporary
    assert temporary is not None
    if file.head or file.skip:
        raise NotAtOnce
    _check_device(temporary, placed.tools)
    if rest := draft.take_rest():
        temporary.append(rest)
    _link(temporary.path, file.places, placed, partial=partial)
    # From here on the draft's own file is only a descriptor.
    temporary.remove()
    placed.open.append(temporary.descriptor)
    placed.contents = None
    draft.temporary = None
