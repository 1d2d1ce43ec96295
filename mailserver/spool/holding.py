"""
The way into the spool: a message of one of our users that shall be delivered later.

In: `Held`, and the message in blocks.  Out: a file in `spool/held/`, durable when `commit` has ended.
It goes through a door of its own, without the journal: what a journal writes again after a crash could have been
delivered, and taken away, in the meantime.
Failures: Refusal(TOO_MANY_HELD) from `prepare`; OSError from the disk.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.defer import Deferred
from zope.interface import implementer

from mailserver.durable import Durable, NewFile, RunInThread
from mailserver.interfaces import IDelivery
from mailserver.reply import TOO_MANY_HELD, Refusal
from mailserver.spool.folder import HELD, TMP, Folder
from mailserver.spool.held import Held, mark


class Spool:
    """
    folder: where it is.  durable: a door without a committer, see the module.  run: runs what blocks in a thread.
    unique: names for Maildirs, never given twice.  told: called with the second of a release, when one was added.
    """

    def __init__(
        self, folder: Folder, durable: Durable, run: RunInThread, unique: Callable[[], str], told: Any = None
    ) -> None:
        self.folder = folder
        self.durable = durable
        self.run = run
        self.unique = unique
        self.told: Callable[[float], None] = told or (lambda _: None)

    def hold(self, held: Held, header: bytes, most: int) -> Holding:
        """
        A delivery into the spool.  header: our own fields for the top of the message, with CRLF.
        most: messages that the account may have here.
        """
        return Holding(self, held, header, most)


@implementer(IDelivery)
class Holding:
    """See `Spool.hold` and `IDelivery`."""

    def __init__(self, spool: Spool, held: Held, header: bytes, most: int) -> None:
        self._spool = spool
        self._held = held
        self._most = most
        self._line = held.line()
        self._unwritten = self._line + header
        self._draft = spool.durable.draft(spool.folder.path(TMP, "").rstrip("/"))

    def write(self, block: bytes) -> Deferred[None] | None:
        """See `IDelivery.write`."""
        first, self._unwritten = self._unwritten, b""
        return self._draft.write(first + block)

    async def prepare(self) -> None:
        """See `IDelivery.prepare`.  Refusal when the account has too many messages here."""
        if self._unwritten and (taken := self.write(b"")) is not None:
            await taken
        spool = self._spool
        there = await spool.run(spool.folder.count, mark(self._held.envelope.peer.user))
        if there >= self._most:
            raise Refusal(TOO_MANY_HELD, f"{there} of {self._held.envelope.peer.user}")

    def commit(self) -> Deferred[None]:
        """See `IDelivery.commit`."""
        spool, held = self._spool, self._held
        place = spool.folder.path(HELD, held.name(self._draft.size - len(self._line)))

        def created(_failed: Mapping[str, OSError]) -> None:
            spool.told(held.release)

        return spool.durable.create([NewFile(self._draft, (place,))]).addCallback(created)

    def abort(self) -> None:
        """See `IDelivery.abort`."""
        self._draft.abort()
