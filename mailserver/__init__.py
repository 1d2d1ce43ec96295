"""
The programmable mail server: SMTP, submission, LMTP and Maildir on Twisted.

What programs need stands here and is imported when it is asked for: `App`, `Refusal`, `Reply`, `Changes`, `Login`,
`Disconnect`, `Address`, `Envelope`; `listen`, `start`, `stop` of `mailserver.server`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mailserver.address import Address, parse_address
    from mailserver.apps.app import App, Changes, Disconnect, Login
    from mailserver.envelope import Envelope, Peer, Recipient
    from mailserver.reply import Refusal, Reply
    from mailserver.server import listen, start, stop

__version__ = "0.1.0.dev0"

#: name -> the module that has it.
_HOME = {
    "Address": "mailserver.address",
    "parse_address": "mailserver.address",
    "App": "mailserver.apps.app",
    "Changes": "mailserver.apps.app",
    "Disconnect": "mailserver.apps.app",
    "Login": "mailserver.apps.app",
    "Envelope": "mailserver.envelope",
    "Peer": "mailserver.envelope",
    "Recipient": "mailserver.envelope",
    "Refusal": "mailserver.reply",
    "Reply": "mailserver.reply",
    "listen": "mailserver.server",
    "start": "mailserver.server",
    "stop": "mailserver.server",
}

__all__ = [
    "Address",
    "App",
    "Changes",
    "Disconnect",
    "Envelope",
    "Login",
    "Peer",
    "Recipient",
    "Refusal",
    "Reply",
    "__version__",
    "listen",
    "parse_address",
    "start",
    "stop",
]


def __getattr__(name: str) -> Any:
    """What stands in another module; to read the version alone imports nothing."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value
