"""A DKIM-Signature field: what it must hold, what it may, and what each mistake counts as."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver.dkim.results import Outcome
from mailserver.dkim.signature import MOST_NAMES, MOST_SIGNATURE, Signature, Unusable, parse_signature, tags_of

GOOD = {
    "v": "1",
    "a": "rsa-sha256",
    "d": "Example.ORG",
    "s": "Sel.one",
    "h": "From : To\r\n\t:subject",
    "bh": "YWJj ZA==",
    "b": "ZWZn",
}


def read(**changes: str | None) -> Signature:
    """The signature with tags changed, or taken away by None."""
    tags = {name: value for name, value in {**GOOD, **changes}.items() if value is not None}
    field = ("DKIM-Signature: " + ";\r\n\t".join(f"{name}={value}" for name, value in tags.items()) + "\r\n").encode()
    return parse_signature(field, tags_of(field))


#: changes, attribute, value
READ = [
    ({}, "key_type", "rsa"),
    ({}, "algorithm", "rsa-sha256"),
    ({"a": "ed25519-sha256"}, "key_type", "ed25519"),
    ({}, "domain", "example.org"),
    ({"d": "b\u00fccher.example"}, "domain", "xn--bcher-kva.example"),
    ({"d": "a_b.example"}, "domain", "a_b.example"),
    ({}, "selector", "sel.one"),
    ({}, "key_name", "sel.one._domainkey.example.org"),
    ({}, "names", ("from", "to", "subject")),
    ({"h": "from"}, "names", ("from",)),
    ({"h": "from:from:x-y:dkim-signature"}, "names", ("from", "from", "x-y", "dkim-signature")),
    ({"h": ":".join(["from"] * MOST_NAMES)}, "names", ("from",) * MOST_NAMES),
    ({}, "body_hash", b"abcd"),
    ({}, "signature", b"efg"),
    ({}, "header_canonicalization", "simple"),
    ({}, "body_canonicalization", "simple"),
    ({"c": "relaxed"}, "header_canonicalization", "relaxed"),
    ({"c": "relaxed"}, "body_canonicalization", "simple"),
    ({"c": "simple/relaxed"}, "body_canonicalization", "relaxed"),
    ({}, "identity", "@example.org"),
    ({"i": "joe=20x@Eng.example.org"}, "identity", "joe x@Eng.example.org"),
    ({"i": "joe@Eng.example.org"}, "identity_domain", "eng.example.org"),
    ({"i": "a=40b@example.org"}, "identity", "a@b@example.org"),
    ({"i": "\u00fc@example.org"}, "identity", "\u00fc@example.org"),
    ({"i": " j\r\n\toe@\r\n example.org"}, "identity", "joe@example.org"),
    ({}, "length", None),
    ({"l": "0"}, "length", 0),
    ({"l": "9" * 76}, "length", 10**76 - 1),
    ({"t": "1"}, "timestamp", 1),
    ({"x": "999999999999"}, "expires", 999_999_999_999),
    ({"q": "dns/txt"}, "timestamp", None),
    ({"q": "x-other/a=3Bb : dns/txt"}, "timestamp", None),
    ({"z": "From:a=40b|\r\n Subject:=7C"}, "timestamp", None),
    ({"unknown": "x y z"}, "timestamp", None),
]

#: changes, outcome, a part of the reason
REFUSED = [
    *[({name: None}, Outcome.PERMERROR, f"no {name}=") for name in GOOD],
    ({"v": "2"}, Outcome.NEUTRAL, "version"),
    ({"v": "1.0"}, Outcome.NEUTRAL, "version"),
    ({"v": "01"}, Outcome.NEUTRAL, "version"),
    ({"v": ""}, Outcome.NEUTRAL, "version"),
    ({"a": "rsa-sha1"}, Outcome.PERMERROR, "RFC 8301"),
    ({"a": "rsa-md5"}, Outcome.NEUTRAL, "algorithm"),
    ({"a": "dsa-sha256"}, Outcome.NEUTRAL, "algorithm"),
    ({"a": "RSA-SHA256"}, Outcome.NEUTRAL, "algorithm"),
    ({"a": "ed25519-sha1"}, Outcome.NEUTRAL, "algorithm"),
    ({"a": "rsasha256"}, Outcome.NEUTRAL, "a= is"),
    ({"a": "rsa-sha256-x"}, Outcome.NEUTRAL, "a= is"),
    ({"b": ""}, Outcome.NEUTRAL, "base64"),
    ({"b": "!"}, Outcome.NEUTRAL, "base64"),
    ({"bh": "YWJjZA"}, Outcome.NEUTRAL, "base64"),
    ({"c": "nowsp"}, Outcome.NEUTRAL, "canonicalization"),
    ({"c": "relaxed/nowsp"}, Outcome.NEUTRAL, "canonicalization"),
    ({"c": "relaxed/"}, Outcome.NEUTRAL, "c= is"),
    ({"c": "relaxed/simple/simple"}, Outcome.NEUTRAL, "c= is"),
    ({"c": ""}, Outcome.NEUTRAL, "c= is"),
    ({"d": "org"}, Outcome.NEUTRAL, "d= is"),
    ({"d": "example.org."}, Outcome.NEUTRAL, "no name"),
    ({"d": "example..org"}, Outcome.NEUTRAL, "no name"),
    ({"d": "[192.0.2.1]"}, Outcome.NEUTRAL, "no name"),
    ({"d": "exam ple.org"}, Outcome.NEUTRAL, "no name"),
    ({"d": ""}, Outcome.NEUTRAL, "no name"),
    ({"d": "a/b.example.org"}, Outcome.NEUTRAL, "no name"),
    ({"s": ""}, Outcome.NEUTRAL, "no name"),
    ({"s": "a..b"}, Outcome.NEUTRAL, "no name"),
    ({"s": "*"}, Outcome.NEUTRAL, "no name"),
    ({"s": ".".join(["a" * 60] * 4)}, Outcome.NEUTRAL, "too long"),
    ({"h": ""}, Outcome.NEUTRAL, "empty place"),
    ({"h": "from:"}, Outcome.NEUTRAL, "empty place"),
    ({"h": "from:a b"}, Outcome.NEUTRAL, "h= has"),
    ({"h": "from:\u00fc"}, Outcome.NEUTRAL, "h= has"),
    ({"h": "to:subject"}, Outcome.PERMERROR, "From field"),
    ({"h": "x-from"}, Outcome.PERMERROR, "From field"),
    ({"h": ":".join(["from"] * (MOST_NAMES + 1))}, Outcome.NEUTRAL, "more than 1000 names"),
    ({"i": "joe"}, Outcome.NEUTRAL, "i= has no domain"),
    ({"i": ""}, Outcome.NEUTRAL, "i= has no domain"),
    ({"i": "joe@"}, Outcome.NEUTRAL, "no name"),
    ({"i": "joe=0D=0A@example.org"}, Outcome.NEUTRAL, "no address"),
    ({"i": "joe@example.com"}, Outcome.PERMERROR, "d="),
    ({"i": "joe@evilexample.org"}, Outcome.PERMERROR, "d="),
    ({"i": "joe@org"}, Outcome.PERMERROR, "d="),
    ({"i": "joe@example.org@example.com"}, Outcome.PERMERROR, "d="),
    ({"l": ""}, Outcome.NEUTRAL, "number"),
    ({"l": "-1"}, Outcome.NEUTRAL, "number"),
    ({"l": "1" * 77}, Outcome.NEUTRAL, "number"),
    ({"t": "1e3"}, Outcome.NEUTRAL, "number"),
    ({"t": "1" * 13}, Outcome.NEUTRAL, "number"),
    ({"t": "10", "x": "10"}, Outcome.NEUTRAL, "expires"),
    ({"t": "10", "x": "9"}, Outcome.NEUTRAL, "expires"),
    ({"q": "dns/mx"}, Outcome.NEUTRAL, "ask for the key"),
    ({"q": ""}, Outcome.NEUTRAL, "empty place"),
    ({"z": "no colon"}, Outcome.NEUTRAL, "z= is"),
    ({"z": "From:a|"}, Outcome.NEUTRAL, "z= is"),
    ({"z": "From:=zz"}, Outcome.NEUTRAL, "z= is"),
]


class SignatureTests(SynchronousTestCase):
    def test_what_is_right_is_read(self) -> None:
        for changes, attribute, value in READ:
            self.assertEqual(getattr(read(**changes), attribute), value, changes)

    def test_what_is_wrong_is_refused_with_its_result(self) -> None:
        for changes, outcome, reason in REFUSED:
            with self.assertRaises(Unusable, msg=changes) as caught:
                read(**changes)
            self.assertEqual(caught.exception.outcome, outcome, changes)
            self.assertIn(reason, str(caught.exception), changes)

    def test_syntax_comes_before_all_else(self) -> None:
        for field in (b"DKIM-Signature: v=1; v=1\r\n", b"DKIM-Signature: nothing\r\n", b"DKIM-Signature:"):
            self.assertEqual(self.assertRaises(Unusable, tags_of, field).outcome, Outcome.NEUTRAL)

    def test_a_field_that_is_too_long_is_not_read(self) -> None:
        start = b"DKIM-Signature: v="
        self.assertEqual(len(tags_of(start + b"1" * (MOST_SIGNATURE - len(start)))["v"]), MOST_SIGNATURE - len(start))
        error = self.assertRaises(Unusable, tags_of, start + b"1" * (MOST_SIGNATURE - len(start) + 1))
        self.assertIn("longer than", str(error))

    @given(
        st.dictionaries(st.sampled_from([*GOOD, "c", "i", "l", "q", "t", "x", "z"]), st.text(max_size=12), max_size=3)
    )
    @settings(deadline=None, max_examples=300)
    def test_any_values_give_a_signature_or_a_refusal(self, changes: dict[str, str]) -> None:
        try:
            signature = read(**changes)
        except (Unusable, UnicodeEncodeError):
            return
        self.assertIn("from", signature.names)
        self.assertRegex(signature.key_name, r"\A[a-z0-9_.-]+\Z")
        self.assertTrue(("." + signature.identity_domain).endswith("." + signature.domain))
