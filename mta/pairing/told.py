"""The lists of mailboxes that peers tell a running server."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from zope.interface import implementer

from mta.interfaces import IMailboxListStore, IRecipientAnswers
from mta.pairing.mailboxes import ListFault, MailboxFiles, read
from mta.settings import Peer


@implementer(IMailboxListStore)
class ToldMailboxes:
    """The files of a spool, used in threads.

    A new list takes the place of the `answers` of before.
    """

    log = Logger()

    def __init__(
        self,
        files: MailboxFiles,
        answers: IRecipientAnswers,
        in_thread: Callable[..., Deferred[Any]],
    ) -> None:
        self._files = files
        self._answers = answers
        self._in_thread = in_thread

    async def digest(self, peer: str) -> str:
        """See `IMailboxListStore.digest`."""
        try:
            digest: str = await self._in_thread(self._files.digest, peer)
        except OSError:
            return ""  # it is told again
        return digest

    async def keep(self, peer: Peer, document: bytes) -> bool:
        """See `IMailboxListStore.keep`."""
        try:
            count: int = await self._in_thread(self._keep, peer, document)
        except (ListFault, OSError) as error:
            self.log.error(
                "mailboxes of {peer} are not taken: {error}", peer=peer.name, error=str(error)
            )
            return False
        await self._answers.forget(peer.name)
        self.log.info("{peer} told its mailboxes: {count}", peer=peer.name, count=count)
        return True

    def _keep(self, peer: Peer, document: bytes) -> int:
        known = read(document, peer.domains)
        self._files.keep(peer.name, document)
        return sum(len(each.names or ()) for each in known.values())
