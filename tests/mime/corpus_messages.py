"""
Odd mails: messages in mails, and attachments.  See corpus.py.
"""

from __future__ import annotations

from tests.mime.corpus_bodies import uuencode
from tests.mime.pieces import (
    ALTERNATIVE,
    BOTH,
    HTML,
    INNER,
    MIXED,
    TEXT,
    Row,
    crlf,
    encoded,
    file_part,
    mail,
    multipart,
    part,
)

_BOTH = mail(ALTERNATIVE, BOTH).decode().replace("\r", "")
_TEXTS = ("plain", "<b>html</b>")
_CODED = part("message/rfc822", encoded(crlf(_BOTH)), "Content-Transfer-Encoding: base64")
_QUOTED = part("message/rfc822", _BOTH.replace("=", "=3D"), "Content-Transfer-Encoding: quoted-printable")
_TWICE = (
    crlf("MIME-Version: 1.0\nContent-Type: message/rfc822\nContent-Transfer-Encoding: base64\n\n")
    + encoded(crlf(INNER)).encode()
)
_LIAR = part("message/rfc822", INNER.rstrip(), "Content-Transfer-Encoding: base64")
_DEEP = "Content-Type: message/rfc822\nMIME-Version: 1.0\n\n" * 150

#: Mails in mails.
MESSAGES: list[Row] = [
    ("M21 a message in a mail", mail("message/rfc822", INNER), "rfc822(text/plain)", ("inner\n",), (), ()),
    (
        "M21 a message in a message in a mail",
        mail("message/rfc822", mail("message/rfc822", INNER).decode().replace("\r", "")),
        "rfc822(rfc822(text/plain))",
        ("inner\n",),
        (),
        (),
    ),
    (
        "a multipart in a message",
        mail("message/rfc822", _BOTH),
        "rfc822(alternative[text/plain, text/html])",
        _TEXTS,
        (),
        (),
    ),
    (
        "a message with the boundary of the mail it is in",
        mail("multipart/mixed; boundary=alt", multipart("alt", part("message/rfc822", _BOTH.rstrip()), TEXT)),
        "mixed[rfc822(alternative[text/plain, text/html]), text/plain]",
        (*_TEXTS, "plain"),
        (),
        ("",),
    ),
    (
        "a message in base64",
        mail(MIXED, multipart("mix", _CODED)),
        "mixed[rfc822(alternative[text/plain, text/html])]",
        _TEXTS,
        ("encoded-message",),
        ("",),
    ),
    (
        "a message in quoted-printable",
        mail(MIXED, multipart("mix", _QUOTED)),
        "mixed[rfc822(alternative[text/plain, text/html])]",
        _TEXTS,
        ("encoded-message",),
        ("",),
    ),
    (
        "a message in base64 in a message in base64",
        crlf(
            "MIME-Version: 1.0\nContent-Type: message/rfc822\nContent-Transfer-Encoding: base64\n\n" + encoded(_TWICE)
        ),
        "rfc822(rfc822(text/plain))",
        ("inner\n",),
        ("encoded-message",),
        (),
    ),
    (
        "a message that says base64 and is not",
        mail(MIXED, multipart("mix", _LIAR)),
        "mixed[rfc822(text/plain)]",
        ("inner",),
        ("encoded-message",),
        ("",),
    ),
    (
        "a message with empty lines before it",
        mail(MIXED, multipart("mix", part("message/rfc822", "\n\n" + INNER.rstrip()))),
        "mixed[rfc822(text/plain)]",
        ("inner",),
        ("bad-header-line",),
        ("",),
    ),
    (
        "a message without a header",
        mail(MIXED, multipart("mix", part("message/rfc822", "\nhello"))),
        "mixed[rfc822(text/plain)]",
        ("hello",),
        (),
        ("",),
    ),
    (
        "an empty message",
        mail(MIXED, "--mix\nContent-Type: message/rfc822\n\n--mix--\n"),
        "mixed[rfc822(text/plain)]",
        ("",),
        (),
        ("",),
    ),
    ("message/global", mail("message/global", INNER), "global(text/plain)", ("inner\n",), (), ()),
    (
        "message/partial is a leaf",
        mail("message/partial; id=a; number=1", INNER),
        "message/partial",
        None,
        (),
        ("",),
    ),
    (
        "message/external-body is a leaf",
        mail("message/external-body; access-type=local-file; name=a", "x"),
        "message/external-body",
        None,
        (),
        ("a",),
    ),
    (
        "a message without MIME-Version in a mail",
        mail("message/rfc822", "Content-Type: text/html\n\nx"),
        "rfc822(text/html)",
        ("x",),
        ("no-mime-version",),
        (),
    ),
    (
        "150 messages within each other",
        crlf(_DEEP + INNER),
        "rfc822(" * 99 + "message/rfc822" + ")" * 99,
        None,
        ("too-deep",),
        None,
    ),
]

_TNEF = file_part("application/ms-tnef", b"\x78\x9f\x3e\x22", "winmail.dat")
_UU = uuencode(b"hello\n" * 20, b"b.txt").decode().replace("\r", "")
_CID = part(
    "image/png; name=a.png",
    encoded(b"x"),
    "Content-Transfer-Encoding: base64",
    "Content-ID: <a>",
    "Content-Disposition: inline; filename=a.png",
)
_HTML = part("text/html", '<meta charset="koi8-r"><p>x')

#: What is an attachment, and what is none.
ATTACHMENTS: list[Row] = [
    (
        "TNEF is left as an attachment",
        mail(MIXED, multipart("mix", TEXT, _TNEF)),
        "mixed[text/plain, application/ms-tnef]",
        None,
        (),
        ("winmail.dat",),
    ),
    (
        "only a file",
        mail("application/pdf; name=a.pdf\nContent-Transfer-Encoding: base64", encoded(b"%PDF")),
        "application/pdf",
        ("%PDF",),
        (),
        ("a.pdf",),
    ),
    (
        "a text that is a file",
        mail("text/plain; name=a.txt\nContent-Disposition: attachment", "x"),
        "text/plain",
        ("x",),
        (),
        ("a.txt",),
    ),
    ("uuencode within text", mail("text/plain", "see:\n" + _UU + "\nbye\n"), "text/plain", None, (), ("b.txt",)),
    ("uuencode within text, twice", mail("text/plain", _UU + _UU), "text/plain", None, (), ("b.txt", "b.txt")),
    ("uuencode within text, no end", mail("text/plain", _UU.replace("end", "")), "text/plain", None, (), ()),
    (
        "a line that begins like uuencode",
        mail("text/plain", "begin 644 the day\nwith a smile\nend\n"),
        "text/plain",
        None,
        (),
        (),
    ),
    ("a lot of beginnings", mail("text/plain", "begin 644 a\n" * 20000), "text/plain", None, (), ()),
    (
        "what HTML shows is none",
        mail("multipart/related; boundary=mix", multipart("mix", HTML, _CID)),
        "related[text/html, image/png]",
        None,
        (),
        (),
    ),
    (
        "an attachment that says so among it",
        mail("multipart/related; boundary=mix", multipart("mix", HTML, file_part("image/png", b"x", "a.png"))),
        "related[text/html, image/png]",
        None,
        (),
        ("a.png",),
    ),
    (
        "a second text is none",
        mail(MIXED, multipart("mix", TEXT, part("text/plain", "footer"))),
        "mixed[text/plain, text/plain]",
        ("plain", "footer"),
        (),
        (),
    ),
    (
        "a disposition nobody knows is one",
        mail(MIXED, multipart("mix", TEXT, part("text/plain", "x", "Content-Disposition: x-strange"))),
        "mixed[text/plain, text/plain]",
        None,
        (),
        ("",),
    ),
    (
        "M15 binary octets of an attachment are kept",
        mail(
            MIXED,
            multipart("mix", part("application/octet-stream", "\u00ff\u00fe", "Content-Transfer-Encoding: binary")),
        ),
        "mixed[application/octet-stream]",
        ("\u00ff\u00fe",),
        (),
        ("",),
    ),
    (
        "calendar among alternatives is none",
        mail(ALTERNATIVE, multipart("alt", TEXT, part("text/calendar", "x"))),
        "alternative[text/plain, text/calendar]",
        None,
        (),
        (),
    ),
    (
        "HTML that says its charset itself",
        mail(MIXED, multipart("mix", _HTML)),
        "mixed[text/html]",
        ('<meta charset="koi8-r"><p>x',),
        (),
        (),
    ),
]
