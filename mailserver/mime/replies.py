"""
Answering a mail: the reply to it, and whether a program may write one at all.

In: a mail that was read.  Out: a `Mail`, or a yes or no.  Failures: `EncodeError` where nobody can be answered.
RFC 5322 3.6.2 (Reply-To), 3.6.4 (References), 3.6.5 (Re:); RFC 3834 2 (when not to answer), 3.1 (how).
Security: all of it comes from a stranger.  What is no address, no identifier or a control character is left out.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from mailserver.mime.addresses import NamedAddress, mailboxes, parse_addresses
from mailserver.mime.fields import EncodeError
from mailserver.mime.headers import Headers
from mailserver.mime.mail import Addresses, Attachment, Mail
from mailserver.mime.part import Part
from mailserver.mime.words import decode_8bit

#: Identifiers that a reply quotes: the first of a thread and the last ones; no program asks for more.
MOST_REFERENCES = 50
#: Characters of a subject that a reply quotes.
MOST_SUBJECT = 998

_RE = re.compile(r"\s*(?:(?:re|aw|sv|vs|antw|odp|rif)(?:\[[0-9]{1,3}\])?\s?:\s*)+", re.IGNORECASE)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")
_IDENTIFIER = re.compile(r"<[!-;=?-~]{1,250}>")
#  RFC 3834 5: auto-submitted-field = "Auto-Submitted:" [CFWS] auto-submitted [CFWS]; a keyword, parameters, comments
_KEYWORD = re.compile(r"\s*(?:\([^()]*+\)\s*)*([A-Za-z-]+)")


def reply_to(
    part: Part,
    text: str | None = None,
    *,
    html: str | None = None,
    from_: Addresses = "",
    attachments: Sequence[Attachment] = (),
    everyone: bool = False,
    automatic: bool = False,
) -> Mail:
    """
    A reply to the mail `part`: to its Reply-To, else its From; with its subject behind "Re: ", In-Reply-To,
    References.

    from_: who answers; the first address in its To when it is not given.  everyone: also to all in its To and Cc,
    save who answers.  automatic: a program answers, so Auto-Submitted is set (RFC 3834 3.1.7); ask
    `is_auto_submitted` first, and send it with the empty envelope sender.
    Raises EncodeError when there is no address to answer to, or from.
    """
    headers = part.headers
    to = _addresses(headers, "reply-to") or _addresses(headers, "from")
    if not to:
        raise EncodeError("From", headers.get("from") or "", "no address to reply to")
    if not from_:
        from_ = _addresses(headers, "to")[:1]
        if not from_:
            raise EncodeError("To", headers.get("to") or "", "no address to reply from; give one")
    cc: list[NamedAddress] = []
    if everyone:
        author = Mail(from_).sender.key
        seen = {author, *(_key(each) for each in to)}
        for each in [*_addresses(headers, "to"), *_addresses(headers, "cc")]:
            if _key(each) not in seen:
                seen.add(_key(each))
                cc.append(each)
    message_id = _identifiers(headers.get("message-id"))[:1]
    return Mail(
        from_,
        to,
        reply_subject(headers.get("subject") or ""),
        text=text,
        html=html,
        attachments=attachments,
        headers={"Auto-Submitted": "auto-replied"} if automatic else {},
        cc=cc,
        in_reply_to=message_id,
        references=_thread(headers, message_id),
    )


def reply_subject(subject: str) -> str:
    """The subject of a reply: "Re: " and what stood there without its own "Re:", as one line."""
    subject = _CONTROL.sub(" ", subject[:MOST_SUBJECT])
    return f"Re: {_RE.sub('', subject, count=1) if _RE.match(subject) else subject}".rstrip()


def is_auto_submitted(headers: Headers) -> bool:
    """
    Was the mail sent by a program or a list, so that no program may answer it (RFC 3834 2)?

    True for: an Auto-Submitted that is not "no"; Precedence bulk, junk or list; any List-... field (RFC 2369, 2919);
    the empty Return-Path, and one of owner-..., ...-request or MAILER-DAEMON; a report (multipart/report); an
    X-Auto-Response-Suppress that asks for no replies (Exchange).
    """
    return any(_says_automatic(name.lower(), value) for name, value in headers)


def _says_automatic(name: str, value: str) -> bool:
    words = {word.strip().lower() for word in value.split(",")}
    if name == "auto-submitted":
        keyword = _KEYWORD.match(value)
        return keyword is None or keyword[1].lower() != "no"
    if name == "precedence":
        return not words.isdisjoint({"bulk", "junk", "list"})
    if name == "return-path":
        return _is_robot(value)
    if name == "content-type":
        return value.lower().lstrip().startswith("multipart/report")
    if name == "x-auto-response-suppress":
        return not words.isdisjoint({"all", "oof", "autoreply"})
    return name.startswith("list-")


def _is_robot(return_path: str) -> bool:
    address = return_path.strip().removeprefix("<").removesuffix(">").strip()
    local = address.rpartition("@")[0].lower() or address.lower()
    return not address or local == "mailer-daemon" or local.startswith("owner-") or local.endswith("-request")


def _addresses(headers: Headers, name: str) -> list[NamedAddress]:
    """Those in the fields of this name that are addresses."""
    found = []
    for field in headers.fields:
        if field.name.lower() == name:
            found += [
                each for each in mailboxes(parse_addresses(decode_8bit(field.body))) if each.address is not None
            ]
    return found


def _key(mailbox: NamedAddress) -> str:
    assert mailbox.address is not None  # _addresses has seen to it
    return mailbox.address.key


def _identifiers(value: str | None) -> list[str]:
    return list(dict.fromkeys(_IDENTIFIER.findall(value or "")))


def _thread(headers: Headers, message_id: list[str]) -> list[str]:
    """References of the reply (RFC 5322 3.6.4): the thread so far, and the mail itself."""
    thread = _identifiers(headers.get("references"))
    if not thread:
        parents = _identifiers(headers.get("in-reply-to"))
        thread = parents if len(parents) == 1 else []
    thread = [each for each in thread if each not in message_id]
    if len(thread) > MOST_REFERENCES:
        thread = [thread[0], *thread[1 - MOST_REFERENCES :]]
    return [*thread, *message_id]
