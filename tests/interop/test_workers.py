"""
Several processes: they serve on the same sockets, are started again and replaced, and together keep the limits.
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
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.interop.clients import HELO, SENDER, session
from tests.interop.running import (
    DOMAINS,
    LIMITS,
    PASSWORDS,
    PATIENCE,
    PROGRAMS,
    SERVER,
    STANDARD,
    RunningServer,
    ServerTestCase,
    await_true,
    free_port,
    listener,
    prepared_data,
    run,
)

ANNA = "anna@example.org"
CLIENT = "192.0.2.9"
DOOR = listener("in", "127.0.0.1:0", xclient='["127.0.0.0/8"]')
SUBMISSION = listener("sub", "127.0.0.1:0", "submission", xclient='["127.0.0.0/8"]')
#: How many connections make it sure that both of two workers have had some.
MANY = 40


def config(*doors: str, workers: int = 2, more: str = "", limits: str = LIMITS) -> str:
    """A configuration with these listeners."""
    return f"{SERVER}workers = {workers}\n{more}{limits}{''.join(doors or (DOOR,))}{DOMAINS}"


def is_alive(pid: int) -> bool:
    """Does this process run?  One that has ended and that nobody has asked for does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in ("Z", "X")


class WorkersCase(ServerTestCase):
    """A server with workers; each test looks that none of them outlives it."""

    def leaves_in_peace(self, server: RunningServer) -> None:
        """With all its workers."""
        super().leaves_in_peace(server)
        for pid in {event["pid"] for event in server.events("worker") if "pid" in event}:
            self.assertFalse(is_alive(pid), server.told())

    def stats(self, server: RunningServer) -> dict[str, Any]:
        """What `mailserver stats --json` says."""
        return dict(json.loads(server.accounts("stats", "--json")))

    def workers(self, server: RunningServer) -> dict[int, int]:
        """number -> pid of those that serve."""
        return {row["worker"]: row["pid"] for row in self.stats(server)["workers"] if row["state"] == "ready"}

    def await_workers(self, server: RunningServer, count: int = 2) -> dict[int, int]:
        """The same when so many serve and nobody else is there."""
        await_true(
            lambda: len(self.workers(server)) == count == len(self.stats(server)["workers"]),
            f"{count} workers",
            server.told,
        )
        return self.workers(server)

    def send(self, server: RunningServer, subject: str, door: str = "in") -> None:
        """One message to Anna."""
        with session(server.address(door)) as client:
            client.sendmail(SENDER, [ANNA], f"Subject: {subject}\r\n\r\nx\r\n".encode())

    def subjects(self, server: RunningServer) -> list[str]:
        """Of what Anna has got."""
        return [text.splitlines()[0].removeprefix(b"Subject: ").decode() for text in server.messages(ANNA)]

    @contextlib.contextmanager
    def client(self, server: RunningServer, door: str = "in", tls: str = "off") -> Iterator[smtplib.SMTP]:
        """A session of `CLIENT`, who is not this machine; it may have been turned away."""
        with session(server.address(door), tls) as client:
            client.docmd("XCLIENT", f"ADDR={CLIENT} HELO={HELO}")
            yield client


class ServingTests(WorkersCase):
    """What they do together."""

    def test_all_of_them_serve(self) -> None:
        server = self.serve(config())
        for number in range(MANY):
            self.send(server, str(number))
        events = server.await_events("message", MANY)
        self.assertEqual({event["worker"] for event in events}, {1, 2})
        self.assertEqual(sorted(self.subjects(server), key=int), [str(number) for number in range(MANY)])
        # The parent tells once where they listen, and has no number.
        (listening,) = server.events("listening")
        self.assertNotIn("worker", listening)

    def test_stats_are_the_sum(self) -> None:
        server = self.serve(config())
        for number in range(MANY):
            self.send(server, str(number))
        told = self.stats(server)
        self.assertEqual(told["pid"], server.running.pid)
        self.assertEqual((told["messages"]["accepted"], told["connections"]["total"]), (MANY, MANY))
        self.assertEqual(told["listeners"]["in"]["accepted"], MANY)
        self.assertEqual(told["clients"]["by_connections"][0]["connections"], MANY)
        self.assertEqual([row["worker"] for row in told["workers"]], [1, 2])
        self.assertEqual([row["restarts"] for row in told["workers"]], [0, 0])
        self.assertTrue(all(is_alive(row["pid"]) for row in told["workers"]))
        self.assertIn("worker  process  state", server.accounts("stats"))
        # A reload replaces both; what they had counted stays.
        server.hang_up()
        await_true(lambda: len(self.stats(server)["workers"]) == 2, "two workers", server.told)
        self.assertEqual(self.stats(server)["messages"]["accepted"], MANY)

    def test_auto(self) -> None:
        server = self.serve(config().replace("workers = 2", 'workers = "auto"'))
        cpus = len(os.sched_getaffinity(0))
        self.assertEqual(len(self.stats(server).get("workers", [None])), cpus)
        self.send(server, "x")

    def test_lines_of_the_log_are_never_torn(self) -> None:
        """Through a pipe too, where more than 4,096 octets need a lock."""
        server = self.new_server(config(workers=2))
        shutil.copytree(prepared_data(), server.data)
        server.wrapper = ("sh", "-c", 'exec 3>log.fifo; exec "$@" >&3', "sh")
        os.mkfifo(server.directory / "log.fifo")
        reader = subprocess.Popen(["cat", "log.fifo"], cwd=server.directory, stdout=server.log.open("ab"))
        self.addCleanup(reader.wait, PATIENCE)
        server.start()
        threads = [threading.Thread(target=self._send_long, args=(server,)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(server.stop(), 0, server.told())
        reader.wait(PATIENCE)
        lines = server.log.read_text("utf-8").splitlines()
        messages = [event for event in map(json.loads, lines) if event["event"] == "message"]
        self.assertEqual(len(messages), 8 * 5)
        self.assertEqual({event["worker"] for event in messages}, {1, 2})
        self.assertGreater(min(len(line) for line in lines if '"event":"message"' in line), 4096)

    def _send_long(self, server: RunningServer) -> None:
        for _ in range(5):
            with session(server.address("in")) as client:
                client.docmd(f"MAIL FROM:<{SENDER}>")
                for number in range(60):
                    client.docmd(f"RCPT TO:<anna+{number:050}{'x' * 8}@example.org>")
                client.data(b"Subject: x\r\n\r\nx\r\n")


class DeathTests(WorkersCase):
    """What is killed comes back."""

    def test_one_worker(self) -> None:
        server = self.serve(config())
        before = self.await_workers(server)
        with session(server.address("in")) as kept:
            victim, other = self._who_serves(server, before)
            os.kill(before[victim], signal.SIGKILL)
            server.await_events("worker-died")
            # While it is gone the other one serves, and mail goes on.
            self.send(server, "meanwhile")
            after = self.await_workers(server)
            self.assertEqual(set(after), set(before))
            self.assertEqual(after[other], before[other])
            self.assertNotEqual(after[victim], before[victim])
            del kept
        for number in range(MANY):
            self.send(server, str(number))
        self.assertEqual({event["worker"] for event in server.events("message")[-MANY:]}, {1, 2})
        restarts = {row["worker"]: row["restarts"] for row in self.stats(server)["workers"]}
        self.assertEqual(restarts, {victim: 1, other: 0})

    def _who_serves(self, server: RunningServer, workers: dict[int, int]) -> tuple[int, int]:
        """The worker with the one connection that is open, and the other one."""
        (busy,) = [row["worker"] for row in self.stats(server)["workers"] if row["connections"]]
        (idle,) = set(workers) - {busy}
        return busy, idle

    def test_its_unfinished_files_are_swept_and_those_of_a_sibling_are_not(self) -> None:
        server = self.serve(config())
        workers = self.await_workers(server)
        tmp = server.maildir(ANNA) / "tmp"
        with contextlib.ExitStack() as opened:
            for _ in range(MANY):
                client = opened.enter_context(session(server.address("in")))
                for command in (f"MAIL FROM:<{SENDER}>", f"RCPT TO:<{ANNA}>", "DATA"):
                    client.docmd(command)
                client.send(b"Subject: open\r\n\r\n" + b"y" * 300_000)
            await_true(lambda: len(list(tmp.glob("*"))) == MANY, "files in tmp/", server.told)
            of = {number: set(tmp.glob(f"*P{pid}Q*")) for number, pid in workers.items()}
            self.assertTrue(of[1] and of[2])
            os.kill(workers[1], signal.SIGKILL)
            await_true(lambda: set(tmp.glob("*")) == of[2], "only those of the living", server.told)
            self.await_workers(server)
            self.assertEqual(set(tmp.glob("*")), of[2])

    def test_the_parent(self) -> None:
        server = self.new_server(config())
        shutil.copytree(prepared_data(), server.data)
        server.start()
        workers = self.await_workers(server)
        with session(server.address("in")) as client:
            for command in (f"MAIL FROM:<{SENDER}>", f"RCPT TO:<{ANNA}>", "DATA"):
                client.docmd(command)
            server.running.kill()
            server.running.wait(PATIENCE)
            # The transaction may still end; then the workers do.
            server.await_events("worker-orphan", 2)
            client.send(b"Subject: whole\r\n\r\n.\r\n")
            self.assertEqual(client.getreply()[0], 250)
            self.assertEqual(client.getreply()[0], 421)
        for pid in workers.values():
            await_true(lambda pid=pid: not is_alive(pid), "the end of the workers", server.told)
        self.assertEqual(self.subjects(server), ["whole"])

    def test_a_worker_that_cannot_start_ends_it_with_status_1(self) -> None:
        server = self.new_server(config())
        shutil.copytree(prepared_data(), server.data)
        server.wrapper = (
            sys.executable,
            "-c",
            "import os, sys, sqlite3\nos.environ['PYTHONPATH'] = sys.argv[1]\nos.execv(sys.argv[2], sys.argv[2:])",
            str(self._broken(server)),
        )
        server.launch()
        self.assertEqual(server.wait(), 1, server.told())
        self.assertIn("the first worker could not start: exit status 3", server.told())

    def _broken(self, server: RunningServer) -> Path:
        """A folder whose sitecustomize ends a worker before it begins."""
        folder = server.directory / "site"
        folder.mkdir()
        (folder / "sitecustomize.py").write_text(
            "import os, sys\nif 'mailserver.workers.process' in sys.orig_argv: os._exit(3)\n"
        )
        return folder


class ReloadTests(WorkersCase):
    """SIGHUP."""

    def test_under_load_no_connection_is_refused_and_no_message_lost(self) -> None:
        server = self.serve(config())
        sent: list[str] = []
        failed: list[str] = []
        done = threading.Event()

        def load(name: str) -> None:
            number = 0
            while not done.is_set():
                subject = f"{name}-{number}"
                try:
                    self.send(server, subject)
                    sent.append(subject)
                except (OSError, smtplib.SMTPException) as error:
                    failed.append(f"{subject}: {error!r}")
                number += 1

        threads = [threading.Thread(target=load, args=(name,)) for name in "abcd"]
        for thread in threads:
            thread.start()
        try:
            before = self.workers(server)
            for _ in range(3):
                server.hang_up()
        finally:
            done.set()
            for thread in threads:
                thread.join()
        after = self.workers(server)
        self.assertFalse(set(before.values()) & set(after.values()))
        self.assertEqual(failed, [])
        self.assertGreater(len(sent), 0)
        self.assertEqual(sorted(self.subjects(server)), sorted(sent))

    def test_a_connection_goes_on_and_new_ones_find_the_new_configuration(self) -> None:
        server = self.serve(config())
        with session(server.address("in")) as before:
            before.docmd(f"MAIL FROM:<{SENDER}>")
            server.write(config(more="", limits=LIMITS + 'message_size = "1 MiB"\n'))
            server.hang_up()
            with session(server.address("in")) as after:
                self.assertEqual(after.esmtp_features["size"], str(1024 * 1024))
            self.assertEqual(before.docmd(f"RCPT TO:<{ANNA}>")[0], 250)
            self.assertEqual(before.data(b"Subject: old\r\n\r\n")[0], 250)
            before.quit()
        self.assertEqual(self.subjects(server), ["old"])
        self.await_workers(server)

    def test_listeners_come_and_go(self) -> None:
        server = self.serve(config(DOOR, listener("old", "[::1]:0")))
        kept, old = server.address("in"), server.address("old")
        server.write(config(DOOR, listener("new", "127.0.0.2:0")))
        server.hang_up()
        self.await_workers(server)
        for address in (kept, server.address("new")):
            with session(address) as client:
                self.assertEqual(client.noop()[0], 250)
        self.assertRaises(ConnectionRefusedError, socket.create_connection, old, PATIENCE)
        self.assertEqual(server.addresses("in"), [kept])
        self.assertEqual([event["name"] for event in server.events("closed")], ["old"])

    def test_what_cannot_be_used_changes_nothing_also_for_one_that_dies_then(self) -> None:
        port = free_port()
        server = self.serve(config(DOOR, listener("fixed", f"127.0.0.1:{port}")))
        before = self.await_workers(server)
        with socket.create_server(("127.0.0.1", 0)) as taken:
            for bad, problem in (
                (config() + "[nonsense]\na = 1\n", "nonsense"),
                (config(DOOR, listener("taken", f"127.0.0.1:{taken.getsockname()[1]}")), "address already in use"),
                (config(DOOR, listener("wide", f"0.0.0.0:{port}")), "overlaps"),
            ):
                server.write(bad)
                server.hang_up()
                self.assertIn(problem, server.events("config")[-1]["problem"])
                self.assertEqual(server.events("reload")[-1]["text"], "the old configuration stays")
        self.assertEqual(self.workers(server), before)
        os.kill(before[2], signal.SIGKILL)
        await_true(lambda: self.workers(server).get(2) not in (None, before[2]), "worker 2", server.told)
        for _ in range(MANY):
            self.send(server, "x", "fixed")
        self.assertEqual({event["worker"] for event in server.events("message")[-MANY:]}, {1, 2})


class StopTests(WorkersCase):
    """SIGTERM."""

    def test_transactions_may_end_and_the_idle_get_421(self) -> None:
        server = self.serve(config())
        address = server.address("in")
        with contextlib.ExitStack() as opened:
            busy, idle = ([opened.enter_context(session(address)) for _ in range(8)] for _ in range(2))
            for client in busy:
                for command in (f"MAIL FROM:<{SENDER}>", f"RCPT TO:<{ANNA}>", "DATA"):
                    client.docmd(command)
            server.running.send_signal(signal.SIGTERM)
            server.await_notice("STOPPING=1")
            for client in idle:
                self.assertEqual(client.getreply()[0], 421)
            self.assertRaises(ConnectionRefusedError, socket.create_connection, address, PATIENCE)
            for client in busy:
                client.send(b"Subject: whole\r\n\r\n.\r\n")
                self.assertEqual([client.getreply()[0] for _ in range(2)], [250, 421])
        self.assertEqual(server.wait(), 0)
        self.assertEqual(self.subjects(server), ["whole"] * 8)

    def test_while_they_start(self) -> None:
        server = self.new_server(config())
        shutil.copytree(prepared_data(), server.data)
        server.launch()
        server.await_events("worker")
        self.assertEqual(server.stop(), 0, server.told())

    def test_ctrl_c_reaches_all_and_ends_it_once(self) -> None:
        server = self.new_server(config())
        shutil.copytree(prepared_data(), server.data)
        server.start()
        for pid in (*self.workers(server).values(), server.running.pid):
            os.kill(pid, signal.SIGINT)
        server.wait()
        self.assertEqual([event for event in server.events() if event["event"] == "worker-died"], [])
        self.assertEqual(len([event for event in server.events("stopped") if "worker" not in event]), 1)


class LimitsTests(WorkersCase):
    """A client has the same limits whichever worker it meets."""

    def test_connections_of_a_client(self) -> None:
        server = self.serve(config(limits=LIMITS + "connections_per_client = 5\n"))
        for _ in range(3):
            with contextlib.ExitStack() as opened:
                clients = [opened.enter_context(self.client(server)) for _ in range(12)]
                codes = [self._code(client) for client in clients]
                self.assertEqual(codes.count(250), 5, codes)
            await_true(lambda: not self.stats(server)["connections"]["now"], "no connection", server.told)

    def _code(self, client: smtplib.SMTP) -> int:
        """250 for one that was let in, else 0: it was told 421 behind its XCLIENT."""
        try:
            return client.ehlo()[0]
        except smtplib.SMTPServerDisconnected:
            return 0

    def test_those_of_a_dead_worker_do_not_count(self) -> None:
        server = self.serve(config(limits=LIMITS + "connections_per_client = 5\n"))
        workers = self.await_workers(server)
        with contextlib.ExitStack() as opened:
            for _ in range(5):
                opened.enter_context(self.client(server))
            for pid in workers.values():
                os.kill(pid, signal.SIGKILL)
            server.await_events("worker-died", 2)
            self.await_workers(server)
            for _ in range(5):
                self.assertEqual(self._code(opened.enter_context(self.client(server))), 250)

    def test_messages_in_a_minute_also_over_a_reload(self) -> None:
        server = self.serve(config(limits=LIMITS + "messages_per_minute = 10\n"))
        taken = 0
        for number in range(20):
            if number == 5:
                server.hang_up()
            with self.client(server) as client:
                client.ehlo()
                taken += client.docmd(f"MAIL FROM:<{SENDER}>")[0] == 250
        self.assertEqual(taken, 10)

    def test_failed_logins(self) -> None:
        limits = "[limits]\nauth_failure_delay = 0\nauth_failures_per_minute = 6\n"
        server = self.serve(config(SUBMISSION, limits=limits))
        failures = 0
        for _ in range(20):
            with session(server.address("sub"), "starttls") as client:
                client.docmd("XCLIENT", f"ADDR={CLIENT} HELO={HELO}")
                with contextlib.suppress(smtplib.SMTPServerDisconnected):
                    client.ehlo()
                    failures += client.docmd("AUTH PLAIN AGFubmFAZXhhbXBsZS5vcmcAd3Jvbmc=")[0] == 535
        self.assertEqual(failures, 6)

    def test_connections_in_all(self) -> None:
        server = self.serve(config(limits=LIMITS + "connections = 10\n"))
        with contextlib.ExitStack() as opened:
            sockets = [opened.enter_context(socket.create_connection(server.address("in"))) for _ in range(20)]
            codes = [each.recv(3) for each in sockets]
        self.assertEqual((codes.count(b"220"), codes.count(b"421")), (10, 10))


class OtherWaysTests(WorkersCase):
    """Not in the foreground of an ordinary user."""

    def test_as_a_daemon_all_lines_are_in_its_log(self) -> None:
        server = self.new_server(config())
        shutil.copytree(prepared_data(), server.data)
        pidfile, log = server.directory / "pid", server.directory / "daemon.log"
        program = [str(PROGRAMS / "twistd"), f"--pidfile={pidfile}", f"--logfile={log}", "mailserver"]
        run([*program, *server.options], cwd=server.directory)
        server.log = log
        await_true(lambda: log.exists() and bool(server.events("listening")), "a listener", server.told)
        pid = int(pidfile.read_text())
        self.addCleanup(_kill, pid)
        for number in range(MANY):
            self.send(server, str(number))
        events = server.await_events("message", MANY)
        self.assertEqual({event["worker"] for event in events}, {1, 2})
        os.kill(pid, signal.SIGTERM)
        await_true(lambda: not pidfile.exists(), "its end", server.told)
        self.assert_clean_log(server)
        self.assertEqual(len(server.events("stopped")), 3)

    def test_sockets_passed_by_systemd(self) -> None:
        server = self.new_server(config(listener("in", "systemd:smtp")))
        shutil.copytree(prepared_data(), server.data)
        with socket.create_server(("127.0.0.1", 0)) as passed:
            number = passed.fileno()
            code = (
                "import fcntl, os, sys\n"
                f"os.dup2(fcntl.fcntl({number}, fcntl.F_DUPFD, 100), 3)\n"
                "os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1', LISTEN_FDNAMES='smtp')\n"
                "os.execv(sys.argv[1], sys.argv[1:])\n"
            )
            server.wrapper = (sys.executable, "-c", code)
            server.pass_fds = (number,)
            server.start()
            self.send(server, "one")
            server.hang_up()
            self.send(server, "two")
        self.assertEqual(server.stop(), 0)
        self.assertEqual(self.subjects(server), ["one", "two"])
        self.assert_clean_log(server)

    def test_a_unix_socket(self) -> None:
        server = self.new_server()
        path = server.directory / "smtp.sock"
        server.write(config(listener("unix", f"unix:{path}")))
        server.start()
        workers = self.await_workers(server)
        os.kill(workers[1], signal.SIGKILL)
        self.await_workers(server)
        for _ in range(MANY):
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(str(path))
                self.assertEqual(connection.recv(4), b"220 ")
        self.assertEqual(server.stop(), 0)
        self.assertFalse(path.exists())

    @contextlib.contextmanager
    def _skipped_where_it_cannot_run(self) -> Iterator[None]:
        try:
            yield
        except PermissionError:
            self.skipTest(f"{sys.executable} is where only root can come")

    def test_root_is_given_up_by_all(self) -> None:
        if os.geteuid() != 0:
            self.skipTest("only root can give up root")
        nobody = pwd.getpwnam("nobody")
        with self._skipped_where_it_cannot_run():
            subprocess.run(
                [sys.executable, "-c", ""], user=nobody.pw_uid, group=nobody.pw_gid, extra_groups=[], check=True
            )
        text = STANDARD.replace('data_dir = "data"\n', 'data_dir = "data"\nuser = "nobody"\nworkers = 2\n')
        server = self.new_server(text)
        shutil.copytree(prepared_data(), server.data)
        server.start()
        for pid in (server.running.pid, *self.await_workers(server).values()):
            status = Path(f"/proc/{pid}/status").read_text()
            numbers = {line.split(":")[0]: line.split()[1:] for line in status.splitlines()}
            self.assertEqual((numbers["Uid"], numbers["Gid"]), ([str(nobody.pw_uid)] * 4, [str(nobody.pw_gid)] * 4))
        with session(server.address("submissions4"), "implicit") as client:
            client.login(ANNA, PASSWORDS[ANNA])
            client.sendmail(ANNA, [ANNA], b"Subject: x\r\n\r\nx\r\n")
        server.hang_up()
        self.send(server, "y", "smtp4")
        self.assertEqual(server.stop(), 0, server.told())
        self.assert_clean_log(server)


def _kill(pid: int) -> None:
    """The end of a daemon that a failed test has left; its own pid, told by itself."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
