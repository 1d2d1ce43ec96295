"""
The reactor beside a program that does not know Twisted: in a thread of its own, once in a process.

In: a reactor.  Out: a running one; calls into it that wait for their result.
The thread ends with the program, and lets what the reactor does come to its end first, as a signal would.
Failures: RuntimeError for a reactor that runs in the thread that asks, or whose life is over: one that was stopped
cannot be started again.
"""

from __future__ import annotations

import atexit
import threading
from collections.abc import Callable
from typing import Any

from twisted.internet.threads import blockingCallFromThread
from twisted.python.threadable import isInIOThread

#: Seconds that the end of a program waits for the reactor's.
PATIENCE = 5.0

_thread: threading.Thread | None = None


def run_reactor(reactor: Any) -> None:
    """Start it in a thread, unless it runs; returns when it does.  Raises RuntimeError."""
    global _thread  # noqa: PLW0603 - a process has one reactor
    if reactor.running:
        if isInIOThread():
            raise RuntimeError("the reactor runs in this thread, which must not wait for it")
        return
    if isInIOThread():  # trial runs it here, now and again
        raise RuntimeError("the reactor belongs to this thread, which must not wait for it")
    if _thread is not None:
        raise RuntimeError("the reactor of this process was stopped, and cannot be started again")
    begun = threading.Event()
    reactor.callWhenRunning(begun.set)
    _thread = threading.Thread(
        target=reactor.run, kwargs={"installSignalHandlers": False}, name="mailserver", daemon=True
    )
    _thread.start()
    begun.wait()
    atexit.register(_end, reactor, _thread)


def call(reactor: Any, function: Callable[..., Any], *arguments: Any) -> Any:
    """
    What the function returns, or the Deferred that it returns brings, in the reactor's thread.

    Raises what it raises; RuntimeError in the reactor's own thread, where waiting would never end.
    """
    if isInIOThread() and reactor.running:
        raise RuntimeError("the reactor runs in this thread, which must not wait for it")
    return blockingCallFromThread(reactor, function, *arguments)


def _end(reactor: Any, thread: threading.Thread) -> None:
    if reactor.running:
        reactor.callFromThread(reactor.stop)
        thread.join(PATIENCE)
