"""
A DKIM-Signature field as a value: what it claims, before anything is computed.

In: a field of a header section.  Out: `Signature`.
Failures: `Unusable`, with the result that such a signature has and a reason in words of our own.  Whether the mail
matches, and whether the key exists, is for `mailserver/dkim/verifier.py` to find out.

RFC 6376 3.5 (the tags), 6.1.1 (what is checked); RFC 8301 3.1 (no SHA-1); RFC 8463 4.1 (ed25519);
RFC 8616 4 (U-labels); RFC 8601 2.7.1 (the words of results).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from mailserver.address import AddressError, normal_domain
from mailserver.dkim.canonical import Canonicalization
from mailserver.dkim.results import Outcome
from mailserver.dkim.tags import BadTags, decode_quoted, parse_base64, parse_list, parse_number, parse_tags

#: Octets of a DKIM-Signature field; real ones have less than two thousand, with `z=` some more.
MOST_SIGNATURE = 64 * 1024
#: Names in `h=`; real ones have less than a hundred.
MOST_NAMES = 1_000
#: RFC 1035 2.3.4, without the dot at the end and the octet in front.
_MOST_NAME = 253

_REQUIRED = ("v", "a", "b", "bh", "d", "h", "s")
_ALGORITHM = re.compile(r"([A-Za-z][A-Za-z0-9]*)-([A-Za-z][A-Za-z0-9]*)\Z")
_WORD = re.compile(r"[A-Za-z](?:[A-Za-z0-9-]*[A-Za-z0-9])?\Z")
_FIELD_NAME = re.compile(r"[!-9<-~]+\Z")
# sig-z-tag-copy: a field's name, a colon, anything quoted.
_COPY = re.compile(r"[!-9<-{}~]+[ \t]*:(?:[ \t!-:<>-{}~\u0080-\U0010ffff]|=[0-9A-F]{2})*\Z")

#: k of `a=` -> the types of key that this room knows, and of their only hash.
KEY_TYPES = ("rsa", "ed25519")


class Unusable(ValueError):  # noqa: N818 - named for what the signature is
    """The signature counts for nothing; `outcome` is its result, `str()` the reason."""

    def __init__(self, outcome: Outcome, reason: str) -> None:
        super().__init__(reason)
        self.outcome = outcome


@dataclass(frozen=True, slots=True)
class Signature:
    """
    What a signature claims.

    key_type: one of `KEY_TYPES`; the hash is SHA-256.  signature, body_hash: octets of `b=` and `bh=`.
    domain, selector: lower-case A-labels.  names: of the signed fields, lower case, in the order of hashing.
    identity: of `i=`, decoded, "@domain" when it is not there; identity_domain: its domain in lower-case A-labels.
    length: `l=`, canonical octets.  timestamp, expires: seconds since 1970.  None: not told.
    field: the whole field, as it stands in the message.
    """

    key_type: str
    signature: bytes
    body_hash: bytes
    header_canonicalization: Canonicalization
    body_canonicalization: Canonicalization
    domain: str
    selector: str
    names: tuple[str, ...]
    identity: str
    identity_domain: str
    length: int | None
    timestamp: int | None
    expires: int | None
    field: bytes

    @property
    def key_name(self) -> str:
        """Where the key record is in the DNS (RFC 6376 3.6.2.1)."""
        return f"{self.selector}._domainkey.{self.domain}"

    @property
    def algorithm(self) -> str:
        """As in `a=`."""
        return f"{self.key_type}-sha256"


def tags_of(field: bytes) -> dict[str, str]:
    """The tags of a DKIM-Signature field.  Raises Unusable."""
    if len(field) > MOST_SIGNATURE:
        raise Unusable(Outcome.NEUTRAL, f"the signature field is longer than {MOST_SIGNATURE} octets")
    try:
        return parse_tags(field.partition(b":")[2])
    except BadTags as error:
        raise Unusable(Outcome.NEUTRAL, f"syntax of the signature: {error}") from error


def parse_signature(field: bytes, tags: Mapping[str, str]) -> Signature:
    """
    The signature in a field.

    field: with its name, folds and CRLF.  tags: `tags_of` it.  Raises Unusable.
    """
    _check_version(tags)
    try:
        return _parse(field, tags)
    except BadTags as error:
        raise Unusable(Outcome.NEUTRAL, f"syntax of the signature: {error}") from error


def _check_version(tags: Mapping[str, str]) -> None:
    missing = [tag for tag in _REQUIRED if tag not in tags]
    if missing:
        raise Unusable(Outcome.PERMERROR, f"the signature has no {missing[0]}=")
    if tags["v"] != "1":
        raise Unusable(Outcome.NEUTRAL, "a version of DKIM that is not known")


def _parse(field: bytes, tags: Mapping[str, str]) -> Signature:
    key_type = _key_type(tags["a"])
    header, body = _canonicalizations(tags.get("c", "simple/simple"))
    domain = domain_of(tags)
    identity, identity_domain = _identity(tags.get("i"), domain)
    timestamp = parse_number(tags["t"], 12) if "t" in tags else None
    expires = parse_number(tags["x"], 12) if "x" in tags else None
    if timestamp is not None and expires is not None and expires <= timestamp:
        raise BadTags("it expires before it was made")
    _check_queries(tags.get("q", "dns/txt"))
    _check_copies(tags.get("z"))
    return Signature(
        key_type=key_type,
        signature=parse_base64(tags["b"]),
        body_hash=parse_base64(tags["bh"]),
        header_canonicalization=header,
        body_canonicalization=body,
        domain=domain,
        selector=selector_of(tags, domain),
        names=_names(tags["h"]),
        identity=identity,
        identity_domain=identity_domain,
        length=parse_number(tags["l"], 76) if "l" in tags else None,
        timestamp=timestamp,
        expires=expires,
        field=field,
    )


def _key_type(value: str) -> str:
    match = _ALGORITHM.match(value)
    if match is None:
        raise BadTags("a= is no algorithm")
    if value == "rsa-sha1":
        raise Unusable(Outcome.PERMERROR, "rsa-sha1 is not safe and counts for nothing (RFC 8301)")
    if match[1] not in KEY_TYPES or match[2] != "sha256":
        raise Unusable(Outcome.NEUTRAL, "an algorithm that is not known")
    return match[1]


def _canonicalizations(value: str) -> tuple[Canonicalization, Canonicalization]:
    header, slash, body = value.partition("/")
    if not slash:
        body = "simple"
    if not (_WORD.match(header) and _WORD.match(body)):
        raise BadTags("c= is no canonicalization")
    try:
        return Canonicalization(header), Canonicalization(body)
    except ValueError as error:
        raise Unusable(Outcome.NEUTRAL, "a canonicalization that is not known") from error


def domain_of(tags: Mapping[str, str]) -> str:
    """`d=` in lower-case A-labels.  Raises BadTags; a name of one label is none (RFC 6376 3.5: domain-name)."""
    domain = _labels(tags["d"])
    if "." not in domain:
        raise BadTags("d= is no domain")
    return domain


def selector_of(tags: Mapping[str, str], domain: str) -> str:
    """`s=` in lower-case A-labels, such that the key's name can be asked for.  Raises BadTags."""
    selector = _labels(tags["s"])
    if len(f"{selector}._domainkey.{domain}") > _MOST_NAME:
        raise BadTags("d= and s= are too long for the DNS")
    return selector


def _labels(name: str) -> str:
    if name.endswith(".") or name.startswith("["):
        raise BadTags("a domain or selector is no name")
    try:
        return normal_domain(name)
    except AddressError as error:
        raise BadTags(f"a domain or selector is no name: {error}") from error


def _identity(value: str | None, domain: str) -> tuple[str, str]:
    if value is None:
        return f"@{domain}", domain
    identity = decode_quoted(value)
    at = identity.rfind("@")
    if at < 0:
        raise BadTags("i= has no domain")
    if not identity.isprintable():  # whoever logs it must not be surprised
        raise BadTags("i= has a character that no address has")
    own = _labels(identity[at + 1 :])
    if own != domain and not own.endswith(f".{domain}"):
        raise Unusable(Outcome.PERMERROR, "the domain of i= is neither d= nor below it")
    return identity, own


def _names(value: str) -> tuple[str, ...]:
    names = parse_list(value)
    if len(names) > MOST_NAMES:
        raise Unusable(Outcome.NEUTRAL, f"h= has more than {MOST_NAMES} names")
    if not all(_FIELD_NAME.match(name) for name in names):
        raise BadTags("h= has a name that no field can have")
    names = tuple(name.lower() for name in names)
    if "from" not in names:
        raise Unusable(Outcome.PERMERROR, "the From field is not signed")
    return names


def _check_queries(value: str) -> None:
    if "dns/txt" not in parse_list(value):
        raise Unusable(Outcome.NEUTRAL, "no way to ask for the key that is known")


def _check_copies(value: str | None) -> None:
    """`z=` is for people who look for a mistake; only its form is checked."""
    if value is not None and not all(_COPY.match(copy.strip(" \t")) for copy in value.split("|")):
        raise BadTags("z= is no list of fields")
