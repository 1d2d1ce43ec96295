"""
What a new mail is stamped with: its date, its identifier, the boundaries between its parts.

In: the time and 32 random hexadecimal digits, or neither: then those of now.  Out: text for a field.
Failures: `ValueError` for a domain that cannot stand in an identifier.
RFC 5322 3.3 (date-time), 3.6.4 (msg-id); RFC 2046 5.1.1 (boundary).
"""

from __future__ import annotations

import re
import secrets
import time
from datetime import UTC, datetime, timedelta

from mailserver.address import AddressError, normal_domain

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def random_token() -> str:
    """128 random bits as 32 hexadecimal digits: nobody guesses them, and no text holds them by chance."""
    return secrets.token_hex(16)


def format_date(when: datetime | float | None = None) -> str:
    """
    A date-time of RFC 5322 3.3, "Fri, 20 Nov 2026 15:42:41 +0000".

    when: seconds since 1970, written in UTC; or a datetime, written in its own zone (one without a zone is in UTC);
    None: now.
    """
    if when is None:
        when = time.time()
    if not isinstance(when, datetime):
        when = datetime.fromtimestamp(int(when), UTC)
    elif when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    minutes = round((when.utcoffset() or timedelta()).total_seconds() / 60)
    sign, minutes = "-" if minutes < 0 else "+", abs(minutes)
    day = f"{_DAYS[when.weekday()]}, {when.day} {_MONTHS[when.month - 1]} {when.year:04d}"
    return f"{day} {when:%H:%M:%S} {sign}{minutes // 60:02d}{minutes % 60:02d}"


#  id-right = dot-atom-text / no-fold-literal
_ID_RIGHT = re.compile(r"[A-Za-z0-9._\-]+\Z|\[[A-Za-z0-9.:]+\]\Z")


def generate_message_id(domain: str, *, now: float | None = None, token: str = "") -> str:
    """
    A new identifier with its brackets, "<1795189361.9f0c...@example.org>" (RFC 5322 3.6.4).

    domain: of whoever writes the mail; an internationalised one goes as A-labels.  now: seconds since 1970.
    token: what makes it unique, random when it is "".  Raises ValueError for what is no domain.
    """
    try:
        domain = normal_domain(domain)
    except AddressError as error:
        raise ValueError(f"Message-ID: {error}: {domain!r}") from None
    if not _ID_RIGHT.match(domain):
        raise ValueError(f"Message-ID: not a domain: {domain!r}")
    seconds = int(time.time() if now is None else now)
    return f"<{seconds}.{token or random_token()}@{domain}>"


def generate_boundary(token: str = "") -> str:
    """
    A new boundary, 36 characters; no line of quoted-printable or base64 can be one ("=_", RFC 2045 6.7).

    token: what makes it unique, random when it is "".
    """
    return f"=_{token or random_token()}=="
