"""
What SCRAM-SHA-256 needs of a password (RFC 5802 3, RFC 7677), in Dovecot's form `iterations,salt,stored,server`.

In: a password, or text of that form (the last three in base64).  Out: the text, or `ScramKeys`.
Security: who steals these can try passwords against them at the price of the iterations, no more; as the server
themselves they let nobody log in elsewhere.  `made_up` keys hide who has an account: they come from a secret of the
server and the name alone, so whoever asks twice sees the same salt, as for a real account.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import re

from scramp import ScramException, ScramMechanism
from scramp.utils import saslprep

from mailserver.sasl import ScramKeys

#: RFC 7677 4: as many as take the client a tenth of a second.  At 100,000 that is true of a telephone; a desktop
#: computer needs some 30 ms.  Only clients pay it, at each login; we pay once, when a password is set.
ITERATIONS = 100_000
#: With more of them a password sent in clear text (PLAIN) would keep one of our threads for over half a second.
MOST_ACCEPTED = 1_000_000
SALT_OCTETS = 16

_FORM = re.compile(r"([1-9][0-9]{3,7}),([A-Za-z0-9+/]{1,340}=*),([A-Za-z0-9+/]{43}=),([A-Za-z0-9+/]{43}=)\Z")


def prepared(password: str) -> str | None:
    """The password after SASLprep (RFC 4013); None when that forbids one of its characters."""
    try:
        return str(saslprep(password))
    except ScramException:
        return None


def make(password: str) -> str:
    """The keys of this password under a new salt, as text; "" when SASLprep forbids one of its characters."""
    if not prepared(password):
        return ""
    salt, stored, server, iterations = ScramMechanism("SCRAM-SHA-256").make_auth_info(
        password, ITERATIONS, os.urandom(SALT_OCTETS)
    )
    return ",".join(
        (str(iterations), *(base64.b64encode(octets).decode("ascii") for octets in (salt, stored, server)))
    )


def parse(text: str) -> ScramKeys | None:
    """The keys that such a text holds; None for text of another form, too few iterations, or too many."""
    form = _FORM.match(text)
    if form is None or int(form[1]) > MOST_ACCEPTED:
        return None
    try:
        salt, stored, server = (base64.b64decode(part, validate=True) for part in form.group(2, 3, 4))
        return ScramKeys(salt, stored, server, int(form[1]))
    except (binascii.Error, ValueError):
        return None


def matches(text: str, password: bytes) -> bool:
    """Were these keys made of this password?  For logins that send it (PLAIN); takes a client's time."""
    keys = parse(text)
    if keys is None:
        return False
    salted = hashlib.pbkdf2_hmac("sha256", password, keys.salt, keys.iterations)
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    return hmac.compare_digest(hashlib.sha256(client_key).digest(), keys.stored_key)


def made_up(secret: bytes, name: str) -> ScramKeys:
    """Keys for somebody who has none: always the same for this secret and name; no password fits them."""

    def derive(what: str) -> bytes:
        return hmac.digest(secret, f"{what}\0{name}".encode("utf-8", "surrogatepass"), "sha256")

    return ScramKeys(derive("salt")[:SALT_OCTETS], derive("stored"), derive("server"), ITERATIONS)
