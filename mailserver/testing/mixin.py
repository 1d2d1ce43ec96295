"""
A test server for each test of unittest.

In: a TestCase class.  Out: `self.mailserver`, which runs while the test does.
"""

from __future__ import annotations

from typing import Any, ClassVar, Unpack

from mailserver.testing.blocking import MailServer
from mailserver.testing.settings import Options


class MailServerMixin:
    """
    Stands before `unittest.TestCase` among the bases: `class Tests(MailServerMixin, unittest.TestCase)`.

    `mailserver_options` are the arguments of `MailServer`.
    """

    mailserver_options: ClassVar[Options] = {}
    mailserver: MailServer

    def setUp(self) -> None:
        """Start it."""
        super().setUp()  # type: ignore[misc]
        self.mailserver = self.start_mailserver(**self.mailserver_options)

    def start_mailserver(self, **options: Unpack[Options]) -> MailServer:
        """One more, which ends with the test."""
        server = MailServer(**options).start()
        test: Any = self
        test.addCleanup(server.stop)
        return server
