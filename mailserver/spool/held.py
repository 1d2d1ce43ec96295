"""
A message that waits: what is known of it beside its text, and how that is written down.

In: `Held`.  Out: one line of JSON, the first of the message's file; and the name of that file, which begins with the
second (since 1970) of its release, so that a listing alone tells what need not be looked at yet:

    <second, 12 digits>.<id>.<mark of the account>.S=<octets of the text>

Failures: `Damaged`, for a line that nobody of us has written, or that a damaged disk has changed.
RFC 4865 (what is held), RFC 5321 4.5.4.1 (what a queue has to know), RFC 3461 (parameters of recipients).
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from mailserver.address import Address, AddressError, parse_address
from mailserver.envelope import Envelope, Peer, Recipient, TLSInfo

#: Of the form of the first line; a later one that reads this one too would count on.
VERSION = 1
_LATEST = 10**12 - 1
_NAME = re.compile(r"(\d{12})\.([A-Za-z0-9]{1,64})\.([0-9a-f]{16})\.S=(\d{1,18})\Z", re.ASCII)


class Damaged(Exception):  # noqa: N818 - it is what the file is
    """This file holds no message of ours, or not the whole of one; `str()` says why."""


@dataclass(frozen=True, slots=True)
class Held:
    """
    A message that waits, without its text.

    envelope: its recipients are those that are still to get it.  unique: the name that its file gets in each Maildir,
    given once, so that a second delivery after a crash can be told.  received, release, next_try: seconds since 1970.
    attempts: tries so far.  trouble: what the last one met with.  lost: recipients who do not get it, and nobody
    could be told.
    """

    envelope: Envelope
    unique: str
    received: float
    release: float
    next_try: float
    attempts: int = 0
    trouble: str = ""
    lost: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """Of its transaction."""
        return self.envelope.id

    def line(self) -> bytes:
        """The first line of its file, with its end; ASCII."""
        envelope = self.envelope
        told = {
            "version": VERSION,
            "id": envelope.id,
            "unique": self.unique,
            "sender": None if envelope.sender is None else str(envelope.sender),
            "recipients": [[str(each.address), dict(each.parameters)] for each in envelope.recipients],
            "parameters": dict(envelope.parameters),
            "peer": asdict(envelope.peer),
            "protocol": envelope.protocol,
            "size": envelope.size,
            "body": envelope.body,
            "smtputf8": envelope.smtputf8,
            "listener": envelope.listener,
            "local": [envelope.local_host, envelope.local_port],
            "received": self.received,
            "release": self.release,
            "next_try": self.next_try,
            "attempts": self.attempts,
            "trouble": self.trouble,
            "lost": list(self.lost),
        }
        return json.dumps(told, separators=(",", ":")).encode("ascii") + b"\n"

    def name(self, octets: int) -> str:
        """The name of its file, whose text (what stands behind the first line) has so many octets."""
        return FileName(math.ceil(self.release), self.id, mark(self.envelope.peer.user), octets).text


@dataclass(frozen=True, slots=True)
class FileName:
    """What the name of a file tells.  due: the second of the release.  mark: see `mark`.  octets: of the text."""

    due: int
    id: str
    mark: str
    octets: int

    @property
    def text(self) -> str:
        """The name."""
        return f"{min(max(self.due, 0), _LATEST):012d}.{self.id}.{self.mark}.S={self.octets}"

    @classmethod
    def read(cls, text: str) -> FileName:
        """Raises Damaged."""
        found = _NAME.match(text)
        if found is None:
            raise Damaged("the name is none of ours")
        return cls(int(found[1]), found[2], found[3], int(found[4]))


def mark(account: str) -> str:
    """Tells the messages of an account from those of others, in the names of their files."""
    return hashlib.sha256(account.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def read_line(line: bytes) -> Held:
    """What `Held.line` has written.  Raises Damaged."""
    try:
        told = json.loads(line)
        if not isinstance(told, dict):
            raise Damaged("the first line is no object")
        if told.get("version") != VERSION:
            raise Damaged(f"the first line is of version {told.get('version')!r}, not {VERSION}")
        return _held(told)
    except Damaged:
        raise
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError, AddressError) as error:
        raise Damaged(f"the first line cannot be read: {type(error).__name__}: {error}") from error


def _held(told: Mapping[str, Any]) -> Held:
    peer = dict(told["peer"])
    tls = peer.pop("tls")
    envelope = Envelope(
        id=_text(told["id"]),
        sender=None if told["sender"] is None else _address(told["sender"]),
        recipients=tuple(Recipient(_address(text), _parameters(given)) for text, given in _list(told["recipients"])),
        parameters=_parameters(told["parameters"]),
        peer=Peer(**peer, tls=None if tls is None else TLSInfo(**tls)),
        protocol=_text(told["protocol"]),
        size=None if told["size"] is None else int(told["size"]),
        body=_text(told["body"]),
        smtputf8=bool(told["smtputf8"]),
        listener=_text(told["listener"]),
        local_host=_text(told["local"][0]),
        local_port=int(told["local"][1]),
    )
    return Held(
        envelope=envelope,
        unique=_text(told["unique"]),
        received=float(told["received"]),
        release=float(told["release"]),
        next_try=float(told["next_try"]),
        attempts=int(told["attempts"]),
        trouble=_text(told["trouble"]),
        lost=tuple(_text(each) for each in _list(told["lost"])),
    )


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{type(value).__name__} in the place of text")
    return value


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError(f"{type(value).__name__} in the place of a list")
    return value


def _address(value: Any) -> Address:
    return parse_address(_text(value), need_domain=False)


def _parameters(given: Any) -> dict[str, str | None]:
    return {_text(key): None if value is None else _text(value) for key, value in given.items()}
