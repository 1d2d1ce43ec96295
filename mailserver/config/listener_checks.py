"""
Combinations of a listener's keys, beyond those of TLS and AUTH: LMTP, Unix sockets, proxies, client certificates,
extensions.

In: a listener whose keys are each right by themselves.  Out: remarks, which `checks` collects.
Security: whoever may tell us who the client is (PROXY protocol, XCLIENT) must be named, and cannot be everybody.
RFC 2033 5 (LMTP not on port 25), RFC 3030 2 and RFC 6531 3.1 (extensions that need others), RFC 3207 4 (no STARTTLS
forced upon port 25).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from mailserver.config.classes import Listener
from mailserver.config.lines import KeyPath, Lines
from mailserver.config.quantities import show

#: RFC 2033 5: the port on which no LMTP is spoken.
SMTP_PORT = 25
#: Extension -> those that are nothing without it (RFC 3030 2, RFC 6531 3.1).
NEEDED_BY: Mapping[str, tuple[str, ...]] = {"CHUNKING": ("BINARYMIME",), "8BITMIME": ("SMTPUTF8",)}
#: What an LMTP server must have (RFC 2033 5).
LMTP_NEEDS = ("PIPELINING", "ENHANCEDSTATUSCODES")

#: IP version -> the widest network that can be somebody's own: 10.0.0.0/8 (RFC 1918 3); IPv6 is given to providers in
#: pieces that are not wider than this, and each unique local network (RFC 4193 3) is a /48.
LEAST_PREFIX: Mapping[int, int] = {4: 8, 6: 16}


@dataclass(frozen=True, slots=True)
class Remark:
    """A problem before its line is known.  path: the key."""

    path: KeyPath
    text: str
    warning: bool = False


def is_local(listener: Listener) -> bool:
    """
    Are its clients surely on this machine?  On loopback and Unix sockets they are, but not those of a proxy.
    """
    return listener.address.is_loopback and not listener.proxy_protocol


def check_listener(path: KeyPath, listener: Listener, lines: Lines) -> Iterator[Remark]:
    """All remarks on this listener.  lines: which keys the file has."""
    yield from _check_lmtp(path, listener)
    yield from _check_tls_required(path, listener)
    yield from _check_client_certificates(path, listener)
    yield from _check_unix(path, listener, lines)
    yield from _check_proxies(path, listener)
    yield from _check_extensions(path, listener)


def _check_lmtp(path: KeyPath, listener: Listener) -> Iterator[Remark]:
    if listener.protocol != "lmtp":
        return
    address = listener.address
    if address.kind == "tcp" and address.port == SMTP_PORT:
        yield Remark(
            (*path, "protocol"),
            '"lmtp" must not be spoken on port 25 (RFC 2033 5); use another port, a Unix socket, or '
            'protocol = "smtp"',
        )
    elif address.kind == "tcp" and not address.is_loopback:
        yield Remark(
            (*path, "address"),
            f"LMTP on {address}, which is not loopback: whoever can connect can bring mail; "
            "use a Unix socket or a loopback address, or see that a firewall stands before it (RFC 2033 5)",
            warning=True,
        )


def _check_tls_required(path: KeyPath, listener: Listener) -> Iterator[Remark]:
    if listener.tls_required and listener.tls == "off":
        yield Remark(
            (*path, "tls_required"),
            'cannot be with tls = "off": nobody could send; use tls = "starttls" or "implicit", or take it away',
        )
    elif listener.tls_required and listener.protocol == "smtp" and listener.address.port == SMTP_PORT:
        yield Remark(
            (*path, "tls_required"),
            "on port 25: servers that cannot do TLS will not bring their mail (RFC 3207 4); "
            "take it away unless you know them all",
            warning=True,
        )


def _check_client_certificates(path: KeyPath, listener: Listener) -> Iterator[Remark]:
    asked = listener.client_certificates
    if asked == "off":
        return
    place = (*path, "client_certificates")
    if listener.tls == "off":
        yield Remark(place, f'{show(asked)} needs TLS, and tls = "off"; use tls = "starttls" or "implicit"')
    if listener.client_ca is None:
        yield Remark(place, f"{show(asked)} needs client_ca: who signs the certificates of clients")
    if asked == "require" and listener.protocol == "smtp" and listener.address.port == SMTP_PORT:
        yield Remark(
            place,
            '"require" on port 25, where other servers bring mail and have no certificate of yours; use "request"',
            warning=True,
        )


def _check_unix(path: KeyPath, listener: Listener, lines: Lines) -> Iterator[Remark]:
    if listener.address.kind == "unix":
        return
    for key in ("unix_mode", "unix_owner"):
        if (*path, key) in lines:
            yield Remark(
                (*path, key), f'is for addresses such as "unix:/run/x.sock", not {listener.address}; take it away'
            )


def _check_proxies(path: KeyPath, listener: Listener) -> Iterator[Remark]:
    if listener.proxy_protocol and not listener.trusted_proxies and listener.address.kind != "unix":
        yield Remark(
            (*path, "proxy_protocol"),
            "needs trusted_proxies: whoever may send such a header can pretend to be anybody; "
            'write for example trusted_proxies = ["192.0.2.1"]',
        )
    if listener.trusted_proxies and not listener.proxy_protocol:
        yield Remark(
            (*path, "trusted_proxies"), "does nothing without proxy_protocol = true; add that, or take it away"
        )
    for key, networks in (("trusted_proxies", listener.trusted_proxies), ("xclient", listener.xclient)):
        for number, network in enumerate(networks):
            least = LEAST_PREFIX[network.version]
            if network.prefixlen == 0:
                yield Remark(
                    (*path, key, number),
                    f'"{network}" is everybody, who then could pretend to be anybody; name the hosts or networks',
                )
            elif network.prefixlen < least:
                yield Remark(
                    (*path, key, number),
                    f'"{network}" is wider than /{least}, so not yours alone, and all of it could pretend to be '
                    "anybody; name the hosts or networks",
                )


def _check_extensions(path: KeyPath, listener: Listener) -> Iterator[Remark]:
    off = listener.extensions_off
    place = (*path, "extensions_off")
    for number, name in enumerate(off):
        if name in off[:number]:
            yield Remark((*place, number), f'"{name}" stands here twice; take one away')
    for name, others in NEEDED_BY.items():
        for other in others:
            if name in off and other not in off:
                yield Remark(place, f"{other} cannot be without {name}; add {show(other)}, or take {show(name)} away")
    if "STARTTLS" in off and listener.tls == "starttls":
        yield Remark(
            place, '"STARTTLS" is off, so nobody could start TLS; use tls = "implicit" or "off" instead of "starttls"'
        )
    if "AUTH" in off and listener.auth != "off":
        yield Remark(place, f'"AUTH" is off, but auth = {show(listener.auth)}; use auth = "off"')
    if listener.protocol == "lmtp":
        for name in LMTP_NEEDS:
            if name in off:
                yield Remark(place, f'"{name}" is what every LMTP server must have (RFC 2033 5)', warning=True)
