"""
The server as a victim: a process group of its own that can be killed whole, and started again on what it has left.

In: a directory for configuration and log, another one for the data.  Out: `CrashServer`.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.crash.variants import ADDRESSES, LISTENERS, SHIPPED, Variant
from tests.interop.running import PROGRAMS, RunningServer, await_true

_PASSWORD = "Xk-crash-7Feldspar"
#: Accounts without a Maildir.
LATE_ACCOUNTS = 2


class CrashServer(RunningServer):
    """variant: see `Variant`. data: the data directory, on whatever is tested. environ: more of the environment."""

    def __init__(
        self, directory: Path, variant: Variant, data: Path, environ: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(directory, variant.config(data))
        self.data = data
        self.environ = dict(environ or {})

    def sabotage(self, kind: str) -> None:
        """Let it break its promise in this way: see `tests/crash/sabotage.py`."""
        self.program = (str(Path(__file__).with_name("sabotage.py")), kind, *self.program[1:])

    def launch(self) -> None:
        """Start the process, as the first of its group."""
        environ = {name: value for name, value in os.environ.items() if not name.startswith("MAILSERVER")}
        environ |= {"NOTIFY_SOCKET": os.fspath(self.directory / "notify"), **self.environ}
        # Its addresses are the last ones in its log, which is read as a whole: so each start begins a new one.
        if self.log.exists():
            self.log.replace(self.log.with_suffix(".before"))
        program = self.program[0]
        command = [str(PROGRAMS / program)] if "/" not in program else [sys.executable, program]
        with self.log.open("wb") as out, self.errors.open("ab") as errors:
            self.process = subprocess.Popen(
                [*command, *self.program[1:], "mailserver", *self.options],
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=errors,
                env=environ,
                start_new_session=True,
            )

    def start(self) -> RunningServer:
        """Start it and wait until it is ready; of what an earlier life has told systemd nothing is left."""
        self._notify.setblocking(False)
        try:
            while self._notify.recv(4096):
                pass
        except BlockingIOError:
            self._notices = b""
        super().start()
        # With several processes the first one that is ready may have said so before the addresses are in the log.
        self.await_events("listening", len(LISTENERS))
        return self

    def members(self) -> list[int]:
        """The processes of its session that live, the first one first."""
        return sorted(pid for pid, state in self._session() if state not in "ZX")

    def _session(self) -> Iterator[tuple[int, str]]:
        """The processes of its session with their states, also those that are dead and not yet waited for."""
        for entry in os.listdir("/proc"):
            try:
                status = Path(f"/proc/{entry}/stat").read_text("ascii", "replace") if entry.isdigit() else ""
            except OSError:
                continue
            if status:
                state, _, _, session = status.rpartition(")")[2].split()[:4]
                if int(session) == self.running.pid:
                    yield int(entry), state

    def kill(self) -> None:
        """SIGKILL to all of them at once; afterwards there is none, also none that init has not yet waited for."""
        if self.process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.wait()
        await_true(lambda: not list(self._session()), "the end of all processes of the killed server")

    def end(self) -> None:
        """Whatever state it is in: afterwards there is no process."""
        self.kill()
        self._notify.close()


_prepared: list[Path] = []


def prepared_data() -> Path:
    """A data directory with the accounts and the certificate, made once; copy it."""
    if not _prepared:
        directory = Path(tempfile.mkdtemp(prefix="mailserver-crash-accounts-"))
        atexit.register(shutil.rmtree, directory, ignore_errors=True)
        server = CrashServer(directory, SHIPPED, directory / "data")
        server.data.mkdir(0o700)
        try:
            for address in ADDRESSES:
                server.accounts("account", "add", address, "--password-stdin", stdin=_PASSWORD + "\n")
            server.start()
            server.stop()
        finally:
            server.end()
        # What a server of one variant has left is nothing for another one.
        shutil.rmtree(server.data / "journal", ignore_errors=True)
        _prepared.append(server.data)
    return _prepared[0]


def fresh_data(target: Path) -> None:
    """
    A new data directory there, synced.  Most accounts have a Maildir, so that they can be watched from the start; the
    others get theirs with their first mail, under load.
    """
    shutil.copytree(prepared_data(), target)
    for address in ADDRESSES[:-LATE_ACCOUNTS]:
        local, _, domain = address.partition("@")
        for folder in ("tmp", "new", "cur"):
            (target / "mail" / domain / local / folder).mkdir(0o700, parents=True, exist_ok=True)
    for path in (target / "mail").glob("**/"):
        path.chmod(0o700)
    os.sync()
