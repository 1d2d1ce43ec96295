"""
Running the user's code: in the reactor, in a thread, or under asyncio - with a time limit, and never as our trouble.

In: a callback and its arguments.  Out: a Deferred of what it returned, or `Refusal`, or `Disconnect`.
An app that raises anything else costs the client a 451, and the log gets the traceback with the app's name; one that
takes longer than its time is cancelled, to the same end; the client does not wait for how the app takes that.  What a
callback does between two waits is measured: that is how long the reactor stood still.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Generator
from types import TracebackType
from typing import Any, Protocol

from twisted.internet.defer import CancelledError, Deferred, ensureDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from mailserver import reply as replies
from mailserver.apps.app import Disconnect
from mailserver.reply import Refusal


class Broken(Refusal):
    """The app has failed, and the log has it already; for the client it is the usual 451."""

    def __init__(self, detail: str) -> None:
        super().__init__(replies.LOCAL_TROUBLE, detail)


class Exit(Exception):  # noqa: N818 - it is a wish, which only a process of the app's own can have
    """The app has called `sys.exit`.  code: with what."""

    def __init__(self, code: Any = None) -> None:
        super().__init__(f"sys.exit({code!r})" if code is not None else "sys.exit()")
        self.code = code


#: A callback that keeps the reactor from its work for longer than this is told of in the log (seconds).
LONG_STEP = 0.05

_log = Logger(namespace="mailserver.apps")


class Observer(Protocol):
    """Who counts what becomes of calls."""

    def app_called(self, app: str, callback: str, seconds: float, outcome: str) -> None:
        """
        A call is over.  seconds: the longest that it held the reactor.  outcome: "ok", "refused", "failed",
        "timeout".
        """

    def app_restarted(self, app: str) -> None:
        """The process of an app is started again, because it has died."""


class Runner(Protocol):
    """How the code of an app is run."""

    def run(self, callback: Callable[..., Any], arguments: tuple[Any, ...], step: Callable[[float], None]) -> Any:
        """Call it; a value, or a Deferred of it.  step: told how long each piece held the reactor (seconds)."""


class _Steps(Coroutine[Any, Any, Any]):
    """A coroutine whose every step is measured."""

    def __init__(
        self, inner: Coroutine[Any, Any, Any], seconds: Callable[[], float], step: Callable[[float], None]
    ) -> None:
        self._inner = inner
        self._seconds = seconds
        self._step = step
        self._begun: list[Any] = []

    def begin(self) -> None:
        """Go to the first wait, which the first `send` will tell of.  Raises StopIteration: there is none."""
        self._begun.append(self.send(None))

    def send(self, value: Any) -> Any:
        """See `Coroutine`."""
        if self._begun:
            return self._begun.pop()
        started = self._seconds()
        try:
            return self._inner.send(value)
        finally:
            self._step(self._seconds() - started)

    def throw(self, typ: Any, val: Any = None, tb: TracebackType | None = None) -> Any:
        """See `Coroutine`."""
        started = self._seconds()
        try:
            if val is None and tb is None:
                return self._inner.throw(typ)
            return self._inner.throw(val if isinstance(val, BaseException) else typ(val))
        finally:
            self._step(self._seconds() - started)

    def close(self) -> None:
        """See `Coroutine`."""
        self._inner.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        return (yield from self._inner.__await__())


class Inline:
    """In the reactor's own thread; under an asyncio reactor a coroutine may await what asyncio knows too."""

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        #: The longest that the log was told of (seconds).
        self.told = LONG_STEP

    def run(self, callback: Callable[..., Any], arguments: tuple[Any, ...], step: Callable[[float], None]) -> Any:
        """See `Runner`."""
        started = self._seconds()
        try:
            result = callback(*arguments)
        finally:
            step(self._seconds() - started)
        if not isinstance(result, Awaitable) or isinstance(result, Deferred):
            return result
        # What is neither Deferred nor coroutine is a future or a task of asyncio, or an object with `__await__`.
        coroutine = result if isinstance(result, Coroutine) else _awaiting(result)
        steps = _Steps(coroutine, self._seconds, step)
        loop = _running_loop()
        if loop is None:
            # Most coroutines have nothing to wait for, and a Deferred costs more than all that they do.
            try:
                steps.begin()
            except StopIteration as over:
                return over.value
            return ensureDeferred(steps)
        return Deferred.fromFuture(loop.create_task(_bridged(steps, loop)))


class Threaded:
    """
    In a thread of a pool.  A coroutine goes back to a thread after each wait; what it waits for stays in the reactor.

    run_in_thread: as `deferToThread`.
    """

    def __init__(self, run_in_thread: Callable[..., Deferred[Any]]) -> None:
        self._run = run_in_thread

    def run(self, callback: Callable[..., Any], arguments: tuple[Any, ...], step: Callable[[float], None]) -> Any:  # noqa: ARG002
        """See `Runner`; nothing of it holds the reactor."""
        return ensureDeferred(self._steps(callback, arguments))

    async def _steps(self, callback: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        # In a list: a Deferred may not be the result of another one.
        (result,) = await self._run(_begin, callback, arguments)
        if not isinstance(result, Coroutine):
            return await result if isinstance(result, Deferred) else result
        error: BaseException | None = None
        while True:
            over, value = await self._run(_step, result, error)
            if over:
                return value
            error = None
            if not isinstance(value, Deferred):
                error = TypeError(
                    f"an app in a thread can await Deferreds and coroutines, not {type(value).__name__}"
                )
                continue
            try:
                await _fired(value)
            except CancelledError as cancelled:
                _give_up(value)
                error = cancelled


def _begin(callback: Callable[..., Any], arguments: tuple[Any, ...]) -> list[Any]:
    return [callback(*arguments)]


def _step(coroutine: Coroutine[Any, Any, Any], error: BaseException | None) -> tuple[bool, Any]:
    """Go on to the next wait: (False, what is waited for), or (True, the result)."""
    try:
        return False, coroutine.send(None) if error is None else coroutine.throw(error)
    except StopIteration as over:
        return True, over.value


def _fired(waited_for: Deferred[Any]) -> Deferred[None]:
    """Fires when the other one has; that keeps its result for whoever awaits it."""
    fired: Deferred[None] = Deferred()

    def tell(result: Any) -> Any:
        if not fired.called:
            fired.callback(None)
        return result

    waited_for.addBoth(tell)
    return fired


def _give_up(waited_for: Deferred[Any]) -> None:
    """Cancel it; the app hears of that in another way, so this failure is nobody's."""
    waited_for.cancel()
    waited_for.addErrback(lambda failure: failure.trap(CancelledError) and None)


async def _awaiting(awaitable: Awaitable[Any]) -> Any:
    return await awaitable


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


async def _bridged(inner: Coroutine[Any, Any, Any], loop: asyncio.AbstractEventLoop) -> Any:
    """A coroutine for asyncio that may also await Deferreds.  It ends with what Twisted understands."""
    try:
        return await _Bridge(inner, loop)
    except asyncio.CancelledError:
        raise CancelledError from None
    except SystemExit as error:
        # asyncio would stop the reactor for it, and with it the server.
        raise Exit(error.code) from error


class _Bridge:
    """Awaited under asyncio: futures pass through, Deferreds are waited for by a future."""

    def __init__(self, inner: Coroutine[Any, Any, Any], loop: asyncio.AbstractEventLoop) -> None:
        self._inner = inner
        self._loop = loop

    def __await__(self) -> Generator[Any, Any, Any]:
        error: BaseException | None = None
        while True:
            try:
                waited_for = self._inner.send(None) if error is None else self._inner.throw(error)
            except StopIteration as over:
                return over.value
            error = None
            try:
                if isinstance(waited_for, Deferred):
                    yield from _fired(waited_for).asFuture(self._loop)
                else:
                    yield waited_for
            except GeneratorExit:
                self._inner.close()
                raise
            except BaseException as raised:  # noqa: BLE001 - asyncio's cancelling, which is the app's to see
                if isinstance(waited_for, Deferred):
                    _give_up(waited_for)
                error = raised


class Overdue(Exception):  # noqa: N818 - it is no error of ours
    """A callback has taken longer than its time."""


class _Awaited:
    """
    A Deferred of the app's, for those that may not have the patience.

    over: fires as it does; but who cancels it need not wait until the app has understood.  cancelled: somebody has.
    """

    def __init__(self, result: Deferred[Any]) -> None:
        self.cancelled = False
        self._result = result
        self.over: Deferred[Any] = Deferred(self._cancel)
        result.addBoth(self._tell)

    def _cancel(self, _over: Deferred[Any]) -> None:
        self.cancelled = True
        self._result.cancel()

    def _tell(self, value: Any) -> None:
        # An app may take its time to end, or swallow that it was cancelled: what comes then is nobody's.
        if not self.over.called:
            self.over.callback(value)


def _too_late(value: Any, _timeout: float) -> Any:
    """For `addTimeout`: what the app raised when it was cancelled does not count."""
    if isinstance(value, Failure):
        raise Overdue
    return value


class _Turn:
    """Whose turn it is.  Nearly always nobody waits for it, and then it costs no Deferred."""

    def __init__(self) -> None:
        self._taken = False
        self._waiting: list[Deferred[None]] = []

    def take(self) -> Deferred[None] | None:
        """None: it is yours.  Else it is when the Deferred fires; who cancels that has not got it."""
        if not self._taken:
            self._taken = True
            return None
        waiting: Deferred[None] = Deferred(self._waiting.remove)
        self._waiting.append(waiting)
        return waiting

    def give_back(self) -> None:
        """The next one's."""
        if self._waiting:
            self._waiting.pop(0).callback(None)
        else:
            self._taken = False


class Caller:
    """
    Calls the callbacks of one object, one after the other, in the order in which they were asked for.

    name: of the app.  timeout: of each call, in seconds.
    """

    def __init__(self, name: str, runner: Runner, clock: IReactorTime, timeout: float, observer: Observer) -> None:
        self._name = name
        self._runner = runner
        self._clock = clock
        self._timeout = timeout
        self._observer = observer
        self._turn = _Turn()

    def call(self, what: str, callback: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        """
        The Deferred of what the callback returns.  Fails with Refusal (451 for every mistake of the app), Disconnect,
        or CancelledError when the caller itself has cancelled it.
        """
        return ensureDeferred(self._call(what, callback, arguments))

    async def _call(self, what: str, callback: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        longest = 0.0
        outcome = "failed"

        def step(seconds: float) -> None:
            nonlocal longest
            longest = max(longest, seconds)

        if (before := self._turn.take()) is not None:
            await before
        awaited: _Awaited | None = None
        try:
            result = self._runner.run(callback, arguments, step)
            if isinstance(result, Deferred):
                awaited = _Awaited(result)
                result = await awaited.over.addTimeout(self._timeout, self._clock, _too_late)
            outcome = "ok"
        except Broken:
            raise
        except Refusal:
            outcome = "refused"
            raise
        except Disconnect:
            outcome = "ok"
            raise
        except Overdue:
            outcome = "timeout"
            raise self._overdue(what) from None
        except (Exception, SystemExit, asyncio.CancelledError) as error:
            if isinstance(error, CancelledError) and awaited is not None and awaited.cancelled:
                outcome = "ok"
                raise
            # Without a cause: it is in the log already, and must not be told twice.
            raise self._failed(what, error) from None
        else:
            return result
        finally:
            self._turn.give_back()
            self._observer.app_called(self._name, what, longest, outcome)
            if longest > getattr(self._runner, "told", longest):
                # Each time that it is worse than ever, not with each message.
                self._runner.told = longest  # type: ignore[attr-defined]
                _log.warn(
                    "app {app}: {callback} held up all connections for {milliseconds} ms; threaded = true would help",
                    event="app-stall",
                    app=self._name,
                    callback=what,
                    milliseconds=round(longest * 1000),
                )

    def _overdue(self, what: str) -> Refusal:
        text = f"app {self._name}: {what} took longer than {self._timeout:g} s"
        _log.error("{problem} and was cancelled", event="app-timeout", app=self._name, callback=what, problem=text)
        return Refusal(replies.LOCAL_TROUBLE, text)

    def _failed(self, what: str, error: BaseException) -> Refusal:
        """To be called where the error is caught."""
        _log.failure(
            "app {app}: {callback} failed", failure=Failure(), event="app-failed", app=self._name, callback=what
        )
        return Refusal(replies.LOCAL_TROUBLE, f"app {self._name}: {type(error).__name__}")
