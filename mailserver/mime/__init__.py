"""
MIME (RFC 2045 to 2049): mails into trees of parts, and back.

`decode(bytes | file) -> Part` reads what really is sent, tells what is wrong with it, and never raises for it.
"""

from __future__ import annotations

from mailserver.mime.decode import decode
from mailserver.mime.headers import Field, Headers, parse_headers
from mailserver.mime.part import Part
from mailserver.mime.values import Defect, Disposition, MimeError, MimeLimits

__all__ = [
    "Defect",
    "Disposition",
    "Field",
    "Headers",
    "MimeError",
    "MimeLimits",
    "Part",
    "decode",
    "parse_headers",
]
