"""
The first minutes: a development server without any configuration, and the real thing made by `mailserver init`.
"""

from __future__ import annotations

import json
import os
import re
import smtplib
import subprocess
import sys

from tests.interop.clients import SENDER, Errand, log_in, missing, session, smtplib_send
from tests.interop.running import (
    DOMAINS,
    LIMITS,
    PASSWORDS,
    PROGRAMS,
    SERVER,
    RunningServer,
    ServerTestCase,
    await_true,
    listener,
    run,
)

TEXT = b"Subject: x\r\n\r\nx\r\n"


class DevelopmentTests(ServerTestCase):
    """`twistd --nodaemon mailserver`, and nothing else."""

    def _develop(self) -> RunningServer:
        server = self.new_server(None)
        server.options = ()
        server.data = server.directory / "mailserver-data"
        server.start()
        self.addCleanup(self.leaves_in_peace, server)
        await_true(lambda: "Ctrl-C" in server.told(), "the banner", server.told)
        return server

    def _addresses(self, server: RunningServer, word: str) -> list[tuple[str, int]]:
        found = re.findall(rf"(?m)^  (\S+):(\d+) +{word}$", server.told())
        return [(host.strip("[]"), int(port)) for host, port in found]

    def _inbox(self, server: RunningServer) -> list[bytes]:
        place = re.search(r"It will lie in \./(\S+/new) ", server.told())
        assert place is not None
        return [path.read_bytes() for path in (server.directory / place[1]).iterdir()]

    def test_the_line_of_the_banner_sends_a_first_mail(self) -> None:
        if reason := missing("curl"):
            self.skipTest(reason)
        server = self._develop()
        line = re.search(r"(?m)^  (printf .*)$", server.told())
        assert line is not None
        run(["sh", "-c", line[1]], cwd=server.directory)
        (mail,) = self._inbox(server)
        self.assertTrue(mail.endswith(b"\n\nIt works.\n"), mail)
        self.assertIn(b"Subject: hello\n", mail)
        self.assertIn("./mailserver-data/", server.told())

    def test_every_door_takes_mail_for_everybody(self) -> None:
        server = self._develop()
        count = 0
        for words, tls in (("smtp, STARTTLS", "starttls"), ("submission, STARTTLS", "off")):
            for address in self._addresses(server, words):
                errand = Errand(address, TEXT, recipients=("who.ever@example.com",), tls=tls)
                smtplib_send(errand, self.new_directory())
                count += 1
        for address in self._addresses(server, r"\w+, implicit TLS"):
            smtplib_send(Errand(address, TEXT, tls="implicit"), self.new_directory())
            count += 1
        self.assertEqual(count, 6)
        self.assertEqual(len(self._inbox(server)), 6)

    def test_it_listens_on_loopback_only(self) -> None:
        server = self._develop()
        hosts = {host for host, _ in self._addresses(server, ".*")}
        self.assertEqual(hosts, {"127.0.0.1", "::1"})

    def test_every_password_will_do(self) -> None:
        server = self._develop()
        for mechanism in ("PLAIN", "LOGIN", "CRAM-MD5"):
            with session(self._addresses(server, "submission, STARTTLS")[0]) as client:
                log_in(client, mechanism, "me@example.org", "whatever")
                client.sendmail("me@example.org", ["you@example.com"], TEXT)
        self.assertEqual(len(self._inbox(server)), 3)

    def test_a_taken_port_is_no_trouble(self) -> None:
        first = self._develop()
        second = self._develop()
        mine = set(self._addresses(first, ".*"))
        others = set(self._addresses(second, ".*"))
        self.assertEqual((len(mine), len(others)), (6, 6))
        self.assertFalse(mine & others)

    def test_accounts_have_inboxes_of_their_own(self) -> None:
        server = self._develop()
        command = [str(PROGRAMS / "mailserver"), "account", "add", "anna@example.org", "--password-stdin"]
        run(command, stdin=b"Xk-new-7Shale\n", cwd=server.directory)
        with session(self._addresses(server, "smtp, STARTTLS")[0]) as client:
            client.sendmail(SENDER, ["anna@example.org", "other@example.com"], TEXT)
        self.assertEqual(server.messages("anna@example.org"), [b"Subject: x\n\nx\n"])
        self.assertEqual(len(self._inbox(server)), 1)

    def test_it_starts_where_the_resolver_is_dead(self) -> None:
        server = self.new_server(None)
        server.options = ()
        server.data = server.directory / "mailserver-data"
        code = (
            "import runpy, socket, sys\n"
            "def dead(*arguments, **more): raise AssertionError(f'the resolver was asked {arguments}')\n"
            "for name in ('gethostbyname', 'gethostbyname_ex', 'gethostbyaddr', 'getfqdn'): setattr(socket, name, dead)\n"
            "look_up = socket.getaddrinfo\n"
            "def literal(host, *arguments, **more):\n"
            "    return (look_up if host in ('127.0.0.1', '::1') else dead)(host, *arguments, **more)\n"
            "socket.getaddrinfo = literal\n"
            "sys.argv = sys.argv[1:]\n"
            "runpy.run_path(sys.argv[0], run_name='__main__')\n"
        )
        server.wrapper = (sys.executable, "-c", code)
        server.start()
        with session(self._addresses(server, "smtp, STARTTLS")[0]) as client:
            client.sendmail(SENDER, ["x@example.com"], TEXT)
        self.assertEqual(len(self._inbox(server)), 1)
        self.assertEqual(server.stop(), 0)
        self.assertNotIn("resolver", server.told())

    def test_another_data_directory(self) -> None:
        server = self.new_server(None)
        server.options = ("--data", "elsewhere")
        server.data = server.directory / "elsewhere"
        server.start()
        with session(self._addresses(server, "smtp, STARTTLS")[0]) as client:
            client.sendmail(SENDER, ["x@example.com"], TEXT)
        self.assertEqual(len(self._inbox(server)), 1)
        self.assertFalse((server.directory / "mailserver-data").exists())
        self.assertEqual(server.stop(), 0)


class InitTests(ServerTestCase):
    """`mailserver init DOMAIN`, then the server that it made."""

    def _init(self, server: RunningServer, *options: str) -> str:
        command = [
            str(PROGRAMS / "mailserver"),
            "init",
            "example.org",
            "--yes",
            "--config-dir",
            str(server.directory),
        ]
        return run([*command, "--data-dir", str(server.data), "--ports", "high", *options])

    def _serve_what_it_made(self, server: RunningServer) -> None:
        """Run it; only the ports and the form of the log are the test's own."""
        text = server.config.read_text("utf-8").replace('log_format = "text"', 'log_format = "json"')
        for port, name in ((2525, "smtp"), (4650, "submissions"), (2587, "submission")):
            self.assertIn(f"\naddress = {port}\n", text)
            text = text.replace(f"\naddress = {port}\n", f'\naddress = "127.0.0.1:0"\nname = "{name}"\n')
        server.write(text)
        server.start()
        self.addCleanup(self.leaves_in_peace, server)

    def test_the_server_runs_and_the_password_logs_in(self) -> None:
        server = self.new_server(None)
        told = self._init(server, "--user", "nobody") if os.geteuid() == 0 else self._init(server)
        password = re.search(r"\b([a-z0-9]{6}(?:-[a-z0-9]{6})+)\b", told)
        assert password is not None, told
        # The data belong to "nobody" now, who may not be able to read this Python: the test stays root.
        server.write(re.sub(r"(?m)^(user|group) = .*\n", "", server.config.read_text("utf-8")))
        self._serve_what_it_made(server)
        with session(server.address("submissions"), "implicit") as client:
            client.login("admin@example.org", password[1])
            client.sendmail("admin@example.org", ["admin@example.org", "postmaster@example.org"], TEXT)
        with session(server.address("smtp"), "starttls") as client:
            client.sendmail(SENDER, ["postmaster"], TEXT)
            self.assertRaises(smtplib.SMTPRecipientsRefused, client.sendmail, SENDER, ["x@example.com"], TEXT)
        self.assertEqual(len(server.messages("admin@example.org")), 2)
        self.assertNotIn(password[1], server.told())
        for path in server.directory.rglob("*"):
            if path.is_file():
                self.assertNotIn(password[1].encode(), path.read_bytes(), str(path))

    def test_it_asks_for_nothing_and_overwrites_nothing(self) -> None:
        server = self.new_server(None)
        self._init(server)
        before = {path: path.read_bytes() for path in server.directory.rglob("*") if path.is_file()}
        self.assertRaises(AssertionError, self._init, server)
        after = {path: path.read_bytes() for path in server.directory.rglob("*") if path.is_file()}
        self.assertEqual(before, after)

    def test_records_as_json(self) -> None:
        server = self.new_server(None)
        command = [
            str(PROGRAMS / "mailserver"),
            "init",
            "example.org",
            "--yes",
            "--config-dir",
            str(server.directory),
        ]
        command += ["--data-dir", str(server.data), "--ports", "high", "--format", "json"]
        done = subprocess.run(command, capture_output=True, timeout=60, check=True)
        self.assertIn("MX", json.dumps(json.loads(done.stdout)))

    def test_the_configuration_passes_its_own_check(self) -> None:
        server = self.new_server(None)
        self._init(server)
        server.accounts("config", "check")
        self.assertIn("admin@example.org", server.accounts("account", "list"))


class SecondDoorTests(ServerTestCase):
    """Logins without TLS are for loopback, and only when asked for."""

    def test_insecure_logins_on_loopback(self) -> None:
        door = listener("plain", "127.0.0.1:0", "submission", tls='"off"', allow_insecure_auth="true")
        server = self.serve(SERVER + LIMITS + door + DOMAINS)
        with session(server.address("plain")) as client:
            log_in(client, "LOGIN", "anna@example.org", PASSWORDS["anna@example.org"])
            client.sendmail("anna@example.org", ["bob@example.org"], TEXT)
        self.assertEqual(len(server.messages("bob@example.org")), 1)
