"""
Names on the disk: which directory a mailbox is, and what the files in it are called.

In: addresses, sizes, a clock.  Out: paths below the mail root that no address can lead out of; names of messages that
are never given twice, and what such a name tells.

A local part or a domain becomes one path element: what is not `a-z 0-9 _ + = - .` is written as `%xx`, octet by octet
of its UTF-8, and so are a first `.`, `+`, `=` or `-` and a last `.`.  No two texts share a name, also where the file
system takes upper and lower case for the same or rewrites UTF-8, as names hold neither.

Maildir (https://cr.yp.to/proto/maildir.html) and Maildir++ (`,S=`); RFC 5321 4.1.2 and RFC 6531 3.3 (local parts).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Protocol

from mailserver.address import Address, fold_local

#: The octets that one path element may have, NAME_MAX of every file system in use.  A local part has 64 octets, 192
#: when all are written as %xx; only case folding (one letter may become three) can bring one over this.
MAX_NAME = 255
_KEPT_OF_LONG = 180
#: The part of our host's name that names carry; with all else a name stays below 255 octets.
_MAX_HOST = 100

_PLAIN = re.compile(r"[a-z0-9_](?:[a-z0-9_+=.\-]*[a-z0-9_+=\-])?\Z")
_UNSAFE = re.compile(rb"[^a-z0-9_+=.\-]|\A[^a-z0-9_]|\.\Z")
_ESCAPE = re.compile(rb"%([0-9a-f]{2})")
_EMPTY, _SHORTENED = "%", "%~"

_SIZE = re.compile(r",S=([0-9]{1,18})(?=[,:]|\Z)")
_VIRTUAL_SIZE = re.compile(r",W=([0-9]{1,18})(?=[,:]|\Z)")
_OURS = re.compile(r"[0-9]+\.M[0-9]+P([1-9][0-9]{0,8})Q[0-9]+\.([^,:]+)")


def encode_name(text: str) -> str:
    """
    One path element for any text; injective, lower-case ASCII, 1 to 255 octets, never "." or "..", no "/" or NUL.

    A text that would need more than 255 octets is cut, and told from others by its SHA-256.
    """
    if _PLAIN.match(text) and len(text) <= MAX_NAME:
        return text
    if not text:
        return _EMPTY
    raw = text.encode("utf-8", "surrogatepass")
    name = _UNSAFE.sub(lambda found: b"%%%02x" % found[0][0], raw).decode("ascii")
    if len(name) <= MAX_NAME:
        return name
    return name[:_KEPT_OF_LONG] + _SHORTENED + hashlib.sha256(raw).hexdigest()


def decode_name(name: str) -> str:
    """The text that `encode_name` made `name` of.  Raises ValueError when it made no such name, or has cut it."""
    if name == _EMPTY:
        return ""
    if _SHORTENED in name:
        raise ValueError(f"{name!r} is cut and cannot be read back")
    try:
        raw = _ESCAPE.sub(lambda found: bytes.fromhex(found[1].decode()), name.encode("ascii"))
        text = raw.decode("utf-8", "surrogatepass")
    except UnicodeError as error:
        raise ValueError(f"{name!r} is no name of a mailbox") from error
    if encode_name(text) != name:
        raise ValueError(f"{name!r} is no name of a mailbox")
    return text


def mailbox_path(root: Path, address: Address) -> Path:
    """The Maildir of an address: root/<domain>/<local>; the same for all that are equal by `Address.key`."""
    return root / encode_name(address.ascii_domain) / encode_name(fold_local(address.local))


class Names(Protocol):
    """Where a delivery has the names of its files from."""

    def next(self) -> str:
        """A name, without sizes."""


@dataclass(frozen=True, slots=True)
class OneName:
    """The name of a message that was given it before, so that a second delivery can be told from the first."""

    name: str

    def next(self) -> str:
        """See `Names`."""
        return self.name


class UniqueNames:
    """
    Names for messages, `time.MusecPpidQn.host`, as the Maildir specification asks for.

    hostname: any text; what is no letter, digit, "-", "_" or "." becomes \\ooo ("/" is \\057, ":" is \\072).
    pid: of this process; set it again after a fork.  seconds: the time since 1970; it may stand still or go back.
    """

    def __init__(self, hostname: str, pid: int, seconds: Callable[[], float]) -> None:
        if not hostname:
            raise ValueError("names of messages need a host name")
        raw = re.sub(rb"[^A-Za-z0-9._\-]", lambda found: rb"\%03o" % found[0][0], hostname.encode())
        self.host = raw.decode("ascii")[:_MAX_HOST]
        self.pid = pid
        self._seconds = seconds
        self._count = count()

    def next(self) -> str:
        """A name, without sizes, that was never given before.  Within the process the counter alone sees to that."""
        now = self._seconds()
        whole = int(now // 1)
        return f"{whole}.M{int((now - whole) * 1_000_000)}P{self.pid}Q{next(self._count)}.{self.host}"

    def pid_of(self, name: str) -> int | None:
        """The process of this host that made this name; None for names of other hosts, or of other make."""
        found = _OURS.match(name)
        return int(found[1]) if found and found[2] == self.host else None


def with_sizes(name: str, stored: int, virtual: int) -> str:
    """The name of a message of `stored` octets on the disk, and of `virtual` octets when each line ends in CRLF."""
    return f"{name},S={stored},W={virtual}"


def sizes(name: str) -> tuple[int | None, int | None]:
    """What a file's name tells: octets on the disk, octets with CRLF; None for what it does not tell."""
    stored, virtual = _SIZE.search(name), _VIRTUAL_SIZE.search(name)
    return int(stored[1]) if stored else None, int(virtual[1]) if virtual else None
