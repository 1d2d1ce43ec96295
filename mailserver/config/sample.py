"""
The sample configuration, with every key, its description and its default: `etc/mailserver.toml`.

In: the configuration's classes, and nothing else.  Out: the text of a TOML file.
Text of comments starts with "# ", keys that are switched off with "#": without that one character they are in force.
"""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Iterator
from typing import Any, cast

from pydantic.fields import FieldInfo

from mailserver.config.classes import (
    TLS,
    AppTable,
    Auth,
    CertificateFiles,
    Domain,
    Listener,
    Server,
    Storage,
    Table,
)
from mailserver.config.origins import shown
from mailserver.config.quantities import Range, render_duration, render_size, toml
from mailserver.limits import COUNTED_TOGETHER, Limits

WIDTH = 100
#: Keys whose number is seconds: shown with a unit, as people would write them.
_TIMES = ("drain_timeout", "check_interval", "banner_delay", "timeout")
#: Keys that a real server has to think about are in force; the others show their default.
_IN_FORCE = {
    (Server, "hostname"),
    (Server, "data_dir"),
    (Listener, "address"),
    (Listener, "protocol"),
    (Domain, "name"),
}

_OPENING = (
    "The configuration of mailserver, with every key. Made by `mailserver config sample`.",
    'A key behind "#" is not in force; where it has a default, that is what it shows. Remove the "#" to change it.',
    "After a change: mailserver --config FILE config check. What is in force: mailserver --config FILE config show.",
    'Sizes are octets, or text such as "50 MiB" or "1 GB"; times are seconds, or text such as "30 s" or "5 min".',
    "Relative paths start at the folder of this file.",
)
_MORE_LISTENERS = """\
# Our own users send here, with STARTTLS (RFC 6409) ...
[[listener]]
address = "587"
protocol = "submission"

# ... or in TLS from the first byte on (RFC 8314).
[[listener]]
address = "465"
protocol = "submission"
"""


def sample() -> str:
    """The whole file."""
    paragraphs = [_comment(text) for text in _OPENING]
    paragraphs += [_table("[server]", Server), _table("[tls]", TLS)]
    paragraphs += [_table("#[[tls.certificate]]", CertificateFiles), _table("[storage]", Storage)]
    paragraphs += [_table("[auth]", Auth), _limits(), _table("[[listener]]", Listener), _MORE_LISTENERS]
    paragraphs += [_table("[[domain]]", Domain), _app()]
    return "\n".join(paragraphs)


def _comment(text: str) -> str:
    return (
        textwrap.fill(
            text, WIDTH, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False, break_long_words=False
        )
        + "\n"
    )


def _table(header: str, table: type[Table]) -> str:
    return _comment(table.__doc__ or "") + header + "\n" + "\n".join(_keys(table))


def _keys(table: type[Table]) -> Iterator[str]:
    for name, about in table.model_fields.items():
        if name not in table.not_in_file and about.alias is None:
            mark = "" if (table, name) in _IN_FORCE else "#"
            yield f"{_comment(about.description or '')}{mark}{name} = {_value(name, about)}\n"


def _value(name: str, about: FieldInfo) -> str:
    default = cast("Any", about.default)  # its type would be in the way: pydantic has a mark for "no default"
    value = about.examples[0] if about.examples else shown(default)
    if name in _TIMES:
        return toml(render_duration(default))
    return toml(value)


def _app() -> str:
    """No server needs an app, so the whole table is switched off."""
    return _comment(AppTable.__doc__ or "") + "#[[app]]\n" + "\n".join(_keys(AppTable))


def _limits() -> str:
    opening = (
        "What clients may do, how long, and how often. A listener may have limits of its own. Counted over all "
        f"listeners together, but for those that have one of their own: {', '.join(COUNTED_TOGETHER)}. Failed logins "
        "are always counted over all listeners."
    )
    return _comment(opening) + "[limits]\n" + "\n".join(_limit(about) for about in dataclasses.fields(Limits))


def _limit(about: dataclasses.Field[Any]) -> str:
    unit, reason = about.metadata["unit"], about.metadata["reason"]
    allowed = Range(about.metadata["least"], about.metadata["most"], unit)
    value = cast("Any", about.default)
    if unit == "seconds":
        value = render_duration(value)
    elif unit == "octets" and value >= 1024:
        value = render_size(value)
    return f"{_comment(f'{reason} Allowed: {allowed}.')}#{about.name} = {toml(value)}\n"
