"""The examples that are programs: receive and print, several listeners, and the server in an asyncio program."""

from __future__ import annotations

import re
import shutil
import signal
import smtplib
import subprocess
import sys
from pathlib import Path

from tests.interop.app_wire import EXAMPLES, trusting
from tests.interop.clients import missing
from tests.interop.running import PATIENCE, ServerTestCase, await_true, free_port, run

MAIL = "From: me@example.net\r\nSubject: =?utf-8?q?Stra=C3=9Fe?=\r\n\r\nIt works.\r\n\x1b[2J\r\n"


class Program:
    """A running example."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.log = folder / "told"
        with self.log.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, *arguments],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def told(self) -> str:
        """What it has printed."""
        return self.log.read_text("utf-8")

    def await_told(self, pattern: str) -> re.Match[str]:
        """Wait until it has printed this."""
        await_true(
            lambda: bool(re.search(pattern, self.told())) or self.process.poll() is not None, pattern, self.told
        )
        found = re.search(pattern, self.told())
        if found is None:
            raise AssertionError(f"{pattern!r} is not in: {self.told()}")
        return found

    def interrupt(self) -> int:
        """Ctrl-C; the exit status."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(PATIENCE)

    def end(self) -> None:
        """Whatever state it is in."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(PATIENCE)


class ScriptTests(ServerTestCase):
    def begin(self, *arguments: str) -> Program:
        program = Program(self.new_directory(), *arguments)
        self.addCleanup(program.end)
        return program

    def example(self, name: str) -> tuple[Program, int]:
        """The program, on a free port, and the port."""
        program = self.begin(str(EXAMPLES / name), "127.0.0.1:0")
        return program, int(program.await_told(r"Listening on port (\d+)")[1])

    def send(self, port: int) -> str:
        with smtplib.SMTP("127.0.0.1", port, timeout=PATIENCE) as client:
            client.ehlo()
            client.mail("me@example.net")
            client.rcpt("you@example.org")
            code, text = client.data(MAIL)
            return f"{code} {text.decode()}"

    def test_receive_and_print(self) -> None:
        program, port = self.example("receive_and_print.py")
        self.assertEqual(self.send(port), "250 2.0.0 Printed, and not kept")
        program.await_told("It works")
        self.assertIn(
            "From:     me@example.net\nTo:       you@example.org\nSubject:  Straße\n\nIt works.\n?[2J\n",
            program.told(),
        )
        self.assertEqual(program.interrupt(), 0)
        self.assertNotIn("Traceback", program.told())

    def test_receive_and_print_with_swaks(self) -> None:
        if reason := missing("swaks"):
            self.skipTest(reason)
        program, port = self.example("receive_and_print.py")
        address = f"127.0.0.1:{port}"
        run(["swaks", "--server", address, "--to", "you@example.org", "--from", "me@example.net",
             "--header", "Subject: hello", "--attach", f"@{EXAMPLES / 'README.md'}"])  # fmt: skip
        program.await_told(r"Subject:  hello\nAttached: README\.md\n\nThis is a test mailing")

    def test_asyncio_app(self) -> None:
        program, port = self.example("asyncio_app.py")
        self.assertEqual(
            [self.send(port), self.send(port)], [f"250 2.0.0 Message {number} is done" for number in (1, 2)]
        )
        self.assertEqual(program.interrupt(), 0)
        self.assertEqual(program.told().splitlines()[1:], ["1: 'Straße'", "2: 'Straße'", "stopped"])

    def test_several_listeners_are_the_ones_of_its_manual(self) -> None:
        text = (EXAMPLES / "several_listeners.py").read_text()
        ports = [free_port() for _ in range(4)]
        for usual, port in zip(
            ("127.0.0.1:2525", "127.0.0.1:4650", "127.0.0.1:2424", "[::1]:2525"), ports, strict=True
        ):
            self.assertIn(f'"{usual}"' if ":4650" not in usual and usual != "127.0.0.1:2525" else usual, text)
            text = text.replace(f':{usual}"', f':{usual.rpartition(":")[0]}:{port}"')
            text = text.replace(f'"{usual}"', f'"{usual.rpartition(":")[0]}:{port}"')
        folder = self.new_directory()
        (folder / "several.py").write_text(text)
        program = self.begin(str(folder / "several.py"))
        program.await_told(r"listens on \[::1\]")
        said = []
        with smtplib.SMTP("127.0.0.1", ports[0], timeout=PATIENCE) as client:
            said.append(self.talk(client))
        with smtplib.SMTP_SSL("127.0.0.1", ports[1], timeout=PATIENCE, context=trusting()) as client:
            said.append(self.talk(client))
        with smtplib.LMTP("127.0.0.1", ports[2], timeout=PATIENCE) as client:
            said.append(self.talk(client))
        with smtplib.SMTP("::1", ports[3], timeout=PATIENCE) as client:
            said.append(self.talk(client))
        self.assertEqual(
            [re.sub(r"\d+", "N", each) for each in said],
            [
                "N octets by smtp-N",
                "N octets by smtp-N, TLSvN.N",
                "<you@example.org> N octets by lmtp",
                "N octets by smtp-N",
            ],
        )
        self.assertEqual(program.interrupt(), 0)
        self.assertTrue(program.told().endswith("stopped\n"), program.told())

    def talk(self, client: smtplib.SMTP) -> str:
        client.ehlo_or_helo_if_needed()
        client.mail("me@example.net")
        client.rcpt("you@example.org")
        return client.data(MAIL)[1].decode().partition(" ")[2]


class FolderTests(ServerTestCase):
    def test_each_example_has_its_line_and_its_test(self) -> None:
        page = (EXAMPLES / "README.md").read_text("utf-8")
        here = "".join(
            path.read_text("utf-8") for path in (EXAMPLES.parent / "tests" / "interop").glob("test_example_*.py")
        )
        names = sorted(path.name for path in EXAMPLES.glob("*.py"))
        self.assertGreaterEqual(len(names), 8)
        for name in names:
            self.assertIn(f"({name})", page)
            self.assertIn(f'"{name}', here)

    def test_each_says_how_to_run_it(self) -> None:
        for path in EXAMPLES.glob("*.py"):
            text = path.read_text("utf-8")
            self.assertIn("\nRun it:  ", text, path.name)
            for command in re.findall(r"python examples/(\w+\.py)|mailserver app run examples/(\w+\.py)", text):
                self.assertTrue((EXAMPLES / (command[0] or command[1])).is_file(), command)

    def test_the_configuration_in_each_is_right(self) -> None:
        """The [[app]] table of the module's text, in a server that has the files it names."""
        count = 0
        for path in sorted(EXAMPLES.glob("*.py")):
            _, found, rest = path.read_text("utf-8").partition("[[app]]")
            if not found:
                continue
            count += 1
            folder = self.new_directory()
            shutil.copytree(EXAMPLES, folder / "examples")
            (folder / "secret").write_text("correct-horse-battery-staple")
            table = re.sub(r'secret_file = "[^"]+"', f'secret_file = "{folder}/secret"', rest.partition('"""')[0])
            (folder / "c.toml").write_text(
                '[server]\nhostname = "mail.example.org"\ndata_dir = "data"\n'
                '[[listener]]\naddress = "127.0.0.1:2525"\nprotocol = "smtp"\n[[app]]' + table
            )
            said = run(
                [str(Path(sys.executable).parent / "mailserver"), "--config", "c.toml", "config", "check"], cwd=folder
            )
            self.assertIn("ok (1 listener", said, path.name)
        self.assertEqual(count, 5)
