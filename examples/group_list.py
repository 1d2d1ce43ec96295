"""
An anonymous group: its members write to each other, and nobody sees anybody's address.

Each member has an address for each group, such as course+7.4e81c0...@lists.example.org: the member's number and a
token (HMAC) that only the server can make.  It is where the member writes to, and what the member's copies of all
mail come from, so an answer says by itself who has written it, and where.  Another token is refused at RCPT.

What goes out is written anew: nothing of the author's header is in it but the subject, and of the text everything but
the addresses of members, and addresses and links of ours that a mail program has quoted.  Attachments and HTML stay
behind, as they tell too much.  The author gets no copy.  Each copy has List-Unsubscribe with a link of its own (RFC
2369, 8058): a mail program's POST to it is all that it takes; who follows it is asked first, since programs that look
for viruses follow all links.

The 250 comes when the copies are in the database.  What cannot be sent is tried again every minute.
For mail programs to trust the link, your smarthost must sign List-Unsubscribe and List-Unsubscribe-Post with DKIM,
and `base_url` must be https: put a web server in front.

Run it:  echo correct-horse-battery-staple > secret; chmod 600 secret
         python examples/group_list.py secret lists.sqlite add course Ada ada@example.net
         python examples/group_list.py secret lists.sqlite add course Bob bob@example.com
         (each says where the new member writes to)
         mailserver app run examples/group_list.py --option secret_file=secret --option smarthost=127.0.0.1:2526
         (and another server for what it sends:  python examples/receive_and_print.py 127.0.0.1:2526)

[[app]]
name = "lists"
python = "examples/group_list.py:GroupList"
match = { recipients = "*@lists.example.org" }
options = { secret_file = "/etc/mailserver/lists.secret", base_url = "https://lists.example.org" }
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import html
import re
import smtplib
import sqlite3
import sys
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel
from twisted.internet.defer import maybeDeferred
from twisted.internet.task import LoopingCall
from twisted.internet.threads import deferToThread
from twisted.logger import Logger
from twisted.web.resource import Resource
from twisted.web.server import Site

import mailserver
from mailserver.mime import Mail, NamedAddress, encode, is_auto_submitted

TABLES = """
CREATE TABLE IF NOT EXISTS member (
    id INTEGER PRIMARY KEY, team TEXT NOT NULL, nick TEXT NOT NULL, address TEXT NOT NULL,
    active INTEGER NOT NULL DEFAULT 1, bounces INTEGER NOT NULL DEFAULT 0, UNIQUE (team, address)
);
CREATE TABLE IF NOT EXISTS post (
    id INTEGER PRIMARY KEY, author INTEGER NOT NULL REFERENCES member, message_id TEXT NOT NULL, answers INTEGER,
    subject TEXT NOT NULL, text TEXT NOT NULL, UNIQUE (author, message_id)
);
CREATE TABLE IF NOT EXISTS copy (
    post INTEGER NOT NULL REFERENCES post, member INTEGER NOT NULL REFERENCES member, PRIMARY KEY (post, member)
);
"""
RETRY = 60  # seconds
MOST_BOUNCES = 5
log = Logger(namespace="group_list")


class Options(BaseModel):
    """secret_file: makes the tokens.  domain: of the groups.  smarthost: "host:port".  web: where we speak HTTP."""

    secret_file: Path
    database: Path = Path("lists.sqlite")
    domain: str = "lists.example.org"
    smarthost: str = "127.0.0.1:25"
    web: str = "127.0.0.1:8025"
    base_url: str = "http://127.0.0.1:8025"


@dataclass(frozen=True)
class Member:
    """team: the group's name."""

    id: int
    team: str
    nick: str
    address: str


class Lists:
    """All groups.  Its methods block, and may run in any thread; `GroupList` calls them in one."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self._secret = options.secret_file.read_bytes().strip()
        if len(self._secret) < 20:
            raise ValueError(f"{options.secret_file} must hold a secret of at least 20 characters")
        with self.database() as database:
            database.executescript(TABLES)

    @contextlib.contextmanager
    def database(self):
        """The database for one transaction, which is on the disk when this is left."""
        with contextlib.closing(sqlite3.connect(self.options.database, timeout=30)) as database, database:
            yield database

    # -- members and their addresses -------------------------------------------------------------------------------

    def add(self, team: str, nick: str, address: str) -> str:
        """A new member, or one who is back; where this one writes to."""
        if not re.fullmatch(r"[a-z][a-z0-9-]{0,30}", team):
            raise ValueError(f"{team!r} is no name for a group: small letters, digits and -")
        address = str(mailserver.parse_address(address))
        with self.database() as database:
            database.execute(
                "INSERT INTO member (team, nick, address) VALUES (?, ?, ?) "
                "ON CONFLICT DO UPDATE SET nick = excluded.nick, active = 1, bounces = 0",
                (team, nick, address),
            )
            row = database.execute(
                "SELECT id, team, nick, address FROM member WHERE team = ? AND address = ?", (team, address)
            ).fetchone()
        return self.address_of(Member(*row))

    def token(self, purpose: str, member: Member) -> str:
        """Hexadecimal digits, as local parts may lose their case on the way."""
        words = f"{purpose} {member.team} {member.id}"
        return hmac.new(self._secret, words.encode(), hashlib.sha256).hexdigest()[:24]

    def address_of(self, member: Member) -> str:
        """What a member's copies come from, and where this member writes to."""
        return f"{member.team}+{member.id}.{self.token('post', member)}@{self.options.domain}"

    def link_of(self, member: Member) -> str:
        """Where this member leaves the group."""
        return f"{self.options.base_url}/leave/{member.id}.{self.token('leave', member)}"

    def member(self, purpose: str, text: str, team: str | None = None) -> Member | None:
        """The active member of "7.4e81c0..."; None when the token is not right for this purpose (and group)."""
        number, _, token = text.partition(".")
        if not (number.isascii() and number.isdecimal() and len(number) < 16):
            return None
        with self.database() as database:
            row = database.execute(
                "SELECT id, team, nick, address FROM member WHERE id = ? AND active", (int(number),)
            ).fetchone()
        if row is None:
            return None
        member = Member(*row)
        right = hmac.compare_digest(token.lower().encode(), self.token(purpose, member).encode())
        return member if right and team in (None, member.team) else None

    def leave(self, member: Member) -> None:
        """No more copies, and no more posts."""
        with self.database() as database:
            database.execute("UPDATE member SET active = 0 WHERE id = ?", (member.id,))
            database.execute("DELETE FROM copy WHERE member = ?", (member.id,))

    def bounced(self, member: Member) -> None:
        """A copy came back; who cannot be reached for long is no member any more."""
        with self.database() as database:
            database.execute(
                "UPDATE member SET bounces = bounces + 1, active = bounces + 1 < ? WHERE id = ?",
                (MOST_BOUNCES, member.id),
            )

    # -- posts -----------------------------------------------------------------------------------------------------

    def post(self, author: Member, mail, raw: bytes) -> int:
        """Keep a post, with a copy for every other member; how many.  A post that comes twice is kept once."""
        message_id = mail.headers.get("Message-ID") or hashlib.sha256(raw).hexdigest()
        body = mail.body(("plain",))
        with self.database() as database:
            members = [
                Member(*row)
                for row in database.execute(
                    "SELECT id, team, nick, address FROM member WHERE team = ? AND active", (author.team,)
                )
            ]
            text = self.without_addresses(body.text if body is not None else "", members)
            left_out = len(mail.attachments) + (body is None and mail.body(("html",)) is not None)
            if left_out:
                text = f"{text.rstrip()}\n\n[What is no plain text was left out: {left_out}]\n"
            subject = self.without_addresses(mail.headers.get("Subject", ""), members)
            subject = " ".join(subject.split())
            added = database.execute(
                "INSERT OR IGNORE INTO post (author, message_id, answers, subject, text) VALUES (?, ?, ?, ?, ?)",
                (author.id, message_id, self.answered(author, mail), subject, text),
            )
            if not added.rowcount:
                return 0
            others = [(added.lastrowid, member.id) for member in members if member.id != author.id]
            database.executemany("INSERT INTO copy VALUES (?, ?)", others)
        return len(others)

    def without_addresses(self, text: str, members: list[Member]) -> str:
        """
        The text without addresses of ours: a mail program quotes "Ada <course+7.4e81...> wrote", and who has that
        address can write as this member.  Without the links by which members leave, for the same reason, and
        without the addresses of members.
        """
        domain = re.escape(self.options.domain)
        text = re.sub(
            rf"{re.escape(self.options.base_url)}/leave/[0-9]+\.[0-9a-f]+", "...", text, flags=re.IGNORECASE
        )
        text = re.sub(rf"([a-z][a-z0-9-]*)\+[0-9]+\.[0-9a-f]+@{domain}", r"\1", text, flags=re.IGNORECASE)
        for member in members:
            text = re.sub(
                rf"(?<![\w.+-]){re.escape(member.address)}(?![\w-])", member.nick, text, flags=re.IGNORECASE
            )
        return text

    def message_id(self, post: int, member: int) -> str:
        """Of a copy.  It tells a mail program what belongs together, and nobody anything else."""
        return f"<{post}.{member}@{self.options.domain}>"

    def answered(self, author: Member, mail) -> int | None:
        """The post that a mail answers: it names the copy that its author got."""
        pattern = rf"<(\d{{1,15}})\.{author.id}@{re.escape(self.options.domain)}>"
        found = re.search(pattern, mail.headers.get("In-Reply-To") or "")
        return int(found[1]) if found else None

    # -- copies ----------------------------------------------------------------------------------------------------

    def send_all(self) -> int:
        """Send the copies that wait; how many were sent.  Raises OSError, SMTPException: the others wait on."""
        with self.database() as database:
            rows = database.execute(
                "SELECT post.id, post.answers, post.subject, post.text, author.nick, "
                "member.id, member.team, member.nick, member.address "
                "FROM copy JOIN post ON post.id = copy.post JOIN member ON member.id = copy.member "
                "JOIN member AS author ON author.id = post.author ORDER BY post.id, member.id"
            ).fetchall()
        if not rows:
            return 0
        sent = 0
        host, _, port = self.options.smarthost.rpartition(":")
        with smtplib.SMTP(host.strip("[]"), int(port), timeout=30) as client:
            for post, answers, subject, text, nick, *columns in rows:
                member = Member(*columns)
                mail = self.copy(member, post, answers, subject, text, nick)
                try:
                    client.sendmail(self.address_of(member), [member.address], encode(mail))
                except (smtplib.SMTPRecipientsRefused, smtplib.SMTPDataError) as error:
                    codes = getattr(error, "recipients", {member.address: (getattr(error, "smtp_code", 0), b"")})
                    if all(code < 500 for code, _ in codes.values()):
                        continue  # for a while: with the next round
                    self.bounced(member)
                with self.database() as database:
                    database.execute("DELETE FROM copy WHERE post = ? AND member = ?", (post, member.id))
                sent += 1
        return sent

    def copy(self, member: Member, post: int, answers: int | None, subject: str, text: str, nick: str) -> Mail:
        """What one member gets."""
        return Mail(
            from_=[NamedAddress(f"{nick} ({member.team})", self.address_of(member))],
            to=member.address,
            subject=subject,
            text=f"From: {nick}\n\n{text.rstrip()}\n\n-- \nLeave the group: {self.link_of(member)}\n",
            message_id=self.message_id(post, member.id),
            in_reply_to=self.message_id(answers, member.id) if answers is not None else "",
            headers=[
                ("List-Id", f"<{member.team}.{self.options.domain}>"),
                ("List-Unsubscribe", f"<{self.link_of(member)}>"),
                ("List-Unsubscribe-Post", "List-Unsubscribe=One-Click"),
            ],
        )


class Leave(Resource):
    """/leave/7.4e81...: POST leaves at once (RFC 8058 3.2), GET asks first and changes nothing."""

    isLeaf = True  # noqa: N815 - twisted.web's name

    def __init__(self, lists: Lists) -> None:
        super().__init__()
        self._lists = lists

    def _member(self, request) -> Member | None:
        path = [each.decode("ascii", "replace") for each in request.postpath]
        return self._lists.member("leave", path[0]) if len(path) == 1 else None

    def _page(self, request, status: int, text: str) -> bytes:
        request.setResponseCode(status)
        request.setHeader(b"content-type", b"text/html; charset=utf-8")
        request.setHeader(b"referrer-policy", b"no-referrer")
        return f"<!doctype html><title>Group</title><p>{text}</p>".encode()

    def render_GET(self, request) -> bytes:
        member = self._member(request)
        if member is None:
            return self._page(request, 404, "You are no member of this group.")
        form = "<form method=post><button>Leave</button></form>"
        return self._page(request, 200, f"Leave the group {html.escape(member.team)}? {form}")

    def render_POST(self, request) -> bytes:
        member = self._member(request)
        if member is None:
            return self._page(request, 404, "You are no member of this group.")
        self._lists.leave(member)
        return self._page(request, 200, "You have left the group.")


class Running:
    """What lives as long as the app: the groups, the web page, and who sends."""

    def __init__(self, options: Options) -> None:
        from twisted.internet import reactor

        self.lists = Lists(options)
        root = Resource()
        root.putChild(b"leave", Leave(self.lists))
        host, _, port = options.web.rpartition(":")
        self.port = reactor.listenTCP(int(port), Site(root), interface=host.strip("[]"))
        self._rounds = LoopingCall(self.send)
        self._sending = self._again = False
        self._rounds.start(RETRY)

    async def stop(self) -> None:
        """Send no more; listen no more."""
        self._rounds.stop()
        await maybeDeferred(self.port.stopListening)

    @property
    def is_busy(self) -> bool:
        """Is somebody sending?"""
        return self._sending

    def send(self) -> None:
        """Send what waits, one round after the other."""
        self._again = True
        if not self._sending:
            self._sending = True
            deferToThread(self._send).addBoth(self._sent)

    def _send(self) -> int:
        self._again = False
        return self.lists.send_all()

    def _sent(self, result) -> None:
        self._sending = False
        if not isinstance(result, int):
            log.warn("copies wait: {error}", error=result.getErrorMessage())
        elif self._again and self._rounds.running:
            self.send()


class GroupList(mailserver.App):
    """Waits for the database in a thread, while the reactor goes on."""

    Options = Options

    @classmethod
    def setup(cls, options):
        return Running(options)

    @classmethod
    async def teardown(cls, shared):
        await shared.stop()

    async def rcpt(self, recipient, parameters):
        lists = self.shared.lists
        if await deferToThread(lists.member, "post", recipient.detail, recipient.user.lower()) is None:
            self.refuse(550, "5.1.1", "There is no such member")

    async def message(self, envelope, message):
        mail, raw, lists = message.mime, message.read(), self.shared.lists
        automatic = envelope.sender is None or is_auto_submitted(mail.headers)
        copies = 0
        for recipient in envelope.recipients:
            address = recipient.address
            author = await deferToThread(lists.member, "post", address.detail, address.user.lower())
            if author is None:
                continue  # has left since RCPT
            if envelope.sender is None:
                await deferToThread(lists.bounced, author)
            elif not automatic:  # "I am away" is not for the group
                copies += await deferToThread(lists.post, author, mail, raw)
        self.shared.send()
        return f"{copies} copies"


def main(secret: str, database: str, command: str, team: str, nick: str, address: str) -> None:
    if command != "add":
        raise SystemExit("usage: group_list.py SECRET_FILE DATABASE add GROUP NICK ADDRESS")
    lists = Lists(Options(secret_file=Path(secret), database=Path(database)))
    print(f"{nick} writes to {lists.add(team, nick, address)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
