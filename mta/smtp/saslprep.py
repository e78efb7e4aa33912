"""SASLprep: one form for user names and passwords (RFC 4013)."""

from __future__ import annotations

import stringprep
from unicodedata import ucd_3_2_0

_PROHIBITED = (
    stringprep.in_table_c12,
    stringprep.in_table_c21_c22,
    stringprep.in_table_c3,
    stringprep.in_table_c4,
    stringprep.in_table_c5,
    stringprep.in_table_c6,
    stringprep.in_table_c7,
    stringprep.in_table_c8,
    stringprep.in_table_c9,
)


def prepare(text: str) -> str:
    """Return a user name or a password as SASLprep makes it.

    Code points that Unicode 3.2 did not know pass, as in a query (RFC 3454 section 7).
    Raises ValueError for what may not occur, and for nothing at all.
    """
    mapped = "".join(
        " " if stringprep.in_table_c12(character) else character
        for character in text
        if not stringprep.in_table_b1(character)
    )
    prepared = ucd_3_2_0.normalize("NFKC", mapped)
    if not prepared:
        raise ValueError("empty")
    if any(_is_prohibited(character) for character in prepared):
        raise ValueError("holds a character that SASLprep forbids")
    right_to_left = [stringprep.in_table_d1(character) for character in prepared]
    if any(right_to_left):
        mixed = any(stringprep.in_table_d2(character) for character in prepared)
        if mixed or not (right_to_left[0] and right_to_left[-1]):
            raise ValueError("mixes writing directions")
    return prepared


def _is_prohibited(character: str) -> bool:
    return any(table(character) for table in _PROHIBITED)
