r"""
A ticket system: mail to tickets@example.org opens a ticket, an answer to what it sends is attached to it.

What it sends has Reply-To: tickets+17.2f9c...@example.org.  Behind the number stands a token (HMAC) that only the
server can make, so nobody writes into a ticket who was not sent its address; a wrong one is refused at RCPT.
Programs open no tickets and get no confirmations (RFC 3834), so two of them cannot talk for ever.  A message that is
sent twice, because its 250 was lost, opens one ticket.

Run it:  echo correct-horse-battery-staple > secret; chmod 600 secret
         mailserver app run examples/tickets.py --threaded --option secret_file=secret \
             --option smarthost=127.0.0.1:2526
         (and another server for what it sends:  python examples/receive_and_print.py 127.0.0.1:2526)
Try it:  swaks --server 127.0.0.1:2525 --from me@example.net --to tickets@example.org --header "Subject: it is broken"
Look:    python examples/tickets.py tickets.sqlite

[[app]]
name = "tickets"
python = "examples/tickets.py:Tickets"
match = { recipients = ["tickets@example.org", "tickets+*@example.org"] }
options = { secret_file = "/etc/mailserver/tickets.secret", database = "/srv/tickets.sqlite" }
threaded = true              # SQLite and smtplib block
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import smtplib
import sqlite3
import sys
import time
from dataclasses import replace
from pathlib import Path

from pydantic import BaseModel, field_validator

import mailserver
from mailserver.mime import encode, is_auto_submitted, reply_to

TABLES = """
CREATE TABLE IF NOT EXISTS ticket (id INTEGER PRIMARY KEY, customer TEXT NOT NULL, subject TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS message (
    ticket INTEGER NOT NULL REFERENCES ticket, at REAL NOT NULL, sender TEXT NOT NULL, message_id TEXT NOT NULL,
    text TEXT NOT NULL, raw BLOB NOT NULL, UNIQUE (sender, message_id)
);
"""


class Options(BaseModel):
    """secret_file: its text makes the tokens.  address: of the tickets.  smarthost: "host:port", sends for us."""

    secret_file: Path
    database: Path = Path("tickets.sqlite")
    address: str = "tickets@example.org"
    smarthost: str = "127.0.0.1:25"

    @field_validator("secret_file")
    @classmethod
    def _long_enough(cls, path: Path) -> Path:
        if len(path.read_bytes().strip()) < 20:
            raise ValueError(f"{path} must hold a secret of at least 20 characters")
        return path


class Desk:
    """All tickets.  One for all connections; every method may run in any thread."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self._secret = options.secret_file.read_bytes().strip()
        with self.database() as database:
            database.executescript(TABLES)

    @contextlib.contextmanager
    def database(self):
        """The database for one transaction, which is on the disk when this is left (SQLite's synchronous = FULL)."""
        with contextlib.closing(sqlite3.connect(self.options.database)) as database, database:
            yield database

    def address(self, ticket: int) -> str:
        """Where answers about a ticket go."""
        local, _, domain = self.options.address.partition("@")
        return f"{local}+{ticket}.{self._token(ticket)}@{domain}"

    def ticket(self, detail: str) -> int | None:
        """The ticket of "17.2f9c..."; None when that was never an address of ours."""
        number, _, token = detail.partition(".")
        if not (number.isascii() and number.isdecimal() and len(number) < 16):
            return None
        # Local parts may change their case on the way; digits and lower-case letters are as good.
        right = hmac.compare_digest(token.lower().encode(), self._token(int(number)).encode())
        return int(number) if right else None

    def _token(self, ticket: int) -> str:
        return hmac.new(self._secret, f"ticket {ticket}".encode(), hashlib.sha256).hexdigest()[:24]

    def open(self, sender: str, mail, raw: bytes) -> tuple[int, bool]:
        """The ticket for a mail, and whether it is new."""
        message_id = mail.headers.get("Message-ID") or hashlib.sha256(raw).hexdigest()
        with self.database() as database:
            known = database.execute(
                "SELECT ticket FROM message WHERE sender = ? AND message_id = ?", (sender, message_id)
            ).fetchone()
            if known is not None:
                return int(known[0]), False
            subject = mail.headers.get("Subject", "")
            ticket = int(
                database.execute("INSERT INTO ticket (customer, subject) VALUES (?, ?)", (sender, subject)).lastrowid
            )
            self._add(database, ticket, sender, message_id, mail, raw)
        return ticket, True

    def attach(self, ticket: int, sender: str, mail, raw: bytes) -> None:
        """Attach a mail to a ticket; once, however often it comes."""
        message_id = mail.headers.get("Message-ID") or hashlib.sha256(raw).hexdigest()
        with self.database() as database:
            self._add(database, ticket, sender, message_id, mail, raw)

    def _add(self, database, ticket: int, sender: str, message_id: str, mail, raw: bytes) -> None:
        body = mail.body()
        row = (ticket, time.time(), sender, message_id, body.text if body is not None else "", raw)
        database.execute("INSERT OR IGNORE INTO message VALUES (?, ?, ?, ?, ?, ?)", row)

    def confirm(self, ticket: int, sender: str, mail) -> None:
        """Tell the customer the number.  The ticket is safe already, so trouble here is only noted."""
        text = f"Thank you. This is ticket {ticket}; just answer this mail to add something to it."
        answer = reply_to(mail, text, from_=self.options.address, automatic=True)
        # To whom the envelope says (RFC 3834 4): the header may name somebody who has written nothing.
        answer = replace(answer, to=sender, reply_to=self.address(ticket), subject=f"[{ticket}] {answer.subject}")
        host, _, port = self.options.smarthost.rpartition(":")
        with smtplib.SMTP(host.strip("[]"), int(port), timeout=30) as client:
            client.sendmail("<>", [sender], encode(answer))  # the null sender: nobody answers a confirmation


class Tickets(mailserver.App):
    """Runs in threads (`threaded = true`): its callbacks are plain methods that may wait for disk and network."""

    Options = Options

    @classmethod
    def setup(cls, options):
        return Desk(options)

    def rcpt(self, recipient, parameters):
        if recipient.detail and self.shared.ticket(recipient.detail) is None:
            self.refuse(550, "5.1.1", "There is no such ticket")

    def message(self, envelope, message):
        mail, raw, sender = message.mime, message.read(), str(envelope.sender or "")
        automatic = not sender or is_auto_submitted(mail.headers)
        said = []
        for recipient in envelope.recipients:
            ticket = self.shared.ticket(recipient.address.detail)
            if ticket is not None:
                self.shared.attach(ticket, sender, mail, raw)
                said.append(f"Added to ticket {ticket}")
            elif automatic:
                # Taken, and not kept: refusing it would make a bounce, which is one more automatic mail.
                self.log.info("{id}: automatic mail from {sender} opens no ticket", id=envelope.id, sender=sender)
                said.append("No ticket for automatic mail")
            else:
                ticket, new = self.shared.open(sender, mail, raw)
                if new:
                    self.confirm(ticket, sender, mail)
                said.append(f"This is ticket {ticket}")
        return "; ".join(dict.fromkeys(said))

    def confirm(self, ticket, sender, mail):
        try:
            self.shared.confirm(ticket, sender, mail)
        except (OSError, smtplib.SMTPException, ValueError) as error:
            self.log.warn("no confirmation for ticket {ticket}: {error}", ticket=ticket, error=str(error))


def show(path: str) -> None:
    """Print all tickets."""
    with contextlib.closing(sqlite3.connect(path)) as database:
        for ticket, customer, subject in database.execute("SELECT id, customer, subject FROM ticket ORDER BY id"):
            print(f"[{ticket}] {customer!r}: {subject!r}")
            rows = database.execute("SELECT sender, text FROM message WHERE ticket = ? ORDER BY at", (ticket,))
            for sender, text in rows:
                print(f"    {sender!r}: {text[:60]!r}")


if __name__ == "__main__":
    show(sys.argv[1])
