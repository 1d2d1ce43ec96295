"""From words to a class: what is found, and what is said of everything else."""

from __future__ import annotations

import sys
from pathlib import Path

from pydantic import AliasChoices, AliasPath, BaseModel, ConfigDict, Field
from twisted.trial.unittest import SynchronousTestCase

from mailserver.apps.app import App
from mailserver.apps.command import Command
from mailserver.apps.loading import AppError, check_class, load_class, options_of, settings_of
from mailserver.config import AppMatch, AppTable

GOOD = """
import mailserver

class Tickets(mailserver.App):
    async def message(self, envelope, message):
        return "taken"

class Helper:
    pass
"""


class Taking(App):
    class Options(BaseModel):
        folder: str
        most: int = 3

    def message(self, envelope: object, message: object) -> None:
        raise NotImplementedError


class LoadTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir()

    def write(self, text: str, name: str = "tickets.py") -> Path:
        path = self.folder / name
        path.write_text(text)
        return path

    def refused(self, source: str) -> str:
        error = self.assertRaises(AppError, load_class, source, self.folder)
        self.assertEqual(error.key, "python")
        return str(error)

    def test_a_class_of_a_file(self) -> None:
        self.write(GOOD)
        found = load_class("tickets.py:Tickets", self.folder)
        self.assertEqual(found.__name__, "Tickets")
        self.assertIs(load_class("./tickets.py:Tickets", self.folder), found, "the file has not changed")

    def test_a_changed_file_is_another_class(self) -> None:
        self.write(GOOD)
        found = load_class("tickets.py:Tickets", self.folder)
        self.write(GOOD + "\n# changed\n")
        self.assertIsNot(load_class("tickets.py:Tickets", self.folder), found)

    def test_what_lies_beside_the_file_can_be_imported(self) -> None:
        self.write("TEXT = 'beside'\n", "lies_beside.py")
        self.write("import lies_beside\n" + GOOD.replace('"taken"', "lies_beside.TEXT"))
        self.addCleanup(sys.path.remove, str(self.folder))
        self.assertEqual(load_class("tickets.py:Tickets", self.folder).__name__, "Tickets")

    def test_a_class_of_a_module(self) -> None:
        self.assertIs(load_class(f"{__name__}:Taking", self.folder), Taking)

    def test_what_is_wrong_is_said(self) -> None:
        self.write(GOOD)
        for source, word in (
            ("tickets.py", "write"),
            ("tickets.py:", "write"),
            ("tickets.py:a b", "write"),
            ("missing.py:Tickets", "No such file"),
            ("tickets.py:Missing", "it has Tickets"),
            ("tickets.py:Helper", "none of the callbacks"),
            ("tickets.py:mailserver", "is no class"),
            ("no_such_module_here:Tickets", "cannot be imported"),
        ):
            self.assertIn(word, self.refused(source), source)

    def test_an_error_of_the_file_has_its_line(self) -> None:
        self.write("import mailserver\n\n1 / 0\n", "bad.py")
        self.assertIn("ZeroDivisionError", self.refused("bad.py:Tickets"))
        self.assertIn("bad.py:3", self.refused("bad.py:Tickets"))
        self.write("def broken(:\n", "syntax.py")
        self.assertIn("line 1", self.refused("syntax.py:Tickets"))

    def test_words_of_the_class_are_checked(self) -> None:
        self.assertRaises(AppError, check_class, type("A", (Taking,), {"verbs": "XPING"}))
        self.assertRaises(AppError, check_class, type("A", (Taking,), {"verbs": ("MAIL",)}))
        check_class(type("A", (Taking,), {"verbs": ("XPING", "*", "HELP")}))

    def test_a_callback_that_cannot_be_called_is_told_with_what_it_must_take(self) -> None:
        def message(self: object, envelope: object) -> None:
            raise NotImplementedError

        error = self.assertRaises(AppError, check_class, type("Short", (App,), {"message": message}))
        self.assertIn("Short.message must take other arguments: message(self, envelope, message)", str(error))

    def test_arguments_may_have_other_names_and_forms(self) -> None:
        for each in (lambda self, a, b, c=1: None, lambda *given: None, staticmethod(lambda a, b: None)):
            check_class(type("Free", (App,), {"message": each}))


class OptionsTests(SynchronousTestCase):
    def test_the_model_makes_them(self) -> None:
        options = options_of(Taking, {"folder": "/srv"})
        self.assertEqual((options.folder, options.most), ("/srv", 3))

    def test_every_problem_is_told_and_no_value_is(self) -> None:
        error = self.assertRaises(AppError, options_of, Taking, {"most": "s3cret"})
        self.assertEqual(error.key, "options.folder")
        self.assertIn("most", str(error))
        self.assertNotIn("s3cret", str(error))

    def test_a_key_that_the_model_does_not_know_is_told(self) -> None:
        error = self.assertRaises(AppError, options_of, Taking, {"folder": "/srv", "mots": 4})
        self.assertEqual(error.key, "options.mots")
        self.assertIn("unknown key; did you mean most?", str(error))

    def test_a_ready_app_tells_of_an_unknown_key_in_the_same_words(self) -> None:
        error = self.assertRaises(AppError, options_of, Command, {"run": "/bin/cat", "usr": "x"})
        self.assertEqual(error.key, "options.usr")
        self.assertIn("unknown key; did you mean user?", str(error))

    def test_a_model_may_say_itself_what_becomes_of_other_keys(self) -> None:
        class Loose(BaseModel):
            model_config = ConfigDict(extra="allow")

        app = type("Loosely", (Taking,), {"Options": Loose})
        self.assertEqual(options_of(app, {"colour": "red"}).colour, "red")

    def test_another_name_of_a_field_is_known(self) -> None:
        class Named(BaseModel):
            from_: str = Field(alias="from")
            to: str = Field(validation_alias=AliasChoices("recipient", AliasPath("recipients", 0)))

        app = type("Naming", (Taking,), {"Options": Named})
        self.assertEqual(options_of(app, {"from": "a", "recipients": ["b"]}).to, "b")

    def test_who_has_no_model_takes_none(self) -> None:
        plain = type("Plain", (App,), {"message": Taking.message})
        self.assertIsNone(options_of(plain, {}))
        self.assertRaises(AppError, options_of, plain, {"a": 1})


class SettingsTests(SynchronousTestCase):
    def table(self, **keys: object) -> AppTable:
        return AppTable.model_validate({"name": "x", **keys})

    def test_a_table_as_settings(self) -> None:
        table = self.table(
            python=f"{__name__}:Taking",
            options={"folder": "/srv"},
            match=AppMatch(recipients=("*@example.org",)),
            timeout=5.0,
        )
        settings = settings_of(table, Path())
        self.assertEqual((settings.name, settings.app, settings.timeout), ("x", Taking, 5.0))
        self.assertEqual(settings.options.folder, "/srv")
        self.assertEqual(settings.match.recipients, ("*@example.org",))
        self.assertEqual(settings, settings_of(table, Path()), "equal settings are the same app after a reload")

    def test_an_app_is_one_thing(self) -> None:
        for keys in ({}, {"python": "a:b", "discard": True}, {"discard": True, "reject": "no"}):
            error = self.assertRaises(AppError, settings_of, self.table(**keys), Path())
            self.assertIn("one of python, command, webhook, discard and reject", str(error))
