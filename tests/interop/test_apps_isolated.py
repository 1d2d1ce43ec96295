"""
Apps with a process of their own, in the real server: real blocking, real deaths, and nobody else who notices.

Nothing here looks at a clock: what must come before what is told by replies and by events of the log.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import shutil
import signal
import smtplib
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.interop.clients import SENDER, session
from tests.interop.running import (
    DOMAINS,
    LIMITS,
    PATIENCE,
    PROGRAMS,
    SERVER,
    RunningServer,
    ServerTestCase,
    await_true,
    listener,
    prepared_data,
    run,
)
from tests.interop.test_workers import is_alive

ANNA = "anna@example.org"
TEXT = b"Subject: x\r\n\r\nhello\r\n"
DOOR = listener("smtp", "127.0.0.1:0") + listener("lmtp", "127.0.0.1:0", "lmtp")
APP = """
import asyncio, os, sys, time
import mailserver
from mailserver import Refusal, Reply
from twisted.internet import reactor, task


class Tickets(mailserver.App):
    mailbox = None

    @classmethod
    def setup(cls, options):
        print("set up")
        return {"messages": 0}

    @classmethod
    async def teardown(cls, shared):
        await asyncio.sleep(0)
        print("torn down behind", shared["messages"])

    def connected(self):
        self.count = 0
        return f"process {os.getpid()}, for {self.session.peer_host} on {self.session.listener}"

    def helo(self, name, extensions):
        extensions["XTICKETS"] = "yes"

    async def rcpt(self, recipient, parameters):
        wish = recipient.detail
        self.count = getattr(self, "count", 0) + 1
        if wish == "no":
            self.refuse(550, "5.1.1", "no such ticket")
        if wish == "block":
            print("blocks now", flush=True)
            time.sleep(1000)
        if wish == "wait":
            print("waits now")
            await asyncio.sleep(1000)
        if wish == "deferred":
            await task.deferLater(reactor, 0, lambda: None)
        if wish == "asyncio":
            await asyncio.sleep(0)
        if wish == "raise":
            raise KeyError("mistake")
        if wish == "exit":
            sys.exit(4)
        if wish == "die":
            os._exit(5)

    async def filter(self, envelope, message):
        if message.size > 500_000:
            return mailserver.Changes(message=message.read().upper())

    async def message(self, envelope, message):
        self.shared["messages"] += 1
        size = 0
        async for block in message.blocks():
            size += len(block)
        if size < 20:
            return {r.address: Refusal(Reply(550, "5.6.0", "too short")) for r in envelope.recipients[1:]}
        capital = message.read().isupper()
        return f"{size} octets, capital {capital}, {self.count} asked, {self.session.helo}, file {os.path.exists(message.path)}"
"""


def app(**keys: str) -> str:
    """The table of the app; keys: as TOML."""
    more = "".join(f"{key} = {value}\n" for key, value in keys.items())
    return (
        '[[app]]\nname = "tickets"\npython = "tickets.py:Tickets"\nisolated = true\n'
        f'match = {{ recipients = "t+*@example.org" }}\n{more}'
    )


def config(*parts: str) -> str:
    return SERVER + LIMITS + DOOR + DOMAINS + "".join(parts)


class IsolatedCase(ServerTestCase):
    """A server with the app; each test looks that none of its processes outlives it."""

    def serve_app(self, text: str | None = None) -> RunningServer:
        """Serving, and the app's process too."""
        server = self.prepared(text)
        server.start()
        self.addCleanup(self.leaves_in_peace, server)
        server.await_events("app-process")
        return server

    def prepared(self, text: str | None = None) -> RunningServer:
        """Not started yet."""
        server = self.new_server(text or config(app()))
        (server.directory / "tickets.py").write_text(APP, "utf-8")
        shutil.copytree(prepared_data(), server.data)
        return server

    def leaves_in_peace(self, server: RunningServer) -> None:
        """And so do the processes."""
        super().leaves_in_peace(server)
        self.assert_no_process(server)
        self.assertEqual(list((server.data / "apps").glob("*")), [])

    def assert_no_process(self, server: RunningServer) -> None:
        """That the log has told of."""
        for pid in {event["pid"] for event in server.events("app-process")}:
            self.assertFalse(is_alive(pid), server.told())

    def pids(self, server: RunningServer) -> list[int]:
        """Of all processes of the app that have run, the oldest first."""
        return [event["pid"] for event in server.events("app-process") if event["text"].endswith("runs")]

    def outputs(self, server: RunningServer) -> list[str]:
        return [event["line"] for event in server.events("app-output")]

    def await_output(self, server: RunningServer, line: str) -> None:
        await_true(lambda: line in self.outputs(server), line, server.told)

    def rcpt(self, client: Any, wish: str) -> int:
        return int(client.docmd(f"RCPT TO:<t+{wish}@example.org>")[0])

    def send(self, server: RunningServer, *wishes: str, text: bytes = TEXT) -> str:
        """The last reply to a message for these."""
        with session(server.address("smtp")) as client:
            client.docmd(f"MAIL FROM:<{SENDER}>")
            self.assertEqual([self.rcpt(client, wish) for wish in wishes], [250] * len(wishes))
            code, reply = client.data(text)
            return f"{code} {reply.decode()}"

    def stats(self, server: RunningServer) -> dict[str, Any]:
        return dict(json.loads(server.accounts("stats", "--json"))["apps"]["tickets"])


class ServingTests(IsolatedCase):
    """What an app does elsewhere it does there."""

    def test_it_runs_in_a_process_of_its_own_and_sees_everything(self) -> None:
        server = self.serve_app()
        (pid,) = self.pids(server)
        with session(server.address("smtp")) as client:
            self.assertIn("xtickets", client.esmtp_features)
        with contextlib.closing(socket.create_connection(server.address("smtp"))) as raw:
            self.assertIn(f"process {pid}, for 127.0.0.1 on smtp".encode(), raw.recv(500))
        self.assertEqual(
            self.send(server, "1", "deferred", "asyncio"),
            "250 2.0.0 21 octets, capital False, 3 asked, client.example.net, file True",
        )
        with session(server.address("smtp")) as client:
            client.docmd(f"MAIL FROM:<{SENDER}>")
            self.assertEqual(client.docmd("RCPT TO:<t+no@example.org>"), (550, b"5.1.1 no such ticket"))

    def test_large_messages_come_and_go_as_files(self) -> None:
        server = self.serve_app()
        text = b"subject: x\r\n\r\n" + b"hello hello\r\n" * 100_000
        told = self.send(server, "1", text=text)
        self.assertIn(f"{len(text)} octets, capital True", told)

    def test_lmtp_has_an_answer_for_each_recipient(self) -> None:
        server = self.serve_app()
        with session(server.address("smtp")) as client:
            client.docmd(f"MAIL FROM:<{SENDER}>")
        with contextlib.closing(smtplib.LMTP(*server.address("lmtp"))) as client:
            client.ehlo("x")
            client.docmd(f"MAIL FROM:<{SENDER}>")
            self.assertEqual([self.rcpt(client, wish) for wish in "12"], [250, 250])
            client.docmd("DATA")
            client.send(b"Subject: x\r\n\r\n.\r\n")
            self.assertEqual([client.getreply()[0] for _ in range(2)], [250, 550])

    def test_a_mistake_is_told_with_its_traceback_and_the_process_goes_on(self) -> None:
        server = self.prepared()
        server.start()
        with session(server.address("smtp")) as client:
            client.docmd(f"MAIL FROM:<{SENDER}>")
            self.assertEqual([self.rcpt(client, wish) for wish in ("raise", "1")], [451, 250])
        (event,) = server.await_events("app-failed")
        self.assertIn("KeyError: 'mistake'", event["error"])
        self.assertIn('tickets.py", line', event["traceback"])
        self.assertEqual(server.stop(), 0)
        self.assertEqual(len(self.pids(server)), 1)

    def test_the_end_of_the_server_is_told_to_it(self) -> None:
        server = self.serve_app()
        self.send(server, "1")
        self.assertEqual(server.stop(), 0, server.told())
        self.assertEqual(self.outputs(server), ["set up", "torn down behind 1"])
        self.assertEqual(server.events("app-process")[-1]["why"], "exit status 0")


class BlockedTests(IsolatedCase):
    """`time.sleep` where nobody should."""

    def test_others_are_answered_while_it_blocks_and_then_it_is_killed(self) -> None:
        server = self.serve_app(config(app(timeout="1")))
        with session(server.address("smtp")) as blocked, session(server.address("smtp")) as other:
            blocked.docmd(f"MAIL FROM:<{SENDER}>")
            blocked.putcmd("RCPT", "TO:<t+block@example.org>")
            self.await_output(server, "blocks now")
            # The other one is served from here to its end before the first one has any answer.
            for command in ("MAIL FROM:<a@example.com>", f"RCPT TO:<{ANNA}>"):
                self.assertEqual(other.docmd(command)[0], 250)
            self.assertEqual(other.data(TEXT)[0], 250)
            self.assertEqual(server.events("app-timeout"), [])
            self.assertEqual(blocked.getreply()[0], 451)
            (killed,) = server.await_events("app-killed")
            self.assertEqual(killed["pid"], self.pids(server)[0])
            await_true(lambda: len(self.pids(server)) == 2, "another process", server.told)
            self.assertEqual(server.events("app-died")[0]["why"], "signal 9 (SIGKILL)")
            # Where it stood is in the log.
            self.assertTrue([line for line in self.outputs(server) if "tickets.py" in line and "rcpt" in line])
        self.assertIn("250 ", self.send(server, "1"))
        told = self.stats(server)
        self.assertEqual((told["restarts"], told["timeouts"]), (1, 1))
        self.assertEqual(told["stalls"], 0, "the server itself was never held up")
        self.assertIn("restarts", server.accounts("stats"))

    def test_what_only_waits_is_cancelled_and_the_process_goes_on(self) -> None:
        server = self.serve_app(config(app(timeout="1")))
        with session(server.address("smtp")) as client:
            client.docmd(f"MAIL FROM:<{SENDER}>")
            client.putcmd("RCPT", "TO:<t+wait@example.org>")
            self.await_output(server, "waits now")
            self.assertIn("250 ", self.send(server, "1"))  # side by side with the one that waits
            self.assertEqual(client.getreply()[0], 451)
            self.assertEqual(self.rcpt(client, "1"), 250)
        self.assertEqual(server.events("app-killed"), [])

    def test_a_server_that_stops_does_not_wait_for_it(self) -> None:
        text = config(app(timeout="1")).replace("[server]", "[server]\ndrain_timeout = 1", 1)
        server = self.serve_app(text)
        with session(server.address("smtp")) as client:
            client.docmd(f"MAIL FROM:<{SENDER}>")
            client.putcmd("RCPT", "TO:<t+block@example.org>")
            self.await_output(server, "blocks now")
            server.await_events("app-timeout")
            self.assertEqual(server.stop(), 0, server.told())
        self.assert_no_process(server)

    def test_it_ends_with_a_server_that_is_killed_whatever_it_is_doing(self) -> None:
        for wish in ("1", "block"):
            server = self.prepared()
            server.start()
            server.await_events("app-process")
            (pid,) = self.pids(server)
            with session(server.address("smtp")) as client:
                client.docmd(f"MAIL FROM:<{SENDER}>")
                client.putcmd("RCPT", f"TO:<t+{wish}@example.org>")
                if wish == "block":
                    self.await_output(server, "blocks now")
                server.running.kill()
                server.running.wait(PATIENCE)
            await_true(lambda pid=pid: not is_alive(pid), "the end of the app's process", server.told)


class DeathTests(IsolatedCase):
    """What dies comes back, and no app sees half a transaction."""

    def test_killed_in_a_call_and_between_two(self) -> None:
        server = self.serve_app()
        with session(server.address("smtp")) as client, session(server.address("smtp")) as idle:
            client.docmd(f"MAIL FROM:<{SENDER}>")
            self.assertEqual(self.rcpt(client, "1"), 250)
            client.putcmd("RCPT", "TO:<t+wait@example.org>")
            self.await_output(server, "waits now")
            os.kill(self.pids(server)[0], signal.SIGKILL)
            self.assertEqual(client.getreply()[0], 451)
            await_true(lambda: len(self.pids(server)) == 2, "another process", server.told)
            # The transaction was begun with an object that is gone: the new one never saw its first recipient.
            self.assertEqual(self.rcpt(client, "2"), 451)
            self.assertEqual(client.data(TEXT)[0], 451)
            client.docmd(f"MAIL FROM:<{SENDER}>")
            self.assertEqual(self.rcpt(client, "3"), 250)
            self.assertIn(b"1 asked", client.data(TEXT)[1])
            # Who had no transaction has lost nothing but what the object knew.
            idle.docmd(f"MAIL FROM:<{SENDER}>")
            self.assertEqual(self.rcpt(idle, "4"), 250)
            self.assertIn(b"1 asked", idle.data(TEXT)[1])
        (died,) = server.events("app-died")
        self.assertEqual((died["level"], died["why"]), ("error", "signal 9 (SIGKILL)"))
        self.assertEqual(self.stats(server)["restarts"], 1)

    def test_it_ends_itself(self) -> None:
        server = self.serve_app()
        for number, (wish, why) in enumerate((("die", "exit status 5"), ("exit", "exit status 4")), 2):
            with session(server.address("smtp")) as client:
                client.docmd(f"MAIL FROM:<{SENDER}>")
                self.assertEqual(self.rcpt(client, wish), 451)
            await_true(lambda number=number: len(self.pids(server)) == number, "another process", server.told)
            self.assertEqual(server.events("app-died")[-1]["why"], why)
        delays = [event["seconds"] for event in server.events("app-died")]
        self.assertLess(delays[0], delays[1])
        self.assertIn("250 ", self.send(server, "1"))

    def test_one_that_cannot_be_imported_any_more_is_tried_until_it_can(self) -> None:
        server = self.prepared()
        server.start()
        server.await_events("app-process")
        file = server.directory / "tickets.py"
        file.write_text("this is no Python", "utf-8")
        os.kill(self.pids(server)[0], signal.SIGKILL)
        (failed, *_) = server.await_events("app-failed")
        self.assertIn("tickets.py", failed["error"])
        with self.assertRaises(smtplib.SMTPConnectError) as turned_away, session(server.address("smtp")):
            pass
        self.assertEqual(turned_away.exception.smtp_code, 451)
        file.write_text(APP + "# another one\n", "utf-8")
        await_true(lambda: len(self.pids(server)) == 2, "another process", server.told)
        self.assertIn("250 ", self.send(server, "1"))
        self.assertEqual(len(server.events("app-changed")), 1, "it is not what the server has read")
        self.assertEqual(server.stop(), 0)

    def test_each_worker_has_its_own(self) -> None:
        text = config(app()).replace("[server]", "[server]\nworkers = 2", 1)
        server = self.serve_app(text)
        await_true(lambda: len(self.pids(server)) == 2, "two processes", server.told)
        victim, other = self.pids(server)
        os.kill(victim, signal.SIGKILL)
        await_true(lambda: len(self.pids(server)) == 3, "another process", server.told)
        self.assertTrue(is_alive(other))
        self.assertEqual(self.stats(server)["restarts"], 1)
        for _ in range(10):
            self.assertIn("250 ", self.send(server, "1"))


class ReloadTests(IsolatedCase):
    """SIGHUP."""

    def test_the_same_settings_keep_the_process_and_others_replace_it(self) -> None:
        server = self.serve_app()
        server.hang_up()
        self.assertEqual(len(self.pids(server)), 1)
        with session(server.address("smtp")) as client:
            client.docmd(f"MAIL FROM:<{SENDER}>")
            self.assertEqual(self.rcpt(client, "1"), 250)
            server.write(config(app(timeout="30")))
            server.hang_up()
            await_true(lambda: len(self.pids(server)) == 2, "another process", server.told)
            old, _ = self.pids(server)
            self.assertEqual(client.data(TEXT)[0], 250, "who was connected goes on with the old one")
            self.assertTrue(is_alive(old))
        await_true(lambda: not is_alive(old), "the end of the old one", server.told)
        self.assertEqual(server.events("app-died"), [])
        server.write(config())
        server.hang_up()
        await_true(lambda: not is_alive(self.pids(server)[1]), "the end of the other", server.told)


class OtherWaysTests(IsolatedCase):
    """Not in the foreground of an ordinary user."""

    def test_as_a_daemon(self) -> None:
        server = self.prepared()
        pidfile, log = server.directory / "pid", server.directory / "daemon.log"
        program = [str(PROGRAMS / "twistd"), f"--pidfile={pidfile}", f"--logfile={log}", "mailserver"]
        run([*program, *server.options], cwd=server.directory)
        server.log = log
        await_true(lambda: log.exists() and bool(self.pids(server)), "the app's process", server.told)
        daemon = int(pidfile.read_text())
        self.addCleanup(_kill, daemon)
        status = Path(f"/proc/{self.pids(server)[0]}/status").read_text()
        self.assertIn(f"PPid:\t{daemon}\n", status, "started behind the fork")
        self.assertIn("250 ", self.send(server, "1"))
        os.kill(daemon, signal.SIGTERM)
        await_true(lambda: not pidfile.exists(), "its end", server.told)
        self.assert_clean_log(server)
        self.assert_no_process(server)

    def test_root_is_given_up_before(self) -> None:
        if os.geteuid() != 0:
            self.skipTest("only root can give up root")
        nobody = pwd.getpwnam("nobody")
        try:
            subprocess.run(
                [sys.executable, "-c", ""], user=nobody.pw_uid, group=nobody.pw_gid, extra_groups=[], check=True
            )
        except PermissionError:
            self.skipTest(f"{sys.executable} is where only root can come")
        server = self.serve_app(config(app()).replace('data_dir = "data"\n', 'data_dir = "data"\nuser = "nobody"\n'))
        status = Path(f"/proc/{self.pids(server)[0]}/status").read_text()
        numbers = {line.split(":")[0]: line.split()[1:] for line in status.splitlines()}
        self.assertEqual((numbers["Uid"], numbers["Gid"]), ([str(nobody.pw_uid)] * 4, [str(nobody.pw_gid)] * 4))
        self.assertIn("capital True", self.send(server, "1", text=b"subject: x\r\n\r\n" + b"hello\r\n" * 100_000))


def _kill(pid: int) -> None:
    """The end of a daemon that a failed test has left; its own pid, told by itself."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
