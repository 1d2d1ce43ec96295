"""
A mail server for the tests of programs that send mail: real SMTP and LMTP, nothing configured, nothing left behind.

In: what a test wants the server to be (`Options`) and to do wrong (`fail`, `delay`, `drop_after`).  Out: the messages
that arrived, as values; waits that end when a message comes.
`MailServer` runs in a thread, for unittest, pytest and any program that blocks; `AsyncMailServer` in the reactor that
the test runs in, for trial.  `MailServerMixin` is for unittest, `trial` for trial, `plugin` for pytest.
Names are imported when they are asked for: whoever has pytest and this package installed pays for what is used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mailserver.reply import Refusal, Reply
    from mailserver.testing.asynchronous import AsyncMailServer
    from mailserver.testing.blocking import MailServer
    from mailserver.testing.faults import Fault, Moment
    from mailserver.testing.mixin import MailServerMixin
    from mailserver.testing.received import MessageNotReceived, Received, UnexpectedMessage
    from mailserver.testing.settings import Options

#: name -> the module that has it.
_HOME = {
    "AsyncMailServer": "mailserver.testing.asynchronous",
    "Fault": "mailserver.testing.faults",
    "MailServer": "mailserver.testing.blocking",
    "MailServerMixin": "mailserver.testing.mixin",
    "MessageNotReceived": "mailserver.testing.received",
    "Moment": "mailserver.testing.faults",
    "Options": "mailserver.testing.settings",
    "Received": "mailserver.testing.received",
    "Refusal": "mailserver.reply",
    "Reply": "mailserver.reply",
    "UnexpectedMessage": "mailserver.testing.received",
}

__all__ = [
    "AsyncMailServer",
    "Fault",
    "MailServer",
    "MailServerMixin",
    "MessageNotReceived",
    "Moment",
    "Options",
    "Received",
    "Refusal",
    "Reply",
    "UnexpectedMessage",
]


def __getattr__(name: str) -> Any:
    """What stands in another module."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value
