"""Tests of mailserver.sasl.scram: the vector of RFC 7677, scramp's client, channel bindings, downgrades, strangers."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st
from scramp import ScramClient, ScramMechanism
from twisted.trial.unittest import SynchronousTestCase

from mailserver.sasl import Challenge, Lookup, LookupServer, Malformed, Outcome, Scram, ScramKeys, VerifiedLogin
from mailserver.sasl.scram import MAX_NONCE
from mailserver.sasl.values import WrongProof

PASSWORD = "pencil"
SALT = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
SERVER_NONCE = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"

# RFC 7677 3, as it stands there.
CLIENT_FIRST = b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO"
SERVER_FIRST = b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
CLIENT_FINAL = (
    b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
)
SERVER_FINAL = b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="

BINDINGS = {"tls-exporter": b"e" * 32, "tls-server-end-point": b"s" * 32}


def keys_of(password: str, salt: bytes = SALT) -> ScramKeys:
    return ScramKeys(*ScramMechanism("SCRAM-SHA-256").make_auth_info(password, 4096, salt))


KEYS = keys_of(PASSWORD)
STRANGER = ScramKeys(SALT, bytes(32), bytes(32), 4096)


class Client:
    """The client's side with any GS2 header, on scramp's own computations."""

    def __init__(self, header: str, binding: bytes = b"", user: str = "user", password: str = PASSWORD) -> None:
        self.header, self.binding = header.encode(), binding
        self.scramp = ScramClient(["SCRAM-SHA-256"], user, password)

    def first(self) -> bytes:
        return self.header + self.scramp.get_client_first().encode().removeprefix(b"n,,")

    def final(self, server_first: bytes) -> bytes:
        """client-final with the real header: scramp's, where "c=" is put in before it is signed."""
        self.scramp.set_server_first(server_first.decode())
        outer = self

        class Header:
            def make_cbind_input(self, _binding: object) -> bytes:
                return outer.header + outer.binding

        self.scramp.gs2_header = Header()
        return bytes(self.scramp.get_client_final().encode())


class ScramTestCase(SynchronousTestCase):
    def challenge(self, outcome: Outcome) -> bytes:
        assert isinstance(outcome, Challenge), outcome
        return outcome.octets

    def run_exchange(self, exchange: Scram, client: Client, keys: ScramKeys = KEYS) -> Outcome:
        """The outcome of client-final."""
        self.assertEqual(exchange.start(client.first()), Lookup("user"))
        return exchange.respond(client.final(self.challenge(exchange.found(keys))))


class VectorTests(ScramTestCase):
    def exchange(self) -> Scram:
        return Scram({}, plus=False, nonce=SERVER_NONCE)

    def test_the_vector_of_rfc_7677(self) -> None:
        exchange = self.exchange()
        self.assertIsInstance(exchange, LookupServer)
        self.assertEqual(exchange.start(None), Challenge(b""))
        self.assertEqual(exchange.respond(CLIENT_FIRST), Lookup("user"))
        self.assertEqual(exchange.found(KEYS), Challenge(SERVER_FIRST))
        self.assertEqual(exchange.respond(CLIENT_FINAL), Challenge(SERVER_FINAL))
        self.assertEqual(exchange.respond(b""), VerifiedLogin("user"))

    def test_the_names_are_those_of_the_rfc(self) -> None:
        self.assertEqual(self.exchange().name, "SCRAM-SHA-256")
        self.assertEqual(Scram(BINDINGS, plus=True).name, "SCRAM-SHA-256-PLUS")

    def test_client_first_in_another_form_is_malformed(self) -> None:
        for what, message in [
            ("empty", b""),
            ("no header", b"n=user,r=abc"),
            ("no user", b"n,,r=abc"),
            ("an empty user", b"n,,n=,r=abc"),
            ("no nonce", b"n,,n=user"),
            ("an empty nonce", b"n,,n=user,r="),
            ("the other order", b"n,,r=abc,n=user"),
            ("the reserved extension", b"n,,m=x,n=user,r=abc"),
            ("an equals sign in the user", b"n,,n=us=er,r=abc"),
            ("a control character in the user", b"n,,n=us\ner,r=abc"),
            ("a line separator in the user", "n,,n=us\u2028er,r=abc".encode()),
            ("not UTF-8", b"n,,n=us\xffer,r=abc"),
            ("a blank in the nonce", b"n,,n=user,r=a b"),
            ("a nonce too long", b"n,,n=user,r=" + b"a" * (MAX_NONCE + 1)),
        ]:
            with self.assertRaises(Malformed, msg=what):
                self.exchange().start(message)

    def test_the_longest_nonce_is_taken(self) -> None:
        self.assertEqual(self.exchange().start(b"n,,n=user,r=" + b"a" * MAX_NONCE), Lookup("user"))

    def test_users_are_unescaped_and_prepared(self) -> None:
        for sent, user in [
            ("a=2Cb=3Dc", "a,b=c"),
            ("alice@example.org", "alice@example.org"),
            ("I\u00adX", "IX"),
            ("\u2168", "IX"),
        ]:
            self.assertEqual(self.exchange().start(f"n,,n={sent},r=abc".encode()), Lookup(user))

    def test_an_optional_extension_is_ignored(self) -> None:
        self.assertEqual(self.exchange().start(b"n,,n=user,r=abc,x=y"), Lookup("user"))

    def test_client_final_in_another_form_is_malformed(self) -> None:
        for what, message in [
            ("empty", b""),
            ("no proof", CLIENT_FINAL.partition(b",p=")[0]),
            ("another nonce", CLIENT_FINAL.replace(b"r=rO", b"r=rP")),
            ("the client's nonce alone", CLIENT_FINAL.replace(SERVER_NONCE.encode(), b"")),
            ("bad base64", CLIENT_FINAL.replace(b"p=dHz", b"p=d!z")),
            ("not UTF-8", CLIENT_FINAL + b"\xff"),
        ]:
            exchange = self.exchange()
            exchange.start(CLIENT_FIRST)
            exchange.found(KEYS)
            with self.assertRaises(Malformed, msg=what):
                exchange.respond(message)

    def test_a_wrong_proof_tells_the_user_and_ends_the_exchange(self) -> None:
        for message in (
            CLIENT_FINAL.replace(b"p=dHz", b"p=dHy"),
            CLIENT_FINAL.replace(b"p=dHzb", b"p="),
            CLIENT_FINAL.replace(b"c=biws", b"c=eSws"),
        ):
            exchange = self.exchange()
            exchange.start(CLIENT_FIRST)
            exchange.found(KEYS)
            outcome = exchange.respond(message)
            assert isinstance(outcome, WrongProof), message
            self.assertEqual(outcome.user, "user")
            self.assertRaises(Malformed, exchange.respond, CLIENT_FINAL)

    def test_the_answer_to_server_final_is_empty(self) -> None:
        exchange = self.exchange()
        exchange.start(CLIENT_FIRST)
        exchange.found(KEYS)
        exchange.respond(CLIENT_FINAL)
        self.assertRaises(Malformed, exchange.respond, b"x")
        self.assertRaises(Malformed, exchange.respond, b"")

    def test_keys_that_nobody_asked_for_are_an_accident_of_ours(self) -> None:
        exchange = self.exchange()
        self.assertRaises(RuntimeError, exchange.found, KEYS)
        exchange.start(CLIENT_FIRST)
        exchange.found(KEYS)
        self.assertRaises(RuntimeError, exchange.found, KEYS)

    def test_nothing_is_read_while_the_keys_are_awaited(self) -> None:
        exchange = self.exchange()
        exchange.start(CLIENT_FIRST)
        self.assertRaises(Malformed, exchange.respond, CLIENT_FINAL)

    def test_each_exchange_has_a_nonce_of_its_own(self) -> None:
        nonces = set()
        for _ in range(3):
            exchange = Scram({}, plus=False)
            exchange.start(CLIENT_FIRST)
            nonces.add(self.challenge(exchange.found(KEYS)).partition(b",")[0])
        self.assertEqual(len(nonces), 3)
        self.assertTrue(all(len(nonce) >= len("r=rOprNGfwEbeRWgbNEkqO") + 24 for nonce in nonces))

    def test_no_error_shows_what_was_sent(self) -> None:
        error = self.assertRaises(Malformed, self.exchange().start, b"n,,n=us=er,r=abc")
        self.assertEqual(str(error), "client-first is malformed")
        self.assertTrue(error.__suppress_context__)


class ClientTests(ScramTestCase):
    def test_the_clients_of_the_library_come_in(self) -> None:
        for plus, names, binding, offered in [
            (False, ["SCRAM-SHA-256"], None, {}),
            (False, ["SCRAM-SHA-256"], None, BINDINGS),
            (True, ["SCRAM-SHA-256", "SCRAM-SHA-256-PLUS"], ("tls-server-end-point", b"s" * 32), BINDINGS),
        ]:
            exchange = Scram(offered, plus=plus)
            client = ScramClient(names, "user", PASSWORD, channel_binding=binding)
            self.assertEqual(client.mechanism_name, exchange.name)
            self.assertEqual(exchange.start(client.get_client_first().encode()), Lookup("user"))
            client.set_server_first(self.challenge(exchange.found(KEYS)).decode())
            client.set_server_final(self.challenge(exchange.respond(client.get_client_final().encode())).decode())
            self.assertEqual(exchange.respond(b""), VerifiedLogin("user"))

    def test_each_type_of_channel_binding_is_taken(self) -> None:
        for name, data in BINDINGS.items():
            exchange = Scram(BINDINGS, plus=True)
            self.assertIsInstance(self.run_exchange(exchange, Client(f"p={name},,", data)), Challenge, name)
            self.assertEqual(exchange.respond(b""), VerifiedLogin("user"))

    def test_the_authorization_identity_is_told(self) -> None:
        for header, data, plus in [
            ("n,a=user,", b"", False),
            ("p=tls-exporter,a=user,", BINDINGS["tls-exporter"], True),
        ]:
            exchange = Scram(BINDINGS, plus=plus)
            self.assertIsInstance(self.run_exchange(exchange, Client(header, data)), Challenge)
            self.assertEqual(exchange.respond(b""), VerifiedLogin("user", "user"))

    def test_the_end_of_another_channel_is_a_wrong_proof(self) -> None:
        for data in (b"x" * 32, b"", BINDINGS["tls-server-end-point"]):
            outcome = self.run_exchange(Scram(BINDINGS, plus=True), Client("p=tls-exporter,,", data))
            self.assertEqual(outcome, WrongProof("user", "the client is at the end of another channel"))

    def test_a_changed_header_is_a_wrong_proof(self) -> None:
        # Somebody between took the authorization identity away, or added one.
        for sent, arrived in [(b"n,a=boss,", b"n,,"), (b"n,,", b"n,a=boss,")]:
            client = Client(sent.decode())
            exchange = Scram({}, plus=False)
            exchange.start(arrived + client.first().removeprefix(sent))
            outcome = exchange.respond(client.final(self.challenge(exchange.found(KEYS))))
            self.assertIsInstance(outcome, WrongProof)

    def test_headers_that_do_not_fit_what_we_offer_fail_before_the_lookup(self) -> None:
        for what, header, offered, plus, reason in [
            ("a downgrade", "y,,", BINDINGS, False, "somebody has hidden"),
            ("PLUS with y", "y,,", BINDINGS, True, "does not bind the channel"),
            ("PLUS with n", "n,,", BINDINGS, True, "does not bind the channel"),
            ("a type that we do not have", "p=tls-unique,,", BINDINGS, True, "not one of ours"),
            ("a binding where none is offered", "p=tls-exporter,,", {}, False, "not one of ours"),
        ]:
            outcome = Scram(offered, plus=plus).start(Client(header).first())
            assert isinstance(outcome, WrongProof), what
            self.assertEqual(outcome.user, "user")
            self.assertIn(reason, outcome.reason, what)

    def test_y_is_right_where_nothing_is_offered(self) -> None:
        self.assertIsInstance(self.run_exchange(Scram({}, plus=False), Client("y,,")), Challenge)

    def test_plus_needs_a_binding(self) -> None:
        self.assertRaises(ValueError, Scram, {}, plus=True)


class StrangerTests(ScramTestCase):
    def shape(self, keys: ScramKeys, password: str) -> list[str]:
        """The dialogue with what is random made equal."""
        exchange = Scram({}, plus=False)
        client = Client("n,,", password=password)
        steps: list[Outcome] = [exchange.start(client.first()), exchange.found(keys)]
        steps.append(exchange.respond(client.final(self.challenge(steps[1]))))
        return [re.sub(r"r=[^,']*", "r=", repr(step)) for step in steps]

    def test_a_stranger_and_a_wrong_password_look_the_same(self) -> None:
        wrong = self.shape(KEYS, "wrong")
        self.assertIn("WrongProof", wrong[-1])
        self.assertEqual(self.shape(STRANGER, "wrong"), wrong)
        self.assertEqual(self.shape(STRANGER, PASSWORD), wrong)
        self.assertNotEqual(self.shape(KEYS, PASSWORD), wrong)


PIECES = [b"n,,", b"p=tls-exporter,,", b"n=user", b"r=abc", b",", b"=", b"c=biws", b"p=AAAA", b"m=x", b"\xff", b"a=b"]
messages = st.binary(max_size=40) | st.lists(st.sampled_from(PIECES), max_size=8).map(b"".join)


class TotalityTests(ScramTestCase):
    def quiet(self, step: Callable[[bytes], Outcome], message: bytes) -> Outcome | None:
        try:
            return step(message)
        except Malformed:
            return None

    @given(messages, messages, st.booleans())
    @settings(deadline=None, max_examples=200)
    def test_no_octets_raise_anything_but_malformed_or_come_in(self, first: bytes, final: bytes, plus: bool) -> None:
        exchange = Scram(BINDINGS, plus=plus, nonce="def")
        outcome = self.quiet(exchange.start, first)
        if isinstance(outcome, Lookup):
            exchange.found(KEYS)
            self.assertNotIsInstance(self.quiet(exchange.respond, final), Challenge | VerifiedLogin)
        else:
            self.assertIsInstance(outcome, WrongProof | None)

    @given(st.binary(max_size=40), st.integers(0, len(CLIENT_FINAL)))
    @settings(deadline=None, max_examples=200)
    def test_no_change_of_the_right_message_comes_in(self, octets: bytes, at: int) -> None:
        # The last character of base64 has bits that mean nothing; another with the same meaning is no change.
        body, end = CLIENT_FINAL[:-2], CLIENT_FINAL[-2:]
        message = (body[:at] + octets + body[at + len(octets) :]) + end
        exchange = Scram({}, plus=False, nonce=SERVER_NONCE)
        exchange.start(CLIENT_FIRST)
        exchange.found(KEYS)
        outcome = self.quiet(exchange.respond, message)
        self.assertEqual(isinstance(outcome, Challenge), message == CLIENT_FINAL)


class KeysTests(SynchronousTestCase):
    def test_keys_that_cannot_be_are_refused(self) -> None:
        for keys in [
            (b"s" * 11, bytes(32), bytes(32), 4096),
            (b"s" * 256, bytes(32), bytes(32), 4096),
            (SALT, bytes(31), bytes(32), 4096),
            (SALT, bytes(32), bytes(33), 4096),
            (SALT, bytes(32), bytes(32), 4095),
            (SALT, bytes(32), bytes(32), 10_000_001),
        ]:
            self.assertRaises(ValueError, ScramKeys, *keys)

    def test_keys_at_the_limits_work(self) -> None:
        for keys in [
            ScramKeys(b"s" * 12, bytes(32), bytes(32), 4096),
            ScramKeys(b"s" * 255, bytes(32), bytes(32), 10_000_000),
        ]:
            exchange = Scram({}, plus=False)
            exchange.start(CLIENT_FIRST)
            self.assertIsInstance(exchange.found(keys), Challenge)

    def test_no_repr_shows_a_key(self) -> None:
        self.assertIn("4096", repr(KEYS))
        for key in (KEYS.stored_key, KEYS.server_key):
            self.assertNotIn(repr(key)[2:10], repr(KEYS))
