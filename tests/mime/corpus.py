"""
A corpus of odd mails, written for these tests: each with the tree, the text and the defects that must come out.

Tables of fields (corpus_headers.py) and of bodies (corpus_bodies.py) become whole mails here; the other corpus_*.py have
mails made of pieces.  All is deterministic.  A name says what is odd, and which row of docs/gen_smtp.md it belongs to.
"""

from __future__ import annotations

from typing import NamedTuple

from mailserver.mime import Part
from tests.mime import corpus_bodies, corpus_headers
from tests.mime.corpus_fixtures import FIXTURES
from tests.mime.corpus_messages import ATTACHMENTS, MESSAGES
from tests.mime.corpus_sections import SECTIONS
from tests.mime.corpus_trees import MULTIPARTS


class Case(NamedTuple):
    """
    tree: as `tree_of` shows it.  texts: of the leaves, in their order, if this says anything.  defects: their kinds,
    sorted, each once.  subject, parameters, disposition, filename: of the root, if this says anything.
    """

    name: str
    octets: bytes
    tree: str = "text/plain"
    texts: tuple[str, ...] | None = None
    defects: tuple[str, ...] = ()
    subject: str | None = None
    parameters: dict[str, str] | None = None
    disposition: tuple[str, dict[str, str]] | None = None
    filenames: tuple[str, ...] | None = None


def tree_of(part: Part) -> str:
    """`mixed[text/plain, rfc822(text/html)]`."""
    if part.is_multipart:
        return f"{part.subtype}[{', '.join(map(tree_of, part.parts))}]"
    if part.parts:
        return f"{part.subtype}({tree_of(part.parts[0])})"
    return part.content_type


def leaves_of(part: Part) -> list[Part]:
    """Parts without parts."""
    return [inner for inner in part.walk() if not inner.parts and not inner.is_multipart]


def _header_cases() -> list[Case]:
    cases = [
        Case(
            f"subject: {name}",
            b"Subject:" + field + b"\r\nTo: a@example.org\r\n\r\nbody\r\n",
            texts=("body\n",),
            subject=value,
            defects=defects,
        )
        for name, field, value, defects in corpus_headers.SUBJECTS
    ]
    for name, field, tree, parameters, defects in corpus_headers.CONTENT_TYPES:
        octets = b"MIME-Version: 1.0\r\nContent-Type: " + field + b"\r\n\r\nbody\r\n"
        cases.append(Case(f"content type: {name}", octets, tree, ("body\n",), defects, parameters=parameters))
    for name, field, kind, parameters, defects in corpus_headers.DISPOSITIONS:
        octets = b"MIME-Version: 1.0\r\nContent-Disposition: " + field + b"\r\n\r\nbody\r\n"
        cases.append(Case(f"disposition: {name}", octets, defects=defects, disposition=(kind, parameters)))
    return cases


def _body_cases() -> list[Case]:
    cases = []
    for name, encoding, body, text, defects in corpus_bodies.ENCODED:
        head = b"MIME-Version: 1.0\r\nContent-Transfer-Encoding: " + encoding + b"\r\n\r\n"
        cases.append(Case(f"encoding: {name}", head + body, texts=(text,), defects=defects))
    for name, charset, body, text, defects in corpus_bodies.CHARSETS:
        head = b"MIME-Version: 1.0\r\nContent-Transfer-Encoding: binary\r\nContent-Type: text/plain"
        head += b"; charset=" + charset if charset else b""
        cases.append(Case(f"charset: {name}", head + b"\r\n\r\n" + body, texts=(text,), defects=defects))
    return cases


CASES: list[Case] = [
    *_header_cases(),
    *_body_cases(),
    *(
        Case(name, octets, tree, texts, defects, filenames=filenames)
        for rows in (FIXTURES, SECTIONS, MULTIPARTS, MESSAGES, ATTACHMENTS)
        for name, octets, tree, texts, defects, filenames in rows
    ),
]
