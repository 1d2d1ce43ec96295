"""
The server as a part of a program: `listen` under Twisted, `service` for an application, `start` and `stop` elsewhere.

In: an app (a class, or a coroutine function that takes messages), and where to listen.  Out: a running server that
hands mail to the app, and refuses what the app does not take.
Nothing needs to be configured: what must lie on a disk (a certificate that we sign ourselves, messages that are not
small) lies in a folder that is removed at the end, unless `data_dir` names one; with a `data_dir`, accounts and
mailboxes work as in a configured server.

Failures: `StartError` (from `foundations`) and `ConfigError` say what is wrong, before anything listens.
"""

from __future__ import annotations

import atexit
import difflib
import inspect
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, ensureDeferred

from mailserver.apps.app import App
from mailserver.apps.installed import AppSettings
from mailserver.apps.loading import check_class, options_of, validated
from mailserver.apps.matching import Match
from mailserver.config import AppMatch, Config, parse
from mailserver.config.quantities import toml
from mailserver.foundations import StartError
from mailserver.reactor_thread import call, run_reactor
from mailserver.service import MailService

__all__ = ["Listening", "StartError", "listen", "service", "sessions", "start", "stop"]

#: What may be given as an app: a class, a function `async def take(envelope, message)`, settings, or several of them.
AppLike = Any
#: Where to listen: a port, "tcp:2525", "tls:4650", "lmtp:2424", "unix:/path", "127.0.0.1:2525", or a table with the
#: keys of `[[listener]]`.
Where = int | str | Mapping[str, Any]

#: The kinds that an endpoint may begin with, as keys of `[[listener]]`.
_KINDS: dict[str, dict[str, Any]] = {
    "tcp": {},
    "smtp": {},
    "tls": {"tls": "implicit"},
    "ssl": {"tls": "implicit"},
    "lmtp": {"protocol": "lmtp"},
    "submission": {"protocol": "submission"},
}


class Listening(MailService):
    """
    A server in a program: an `IService`; `stop` ends it.

    addresses: (listener, "host:port") of each socket.  ports: their port numbers, in the order in which they were
    asked for.
    """

    def __init__(self, config: Config, reactor: Any, apps: Iterable[AppSettings], folder: Path | None) -> None:
        super().__init__(config, reactor, apps=tuple(apps))
        self._folder = folder
        self._trigger: Any = None

    @property
    def ports(self) -> list[int]:
        """The TCP ports."""
        found = (address.rpartition(":")[2] for listener, address in self.addresses if listener.address.kind == "tcp")
        return [int(port) for port in dict.fromkeys(found)]

    @property
    def sessions(self) -> int:
        """How many connections are open."""
        return len(self.ground.connections)

    def stopService(self) -> Deferred[None]:
        """Let transactions end, close the rest, remove what was only for now."""
        return ensureDeferred(self._stop_and_remove())

    def end_with_reactor(self) -> None:
        """Stop when the reactor does: whoever ends the program by Ctrl-C has transactions under way, and a folder."""
        self._trigger = self._reactor.addSystemEventTrigger("before", "shutdown", self._end)

    def _end(self) -> Deferred[None]:
        self._trigger = None  # it is this one
        return self.stopService()

    async def _stop_and_remove(self) -> None:
        trigger, self._trigger = self._trigger, None
        if trigger is not None:
            self._reactor.removeSystemEventTrigger(trigger)
        try:
            await super().stopService()
        finally:
            if self._folder is not None:
                shutil.rmtree(self._folder, ignore_errors=True)

    def stop(self) -> Deferred[None]:
        """The same, for who has started it with `listen`."""
        return self.stopService()


def service(app: AppLike, *where: Where, reactor: Any = None, **settings: Any) -> Listening:
    """
    An `IService` that is not started yet: for `setServiceParent`, or `startService`.

    app: see `AppLike`.  where: see `Where`; by default port 2525.
    settings: `hostname`; `data_dir`, by default a folder that is removed at the end; `domains`, names whose accounts
    and aliases in `data_dir` get mail; `options` for the app; `match`, a table as in `[[app]]` or a `Match`;
    `timeout` (seconds), `threaded` and `isolated` for the app; and the tables of a configuration, as
    `limits={"errors": 5}`, `server={"drain_timeout": 0}`.
    Raises ConfigError, AppError.
    """
    if reactor is None:
        from twisted.internet import reactor  # the one of the program
    options, match = settings.pop("options", {}), settings.pop("match", None)
    extra = {key: settings.pop(key) for key in ("timeout", "threaded", "isolated") if key in settings}
    apps = [replace(each, **extra) for each in app_settings(app, options, match)]
    data_dir = settings.pop("data_dir", None)
    folder = None if data_dir is not None else Path(tempfile.mkdtemp(prefix="mailserver-"))
    try:
        config = _config(where or (2525,), Path(data_dir or folder or "."), settings, for_now=folder is not None)
        made = Listening(config, reactor, apps, folder)
    except BaseException:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
        raise
    return made


def listen(app: AppLike, *where: Where, reactor: Any = None, **settings: Any) -> Listening:
    """
    Listen at once, in the reactor that runs or will run; `stop()` of the result ends it, as does the reactor's end.

    The arguments are those of `service`.  Raises ConfigError, AppError, StartError.
    """
    made = service(app, *where, reactor=reactor, **settings)
    _begin(made)
    made.end_with_reactor()
    return made


def _begin(made: Listening) -> None:
    try:
        made.privilegedStartService()
    except BaseException:
        if made._folder is not None:  # noqa: SLF001 - our own
            shutil.rmtree(made._folder, ignore_errors=True)  # noqa: SLF001
        raise
    made.startService()


# -- in programs that do not know Twisted ----------------------------------------------------------------------------

_running: dict[str, Listening] = {}


def start(app: AppLike, *where: Where, name: str = "default", **settings: Any) -> Listening:
    """
    Start a server beside a program that has no reactor of its own; returns when it listens.

    The reactor runs in a thread, once for all servers, and so do the callbacks of the app.  The other arguments are
    those of `service`.  Raises RuntimeError when the name is taken or the reactor runs in this thread (`listen` is
    for that), and what `listen` raises.
    """
    from twisted.internet import reactor

    if name in _running:
        raise RuntimeError(f'there is a server "{name}" already; give this one another name, or stop that')
    run_reactor(reactor)
    begun = partial(listen, app, *where, reactor=reactor, **settings)
    made: Listening = call(reactor, begun)
    if not _running:
        atexit.register(_stop_all)  # behind that of `run_reactor`, so it comes before it
    _running[name] = made
    return made


def stop(name: str = "default") -> None:
    """Stop what `start` began under this name; returns when it has stopped.  Raises KeyError."""
    from twisted.internet import reactor

    made = _running.pop(name)
    if not _running:
        atexit.unregister(_stop_all)
    call(reactor, made.stop)


def sessions(name: str = "default") -> int:
    """How many connections a server of `start` has.  Raises KeyError."""
    return _running[name].sessions


def _stop_all() -> None:
    """At the end of the program: let what runs come to its end, as a signal would."""
    for name in tuple(_running):
        stop(name)


# -- what the arguments mean -----------------------------------------------------------------------------------------


def app_settings(app: AppLike, options: Any = None, match: Any = None) -> list[AppSettings]:
    """
    The settings of an app, or of several.  options, match: see `service`.

    Raises AppError, TypeError, ValueError.
    """
    options = {} if options is None else options
    several = list(app) if isinstance(app, list | tuple) else [app]
    if not several:
        raise ValueError("there is no app")
    made: list[AppSettings] = []
    for number, each in enumerate(several, 1):
        if isinstance(each, AppSettings):
            made.append(each)
            continue
        cls = each if isinstance(each, type) else _class_of(each)
        check_class(cls)
        name = cls.__name__ if all(cls.__name__ != other.name for other in made) else f"{cls.__name__}-{number}"
        model = getattr(cls, "Options", None)
        given = options if model is not None and isinstance(options, model) else options_of(cls, options)
        configured = options if isinstance(options, Mapping) else None
        made.append(AppSettings(name, cls, given, _match(match), configured=configured))
    return made


def _match(match: Any) -> Match:
    if match is None or isinstance(match, Match):
        return match or Match()
    table = validated(AppMatch, match, "match")
    return Match(table.listener, table.recipients, table.senders, table.networks)


def _class_of(take: Callable[..., Any]) -> type[App]:
    """A class around a function that takes messages."""
    if not callable(take):
        raise TypeError(f"{take!r} is no app: give a class, or a function that takes an envelope and a message")
    try:
        inspect.signature(take).bind(None, None)
    except TypeError as error:
        raise TypeError(f"{take!r} must take two arguments, the envelope and the message") from error

    class Taking(App):
        def message(self, envelope: Any, message: Any) -> Any:
            return take(envelope, message)

    Taking.__name__ = getattr(take, "__name__", "app")
    return Taking


def _config(where: Iterable[Where], data_dir: Path, settings: dict[str, Any], *, for_now: bool) -> Config:
    """The configuration, by way of the words of a file, so that the same rules hold and the same is refused."""
    server = {"hostname": "localhost", **settings.pop("server", {}), "data_dir": str(data_dir.absolute())}
    if "hostname" in settings:
        server["hostname"] = settings.pop("hostname")
    storage = dict(settings.pop("storage", {}))
    if for_now:
        # Nothing is stored but what apps keep: no journal is needed.
        storage.setdefault("durability", "filesync")
        # The kernel takes 30 ms and more to give up its asynchronous I/O, which nobody here would need.
        storage.setdefault("commit", "thread")
    tables: list[tuple[str, Mapping[str, Any]]] = [("[server]", server), ("[storage]", storage)]
    tables += [(f"[{name}]", settings.pop(name)) for name in ("tls", "auth", "limits") if name in settings]
    tables += [("[[listener]]", _listener(each)) for each in where]
    tables += [("[[domain]]", {"name": domain}) for domain in settings.pop("domains", ())]
    if settings:
        raise TypeError(f"unknown settings: {', '.join(sorted(settings))}")
    text = "\n".join(
        f"{header}\n" + "".join(f"{key} = {toml(_plain(value))}\n" for key, value in table.items())
        for header, table in tables
    )
    return parse(text, Path("program"))


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


def _listener(where: Where) -> dict[str, Any]:
    """The keys of a `[[listener]]` table."""
    if isinstance(where, Mapping):
        table = dict(where)
        if "port" in table:  # as gen_smtp says it
            host, port = str(table.pop("host", "")), table.pop("port")
            table.setdefault("address", f"[{host}]:{port}" if ":" in host else f"{host or '*'}:{port}")
    else:
        kind, colon, rest = str(where).partition(":")
        known = _KINDS.get(kind) if colon else None
        meant = difflib.get_close_matches(kind, _KINDS, n=1) if colon and known is None and "." not in kind else []
        if meant and kind not in ("unix", "systemd", "localhost"):
            raise ValueError(f'"{where}": there is no kind "{kind}"; did you mean "{meant[0]}:{rest}"?')
        table = {"address": str(where)} if known is None else {"address": _endpoint(rest), **known}
    table.setdefault("address", "2525")
    table["address"] = str(table["address"])
    table.setdefault("protocol", "smtp")
    return table


def _endpoint(text: str) -> str:
    """`2525`, `127.0.0.1:2525`, `[::1]:2525`; and `2525:interface=127.0.0.1`, as Twisted writes it."""
    port, interface, host = text.partition(":interface=")
    if not interface:
        return text
    host = host.replace("\\:", ":")
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
