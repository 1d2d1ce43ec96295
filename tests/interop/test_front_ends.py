"""
Who the client is when somebody speaks for it: swaks with XCLIENT and with both versions of the PROXY protocol, IPv4 and
IPv6; and the limits for each client, which loopback addresses of our own do not have.
"""

from __future__ import annotations

import contextlib
import json
import smtplib
import socket

from tests.interop.clients import SENDER, ClientFailed, call, missing, session
from tests.interop.running import DOMAINS, PASSWORDS, PATIENCE, SERVER, RunningServer, ServerTestCase, listener

ANNA = "anna@example.org"
TEXT = b"Subject: from afar\r\n\r\nx\r\n"
LOOPBACK = '["127.0.0.0/8"]'
DOORS = (
    listener("front", "127.0.0.1:0", xclient=LOOPBACK)
    + listener("proxied", "127.0.0.1:0", proxy_protocol="true", trusted_proxies=LOOPBACK)
    + listener("submission", "127.0.0.1:0", "submission", xclient=LOOPBACK)
)
LIMITS = """
[limits]
auth_failure_delay = 0
auth_failures = 100
"""


#: The reply ends the connection and tells the reason; a mailer comes again later.
TOO_FAST = 421


class SwaksTests(ServerTestCase):
    skip = missing("swaks")

    def send(self, server: RunningServer, door: str, *options: str) -> tuple[str, bytes]:
        """swaks through this door: what it says, and what lies in the mailbox."""
        host, port = server.address(door)
        address = ["--server", host, "--port", str(port), "--timeout", "30"]
        told = call(["swaks", *address, "--from", SENDER, "--to", ANNA, "--helo", "mx.example.net", *options])
        return told, server.files(ANNA)[-1].read_bytes()

    def test_xclient(self) -> None:
        server = self.serve(SERVER + LIMITS + DOORS + DOMAINS)
        for address, shown in (("192.0.2.9", "[192.0.2.9]"), ("IPV6:2001:db8::9", "[IPv6:2001:db8::9]")):
            for tls in ([], ["--tls"], ["--tls", "--xclient-before-starttls"]):
                attributes = ["--xclient-addr", address, "--xclient-name", "mx.example.net", "--xclient-port", "4711"]
                told, stored = self.send(server, "front", *attributes, *tls)
                self.assertIn(" XCLIENT ADDR=", told.upper())
                self.assertIn(f"Received: from mx.example.net ({shown})".encode(), stored)
                self.assertEqual(server.events("message")[-1]["peer"], shown.strip("[]").removeprefix("IPv6:"))

    def test_xclient_only_for_trusted_hosts(self) -> None:
        other = listener("other", "127.0.0.1:0", xclient='["192.0.2.0/24"]')
        server = self.serve(SERVER + LIMITS + other + DOMAINS)
        error = self.assertRaises(ClientFailed, self.send, server, "other", "--xclient-addr", "192.0.2.9")
        self.assertIn("XCLIENT", str(error))
        with session(server.address("other")) as client:
            self.assertFalse(client.has_extn("xclient"))
            self.assertEqual(client.docmd("XCLIENT ADDR=192.0.2.9")[0], 500)

    def test_proxy_headers(self) -> None:
        server = self.serve(SERVER + LIMITS + DOORS + DOMAINS)
        families = (
            ("4", "192.0.2.8", "192.0.2.25", "[192.0.2.8]"),
            ("6", "2001:db8::8", "2001:db8::25", "[IPv6:2001:db8::8]"),
        )
        for version in ("1", "2"):
            for family, source, destination, shown in families:
                # swaks sends its header within TLS when that is there from the start: no proxy does.
                for tls in ([], ["--tls"]):
                    name = {"1": f"TCP{family}", "2": {"4": "AF_INET", "6": "AF_INET6"}[family]}[version]
                    proxy = ["--proxy-version", version, "--proxy-family", name, "--proxy-source", source]
                    proxy += ["--proxy-source-port", "4711", "--proxy-dest", destination, "--proxy-dest-port", "25"]
                    _, stored = self.send(server, "proxied", *proxy, *tls)
                    self.assertIn(f"Received: from mx.example.net ({shown})".encode(), stored)
                    self.assertEqual(server.events("message")[-1]["peer"], source)

    def test_a_pipelined_conversation(self) -> None:
        server = self.serve(SERVER + LIMITS + DOORS + DOMAINS)
        for tls in ([], ["--tls"]):
            told, _ = self.send(server, "front", "--pipeline", *tls)
            self.assertRegex(told, r"(?s)RCPT TO:[^\n]*\n -?~?> DATA\n<")


class LimitsTests(ServerTestCase):
    """Of one client, whose address a front end tells."""

    def server(self, **limits: int) -> RunningServer:
        lines = "".join(f"{name} = {value}\n" for name, value in limits.items())
        return self.serve(SERVER + LIMITS + lines + DOORS + DOMAINS)

    def proxied(self, server: RunningServer, source: str) -> smtplib.SMTP:
        """A client of this address, greeted or turned away."""
        family = "TCP6" if ":" in source else "TCP4"
        destination = "2001:db8::25" if ":" in source else "192.0.2.25"
        header = f"PROXY {family} {source} {destination} 4711 25\r\n".encode()

        class Proxied(smtplib.SMTP):
            def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
                opened = socket.create_connection((host, port), timeout)
                opened.sendall(header)
                return opened

        client = Proxied(timeout=PATIENCE)
        self.addCleanup(client.close)
        client.greeting = client.connect(*server.address("proxied"))  # type: ignore[attr-defined]
        return client

    def greetings(self, server: RunningServer, *sources: str) -> list[int]:
        return [self.proxied(server, source).greeting[0] for source in sources]  # type: ignore[attr-defined]

    def test_connections_per_client(self) -> None:
        server = self.server(connections_per_client=3)
        self.assertEqual(self.greetings(server, *["192.0.2.1"] * 4, "192.0.2.2"), [220, 220, 220, 421, 220])
        # An IPv6 /64 is one client.
        several = ["2001:db8::1", "2001:db8::2", "2001:db8::3:1", "2001:db8::4", "2001:db8:0:1::1"]
        self.assertEqual(self.greetings(server, *several), [220, 220, 220, 421, 220])
        told = json.loads(server.accounts("stats", "--json"))
        self.assertEqual((told["connections"]["turned_away"], told["connections"]["now"]), (2, 8))
        self.assertEqual(sum(told["refusals"].values()), 2)

    def test_connection_rate(self) -> None:
        server = self.server(connection_rate=5)
        codes = []
        for _ in range(7):
            client = self.proxied(server, "192.0.2.1")
            codes.append(client.greeting[0])  # type: ignore[attr-defined]
            client.close()
        self.assertEqual(codes, [220] * 5 + [421] * 2)
        self.assertEqual(self.greetings(server, "192.0.2.2"), [220])

    def test_messages_per_minute(self) -> None:
        server = self.server(messages_per_minute=3)
        client = self.proxied(server, "192.0.2.1")
        for _ in range(3):
            client.sendmail(SENDER, [ANNA], TEXT)
        code, text = client.docmd(f"MAIL FROM:<{SENDER}>")
        self.assertEqual((code, text[:5]), (TOO_FAST, b"4.7.0"))
        other = self.proxied(server, "192.0.2.2")
        other.sendmail(SENDER, [ANNA], TEXT)
        self.assertEqual(len(server.messages(ANNA)), 4)

    def test_recipients_per_minute(self) -> None:
        server = self.server(recipients_per_minute=4)
        client = self.proxied(server, "192.0.2.1")
        client.ehlo()
        client.mail(SENDER)
        names = [ANNA, "nobody@example.org", ANNA, "bob@example.org", ANNA]
        self.assertEqual([client.rcpt(name)[0] for name in names], [250, 550, 250, 250, TOO_FAST])

    def test_xclient_is_limited_as_the_client_that_it_names(self) -> None:
        server = self.server(messages_per_minute=2)
        codes = []
        for address in ["192.0.2.1"] * 3 + ["192.0.2.2"]:
            with session(server.address("front")) as client:
                self.assertEqual(client.docmd(f"XCLIENT ADDR={address}")[0], 220)
                client.ehlo()
                codes.append(client.mail(SENDER)[0])
        self.assertEqual(codes, [250, 250, TOO_FAST, 250])

    def test_failed_logins_per_minute(self) -> None:
        server = self.server(auth_failures_per_minute=3)
        codes = []
        with session(server.address("submission"), "starttls") as client:
            client.docmd("XCLIENT ADDR=192.0.2.1")
            client.ehlo()
            for _ in range(5):
                with contextlib.suppress(smtplib.SMTPServerDisconnected):
                    codes.append(client.docmd("AUTH PLAIN AGFubmFAZXhhbXBsZS5vcmcAd3Jvbmc=")[0])
        self.assertEqual(codes, [535, 535, 535, 421])
        told = json.loads(server.accounts("stats", "--json"))
        self.assertGreaterEqual(told["auth"]["failed"], 3)
        self.assertIn("192.0.2.1", [each["client"] for each in told["clients"]["by_failures"]])
        self.assertRegex(server.accounts("stats"), r"logins +0 succeeded, [34] failed")
        self.assertNotIn(PASSWORDS[ANNA], json.dumps(told))
