"""
What peers can cost: those that send and never read, those that do nothing at all, and those that send garbage.

Memory is that of the process (RSS), measured before and while.  The bounds are wide; what was measured is printed.
"""

from __future__ import annotations

import contextlib
import random
import resource
import socket
import ssl
import time
from pathlib import Path

from twisted.trial.unittest import SkipTest

from tests.interop.clients import HELO, SENDER, session, unverified
from tests.interop.running import (
    DOMAINS,
    LIMITS,
    PASSWORDS,
    PATIENCE,
    SERVER,
    RunningServer,
    ServerTestCase,
    await_true,
    listener,
)

ANNA = "anna@example.org"
KIB, MIB = 1024, 1024 * 1024
DOORS = (
    listener("plain", "127.0.0.1:0")
    + listener("secure", "127.0.0.1:0", tls='"implicit"')
    + listener("lmtp", "127.0.0.1:0", "lmtp")
)
WIDE = LIMITS + "connections = 5000\nconnection_rate = 100000\n"


def memory(server: RunningServer) -> int:
    """Octets that the process has in memory."""
    status = Path(f"/proc/{server.running.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) * KIB


class MemoryTests(ServerTestCase):
    if not Path("/proc/self/status").exists():
        skip = "there is no /proc"

    def warm(self) -> RunningServer:
        """A server that has imported and done everything once; it and we may open as many files as anybody lets us."""
        soft, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, most))
        if 0 <= most < 3_000:
            raise SkipTest(f"only {most} files may be open")
        server = self.serve(SERVER + WIDE + DOORS + DOMAINS)
        for door, tls in (("plain", "off"), ("plain", "starttls"), ("secure", "implicit")):
            with session(server.address(door), tls) as client:
                client.sendmail(SENDER, [ANNA], b"Subject: x\r\n\r\n" + b"x" * 70_000 + b"\r\n")
        return server

    def connect(self, server: RunningServer, door: str, *, tls: bool = False) -> socket.socket:
        opened = socket.create_connection(server.address(door), PATIENCE)
        self.addCleanup(opened.close)
        return unverified().wrap_socket(opened) if tls else opened

    def alive(self, server: RunningServer) -> None:
        with session(server.address("plain")) as client:
            started = time.monotonic()
            self.assertEqual(client.noop()[0], 250)
            self.assertLess(time.monotonic() - started, 5)

    def test_peers_that_send_and_never_read(self) -> None:
        server = self.warm()
        before, count = memory(server), 50
        many = (
            b"HELP\r\nEHLO x\r\nMAIL FROM:<a@example.net>\r\nRCPT TO:<anna@example.org>\r\nRCPT TO:<nobody@example.com>\r\n"
            * 200
        )
        sent, clients = 0, [self.connect(server, "plain") for _ in range(count)]
        for client in clients:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.setblocking(False)
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            for client in clients:
                with contextlib.suppress(BlockingIOError, ConnectionResetError, BrokenPipeError):
                    sent += client.send(many)
            time.sleep(0.01)
        each = (memory(server) - before) / count
        print(f"\n  a peer that never reads: {each / KIB:.0f} KiB ({sent / MIB:.1f} MiB sent by {count})")
        self.assertLess(each, MIB)
        self.alive(server)

    def test_idle_connections(self) -> None:
        server = self.warm()
        for door, tls, count, bound in (("plain", False, 2_000, 64), ("secure", True, 300, 160)):
            before = memory(server)
            clients = [self.connect(server, door, tls=tls) for _ in range(count)]
            for client in clients:
                self.assertEqual(client.recv(4), b"220 ")
            each = (memory(server) - before) / count
            print(f"\n  an idle connection ({door}): {each / KIB:.1f} KiB")
            self.assertLess(each, bound * KIB, door)
            self.alive(server)
            for client in clients:
                client.close()


class GarbageTests(ServerTestCase):
    """Seeded: the same storm each time."""

    def piece(self, chance: random.Random) -> bytes:
        words = [
            f"EHLO {HELO}\r\n".encode(),
            b"LHLO x\r\n",
            f"MAIL FROM:<{SENDER}>\r\n".encode(),
            f"RCPT TO:<{ANNA}>\r\n".encode(),
            b"DATA\r\n",
            b"text\r\n.\r\n",
            b"BDAT 10 LAST\r\n",
            b"BDAT 99999999999999999999\r\n",
            b"STARTTLS\r\n",
            b"AUTH PLAIN =\r\n",
            b"AUTH SCRAM-SHA-256 biwsbj14LHI9eA==\r\n",
            b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n",
            b"\r\n\r\n\x0d\x0a\x00\x0d\x0a\x51\x55\x49\x54\x0a",
            b"XCLIENT ADDR=192.0.2.1\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
            b"GET / HTTP/1.1\r\n\r\n",
            b"\r\n" * 50,
            b"x" * 5_000,
            b"\x80" + b"RCPT TO:<\xff\xfe@\xc3\xa4>\r\n",
            b"MAIL FROM:<" + b"a" * 300 + b"@" + b"b." * 200 + b"c> SIZE=-1 BODY=9BIT\r\n",
        ]
        kind = chance.random()
        if kind < 0.6:
            return chance.choice(words)
        if kind < 0.8:
            whole = bytearray(chance.choice(words))
            whole[chance.randrange(len(whole))] = chance.randrange(256)
            return bytes(whole)
        return chance.randbytes(chance.randrange(1, 3_000))

    def storm(self, server: RunningServer, door: str, seed: int) -> None:
        chance = random.Random(seed)
        with contextlib.suppress(OSError), socket.create_connection(server.address(door), PATIENCE) as opened:
            opened.settimeout(5)
            client = opened
            if door == "secure" and chance.random() < 0.7:
                client = unverified().wrap_socket(opened)
            for _ in range(chance.randrange(1, 30)):
                client.sendall(self.piece(chance))
                if chance.random() < 0.3:
                    with contextlib.suppress(TimeoutError, ssl.SSLError):
                        client.settimeout(0.02)
                        client.recv(10_000)
                    client.settimeout(5)
            if chance.random() < 0.3:
                opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # ends with a reset

    def test_two_hundred_connections_of_garbage(self) -> None:
        proxied = listener("proxied", "127.0.0.1:0", proxy_protocol="true", trusted_proxies='["127.0.0.0/8"]')
        insecure = listener(
            "insecure", "127.0.0.1:0", "submission", allow_insecure_auth="true", xclient='["127.0.0.0/8"]'
        )
        server = self.serve(SERVER + LIMITS + DOORS + proxied + insecure + DOMAINS)
        doors = ("plain", "secure", "lmtp", "proxied", "insecure")
        for seed in range(200):
            self.storm(server, doors[seed % len(doors)], seed)
        for door, tls in (("plain", "off"), ("plain", "starttls"), ("secure", "implicit")):
            with session(server.address(door), tls) as client:
                client.sendmail(SENDER, [ANNA], b"Subject: still here\r\n\r\n")
        await_true(
            lambda: len(server.events("connection")) + len(server.events("proxy")) >= 200, "all connections end"
        )
        self.assertIn(b"Subject: still here\n\n", server.messages(ANNA))
        # serve() looks for tracebacks in the log when the test is over.
        self.assertEqual([event for event in server.events() if event["level"] in ("error", "critical")], [])
        self.assertNotIn(PASSWORDS[ANNA], server.told())
