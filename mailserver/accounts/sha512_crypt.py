"""
SHA-512-crypt, the `$6$` password hash of glibc, after U. Drepper's "Unix crypt using SHA-256 and SHA-512".

In: a password and a salt, or a stored hash.  Out: `$6$[rounds=N$]SALT$HASH`, or whether they match.
Only for hashes that were made elsewhere: ours are argon2id.  Python 3.13 has no crypt module any more.
"""

from __future__ import annotations

import hashlib
import hmac
import re

DEFAULT_ROUNDS, LEAST_ROUNDS, MOST_ROUNDS = 5_000, 1_000, 999_999_999
#: A stored hash with more rounds is not verified: in Python a million take a second or two.
ACCEPTED_ROUNDS = 1_000_000
MAX_SALT = 16

_FORM = re.compile(r"\$6\$(?:rounds=(\d{1,9})\$)?([^$:\n]{0,16})\$([./0-9A-Za-z]{86})\Z")
_ALPHABET = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def sha512_crypt(password: bytes, salt: str, rounds: int | None = None) -> str:
    """
    The hash of a password.

    salt: up to 16 characters count.  rounds: None for 5,000, which the text then does not name; others are brought
    into the range of 1,000 to 999,999,999.
    """
    count = DEFAULT_ROUNDS if rounds is None else min(max(rounds, LEAST_ROUNDS), MOST_ROUNDS)
    salt = salt[:MAX_SALT]
    named = "" if rounds is None else f"rounds={count}$"
    return f"$6${named}{salt}${_encode(_digest(password, salt.encode(), count))}"


def matches(stored: str, password: bytes) -> bool:
    """Is `stored` a SHA-512-crypt hash of this password?  False for text of another form, or with too many rounds."""
    if not well_formed(stored):
        return False
    rounds, salt, encoded = _FORM.match(stored).groups()  # type: ignore[union-attr]  # well_formed has matched it
    again = sha512_crypt(password, salt, None if rounds is None else int(rounds))
    return hmac.compare_digest(again.rpartition("$")[2], encoded)


def well_formed(stored: str) -> bool:
    """Has this text the form of a hash that `matches` can verify?"""
    form = _FORM.match(stored)
    return form is not None and int(form[1] or 0) <= ACCEPTED_ROUNDS


def _digest(password: bytes, salt: bytes, rounds: int) -> bytes:
    """Steps 1 to 21 of the specification."""
    size = len(password)
    inner = hashlib.sha512(password + salt + password).digest()
    outer = hashlib.sha512(password + salt + _stretch(inner, size))
    bits = size
    while bits:
        outer.update(inner if bits & 1 else password)
        bits >>= 1
    result = outer.digest()
    # Steps 13 to 20: the sequences P and S, as long as the password and the salt.
    p = _stretch(hashlib.sha512(password * size).digest(), size)
    s = _stretch(hashlib.sha512(salt * (16 + result[0])).digest(), len(salt))
    for number in range(rounds):
        odd = number & 1
        text = p if odd else result
        if number % 3:
            text += s
        if number % 7:
            text += p
        text += result if odd else p
        result = hashlib.sha512(text).digest()
    return result


def _stretch(digest: bytes, size: int) -> bytes:
    return (digest * (size // len(digest) + 1))[:size]


def _encode(digest: bytes) -> str:
    """Step 22: groups of three octets, each 21 after the other in a circle of 63, as four digits of base 64."""
    digits = []
    first, second, third = 0, 21, 42
    for _ in range(21):
        digits.append(_base64(digest[first] << 16 | digest[second] << 8 | digest[third], 4))
        first, second, third = second + 1, third + 1, first + 1
    digits.append(_base64(digest[63], 2))
    return "".join(digits)


def _base64(value: int, count: int) -> str:
    return "".join(_ALPHABET[value >> 6 * i & 63] for i in range(count))
