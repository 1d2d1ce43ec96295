"""
How full is a mailbox, and does this message still fit?

In: the Maildir's path, the size of a message, the limit.  Out: a `Reservation`, or Refusal(MAILBOX_FULL).
The usage is counted in a thread, from the names alone where they tell the size, and then kept in memory with our own
deliveries added.  Nobody is refused on what is only kept: before a no it is counted again, so that what other tools
have deleted is honoured.  Octets that are promised to deliveries under way count as used.

Maildir++ (https://www.courier-mta.org/maildirplusplus.html): usage is the sum over new/, cur/ and all .Folders.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from mailserver.durable import RunInThread
from mailserver.maildir.names import sizes
from mailserver.reply import MAILBOX_FULL, Refusal

#: Seconds for which a count holds: for so long what other tools add may go unseen.
COUNT_AGE = 300.0
#: Mailboxes whose count is kept; some 300 octets each.
MAILBOXES = 10_000


def count_usage(path: Path) -> int:
    """
    Octets of all messages of a Maildir++, its folders included.  Blocks: a second for a million messages.

    Symbolic links are not followed, and directories that are missing hold nothing.  Raises OSError.
    """
    return sum(_octets(os.path.join(folder, kind)) for folder in _folders(str(path)) for kind in ("new", "cur"))


def _folders(path: str) -> Iterator[str]:
    yield path
    for entry in _entries(path):
        if entry.name.startswith(".") and entry.is_dir(follow_symlinks=False):
            yield entry.path


def _octets(directory: str) -> int:
    octets = 0
    for entry in _entries(directory):
        stored = sizes(entry.name)[0]
        if stored is None:
            stored = _size_of(entry)
        octets += stored
    return octets


def _size_of(entry: os.DirEntry[str]) -> int:
    if entry.name.startswith("."):
        return 0  # no message, by the Maildir specification
    try:
        return entry.stat(follow_symlinks=False).st_size if entry.is_file(follow_symlinks=False) else 0
    except FileNotFoundError:
        return 0  # read or removed meanwhile


def _entries(directory: str) -> Iterator[os.DirEntry[str]]:
    try:
        entries = os.scandir(directory)
    except FileNotFoundError:
        return
    with entries:
        yield from entries


class _Mailbox:
    """What is known of one mailbox.  octets: of the last count and of our deliveries since, None before any count."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.octets: int | None = None
        self.counted = 0.0
        self.reserved = 0
        self.late = 0  # delivered while it is being counted: the count may have missed it
        self.waiting: list[Deferred[None]] | None = None  # not None: it is being counted

    @property
    def idle(self) -> bool:
        return not self.reserved and self.waiting is None


class Reservation:
    """Octets promised to one delivery.  Call one of `keep` and `release`; what comes after the first does nothing."""

    def __init__(self, mailbox: _Mailbox, size: int) -> None:
        self._mailbox: _Mailbox | None = mailbox
        self._size = size
        mailbox.reserved += size

    def keep(self) -> None:
        """The message is in the mailbox."""
        if (mailbox := self._end()) is not None:
            mailbox.late += self._size
            if mailbox.octets is not None:
                mailbox.octets += self._size

    def release(self) -> None:
        """The message will not come."""
        self._end()

    def _end(self) -> _Mailbox | None:
        mailbox, self._mailbox = self._mailbox, None
        if mailbox is not None:
            mailbox.reserved -= self._size
        return mailbox


class Quotas:
    """
    Promises room in mailboxes; on the reactor's side.

    run_in_thread: see `mailserver.durable.RunInThread`.  seconds: a clock, for the age of counts only.
    """

    def __init__(self, *, run_in_thread: RunInThread, seconds: Callable[[], float]) -> None:
        self._run_in_thread = run_in_thread
        self._seconds = seconds
        self._mailboxes: dict[Path, _Mailbox] = {}

    @property
    def known(self) -> bool:
        """Is anything kept of any mailbox?"""
        return bool(self._mailboxes)

    async def reserve(self, path: Path, size: int, limit: int) -> Reservation | None:
        """
        Room for `size` octets in the Maildir `path` that may hold `limit`; 0: no limit, and None is returned.

        Raises Refusal(MAILBOX_FULL), on a count that began after this call; OSError when it cannot be counted.
        """
        if not limit:
            # Nothing is kept of it, also not what was: it would miss this message.
            self._forget(path)
            return None
        mailbox = self._mailbox(path)
        if not self._is_current(mailbox) or not self._fits(mailbox, size, limit):
            joined = mailbox.waiting is not None
            await self._count(mailbox)
            if joined and not self._fits(mailbox, size, limit):
                await self._count(mailbox)
            if not self._fits(mailbox, size, limit):
                used = f"{mailbox.octets} octets and {mailbox.reserved} on their way of {limit}; {size} more"
                raise Refusal(MAILBOX_FULL, f"{path}: {used}")
        return Reservation(mailbox, size)

    def _mailbox(self, path: Path) -> _Mailbox:
        mailbox = self._mailboxes.pop(path, None) or _Mailbox(path)
        self._mailboxes[path] = mailbox  # now the youngest
        if len(self._mailboxes) > MAILBOXES:
            # Those in use are few (one per delivery under way), and they are young: the search is short.
            oldest = next((known for known in self._mailboxes.values() if known.idle and known is not mailbox), None)
            if oldest is not None:
                del self._mailboxes[oldest.path]
        return mailbox

    def _forget(self, path: Path) -> None:
        if self._mailboxes and (mailbox := self._mailboxes.get(path)) is not None:
            mailbox.octets = None

    def _is_current(self, mailbox: _Mailbox) -> bool:
        return mailbox.octets is not None and 0 <= self._seconds() - mailbox.counted < COUNT_AGE

    def _fits(self, mailbox: _Mailbox, size: int, limit: int) -> bool:
        return mailbox.octets is not None and mailbox.octets + mailbox.reserved + size <= limit

    def _count(self, mailbox: _Mailbox) -> Deferred[None]:
        """Count it; who comes while that goes on waits for the same count."""
        waiter: Deferred[None] = Deferred()
        if mailbox.waiting is not None:
            mailbox.waiting.append(waiter)
            return waiter
        mailbox.waiting = [waiter]
        mailbox.late = 0
        mailbox.counted = self._seconds()

        def counted(octets: int) -> None:
            mailbox.octets = octets + mailbox.late
            for waiting in ended():
                waiting.callback(None)

        def failed(failure: Failure) -> None:
            mailbox.octets = None
            for waiting in ended():
                waiting.errback(failure)

        def ended() -> list[Deferred[None]]:
            waiting, mailbox.waiting = mailbox.waiting or [], None
            return waiting

        self._run_in_thread(count_usage, mailbox.path).addCallbacks(counted, failed)
        return waiter
