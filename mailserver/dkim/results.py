"""
What came of the signatures of a message, as values, and as the text of an Authentication-Results field.

In: `Result`, one for each signature that was looked at.  Out: the words of RFC 8601; a field that can be put on top.
Failures: ValueError for an authserv-id that is no name.
Security: what the signer wrote gets into the field only as a domain name, as base64, or as a quoted string of
printable ASCII; so no signature can begin a line, a result or a comment of its own.  Whoever adds the field must
take away those of the same authserv-id that came with the message (RFC 8601 5).

RFC 8601 2.2 (grammar), 2.7.1 (results of DKIM), 5; RFC 6008 (`header.b`); RFC 6376 3.6.1 (t=y), 3.9.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from mailserver.address import normal_domain

#: RFC 6008 4: so many octets of `b=` at least, to tell signatures apart.
_LEAST_SIGNATURE = 8
#: RFC 5321 4.5.3.1.1.
_MOST_LOCAL = 64
# `value` of RFC 8601 2.2 is a token as MIME has it; what is none gets quotes.
_TOKEN = re.compile(r"[!#$%&'*+.0-9A-Z^_`a-z{|}~-]+\Z")
_DOT_ATOM = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*\Z")


class Outcome(StrEnum):
    """
    The results of RFC 8601 2.7.1.

    PASS: it verifies.  FAIL: mail and signature do not match.  NEUTRAL: it cannot be read, or uses what is not known.
    PERMERROR: no key, or one that cannot be used; a rule is broken.  TEMPERROR: the key could not be asked for now.
    POLICY: it may be right, and is not acceptable here.
    """

    PASS = "pass"  # noqa: S105 - a word of RFC 8601, no password
    FAIL = "fail"
    NEUTRAL = "neutral"
    PERMERROR = "permerror"
    TEMPERROR = "temperror"
    POLICY = "policy"


class Weakness(StrEnum):
    """What is worth knowing of a signature, also of one that passes."""

    #: An RSA key below 2048 bits (RFC 8301 3.2).
    SHORT_KEY = "short-key"
    #: `l=`: others may add to the body (RFC 6376 8.2).
    BODY_LENGTH = "body-length"
    #: A field that may be there once only is there more often than it is signed (RFC 6376 8.15).
    UNSIGNED_FIELD = "unsigned-field"
    #: The header section has a line that is no field: readers may take what follows it for the body.
    MALFORMED_HEADER = "malformed-header"


@dataclass(frozen=True, slots=True)
class Result:
    """
    One signature.

    outcome: see `Outcome`.  reason: why, in words of our own, "" when it passes.
    domain, selector: `d=` and `s=` in lower-case A-labels, identity: `i=` decoded; "" when they could not be read.
    algorithm: `a=` when it is one that is known, else "".  bits: of an RSA key; 0 when it is another, or none was
    seen. testing: the key record says t=y: the signer wants such mail to be treated as mail without a signature.
    signature: the first characters of `b=`, to tell signatures apart.
    """

    outcome: Outcome
    reason: str = ""
    domain: str = ""
    selector: str = ""
    identity: str = ""
    algorithm: str = ""
    bits: int = 0
    testing: bool = False
    weaknesses: tuple[Weakness, ...] = ()
    signature: str = ""

    @property
    def text(self) -> str:
        """The result as a resinfo of RFC 8601 2.2, without the semicolon, on one line of printable ASCII."""
        return " ".join(self.words)

    @property
    def words(self) -> tuple[str, ...]:
        """The parts of `text`, between which a line may be folded."""
        parts = [f"dkim={self.outcome}"]
        reason = ", ".join([*([self.reason] if self.reason else []), *(["testing"] if self.testing else [])])
        if reason:
            parts.append(f"reason={_quoted(reason)}")
        if self.domain:
            parts.append(f"header.d={self.domain}")
        if identity := self._identity():
            parts.append(f"header.i={identity}")
        parts += [
            f"header.{name}={_value(text)}"
            for name, text in (("s", self.selector), ("a", self.algorithm), ("b", self.signature))
            if text
        ]
        return tuple(parts)

    def _identity(self) -> str:
        local, at, domain = self.identity.rpartition("@")
        if not at:
            return ""
        try:
            domain = normal_domain(domain)
        except ValueError:
            return ""
        if len(local) > _MOST_LOCAL or not (local.isascii() and (local.isprintable() or not local)):
            local = ""  # the domain is what counts, and it is safe
        if local and not _DOT_ATOM.match(local):
            local = _quoted(local)
        return f"{local}@{domain}"


@dataclass(frozen=True, slots=True)
class Verification:
    """
    A message.  results: of the signatures in their order from the top; () when it has none.
    unseen: further signatures that were not looked at, as there were too many.
    """

    results: tuple[Result, ...] = ()
    unseen: int = 0

    @property
    def domains(self) -> frozenset[str]:
        """The domains that answer for the message: `d=` of what passes, without keys that are being tested."""
        return frozenset(
            result.domain for result in self.results if result.outcome is Outcome.PASS and not result.testing
        )

    def authentication_results(self, authserv_id: str) -> bytes:
        """
        The field Authentication-Results, with its folds and CRLF, in ASCII.

        authserv_id: the name under which this server reports, usually its host name.  Raises ValueError
        (AddressError).
        """
        lines = [f"Authentication-Results: {normal_domain(authserv_id)};"]
        infos = [result.words for result in self.results] or [("dkim=none",)]
        for number, words in enumerate(infos, start=1):
            words = (*words[:-1], words[-1] + (";" if number < len(infos) else ""))
            lines += _folded(words)
        return "".join(f"{line}\r\n" for line in lines).encode("ascii")


def _folded(words: tuple[str, ...]) -> list[str]:
    lines = [f"\t{words[0]}"]
    for word in words[1:]:
        if len(lines[-1]) + 1 + len(word) > 78:
            lines.append(f"\t {word}")
        else:
            lines[-1] += f" {word}"
    return lines


def short_signature(text: str) -> str:
    """What of the text of `b=` tells this signature from others; "" when there is nothing that can be shown."""
    text = re.sub(r"[ \t]+", "", text[: _LEAST_SIGNATURE * 4])
    return text[:_LEAST_SIGNATURE] if text.isascii() and text.isprintable() else ""


def _value(text: str) -> str:
    return text if _TOKEN.match(text) else _quoted(text)


def _quoted(text: str) -> str:
    """A quoted-string of printable ASCII; what is neither becomes a question mark."""
    safe = re.sub(r"[^ -~]", "?", text)
    return '"' + re.sub(r'(["\\])', r"\\\1", safe) + '"'
