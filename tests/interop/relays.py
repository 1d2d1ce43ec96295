"""
Mail servers of others, which send to ours: Postfix and Exim, each an instance of its own in a fresh directory.

In: where ours listens.  Out: what they say about it (their log), and ours shows the rest.
No service of the machine is touched: own configuration, own queue, own port on loopback; each is ended by its own
command or process id.  Both change to users that their packages make, so these tests run as root only.
"""

from __future__ import annotations

import os
import pwd
import re
import shutil
import smtplib
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.interop.clients import HELO
from tests.interop.running import PATIENCE, await_true, free_port, run

_SBIN = "/usr/sbin:/usr/local/sbin:" + os.environ.get("PATH", "")
POSTFIX = shutil.which("postfix", path=_SBIN)
EXIM = shutil.which("exim4", path=_SBIN) or shutil.which("exim", path=_SBIN)

_MAIN = """
compatibility_level = 3.6
queue_directory = {directory}/queue
data_directory = {directory}/state
command_directory = /usr/sbin
daemon_directory = {daemons}
mail_owner = postfix
setgid_group = postdrop
maillog_file = {directory}/mail.log
maillog_file_prefixes = {directory}
myhostname = relay.example.com
mydestination =
mynetworks = 127.0.0.0/8
inet_interfaces = loopback-only
inet_protocols = all
alias_maps =
alias_database =
local_transport = error:nothing is local here
local_header_rewrite_clients =
smtp_dns_support_level = disabled
lmtp_dns_support_level = disabled
smtp_host_lookup = native
smtp_tls_loglevel = 1
message_size_limit = 0
mailbox_size_limit = 0
minimal_backoff_time = 1s
maximal_backoff_time = 2s
queue_run_delay = 300s
"""
_MASTER = """
{port} inet n - n - - smtpd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
proxymap unix - - n - - proxymap
error unix - - n - - error
retry unix - - n - - error
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
smtp unix - - n - - smtp -v
lmtp unix - - n - - lmtp -v
starttls unix - - n - - smtp -v -o smtp_tls_security_level=encrypt
implicit unix - - n - - smtp -v -o smtp_tls_security_level=encrypt -o smtp_tls_wrappermode=yes
unpipelined unix - - n - - smtp -v -o smtp_discard_ehlo_keywords=pipelining
"""
_RESULT = re.compile(r"to=<([^>]*)>.* dsn=([0-9.]+), status=(\w+) \((.*)\)$", re.MULTILINE)


def missing_relay(program: str | None, name: str, user: str) -> str | None:
    """Why tests with this server are skipped; None when it can run."""
    if program is None:
        return f"{name} is not installed"
    if os.geteuid() != 0:
        return f"{name} needs root to become its own user"
    try:
        pwd.getpwnam(user)
    except KeyError:
        return f"there is no user {user}, whom {name} becomes"
    return None


@dataclass(frozen=True)
class Result:
    """What Postfix says about one recipient.  status: "sent", "deferred" or "bounced"."""

    recipient: str
    dsn: str
    status: str
    text: str


class Postfix:
    """
    An instance that hands everything on.

    directory: fresh, of mode 0755.  settings: of main.cf; `default_transport` says where to.
    """

    def __init__(self, directory: Path, settings: Mapping[str, str]) -> None:
        self.directory = directory
        self.log = directory / "mail.log"
        self.port = free_port()
        self._conf = directory / "conf"
        for name in ("conf", "queue", "state"):
            (directory / name).mkdir()
        shutil.chown(directory / "state", "postfix")
        daemons = run(["postconf", "-d", "-h", "daemon_directory"]).strip()
        lines = [f"{name} = {value}\n" for name, value in settings.items()]
        main = _MAIN.format(directory=directory, daemons=daemons) + "".join(lines)
        (self._conf / "main.cf").write_text(main)
        (self._conf / "master.cf").write_text(_MASTER.format(port=f"127.0.0.1:{self.port}"))

    def start(self) -> Postfix:
        """Start it; it is ready when its log says so."""
        run([str(POSTFIX), "-c", str(self._conf), "start"])
        await_true(lambda: "daemon started" in self.said(), "Postfix starts", self.said)
        return self

    def stop(self) -> None:
        """End all of its processes: `postfix stop` waits for them."""
        run([str(POSTFIX), "-c", str(self._conf), "stop"])

    def send(
        self,
        sender: str,
        recipients: Sequence[str],
        text: bytes,
        options: Sequence[str] = (),
        rcpt_options: Sequence[str] = (),
    ) -> None:
        """Give it a message, which it must take.  options: of MAIL.  rcpt_options: of each RCPT."""
        with smtplib.SMTP("127.0.0.1", self.port, local_hostname=HELO, timeout=PATIENCE) as client:
            client.sendmail(sender, list(recipients), text, list(options), list(rcpt_options))

    def flush(self) -> None:
        """Let it try again what is deferred."""
        run(["postqueue", "-c", str(self._conf), "-f"])

    def said(self) -> str:
        """Its log, with all dialogues of its clients."""
        return self.log.read_text("utf-8", "replace") if self.log.exists() else ""

    def commands(self, verb: str) -> list[str]:
        """What its clients have sent that begins so."""
        return re.findall(rf"\]: > \S+: ({verb}.*)$", self.said(), re.MULTILINE)

    def results(self, count: int) -> list[Result]:
        """Wait for so many results; all of them, in order."""
        await_true(lambda: len(_RESULT.findall(self.said())) >= count, f"{count} results", self._brief)
        return [Result(to, dsn, status, text) for to, dsn, status, text in _RESULT.findall(self.said())]

    def _brief(self) -> str:
        return "\n".join(line for line in self.said().splitlines() if re.search(r"status=|warning|fatal|[<>] ", line))


_EXIM = """
exim_path = {exim}
spool_directory = {directory}/spool
log_file_path = {directory}/spool/log-%s
primary_hostname = relay.example.com
exim_user = Debian-exim
exim_group = Debian-exim
keep_environment =
never_users =
host_lookup =
smtputf8_advertise_hosts = *
begin routers
out:
  driver = manualroute
  route_list = * 127.0.0.1
  self = send
  transport = out
begin transports
out:
  driver = smtp
  port = {port}
  hosts_try_chunking = *
  hosts_try_dane =
  tls_verify_hosts =
  tls_try_verify_hosts =
  delivery_date_add = false
{options}
begin retry
* * F,1h,1s
"""


class Exim:
    """Exim's own delivery, message by message; nothing of it stays in memory.  options: lines of its transport."""

    def __init__(self, directory: Path, port: int, options: str = "") -> None:
        self._conf = directory / "exim.conf"
        self._log = directory / "spool" / "log-main"
        (directory / "spool").mkdir()
        shutil.chown(directory / "spool", "Debian-exim")
        indented = "".join(f"  {line}\n" for line in options.splitlines())
        self._conf.write_text(_EXIM.format(exim=EXIM, directory=directory, port=port, options=indented))

    def send(self, sender: str, recipients: Sequence[str], text: bytes) -> str:
        """Send a message; what its delivery says (`-d+transport` holds the dialogue)."""
        command = [
            str(EXIM),
            "-C",
            str(self._conf),
            "-odf",
            "-oi",
            "-d-all+transport",
            "-f",
            sender,
            "--",
            *recipients,
        ]
        done = subprocess.run(
            command, input=text, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=PATIENCE, check=False
        )
        log = self._log.read_text() if self._log.exists() else ""
        return done.stdout.decode("utf-8", "replace") + log
