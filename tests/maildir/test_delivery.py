"""A message reaches all its mailboxes, or none; what is on the disk is what was sent."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, DeferredList, ensureDeferred, execute
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface.verify import verifyObject

from mailserver.durable import Durable, Files
from mailserver.interfaces import IDelivery
from mailserver.maildir.delivery import MaildirDelivery, MaildirStore, Target
from mailserver.maildir.lines import to_crlf
from mailserver.maildir.names import UniqueNames, sizes
from mailserver.maildir.quota import Quotas
from mailserver.reply import LOCAL_TROUBLE, MAILBOX_FULL, Refusal
from tests.answers import asked

HEADER = b"Return-Path: <a@example.org>\r\nReceived: by x\r\n"


class Failing(Files):
    """From now on each call of this name fails."""

    def __init__(self) -> None:
        self.call, self.error = "", errno.ENOSPC

    def _check(self, call: str) -> None:
        if call == self.call:
            raise OSError(self.error, os.strerror(self.error))

    def write(self, descriptor: int, data: memoryview) -> int:
        self._check("write")
        return super().write(descriptor, data)

    def fsync(self, descriptor: int) -> None:
        self._check("fsync")
        super().fsync(descriptor)

    def link(self, source: Path, target: Path) -> None:
        self._check("link")
        super().link(source, target)


class Disk:
    """A store on real files.  run: the thread pool, by default none at all."""

    def __init__(self, root: str, run: Any = execute, **options: Any) -> None:
        self.root = Path(root)
        self.files = Failing()
        names = UniqueNames("h", 1, lambda: 1.5)
        durable = Durable(run_in_thread=run, unique_name=names.next, files=self.files, memory=200)
        self.store = MaildirStore(durable, names, Quotas(run_in_thread=run, seconds=lambda: 0.0), **options)

    def target(self, mailbox: str, quota: int = 0, header: bytes = HEADER) -> Target:
        return Target(self.root / mailbox, quota, header)

    def messages(self, mailbox: str, kind: str = "new") -> list[bytes]:
        """The contents of all files; each one's name must tell its sizes."""
        contents = []
        for path in sorted((self.root / mailbox / kind).glob("*")):
            content = path.read_bytes()
            crlf = content.partition(b"\n")[0].endswith(b"\r")
            virtual = len(content) if crlf else len(to_crlf(content))
            if kind == "new":
                assert sizes(path.name) == (len(content), virtual), path.name
            contents.append(content)
        return contents

    def left(self) -> list[Path]:
        return [path for kind in ("tmp", "new") for path in self.root.glob(f"*/{kind}/*")]


async def send(delivery: MaildirDelivery, *blocks: bytes) -> None:
    for block in blocks:
        taken = delivery.write(block)
        if taken is not None:
            await taken
    await asked(delivery.prepare)
    await asked(delivery.commit)


class DeliveryTests(SynchronousTestCase):
    def disk(self, **options: Any) -> Disk:
        return Disk(self.mktemp(), **options)

    def wait(self, answer: Awaitable[Any]) -> Any:
        return self.successResultOf(ensureDeferred(answer))  # type: ignore[arg-type]

    def fails(self, answer: Awaitable[Any], kind: type[BaseException]) -> Any:
        return self.failureResultOf(ensureDeferred(answer), kind).value  # type: ignore[arg-type]

    def test_it_is_a_delivery(self) -> None:
        disk = self.disk()
        verifyObject(IDelivery, disk.store.deliver([disk.target("a")]))

    def test_a_message_is_stored_with_its_trace_fields_and_lf(self) -> None:
        disk = self.disk()
        self.wait(send(disk.store.deliver([disk.target("a")]), b"Subject: x\r\n\r\nte", b"xt\r\n"))
        stored = b"Return-Path: <a@example.org>\nReceived: by x\nSubject: x\n\ntext\n"
        self.assertEqual(disk.messages("a"), [stored])
        self.assertEqual(len(disk.left()), 1)

    def test_by_choice_a_message_is_stored_with_crlf(self) -> None:
        disk = self.disk(line_endings="crlf")
        self.wait(send(disk.store.deliver([disk.target("a")]), b"text\r\n"))
        self.assertEqual(disk.messages("a"), [HEADER + b"text\r\n"])

    def test_an_empty_message_has_its_trace_fields(self) -> None:
        disk = self.disk()
        self.wait(send(disk.store.deliver([disk.target("a")])))
        self.assertEqual(disk.messages("a"), [HEADER.replace(b"\r\n", b"\n")])

    def test_trace_fields_of_any_length_are_stored(self) -> None:
        disk = self.disk()
        header = b"Received: by x\r\n" * 100
        self.wait(send(disk.store.deliver([disk.target("a", header=header)])))
        self.assertEqual(disk.messages("a"), [header.replace(b"\r\n", b"\n")])

    def test_the_maildir_is_made_whole_and_private(self) -> None:
        disk = self.disk()
        self.wait(send(disk.store.deliver([disk.target("example.org/a"), disk.target("example.net/b")]), b"x\r\n"))
        for mailbox in ("example.org/a", "example.net/b"):
            for kind in ("", "tmp", "new", "cur"):
                self.assertEqual(stat.S_IMODE(os.stat(disk.root / mailbox / kind).st_mode), 0o700)
        (file,) = disk.root.glob("example.net/b/new/*")
        self.assertEqual(stat.S_IMODE(os.stat(file).st_mode), 0o600)

    def test_recipients_with_the_same_fields_share_a_file_and_each_gets_it_once(self) -> None:
        disk = self.disk()
        targets = [disk.target(mailbox) for mailbox in ("a", "b", "a", "c", "b")]
        self.wait(send(disk.store.deliver(targets), b"x\r\n"))
        paths = list(disk.root.glob("*/new/*"))
        self.assertEqual(len(paths), 3)
        self.assertEqual(len({os.stat(path).st_ino for path in paths}), 1)

    def test_recipients_with_other_fields_get_a_file_of_their_own(self) -> None:
        for body in (b"text\r\n" * 2, b"text\r\n" * 100, b"bare \n lf\r\n" * 2, b"text\r\n" * 100 + b"\r"):
            with self.subTest(body=body):
                disk = self.disk()
                headers = {mailbox: b"Delivered-To: %s\r\n" % mailbox.encode() * 2 for mailbox in ("a", "bb", "c")}
                headers["d"] = headers["bb"]
                targets = [disk.target(mailbox, header=header) for mailbox, header in headers.items()]
                self.wait(send(disk.store.deliver(targets), body[:9], body[9:]))
                for mailbox, header in headers.items():
                    (stored,) = disk.messages(mailbox)
                    crlf = stored.partition(b"\n")[0].endswith(b"\r")
                    self.assertEqual(stored if crlf else to_crlf(stored), header + body)
                self.assertEqual(len({os.stat(path).st_ino for path in disk.root.glob("*/new/*")}), 3)
                self.assertEqual(disk.messages("a", "tmp") + disk.messages("bb", "tmp"), [])

    @settings(deadline=None, max_examples=60)
    @given(
        st.lists(st.sampled_from([b"\r\n", b"text" * 9, b"\r", b"\n", b"\0\xff" * 40]), max_size=20),
        st.integers(1, 300),
    )
    def test_any_cutting_stores_what_was_sent(self, parts: list[bytes], length: int) -> None:
        disk, sent = self.disk(), b"".join(parts)
        blocks = [sent[at : at + length] for at in range(0, len(sent), length)]
        self.wait(send(disk.store.deliver([disk.target("a"), disk.target("b", header=b"B: 1\r\n")]), *blocks))
        for mailbox, header in (("a", HEADER), ("b", b"B: 1\r\n")):
            (stored,) = disk.messages(mailbox)
            crlf = stored.partition(b"\n")[0].endswith(b"\r")
            self.assertEqual(stored if crlf else to_crlf(stored), header + sent)

    def test_one_full_mailbox_refuses_for_all_and_the_room_of_the_others_is_given_back(self) -> None:
        disk = self.disk()
        stored = len(HEADER.replace(b"\r\n", b"\n") + b"x\n")
        targets = [disk.target("a", stored), disk.target("b", stored - 1)]
        delivery = disk.store.deliver(targets)
        self.assertEqual(self.fails(send(delivery, b"x\r\n"), Refusal).reply, MAILBOX_FULL)
        self.assertEqual(disk.left(), [])
        self.wait(send(disk.store.deliver(targets[:1]), b"x\r\n"))
        delivery.abort()
        self.assertEqual(self.fails(send(disk.store.deliver(targets[:1]), b""), Refusal).reply, MAILBOX_FULL)

    def test_room_is_held_from_prepare_to_the_end(self) -> None:
        disk = self.disk()
        target = disk.target("a", 60)
        first = disk.store.deliver([target])
        self.wait(asked(first.prepare))
        self.fails(asked(disk.store.deliver([target]).prepare), Refusal)
        first.abort()
        second = disk.store.deliver([target])
        self.wait(asked(second.prepare))
        disk.files.call = "fsync"
        self.fails(asked(second.commit), OSError)
        disk.files.call = ""
        self.wait(send(disk.store.deliver([target])))
        self.fails(asked(disk.store.deliver([target]).prepare), Refusal)

    def test_room_that_others_make_after_the_commit_can_be_used(self) -> None:
        disk = self.disk()
        for _ in range(3):
            self.wait(send(disk.store.deliver([disk.target("a", 60)])))
            self.fails(asked(disk.store.deliver([disk.target("a", 60)]).prepare), Refusal)
            (path,) = disk.left()
            path.unlink()

    def test_an_abort_while_the_mailbox_is_counted_gives_the_room_back(self) -> None:
        counts: list[tuple[Deferred[Any], Any]] = []

        def late(*job: Any) -> Deferred[Any]:
            counts.append((Deferred(), job))
            return counts[-1][0]

        disk = self.disk(run=late)
        delivery = disk.store.deliver([disk.target("a", 60)])
        prepared = asked(delivery.prepare)
        delivery.abort()
        counts[0][0].callback(0)
        self.assertIsNone(self.successResultOf(prepared))
        self.wait(asked(disk.store.deliver([disk.target("a", 60)]).prepare))

    def test_trouble_with_the_disk_is_told_as_it_is_and_leaves_nothing(self) -> None:
        for call in ("write", "fsync", "link"):
            for blocks in ([b"x\r\n"], [b"y" * 300, b"\n" + b"z" * 300]):
                for number in (errno.ENOSPC, errno.EIO, errno.EDQUOT):
                    with self.subTest(call=call, number=number):
                        disk = self.disk()
                        disk.files.call, disk.files.error = call, number
                        delivery = disk.store.deliver([disk.target("a"), disk.target("b", header=b"B: 1\r\n")])
                        self.assertEqual(self.fails(send(delivery, *blocks), OSError).errno, number)
                        delivery.abort()
                        self.assertEqual(disk.left(), [])

    def test_an_abort_leaves_nothing_at_any_time_also_twice(self) -> None:
        for blocks in ([], [b"x\r\n"], [b"x" * 500], [b"x" * 500, b"\n"]):
            disk = self.disk()
            delivery = disk.store.deliver([disk.target("a")])
            for block in blocks:
                delivery.write(block)
            delivery.abort()
            delivery.abort()
            self.assertIsNone(delivery.write(b"more"))
            self.fails(asked(delivery.commit), RuntimeError)
            self.assertEqual(disk.left(), [])

    def test_an_abort_after_the_commit_takes_nothing_back(self) -> None:
        disk = self.disk()
        delivery = disk.store.deliver([disk.target("a")])
        self.wait(send(delivery, b"x\r\n"))
        delivery.abort()
        self.assertEqual(len(disk.messages("a")), 1)

    def test_the_order_of_the_phases_is_kept(self) -> None:
        disk = self.disk()
        delivery = disk.store.deliver([disk.target("a")])
        self.fails(asked(delivery.commit), RuntimeError)
        self.wait(asked(delivery.prepare))
        self.assertRaises(RuntimeError, delivery.write, b"x")
        self.fails(asked(delivery.prepare), RuntimeError)
        self.wait(asked(delivery.commit))
        self.fails(asked(delivery.commit), RuntimeError)

    def test_a_delivery_needs_a_target(self) -> None:
        self.assertRaises(ValueError, self.disk().store.deliver, [])

    def test_a_header_must_be_whole_lines_and_a_quota_a_number(self) -> None:
        for header in (b"", b"A: 1", b"A: 1\n", b"A: 1\r\nB: \r 2\r\n", b"A: 1\r\nB: \n\r\n"):
            self.assertRaises(ValueError, Target, Path("a"), 0, header)
        self.assertRaises(ValueError, Target, Path("a"), -1, HEADER)


class PartialTests(SynchronousTestCase):
    """LMTP: a full mailbox refuses for itself only."""

    def start(self, *rooms: tuple[str, int, bytes]) -> tuple[Disk, MaildirDelivery]:
        disk = Disk(self.mktemp())
        return disk, disk.store.deliver([disk.target(*room) for room in rooms], partial=True)

    def wait(self, answer: Awaitable[Any]) -> Any:
        return self.successResultOf(ensureDeferred(answer))  # type: ignore[arg-type]

    def names(self, delivery: MaildirDelivery) -> list[str]:
        return [path.name for path in delivery.refused]

    def test_the_others_get_it(self) -> None:
        other = b"Delivered-To: x\r\n"
        for rooms in (
            [("a", 1, HEADER), ("b", 0, HEADER)],
            [("b", 0, HEADER), ("a", 1, HEADER)],
            [("a", 1, HEADER), ("b", 0, other)],
            [("a", 1, other), ("b", 0, HEADER), ("c", 0, other)],
            [("a", 1, HEADER), ("b", 0, other), ("c", 0, other)],
        ):
            for body in (b"x\r\n", b"x" * 500 + b"\r\n"):
                disk, delivery = self.start(*rooms)
                self.wait(send(delivery, body))
                self.assertEqual(self.names(delivery), ["a"])
                self.assertEqual(delivery.refused[disk.root / "a"].reply, MAILBOX_FULL)
                for name, quota, header in rooms:
                    expected = [] if quota else [(header + body).replace(b"\r\n", b"\n")]
                    self.assertEqual(disk.messages(name), expected, rooms)
                    self.assertEqual(disk.messages(name, "tmp"), [], rooms)

    def test_when_all_are_full_it_is_refused_and_nothing_is_left(self) -> None:
        disk, delivery = self.start(("a", 1, HEADER), ("b", 1, b"B: 1\r\n"))
        failure = self.failureResultOf(ensureDeferred(send(delivery, b"x" * 500)), Refusal)
        self.assertEqual(failure.value.reply, MAILBOX_FULL)
        delivery.abort()
        self.assertEqual(disk.left(), [])

    def test_who_is_left_out_gets_nothing_and_has_its_room_back(self) -> None:
        stored = len(HEADER.replace(b"\r\n", b"\n") + b"x\n")
        disk, delivery = self.start(("a", stored, HEADER), ("b", stored, HEADER), ("c", 0, b"C: 1\r\n"))
        self.wait(delivery.write(b"x\r\n") or execute(int))
        self.wait(asked(delivery.prepare))
        for name in ("b", "c"):
            delivery.leave_out(disk.root / name, Refusal(MAILBOX_FULL))
        self.wait(asked(delivery.commit))
        self.assertEqual(self.names(delivery), ["b", "c"])
        self.assertEqual([len(disk.messages(name)) for name in ("a", "b", "c")], [1, 0, 0])
        self.wait(send(disk.store.deliver([disk.target("b", stored)]), b"x\r\n"))
        self.failureResultOf(asked(disk.store.deliver([disk.target("a", stored)]).prepare), Refusal)

    def test_an_abort_gives_the_room_of_the_others_back(self) -> None:
        disk, delivery = self.start(("a", 60, HEADER), ("b", 1, HEADER))
        self.wait(asked(delivery.prepare))
        delivery.abort()
        self.wait(asked(disk.store.deliver([disk.target("a", 60)]).prepare))
        self.assertEqual(disk.left(), [])

    def damage(self, disk: Disk, mailbox: str, how: str) -> None:
        path = disk.root / mailbox
        for kind in ("tmp", "new", "cur"):
            (path / kind).mkdir(parents=True)
        if how == "loop":
            for kind in ("tmp", "new"):
                (path / kind).rmdir()
                (path / kind).symlink_to(kind)
        elif how == "whole":
            for kind in ("tmp", "new", "cur"):
                (path / kind).rmdir()
            path.rmdir()
            path.write_bytes(b"")
        else:
            (path / how).rmdir()
            (path / how).write_bytes(b"")

    def test_a_damaged_mailbox_is_refused_for_itself_and_the_others_get_it(self) -> None:
        other = b"Delivered-To: x\r\n"
        for how in ("new", "loop", "whole"):
            for header in (HEADER, other):
                for rooms in ([("a", 0, header), ("b", 0, HEADER), ("c", 0, HEADER)],
                              [("b", 0, HEADER), ("a", 0, header), ("c", 0, other)]):  # fmt: skip
                    for body in (b"x\r\n", b"x" * 500 + b"\r\n"):
                        disk, delivery = self.start(*rooms)
                        self.damage(disk, "a", how)
                        self.wait(send(delivery, body))
                        self.assertEqual(self.names(delivery), ["a"], how)
                        self.assertEqual(delivery.refused[disk.root / "a"].reply, LOCAL_TROUBLE)
                        for name, _, own in rooms:
                            if name != "a":
                                self.assertEqual(disk.messages(name), [(own + body).replace(b"\r\n", b"\n")])
                        self.assertEqual([path for path in disk.left() if path.parent.name == "tmp"], [])

    def test_a_tmp_that_is_damaged_takes_no_other_mailbox_with_it(self) -> None:
        for body in (b"x\r\n", b"x" * 500 + b"\r\n"):
            disk, delivery = self.start(("a", 0, HEADER), ("b", 0, HEADER))
            self.damage(disk, "a", "tmp")
            self.wait(send(delivery, body))
            self.assertEqual(len(disk.messages("b")), 1)
            self.assertEqual(delivery.refused, {})  # a link does not need it

    def test_a_mailbox_that_cannot_be_counted_is_refused_for_itself(self) -> None:
        disk, delivery = self.start(("a", 10**6, HEADER), ("b", 10**6, HEADER))
        self.damage(disk, "a", "new")
        self.wait(send(delivery, b"x\r\n"))
        self.assertEqual((self.names(delivery), len(disk.messages("b"))), (["a"], 1))

    def test_when_all_are_damaged_it_fails_and_nothing_is_left(self) -> None:
        disk, delivery = self.start(("a", 0, HEADER), ("b", 0, HEADER))
        for mailbox in ("a", "b"):
            self.damage(disk, mailbox, "new")
        self.failureResultOf(ensureDeferred(send(delivery, b"x\r\n")), OSError)
        self.assertEqual(disk.left(), [])

    def test_what_is_taken_back_is_gone(self) -> None:
        disk, delivery = self.start(("a", 0, HEADER), ("b", 0, HEADER))
        self.wait(send(delivery, b"x\r\n"))
        delivery.take_back(disk.root / "a", Refusal(LOCAL_TROUBLE))
        self.assertEqual((disk.messages("a"), len(disk.messages("b")), self.names(delivery)), ([], 1, ["a"]))

    def test_a_whole_delivery_refuses_for_all(self) -> None:
        disk = Disk(self.mktemp())
        delivery = disk.store.deliver([disk.target("a"), disk.target("b", 1)])
        self.failureResultOf(asked(delivery.prepare), Refusal)
        self.assertEqual(delivery.refused, {})


class ThreadPoolTests(TestCase):
    """The same through real threads."""

    def setUp(self) -> None:
        from twisted.internet import reactor

        self.pool = ThreadPool(4, 8)
        self.pool.start()
        self.addCleanup(self.pool.stop)
        self.disk = Disk(self.mktemp(), lambda *job: deferToThreadPool(reactor, self.pool, *job))

    async def test_200_messages_at_once_to_3_mailboxes_all_arrive_whole(self) -> None:
        mailboxes = ("a", "b", "c")
        bodies = [b"message %d\r\n" % number * (1 + number % 60) for number in range(200)]
        deliveries = []
        for number, body in enumerate(bodies):
            targets = [self.disk.target(mailboxes[(number + step) % 3], 10**9) for step in range(1 + number % 3)]
            blocks = [body[at : at + 150] for at in range(0, len(body), 150)]
            deliveries.append(ensureDeferred(send(self.disk.store.deliver(targets), *blocks)))
        results = await DeferredList(deliveries, consumeErrors=True)
        self.assertEqual([result for success, result in results if not success], [])
        expected: dict[str, list[bytes]] = {mailbox: [] for mailbox in mailboxes}
        for number, body in enumerate(bodies):
            for step in range(1 + number % 3):
                expected[mailboxes[(number + step) % 3]].append((HEADER + body).replace(b"\r\n", b"\n"))
        for mailbox in mailboxes:
            self.assertEqual(sorted(self.disk.messages(mailbox)), sorted(expected[mailbox]))
            self.assertEqual(self.disk.messages(mailbox, "tmp"), [])

    async def test_messages_aborted_at_any_moment_leave_nothing(self) -> None:
        for number in range(30):
            delivery = self.disk.store.deliver([self.disk.target("a")])
            for _ in range(number % 5):
                taken = delivery.write(b"x" * 150 + b"\n" * (number % 2))
                if taken is not None and number % 3:
                    await taken
                elif taken is not None:
                    break
            delivery.abort()
        stopped = self.disk.store.durable.stopService()
        if stopped is not None:
            await stopped
        self.assertEqual(self.disk.left(), [])
