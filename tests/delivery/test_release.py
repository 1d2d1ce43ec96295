"""Held messages are released in time, once, to everybody who can have them; the sender hears of the others."""

from __future__ import annotations

import dataclasses
import re
from itertools import count
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, ensureDeferred, execute, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from mailserver.address import Address, parse_address
from mailserver.delivery.inbound import Rooms
from mailserver.delivery.release import (
    FIRST_DELAY,
    GIVE_UP,
    LEAST_TRIES,
    LOOK,
    MOST_DELAY,
    Attempt,
    Releasing,
    next_delay,
    report_name,
)
from mailserver.durable import Durable
from mailserver.durable.files import FILES, Files
from mailserver.interfaces import IRouter
from mailserver.maildir.delivery import MaildirStore
from mailserver.maildir.names import UniqueNames
from mailserver.maildir.quota import Quotas
from mailserver.reply import LOCAL_TROUBLE, UNKNOWN_USER, Refusal
from mailserver.routing import Local, Remote
from mailserver.spool.folder import Claim, Entry
from mailserver.spool.held import Held
from tests.durable.disk import RecordingFiles, after_power_cut
from tests.spool.messages import ANNA, BOB, NOW, RECEIVED, TEXT, HeldOnDisk, held

CARL = "carl@example.org"


@implementer(IRouter)
class Boxes:
    """Everybody has a mailbox, unless `says` something else.  quotas: of some."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.says: dict[str, Any] = {}
        self.quotas: dict[str, int] = {}
        self.wrap: Any = lambda answer: answer

    def route(self, recipient: Address, *, may_relay: bool) -> Any:
        del may_relay
        said = self.says.get(str(recipient))
        if isinstance(said, Exception):
            raise said
        return self.wrap(said or (self.box(str(recipient)),))

    def box(self, address: str) -> Local:
        return Local(self.root / address, parse_address(address), self.quotas.get(address, 0))


class ReleaseCase(SynchronousTestCase):
    def setUp(self, files: Files = FILES) -> None:
        self.now = NOW
        self.disk = HeldOnDisk(self.mktemp(), files)
        self.folder = self.disk.folder
        self.boxes = Boxes(self.disk.root / "mail")
        numbers = count()
        durable = Durable(run_in_thread=execute, unique_name=lambda: f"m{next(numbers)}", files=files)
        quotas = Quotas(run_in_thread=execute, seconds=lambda: self.now)
        store = MaildirStore(durable, UniqueNames("h", 7, lambda: self.now), quotas)
        self.rooms = Rooms("mx.example.org", self.boxes, store, lambda: self.now)

    def attempt(self, entry: Entry) -> None:
        self.successResultOf(ensureDeferred(Attempt(self.rooms, self.folder, execute).make(entry)))

    def files(self, address: str) -> list[Path]:
        return sorted((self.boxes.root / address / "new").glob("*"))

    def left(self, kind: str = "held") -> Held:
        """The one message that is still there."""
        [entry] = self.folder.entries(kind)[0]
        return self.folder.read(entry)


class AttemptTests(ReleaseCase):
    def test_it_is_delivered_and_gone(self) -> None:
        self.attempt(self.disk.put(held()))
        [file] = self.files(BOB)
        expected = b"Return-Path: <anna@example.org>\r\nDelivered-To: bob@example.org\r\n" + RECEIVED + TEXT
        self.assertEqual(file.read_bytes(), expected.replace(b"\r\n", b"\n"))
        self.assertEqual(re.sub(",S=.*", "", file.name), held().unique)
        self.assertEqual(self.disk.names(), [])

    def test_a_large_message_and_an_empty_one(self) -> None:
        for number, text in enumerate((b"", b"Subject: x\r\n\r\n" + b"y" * 70 + b"\r\n" * 9000)):
            self.attempt(self.disk.put(held(id=f"id{number}", unique=f"1.M1P7Q{number}.h"), text))
        contents = [path.read_bytes() for path in self.files(BOB)]
        self.assertEqual(len(contents), 2)
        self.assertEqual(self.disk.names(), [])

    def test_several_recipients_and_one_mailbox_for_two(self) -> None:
        self.boxes.says["team@example.org"] = (self.boxes.box(BOB), self.boxes.box(CARL))
        self.attempt(self.disk.put(held(BOB, "team@example.org")))
        self.assertEqual((len(self.files(BOB)), len(self.files(CARL))), (1, 1))
        # Neither is told that the other has it.
        self.assertNotIn(b"Delivered-To", self.files(BOB)[0].read_bytes())

    def test_a_router_may_take_its_time(self) -> None:
        self.boxes.wrap = succeed
        self.attempt(self.disk.put(held()))
        self.assertEqual(len(self.files(BOB)), 1)

    def test_what_an_earlier_try_has_delivered_is_not_delivered_again(self) -> None:
        entry = self.disk.put(held(BOB, CARL))
        content = Path(entry.path).read_bytes()
        self.attempt(entry)
        self.files(CARL)[0].unlink()
        moved = self.boxes.root / BOB / "cur" / (self.files(BOB)[0].name + ":2,S")
        self.files(BOB)[0].rename(moved)
        # As it is after a crash between the two deliveries and the removal.
        Path(entry.path).write_bytes(content)
        self.attempt(entry)
        self.assertEqual((len(self.files(BOB)), len(self.files(CARL)), moved.exists()), (0, 1, True))
        self.assertEqual(self.disk.names(), [])

    def test_before_its_next_try_nothing_is_done(self) -> None:
        entry = self.disk.put(held(next_try=NOW + 1))
        self.attempt(entry)
        self.assertEqual((self.files(BOB), len(self.disk.names())), ([], 1))
        self.now += 1
        self.attempt(entry)
        self.assertEqual((len(self.files(BOB)), self.disk.names()), (1, []))

    def test_what_somebody_is_at_is_left_alone(self) -> None:
        entry = self.disk.put(held())
        claim = self.folder.claim(entry)
        assert claim is not None
        self.attempt(entry)
        self.assertEqual(self.files(BOB), [])
        claim.close()

    def test_a_damaged_one_is_set_aside(self) -> None:
        entry = self.disk.put(held())
        Path(entry.path).write_bytes(b"x\n")
        self.attempt(entry)
        self.assertEqual((self.disk.names(), len(self.disk.names("bad"))), ([], 1))


class TemporaryTests(ReleaseCase):
    def test_who_cannot_have_it_now_is_tried_again_alone(self) -> None:
        self.boxes.quotas[CARL] = 10
        entry = self.disk.put(held(BOB, CARL))
        self.attempt(entry)
        self.assertEqual((len(self.files(BOB)), self.files(CARL)), (1, []))
        left = self.left()
        self.assertEqual([str(each.address) for each in left.envelope.recipients], [CARL])
        self.assertEqual(
            (left.attempts, left.next_try, left.trouble), (1, NOW + FIRST_DELAY, "452 4.2.2 Mailbox full")
        )
        self.boxes.quotas.clear()
        self.now += FIRST_DELAY
        self.attempt(entry)
        self.assertEqual((len(self.files(BOB)), len(self.files(CARL)), self.disk.names()), (1, 1, []))

    def test_an_address_that_leads_elsewhere_waits(self) -> None:
        self.boxes.says[BOB] = (Remote(parse_address("bob@example.com")),)
        self.attempt(self.disk.put(held()))
        self.assertIn("451 4.3.0", self.left().trouble)

    def test_trouble_that_nobody_knows_is_not_final(self) -> None:
        self.boxes.says[BOB] = ValueError("broken router")
        self.attempt(self.disk.put(held()))
        self.assertEqual(self.left().trouble, str(LOCAL_TROUBLE))
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_trouble_with_the_disk_is_not_final(self) -> None:
        (self.boxes.root / BOB).mkdir(parents=True)
        (self.boxes.root / BOB / "tmp").write_text("a file")
        self.attempt(self.disk.put(held()))
        self.assertEqual(self.left().trouble, str(LOCAL_TROUBLE))

    def test_the_delay_grows_up_to_four_hours(self) -> None:
        delays = [next_delay(tries) for tries in (1, 2, 3, 6, 7, 1000)]
        self.assertEqual(delays, [FIRST_DELAY, 600.0, 1200.0, 9600.0, MOST_DELAY, MOST_DELAY])

    def tries(self, age: float, attempts: int) -> None:
        self.boxes.says[BOB] = Refusal(LOCAL_TROUBLE)
        self.attempt(self.disk.put(held(release=NOW - age, next_try=NOW, attempts=attempts)))

    def test_after_five_days_it_is_over(self) -> None:
        self.tries(GIVE_UP, LEAST_TRIES - 1)
        self.assertEqual((self.disk.names(), len(self.files(ANNA))), ([], 1))
        self.assertIn(b"Status: 5.3.0", self.files(ANNA)[0].read_bytes())

    def test_a_second_earlier_it_is_not(self) -> None:
        self.tries(GIVE_UP - 1, LEAST_TRIES - 1)
        self.assertEqual((len(self.disk.names()), self.files(ANNA)), (1, []))

    def test_nor_after_few_tries_whatever_the_clock_says(self) -> None:
        self.tries(GIVE_UP * 100, LEAST_TRIES - 2)
        self.assertEqual((len(self.disk.names()), self.files(ANNA)), (1, []))


class PermanentTests(ReleaseCase):
    def setUp(self) -> None:
        super().setUp()
        self.boxes.says[BOB] = Refusal(UNKNOWN_USER)

    def test_the_sender_gets_a_report_and_the_others_the_message(self) -> None:
        self.attempt(self.disk.put(held(BOB, CARL)))
        [report] = self.files(ANNA)
        text = report.read_bytes()
        self.assertTrue(text.startswith(b"Return-Path: <>\n"), text)
        self.assertIn(b"Final-Recipient: rfc822; bob@example.org\n", text)
        self.assertNotIn(b"carl", text)
        self.assertEqual((len(self.files(CARL)), self.disk.names()), (1, []))

    def test_a_report_is_not_delivered_twice(self) -> None:
        entry = self.disk.put(held())
        content = Path(entry.path).read_bytes()
        self.attempt(entry)
        Path(entry.path).write_bytes(content)
        self.attempt(entry)
        self.assertEqual((len(self.files(ANNA)), self.disk.names()), (1, []))

    def test_its_name_is_of_the_form_of_ours_and_of_this_try(self) -> None:
        names = [report_name(held(attempts=number)) for number in (0, 1)]
        self.assertEqual(len({*names, held().unique}), 3)
        for name in names:
            self.assertEqual(UniqueNames("h", 1, lambda: 0.0).pid_of(name), 7)

    def test_a_report_that_cannot_come_now_is_tried_again(self) -> None:
        self.boxes.quotas[ANNA] = 10
        entry = self.disk.put(held())
        self.attempt(entry)
        self.assertEqual([str(each.address) for each in self.left().envelope.recipients], [BOB])
        self.boxes.quotas.clear()
        self.now += FIRST_DELAY
        self.attempt(entry)
        self.assertEqual((len(self.files(ANNA)), self.disk.names()), (1, []))

    def kept(self, **changes: Any) -> None:
        message = held()
        self.attempt(
            self.disk.put(dataclasses.replace(message, envelope=dataclasses.replace(message.envelope, **changes)))
        )
        self.assertEqual((self.disk.names(), self.left("failed").lost), ([], (BOB,)))
        self.assertEqual([str(each.address) for each in self.left("failed").envelope.recipients], [BOB])

    def test_without_a_sender_it_is_kept(self) -> None:
        self.kept(sender=None)

    def test_for_a_sender_elsewhere_it_is_kept(self) -> None:
        self.boxes.says[ANNA] = Refusal(UNKNOWN_USER)
        self.kept()
        self.assertEqual(self.files(ANNA), [])

    def test_for_a_sender_whose_mail_goes_elsewhere_it_is_kept(self) -> None:
        self.boxes.says[ANNA] = (Remote(parse_address("anna@example.com")),)
        self.kept()

    def test_where_no_report_is_wanted_it_is_kept(self) -> None:
        [recipient] = held().envelope.recipients
        self.kept(recipients=(dataclasses.replace(recipient, parameters={"NOTIFY": "NEVER"}),))
        self.assertEqual(self.files(ANNA), [])

    def test_only_the_header_comes_back_when_that_is_wished(self) -> None:
        self.attempt(self.disk.put(held(parameters={"RET": "HDRS"})))
        text = self.files(ANNA)[0].read_bytes()
        self.assertIn(b"Subject: later", text)
        self.assertNotIn(b"\nbody\n", text)


class CrashTests(ReleaseCase):
    """Whatever call of a settlement fails, the message is there, and the next try doubles nothing."""

    def test_between_delivery_and_removal(self) -> None:
        for step in ("remove", "reschedule"):
            self.setUp()
            if step == "reschedule":
                self.boxes.quotas[CARL] = 10
            entry = self.disk.put(held(BOB, CARL))

            def fails(_claim: Claim, *_: Any) -> None:
                raise OSError(5, "injected")

            with_trouble = self.patch(Claim, step, fails)
            self.failureResultOf(ensureDeferred(Attempt(self.rooms, self.folder, execute).make(entry)), OSError)
            with_trouble.restore()
            self.assertEqual((len(self.files(BOB)), len(self.disk.names())), (1, 1), step)
            self.boxes.quotas.clear()
            self.attempt(entry)
            self.assertEqual((len(self.files(BOB)), len(self.files(CARL)), self.disk.names()), (1, 1, []), step)

    @settings(max_examples=80, deadline=None)
    @given(st.data())
    def test_at_every_moment_of_a_release_the_power_may_go(self, data: st.DataObject) -> None:
        """What was acknowledged is in the spool or in the mailbox, whole, whatever of the unsynced is lost."""
        self.setUp(files := RecordingFiles())
        entry = self.disk.put(held(BOB, CARL))
        acknowledged, content = len(files.operations), Path(entry.path).read_bytes()
        self.boxes.quotas[CARL] = data.draw(st.sampled_from((0, 10)))
        self.attempt(entry)
        prefix = data.draw(st.integers(acknowledged, len(files.operations)))
        kept = data.draw(st.sets(st.integers(0, len(files.operations))))
        left = after_power_cut(files.operations[:prefix], kept.__contains__)
        waiting = left.get(Path(entry.path))
        for address in (BOB, CARL):
            whole = [text for path, text in left.items() if path.match(f"{address}/new/*")]
            self.assertTrue(all(text.endswith(b"\n\nbody\n") for text in whole))
            self.assertLessEqual(len(whole), 1)
            if waiting is None or address.encode() not in waiting.partition(b"\n")[0]:
                self.assertEqual(len(whole), 1, address)
        if waiting is not None:
            self.assertEqual(waiting.partition(b"\n")[2], content.partition(b"\n")[2])


class ReleasingTests(ReleaseCase):
    def setUp(self) -> None:
        super().setUp()
        self.clock = Clock()
        self.thread: Any = execute
        self.service = Releasing(self.folder, self.in_thread, self.clock)
        self.rooms = dataclasses.replace(self.rooms, now=lambda: self.now + self.clock.seconds())
        self.addCleanup(self.service.stopService)
        self.disk.spool.told = self.service.held

    def in_thread(self, *job: Any) -> Deferred[Any]:
        result: Deferred[Any] = self.thread(*job)
        return result

    def start(self) -> None:
        self.service.use(self.rooms)
        self.service.startService()

    def test_it_waits_for_the_release_and_not_a_second_longer(self) -> None:
        self.disk.put(held(release=NOW + 7))
        self.start()
        self.clock.advance(6)
        self.assertEqual(self.files(BOB), [])
        self.clock.advance(1)
        self.assertEqual(len(self.files(BOB)), 1)

    def test_what_comes_while_it_waits_is_seen(self) -> None:
        self.start()
        self.disk.put(held(release=NOW + 2))
        self.clock.advance(2)
        self.assertEqual(len(self.files(BOB)), 1)

    def test_what_another_process_has_held_is_seen_within_a_minute(self) -> None:
        self.start()
        self.disk.spool.told = lambda _: None
        self.disk.put(held(release=NOW + 2))
        self.clock.advance(LOOK - 1)
        self.assertEqual(self.files(BOB), [])
        self.clock.advance(1)
        self.assertEqual(len(self.files(BOB)), 1)

    def test_a_clock_that_is_set(self) -> None:
        self.disk.put(held(release=NOW + 86_400))
        self.start()
        self.now += 86_400
        self.clock.advance(LOOK)
        self.assertEqual(len(self.files(BOB)), 1)
        self.disk.put(held(id="second", unique="1.M1P1Q1.h", release=self.now + 100))
        self.now -= 1_000_000
        self.clock.pump([LOOK] * 5)
        self.assertEqual((len(self.files(BOB)), len(self.disk.names())), (1, 1))

    def test_files_of_others_stop_nothing(self) -> None:
        (self.folder.directory / "held" / "0").write_text("x")
        self.disk.put(held(id="bad"))
        entry = self.folder.find("bad")
        assert entry is not None
        Path(entry.path).write_bytes(b"x")
        self.disk.put(held(id="good", release=NOW))
        self.start()
        self.assertEqual((len(self.files(BOB)), self.disk.names(), len(self.disk.names("bad"))), (1, [], 2))

    def test_trouble_with_one_stops_nothing(self) -> None:
        self.disk.put(held(id="a", unique="1.M1P1Q1.h"))
        self.disk.put(held(id="b", unique="1.M1P1Q2.h"))
        true = Claim.remove

        def fails(claim: Claim) -> None:
            if claim.held.id == "a":
                raise OSError(5, "injected")
            true(claim)

        trouble = self.patch(Claim, "remove", fails)
        self.start()
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)
        self.assertEqual([name.split(".")[1] for name in self.disk.names()], ["a"])
        trouble.restore()
        self.clock.advance(LOOK)
        self.assertEqual((self.disk.names(), len(self.files(BOB))), ([], 2))

    def test_a_folder_that_cannot_be_looked_at_is_looked_at_again(self) -> None:
        true, self.thread = self.thread, lambda *_: execute(self.fails)
        self.start()
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)
        self.thread = true
        self.disk.put(held(release=NOW + 1))
        self.clock.advance(LOOK)
        self.assertEqual(len(self.files(BOB)), 1)

    def fails(self) -> None:
        raise OSError(5, "injected")

    def test_the_end_waits_for_the_message_under_way_and_begins_no_other(self) -> None:
        self.disk.put(held(id="a", unique="1.M1P1Q1.h"))
        self.disk.put(held(id="b", unique="1.M1P1Q2.h"))
        waiting: list[tuple[Deferred[Any], Any]] = []

        def late(*job: Any) -> Deferred[Any]:
            if job[0] != self.folder.claim:
                return execute(*job)
            result: Deferred[Any] = Deferred()
            waiting.append((result, job))
            return result

        self.thread = late
        self.start()
        stopped = self.service.stopService()
        assert stopped is not None
        self.assertNoResult(stopped)
        [(result, job)] = waiting
        result.callback(job[0](*job[1:]))
        self.successResultOf(stopped)
        self.assertEqual((len(self.files(BOB)), len(self.disk.names()), len(waiting)), (1, 1, 1))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_reload_looks(self) -> None:
        self.service.startService()
        self.disk.put(held())
        self.assertEqual(self.files(BOB), [])
        self.service.use(self.rooms)
        self.assertEqual(len(self.files(BOB)), 1)
