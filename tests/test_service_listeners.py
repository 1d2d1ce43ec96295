"""Listeners of other kinds on real sockets: LMTP on a Unix socket, the PROXY protocol, XCLIENT, and what stats tell."""

from __future__ import annotations

import errno
import os
import pwd
import shutil
import socket
import stat
import tempfile
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.endpoints import HostnameEndpoint, UNIXClientEndpoint, connectProtocol
from twisted.internet.error import ConnectError
from twisted.internet.threads import deferToThread

from mailserver.address import parse_address
from mailserver.control import FILE_NAME, ask
from mailserver.service import MailService
from tests.proxy_headers import V4, binary
from tests.test_service import Client, ServiceCase, codes_of

PROXY = b"PROXY TCP4 198.51.100.7 192.0.2.2 4000 25\r\n"
BEHIND_PROXY = 'address = "127.0.0.1:0"\nprotocol = "smtp"\nname = "in"\nproxy_protocol = true\ntrusted_proxies = ["127.0.0.1"]\n'


class ListenersCase(ServiceCase):
    def setUp(self) -> None:
        super().setUp()
        # The path of a socket has room for some 100 octets only, and trial's folders are deep.
        self.dir = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.dir)
        self.file = self.dir / "mailserver.toml"

    async def connect_unix(self, path: Path) -> Client:
        client = Client()
        await connectProtocol(UNIXClientEndpoint(reactor, str(path)), client)
        self.addCleanup(client.transport.abortConnection)
        return client

    async def connect_silently(self, address: str) -> Client:
        """Without waiting for a banner."""
        host, _, port = address.rpartition(":")
        client = Client()
        await connectProtocol(HostnameEndpoint(reactor, host, int(port)), client)
        self.addCleanup(client.transport.abortConnection)
        return client

    async def stats(self, service: MailService) -> dict[str, Any]:
        told: dict[str, Any] = await deferToThread(ask, service.ground.data_dir / FILE_NAME, "stats")
        return told


class LMTPTests(ListenersCase):
    def lmtp(self, more: str = "") -> tuple[Path, str]:
        path = self.dir / "l"
        return path, f'address = "unix:{path}"\nprotocol = "lmtp"\nname = "lmtp"\n{more}'

    async def test_mail_through_a_unix_socket_with_a_reply_for_each_recipient(self) -> None:
        path, listener = self.lmtp()
        service = await self.start(self.configure(listener))
        for name in ("b@example.org", "c@example.org"):
            self.account(service, name)
        service.ground.accounts.set_quota(parse_address("c@example.org"), 1)
        client = await self.connect_unix(path)
        await client.until("220")
        client.say("EHLO x", "LHLO x", "MAIL FROM:<a@example.net>")
        client.say("RCPT TO:<b@example.org>", "RCPT TO:<c@example.org>", "RCPT TO:<x@example.org>", "DATA")
        await client.until("220 500 250 250 250 250 550 354")
        client.say("Subject: x", "", "body", ".", "QUIT")
        received = await client.until("354 250 452 221")
        self.assertIn(b"452 4.2.2 <c@example.org> Mailbox full", received)
        await client.closed
        (file,) = self.new(service, "b@example.org")
        self.assertEqual(self.new(service, "c@example.org"), [])
        self.assertIn(b"(local socket)", file.read_bytes())
        self.assertIn(b" with LMTP id ", file.read_bytes())
        self.assertEqual(self.named("connection")[-1]["peer"], "")

    async def test_a_loop_of_one_recipient_does_not_keep_the_others_from_their_mail(self) -> None:
        path, listener = self.lmtp()
        service = await self.start(self.configure(listener))
        for name in ("b@example.org", "c@example.org"):
            self.account(service, name)
        client = await self.connect_unix(path)
        client.say(
            "LHLO x", "MAIL FROM:<a@example.net>", "RCPT TO:<b@example.org>", "RCPT TO:<c@example.org>", "DATA"
        )
        await client.until("220 250 250 250 250 354")
        client.say("Delivered-To: b@example.org", "Subject: x", "", "body", ".", "QUIT")
        self.assertIn(b"554 5.4.6", await client.until("354 554 250 221"))
        await client.closed
        self.assertEqual([len(self.new(service, name)) for name in ("b@example.org", "c@example.org")], [0, 1])

    async def test_the_file_has_its_mode_and_goes_at_the_end(self) -> None:
        for mode in ("0600", "0666"):
            path, listener = self.lmtp(f'unix_mode = "{mode}"\n')
            service = await self.start(self.configure(listener))
            self.assertTrue(stat.S_ISSOCK(path.stat().st_mode))
            self.assertEqual(stat.S_IMODE(path.stat().st_mode), int(mode, 8))
            await service.stopService()
            self.assertFalse(path.exists())

    async def test_the_file_has_its_owner(self) -> None:
        own = pwd.getpwuid(os.geteuid()).pw_name if os.geteuid() else "nobody"
        path, listener = self.lmtp(f'unix_owner = "{own}"\n')
        await self.start(self.configure(listener))
        self.assertEqual(path.stat().st_uid, pwd.getpwnam(own).pw_uid)

    async def test_a_socket_that_a_crash_left_behind_is_replaced(self) -> None:
        path, listener = self.lmtp()
        with socket.socket(socket.AF_UNIX) as old:
            old.bind(str(path))
        await self.start(self.configure(listener))
        client = await self.connect_unix(path)
        self.assertEqual(codes_of(await client.until("220")), "220")


class ProxyTests(ListenersCase):
    async def test_the_client_is_whom_the_proxy_names(self) -> None:
        service = await self.start(self.configure(BEHIND_PROXY))
        self.account(service, "b@example.org")
        for header, peer in [
            (PROXY, "198.51.100.7"),
            (binary(0x11, V4), "192.0.2.1"),
            (b"PROXY UNKNOWN\r\n", "127.0.0.1"),
            (b"PROXY TCP6 ::ffff:198.51.100.8 2001:db8::1 1 2\r\n", "198.51.100.8"),
        ]:
            client = await self.connect_silently(self.where(service))
            client.transport.write(header[:7])
            client.transport.write(header[7:] + b"EHLO c\r\nMAIL FROM:<a@b>\r\nRCPT TO:<b@example.org>\r\nDATA\r\n")
            await client.until("220 250 250 250 354")
            client.say("hi: x", ".", "QUIT")
            await client.until("250 221")
            await client.closed
            self.assertEqual(self.named("message")[-1]["peer"], peer)
        contents = [path.read_bytes() for path in self.new(service, "b@example.org")]
        self.assertTrue(any(b"[198.51.100.7]" in content for content in contents))

    async def test_nothing_is_said_before_the_header_and_nothing_to_rubbish(self) -> None:
        service = await self.start(self.configure(BEHIND_PROXY))
        silent = await self.connect_silently(self.where(service))
        rubbish = await self.connect_silently(self.where(service))
        rubbish.transport.write(b"EHLO client.example.net\r\n")
        await rubbish.closed
        self.assertEqual((silent.received, rubbish.received), (b"", b""))

    async def test_from_others_it_is_refused(self) -> None:
        listener = BEHIND_PROXY.replace('["127.0.0.1"]', '["192.0.2.0/24"]')
        service = await self.start(self.configure(listener))
        try:
            client = await self.connect_silently(self.where(service))
        except ConnectError as error:  # the reset may be there before the client has seen that it is connected
            self.assertEqual(error.osError, errno.ECONNRESET)
            return
        client.transport.write(PROXY + b"EHLO x\r\n")
        await client.closed
        self.assertEqual(client.received, b"")

    async def test_the_limits_are_those_of_the_client(self) -> None:
        service = await self.start(self.configure(BEHIND_PROXY, more="[limits]\nconnections_per_client = 1\n"))
        first, second, other = [await self.connect_silently(self.where(service)) for _ in range(3)]
        for client, header in ((first, PROXY), (second, PROXY), (other, PROXY.replace(b".7 ", b".8 "))):
            client.transport.write(header)
            await client.until("421" if client is second else "220")
        await second.closed
        self.assertEqual([codes_of(client.received) for client in (first, second, other)], ["220", "421", "220"])
        self.assertFalse(first.closed.called or other.closed.called)


class XClientTests(ListenersCase):
    async def test_a_trusted_front_end_speaks_for_its_client(self) -> None:
        trusted = 'address = "127.0.0.1:0"\nprotocol = "smtp"\nname = "in"\nxclient = ["127.0.0.0/8"]\n'
        service = await self.start(self.configure(trusted))
        client = await self.connect(self.where(service))
        client.say("EHLO x", "XCLIENT ADDR=198.51.100.7 HELO=x", "EHLO y", "QUIT")
        await client.until("220 250 220 250 221")
        await client.closed
        event = self.named("connection")[-1]
        self.assertEqual((event["peer"], event["helo"]), ("198.51.100.7", "y"))

    async def test_elsewhere_it_is_unknown(self) -> None:
        others = 'address = "127.0.0.1:0"\nprotocol = "smtp"\nname = "in"\nxclient = ["192.0.2.1"]\n'
        service = await self.start(self.configure(others))
        client = await self.connect(self.where(service))
        client.say("EHLO x", "XCLIENT ADDR=198.51.100.7")
        self.assertNotIn(b"XCLIENT NAME", await client.until("250 500"))


class StatsTests(ListenersCase):
    async def test_the_control_socket_tells_what_has_happened(self) -> None:
        service = await self.start(self.configure('address = "127.0.0.1:0"\nprotocol = "smtp"\nname = "in"'))
        self.account(service, "b@example.org")
        client = await self.connect(self.where(service))
        client.say("EHLO c", "MAIL FROM:<a@b>", "RCPT TO:<x@example.org>", "RCPT TO:<b@example.org>", "DATA")
        await client.until("550 250 354")
        client.say("Subject: x", "", ".")
        await client.until("354 250")
        told = await self.stats(service)
        self.assertEqual((told["pid"], told["connections"]["now"]), (os.getpid(), 1))
        self.assertEqual((told["messages"]["accepted"], told["messages"]["octets"]), (1, 14))
        self.assertEqual(told["recipients"], {"accepted": 1, "refused": 1})
        self.assertEqual(told["refusals"], {"550 5.1.1": 1})
        self.assertEqual(told["listeners"]["in"]["accepted"], 1)
        client.say("QUIT")
        await client.closed
        self.assertEqual((await self.stats(service))["connections"]["now"], 0)

    async def test_the_socket_is_private_and_goes_with_the_server(self) -> None:
        service = await self.start(self.configure('address = "127.0.0.1:0"\nprotocol = "smtp"\nname = "in"'))
        path = service.ground.data_dir / FILE_NAME
        self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o600)
        await service.stopService()
        self.assertFalse(path.exists())
