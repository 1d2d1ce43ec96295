"""
Mailbox addresses and domain names: parse, normalise, compare.

In: text as it stands in a path, a configuration or a database.  Out: `Address`, or `AddressError` with the reason.
The local part is kept as it was written (only quotes are undone); the domain is kept too, and beside it stands its
normal form, lower-case A-labels, which alone is used to compare and to route.

RFC 5321 4.1.2 (grammar), 4.1.3 (literals), 4.5.3.1 (lengths); RFC 6531 3.3 (UTF-8); RFC 5890-5893 (IDNA 2008).
"""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from dataclasses import dataclass, field
from functools import lru_cache

#: RFC 5321 4.5.3.1.1 to 4.5.3.1.3, in octets; 254 is a path of 256 without its angle brackets.
MAX_LOCAL, MAX_DOMAIN, MAX_ADDRESS, MAX_LABEL = 64, 255, 254, 63

# atext of RFC 5322 3.2.3; RFC 6531 3.3 adds UTF8-non-ascii.
_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\-\u0080-\U0010ffff]"
_DOT_STRING = re.compile(rf"{_ATOM}+(?:\.{_ATOM}+)*\Z")
# Nearly every address on the wire: a plain name, a plain domain.  It takes no more than it can say yes to.
_PLAIN_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\-]"
_PLAIN = re.compile(rf"({_PLAIN_ATOM}+(?:\.{_PLAIN_ATOM}+)*)@([A-Za-z0-9._\-]*[A-Za-z0-9_\-])")
# An underscore is no legal host name, yet mail domains with one exist and resolve.
_LABEL = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_\-]*[A-Za-z0-9_])?\Z")


class AddressError(ValueError):
    """The text is no address; `str()` says why, in words that hold nothing of the text itself."""


@dataclass(frozen=True, slots=True, eq=False)
class Address:
    """
    One mailbox.

    local: the local part without quotes, case kept.  domain: as written; "" only for `<postmaster>` (RFC 5321 4.5.1).
    ascii_domain: the domain in its normal form (lower case, A-labels; a literal as "[192.0.2.1]" or "[IPv6:...]").
    Two addresses are equal when their local parts are the same to the letter and their domains the same to the DNS.
    Build it with `parse_address` when the text comes from outside; the constructor only normalises the domain.
    """

    local: str
    domain: str = field(compare=False)
    ascii_domain: str = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "ascii_domain", normal_domain(self.domain) if self.domain else "")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Address):  # an app's addresses are of a class of their own
            return NotImplemented
        return self.local == other.local and self.ascii_domain == other.ascii_domain

    def __hash__(self) -> int:
        return hash((self.local, self.ascii_domain))

    def __str__(self) -> str:
        local = self.local if _DOT_STRING.match(self.local) else quote_local(self.local)
        return f"{local}@{self.domain}" if self.domain else local

    @property
    def key(self) -> str:
        """The address as local mailboxes are looked up: case folded, in NFC, with the normal domain."""
        return f"{fold_local(self.local)}@{self.ascii_domain}"

    @property
    def is_ascii(self) -> bool:
        """True when the address can be sent without SMTPUTF8."""
        return self.local.isascii() and self.domain.isascii()

    def split_detail(self, separator: str) -> tuple[Address, str]:
        """
        `user+detail@domain` -> (`user@domain`, `detail`); detail is "" when there is none, or no separator is set.
        A local part that starts with the separator has no detail.
        """
        if separator and (at := self.local.find(separator)) > 0:
            return Address(self.local[:at], self.domain), self.local[at + len(separator) :]
        return self, ""


def fold_local(local: str) -> str:
    """The form in which our own mailboxes are compared: case folded, in NFC.  Never used for addresses elsewhere."""
    if local.isascii():
        return local.lower()
    # Unicode 3.13, canonical caseless matching: folding a composed letter can give other letters than folding its
    # parts does, and can give a text that is no NFC any more; so it is taken apart before and composed behind.
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", local).casefold())


def quote_local(local: str) -> str:
    """A local part as a Quoted-string (RFC 5321 4.1.2)."""
    return '"' + re.sub(r'(["\\])', r"\\\1", local) + '"'


@lru_cache(maxsize=4096)
def normal_domain(domain: str) -> str:
    """
    The form of a domain in which it is compared, routed and stored: lower-case A-labels, no trailing dot.

    Raises AddressError when it is no domain name and no address literal.
    """
    if domain.startswith("["):
        return _normal_literal(domain)
    name = domain.removesuffix(".")
    if not 0 < len(name) <= MAX_DOMAIN:
        raise AddressError("domain is empty or longer than 255 octets")
    if not name.isascii():
        name = _to_a_labels(name)
    name = name.lower()
    for label in name.split("."):
        if len(label) > MAX_LABEL or not _LABEL.match(label):
            raise AddressError("domain has a label that is empty, too long or has a character that is not allowed")
    return name


def _to_a_labels(name: str) -> str:
    # idna comes with Twisted's TLS support; IDNA 2008 with the mapping of UTS 46, as browsers do.
    import idna

    try:  # it also refuses what is too long once it is A-labels
        return idna.encode(unicodedata.normalize("NFC", name), uts46=True).decode("ascii")
    except (idna.IDNAError, UnicodeError) as error:
        raise AddressError("domain is not a valid internationalised name") from error


def _normal_literal(literal: str) -> str:
    if not literal.endswith("]"):
        raise AddressError("address literal without its closing bracket")
    inside = literal[1:-1]
    try:
        if inside[:5].lower() == "ipv6:":
            if "%" in inside:
                raise AddressError("address literal with a zone")
            return f"[IPv6:{ipaddress.IPv6Address(inside[5:])}]"
        return f"[{ipaddress.IPv4Address(inside)}]"
    except ipaddress.AddressValueError as error:
        raise AddressError("address literal is neither IPv4 nor IPv6") from error


def parse_address(text: str, *, utf8: bool = True, need_domain: bool = True) -> Address:
    """
    The address that `text` ("local@domain", no angle brackets, no source route) stands for.

    utf8: may it hold characters beyond ASCII (RFC 6531)?  need_domain: False also takes "postmaster" alone.
    Raises AddressError: the reason, without the text.
    """
    if len(text) <= MAX_ADDRESS and (plain := _PLAIN.fullmatch(text)) is not None:
        local, domain = plain.groups()
        if len(local) <= MAX_LOCAL:
            return Address(local, domain)
    if not utf8 and not text.isascii():
        raise AddressError("characters beyond ASCII are not allowed here")
    # Before all else: what follows takes time in proportion, and that is now bounded.
    if _octets(text) > MAX_ADDRESS:
        raise AddressError("address is longer than 254 octets")
    local, rest = _take_local(text)
    if not local:
        raise AddressError("local part is empty")
    if not rest:
        if need_domain or local.lower() != "postmaster":
            raise AddressError("domain is missing")
        return Address(local, "")
    domain = rest[1:]
    if not domain:
        raise AddressError("domain is missing")
    if domain.endswith("."):
        raise AddressError("domain ends with a dot")
    if _octets(local) > MAX_LOCAL:
        raise AddressError("local part is longer than 64 octets")
    return Address(local, domain)


def _octets(text: str) -> int:
    try:
        return len(text.encode())
    except UnicodeEncodeError as error:
        # Half a surrogate pair; such a text cannot come from the wire, but it can from JSON or a file name.
        raise AddressError("a character that has no UTF-8 form") from error


def _take_local(text: str) -> tuple[str, str]:
    """The local part without its quotes, and what follows it: "" or "@domain"."""
    if text.startswith('"'):
        local, end = _unquote(text)
        rest = text[end:]
        if rest and not rest.startswith("@"):
            raise AddressError("something stands between the quoted local part and the at sign")
        return local, rest
    local, at, domain = text.partition("@")
    # RFC 821 allowed quoted pairs outside quotes (`\G\o\d@...`); old senders use it, and it means nothing else.
    if "\\" in local:
        local = re.sub(r"\\([ -~])", r"\1", local)
    if local and not _DOT_STRING.match(local):
        raise AddressError("local part has a character that is not allowed, or a dot in the wrong place")
    if _has_control(local):
        raise AddressError("local part has a control character")
    return local, at + domain


def _unquote(text: str) -> tuple[str, int]:
    """The content of the Quoted-string that `text` starts with, and the index behind its closing quote."""
    content: list[str] = []
    at = 1
    while at < len(text):
        character = text[at]
        if character == '"':
            return "".join(content), at + 1
        if character == "\\":  # quoted-pairSMTP: a backslash and any printable ASCII character or blank
            at += 1
            character = text[at : at + 1]
            if not character or not " " <= character <= "~":
                raise AddressError("quoted local part with a bad escape")
        elif character < " " or _has_control(character):
            raise AddressError("quoted local part with a control character")
        content.append(character)
        at += 1
    raise AddressError("quoted local part without its closing quote")


def _has_control(text: str) -> bool:
    return not text.isprintable() and any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in text)
