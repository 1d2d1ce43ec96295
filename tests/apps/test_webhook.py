"""`webhook`: the request, what each answer means, and that nothing secret is shown."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from OpenSSL.SSL import Error as TLSError
from pydantic import ValidationError
from service_identity import VerificationError
from treq.testing import RequestTraversalAgent
from twisted.internet.defer import CancelledError, Deferred, ensureDeferred, fail, succeed
from twisted.internet.error import ConnectionLost, DNSLookupError
from twisted.internet.error import ConnectionRefusedError as Refused
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import ResponseNeverReceived
from twisted.web.http import Request
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from mailserver.apps import webhook
from mailserver.apps.loading import AppError, check_class, options_of
from mailserver.apps.message import IN_MEMORY, Message
from mailserver.apps.signing import read_secret, verify_signature
from mailserver.apps.webhook import IN_REACTOR, MAX_ANSWER, Answer, AnswerError, Webhook, WebhookOptions, judged
from mailserver.envelope import Envelope
from mailserver.reply import LOCAL_TROUBLE, Refusal, Reply
from tests.apps.test_common import envelope_to
from tests.certs import write_pair

SECRET, OLD_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_" + "A" * 32
URL = "https://hooks.example.org/mail/path-that-is-secret?token=also-secret"
TEXT = b"Subject: hi\r\n\r\nhello\r\n"
NOW = 1798761600.0
BOTH = envelope_to("b@example.org", "c@example.org").recipients


class Endpoint(Resource):
    """The other side.  answers: a status and a body for each request; None: no answer."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.answers: list[tuple[int, bytes] | None] = []
        self.requests: list[tuple[str, dict[str, str], bytes]] = []

    def render_POST(self, request: Request) -> Any:
        headers = {name.decode().lower(): b",".join(value).decode() for name, value in all_headers(request)}
        self.requests.append((request.uri.decode(), headers, request.content.read()))
        answer = self.answers.pop(0) if self.answers else (200, b"")
        if answer is None:
            return NOT_DONE_YET
        status, body = answer
        request.setResponseCode(status)
        if 300 <= status < 400:
            request.setHeader("Location", "https://elsewhere.example.org/")
        return body


def all_headers(request: Request) -> list[tuple[bytes, list[bytes]]]:
    """Those of a request."""
    return list(request.requestHeaders.getAllRawHeaders())


class Broken:
    """An agent for which every request ends so."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def request(self, *_: Any, **__: Any) -> Deferred[Any]:
        return fail(self.error)


class Threadless(Clock):
    """A clock that starts now."""

    def __init__(self) -> None:
        super().__init__()
        self.rightNow = NOW


class WebhookCase(SynchronousTestCase):
    def app(self, agent: Any = None, **options: Any) -> Webhook:
        self.clock, self.endpoint, self.told = Threadless(), Endpoint(), []
        self.agent = agent or RequestTraversalAgent(self.endpoint)
        app = Webhook()
        app.name = "test"
        app.options = WebhookOptions(**{"url": URL, **options})
        app.shared = Webhook.setup(app.options, self.clock, self.agent)
        app.log = Webhook.log.__class__(observer=self.told.append)
        return app

    def start(self, app: Webhook, envelope: Envelope | None = None, message: Message | None = None) -> Deferred[Any]:
        done = ensureDeferred(app.message(envelope or envelope_to("b@example.org"), message or Message.of(TEXT)))
        self.pump()
        return done

    def pump(self) -> None:
        for _ in range(20):
            self.clock.advance(0)
            if isinstance(self.agent, RequestTraversalAgent):
                self.agent.flush()

    def refusal(self, done: Deferred[Any]) -> Reply:
        return self.failureResultOf(done, Refusal).value.reply


class RequestTests(WebhookCase):
    def test_json_signed_for_who_knows_the_secret(self) -> None:
        app = self.app(secret=SECRET)
        self.assertIsNone(self.successResultOf(self.start(app)))
        ((uri, headers, body),) = self.endpoint.requests
        self.assertEqual(uri, "/mail/path-that-is-secret?token=also-secret")
        self.assertTrue(verify_signature(body, headers, SECRET, now=NOW))
        self.assertEqual((headers["content-type"], headers["content-length"]), ("application/json", str(len(body))))
        self.assertEqual(json.loads(body)["text"], "hello\n")

    def test_without_a_secret_there_is_an_id_and_no_signature(self) -> None:
        self.start(self.app())
        ((_uri, headers, _body),) = self.endpoint.requests
        self.assertTrue(headers["webhook-id"].startswith("msg_"))
        self.assertNotIn("webhook-signature", headers)

    def test_old_secrets_of_the_file_sign_too(self) -> None:
        path = Path(self.mktemp())
        path.write_text(f"{SECRET}\n{OLD_SECRET}\n")
        path.chmod(0o600)
        self.start(self.app(secret_file=path))
        ((_uri, headers, body),) = self.endpoint.requests
        for secret in (SECRET, OLD_SECRET):
            self.assertTrue(verify_signature(body, headers, secret, now=NOW))

    def test_headers_of_the_operator(self) -> None:
        self.start(self.app(headers={"Authorization": "Bearer hunter2"}))
        ((_uri, headers, _body),) = self.endpoint.requests
        self.assertEqual(headers["authorization"], "Bearer hunter2")

    def test_raw(self) -> None:
        self.start(self.app(format="raw", secret=SECRET))
        ((_uri, headers, body),) = self.endpoint.requests
        self.assertEqual((body, headers["content-type"]), (TEXT, "message/rfc822"))
        self.assertEqual(headers["x-envelope-to"], "b@example.org")
        self.assertTrue(verify_signature(body, headers, SECRET, now=NOW))

    def test_form(self) -> None:
        self.start(self.app(format="form"))
        ((_uri, headers, body),) = self.endpoint.requests
        self.assertTrue(headers["content-type"].startswith("multipart/form-data; boundary="))
        self.assertIn(b'name="subject"\r\n\r\nhi\r\n', body)

    def test_arguments_of_the_address(self) -> None:
        self.start(self.app(arguments=True), envelope_to("run+a=1@example.org"))
        self.assertEqual(json.loads(self.endpoint.requests[0][2])["arguments"], {"a": "1"})
        refused = self.refusal(self.start(self.app(arguments=True), envelope_to("run+a=%@example.org")))
        self.assertEqual((refused.code, self.endpoint.requests), (553, []))

    def test_one_request_for_each_recipient_or_for_all(self) -> None:
        self.start(self.app(), envelope_to("b@example.org", "c@example.org"))
        self.assertEqual(len(self.endpoint.requests), 2)
        self.start(self.app(each="message"), envelope_to("b@example.org", "c@example.org"))
        ((_uri, _headers, body),) = self.endpoint.requests
        self.assertEqual(len(json.loads(body)["envelope"]["recipients"]), 2)

    def test_large_messages_are_put_into_their_form_in_a_thread(self) -> None:
        for size, threads in ((IN_REACTOR, 0), (IN_REACTOR + 1, 1), (IN_MEMORY + 1, 1)):
            folder = Path(self.mktemp())
            folder.mkdir()
            message = Message(lambda folder=folder: folder)
            message.write(b"\r\n" + b"x" * (size - 2))
            app = self.app(format="raw")
            calls = []

            def run(function: Any, *arguments: Any, calls: list[Any] = calls) -> Deferred[Any]:
                calls.append(function)
                return succeed(function(*arguments))

            app.shared = webhook.Shared(
                app.shared.slots, self.clock, app.shared.client, (), run, app.shared.cooperator
            )
            self.assertIsNone(self.successResultOf(self.start(app, None, message)))
            self.assertEqual((len(calls), len(self.endpoint.requests[0][2])), (threads, size))
            message.close()


class TroubleTests(WebhookCase):
    def test_trouble_with_the_network_is_a_451_and_in_the_log(self) -> None:
        wrapped = ResponseNeverReceived([Failure(ConnectionLost()), Failure(TLSError([("ssl", "", "why not")]))])
        for error, words in (
            (Refused(), "cannot be reached"),
            (DNSLookupError("hooks.example.org"), "cannot be found"),
            (TLSError([("SSL routines", "", "certificate verify failed")]), "certificate verify failed"),
            (TLSError(), "no TLS"),
            (VerificationError(errors=[]), "another name"),
            (wrapped, "cannot be reached: ConnectionLost; cannot be trusted: why not"),
            (OSError(28, "No space left on device"), "No space left"),
        ):
            app = self.app(Broken(error))
            self.assertEqual(self.refusal(self.start(app)), LOCAL_TROUBLE)
            (event,) = self.told
            self.assertIn(words, event["how"])
            self.assertEqual(event["log_level"].name, "error")

    def test_a_mistake_of_ours_is_not_taken_for_trouble_of_others(self) -> None:
        self.failureResultOf(self.start(self.app(Broken(KeyError("x")))), KeyError)

    def test_who_takes_too_long_is_left(self) -> None:
        app = self.app(timeout=30)
        self.endpoint.answers = [None]
        done = self.start(app)
        self.clock.advance(29.9)
        self.assertNoResult(done)
        self.clock.advance(0.2)
        self.assertEqual(self.refusal(done), LOCAL_TROUBLE)
        self.assertIn("takes too long", self.told[0]["how"])

    def test_cancelling_gives_the_place_back(self) -> None:
        app = self.app(concurrency=1)
        self.endpoint.answers = [None]
        done = self.start(app)
        waiting = self.start(app)
        self.assertEqual(len(self.endpoint.requests), 1)
        done.cancel()
        done.addErrback(lambda failure: failure.trap(CancelledError, Refusal))
        self.successResultOf(done)
        self.pump()
        self.assertIsNone(self.successResultOf(waiting))

    def test_too_many_at_once_are_refused(self) -> None:
        app = self.app(concurrency=1, waiting=0)
        self.endpoint.answers = [None]
        self.start(app).addErrback(lambda _: None)
        self.assertEqual(self.refusal(self.start(app)).enhanced, "4.3.2")

    def test_nothing_secret_is_shown(self) -> None:
        app = self.app(headers={"Authorization": "Bearer hunter2"}, secret=SECRET)
        self.endpoint.answers = [(404, b"")]
        self.start(app).addErrback(lambda _: None)
        for shown in (repr(app.options), str(app.options), str(self.told)):
            for secret in ("hunter2", SECRET, "path-that-is-secret", "also-secret"):
                self.assertNotIn(secret, shown)
        self.assertEqual(self.told[0]["host"], "hooks.example.org")
        self.assertIn("404", self.told[0]["how"])


class AnswerTests(WebhookCase):
    def test_a_text_for_the_250(self) -> None:
        app = self.app()
        self.endpoint.answers = [(201, b'{"reply": "ticket\\n42"}')]
        self.assertEqual(self.successResultOf(self.start(app)), "ticket 42")

    def test_a_redirect_is_not_followed(self) -> None:
        for status in (301, 302, 307, 308):
            app = self.app()
            self.endpoint.answers = [(status, b"")]
            self.assertEqual(self.refusal(self.start(app)), LOCAL_TROUBLE)
            self.assertEqual(len(self.endpoint.requests), 1)
            self.assertIn("redirects are not followed", self.told[0]["how"])

    def test_an_answer_without_end_is_read_up_to_its_bound(self) -> None:
        app = self.app()
        self.endpoint.answers = [(200, b'{"reply": "' + b"x" * MAX_ANSWER)]
        self.assertIsNone(self.successResultOf(self.start(app)))
        app = self.app()
        self.endpoint.answers = [(200, b'{"refuse": true}' + b" " * (MAX_ANSWER - 16))]
        self.assertEqual(self.refusal(self.start(app)), webhook.REFUSED)

    def test_an_answer_that_cannot_be_used_is_a_451_and_in_the_log(self) -> None:
        app = self.app()
        self.endpoint.answers = [(200, b'{"refuse": {"code": 200}}')]
        self.assertEqual(self.refusal(self.start(app)), LOCAL_TROUBLE)
        self.assertIn("cannot be used", self.told[0]["how"])


class JudgedTests(SynchronousTestCase):
    def refused(self, status: int, body: bytes = b"") -> Reply:
        return self.assertRaises(Refusal, judged, Answer(status, body), BOTH).reply

    def test_statuses_without_a_word(self) -> None:
        for status in (200, 201, 202, 204, 299):
            self.assertIsNone(judged(Answer(status, b"whatever"), BOTH))
        for status in (*range(300, 406), *range(407, 600)):
            self.assertEqual(self.refused(status), LOCAL_TROUBLE, status)
        self.assertEqual(self.refused(406), webhook.REFUSED)

    def test_a_refusal_in_so_many_words(self) -> None:
        full = b'{"refuse": {"code": 552, "enhanced": "5.2.2", "text": "full"}}'
        for status in (200, 400, 404, 422):
            self.assertEqual(self.refused(status, full), Reply(552, "5.2.2", "full"))
        self.assertEqual(self.refused(422, b'{"refuse": "gone"}'), Reply(550, "5.7.1", "gone"))
        self.assertEqual(self.refused(422, b'{"refuse": {}}'), webhook.REFUSED)
        self.assertEqual(self.refused(422, b'{"refuse": {"code": 450}}'), Reply(450, "4.7.1", "Message refused"))
        self.assertIsNone(judged(Answer(200, b'{"refuse": false}'), BOTH))

    def test_who_asks_to_try_again_or_is_broken_refuses_nothing_for_good(self) -> None:
        for status in (302, 408, 425, 429, 500, 503):
            self.assertEqual(self.refused(status, b'{"refuse": true}'), LOCAL_TROUBLE)

    def test_what_cannot_be_used(self) -> None:
        for body in (
            b'{"refuse": null}',
            b'{"refuse": 5}',
            b'{"refuse": {"code": "550"}}',
            b'{"refuse": {"code": 250}}',
            b'{"refuse": {"code": 421}}',
            b'{"refuse": {"code": 600}}',
            b'{"refuse": {"enhanced": "4.0.0"}}',
            b'{"refuse": {"enhanced": 5}}',
            b'{"refuse": {"text": 5}}',
            b'{"reply": 5}',
            b'{"recipients": []}',
            b'{"recipients": {"x@example.org": null}}',
            b'{"recipients": {"b@example.org": "no"}}',
        ):
            self.assertRaises(AnswerError, judged, Answer(200, body), BOTH)

    def test_what_is_no_object_says_nothing(self) -> None:
        for body in (b"", b"[]", b"{", b"\xff", b"ok", b'"refuse"', b"{" * 5000, b'{"a":' * 5000):
            self.assertIsNone(judged(Answer(200, body), BOTH), body)

    def test_an_answer_for_each_recipient(self) -> None:
        body = b'{"recipients": {"b@example.org": {"refuse": "gone"}, "c@example.org": {"reply": "yes"}}}'
        answers = judged(Answer(200, body), BOTH)
        assert isinstance(answers, dict)
        self.assertEqual(answers["b@example.org"].reply.text, "gone")
        self.assertEqual(answers["c@example.org"], "yes")
        only = b'{"recipients": {"b@example.org": {}, "c@example.org": null}}'
        self.assertEqual(judged(Answer(200, only), BOTH), {"b@example.org": None, "c@example.org": None})


class OptionsTests(SynchronousTestCase):
    def test_what_cannot_be(self) -> None:
        for bad in (
            {},
            {"url": "ftp://example.org/"},
            {"url": "hooks.example.org"},
            {"url": "https://"},
            {"url": "https://example.org:99999/"},
            {"url": "https://example.org/ x"},
            {"url": "https://example.org/\r\nX: y"},
            {"url": "https://user:hunter2@example.org/"},
            {"url": "https://example.org/#x"},
            {"url": URL, "secret": "hunter2"},
            {"url": URL, "secret": SECRET, "secret_file": "x"},
            {"url": URL, "headers": {"Content-Length": "1"}},
            {"url": URL, "headers": {"Webhook-Id": "1"}},
            {"url": URL, "headers": {"X Y": "hunter2"}},
            {"url": URL, "headers": {"X": "hunter2\r\nY: z"}},
            {"url": URL, "format": "raw", "each": "message"},
            {"url": URL, "format": "xml"},
            {"url": URL, "attachment_limit": "2 TiB"},
            {"url": URL, "timeout": 0},
        ):
            error = self.assertRaises(ValidationError, WebhookOptions, **bad)
            self.assertNotIn("hunter2", str(error))

    def test_it_is_an_app_and_relative_paths_start_at_the_configuration(self) -> None:
        check_class(Webhook)
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        (folder / "hook.secret").touch()
        given = {"url": URL, "secret_file": "hook.secret", "ca": os.fspath(folder / "hook.secret")}
        options = options_of(Webhook, {**given, "attachment_limit": "5 MiB"}, folder)
        self.assertEqual((options.secret_file, options.ca), (folder / "hook.secret", folder / "hook.secret"))
        self.assertEqual(options.attachment_limit, 5 * 2**20)

    def test_a_file_that_is_not_there_is_a_problem_of_the_configuration(self) -> None:
        error = self.assertRaises(AppError, options_of, Webhook, {"url": URL, "ca": "nothing"}, Path("/etc"))
        self.assertEqual((error.key, str(error)), ("options.ca", "there is no file /etc/nothing"))


class SetupTests(SynchronousTestCase):
    def file(self, text: str, mode: int = 0o600) -> Path:
        path = Path(self.mktemp())
        path.write_text(text)
        path.chmod(mode)
        return path

    def test_apps_with_the_same_address_share_their_places(self) -> None:
        clock, agent = Threadless(), Broken(OSError())

        def slots(**options: Any) -> Any:
            return Webhook.setup(WebhookOptions(**{"url": URL, **options}), clock, agent).slots

        first = slots()
        self.assertIs(slots(timeout=3), first)
        self.assertIsNot(slots(url=URL + "/other"), first)
        self.assertIsNot(slots(concurrency=3), first, "a reload that changes the number begins anew")
        self.assertIsNot(self.setup_with().slots, first, "another process has another reactor")

    def setup_with(self, **options: Any) -> webhook.Shared:
        return Webhook.setup(WebhookOptions(url=URL, **options), Threadless(), Broken(OSError()))

    def test_a_secret_file(self) -> None:
        self.assertEqual(self.setup_with(secret_file=self.file(SECRET + "\n")).keys, (read_secret(SECRET),))
        self.assertEqual(self.setup_with().keys, ())

    def test_a_secret_file_that_cannot_be_used(self) -> None:
        for path, words in (
            (self.file(SECRET, 0o604), "chmod 600"),
            (self.file("hunter2"), "whsec_"),
            (self.file("\n"), "empty"),
        ):
            error = self.assertRaises(ValueError, self.setup_with, secret_file=path)
            self.assertIn(words, str(error))
            self.assertIn(os.fspath(path), str(error))
            self.assertNotIn("hunter2", str(error))
        self.assertRaises(FileNotFoundError, self.setup_with, secret_file=Path("/nonexistent"))

    def test_certificates_to_trust(self) -> None:
        directory = Path(self.mktemp())
        directory.mkdir()
        certificate, _key = write_pair(directory, "ca", "hooks.example.org")
        self.setup_with(ca=certificate)
        error = self.assertRaises(ValueError, self.setup_with, ca=self.file("none"))
        self.assertIn("no certificate", str(error))

    def test_connections_that_are_kept_open_are_closed_at_the_end(self) -> None:
        closed = []
        shared = self.setup_with()
        Webhook.teardown(webhook.Shared(shared.slots, shared.clock, None, (), None, None, lambda: closed.append(1)))
        self.assertEqual(closed, [1])
