"""From TOML to classes: names of listeners, suggestions, and that one bad table does not hide another."""

from __future__ import annotations

import dataclasses
import tomllib
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver.config.classes import Listener
from mailserver.config.lines import Lines, scan
from mailserver.config.origins import Places
from mailserver.config.reading import TABLES, Parts, _explain, keys_of, read
from mailserver.limits import Limits


def reading(text: str) -> tuple[Parts, list[str]]:
    parts, problems = read(tomllib.loads(text), Places("f", scan(text)), Path("/srv"))
    return parts, [f"{problem.line}: {problem.key}: {problem.text}" for problem in problems]


class NameTests(SynchronousTestCase):
    def test_names_are_made_of_protocol_and_address(self) -> None:
        for address, name in (
            ('"127.0.0.1:25"', "smtp-25"), ("587", "smtp-587"), ('"unix:/run/x"', "smtp-unix"),
            ('"systemd:mx"', "smtp-mx"), ('"systemd:a b"', "listener-1"), ('"nonsense"', "listener-1"),
        ):  # fmt: skip
            parts, _ = reading(f'[[listener]]\naddress = {address}\nprotocol = "smtp"\n')
            self.assertEqual(parts.names, {("listener", 0): name})

    def test_a_protocol_that_is_no_name_makes_none(self) -> None:
        parts, _ = reading('[[listener]]\naddress = 25\nprotocol = "a b"\n')
        self.assertEqual(parts.names, {("listener", 0): "listener-1"})

    def test_they_are_unique(self) -> None:
        table = '[[listener]]\naddress = 25\nprotocol = "smtp"\n'
        parts, problems = reading(table * 3 + 'name = "smtp-25-2"\n')
        self.assertEqual(list(parts.names.values()), ["smtp-25", "smtp-25-3", "smtp-25-2"])
        self.assertEqual(problems, [])


class SuggestionTests(SynchronousTestCase):
    def test_unknown_keys(self) -> None:
        for text, suggestion in (
            ("[listen]\n", "did you mean [[listener]]?"),
            ("[domains]\n", "did you mean [[domain]]?"),
            ("[Server]\n", "did you mean [server]?"),
            ("data_dir = 1\n", "it belongs into [server]"),
            ("[tls]\nminimum_verson = 1\n", 'did you mean "minimum_version"?'),
            ("[tls]\ncatch_all = 1\n", "it belongs into [[domain]]"),
            ("[tls]\ncertificates = []\n", 'did you mean "certificate"?'),
            ("[auth]\nzzz = 1\n", "the keys here are mechanisms"),
        ):
            with self.subTest(text):
                _, problems = reading(text)
                self.assertEqual(len(problems), 1)
                self.assertTrue(problems[0].endswith(f"unknown key; {suggestion}"), problems[0])


class PartsTests(SynchronousTestCase):
    def test_a_bad_key_does_not_hide_the_others_of_its_table(self) -> None:
        parts, problems = reading(
            '[server]\nhostname = 5\ndata_dir = "d"\nlog_format = "json"\n[tls]\ncheck_interval = -1\n'
        )
        self.assertEqual((str(parts.server.data_dir), parts.server.log_format), ("/srv/d", "json"))
        self.assertEqual(parts.tls.check_interval, 60.0)
        self.assertEqual([problem.split(": ")[1] for problem in problems], ["server.hostname", "tls.check_interval"])

    def test_a_bad_limit_stays_as_it_was_and_the_good_ones_hold(self) -> None:
        parts, problems = reading("[limits]\nerrors = 0\nrecipients = 200\n")
        self.assertEqual((parts.limits.errors, parts.limits.recipients, len(problems)), (20, 200, 1))

    def test_a_bad_listener_is_left_out_and_the_good_one_is_there(self) -> None:
        parts, problems = reading(
            '[[listener]]\naddress = "x"\nprotocol = "smtp"\n[[listener]]\naddress = 26\nprotocol = "smtp"\n'
        )
        self.assertEqual((list(parts.listeners), len(problems)), ([("listener", 1)], 1))

    def test_what_only_the_program_sets_is_no_key(self) -> None:
        self.assertNotIn("next_free_port", keys_of(TABLES["listener"]))
        self.assertEqual(keys_of(TABLES["tls"]), ("minimum_version", "check_interval", "certificate"))

    def test_each_limit_takes_its_ends_and_nothing_beyond(self) -> None:
        for about in dataclasses.fields(Limits):
            least, most = about.metadata["least"], about.metadata["most"]
            for value, problems in ((least, 0), (most, 0), (least - 1, 1), (most + 1, 1)):
                with self.subTest(f"{about.name} = {value}"):
                    parts, found = reading(f"[limits]\n{about.name} = {value}\n")
                    self.assertEqual(len(found), problems)
                    if not problems:
                        self.assertEqual(getattr(parts.limits, about.name), value)

    def test_what_pydantic_says_otherwise_is_told_as_it_is(self) -> None:
        details: Any = {"type": "int_type", "loc": ("line",), "msg": "Input should be a number", "input": "x"}
        self.assertEqual(_explain(details, Listener), "Input should be a number")

    @settings(deadline=None, max_examples=200)
    @given(
        st.dictionaries(
            st.sampled_from(list(TABLES)),
            st.recursive(
                st.integers() | st.booleans() | st.text(max_size=5) | st.floats(),
                lambda inner: (
                    st.lists(inner, max_size=3)
                    | st.dictionaries(
                        st.sampled_from(
                            ["hostname", "address", "protocol", "limits", "errors", "certificate", "name"]
                        ),
                        inner,
                        max_size=4,
                    )
                ),
                max_leaves=10,
            ),
        )
    )
    def test_whatever_the_values_are_there_are_parts_and_problems(self, data: dict[str, Any]) -> None:
        parts, problems = read(data, Places("f", Lines({})), Path("/srv"))
        self.assertIsInstance(parts, Parts)
        self.assertTrue(all(problem.text for problem in problems))
