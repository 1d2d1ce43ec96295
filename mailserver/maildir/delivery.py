"""
One message on its way to the Maildirs of all its local recipients: all of them get it, or none does.

In: blocks with CRLF line ends, and for each recipient the Maildir, its quota and the trace fields to put in front.
Out: one file in each `new/`, named `time.MusecPpidQn.host,S=size,W=vsize`, durable when `commit` has ended.
The text is held once: recipients with the same trace fields get links to one file, others a copy made at the commit.

Failures: Refusal(MAILBOX_FULL) from `prepare`; OSError from the disk.
Maildir: https://cr.yp.to/proto/maildir.html; directories 0700 and files 0600, made when they are missing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from mailserver.durable import Draft, Durable, NewFile
from mailserver.interfaces import IDelivery
from mailserver.maildir.lines import LineEndings, to_crlf, to_lf
from mailserver.maildir.names import Names, with_sizes
from mailserver.maildir.quota import Quotas, Reservation
from mailserver.reply import LOCAL_TROUBLE, Refusal

_log = Logger(namespace="mailserver.maildir")
_TMP = "tmp"


@dataclass(frozen=True, slots=True)
class Target:
    """
    One mailbox to deliver to.

    path: the Maildir.  quota: octets it may hold, 0: no limit.
    header: trace fields for the top of its file (Return-Path, Delivered-To, Received), whole lines with CRLF, at
    least one, as its line end tells a reader about those of the file.
    Raises ValueError when the header is no such thing, or the quota negative.
    """

    path: Path
    quota: int
    header: bytes

    def __post_init__(self) -> None:
        if self.quota < 0:
            raise ValueError(f"quota {self.quota} is negative")
        ends = self.header.count(b"\r\n")
        if not self.header.endswith(b"\r\n") or ends != self.header.count(b"\n") or ends != self.header.count(b"\r"):
            raise ValueError("the header is not made of whole lines that end in CRLF")


@dataclass(frozen=True, slots=True)
class MaildirStore:
    """
    Starts deliveries.

    line_endings: on the disk; "lf" as Maildir readers expect, "crlf" as the message came.
    """

    durable: Durable
    names: Names
    quotas: Quotas
    line_endings: Literal["lf", "crlf"] = "lf"

    def deliver(self, targets: Sequence[Target], *, partial: bool = False) -> MaildirDelivery:
        """
        A delivery to these mailboxes; of several targets with the same path the first counts.  Nothing is on the disk
        yet.  partial: a full or damaged mailbox refuses for itself only (LMTP), and `refused` tells which.
        Raises ValueError when there are no targets.
        """
        return MaildirDelivery(self, targets, partial=partial)

    async def check_room(self, path: Path, size: int, quota: int) -> None:
        """
        Is there room for `size` octets in the Maildir, of which `quota` may be used?  Nothing is promised.

        Raises Refusal(MAILBOX_FULL); OSError when it cannot be counted.
        """
        reservation = await self.quotas.reserve(path, size, quota)
        if reservation is not None:
            reservation.release()


def maildir_layout(directory: Path) -> tuple[Path, Path, Path]:
    """The three directories of a Maildir, given one of them: none may be without the others."""
    return directory.parent / "tmp", directory.parent / "new", directory.parent / "cur"


@implementer(IDelivery)
class MaildirDelivery:
    """
    See `MaildirStore.deliver` and `IDelivery`.

    refused: of a partial delivery, after `prepare`: the Maildirs that get nothing, each with its refusal; after
    `commit` those whose directories are damaged too.
    """

    def __init__(self, store: MaildirStore, targets: Sequence[Target], *, partial: bool = False) -> None:
        if not targets:
            raise ValueError("a delivery needs a target")
        by_path: dict[Path, Target] = {}
        groups: dict[bytes, list[Target]] = {}  # header -> those who share a file
        for target in targets:
            if by_path.setdefault(target.path, target) is target:
                groups.setdefault(target.header, []).append(target)
        self.refused: dict[Path, Refusal] = {}
        self._partial = partial
        self._groups = groups
        self._store = store
        self._first_header = next(iter(groups))
        self._unwritten = self._first_header
        self._lines = LineEndings(crlf=store.line_endings == "crlf")
        others = [f"{target.path}/{_TMP}" for target in targets[1:]] if partial else ()
        self._draft: Draft = store.durable.draft(f"{targets[0].path}/{_TMP}", maildir_layout, others=others)
        self._reservations: dict[Path, Reservation] = {}
        self._places: dict[Path, str] = {}
        self._prepared = False
        self._ended = False  # aborted, or handed over to the disk

    def write(self, block: bytes) -> Deferred[None] | None:
        """See `IDelivery.write`.  RuntimeError after `prepare`; after `abort` nothing happens."""
        if self._prepared:
            raise RuntimeError("the delivery is prepared: no more text can come")
        if self._unwritten:
            block, self._unwritten = self._unwritten + block, b""
        was_crlf = self._lines.crlf
        return self._store_block(self._lines.feed(block), was_crlf=was_crlf)

    def prepare(self) -> Any:
        """See `IDelivery.prepare`.  Refusal(MAILBOX_FULL) when it does not fit into one of the mailboxes."""
        if self._prepared or self._ended:
            raise RuntimeError("the delivery is prepared already, or over")
        if self._unwritten and (taken := self.write(b"")) is not None:
            return self._prepare_later(taken)
        was_crlf = self._lines.crlf
        taken = self._store_block(self._lines.finish(), was_crlf=was_crlf)
        if taken is not None or self._counted():
            return self._prepare_later(taken, ended=True)
        self._prepared = True
        return None

    def _counted(self) -> bool:
        """Is there a mailbox with a limit, or one of which something is known that this message would change?"""
        return self._store.quotas.known or any(each.quota for targets in self._groups.values() for each in targets)

    async def _prepare_later(self, taken: Deferred[None] | None, *, ended: bool = False) -> None:
        """ended: the end of the text is stored, or being stored."""
        if taken is not None:
            await taken
        if not ended:
            was_crlf = self._lines.crlf
            if (taken := self._store_block(self._lines.finish(), was_crlf=was_crlf)) is not None:
                await taken
        try:
            await self._reserve()
        except BaseException:
            self._release()
            raise
        if self._aborted_meanwhile():
            self._release()
        self._prepared = True

    def commit(self) -> Deferred[None]:
        """See `IDelivery.commit`."""
        if self._ended or not self._prepared:
            raise RuntimeError("the delivery is not prepared, or over")
        self._ended = True
        created = self._store.durable.create(self._new_files(), partial=self._partial)
        return created.addCallbacks(self._created, self._not_created)

    def _not_created(self, failure: Failure) -> Failure:
        self._release()
        return failure

    def _created(self, failed: Mapping[str, OSError]) -> None:
        for place, error in failed.items():
            _log.error("{path}: {error}", event="damaged", path=place, error=str(error))
            self.leave_out(Path(place).parent.parent, Refusal(LOCAL_TROUBLE, str(error)))
        for reservation in self._reservations.values():
            reservation.keep()

    def abort(self) -> None:
        """See `IDelivery.abort`.  A commit under way is not stopped; it ends by itself, well or with nothing left."""
        if self._ended:
            return
        self._ended = True
        self._draft.abort()
        self._release()

    def leave_out(self, path: Path, refusal: Refusal) -> None:
        """Of a partial delivery: this Maildir gets nothing either.  Before `commit` at least one must be left."""
        self.refused[path] = refusal
        if (reservation := self._reservations.pop(path, None)) is not None:
            reservation.release()

    def take_back(self, path: Path, refusal: Refusal) -> None:
        """Of a partial delivery, after `commit`: this Maildir shall not have it either."""
        self.refused[path] = refusal
        self._store.durable.take_away([self._places[path]])

    def _aborted_meanwhile(self) -> bool:
        return self._ended

    def _store_block(self, block: bytes, *, was_crlf: bool) -> Deferred[None] | None:
        draft = self._draft
        if self._lines.crlf and not was_crlf and (rewritten := draft.rewrite(to_crlf)) is not None:
            return rewritten.addCallback(lambda _: draft.write(block))
        return draft.write(block) if block else None

    async def _reserve(self) -> None:
        for header, targets in self._groups.items():
            stored, _ = self._sizes(header)
            for target in targets:
                try:
                    reservation = await self._store.quotas.reserve(target.path, stored, target.quota)
                except (Refusal, NotADirectoryError, PermissionError) as error:
                    if not self._partial:
                        raise
                    refusal = error if isinstance(error, Refusal) else Refusal(LOCAL_TROUBLE, str(error))
                    self.refused[target.path] = refusal
                    continue
                if reservation is not None:
                    self._reservations[target.path] = reservation
        if self.refused and len(self.refused) == sum(map(len, self._groups.values())):
            raise next(iter(self.refused.values()))

    def _release(self) -> None:
        for reservation in self._reservations.values():
            reservation.release()

    def _on_disk(self, header: bytes) -> bytes:
        return header if self._lines.crlf else to_lf(header)

    def _sizes(self, header: bytes) -> tuple[int, int]:
        """Octets of the file with this header in front, on the disk and with CRLF."""
        stored = self._lines.stored - len(self._on_disk(self._first_header)) + len(self._on_disk(header))
        return stored, self._lines.virtual - len(self._first_header) + len(header)

    def _new_files(self) -> list[NewFile]:
        files = []
        unique = self._store.names.next()
        for header, targets in self._groups.items():
            name = with_sizes(unique, *self._sizes(header))
            paths = [target.path for target in targets if target.path not in self.refused]
            if not paths:
                continue
            places = tuple(f"{path}/new/{name}" for path in paths)
            if self._partial:
                self._places.update(zip(paths, places, strict=True))
            if header == self._first_header:
                files.append(NewFile(self._draft, places))
            else:
                skip = len(self._on_disk(self._first_header))
                files.append(NewFile(self._draft, places, self._on_disk(header), skip))
        return files
