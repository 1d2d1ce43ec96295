"""
Odd mails: "F ..." are mails of the same kinds as the fixtures of gen_smtp's tests, which are not here.  See corpus.py.
"""

from __future__ import annotations

from collections.abc import Iterator

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


def fixtures() -> Iterator[Row]:
    """Rows of table F of the checklist."""
    full = "MIME-Version: 1.0\nContent-Type: text/plain;\n\tcharset=US-ASCII;\n\tformat=flowed\nContent-Transfer-Encoding: 7bit\n\n"
    yield "F Plain-text-only", crlf(FROM + full + PLAIN), "text/plain", (PLAIN,), (), ()
    yield (
        "F Plain-text-only-no-MIME",
        crlf(FROM + full.partition("\n")[2] + PLAIN),
        "text/plain",
        (PLAIN,),
        ("no-mime-version",),
        (),
    )
    yield (
        "F Plain-text-only-no-content-type",
        crlf(FROM + "MIME-Version: 1.0\n\n" + PLAIN),
        "text/plain",
        (PLAIN,),
        (),
        (),
    )
    yield (
        "F python-smtp-lib",
        crlf("From: a@example.org\nTo: b@example.org\n\nHello world Python.\n"),
        "text/plain",
        ("Hello world Python.\n",),
        (),
        (),
    )
    yield (
        "F Plain-text-only-with-boundary-header",
        mail("multipart/mixed; boundary=x", PLAIN),
        "mixed[text/plain]",
        (PLAIN,),
        ("no-delimiter",),
        (),
    )
    bad = multipart("real", TEXT, HTML)
    yield (
        "F rich-text-bad-boundary",
        mail("multipart/alternative; boundary=other", bad),
        "alternative[text/plain, text/html]",
        ("plain", "<b>html</b>"),
        ("wrong-boundary",),
        (),
    )
    rich = "alternative[text/plain, text/html]"
    texts = ("plain", "<b>html</b>")
    yield "F rich-text", mail(ALTERNATIVE, BOTH), rich, texts, (), ()
    yield "F rich-text-no-MIME", mail(ALTERNATIVE, BOTH, version=False), rich, texts, ("no-mime-version",), ()
    yield "F rich-text-no-text-contenttype", mail(ALTERNATIVE, multipart("alt", "\nplain", HTML)), rich, texts, (), ()
    yield "F rich-text-no-boundary", mail("multipart/alternative", BOTH), rich, texts, ("no-boundary",), ()
    yield (
        "F rich-text-missing-first-boundary",
        mail(ALTERNATIVE, BOTH.partition("\n")[2]),
        rich,
        texts,
        ("no-start-boundary",),
        (),
    )
    lost = "plain\n" + BOTH.partition("plain\n")[2]
    yield (
        "F rich-text-missing-first-boundary, text before",
        mail(ALTERNATIVE, lost),
        "alternative[text/html]",
        ("<b>html</b>",),
        (),
        (),
    )
    yield (
        "F rich-text-missing-last-boundary",
        mail(ALTERNATIVE, multipart("alt", TEXT, HTML, end="")),
        rich,
        ("plain", "<b>html</b>\n"),
        ("no-end-boundary",),
        (),
    )
    yield (
        "F rich-text-broken-last-boundary",
        mail(ALTERNATIVE, multipart("alt", TEXT, HTML, end="-")),
        rich,
        ("plain", "<b>html</b>\n--alt-\n"),
        ("no-end-boundary",),
        (),
    )
    yield "F html, blank line before the first boundary", mail(ALTERNATIVE, "\n" + BOTH), rich, texts, (), ()
    yield (
        "F text-attachment-only",
        mail(MIXED, multipart("mix", file_part("text/rtf", RTF, "a.rtf", "inline"))),
        "mixed[text/rtf]",
        (RTF.decode().replace("\r", ""),),
        (),
        ("a.rtf",),
    )
    yield (
        "F image-attachment-only",
        mail(MIXED, multipart("mix", file_part("image/jpeg", JPEG, "chili-pepper.jpg", "inline"))),
        "mixed[image/jpeg]",
        None,
        (),
        ("chili-pepper.jpg",),
    )
    files = (file_part("text/rtf", RTF, "a.rtf"), file_part("image/jpeg", JPEG, "a.jpg"))
    yield (
        "F image-and-text-attachments",
        mail(MIXED, multipart("mix", *files)),
        "mixed[text/rtf, image/jpeg]",
        None,
        (),
        ("a.rtf", "a.jpg"),
    )
    message = part("message/rfc822; name=a.eml", INNER, "Content-Disposition: attachment; filename=a.eml")
    yield (
        "F message-as-attachment",
        mail(MIXED, multipart("mix", message)),
        "mixed[rfc822(text/plain)]",
        ("inner\n",),
        (),
        ("a.eml",),
    )
    yield (
        "F message-image-text-attachments",
        mail(MIXED, multipart("mix", message, *files)),
        "mixed[rfc822(text/plain), text/rtf, image/jpeg]",
        None,
        (),
        ("a.eml", "a.rtf", "a.jpg"),
    )
    calendar = part("text/calendar", "BEGIN:VCALENDAR")
    alternative = part(ALTERNATIVE, BOTH)
    yield (
        "F message-text-html-attachment",
        mail(MIXED, multipart("mix", alternative, calendar)),
        "mixed[alternative[text/plain, text/html], text/calendar]",
        ("plain", "<b>html</b>", "BEGIN:VCALENDAR"),
        (),
        ("",),
    )
    outlook = 'multipart/alternative;\n\tboundary="----=_NextPart_000_0001_01CA.1F"'
    yield (
        "F outlook-2007",
        mail(
            outlook,
            "This is a multi-part message in MIME format.\n\n"
            + multipart("----=_NextPart_000_0001_01CA.1F", TEXT, HTML),
        ),
        rich,
        texts,
        (),
        (),
    )
    inner = part(
        "message/rfc822",
        "Content-Type: multipart/mixed; boundary=in\nMIME-Version: 1.0\n\n"
        + multipart("in", part("message/rfc822", INNER)),
    )
    gamut = (HTML, inner, HTML, part("message/rfc822", INNER), HTML, files[1], HTML, files[0], HTML)
    whole = multipart("alt", TEXT, part(MIXED, multipart("mix", *gamut)))
    tree = (
        "alternative[text/plain, mixed[text/html, rfc822(mixed[rfc822(text/plain)]), text/html, rfc822(text/plain), "
        "text/html, image/jpeg, text/html, text/rtf, text/html]]"
    )
    yield "F the-gamut", mail(ALTERNATIVE, whole), tree, None, (), None
    twice = file_part("application/octet-stream", b"same", "a.bin")
    yield (
        "F plain-text-and-two-identical-attachments",
        mail(MIXED, multipart("mix", TEXT, twice, twice)),
        "mixed[text/plain, application/octet-stream, application/octet-stream]",
        ("plain", "same", "same"),
        (),
        ("a.bin", "a.bin"),
    )
    koi8 = '"=?KOI8-R?B?1MXT1M/X2cog?=\n\t=?KOI8-R?B?xsHKzC50eHQ=?="'
    named = part(f"text/plain; name={koi8}", "x", f"Content-Disposition: attachment; filename={koi8}")
    name = "\u0442\u0435\u0441\u0442\u043e\u0432\u044b\u0439 \u0444\u0430\u0439\u043b.txt"
    yield (
        "F utf-attachment-name",
        mail(MIXED, multipart("mix", TEXT, named)),
        "mixed[text/plain, text/plain]",
        ("plain", "x"),
        (),
        (name,),
    )
    related = part(
        "multipart/related; boundary=rel",
        multipart(
            "rel",
            HTML,
            part("image/jpeg", encoded(JPEG), "Content-Transfer-Encoding: base64", "Content-ID: <a@example.org>"),
        ),
    )
    deep = part(
        "message/rfc822",
        FROM
        + "MIME-Version: 1.0\nContent-Type: multipart/alternative; boundary=in\n\n"
        + multipart("in", TEXT, related),
    )
    yield (
        "F testcase1",
        mail(MIXED, multipart("mix", alternative, deep)),
        "mixed[alternative[text/plain, text/html], rfc822(alternative[text/plain, related[text/html, image/jpeg]])]",
        None,
        (),
        ("",),
    )
    second = part(
        "message/rfc822",
        FROM
        + "MIME-Version: 1.0\nContent-Type: multipart/alternative; boundary=in\n\n"
        + multipart("in", TEXT, HTML),
    )
    yield (
        "F testcase2",
        mail(MIXED, multipart("mix", TEXT, file_part("application/octet-stream", b"x", "x"), second)),
        "mixed[text/plain, application/octet-stream, rfc822(alternative[text/plain, text/html])]",
        None,
        (),
        ("x", ""),
    )
    yield (
        "F unicode-body",
        crlf(
            FROM
            + "MIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n\n\u4f60\u597d \U0001d11e\n"
        ),
        "text/plain",
        ("\u4f60\u597d \U0001d11e\n",),
        (),
        (),
    )
