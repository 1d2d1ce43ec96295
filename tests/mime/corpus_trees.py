"""
Odd mails: multiparts.  See corpus.py.
"""

from __future__ import annotations

from collections.abc import Iterator

from tests.mime.pieces import (
    ALTERNATIVE,
    BOTH,
    HTML,
    INNER,
    MIXED,
    TEXT,
    Row,
    crlf,
    mail,
    multipart,
    nested,
    part,
)


def multiparts() -> Iterator[Row]:
    """Boundaries, delimiters, and where they are missing."""
    two = "mixed[text/plain, text/html]"
    texts = ("plain", "<b>html</b>")
    plain, html = TEXT, HTML
    body = multipart("mix", plain, html)
    yield "preamble and epilogue", mail(MIXED, "before\n" + body + "after\n--mix\nmore\n"), two, texts, (), ()
    yield (
        "blanks behind the delimiters",
        mail(MIXED, body.replace("--mix\n", "--mix \t \n")),
        two,
        texts,
        (),
        (),
    )
    yield "blanks behind the last delimiter", mail(MIXED, body.replace("--mix--", "--mix-- \t")), two, texts, (), ()
    yield "a multipart with only LF", mail(MIXED, body).replace(b"\r\n", b"\n"), two, texts, ("bare-newline",), ()
    yield "a multipart with only CR", mail(MIXED, body).replace(b"\r\n", b"\r"), two, texts, ("bare-newline",), ()
    yield "CRLF in the header, LF in the body", mail(MIXED, "") + body.encode(), two, texts, ("bare-newline",), ()
    yield "no line end at the end", mail(MIXED, body.rstrip()), two, texts, (), ()
    yield (
        "M20 boundary that begins like another",
        mail(
            "multipart/mixed; boundary=b",
            multipart("b", part("multipart/mixed; boundary=bb", multipart("bb", plain, html)), html),
        ),
        "mixed[mixed[text/plain, text/html], text/html]",
        (*texts, "<b>html</b>"),
        (),
        (),
    )
    yield (
        "M20 the other way round",
        mail(
            "multipart/mixed; boundary=bb",
            multipart("bb", part("multipart/mixed; boundary=b", multipart("b", plain, html)), html),
        ),
        "mixed[mixed[text/plain, text/html], text/html]",
        (*texts, "<b>html</b>"),
        (),
        (),
    )
    yield (
        "M20 a line that begins like a delimiter",
        mail(MIXED, multipart("mix", part("text/plain", "--mixed\n--mix-\n--mi\n -- mix"), html)),
        two,
        ("--mixed\n--mix-\n--mi\n -- mix", "<b>html</b>"),
        (),
        (),
    )
    yield (
        "boundary that ends with dashes",
        mail("multipart/mixed; boundary=b--", multipart("b--", plain, html)),
        two,
        texts,
        (),
        (),
    )
    yield (
        "boundaries b and b--",
        mail(
            "multipart/mixed; boundary=b",
            multipart("b", part("multipart/mixed; boundary=b--", multipart("b--", plain, html))),
        ),
        "mixed[mixed[text/plain, text/html]]",
        texts,
        (),
        (),
    )
    yield (
        "boundary with a blank",
        mail('multipart/mixed; boundary="a b"', multipart("a b", plain, html)),
        two,
        texts,
        (),
        (),
    )
    yield "boundary with a blank at its end", mail('multipart/mixed; boundary="mix "', body), two, texts, (), ()
    yield (
        "boundary with a colon",
        mail('multipart/mixed; boundary="a:b"', multipart("a:b", "X: y", html)),
        two,
        ("", "<b>html</b>"),
        ("bad-header-line",),
        (),
    )
    yield (
        "boundary of signs",
        mail('multipart/mixed; boundary="\'()+_,-./:=?"', multipart("'()+_,-./:=?", plain, html)),
        two,
        texts,
        (),
        (),
    )
    yield (
        "boundary of signs that are not allowed",
        mail('multipart/mixed; boundary="[*]\\\\"', multipart("[*]\\", plain, html)),
        two,
        texts,
        (),
        (),
    )
    yield (
        "boundary of 70",
        mail(f"multipart/mixed; boundary={'x' * 70}", multipart("x" * 70, plain, html)),
        two,
        texts,
        (),
        (),
    )
    yield (
        "boundary of 2,048",
        mail(f"multipart/mixed; boundary={'x' * 2048}", multipart("x" * 2048, plain, html)),
        two,
        texts,
        (),
        (),
    )
    yield (
        "boundary of 2,049",
        mail(f"multipart/mixed; boundary={'x' * 2049}", multipart("x" * 2049, plain, html)),
        "application/octet-stream",
        None,
        ("boundary-too-long",),
        ("",),
    )
    yield "RFC 2231 boundary", mail("multipart/mixed; boundary*0=mi; boundary*1=x", body), two, texts, (), ()
    yield (
        "8-bit boundary",
        mail('multipart/mixed; boundary="m\u00e4x"', multipart("m\u00e4x", plain, html)),
        two,
        texts,
        (),
        (),
    )
    yield (
        "two boundaries",
        mail("multipart/mixed; boundary=mix; boundary=other", body),
        two,
        texts,
        ("bad-parameter",),
        (),
    )
    yield "empty boundary", mail('multipart/mixed; boundary=""', body), two, texts, ("no-boundary",), ()
    yield (
        "no boundary, a line drawn across",
        mail("multipart/mixed", "-----------\n" + body),
        two,
        texts,
        ("no-boundary",),
        (),
    )
    yield "no boundary, a signature", mail("multipart/mixed", "-- \nAnn\n" + body), two, texts, ("no-boundary",), ()
    yield (
        "no boundary, and none used",
        mail("multipart/mixed", "hello\n"),
        "mixed[text/plain]",
        ("hello\n",),
        ("no-boundary", "no-delimiter"),
        (),
    )
    yield "no delimiter, no text", mail(MIXED, "\n\n"), "mixed[]", (), ("no-delimiter",), ()
    yield "no parts", mail(MIXED, "--mix--\n"), "mixed[]", (), (), ()
    yield "one empty part", mail(MIXED, "--mix\n\n--mix--\n"), "mixed[text/plain]", ("",), (), ()
    yield (
        "M19 a part with an empty body stays",
        mail(MIXED, multipart("mix", "Content-Type: text/css\n", html)),
        "mixed[text/css, text/html]",
        ("", "<b>html</b>"),
        (),
        ("",),
    )
    yield "two delimiters with nothing between", mail(MIXED, "--mix\n" + body), two, texts, ("empty-part",), ()
    yield (
        "a delimiter right before the last one",
        mail(MIXED, body.replace("--mix--", "--mix\n--mix--")),
        two,
        texts,
        ("empty-part",),
        (),
    )
    yield (
        "a part without an empty line",
        mail(MIXED, multipart("mix", "hello", html)),
        two,
        ("hello", "<b>html</b>"),
        ("bad-header-line",),
        (),
    )
    yield (
        "a part with only a header",
        mail(MIXED, "--mix\nContent-Type: text/css\n--mix--\n"),
        "mixed[text/css]",
        ("",),
        ("bad-header-line",),
        ("",),
    )
    yield (
        "a delimiter behind text without a line end",
        mail(MIXED, "--mix\n\nhello--mix--\n"),
        "mixed[text/plain]",
        ("hello--mix--\n",),
        ("no-end-boundary",),
        (),
    )
    yield (
        "a blank before a delimiter",
        mail(MIXED, "--mix\n\nhello\n --mix--\n"),
        "mixed[text/plain]",
        ("hello\n --mix--\n",),
        ("no-end-boundary",),
        (),
    )
    yield (
        "an inner one without its end",
        mail(MIXED, multipart("mix", part(ALTERNATIVE, multipart("alt", plain, html, end="")), html)),
        "mixed[alternative[text/plain, text/html], text/html]",
        ("plain", "<b>html</b>\n", "<b>html</b>"),
        ("no-end-boundary",),
        (),
    )
    yield (
        "two inner ones without their ends",
        mail(
            MIXED,
            multipart(
                "mix",
                part(
                    ALTERNATIVE,
                    multipart(
                        "alt",
                        part("multipart/related; boundary=rel", multipart("rel", html, end="").rstrip()),
                        end="",
                    ).rstrip(),
                ),
                end="",
            ),
        ),
        "mixed[alternative[related[text/html]]]",
        None,
        ("no-end-boundary",),
        (),
    )
    yield (
        "an inner one with the boundary of the outer",
        mail(
            MIXED, multipart("mix", part("multipart/alternative; boundary=mix", multipart("mix", plain, html)), html)
        ),
        "mixed[alternative[text/plain, text/html], text/html]",
        (*texts, "<b>html</b>"),
        (),
        (),
    )
    yield (
        "an inner one without any delimiter",
        mail(MIXED, multipart("mix", part(ALTERNATIVE, "hello"), html)),
        "mixed[alternative[text/plain], text/html]",
        ("hello", "<b>html</b>"),
        ("no-delimiter",),
        (),
    )
    yield (
        "an inner one with the wrong boundary",
        mail(MIXED, multipart("mix", part("multipart/alternative; boundary=x", BOTH), html)),
        "mixed[alternative[text/plain, text/html], text/html]",
        (*texts, "<b>html</b>"),
        ("wrong-boundary",),
        (),
    )
    yield "a preamble that looks like a part of another", mail(MIXED, "--other\nhello\n" + body), two, texts, (), ()
    yield (
        "digest",
        mail(
            "multipart/digest; boundary=mix", multipart("mix", "\n" + INNER.rstrip(), "Content-Type: text/plain\n\nx")
        ),
        "digest[rfc822(text/plain), text/plain]",
        ("inner", "x"),
        (),
        ("",),
    )
    yield (
        "a multipart of a kind nobody knows",
        mail("multipart/x-strange; boundary=mix", body),
        "x-strange[text/plain, text/html]",
        texts,
        (),
        None,
    )
    yield (
        "signed",
        mail(
            'multipart/signed; boundary=mix; protocol="application/pgp-signature"; micalg=pgp-sha256',
            multipart("mix", plain, part("application/pgp-signature", "x")),
        ),
        "signed[text/plain, application/pgp-signature]",
        ("plain", "x"),
        (),
        ("",),
    )
    report = part(
        "message/delivery-status", "Reporting-MTA: dns; example.org\n\nFinal-Recipient: rfc822; a@example.org"
    )
    yield (
        "report",
        mail(
            "multipart/report; boundary=mix; report-type=delivery-status",
            multipart("mix", plain, report, part("message/rfc822", INNER.rstrip())),
        ),
        "report[text/plain, message/delivery-status, rfc822(text/plain)]",
        None,
        (),
        ("", ""),
    )
    yield (
        "a multipart that says base64",
        mail(MIXED + "\nContent-Transfer-Encoding: base64", body),
        two,
        texts,
        ("encoded-multipart",),
        (),
    )
    yield "depth 99", nested(99), "mixed[" * 99 + "text/plain" + "]" * 99, ("deep",), (), ()
    yield (
        "depth 100 and more",
        nested(100),
        "mixed[" * 99 + "application/octet-stream" + "]" * 99,
        None,
        ("too-deep",),
        None,
    )
    yield (
        "depth 1,000",
        nested(1000),
        "mixed[" * 99 + "application/octet-stream" + "]" * 99,
        None,
        ("too-deep",),
        None,
    )
    yield (
        "depth 200 without delimiters",
        crlf("MIME-Version: 1.0\n" + "Content-Type: multipart/mixed; boundary=b\n\n" * 200),
        "mixed[" * 99 + "application/octet-stream" + "]" * 99,
        None,
        ("no-end-boundary", "no-start-boundary", "too-deep"),
        None,
    )
    yield (
        "10,000 parts",
        mail(MIXED, "--mix\n\nx\n" * 9999 + "--mix--\n"),
        f"mixed[{', '.join(['text/plain'] * 9999)}]",
        None,
        (),
        (),
    )
    yield (
        "10,001 parts",
        mail(MIXED, "--mix\n\nx\n" * 10001 + "--mix--\n"),
        f"mixed[{', '.join([*['text/plain'] * 9999, 'application/octet-stream'])}]",
        None,
        ("too-many-parts",),
        ("",),
    )
    yield (
        "100,000 lines of dashes",
        mail(MIXED, "--mix\n\n" + "--\n" * 100000 + "--mix--\n"),
        "mixed[text/plain]",
        None,
        (),
        (),
    )
