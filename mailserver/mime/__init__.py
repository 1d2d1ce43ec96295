"""
MIME (RFC 2045 to 2049): mails into trees of parts, and back.

`decode(bytes | file) -> Part` reads what really is sent, tells what is wrong with it, and never raises for it.
`encode(Part | Mail) -> bytes` and `encode_blocks` write what every program can read; `Mail` is one in plain values.
`parse_addresses` and `format_addresses` are for lists of addresses; `reply_to` answers a mail.
"""

from __future__ import annotations

from mailserver.mime.addresses import (
    AddressListError,
    Group,
    NamedAddress,
    format_addresses,
    mailboxes,
    parse_addresses,
)
from mailserver.mime.decode import decode
from mailserver.mime.encode import encode, encode_blocks
from mailserver.mime.fields import EncodeError
from mailserver.mime.headers import Field, Headers, parse_headers
from mailserver.mime.mail import Attachment, Mail
from mailserver.mime.part import Part
from mailserver.mime.replies import is_auto_submitted, reply_to
from mailserver.mime.stamps import format_date, generate_message_id
from mailserver.mime.values import Defect, Disposition, MimeError, MimeLimits

__all__ = [
    "AddressListError",
    "Attachment",
    "Defect",
    "Disposition",
    "EncodeError",
    "Field",
    "Group",
    "Headers",
    "Mail",
    "MimeError",
    "MimeLimits",
    "NamedAddress",
    "Part",
    "decode",
    "encode",
    "encode_blocks",
    "format_addresses",
    "format_date",
    "generate_message_id",
    "is_auto_submitted",
    "mailboxes",
    "parse_addresses",
    "parse_headers",
    "reply_to",
]
