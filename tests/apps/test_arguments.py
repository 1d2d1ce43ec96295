"""Arguments in addresses: which are taken, and which are refused."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver.address import Address, parse_address
from mailserver.apps.arguments import MAX_ARGUMENTS, ArgumentsError, parts_of, script_arguments
from mailserver.apps.view import AppAddress

#: Address -> its arguments.
TAKEN = [
    ("run@example.org", {}),
    ("run+42@example.org", {}),
    ("run+a=1@example.org", {"a": "1"}),
    ("run+42+a=1+b_2=two@example.org", {"a": "1", "b_2": "two"}),
    ("run+a=@example.org", {"a": ""}),
    ("run+a=b=c@example.org", {"a": "b=c"}),
    ("run+a=x%20y%2Bz%40@example.org", {"a": "x y+z@"}),
    ("run+a=gr%C3%BCn@example.org", {"a": "grün"}),
    ("run++a=1@example.org", {"a": "1"}),
    ("run+camelCase=1@example.org", {"camelCase": "1"}),
]
#: Local part -> a word of the refusal.
REFUSED = [
    ("run+=1", "name"),
    ("run+1a=1", "name"),
    ("run+a-b=1", "name"),
    ("run+" + "a" * 33 + "=1", "name"),
    ("run+a=1+a=2", "twice"),
    ("run+a=1+A=2", "twice"),
    ("run+a=%", "hexadecimal"),
    ("run+a=%2", "hexadecimal"),
    ("run+a=%zz", "hexadecimal"),
    ("run+a=%00", "control"),
    ("run+a=%0D%0Ax", "control"),
    ("run+a=%E2%80%A8", "control"),
    ("run+a=%FF", "UTF-8"),
    ("run+" + "+".join(f"a{number}=" for number in range(MAX_ARGUMENTS + 1)), "more than"),
]


class ScriptArgumentsTests(SynchronousTestCase):
    def test_what_stands_in_an_address_is_read(self) -> None:
        for text, expected in TAKEN:
            self.assertEqual(script_arguments(parse_address(text)), expected, text)

    def test_what_cannot_be_taken_is_refused_with_a_reason_and_without_its_value(self) -> None:
        for local, word in REFUSED:
            with self.assertRaises(ArgumentsError) as caught:
                script_arguments(Address(local, "example.org"))
            self.assertIn(word, str(caught.exception), local)
            self.assertNotIn("%", str(caught.exception).replace("a % without", ""))

    def test_as_many_as_are_allowed_are_taken(self) -> None:
        local = "r+" + "+".join(f"a{number}=" for number in range(MAX_ARGUMENTS))
        self.assertEqual(len(script_arguments(Address(local, "example.org"))), MAX_ARGUMENTS)

    def test_the_separator_of_the_app_counts(self) -> None:
        address = AppAddress("run-a=1-b=2+3", "example.org", separator="-")
        self.assertEqual(script_arguments(address), {"a": "1", "b": "2+3"})
        self.assertEqual(script_arguments(AppAddress("run+a=1", "example.org", separator="")), {})

    @given(st.text(max_size=64))
    def test_no_address_makes_anything_but_a_dict_of_clean_texts_or_a_refusal(self, local: str) -> None:
        try:
            found = script_arguments(Address(local, "example.org"))
        except ArgumentsError:
            return
        for name, value in found.items():
            self.assertTrue(name.isascii() and name.isidentifier())
            self.assertFalse(set(value) & {"\0", "\r", "\n"})


class PartsTests(SynchronousTestCase):
    def test_user_separator_and_detail(self) -> None:
        self.assertEqual(parts_of(parse_address("tickets+42@example.org")), ("tickets", "+", "42"))
        self.assertEqual(parts_of(AppAddress("tickets-42", "example.org", separator="-")), ("tickets", "-", "42"))
        self.assertEqual(parts_of(parse_address("tickets@example.org")), ("tickets", "+", ""))
