"""The transaction: all deliveries or none, the right word for each trouble, and everybody waited for."""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Sequence
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, ensureDeferred, execute, fail, succeed
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from mailserver.address import parse_address
from mailserver.delivery.transaction import EachRecipient, Transaction, reply_for
from mailserver.durable import Durable
from mailserver.interfaces import IDelivery
from mailserver.maildir.delivery import MaildirStore, Target
from mailserver.maildir.names import UniqueNames
from mailserver.maildir.quota import Quotas
from mailserver.reply import DISK_FULL, LOCAL_TROUBLE, MAILBOX_FULL, Refusal, Reply
from mailserver.routing import Local
from tests.answers import asked

ACCEPTED = Reply(250, "2.0.0", "Ok: queued as id7")

#: errno, reply
ERRORS = [
    (errno.ENOSPC, DISK_FULL),
    (errno.EDQUOT, DISK_FULL),
    (errno.EIO, LOCAL_TROUBLE),
    (errno.EMFILE, LOCAL_TROUBLE),
    (errno.EACCES, LOCAL_TROUBLE),
    (errno.EROFS, LOCAL_TROUBLE),
    (None, LOCAL_TROUBLE),
]


@implementer(IDelivery)
class FakeDelivery:
    """Writes down what is done with it.  trouble: step -> what it raises.  way: how it answers."""

    def __init__(
        self, trouble: dict[str, Exception] | None = None, way: str = "plain", reply: Reply | None = None
    ) -> None:
        self.trouble = trouble or {}
        self.way = way
        self.reply = reply
        self.done: list[str] = []
        self.text = b""

    def _step(self, name: str, result: Any = None) -> Any:
        self.done.append(name)
        error = self.trouble.get(name)
        if self.way == "coroutine":
            return self._coroutine(error, result)
        if self.way == "deferred":
            return succeed(result) if error is None else fail(error)
        if error is not None:
            raise error
        return result

    async def _coroutine(self, error: Exception | None, result: Any) -> Any:
        if error is not None:
            raise error
        return result

    def write(self, block: bytes) -> Any:
        self.text += block
        return self._step("write")

    def prepare(self) -> Any:
        return self._step("prepare")

    def commit(self) -> Any:
        return self._step("commit", self.reply)

    def abort(self) -> None:
        self.done.append("abort")
        if "abort" in self.trouble:
            raise self.trouble["abort"]


class WaitingDelivery(FakeDelivery):
    """Its write ends when the test says so."""

    def write(self, block: bytes) -> Any:
        self.waiting: Deferred[None] = Deferred()
        return self.waiting


async def run(transaction: Transaction, *blocks: bytes) -> Any:
    """What the server does."""
    try:
        for block in blocks:
            written = transaction.write(block)
            if written is not None:
                await written
        await asked(transaction.prepare)
        return await asked(transaction.commit)
    except Exception:
        transaction.abort()
        raise


class TransactionTests(SynchronousTestCase):
    def wait(self, answer: Awaitable[Any]) -> Any:
        return self.successResultOf(ensureDeferred(answer))  # type: ignore[arg-type]

    def refused(self, answer: Awaitable[Any]) -> Reply:
        return self.failureResultOf(ensureDeferred(answer), Refusal).value.reply  # type: ignore[arg-type]

    def test_it_and_its_fake_parts_are_deliveries(self) -> None:
        verifyObject(IDelivery, Transaction([], ACCEPTED))
        verifyObject(IDelivery, FakeDelivery())

    def test_all_deliveries_get_the_text_and_both_phases(self) -> None:
        for way in ("plain", "deferred", "coroutine"):
            deliveries = [FakeDelivery(way=way), FakeDelivery(way=way)]
            self.assertEqual(self.wait(run(Transaction(deliveries, ACCEPTED), b"a", b"b")), ACCEPTED)
            for delivery in deliveries:
                self.assertEqual(
                    (delivery.text, delivery.done), (b"ab", ["write", "write", "prepare", "commit"]), way
                )

    def test_all_are_prepared_before_one_is_committed(self) -> None:
        first, second = FakeDelivery(), FakeDelivery({"prepare": OSError(errno.EIO, "x")})
        self.refused(run(Transaction([first, second], ACCEPTED), b"a"))
        self.assertNotIn("commit", first.done + second.done)

    def test_the_last_reply_of_a_delivery_is_the_answer(self) -> None:
        one, other = Reply(250, "2.0.0", "one"), Reply(250, "2.0.0", "other")
        for first, second, answer in [
            (None, None, ACCEPTED),
            (one, None, one),
            (None, other, other),
            (one, other, other),
        ]:
            deliveries = [FakeDelivery(reply=first), FakeDelivery(reply=second)]
            self.assertEqual(self.wait(run(Transaction(deliveries, ACCEPTED))), answer)

    def test_trouble_at_any_step_of_any_delivery_is_told_and_all_are_aborted(self) -> None:
        for step in ("write", "prepare", "commit"):
            for way in ("plain", "deferred", "coroutine"):
                for number, reply in ERRORS:
                    for place in (0, 1):
                        error = OSError(number, "trouble") if number is not None else OSError("trouble")
                        deliveries = [FakeDelivery(way=way), FakeDelivery(way=way)]
                        deliveries[place].trouble = {step: error}
                        told = self.refused(run(Transaction(deliveries, ACCEPTED), b"a"))
                        what = f"{step} {way} {number} {place}"
                        self.assertEqual(told, reply, what)
                        self.assertEqual([delivery.done[-1] for delivery in deliveries], ["abort", "abort"], what)

    def test_a_refusal_passes_as_it_is(self) -> None:
        for way in ("plain", "deferred", "coroutine"):
            for step in ("write", "prepare", "commit"):
                delivery = FakeDelivery({step: Refusal(MAILBOX_FULL)}, way)
                self.assertEqual(
                    self.refused(run(Transaction([delivery], ACCEPTED), b"a")), MAILBOX_FULL, f"{way} {step}"
                )

    def test_the_cause_is_kept_for_the_log(self) -> None:
        error = OSError(errno.EIO, "trouble")
        transaction = Transaction([FakeDelivery({"prepare": error}, "deferred")], ACCEPTED)
        refusal = self.failureResultOf(asked(transaction.prepare), Refusal).value
        self.assertIs(refusal.__cause__, error)

    def test_other_mistakes_are_not_hidden(self) -> None:
        for way in ("plain", "deferred", "coroutine"):
            transaction = Transaction([FakeDelivery({"prepare": ZeroDivisionError()}, way)], ACCEPTED)
            self.failureResultOf(asked(transaction.prepare), ZeroDivisionError)

    def test_reply_for_tells_full_disks_from_other_trouble(self) -> None:
        for number, reply in ERRORS:
            self.assertEqual(reply_for(OSError(number, "x") if number is not None else OSError()), reply)


class WriteTests(SynchronousTestCase):
    def test_a_write_that_nobody_waits_for_is_done_at_once(self) -> None:
        self.assertIsNone(Transaction([FakeDelivery(), FakeDelivery()], ACCEPTED).write(b"a"))
        self.assertIsNone(Transaction([], ACCEPTED).write(b"a"))

    def test_a_write_waits_for_all(self) -> None:
        slow, slower, quick = WaitingDelivery(), WaitingDelivery(), FakeDelivery()
        written = Transaction([slow, quick, slower], ACCEPTED).write(b"a")
        assert written is not None
        result: Deferred[None] = ensureDeferred(written)  # type: ignore[arg-type]
        self.assertEqual(quick.text, b"a")
        slower.waiting.callback(None)
        self.assertNoResult(result)
        slow.waiting.callback(None)
        self.successResultOf(result)

    def test_a_write_that_fails_at_once_raises_at_once(self) -> None:
        transaction = Transaction([FakeDelivery({"write": OSError(errno.ENOSPC, "x")})], ACCEPTED)
        with self.assertRaises(Refusal) as caught:
            transaction.write(b"a")
        self.assertEqual(caught.exception.reply, DISK_FULL)

    def test_those_that_have_begun_are_waited_for_when_another_fails(self) -> None:
        slow, broken = WaitingDelivery(), FakeDelivery({"write": OSError(errno.ENOSPC, "x")})
        written = Transaction([slow, broken], ACCEPTED).write(b"a")
        assert written is not None
        result: Deferred[None] = ensureDeferred(written)  # type: ignore[arg-type]
        self.assertNoResult(result)
        slow.waiting.callback(None)
        self.assertEqual(self.failureResultOf(result, Refusal).value.reply, DISK_FULL)

    def test_when_several_fail_the_first_is_told_and_none_is_left_unheard(self) -> None:
        first, second = WaitingDelivery(), WaitingDelivery()
        written = Transaction([first, second], ACCEPTED).write(b"a")
        assert written is not None
        result: Deferred[None] = ensureDeferred(written)  # type: ignore[arg-type]
        second.waiting.errback(OSError(errno.EIO, "x"))
        first.waiting.errback(OSError(errno.ENOSPC, "x"))
        self.assertEqual(self.failureResultOf(result, Refusal).value.reply, DISK_FULL)
        self.assertEqual(self.flushLoggedErrors(), [])


class AbortTests(SynchronousTestCase):
    def test_it_can_be_aborted_at_any_time_and_twice(self) -> None:
        delivery = FakeDelivery()
        transaction = Transaction([delivery], ACCEPTED)
        transaction.abort()
        transaction.abort()
        self.assertEqual(delivery.done, ["abort", "abort"])

    def test_one_that_cannot_be_aborted_does_not_keep_the_others_from_it(self) -> None:
        broken, other = FakeDelivery({"abort": ZeroDivisionError()}), FakeDelivery()
        Transaction([broken, other], ACCEPTED).abort()
        self.assertEqual(other.done, ["abort"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class PartialDelivery(FakeDelivery):
    """Some of its mailboxes are full."""

    def __init__(self, *full: str, damaged: Sequence[str] = (), **options: Any) -> None:
        super().__init__(**options)
        self.full = full
        self.damaged = damaged
        self.taken_back: list[str] = []
        self.refused: dict[Path, Refusal] = {}
        self.left_out: list[str] = []

    def prepare(self) -> Any:
        self.refused = {Path(name): Refusal(MAILBOX_FULL) for name in self.full}
        return super().prepare()

    def commit(self) -> Any:
        self.refused |= {Path(name): Refusal(LOCAL_TROUBLE) for name in self.damaged}
        return super().commit()

    def take_back(self, path: Path, refusal: Refusal) -> None:
        self.taken_back.append(path.name)
        self.refused[path] = refusal

    def leave_out(self, path: Path, refusal: Refusal) -> None:
        self.left_out.append(path.name)
        self.refused[path] = refusal


class EachRecipientTests(SynchronousTestCase):
    """LMTP: each recipient hears what became of the message for them, and only for them."""

    def ends(self, full: Sequence[str], *routes: str, way: str = "plain") -> tuple[list[int], list[str]]:
        """The codes for the recipients of these routes ("ab": to the mailboxes a and b), and who was left out."""
        inner = PartialDelivery(*full, way=way)
        owner = parse_address("x@example.org")
        locals_ = [[Local(Path(name), owner) for name in route] for route in routes]
        each = EachRecipient(inner, locals_, ACCEPTED)
        replies = self.successResultOf(ensureDeferred(run(Transaction([each], ACCEPTED), b"text")))
        self.assertEqual((inner.text, inner.done), (b"text", ["write", "prepare", "commit"]))
        return [reply.code for reply in replies], inner.left_out

    def test_it_is_a_delivery(self) -> None:
        verifyObject(IDelivery, EachRecipient(PartialDelivery(), [], ACCEPTED))

    def test_each_recipient_has_a_reply_in_order(self) -> None:
        for full, routes, codes in [
            ("", ("a", "b"), [250, 250]),
            ("a", ("a", "b"), [452, 250]),
            ("b", ("a", "b", "c"), [250, 452, 250]),
            ("a", ("a", "b", "a"), [452, 250, 452]),
            ("", ("a", "a"), [250, 250]),
        ]:
            for way in ("plain", "deferred", "coroutine"):
                self.assertEqual(self.ends(full, *routes, way=way), (codes, []), (full, routes))

    def test_a_recipient_of_several_mailboxes_gets_it_in_all_or_in_none(self) -> None:
        """What was delivered for a recipient who is refused would come twice."""
        for full, routes, codes, left_out in [
            ("a", ("ab", "c"), [452, 250], ["b"]),
            ("a", ("ab", "b"), [452, 250], []),
            ("a", ("ab", "bc", "d"), [452, 250, 250], []),
            ("ad", ("ab", "bd", "c"), [452, 452, 250], ["b"]),
        ]:
            self.assertEqual(self.ends(full, *routes), (codes, left_out), (full, routes))

    def test_what_was_refused_before_is_refused_for_itself(self) -> None:
        seen = Reply(554, "5.4.6", "Loop")
        for full, routes, codes, left_out in [
            ("", ("a", "b"), [554, 250], ["a"]),
            ("a", ("a", "b"), [452, 250], []),
            ("", ("ac", "b", "c"), [554, 250, 250], ["a"]),
            ("", ("ac", "b"), [554, 250], ["a", "c"]),
        ]:
            inner = PartialDelivery(*full)
            owner = parse_address("x@example.org")
            each = EachRecipient(inner, [[Local(Path(name), owner) for name in route] for route in routes], ACCEPTED)
            each.refuse(Path("a"), Refusal(seen))
            replies = self.successResultOf(ensureDeferred(run(Transaction([each], ACCEPTED), b"text")))
            self.assertEqual(([reply.code for reply in replies], inner.left_out), (codes, left_out), (full, routes))

    def test_what_is_found_damaged_at_the_end_is_refused_and_taken_back_where_it_would_double(self) -> None:
        for damaged, routes, codes, taken_back in [
            ("a", ("a", "b"), [451, 250], []),
            ("a", ("ab", "c"), [451, 250], ["b"]),
            ("a", ("ab", "b"), [451, 250], []),
            ("a", ("ab",), [451], ["b"]),
        ]:
            inner = PartialDelivery(damaged=damaged)
            owner = parse_address("x@example.org")
            each = EachRecipient(inner, [[Local(Path(name), owner) for name in route] for route in routes], ACCEPTED)
            replies = self.successResultOf(ensureDeferred(run(Transaction([each], ACCEPTED), b"text")))
            self.assertEqual(([reply.code for reply in replies], inner.taken_back), (codes, taken_back), routes)

    def test_with_real_mailboxes_a_damaged_one_is_answered_for_itself(self) -> None:
        root = Path(self.mktemp())
        (root / "a").mkdir(parents=True)
        (root / "a" / "new").write_bytes(b"")
        names = UniqueNames("h", 1, lambda: 1.5)
        durable = Durable(run_in_thread=execute, unique_name=names.next)
        store = MaildirStore(durable, names, Quotas(run_in_thread=execute, seconds=lambda: 0.0))
        targets = [Target(root / name, 0, b"A: 1\r\n") for name in "abc"]
        owner = parse_address("x@example.org")
        routes = [[Local(root / name, owner) for name in route] for route in ("a", "c", "ab")]
        each = EachRecipient(store.deliver(targets, partial=True), routes, ACCEPTED)
        replies = self.successResultOf(ensureDeferred(run(Transaction([each], ACCEPTED), b"text\r\n")))
        self.assertEqual([reply.code for reply in replies], [451, 250, 451])
        self.assertEqual([path.parent.parent.name for path in root.glob("*/new/*")], ["c"])
        self.assertEqual(list(root.glob("*/tmp/*")), [])

    def test_when_nobody_is_left_all_is_refused(self) -> None:
        for full, routes in [("a", ("ab", "ac")), ("ab", ("ac", "bc"))]:
            inner = PartialDelivery(*full)
            owner = parse_address("x@example.org")
            locals_ = [[Local(Path(name), owner) for name in route] for route in routes]
            each = EachRecipient(inner, locals_, ACCEPTED)
            refusal = self.failureResultOf(ensureDeferred(run(Transaction([each], ACCEPTED))), Refusal).value
            self.assertEqual(refusal.reply, MAILBOX_FULL)
            self.assertEqual(inner.done, ["prepare", "abort"])

    def test_trouble_with_the_disk_is_told(self) -> None:
        for step in ("prepare", "commit"):
            inner = PartialDelivery(trouble={step: OSError(errno.ENOSPC, "x")})
            transaction = Transaction(
                [EachRecipient(inner, [[Local(Path("a"), parse_address("x@y"))]], ACCEPTED)], ACCEPTED
            )
            refusal = self.failureResultOf(ensureDeferred(run(transaction)), Refusal).value
            self.assertEqual((refusal.reply, inner.done[-1]), (DISK_FULL, "abort"))
