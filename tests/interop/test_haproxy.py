"""
HAProxy in front of the server: both versions of the PROXY protocol, below STARTTLS and implicit TLS, over TCP and a Unix
socket; its health checks; and what strangers get.  `mailserver stats` shows whom the server saw.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
from pathlib import Path

from tests.interop.clients import SENDER, missing, session
from tests.interop.running import (
    DOMAINS,
    LIMITS,
    PATIENCE,
    SERVER,
    RunningServer,
    ServerTestCase,
    await_true,
    free_port,
    listener,
)

ANNA = "anna@example.org"
TEXT = b"Subject: behind a proxy\r\n\r\nx\r\n"
#: Debian keeps it where only root looks for programs.
HAPROXY = shutil.which("haproxy", path="/usr/sbin:/usr/local/sbin") or shutil.which("haproxy")
TRUSTED = {"proxy_protocol": "true", "trusted_proxies": '["127.0.0.1"]'}


class HAProxyTests(ServerTestCase):
    if HAPROXY is None:
        skip = missing("haproxy")

    def proxy(self, directory: Path, backend: str, host: str = "127.0.0.1") -> tuple[str, int]:
        """HAProxy before this backend ("SERVER OPTIONS"); where it listens."""
        port = free_port()
        settings = directory / "haproxy.cfg"
        settings.write_text(
            "defaults\n mode tcp\n timeout connect 5s\n timeout client 30s\n timeout server 30s\n"
            f"listen mail\n bind {host}:{port}\n server behind {backend}\n"
        )
        process = subprocess.Popen(
            [str(HAPROXY), "-db", "-f", str(settings)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self.addCleanup(process.wait, PATIENCE)
        self.addCleanup(process.terminate)

        def listens() -> bool:
            with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
                return probe.connect_ex((host, port)) == 0

        await_true(listens, "HAProxy listens")
        return host, port

    def send(self, address: tuple[str, int], tls: str) -> tuple[str, int]:
        """Send a message; where the client came from."""
        with session(address, tls) as client:
            client.sendmail(SENDER, [ANNA], TEXT)
            assert client.sock is not None
            ours: tuple[str, int] = client.sock.getsockname()
            client.quit()
            return ours

    def server(self, *doors: str) -> RunningServer:
        return self.serve(SERVER + LIMITS + "".join(doors) + DOMAINS)

    def peers(self, server: RunningServer) -> list[tuple[str, int]]:
        """Whom the server took for its client, for connections that brought a message."""
        server.await_events("message")
        await_true(
            lambda: sum(each["messages"] for each in server.events("connection")) >= len(server.events("message")),
            "the end of every connection that brought a message",
        )
        return [(each["peer"], each["port"]) for each in server.events("connection") if each["messages"]]

    def test_the_server_sees_the_client_by_both_versions_and_every_kind_of_tls(self) -> None:
        for version in ("send-proxy", "send-proxy-v2"):
            for door, tls in (("starttls", "off"), ("starttls", "starttls"), ("implicit", "implicit")):
                with self.subTest(f"{version} {tls}"):
                    server = self.server(listener("in", "127.0.0.1:0", tls=f'"{door}"', **TRUSTED))
                    port = server.address("in")[1]
                    client = self.send(self.proxy(server.directory, f"127.0.0.1:{port} {version}"), tls)
                    self.assertEqual(self.peers(server), [client])
                    self.assertEqual(server.messages(ANNA), [TEXT.replace(b"\r\n", b"\n")])

    def test_ipv6_and_the_trace_field(self) -> None:
        server = self.server(listener("in", "127.0.0.1:0", **TRUSTED))
        port = server.address("in")[1]
        for version in ("send-proxy", "send-proxy-v2"):
            for host, shown in (("::1", b"([IPv6:::1])"), ("127.0.0.2", b"([127.0.0.1])")):
                address = self.proxy(self.new_directory(), f"127.0.0.1:{port} {version}", host)
                client = self.send(address, "off")
                self.assertIn(client[:2], self.peers(server))
                first = server.files(ANNA)[-1].read_bytes().partition(b"Received: ")[2].partition(b"\n")[0]
                self.assertEqual(first, b"from client.example.net " + shown)

    def test_over_a_unix_socket(self) -> None:
        server = self.server(listener("in", "unix:smtp.sock", proxy_protocol="true", unix_mode='"0660"'))
        path = server.directory / "smtp.sock"
        self.assertEqual(path.stat().st_mode & 0o777, 0o660)
        client = self.send(self.proxy(server.directory, f"unix@{path} send-proxy-v2"), "starttls")
        self.assertEqual(self.peers(server), [client])

    def test_health_checks_are_answered(self) -> None:
        server = self.server(listener("in", "127.0.0.1:0", **TRUSTED))
        port = server.address("in")[1]
        checks = "check inter 100 send-proxy-v2 check-send-proxy"
        address = self.proxy(server.directory, f"127.0.0.1:{port} {checks}")
        server.await_events("connection", 3)
        self.send(address, "off")  # HAProxy takes the server for a living one
        self.assertEqual(server.events("proxy"), [])


class StrangersTests(ServerTestCase):
    """Without HAProxy: sockets say what it never would."""

    def server(self, trusted: str) -> RunningServer:
        door = listener("in", "127.0.0.1:0", proxy_protocol="true", trusted_proxies=trusted)
        return self.serve(SERVER + LIMITS + door + DOMAINS)

    def said(self, server: RunningServer, octets: bytes) -> bytes:
        """What the server answers before it hangs up."""
        try:  # the reset may be there before the connection is known to be
            with socket.create_connection(server.address("in"), timeout=PATIENCE) as client:
                client.sendall(octets)
                return client.recv(1000)
        except ConnectionResetError:
            return b""

    def test_who_is_not_trusted_hears_nothing(self) -> None:
        server = self.server('["192.0.2.1"]')
        self.assertEqual(self.said(server, b"PROXY TCP4 192.0.2.1 192.0.2.2 4000 25\r\nEHLO x\r\n"), b"")
        (event,) = server.await_events("proxy")
        self.assertEqual(
            (event["reason"], event["proxy"], event["listener"]), ("not a trusted proxy", "127.0.0.1", "in")
        )

    def test_who_does_not_speak_the_protocol_hears_nothing(self) -> None:
        server = self.server('["127.0.0.0/8"]')
        self.assertEqual(self.said(server, b"EHLO x\r\n"), b"")
        (event,) = server.await_events("proxy")
        self.assertEqual(event["reason"], "no PROXY header")

    def test_the_command_line_shows_the_client_of_the_header(self) -> None:
        server = self.server('["127.0.0.0/8"]')
        self.assertTrue(
            self.said(server, b"PROXY TCP4 192.0.2.77 192.0.2.2 4000 25\r\n").startswith(b"220 mail.example.org")
        )
        server.await_events("connection")
        told = json.loads(server.accounts("stats", "--json"))
        self.assertEqual([row["client"] for row in told["clients"]["by_connections"]], ["192.0.2.77"])
        self.assertEqual((told["connections"]["total"], told["pid"]), (1, server.running.pid))
        self.assertIn("busiest clients", server.accounts("stats"))
