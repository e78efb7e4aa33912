"""Questions to the peer of a sender: which of its mailboxes exist?

Those of many sessions go out in one group of commands (RFC 2920), MAIL, RCPT and RSET, and further
groups before the replies to it have come.  To a peer with XQUESTION, a keyword of ours, MAIL says
that no content will come, so that it counts nothing and shows nothing to filters.  The client that
brings the mail is not told: an answer that depended on it would not hold for others.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mta.interfaces import IQuestions
from mta.mail import Mailbox, Reply
from mta.session import RecipientAnswer, RecipientQuestion
from mta.smtp import grammar
from mta.smtp.dialogue import Dialogue, Misplaced, Stage, accepts
from mta.smtp.errors import LocalFault
from mta.smtp.fit import Capabilities

KEYWORD = "XQUESTION"
ANSWER = Stage(30.0, "in reply to a question about a recipient")
MAX_TIME = 0.5  # seconds without pause, then mail has its turn
MAX_IN_GROUP = 100  # questions: what any server takes in one transaction
MAX_GROUPS = 20  # in flight

# Bad mailbox, its syntax, moved, null MX (RFC 3463, RFC 7505); disabled.
ABOUT_RECIPIENT = frozenset({"5.1.1", "5.1.3", "5.1.6", "5.1.10", "5.2.1"})
# The same where there is no enhanced code.
UNAVAILABLE = frozenset({550, 551, 553})


def meaning(reply: Reply) -> RecipientAnswer:
    """The meaning of a reply to RCPT for the recipient."""
    if accepts(reply):
        return RecipientAnswer.YES
    if reply.code < 500:
        return RecipientAnswer.LATER
    if reply.enhanced in ABOUT_RECIPIENT or (not reply.enhanced and reply.code in UNAVAILABLE):
        return RecipientAnswer.NO
    return RecipientAnswer.NONE


@dataclass(frozen=True, slots=True)
class _Step:
    """One command of a group: MAIL, RCPT with its question, or RSET."""

    command: bytes
    question: RecipientQuestion | None = None
    is_mail: bool = False


class Asking:
    """Asks the questions that wait, between messages."""

    def __init__(
        self, dialogue: Dialogue, capabilities: Capabilities, questions: IQuestions
    ) -> None:
        self._dialogue = dialogue
        self._capabilities = capabilities
        self._questions = questions
        self._groups: deque[deque[_Step]] = deque()

    @property
    def is_due(self) -> bool:
        """Tell whether any question waits."""
        return self._questions.are_waiting

    async def ask(self, *, reset_first: bool) -> None:
        """Ask until no question is left, or mail should have its turn.

        `reset_first`: the peer may be in a transaction.  Raises what `Dialogue` raises; what was
        not answered then has no answer.
        """
        channel = self._dialogue.channel
        end = channel.seconds() + MAX_TIME
        try:
            while channel.seconds() < end and await self._has_more(end - channel.seconds()):
                await self._begin(reset_first)
                reset_first = False
            while self._groups:
                await self._read()
        finally:
            self._give_up()

    async def _has_more(self, seconds: float) -> bool:
        """Read answers until there are more questions."""
        questions, channel = self._questions, self._dialogue.channel
        while self._groups and not (questions.are_waiting and len(self._groups) < MAX_GROUPS):
            if not questions.are_waiting and self._dialogue.is_quiet:
                if await channel.wait_idle(questions.wait(), seconds):
                    continue
                if self._dialogue.is_quiet:
                    return False  # time has passed
            await self._read()
        return questions.are_waiting

    async def _begin(self, reset_first: bool) -> None:
        """Ask some questions, in one group where the peer allows it."""
        steps = deque(self._steps(self._questions.take(MAX_IN_GROUP)))
        if not steps:
            return
        if reset_first:
            steps.appendleft(_Step(b"RSET\r\n"))
        self._groups.append(steps)
        if self._capabilities.pipelines:
            await self._dialogue.send(b"".join(step.command for step in steps), len(steps))
        else:
            await self._read(in_steps=True)

    def _steps(self, questions: Sequence[RecipientQuestion]) -> Iterator[_Step]:
        """The commands: a transaction for each reverse-path."""
        by_sender: dict[Mailbox, list[_Step]] = {}
        for question in questions:
            try:
                step = self._rcpt(question)
            except LocalFault:
                self._questions.answered(question, RecipientAnswer.NONE)
            else:
                by_sender.setdefault(question.reverse_path, []).append(step)
        for reverse_path, rcpts in by_sender.items():
            yield _Step(grammar.mail_command(reverse_path, self._parameters()), is_mail=True)
            yield from rcpts
            yield _Step(b"RSET\r\n")

    def _rcpt(self, question: RecipientQuestion) -> _Step:
        """RCPT for a question.  Raises LocalFault where the peer can't be asked."""
        paths = f"{question.reverse_path}{question.forward_path}"
        if not paths.isascii() and not self._capabilities.extensions.offers("SMTPUTF8"):
            raise LocalFault("the peer takes no such address")
        grammar.mail_command(question.reverse_path, ())  # which raises LocalFault, too
        return _Step(grammar.rcpt_command(question.forward_path, ()), question)

    def _parameters(self) -> Sequence[str]:
        """The parameters of MAIL that the peer offers for questions."""
        offers = self._capabilities.extensions.offers
        return [name for name in (KEYWORD, "SMTPUTF8") if offers(name)]

    async def _read(self, *, in_steps: bool = False) -> None:
        """Read the answers to the first group.  `in_steps`: ask for each alone."""
        steps = self._groups[0]
        is_refused = False
        while steps:
            if in_steps:
                await self._dialogue.send(steps[0].command, 1)
            reply = await self._dialogue.reply(ANSWER)
            step = steps.popleft()
            if step.is_mail:
                is_refused = not accepts(reply)  # which is not about the recipients
            elif step.question is not None:
                answer = RecipientAnswer.NONE if is_refused else meaning(reply)
                self._questions.answered(step.question, answer)
            elif reply.code != 250:
                raise Misplaced(f"to RSET: {reply}")
        self._groups.popleft()

    def _give_up(self) -> None:
        """Leave what is in flight without an answer."""
        for steps in self._groups:
            for step in steps:
                if step.question is not None:
                    self._questions.answered(step.question, RecipientAnswer.NONE)
        self._groups.clear()
