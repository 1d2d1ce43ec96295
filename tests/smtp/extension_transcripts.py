"""Wire transcripts of the extensions: CHUNKING, DSN, REQUIRETLS, FUTURERELEASE, XCLIENT, VRFY; and of LMTP."""

from __future__ import annotations

from tests.smtp.phrases import (
    BDAT,
    DATA,
    EHLO,
    HELO,
    MAIL,
    RCPT,
    SENT,
    TEXT,
    Transcript,
    chunk,
    limits,
)

EXTENSION_TRANSCRIPTS = [
    # -- BDAT, RFC 3030 ----------------------------------------------------------------------------------------
    Transcript("one chunk", BDAT + chunk(TEXT, last=True) + b"NOOP\r\n", f"{SENT} 250 250", (TEXT,)),
    Transcript(
        "several chunks, one of no octets, and LAST alone",
        BDAT + chunk(TEXT[:7]) + chunk(b"") + chunk(TEXT[7:]) + b"BDAT 0 LAST\r\n",
        f"{SENT} 250 250 250 250",
        (TEXT,),
    ),
    Transcript("an empty message in a chunk", BDAT + b"BDAT 0 LAST\r\n", f"{SENT} 250", (b"",)),
    Transcript("nothing is stuffed", BDAT + chunk(b"..a\r\n.\r\nb", last=True), f"{SENT} 250", (b"..a\r\n.\r\nb",)),
    Transcript(
        "a CRLF in two chunks", BDAT + chunk(b"a\r") + chunk(b"\nb", last=True), f"{SENT} 250 250", (b"a\r\nb",)
    ),
    Transcript("a bare CR at the end of chunks", BDAT + chunk(b"a\r", last=True), f"{SENT} 550"),
    Transcript("a bare LF in a chunk", BDAT + chunk(b"a\n") + chunk(b"b", last=True), f"{SENT} 550 503"),
    Transcript(
        "binary has no lines",
        EHLO
        + b"MAIL FROM:<a@b> BODY=BINARYMIME\r\n"
        + RCPT
        + chunk(b"A: b\r\n\r\n\n\r\0\r" + b"x" * 2000, last=True),
        "250 250 250 250",
        (b"A: b\r\n\r\n\n\r\0\r" + b"x" * 2000,),
        settings=limits(text_line=998),
    ),
    Transcript("RSET between chunks", BDAT + chunk(b"a") + b"RSET\r\n" + MAIL, f"{SENT} 250 250 250"),
    Transcript(
        "NOOP between chunks",
        BDAT + chunk(b"a") + b"NOOP\r\n" + chunk(b"b", last=True),
        f"{SENT} 250 250 250",
        (b"ab",),
    ),
    Transcript("DATA, MAIL and RCPT behind BDAT", BDAT + chunk(b"a") + DATA + MAIL + RCPT, f"{SENT} 250 503 503 503"),
    Transcript("BDAT behind LAST", BDAT + chunk(b"a", last=True) + chunk(b"QUIT\r\n"), f"{SENT} 250 503", (b"a",)),
    Transcript(
        "octets of a refused chunk are no commands",
        EHLO + MAIL + chunk(b"QUIT\r\n") + chunk(b"QUIT\r\n", last=True),
        "250 250 503 503",
    ),
    Transcript(
        "no valid recipient of a chunk",
        EHLO + MAIL + b"RCPT TO:<unknown@d>\r\n" + chunk(b"QUIT\r\n", last=True) + b"NOOP\r\n",
        "250 250 550 554 250",
    ),
    Transcript("a chunk before EHLO", chunk(b"QUIT\r\n", last=True) + b"NOOP\r\n", "503 250"),
    Transcript(
        "the place for chunks is refused",
        EHLO + b"MAIL FROM:<datalater@b>\r\n" + RCPT + chunk(b"QUIT\r\n") + chunk(b"b", last=True),
        "250 250 250 451 503",
    ),
    Transcript(
        "chunks that are too big",
        BDAT + chunk(b"x" * 60000) + chunk(b"x" * 5537) + chunk(b"x", last=True),
        f"{SENT} 250 552 503",
        settings=limits(message_size=65536),
    ),
    Transcript(
        "chunks at the limit",
        BDAT + chunk(b"x" * 60000) + chunk(b"x" * 5536, last=True),
        f"{SENT} 250 250",
        (b"x" * 65536,),
        settings=limits(message_size=65536),
    ),
    Transcript(
        "a chunk without measure ends it",
        BDAT + b"BDAT 99999999999999999999 LAST\r\nQUIT\r\n",
        f"{SENT} 552",
        closed=True,
    ),
    Transcript("a chunk of no known size ends it", BDAT + b"BDAT x\r\nNOOP\r\n", f"{SENT} 501", closed=True),
    Transcript("BDAT without a size", BDAT + b"BDAT\r\n", f"{SENT} 501", closed=True),
    Transcript(
        "CHUNKING switched off",
        BDAT + chunk(b"a"),
        f"{SENT} 501",
        closed=True,
        settings={"off": frozenset({"CHUNKING"})},
    ),
    Transcript(
        "the end of chunks refused",
        EHLO + b"MAIL FROM:<enddenied@b>\r\n" + RCPT + chunk(b"a", last=True) + MAIL,
        "250 250 250 550 250",
    ),
    # -- DSN, REQUIRETLS, FUTURERELEASE ------------------------------------------------------------------------
    Transcript("RET and ENVID, RFC 3461 4.3", EHLO + b"MAIL FROM:<a@b> RET=hdrs ENVID=QQ+2B314159\r\n", "250 250"),
    Transcript(
        "malformed RET and ENVID",
        EHLO + b"MAIL FROM:<a@b> RET=ALL\r\nMAIL FROM:<a@b> ENVID\r\n"
        b"MAIL FROM:<a@b> ENVID=+0A\r\nMAIL FROM:<a@b> ENVID="
        + b"x" * 101
        + b"\r\nMAIL FROM:<a@b> ENVID="
        + b"x" * 100
        + b"\r\n",
        "250 501 501 501 501 250",
    ),
    Transcript(
        "NOTIFY and ORCPT, gen_smtp D10",
        EHLO + MAIL + b"RCPT TO:<b@c> NOTIFY=SUCCESS,delay ORCPT=rfc822;b+2Bx@c\r\n"
        b"RCPT TO:<b@c> NOTIFY=NEVER\r\nRCPT TO:<b@c> ORCPT=utf-8;b@c\r\n",
        "250 250 250 250 250",
    ),
    Transcript(
        "malformed NOTIFY and ORCPT",
        EHLO
        + MAIL
        + b"".join(
            b"RCPT TO:<b@c> %s\r\n" % word
            for word in (
                b"NOTIFY=NEVER,DELAY",
                b"NOTIFY=DELAY,DELAY",
                b"NOTIFY=",
                b"NOTIFY",
                b"ORCPT=b@c",
                b"ORCPT=rfc822;",
                b"ORCPT=rfc822;+x",
                b"ORCPT=rfc822;" + b"x" * 494,
            )
        ),
        "250 250" + " 501" * 8,
    ),
    Transcript(
        "DSN switched off",
        EHLO + b"MAIL FROM:<a@b> RET=HDRS\r\n" + MAIL + b"RCPT TO:<b@c> NOTIFY=NEVER\r\n",
        "250 555 250 555",
        settings={"off": frozenset({"DSN"})},
    ),
    Transcript(
        "REQUIRETLS in TLS, RFC 8689",
        EHLO + b"MAIL FROM:<a@b> REQUIRETLS=1\r\nMAIL FROM:<a@b> REQUIRETLS\r\n",
        "250 501 250",
        tls=True,
    ),
    Transcript("REQUIRETLS in clear text", EHLO + b"MAIL FROM:<a@b> REQUIRETLS\r\n", "250 555"),
    Transcript(
        "HOLDFOR and HOLDUNTIL, RFC 4865",
        EHLO
        + b"".join(
            b"MAIL FROM:<a@b> %s\r\nRSET\r\n" % word
            for word in (
                b"HOLDFOR=3600",
                b"HOLDUNTIL=2026-11-20T17:40:00Z",
                b"HOLDFOR=x",
                b"HOLDUNTIL=tomorrow",
                b"HOLDUNTIL=2026-02-30T17:40:00Z",
                b"HOLDFOR=1 HOLDUNTIL=2026-11-20T17:40:00Z",
                b"HOLDFOR=3601",
                b"HOLDFOR=0",
                b"HOLDUNTIL=2026-11-20T18:40:00Z",
                b"HOLDUNTIL=2026-11-20T18:40:01Z",
                b"HOLDUNTIL=2026-11-20T19:40:00+01:00",
                b"HOLDUNTIL=2026-11-20T19:40:01+01:00",
                b"HOLDUNTIL=0001-01-01T00:00:00+23:59",
                b"HOLDUNTIL=9999-12-31T23:59:59-23:59",
            )
        ),
        "250 250 250 250 250 501 250 501 250 501 250 501 250 501 250 250 250 250 250 501 250 250 250 501 250 250 250"
        " 501 250",
        settings={"hold": 3600, "now": lambda: 1_795_196_400.0},
    ),
    Transcript("HOLDFOR where nothing is held", EHLO + b"MAIL FROM:<a@b> HOLDFOR=60\r\n", "250 555"),
    # -- the rest ----------------------------------------------------------------------------------------------
    Transcript(
        "TLS required, RFC 3207 4 and Windmill's X41",
        b"NOOP\r\n" + EHLO + MAIL + b"RSET\r\nHELO x\r\nVRFY x\r\n" + chunk(b"QUIT\r\n") + b"QUIT\r\n",
        "250 250 530 530 530 530 530 221",
        closed=True,
        settings={"starttls": True, "tls_required": True},
    ),
    Transcript(
        "VRFY where it is allowed",
        b"VRFY <b@example.org>\r\nVRFY unknown@example.org\r\nVRFY <x@y\r\nVRFY bob\r\nVRFY \xc3\xa4@d\r\n",
        "250 550 501 252 252",
        settings={"vrfy": True},
    ),
    Transcript("XCLIENT of a stranger", EHLO + b"XCLIENT ADDR=192.0.2.9\r\n", "250 500"),
    Transcript(
        "XCLIENT of a trusted front end begins anew",
        EHLO
        + b"XCLIENT NAME=[UNAVAILABLE] ADDR=IPv6:2001:db8::9 PORT=99\r\n"
        + MAIL
        + EHLO
        + MAIL
        + b"XCLIENT ADDR=192.0.2.9\r\n",
        "250 220 503 250 250 503",
        settings={"xclient": True},
    ),
    Transcript(
        "malformed XCLIENT",
        EHLO + b"XCLIENT\r\nXCLIENT FOO=1\r\nXCLIENT ADDR=x\r\nXCLIENT PORT=0\r\nXCLIENT ADDR\r\n",
        "250 501 501 501 501 501",
        settings={"xclient": True},
    ),
]

#: The same for LMTP (RFC 2033); transcripts of SMTP that it shares are not repeated.
LHLO = b"LHLO client.example.net\r\n"
TWO = LHLO + MAIL + RCPT + b"RCPT TO:<c@example.org>\r\n"
LMTP_TRANSCRIPTS = [
    Transcript("EHLO and HELO are refused, gen_smtp TS14", EHLO + HELO + LHLO, "500 500 250"),
    Transcript("LHLO needs a name", b"LHLO\r\n", "501"),
    Transcript("MAIL before LHLO", MAIL, "503"),
    Transcript(
        "a reply for each recipient",
        TWO + DATA + TEXT + b".\r\nQUIT\r\n",
        "250 250 250 250 354 250 250 221",
        (TEXT,),
        closed=True,
    ),
    Transcript(
        "also for the same one twice",
        LHLO + MAIL + RCPT + RCPT + DATA + b".\r\n",
        "250 250 250 250 354 250 250",
        (b"",),
    ),
    Transcript(
        "a refused recipient has none",
        LHLO + MAIL + RCPT + b"RCPT TO:<unknown@d>\r\n" + DATA + b".\r\n",
        "250 250 250 550 354 250",
        (b"",),
    ),
    Transcript(
        "one answer for all",
        LHLO + b"MAIL FROM:<enddenied@b>\r\n" + RCPT + RCPT + DATA + b".\r\n",
        "250 250 250 250 354 550 550",
    ),
    Transcript(
        "an answer for each",
        LHLO + b"MAIL FROM:<endmixed@b>\r\n" + RCPT + RCPT + DATA + b".\r\n",
        "250 250 250 250 354 250 452",
        (b"",),
    ),
    Transcript(
        "too few answers",
        LHLO + b"MAIL FROM:<endfew@b>\r\n" + RCPT + RCPT + DATA + b".\r\n",
        "250 250 250 250 354 451 451",
        (b"",),
    ),
    Transcript("no recipient, RFC 2033 4.2", LHLO + MAIL + b"RCPT TO:<unknown@d>\r\n" + DATA, "250 250 550 503"),
    Transcript("a message that failed", TWO + DATA + b"a\nb\r\n.\r\n", "250 250 250 250 354 550 550"),
    Transcript(
        "chunks: one reply, the last with all",
        TWO + chunk(b"a") + chunk(b"b", last=True),
        "250 250 250 250 250 250 250",
        (b"ab",),
    ),
]
