"""All that is known of a peer, for programs and people."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from mta.commands.console import duration, moment, printable
from mta.mail import Agent
from mta.peers.status_files import EndedExchange, PeerStatus
from mta.session import ANSWER_SOURCES
from mta.settings import Peer

WIDTH = 80  # columns of a terminal
_EXCHANGE = "{:20}  {:>6}  {:>6}  {:>8}"


def details(status: PeerStatus) -> dict[str, Any]:
    """The keys of a document that tell more than the last exchange."""
    counts = status.counts
    return {
        "round_trip_ms": None if status.round_trip is None else round(status.round_trip * 1e3, 1),
        "questions": {source: counts.get(f"answered_by_{source}", 0) for source in ANSWER_SOURCES},
        "passed_through": counts.get("passed_through", 0),
        "refused": counts.get("refused", 0),
        "sealed_messages": counts.get("sealed", 0),
        "obstacle": status.obstacle,
        "exchanges": [_document(each) for each in status.exchanges],
    }


def _document(exchange: EndedExchange) -> dict[str, Any]:
    return {
        "ended": moment(exchange.ended),
        "seconds": round(exchange.lasted, 1),
        "sent": exchange.sent,
        "received": exchange.received,
        "error": exchange.error,
    }


def lines(peer: Peer, status: PeerStatus, document: Mapping[str, Any]) -> Iterator[str]:
    """All about a peer, in lines of at most 80 columns."""
    yield peer.name
    rows = [(name, value) for name, value in _rows(peer, document) if value]
    for name, value in rows:
        yield from wrapped(value, " " * 19, f"  {name:15}  ")
    if status.exchanges:
        yield ""
        yield _EXCHANGE.format("ENDED", "LASTED", "SENT", "RECEIVED")
    for each in status.exchanges:
        ended, lasted = moment(each.ended), duration(each.lasted)
        yield _EXCHANGE.format(ended, lasted, each.sent, each.received).rstrip()
        yield from wrapped(printable(each.error), " " * 4)


def _rows(peer: Peer, document: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "role", _role(peer)
    yield "link", _link(document)
    if document["second_link_seconds"] is not None:
        yield "second link", f"for {duration(document['second_link_seconds'])}"
    yield "at node", printable(nodes_with_link(document))
    waiting = str(document["waiting"])
    if document["oldest_seconds"] is not None:
        waiting += f", the oldest for {duration(document['oldest_seconds'])}"
    yield "waiting", waiting
    yield "obstacle", printable(document["obstacle"])
    yield "last error", printable(document["last_error"])
    if document["mailboxes"] is not None:
        yield "mailboxes", f"{document['mailboxes']} told"
    yield "sealed", "its mail waits encrypted" if peer.mail_is_sealed else ""
    questions = document["questions"]
    if any(questions.values()):
        answered = ", ".join(f"{questions[source]} {source}" for source in ANSWER_SOURCES)
        yield "questions", f"{sum(questions.values())}, answered by: {answered}"
    for key in ("passed_through", "refused", "sealed_messages"):
        if document[key]:
            yield key.replace("_", " "), str(document[key])


def nodes_with_link(document: Mapping[str, Any]) -> str:
    """The names of the nodes at which the link stands."""
    return ", ".join(each["node"] for each in document.get("nodes", ()) if each["link_since"])


def _role(peer: Peer) -> str:
    if peer.connect is None:
        return "we are its provider: it dials us"
    dialled = peer.connect
    port = f":{dialled.port}" if dialled.agent is Agent.SMTP and dialled.port else ""
    return f"we are its customer, and dial {dialled.next_hop}{port}"


def _link(document: Mapping[str, Any]) -> str:
    since, round_trip = document["link_seconds"], document["round_trip_ms"]
    if since is None:
        last = document["last_exchange_seconds"]
        return "none" if last is None else f"none, the last exchange ended {duration(last)} ago"
    measured = "" if round_trip is None else f", round trip {round_trip:g} ms"
    return f"for {duration(since)}{measured}"


def wrapped(text: str, indent: str, first: str = "") -> list[str]:
    """Text in lines that fit a terminal."""
    return textwrap.wrap(text, WIDTH, initial_indent=first or indent, subsequent_indent=indent)
