"""The program of `bench.programs` that is ours: it takes mail, and ends when it is told to."""

from __future__ import annotations

import os
import sys

from twisted.trial.unittest import SynchronousTestCase

from bench import programs
from tests.interop.clients import session


class ProgramTests(SynchronousTestCase):
    def test_it_takes_mail_and_ends(self) -> None:
        with programs.program(sys.executable, programs._OURS) as (port, pid):
            with session(("127.0.0.1", port)) as client:
                client.docmd("MAIL FROM:<a@example.net>")
                client.docmd("RCPT TO:<b@example.org>")
                self.assertEqual(client.data(b"Subject: x\r\n\r\nhello\r\n")[0], 250)
            self.assertTrue(os.path.exists(f"/proc/{pid}"))
        self.assertFalse(os.path.exists(f"/proc/{pid}"))
