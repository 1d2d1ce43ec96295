"""
Odd mails: "F ..." are mails of the same kinds as the fixtures of gen_smtp's tests, which are not here.  See corpus.py.
"""

from __future__ import annotations

from tests.mime.pieces import (
    ALTERNATIVE,
    BOTH,
    FROM,
    HTML,
    INNER,
    JPEG,
    MIXED,
    PLAIN,
    RTF,
    TEXT,
    Row,
    crlf,
    encoded,
    file_part,
    mail,
    multipart,
    part,
)

_FULL = "MIME-Version: 1.0\nContent-Type: text/plain;\n\tcharset=US-ASCII;\n\tformat=flowed\nContent-Transfer-Encoding: 7bit\n\n"
_BAD = multipart("real", TEXT, HTML)
_RICH = "alternative[text/plain, text/html]"
_TEXTS = ("plain", "<b>html</b>")
_LOST = "plain\n" + BOTH.partition("plain\n")[2]
_FILES = (file_part("text/rtf", RTF, "a.rtf"), file_part("image/jpeg", JPEG, "a.jpg"))
_MESSAGE = part("message/rfc822; name=a.eml", INNER, "Content-Disposition: attachment; filename=a.eml")
_CALENDAR = part("text/calendar", "BEGIN:VCALENDAR")
_ALTERNATIVE = part(ALTERNATIVE, BOTH)
_OUTLOOK = 'multipart/alternative;\n\tboundary="----=_NextPart_000_0001_01CA.1F"'
_INNER = part(
    "message/rfc822",
    "Content-Type: multipart/mixed; boundary=in\nMIME-Version: 1.0\n\n"
    + multipart("in", part("message/rfc822", INNER)),
)
_GAMUT = (HTML, _INNER, HTML, part("message/rfc822", INNER), HTML, _FILES[1], HTML, _FILES[0], HTML)
_WHOLE = multipart("alt", TEXT, part(MIXED, multipart("mix", *_GAMUT)))
_TREE = (
    "alternative[text/plain, mixed[text/html, rfc822(mixed[rfc822(text/plain)]), text/html, rfc822(text/plain), "
    "text/html, image/jpeg, text/html, text/rtf, text/html]]"
)
_TWICE = file_part("application/octet-stream", b"same", "a.bin")
_KOI8 = '"=?KOI8-R?B?1MXT1M/X2cog?=\n\t=?KOI8-R?B?xsHKzC50eHQ=?="'
_NAMED = part(f"text/plain; name={_KOI8}", "x", f"Content-Disposition: attachment; filename={_KOI8}")
_NAME = "\u0442\u0435\u0441\u0442\u043e\u0432\u044b\u0439 \u0444\u0430\u0439\u043b.txt"
_RELATED = part(
    "multipart/related; boundary=rel",
    multipart(
        "rel",
        HTML,
        part("image/jpeg", encoded(JPEG), "Content-Transfer-Encoding: base64", "Content-ID: <a@example.org>"),
    ),
)
_DEEP = part(
    "message/rfc822",
    FROM
    + "MIME-Version: 1.0\nContent-Type: multipart/alternative; boundary=in\n\n"
    + multipart("in", TEXT, _RELATED),
)
_SECOND = part(
    "message/rfc822",
    FROM + "MIME-Version: 1.0\nContent-Type: multipart/alternative; boundary=in\n\n" + multipart("in", TEXT, HTML),
)

#: Rows of table F of the checklist.
FIXTURES: list[Row] = [
    ("F Plain-text-only", crlf(FROM + _FULL + PLAIN), "text/plain", (PLAIN,), (), ()),
    (
        "F Plain-text-only-no-MIME",
        crlf(FROM + _FULL.partition("\n")[2] + PLAIN),
        "text/plain",
        (PLAIN,),
        ("no-mime-version",),
        (),
    ),
    (
        "F Plain-text-only-no-content-type",
        crlf(FROM + "MIME-Version: 1.0\n\n" + PLAIN),
        "text/plain",
        (PLAIN,),
        (),
        (),
    ),
    (
        "F python-smtp-lib",
        crlf("From: a@example.org\nTo: b@example.org\n\nHello world Python.\n"),
        "text/plain",
        ("Hello world Python.\n",),
        (),
        (),
    ),
    (
        "F Plain-text-only-with-boundary-header",
        mail("multipart/mixed; boundary=x", PLAIN),
        "mixed[text/plain]",
        (PLAIN,),
        ("no-delimiter",),
        (),
    ),
    (
        "F rich-text-bad-boundary",
        mail("multipart/alternative; boundary=other", _BAD),
        "alternative[text/plain, text/html]",
        ("plain", "<b>html</b>"),
        ("wrong-boundary",),
        (),
    ),
    ("F rich-text", mail(ALTERNATIVE, BOTH), _RICH, _TEXTS, (), ()),
    ("F rich-text-no-MIME", mail(ALTERNATIVE, BOTH, version=False), _RICH, _TEXTS, ("no-mime-version",), ()),
    ("F rich-text-no-text-contenttype", mail(ALTERNATIVE, multipart("alt", "\nplain", HTML)), _RICH, _TEXTS, (), ()),
    ("F rich-text-no-boundary", mail("multipart/alternative", BOTH), _RICH, _TEXTS, ("no-boundary",), ()),
    (
        "F rich-text-missing-first-boundary",
        mail(ALTERNATIVE, BOTH.partition("\n")[2]),
        _RICH,
        _TEXTS,
        ("no-start-boundary",),
        (),
    ),
    (
        "F rich-text-missing-first-boundary, text before",
        mail(ALTERNATIVE, _LOST),
        "alternative[text/html]",
        ("<b>html</b>",),
        (),
        (),
    ),
    (
        "F rich-text-missing-last-boundary",
        mail(ALTERNATIVE, multipart("alt", TEXT, HTML, end="")),
        _RICH,
        ("plain", "<b>html</b>\n"),
        ("no-end-boundary",),
        (),
    ),
    (
        "F rich-text-broken-last-boundary",
        mail(ALTERNATIVE, multipart("alt", TEXT, HTML, end="-")),
        _RICH,
        ("plain", "<b>html</b>\n--alt-\n"),
        ("no-end-boundary",),
        (),
    ),
    ("F html, blank line before the first boundary", mail(ALTERNATIVE, "\n" + BOTH), _RICH, _TEXTS, (), ()),
    (
        "F text-attachment-only",
        mail(MIXED, multipart("mix", file_part("text/rtf", RTF, "a.rtf", "inline"))),
        "mixed[text/rtf]",
        (RTF.decode().replace("\r", ""),),
        (),
        ("a.rtf",),
    ),
    (
        "F image-attachment-only",
        mail(MIXED, multipart("mix", file_part("image/jpeg", JPEG, "chili-pepper.jpg", "inline"))),
        "mixed[image/jpeg]",
        None,
        (),
        ("chili-pepper.jpg",),
    ),
    (
        "F image-and-text-attachments",
        mail(MIXED, multipart("mix", *_FILES)),
        "mixed[text/rtf, image/jpeg]",
        None,
        (),
        ("a.rtf", "a.jpg"),
    ),
    (
        "F message-as-attachment",
        mail(MIXED, multipart("mix", _MESSAGE)),
        "mixed[rfc822(text/plain)]",
        ("inner\n",),
        (),
        ("a.eml",),
    ),
    (
        "F message-image-text-attachments",
        mail(MIXED, multipart("mix", _MESSAGE, *_FILES)),
        "mixed[rfc822(text/plain), text/rtf, image/jpeg]",
        None,
        (),
        ("a.eml", "a.rtf", "a.jpg"),
    ),
    (
        "F message-text-html-attachment",
        mail(MIXED, multipart("mix", _ALTERNATIVE, _CALENDAR)),
        "mixed[alternative[text/plain, text/html], text/calendar]",
        ("plain", "<b>html</b>", "BEGIN:VCALENDAR"),
        (),
        ("",),
    ),
    (
        "F outlook-2007",
        mail(
            _OUTLOOK,
            "This is a multi-part message in MIME format.\n\n"
            + multipart("----=_NextPart_000_0001_01CA.1F", TEXT, HTML),
        ),
        _RICH,
        _TEXTS,
        (),
        (),
    ),
    ("F the-gamut", mail(ALTERNATIVE, _WHOLE), _TREE, None, (), None),
    (
        "F plain-text-and-two-identical-attachments",
        mail(MIXED, multipart("mix", TEXT, _TWICE, _TWICE)),
        "mixed[text/plain, application/octet-stream, application/octet-stream]",
        ("plain", "same", "same"),
        (),
        ("a.bin", "a.bin"),
    ),
    (
        "F utf-attachment-name",
        mail(MIXED, multipart("mix", TEXT, _NAMED)),
        "mixed[text/plain, text/plain]",
        ("plain", "x"),
        (),
        (_NAME,),
    ),
    (
        "F testcase1",
        mail(MIXED, multipart("mix", _ALTERNATIVE, _DEEP)),
        "mixed[alternative[text/plain, text/html], rfc822(alternative[text/plain, related[text/html, image/jpeg]])]",
        None,
        (),
        ("",),
    ),
    (
        "F testcase2",
        mail(MIXED, multipart("mix", TEXT, file_part("application/octet-stream", b"x", "x"), _SECOND)),
        "mixed[text/plain, application/octet-stream, rfc822(alternative[text/plain, text/html])]",
        None,
        (),
        ("x", ""),
    ),
    (
        "F unicode-body",
        crlf(
            FROM
            + "MIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n\n\u4f60\u597d \U0001d11e\n"
        ),
        "text/plain",
        ("\u4f60\u597d \U0001d11e\n",),
        (),
        (),
    ),
]
