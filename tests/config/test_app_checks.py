"""What is said of apps that cannot be used, with their lines."""

from __future__ import annotations

import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from mailserver.config import ConfigError, load

GOOD = """
import mailserver
from pydantic import BaseModel

class Tickets(mailserver.App):
    class Options(BaseModel):
        folder: str = "x"

    def message(self, envelope, message):
        raise NotImplementedError

class Judge(mailserver.App):
    def rcpt(self, recipient, parameters):
        raise NotImplementedError
"""
START = """\
[server]
hostname = "mail.example.org"
data_dir = "data"
[[listener]]
address = "127.0.0.1:2525"
protocol = "smtp"
[[app]]
"""
#: keys of an app's table from line 8 on, the problems (without the file's name)
BAD = [
    ('name = "x"', ["8: app.x.name: needs one of python, command, webhook, discard and reject"]),
    (
        'name = "x"\npython = "tickets.py:Tickets"\ndiscard = true',
        ["10: app.x.discard: needs one of python, command, webhook, discard and reject, and only one"],
    ),
    (
        'name = "x"\npython = "missing.py:Tickets"',
        ["9: app.x.python: {folder}/missing.py: No such file or directory"],
    ),
    (
        'name = "x"\npython = "tickets.py:Ticket"',
        ['9: app.x.python: "tickets.py" has no class Ticket; it has Tickets, Judge'],
    ),
    ('name = "x y"\npython = "tickets.py:Judge"', ["8: app[1].name: must be letters"]),
    ('python = "tickets.py:Judge"', ['7: app[1].name: is missing; write for example name = "tickets"']),
    (
        'name = "x"\npython = "tickets.py:Judge"\noptions = { a = 1 }',
        ["10: app.x.options: Judge takes no options (it has no Options)"],
    ),
    (
        'name = "x"\npython = "tickets.py:Tickets"\noptions = { folder = 1 }\nmatch = { recipients = "*" }',
        ["10: app.x.options.folder: Input should be a valid string"],
    ),
    (
        'name = "x"\npython = "tickets.py:Tickets"',
        ["7: app.x.match: takes mail, so it needs recipients"],
    ),
    (
        'name = "x"\npython = "tickets.py:Tickets"\nmatch = { recipients = "example.org" }',
        ['10: app.x.match.recipients[1]: "example.org" has no "@"'],
    ),
    (
        'name = "x"\npython = "tickets.py:Judge"\nmatch = { recipient = "a@example.org" }',
        ['10: app.x.match.recipient: unknown key; did you mean "recipients"?'],
    ),
    (
        'name = "x"\npython = "tickets.py:Judge"\nmatch = { listener = "smtp-26" }',
        ['10: app.x.match.listener: there is no listener "smtp-26"; there are: smtp-2525'],
    ),
    ('name = "x"\npython = "tickets.py:Judge"\nmatch = "all"', ["10: app.x.match: must be a table in braces"]),
    ('name = "x"\npython = "tickets.py:Judge"\ntimeout = 0', ["10: app.x.timeout: must be from 1 s to 1 h"]),
    (
        'name = "x"\npython = "tickets.py:Judge"\n[[app]]\nname = "x"\npython = "tickets.py:Judge"',
        ['11: app.x.name: duplicate name: there is another app "x"'],
    ),
]


class AppChecksTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        (self.folder / "tickets.py").write_text(GOOD)
        (self.folder / "tickets.py").chmod(0o644)
        self.path = self.folder / "mailserver.toml"

    def problems(self, keys: str) -> list[str]:
        self.path.write_text(START + keys + "\n")
        error = self.assertRaises(ConfigError, load, self.path)
        return [str(problem).removeprefix(f"{self.path}:") for problem in error.problems if not problem.warning]

    def test_every_bad_app_gets_its_message(self) -> None:
        for keys, expected in BAD:
            found = self.problems(keys)
            self.assertEqual(len(found), len(expected), f"{keys}: {found}")
            for problem, start in zip(found, expected, strict=True):
                wanted = start.replace("{folder}", str(self.folder))
                self.assertTrue(problem.startswith(wanted), f"{keys}:\n{problem}\n{wanted}")

    def test_a_good_one(self) -> None:
        self.path.write_text(
            START
            + 'name = "tickets"\npython = "tickets.py:Tickets"\nmatch = { recipients = "tickets+*@example.org" }\n'
        )
        config = load(self.path)
        self.assertEqual([app.name for app in config.apps], ["tickets"])
        self.assertEqual(config.apps[0].match.recipients, ("tickets+*@example.org",))
        self.assertEqual(config.warnings, ())

    def test_a_file_that_everybody_can_write_is_warned_of(self) -> None:
        os.chmod(self.folder / "tickets.py", 0o666)
        self.path.write_text(START + 'name = "j"\npython = "tickets.py:Judge"\n')
        (warning,) = load(self.path).warnings
        self.assertIn("can be written by everybody", str(warning))

    def test_a_program_that_is_not_there_is_warned_of(self) -> None:
        for run, count in (("/no/such/program", 1), ("no-such-program-anywhere", 1), ("true", 0)):
            self.path.write_text(
                START + f'name = "c"\ncommand = {{ run = "{run}" }}\nmatch = {{ recipients = "c@example.org" }}\n'
            )
            warnings = [str(each) for each in load(self.path).warnings if "no program" in str(each)]
            self.assertEqual(len(warnings), count, run)
            self.assertTrue(
                all(f":9: app.c.command.run: warning: there is no program {run}" in each for each in warnings)
            )

    def test_secrets_in_options_are_not_shown(self) -> None:
        (self.folder / "tickets.py").write_text(GOOD.replace("folder: str = ", "secret: str = "))
        self.path.write_text(
            START + 'name = "t"\npython = "tickets.py:Tickets"\noptions = { secret = "s3cret" }\n'
            'match = { recipients = "*@example.org" }\n'
        )
        shown = str(load(self.path).effective)
        self.assertNotIn("s3cret", shown)
        self.assertIn("***", shown)
