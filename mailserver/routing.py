"""
Where the mail for a recipient goes: into mailboxes of ours, to another server, or nowhere.

In: an address, and whether its sender may relay.  Out: `Local` and `Remote` targets, or `Refusal`: 550 5.1.1 for an
unknown user, 550 5.2.1 for a disabled one, 550 5.7.1 where we would be an open relay.
The order: account, alias, the same without `+detail`, catch-all.  So a catch-all never takes an account's mail.
RFC 5321 3.6 (relaying), 3.9 (aliases), 4.5.1 (postmaster); RFC 5233 (detail).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
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
        targets: dict[Target, None] = {}
        self._resolve(recipient, targets, 0)
        return tuple(targets)

    def _is_ours(self, domain: str) -> bool:
        return domain in self._domains or self._directory.has_domain(domain)

    def _route_postmaster(self, recipient: Address) -> tuple[Target, ...]:
        # RFC 5321 4.1.1.3: <postmaster> without a domain is this server's own.
        for domain in self._domains:
            own = Address(recipient.local, domain)
            if self._directory.account(own) is not None or self._directory.alias(own):
                return self.route(own, may_relay=False)
        if self._postmaster is None:
            raise Refusal(replies.UNKNOWN_USER)
        return self.route(self._postmaster, may_relay=True)

    def _resolve(self, address: Address, targets: dict[Target, None], depth: int) -> None:
        if depth > MAX_DEPTH or len(targets) >= MAX_TARGETS:
            raise Refusal(replies.LOCAL_TROUBLE, f"aliases of {address} lead too far, or in a circle")
        if not self._is_ours(address.ascii_domain):
            targets[Remote(address)] = None
            return
        domain = self._domains.get(address.ascii_domain) or LocalDomain(address.ascii_domain)
        plain, detail = address.split_detail(domain.separator)
        for name in (address, plain) if detail or plain != address else (address,):
            if self._take(name, address, targets, depth):
                return
        self._last_resort(address, domain, targets, depth)

    def _take(self, name: Address, delivered_to: Address, targets: dict[Target, None], depth: int) -> bool:
        """Is `name` an account or an alias?  Then its targets are added."""
        account = self._directory.account(name)
        if account is not None:
            if not account.enabled:
                raise Refusal(DISABLED)
            path = self._mailbox_path(account.address)
            if not any(isinstance(target, Local) and target.path == path for target in targets):
                targets[Local(path, delivered_to, account.quota)] = None
            return True
        aliases = self._directory.alias(name)
        for alias in aliases:
            self._resolve(alias, targets, depth + 1)
        return bool(aliases)

    def _last_resort(self, address: Address, domain: LocalDomain, targets: dict[Target, None], depth: int) -> None:
        others = self._directory.catch_all(domain.name) or ((domain.catch_all,) if domain.catch_all else ())
        if not others and address.local.lower() == "postmaster" and self._postmaster is not None:
            others = (self._postmaster,)
        if not others or address in others:
            raise Refusal(replies.UNKNOWN_USER)
        for other in others:
            self._resolve(other, targets, depth + 1)


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
