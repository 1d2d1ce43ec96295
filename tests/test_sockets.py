"""Listening sockets: reading addresses, overlaps, binding, adopting.  Real sockets, on loopback and free ports only."""

from __future__ import annotations

import errno
import os
import socket
import stat
import tempfile
from typing import Any
from unittest import mock

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import succeed
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.selectreactor import SelectReactor
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface.verify import verifyObject

from mailserver import sockets, systemd
from mailserver.sockets import (
    BindError,
    BoundSocket,
    ListenAddress,
    adopt,
    bind,
    local_of,
    owner_ids,
    parse_network,
    peer_of,
    within,
)

# text -> (kind, host, port, path, name), str()
GOOD: list[tuple[str | int, tuple[object, ...], str]] = [
    ("127.0.0.1:2525", ("tcp", "127.0.0.1", 2525, "", ""), "127.0.0.1:2525"),
    (" 127.0.0.1:0 ", ("tcp", "127.0.0.1", 0, "", ""), "127.0.0.1:0"),
    ("[::]:25", ("tcp", "::", 25, "", ""), "[::]:25"),
    ("[2001:DB8:0:0::1]:65535", ("tcp", "2001:db8::1", 65535, "", ""), "[2001:db8::1]:65535"),
    ("[fe80::1%eth0]:25", ("tcp", "fe80::1%eth0", 25, "", ""), "[fe80::1%eth0]:25"),
    ("Mail.Example.ORG.:465", ("tcp", "mail.example.org", 465, "", ""), "mail.example.org:465"),
    ("bücher.example.org:25", ("tcp", "xn--bcher-kva.example.org", 25, "", ""), "xn--bcher-kva.example.org:25"),
    ("localhost:25", ("tcp", "localhost", 25, "", ""), "localhost:25"),
    ("25", ("tcp", "", 25, "", ""), "*:25"),
    (25, ("tcp", "", 25, "", ""), "*:25"),
    ("*:25", ("tcp", "", 25, "", ""), "*:25"),
    ("unix:/run/x.sock", ("unix", "", 0, "/run/x.sock", ""), "unix:/run/x.sock"),
    ("UNIX:/run/x:y", ("unix", "", 0, "/run/x:y", ""), "unix:/run/x:y"),
    ("systemd:smtp", ("systemd", "", 0, "", "smtp"), "systemd:smtp"),
]

# text -> a piece of the message that says what would be right
BAD: list[tuple[str | int, str]] = [
    ("", "the port is missing"),
    ("localhost", "the port is missing"),
    ("127.0.0.1", "the port is missing"),
    (True, "write a port"),
    (-1, "the port is missing"),
    (65536, "from 0 to 65535"),
    ("127.0.0.1:65536", "from 0 to 65535"),
    ("127.0.0.1:", "is no port"),
    ("127.0.0.1:smtp", "is no port"),
    ("127.0.0.1:+25", "is no port"),
    ("127.0.0.1:2_5", "is no port"),
    ("127.0.0.1:٢٥", "is no port"),
    ("٢٥", "is no port"),
    (":25", "the host is missing"),
    ("::1:25", "in brackets"),
    ("::1", "in brackets"),
    ("[::1]", "in brackets"),
    ("[::1]25", "in brackets"),
    ("[::1:25", "in brackets"),
    ("[localhost]:25", "is no IPv6 address"),
    ("[::ffff:192.0.2.1]:25", "192.0.2.1"),
    ("300.0.0.1:25", "is no IPv4 address"),
    ("127.1:25", "is no IPv4 address"),
    ("\uff11:25", "neither an IP address nor a host name: write 1"),
    ("0x7f000001:25", "is no IPv4 address"),
    ("mail example.org:25", "neither an IP address nor a host name"),
    ("-:25", "neither an IP address nor a host name"),
    ("unix:", "an absolute path"),
    ("unix:run/x.sock", "an absolute path"),
    ("unix:/run/", "an absolute path"),
    ("unix:/run/\0x", "an absolute path"),
    ("unix:/" + "x" * 103, "at most 103 octets"),
    ("systemd:", "FileDescriptorName="),
    ("systemd:a b", "FileDescriptorName="),
]

OVERLAPS = [
    ("25", "127.0.0.1:25", True),
    ("25", "[2001:db8::1]:25", True),
    ("25", "mail.example.org:25", True),
    ("25", "26", False),
    ("0.0.0.0:25", "192.0.2.1:25", True),
    ("0.0.0.0:25", "[::]:25", False),
    ("0.0.0.0:25", "[2001:db8::1]:25", False),
    ("[::]:25", "[2001:db8::1]:25", True),
    ("[::]:25", "192.0.2.1:25", False),
    ("127.0.0.1:25", "127.0.0.2:25", False),
    ("127.0.0.1:25", "127.0.0.1:25", True),
    ("127.0.0.1:0", "127.0.0.1:0", False),
    ("localhost:25", "[::1]:25", True),
    ("localhost:25", "127.0.0.1:25", True),
    ("localhost:25", "0.0.0.0:25", True),
    ("localhost:25", "192.0.2.1:25", False),
    ("mail.example.org:25", "MAIL.example.org:25", True),
    ("mail.example.org:25", "www.example.org:25", False),
    ("mail.example.org:25", "192.0.2.1:25", False),
    ("unix:/run/a", "unix:/run/a", True),
    ("unix:/run/a", "unix:/run/b", False),
    ("systemd:a", "systemd:a", True),
    ("systemd:a", "25", False),
]

LOOPBACK = [
    ("127.0.0.1:25", True),
    ("127.9.9.9:25", True),
    ("[::1]:25", True),
    ("localhost:25", True),
    ("unix:/run/x", True),
    ("25", False),
    ("0.0.0.0:25", False),
    ("[::]:25", False),
    ("192.0.2.1:25", False),
    ("localhost.example.org:25", False),
    ("systemd:x", False),
]


def have_ipv6() -> bool:
    with socket.socket(socket.AF_INET6) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:
            return False
    return True


class ParseTests(SynchronousTestCase):
    def test_good_addresses(self) -> None:
        for text, fields, canonical in GOOD:
            address = ListenAddress.parse(text)
            self.assertEqual((address.kind, address.host, address.port, address.path, address.name), fields, text)
            self.assertEqual(str(address), canonical)
            self.assertEqual(ListenAddress.parse(canonical), address)

    def test_bad_addresses_say_what_would_be_right(self) -> None:
        for text, hint in BAD:
            with self.assertRaises(ValueError, msg=repr(text)) as caught:
                ListenAddress.parse(text)
            self.assertIn(hint, str(caught.exception), repr(text))

    def test_the_longest_unix_path_is_taken(self) -> None:
        self.assertEqual(len(ListenAddress.parse("unix:/" + "x" * 102).path), 103)

    def test_overlaps_both_ways(self) -> None:
        for one, other, expected in OVERLAPS:
            a, b = ListenAddress.parse(one), ListenAddress.parse(other)
            self.assertEqual((a.overlaps(b), b.overlaps(a)), (expected, expected), f"{one} {other}")

    def test_loopback(self) -> None:
        for text, expected in LOOPBACK:
            self.assertIs(ListenAddress.parse(text).is_loopback, expected, text)

    @settings(deadline=None, max_examples=200)
    @given(
        st.one_of(
            st.text(max_size=40), st.from_regex(r"(\[[0-9a-f:.%]*\]|[0-9a-zA-Z.*\-]*):?[0-9]{0,6}", fullmatch=True)
        )
    )
    def test_any_text_is_an_address_or_a_value_error(self, text: str) -> None:
        try:
            address = ListenAddress.parse(text)
        except ValueError:
            return
        self.assertEqual(ListenAddress.parse(str(address)), address)


class BindTests(SynchronousTestCase):
    def bind(self, text: str | int, **options: int) -> list[BoundSocket]:
        bound = bind(ListenAddress.parse(text), **options)
        for each in bound:
            self.addCleanup(each.close)
        return bound

    def refused(self, text: str, **options: int) -> str:
        with self.assertRaises(BindError) as caught:
            self.bind(text, **options)
        self.assertEqual(caught.exception.address, ListenAddress.parse(text))
        self.assertEqual(str(caught.exception), f"{caught.exception.address}: {caught.exception.reason}")
        return caught.exception.reason

    def test_the_socket_listens_does_not_block_and_is_not_inherited(self) -> None:
        (bound,) = self.bind("127.0.0.1:0")
        self.assertEqual((bound.family, bound.host, bound.path), (socket.AF_INET, "127.0.0.1", ""))
        self.assertEqual(bound.port, bound.socket.getsockname()[1])
        self.assertEqual(str(bound), f"127.0.0.1:{bound.port}")
        self.assertEqual(bound.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN), 1)
        self.assertEqual(bound.socket.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR), 1)
        self.assertFalse(bound.socket.getblocking())
        self.assertFalse(bound.socket.get_inheritable())
        socket.create_connection(("127.0.0.1", bound.port), timeout=5).close()

    def test_a_port_alone_is_all_addresses_of_both_families_with_one_port(self) -> None:
        if not have_ipv6():
            self.skipTest("no IPv6 here")
        four, six = self.bind(0)
        self.assertEqual((four.host, six.host), ("0.0.0.0", "::"))
        self.assertEqual(four.port, six.port)
        self.assertEqual(six.socket.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY), 1)

    def test_both_wildcards_share_a_port(self) -> None:
        if not have_ipv6():
            self.skipTest("no IPv6 here")
        (four,) = self.bind("0.0.0.0:0")
        (six,) = self.bind(f"[::]:{four.port}")
        self.assertEqual(str(six), f"[::]:{four.port}")

    def test_localhost_is_both_loopback_addresses_without_a_resolver(self) -> None:
        with mock.patch("socket.getaddrinfo", side_effect=AssertionError("asked")):
            bound = self.bind("localhost:0")
        self.assertEqual([each.host for each in bound], ["127.0.0.1", "::1"][: len(bound)])

    def test_a_family_that_the_kernel_lacks_is_skipped(self) -> None:
        real = socket.socket

        def without_ipv6(family: int, *rest: int) -> socket.socket:
            if family == socket.AF_INET6:
                raise OSError(errno.EAFNOSUPPORT, "no")
            return real(family, *rest)

        with mock.patch("socket.socket", without_ipv6):
            self.assertEqual([each.host for each in self.bind("0")], ["0.0.0.0"])
            self.assertIn("address family", self.refused("[::1]:0"))

    def test_a_name_is_all_its_addresses(self) -> None:
        found = [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, 0)) for host in ("127.0.0.1", "127.0.0.2", "127.0.0.1")
        ]
        with mock.patch("socket.getaddrinfo", return_value=found) as asked:
            bound = self.bind("mail.example.org:0")
        self.assertEqual(asked.call_args.args[0], "mail.example.org")
        self.assertEqual([each.host for each in bound], ["127.0.0.1", "127.0.0.2"])

    def test_a_name_that_is_not_known(self) -> None:
        error = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        with mock.patch("socket.getaddrinfo", side_effect=error):
            self.assertEqual(
                self.refused("mail.example.org:25"), "the name cannot be resolved (Name or service not known)"
            )

    def test_a_port_in_use(self) -> None:
        (first,) = self.bind("127.0.0.1:0")
        self.assertEqual(self.refused(str(first)), "address already in use")

    def test_the_next_free_port(self) -> None:
        (first,) = self.bind("127.0.0.1:0")
        (second,) = self.bind(str(first), next_free_port=20)
        self.assertGreater(second.port, first.port)
        self.assertLessEqual(second.port, first.port + 20)

    def test_the_next_free_port_ends_with_the_last_port(self) -> None:
        busy = OSError(errno.EADDRINUSE, "busy")
        with mock.patch.object(sockets, "_listen_tcp", side_effect=busy) as tried:
            self.assertEqual(
                self.refused("127.0.0.1:65530", next_free_port=50),
                "address already in use, and so are the next 5 ports",
            )
        self.assertEqual([call.args[1][1] for call in tried.call_args_list], list(range(65530, 65536)))

    def test_all_or_nothing(self) -> None:
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, 0)) for host in ("127.0.0.1", "192.0.2.1")]
        (free,) = self.bind("127.0.0.1:0")
        free.close()
        with mock.patch("socket.getaddrinfo", return_value=found):
            self.assertEqual(
                self.refused(f"mail.example.org:{free.port}"), "192.0.2.1 is not an address of this host"
            )
        self.assertEqual(self.bind(str(free))[0].port, free.port)

    def test_an_address_that_is_not_ours(self) -> None:
        self.assertEqual(self.refused("192.0.2.1:0"), "192.0.2.1 is not an address of this host")

    def test_permission_denied_tells_what_would_help(self) -> None:
        with mock.patch.object(sockets, "_listen_tcp", side_effect=PermissionError(errno.EACCES, "no")):
            self.assertIn("CAP_NET_BIND_SERVICE", self.refused("127.0.0.1:25"))
            self.assertEqual(self.refused("127.0.0.1:2525"), "permission denied")


class UnixCase(SynchronousTestCase):
    def setUp(self) -> None:
        # Not self.mktemp(): the path of a Unix socket is short.
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = directory.name
        self.path = os.path.join(self.directory, "s")
        self.address = ListenAddress.parse("unix:" + self.path)

    def bind(self, **options: Any) -> BoundSocket:
        (bound,) = bind(self.address, **options)
        self.addCleanup(bound.close)
        return bound

    def refused(self) -> str:
        with self.assertRaises(BindError) as caught:
            self.bind()
        return caught.exception.reason


class UnixTests(UnixCase):
    def test_the_file_is_for_its_owner_only(self) -> None:
        bound = self.bind()
        self.assertEqual(stat.S_IMODE(os.stat(self.path).st_mode), 0o600)
        self.assertEqual((bound.family, bound.path, str(bound)), (socket.AF_UNIX, self.path, str(self.address)))

    def test_the_mode_can_be_chosen(self) -> None:
        self.bind(unix_mode=0o666)
        self.assertEqual(stat.S_IMODE(os.stat(self.path).st_mode), 0o666)

    def test_a_stale_socket_is_replaced(self) -> None:
        self.bind().socket.close()
        self.assertTrue(os.path.exists(self.path))
        self.bind()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(self.path)

    def test_a_live_socket_is_in_use(self) -> None:
        self.bind()
        self.assertIn("in use", self.refused())
        self.assertTrue(os.path.exists(self.path))

    def test_a_live_socket_with_a_full_backlog_is_in_use(self) -> None:
        self.bind(backlog=0)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(self.path)
            self.assertIn("in use", self.refused())

    def test_another_file_is_left_alone(self) -> None:
        with open(self.path, "w", encoding="ascii") as file:
            file.write("mine")
        self.assertIn("is no socket", self.refused())
        with open(self.path, encoding="ascii") as file:
            self.assertEqual(file.read(), "mine")

    def test_a_missing_directory(self) -> None:
        os.rmdir(self.directory)
        self.addCleanup(os.mkdir, self.directory)
        self.assertEqual(self.refused(), f"there is no directory {self.directory}")

    def test_close_removes_the_file(self) -> None:
        self.bind().close()
        self.assertFalse(os.path.exists(self.path))

    def test_close_leaves_a_file_that_is_no_longer_ours(self) -> None:
        bound = self.bind()
        os.rename(self.path, self.path + ".old")
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(self.path)
            bound.close()
            self.assertTrue(os.path.exists(self.path))


class OwnerTests(UnixCase):
    """Who may connect to a Unix socket; what changes the owner for real needs root."""

    def test_the_owner_and_the_group_can_be_chosen(self) -> None:
        if os.geteuid() != 0:
            self.skipTest("only root may give a file away")
        for owner, expected in (((1, 2), (1, 2)), ((-1, 3), (0, 3)), ((4, -1), (4, os.getegid()))):
            bound = self.bind(unix_owner=owner, unix_mode=0o660)
            status = os.stat(self.path)
            self.assertEqual((status.st_uid, status.st_gid), expected)
            self.assertEqual(stat.S_IMODE(status.st_mode), 0o660)
            bound.close()

    def test_who_may_not_give_it_away_is_told_and_nothing_is_left(self) -> None:
        with (
            mock.patch("os.chown", side_effect=PermissionError(errno.EPERM, "no")),
            self.assertRaises(BindError) as caught,
        ):
            self.bind(unix_owner=(1, 1))
        self.assertIn("permission denied to change the owner", caught.exception.reason)
        self.assertFalse(os.path.exists(self.path))

    def test_a_link_in_its_place_is_not_followed(self) -> None:
        with mock.patch("os.chown") as chown:
            self.bind(unix_owner=(1, 1))
        self.assertEqual(chown.call_args.kwargs, {"follow_symlinks": False})

    def test_ids_of_names(self) -> None:
        self.assertEqual(owner_ids("root"), (0, -1))
        self.assertEqual(owner_ids("root:root"), (0, 0))
        self.assertEqual(owner_ids(":root"), (-1, 0))
        for text, told in (("no-such-name", "no user"), ("root:no-such-name", "no group"), ("a\0b", "no user")):
            with self.assertRaises(ValueError) as caught:
                owner_ids(text)
            self.assertIn(told, str(caught.exception))


class NetworkTests(SynchronousTestCase):
    def test_networks_and_single_addresses(self) -> None:
        for text, expected in (
            ("192.0.2.0/24", "192.0.2.0/24"), ("192.0.2.1", "192.0.2.1/32"), ("2001:DB8::/32", "2001:db8::/32"),
            ("::1", "::1/128"), ("0.0.0.0/0", "0.0.0.0/0"),
        ):  # fmt: skip
            self.assertEqual(str(parse_network(text)), expected)

    def test_what_is_wrong_is_told_with_what_would_be_right(self) -> None:
        for text, told in (
            ("192.0.2.1/24", "write 192.0.2.0/24"), ("2001:db8::1/64", "write 2001:db8::/64"), ("", "no network"),
            ("example.org", "no network"), ("192.0.2.0/33", "no network"), ("fe80::1%eth0", "zone"),
            ("::ffff:192.0.2.1", "IPv4 addresses as they are"), ("127.1", "no network"), ("010.0.0.1", "no network"),
        ):  # fmt: skip
            with self.assertRaises(ValueError, msg=text) as caught:
                parse_network(text)
            self.assertIn(told, str(caught.exception))

    def test_an_address_is_in_one_or_not(self) -> None:
        networks = [parse_network("192.0.2.0/24"), parse_network("2001:db8::/64")]
        for host, expected in (
            ("192.0.2.0", True), ("192.0.2.255", True), ("192.0.3.0", False), ("2001:db8::ffff", True),
            ("2001:db8:0:1::", False), ("", False), ("x", False), ("127.0.0.1", False),
        ):  # fmt: skip
            self.assertIs(within(host, networks), expected, host)
        self.assertIs(within("192.0.2.1", ()), False)


class SystemdSocketTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.given = self.enterContext(socket.socket())
        self.given.bind(("127.0.0.1", 0))
        self.patch(systemd, "FIRST_PASSED", self.given.fileno())
        passed = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1", "LISTEN_FDNAMES": "smtp"}
        self.enterContext(mock.patch.dict(os.environ, passed))

    def test_a_passed_socket_is_taken_and_stays_for_the_next_time(self) -> None:
        self.given.listen()
        self.given.set_inheritable(True)
        for _ in range(2):
            (bound,) = bind(ListenAddress.parse("systemd:smtp"))
            self.assertEqual(bound.port, self.given.getsockname()[1])
            self.assertFalse(bound.socket.getblocking())
            bound.close()
        self.assertFalse(self.given.get_inheritable())

    def test_a_socket_that_does_not_listen(self) -> None:
        with self.assertRaises(BindError) as caught:
            bind(ListenAddress.parse("systemd:smtp"))
        self.assertIn("no listening stream socket", caught.exception.reason)

    def test_a_descriptor_that_is_no_socket(self) -> None:
        file = self.enterContext(open(os.devnull, "rb"))
        self.patch(systemd, "FIRST_PASSED", file.fileno())
        with self.assertRaises(BindError) as caught:
            bind(ListenAddress.parse("systemd:smtp"))
        self.assertIn("is no socket", caught.exception.reason)

    def test_a_name_that_was_not_passed(self) -> None:
        with self.assertRaises(BindError) as caught:
            bind(ListenAddress.parse("systemd:imap"))
        self.assertIn("smtp", caught.exception.reason)


class Greeting(Protocol):
    def connectionMade(self) -> None:
        self.factory.seen.append((peer_of(self.transport), local_of(self.transport)))  # type: ignore[union-attr]
        self.transport.write(b"hello")  # type: ignore[union-attr]
        self.transport.loseConnection()  # type: ignore[union-attr]


class AdoptTests(TestCase):
    """A select reactor of our own, turned by hand: nothing waits longer than for the kernel's loopback."""

    def setUp(self) -> None:
        self.reactor = SelectReactor()
        self.addCleanup(self.reactor.waker.connectionLost, None)
        self.factory = Factory.forProtocol(Greeting)
        self.factory.seen = []  # type: ignore[attr-defined]

    def turn(self) -> None:
        for _ in range(5):
            self.reactor.iterate(0)

    def stop(self, port: IListeningPort) -> None:
        stopped = port.stopListening() or succeed(None)
        self.turn()
        self.successResultOf(stopped)

    def greeting(self, client: socket.socket) -> bytes:
        client.settimeout(5)
        self.turn()
        return client.recv(100)

    def test_tcp(self) -> None:
        (bound,) = bind(ListenAddress.parse("127.0.0.1:0"))
        port = adopt(self.reactor, bound, self.factory)
        verifyObject(IListeningPort, port)
        self.assertEqual(bound.socket.fileno(), -1)
        self.assertEqual(port.getHost(), IPv4Address("TCP", "127.0.0.1", bound.port))
        with socket.create_connection(("127.0.0.1", bound.port), timeout=5) as client:
            self.assertEqual(self.greeting(client), b"hello")
            self.assertEqual(self.factory.seen, [(client.getsockname(), client.getpeername())])  # type: ignore[attr-defined]
        self.stop(port)
        with self.assertRaises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", bound.port), timeout=5)

    def test_unix_keeps_its_mode_and_goes_with_its_file(self) -> None:
        with tempfile.TemporaryDirectory() as directory:
            path = os.path.join(directory, "s")
            (bound,) = bind(ListenAddress.parse("unix:" + path))
            port = adopt(self.reactor, bound, self.factory)
            self.assertEqual(stat.S_IMODE(os.stat(path).st_mode), 0o600)
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(path)
                self.assertEqual(self.greeting(client), b"hello")
            self.assertEqual(self.factory.seen, [(("", 0), ("", 0))])  # type: ignore[attr-defined]
            self.stop(port)
            self.assertFalse(os.path.exists(path))

    def test_unix_from_systemd_leaves_the_file(self) -> None:
        with tempfile.TemporaryDirectory() as directory:
            path = os.path.join(directory, "s")
            with socket.socket(socket.AF_UNIX) as given:
                given.bind(path)
                given.listen()
                os.chmod(path, 0o640)
                passed = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1", "LISTEN_FDNAMES": "lmtp"}
                with mock.patch.dict(os.environ, passed), mock.patch.object(systemd, "FIRST_PASSED", given.fileno()):
                    (bound,) = bind(ListenAddress.parse("systemd:lmtp"))
                port = adopt(self.reactor, bound, self.factory)
                self.stop(port)
            self.assertEqual(stat.S_IMODE(os.stat(path).st_mode), 0o640)


class Ends:
    def __init__(self, address: object) -> None:
        self.address = address

    def getPeer(self) -> object:
        return self.address

    getHost = getPeer


class EndTests(SynchronousTestCase):
    def test_addresses_have_one_form(self) -> None:
        for address, expected in [
            (IPv4Address("TCP", "192.0.2.1", 25), ("192.0.2.1", 25)),
            (IPv6Address("TCP", "2001:db8::1", 25), ("2001:db8::1", 25)),
            (IPv6Address("TCP", "2001:DB8:0::1", 25), ("2001:db8::1", 25)),
            (IPv6Address("TCP", "::ffff:192.0.2.1", 25), ("192.0.2.1", 25)),
            (IPv6Address("TCP", "fe80::1%eth0", 25), ("fe80::1", 25)),
            (UNIXAddress(b"/run/x"), ("", 0)),
            (object(), ("", 0)),
        ]:
            self.assertEqual(peer_of(Ends(address)), expected)
            self.assertEqual(local_of(Ends(address)), expected)
