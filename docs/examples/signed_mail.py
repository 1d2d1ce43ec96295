"""
Two apps for DKIM: `Sign` puts signatures on mail that users submit, `Check` tells what came of those of others.

docs/dkim.md shows how they are named in the configuration, and how the keys are made.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from twisted.internet.defer import TimeoutError as NoAnswerError
from twisted.names import dns, error

from mailserver import App, Changes
from mailserver.dkim import (
    KeyUnavailable,
    Resolver,
    Signer,
    SigningOptions,
    Unsignable,
    load_private_key,
    verify,
)

#: What this server calls itself in Authentication-Results.
AUTHSERV_ID = "mail.example.org"
#: Seconds to wait for each try of the DNS.
TIMEOUTS = (2, 4)


def resolver_of(names: Any) -> Resolver:
    """A resolver for `mailserver.dkim` out of one of twisted.names (`twisted.names.client.getResolver()`)."""

    async def records(name: str) -> Sequence[Sequence[bytes]]:
        try:
            answers, _, _ = await names.lookupText(name, timeout=TIMEOUTS)
        except (error.DNSNameError, error.AuthoritativeDomainError):
            return []
        except (error.DomainError, error.ResolverError, NoAnswerError, OSError) as trouble:
            raise KeyUnavailable(str(trouble)) from trouble
        return [answer.payload.data for answer in answers if answer.type == dns.TXT]

    return records


class Sign(App):
    """Signs what goes through.  Name it for listeners of the protocol "submission" only."""

    class Options(BaseModel):
        """keys: selector -> file with a private key."""

        domain: str
        keys: dict[str, str]

    @classmethod
    def setup(cls, options: Any) -> list[SigningOptions]:
        """The keys are read once, so a bad one is told at the start."""
        return [
            SigningOptions(options.domain, selector, load_private_key(Path(file).read_bytes()))
            for selector, file in options.keys.items()
        ]

    async def filter(self, envelope: Any, message: Any) -> Changes | None:
        """Read the message once, and add a field for each key."""
        signer = Signer(self.shared, now=int(time.time()))
        try:
            async for block in message.blocks():
                signer.write(block)
            signed = signer.finish()
        except Unsignable as reason:
            self.refuse(554, "5.6.0", f"not signed: {reason}")
        return Changes(add=fields_of(signed))


class Check(App):
    """Adds Authentication-Results, and takes away those that came with the message: anybody can write them."""

    @classmethod
    def setup(cls, options: Any) -> Resolver:
        """One resolver for all connections."""
        from twisted.names import client

        return resolver_of(client.getResolver())

    async def filter(self, envelope: Any, message: Any) -> Changes | None:
        """It refuses nothing: a signature that fails counts as none (RFC 6376 6.1)."""
        found = await verify(message.blocks(), self.shared, now=time.time())
        return Changes(
            add=fields_of(found.authentication_results(AUTHSERV_ID)),
            remove=["Authentication-Results"],
        )


def fields_of(fields: bytes) -> list[tuple[str, str]]:
    """Fields with their folds as `Changes.add` takes them: names and unfolded values."""
    unfolded = fields.decode("ascii").replace("\r\n\t", " ").split("\r\n")
    return [(name, value.strip()) for name, _, value in (field.partition(":") for field in unfolded if field)]
