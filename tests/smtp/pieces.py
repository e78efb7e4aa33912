"""Streams in pieces: what arrives may be cut anywhere."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import strategies as st

from mta.testing import FakeContent

# Octets among which everything that matters to line ends, dots and headers is frequent.
MOTIFS = [b"\r", b"\n", b"\r\n", b".", b"\r\n.", b"\r\n.\r\n", b"\0", b"a", b"\xff", b"x: y"]
octets = st.lists(st.sampled_from(MOTIFS), max_size=24).map(b"".join)


def cut(stream: bytes, places: Sequence[int]) -> list[bytes]:
    """The stream cut at those places; pieces may be empty."""
    ends = [*sorted(place for place in places if place <= len(stream)), len(stream)]
    return [stream[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def single_octets(stream: bytes) -> list[bytes]:
    """The stream, one octet at a time."""
    return cut(stream, range(1, len(stream)))


places = st.lists(st.integers(min_value=0, max_value=200), max_size=8)


def cut_content(octets: bytes, at: Sequence[int] = ()) -> FakeContent:
    """Content that comes in pieces, cut at some places."""
    return FakeContent(*cut(octets, at))
