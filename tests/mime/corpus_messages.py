"""
Odd mails: messages in mails, and attachments.  See corpus.py.
"""

from __future__ import annotations

from collections.abc import Iterator

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


def messages() -> Iterator[Row]:
    """Mails in mails."""
    yield "M21 a message in a mail", mail("message/rfc822", INNER), "rfc822(text/plain)", ("inner\n",), (), ()
    yield (
        "M21 a message in a message in a mail",
        mail("message/rfc822", mail("message/rfc822", INNER).decode().replace("\r", "")),
        "rfc822(rfc822(text/plain))",
        ("inner\n",),
        (),
        (),
    )
    both = mail(ALTERNATIVE, BOTH).decode().replace("\r", "")
    texts = ("plain", "<b>html</b>")
    yield (
        "a multipart in a message",
        mail("message/rfc822", both),
        "rfc822(alternative[text/plain, text/html])",
        texts,
        (),
        (),
    )
    yield (
        "a message with the boundary of the mail it is in",
        mail("multipart/mixed; boundary=alt", multipart("alt", part("message/rfc822", both.rstrip()), TEXT)),
        "mixed[rfc822(alternative[text/plain, text/html]), text/plain]",
        (*texts, "plain"),
        (),
        ("",),
    )
    coded = part("message/rfc822", encoded(crlf(both)), "Content-Transfer-Encoding: base64")
    yield (
        "a message in base64",
        mail(MIXED, multipart("mix", coded)),
        "mixed[rfc822(alternative[text/plain, text/html])]",
        texts,
        ("encoded-message",),
        ("",),
    )
    quoted = part("message/rfc822", both.replace("=", "=3D"), "Content-Transfer-Encoding: quoted-printable")
    yield (
        "a message in quoted-printable",
        mail(MIXED, multipart("mix", quoted)),
        "mixed[rfc822(alternative[text/plain, text/html])]",
        texts,
        ("encoded-message",),
        ("",),
    )
    twice = (
        crlf("MIME-Version: 1.0\nContent-Type: message/rfc822\nContent-Transfer-Encoding: base64\n\n")
        + encoded(crlf(INNER)).encode()
    )
    yield (
        "a message in base64 in a message in base64",
        crlf(
            "MIME-Version: 1.0\nContent-Type: message/rfc822\nContent-Transfer-Encoding: base64\n\n" + encoded(twice)
        ),
        "rfc822(rfc822(text/plain))",
        ("inner\n",),
        ("encoded-message",),
        (),
    )
    liar = part("message/rfc822", INNER.rstrip(), "Content-Transfer-Encoding: base64")
    yield (
        "a message that says base64 and is not",
        mail(MIXED, multipart("mix", liar)),
        "mixed[rfc822(text/plain)]",
        ("inner",),
        ("encoded-message",),
        ("",),
    )
    yield (
        "a message with empty lines before it",
        mail(MIXED, multipart("mix", part("message/rfc822", "\n\n" + INNER.rstrip()))),
        "mixed[rfc822(text/plain)]",
        ("inner",),
        ("bad-header-line",),
        ("",),
    )
    yield (
        "a message without a header",
        mail(MIXED, multipart("mix", part("message/rfc822", "\nhello"))),
        "mixed[rfc822(text/plain)]",
        ("hello",),
        (),
        ("",),
    )
    yield (
        "an empty message",
        mail(MIXED, "--mix\nContent-Type: message/rfc822\n\n--mix--\n"),
        "mixed[rfc822(text/plain)]",
        ("",),
        (),
        ("",),
    )
    yield "message/global", mail("message/global", INNER), "global(text/plain)", ("inner\n",), (), ()
    yield (
        "message/partial is a leaf",
        mail("message/partial; id=a; number=1", INNER),
        "message/partial",
        None,
        (),
        ("",),
    )
    yield (
        "message/external-body is a leaf",
        mail("message/external-body; access-type=local-file; name=a", "x"),
        "message/external-body",
        None,
        (),
        ("a",),
    )
    yield (
        "a message without MIME-Version in a mail",
        mail("message/rfc822", "Content-Type: text/html\n\nx"),
        "rfc822(text/html)",
        ("x",),
        ("no-mime-version",),
        (),
    )
    deep = "Content-Type: message/rfc822\nMIME-Version: 1.0\n\n" * 150
    yield (
        "150 messages within each other",
        crlf(deep + INNER),
        "rfc822(" * 99 + "message/rfc822" + ")" * 99,
        None,
        ("too-deep",),
        None,
    )


def attachments() -> Iterator[Row]:
    """What is an attachment, and what is none."""
    tnef = file_part("application/ms-tnef", b"\x78\x9f\x3e\x22", "winmail.dat")
    yield (
        "TNEF is left as an attachment",
        mail(MIXED, multipart("mix", TEXT, tnef)),
        "mixed[text/plain, application/ms-tnef]",
        None,
        (),
        ("winmail.dat",),
    )
    yield (
        "only a file",
        mail("application/pdf; name=a.pdf\nContent-Transfer-Encoding: base64", encoded(b"%PDF")),
        "application/pdf",
        ("%PDF",),
        (),
        ("a.pdf",),
    )
    yield (
        "a text that is a file",
        mail("text/plain; name=a.txt\nContent-Disposition: attachment", "x"),
        "text/plain",
        ("x",),
        (),
        ("a.txt",),
    )
    uu = uuencode(b"hello\n" * 20, b"b.txt").decode().replace("\r", "")
    yield "uuencode within text", mail("text/plain", "see:\n" + uu + "\nbye\n"), "text/plain", None, (), ("b.txt",)
    yield "uuencode within text, twice", mail("text/plain", uu + uu), "text/plain", None, (), ("b.txt", "b.txt")
    yield "uuencode within text, no end", mail("text/plain", uu.replace("end", "")), "text/plain", None, (), ()
    yield (
        "a line that begins like uuencode",
        mail("text/plain", "begin 644 the day\nwith a smile\nend\n"),
        "text/plain",
        None,
        (),
        (),
    )
    yield "a lot of beginnings", mail("text/plain", "begin 644 a\n" * 20000), "text/plain", None, (), ()
    cid = part(
        "image/png; name=a.png",
        encoded(b"x"),
        "Content-Transfer-Encoding: base64",
        "Content-ID: <a>",
        "Content-Disposition: inline; filename=a.png",
    )
    yield (
        "what HTML shows is none",
        mail("multipart/related; boundary=mix", multipart("mix", HTML, cid)),
        "related[text/html, image/png]",
        None,
        (),
        (),
    )
    yield (
        "an attachment that says so among it",
        mail("multipart/related; boundary=mix", multipart("mix", HTML, file_part("image/png", b"x", "a.png"))),
        "related[text/html, image/png]",
        None,
        (),
        ("a.png",),
    )
    yield (
        "a second text is none",
        mail(MIXED, multipart("mix", TEXT, part("text/plain", "footer"))),
        "mixed[text/plain, text/plain]",
        ("plain", "footer"),
        (),
        (),
    )
    yield (
        "a disposition nobody knows is one",
        mail(MIXED, multipart("mix", TEXT, part("text/plain", "x", "Content-Disposition: x-strange"))),
        "mixed[text/plain, text/plain]",
        None,
        (),
        ("",),
    )
    yield (
        "M15 binary octets of an attachment are kept",
        mail(
            MIXED,
            multipart("mix", part("application/octet-stream", "\u00ff\u00fe", "Content-Transfer-Encoding: binary")),
        ),
        "mixed[application/octet-stream]",
        ("\u00ff\u00fe",),
        (),
        ("",),
    )
    yield (
        "calendar among alternatives is none",
        mail(ALTERNATIVE, multipart("alt", TEXT, part("text/calendar", "x"))),
        "alternative[text/plain, text/calendar]",
        None,
        (),
        (),
    )
    html = part("text/html", '<meta charset="koi8-r"><p>x')
    yield (
        "HTML that says its charset itself",
        mail(MIXED, multipart("mix", html)),
        "mixed[text/html]",
        ('<meta charset="koi8-r"><p>x',),
        (),
        (),
    )
