"""Who a message says it is from."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mta.smtp.authors import MOST_OCTETS, authors

CLEAR = {
    "a@b.example": ["a@b.example"],
    " <a@b.example> ": ["a@b.example"],
    "Alice <a@b.example>": ["a@b.example"],
    "Alice B. Carroll <a@b.example>": ["a@b.example"],
    "Älice <a@b.example>": ["a@b.example"],
    "=?utf-8?q?=C3=84lice?= <a@b.example>": ["a@b.example"],
    '"Boss, The" <a@b.example>': ["a@b.example"],
    '"<boss@b.example>" <a@b.example>': ["a@b.example"],
    r'"quoted \" pair" <a@b.example>': ["a@b.example"],
    "a@b.example <a@b.example>": ["a@b.example"],
    "a@b.example (the (real) boss)": ["a@b.example"],
    'a@b.example (an "open quote)': ["a@b.example"],
    r"a@b.example (a \) in it)": ["a@b.example"],
    '"odd one"@b.example': ['"odd one"@b.example'],
    "a@b.example, Bob <b@b.example>": ["a@b.example", "b@b.example"],
}

UNCLEAR = (
    "",
    "alice",
    "boss@b.example <a@b.example>",
    "<boss@b.example> <a@b.example>",
    "<a@b.example> boss@b.example",
    "<a@b.example>, ",
    "a@b.example boss@b.example",
    '"open <a@b.example>',
    "(open <a@b.example>",
    "a@b.example)",
    "team: a@b.example;",
    "<@relay.example:a@b.example>",
    r"boss\@b.example <a@b.example>",
    "undisclosed <>",
)


class AuthorsTests(SynchronousTestCase):
    """See the module."""

    def test_clear(self) -> None:
        """What everybody reads in one way."""
        for value, expected in CLEAR.items():
            self.assertEqual([str(one) for one in authors(value.encode())], expected, value)

    def test_unclear(self) -> None:
        """What some program could take for another author is refused."""
        for value in UNCLEAR:
            with self.assertRaises(ValueError, msg=value):
                authors(value.encode())

    def test_octets(self) -> None:
        """Neither what is no text, nor what is too long to look at."""
        for value in (b"\xff@b.example", b"x" * MOST_OCTETS + b"@b.example"):
            self.assertRaises(ValueError, authors, value)

    @given(st.text(alphabet='ab@."<>(),;:\\ \t', max_size=40))
    def test_nothing_else_is_raised(self, value: str) -> None:
        """Whatever a client writes, it is read or refused."""
        try:
            found = authors(value.encode())
        except ValueError:
            return
        self.assertTrue(all(one.domain for one in found))
