"""
Verification: a message goes through, keys are asked for, and each signature gets its result.

In: the message in blocks, cut anywhere; what a resolver answers; the time.  Out: `Verification`.
Failures: none for what a message or a key record holds: every sequence of octets has a result.  A resolver that
raises something else than is agreed (`Resolver`) is heard by the caller.
The work is bounded: header section, number of signatures, of records, of key bits; the body is read once for all
signatures and never held.  Each key is asked for once.
Security: a signature passes only when the From that readers will show is one that it covers; `l=` that leaves a part
of the body open does not pass (`VerifyingOptions`).  What else is doubtful is told in `Result.weaknesses`.

RFC 6376 3.7, 3.9, 6.1, 8.2, 8.15; RFC 8301 (SHA-1, short keys); RFC 8463; RFC 8601 2.7.1 (results).
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import AsyncIterable, Awaitable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeAlias

from mailserver.dkim.canonical import BodyHash, Canonicalization, canonical_field
from mailserver.dkim.fields import MOST_HEADER, FieldSet, HeaderTooLong, MessageSplitter, fields_of
from mailserver.dkim.record import GOOD_BITS, BadRecord, KeyRecord, parse_record
from mailserver.dkim.results import Outcome, Result, Verification, Weakness, short_signature
from mailserver.dkim.signature import Signature, Unusable, domain_of, parse_signature, selector_of, tags_of
from mailserver.dkim.tags import BadTags, without_signature

#: RFC 6376 6.1 allows a limit; mail with more is made to be expensive.
MOST_SIGNATURES = 10
#: Records of one name that are tried (6.1.2, step 4); there should be one.
MOST_RECORDS = 3

#: RFC 5322 3.6: at most once in a message; and the fields of MIME.
_ONCE = frozenset(
    {
        "from", "sender", "reply-to", "to", "cc", "bcc", "message-id", "in-reply-to", "references", "subject", "date",
        "mime-version", "content-type", "content-transfer-encoding", "content-disposition",
    }
)  # fmt: skip

#: A TXT record: its strings, or these joined already.
TXTRecord: TypeAlias = bytes | Sequence[bytes]


class KeyUnavailable(Exception):  # noqa: N818 - named for what the key is
    """The DNS gives no answer now; it may later."""


class Resolver(Protocol):
    """Somebody who asks the DNS."""

    def __call__(self, name: str) -> Awaitable[Sequence[TXTRecord]]:
        """
        The TXT records of a name (A-labels, no dot at the end); an empty sequence when the name or the type is not
        there.  A Deferred is a good answer.

        Raises KeyUnavailable (OSError and TimeoutError count as that too) when nobody can tell now.
        """


@dataclass(frozen=True, slots=True)
class VerifyingOptions:
    """
    signatures: how many of a message are looked at, from the top.  header: octets of a header section.
    partial_bodies: may a signature pass whose `l=` leaves a part of the body open?
    skew: seconds that our clock and the signer's may differ.
    """

    signatures: int = MOST_SIGNATURES
    header: int = MOST_HEADER
    partial_bodies: bool = False
    skew: int = 300


DEFAULT_OPTIONS = VerifyingOptions()
#: What a resolver has answered for a name: its records, or None when it could not tell.
Answers: TypeAlias = Mapping[str, Sequence[TXTRecord] | None]


class Verifier:
    """
    Verifies one message: `write` its blocks, header section first, then `finish`.

    `names` are the key records that are needed; they are known as soon as the header section is whole, so that the
    DNS can be asked while the body flows.  `results` makes a `Verification` of its answers; `finish` does both.
    """

    def __init__(self, options: VerifyingOptions = DEFAULT_OPTIONS) -> None:
        self._options = options
        self._message = MessageSplitter(options.header)
        self._too_long = ""
        self._fields: FieldSet | None = None
        #: Fields that should be there once, and are there more often.
        self._doubled: Mapping[str, int] = {}
        self._malformed = False
        #: In the order of the message: a signature to be verified, or the result of one that cannot be.
        self._found: list[tuple[Signature, Result] | Result] = []
        self._unseen = 0
        self._bodies: dict[Canonicalization, BodyHash] = {}
        self._ended = False

    @property
    def names(self) -> tuple[str, ...]:
        """The names whose TXT records are needed, each once; () also before the header section is whole."""
        wanted = (each[0].key_name for each in self._found if not isinstance(each, Result))
        return tuple(dict.fromkeys(wanted))

    def write(self, block: bytes) -> None:
        """The next block of the message."""
        if self._too_long:
            return
        try:
            body = self._message.write(block)
        except HeaderTooLong as error:
            self._too_long = str(error)
            return
        if self._fields is None and self._message.header is not None:
            self._open(self._message.header)
        if body:
            for each in self._bodies.values():
                each.update(body)

    def end(self) -> None:
        """The message has ended; `names` are complete.  May be called again."""
        if self._ended:
            return
        self._ended = True
        if self._fields is None and not self._too_long:
            try:
                self._open(self._message.finish())
            except HeaderTooLong as error:
                self._too_long = str(error)
        for each in self._bodies.values():
            each.finish()

    def results(self, answers: Answers, *, now: float) -> Verification:
        """
        What came of it, after `end`.

        answers: for each of `names`; one that is missing counts as None.  now: seconds since 1970, the time at which
        the message came.
        """
        self.end()
        if self._too_long:
            return Verification((Result(Outcome.NEUTRAL, self._too_long),))
        return Verification(tuple(self._result(each, answers, now) for each in self._found), self._unseen)

    async def finish(self, resolver: Resolver, *, now: float) -> Verification:
        """The message has ended: ask for the keys, one after the other, and tell the results.  now: see `results`."""
        self.end()
        return self.results({name: await _ask(resolver, name) for name in self.names}, now=now)

    # -- the header section ---------------------------------------------------------------------------------------

    def _open(self, header: bytes) -> None:
        fields = fields_of(header)
        self._fields = FieldSet(fields)
        self._doubled = {name: number for name, number in self._fields.counts.items() if name in _ONCE and number > 1}
        # The first line may be that of an mbox file.
        self._malformed = any(
            not each.name and (at or not each.raw.startswith(b"From ")) for at, each in enumerate(fields)
        )
        signatures = [each for each in fields if each.name == "dkim-signature"]
        most = self._options.signatures
        self._unseen = max(0, len(signatures) - most)
        self._found = [_claim(each.raw) for each in signatures[:most]]
        claims = [each[0] for each in self._found if not isinstance(each, Result)]
        self._bodies = {
            kind: BodyHash(kind, [each.length for each in claims if each.body_canonicalization is kind])
            for kind in Canonicalization
            if any(each.body_canonicalization is kind for each in claims)
        }

    # -- one signature --------------------------------------------------------------------------------------------

    def _result(self, found: tuple[Signature, Result] | Result, answers: Answers, now: float) -> Result:
        if isinstance(found, Result):
            return found
        signature, about = found
        about = replace(about, weaknesses=self._weaknesses(signature))
        records = answers.get(signature.key_name)
        if records is None:
            return replace(about, outcome=Outcome.TEMPERROR, reason="the DNS gave no answer for the key")
        try:
            keys = _keys(signature, records)
        except BadRecord as error:
            return replace(about, outcome=Outcome.PERMERROR, reason=str(error))
        digest = self._header_digest(signature)
        results = [self._judged(signature, key, digest, about, now) for key in keys]
        return next((each for each in results if each.outcome is Outcome.PASS), results[0])

    def _judged(self, signature: Signature, key: KeyRecord, digest: bytes, about: Result, now: float) -> Result:
        weak = (Weakness.SHORT_KEY,) if 0 < key.bits < GOOD_BITS else ()
        about = replace(about, bits=key.bits, testing=key.testing, weaknesses=(*weak, *about.weaknesses))
        if key.exact and signature.identity_domain != signature.domain:
            return replace(about, outcome=Outcome.PERMERROR, reason="the key does not allow i= of another domain")
        if reason := self._mismatch(signature, key, digest):
            # RFC 6376 3.6.1, t=y: as if there were no signature; RFC 8601 has "neutral" for that.
            outcome = Outcome.NEUTRAL if key.testing else Outcome.FAIL
            return replace(about, outcome=outcome, reason=reason)
        if reason := self._unacceptable(signature, now):
            return replace(about, outcome=Outcome.POLICY, reason=reason)
        return replace(about, outcome=Outcome.PASS, reason="")

    def _mismatch(self, signature: Signature, key: KeyRecord, digest: bytes) -> str:
        """Why message and signature do not belong together, or ""."""
        body = self._bodies[signature.body_canonicalization].digest(signature.length)
        if body is None:
            return "the body is shorter than it was when it was signed"
        if body != signature.body_hash:
            return "the body is not the one that was signed"
        if not key.verifies(signature.signature, digest):
            return "the signature does not verify"
        return ""

    def _unacceptable(self, signature: Signature, now: float) -> str:
        """Why a signature that verifies counts for nothing here, or ""."""
        skew = self._options.skew
        if signature.expires is not None and now > signature.expires + skew:
            return "the signature has expired"
        if signature.timestamp is not None and signature.timestamp > now + skew:
            return "the signature was made in the future"
        if self._fields is not None and self._fields.has_bare_newline:
            # A reader that takes it for the end of a line sees a From, or a body, that nobody has signed.
            return "the header section has a bare CR or LF"
        if "from" in self._unsigned(signature):
            return "the message has a From field that is not signed"
        body = self._bodies[signature.body_canonicalization]
        if signature.length is not None and signature.length < body.length and not self._options.partial_bodies:
            return "l= leaves a part of the body open"
        return ""

    def _weaknesses(self, signature: Signature) -> tuple[Weakness, ...]:
        doubtful = (
            (Weakness.BODY_LENGTH, signature.length is not None),
            (Weakness.UNSIGNED_FIELD, bool(self._unsigned(signature))),
            (Weakness.MALFORMED_HEADER, self._malformed),
        )
        return tuple(weakness for weakness, there in doubtful if there)

    def _unsigned(self, signature: Signature) -> frozenset[str]:
        """Names of fields that should be there once, and are there more often than they are signed."""
        if not self._doubled:
            return frozenset()
        signed = Counter(name for name in signature.names if name in self._doubled)
        return frozenset(name for name, number in self._doubled.items() if number > signed[name])

    def _header_digest(self, signature: Signature) -> bytes:
        """SHA-256 of the signed fields and the signature's own (RFC 6376 3.7, step 2)."""
        assert self._fields is not None
        kind = signature.header_canonicalization
        digest = hashlib.sha256()
        for each in self._fields.selected(kind, signature.names):
            digest.update(each)
        own = canonical_field(kind, without_signature(signature.field))
        digest.update(own.removesuffix(b"\r\n"))
        return digest.digest()


def _claim(field: bytes) -> tuple[Signature, Result] | Result:
    """A signature, and what can be told of it before it is verified; a result alone when it is unusable."""
    about = Result(Outcome.NEUTRAL)
    try:
        tags = tags_of(field)
        about = _about(tags)
        signature = parse_signature(field, tags)
    except Unusable as error:
        return replace(about, outcome=error.outcome, reason=str(error))
    return signature, replace(about, identity=signature.identity, algorithm=signature.algorithm)


def _about(tags: Mapping[str, str]) -> Result:
    """Whose signature it is, as far as that can be read."""
    about = Result(Outcome.NEUTRAL, signature=short_signature(tags.get("b", "")))
    try:
        about = replace(about, domain=domain_of(tags))
        about = replace(about, selector=selector_of(tags, about.domain))
    except (BadTags, KeyError):
        return about
    return about


def _keys(signature: Signature, records: Sequence[TXTRecord]) -> list[KeyRecord]:
    """The keys among the records that fit, at least one.  Raises BadRecord: the reason of the first that does not."""
    if not records:
        raise BadRecord("there is no key record")
    keys, first = [], None
    for record in records[:MOST_RECORDS]:
        try:
            key = parse_record(record if isinstance(record, bytes) else b"".join(record))
            if key.key_type != signature.key_type:
                raise BadRecord("the key is of another type than the signature")
        except BadRecord as error:
            first = first or error
        else:
            keys.append(key)
    if not keys:
        assert first is not None
        raise first
    return keys


async def _ask(resolver: Resolver, name: str) -> Sequence[TXTRecord] | None:
    try:
        return await resolver(name)
    except (KeyUnavailable, OSError):
        return None


async def verify(
    message: bytes | Iterable[bytes] | AsyncIterable[bytes],
    resolver: Resolver,
    *,
    now: float,
    options: VerifyingOptions = DEFAULT_OPTIONS,
) -> Verification:
    """
    The results of all signatures of a whole message.

    message: octets, or blocks of them, lines ended by CRLF.  now: seconds since 1970.
    """
    verifier = Verifier(options)
    if isinstance(message, AsyncIterable):
        async for block in message:
            verifier.write(block)
    else:
        for block in (message,) if isinstance(message, bytes) else message:
            verifier.write(block)
    return await verifier.finish(resolver, now=now)
