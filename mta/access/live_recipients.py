"""The check whether the recipients of a peer exist: it is asked.

What it answered lately counts first; what it can't answer now is looked up in the list that it
told.  Its words are never shown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from zope.interface import implementer

from mta.interfaces import (
    IPeerMeter,
    IPeerQuestions,
    IRecipientAnswers,
    IRecipientCheck,
    IToldMailboxes,
)
from mta.mail import Agent, Hop, Mailbox, Reply
from mta.peer_settings import Peer, Unknown
from mta.session import RecipientAnswer, RecipientQuestion
from mta.smtp import replies
from mta.smtp.errors import Refusal

UNVERIFIED_MAILBOX = Reply(450, "4.1.1", ("This mailbox can't be verified now, try again later",))
POSTMASTER = "postmaster"  # who is always there (RFC 5321 section 4.5.1)

_ANSWERED = (RecipientAnswer.YES, RecipientAnswer.NO)


class AnswerSources:
    """All that may know whether a peer has a mailbox.

    `answers` are those that it gave lately, `questions` ask it, `lists` are what it told.
    """

    def __init__(
        self, questions: IPeerQuestions, answers: IRecipientAnswers, lists: IToldMailboxes
    ) -> None:
        self._questions = questions
        self._answers = answers
        self._lists = lists

    async def answer(self, peer: str, question: RecipientQuestion) -> tuple[RecipientAnswer, str]:
        """The answer, and its source: one of `ANSWER_SOURCES`."""
        address = question.forward_path
        found = await self._answers.find(peer, address)
        if found in _ANSWERED:
            return found, "cache"
        answer = await self._questions.ask(peer, question)
        if answer in _ANSWERED:
            self._answers.keep(peer, address, answer)
        if answer is not RecipientAnswer.NONE:
            return answer, "link"
        told = self._lists.told(address)
        if told is None:
            return RecipientAnswer.NONE, "unknown"
        return RecipientAnswer.YES if told else RecipientAnswer.NO, "list"


@implementer(IRecipientCheck)
class LiveRecipients:
    """The check for the domains that have a peer to ask."""

    def __init__(
        self, peers: Mapping[str, Peer], sources: AnswerSources, meter: IPeerMeter
    ) -> None:
        self._peers = peers
        self._sources = sources
        self._meter = meter

    async def check(self, routed: Sequence[tuple[Mailbox, Hop]], reverse_path: Mailbox) -> None:
        """See `IRecipientCheck.check`."""
        found = to_ask(routed, self._peers)
        if found is None:
            return
        peer, address = found
        question = RecipientQuestion(reverse_path, address)
        answer, source = await self._sources.answer(peer.name, question)
        self._meter.answered(peer.name, source)
        if answer is RecipientAnswer.NO:
            raise Refusal(replies.NO_SUCH_USER, is_error=True)
        if answer is RecipientAnswer.NONE and peer.unknown is Unknown.DEFER:
            raise Refusal(UNVERIFIED_MAILBOX)


def to_ask(
    routed: Sequence[tuple[Mailbox, Hop]], peers: Mapping[str, Peer]
) -> tuple[Peer, Mailbox] | None:
    """The peer to ask, and the address to ask about, if any.

    An address that stands for several is not asked for: some of them may exist.
    """
    if len(routed) != 1:
        return None
    ((address, hop),) = routed
    peer = peers.get(address.domain)
    if peer is None or hop.agent is not Agent.HOLD or hop.next_hop != peer.name:
        return None
    return None if address.local_part.lower() == POSTMASTER else (peer, address)
