"""
A test server for each test of trial.

In: a TestCase class.  Out: `self.mailserver`, which runs in the reactor of the tests while the test does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Unpack

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from mailserver.testing.asynchronous import AsyncMailServer
from mailserver.testing.settings import Options


class MailServerTestCase(TestCase):
    """`mailserver_options` are the arguments of the server."""

    mailserver_options: ClassVar[Options] = {}
    mailserver: AsyncMailServer

    def setUp(self) -> Deferred[None]:  # type: ignore[override]  # trial waits for it
        """Start it.  Who overrides it calls it, and waits for what it returns."""
        starting = self.start_mailserver(**self.mailserver_options)

        def started(server: AsyncMailServer) -> None:
            self.mailserver = server

        return starting.addCallback(started)

    def start_mailserver(self, **options: Unpack[Options]) -> Deferred[AsyncMailServer]:
        """One more, which ends with the test."""
        server = AsyncMailServer(**options)

        def started(server: AsyncMailServer) -> AsyncMailServer:
            self.addCleanup(server.stop)
            return server

        return server.start().addCallback(started)

    def in_thread(self, function: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        """What the function returns, which may block: `smtplib`, for example."""
        return deferToThread(function, *arguments)
