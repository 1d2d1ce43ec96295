"""
Patterns of addresses: "tickets+*@example.org".

In: text of a configuration.  Out: a regular expression for `Address.key`, or ValueError with what is wrong.
"*" stands for any characters, also none, "?" for one; all else stands for itself.  Addresses are compared as
mailboxes are: without regard to case, domains in their normal form.
"""

from __future__ import annotations

import re

from mailserver.address import AddressError, fold_local, normal_domain

#: The pattern of the null sender.
NULL_SENDER = "<>"


def compile_pattern(text: str) -> re.Pattern[str]:
    """
    The pattern of an address as a regular expression for `Address.key`.

    Raises ValueError: what is wrong with it.
    """
    if text == "*":
        text = "*@*"
    local, at, domain = text.rpartition("@")
    if not at or not local or not domain:
        raise ValueError(f'"{text}" has no "@"; write "*@example.org" for a whole domain, or "*" for every address')
    if any(character.isspace() or not character.isprintable() for character in text):
        raise ValueError(f'"{text}" has a blank or a control character')
    if domain.startswith("[") or not any(wild in domain for wild in "*?"):
        try:
            domain = normal_domain(domain)
        except AddressError as error:
            raise ValueError(f'"{text}": {error}') from error
    else:
        domain = domain.lower()
    pieces = re.split(r"([*?])", f"{fold_local(local)}@{domain}")
    return re.compile("".join({"*": ".*", "?": "."}.get(piece) or re.escape(piece) for piece in pieces), re.DOTALL)
