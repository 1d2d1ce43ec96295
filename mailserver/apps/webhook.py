"""
`webhook`: mail to a web address, by POST.

In: a message, its envelope, the options.  Out: 250 for a 2xx; else a refusal.
A wrong address or a broken program behind it must not bounce mail: only 406, or a body that says `"refuse"` in so
many words, is a refusal for good; all else, trouble with the network among it, is 451 4.3.0: the sender tries again.
Redirects are not followed: they could lead the mail, and its signature, elsewhere.
Addresses of this machine and of private networks are allowed: the operator names the address, not the sender.

Standard Webhooks 1.0.0 (signature and id), RFC 9110 (HTTP); docs/destinations.md has the form of bodies and answers.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary, WeakValueDictionary

from pydantic import AfterValidator, Field, SecretStr, ValidationInfo, field_validator, model_validator
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as DeferTimeout
from twisted.internet.error import ConnectError, ConnectionClosed, DNSLookupError
from twisted.internet.error import TimeoutError as ConnectTimeout
from twisted.internet.protocol import Protocol
from twisted.internet.task import Cooperator
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure

from mailserver.apps.common import Delivering, DeliveryOptions, Octets, Seconds, Slots
from mailserver.apps.message import Message
from mailserver.apps.payload import Body, Facts, Source, Wanted, body_of, identifier
from mailserver.apps.signing import read_secret, signed_headers
from mailserver.envelope import Envelope, Recipient
from mailserver.reply import LOCAL_TROUBLE, Refusal, Reply

#: Octets of an answer that are read.
MAX_ANSWER = 64 * 1024
#: Characters of a text for the client.
MAX_TOLD = 200
#: Messages over this are put into their form in a thread (octets).
IN_REACTOR = 64 * 1024
#: Seconds that a connection stays open for the next message.
KEPT_OPEN = 4
REFUSED = Reply(550, "5.7.1", "Message refused")
NOT_ACCEPTABLE = 406
#: Statuses of the client's kind that ask to try again.
LATER = frozenset({408, 425, 429})

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,64}\Z")
_OURS = frozenset({"host", "content-length", "content-type", "transfer-encoding", "connection", "expect"})
_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


def _url(url: str) -> str:
    try:
        parts = urlsplit(url)
        known = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        known = False
    if not known or not url.isprintable() or " " in url:
        raise ValueError('must be an address such as "https://www.example.org/hooks/mail"')
    if parts.username is not None or parts.password is not None:
        raise ValueError("holds a password; put it into headers as Authorization")
    if parts.fragment:
        raise ValueError("must not have a part behind #")
    return url


def _headers(headers: dict[str, SecretStr]) -> dict[str, SecretStr]:
    for name, value in headers.items():
        if not _TOKEN.match(name):
            raise ValueError(f"{name!r} is no name of a header field")
        if name.lower() in _OURS or name.lower().startswith("webhook-"):
            raise ValueError(f"{name} is set by the server itself")
        if not value.get_secret_value().isprintable():
            raise ValueError(f"{name} has a character that is not allowed")
    return headers


class WebhookOptions(DeliveryOptions):
    """What may be said of a webhook."""

    url: Annotated[str, AfterValidator(_url)] = Field(repr=False, description="Where the message is posted to.")
    format: Literal["json", "raw", "form"] = Field(
        default="json",
        description='"json"; "raw": the message as it came, its envelope in X- fields; "form": multipart/form-data.',
    )
    secret: SecretStr | None = Field(default=None, description='Signs each request: "whsec_" and base64.')
    secret_file: Path | None = Field(
        default=None, description="A file with the secret; further lines are older secrets, which sign too."
    )
    headers: Annotated[dict[str, SecretStr], AfterValidator(_headers)] = Field(
        default={}, description="Further fields of the request, such as Authorization."
    )
    timeout: Seconds = Field(default=30.0, description="For the request, from the connection to the answer's end.")
    attachment_limit: Octets = Field(
        default=10 * 1024 * 1024, description="Of all attachments together; what is over it is left out."
    )
    text_limit: Octets = Field(default=1024 * 1024, description="Of the text, and of the HTML.")
    raw: bool = Field(default=False, description="json, form: the whole message too.")
    ca: Path | None = Field(
        default=None, description="Certificates (PEM) that TLS trusts in the place of the system's."
    )

    @field_validator("secret")
    @classmethod
    def _is_secret(cls, secret: SecretStr | None) -> SecretStr | None:
        if secret is not None:
            read_secret(secret.get_secret_value())
        return secret

    @field_validator("secret_file", "ca")
    @classmethod
    def _from_folder(cls, path: Path | None, info: ValidationInfo) -> Path | None:
        """Relative paths start where the configuration is; a file that is not there is told with its problems."""
        if path is None or not info.context:
            return path
        path = Path(info.context["folder"]) / path
        with contextlib.suppress(PermissionError):  # who may not look is told when the server starts
            if not path.is_file():
                raise ValueError(f"there is no file {path}")
        return path

    @model_validator(mode="after")
    def _goes_together(self) -> WebhookOptions:
        if self.secret is not None and self.secret_file is not None:
            raise ValueError("secret and secret_file: only one of them")
        if self.format == "raw" and self.each == "message":
            raise ValueError('format = "raw" names its recipient in a header field; it needs each = "recipient"')
        return self


@dataclass(frozen=True, slots=True)
class Shared:
    """
    What all connections of a process share.  client: treq's.  run_in_thread: as `deferToThread`.
    cooperator: reads bodies, a block at a time.  close: ends connections that are kept open.
    """

    slots: Slots
    clock: Any
    client: Any
    keys: tuple[bytes, ...]
    run_in_thread: Any
    cooperator: Any
    close: Any = lambda: None


class Webhook(Delivering):
    """Mail to a web address.  `shared` is a `Shared`."""

    Options = WebhookOptions
    #: Reactor -> address and limits -> the places that its apps share.
    _slots: ClassVar[WeakKeyDictionary[Any, WeakValueDictionary[Any, Slots]]] = WeakKeyDictionary()
    options: WebhookOptions
    shared: Shared
    log = Logger()

    @classmethod
    def setup(cls, options: WebhookOptions, reactor: Any = None, agent: Any = None) -> Shared:
        """
        Raises OSError for files that cannot be read, and ValueError for what is wrong in them.

        reactor, agent (IAgent): for tests; default: those of this process.
        """
        # Here, not on top: who has no webhook does not wait for treq and the web client.
        from treq.client import HTTPClient
        from twisted.web.client import Agent, BrowserLikePolicyForHTTPS, HTTPConnectionPool

        keys = _keys(options)
        trust = _trust(options.ca) if options.ca is not None else None
        if reactor is None:
            from twisted.internet import reactor
        close: Any = lambda: None  # noqa: E731 - replaced below
        if agent is None:
            pool = HTTPConnectionPool(reactor)
            pool.maxPersistentPerHost = options.concurrency
            pool.cachedConnectionTimeout = KEPT_OPEN  # shorter than servers wait: none is used while it closes
            close = pool.closeCachedConnections
            policy = BrowserLikePolicyForHTTPS(trust)
            agent = Agent(reactor, policy, connectTimeout=options.timeout, pool=pool)

        def run_in_thread(function: Any, *arguments: Any) -> Deferred[Any]:
            return deferToThreadPool(reactor, reactor.getThreadPool(), function, *arguments)

        cooperator = Cooperator(scheduler=lambda call: reactor.callLater(0.0, call))
        # Apps with the same address count together, as far as they say the same of it: it is one server's work.
        known = cls._slots.setdefault(reactor, WeakValueDictionary())
        limits = (options.url, options.concurrency, options.waiting)
        slots = known.get(limits)
        if slots is None:
            slots = known[limits] = Slots(options.concurrency, options.waiting)
        return Shared(slots, reactor, HTTPClient(agent), keys, run_in_thread, cooperator, close)

    @classmethod
    def teardown(cls, shared: Shared) -> Any:
        """Close the connections that are kept."""
        return shared.close()

    async def message(self, envelope: Envelope, message: Message) -> Any:
        """Post it.  Raises Refusal."""

        async def act(recipients: tuple[Recipient, ...]) -> Any:
            return await self._post(envelope, recipients, message)

        return await self.deliver(envelope, act)

    async def _post(self, envelope: Envelope, recipients: tuple[Recipient, ...], message: Message) -> Any:
        arguments: dict[str, str] = {}
        if self.options.arguments:
            arguments = {name: value for each in recipients for name, value in self.arguments_of(each).items()}
        give_back = await self.shared.slots.take()
        body: Body | None = None
        try:
            facts = Facts(envelope, recipients, self.shared.clock.seconds(), arguments)
            body, headers = await self._prepared(facts, message)
            exchange = Deferred.fromCoroutine(self._exchange(body, headers))
            answer = await exchange.addTimeout(self.options.timeout, self.shared.clock)
        except Exception as error:
            if isinstance(error, CancelledError) or not (reason := _reason(error)):
                raise
            self._tell("error", envelope, recipients, reason, 0)
            raise Refusal(LOCAL_TROUBLE) from None
        finally:
            if body is not None:
                body.file.close()
            give_back()
        return self._judge(answer, envelope, recipients)

    async def _prepared(self, facts: Facts, message: Message) -> tuple[Body, dict[str, str]]:
        options = self.options
        wanted = Wanted(options.format, options.raw, options.attachment_limit, options.text_limit)
        source, keys = Source(message), self.shared.keys

        def prepare() -> tuple[Body, dict[str, str]]:
            name = identifier(facts, source)
            source.file.seek(0)
            body = body_of(wanted, facts, source)
            signed = signed_headers(keys, name, facts.seconds, body.blocks()) if keys else {"webhook-id": name}
            return body, {**signed, **body.headers, "Content-Type": body.content_type}

        if message.size <= IN_REACTOR:
            return prepare()
        prepared: tuple[Body, dict[str, str]] = await self.shared.run_in_thread(prepare)
        return prepared

    async def _exchange(self, body: Body, headers: Mapping[str, str]) -> Answer:
        from twisted.web.client import FileBodyProducer
        from twisted.web.http_headers import Headers

        fields = Headers({"User-Agent": ["mailserver"], "Accept": ["application/json"]})
        for name, value in headers.items():
            fields.setRawHeaders(name, [value])
        for name, secret in self.options.headers.items():
            fields.setRawHeaders(name, [secret.get_secret_value()])
        response = await self.shared.client.post(
            self.options.url,
            data=FileBodyProducer(body.file, self.shared.cooperator),
            headers=fields,
            allow_redirects=False,
            unbuffered=True,
        )
        reading = Reading()
        response.deliverBody(reading)
        return Answer(response.code, await reading.done)

    def _judge(self, answer: Answer, envelope: Envelope, recipients: tuple[Recipient, ...]) -> Any:
        try:
            result = judged(answer, recipients)
        except AnswerError as error:
            self._tell("error", envelope, recipients, f"its answer cannot be used: {error}", answer.status)
            raise Refusal(LOCAL_TROUBLE) from None
        except Refusal as refusal:
            meant = refusal.reply is not LOCAL_TROUBLE
            how = f"has answered {refusal.reply}" if meant else f"has answered {answer.status}, to be tried again"
            if 300 <= answer.status < 400:
                how += "; redirects are not followed"
            level = "info" if meant else "error"
            self._tell(level, envelope, recipients, how, answer.status)
            raise
        self._tell("info", envelope, recipients, "has taken the message", answer.status)
        return result

    def _tell(self, level: str, envelope: Envelope, recipients: tuple[Recipient, ...], how: str, status: int) -> None:
        # Not the whole address: its path often is a secret.
        getattr(self.log, level)(
            "{app}: {host} {how} for {recipients}",
            event="webhook",
            app=self.name,
            host=urlsplit(self.options.url).netloc,
            how=how,
            transaction=envelope.id,
            recipients=[str(each.address) for each in recipients],
            status=status,
        )


@dataclass(frozen=True, slots=True)
class Answer:
    """What the other side has said: its status, and the start of its body."""

    status: int
    body: bytes = b""


class AnswerError(ValueError):
    """The body of an answer has a key that we know, and a value that we do not."""


class Reading(Protocol):
    """Reads the body of an answer, up to `MAX_ANSWER`.  done: fires with it; cancelling it closes the connection."""

    def __init__(self) -> None:
        self.done: Deferred[bytes] = Deferred(lambda _done: self._close())
        self._read = bytearray()

    def dataReceived(self, data: bytes) -> None:
        """Some of it."""
        self._read += data[: MAX_ANSWER + 1 - len(self._read)]
        if len(self._read) > MAX_ANSWER:
            # Cut off, it would not be what was meant; its status says enough.
            self._finish(b"")
            self._close()

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        """The end of it."""
        from twisted.web.client import ResponseDone
        from twisted.web.http import PotentialDataLoss

        if reason.check(ResponseDone, PotentialDataLoss):
            self._finish(bytes(self._read))
        elif not self.done.called:
            self.done.errback(reason)

    def _finish(self, body: bytes) -> None:
        if not self.done.called:
            self.done.callback(body)

    def _close(self) -> None:
        close = getattr(self.transport, "abortConnection", None) or getattr(self.transport, "loseConnection", None)
        if close is not None:
            close()


def judged(answer: Answer, recipients: tuple[Recipient, ...]) -> str | Mapping[str, Any] | None:
    """
    What an answer means: None or a text for the 250, or a mapping with an answer for each recipient it names.

    Raises Refusal, or AnswerError for a body that says something we cannot use.
    """
    status, said = answer.status, _said(answer.body)
    heard = 200 <= status < 300 or (400 <= status < 500 and status not in LATER)
    if heard and said.get("refuse", False) is not False:
        raise Refusal(_refused(said["refuse"]))
    if status == NOT_ACCEPTABLE:
        raise Refusal(REFUSED)
    if not 200 <= status < 300:
        raise Refusal(LOCAL_TROUBLE)
    each = said.get("recipients")
    if each is None:
        return _text(said["reply"]) if said.get("reply") is not None else None
    if not isinstance(each, dict):
        raise AnswerError("recipients is no object")
    known = {str(recipient.address) for recipient in recipients}
    if not known.issuperset(each):
        raise AnswerError("recipients names somebody who is none")
    return {address: _one(value) for address, value in each.items()}


def _one(value: object) -> Refusal | str | None:
    if value is None:
        return None
    if not isinstance(value, dict):
        raise AnswerError("an answer for a recipient is no object")
    if value.get("refuse", False) is not False:
        return Refusal(_refused(value["refuse"]))
    return _text(value["reply"]) if value.get("reply") is not None else None


def _said(body: bytes) -> dict[str, Any]:
    """The object in a body; {} for any other body."""
    if not body.lstrip().startswith(b"{"):
        return {}
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}


def _refused(value: object) -> Reply:
    """The reply in {"code": 550, "enhanced": "5.7.1", "text": "..."}, in a text, or in true."""
    if value is True:
        return REFUSED
    if isinstance(value, str):
        value = {"text": value}
    if not isinstance(value, dict):
        raise AnswerError("refuse is no object")
    code = value.get("code", REFUSED.code)
    if not isinstance(code, int) or not 400 <= code <= 599 or code == 421:
        raise AnswerError("refuse has no code from 400 to 599")
    enhanced = value.get("enhanced", f"{code // 100}.7.1")
    if not isinstance(enhanced, str):
        raise AnswerError("enhanced is no text")
    try:
        return Reply(code, enhanced, _text(value.get("text", REFUSED.text)))
    except AnswerError:
        raise
    except ValueError as error:
        raise AnswerError(str(error)) from None


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise AnswerError("a text is none")
    return "".join(character if character.isprintable() else " " for character in value[:MAX_TOLD]).strip()


def _reason(error: BaseException) -> str:
    """Trouble with the network or the disk in words that hold nothing of the request; "" for any other error."""
    from OpenSSL.SSL import Error as TLSError
    from service_identity import VerificationError

    reasons = getattr(error, "reasons", None)
    if isinstance(reasons, list):  # what twisted.web wraps trouble into: a list of Failures
        return "; ".join(_reason(each.value) or type(each.value).__name__ for each in reasons[:3])
    if isinstance(error, DeferTimeout | ConnectTimeout | CancelledError):
        return "takes too long"
    if isinstance(error, VerificationError):
        return "has a certificate for another name"
    if isinstance(error, TLSError):
        words = error.args[0] if error.args and isinstance(error.args[0], list) else []
        why = "; ".join(str(each[-1]) for each in words[:3] if each) or "no TLS"
        return f"cannot be trusted: {why}"
    if isinstance(error, DNSLookupError):
        return "cannot be found by its name"
    if isinstance(error, ConnectError | ConnectionClosed):
        return f"cannot be reached: {type(error).__name__}"
    return f"cannot be given the message: {error.strerror}" if isinstance(error, OSError) else ""


def _keys(options: WebhookOptions) -> tuple[bytes, ...]:
    if options.secret is not None:
        return (read_secret(options.secret.get_secret_value()),)
    if options.secret_file is None:
        return ()
    path = options.secret_file
    if path.stat().st_mode & 0o007:
        raise ValueError(f"webhook: {path} can be read by everybody; run chmod 600 on it")
    try:
        keys = tuple(read_secret(line) for line in path.read_text("ascii").split())
    except ValueError as error:
        raise ValueError(f"webhook: {path}: {error}") from None
    if not keys:
        raise ValueError(f"webhook: {path} is empty")
    return keys


def _trust(path: Path) -> Any:
    from twisted.internet.ssl import Certificate, trustRootFromCertificates

    found = _CERTIFICATE.findall(path.read_text("ascii", "replace"))
    if not found:
        raise ValueError(f"webhook: {path} has no certificate (PEM)")
    return trustRootFromCertificates([Certificate.loadPEM(each) for each in found])
