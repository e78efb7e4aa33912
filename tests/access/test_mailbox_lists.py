"""The lists of mailboxes that peers send, piece by piece."""

from __future__ import annotations

from base64 import b64encode

from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from mta.access.mailbox_lists import (
    DAMAGED,
    KNOWN,
    MAX_LIST,
    PART_TAKEN,
    TAKEN,
    TOO_LONG,
    WANTED,
    MailboxLists,
)
from mta.access.policy import NOT_A_PEER
from mta.interfaces import IMailboxLists, IMailboxListStore
from mta.mail import Agent, Hop, Reply
from mta.session import Session
from mta.settings import Peer, Service
from mta.smtp import replies
from mta.smtp.errors import Refusal
from mta.smtp.mailbox_list import digest_of
from mta.sync import result_of

OFFICE = Peer("office", ("example.com",), user="office")
BRANCH = Peer("branch", ("branch.example",), user="branch")
DIALLED = Peer("dialled", ("dialled.example",), user="dialled", connect=Hop(Agent.SMTP, "x", 25))
LIST = b'{"example.com": {"names": ["alice"], "subaddress": "+"}}'


@implementer(IMailboxListStore)
class Store:
    """Keeps the lists by peer; those with `unusable` in them it can't use."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}

    async def digest(self, peer: str) -> str:
        """See `IMailboxListStore.digest`."""
        return digest_of(self.kept[peer]) if peer in self.kept else ""

    async def keep(self, peer: Peer, document: bytes) -> bool:
        """See `IMailboxListStore.keep`."""
        if b"unusable" in document:
            return False
        self.kept[peer.name] = document
        return True


class ListTests(SynchronousTestCase):
    """The receiver's commands, one after the other."""

    def setUp(self) -> None:
        self.store = Store()
        self.lists = MailboxLists([OFFICE, BRANCH, DIALLED], self.store)

    def take(self, argument: str, user: str = "office") -> Reply:
        """The reply to a command of a user."""
        session = Session(Service.SUBMISSION, "192.0.2.1", None)
        session.identity = user
        try:
            return result_of(self.lists.take(session, argument.encode()))
        except Refusal as refusal:
            return refusal.reply

    def send(self, document: bytes, user: str = "office", size: int = 9) -> Reply:
        """Send a whole list; returns the last reply."""
        self.assertEqual(self.take(f"CHECK {digest_of(document)}", user), WANTED)
        for start in range(0, len(document), size):
            part = b64encode(document[start : start + size]).decode()
            reply = self.take(f"PART {part}", user)
            if reply != PART_TAKEN:
                return reply
        return self.take(f"END {digest_of(document)}", user)

    def test_a_list(self) -> None:
        """It is kept once, and known then."""
        self.assertTrue(verifyObject(IMailboxLists, self.lists))
        self.assertEqual(self.send(LIST), TAKEN)
        self.assertEqual(self.store.kept, {"office": LIST})
        self.assertEqual(self.take(f"CHECK {digest_of(LIST)}"), KNOWN)

    def test_two_at_once(self) -> None:
        """Each peer has a list of its own."""
        self.take(f"CHECK {digest_of(LIST)}")
        self.assertEqual(self.send(b"other", "branch"), TAKEN)
        self.take(f"PART {b64encode(LIST).decode()}")
        self.assertEqual(self.take(f"END {digest_of(LIST)}"), TAKEN)
        self.assertEqual(self.store.kept, {"branch": b"other", "office": LIST})

    def test_strangers(self) -> None:
        """Only a peer that dials in, and proved it, tells anything."""
        for user in ("", "mallory", "dialled"):
            self.assertEqual(self.take(f"CHECK {digest_of(LIST)}", user), NOT_A_PEER)
        self.assertTrue(self.lists.is_offered)
        self.assertFalse(MailboxLists([DIALLED], self.store).is_offered)

    def test_damage(self) -> None:
        """Neither a list that lost something counts, nor one that can't be used."""
        self.take(f"CHECK {digest_of(LIST)}")
        self.take(f"PART {b64encode(LIST[1:]).decode()}")
        self.assertEqual(self.take(f"END {digest_of(LIST)}"), DAMAGED)
        self.assertEqual(self.send(b"unusable"), DAMAGED)
        self.assertEqual(self.take(f"END {digest_of(LIST)}"), DAMAGED)
        self.assertEqual(self.store.kept, {})

    def test_bounds(self) -> None:
        """It ends where it is too long, and the memory is free again."""
        piece = b"x" * 9000
        self.assertEqual(self.send(piece * (MAX_LIST // len(piece) + 1), size=len(piece)), TOO_LONG)
        self.assertEqual(self.take("PART eA=="), replies.BAD_SEQUENCE)

    def test_forms(self) -> None:
        """Anything else is a mistake in the argument."""
        self.assertEqual(self.take("PART eA=="), replies.BAD_SEQUENCE)
        self.take(f"CHECK {digest_of(LIST)}")
        self.assertEqual(self.take("PART eA="), replies.BAD_BASE64)
        for argument in ("", "CHECK", "CHECK 12", "PART", "PART ?", "END", "END x", "NEWS"):
            self.assertEqual(self.take(argument), replies.BAD_ARGUMENT)
