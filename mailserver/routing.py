"""
Where the mail for a recipient goes: into mailboxes of ours, to another server, or nowhere.

In: an address, and whether its sender may relay.  Out: `Local` and `Remote` targets, or `Refusal`: 550 5.1.1 for an
unknown user, 550 5.2.1 for a disabled one, 550 5.7.1 where we would be an open relay.
The order: account, alias, the same without `+detail`, catch-all.  So a catch-all never takes an account's mail.
An alias of several targets works as long as one of them does; only when none does is its mail refused.
RFC 5321 3.6 (relaying), 3.9 (aliases), 4.5.1 (postmaster); RFC 5233 (detail).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zope.interface import implementer

from mailserver import reply as replies
from mailserver.address import Address
from mailserver.interfaces import IDirectory, IRouter
from mailserver.reply import Refusal, Reply

#: How far aliases of aliases are followed; the command line refuses loops, a database edited by hand may hold one.
MAX_DEPTH = 10
#: How many targets one recipient may come to.
MAX_TARGETS = 1_000

#: Development mode: whose mailbox takes all mail that is for no account.
DEVELOPMENT_INBOX = Address("inbox", "localhost")

DISABLED = Reply(550, "5.2.1", "Mailbox disabled")


@dataclass(frozen=True, slots=True)
class Local:
    """A mailbox of ours.  path: its Maildir.  address: what the message was for.  quota: octets, 0 for none."""

    path: Path
    address: Address
    quota: int = 0


@dataclass(frozen=True, slots=True)
class Remote:
    """An address on another server."""

    address: Address


Target = Local | Remote


@dataclass(frozen=True, slots=True)
class LocalDomain:
    """A domain that is ours.  catch_all: takes what nobody else takes.  separator: of `user+detail`, "" for none."""

    name: str
    catch_all: Address | None = None
    separator: str = "+"


@dataclass(slots=True)
class _Search:
    """
    What has been found for one recipient.

    targets: Maildir or remote address -> the target.  way: keys of the addresses that led to the present one; met
    again, they are a circle.  done: keys that need not be looked at again.  refusal: the first permanent one.
    """

    targets: dict[Path | Address, Target] = field(default_factory=dict)
    way: list[str] = field(default_factory=list)
    done: set[str] = field(default_factory=set)
    refusal: Refusal | None = None

    def add(self, key: Path | Address, target: Target) -> None:
        if len(self.targets) >= MAX_TARGETS and key not in self.targets:
            raise Refusal(replies.LOCAL_TROUBLE, f"more than {MAX_TARGETS} targets")
        self.targets.setdefault(key, target)

    def refuse(self, reply: Reply) -> None:
        self.refusal = self.refusal or Refusal(reply)


@implementer(IRouter)
class Router:
    """
    Routes by the configured domains and a directory.

    mailbox_path: account -> its Maildir.  postmaster: who gets mail for `<postmaster>` and for a `postmaster@` that
    is neither account nor alias (RFC 5321 4.5.1: it must be accepted), or None.
    """

    def __init__(
        self,
        domains: Mapping[str, LocalDomain],
        directory: Any,
        mailbox_path: Callable[[Address], Path],
        postmaster: Address | None = None,
    ) -> None:
        self._domains = dict(domains)
        self._directory = IDirectory(directory)
        self._mailbox_path = mailbox_path
        self._postmaster = postmaster

    def route(self, recipient: Address, *, may_relay: bool) -> tuple[Target, ...]:
        """See `IRouter`."""
        if not recipient.domain:
            return self._route_postmaster(recipient)
        if not self._is_ours(recipient.ascii_domain):
            if not may_relay:
                raise Refusal(replies.RELAYING_DENIED)
            return (Remote(recipient),)
        search = _Search()
        self._resolve(recipient, search)
        if not search.targets:
            raise search.refusal or Refusal(replies.UNKNOWN_USER)
        return tuple(search.targets.values())

    def _is_ours(self, domain: str) -> bool:
        return domain in self._domains or self._directory.has_domain(domain)

    def _route_postmaster(self, recipient: Address) -> tuple[Target, ...]:
        # RFC 5321 4.1.1.3: <postmaster> without a domain is this server's own.
        own = [Address(recipient.local, domain) for domain in self._domains]
        for address in own:
            if self._directory.account(address) is not None or self._directory.alias(address):
                return self.route(address, may_relay=False)
        if self._postmaster is not None:
            return self.route(self._postmaster, may_relay=True)
        for address in own:
            if self._catch_all(self._domain(address)):
                return self.route(address, may_relay=False)
        raise Refusal(replies.UNKNOWN_USER)

    def _domain(self, address: Address) -> LocalDomain:
        return self._domains.get(address.ascii_domain) or LocalDomain(address.ascii_domain)

    def _resolve(self, address: Address, search: _Search) -> None:
        """Add the targets of `address`, or note why it has none.  Trouble is raised: no list is cut short."""
        if not self._is_ours(address.ascii_domain):
            search.add(address, Remote(address))
            return
        key = address.key
        if key in search.way or len(search.way) > MAX_DEPTH:
            raise Refusal(replies.LOCAL_TROUBLE, f"aliases of {address} lead too far, or in a circle")
        if key in search.done:
            return
        search.done.add(key)
        search.way.append(key)
        domain = self._domain(address)
        plain, _ = address.split_detail(domain.separator)
        names = (address,) if plain == address else (address, plain)
        if not any(self._take(name, address, search) for name in names):
            self._last_resort(address, domain, search)
        search.way.pop()

    def _take(self, name: Address, delivered_to: Address, search: _Search) -> bool:
        """Is `name` an account or an alias?  Then its targets are added."""
        account = self._directory.account(name)
        if account is not None:
            if account.enabled:
                path = self._mailbox_path(account.address)
                search.add(path, Local(path, delivered_to, account.quota))
            else:
                search.refuse(DISABLED)
            return True
        aliases = self._directory.alias(name)
        for alias in aliases:
            self._resolve(alias, search)
        return bool(aliases)

    def _catch_all(self, domain: LocalDomain) -> tuple[Address, ...]:
        return self._directory.catch_all(domain.name) or ((domain.catch_all,) if domain.catch_all else ())

    def _last_resort(self, address: Address, domain: LocalDomain, search: _Search) -> None:
        others = self._catch_all(domain)
        if not others and address.local.lower() == "postmaster" and self._postmaster is not None:
            others = (self._postmaster,)
        # A catch-all that leads to where nobody is catches itself: that is no circle, but an unknown user.
        others = tuple(other for other in others if other.key not in search.way)
        if not others:
            search.refuse(replies.UNKNOWN_USER)
        for other in others:
            self._resolve(other, search)


@implementer(IRouter)
class DevelopmentRouter:
    """Takes everything: mail for an account goes to the account, all other mail to one inbox.  Nothing is relayed."""

    def __init__(self, directory: Any, mailbox_path: Callable[[Address], Path], inbox: Path) -> None:
        self._directory = IDirectory(directory)
        self._mailbox_path = mailbox_path
        self._inbox = inbox

    def route(self, recipient: Address, *, may_relay: bool) -> tuple[Target, ...]:  # noqa: ARG002 - see IRouter
        """See `IRouter`."""
        for name in (recipient, recipient.split_detail("+")[0]):
            account = self._directory.account(name)
            if account is not None and account.enabled:
                return (Local(self._mailbox_path(account.address), recipient, account.quota),)
        return (Local(self._inbox, recipient),)
