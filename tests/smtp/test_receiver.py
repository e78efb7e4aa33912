"""What the dialogues can't say of the receiver role."""

from __future__ import annotations

from dataclasses import replace
from unittest.mock import patch

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from mta.interfaces import IAccessPolicy, IReversal, IRole, ISessionMeter, IUsers
from mta.link import Link
from mta.mail import Reply
from mta.session import Session
from mta.settings import Service
from mta.smtp import transactions
from mta.smtp.receiver import Receiver
from mta.testing import (
    AcceptedMail,
    FakeAccessPolicy,
    FakeClientNames,
    FakeReversal,
    FakeUsers,
    GreetingRole,
    MemorySpool,
    MemoryTransport,
)
from tests.conversations import Conversation, receiver_config


class ReceiverTests(SynchronousTestCase):
    """See the module."""

    def test_it_is_a_role(self) -> None:
        """So are the stand-ins what they stand for."""
        self.assertTrue(verifyObject(IRole, Receiver(receiver_config(MemorySpool()))))
        self.assertTrue(verifyObject(IRole, GreetingRole()))
        self.assertTrue(verifyObject(IAccessPolicy, FakeAccessPolicy()))
        self.assertTrue(verifyObject(IUsers, FakeUsers()))
        self.assertTrue(verifyObject(IReversal, FakeReversal()))

    def test_input_while_a_turn_is_prepared(self) -> None:
        """It can't be meant for the role to come: the roles do not change."""

        class SlowReversal(FakeReversal):
            """Takes its time."""

            ready: Deferred[IRole] = Deferred()

            async def turn(self, session: Session) -> IRole:
                return await self.ready

        transport, reversal = MemoryTransport(), SlowReversal()
        shared = receiver_config(MemorySpool(), reversal=reversal)
        link = Link(Receiver(shared), Clock())
        link.makeConnection(transport)
        link.dataReceived(b"EHLO client.example\r\n")
        link.dataReceived(b"TURN\r\n")
        transport.clear()
        link.dataReceived(b"220 forged\r\n")
        reversal.ready.callback(GreetingRole())
        self.assertTrue(transport.value().startswith(b"503 5.5.1"))
        self.assertNoResult(link.ended)

    def test_a_reverse_path_that_only_this_host_knows(self) -> None:
        """It is taken in the form that others can answer to."""
        accepted = AcceptedMail()
        spool, transport = MemorySpool(), MemoryTransport()
        shared = replace(
            receiver_config(spool, accepted),
            names=FakeClientNames(),
        )
        link = Link(Receiver(shared), Clock())
        link.makeConnection(transport)
        link.dataReceived(b"EHLO client.example\r\nMAIL FROM:<root@localhost>\r\n")
        link.dataReceived(b"RCPT TO:<b@mta.example>\r\nDATA\r\n")
        link.dataReceived(b"hello\r\n.\r\n")
        self.assertEqual([str(one.envelope.reverse_path) for one in accepted], ["root@mta.example"])

    def test_the_meter_hears_of_replies(self) -> None:
        """All of them, and none is counted where there is no meter."""

        @implementer(ISessionMeter)
        class Meter:
            """Remembers the codes of replies."""

            def __init__(self) -> None:
                self.codes: list[int] = []

            def session(self, service: Service) -> None:
                """See `ISessionMeter`."""

            def accepted(self, service: Service) -> None:
                """See `ISessionMeter`."""

            def replied(self, reply: Reply) -> None:
                self.codes.append(reply.code)

        meter = Meter()
        link = Link(Receiver(replace(receiver_config(MemorySpool()), meter=meter)), Clock())
        link.makeConnection(MemoryTransport())
        link.dataReceived(b"EHLO client.example\r\nFROBNICATE\r\nQUIT\r\n")
        self.assertEqual(meter.codes, [220, 250, 500, 221])

    def test_a_log_in_that_is_held_back(self) -> None:
        """While many fail for an account, the right password is told as late as a wrong one."""
        self.patch(FakeAccessPolicy, "authenticated", lambda access, session, user: 3.0)
        talk = Conversation({"users": "yes", "tls": "implicit"}, dripped=False)
        talk.link.handshakeCompleted()
        talk.link.dataReceived(b"EHLO client.example\r\n")
        talk.transport.clear()
        talk.link.dataReceived(b"AUTH PLAIN AGFsaWNlAHdvbmRlcmxhbmQ=\r\n")
        talk.clock.advance(2.9)
        self.assertEqual(talk.transport.taken(), b"")
        talk.clock.advance(0.1)
        talk.expect_reply("235")

    def test_transactions_are_counted(self) -> None:
        """Beyond what LIMITS MAILMAX said, the session ends (RFC 9422)."""
        with patch.object(transactions, "MAX_TRANSACTIONS", 2):
            talk = Conversation({}, dripped=False)
            for code in ("250", "250", "421"):
                talk.transport.clear()
                talk.send(b"EHLO client.example\r\n")
                talk.transport.clear()
                talk.send(b"MAIL FROM:<>\r\n")
                talk.expect_reply(code)
            talk.expect_closed()

    def test_who_hangs_in_a_handshake_is_counted(self) -> None:
        """A connection counts for its host before TLS stands, with STARTTLS as well."""
        for settings, opening in (
            ({"tls": "implicit"}, b""),
            ({"tls": "opportunistic"}, b"STARTTLS\r\n"),
        ):
            talk = Conversation(settings, dripped=False)
            talk.transport.clear()
            talk.link.dataReceived(opening)
            self.assertIsNone(talk.link.tls)
            self.assertEqual(talk.access.sessions, 1)
            talk.clock.advance(60)
            self.assertEqual(talk.access.sessions, 0)

    def test_memory_stays_bounded(self) -> None:
        """Content goes to the spool as it comes; the connection keeps next to nothing of it."""
        talk = Conversation({}, dripped=False)
        talk.transport.clear()
        talk.send(b"EHLO client.example\r\nMAIL FROM:<>\r\nRCPT TO:<a@b>\r\nDATA\r\n\r\n")
        talk.transport.clear()
        for number in range(1, 101):
            talk.send(b"x" * 10_000)
            (draft,) = talk.spool.drafts
            self.assertGreaterEqual(len(draft.data), number * 10_000)
            self.assertEqual(len(talk.link.wire), 0)

    def test_no_spool(self) -> None:
        """Where the spool can't be reached, the client hears so before it sends content."""
        talk = Conversation({}, dripped=False)
        talk.transport.clear()
        talk.link.dataReceived(b"EHLO client.example\r\n")
        with patch.object(talk.spool, "draft", side_effect=OSError("away")):
            talk.transport.clear()
            talk.send(b"MAIL FROM:<>\r\n")
            talk.expect_reply("451")
        talk.transport.clear()
        talk.send(b"MAIL FROM:<>\r\n")
        talk.expect_reply("250")

    def test_a_draft_for_each_transaction(self) -> None:
        """It is there from MAIL on, and gone however the transaction ends without a message."""
        begin = b"EHLO client.example\r\nMAIL FROM:<>\r\n"
        ends = (b"RSET\r\n", b"EHLO x\r\n", b"QUIT\r\n", b"RCPT TO:<a@b>\r\nDATA\r\nx")
        for end in ends:
            talk = Conversation({}, dripped=False)
            talk.transport.clear()
            talk.link.dataReceived(begin)
            (draft,) = talk.spool.drafts
            self.assertFalse(draft.discarded)
            talk.link.dataReceived(end)
            talk.link.connectionLost()
            self.assertTrue(draft.discarded, end)
