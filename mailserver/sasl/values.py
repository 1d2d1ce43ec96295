"""
What a SASL exchange consists of: the values that a mechanism gives, and the shape that every mechanism has.

In: decoded octets of the peer.  Out: `Challenge` (send it, wait), `PlainLogin` or `CramLogin` (somebody verify it).
Failures: `Malformed`.  Base64, the line limits and "*" belong to the protocol around it (RFC 4954, 3501, 5034).
Security: no repr and no error text holds a password, a digest or what the peer sent.
RFC 4422 (SASL).
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from mailserver.address import AddressError, fold_local, parse_address


class Malformed(ValueError):  # noqa: N818 - named for what the response is
    """The response does not fit the mechanism; `str()` says why, in words that hold nothing of the response."""


@dataclass(frozen=True, slots=True)
class Challenge:
    """Octets to send (the caller puts them into base64); the peer's response goes to `respond`."""

    octets: bytes


@dataclass(frozen=True, slots=True)
class PlainLogin:
    """
    A user name and a password to be verified.

    authzid: whom the user wants to act as, "" for themselves; see `authzid_allowed`.
    """

    user: str
    password: str = field(repr=False)
    authzid: str = ""


@dataclass(frozen=True, slots=True)
class CramLogin:
    """
    A CRAM-MD5 answer to be verified: digest is the HMAC-MD5 of challenge under the user's password.

    digest: 32 lower-case hexadecimal digits.
    """

    user: str
    challenge: bytes
    digest: str = field(repr=False)


Outcome: TypeAlias = Challenge | PlainLogin | CramLogin


class SaslServer(Protocol):
    """The server's side of one exchange of one mechanism.  An object serves one exchange."""

    @property
    def name(self) -> str:
        """The mechanism, in upper case."""
        ...

    def start(self, initial: bytes | None) -> Outcome:
        """Begin.  initial: the decoded initial response, b"" for "=", None when none came.  Raises Malformed."""
        ...

    def respond(self, response: bytes) -> Outcome:
        """Go on with the decoded response to the last challenge.  Raises Malformed."""
        ...


def decode_text(octets: bytes) -> str:
    """The UTF-8 text that octets stand for.  Raises Malformed for other octets, for NUL, and when it is empty."""
    if not octets:
        raise Malformed("a field is empty")
    if b"\0" in octets:
        raise Malformed("a field holds a NUL")
    try:
        return octets.decode()
    except UnicodeDecodeError:
        # `from None`: the decoder's error holds the octets.
        raise Malformed("a field is not UTF-8") from None


def decode_name(octets: bytes) -> str:
    """The same for a user name, which may not hold control characters either (RFC 4013 2.3): names get logged."""
    name = decode_text(octets)
    if not name.isprintable() and any(unicodedata.category(c) in ("Cc", "Zl", "Zp") for c in name):
        raise Malformed("a user name holds a control character")
    return name


def authzid_allowed(login: PlainLogin) -> bool:
    """
    May this user act as whom they ask to act as (RFC 4616 2)?  Only as themselves: the authorization identity is
    empty, or is the same mailbox as the user name (compared by `Address.key`).
    """
    return not login.authzid or _folded(login.authzid) == _folded(login.user)


def _folded(name: str) -> str:
    try:
        return parse_address(name).key
    except AddressError:
        return fold_local(name)
