"""Tests of mailserver.cli.app: the command line of `mailserver app`."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner, Result
from twisted.logger import globalLogBeginner
from twisted.trial.unittest import SynchronousTestCase

from mailserver.cli import app as module
from mailserver.cli.app_run import AppRun, Wanted
from mailserver.cli.main import mailserver
from mailserver.foundations import StartError


class AppTests(SynchronousTestCase):
    def run_app(self, *args: str) -> Result:
        return CliRunner().invoke(mailserver, list(args))

    def wanted_by(self, *args: str) -> tuple[Result, list[tuple[Wanted, Path]]]:
        """What would be run."""
        asked: list[tuple[Wanted, Path]] = []
        self.patch(module, "run_app", lambda wanted, data: asked.append((wanted, data)))
        return self.run_app(*args), asked

    def test_new_writes_three_files_and_says_what_to_do_with_them(self) -> None:
        folder = Path(self.mktemp())
        result = self.run_app("app", "new", "notes", "--folder", str(folder))
        self.assertEqual(result.exit_code, 0, result.output)
        self.assertEqual(sorted(path.name for path in folder.iterdir()), ["notes.py", "notes.toml", "test_notes.py"])
        self.assertIn(f"mailserver app run {folder / 'notes.py'}\n", result.stdout)
        self.assertIn(f"cd {folder} && python -m unittest test_notes\n", result.stdout)

    def test_new_replaces_nothing(self) -> None:
        folder = Path(self.mktemp())
        self.run_app("app", "new", "notes", "--folder", str(folder))
        result = self.run_app("app", "new", "notes", "--folder", str(folder))
        self.assertEqual(result.exit_code, 1)
        self.assertIn("is there already", result.stderr)

    def test_new_refuses_what_is_no_name(self) -> None:
        result = self.run_app("app", "new", "No-Name")
        self.assertEqual(result.exit_code, 1)
        self.assertIn("is no name for an app", result.stderr)

    def test_run_takes_options_patterns_and_a_port(self) -> None:
        data = Path(self.mktemp()).absolute()
        _, asked = self.wanted_by(
            "--data", str(data), "app", "run", "desk.py:Desk", "--port", "0", "--threaded",
            "--option", "a=1", "--option", "b=x=y", "--match", "a@example.org", "--match", "*@example.net",
        )  # fmt: skip
        wanted = Wanted(
            "desk.py:Desk", {"a": "1", "b": "x=y"}, ("a@example.org", "*@example.net"), threaded=True, port=0
        )
        self.assertEqual(asked, [(wanted, data)])

    def test_run_keeps_its_data_where_development_mode_does(self) -> None:
        _, asked = self.wanted_by("app", "run", "desk.py")
        self.assertEqual(asked, [(Wanted("desk.py"), Path.cwd() / "mailserver-data")])

    def test_run_refuses_what_it_cannot_understand(self) -> None:
        for args, text in (
            (("app", "run", "desk.py", "--option", "words"), 'is no "key=value"'),
            (("app", "run", "desk.py", "--option", "=x"), 'is no "key=value"'),
            (("app", "run", "desk.py", "--port", "70000"), "--port"),
            (("--config", "x.toml", "app", "run", "desk.py"), "has no use for --config"),
        ):
            result, asked = self.wanted_by(*args)
            self.assertEqual((result.exit_code, asked), (2, []), args)
            self.assertIn(text, result.stderr)

    def test_an_app_that_cannot_be_used_ends_it_with_its_line(self) -> None:
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        (folder / "desk.py").write_text("import mailserver\n\noops\n")
        result = self.run_app("--data", str(folder / "data"), "app", "run", str(folder / "desk.py"))
        self.assertEqual(result.exit_code, 1)
        self.assertIn(f"{folder}/desk.py:3: NameError: name 'oops' is not defined", result.stderr)
        self.assertFalse((folder / "data").exists())

    def test_data_that_another_server_uses_ends_it_with_one_line(self) -> None:
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        (folder / "desk.py").touch()
        self.patch(globalLogBeginner, "beginLoggingTo", lambda *args, **keys: None)
        self.patch(AppRun, "prepare", lambda run: None)

        def start(run: AppRun) -> None:
            raise StartError(["journal/1: is the server running already?"])

        self.patch(AppRun, "start", start)
        result = self.run_app("--data", str(folder / "data"), "app", "run", str(folder / "desk.py"))
        self.assertEqual(result.exit_code, 1)
        self.assertEqual(result.stderr, "Error: journal/1: is the server running already?\n")

    def test_a_folder_that_cannot_be_that_of_the_data_is_refused(self) -> None:
        result = self.run_app("--data", "/etc", "app", "run", "desk.py")
        self.assertEqual(result.exit_code, 1)
        self.assertIn("--data: ", result.stderr)
