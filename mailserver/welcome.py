"""
What development mode says when it is ready: where it listens, how to send a first mail, where that will lie.

In: the addresses that listen.  Out: a few lines for a person.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mailserver.config import Config, Listener
from mailserver.maildir.names import mailbox_path
from mailserver.routing import DEVELOPMENT_INBOX

_WORDS = {"starttls": "STARTTLS", "implicit": "implicit TLS", "off": "no TLS"}


def welcome(config: Config, addresses: Sequence[tuple[Listener, str]]) -> str:
    """The banner, several lines."""
    inbox = inbox_of(config)
    lines = ["", "mailserver is ready: development mode, this machine only, every address and password is accepted."]
    lines += doors(addresses)
    first = first_door(addresses)
    if first is not None:
        lines += ["Send a first mail:", f"  {first_mail(first)}"]
    lines += [
        f"It will lie in {inbox}/new (a Maildir: one file for each message).  Ctrl-C ends the server.",
        "",
    ]
    return "\n".join([*lines, ""])


def doors(addresses: Sequence[tuple[Listener, str]]) -> list[str]:
    """A line for each address that listens."""
    return [f"  {address:<18} {listener.protocol}, {_WORDS[listener.tls]}" for listener, address in addresses]


def first_door(addresses: Sequence[tuple[Listener, str]]) -> str | None:
    """The address that a first mail goes to: SMTP, which may be spoken without TLS."""
    plain = (where for listener, where in addresses if listener.protocol == "smtp" and listener.tls != "implicit")
    return next(plain, None)


def first_mail(address: str) -> str:
    """One line to copy; curl is on nearly every machine."""
    return (
        f"printf 'Subject: hello\\r\\n\\r\\nIt works.\\r\\n' | "
        f"curl smtp://{address} --mail-from me@example.org --mail-rcpt you@example.org -T -"
    )


def inbox_of(config: Config) -> str:
    """Where mail for everybody lies, as seen from here if that is shorter."""
    path = mailbox_path(config.server.data_dir / "mail", DEVELOPMENT_INBOX)
    try:
        return f"./{path.relative_to(Path.cwd())}"
    except ValueError:
        return str(path)
