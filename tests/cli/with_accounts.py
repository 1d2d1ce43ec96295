"""The command line with a configuration file and a data directory of its own, for the tests of several commands."""

from __future__ import annotations

import os
from pathlib import Path

from click.testing import CliRunner, Result
from twisted.trial.unittest import SynchronousTestCase

from mailserver.accounts.database import FILE_NAME, AccountsDatabase
from mailserver.cli.main import mailserver

CONFIG = """\
[server]
hostname = "mail.example.org"
data_dir = "data"

[storage]
default_quota = "1 GiB"

[[listener]]
address = "127.0.0.1:2525"
protocol = "smtp"

[[domain]]
name = "example.org"
"""


class AccountsCommandCase(SynchronousTestCase):
    """`run` runs `mailserver` as a user would; `database` looks at what came of it."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.data = self.folder / "data"
        self.data.mkdir(parents=True, mode=0o700)
        self.config = self.folder / "mailserver.toml"
        self.config.write_text(CONFIG)
        self.options = ["--config", str(self.config)]
        self.patch(os, "environ", {"PATH": os.environ.get("PATH", "")})

    def run_command(self, *args: str, stdin: str | bytes = "") -> Result:
        """The result of `mailserver ARGS`; fails when it ended by an exception that is not an exit."""
        result = CliRunner().invoke(mailserver, [*self.options, *args], input=stdin)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    def works(self, *args: str, stdin: str | bytes = "") -> str:
        """Run it; exit status 0, and nothing on stderr but that an alias leads nowhere yet.  Returns stdout."""
        result = self.run_command(*args, stdin=stdin)
        told = [line for line in result.stderr.splitlines() if "neither an account nor an alias yet" not in line]
        self.assertEqual((result.exit_code, told), (0, []), args)
        return result.stdout

    def fails(self, *args: str, stdin: str | bytes = "") -> str:
        """Run it; exit status 1.  Returns stderr."""
        result = self.run_command(*args, stdin=stdin)
        self.assertEqual(result.exit_code, 1, (args, result.output))
        self.assertNotIn("Traceback", result.stderr)
        return result.stderr

    def add_account(self, address: str, password: str = "open sesame") -> None:
        self.works("account", "add", address, "--password-stdin", stdin=password + "\n")

    @property
    def database(self) -> AccountsDatabase:
        database = AccountsDatabase(self.data / FILE_NAME)
        self.addCleanup(database.close)
        return database

    def write(self, name: str, text: str | bytes) -> str:
        """A file in the folder; returns its path."""
        path = self.folder / name
        with open(path, "wb") as stream:
            stream.write(text if isinstance(text, bytes) else text.encode())
        return str(path)
