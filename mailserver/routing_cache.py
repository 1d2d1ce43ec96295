"""
What the router said before: a recipient whom it knows costs no question to the directory.

In: what an `IRouter` takes.  Out: the same answer as the router itself would give now.
An answer is kept with the directory's version (`IVersionedDirectory`) at which it was asked for, and is used only
while that is the version; so a change needs no sweep over what is kept.  The version is read before the router is
asked: a change in between makes the answer look too old, never too new.
Refusals have a place of their own, so that those who try out names push out no account.

Most are kept as texts and numbers: 100,000 `Path` and `Address` objects cost Python's garbage collector some 100 ms
each time it looks at all, and their texts some 10 ms.  Making targets of texts takes 3 us, half of it for the `Path`;
so those that are asked for most are kept as targets too.
"""

from __future__ import annotations

import sys
from collections import deque
from functools import lru_cache
from pathlib import Path
from typing import Any, Generic, TypeVar

from zope.interface import implementer

from mailserver.address import Address
from mailserver.interfaces import IRouter, IVersionedDirectory
from mailserver.reply import Refusal, Reply
from mailserver.routing import Local, Target

#: Recipients that have a mailbox here; some 400 octets each.
MAX_KNOWN = 100_000
#: Of these, how many are kept as targets too; some 800 octets each.
MAX_BUSY = 1_000
#: One of so many answers made of texts is kept as targets: those often asked for are soon among them, and where all
#: are asked for alike, little is spent on keeping what is not asked for again.
BUSY_EACH = 32
#: Recipients that were refused; some 160 octets each (500 for the longest names).
MAX_REFUSED = 20_000
#: An answer of more targets is not kept: finding them is what takes the time of such a message, and they take room.
MAX_KEPT_TARGETS = 10

T = TypeVar("T")
#: Folder and name of the Maildir, quota, the target's address (local part, domain) or None when it is the recipient.
_Mailbox = tuple[str, str, int, tuple[str, str] | None]


class _Kept(Generic[T]):
    """Answers by recipient; when there are more than `most`, the oldest goes.  Reading costs one look into a dict."""

    def __init__(self, most: int) -> None:
        self.answers: dict[str, tuple[object, T]] = {}
        self._most = most
        self._order: deque[str] = deque()

    def keep(self, key: str, version: object, answer: T) -> None:
        if key not in self.answers:
            self._order.append(key)
        self.answers[key] = (version, answer)
        if len(self._order) > self._most:
            del self.answers[self._order.popleft()]


@implementer(IRouter)
class CachedRouter:
    """
    Asks `router` once for each recipient and version of `directory`.

    router: an `IRouter`, whose answers depend on the directory and its arguments alone.  directory: an
    `IVersionedDirectory`.  known, refused: how many answers of either kind are kept.
    """

    def __init__(self, router: Any, directory: Any, *, known: int = MAX_KNOWN, refused: int = MAX_REFUSED) -> None:
        self._router = IRouter(router)
        self._version = IVersionedDirectory(directory).version
        self._known: _Kept[tuple[_Mailbox, ...]] = _Kept(known)
        self._busy: _Kept[tuple[Target, ...]] = _Kept(min(known, MAX_BUSY))
        self._refused: _Kept[Reply] = _Kept(refused)
        self._made = 0

    def route(self, recipient: Address, *, may_relay: bool) -> Any:
        """See `IRouter`."""
        version = self._version()
        # As it was written, for so it is told in Delivered-To.  No domain has an "@" or a ">".
        key = f"{recipient.local}@{recipient.domain}>" if may_relay else f"{recipient.local}@{recipient.domain}"
        busy = self._busy.answers.get(key)
        if busy is not None and busy[0] == version:
            return busy[1]
        known = self._known.answers.get(key)
        if known is not None and known[0] == version:
            return self._make(recipient, key, *known)
        refused = self._refused.answers.get(key)
        if refused is not None and refused[0] == version:
            raise Refusal(refused[1])
        return self._ask(recipient, key, version, may_relay=may_relay)

    def _make(
        self, recipient: Address, key: str, version: object, mailboxes: tuple[_Mailbox, ...]
    ) -> tuple[Target, ...]:
        targets: tuple[Target, ...] = tuple(
            [
                Local(_folder(folder) / name, recipient if address is None else Address(*address), quota)
                for folder, name, quota, address in mailboxes
            ]
        )
        self._made += 1
        if self._made % BUSY_EACH == 0:
            self._busy.keep(key, version, targets)
        return targets

    def _ask(self, recipient: Address, key: str, version: object, *, may_relay: bool) -> Any:
        try:
            targets = self._router.route(recipient, may_relay=may_relay)
        except Refusal as refusal:
            # What is told with a cause is trouble of ours: each case of it belongs into the log.
            if version is not None and not refusal.detail:
                self._refused.keep(key, version, refusal.reply)
            raise
        if version is not None and (mailboxes := _mailboxes(targets, recipient)):
            self._known.keep(key, version, mailboxes)
        return targets


def cached(router: Any, directory: Any) -> Any:
    """The router with a cache, when the directory can tell whether anything has changed; else the router."""
    return CachedRouter(router, directory) if IVersionedDirectory.providedBy(directory) else router


def _mailboxes(targets: Any, recipient: Address) -> tuple[_Mailbox, ...]:
    """What is kept of an answer; () for one that is not kept: many, elsewhere, later, or of a foreign kind."""
    if not isinstance(targets, tuple) or len(targets) > MAX_KEPT_TARGETS:
        return ()
    if not all(type(target) is Local for target in targets):
        return ()
    return tuple(_mailbox(target, recipient) for target in targets)


def _mailbox(target: Target, recipient: Address) -> _Mailbox:
    assert isinstance(target, Local)
    address = target.address
    named = None if address is recipient else (address.local, address.domain)
    # One text for all of a domain.
    return sys.intern(str(target.path.parent)), target.path.name, target.quota, named


@lru_cache(maxsize=1024)
def _folder(text: str) -> Path:
    """That of a domain: to read a whole path again costs twice what a name behind it does."""
    return Path(text)
