"""A message that an interrupted try has delivered is found, wherever its reader has put it."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from mailserver.maildir.lookup import delivered

UNIQUE = "1700000000.M5P7Q0.h"


class LookupTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.box = Path(self.mktemp())

    def put(self, name: str, content: bytes = b"12345") -> Path:
        path = self.box / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    def is_there(self) -> bool:
        return delivered([self.box], UNIQUE) == {self.box}

    def test_wherever_it_is(self) -> None:
        for place in ("new", "cur", ".Archive/new", ".Archive.Old/cur"):
            path = self.put(f"{place}/{UNIQUE},S=5,W=6" + (":2,RS" if "cur" in place else ""))
            self.assertTrue(self.is_there(), place)
            path.unlink()
            self.assertFalse(self.is_there(), place)

    def test_others_are_not_it(self) -> None:
        for name in (f"new/{UNIQUE}2,S=5,W=6", f"tmp/{UNIQUE},S=5,W=6", "new/x", f"cur/1{UNIQUE},S=5"):
            self.put(name)
        self.assertFalse(self.is_there())

    def test_a_torn_one_is_removed_and_does_not_count(self) -> None:
        torn = self.put(f"new/{UNIQUE},S=5,W=6", b"123")
        self.assertFalse(self.is_there())
        self.assertFalse(torn.exists())

    def test_of_several_those_that_have_it(self) -> None:
        self.put(f"new/{UNIQUE},S=5,W=6")
        other = self.box.with_name("missing")
        self.assertEqual(delivered([other, self.box], UNIQUE), {self.box})
