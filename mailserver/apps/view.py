"""
What an app sees of a connection and its addresses: `Session`, `AppAddress`.

In: the SMTP session and what the server knows beside it.  Out: plain values, always those of now.
RFC 5233 (detail).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from mailserver.address import Address
from mailserver.envelope import Envelope, Peer, TLSInfo


@dataclass(frozen=True, slots=True, eq=False)
class AppAddress(Address):
    """
    An address with its parts: of tickets+42@example.org `local` is "tickets+42", `user` "tickets", `detail` "42".

    separator: what stands between user and detail, "" for nothing.  It equals the same `Address`.
    """

    separator: str = "+"

    @property
    def user(self) -> str:
        """The local part without its detail."""
        return self.split_detail(self.separator)[0].local

    @property
    def detail(self) -> str:
        """What stands behind the separator; "" when there is none."""
        return self.split_detail(self.separator)[1]


class Conversation(Protocol):
    """What of the SMTP session is looked at."""

    peer: Peer
    messages: int
    error_count: int
    settings: Any

    @property
    def envelope(self) -> Envelope | None:
        """The transaction."""


class Session:
    """
    A connection, as it is now.

    id: as in the log.  listener: its name.  peer_host, peer_port: of the client; "" and 0 on a Unix socket.
    local_host, local_port: our end.  protocol: "smtp" or "lmtp".
    """

    def __init__(
        self,
        conversation: Conversation,
        *,
        id: str,  # noqa: A002 - the name in the log
        local: tuple[str, int] = ("", 0),
        connections: Callable[[], int] = lambda: 1,
        end: Callable[[str], None] = lambda _reason: None,
    ) -> None:
        self._conversation = conversation
        self.id = id
        self.local_host, self.local_port = local
        self._connections = connections
        self._end = end

    @property
    def peer(self) -> Peer:
        """All that is known of the client."""
        return self._conversation.peer

    @property
    def peer_host(self) -> str:
        """Its IP address."""
        return self.peer.host

    @property
    def peer_port(self) -> int:
        """Its port."""
        return self.peer.port

    @property
    def helo(self) -> str:
        """The name that the client gave; "" before it has."""
        return self.peer.helo

    @property
    def tls(self) -> TLSInfo | None:
        """Version, cipher, SNI, the verified name in the client's certificate; None without TLS."""
        return self.peer.tls

    @property
    def identity(self) -> str:
        """Who logged in; "" for nobody."""
        return self.peer.user

    @property
    def envelope(self) -> Envelope | None:
        """The open transaction, with its id, sender, recipients and all their parameters; None between two."""
        return self._conversation.envelope

    @property
    def messages(self) -> int:
        """Messages that this connection has brought to their end."""
        return self._conversation.messages

    @property
    def errors(self) -> int:
        """Mistakes that the client has made."""
        return self._conversation.error_count

    @property
    def listener(self) -> str:
        """The name of the listener."""
        return str(self._conversation.settings.listener)

    @property
    def protocol(self) -> str:
        """ "smtp" or "lmtp"."""
        return "lmtp" if self._conversation.settings.lmtp else "smtp"

    @property
    def hostname(self) -> str:
        """Our own name."""
        return str(self._conversation.settings.hostname)

    @property
    def connections(self) -> int:
        """How many connections this process has now, this one included."""
        return self._connections()

    def end(self, reason: str = "closed by an app") -> None:
        """Say 421 and close the connection, from wherever: a timer, another connection."""
        self._end(reason)

    def __repr__(self) -> str:
        return f"<Session {self.id} from {self.peer_host or 'a Unix socket'}>"
