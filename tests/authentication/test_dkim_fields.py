"""Header fields in the canonicalisations that are signed."""

from __future__ import annotations

import re

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mta.authentication.dkim.fields import Fields

VALUES = st.lists(
    st.sampled_from([b"a", b"B:", b" ", b"\t", b"\r\n ", b"\n\t", b"\r", b"\v", b"\f"])
)


def relaxed(name: bytes, value: bytes) -> bytes:
    """A field in the relaxed canonicalisation, step by step (RFC 6376 section 3.4.2)."""
    unfolded = re.sub(rb"\r?\n(?=[ \t])", b"", value).removesuffix(b"\r\n")
    return name.lower() + b":" + re.sub(rb"[ \t]+", b" ", unfolded).strip(b" ") + b"\r\n"


class FieldTests(SynchronousTestCase):
    """Fields as they are signed."""

    @given(VALUES, VALUES)
    @example([b"a", b"\v", b"a"], [])
    @example([b"a", b"\f"], [b"\t", b"a"])
    @example([b"\r", b"a"], [])
    def test_relaxed(self, first: list[bytes], second: list[bytes]) -> None:
        """White space is blanks and line ends, and no other octets."""
        values = [b" " + b"".join(each) + b".\r\n" for each in (first, second)]
        signature = b"DKIM-Signature: b=x\r\n"
        section = b"Subject:" + values[0] + b"To:" + values[1] + signature + b"\r\n"
        found = Fields(section).signed([b"subject", b"to"], signature, is_relaxed=True)
        wanted = relaxed(b"Subject", values[0]) + relaxed(b"To", values[1])
        self.assertEqual(found, wanted + b"dkim-signature:b=")
