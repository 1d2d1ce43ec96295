"""
What crosses the pipe between the server and an app in a process of its own: values, sessions, and never a message.

In: arguments and the state of a session, on the server's side; answers, on the app's.  Out: what JSON has, with a
tag on everything else ("=": its kind); and back.  The text of a message stands in a file, whose name crosses.
Security: the app's process is trusted less than the server.  `unpack_answer` builds only what an app may answer, an
address of it is parsed like one that a client has sent, and a file of it is one in the folder that it was told.
Nothing is unpickled, on neither side.
Failures: TypeError for what cannot cross; ValueError for what is no answer.
"""

from __future__ import annotations

import base64
import dataclasses
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from datetime import date, datetime, time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from mailserver.address import Address, parse_address
from mailserver.apps.app import Changes, CramProof, Login
from mailserver.apps.message import PREFIX, Message
from mailserver.apps.view import AppAddress, Session
from mailserver.envelope import Envelope, Peer, Recipient, TLSInfo
from mailserver.reply import Refusal, Reply

#: The descriptors of the app's process, beside the standard ones.
FROM_PARENT, TO_PARENT = 3, 4
#: Octets that the app's process may say at once: a reply for each of a thousand recipients is half of it.
MOST_SAID = 1024 * 1024
#: Characters of a traceback, of which the end is kept, and of any other text that is only for the log.
MOST_TRACEBACK, MOST_TEXT = 32_768, 8192

#: What the server may hand over, by its tag.
_GIVEN: dict[str, type[Any]] = {
    "address": Address,
    "app-address": AppAddress,
    "recipient": Recipient,
    "envelope": Envelope,
    "peer": Peer,
    "tls": TLSInfo,
    "login": Login,
    "cram": CramProof,
}
_TAGS = {cls: tag for tag, cls in _GIVEN.items()}
_TIMES: dict[str, Any] = {"datetime": datetime, "date": date, "time": time}
_FILE = re.compile(re.escape(PREFIX) + r"[A-Za-z0-9_]{1,64}\.eml\Z")


# -- from the server to the app --------------------------------------------------------------------------------------


def pack(value: Any) -> Any:
    """An argument of a callback, or an option of the configuration.  Raises TypeError, OSError (of a message)."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return str(value)
    if isinstance(value, list | tuple):
        return [pack(each) for each in value]
    if isinstance(value, Mapping):
        return {"=": "map", "of": [[pack(key), pack(each)] for key, each in value.items()]}
    if isinstance(value, bytes):
        return {"=": "bytes", "of": _base64(value)}
    if isinstance(value, Message):
        return {"=": "message", "path": str(value.path.absolute()), "trace": _base64(value.trace)}
    for tag, kind in _TIMES.items():
        if isinstance(value, kind):
            return {"=": tag, "of": value.isoformat()}
    tag = _TAGS.get(type(value), "")
    if not tag:
        raise TypeError(f"{type(value).__name__} cannot be given to another process")
    return {"=": tag, **{name: pack(getattr(value, name)) for name in _names(type(value))}}


def unpack(value: Any) -> Any:
    """What `pack` was given, in the app's process; a mapping is a dict, a message is open.  Raises OSError."""
    if isinstance(value, list):
        return [unpack(each) for each in value]
    if not isinstance(value, dict):
        return value
    tag = value["="]
    if tag == "map":
        return {unpack(key): unpack(each) for key, each in value["of"]}
    if tag == "bytes":
        return base64.b64decode(value["of"])
    if tag == "message":
        return Message.at(Path(value["path"]), base64.b64decode(value["trace"]))
    if tag in _TIMES:
        return _TIMES[tag].fromisoformat(value["of"])
    fields = {name: unpack(each) for name, each in value.items() if name != "="}
    if tag == "envelope":
        fields["recipients"] = tuple(fields["recipients"])
    return _GIVEN[tag](**fields)


def _names(cls: type[Any]) -> Iterator[str]:
    return (field.name for field in dataclasses.fields(cls) if field.init)


def _base64(octets: bytes) -> str:
    return base64.b64encode(octets).decode("ascii")


# -- from the app to the server --------------------------------------------------------------------------------------


def pack_answer(value: Any, folder: Path | None) -> Any:
    """
    What a callback has answered.  folder: where the text of a message may be put into a file.

    Raises TypeError for what no callback may answer; OSError.
    """
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return str(value)
    if isinstance(value, Reply):
        return {"=": "reply", "code": value.code, "enhanced": value.enhanced, "text": value.text}
    if isinstance(value, Refusal):
        return {"=": "refusal", "reply": pack_answer(value.reply, None), "detail": value.detail[:MOST_TEXT]}
    if isinstance(value, Recipient):
        value = value.address
    if isinstance(value, Address):
        return {"=": "address", "of": str(value)}
    if isinstance(value, Mapping):
        pairs = [[pack_answer(key, None), pack_answer(each, None)] for key, each in value.items()]
        return {"=": "map", "of": pairs}
    if isinstance(value, bytes | bytearray):
        value = Changes(message=bytes(value))
    if isinstance(value, Changes):
        if isinstance(value.remove, str):
            raise TypeError("remove is no list of names")
        return {
            "=": "changes",
            "add": [
                _base64(each) if isinstance(each, bytes) else [_text(part) for part in each] for each in value.add
            ],
            "remove": [_text(name) for name in value.remove],
            "file": None if value.message is None else _written(value.message, folder),
        }
    raise TypeError(f"{type(value).__name__} is no answer that another process can give")


def _written(message: bytes | Message, folder: Path | None) -> str:
    """The name of a new file that holds it."""
    if folder is None:
        raise TypeError("only filter may answer with a message")
    descriptor, name = tempfile.mkstemp(suffix=".eml", prefix=PREFIX, dir=folder)
    with os.fdopen(descriptor, "wb") as file:
        for block in message.iter_blocks() if isinstance(message, Message) else (message,):
            file.write(block)
    return os.path.basename(name)


def unpack_answer(value: Any, folder: Path | None) -> Any:
    """
    An answer that the app's process has given.  folder: where its files may be; None: there can be none.

    Raises ValueError: it is none.  A message in it is to be closed.
    """
    if isinstance(value, dict) and value.get("=") == "map":
        return {_key(key): _single(each) for key, each in _pairs(value.get("of"))}
    if isinstance(value, dict) and value.get("=") == "changes":
        return _changes(value, folder)
    return _single(value)


def _single(value: Any) -> Any:
    """An answer that holds no others: however deep a text is nested, this is not."""
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if not isinstance(value, dict):
        raise ValueError("an answer without a tag")  # noqa: TRY004 - one kind of error for what is none
    match value.get("="):
        case "reply":
            return _reply(value)
        case "refusal":
            return refusal_of(value)
        case "address":
            return parse_address(_text(value.get("of")), need_domain=False)
    raise ValueError("an answer of no known kind")


def _reply(value: Any) -> Reply:
    if not isinstance(value, dict) or not isinstance(value.get("code"), int):
        raise ValueError("a reply without a code")  # noqa: TRY004 - as above
    return Reply(value["code"], _text(value.get("enhanced")), _text(value.get("text")))


def refusal_of(value: Any) -> Refusal:
    """The refusal that was told.  Raises ValueError."""
    if not isinstance(value, dict):
        raise ValueError("no refusal")  # noqa: TRY004 - as above
    return Refusal(_reply(value.get("reply")), _text(value.get("detail"))[:MOST_TEXT])


def dropped(value: Any, folder: Path | None) -> None:
    """Nobody waits for this answer any more: remove the file that it may have brought.  Raises ValueError."""
    answer = unpack_answer(value, folder)
    if isinstance(answer, Changes) and isinstance(answer.message, Message):
        answer.message.close()


def extensions_of(pairs: Any) -> dict[str, str | None]:
    """The extensions of `helo` as an app has left them.  Raises ValueError."""
    return {_text(key): None if each is None else _text(each) for key, each in _pairs(pairs)}


def _changes(value: Mapping[str, Any], folder: Path | None) -> Changes:
    add = tuple(map(_added, _list(value.get("add"))))
    remove = tuple(_text(name) for name in _list(value.get("remove")))
    name = value.get("file")
    if name is None:
        return Changes(add, remove)
    if folder is None or not _FILE.match(_text(name)):
        raise ValueError("a file where none can be")
    try:
        return Changes(add, remove, Message.taken(folder / name))
    except OSError as error:
        raise ValueError(f"a file that cannot be read: {error.strerror}") from None


def _added(each: Any) -> tuple[str, str] | bytes:
    """A field as name and value, or a whole one; whoever puts it into a message looks whether it is one."""
    if isinstance(each, str):
        return base64.b64decode(each, validate=True)
    ((name, text),) = _pairs([each])
    return _text(name), _text(text)


def _key(key: Any) -> Any:
    found = _single(key)
    if not isinstance(found, str | Address):
        raise ValueError("a key that is no recipient")  # noqa: TRY004 - as above
    return found


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError("no list where one must be")  # noqa: TRY004 - as above
    return value


def _pairs(value: Any) -> Iterator[list[Any]]:
    for pair in _list(value):
        if len(_list(pair)) != 2:
            raise ValueError("no pair where one must be")
        yield pair


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("no text where one must be")  # noqa: TRY004 - as above
    return value


# -- the session -----------------------------------------------------------------------------------------------------


class SessionNews:
    """What has changed in a session since the last time, on the server's side."""

    def __init__(self) -> None:
        self._told: dict[str, Any] = {}
        self._recipients: tuple[Recipient, ...] = ()

    def since(self, session: Session) -> dict[str, Any]:
        """For `SessionSeen.learn`."""
        envelope = session.envelope
        recipients = envelope.recipients if envelope is not None else ()
        now = {
            "id": session.id,
            "local": (session.local_host, session.local_port),
            "peer": session.peer,
            "messages": session.messages,
            "errors": session.errors,
            "listener": session.listener,
            "protocol": session.protocol,
            "hostname": session.hostname,
            "connections": session.connections,
            "envelope": None if envelope is None else dataclasses.replace(envelope, recipients=()),
        }
        news = {
            name: pack(value) for name, value in now.items() if name not in self._told or self._told[name] != value
        }
        # With a thousand recipients, each RCPT would otherwise tell of all those before it.
        known = len(self._recipients)
        if "envelope" in news or recipients[:known] != self._recipients:
            news["envelope"], known = pack(now["envelope"]), 0
        if len(recipients) > known:
            news["more"] = [pack(each) for each in recipients[known:]]
        self._told, self._recipients = now, recipients
        return news


class SessionSeen:
    """A `view.Conversation` in the app's process: the session as it was at the last callback."""

    def __init__(self, news: Mapping[str, Any]) -> None:
        self.peer = Peer("")
        self.messages = self.error_count = self.connections = 0
        self.settings = SimpleNamespace(listener="", lmtp=False, hostname="")
        self.envelope: Envelope | None = None
        self.id = ""
        self.local = ("", 0)
        self.learn(news)

    def learn(self, news: Mapping[str, Any]) -> None:
        """What `SessionNews.since` has told."""
        told = {name: unpack(value) for name, value in news.items()}
        self.id = told.get("id", self.id)
        self.local = tuple(told.get("local", self.local))
        self.peer = told.get("peer", self.peer)
        self.messages = told.get("messages", self.messages)
        self.error_count = told.get("errors", self.error_count)
        self.connections = told.get("connections", self.connections)
        self.settings.listener = told.get("listener", self.settings.listener)
        self.settings.lmtp = told["protocol"] == "lmtp" if "protocol" in told else self.settings.lmtp
        self.settings.hostname = told.get("hostname", self.settings.hostname)
        if "envelope" in told:
            self.envelope = told["envelope"]
        if self.envelope is not None and "more" in told:
            recipients = (*self.envelope.recipients, *told["more"])
            self.envelope = dataclasses.replace(self.envelope, recipients=recipients)
