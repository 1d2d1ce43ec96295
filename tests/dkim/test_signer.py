"""Signing: exact fields, what is signed, what is refused; M60 to M64 and TM19 of gen_smtp, as ours."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import itertools
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver.dkim import (
    OVERSIGNED,
    SIGNED,
    Canonicalization,
    Outcome,
    PrivateKey,
    Signer,
    SigningOptions,
    Unsignable,
    Verification,
    load_private_key,
    sign,
    verify,
)
from mailserver.dkim.fields import MOST_HEADER, MOST_LINES
from mailserver.dkim.tags import parse_tags
from tests.dkim.test_keys import GEN_SMTP_PEM
from tests.dkim.vectors import ED25519, PLAIN, RSA, result_of

NOW = 1_528_637_909
HEADERS = ("from", "to", "subject", "date")
OPTIONS = SigningOptions("football.example.com", "test", RSA)
#: The body hash of PLAIN: relaxed as in RFC 8463 A.3.
RELAXED_HASH = "2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8="
SIMPLE_HASH = base64.b64encode(hashlib.sha256(PLAIN.partition(b"\r\n\r\n")[2]).digest()).decode()


def options(**changes: Any) -> SigningOptions:
    return dataclasses.replace(OPTIONS, **changes)


def tags(field: bytes) -> dict[str, str]:
    return parse_tags(field.partition(b":")[2])


def tags_of(message: bytes = PLAIN, **changes: Any) -> dict[str, str]:
    return tags(sign(message, options(**changes), now=NOW))


class ExactTests(SynchronousTestCase):
    """TM19: whole fields.  Both algorithms are deterministic; what dkimpy makes of them: test_verifier_dkimpy.py."""

    def check(self, key: PrivateKey, kind: str, field: str) -> None:
        chosen = options(
            key=key, headers=HEADERS, oversigned=(), header_canonicalization=kind, body_canonicalization=kind
        )
        self.assertEqual(sign(PLAIN, chosen, now=NOW).decode().replace("\r\n", "\n"), field)
        [result] = verified(field.replace("\n", "\r\n").encode() + PLAIN, key.record).results
        self.assertEqual(result.outcome, Outcome.PASS)

    def test_rsa_simple(self) -> None:
        self.check(
            RSA,
            "simple",
            "DKIM-Signature: v=1; a=rsa-sha256; c=simple/simple; d=football.example.com;\n"
            "\ts=test; t=1528637909;\n"
            "\th=from:from:to:subject:date;\n"
            "\tbh=4bLNXImK9drULnmePzZNEBleUanJCX5PIsDIFoH4KTQ=;\n"
            "\tb=02HpCiryy+3NWu8qEWt2uPefUABK2mWV1XqRLeWS79/gmR5YkxBzR4pssVu3OwaMgc3T\n"
            "\tfOg0kFqOcj6w0d0ZjtVBZ4Yi14FeVPqAMQS+7JAD8QBlIAmuO4Ru5wqFV/rwkQ8BkDU9\n"
            "\tqDkVnU0pHv1CnVWLptgaXkgdqxGclkLuJxM=\n",
        )

    def test_rsa_relaxed(self) -> None:
        self.check(
            RSA,
            "relaxed",
            "DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed; d=football.example.com;\n"
            "\ts=test; t=1528637909;\n"
            "\th=from:from:to:subject:date;\n"
            "\tbh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;\n"
            "\tb=unQQyxzf70m8oUHtPizsJmoMD13d3r6Je55nouSHgmQQ1RQ82kRjC0AyK4MeEsXvgL/D\n"
            "\t504BFPSQogLGTK00X/3UVtR6Xy81p04TU9Fwd5eaQYAKqlWgQLsctQMpVO2+A4PSHh3n\n"
            "\tDVR2BcUU1A/6V1tzNhFQsHZlw+pc6dynGB4=\n",
        )

    def test_ed25519_simple(self) -> None:
        self.check(
            ED25519,
            "simple",
            "DKIM-Signature: v=1; a=ed25519-sha256; c=simple/simple;\n"
            "\td=football.example.com; s=test; t=1528637909;\n"
            "\th=from:from:to:subject:date;\n"
            "\tbh=4bLNXImK9drULnmePzZNEBleUanJCX5PIsDIFoH4KTQ=;\n"
            "\tb=rGJqWYpXhQedlQvL49hBfAEuJtySJVczz0r23peESyQiMEhx/UfDVYdzkRk0ecgkCKfg\n"
            "\tMiCjmp7Y5lXLzHYHBw==\n",
        )

    def test_ed25519_relaxed(self) -> None:
        self.check(
            ED25519,
            "relaxed",
            "DKIM-Signature: v=1; a=ed25519-sha256; c=relaxed/relaxed;\n"
            "\td=football.example.com; s=test; t=1528637909;\n"
            "\th=from:from:to:subject:date;\n"
            "\tbh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;\n"
            "\tb=Od1cXS8yPYgnpQ1fd8c07qTOsby/2dyLIhoaxGTuNIyQUdvsTLpElhJX1ps8AVO6wBTJ\n"
            "\tzGX/t6QP3V8WWG12AA==\n",
        )

    def test_ed25519_with_an_encrypted_key(self) -> None:
        self.check(
            load_private_key(GEN_SMTP_PEM, b"password"),
            "relaxed",
            "DKIM-Signature: v=1; a=ed25519-sha256; c=relaxed/relaxed;\n"
            "\td=football.example.com; s=test; t=1528637909;\n"
            "\th=from:from:to:subject:date;\n"
            "\tbh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;\n"
            "\tb=pZvOwTt/o4aNl6pdpArM8sXEvIdt8Pmgx85DJcGRsGnGJ+9guHaqQzipTZuUOMBuEZgF\n"
            "\tFAA12kc7Ox1xCIR/Cw==\n",
        )


def verified(message: bytes, *records: str) -> Verification:
    """What comes of a message when every key is found in these records."""

    async def answer(_name: str) -> list[bytes]:
        return [record.encode() for record in records]

    return result_of(verify(message, answer, now=NOW))


class TagsTests(SynchronousTestCase):
    """M60: h, d, s, t, x, c, a.  M61: both algorithms.  M62: all four canonicalisations, relaxed as the default."""

    def test_what_is_written_by_default(self) -> None:
        found = tags_of()
        self.assertEqual(list(found), ["v", "a", "c", "d", "s", "t", "h", "bh", "b"])
        self.assertEqual(found["c"], "relaxed/relaxed")
        self.assertEqual(found["t"], str(NOW))

    def test_all_four_canonicalisations(self) -> None:
        for header, body in itertools.product(("simple", "relaxed"), repeat=2):
            found = tags_of(header_canonicalization=header, body_canonicalization=body)
            self.assertEqual(found["c"], f"{header}/{body}")
            self.assertEqual(found["bh"], RELAXED_HASH if body == "relaxed" else SIMPLE_HASH)

    def test_an_expiry_is_counted_from_now(self) -> None:
        self.assertEqual(tags_of(lifetime=3600)["x"], str(NOW + 3600))

    def test_the_time_can_be_left_out(self) -> None:
        field = sign(PLAIN, OPTIONS, now=None)
        self.assertNotIn("t", tags(field))
        self.assertRaises(ValueError, Signer, [options(lifetime=1)], now=None)

    def test_the_time_is_whole_seconds_since_1970(self) -> None:
        self.assertEqual(tags(sign(PLAIN, OPTIONS, now=1.9))["t"], "1")  # type: ignore[arg-type]
        for now in (-1, 10**11):
            self.assertRaises(ValueError, Signer, [OPTIONS], now=now)

    def test_identities_are_quoted(self) -> None:
        for identity, written in [
            ("@football.example.com", "@football.example.com"),
            ("joe@eng.football.example.com", "joe@eng.football.example.com"),
            ('a b;"=\u00fc@football.example.com', "a=20b=3B=22=3D=C3=BC@football.example.com"),
        ]:
            self.assertEqual(tags_of(identity=identity)["i"], written)

    def test_names_are_brought_into_a_labels(self) -> None:
        found = tags_of(domain="B\u00fccher.Example.", selector="S\u00fc.One", identity="@x.b\u00fccher.example")
        self.assertEqual(found["d"], "xn--bcher-kva.example")
        self.assertEqual(found["s"], "xn--s-eha.one")
        self.assertEqual(found["i"], "@x.xn--bcher-kva.example")

    def test_the_signature_is_last_and_no_length_is_written(self) -> None:
        found = tags_of(lifetime=5, identity="@football.example.com")
        self.assertEqual(list(found)[-1], "b")
        self.assertFalse({"l", "z"} & {*found})

    def test_lines_are_folded(self) -> None:
        long = options(
            domain=".".join(["a" * 50] * 3), identity="x" * 60 + "@" + ".".join(["a" * 50] * 3), lifetime=9
        )
        many = b"".join(b"X-Field-%d: x\r\n" % number for number in range(300)) + PLAIN
        names = [f"x-field-{number}" for number in range(300)]
        for chosen, message in ((OPTIONS, PLAIN), (long, PLAIN), (options(headers=names), many)):
            field = sign(message, chosen, now=NOW)
            first, *rest = field.removesuffix(b"\r\n").split(b"\r\n")
            self.assertTrue(first.startswith(b"DKIM-Signature: v=1;"))
            for line in rest:
                self.assertRegex(line, rb"\A\t[!-~][ -~]*\Z")
                self.assertLessEqual(len(line), 220 if chosen is long else 78)


class HeadersTests(SynchronousTestCase):
    """RFC 6376 5.4; M64 of gen_smtp is better here: all instances, and one more."""

    def names(self, header: bytes, **changes: Any) -> list[str]:
        return tags_of(header + b"\r\nbody\r\n", **changes)["h"].replace(" ", "").replace("\t", "").split(":")

    def test_fields_are_signed_once_more_than_they_are_there(self) -> None:
        names = self.names(b"From: a\r\nSubject: b\r\nX-Other: c\r\n")
        there = {"from": 2, "subject": 2}
        self.assertEqual(
            {name: names.count(name) for name in names}, {name: there.get(name, 1) for name in OVERSIGNED}
        )

    def test_other_known_fields_are_signed_as_often_as_they_are_there(self) -> None:
        header = (
            b"From: a\r\nSender: b\r\nList-Id: <c>\r\nresent-to: d\r\nResent-To: e\r\nReceived: f\r\nComments: g\r\n"
        )
        names = self.names(header)
        self.assertEqual([names.count(name) for name in ("sender", "list-id", "resent-to")], [1, 1, 2])
        self.assertEqual({*names} - {*OVERSIGNED}, {"sender", "list-id", "resent-to"})

    def test_the_lists_can_be_chosen(self) -> None:
        self.assertEqual(
            self.names(b"From: a\r\nTo: b\r\n", headers=["TO", "subject"], oversigned=[]), ["from", "from", "to"]
        )
        self.assertEqual(
            self.names(b"From: a\r\n", headers=[], oversigned=["X-Mine"]),
            ["from", "from", "x-mine"],
        )

    def test_the_defaults_hold_what_the_rfcs_name(self) -> None:
        # RFC 6376 5.4.1, and RFC 8058 4.
        for name in (
            "from", "reply-to", "subject", "date", "to", "cc", "resent-date", "resent-from", "resent-to", "resent-cc",
            "in-reply-to", "references", "list-id", "list-help", "list-unsubscribe", "list-subscribe", "list-post",
            "list-owner", "list-archive", "list-unsubscribe-post",
        ):  # fmt: skip
            self.assertIn(name, SIGNED)
        for name in ("return-path", "received", "comments", "keywords", "bcc", "dkim-signature"):
            self.assertNotIn(name, SIGNED)
        self.assertEqual({*OVERSIGNED} - {*SIGNED}, set())

    def test_a_field_added_later_breaks_the_signature(self) -> None:
        field = sign(PLAIN, OPTIONS, now=NOW)
        for name in OVERSIGNED:
            for place in (b"", field):
                added = name.encode() + b": x\r\n"
                message = (
                    added + field + PLAIN
                    if not place
                    else field + PLAIN.replace(b"\r\n\r\n", b"\r\n" + added + b"\r\n", 1)
                )
                result = verified(message, RSA.record).results[0]
                self.assertEqual(result.outcome, Outcome.FAIL, name)


class RefusalsTests(SynchronousTestCase):
    def test_options_that_cannot_be(self) -> None:
        for changes in (
            {"domain": "com"},
            {"domain": "exa mple.com"},
            {"domain": "example.com;x=y"},
            {"domain": "example.com\r\nX: y"},
            {"domain": "[192.0.2.1]"},
            {"domain": ""},
            {"selector": ""},
            {"selector": "a b"},
            {"selector": "../x"},
            {"selector": "a\n"},
            {"selector": "[192.0.2.1]"},
            {"selector": ".".join(["a" * 60] * 4)},
            {"headers": ["from", "a:b"]},
            {"headers": ["a;b"]},
            {"headers": ["a b"]},
            {"headers": ["a\r\n"]},
            {"headers": [""]},
            {"headers": ["\u00fc"]},
            {"headers": ["Return-Path"]},
            {"oversigned": ["DKIM-Signature"]},
            {"header_canonicalization": "nowsp"},
            {"body_canonicalization": "Relaxed"},
            {"lifetime": 0},
            {"lifetime": -5},
            {"lifetime": 10**10 + 1},
            {"headers": "from"},
            {"oversigned": "from"},
            {"identity": "joe"},
            {"identity": "joe@"},
            {"identity": "joe@example.com"},
            {"identity": "joe@evilfootball.example.com"},
            {"identity": "a\r\nb@football.example.com"},
        ):
            with self.assertRaises(ValueError, msg=changes):
                options(**changes)

    def test_messages_that_nobody_should_answer_for(self) -> None:
        for message, reason in [
            (b"", "no From"),
            (b"\r\nFrom: a\r\n", "no From"),
            (b"To: a\r\n\r\n", "no From"),
            (b"From: a\r\nfrom: b\r\n\r\n", "more than one From"),
            (b"From: a\r\nno field\r\n\r\n", "no field"),
            (b" folded\r\nFrom: a\r\n\r\n", "no field"),
            (b"From a@b Sat Jan  1 00:00:00 2000\r\nFrom: a\r\n\r\n", "no field"),
            (b"From: a\nTo: b\r\n\r\n", "bare CR or LF"),
            (b"From: a\rTo: b\r\n\r\n", "bare CR or LF"),
            (b"From: a\n\nbody\r\n", "bare CR or LF"),
            (b"From: a\r\nX: " + b"x" * MOST_HEADER + b"\r\n\r\n", "longer"),
            (b"From: a\r\nX: " + b"x" * MOST_HEADER, "longer"),
            (b"From: a\r\n" + b"X: y\r\n" * MOST_LINES, "lines"),
        ]:
            error = self.assertRaises(Unsignable, sign, message, OPTIONS, now=NOW)
            self.assertIn(reason, str(error), message[:40])

    def test_the_header_section_is_judged_as_soon_as_it_is_whole(self) -> None:
        signer = Signer([OPTIONS], now=NOW)
        signer.write(b"To: a\r\n")
        self.assertRaises(Unsignable, signer.write, b"\r\n")

    def test_a_body_may_hold_anything(self) -> None:
        message = b"From: a\r\n\r\n\x00\xff bare\r and\n newlines"
        result = verified(sign(message, OPTIONS, now=NOW) + message, RSA.record).results[0]
        self.assertEqual(result.outcome, Outcome.PASS)

    def test_no_repr_shows_the_key(self) -> None:
        self.assertNotIn("PRIVATE", repr(OPTIONS))
        self.assertNotIn("object at", repr(OPTIONS))


class StreamTests(SynchronousTestCase):
    @given(st.lists(st.integers(0, len(PLAIN)), max_size=8), st.sampled_from(Canonicalization))
    @settings(deadline=None, max_examples=60)
    def test_every_cut_gives_the_same_field(self, cuts: list[int], kind: Canonicalization) -> None:
        chosen = options(key=ED25519, body_canonicalization=kind)
        signer = Signer([chosen], now=NOW)
        for start, end in itertools.pairwise(sorted({0, *cuts, len(PLAIN)})):
            signer.write(PLAIN[start:end])
        self.assertEqual(signer.finish(), sign(PLAIN, chosen, now=NOW))

    def test_blocks_are_taken_as_they_come(self) -> None:
        blocks = (PLAIN[at : at + 1] for at in range(len(PLAIN)))
        self.assertEqual(sign(blocks, OPTIONS, now=NOW), sign(PLAIN, OPTIONS, now=NOW))

    def test_several_signatures_in_one_pass(self) -> None:
        other = options(key=ED25519, selector="brisbane", body_canonicalization="simple")
        both = sign(PLAIN, OPTIONS, other, now=NOW)
        self.assertEqual(both, sign(PLAIN, OPTIONS, now=NOW) + sign(PLAIN, other, now=NOW))
        results = verified(both + PLAIN, RSA.record, ED25519.record).results
        self.assertEqual(
            [(each.outcome, each.algorithm, each.selector) for each in results],
            [(Outcome.PASS, "rsa-sha256", "test"), (Outcome.PASS, "ed25519-sha256", "brisbane")],
        )

    def test_nothing_of_the_body_is_held(self) -> None:
        signer = Signer([OPTIONS], now=NOW)
        signer.write(PLAIN)
        for _ in range(100):
            signer.write(b"line \r\n" * 1000)
        self.assertEqual(len(signer._message._held), 0)
        self.assertTrue(all(len(body._held) <= 2 for body in signer._bodies.values()))
