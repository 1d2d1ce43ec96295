"""
LMTP, over a Unix socket and TCP: Postfix as the mail system in front, swaks, and Python's own client; each recipient has
a result of its own.
"""

from __future__ import annotations

import os
import smtplib
import stat

from tests.interop.clients import SENDER, call, missing
from tests.interop.relays import POSTFIX, Postfix, missing_relay
from tests.interop.running import DOMAINS, LIMITS, SERVER, RunningServer, ServerTestCase, listener
from tests.interop.test_delivery import BODIES, on_disk, text_of_size
from tests.interop.test_postfix import HEADER, without_relay

ANNA, BOB, SMALL = "anna@example.org", "bob@example.org", "small@example.org"
UNIX = {"unix_mode": '"0660"', "unix_owner": '"root:postfix"'}
TCP = listener("tcp", "127.0.0.1:0", "lmtp")


class LMTPTestCase(ServerTestCase):
    def server(self, **unix: str) -> RunningServer:
        return self.serve(SERVER + LIMITS + TCP + listener("unix", "unix:lmtp.sock", "lmtp", **unix) + DOMAINS)


class PostfixTests(LMTPTestCase):
    skip = missing_relay(POSTFIX, "Postfix", "postfix")

    def relay(self, server: RunningServer, *, unix: bool, **settings: str) -> Postfix:
        host, port = server.address("tcp")
        place = f"unix:{server.directory}/lmtp.sock" if unix else f"inet:[{host}]:{port}"
        postfix = Postfix(self.new_directory(), {"default_transport": f"lmtp:{place}", **settings})
        postfix.start()
        self.addCleanup(postfix.stop)
        return postfix

    def _each_recipient(self, *, unix: bool, refused_at: str) -> None:
        """refused_at: where the mailbox is known to be too small; at RCPT when MAIL has told the size."""
        server = self.server(**UNIX)
        if unix:
            status = (server.directory / "lmtp.sock").stat()
            self.assertEqual(stat.S_IMODE(status.st_mode), 0o660)
        keywords = {"RCPT": "", "end of data": "size"}[refused_at]
        postfix = self.relay(server, unix=unix, lmtp_discard_lhlo_keywords=keywords)
        text = HEADER + text_of_size(30_000)  # more than one of them may have
        postfix.send(SENDER, [ANNA, SMALL, BOB], text)
        results = {each.recipient: (each.status, each.dsn) for each in postfix.results(3)}
        self.assertEqual(results, {ANNA: ("sent", "2.0.0"), BOB: ("sent", "2.0.0"), SMALL: ("deferred", "4.2.2")})
        self.assertEqual(len(postfix.commands("MAIL")), 1)
        server.accounts("account", "quota", SMALL, "0")
        postfix.flush()
        self.assertEqual([(each.recipient, each.status) for each in postfix.results(4)[3:]], [(SMALL, "sent")])
        for account in (ANNA, SMALL, BOB):
            self.assertEqual([without_relay(each) for each in server.messages(account)], [on_disk(text)], account)
        stored = server.files(SMALL)[0].read_bytes()
        self.assertIn(b" with LMTP id ", stored)
        self.assertIn(b"Received: from relay.example.com (" + (b"local socket)" if unix else b"[127.0.0.1])"), stored)
        (first, _) = server.await_events("message", 2)
        replies = {to: reply[:9] for to, reply in zip(first["recipients"], first["replies"], strict=True)}
        late = {} if refused_at == "RCPT" else {SMALL: "452 4.2.2"}
        self.assertEqual(replies, {ANNA: "250 2.0.0", BOB: "250 2.0.0", **late})

    def test_each_recipient_has_a_result_over_a_unix_socket(self) -> None:
        for refused_at in ("RCPT", "end of data"):
            self._each_recipient(unix=True, refused_at=refused_at)

    def test_each_recipient_has_a_result_over_tcp(self) -> None:
        self._each_recipient(unix=False, refused_at="end of data")

    def test_bodies_of_every_shape_and_an_unknown_recipient(self) -> None:
        server = self.server(**UNIX)
        postfix = self.relay(server, unix=True)
        texts = [HEADER + body for name, body in BODIES.items() if "100,000" not in name and "NUL" not in name]
        for text in texts:
            postfix.send(SENDER, [ANNA, BOB], text, ["BODY=8BITMIME"])
        results = postfix.results(2 * len(texts))
        self.assertEqual({each.status for each in results}, {"sent"})
        for account in (ANNA, BOB):
            kept = sorted(without_relay(each) for each in server.messages(account))
            self.assertEqual(kept, sorted(map(on_disk, texts)), account)
        postfix.send(SENDER, ["nobody@example.org"], HEADER)
        unknown = postfix.results(2 * len(texts) + 1)[-2:]
        self.assertIn(("nobody@example.org", "bounced", "5.1.1"), [(e.recipient, e.status, e.dsn) for e in unknown])


class ClientsTests(LMTPTestCase):
    def test_smtplib(self) -> None:
        server = self.server()
        path = server.directory / "lmtp.sock"
        self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o600)
        self.assertEqual(path.stat().st_uid, os.geteuid())
        host, port = server.address("tcp")
        for client in (smtplib.LMTP(os.fspath(path)), smtplib.LMTP(host, port)):
            with client:
                self.assertEqual(client.docmd("EHLO x")[0], 500)
                self.assertEqual(client.ehlo()[0], 250)  # its LMTP says LHLO
                self.assertTrue(client.has_extn("pipelining") and client.has_extn("enhancedstatuscodes"))
                client.mail(SENDER)
                self.assertEqual(
                    [client.rcpt(each)[0] for each in (ANNA, "nobody@example.org", BOB)], [250, 550, 250]
                )
                # It knows of one reply for all; the second is here.
                self.assertEqual(client.data(HEADER + b"x\r\n")[0], 250)
                self.assertEqual(client.getreply()[0], 250)
                self.assertEqual(client.noop()[0], 250)
                self.assertEqual(client.sendmail(SENDER, [ANNA], HEADER + b"y\r\n"), {})
        head = on_disk(HEADER)
        self.assertEqual(server.messages(BOB), [head + b"x\n"] * 2)
        self.assertEqual(sorted(server.messages(ANNA)), sorted([head + b"x\n", head + b"y\n"] * 2))

    def test_swaks(self) -> None:
        if reason := missing("swaks"):
            self.skipTest(reason)
        server = self.server()
        host, port = server.address("tcp")
        for place in (["--socket", f"{server.directory}/lmtp.sock"], ["--server", f"{host}:{port}"]):
            to = ["--from", SENDER, "--to", ANNA]
            told = call(["swaks", *place, "--protocol", "LMTP", "--pipeline", "--timeout", "30", *to])
            self.assertIn(" -> LHLO ", told)
            self.assertIn(f"<-  250 2.0.0 <{ANNA}> Ok: queued as ", told)
        self.assertEqual(len(server.files(ANNA)), 2)
