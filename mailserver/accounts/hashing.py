"""
Threads that hash passwords: few of them, with a queue that is not endless.

In: a function and its arguments.  Out: a Deferred with its result.
Failures: `LoginUnavailable` (454) at once when too many wait; whatever the function raises.
argon2id takes some 20 ms and 19 MiB each time; two threads bound both, and the bound on those who wait keeps an
attack with many logins from making everybody wait for minutes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from twisted.application.service import Service
from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IReactorFromThreads
from twisted.internet.threads import deferToThreadPool
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from mailserver.reply import AUTH_UNAVAILABLE, Refusal

T = TypeVar("T")

THREADS = 2
#: Logins that wait for a thread; one more is sent away.  64 wait for less than a second.
MOST_WAITING = 64


class LoginUnavailable(Refusal):
    """No login can be verified now; carries the reply 454 4.7.0."""

    def __init__(self, detail: str = "") -> None:
        super().__init__(AUTH_UNAVAILABLE, detail)


class HashingPool(Service):
    """
    reactor: runs the callbacks.  threads: how many functions run at once.  waiting: how many more may wait.

    As a service it runs the threads from start to stop; a stop waits for what has begun.
    """

    def __init__(self, reactor: IReactorFromThreads, *, threads: int = THREADS, waiting: int = MOST_WAITING) -> None:
        self._reactor = reactor
        self._threads = threads
        self._most = threads + waiting
        self._open = 0

    def startService(self) -> None:
        """Start the threads."""
        super().startService()
        # Here, not in __init__: threads do not survive twistd's fork, and a pool that was stopped never starts again.
        self._pool = ThreadPool(0, self._threads, name="passwords")
        self._pool.start()

    def stopService(self) -> None:
        """Stop the threads; nothing is taken any more."""
        super().stopService()
        self._pool.stop()

    def run(self, function: Callable[..., T], *args: object) -> Deferred[T]:
        """
        Run the function in a thread.  It fails with LoginUnavailable when too many wait, or the service does not run.

        Cancelling the Deferred forgets the result; the work is done, and counts, nevertheless.
        """
        if not self.running:
            return fail(LoginUnavailable("the threads do not run"))
        if self._open >= self._most:
            return fail(LoginUnavailable(f"{self._open} logins are being verified"))
        self._open += 1
        answer: Deferred[T] = Deferred()
        work = deferToThreadPool(self._reactor, self._pool, function, *args)
        work.addBoth(self._done, answer)
        return answer

    def _done(self, result: Any, answer: Deferred[Any]) -> None:
        self._open -= 1
        # After a cancellation Twisted swallows this one call.
        if isinstance(result, Failure):
            answer.errback(result)
        else:
            answer.callback(result)
