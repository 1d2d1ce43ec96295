"""The counters: each call counts what it says, sums agree with the parts, and nothing grows without a bound."""

from __future__ import annotations

import json
import os
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailserver.counters import MOST_NAMES, OTHER, TOP, Counters, add_up, ended


class CountersTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.counters = Counters(self.clock.seconds)

    def told(self, *path: str) -> Any:
        value: Any = self.counters.snapshot()
        for key in path:
            value = value[key]
        return value

    def test_at_the_start_all_is_nothing(self) -> None:
        self.assertEqual(
            self.told(),
            {
                "pid": os.getpid(),
                "uptime": 0.0,
                "connections": {"now": 0, "most": 0, "total": 0, "turned_away": 0},
                "messages": {"accepted": 0, "refused": 0, "octets": 0},
                "recipients": {"accepted": 0, "refused": 0},
                "apps": {},
                "auth": {"succeeded": 0, "failed": 0},
                "reactor": {"longest_stall": 0.0, "stalls": 0},
                "listeners": {},
                "refusals": {},
                "clients": {"remembered": 0, "by_connections": [], "by_failures": []},
            },
        )

    def test_time_goes_on(self) -> None:
        self.clock.advance(3661.24)
        self.assertEqual(self.told("uptime"), 3661.2)

    def test_connections_now_and_at_most(self) -> None:
        for listener in ("a", "a", "b"):
            self.counters.connection_opened(listener, "192.0.2.1")
        self.counters.connection_closed("a")
        self.counters.connection_closed("b")
        self.counters.connection_opened("b", "192.0.2.1")
        self.counters.connection_refused("b", "192.0.2.1", "421 4.7.0")
        self.assertEqual(self.told("connections"), {"now": 2, "most": 3, "total": 4, "turned_away": 1})
        a, b = self.told("listeners", "a"), self.told("listeners", "b")
        self.assertEqual((a["now"], a["most"], a["connections"], a["turned_away"]), (1, 2, 2, 0))
        self.assertEqual((b["now"], b["most"], b["connections"], b["turned_away"]), (1, 1, 2, 1))

    def test_a_connection_that_ends_twice_is_no_negative_one(self) -> None:
        self.counters.connection_closed("a")
        self.assertEqual((self.told("connections", "now"), self.told("listeners", "a", "now")), (0, 0))

    def test_messages_and_recipients(self) -> None:
        self.counters.message_accepted("a", "192.0.2.1", octets=1000, recipients=3)
        self.counters.message_accepted("a", "192.0.2.1", octets=24, recipients=1)
        self.counters.message_refused("b", "192.0.2.2", "552 5.3.4")
        self.counters.recipient_refused("192.0.2.2", "550 5.1.1")
        self.assertEqual(self.told("messages"), {"accepted": 2, "refused": 1, "octets": 1024})
        self.assertEqual(self.told("recipients"), {"accepted": 4, "refused": 1})
        self.assertEqual((self.told("listeners", "a", "accepted"), self.told("listeners", "b", "refused")), (2, 1))

    def test_refusals_are_told_by_reply_the_most_frequent_first(self) -> None:
        for reply, times in (("550 5.1.1", 2), ("452 4.5.3", 1), ("450 4.7.1", 3), ("421 4.7.0", 2)):
            for _ in range(times):
                self.counters.recipient_refused("192.0.2.1", reply)
        self.assertEqual(
            list(self.told("refusals").items()),
            [("450 4.7.1", 3), ("421 4.7.0", 2), ("550 5.1.1", 2), ("452 4.5.3", 1)],
        )

    def test_logins(self) -> None:
        self.counters.auth_succeeded()
        self.counters.auth_failed("192.0.2.1")
        self.counters.auth_failed("192.0.2.1")
        self.assertEqual(self.told("auth"), {"succeeded": 1, "failed": 2})
        self.assertEqual(self.told("clients", "by_failures")[0]["failures"], 2)

    def test_the_busiest_clients(self) -> None:
        for number in range(TOP + 5):
            for _ in range(number + 1):
                self.counters.connection_opened("a", f"192.0.2.{number}")
        self.counters.auth_failed("192.0.2.0")
        self.counters.message_accepted("a", "192.0.2.14", octets=1, recipients=1)
        self.counters.recipient_refused("192.0.2.14", "550 5.1.1")
        by_connections = self.told("clients", "by_connections")
        self.assertEqual(len(by_connections), TOP)
        self.assertEqual(
            by_connections[0],
            {"client": "192.0.2.14", "connections": 15, "messages": 1, "refused": 1, "failures": 0},
        )
        self.assertEqual([row["connections"] for row in by_connections], list(range(15, 5, -1)))
        self.assertEqual([row["client"] for row in self.told("clients", "by_failures")], ["192.0.2.0"])

    def test_clients_are_those_that_somebody_says(self) -> None:
        self.counters = Counters(self.clock.seconds, lambda host: host.rpartition(".")[0])
        self.counters.connection_opened("a", "192.0.2.1")
        self.counters.connection_opened("a", "192.0.2.2")
        self.counters.connection_opened("a", "")
        rows = self.told("clients", "by_connections")
        self.assertEqual([(row["client"], row["connections"]) for row in rows], [("192.0.2", 2), ("unix", 1)])

    def test_whose_client_an_address_is_is_asked_once(self) -> None:
        asked: list[str] = []

        def client_of(host: str) -> str:
            asked.append(host)
            return host

        counters = Counters(self.clock.seconds, client_of)
        for host in ("192.0.2.1", "2001:db8::1", "192.0.2.1"):
            counters.message_accepted("a", host, octets=1, recipients=1)
        self.assertEqual(asked, ["192.0.2.1", "2001:db8::1"])


class BoundsTests(SynchronousTestCase):
    def test_the_client_not_seen_for_the_longest_time_is_forgotten(self) -> None:
        counters = Counters(Clock().seconds, remembered=3)
        for host in ("a", "b", "c", "a", "d"):
            counters.connection_opened("x", host)
        clients = counters.snapshot()["clients"]
        self.assertEqual(clients["remembered"], 3)
        self.assertEqual({row["client"] for row in clients["by_connections"]}, {"a", "c", "d"})

    def test_replies_and_listeners_beyond_the_bound_are_counted_together(self) -> None:
        counters = Counters(Clock().seconds)
        for number in range(MOST_NAMES + 10):
            counters.connection_refused(f"listener{number}", "192.0.2.1", f"450 4.7.{number}")
        counters.connection_refused("listener0", "192.0.2.1", "450 4.7.0")
        told = counters.snapshot()
        for table in (told["listeners"], told["refusals"]):
            self.assertEqual(len(table), MOST_NAMES + 1)
        self.assertEqual((told["refusals"][OTHER], told["refusals"]["450 4.7.0"]), (10, 2))
        self.assertEqual(told["listeners"][OTHER]["turned_away"], 10)

    @settings(deadline=None, max_examples=100)
    @given(st.lists(st.tuples(st.integers(0, 6), st.sampled_from("abc"), st.sampled_from(["192.0.2.1", "", "x"]))))
    def test_sums_agree_with_their_parts_and_json_takes_them(self, events: list[tuple[int, str, str]]) -> None:
        counters = Counters(Clock().seconds)
        calls = (
            counters.connection_opened,
            lambda listener, host: counters.connection_closed(listener),
            lambda listener, host: counters.connection_refused(listener, host, "421 4.7.0"),
            lambda listener, host: counters.message_accepted(listener, host, octets=5, recipients=2),
            lambda listener, host: counters.message_refused(listener, host, "554 5.6.0"),
            lambda listener, host: counters.recipient_refused(host, "550 5.1.1"),
            lambda listener, host: counters.auth_failed(host),
        )
        for number, listener, host in events:
            calls[number](listener, host)
        told = json.loads(json.dumps(counters.snapshot()))

        def total(field: str) -> int:
            return sum(each[field] for each in told["listeners"].values())

        self.assertEqual(told["connections"]["total"], total("connections"))
        self.assertEqual(told["connections"]["turned_away"], total("turned_away"))
        self.assertEqual(told["messages"]["accepted"], total("accepted"))
        self.assertEqual(told["messages"]["refused"], total("refused"))
        refused = told["connections"]["turned_away"] + told["messages"]["refused"] + told["recipients"]["refused"]
        self.assertEqual(sum(told["refusals"].values()), refused)
        self.assertGreaterEqual(told["connections"]["most"], told["connections"]["now"])


class SumTests(SynchronousTestCase):
    """Several processes."""

    def counted(self, *hosts: str, listener: str = "a", refused: str = "550 5.1.1") -> dict[str, Any]:
        counters = Counters(Clock().seconds)
        for host in hosts:
            counters.connection_opened(listener, host)
            counters.message_accepted(listener, host, octets=10, recipients=2)
        counters.recipient_refused(hosts[0], refused)
        return counters.snapshot(100)

    def test_of_none_is_nothing(self) -> None:
        nothing = Counters(Clock().seconds).snapshot()
        self.assertEqual(add_up(()), {key: nothing[key] for key in nothing if key not in ("pid", "uptime")})

    def test_numbers_are_added_and_what_only_one_has_is_kept(self) -> None:
        told = add_up(
            [self.counted("x", "y"), self.counted("y", listener="b", refused="450 4.2.0"), self.counted("y")]
        )
        self.assertEqual((told["connections"]["total"], told["messages"]["octets"]), (4, 40))
        self.assertEqual((told["listeners"]["a"]["accepted"], told["listeners"]["b"]["accepted"]), (3, 1))
        self.assertEqual(list(told["refusals"].items()), [("550 5.1.1", 2), ("450 4.2.0", 1)])
        rows = told["clients"]["by_connections"]
        self.assertEqual([(row["client"], row["connections"]) for row in rows], [("y", 3), ("x", 1)])

    def test_of_one_it_is_the_same_and_sums_can_be_added_up_again(self) -> None:
        one, two = self.counted("x", "y"), self.counted("y", "z")
        self.assertEqual(add_up([one])["listeners"], one["listeners"])
        self.assertEqual(add_up([add_up([one, two]), one]), add_up([one, two, one]))

    def test_only_the_busiest_clients_are_told(self) -> None:
        told = add_up([self.counted(*(f"192.0.2.{number}" for number in range(50)))], top=3)
        self.assertEqual((len(told["clients"]["by_connections"]), told["clients"]["remembered"]), (3, 50))

    def test_one_that_has_ended_has_nothing_open(self) -> None:
        told = ended(self.counted("x", "y"))
        self.assertEqual((told["connections"]["now"], told["listeners"]["a"]["now"]), (0, 0))
        self.assertEqual((told["connections"]["total"], told["listeners"]["a"]["connections"]), (2, 2))

    def test_apps(self) -> None:
        def counted(stall: float, outcome: str) -> dict[str, Any]:
            counters = Counters(Clock().seconds)
            counters.app_called("a", outcome, stall, outcome)
            counters.app_restarted("a")
            return counters.snapshot()

        told = add_up([counted(0.2, "failed"), counted(0.4, "timeout"), counted(0.0, "refused")])["apps"]["a"]
        self.assertEqual(
            told,
            {
                "calls": 3, "refused": 1, "failed": 1, "timeouts": 1, "stalls": 2, "longest_stall": 0.4,
                "longest_in": "timeout", "restarts": 3,
            },
        )  # fmt: skip
