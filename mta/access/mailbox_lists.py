"""The lists of mailboxes that peers send us, piece by piece.

Only a peer that dials in and has proved who it is may send one, and it counts for its own domains.
"""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Iterable

from zope.interface import implementer

from mta.access.policy import proved_peer
from mta.interfaces import IMailboxLists, IMailboxListStore
from mta.mail import Reply
from mta.session import Session
from mta.settings import Peer
from mta.smtp import replies
from mta.smtp.errors import Refusal
from mta.smtp.mailbox_list import SEND, digest_of

MAX_LIST = 4 * 2**20  # octets: of one list; a process holds one for each peer at most

KNOWN = Reply(250, "2.0.0", ("KNOWN",))
WANTED = Reply(250, "2.0.0", (SEND,))
PART_TAKEN = Reply(250, "2.0.0", ("OK",))
TAKEN = Reply(250, "2.0.0", ("The list is in force in a moment",))
TOO_LONG = Reply(552, "5.3.4", ("The list is too long",))
DAMAGED = Reply(550, "5.6.0", ("The list is damaged",))

_ARGUMENT = re.compile(rb"(?:(CHECK|END) ([0-9a-f]{64})|(PART) ([A-Za-z0-9+/=]+))")


@implementer(IMailboxLists)
class MailboxLists:
    """The lists that come from these peers, for a store."""

    def __init__(self, peers: Iterable[Peer], store: IMailboxListStore) -> None:
        self._peers = [peer for peer in peers if peer.connect is None]
        self._store = store
        self._incoming: dict[str, bytearray] = {}  # by peer

    @property
    def is_offered(self) -> bool:
        """See `IMailboxLists.is_offered`."""
        return bool(self._peers)

    async def take(self, session: Session, argument: bytes) -> Reply:
        """See `IMailboxLists.take`."""
        peer = proved_peer(session, self._peers)
        parts = _ARGUMENT.fullmatch(argument)
        if parts is None:
            raise Refusal(replies.BAD_ARGUMENT)
        if parts[3]:
            return self._add(peer, parts[4])
        digest = parts[2].decode()
        if parts[1] == b"END":
            return await self._end(peer, digest)
        if await self._store.digest(peer.name) == digest:
            return KNOWN
        self._incoming[peer.name] = bytearray()
        return WANTED

    def _add(self, peer: Peer, encoded: bytes) -> Reply:
        incoming = self._incoming.get(peer.name)
        if incoming is None:
            raise Refusal(replies.BAD_SEQUENCE)
        try:
            incoming += b64decode(encoded, validate=True)
        except ValueError:
            raise Refusal(replies.BAD_BASE64) from None
        if len(incoming) > MAX_LIST:
            del self._incoming[peer.name]
            raise Refusal(TOO_LONG)
        return PART_TAKEN

    async def _end(self, peer: Peer, digest: str) -> Reply:
        document = bytes(self._incoming.pop(peer.name, b""))
        if digest_of(document) != digest:
            raise Refusal(DAMAGED)
        if not await self._store.keep(peer, document):
            raise Refusal(DAMAGED)
        return TAKEN
