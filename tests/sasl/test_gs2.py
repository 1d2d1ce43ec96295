"""Tests of mailserver.sasl.gs2: headers as RFC 5801 4 and RFC 5802 7 write them, and what is none."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver.sasl import Malformed
from mailserver.sasl.gs2 import Gs2Header, parse_gs2_header

#: message, header, rest
GOOD = [
    (b"n,,n=user,r=x", Gs2Header(b"n,,", "n"), b"n=user,r=x"),
    (b"y,,", Gs2Header(b"y,,", "y"), b""),
    (b"p=tls-exporter,,n=u", Gs2Header(b"p=tls-exporter,,", "p", "tls-exporter"), b"n=u"),
    (b"n,a=u@example.org,\x01", Gs2Header(b"n,a=u@example.org,", "n", None, "u@example.org"), b"\x01"),
    (b"n,a=a=2Cb=3D2C,", Gs2Header(b"n,a=a=2Cb=3D2C,", "n", None, "a,b=2C"), b""),
    (
        "p=x,a=j\u00f6rg,r".encode(),
        Gs2Header("p=x,a=j\u00f6rg,".encode(), "p", "x", "j\u00f6rg"),
        b"r",
    ),
]

BAD = [b"", b"n", b"n,", b"N,,", b"p,,", b"p=,,", b"p=a_b,,", b"x,,", b"n,a=,", b"n,b=u,", b"n,a=a=2cb,", b"n,a=a=,"]
BAD += [b"n,a=a\0b,", b"n,a=\xff,", b"n,a=a\nb,", b",,", b"F,n,,", b" n,,"]


class Gs2Tests(SynchronousTestCase):
    def test_headers_are_understood(self) -> None:
        for message, header, rest in GOOD:
            self.assertEqual(parse_gs2_header(message), (header, rest), message)

    def test_what_is_no_header_is_malformed(self) -> None:
        for message in BAD:
            self.assertRaises(Malformed, parse_gs2_header, message)

    @given(st.text(st.characters(blacklist_categories=("Cc", "Cs", "Zl", "Zp")), min_size=1, max_size=20))
    @settings(deadline=None, max_examples=100)
    def test_every_name_comes_back(self, name: str) -> None:
        escaped = name.replace("=", "=3D").replace(",", "=2C")
        header, rest = parse_gs2_header(f"n,a={escaped},rest".encode())
        self.assertEqual((header.authzid, rest), (name, b"rest"))

    @given(st.binary(max_size=40) | st.binary(max_size=40).map(lambda octets: b"n,a=" + octets))
    @settings(deadline=None, max_examples=200)
    def test_any_octets_are_a_header_or_malformed(self, message: bytes) -> None:
        try:
            header, rest = parse_gs2_header(message)
        except Malformed:
            return
        self.assertEqual(header.octets + rest, message)
