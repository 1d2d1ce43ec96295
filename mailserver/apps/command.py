"""
`command`: mail to the stdin of a program.

In: a message, its envelope, the options.  Out: 250 when the program ends with status 0; else a refusal.
The program is run itself, never a shell; a placeholder never becomes several arguments, and an argument that would
begin with "-" only because of a placeholder is refused, as it could be taken for an option.  What the program may see
of the outside stands in its environment and its arguments; docs/destinations.md lists both, and the exit statuses.

Exit statuses are those of sysexits.h, as Postfix's pipe(8) and sendmail read them, with one difference: a status
that blames this machine or the program (64, 66, 70, 72, 73, 74, 78) does not bounce the mail, it is tried again.
Those of qmail-command(8), 99, 100 and 111, are known too.  All else is a 451, and the cause is in the log.
"""

from __future__ import annotations

import grp
import os
import pwd
import re
import shlex
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from string import Formatter
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, field_validator, model_validator
from twisted.logger import Logger

from mailserver.apps.arguments import MAX_NAME, parts_of
from mailserver.apps.common import Delivering, DeliveryOptions, Seconds, Slots
from mailserver.apps.message import Message
from mailserver.apps.programs import Invocation, Machine, Outcome, Owner, Run
from mailserver.envelope import Envelope, Recipient
from mailserver.reply import LOCAL_TROUBLE, UNKNOWN_USER, Refusal, Reply

PATH = "/usr/local/bin:/usr/bin:/bin"
LANG = "C.UTF-8"
#: Characters of a line of output that may become a reply's text.
MAX_TOLD = 200
#: Octets of a placeholder's value and of a variable; far above an address.
MAX_VALUE = 4096
#: Octets of the list of recipients; Linux takes no variable over 128 KiB.
MAX_LIST = 64 * 1024

#: Exit status -> reply.  Others are LOCAL_TROUBLE (451).
REPLIES: Mapping[int, Reply] = {
    65: Reply(554, "5.6.0", "Message not accepted: bad data"),  # EX_DATAERR
    67: UNKNOWN_USER,  # EX_NOUSER
    68: Reply(550, "5.1.2", "Host unknown"),  # EX_NOHOST
    69: Reply(554, "5.3.0", "Message not accepted"),  # EX_UNAVAILABLE
    75: Reply(451, "4.3.0", "Temporary failure, try again later"),  # EX_TEMPFAIL
    76: Reply(554, "5.5.0", "Message not accepted: protocol error"),  # EX_PROTOCOL
    77: Reply(550, "5.7.1", "Message not allowed"),  # EX_NOPERM
    100: Reply(554, "5.3.0", "Message not accepted"),  # qmail: permanent
}
#: Statuses that accept: 99 is qmail's "and no further instructions".
ACCEPTED = frozenset({0, 99})
#: Statuses that a program gives on purpose for "later": no reason to log more than that.
ASKED_LATER = frozenset({71, 75, 111})
BEGINS_WITH_DASH = Reply(553, "5.1.3", "A name that begins with a dash is not taken here")

#: Placeholder -> is it a recipient's own?
_PLACEHOLDERS = {
    "sender": False, "id": False, "helo": False, "client": False, "identity": False, "listener": False, "size": False,
    "recipient": True, "local": True, "user": True, "detail": True, "domain": True,
}  # fmt: skip
_ARGUMENT = re.compile(rf"arg\.[A-Za-z][A-Za-z0-9_]{{0,{MAX_NAME - 1}}}\Z")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}\Z")
_TOLD = re.compile(r"([45]\.[0-9]{1,3}\.[0-9]{1,3})[ :]+(\S.*)")


def _split(value: object) -> object:
    """A single text is split like a shell would, without anything else that shells do."""
    return shlex.split(value) if isinstance(value, str) else value


def _names(template: str) -> list[str]:
    """The placeholders of an argument.  Raises ValueError for what is none."""
    found = []
    for _literal, name, form, conversion in Formatter().parse(template):
        if name is None:
            continue
        if form or conversion or (name not in _PLACEHOLDERS and not _ARGUMENT.match(name)):
            known = ", ".join("{" + each + "}" for each in _PLACEHOLDERS)
            raise ValueError(f"{{{name}}} is no placeholder; there are {known} and {{arg.NAME}}; write {{{{ for {{")
        found.append(name)
    return found


def _program(run: tuple[str, ...]) -> tuple[str, ...]:
    if not run or not run[0]:
        raise ValueError("names no program")
    if _names(run[0]) or run[0].startswith("-"):
        raise ValueError("the program itself must be a fixed path or name")
    for each in run:
        if "\0" in each:
            raise ValueError("an argument has a NUL character")
        _names(each)
    return run


def _variables(environment: dict[str, str]) -> dict[str, str]:
    for name, value in environment.items():
        if not _VARIABLE.match(name):
            raise ValueError(f"{name!r} is no name of a variable")
        if "\0" in value:
            raise ValueError(f"{name} has a NUL character")
    return environment


def _placed(path: str, info: ValidationInfo) -> str:
    return os.path.join((info.context or {}).get("folder", ""), path)


class CommandOptions(DeliveryOptions):
    """What may be said of a command."""

    run: Annotated[tuple[str, ...], BeforeValidator(_split), AfterValidator(_program)] = Field(
        description="The program and its arguments; a single text is split at blanks, quotes keep them."
    )
    environment: Annotated[dict[str, str], AfterValidator(_variables)] = Field(
        default={}, repr=False, description="Further variables of its environment."
    )
    folder: str | None = Field(default=None, description="Its working directory; default: that of the server.")
    user: str | None = Field(default=None, description="Run it as this user; only a server that is root can.")
    group: str | None = Field(default=None, description="And as this group; default: the user's own.")
    timeout: Seconds = Field(default=60.0, description="It is ended after this; the sender tries again.")
    header: Literal["trace", "mbox", "none"] = Field(
        default="trace",
        description='What stands on top of the message: "trace": Return-Path, Delivered-To, Received; "mbox": a From '
        'line before them; "none": nothing.',
    )
    line_endings: Literal["lf", "crlf"] = Field(default="lf", description="How lines end on its stdin.")
    tell_output: bool = Field(
        default=False, description="The first line of its output becomes the text of the reply; others may read it."
    )
    refuse_on: frozenset[Annotated[int, Field(ge=1, le=255)]] = Field(
        default=frozenset(), description="Further exit statuses that refuse the message for good (554)."
    )

    @field_validator("run")
    @classmethod
    def _program_from_folder(cls, run: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        """A relative path, one with a slash, starts where the configuration is."""
        return (_placed(run[0], info), *run[1:]) if "/" in run[0] else run

    @field_validator("user", "group")
    @classmethod
    def _exists(cls, name: str | None, info: ValidationInfo) -> str | None:
        """A name that nobody has is told with the other problems of a configuration."""
        if name is not None and info.context:
            try:
                pwd.getpwnam(name) if info.field_name == "user" else grp.getgrnam(name)
            except KeyError:
                raise ValueError(f"there is no {info.field_name} {name}") from None
        return name

    @field_validator("folder")
    @classmethod
    def _folder_from_folder(cls, folder: str | None, info: ValidationInfo) -> str | None:
        return folder if folder is None else _placed(folder, info)

    @model_validator(mode="after")
    def _goes_together(self) -> CommandOptions:
        names = {name for each in self.run for name in _names(each)}
        own = sorted(name for name in names if _PLACEHOLDERS.get(name, True))
        if own and self.each == "message":
            raise ValueError(f'{{{own[0]}}} differs for each recipient; it needs each = "recipient"')
        if not self.arguments and any(name.startswith("arg.") for name in names):
            raise ValueError("{arg.NAME} needs arguments = true")
        if self.group is not None and self.user is None:
            raise ValueError("group needs user")
        return self


@dataclass(slots=True)
class Shared:
    """What all connections of a process share.  program: the path of the program; "": it was not found at start."""

    slots: Slots
    machine: Machine
    owner: Owner | None
    home: Mapping[str, str]
    running: set[Run] = field(default_factory=set)


class Command(Delivering):
    """Mail to the stdin of a program.  `shared` is a `Shared`."""

    Options = CommandOptions
    options: CommandOptions
    shared: Shared
    log = Logger()

    @classmethod
    def setup(cls, options: CommandOptions, machine: Machine | None = None) -> Shared:
        """
        Raises ValueError for a folder that is none, and for a user that does not exist or that we cannot become.

        machine: for tests; default: this process and its reactor.
        """
        if options.folder is not None and not os.path.isdir(options.folder):
            raise ValueError(f"command: {options.folder} is no folder")
        owner, home = _owner_of(options.user, options.group)
        if machine is None:
            from twisted.internet import reactor

            machine = Machine(reactor)
        if owner is None and os.geteuid() == 0:
            program = options.run[0]
            cls.log.warn("command {program} runs as root; give it a user", program=program)  # noqa: G010 - Twisted
        if find_program(options) is None:
            cls.log.error("command {program} cannot be found", event="command-missing", program=options.run[0])
        return Shared(Slots(options.concurrency, options.waiting), machine, owner, home)

    @classmethod
    def teardown(cls, shared: Shared) -> None:
        """End what still runs."""
        for run in list(shared.running):
            run.end()

    async def message(self, envelope: Envelope, message: Message) -> Any:
        """Run it.  Raises Refusal."""

        async def act(recipients: tuple[Recipient, ...]) -> Reply | str | None:
            return await self._run(envelope, recipients, message)

        return await self.deliver(envelope, act)

    async def _run(
        self, envelope: Envelope, recipients: tuple[Recipient, ...], message: Message
    ) -> Reply | str | None:
        options, shared = self.options, self.shared
        given = Given(envelope, recipients, message.size, self._arguments(recipients))
        arguments = [given.fill(each) for each in options.run]
        if (program := find_program(options)) is None:
            self.log.error(
                "{app}: {program} cannot be found", event="command-missing", app=self.name, program=options.run[0]
            )
            raise Refusal(LOCAL_TROUBLE)
        environment = {"PATH": PATH, "LANG": LANG, **shared.home, **given.variables(), **options.environment}
        invocation = Invocation(
            (os.fsencode(program), *map(_octets_of, arguments[1:])),
            {_octets_of(name): _octets_of(value) for name, value in environment.items()},
            options.folder,
            shared.owner,
            options.timeout,
        )
        give_back = await shared.slots.take()

        def ended() -> None:
            shared.running.discard(run)
            give_back()

        run = Run(invocation, stdin_of(options, given, message), shared.machine, ended)
        shared.running.add(run)
        return self._judge(await run.start(), given)

    def _arguments(self, recipients: tuple[Recipient, ...]) -> dict[str, str]:
        if not self.options.arguments:
            return {}
        # One run for several recipients: what the last of them says holds.
        return {name: value for each in recipients for name, value in self.arguments_of(each).items()}

    def _judge(self, outcome: Outcome, given: Given) -> Reply | str | None:
        """The answer to how it ended.  Raises Refusal."""
        reply = reply_to(outcome, self.options)
        level = "info" if reply is None or outcome.status in ASKED_LATER or reply.code >= 500 else "error"
        stdout, stderr = _shown(outcome.stdout), _shown(outcome.stderr)
        told = "{app}: {program} {how} for {recipients}"
        getattr(self.log, level)(
            told + ("; stdout: {stdout!r}" if stdout else "") + ("; stderr: {stderr!r}" if stderr else ""),
            event="command",
            app=self.name,
            program=self.options.run[0],
            how=how_it_ended(outcome),
            transaction=given.envelope.id,
            recipients=[str(each.address) for each in given.recipients],
            status=outcome.status,
            stdout=stdout,
            stderr=stderr,
        )
        if reply is not None:
            raise Refusal(reply)
        return _first_line(outcome.stdout) or None if self.options.tell_output else None


@dataclass(frozen=True, slots=True)
class Given:
    """What a program is told.  recipients: those of this run."""

    envelope: Envelope
    recipients: tuple[Recipient, ...]
    size: int
    arguments: Mapping[str, str]

    def fill(self, template: str) -> str:
        """An argument with its placeholders filled in.  Raises Refusal where that would make an option of it."""
        values = self.values()
        filled = ""
        for literal, name, _form, _conversion in Formatter().parse(template):
            filled += literal
            if name is not None:
                value = self.argument(name[4:]) if name.startswith("arg.") else values[name]
                if not filled and value.startswith("-"):
                    raise Refusal(BEGINS_WITH_DASH)
                filled += value
        return filled

    def argument(self, name: str) -> str:
        """The value of an argument in the address, "" when it has none; case does not count."""
        return next((value for key, value in self.arguments.items() if key.upper() == name.upper()), "")

    def values(self) -> dict[str, str]:
        """Placeholder -> value."""
        envelope = self.envelope
        values = {
            "sender": str(envelope.sender or ""),
            "id": envelope.id,
            "helo": envelope.peer.helo,
            "client": envelope.peer.host,
            "identity": envelope.peer.user,
            "listener": envelope.listener,
            "size": str(self.size),
        }
        if len(self.recipients) == 1:
            address = self.recipients[0].address
            user, _separator, detail = parts_of(address)
            values |= {"recipient": str(address), "local": address.local, "domain": address.domain}
            values |= {"user": user, "detail": detail}
        return {name: _clean(value) for name, value in values.items()}

    def variables(self) -> dict[str, str]:
        """The variables of the environment that come from outside, by the names that Postfix and Exim use."""
        values, peer = self.values(), self.envelope.peer
        variables = {
            "SENDER": values["sender"],
            "RECIPIENTS": "\n".join(str(each.address) for each in self.recipients)[:MAX_LIST],
            "MESSAGE_ID": values["id"],
            "SIZE": values["size"],
            "CLIENT_ADDRESS": values["client"],
            "CLIENT_PORT": str(peer.port),
            "CLIENT_HELO": values["helo"],
            "CLIENT_PROTOCOL": self.envelope.protocol,
            "SASL_USERNAME": values["identity"],
            "TLS_PROTOCOL": peer.tls.version if peer.tls else "",
            "TLS_CIPHER": peer.tls.cipher if peer.tls else "",
            "TLS_CLIENT_NAME": _clean(peer.tls.client_name) if peer.tls else "",
            "LISTENER": values["listener"],
        }
        if "recipient" in values:
            variables |= {"RECIPIENT": values["recipient"], "LOCAL": values["local"], "DOMAIN": values["domain"]}
            variables |= {"MAILBOX": values["user"], "EXTENSION": values["detail"]}
        return variables | {f"ARG_{name.upper()}": value for name, value in self.arguments.items()}


def reply_to(outcome: Outcome, options: CommandOptions) -> Reply | None:
    """The refusal that this end means; None: the message is taken."""
    if outcome.timed_out or outcome.trouble or outcome.status is None:
        return LOCAL_TROUBLE
    if outcome.status in ACCEPTED - options.refuse_on:
        return None
    reply = REPLIES.get(outcome.status, LOCAL_TROUBLE)
    if outcome.status in options.refuse_on and reply.code < 500:
        reply = REPLIES[69]
    if options.tell_output and (line := _first_line(outcome.stdout)):
        if (told := _TOLD.match(line)) is not None:  # as for Postfix: what it says counts more than its status
            code = reply.code if told[1][0] == str(reply.code)[0] else {"4": 451, "5": 554}[told[1][0]]
            return Reply(code, told[1], told[2])
        reply = Reply(reply.code, reply.enhanced, line)
    return reply


def how_it_ended(outcome: Outcome) -> str:
    """In words, for the log."""
    if outcome.trouble:
        return outcome.trouble
    if outcome.timed_out:
        return "took too long and was ended"
    return f"ended by signal {outcome.signal}" if outcome.status is None else f"ended with status {outcome.status}"


def stdin_of(options: CommandOptions, given: Given, message: Message) -> Iterator[bytes]:
    """What the program reads: the fields on top, then the message, with the line ends that it wants."""
    blocks = _with_top(options, given, message)
    return _with_lf(blocks) if options.line_endings == "lf" else blocks


def _with_top(options: CommandOptions, given: Given, message: Message) -> Iterator[bytes]:
    if options.header != "none":
        top = message.trace
        if len(given.recipients) == 1 and b"\nDelivered-To:" not in b"\n" + top:
            # Behind Return-Path, which is the topmost field (RFC 5321 4.4).
            head, end, rest = top.partition(b"\r\n") if top.startswith(b"Return-Path:") else (b"", b"", top)
            top = head + end + b"Delivered-To: " + str(given.recipients[0].address).encode() + b"\r\n" + rest
        if options.header == "mbox":
            sender = str(given.envelope.sender or "MAILER-DAEMON").encode()
            # RFC 4155: the date in the form of asctime(), UTC.
            top = b"From " + sender.replace(b" ", b"-") + b" " + _asctime() + b"\r\n" + top
        yield top
    yield from message.iter_blocks()


def _asctime() -> bytes:
    import time

    return time.asctime(time.gmtime()).encode()


def _with_lf(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """CRLF becomes LF, also where a block ends between the two."""
    held = b""
    for block in blocks:
        whole = held + block
        held = b"\r" if whole.endswith(b"\r") else b""
        yield (whole[:-1] if held else whole).replace(b"\r\n", b"\n")
    if held:
        yield held


def find_program(options: CommandOptions) -> str | None:
    """The path of the program: as it is with a slash, else in PATH.  Looked up each time: it may come later."""
    found = shutil.which(options.run[0], path=options.environment.get("PATH", PATH))
    return os.path.abspath(found) if found is not None else None


def _owner_of(user: str | None, group: str | None) -> tuple[Owner | None, dict[str, str]]:
    """As whom to run, None for ourselves, and the variables that say so."""
    if user is None:
        return None, {}
    try:
        entry = pwd.getpwnam(user)
        gid = grp.getgrnam(group).gr_gid if group is not None else entry.pw_gid
    except KeyError as error:
        raise ValueError(f"command: {error.args[0]}") from None
    home = {"HOME": entry.pw_dir, "USER": entry.pw_name, "LOGNAME": entry.pw_name}
    if os.geteuid() == 0:
        return Owner(entry.pw_uid, gid), home
    if (entry.pw_uid, gid) == (os.geteuid(), os.getegid()):
        return None, home
    raise ValueError(f"command: only root can run programs as {user}; this server runs as {os.geteuid()}")


def _clean(value: str) -> str:
    return value.replace("\0", "")[:MAX_VALUE]


def _octets_of(value: str) -> bytes:
    return value.encode("utf-8", "surrogateescape")


def _shown(output: bytes) -> str:
    return output.decode("utf-8", "backslashreplace").strip()


def _first_line(output: bytes) -> str:
    """The first line that is not empty, fit for a reply."""
    for line in output.decode("utf-8", "replace").splitlines():
        if told := "".join(character if character.isprintable() else "?" for character in line).strip():
            return told[:MAX_TOLD]
    return ""
