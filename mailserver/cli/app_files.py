"""
What `mailserver app new` writes: an app that works, its test, its configuration.

In: a name, a folder.  Out: three new files.
Failures: `FilesError` says what is in the way; then nothing is written.
"""

from __future__ import annotations

import keyword
import re
import sys
from pathlib import Path

#: Modules that a file of the same name would hide from the app and its test.
_TAKEN = frozenset({"mailserver", "twisted", "pydantic", "zope", "click"}) | sys.stdlib_module_names
_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}\Z")

APP = '''\
"""An app for mailserver: keeps each mail to @NAME@+WORD@example.org in a file."""

import os
from pathlib import Path

import mailserver
from pydantic import BaseModel


class Options(BaseModel):
    folder: Path = Path("@NAME@-mail")
    closed: list[str] = ["spam"]


class @CLASS@(mailserver.App):
    Options = Options

    async def rcpt(self, recipient, parameters):
        # Of "@NAME@+spam@example.org" the detail is "spam".
        if recipient.detail in self.options.closed:
            self.refuse(550, "5.1.1", "Nobody reads this")

    async def message(self, envelope, message):
        self.options.folder.mkdir(exist_ok=True)
        path = self.options.folder / f"{envelope.id}.eml"
        with path.open("xb") as file:
            async for block in message.blocks():
                file.write(block)
            file.flush()
            os.fsync(file.fileno())  # the client's 250 promises that it is safe
        return f"Kept as {path.name}"
'''

TEST = '''\
"""Run it:  python -m unittest test_@NAME@   (or python -m twisted.trial test_@NAME@)"""

import smtplib
import tempfile
import unittest
from pathlib import Path

from mailserver import start, stop

from @NAME@ import @CLASS@

MAIL = "Subject: a test\\n\\nIt works."


class @CLASS@Tests(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.kept = Path(folder.name)
        self.server = start(@CLASS@, "127.0.0.1:0", options={"folder": folder.name})
        self.addCleanup(stop)

    def send(self, recipient):
        with smtplib.SMTP("127.0.0.1", self.server.ports[0], timeout=20) as client:
            client.sendmail("me@example.net", recipient, MAIL)

    def test_a_message_is_kept(self):
        self.send("@NAME@+hello@example.org")
        (path,) = self.kept.iterdir()
        self.assertIn("It works.", path.read_text())

    def test_what_is_closed_is_refused(self):
        with self.assertRaises(smtplib.SMTPRecipientsRefused) as refused:
            self.send("@NAME@+spam@example.org")
        (reply,) = refused.exception.recipients.values()
        self.assertEqual(reply[0], 550)
        self.assertEqual(list(self.kept.iterdir()), [])
'''

CONFIGURATION = """\
# Check it:  mailserver --config @NAME@.toml config check
# Run it:    twistd --nodaemon mailserver --config @NAME@.toml
# Both on this machine only; docs/operation.md of mailserver leads to a real server.

[server]
hostname = "localhost"
data_dir = "@NAME@-data"

[[listener]]
address = "127.0.0.1:2525"
protocol = "smtp"

[[app]]
name = "@NAME@"
python = "@NAME@.py:@CLASS@"
match = { recipients = "@NAME@+*@example.org" }
options = { folder = "@NAME@-mail", closed = ["spam"] }
"""


class FilesError(Exception):
    """The files cannot be written; `str()` says why."""


def class_name(name: str) -> str:
    """ "ticket_desk" -> "TicketDesk"."""
    return "".join(word.capitalize() for word in name.split("_"))


def files(name: str) -> dict[str, str]:
    """
    Name of a file -> what stands in it, the app first.

    Raises FilesError: the name cannot be that of an app.
    """
    if not _NAME.match(name) or name.endswith("_") or "__" in name:
        raise FilesError(f'"{name}" is no name for an app: small letters, digits and "_", such as "tickets"')
    if keyword.iskeyword(name) or name in _TAKEN or name.startswith("test_"):
        raise FilesError(f'"{name}" is the name of something else in Python; take another one')
    texts = {f"{name}.py": APP, f"test_{name}.py": TEST, f"{name}.toml": CONFIGURATION}
    return {file: text.replace("@NAME@", name).replace("@CLASS@", class_name(name)) for file, text in texts.items()}


def write(name: str, folder: Path) -> list[Path]:
    """
    Write them into a folder, which is made when it is missing; their paths.

    Raises FilesError; no file is replaced, and none is written when one is in the way.
    """
    texts = files(name)
    for file in texts:
        if (folder / file).exists() or (folder / file).is_symlink():
            raise FilesError(f"{folder / file} is there already; take another name, or --folder")
    made = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file, text in texts.items():
            with (folder / file).open("x", encoding="utf-8") as stream:
                stream.write(text)
            made.append(folder / file)
    except OSError as error:
        for path in made:
            path.unlink(missing_ok=True)
        raise FilesError(f"{error.filename or folder}: {error.strerror}") from error
    return made
