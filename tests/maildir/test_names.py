"""No address leads out of the mail root, no two share a mailbox, and no two messages a name."""

from __future__ import annotations

import os
import re
from pathlib import Path

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver.address import Address
from mailserver.maildir.names import UniqueNames, decode_name, encode_name, mailbox_path, sizes, with_sizes

ENCODED = [
    ("alice", "alice"),
    ("alice.b_c-d+e=f", "alice.b_c-d+e=f"),
    ("7", "7"),
    ("", "%"),
    (".", "%2e"),
    ("..", "%2e%2e"),
    ("../../etc/passwd", "%2e.%2f..%2fetc%2fpasswd"),
    (".hidden", "%2ehidden"),
    ("ends.", "ends%2e"),
    ("-rf", "%2drf"),
    ("a/b", "a%2fb"),
    ("a\0b", "a%00b"),
    ("a\nb", "a%0ab"),
    ("a\n", "a%0a"),
    ("100%", "100%25"),
    ("%41", "%2541"),
    ("Alice", "%41lice"),
    ("o'brien", "o%27brien"),
    ("grün", "gr%c3%bcn"),
    ("[192.0.2.1]", "%5b192.0.2.1%5d"),
]
NO_NAMES = ["", ".", "..", "A", "%4", "%zz", "%61", "%C3", "a/b", "%ff", "ä", ".a", "a.", "x%~" + "0" * 64]

texts = st.text(max_size=80) | st.text(alphabet="aA./%~2e\0", max_size=12)
locals_ = st.text(alphabet=st.characters(codec="utf-8"), min_size=1, max_size=64).filter(
    lambda t: len(t.encode()) <= 64
)


class EncodeTests(SynchronousTestCase):
    def test_names_are_readable_and_safe(self) -> None:
        for text, name in ENCODED:
            with self.subTest(text=text):
                self.assertEqual(encode_name(text), name)
                self.assertEqual(decode_name(name), text)

    def test_what_is_no_name_is_refused(self) -> None:
        for name in NO_NAMES:
            with self.subTest(name=name):
                self.assertRaises(ValueError, decode_name, name)

    def test_255_octets_are_kept_and_256_are_cut(self) -> None:
        self.assertEqual(encode_name("a" * 255), "a" * 255)
        cut = encode_name("a" * 256)
        self.assertRegex(cut, r"\Aa{180}%~[0-9a-f]{64}\Z")
        self.assertNotEqual(cut, encode_name("a" * 257))
        self.assertEqual(len(encode_name("b" + "ß" * 42)), 1 + 42 * 6)
        self.assertIn("%~", encode_name("bbbb" + "ß" * 42))

    @settings(deadline=None, max_examples=300)
    @given(texts)
    def test_a_name_is_one_safe_path_element(self, text: str) -> None:
        name = encode_name(text)
        self.assertRegex(name, r"\A[a-z0-9_%][a-z0-9_+=.%~\-]*\Z")
        self.assertFalse(name.endswith("."))
        self.assertLessEqual(len(name), 255)

    @settings(deadline=None, max_examples=300)
    @given(texts)
    def test_a_name_that_is_not_cut_can_be_read_back(self, text: str) -> None:
        name = encode_name(text)
        if "%~" not in name:
            self.assertEqual(decode_name(name), text)

    @settings(deadline=None, max_examples=300)
    @given(texts, texts)
    @example("a", "A")
    @example("%41", "A")
    @example("%", "")
    def test_two_texts_never_share_a_name(self, one: str, two: str) -> None:
        self.assertEqual(one == two, encode_name(one) == encode_name(two))


class MailboxPathTests(SynchronousTestCase):
    ROOT = Path("/mail/root")

    def test_spellings_of_one_mailbox_have_one_path(self) -> None:
        path = self.ROOT / "xn--bcher-kva.example" / "gr%c3%bcn"
        for local, domain in (("GRÜN", "Bücher.example"), ("gru\u0308n", "xn--BCHER-kva.example")):
            self.assertEqual(mailbox_path(self.ROOT, Address(local, domain)), path)

    def test_a_literal_and_no_domain_have_a_path_too(self) -> None:
        self.assertEqual(mailbox_path(self.ROOT, Address("postmaster", "")), self.ROOT / "%" / "postmaster")
        literal = mailbox_path(self.ROOT, Address("a", "[IPv6:2001:db8::1]"))
        self.assertEqual(literal, self.ROOT / "%5b%49%50v6%3a2001%3adb8%3a%3a1%5d" / "a")

    @settings(deadline=None, max_examples=300)
    @given(locals_)
    def test_no_local_part_leads_out_of_the_domain(self, local: str) -> None:
        path = mailbox_path(self.ROOT, Address(local, "example.org"))
        self.assertEqual(os.path.dirname(os.path.normpath(path)), "/mail/root/example.org")

    @settings(deadline=None, max_examples=300)
    @given(locals_, locals_)
    @example("straße", "STRASSE")
    def test_two_addresses_share_a_path_when_their_keys_are_equal(self, one: str, two: str) -> None:
        first, second = Address(one, "example.org"), Address(two, "example.org")
        same = mailbox_path(self.ROOT, first) == mailbox_path(self.ROOT, second)
        self.assertEqual(same, first.key == second.key)


class UniqueNamesTests(SynchronousTestCase):
    def test_a_name_is_made_as_the_specification_says(self) -> None:
        names = UniqueNames("mx.example.org", 4711, lambda: 1700000000.000042)
        self.assertRegex(names.next(), r"\A1700000000\.M4[12]P4711Q0\.mx\.example\.org\Z")

    def test_slash_colon_and_the_like_in_the_host_are_written_in_octal(self) -> None:
        for host, written in (("a/b:c", r"a\057b\072c"), ("a,b", r"a\054b"), ("ü", r"\303\274"), ("x\n", r"x\012")):
            self.assertEqual(UniqueNames(host, 1, lambda: 0.0).host, written)
        self.assertEqual(len(UniqueNames("h" * 300, 1, lambda: 0.0).host), 100)
        self.assertRaises(ValueError, UniqueNames, "", 1, lambda: 0.0)

    @settings(deadline=None, max_examples=100)
    @given(st.lists(st.floats(0, 4e9) | st.just(1.5), min_size=2, max_size=50))
    def test_names_differ_when_the_clock_stands_still_or_goes_back(self, times: list[float]) -> None:
        clock = iter(times)
        names = UniqueNames("h", 1, lambda: next(clock))
        given_names = {names.next() for _ in times}
        self.assertEqual(len(given_names), len(times))
        for name in given_names:
            self.assertTrue(re.fullmatch(r"\d+\.M\d{1,6}P1Q\d+\.h", name), name)

    def test_the_process_is_told_for_names_of_this_host_alone(self) -> None:
        names = UniqueNames("a/b", 4711, lambda: 0.0)
        for name, pid in (
            (names.next(), 4711),
            (with_sizes(names.next(), 1, 2) + ":2,S", 4711),
            (UniqueNames("a/b", 12, lambda: 5.0).next(), 12),
            (UniqueNames("a/bc", 12, lambda: 5.0).next(), None),
            ("1700000000.4711_0.a/b", None),
            ("1700000000.M1P0Q1.a\\057b", None),
            ("", None),
        ):
            self.assertEqual(names.pid_of(name), pid, name)


class SizesTests(SynchronousTestCase):
    def test_sizes_are_read_from_a_name(self) -> None:
        for name, told in (
            (with_sizes("1.M1P1Q1.h", 10, 12), (10, 12)),
            (with_sizes("1.M1P1Q1.h", 10, 12) + ":2,FS", (10, 12)),
            ("1.M1P1Q1.h,W=5,S=4", (4, 5)),
            ("1.M1P1Q1.h,S=7", (7, None)),
            ("1.M1P1Q1.h:2,S", (None, None)),
            ("1.M1P1Q1.h,S=1x,W=-5", (None, None)),
            ("1.M1P1Q1.h,S=٣", (None, None)),
            ("1.M1P1Q1.h,S=" + "9" * 19, (None, None)),
            ("", (None, None)),
        ):
            self.assertEqual(sizes(name), told, name)
