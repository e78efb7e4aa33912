"""Questions to peers, on links of this process or of another one."""

from __future__ import annotations

from typing import Any

from zope.interface import implementer

from mta.interfaces import IPeerQuestions
from mta.peers.question_socket import OtherProcesses
from mta.peers.standing_links import StandingLinks
from mta.session import LinkKind, RecipientAnswer, RecipientQuestion


@implementer(IPeerQuestions)
class OwnLinks:
    """Asks on the links that stand in this process."""

    def __init__(self, links: StandingLinks) -> None:
        self._links = links

    async def ask(self, peer: str, question: RecipientQuestion) -> RecipientAnswer:
        """See `IPeerQuestions.ask`: on the quick link, if it answers."""
        for kind in (LinkKind.QUICK, LinkKind.MAIN):
            link = self._links.newest(peer, kind)
            if link is not None and not link.questions.is_late:
                return await link.ask(question)
        return RecipientAnswer.NONE


@implementer(IPeerQuestions)
class PeerQuestions:
    """Asks on links of this process, or else lets another one ask."""

    def __init__(self, links: StandingLinks, reactor: Any) -> None:
        self._links = links
        self._own = OwnLinks(links)
        self._others: OtherProcesses | None = None
        if links.announcements is not None:
            self._others = OtherProcesses(links.announcements, reactor)

    async def ask(self, peer: str, question: RecipientQuestion) -> RecipientAnswer:
        """See `IPeerQuestions.ask`."""
        if self._others is None or self._links.has(peer):
            return await self._own.ask(peer, question)
        return await self._others.ask(peer, question)

    def close(self) -> None:
        """Ask other processes no more."""
        if self._others is not None:
            self._others.close()
