"""Questions to peers from one process of the server to another.

Each process with links listens on a socket in the spool.  A question and its answer are lines of
JSON with a number that both have; answers come in any order.
"""

from __future__ import annotations

import json
import socket
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import UNIXClientEndpoint, connectProtocol
from twisted.internet.interfaces import ITransport
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from twisted.protocols.basic import LineOnlyReceiver
from twisted.python.failure import Failure
from zope.interface import implementer

from mta.interfaces import IPeerQuestions
from mta.mail import Mailbox
from mta.peers.announcements import Announcements
from mta.peers.link_questions import MAX_QUESTIONS, TIMEOUT
from mta.session import RecipientAnswer, RecipientQuestion

MAX_LINE = 4096  # octets: two paths and a name
MARGIN = 0.5  # seconds more than the other process takes
CONNECT_TIMEOUT = 1  # seconds: it is on this host

NONE = RecipientAnswer.NONE


def question_line(number: int, peer: str, question: RecipientQuestion) -> bytes:
    """The line with a question."""
    reverse, forward = question.reverse_path, question.forward_path
    paths = [reverse.local_part, reverse.domain, forward.local_part, forward.domain]
    return json.dumps([number, peer, *paths]).encode()


def answer_of(line: bytes) -> tuple[int, RecipientAnswer]:
    """The number and the answer in a line.  Raises ValueError or TypeError."""
    number, answer = json.loads(line)
    return number, RecipientAnswer(answer)


@implementer(IPeerQuestions)
class QuestionsOfTools:
    """Asks from a program without a reactor.  Blocks."""

    def __init__(self, announcements: Announcements) -> None:
        self._announcements = announcements

    async def ask(self, peer: str, question: RecipientQuestion) -> RecipientAnswer:
        """See `IPeerQuestions.ask`."""
        path = self._announcements.find(peer)
        if path is None:
            return NONE
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(TIMEOUT + MARGIN)
            try:
                connection.connect(str(path))
                connection.sendall(question_line(1, peer, question) + b"\n")
                with connection.makefile("rb") as replies:
                    return answer_of(replies.readline(MAX_LINE))[1]
            except (OSError, ValueError, TypeError):
                return NONE


class Asked(LineOnlyReceiver):
    """A connection of another process, which asks."""

    transport: ITransport
    log = Logger()
    MAX_LENGTH = MAX_LINE
    delimiter = b"\n"

    def __init__(self, questions: IPeerQuestions) -> None:
        self._questions = questions

    def lineReceived(self, line: bytes) -> None:
        """Twisted calls this with each line."""
        try:
            number, peer, *paths = json.loads(line)
            question = RecipientQuestion(Mailbox(*paths[:2]), Mailbox(*paths[2:]))
        except (ValueError, TypeError):
            self.transport.loseConnection()
            return
        asking = Deferred.fromCoroutine(self._answer(number, peer, question))
        asking.addErrback(self._failed)

    async def _answer(self, number: int, peer: str, question: RecipientQuestion) -> None:
        answer = await self._questions.ask(peer, question)
        self.sendLine(json.dumps([number, answer.value]).encode())

    def _failed(self, failure: Failure) -> None:
        self.log.failure("a question of another process failed", failure)


class AskedFactory(Factory):
    """Makes them."""

    noisy = False

    def __init__(self, questions: IPeerQuestions) -> None:
        self._questions = questions

    def buildProtocol(self, address: object) -> Asked:
        """Twisted calls this for each connection."""
        return Asked(self._questions)


class AskingLine(LineOnlyReceiver):
    """Our connection to another process.

    `is_open`: questions may go there; those that come before it stands wait for that.
    """

    transport: ITransport | None = None
    MAX_LENGTH = MAX_LINE
    delimiter = b"\n"

    def __init__(self) -> None:
        self.is_open = True
        self._number = 0
        self._asked: dict[int, Deferred[RecipientAnswer]] = {}
        self._unsent: list[bytes] = []

    def connectionMade(self) -> None:
        """Twisted calls this when the connection stands."""
        unsent, self._unsent = self._unsent, []
        for line in unsent:
            self.sendLine(line)
        if not self.is_open:
            self.close()

    def ask(self, peer: str, question: RecipientQuestion) -> Deferred[RecipientAnswer]:
        """Send a question; fires with the answer."""
        answer: Deferred[RecipientAnswer] = Deferred()
        if not self.is_open or len(self._asked) >= MAX_QUESTIONS:
            answer.callback(NONE)
            return answer
        self._number += 1
        self._asked[self._number] = answer
        answer.addBoth(self._forget, self._number)
        line = question_line(self._number, peer, question)
        if self.transport is None:
            self._unsent.append(line)
        else:
            self.sendLine(line)
        return answer

    def close(self) -> None:
        """Ask no more."""
        self.is_open = False
        if self.transport is not None:
            self.transport.loseConnection()

    def _forget(self, result: Any, number: int) -> Any:
        self._asked.pop(number, None)
        return result

    def lineReceived(self, line: bytes) -> None:
        """Twisted calls this with each line."""
        number, answer = answer_of(line)
        if number in self._asked:  # else it was too late
            self._asked[number].callback(answer)

    def connectionLost(self, reason: Failure | None = None) -> None:
        """Twisted calls this when the other process has ended.

        So do we where none listens.
        """
        self.is_open = False
        for answer in list(self._asked.values()):
            answer.callback(NONE)


@implementer(IPeerQuestions)
class OtherProcesses:
    """Asks by the process that has the link, wherever it is."""

    def __init__(self, announcements: Announcements, reactor: Any) -> None:
        self._announcements = announcements
        self._reactor = reactor
        self._lines: dict[str, AskingLine] = {}  # by socket

    async def ask(self, peer: str, question: RecipientQuestion) -> RecipientAnswer:
        """See `IPeerQuestions.ask`."""
        path = self._announcements.find(peer)
        if path is None or path == self._announcements.socket:
            return NONE
        answer = self._line(str(path)).ask(peer, question)
        answer.addTimeout(TIMEOUT + MARGIN, self._reactor, lambda result, _: NONE)
        return await answer

    def _line(self, path: str) -> AskingLine:
        line = self._lines.get(path)
        if line is None or not line.is_open:
            self._lines = {name: each for name, each in self._lines.items() if each.is_open}
            line = self._lines[path] = AskingLine()
            endpoint = UNIXClientEndpoint(self._reactor, path, timeout=CONNECT_TIMEOUT)
            connectProtocol(endpoint, line).addErrback(line.connectionLost)
        return line

    def close(self) -> None:
        """Ask no more."""
        for line in self._lines.values():
            line.close()
