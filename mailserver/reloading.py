"""
The signals of the process that was started: SIGHUP reloads, SIGTERM stops; and what systemd is told of both.

In: a way to read the configuration, and what a subclass does with a new one.  Out: `ReloadingService`, below
`MailService` (one process) and `WorkersService` (several).
Failures: a configuration that cannot be read, or not be used, changes nothing; the log says why.
systemd.service(5), Type=notify: RELOADING=1, then READY=1 again; STOPPING=1 is the subclass's to say.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable
from typing import Any

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.logger import Logger

from mailserver.config import Config, ConfigError, Problem
from mailserver.foundations import StartError
from mailserver.systemd import notify, reloading

#: Keys that are used at the start only.
_AT_START = {
    "server": ("data_dir", "user", "group", "log_format", "log_level", "workers"),
    "tls": ("minimum_version", "check_interval"),
}

_log = Logger(namespace="mailserver.service")


def tell_problems(problems: Iterable[Problem]) -> None:
    """Log the problems of a configuration."""
    for problem in problems:
        tell = _log.warn if problem.warning else _log.error
        tell("{problem}", event="config", problem=str(problem))


def tell_what_needs_a_restart(new: Config, old: Config, keys: Iterable[str] = ()) -> None:
    """Warn of keys that have changed and that a reload cannot change; keys: more of them."""
    changed = [
        f"{table}.{key}"
        for table, names in _AT_START.items()
        for key in names
        if getattr(getattr(new, table), key) != getattr(getattr(old, table), key)
    ]
    for name in [*changed, *keys]:
        _log.warn("{name} has changed: that needs a restart", event="reload", name=name)


class ReloadingService(MultiService):
    """load: reads the configuration again, for SIGHUP; None: signals are not ours to use."""

    def __init__(self, config: Config, reactor: Any, load: Callable[[], Config] | None) -> None:
        super().__init__()
        self.config = config
        self._reactor = reactor
        self._load = load
        self._busy = self._again = self._stopping = False
        self._old_signals: dict[int, Any] = {}

    async def change_to(self, config: Config) -> None:
        """Use another configuration.  Raises StartError; then everything is as before."""
        raise NotImplementedError

    # -- signals ---------------------------------------------------------------------------------------------------

    def take(self, number: int, handle: Callable[[int, Any], None]) -> None:
        """Let a signal be ours until `give_back`."""
        self._old_signals[number] = signal.signal(number, handle)

    def give_back(self) -> None:
        """The signals are whose they were."""
        for number, old in self._old_signals.items():
            signal.signal(number, old)
        self._old_signals.clear()

    def hung_up(self, _signal: int, _frame: Any) -> None:
        """SIGHUP."""
        self._reactor.callFromThread(self.reload)

    def terminated(self, number: int, _frame: Any) -> None:
        """SIGTERM.  Once is enough: the end is bounded, by `drain_timeout` and `closing_timeout`."""
        signal.signal(number, signal.SIG_IGN)
        self._reactor.callFromThread(self._reactor.stop)

    def say_ready(self, *more: str) -> None:
        """
        Tell systemd, in the next turn of the reactor: who hears it finds in the log what came before.

        more: other lines of the state.
        """
        self._reactor.callLater(0, self._say_ready, "\n".join(("READY=1", *more)))

    def _say_ready(self, state: str) -> None:
        if not self._stopping:
            notify(state, os.environ)

    # -- reload ----------------------------------------------------------------------------------------------------

    def reload(self) -> Deferred[None]:
        """
        Read configuration and certificates again.  What is broken changes nothing and is logged; connections go on.
        """
        return ensureDeferred(self._reload()).addErrback(
            lambda failure: _log.failure("reload failed; the old configuration stays", failure=failure)
        )

    async def _reload(self) -> None:
        if self._load is None or self._stopping:
            return
        if self._busy:
            # The file may have changed since it was read: once more, then.
            self._again = True
            return
        self._busy = True
        notify(reloading(), os.environ)
        try:
            config = self._load()
            tell_problems(config.warnings)
            await self.change_to(config)
        except ConfigError as error:
            tell_problems(error.problems)
            _log.error("the old configuration stays", event="reload")
        except StartError as error:
            for line in error.lines:
                _log.error("{problem}", event="config", problem=line)
            _log.error("the old configuration stays", event="reload")
        else:
            _log.info("configuration reloaded", event="reload", file=str(config.source or ""))
        finally:
            self._busy = False
            self.say_ready()
        if self._again:
            self._again = False
            await self._reload()
