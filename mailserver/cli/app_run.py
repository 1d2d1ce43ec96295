"""
A development server with an app in front of it, which takes a changed file into use.

In: a file, options, patterns of recipients.  Out: a running `MailService`; lines for a person.
The file is looked at twice a second.  A new version is loaded and checked before anything is changed, so one that
does not run is told of, with file and line, and the old one stays.  Connections keep the app that they have; new ones
get the new one.  What the file itself imports is not looked at.

Failures: `AppError`, `StartError` before anything listens.
"""

from __future__ import annotations

import dataclasses
import shlex
import tomllib
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.task import LoopingCall

from mailserver.apps.installed import callbacks_of
from mailserver.apps.loading import AppError, settings_of, whole_source
from mailserver.config import AppTable, Config, Listener, development
from mailserver.foundations import StartError
from mailserver.service import MailService
from mailserver.welcome import doors, first_door, inbox_of

#: Seconds between two looks at the file.
LOOK_EVERY = 0.5
#: Seconds that transactions get at the end: who tries things out does not wait.
DRAIN_TIMEOUT = 1.0
#: Sender and recipient of the commands to copy.
SENDER, RECIPIENT = "me@example.net", "you@example.org"


@dataclass(frozen=True, slots=True)
class Wanted:
    """
    What shall be run.  source: "tickets.py" or "tickets.py:Tickets".  options: text, or TOML where it begins with a
    bracket.  patterns: of recipients, none for all.  port: of SMTP; None: the usual one, or the next free one.
    """

    source: str
    options: Mapping[str, str] = field(default_factory=dict)
    patterns: Sequence[str] = ()
    threaded: bool = False
    port: int | None = None

    @property
    def file(self) -> str:
        """The file alone, as it was given."""
        return self.source if self.source.endswith(".py") else self.source.rpartition(":")[0]


class AppRun:
    """
    reactor: clock and network.  say: gets lines for a person.  make_service: as `MailService`.

    The file is found from the present folder.
    """

    def __init__(
        self,
        wanted: Wanted,
        data_dir: Path,
        reactor: Any,
        say: Callable[[str], Any],
        make_service: Callable[..., Any] = MailService,
    ) -> None:
        self._wanted = wanted
        self._data_dir = data_dir
        self._reactor = reactor
        self._say = say
        self._make_service = make_service
        self._file = Path.cwd() / wanted.file
        self._seen: tuple[int, ...] | None = None
        self._table: AppTable | None = None
        self._looking = LoopingCall(self.look)
        self._looking.clock = reactor
        self.service: MailService | None = None

    def prepare(self) -> None:
        """Load the app and bind the ports.  Raises AppError, StartError."""
        if not self._wanted.file.endswith(".py"):
            raise AppError("python", f'"{self._wanted.source}" is no file; write "file.py" or "file.py:Class"')
        self._seen = signature(self._file)
        service: MailService = self._make_service(self._config(), self._reactor, told=self._welcome)
        service.prepare()
        self.service = service

    def start(self) -> None:
        """Listen, and look at the file from now on."""
        assert self.service is not None
        self.service.startService()
        self._looking.start(LOOK_EVERY, now=False)

    def stop(self) -> Deferred[None]:
        """Listen no more; fires when all is over."""
        assert self.service is not None
        if self._looking.running:
            self._looking.stop()
        return self.service.stopService()

    def _config(self) -> Config:
        """The configuration with the file as it is now.  Raises AppError."""
        here, wanted = Path.cwd(), self._wanted
        source = whole_source(wanted.source, here)
        place, _, name = source.rpartition(":")
        try:
            table = AppTable.model_validate(
                {
                    "name": name,
                    "python": f"{here / place}:{name}",
                    "options": {key: _option(key, text) for key, text in wanted.options.items()},
                    "match": {"recipients": tuple(wanted.patterns)},
                    "threaded": wanted.threaded,
                }
            )
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            raise AppError("--match", str(first["msg"]).removeprefix("Value error, ")) from None
        settings_of(table, here)
        self._table = table
        config = development(self._data_dir, apps=(table,), port=wanted.port)
        server = config.server.model_copy(update={"drain_timeout": DRAIN_TIMEOUT})
        return dataclasses.replace(config, server=server)

    # -- reload ----------------------------------------------------------------------------------------------------

    def look(self) -> Deferred[None] | None:
        """Has the file changed?  Then use what it is now."""
        now = signature(self._file)
        if now is None or now == self._seen:
            return None  # an editor may have taken it away, and will put it back
        self._seen = now
        return ensureDeferred(self._reload())

    async def _reload(self) -> None:
        assert self.service is not None
        try:
            await self.service.change_to(self._config())
        except AppError as error:
            self._say(f"{error_told(error, self._wanted.file)}\nThe version before it stays in use.")
        except StartError as error:
            self._say("\n".join(error.lines) + "\nThe version before it stays in use.")
        else:
            self._say(f"{self._wanted.file} has changed and is in use.")

    # -- what is said ----------------------------------------------------------------------------------------------

    def _welcome(self, config: Config, addresses: list[tuple[Listener, str]]) -> None:
        assert self._table is not None
        self._say(welcome(self._wanted, self._table, config, addresses))


def welcome(wanted: Wanted, table: AppTable, config: Config, addresses: Sequence[tuple[Listener, str]]) -> str:
    """Where it listens, where mail goes, and how to try it."""
    lines = [f"{wanted.file}: {table.name} is ready: development mode, this machine only."]
    lines += doors(addresses)
    whose = f"for {', '.join(wanted.patterns)}" if wanted.patterns else "for everybody"
    inbox = f"{inbox_of(config)}/new"
    if "message" not in callbacks_of(settings_of(table, Path.cwd()).app):
        lines.append(f"{table.name} is asked about mail {whose}; what it lets go on will lie in {inbox}")
    elif wanted.patterns:
        lines.append(f"Mail {whose} goes to {table.name}, all other will lie in {inbox}")
    else:
        lines.append(f"Mail {whose} goes to {table.name}.")
    where = first_door(addresses)
    if where is not None:
        recipient = example_of(wanted.patterns[0]) if wanted.patterns else RECIPIENT
        lines += ["Send it a mail:", f"  {swaks(where, recipient)}", f"  {python(where, recipient)}"]
    lines.append(f"A change of {wanted.file} is used at once.  Ctrl-C ends the server.")
    return "\n".join(lines)


def swaks(address: str, recipient: str) -> str:
    """One line for a shell.  address: "host:port"."""
    return shlex.join(["swaks", "--server", address, "--from", SENDER, "--to", recipient])


def python(address: str, recipient: str) -> str:
    """The same without swaks."""
    host, _, port = address.rpartition(":")
    mail = r"Subject: hello\n\nIt works."
    send = f'smtplib.SMTP("{host.strip("[]")}", {port}).sendmail("{SENDER}", "{recipient}", "{mail}")'
    return shlex.join(["python3", "-c", f'import smtplib; print({send} or "sent")'])


def example_of(pattern: str) -> str:
    """An address that a pattern fits: "tickets+*@example.org" -> "tickets+1@example.org"."""
    if pattern == "*":
        return RECIPIENT
    local, _, domain = pattern.rpartition("@")
    local = local.replace("*", "you" if local == "*" else "1").replace("?", "1")
    return f"{local}@{domain.replace('*', 'example.org' if domain == '*' else 'a').replace('?', 'a')}"


def error_told(error: AppError, file: str) -> str:
    """What is wrong with an app, behind the file and the line where it is."""
    cause = error.__cause__
    if isinstance(cause, SyntaxError) and cause.lineno is not None:
        return f"{file}:{cause.lineno}: {type(cause).__name__}: {cause.msg}"
    if cause is not None:
        frames = [
            each for each in traceback.extract_tb(cause.__traceback__) if each.filename.endswith(Path(file).name)
        ]
        if frames:
            return f"{file}:{frames[-1].lineno}: {type(cause).__name__}: {cause}"
    return str(error) if error.key == "python" else f"{error.key}: {error}"


def signature(file: Path) -> tuple[int, ...] | None:
    """What changes when a file does; None while it is not there."""
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def _option(key: str, text: str) -> Any:
    """A value of the command line: lists and tables as TOML has them, all else is for the app's model to read."""
    if not text.startswith(("[", "{")):
        return text
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError as error:
        raise AppError(f"--option {key}", f"is no TOML: {error}") from None
