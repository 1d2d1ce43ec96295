"""
CRAM-MD5, the server's side (RFC 2195): the user proves to know the password without sending it.

In: `user SP digest`.  Out: a `CramLogin` for whoever has the password's contexts.
Failures: `Malformed` for an initial response (the server speaks first), or an answer of another form.
Security: each exchange needs a fresh challenge of `make_challenge`; one that comes twice can be replayed.
"""

from __future__ import annotations

import re
from typing import ClassVar

from mailserver.address import AddressError, normal_domain
from mailserver.sasl.values import Challenge, CramLogin, Malformed, Outcome, decode_name

#: Octets of randomness that a challenge needs at least.
CHALLENGE_RANDOM = 16

_DIGEST = re.compile(rb"[0-9A-Fa-f]{32}\Z")


class CramMD5:
    """The mechanism CRAM-MD5 with this challenge; implements `SaslServer`."""

    name: ClassVar[str] = "CRAM-MD5"

    #: An initial response would answer a challenge that nobody has seen.
    server_first = True

    def __init__(self, challenge: bytes) -> None:
        self._challenge = challenge

    def start(self, initial: bytes | None) -> Outcome:
        """The challenge.  Raises Malformed for an initial response (RFC 4954 4: 501)."""
        if initial is not None:
            raise Malformed("CRAM-MD5 takes no initial response")
        return Challenge(self._challenge)

    def respond(self, response: bytes) -> Outcome:
        """The user name is all before the last space.  Raises Malformed."""
        user, _space, digest = response.rpartition(b" ")
        if not _DIGEST.match(digest):
            raise Malformed("no digest of 32 hexadecimal digits after the user name")
        return CramLogin(decode_name(user), self._challenge, digest.decode("ascii").lower())


def make_challenge(hostname: str, random: bytes, now: float) -> bytes:
    """
    A challenge of RFC 2195 2: `<random digits.timestamp@hostname>`, ASCII, with the form of a msg-id.

    hostname: ours; one that is no domain name becomes "localhost".  now: seconds since the epoch.
    random: at least 16 octets of a secure source, which make the challenge unpredictable; ValueError for less.
    """
    if len(random) < CHALLENGE_RANDOM:
        raise ValueError(f"a challenge needs {CHALLENGE_RANDOM} random octets, not {len(random)}")
    try:
        host = normal_domain(hostname)
    except AddressError:
        host = "localhost"
    return f"<{int.from_bytes(random, 'big')}.{int(now)}@{host}>".encode("ascii")
