"""
Starting: what is in the way is told at once; sockets of every kind; root is given up.
"""

from __future__ import annotations

import os
import pwd
import shutil
import smtplib
import socket
import subprocess
import sys
from pathlib import Path

from tests.interop.clients import HELO, SENDER, session
from tests.interop.running import (
    DOMAINS,
    LIMITS,
    PASSWORDS,
    PROGRAMS,
    SERVER,
    STANDARD,
    RunningServer,
    ServerTestCase,
    await_true,
    free_port,
    listener,
    prepared_data,
)

ANNA = "anna@example.org"
TEXT = b"Subject: x\r\n\r\nx\r\n"


def config(*doors: str) -> str:
    """A configuration with these listeners."""
    return SERVER + LIMITS + "".join(doors) + DOMAINS


class TroubleTests(ServerTestCase):
    """It does not start, says why, and leaves nothing behind."""

    def _fails(self, server: RunningServer) -> str:
        server.launch()
        self.assertEqual(server.wait(), 1, server.told())
        self.assertNotIn("Traceback", server.told())
        self.assertEqual(server.events("listening"), [])
        return server.errors.read_text("utf-8")

    def test_a_port_in_use_names_the_listener_and_its_line(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            text = config(listener("free", "127.0.0.1:0"), listener("taken", f"127.0.0.1:{port}"))
            server = self.new_server(text)
            told = self._fails(server)
        line = text[: text.index('name = "taken"')].count("\n")
        self.assertIn(f'{server.config}:{line}: listener "taken": 127.0.0.1:{port}: ', told)

    def test_an_address_that_is_not_ours(self) -> None:
        told = self._fails(self.new_server(config(listener("far", "192.0.2.1:25"))))
        self.assertIn('listener "far": 192.0.2.1:25: ', told)

    def test_all_problems_of_a_configuration_are_told_at_once(self) -> None:
        text = config(listener("one", "127.0.0.1:0", "pigeon")) + "[nonsense]\na = 1\n"
        server = self.new_server(text)
        told = self._fails(server).splitlines()
        numbers = [text[: text.index(word)].count("\n") + 1 for word in ("protocol = ", "[nonsense]")]
        self.assertEqual([line.split(": ")[0] for line in told], [f"{server.config}:{each}" for each in numbers])

    def test_no_configuration_where_one_was_named(self) -> None:
        server = self.new_server()
        server.config.unlink()
        self.assertIn(str(server.config), self._fails(server))

    def test_a_socket_that_nobody_passed(self) -> None:
        told = self._fails(self.new_server(config(listener("passed", "systemd:smtp"))))
        self.assertIn('listener "passed": ', told)


class SocketsTests(ServerTestCase):
    """Every kind of address."""

    def _sends(self, host: str, port: int) -> None:
        with session((host, port)) as client:
            client.sendmail(SENDER, [ANNA], TEXT)

    def test_ipv4_and_ipv6_side_by_side_on_one_port(self) -> None:
        port = free_port()
        server = self.serve(config(listener("v4", f"0.0.0.0:{port}"), listener("v6", f"[::]:{port}")))
        self._sends("127.0.0.1", port)
        self._sends("::1", port)
        events = server.await_events("message", 2)
        self.assertEqual([(each["listener"], each["peer"]) for each in events], [("v4", "127.0.0.1"), ("v6", "::1")])

    def test_a_port_alone(self) -> None:
        port = free_port()
        server = self.serve(config(listener("all", str(port))))
        self.assertEqual(server.addresses("all"), [("0.0.0.0", port), ("::", port)])
        self._sends("127.0.0.1", port)
        self._sends("::1", port)
        self.assertEqual(len(server.messages(ANNA)), 2)

    def test_a_name(self) -> None:
        server = self.serve(config(listener("name", f"localhost:{free_port()}")))
        addresses = server.addresses("name")
        self.assertIn("127.0.0.1", [host for host, _ in addresses])
        for host, port in addresses:
            self._sends(host, port)
        self.assertEqual(len(server.messages(ANNA)), len(addresses))

    def test_a_unix_socket(self) -> None:
        server = self.new_server()
        path = server.directory / "smtp.sock"
        server.write(config(listener("unix", f"unix:{path}")))
        shutil.copytree(prepared_data(), server.data)
        server.start()
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(30)
            connection.connect(str(path))
            client = smtplib.SMTP(local_hostname=HELO)
            client.sock = connection
            self.assertEqual(client.getreply()[0], 220)
            client.sendmail(SENDER, [ANNA], TEXT)
            client.quit()
        self.assertEqual(server.stop(), 0)
        self.assertEqual(server.messages(ANNA), [b"Subject: x\n\nx\n"])
        self.assertFalse(path.exists())

    def test_a_unix_socket_that_a_killed_server_has_left(self) -> None:
        server = self.new_server()
        path = server.directory / "smtp.sock"
        server.write(config(listener("unix", f"unix:{path}")))
        server.start()
        server.running.kill()
        server.wait()
        self.assertTrue(path.exists())
        server.start()
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(path))
            self.assertEqual(connection.recv(4), b"220 ")
        # While this one lives, a second one is told that somebody is there.
        second = self.new_server(config(listener("unix", f"unix:{path}")))
        second.launch()
        self.assertEqual(second.wait(), 1)
        self.assertIn(f'listener "unix": unix:{path}: ', second.told())
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(path))
            self.assertEqual(connection.recv(4), b"220 ")
        self.assertEqual(server.stop(), 0)

    def test_the_same_port_again_right_after_the_end(self) -> None:
        port = free_port()
        server = self.new_server(config(listener("fixed", f"127.0.0.1:{port}")))
        for _ in range(3):
            server.start()
            with session(("127.0.0.1", port)) as client:
                # The server closes first: its end of the connection stays in TIME_WAIT.
                client.quit()
            self.assertEqual(server.stop(), 0)

    def test_sockets_passed_by_systemd(self) -> None:
        server = self.new_server(config(listener("passed", "systemd:smtp"), listener("own", "127.0.0.1:0")))
        shutil.copytree(prepared_data(), server.data)
        with socket.create_server(("127.0.0.1", 0)) as first, socket.create_server(("127.0.0.1", 0)) as second:
            # What systemd does: descriptors from 3 on, and the number of the process that they are for.
            numbers = (first.fileno(), second.fileno())
            code = (
                "import fcntl, os, sys\n"
                f"copies = [fcntl.fcntl(number, fcntl.F_DUPFD, 100) for number in {numbers}]\n"
                "for at, copy in enumerate(copies): os.dup2(copy, 3 + at)\n"
                "os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='2', LISTEN_FDNAMES='smtp:other')\n"
                "os.execv(sys.argv[1], sys.argv[1:])\n"
            )
            server.wrapper = (sys.executable, "-c", code)
            server.pass_fds = numbers
            server.start()
            self._sends(*first.getsockname())
            self.assertEqual(server.address("passed"), first.getsockname())
        self.assertEqual(server.messages(ANNA), [b"Subject: x\n\nx\n"])
        self.assertEqual(server.stop(), 0)
        self.assert_clean_log(server)


class RootTests(ServerTestCase):
    """Started as root; afterwards nobody."""

    if os.geteuid() != 0:
        skip = "only root can give up root"

    def _assert_nobody(self, server: RunningServer) -> None:
        status = Path(f"/proc/{server.running.pid}/status").read_text()
        numbers = {line.split(":")[0]: line.split()[1:] for line in status.splitlines()}
        nobody = pwd.getpwnam("nobody")
        self.assertEqual(numbers["Uid"], [str(nobody.pw_uid)] * 4)
        self.assertEqual(numbers["Gid"], [str(nobody.pw_gid)] * 4)
        self.assertEqual(numbers["Groups"], [str(nobody.pw_gid)])
        self.assertEqual(numbers["CapEff"], ["0" * 16])
        with session(server.address("submissions4"), "implicit") as client:
            client.login(ANNA, PASSWORDS[ANNA])
            client.sendmail(ANNA, [ANNA], TEXT)
        self.assertEqual(len(server.messages(ANNA)), 1)
        owners = {path.stat().st_uid for path in [server.data, *server.data.rglob("*")]}
        self.assertEqual(owners, {nobody.pw_uid})
        # Changed by root while it runs; the server must still be able to read and write its accounts.
        server.accounts("account", "add", "new@example.org", "--password-stdin", stdin="Xk-new-7Shale\n")
        with session(server.address("smtp4")) as client:
            client.sendmail(SENDER, ["new@example.org"], TEXT)
        self.assertEqual(server.stop(), 0, server.told())
        self.assert_clean_log(server)

    def _prepare(self, text: str) -> RunningServer:
        server = self.new_server(text)
        shutil.copytree(prepared_data(), server.data)
        return server

    def test_the_configured_user(self) -> None:
        server = self._prepare(STANDARD.replace('data_dir = "data"\n', 'data_dir = "data"\nuser = "nobody"\n'))
        server.start()
        self._assert_nobody(server)

    def test_the_user_of_twistd(self) -> None:
        server = self._prepare(STANDARD)
        nobody = pwd.getpwnam("nobody")
        server.program = (*server.program, "--uid", str(nobody.pw_uid), "--gid", str(nobody.pw_gid))
        server.start()
        self._assert_nobody(server)

    def test_a_fresh_data_directory_and_a_low_port(self) -> None:
        port = next(each for each in range(1023, 512, -1) if each not in _taken())
        door = listener("low", f"127.0.0.1:{port}")
        text = config(door).replace('data_dir = "data"\n', 'data_dir = "data"\nuser = "nobody"\n')
        server = self.new_server(text)
        server.start()
        server.accounts("account", "add", ANNA, "--password-stdin", stdin="Xk-new-7Shale\n")
        with session(server.address("low")) as client:
            client.sendmail(SENDER, [ANNA], TEXT)
        self.assertEqual(server.files(ANNA)[0].stat().st_uid, pwd.getpwnam("nobody").pw_uid)
        # Nobody cannot bind this port again, but needs not to: it stays open over a reload.
        server.hang_up()
        with session(server.address("low")) as client:
            client.sendmail(SENDER, [ANNA], TEXT)
        self.assertEqual(server.stop(), 0)


def _taken() -> set[int]:
    """The ports below 1024 that somebody listens on."""
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        if Path(table).exists():
            found |= {
                int(line.split()[1].rpartition(":")[2], 16) for line in Path(table).read_text().splitlines()[1:]
            }
    return found


class OtherWaysTests(ServerTestCase):
    """Not by `twistd --nodaemon`."""

    def test_by_twist(self) -> None:
        server = self.new_server()
        shutil.copytree(prepared_data(), server.data)
        server.program = ("twist",)
        server.start()
        with session(server.address("smtp4")) as client:
            client.sendmail(SENDER, [ANNA], TEXT)
        self.assertEqual(server.messages(ANNA), [b"Subject: x\n\nx\n"])
        self.assertEqual(server.stop(), 0, server.told())
        self.assert_clean_log(server)

    def test_by_the_name_in_the_environment(self) -> None:
        server = self.new_server()
        shutil.copytree(prepared_data(), server.data)
        server.options = ()
        server.environ = {"MAILSERVER_CONFIG": str(server.config)}
        server.start()
        self.assertEqual(len(server.events("listening")), 8)
        self.assertEqual(server.stop(), 0)

    def test_as_a_daemon_it_writes_its_log_and_its_pid(self) -> None:
        server = self.new_server()
        shutil.copytree(prepared_data(), server.data)
        pidfile, log = server.directory / "pid", server.directory / "daemon.log"
        command = [
            str(PROGRAMS / "twistd"),
            f"--pidfile={pidfile}",
            f"--logfile={log}",
            "mailserver",
            *server.options,
        ]
        subprocess.run(command, cwd=server.directory, check=True, timeout=30, capture_output=True)
        server.log = log
        await_true(lambda: log.exists() and len(server.events("listening")) == 8, "eight listeners", server.told)
        pid = int(pidfile.read_text())
        self.addCleanup(_kill, pid)
        with session(server.address("smtp4")) as client:
            client.sendmail(SENDER, [ANNA], TEXT)
        self.assertIn(f"P{pid}Q", server.files(ANNA)[0].name)
        os.kill(pid, 15)
        await_true(lambda: not pidfile.exists(), "its end", server.told)
        self.assert_clean_log(server)


def _kill(pid: int) -> None:
    """The end of a daemon that a failed test has left; its own pid, told by itself."""
    try:
        os.kill(pid, 9)
    except ProcessLookupError:
        return
