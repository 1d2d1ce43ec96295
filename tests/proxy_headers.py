"""
Headers of the PROXY protocol, good and bad, as tables: name, octets, and what they say.

proxy-protocol.txt of HAProxy, sections 2.1 and 2.2.
"""

from __future__ import annotations

import struct

from mailserver.proxy import MAX_V2, ProxyHeader

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
V4 = bytes([192, 0, 2, 1, 192, 0, 2, 2]) + struct.pack("!HH", 4000, 25)
V6 = bytes.fromhex("20010db8" + "0" * 23 + "1" + "20010db8" + "0" * 23 + "2") + struct.pack("!HH", 4000, 25)
MAPPED = bytes.fromhex("0" * 20 + "ffff" + "c0000201" + "0" * 20 + "ffff" + "c0000202") + struct.pack("!HH", 1, 2)
TLVS = b"\x04\x00\x03abc" + b"\x20\x00\x05\x01\x00\x00\x00\x00"


def binary(
    family_protocol: int, block: bytes = b"", *, version_command: int = 0x21, length: int | None = None
) -> bytes:
    """A header of version 2."""
    return (
        SIGNATURE
        + struct.pack("!BBH", version_command, family_protocol, len(block) if length is None else length)
        + block
    )


FOUR = ProxyHeader(("192.0.2.1", 4000), ("192.0.2.2", 25))
SIX = ProxyHeader(("2001:db8::1", 4000), ("2001:db8::2", 25))
NONE = ProxyHeader()

GOOD: list[tuple[str, bytes, ProxyHeader]] = [
    ("v1 TCP4", b"PROXY TCP4 192.0.2.1 192.0.2.2 4000 25\r\n", FOUR),
    ("v1 TCP4, the longest", b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n",
     ProxyHeader(("255.255.255.255", 65535), ("255.255.255.255", 65535))),
    ("v1 TCP4, ports of 0", b"PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n", ProxyHeader(("0.0.0.0", 0), ("0.0.0.0", 0))),
    ("v1 TCP6", b"PROXY TCP6 2001:db8::1 2001:DB8:0::2 4000 25\r\n", SIX),
    ("v1 TCP6, an IPv4 client", b"PROXY TCP6 ::ffff:192.0.2.1 ::ffff:c000:202 4000 25\r\n", FOUR),
    ("v1 TCP6, the longest", b"PROXY TCP6 " + b"ffff:" * 7 + b"ffff " + b"ffff:" * 7 + b"ffff 65535 65535\r\n",
     ProxyHeader(("ffff:" * 7 + "ffff", 65535), ("ffff:" * 7 + "ffff", 65535))),
    ("v1 UNKNOWN", b"PROXY UNKNOWN\r\n", NONE),
    ("v1 UNKNOWN with what is ignored", b"PROXY UNKNOWN nonsense 1 \x00\xff\r\n", NONE),
    ("v1 UNKNOWN, the longest", b"PROXY UNKNOWN " + b"f" * 91 + b"\r\n", NONE),
    ("v2 TCP over IPv4", binary(0x11, V4), FOUR),
    ("v2 TCP over IPv6", binary(0x21, V6), SIX),
    ("v2 TCP over IPv6, an IPv4 client", binary(0x21, MAPPED), ProxyHeader(("192.0.2.1", 1), ("192.0.2.2", 2))),
    ("v2 with TLVs", binary(0x11, V4 + TLVS), FOUR),
    ("v2 with TLVs that are none", binary(0x21, V6 + b"\xff" * 7), SIX),
    ("v2 with the longest block", binary(0x11, V4.ljust(MAX_V2 - 16, b"\x00")), FOUR),
    ("v2 over a Unix socket", binary(0x31, b"/run/x".ljust(216, b"\x00")), NONE),
    ("v2 UNSPEC", binary(0x00), NONE),
    ("v2 UNSPEC with a block", binary(0x00, b"anything"), NONE),
    ("v2 UDP over IPv4", binary(0x12, V4), NONE),
    ("v2 IPv4 without a protocol", binary(0x10, V4), NONE),
    ("v2 LOCAL", binary(0x00, version_command=0x20), NONE),
    ("v2 LOCAL with addresses, which mean nothing", binary(0x11, V4, version_command=0x20), NONE),
    ("v2 LOCAL with a family that there is not", binary(0xFF, b"xyz", version_command=0x20), NONE),
]  # fmt: skip

BAD: list[tuple[str, bytes]] = [
    ("SMTP", b"EHLO x\r\n"),
    ("TLS", b"\x16\x03\x01"),
    ("HTTP", b"GET / HTTP/1.1\r\n"),
    ("nothing like it", b"X"),
    ("lower case", b"proxy TCP4"),
    ("no blank behind PROXY", b"PROXYTCP4 "),
    ("v1 without a protocol", b"PROXY \r\n"),
    ("v1 with another protocol", b"PROXY UDP4 192.0.2.1 192.0.2.2 4000 25\r\n"),
    ("v1 UNKNOWN and something", b"PROXY UNKNOWNX\r\n"),
    ("v1 UNKNOWN with a bare LF", b"PROXY UNKNOWN a\nb\r\n"),
    ("v1 UNKNOWN with a bare CR", b"PROXY UNKNOWN a\rb\r\n"),
    ("v1 with two blanks", b"PROXY TCP4  192.0.2.1 192.0.2.2 4000 25\r\n"),
    ("v1 with a blank at the end", b"PROXY TCP4 192.0.2.1 192.0.2.2 4000 25 \r\n"),
    ("v1 with a tab", b"PROXY TCP4 192.0.2.1\t192.0.2.2 4000 25\r\n"),
    ("v1 that ends early", b"PROXY TCP4 192.0.2.1 192.0.2.2 4000\r\n"),
    ("v1 with a bare LF", b"PROXY TCP4 192.0.2.1 192.0.2.2 4000 25\n\r\n"),
    ("v1 TCP4 with an IPv6 address", b"PROXY TCP4 ::1 192.0.2.2 4000 25\r\n"),
    ("v1 TCP6 with an IPv4 address", b"PROXY TCP6 192.0.2.1 ::1 4000 25\r\n"),
    ("v1 with leading zeros in an address", b"PROXY TCP4 192.0.02.1 192.0.2.2 4000 25\r\n"),
    ("v1 with three numbers", b"PROXY TCP4 192.0.2 192.0.2.2 4000 25\r\n"),
    ("v1 with an address out of range", b"PROXY TCP4 192.0.2.256 192.0.2.2 4000 25\r\n"),
    ("v1 with a name", b"PROXY TCP4 localhost 192.0.2.2 4000 25\r\n"),
    ("v1 with a zone", b"PROXY TCP6 fe80::1%1 ::1 4000 25\r\n"),
    ("v1 with a port of six digits", b"PROXY TCP4 192.0.2.1 192.0.2.2 100000 25\r\n"),
    ("v1 with a port out of range", b"PROXY TCP4 192.0.2.1 192.0.2.2 65536 25\r\n"),
    ("v1 with a leading zero in a port", b"PROXY TCP4 192.0.2.1 192.0.2.2 04000 25\r\n"),
    ("v1 with a signed port", b"PROXY TCP4 192.0.2.1 192.0.2.2 +400 25\r\n"),
    ("v1 with a negative port", b"PROXY TCP4 192.0.2.1 192.0.2.2 -1 25\r\n"),
    ("v1 with digits of another script", "PROXY TCP4 192.0.2.1 192.0.2.2 ٤ 25\r\n".encode()),
    ("v1 with a NUL", b"PROXY TCP4 192.0.2.1\x00 192.0.2.2 4000 25\r\n"),
    ("v1 one octet too long", b"PROXY UNKNOWN " + b"f" * 92 + b"\r\n"),
    ("v1 that never ends", b"PROXY TCP4 " + b"1" * 200),
    ("v2 of version 1", binary(0x11, V4, version_command=0x11)),
    ("v2 of version 3", binary(0x11, V4, version_command=0x31)),
    ("v2 with an unknown command", binary(0x11, V4, version_command=0x22)),
    ("v2 with an unknown family", binary(0x41, V4)),
    ("v2 with an unknown protocol", binary(0x13, V4)),
    ("v2 too short for IPv4", binary(0x11, V4[:-1])),
    ("v2 too short for IPv6", binary(0x21, V4)),
    ("v2 too short for Unix", binary(0x31, b"x" * 215)),
    ("v2 one octet too long", binary(0x11, b"", length=MAX_V2 - 15)),
    ("v2 as long as can be", binary(0x00, b"", length=0xFFFF, version_command=0x20)),
]  # fmt: skip
