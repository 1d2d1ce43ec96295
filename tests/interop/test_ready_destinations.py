"""
Ready destinations, end to end: a real client, real programs, a real web server.

The programs are Python files; no shell is anywhere.
"""

from __future__ import annotations

import base64
import json
import os
import smtplib
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from unittest import SkipTest

from mailserver.apps.signing import verify_signature
from tests.interop.clients import SENDER, session
from tests.interop.running import DOMAINS, LIMITS, SERVER, RunningServer, ServerTestCase, await_true, listener

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
TEXT = b"From: <sender@example.net>\r\nMessage-ID: <1@example.net>\r\nSubject: hello\r\n\r\nhello\r\n"
#: Writes what it was told into a file of the mailbox's name, and ends with the status in the detail.
PROGRAM = """
import json, os, sys
text = sys.stdin.buffer.read()
with open(sys.argv[1] + ".json", "w") as file:
    json.dump({"arguments": sys.argv[1:], "environment": dict(os.environ), "text": text.decode()}, file)
print("told by the program")
print("a line for the log", file=sys.stderr)
sys.exit(int(os.environ["EXTENSION"] if os.environ["EXTENSION"].isdigit() else 0))
"""
#: Starts a child that it waits for, and says both their numbers.
SLEEPER = """
import os, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
with open("pids", "w") as file:
    file.write(f"{os.getpid()} {child.pid}")
os.rename("pids", "sleeping")
child.wait()
"""
#: Ends without a look at its stdin.
DEAF = "import sys; sys.stdin.close()"


class Hook(ThreadingHTTPServer):
    """A web server on loopback.  answers: path -> status and body."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), HookRequest)
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.answers: dict[str, tuple[int, bytes]] = {}
        self.thread = threading.Thread(target=self.serve_forever, args=(0.02,))
        self.thread.start()

    def end(self) -> None:
        self.shutdown()
        self.server_close()
        self.thread.join()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class HookRequest(BaseHTTPRequestHandler):
    """One request."""

    server: Hook

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.requests.append((self.path, dict(self.headers), body))
        status, answer = self.server.answers.get(self.path, (200, b""))
        self.send_response(status)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        """Nobody reads it."""


def app(name: str, what: str, recipients: str = "") -> str:
    """An [[app]] table."""
    return f'[[app]]\nname = "{name}"\n{what}\nmatch = {{ recipients = "{recipients or name}*@example.org" }}\n'


class ReadyCase(ServerTestCase):
    def serve_apps(self, *apps: str) -> RunningServer:
        doors = listener("smtp4", "127.0.0.1:0") + listener("lmtp4", "127.0.0.1:0", "lmtp")
        return self.serve(SERVER + LIMITS + doors + DOMAINS + "".join(apps))

    def program(self, name: str, text: str) -> tuple[Path, str]:
        """(its folder, the TOML of its call)."""
        folder = self.new_directory()
        (folder / f"{name}.py").write_text(text)
        return folder, f'"{sys.executable}", "{folder}/{name}.py"'

    def hook(self) -> Hook:
        hook = Hook()
        self.addCleanup(hook.end)
        return hook

    def send(self, server: RunningServer, *recipients: str, text: bytes = TEXT) -> tuple[int, str]:
        """The reply to the text; or to the first RCPT that is refused."""
        with session(server.address("smtp4")) as client:
            client.docmd(f"MAIL FROM:<{SENDER}>")
            for recipient in recipients:
                code, told = client.docmd(f"RCPT TO:<{recipient}>")
                if code != 250:
                    return code, told.decode()
            code, told = client.data(text)
            return code, told.decode()


class CommandTests(ReadyCase):
    def test_a_program_gets_the_message_and_its_envelope_and_decides(self) -> None:
        folder, call = self.program("take", PROGRAM)
        what = f'command = {{ run = [{call}, "{{user}}", "{{sender}}"], folder = "{folder}", tell_output = true }}'
        server = self.serve_apps(app("ticket", what))
        self.assertEqual(self.send(server, "ticket@example.org"), (250, "2.0.0 told by the program"))
        told = json.loads((folder / "ticket.json").read_text())
        self.assertEqual(told["arguments"], ["ticket", SENDER])
        environment = told["environment"]
        self.assertEqual(environment["RECIPIENT"], "ticket@example.org")
        self.assertEqual((environment["SENDER"], environment["CLIENT_ADDRESS"]), (SENDER, "127.0.0.1"))
        self.assertNotIn("NOTIFY_SOCKET", environment)
        self.assertTrue(told["text"].startswith(f"Return-Path: <{SENDER}>\nDelivered-To: ticket@example.org\n"))
        self.assertTrue(told["text"].endswith("\nSubject: hello\n\nhello\n"))
        for status, reply in ((67, "5.1.1"), (75, "4.3.0"), (77, "5.7.1"), (1, "4.3.0")):
            code, text = self.send(server, f"ticket+{status}@example.org")
            self.assertEqual((str(code)[0], text.split(" ")[0]), (reply[0], reply), status)
        events = server.await_events("command", 5)
        self.assertEqual([event["status"] for event in events], [0, 67, 75, 77, 1])
        self.assertEqual({event["stderr"] for event in events}, {"a line for the log"})

    def test_by_lmtp_each_recipient_has_its_own_answer(self) -> None:
        folder, call = self.program("take", PROGRAM)
        server = self.serve_apps(app("ticket", f'command = {{ run = [{call}, "{{local}}"], folder = "{folder}" }}'))
        with smtplib.LMTP(*server.address("lmtp4"), timeout=30) as client:
            client.ehlo_or_helo_if_needed()
            client.docmd(f"MAIL FROM:<{SENDER}>")
            for detail in ("0", "77", "75"):
                client.docmd(f"RCPT TO:<ticket+{detail}@example.org>")
            client.putcmd("DATA")
            client.getreply()
            client.send(TEXT + b".\r\n")
            self.assertEqual([client.getreply()[0] for _ in range(3)], [250, 550, 451])

    def test_a_program_that_reads_nothing_takes_a_large_message(self) -> None:
        _folder, call = self.program("deaf", DEAF)
        server = self.serve_apps(app("deaf", f"command = {{ run = [{call}] }}"))
        self.assertEqual(self.send(server, "deaf@example.org", text=TEXT + b"x" * 70 + b"\r\n" * 500_000)[0], 250)

    def test_who_takes_too_long_is_ended_with_all_its_children(self) -> None:
        folder, call = self.program("sleep", SLEEPER)
        server = self.serve_apps(app("slow", f'command = {{ run = [{call}], folder = "{folder}", timeout = 2 }}'))
        self.assertEqual(self.send(server, "slow@example.org")[0], 451)
        for pid in map(int, (folder / "sleeping").read_text().split()):
            await_true(lambda pid=pid: is_gone(pid), f"the end of process {pid}")

    def test_arguments_in_the_address(self) -> None:
        folder, call = self.program("take", PROGRAM)
        what = f'command = {{ run = [{call}, "{{user}}", "{{arg.b}}"], folder = "{folder}", arguments = true }}'
        server = self.serve_apps(app("run", what))
        self.assertEqual(self.send(server, "run+a=1+b=two%20words@example.org")[0], 250)
        told = json.loads((folder / "run.json").read_text())
        self.assertEqual(told["arguments"], ["run", "two words"])
        self.assertEqual((told["environment"]["ARG_A"], told["environment"]["ARG_B"]), ("1", "two words"))
        self.assertEqual(self.send(server, "run+a=%@example.org")[0], 553)

    def test_another_user(self) -> None:
        if os.geteuid() != 0:
            raise SkipTest("only root can run programs as somebody else")
        folder, _call = self.program("who", "")
        what = f'command = {{ run = ["id", "-un"], folder = "{folder}", user = "daemon", tell_output = true }}'
        server = self.serve_apps(app("who", what))
        self.assertEqual(self.send(server, "who@example.org"), (250, "2.0.0 daemon"))


class WebhookTests(ReadyCase):
    def test_json_with_its_signature_and_what_the_answers_mean(self) -> None:
        hook = self.hook()
        server = self.serve_apps(
            app("json", f'webhook = {{ url = "{hook.url}/json", secret = "{SECRET}", arguments = true }}'),
            app("gone", f'webhook = {{ url = "{hook.url}/gone" }}'),
            app("wrong", f'webhook = {{ url = "{hook.url}/wrong" }}'),
            app("closed", 'webhook = { url = "http://127.0.0.1:1/" }'),
        )
        hook.answers["/json"] = (200, b'{"reply": "ticket 42"}')
        hook.answers["/gone"] = (422, b'{"refuse": {"code": 550, "enhanced": "5.1.6", "text": "has moved"}}')
        hook.answers["/wrong"] = (404, b"<html>not here</html>")
        self.assertEqual(self.send(server, "json+a=1@example.org"), (250, "2.0.0 ticket 42"))
        ((_path, headers, body),) = hook.requests
        self.assertTrue(verify_signature(body, headers, SECRET))
        told = json.loads(body)
        self.assertEqual((told["subject"], told["text"].strip(), told["arguments"]), ("hello", "hello", {"a": "1"}))
        self.assertEqual(told["client"]["address"], "127.0.0.1")
        self.assertEqual(self.send(server, "gone@example.org"), (550, "5.1.6 has moved"))
        self.assertEqual(self.send(server, "wrong@example.org")[0], 451)
        self.assertEqual(self.send(server, "closed@example.org")[0], 451)
        self.assertNotIn(SECRET, server.told())

    def test_a_large_message_as_it_came_and_as_a_form(self) -> None:
        hook = self.hook()
        server = self.serve_apps(
            app("raw", f'webhook = {{ url = "{hook.url}/raw", format = "raw" }}'),
            app("form", f'webhook = {{ url = "{hook.url}/form", format = "form" }}'),
        )
        attachment = base64.encodebytes(os.urandom(3_000_000)).replace(b"\n", b"\r\n")
        text = (
            b"Subject: large\r\nMIME-Version: 1.0\r\nContent-Type: application/pdf\r\n"
            b"Content-Disposition: attachment; filename=large.pdf\r\nContent-Transfer-Encoding: base64\r\n\r\n"
        ) + attachment
        self.assertEqual(self.send(server, "raw@example.org", "form@example.org", text=text)[0], 250)
        bodies = {path: (headers, body) for path, headers, body in hook.requests}
        headers, body = bodies["/raw"]
        self.assertEqual((body, headers["X-Envelope-To"]), (text, "raw@example.org"))
        headers, body = bodies["/form"]
        self.assertIn(b'name="subject"\r\n\r\nlarge\r\n', body)
        self.assertIn(base64.decodebytes(attachment), body)


class SimplestTests(ReadyCase):
    def test_discard_and_reject(self) -> None:
        server = self.serve_apps(app("null", "discard = true"), app("shut", 'reject = "Closed"'))
        self.assertEqual(self.send(server, "null@example.org")[0], 250)
        self.assertEqual(self.send(server, "shut@example.org"), (550, "5.7.1 Closed"))
        (event,) = server.await_events("discarded")
        self.assertEqual((event["app"], event["recipients"]), ("null", ["null@example.org"]))


def is_gone(pid: int) -> bool:
    """Is there no such process, or only what is left of one?"""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state == "Z"
