"""Queued messages as the tools show them: lines, a page, JSON."""

from __future__ import annotations

import math
import sys
from base64 import b64encode
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from mta.commands.console import columns, duration, moment, printable, size
from mta.commands.situations import Situations
from mta.commands.terminal import Paint, plain
from mta.mail import Mailbox
from mta.queued import Entry, HistoryEntry, Message, Progress, State
from mta.session import Origin
from mta.spool.listing import Listed, ListedRecipient

_FORMAT = "{:13}  {:>5}  {:>8}  {:8}  {:>8}  {:>7}  {}"

_COLOURS = {
    "active": "green",
    "waiting": "yellow",
    "deferred": "yellow",
    "held": "blue",
    "damaged": "red",
    "failed": "red",
}

_MAX_REASONS = 1000  # of a list that are known again

HEADING = _FORMAT.format("ID", "AGE", "SIZE", "STATE", "ATTEMPTS", "NEXT IN", "REVERSE-PATH")


class Lines:
    """Queued messages in lines: one each, and one for each open recipient.

    A reason that several have is printed once.  `situations` are those of the peers.
    """

    def __init__(
        self, now: float, paint: Paint = plain, situations: Situations | None = None
    ) -> None:
        self._now = now
        self._paint = paint
        self._situations = situations
        self._first: dict[str, str] = {}  # the message that each reason was told of
        self._counts: Counter[str] = Counter()

    def of(self, listed: Listed) -> str:
        """The lines of a message."""
        marks = "  on hold" if listed.on_hold else ""
        if listed.reason and not listed.damage:
            marks += f": {printable(listed.reason)}"
        if listed.damage:
            marks += self._paint(f"  damaged: {listed.damage}", "red")
        own = _FORMAT.format(
            listed.id,
            duration(self._now - listed.arrived),
            size(listed.size),
            self._paint(f"{listed.state:8}", _COLOURS[listed.state]),
            listed.attempts,
            duration(listed.due - self._now) if _next_attempt(listed) else "-",
            _path(listed.reverse_path) + (f"  at {listed.node}" if listed.node else "") + marks,
        )
        still_open = (each for each in listed.recipients if each.state != State.DONE.value)
        return "\n".join([own, *(f"    {self._open(listed.id, each)}" for each in still_open)])

    def totals(self) -> str:
        """The number of recipients for each reason that several have."""
        repeated = [each for each in self._counts.most_common() if each[1] > 1]
        return "\n".join(f"{count} recipients: {reason}" for reason, count in repeated)

    def _open(self, id: str, recipient: ListedRecipient) -> str:
        words = [_path(recipient.forward_path)]
        if recipient.state == State.HELD.value:
            words.append(f"held for {printable(recipient.peer)}")
        reason = self._reason(recipient)
        if reason:
            words.append(self._once(id, reason))
        return "  ".join(words)

    def _reason(self, recipient: ListedRecipient) -> str:
        """The reason why it still waits, as far as it is known."""
        last = recipient.last
        if recipient.state == State.HELD.value and (last is None or not last.remote):
            return self._situations.of(recipient.peer) if self._situations else ""
        return f"{_where(last)}: {printable(last.reply)}" if last else ""

    def _once(self, id: str, reason: str) -> str:
        if reason not in self._counts and len(self._counts) >= _MAX_REASONS:
            return reason
        self._counts[reason] += 1
        first = self._first.setdefault(reason, id)
        return reason if self._counts[reason] == 1 else f"as for {first}"


def summary(listed: Listed, now: float) -> dict[str, Any]:
    """The JSON of ``mta queue list``.

    Messages that are neither damaged nor on hold have no keys for that.
    """
    return {
        "id": listed.id,
        "age_seconds": round(now - listed.arrived),
        "size": listed.size,
        "state": listed.state,
        "attempts": listed.attempts,
        "next_attempt": _next_attempt(listed) or None,
        "reverse_path": str(listed.reverse_path),
        "recipients": [_recipient(recipient) for recipient in listed.recipients],
        **({"on_hold": True} if listed.on_hold else {}),
        **({"damage": listed.damage} if listed.damage else {}),
        **({"reason": listed.reason} if listed.reason else {}),
        **({"node": listed.node} if listed.node else {}),
    }


def document(entry: Entry, now: float, *, content: bool) -> dict[str, Any]:
    """The JSON of ``mta queue show``: the summary and all the rest."""
    message, envelope = entry.message, entry.message.envelope
    everything = summary(_listed(entry), now) | {
        "on_hold": entry.on_hold,
        "arrived": moment(message.arrived),
        "origin": asdict(message.origin),
        "body": envelope.body.value,
        "sealed": envelope.sealed,
        "smtputf8": envelope.smtputf8,
        "require_tls": envelope.require_tls,
        "ret": envelope.ret,
        "envid": envelope.envid,
        "warned": message.warned,
        "recovered": message.recovered,
        "recipients": [
            _recipient(_listed_recipient(progress))
            | {
                "peer": progress.peer,
                "settled": sorted(progress.settled),
                "notify": sorted(each.value for each in progress.recipient.notify),
                "original": progress.recipient.original,
                "history": [_attempt(attempt) for attempt in progress.history],
            }
            for progress in message.progress
        ],
    }
    if content:
        pieces: list[bytes] = []
        _read(message, pieces.append)
        everything["content_base64"] = b64encode(b"".join(pieces)).decode("ascii")
    return everything


def page(entry: Entry, now: float, paint: Paint = plain) -> str:
    """The text of ``mta queue show``: everything but the content."""
    message, envelope = entry.message, entry.message.envelope
    next_attempt = _next_attempt(_listed(entry))
    head = columns(
        [
            ("id", paint(message.id, "bold")),
            ("state", paint(entry.state, _COLOURS[entry.state])),
            ("on hold", "until it is released" if entry.on_hold else ""),
            ("because", printable(entry.reason)),
            ("arrived", f"{moment(message.arrived)} ({duration(now - message.arrived)} ago)"),
            ("from", printable(_origin(message.origin))),
            ("size", size(message.content.size)),
            ("attempts", str(message.attempts)),
            ("next attempt", next_attempt and f"{next_attempt} (in {duration(entry.due - now)})"),
            ("reverse-path", _path(envelope.reverse_path)),
            ("body", envelope.body.value + (" SMTPUTF8" if envelope.smtputf8 else "")),
            ("content", "sealed for the peer" if envelope.sealed else ""),
            ("TLS", "required" if envelope.require_tls else ""),
            ("envelope id", printable(envelope.envid)),
            ("return", envelope.ret),
            ("delay warning", "sent" if message.warned else ""),
        ]
    )
    return "\n\n".join([head, *(_page_of(progress, paint) for progress in message.progress)])


def _origin(origin: Origin) -> str:
    """The client that brought a message, as far as it is known."""
    port = f":{origin.port}" if origin.port else ""
    words = {
        origin.hello: origin.hello,
        f"[{origin.address}]{port}": origin.address,
        origin.name: origin.name,
        f"by {origin.service}": origin.service,
        f"with {origin.protocol}": origin.protocol,
        f"({origin.tls_version} {origin.tls_cipher})": origin.tls_version,
        f"user {origin.user}": origin.user,
        f"turned by {origin.turned_peer}": origin.turned_peer,
        f"told by {origin.told_by}": origin.told_by,
        f"as {origin.told_id}": origin.told_id,
    }
    return " ".join(text for text, known in words.items() if known)


def print_content(message: Message) -> None:
    """Print the content, octet for octet.  Raises OSError."""
    if message.envelope.sealed:
        print("the content is sealed: only the peer for which it waits can open it")
        return
    print_part(message, None)


def print_part(message: Message, part: str | None) -> None:
    """Print the content, its header section or its body.  Raises OSError."""
    sys.stdout.flush()
    _read(message, sys.stdout.buffer.write, part)
    sys.stdout.buffer.flush()


def _page_of(progress: Progress, paint: Paint) -> str:
    recipient = progress.recipient
    head = columns(
        [
            ("forward-path", _path(recipient.forward_path)),
            ("state", progress.state.value),
            ("held for", progress.peer),
            ("notify", " ".join(sorted(each.value for each in recipient.notify))),
            ("original", printable(recipient.original)),
            ("done", printable(" ".join(sorted(progress.settled)))),
        ]
    )
    history = (
        f"{moment(attempt.at)}  {_status(attempt, paint)}  {_where(attempt)}  "
        f"{printable(attempt.reply)}"
        for attempt in progress.history
    )
    return "\n".join([head, *history])


def _status(attempt: HistoryEntry, paint: Paint) -> str:
    return paint(f"{attempt.status:9}", _COLOURS.get(attempt.status, "green"))


def _where(attempt: HistoryEntry) -> str:
    """The final address of an alias, the hop, and the remote host."""
    words = (attempt.address, attempt.hop, attempt.remote and f"[{attempt.remote}]")
    return printable(" ".join(filter(None, words)))


def _recipient(recipient: ListedRecipient) -> dict[str, Any]:
    last = recipient.last
    return {
        "forward_path": str(recipient.forward_path),
        "state": recipient.state,
        "hop": last.hop if last else "",
        "last_reply": last.reply if last else "",
    }


def _listed(entry: Entry) -> Listed:
    """A message in short."""
    message = entry.message
    return Listed(
        message.id,
        entry.state,
        entry.due,
        entry.on_hold,
        message.attempts,
        message.content.size,
        message.envelope.reverse_path,
        [_listed_recipient(progress) for progress in message.progress],
    )


def _listed_recipient(progress: Progress) -> ListedRecipient:
    last = progress.history[-1] if progress.history else None
    return ListedRecipient(
        progress.recipient.forward_path, progress.state.value, progress.peer, last
    )


def _attempt(attempt: HistoryEntry) -> dict[str, Any]:
    return {
        "at": moment(attempt.at),
        "address": attempt.address,
        "hop": attempt.hop,
        "remote": attempt.remote,
        "status": attempt.status,
        "reply": attempt.reply,
    }


def _next_attempt(listed: Listed) -> str:
    """The moment of the next attempt; empty where none is set."""
    return moment(listed.due) if listed.state == "waiting" and math.isfinite(listed.due) else ""


def _path(mailbox: Mailbox) -> str:
    return f"<{printable(str(mailbox))}>"


def _read(message: Message, write: Callable[[bytes], object], part: str | None = None) -> None:
    """Read the content piece by piece, without a reactor."""
    content = message.content

    async def read() -> None:
        if part == "header":
            write(await content.header())
            return
        async for piece in content.body() if part == "body" else content.pieces():
            write(piece)

    from mta.sync import result_of  # which takes a while: the list is to come at once

    result_of(read())
