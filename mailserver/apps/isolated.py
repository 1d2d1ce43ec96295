"""
An app with a process of its own (`isolated = true`): one that blocks or crashes harms nobody but its own callers.

In: `AppSettings`, a reactor that can spawn.  Out: an `InstalledApp` whose callbacks run in a child process
(`apps.child`), which is started with the server and again whenever it dies.  The two talk in lines of JSON through
two pipes (`crossing`):

- to the child: {"say": "begin", ...} what to load; {"say": "call", "id", "conn", "callback", "arguments", "session"};
  {"say": "cancel", "id"}; {"say": "over", "conn"}; {"say": "leave"}.
- from it: {"say": "up"}; {"say": "failed", ...} (it cannot begin); {"say": "answer", "id", and one of "value",
  "refused", "disconnect", "failed", "cancelled"}; {"say": "end", "conn", "reason"}; {"say": "log", ...}.

Rules:
- The child starts when the service does: behind twistd's fork, and as the user that the server has become.  While it
  starts, calls wait; when it has died, calls in flight and new ones get 451 until it is started again, after
  `restart_delay`.
- Each connection has one object in the child.  When the child dies, the object is lost; the connection gets a new
  one, with nothing of what the old one knew.  A transaction that was open then is lost for the app: RCPT and the
  message get 451 until there is a new one, so that no app sees a message whose recipients it never saw.
- A call over its time gets 451, and the child is told to cancel it.  When it is not over after as long again, the
  child is taken for blocked: SIGTERM (it logs where it stands), and after `KILL_AFTER` SIGKILL.
- What it writes to its standard output and error goes to the log, line by line.
- When the server ends, for whatever reason, the pipe ends, and the child does too.

Failures: `AppError` for a class that no other process can import; `Broken` (451) for all trouble with the child.
"""

from __future__ import annotations

import contextlib
import enum
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure

from mailserver.apps.app import Disconnect
from mailserver.apps.calling import Broken, Inline, Observer
from mailserver.apps.crossing import (
    FROM_PARENT,
    MOST_SAID,
    MOST_TEXT,
    MOST_TRACEBACK,
    TO_PARENT,
    SessionNews,
    dropped,
    extensions_of,
    pack,
    refusal_of,
    unpack_answer,
)
from mailserver.apps.installed import AppSettings, InstalledApp
from mailserver.apps.loading import AppError
from mailserver.apps.message import Message
from mailserver.apps.view import Session
from mailserver.children import RAN_WELL, Lines, environment, how_it_ended, line_of, restart_delay
from mailserver.delivery.transaction import reply_for
from mailserver.reply import Refusal

#: Seconds that the child has to begin with, before its `setup` is called.
START_TIME = 30.0
#: Seconds between SIGTERM and SIGKILL.
KILL_AFTER = 2.0
#: Seconds that a pipe of a process that is gone may stay open (something that it has started may hold it); and that a
#: process may go on that has closed its pipe to us.
LAST_WORDS = 2.0
#: Seconds between two looks whether such a process is gone.
LOOK_AGAIN = 0.1
#: Callbacks that belong to the transaction in which MAIL was told.
OF_A_TRANSACTION = frozenset({"rcpt", "filter", "message"})

_log = Logger(namespace="mailserver.apps")


class ChildError(Exception):
    """What the user's code has raised in its process; `str()` is its type and its text."""


class ChildFailure(Failure):
    """With the traceback of the other process."""

    def __init__(self, error: str, traceback: str) -> None:
        super().__init__(ChildError(error))
        self._told = traceback

    def getTraceback(self, *_arguments: Any, **_options: Any) -> str:  # type: ignore[override]  # noqa: N802 - Twisted's name
        """As it was told."""
        return self._told


class Hears(Protocol):
    """Who is told what a process says and how it ends: an `IsolatedApp`."""

    name: str

    def says(self, message: Mapping[str, Any]) -> None:
        """One of the messages above.  Raises ValueError, KeyError, TypeError or AttributeError: it is none."""

    def writes(self, stream: str, line: str) -> None:
        """A line on its standard output or error."""

    def ended(self, why: str) -> None:
        """It is gone.  Called once."""


class AppProcess(ProcessProtocol):
    """One run of the child."""

    transport: Any

    def __init__(self, hears: Hears, clock: IReactorTime) -> None:
        self._hears = hears
        self._clock = clock
        self._lines = Lines(most=MOST_SAID)
        self._output = {1: b"", 2: b""}
        self._timer: Any = None
        self._exited = ""
        #: When the pipe has ended.
        self._lost: float | None = None
        self._over = False
        self.pid = 0

    def say(self, message: Mapping[str, Any]) -> None:
        """Tell it; it never waits."""
        with contextlib.suppress(KeyError):  # it has just died: there is no such pipe any more
            self.transport.writeToChild(FROM_PARENT, line_of(message))

    def kill(self, how: str = "TERM") -> None:
        """SIGTERM, and SIGKILL when that does not help."""
        if self._over or self._exited:
            return
        with contextlib.suppress(ProcessExitedAlready):
            self.transport.signalProcess(how)
        if how == "TERM":
            self._later(KILL_AFTER, self._kill_for_good)

    def _kill_for_good(self) -> None:
        self.kill("KILL")
        self._look()

    def _later(self, seconds: float, call: Callable[[], None]) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = self._clock.callLater(seconds, call)

    # -- what Twisted calls ----------------------------------------------------------------------------------------

    def connectionMade(self) -> None:
        """It was started."""
        self.pid = self.transport.pid

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        """It says something, or it writes."""
        if childFD == TO_PARENT:
            try:
                for message in self._lines.feed(data):
                    self._hears.says(message)
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                # Its own code cannot bring this about by an honest answer: it is not to be trusted any more.
                _log.error(
                    "app {app}: its process {pid} says what makes no sense ({error}): it is killed",
                    event="app-killed", app=self._hears.name, pid=self.pid, error=type(error).__name__,
                )  # fmt: skip
                self._lines = Lines(most=MOST_SAID)
                self._kill_for_good()
            return
        *lines, rest = (self._output[childFD] + data).split(b"\n")
        while len(rest) > MOST_TEXT:
            lines.append(rest[:MOST_TEXT])
            rest = rest[MOST_TEXT:]
        self._output[childFD] = rest
        for line in lines:
            self._write(childFD, line)

    def _write(self, descriptor: int, line: bytes) -> None:
        text = line.decode("utf-8", "backslashreplace").rstrip("\r")
        self._hears.writes("stdout" if descriptor == 1 else "stderr", text[:MOST_TEXT])

    def childConnectionLost(self, childFD: int) -> None:
        """A pipe has ended; a process without that to its parent is of no use."""
        if childFD == TO_PARENT and not self._over:
            self._lost = self._clock.seconds()
            self._later(LOOK_AGAIN, self._look)

    def processExited(self, reason: Failure) -> None:
        """It has ended; what it said may still have to be read."""
        self._exited = how_it_ended(reason.value)
        if not self._over:
            self._later(LAST_WORDS, self._look)

    def processEnded(self, reason: Failure) -> None:
        """It has ended, and all was read."""
        self._exited = how_it_ended(reason.value)
        self._look()

    def _look(self) -> None:
        """Has it ended?  Where nobody takes SIGCHLD (the reactor is in a thread), this is how we know."""
        if self._over:
            return
        if not self._exited:
            if self._lost is not None and self._clock.seconds() - self._lost >= LAST_WORDS:
                with contextlib.suppress(ProcessExitedAlready):
                    self.transport.signalProcess("KILL")
            self._later(LOOK_AGAIN, self._look)
            self.transport.reapProcess()  # it may tell us at once that it has exited, and then all the rest
            return
        self._over = True
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        for descriptor, rest in self._output.items():
            if rest:
                self._write(descriptor, rest)
        self.transport.loseConnection()
        self._hears.ended(self._exited)


class State(enum.Enum):
    """Of the child of an app."""

    IDLE = "idle"
    STARTING = "starting"
    UP = "up"
    DEAD = "dead"
    LEAVING = "leaving"
    STOPPED = "stopped"


@dataclass(slots=True)
class Call:
    """
    One that the child works on.

    answer: fires with what the callback has answered.  extensions: those of `helo`, which may be changed in place.
    folder: where a file in the answer may be.  timer: when nobody waits any more, until the child is killed.
    """

    callback: str
    answer: Deferred[Any]
    extensions: dict[str, str | None] | None
    folder: Path | None
    timer: Any = None

    def stop_timer(self) -> None:
        """It is over."""
        if self.timer is not None and self.timer.active():
            self.timer.cancel()


class IsolatedApp(InstalledApp):
    """
    reactor: tells the time and spawns.  The other arguments are those of `InstalledApp`.

    Raises AppError for an app that no other process can import.
    """

    def __init__(
        self,
        settings: AppSettings,
        reactor: Any,
        run_in_thread: Callable[..., Deferred[Any]],
        observer: Observer,
    ) -> None:
        super().__init__(settings, reactor, run_in_thread, observer)
        self.runner = Inline(reactor.seconds)
        self._reactor = reactor
        self._begin = _begin(settings)
        self._state = State.IDLE
        self._process: AppProcess | None = None
        self._timer: Any = None
        self._since = 0.0
        self._row = 0
        self._waiting: list[Deferred[None]] = []
        self._ended: list[Deferred[None]] = []
        self._calls: dict[int, Call] = {}
        self._stand_ins: dict[int, StandIn] = {}
        self._count = 0
        #: Which run of the child it is; 0 before the first.
        self.generation = 0

    # -- what `Instance` and the house ask of it -------------------------------------------------------------------

    @property
    def is_set_up(self) -> bool:
        """Yes: who calls waits in the call itself, so that its time is measured."""
        return True

    @property
    def pid(self) -> int:
        """Of the child; 0 when there is none."""
        return self._process.pid if self._process is not None else 0

    async def ready(self) -> None:
        """Wait until `setup` is done.  Raises Refusal (451) when the child dies before that."""
        waiting = self.up()
        if waiting is not None:
            await waiting

    def start(self) -> None:
        """Start the child."""
        if self._state in (State.IDLE, State.STOPPED):
            self._spawn()

    async def stop(self) -> None:
        """Let the child call `teardown` and end; one that does not is killed."""
        if self._process is None:
            if self._timer is not None and self._timer.active():
                self._timer.cancel()
            self._state = State.STOPPED
            return
        over: Deferred[None] = Deferred()
        self._ended.append(over)
        if self._state is not State.LEAVING:
            self._leave(self._process)
        await over

    def _leave(self, process: AppProcess) -> None:
        self._state = State.LEAVING
        if self._timer.active():
            self._timer.cancel()
        self._timer = self._reactor.callLater(self.settings.timeout, self._too_slow, "does not end")
        blocks = any(call.timer is not None for call in self._calls.values())
        process.say({"say": "leave"})
        if blocks:  # as far as we know
            process.kill()

    def made(self, session: Session) -> StandIn:
        """What stands for the object of a connection."""
        self._count += 1
        stand_in = self._stand_ins[self._count] = StandIn(self, self._count, session)
        return stand_in

    def run(self, app: StandIn, callback: str, arguments: tuple[Any, ...]) -> Deferred[Any]:
        """See `InstalledApp.run`."""
        return app.ask(callback, arguments)

    def forget(self, app: StandIn) -> None:
        """See `InstalledApp.forget`."""
        del self._stand_ins[app.number]
        if self._process is not None and app.generation == self.generation:
            self._process.say({"say": "over", "conn": app.number})

    # -- calls -----------------------------------------------------------------------------------------------------

    def up(self) -> Deferred[None] | None:
        """None when the child runs; else what fires when it does.  Raises Broken when that is not soon."""
        if self._state is State.UP:
            return None
        if self._state is State.IDLE:
            self._spawn()
        if self._state is not State.STARTING:
            raise Broken(f"app {self.name}: its process does not run")
        waiting: Deferred[None] = Deferred()
        self._waiting.append(waiting)
        return waiting

    def request(self, message: Mapping[str, Any], call: Call) -> None:
        """Ask the child."""
        assert self._process is not None  # it is up
        number = message["id"]
        self._calls[number] = call
        self._process.say(message)

    def next_id(self) -> int:
        """Of a call."""
        self._count += 1
        return self._count

    def cancelled(self, number: int) -> None:
        """Nobody waits for this call any more."""
        call = self._calls.get(number)
        if call is None or call.timer is not None or self._process is None:
            return
        what = f"blocks: {call.callback} was cancelled and goes on"
        call.timer = self._reactor.callLater(self.settings.timeout, self._too_slow, what)
        self._process.say({"say": "cancel", "id": number})

    # -- what the child says ---------------------------------------------------------------------------------------

    def says(self, message: Mapping[str, Any]) -> None:
        """See `Hears`."""
        match message["say"]:
            case "answer":
                self._answered(message)
            case "log":
                self._logged(message)
            case "up":
                self._is_up()
            case "end":
                stand_in = self._stand_ins.get(_number(message["conn"]))
                if stand_in is not None:
                    stand_in.session.end(str(message["reason"])[:MOST_TEXT])
            case "failed":
                self._failure(
                    message, "app {app}: {callback} failed in its process", callback=str(message["what"])[:40]
                )
            case _:
                raise ValueError("an unknown message")

    def writes(self, stream: str, line: str) -> None:
        """See `Hears`."""
        self.log.info("{line}", event="app-output", app=self.name, stream=stream, line=line)

    def _answered(self, message: Mapping[str, Any]) -> None:
        call = self._calls.pop(_number(message["id"]), None)
        if call is None:
            return
        call.stop_timer()
        if call.answer.called:
            with contextlib.suppress(ValueError):
                dropped(message.get("value"), call.folder)
            return
        try:
            result = self._result(message, call)
        except ValueError as error:
            text = f"app {self.name}: the answer to {call.callback} cannot be used: {error}"
            _log.error("{problem}", event="app-failed", app=self.name, callback=call.callback, problem=text)
            result = Failure(Broken(text))
        call.answer.callback(result)

    def _result(self, message: Mapping[str, Any], call: Call) -> Any:
        """What the call comes to, or a Failure.  Raises ValueError."""
        if "failed" in message:
            told = message["failed"]
            self._failure(told, "app {app}: {callback} failed", callback=call.callback)
            return Failure(Broken(f"app {self.name}: {call.callback} failed"))
        if "refused" in message:
            return Failure(refusal_of(message["refused"]))
        if "disconnect" in message:
            return Failure(Disconnect(str(message["disconnect"])[:MOST_TEXT]))
        if "cancelled" in message:
            return Failure(CancelledError())
        if "value" not in message:
            raise ValueError("there is none")
        value = unpack_answer(message["value"], call.folder)
        if call.extensions is not None and "extensions" in message:
            left = extensions_of(message["extensions"])
            call.extensions.clear()
            call.extensions.update(left)
        return value

    def _failure(self, told: Any, text: str, **fields: Any) -> None:
        error, traceback = str(told["error"])[:MOST_TEXT], str(told["traceback"])[-MOST_TRACEBACK:]
        _log.failure(text, failure=ChildFailure(error, traceback), event="app-failed", app=self.name, **fields)

    def _logged(self, message: Mapping[str, Any]) -> None:
        text, event = str(message["text"])[:MOST_TEXT], str(message["event"])[:40]
        fields: dict[str, Any] = {"event": event, "app": self.name, "line": text}
        if message.get("error") is not None:
            failure = ChildFailure(str(message["error"])[:MOST_TEXT], str(message["traceback"])[-MOST_TRACEBACK:])
            fields["log_failure"] = failure
        with contextlib.suppress(Exception):  # an observer of the user's own may raise
            self.log.emit(_LEVELS.get(str(message["level"]), LogLevel.info), "{line}", **fields)

    # -- start, death, and start again -----------------------------------------------------------------------------

    def _spawn(self) -> None:
        self._state = State.STARTING
        self.generation += 1
        self._since = self._reactor.seconds()
        self._timer = self._reactor.callLater(START_TIME + self.settings.timeout, self._too_slow, "is not ready")
        process = AppProcess(self, self._reactor)
        nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._reactor.spawnProcess(
                process,
                sys.executable,
                # -P: no module comes from the current folder.  -u: what is printed is seen at once.
                [sys.executable, "-P", "-u", "-m", "mailserver.apps.child", self.name],
                env=environment(os.environ, sys.path),
                childFDs={0: nothing, 1: "r", 2: "r", FROM_PARENT: "w", TO_PARENT: "r"},
            )
        except OSError as error:  # no more processes, or descriptors
            self._timer.cancel()
            self._timer = self._reactor.callLater(0, self.ended, f"it cannot be started: {error}")
            return
        finally:
            os.close(nothing)
        self._process = process
        process.say(self._begin)

    def _is_up(self) -> None:
        if self._state is not State.STARTING:
            return
        self._state = State.UP
        self._since = self._reactor.seconds()
        self._timer.cancel()
        _log.info("app {app}: its process {pid} runs", event="app-process", app=self.name, pid=self.pid)
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            if not each.called:
                each.callback(None)

    def _too_slow(self, what: str) -> None:
        if self._process is None:
            return
        _log.error(
            "app {app}: its process {pid} {what}: it is killed",
            event="app-killed", app=self.name, pid=self.pid, what=what,
        )  # fmt: skip
        self._process.kill()

    def ended(self, why: str) -> None:
        """See `Hears`."""
        pid, served = self.pid, self._reactor.seconds() - self._since if self._state is State.UP else 0.0
        wanted = self._state is State.LEAVING
        self._process = None
        self._state = State.STOPPED if wanted else State.DEAD
        if self._timer.active():
            self._timer.cancel()
        if wanted:
            _log.info(
                "app {app}: its process {pid} has ended: {why}", event="app-process", app=self.name, pid=pid, why=why
            )
        else:
            self._row = 1 if served >= RAN_WELL else self._row + 1
            delay = restart_delay(self._row)
            _log.error(
                "app {app}: its process {pid} has died: {why}; it is started again in {seconds:g} s",
                event="app-died", app=self.name, pid=pid, why=why, calls=len(self._calls), seconds=delay,
            )  # fmt: skip
            self._timer = self._reactor.callLater(delay, self._again)
        for stand_in in self._stand_ins.values():
            stand_in.lost()
        calls, self._calls = self._calls, {}
        for call in calls.values():
            call.stop_timer()
        broken = f"app {self.name}: its process has died"
        waiting, self._waiting = self._waiting, []
        for answer in (*waiting, *(call.answer for call in calls.values())):
            if not answer.called:
                answer.errback(Broken(broken))
        over, self._ended = self._ended, []
        for each in over:
            each.callback(None)

    def _again(self) -> None:
        self._observer.app_restarted(self.name)
        self._spawn()


class StandIn:
    """
    In the place of the object of one connection, which lives in the child.

    number: of the connection.  generation: the run of the child that has an object for it; 0: none.
    """

    def __init__(self, installed: IsolatedApp, number: int, session: Session) -> None:
        self._installed = installed
        self.number = number
        self.session = session
        self.generation = 0
        self._news = SessionNews()
        #: The last callback was `mail`: the transaction has begun, or is just about to.
        self._began = False
        #: The transaction that was open when the child died; "": one that had no id yet.
        self._spoiled: str | None = None

    def lost(self) -> None:
        """The child is dead, and the object with it."""
        if self.generation:
            envelope = self.session.envelope
            if envelope is not None:
                self._spoiled = envelope.id
            elif self._began:
                self._spoiled = ""
        self.generation = 0

    def ask(self, callback: str, arguments: tuple[Any, ...]) -> Deferred[Any]:
        """What the callback answers in the child.  Raises Broken, Refusal (the disk), or what `pack` raises."""
        waiting = self._installed.up()
        if waiting is None:
            return self._ask(callback, arguments)
        return waiting.addCallback(lambda _: self._ask(callback, arguments))

    def _ask(self, callback: str, arguments: tuple[Any, ...]) -> Deferred[Any]:
        self._check(callback)
        installed = self._installed
        try:
            packed = [pack(each) for each in arguments]
        except OSError as error:  # the message must stand in a file, and there is no room for it
            raise Refusal(reply_for(error)) from error
        if self.generation != installed.generation:
            self.generation, self._news = installed.generation, SessionNews()
        number = installed.next_id()
        message = {
            "say": "call",
            "id": number,
            "conn": self.number,
            "callback": callback,
            "arguments": packed,
            "session": self._news.since(self.session),
        }
        answer: Deferred[Any] = Deferred(lambda _answer: installed.cancelled(number))
        extensions = arguments[1] if callback == "helo" else None
        text = next((each for each in arguments if isinstance(each, Message)), None)
        folder = text.path.absolute().parent if text is not None and callback == "filter" else None
        installed.request(message, Call(callback, answer, extensions, folder))
        return answer

    def _check(self, callback: str) -> None:
        """Raises Broken for what belongs to a transaction whose beginning is lost."""
        if callback in OF_A_TRANSACTION and self._spoiled is not None:
            envelope = self.session.envelope
            if self._spoiled == "" and envelope is not None:
                self._spoiled = envelope.id
            if envelope is not None and envelope.id == self._spoiled:
                raise Broken(f"app {self._installed.name}: its process has died in this transaction")
            self._spoiled = None
        elif callback in ("mail", "reset"):
            self._spoiled = None
        self._began = callback == "mail"


_LEVELS: dict[Any, Any] = {level.name: level for level in LogLevel.iterconstants()}


def _number(value: Any) -> int:
    if not isinstance(value, int):
        raise ValueError("no number where one must be")  # noqa: TRY004 - one kind of error for what is none
    return value


def _begin(settings: AppSettings) -> dict[str, Any]:
    """What the child begins with.  Raises AppError."""
    cls = settings.app
    source = settings.source or f"{cls.__module__}:{cls.__qualname__}"
    module = sys.modules.get(cls.__module__)
    if not settings.source and (cls.__module__ == "__main__" or getattr(module, cls.__qualname__, None) is not cls):
        text = f"{cls.__qualname__} cannot have a process of its own: put it into a module that can be imported"
        raise AppError("isolated", text)
    if settings.configured is None and settings.options is not None:
        text = "an app with a process of its own needs its options as a table, not made already"
        raise AppError("isolated", text)
    return {
        "say": "begin",
        "name": settings.name,
        "source": source,
        "folder": str(settings.folder.absolute()),
        "module": cls.__module__,
        "options": pack(dict(settings.configured or {})),
        "threaded": settings.threaded,
    }
