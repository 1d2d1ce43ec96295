"""
The server's side of TLS: which certificate for which name, renewed ones while running.

In: pairs of files (see certificates.py).  Out: `CertificateSet`, which makes connections for Twisted's TLS, on ports
with implicit TLS and for STARTTLS alike (how, is told in tls_contexts.py), and for listeners that ask clients for
certificates; `Finding`s about the files.
Failures: `CertificateProblem` while a set is made; a set that runs never fails, it keeps the certificate it had.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from OpenSSL import SSL
from twisted.application.service import Service
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from zope.interface import implementer

from mailserver.certificates import CertificateProblem, Finding, LoadedPair, Pair, inspect_pair
from mailserver.handshake import channel_bindings, tls_info
from mailserver.tls_contexts import (
    CLIENT_CERTIFICATES,
    MINIMUM_VERSIONS,
    ByName,
    ClientCertificates,
    make_context,
    stamp,
)

__all__ = [
    "CLIENT_CERTIFICATES",
    "CertificateProblem",
    "CertificateSet",
    "CertificateWatch",
    "ClientCertificates",
    "Finding",
    "channel_bindings",
    "check_pair",
    "tls_info",
]


def check_pair(certificate: Path, key: Path, *, now: datetime | None = None) -> list[Finding]:
    """
    Everything that is wrong with a pair: files missing, not readable, not PEM, empty, damaged; key encrypted or of
    another certificate; both too weak for OpenSSL.  Warnings: expired, not valid yet, key open to every user.
    now: aware; None for the clock's.
    """
    return _examine((certificate, key), SSL.TLS1_2_VERSION, now or _clock())[1]


def _clock() -> datetime:
    return datetime.now(UTC)


#: Seconds after which the keys of session tickets are changed: RFC 9325 3.4, a week.
TICKET_KEYS = 7 * 86_400.0


@implementer(IOpenSSLServerConnectionCreator)
class CertificateSet(ByName):
    """
    The certificates of a server, one of which is chosen for each connection by the server name (SNI).

    The exact name wins, then a wildcard for its first label, then the first pair; so does no name, or a strange one.
    """

    def __init__(
        self, pairs: Sequence[Pair], *, minimum_version: str = "1.2", now: Callable[[], datetime] = _clock
    ) -> None:
        """
        pairs: (certificate, key), the default first; at least one.  minimum_version: "1.2" or "1.3".
        now: an aware time, for warnings.
        Raises CertificateProblem for a pair that cannot be used; ValueError without pairs, or for another version.
        """
        if not pairs:
            raise ValueError("a certificate set needs at least one pair of files")
        if minimum_version not in MINIMUM_VERSIONS:
            raise ValueError(f"{minimum_version!r} is no TLS version to start from; 1.2 and 1.3 are")
        self._minimum = MINIMUM_VERSIONS[minimum_version]
        self._now = now
        self._pairs: tuple[Pair, ...] = ()
        self._usable: dict[Pair, _Usable] = {}
        self._for_clients: dict[tuple[str, Path], ClientCertificates] = {}
        super().__init__(make_context(self._minimum))
        for finding in self.reload(pairs):
            if not finding.warning:
                raise CertificateProblem(finding.path, finding.text)

    def for_clients(self, mode: str, authorities: Path | None = None) -> CertificateSet | ClientCertificates:
        """
        What makes the connections of a listener that asks its clients for certificates: the same certificates of
        ours, the same reload.

        mode: "off" (the set itself), "request" or "require".  authorities: PEM file of those who may sign.
        Raises CertificateProblem for a file that cannot be used; ValueError for another mode, or without a file.
        """
        if mode not in CLIENT_CERTIFICATES:
            raise ValueError(f"{mode!r} is no way to ask for client certificates; off, request and require are")
        if mode == "off":
            return self
        if authorities is None:
            raise ValueError(f"client certificates: {mode!r} needs a file of authorities")
        key = (mode, authorities)
        if key not in self._for_clients:
            found = ClientCertificates(mode, authorities, self._minimum)
            for finding in found.reload([each.pair for each in self._usable.values()]):
                raise CertificateProblem(finding.path, finding.text)
            self._for_clients[key] = found
        return self._for_clients[key]

    def change_ticket_keys(self) -> None:
        """From now on, session tickets are made with other keys; sessions of before cannot be taken up any more."""
        self.begin_in(make_context(self._minimum))

    def reload(self, pairs: Sequence[Pair] | None = None) -> list[Finding]:
        """
        Read all files again; with `pairs`, those instead of the old ones (no pairs at all change nothing).

        A pair that cannot be used keeps what it had before, and is a finding; a new one is left out.  Warnings are
        findings too.  New connections, and those that have not sent their server name yet, get the new certificates
        all at once.  Running connections and their sessions go on.
        """
        wanted = tuple(pairs) if pairs else self._pairs
        # Taken before reading: what is written meanwhile will be seen by `changed`.
        stamps = {path: stamp(path) for pair in wanted for path in pair}
        findings: list[Finding] = []
        usable: dict[Pair, _Usable] = {}
        for pair in wanted:
            fresh, found = _examine(pair, self._minimum, self._now())
            findings += found
            kept = fresh or self._usable.get(pair)
            if kept is not None:
                usable[pair] = kept
        self._pairs, self._stamps = wanted, stamps
        if usable:
            self._usable = usable
            self._take([(each.pair.names, each.context) for each in usable.values()])
        for clients in self._for_clients.values():
            findings += clients.reload([each.pair for each in self._usable.values()])
        return findings

    def changed(self) -> bool:
        """Did a file change (time of modification, size, inode) since it was read last?"""
        return any(stamp(path) != before for path, before in self._stamps.items()) or any(
            clients.changed() for clients in self._for_clients.values()
        )

    @property
    def names(self) -> tuple[tuple[str, ...], ...]:
        """The names of each certificate, in the order of the pairs."""
        return tuple(each.pair.names for each in self._usable.values())

    @property
    def expires(self) -> datetime:
        """When the first of the certificates ends (aware)."""
        return min(each.pair.chain[0].not_valid_after_utc for each in self._usable.values())


class CertificateWatch(Service):
    """
    Looks after a `CertificateSet` while the server runs: renews and reloads what changed, and logs each outcome once.
    """

    log = Logger()

    def __init__(
        self, certificates: CertificateSet, clock: Any, interval: float, renew: Callable[[], bool] | None = None
    ) -> None:
        """
        clock: `IReactorTime`.  interval: seconds between two looks; 0: never (`reload` still works).
        renew: called before each look; writes new files when it is time to, and returns whether it did.
        """
        self._certificates = certificates
        self._interval = interval
        self._renew = renew
        self._told: frozenset[str] = frozenset()
        self._loop = LoopingCall(self._look)
        self._tickets = LoopingCall(certificates.change_ticket_keys)
        for loop in (self._loop, self._tickets):
            loop.clock = clock

    def startService(self) -> None:
        """Look from now on, the first time after one interval."""
        super().startService()
        if self._interval > 0:
            self._loop.start(self._interval, now=False)
        self._tickets.start(TICKET_KEYS, now=False)

    def stopService(self) -> None:
        """Look no more."""
        super().stopService()
        for loop in (self._loop, self._tickets):
            if loop.running:
                loop.stop()

    def reload(self, pairs: Sequence[Pair] | None = None) -> list[Finding]:
        """Reload now (SIGHUP): `CertificateSet.reload`, with its log."""
        findings = self._certificates.reload(pairs)
        self._tell(findings)
        self.log.info(
            "certificates in use: {names}; the first ends on {expires}",
            names="; ".join(", ".join(names) for names in self._certificates.names),
            expires=f"{self._certificates.expires:%Y-%m-%d}",
        )
        return findings

    def _look(self) -> None:
        try:
            if self._is_renewed() or self._certificates.changed():
                self.reload()
        except Exception:  # noqa: BLE001 - whatever it was, the next renewal must still be seen
            self.log.failure("the certificates could not be looked after; tried again later")

    def _is_renewed(self) -> bool:
        try:
            return self._renew is not None and self._renew()
        except OSError as error:
            self._tell([Finding(Path(error.filename or "."), f"the certificate cannot be renewed: {error.strerror}")])
            return False

    def _tell(self, findings: list[Finding]) -> None:
        for finding in findings:
            if str(finding) in self._told:
                continue
            if finding.warning:
                self.log.warn("{path}: {text}", path=str(finding.path), text=finding.text)  # noqa: G010 - Twisted
            else:
                self.log.error("{path}: {text}; the old stays in use", path=str(finding.path), text=finding.text)
        self._told = frozenset(map(str, findings))


@dataclass(frozen=True, slots=True)
class _Usable:
    """A pair, ready for connections."""

    pair: LoadedPair
    context: SSL.Context


def _examine(pair: Pair, minimum: int, now: datetime) -> tuple[_Usable | None, list[Finding]]:
    loaded, findings = inspect_pair(*pair, now=now)
    if loaded is None:
        return None, findings
    try:
        context = make_context(minimum, loaded)
    except SSL.Error as error:
        return None, [*findings, Finding(pair[0], f"OpenSSL does not take the certificate: {_reason(error)}")]
    return _Usable(loaded, context), findings


def _reason(error: SSL.Error) -> str:
    queue = error.args[0] if error.args and isinstance(error.args[0], list) else []
    return ", ".join(reason for _, _, reason in queue if reason) or "no reason given"
