"""Authentication-Results (RFC 8601)."""

from __future__ import annotations

import contextlib

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mta.authentication import results
from mta.authentication.results import AuthenticationResults, MethodResult, parse, value_of
from mta.smtp import header
from mta.smtp.field_edits import EditedSection

OURS = "mail.example.com"
SPF = MethodResult("spf", "pass", (("smtp.mailfrom", "example.net"),))

# Each value, and what it says: the authserv-id, then methods with results and properties.
READ = [
    (b"example.com; none", "example.com", ()),
    (b" (a (nested) comment) example.com (and) 1 (more) ; none", "example.com", ()),
    (b"example.com; spf=pass smtp.mailfrom=example.net", "example.com", (SPF,)),
    (
        b'"an id";dkim / 1=FAIL reason = "bad (x); \\"y\\"" header . d = x.y; SPF = pass'
        b" smtp.mailfrom=example.net",
        "an id",
        (MethodResult("dkim", "fail", (("header.d", "x.y"),), 'bad (x); "y"'), SPF),
    ),
    (
        b'a.b; spf=fail smtp.mailfrom="a b"@x.y smtp.helo=bounce+u=d@z (a;b)',
        "a.b",
        (
            MethodResult(
                "spf", "fail", (("smtp.mailfrom", '"a b"@x.y'), ("smtp.helo", "bounce+u=d@z"))
            ),
        ),
    ),
    (
        b"a.b; dkim=pass header.b=dGVzdA== header.i=@a.b;",
        "a.b",
        (MethodResult("dkim", "pass", (("header.b", "dGVzdA=="), ("header.i", "@a.b"))),),
    ),
]

UNREADABLE = [
    b"",
    b"; none",
    b"spf=pass smtp.mailfrom=example.net",
    b"example.com",
    b"example.com;",
    b"example.com 2; none",
    b"example.com; spf=pass and more",
    b"example.com; spf",
    b"example.com; spf/2=pass",
    b"(example.com; none",
    b'"example.com; none',
    b"\xff.example; none",
    b"a.b; " + b"x=y; " * 200,
    b"a.b; none" + b" " * results.MAX_OCTETS,
]

# What mail comes with, and whether it is removed.
CLAIMS = [
    (b"mail.example.com; spf=pass", True),
    (b"MAIL.Example.Com.; spf=pass", True),
    (b"(x)mail.example.com(y) 1; none", True),
    (b'"mail.example.com"; none', True),
    (b'"mail.ex\\ample.com"; none', True),
    (b"mail.example.com 7; none", True),
    (b"mail.example.com/1; none", True),
    (b"spf=pass", True),
    (b"", True),
    (b"\xff; none", True),
    (b"(mail.example.com; none", True),
    (b"mail.example.com.evil.example; none", False),
    (b"other.example; spf=pass in odd words", False),
    (b"other.example 2; none", False),
]


class ReadingTests(SynchronousTestCase):
    """Fields of others."""

    def test_values(self) -> None:
        """Comments, versions, quoted strings, white space, any case."""
        for value, authserv_id, found in READ:
            with self.subTest(value):
                self.assertEqual(parse(value), AuthenticationResults(authserv_id, found))

    def test_unreadable(self) -> None:
        """What is no such value is refused, and nothing else happens."""
        for value in UNREADABLE:
            with self.subTest(value[:60]):
                self.assertRaises(ValueError, parse, value)

    @given(st.binary(max_size=80), st.text(alphabet='a.b;="/\\()  1\xe4', max_size=40))
    def test_anything(self, octets: bytes, text: str) -> None:
        """Whatever comes is read, or refused by ValueError; claims never fail."""
        for value in (octets, text.encode(), b"a.b; " + octets, b"a.b; spf=" + text.encode()):
            with contextlib.suppress(ValueError):
                parse(value)
            results.claims(value, OURS)


class WritingTests(SynchronousTestCase):
    """Fields of ours."""

    def test_none(self) -> None:
        """Without results the field says so."""
        self.assertEqual(value_of(OURS, []), b"mail.example.com; none")

    def test_folded(self) -> None:
        """There is a line for each method, none of them long, and comments for people."""
        dkim = MethodResult(
            "dkim",
            "fail",
            (("header.d", "example.net"), ("header.s", "2026a"), ("header.b", "abcd+/1=")),
            reason='the body was "changed"',
            comment="2048 (bit)",
        )
        self.assertEqual(
            value_of(OURS, [SPF, dkim]),
            b"mail.example.com;\r\n"
            b"        spf=pass smtp.mailfrom=example.net;\r\n"
            b'        dkim=fail (2048 bit) reason="the body was \\"changed\\""\r\n'
            b'        header.d=example.net header.s=2026a header.b="abcd+/1="',
        )

    @given(
        st.text(min_size=1, max_size=30),
        st.lists(
            st.builds(
                MethodResult,
                st.sampled_from(["spf", "dkim", "x-y"]),
                st.sampled_from(["pass", "fail"]),
                st.lists(
                    st.tuples(st.sampled_from(["header.d", "smtp.mailfrom"]), st.text(max_size=40)),
                    max_size=3,
                ).map(tuple),
                st.text(max_size=40),
                st.text(max_size=40),
            ),
            max_size=4,
        ),
    )
    def test_is_read_again(self, authserv_id: str, found: list[MethodResult]) -> None:
        """Whatever is in the values, a reader finds our results, and no others."""
        value = value_of(authserv_id, found)
        self.assertNotRegex(value, rb"[\x00-\x08\x0b\x0c\x0e-\x1f]")
        read = parse(header.value(b"A-R: " + value))
        self.assertEqual(
            [(each.method, each.result, [name for name, _ in each.properties]) for each in found],
            [
                (each.method, each.result, [name for name, _ in each.properties])
                for each in read.results
            ],
        )

    def test_text_survives(self) -> None:
        """What can be written is read as it was."""
        for text in ("x.y", "a@x.y", "@x.y", '"a b"@x.y', "a b", 'a"b\\', "ä@ö.example", ""):
            found = MethodResult("spf", "pass", (("smtp.mailfrom", text),))
            with self.subTest(text):
                read = parse(header.value(b"A-R: " + value_of(OURS, [found])))
                self.assertEqual(read.results, (found,))


class SortingTests(SynchronousTestCase):
    """Fields that mail comes with."""

    def test_claims(self) -> None:
        """Those that say our name in any way go, and those that say none."""
        for value, is_ours in CLAIMS:
            with self.subTest(value):
                self.assertEqual(results.claims(value, OURS), is_ours)

    def test_removed(self) -> None:
        """Others stay where they are, and in the order in which they are."""
        section = (
            b"Authentication-Results: mail.example.com; dmarc=pass\r\n"
            b"authentication-results : other.example; spf=fail\r\n"
            b"Subject: x\r\n"
            b"AUTHENTICATION-RESULTS:\r\n (x)\r\n mail.EXAMPLE.com;\r\n dkim=pass\r\n"
            b"Authentication-Results: !=\r\n"
            b"Authentication-Results: third.example; none\r\n\r\n"
        )
        found = results.sort_fields(section, OURS, ("third.example",))
        edited = EditedSection(b"", section)
        edited.apply(found.removals)
        self.assertEqual(
            edited.octets,
            b"authentication-results : other.example; spf=fail\r\nSubject: x\r\n"
            b"Authentication-Results: third.example; none\r\n\r\n",
        )
        self.assertEqual(found.believed, (AuthenticationResults("third.example"),))

    def test_hidden(self) -> None:
        """Behind a line that is no field nothing is removed, and readers may look there."""
        for claim, is_hidden in ((OURS, True), ("other.example", False)):
            section = f"A: 1\r\nno field\r\nAuthentication-Results: {claim}; none\r\n\r\n"
            found = results.sort_fields(section.encode(), OURS)
            self.assertEqual(found.is_hidden, is_hidden)
        section = f"A: 1\r\nAuthentication-Results: {OURS}; none\r\nno field\r\n\r\n"
        self.assertFalse(results.sort_fields(section.encode(), OURS).is_hidden)

    def test_internationalised(self) -> None:
        """Our name may be written in U-labels (RFC 8601 section 2.5)."""
        self.assertTrue(results.claims("ä.example; none".encode(), "xn--4ca.example"))
