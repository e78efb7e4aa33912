"""What a server offers in its reply to EHLO."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mta.mail import Reply
from mta.smtp.extensions import Extensions


def extensions(*lines: str) -> Extensions:
    """What a server offers that says these lines after the first one."""
    return Extensions(Reply(250, "", ("peer.example", *lines)))


class ExtensionsTests(SynchronousTestCase):
    """RFC 5321 section 4.1.1.1, and what servers make of it."""

    def test_nothing(self) -> None:
        """No reply, or one of a single line."""
        for nothing in (Extensions(), extensions()):
            self.assertFalse(nothing.offers("SIZE"))
            self.assertEqual(list(nothing.mechanisms), [])
            self.assertIsNone(nothing.max_size)

    def test_keywords(self) -> None:
        """They have no case, and any space around them; the first line holds none."""
        offered = extensions("pipelining", "  Size   1000  ", "8bitmime\tx", "", "  ")
        for keyword in ("PIPELINING", "SIZE", "8BITMIME"):
            self.assertTrue(offered.offers(keyword))
        self.assertFalse(offered.offers("CHUNKING"))
        self.assertFalse(offered.offers("PEER.EXAMPLE"))
        self.assertEqual(offered.max_size, 1000)

    def test_sizes(self) -> None:
        """A size of 0, or none at all, is no limit (RFC 1870 section 4)."""
        for line, size in (
            ("SIZE", None),
            ("SIZE 0", None),
            ("SIZE x", None),
            ("SIZE -1", None),
            ("SIZE 10 x", 10),
            ("SIZE " + "9" * 5000, 10**20 - 1),
        ):
            self.assertEqual(extensions(line).max_size, size, line)

    def test_mechanisms(self) -> None:
        """AUTH as RFC 4954 has it, as it was before RFC 2554, and both."""
        for lines, mechanisms in (
            (["AUTH LOGIN PLAIN"], ["LOGIN", "PLAIN"]),
            (["AUTH=LOGIN PLAIN"], ["LOGIN", "PLAIN"]),
            (["auth=login", "Auth  plain"], ["login", "plain"]),
            ([" AUTH=LOGIN", "AUTH CRAM-MD5"], ["LOGIN", "CRAM-MD5"]),
            (["AUTH", "AUTH="], []),
        ):
            offered = extensions(*lines)
            self.assertEqual(list(offered.mechanisms), mechanisms)
            self.assertTrue(offered.offers("AUTH"))

    def test_limits(self) -> None:
        """RFC 9422: names have no case; what is no number above 0 is no limit."""
        offered = extensions("LIMITS rcptmax=2  MAILMAX=0 X=1", "LIMITS MAILMAX=7")
        self.assertEqual(offered.limit("RCPTMAX", 100), 2)
        self.assertEqual(offered.limit("MAILMAX", 100), 7)
        for value in ("0", "x", "", "-1", "1.5"):
            self.assertEqual(extensions(f"LIMITS RCPTMAX={value}").limit("RCPTMAX", 100), 100)
        self.assertEqual(extensions("LIMITS RCPTMAX=" + "9" * 5000).limit("RCPTMAX", 1), 999999999)
