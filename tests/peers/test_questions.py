"""Questions to peers: the queue of a link, and those of other processes."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any, cast

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from mta.interfaces import IPeerQuestions, IQuestions
from mta.mail import NULL_PATH, Mailbox
from mta.peer_settings import Peer, Verify
from mta.peers.announcements import Announcements
from mta.peers.link_questions import MAX_QUESTIONS, TIMEOUT, LinkQuestions
from mta.peers.peer_questions import PeerQuestions
from mta.peers.question_socket import AskedFactory, QuestionsOfTools
from mta.peers.standing_links import StandingLinks
from mta.peers.turned_sender import TurnedSender
from mta.session import LinkKind, RecipientAnswer, RecipientQuestion
from mta.sync import result_of

YES, NO, LATER, NONE = RecipientAnswer


def question(name: str = "jürgen") -> RecipientQuestion:
    """A question about an address at office.example."""
    return RecipientQuestion(NULL_PATH, Mailbox(name, "office.example"))


class LinkQuestionsTests(SynchronousTestCase):
    """The questions of one link."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.questions = LinkQuestions(self.clock)

    def ask(self, name: str = "bob") -> Deferred[RecipientAnswer]:
        """Ask."""
        return Deferred.fromCoroutine(self.questions.ask(question(name)))

    def test_interface(self) -> None:
        """It is what a sender asks for."""
        verifyObject(IQuestions, self.questions)

    def test_asked_once(self) -> None:
        """The same question of several goes out once."""
        first, second, other = self.ask(), self.ask(), self.ask("eve")
        waiting = Deferred.fromCoroutine(self.questions.wait())
        self.assertTrue(self.successResultOf(waiting))
        taken = self.questions.take(10)
        self.assertEqual(list(taken), [question("bob"), question("eve")])
        third = self.ask()
        self.questions.answered(taken[0], NO)
        for each in (first, second, third):
            self.assertIs(self.successResultOf(each), NO)
        self.assertNoResult(other)
        self.questions.answered(taken[1], YES)
        self.assertIs(self.successResultOf(other), YES)

    def test_the_sender_is_woken(self) -> None:
        """Once, for all that came at that moment."""
        waiting = Deferred.fromCoroutine(self.questions.wait())
        self.ask("a"), self.ask("b")
        self.assertNoResult(waiting)
        self.clock.advance(0)
        self.assertTrue(self.successResultOf(waiting))

    def test_late(self) -> None:
        """After three seconds there is no answer, and no question until there is one."""
        asked = self.ask()
        self.questions.take(1)
        self.clock.advance(TIMEOUT)
        self.assertIs(self.successResultOf(asked), NONE)
        self.assertIs(self.successResultOf(self.ask("eve")), NONE)
        self.questions.answered(question("bob"), YES)
        self.assertNoResult(self.ask("eve"))

    def test_bounded(self) -> None:
        """One too many has no answer, at once."""
        for number in range(MAX_QUESTIONS):
            self.assertNoResult(self.ask(str(number)))
        self.assertIs(self.successResultOf(self.ask("more")), NONE)

    def test_closed(self) -> None:
        """What is open has no answer, nor what comes."""
        asked = self.ask()
        self.questions.close()
        self.assertIs(self.successResultOf(asked), NONE)
        self.assertIs(self.successResultOf(self.ask("eve")), NONE)
        self.clock.advance(0)


class FakeLink:
    """A link with an answer for each."""

    def __init__(self) -> None:
        self.questions = LinkQuestions(Clock())
        self.is_overtaken = False

    async def ask(self, question: RecipientQuestion) -> RecipientAnswer:
        """See `TurnedSender`."""
        return YES if question.forward_path.local_part == "jürgen" else NO

    def overtaken(self) -> None:
        """See `TurnedSender`."""
        self.is_overtaken = True


@implementer(IPeerQuestions)
class Ending:
    """Never answers."""

    def __init__(self) -> None:
        self.asked: Deferred[None] = Deferred()

    async def ask(self, peer: str, question: RecipientQuestion) -> RecipientAnswer:
        """See `IPeerQuestions`."""
        self.asked.callback(None)
        await Deferred()
        return YES


class OtherProcessTests(TestCase):
    """One process with a link, which listens, and one without."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        (self.folder / "peers").mkdir()
        self.here, self.there = Announcements(self.folder), Announcements(self.folder)
        self.there.socket = self.there.socket.with_name("1.questions")
        self.links = StandingLinks(self.there)
        self.peer = Peer("office", user="office", verify=Verify.LIVE)
        self.own = StandingLinks(self.here)
        self.questions = PeerQuestions(self.own, reactor)

    def listen(self, questions: IPeerQuestions | None = None) -> Any:
        """The other process listens."""
        asked = questions or PeerQuestions(self.links, reactor)
        port = cast(Any, reactor).listenUNIX(str(self.there.socket), AskedFactory(asked))
        self.addCleanup(port.stopListening)
        self.addCleanup(self.questions.close)
        return port

    async def test_asked_there(self) -> None:
        """The answers come from the process with the link, on one connection."""
        verifyObject(IPeerQuestions, self.questions)
        self.listen()
        link = cast(TurnedSender, FakeLink())
        with self.links.standing(self.peer, LinkKind.MAIN, link):
            for _ in range(2):
                self.assertIs(await self.questions.ask("office", question()), YES)
                self.assertIs(await self.questions.ask("office", question("nobody")), NO)
            self.assertIs(await self.questions.ask("branch", question()), NONE)
            others = self.questions._others
            assert others is not None
            self.assertEqual(len(others._lines), 1)
        self.assertIs(await self.questions.ask("office", question()), NONE)

    async def test_asked_at_the_same_moment(self) -> None:
        """The connection that the first one opens serves all."""
        opened = []
        listening = self.listen().factory
        build = listening.buildProtocol
        listening.buildProtocol = lambda address: opened.append(address) or build(address)
        with self.links.standing(self.peer, LinkKind.MAIN, cast(TurnedSender, FakeLink())):
            asking = [
                Deferred.fromCoroutine(self.questions.ask("office", question())) for _ in range(5)
            ]
            self.assertEqual([await each for each in asking], [YES] * 5)
        self.assertEqual(len(opened), 1)

    async def test_closed_before_it_stands(self) -> None:
        """The connection ends when it is there, and the question has no answer."""
        self.listen()
        self.there.begin("office")
        asking = Deferred.fromCoroutine(self.questions.ask("office", question()))
        self.questions.close()
        self.assertIs(await asking, NONE)

    async def test_nothing_listens(self) -> None:
        """A process that died: no answer, at once."""
        link = cast(TurnedSender, FakeLink())
        with self.links.standing(self.peer, LinkKind.MAIN, link):
            self.assertIs(await self.questions.ask("office", question()), NONE)
            tools = QuestionsOfTools(self.here)
            self.assertIs(result_of(tools.ask("office", question())), NONE)
        self.assertIs(result_of(tools.ask("office", question())), NONE)

    async def test_the_process_ends(self) -> None:
        """What is open has no answer."""
        ending = Ending()
        self.listen(ending)
        self.there.begin("office")
        asking = Deferred.fromCoroutine(self.questions.ask("office", question()))
        await ending.asked
        self.questions.close()
        self.assertIs(await asking, NONE)

    def test_what_is_no_question(self) -> None:
        """The connection ends."""
        for line in (b"x", b"[1]", b'[1, "office", "a"]', b"{}"):
            asked = AskedFactory(self.questions).buildProtocol(None)
            transport = StringTransport()
            asked.makeConnection(transport)
            asked.dataReceived(line + b"\n")
            self.assertTrue(transport.disconnecting, line)

    def test_announcements(self) -> None:
        """The newest process counts, and an older one does not take its name away."""
        self.there.begin("office")
        self.here.begin("office")
        self.there.end("office")
        self.assertEqual(self.there.find("office"), self.here.socket)
        self.here.end("office")
        self.assertIsNone(self.there.find("office"))

    def test_stale_sockets(self) -> None:
        """Those of processes that died are removed, and one that had our number."""
        ended = os.posix_spawn("/bin/true", ["true"], {})
        os.waitpid(ended, 0)
        dead = self.folder / f"peers/{ended}.questions"
        for path in (dead, self.here.socket, self.there.socket):
            path.touch()
        self.here.remove_stale(self.here.socket)
        left = [path.name for path in (self.folder / "peers").iterdir()]
        self.assertEqual(left, [self.there.socket.name])

    def test_a_folder_that_can_not_be_written(self) -> None:
        """It is logged, and the link stands all the same."""
        (self.folder / "peers").rmdir()
        (self.folder / "peers").write_text("")
        with self.links.standing(self.peer, LinkKind.MAIN, cast(TurnedSender, FakeLink())):
            self.assertTrue(self.links.has("office"))

    def test_kinds(self) -> None:
        """The quick link is asked, the main one where that is late, and else neither."""
        quick, main = FakeLink(), FakeLink()
        with self.own.standing(self.peer, LinkKind.MAIN, cast(TurnedSender, main)):
            with self.own.standing(self.peer, LinkKind.QUICK, cast(TurnedSender, quick)):
                for late, answer in (([], YES), ([quick], YES), ([quick, main], NONE)):
                    for each in late:
                        each.questions.is_late = True
                    self.assertIs(result_of(self.questions.ask("office", question())), answer)
            self.assertFalse(main.is_overtaken)
