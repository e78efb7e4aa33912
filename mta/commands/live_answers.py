"""The answer of a peer about an address, as sessions get it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from twisted.internet.defer import maybeDeferred
from zope.interface import implementer

from mta.access.answer_table import AnswerTable
from mta.access.live_recipients import UNVERIFIED_MAILBOX, AnswerSources, to_ask
from mta.interfaces import IRecipientAnswers, IToldMailboxes
from mta.mail import Hop, Mailbox, Reply
from mta.pairing.mailboxes import live_domains
from mta.peer_settings import Peer, Unknown
from mta.peers.announcements import Announcements
from mta.peers.question_socket import QuestionsOfTools
from mta.session import RecipientAnswer, RecipientQuestion
from mta.settings import Settings
from mta.smtp import replies
from mta.spool.place import SpoolPlace
from mta.sync import result_of

_HAS = {
    RecipientAnswer.YES: "{peer} has it",
    RecipientAnswer.NO: "{peer} has no such mailbox",
    RecipientAnswer.LATER: "{peer} takes nothing for it now, which says nothing of the mailbox",
    RecipientAnswer.NONE: "{peer} does not answer, and has told no list",
}
_SOURCES = {
    "cache": ", as it said lately",
    "link": ", as it says now",
    "list": ", by the list that it told; it does not answer now",
    "unknown": "; `unknown` says what is done",
}


@dataclass(frozen=True, slots=True)
class LiveAnswer:
    """The answer of a peer, its source, and what follows."""

    peer: Peer
    answer: RecipientAnswer
    source: str

    @property
    def words(self) -> str:
        """The answer for a person."""
        return _HAS[self.answer].format(peer=self.peer.name) + _SOURCES[self.source]

    @property
    def refusal(self) -> Reply | None:
        """The refusal that a session would hear."""
        if self.answer is RecipientAnswer.NO:
            return replies.NO_SUCH_USER
        is_open = self.answer is RecipientAnswer.NONE
        return UNVERIFIED_MAILBOX if is_open and self.peer.unknown is Unknown.DEFER else None


def live_answer(
    settings: Settings, address: Mailbox, hop: Hop, reverse_path: Mailbox, lists: IToldMailboxes
) -> LiveAnswer | None:
    """Look the answer up, or let the server ask.

    None: nothing is asked about that address.  Blocks for some seconds.
    """
    found = to_ask([(address, hop)], live_domains(settings))
    if found is None:
        return None
    peer, address = found
    spool = Path(settings.spool)
    sources = AnswerSources(QuestionsOfTools(Announcements(spool)), _Kept(settings), lists)
    question = RecipientQuestion(reverse_path, address)
    return LiveAnswer(peer, *result_of(sources.answer(peer.name, question)))


@implementer(IRecipientAnswers)
class _Kept:
    """The answers that the server remembers, which we only read."""

    def __init__(self, settings: Settings) -> None:
        store = SpoolPlace.of(settings).shared_tables()
        self._table = AnswerTable(store, time.time, maybeDeferred)

    async def find(self, peer: str, address: Mailbox) -> RecipientAnswer:
        """See `IRecipientAnswers.find`."""
        try:
            return self._table.look_up(peer, address)
        except OSError:
            return RecipientAnswer.NONE

    def keep(self, peer: str, address: Mailbox, answer: RecipientAnswer) -> None:
        """See `IRecipientAnswers.keep`."""

    async def forget(self, peer: str) -> None:
        """See `IRecipientAnswers.forget`."""
