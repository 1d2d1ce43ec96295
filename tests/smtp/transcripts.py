"""
Wire transcripts: what a client sends, the codes it gets, the texts that are taken.

Each is fed whole, byte by byte, in odd pieces and with a tail.  Names cite the RFC, the limit or the attack.
"""

from __future__ import annotations

from tests.smtp.extension_transcripts import EXTENSION_TRANSCRIPTS
from tests.smtp.phrases import (
    AUTH,
    DATA,
    EHLO,
    HELO,
    MAIL,
    OPEN,
    RCPT,
    START,
    TEXT,
    Transcript,
    b64,
    limits,
    message,
)

TRANSCRIPTS = [
    # -- order of commands -------------------------------------------------------------------------------------
    Transcript("a transaction, RFC 5321 D.1", START + TEXT + b".\r\n", f"{OPEN} 250", (TEXT,)),
    Transcript("the same after HELO", HELO + MAIL + RCPT + DATA + TEXT + b".\r\n", f"{OPEN} 250", (TEXT,)),
    Transcript("verbs in any case", b"ehlo x\r\nMail from:<a@b>\r\nrcpt TO:<c@d>\r\nRsEt\r\n", "250 250 250 250"),
    Transcript(
        "MAIL, RCPT, DATA, AUTH, STARTTLS before EHLO",
        MAIL + RCPT + DATA + b"AUTH PLAIN\r\nSTARTTLS\r\n",
        "503 503 503 503 503",
    ),
    Transcript("RCPT before MAIL, gen_smtp D9", EHLO + RCPT, "250 503"),
    Transcript("DATA before MAIL", EHLO + DATA, "250 503"),
    Transcript("DATA before RCPT", EHLO + MAIL + DATA, "250 250 503"),
    Transcript("nested MAIL leaves the state", EHLO + MAIL + MAIL + RCPT, "250 250 503 250"),
    Transcript("NOOP, HELP, VRFY, RSET at any time", b"NOOP\r\nHELP\r\nVRFY x\r\nRSET\r\n", "250 214 252 250"),
    Transcript(
        "NOOP, RSET and QUIT take arguments", b"NOOP x y\r\nRSET z\r\nQUIT now\r\n", "250 250 221", closed=True
    ),
    Transcript("a second EHLO resets, RFC 5321 4.1.4", EHLO + MAIL + EHLO + RCPT, "250 250 250 503"),
    Transcript("a refused EHLO leaves the state", EHLO + MAIL + b"EHLO\r\n" + RCPT, "250 250 501 250"),
    Transcript(
        "RSET ends the transaction", EHLO + MAIL + RCPT + b"RSET\r\n" + DATA + MAIL, "250 250 250 250 503 250"
    ),
    Transcript(
        "two messages in one connection",
        START + TEXT + b".\r\n" + MAIL + RCPT + DATA + b"2\r\n.\r\nQUIT\r\n",
        f"{OPEN} 250 250 250 354 250 221",
        (TEXT, b"2\r\n"),
        closed=True,
    ),
    Transcript(
        "commands behind a message are one by one, gen_smtp D2",
        START + b".\r\nNOOP\r\nMAIL FROM:<e@f>\r\nRCPT TO:<g@h>\r\nDATA\r\n.\r\n",
        f"{OPEN} 250 250 250 250 354 250",
        (b"", b""),
    ),
    Transcript(
        "unknown and old commands", b"FOO\r\nEXPN x\r\nTURN\r\nSEND FROM:<a@b>\r\nETRN x\r\n", "500 502 502 502 502"
    ),
    Transcript("an empty line", b"\r\n", "500"),
    Transcript("EHLO and HELO need a name, RFC 5321 4.1.1.1", b"EHLO\r\nHELO\r\nEHLO a b\r\n", "501 501 501"),
    Transcript("VRFY needs an argument", b"VRFY\r\n", "501"),
    Transcript("DATA takes none", EHLO + MAIL + RCPT + b"DATA now\r\n" + RCPT, "250 250 250 501 250"),
    Transcript(
        "trailing blanks are tolerated, RFC 5321 4.1.1", b"NOOP  \r\nEHLO x \r\nMAIL FROM:<a@b> \r\n", "250 250 250"
    ),
    Transcript(
        "blanks behind the colon, gen_smtp TS11", EHLO + b"MAIL FROM: <a@b>\r\nRCPT TO: <c@d>\r\n", "250 250 250"
    ),
    # -- paths and parameters ----------------------------------------------------------------------------------
    Transcript("the null sender", EHLO + b"MAIL FROM:<>\r\n", "250 250"),
    Transcript("the null recipient", EHLO + MAIL + b"RCPT TO:<>\r\n", "250 250 501"),
    Transcript(
        "postmaster without a domain, RFC 5321 4.5.1", EHLO + MAIL + b"RCPT TO:<Postmaster>\r\n", "250 250 250"
    ),
    Transcript(
        "but no other name without one", EHLO + MAIL + b"RCPT TO:<bob>\r\nMAIL FROM:<bob>\r\n", "250 250 501 503"
    ),
    Transcript(
        "MAIL and RCPT without their words",
        EHLO + b"MAIL <a@b>\r\nMAIL\r\n" + MAIL + b"RCPT FROM:<a@b>\r\n",
        "250 501 501 250 501",
    ),
    Transcript(
        "malformed paths",
        EHLO + b"MAIL FROM:<a@b\r\nMAIL FROM:<a@b>x\r\nMAIL FROM:<<a@b>>\r\nMAIL FROM:a@b>\r\n",
        "250 501 501 501 501",
    ),
    Transcript(
        "address literals, which gen_smtp refuses (S93)",
        EHLO + b"MAIL FROM:<a@[192.0.2.1]>\r\nRCPT TO:<b@[IPv6:2001:db8::1]>\r\nRCPT TO:<b@[300.1.1.1]>\r\n",
        "250 250 250 501",
    ),
    Transcript("SIZE", EHLO + b"MAIL FROM:<a@b> SIZE=1000\r\n", "250 250"),
    Transcript("SIZE over the limit, RFC 1870 6.1", EHLO + b"MAIL FROM:<a@b> SIZE=52428801\r\n", "250 552"),
    Transcript("SIZE at the limit", EHLO + b"MAIL FROM:<a@b> SIZE=52428800\r\n", "250 250"),
    Transcript(
        "SIZE=abc and others that are no numbers, gen_smtp D6",
        EHLO
        + b"".join(
            b"MAIL FROM:<a@b> SIZE%s\r\n" % value
            for value in (b"=abc", b"=-1", b"=+5", b"=1_0", b"=0x5", b"", b"=" + b"1" * 21)
        ),
        "250" + " 501" * 7,
    ),
    Transcript(
        "BODY", EHLO + b"MAIL FROM:<a@b> BODY=8bitmime\r\nRSET\r\nMAIL FROM:<a@b> BODY=7BIT\r\n", "250 250 250 250"
    ),
    Transcript(
        "BODY=BINARYMIME, gen_smtp D6",
        EHLO + b"MAIL FROM:<a@b> BODY\r\nMAIL FROM:<a@b> BODY=BINARYMIME\r\n" + RCPT + DATA,
        "250 501 250 250 503",
    ),
    Transcript("BODY values that nobody knows", EHLO + b"MAIL FROM:<a@b> BODY=9BIT\r\n", "250 504"),
    Transcript(
        "BODY=BINARYMIME where CHUNKING is off",
        EHLO + b"MAIL FROM:<a@b> BODY=BINARYMIME\r\n",
        "250 504",
        settings={"off": frozenset({"CHUNKING"})},
    ),
    Transcript(
        "unknown parameters, RFC 5321 4.1.1.11",
        EHLO + b"MAIL FROM:<a@b> FOO=1\r\n" + MAIL + b"RCPT TO:<a@b> BAR\r\n",
        "250 555 250 555",
    ),
    Transcript("a parameter twice", EHLO + b"MAIL FROM:<a@b> SIZE=1 SIZE=1\r\n", "250 501"),
    Transcript(
        "UTF-8 without SMTPUTF8, RFC 6531 3.5",
        EHLO + "MAIL FROM:<ä@b>\r\n".encode() + MAIL + "RCPT TO:<ö@d>\r\n".encode(),
        "250 553 250 553",
    ),
    Transcript(
        "UTF-8 with it", EHLO + "MAIL FROM:<ä@exämple.org> SMTPUTF8\r\nRCPT TO:<ö@d>\r\n".encode(), "250 250 250"
    ),
    Transcript("octets that are not UTF-8", EHLO + b"MAIL FROM:<\xff@b> SMTPUTF8\r\n", "250 501"),
    Transcript("SMTPUTF8=x", EHLO + b"MAIL FROM:<a@b> SMTPUTF8=x\r\n", "250 501"),
    Transcript("AUTH= only where AUTH is, RFC 4954 5", EHLO + b"MAIL FROM:<a@b> AUTH=<>\r\n", "250 555"),
    # -- recipients --------------------------------------------------------------------------------------------
    Transcript(
        "each recipient has its own reply",
        EHLO + MAIL + RCPT + b"RCPT TO:<unknown@d>\r\nRCPT TO:<later@d>\r\n" + RCPT + DATA + TEXT + b".\r\n",
        "250 250 250 550 451 250 354 250",
        (TEXT,),
    ),
    Transcript(
        "no recipient stands: the text is no commands, RFC 2920 3.1",
        EHLO + MAIL + b"RCPT TO:<unknown@d>\r\n" + DATA + b"VRFY someuser\r\nQUIT\r\n.\r\n",
        "250 250 550 354 554",
    ),
    Transcript(
        "a client that knows sends the dot alone",
        EHLO + MAIL + b"RCPT TO:<denied@d>\r\n" + DATA + b".\r\n",
        "250 250 550 354 554",
    ),
    Transcript(
        "what is pipelined behind a refused MAIL is no command, RFC 2920 3.1",
        EHLO + b"MAIL FROM:<later@b>\r\n" + RCPT * 2 + DATA + b"VRFY someuser\r\nQUIT\r\n.\r\n" + MAIL + RCPT,
        "250 451 503 503 354 554 250 250",
    ),
    Transcript(
        "recipients behind a refused MAIL are no errors, as many as a message may have",
        EHLO + b"MAIL FROM:<denied@b>\r\n" + RCPT * 100 + b"NOOP\r\n" + RCPT * 2 + b"NOOP\r\n",
        "250 550 " + "503 " * 100 + "250 503 421",
        closed=True,
        settings=limits(errors=3, recipients=100),
    ),
    Transcript(
        "RSET and an accepted MAIL end what a refused MAIL has begun",
        EHLO + b"MAIL FROM:<denied@b>\r\nRSET\r\n" + DATA + b"MAIL FROM:<denied@b>\r\n" + MAIL + DATA,
        "250 550 250 503 550 250 503",
    ),
    Transcript(
        "a MAIL that is refused for a while moves no mail, and ends as idle commands do",
        EHLO + b"MAIL FROM:<later@b>\r\n" * 10,
        "250 " + "451 " * 9 + "421",
        closed=True,
        settings=limits(idle_commands=10),
    ),
    Transcript("DATA refused", EHLO + b"MAIL FROM:<datalater@b>\r\n" + RCPT + DATA + MAIL, "250 250 250 451 250"),
    Transcript(
        "the message refused",
        EHLO + b"MAIL FROM:<enddenied@b>\r\n" + RCPT + DATA + TEXT + b".\r\n" + MAIL,
        "250 250 250 354 550 250",
    ),
    Transcript("MAIL refused", EHLO + b"MAIL FROM:<denied@b>\r\n" + RCPT, "250 550 503"),
    Transcript("421 ends it", EHLO + b"MAIL FROM:<bye@b>\r\n" + RCPT, "250 421", closed=True),
    Transcript(
        "421 at the end of a message too",
        EHLO + b"MAIL FROM:<endbye@b>\r\n" + RCPT + DATA + b".\r\n" + RCPT,
        "250 250 250 354 421",
        closed=True,
    ),
    Transcript(
        "recipients at the limit", EHLO + MAIL + RCPT * 100, "250 250" + " 250" * 100, settings=limits(recipients=100)
    ),
    Transcript(
        "recipients over it, RFC 5321 4.5.3.1.10",
        EHLO + MAIL + RCPT * 101 + DATA + b".\r\n",
        "250 250" + " 250" * 100 + " 452 354 250",
        (b"",),
        settings=limits(recipients=100),
    ),
    Transcript(
        "unknown recipients below the limit",
        EHLO + MAIL + b"RCPT TO:<unknown@d>\r\n" * 2 + RCPT,
        "250 250 550 550 250",
        settings=limits(unknown_recipients=3),
    ),
    Transcript(
        "unknown recipients at it",
        EHLO + MAIL + b"RCPT TO:<unknown@d>\r\n" * 3 + RCPT,
        "250 250 550 550 421",
        closed=True,
        settings=limits(unknown_recipients=3),
    ),
    # -- text --------------------------------------------------------------------------------------------------
    Transcript("an empty message, gen_smtp D14", **message(b".\r\n", taken=b"")),
    Transcript("dot-stuffing, RFC 5321 4.5.2", **message(b"..a\r\n...\r\n.b\r\n.\r\n", taken=b".a\r\n..\r\nb\r\n")),
    Transcript("a text line with a dot and blanks", **message(b". \r\n .\r\n.\r\n", taken=b" \r\n .\r\n")),
    Transcript("8-bit and NUL pass", **message(b"\x00\xff\xfe\r\n.\r\n", taken=b"\x00\xff\xfe\r\n")),
    Transcript("smuggling: LF dot LF", **message(b"hi\n.\nMAIL FROM:<e@e>\r\n.\r\n", "550")),
    Transcript("smuggling: LF dot CRLF", **message(b"hi\n.\r\nMAIL FROM:<e@e>\r\n.\r\n", "550")),
    Transcript("smuggling: CRLF dot LF", **message(b"hi\r\n.\nMAIL FROM:<e@e>\r\n.\r\n", "550")),
    Transcript("smuggling: CR dot CR", **message(b"hi\r.\rMAIL FROM:<e@e>\r\n.\r\n", "550")),
    Transcript("smuggling: CRLF dot CR", **message(b"hi\r\n.\rMAIL FROM:<e@e>\r\n.\r\n", "550")),
    Transcript("smuggling: CR LF NUL dot", **message(b"hi\r\n\0.\r\n.\r\n", "250", b"hi\r\n\0.\r\n")),
    Transcript("smuggling: CR CR LF dot", **message(b"hi\r\r\n.\r\n", "550")),
    Transcript(
        "smuggling under fix, gen_smtp D1",
        **message(
            b"hi\n.\nMAIL FROM:<e@e>\r.\r\r\n.\r\n",
            "250",
            b"hi\r\n.\r\nMAIL FROM:<e@e>\r\n.\r\n\r\n",
            bare_newlines="fix",
        ),
    ),
    Transcript(
        "smuggling under strip",
        **message(b"hi\n.\nMAIL\r\n.\n\r\n.\r\n", "250", b"hi.MAIL\r\n\r\n", bare_newlines="strip"),
    ),
    Transcript(
        "smuggling under ignore",
        **message(b"hi\n.\nMAIL\r.\r\r\n.\r\n", "250", b"hi\n.\nMAIL\r.\r\r\n", bare_newlines="ignore"),
    ),
    Transcript("a bare CR at the end", **message(b"hi\r.\r\n.\r\n", "250", b"hi\r\n.\r\n", bare_newlines="fix")),
    Transcript(
        "the body of a refused message is no commands, gen_smtp D4",
        **message(b"a\nb\r\nVRFY someuser\r\nQUIT\r\n.\r\nNOOP\r\n", "550 250"),
    ),
    Transcript(
        "a message at the size limit",
        **message(b"x" * 65534 + b"\r\n.\r\n", "250", b"x" * 65534 + b"\r\n", **limits(message_size=65536)),
    ),
    Transcript(
        "one octet over it, then the next command",
        **message(b"x" * 65535 + b"\r\n.\r\nNOOP\r\n", "552 250", **limits(message_size=65536)),
    ),
    Transcript(
        "dots are not counted, RFC 1870 3",
        **message(
            b"..\r\n" + b"x" * 65531 + b"\r\n.\r\n",
            "250",
            b".\r\n" + b"x" * 65531 + b"\r\n",
            **limits(message_size=65536),
        ),
    ),
    Transcript(
        "a text line at the limit",
        **message(b"x" * 998 + b"\r\ny\r\n.\r\n", "250", b"x" * 998 + b"\r\ny\r\n", **limits(text_line=998)),
    ),
    Transcript(
        "a text line over it", **message(b"y\r\n" + b"x" * 999 + b"\r\ny\r\n.\r\n", "554", **limits(text_line=998))
    ),
    Transcript(
        "Received fields at the limit",
        **message(b"Received: x\r\n" * 100 + b"\r\n.\r\n", "250", b"Received: x\r\n" * 100 + b"\r\n"),
    ),
    Transcript("Received fields over it, RFC 5321 6.3", **message(b"received : x\r\n" * 101 + b"\r\n.\r\n", "554")),
    Transcript(
        "Received in the body is text",
        **message(
            b"A: b\r\n\r\n" + b"Received: x\r\n" * 101 + b".\r\n", "250", b"A: b\r\n\r\n" + b"Received: x\r\n" * 101
        ),
    ),
    Transcript(
        "header lines at the limit",
        **message(b"A: b\r\n" * 100 + b"\r\n.\r\n", "250", b"A: b\r\n" * 100 + b"\r\n", **limits(header_lines=100)),
    ),
    Transcript(
        "header lines over it", **message(b"A: b\r\n" * 101 + b"\r\n.\r\n", "554", **limits(header_lines=100))
    ),
    Transcript(
        "a header at its size",
        **message(
            b"A: " + b"b" * 8187 + b"\r\n\r\nbody\r\n.\r\n",
            "250",
            b"A: " + b"b" * 8187 + b"\r\n\r\nbody\r\n",
            **limits(header_size=8192),
        ),
    ),
    Transcript(
        "a header over it",
        **message(b"A: " + b"b" * 8188 + b"\r\n\r\nbody\r\n.\r\n", "554", **limits(header_size=8192)),
    ),
    # -- command lines -----------------------------------------------------------------------------------------
    Transcript(
        "a command line at the limit",
        b"NOOP " + b"x" * 505 + b"\r\nNOOP\r\n",
        "250 250",
        settings=limits(command_line=512),
    ),
    Transcript(
        "a command line over it is one mistake, gen_smtp D13",
        b"NOOP " + b"x" * 506 + b"\r\nNOOP\r\n",
        "500 250",
        settings=limits(command_line=512),
    ),
    Transcript("a line without an end", b"x" * 1025, "421", closed=True, settings=limits(line_without_end=1024)),
    Transcript(
        "a line that long with an end",
        b"x" * 1025 + b"\r\nNOOP\r\n",
        "421",
        closed=True,
        settings=limits(line_without_end=1024),
    ),
    Transcript("a bare LF ends no command", b"NOOP\nEHLO x\r\nNOOP\r\n", "500 250"),
    Transcript("a bare CR ends none", b"NOOP\rEHLO x\r\nNOOP\r\n", "500 250"),
    Transcript("a NUL", b"NOOP\0\r\n", "500"),
    # -- limits of a session -----------------------------------------------------------------------------------
    Transcript("errors below the limit", b"FOO\r\n" * 19 + b"NOOP\r\n", "500 " * 19 + "250"),
    Transcript("errors at it", b"FOO\r\n" * 20 + b"NOOP\r\n", "500 " * 19 + "421", closed=True),
    Transcript("idle commands at the limit", b"NOOP\r\n" * 10, "250 " * 9 + "250", settings=limits(idle_commands=10)),
    Transcript(
        "idle commands over it",
        b"NOOP\r\n" * 11 + b"QUIT\r\n",
        "250 " * 10 + "421",
        closed=True,
        settings=limits(idle_commands=10),
    ),
    Transcript(
        "a message lets them start again",
        b"NOOP\r\n" * 8 + START + b".\r\n" + b"NOOP\r\n" * 10,
        "250 " * 8 + f"{OPEN} 250" + " 250" * 10,
        (b"",),
        settings=limits(idle_commands=10),
    ),
    Transcript(
        "messages over the limit",
        START + b".\r\n" + MAIL,
        f"{OPEN} 250 421",
        (b"",),
        closed=True,
        settings=limits(messages_per_connection=1),
    ),
    Transcript("an HTTP request, ALPACA", b"POST / HTTP/1.1\r\nHost: x\r\n\r\n" + START, "421", closed=True),
    Transcript("a verb that only begins like one", b"GETX\r\nNOOP\r\n", "500 250"),
    # -- STARTTLS ----------------------------------------------------------------------------------------------
    Transcript("STARTTLS where it is off", EHLO + b"STARTTLS\r\n", "250 500"),
    Transcript("STARTTLS with an argument", EHLO + b"STARTTLS now\r\n", "250 501", settings={"starttls": True}),
    Transcript(
        "STARTTLS in TLS, gen_smtp D7", EHLO + b"STARTTLS\r\n", "250 503", settings={"starttls": True}, tls=True
    ),
    Transcript("TLS required", EHLO + MAIL, "250 530", settings={"starttls": True, "tls_required": True}),
    # -- AUTH --------------------------------------------------------------------------------------------------
    Transcript("AUTH where it is off", EHLO + b"AUTH PLAIN\r\n", "250 502", tls=True),
    Transcript("AUTH before EHLO", b"AUTH CRAZY\r\n", "503", settings=AUTH, tls=True),
    Transcript("AUTH in clear text, gen_smtp D16", EHLO + b"AUTH PLAIN AGEAYg==\r\n", "250 538", settings=AUTH),
    Transcript("an unknown mechanism", EHLO + b"AUTH CRAZY\r\nAUTH\r\n", "250 504 501", settings=AUTH, tls=True),
    Transcript(
        "PLAIN in two steps", EHLO + b"AUTH PLAIN\r\n" + b64(b"\0a@b\0secret"), "250 334 235", settings=AUTH, tls=True
    ),
    Transcript("PLAIN at once", EHLO + b"AUTH PLAIN " + b64(b"\0a@b\0secret"), "250 235", settings=AUTH, tls=True),
    Transcript(
        "PLAIN with itself as identity",
        EHLO + b"AUTH PLAIN " + b64(b"a@b\0a@b\0secret"),
        "250 235",
        settings=AUTH,
        tls=True,
    ),
    Transcript(
        "LOGIN", EHLO + b"AUTH LOGIN\r\n" + b64(b"a@b") + b64(b"secret"), "250 334 334 235", settings=AUTH, tls=True
    ),
    Transcript(
        "LOGIN with an initial response, gen_smtp D5",
        EHLO + b"AUTH LOGIN " + b64(b"a@b") + b64(b"secret"),
        "250 334 235",
        settings=AUTH,
        tls=True,
    ),
    Transcript(
        "CRAM-MD5, RFC 2195 2",
        EHLO + b"AUTH CRAM-MD5\r\n" + b64(b"tim b913a602c7eda7a495b4e6e7334d3890"),
        "250 334 235",
        settings=AUTH,
        tls=True,
    ),
    Transcript(
        "wrong passwords",
        EHLO + b"AUTH PLAIN " + b64(b"\0a@b\0x") + b"AUTH PLAIN " + b64(b"\0a@b\0secret"),
        "250 535 235",
        settings=AUTH,
        tls=True,
    ),
    Transcript(
        "wrong passwords at the limit",
        EHLO + (b"AUTH PLAIN " + b64(b"\0a@b\0x")) * 3 + b"NOOP\r\n",
        "250 535 535 421",
        settings=AUTH,
        tls=True,
        closed=True,
    ),
    Transcript(
        "AUTH twice", EHLO + (b"AUTH PLAIN " + b64(b"\0a@b\0secret")) * 2, "250 235 503", settings=AUTH, tls=True
    ),
    Transcript(
        "AUTH in a transaction, RFC 4954 4",
        EHLO + MAIL + b"AUTH PLAIN\r\n" + RCPT,
        "250 250 503 250",
        settings=AUTH,
        tls=True,
    ),
    Transcript(
        "cancelled, gen_smtp D5", EHLO + b"AUTH PLAIN\r\n*\r\nNOOP\r\n", "250 334 501 250", settings=AUTH, tls=True
    ),
    Transcript(
        "no base64, gen_smtp D5",
        EHLO + b"AUTH PLAIN !\r\nAUTH LOGIN\r\n%%\r\nNOOP\r\n",
        "250 501 334 501 250",
        settings=AUTH,
        tls=True,
    ),
    Transcript(
        "PLAIN with one field, gen_smtp D5",
        EHLO + b"AUTH PLAIN " + b64(b"abc") + b"NOOP\r\n",
        "250 501 250",
        settings=AUTH,
        tls=True,
    ),
    Transcript(
        "an empty initial response", EHLO + b"AUTH PLAIN =\r\nNOOP\r\n", "250 501 250", settings=AUTH, tls=True
    ),
    Transcript(
        "a response at the limit",
        EHLO + b"AUTH PLAIN\r\n" + b"A" * 508 + b"\r\n",
        "250 334 501",
        settings=AUTH | limits(auth_line=510),
        tls=True,
    ),
    Transcript(
        "a response over it, RFC 4954 4",
        EHLO + b"AUTH PLAIN\r\n" + b"A" * 512 + b"\r\nNOOP\r\n",
        "250 334 500 250",
        settings=AUTH | limits(auth_line=513),
        tls=True,
    ),
    Transcript(
        "AUTH required",
        EHLO + MAIL + b"AUTH PLAIN " + b64(b"\0a@b\0secret") + MAIL,
        "250 530 235 250",
        settings=AUTH | {"auth_required": True},
        tls=True,
    ),
    Transcript(
        "AUTH= where AUTH is",
        EHLO + b"MAIL FROM:<a@b> AUTH=<>\r\nRSET\r\nMAIL FROM:<a@b> AUTH=e+3Dmc2@example.com\r\n"
        b"RSET\r\nMAIL FROM:<a@b> AUTH=x\r\n",
        "250 250 250 250 250 501",
        settings=AUTH,
        tls=True,
    ),
    *EXTENSION_TRANSCRIPTS,
]
