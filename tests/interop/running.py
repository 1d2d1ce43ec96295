"""
The server as an operator runs it: a process of its own, from a configuration file, watched from outside.

In: the text of a configuration.  Out: `RunningServer`: its ports (read from its log), its mailboxes (read from the
disk), its end (SIGTERM, exit status 0, nothing in the log that should not be there).
Every wait is bounded by `PATIENCE`; nothing sleeps for longer than `PULSE` at a time.
"""

from __future__ import annotations

import atexit
import base64
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

#: Seconds that anything may take that is not a matter of taste: a start, a reload, an end.
PATIENCE = 30.0
PULSE = 0.02
#: The programs of the same Python that runs these tests.
PROGRAMS = Path(sys.executable).parent

#: account -> password; no other text of the tests holds these words.
PASSWORDS = {
    "anna@example.org": "Xk-anna-7Quartz",
    "bob@example.org": "Xk-bob-7Basalt",
    "postmaster@example.org": "Xk-post-7Gneis",
    "small@example.org": "Xk-small-7Slate",
    "grün@example.org": "Xk-grün-7Märmor",
    "gone@example.org": "Xk-gone-7Chalk",
}
SMALL_QUOTA = 20_000

SERVER = """
[server]
hostname = "mail.example.org"
data_dir = "data"
log_format = "json"
"""
LIMITS = """
[limits]
auth_failure_delay = 0
auth_failures_per_minute = 1000
"""
DOMAINS = """
[[domain]]
name = "example.org"

[[domain]]
name = "example.net"
catch_all = "postmaster@example.org"
"""

# What stands on top of every message in a mailbox.
_TRACE = re.compile(
    rb"Return-Path: <[^\n]*>\r?\n(?:Delivered-To: [^\r\n]+\r?\n)?Received: from [^\n]+\n(?:\t[^\n]+\n)+", re.ASCII
)


def listener(name: str, address: str, protocol: str = "smtp", **keys: str) -> str:
    """A [[listener]] table; keys: as TOML text."""
    more = "".join(f"{key} = {value}\n" for key, value in keys.items())
    return f'[[listener]]\nname = "{name}"\naddress = "{address}"\nprotocol = "{protocol}"\n{more}'


#: Every door of a real server, on both loopback addresses, on free ports.
DOORS = "".join(
    listener(f"{name}{family}", f"{host}:0", protocol, tls=tls)
    for family, host in (("4", "127.0.0.1"), ("6", "[::1]"))
    for name, protocol, tls in (
        ("smtp", "smtp", '"starttls"'),
        ("smtps", "smtp", '"implicit"'),
        ("submission", "submission", '"starttls"'),
        ("submissions", "submission", '"implicit"'),
    )
)
STANDARD = SERVER + LIMITS + DOORS + DOMAINS


class RunningServer:
    """
    One process of the server.

    directory: empty or new; the configuration is written into it, and the process runs in it.
    """

    def __init__(self, directory: Path, config: str | None = STANDARD) -> None:
        self.directory = directory
        self.config = directory / "mailserver.toml"
        self.data = directory / "data"
        self.log = directory / "log"
        self.errors = directory / "stderr"
        self.process: subprocess.Popen[bytes] | None = None
        self.wrapper: Sequence[str] = ()
        #: The program and its own options; `twistd --uid` stands here too.
        self.program: Sequence[str] = ("twistd", "--nodaemon", "--pidfile=")
        self.options: Sequence[str] = ("--config", str(self.config))
        self.environ: dict[str, str] = {}
        self.pass_fds: Sequence[int] = ()
        self._notices = b""
        if config is not None:
            self.write(config)
        self._notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notify.bind(os.fspath(directory / "notify"))
        (directory / "notify").chmod(0o666)  # as that of systemd: the server may be another user by then

    def write(self, config: str) -> None:
        """(Re)write the configuration."""
        self.config.write_text(config, "utf-8")

    # -- life ------------------------------------------------------------------------------------------------------

    def launch(self) -> None:
        """Start the process; `start` waits too."""
        environ = {name: value for name, value in os.environ.items() if not name.startswith("MAILSERVER")}
        environ |= {"NOTIFY_SOCKET": os.fspath(self.directory / "notify"), **self.environ}
        command = [*self.wrapper, str(PROGRAMS / self.program[0]), *self.program[1:]]
        with self.log.open("ab") as out, self.errors.open("ab") as errors:
            self.process = subprocess.Popen(
                [*command, "mailserver", *self.options],
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=errors,
                env=environ,
                pass_fds=self.pass_fds,
            )

    def start(self) -> RunningServer:
        """Start it and wait until it tells systemd, which are we, that it is ready."""
        self.launch()
        self.await_notice("READY=1")
        return self

    def await_notice(self, state: str) -> None:
        """Wait until the server has told systemd this state."""
        deadline = time.monotonic() + PATIENCE
        while state.encode() not in self._notices.splitlines():
            if self.running.poll() is not None:
                raise AssertionError(f"it ended with {self.running.returncode}: {self.told()}")
            self._notify.settimeout(0.2)
            with contextlib.suppress(TimeoutError):
                self._notices += self._notify.recv(4096) + b"\n"
            if time.monotonic() > deadline:
                raise AssertionError(f"no {state} within {PATIENCE} s: {self.told()}")
        self._notices = self._notices.partition(state.encode() + b"\n")[2]

    @property
    def running(self) -> subprocess.Popen[bytes]:
        """The process."""
        assert self.process is not None
        return self.process

    def hang_up(self) -> None:
        """SIGHUP, and wait until the server has done what it asks for."""
        self.running.send_signal(signal.SIGHUP)
        self.await_notice("READY=1")

    def wait(self) -> int:
        """Wait for its end by itself; the exit status."""
        return self.running.wait(PATIENCE)

    def stop(self) -> int:
        """SIGTERM; the exit status."""
        if self.running.poll() is None:
            self.running.send_signal(signal.SIGTERM)
        return self.wait()

    def end(self) -> None:
        """Whatever state it is in: afterwards there is no process."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(PATIENCE)
        self._notify.close()

    # -- what it says ----------------------------------------------------------------------------------------------

    def told(self) -> str:
        """What it has written to the terminal, log and all."""
        return "".join(path.read_text("utf-8") for path in (self.errors, self.log) if path.exists())

    def events(self, name: str | None = None) -> list[dict[str, Any]]:
        """The events of the log (of this name), oldest first."""
        whole = self.log.read_text("utf-8").rpartition("\n")[0]
        found = [json.loads(line) for line in whole.splitlines() if line.startswith("{")]
        return [event for event in found if name is None or event["event"] == name]

    def await_events(self, name: str, count: int = 1) -> list[dict[str, Any]]:
        """Wait until there are so many events of this name."""
        await_true(lambda: len(self.events(name)) >= count, f"{count} events {name!r}", self.told)
        return self.events(name)

    def addresses(self, name: str) -> list[tuple[str, int]]:
        """Where a listener listens at last: host and port each."""
        opened = [event for event in self.events("listening") if event["name"] == name]
        if not opened:
            raise AssertionError(f"no listener {name!r} listens: {self.told()}")
        found = []
        for event in opened:
            host, _, port = event["address"].rpartition(":")
            found.append((host.strip("[]"), int(port)))
        return found

    def address(self, name: str) -> tuple[str, int]:
        """The last address of a listener."""
        return self.addresses(name)[-1]

    # -- what it keeps ---------------------------------------------------------------------------------------------

    def maildir(self, address: str) -> Path:
        """The mailbox of an account."""
        local, _, domain = address.partition("@")
        encoded = re.sub(rb"[^a-z0-9_+=.-]", lambda found: b"%%%02x" % found[0][0], local.encode()).decode()
        return self.data / "mail" / domain / encoded

    def files(self, address: str) -> list[Path]:
        """The new messages of an account, oldest first."""
        return sorted(
            (self.maildir(address) / "new").glob("*"), key=lambda path: (path.stat().st_mtime_ns, path.name)
        )

    def messages(self, address: str) -> list[bytes]:
        """Their text as it was sent, as it lies on the disk: without the trace fields."""
        return [without_trace(path.read_bytes()) for path in self.files(address)]

    def accounts(self, *command: str, stdin: str = "") -> str:
        """`mailserver --config FILE ...`; what it prints."""
        return run([str(PROGRAMS / "mailserver"), "--config", str(self.config), *command], stdin=stdin.encode())


def free_port() -> int:
    """A port that nobody has at the moment, on any address: for what must be known before the server starts."""
    with socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::", 0))
        return int(probe.getsockname()[1])


def without_trace(stored: bytes) -> bytes:
    """The message behind its trace fields, which must have the known form."""
    found = _TRACE.match(stored)
    if found is None:
        raise AssertionError(f"no trace fields: {stored[:300]!r}")
    return stored[found.end() :]


def await_true(condition: Callable[[], bool], what: str, told: Callable[[], str] = str) -> None:
    """Wait until it is true."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {PATIENCE} s: {told()}")
        time.sleep(PULSE)


def run(
    command: Sequence[str], *, stdin: bytes = b"", cwd: Path | None = None, environ: Mapping[str, str] | None = None
) -> str:
    """Run a program that must succeed; its output."""
    done = subprocess.run(
        command,
        input=stdin,
        cwd=cwd,
        env={**os.environ, **(environ or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=PATIENCE,
        check=False,
        start_new_session=True,  # without the terminal of whoever runs the tests: `init` would write to it
    )
    text = done.stdout.decode("utf-8", "replace")
    if done.returncode != 0:
        raise AssertionError(f"{command[0]} ended with {done.returncode}: {text}")
    return text


_prepared: list[Path] = []


def prepared_data() -> Path:
    """A data directory with the accounts of `PASSWORDS`, made once by the real command; copy it."""
    if not _prepared:
        directory = Path(tempfile.mkdtemp(prefix="mailserver-accounts-"))
        atexit.register(shutil.rmtree, directory, ignore_errors=True)
        server = RunningServer(directory)
        server.data.mkdir(0o700)
        for address, password in PASSWORDS.items():
            server.accounts("account", "add", address, "--password-stdin", stdin=password + "\n")
        server.accounts("account", "quota", "small@example.org", str(SMALL_QUOTA))
        server.accounts("account", "disable", "gone@example.org")
        server.accounts("alias", "add", "team@example.org", "anna@example.org", "bob@example.org")
        server.end()
        _prepared.append(server.data)
    return _prepared[0]


class ServerTestCase(SynchronousTestCase):
    """Tests with a real server; each ends it and looks whether it left in peace."""

    def new_directory(self) -> Path:
        """A fresh directory below the system's own for such: short enough for Unix sockets, open to other users."""
        directory = Path(tempfile.mkdtemp(prefix="mailserver-"))
        directory.chmod(0o755)
        self.addCleanup(shutil.rmtree, directory, ignore_errors=True)
        return directory

    def new_server(self, config: str | None = STANDARD) -> RunningServer:
        """A server that is not started yet.  It may not be alive when the test is over."""
        server = RunningServer(self.new_directory(), config)
        self.addCleanup(server.end)
        return server

    def serve(self, config: str = STANDARD) -> RunningServer:
        """A running server with the usual accounts, whose end is checked when the test is over."""
        server = self.new_server(config)
        shutil.copytree(prepared_data(), server.data)
        server.start()
        self.addCleanup(self.leaves_in_peace, server)
        return server

    def leaves_in_peace(self, server: RunningServer) -> None:
        """SIGTERM ends it with status 0; the log has no failure and no secret."""
        self.assertEqual(server.stop(), 0, server.told())
        self.assert_clean_log(server)
        self.assertEqual([str(path) for path in server.data.glob("**/tmp/*")], [])

    def assert_clean_log(self, server: RunningServer) -> None:
        """No failure, and no password in any form it could have."""
        told = server.told()
        for word in ("Traceback", '"traceback"', "Unhandled"):
            self.assertNotIn(word, told)
        for address, password in PASSWORDS.items():
            plain = f"\0{address}\0{password}".encode()
            for secret in (password, *(base64.b64encode(each).decode() for each in (password.encode(), plain))):
                self.assertNotIn(secret, told)
