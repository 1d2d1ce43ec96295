"""
`python -m bench.dkim`: signing and verifying with `mailserver.dkim`, beside dkimpy.

In: options (`--help`).  Out: a table on stdout: microseconds of both for each message, and how many times faster
ours is. Both get the same message in memory, the same key, and the key record without asking the DNS; both verify
what ours has signed.  Each figure is the median of rounds in which both have their turn, one processor, nothing in
parallel. dkimpy takes its key as PEM with each message and parses it then; ours is parsed once.
"""

from __future__ import annotations

import argparse
import base64
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import dkim
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from mailserver.dkim import (
    Algorithm,
    Canonicalization,
    Outcome,
    PrivateKey,
    SigningOptions,
    Verifier,
    new_private_key,
    sign,
)

SIZES = (4096, 65_536, 1_048_576)
DOMAIN, SELECTOR = "example.com", "bench"
_SIGNED = ["from", "to", "subject", "date", "message-id", "mime-version", "content-type"]

_HEADER = b"".join(
    line + b"\r\n"
    for line in (
        b"Received: from client.example.com (client.example.com [192.0.2.1])",
        b"\tby mail.example.com with ESMTPS id 4bXYZ; Fri, 20 Nov 2026 15:42:41 +0000",
        b"Message-ID: <20261120154241.4711@example.com>",
        b"Date: Fri, 20 Nov 2026 15:42:41 +0000",
        b"From: Joe SixPack <joe@example.com>",
        b"To: Suzie Q <suzie@example.net>,",
        b" Somebody Else <else@example.net>",
        b"Subject: Is dinner ready?",
        b"MIME-Version: 1.0",
        b"Content-Type: text/plain; charset=utf-8",
        b"User-Agent: bench",
    )
)
_LINE = b"We lost the game.  Are you hungry yet, or shall we wait for the others?\r\n"


@dataclass(frozen=True, slots=True)
class Row:
    """One figure.  ours, theirs: seconds for each message."""

    operation: str
    algorithm: str
    canonicalization: str
    size: int
    ours: float
    theirs: float

    @property
    def ratio(self) -> float:
        """How many times faster ours is."""
        return self.theirs / self.ours

    def __str__(self) -> str:
        return (
            f"{self.operation:<7} {self.algorithm:<15} {self.canonicalization:<16} {self.size:>9,} "
            f"{self.ours * 1e6:>10,.0f} {self.theirs * 1e6:>10,.0f} {self.ratio:>7.1f}"
        )


HEADING = f"{'':<7} {'algorithm':<15} {'c=':<16} {'octets':>9} {'ours, us':>10} {'dkimpy, us':>10} {'ratio':>7}"


def compose(size: int) -> bytes:
    """A message of about so many octets: lines of text."""
    return _HEADER + b"\r\n" + _LINE * max(1, (size - len(_HEADER)) // len(_LINE))


def rows(keys: Sequence[PrivateKey], sizes: Sequence[int], seconds: float) -> Iterator[Row]:
    """Every figure, as soon as it is there.  seconds: that each side of each figure may take."""
    for key in keys:
        for kind in Canonicalization:
            for size in sizes:
                yield from _pair(key, kind, compose(size), seconds)


def _pair(key: PrivateKey, kind: Canonicalization, message: bytes, seconds: float) -> Iterator[Row]:
    options = SigningOptions(
        DOMAIN,
        SELECTOR,
        key,
        headers=_SIGNED,
        oversigned=(),
        header_canonicalization=kind,
        body_canonicalization=kind,
    )
    now = int(time.time())
    signed = sign(message, options, now=now) + message
    record = key.record.encode()
    secret = _for_dkimpy(key)
    names = [name.encode() for name in _SIGNED]

    def ours_verify() -> None:
        verifier = Verifier()
        verifier.write(signed)
        found = verifier.results({name: [record] for name in verifier.names}, now=now)
        assert found.results[0].outcome is Outcome.PASS, found

    def theirs_sign() -> None:
        dkim.sign(
            message,
            SELECTOR.encode(),
            DOMAIN.encode(),
            secret,
            signature_algorithm=key.algorithm.encode(),
            canonicalize=(kind.encode(), kind.encode()),
            include_headers=names,
        )

    def theirs_verify() -> None:
        assert dkim.verify(signed, dnsfunc=lambda _name, timeout=5: record)  # noqa: ARG005 - dkimpy's signature

    for operation, ours, theirs in (
        ("sign", lambda: sign(message, options, now=now), theirs_sign),
        ("verify", ours_verify, theirs_verify),
    ):
        measured = _measured(ours, theirs, seconds)
        yield Row(operation, str(key.algorithm), f"{kind}/{kind}", len(message), *measured)


def _for_dkimpy(key: PrivateKey) -> bytes:
    """RSA as PKCS 1, Ed25519 as its seed in base64."""
    private = load_pem_private_key(key.pem(), None)
    if key.algorithm is Algorithm.RSA:
        return private.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    return base64.b64encode(private.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption()))


def _measured(ours: Callable[[], object], theirs: Callable[[], object], seconds: float) -> tuple[float, float]:
    """Seconds for one call of each: medians of rounds, in turn; one call of each goes before, to warm up."""
    took: tuple[list[float], list[float]] = ([], [])
    ours(), theirs()
    end = time.perf_counter() + 2 * seconds
    while not took[1] or time.perf_counter() < end:
        for call, times in zip((ours, theirs), took, strict=True):
            start = time.perf_counter()
            call()
            times.append(time.perf_counter() - start)
    return statistics.median(took[0]), statistics.median(took[1])


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m bench.dkim", description="DKIM beside dkimpy, on this machine.")
    parser.add_argument(
        "--sizes", default=",".join(map(str, SIZES)), help="octets of the messages (default: %(default)s)"
    )
    parser.add_argument("--bits", type=int, default=2048, help="of the RSA key (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=1.0, help="for each figure and side (default: %(default)s)")
    given = parser.parse_args(arguments)
    sizes = [int(size) for size in given.sizes.split(",")]
    keys = [new_private_key(Algorithm.RSA, given.bits), new_private_key(Algorithm.ED25519)]
    print(HEADING)
    for row in rows(keys, sizes, given.seconds):
        print(row, flush=True)


if __name__ == "__main__":
    main()
