"""Tests of mailserver.cli.app_files: an app, its test and its configuration; tests/interop/test_apps_run.py runs them."""

from __future__ import annotations

import ast
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from mailserver.apps.installed import callbacks_of
from mailserver.apps.loading import load_class
from mailserver.cli.app_files import FilesError, class_name, files, write
from mailserver.config import load


class FilesTests(SynchronousTestCase):
    def folder(self) -> Path:
        path = Path(self.mktemp()).absolute()
        path.mkdir()
        return path

    def test_the_app_shows_what_most_apps_need(self) -> None:
        folder = self.folder()
        write("ticket_desk", folder)
        cls = load_class("ticket_desk.py:TicketDesk", folder)
        self.assertEqual(callbacks_of(cls), {"rcpt", "message"})
        self.assertEqual(cls.Options().folder, Path("ticket_desk-mail"))
        lines = [line for line in (folder / "ticket_desk.py").read_text().splitlines() if line.strip()]
        self.assertLessEqual(len(lines), 25)

    def test_the_configuration_is_right_and_listens_on_this_machine_only(self) -> None:
        folder = self.folder()
        write("notes", folder)
        config = load(folder / "notes.toml")
        self.assertEqual([str(listener.address) for listener in config.listeners], ["127.0.0.1:2525"])
        self.assertEqual(
            [(app.name, app.match.recipients) for app in config.apps], [("notes", ("notes+*@example.org",))]
        )
        self.assertEqual(config.warnings, ())

    def test_the_test_is_python_that_names_the_app(self) -> None:
        text = files("notes")["test_notes.py"]
        imported = [node.module for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ImportFrom)]
        self.assertIn("notes", imported)
        self.assertIn("class NotesTests(unittest.TestCase)", text)

    def test_nothing_is_left_of_the_places_for_names(self) -> None:
        for name, text in files("notes").items():
            self.assertNotIn("@NAME@", text, name)
            self.assertNotIn("@CLASS@", text, name)
            self.assertEqual([line for line in text.splitlines() if len(line) > 88], [], name)

    def test_a_class_is_named_as_classes_are(self) -> None:
        for name, expected in (("notes", "Notes"), ("ticket_desk", "TicketDesk"), ("a1_b2", "A1B2")):
            self.assertEqual(class_name(name), expected)

    def test_what_is_no_name_is_refused(self) -> None:
        for name in ("", "Notes", "1st", "a-b", "a.b", "../a", "a/b", "a b", "a_", "a__b", "ä", "a" * 41, "a\n"):
            self.assertIn("is no name for an app", str(self.assertRaises(FilesError, files, name)), name)

    def test_what_would_hide_another_module_is_refused(self) -> None:
        for name in ("email", "class", "twisted", "mailserver", "test_notes", "smtplib"):
            self.assertIn("something else", str(self.assertRaises(FilesError, files, name)), name)

    def test_no_file_is_replaced_and_none_is_written_beside_it(self) -> None:
        for existing in ("notes.py", "test_notes.py", "notes.toml"):
            folder = self.folder()
            (folder / existing).write_text("mine")
            error = self.assertRaises(FilesError, write, "notes", folder)
            self.assertIn(f"{folder / existing} is there already", str(error))
            self.assertEqual([path.name for path in folder.iterdir()], [existing])
            self.assertEqual((folder / existing).read_text(), "mine")

    def test_a_link_into_nowhere_is_in_the_way_too(self) -> None:
        folder = self.folder()
        (folder / "notes.py").symlink_to(folder / "elsewhere")
        self.assertRaises(FilesError, write, "notes", folder)
        self.assertFalse((folder / "elsewhere").exists())

    def test_a_folder_is_made(self) -> None:
        folder = self.folder() / "a" / "b"
        self.assertEqual(
            write("notes", folder), [folder / name for name in ("notes.py", "test_notes.py", "notes.toml")]
        )

    def test_a_folder_that_cannot_be_is_told(self) -> None:
        folder = self.folder()
        (folder / "file").write_text("")
        error = self.assertRaises(FilesError, write, "notes", folder / "file")
        self.assertIn("file", str(error))
