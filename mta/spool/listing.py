"""The queue as the operator lists it: quickly, and damaged rows, too.

Content is not touched, nothing is changed, and nothing of Twisted is needed.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from zope.interface import implementer

from mta.mail import Mailbox, canonical_domain
from mta.queued import Filter, HistoryEntry, IContent
from mta.spool import owners, queue_id
from mta.spool.database import as_oserror, open_database
from mta.spool.folder import Folder
from mta.spool.interfaces import IListing
from mta.spool.loading import ContentKey, load
from mta.spool.schema import Hold

_FIRST_BATCH_SIZE = 20  # messages: the first lines are wanted at once
_BATCH_SIZE = 1000  # messages: bounds the memory
REPLACEMENT = "\ufffd"  # what text that is damaged is shown with
_NULL = "<>"  # the null reverse-path, as a person writes it
DAMAGED = "damaged"  # the state of a message that can't be read whole
_MAX_READ_WHOLE = 2000  # messages: it takes twice as long, so of more only what seems damaged
ON_HOLD = "on-hold"  # as a `Filter.state`: on hold, and not waiting for a peer

# ACTIVE is what a living owner has leased; a dead one's mail only waits to be taken over.
_FIND = f"""
SELECT id, state, due, on_hold, attempts, size, local_part, domain, reason FROM (
    SELECT id, due, on_hold, attempts, size, local_part, domain, reason, CASE
        WHEN owner IN (SELECT value FROM json_each(:living)) THEN 'active'
        WHEN on_hold = {Hold.DAMAGED:d} THEN 'damaged'
        WHEN on_hold OR NOT EXISTS (
            SELECT 1 FROM recipient WHERE message = id AND state = 'waiting'
        ) THEN 'held'
        ELSE 'waiting' END AS state
    FROM message
) AS queued
WHERE id > :after AND {{}} ORDER BY id LIMIT :limit
"""  # noqa: S608 (our own words)
_RECIPIENTS = """
SELECT message, local_part, domain, state, peer,
    CASE WHEN json_valid(history) AND json_valid(settled) THEN history -> '$[#-1]' ELSE '' END
FROM recipient WHERE message IN (SELECT value FROM json_each(?)) ORDER BY message, number
"""


@dataclass(frozen=True, slots=True)
class ListedRecipient:
    """One recipient of a listed message, with its last attempt, if any."""

    forward_path: Mailbox
    state: str
    peer: str
    last: HistoryEntry | None


@dataclass(frozen=True, slots=True)
class Listed:
    """A queued message in short.  `due` is in seconds since the epoch, `size` in octets.

    `state` is ``active``, ``waiting``, ``held`` or ``damaged``; `damage` says what is wrong with
    the message, `reason` why the program keeps it.  `node`: where it is tried now, of several.
    """

    id: str
    state: str
    due: float
    on_hold: bool
    attempts: int
    size: int
    reverse_path: Mailbox
    recipients: Sequence[ListedRecipient]
    damage: str = ""
    reason: str = ""
    node: str = ""

    @property
    def arrived(self) -> float:
        """Seconds since the epoch."""
        return queue_id.arrival(queue_id.decode(self.id))


@implementer(IListing)
class Listing:
    """The queue in a spool folder.  Everything blocks, and raises OSError where the spool fails.

    `now`: seconds since the epoch.
    """

    def __init__(self, folder: Path, now: Callable[[], float] = time.time) -> None:
        self._folder = Folder(folder)
        self._now = now
        self._connection = open_database(self._folder)
        self._connection.text_factory = _text
        self._loading = open_database(self._folder)

    def now(self) -> float:
        """See `ISpoolTime.now`."""
        return self._now()

    def close(self) -> None:
        """Close the spool."""
        self._connection.close()
        self._loading.close()

    def find(self, wanted: Filter) -> Iterator[Listed]:
        """The messages that fit, oldest first, in portions."""
        query = _query(wanted)
        parameters = {**self._parameters(wanted), "after": -1, "limit": _FIRST_BATCH_SIZE}
        read = 0
        while portion := self._portion(
            query, parameters, is_thorough=wanted.state == DAMAGED or read < _MAX_READ_WHOLE
        ):
            read += len(portion)
            yield from (each for each in portion if wanted.state in ("", ON_HOLD, each.state))
            after = queue_id.decode(portion[-1].id)
            parameters |= {"after": after, "limit": _BATCH_SIZE}

    def count(self, wanted: Filter) -> int:
        """Count the messages that fit."""
        if wanted.state == DAMAGED:
            return sum(1 for _ in self.find(wanted))
        parameters = {**self._parameters(wanted), "after": -1, "limit": -1}
        with as_oserror(self._folder):
            found = self._connection.execute(
                f"SELECT count(*) FROM ({_query(wanted)})",  # noqa: S608 (our own words)
                parameters,
            )
            count: int = found.fetchone()[0]
        return count

    def _portion(
        self, query: str, parameters: Mapping[str, object], *, is_thorough: bool
    ) -> list[Listed]:
        """Read some messages, whole where damage is sought or seems to be."""
        with as_oserror(self._folder):
            messages = self._connection.execute(query, parameters).fetchall()
            numbers = json.dumps([row[0] for row in messages])
            recipients: dict[int, list[ListedRecipient | None]] = {}
            for number, *row in self._connection.execute(_RECIPIENTS, (numbers,)):
                recipients.setdefault(number, []).append(_recipient(*row))
            suspects = [
                row[0]
                for row in messages
                if is_thorough or not _seems_whole(row, recipients.get(row[0], ()))
            ]
            damaged: Mapping[int, str] = {}
            if suspects:
                damaged = load(self._loading, suspects, self._folder, _no_content).damaged
        return [
            _listed(row, recipients.get(row[0], ()), damaged.get(row[0], "")) for row in messages
        ]

    def _parameters(self, wanted: Filter) -> dict[str, object]:
        living = json.dumps(list(owners.live_owners(self._folder)))
        return {
            **filter_values(wanted, self._now()),
            "ids": json.dumps(numbers(wanted.ids)),
            "living": living,
        }


def _listed(
    row: tuple[object, ...], found: Sequence[ListedRecipient | None], damage: str
) -> Listed:
    number, state, due, on_hold, attempts, size, local_part, domain, reason = row
    assert isinstance(number, int)
    return Listed(
        id=queue_id.encode(number),
        state=DAMAGED if damage else str(state),
        due=due if isinstance(due, float) and abs(due) <= queue_id.MAX_MOMENT else math.inf,
        on_hold=bool(on_hold),
        attempts=attempts if isinstance(attempts, int) else 0,
        size=size if isinstance(size, int) else 0,
        reverse_path=Mailbox(str(local_part), str(domain)),
        recipients=[recipient for recipient in found if recipient is not None],
        damage=damage or (str(reason) if state == DAMAGED else ""),
        reason=str(reason),
    )


def _seems_whole(row: tuple[object, ...], recipients: Sequence[ListedRecipient | None]) -> bool:
    """Tell whether what a list shows of a message can be read."""
    _, state, due, _, attempts, size, local_part, domain, reason = row
    texts = (state, local_part, domain, reason)
    return (
        bool(recipients)
        and None not in recipients
        and isinstance(due, float)
        and isinstance(attempts, int)
        and isinstance(size, int)
        and all(isinstance(text, str) and REPLACEMENT not in text for text in texts)
    )


def _no_content(key: ContentKey) -> IContent:
    """Stands for content, which is not touched."""
    return cast("IContent", None)


def _recipient(
    local_part: object, domain: object, state: object, peer: object, last: str | None
) -> ListedRecipient | None:
    """A recipient; None where its row is damaged."""
    texts = local_part, domain, state, peer
    if not all(isinstance(text, str) and REPLACEMENT not in text for text in texts):
        return None
    try:
        attempt = None if last is None else HistoryEntry(*json.loads(last))
    except (ValueError, TypeError):
        return None
    return ListedRecipient(Mailbox(str(local_part), str(domain)), str(state), str(peer), attempt)


def _text(octets: bytes) -> str:
    """Text of the database, whatever has become of it."""
    return octets.decode("utf-8", "replace")


# --- filters -------------------------------------------------------------------


def _query(wanted: Filter) -> str:
    return _FIND.format(" AND ".join(["1", *_conditions(wanted)]))


def _conditions(wanted: Filter) -> Iterator[str]:
    recipient = "EXISTS (SELECT 1 FROM recipient AS r WHERE r.message = id AND {})"
    if wanted.ids:
        yield "id IN (SELECT value FROM json_each(:ids))"
    if wanted.reverse_path:
        yield "lower(local_part || '@' || domain) = :reverse_path"
    if wanted.forward_path:
        is_it = "lower(r.local_part || '@' || r.domain) = :forward_path"
        yield recipient.format(f"r.state <> 'done' AND {is_it}")
    if wanted.domain:
        yield recipient.format("r.state <> 'done' AND r.domain = :domain")
    if wanted.peer:
        yield recipient.format("r.state = 'held' AND r.peer = :peer")
    if wanted.user:
        yield (
            "EXISTS (SELECT 1 FROM content AS c WHERE c.id = queued.id"
            " AND json_valid(c.origin) AND lower(c.origin ->> '$.user') = :user)"
        )
    if wanted.older:
        yield "id < :before"
    if wanted.state not in ("", DAMAGED):  # damage is found when all of a message is read
        yield "on_hold" if wanted.state == ON_HOLD else "state = :state"


def filter_values(wanted: Filter, now: float) -> dict[str, object]:
    """The values that a query compares with columns, all but the ids."""
    return {
        "reverse_path": address_key(wanted.reverse_path),
        "forward_path": address_key(wanted.forward_path),
        "domain": canonical_domain(wanted.domain),
        "peer": wanted.peer,
        "user": wanted.user.lower(),
        "before": queue_id.earliest(now - wanted.older),
        "state": wanted.state,
    }


def address_key(text: str) -> str:
    """An address as filters compare it: columns joined, in lower case."""
    if text == _NULL:
        return "@"
    local_part, _, domain = text.rpartition("@") if "@" in text else (text, "", "")
    return f"{local_part.lower()}@{canonical_domain(domain)}"


def numbers(ids: Collection[str]) -> list[int]:
    """The numbers of queue ids, without texts that are none."""
    found = []
    for text in ids:
        try:
            found.append(queue_id.decode(text))
        except ValueError:
            continue
    return found


def portions(ids: Collection[str], size: int) -> Iterator[list[int]]:
    """The numbers of queue ids, `size` at a time."""
    found = numbers(ids)
    for start in range(0, len(found), size):
        yield found[start : start + size]
