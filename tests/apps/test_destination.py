"""A message past filters, apps and what lies behind: one reply that is true, and nothing half done without a word."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from mailserver.apps.app import App, Changes
from mailserver.apps.destination import changed, field_of
from mailserver.apps.message import IN_MEMORY, Message
from mailserver.reply import Refusal, Reply
from tests.apps.line import DATA, EHLO, MAIL, RCPT, AppLine, lmtp, settings_of
from tests.smtp.test_server import LogCase

FULL = Reply(452, "4.2.2", "full")
NEVER = Reply(550, "5.7.1", "never")


class Says(App):
    """Answers with what stands in `said` for its name."""

    said: dict[str, Any] = {}

    def message(self, envelope: Any, message: Any) -> Any:
        answer = self.said.get(self.name)
        if isinstance(answer, Exception):
            raise answer
        return answer


def says(name: str) -> Any:
    return settings_of(Says, name=name, recipients=(f"{name}@example.org",))


def rcpts(names: str) -> list[bytes]:
    return [b"RCPT TO:<%s@example.org>" % name.encode() for name in names.split()]


class AnswerTests(LogCase):
    def line(self, names: str, said: dict[str, Any], **others: Any) -> AppLine:
        Says.said = said
        line = AppLine(says("x"), says("y"), **others)
        hello = b"LHLO client" if line.server.session.settings.lmtp else EHLO
        return line.say(hello, MAIL, *rcpts(names), DATA).say(b"hi", b".")

    def test_none_a_text_and_a_reply_are_a_yes(self) -> None:
        self.assertRegex(self.line("x", {}).last, r"^250 2\.0\.0 Ok: queued as [a-z2-7]{8}$")
        self.assertEqual(self.line("x", {"x": "taken"}).last, "250 2.0.0 taken")
        self.assertEqual(self.line("x", {"x": Reply(251, "2.1.5", "on")}).last, "251 2.1.5 on")

    def test_a_refusal_is_told_verbatim(self) -> None:
        self.assertEqual(self.line("x", {"x": Refusal(NEVER)}).last, "550 5.7.1 never")
        self.assertEqual(self.line("x", {"x": NEVER}).last, "550 5.7.1 never")

    def test_an_app_that_fails_is_temporary_and_named_in_the_log(self) -> None:
        line = self.line("x", {"x": KeyError("mine")})
        self.assertTrue(line.last.startswith("451 4.3.0"))
        (event,) = self.named("app-failed")
        self.assertEqual((event["app"], event["callback"]), ("x", "message"))
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)
        line.say(EHLO, MAIL)
        self.assertTrue(line.last.startswith("250"), "the connection goes on")

    def test_nonsense_is_temporary(self) -> None:
        for nonsense in (7, True, {"x@example.org": 7}, {"z@example.org": None}, {7: None}, [None]):
            line = self.line("x", {"x": nonsense})
            self.assertTrue(line.last.startswith("451"), nonsense)
        self.assertEqual(len(self.named("app-failed")), 6)

    def test_a_refusal_for_one_is_a_no_for_all_and_the_mailbox_gets_nothing(self) -> None:
        line = self.line("x b", {"x": Refusal(NEVER)})
        self.assertEqual(line.last, "550 5.7.1 never")
        self.assertEqual(line.delivery.done[-1], "abort")
        self.assertNotIn("commit", line.delivery.done)

    def test_who_is_refused_for_a_while_makes_all_be_sent_again(self) -> None:
        line = self.line("x y b", {"x": Refusal(NEVER), "y": Refusal(FULL)})
        self.assertEqual(line.last, "452 4.2.2 full")
        self.assertNotIn("commit", line.delivery.done)

    def test_that_an_app_has_it_already_is_told_to_the_operator(self) -> None:
        self.line("x y", {"y": Refusal(NEVER)})
        (event,) = self.named("app-half-done")
        self.assertEqual(event["recipients"], ["x@example.org"])

    def test_the_mailboxes_come_last(self) -> None:
        order: list[str] = []

        class Orders(App):
            def message(self, envelope: Any, message: Any) -> str:
                order.append("app")
                return "the app says so"

        line = AppLine(settings_of(Orders, recipients=("x@*",)))
        line.steps["commit"] = None
        line.say(EHLO, MAIL, *rcpts("b x"), DATA).say(b"hi", b".")
        self.assertEqual((order, line.delivery.done), (["app"], ["write", "prepare", "commit"]))
        self.assertEqual(line.last, "250 2.0.0 the app says so")

    def test_a_mailbox_that_cannot_be_written_refuses_all(self) -> None:
        line = self.line("x b", {}, steps={"commit": OSError(errno.EIO, "broken")})
        self.assertTrue(line.last.startswith("451"))
        self.flushLoggedErrors(OSError)

    def test_a_mailbox_that_cannot_be_prepared_keeps_the_app_from_it(self) -> None:
        asked: list[Any] = []

        class Asked(App):
            def message(self, envelope: Any, message: Any) -> None:
                asked.append(envelope)

        line = AppLine(settings_of(Asked, recipients=("x@*",)), steps={"prepare": Refusal(FULL)})
        line.say(EHLO, MAIL, *rcpts("x b"), DATA).say(b"hi", b".")
        self.assertEqual((line.last, asked), ("452 4.2.2 full", []))

    def test_by_lmtp_each_has_its_own(self) -> None:
        line = self.line("x b y", {"x": Refusal(NEVER), "y": {"y@example.org": Refusal(FULL)}}, settings=lmtp())
        self.assertEqual(line.codes, "220 250 250 250 250 250 354 550 250 452")
        self.assertIn("commit", line.delivery.done)

    def test_by_lmtp_a_mailbox_that_fails_does_not_touch_the_apps(self) -> None:
        line = self.line("x b", {}, settings=lmtp(), steps={"commit": Refusal(FULL)})
        self.assertEqual(line.codes, "220 250 250 250 250 354 250 452")

    def test_by_lmtp_who_is_named_twice_has_the_same_answer_twice(self) -> None:
        line = self.line("x x", {"x": {"x@example.org": Refusal(NEVER)}}, settings=lmtp())
        self.assertEqual(line.codes, "220 250 250 250 250 354 550 550")

    def test_two_recipients_that_an_app_has_made_one_have_its_answer(self) -> None:
        class One(App):
            def rcpt(self, recipient: Any, parameters: Any) -> str:
                return "list@example.org"

            def message(self, envelope: Any, message: Any) -> Any:
                return {"list@example.org": Refusal(NEVER)}

        line = AppLine(One, settings=lmtp()).say(b"LHLO client", MAIL, *rcpts("x y"), DATA).say(b"hi", b".")
        self.assertEqual(line.codes, "220 250 250 250 250 354 550 550")

    def test_a_recipient_is_the_same_however_its_domain_is_written(self) -> None:
        line = self.line("x", {"x": {"x@EXAMPLE.ORG": Refusal(NEVER)}})
        self.assertEqual(line.last, "550 5.7.1 never")

    def test_by_lmtp_a_mailbox_with_a_broken_disk_does_not_touch_the_apps(self) -> None:
        line = self.line("x b", {}, settings=lmtp(), steps={"commit": OSError(errno.ENOSPC, "full")})
        self.assertEqual(line.codes, "220 250 250 250 250 354 250 452")
        (event,) = self.named("trouble")
        self.assertEqual(event["error"], "[Errno 28] full")

    def test_that_the_mailbox_failed_after_an_app_is_told_to_the_operator(self) -> None:
        self.line("x b", {}, steps={"commit": Refusal(FULL)})
        (event,) = self.named("app-half-done")
        self.assertEqual(event["recipients"], ["x@example.org"])

    def test_a_full_disk_is_told_as_one_and_is_no_mistake_of_the_app(self) -> None:
        line = AppLine(Says)
        line.folder = Path(self.mktemp())
        line.folder.mkdir()
        line.say(EHLO, MAIL, RCPT, DATA)
        line.say(b"\r\n".join([b"x" * 70] * 1000))

        def full(_message: Message) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        self.patch(Message, "flush", full)
        line.say(b".")
        self.assertTrue(line.last.startswith("452 4.3.1"), line.last)
        self.assertEqual(self.named("app-failed"), [])

    def test_a_message_that_was_given_up_while_a_filter_judged_is_not_taken(self) -> None:
        taken: list[Any] = []

        class Ends(App):
            def filter(self, envelope: Any, message: Any) -> Changes:
                self.session.end("had enough")
                return Changes(add=[("X-A", "1")])

            def message(self, envelope: Any, message: Any) -> None:
                taken.append(message.size)

        line = AppLine(Ends).say(EHLO, MAIL, RCPT, DATA).say(b"hi", b".")
        self.assertTrue(line.last.startswith("421"), line.last)
        self.assertEqual(taken, [])

    def test_an_app_that_takes_its_time(self) -> None:
        waits: Deferred[str] = Deferred()
        line = self.line("x", {"x": waits})
        self.assertTrue(line.last.startswith("354"))
        waits.callback("at last")
        self.assertEqual(line.last, "250 2.0.0 at last")

    def test_a_large_message_is_streamed_and_its_file_is_gone(self) -> None:
        read: list[int] = []

        class Reads(App):
            async def message(self, envelope: Any, message: Any) -> None:
                async for block in message.blocks():
                    read.append(len(block))
                read.append(-1 if message.path.exists() else -2)
                self.path.append(message.path)

            path: list[Any] = []

        line = AppLine(Reads)
        line.folder = Path(self.mktemp())
        line.folder.mkdir()
        line.say(EHLO, MAIL, RCPT, DATA)
        for _ in range(10):
            line.say(b"\r\n".join([b"x" * 70] * 1000))
        line.say(b".")
        self.assertTrue(line.last.startswith("250"), line.last)
        self.assertGreater(sum(read), 2 * IN_MEMORY)
        self.assertLessEqual(max(read), 64 * 1024)
        self.assertEqual(read[-1], -1)
        self.assertFalse(Reads.path[0].exists())

    def test_a_client_that_goes_away_leaves_nothing(self) -> None:
        line = AppLine(Says)
        line.folder = Path(self.mktemp())
        line.folder.mkdir()
        line.say(EHLO, MAIL, RCPT, DATA)
        for _ in range(10):
            line.say(b"\r\n".join([b"x" * 70] * 1000))
        self.assertEqual(len(list(line.folder.iterdir())), 1)
        line.lose()
        self.assertEqual(list(line.folder.iterdir()), [])


class FilterTests(LogCase):
    def filtered(self, answer: Any, **others: Any) -> AppLine:
        class Filters(App):
            def filter(self, envelope: Any, message: Any) -> Any:
                if isinstance(answer, Exception):
                    raise answer
                return answer

        line = AppLine(Filters, **others).say(EHLO, MAIL, RCPT, DATA)
        return line.say(b"Subject: a", b"X-Spam: no", b" really", b"", b"body", b".")

    def test_nothing_to_change(self) -> None:
        self.assertEqual(self.filtered(None).delivery.text, b"Subject: a\r\nX-Spam: no\r\n really\r\n\r\nbody\r\n")

    def test_fields_are_added_on_top_and_others_removed(self) -> None:
        line = self.filtered(Changes(add=[("X-Score", "5"), ("X-By", "me")], remove=["x-spam"]))
        self.assertEqual(line.delivery.text, b"X-Score: 5\r\nX-By: me\r\nSubject: a\r\n\r\nbody\r\n")

    def test_a_whole_field_is_added_as_it_is(self) -> None:
        self.assertTrue(self.filtered(Changes(add=[b"X: " + b"1" * 995 + b"\r\n"])).last.startswith("250"))
        field = b"DKIM-Signature: v=1;\r\n\tb=abc\r\n def\r\n"
        self.assertTrue(self.filtered(Changes(add=[field])).delivery.text.startswith(field + b"Subject: a\r\n"))

    def test_another_message(self) -> None:
        line = self.filtered(b"Subject: b\r\n\r\nother\r\n")
        self.assertEqual(line.delivery.text, b"Subject: b\r\n\r\nother\r\n")

    def large(self) -> AppLine:
        """A message of 3 MiB has just ended, and a filter adds a field to it."""

        class Adds(App):
            def filter(self, envelope: Any, message: Any) -> Changes:
                return Changes(add=[("X-A", "1")])

        line = AppLine(Adds)
        line.folder = Path(self.mktemp())
        line.folder.mkdir()
        line.say(EHLO, MAIL, RCPT, DATA, b"Subject: a", b"")
        for _ in range(40):
            line.say(self.ROW)
        return line.say(b".")

    ROW = b"\r\n".join([b"x" * 78] * 1_000)

    def test_a_large_message_is_changed_and_passed_on_in_turns(self) -> None:
        line = self.large()
        self.assertTrue(line.last.startswith("354"), "others have the reactor first")
        self.assertNotIn("commit", line.delivery.done)
        line.clock.advance(0)
        self.assertTrue(line.last.startswith("250"))
        self.assertEqual(line.delivery.text, b"X-A: 1\r\nSubject: a\r\n\r\n" + (self.ROW + b"\r\n") * 40)
        self.assertEqual(list(line.folder.iterdir()), [])

    def test_a_client_that_goes_away_in_between_leaves_nothing(self) -> None:
        line = self.large()
        line.lose()
        line.clock.advance(0)
        self.assertEqual(list(line.folder.iterdir()), [])
        self.assertEqual(line.delivery.done[-1], "abort")
        self.assertEqual(line.clock.getDelayedCalls(), [])

    def test_a_refusal_reaches_the_client_and_nothing_is_delivered(self) -> None:
        line = self.filtered(Refusal(Reply(554, "5.7.1", "spam")))
        self.assertEqual(line.last, "554 5.7.1 spam")
        self.assertEqual(line.delivery.done, ["abort"])

    def test_nonsense_is_temporary(self) -> None:
        for nonsense in (
            7,
            Changes(add=[("X\r\nY", "1")]),
            Changes(add=[("X", "1\r\nEvil: 2")]),
            Changes(add=[b"X: 1\r\nEvil: 2\r\n"]),
            Changes(add=[b"X: 1\r\n \r\n"]),
            Changes(add=[b"X: 1"]),
            Changes(add=[b"X: " + b"1" * 996 + b"\r\n"]),
            Changes(remove="Subject"),
            Changes(remove=[b"Subject"]),  # type: ignore[list-item]
            Changes(add=[("X", 5)]),  # type: ignore[list-item]
            Changes(message="Subject: x"),  # type: ignore[arg-type]
        ):
            self.assertTrue(self.filtered(nonsense).last.startswith("451"), nonsense)
            self.assertEqual(self.named("app-failed")[-1]["callback"], "filter", nonsense)
            self.assertEqual(self.flushLoggedErrors(), [])

    def test_one_after_the_other_and_then_the_app_that_takes_it(self) -> None:
        class Adds(App):
            def filter(self, envelope: Any, message: Any) -> Changes:
                return Changes(add=[("X-Seen", self.name)])

        taken: list[bytes] = []

        class Takes(App):
            def message(self, envelope: Any, message: Any) -> None:
                taken.append(message.read())

        line = AppLine(settings_of(Adds, name="one"), settings_of(Adds, name="two"), Takes)
        line.say(EHLO, MAIL, RCPT, DATA).say(b"Subject: a", b"", b".")
        self.assertEqual(taken, [b"X-Seen: two\r\nX-Seen: one\r\nSubject: a\r\n\r\n"])

    def test_a_filter_is_for_the_recipients_that_it_matches(self) -> None:
        class Refuses(App):
            def filter(self, envelope: Any, message: Any) -> None:
                self.refuse(554, "5.7.1", "never")

        line = AppLine(settings_of(Refuses, recipients=("z@example.org",))).say(EHLO, MAIL, RCPT, DATA).say(b".")
        self.assertTrue(line.last.startswith("250"))


class ChangedTests(SynchronousTestCase):
    def test_another_message_may_be_one_in_a_file_which_is_used_up(self) -> None:
        path = Path(self.mktemp())
        path.write_bytes(b"Subject: new\r\n\r\nx\r\n")
        before = Message.of(b"Subject: old\r\n\r\n")
        changes = Changes(add=[("X-A", "1")], remove=["Subject"], message=Message.taken(path))
        self.assertEqual(changed(before, changes).read(), b"X-A: 1\r\n\r\nx\r\n")
        self.assertFalse(path.exists())
        self.assertEqual(changed(before, Changes(message=before)).read(), before.read())

    def text(self, before: bytes, changes: Any) -> bytes:
        return changed(Message.of(before), changes).read()

    def test_a_message_without_a_header_gets_one(self) -> None:
        add = Changes(add=[("X-A", "1")])
        self.assertEqual(self.text(b"\r\nbody\r\n", add), b"X-A: 1\r\n\r\nbody\r\n")
        self.assertEqual(self.text(b"Subject: a\r\n", add), b"X-A: 1\r\nSubject: a\r\n")
        self.assertEqual(self.text(b"", add), b"X-A: 1\r\n")

    def test_a_text_that_is_no_header_stays_apart_from_the_fields(self) -> None:
        self.assertEqual(self.text(b"hello\r\n", Changes(add=[("X-A", "1")])), b"X-A: 1\r\n\r\nhello\r\n")

    def test_a_large_body_goes_through(self) -> None:
        body = b"x" * 998 + b"\r\n"
        text = self.text(b"Subject: a\r\n\r\n" + body * 1000, Changes(remove=["subject"]))
        self.assertEqual(text, b"\r\n" + body * 1000)

    @given(st.text(max_size=300), st.sampled_from(["X-A", "Subject", "X" * 70]))
    def test_a_value_is_one_field_whatever_it_holds(self, value: str, name: str) -> None:
        try:
            field = field_of(name, value)
        except ValueError:
            return
        self.assertTrue(field.isascii())
        self.assertTrue(field.endswith(b"\r\n"))
        for line in field.split(b"\r\n")[1:-1]:
            self.assertIn(line[:1], (b" ", b"\t"))
        self.assertNotIn(b"\n", field.replace(b"\r\n", b""))
        self.assertNotIn(b"\r", field.replace(b"\r\n", b""))
