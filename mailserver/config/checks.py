"""
Combinations of keys that cannot be, or must not be.

In: the parts of a configuration, each right by itself.  Out: remarks: a key, what is wrong, what would be right.
Security: what would send passwords in clear text or open a relay is refused here, not warned of.
RFC 8314 (implicit TLS, port 465), RFC 6409 4.3 (submission needs AUTH), RFC 4954 4 (no clear text passwords).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

from mailserver.address import parse_address
from mailserver.config.classes import Listener
from mailserver.config.lines import KeyPath, Lines
from mailserver.config.listener_checks import Remark, check_listener, is_local
from mailserver.config.quantities import show, with_unit
from mailserver.config.reading import Parts
from mailserver.limits import DEFAULT_LIMITS, Limits

#: The ports of RFC 5321 and RFC 6409, where TLS starts by STARTTLS; and that of RFC 8314, where it does not.
STARTTLS_PORTS = (25, 587)
IMPLICIT_PORT = 465

__all__ = ["Remark", "check"]


def check(parts: Parts, lines: Lines) -> Iterator[Remark]:
    """All remarks on the parts.  lines: which keys the file has, and where they stand."""
    if ("listener",) not in lines:
        yield Remark(("listener",), "there is no listener; write at least one [[listener]] table with an address")
    for path, listener in parts.listeners.items():
        yield from _check_tls(path, listener)
        yield from _check_auth(path, listener, lines)
        yield from _check_ports(path, listener)
        yield from check_listener(path, listener, lines)
    yield from _check_duplicates(parts, lines)
    yield from _check_mechanisms(parts)
    yield from _check_limits(("limits",), parts.limits, DEFAULT_LIMITS)
    for path, listener in parts.listeners.items():
        yield from _check_limits((*path, "limits"), listener.limits, parts.limits)
    if parts.server.group is not None and parts.server.user is None:
        yield Remark(("server", "group"), "needs user too; add user, or take group away")
    yield from _check_addresses(parts)
    yield from _check_storage(parts)


def _check_tls(path: KeyPath, listener: Listener) -> Iterator[Remark]:
    if listener.tls == "off" and listener.protocol == "submission" and not is_local(listener):
        yield Remark(
            (*path, "tls"),
            f'"off" on {listener.address}, {_why_not_local(listener)}, would send passwords and mail in clear text; '
            'use "starttls" or "implicit"',
        )


def _why_not_local(listener: Listener) -> str:
    return "behind a proxy whose clients are elsewhere" if listener.address.is_loopback else "which is not loopback"


def _check_auth(path: KeyPath, listener: Listener, lines: Lines) -> Iterator[Remark]:
    local = is_local(listener)
    if listener.allow_insecure_auth and not listener.address.is_loopback:
        yield Remark(
            (*path, "allow_insecure_auth"),
            f"is possible on a loopback address only, and {listener.address} is none; "
            "take it away or listen on 127.0.0.1 or [::1]",
        )
    elif listener.allow_insecure_auth and not local:
        yield Remark(
            (*path, "allow_insecure_auth"),
            "cannot be with proxy_protocol: the clients of the proxy are not on this machine; take one of them away, "
            "and let TLS pass through the proxy",
        )
    elif listener.auth != "off" and listener.tls == "off" and not listener.allow_insecure_auth:
        if not local and listener.protocol == "submission":
            return  # told by _check_tls
        # "auth" may be there by default only; "tls" is then the key that somebody wrote.
        key = "auth" if (*path, "auth") in lines else "tls"
        allow = ", or set allow_insecure_auth = true" if local else ""
        yield Remark(
            (*path, key),
            f'auth = {show(listener.auth)} with tls = "off" would send passwords in clear text; '
            f'use tls = "starttls" or "implicit", or auth = "off"{allow}',
        )
    if listener.protocol == "submission" and listener.auth == "off" and not local:
        yield Remark(
            (*path, "auth"),
            f'"off" on {listener.address}, {_why_not_local(listener)}, would let everybody submit mail; '
            'use "required", or protocol = "smtp"',
        )


def _check_ports(path: KeyPath, listener: Listener) -> Iterator[Remark]:
    """Nothing is wrong with these, but no client expects them."""
    port = listener.address.port
    if listener.tls == "implicit" and port in STARTTLS_PORTS:
        yield Remark(
            (*path, "tls"),
            f'"implicit" on port {port}, where clients expect STARTTLS; use "starttls", or port {IMPLICIT_PORT}',
            warning=True,
        )
    if listener.tls != "implicit" and port == IMPLICIT_PORT:
        yield Remark(
            (*path, "tls"),
            f'{show(listener.tls)} on port {port}, where clients expect TLS from the first byte on; use "implicit"',
            warning=True,
        )
    if listener.protocol == "smtp" and listener.auth == "required" and port == 25:
        yield Remark(
            (*path, "auth"),
            '"required" on port 25, where other servers bring mail and cannot log in; use "off" or "optional"',
            warning=True,
        )


def _check_duplicates(parts: Parts, lines: Lines) -> Iterator[Remark]:
    for (first, one), (second, other) in combinations(parts.addresses.items(), 2):
        if one.overlaps(other):
            yield Remark(
                (*second, "address"),
                f"duplicate listener: {other} overlaps {one} of line {lines.of(first)}; "
                "take one of them away, or change its address",
            )
    for (first, name), (second, other_name) in combinations(parts.names.items(), 2):
        if name == other_name:
            yield Remark(
                (*second, "name"),
                f"duplicate name: the listener of line {lines.of(first)} has it too; change one of them",
            )
    seen: dict[str, int] = {}
    for path, name in parts.domain_names.items():
        if name in seen:
            yield Remark((*path, "name"), f"duplicate domain: line {seen[name]} has it too; take one of them away")
        seen.setdefault(name, lines.of((*path, "name")))


def _check_addresses(parts: Parts) -> Iterator[Remark]:
    """Addresses that mail is sent on to: elsewhere it cannot go before there is an outgoing queue."""
    ours = set(parts.domain_names.values())
    addresses: list[tuple[KeyPath, str | None]] = [(("server", "postmaster"), parts.server.postmaster)]
    addresses += [((*path, "catch_all"), domain.catch_all) for path, domain in parts.domains.items()]
    for path, text in addresses:
        if text is None or (domain := _domain_of(text)) in ours:
            continue
        yield Remark(
            path,
            f"{domain} is none of the [[domain]] tables: its mail would get 451, for there is no outgoing queue yet; "
            f'right only when the domain was added with "mailserver domain add {domain}"',
            warning=True,
        )


def _domain_of(text: str) -> str:
    # `classes` has parsed it.
    return parse_address(text).ascii_domain


def _check_mechanisms(parts: Parts) -> Iterator[Remark]:
    path = ("auth", "mechanisms")
    if not parts.auth.mechanisms and any(listener.auth != "off" for listener in parts.listeners.values()):
        yield Remark(path, 'is empty, so nobody could log in; name one, or set auth = "off" on every listener')
    asked = any(listener.client_certificates != "off" for listener in parts.listeners.values())
    seen: set[str] = set()
    for number, name in enumerate(parts.auth.mechanisms):
        if name == "EXTERNAL" and not asked:
            yield Remark(
                (*path, number),
                '"EXTERNAL" needs client certificates, and no listener asks for them; '
                'set client_certificates = "request" on one, or take it away',
            )
        if name in seen:
            yield Remark((*path, number), f'"{name}" stands here twice; take one away')
        seen.add(name)


# A limit, another one that it must not be above, and their unit.
_PAIRS = (
    ("busy_command_timeout", "command_timeout", "seconds"),
    ("auth_failure_delay", "auth_failure_delay_most", "seconds"),
    ("command_line", "line_without_end", "octets"),
    ("auth_line", "line_without_end", "octets"),
)


def _check_storage(parts: Parts) -> Iterator[Remark]:
    storage = parts.storage
    if storage.journal_body_limit > storage.journal_segment_size // 4:
        sizes = (
            f"{with_unit(storage.journal_body_limit, 'octets')}, {with_unit(storage.journal_segment_size, 'octets')}"
        )
        yield Remark(
            ("storage", "journal_body_limit"), f"must not be above a quarter of journal_segment_size ({sizes})"
        )
    if storage.durability == "none":
        yield Remark(
            ("storage", "durability"), '"none" loses acknowledged mail by a power cut; for tests only', warning=True
        )


def _check_limits(path: KeyPath, limits: Limits, base: Limits) -> Iterator[Remark]:
    """Limits that contradict each other, unless they do so in the base already."""
    for lesser, greater, unit in _PAIRS:
        low, high = getattr(limits, lesser), getattr(limits, greater)
        if low <= high or (low, high) == (getattr(base, lesser), getattr(base, greater)):
            continue
        # The key that was changed is the one to speak of.
        changed = lesser if low != getattr(base, lesser) else greater
        numbers = f"{with_unit(low, unit)} is above {with_unit(high, unit)}"
        yield Remark((*path, changed), f"{lesser} must not be above {greater} ({numbers}); change one of them")
    # Fewer errors alone are no contradiction: such a connection just ends before anything is delayed.
    before, most = limits.errors_before_delay, limits.errors
    if before > most and before != base.errors_before_delay:
        yield Remark(
            (*path, "errors_before_delay"),
            f"must not be above errors ({before:,} is above {most:,}): nothing would ever be delayed; "
            "change one of them, or set error_delay = 0",
        )
