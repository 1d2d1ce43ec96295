"""
The DNS records that a mail domain needs, as values, and as a table, a zone file or JSON.

In: `Site`, what is known of the domain and its server.  Out: `Record` values in the order in which they matter, and
texts of them.  No DNS is asked.  docs/dns.md says what each record is for.
All names are absolute, in A-labels, and end with a dot where a zone file would want one.

RFC 1035 5.1 and 3.3.14 (zone files, TXT), RFC 5321 5.1 (MX), RFC 7208 (SPF), RFC 6376 3.6.1 (DKIM),
RFC 7489 6.3 (DMARC), RFC 6186 and RFC 8314 5.1 (SRV for mail programs).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

#: Seconds; short enough to correct a mistake within the hour.
TTL = 3600
#: RFC 1035 3.3: octets of one character-string; a longer TXT is several, which readers join.
MAX_STRING = 255
#: The ports that the world calls, wherever the server itself listens (RFC 6409, RFC 8314).
SUBMISSION, SUBMISSIONS = 587, 465

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True)
class Site:
    """
    domain, hostname: normal names (A-labels, no dot at the end).  addresses: of the host, as seen from the world.
    selector, dkim_key: the DKIM selector and the public key (DER, base64).
    """

    domain: str
    hostname: str
    addresses: tuple[IPAddress, ...]
    selector: str
    dkim_key: str


@dataclass(frozen=True, slots=True)
class Record:
    """
    One record.  name: absolute, with its dot.  value: RDATA as a zone file has it; a TXT's text without quotes.
    optional: mail flows without it.  foreign: it stands in a zone that the address's owner keeps (PTR).
    """

    name: str
    type: str
    value: str
    purpose: str
    optional: bool = False
    foreign: bool = False


def records(site: Site) -> tuple[Record, ...]:
    """The records for the site; A, AAAA and PTR only when its addresses are known."""
    domain, host = f"{site.domain}.", f"{site.hostname}."
    wanted = [
        Record(host, "A" if address.version == 4 else "AAAA", str(address), "where the server is")
        for address in site.addresses
    ]
    wanted += [
        Record(domain, "MX", f"10 {host}", "which server takes the domain's mail"),
        # Not "-all": a forwarded copy fails SPF, and then some servers refuse before they look at DKIM.
        Record(domain, "TXT", "v=spf1 mx ~all", "SPF: which servers send the domain's mail"),
    ]
    if host != domain:
        wanted.append(Record(host, "TXT", "v=spf1 a -all", "SPF of the server's own name, for bounces"))
    wanted += [
        dkim_record(site.domain, site.selector, f"v=DKIM1; k=rsa; p={site.dkim_key}"),
        Record(
            f"_dmarc.{domain}",
            "TXT",
            f"v=DMARC1; p=none; rua=mailto:postmaster@{site.domain}",
            "DMARC: reports to us; make it p=quarantine when they show no failures",
        ),
        Record(
            f"_submissions._tcp.{domain}",
            "SRV",
            f"0 1 {SUBMISSIONS} {host}",
            "mail programs find the server (TLS)",
            optional=True,
        ),
        Record(
            f"_submission._tcp.{domain}",
            "SRV",
            f"10 1 {SUBMISSION} {host}",
            "mail programs find the server (STARTTLS)",
            optional=True,
        ),
    ]
    wanted += [
        Record(f"{address.reverse_pointer}.", "PTR", host, "set by who gave you the address", foreign=True)
        for address in site.addresses
    ]
    return tuple(wanted)


def dkim_record(domain: str, selector: str, text: str) -> Record:
    """The record of a DKIM key.  text: of the record, as `mailserver.dkim` makes it."""
    return Record(
        f"{selector}._domainkey.{domain}.", "TXT", text, "DKIM: the key that the domain's mail is signed with"
    )


def reminders(site: Site) -> tuple[str, ...]:
    """What no record above can tell, one sentence each."""
    told = []
    if not site.addresses:
        told.append(
            f"{site.hostname} needs an A record, and an AAAA record if it has IPv6 (give --ip to have them listed)."
        )
    told.append(
        f"The reverse name (PTR) of each address must be {site.hostname}: ask who gave you the address. "
        "Without it many servers refuse your mail."
    )
    return tuple(told)


def as_table(wanted: Iterable[Record]) -> str:
    """Lines of name, type and value for people; the value stands last and is whole, to be copied."""
    rows = [(record.name, record.type + (" *" if record.optional else ""), record.value) for record in wanted]
    width = max((len(name) for name, _, _ in rows), default=0)
    return "".join(f"  {name:<{width}}  {kind:<5}  {value}\n" for name, kind, value in rows)


def as_zone(wanted: Iterable[Record], notes: Iterable[str] = ()) -> str:
    """A piece of a zone file (RFC 1035 5.1); records of other zones, and notes, as comments."""
    lines = [f"; {note}" for note in notes]
    for record in wanted:
        value = txt_strings(record.value) if record.type == "TXT" else record.value
        line = f"{record.name}\t{TTL}\tIN\t{record.type}\t{value}"
        lines.append(f"; {line}  ; {record.purpose}" if record.foreign else line)
    return "\n".join(lines) + "\n"


def as_values(wanted: Iterable[Record]) -> list[dict[str, Any]]:
    """The records as JSON has them; a TXT's value is the whole text, without quotes."""
    return [
        {
            "name": record.name,
            "type": record.type,
            "ttl": TTL,
            "value": record.value,
            "purpose": record.purpose,
            "optional": record.optional,
            "other_zone": record.foreign,
        }
        for record in wanted
    ]


def txt_strings(text: str) -> str:
    """
    A TXT's text as quoted character-strings of at most 255 octets each.

    text: printable ASCII; ValueError for another.
    """
    if not (text.isascii() and text.isprintable()):
        raise ValueError("a TXT record here is printable ASCII")
    pieces = [text[at : at + MAX_STRING] for at in range(0, len(text), MAX_STRING)] or [""]
    return " ".join('"' + piece.replace("\\", "\\\\").replace('"', '\\"') + '"' for piece in pieces)
