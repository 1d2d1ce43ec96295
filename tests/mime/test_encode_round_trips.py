"""
What is written is read back as what was meant: by our own `decode`, and by Python's `email`.

TM20's properties; TM17 and "every mail of the corpus".
"""

from __future__ import annotations

import email
import email.message
import email.policy
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver.mime import decode
from mailserver.mime.addresses import Group, NamedAddress, parse_addresses
from mailserver.mime.encode import encode
from mailserver.mime.mail import Attachment, Mail
from mailserver.mime.part import Part
from mailserver.mime.values import Disposition, MimeLimits
from tests.mime.corpus import CASES, leaves_of, tree_of
from tests.mime.test_encode import check_form

#: Beyond these limits the rest of a mail is one opaque leaf, with whatever stands there; written anew it is another.
BEYOND = {"header-too-long", "too-many-parts"}
#: A field as long as the limit is longer when it is folded.
LONG = 500_000

# A byte order mark is no character to who reads it.
characters = st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp"), exclude_characters="\ufeff")
lines = st.text(characters, max_size=120) | st.text("ab \u00e4\u20ac=?,", max_size=200)
texts = st.lists(st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\r\ufeff"), max_size=100)).map(
    "\n".join
)
addresses = st.builds(
    NamedAddress,
    lines.map(str.strip),
    st.sampled_from(["a@example.org", '"a b"@example.com', "c@b\u00fccher.example"]),
)
groups = st.builds(Group, st.text(characters, min_size=1, max_size=30).filter(str.strip), st.just(()))
files = st.builds(
    Attachment,
    st.text(characters, max_size=100),
    st.binary(max_size=300) | texts,
    st.sampled_from(["", "text/plain", "application/pdf"]),
)
mails = st.builds(
    Mail,
    st.lists(addresses, min_size=1, max_size=2),
    st.lists(addresses | groups, max_size=3),
    lines,
    st.none() | texts,
    st.none() | texts,
    st.lists(files, max_size=2),
    st.lists(files, max_size=2),
)
leaves = st.builds(
    Part,
    st.sampled_from(["text", "application"]),
    st.sampled_from(["plain", "x-y"]),
    content=st.binary(max_size=300),
    parameters=st.dictionaries(st.sampled_from(["charset", "name", "x-a"]), lines, max_size=2),
    headers=st.lists(st.tuples(st.sampled_from(["X-A", "x-b", "Comments"]), lines), max_size=4),
    disposition=st.none() | st.builds(Disposition, st.just("attachment"), st.fixed_dictionaries({"filename": lines})),
    encoding=st.sampled_from([None, "7bit", "8bit", "base64", "quoted-printable", "binary", "x-strange"]),
)
trees = st.recursive(
    leaves,
    lambda inner: (
        st.builds(
            lambda subtype, parts: Part("multipart", subtype, parts=parts),
            st.sampled_from(["mixed", "alternative", "digest"]),
            st.lists(inner, min_size=1, max_size=3),
        )
        | st.builds(lambda part: Part("message", "rfc822", parts=[part]), inner)
    ),
    max_leaves=5,
)
styles = st.fixed_dictionaries({"utf8": st.booleans(), "eight_bit": st.booleans()})


def canonical(text: str) -> str:
    """A text as it comes back: a CRLF, CR or LF is a line end."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


class MailTests(SynchronousTestCase):
    @given(mails, styles)
    @settings(deadline=None, max_examples=150)
    def test_TM20_a_mail_is_read_back(self, mail: Mail, style: dict[str, bool]) -> None:
        octets = encode(mail, **style)
        check_form(octets, eight_bit=any(style.values()))
        found = decode(octets)
        self.assertEqual(found.defects, [])
        self.assertEqual(tree_of(found), tree_of(mail.part()))
        # Blanks at the ends of a field that is nothing but blanks are all that a reader may lose.
        self.assertEqual(found.headers.get("subject", ""), mail.subject)
        self.assertEqual(
            parse_addresses(found.headers.fields[0].body.decode(), strict=True)[0].name, mail.from_[0].name
        )
        wanted = [leaf for leaf in mail.part().walk() if not leaf.parts]
        for ours, leaf in zip(leaves_of(found), wanted, strict=True):
            if isinstance(leaf.given, str) and leaf.type == "text":
                self.assertEqual(ours.text, canonical(leaf.given))
            elif not isinstance(leaf.given, str):
                self.assertEqual(ours.content, leaf.given)
            self.assertEqual((ours.content_type, ours.filename), (leaf.content_type, leaf.filename))

    @given(mails)
    @settings(deadline=None, max_examples=100)
    def test_python_reads_the_same(self, mail: Mail) -> None:
        octets = encode(mail)
        theirs = email.message_from_bytes(octets, policy=email.policy.default)
        ours = decode(octets)
        self.assertEqual(python_tree(theirs), tree_of(ours))
        if "\u00a0" not in mail.subject:  # its own parser takes some blanks beyond ASCII for white space
            self.assertEqual("".join((theirs["subject"] or "").split()), "".join(mail.subject.split()))
        found = [each.addr_spec for each in theirs["from"].addresses]
        self.assertEqual(
            [text.replace("xn--bcher-kva", "b\u00fccher") for text in found], [each.text for each in mail.from_]
        )
        for leaf, part in zip(
            leaves_of(ours), (each for each in theirs.walk() if not each.is_multipart()), strict=True
        ):
            self.assertEqual(part.get_payload(decode=True), leaf.content)
            self.assertEqual("".join((part.get_filename() or "").split()), "".join(leaf.filename.split()))


class TreeTests(SynchronousTestCase):
    @given(trees, styles)
    @settings(deadline=None, max_examples=200)
    def test_TM20_any_tree_is_read_back(self, part: Part, style: dict[str, bool]) -> None:
        octets = encode(part, **style)
        check_form(octets, eight_bit=any(style.values()))
        found = decode(octets)
        self.assertEqual(tree_of(found), tree_of(part))
        for ours, leaf in zip(leaves_of(found), leaves_of(part), strict=True):
            self.assertEqual(ours.content, leaf.content)
            self.assertEqual(ours.parameters, leaf.parameters)
            self.assertEqual(ours.disposition, leaf.disposition)
            self.assertEqual(given_fields(ours), given_fields(leaf))

    @given(trees, styles)
    @settings(deadline=None, max_examples=50)
    def test_what_is_read_is_written_the_same_again(self, part: Part, style: dict[str, bool]) -> None:
        first = encode(part, token=lambda: "t" * 32, **style)
        self.assertEqual(encode(decode(first), token=lambda: "t" * 32, **style), first)


class CorpusTests(SynchronousTestCase):
    def test_every_mail_of_the_corpus_is_the_same_tree_when_it_was_written(self) -> None:
        seen = 0
        for case in CASES:
            part = decode(case.octets)
            if len(case.octets) > LONG or BEYOND & {defect.kind for defect in part.defects}:
                check_form(encode(part))  # no more than that
                continue
            for style in ({}, {"utf8": True, "eight_bit": True}):
                octets = encode(part, bcc=True, **style)  # type: ignore[arg-type]
                check_form(octets, eight_bit=bool(style))
                again = decode(octets)
                self.assertEqual(tree_of(again), tree_of(part), case.name)
                self.assertEqual(given_fields(again), given_fields(part), case.name)
                for ours, leaf in zip(leaves_of(again), leaves_of(part), strict=True):
                    self.assertEqual(ours.content, leaf.content, case.name)
                    self.assertEqual(ours.text, leaf.text, case.name)
                self.assertEqual(
                    [(each.filename, each.disposition) for each in again.walk()],
                    [(each.filename, each.disposition) for each in part.walk()],
                    case.name,
                )
                seen += 1
        self.assertGreater(seen, 600)

    def test_TM17_whatever_a_multipart_is_called_it_stays_one(self) -> None:
        for subtype, again in (
            (b"a%b*c'd", "a%b*c'd"),
            (b"x" * 300, "x" * 300),
            (b"x" * 2_000, "mixed"),
            (b"a\0b", "a"),
        ):
            octets = (
                b"Content-Type: multipart/"
                + subtype
                + b"; boundary=b\r\n\r\n--b\r\n\r\none\r\n--b\r\n\r\ntwo\r\n--b--\r\n"
            )
            found = decode(encode(decode(octets)))
            self.assertEqual(tree_of(found), f"{again}[text/plain, text/plain]")

    def test_TM17_each_can_be_attached_to_a_new_mail(self) -> None:
        for case in CASES:
            part = decode(case.octets)
            if (BEYOND | {"too-deep"}) & {defect.kind for defect in part.defects}:
                continue
            octets = encode(Mail("a@example.org", attachments=[Attachment("mail.eml", part)]))
            check_form(octets)
            found = decode(octets, limits=MimeLimits(depth=200, parts=20_000))
            self.assertEqual(tree_of(found), f"mixed[rfc822({tree_of(part)})]", case.name)


def given_fields(part: Part) -> list[tuple[str, str]]:
    """Names and values of the fields that do not describe the part."""
    return [
        (name, value.strip(" \t"))
        for name, value in part.headers
        if not name.lower().startswith("content-") and name.lower() != "mime-version"
    ]


def python_tree(message: Any) -> str:
    """`tree_of` for a message of Python's."""
    assert isinstance(message, email.message.Message)
    if message.get_content_maintype() == "multipart":
        return f"{message.get_content_subtype()}[{', '.join(map(python_tree, message.iter_parts()))}]"  # type: ignore[attr-defined]
    return message.get_content_type()
