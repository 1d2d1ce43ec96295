"""
The test server for programs that block: unittest, pytest, scripts.

In: calls from any thread but the reactor's.  Out: results; waits that end when a message comes, without polling.
The reactor runs in a thread of its own, once in a process (`reactor_thread`); servers come and go in it.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from twisted.internet.defer import Deferred, ensureDeferred

from mailserver.reactor_thread import call, run_reactor
from mailserver.testing.core import Core
from mailserver.testing.front import Front
from mailserver.testing.received import Received, Wanted


class MailServer(Front):
    """
    A mail server in a thread: `with MailServer() as server: ...`.  The arguments are those of `Settings`.

    In trial's TestCase the reactor belongs to the tests themselves: `AsyncMailServer` is for those.
    """

    def start(self) -> Self:
        """Listen; returns when it does.  Raises RuntimeError when it runs already, BindError, AppError."""
        from twisted.internet import reactor

        if self._core is not None:
            raise RuntimeError("the server runs already")
        run_reactor(reactor)
        core = Core(self.settings, reactor, self._faults)
        call(reactor, core.start)
        self._core = core
        return self

    def stop(self) -> None:
        """End everything at once; returns when nothing is left.  Also twice."""
        core, self._core = self._core, None
        if core is not None:
            self._call(lambda: ensureDeferred(core.stop()))

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def wait_for_message(
        self,
        to: str | None = None,
        subject: Any = None,
        sender: str | None = None,
        where: Callable[[Received], object] | None = None,
        *,
        timeout: float = 5.0,
        count: int = 1,
    ) -> Received:
        """
        The message that fits (see `Wanted`), at once or when it comes; of several the one with this number.

        Raises MessageNotReceived, an AssertionError that tells what did arrive, after `timeout` seconds; ValueError.
        """
        wanted, inbox = Wanted(to, subject, sender, where), self.core.inbox
        found: Received = self._call(lambda: inbox.wait(wanted, count=count, timeout=timeout))
        return found

    def assert_no_message(
        self,
        to: str | None = None,
        subject: Any = None,
        sender: str | None = None,
        where: Callable[[Received], object] | None = None,
        *,
        within: float = 0.0,
    ) -> None:
        """Raises UnexpectedMessage, an AssertionError, when such a message is there, or comes within that time."""
        wanted, inbox = Wanted(to, subject, sender, where), self.core.inbox
        self._call(lambda: inbox.none(wanted, within=within))

    def stop_listening(self) -> None:
        """Refuse connections from now on, on all ports; those that are open go on."""
        core = self.core
        self._call(lambda: ensureDeferred(core.stop_listening()))

    def listen_again(self) -> None:
        """Take connections again, on the same ports.  Raises BindError."""
        self._call(self.core.listen)

    def _call(self, function: Callable[[], Deferred[Any] | None]) -> Any:
        from twisted.internet import reactor

        return call(reactor, function)
