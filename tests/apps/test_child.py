"""The process of an isolated app, its own side: what it begins with, what it answers, how it ends."""

from __future__ import annotations

import os
import select
import threading
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import EventLoggingObserver
from twisted.logger import Logger, LogLevel, globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from mailserver.apps import child as child_module
from mailserver.apps.app import App
from mailserver.apps.child import FAILED, Child, ToldLog, _server_line, _watch
from mailserver.apps.crossing import SessionNews, pack, unpack_answer
from mailserver.apps.view import AppAddress, Session
from mailserver.children import line_of
from mailserver.envelope import Peer
from mailserver.smtp.session import SMTPSession
from tests.apps.line import at_once
from tests.smtp.driver import settings

NAME = f"{__name__}:Tells"


class Tells(App):
    """What a callback does is what its name says."""

    class Options(BaseModel):
        fail: str = ""

    told: ClassVar[list[Any]] = []

    @classmethod
    def setup(cls, options: Any) -> str:
        cls.told.append("setup")
        if options.fail == "setup":
            raise KeyError("setup")
        if options.fail == "exit":
            raise SystemExit(3)
        return f"shared {options.fail}"

    @classmethod
    def teardown(cls, shared: str) -> Any:
        cls.told.append(("teardown", shared))
        if "teardown" in shared:
            raise KeyError("teardown")
        return Deferred() if "hang" in shared else None

    def connected(self) -> str:
        return f"{self.name} {self.shared} {self.session.id} {self.session.peer_host}"

    def verify(self, address: AppAddress) -> Any:
        self.refuse(550, "5.1.1", address.detail)

    async def command(self, verb: str, argument: str) -> Any:
        if verb == "XCANCELLED":
            raise CancelledError
        if verb == "XEXIT":
            raise SystemExit(None if argument == "" else int(argument) if argument.isdecimal() else argument)
        if verb == "XSTUBBORN":
            try:
                await Deferred()
            except CancelledError:
                await Deferred()
        return await Deferred()

    def error(self, kind: str, detail: str) -> None:
        self.session.end(detail)


class ChildCase(SynchronousTestCase):
    def setUp(self) -> None:
        Tells.told.clear()
        self.events = EventLoggingObserver.createWithCleanup(self, globalLogPublisher)
        self.said: list[dict[str, Any]] = []
        self.over: list[int] = []
        self.child = Child(Clock(), at_once, lambda message: self.said.append(dict(message)), self.over.append)

    def hears(self, **message: Any) -> None:
        self.child.heard(line_of(message))

    def begin(self, fail: str = "", **others: Any) -> None:
        self.hears(
            **{
                "say": "begin",
                "name": "tells",
                "source": NAME,
                "folder": os.fspath(Path.cwd()),
                "module": __name__,
                "options": pack({"fail": fail} if fail else {}),
                "threaded": False,
                **others,
            }
        )

    def call(self, callback: str, *arguments: Any, conn: int = 1, number: int = 7) -> list[dict[str, Any]]:
        """What it says to that."""
        self.said.clear()
        session = Session(SMTPSession(settings(), Peer("192.0.2.1"), new_id=lambda: "t"), id=f"c{conn}")
        news = SessionNews().since(session)
        packed = [pack(each) for each in arguments]
        self.hears(say="call", id=number, conn=conn, callback=callback, arguments=packed, session=news)
        return self.said


class BeginTests(ChildCase):
    def test_it_sets_the_app_up_and_says_so(self) -> None:
        self.begin("a bit")
        self.assertEqual((Tells.told, self.said), (["setup"], [{"say": "up"}]))
        (answer,) = self.call("connected")
        self.assertEqual(answer, {"say": "answer", "id": 7, "value": "tells shared a bit c1 192.0.2.1"})

    def test_in_threads_when_that_is_asked_for(self) -> None:
        self.begin(threaded=True)
        self.assertEqual(self.call("connected")[0]["value"], "tells shared  c1 192.0.2.1")

    def cannot_begin(self, error: str, fail: str = "", **begin: Any) -> None:
        """It says that it fails with this, and ends."""
        self.begin(fail, **begin)
        (told,) = self.said
        self.assertEqual((told["say"], told["what"], self.over), ("failed", "the start", [FAILED]))
        self.assertTrue(told["error"].startswith(error), told["error"])
        self.assertIn("Traceback", told["traceback"])
        self.child.leave()
        self.assertNotIn("teardown", str(Tells.told), "what was not set up is not torn down")

    def test_a_module_that_is_not_there(self) -> None:
        self.cannot_begin("AppError: ", source="no.such.module:X")

    def test_options_that_are_none(self) -> None:
        self.cannot_begin("AppError: ", options=pack({"fail": [1]}))

    def test_a_setup_that_fails_or_exits(self) -> None:
        self.cannot_begin("KeyError: 'setup'", "setup")
        self.setUp()
        self.cannot_begin("SystemExit: 3", "exit")

    def test_a_file_that_is_not_what_the_server_has_read_is_told(self) -> None:
        self.begin(module="another")
        self.assertEqual([each["event"] for each in self.events], ["app-changed"])


class AnswerTests(ChildCase):
    def setUp(self) -> None:
        super().setUp()
        self.begin()

    def test_a_refusal(self) -> None:
        (answer,) = self.call("verify", AppAddress("t+why", "example.org"))
        refusal = unpack_answer(answer["refused"], None)
        self.assertEqual((refusal.reply.code, refusal.reply.text), (550, "why"))

    def test_objects_live_as_long_as_their_connections(self) -> None:
        self.call("connected")
        (first,) = self.child._objects.values()
        self.call("connected")
        self.assertIs(self.child._objects[1], first)
        self.assertIn(" c2 ", self.call("connected", conn=2)[0]["value"])
        self.hears(say="over", conn=1)
        self.hears(say="over", conn=77)
        self.assertEqual(list(self.child._objects), [2])

    def test_a_session_is_ended_by_the_server(self) -> None:
        self.assertEqual(self.call("error", "command", "enough")[0], {"say": "end", "conn": 1, "reason": "enough"})

    def test_what_is_cancelled_says_so(self) -> None:
        self.assertEqual(self.call("command", "XWAIT", ""), [])
        self.hears(say="cancel", id=7)
        self.hears(say="cancel", id=7)
        self.assertEqual(self.said, [{"say": "answer", "id": 7, "cancelled": True}])
        self.assertEqual((self.child._calls, self.child._cancelled), ({}, set()))

    def test_what_cancels_itself_has_failed(self) -> None:
        (answer,) = self.call("command", "XCANCELLED", "")
        self.assertEqual(answer["failed"]["error"], "CancelledError")

    def test_what_does_not_want_to_be_cancelled_says_nothing(self) -> None:
        self.call("command", "XSTUBBORN", "")
        self.hears(say="cancel", id=7)
        self.assertEqual(self.said, [])

    def test_a_message_that_is_gone_is_a_mistake_and_no_end(self) -> None:
        self.said.clear()
        gone = {"=": "message", "path": "/nowhere/message-x.eml", "trace": ""}
        self.hears(say="call", id=8, conn=1, callback="message", arguments=[None, gone], session={})
        self.assertIn("FileNotFoundError", self.said[0]["failed"]["error"])

    def test_an_app_that_exits_ends_the_process_with_its_status_and_no_answer(self) -> None:
        for argument, status in (("", 0), ("5", 5), ("because", 1)):
            self.setUp()
            self.assertEqual(self.call("command", "XEXIT", argument), [])
            self.assertEqual((self.over, Tells.told[-1]), ([status], ("teardown", "shared ")))


class EndTests(ChildCase):
    def test_told_to_leave_it_tears_down_once(self) -> None:
        self.begin()
        self.hears(say="leave")
        self.hears(say="leave")
        self.successResultOf(self.child.leave())
        self.assertEqual((Tells.told, self.over), (["setup", ("teardown", "shared ")], [0]))

    def test_without_a_server_it_leaves_too(self) -> None:
        self.begin()
        line = _server_line(self.child)
        line.dataReceived(line_of({"say": "over", "conn": 1}))
        self.assertEqual(self.over, [])
        line.connectionLost()
        self.assertEqual(self.over, [0])

    def test_a_teardown_that_fails_is_told_and_does_not_keep_it(self) -> None:
        self.begin("teardown")
        self.said.clear()
        self.hears(say="leave")
        self.assertEqual((self.said[0]["what"], self.said[0]["error"]), ("teardown", "KeyError: 'teardown'"))
        self.assertEqual(self.over, [0])

    def test_it_waits_for_teardown(self) -> None:
        self.begin("hang")
        self.assertNoResult(self.child.leave())
        self.assertEqual(self.over, [])

    def test_when_the_pipe_ends_the_process_does_whatever_it_is_doing(self) -> None:
        # `_watch` is a thread's, which goes on while the code of the app blocks.
        told: list[int] = []
        self.patch(child_module.os, "_exit", told.append)
        self.patch(child_module, "ORPHAN_TIME", 0)
        reader, writer = os.pipe()
        self.addCleanup(os.close, reader)
        os.write(writer, b"what nobody reads")
        watch = threading.Thread(target=_watch, args=(reader,))
        pipe = select.poll()
        pipe.register(reader, 0)
        self.assertEqual(pipe.poll(0), [], "it has not ended")
        watch.start()
        self.assertEqual(told, [])
        os.close(writer)
        watch.join()
        self.assertEqual(told, [FAILED])


class LogTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.said: list[dict[str, Any]] = []
        self.log = Logger(
            namespace="tickets",
            observer=ToldLog(lambda message: self.said.append(dict(message)), lambda call, told: call(told)),
        )

    def test_what_is_logged_is_told_to_the_server(self) -> None:
        self.log.emit(LogLevel.warn, "{a} of {b}", a=1, b="x" * 10_000, event="count")
        self.log.debug("nothing for the server")
        (told,) = self.said
        self.assertEqual(
            (told["say"], told["level"], told["event"], len(told["text"])), ("log", "warn", "count", 8192)
        )

    def test_a_failure_has_its_traceback(self) -> None:
        try:
            raise KeyError("x")
        except KeyError:
            self.log.failure("oh")
        (told,) = self.said
        self.assertEqual((told["text"], told["error"]), ("oh", "KeyError: 'x'"))
        self.assertIn("raise KeyError", told["traceback"])

    def test_remarks_of_twisted_are_left_out_and_its_errors_are_not(self) -> None:
        legacy = Logger(namespace="log_legacy", observer=self.log.observer)
        legacy.emit(LogLevel.info, "Starting factory")
        legacy.emit(LogLevel.critical, "Unhandled error", log_failure=Failure(KeyError("x")))
        self.assertEqual([each["text"] for each in self.said], ["Unhandled error"])
