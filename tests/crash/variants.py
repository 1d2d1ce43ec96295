"""
The servers that are tested: what their configurations have in common, and a table of where they differ.

In: a data directory.  Out: the text of a configuration; or why this version of the server does not have the variant.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from pydantic import ValidationError

from mailserver.config.classes import Server, Storage, Table
from tests.interop.running import listener

#: The mailboxes that get the mail.
ADDRESSES = tuple(f"{name}@example.org" for name in ("anna", "bob", "carl", "dora", "emil"))

LISTENERS = (listener("smtp", "127.0.0.1:0"), listener("smtps", "127.0.0.1:0", tls='"implicit"'))
#: Small, so that many of them are filled, checkpointed and used again in a second.
SMALL_SEGMENTS = {"journal_segments": 3, "journal_segment_size": "4 MiB"}

_COMMON = (
    "[limits]\nconnection_rate = 100000\nmessages_per_minute = 0\nrecipients_per_minute = 0\nerrors = 1000\n"
    'errors_before_delay = 1000\nmessage_size = "2 MiB"\n\n[[domain]]\nname = "example.org"\n\n' + "".join(LISTENERS)
)


@dataclass(frozen=True)
class Variant:
    """One way to configure the server. server, storage: keys of these tables."""

    name: str
    server: Mapping[str, object] = field(default_factory=dict)
    storage: Mapping[str, object] = field(default_factory=dict)

    def missing(self) -> str | None:
        """Why this version of the server cannot be configured so; None when it can."""
        tables: tuple[tuple[str, type[Table], Mapping[str, object]], ...] = (
            ("server", Server, self.server),
            ("storage", Storage, self.storage),
        )
        for name, table, keys in tables:
            for key in keys:
                if key not in table.model_fields:
                    return f"variant {self.name!r}: this version has no key [{name}] {key}"
            try:
                table.model_validate(dict(keys))
            except ValidationError as error:
                first = error.errors()[0]
                return f"variant {self.name!r}: [{name}] {'.'.join(map(str, first['loc']))}: {first['msg']}"
        return None

    def on_a_small_disk(self) -> Variant:
        """The same, with journals that leave room for mail."""
        small = {key: value for key, value in SMALL_SEGMENTS.items() if key in Storage.model_fields}
        return replace(self, storage={**small, **self.storage})

    def config(self, data: Path) -> str:
        """The text of the configuration."""
        server = {"hostname": "mail.example.org", "data_dir": str(data), "log_format": "json", **self.server}
        return _table("server", server) + _table("storage", self.storage) + _COMMON


def _table(name: str, keys: Mapping[str, object]) -> str:
    lines = [f"[{name}]"]
    for key, value in keys.items():
        lines.append(f'{key} = "{value}"' if isinstance(value, str) else f"{key} = {value}")
    return "\n".join(lines) + "\n\n"


#: As the sample configuration has it: the engine and the number of processes that people get.
SHIPPED = Variant("as shipped")
NO_SYNC = Variant("none", storage={"durability": "none"})
FILESYNC = Variant("filesync", storage={"durability": "filesync"})
JOURNAL = Variant("journal", storage={"durability": "journal", **SMALL_SEGMENTS})

#: Those that must hold.
VARIANTS = (
    SHIPPED,
    FILESYNC,
    JOURNAL,
    Variant("journal, whole segments", storage={"durability": "journal"}),
    Variant("journal, thread", storage={**JOURNAL.storage, "commit": "thread"}),
    Variant("journal, aio", storage={**JOURNAL.storage, "commit": "aio"}),
    Variant("filesync, thread", storage={**FILESYNC.storage, "commit": "thread"}),
    Variant("filesync, aio", storage={**FILESYNC.storage, "commit": "aio"}),
    Variant("2 workers", server={"workers": 2}),
    Variant("2 workers, filesync", server={"workers": 2}, storage=FILESYNC.storage),
    Variant("2 workers, journal", server={"workers": 2}, storage=JOURNAL.storage),
)
BY_NAME = {each.name: each for each in (*VARIANTS, NO_SYNC)}
