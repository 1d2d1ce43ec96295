r"""
An auto-responder that does no harm (RFC 3834): "I am away until Monday".

The mail itself goes on to its mailbox: the app has no `message`, it only looks on.  It answers
- never a program, a list, or the null sender: `is_auto_submitted` knows Auto-Submitted, Precedence, List-...;
- only mail that names one of our addresses in To or Cc, so not what came by Bcc or by a list that hides;
- each sender once in a day, also across restarts;
- to the envelope's sender, from the null sender, with Auto-Submitted: auto-replied, In-Reply-To and References.

Run it:  mailserver app run examples/autoresponder.py --threaded --option 'addresses=["you@example.org"]' \
             --option text="I am away." --option smarthost=127.0.0.1:2526
Try it:  swaks --server 127.0.0.1:2525 --to you@example.org

[[app]]
name = "away"
python = "examples/autoresponder.py:Autoresponder"
match = { recipients = "you@example.org" }
options = { addresses = ["you@example.org"], text = "I am away until Monday.", database = "/srv/away.sqlite" }
threaded = true              # SQLite and smtplib block
"""

from __future__ import annotations

import contextlib
import smtplib
import sqlite3
import time
from dataclasses import replace
from pathlib import Path

from pydantic import BaseModel

import mailserver
from mailserver.mime import Mail, encode, is_auto_submitted, mailboxes, parse_addresses, reply_to

DAY = 86_400  # seconds


class Options(BaseModel):
    """addresses: ours.  text: the answer.  database: who was answered when.  smarthost: "host:port", sends for us."""

    addresses: list[str]
    text: str
    database: Path = Path("autoresponder.sqlite")
    smarthost: str = "127.0.0.1:25"
    wait: float = DAY


class Autoresponder(mailserver.App):
    """Answers in `filter`, when the message is whole; what goes wrong with an answer must not keep the mail away."""

    Options = Options

    @classmethod
    def setup(cls, options):
        with database(options) as table:
            table.execute("CREATE TABLE IF NOT EXISTS answered (sender TEXT PRIMARY KEY, at REAL NOT NULL)")

    def filter(self, envelope, message):
        try:
            answer = self.answer(envelope, message)
            if answer is not None and self.first_today(envelope.sender.key):
                send(self.options.smarthost, answer, to=str(envelope.sender))
                self.log.info("answered {sender}", sender=str(envelope.sender))
        except (OSError, smtplib.SMTPException, sqlite3.Error, ValueError) as error:
            self.log.warn("no automatic answer: {error}", error=str(error))

    def answer(self, envelope, message) -> Mail | None:
        """The answer to a message; None when it must not have one."""
        if envelope.sender is None or is_robot(envelope.sender):
            return None
        ours = {mailserver.parse_address(each).key: each for each in self.options.addresses}
        if envelope.sender.key in ours:
            return None
        mail = message.mime
        if is_auto_submitted(mail.headers):
            return None
        named = {
            each.address.key
            for field in ("To", "Cc")
            for value in mail.headers.get_all(field)
            for each in mailboxes(parse_addresses(value))
            if each.address is not None
        }
        asked = [ours[each.address.key] for each in envelope.recipients if each.address.key in ours.keys() & named]
        if not asked:
            return None
        answer = reply_to(mail, self.options.text, from_=asked[0], automatic=True)
        # To whom the envelope says, whatever the header would like (RFC 3834 4).
        return replace(answer, to=str(envelope.sender), subject=f"Auto: {answer.subject.removeprefix('Re: ')}")

    def first_today(self, sender: str) -> bool:
        """Was nobody of this address answered lately?  From now on somebody was."""
        now = time.time()
        with database(self.options) as table:
            changed = table.execute(
                "INSERT INTO answered VALUES (?, ?) ON CONFLICT (sender) DO UPDATE SET at = excluded.at WHERE at < ?",
                (sender, now, now - self.options.wait),
            )
            return changed.rowcount == 1


def is_robot(sender: mailserver.Address) -> bool:
    """Is it the address of a program (RFC 3834 2)?"""
    local = sender.local.lower()
    return (
        local.startswith("owner-") or local.endswith("-request") or local in ("mailer-daemon", "noreply", "no-reply")
    )


@contextlib.contextmanager
def database(options: Options):
    """The database, for one transaction."""
    with contextlib.closing(sqlite3.connect(options.database)) as table, table:
        yield table


def send(smarthost: str, mail: Mail, to: str) -> None:
    """Hand it to the server that sends for us, from the null sender: nobody answers an answer."""
    host, _, port = smarthost.rpartition(":")
    with smtplib.SMTP(host.strip("[]"), int(port), timeout=30) as client:
        client.sendmail("<>", [to], encode(mail))
