"""
Listening sockets: the address as it stands in the configuration, and the sockets that it means.

In: "127.0.0.1:2525", "[::]:25", "25", "unix:/run/x.sock", "systemd:smtp".  Out: `ListenAddress`; from it, by `bind`,
listening sockets, all of them or `BindError`; from each of these, by `adopt`, a port of a Twisted reactor.
Also networks ("192.0.2.0/24") and whether a peer comes from one.
Failures: ValueError (the text is no address), `BindError` (port in use, not allowed, not ours, unknown name).

The sockets are made here and not by the reactor, for three reasons: IPv6 sockets never take IPv4 connections
(IPV6_V6ONLY, RFC 3493 5.3), so that 0.0.0.0:25 and [::]:25 do not collide; every error is known before anything
starts; and they can be bound as root and used after root is given up.  They are closed on exec, and survive a fork.
"""

from __future__ import annotations

import contextlib
import errno
import grp
import ipaddress
import os
import pwd
import re
import socket
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from mailserver.address import AddressError, normal_domain
from mailserver.systemd import passed_descriptors

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import IAddress, IListeningPort, IProtocolFactory

MAX_PORT = 65_535
#: Octets of a Unix socket's path: sun_path of unix(7) has 108 with the NUL at its end; the BSDs have 104.
MAX_PATH = 103

#: IP addresses with a common prefix.
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

#: RFC 6761 6.3: this name means loopback, and no resolver is asked.
_LOCALHOST = ("127.0.0.1", "::1")
_PORT = re.compile(r"[0-9]{1,5}\Z")
# The name of a descriptor, sd_pid_notify_with_fds(3): printable ASCII without a colon.
_NAME = re.compile(r"[!-9;-~]{1,255}\Z")
# What inet_aton(3) would take for an IPv4 address ("127.1", "0x7f.1") is neither an address nor a name for us.
_NUMERIC_END = re.compile(r"(?:.*\.)?(?:[0-9]+|0[xX][0-9a-fA-F]*)\Z")


@dataclass(frozen=True, slots=True)
class ListenAddress:
    """
    Where to listen.  Build it with `parse`.

    kind: "tcp", "unix" or "systemd".
    host: "" for all IPv4 and IPv6 addresses, else an address without brackets, or a name (lower case, A-labels).
    port: 0 for any free port.  path: absolute, of a Unix socket.  name: of the descriptors that systemd passes.
    """

    kind: str
    host: str = ""
    port: int = 0
    path: str = ""
    name: str = ""

    @classmethod
    def parse(cls, text: str | int) -> ListenAddress:
        """
        The address that `text` means: "HOST:PORT", "[IPV6]:PORT", "PORT" (or a number), "*:PORT", "unix:/PATH" or
        "systemd:NAME".  Raises ValueError: what is wrong, and what would be right.
        """
        if isinstance(text, bool):
            # Not a TypeError: whoever reads a configuration expects one kind of error.
            raise ValueError('write a port, or a text such as "127.0.0.1:2525"')  # noqa: TRY004
        text = str(text).strip()
        scheme, colon, rest = text.partition(":")
        if colon and scheme.lower() == "unix":
            return cls("unix", path=_check_path(rest))
        if colon and scheme.lower() == "systemd":
            if not _NAME.match(rest):
                raise ValueError(f"{text!r}: write systemd:NAME, with the FileDescriptorName= of the socket unit")
            return cls("systemd", name=rest)
        if text.startswith("["):
            host, bracket, rest = text[1:].partition("]")
            if not bracket or not rest.startswith(":"):
                raise ValueError(f'{text!r}: write an IPv6 address in brackets, then its port: "[::1]:25"')
            return cls("tcp", _normal_ipv6(host), _parse_port(rest[1:], text))
        host, colon, port = text.rpartition(":")
        if not colon:
            if not text.isdecimal():
                raise ValueError(f'{text!r}: the port is missing; write "HOST:PORT", or a port alone')
            return cls("tcp", "", _parse_port(text, text))
        if ":" in host:
            raise ValueError(f'{text!r}: write an IPv6 address in brackets, then its port: "[::1]:25"')
        return cls("tcp", "" if host == "*" else _normal_host(host, text), _parse_port(port, text))

    def __str__(self) -> str:
        if self.kind == "unix":
            return f"unix:{self.path}"
        if self.kind == "systemd":
            return f"systemd:{self.name}"
        return _join(self.host or "*", self.port)

    @property
    def is_loopback(self) -> bool:
        """
        Can only this machine connect?  127.0.0.0/8, ::1, "localhost" and Unix sockets: True.  Other names, and what
        systemd passes: False, for nobody knows before they are looked up.
        """
        if self.kind == "unix" or self.host == "localhost":
            return True
        address = _literal(self.host)
        return address is not None and address.is_loopback

    def overlaps(self, other: ListenAddress) -> bool:
        """
        Would both surely collide, as far as can be told without a resolver?

        "" covers every host of its port, 0.0.0.0 all of IPv4, :: all of IPv6 and nothing else; port 0 never
        collides.
        """
        if self.kind != other.kind:
            return False
        if self.kind != "tcp":
            return self == other
        if self.port != other.port or self.port == 0:
            return False
        if "" in (self.host, other.host):
            return True
        return any(_covers(a, b) or _covers(b, a) for a in _hosts(self.host) for b in _hosts(other.host))


class BindError(Exception):
    """
    The sockets of an address cannot be had; `str()` is a line for the user.

    address: which one.  reason: why, in plain words.
    """

    def __init__(self, address: ListenAddress, reason: str) -> None:
        super().__init__(f"{address}: {reason}")
        self.address = address
        self.reason = reason


@dataclass(frozen=True, slots=True)
class BoundSocket:
    """
    One socket that listens already.

    family: socket.AF_INET, AF_INET6 or AF_UNIX.  host, port: its real ones ("" and 0 for a Unix socket).
    path: of a Unix socket, else "".  file: (device, inode) of a socket file that is ours to remove, else None.
    """

    socket: socket.socket
    family: int
    host: str = ""
    port: int = 0
    path: str = ""
    file: tuple[int, int] | None = None

    def __str__(self) -> str:
        return f"unix:{self.path}" if self.family == socket.AF_UNIX else _join(self.host, self.port)

    def close(self) -> None:
        """Close it without having used it; its socket file goes too."""
        _remove_file(self)
        self.socket.close()


def bind(
    address: ListenAddress,
    *,
    next_free_port: int = 0,
    backlog: int = 128,
    unix_mode: int = 0o600,
    unix_owner: tuple[int, int] | None = None,
) -> list[BoundSocket]:
    """
    The listening sockets that `address` means; one or more.

    next_free_port: how many of the following ports may be tried when a port is in use.
    backlog: connections that may wait for accept(2).  unix_mode: the mode of a Unix socket's file.
    unix_owner: (uid, gid) of that file, -1 for one that stays as it is (see `owner_ids`); None: both stay.
    A host name is looked up, which may block; nothing else does.  Port 0 with several addresses: the same for all.
    Raises BindError; then every socket that this call opened is closed again.
    """
    if address.kind == "unix":
        return [_bind_unix(address, backlog, unix_mode, unix_owner)]
    if address.kind == "systemd":
        return _passed(address)
    hosts = _look_up(address)
    # A free port of one family may be taken in the other: with port 0 the kernel is asked again.
    last = 8 if address.port == 0 else min(next_free_port, MAX_PORT - address.port)
    for further in range(last + 1):
        try:
            return _bind_all(address, hosts, address.port + further if address.port else 0, backlog)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or further == last:
                raise BindError(address, _explain(error, address, further)) from error
    raise AssertionError("unreachable: the last turn returns or raises")


class AdoptedPort:
    """
    A port that listens on a socket of ours (`IListeningPort`).  When it stops, a socket file that is ours goes too.
    """

    def __init__(self, port: Any, bound: BoundSocket) -> None:
        self._port = port
        self.bound = bound

    def __repr__(self) -> str:
        return f"<AdoptedPort {self.bound}>"

    def startListening(self) -> None:
        """It listens since it was adopted."""

    def stopListening(self) -> Deferred[None] | None:
        """Stop; fires when the socket is closed.  Connections that were accepted go on."""
        # First the file: who finds it must find somebody behind it.
        _remove_file(self.bound)
        result: Deferred[None] | None = self._port.stopListening()
        return result

    def getHost(self) -> IAddress:
        """Its own address, as Twisted writes it."""
        host: IAddress = self._port.getHost()
        return host


def adopt(reactor: Any, bound: BoundSocket, factory: IProtocolFactory) -> IListeningPort:
    """
    Let the reactor accept connections on the socket, for the factory.

    reactor: one that has `IReactorSocket` (select, poll, epoll, kqueue).  It works on a duplicate; the socket of
    `bound` is closed here.  The connections are lean ones (lean.py) where that can be.
    """
    from twisted.internet.interfaces import IListeningPort
    from zope.interface import directlyProvides

    from mailserver.lean import LeanPort, available

    if available(reactor):
        port: Any = LeanPort(reactor, bound.socket.dup(), factory)
        port.startListening()
    elif bound.family == socket.AF_UNIX:
        port = _adopt_unix(reactor, bound, factory)
    else:
        port = reactor.adoptStreamPort(bound.socket.fileno(), bound.family, factory)
    bound.socket.close()
    adopted: Any = AdoptedPort(port, bound)
    directlyProvides(adopted, IListeningPort)
    result: IListeningPort = adopted
    return result


def peer_of(transport: Any) -> tuple[str, int]:
    """
    (address, port) of the other end of a transport; ("", 0) for a Unix socket.

    The address in its one normal form: an IPv4 address never as ::ffff:192.0.2.1, no zone behind an IPv6 address.
    """
    return _end(transport.getPeer())


def local_of(transport: Any) -> tuple[str, int]:
    """(address, port) of our end of a transport, in the same form as `peer_of`."""
    return _end(transport.getHost())


def parse_network(text: str) -> Network:
    """The network "192.0.2.0/24", "2001:db8::/32", or one address.  Raises ValueError: what would be right."""
    try:
        network = ipaddress.ip_network(text)
    except ValueError as error:
        try:
            wide = ipaddress.ip_network(text, strict=False)
        except ValueError:
            raise ValueError(
                f'{text!r} is no network; write one such as "192.0.2.0/24" or "2001:db8::/32"'
            ) from error
        raise ValueError(f"{text!r} has bits set behind its prefix; write {wide}") from error
    if isinstance(network, ipaddress.IPv6Network):
        if network.network_address.scope_id is not None:
            raise ValueError(f"{text!r}: leave the zone away")
        if network.network_address.ipv4_mapped is not None:
            raise ValueError(f"{text!r}: write IPv4 addresses as they are, for example 192.0.2.0/24")
    return network


def within(host: str, networks: Iterable[Network]) -> bool:
    """Is the IP address `host` (as from `peer_of`) in one of the networks?  "", a Unix socket's, is in none."""
    address = _literal(host)
    return address is not None and any(address in network for network in networks)


def owner_ids(owner: str) -> tuple[int, int]:
    """
    (uid, gid) of "user", "user:group" or ":group"; -1 for what is not named.  Raises ValueError: who is unknown.
    """
    user, _, group = owner.partition(":")
    try:
        uid = pwd.getpwnam(user).pw_uid if user else -1
    except (KeyError, ValueError) as error:  # ValueError: a NUL character
        raise ValueError(f'there is no user "{user}" on this machine') from error
    try:
        return uid, grp.getgrnam(group).gr_gid if group else -1
    except (KeyError, ValueError) as error:
        raise ValueError(f'there is no group "{group}" on this machine') from error


# -- reading an address ------------------------------------------------------------------------------------------


def _parse_port(port: str, text: str) -> int:
    if not _PORT.match(port) or int(port) > MAX_PORT:
        raise ValueError(f"{text!r}: {port!r} is no port; write a number from 0 to {MAX_PORT}")
    return int(port)


def _check_path(path: str) -> str:
    if not path.startswith("/") or path.endswith("/") or "\0" in path:
        raise ValueError(f"{path!r}: write unix: and an absolute path: unix:/run/mailserver/lmtp.sock")
    if len(os.fsencode(path)) > MAX_PATH:
        raise ValueError(f"{path!r}: the path of a Unix socket has at most {MAX_PATH} octets")
    return path


def _normal_ipv6(host: str) -> str:
    try:
        address = ipaddress.IPv6Address(host)
    except ValueError as error:
        raise ValueError(f"{host!r} is no IPv6 address") from error
    if address.ipv4_mapped is not None:
        raise ValueError(f"{host!r}: write an IPv4 address as it is: {address.ipv4_mapped}")
    return str(address)


def _normal_host(host: str, text: str) -> str:
    if not host:
        raise ValueError(f"{text!r}: the host is missing; for all addresses write the port alone")
    if _NUMERIC_END.match(host):
        try:
            return str(ipaddress.IPv4Address(host))
        except ValueError as error:
            raise ValueError(f"{text!r}: {host!r} is no IPv4 address; write four numbers from 0 to 255") from error
    try:
        name = normal_domain(host)
    except AddressError as error:
        raise ValueError(f"{text!r}: {host!r} is neither an IP address nor a host name: {error}") from error
    if _NUMERIC_END.match(name):  # digits of another script have become ours
        raise ValueError(f"{text!r}: {host!r} is neither an IP address nor a host name: write {name}")
    return name


def _join(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _literal(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _hosts(host: str) -> tuple[str, ...]:
    return _LOCALHOST if host == "localhost" else (host,)


def _covers(wide: str, narrow: str) -> bool:
    address = _literal(narrow)
    if address is None or wide == narrow:
        return wide == narrow
    return wide == ("0.0.0.0" if address.version == 4 else "::")  # noqa: S104 - compared, not listened on


def _end(address: Any) -> tuple[str, int]:
    return _normal_ip(getattr(address, "host", "")), getattr(address, "port", 0)


@lru_cache(maxsize=1024)
def _normal_ip(host: str) -> str:
    literal = _literal(host.partition("%")[0])
    if literal is None:
        return host
    return str(getattr(literal, "ipv4_mapped", None) or literal)


# -- TCP -----------------------------------------------------------------------------------------------------------

_Where = tuple[int, tuple[Any, ...]]


def _look_up(address: ListenAddress) -> list[_Where]:
    """The families and socket addresses (with port 0) of a host; only a name asks the resolver."""
    if not address.host:
        return [(socket.AF_INET, ("0.0.0.0", 0)), (socket.AF_INET6, ("::", 0))]  # noqa: S104 - asked for
    if address.host == "localhost":
        return [(socket.AF_INET, (_LOCALHOST[0], 0)), (socket.AF_INET6, (_LOCALHOST[1], 0))]
    try:
        # A literal goes through here too: this is what turns the zone of a link-local address into its number.
        found = socket.getaddrinfo(address.host, 0, type=socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not a name"
        raise BindError(address, f"the name cannot be resolved ({why})") from error
    known = (socket.AF_INET, socket.AF_INET6)
    return list(dict.fromkeys((int(family), where) for family, _, _, _, where in found if family in known))


def _bind_all(address: ListenAddress, hosts: list[_Where], port: int, backlog: int) -> list[BoundSocket]:
    """A socket for each of the hosts, or OSError and none."""
    skipped: OSError | None = None
    # A kernel, or a container, without one of the families is no reason to fail where both were asked for.
    missing = {errno.EAFNOSUPPORT} | ({errno.EADDRNOTAVAIL} if address.host in ("", "localhost") else set())
    with contextlib.ExitStack() as opened:
        sockets: list[socket.socket] = []
        for family, (host, _, *rest) in hosts:
            try:
                sockets.append(opened.enter_context(_listen_tcp(family, (host, port, *rest), backlog)))
            except OSError as error:
                if error.errno not in missing:
                    raise
                skipped = error
                continue
            port = port or sockets[-1].getsockname()[1]
        if not sockets:
            raise skipped or OSError(errno.EADDRNOTAVAIL, "no address")
        opened.pop_all()
        return [_describe(each) for each in sockets]


@contextlib.contextmanager
def _closing_on_error(opened: socket.socket) -> Iterator[socket.socket]:
    try:
        yield opened
    except BaseException:
        opened.close()
        raise


def _listen_tcp(family: int, where: tuple[Any, ...], backlog: int) -> socket.socket:
    with _closing_on_error(socket.socket(family, socket.SOCK_STREAM)) as opened:
        opened.setblocking(False)
        # Our own old connections in TIME_WAIT must not keep us from starting again.
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        try:
            opened.bind(where)
            opened.listen(backlog)
        except OSError as error:
            error.filename = where[0]  # which one of several
            raise
    return opened


def _describe(opened: socket.socket) -> BoundSocket:
    name = opened.getsockname()
    if opened.family == socket.AF_UNIX:
        return BoundSocket(opened, opened.family, path=os.fsdecode(name))
    return BoundSocket(opened, opened.family, name[0], name[1])


def _explain(error: OSError, address: ListenAddress, further: int = 0) -> str:
    if error.errno == errno.EADDRINUSE:
        return "address already in use" + (
            f", and so are the next {further} ports" if address.port and further else ""
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{error.filename or address.host} is not an address of this host"
    if error.errno in (errno.EACCES, errno.EPERM):
        if address.kind == "tcp" and 0 < address.port < 1024:
            return "permission denied; a port below 1024 needs root, CAP_NET_BIND_SERVICE or socket activation"
        return "permission denied"
    if error.errno == errno.EAFNOSUPPORT:
        return "this kernel does not have the address family"
    return os.strerror(error.errno).lower() if error.errno else str(error)


# -- Unix ----------------------------------------------------------------------------------------------------------


def _bind_unix(address: ListenAddress, backlog: int, mode: int, owner: tuple[int, int] | None) -> BoundSocket:
    path = address.path
    with _closing_on_error(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as opened:
        opened.setblocking(False)
        try:
            try:
                opened.bind(path)
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
                _remove_stale(address)
                opened.bind(path)
            # Nobody can connect before listen(2), so nobody comes in by the mode that bind(2) gave the file.
            if owner is not None:
                _give(address, owner)
            os.chmod(path, mode)
            opened.listen(backlog)
            status = os.lstat(path)
        except FileNotFoundError as error:
            raise BindError(address, f"there is no directory {os.path.dirname(path)}") from error
        except OSError as error:
            raise BindError(address, _explain(error, address)) from error
    return BoundSocket(opened, socket.AF_UNIX, path=path, file=(status.st_dev, status.st_ino))


def _give(address: ListenAddress, owner: tuple[int, int]) -> None:
    try:
        os.chown(address.path, *owner, follow_symlinks=False)
    except PermissionError as error:
        os.unlink(address.path)  # made a moment ago, and not to be left to the wrong user
        raise BindError(
            address, "permission denied to change the owner of the socket; that needs root, or a group of our own"
        ) from error


def _remove_stale(address: ListenAddress) -> None:
    """Take away a socket file that nobody listens on any more.  Raises BindError when it is anything else."""
    if not stat.S_ISSOCK(os.lstat(address.path).st_mode):
        raise BindError(address, "the file exists and is no socket; it was left as it is")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        # EAGAIN: the backlog is full, so somebody listens.  EPROTOTYPE: it is a datagram socket.
        result = probe.connect_ex(address.path)
    if result in (errno.EACCES, errno.EPERM):
        raise BindError(address, "the socket exists and permission to connect to it is denied")
    if result != errno.ECONNREFUSED:
        raise BindError(address, "in use: somebody listens on this socket")
    os.unlink(address.path)


def _remove_file(bound: BoundSocket) -> None:
    if bound.file is None:
        return
    # Not allowed (root was given up after binding), or gone already: then the next start replaces the stale file.
    with contextlib.suppress(OSError):
        status = os.lstat(bound.path)
        if (status.st_dev, status.st_ino) == bound.file:
            os.unlink(bound.path)


def _adopt_unix(reactor: Any, bound: BoundSocket, factory: IProtocolFactory) -> Any:
    from twisted.internet import unix

    port: Any = unix.Port._fromListeningDescriptor(reactor, bound.socket.fileno(), factory)  # noqa: SLF001 - see below
    # Twisted would open the file to everybody (chmod 0666), shorten the backlog, and remove the file at the end even
    # when it is systemd's.  It leaves names of the abstract namespace (with a NUL in front) alone, so we name it so.
    port._bindPath = b"\0" + os.fsencode(bound.path)  # noqa: SLF001
    port.backlog = 128
    port.startListening()
    return port


# -- systemd -------------------------------------------------------------------------------------------------------


def _passed(address: ListenAddress) -> list[BoundSocket]:
    try:
        descriptors = passed_descriptors(address.name, os.environ)
    except ValueError as error:
        raise BindError(address, str(error)) from error
    with contextlib.ExitStack() as opened:
        sockets = [opened.enter_context(_take(address, descriptor)) for descriptor in descriptors]
        opened.pop_all()
        return [_describe(each) for each in sockets]


def _take(address: ListenAddress, descriptor: int) -> socket.socket:
    """A duplicate of a passed descriptor, checked."""
    try:
        os.set_inheritable(descriptor, False)
        opened = socket.socket(fileno=os.dup(descriptor))
    except OSError as error:
        raise BindError(address, f"descriptor {descriptor} from systemd is no socket") from error
    with _closing_on_error(opened):
        families = (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)
        listening = opened.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) if opened.family in families else 0
        if opened.type != socket.SOCK_STREAM or not listening:
            raise BindError(
                address, f"descriptor {descriptor} is no listening stream socket; use ListenStream=, Accept=no"
            )
        opened.setblocking(False)
    return opened
