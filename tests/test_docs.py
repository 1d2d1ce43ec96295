"""
The pages tell the truth: the map names every file, standards and dependencies are listed, commands exist.

That links lead somewhere and files that are named exist is tested in tests/test_architecture.py; that the generated pages
are current in tests/config/test_sample.py and tests/config/test_manual.py.
"""

from __future__ import annotations

import ast
import configparser
import dataclasses
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path

from click.testing import CliRunner
from twisted.trial.unittest import SynchronousTestCase

from mailserver.cli.main import mailserver
from mailserver.config.classes import TLS, AppTable, Auth, Domain, Listener, Server, Storage
from mailserver.limits import Limits

ROOT = Path(__file__).resolve().parent.parent
#: Table of the configuration -> its keys.
KEYS = {
    **{
        name: {field.alias or key for key, field in table.model_fields.items()}
        for name, table in (
            ("server", Server),
            ("tls", TLS),
            ("storage", Storage),
            ("auth", Auth),
            ("listener", Listener),
            ("domain", Domain),
            ("app", AppTable),
        )
    },
    "limits": {field.name for field in dataclasses.fields(Limits)},
}
STATUSES = ("done", "in part", "used", "named")


def pages() -> list[Path]:
    """Every page."""
    return sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("bench/*.md")])


def modules() -> list[str]:
    """Every module of the package, as a path from the root."""
    found = (path for path in (ROOT / "mailserver").rglob("*.py") if "__pycache__" not in path.parts)
    return sorted(str(path.relative_to(ROOT)) for path in found)


def cited(text: str) -> set[int]:
    """The numbers of the RFCs that a text names: "RFC 5321 4.1", "RFC 2034 and 3463", "RFC 5321 (SMTP), 1870 (SIZE)"."""
    text = re.sub(r"[\s#]+", " ", text)
    found = set()
    for match in re.finditer(r"RFCs? (\d{3,5})\b", text):
        found.add(int(match[1]))
        # What follows goes on as a list: without brackets and sections, numbers behind ", " or " and ".
        rest = re.sub(r"\([^)]*\)", "", text[match.end() : match.end() + 300])
        rest = re.sub(r"^(?: \d[\d.]*\d(?:, \d+\.[\d.]*\d)*)? ?", "", rest)
        while following := re.match(r"(?:, | ?and |-)(\d{4})\b(?![.,]\d) ?", rest):
            found.add(int(following[1]))
            rest = rest[following.end() :]
    return found


def listed() -> dict[int, str]:
    """RFC number -> status, as docs/rfc.md has them."""
    text = (ROOT / "docs" / "rfc.md").read_text("utf-8")
    return {
        int(number): status for number, status in re.findall(r"^\| (\d+) \| [^|]+ \| ([^|]+) \|$", text, re.MULTILINE)
    }


def unfulfilled() -> list[list[str]]:
    """The rows of the second part of docs/rfc.md: RFC and section, level, what is asked for, why not."""
    text = (ROOT / "docs" / "rfc.md").read_text("utf-8").split("# What is not fulfilled")[1]
    rows = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in rows if row[0].strip() not in ("where", "---")]


def shell_lines() -> Iterator[tuple[str, str]]:
    """(page, command) of every line in a block of shell commands."""
    for path in pages():
        for block in re.findall(r"^```sh\n(.*?)^```", path.read_text("utf-8"), re.MULTILINE | re.DOTALL):
            for line in block.splitlines():
                yield path.name, line


class OverviewTests(SynchronousTestCase):
    maxDiff = None

    def setUp(self) -> None:
        self.text = (ROOT / "OVERVIEW.md").read_text("utf-8")

    def test_every_module_has_its_line(self) -> None:
        rows = re.findall(r"^\| `([\w/.]+\.py)` \| .+ \|$", self.text, re.MULTILINE)
        self.assertEqual(sorted(rows), modules())

    def test_every_file_that_is_named_exists(self) -> None:
        named = set(re.findall(r"`([\w./]+/[\w.]*)`", self.text)) - {"tmp/", "new/", "smtp/session", "smtp/server"}
        self.assertGreater(len(named), 50)
        self.assertEqual(sorted(name for name in named if not (ROOT / name).exists() and name != "delivery/"), [])

    def test_names_of_the_code_exist(self) -> None:
        code = "\n".join((ROOT / path).read_text("utf-8") for path in modules())
        walks = self.text.split("## One question at a time")[1].split("## Where this differs")[0]
        names = set(re.findall(r"`([A-Za-z_][A-Za-z0-9_.]*)(?:\([^`]*\))?`", walks))
        lost = [name for name in sorted(names) if not re.search(rf"\b{re.escape(name.split('.')[-1])}\b", code)]
        self.assertEqual([name for name in lost if not (ROOT / name).exists() and name != "server.py"], [])


class StandardsTests(SynchronousTestCase):
    def test_citations_are_understood(self) -> None:
        for text, numbers in (
            ("RFC 5321 4.1.2 (grammar), 4.1.3 (literals); RFC 6531 3.3", {5321, 6531}),
            ("RFC 2034 and 3463", {2034, 3463}),
            ("RFC 5321 (SMTP), 1870 (SIZE), 2034 and 3463\n(codes), 3207", {5321, 1870, 2034, 3463, 3207}),
            ("RFC 5890-5893", {5890, 5893}),
            ("RFC 4954 4 asks for 12,288", {4954}),
            ("RFC 5322 3.3, 2026", {5322}),
        ):
            self.assertEqual(cited(text) - {2026}, numbers, text)

    def test_every_rfc_that_the_code_cites_is_listed(self) -> None:
        lacking = [
            f"{path}: RFC {number}"
            for path in modules()
            for number in sorted(cited((ROOT / path).read_text("utf-8")))
            if number not in listed()
        ]
        self.assertEqual(lacking, [])

    def test_each_has_a_status(self) -> None:
        bad = {number: status for number, status in listed().items() if not status.startswith(STATUSES)}
        self.assertGreater(len(listed()), 30)
        self.assertEqual(bad, {})

    def test_none_is_listed_twice(self) -> None:
        text = (ROOT / "docs" / "rfc.md").read_text("utf-8")
        numbers = re.findall(r"^\| (\d+) \| [^|]+ \| [^|]+ \|$", text, re.MULTILINE)
        self.assertEqual([number for number in numbers if numbers.count(number) > 1], [])

    def test_what_is_not_fulfilled_has_its_section_its_level_and_its_reason(self) -> None:
        rows = unfulfilled()
        self.assertGreater(len(rows), 30)
        for row in rows:
            self.assertEqual(len(row), 4, row)
            self.assertRegex(row[0], r"\A\d{4}(?: \d[\d.]*(?: \(\d\))?(?:, \(?\d[\d.]*\)?)*)?\Z")
            self.assertIn(row[1], ("MUST", "MUST NOT", "SHOULD", "SHOULD NOT"), row)
            self.assertTrue(row[2] and row[3], row)

    def test_in_part_and_not_fulfilled_are_the_same_standards(self) -> None:
        lacking = {int(row[0].split()[0]) for row in unfulfilled()}
        self.assertEqual(lacking, {number for number, status in listed().items() if status.startswith("in part")})


class GenSmtpTests(SynchronousTestCase):
    """docs/gen_smtp.md: the checklist is whole, and the tests that it names are there."""

    def setUp(self) -> None:
        self.text = (ROOT / "docs" / "gen_smtp.md").read_text("utf-8")

    def test_every_defect_and_every_test_of_gen_smtp_has_a_row(self) -> None:
        for heading, prefix, last in (("## D:", "D", 17), ("## T-S:", "TS", 25)):
            section = self.text.split(heading)[1].split("\n## ")[0]
            firsts = re.findall(r"^\| ([^|]+) \|", section, re.MULTILINE)
            numbers = [int(number) for first in firsts for number in re.findall(rf"\b{prefix}(\d+)", first)]
            self.assertEqual(numbers, list(range(1, last + 1)))

    def test_every_callback_and_every_test_of_the_coder_has_a_row(self) -> None:
        wanted = [f"S{number}" for number in (26, *range(30, 47), *range(140, 143))]
        wanted += [f"M{number}" for number in (*range(1, 5), *range(10, 31), *range(40, 53), *range(60, 66))]
        wanted += [f"M{number}" for number in range(70, 80)] + [f"TM{number}" for number in range(1, 21)]
        wanted += [f"TU{number}" for number in range(1, 6)] + [f"X{number}" for number in range(1, 5)]
        wanted += [f"X{number}" for number in (*range(10, 25), *range(30, 36), *range(40, 46))]
        found: set[str] = set()
        for first in re.findall(r"^\| ([^|]+) \|", self.text, re.MULTILINE):
            for span in re.finditer(r"\b([A-Z]{1,2})(\d+)(?: to [A-Z]{1,2}(\d+))?", first):
                found |= {f"{span[1]}{number}" for number in range(int(span[2]), int(span[3] or span[2]) + 1)}
        self.assertEqual([name for name in wanted if name not in found], [])

    def test_the_tests_that_it_names_are_there(self) -> None:
        tests = (ROOT / "tests").rglob("test_*.py")
        methods = {name for path in tests for name in re.findall(r"def (test_\w+)\(", path.read_text("utf-8"))}
        named = set(re.findall(r"`(test_\w+)`", self.text))
        self.assertGreater(len(named), 150)
        self.assertEqual(sorted(named - methods), [])

    def test_each_row_names_its_test(self) -> None:
        bare = []
        for section in self.text.split("\n## ")[1:]:
            for row in re.findall(r"^\| (?:S\d|D\d|T[SMU]\d|M\d|X\d).*", section, re.MULTILINE):
                # What is said to be no matter of ours has no test.
                if "| test |" in section and not re.search(r"`test_|own business", row):
                    bare.append(row)
        self.assertEqual(bare, [])

    def test_the_fixtures_that_it_names_are_in_the_corpus(self) -> None:
        corpus = "".join(path.read_text("utf-8") for path in (ROOT / "tests" / "mime").glob("corpus*.py"))
        section = self.text.split("## F:")[1].split("\n## ")[0]
        for first in re.findall(r"^\| (`[^|]+) \|", section, re.MULTILINE):
            for name in re.findall(r"`([\w-]+)`", first):
                self.assertRegex(corpus, rf'"F [\w-]*{name}\b', name)


class DependenciesTests(SynchronousTestCase):
    def test_every_dependency_has_its_reason(self) -> None:
        metadata = configparser.ConfigParser(interpolation=None)
        metadata.read(ROOT / "setup.cfg", encoding="utf-8")
        lines = [metadata["options"]["install_requires"], *metadata["options.extras_require"].values()]
        wanted = {name for line in lines for name in re.findall(r"^([a-z0-9.-]+)", line, re.MULTILINE)}
        self.assertIn("twisted", wanted)
        page = (ROOT / "docs" / "dependencies.md").read_text("utf-8")
        rows = "\n".join(re.findall(r"^\| (.+?) \| .+ \|$", page, re.MULTILINE))
        self.assertEqual(sorted(name for name in wanted if f"`{name}`" not in rows), [])


class MergeTests(SynchronousTestCase):
    def test_no_page_has_both_sides_of_a_merge(self) -> None:
        mark = re.compile(r"^(?:<{7}|>{7})(?: |$)", re.MULTILINE)
        self.assertRegex("x\n" + "<" * 7 + " HEAD\n", mark)
        self.assertEqual([path.name for path in pages() if mark.search(path.read_text("utf-8"))], [])


class ProgramsTests(SynchronousTestCase):
    def test_python_in_the_pages_is_python(self) -> None:
        number = 0
        for path in pages():
            for block in re.findall(r"^```python\n(.*?)^```", path.read_text("utf-8"), re.MULTILINE | re.DOTALL):
                ast.parse(block, path.name)
                number += 1
        self.assertGreater(number, 2)

    def test_toml_in_the_pages_is_toml_of_known_keys(self) -> None:
        number = 0
        for path in pages():
            for block in re.findall(r"^```toml\n(.*?)^```", path.read_text("utf-8"), re.MULTILINE | re.DOTALL):
                number += 1
                for name, table in tomllib.loads(block).items():
                    for each in table if isinstance(table, list) else [table]:
                        self.assertEqual(set(each) - KEYS[name], set(), f"{path.name}: [{name}]")
        self.assertGreater(number, 5)


class CommandsTests(SynchronousTestCase):
    def test_commands_in_the_pages_exist_with_their_options(self) -> None:
        wrong, number = [], 0
        for page, line in shell_lines():
            command = re.split(r"\s<\s|\s#\s", line.rpartition("| ")[2])[0]
            words = shlex.split(command)
            if not words or Path(words[0]).name != "mailserver":
                continue
            number += 1
            result = CliRunner().invoke(mailserver, [*words[1:], "--help"])
            if result.exit_code != 0:
                wrong.append(f"{page}: {line}: {result.stderr}")
        self.assertGreater(number, 20)
        self.assertEqual(wrong, [])

    def test_make_targets_in_the_pages_exist(self) -> None:
        targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
        named = {match[1] for _, line in shell_lines() if (match := re.match(r"make (\w+)", line))}
        self.assertIn("run", named)
        self.assertEqual(named - targets, set())

    def test_programs_in_the_pages_exist(self) -> None:
        named = {word for _, line in shell_lines() for word in re.findall(r"(?:docs|bench)/[\w/]+\.py", line)}
        self.assertTrue(named)
        self.assertEqual([name for name in sorted(named) if not (ROOT / name).is_file()], [])

    def test_the_first_mail_of_the_readme_is_the_one_of_the_banner(self) -> None:
        from mailserver.welcome import first_mail

        self.assertIn(first_mail("127.0.0.1:2525"), (ROOT / "README.md").read_text("utf-8"))
