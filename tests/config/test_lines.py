"""Lines of keys: tables of tricky TOML first, then generated files against what was written."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver.config.lines import KeyPath, scan
from mailserver.config.quantities import toml

CASES: list[tuple[str, str, dict[KeyPath, int]]] = [
    ("keys and tables", "a = 1\n\n[t] # c\nb = 2\n", {("a",): 1, ("t",): 3, ("t", "b"): 4}),
    ("dotted keys", "a.b . 'c d' = 1\na.\"e.f\"=2\n", {("a",): 1, ("a", "b"): 1, ("a", "b", "c d"): 1, ("a", "e.f"): 2}),
    ("a key with escapes", '"a\\"\\u00e9\\U0001F600\\n" = 1\n', {('a"é\U0001f600\n',): 1}),
    ("an empty key", '\n"" = 1\n', {("",): 2}),
    (
        "arrays of tables",
        "[[l]]\na = 1\n[[l]]\n[l.x]\nb = 2\n[[l.y]]\n[[l.y]]\nc = 3\n[ l . y . z ]\n",
        {("l",): 1, ("l", 0): 1, ("l", 0, "a"): 2, ("l", 1): 3, ("l", 1, "x"): 4, ("l", 1, "x", "b"): 5,
         ("l", 1, "y"): 6, ("l", 1, "y", 0): 6, ("l", 1, "y", 1): 7, ("l", 1, "y", 1, "c"): 8,
         ("l", 1, "y", 1, "z"): 9},
    ),
    ("a parent that is written later", "[a.b]\nc = 1\n[a]\nd = 2\n",
     {("a",): 3, ("a", "b"): 1, ("a", "b", "c"): 2, ("a", "d"): 4}),
    ("an array over several lines", "a = [ # [\n  1, # ]\n\n  '],',\n  [2,\n3],\n]\nb = 1\n",
     {("a",): 1, ("a", 0): 2, ("a", 1): 4, ("a", 2): 5, ("a", 2, 0): 5, ("a", 2, 1): 6, ("b",): 8}),
    ("inline tables", "a = { b = { c = 1, d.e = [{}, {f = 2}] }, 'g}' = '}' }\nh = {}\n",
     {("a",): 1, ("a", "b"): 1, ("a", "b", "c"): 1, ("a", "b", "d"): 1, ("a", "b", "d", "e"): 1,
      ("a", "b", "d", "e", 0): 1, ("a", "b", "d", "e", 1): 1, ("a", "b", "d", "e", 1, "f"): 1,
      ("a", "g}"): 1, ("h",): 2}),
    ("basic strings over several lines", 'a = """\n[x]\nb = 2\n\\"""" # c\nd = """e"""""\nf = 1\n',
     {("a",): 1, ("d",): 5, ("f",): 6}),
    ("literal strings over several lines", "a = '''\n[x]\n\\''''\nd = ''''e'''''\nf = ''''''\ng = 1\n",
     {("a",): 1, ("d",): 4, ("f",): 5, ("g",): 6}),
    ("strings that look like others", "a = ''\nb = \"\"\nc = \"'\" # \"\nd = '\\'\ne = \"\\\\\"\n",
     {("a",): 1, ("b",): 2, ("c",): 3, ("d",): 4, ("e",): 5}),
    ("dates, numbers, truth", "a = 1979-05-27 07:32:00Z\nb = [ 1e5 , inf,true ]\nc = 07:32:00 # x\n",
     {("a",): 1, ("b",): 2, ("b", 0): 2, ("b", 1): 2, ("b", 2): 2, ("c",): 3}),
    ("no line end at the end", "a = 1\nb = 2", {("a",): 1, ("b",): 2}),
    ("CRLF", "a = 1\r\n[b]\r\nc = [\r\n1]\r\n", {("a",): 1, ("b",): 2, ("b", "c"): 3, ("b", "c", 0): 4}),
]  # fmt: skip

KEYS = st.sampled_from(["a", "b", "c-d", "1", "x y", "é", 'q"t', "", "=", "]", "#"])
SCALARS = (
    st.integers(-99, 99) | st.booleans() | st.text(max_size=8) | st.sampled_from(["[x]", "\n", "'''", '"""', "#"])
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=6,
)
TABLES = st.dictionaries(KEYS, VALUES, max_size=4)
DOCUMENTS = st.dictionaries(KEYS, TABLES | st.lists(TABLES, min_size=1, max_size=3), max_size=4)


@dataclass
class Writer:
    """Writes TOML, and notes on which line it wrote what."""

    draw: Any
    text: str = ""
    lines: dict[KeyPath, int] = field(default_factory=dict)

    def note(self, path: KeyPath) -> None:
        self.lines[path] = self.text.count("\n") + 1

    def key(self, key: str) -> str:
        if "'" not in key and key.isprintable() and self.draw(st.booleans()):
            return f"'{key}'"
        return key if key.isascii() and key.replace("-", "").isalnum() and self.draw(st.booleans()) else toml(key)

    def space(self) -> None:
        self.text += self.draw(st.sampled_from(["", " ", "\n", " # ] } ' \"\n", "\n\n\t"]))

    def value(self, path: KeyPath, value: Any) -> None:
        if isinstance(value, list):
            self.text += "["
            for number, item in enumerate(value):
                self.space()
                self.note((*path, number))
                self.value((*path, number), item)
                self.space()
                self.text += "," if number < len(value) - 1 or self.draw(st.booleans()) else ""
            self.space()
            self.text += "]"
        elif isinstance(value, dict):
            self.text += "{"
            for number, (key, item) in enumerate(value.items()):
                self.text += ", " * (number > 0)
                self.note((*path, key))
                self.text += f"{self.key(key)} = "
                self.value((*path, key), item)
            self.text += " }"
        elif isinstance(value, str) and value.isprintable() and "'" not in value and self.draw(st.booleans()):
            self.text += self.draw(st.sampled_from(["'{}'", "'''\n{}'''", "'''{}'''"])).format(value)
        elif isinstance(value, str) and self.draw(st.booleans()):
            self.text += f'"""{self.draw(st.sampled_from(["", chr(10)]))}{toml(value)[1:-1]}"""'
        else:
            self.text += toml(value)

    def table(self, path: KeyPath, table: dict[str, Any]) -> None:
        for key, value in table.items():
            self.note((*path, key))
            self.text += f"{self.key(key)}="
            self.value((*path, key), value)
            self.text += self.draw(st.sampled_from(["\n", " # '\"\n", "\n\n"]))

    def document(self, document: dict[str, Any]) -> None:
        for name, value in document.items():
            several = isinstance(value, list)
            for number, table in enumerate(value if several else [value]):
                if not number:
                    self.note((name,))
                path = (name, number) if several else (name,)
                self.note(path)
                self.text += f"[[ {self.key(name)} ]]\n" if several else f"[{self.key(name)}] # [c]\n"
                self.table(path, table)


def paths_in(value: Any, path: KeyPath = ()) -> set[KeyPath]:
    """Every key path of a parsed file."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = {path} if path else set()
    return found.union(*(paths_in(item, (*path, key)) for key, item in items))


class ScanTests(SynchronousTestCase):
    def test_tricky_files(self) -> None:
        for name, text, expected in CASES:
            with self.subTest(name):
                self.assertEqual(paths_in(tomllib.loads(text)), set(expected))
                self.assertEqual(dict(scan(text).table), expected)

    @settings(deadline=None, max_examples=200)
    @given(st.data(), DOCUMENTS)
    def test_every_key_is_found_where_it_was_written(self, data: st.DataObject, document: dict[str, Any]) -> None:
        writer = Writer(data.draw)
        writer.document(document)
        self.assertEqual(paths_in(tomllib.loads(writer.text)), set(writer.lines))
        self.assertEqual(dict(scan(writer.text).table), writer.lines)

    @settings(deadline=None, max_examples=200)
    @given(st.text("[]{}=\"'\n.ab0 #,\\", max_size=60))
    def test_text_that_is_no_toml_is_refused_or_scanned_but_never_loops(self, text: str) -> None:
        try:
            parsed = tomllib.loads(text)
        except tomllib.TOMLDecodeError:
            parsed = None
        try:
            found = set(scan(text).table)
        except ValueError:
            self.assertIsNone(parsed)
        else:
            self.assertTrue(parsed is None or paths_in(parsed) == found)


class LinesTests(SynchronousTestCase):
    def test_what_is_missing_stands_at_the_nearest_table(self) -> None:
        lines = scan("\n[a]\n[[a.b]]\nc = 1\n")
        for path, line in (
            (("a", "b", 0, "c"), 4), (("a", "b", 0, "x"), 3), (("a", "x", "y"), 2), (("x",), 1), ((), 1),
        ):  # fmt: skip
            self.assertEqual(lines.of(path), line)

    def test_only_what_is_written_is_in_it(self) -> None:
        lines = scan("[a]\nb = 1\n")
        self.assertIn(("a", "b"), lines)
        self.assertNotIn(("a", "c"), lines)
