"""Messages out of their rows.  A row that is damaged harms its own message alone."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar

from mta.mail import NULL_PATH, Body, Envelope, Mailbox, Notify, Recipient
from mta.queued import HistoryEntry, IContent, Message, Progress, State
from mta.spool import origins, queue_id, rows
from mta.spool.database import is_damage
from mta.spool.folder import Folder

if TYPE_CHECKING:
    from twisted.logger import Logger

E = TypeVar("E", bound=Enum)

MakeContent = Callable[["ContentKey"], IContent]

_CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
_NO_DOMAIN = re.compile(r"[\s<>@\"]")
_BODIES = {each.value: each for each in Body}
_STATES = {each.value: each for each in State}
_CONDITIONS = {each.value: each for each in Notify}
WRONG = (ValueError, TypeError, LookupError, ArithmeticError, AttributeError, RecursionError)


@dataclass(frozen=True, slots=True)
class ContentKey:
    """The facts about content in a message's row."""

    number: int
    size: int
    is_ascii: bool
    in_file: bool


@dataclass(slots=True)
class Loaded:
    """Messages, and the faults of damaged ones, by their ids.

    `suspects` are those that an owner died on.
    """

    messages: list[Message] = field(default_factory=list)
    damaged: dict[int, str] = field(default_factory=dict)
    suspects: set[int] = field(default_factory=set)

    def add(self, other: Loaded) -> None:
        """Take in what another one has."""
        self.messages += other.messages
        self.damaged |= other.damaged
        self.suspects |= other.suspects


def load(
    connection: sqlite3.Connection, numbers: Sequence[int], folder: Folder, content: MakeContent
) -> Loaded:
    """Read the messages with these ids that exist, in that order.

    `content` makes their content.  Raises sqlite3.Error where the fault is not one of the rows.
    """
    try:
        return _load(connection, numbers, folder, content)
    except sqlite3.DatabaseError as error:
        if not is_damage(error):
            raise
        if len(numbers) == 1:
            return Loaded(damaged={numbers[0]: f"it can't be read: {error}"})
    loaded = Loaded()
    for number in numbers:
        loaded.add(load(connection, [number], folder, content))
    return loaded


_RECIPIENTS = """
SELECT message, local_part, domain, notify, original, state, peer, held_domain, settled, history
FROM recipient WHERE message IN (SELECT value FROM json_each(?)) ORDER BY message, number
"""
_MESSAGES = """
SELECT id, shift, size, is_ascii, in_file, attempts, warned, recovered,
    local_part, domain, body, smtputf8, ret, envid, require_tls, outside, deaths
FROM message WHERE id IN (SELECT value FROM json_each(?))
"""
_CONTENTS = """
SELECT id, origin, typeof(header), length(header), typeof(data), length(data)
FROM content WHERE id IN (SELECT value FROM json_each(?))
"""
_NO_CONTENT = ("", "null", None, "blob", None)  # as the row of a file that an older version took


def _load(
    connection: sqlite3.Connection, numbers: Sequence[int], folder: Folder, content: MakeContent
) -> Loaded:
    wanted = json.dumps(list(numbers))
    recipients: dict[int, list[tuple[Any, ...]]] = {}
    for number, *row in connection.execute(_RECIPIENTS, (wanted,)):
        recipients.setdefault(number, []).append(tuple(row))
    found = {row[0]: row for row in connection.execute(_MESSAGES, (wanted,))}
    contents = {row[0]: row[1:] for row in connection.execute(_CONTENTS, (wanted,))}
    loaded = Loaded()
    for number in numbers:
        if number not in found:
            continue
        try:
            origin, *lengths = contents.get(number, _NO_CONTENT)
            message = message_of(found[number], recipients.get(number, ()), content, origin)
            if found[number][4]:
                lengths[-2:] = "blob", folder.length(number)
            _require_content(found[number][2], *lengths)
        except WRONG as error:
            loaded.damaged[number] = words(error)
        else:
            loaded.messages.append(message)
            if found[number][-1]:
                loaded.suspects.add(number)
    return loaded


def words(error: Exception) -> str:
    """The error in one printable line."""
    text = f"{type(error).__name__}: {error}" if isinstance(error, LookupError) else str(error)
    return "".join(each if each.isprintable() else "?" for each in text)[:200]


def message_of(
    row: tuple[Any, ...],
    recipients: Collection[tuple[Any, ...]],
    content: MakeContent,
    origin: str,
) -> Message:
    """A message.  Raises what `WRONG` names where a value can't be right."""
    number, shift, size, is_ascii, in_file, attempts, warned, recovered, *rest, _ = row
    local_part, domain, body, smtputf8, ret, envid, require_tls, outside = rest
    _require_texts(_MESSAGE_TEXTS, (local_part, domain, body, ret, envid, origin))
    if not recipients:
        raise ValueError("it has no recipients")
    for name, value in (("size", size), ("attempts", attempts)):
        if not isinstance(value, int) or value < 0:
            raise ValueError(f"its {name} is {value!r}")
    progress = tuple(_numbered_progress(recipients))
    return Message(
        id=queue_id.encode(number),
        arrived=_moment("arrival", queue_id.arrival(number) + _number("shift", shift)),
        envelope=Envelope(
            reverse_path=_mailbox("reverse-path", local_part, domain, null=True),
            recipients=tuple([entry.recipient for entry in progress]),
            body=_member("body", _BODIES, body.removeprefix(rows.SEALED)),
            smtputf8=bool(smtputf8),
            ret=ret,
            envid=envid,
            require_tls=bool(require_tls),
            outside=bool(outside),
            sealed=body.startswith(rows.SEALED),
        ),
        content=content(ContentKey(number, size, bool(is_ascii), bool(in_file))),
        progress=progress,
        attempts=attempts,
        warned=bool(warned),
        recovered=bool(recovered),
        origin=origins.decoded(origin),
    )


def _require_content(
    size: int, header_kind: str, header_length: int | None, kind: str, length: int | None
) -> None:
    """Raise ValueError where type or length of the content are wrong."""
    for each in (header_kind if header_length is not None else "blob", kind):
        if each != "blob":
            raise ValueError(f"its content is of type {each}")
    if length is None:
        raise ValueError("its content is missing")
    length += header_length or 0
    if length != size:
        raise ValueError(f"its content has {length} octets and not {size}")


def _numbered_progress(recipients: Collection[tuple[Any, ...]]) -> Iterator[Progress]:
    for place, row in enumerate(recipients, 1):
        try:
            yield _progress(row)
        except WRONG as error:
            raise ValueError(f"recipient {place}: {words(error)}") from None


def _progress(row: tuple[Any, ...]) -> Progress:
    _require_texts(_RECIPIENT_TEXTS, row)
    local_part, domain, notify, original, state, peer, held_domain, settled, history = row
    return Progress(
        recipient=Recipient(
            _mailbox("forward-path", local_part, domain), _notify(notify), original
        ),
        state=_member("state", _STATES, state),
        peer=peer,
        domain=held_domain,
        settled=frozenset([_text("settled", each) for each in _list("settled", settled)]),
        history=tuple([_attempt(entry) for entry in _list("history", history)]),
    )


@lru_cache(maxsize=64)
def _notify(conditions: str) -> frozenset[Notify]:
    return frozenset(_member("notify", _CONDITIONS, each) for each in conditions.split())


def _attempt(entry: Any) -> HistoryEntry:
    at, *texts = entry
    if not all(isinstance(text, str) for text in texts):
        raise ValueError(f"its history has {entry!r}")
    return HistoryEntry(_moment("history", at), *texts)


def _mailbox(name: str, local_part: str, domain: str, *, null: bool = False) -> Mailbox:
    mailbox = Mailbox(local_part, domain)
    if null and mailbox.is_null:
        return NULL_PATH
    is_postmaster = not domain and local_part.lower() == "postmaster"
    if not local_part or not (domain or is_postmaster) or _NO_DOMAIN.search(domain):
        raise ValueError(f"its {name} is {local_part!r}@{domain!r}")
    return mailbox


_MESSAGE_TEXTS = ("reverse-path", "reverse-path", "body", "RET", "ENVID", "origin")
_RECIPIENT_TEXTS = (
    *("forward-path", "forward-path", "notify", "original recipient"),
    *("state", "peer", "domain", "settled", "history"),
)


def _require_texts(names: Sequence[str], values: Sequence[Any]) -> None:
    """Raise ValueError where a value is no text, or has control characters."""
    # Nearly all is printable, which is known sooner of all together.
    try:
        if "".join(values).isprintable():
            return
    except TypeError:
        pass  # the loop says which it is
    for name, value in zip(names, values, strict=True):
        _text(name, value)


def _text(name: str, value: object) -> str:
    if not isinstance(value, str) or (not value.isprintable() and _CONTROL.search(value)):
        raise ValueError(f"its {name} is {value!r}")
    return value


def _number(name: str, value: object) -> float:
    if not isinstance(value, (int, float)):
        raise ValueError(f"its {name} is {value!r}")
    return value


def _moment(name: str, value: object) -> float:
    """A time in seconds since the epoch: infinity and NaN are none."""
    if not 0 <= (moment := _number(name, value)) <= queue_id.MAX_MOMENT:
        raise ValueError(f"its {name} is at {value!r} s")
    return moment


def _member(name: str, members: Mapping[str, E], value: str) -> E:
    try:
        return members[value]
    except KeyError:
        raise ValueError(f"its {name} is {value!r}") from None


def _list(name: str, value: str) -> list[Any]:
    if value == "[]":  # of all that was not tried yet
        return []
    found = json.loads(value)
    if not isinstance(found, list):
        raise ValueError(f"its {name} is {value!r}")
    return found


# --- damaged messages -------------------------------------------------


def log_damaged(log: Logger, reasons: Mapping[int, str]) -> None:
    """Log which damaged messages were put on hold, a line for each."""
    for number, reason in reasons.items():
        log.error(
            "{queue_id} is damaged, and on hold: {reason}; see `mta queue show`",
            queue_id=queue_id.encode(number),
            reason=reason,
        )


def salvage(connection: sqlite3.Connection, number: int, content: MakeContent) -> Message:
    """Read what can be read of a damaged message, for the operator."""
    row = _lenient(
        connection,
        "SELECT size, is_ascii, in_file, attempts, local_part, domain FROM message WHERE id = ?",
        number,
    )
    size, is_ascii, in_file, attempts, *path = row[0] if row else (0, 0, 0, 0, "", "")
    paths = _lenient(
        connection,
        "SELECT local_part, domain FROM recipient WHERE message = ? ORDER BY number",
        number,
    )
    recipients = tuple(Recipient(Mailbox(*map(_printed, each))) for each in paths)
    return Message(
        id=queue_id.encode(number),
        arrived=queue_id.arrival(number),
        envelope=Envelope(Mailbox(*map(_printed, path)), recipients),
        content=content(ContentKey(number, _count(size), bool(is_ascii), bool(in_file))),
        progress=tuple(map(Progress, recipients)),
        attempts=_count(attempts),
    )


def _lenient(connection: sqlite3.Connection, query: str, number: int) -> list[tuple[Any, ...]]:
    """Rows, with signs for what is no text.

    There are none where they can't be read at all.
    """
    before = connection.text_factory
    connection.text_factory = lambda octets: octets.decode("utf-8", "replace")
    try:
        return connection.execute(query, (number,)).fetchall()
    except sqlite3.DatabaseError as error:
        if not is_damage(error):
            raise
        return []
    finally:
        connection.text_factory = before


def _printed(value: object) -> str:
    return value if isinstance(value, str) else "" if value is None else repr(value)


def _count(value: object) -> int:
    return value if isinstance(value, int) and value >= 0 else 0
