"""Targets: whole sessions, as server and as client."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from twisted.internet.error import ConnectionDone
from twisted.logger import LogEvent, globalLogPublisher
from twisted.python.failure import Failure

from mta.mail import Security
from mta.queued import HopFailure
from mta.session import ChannelLost
from mta.smtp.content import LineCheck
from mta.smtp.errors import PeerFault
from mta.smtp.opening import SenderConfig
from tests.conversations import Conversation
from tests.fuzz.lines import REPLY_LINE
from tests.senders import Exchange, mail

EVERYTHING = {"users": "", "reversal": "", "expn": "", "pairing": "", "mailboxes": ""}
LISTENERS: Sequence[Mapping[str, str]] = (
    {},
    EVERYTHING | {"secured": "", "looks": "", "tls": "opportunistic"},
    {"proxy": "192.168.1.1", "teller": "192.168.1.1", "secured": ""},
    {"partner": "provider", "sealed": "provider", "secured": "", "origins": ""},
    {"service": "lmtp"},
    EVERYTHING | {"service": "submission", "tls": "opportunistic"},
)
CLIENTS: Sequence[SenderConfig] = (
    SenderConfig("us.example"),
    SenderConfig("us.example", lmtp=True),
    SenderConfig("us.example", security=Security.OPPORTUNISTIC, user="alice", secret="wonderland"),
)
ENOUGH = 10_000.0  # seconds: after which nothing is waited for
GREETING = b"220 peer.example ESMTP\r\n250-peer.example\r\n"


@contextmanager
def _no_bug() -> Iterator[None]:
    """Raise what conversations log because it must not end more than them."""
    found: list[Failure] = []

    def look(event: LogEvent) -> None:
        if "log_failure" in event:
            found.append(event["log_failure"])

    globalLogPublisher.addObserver(look)
    try:
        yield
    finally:
        globalLogPublisher.removeObserver(look)
    for failure in found:
        failure.raiseException()


def receiving(octets: bytes) -> None:
    """Clients say anything: replies are replies, and what is accepted can be sent on."""
    kind, rest = octets[:1], octets[1:]
    settings = LISTENERS[kind[0] % len(LISTENERS)] if kind else {}
    with _no_bug():
        whole = _received(rest, settings, dripped=False)
        cut = _received(rest, settings, dripped=True)
    accepted = [(each.envelope, each.content.size) for each in whole.accepted]
    assert accepted == [(each.envelope, each.content.size) for each in cut.accepted], accepted


def _received(octets: bytes, settings: Mapping[str, str], *, dripped: bool) -> Conversation:
    """The conversation, at its end."""
    held = Conversation(settings, dripped=dripped)
    said = held.transport.taken()
    size = 1 if dripped else len(octets) or 1
    for start in range(0, len(octets), size):
        if not held.transport.disconnecting:
            held.link.dataReceived(octets[start : start + size])
    held.clock.advance(0)
    said += held.transport.taken()
    held.link.connectionLost(Failure(ConnectionDone()))
    held.clock.advance(ENOUGH)
    for problem in held.problems:
        problem.trap(ChannelLost, PeerFault)
    for line in said.splitlines(keepends=True):
        assert REPLY_LINE.fullmatch(line), line
    assert held.access.sessions == 0
    for message in held.accepted:
        assert message in held.spool.messages
        draft = next(each for each in held.spool.drafts if each.id == message.id)
        _check_lines(draft.content, message.envelope.body.value)
    return held


def _check_lines(content: bytes, body: str) -> None:
    check = LineCheck()
    check.feed(content)
    check.end()
    assert body == "BINARYMIME" or not check.broken, content


def sending(octets: bytes) -> None:
    """Servers say anything: each message has an outcome, or is there for another try."""
    kind, rest = octets[:1], octets[1:]
    config = CLIENTS[kind[0] % len(CLIENTS)] if kind else CLIENTS[0]
    for greeting in (b"", GREETING):
        with _no_bug():
            exchange = Exchange([mail("M1", "bob", "carol"), mail("M2")], config)
            _say(exchange, greeting + rest)
            exchange.clock.advance(ENOUGH)
            if not exchange.ended:
                exchange.lose()
        assert exchange.ended, "it goes on"
        if exchange.failure is not None:
            assert isinstance(exchange.failure, HopFailure | ChannelLost | PeerFault)
        assert exchange.source.unreported == []


def _say(exchange: Exchange, octets: bytes) -> None:
    for line in octets.splitlines(keepends=True):
        if exchange.ended or exchange.transport.disconnecting:
            return
        exchange.say(line)
