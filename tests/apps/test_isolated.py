"""Apps with a process of their own, the server's side: what is asked, what dies, and what is started again."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel
from twisted.internet.defer import CancelledError, Deferred, ensureDeferred
from twisted.internet.testing import EventLoggingObserver
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from mailserver import reply as replies
from mailserver.address import Address
from mailserver.apps.app import App, Changes, CramProof, Disconnect, Login
from mailserver.apps.calling import Broken
from mailserver.apps.crossing import FROM_PARENT, MOST_SAID, MOST_TEXT, TO_PARENT, pack_answer
from mailserver.apps.house import AppHouse
from mailserver.apps.installed import AppSettings, InstalledApp, Instance
from mailserver.apps.isolated import KILL_AFTER, START_TIME, ChildError, IsolatedApp
from mailserver.apps.loading import AppError
from mailserver.apps.message import Message
from mailserver.apps.view import AppAddress, Session
from mailserver.children import FIRST_DELAY, NOT_INHERITED
from mailserver.envelope import NO_PARAMETERS, Envelope, Peer, Recipient
from mailserver.reply import Refusal, Reply
from mailserver.smtp.session import SMTPSession
from tests.apps.line import Calls, at_once, settings_of
from tests.apps.processes import FakeProcess, SpawningClock
from tests.smtp.driver import settings

TIMEOUT = 10.0
ANNA = AppAddress("t+4", "example.org")


class Remembers(App):
    """Every callback; what it knows stands on the object."""

    class Options(BaseModel):
        word: str = ""

    told: ClassVar[list[Any]] = []
    waiting: ClassVar[list[Deferred[Any]]] = []

    @classmethod
    async def setup(cls, options: Any) -> dict[str, Any]:
        cls.told.append(("setup", options.word))
        return {"word": options.word}

    @classmethod
    def teardown(cls, shared: Any) -> None:
        cls.told.append(("teardown", shared))

    def connected(self) -> str:
        self.seen = ["connected"]
        return f"{self.name} {self.session.peer_host} {self.shared['word']}"

    def helo(self, name: str, extensions: dict[str, str | None]) -> None:
        self.seen.append(name)
        del extensions["DSN"]
        extensions["XNEW"] = "1"

    def authenticate(self, login: Login) -> bool:
        return login.check("secret")

    async def mail(self, sender: Address | None, parameters: Any) -> Any:
        if sender is None:
            return None
        return await Deferred() if sender.local == "hang" else f"{sender.local}@example.net"

    def rcpt(self, recipient: AppAddress, parameters: Any) -> Any:
        if recipient.detail == "no":
            self.refuse(550, "5.1.1", "no such ticket")
        if recipient.detail == "wait":
            self.waiting.append(Deferred())
            return self.waiting[-1]
        if recipient.detail == "odd":
            return object()
        if recipient.detail == "bad":
            return Address("a b\r\n", "example.org")
        if recipient.detail == "long":
            return "x" * MOST_SAID
        raise KeyError(recipient.detail)

    def filter(self, envelope: Envelope, message: Message) -> Changes:
        return Changes(add=[("X-Seen", str(message.size))], message=message.read().upper())

    async def message(self, envelope: Envelope, message: Message) -> dict[Any, Any]:
        size = sum([len(block) async for block in message.blocks(3)])
        return {each.address: f"{each.address.detail} {size}" for each in envelope.recipients}

    def verify(self, address: Address) -> Reply:
        raise Disconnect("enough")

    def command(self, verb: str, argument: str) -> str:
        self.session.end("the app wants it")
        return f"{verb} {argument} {self.seen}"

    def disconnected(self, reason: str) -> None:
        self.told.append(reason)


class IsolatedCase(SynchronousTestCase):
    whole = False

    def setUp(self) -> None:
        Remembers.told.clear()
        Remembers.waiting.clear()
        self.events = EventLoggingObserver.createWithCleanup(self, globalLogPublisher)
        self.reactor, self.calls = SpawningClock(whole=self.whole), Observed()
        self.ended: list[str] = []
        self.app = self.installed()

    def installed(self, cls: Any = Remembers, **others: Any) -> IsolatedApp:
        others = {"configured": {"word": "hello"}, "timeout": TIMEOUT, "name": "tickets", **others}
        return IsolatedApp(settings_of(cls, isolated=True, **others), self.reactor, at_once, self.calls)

    @property
    def process(self) -> FakeProcess:
        return self.reactor.process

    def connection(self) -> tuple[Instance, SMTPSession]:
        conversation = SMTPSession(settings(), Peer("192.0.2.1"), new_id=lambda: "t")
        session = Session(conversation, id="c", end=self.ended.append)
        return self.app.instance(session), conversation

    def named(self, event: str) -> list[dict[str, Any]]:
        return [each for each in self.events if each.get("event") == event]

    def broken(self, call: Deferred[Any]) -> str:
        """It failed with 451, and the log has it already."""
        refusal = self.failureResultOf(call, Broken).value
        self.assertEqual(refusal.reply, replies.LOCAL_TROUBLE)
        return str(refusal.detail)


class Observed(Calls):
    def __init__(self) -> None:
        super().__init__()
        self.restarts: list[str] = []

    def app_restarted(self, app: str) -> None:
        self.restarts.append(app)


class WholeTests(IsolatedCase):
    """With the child's side in this process."""

    whole = True

    def setUp(self) -> None:
        super().setUp()
        self.app.start()
        self.instance, self.conversation = self.connection()

    def call(self, callback: str, *arguments: Any) -> Any:
        return self.successResultOf(self.instance.call(callback, *arguments))

    def test_what_all_connections_share_is_made_there(self) -> None:
        self.assertEqual((Remembers.told, self.app.shared), ([("setup", "hello")], None))
        self.assertEqual(self.call("connected"), "tickets 192.0.2.1 hello")

    def test_state_is_kept_between_callbacks_and_for_each_connection(self) -> None:
        other, _ = self.connection()
        self.successResultOf(other.call("connected"))
        self.call("connected")
        self.call("helo", "client.example.net", {"DSN": None})
        self.assertEqual(self.call("command", "XPING", "x"), "XPING x ['connected', 'client.example.net']")
        self.assertEqual(self.successResultOf(other.call("command", "XPING", "x")), "XPING x ['connected']")

    def test_extensions_may_be_changed_in_place(self) -> None:
        self.call("connected")
        extensions: dict[str, str | None] = {"SIZE": "5", "DSN": None}
        self.assertIsNone(self.call("helo", "client.example.net", extensions))
        self.assertEqual(extensions, {"SIZE": "5", "XNEW": "1"})

    def test_a_login_is_checked_there(self) -> None:
        proof = CramProof(b"<1@x>", "8b1e7b01e3a1a4a2a4d1ee5d3a1d3c1a")
        self.assertFalse(self.call("authenticate", Login("CRAM-MD5", "anna", _digest_of=proof)))
        self.assertTrue(self.call("authenticate", Login("PLAIN", "anna", password="secret")))

    def test_an_address_in_return(self) -> None:
        self.assertEqual(self.call("mail", Address("a", "example.com"), NO_PARAMETERS), "a@example.net")

    def test_a_refusal_and_a_wish_to_disconnect_come_back(self) -> None:
        no = self.failureResultOf(self.instance.call("rcpt", AppAddress("t+no", "example.org"), {}), Refusal).value
        self.assertEqual(no.reply, Reply(550, "5.1.1", "no such ticket"))
        wish = self.failureResultOf(self.instance.call("verify", ANNA), Disconnect).value
        self.assertEqual(str(wish), "enough")
        self.assertEqual([outcome for *_, outcome in self.calls.seen], ["refused", "ok"])

    def test_a_message_that_finds_no_room_for_its_file_is_no_mistake_of_the_app(self) -> None:
        def full() -> Path:
            raise OSError(errno.ENOSPC, "No space left on device")

        message = Message(full)
        message.write(b"hello")
        no = self.failureResultOf(self.instance.call("message", Envelope("t", ANNA, ()), message), Refusal).value
        self.assertEqual(no.reply, replies.DISK_FULL)
        self.assertEqual(self.named("app-failed"), [])

    def test_a_mistake_is_a_451_with_the_traceback_of_the_other_side(self) -> None:
        self.broken(self.instance.call("rcpt", ANNA, {}))
        (failure,) = self.flushLoggedErrors(ChildError)
        self.assertEqual(str(failure.value), "KeyError: '4'")
        self.assertIn("raise KeyError(recipient.detail)", failure.getTraceback())
        (told,) = self.named("app-failed")
        self.assertEqual((told["app"], told["callback"]), ("tickets", "rcpt"))
        self.assertEqual(self.calls.seen, [("tickets", "rcpt", "failed")])

    def test_an_answer_that_cannot_be_given_is_a_mistake(self) -> None:
        for detail, error in (("odd", "TypeError: object is no answer"), ("long", "ValueError: an answer of ")):
            self.broken(self.instance.call("rcpt", AppAddress(f"t+{detail}", "example.org"), {}))
            (failure,) = self.flushLoggedErrors(ChildError)
            self.assertIn(error, str(failure.value))
        self.assertIn(
            "cannot be used", self.broken(self.instance.call("rcpt", AppAddress("t+bad", "example.org"), {}))
        )

    def test_messages_come_and_go_as_files(self) -> None:
        folder = Path(self.mktemp())
        folder.mkdir()
        message = Message(lambda: folder, b"Received: x\r\n")
        self.addCleanup(message.close)
        message.write(b"subject: x\r\n\r\nhello\r\n")
        envelope = Envelope("t", None, (Recipient(ANNA), Recipient(AppAddress("t+5", "example.org"))))
        self.assertEqual(
            self.call("message", envelope, message),
            {Address("t+4", "example.org"): "4 21", Address("t+5", "example.org"): "5 21"},
        )
        changes = self.call("filter", envelope, message)
        self.assertEqual((changes.add, changes.message.read()), ((("X-Seen", "21"),), b"SUBJECT: X\r\n\r\nHELLO\r\n"))
        changes.message.close()
        self.assertEqual([each.name for each in folder.iterdir()], [message.path.name])
        self.assertNotIn("hello", str(self.process.told("call")))

    def test_the_session_can_be_ended_from_there(self) -> None:
        self.call("connected")
        self.call("command", "XPING", "")
        self.assertEqual(self.ended, ["the app wants it"])

    def test_calls_of_two_connections_go_on_side_by_side_those_of_one_do_not(self) -> None:
        other, _ = self.connection()
        slow = AppAddress("t+wait", "example.org")
        first, second = self.instance.call("rcpt", slow, {}), self.instance.call("rcpt", slow, {})
        third = other.call("rcpt", slow, {})
        self.assertEqual(len(Remembers.waiting), 2)
        Remembers.waiting[1].callback("third@example.org")
        self.assertEqual(self.successResultOf(third), "third@example.org")
        self.assertNoResult(first)
        Remembers.waiting[0].callback(None)
        self.assertIsNone(self.successResultOf(first))
        Remembers.waiting[2].callback("second@example.org")
        self.assertEqual(self.successResultOf(second), "second@example.org")

    def test_the_object_is_dropped_with_its_connection(self) -> None:
        self.call("connected")
        assert self.process.child is not None
        self.assertEqual(len(self.process.child._objects), 1)
        self.instance.over("quit")
        self.assertEqual((Remembers.told[-1], self.process.child._objects, self.app._stand_ins), ("quit", {}, {}))
        silent, _ = self.connection()
        silent.over("never spoke")  # `disconnected` makes an object, as it does in the server's own process
        self.assertEqual((self.process.child._objects, self.app._stand_ins), ({}, {}))

    def test_a_call_that_is_cancelled_is_so_there(self) -> None:
        call = self.instance.call("mail", Address("hang", "example.com"), {})
        call.cancel()
        self.failureResultOf(call, CancelledError)
        self.reactor.advance(TIMEOUT)
        self.assertEqual(self.process.signals, [])

    def test_it_closes_what_is_shared_when_it_ends(self) -> None:
        stopped = ensureDeferred(self.app.stop())
        self.successResultOf(stopped)
        self.assertEqual(Remembers.told[-1], ("teardown", {"word": "hello"}))
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.assertEqual(self.reactor.processes[0].told("leave"), [{"say": "leave"}])
        self.assertIn("does not run", self.broken(self.instance.call("connected")))

    def test_a_retired_app_ends_behind_its_last_connection(self) -> None:
        self.app.retire()
        self.assertIsNotNone(self.process.pid)
        self.instance.over("quit")
        self.assertIsNone(self.process.pid)


class StartTests(IsolatedCase):
    def test_what_it_begins_with(self) -> None:
        self.app.start()
        ((args, others),) = self.reactor.spawned
        self.assertEqual(args, [sys.executable, "-P", "-u", "-m", "mailserver.apps.child", "tickets"])
        self.assertEqual(others["env"]["PYTHONPATH"].split(os.pathsep), sys.path)
        self.assertFalse(set(NOT_INHERITED) & set(others["env"]))
        descriptors = others["childFDs"]
        self.assertEqual({number: descriptors[number] for number in (1, 2, FROM_PARENT, TO_PARENT)},
                         {1: "r", 2: "r", FROM_PARENT: "w", TO_PARENT: "r"})  # fmt: skip
        (begin,) = self.process.heard
        self.assertEqual((begin["say"], begin["name"], begin["threaded"]), ("begin", "tickets", False))
        self.assertEqual(begin["source"], "tests.apps.test_isolated:Remembers")

    def test_it_is_started_once(self) -> None:
        for _ in range(2):
            self.app.start()
        self.assertEqual(len(self.reactor.processes), 1)

    def test_who_asks_first_starts_it(self) -> None:
        instance, _ = self.connection()
        instance.call("connected")
        self.assertEqual(len(self.reactor.processes), 1)

    def test_calls_wait_until_it_is_ready_and_keep_their_order(self) -> None:
        self.app.start()
        (one, _), (other, _) = self.connection(), self.connection()
        calls = [one.call("connected"), one.call("verify", ANNA), other.call("connected")]
        ready = ensureDeferred(self.app.ready())
        self.assertEqual(self.process.told("call"), [])
        self.process.says(say="up")
        self.successResultOf(ready)
        asked = self.process.told("call")
        self.assertEqual([each["callback"] for each in asked], ["connected", "connected"])
        self.process.says(say="answer", id=asked[0]["id"], value="hello")
        self.assertEqual(self.successResultOf(calls[0]), "hello")
        self.assertEqual(self.process.told("call")[-1]["callback"], "verify")

    def test_who_does_not_wait_any_more_is_not_asked_for(self) -> None:
        self.app.start()
        instance, _ = self.connection()
        call = instance.call("connected")
        self.reactor.advance(TIMEOUT)
        self.failureResultOf(call, Refusal)
        self.process.says(say="up")
        self.assertEqual(self.process.told("call"), [])

    def test_one_that_is_not_ready_in_time_is_killed(self) -> None:
        self.app.start()
        self.reactor.advance(START_TIME + TIMEOUT - 1)
        self.assertEqual(self.process.signals, [])
        self.reactor.advance(1)
        self.assertEqual(self.process.signals, ["TERM"])
        self.assertEqual(self.named("app-killed")[0]["what"], "is not ready")

    def test_one_that_cannot_begin_says_why(self) -> None:
        self.app.start()
        instance, _ = self.connection()
        call = instance.call("connected")
        self.process.says(
            say="failed", what="the start", error="ImportError: no module x", traceback="File x.py, line 1"
        )
        self.process.ends(1)
        self.broken(call)
        (failure,) = self.flushLoggedErrors(ChildError)
        self.assertEqual(
            (str(failure.value), failure.getTraceback()), ("ImportError: no module x", "File x.py, line 1")
        )
        self.assertEqual(self.named("app-died")[0]["why"], "exit status 1")

    def test_no_process_can_be_had(self) -> None:
        self.reactor.error = OSError(11, "Resource temporarily unavailable")
        self.app.start()
        self.reactor.advance(0)
        (died,) = self.named("app-died")
        self.assertIn("it cannot be started: ", died["why"])
        self.reactor.error = None
        self.reactor.advance(FIRST_DELAY)
        self.process.says(say="up")
        self.successResultOf(ensureDeferred(self.app.ready()))

    def test_nobody_is_started_behind_a_stop(self) -> None:
        self.reactor.error = OSError(11, "Resource temporarily unavailable")
        self.app.start()
        self.successResultOf(ensureDeferred(self.app.stop()))
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_an_app_that_no_other_process_can_import(self) -> None:
        class Local(App):
            def connected(self) -> None:
                pass

        with self.assertRaises(AppError) as raised:
            self.installed(Local)
        self.assertEqual(raised.exception.key, "isolated")
        with self.assertRaises(AppError):
            self.installed(configured=None, options=Remembers.Options())

    def test_the_house_gives_a_process_to_whom_it_belongs(self) -> None:
        house = AppHouse(self.reactor, at_once, self.calls, Path(self.mktemp()))
        wanted = [
            settings_of(Remembers, isolated=True, configured={"word": "x"}, name="a"),
            settings_of(Remembers, name="b", options=Remembers.Options()),
        ]
        house.use(house.installed(wanted))
        self.assertEqual([type(app) for app in house.apps], [IsolatedApp, InstalledApp])
        before = house.apps
        house.startService()
        house.use(house.installed(wanted))
        self.assertEqual((house.apps, len(self.reactor.processes)), (before, 1))
        house.use(house.installed([settings_of(Remembers, isolated=True, configured={"word": "y"}, name="a")]))
        self.assertEqual([len(each.told("leave")) for each in self.reactor.processes], [1, 0])


class TimeTests(IsolatedCase):
    def setUp(self) -> None:
        super().setUp()
        self.app.start()
        self.process.says(say="up")
        self.instance, _ = self.connection()

    def overdue(self) -> int:
        """A call that has taken too long; its id."""
        call = self.instance.call("connected")
        self.reactor.advance(TIMEOUT)
        self.assertEqual(self.failureResultOf(call, Refusal).value.reply, replies.LOCAL_TROUBLE)
        number = self.process.told("call")[-1]["id"]
        self.assertEqual(self.process.told("cancel")[-1]["id"], number)
        return int(number)

    def test_one_that_can_be_cancelled_goes_on(self) -> None:
        number = self.overdue()
        self.reactor.advance(TIMEOUT - 1)
        self.process.says(say="answer", id=number, cancelled=True)
        self.reactor.advance(TIMEOUT)
        self.assertEqual((self.process.signals, self.calls.seen), ([], [("tickets", "connected", "timeout")]))

    def test_one_that_cannot_is_blocked_and_killed(self) -> None:
        self.process.immortal = True
        self.overdue()
        self.reactor.advance(TIMEOUT - 1)
        self.assertEqual(self.process.signals, [])
        self.reactor.advance(1)
        self.assertEqual(self.process.signals, ["TERM"])
        (told,) = self.named("app-killed")
        self.assertEqual((told["app"], told["what"]), ("tickets", "blocks: connected was cancelled and goes on"))
        self.reactor.advance(KILL_AFTER)
        self.assertEqual(self.process.signals[:2], ["TERM", "KILL"])
        self.process.ends(signal=9)
        self.reactor.advance(FIRST_DELAY)
        self.assertEqual(len(self.reactor.processes), 2)

    def test_sigterm_may_be_enough(self) -> None:
        self.overdue()
        self.reactor.advance(TIMEOUT)
        self.process.ends(signal=15)
        self.reactor.advance(FIRST_DELAY)
        self.assertEqual((self.reactor.processes[0].signals, len(self.reactor.processes)), (["TERM"], 2))

    def test_a_late_answer_and_its_file_are_thrown_away(self) -> None:
        folder = Path(self.mktemp())
        folder.mkdir()
        message = Message(lambda: folder)
        self.addCleanup(message.close)
        message.write(b"x\r\n")
        call = self.instance.call("filter", Envelope("t", None), message)
        self.reactor.advance(TIMEOUT)
        self.failureResultOf(call, Refusal)
        number = self.process.told("call")[-1]["id"]
        self.process.says(say="answer", id=number, value=pack_answer(b"another", folder))
        self.process.says(say="answer", id=number, value="and again")
        self.assertEqual([each.name for each in folder.iterdir()], [message.path.name])


class StopTests(IsolatedCase):
    def setUp(self) -> None:
        super().setUp()
        self.app.start()
        self.process.says(say="up")

    def test_one_that_does_not_end_in_time_is_killed(self) -> None:
        stopped = ensureDeferred(self.app.stop())
        again = ensureDeferred(self.app.stop())
        self.assertEqual(len(self.process.told("leave")), 1)
        self.reactor.advance(TIMEOUT)
        self.assertEqual(self.process.signals, ["TERM"])
        self.assertNoResult(stopped)
        self.reactor.advance(KILL_AFTER)
        self.successResultOf(stopped)
        self.successResultOf(again)
        self.assertEqual((self.named("app-died"), self.reactor.getDelayedCalls()), ([], []))

    def test_one_that_blocks_is_not_waited_for(self) -> None:
        instance, _ = self.connection()
        call = instance.call("connected")
        self.reactor.advance(TIMEOUT)
        self.failureResultOf(call, Refusal)
        ensureDeferred(self.app.stop())
        self.assertEqual(self.process.signals, ["TERM"])

    def test_one_that_is_dead_is_not_started_again(self) -> None:
        self.process.ends(1)
        self.successResultOf(ensureDeferred(self.app.stop()))
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_one_that_never_began(self) -> None:
        self.successResultOf(ensureDeferred(self.installed().stop()))

    def test_it_can_be_started_again(self) -> None:
        stopped = ensureDeferred(self.app.stop())
        self.process.ends()
        self.successResultOf(stopped)
        self.app.start()
        self.assertEqual(len(self.reactor.processes), 2)


class LogTests(IsolatedCase):
    def setUp(self) -> None:
        super().setUp()
        self.app.start()
        self.process.says(say="up")

    def test_what_it_writes_is_in_the_log_line_by_line(self) -> None:
        for descriptor, octets in (
            (1, b"one\ntw"),
            (2, b"bad \xff\r\n"),
            (1, b"o\n"),
            (1, b"x" * (MOST_TEXT + 1)),
            (1, b"last"),
        ):
            self.process.protocol.childDataReceived(descriptor, octets)
        self.process.ends(1)
        told = [(each["stream"], each["line"]) for each in self.named("app-output")]
        self.assertEqual(
            told,
            [
                ("stdout", "one"),
                ("stderr", "bad \\xff"),
                ("stdout", "two"),
                ("stdout", "x" * MOST_TEXT),
                ("stdout", "xlast"),
            ],
        )
        self.assertEqual({each["app"] for each in self.named("app-output")}, {"tickets"})

    def test_what_it_logs_is_logged(self) -> None:
        self.process.says(say="log", level="warn", event="ticket", text="no {format} in it")
        self.process.says(
            say="log", level="critical", event="log", text="oh", error="KeyError: 'x'", traceback="File x"
        )
        self.process.says(say="log", level="none", event="log", text="odd")
        (ticket,) = self.named("ticket")
        self.assertEqual((ticket["log_level"].name, ticket["log_namespace"]), ("warn", "mailserver.app.tickets"))
        self.assertEqual((ticket["line"], ticket["log_format"]), ("no {format} in it", "{line}"))
        (failure,) = self.flushLoggedErrors(ChildError)
        self.assertEqual((str(failure.value), failure.getTraceback()), ("KeyError: 'x'", "File x"))

    def test_who_is_gone_cannot_be_ended(self) -> None:
        self.process.says(say="end", conn=77, reason="")
        self.assertEqual((self.ended, self.process.signals), ([], []))


class SettingsTests(SynchronousTestCase):
    def test_options_in_the_configuration_decide_whether_the_child_goes_on(self) -> None:
        one, other = (AppSettings("a", App, configured={"word": word}) for word in "xy")
        self.assertNotEqual(one, other)
