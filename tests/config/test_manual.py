"""The manual: every key and every limit is in it, its tables are tables, and the page in the repository is current."""

from __future__ import annotations

import dataclasses
import re
import tomllib
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import mailserver
from mailserver.config import load
from mailserver.config.manual import manual
from mailserver.config.reading import ARRAYS, TABLES, keys_of
from mailserver.limits import AUTH_TOGETHER, COUNTED_TOGETHER, Limits
from tests.config.pairs import make_folder

#: A row of a table whose first cell is a key: key, other cells.
ROW = re.compile(r"^\| `(\w+)` \| (.*) \|$", re.MULTILINE)


def section(heading: str) -> str:
    """The text from this heading to the next."""
    return manual().split(f"\n## `{heading}`\n", 1)[1].split("\n## ", 1)[0]


def rows(text: str) -> dict[str, list[str]]:
    """key -> the other cells of its row."""
    return {key: re.split(r"(?<!\\) ?\| ?", rest) for key, rest in ROW.findall(text)}


class ManualTests(SynchronousTestCase):
    def test_every_key_is_in_it_in_its_table(self) -> None:
        for name, table in TABLES.items():
            heading = f"[[{name}]]" if name in ARRAYS else f"[{name}]"
            keys = set(keys_of(table)) - {"certificate"}  # which has a section of its own
            self.assertEqual(set(rows(section(heading))), keys, name)
        self.assertEqual(set(rows(section("[[tls.certificate]]"))), {"certificate", "key"})

    def test_a_row_has_four_cells(self) -> None:
        found = rows(manual())
        self.assertGreater(len(found), 50)
        self.assertEqual({key: cells for key, cells in found.items() if len(cells) != 3}, {})

    def test_values_and_defaults(self) -> None:
        for heading, key, values, default in (
            ("[server]", "data_dir", "path", '`"/var/lib/mailserver"`'),
            ("[server]", "log_format", '`"text"`, `"json"`', '`"text"`'),
            ("[server]", "user", "text", ""),
            ("[server]", "drain_timeout", "time, 0 s to 1 h", '`"30 s"`'),
            ("[storage]", "default_quota", "size, 0 octets to 1,024 TiB", "`0`"),
            (
                "[auth]",
                "mechanisms",
                "list of texts",
                '`["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "PLAIN", "LOGIN", "CRAM-MD5"]`',
            ),
            ("[[listener]]", "unix_mode", "text", '`"0600"`'),
            ("[[listener]]", "unix_owner", "text", ""),
            ("[[listener]]", "client_ca", "path", ""),
            ("[[listener]]", "banner_delay", "time, 0 s to 1 min", '`"0 s"`'),
            ("[[listener]]", "trusted_proxies", "list of texts", "`[]`"),
            ("[[listener]]", "address", "text", "must be given"),
            ("[[listener]]", "allow_insecure_auth", "`true`, `false`", "`false`"),
            ("[[listener]]", "tls", '`"starttls"`, `"implicit"`, `"off"`', ""),
            ("[[listener]]", "limits", "table", ""),
        ):
            self.assertEqual(rows(section(heading))[key][:2], [values, default], key)

    def test_limits_stand_with_default_range_and_reason(self) -> None:
        text = section("[limits]")
        self.assertEqual(rows(text)["message_size"][:2], ['`"50 MiB"`', "64 KiB to 1 TiB"])
        self.assertEqual(rows(text)["command_timeout"][:2], ['`"5 min"`', "1 s to 1 h"])
        for about in dataclasses.fields(Limits):
            self.assertTrue(rows(text)[about.name][2].endswith("."), about.name)

    def test_limits_that_are_counted_over_all_listeners_stand_apart(self) -> None:
        _, apart = section("[limits]").split("counted over all listeners together")
        self.assertEqual(set(rows(apart)), {*COUNTED_TOGETHER, *AUTH_TOGETHER})

    def test_text_cannot_break_a_table(self) -> None:
        self.assertIn(r"mail for \<postmaster>", section("[server]"))

    def test_its_examples_are_good_configurations(self) -> None:
        folder = make_folder(Path(self.mktemp()).absolute())
        whole, listener = re.findall(r"```toml\n(.*?)```", manual(), re.DOTALL)
        self.assertIn("listener", tomllib.loads(listener))
        text = whole.replace("/var/lib/mailserver", "data") + listener
        path = folder / "mailserver.toml"
        path.write_text(text, encoding="utf-8")
        config = load(path)
        self.assertEqual(config.warnings, ())
        self.assertEqual([each.limits.recipients for each in config.listeners], [1000, 1000, 200])

    def test_the_page_in_the_repository_is_current(self) -> None:
        file = Path(mailserver.__file__).parent.parent / "docs" / "configuration.md"
        self.assertEqual(
            file.read_text(encoding="utf-8"),
            manual(),
            "run: mailserver config manual --force --output docs/configuration.md",
        )
