"""
SIGHUP and renewed certificates: the running server changes, and nobody who is connected notices.
"""

from __future__ import annotations

import shutil
import socket
import ssl
from pathlib import Path
from typing import Any

from tests.interop.clients import SENDER, call, missing, session
from tests.interop.running import (
    DOMAINS,
    LIMITS,
    SERVER,
    RunningServer,
    ServerTestCase,
    await_true,
    free_port,
    listener,
)

ANNA = "anna@example.org"
KEPT_DOOR = listener("kept", "127.0.0.1:0")
OLD_DOOR = listener("old", "[::1]:0")
NEW_DOOR = listener("new", "127.0.0.2:0")


def config(*doors: str, more: str = "") -> str:
    """A configuration with these listeners."""
    return SERVER + more + LIMITS + "".join(doors) + DOMAINS


def make_certificate(directory: Path, name: str, stem: str = "") -> None:
    """STEMcert.pem and STEMkey.pem for this name, self-signed, each replaced as an ACME client does it."""
    files = [directory / f"{stem}key.pem", directory / f"{stem}cert.pem"]
    fresh = [path.with_suffix(".new") for path in files]
    call(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
            *("-days", "30", "-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}"),
            *("-keyout", str(fresh[0]), "-out", str(fresh[1])),
        ]
    )
    fresh[0].chmod(0o600)
    for path, old in zip(fresh, files, strict=True):
        path.replace(old)


def _names(secure: ssl.SSLSocket) -> set[str]:
    """The names in the certificate that the server has shown."""
    shown: Any = secure.getpeercert()
    return {name for _, name in shown["subjectAltName"]}


class ListenersTests(ServerTestCase):
    """Doors open and close."""

    def _connects(self, address: tuple[str, int]) -> bool:
        try:
            with session(address) as client:
                return client.noop()[0] == 250
        except ConnectionRefusedError:
            return False

    def test_listeners_come_and_go_and_others_do_not_notice(self) -> None:
        server = self.serve(config(KEPT_DOOR, OLD_DOOR))
        kept, old = server.address("kept"), server.address("old")
        with session(kept) as staying, session(old) as leaving:
            for client in (staying, leaving):
                client.docmd(f"MAIL FROM:<{SENDER}>")
            server.write(config(KEPT_DOOR, NEW_DOOR))
            server.hang_up()
            new = server.address("new")
            self.assertTrue(self._connects(new))
            self.assertFalse(self._connects(old))
            self.assertTrue(self._connects(kept))
            # Both transactions go on, also the one that came through the door that is closed now.
            for client in (staying, leaving):
                self.assertEqual(client.docmd(f"RCPT TO:<{ANNA}>")[0], 250)
                self.assertEqual(client.data(b"Subject: x\r\n\r\nx\r\n")[0], 250)
        self.assertEqual(len(server.messages(ANNA)), 2)
        self.assertEqual(server.addresses("kept"), [kept])
        self.assertEqual([event["name"] for event in server.events("closed")], ["old"])

    def test_domains_and_limits_are_new_for_new_connections(self) -> None:
        server = self.serve(config(KEPT_DOOR))
        with session(server.address("kept")) as before:
            self.assertEqual(before.esmtp_features["size"], str(50 * 1024 * 1024))
            server.write(
                SERVER
                + LIMITS
                + 'message_size = "1 MiB"\n'
                + KEPT_DOOR
                + DOMAINS.replace("example.net", "example.com")
            )
            server.hang_up()
            with session(server.address("kept")) as after:
                self.assertEqual(after.esmtp_features["size"], str(1024 * 1024))
                after.docmd(f"MAIL FROM:<{SENDER}>")
                self.assertEqual(after.docmd("RCPT TO:<x@example.com>")[0], 250)
                self.assertEqual(after.docmd("RCPT TO:<x@example.net>")[0], 550)

    def test_an_address_that_overlaps_the_old_one(self) -> None:
        port = free_port()
        server = self.serve(config(listener("some", f"127.0.0.1:{port}")))
        server.write(config(listener("all", f"0.0.0.0:{port}")))
        server.hang_up()
        self.assertEqual(server.address("all"), ("0.0.0.0", port))
        self.assertTrue(self._connects(("127.0.0.1", port)))


class BrokenTests(ServerTestCase):
    """What cannot be used changes nothing."""

    def _assert_unchanged(self, server: RunningServer, expected: str) -> None:
        kept = server.address("kept")
        server.hang_up()
        problems = [event["problem"] for event in server.events("config")]
        self.assertTrue(any(expected in each for each in problems), problems)
        self.assertEqual(server.events("reload")[-1]["text"], "the old configuration stays")
        with session(kept) as client:
            client.docmd(f"MAIL FROM:<{SENDER}>")
            self.assertEqual(client.docmd(f"RCPT TO:<{ANNA}>")[0], 250)

    def test_a_file_with_problems(self) -> None:
        server = self.serve(config(KEPT_DOOR))
        lines = config(KEPT_DOOR).splitlines()
        server.write("\n".join([*lines, "", "[nonsense]", "a = 1", ""]))
        self._assert_unchanged(server, f"{server.config}:{len(lines) + 2}: ")

    def test_a_file_that_is_gone(self) -> None:
        server = self.serve(config(KEPT_DOOR))
        server.config.unlink()
        self._assert_unchanged(server, str(server.config))

    def test_a_port_in_use(self) -> None:
        server = self.serve(config(KEPT_DOOR, OLD_DOOR))
        host, port = server.address("old")
        other = self.serve(config(listener("other", "127.0.0.1:0")))
        taken = other.address("other")[1]
        # "old" would go and "new" would come; as it cannot, "old" stays.
        server.write(config(KEPT_DOOR, listener("new", f"127.0.0.1:{taken}")))
        self._assert_unchanged(server, 'listener "new": ')
        with session((host, port)) as client:
            self.assertEqual(client.noop()[0], 250)

    def test_after_it_is_mended_it_is_used(self) -> None:
        server = self.serve(config(KEPT_DOOR))
        server.write("nonsense")
        self._assert_unchanged(server, f"{server.config}:1: ")
        server.write(config(KEPT_DOOR, NEW_DOOR))
        server.hang_up()
        with session(server.address("new")) as client:
            self.assertEqual(client.noop()[0], 250)


class CertificatesTests(ServerTestCase):
    """A renewed certificate is used without a restart."""

    if reason := missing("openssl"):
        skip = reason

    TLS = '[tls]\ncheck_interval = 0\n[[tls.certificate]]\ncertificate = "cert.pem"\nkey = "key.pem"\n'
    DOORS = (listener("smtp", "127.0.0.1:0"), listener("smtps", "127.0.0.1:0", tls='"implicit"'))

    def _serve_with(self, tls: str) -> RunningServer:
        server = self.new_server(config(*self.DOORS, more=tls))
        make_certificate(server.directory, "mail.example.org")
        server.data.mkdir(0o700)
        server.start()
        self.addCleanup(self.leaves_in_peace, server)
        return server

    def _trusted(self, server: RunningServer, certificate: Path) -> list[bool]:
        """Does this certificate verify the server, in STARTTLS and in implicit TLS?"""
        found = []
        for door, tls in (("smtp", "starttls"), ("smtps", "implicit")):
            context = ssl.create_default_context(cafile=str(certificate))
            context.check_hostname = False
            try:
                with session(server.address(door), tls, context) as client:
                    found.append(client.noop()[0] == 250)
            except ssl.SSLCertVerificationError:
                found.append(False)
        return found

    def _copy(self, server: RunningServer, name: str) -> Path:
        return Path(shutil.copy(server.directory / "cert.pem", server.directory / name))

    def test_after_sighup(self) -> None:
        server = self._serve_with(self.TLS)
        first = self._copy(server, "first.pem")
        self.assertEqual(self._trusted(server, first), [True, True])
        with session(server.address("smtp"), "starttls") as going_on:
            make_certificate(server.directory, "mail.example.org")
            second = self._copy(server, "second.pem")
            self.assertEqual(self._trusted(server, second), [False, False])
            server.hang_up()
            self.assertEqual(self._trusted(server, second), [True, True])
            self.assertEqual(self._trusted(server, first), [False, False])
            self.assertEqual(going_on.noop()[0], 250)

    def test_the_name_that_is_asked_for_chooses_one(self) -> None:
        second = '[[tls.certificate]]\ncertificate = "b-cert.pem"\nkey = "b-key.pem"\n'
        server = self.new_server(config(*self.DOORS, more=self.TLS + second))
        make_certificate(server.directory, "mail.example.org")
        make_certificate(server.directory, "*.example.net", "b-")
        server.data.mkdir(0o700)
        server.start()
        self.addCleanup(self.leaves_in_peace, server)
        both = ssl.create_default_context(cafile=str(server.directory / "cert.pem"))
        both.load_verify_locations(str(server.directory / "b-cert.pem"))
        for asked, shown in (("mail.example.org", "mail.example.org"), ("mx.example.net", "*.example.net")):
            with session(server.address("smtp")) as client:
                client.docmd("STARTTLS")
                assert client.sock is not None
                # Verifies the name too.
                with both.wrap_socket(client.sock, server_hostname=asked) as secure:
                    self.assertEqual(_names(secure), {shown})
            with (
                socket.create_connection(server.address("smtps"), 30) as plain,
                both.wrap_socket(plain, server_hostname=asked) as secure,
            ):
                self.assertEqual(_names(secure), {shown})
        # Whoever asks for another name, or for none, gets the first.
        both.check_hostname = False
        with (
            socket.create_connection(server.address("smtps"), 30) as plain,
            both.wrap_socket(plain, server_hostname="other.example.com") as secure,
        ):
            self.assertEqual(_names(secure), {"mail.example.org"})

    def test_by_watching(self) -> None:
        server = self._serve_with(self.TLS.replace("check_interval = 0", 'check_interval = "1 s"'))
        make_certificate(server.directory, "mail.example.org")
        second = self._copy(server, "second.pem")
        await_true(lambda: self._trusted(server, second) == [True, True], "the new certificate", server.told)

    def test_a_broken_one_keeps_the_old(self) -> None:
        server = self._serve_with(self.TLS)
        first = self._copy(server, "first.pem")
        (server.directory / "cert.pem").write_text("nonsense")
        server.hang_up()
        self.assertEqual(self._trusted(server, first), [True, True])
        self.assertIn(str(server.directory / "cert.pem"), server.told())
