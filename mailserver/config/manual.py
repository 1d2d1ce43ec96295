"""
The manual of the configuration, `docs/configuration.md`: every key with its values, its default and what it is for.

In: the configuration's classes and the limits, and nothing else.  Out: a page of Markdown.
What a key means is said in its class only; here is what belongs to no single key.
"""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo

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
from mailserver.config.listener_checks import LEAST_PREFIX
from mailserver.config.loading import DEFAULT_PATH, ENVIRONMENT
from mailserver.config.origins import shown
from mailserver.config.quantities import Range, render_duration, render_size, toml, with_unit
from mailserver.limits import AUTH_TOGETHER, COUNTED_TOGETHER, Limits

_WIDEST = " or ".join(f"/{least} (IPv{version})" for version, least in LEAST_PREFIX.items())
_OPENING = f"""\
# The configuration

Made by `mailserver config manual` from the classes in `mailserver/config/classes.py` and `mailserver/limits.py`; a
test compares. `etc/mailserver.toml` is the same as a file to edit (`mailserver config sample`).

The configuration is one TOML file: that of `--config FILE`, else of the environment variable `{ENVIRONMENT}`, else
`{DEFAULT_PATH}` when it exists. Without any the server is in development mode, which has no file. So it
is, with a warning, for a user who may not read the default file; a file that was named must be readable. What is no
regular file (a FIFO, a device) is no configuration.

```toml
[server]
hostname = "mail.example.org"
data_dir = "/var/lib/mailserver"

[[listener]]
address = "25"
protocol = "smtp"

[[listener]]
address = "465"
protocol = "submission"

[[domain]]
name = "example.org"
```

- Sizes are octets, or text such as `"50 MiB"` or `"1 GB"`. Times are seconds, or text such as `"30 s"` or `"5 min"`.
- Relative paths start at the folder of the file.
- An unknown key is an error. So are a wrong type, a value out of range, and combinations that cannot be or would be
  dangerous. All are told at once, each as `file:line: key: what is wrong and what would be right`. Then nothing is
  started, and the exit status is 1.
- `mailserver config check` looks for problems and starts nothing. `mailserver config show` tells every value in force
  and the line that it comes from.
- SIGHUP reads the file again. A file with problems changes nothing, and the log says why. `data_dir`, `user`,
  `group`, `workers`, `log_format`, `log_level`, and of `[tls]` `minimum_version` and `check_interval`, need a
  restart.

Some combinations are refused, because they would send passwords in clear text or let strangers send mail:
`protocol = "submission"` with `tls = "off"`, or with `auth = "off"`, on an address that is not loopback; `auth` other
than `"off"` with `tls = "off"`, except on loopback with `allow_insecure_auth = true`; `allow_insecure_auth` on an
address that is not loopback. With `proxy_protocol` no listener counts as loopback, for the clients of the proxy are
elsewhere. Refused are also those by which strangers could pretend to be others: `proxy_protocol` without
`trusted_proxies`, and in `trusted_proxies` or `xclient` everybody (`0.0.0.0/0`, `::/0`) or a network wider than
{_WIDEST}, which nobody has for itself. So is a `data_dir` that is a directory of the system (`/`, `/etc`,
`/var/lib`, `/tmp` and so on), is below `/proc` or `/sys`, is writable by everybody, is a symbolic link, or lies where
nothing can be written. And so is what cannot work: `protocol = "lmtp"` on port 25, `tls_required` or
`client_certificates` with `tls = "off"`, extensions without those that they need, `errors_before_delay` above
`errors`.

Others are only warned of: implicit TLS on ports 25 and 587, something else on 465; `auth = "required"`,
`tls_required` or required client certificates on port 25; LMTP on an address that is not loopback; `user = "root"`;
`postmaster` or `catch_all` at a domain that is not configured, whose mail would get 451 as long as there is no
outgoing queue.
"""
_LIMITS = """\
## `[limits]`

What clients may do, how long, and how often. Both ends of a range are allowed. A listener may have others, for itself
alone:

```toml
[[listener]]
address = "587"
protocol = "submission"
limits = { message_size = "100 MiB", recipients = 200 }
```
"""
_TOGETHER = """\
These are counted over all listeners together. A listener whose own `limits` hold one of the first five counts it
alone, and is left out of the others' count; `connections` in `[limits]` holds for all of them together in any case.
Failed logins are counted over all listeners always, and judged by the limits of the listener where the client tries
again. A client is an IPv4 address or an IPv6 /64. The limits on connections, messages and recipients of one client do
not count clients on loopback and Unix sockets.
"""
#: Tables of the file: heading, class.
_TABLES: tuple[tuple[str, type[Table]], ...] = (
    ("[server]", Server),
    ("[tls]", TLS),
    ("[[tls.certificate]]", CertificateFiles),
    ("[storage]", Storage),
    ("[auth]", Auth),
    ("[[listener]]", Listener),
    ("[[domain]]", Domain),
    ("[[app]]", AppTable),
    ("[app.match]", AppMatch),
)


def manual() -> str:
    """The whole page."""
    return "\n".join([_OPENING, *(_table(heading, table) for heading, table in _TABLES), _limits()])


def _table(heading: str, table: type[Table]) -> str:
    rows = [
        _row(f"`{name}`", _values(about), _default(name, about), _cell(about.description or ""))
        for name, about in table.model_fields.items()
        if name not in table.not_in_file and about.alias is None
    ]
    return f"## `{heading}`\n\n{(table.__doc__ or '').strip()}\n\n" + _grid(
        ("key", "value", "default", "meaning"), rows
    )


def _values(about: FieldInfo) -> str:
    """What may stand behind the "=", in a few words."""
    kind: Any = about.annotation
    if typing.get_origin(kind) in (types.UnionType, typing.Union):  # `str | None`: None is a key that is not there
        kind = next(each for each in typing.get_args(kind) if each is not type(None))
        if typing.get_origin(kind) is typing.Annotated:
            kind = typing.get_args(kind)[0]
    if typing.get_origin(kind) is typing.Literal:
        return ", ".join(f"`{toml(value)}`" for value in typing.get_args(kind))
    for mark in about.metadata:
        if isinstance(allowed := getattr(mark, "func", None), Range):
            return {"octets": "size", "seconds": "time", "": "number"}[allowed.unit] + f", {allowed}"
    if typing.get_origin(kind) is tuple:
        return "list of texts"
    if kind in (Limits, AppMatch) or typing.get_origin(kind) is dict:
        return "table"
    return {bool: "`true`, `false`", Path: "path", int: "number"}.get(kind, "text")


def _default(name: str, about: FieldInfo) -> str:
    """The default, or "" where the description tells it."""
    if "Default:" in (about.description or ""):
        return ""
    if about.is_required():
        return "must be given"
    if about.default_factory is not None:
        return "`{}`"
    default = typing.cast("Any", about.default)  # its type would be in the way: pydantic has a mark for "no default"
    if name in ("drain_timeout", "check_interval", "banner_delay", "timeout"):
        return f"`{toml(render_duration(default))}`"
    return f"`{toml(shown(default))}`"


def _limits() -> str:
    own: list[str] = []
    wide: list[str] = []
    for about in dataclasses.fields(Limits):
        (wide if about.name in COUNTED_TOGETHER + AUTH_TOGETHER else own).append(_limit(about))
    head = ("key", "default", "range", "reason")
    return "\n".join([_LIMITS, _grid(head, own), _TOGETHER, _grid(head, wide)])


def _limit(about: dataclasses.Field[Any]) -> str:
    unit = about.metadata["unit"]
    value = typing.cast("Any", about.default)
    if unit == "seconds":
        value = render_duration(value)
    elif unit == "octets" and value >= 1024:
        value = render_size(value)
    allowed = Range(about.metadata["least"], about.metadata["most"], unit)
    least, most = with_unit(allowed.least, unit), with_unit(allowed.most, unit)
    return _row(f"`{about.name}`", f"`{toml(value)}`", f"{least} to {most}", _cell(about.metadata["reason"]))


def _grid(head: tuple[str, ...], rows: list[str]) -> str:
    return "\n".join([_row(*head), _row(*["---"] * len(head)), *rows]) + "\n"


def _row(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"


def _cell(text: str) -> str:
    """Text as it may stand in a cell: Markdown would take these characters for its own."""
    return re.sub(r"[|<*]", r"\\\g<0>", text)
