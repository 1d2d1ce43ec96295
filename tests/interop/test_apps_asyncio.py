"""
The server as a part of programs: one under the reactor of asyncio, and one that has no reactor of its own.

Each program is a process; it tells its port on its first line, and ends when its standard input does.
"""

from __future__ import annotations

import smtplib
import subprocess
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.interop.running import PATIENCE, PROGRAMS, await_true

APP = """
import asyncio, os, time
import mailserver
from twisted.internet import defer, task


class Waits(mailserver.App):
    @classmethod
    async def setup(cls, options):
        await asyncio.sleep(0)
        return asyncio.Lock()

    async def rcpt(self, recipient, parameters):
        wish = recipient.local
        if wish == "asyncio":
            async with self.shared:
                await asyncio.sleep(0.001)
        elif wish == "deferred":
            from twisted.internet import reactor
            await task.deferLater(reactor, 0.001, lambda: None)
        elif wish == "both":
            from twisted.internet import reactor
            await asyncio.gather(asyncio.sleep(0), task.deferLater(reactor, 0, lambda: None).asFuture(asyncio.get_running_loop()))
        elif wish == "timeout":
            try:
                async with asyncio.timeout(0.001):
                    await defer.Deferred()
            except TimeoutError:
                self.refuse(450, "4.4.1", "nobody answers")
        elif wish == "hang":
            try:
                await asyncio.Event().wait()
            finally:
                print("cancelled", flush=True)
        elif wish == "die":
            os._exit(5)
        else:
            raise KeyError(wish)

    def message(self, envelope, message):
        return asyncio.create_task(self.keep(message))

    async def keep(self, message):
        return f"{len([block async for block in message.blocks(2)])} blocks"
"""

UNDER_ASYNCIO = """
import sys
from twisted.internet import asyncioreactor
asyncioreactor.install()
from twisted.internet import reactor, stdio
from twisted.internet.protocol import Protocol
import mailserver.server
from waits import Waits


class End(Protocol):
    def connectionLost(self, reason):
        running.stop().addBoth(lambda _: reactor.stop())


running = mailserver.server.listen(Waits, "127.0.0.1:0", timeout=1)
print(running.ports[0], flush=True)
reactor.callWhenRunning(stdio.StandardIO, End())
reactor.run()
"""

IN_A_THREAD = """
import os, sys
import mailserver
from waits import Waits

running = mailserver.start(Waits, "127.0.0.1:0", timeout=1, isolated=True)
print(running.ports[0], flush=True)
sys.stdin.read()
mailserver.stop()
try:
    os.waitpid(-1, os.WNOHANG)
    print("a child is left", flush=True)
except ChildProcessError:
    print("no child is left", flush=True)
"""


class ProgramCase(SynchronousTestCase):
    def start(self, program: str) -> smtplib.SMTP:
        """A client of this program."""
        folder = Path(self.mktemp())
        folder.mkdir()
        (folder / "waits.py").write_text(APP, "utf-8")
        (folder / "program.py").write_text(program, "utf-8")
        self.process = subprocess.Popen(
            [str(PROGRAMS / "python"), "program.py"],
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.addCleanup(self.kill)
        assert self.process.stdout is not None
        port = self.process.stdout.readline()
        if not port.strip().isdecimal():
            self.fail(port + self.process.communicate(timeout=PATIENCE)[1])
        client = smtplib.SMTP("127.0.0.1", int(port), local_hostname="client.example.net", timeout=PATIENCE)
        self.addCleanup(client.close)
        client.ehlo()
        return client

    def kill(self) -> None:
        """Whatever state it is in."""
        self.process.kill()
        self.process.communicate()

    def end(self) -> str:
        """Let it end; what it has printed."""
        printed, errors = self.process.communicate("", timeout=PATIENCE)
        self.assertEqual(self.process.returncode, 0, errors)
        self.errors = errors
        return printed

    def rcpt(self, client: smtplib.SMTP, wish: str) -> int:
        return client.docmd(f"RCPT TO:<{wish}@example.org>")[0]

    def rcpt_of_another(self, client: smtplib.SMTP) -> int:
        """In a transaction of its own."""
        client.rset()
        client.docmd("MAIL FROM:<a@example.com>")
        return self.rcpt(client, "asyncio")


class AsyncioTests(ProgramCase):
    def test_callbacks_await_what_asyncio_and_what_twisted_knows(self) -> None:
        client = self.start(UNDER_ASYNCIO)
        client.docmd("MAIL FROM:<a@example.com>")
        wishes = ("asyncio", "deferred", "both", "timeout", "other")
        self.assertEqual([self.rcpt(client, wish) for wish in wishes], [250, 250, 250, 450, 451])
        self.assertEqual(client.data(b"hello\r\n"), (250, b"2.0.0 4 blocks"))
        client.quit()
        self.assertEqual(self.end(), "")

    def test_one_that_hangs_is_cancelled(self) -> None:
        client = self.start(UNDER_ASYNCIO)
        client.docmd("MAIL FROM:<a@example.com>")
        self.assertEqual([self.rcpt(client, wish) for wish in ("hang", "asyncio")], [451, 250])
        client.quit()
        self.assertEqual(self.end(), "cancelled\n")
        self.assertNotIn("Unhandled", self.errors)


class ThreadTests(ProgramCase):
    """A reactor in a thread gets no SIGCHLD; an isolated app is found dead and started again all the same."""

    def test_an_isolated_app(self) -> None:
        client = self.start(IN_A_THREAD)
        client.docmd("MAIL FROM:<a@example.com>")
        self.assertEqual([self.rcpt(client, wish) for wish in ("asyncio", "deferred", "die")], [250, 250, 451])
        await_true(lambda: self.rcpt_of_another(client) == 250, "the app runs again")
        self.assertEqual(client.data(b"hello\r\n"), (250, b"2.0.0 4 blocks"))
        client.quit()
        self.assertEqual(self.end(), "no child is left\n")
