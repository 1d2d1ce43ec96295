"""
Against dkimpy: what we sign it verifies, what it signs we verify, and of changed mail both think the same.

Left out is what dkimpy reads in its own way: a bare LF is an end of line for it, blanks before a colon are an error,
and a blank at the very end of a relaxed body, without a line end behind it, stays.
"""

from __future__ import annotations

import base64
import itertools
import re
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver.dkim import Canonicalization, Outcome, PrivateKey, Result, SigningOptions, sign, verify
from tests.dkim.vectors import ED25519, MESSAGE_6376, MESSAGE_8463, PLAIN, RECORDS, RSA, RSA_PEM, result_of

NOW = 1_528_637_909
SEED = b"nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A="
ALGORITHMS = {"rsa-sha256": (RSA, RSA_PEM), "ed25519-sha256": (ED25519, SEED)}
KINDS = list(itertools.product(Canonicalization, repeat=2))

_values = st.lists(
    st.sampled_from([b"a", b"Z", b" ", b"\t", b"\r\n ", b"\r\n\t", b":", b";", b"=", b"\xc3\xa9", b"\xff", b"<b@c>"]),
    max_size=8,
).map(b"".join)
_names = st.sampled_from([b"To", b"TO", b"Subject", b"subject", b"Date", b"X-Other", b"Received", b"Content-Type"])
_fields = st.tuples(_names, _values).map(lambda field: field[0] + b":" + field[1].rstrip(b"\r\n\t ") + b"\r\n")
_bodies = st.lists(
    st.sampled_from([b"\r\n", b"\r", b" ", b"\t", b"a", b".", b"\xe9", b"--x\r\n", b"\x00", b"line of text\r\n"]),
    max_size=12,
).map(lambda pieces: b"".join(pieces).rstrip(b" \t"))


@st.composite
def mails(draw: st.DrawFn) -> bytes:
    """A message with one From, some other fields, and a body; or without a body, or an empty one."""
    fields = draw(st.lists(_fields, max_size=5))
    fields.insert(draw(st.integers(0, len(fields))), b"From: Joe <joe@example.com>\r\n")
    body = draw(st.one_of(st.none(), _bodies))
    return b"".join(fields) + (b"" if body is None else b"\r\n" + body)


class DkimpyCase(SynchronousTestCase):
    if find_spec("dkim") is None or find_spec("nacl") is None:
        skip = "dkimpy with PyNaCl is not installed; it comes with the extra `test`"

    def setUp(self) -> None:
        import dkim

        self.patch(dkim, "time", SimpleNamespace(time=lambda: NOW))

    def theirs(self, message: bytes, record: bytes, index: int = 0) -> bool:
        """Does dkimpy think that the signature is right?"""
        import dkim

        try:
            return bool(dkim.DKIM(message).verify(index, dnsfunc=lambda _name, timeout=5: record))
        except dkim.DKIMException:
            return False

    def ours(self, message: bytes, record: bytes) -> tuple[Result, ...]:
        async def answer(_name: str) -> list[bytes]:
            return [record]

        return result_of(verify(message, answer, now=NOW)).results


class BothWaysTests(DkimpyCase):
    @given(mails(), st.sampled_from(sorted(ALGORITHMS)), st.sampled_from(KINDS))
    @settings(deadline=None, max_examples=300)
    def test_dkimpy_verifies_what_we_sign(self, mail: bytes, algorithm: str, kinds: tuple[Any, Any]) -> None:
        key, _ = ALGORITHMS[algorithm]
        options = SigningOptions(
            "example.com", "s", key, header_canonicalization=kinds[0], body_canonicalization=kinds[1],
            identity="joe@example.com",
        )  # fmt: skip
        message = sign(mail, options, now=NOW) + mail
        self.assertTrue(self.theirs(message, key.record.encode()))
        self.assertEqual([each.outcome for each in self.ours(message, key.record.encode())], [Outcome.PASS])

    @given(mails(), st.sampled_from(sorted(ALGORITHMS)), st.sampled_from(KINDS))
    @settings(deadline=None, max_examples=300)
    def test_we_verify_what_dkimpy_signs(self, mail: bytes, algorithm: str, kinds: tuple[Any, Any]) -> None:
        import dkim

        key, secret = ALGORITHMS[algorithm]
        field = dkim.sign(
            mail, b"s", b"example.com", secret, signature_algorithm=algorithm.encode(),
            canonicalize=tuple(kind.encode() for kind in kinds),
            include_headers=[b"from", b"to", b"subject", b"date", b"content-type", b"to", b"from", b"x-other"],
        )  # fmt: skip
        results = self.ours(field + mail, key.record.encode())
        self.assertEqual([(each.outcome, each.reason) for each in results], [(Outcome.PASS, "")])

    @given(
        mails(), st.sampled_from(KINDS), st.integers(0), st.sampled_from([b"", b" ", b"\r\n", b"x", b"\t", b"\r\n "])
    )
    @settings(deadline=None, max_examples=400)
    def test_of_changed_mail_both_think_the_same(
        self, mail: bytes, kinds: tuple[Any, Any], at: int, new: bytes
    ) -> None:
        options = SigningOptions(
            "example.com", "s", ED25519, header_canonicalization=kinds[0], body_canonicalization=kinds[1]
        )
        at %= len(mail)
        changed = mail[:at] + new + mail[at + (not new) :]
        if _read_in_another_way(changed):
            return
        message = sign(mail, options, now=NOW) + changed
        [result] = self.ours(message, ED25519.record.encode())
        self.assertEqual(result.outcome is Outcome.PASS, self.theirs(message, ED25519.record.encode()), changed)


def _read_in_another_way(mail: bytes) -> bool:
    """See the top of this file; dkimpy refuses a message with a line that is no field, we leave the line out."""
    header, _, body = mail.partition(b"\r\n\r\n")
    first, *lines = header.split(b"\r\n")
    strange = [first, *(line for line in lines if line and line[:1] not in (b" ", b"\t"))]
    bare = b"\n" in mail.replace(b"\r\n", b"") or b"\r" in header.replace(b"\r\n", b"")
    return bare or body.endswith((b" ", b"\t")) or not all(re.match(rb"[!-9;-~]+:", line) for line in strange)


class LengthTests(DkimpyCase):
    def test_a_body_length_of_dkimpy_s_is_understood(self) -> None:
        import dkim

        for kinds in KINDS:
            field = dkim.sign(
                PLAIN, b"s", b"example.com", RSA_PEM, canonicalize=tuple(kind.encode() for kind in kinds), length=True
            )
            self.assertIn(b" l=", field)
            [result] = self.ours(field + PLAIN, RSA.record.encode())
            self.assertEqual(result.outcome, Outcome.PASS, kinds)
            [result] = self.ours(field + PLAIN + b"more\r\n", RSA.record.encode())
            self.assertEqual(result.outcome, Outcome.POLICY, kinds)


class VectorsTests(DkimpyCase):
    """dkimpy thinks of the vectors as we do, so it is a fair judge."""

    def test_the_messages_of_the_rfcs(self) -> None:
        for message, index, name in [
            (MESSAGE_6376, 0, "brisbane._domainkey.example.com"),
            (MESSAGE_8463, 0, "brisbane._domainkey.football.example.com"),
            (MESSAGE_8463, 1, "test._domainkey.football.example.com"),
        ]:
            self.assertTrue(self.theirs(message, b"".join(RECORDS[name][0]), index), name)

    def test_the_keys_are_the_same(self) -> None:
        key: PrivateKey = ED25519
        self.assertEqual(base64.b64decode(SEED)[:4].hex(), "9d61b19d")
        self.assertIn("11qYAYKxCrfVS", key.record)
