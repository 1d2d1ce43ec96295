"""
Whose turn is it?  Patterns for addresses and networks, by which an app says what it is for.

In: patterns of the configuration ("tickets+*@example.org", "192.0.2.0/24"; see `address_patterns`).  Out: yes or no
for a listener, a client, a sender, a recipient.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from mailserver.address import Address
from mailserver.address_patterns import NULL_SENDER, compile_pattern
from mailserver.sockets import Network, within


@dataclass(frozen=True, slots=True)
class Match:
    """
    What an app is for; an empty tuple means everything.

    listeners: names.  recipients, senders: patterns of addresses; of senders also "<>" for the null sender.
    networks: of clients.  Raises ValueError for a bad pattern.
    """

    listeners: tuple[str, ...] = ()
    recipients: tuple[str, ...] = ()
    senders: tuple[str, ...] = ()
    networks: tuple[Network, ...] = ()
    _recipients: tuple[re.Pattern[str], ...] = field(init=False, repr=False, compare=False)
    _senders: tuple[re.Pattern[str], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_recipients", tuple(map(compile_pattern, self.recipients)))
        senders = tuple(compile_pattern(each) for each in self.senders if each != NULL_SENDER)
        object.__setattr__(self, "_senders", senders)

    def listener(self, name: str) -> bool:
        """Is it for connections to this listener?"""
        return not self.listeners or name in self.listeners

    def client(self, host: str) -> bool:
        """Is it for this client?  host: its IP address; a client on a Unix socket ("") is in no network."""
        return not self.networks or within(host, self.networks)

    def sender(self, sender: Address | None) -> bool:
        """Is it for mail of this sender?"""
        if not self.senders:
            return True
        if sender is None:
            return NULL_SENDER in self.senders
        return _fits(self._senders, sender)

    def recipient(self, recipient: Address) -> bool:
        """Is it for mail to this recipient?"""
        return not self.recipients or _fits(self._recipients, recipient)


def _fits(patterns: Sequence[re.Pattern[str]], address: Address) -> bool:
    key = address.key
    return any(pattern.fullmatch(key) for pattern in patterns)
