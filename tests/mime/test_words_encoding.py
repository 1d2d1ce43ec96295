"""Encoded words, written (RFC 2047)."""

from __future__ import annotations

from email.header import decode_header, make_header

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailserver.mime.words import MOST_IN_A_WORD, decode_words, encode_words

texts = st.text(st.characters(exclude_categories=("Cc", "Cs"), exclude_characters="\ufeff"), max_size=120)


class EncodeWordsTests(SynchronousTestCase):
    def test_words(self) -> None:
        # TM12
        for text, words in (
            ("", []),
            ("a b", ["=?utf-8?q?a_b?="]),
            ("J\u00f6rg", ["=?utf-8?q?J=C3=B6rg?="]),
            ("=?_", ["=?utf-8?b?PT9f?="]),
            ("a\r\nb: c, d", ["=?utf-8?q?a=0D=0Ab=3A_c=2C_d?="]),
            ("\u20ac\u20ac", ["=?utf-8?b?4oKs4oKs?="]),
            ("\U0001f600", ["=?utf-8?b?8J+YgA==?="]),
            ("\ud800", ["=?utf-8?b?Pw==?="]),
        ):
            self.assertEqual(encode_words(text), words, text)

    def test_TM12_a_list_of_euros_is_two_words_of_base64(self) -> None:
        words = encode_words("\u20ac" * 20)
        self.assertEqual([word[:10] for word in words], ["=?utf-8?b?", "=?utf-8?b?"])

    def test_what_can_be_read_is_quoted_what_cannot_is_base64(self) -> None:
        self.assertEqual(encode_words("\u00fca")[0][:10], "=?utf-8?q?")
        self.assertEqual(encode_words("\u00fc\u00fca")[0][:10], "=?utf-8?b?")

    def test_no_word_ends_within_a_character(self) -> None:
        for character in ("\u00e4", "\u20ac", "\U0001f600"):
            for before in range(70):
                for word in encode_words("a" * before + character * 30):
                    self.assertLessEqual(len(word), MOST_IN_A_WORD)
                    self.assertEqual(set(decode_words(word.encode())) - {"a", character}, set())

    def test_the_first_word_can_be_short(self) -> None:
        first, second, *_ = encode_words("\u00e4bcde" * 30, first=30)
        self.assertLessEqual(len(first), 30)
        self.assertGreater(len(second), 70)

    @given(texts, st.integers(24, MOST_IN_A_WORD))
    @settings(deadline=None)
    def test_they_are_decoded_to_what_was_meant_also_by_python(self, text: str, first: int) -> None:
        words = encode_words(text, first=first)
        for word in words:
            self.assertLessEqual(len(word), MOST_IN_A_WORD)
            self.assertTrue(word.isascii())
        self.assertLessEqual(len(words[0]) if words else 0, first)
        self.assertEqual(decode_words("\r\n ".join(words).replace("\r\n", "").encode()), text)
        self.assertEqual(str(make_header(decode_header(" ".join(words)))), text)
