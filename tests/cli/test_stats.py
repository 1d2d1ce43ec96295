"""`mailserver stats`: the page for people, the object for programs, and no server."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.task import Clock

from mailserver import control
from mailserver.cli.stats import duration
from mailserver.control import FILE_NAME, ControlError
from mailserver.counters import Counters
from tests.cli.with_accounts import AccountsCommandCase

PAGE = """\
mailserver 1.2, process 77, up 1 h 1 min
connections  1 now, 2 at most, 2 in all, 1 turned away
messages     1 accepted (1.5 KiB), 1 refused
recipients   1,234 accepted, 1 refused
logins       1 succeeded, 2 failed
reactor      stopped for 0 ms at most, 0 times over 50 ms

listener  now  most  connections  turned away  accepted  refused
smtp-25     1     2            2            0         1        1
sub         0     0            0            1         0        0

refused with  times
421 4.7.0         1
550 5.1.1         1
552 5.3.4         1

busiest clients  connections  messages  refused  failed logins
192.0.2.1                  1         1        1              0
2001:db8::/64              1         0        2              2

failed logins of  connections  messages  refused  failed logins
2001:db8::/64               1         0        2              2
"""


class StatsTests(AccountsCommandCase):
    def answer(self, told: dict[str, Any] | ControlError) -> None:
        """What the server will say."""
        self.asked: list[object] = []

        def ask(*arguments: object) -> dict[str, Any]:
            self.asked.append(arguments)
            if isinstance(told, ControlError):
                raise told
            return told

        self.patch(control, "ask", ask)

    def counted(self) -> dict[str, Any]:
        clock = Clock()
        counters = Counters(clock.seconds)
        counters.connection_opened("smtp-25", "192.0.2.1")
        counters.connection_opened("smtp-25", "2001:db8::/64")
        counters.connection_closed("smtp-25")
        counters.connection_refused("sub", "2001:db8::/64", "421 4.7.0")
        counters.message_accepted("smtp-25", "192.0.2.1", octets=1536, recipients=1234)
        counters.message_refused("smtp-25", "192.0.2.1", "552 5.3.4")
        counters.recipient_refused("2001:db8::/64", "550 5.1.1")
        counters.auth_succeeded()
        counters.auth_failed("2001:db8::/64")
        counters.auth_failed("2001:db8::/64")
        clock.advance(3661)
        return counters.snapshot() | {"version": "1.2", "pid": 77}

    def test_a_page_for_people(self) -> None:
        self.answer(self.counted())
        self.assertEqual(self.works("stats"), PAGE)
        self.assertEqual(self.asked, [(self.data / FILE_NAME, "stats")])

    def test_the_workers_are_listed(self) -> None:
        row = {"worker": 1, "pid": 78, "state": "ready", "uptime": 61.2, "restarts": 0, "connections": 3}
        self.answer(self.counted() | {"workers": [row, row | {"worker": 2, "restarts": 4, "uptime": 5, "pid": 79}]})
        self.assertIn(
            "\n\nworker  process  state      since  restarts  connections\n"
            "1            78  ready  1 min 1 s         0            3\n"
            "2            79  ready        5 s         4            3\n\n",
            self.works("stats"),
        )

    def test_the_apps_are_listed(self) -> None:
        counters = Counters(Clock().seconds)
        counters.app_called("tickets", "rcpt", 0.0, "refused")
        counters.app_called("tickets", "message", 1.2, "ok")
        counters.app_restarted("tickets")
        self.answer(counters.snapshot())
        self.assertIn(
            "app      calls  refused  failed  timeouts  restarts  longest stall       in\n"
            "tickets      2        1       0         0         1       1,200 ms  message\n",
            self.works("stats"),
        )

    def test_an_object_for_programs(self) -> None:
        self.answer(self.counted())
        self.assertEqual(json.loads(self.works("stats", "--json")), self.counted())

    def test_a_fresh_server_has_no_tables(self) -> None:
        self.answer(Counters(Clock().seconds).snapshot())
        page = self.works("stats")
        self.assertIn("messages     0 accepted (0 octets), 0 refused\n", page)
        self.assertEqual(len(page.splitlines()), 6)

    def test_a_server_of_another_version_does_no_harm(self) -> None:
        for told in ({}, {"connections": 5, "clients": {}, "listeners": None}):
            self.answer(told)
            self.assertIn("process ?, up 0 s", self.works("stats"))

    def test_no_server(self) -> None:
        told = self.fails("stats")
        self.assertIn(f"no server is running with the data directory {self.data}", told)

    def test_what_went_wrong_is_told(self) -> None:
        self.answer(ControlError("the server: stats failed; the log says why"))
        self.assertEqual(self.fails("stats"), "Error: the server: stats failed; the log says why\n")

    def test_durations(self) -> None:
        for seconds, text in (
            (0, "0 s"), (59.9, "59 s"), (60, "1 min"), (61, "1 min 1 s"), (3600, "1 h"), (3661, "1 h 1 min"),
            (86_399, "23 h 59 min"), (90_000, "1 d 1 h"), (86_400 * 1500, "1,500 d"),
        ):  # fmt: skip
            self.assertEqual(duration(seconds), text)
