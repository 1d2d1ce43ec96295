"""
Apps in the real server: the example of the manual, several apps, reload, workers, threads, statistics, the end.
"""

from __future__ import annotations

import json
import os

from tests.interop.clients import SENDER, session
from tests.interop.running import DOMAINS, LIMITS, SERVER, RunningServer, ServerTestCase, await_true, listener

ANNA = "anna@example.org"
DOOR = listener("smtp", "127.0.0.1:0", bare_newlines='"fix"')
TICKETS = """
import mailserver

class Tickets(mailserver.App):
    async def known(self, detail):
        return detail.isdigit()

    async def rcpt(self, recipient, parameters):
        if not await self.known(recipient.detail):
            self.refuse(550, "5.1.1", "no such ticket")

    async def message(self, envelope, message):
        octets = 0
        async for block in message.blocks():
            octets += len(block)
        return f"{octets} octets for {', '.join(r.address.detail for r in envelope.recipients)} by process {PID}"

import os
PID = os.getpid()
"""
APP = """
[[app]]
name = "tickets"
python = "tickets.py:Tickets"
match = { recipients = "tickets+*@example.org" }
"""
BLOCKS = """
import threading, time
import mailserver

class Blocks(mailserver.App):
    def message(self, envelope, message):
        if message.read().startswith(b"for ever"):
            threading.Event().wait()
        time.sleep(0.12)
        return threading.current_thread().name
"""


def config(*parts: str) -> str:
    return SERVER + LIMITS + DOOR + DOMAINS + "".join(parts)


def send(
    server: RunningServer, *recipients: str, text: bytes = b"Subject: x\r\n\r\nhello\r\n"
) -> tuple[list[int], str]:
    """The codes of RCPT, and the last reply."""
    with session(server.address("smtp")) as client:
        client.docmd(f"MAIL FROM:<{SENDER}>")
        codes = [client.docmd(f"RCPT TO:<{each}>")[0] for each in recipients]
        code, reply = client.data(text)
        return codes, f"{code} {reply.decode()}"


class AppsTests(ServerTestCase):
    def serve_with(self, text: str, **files: str) -> RunningServer:
        """A server with these files beside its configuration."""
        directory = self.new_directory()
        for name, content in files.items():
            (directory / f"{name}.py").write_text(content, "utf-8")
        self.new_directory = lambda: directory  # type: ignore[method-assign]
        return self.serve(text)

    def test_the_example_of_the_manual(self) -> None:
        server = self.serve_with(config(APP), tickets=TICKETS)
        codes, reply = send(server, "tickets+x@example.org", "nobody@example.org", "tickets+7@example.org", ANNA)
        self.assertEqual(codes, [550, 550, 250, 250])
        self.assertRegex(reply, r"^250 2\.0\.0 21 octets for 7 by process \d+$")
        self.assertEqual(len(server.messages(ANNA)), 1, "and the account has its own")
        (event,) = server.await_events("message")
        self.assertEqual(event["recipients"], ["tickets+7@example.org", ANNA])

    def test_a_changed_app_is_in_use_after_sighup_and_a_broken_one_never(self) -> None:
        server = self.serve_with(config(APP), tickets=TICKETS)
        app = server.directory / "tickets.py"
        with session(server.address("smtp")) as before:
            before.docmd(f"MAIL FROM:<{SENDER}>")
            self.assertEqual(before.docmd("RCPT TO:<tickets+1@example.org>")[0], 250)
            app.write_text(TICKETS.replace("isdigit", "isalpha"), "utf-8")
            server.hang_up()
            self.assertEqual(send(server, "tickets+1@example.org", "tickets+a@example.org")[0], [550, 250])
            self.assertEqual(before.data(b"x\r\n")[0], 250, "who was connected goes on with the app of then")
        app.write_text("this is no Python", "utf-8")
        server.hang_up()
        self.assertEqual(send(server, "tickets+1@example.org", "tickets+a@example.org")[0], [550, 250])
        self.assertIn("tickets.py", server.events("config")[-1]["problem"])
        server.write(config())
        server.hang_up()
        self.assertEqual(send(server, "tickets+a@example.org", ANNA)[0], [550, 250])

    def test_each_worker_has_its_own(self) -> None:
        server = self.serve_with(config(APP).replace("[server]", "[server]\nworkers = 2", 1), tickets=TICKETS)
        processes = {send(server, "tickets+7@example.org")[1].rpartition(" ")[2] for _ in range(40)}
        self.assertTrue(processes)
        self.assertNotIn(str(server.running.pid), processes)
        told = json.loads(server.accounts("stats", "--json"))
        self.assertEqual(told["apps"]["tickets"]["calls"], 80)

    def test_one_that_blocks_is_named_and_in_a_thread_it_blocks_nobody(self) -> None:
        app = '[[app]]\nname = "slow"\npython = "blocks.py:Blocks"\nmatch = { recipients = "slow@example.org" }\n'
        server = self.serve_with(config(app), blocks=BLOCKS)
        self.assertEqual(send(server, "slow@example.org")[1], "250 2.0.0 MainThread")
        (event,) = server.await_events("app-stall")
        self.assertEqual((event["app"], event["callback"]), ("slow", "message"))
        told = json.loads(server.accounts("stats", "--json"))["apps"]["slow"]
        self.assertGreaterEqual(told["longest_stall"], 0.12)
        self.assertEqual((told["longest_in"], told["stalls"]), ("message", 1))
        self.assertIn("slow", server.accounts("stats"))
        server.write(config(app + "threaded = true\n"))
        server.hang_up()
        self.assertIn("apps", send(server, "slow@example.org")[1])
        self.assertEqual(len(server.events("app-stall")), 1)

    def test_one_that_hangs_for_ever_in_a_thread_does_not_keep_the_server(self) -> None:
        app = (
            '[[app]]\nname = "slow"\npython = "blocks.py:Blocks"\nmatch = { recipients = "slow@example.org" }\n'
            "threaded = true\ntimeout = 1\n"
        )
        server = self.serve_with(config(app), blocks=BLOCKS)
        self.assertTrue(send(server, "slow@example.org", text=b"for ever\r\n")[1].startswith("451"))
        self.assertEqual(server.await_events("app-timeout")[0]["callback"], "message")
        self.assertIn("apps", send(server, "slow@example.org")[1])
        self.assertEqual(server.stop(), 0)

    def test_an_app_that_cannot_be_used_stops_the_start(self) -> None:
        server = self.new_server(config(APP))
        server.launch()
        self.assertNotEqual(server.wait(), 0)
        self.assertIn("app.tickets.python", server.told())
        self.assertIn(f"{server.config}:", server.told())

    def test_what_a_crash_has_left_is_swept(self) -> None:
        server = self.serve_with(config(APP), tickets=TICKETS)
        with session(server.address("smtp")) as client:
            client.docmd(f"MAIL FROM:<{SENDER}>")
            client.docmd("RCPT TO:<tickets+1@example.org>")
            client.docmd("DATA")
            client.send(b"x" * 70 + b"\r\n")
            client.send((b"x" * 70 + b"\r\n") * 5_000)
            folder = server.data / "apps"
            await_true(lambda: folder.exists() and len(os.listdir(folder)) == 1, "a file")
            server.running.kill()
            server.wait()
        self.assertEqual(len(os.listdir(folder)), 1)
        server.start()
        self.assertEqual(os.listdir(folder), [])
