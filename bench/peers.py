"""
The servers that are measured: each with its configuration, in a folder of its own, on a port of loopback.

In: a `Place`: the folder, who gets mail, the certificate.  Out: a running `Server`: its port, the process at the root
of its tree, where the mail of a user lies.  No service of the machine is touched.
Failures: BenchError, with what the server said.

Postfix is set up to be at its best: `in_flow_delay = 0`, `default_process_limit = 200`, clients on loopback exempt
from its limits (mynetworks), local users in an indexed table.  aiosmtpd runs the `Mailbox` that it brings.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.run import PATIENCE, BenchError, answers, await_true, free_port, run

DOMAIN = "example.org"
#: Whom Postfix delivers as.
_MAIL_UID = 5000


@dataclass(frozen=True, slots=True)
class Place:
    """
    directory: fresh, for this server alone.  users: local parts that get mail.  certificate, key: for STARTTLS.
    connections: that it must stand.
    """

    directory: Path
    users: Sequence[str]
    certificate: Path
    key: Path
    connections: int = 1000


class Server(ABC):
    """One server, from `start` to `stop`."""

    name: str
    #: What a 250 promises.
    durable: str
    #: Does each recipient of a message get a file?
    file_for_each = True

    def __init__(self) -> None:
        self.port = 0
        self.pid = 0

    @abstractmethod
    def start(self, place: Place) -> None:
        """Set it up and start it; it listens afterwards."""

    @abstractmethod
    def stop(self) -> None:
        """End it, and wait for its end; nothing happens when it does not run."""

    @abstractmethod
    def maildir(self, user: str) -> Path:
        """Where the mail of a user lies."""

    @abstractmethod
    def version(self) -> str:
        """For the report."""

    def statistics(self) -> Mapping[str, object]:
        """What it tells of itself."""
        return {}

    def copies(self, recipients: int) -> int:  # noqa: ARG002 - recipients share one
        """How often the text of a message for so many is on the disk."""
        return 1

    def folders(self, users: Sequence[str]) -> list[Path]:
        """The folders in which the files of these users appear."""
        return list(dict.fromkeys(self.maildir(user) / "new" for user in users))

    def make_maildir(self, user: str) -> None:
        """Make it before the first mail."""
        for name in ("new", "cur", "tmp"):
            (self.maildir(user) / name).mkdir(parents=True, mode=0o700)


class _Process(Server):
    """A server that is one command in the foreground."""

    def __init__(self) -> None:
        super().__init__()
        self._process: subprocess.Popen[bytes] | None = None

    def _launch(self, command: Sequence[str], directory: Path) -> None:
        log = directory / "log"
        with log.open("wb") as output:
            # PYTHONPATH and the like of whoever measures are not the servers' business.
            environ = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
            self._process = process = subprocess.Popen(
                command, cwd=directory, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environ
            )
        self.pid = process.pid

        def started() -> bool:
            if process.poll() is not None:
                raise BenchError(f"{self.name} has ended:\n{log.read_text('utf-8', 'replace')[-2000:]}")
            return answers(self.port)

        await_true(started, f"{self.name} starts")

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@dataclass(frozen=True, slots=True)
class Variant:
    """Keys of our configuration that are not left at their defaults.  None: not written at all."""

    durability: str | None = None
    workers: str | None = None

    def lines(self) -> tuple[str, str]:
        """For the tables [server] and [storage]."""
        workers = self.workers
        if workers is not None and not workers.isdigit():
            workers = f'"{workers}"'
        server = "" if workers is None else f"workers = {workers}\n"
        return server, "" if self.durability is None else f'[storage]\ndurability = "{self.durability}"\n'


_CONFIGURATION = """\
[server]
hostname = "mail.example.org"
data_dir = "data"
{server}
{storage}
# As shipped, but for the counts of what one client may do: here one client is the whole world.
[limits]
connections = {connections}
connections_per_client = 1000000
connection_rate = 10000000
messages_per_connection = 10000000
messages_per_minute = 0
recipients_per_minute = 0
recipients = 1000

[[tls.certificate]]
certificate = "{certificate}"
key = "{key}"

[[listener]]
address = "127.0.0.1:{port}"
protocol = "smtp"

[[domain]]
name = "{domain}"
"""


class Mailserver(_Process):
    """This project.  name: tells its variants apart."""

    def __init__(self, variant: Variant, name: str = "mailserver") -> None:
        super().__init__()
        self.name = name
        self._variant = variant
        self._configuration = self._mail = Path()
        self.durable = "nothing" if variant.durability == "none" else "the message, and its name in the Maildir"

    def start(self, place: Place) -> None:
        configuration = self.configure(place)
        (place.directory / "data").mkdir(mode=0o700)
        self._add(place.users)
        command = [str(Path(sys.executable).with_name("twistd")), "--nodaemon", "--pidfile="]
        self._launch([*command, "mailserver", "--config", str(configuration)], place.directory)

    def configure(self, place: Place) -> Path:
        """Choose a port, and write the configuration."""
        self.port = free_port()
        server, storage = self._variant.lines()
        configuration = place.directory / "mailserver.toml"
        configuration.write_text(
            _CONFIGURATION.format(
                server=server,
                storage=storage,
                connections=place.connections,
                certificate=place.certificate,
                key=place.key,
                port=self.port,
                domain=DOMAIN,
            )
        )
        self._configuration, self._mail = configuration, place.directory / "data" / "mail" / DOMAIN
        return configuration

    def _add(self, users: Sequence[str]) -> None:
        from mailserver.accounts.passwords import hash_password

        hashed = hash_password("never used to log in")[0]
        rows = self._configuration.with_name("users")
        rows.write_text("".join(f"{user}@{DOMAIN}:{hashed}::::::\n" for user in users))
        self._command("account", "import", str(rows), "--domain", DOMAIN)

    def _command(self, *words: str) -> str:
        program = Path(sys.executable).with_name("mailserver")
        return run([str(program), "--config", str(self._configuration), *words], patience=600)

    def maildir(self, user: str) -> Path:
        return self._mail / user

    def version(self) -> str:
        from mailserver import __version__

        variant = self._variant
        chosen = [f"durability {variant.durability}"] if variant.durability else []
        chosen += [f"{variant.workers} workers"] if variant.workers else []
        return ", ".join([__version__, *chosen])

    def statistics(self) -> Mapping[str, object]:
        told = json.loads(self._command("stats", "--json"))
        return told if isinstance(told, dict) else {}


_MAIN = """\
compatibility_level = 3.6
queue_directory = {directory}/queue
data_directory = {directory}/state
command_directory = /usr/sbin
daemon_directory = {daemons}
mail_owner = postfix
setgid_group = postdrop
maillog_file = {directory}/mail.log
maillog_file_prefixes = {directory}
myhostname = mail.example.org
mydestination =
mynetworks = 127.0.0.0/8
inet_interfaces = loopback-only
inet_protocols = ipv4
alias_maps =
alias_database =
virtual_mailbox_domains = {domain}
virtual_mailbox_base = {directory}/mail
virtual_mailbox_maps = {maps}
virtual_uid_maps = static:{uid}
virtual_gid_maps = static:{uid}
message_size_limit = 52428800
virtual_mailbox_limit = 0
smtpd_tls_security_level = may
smtpd_tls_cert_file = {certificate}
smtpd_tls_key_file = {key}
in_flow_delay = 0
default_process_limit = 200
"""
_MASTER = """\
127.0.0.1:{port} inet n - n - - smtpd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
proxymap unix - - n - - proxymap
error unix - - n - - error
retry unix - - n - - error
virtual unix - n n - - virtual
anvil unix - - n - 1 anvil
postlog unix-dgram n - n - 1 postlogd
"""


class Postfix(Server):
    """Debian's Postfix, which delivers by `virtual`; an instance of its own."""

    name = "postfix"
    durable = "its queue file; the Maildir file follows"

    def __init__(self) -> None:
        super().__init__()
        self._directory: Path | None = None

    def start(self, place: Place) -> None:
        directory, self.port = place.directory, free_port()
        for name in ("conf", "queue", "state", "mail"):
            (directory / name).mkdir()
        shutil.chown(directory / "state", "postfix")
        os.chown(directory / "mail", _MAIL_UID, _MAIL_UID)
        kind = run(["postconf", "-d", "-h", "default_database_type"]).strip()
        boxes = directory / "conf" / "boxes"
        boxes.write_text("".join(f"{user}@{DOMAIN} {DOMAIN}/{user}/\n" for user in place.users))
        (directory / "conf" / "main.cf").write_text(
            _MAIN.format(
                directory=directory,
                daemons=run(["postconf", "-d", "-h", "daemon_directory"]).strip(),
                domain=DOMAIN,
                maps=f"{kind}:{boxes}",
                uid=_MAIL_UID,
                certificate=place.certificate,
                key=place.key,
            )
        )
        (directory / "conf" / "master.cf").write_text(_MASTER.format(port=self.port))
        run(["postmap", "-c", str(directory / "conf"), f"{kind}:{boxes}"], patience=600)
        self._directory = directory
        run(["postfix", "-c", str(directory / "conf"), "start"])
        await_true(lambda: answers(self.port), "Postfix starts")
        self.pid = int((directory / "queue" / "pid" / "master.pid").read_text())

    def stop(self) -> None:
        directory, self._directory = self._directory, None
        if directory is not None:
            run(["postfix", "-c", str(directory / "conf"), "stop"])
            # `postfix stop` waits for the master; its children end by themselves.
            await_true(lambda: not Path("/proc", str(self.pid)).exists(), "Postfix stops")

    def copies(self, recipients: int) -> int:
        return recipients

    def maildir(self, user: str) -> Path:
        assert self._directory is not None
        return self._directory / "mail" / DOMAIN / user

    def make_maildir(self, user: str) -> None:
        super().make_maildir(user)
        path = self.maildir(user)
        for each in (path.parent, path, path / "new", path / "cur", path / "tmp"):
            os.chown(each, _MAIL_UID, _MAIL_UID)

    def version(self) -> str:
        return run(["postconf", "-d", "-h", "mail_version"]).strip()


class Aiosmtpd(_Process):
    """aiosmtpd from PyPI in a virtual environment of its own, with its `Mailbox`: one Maildir for everybody."""

    name = "aiosmtpd"
    durable = "the file in tmp/, not its name in new/"
    file_for_each = False

    def __init__(self, environment: Path) -> None:
        super().__init__()
        self._python = environment / "bin" / "python"
        self._maildir = Path()

    @staticmethod
    def install(environment: Path) -> None:
        """Make the virtual environment."""
        run([sys.executable, "-m", "venv", str(environment)], patience=300)
        pip = [str(environment / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "--quiet"]
        run([*pip, "install", "aiosmtpd"], patience=300)

    def start(self, place: Place) -> None:
        self.port = free_port()
        self._maildir = place.directory / "maildir"
        command = [str(self._python), "-m", "aiosmtpd", "-n", "-l", f"127.0.0.1:{self.port}", "-s", "52428800"]
        command += ["--tlscert", str(place.certificate), "--tlskey", str(place.key), "--no-requiretls"]
        self._launch([*command, "-c", "aiosmtpd.handlers.Mailbox", str(self._maildir)], place.directory)

    def maildir(self, user: str) -> Path:  # noqa: ARG002 - whoever it is for
        return self._maildir

    def make_maildir(self, user: str) -> None:
        """It has made its own at the start."""

    def version(self) -> str:
        return run([str(self._python), "-c", "import aiosmtpd; print(aiosmtpd.__version__)"]).strip()


def make_certificate(directory: Path) -> tuple[Path, Path]:
    """The same for all servers: ECDSA P-256, self-signed."""
    certificate, key = directory / "certificate.pem", directory / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    command += ["-days", "30", "-subj", "/CN=mail.example.org", "-addext", "subjectAltName=DNS:mail.example.org"]
    run([*command, "-keyout", str(key), "-out", str(certificate)])
    return certificate, key
