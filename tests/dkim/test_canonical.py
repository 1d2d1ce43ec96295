"""Canonicalisation: the examples of RFC 6376 3.4.5 (TM18), every way to cut a body, `l=`, and odd bodies."""

from __future__ import annotations

import hashlib
import itertools
import re

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver.dkim import canonical
from mailserver.dkim.canonical import BodyHash, Canonicalization, canonical_field
from mailserver.dkim.fields import FieldSet, fields_of

SIMPLE, RELAXED = Canonicalization.SIMPLE, Canonicalization.RELAXED

#: What bodies are made of when it matters how they are cut.
odd_bodies = st.lists(st.sampled_from([b"\r\n", b"\r", b"\n", b" ", b"\t", b"a", b"\xe9", b"."]), max_size=30).map(
    b"".join
)


def reference(canonicalization: Canonicalization, body: bytes) -> bytes:
    """The canonical body as RFC 6376 3.4.3 and 3.4.4 describe it, word for word, without a thought for speed."""
    if canonicalization is RELAXED:
        body = re.sub(rb"[ \t]+(?=\r\n|\Z)", b"", body)
        body = re.sub(rb"[ \t]+", b" ", body)
    while body.endswith(b"\r\n\r\n"):
        body = body[:-2]
    if canonicalization is RELAXED and body in (b"", b"\r\n"):
        return b""
    return body if body.endswith(b"\r\n") else body + b"\r\n"


def digest_of(canonicalization: Canonicalization, *blocks: bytes) -> bytes:
    body = BodyHash(canonicalization)
    for block in blocks:
        body.update(block)
    body.finish()
    found = body.digest()
    assert found is not None
    return found


def sha256(octets: bytes) -> bytes:
    return hashlib.sha256(octets).digest()


class ExamplesTests(SynchronousTestCase):
    """RFC 6376 3.4.5, and the empty bodies of 3.4.3 and 3.4.4."""

    FIELDS = (b"A: X\r\n", b"B : Y\t\r\n\tZ  \r\n")
    BODY = b" C \r\nD \t E\r\n\r\n\r\n"

    def test_example_1_both_relaxed(self) -> None:
        self.assertEqual([canonical_field(RELAXED, each) for each in self.FIELDS], [b"a:X\r\n", b"b:Y Z\r\n"])
        self.assertEqual(digest_of(RELAXED, self.BODY), sha256(b" C\r\nD E\r\n"))

    def test_example_2_both_simple(self) -> None:
        self.assertEqual([canonical_field(SIMPLE, each) for each in self.FIELDS], list(self.FIELDS))
        self.assertEqual(digest_of(SIMPLE, self.BODY), sha256(b" C \r\nD \t E\r\n"))

    def test_example_3_header_relaxed_body_simple(self) -> None:
        message = b"".join(self.FIELDS) + b"\r\n" + self.BODY
        header, _, body = message.partition(b"\r\n\r\n")
        fields = FieldSet(fields_of(header + b"\r\n"))
        self.assertEqual(b"".join(fields.selected(RELAXED, ["a", "b"])), b"a:X\r\nb:Y Z\r\n")
        self.assertEqual(digest_of(SIMPLE, body), sha256(b" C \r\nD \t E\r\n"))

    def test_empty_bodies(self) -> None:
        for body in (b"", b"\r\n", b"\r\n" * 100_000):
            self.assertEqual(digest_of(SIMPLE, body), sha256(b"\r\n"), body[:10])
            self.assertEqual(digest_of(RELAXED, body), sha256(b""), body[:10])
        self.assertEqual(digest_of(RELAXED, b" \t\r\n\t"), sha256(b""))


#: field, relaxed
FIELDS = [
    (b"SUBJect: AbC\r\n", b"subject:AbC\r\n"),
    (b"Subject:\r\n", b"subject:\r\n"),
    (b"Subject: \t \r\n", b"subject:\r\n"),
    (b"Subject: a", b"subject:a\r\n"),
    (b"Subject:\r\n a\r\n\t \r\n b\r\n", b"subject:a b\r\n"),
    (b"Subject: a  \r\n  b: c \t d\r\n", b"subject:a b: c d\r\n"),
    (b"Subject: a\rb\nc\x0b\x00\xe9 \r\n", b"subject:a\rb\nc\x0b\x00\xe9\r\n"),
]


class FieldTests(SynchronousTestCase):
    def test_relaxed_fields(self) -> None:
        for field, relaxed in FIELDS:
            self.assertEqual(canonical_field(RELAXED, field), relaxed, field)

    def test_simple_fields_only_get_their_line_end(self) -> None:
        for field, _ in FIELDS:
            self.assertEqual(canonical_field(SIMPLE, field), field.removesuffix(b"\r\n") + b"\r\n")

    @given(st.binary(max_size=50))
    @settings(deadline=None, max_examples=100)
    def test_relaxing_twice_is_relaxing_once(self, value: bytes) -> None:
        once = canonical_field(RELAXED, b"X: " + value)
        if b"\r\n" not in once[:-2]:  # what looked like a fold was none
            self.assertEqual(canonical_field(RELAXED, once), once)


class CuttingTests(SynchronousTestCase):
    @given(odd_bodies, st.lists(st.integers(0, 40), max_size=6), st.sampled_from(Canonicalization))
    @settings(deadline=None, max_examples=400)
    def test_every_cut_gives_the_hash_of_the_definition(
        self, body: bytes, cuts: list[int], kind: Canonicalization
    ) -> None:
        places = sorted({0, *(min(cut, len(body)) for cut in cuts), len(body)})
        blocks = [body[start:end] for start, end in itertools.pairwise(places)]
        self.assertEqual(digest_of(kind, *blocks), sha256(reference(kind, body)))

    @given(odd_bodies, st.sampled_from(Canonicalization))
    @settings(deadline=None, max_examples=200)
    def test_octet_by_octet(self, body: bytes, kind: Canonicalization) -> None:
        blocks = [body[at : at + 1] for at in range(len(body))]
        self.assertEqual(digest_of(kind, *blocks), sha256(reference(kind, body)))

    @given(odd_bodies, st.sampled_from(Canonicalization))
    @settings(deadline=None, max_examples=100)
    def test_a_large_block_is_taken_in_pieces(self, body: bytes, kind: Canonicalization) -> None:
        self.patch(canonical, "_PIECE", 3)
        self.assertEqual(digest_of(kind, body), sha256(reference(kind, body)))

    def test_what_is_kept_back_does_not_grow(self) -> None:
        for piece in (b" ", b"\r\n", b" \r\n", b"\t\r", b"\r", b"\n", b" \n\r"):
            for kind in Canonicalization:
                body = BodyHash(kind)
                for _ in range(100):
                    body.update(piece * 100)
                    self.assertLessEqual(len(body._held), 2, piece)


class LengthTests(SynchronousTestCase):
    """`l=` counts canonical octets (RFC 6376 5.3.1)."""

    @given(odd_bodies, st.lists(st.integers(0, 40), max_size=5), st.sampled_from(Canonicalization))
    @settings(deadline=None, max_examples=300)
    def test_each_length_has_its_hash_in_one_pass(
        self, body: bytes, lengths: list[int], kind: Canonicalization
    ) -> None:
        hashed = BodyHash(kind, [None, *lengths])
        for at in range(0, len(body), 3):
            hashed.update(body[at : at + 3])
        hashed.finish()
        whole = reference(kind, body)
        self.assertEqual(hashed.length, len(whole))
        self.assertEqual(hashed.digest(), sha256(whole))
        for length in lengths:
            expected = sha256(whole[:length]) if length <= len(whole) else None
            self.assertEqual(hashed.digest(length), expected, length)

    def test_only_lengths_that_were_asked_for_are_known(self) -> None:
        body = BodyHash(SIMPLE, [3])
        body.finish()
        self.assertRaises(KeyError, body.digest, 2)
        self.assertIsNone(body.digest(3))

    def test_the_end_may_be_told_twice(self) -> None:
        body = BodyHash(SIMPLE)
        body.update(b"a")
        body.finish()
        body.finish()
        self.assertEqual((body.digest(), body.length), (sha256(b"a\r\n"), 3))

    def test_nothing_is_known_before_the_end(self) -> None:
        self.assertRaises(KeyError, BodyHash(SIMPLE).digest)
