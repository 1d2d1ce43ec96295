"""`command`: what the program is told, what its end means, what of the options cannot be."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.logger import formatEvent
from twisted.trial.unittest import SynchronousTestCase

from mailserver.address import parse_address
from mailserver.apps import command
from mailserver.apps.command import BEGINS_WITH_DASH, Command, CommandOptions, how_it_ended, reply_to
from mailserver.apps.loading import AppError, check_class, options_of
from mailserver.apps.message import IN_MEMORY, Message
from mailserver.apps.programs import Outcome
from mailserver.envelope import Envelope, Peer, Recipient, TLSInfo
from mailserver.reply import LOCAL_TROUBLE, UNKNOWN_USER, Refusal, Reply
from tests.apps.machines import FakeMachine

TRACE = b"Return-Path: <a@example.com>\r\nReceived: from x\r\n\tby y; date\r\n"
TEXT = b"Subject: hi\r\n\r\nhello\r\n"
PEER = Peer("192.0.2.1", 4711, "client.example.com", TLSInfo("TLSv1.3", "TLS_AES", 256, client_name="c"), "anna")


def envelope(*recipients: str, sender: str = "a@example.com", peer: Peer = PEER) -> Envelope:
    """To these."""
    people = tuple(Recipient(parse_address(each)) for each in recipients or ("run+a=1@example.org",))
    from_ = parse_address(sender) if sender else None
    return Envelope("ID1", from_, people, peer=peer, protocol="ESMTPSA", listener="in")


class CommandCase(SynchronousTestCase):
    def app(self, run: Any = ("/bin/cat",), **options: Any) -> Command:
        self.fake = FakeMachine()
        app = Command()
        app.name = "test"
        app.options = CommandOptions(run=run, **options)
        app.shared = Command.setup(app.options, self.fake.machine)
        return app

    def deliver(self, app: Command, given: Envelope | None = None, message: Message | None = None) -> Deferred[Any]:
        message = message or Message.of(TEXT, TRACE)
        return ensureDeferred(app.message(given or envelope(), message))

    def refusal(self, done: Deferred[Any]) -> Reply:
        return self.failureResultOf(done, Refusal).value.reply


class ToldTests(CommandCase):
    def test_placeholders_are_filled_and_never_become_several_arguments(self) -> None:
        template = ["/bin/echo", "{sender}", "-f{recipient}", "{local}|{user}|{detail}|{domain}", "{id} {helo}"]
        template += ["{client}", "{identity}", "{listener}", "{size}", "{arg.A}", "{{x}}"]
        peer = Peer("192.0.2.1", 25, "two words; $(x)", None, "anna")
        self.deliver(self.app(template, arguments=True), envelope("run+a=1%202@example.org", peer=peer))
        (call,) = self.fake.reactor.spawned
        program = [os.fsencode(os.path.realpath("/bin/echo")), b"/bin/echo"]
        self.assertIn(call["arguments"][1], program)
        self.assertEqual(
            call["arguments"][2:],
            [
                b"a@example.com",
                b"-frun+a=1%202@example.org",
                b"run+a=1%202|run|a=1%202|example.org",
                b"ID1 two words; $(x)",
                b"192.0.2.1",
                b"anna",
                b"in",
                str(len(TEXT)).encode(),
                b"1 2",
                b"{x}",
            ],
        )

    def test_the_environment_is_clean_and_tells_the_envelope(self) -> None:
        self.patch(os, "environ", {**os.environ, "SECRET_OF_THE_SERVER": "x"})
        self.deliver(self.app(environment={"MORE": "grün", "LANG": "de"}, arguments=True))
        (call,) = self.fake.reactor.spawned
        env = {name.decode(): value.decode() for name, value in call["env"].items()}
        self.assertEqual(
            env,
            {
                "PATH": command.PATH,
                "LANG": "de",
                "MORE": "grün",
                "SENDER": "a@example.com",
                "RECIPIENT": "run+a=1@example.org",
                "RECIPIENTS": "run+a=1@example.org",
                "LOCAL": "run+a=1",
                "MAILBOX": "run",
                "EXTENSION": "a=1",
                "DOMAIN": "example.org",
                "MESSAGE_ID": "ID1",
                "SIZE": str(len(TEXT)),
                "CLIENT_ADDRESS": "192.0.2.1",
                "CLIENT_PORT": "4711",
                "CLIENT_HELO": "client.example.com",
                "CLIENT_PROTOCOL": "ESMTPSA",
                "SASL_USERNAME": "anna",
                "TLS_PROTOCOL": "TLSv1.3",
                "TLS_CIPHER": "TLS_AES",
                "TLS_CLIENT_NAME": "c",
                "LISTENER": "in",
                "ARG_A": "1",
            },
        )

    def test_an_argument_that_would_become_an_option_is_refused(self) -> None:
        for given in (envelope("-oX@example.org"), envelope("b@example.org", sender="-x@example.com")):
            app = self.app(["/bin/echo", "{recipient}", "{sender}"])
            self.assertEqual(self.refusal(self.deliver(app, given)), BEGINS_WITH_DASH)
            self.assertEqual(self.fake.reactor.spawned, [])
        # Behind something else it is none.
        self.deliver(self.app(["/bin/echo", "to={recipient}"]), envelope("-oX@example.org"))
        self.assertEqual(len(self.fake.reactor.spawned), 1)

    def test_the_null_sender_is_an_empty_text(self) -> None:
        self.deliver(self.app(["/bin/echo", "{sender}"]), envelope(sender=""))
        (call,) = self.fake.reactor.spawned
        self.assertEqual((call["arguments"][2], call["env"][b"SENDER"]), (b"", b""))

    def test_all_recipients_together(self) -> None:
        done = self.deliver(self.app(each="message"), envelope("b@example.org", "c@example.org"))
        (call,) = self.fake.reactor.spawned
        self.assertEqual(call["env"][b"RECIPIENTS"], b"b@example.org\nc@example.org")
        self.assertNotIn(b"RECIPIENT", call["env"])
        self.fake.last.exits(0)
        self.assertIsNone(self.successResultOf(done))


class StdinTests(CommandCase):
    def read(self, message: Message | None = None, given: Envelope | None = None, **options: Any) -> bytes:
        self.deliver(self.app(**options), given, message)
        return self.fake.last.read()

    def test_trace_fields_stand_on_top_with_delivered_to(self) -> None:
        self.assertEqual(
            self.read(),
            b"Return-Path: <a@example.com>\nDelivered-To: run+a=1@example.org\nReceived: from x\n\tby y; date\n"
            b"Subject: hi\n\nhello\n",
        )

    def test_delivered_to_is_not_added_twice_nor_for_several(self) -> None:
        message = Message.of(TEXT, b"Return-Path: <>\r\nDelivered-To: b@example.org\r\n")
        self.assertEqual(self.read(message).count(b"Delivered-To"), 1)
        several = envelope("b@example.org", "c@example.org")
        self.assertNotIn(b"Delivered-To", self.read(None, several, each="message"))

    def test_the_message_alone_and_its_own_line_ends(self) -> None:
        self.assertEqual(self.read(header="none", line_endings="crlf"), TEXT)

    def test_the_line_of_an_mbox(self) -> None:
        self.assertRegex(
            self.read(header="mbox"), rb"\AFrom a@example\.com \w{3} \w{3} .\d \d\d:\d\d:\d\d \d{4}\nRet"
        )
        bounce = self.read(None, envelope(sender=""), header="mbox")
        self.assertTrue(bounce.startswith(b"From MAILER-DAEMON "))

    def test_line_ends_that_are_cut_between_blocks(self) -> None:
        body = b"ab\r\n" * (IN_MEMORY // 2) + b"\r"
        message = Message(lambda: Path(self.mktemp_dir()))
        message.write(body)
        self.addCleanup(message.close)
        self.assertEqual(self.read(message, header="none"), body[:-1].replace(b"\r\n", b"\n") + b"\r")
        cut = command._with_lf(iter([b"a\r", b"\nb\r", b"c\r\n", b"\r", b"\r", b"\n"]))
        self.assertEqual(b"".join(cut), b"a\nb\rc\n\r\n")

    def mktemp_dir(self) -> str:
        name = self.mktemp()
        os.mkdir(name)
        return name


class AnswerTests(CommandCase):
    def outcome(self, status: int | None = 0, **more: Any) -> Outcome:
        return Outcome(status=status, **more)

    def test_statuses(self) -> None:
        options = CommandOptions(run="x")
        expected = {
            0: None, 99: None,
            65: (554, "5.6.0"), 67: (550, "5.1.1"), 68: (550, "5.1.2"), 69: (554, "5.3.0"), 76: (554, "5.5.0"),
            77: (550, "5.7.1"), 100: (554, "5.3.0"),
        }  # fmt: skip
        for status in range(256):
            reply = reply_to(self.outcome(status), options)
            got = reply and (reply.code, reply.enhanced)
            self.assertEqual(got, expected.get(status, (451, "4.3.0")), status)

    def test_what_ended_otherwise_is_tried_again(self) -> None:
        options = CommandOptions(run="x", refuse_on=frozenset({1}))
        for outcome in (
            self.outcome(None, signal=9),
            self.outcome(67, timed_out=True),
            self.outcome(0, trouble="the message cannot be read"),
            self.outcome(0, timed_out=True),
        ):
            self.assertEqual(reply_to(outcome, options), LOCAL_TROUBLE)

    def test_further_statuses_refuse_for_good(self) -> None:
        options = CommandOptions(run="x", refuse_on=frozenset({1, 75, 99, 67}))
        for status, code in ((1, 554), (75, 554), (99, 554), (67, 550), (2, 451)):
            reply = reply_to(self.outcome(status), options)
            self.assertEqual(reply and reply.code, code, status)

    def test_output_is_told_only_where_it_may(self) -> None:
        said = self.outcome(67, stdout=b"\n  gone \x07since May\nmore\n", stderr=b"trace")
        self.assertEqual(reply_to(said, CommandOptions(run="x")), UNKNOWN_USER)
        told = reply_to(said, CommandOptions(run="x", tell_output=True))
        self.assertEqual(told, Reply(550, "5.1.1", "gone ?since May"))

    def test_an_enhanced_code_in_the_output_counts_more_than_the_status(self) -> None:
        options = CommandOptions(run="x", tell_output=True)
        for line, status, expected in (
            (b"5.7.1 not you", 75, Reply(554, "5.7.1", "not you")),
            (b"4.2.2: full", 67, Reply(451, "4.2.2", "full")),
            (b"5.1.6 moved", 67, Reply(550, "5.1.6", "moved")),
            (b"2.0.0 fine", 67, Reply(550, "5.1.1", "2.0.0 fine")),
        ):
            self.assertEqual(reply_to(self.outcome(status, stdout=line), options), expected)

    def test_how_it_ended_in_words(self) -> None:
        for outcome, words in (
            (self.outcome(3), "ended with status 3"),
            (self.outcome(None, signal=9), "ended by signal 9"),
            (self.outcome(None, timed_out=True), "took too long and was ended"),
            (self.outcome(None, trouble="cannot be started"), "cannot be started"),
        ):
            self.assertEqual(how_it_ended(outcome), words)


class DeliverTests(CommandCase):
    def test_status_0_is_a_yes_and_67_a_no(self) -> None:
        done = self.deliver(app := self.app(tell_output=True))
        self.fake.last.prints(b"ticket 42\n")
        self.fake.last.exits(0)
        self.assertEqual(self.successResultOf(done), "ticket 42")
        done = self.deliver(app)
        self.fake.last.exits(67)
        self.assertEqual(self.refusal(done), UNKNOWN_USER)
        self.assertEqual(app.shared.running, set())

    def test_each_recipient_has_a_run_and_an_answer_of_its_own(self) -> None:
        done = self.deliver(self.app(), envelope("b@example.org", "c@example.org"))
        for process, status in zip(self.fake.reactor.processes, (0, 77), strict=True):
            process.exits(status)
        answers = {str(address): answer for address, answer in self.successResultOf(done).items()}
        self.assertIsNone(answers["b@example.org"])
        self.assertEqual(answers["c@example.org"].reply.enhanced, "5.7.1")

    def test_no_more_run_at_once_than_may(self) -> None:
        app = self.app(concurrency=1, waiting=0)
        done = self.deliver(app, envelope("b@example.org", "c@example.org"))
        self.assertEqual(len(self.fake.reactor.processes), 1)
        self.assertEqual(self.refusal(self.deliver(app)).enhanced, "4.3.2")
        self.fake.last.exits(0)
        self.assertEqual(len(self.fake.reactor.processes), 2)
        self.fake.last.exits(0)
        self.assertEqual(len(self.successResultOf(done)), 2)

    def test_a_cancelled_run_keeps_its_place_until_it_is_gone(self) -> None:
        app = self.app(concurrency=1)
        self.deliver(app).addErrback(lambda _: None).cancel()
        first = self.fake.last
        self.deliver(app)
        self.assertEqual(len(self.fake.reactor.processes), 1)
        first.exits(None, 15)
        self.assertEqual(len(self.fake.reactor.processes), 2)

    def test_a_program_that_is_not_there_is_a_451_and_loud(self) -> None:
        loud: list[dict[str, Any]] = []
        app = self.app(["/nonexistent/program"])
        app.log = Command.log.__class__(observer=loud.append)
        self.assertEqual(self.refusal(self.deliver(app)), LOCAL_TROUBLE)
        self.assertEqual([(each["event"], each["log_level"].name) for each in loud], [("command-missing", "error")])

    def test_what_it_has_printed_is_in_the_log(self) -> None:
        told: list[dict[str, Any]] = []
        app = self.app()
        app.log = Command.log.__class__(observer=told.append)
        self.deliver(app).addErrback(lambda _: None)
        self.fake.last.prints(b"out\n", b"err \xff\n")
        self.fake.last.exits(1)
        (event,) = told
        self.assertEqual((event["stdout"], event["stderr"], event["status"]), ("out", "err \\xff", 1))
        self.assertEqual((event["app"], event["log_level"].name), ("test", "error"))
        self.assertIn(r"; stdout: 'out'; stderr: 'err \\xff'", formatEvent(event))

    def test_the_end_of_the_process_ends_what_runs(self) -> None:
        app = self.app()
        done = self.deliver(app)
        Command.teardown(app.shared)
        self.assertEqual([name for _pid, name in self.fake.groups], ["SIGTERM"])
        self.fake.last.exits(0)
        self.assertEqual(self.refusal(done), LOCAL_TROUBLE)

    def test_bad_arguments_in_the_address_start_nothing(self) -> None:
        refused = self.refusal(self.deliver(self.app(arguments=True), envelope("run+a=%@example.org")))
        self.assertEqual((refused.code, self.fake.reactor.spawned), (553, []))


class OptionsTests(CommandCase):
    def test_a_text_is_split_and_quotes_keep_blanks(self) -> None:
        self.assertEqual(CommandOptions(run="/bin/x 'a b' {user}").run, ("/bin/x", "a b", "{user}"))

    def test_what_cannot_be(self) -> None:
        for bad in (
            {"run": []},
            {"run": ""},
            {"run": "'open"},
            {"run": ["{user}"]},
            {"run": ["-x"]},
            {"run": ["/bin/x", "{other}"]},
            {"run": ["/bin/x", "{user!r}"]},
            {"run": ["/bin/x", "{user:>9}"]},
            {"run": ["/bin/x", "{"]},
            {"run": ["/bin/x", "{}"]},
            {"run": ["/bin/x", "{arg.a}"]},
            {"run": ["/bin/x", "{arg.a-b}"], "arguments": True},
            {"run": ["/bin/x", "a\0b"]},
            {"run": ["/bin/x", "{user}"], "each": "message"},
            {"run": ["/bin/x", "{arg.a}"], "each": "message", "arguments": True},
            {"run": "x", "environment": {"A=B": "1"}},
            {"run": "x", "environment": {"A": "\0"}},
            {"run": "x", "group": "users"},
            {"run": "x", "timeout": 0},
            {"run": "x", "refuse_on": [0]},
            {"run": "x", "shell": True},
        ):
            self.assertRaises(ValidationError, CommandOptions, **bad)

    def test_it_is_an_app_and_relative_paths_start_at_the_configuration(self) -> None:
        check_class(Command)
        options = options_of(Command, {"run": ["scripts/x", "a/b"], "folder": "spool"}, Path("/etc/mailserver"))
        self.assertEqual(options.run, ("/etc/mailserver/scripts/x", "a/b"))
        self.assertEqual(options.folder, "/etc/mailserver/spool")
        self.assertEqual(options_of(Command, {"run": "procmail"}, Path("/etc")).run, ("procmail",))

    def test_a_user_that_nobody_is_is_a_problem_of_the_configuration(self) -> None:
        for given in ({"user": "nobody-here"}, {"user": "root", "group": "nobody-here"}):
            error = self.assertRaises(AppError, options_of, Command, {"run": "x", **given}, Path("/etc"))
            self.assertIn("nobody-here", str(error))
        self.assertEqual(options_of(Command, {"run": "x", "user": "root"}, Path("/etc")).user, "root")

    def test_secrets_of_the_environment_are_not_shown(self) -> None:
        self.assertNotIn("hunter2", repr(CommandOptions(run="x", environment={"PASSWORD": "hunter2"})))


class SetupTests(CommandCase):
    def test_a_folder_that_is_none_is_told_at_once(self) -> None:
        error = self.assertRaises(ValueError, self.app, folder="/nonexistent")
        self.assertIn("/nonexistent", str(error))

    def test_users_that_do_not_exist_are_told_at_once(self) -> None:
        self.assertIn("nobody-here", str(self.assertRaises(ValueError, self.app, user="nobody-here")))
        self.assertRaises(ValueError, self.app, user="root", group="nobody-here")

    def test_only_root_runs_programs_as_another(self) -> None:
        self.patch(os, "geteuid", lambda: 0)
        app = self.app(user="daemon")
        owner = app.shared.owner
        assert owner is not None
        self.deliver(app)
        (call,) = self.fake.reactor.spawned
        self.assertEqual((call["uid"], call["gid"], call["env"][b"USER"]), (owner.uid, owner.gid, b"daemon"))
        self.assertNotEqual(owner.uid, 0)
        self.patch(os, "geteuid", lambda: 54321)
        self.assertIn("only root", str(self.assertRaises(ValueError, self.app, user="daemon")))
        self.patch(os, "geteuid", lambda: owner.uid)
        self.patch(os, "getegid", lambda: owner.gid)
        self.assertIsNone(self.app(user="daemon").shared.owner)
