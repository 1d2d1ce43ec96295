"""
Find, load and judge the configuration; or make the one of development mode.

In: the path of a TOML file.  Out: `Config`, or `ConfigError` with all problems of the file at once, sorted by line.
Nothing is started, made or changed.
"""

from __future__ import annotations

import codecs
import dataclasses
import os
import re
import stat
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from mailserver.config import checks, ground, reading
from mailserver.config.app_checks import check_apps
from mailserver.config.classes import AppTable, Auth, Listener, Server
from mailserver.config.lines import KeyPath, scan
from mailserver.config.origins import DEFAULT, Places
from mailserver.config.problems import ConfigError, Problem, in_order
from mailserver.config.quantities import render_size
from mailserver.config.whole import Config
from mailserver.limits import DEFAULT_LIMITS
from mailserver.sockets import ListenAddress

DEFAULT_PATH = Path("/etc/mailserver/mailserver.toml")
ENVIRONMENT = "MAILSERVER_CONFIG"
#: Octets of a configuration; what is larger was meant to be something else.
MAX_FILE = 4 * 2**20
#: Tables in tables; ours need five.
MAX_DEPTH = 100

# tomllib: "Invalid value (at line 3, column 5)", "... (at end of document)".
_WHERE = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)\Z")
# Digits of which Python may refuse to make a number (sys.get_int_max_str_digits).
_MANY_DIGITS = re.compile(r"[0-9_]{640,}")
_TOO_LARGE = "is a number beyond 64 bits"


def find_config(explicit: str | None, environ: Mapping[str, str]) -> Path | None:
    """
    The file to load: that of `--config`, else of $MAILSERVER_CONFIG, else the default one when we can read it.

    None: there is no configuration for us, which means development mode (and see `passed_over`).
    """
    if named := explicit or environ.get(ENVIRONMENT):
        return Path(named)
    return DEFAULT_PATH if os.access(DEFAULT_PATH, os.R_OK) else None


def passed_over() -> tuple[Problem, ...]:
    """
    The warning that the default configuration is there, or may be, and cannot be read by us; () when all is clear.

    Who tries things out on a machine with a real server has no business with its configuration; who expected that
    one must be told.
    """
    try:
        os.stat(DEFAULT_PATH)
    except PermissionError:  # of the folder around it
        denied = True
    except OSError:
        denied = False
    else:
        denied = not os.access(DEFAULT_PATH, os.R_OK)
    text = "may not be read by this user, so this is development mode"
    return (Problem(str(DEFAULT_PATH), 1, "file", text, warning=True),) if denied else ()


def load(path: Path) -> Config:
    """The configuration in this file.  Raises ConfigError with every problem, warnings too."""
    return parse(_read(path, str(path)), path)


def parse(text: str, path: Path) -> Config:
    """The same of a text that was read before, from this file."""
    file = str(path)
    try:
        data = tomllib.loads(text)
        lines = scan(text)
        large = list(_beyond_64_bits(data))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError((_syntax(error, file, text),)) from error
    except ValueError as error:
        raise ConfigError((Problem(file, _line_of_digits(text), "syntax", f"not TOML: {_TOO_LARGE}"),)) from error
    except RecursionError as error:
        raise ConfigError((Problem(file, 1, "syntax", "is nested too deeply"),)) from error
    source = path.absolute()
    places = Places(file, lines)
    if large:
        raise ConfigError(in_order([places.problem(where, _TOO_LARGE) for where in large]))
    parts, problems = reading.read(data, places, source.parent)
    remarks = [*checks.check(parts, lines), *ground.survey(parts), *check_apps(parts, source.parent)]
    # A key that could not be read has its default meanwhile; nothing is to be said about that.
    told = {problem.key for problem in problems}
    found = (places.problem(remark.path, remark.text, warning=remark.warning) for remark in remarks)
    problems += [problem for problem in found if problem.key not in told]
    if not all(problem.warning for problem in problems):
        raise ConfigError(in_order(problems))
    return Config(
        source=source,
        server=parts.server,
        tls=parts.tls,
        storage=parts.storage,
        auth=parts.auth,
        limits=parts.limits,
        listeners=tuple(parts.listeners.values()),
        domains=tuple(parts.domains.values()),
        apps=tuple(parts.apps.values()),
        warnings=in_order(problems),
        origins=_origins(parts, places),
        text=text,
    )


def _read(path: Path, file: str) -> str:
    try:
        with open(path, "rb", opener=_open_at_once) as stream:
            if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
                raise ConfigError((Problem(file, 1, "file", "is no regular file"),))
            raw = stream.read(MAX_FILE + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL character in the name
        reason = (isinstance(error, OSError) and error.strerror) or str(error)
        raise ConfigError((Problem(file, 1, "file", f"cannot be read: {reason}"),)) from error
    if len(raw) > MAX_FILE:
        raise ConfigError(
            (Problem(file, 1, "file", f"is larger than {render_size(MAX_FILE)}; is it the right file?"),)
        )
    raw = raw.removeprefix(codecs.BOM_UTF8)
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        problem = Problem(file, line, "file", f"is not UTF-8: octet 0x{raw[error.start]:02x}; save it as UTF-8")
        raise ConfigError((problem,)) from error


def _open_at_once(path: str, flags: int) -> int:
    """As open(2), but a FIFO that nobody writes to is no reason to wait, and a terminal is not taken over."""
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY)


def _beyond_64_bits(value: Any, path: KeyPath = ()) -> Iterator[KeyPath]:
    """
    Where integers stand that TOML has no room for; they would not fit into anything that comes after.

    Raises RecursionError for what is nested more than `MAX_DEPTH` deep: dotted keys can be, by any number.
    """
    if len(path) > MAX_DEPTH:
        raise RecursionError
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        yield path
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _beyond_64_bits(item, (*path, key))
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _beyond_64_bits(item, (*path, number))


def _line_of_digits(text: str) -> int:
    """
    The line of the number that has too many digits for Python.

    tomllib does not tell it: up to the end of the number it fails in the same way, up to the end of as many digits
    in a string or a comment it does not.
    """
    for match in _MANY_DIGITS.finditer(text):
        try:
            tomllib.loads(text[: match.end()])
        except tomllib.TOMLDecodeError:
            continue
        except ValueError:
            return text.count("\n", 0, match.start()) + 1
    return 1


def _syntax(error: tomllib.TOMLDecodeError, file: str, text: str) -> Problem:
    message = str(error)
    where = _WHERE.search(message)
    reason = _WHERE.sub("", message)
    if where is None or where[1] is None:
        return Problem(file, text.rstrip().count("\n") + 1, "syntax", f"not TOML: {reason} at the end of the file")
    return Problem(file, int(where[1]), "syntax", f"not TOML: {reason} (column {where[2]})")


def _origins(parts: reading.Parts, places: Places) -> Mapping[str, str]:
    """For every key of the file its line; for keys that follow another one, which that is."""
    origins = {places.key(path): places.origin(path) for path in places.lines.table if isinstance(path[-1], str)}
    for path, listener in parts.listeners.items():
        follows: dict[str, str] = {"hostname": "[server] hostname", "name": f"{DEFAULT} (protocol and port)"}
        follows |= dict.fromkeys(
            ("tls", "tls_required", "auth", "bare_newlines"), f"{DEFAULT} of {listener.protocol}"
        )
        for key, origin in follows.items():
            place: KeyPath = (*path, key)
            origins[places.key(place)] = places.origin(place, origin)
    return MappingProxyType(origins)


#: Name, port and TLS of the listeners of development mode.
DEVELOPMENT = (("smtp", 2525, "starttls"), ("smtps", 4650, "implicit"), ("submission", 2587, "starttls"))
#: Those with which every password can be taken.
DEVELOPMENT_MECHANISMS = ("PLAIN", "LOGIN", "CRAM-MD5")


def development(
    data_dir: Path,
    warnings: tuple[Problem, ...] = (),
    apps: tuple[AppTable, ...] = (),
    port: int | None = None,
) -> Config:
    """
    The configuration without a file: loopback only, unprivileged ports, no DNS, every name and password is taken.

    data_dir: where everything is kept; a relative path starts at the current folder.  warnings: of `passed_over`.
    apps: what shall be tried.  port: of SMTP, and no other one; None: the usual one, or the next that is free.
    """
    # Who tries things out does not wait for the answer to a wrong password.
    limits = dataclasses.replace(DEFAULT_LIMITS, auth_failure_delay=0.0)
    listeners = tuple(
        Listener.model_validate(
            {
                "name": name + suffix,
                "address": ListenAddress("tcp", host, usual if port is None or name != "smtp" else port),
                "protocol": "smtp" if name == "smtp" else "submission",
                "tls": tls,
                "auth": "optional",
                "hostname": "localhost",
                "limits": limits,
                "allow_insecure_auth": True,
                "bare_newlines": "fix",
                "next_free_port": port is None or name != "smtp",
            }
        )
        for name, usual, tls in DEVELOPMENT
        for suffix, host in (("", "127.0.0.1"), ("-v6", "::1"))
    )
    config = Config(
        source=None,
        server=Server(hostname="localhost", data_dir=data_dir.absolute()),
        auth=Auth(mechanisms=DEVELOPMENT_MECHANISMS),
        limits=limits,
        listeners=listeners,
        apps=apps,
        development=True,
        warnings=warnings,
    )
    mode = "development mode"
    keys = ["server.hostname", "server.data_dir", "auth.mechanisms", "limits.auth_failure_delay"]
    keys += [f"listener.{listener.name}.{key}" for listener in listeners for key in listener.model_fields_set]
    return dataclasses.replace(config, origins=MappingProxyType(dict.fromkeys(keys, mode)))
