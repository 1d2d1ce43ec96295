"""
Mail that real clients send is in the Maildir, octet by octet: every client, both families of addresses, every kind of
TLS, bodies of every size and shape.
"""

from __future__ import annotations

import os
import random
import stat
from concurrent.futures import ThreadPoolExecutor

from tests.interop.clients import CLIENTS, HELO, SENDER, Errand, missing, session, smtplib_send
from tests.interop.running import DOMAINS, LIMITS, SERVER, RunningServer, ServerTestCase, listener

HEADER = (
    b"From: <sender@example.net>\r\nTo: <anna@example.org>\r\nSubject: hello\r\n"
    b"Date: Fri, 20 Nov 2026 12:00:00 +0000\r\nMessage-ID: <1@example.net>\r\n"
)
BODY = HEADER + b"\r\n.\r\n..\r\n.a line\r\n  a longer line\r\n\r\n.\r\nthe end .\r\n"

KINDS = [("smtp", "off"), ("smtp", "starttls"), ("smtps", "implicit")]
#: The `with` word of the Received field, RFC 3848; smtplib asks for more only with UTF-8 addresses.
PROTOCOLS = {"off": "ESMTP", "starttls": "ESMTPS", "implicit": "ESMTPS"}

#: Which bodies are sent whole: name -> text behind the header.
BODIES = {
    "nothing at all": b"",
    "one octet": b"a",
    "one line end": b"\r\n",
    "a dot": b".\r\n",
    "dots at the ends of lines": b"a.\r\n.\r\n..\r\n...\r\n.b\r\n",
    "what looks like commands": b"QUIT\r\nRSET\r\nMAIL FROM:<a@example.org>\r\n",
    "eight-bit text": "Grüße aus Köln, и привет\r\n".encode(),
    "all octets but CR, LF and NUL": bytes(each for each in range(1, 256) if each not in (10, 13)) + b"\r\n",
    "a NUL": b"a\0b\r\n",
    "lines of 998 octets": (b"x" * 998 + b"\r\n") * 3,
    "a line of 100,000 octets": b"y" * 100_000 + b"\r\n",
    "empty lines": b"\r\n" * 50,
}
#: Around the sizes of blocks and buffers.
SIZES = [65_534, 65_535, 65_536, 65_537, 131_072, 262_143, 262_144, 1_000_000]


def on_disk(text: bytes) -> bytes:
    """The text as a Maildir keeps it; a client ends the last line."""
    if text and not text.endswith(b"\r\n"):
        text += b"\r\n"
    return text.replace(b"\r\n", b"\n")


def text_of_size(size: int, seed: int = 1) -> bytes:
    """So many octets of lines of different lengths, some of which begin with dots; CRLF at the end."""
    chance = random.Random(seed)
    lines = []
    left = size
    while left > 2:
        length = min(left - 2, chance.choice((0, 1, 2, 40, 76, 500, 998)))
        if left - 2 - length == 1:
            length += 1 if length < 998 else -1
        dots = b"." * min(length, chance.choice((0, 0, 1, 2)))
        lines.append(dots + b"z" * (length - len(dots)) + b"\r\n")
        left -= length + 2
    return b"".join(lines)


class ClientsTests(ServerTestCase):
    """One message through each door."""

    def _send_everywhere(self, name: str) -> None:
        send, program = CLIENTS[name]
        if program and (reason := missing(program)):
            self.skipTest(reason)
        server = self.serve()
        directory = self.new_directory()
        count = 0
        for family in ("4", "6"):
            for door, tls in KINDS:
                if name == "openssl" and tls == "off":
                    continue
                send(Errand(server.address(door + family), BODY, tls=tls), directory)
                count += 1
                self.assertEqual(server.messages("anna@example.org")[count - 1 :], [on_disk(BODY)], (door, family))
                self._assert_trace(server, door, family, tls)

    def _assert_trace(self, server: RunningServer, door: str, family: str, tls: str) -> None:
        trace = server.files("anna@example.org")[-1].read_bytes()[: -len(on_disk(BODY))].decode("ascii")
        address = "[127.0.0.1]" if family == "4" else "[IPv6:::1]"
        lines = trace.split("\n")
        self.assertEqual(lines[0], f"Return-Path: <{SENDER}>", door)
        self.assertEqual(lines[1], "Delivered-To: anna@example.org")
        self.assertEqual(lines[2], f"Received: from {HELO} ({address})")
        self.assertEqual("using TLSv1.3 with cipher TLS_" in trace, tls != "off")
        self.assertIn(f"\tby mail.example.org with {PROTOCOLS[tls]} id ", trace)
        self.assertIn("\tfor <anna@example.org>; ", trace)

    def test_swaks(self) -> None:
        self._send_everywhere("swaks")

    def test_curl(self) -> None:
        self._send_everywhere("curl")

    def test_msmtp(self) -> None:
        self._send_everywhere("msmtp")

    def test_openssl_s_client(self) -> None:
        self._send_everywhere("openssl")

    def test_smtplib(self) -> None:
        self._send_everywhere("smtplib")


class BodiesTests(ServerTestCase):
    """What was sent is what is kept."""

    def _send(self, server: RunningServer, text: bytes, tls: str = "off") -> None:
        door = "smtps4" if tls == "implicit" else "smtp4"
        smtplib_send(Errand(server.address(door), text, tls=tls), self.new_directory())

    def test_bodies_of_every_shape(self) -> None:
        server = self.serve()
        for at, (name, body) in enumerate(BODIES.items()):
            self._send(server, HEADER + b"\r\n" + body)
            self.assertEqual(server.messages("anna@example.org")[at:], [on_disk(HEADER + b"\r\n" + body)], name)

    def test_a_message_without_a_single_octet(self) -> None:
        server = self.serve()
        self._send(server, b"")
        # smtplib puts an empty line where there is nothing.
        self.assertEqual(server.messages("anna@example.org"), [b"\n"])

    def test_a_body_that_only_the_dot_follows(self) -> None:
        server = self.serve()
        with session(server.address("smtp4")) as client:
            for command in (f"MAIL FROM:<{SENDER}>", "RCPT TO:<anna@example.org>", "DATA"):
                client.docmd(command)
            self.assertEqual(client.docmd(".")[0], 250)
        self.assertEqual(server.messages("anna@example.org"), [b""])

    def test_sizes_around_the_borders_of_blocks(self) -> None:
        server = self.serve()
        for at, size in enumerate(SIZES):
            text = HEADER + b"\r\n" + text_of_size(size - len(HEADER) - 2, seed=size)
            self.assertEqual(len(text), size)
            self._send(server, text, tls="implicit" if at % 2 else "off")
            self.assertTrue(server.messages("anna@example.org")[-1] == on_disk(text), size)
        self.assertEqual([event["size"] for event in server.await_events("message", len(SIZES))], SIZES)

    def test_thirty_megabytes_in_clear_text_and_in_tls(self) -> None:
        server = self.serve()
        text = HEADER + b"\r\n" + text_of_size(30_000_000)
        for tls in ("off", "implicit"):
            self._send(server, text, tls)
            path = server.files("anna@example.org")[-1]
            self.assertTrue(server.messages("anna@example.org")[-1] == on_disk(text), tls)
            path.unlink()

    def test_what_lf_cannot_carry_is_kept_with_crlf(self) -> None:
        door = listener("bare", "127.0.0.1:0", bare_newlines='"ignore"')
        server = self.serve(SERVER + LIMITS + door + DOMAINS)
        text = HEADER + b"\r\na bare \n and a bare \r in it\r\n"
        with session(server.address("bare")) as client:
            for command in (f"MAIL FROM:<{SENDER}>", "RCPT TO:<anna@example.org>", "DATA"):
                client.docmd(command)
            client.send(text + b".\r\n")
            self.assertEqual(client.getreply()[0], 250)
        self.assertEqual(server.messages("anna@example.org"), [text])

    def test_addresses_in_utf8(self) -> None:
        server = self.serve()
        self._utf8(server, "grün@example.org", "отправитель@пример.example.net")
        trace = server.files("grün@example.org")[0].read_bytes().decode("utf-8")
        self.assertIn("Return-Path: <отправитель@пример.example.net>\n", trace)
        self.assertIn(" with UTF8SMTP id ", trace)
        self.assertIn("Delivered-To: grün@example.org\n", trace)

    def _utf8(self, server: RunningServer, recipient: str, sender: str) -> None:
        text = "Subject: Grüße\r\n\r\nпривет\r\n".encode()
        errand = Errand(server.address("smtp4"), text, recipients=(recipient,), sender=sender)
        smtplib_send(errand, self.new_directory())
        self.assertEqual(server.messages(recipient), [on_disk(text)])

    def test_many_messages_in_one_connection(self) -> None:
        server = self.serve()
        texts = [HEADER + b"\r\nnumber %d\r\n" % number for number in range(30)]
        with session(server.address("smtp4"), "starttls") as client:
            for text in texts:
                client.sendmail(SENDER, ["anna@example.org"], text)
        self.assertEqual(sorted(server.messages("anna@example.org")), sorted(map(on_disk, texts)))
        names = [path.name for path in server.files("anna@example.org")]
        self.assertEqual(len({name.partition(",")[0] for name in names}), 30)

    def test_many_clients_at_the_same_time(self) -> None:
        server = self.serve()
        doors = [(door + family, tls) for family in ("4", "6") for door, tls in KINDS]

        def send(client_number: int) -> None:
            door, tls = doors[client_number % len(doors)]
            with session(server.address(door), tls) as client:
                for number in range(10):
                    text = b"Subject: %d %d\r\n\r\n" % (client_number, number)
                    client.sendmail(SENDER, ["anna@example.org", "bob@example.org"], text)

        with ThreadPoolExecutor(20) as clients:
            list(clients.map(send, range(20)))
        expected = sorted(b"Subject: %d %d\n\n" % (each, number) for each in range(20) for number in range(10))
        for account in ("anna@example.org", "bob@example.org"):
            self.assertEqual(sorted(server.messages(account)), expected)
        self.assertEqual(len(server.await_events("message", 200)), 200)
        self.assertEqual(len(server.await_events("connection", 20)), 20)

    def test_a_pipelined_conversation_in_one_write(self) -> None:
        server = self.serve()
        with session(server.address("smtp4")) as client:
            client.send(
                b"MAIL FROM:<a@example.net>\r\nRCPT TO:<anna@example.org>\r\nRCPT TO:<nobody@example.org>\r\nDATA\r\n"
            )
            self.assertEqual([client.getreply()[0] for _ in range(4)], [250, 250, 550, 354])
            client.send(b"Subject: one\r\n.\r\nNOOP\r\nMAIL FROM:<b@example.net>\r\n")
            self.assertEqual([client.getreply()[0] for _ in range(3)], [250, 250, 250])
        self.assertEqual(server.messages("anna@example.org"), [b"Subject: one\n"])


class FilesTests(ServerTestCase):
    """How a message lies on the disk."""

    def test_modes_and_names(self) -> None:
        old = os.umask(0)
        self.addCleanup(os.umask, old)
        server = self.serve()
        smtplib_send(Errand(server.address("smtp4"), BODY), self.new_directory())
        (path,) = server.files("anna@example.org")
        size = path.stat().st_size
        lines = path.read_bytes().count(b"\n")
        self.assertRegex(path.name, rf"\A\d+\.M\d+P\d+Q\d+\.mail\.example\.org,S={size},W={size + lines}\Z")
        self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o600)
        folder = path.parent.parent
        self.assertEqual(sorted(each.name for each in folder.iterdir() if each.is_dir()), ["cur", "new", "tmp"])
        for directory in (folder, *folder.iterdir(), folder.parent, folder.parent.parent, server.data):
            if directory.is_dir():
                self.assertEqual(stat.S_IMODE(directory.stat().st_mode), 0o700, str(directory))
        key = server.data / "tls" / "self-signed.key"
        self.assertEqual(stat.S_IMODE(key.stat().st_mode), 0o600)
