"""The command's frame: lazy subcommands, the options before them, exit statuses."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from importlib import import_module
from io import StringIO
from pathlib import Path

import click
from click.testing import CliRunner
from twisted.trial.unittest import SynchronousTestCase

import mailserver as package
from mailserver.cli import main
from mailserver.config import ConfigError, Problem, loading

GOOD = '[server]\ndata_dir = "data"\n[[listener]]\naddress = 25\nprotocol = "smtp"\n'


@click.command()
@click.pass_context
def told(ctx: click.Context) -> None:
    """Tells which configuration it got."""
    config = main.config_of(ctx)
    click.echo(f"{config.source} {config.server.data_dir} {config.development}")


@click.command()
def broken() -> None:
    """Finds problems by itself."""
    raise ConfigError((Problem("f", 1, "a", "x"), Problem("f", 2, "b", "y")))


class MainTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        commands = {"told": (f"{__name__}:told", "Told."), "broken": (f"{__name__}:broken", "Broken.")}
        self.patch(main, "COMMANDS", commands)
        self.patch(loading, "DEFAULT_PATH", self.folder / "default.toml")
        self.patch(os, "environ", {key: value for key, value in os.environ.items() if key != "MAILSERVER_CONFIG"})

    def run_with(self, *arguments: str) -> tuple[int, str, str]:
        """(exit status, stdout, stderr)."""
        result = CliRunner().invoke(main.mailserver, arguments)
        return result.exit_code, result.stdout, result.stderr

    def write(self, name: str, text: str = GOOD) -> Path:
        path = self.folder / name
        path.write_text(text)
        return path


class ConfigOfTests(MainTestCase):
    def test_without_a_file_it_is_development_mode(self) -> None:
        self.assertEqual(self.run_with("told")[1], f"None {Path('mailserver-data').absolute()} True\n")
        self.assertEqual(self.run_with("--data", "here", "told")[1], f"None {Path('here').absolute()} True\n")

    def test_the_option_names_the_file(self) -> None:
        path = self.write("a.toml")
        self.assertEqual(self.run_with("--config", str(path), "told")[1], f"{path} {self.folder / 'data'} False\n")

    def test_else_the_environment_and_else_the_default(self) -> None:
        default, named = self.write("default.toml"), self.write("b.toml")
        self.assertIn(f"{default} ", self.run_with("told")[1])
        os.environ["MAILSERVER_CONFIG"] = str(named)
        self.assertIn(f"{named} ", self.run_with("told")[1])

    def test_data_beside_a_file_is_a_wrong_command_line(self) -> None:
        status, out, err = self.run_with("--config", str(self.write("a.toml")), "--data", "x", "told")
        self.assertEqual((status, out), (2, ""))
        self.assertIn("--data is for development mode, but there is a configuration", err)

    def test_a_default_that_cannot_be_read_is_passed_over_and_told(self) -> None:
        default = self.write("default.toml")
        access = os.access
        self.patch(os, "access", lambda path, mode: path != default and access(path, mode))
        status, out, err = self.run_with("told")
        self.assertEqual((status, out), (0, f"None {Path('mailserver-data').absolute()} True\n"))
        warning = f"{default}:1: file: warning: may not be read by this user, so this is development mode\n"
        self.assertEqual(err, warning)

    def test_data_of_development_are_in_no_directory_of_the_system(self) -> None:
        status, out, err = self.run_with("--data", "/tmp", "told")
        self.assertEqual((status, out), (2, ""))
        self.assertIn("--data: /tmp is a directory of the system; name one below it", err)

    def test_a_context_without_our_options_is_fine(self) -> None:
        self.assertTrue(main.config_of(click.Context(told)).development)


class StatusTests(MainTestCase):
    def test_problems_go_to_stderr_one_a_line_with_status_1(self) -> None:
        self.assertEqual(self.run_with("broken"), (1, "", "f:1: a: x\nf:2: b: y\n"))
        path = self.write("a.toml", "[server\n")
        status, out, err = self.run_with("--config", str(path), "told")
        self.assertEqual((status, out), (1, ""))
        self.assertTrue(err.startswith(f"{path}:1: syntax: "), err)

    def test_a_file_that_is_missing_is_a_problem(self) -> None:
        self.assertEqual(
            self.run_with("--config", "missing.toml", "told"),
            (1, "", "missing.toml:1: file: cannot be read: No such file or directory\n"),
        )

    def test_a_wrong_command_line_has_status_2(self) -> None:
        for arguments in (("nothing",), ("--colour", "told"), ("--config",), ()):
            self.assertEqual(self.run_with(*arguments)[0], 2, arguments)

    def test_the_entry_point_ends_with_the_status(self) -> None:
        for arguments, status in ((["told"], 0), (["broken"], 1), (["nothing"], 2)):
            self.patch(sys, "argv", ["mailserver", *arguments])
            with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
                error = self.assertRaises(SystemExit, main.main)
            self.assertEqual(error.code, status)

    def test_the_version(self) -> None:
        self.assertEqual(self.run_with("--version"), (0, f"mailserver, version {package.__version__}\n", ""))


class LazyTests(SynchronousTestCase):
    def test_the_help_lists_all_commands_and_imports_none(self) -> None:
        program = (
            "import sys; sys.argv = ['mailserver', '--help']; from mailserver.cli.main import main\n"
            "try: main()\n"
            "except SystemExit: pass\n"
            "print([m for m in sys.modules if m.startswith(('mailserver.cli.', 'pydantic', 'twisted'))])"
        )
        told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
        self.assertTrue(told.endswith("['mailserver.cli.main']\n"), told)
        for name in main.COMMANDS:
            self.assertIn(f"\n  {name} ", told)

    def test_names_are_known_without_an_import(self) -> None:
        context = click.Context(main.mailserver)
        self.assertEqual(main.mailserver.list_commands(context), list(main.COMMANDS))

    def test_every_command_of_the_table_is_there(self) -> None:
        for name, (place, text) in main.COMMANDS.items():
            with self.subTest(name):
                module, _, attribute = place.partition(":")
                self.assertIsInstance(getattr(import_module(module), attribute), click.Command)
                self.assertTrue(text.endswith("."))
