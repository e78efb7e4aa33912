"""Queued messages as the tools show them: lines, a page, JSON."""

from __future__ import annotations

import math
import sys
from base64 import b64encode
from collections.abc import Callable
from typing import Any

from mta.commands.console import columns, duration, moment, printable, size
from mta.commands.terminal import Paint, plain
from mta.interfaces import Attempt, Entry, Message, Progress, State
from mta.mail import Mailbox
from mta.spool.tools import result_of

_FORMAT = "{:13}  {:>5}  {:>8}  {:8}  {:>8}  {:>7}  {}"

_COLOURS = {
    "active": "green",
    "waiting": "yellow",
    "deferred": "yellow",
    "held": "blue",
    "failed": "red",
}

HEADING = _FORMAT.format("ID", "AGE", "SIZE", "STATE", "ATTEMPTS", "NEXT IN", "REVERSE-PATH")


def lines(entry: Entry, now: float, paint: Paint = plain) -> str:
    """A line for a message and one for each recipient that is not done with."""
    message = entry.message
    own = _FORMAT.format(
        message.id,
        duration(now - message.arrived),
        size(message.content.size),
        paint(f"{entry.state:8}", _COLOURS[entry.state]),
        message.attempts,
        duration(entry.due - now) if _next_attempt(entry) else "-",
        _path(message.envelope.reverse_path),
    )
    return "\n".join([own, *(f"    {_open(each)}" for each in _open_progress(message))])


def summary(entry: Entry, now: float) -> dict[str, Any]:
    """What ``mta queue list --json`` prints."""
    message = entry.message
    return {
        "id": message.id,
        "age_seconds": round(now - message.arrived),
        "size": message.content.size,
        "state": entry.state,
        "attempts": message.attempts,
        "next_attempt": _next_attempt(entry) or None,
        "reverse_path": str(message.envelope.reverse_path),
        "recipients": [_recipient(progress) for progress in message.progress],
    }


def document(entry: Entry, now: float, *, content: bool) -> dict[str, Any]:
    """What ``mta queue show --json`` prints: the summary and all the rest."""
    message, envelope = entry.message, entry.message.envelope
    everything = summary(entry, now) | {
        "arrived": moment(message.arrived),
        "body": envelope.body.value,
        "smtputf8": envelope.smtputf8,
        "require_tls": envelope.require_tls,
        "ret": envelope.ret,
        "envid": envelope.envid,
        "warned": message.warned,
        "recovered": message.recovered,
        "recipients": [
            _recipient(progress)
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
    """What ``mta queue show`` prints: everything but the content."""
    message, envelope = entry.message, entry.message.envelope
    next_attempt = _next_attempt(entry)
    head = columns(
        [
            ("id", paint(message.id, "bold")),
            ("state", paint(entry.state, _COLOURS[entry.state])),
            ("arrived", f"{moment(message.arrived)} ({duration(now - message.arrived)} ago)"),
            ("size", size(message.content.size)),
            ("attempts", str(message.attempts)),
            ("next attempt", next_attempt and f"{next_attempt} (in {duration(entry.due - now)})"),
            ("reverse-path", _path(envelope.reverse_path)),
            ("body", envelope.body.value + (" SMTPUTF8" if envelope.smtputf8 else "")),
            ("TLS", "required" if envelope.require_tls else ""),
            ("envelope id", printable(envelope.envid)),
            ("return", envelope.ret),
            ("delay warning", "sent" if message.warned else ""),
        ]
    )
    return "\n\n".join([head, *(_page_of(progress, paint) for progress in message.progress)])


def print_content(message: Message) -> None:
    """Print the content after an empty line, octet for octet."""
    print(flush=True)
    _read(message, sys.stdout.buffer.write)
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


def _status(attempt: Attempt, paint: Paint) -> str:
    return paint(f"{attempt.status:9}", _COLOURS.get(attempt.status, "green"))


def _where(attempt: Attempt) -> str:
    """The final address, if an alias led there; the hop, and the host that replied."""
    words = (attempt.address, attempt.hop, attempt.remote and f"[{attempt.remote}]")
    return printable(" ".join(filter(None, words)))


def _open(progress: Progress) -> str:
    words = [_path(progress.recipient.forward_path)]
    if progress.state is State.HELD:
        words.append(f"held for {progress.peer or 'the postmaster'}")
    if progress.history:
        last = progress.history[-1]
        words.append(f"{_where(last)}: {printable(last.reply)}")
    return "  ".join(words)


def _open_progress(message: Message) -> list[Progress]:
    return [progress for progress in message.progress if progress.state is not State.DONE]


def _recipient(progress: Progress) -> dict[str, Any]:
    last = progress.history[-1] if progress.history else None
    return {
        "forward_path": str(progress.recipient.forward_path),
        "state": progress.state.value,
        "hop": last.hop if last else "",
        "last_reply": last.reply if last else "",
    }


def _attempt(attempt: Attempt) -> dict[str, Any]:
    return {
        "at": moment(attempt.at),
        "address": attempt.address,
        "hop": attempt.hop,
        "remote": attempt.remote,
        "status": attempt.status,
        "reply": attempt.reply,
    }


def _next_attempt(entry: Entry) -> str:
    """When, or empty: it is being worked on, or nobody knows."""
    return moment(entry.due) if entry.state == "waiting" and math.isfinite(entry.due) else ""


def _path(mailbox: Mailbox) -> str:
    return f"<{printable(str(mailbox))}>"


def _read(message: Message, write: Callable[[bytes], object]) -> None:
    """Hand the content on piece by piece: the spool's tools read it without a reactor."""

    async def read() -> None:
        async for piece in message.content.pieces():
            write(piece)

    result_of(read())
