"""Nodemailer, the mail client of Node.js: every kind of TLS and login, DSN, UTF-8, attachments, a pool of connections."""

from __future__ import annotations

import email
import email.policy
import hashlib
import json
import shutil
import subprocess
from email.message import EmailMessage
from pathlib import Path
from typing import Any

from tests.interop.clients import CLIENT_TIME, SENDER, ClientFailed
from tests.interop.running import PASSWORDS, RunningServer, ServerTestCase
from tests.interop.test_delivery import on_disk

ANNA, BOB = "anna@example.org", "bob@example.org"
SCRIPT = Path(__file__).with_name("nodemailer_send.js")
TEXT = b"From: <anna@example.org>\r\nMessage-ID: <1@example.org>\r\nDate: Fri, 20 Nov 2026 12:00:00 +0000\r\n\r\n.dots\r\n..\r\n"


def _missing() -> str | None:
    if shutil.which("node") is None:
        return "node is not installed"
    found = subprocess.run(
        ["node", "-e", 'require("nodemailer")'],
        check=False,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        timeout=CLIENT_TIME,
    )
    return "nodemailer is not installed (NODE_PATH)" if found.returncode else None


def nodemailer(*tasks: dict[str, Any]) -> list[list[dict[str, Any]]]:
    """Run them; the results of each, message by message."""
    done = subprocess.run(
        ["node", str(SCRIPT)], input=json.dumps(tasks).encode(), capture_output=True, timeout=CLIENT_TIME, check=False
    )
    if done.returncode:
        raise ClientFailed(done.stderr.decode("utf-8", "replace"))
    told: list[list[dict[str, Any]]] = json.loads(done.stdout)
    return told


def transport(server: RunningServer, door: str, **more: Any) -> dict[str, Any]:
    host, port = server.address(door)
    tls = {"secure": True} if "s4" in door else {"requireTLS": True}
    return {"host": host, "port": port, **tls, **more}


def login(account: str, method: str) -> dict[str, Any]:
    return {"auth": {"user": account, "pass": PASSWORDS[account]}, "authMethod": method}


def envelope(sender: str = SENDER, *to: str) -> dict[str, Any]:
    return {"envelope": {"from": sender, "to": list(to) or [ANNA]}, "raw": TEXT.decode()}


class NodemailerTests(ServerTestCase):
    skip = _missing()

    def test_every_kind_of_tls(self) -> None:
        server = self.serve()
        plain = transport(server, "smtp4", requireTLS=False, ignoreTLS=True)
        doors = [plain, transport(server, "smtp4"), transport(server, "smtps4")]
        results = nodemailer(*({"transport": door, "messages": [envelope()]} for door in doors))
        for (result,) in results:
            self.assertEqual(result["accepted"], [ANNA], result)
            self.assertRegex(result["response"], r"^250 2\.0\.0 Ok: queued as ")
        self.assertEqual(server.messages(ANNA), [on_disk(TEXT)] * 3)
        self.assertEqual([bool(event["tls"]) for event in server.await_events("message", 3)], [False, True, True])

    def test_every_login(self) -> None:
        server = self.serve()
        tasks = [
            {"transport": transport(server, door, **login(ANNA, method)), "messages": [envelope(ANNA, BOB)]}
            for door in ("submission4", "submissions4")
            for method in ("PLAIN", "LOGIN", "CRAM-MD5")
        ]
        wrong = login(ANNA, "PLAIN")
        wrong["auth"]["pass"] = "Xk-wrong-7Clay"
        *right, refused = nodemailer(
            *tasks, {"transport": transport(server, "submissions4", **wrong), "messages": [envelope(ANNA, BOB)]}
        )
        for (result,) in right:
            self.assertEqual(result.get("accepted"), [BOB], result)
        self.assertEqual((refused[0]["error"], refused[0]["code"]), ("EAUTH", 535))
        self.assertEqual(server.messages(BOB), [on_disk(TEXT)] * 6)
        self.assertEqual({event["user"] for event in server.await_events("message", 6)}, {ANNA})

    def test_dsn_and_a_refused_recipient(self) -> None:
        server = self.serve()
        dsn = {"id": "order 66", "return": "headers", "notify": ["success", "failure"], "recipient": SENDER}
        message = envelope(SENDER, ANNA, "nobody@example.org", BOB) | {"dsn": dsn}
        ((result,),) = nodemailer({"transport": transport(server, "smtp4"), "messages": [message]})
        self.assertEqual((result["accepted"], result["rejected"]), ([ANNA, BOB], ["nobody@example.org"]))
        self.assertEqual(server.messages(ANNA) + server.messages(BOB), [on_disk(TEXT)] * 2)

    def test_utf8_addresses_and_attachments(self) -> None:
        server = self.serve()
        octets = bytes(range(256)) * 4_000
        picture = self.new_directory() / "ünïcode.bin"
        picture.write_bytes(octets)
        message = {
            "from": "Grün <grün@example.net>",
            "to": "grün@example.org",
            "subject": "Grüße 🌱",
            "text": "привет\n.\n..\n",
            "html": "<p>привет</p>",
            "attachments": [{"path": str(picture)}],
        }
        ((result,),) = nodemailer({"transport": transport(server, "smtps4"), "messages": [message]})
        self.assertEqual(result.get("accepted"), ["grün@example.org"], result)
        (stored,) = server.messages("grün@example.org")
        parsed = email.message_from_bytes(stored, _class=EmailMessage, policy=email.policy.default)
        assert isinstance(parsed, EmailMessage)
        self.assertEqual(parsed["subject"], "Grüße 🌱")
        body = parsed.get_body(("plain",))
        assert body is not None
        self.assertEqual(body.get_content(), "привет\n.\n..\n")
        (attached,) = parsed.iter_attachments()
        self.assertEqual(hashlib.sha256(attached.get_content()).digest(), hashlib.sha256(octets).digest())
        self.assertEqual(server.await_events("message")[0]["protocol"], "UTF8SMTPS")

    def test_a_pool_sends_many_messages_over_few_connections(self) -> None:
        server = self.serve()
        pool = transport(server, "smtps4", pool=True, maxConnections=3, maxMessages=20)
        messages = [envelope(SENDER, ANNA, BOB) for _ in range(60)]
        (results,) = nodemailer({"transport": pool, "messages": messages})
        self.assertEqual([result.get("accepted") for result in results], [[ANNA, BOB]] * 60)
        for account in (ANNA, BOB):
            self.assertEqual(server.messages(account), [on_disk(TEXT)] * 60)
        self.assertLessEqual(len(server.await_events("connection", 3)), 6)
