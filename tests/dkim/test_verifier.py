"""Verification: the vectors of the RFCs, each rule with its result, and that any octets have a result."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import itertools
from collections.abc import AsyncIterator, Sequence
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet import defer
from twisted.trial.unittest import SynchronousTestCase

from mailserver.dkim import (
    KeyUnavailable,
    Outcome,
    Result,
    SigningOptions,
    Verification,
    Verifier,
    VerifyingOptions,
    Weakness,
    sign,
    verify,
)
from mailserver.dkim.canonical import BodyHash, Canonicalization
from mailserver.dkim.fields import FieldSet, fields_of
from mailserver.dkim.signer import _field_text
from mailserver.dkim.verifier import MOST_RECORDS, MOST_SIGNATURES, TXTRecord
from tests.dkim.vectors import BRISBANE, ED25519, MESSAGE_6376, MESSAGE_8463, PLAIN, RECORDS, RSA, result_of

NOW = 1_528_637_909
NAME = "s._domainkey.example.com"
OPTIONS = SigningOptions("example.com", "s", ED25519)
RECORD = ED25519.record
#: Signed by OPTIONS.
SIGNED = sign(PLAIN, OPTIONS, now=NOW) + PLAIN


class Zone:
    """A resolver that knows some names, and keeps in mind what it was asked."""

    def __init__(self, records: dict[str, Any]) -> None:
        self.records = records
        self.asked: list[str] = []

    async def __call__(self, name: str) -> Sequence[TXTRecord]:
        self.asked.append(name)
        answer = self.records.get(name, [])
        if isinstance(answer, Exception):
            raise answer
        return [record.encode() if isinstance(record, str) else record for record in answer]


def verification(message: bytes, *records: Any, now: float = NOW, **options: Any) -> Verification:
    zone = Zone({NAME: list(records) or [RECORD]})
    return result_of(verify(message, zone, now=now, options=VerifyingOptions(**options)))


def one(message: bytes, *records: Any, now: float = NOW, **options: Any) -> Result:
    [result] = verification(message, *records, now=now, **options).results
    return result


def crafted(
    message: bytes = PLAIN, *, add: str = "", names: str = "", length: int | None = None, **changes: Any
) -> bytes:
    """
    The message with a signature that our signer would not make: further tags, other names in `h=`, a body length.
    """
    options = dataclasses.replace(
        OPTIONS, header_canonicalization="simple", body_canonicalization="simple", **changes
    )
    header, _, rest = message.partition(b"\r\n\r\n")
    body = BodyHash(Canonicalization.SIMPLE, [length])
    body.update(rest)
    body.finish()
    listed = tuple((names or "from:to:subject").split(":"))
    text = _field_text(options, listed, body.digest(length) or b"?", NOW)
    if length is not None:
        add += f" l={length};"
    text = text.replace("\r\n\tb=", f"\r\n\t{add.strip()}\r\n\tb=") if add else text
    fields = FieldSet(fields_of(header + b"\r\n"))
    octets = b"".join(fields.selected(Canonicalization.SIMPLE, listed)) + text.encode()
    signature = options.key.sign(hashlib.sha256(octets).digest())
    return text.encode() + base64.b64encode(signature) + b"\r\n" + message


class VectorsTests(SynchronousTestCase):
    def results(self, message: bytes) -> list[tuple[Outcome, str, str]]:
        found = result_of(verify(message, Zone(RECORDS), now=NOW)).results
        return [(each.outcome, each.algorithm, each.identity) for each in found]

    def test_rfc_6376_appendix_a(self) -> None:
        self.assertEqual(self.results(MESSAGE_6376), [(Outcome.PASS, "rsa-sha256", "joe@football.example.com")])

    def test_rfc_6376_appendix_a_after_a_relay_has_added_a_field(self) -> None:
        received = b"Received: from mout23.football.example.com (192.168.1.1)\r\n\tby shopping.example.net\r\n"
        self.assertEqual(self.results(received + MESSAGE_6376)[0][0], Outcome.PASS)

    def test_rfc_8463_appendix_a(self) -> None:
        self.assertEqual(
            self.results(MESSAGE_8463),
            [
                (Outcome.PASS, "ed25519-sha256", "@football.example.com"),
                (Outcome.PASS, "rsa-sha256", "@football.example.com"),
            ],
        )

    def test_each_change_of_an_octet_is_noticed(self) -> None:
        start = MESSAGE_6376.index(b"Received:")
        for at in range(start, len(MESSAGE_6376), 7):
            changed = bytearray(MESSAGE_6376)
            changed[at] ^= 1
            for outcome, _, _ in self.results(bytes(changed)):
                self.assertNotEqual(outcome, Outcome.PASS, at)


#: text in SIGNED, what it becomes, outcome, a part of the reason
CHANGES = [
    (b"We lost", b"We won", Outcome.FAIL, "the body"),
    (b"Joe.\r\n", b"Joe.\r\nmore\r\n", Outcome.FAIL, "the body"),
    (b"Subject: Is", b"Subject: Was", Outcome.FAIL, "does not verify"),
    (b"Subject: Is dinner ready?\r\n", b"", Outcome.FAIL, "does not verify"),
    (b"\tt=1", b"\tt=2", Outcome.FAIL, "does not verify"),
    (b"h=from:from", b"h=from", Outcome.FAIL, "does not verify"),
    (b"v=1;", b"v=1; y=z;", Outcome.FAIL, "does not verify"),
    (b"We lost the game.  Are", b"We lost the game. \t Are", Outcome.PASS, ""),
    (b"Joe.\r\n", b"Joe. \t\r\n\r\n\r\n", Outcome.PASS, ""),
    (b"Subject: Is dinner", b"SUBJECT:   Is\r\n\tdinner", Outcome.PASS, ""),
    (b"From: Joe", b"Received: by x\r\nX-Spam: no\r\nFrom: Joe", Outcome.PASS, ""),
    (b"; d=", b";   d=", Outcome.PASS, ""),
]

#: record, outcome, a part of the reason
BAD_KEYS = [
    (RECORD.replace("p=", "p=;n="), Outcome.PERMERROR, "revoked"),
    ("v=spf1 -all", Outcome.PERMERROR, "version"),
    (BRISBANE.record, Outcome.PERMERROR, "another type"),
    (RECORD.replace("k=", "h=sha1; k="), Outcome.PERMERROR, "SHA-256"),
    (RECORD.replace("k=", "s=other; k="), Outcome.PERMERROR, "not for mail"),
    ("v=DKIM1; k=ed25519; p=" + "A" * 43 + "=", Outcome.FAIL, "does not verify"),
    ([RECORD[:30].encode(), RECORD[30:].encode()], Outcome.PASS, ""),
    ([RECORD.encode(), b";"], Outcome.PASS, ""),
]


class OutcomesTests(SynchronousTestCase):
    def test_what_happens_to_a_message_on_its_way(self) -> None:
        for old, new, outcome, reason in CHANGES:
            self.assertIn(old, SIGNED)
            result = one(SIGNED.replace(old, new, 1))
            self.assertEqual(result.outcome, outcome, new)
            self.assertIn(reason, result.reason, new)

    def test_keys(self) -> None:
        for record, outcome, reason in BAD_KEYS:
            result = one(SIGNED, record)
            self.assertEqual(result.outcome, outcome, record)
            self.assertIn(reason, result.reason, record)

    def test_a_result_tells_whose_signature_it_is(self) -> None:
        self.assertEqual(
            one(SIGNED),
            Result(
                Outcome.PASS,
                domain="example.com",
                selector="s",
                identity="@example.com",
                algorithm="ed25519-sha256",
                signature=one(SIGNED).signature,
            ),
        )
        self.assertEqual(len(one(SIGNED).signature), 8)

    def test_also_when_it_cannot_be_used(self) -> None:
        result = one(SIGNED.replace(b"a=ed25519-sha256", b"a=rsa-sha1"))
        self.assertEqual((result.outcome, result.domain, result.selector), (Outcome.PERMERROR, "example.com", "s"))

    def test_unusable_signatures_ask_for_no_key(self) -> None:
        zone = Zone({})
        result_of(verify(SIGNED.replace(b"v=1", b"v=2"), zone, now=NOW))
        self.assertEqual(zone.asked, [])

    def test_no_signature_no_result(self) -> None:
        self.assertEqual(verification(PLAIN), Verification())
        self.assertEqual(verification(b""), Verification())

    def test_keys_of_less_than_2048_bits_are_told(self) -> None:
        message = sign(PLAIN, SigningOptions("example.com", "s", RSA), now=NOW) + PLAIN
        result = one(message, RSA.record)
        self.assertEqual(
            (result.outcome, result.bits, result.weaknesses), (Outcome.PASS, 1024, (Weakness.SHORT_KEY,))
        )

    def test_unknown_tags_are_signed_and_ignored(self) -> None:
        self.assertEqual(one(crafted(add="y=z;")).outcome, Outcome.PASS)

    def test_missing_fields_stand_for_nothing(self) -> None:
        self.assertEqual(one(crafted(names="from:x-nothing:subject:x-nothing:from")).outcome, Outcome.PASS)


class KeysTests(SynchronousTestCase):
    def test_no_record(self) -> None:
        result = result_of(verify(SIGNED, Zone({}), now=NOW)).results[0]
        self.assertEqual((result.outcome, result.reason), (Outcome.PERMERROR, "there is no key record"))

    def test_no_answer_is_temporary(self) -> None:
        for error in (KeyUnavailable(), OSError(), TimeoutError()):
            result = result_of(verify(SIGNED, Zone({NAME: error}), now=NOW)).results[0]
            self.assertEqual((result.outcome, result.domain), (Outcome.TEMPERROR, "example.com"))

    def test_other_errors_of_the_resolver_are_heard(self) -> None:
        self.assertRaises(ZeroDivisionError, result_of, verify(SIGNED, Zone({NAME: ZeroDivisionError()}), now=NOW))

    def test_one_of_several_records_may_fit(self) -> None:
        self.assertEqual(one(SIGNED, "v=spf1 -all", RECORD).outcome, Outcome.PASS)
        wrong = "v=DKIM1; k=ed25519; p=" + "A" * 43 + "="
        self.assertEqual(one(SIGNED, wrong, RECORD).outcome, Outcome.PASS)
        self.assertEqual(one(SIGNED, *["v=spf1 -all"] * (MOST_RECORDS - 1), RECORD).outcome, Outcome.PASS)
        self.assertEqual(one(SIGNED, *["v=spf1 -all"] * MOST_RECORDS, RECORD).outcome, Outcome.PERMERROR)

    def test_each_name_is_asked_for_once(self) -> None:
        zone = Zone({NAME: [RECORD]})
        message = sign(PLAIN, *[OPTIONS] * 3, now=NOW) + PLAIN
        self.assertEqual(
            [each.outcome for each in result_of(verify(message, zone, now=NOW)).results], [Outcome.PASS] * 3
        )
        self.assertEqual(zone.asked, [NAME])

    def test_a_deferred_is_an_answer(self) -> None:
        waiting: defer.Deferred[list[bytes]] = defer.Deferred()
        done = defer.Deferred.fromCoroutine(verify(SIGNED, lambda _name: waiting, now=NOW))
        self.assertNoResult(done)
        waiting.callback([RECORD.encode()])
        self.assertEqual(self.successResultOf(done).results[0].outcome, Outcome.PASS)

    def test_blocks_may_come_one_by_one_and_later(self) -> None:
        async def blocks() -> AsyncIterator[bytes]:
            for at in range(0, len(SIGNED), 50):
                yield SIGNED[at : at + 50]

        found = result_of(verify(blocks(), Zone({NAME: [RECORD]}), now=NOW))
        self.assertEqual(found, verification(SIGNED))
        self.assertEqual(found.domains, {"example.com"})

    def test_names_are_known_before_the_body_and_answers_may_come_from_elsewhere(self) -> None:
        verifier = Verifier()
        header, _, body = SIGNED.partition(b"\r\n\r\n")
        verifier.write(header)
        self.assertEqual(verifier.names, ())
        verifier.write(b"\r\n\r\n")
        self.assertEqual(verifier.names, (NAME,))
        verifier.write(body)
        for answers, outcome in (({NAME: [RECORD.encode()]}, Outcome.PASS), ({}, Outcome.TEMPERROR)):
            self.assertEqual(verifier.results(answers, now=NOW).results[0].outcome, outcome)


class IdentityTests(SynchronousTestCase):
    """RFC 6376 3.10 and t=s of 3.6.1."""

    def test_subdomains_are_allowed_unless_the_key_says_no(self) -> None:
        for identity, record, outcome in [
            ("joe@example.com", RECORD, Outcome.PASS),
            ("joe@example.com", RECORD + "; t=s", Outcome.PASS),
            ("joe@eng.example.com", RECORD, Outcome.PASS),
            ("joe@eng.example.com", RECORD + "; t=s", Outcome.PERMERROR),
        ]:
            message = sign(PLAIN, dataclasses.replace(OPTIONS, identity=identity), now=NOW) + PLAIN
            result = one(message, record)
            self.assertEqual((result.outcome, result.identity), (outcome, identity), record)


class TestingTests(SynchronousTestCase):
    """t=y (RFC 6376 3.6.1): as if there were no signature."""

    RECORD = RECORD + "; t=y"

    def test_a_failure_is_neutral(self) -> None:
        result = one(SIGNED.replace(b"lost", b"won"), self.RECORD)
        self.assertEqual((result.outcome, result.testing), (Outcome.NEUTRAL, True))

    def test_a_pass_is_told_and_counts_for_nothing(self) -> None:
        found = verification(SIGNED, self.RECORD)
        self.assertEqual((found.results[0].outcome, found.results[0].testing), (Outcome.PASS, True))
        self.assertEqual(found.domains, frozenset())
        self.assertEqual(verification(SIGNED).domains, {"example.com"})


class TimeTests(SynchronousTestCase):
    def test_expired_signatures_are_not_acceptable(self) -> None:
        message = sign(PLAIN, dataclasses.replace(OPTIONS, lifetime=100), now=NOW) + PLAIN
        for now, skew, outcome in [
            (NOW, 0, Outcome.PASS),
            (NOW + 100, 0, Outcome.PASS),
            (NOW + 101, 0, Outcome.POLICY),
            (NOW + 101, 1, Outcome.PASS),
            (NOW + 102, 1, Outcome.POLICY),
        ]:
            self.assertEqual(one(message, now=now, skew=skew).outcome, outcome, (now, skew))
        self.assertEqual(one(message, now=NOW + 1000).reason, "the signature has expired")

    def test_signatures_of_the_future_are_not_acceptable(self) -> None:
        for now, skew, outcome in [(NOW, 0, Outcome.PASS), (NOW - 1, 0, Outcome.POLICY), (NOW - 1, 1, Outcome.PASS)]:
            self.assertEqual(one(SIGNED, now=now, skew=skew).outcome, outcome)


class BodyLengthTests(SynchronousTestCase):
    """`l=`: honoured, told, and by default not acceptable when it leaves something open (RFC 6376 8.2)."""

    LENGTH = len(PLAIN.partition(b"\r\n\r\n")[2])

    def test_a_body_of_just_this_length_passes(self) -> None:
        result = one(crafted(length=self.LENGTH))
        self.assertEqual((result.outcome, result.weaknesses), (Outcome.PASS, (Weakness.BODY_LENGTH,)))

    def test_a_longer_body_is_not_acceptable_unless_it_is_allowed(self) -> None:
        message = crafted(length=self.LENGTH) + b"a word from our sponsor\r\n"
        self.assertEqual(
            (one(message).outcome, one(message).reason), (Outcome.POLICY, "l= leaves a part of the body open")
        )
        result = one(message, partial_bodies=True)
        self.assertEqual((result.outcome, result.weaknesses), (Outcome.PASS, (Weakness.BODY_LENGTH,)))

    def test_no_body_at_all_is_signed(self) -> None:
        message = crafted(length=0)
        self.assertEqual(one(message).outcome, Outcome.POLICY)
        self.assertEqual(one(message, partial_bodies=True).outcome, Outcome.PASS)

    def test_a_change_before_the_length_is_a_failure(self) -> None:
        message = crafted(length=self.LENGTH).replace(b"lost", b"lose") + b"more\r\n"
        self.assertEqual(one(message, partial_bodies=True).outcome, Outcome.FAIL)

    def test_a_shorter_body_is_a_failure(self) -> None:
        message = crafted(length=self.LENGTH)[:-10]
        result = one(message, partial_bodies=True)
        self.assertEqual(
            (result.outcome, result.reason), (Outcome.FAIL, "the body is shorter than it was when it was signed")
        )

    def test_lengths_beyond_every_message(self) -> None:
        self.assertEqual(one(crafted(add=f"l={'9' * 76};")).outcome, Outcome.FAIL)

    def test_signatures_of_several_lengths(self) -> None:
        message = crafted(crafted(length=5), length=self.LENGTH)
        found = verification(message, partial_bodies=True)
        self.assertEqual([each.outcome for each in found.results], [Outcome.PASS] * 2)


class HeaderTests(SynchronousTestCase):
    """RFC 6376 8.15: what else may stand in a header section."""

    def test_a_from_above_the_signed_one_is_not_acceptable(self) -> None:
        message = b"From: Evil <evil@example.net>\r\n" + crafted(names="from:to:subject")
        result = one(message)
        self.assertEqual(
            (result.outcome, result.reason), (Outcome.POLICY, "the message has a From field that is not signed")
        )
        self.assertEqual(result.weaknesses, (Weakness.UNSIGNED_FIELD,))

    def test_nor_is_one_below_it(self) -> None:
        message = crafted(names="from:to:subject").replace(b"\r\n\r\n", b"\r\nFrom: evil@example.net\r\n\r\n", 1)
        self.assertEqual(one(message).outcome, Outcome.FAIL)

    def test_two_that_are_both_signed_are_the_signer_s_own(self) -> None:
        result = one(crafted(b"From: other@example.com\r\n" + PLAIN, names="from:from:to"))
        self.assertEqual((result.outcome, result.weaknesses), (Outcome.PASS, ()))

    def test_other_doubled_fields_are_told(self) -> None:
        for name in (b"Subject", b"To", b"Date", b"Content-Type", b"reply-to"):
            message = name + b": x\r\n" + name + b": y\r\n" + crafted(names="from:to:subject")
            result = one(message)
            self.assertEqual((result.outcome, result.weaknesses), (Outcome.PASS, (Weakness.UNSIGNED_FIELD,)), name)

    def test_fields_that_may_be_there_often_are_not(self) -> None:
        self.assertEqual(one(b"Received: x\r\nReceived: y\r\nComments: z\r\nComments: z\r\n" + SIGNED).weaknesses, ())

    def test_lines_that_are_no_fields_are_told(self) -> None:
        for line in (b"no field\r\n", b" folded\r\n", b"X: y\r\nFrom here to there\r\n"):
            self.assertEqual(one(line + SIGNED).weaknesses, (Weakness.MALFORMED_HEADER,), line)
        self.assertEqual(one(b"From a@example.com Sat Jan  1 00:00:00 2000\r\n" + SIGNED).weaknesses, ())

    def test_a_bare_newline_in_the_header_section_is_not_acceptable(self) -> None:
        for field in (b"X: y\nFrom: evil@example.net\r\n", b"X: y\rFrom: evil@example.net\r\n", b"X: y\n\nbody\r\n"):
            result = one(field + SIGNED)
            self.assertEqual(
                (result.outcome, result.reason), (Outcome.POLICY, "the header section has a bare CR or LF")
            )

    def test_a_header_section_that_is_too_long_has_one_result(self) -> None:
        blocks = [b"X: " + b"x" * 5000, b"x", SIGNED]
        found = result_of(verify(blocks, Zone({}), now=NOW, options=VerifyingOptions(header=4000)))
        self.assertIn("longer than 4000", found.results[0].reason)
        [result] = verification(SIGNED.partition(b"\r\n\r\n")[0] + b"\r\nX: y" * 10_000).results
        self.assertIn("more than 10000 lines", result.reason)
        for message in (b"X: " + b"x" * 5000 + b"\r\n" + SIGNED, b"X: y\r\n" * 800 + b"X: y\r\n"):
            [result] = verification(message, header=4000).results
            self.assertEqual(result.outcome, Outcome.NEUTRAL)
            self.assertIn("longer than 4000", result.reason)

    def test_other_signatures_are_fields_like_others(self) -> None:
        inner = crafted()
        outer = crafted(inner, names="from:dkim-signature")
        self.assertEqual([each.outcome for each in verification(outer).results], [Outcome.PASS] * 2)
        self.assertEqual(
            [each.outcome for each in verification(outer.replace(b"\tb=", b"\tb= ", 2)).results],
            [Outcome.FAIL, Outcome.PASS],
        )


class NumberTests(SynchronousTestCase):
    def test_ten_signatures_are_looked_at_and_the_others_counted(self) -> None:
        for number, unseen in ((MOST_SIGNATURES, 0), (MOST_SIGNATURES + 1, 1), (MOST_SIGNATURES + 500, 500)):
            found = verification(b"DKIM-Signature: x\r\n" * (number - 1) + SIGNED)
            self.assertEqual((len(found.results), found.unseen), (MOST_SIGNATURES, unseen))
        self.assertEqual(verification(b"DKIM-Signature: x\r\n" * 9 + SIGNED).results[-1].outcome, Outcome.PASS)


#: Pieces of messages, put together at random.
_pieces = st.sampled_from(
    [
        b"DKIM-Signature: ", b"dkim-signature:", b"v=1;", b" a=ed25519-sha256;", b" a=rsa-sha256;", b" c=relaxed/relaxed;",
        b" c=simple;", b" d=example.com;", b" s=s;", b" h=from;", b" h=from:to:from;", b" bh=YWJj;", b" b=YWJj", b" b=;",
        b" l=0;", b" l=5;", b" i=@example.com;", b" i=;", b" t=1;", b" x=2;", b" q=dns/txt;", b" z=a:b|c:d;", b"=", b";",
        b"\r\n", b"\r\n ", b"\r\n\r\n", b"\r", b"\n", b"From: a\r\n", b"To: b\r\n", b"\x00", b"\xff", b"\xc3\xbc", b"x",
    ]
)  # fmt: skip


class TotalityTests(SynchronousTestCase):
    """Any octets have a result, and the same however they are cut."""

    def check(self, message: bytes, cuts: list[int], record: bytes) -> None:
        zone = Zone({NAME: [record]})
        whole = result_of(verify(message, zone, now=NOW))
        blocks = [
            message[a:b]
            for a, b in itertools.pairwise(sorted({0, len(message), *(c % (len(message) + 1) for c in cuts)}))
        ]
        self.assertEqual(result_of(verify(blocks, zone, now=NOW)), whole)
        self.assertTrue(whole.authentication_results("mx.example.org").isascii())

    @given(st.lists(_pieces, max_size=40).map(b"".join), st.lists(st.integers(0), max_size=5), st.binary(max_size=30))
    @settings(deadline=None, max_examples=400)
    def test_messages_made_of_pieces(self, message: bytes, cuts: list[int], record: bytes) -> None:
        self.check(message, cuts, record)

    @given(st.binary(max_size=200), st.lists(st.integers(0), max_size=5), st.binary(max_size=30))
    @settings(deadline=None, max_examples=200)
    def test_any_octets(self, message: bytes, cuts: list[int], record: bytes) -> None:
        self.check(message, cuts, record)
        self.check(b"DKIM-Signature: " + message, cuts, record)

    @given(
        st.integers(0, len(SIGNED) - 1),
        st.binary(max_size=5),
        st.integers(0, 5),
        st.lists(st.integers(0), max_size=3),
    )
    @settings(deadline=None, max_examples=400)
    def test_a_signed_message_that_was_tampered_with(self, at: int, new: bytes, taken: int, cuts: list[int]) -> None:
        self.check(SIGNED[:at] + new + SIGNED[at + taken :], cuts, RECORD.encode())

    @given(st.integers(0, len(RECORD) - 1), st.binary(max_size=5), st.integers(0, 5))
    @settings(deadline=None, max_examples=200)
    def test_a_record_that_was_tampered_with(self, at: int, new: bytes, taken: int) -> None:
        text = RECORD.encode()
        self.check(SIGNED, [], text[:at] + new + text[at + taken :])


class ConstantsTests(SynchronousTestCase):
    def test_the_defaults_are_what_the_manual_says(self) -> None:
        self.assertEqual(VerifyingOptions(), VerifyingOptions(10, 2**20, False, 300))
