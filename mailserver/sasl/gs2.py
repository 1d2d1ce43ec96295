"""
The GS2 header, with which the messages of SCRAM and OAUTHBEARER begin (RFC 5801 4, RFC 5802 7).

In: `flag "," ["a=" authzid] ","` and what follows.  Out: `Gs2Header` and the rest.
Failures: `Malformed`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from mailserver.sasl.values import Malformed, decode_name

# gs2-header = gs2-cbind-flag "," [ authzid ] ","; gs2-cbind-flag = ("p=" cb-name) / "n" / "y"
# authzid = "a=" saslname; saslname = 1*(value-safe-char / "=2C" / "=3D")
_HEADER = re.compile(rb"(?:p=([A-Za-z0-9.-]+)|([ny])),(?:a=((?:[^=,\0]|=2C|=3D)+))?,", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Gs2Header:
    """
    octets: as it was sent; channel bindings cover it.  flag: "p" the client binds the channel, "y" it would but
    believes that the server cannot, "n" it does not.  binding: the type of channel binding, None without "p".
    authzid: whom to act as, or "".
    """

    octets: bytes
    flag: str
    binding: str | None = None
    authzid: str = ""


def parse_gs2_header(message: bytes) -> tuple[Gs2Header, bytes]:
    """The header of a message, and the rest.  Raises Malformed."""
    form = _HEADER.match(message)
    if form is None:
        raise Malformed("there is no GS2 header")
    binding, flag, name = form.groups()
    authzid = decode_name(name.replace(b"=2C", b",").replace(b"=3D", b"=")) if name else ""
    header = Gs2Header(
        form[0],
        "p" if binding else flag.decode("ascii"),
        binding.decode("ascii") if binding else None,
        authzid,
    )
    return header, message[form.end() :]
