"""
`python -m bench.mime`: how fast mails are decoded, beside Python's email package.

In: options (`--help`).  Out: a table on stdout: microseconds for each mail, and how many times as long others take.
Mails are made here, the same in each run: short plain ones, text with HTML, newsletters, attachments, forwarded ones,
with the header sections that mails have after some hops.  `--odd` takes the odd mails of tests/mime instead,
`--large` mails of one text or file of 100 kB, `--folder` files.

What is measured: "structure" is the tree from octets in memory, the Subject, and the content type of each part.
"content" is that, and the octets of each leaf without their transfer encoding.  "text" is that, and the text of each
text/... leaf, as the package offers it (compat32 has no such call, so that octets are decoded by the charset that it
tells).  "written again" is to decode a mail and to encode it; not measured with `--odd`, as the others fail on some.
"new" is to make and encode a mail with text, HTML and a file of 10 kB.  Rounds take turns; the best of each counts.
"memory" is what Python allocates at most while a mail with one attachment of `--megabytes` is decoded from a file and
its attachment is read in blocks.
"""

from __future__ import annotations

import argparse
import base64
import email.message
import email.parser
import email.policy
import email.utils
import importlib
import quopri
import random
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path

from mailserver.mime import Attachment, Mail, Part, decode, encode

#: What is done with a mail.
Work = Callable[[bytes], object]

_WORDS = ("the", "mail", "server", "reads", "each", "message", "once", "and", "keeps", "it", "for", "tomorrow")


def _text(dice: random.Random, words: int) -> str:
    lines = [" ".join(dice.choice(_WORDS) for _ in range(11)) for _ in range(words // 11)]
    return "\r\n".join(lines) + "\r\n"


def _head(dice: random.Random, kind: str, number: int) -> str:
    hops = "".join(
        f"Received: from mx{hop}.example.net (mx{hop}.example.net [192.0.2.{hop}])\r\n\tby mx{hop + 1}.example.org"
        f" with ESMTPS id {dice.getrandbits(64):016x}\r\n"
        f"\tfor <bob@example.org>; Mon, 1 Jan 2024 00:00:0{hop} +0000\r\n"
        for hop in range(3)
    )
    signature = base64.b64encode(dice.randbytes(256)).decode()
    folded = "\r\n\t".join(signature[start : start + 70] for start in range(0, len(signature), 70))
    return (
        f"{hops}DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed; d=example.net; s=x;\r\n"
        f"\th=from:to:subject;\r\n\tb={folded}\r\n"
        f"From: Ann Example <ann@example.net>\r\nTo: Bob <bob@example.org>\r\n"
        f"Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?= number {number}\r\nDate: Mon, 1 Jan 2024 00:00:00 +0000\r\n"
        f"Message-ID: <{dice.getrandbits(64):016x}@example.net>\r\nList-Id: <list.example.net>\r\n"
        f"MIME-Version: 1.0\r\nContent-Type: {kind}\r\n"
    )


def _part(kind: str, body: str, *fields: str) -> str:
    return "".join(f"{field}\r\n" for field in (f"Content-Type: {kind}", *fields)) + "\r\n" + body + "\r\n"


def _join(boundary: str, parts: Sequence[str]) -> str:
    return "\r\n" + "".join(f"--{boundary}\r\n{part}" for part in parts) + f"--{boundary}--\r\n"


def _file(octets: bytes) -> str:
    body = base64.encodebytes(octets).decode().replace("\n", "\r\n")
    fields = ("Content-Transfer-Encoding: base64", 'Content-Disposition: attachment; filename="report.pdf"')
    return _part('application/pdf; name="report.pdf"', body, *fields)


def make_mails(count: int) -> list[bytes]:
    """`count` mails of all kinds, the same each time."""
    dice = random.Random(20240101)
    mails = []
    for number in range(count):
        plain = _part(
            "text/plain; charset=utf-8", _text(dice, dice.choice([30, 100, 400])), "Content-Transfer-Encoding: 7bit"
        )
        markup = "<p>" + "</p>\r\n<p>".join(_text(dice, dice.choice([100, 1000])).split("\r\n")) + "</p>"
        html = _part(
            'text/html; charset="utf-8"',
            quopri.encodestring(markup.encode()).decode().replace("\n", "\r\n").replace("\r\r", "\r"),
            "Content-Transfer-Encoding: quoted-printable",
        )
        both = 'multipart/alternative; boundary="----=_Part_a"'
        kind = number % 5
        if kind == 0:
            mail = _head(dice, "text/plain; charset=utf-8", number) + "\r\n" + _text(dice, dice.choice([30, 200]))
        elif kind in (1, 2):
            mail = _head(dice, both, number) + _join("----=_Part_a", [plain, html])
        elif kind == 3:
            file = _file(dice.randbytes(dice.choice([5_000, 30_000, 200_000])))
            inner = _part(both, _join("----=_Part_a", [plain, html]))
            mail = _head(dice, 'multipart/mixed; boundary="=_m"', number) + _join("=_m", [inner, file])
        else:
            forwarded = _head(dice, both, number) + _join("----=_Part_a", [plain, html])
            message = _part("message/rfc822", forwarded, "Content-Disposition: attachment")
            mail = _head(dice, 'multipart/mixed; boundary="=_m"', number) + _join("=_m", [plain, message])
        mails.append(mail.encode())
    return mails


def large_mails() -> list[bytes]:
    """One text or file of 100 kB in each: as it is, in quoted-printable, in base64."""
    dice = random.Random(20240101)
    text = ("Gr\u00fc\u00dfe, " + _text(dice, 55)) * 300
    mails: list[bytes] = []
    for charset in ("utf-8", "iso-8859-1"):
        kind, octets = f"text/plain; charset={charset}", text.encode(charset)
        bodies = {
            "8bit": octets,
            "quoted-printable": quopri.encodestring(octets.replace(b"\r\n", b"\n")).replace(b"\n", b"\r\n"),
            "base64": base64.encodebytes(octets).replace(b"\n", b"\r\n"),
        }
        for encoding, body in bodies.items():
            head = _head(dice, kind, len(mails)) + f"Content-Transfer-Encoding: {encoding}\r\n\r\n"
            mails.append(head.encode() + body)
    file = _file(dice.randbytes(100_000))
    return [*mails, (_head(dice, "multipart/mixed; boundary=b", 0) + _join("b", [file])).encode()]


def odd_mails() -> list[bytes]:
    """Those of tests/mime, without the ones that are made to be large."""
    cases = importlib.import_module("tests.mime.corpus").CASES
    return [case.octets for case in cases if len(case.octets) < 50_000]


def ours(octets: bytes) -> Part:
    """The structure."""
    root = decode(octets)
    root.headers.get("subject")
    for part in root.walk():
        part.content_type  # noqa: B018 - asking is the work
    return root


def ours_content(octets: bytes) -> None:
    """Structure and content."""
    for part in ours(octets).walk():
        if not part.parts:
            part.content  # noqa: B018 - as above


def ours_text(octets: bytes) -> None:
    """Structure, content and text."""
    for part in ours(octets).walk():
        if not part.parts:
            part.text if part.type == "text" else part.content  # noqa: B018 - as above


def ours_again(octets: bytes) -> None:
    """Decode and encode."""
    encode(decode(octets), bcc=True)


def _theirs(policy: email.policy.Policy[email.message.Message]) -> tuple[Work, Work, Work, Work]:
    parser = email.parser.BytesParser(policy=policy)

    def structure(octets: bytes) -> email.message.Message:
        root = parser.parsebytes(octets)
        str(root["subject"])
        for part in root.walk():
            part.get_content_type()
        return root

    def content(octets: bytes) -> None:
        for part in structure(octets).walk():
            if not part.is_multipart():
                part.get_payload(decode=True)

    def text(octets: bytes) -> None:
        for part in structure(octets).walk():
            if part.is_multipart():
                continue
            payload = part.get_payload(decode=True)
            if part.get_content_maintype() == "text" and isinstance(payload, bytes):
                try:
                    payload.decode(part.get_content_charset("utf-8"), "replace")
                except LookupError:
                    payload.decode("latin-1")

    def again(octets: bytes) -> None:
        parser.parsebytes(octets).as_bytes()

    return structure, content, text, again


def _seconds(work: Work, mails: Sequence[bytes]) -> float:
    started = time.perf_counter()
    for octets in mails:
        work(octets)
    return time.perf_counter() - started


def measure(mails: Sequence[bytes], rounds: int, *, again: bool = True) -> dict[str, tuple[float, ...]]:
    """
    Microseconds for each mail: by ours, by compat32, by policy.default; of structure, content and text, and with
    `again` of writing what was read.
    """
    compat = _theirs(email.policy.compat32)
    default = _theirs(email.policy.default)
    rows = {}
    for place, name in enumerate(("structure", "content", "text", "written again")[: 4 if again else 3]):
        works = ((ours, ours_content, ours_text, ours_again)[place], compat[place], default[place])
        best = [min(_seconds(work, mails) for _ in range(1)) for work in works]
        for _ in range(rounds - 1):
            best = [min(before, _seconds(work, mails)) for before, work in zip(best, works, strict=True)]
        rows[name] = tuple(seconds / len(mails) * 1e6 for seconds in best)
    return rows


_TEXT, _HTML, _FILE = "Gr\u00fc\u00dfe aus Berlin\n" * 20, "<p>Gr\u00fc\u00dfe</p>\n" * 20, bytes(range(256)) * 40


def new_of_ours() -> bytes:
    """A new mail."""
    files = [Attachment("report.pdf", _FILE)]
    to = "Bob <bob@example.org>, carol@example.org"
    return encode(Mail("Ann Ex\u00e4mple <ann@example.net>", to, "Gr\u00fc\u00dfe", _TEXT, _HTML, files))


def new_of_theirs() -> bytes:
    """The same with Python's email package."""
    message = email.message.EmailMessage()
    message["From"] = "Ann Ex\u00e4mple <ann@example.net>"
    message["To"] = "Bob <bob@example.org>, carol@example.org"
    message["Subject"] = "Gr\u00fc\u00dfe"
    message["Date"] = email.utils.formatdate()
    message["Message-ID"] = email.utils.make_msgid(domain="example.net")
    message.set_content(_TEXT)
    message.add_alternative(_HTML, subtype="html")
    message.add_attachment(_FILE, maintype="application", subtype="pdf", filename="report.pdf")
    return message.as_bytes(policy=email.policy.SMTP)


def measure_new(rounds: int) -> tuple[float, float]:
    """Microseconds for a new mail: ours, theirs."""
    best = [float("inf")] * 2
    for _round in range(rounds):
        for place, work in enumerate((new_of_ours, new_of_theirs)):
            started = time.perf_counter()
            for _ in range(50):
                work()
            best[place] = min(best[place], (time.perf_counter() - started) / 50 * 1e6)
    return best[0], best[1]


def measure_memory(megabytes: int) -> tuple[int, int]:
    """Octets of a mail on disk, and the most that Python held of it while its attachment was read in blocks."""
    with tempfile.TemporaryFile() as file:
        file.write(
            b'MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary="b"\r\n\r\n--b\r\n'
            b"Content-Type: image/png\r\nContent-Transfer-Encoding: base64\r\n\r\n"
        )
        block = base64.encodebytes(bytes(57 * 1024)).replace(b"\n", b"\r\n")
        for _ in range(megabytes * 1024 * 1024 // (57 * 1024)):
            file.write(block)
        file.write(b"--b--\r\n")
        size = file.tell()
        file.seek(0)
        tracemalloc.start()
        sum(map(len, decode(file).attachments[0].blocks(64 * 1024)))
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return size, most


def table(rows: dict[str, tuple[float, ...]]) -> str:
    """For people."""
    lines = ["| | mailserver.mime | compat32 | policy.default |", "|---|---|---|---|"]
    for name, (mine, *others) in rows.items():
        cells = [f"{other:,.0f} us, {other / mine:.1f} times" for other in others]
        lines.append(f"| {name} | {mine:,.0f} us | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(words: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.mime", description="Decode mails, beside Python's email package."
    )
    parser.add_argument("--count", type=int, default=200, help="mails that are made (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="of which the best counts (default: %(default)s)")
    parser.add_argument("--odd", action="store_true", help="only the odd mails of tests/mime")
    parser.add_argument("--large", action="store_true", help="only mails of one text or file of 100 kB")
    parser.add_argument("--folder", type=Path, help="only the files in this folder")
    parser.add_argument("--megabytes", type=int, default=50, help="of the mail on disk (default: %(default)s)")
    chosen = parser.parse_args(words)
    if chosen.folder:
        mails = [path.read_bytes() for path in sorted(chosen.folder.iterdir()) if path.is_file()]
    elif chosen.large:
        mails = large_mails()
    else:
        mails = odd_mails() if chosen.odd else make_mails(chosen.count)
    if not mails:
        sys.exit("no mails")
    print(
        f"{len(mails)} mails, {sum(map(len, mails)) // len(mails):,} octets each; Python {sys.version.split()[0]}\n"
    )
    print(table(measure(mails, chosen.rounds, again=not chosen.odd)))
    mine, theirs = measure_new(chosen.rounds)
    print(f"\nnew: {mine:,.0f} us; EmailMessage {theirs:,.0f} us, {theirs / mine:.1f} times")
    if chosen.megabytes:
        size, most = measure_memory(chosen.megabytes)
        print(f"\nmemory: at most {most / 2**20:.1f} MiB for a mail of {size / 2**20:.0f} MiB on disk")


if __name__ == "__main__":
    main()
