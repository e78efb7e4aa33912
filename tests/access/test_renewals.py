"""New passwords that peers send."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from mta.access.policy import NOT_A_PEER
from mta.access.renewals import (
    MAX_RENEWALS,
    NOT_KEPT,
    TAKEN,
    TOO_MANY,
    Renewals,
)
from mta.interfaces import IPasswords, IRenewals
from mta.mail import Agent, Hop, Reply
from mta.session import Session, TLSInfo
from mta.settings import HOUR, Peer, Service
from mta.smtp import replies
from mta.smtp.errors import Refusal

GOOD = b"n" * 32
PEERS = [
    Peer("office", ("example.com",), user="office"),
    Peer("relay", ("example.com",), user="relay", connect=Hop(Agent.SMTP, "x.example", 25)),
]


@implementer(IPasswords)
class Passwords:
    """Keeps what it is given, but for a user who is not there."""

    def __init__(self) -> None:
        self.given: list[tuple[str, str]] = []

    async def renew(self, user: str, password: str) -> bool:
        """See `IPasswords.renew`."""
        self.given.append((user, password))
        return len(self.given) < MAX_RENEWALS


class RenewalTests(SynchronousTestCase):
    """The replies to XRENEW."""

    def setUp(self) -> None:
        self.passwords, self.clock = Passwords(), Clock()
        self.renewals = Renewals(PEERS, self.passwords, self.clock)

    def reply(self, argument: bytes = GOOD, identity: str = "Office", tls: bool = True) -> Reply:
        """The reply to a client."""
        session = Session(Service.SUBMISSION, "192.0.2.1", TLSInfo("TLSv1.3", "x") if tls else None)
        session.identity = identity
        result: list[object] = []
        Deferred.fromCoroutine(self.renewals.take(session, argument)).addBoth(result.append)
        (reply,) = result
        if isinstance(reply, Reply):
            return reply
        refusal = reply.value  # type: ignore[attr-defined]
        self.assertIsInstance(refusal, Refusal)
        return refusal.reply  # type: ignore[no-any-return]

    def test_a_peer(self) -> None:
        """Its own user has the password."""
        self.assertTrue(verifyObject(IRenewals, self.renewals))
        self.assertEqual(self.reply(), TAKEN)
        self.assertEqual(self.passwords.given, [("office", GOOD.decode())])

    def test_refusals(self) -> None:
        """Others, peers that we dial, sessions in the clear, and what is no password."""
        for identity in ("", "alice", "relay"):
            self.assertEqual(self.reply(identity=identity), NOT_A_PEER)
        self.assertEqual(self.reply(tls=False), replies.TLS_NEEDED)
        for argument in (b"", b"short", b"x" * 65, b"n" * 31 + b" ", b"n" * 31 + b"\xff"):
            self.assertEqual(self.reply(argument), replies.BAD_ARGUMENT)
        self.assertEqual(self.passwords.given, [])

    def test_where_passwords_are_not_ours(self) -> None:
        """The reply says so, and where they can't be kept."""
        for _ in range(MAX_RENEWALS - 1):
            self.reply()
        self.assertEqual(self.reply(), NOT_KEPT)
        self.renewals = Renewals(PEERS, None, self.clock)
        self.assertEqual(self.reply(), NOT_KEPT)

    def test_a_limit(self) -> None:
        """So many in an hour."""
        for _ in range(MAX_RENEWALS):
            self.reply()
        self.assertEqual(self.reply(), TOO_MANY)
        self.clock.advance(HOUR)
        self.assertNotEqual(self.reply(), TOO_MANY)
