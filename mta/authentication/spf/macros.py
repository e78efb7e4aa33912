"""Macros in records and explanations (RFC 7208 section 7)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote

from mta.authentication.spf.result import PermError

MAX_NAME = 253  # octets: RFC 7208 section 7.3
MAX_SPEC = 512  # characters of a domain with macros: each macro may become as many as a path has
DOMAIN_LETTERS = "slodiphv"
EXPLANATION_LETTERS = DOMAIN_LETTERS + "crt"  # RFC 7208 section 7.2

_TOKEN = re.compile(
    r"%\{(?P<letter>[a-zA-Z])(?P<parts>[0-9]*)(?P<reversed>[rR]?)(?P<delimiters>[.\-+,/_=]*)\}"
    r"|(?P<escape>%[%_-])"
    r"|(?P<literal>[\x20-\x24\x26-\x7e]+)"
)
_ESCAPES = {"%%": "%", "%_": " ", "%-": "%20"}
_TOP_LABEL = re.compile(r"(?!-)[A-Za-z0-9-]+(?<!-)")


@dataclass(frozen=True, slots=True)
class Macro:
    """A macro: a letter, and what is done to its value.

    `parts` is how many parts are kept, from the right; 0: all of them.
    """

    letter: str
    parts: int = 0
    is_reversed: bool = False
    delimiters: str = "."
    is_escaped: bool = False

    def expand(self, value: str) -> str:
        """Return the value as this macro has it."""
        if self.parts or self.is_reversed or self.delimiters != ".":
            split = re.split(f"[{re.escape(self.delimiters)}]", value)
            if self.is_reversed:
                split.reverse()
            value = ".".join(split[-self.parts :])
        return quote(value, safe="") if self.is_escaped else value


@dataclass(frozen=True, slots=True)
class MacroString:
    """A text with macros in it."""

    tokens: tuple[str | Macro, ...]

    @classmethod
    def parse(cls, text: str, letters: str = DOMAIN_LETTERS) -> MacroString:
        """Read a text, which may have spaces.  Raises PermError."""
        tokens: list[str | Macro] = []
        place = 0
        while place < len(text):
            match = _TOKEN.match(text, place)
            if match is None:
                raise PermError(f"{text[place : place + 10]!r} is no macro")
            tokens.append(_token(match, letters))
            place = match.end()
        return cls(tuple(tokens))

    @property
    def letters(self) -> frozenset[str]:
        """The letters of the macros in it."""
        return frozenset(each.letter for each in self.tokens if isinstance(each, Macro))

    def expand(self, values: Mapping[str, str]) -> str:
        """Return the text with the values of the letters."""
        return "".join(
            each.expand(values[each.letter]) if isinstance(each, Macro) else each
            for each in self.tokens
        )


def _token(match: re.Match[str], letters: str) -> str | Macro:
    if match["literal"]:
        return match["literal"]
    if match["escape"]:
        return _ESCAPES[match["escape"]]
    letter = match["letter"].lower()
    if letter not in letters:
        raise PermError(f"{match[0][:20]!r}: no such macro here")
    digits = match["parts"].lstrip("0")
    if match["parts"] and not digits:
        raise PermError(f"{match[0][:20]!r} keeps nothing")
    return Macro(
        letter,
        int(digits[:4] or 0),
        bool(match["reversed"]),
        "".join(sorted(set(match["delimiters"]))) or ".",
        match["letter"].isupper(),
    )


def domain_spec(text: str) -> MacroString:
    """Read a domain, which may have macros (RFC 7208 section 7.1).  Raises PermError."""
    if len(text) > MAX_SPEC:
        raise PermError(f"a domain of {len(text)} characters, {MAX_SPEC} allowed")
    found = MacroString.parse(text)
    if not found.tokens:
        raise PermError("a domain is missing")
    *_, last = _TOKEN.finditer(text)
    if last["literal"]:
        _, dot, label = last["literal"].removesuffix(".").rpartition(".")
        if not dot or not _TOP_LABEL.fullmatch(label) or label.isdigit():
            raise PermError(f"{text[:80]!r} is no domain")
    return found


def fitted(name: str) -> str:
    """Return a name, cut from the left where it is too long."""
    name = name.removesuffix(".")
    if len(name) <= MAX_NAME:
        return name
    # What is behind the first dot that leaves no more than fits; a label without one can't exist.
    return name[-MAX_NAME - 1 :].partition(".")[2]
