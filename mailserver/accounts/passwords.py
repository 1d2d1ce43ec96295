"""
Passwords as they are kept: hashes in Dovecot's `{SCHEME}hash` form, several of them for one account.

In: a password somebody sets or tries.  Out: hashes to keep, or whether one matches.
Schemes: ARGON2ID (RFC 9106; what we make), SCRAM-SHA-256 and CRAM-MD5 (made beside it, for those mechanisms), and
from elsewhere SHA512-CRYPT and BLF-CRYPT (when the package `bcrypt` is there).  A hash of any other scheme never
matches.
Failures: `BadPassword` for one that may not be set, `BadHash` for one that cannot be imported.
Security: compares in constant time; no error text holds a password or a hash.

A password beyond ASCII goes through SASLprep (RFC 4013) before it is hashed and before it is verified, as the clients
of SCRAM do it, so that it matches whichever way a keyboard composes an umlaut.  Where SASLprep forbids a character
(an emoji is none of Unicode 3.2) it is brought into NFKC alone, and has no SCRAM keys: no client could use them.
For a hash that came from elsewhere the octets as they were sent, and their NFKC, are tried too.
"""

from __future__ import annotations

import hmac
import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence

from argon2.exceptions import VerifyMismatchError
from argon2.low_level import ARGON2_VERSION, Type, hash_secret, verify_secret

from mailserver.accounts import md5_contexts, scram, sha512_crypt
from mailserver.sasl import ScramKeys

try:
    import bcrypt
except ImportError:  # the extra "bcrypt" of this package
    bcrypt = None  # type: ignore[assignment] # with it, it is a module; without, what is asked about it is "is None?"

#: OWASP's parameters for argon2id: 19 MiB, two passes, one lane; some 20 ms.
ARGON2_MEMORY, ARGON2_TIME, ARGON2_LANES = 19_456, 2, 1
ARGON2_SALT, ARGON2_HASH = 16, 32
#: Octets of a password.  A longer one is never set and never matches, so that nobody can make us hash a book.
MAX_PASSWORD = 1_024
#: What an imported argon2id hash may ask for: KiB, passes, lanes.
MOST_MEMORY, MOST_TIME, MOST_LANES = 1_048_576, 32, 16
#: bcrypt looks at this many octets of a password.
_BCRYPT_LENGTH = 72

#: A hash of nothing anybody knows, made with the parameters above: what unknown users are verified against.
DUMMY = "{ARGON2ID}$argon2id$v=19$m=19456,t=2,p=1$mDSz4KYoIZ01B8+MggFuIw$HhlgX/jEndzLw3fv9CZX8KWH9pE7c1fj+d1F5OzoivQ"
_DUMMY_CONTEXTS = "00" * 32

_FORM = re.compile(r"\{([A-Za-z0-9-]+)\}(.+)\Z")
_ARGON2 = re.compile(
    r"\$argon2id\$v=19\$m=(\d{1,9}),t=(\d{1,4}),p=(\d{1,4})\$[A-Za-z0-9+/]{11,}\$[A-Za-z0-9+/]{16,}\Z"
)
_BCRYPT = re.compile(r"\$2[aby]\$(\d\d)\$[./A-Za-z0-9]{53}\Z")
_CRAM_MD5 = re.compile(r"[0-9a-fA-F]{64}\Z")
#: From 2**this rounds on a bcrypt hash takes seconds.
_MOST_BCRYPT = 15


class BadPassword(ValueError):  # noqa: N818 - it is what the password is
    """This may not be a password; `str()` says why."""


class BadHash(ValueError):  # noqa: N818 - it is what the hash is
    """This hash would never match; `str()` says why, without the hash."""


def hash_password(password: str, *, cram_md5: bool = True, scram_sha_256: bool = True) -> tuple[str, ...]:
    """
    What to keep for a password: an ARGON2ID hash, and unless they are not wanted SCRAM-SHA-256 keys (when SASLprep
    allows all its characters) and the CRAM-MD5 contexts.

    Takes some 50 ms.  Raises BadPassword when it is empty, longer than 1,024 octets, or holds a control character.
    """
    octets = _prepare(password)
    if not octets:
        raise BadPassword("the password is empty")
    if len(octets) > MAX_PASSWORD:
        raise BadPassword(f"the password is longer than {MAX_PASSWORD:,} octets")
    # PLAIN cannot carry a NUL, and no keyboard writes the others: they are accidents of a script.
    if any(unicodedata.category(c) in ("Cc", "Cs") for c in password):
        raise BadPassword("the password holds a control character")
    kept = ["{ARGON2ID}" + _argon2id(octets)]
    if scram_sha_256 and (keys := scram.make(password)):
        kept.append("{SCRAM-SHA-256}" + keys)
    if cram_md5:
        kept.append("{CRAM-MD5}" + md5_contexts.cram_contexts(octets))
    return tuple(kept)


def verify(kept: Sequence[str], password: str) -> bool:
    """
    Is this the password of an account with these hashes?  The strongest scheme that we know decides alone.

    Without an ARGON2ID hash the work of one is done nevertheless, so that the time does not tell who has an account.
    Raises argon2's VerificationError for trouble (no memory).
    """
    stored = strongest(kept)
    if scheme_of(stored) != "ARGON2ID":
        _matches(DUMMY, password)
    return bool(stored) and _matches(stored, password)


def verify_cram(kept: Sequence[str], challenge: bytes, digest: str) -> bool:
    """Does this CRAM-MD5 digest prove the password?  False, after the same work, when no contexts are kept."""
    contexts = next((stored.partition("}")[2] for stored in kept if scheme_of(stored) == "CRAM-MD5"), "")
    known = _CRAM_MD5.match(contexts) is not None
    expected = md5_contexts.cram_digest(contexts if known else _DUMMY_CONTEXTS, challenge)
    same = hmac.compare_digest(expected.encode(), digest.lower().encode())
    return known and same


def scram_keys(kept: Sequence[str]) -> ScramKeys | None:
    """The keys for SCRAM-SHA-256 among these hashes; None when there are none."""
    found = (scram.parse(stored.partition("}")[2]) for stored in kept if scheme_of(stored) == "SCRAM-SHA-256")
    return next((keys for keys in found if keys is not None), None)


def mechanisms_of(kept: Sequence[str]) -> tuple[str, ...]:
    """The SASL mechanisms by which somebody with these hashes can log in, the strongest first."""
    keys = ("SCRAM-SHA-256-PLUS", "SCRAM-SHA-256") if scram_keys(kept) is not None else ()
    contexts = any(scheme_of(stored) == "CRAM-MD5" and _usable(stored) for stored in kept)
    return (*keys, *(("PLAIN", "LOGIN") if strongest(kept) else ()), *(("CRAM-MD5",) if contexts else ()))


def scheme_of(stored: str) -> str:
    """The scheme's name in upper case; "" for text without one."""
    form = _FORM.match(stored)
    return form[1].upper() if form else ""


def strongest(kept: Iterable[str]) -> str:
    """The one of these hashes that `verify` goes by; "" when there is none."""
    order = list(_SCHEMES)
    usable = [stored for stored in kept if _usable(stored)]
    return min(usable, key=lambda stored: order.index(scheme_of(stored)), default="")


def recognise(text: str) -> str:
    """
    A hash of a passwd file in the form in which we keep it: crypt's own prefixes get their scheme, an alias its name.

    Raises BadHash for a scheme that we do not know, and for one that is damaged or takes too long to verify.
    """
    form = _FORM.match(text)
    scheme, rest = (form[1].upper(), form[2]) if form else ("", text)
    if scheme in ("", "CRYPT"):
        scheme = next((name for prefix, name in _PREFIXES.items() if rest.startswith(prefix)), scheme)
    scheme = _ALIASES.get(scheme, scheme)
    if scheme in ("", "CRYPT"):
        raise BadHash("a hash without a scheme that we know")
    if scheme not in _SCHEMES:
        raise BadHash(f"{{{scheme}}} is no scheme that we know")
    if scheme == "BLF-CRYPT" and bcrypt is None:
        raise BadHash('{BLF-CRYPT} needs the package "bcrypt", which is not installed')
    if not _well_formed(scheme, rest):
        raise BadHash(f"a damaged {{{scheme}}} hash, or one that takes too long to verify")
    return f"{{{scheme}}}{rest}"


_PREFIXES = {
    "$argon2id$": "ARGON2ID",
    "$6$": "SHA512-CRYPT",
    "$2a$": "BLF-CRYPT",
    "$2b$": "BLF-CRYPT",
    "$2y$": "BLF-CRYPT",
}
_ALIASES = {"HMAC-MD5": "CRAM-MD5"}


def _prepare(password: str) -> bytes:
    """The octets that are hashed.  A lone surrogate becomes "?", which `hash_password` never lets through."""
    # One that is too long never matches; preparing it would take time in proportion.
    if not password.isascii() and len(password) <= MAX_PASSWORD:
        prepared = scram.prepared(password)
        password = unicodedata.normalize("NFKC", password) if prepared is None else prepared
    return password.encode("utf-8", "replace")


def _argon2id(octets: bytes) -> str:
    return hash_secret(
        octets,
        os.urandom(ARGON2_SALT),
        ARGON2_TIME,
        ARGON2_MEMORY,
        ARGON2_LANES,
        ARGON2_HASH,
        Type.ID,
        ARGON2_VERSION,
    ).decode("ascii")


def _matches_argon2id(rest: str, octets: bytes) -> bool:
    try:
        return verify_secret(rest.encode("ascii"), octets, Type.ID)
    except VerifyMismatchError:
        return False


def _matches_bcrypt(rest: str, octets: bytes) -> bool:
    if bcrypt is None or b"\0" in octets:
        return False
    # Other makers cut here without a word; the package raises.  $2y$ is $2b$ by another name.
    return bool(bcrypt.checkpw(octets[:_BCRYPT_LENGTH], b"$2b$" + rest[4:].encode("ascii")))


def _matches_contexts(rest: str, octets: bytes) -> bool:
    return hmac.compare_digest(md5_contexts.cram_contexts(octets), rest.lower())


#: scheme -> verification; the strongest first.
_SCHEMES: dict[str, Callable[[str, bytes], bool]] = {
    "ARGON2ID": _matches_argon2id,
    "BLF-CRYPT": _matches_bcrypt,
    "SHA512-CRYPT": sha512_crypt.matches,
    "SCRAM-SHA-256": scram.matches,
    "CRAM-MD5": _matches_contexts,
}


def _well_formed(scheme: str, rest: str) -> bool:
    if scheme == "ARGON2ID":
        form = _ARGON2.match(rest)
        return form is not None and all(
            0 < int(asked) <= most
            for asked, most in zip(form.groups(), (MOST_MEMORY, MOST_TIME, MOST_LANES), strict=True)
        )
    if scheme == "BLF-CRYPT":
        form = _BCRYPT.match(rest)
        return form is not None and 4 <= int(form[1]) <= _MOST_BCRYPT
    if scheme == "SHA512-CRYPT":
        return sha512_crypt.well_formed(rest)
    if scheme == "SCRAM-SHA-256":
        return scram.parse(rest) is not None
    return _CRAM_MD5.match(rest) is not None


def _usable(stored: str) -> bool:
    try:
        return recognise(stored) == stored
    except BadHash:
        return False


def _matches(stored: str, password: str) -> bool:
    check = _SCHEMES[scheme_of(stored)]
    forms = [_prepare(password)]
    if not password.isascii() and len(password) <= MAX_PASSWORD:
        more = (unicodedata.normalize("NFKC", password), password)
        forms = list(dict.fromkeys([*forms, *(form.encode("utf-8", "replace") for form in more)]))
    return any(check(stored.partition("}")[2], octets) for octets in forms if len(octets) <= MAX_PASSWORD)
