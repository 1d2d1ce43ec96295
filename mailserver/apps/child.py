"""
The process of an isolated app: `python -m mailserver.apps.child NAME`, which only the server starts.

In: the lines of `apps.isolated`, through a pipe.  Out: the answers of the user's code, through another one.
The code runs under a reactor of its own, that of asyncio: coroutines may await what asyncio knows and Deferreds, and
calls of different connections go on side by side.  A callback that blocks holds up this process alone.
What it logs and what is printed goes to the server's log.
Signals: SIGINT and SIGHUP are for the server, which gets them from the terminal too.  SIGTERM logs where the code
stands, and ends the process if that does not block.
Failures: what the user's code raises is told to the server.  When the pipe from the server ends, the server is gone:
`teardown` is called, and after `ORPHAN_TIME` the process ends whatever it does.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from traceback import format_exception
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, ensureDeferred, succeed
from twisted.logger import ILogObserver, Logger, formatEvent, globalLogBeginner
from twisted.python.failure import Failure
from zope.interface import implementer

from mailserver.apps.app import Disconnect
from mailserver.apps.calling import Exit
from mailserver.apps.crossing import (
    FROM_PARENT,
    MOST_SAID,
    MOST_TEXT,
    MOST_TRACEBACK,
    TO_PARENT,
    SessionSeen,
    pack_answer,
    unpack,
)
from mailserver.apps.installed import AppSettings, InstalledApp
from mailserver.apps.loading import load_class, options_of
from mailserver.apps.message import Message
from mailserver.apps.view import Session
from mailserver.children import Lines, line_of
from mailserver.reply import Refusal

#: Seconds that `teardown` has when the server is gone.
ORPHAN_TIME = 5.0
#: Threads, where the app is `threaded` too.
THREADS = 20
#: The exit status of a process that could not begin.
FAILED = 1

_log = Logger(namespace="mailserver.apps")


class NoObserver:
    """The server counts; here nobody does."""

    def app_called(self, app: str, callback: str, seconds: float, outcome: str) -> None:
        """See `calling.Observer`."""

    def app_restarted(self, app: str) -> None:
        """See `calling.Observer`."""


class Child:
    """
    The user's code, and its objects.

    clock: the reactor.  run_in_thread: as `deferToThread`.  say: tells the server.  over: ends the process, with an
    exit status.
    """

    def __init__(
        self,
        clock: Any,
        run_in_thread: Callable[..., Deferred[Any]],
        say: Callable[[Mapping[str, Any]], None],
        over: Callable[[int], None],
    ) -> None:
        self._clock = clock
        self._run_in_thread = run_in_thread
        self._say = say
        self._over = over
        self._lines = Lines()
        self._app: InstalledApp | None = None
        self._is_up = False
        self._leaving: list[Deferred[None]] | None = None
        self._left = False
        #: conn -> the object, and what it sees.
        self._objects: dict[int, tuple[Any, SessionSeen]] = {}
        self._calls: dict[int, Deferred[None]] = {}
        self._cancelled: set[int] = set()

    def heard(self, octets: bytes) -> None:
        """The server says something."""
        for message in self._lines.feed(octets):
            match message["say"]:
                case "call":
                    self._call(message)
                case "cancel":
                    call = self._calls.get(message["id"])
                    if call is not None:
                        self._cancelled.add(message["id"])
                        call.cancel()
                case "over":
                    self._objects.pop(message["conn"], None)
                case "begin":
                    ensureDeferred(self._begin(message))
                case "leave":
                    self.leave()

    # -- the life of the app ---------------------------------------------------------------------------------------

    async def _begin(self, message: Mapping[str, Any]) -> None:
        try:
            folder = Path(message["folder"])
            cls: Any = load_class(message["source"], folder)
            if cls.__module__ != message["module"]:
                text = "{source} is not what the server has read: a reload makes them agree"
                _log.warn(text, event="app-changed", source=message["source"])
            settings = AppSettings(
                name=message["name"],
                app=cls,
                options=options_of(cls, unpack(message["options"]), folder),
                threaded=message["threaded"],
            )
            self._app = InstalledApp(settings, self._clock, self._run_in_thread, NoObserver())
            if hasattr(cls, "setup"):
                self._app.shared = await self._run(cls.setup, settings.options)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever the app raises
            self._say({"say": "failed", "what": "the start", **_told(error)})
            self._over(FAILED)
            return
        self._is_up = True
        self._say({"say": "up"})

    def leave(self, status: int = 0) -> Deferred[None]:
        """Call `teardown`, and end; fires when that is done."""
        done: Deferred[None] = Deferred()
        if self._left:
            return succeed(None)
        if self._leaving is not None:
            self._leaving.append(done)
            return done
        self._leaving = [done]
        ensureDeferred(self._leave(status))
        return done

    async def _leave(self, status: int) -> None:
        app = self._app
        if app is not None and self._is_up and hasattr(app.cls, "teardown"):
            try:
                await self._run(app.cls.teardown, app.shared)
            except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever the app raises
                self._say({"say": "failed", "what": "teardown", **_told(error)})
        self._left = True
        for each in self._leaving or ():
            each.callback(None)
        self._over(status)

    async def _run(self, callback: Callable[..., Any], *arguments: Any) -> Any:
        assert self._app is not None
        result = self._app.runner.run(callback, arguments, lambda _seconds: None)
        return await result if isinstance(result, Deferred) else result

    # -- calls -----------------------------------------------------------------------------------------------------

    def _call(self, message: Mapping[str, Any]) -> None:
        number = message["id"]
        call = ensureDeferred(self._answer(message))
        if not call.called:
            self._calls[number] = call
            call.addBoth(lambda _: self._forget(number))

    def _forget(self, number: int) -> None:
        del self._calls[number]
        self._cancelled.discard(number)

    async def _answer(self, message: Mapping[str, Any]) -> None:
        """Call the callback, and tell what it answers.  Never raises."""
        arguments: list[Any] = []
        answer: dict[str, Any]
        try:
            arguments = [unpack(each) for each in message["arguments"]]
            app, callback = self._object(message), message["callback"]
            value = await self._run(getattr(app, callback), *arguments)
            answer = {"value": pack_answer(value, _folder(message))}
            if callback == "helo":
                answer["extensions"] = [[key, each] for key, each in arguments[1].items()]
        except Refusal as refusal:
            answer = {"refused": pack_answer(refusal, None)}
        except Disconnect as wish:
            answer = {"disconnect": str(wish)[:MOST_TEXT]}
        except (CancelledError, asyncio.CancelledError) as error:
            answer = {"cancelled": True} if message["id"] in self._cancelled else {"failed": _told(error)}
        except (SystemExit, Exit) as wish:
            # What is still waiting gets no answer: for the server this is a death like any other.
            self.leave(wish.code if isinstance(wish.code, int) else int(wish.code is not None))
            return
        except Exception as error:  # noqa: BLE001 - whatever the app raises
            answer = {"failed": _told(error)}
        finally:
            for each in arguments:
                if isinstance(each, Message):
                    each.close()
        self._tell({"say": "answer", "id": message["id"], **answer})

    def _tell(self, message: dict[str, Any]) -> None:
        size = len(line_of(message))
        if size > MOST_SAID:
            text = f"ValueError: an answer of {size} octets is too large; {MOST_SAID} are allowed"
            message = {"say": "answer", "id": message["id"], "failed": {"error": text, "traceback": text}}
        self._say(message)

    def _object(self, message: Mapping[str, Any]) -> Any:
        """The object of the connection, which sees the session as it is now."""
        conn = message["conn"]
        known = self._objects.get(conn)
        if known is not None:
            known[1].learn(message["session"])
            return known[0]
        assert self._app is not None  # the server asks when it is up
        seen = SessionSeen(message["session"])
        session = Session(
            seen,
            id=seen.id,
            local=seen.local,
            connections=lambda: seen.connections,
            end=lambda reason: self._say({"say": "end", "conn": conn, "reason": reason}),
        )
        made = self._app.made(session)
        self._objects[conn] = made, seen
        return made


def _folder(message: Mapping[str, Any]) -> Path | None:
    """Where `filter` may put another message: beside the one that it was given."""
    if message["callback"] != "filter":
        return None
    return Path(message["arguments"][1]["path"]).parent


def _told(error: BaseException) -> dict[str, str]:
    """What the log shall know of it."""
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return {"error": text[:MOST_TEXT], "traceback": "".join(format_exception(error))[-MOST_TRACEBACK:]}


@implementer(ILogObserver)
class ToldLog:
    """An observer of Twisted's log that tells the server.  call: runs a function in the reactor's thread."""

    def __init__(self, say: Callable[[Mapping[str, Any]], None], call: Callable[..., Any]) -> None:
        self._say = say
        self._call = call

    def __call__(self, event: Mapping[str, Any]) -> None:
        level = getattr(event.get("log_level"), "name", "info")
        namespace = str(event.get("log_namespace", ""))
        if level == "debug" or (level == "info" and namespace == "log_legacy"):
            return  # Twisted's own remarks
        told: dict[str, Any] = {
            "say": "log",
            "level": level,
            "event": str(event.get("event", "app-log")),
            "text": formatEvent(dict(event))[:MOST_TEXT],
        }
        failure = event.get("log_failure")
        if isinstance(failure, Failure):
            told |= _told(failure.value or Exception("unknown"))
        self._call(self._say, told)


# -- the process -----------------------------------------------------------------------------------------------------


def main() -> int:
    """The program; the exit status."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    for descriptor in (FROM_PARENT, TO_PARENT):
        os.set_inheritable(descriptor, False)
    threading.Thread(target=_watch, args=(os.dup(FROM_PARENT),), name="watch", daemon=True).start()
    from twisted.internet import asyncioreactor

    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    asyncioreactor.install(loop)
    from twisted.internet import reactor

    return _serve(reactor)


def _watch(descriptor: int) -> None:
    """End this process some time after the server has ended, also when the user's code blocks."""
    pipe = select.poll()
    pipe.register(descriptor, 0)  # no event but the end of the other side
    pipe.poll()
    threading.Event().wait(ORPHAN_TIME)
    os._exit(FAILED)


def _serve(reactor: Any) -> int:
    from twisted.internet.stdio import StandardIO
    from twisted.internet.threads import deferToThreadPool

    status = 0
    pipe: Any = None

    def say(message: Mapping[str, Any]) -> None:
        pipe.write(line_of(message))

    def over(ended_with: int) -> None:
        nonlocal status
        status = status or ended_with
        with contextlib.suppress(Exception):  # it stops already
            reactor.stop()

    def run_in_thread(function: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        return deferToThreadPool(reactor, reactor.getThreadPool(), function, *arguments)

    def running() -> None:
        # Behind Twisted, which takes the signal too, and ends the process in good order.
        faulthandler.register(signal.SIGTERM, chain=True)

    reactor.suggestThreadPoolSize(THREADS)
    child = Child(reactor, run_in_thread, say, over)
    standard_io: Any = StandardIO  # mypy sees that of Windows
    pipe = standard_io(_server_line(child), stdin=FROM_PARENT, stdout=TO_PARENT, reactor=reactor)
    observer = ToldLog(say, lambda call, told: _in_reactor(reactor, call, told))
    globalLogBeginner.beginLoggingTo([observer], redirectStandardIO=False)
    reactor.addSystemEventTrigger("before", "shutdown", child.leave)
    reactor.callWhenRunning(running)
    reactor.run()
    return status


def _in_reactor(reactor: Any, call: Callable[..., Any], told: Any) -> None:
    from twisted.python import threadable

    if threadable.isInIOThread():
        call(told)
    else:
        reactor.callFromThread(call, told)


def _server_line(child: Child) -> Any:
    from twisted.internet.protocol import Protocol, connectionDone

    class ServerLine(Protocol):
        """What comes from the server."""

        def dataReceived(self, data: bytes) -> None:
            """It says something."""
            child.heard(data)

        def connectionLost(self, reason: Failure = connectionDone) -> None:  # noqa: ARG002 - Twisted gives it
            """It is gone."""
            child.leave()

    return ServerLine()


if __name__ == "__main__":
    sys.exit(main())
