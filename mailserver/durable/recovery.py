"""
At the start: what an earlier run has acknowledged is there, whole, and once; what it has not is not half there.

In: a journal's directory, the mail root.  Out: a `Report`; the files of the Maildirs as they must be; segments that
are free.
A record whose file is in its Maildir under its unique name, in new/ or cur/ of any folder, with any flags, is left
alone when the content is the same, and written again in its place when it is torn.  One whose file is nowhere is
written again, unless `expunged` knows that a reader has deleted it.  Nothing of that is needed when only the process
has ended: where the mount is the one that the segment names, all files are in the kernel's memory as we left them.
Then files without a record are looked at that may have been visible when the power went: their name tells their size,
and one that is shorter was never acknowledged: it is taken away.

Failures: what cannot be written (a full disk) is kept in its segment for the next start, and nothing else of it;
damaged records are told.
Maildir: https://cr.yp.to/proto/maildir.html.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from twisted.logger import Logger

from mailserver.durable import segments
from mailserver.durable.drafts import Temporary
from mailserver.durable.files import OPEN_DIRECTORY, Files, make_directories, sync_directory
from mailserver.durable.records import Damage, Header, Record
from mailserver.durable.segments import Running

KINDS = ("new", "cur")
#: The lock's time is written every few seconds, and may be as old as the kernel lets unsynced octets be.
MARGIN = 300.0

_log = Logger(namespace="mailserver.durable")


@dataclass
class Report:
    """
    What was done.  segments: that were in use.  records: in them.  whole: files that were as they should be.
    written: files that were missing or torn.  expunged: left away.  damaged: records that cannot be read.
    torn: records at the end that were never whole.  foreign: files that are no segments.
    removed: torn files that nobody was told about.  failed: what could not be done, and why.
    """

    segments: int = 0
    records: int = 0
    whole: int = 0
    written: int = 0
    expunged: int = 0
    removed: int = 0
    torn: int = 0
    damaged: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Place:
    """
    Where mail is.  root: the mail.  mount: its identity now.  unique_name: for temporary files.
    expunged: path below the root -> was this message deleted by a reader?
    size_of_name: what the name of a file tells of its octets; None for names that tell nothing.
    """

    root: Path
    files: Files
    unique_name: Callable[[], str]
    mount: bytes = b""
    expunged: Callable[[str], bool] = lambda _path: False
    size_of_name: Callable[[str], int | None] = lambda _name: None

    def is_same(self, mount: bytes) -> bool:
        """Has this mount been there all the time, so that its files are as the last run left them?"""
        return bool(mount) and mount == self.mount


def recover(directory: Path, place: Place, last: Running | None = None) -> Report:
    """
    Do it for one journal, whose lock the caller has.  last: what the lock tells of the run before.
    Blocks; holds one segment in memory at a time.
    """
    report = Report()
    used: list[tuple[Path, Header]] = []
    for path in segments.segment_paths(directory):
        try:
            found = segments.read(path, contents=False)
        except OSError as error:
            report.failed.append(f"{path}: {error}")
            continue
        if found.header is None:
            _set_aside(found, report)
        elif found.header.in_use:
            used.append((path, found.header))
    used.sort(key=lambda each: each[1].sequence)
    report.segments = len(used)
    mailboxes = _Mailboxes(place, report)
    ready: list[_Restored] = []
    for path, header in used:
        try:
            ready.append(_restore(path, header, mailboxes, last))
        except OSError as error:
            report.failed.append(f"{path}: {error}")
    times = [header.since for _, header in used if not place.is_same(header.mount)]
    if last is not None and not place.is_same(last.mount):
        times.append(last.alive - MARGIN)
    if times:
        report.removed = mailboxes.remove_torn(min(times))
    if ready:
        _free(ready, place, report)
    return report


def rewrite(path: Path, place: Place) -> None:
    """
    While the server runs, after a sync that failed: write every file of this segment again that is still there, and
    sync it.  Blocks.  Raises OSError.
    """
    mailboxes = _Mailboxes(place, Report())
    for record in segments.read(path).found:
        if isinstance(record, Record):
            for name in record.names:
                there = mailboxes.find(os.fsdecode(name))
                if there is not None:
                    mailboxes.replace(there, record.content, sync=True)


@dataclass
class _Restored:
    """A segment.  done: where those of its records are whose files are as they must be.  kept: the others."""

    path: Path
    header: Header
    done: list[int] = field(default_factory=list)
    kept: int = 0


def _restore(path: Path, header: Header, mailboxes: _Mailboxes, last: Running | None) -> _Restored:
    """Raises OSError when the segment cannot be read."""
    place, report = mailboxes.place, mailboxes.report
    restored = _Restored(path, header)
    suspect = header.mount == segments.SUSPECT
    # Pages were lost, yet nobody has taken the power away: what is missing, a reader has deleted.
    only_those_there = suspect and last is not None and place.is_same(last.mount)
    for each in segments.read(path).found:
        if isinstance(each, Damage):
            if each.last:
                report.torn += 1
            else:
                report.damaged.append(f"{path}: octet {each.at}: a record is damaged and cannot be read")
            continue
        report.records += 1
        if place.is_same(header.mount):
            continue
        try:
            mailboxes.restore(each, anew=suspect, missing=not only_those_there)
            restored.done.append(each.at)
        except OSError as error:
            report.failed.append(f"{os.fsdecode(each.names[0])}: {error}")
            restored.kept += 1
    return restored


def _free(ready: Sequence[_Restored], place: Place, report: Report) -> None:
    try:
        root = place.files.open(place.root, OPEN_DIRECTORY)
        try:
            place.files.syncfs(root)
        finally:
            place.files.close(root)
        for segment in ready:
            if segment.kept:
                # The next start must not bring back what a reader deletes until then.
                segments.forget(segment.path, segment.done, place.files)
                continue
            segments.mark_free(segment.path, segment.header, place.files)
    except OSError as error:
        report.failed.append(f"{place.root}: {error}")


def _set_aside(segment: segments.Found, report: Report) -> None:
    """What cannot be read is nothing that was acknowledged in it, as far as anybody can tell; a person may look."""
    try:
        if segment.unused:
            segment.path.unlink()
            return
        report.foreign.append(f"{segment.path}: {segment.trouble}")
        names = (f"unreadable-{number}-{segment.path.name}" for number in count(1))
        segment.path.rename(next(path for path in map(segment.path.with_name, names) if not path.exists()))
    except OSError as error:
        report.failed.append(f"{segment.path}: {error}")


class _Mailboxes:
    """The Maildirs below the root, each read once, when one of its messages is asked for."""

    def __init__(self, place: Place, report: Report) -> None:
        self.place = place
        self.report = report
        self._files = place.files
        self._root = os.fspath(place.root) + "/"
        self._known: dict[str, dict[str, str]] = {}

    def restore(self, record: Record, *, anew: bool, missing: bool) -> None:
        """
        anew: also what looks whole is written again.  missing: what is nowhere is written.  Raises OSError.
        """
        source = ""
        for raw in record.names:
            name = os.fsdecode(raw)
            if name.startswith("/") or ".." in name.split("/"):
                continue  # no name of ours
            there = self.find(name)
            if there is None and (not missing or self.place.expunged(name)):
                self.report.expunged += 1
                continue
            if there is not None and not anew and _holds(there, record.content):
                self.report.whole += 1
                source = source or there
                continue
            if there is not None:
                self.replace(there, record.content)
            else:
                there = self._root + name
                if not (source and self._link(source, there)):
                    self.replace(there, record.content)
            self._messages_of(_maildir(there))[_unique(there)] = there
            self.report.written += 1
            source = source or there

    def find(self, name: str) -> str | None:
        """Where the message of this path (below the root) is now; None: nowhere."""
        path = self._root + name
        if os.path.lexists(path):
            return path
        return self._messages_of(_maildir(path)).get(_unique(path))

    def _messages_of(self, maildir: str) -> dict[str, str]:
        """Unique name -> path."""
        if maildir not in self._known:
            self._known[maildir] = {_unique(each): each for each in _messages(maildir)}
        return self._known[maildir]

    def replace(self, path: str, content: bytes, *, sync: bool = False) -> None:
        """Write a file whole, in place of a torn one or of none.  Raises OSError."""
        maildir = Path(path).parent.parent
        if not (maildir / "tmp").is_dir() or not os.path.isdir(os.path.dirname(path)):
            make_directories(*(maildir / each for each in ("tmp", "new", "cur")), files=self._files)
        temporary = Temporary(os.fspath(maildir / "tmp" / self.place.unique_name()), self._files)
        try:
            temporary.append(content)
            if sync:
                self._files.fsync(temporary.descriptor)
            temporary.rename(path)
            temporary.close()
            if sync:
                sync_directory(os.path.dirname(path), self._files)
        except BaseException:
            temporary.discard()
            raise

    def _link(self, source: str, path: str) -> bool:
        try:
            self._files.link(source, path)
        except OSError:
            return False
        return True

    def remove_torn(self, since: float) -> int:
        """
        Take files away that are shorter than their name says, and younger than `since`: when the power went they were
        visible, and nobody had been told of them.  Returns how many.
        """
        removed = 0
        for path in _young(self._root, since - 1.0):
            stated = self.place.size_of_name(os.path.basename(path))
            try:
                if stated is not None and os.lstat(path).st_size < stated:
                    self._files.unlink(path)
                    removed += 1
                    _log.warn("{path}: torn by a power cut, never acknowledged, removed", path=path, event="torn")
            except FileNotFoundError:
                continue
            except OSError as error:
                self.report.failed.append(f"{path}: {error}")
        return removed


def _maildir(path: str) -> str:
    """The Maildir that a path of a message belongs to, whose folders begin with a dot."""
    maildir = os.path.dirname(os.path.dirname(path))
    return os.path.dirname(maildir) if os.path.basename(maildir).startswith(".") else maildir


def _unique(path: str) -> str:
    """The unique name: without flags, and without sizes, which other tools may drop."""
    return os.path.basename(path).partition(":")[0].partition(",")[0]


def _messages(maildir: str) -> Iterator[str]:
    for folder in (maildir, *_folders(maildir)):
        for kind in KINDS:
            with contextlib.suppress(OSError), os.scandir(f"{folder}/{kind}") as entries:
                for entry in entries:
                    yield entry.path


def _folders(maildir: str) -> Iterator[str]:
    with contextlib.suppress(OSError), os.scandir(maildir) as entries:
        for entry in entries:
            if entry.name.startswith(".") and entry.is_dir(follow_symlinks=False):
                yield entry.path


def _holds(path: str, content: bytes) -> bool:
    try:
        if os.lstat(path).st_size != len(content):
            return False
        return Path(path).read_bytes() == content
    except OSError:
        return False


def _young(root: str, since: float) -> Iterator[str]:
    """Messages in the directories new/ and cur/ that were changed since then, by the time in their names."""
    for domain in _directories(root):
        for mailbox in _directories(domain):
            for kind in KINDS:
                directory = f"{mailbox}/{kind}"
                with contextlib.suppress(OSError):
                    if os.stat(directory).st_mtime >= since:
                        yield from _named_since(directory, since)


def _directories(path: str) -> list[str]:
    """Those in a directory, and other things that may be there: they have nothing in them."""
    try:
        with os.scandir(path) as entries:
            return [entry.path for entry in entries]
    except OSError:
        return []


def _named_since(directory: str, since: float) -> Iterator[str]:
    with os.scandir(directory) as entries:
        for entry in entries:
            digits = entry.name.partition(".")[0]
            if digits.isascii() and digits.isdigit() and int(digits) >= since:
                yield entry.path
