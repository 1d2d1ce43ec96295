"""The sample: every key is in it, it loads as it is, and it loads with every key in force."""

from __future__ import annotations

import pwd
import re
import tomllib
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import mailserver
from mailserver.config import Config, Listener, load
from mailserver.config.reading import TABLES, keys_of
from mailserver.config.sample import WIDTH, sample
from mailserver.limits import DEFAULT_LIMITS
from tests.config.pairs import make_folder, ordinary_user

# Keys for "unix:" addresses; the first listener of the sample has another.
FOR_UNIX = re.compile(r"^unix_(?:mode|owner) = .*$", re.MULTILINE)
# "#key = value" and "#[[table]]" are switched off; "# text" is a comment.
OFF = re.compile(r"^#(?! )", re.MULTILINE)

#: An app is one thing only; the sample shows all that it can be.
OTHER_APPS = re.compile(r"^(?:command|webhook|discard|reject|isolated) = .*\n", re.MULTILINE)
APP = """
import mailserver
from pydantic import BaseModel

class Tickets(mailserver.App):
    class Options(BaseModel):
        folder: str

    def message(self, envelope, message):
        raise NotImplementedError
"""


class SampleTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = make_folder(Path(self.mktemp()).absolute())

    def _load(self, text: str) -> Config:
        for old, new in (
            ("/var/lib/mailserver", "data"),
            ("/etc/mailserver/tls/fullchain.pem", "good.pem"),
            ("/etc/mailserver/tls/privkey.pem", "good.key"),
            ('user = "mailserver"', f'user = "{ordinary_user()}"'),
            ("/etc/mailserver/tls/client-ca.pem", "good.pem"),
            ('group = "mailserver"', 'group = "GROUP"'),
        ):
            self.assertIn(old, text)
            text = text.replace(old, new)
        text = text.replace('#group = "GROUP"', "").replace('group = "GROUP"', "")
        path = self.folder / "mailserver.toml"
        path.write_text(text, encoding="utf-8")
        return load(path)

    def test_it_loads_as_it_is(self) -> None:
        config = self._load(sample())
        self.assertEqual(config.warnings, ())
        self.assertEqual([item.name for item in config.listeners], ["smtp-25", "submission-587", "submission-465"])
        self.assertEqual([item.tls for item in config.listeners], ["starttls", "starttls", "implicit"])
        self.assertEqual(
            (config.limits, [domain.name for domain in config.domains]), (DEFAULT_LIMITS, ["example.org"])
        )

    def test_it_loads_with_every_key_in_force_and_the_defaults_are_the_defaults(self) -> None:
        (self.folder / "tickets.py").write_text(APP)
        config = self._load(OTHER_APPS.sub("", FOR_UNIX.sub("", OFF.sub("", sample()))))
        self.assertEqual(config.warnings, ())
        self.assertEqual(config.limits, DEFAULT_LIMITS)
        self.assertEqual(len(config.tls.certificates), 1)
        plain = self._load(sample())
        self.assertEqual((config.storage, config.auth), (plain.storage, plain.auth))
        self.assertEqual(config.tls.check_interval, plain.tls.check_interval)
        self.assertEqual(config.server.drain_timeout, plain.server.drain_timeout)
        first, same = config.listeners[0], plain.listeners[0]
        for key in set(keys_of(Listener)) - {"banner", "client_ca", "limits"}:  # which show examples
            self.assertEqual(getattr(first, key), getattr(same, key), key)

    def test_it_loads_with_the_keys_of_a_unix_socket(self) -> None:
        text = sample().replace('address = "25"', 'address = "unix:/run/x.sock"', 1)
        text = text.replace('#unix_owner = "mailserver:postfix"', f'unix_owner = "{pwd.getpwuid(0).pw_name}"')
        first = self._load(text.replace("#unix_mode", "unix_mode")).listeners[0]
        self.assertEqual((first.unix_mode, first.unix_owner), ("0600", "root"))

    def test_every_key_is_in_it(self) -> None:
        data = tomllib.loads(OFF.sub("", sample()))
        for name, table in TABLES.items():
            written = data[name][0] if isinstance(data[name], list) else data[name]
            self.assertEqual(set(written), set(keys_of(table)), name)

    def test_comments_are_not_too_wide(self) -> None:
        self.assertEqual([line for line in sample().splitlines() if line.startswith("# ") and len(line) > WIDTH], [])

    def test_the_file_in_the_repository_is_current(self) -> None:
        file = Path(mailserver.__file__).parent.parent / "etc" / "mailserver.toml"
        self.assertEqual(
            file.read_text(encoding="utf-8"),
            sample(),
            "run: mailserver config sample --force --output etc/mailserver.toml",
        )
