"""Limits across connections: each one below, at and above; what is remembered is bounded and ends with time."""

from __future__ import annotations

import dataclasses
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailserver import reply as replies
from mailserver.envelope import Peer
from mailserver.limits import COUNTED_TOGETHER, DEFAULT_LIMITS
from mailserver.policy.clients import DAY, FORGIVEN, MINUTE, ClientLimits, is_local, network

A, B = Peer("192.0.2.1", 1025), Peer("192.0.2.2", 1025)
LOOPBACK = Peer("127.0.0.1", 1025)

#: host, the client it is
NETWORKS = [
    ("192.0.2.1", "192.0.2.1"),
    ("2001:db8::1", "2001:db8::/64"),
    ("2001:db8:0:0:ffff:ffff:ffff:ffff", "2001:db8::/64"),
    ("2001:DB8:0:1::1", "2001:db8:0:1::/64"),
    ("fe80::1%eth0", "fe80::/64"),
    ("::ffff:192.0.2.1", "192.0.2.1"),
    ("::ffff:127.0.0.1", "127.0.0.1"),
    ("::1", "::1"),
    ("::2", "::/64"),
    ("", ""),
    ("no:address", "no:address"),
]


class ClientsCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1000.0)

    def door(
        self, *, random: float = 0.5, open_files: int | None = None, remembered: int = 100, **limits: Any
    ) -> ClientLimits:
        chosen = dataclasses.replace(DEFAULT_LIMITS, **limits)
        return ClientLimits(chosen, self.clock.seconds, lambda: random, open_files=open_files, remembered=remembered)

    def let_in(self, door: ClientLimits, peer: Peer, times: int = 1) -> None:
        for number in range(times):
            self.assertIsNone(door.connected(peer), number)

    def fail_login(self, door: ClientLimits, peer: Peer, user: str = "a@example.org", times: int = 1) -> float:
        for _ in range(times):
            wait = door.auth_failed(peer, user)
            door.auth_answered(peer)
        return wait


class NetworkTests(SynchronousTestCase):
    def test_a_client_is_an_ipv4_address_or_an_ipv6_64(self) -> None:
        for host, client in NETWORKS:
            self.assertEqual(network(host), client, host)

    def test_local_are_loopback_and_unix_sockets(self) -> None:
        for host in ("", "127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"):
            self.assertTrue(is_local(network(host)), host)
        for host in ("128.0.0.1", "192.0.2.127", "::2", "2001:db8::1", "::ffff:192.0.2.1"):
            self.assertFalse(is_local(network(host)), host)

    @given(st.text("0123456789abcdef:.%x[]", max_size=40))
    @settings(deadline=None, max_examples=150)
    def test_any_host_is_some_client(self, host: str) -> None:
        self.assertEqual(network(network(host).removesuffix("/64")), network(host))


class ConnectionTests(ClientsCase):
    def test_connections_of_one_client_are_limited(self) -> None:
        door = self.door(connections_per_client=3)
        self.let_in(door, A, 3)
        self.assertEqual(door.connected(A), replies.TOO_MANY_OF_CLIENT)
        self.let_in(door, B)
        door.disconnected(A)
        self.let_in(door, A)
        self.assertEqual(door.connected(A), replies.TOO_MANY_OF_CLIENT)

    def test_an_ipv6_client_has_one_count_for_its_64(self) -> None:
        door = self.door(connections_per_client=2)
        self.let_in(door, Peer("2001:db8::1"))
        self.let_in(door, Peer("2001:db8::ffff:0:0:2"))
        self.assertEqual(door.connected(Peer("2001:db8::3")), replies.TOO_MANY_OF_CLIENT)
        self.let_in(door, Peer("2001:db8:0:1::1"))

    def test_connections_in_all_are_limited(self) -> None:
        door = self.door(connections=3)
        for peer in (A, B, LOOPBACK):
            self.let_in(door, peer)
        for peer in (A, LOOPBACK, Peer("2001:db8::1")):
            self.assertEqual(door.connected(peer), replies.TOO_MANY_CONNECTIONS)
        self.assertEqual(door.connections, 3)
        door.disconnected(LOOPBACK)
        self.let_in(door, A)

    def test_80_percent_of_the_open_files_are_a_limit_too(self) -> None:
        for open_files, most in [(1, 1), (10, 8), (11, 8), (1250, 1000), (2000, 1000), (None, 1000)]:
            self.assertEqual(self.door(open_files=open_files).most_connections, most, open_files)

    def test_new_connections_of_one_client_are_limited_each_minute(self) -> None:
        door = self.door(connection_rate=3)
        for _ in range(3):
            self.let_in(door, A)
            door.disconnected(A)
        self.clock.advance(MINUTE - 0.01)
        self.assertEqual(door.connected(A), replies.CONNECTING_TOO_FAST)
        self.let_in(door, B)
        self.clock.advance(0.01)
        self.let_in(door, A)

    def test_the_first_minute_is_a_whole_one(self) -> None:
        self.clock = Clock()
        self.clock.advance(MINUTE - 1)
        door = self.door(connection_rate=1)
        self.let_in(door, A)
        self.clock.advance(2)  # a minute of the clock has begun, but not of the client
        self.assertEqual(door.connected(A), replies.CONNECTING_TOO_FAST)

    def test_who_is_turned_away_is_not_counted_as_connected(self) -> None:
        door = self.door(connections_per_client=1, connection_rate=1000)
        self.let_in(door, A)
        for _ in range(5):
            door.connected(A)
        self.assertEqual(door.connections, 1)
        door.disconnected(A)
        self.assertEqual(door.connections, 0)
        self.let_in(door, A)

    def test_programs_of_this_machine_are_not_counted_as_one_client(self) -> None:
        door = self.door(connections_per_client=1, connection_rate=1)
        for host in ("127.0.0.1", "::1", "", "::ffff:127.0.0.1"):
            self.let_in(door, Peer(host), 3)
        self.assertEqual(door.connections, 12)

    def test_a_connection_that_was_never_let_in_cannot_end(self) -> None:
        door = self.door(connections=2, connections_per_client=1)
        self.let_in(door, B)
        for peer in (A, A, LOOPBACK, Peer(""), Peer("2001:db8::1")):
            door.disconnected(peer)
        self.assertEqual(door.connections, 1)
        self.let_in(door, A)
        self.assertEqual(door.connected(A), replies.TOO_MANY_CONNECTIONS)
        door.disconnected(B)
        door.disconnected(B)
        self.assertEqual(door.connections, 1)
        self.assertEqual(door.connected(A), replies.TOO_MANY_OF_CLIENT)

    def test_busy_is_more_than_80_percent(self) -> None:
        door = self.door(connections=10)
        self.let_in(door, A, 8)
        self.assertFalse(door.busy())
        self.let_in(door, A)
        self.assertTrue(door.busy())
        door.disconnected(A)
        self.assertFalse(door.busy())

    def test_new_limits_count_for_those_who_come_now(self) -> None:
        door = self.door(connections_per_client=3, connections=10, open_files=10)
        self.let_in(door, A, 3)
        door.limits = dataclasses.replace(DEFAULT_LIMITS, connections_per_client=2, connections=4)
        self.assertEqual((door.most_connections, door.limits.connections_per_client), (4, 2))
        self.assertEqual(door.connected(A), replies.TOO_MANY_OF_CLIENT)
        door.limits = dataclasses.replace(DEFAULT_LIMITS, connections=2)
        self.assertEqual(door.connected(B), replies.TOO_MANY_CONNECTIONS)
        self.assertTrue(door.busy())
        for _ in range(3):
            door.disconnected(A)
        self.assertEqual(door.connections, 0)
        door.limits = dataclasses.replace(DEFAULT_LIMITS, connections=1000)
        self.assertEqual(door.most_connections, 8)

    @given(st.lists(st.tuples(st.booleans(), st.sampled_from(["192.0.2.1", "2001:db8::1", "127.0.0.1", ""]))))
    @settings(deadline=None, max_examples=100)
    def test_the_count_is_that_of_a_simple_model(self, steps: list[tuple[bool, str]]) -> None:
        door = ClientLimits(
            dataclasses.replace(DEFAULT_LIMITS, connections_per_client=3, connections=5),
            lambda: 0.0,
            lambda: 0.5,
            remembered=1,
        )
        model: list[str] = []
        for comes, host in steps:
            if not comes:
                door.disconnected(Peer(host))
                if host in model:
                    model.remove(host)
            elif door.connected(Peer(host)) is None:
                model.append(host)
            self.assertEqual(door.connections, len(model))
            self.assertLessEqual(len(model), 5)
            self.assertLessEqual(model.count("192.0.2.1"), 3)


class SendingTests(ClientsCase):
    """Messages and recipients of one client in a minute."""

    #: the limit, what asks, the reply
    KINDS = (
        ("messages_per_minute", "may_send", replies.SENDING_TOO_FAST),
        ("recipients_per_minute", "may_address", replies.ADDRESSING_TOO_FAST),
    )

    def ask(self, door: ClientLimits, question: str, peer: Peer, times: int) -> list[Any]:
        return [getattr(door, question)(peer) for _ in range(times)]

    def test_at_the_limit_over_it_and_when_the_minute_is_over(self) -> None:
        for limit, question, reply in self.KINDS:
            door = self.door(**{limit: 3})
            self.assertEqual(self.ask(door, question, A, 4), [None, None, None, reply])
            self.clock.advance(MINUTE - 0.01)
            self.assertEqual(self.ask(door, question, A, 1), [reply])
            self.assertEqual(self.ask(door, question, B, 3), [None] * 3)
            self.clock.advance(0.01)
            self.assertEqual(self.ask(door, question, A, 4), [None, None, None, reply])

    def test_the_reply_ends_the_connection_and_tells_the_reason(self) -> None:
        self.assertEqual([(reply.code, reply.enhanced) for _, _, reply in self.KINDS], [(421, "4.7.0")] * 2)
        self.assertIn("messages", replies.SENDING_TOO_FAST.text)
        self.assertIn("recipients", replies.ADDRESSING_TOO_FAST.text)

    def test_who_goes_on_asking_is_not_forgiven_by_that_nor_punished_for_ever(self) -> None:
        for limit, question, reply in self.KINDS:
            door = self.door(**{limit: 1})
            self.ask(door, question, A, 1)
            for _ in range(5):
                self.clock.advance(11)
                self.assertEqual(self.ask(door, question, A, 1), [reply])
            self.clock.advance(5)
            self.assertEqual(self.ask(door, question, A, 1), [None])

    def test_an_ipv6_client_has_one_count_for_its_64(self) -> None:
        for limit, question, reply in self.KINDS:
            door = self.door(**{limit: 2})
            peers = [Peer(f"2001:db8::{number}") for number in (1, 2, 3)]
            self.assertEqual([self.ask(door, question, peer, 1)[0] for peer in peers], [None, None, reply])
            self.assertEqual(self.ask(door, question, Peer("2001:db8:0:1::1"), 1), [None])

    def test_programs_of_this_machine_are_not_counted(self) -> None:
        for limit, question, _ in self.KINDS:
            door = self.door(**{limit: 1})
            for host in ("127.0.0.1", "::1", "", "::ffff:127.0.0.1"):
                self.assertEqual(self.ask(door, question, Peer(host), 5), [None] * 5, host)

    def test_0_is_no_limit_and_remembers_nobody(self) -> None:
        for limit, question, _ in self.KINDS:
            door = self.door(**{limit: 0})
            self.assertEqual(self.ask(door, question, A, 100), [None] * 100)
            self.assertEqual(len(door._ledger.clients), 0)

    def test_the_two_are_counted_apart(self) -> None:
        door = self.door(messages_per_minute=1, recipients_per_minute=1)
        self.assertEqual([*self.ask(door, "may_send", A, 1), *self.ask(door, "may_address", A, 1)], [None, None])

    def test_new_limits_count_at_once(self) -> None:
        for limit, question, reply in self.KINDS:
            door = self.door(**{limit: 5})
            self.ask(door, question, A, 3)
            door.limits = dataclasses.replace(DEFAULT_LIMITS, **{limit: 3})
            self.assertEqual(self.ask(door, question, A, 1), [reply])


class ListenerTests(ClientsCase):
    """Limits that a listener has of its own."""

    def doors(self, **own: Any) -> tuple[ClientLimits, ClientLimits]:
        """Of a listener with its own limits, and of one without; the server's are 3 of each."""
        names = dict.fromkeys(COUNTED_TOGETHER, 3) | {"connection_rate": 100} | {"auth_failures_per_minute": 3}
        whole = self.door(**names)
        mine = dataclasses.replace(whole.limits, **own)
        return tuple(  # type: ignore[return-value]
            whole.for_listener(name, limits, whole.limits)
            for name, limits in (("own", mine), ("plain", whole.limits))
        )

    def test_connections_of_a_client_below_and_above(self) -> None:
        own, plain = self.doors(connections_per_client=1)
        self.let_in(own, A)
        self.assertEqual(own.connected(A), replies.TOO_MANY_OF_CLIENT)
        self.let_in(plain, A, 2)
        self.assertEqual(plain.connected(A), replies.TOO_MANY_CONNECTIONS)  # of all
        own.disconnected(A)
        self.let_in(plain, A)
        self.assertEqual((own.connections, plain.connections), (3, 3))

    def test_without_one_of_its_own_all_are_counted_together(self) -> None:
        own, plain = self.doors(messages_per_minute=2)
        self.let_in(own, A, 2)
        self.let_in(plain, A)
        self.assertEqual(plain.connected(B), replies.TOO_MANY_CONNECTIONS)

    def test_connections_in_all_of_a_listener(self) -> None:
        own, plain = self.doors(connections=1)
        self.let_in(own, A)
        self.assertEqual(own.connected(B), replies.TOO_MANY_CONNECTIONS)
        self.let_in(plain, B, 2)
        self.assertEqual(plain.connected(B), replies.TOO_MANY_CONNECTIONS)
        own.disconnected(A)
        self.let_in(own, B)
        self.assertEqual(own.connected(B), replies.TOO_MANY_CONNECTIONS)

    def test_rates_below_and_above(self) -> None:
        for limit, question, reply in SendingTests.KINDS:
            own, plain = self.doors(**{limit: 1})
            asked = [getattr(own, question)(A) for _ in range(2)]
            self.assertEqual(asked, [None, reply], limit)
            asked = [getattr(plain, question)(A) for _ in range(4)]
            self.assertEqual(asked, [None, None, None, reply], limit)
        own, plain = self.doors(connection_rate=1)
        self.let_in(own, A)
        self.assertEqual(own.connected(A), replies.CONNECTING_TOO_FAST)
        self.let_in(plain, A)

    def test_failed_logins_are_counted_over_all_and_judged_by_the_listener(self) -> None:
        own, plain = self.doors(auth_failures_per_minute=2)
        self.fail_login(plain, A, times=2)
        self.assertEqual(own.may_authenticate(A), replies.TOO_MANY_AUTH_FAILURES)
        self.assertIsNone(plain.may_authenticate(A))
        plain.auth_judged(A)
        self.fail_login(own, A)
        self.assertEqual(plain.may_authenticate(A), replies.TOO_MANY_AUTH_FAILURES)

    def test_a_busy_server_is_busy_for_each(self) -> None:
        own, plain = self.doors(connections=1)
        self.let_in(plain, A, 3)
        self.assertTrue(own.busy())


class AuthTests(ClientsCase):
    def test_failures_of_one_client_are_limited_each_minute(self) -> None:
        door = self.door(auth_failures_per_minute=3)
        for number in range(3):
            self.assertIsNone(door.may_authenticate(A))
            door.auth_judged(A)
            self.fail_login(door, A, f"{number}@example.org")
        self.assertEqual(door.may_authenticate(A), replies.TOO_MANY_AUTH_FAILURES)
        self.assertIsNone(door.may_authenticate(B))
        self.clock.advance(MINUTE - 0.01)
        self.assertEqual(door.may_authenticate(A), replies.TOO_MANY_AUTH_FAILURES)
        self.clock.advance(0.01)
        self.assertIsNone(door.may_authenticate(A))

    def test_failures_of_one_client_are_limited_each_day(self) -> None:
        door = self.door(auth_failures_per_day=3)
        for _ in range(3):
            self.assertIsNone(door.may_authenticate(A))
            door.auth_judged(A)
            self.fail_login(door, A)
            self.clock.advance(DAY / 3 - 1)
        self.assertEqual(door.may_authenticate(A), replies.TOO_MANY_AUTH_FAILURES)
        self.clock.advance(3)
        self.assertIsNone(door.may_authenticate(A))

    def test_success_does_not_forgive_the_failures_of_the_day(self) -> None:
        door = self.door(auth_failures_per_day=2, auth_failures_per_minute=2)
        self.fail_login(door, A, times=2)
        door.auth_succeeded(A, "a@example.org")
        self.assertEqual(door.may_authenticate(A), replies.TOO_MANY_AUTH_FAILURES)

    def test_waiting_answers_of_one_client_are_limited(self) -> None:
        door = self.door(auth_delays=2, auth_failures_per_minute=100)
        door.auth_failed(A, "a")
        self.assertIsNone(door.may_authenticate(A))
        door.auth_judged(A)
        door.auth_failed(A, "a")
        self.assertEqual(door.may_authenticate(A), replies.TOO_MANY_AUTH_FAILURES)
        self.assertIsNone(door.may_authenticate(B))
        door.auth_answered(A)
        self.assertIsNone(door.may_authenticate(A))
        door.auth_judged(A)
        door.auth_failed(A, "a")
        self.assertEqual(door.may_authenticate(A), replies.TOO_MANY_AUTH_FAILURES)

    def test_many_at_once_are_no_more_than_many_in_a_row(self) -> None:
        door = self.door(auth_delays=9, auth_failures_per_minute=3)
        self.assertEqual([door.may_authenticate(A) for _ in range(4)], [None] * 3 + [replies.TOO_MANY_AUTH_FAILURES])
        for _ in range(3):
            door.auth_failed(A, "a")
            door.auth_judged(A)
            door.auth_answered(A)
        self.assertEqual(door.may_authenticate(A), replies.TOO_MANY_AUTH_FAILURES)

    def test_a_login_that_nobody_began_is_judged_without_harm(self) -> None:
        door = self.door(auth_delays=1)
        door.auth_judged(A)
        self.assertIsNone(door.may_authenticate(A))
        door.auth_judged(A)
        door.auth_judged(A)
        self.assertIsNone(door.may_authenticate(A))
        self.assertEqual(door.may_authenticate(A), replies.TOO_MANY_AUTH_FAILURES)

    def test_an_answer_that_nobody_waited_for_changes_nothing(self) -> None:
        door = self.door(auth_delays=1)
        for _ in range(3):
            door.auth_answered(A)
            door.may_authenticate(A)
        door.auth_failed(A, "a")
        self.assertEqual(door.may_authenticate(A), replies.TOO_MANY_AUTH_FAILURES)

    def test_programs_of_this_machine_speak_for_many_people(self) -> None:
        door = self.door(auth_failures_per_minute=1, auth_failures_per_day=1, auth_delays=2)
        for _ in range(5):
            self.fail_login(door, LOOPBACK)
        self.assertIsNone(door.may_authenticate(LOOPBACK))
        self.assertEqual(self.fail_login(door, LOOPBACK), 15.0)
        self.assertIsNone(door.may_authenticate(LOOPBACK))
        self.assertEqual(door.may_authenticate(LOOPBACK), replies.TOO_MANY_AUTH_FAILURES)

    def test_the_wait_doubles_up_to_its_limit(self) -> None:
        door = self.door()
        waits = [self.fail_login(door, A) for _ in range(6)]
        self.assertEqual(waits, [2.0, 4.0, 8.0, 15.0, 15.0, 15.0])
        self.fail_login(door, A, times=2000)  # no overflow

    def test_the_wait_is_spread_by_a_tenth_and_never_over_its_limit(self) -> None:
        for random, first, last in [(0.0, 1.8, 13.5), (1.0, 2.2, 15.0)]:
            door = self.door(random=random)
            self.assertAlmostEqual(self.fail_login(door, A), first)
            self.assertAlmostEqual(self.fail_login(door, A, times=10), last)

    def test_no_wait_where_none_is_wanted(self) -> None:
        self.assertEqual(self.fail_login(self.door(auth_failure_delay=0.0), A, times=5), 0.0)

    def test_the_wait_grows_for_the_client_whatever_the_account(self) -> None:
        door = self.door()
        self.assertEqual([self.fail_login(door, A, f"{n}@example.org") for n in range(3)], [2.0, 4.0, 8.0])

    def test_the_wait_grows_for_the_account_whatever_the_client_and_the_spelling(self) -> None:
        door = self.door()
        names = ["\u00e4@b\u00fc.example.org", "A\u0308@B\u00dc.example.org", '"\u00c4"@xn--b-eha.EXAMPLE.ORG']
        waits = [self.fail_login(door, Peer(f"192.0.2.{n}"), name) for n, name in enumerate(names)]
        self.assertEqual(waits, [2.0, 4.0, 8.0])
        self.assertEqual(self.fail_login(door, Peer("192.0.2.76"), "JOE"), 2.0)
        self.assertEqual(self.fail_login(door, Peer("192.0.2.77"), "joe"), 4.0)

    def test_the_wait_begins_small_again_after_success(self) -> None:
        door = self.door()
        self.fail_login(door, A, times=3)
        door.auth_succeeded(A, "A@Example.org")
        self.assertEqual(self.fail_login(door, A), 2.0)

    def test_success_with_one_account_does_not_forgive_the_other(self) -> None:
        door = self.door()
        self.fail_login(door, A, "victim@example.org", times=2)
        door.auth_succeeded(A, "mine@example.org")
        self.assertEqual(self.fail_login(door, A, "victim@example.org"), 8.0)

    def test_the_wait_begins_small_again_after_a_quarter_of_an_hour(self) -> None:
        door = self.door()
        self.fail_login(door, A, times=2)
        self.clock.advance(FORGIVEN - 1)
        self.assertEqual(self.fail_login(door, A), 8.0)
        self.clock.advance(FORGIVEN)
        self.assertEqual(self.fail_login(door, A), 2.0)

    def test_a_clock_that_is_set_back_locks_nobody_out(self) -> None:
        door = self.door(auth_failures_per_minute=1, auth_failures_per_day=1, connection_rate=1)
        self.let_in(door, A)
        self.fail_login(door, A)
        self.clock.advance(-500.0)
        self.assertIsNone(door.may_authenticate(A))
        self.let_in(door, A)
        self.assertEqual(self.fail_login(door, A), 2.0)
        self.assertEqual(door.may_authenticate(A), replies.TOO_MANY_AUTH_FAILURES)


class MemoryTests(ClientsCase):
    def test_the_clients_that_are_remembered_are_bounded(self) -> None:
        door = self.door(remembered=3)
        for number in range(50):
            door.may_authenticate(Peer(f"192.0.2.{number}"))
            door.auth_judged(Peer(f"192.0.2.{number}"))
            self.fail_login(door, Peer(f"192.0.2.{number}"), f"{number}")
        self.assertEqual((len(door._ledger.clients), len(door._ledger.accounts)), (3, 3))

    def test_a_long_name_takes_no_more_room_than_an_address(self) -> None:
        door = self.door()
        self.fail_login(door, A, "\u0390" * 100_000)
        self.assertLess(max(map(len, door._ledger.accounts)), 1000)

    def test_those_not_seen_for_the_longest_time_go_first(self) -> None:
        door = self.door(remembered=2, auth_failures_per_minute=1)
        self.fail_login(door, A)
        self.fail_login(door, B)
        door.may_authenticate(A)
        self.fail_login(door, Peer("192.0.2.3"))
        self.assertIsNotNone(door.may_authenticate(A))
        self.assertIsNone(door.may_authenticate(B))

    def test_those_who_are_connected_or_waiting_stay(self) -> None:
        door = self.door(remembered=1, connections_per_client=1, auth_delays=1)
        self.let_in(door, A)
        door.auth_failed(B, "b")
        for number in range(3, 20):
            self.fail_login(door, Peer(f"192.0.2.{number}"))
        self.assertEqual(door.connected(A), replies.TOO_MANY_OF_CLIENT)
        self.assertEqual(door.may_authenticate(B), replies.TOO_MANY_AUTH_FAILURES)
