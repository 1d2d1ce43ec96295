"""Exim hands mail on to the server: with BDAT where CHUNKING is on offer, with DATA where it is not; in TLS and without."""

from __future__ import annotations

from tests.interop.clients import SENDER
from tests.interop.relays import EXIM, Exim, missing_relay
from tests.interop.running import DOMAINS, LIMITS, SERVER, ServerTestCase, listener
from tests.interop.test_delivery import BODIES, on_disk, text_of_size
from tests.interop.test_postfix import HEADER, without_relay

ANNA, BOB = "anna@example.org", "bob@example.org"
DOORS = listener("chunked", "127.0.0.1:0") + listener(
    "plain", "127.0.0.1:0", extensions_off='["CHUNKING", "BINARYMIME"]'
)


class EximTests(ServerTestCase):
    skip = missing_relay(EXIM, "Exim", "Debian-exim")

    def test_chunked_and_unchunked_mail_arrives_whole(self) -> None:
        server = self.serve(SERVER + LIMITS + DOORS + DOMAINS)
        # Exim itself bounces long lines, and replaces NUL.
        bodies = [body for name, body in BODIES.items() if "100,000" not in name and name != "a NUL"]
        texts = [HEADER + body for body in bodies] + [HEADER + text_of_size(500_000)]
        for door, verb in (("chunked", "BDAT"), ("plain", "DATA")):
            for options, tls in (("hosts_require_tls = *", True), ("hosts_avoid_tls = *", False)):
                with self.subTest(f"{door} {options}"):
                    exim = Exim(self.new_directory(), server.address(door)[1], options)
                    before = len(server.events("message"))
                    for text in texts:
                        told = exim.send(SENDER, [ANNA], text)
                        self.assertRegex(told, rf"SMTP[>|+]+ {verb}", told)
                    events = server.await_events("message", before + len(texts))[before:]
                    self.assertEqual({event["reply"][:9] for event in events}, {"250 2.0.0"})
                    self.assertEqual({bool(event["tls"]) for event in events}, {tls})
        kept = sorted(without_relay(each) for each in server.messages(ANNA))
        self.assertEqual(kept, sorted(on_disk(text) for text in texts * 4))

    def test_one_of_several_recipients_is_refused(self) -> None:
        server = self.serve(SERVER + LIMITS + DOORS + DOMAINS)
        exim = Exim(self.new_directory(), server.address("chunked")[1])
        told = exim.send(SENDER, [ANNA, "nobody@example.org", BOB], HEADER + b"x\r\n")
        self.assertIn("** nobody@example.org", told)
        self.assertIn("550 5.1.1", told)
        for account in (ANNA, BOB):
            self.assertEqual([without_relay(each) for each in server.messages(account)], [on_disk(HEADER) + b"x\n"])

    def test_a_message_over_the_limit_in_a_chunk(self) -> None:
        server = self.serve(SERVER + LIMITS + 'message_size = "64 KiB"\n' + DOORS + DOMAINS)
        exim = Exim(self.new_directory(), server.address("chunked")[1], "size_addition = -1")
        told = exim.send(SENDER, [ANNA], HEADER + text_of_size(100_000))
        self.assertIn("552 5.3.4", told)
        self.assertEqual(server.files(ANNA), [])
