"""
Tests of mailserver.cli.app_run: an app on a development server, and what a changed file does.

tests/interop/test_apps_run.py runs the real thing.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailserver.apps.loading import AppError
from mailserver.cli.app_run import LOOK_EVERY, AppRun, Wanted, example_of, python, swaks
from mailserver.config import Config
from mailserver.foundations import StartError

APP = """\
import mailserver
from pydantic import BaseModel

class Options(BaseModel):
    words: list[str] = []
    size: int = 0

class Desk(mailserver.App):
    Options = Options
    def message(self, envelope, message):
        return "%s"
"""
POLICY = "import mailserver\nclass Policy(mailserver.App):\n    def rcpt(self, recipient, parameters): ...\n"


class Service:
    """Stands for MailService."""

    def __init__(self, config: Config, reactor: Any, told: Any) -> None:
        self.configs = [config]
        self.told = told
        self.state = "made"
        self.trouble: Exception | None = None

    def prepare(self) -> None:
        self.state = "prepared"

    def startService(self) -> None:
        self.state = "started"
        listener = self.configs[0].listeners[0]
        self.told(self.configs[0], [(listener, "127.0.0.1:2525")])

    def stopService(self) -> Deferred[None]:
        self.state = "stopped"
        return succeed(None)

    async def change_to(self, config: Config) -> None:
        if self.trouble is not None:
            raise self.trouble
        self.configs.append(config)


class RunCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        self.addCleanup(os.chdir, Path.cwd())
        os.chdir(self.folder)
        self.clock = Clock()
        self.said: list[str] = []
        self.writes = 0
        self.write(APP % "one")

    def write(self, text: str) -> None:
        """A new version, also where the clock of the file system is coarse."""
        self.writes += 1
        Path("desk.py").write_text(text)
        os.utime("desk.py", (self.writes, self.writes))

    def app_run(self, wanted: Wanted | None = None) -> AppRun:
        return AppRun(wanted or Wanted("desk.py"), self.folder / "data", self.clock, self.said.append, Service)

    def started(self, wanted: Wanted | None = None) -> Any:
        run = self.app_run(wanted)
        run.prepare()
        run.start()
        self.addCleanup(run.stop)
        return run.service

    def refused(self, wanted: Wanted) -> AppError:
        error: AppError = self.assertRaises(AppError, self.app_run(wanted).prepare)
        return error


class StartTests(RunCase):
    def test_the_app_is_in_front_of_a_development_server(self) -> None:
        options = {"words": '["a", "b"]', "size": "7"}
        service = self.started(Wanted("desk.py:Desk", options, ("desk+*@example.org",), threaded=True, port=2599))
        (config,) = service.configs
        (app,) = config.apps
        self.assertTrue(config.development)
        self.assertEqual(app.python, f"{self.folder}/desk.py:Desk")
        self.assertEqual(
            (app.options, app.match.recipients), ({"words": ["a", "b"], "size": "7"}, ("desk+*@example.org",))
        )
        self.assertTrue(app.threaded)
        smtp = [listener for listener in config.listeners if listener.protocol == "smtp"]
        self.assertEqual([str(each.address) for each in smtp], ["127.0.0.1:2599", "[::1]:2599"])
        self.assertEqual([each.next_free_port for each in smtp], [False, False])
        self.assertEqual(service.state, "started")

    def test_without_a_port_it_is_the_usual_one_or_the_next(self) -> None:
        listener = self.started().configs[0].listeners[0]
        self.assertEqual((str(listener.address), listener.next_free_port), ("127.0.0.1:2525", True))

    def test_the_only_app_of_a_file_need_not_be_named(self) -> None:
        self.assertEqual(self.started().configs[0].apps[0].name, "Desk")

    def test_of_several_one_must_be_named(self) -> None:
        self.write(APP % "one" + "class Other(Desk): pass\nAlias = Other\n")
        self.assertIn(
            'has several apps: Desk, Other; name one, as in "desk.py:Desk"', str(self.refused(Wanted("desk.py")))
        )

    def test_what_is_no_app_is_refused(self) -> None:
        self.write("x = 1\n")
        for wanted, key, text in (
            (Wanted("desk.py"), "python", "has no app"),
            (Wanted("desk.py:Desk"), "python", "has no class Desk"),
            (Wanted("missing.py"), "python", "No such file"),
            (Wanted("package.module:Desk"), "python", "is no file"),
            (Wanted("desk"), "python", "is no file"),
        ):
            error = self.refused(wanted)
            self.assertEqual(error.key, key)
            self.assertIn(text, str(error))

    def test_options_and_patterns_that_cannot_be_are_refused_with_their_names(self) -> None:
        for wanted, key in (
            (Wanted("desk.py", {"size": "large"}), "options.size"),
            (Wanted("desk.py", {"words": "[oops"}), "--option words"),
            (Wanted("desk.py", {}, ("nobody",)), "--match"),
        ):
            self.assertEqual(self.refused(wanted).key, key)

    def test_how_to_try_it_is_said(self) -> None:
        self.started(Wanted("desk.py", patterns=("desk+*@example.org",)))
        (text,) = self.said
        self.assertIn("desk.py: Desk is ready: development mode, this machine only.", text)
        self.assertIn("  127.0.0.1:2525     smtp, STARTTLS\n", text)
        self.assertIn("Mail for desk+*@example.org goes to Desk, all other will lie in data/", text.replace("./", ""))
        self.assertIn(f"\n  {swaks('127.0.0.1:2525', 'desk+1@example.org')}\n", text)
        self.assertIn(f"\n  {python('127.0.0.1:2525', 'desk+1@example.org')}\n", text)

    def test_an_app_without_message_lets_mail_go_on(self) -> None:
        self.write(POLICY)
        self.started()
        self.assertIn("Policy is asked about mail for everybody; what it lets go on will lie in", self.said[0])


class CommandsTests(SynchronousTestCase):
    def test_the_commands_can_be_copied_whatever_the_address(self) -> None:
        self.assertEqual(
            swaks("[::1]:2525", "a'b@example.org"),
            "swaks --server '[::1]:2525' --from me@example.net --to 'a'\"'\"'b@example.org'",
        )
        self.assertIn(
            'smtplib.SMTP("::1", 2525).sendmail("me@example.net", "you@example.org",',
            python("[::1]:2525", "you@example.org"),
        )

    def test_an_address_that_fits_a_pattern(self) -> None:
        for pattern, address in (
            ("*", "you@example.org"),
            ("*@lists.example.org", "you@lists.example.org"),
            ("tickets+*@example.org", "tickets+1@example.org"),
            ("a?c@*", "a1c@example.org"),
            ("x@*.example.net", "x@a.example.net"),
            ("x@mx?.example.net", "x@mxa.example.net"),
        ):
            self.assertEqual(example_of(pattern), address)


class ReloadTests(RunCase):
    def look(self) -> None:
        self.clock.advance(LOOK_EVERY)

    def test_a_file_that_is_as_it_was_changes_nothing(self) -> None:
        service = self.started()
        self.look()
        self.look()
        self.assertEqual((len(service.configs), len(self.said)), (1, 1))

    def test_a_changed_file_is_used(self) -> None:
        service = self.started()
        self.write(APP % "two")
        self.look()
        self.assertEqual((len(service.configs), self.said[1:]), (2, ["desk.py has changed and is in use."]))

    def test_an_error_is_told_with_its_line_and_the_old_version_stays(self) -> None:
        service = self.started()
        for text, told in (
            ("import mailserver\nclass Desk(\n", "desk.py:2: SyntaxError: "),
            ("import mailserver\n\n\nnonsense\n", "desk.py:4: NameError: name 'nonsense' is not defined"),
            ("import math\nmath.sqrt(\n-1)\n", "desk.py:2: ValueError: "),
            ("x = 1\n", "has no app"),
        ):
            self.write(text)
            self.look()
            self.assertIn(told, self.said[-1])
            self.assertIn("The version before it stays in use.", self.said[-1])
        self.assertEqual(len(service.configs), 1)
        self.write(APP % "three")
        self.look()
        self.assertEqual(len(service.configs), 2)

    def test_an_error_is_told_once(self) -> None:
        self.started()
        self.write("nonsense\n")
        self.look()
        self.look()
        self.assertEqual(len(self.said), 2)

    def test_trouble_of_the_server_is_told_too(self) -> None:
        service = self.started()
        service.trouble = StartError(["no port"])
        self.write(APP % "two")
        self.look()
        self.assertEqual(self.said[1:], ["no port\nThe version before it stays in use."])

    def test_a_file_that_an_editor_has_taken_away_for_a_moment_is_waited_for(self) -> None:
        service = self.started()
        Path("desk.py").rename("desk.py~")
        self.look()
        self.assertEqual(len(self.said), 1)
        self.write(APP % "two")
        self.look()
        self.assertEqual(len(service.configs), 2)

    def test_at_the_end_nobody_looks_any_more(self) -> None:
        run = self.app_run()
        run.prepare()
        run.start()
        self.successResultOf(run.stop())
        self.assertEqual(self.clock.getDelayedCalls(), [])
        service: Any = run.service
        self.assertEqual(service.state, "stopped")
