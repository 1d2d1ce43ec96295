"""
SCRAM-SHA-256 and SCRAM-SHA-256-PLUS, the server's side (RFC 5802, RFC 7677): both sides prove to know the password,
and neither says it; with -PLUS they also prove to be the ends of the same TLS connection.

In: client-first, the user's keys, client-final, an empty response.
Out: a `Lookup`, server-first, server-final, a `VerifiedLogin`; or `WrongProof`.
Failures: `Malformed` for a message of another form.  A wrong password, another channel, a downgrade: `WrongProof`.
Security: with keys made up for unknown users (`IScramKeys`) their exchange has the same steps and the same end.
A client that says "y" (the server cannot bind channels) where we offered -PLUS has been lied to (RFC 5802 6).

The messages, SASLprep and the proof are the library's, scramp.  The GS2 header is ours, because scramp takes no
authorization identity, only one type of channel binding at a time, and not `tls-exporter` (RFC 9266), the one of
TLS 1.3.  So scramp reads the message with the plain header "n,,", and for the comparison with the client's channel
binding its `gs2_header` is replaced by one that knows what was really sent.  Should a version of scramp not look
there, no exchange with another header would succeed: it fails safe, and the tests see it.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from typing import Any

from scramp import ScramException, ScramMechanism

from mailserver.sasl.gs2 import Gs2Header, parse_gs2_header
from mailserver.sasl.values import (
    KEY_OCTETS,
    LEAST_ITERATIONS,
    LEAST_SALT,
    Challenge,
    Lookup,
    Malformed,
    Outcome,
    ScramKeys,
    VerifiedLogin,
    WrongProof,
    decode_name,
)

#: Characters of a client's nonce.  Ours repeats it, and a challenge has 12,288 octets at most (RFC 4954 4).
MAX_NONCE = 1_024

#: What scramp calls the ways in which a well-formed client-final is wrong (RFC 5802 7, server-error-value).
_WRONG = {
    "invalid-proof": "the proof is wrong",
    "channel-bindings-dont-match": "the client is at the end of another channel",
}
_PLAIN_HEADER = "n,,"
_NO_KEYS = ScramKeys(bytes(LEAST_SALT), bytes(KEY_OCTETS), bytes(KEY_OCTETS), LEAST_ITERATIONS)


class Scram:
    """
    The mechanism SCRAM-SHA-256, or SCRAM-SHA-256-PLUS; implements `LookupServer`.

    binding: type of channel binding ("tls-exporter") -> its data, those with which -PLUS was offered; empty where it
    was not.  plus: was -PLUS chosen?  nonce: printable ASCII without a comma, never used before; None: a random one.
    Raises ValueError for plus without any binding.
    """

    def __init__(self, binding: Mapping[str, bytes], *, plus: bool, nonce: str | None = None) -> None:
        if plus and not binding:
            raise ValueError("SCRAM-SHA-256-PLUS needs channel bindings")
        self._binding = dict(binding)
        self._plus = plus
        self._nonce = secrets.token_urlsafe(24) if nonce is None else nonce
        self._next: Callable[[bytes], Outcome] = self._client_first
        self._first = ""
        self._header: Gs2Header | None = None
        self._user = ""
        self._exchange: Any = None

    @property
    def name(self) -> str:
        """The mechanism that was chosen."""
        return "SCRAM-SHA-256-PLUS" if self._plus else "SCRAM-SHA-256"

    def start(self, initial: bytes | None) -> Outcome:
        """Without an initial response: an empty challenge; the client speaks first."""
        return Challenge(b"") if initial is None else self.respond(initial)

    def respond(self, response: bytes) -> Outcome:
        """client-first, client-final, and the empty answer to server-final.  Raises Malformed."""
        step, self._next = self._next, self._over
        return step(response)

    def found(self, keys: ScramKeys) -> Outcome:
        """server-first, which tells salt and iterations.  RuntimeError when no `Lookup` is open."""
        if self._header is None or self._exchange is not None:
            raise RuntimeError("no lookup is open")
        self._exchange = self._exchange_with(lambda _user: keys)
        data = self._binding[self._header.binding] if self._header.binding is not None else b""
        self._exchange.gs2_header = _BindingInput(self._header.octets + data)
        self._next = self._client_final
        return Challenge(str(self._exchange.get_server_first()).encode("ascii"))

    def _client_first(self, message: bytes) -> Outcome:
        header, bare = parse_gs2_header(message)
        self._first = _text(bare)
        users: list[str] = []

        def seen(user: str) -> ScramKeys:
            users.append(user)
            return _NO_KEYS

        try:
            self._exchange_with(seen)
        except ScramException:
            # `from None`, here and below: the library's text may hold what the peer sent.
            raise Malformed("client-first is malformed") from None
        self._user = decode_name(users[0].encode())
        if any(field.startswith("r=") and len(field) > MAX_NONCE + 2 for field in self._first.split(",")):
            raise Malformed(f"the nonce is longer than {MAX_NONCE} characters")
        if reason := self._unfit(header):
            return WrongProof(self._user, reason)
        self._header = header
        return Lookup(self._user)

    def _unfit(self, header: Gs2Header) -> str:
        """Why a client with this header must not come in (RFC 5802 6), or ""."""
        if header.binding is not None:
            return "" if header.binding in self._binding else "the type of channel binding is not one of ours"
        if self._plus:
            return "the client chose -PLUS and does not bind the channel"
        if header.flag == "y" and self._binding:
            return "somebody has hidden from the client that we offer -PLUS"
        return ""

    def _client_final(self, message: bytes) -> Outcome:
        text = _text(message)
        try:
            self._exchange.set_client_final(text)
        except ScramException as error:
            reason = _WRONG.get(error.server_error.value) if error.server_error is not None else None
            if reason is None:
                raise Malformed("client-final is malformed") from None
            return WrongProof(self._user, reason)
        self._next = self._confirmed
        return Challenge(str(self._exchange.get_server_final()).encode("ascii"))

    def _confirmed(self, response: bytes) -> Outcome:
        if response:
            raise Malformed("the answer to server-final is not empty")
        assert self._header is not None
        return VerifiedLogin(self._user, self._header.authzid)

    def _over(self, _response: bytes) -> Outcome:
        raise Malformed("the exchange is over")

    def _exchange_with(self, keys_of: Callable[[str], ScramKeys]) -> Any:
        """The library's exchange after client-first.  Raises ScramException."""

        def known(user: str) -> tuple[bytes, bytes, bytes, int]:
            keys = keys_of(user)
            return keys.salt, keys.stored_key, keys.server_key, keys.iterations

        exchange = ScramMechanism("SCRAM-SHA-256").make_server(known, s_nonce=self._nonce)
        exchange.set_client_first(_PLAIN_HEADER + self._first)
        return exchange


class _BindingInput:
    """Stands in for scramp's GS2 header: what the client's "c=" must hold (RFC 5802 7, cbind-input)."""

    def __init__(self, octets: bytes) -> None:
        self._octets = octets

    def make_cbind_input(self, _binding: object) -> bytes:
        return self._octets


def _text(octets: bytes) -> str:
    try:
        return octets.decode()
    except UnicodeDecodeError:
        raise Malformed("a message is not UTF-8") from None
