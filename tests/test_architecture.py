"""
The shape of the house: floors, sizes, names, and that each module has its tests and each page tells the truth.

What a reader of the code may rely on is tested here, so that it stays true.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).resolve().parent.parent
MOST_LINES = 700
MOST_LINES_OF_A_FUNCTION = 80

#: Python files that are ours.
PLACES = ("mailserver", "tests", "twisted", "bench", "examples")
#: Text that is read or run by people.
TEXTS = (
    "*.md",
    "*.cfg",
    "*.toml",
    "*.in",
    "Makefile",
    ".ci/run",
    "docs/**/*.md",
    "etc/*",
    "examples/*.md",
    "bench/*",
    "tests/**/*.toml",
    "tests/**/*.md",
    "tests/**/*.c",
)
#: In two halves, so that this file does not hold them: paths of the machines that this was written on, and hosts
#: that only they know.
FOREIGN = (
    "/wo" + "rk/",
    "/tmp" + "/v/",
    "/root" + "/.pyenv",
    "/opt" + "/pypi",
    "/opt" + "/wheels",
    "files.python" + "hosted",
)
#: Words for work that is not done.
UNDONE = re.compile(r"\b(?:TO" + r"DO|FIX" + r"ME|X" + r"XX|HA" + r"CK)\b")
#: Names that say nothing.
EMPTY_NAMES = re.compile(r"(?:^|_)(?:handlers?|managers?|processors?|engines?|helpers?|utils?|components?)(?:_|$)")


def modules(*places: str) -> list[Path]:
    """Our Python files, as paths from the root."""
    found = [path for place in places for path in (ROOT / place).rglob("*.py")]
    return sorted(path.relative_to(ROOT) for path in found if "__pycache__" not in path.parts)


def source(path: Path) -> str:
    """The text of a file."""
    return (ROOT / path).read_text("utf-8")


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Every function and method in a file."""
    for node in ast.walk(ast.parse(source(path))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


class FloorsTests(SynchronousTestCase):
    """Imports go downwards only; the contracts are in setup.cfg."""

    if find_spec("importlinter") is None:
        skip = "import-linter is not installed; it comes with the extra `test`"

    def test_every_contract_is_kept(self) -> None:
        code = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(cache_dir=None))"
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
        )
        if done.returncode != 0 or " 0 broken" not in done.stdout:
            self.fail(done.stdout + done.stderr)


class ModulesTests(SynchronousTestCase):
    """What every module owes its reader."""

    maxDiff = None

    def test_each_module_has_a_test_module(self) -> None:
        lacking = []
        for path in modules("mailserver"):
            if path.name == "__init__.py":
                continue
            expected = Path("tests", *path.parts[1:-1], f"test_{path.name}")
            if not (ROOT / expected).is_file():
                lacking.append(f"{path}: {expected}")
        self.assertEqual(lacking, [])

    def test_each_test_module_has_a_module(self) -> None:
        known = {f"tests/test_{name}.py" for name in ("architecture", "docs", "examples", "packaging")}
        known.add("tests/smtp/test_gen_smtp.py")  # the checklist of another system
        lost = []
        for path in modules("tests"):
            if not path.name.startswith("test_") or {"interop", "crash"} & {*path.parts} or str(path) in known:
                continue
            # A module may have several: test_tls_clients.py is about tls.py too.
            words = path.stem.removeprefix("test_").split("_")
            names = ["_".join(words[:count]) + ".py" for count in range(1, len(words) + 1)] + [f"__{words[0]}__.py"]
            room = Path(*path.parts[1:-1])
            if not any((ROOT / place / room / name).is_file() for name in names for place in ("mailserver", ".")):
                lost.append(str(path))
        self.assertEqual(lost, [])

    def test_each_module_opens_with_its_manual_page(self) -> None:
        silent = [
            str(path)
            for path in modules("mailserver", "tests", "bench", "examples")
            if source(path).strip() and not ast.get_docstring(ast.parse(source(path)))
        ]
        self.assertEqual(silent, [])

    def test_annotations_are_not_evaluated(self) -> None:
        without = [
            str(path)
            for path in modules("mailserver", "tests", "bench", "examples")
            if path.name != "__init__.py" and "from __future__ import annotations\n" not in source(path)
        ]
        self.assertEqual(without, [])

    def test_no_file_is_longer_than_700_lines(self) -> None:
        lengths = {str(path): len(source(path).splitlines()) for path in modules(*PLACES)}
        self.assertEqual({path: lines for path, lines in lengths.items() if lines > MOST_LINES}, {})

    def test_no_function_is_longer_than_80_lines(self) -> None:
        long = []
        for path in modules(*PLACES):
            for node in functions(path):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > MOST_LINES_OF_A_FUNCTION:
                    long.append(f"{path}:{node.lineno}: {node.name} has {lines} lines")
        self.assertEqual(long, [])

    def test_no_name_says_nothing(self) -> None:
        empty = [str(path) for path in modules(*PLACES) if EMPTY_NAMES.search(path.stem)]
        for path in modules("mailserver", "bench"):
            for node in ast.walk(ast.parse(source(path))):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                    words = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", node.name).lower()
                    if EMPTY_NAMES.search(words):
                        empty.append(f"{path}:{node.lineno}: {node.name}")
        self.assertEqual(empty, [])

    def test_functions_take_no_flag_by_position(self) -> None:
        flags = []
        for path in modules("mailserver"):
            for node in functions(path):
                for argument in [*node.args.posonlyargs, *node.args.args]:
                    if isinstance(argument.annotation, ast.Name) and argument.annotation.id == "bool":
                        flags.append(f"{path}:{node.lineno}: {node.name}({argument.arg})")
        self.assertEqual(flags, [])


class HabitsTests(SynchronousTestCase):
    """What is not done in this house."""

    def test_only_the_command_line_prints(self) -> None:
        printing = []
        for path in modules("mailserver"):
            if "cli" in path.parts:
                continue
            for node in ast.walk(ast.parse(source(path))):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
                    printing.append(f"{path}:{node.lineno}")
        self.assertEqual(printing, [])

    def test_no_module_imports_the_reactor_when_it_is_imported(self) -> None:
        early = []
        for path in modules("mailserver", "twisted"):
            for node in ast.parse(source(path)).body:
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
                if "reactor" in names or "twisted.internet.reactor" in names:
                    early.append(f"{path}:{node.lineno}")
        self.assertEqual(early, [])

    def test_only_durable_makes_files_survive(self) -> None:
        # `init` writes a configuration once, before there is a server.
        allowed = {
            *(f"mailserver/durable/{name}.py" for name in ("files", "segments")),
            "mailserver/cli/layout.py",
            "mailserver/selfsigned.py",
            "mailserver/cli/app_files.py",  # a text: the apps that it writes call fsync
        }
        found = {str(path) for path in modules("mailserver") if re.search(r"\bos\.f(?:data)?sync\(", source(path))}
        self.assertEqual(found - allowed, set())

    def test_exceptions_are_not_swallowed(self) -> None:
        swallowed = []
        for path in modules("mailserver"):
            for node in ast.walk(ast.parse(source(path))):
                if not isinstance(node, ast.ExceptHandler) or not all(
                    isinstance(each, ast.Pass) for each in node.body
                ):
                    continue
                if node.type is None or getattr(node.type, "id", "") in ("Exception", "BaseException"):
                    swallowed.append(f"{path}:{node.lineno}")
        self.assertEqual(swallowed, [])

    def test_nothing_is_left_undone_in_a_comment(self) -> None:
        undone = []
        for path in modules(*PLACES):
            with tokenize.open(ROOT / path) as file:
                for token in tokenize.generate_tokens(file.readline):
                    if token.type in (tokenize.COMMENT, tokenize.STRING) and UNDONE.search(token.string):
                        undone.append(f"{path}:{token.start[0]}: {token.string[:60]}")
        self.assertEqual(undone, [])

    def test_suppressed_warnings_name_what_they_suppress(self) -> None:
        bare = []
        for path in modules(*PLACES):
            with tokenize.open(ROOT / path) as file:
                comments = [each for each in tokenize.generate_tokens(file.readline) if each.type == tokenize.COMMENT]
            for token in comments:
                if re.search(r"noqa(?!: [A-Z]+[0-9]+)|type: ignore(?!\[)", token.string):
                    bare.append(f"{path}:{token.start[0]}: {token.string}")
        self.assertEqual(bare, [])

    def test_no_path_of_a_developer_s_machine(self) -> None:
        files = {*modules(*PLACES)} | {
            path.relative_to(ROOT) for pattern in TEXTS for path in ROOT.glob(pattern) if path.is_file()
        }
        found = [f"{path}: {word}" for path in sorted(files) for word in FOREIGN if word in source(path)]
        self.assertEqual(found, [])

    def test_the_plugin_folders_are_no_packages(self) -> None:
        # With an __init__.py they would hide Twisted itself, or its other plugins.
        self.assertEqual([str(path) for path in (ROOT / "twisted").rglob("__init__.py")], [])

    def test_the_tests_with_real_clients_and_disks_run_only_when_asked_for(self) -> None:
        # trial finds the modules of packages; without an __init__.py `trial tests` does not see these.
        for name in ("interop", "crash"):
            self.assertFalse((ROOT / "tests" / name / "__init__.py").exists())
            self.assertTrue(list((ROOT / "tests" / name).glob("test_*.py")))

    def test_the_front_door(self) -> None:
        wanted = ("README.md", "OVERVIEW.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "LICENSE", "Makefile")
        self.assertEqual([name for name in wanted if not (ROOT / name).is_file()], [])

    def test_programs_can_be_run(self) -> None:
        self.assertTrue(os.access(ROOT / ".ci" / "run", os.X_OK))


class PagesTests(SynchronousTestCase):
    """The pages name what is there."""

    def pages(self) -> list[Path]:
        """Every page, as a path from the root."""
        folders = ("docs", "examples", "tests")
        found = [*ROOT.glob("*.md"), *(path for name in folders for path in (ROOT / name).rglob("*.md"))]
        self.assertTrue(found)
        return sorted(path.relative_to(ROOT) for path in found)

    def test_links_lead_somewhere(self) -> None:
        dead = []
        for path in self.pages():
            for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", source(path)):
                if "://" in target or target.startswith("mailto:"):
                    continue
                if not ((ROOT / path).parent / target).exists():
                    dead.append(f"{path}: {target}")
        self.assertEqual(dead, [])

    def test_files_that_are_named_exist(self) -> None:
        dead = []
        for path in self.pages():
            for name in re.findall(r"`((?:mailserver|tests|docs|etc|bench)/[\w./-]*\w/?)`", source(path)):
                if not (ROOT / name).exists():
                    dead.append(f"{path}: {name}")
        self.assertEqual(dead, [])
