"""
What a SASL exchange consists of: the values that a mechanism gives, and the shape that every mechanism has.

In: decoded octets of the peer.  Out: `Challenge` (send it, wait), `Lookup` (somebody find the keys), a login
(somebody verify it, or say whether the user may come in), `WrongProof` (this login has failed).
Failures: `Malformed`.  Base64, the line limits and "*" belong to the protocol around it (RFC 4954, 3501, 5034).
Security: no repr and no error text holds a password, a key, a token, a digest or what the peer sent.
RFC 4422 (SASL).
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias, runtime_checkable

from mailserver.address import AddressError, fold_local, parse_address

#: Octets of a SCRAM-SHA-256 key: a SHA-256.
KEY_OCTETS = 32
#: RFC 7677 4: fewer rounds than these protect nothing.
LEAST_ITERATIONS = 4_096
#: More keep a client busy for many seconds, and the library does not take them.
MOST_ITERATIONS = 10_000_000
#: Octets of a salt: what the library asks for at least, and more than anybody makes.
LEAST_SALT, MOST_SALT = 12, 255


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


@dataclass(frozen=True, slots=True)
class Lookup:
    """
    The exchange needs the SCRAM keys of this user: ask a directory (`IScramKeys`) and give them to `found`.

    user: as it was sent, after SASLprep.
    """

    user: str


@dataclass(frozen=True, slots=True)
class ScramKeys:
    """
    What a server keeps of a password for SCRAM-SHA-256 (RFC 5802 3).

    salt: 12 to 255 octets.  stored_key, server_key: 32 octets each.  iterations: 4,096 to 10,000,000.
    Raises ValueError for other values.
    """

    salt: bytes
    stored_key: bytes = field(repr=False)
    server_key: bytes = field(repr=False)
    iterations: int

    def __post_init__(self) -> None:
        if not LEAST_SALT <= len(self.salt) <= MOST_SALT:
            raise ValueError(f"a salt has {LEAST_SALT} to {MOST_SALT} octets, not {len(self.salt)}")
        if len(self.stored_key) != KEY_OCTETS or len(self.server_key) != KEY_OCTETS:
            raise ValueError(f"a key of SCRAM-SHA-256 has {KEY_OCTETS} octets")
        if not LEAST_ITERATIONS <= self.iterations <= MOST_ITERATIONS:
            raise ValueError(
                f"SCRAM takes {LEAST_ITERATIONS:,} to {MOST_ITERATIONS:,} iterations, not {self.iterations:,}"
            )


@dataclass(frozen=True, slots=True)
class VerifiedLogin:
    """The exchange itself has verified this user (SCRAM); what is left to ask is whether they may come in."""

    user: str
    authzid: str = ""


@dataclass(frozen=True, slots=True)
class ExternalLogin:
    """A user whom the connection itself has verified: the name in their certificate (EXTERNAL)."""

    user: str
    authzid: str = ""


@dataclass(frozen=True, slots=True)
class BearerLogin:
    """
    An OAuth 2 bearer token to be verified (RFC 6750).

    user: whose mailbox it is for, "" when only the token says so.  host, port: of the server that the client believes
    to talk to, "" and 0 when it did not say.  When it is refused the exchange goes on: see `RefusableServer`.
    """

    user: str
    token: str = field(repr=False)
    host: str = ""
    port: int = 0


@dataclass(frozen=True, slots=True)
class WrongProof:
    """
    The login has failed, like one with a wrong password: answer it in the same way, after the same delay.

    user: who tried, "" when that is not known.  reason: for the log; never for the peer.
    """

    user: str
    reason: str


#: How an exchange ends: what the session hands over to be verified, admitted or refused.
Credentials: TypeAlias = PlainLogin | CramLogin | VerifiedLogin | ExternalLogin | BearerLogin | WrongProof
Outcome: TypeAlias = Challenge | Lookup | Credentials


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


@runtime_checkable
class LookupServer(SaslServer, Protocol):
    """An exchange that may give a `Lookup`."""

    def found(self, keys: ScramKeys) -> Outcome:
        """Go on with the keys that the last `Lookup` asked for.  RuntimeError when no `Lookup` is open."""
        ...


@runtime_checkable
class RefusableServer(SaslServer, Protocol):
    """An exchange that tells its client more about a refusal before the protocol's own reply (RFC 7628 3.2.2)."""

    def refused(self) -> Challenge:
        """
        The login was refused: send this; the client's answer goes to `respond`, whose outcome is a `WrongProof`
        that nobody needs to look into.  Then comes the reply to the refusal.
        """
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


def authzid_allowed(login: PlainLogin | VerifiedLogin | ExternalLogin) -> bool:
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
