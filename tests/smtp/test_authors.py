"""Who a message says it is from."""

from __future__ import annotations

import codecs
from email import message_from_string
from email.policy import default
from email.utils import getaddresses

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mta.smtp.authors import MAX_AUTHORS, MAX_OCTETS, authors

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
    "Alice <a @b.example>": ["a@b.example"],
    "Alice <a\t@ b.example>, b @b.example": ["a@b.example", "b@b.example"],
    'a@b.example (an "open quote)': ["a@b.example"],
    r"a@b.example (a \) in it)": ["a@b.example"],
    '"odd one"@b.example': ['"odd one"@b.example'],
    "a@b.example, Bob <b@b.example>": ["a@b.example", "b@b.example"],
    "=?utf-8?Q?M=C3=BCller=2C_J=C3=BCrgen_(Extern)?= <a@b.example>": ["a@b.example"],
    "=?iso-8859-1?q?J=FCrgen?=\t=?iso-8859-1?q?_M=FCller?= <a@b.example>": ["a@b.example"],
    '"=?windows-1252?B?Suxy?=" <a@b.example>': ["a@b.example"],
    "=?x-unknown?q?J=FCrgen?= <a@b.example>": ["a@b.example"],
    "=?bz2?q?x?= <a@b.example>": ["a@b.example"],
    "=?utf-8?b?x?= <a@b.example>": ["a@b.example"],
    "=?utf-8*de?q?a=40b.example?= <a@b.example>": ["a@b.example"],
    '"a@b.example" <a@b.example>': ["a@b.example"],
    "\U0001f469\u200d\U0001f4bb Anna <a@b.example>": ["a@b.example"],
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
    "bo(ss)@b.example",
    "bo (ss) @b.example",
    "bo ss@b.example",
    '"bo ss" @b.example',
    "=?utf-8?q?boss=40<a@b.example>",
    "a (x) boss@b.example",
    "team: a@b.example;",
    "<@relay.example:a@b.example>",
    r"boss\@b.example <a@b.example>",
    "undisclosed <>",
    "<a@b.example>,<boss@b.example> <a@b.example>",
    "boss@b.example, <a@b.example> x",
    "=?utf-8?q?boss=40b.example?= <a@b.example>",
    "=?utf-8?q?boss?= =?utf-8?q?=40b.example=2C?= <a@b.example>",
    "=?utf-8?b?Ym9zc0BiLmV4YW1wbGU=?= <a@b.example>",
    "=?utf-7?q?boss+AEA-b.example?= <a@b.example>",
    "=?unicode-escape?q?boss=5Cx40b.example?= <a@b.example>",
    "=?Raw_Unicode-Escape?q?boss=5Cu0040b.example?= <a@b.example>",
    "=?utf-16le?b?YgBvAHMAcwBAAGIA?= <a@b.example>",
    "a@b.example (=?utf-8?q?=29=2C_boss=40b.example?=)",
    "=?utf-8?q?=3Cboss=3E?= <a@b.example>",
    "=?utf-8?q?boss=00?= <a@b.example>",
    "=?utf-8?q?boss=0D=0A?= <a@b.example>",
    "=?utf-8?q?boss=40b.example?=@b.example",
    "=?utf-8?q?a?=@b.example",
    "A\x0b <a@b.example>",
    "A\x00 <a@b.example>",
    "A\x85 <a@b.example>",
    "A\u2028 <a@b.example>",
    "<a@b.example>\u3000",
    "\u202eelpmaxe.b@ssob\u202c <a@b.example>",
)

# What some reader shows in another charset than another.
IN_LATIN_1 = {
    b"J\xfcrgen <a@b.example>": ["a@b.example"],
    b'"J\xfcrgen" <a@b.example>': ["a@b.example"],
}
NOT_IN_LATIN_1 = (
    b"\xff@b.example",
    b"J <\xff@b.example>",
    b"\xff@b.example\\",
    b'"J\x81\\" <boss@b.example>" <a@b.example>',
    b"J\x85 <a@b.example>",
)


ADDRESSES = ("a@b.example", "<a@b.example>", "boss@b.example", "<boss@b.example>")
ENCODED = ("=?utf-8?q?", "=40", "=2C", "?=", "b.example")
PARTS = st.sampled_from([*ADDRESSES, *ENCODED, *', "\\()A:;<>@\t'])


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

    def test_other_white_space_is_part_of_the_address(self) -> None:
        """White space that is no blank belongs to the address."""
        for address in ("a@b.example\xa0", "\u3000a@b.example", "a@b.example\u2003"):
            for value in (address, f"<{address}>", f"Alice <{address}>"):
                [mailbox] = authors(value.encode())
                self.assertEqual(address, str(mailbox), value)

    def test_unknown_charsets_are_not_asked_for(self) -> None:
        """Python looks for their modules, and keeps each name for ever."""
        asked: list[str] = []
        codecs.register(asked.append)  # it is asked last
        self.addCleanup(codecs.unregister, asked.append)
        for charset in ("x-17", "x" * 100, "utf-88", "utf-8-\xe9"):
            self.assertEqual(1, len(authors(f"=?{charset}?q?x?= <a@b.example>".encode())))
        self.assertEqual([], asked)

    def test_latin_1(self) -> None:
        """Names of old programs are taken where every charset has the same structure."""
        for value, expected in IN_LATIN_1.items():
            self.assertEqual([str(one) for one in authors(value)], expected, value)
        for value in NOT_IN_LATIN_1:
            with self.assertRaises(ValueError, msg=value):
                authors(value)

    def test_what_is_too_much(self) -> None:
        """Neither what is too long to look at, nor too many."""
        self.assertRaises(ValueError, authors, b"x" * MAX_OCTETS + b"@b.example")
        many = ["a@b.example"] * MAX_AUTHORS
        self.assertEqual(len(authors(",".join(many).encode())), MAX_AUTHORS)
        self.assertRaises(ValueError, authors, ",".join([*many, "a@b.example"]).encode())

    def test_as_the_email_package_reads_it(self) -> None:
        """Python's readers see the same addresses in what is clear."""
        for value, expected in CLEAR.items():
            found = {address for _, address in getaddresses([value])}
            # Debian's Python 3.11.2 has none for a name with an @ in it.
            self.assertLessEqual(found - {""}, set(expected), value)
            modern = message_from_string(f"From: {value.strip()}\n\n", policy=default)["from"]
            self.assertEqual([each.addr_spec for each in modern.addresses], expected, value)

    @given(st.lists(PARTS, max_size=10).map("".join))
    def test_nobody_sees_another(self, value: str) -> None:
        """What is taken for clear names the same addresses to Python's old and new readers."""
        try:
            found = [str(one) for one in authors(value.encode())]
        except ValueError:
            return
        modern = message_from_string(f"From: {value.strip()}\n\n", policy=default)["from"]
        seen = [each.addr_spec.lower() for each in modern.addresses]
        self.assertEqual(seen, [each.lower() for each in found])

    @given(st.text(alphabet='ab@."<>(),;:\\ \t', max_size=40))
    def test_nothing_else_is_raised(self, value: str) -> None:
        """Whatever a client writes, it is read or refused."""
        try:
            found = authors(value.encode())
        except ValueError:
            return
        self.assertTrue(all(one.domain for one in found))
