"""
Signing: a message goes through, and its DKIM-Signature fields come out, to be put on top.

In: `SigningOptions`, one for each signature; the message in blocks, cut anywhere.  Out: the fields, as octets.
Failures: `Unsignable` for a message whose header section nobody should answer for; ValueError for options.
The body is read once for all signatures and never held.  The message must be as it will be sent: CRLF at line ends,
no dots doubled, and nothing changed behind this (RFC 6376 5.3).
Security: a header section that two readers could read in two ways is not signed.  Fields of the core list are signed
once more than they are there ("oversigned"), so that nobody can add one (5.4, 8.15).  `l=` is never written (8.2).
All of a field comes from checked options, base64 and numbers.

RFC 6376 3.5, 3.7, 5; RFC 8301; RFC 8463; RFC 8058 4 (List-Unsubscribe-Post must be signed).
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from mailserver.address import normal_domain
from mailserver.dkim.canonical import BodyHash, Canonicalization, canonical_field
from mailserver.dkim.fields import FieldSet, HeaderTooLong, MessageSplitter, fields_of
from mailserver.dkim.keys import PrivateKey
from mailserver.dkim.tags import encode_quoted

#: Signed as often as they are there: RFC 6376 5.4.1, the fields of MIME, and those that mail programs act on.
SIGNED = (
    "from", "sender", "reply-to", "subject", "date", "message-id", "to", "cc", "in-reply-to", "references",
    "mime-version", "content-type", "content-transfer-encoding", "content-disposition", "content-id",
    "content-description",
    "resent-date", "resent-from", "resent-sender", "resent-to", "resent-cc", "resent-message-id",
    "list-id", "list-help", "list-unsubscribe", "list-unsubscribe-post", "list-subscribe", "list-post", "list-owner",
    "list-archive",
)  # fmt: skip
#: Signed once more than they are there.  Not Sender and the List fields: a list may add those and break nothing else.
OVERSIGNED = (
    "from", "reply-to", "subject", "date", "message-id", "to", "cc", "in-reply-to", "references", "mime-version",
    "content-type", "content-transfer-encoding",
)  # fmt: skip
#: Never signed: taken away or changed on the way (RFC 6376 5.4), or signed by themselves (3.5).
_NEVER = frozenset({"return-path", "bcc", "dkim-signature"})

_FIELD_NAME = re.compile(r"[!-9<-~]+\Z")
#: RFC 5322 2.1.1: columns of a line.
_COLUMNS = 78
_MOST_NAME = 253
#: Seconds, some 300 years: `t=` and `x=` have at most twelve digits.
_MOST_LIFETIME = 10**10


class Unsignable(ValueError):  # noqa: N818 - named for what the message is
    """The message cannot be signed; `str()` says why, in words that hold nothing of it."""


@dataclass(frozen=True, slots=True)
class SigningOptions:
    """
    One signature.

    domain: `d=`; selector: `s=`; both are brought into lower-case A-labels.  key: whose record is published there.
    headers: names of the fields that are signed, as often as they are there.  oversigned: those that are signed once
    more than they are there, also when they are not there at all.  From is always in both.
    identity: `i=`, "local@domain" or "@domain", of the domain or one below it; None leaves it out.
    lifetime: seconds until it expires (`x=`); None for never.  Raises ValueError.
    """

    domain: str
    selector: str
    key: PrivateKey
    headers: Sequence[str] = SIGNED
    oversigned: Sequence[str] = OVERSIGNED
    header_canonicalization: Canonicalization = Canonicalization.RELAXED
    body_canonicalization: Canonicalization = Canonicalization.RELAXED
    identity: str | None = None
    lifetime: int | None = None

    def __post_init__(self) -> None:
        # Brought into one form and checked once, not for each message.
        set_field = object.__setattr__
        set_field(self, "domain", _domain(self.domain))
        set_field(self, "selector", _labels(self.selector, "selector"))
        set_field(self, "header_canonicalization", Canonicalization(self.header_canonicalization))
        set_field(self, "body_canonicalization", Canonicalization(self.body_canonicalization))
        if len(f"{self.selector}._domainkey.{self.domain}") > _MOST_NAME:
            raise ValueError("domain and selector are too long together for the DNS")
        if isinstance(self.headers, str) or isinstance(self.oversigned, str):
            raise ValueError("headers and oversigned are lists of names")  # noqa: TRY004 - as for all that is wrong here
        set_field(self, "oversigned", _names(("from", *self.oversigned)))
        set_field(self, "headers", _names(("from", *self.headers, *self.oversigned)))
        if self.lifetime is not None and not 1 <= self.lifetime <= _MOST_LIFETIME:
            raise ValueError(f"lifetime is 1 to {_MOST_LIFETIME} seconds")
        if self.identity is not None:
            _check_identity(self.identity, self.domain)


def _labels(name: str, what: str) -> str:
    if name.startswith("["):
        raise ValueError(f"{what} is a literal, not a name")
    return normal_domain(name)


def _domain(name: str) -> str:
    domain = _labels(name, "domain")
    if "." not in domain:
        raise ValueError("domain has only one label (RFC 6376 3.5, d=)")
    return domain


def _names(names: Sequence[str]) -> tuple[str, ...]:
    lowered = tuple(dict.fromkeys(name.lower() for name in names))
    for name in lowered:
        if not _FIELD_NAME.match(name):
            raise ValueError("headers has what is no name of a field")
        if name in _NEVER:
            raise ValueError(f"{name} is not to be signed (RFC 6376 5.4)")
    return lowered


def _check_identity(identity: str, domain: str) -> None:
    _, at, own = identity.rpartition("@")
    if not at:
        raise ValueError('identity has no "@"')
    if not identity.isprintable():
        raise ValueError("identity has a character that cannot be printed")
    own = _labels(own, "identity")
    if own != domain and not own.endswith(f".{domain}"):
        raise ValueError("identity is neither of the domain nor of one below it (RFC 6376 3.5, i=)")


class Signer:
    """
    Signs one message: `write` its blocks, header section first, then `finish`.

    options: one for each signature; their fields come out in this order.
    now: seconds since 1970, for `t=`; None leaves it out, which `lifetime` does not allow (ValueError).
    """

    def __init__(self, options: Sequence[SigningOptions], *, now: int | None) -> None:
        if now is not None and not 0 <= now < 10**11:
            raise ValueError("now is in seconds since 1970")
        if now is None and any(each.lifetime is not None for each in options):
            raise ValueError("a lifetime needs the time from which it is counted")
        self._options = tuple(options)
        self._now = None if now is None else int(now)
        self._message = MessageSplitter()
        self._fields: FieldSet | None = None
        self._bodies = {kind: BodyHash(kind) for kind in {each.body_canonicalization for each in options}}

    def write(self, block: bytes) -> None:
        """The next block of the message.  Raises Unsignable as soon as the header section shows to be that."""
        try:
            body = self._message.write(block)
        except HeaderTooLong as error:
            raise Unsignable(str(error)) from error
        if self._fields is None and self._message.header is not None:
            self._fields = _checked(self._message.header)
        if body:
            for each in self._bodies.values():
                each.update(body)

    def finish(self) -> bytes:
        """
        The message has ended: the DKIM-Signature fields, each with its folds and CRLF, to be put in front of it.

        Raises Unsignable.  Once only.
        """
        if self._fields is None:
            try:
                self._fields = _checked(self._message.finish())
            except HeaderTooLong as error:
                raise Unsignable(str(error)) from error
        for each in self._bodies.values():
            each.finish()
        return b"".join(self._sign(each, self._fields) for each in self._options)

    def _sign(self, options: SigningOptions, fields: FieldSet) -> bytes:
        kind = options.header_canonicalization
        names = _names_to_sign(options, fields.counts)
        body_hash = self._bodies[options.body_canonicalization].digest()
        assert body_hash is not None
        text = _field_text(options, names, body_hash, self._now).encode("ascii")
        digest = hashlib.sha256()
        for each in fields.selected(kind, names):
            digest.update(each)
        digest.update(canonical_field(kind, text).removesuffix(b"\r\n"))
        return text + _folded_base64(options.key.sign(digest.digest())) + b"\r\n"


def sign(message: bytes | Iterable[bytes], *options: SigningOptions, now: int | None) -> bytes:
    """
    The DKIM-Signature fields of a whole message, to be put in front of it: `sign(mail, ...) + mail`.

    message: octets, or blocks of them.  now: see `Signer`.  Raises Unsignable.
    """
    signer = Signer(options, now=now)
    for block in (message,) if isinstance(message, bytes) else message:
        signer.write(block)
    return signer.finish()


def _checked(header: bytes) -> FieldSet:
    """The fields, when all readers would read the same ones."""
    fields = FieldSet(fields_of(header))
    if fields.has_bare_newline:
        raise Unsignable("the header section has a bare CR or LF")
    if not all(each.name for each in fields.fields):
        raise Unsignable("the header section has a line that is no field")
    authors = fields.counts.get("from", 0)
    if authors != 1:
        raise Unsignable(
            "the message has no From field" if not authors else "the message has more than one From field"
        )
    return fields


def _names_to_sign(options: SigningOptions, there: Mapping[str, int]) -> tuple[str, ...]:
    """The names of `h=`: each as often as it is there, once more if oversigned."""
    oversigned = frozenset(options.oversigned)
    return tuple(name for name in options.headers for _ in range(there.get(name, 0) + (name in oversigned)))


def _field_text(options: SigningOptions, names: Sequence[str], body_hash: bytes, now: int | None) -> str:
    """The field up to the `b=` whose value is to come."""
    kinds = f"{options.header_canonicalization}/{options.body_canonicalization}"
    tags = ["v=1", f"a={options.key.algorithm}", f"c={kinds}", f"d={options.domain}", f"s={options.selector}"]
    if now is not None:
        tags.append(f"t={now}")
    if options.lifetime is not None:
        assert now is not None
        tags.append(f"x={now + options.lifetime}")
    if options.identity is not None:
        local, _, domain = options.identity.rpartition("@")
        tags.append(f"i={encode_quoted(local)}@{normal_domain(domain)}")
    lines = ["DKIM-Signature:"]
    for tag in tags:
        _append(lines, f" {tag};")
    lines.append("\th=")
    for position, name in enumerate(names):
        _append(lines, name if position == 0 else f":{name}")
    lines[-1] += ";"
    lines.append(f"\tbh={base64.b64encode(body_hash).decode('ascii')};")
    lines.append("\tb=")
    return "\r\n".join(lines)


def _append(lines: list[str], word: str) -> None:
    """At the end of the last line, or on one of its own; a blank may stand in front of each word of these lists."""
    if len(lines[-1]) + len(word) > _COLUMNS - 1:  # one is for the semicolon behind the last name
        lines.append("\t" + word.lstrip(" "))
    else:
        lines[-1] += word


def _folded_base64(octets: bytes) -> bytes:
    text = base64.b64encode(octets)
    first = _COLUMNS - len("        b=")  # a tab is eight columns wide at most
    lines = [text[:first], *(text[at : at + first] for at in range(first, len(text), first))]
    return b"\r\n\t".join(lines)
