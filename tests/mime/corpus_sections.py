"""
Odd mails: header sections and their ends.  See corpus.py.
"""

from __future__ import annotations

from collections.abc import Iterator

from tests.mime.pieces import FROM, Row, crlf


def sections() -> Iterator[Row]:
    """Mails of one part."""
    yield "nothing", b"", "text/plain", ("",), (), ()
    yield "a line end", b"\r\n", "text/plain", ("",), (), ()
    yield "no header", b"\r\nhello\r\n", "text/plain", ("hello\n",), (), ()
    yield (
        "TM4 a blank first line ends the header",
        b"\r\nSubject: x\r\n\r\nhello",
        "text/plain",
        ("Subject: x\n\nhello",),
        (),
        (),
    )
    yield "no body", b"Subject: x\r\n", "text/plain", ("",), (), ()
    yield "no body, no line end", b"Subject: x", "text/plain", ("",), (), ()
    yield "only text", b"hello\r\nworld\r\n", "text/plain", ("hello\nworld\n",), ("bad-header-line",), ()
    yield (
        "TM4 a folded first line",
        b" a: b\r\nSubject: x\r\n\r\nhello",
        "text/plain",
        (" a: b\nSubject: x\n\nhello",),
        ("bad-header-line",),
        (),
    )
    yield (
        "M23 a line without a colon ends the header",
        b"Subject: x\r\nhello\r\n\r\nworld",
        "text/plain",
        ("hello\n\nworld",),
        ("bad-header-line",),
        (),
    )
    yield (
        "M23 an 8-bit name ends the header",
        b"Subject: x\r\nT\xe4: y\r\n\r\nworld",
        "text/plain",
        ("T\u00e4: y\n\nworld",),
        ("8bit-body", "bad-header-line"),
        (),
    )
    yield (
        "an empty name ends the header",
        b"Subject: x\r\n: y\r\n\r\nworld",
        "text/plain",
        (": y\n\nworld",),
        ("bad-header-line",),
        (),
    )
    yield (
        "a blank in a name ends the header",
        b"Subject: x\r\nA b: y\r\n\r\nworld",
        "text/plain",
        ("A b: y\n\nworld",),
        ("bad-header-line",),
        (),
    )
    yield (
        "a blank before the colon",
        b"Content-Type : text/html\r\nMIME-Version : 1.0\r\n\r\nx",
        "text/html",
        ("x",),
        (),
        (),
    )
    yield (
        "a From line of an mbox",
        b"From a@example.org Mon Jan  1 00:00:00 2024\r\nContent-Type: text/html\r\nMIME-Version: 1.0\r\n\r\nx",
        "text/html",
        ("x",),
        ("bad-header-line",),
        (),
    )
    yield (
        "a quoted From line",
        b">From a@example.org Mon Jan  1 00:00:00 2024\r\nSubject: x\r\n\r\nx",
        "text/plain",
        ("x",),
        ("bad-header-line",),
        (),
    )
    yield "a field From", b"From: a@example.org\r\n\r\nx", "text/plain", ("x",), (), ()
    yield (
        "two Content-Types",
        crlf("MIME-Version: 1.0\nContent-Type: text/html\nContent-Type: text/plain\n\nx"),
        "text/html",
        ("x",),
        ("duplicate-field",),
        (),
    )
    yield (
        "a field whose name begins so",
        crlf("MIME-Version: 1.0\nContent-Type-X: text/html\nContent-Type: text/css\n\nx"),
        "text/css",
        ("x",),
        (),
        (),
    )
    yield (
        "Content-Type in a fold",
        crlf("MIME-Version: 1.0\nX-A: b\n Content-Type: text/html\n\nx"),
        "text/plain",
        ("x",),
        (),
        (),
    )
    yield (
        "Content-Type in the body",
        crlf("Subject: x\n\nContent-Type: text/html\n\nx"),
        "text/plain",
        ("Content-Type: text/html\n\nx",),
        (),
        (),
    )
    yield (
        "M13 MIME-Version with comments",
        crlf("MIME-Version: (a) 1. (b) 0 (c)\nContent-Type: text/html\n\nx"),
        "text/html",
        ("x",),
        (),
        (),
    )
    yield (
        "M13 MIME-Version 2.0",
        crlf("MIME-Version: 2.0\nContent-Type: text/html\n\nx"),
        "text/html",
        ("x",),
        ("bad-mime-version",),
        (),
    )
    yield "M11 no MIME-Version", crlf("Content-Type: text/html\n\nx"), "text/html", ("x",), ("no-mime-version",), ()
    yield "M14 nothing of MIME", crlf(FROM + "\nx"), "text/plain", ("x",), (), ()
    yield (
        "M29 only LF",
        (FROM + "\nhello\nworld\n").encode(),
        "text/plain",
        ("hello\nworld\n",),
        ("bare-newline",),
        (),
    )
    yield (
        "only CR",
        (FROM + "\nhello\nworld\n").replace("\n", "\r").encode(),
        "text/plain",
        ("hello\nworld\n",),
        ("bare-newline",),
        (),
    )
    yield (
        "CR CR LF",
        (FROM + "\nhello\nworld\n").replace("\n", "\r\r\n").encode(),
        "text/plain",
        None,
        ("bare-newline",),
        (),
    )
    yield (
        "LF in the header, CRLF in the body",
        (FROM + "\n").encode() + b"hello\r\n",
        "text/plain",
        ("hello\n",),
        ("bare-newline",),
        (),
    )
    yield (
        "a bare CR in the body",
        crlf(FROM + "\n") + b"hel\rlo\r\n",
        "text/plain",
        ("hel\nlo\n",),
        ("bare-newline",),
        (),
    )
    yield "NULs", b"\0\0\0", "text/plain", ("\0\0\0",), ("bad-header-line",), ()
    yield "a header of 10,000 fields", b"X-A: b\r\n" * 10000 + b"\r\nx", "text/plain", ("x",), (), ()
    long = b"X-A: " + b"b" * (1024 * 1024 - 7 - 12) + b"\r\nSubject: x\r\n"
    yield "a header of 1 MiB", long + b"\r\nx", "text/plain", ("x",), (), ()
    yield (
        "a header longer than 1 MiB",
        b"X-B: c\r\n" + long + b"\r\nx",
        "text/plain",
        ("Subject: x\n\nx",),
        ("header-too-long",),
        (),
    )
