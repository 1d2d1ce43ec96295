"""
EXTERNAL, the server's side (RFC 4422 appendix A): the connection has already shown who the user is.

In: the name in the client's verified certificate, and whom the client asks to act as.  Out: an `ExternalLogin`.
Failures: `Malformed` for octets that are not UTF-8, NUL, control characters.
Security: offer it only where the certificate was verified; a name is all that this trusts.
"""

from __future__ import annotations

from typing import ClassVar

from mailserver.sasl.values import Challenge, ExternalLogin, Outcome, decode_name


class External:
    """The mechanism EXTERNAL; implements `SaslServer`.  identity: `TLSInfo.client_name`; ValueError when empty."""

    name: ClassVar[str] = "EXTERNAL"

    def __init__(self, identity: str) -> None:
        if not identity:
            raise ValueError("EXTERNAL needs the name of a certificate that was verified")
        self._identity = identity

    def start(self, initial: bytes | None) -> Outcome:
        """Without an initial response: an empty challenge."""
        return Challenge(b"") if initial is None else self.respond(initial)

    def respond(self, response: bytes) -> Outcome:
        """The response is the authorization identity; of no octets, it means the user's own.  Raises Malformed."""
        return ExternalLogin(self._identity, decode_name(response) if response else "")
