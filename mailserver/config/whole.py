"""
The whole configuration, as the composition root takes it.

In: the parts.  Out: `Config`, frozen, which can also tell each key's effective value and where it came from.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from mailserver.config.classes import TLS, AppTable, Auth, Domain, Listener, Server, Storage
from mailserver.config.origins import Effective, of_limits, of_table
from mailserver.config.problems import Problem
from mailserver.config.quantities import toml_key
from mailserver.limits import DEFAULT_LIMITS, Limits


@dataclass(frozen=True, slots=True)
class Config:
    """
    Everything that is configured.

    source: the file, absolute; None in development mode.  limits: of `[limits]`; each listener has its own effective
    ones.  warnings: problems with which the server can start.  origins: key -> where its value came from; the others
    have their default.  text: what stood in the file.
    """

    source: Path | None
    server: Server
    tls: TLS = field(default_factory=TLS)
    storage: Storage = field(default_factory=Storage)
    auth: Auth = field(default_factory=Auth)
    limits: Limits = DEFAULT_LIMITS
    listeners: tuple[Listener, ...] = ()
    domains: tuple[Domain, ...] = ()
    apps: tuple[AppTable, ...] = ()
    development: bool = False
    warnings: tuple[Problem, ...] = ()
    origins: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), repr=False)
    text: str = field(default="", repr=False)

    @property
    def effective(self) -> tuple[Effective, ...]:
        """
        Every key with its value in force and its origin, in the order of the sample.

        Of a listener's limits only those that are not the same as in `[limits]`.
        """
        return tuple(self._effective())

    def _effective(self) -> Iterator[Effective]:
        yield from of_table(self.server, "server", self.origins)
        yield from of_table(self.tls, "tls", self.origins)
        for number, pair in enumerate(self.tls.certificates, 1):
            yield from of_table(pair, f"tls.certificate[{number}]", self.origins)
        yield from of_table(self.storage, "storage", self.origins)
        yield from of_table(self.auth, "auth", self.origins)
        yield from of_limits(self.limits, "limits", self.origins)
        for listener in self.listeners:
            prefix = f"listener.{toml_key(listener.name)}"
            yield from of_table(listener, prefix, self.origins)
            yield from of_limits(listener.limits, f"{prefix}.limits", self.origins, self.limits)
        for domain in self.domains:
            yield from of_table(domain, f"domain.{toml_key(domain.name)}", self.origins)
        for app in self.apps:
            yield from of_table(app, f"app.{toml_key(app.name)}", self.origins)
