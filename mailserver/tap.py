"""
`twistd mailserver` and `twist mailserver`: parse, load, build, and nothing else.

In: the options behind the plugin's name.  Out: `MailService`, or `WorkersService` where several processes serve.
Which file, and which data directory, is decided once, as absolute paths: `twistd --rundir` changes the current folder
afterwards, and a reload must find the same.  So messages name the file by its absolute path.
A configuration with problems, or a port that cannot be had, ends the program with status 1 and one line for each on
stderr, before anything has started.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from twisted.python import usage

from mailserver.config import Config, ConfigError, Listener, development, find_config, load, passed_over
from mailserver.config.ground import unsuited
from mailserver.foundations import StartError
from mailserver.logs import Destination, LineObserver, SharedLines, observer, twistd_logger
from mailserver.privileges import Owner
from mailserver.reloading import ReloadingService
from mailserver.service import MailService
from mailserver.welcome import welcome
from mailserver.workers.parent import WorkersService, processes

#: Where development mode keeps its data.
DEVELOPMENT_DATA = "mailserver-data"


class Options(usage.Options):
    """What stands behind `twistd mailserver`."""

    synopsis = "[options]"
    longdesc = (
        "Runs the mail server. Without a configuration it is a development server: loopback only, unprivileged "
        "ports, every address accepted."
    )
    optParameters = [  # noqa: RUF012 - twisted.python.usage reads it so
        [
            "config",
            "c",
            None,
            (
                "The configuration. Default: $MAILSERVER_CONFIG, else /etc/mailserver/mailserver.toml when it "
                "exists, else development mode."
            ),
        ],
        ["data", "d", None, f"The data directory of development mode. Default: ./{DEVELOPMENT_DATA}."],
    ]

    config: Config
    #: Where the log goes.
    log: Destination
    #: The configuration's file, absolute; None in development mode.
    file: Path | None = None
    #: The data directory of development mode, absolute.
    development_data = Path(DEVELOPMENT_DATA)

    def postOptions(self) -> None:
        """Load the configuration and set up the log as it says.  Exits with status 1 when there are problems."""
        self._decide()
        self.config = self.load()
        for warning in self.config.warnings:
            _say([str(warning)])
        self.log = _set_up_log(self.parent, self.config)

    def _decide(self) -> None:
        """Which file and which data directory.  Raises UsageError."""
        found = find_config(self["config"], os.environ)
        if found is None:
            self.development_data = Path(self["data"] or DEVELOPMENT_DATA).absolute()
            if (reason := unsuited(self.development_data)) is not None:
                raise usage.UsageError(f"--data: {reason}")
            return
        self.file = found.absolute()
        if self["data"] is not None:
            raise usage.UsageError(f"--data is for development mode, but there is a configuration: {self.file}")

    def load(self) -> Config:
        """The configuration; exits with status 1 when it has problems."""
        try:
            return self.read()
        except ConfigError as error:
            _say([str(problem) for problem in error.problems])
            raise SystemExit(1) from None

    def read(self) -> Config:
        """The configuration, as it is now; `MailService` calls it for a reload.  Raises ConfigError."""
        return development(self.development_data, passed_over()) if self.file is None else load(self.file)


#: What makes the observer of twistd's log.  twistd takes a logger by its name only, so what it names must be found in
#: a module: the one place of the house where a value is kept outside of objects.
_observers: list[Callable[[], Any]] = []


def log_observer() -> Any:
    """The observer that the configuration asks for; twistd calls this by name."""
    return _observers[-1]()


def _set_up_log(parent: Any, config: Config) -> Destination:
    """Let twistd, or twist, write the log as the configuration says; a `--logger` of the user's own wins."""
    server = config.server
    log, shared = Destination(server.log_format, server.log_level), processes(server.workers) > 1
    if parent is None:
        return log
    if "nodaemon" not in parent:

        def factory(file: Any) -> LineObserver:
            log.observer = observer(log.format, log.level, SharedLines(file.fileno()) if shared else file)
            return log.observer

        parent["fileLogObserverFactory"] = factory
    elif parent.get("logger") is None:
        make = twistd_logger(parent, log.format, log.level, shared=shared)

        def remembered() -> LineObserver | None:
            log.observer = make()
            return log.observer

        _observers.append(remembered)
        parent["logger"] = f"{__name__}.log_observer"
        if parent.get("syslog"):
            log.syslog = (parent["prefix"], parent["facility"])
    else:
        log.logger = parent["logger"]
    return log


def makeService(options: Options) -> ReloadingService:
    """The service, its sockets already bound: what is in the way is told here, on the terminal."""
    from twisted.internet import reactor

    parent: Any = options.parent or {}
    uid, gid = parent.get("uid"), parent.get("gid")
    owner = None
    if uid is not None and os.geteuid() == 0:
        owner = Owner(uid, gid if gid is not None else os.getgid())
    service: MailService | WorkersService
    count = processes(options.config.server.workers)
    if count > 1:
        service = WorkersService(options.config, reactor, count, options.log, load=options.read, owner=owner)
    else:
        service = MailService(options.config, reactor, load=options.read, told=_welcome, owner=owner)
    try:
        service.prepare()
    except StartError as error:
        _say(error.lines)
        raise SystemExit(1) from None
    return service


def _welcome(config: Config, addresses: list[tuple[Listener, str]]) -> None:
    # Not sys.stdout: by now twistd makes log lines of what is printed.  (None: there is no terminal, as in a daemon.)
    if config.development and sys.__stdout__ is not None:
        sys.__stdout__.write(welcome(config, addresses))
        sys.__stdout__.flush()


def _say(lines: Sequence[str]) -> None:
    for line in lines:
        sys.stderr.write(f"{line}\n")
