"""
The test server in the reactor that the test itself runs in: trial, or a program of Twisted's.

In: calls in the reactor's thread.  Out: Deferreds, for `yield` and `await` alike.
When `stop` has fired there is no socket, no delayed call and no thread left, so trial finds a clean reactor.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any, Self, Unpack

from twisted.internet.defer import Deferred, ensureDeferred, maybeDeferred, succeed

from mailserver.testing.core import Core
from mailserver.testing.front import Front
from mailserver.testing.received import Received, Wanted
from mailserver.testing.settings import Options


class AsyncMailServer(Front):
    """
    A mail server in the reactor: `await server.start()`, `await server.stop()`, or `async with`.

    reactor: None for the one of the program.  The other arguments are those of `Settings`.
    """

    def __init__(self, reactor: Any = None, **options: Unpack[Options]) -> None:
        super().__init__(**options)
        self._reactor = reactor

    def start(self) -> Deferred[Self]:
        """Listen; it has happened when this returns.  Fails with RuntimeError, BindError, AppError."""
        return maybeDeferred(self._start)

    def _start(self) -> Self:
        if self._core is not None:
            raise RuntimeError("the server runs already")
        reactor = self._reactor
        if reactor is None:
            from twisted.internet import reactor
        core = Core(self.settings, reactor, self._faults)
        core.start()
        self._core = core
        return self

    def stop(self) -> Deferred[None]:
        """End everything at once; fires when nothing is left.  Also twice."""
        core, self._core = self._core, None
        return succeed(None) if core is None else ensureDeferred(core.stop())

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    def wait_for_message(
        self,
        to: str | None = None,
        subject: Any = None,
        sender: str | None = None,
        where: Callable[[Received], object] | None = None,
        *,
        timeout: float = 5.0,
        count: int = 1,
    ) -> Deferred[Received]:
        """
        The message that fits (see `Wanted`), at once or when it comes; of several the one with this number.

        Fails with MessageNotReceived, an AssertionError that tells what did arrive, after `timeout` seconds.
        """
        return self.core.inbox.wait(Wanted(to, subject, sender, where), count=count, timeout=timeout)

    def assert_no_message(
        self,
        to: str | None = None,
        subject: Any = None,
        sender: str | None = None,
        where: Callable[[Received], object] | None = None,
        *,
        within: float = 0.0,
    ) -> Deferred[None]:
        """Fails with UnexpectedMessage, an AssertionError, when such a message is there or comes within that time."""
        return self.core.inbox.none(Wanted(to, subject, sender, where), within=within)

    def stop_listening(self) -> Deferred[None]:
        """Refuse connections from now on, on all ports; those that are open go on."""
        return ensureDeferred(self.core.stop_listening())

    def listen_again(self) -> Deferred[None]:
        """Take connections again, on the same ports.  Fails with BindError."""
        return maybeDeferred(self.core.listen)
