"""The token: whole or refused, whatever was copied."""

from __future__ import annotations

import contextlib
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mta.pairing.token import MAX_DOMAINS, PREFIX, Token, TokenFault, decoded

TOKEN = Token(
    "mail.example.com", 465, "ab" * 32, "01" * 8, "02" * 16, "office", ("example.com", "a.example")
)
LABELS = st.text("abcdefghijklmnopqrstuvwxyz0123456789", min_size=1, max_size=20)
NAMES = st.lists(LABELS, min_size=1, max_size=4).map(".".join)


def number(octets: int) -> st.SearchStrategy[str]:
    """So many octets in hex."""
    return st.binary(min_size=octets, max_size=octets).map(bytes.hex)


TOKENS = st.builds(
    Token,
    NAMES,
    st.integers(1, 65535),
    number(32),
    number(8),
    number(16),
    LABELS,
    st.lists(NAMES, min_size=1, max_size=MAX_DOMAINS).map(tuple),
    st.booleans(),
)


class TokenTests(SynchronousTestCase):
    """Tokens, there and back."""

    @given(TOKENS)
    def test_there_and_back(self, token: Token) -> None:
        """Each token is one word that no shell changes, and becomes itself again."""
        word = token.encoded()
        self.assertRegex(word, "^mta1:[A-Za-z0-9_-]+$")
        self.assertEqual(decoded(word), token)

    @given(st.integers(0, len(TOKEN.encoded()) - 1), st.sampled_from("Aa0_-"))
    def test_a_wrong_letter(self, place: int, letter: str) -> None:
        """A letter that was changed, or one that is missing, is noticed."""
        word = TOKEN.encoded()
        self.assertRaises(TokenFault, decoded, word[:place] + word[place + 1 :])
        if word[place] != letter:
            changed = word[:place] + letter + word[place + 1 :]
            with contextlib.suppress(TokenFault):
                self.assertEqual(decoded(changed), TOKEN)  # bits behind the last octet

    @given(st.text() | st.text("abcABC019_-").map(PREFIX.__add__))
    def test_anything_else(self, word: str) -> None:
        """No other text is a token, or an error of another kind."""
        self.assertRaises(TokenFault, decoded, word)

    def test_hostile_names(self) -> None:
        """A token with names that are none is refused, checksum and all."""
        for token in (
            replace(TOKEN, host="a b"),
            replace(TOKEN, host=""),
            replace(TOKEN, peer="../x"),
            replace(TOKEN, peer="a\x1b"),
            replace(TOKEN, domains=()),
            replace(TOKEN, domains=("a b",)),
            replace(TOKEN, domains=("x.example",) * (MAX_DOMAINS + 1)),
        ):
            self.assertRaises(TokenFault, decoded, token.encoded())

    def test_nothing_secret_is_shown(self) -> None:
        """What ends in a log by mistake has no secret."""
        self.assertNotIn(TOKEN.secret, repr(TOKEN))
