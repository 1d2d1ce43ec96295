"""
Lists of addresses as they stand in From, To, Cc and their like: read strictly, read leniently, written.

In: the text of such a field.  Out: `NamedAddress` and `Group` values, in their order.
Failures: read strictly, `AddressListError`, which says what is wrong, and where.  Read leniently there are none: what
is no address is kept as it stood, in a `NamedAddress` whose `address` is None.

Strict is the grammar of RFC 5322 3.4 with its comments and folding, UTF-8 (RFC 6532 3.2), dots in names (RFC 5322
4.1, "John Q. Public" is what people write) and the mailboxes of RFC 5321.  Lenient takes besides: empty elements,
`;` between addresses, source routes, blanks around dots, names behind the address or in a comment, brackets, quotes
and comments without their end, commas in encoded words.  Encoded words (RFC 2047) are decoded after the list is taken
apart, as 6.2 asks: what they hold can never become a second address.  Both take time in proportion to the text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from mailserver.address import Address, AddressError, parse_address
from mailserver.mime.words import decode_words

#: How much of a text an error quotes.
_MOST_QUOTED = 60
# CR, LF and tab among them.  U+2028 and U+2029 end lines for some programs.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


class AddressListError(ValueError):
    """
    The text is no list of addresses, or a value cannot be written into one.

    reason: what is wrong.  text: what was given.  place: index into it, or None where the whole is meant.
    """

    def __init__(self, reason: str, text: str, place: int | None = None) -> None:
        quoted = text if len(text) <= _MOST_QUOTED else text[:_MOST_QUOTED] + "..."
        where = "" if place is None else f" at character {place + 1}"
        super().__init__(f"{reason}{where}: {quoted!r}")
        self.reason = reason
        self.text = text
        self.place = place


@dataclass(frozen=True, slots=True)
class NamedAddress:
    """
    One mailbox of a list.

    name: the display name, decoded, "" where there is none.  text: "local@domain" as it stood, without comments and
    folding.  address: the same as a value, or None where it is no address.  `str()` gives `name <text>`, quoted.
    """

    name: str
    text: str
    address: Address | None = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        try:
            address = parse_address(self.text)
        except AddressError:
            address = None
        object.__setattr__(self, "address", address)

    def __str__(self) -> str:
        text = _CONTROL.sub(" ", self.text)
        if not self.name and self.address is not None:
            return text
        return f"{format_name(self.name)} <{text}>".lstrip(" ")


@dataclass(frozen=True, slots=True)
class Group:
    """A named list in a list: `friends: a@example.org, b@example.org;` (RFC 5322 3.4).  members: may be none."""

    name: str
    members: tuple[NamedAddress, ...] = ()

    def __str__(self) -> str:
        members = ", ".join(map(str, self.members))
        return f"{format_name(self.name)}: {members};" if members else f"{format_name(self.name)}:;"


def parse_addresses(text: str, *, strict: bool = False) -> list[NamedAddress | Group]:
    """
    The addresses and groups of a field's value, in their order.

    strict: raise AddressListError for whatever RFC 5322 3.4 does not allow to be written, an empty list among it.
    Otherwise nothing is raised, and "" gives [].
    """
    return _Strict(text).addresses() if strict else _Lenient(text).addresses()


def mailboxes(addresses: Iterable[NamedAddress | Group]) -> list[NamedAddress]:
    """The same without its groups, whose members stand in their place."""
    found: list[NamedAddress] = []
    for each in addresses:
        if isinstance(each, Group):
            found += each.members
        else:
            found.append(each)
    return found


def format_addresses(addresses: Iterable[NamedAddress | Group]) -> str:
    """
    The list as the text of a field, in Unicode, not folded; `parse_addresses(text, strict=True)` reads it back.

    Control characters in a name become blanks.  No address gives "".
    Raises AddressListError for a mailbox that is no address.
    """
    addresses = list(addresses)
    for each in mailboxes(addresses):
        if each.address is None:
            raise AddressListError("not an address", each.text)
    return ", ".join(map(str, addresses))


#  display-name = phrase = 1*word               word = atom / quoted-string
_PHRASE = re.compile(
    r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\-\u0080-\U0010ffff]+(?: [A-Za-z0-9!#$%&'*+/=?^_`{|}~\-\u0080-\U0010ffff]+)*\Z"
)


def format_name(name: str) -> str:
    """A display name as words where it can be, else as a quoted string (RFC 5322 3.2.4); controls become blanks."""
    name = _CONTROL.sub(" ", name)
    # In quotes, what looks like an encoded word is not one (RFC 2047 5 (3)).
    if not name or (_PHRASE.match(name) and "=?" not in name):
        return name
    return quote_string(name)


def quote_string(text: str) -> str:
    """The text as a quoted-string (RFC 5322 3.2.4)."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


# -- taking a text apart ---------------------------------------------------------------------------------------------


class _Token(NamedTuple):
    """
    kind: "a" an atom, "e" an encoded word, "q" a quoted string, "l" a domain literal, "c" a comment, " " blanks, or a
    special itself.  text: as it stood.  start, end: where.
    """

    kind: str
    text: str
    start: int
    end: int


# An encoded word is taken whole, as in what some programs write there stand commas and brackets.
_ENCODED = r"=\?[^?\s]++\?[BbQq]\?[^?\s<>\"]*+\?="
_QUOTED = r'"(?:[^"\\]++|\\.)*+"'
# Each repeat is possessive, and stops at what could begin another: no octet is looked at more than a few times.
_LITERAL = r"\[[^\[\]\\]*+\]"
_ATOM = r"[^ \t\r\n\"()<>@,;:\\.\[\]]++"
_BLANKS = r"[ \t\r\n]++"
_TOKEN = re.compile(f"({_ENCODED})|({_ATOM})|({_BLANKS})|({_QUOTED})|({_LITERAL})", re.DOTALL)
_TOKEN_UNQUOTED = re.compile(f"({_ENCODED})|({_ATOM})|({_BLANKS})|((?!))|({_LITERAL})", re.DOTALL)
_TOKEN_STRICT = re.compile(f"((?!))|({_ATOM})|({_BLANKS})|({_QUOTED})|({_LITERAL})", re.DOTALL)
_KINDS = ("", "e", "a", " ", "q", "l")
_IN_COMMENT = re.compile(r"\\.|[()]", re.DOTALL)
_FLAT_COMMENT = re.compile(r"\([^()]*+\)")


class _Tokens:
    """
    The tokens of a text.  When a quote has no end, no later one has either (it would have ended the first); the same
    with nested comments.  That is remembered, so that nothing is searched for twice.
    """

    def __init__(self, text: str, pattern: re.Pattern[str] = _TOKEN) -> None:
        self._text = text
        self._pattern = pattern
        self._nested = True

    def all(self) -> list[_Token]:
        """Every token.  Of what has no end only the first character is one, a special."""
        text, at, tokens = self._text, 0, []
        while at < len(text):
            match = self._pattern.match(text, at)
            if match is not None:
                kind, end = _KINDS[match.lastindex or 0], match.end()
            else:
                kind = text[at]
                end = self._end_of_comment(at) if kind == "(" else 0
                if end:
                    kind = "c"
                else:
                    end = at + 1
                if kind == '"':
                    self._pattern = _TOKEN_UNQUOTED
            tokens.append(_Token(kind, text[at:end], at, end))
            at = end
        return tokens

    def _end_of_comment(self, start: int) -> int:
        if self._nested:
            depth = 0
            for match in _IN_COMMENT.finditer(self._text, start):
                if match[0] == "(":
                    depth += 1
                elif match[0] == ")":
                    depth -= 1
                    if depth == 0:
                        return match.end()
            self._nested = False
        flat = _FLAT_COMMENT.match(self._text, start)
        return flat.end() if flat is not None else 0


_PAIR = re.compile(r"\\(.)", re.DOTALL)
_FOLDING = re.compile(r"[ \t]*[\r\n]+[ \t]*")


def _decoded(text: str) -> str:
    return decode_words(text.encode("utf-8", "replace")) if "=?" in text else text


def _unquoted(text: str) -> str:
    """What a quoted string or a comment holds."""
    return _PAIR.sub(r"\1", text[1:-1])


def _address_text(tokens: Iterable[_Token]) -> str:
    """An addr-spec without its comments, and without the blanks beside its dots and its at sign."""
    pieces: list[str] = []
    blank = False
    for token in tokens:
        if token.kind in " c":
            blank = True
            continue
        if blank and pieces and token.kind not in ".@" and pieces[-1] not in (".", "@"):
            pieces.append(" ")
        blank = False
        pieces.append(token.text)
    return "".join(pieces)


def _phrase(tokens: Iterable[_Token], decoded_quotes: Callable[[str], str]) -> str:
    """A display name, decoded.  decoded_quotes: what is to be done with the content of a quoted string."""
    pieces: list[str] = []
    words: list[str] = []  # unquoted, and not yet decoded: adjacent encoded words belong together
    for token in tokens:
        if token.kind == "q":
            pieces += [_decoded("".join(words)), decoded_quotes(_unquoted(_FOLDING.sub(" ", token.text)))]
            words = []
        elif token.kind not in " c":
            words.append(token.text)
        elif (words or pieces) and words[-1:] != [" "]:
            words.append(" ")
    if words[-1:] == [" "]:
        words.pop()
    # Only the blanks between are taken away: those within quotes and encoded words are meant.
    return "".join([*pieces, _decoded("".join(words))])


_ANY_BLANKS = re.compile(r"[ \t\r\n]+")


class _Lenient:
    """Reads a list and never says no."""

    def __init__(self, text: str) -> None:
        self._tokens = _Tokens(text).all()
        self._found: list[NamedAddress | Group] = []
        self._group: str | None = None  # the name of the group that is open
        self._members: list[NamedAddress] = []
        self._pending: list[_Token] = []  # of the element that is open, without its brackets
        self._has_at = False  # is there an at sign in it?
        self._bracketed: str | None = None  # what its brackets held
        # A colon begins a group only where a semicolon can end it, or where the text ends
        # (`undisclosed-recipients:`).
        self._last_end = max((at for at, token in enumerate(self._tokens) if token.kind == ";"), default=-1)
        self._last_word = max((at for at, token in enumerate(self._tokens) if token.kind not in " c"), default=-1)

    def addresses(self) -> list[NamedAddress | Group]:
        """Everything that is there."""
        at = 0
        while at < len(self._tokens):
            token = self._tokens[at]
            at += 1
            if token.kind == "<":
                at = self._brackets(at)
            elif token.kind == ",":
                self._end_element()
            elif token.kind == ";":
                self._end_element()
                self._end_group()
            elif token.kind == ":" and self._begins_group(at - 1):
                self._group = _phrase(self._pending, _decoded)
                self._pending = []
            elif token.kind not in '>"()[]':  # these are what is left of pairs that are none
                self._pending.append(token)
                self._has_at = self._has_at or token.kind == "@"
        self._end_element()
        self._end_group()
        return self._found

    def _begins_group(self, at: int) -> bool:
        if self._group is not None or self._bracketed is not None or self._has_at:
            return False
        return self._last_end > at or self._last_word == at

    def _brackets(self, at: int) -> int:
        """Take what stands behind a `<`: up to its `>`, or where that is missing, to the end of the element."""
        start = end = at
        while end < len(self._tokens) and self._tokens[end].kind not in "<>":
            end += 1
        if end == len(self._tokens) or self._tokens[end].kind == "<":
            end = start
            while end < len(self._tokens) and self._tokens[end].kind not in ",;<":
                end += 1
            after = end
        else:
            after = end + 1
        inside = self._tokens[start:end]
        if not self._bracketed:
            self._bracketed = _ROUTE.sub("", _address_text(inside))
        return after

    def _end_element(self) -> None:
        pending, bracketed, has_at = self._pending, self._bracketed, self._has_at
        self._pending, self._bracketed, self._has_at = [], None, False
        if bracketed is not None:
            name = _phrase(pending, _decoded) or _comment(pending)
            self._add(NamedAddress(name, bracketed))
        elif has_at:
            self._bare(pending)
        elif any(token.kind not in " c" for token in pending):
            self._add(NamedAddress(_comment(pending), _address_text(pending)))

    def _bare(self, pending: list[_Token]) -> None:
        """
        One address without brackets, or several with only blanks between, each with the words before it as name.
        """
        words: list[_Token] = []
        found: list[tuple[str, str]] = []
        for run in _runs(pending):
            if any(token.kind == "@" for token in run):
                found.append((_phrase(words, _decoded), _address_text(run)))
                words = []
            else:
                words += run
                words.append(_Token(" ", " ", 0, 0))
        if len(found) == 1 and not found[0][0]:
            found[0] = (_phrase(words, _decoded) or _comment(pending), found[0][1])
        for name, text in found:
            self._add(NamedAddress(name, text))

    def _add(self, found: NamedAddress) -> None:
        if self._group is None:
            self._found.append(found)
        else:
            self._members.append(found)

    def _end_group(self) -> None:
        if self._group is not None:
            self._found.append(Group(self._group, tuple(self._members)))
            self._group, self._members = None, []


#  obs-route = obs-domain-list ":"              RFC 5322 4.4: read and forgotten
_ROUTE = re.compile(r"\A@[^:]*+:")


def _comment(tokens: Iterable[_Token]) -> str:
    """The last comment: before there were display names, names stood there (RFC 822: `joe@example.org (Joe)`)."""
    comments = [token.text for token in tokens if token.kind == "c"]
    return _ANY_BLANKS.sub(" ", _decoded(_unquoted(_FOLDING.sub(" ", comments[-1])))).strip() if comments else ""


def _runs(tokens: Iterable[_Token]) -> Iterator[list[_Token]]:
    """The tokens in runs that belong together: blanks part them, unless they stand beside a dot or an at sign."""
    run: list[_Token] = []
    blank = False
    for token in tokens:
        if token.kind in " c":
            blank = True
            continue
        if blank and run and token.kind not in ".@" and run[-1].kind not in ".@":
            yield run
            run = []
        blank = False
        run.append(token)
    if run:
        yield run


class _Strict:
    """Reads a list by the grammar, one token ahead."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._all = self._checked(_Tokens(text, _TOKEN_STRICT).all())
        self._at = 0

    def addresses(self) -> list[NamedAddress | Group]:
        """The list; raises AddressListError."""
        if not self._all:
            raise AddressListError("no address", self._text)
        #  address-list = address *("," address)
        found = [self._address()]
        while self._next is not None:
            self._take(",", "a comma is missing")
            found.append(self._address())
        return found

    def _checked(self, tokens: list[_Token]) -> list[_Token]:
        """The tokens that mean something: no blanks, no comments, and nothing that stands nowhere."""
        kept = []
        for token in tokens:
            if token.kind in '\\"()[]':
                raise self._error(_STRAY[token.kind], token.start)
            unfolded = token.text.replace("\r\n ", " ").replace("\r\n\t", " ")
            control = _CONTROL.search(unfolded.replace("\t", " "))
            if control is not None:
                raise self._error("a control character", token.start)
            if token.kind not in " c":
                kept.append(token._replace(text=unfolded))
        return kept

    @property
    def _next(self) -> _Token | None:
        return self._all[self._at] if self._at < len(self._all) else None

    def _error(self, reason: str, place: int | None = None) -> AddressListError:
        if place is None:
            place = self._next.start if self._next is not None else len(self._text)
        return AddressListError(reason, self._text, place)

    def _take(self, kind: str, reason: str) -> _Token:
        token = self._next
        if token is None or token.kind != kind:
            raise self._error(reason)
        self._at += 1
        return token

    def _is(self, kinds: str) -> bool:
        return self._next is not None and self._next.kind in kinds

    def _address(self) -> NamedAddress | Group:
        #  address = mailbox / group            group = display-name ":" [group-list] ";"
        start = self._at
        words = self._words()
        if not words or not self._is(":"):
            self._at = start
            return self._mailbox()
        self._at += 1
        members: list[NamedAddress] = []
        if not self._is(";"):
            members.append(self._mailbox())
            while self._is(","):
                self._at += 1
                members.append(self._mailbox())
        self._take(";", "a group without its semicolon")
        return Group(_phrase(words, str), tuple(members))

    def _words(self) -> list[_Token]:
        """Words of a display name or a local part; blanks are put back between those that do not touch."""
        words: list[_Token] = []
        while (token := self._next) is not None and token.kind in "aq.":
            if words and words[-1].end != token.start:
                words.append(_Token(" ", " ", words[-1].end, token.start))
            words.append(token)
            self._at += 1
        return words

    def _mailbox(self) -> NamedAddress:
        #  mailbox = name-addr / addr-spec      name-addr = [display-name] "<" addr-spec ">"
        start = self._at
        words = self._words()
        if words and words[0].kind == "." and not self._is("@"):
            raise self._error("a name that begins with a dot", words[0].start)
        if not self._is("<"):
            self._at = start
            return NamedAddress("", self._addr_spec())
        self._at += 1
        text = self._addr_spec()
        self._take(">", "a bracket without its end")
        return NamedAddress(_phrase(words, str), text)

    def _addr_spec(self) -> str:
        #  addr-spec = local-part "@" domain    local-part = dot-atom / quoted-string
        first = self._next
        if first is None:
            raise self._error("an address is missing")
        local = self._words()
        if not self._is("@"):
            raise self._error("not an address", first.start)
        self._at += 1
        domain = [self._take("l", "")] if self._is("l") else self._words()
        # Blanks may stand around the at sign, not within either side (RFC 5322 3.4.1; 4.4 has them as obsolete).
        text = "".join(token.text for token in local) + "@" + "".join(token.text for token in domain)
        try:
            parse_address(text)
        except AddressError as error:
            raise AddressListError(str(error), text) from error
        return text


_STRAY = {
    "\\": "a backslash outside of quotes",
    '"': "a quote without its end",
    "(": "a comment without its end",
    ")": "a parenthesis without its beginning",
    "[": "a bracket without its end",
    "]": "a bracket without its beginning",
}
