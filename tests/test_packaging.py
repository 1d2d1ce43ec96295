"""
What is shipped: the wheel and the sdist hold what they should, and what is installed from them runs from anywhere.

Everything is built offline with what the extra `test` has installed, in a copy of the tree.  An installed copy finds
its dependencies where those of this Python are.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from mailserver import __version__

ROOT = Path(__file__).resolve().parent.parent
#: What is not part of the source, although it lies beside it.
NOT_SOURCE = shutil.ignore_patterns(
    *(
        ".git",
        ".venv",
        "*.egg-info",
        "build",
        "dist",
        "_trial_temp*",
        "__pycache__",
        "dropin.cache",
        "mailserver-data",
    ),
    *(".mypy_cache", ".ruff_cache", ".hypothesis", ".import_linter_cache", ".coverage*", "htmlcov"),
)
DEPENDENCIES = Path(sysconfig.get_paths()["purelib"])
PLUGIN = "twisted/plugins/mailserver_plugin.py"


def why_not() -> str | None:
    """Why nothing can be built here; None when it can."""
    try:
        version("build")
        release = tuple(int(part) for part in version("setuptools").split(".")[:2])
    except PackageNotFoundError as error:
        return f"{error.name} is not installed; it comes with the extra `test`"
    return None if release >= (77, 0) else "setuptools is older than 77; a newer one comes with the extra `test`"


def run(*command: str | Path, cwd: Path | None = None, **environ: str) -> str:
    """Run a program that must succeed; its output."""
    done = subprocess.run(
        [str(each) for each in command],
        cwd=cwd,
        env={**os.environ, "PIP_NO_INDEX": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1", **environ},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=300,
        check=False,
    )
    told = done.stdout.decode("utf-8", "replace")
    if done.returncode != 0:
        raise AssertionError(f"{command} ended with {done.returncode}: {told}")
    return told


def modules() -> set[str]:
    """The files of the package, as paths from the root."""
    return {
        str(path.relative_to(ROOT))
        for path in (ROOT / "mailserver").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


class Tree:
    """A copy of the source, and the wheel and the sdist made of it; made once for all tests, in trial's directory."""

    _made: Tree | None = None

    def __init__(self, directory: Path) -> None:
        self.source = directory / "source"
        shutil.copytree(ROOT, self.source, ignore=NOT_SOURCE)
        # What `make run` leaves there must not be shipped.
        mailbox = self.source / "mailserver-data" / "mail"
        mailbox.mkdir(parents=True)
        (mailbox / "secret.py").write_text("")
        # The wheel is made of the sdist: so that is whole too.
        run(sys.executable, "-m", "build", "--no-isolation", "--outdir", directory / "dist", self.source)
        (self.wheel,) = (directory / "dist").glob("*.whl")
        (self.sdist,) = (directory / "dist").glob("*.tar.gz")

    @classmethod
    def made(cls, directory: Path) -> Tree:
        """The one."""
        if cls._made is None:
            cls._made = Tree(directory)
        return cls._made


class PackagingTestCase(SynchronousTestCase):
    """Tests with the wheel and the sdist."""

    if reason := why_not():
        skip = reason

    def setUp(self) -> None:
        self.tree = Tree.made(Path(self.mktemp()).absolute())


class ContentsTests(PackagingTestCase):
    """What is in the files."""

    def test_the_wheel_has_the_package_and_the_plugin_and_nothing_else(self) -> None:
        with zipfile.ZipFile(self.tree.wheel) as wheel:
            names = set(wheel.namelist())
        shipped = {name for name in names if ".dist-info/" not in name}
        self.assertEqual(shipped, modules() | {PLUGIN})
        self.assertIn("mailserver/py.typed", shipped)

    def test_the_wheel_says_who_it_is(self) -> None:
        with zipfile.ZipFile(self.tree.wheel) as wheel:
            folder = f"mailserver-{__version__}.dist-info"
            metadata = wheel.read(f"{folder}/METADATA").decode()
            entry_points = wheel.read(f"{folder}/entry_points.txt").decode()
            self.assertTrue([name for name in wheel.namelist() if name.startswith(folder) and "LICENSE" in name])
        self.assertIn(f"\nVersion: {__version__}\n", metadata)
        self.assertIn("\nRequires-Python: >=3.11\n", metadata)
        self.assertIn("\nLicense: MIT\n", metadata.replace("License-Expression", "License"))
        self.assertIn("\nRequires-Dist: twisted[tls]>=26.4\n", metadata)
        self.assertIn("mailserver = mailserver.cli.main:main", entry_points)

    def test_the_sdist_has_the_source_the_pages_and_the_examples(self) -> None:
        with tarfile.open(self.tree.sdist) as sdist:
            names = {member.name.partition("/")[2] for member in sdist.getmembers() if member.isfile()}
        wanted = modules() | {PLUGIN, "LICENSE", "Makefile", "MANIFEST.in", "setup.cfg", "pyproject.toml"}
        for pattern in ("*.md", "etc/*", "docs/**/*.md", "tests/**/*.py", "tests/**/*.toml"):
            wanted |= {str(path.relative_to(ROOT)) for path in ROOT.glob(pattern) if path.is_file()}
        self.assertEqual(wanted - names, set())
        unwanted = ("__pycache__", "mailserver-data", ".git/", "dropin.cache")
        self.assertEqual([name for name in names if any(each in name for each in unwanted)], [])


class InstalledTests(PackagingTestCase):
    """Each way to install it makes the three commands work from any directory."""

    def _works_when_installed(self, *what: str | Path) -> None:
        home = Path(self.mktemp()).absolute()
        run(sys.executable, "-m", "venv", "--without-pip", home)
        python = home / "bin" / "python"
        packages = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])").strip())
        # The dependencies, but not the .pth files beside them: an editable install of this very checkout is one.
        (packages / "dependencies.pth").write_text(f"{DEPENDENCIES}\n")
        options = ("--no-deps", "--no-build-isolation", "--ignore-installed", "--quiet")
        run(sys.executable, "-m", "pip", "--python", python, "install", *options, *what)
        elsewhere = home / "elsewhere"
        elsewhere.mkdir()
        twistd = "from twisted.scripts.twistd import run; run()"
        twist = "import sys; from twisted.application.twist._twist import Twist; Twist.main()"
        for command in (
            (python, "-c", twistd, "mailserver", "--help"),
            (python, "-c", twist, "mailserver", "--help"),
            (home / "bin" / "mailserver", "--help"),
        ):
            told = run(*command, cwd=elsewhere)
            self.assertIn("--config", told, command)
        where = run(python, "-c", "import mailserver; print(mailserver.__file__)", cwd=elsewhere).strip()
        self.assertNotIn(str(ROOT / "mailserver"), where)
        self.assertEqual(list(elsewhere.iterdir()), [])

    def test_the_wheel(self) -> None:
        self._works_when_installed(self.tree.wheel)

    def test_the_sdist(self) -> None:
        self._works_when_installed(self.tree.sdist)

    def test_the_source(self) -> None:
        self._works_when_installed(self.tree.source)

    def test_the_source_as_it_is_edited(self) -> None:
        self._works_when_installed("--editable", self.tree.source)


class StartUpTests(SynchronousTestCase):
    """What happens before anything happens."""

    def _run(self, code: str, *arguments: str) -> str:
        return run(sys.executable, "-c", code, *arguments, cwd=ROOT)

    def test_the_plugin_costs_other_users_of_twistd_nothing(self) -> None:
        told = self._run(
            "import sys, twisted.plugins.mailserver_plugin\n"
            "heavy = ('mailserver.tap', 'twisted.mail', 'twisted.internet.reactor', 'pydantic', 'OpenSSL', 'sqlite3')\n"
            "print([name for name in heavy if name in sys.modules])\n"
        )
        self.assertEqual(told, "[]\n")

    def test_the_help_of_the_command_line_does_not_wait_for_the_house(self) -> None:
        told = self._run(
            "import sys, mailserver.cli.main\n"
            "print([name for name in ('twisted', 'pydantic', 'OpenSSL', 'sqlite3') if name in sys.modules])\n"
        )
        self.assertEqual(told, "[]\n")

    def test_no_resolver_is_asked(self) -> None:
        told = self._run(
            "import socket, sys\n"
            "def dead(*arguments, **more): raise SystemExit(f'the resolver was asked {arguments}')\n"
            "for name in ('getaddrinfo', 'gethostbyname', 'gethostbyname_ex', 'gethostbyaddr', 'getfqdn'):\n"
            "    setattr(socket, name, dead)\n"
            "import mailserver.tap\n"
            "sys.argv = ['twistd', 'mailserver', '--help']\n"
            "from twisted.scripts.twistd import run\n"
            "run()\n"
        )
        self.assertIn("--data", told)

    def test_importing_the_door_installs_no_reactor(self) -> None:
        told = self._run("import sys, mailserver.tap; print('twisted.internet.reactor' in sys.modules)")
        self.assertEqual(told, "False\n")
