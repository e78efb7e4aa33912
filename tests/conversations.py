"""Conversations with a receiver on a real Link, in memory."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace

from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from mta.interfaces import IAcceptedMail, IAccessPolicy, IReversal, IRoundRobin, IUsers
from mta.link import Link
from mta.mail import Mailbox, Reply
from mta.queued import SpoolFull
from mta.session import ChannelLost, TLSInfo
from mta.settings import Limits, ListenerTLS, Service
from mta.smtp.authors import AuthorCheck
from mta.smtp.receiver import Receiver
from mta.smtp.receiver_config import ReceiverConfig
from mta.testing import (
    AcceptedMail,
    FakeAccessPolicy,
    FakeClientNames,
    FakeMailboxLists,
    FakeMailingLists,
    FakePairing,
    FakeReversal,
    FakeSealOpener,
    FakeTLS,
    FakeUsers,
    MemorySpool,
    MemoryTransport,
)

HOSTNAME = "mta.example"
_LIMITS = ("message_size", "recipients", "errors", "greet_delay")
_REPEATED = re.compile(rb"\{(.*?) \* (\d+)\}", re.DOTALL)


def receiver_config(
    spool: MemorySpool,
    accepted: IAcceptedMail | None = None,
    *,
    service: Service = Service.SMTP,
    tls: ListenerTLS = ListenerTLS.OFF,
    limits: Limits | None = None,
    access: IAccessPolicy | None = None,
    users: IUsers | None = None,
    reversal: IReversal | None = None,
) -> ReceiverConfig:
    """What all receivers of one listener share, around a spool in memory."""
    access = access or FakeAccessPolicy()
    return ReceiverConfig(
        HOSTNAME,
        spool,
        AcceptedMail() if accepted is None else accepted,
        access,
        limits or Limits(),
        lambda: 0.0,
        service,
        tls,
        users,
        reversal,
        checks=[AuthorCheck(access)],
    )


class Conversation:
    """One conversation with a receiver: what was sent, replied and accepted.

    Raises AssertionError where it is not what was expected.
    """

    def __init__(
        self,
        settings: Mapping[str, str],
        *,
        dripped: bool,
        content_order: IRoundRobin | None = None,
    ) -> None:
        self.spool = MemorySpool()
        self.access = FakeAccessPolicy(
            Reply(554, "5.7.1", ("Go away",)) if "access" in settings else None
        )
        self.accepted = AcceptedMail()
        self.clock, self.transport = Clock(), MemoryTransport(lenient=True)
        self.replies = b""
        self.writes = 0
        self._dripped = dripped
        limits = replace(
            Limits(), **{name: int(settings[name]) for name in _LIMITS if name in settings}
        )
        shared = receiver_config(
            self.spool,
            self.accepted,
            service=Service(settings.get("service", "smtp")),
            tls=ListenerTLS(settings.get("tls", "off")),
            limits=limits,
            access=self.access,
            users=FakeUsers() if "users" in settings else None,
            reversal=FakeReversal() if "reversal" in settings else None,
        )
        if content_order is not None:
            shared = replace(shared, content_order=content_order)
        if "hide_client" in settings:
            shared = replace(shared, hide_client=True)
        if "expn" in settings:
            shared = replace(shared, lists=FakeMailingLists(Mailbox("b", "mta.example")))
        if "pairing" in settings:
            shared = replace(shared, pairing=FakePairing())
        if "mailboxes" in settings:
            shared = replace(shared, mailboxes=FakeMailboxLists(), renewals=FakeMailboxLists())
        if "looks" in settings:
            shared = replace(shared, far_looks=FakeMailboxLists())
        if "proxy" in settings:
            shared = replace(shared, names=FakeClientNames(settings["proxy"]))
        if "teller" in settings:
            shared = replace(shared, names=FakeClientNames(teller=settings["teller"]))
        if "origins" in settings:
            shared = replace(shared, takes_origins=True)
        self.opener = FakeSealOpener(settings.get("sealed", ""))
        if "sealed" in settings:
            shared = replace(shared, opener=self.opener)
        turned_peer = settings.get("partner", "")
        self.link = Link(Receiver(shared, turned_peer=turned_peer), self.clock, FakeTLS())
        if "secured" in settings:
            self.link.tls = TLSInfo("TLSv1.3", "TLS_AES_256_GCM_SHA384")
        self.problems: list[Failure] = []
        self.link.ended.addErrback(self.problems.append)
        self.link.makeConnection(self.transport)

    def send(self, octets: bytes) -> None:
        """The client sends a segment."""
        self.expect_silence()
        self.transport.writes = 0
        size = 1 if self._dripped else len(octets)
        for start in range(0, len(octets), size or 1):
            if not self.transport.disconnecting:
                self.link.dataReceived(octets[start : start + size])

    def expect_silence(self) -> None:
        """Nothing more was replied."""
        self.replies += self.transport.taken()
        assert not self.replies, f"also replied: {self.replies!r}"

    def expect_line(self, start: str) -> str:
        """The next line of the replies."""
        self.replies += self.transport.taken()
        line, crlf, self.replies = self.replies.partition(b"\r\n")
        assert crlf and line.startswith(start.encode()), f"replied: {line!r}"
        return line.decode()

    def expect_reply(self, code: str) -> None:
        """A whole reply of that code."""
        while self.expect_line(code)[3:4] == "-":
            pass

    def expect_writes(self, number: str) -> None:
        """How many writes there were."""
        assert self._dripped or self.transport.writes == int(number), (
            f"{self.transport.writes} writes"
        )

    def expect_closed(self) -> None:
        """The connection is closed, and everything of the session is put away."""
        self.expect_silence()
        assert self.transport.disconnecting, "the connection is open"
        assert self.access.sessions == 0, "the access still counts the session"

    def expect_message(self, text: str) -> None:
        """A message was accepted and is in the spool."""
        assert self.accepted, "no message was accepted"
        message = self.accepted.pop(0)
        assert message in self.spool.messages, "the message is not in the spool"
        envelope = message.envelope
        path = f"<{envelope.reverse_path}>"
        paths = ", ".join(f"<{one.forward_path}>" for one in envelope.recipients)
        wanted, mark, content = text.partition(">: ")
        wanted += ">" if mark else ""
        assert wanted == f"{path} -> {paths}", f"accepted: {path} -> {paths}"
        draft = next(draft for draft in self.spool.drafts if draft.id == message.id)
        assert octets(content) in draft.content, f"content: {draft.content!r}"

    def event(self, name: str) -> None:
        """Something happens that the client does not do."""
        events: dict[str, Callable[[], object]] = {
            "the service stops": self.link.close_gently,
            "TLS begins": self.link.handshakeCompleted,
            "the client closes": lambda: self.link.connectionLost(Failure(ConnectionDone())),
            "the client sends no more": self.link.readConnectionLost,
            "the spool is full": lambda: setattr(self.spool, "failure", SpoolFull("full")),
            "the spool fails": lambda: setattr(self.spool, "failure", OSError("broken")),
            "the spool works": lambda: setattr(self.spool, "failure", None),
            "the spool is slow": self.spool.pause,
            "the spool is done": self.spool.resume,
            "it was told that provider could not be opened": self._expect_failure,
        }
        events[name]()

    def _expect_failure(self) -> None:
        (peer, _) = self.opener.failures.pop(0)
        assert peer == "provider"

    def step(self, kind: str, text: str) -> None:
        """One line of a dialogue."""
        match kind, text:
            case "C", _:
                self.send(b"".join(line.strip(" ").encode() + b"\r\n" for line in text.split("|")))
            case "C raw", _:
                self.send(octets(text))
            case "S", "(closed)":
                self.expect_closed()
            case "S", "(nothing)":
                self.expect_silence()
            case "S", _:
                self.expect_line(text)
            case "S*", _:
                self.expect_reply(text)
            case "W", _:
                self.expect_writes(text)
            case "T", _:
                self.clock.advance(float(text))
            case "E", _:
                self.event(text)
            case _:
                self.expect_message(text)

    def end(self) -> None:
        """The dialogue is over: nothing is left over, nothing went wrong in our own code."""
        self.expect_silence()
        assert not self.accepted, f"also accepted: {self.accepted}"
        if not self.transport.disconnecting:
            self.link.connectionLost(Failure(ConnectionDone()))
        assert self.access.sessions == 0, "the access still counts the session"
        for problem in self.problems:
            problem.trap(ChannelLost)


def octets(text: str) -> bytes:
    """The octets that an escaped text means."""
    plain = text.encode("utf-8").decode("unicode_escape").encode("latin-1")
    return _REPEATED.sub(lambda match: match[1] * int(match[2]), plain)
