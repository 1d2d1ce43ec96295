"""
From the tables of a TOML file to the configuration's classes, collecting every problem on the way.

In: what `tomllib` made of the file, and the lines of its keys.  Out: `Parts`, and the problems: unknown keys, missing
keys, wrong types, numbers out of range.  A table with a problem is left out, so that the others are still judged.
What is wrong between keys is found by `checks`, what is wrong with the machine by `ground`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import ValidationError

from mailserver.config.checked import listener_name, mail_domain, parse_listen_address
from mailserver.config.classes import (
    TLS,
    AppMatch,
    AppTable,
    Auth,
    CertificateFiles,
    Domain,
    Listener,
    Server,
    Storage,
    Table,
)
from mailserver.config.lines import KeyPath
from mailserver.config.origins import Places
from mailserver.config.problems import Problem
from mailserver.config.quantities import Range, parse_duration, parse_size, show, toml
from mailserver.limits import DEFAULT_LIMITS, Limits
from mailserver.sockets import ListenAddress

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

T = TypeVar("T", bound=Table)
V = TypeVar("V")
#: Tables of the file, with their paths.
_Tables = list[tuple[KeyPath, dict[str, Any]]]

#: The tables of the file in the order of the sample; `limits` is made from `mailserver.limits.Limits`.
TABLES: Mapping[str, type[Table | Limits]] = {
    "server": Server,
    "tls": TLS,
    "storage": Storage,
    "auth": Auth,
    "limits": Limits,
    "listener": Listener,
    "domain": Domain,
    "app": AppTable,
}
#: Those of them that are written with two brackets, any number of times.
ARRAYS = ("listener", "domain", "app")
#: Protocols that a later version speaks.
LATER = ("pop3", "imap", "http")

_LIMITS = {about.name: about for about in dataclasses.fields(Limits)}


@dataclass(frozen=True, slots=True)
class Parts:
    """
    What could be read of a file.  In [server], [tls], [auth] and [storage] a broken key has its default.

    listeners, domains, apps: by their paths in the file; broken ones are missing.
    addresses, names, domain_names: of all listeners and domains, also of broken ones, as far as they could be read.
    """

    server: Server
    tls: TLS
    storage: Storage
    auth: Auth
    limits: Limits
    listeners: Mapping[KeyPath, Listener]
    domains: Mapping[KeyPath, Domain]
    apps: Mapping[KeyPath, AppTable]
    addresses: Mapping[KeyPath, ListenAddress]
    names: Mapping[KeyPath, str]
    domain_names: Mapping[KeyPath, str]


def read(data: Mapping[str, Any], places: Places, folder: Path) -> tuple[Parts, list[Problem]]:
    """
    The parts of the configuration, and all problems of its keys.

    data: of `tomllib`.  places: gets the names of listeners and domains.  folder: where relative paths start.
    """
    return _Reading(data, places, folder).read()


def keys_of(table: type[Table | Limits]) -> tuple[str, ...]:
    """The keys that a table may have in the file, in the order of the class."""
    if not issubclass(table, Table):
        return tuple(_LIMITS)
    return tuple(about.alias or name for name, about in table.model_fields.items() if name not in table.not_in_file)


class _Reading:
    """One file being read."""

    def __init__(self, data: Mapping[str, Any], places: Places, folder: Path) -> None:
        self.data = data
        self.places = places
        self.folder = folder
        self.problems: list[Problem] = []

    def read(self) -> tuple[Parts, list[Problem]]:
        self._unknown((), self.data, tuple(TABLES))
        server = self._single("server", Server)
        limits = self._limits(("limits",), self._raw("limits"), DEFAULT_LIMITS)
        listeners = list(self._array(("listener",), self.data.get("listener", [])))
        domains = list(self._array(("domain",), self.data.get("domain", [])))
        addresses = _known((path, _address_of(raw, self.folder)) for path, raw in listeners)
        names = _names_of(listeners, addresses)
        domain_names = _known((path, _domain_name(raw)) for path, raw in domains)
        apps = list(self._array(("app",), self.data.get("app", [])))
        app_names = {path: raw["name"] for path, raw in apps if _is_name(raw.get("name"))}
        self.places.names.update(names | domain_names | app_names)
        parts = Parts(
            server=server,
            tls=self._tls(),
            storage=self._single("storage", Storage),
            auth=self._single("auth", Auth),
            limits=limits,
            listeners=self._listeners(listeners, addresses, server, limits),
            domains=_known((path, self._table(path, Domain, raw)) for path, raw in domains),
            apps=_known((path, self._app(path, raw)) for path, raw in apps),
            addresses=addresses,
            names=names,
            domain_names=domain_names,
        )
        return parts, self.problems

    # -- tables ----------------------------------------------------------------------------------------------------

    def _raw(self, name: str) -> dict[str, Any]:
        """A table that is written with single brackets; {} when it is missing or no table."""
        raw = self.data.get(name, {})
        if isinstance(raw, dict):
            return raw
        if isinstance(raw, list) and all(isinstance(item, dict) for item in raw):
            self._problem((name,), f"there is only one such table; write [{name}] with single brackets")
        else:
            self._problem((name,), f"must be a table that starts with [{name}], not {show(raw)}")
        return {}

    def _single(self, name: str, cls: type[T]) -> T:
        return self._with_defaults((name,), cls, self._raw(name))

    def _with_defaults(self, path: KeyPath, cls: type[T], raw: Mapping[str, Any], **filled: object) -> T:
        """One table as its class; keys with a problem have their default, so that the others are still judged."""
        values = self._values(path, cls, raw) | filled
        try:
            return self._made(cls, values)
        except ValidationError as error:
            bad = self._record(path, cls, error)
        return self._made(cls, {key: value for key, value in values.items() if key not in bad})

    def _array(self, path: KeyPath, raw: object) -> Iterator[tuple[KeyPath, dict[str, Any]]]:
        """The tables of an array, with their paths."""
        name = ".".join(map(str, path))
        if not isinstance(raw, list):
            self._problem(path, f"there may be several of this table; write [[{name}]] with double brackets")
            return
        for number, item in enumerate(raw):
            if isinstance(item, dict):
                yield (*path, number), item
            else:
                self._problem((*path, number), f"must be a table that starts with [[{name}]], not {show(item)}")

    def _table(self, path: KeyPath, cls: type[T], raw: Mapping[str, Any], **filled: object) -> T | None:
        """
        One table as its class, or None when it has a problem.

        filled: values for keys that the file does not have, or in the place of what was read before.
        """
        try:
            return self._made(cls, self._values(path, cls, raw) | filled)
        except ValidationError as error:
            self._record(path, cls, error)
        return None

    def _values(self, path: KeyPath, cls: type[T], raw: Mapping[str, Any]) -> dict[str, Any]:
        """The keys that the class knows; the others are problems."""
        known = keys_of(cls)
        self._unknown(path, raw, known)
        return {key: value for key, value in raw.items() if key in known}

    def _made(self, cls: type[T], values: Mapping[str, Any]) -> T:
        return cls.model_validate(values, context={"folder": self.folder})

    def _record(self, path: KeyPath, cls: type[T], error: ValidationError) -> set[str | int]:
        """Note every problem of a table; the keys that have one."""
        found = error.errors(include_url=False)
        for details in found:
            self._problem((*path, *details["loc"]), _explain(details, cls))
        return {details["loc"][0] for details in found}

    def _tls(self) -> TLS:
        raw = dict(self._raw("tls"))
        path: KeyPath = ("tls", "certificate")
        certificates = tuple(
            pair
            for place, table in self._array(path, raw.pop("certificate", []))
            if (pair := self._table(place, CertificateFiles, table)) is not None
        )
        return self._with_defaults(("tls",), TLS, raw, certificate=certificates)

    def _listeners(
        self, tables: _Tables, addresses: Mapping[KeyPath, ListenAddress], server: Server, limits: Limits
    ) -> dict[KeyPath, Listener]:
        listeners: dict[KeyPath, Listener | None] = {}
        for path, raw in tables:
            # Read the limits even when the rest is wrong: all problems are told at once.
            own = self._limits((*path, "limits"), raw.get("limits", {}), limits)
            filled = _listener_defaults(raw, addresses.get(path)) | {
                "hostname": server.hostname,
                "name": self.places.names[path],
            }
            filled = {key: value for key, value in filled.items() if key not in raw}
            filled |= {"limits": own, "line": self.places.lines.of(path)}
            listeners[path] = self._table(path, Listener, raw, **filled)
        return _known(listeners.items())

    def _app(self, path: KeyPath, raw: Mapping[str, Any]) -> AppTable | None:
        match = raw.get("match", {})
        if isinstance(match, dict):
            self._unknown((*path, "match"), match, keys_of(AppMatch))
            match = {key: value for key, value in match.items() if key in keys_of(AppMatch)}
            raw = {**raw, "match": match}
        return self._table(path, AppTable, raw)

    def _limits(self, path: KeyPath, raw: object, base: Limits) -> Limits:
        """The base with those limits that the table has; wrong ones stay as in the base."""
        if not isinstance(raw, dict):
            self._problem(path, f"must be a table, as in limits = {{ errors = 30 }}, not {show(raw)}")
            return base
        self._unknown(path, raw, tuple(_LIMITS))
        changes: dict[str, Any] = {}
        for key, value in raw.items():
            if key in _LIMITS:
                try:
                    changes[key] = _limit(value, _LIMITS[key].metadata)
                except ValueError as error:
                    self._problem((*path, key), str(error))
        return dataclasses.replace(base, **changes)

    # -- problems --------------------------------------------------------------------------------------------------

    def _problem(self, path: KeyPath, text: str) -> None:
        self.problems.append(self.places.problem(path, text))

    def _unknown(self, path: KeyPath, raw: Iterable[str], known: tuple[str, ...]) -> None:
        for key in raw:
            if key not in known:
                self._problem((*path, key), f"unknown key; {_suggestion(key, known)}")


def _suggestion(key: str, known: tuple[str, ...]) -> str:
    at_top = known == tuple(TABLES)
    close = difflib.get_close_matches(key.lower(), known, n=1, cutoff=0.7)
    if not close:
        for name, table in TABLES.items():
            if key in keys_of(table):
                return f"it belongs into {_header(name)}"
        close = difflib.get_close_matches(key.lower(), known, n=1, cutoff=0.6)
    if close:
        return f"did you mean {_header(close[0]) if at_top else toml(close[0])}?"
    if at_top:
        return f"the tables are {', '.join(map(_header, known))}"
    return f"the keys here are {', '.join(known)}" if len(known) < 15 else "`mailserver config sample` shows all keys"


def _header(name: str) -> str:
    return f"[[{name}]]" if name in ARRAYS else f"[{name}]"


def _explain(details: ErrorDetails, cls: type[Table]) -> str:
    """What is wrong and what would be right, in our words instead of pydantic's."""
    value, context = details["input"], details.get("ctx", {})
    match details["type"]:
        case "value_error":
            return str(context["error"])
        case "missing":
            field = str(details["loc"][-1])
            examples = cls.model_fields[field].examples or [""]
            return f"is missing; write for example {field} = {toml(examples[0])}"
        case "literal_error":
            choices = str(context["expected"]).replace("'", '"')
            if details["loc"][-1] == "protocol" and value in LATER:
                return f"protocol {show(value)} is not available in this version; use {choices}"
            return f"{show(value)} is not possible; use {choices}"
        case "string_type":
            return f"must be text in quotes, not {show(value)}"
        case "model_type" | "dict_type":
            return f"must be a table in braces, not {show(value)}"
        case "bool_type":
            return f"must be true or false, not {show(value)}"
    return details["msg"]


def _limit(value: object, about: Mapping[str, Any]) -> float:
    """A limit from the file.  Raises ValueError: what would be right."""
    unit = about["unit"]
    if unit == "octets":
        number: float = parse_size(value)
    elif unit == "seconds":
        number = parse_duration(value)
    elif isinstance(value, int) and not isinstance(value, bool):
        number = value
    else:
        raise ValueError(f"must be a whole number, not {show(value)}")
    return Range(about["least"], about["most"], unit)(number)


# -- what a listener is when its table does not say -----------------------------------------------------------------


def _known(pairs: Iterable[tuple[KeyPath, V | None]]) -> dict[KeyPath, V]:
    return {path: value for path, value in pairs if value is not None}


def _address_of(raw: Mapping[str, Any], folder: Path) -> ListenAddress | None:
    """The address of a listener, when it is one; a wrong one is told by its class."""
    with contextlib.suppress(ValueError):
        return parse_listen_address(raw["address"], folder) if "address" in raw else None
    return None


def _domain_name(raw: Mapping[str, Any]) -> str | None:
    """The name of a domain, when it is one; a wrong one is told by its class."""
    name = raw.get("name")
    with contextlib.suppress(ValueError):
        return mail_domain(name) if isinstance(name, str) else None
    return None


def _listener_defaults(raw: Mapping[str, Any], address: ListenAddress | None) -> dict[str, object]:
    if raw.get("protocol") == "lmtp":
        # It comes from this machine or a network of ours, by RFC 2033 5 never over the wide area.
        return {"tls": "off", "auth": "off", "bare_newlines": "fix"}
    if raw.get("protocol") != "submission":
        return {"tls": "starttls", "auth": "off", "bare_newlines": "reject"}
    # RFC 8314 3.3: 465 is submission in TLS from the first byte on, and nobody submits in clear text, unless the
    # listener was told so for loopback.
    implicit = address is not None and address.port == 465
    tls = raw.get("tls", "implicit" if implicit else "starttls")
    required = tls != "off" and not raw.get("allow_insecure_auth", False)
    return {"tls": tls, "tls_required": required, "auth": "required", "bare_newlines": "fix"}


def _names_of(tables: _Tables, addresses: Mapping[KeyPath, ListenAddress]) -> dict[KeyPath, str]:
    """
    A name for each listener: its own, else made of protocol and port ("smtp-25", "smtp-25-2"), so that it is the same
    after other listeners have come or gone.
    """
    own = {path: raw["name"] for path, raw in tables if _is_name(raw.get("name"))}
    taken = set(own.values())
    names = {}
    for path, raw in tables:
        if (name := own.get(path)) is None:
            base, number = _natural_name(path, raw, addresses.get(path)), 1
            name = base
            while name in taken:
                number += 1
                name = f"{base}-{number}"
            taken.add(name)
        names[path] = name
    return names


def _natural_name(path: KeyPath, raw: Mapping[str, Any], address: ListenAddress | None) -> str:
    if address is not None:
        last = {"tcp": str(address.port), "unix": "unix"}.get(address.kind, address.name)
        name = f"{raw.get('protocol', 'listener')}-{last}"
        if _is_name(name):
            return name
    return f"listener-{int(path[-1]) + 1}"


def _is_name(name: object) -> bool:
    try:
        return isinstance(name, str) and bool(listener_name(name))
    except ValueError:
        return False
