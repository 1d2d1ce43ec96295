"""
Every limit of the server: one named number each, with its unit, its reason and the range that makes sense.

In: nothing.  Out: `Limits`, a frozen value that sessions, servers and policies take as an argument.
The configuration's `[limits]` table, and a listener's own `limits`, are made from the fields of this class; the
manual and the sample configuration quote the reasons given here.

RFC 5321 4.5.3 (sizes and time-outs), RFC 1870 (SIZE), RFC 4954 (AUTH); precedents: Postfix, Dovecot, chasquid, mox.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

KIB = 1024
MIB = 1024 * KIB


def _octets(default: int, least: int, most: int, reason: str) -> Any:
    return dataclasses.field(
        default=default, metadata={"unit": "octets", "least": least, "most": most, "reason": reason}
    )


def _count(default: int, least: int, most: int, reason: str) -> Any:
    return dataclasses.field(default=default, metadata={"unit": "", "least": least, "most": most, "reason": reason})


def _seconds(default: float, least: float, most: float, reason: str) -> Any:
    return dataclasses.field(
        default=default, metadata={"unit": "seconds", "least": least, "most": most, "reason": reason}
    )


@dataclass(frozen=True, slots=True)
class Limits:
    """
    The limits of one listener.  Each field's metadata holds `unit` ("octets", "seconds" or ""), `least`, `most`
    (the allowed range, both ends included) and `reason` (one sentence for the manual).
    """

    # -- what a peer may send ----------------------------------------------------------------------------------
    command_line: int = _octets(
        4 * KIB,
        2 * KIB,
        64 * KIB,
        "A command line with its CRLF; RFC 5321 4.5.3.1.4 asks for 512, extensions for more.",
    )
    auth_line: int = _octets(16 * KIB, 512, 64 * KIB, "A line of an AUTH exchange; RFC 4954 4 asks for 12,288.")
    line_without_end: int = _octets(
        64 * KIB, 1 * KIB, 1 * MIB, "A command line that goes on for so long without a CRLF ends the connection."
    )
    text_line: int = _octets(
        1 * MIB, 998, 64 * MIB, "A line of text is taken whole up to this; RFC 5321 4.5.3.1.6 asks for 1,000."
    )
    message_size: int = _octets(
        50 * MIB, 64 * KIB, 2**40, "A message; announced by SIZE (RFC 1870); 64 KiB at least (RFC 5321 4.5.3.1.7)."
    )
    header_size: int = _octets(1 * MIB, 8 * KIB, 64 * MIB, "The header section; no real one comes near.")
    header_lines: int = _count(10_000, 100, 1_000_000, "Lines of the header section.")
    received_fields: int = _count(100, 10, 10_000, "More Received fields than this are a loop (RFC 5321 6.3).")
    recipients: int = _count(1_000, 100, 100_000, "Recipients of a message; at least 100 (RFC 5321 4.5.3.1.8).")
    unknown_recipients: int = _count(
        20, 1, 100_000, "Unknown recipients in one connection, then 421: who tries names is not a mailer."
    )
    messages_per_connection: int = _count(1_000, 1, 10_000_000, "Messages in one connection, then 421.")
    errors_before_delay: int = _count(10, 0, 100_000, "From this error on each reply waits for `error_delay`.")
    error_delay: float = _seconds(1.0, 0.0, 60.0, "How long the reply to an erring client waits.")
    errors: int = _count(20, 1, 100_000, "Errors in one connection, then 421 (Postfix: 20).")
    idle_commands: int = _count(
        100, 10, 1_000_000, "Commands without a message (NOOP, RSET, VRFY, EHLO) between messages, then 421."
    )

    # -- mail that shall be released later ---------------------------------------------------------------------
    hold: float = _seconds(
        2_592_000.0,
        0.0,
        31_536_000.0,
        "How long a message of our own user may be held for a later release (FUTURERELEASE, RFC 4865, on submission "
        "listeners); 0: not offered.",
    )
    held_messages: int = _count(
        1_000, 1, 1_000_000, "Messages that one account may have held at the same time, then 452."
    )

    # -- how long it may take ----------------------------------------------------------------------------------
    proxy_header_timeout: float = _seconds(
        5.0, 1.0, 60.0, "The header of the PROXY protocol, where `proxy_protocol` is on; proxies send it at once."
    )
    tls_handshake_timeout: float = _seconds(30.0, 1.0, 600.0, "A TLS handshake, from its start to its end.")
    command_timeout: float = _seconds(300.0, 1.0, 3600.0, "The wait for a command (RFC 5321 4.5.3.2.7: 5 minutes).")
    busy_command_timeout: float = _seconds(
        30.0, 1.0, 3600.0, "The same while over 80 % of the connections are in use."
    )
    text_timeout: float = _seconds(180.0, 1.0, 3600.0, "Silence within a message (RFC 5321 4.5.3.2.5: 3 minutes).")
    text_rate: int = _octets(
        500, 0, 1 * MIB, "Octets per second that a message must reach on average, after `text_grace`; 0: no minimum."
    )
    text_grace: float = _seconds(60.0, 1.0, 3600.0, "How long a message may flow before `text_rate` is asked for.")
    connection_time: float = _seconds(3600.0, 10.0, 86_400.0, "A connection as a whole, unless a message flows.")
    decision_timeout: float = _seconds(
        110.0, 1.0, 3600.0, "A decision of ours, then 451; clients wait 5 minutes, users 2 (RFC 6409 5.3)."
    )
    unread_timeout: float = _seconds(60.0, 1.0, 3600.0, "A peer that does not read our replies.")
    closing_timeout: float = _seconds(
        5.0, 0.1, 600.0, "The wait for a peer to close its side, after our last reply; then the connection is cut."
    )

    # -- how many at once, over all listeners (COUNTED_TOGETHER) -----------------------------------------------
    connections: int = _count(1_000, 1, 1_000_000, "Connections in all; never above 80 % of the files we may open.")
    connections_per_client: int = _count(50, 1, 1_000_000, "Connections of one client (IPv4 address, IPv6 /64).")
    connection_rate: int = _count(300, 1, 10_000_000, "New connections of one client in a minute.")
    messages_per_minute: int = _count(
        1_000, 0, 10_000_000, "Messages of one client in a minute, then 421; far above what mailers do; 0: no limit."
    )
    recipients_per_minute: int = _count(
        10_000, 0, 100_000_000, "Recipients of one client in a minute, refused ones too, then 421; 0: no limit."
    )

    # -- guessing passwords ------------------------------------------------------------------------------------
    auth_failures: int = _count(3, 1, 1000, "Failed AUTH commands in one connection, then 421.")
    auth_failure_delay: float = _seconds(
        2.0, 0.0, 60.0, "How long the answer to a failed AUTH waits; it doubles with each, per client and account."
    )
    auth_failure_delay_most: float = _seconds(15.0, 0.0, 120.0, "The longest such wait.")
    auth_failures_per_minute: int = _count(
        10, 1, 100_000, "Failed AUTH commands of one client in a minute, then 421."
    )
    auth_failures_per_day: int = _count(50, 1, 1_000_000, "Failed AUTH commands of one client in 24 h, then 421.")
    auth_delays: int = _count(20, 1, 10_000, "Delayed answers of one client waiting at the same time, then 421.")


DEFAULT_LIMITS = Limits()

#: Fields that are counted over all listeners together, unless a listener's own `limits` table holds them.
COUNTED_TOGETHER = (
    "connections",
    "connections_per_client",
    "connection_rate",
    "messages_per_minute",
    "recipients_per_minute",
)
#: Fields that are judged by the listener's values and always counted over all: failed logins.
AUTH_TOGETHER = (
    "auth_failure_delay",
    "auth_failure_delay_most",
    "auth_failures_per_minute",
    "auth_failures_per_day",
    "auth_delays",
)
