"""Held messages for the tests, and a spool in a directory of its own."""

from __future__ import annotations

import dataclasses
from itertools import count
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, ensureDeferred, execute

from mailserver.address import parse_address
from mailserver.durable import Durable
from mailserver.durable.files import FILES, Files
from mailserver.envelope import Envelope, Peer, Recipient, TLSInfo
from mailserver.spool.folder import Entry, Folder
from mailserver.spool.held import Held
from mailserver.spool.holding import Spool

NOW = 1_700_000_000.0
ANNA, BOB = "anna@example.org", "bob@example.org"
TEXT = b"From: <anna@example.org>\r\nSubject: later\r\n\r\nbody\r\n"
RECEIVED = b"Received: from x\r\n"


def envelope(*recipients: str, id: str = "abc23456", **changes: Any) -> Envelope:  # noqa: A002 - the domain's term
    """From Anna to these, with all that an envelope can have."""
    return dataclasses.replace(
        Envelope(
            id,
            parse_address(ANNA),
            tuple(Recipient(parse_address(each), {"NOTIFY": "FAILURE,DELAY"}) for each in recipients or (BOB,)),
            {"HOLDFOR": "60", "REQUIRETLS": None},
            Peer("192.0.2.1", 4711, "client.example.net", TLSInfo("TLSv1.3", "X", 256), ANNA),
            "ESMTPSA",
            100,
            "8BITMIME",
            smtputf8=True,
            listener="submission",
            local_host="192.0.2.9",
            local_port=587,
        ),
        **changes,
    )


def held(*recipients: str, release: float = NOW, **changes: Any) -> Held:
    """A message that waits."""
    unique = changes.pop("unique", "1699999999.M5P7Q0.h")
    given = {"next_try": release} | changes
    found = envelope(*recipients, **{key: given.pop(key) for key in ("id", "sender", "parameters") if key in given})
    return Held(found, unique, NOW - 60, release, **given)


class HeldOnDisk:
    """A spool below `root`; threads are none."""

    def __init__(self, root: str, files: Files = FILES) -> None:
        self.root = Path(root).absolute()
        numbers = count()
        self.folder = Folder(self.root / "spool", lambda: f"t{next(numbers)}", files)
        self.folder.make()
        durable = Durable(run_in_thread=execute, unique_name=lambda: f"d{next(numbers)}", files=files, memory=50)
        self.told: list[float] = []
        self.spool = Spool(self.folder, durable, execute, lambda: f"1.M1P1Q{next(numbers)}.h", self.told.append)

    def put(self, message: Held, text: bytes = TEXT, most: int = 10) -> Entry:
        """Hold it."""
        results: list[Any] = []
        ensureDeferred(self._put(message, text, most)).addBoth(results.append)
        if isinstance(results[0], Exception) or getattr(results[0], "value", None) is not None:
            raise results[0].value
        entry: Entry = results[0]
        return entry

    async def _put(self, message: Held, text: bytes, most: int) -> Entry:
        delivery = self.spool.hold(message, RECEIVED, most)
        try:
            for at in range(0, len(text), 20):
                written: Deferred[None] | None = delivery.write(text[at : at + 20])
                if written is not None:
                    await written
            await delivery.prepare()
        except BaseException:
            delivery.abort()
            raise
        await delivery.commit()
        found = self.folder.find(message.id)
        assert found is not None
        return found

    def names(self, kind: str = "held") -> list[str]:
        """Of the files there."""
        return sorted(path.name for path in (self.root / "spool" / kind).iterdir())
