"""Signatures of webhooks: the published vector, and everything that must not pass."""

from __future__ import annotations

import base64

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver.apps.signing import PREFIX, read_secret, signed_headers, verify_signature

# The vector that the libraries of Standard Webhooks are tested with.
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
IDENTIFIER, SECONDS, BODY = "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}'
SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
HEADERS = {"webhook-id": IDENTIFIER, "webhook-timestamp": str(SECONDS), "webhook-signature": SIGNATURE}
OTHER = PREFIX + base64.b64encode(b"another key, of thirty octets.").decode()


class SignTests(SynchronousTestCase):
    def test_the_published_vector(self) -> None:
        for blocks in ([BODY], [BODY[:7], BODY[7:]]):
            self.assertEqual(signed_headers([read_secret(SECRET)], IDENTIFIER, SECONDS + 0.7, blocks), HEADERS)

    def test_each_key_signs(self) -> None:
        keys = [read_secret(OTHER), read_secret(SECRET)]
        headers = signed_headers(keys, IDENTIFIER, SECONDS, [BODY])
        self.assertEqual(headers["webhook-signature"].split(" ")[1], SIGNATURE)
        for secret in (SECRET, OTHER):
            self.assertTrue(verify_signature(BODY, headers, secret, now=SECONDS))


class VerifyTests(SynchronousTestCase):
    def verify(self, body: bytes = BODY, secret: str = SECRET, now: float = SECONDS, **changes: str) -> bool:
        headers = HEADERS | {f"webhook-{name}": value for name, value in changes.items()}
        return verify_signature(body, headers, secret, now=now)

    def test_what_is_right(self) -> None:
        self.assertTrue(self.verify())
        self.assertTrue(self.verify(now=SECONDS + 300) and self.verify(now=SECONDS - 300))
        self.assertTrue(self.verify(signature=f"v1a,abc v1,AAAA {SIGNATURE}"))
        upper = {name.title(): value for name, value in HEADERS.items()}
        self.assertTrue(verify_signature(BODY, upper, SECRET, now=SECONDS))

    def test_what_is_wrong(self) -> None:
        self.assertFalse(self.verify(body=BODY + b" "))
        self.assertFalse(self.verify(secret=OTHER))
        self.assertFalse(self.verify(now=SECONDS + 301))
        self.assertFalse(self.verify(now=SECONDS - 301))
        self.assertFalse(self.verify(id="msg_other"))
        self.assertFalse(self.verify(timestamp=str(SECONDS + 1)))
        for bad in ("", "v1", "v1,", "v1,***", SIGNATURE.replace("v1", "v2"), SIGNATURE[:-5], "v1," + "A" * 44):
            self.assertFalse(self.verify(signature=bad), bad)
        for bad in ("", "-1", "soon", "9" * 20, "١٢٣"):
            self.assertFalse(self.verify(timestamp=bad), bad)
        self.assertFalse(verify_signature(BODY, {}, SECRET, now=SECONDS))
        self.assertFalse(self.verify(id="\ud800"))

    def test_only_so_many_signatures_are_looked_at(self) -> None:
        self.assertFalse(self.verify(signature="v1,AAAA " * 16 + SIGNATURE))

    @given(st.dictionaries(st.sampled_from(sorted(HEADERS)), st.text(max_size=60)), st.binary(max_size=40))
    def test_nothing_that_is_made_up_passes_or_raises(self, headers: dict[str, str], body: bytes) -> None:
        self.assertFalse(verify_signature(body, headers, SECRET, now=SECONDS))


class SecretTests(SynchronousTestCase):
    def test_what_is_no_secret_is_refused_without_being_quoted(self) -> None:
        for bad in ("hunter2", "whsec_***hunter2", "whsec_" + base64.b64encode(b"x" * 23).decode()):
            error = self.assertRaises(ValueError, read_secret, bad)
            self.assertNotIn(bad.removeprefix("whsec_"), str(error))
        self.assertRaises(ValueError, read_secret, "whsec_" + base64.b64encode(b"x" * 65).decode())

    def test_the_shortest_and_the_longest(self) -> None:
        for size in (24, 64):
            self.assertEqual(read_secret("whsec_" + base64.b64encode(b"x" * size).decode() + "\n"), b"x" * size)
