"""A sender of ours, and the peer that a script plays."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from mta.link import Link
from mta.mail import Body, Envelope, Mailbox, Recipient
from mta.queued import Delivery, HopFailure, IContent
from mta.smtp.header import body_of, section_of
from mta.smtp.opening import SenderConfig
from mta.smtp.pipelining import HostRecord, Pipelining
from mta.smtp.sender import Sender
from mta.smtp.turn import TurnRequest
from mta.testing import FakeMailSource, FakeTLS, MemoryTransport, delivery

CONTENT = b"Subject: x\r\n\r\nbody\r\n"
ALICE = Mailbox("alice", "us.example")
US = SenderConfig("us.example")
STREAMING = "250-PIPELINING | 250 CHUNKING"


def mail(
    name: str = "M1",
    *local_parts: str,
    content: bytes = CONTENT,
    reverse_path: Mailbox = ALICE,
    body: Body = Body.SEVEN_BIT,
    smtputf8: bool = False,
) -> Delivery:
    """A message from alice to those people at peer.example."""
    recipients = tuple(
        Recipient(Mailbox(local_part, "peer.example")) for local_part in local_parts or ("bob",)
    )
    envelope = Envelope(reverse_path, recipients, body, smtputf8=smtputf8)
    return delivery(id=name, content=content, envelope=envelope)


class Exchange:
    """A sender on a Link, and the peer that a script plays."""

    def __init__(
        self,
        deliveries: Sequence[Delivery] = (),
        config: SenderConfig = US,
        *,
        turn: TurnRequest | None = None,
        waits: bool = False,
        tls: bool = False,
        certificate: str = "abcd",
        known: Pipelining = Pipelining.UNKNOWN,
    ) -> None:
        self.host = HostRecord(known)
        config = replace(config, host=self.host)
        self.source = FakeMailSource(*deliveries, waits=waits)
        self.clock, self.transport = Clock(), MemoryTransport(lenient=True)
        self.ended: list[object] = []
        self.link = Link(
            Sender(self.source, config, turn),
            self.clock,
            FakeTLS(certificate),
            tls_at_once=tls,
        )
        self.link.ended.addBoth(self.ended.append)
        self.link.makeConnection(self.transport)
        if tls:
            self.link.handshakeCompleted()

    def talk(self, script: str) -> None:
        """Play a script of lines: ``S: a | b`` the peer says two lines, one after the other, and
        ``P: a | b`` in one piece, ``C: a | b`` it heard just these since, ``T: 300`` seconds
        pass, ``E: event``.  A line may go on with ``|``."""
        script = re.sub(r"\n\s+\|", " |", script)
        for line in filter(None, map(str.strip, script.splitlines())):
            kind, text = line[:2], line[3:].strip()
            match kind, text:
                case "S:", _:
                    for one in text.split("|"):
                        self.say(one.strip().encode() + b"\r\n")
                case "P:", _:
                    self.say(b"".join(one.strip().encode() + b"\r\n" for one in text.split("|")))
                case "C:", "(closed)":
                    assert self.transport.disconnecting and not self.transport.value(), self.hear()
                case "C:", _:
                    expected = [one.strip() for one in text.split("|")] if text else []
                    heard = self.hear()
                    assert heard == expected, f"{line}: heard {heard}"
                case "T:", _:
                    self.clock.advance(float(text))
                case "E:", "lost":
                    self.lose()
                case "E:", "TLS begins":
                    self.link.handshakeCompleted()
                case "E:", "the service stops":
                    self.link.close_gently()
                case _:
                    raise AssertionError(line)

    def say(self, octets: bytes) -> None:
        """The peer sends octets."""
        self.link.dataReceived(octets)

    def hear(self) -> list[str]:
        """The lines that the peer got since the last time."""
        return self.transport.taken().decode().replace("\r\n", "\n").splitlines()

    def lose(self) -> None:
        """The connection ends."""
        self.transport.disconnecting = True
        self.link.connectionLost(Failure(ConnectionDone()))

    def outcomes(self, name: str = "M1") -> list[str]:
        """What became of a message, for each target."""
        return [f"{outcome.status.value} {outcome.reply}" for outcome in self.source.outcomes[name]]

    @property
    def failure(self) -> BaseException | None:
        """What ended the conversation."""
        (result,) = self.ended
        return result.value if isinstance(result, Failure) else None


@implementer(IContent)
class Broken:
    """Content on a disk that fails after it was read once."""

    size = 300_000  # more than is kept in memory
    is_ascii = True

    def __init__(self) -> None:
        self._is_good = True

    async def header(self) -> bytes:
        """See `IContent.header`."""
        return await section_of(self.pieces())

    def body(self) -> AsyncIterator[bytes]:
        """See `IContent.body`."""
        return body_of(self.pieces())

    async def pieces(self) -> AsyncIterator[bytes]:
        """One piece, and once the rest."""
        yield b"Subject: x\r\n"
        if not self._is_good:
            raise OSError("input/output error")
        self._is_good = False
        yield b"x" * (self.size - 12)


class SenderTestCase(SynchronousTestCase):
    """What the tests share."""

    def opened(
        self,
        deliveries: Sequence[Delivery],
        keywords: str = "250 HELP",
        config: SenderConfig = US,
        *,
        turn: TurnRequest | None = None,
        waits: bool = False,
        known: Pipelining = Pipelining.UNKNOWN,
    ) -> Exchange:
        """An exchange after EHLO (or LHLO) and its reply with these keywords."""
        exchange = Exchange(deliveries, config, turn=turn, waits=waits, known=known)
        verb = "LHLO" if config.lmtp else "EHLO"
        exchange.talk(
            f"""
            S: 220 peer.example ESMTP
            C: {verb} us.example
            S: 250-peer.example | {keywords}
            """
        )
        return exchange

    def assert_unusable(self, exchange: Exchange, reply: str) -> None:
        """The peer can't be used, for that reason; no mail was touched.

        Where the peer still listens, it is told (RFC 5321 section 4.1.1.10).
        """
        if not exchange.ended:
            self.assertEqual(exchange.hear()[-1], "QUIT")
            exchange.talk("S: 221 bye")
        failure = exchange.failure
        assert isinstance(failure, HopFailure), failure
        self.assertIn(reply, str(failure.outcome.reply))
        self.assertTrue(exchange.transport.disconnecting)
        self.assertEqual(exchange.source.unreported, [])
