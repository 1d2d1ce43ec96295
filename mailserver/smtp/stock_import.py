"""
twisted.mail.smtp, imported without a word to the resolver.

It asks for this host's full name at import time (`socket.getfqdn`), which hangs for many seconds where DNS is dead;
we never use the answer.  Whoever needs the module imports it from here.
"""

from __future__ import annotations

import socket


def _import() -> None:
    asks, socket.getfqdn = socket.getfqdn, lambda name="": name or socket.gethostname()
    try:
        import twisted.mail.smtp  # noqa: F401 - for its effect on sys.modules
    finally:
        socket.getfqdn = asks


_import()
from twisted.mail import smtp as stock  # noqa: E402 - only now it is safe

__all__ = ["stock"]
