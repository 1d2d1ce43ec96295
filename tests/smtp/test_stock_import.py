"""Importing twisted.mail.smtp asks no resolver."""

from __future__ import annotations

import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

_PROGRAM = """
import socket
def forbidden(*arguments):
    raise SystemExit("the resolver was asked")
for name in ("getaddrinfo", "gethostbyname", "gethostbyaddr", "gethostbyname_ex"):
    setattr(socket, name, forbidden)
before = socket.getfqdn
from mailserver.smtp.stock_import import stock
assert stock.ESMTP
assert socket.getfqdn is before
"""


class ImportTests(SynchronousTestCase):
    def test_it_asks_nobody_and_leaves_no_trace(self) -> None:
        done = subprocess.run(
            [sys.executable, "-c", _PROGRAM], capture_output=True, text=True, timeout=60, check=False
        )
        self.assertEqual((done.returncode, done.stderr), (0, ""))

    def test_the_stock_module_alone_would_ask(self) -> None:
        program = _PROGRAM.replace("mailserver.smtp.stock_import", "twisted.mail.smtp").replace(
            " import stock", " import ESMTP"
        )
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
        )
        self.assertIn("the resolver was asked", done.stderr)
