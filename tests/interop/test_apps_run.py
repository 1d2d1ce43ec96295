"""
The first minutes with an app: `mailserver app new` writes one whose test passes, `mailserver app run` tries it.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import smtplib
import subprocess
import sys
from pathlib import Path

from tests.interop.clients import missing
from tests.interop.running import PATIENCE, PROGRAMS, RunningServer, ServerTestCase, await_true, run

ROOT = Path(__file__).resolve().parent.parent.parent


class AppProcess:
    """`mailserver app run` in a folder."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.folder = folder
        self.log = folder / "told"
        with self.log.open("wb") as out:
            self.process = subprocess.Popen(
                [str(PROGRAMS / "mailserver"), "app", "run", *arguments],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
            )

    def told(self) -> str:
        """What it has said, log and all."""
        return self.log.read_text("utf-8")

    def await_told(self, text: str) -> None:
        """Wait until it has said this."""
        await_true(lambda: text in self.told() or self.process.poll() is not None, repr(text), self.told)

    def port(self) -> int:
        """Where it listens."""
        self.await_told("Ctrl-C ends the server.")
        found = re.search(r"(?m)^  127\.0\.0\.1:(\d+) +smtp, STARTTLS$", self.told())
        assert found is not None, self.told()
        return int(found[1])

    def interrupt(self) -> int:
        """Ctrl-C; the exit status."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(PATIENCE)

    def end(self) -> None:
        """Whatever state it is in."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(PATIENCE)


class FirstAppTests(ServerTestCase):
    def new_app(self) -> Path:
        folder = self.new_directory()
        run([str(PROGRAMS / "mailserver"), "app", "new", "notes"], cwd=folder)
        return folder

    def run_app(self, folder: Path, *arguments: str) -> AppProcess:
        app = AppProcess(folder, "notes.py", "--port", "0", *arguments)
        self.addCleanup(app.end)
        return app

    def send(self, port: int, recipient: str = "notes+1@example.org") -> str:
        """What is said at the end."""
        with smtplib.SMTP("127.0.0.1", port, timeout=PATIENCE) as client:
            client.ehlo()
            client.mail("me@example.net")
            code, text = client.rcpt(recipient)
            if code == 250:
                code, text = client.data("Subject: hello\r\n\r\nIt works.\r\n")
            return f"{code} {text.decode()}"

    def test_its_test_passes_as_it_stands(self) -> None:
        folder = self.new_app()
        for runner in ("unittest", "twisted.trial"):
            said = run([sys.executable, "-m", runner, "test_notes"], cwd=folder)
            self.assertIn("Ran 2 tests", said)

    def test_its_configuration_runs_it(self) -> None:
        server = self.new_server(None)
        run([str(PROGRAMS / "mailserver"), "app", "new", "notes"], cwd=server.directory)
        text = (server.directory / "notes.toml").read_text().replace("127.0.0.1:2525", "127.0.0.1:0")
        self.assertIn("ok (1 listener", server_check(server, text))
        server.options = ("--config", "notes.toml")
        server.start()
        port = int(re.findall(r"on 127\.0\.0\.1:(\d+)", server.told())[0])
        self.assertRegex(self.send(port), r"\A250 2\.0\.0 Kept as \w+\.eml\Z")
        self.assertEqual(self.send(port, "notes+spam@example.org"), "550 5.1.1 Nobody reads this")
        self.assertEqual(self.send(port, "other@example.org")[:3], "550")
        self.assertEqual(len(list((server.directory / "notes-mail").iterdir())), 1)
        self.assertEqual(server.stop(), 0)

    def test_a_change_is_used_and_an_error_changes_nothing(self) -> None:
        folder = self.new_app()
        app = self.run_app(folder)
        port = app.port()
        file, text = folder / "notes.py", (folder / "notes.py").read_text()
        self.assertIn("Kept as", self.send(port))
        with smtplib.SMTP("127.0.0.1", port, timeout=PATIENCE) as open_before:
            open_before.ehlo()
            file.write_text(text.replace("Kept as", "Filed as"))
            app.await_told("notes.py has changed and is in use.")
            self.assertIn("Filed as", self.send(port))
            self.assertEqual(open_before.sendmail("me@example.net", "notes+2@example.org", "Subject: x\n\nx"), {})
        file.write_text(text.replace("class Notes(", "class Notes("[:-1] + ":("))
        app.await_told("The version before it stays in use.")
        self.assertRegex(app.told(), r"(?m)^notes\.py:\d+: SyntaxError: ")
        self.assertIn("Filed as", self.send(port))
        self.assertEqual(app.interrupt(), 0)
        self.assertNotIn("Traceback", app.told())
        self.assertEqual(len(list((folder / "notes-mail").iterdir())), 4)

    def test_mail_for_others_goes_to_the_inbox(self) -> None:
        folder = self.new_app()
        app = self.run_app(folder, "--match", "notes+*@example.org", "--option", 'closed=["a", "b"]')
        port = app.port()
        self.assertIn("Ok: queued", self.send(port, "else@example.net"))
        self.assertEqual(self.send(port, "notes+b@example.org")[:9], "550 5.1.1")
        (mail,) = (folder / "mailserver-data/mail/localhost/inbox/new").iterdir()
        self.assertIn(b"It works.", mail.read_bytes())
        self.assertEqual(app.interrupt(), 0)

    def test_the_commands_that_it_prints_work(self) -> None:
        folder = self.new_app()
        app = self.run_app(folder)
        app.port()
        commands = re.findall(r"(?m)^  ((?:swaks|python3) .*)$", app.told())
        self.assertEqual(len(commands), 2)
        for command in commands:
            words = shlex.split(command)
            if missing(words[0]):
                continue
            said = run([sys.executable if words[0] == "python3" else words[0], *words[1:]], cwd=folder)
            self.assertRegex(said, "Kept as|sent")
        self.assertGreater(len(list((folder / "notes-mail").iterdir())), 0)
        self.assertEqual(app.interrupt(), 0)

    def test_a_port_in_use_is_told(self) -> None:
        folder = self.new_app()
        port = self.run_app(folder).port()
        other = AppProcess(folder, "notes.py", "--port", str(port))
        self.addCleanup(other.end)
        self.assertEqual(other.process.wait(PATIENCE), 1)
        self.assertIn(f"127.0.0.1:{port}", other.told())
        self.assertNotIn("Traceback", other.told())


def server_check(server: RunningServer, text: str) -> str:
    """Write the configuration; what `config check` says of it."""
    (server.directory / "notes.toml").write_text(text)
    environ = {"MAILSERVER_CONFIG": os.fspath(server.directory / "notes.toml")}
    return run([str(PROGRAMS / "mailserver"), "config", "check"], cwd=server.directory, environ=environ)
