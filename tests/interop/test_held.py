"""Messages that wait (FUTURERELEASE, RFC 4865), as a client, an operator and a crash see them."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from pathlib import Path

from tests.interop.clients import log_in, session
from tests.interop.running import (
    DOMAINS,
    LIMITS,
    PASSWORDS,
    SERVER,
    STANDARD,
    RunningServer,
    ServerTestCase,
    await_true,
    listener,
)

ANNA, BOB = "anna@example.org", "bob@example.org"
TEXT = b"From: <anna@example.org>\r\nDate: Fri, 20 Nov 2026 12:00:00 +0000\r\nMessage-ID: <1@example.org>\r\nSubject: %s\r\n\r\nx\r\n"
WORKERS = f"{SERVER}workers = 2\n{LIMITS}{listener('sub', '127.0.0.1:0', 'submission')}{DOMAINS}"


class HeldTests(ServerTestCase):
    def submit(
        self,
        server: RunningServer,
        *options: str,
        subject: bytes = b"later",
        door: str = "submission4",
        recipients: tuple[str, ...] = (BOB,),
    ) -> str:
        """What EHLO has told of FUTURERELEASE."""
        with session(server.address(door), "starttls") as client:
            log_in(client, "PLAIN", ANNA, PASSWORDS[ANNA])
            client.sendmail(ANNA, recipients, TEXT % subject, mail_options=options)
            return client.esmtp_features["futurerelease"]

    def held(self, server: RunningServer) -> list[Path]:
        return sorted((server.data / "spool" / "held").glob("*"))

    def subjects(self, server: RunningServer) -> list[bytes]:
        return [re.findall(rb"(?m)^Subject: (.*)$", text)[0] for text in server.messages(BOB)]

    def await_bob(self, server: RunningServer, count: int = 1) -> None:
        await_true(lambda: len(server.files(BOB)) >= count, f"{count} messages", server.told)
        await_true(lambda: not self.held(server), "an empty spool", server.told)
        self.assertEqual(len(server.files(BOB)), count)

    def test_it_is_not_there_and_then_it_is(self) -> None:
        server = self.serve()
        told = self.submit(server, "HOLDFOR=2")
        self.assertRegex(told, r"^2592000 20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ$")
        self.assertEqual(server.files(BOB), [])
        [file] = self.held(server)
        self.assertEqual((file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777), (0o600, 0o700))
        self.await_bob(server)
        self.assertEqual(server.messages(BOB), [(TEXT % b"later").replace(b"\r\n", b"\n")])
        self.assertIn(b"with ESMTPSA id ", server.files(BOB)[0].read_bytes())

    def test_until_a_time_that_is_over_is_at_once(self) -> None:
        server = self.serve()
        self.submit(server, "HOLDUNTIL=2020-01-01T00:00:00Z")
        self.assertEqual((self.subjects(server), self.held(server)), ([b"later"], []))

    def test_only_submission_offers_it(self) -> None:
        server = self.serve()
        with session(server.address("smtp4")) as client:
            client.ehlo()
            self.assertFalse(client.has_extn("futurerelease"))

    def test_a_kill_while_it_waits(self) -> None:
        server = self.serve()
        self.submit(server, "HOLDFOR=4", subject=b"first")
        server.running.send_signal(signal.SIGKILL)
        server.wait()
        self.assertEqual(server.files(BOB), [])
        server.start()
        self.await_bob(server)
        self.assertEqual(self.subjects(server), [b"first"])

    def test_a_crash_between_delivery_and_removal_doubles_nothing(self) -> None:
        server = self.serve()
        self.submit(server, "HOLDFOR=1")
        await_true(lambda: bool(self.held(server)), "a held message", server.told)
        [file] = self.held(server)
        copy = file.read_bytes()
        self.await_bob(server)
        self.assertEqual(server.stop(), 0)
        # As if the process had died before it could remove it; and a reader has seen the message meanwhile.
        [message] = server.files(BOB)
        read = message.parent.parent / "cur" / f"{message.name}:2,S"
        message.rename(read)
        file.write_bytes(copy)
        server.start()
        await_true(lambda: not self.held(server), "an empty spool", server.told)
        self.assertEqual((server.files(BOB), read.exists()), ([], True))

    def test_a_reload_keeps_it(self) -> None:
        server = self.serve()
        self.submit(server, "HOLDFOR=3", subject=b"kept")
        server.hang_up()
        self.assertEqual((len(self.held(server)), server.files(BOB)), (1, []))
        self.await_bob(server)
        await_true(lambda: not self.held(server), "an empty spool", server.told)
        self.assertEqual(self.subjects(server), [b"kept"])

    def test_two_workers_deliver_it_once(self) -> None:
        server = self.serve(WORKERS)
        for number in range(4):
            self.submit(server, "HOLDFOR=2", subject=b"%d" % number, door="sub")
        self.await_bob(server, 4)
        self.assertEqual(sorted(self.subjects(server)), [b"0", b"1", b"2", b"3"])

    def test_a_worker_that_held_it_dies(self) -> None:
        server = self.serve(WORKERS)
        self.submit(server, "HOLDFOR=3", door="sub")
        for row in json.loads(server.accounts("stats", "--json"))["workers"]:
            os.kill(row["pid"], signal.SIGKILL)
        self.assertEqual((len(self.held(server)), server.files(BOB)), (1, []))
        self.await_bob(server)
        await_true(lambda: not self.held(server), "an empty spool", server.told)
        self.assertEqual(len(server.files(BOB)), 1)

    def test_who_is_gone_by_then_is_reported_to_the_sender(self) -> None:
        server = self.serve()
        self.submit(server, "HOLDFOR=3", "ENVID=QQ+2B3", recipients=("small@example.org",))
        server.accounts("account", "remove", "--yes", "small@example.org")
        await_true(lambda: bool(server.files(ANNA)), "a report", server.told)
        report = server.files(ANNA)[0].read_bytes()
        self.assertTrue(report.startswith(b"Return-Path: <>\n"), report)
        for line in (
            b"Content-Type: multipart/report; report-type=delivery-status;",
            b"Original-Envelope-Id: QQ+3",
            b"Final-Recipient: rfc822; small@example.org",
            b"Action: failed",
            b"Status: 5.1.1",
            b"Future-Release-Request: for;3",
            b"Subject: later",
        ):
            self.assertIn(line, report.splitlines())
        await_true(lambda: not self.held(server), "an empty spool", server.told)

    def test_the_operator_lists_releases_and_deletes(self) -> None:
        server = self.serve()
        self.submit(server, "HOLDFOR=86400", subject=b"kept")
        self.submit(server, "HOLDFOR=86400", subject=b"gone")
        rows = json.loads(server.accounts("spool", "list", "--format", "json"))
        self.assertEqual([(row["sender"], row["recipients"]) for row in rows], [(ANNA, [BOB])] * 2)
        server.accounts("spool", "delete", self._id(server, b"gone"))
        server.accounts("spool", "release", self._id(server, b"kept"))
        server.hang_up()
        self.await_bob(server)
        self.assertEqual(self.subjects(server), [b"kept"])
        self.assertEqual(server.accounts("spool", "list"), "No message waits.\n")

    def _id(self, server: RunningServer, subject: bytes) -> str:
        [file] = [each for each in self.held(server) if b"Subject: " + subject in each.read_bytes()]
        return file.name.split(".")[1]

    def test_the_limits_of_the_configuration(self) -> None:
        server = self.serve(STANDARD.replace("[limits]", '[limits]\nhold = "1 h"\nheld_messages = 1'))
        with session(server.address("submission4"), "starttls") as client:
            log_in(client, "PLAIN", ANNA, PASSWORDS[ANNA])
            self.assertEqual(client.mail(ANNA, ["HOLDFOR=3601"])[0], 501)
            late = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 3700))
            self.assertEqual(client.mail(ANNA, [f"HOLDUNTIL={late}"])[0], 501)
            for code in (250, 452):
                self.assertEqual(client.mail(ANNA, ["HOLDFOR=3600"])[0], 250)
                self.assertEqual(client.rcpt(BOB)[0], 250)
                self.assertEqual(client.data(TEXT % b"x")[0], code)
        self.assertEqual(len(self.held(server)), 1)
