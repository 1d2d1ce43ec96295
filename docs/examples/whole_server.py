"""
The whole mail server as a part of one's own Twisted program: an `IService` beside others.

Run it:  python docs/examples/whole_server.py
It takes the configuration of $MAILSERVER_CONFIG, or runs in development mode with ./mailserver-data.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.application.internet import TimerService
from twisted.application.service import MultiService
from twisted.internet.defer import Deferred
from twisted.internet.task import react

from mailserver.config import Config, Listener, development, find_config, load
from mailserver.service import MailService


def read() -> Config:
    """The configuration; raises ConfigError, whose text has all problems."""
    path = find_config(None, os.environ)
    return development(Path("mailserver-data")) if path is None else load(path)


def make_services(config: Config, reactor: Any, say: Callable[[str], object]) -> MultiService:
    """The mail server, and something that looks at it every minute.  say: called with a line of text."""

    def listening(_config: Config, addresses: list[tuple[Listener, str]]) -> None:
        for listener, address in addresses:
            say(f"{listener.name} listens on {address}")

    mail = MailService(config, reactor, told=listening)
    mail.prepare()  # binds the ports; StartError says what is wrong
    watch = TimerService(60.0, lambda: say(f"{len(mail.ground.connections)} connections are open"))
    watch.clock = reactor
    everything = MultiService()
    for service in (mail, watch):
        service.setServiceParent(everything)
    return everything


def main(reactor: Any) -> Deferred[None]:
    """Run until Ctrl-C."""
    everything = make_services(read(), reactor, lambda line: sys.stdout.write(line + "\n"))
    everything.privilegedStartService()  # gives up root, when the configuration says so
    everything.startService()
    reactor.addSystemEventTrigger("before", "shutdown", everything.stopService)
    return Deferred()


if __name__ == "__main__":
    react(main)
