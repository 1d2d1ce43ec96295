"""
The small values of MIME: limits, defects, the error of strict reading, Content-Disposition.

In: nothing.  Out: frozen values that the readers and writers of this room share.
RFC 2045 to 2049 (MIME), RFC 2183 (Content-Disposition).
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class MimeLimits:
    """
    What one mail may cost its reader.  Beyond each of them is an opaque leaf and a defect, never an error.

    depth: levels of parts, the mail itself is the first.  parts: in the whole tree.  parameters: of one field.
    boundary: octets (RFC 2046 5.1.1 allows 70).  header_size: octets of one part's header section.
    encoded_messages: how many messages with a transfer encoding may be within each other; each costs a copy.
    encoded_message_size: octets of all such messages before they are decoded, as they are held in memory.
    """

    depth: int = 100
    parts: int = 10_000
    parameters: int = 1_000
    boundary: int = 2_048
    header_size: int = 1024 * 1024
    encoded_messages: int = 5
    encoded_message_size: int = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Defect:
    """kind: one of the words of docs/mime.md.  place: octets from the start of the mail.  detail: for people."""

    kind: str
    place: int
    detail: str


class MimeError(ValueError):
    """A mail that strict reading refuses.  kind: that of the defect.  place: octets, from 0.  line: from 1."""

    def __init__(self, kind: str, place: int, line: int, detail: str) -> None:
        super().__init__(f"line {line} (octet {place}): {kind}: {detail}")
        self.kind = kind
        self.place = place
        self.line = line
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Disposition:
    """RFC 2183.  kind: "inline", "attachment" or another, lower case.  parameters: decoded, keys in lower case."""

    kind: str
    parameters: dict[str, str] = field(default_factory=dict)
