"""
Postfix hands mail on to the server, as the next hop that it has in the world: in clear text, with STARTTLS, in TLS;
pipelined and not; with DSN parameters and UTF-8; and what it makes of our refusals.
"""

from __future__ import annotations

import re

from tests.interop.clients import SENDER
from tests.interop.relays import POSTFIX, Postfix, missing_relay
from tests.interop.running import DOMAINS, LIMITS, SERVER, RunningServer, ServerTestCase, listener
from tests.interop.test_delivery import BODIES, on_disk, text_of_size

ANNA, BOB = "anna@example.org", "bob@example.org"
HEADER = (
    b"From: <sender@example.net>\r\nSubject: relayed\r\nDate: Fri, 20 Nov 2026 12:00:00 +0000\r\n"
    b"Message-ID: <1@example.net>\r\n\r\n"
)
DOORS = listener("in", "127.0.0.1:0") + listener("tls", "127.0.0.1:0", tls='"implicit"')
#: Senders by which a transport of Postfix is chosen.
WAYS = ("smtp", "starttls", "implicit", "unpipelined")


def without_relay(stored: bytes) -> bytes:
    """What was given to Postfix: without the Received field that it adds."""
    found = re.match(rb"Received: from [^\n]+\n(?:[ \t][^\n]+\n)+", stored)
    assert found is not None, stored[:300]
    return stored[found.end() :]


class PostfixTests(ServerTestCase):
    skip = missing_relay(POSTFIX, "Postfix", "postfix")

    def relay(self, server: RunningServer, **settings: str) -> Postfix:
        """A Postfix that hands on to this server, over the way that stands in the sender's local part."""
        plain, tls = (server.address(name)[1] for name in ("in", "tls"))
        ways = [f"{{ {way}@example.net = {way}:[127.0.0.1]:{tls if way == 'implicit' else plain} }}" for way in WAYS]
        postfix = Postfix(
            self.new_directory(),
            {
                "default_transport": f"smtp:[127.0.0.1]:{plain}",
                "sender_dependent_default_transport_maps": f"inline:{{ {', '.join(ways)} }}",
                **settings,
            },
        )
        postfix.start()
        self.addCleanup(postfix.stop)
        return postfix

    def test_every_way_and_every_shape_of_body(self) -> None:
        server = self.serve(SERVER + LIMITS + DOORS + DOMAINS)
        postfix = self.relay(server)
        # Postfix itself folds longer lines, replaces NUL, and ends the last line.
        fitting = {name: body for name, body in BODIES.items() if "100,000" not in name and "NUL" not in name}
        texts = [HEADER + body for body in fitting.values()] + [HEADER + text_of_size(300_000)]
        for way in WAYS:
            for text in texts:
                postfix.send(f"{way}@example.net", [ANNA], text, ["BODY=8BITMIME"])
        results = postfix.results(len(WAYS) * len(texts))
        self.assertEqual({(each.status, each.dsn) for each in results}, {("sent", "2.0.0")})
        kept = sorted(without_relay(text) for text in server.messages(ANNA))
        self.assertEqual(kept, sorted(on_disk(text) for text in texts * len(WAYS)))
        events = server.await_events("message", len(results))
        protocols = {event["sender"].partition("@")[0]: (event["protocol"], bool(event["tls"])) for event in events}
        self.assertEqual(
            protocols,
            {
                "smtp": ("ESMTP", False),
                "unpipelined": ("ESMTP", False),
                "starttls": ("ESMTPS", True),
                "implicit": ("ESMTPS", True),
            },
        )

    def test_dsn_parameters_and_utf8_addresses_are_passed(self) -> None:
        server = self.serve(SERVER + LIMITS + DOORS + DOMAINS)
        postfix = self.relay(server)
        postfix.send(
            SENDER,
            [ANNA],
            HEADER,
            ["RET=HDRS", "ENVID=QQ314159"],
            ["NOTIFY=SUCCESS,FAILURE", "ORCPT=rfc822;anna+2Blist@example.org"],
        )
        postfix.results(1)
        (mail,), (rcpt,) = postfix.commands("MAIL"), postfix.commands("RCPT")
        self.assertIn(" ENVID=QQ314159 RET=HDRS", mail)
        self.assertIn(" ORCPT=rfc822;anna+2Blist@example.org NOTIFY=SUCCESS,FAILURE", rcpt)
        # We have promised to do what NOTIFY asks for, so Postfix does not report that it has relayed the mail.
        self.assertEqual(server.messages("postmaster@example.org"), [])
        text = "Subject: Grüße\r\n\r\nпривет\r\n".encode()
        postfix.send("отправитель@example.net", ["grün@example.org"], text, ["SMTPUTF8", "BODY=8BITMIME"])
        self.assertEqual([each.status for each in postfix.results(2)], ["sent", "sent"])
        self.assertIn("SMTPUTF8", postfix.commands("MAIL")[1])
        self.assertEqual([without_relay(each) for each in server.messages("grün@example.org")], [on_disk(text)])
        self.assertEqual(server.await_events("message", 2)[1]["protocol"], "UTF8SMTP")

    def test_one_refused_recipient_is_bounced_and_the_others_have_the_mail(self) -> None:
        server = self.serve(SERVER + LIMITS + DOORS + DOMAINS)
        postfix = self.relay(server)
        postfix.send(SENDER, [ANNA, "nobody@example.org", BOB], HEADER + b"three\r\n")
        results = {each.recipient: (each.status, each.dsn) for each in postfix.results(4)}
        self.assertEqual(results[ANNA], ("sent", "2.0.0"))
        self.assertEqual(results[BOB], ("sent", "2.0.0"))
        self.assertEqual(results["nobody@example.org"], ("bounced", "5.1.1"))
        for account in (ANNA, BOB):
            self.assertEqual(
                [without_relay(each) for each in server.messages(account)], [on_disk(HEADER) + b"three\n"]
            )
        # Its report comes to us too, from <>.
        self.assertEqual(results[SENDER][0], "sent")
        (report,) = server.files("postmaster@example.org")
        self.assertTrue(report.read_bytes().startswith(b"Return-Path: <>\n"))
        self.assertIn(b"Diagnostic-Code: smtp; 550 5.1.1 ", report.read_bytes())

    def test_a_message_over_the_limit_is_bounced_once(self) -> None:
        limits = LIMITS + 'message_size = "64 KiB"\n'
        server = self.serve(SERVER + limits + DOORS + DOMAINS)
        postfix = self.relay(server, smtp_discard_ehlo_keywords="size")
        postfix.send(SENDER, [ANNA], HEADER + text_of_size(100_000))
        (refused, *_) = postfix.results(1)
        self.assertEqual((refused.status, refused.dsn), ("bounced", "5.3.4"))
        self.assertIn("552 5.3.4", refused.text)
        self.assertIn("end of DATA command", refused.text)
        self.assertEqual(server.messages(ANNA), [])

    def test_a_failure_for_a_while_is_tried_again(self) -> None:
        server = self.serve(SERVER + LIMITS + DOORS + DOMAINS)
        postfix = self.relay(server)
        text = HEADER + text_of_size(30_000)  # more than this account may have
        postfix.send(SENDER, ["small@example.org"], text)
        (deferred,) = postfix.results(1)
        self.assertEqual((deferred.status, deferred.dsn), ("deferred", "4.2.2"))
        server.accounts("account", "quota", "small@example.org", "0")
        postfix.flush()
        self.assertEqual(postfix.results(2)[1].status, "sent")
        self.assertEqual([without_relay(each) for each in server.messages("small@example.org")], [on_disk(text)])
