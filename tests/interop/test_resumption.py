"""TLS sessions and tickets, with OpenSSL's own client: a second connection takes up the session of the first."""

from __future__ import annotations

import socket
import ssl
from typing import Any

from tests.interop.clients import unverified
from tests.interop.running import PATIENCE, RunningServer, ServerTestCase

VERSIONS = (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)


class ResumptionTests(ServerTestCase):
    def secured(
        self, server: RunningServer, door: str, context: ssl.SSLContext, session: Any = None
    ) -> ssl.SSLSocket:
        """A connection to a listener with implicit TLS, or one that has said STARTTLS; closed when the test ends."""
        plain = socket.create_connection(server.address(door), PATIENCE)
        self.addCleanup(plain.close)
        if door == "smtp4":
            with plain.makefile("rb") as replies:
                for command in (b"", b"EHLO client.example.net\r\n", b"STARTTLS\r\n"):
                    plain.sendall(command)
                    while replies.readline()[3:4] != b" ":
                        pass
        secured = context.wrap_socket(plain, server_hostname="mail.example.org", session=session)
        self.addCleanup(secured.close)
        return secured

    def test_a_client_takes_up_its_session_by_both_doors(self) -> None:
        server = self.serve()
        for version in VERSIONS:
            for first, second in (("smtps4", "smtps4"), ("smtp4", "smtp4"), ("smtp4", "smtps4")):
                context = unverified()
                context.minimum_version = context.maximum_version = version
                begun = self.secured(server, first, context)
                begun.sendall(b"NOOP\r\n")
                begun.recv(100)  # with TLS 1.3 the tickets come in front of the first octets
                again = self.secured(server, second, context, begun.session)
                self.assertTrue(again.session_reused, f"{version!r}, {first}, {second}")
