"""Authentication-Results: how results are told to those behind us (RFC 8601).

A field is believed by its authserv-id alone.  So those that claim ours, and those of which it can't
be said whose they are, are removed from mail that comes in.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from mta.mail import canonical_domain
from mta.smtp import header
from mta.smtp.wire import CRLF
from mta.verdict import ChangeField

NAME = b"Authentication-Results"
MAX_OCTETS = 16 * 1024  # of one field that is parsed: longer ones are removed
MAX_RESULTS = 100  # of one field
MAX_LINE = 78  # octets, RFC 5322 section 2.1.1
INDENT = " " * 8  # of the lines after the first
MAX_VALUE = 512  # characters of one value that we write

_VALUE = re.compile(r"[!#-'*+.0-9A-Z^-~\x80-\U0010ffff-]+")  # a token: RFC 2045, RFC 6532
_PLAIN = re.compile(r"[A-Za-z0-9._+-]{1,253}@?[A-Za-z0-9.-]{0,253}")  # nearly all values are
_QUOTED = r'"(?:[^"\\]|\\.)*"'
_LEXEME = re.compile(rf'{_QUOTED}|[^";]+|;', re.DOTALL)
_LOCAL_PART = re.compile(_QUOTED, re.DOTALL)
_PAIR = re.compile(r"\\(.)", re.DOTALL)
_HEAD = re.compile(rf'\s*({_QUOTED}|[^\s"=]+)(?:\s+([0-9]+))?\s*', re.ASCII | re.DOTALL)
_METHOD = re.compile(
    r"\s*([A-Za-z0-9-]+)\s*(?:/\s*([0-9]+)\s*)?=\s*([A-Za-z0-9-]+)(?!\S)", re.ASCII
)
_PROPERTY = re.compile(
    r"\s+(?:reason|([A-Za-z0-9-]+)\s*\.\s*([A-Za-z0-9_-]+))\s*="
    rf'\s*({_QUOTED}(?:@[^\s"]+)?|[^\s"]+)(?!\S)',
    re.ASCII | re.DOTALL | re.IGNORECASE,
)
# Control characters, ends of lines, and what turns the direction of the text that is shown.
_UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]+")
_COMMENTED = re.compile(r"[()\\]")


@dataclass(frozen=True, slots=True)
class MethodResult:
    """The result of one method, such as ``spf`` or ``dkim``.

    `properties` are pairs such as ``("smtp.mailfrom", "example.com")``.  A `comment` is for people;
    parsing drops it.
    """

    method: str
    result: str
    properties: tuple[tuple[str, str], ...] = ()
    reason: str = ""
    comment: str = ""

    def property(self, name: str) -> str:
        """The first property of a name, empty where there is none."""
        return next((value for each, value in self.properties if each == name), "")


@dataclass(frozen=True, slots=True)
class AuthenticationResults:
    """The results of one service.  Without any it says ``none``."""

    authserv_id: str
    results: tuple[MethodResult, ...] = ()


# --- writing


def value_of(authserv_id: str, results: Sequence[MethodResult]) -> bytes:
    """Return the value of a field, folded."""
    lines = [f"{_word(authserv_id)};"]
    if not results:
        return f"{lines[0]} none".encode()
    for number, each in enumerate(results, 1):
        words = _words(each)
        if number < len(results):
            words[-1] += ";"
        whole = INDENT + " ".join(words)
        lines += [whole] if len(whole) <= MAX_LINE else _folded(words)
    return CRLF.decode().join(lines).encode("utf-8", "replace")


def _folded(words: Sequence[str]) -> Iterator[str]:
    """The lines that words take."""
    line = ""
    for word in words:
        if line and len(line) + 1 + len(word) > MAX_LINE:
            yield line
            line = ""
        line = f"{line} {word}" if line else INDENT + word
    yield line


def _words(found: MethodResult) -> list[str]:
    words = [f"{found.method}={found.result}"]
    if found.comment:
        words.append(f"({_COMMENTED.sub('', _clean(found.comment))})")
    if found.reason:
        words.append(f"reason={_quoted(found.reason)}")
    return words + [f"{name}={_property_value(value)}" for name, value in found.properties]


def _clean(text: str) -> str:
    return _UNSAFE.sub(" ", text)[:MAX_VALUE].strip()


def _word(text: str) -> str:
    return text if _VALUE.fullmatch(text) and not _UNSAFE.search(text) else _quoted(text)


def _quoted(text: str) -> str:
    return '"' + re.sub(r'(["\\])', r"\\\1", _clean(text)) + '"'


def _property_value(text: str) -> str:
    """Return a pvalue: a value, an address, or a domain behind ``@``."""
    if _PLAIN.fullmatch(text):
        return text
    local_part, at, domain = text.rpartition("@")
    if at and len(text) <= MAX_VALUE and not _UNSAFE.search(text) and _VALUE.fullmatch(domain):
        if not local_part or _VALUE.fullmatch(local_part):
            return text
        if _LOCAL_PART.fullmatch(local_part):
            return text
    return _word(text) if len(text) <= MAX_VALUE else _quoted(text)


# --- reading


def parse(value: bytes) -> AuthenticationResults:
    """Return what an unfolded value says.  Raises ValueError."""
    first, *parts = _parts(value)
    head = _HEAD.fullmatch(first)
    if head is None or head[2] not in (None, "1"):
        raise ValueError("no authserv-id, or another version")
    if len(parts) == 1 and parts[0].strip().lower() == "none":
        return AuthenticationResults(_unquoted(head[1]))
    results = tuple(_result(part) for part in parts if part.strip())
    if not results:
        raise ValueError("no results, and not none")
    return AuthenticationResults(_unquoted(head[1]), results)


def authserv_id_of(value: bytes) -> str:
    """The authserv-id of an unfolded value, in canonical form.  Raises ValueError."""
    head = _HEAD.fullmatch(_parts(value)[0])
    if head is None:
        raise ValueError("no authserv-id")
    return canonical_domain(_unquoted(head[1]).partition("/")[0]).rstrip(".")


def _parts(value: bytes) -> list[str]:
    """Return the text between the semicolons, without comments."""
    if len(value) > MAX_OCTETS:
        raise ValueError("too long")
    parts = [""]
    for lexeme in _LEXEME.findall(header.without_comments(value.decode())):
        if lexeme == ";":
            parts.append("")
        else:
            parts[-1] += lexeme
    if len(parts) > MAX_RESULTS:
        raise ValueError("too many results")
    return parts


def _result(part: str) -> MethodResult:
    method = _METHOD.match(part)
    if method is None or method[2] not in (None, "1"):
        raise ValueError(f"not a result: {part!r}")
    place, reason, properties = method.end(), "", []
    while found := _PROPERTY.match(part, place):
        place = found.end()
        if found[1]:
            properties.append((f"{found[1]}.{found[2]}".lower(), _unquoted(found[3])))
        else:
            reason = _unquoted(found[3])
    if part[place:].strip():
        raise ValueError(f"not a property: {part[place:]!r}")
    return MethodResult(method[1].lower(), method[3].lower(), tuple(properties), reason)


def _unquoted(text: str) -> str:
    """Return a value without its quotes; a quoted local part keeps them."""
    if text.startswith('"') and text.endswith('"'):
        return _PAIR.sub(r"\1", text[1:-1])
    return text


# --- fields that come in


@dataclass(frozen=True, slots=True)
class SortedResults:
    """The Authentication-Results of mail that came in: to remove, and to believe.

    `is_hidden`: one that claims to be ours stands behind a line that is no field.  It can't be
    removed, and some readers find it there.
    """

    removals: tuple[ChangeField, ...]
    believed: tuple[AuthenticationResults, ...]
    is_hidden: bool = False


NO_RESULTS = SortedResults((), ())


def sort_fields(section: bytes, ours: str, trusted: Collection[str] = ()) -> SortedResults:
    """Sort the fields of a header section.

    Those that claim to be `ours`, or can't be read, are to go; those of `trusted` services are to
    be believed.  Names are in canonical form.
    """
    values = header.values(section, NAME.lower())
    if not values:
        return NO_RESULTS
    removals: list[ChangeField] = []
    believed = []
    for number, value in enumerate(values, 1):
        if claims(value, ours):
            removals.append(ChangeField(NAME, number - len(removals)))
            continue
        try:
            results = parse(value)
        except ValueError:
            continue  # another's, in words that we don't know
        if canonical_domain(results.authserv_id).rstrip(".") in trusted:
            believed.append(results)
    behind = header.values(section[header.end_of_fields(section) :], NAME.lower())
    is_hidden = any(claims(value, ours) for value in behind)
    return SortedResults(tuple(removals), tuple(believed), is_hidden)


def claims(value: bytes, ours: str) -> bool:
    """Tell whether a value claims to be ours, or can't be read."""
    try:
        return authserv_id_of(value) == ours
    except ValueError:
        return True
