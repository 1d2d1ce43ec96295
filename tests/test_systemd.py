"""Talking to systemd: notifications into real datagram sockets, passed descriptors, and the unit files."""

from __future__ import annotations

import configparser
import os
import socket
import tempfile
import time
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from mailserver import systemd
from mailserver.systemd import notify, passed_descriptors, reloading, status

ETC = Path(__file__).resolve().parent.parent / "etc"


class NotifyTests(SynchronousTestCase):
    def listen(self, where: str) -> socket.socket:
        listener = self.enterContext(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        listener.setblocking(False)
        listener.bind(where)
        return listener

    def setUp(self) -> None:
        # Not self.mktemp(): the path of a Unix socket is short.
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.path = os.path.join(directory.name, "notify")

    def test_a_state_arrives(self) -> None:
        listener = self.listen(self.path)
        self.assertIs(notify(systemd.READY + "\n" + status("listening"), {"NOTIFY_SOCKET": self.path}), True)
        self.assertEqual(listener.recv(1000), b"READY=1\nSTATUS=listening")

    def test_the_abstract_namespace(self) -> None:
        name = f"mailserver-test-{os.getpid()}"
        listener = self.listen("\0" + name)
        self.assertIs(notify(systemd.STOPPING, {"NOTIFY_SOCKET": "@" + name}), True)
        self.assertEqual(listener.recv(1000), b"STOPPING=1")

    def test_nobody_asked_or_nobody_listens(self) -> None:
        for environ in ({}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "vsock:2:1"}, {"NOTIFY_SOCKET": self.path}):
            self.assertIs(notify(systemd.READY, environ), False, environ)
        self.assertIs(notify(systemd.READY, {"NOTIFY_SOCKET": "/" + "x" * 200}), False)
        self.assertIs(notify(systemd.READY, {"NOTIFY_SOCKET": "/a\0b"}), False)

    def test_a_full_socket_does_not_block(self) -> None:
        listener = self.listen(self.path)
        environ = {"NOTIFY_SOCKET": self.path}
        sent = 0
        while notify("STATUS=" + "x" * 1000, environ):
            sent += 1
            self.assertLess(sent, 100_000)
        self.assertGreater(sent, 0)
        self.assertEqual(len(listener.recv(2000)), 1007)

    def test_a_status_is_one_line(self) -> None:
        self.assertEqual(status("a\nREADY=1"), "STATUS=a")

    def test_reloading_tells_the_time_in_microseconds(self) -> None:
        self.patch(time, "clock_gettime_ns", lambda _: 1_234_567)
        self.assertEqual(reloading(), "RELOADING=1\nMONOTONIC_USEC=1234")


class PassedTests(SynchronousTestCase):
    def passed(self, name: str, fds: str, names: str | None, pid: str | None = None) -> list[int]:
        environ = {"LISTEN_PID": str(os.getpid()) if pid is None else pid, "LISTEN_FDS": fds}
        if names is not None:
            environ["LISTEN_FDNAMES"] = names
        return passed_descriptors(name, environ)

    def test_all_descriptors_of_a_name(self) -> None:
        self.assertEqual(self.passed("smtp", "3", "smtp:imap:smtp"), [3, 5])
        self.assertEqual(self.passed("imap", "3", "smtp:imap:smtp"), [4])

    def test_without_names_they_are_unknown(self) -> None:
        self.assertEqual(self.passed("unknown", "2", None), [3, 4])
        self.assertEqual(self.passed("unknown", "3", "smtp:"), [4, 5])

    def test_more_names_than_descriptors_are_not_believed(self) -> None:
        with self.assertRaises(ValueError):
            self.passed("imap", "1", "smtp:imap")

    def test_none_are_told_with_the_reason(self) -> None:
        for arguments, words in [
            (("smtp", "1", "smtp", "1"), "no sockets to this process"),
            (("smtp", "1", "smtp", ""), "no sockets to this process"),
            (("smtp", "", "smtp"), "is no number"),
            (("smtp", "-1", "smtp"), "is no number"),
            (("smtp", "2", "imap:pop"), "imap, pop"),
            (("smtp", "0", ""), "none"),
        ]:
            with self.assertRaises(ValueError) as caught:
                self.passed(*arguments)
            self.assertIn(words, str(caught.exception))
        with self.assertRaises(ValueError):
            passed_descriptors("smtp", {})


class UnitFileTests(SynchronousTestCase):
    def read(self, name: str) -> configparser.ConfigParser:
        # systemd allows a key several times, and has its own meaning of %.
        parser = configparser.ConfigParser(strict=False, interpolation=None)
        parser.optionxform = str  # type: ignore[assignment, method-assign]
        parser.read(ETC / name, encoding="ascii")
        return parser

    def test_the_service(self) -> None:
        unit = self.read("mailserver.service")
        self.assertEqual(unit.sections(), ["Unit", "Service", "Install"])
        service = unit["Service"]
        self.assertEqual(service["Type"], "notify")
        self.assertIn(
            "--nodaemon --pidfile= mailserver --config /etc/mailserver/mailserver.toml", service["ExecStart"]
        )
        self.assertEqual(service["ExecReload"], "/bin/kill -HUP $MAINPID")
        self.assertEqual(service["User"], "mailserver")
        self.assertGreater(int(service["TimeoutStopSec"]), 30)
        for hardening in ("NoNewPrivileges", "PrivateTmp", "ProtectHome", "RestrictNamespaces"):
            self.assertEqual(service[hardening], "yes", hardening)
        self.assertEqual(service["CapabilityBoundingSet"], "CAP_NET_BIND_SERVICE")
        self.assertEqual(service["ProtectSystem"], "strict")

    def test_the_socket(self) -> None:
        unit = self.read("mailserver.socket")
        self.assertEqual(unit["Socket"]["BindIPv6Only"], "ipv6-only")
        self.assertEqual(unit["Socket"]["Service"], "mailserver.service")
        text = (ETC / "mailserver.socket").read_text(encoding="ascii")
        self.assertIn(f'address = "systemd:{unit["Socket"]["FileDescriptorName"]}"', text)
