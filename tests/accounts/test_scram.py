"""Tests of mailserver.accounts.scram: the keys of RFC 7677 3, texts that are none, and keys for strangers."""

from __future__ import annotations

import base64
import unicodedata

from hypothesis import given, settings
from hypothesis import strategies as st
from scramp import ScramClient
from twisted.trial.unittest import SynchronousTestCase

from mailserver.accounts.scram import ITERATIONS, MOST_ACCEPTED, made_up, make, matches, parse, prepared
from mailserver.sasl import Challenge, Lookup, Scram, ScramKeys, VerifiedLogin
from mailserver.sasl.values import LEAST_ITERATIONS, WrongProof

# The password "pencil" with the salt and the iterations of RFC 7677 3.
SALT = "W22ZaJ0SNY7soEsUEjb6gQ=="
STORED = "WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY="
SERVER = "wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
PENCIL = f"4096,{SALT},{STORED},{SERVER}"


class TextTests(SynchronousTestCase):
    def test_the_keys_of_rfc_7677_are_read(self) -> None:
        keys = parse(PENCIL)
        self.assertEqual(keys, ScramKeys(*map(base64.b64decode, (SALT, STORED, SERVER)), 4096))

    def test_the_iterations_are_bounded(self) -> None:
        for count, taken in [
            (LEAST_ITERATIONS - 1, False),
            (LEAST_ITERATIONS, True),
            (MOST_ACCEPTED, True),
            (MOST_ACCEPTED + 1, False),
        ]:
            self.assertIs(parse(PENCIL.replace("4096", str(count))) is not None, taken, count)

    def test_text_of_another_form_holds_no_keys(self) -> None:
        for text in (
            "",
            "4096",
            f"04096,{SALT},{STORED},{SERVER}",
            f"+4096,{SALT},{STORED},{SERVER}",
            f"4096,{SALT},{STORED}",
            f"4096,{SALT},{STORED},{SERVER},x",
            f"4096,c2hvcnQ=,{STORED},{SERVER}",
            f"4096,{SALT}=,{STORED},{SERVER}",
            f"4096,{SALT[:-1]},{STORED},{SERVER}",
            f"4096,{SALT},{SALT},{SERVER}",
            f"4096,{SALT},{STORED},{SERVER}\n",
            f"4096, {SALT},{STORED},{SERVER}",
        ):
            self.assertIsNone(parse(text), text)
            self.assertFalse(matches(text, b"pencil"))

    def test_only_the_password_matches(self) -> None:
        self.assertTrue(matches(PENCIL, b"pencil"))
        for other in (b"Pencil", b"", b"pencil "):
            self.assertFalse(matches(PENCIL, other))

    @given(st.text(max_size=40) | st.sampled_from([PENCIL[:at] for at in range(len(PENCIL))]))
    @settings(deadline=None, max_examples=100)
    def test_any_text_holds_keys_or_none(self, text: str) -> None:
        self.assertIsNone(parse(text))


class MakeTests(SynchronousTestCase):
    def test_new_keys_have_a_salt_of_their_own_and_our_iterations(self) -> None:
        one, other = parse(make("pencil")), parse(make("pencil"))
        assert one is not None
        assert other is not None
        self.assertEqual((one.iterations, len(one.salt)), (ITERATIONS, 16))
        self.assertGreaterEqual(ITERATIONS, 10_000)
        self.assertNotEqual(one.salt, other.salt)
        self.assertNotEqual(one.stored_key, other.stored_key)

    def test_a_client_gets_in_however_the_password_is_composed(self) -> None:
        keys = parse(make("p\u00e4ss\u00adw\u00f6rd \u2168"))
        assert keys is not None
        for sent, outcome in [
            ("p\u00e4ssw\u00f6rd IX", VerifiedLogin("user")),
            (unicodedata.normalize("NFD", "p\u00e4ssw\u00f6rd IX"), VerifiedLogin("user")),
            ("passwort", None),
        ]:
            exchange = Scram({}, plus=False)
            client = ScramClient(["SCRAM-SHA-256"], "user", sent)
            self.assertEqual(exchange.start(client.get_client_first().encode()), Lookup("user"))
            first = exchange.found(keys)
            assert isinstance(first, Challenge)
            client.set_server_first(first.octets.decode())
            final = exchange.respond(client.get_client_final().encode())
            if outcome is None:
                self.assertIsInstance(final, WrongProof)
            else:
                self.assertEqual(exchange.respond(b""), outcome, sent)

    def test_what_saslprep_forbids_or_empties_has_no_keys(self) -> None:
        for password in ("\U0001f600", "a\u0627", "a\ue000", "\u00ad", ""):
            self.assertEqual(make(password), "", password)
        self.assertIsNone(prepared("a\u0627"))
        self.assertEqual(prepared("I\u00adX"), "IX")


class StrangerTests(SynchronousTestCase):
    def test_who_asks_twice_sees_the_same(self) -> None:
        self.assertEqual(made_up(b"s" * 32, "a@example.org"), made_up(b"s" * 32, "a@example.org"))

    def test_they_look_like_those_that_we_make(self) -> None:
        stranger, real = made_up(b"s" * 32, "a@example.org"), parse(make("pencil"))
        assert real is not None
        self.assertEqual((len(stranger.salt), stranger.iterations), (len(real.salt), real.iterations))

    def test_another_name_or_secret_has_others(self) -> None:
        names = [(b"s" * 32, "a@example.org"), (b"s" * 32, "b@example.org"), (b"t" * 32, "a@example.org")]
        octets = {
            part
            for keys in (made_up(*each) for each in names)
            for part in (keys.salt, keys.stored_key, keys.server_key)
        }
        self.assertEqual(len(octets), 9)

    @given(st.text(max_size=20))
    @settings(deadline=None, max_examples=50)
    def test_any_name_has_keys(self, name: str) -> None:
        self.assertIsInstance(made_up(b"s", name), ScramKeys)
