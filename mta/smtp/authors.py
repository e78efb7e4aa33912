"""The authors that a message names (RFC 5322 section 3.6.2).

Read more strictly than mail programs read it: what could be understood in two ways is refused,
because the other way would be the address of another user.
"""

from __future__ import annotations

import encodings
import quopri
import re
from base64 import b64decode
from encodings.aliases import aliases
from pkgutil import iter_modules

from zope.interface import implementer

from mta.interfaces import IAuthorPolicy, IHeaderCheck
from mta.mail import Envelope, Mailbox
from mta.session import Session
from mta.smtp import grammar, header, replies
from mta.smtp.content import LineCheck
from mta.smtp.errors import Refusal

MAX_OCTETS = 4096  # of one field, and four times that would take sixteen times as long
MAX_AUTHORS = 50  # each is looked up
BLANKS = " \t\n"  # and comments; to readers, other white space is a part of the address

# A line that looks like a From: field to some readers, where we see no fields any more.
_LIKE_AN_AUTHOR = re.compile(rb"^[^a-z\n]*+from[^a-z\n:]*+:", re.MULTILINE | re.IGNORECASE)
_LEXEME = re.compile(r'"(?:[^"\\]|\\.)*+"|\\.|.', re.DOTALL)
# Folds, but no comments (line ends stand for them): to some readers they are part of an address.
_AROUND_AT = re.compile(r"[ \t]*@[ \t]*")
_NAMED = re.compile(r"(.*)<([^<>]*)>", re.DOTALL)
# A display name, with what people leave unquoted in it and no program misreads.
_DISPLAY_NAME = re.compile(r'(?:"(?:[^"\\]|\\.)*"|[^"\\<>@:;()])*', re.DOTALL)
# Control characters, ends of lines, and what turns the direction of the text that is shown.
_UNSHOWN = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
_ENCODED_WORD = re.compile(r"=\?([^?*]*)(?:\*[^?]*)?\?([bBqQ])\?([^?]*)\?=")
_BETWEEN_ENCODED_WORDS = re.compile(r"(?<=\?=)[ \t]+(?==\?)")
# Python looks for a module of any other name, and keeps that name for ever.
_CHARSETS = {module.name for module in iter_modules(encodings.__path__)} | set(aliases)
_LIKE_AN_ADDRESS = re.compile(r'[^\s"(),:;<>@]*@[^\s"(),:;<>@]*')


@implementer(IHeaderCheck)
class AuthorCheck:
    """Lets users write in their own names alone (RFC 6409 section 6.1)."""

    def __init__(self, policy: IAuthorPolicy) -> None:
        self._policy = policy

    def check(self, session: Session, envelope: Envelope, section: bytes) -> None:
        """See `IHeaderCheck.check`."""
        if not (session.identity and self._policy.checks_authors(session)):
            return
        for mailbox in _clear_authors(section):
            self._policy.header_from(session, mailbox)


def _clear_authors(section: bytes) -> list[Mailbox]:
    """Return the authors that all readers of a header section see.  Raises Refusal."""
    if header.is_cut(section):
        raise Refusal(replies.HEADER_TOO_LONG)
    lines = LineCheck()  # a line of the header section that we don't see hides a field
    lines.feed(section)
    if lines.broken:
        raise Refusal(replies.BARE_LINE_END)
    end = header.end_of_fields(section)
    if _LIKE_AN_AUTHOR.search(section, end):  # some readers look for more fields there
        raise Refusal(replies.AUTHOR_UNCLEAR)
    values = header.values(section[:end], b"from")
    if not values:
        return []
    try:
        if len(values) > 1:
            raise ValueError("more than one")
        return authors(values[0])
    except ValueError:
        raise Refusal(replies.AUTHOR_UNCLEAR) from None


def authors(value: bytes) -> list[Mailbox]:
    """The mailboxes in the unfolded value of a From: field.

    Raises ValueError where they aren't clear.
    """
    if len(value) > MAX_OCTETS:
        raise ValueError("too long")
    text, is_utf8 = _text(value)
    if _UNSHOWN.search(text):
        raise ValueError("a character that is not shown")
    items = _items(text)
    if len(items) > MAX_AUTHORS:
        raise ValueError("too many")
    mailboxes = [_mailbox(item.strip(BLANKS)) for item in items]
    if not is_utf8 and any(mailbox.is_internationalised for mailbox in mailboxes):
        raise ValueError("an address in an unknown charset")
    _check_encoded_words(text, mailboxes)
    return mailboxes


def _text(value: bytes) -> tuple[str, bool]:
    """Return the value as text, and whether it is UTF-8.

    Else it is another charset of the same structure.
    """
    try:
        return value.decode(), True
    except UnicodeDecodeError:
        if b"\\" in value:  # which is half of a character in some charsets
            raise
        return value.decode("latin-1"), False


def _items(text: str) -> list[str]:
    """Return the items between the commas, without comments.  Raises ValueError."""
    items = [""]
    for lexeme in _LEXEME.findall(header.without_comments(text)):
        if lexeme == ",":
            items.append("")
        else:
            items[-1] += lexeme
    return items


def _mailbox(item: str) -> Mailbox:
    named = _NAMED.fullmatch(item)
    name, address = (named[1].strip(BLANKS), named[2].strip(BLANKS)) if named else ("", item)
    if name != address and not _DISPLAY_NAME.fullmatch(name):
        raise ValueError(f"not a display name: {name!r}")
    if "=?" in address:
        raise ValueError("an encoded word in an address")
    if '"' not in address:
        address = _AROUND_AT.sub("@", address)
    return grammar.parse_mailbox(address)


def _check_encoded_words(text: str, mailboxes: list[Mailbox]) -> None:
    """Refuse what another reader would take for another address.

    Raises ValueError where a reader that decodes before it parses would.
    """
    if "=?" not in text:
        return
    if "=?" in _ENCODED_WORD.sub("", text):
        raise ValueError("an encoded word that does not end")
    joined = _BETWEEN_ENCODED_WORDS.sub("", text)
    shown = _ENCODED_WORD.sub(_decoded, joined)
    words = "".join(map(_decoded, _ENCODED_WORD.finditer(joined)))
    own = {str(mailbox).lower() for mailbox in mailboxes}
    if _UNSHOWN.search(shown) or "<" in words or ">" in words:
        raise ValueError("an encoded word with more than text")
    if "@" in words and any(found.lower() not in own for found in _LIKE_AN_ADDRESS.findall(shown)):
        raise ValueError("an encoded word with an address")


def _decoded(word: re.Match[str]) -> str:
    """Return the text of an encoded word (RFC 2047).  A broken one stays as it is."""
    charset, encoding, encoded = word[1], word[2].lower(), word[3].encode("utf-8", "replace")
    try:
        if encoding == "b":
            octets = b64decode(encoded + b"==")
        else:
            octets = quopri.decodestring(encoded, header=True)
    except ValueError:
        return word[0]
    name = encodings.normalize_encoding(charset).lower() or "ascii"
    try:
        return octets.decode(name if name in _CHARSETS else "latin-1", "replace")
    except (LookupError, ValueError):  # of what is no charset, or of one that ignores "replace"
        return octets.decode("latin-1")
