"""Addresses: the grammar of RFC 5321 4.1.2 with RFC 6531, lengths, IDNA, and how two of them are compared."""

from __future__ import annotations

import re
import unicodedata

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver import address as address_module
from mailserver.address import Address, AddressError, fold_local, normal_domain, parse_address, quote_local

#: what it is, text, local part, normal domain
GOOD = [
    ("plain", "God@heaven.af.mil", "God", "heaven.af.mil"),
    ("the case of the local part is kept", "GoD@Example.ORG", "GoD", "example.org"),
    ("all of atext", "!#$%&'*+/=?^_`{|}~-a9@example.org", "!#$%&'*+/=?^_`{|}~-a9", "example.org"),
    ("dots within", "a.b.c@example.org", "a.b.c", "example.org"),
    ("one letter, one label", "a@h", "a", "h"),
    ("quoted", '"God"@heaven.af.mil', "God", "heaven.af.mil"),
    ("quoted pairs", '"\\G\\o\\d"@heaven.af.mil', "God", "heaven.af.mil"),
    ("pairs without quotes, RFC 821", "\\G\\o\\d@heaven.af.mil", "God", "heaven.af.mil"),
    ("quoted pairs of the first and the last character", '"\\ \\~"@example.org', " ~", "example.org"),
    ("blank in quotes", '"a b"@example.org', "a b", "example.org"),
    ("at sign in quotes", '"a@b"@example.org', "a@b", "example.org"),
    ("quote and backslash in quotes", '"a\\"b\\\\c"@example.org', 'a"b\\c', "example.org"),
    ("brackets, commas, dots in quotes", '".<a>,;:()[].."@example.org', ".<a>,;:()[]..", "example.org"),
    ("gen_smtp TS1", '"God~!#$%^&*()_+123"@heaven.af.mil', "God~!#$%^&*()_+123", "heaven.af.mil"),
    ("digits and dashes", "1@1-2.3-4", "1", "1-2.3-4"),
    ("an underscore, as some mail domains have one", "a@_x.exa_mple.org", "a", "_x.exa_mple.org"),
    ("a domain all of digits", "a@192.0.2.1", "a", "192.0.2.1"),
    ("IPv4 literal", "a@[192.0.2.1]", "a", "[192.0.2.1]"),
    ("IPv6 literal", "a@[IPv6:2001:DB8::1]", "a", "[IPv6:2001:db8::1]"),
    ("IPv6 literal, long", "a@[ipv6:2001:db8:0:0:0:0:0:1]", "a", "[IPv6:2001:db8::1]"),
    ("UTF-8 local part", "j\u00f6rg@example.org", "j\u00f6rg", "example.org"),
    ("Cyrillic, gen_smtp TS3", "\u0438\u0432\u0430\u043d@example.org", "\u0438\u0432\u0430\u043d", "example.org"),
    ("Chinese", "\u6211\u8cb7@\u5c4b\u4f01.example.org", "\u6211\u8cb7", "xn--hoqu73a.example.org"),
    ("UTF-8 in quotes", '"\u00e4 \u00f6"@example.org', "\u00e4 \u00f6", "example.org"),
    ("U-label", "a@b\u00fccher.example.org", "a", "xn--bcher-kva.example.org"),
    ("U-label in NFD", "a@bu\u0308cher.example.org", "a", "xn--bcher-kva.example.org"),
    ("U-label in capitals", "a@B\u00dcCHER.example.org", "a", "xn--bcher-kva.example.org"),
    ("A-label", "a@XN--BCHER-KVA.example.org", "a", "xn--bcher-kva.example.org"),
    ("sharp s is a letter of its own, IDNA 2008", "a@stra\u00dfe.example.org", "a", "xn--strae-oqa.example.org"),
    ("ideographic full stop", "a@example\u3002org", "a", "example.org"),
]

#: what it is, text
BAD = [
    ("nothing", ""),
    ("a blank", " "),
    ("no domain", "a"),
    ("postmaster, where a domain is needed", "postmaster"),
    ("domain empty", "a@"),
    ("local part empty", "@example.org"),
    ("local part empty quotes", '""@example.org'),
    ("two at signs", "a@b@example.org"),
    ("dot first", ".a@example.org"),
    ("dot last", "a.@example.org"),
    ("two dots", "a..b@example.org"),
    ("blank in the local part", "a b@example.org"),
    ("blank at the end", "a@example.org "),
    ("blank in front", " a@example.org"),
    ("blank in the domain", "a@exam ple.org"),
    ("brackets", "<a@example.org>"),
    ("comment in front", "(c)a@example.org"),
    ("comment behind the local part", "a(c)@example.org"),
    ("comment in the domain", "a@(c)example.org"),
    ("comment at the end", "a@example.org(c)"),
    ("comma", "a,b@example.org"),
    ("colon", "a:b@example.org"),
    ("semicolon", "a;b@example.org"),
    ("quote within", 'a"b"@example.org'),
    ("no closing quote", '"a@example.org'),
    ("closing quote escaped", '"a\\"@example.org'),
    ("text behind the quotes", '"a"b@example.org'),
    ("a letter for the at sign", '"a"bexample.org'),
    ("dot behind the quotes", '"a".b@example.org'),
    ("backslash at the end of the quotes", '"a\\'),
    ("escaped letter beyond ASCII", '"\\\u00e4"@example.org'),
    ("escaped blank without quotes", "a\\ b@example.org"),
    ("escaped at sign without quotes", "a\\@b@example.org"),
    ("tab in quotes", '"a\tb"@example.org'),
    ("escaped tab", '"a\\\tb"@example.org'),
    ("CR LF", "a\r\n@example.org"),
    ("CR LF in quotes", '"a\r\nb"@example.org'),
    ("LF at the end", "a@example.org\n"),
    ("NUL", "a\0b@example.org"),
    ("NUL in the domain", "a@exam\0ple.org"),
    ("DEL", "a\x7f@example.org"),
    ("DEL in quotes", '"a\x7f"@example.org'),
    ("C1 control character", "a\u0085b@example.org"),
    ("C1 control character in quotes", '"a\u0085b"@example.org'),
    ("line separator", "a\u2028b@example.org"),
    ("paragraph separator in quotes", '"a\u2029b"@example.org'),
    ("half a surrogate pair", "a\ud800@example.org"),
    ("half a surrogate pair in quotes", '"a\ud800"@example.org'),
    ("half a surrogate pair in the domain", "a@\ud800.org"),
    ("half a surrogate pair in a literal", "a@[\ud800]"),
    ("line separator in the domain", "a@ex\u2028ample.org"),
    ("trailing dot", "a@example.org."),
    ("trailing ideographic full stop", "a@example.org\u3002"),
    ("empty label", "a@example..org"),
    ("leading dot", "a@.example.org"),
    ("label begins with a dash", "a@-example.org"),
    ("label ends with a dash", "a@example-.org"),
    ("slash in the domain", "a@exam/ple.org"),
    ("not IDNA: a symbol", "a@\u2603\ufe0f\u200d.example.org"),
    ("not IDNA: bidi", "a@\u05d0a.example.org"),
    ("literal not closed", "a@[192.0.2.1"),
    ("literal not closed, and right without its last digit", "a@[192.0.2.15"),
    ("literal with text behind it", "a@[192.0.2.1]x"),
    ("literal out of range", "a@[192.0.2.256]"),
    ("literal too short", "a@[192.0.2]"),
    ("literal with a leading zero", "a@[192.0.2.01]"),
    ("literal without its tag", "a@[2001:db8::1]"),
    ("literal with a zone", "a@[IPv6:fe80::1%eth0]"),
    ("literal with a prefix length", "a@[IPv6:2001:db8::/32]"),
    ("literal with an unknown tag", "a@[x:192.0.2.1]"),
    ("literal empty", "a@[]"),
    ("literal of other digits", "a@[\u0661.2.3.4]"),
]


def domain_of(length: int) -> str:
    """A domain of so many octets."""
    return ".".join(["x" * 40] * 9)[: length - 1] + "z"


class GrammarTests(SynchronousTestCase):
    def test_addresses_are_taken_apart(self) -> None:
        for what, text, local, domain in GOOD:
            address = parse_address(text)
            self.assertEqual((address.local, address.ascii_domain), (local, domain), what)

    def test_other_texts_are_refused(self) -> None:
        for what, text in BAD:
            with self.assertRaises(AddressError, msg=f"{what}: {text!r}"):
                parse_address(text)

    def test_characters_beyond_ascii_can_be_forbidden(self) -> None:
        for what, text, local, domain in GOOD:
            if text.isascii():
                self.assertEqual(parse_address(text, utf8=False), Address(local, domain), what)
            else:
                with self.assertRaises(AddressError, msg=what):
                    parse_address(text, utf8=False)

    def test_the_reason_holds_nothing_of_the_text(self) -> None:
        for what, text in BAD:
            try:
                parse_address(f"SECRET{text}")
            except AddressError as error:
                self.assertNotIn("SECRET", str(error), what)
                self.assertTrue(str(error).isprintable(), what)

    def test_postmaster_may_stand_alone_and_nobody_else(self) -> None:
        for text in ("postmaster", "Postmaster", "POSTMASTER", '"postmaster"'):
            self.assertEqual(parse_address(text, need_domain=False).ascii_domain, "")
        for text in ("root", "", "postmaster@", "post"):
            with self.assertRaises(AddressError, msg=text):
                parse_address(text, need_domain=False)

    @given(st.one_of(st.text(max_size=300), st.text('a"\\@.[]:<>+\t\r\0\u00e4\u3002\ud800 -', max_size=300)))
    @settings(deadline=None, max_examples=300)
    def test_any_text_is_an_address_or_refused(self, text: str) -> None:
        try:
            address = parse_address(text)
        except AddressError:
            return
        self.assertEqual(parse_address(str(address)), address)
        self.assertEqual(parse_address(str(address)).key, address.key)
        self.assertLessEqual(len(str(address).encode()), 254)

    @given(
        st.from_regex(r"[a-z.+@_\-]{0,66}@[A-Za-z0-9._\-]{0,260}\Z").map(lambda text: text[:300]),
        st.booleans(),
    )
    @example("a" * 64 + "@" + "b" * 63 + ".org", True)
    @example("a" * 65 + "@example.org", True)
    @example("a@" + "b." * 126, False)
    @settings(deadline=None)
    def test_the_short_way_for_plain_addresses_gives_what_the_long_way_gives(self, text: str, utf8: bool) -> None:
        def outcome() -> object:
            try:
                found = parse_address(text, utf8=utf8)
            except AddressError as error:
                return str(error)
            return found, found.domain

        short = outcome()
        patch = self.patch(address_module, "_PLAIN", re.compile(r"(?!)"))
        try:
            self.assertEqual(outcome(), short)
        finally:
            patch.restore()

    @given(st.text(st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp")), min_size=1, max_size=16))
    @example("a\u0300")
    @settings(deadline=None, max_examples=200)
    def test_any_local_part_survives_being_written_and_read(self, local: str) -> None:
        address = Address(local, "example.org")
        self.assertEqual(parse_address(str(address)), address)
        self.assertEqual(parse_address(f"{quote_local(local)}@example.org"), address)

    @given(
        st.characters(categories=("Cc", "Cs", "Zl", "Zp")),
        st.sampled_from(["a{}b@h", '"a{}b"@h', "a@b{}c", "a@[{}]"]),
    )
    @settings(deadline=None, max_examples=150)
    def test_no_control_character_gets_in(self, character: str, form: str) -> None:
        with self.assertRaises(AddressError):
            parse_address(form.format(character))


class LengthTests(SynchronousTestCase):
    def refused(self, text: str, reason: str) -> None:
        with self.assertRaises(AddressError, msg=text) as caught:
            parse_address(text)
        self.assertIn(reason, str(caught.exception))

    def test_a_local_part_has_up_to_64_octets(self) -> None:
        for local in ("x" * 63, "x" * 64, "\u00e4" * 32):
            self.assertEqual(parse_address(f"{local}@example.org").local, local)
            self.assertEqual(parse_address(f'"{local}"@example.org').local, local)
        self.refused("x" * 65 + "@example.org", "64 octets")
        self.refused("\u00e4" * 32 + "x@example.org", "64 octets")
        self.refused('"' + "x" * 65 + '"@example.org', "64 octets")

    def test_quotes_and_escapes_do_not_count(self) -> None:
        self.assertEqual(parse_address('"' + '\\"' * 64 + '"@example.org').local, '"' * 64)
        self.refused('"' + '\\"' * 65 + '"@example.org', "64 octets")

    def test_a_label_has_up_to_63_octets(self) -> None:
        for length in (62, 63):
            self.assertEqual(parse_address(f"a@{'x' * length}.org").domain, "x" * length + ".org")
        self.refused(f"a@{'x' * 64}.org", "label")

    def test_a_u_label_is_measured_as_its_a_label(self) -> None:
        fits = next(n for n in range(60, 0, -1) if len(f"\u00e4{'x' * n}".encode("punycode")) + 4 == 63)
        self.assertEqual(len(parse_address(f"a@\u00e4{'x' * fits}.org").ascii_domain), 67)
        with self.assertRaises(AddressError):
            parse_address(f"a@\u00e4{'x' * (fits + 1)}.org")

    def test_an_address_has_up_to_254_octets(self) -> None:
        for length in (253, 254):
            text = "l" * 60 + "@" + domain_of(length - 61)
            self.assertEqual(len(str(parse_address(text))), length)
        self.refused("l" * 60 + "@" + domain_of(255 - 61), "254 octets")
        self.refused("\u00e4" * 30 + "@" + domain_of(255 - 61), "254 octets")

    def test_a_domain_has_up_to_255_octets(self) -> None:
        for length in (254, 255):
            self.assertEqual(len(normal_domain(domain_of(length))), length)
        with self.assertRaises(AddressError):
            normal_domain(domain_of(256))
        with self.assertRaises(AddressError):
            normal_domain(".".join(["\u00e4" * 30] * 8))  # 247 characters, but their A-labels are longer

    def test_a_megabyte_is_refused_unread(self) -> None:
        for text in (
            '"' * 2**20,
            "\\" * 2**20,
            "a." * 2**19,
            "@" + "[" * 2**20,
            "\u00e4" * 2**20,
            "a@" + "\u00e4" * 2**20,
        ):
            self.refused(text, "254 octets")
            with self.assertRaises(AddressError):
                normal_domain(text)


class ComparisonTests(SynchronousTestCase):
    def test_domains_are_equal_when_the_dns_says_so(self) -> None:
        one = parse_address("a@b\u00fccher.example.org")
        for text in ("a@xn--bcher-kva.example.org", "a@BU\u0308CHER.EXAMPLE.ORG"):
            self.assertEqual(parse_address(text), one)
            self.assertEqual(hash(parse_address(text)), hash(one))
        self.assertEqual(parse_address("a@[IPv6:2001:db8::1]"), parse_address("a@[IPV6:2001:0DB8:0::0:1]"))
        self.assertNotEqual(parse_address("a@bucher.example.org"), one)

    def test_local_parts_are_equal_to_the_letter_and_their_keys_are_folded(self) -> None:
        one, other = parse_address("Joe@example.org"), parse_address("joe@EXAMPLE.org")
        self.assertNotEqual(one, other)
        self.assertEqual(one.key, other.key)
        self.assertEqual(one.key, "joe@example.org")

    def test_quotes_make_no_difference(self) -> None:
        self.assertEqual(parse_address('"a.b"@example.org'), parse_address("a.b@example.org"))

    def test_local_parts_fold_in_canonical_caseless_matching(self) -> None:
        for one, other in [
            ("J\u00f6RG", "jo\u0308rg"),  # NFC and NFD
            ("STRASSE", "stra\u00dfe"),
            ("\u03a3", "\u03c2"),  # the two small sigmas
            ("\u0390", "\u0399\u0308\u0301"),  # a letter whose capital is three
            ("\u1e9b\u0323", "\u1e69"),
            ("\u212a", "K"),
        ]:
            self.assertEqual(fold_local(one), fold_local(other), ascii(one))

    def test_other_local_parts_stay_apart(self) -> None:
        for one, other in [("a", "b"), ("a", "\u00e4"), ("a.b", "ab"), ("\u0131", "i"), ("\uff41", "a")]:
            self.assertNotEqual(fold_local(one), fold_local(other), ascii(one))

    @given(st.text(max_size=20))
    @example("\u0390")
    @settings(deadline=None, max_examples=300)
    def test_a_folded_local_part_is_nfc_and_folds_to_itself(self, local: str) -> None:
        folded = fold_local(local)
        self.assertEqual(fold_local(folded), folded)
        self.assertTrue(unicodedata.is_normalized("NFC", folded))
        self.assertEqual(fold_local(unicodedata.normalize("NFD", local)), folded)

    @given(st.text("abcABC09-_.\u00e4\u00c4\u00df\u5c4b\u0438", min_size=1, max_size=20))
    @settings(deadline=None, max_examples=200)
    def test_a_normal_domain_is_ascii_and_its_own_normal_form(self, domain: str) -> None:
        try:
            normal = normal_domain(domain)
        except AddressError:
            return
        self.assertTrue(normal.isascii())
        self.assertEqual(normal, normal.lower())
        self.assertEqual(normal_domain(normal), normal)

    def test_a_trailing_dot_is_dropped_from_a_domain(self) -> None:
        self.assertEqual(normal_domain("Example.ORG."), "example.org")
        for domain in ("", ".", "example.org.."):
            with self.assertRaises(AddressError, msg=domain):
                normal_domain(domain)

    def test_ascii_addresses_need_no_smtputf8(self) -> None:
        for text, ascii_only in [
            ("a@example.org", True),
            ("\u00e4@example.org", False),
            ("a@\u00e4.example.org", False),
        ]:
            self.assertIs(parse_address(text).is_ascii, ascii_only, text)


#: local part, separator -> user, detail
DETAILS = [
    ("joe+list", "+", "joe", "list"),
    ("joe+", "+", "joe", ""),
    ("joe+a+b", "+", "joe", "a+b"),
    ("joe", "+", "joe", ""),
    ("+joe", "+", "+joe", ""),
    ("joe-list", "-", "joe", "list"),
    ("joe+list", "", "joe+list", ""),
    ("joe--list", "--", "joe", "list"),
]


class DetailTests(SynchronousTestCase):
    def test_the_detail_is_split_off(self) -> None:
        for local, separator, user, detail in DETAILS:
            found = Address(local, "example.org").split_detail(separator)
            self.assertEqual(found, (Address(user, "example.org"), detail), local)

    def test_an_address_without_a_detail_is_given_as_it_is(self) -> None:
        address = Address("joe", "example.org")
        self.assertIs(address.split_detail("+")[0], address)
