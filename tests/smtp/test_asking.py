"""Questions that a sender asks between messages: which mailboxes exist?"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import replace

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from mta.interfaces import IQuestions
from mta.mail import NULL_PATH, Mailbox, Reply
from mta.queued import Delivery
from mta.session import RecipientAnswer, RecipientQuestion
from mta.smtp.asking import ANSWER, MAX_GROUPS, MAX_IN_GROUP, MAX_TIME, meaning
from mta.smtp.pipelining import Pipelining
from tests.senders import STREAMING, US, Exchange, SenderTestCase, mail

YES, NO, LATER, NONE = RecipientAnswer
CAROL = Mailbox("carol", "there.example")
OURS = f"250-XQUESTION | 250-SMTPUTF8 | {STREAMING}"


@implementer(IQuestions)
class FakeQuestions:
    """Questions that a test puts, and the answers to them by local part."""

    def __init__(self) -> None:
        self.answers: dict[str, RecipientAnswer] = {}
        self._waiting: deque[RecipientQuestion] = deque()
        self._event: Deferred[None] = Deferred()

    def put(self, *local_parts: str, reverse_path: Mailbox = CAROL) -> None:
        """Ask about these at peer.example."""
        for local_part in local_parts:
            path = Mailbox(local_part, "peer.example")
            self._waiting.append(RecipientQuestion(reverse_path, path))
        event, self._event = self._event, Deferred()
        event.callback(None)

    @property
    def are_waiting(self) -> bool:
        """See `IQuestions`."""
        return bool(self._waiting)

    def take(self, limit: int) -> Sequence[RecipientQuestion]:
        """See `IQuestions`."""
        return [self._waiting.popleft() for _ in range(min(limit, len(self._waiting)))]

    def answered(self, question: RecipientQuestion, answer: RecipientAnswer) -> None:
        """See `IQuestions`."""
        self.answers[question.forward_path.local_part] = answer

    async def wait(self) -> bool:
        """See `IQuestions`."""
        while not self._waiting:
            self._event = Deferred()
            await self._event
        return True


class MeaningTests(SynchronousTestCase):
    """What a reply to RCPT says of the recipient."""

    def test_each(self) -> None:
        """5xx only where it is about the recipient, and 4xx never."""
        for answer, texts in {
            YES: "250 2.1.5|251 2.1.5|252 2.0.0|250",
            NO: "550 5.1.1|550 5.1.10|550 5.1.6|553 5.1.3|550 5.2.1|550|551|553",
            LATER: "450 4.2.1|451 4.7.1|452 4.2.2|450|450 4.1.1",
            NONE: "550 5.7.1|554 5.7.1|552 5.2.2|550 5.1.8|550 5.4.6|503 5.5.1|554|552|500|503",
        }.items():
            for text in texts.split("|"):
                code, _, enhanced = text.partition(" ")
                self.assertIs(meaning(Reply(int(code), enhanced, ("x",))), answer, text)


class AskingTests(SenderTestCase):
    """A sender that waits for mail, and is to ask."""

    def setUp(self) -> None:
        self.questions = FakeQuestions()
        self.config = replace(US, questions=self.questions)

    def idle(self, keywords: str = OURS, *deliveries: Delivery, waits: bool = True) -> Exchange:
        """A connection that stands, with mail."""
        return self.opened(deliveries, keywords, self.config, waits=waits)

    def asked(self, exchange: Exchange, *local_parts: str, **more: Mailbox) -> None:
        """Put questions, and let the sender hear of them."""
        self.questions.put(*local_parts, **more)
        exchange.source.interrupt()

    def test_interface(self) -> None:
        """The questions of these tests are such as others."""
        verifyObject(IQuestions, self.questions)

    def test_one_group(self) -> None:
        """Each has its answer, and nothing is left open."""
        exchange = self.idle()
        self.asked(exchange, "bob", "nobody", "full", "barred")
        exchange.talk("""\
            C: MAIL FROM:<carol@there.example> XQUESTION SMTPUTF8
            | RCPT TO:<bob@peer.example> | RCPT TO:<nobody@peer.example>
            | RCPT TO:<full@peer.example> | RCPT TO:<barred@peer.example> | RSET
            S: 250 2.1.0 OK | 250 2.1.5 OK | 550 5.1.1 No | 452 4.2.2 Full | 550 5.7.1 No""")
        self.assertEqual(
            self.questions.answers, {"bob": YES, "nobody": NO, "full": LATER, "barred": NONE}
        )
        exchange.talk("S: 250 OK")
        self.assertFalse(exchange.ended)

    def test_each_sender_by_itself(self) -> None:
        """One transaction for each reverse-path, all in one group; notices have none."""
        self.questions.put("bob", "eve")
        self.questions.put("bob2", reverse_path=NULL_PATH)
        exchange = self.idle(STREAMING)
        exchange.talk("""\
            C: MAIL FROM:<carol@there.example> | RCPT TO:<bob@peer.example>
            | RCPT TO:<eve@peer.example> | RSET | MAIL FROM:<> | RCPT TO:<bob2@peer.example> | RSET
            S: 250 | 250 | 250 | 250 | 250 | 550 5.1.1 No | 250""")
        self.assertEqual(self.questions.answers, {"bob": YES, "eve": YES, "bob2": NO})

    def test_the_sender_is_refused(self) -> None:
        """That says nothing of the recipients, nor does what follows from it."""
        self.questions.put("bob")
        exchange = self.idle()
        exchange.hear()
        exchange.talk("P: 550 5.1.8 Bad sender | 503 5.5.1 MAIL first | 250 OK")
        self.assertEqual(self.questions.answers, {"bob": NONE})
        self.asked(exchange, "eve")
        exchange.hear()
        exchange.talk("P: 250 OK | 250 OK | 250 OK")
        self.assertEqual(self.questions.answers, {"bob": NONE, "eve": YES})

    def test_ahead_of_answers(self) -> None:
        """What is asked a moment later does not wait for a round trip."""
        exchange = self.idle()
        self.asked(exchange, "bob")
        exchange.talk(
            "C: MAIL FROM:<carol@there.example> XQUESTION SMTPUTF8"
            " | RCPT TO:<bob@peer.example> | RSET"
        )
        self.questions.put("eve")
        exchange.talk(
            "C: MAIL FROM:<carol@there.example> XQUESTION SMTPUTF8"
            " | RCPT TO:<eve@peer.example> | RSET"
        )
        exchange.talk("P: 250 | 250 | 250 | 250 | 550 5.1.1 No | 250")
        self.assertEqual(self.questions.answers, {"bob": YES, "eve": NO})

    def test_bounded(self) -> None:
        """So many in a group, and so many groups in flight."""
        self.questions.put(*(f"m{number}" for number in range(MAX_IN_GROUP * MAX_GROUPS + 7)))
        exchange = self.idle()
        heard = exchange.hear()
        self.assertEqual(sum(line.startswith("RCPT") for line in heard), MAX_IN_GROUP * MAX_GROUPS)
        self.assertEqual(heard.count("RSET"), MAX_GROUPS)
        exchange.say(b"250 OK\r\n" * (MAX_IN_GROUP + 2))
        self.assertEqual(sum(line.startswith("RCPT") for line in exchange.hear()), 7)

    def test_mail_has_its_turn(self) -> None:
        """Questions that never end don't keep mail from going."""
        exchange = self.idle()
        self.asked(exchange, "m0")
        exchange.source.give(mail())
        for number in range(1, 4):
            exchange.hear()
            exchange.clock.advance(MAX_TIME / 2)
            self.questions.put(f"m{number}")
            exchange.talk("P: 250 OK | 250 OK | 250 OK")
            if any(line.startswith("BDAT") for line in exchange.hear()):
                break
        else:
            self.fail("no mail")

    def test_time_passes_without_an_answer(self) -> None:
        """The answers are awaited, and then mail goes."""
        exchange = self.idle()
        self.asked(exchange, "bob")
        exchange.clock.advance(2 * MAX_TIME)
        exchange.hear()
        self.asked(exchange, "eve")
        exchange.talk("C:")
        exchange.talk("P: 250 OK | 250 OK | 250 OK")
        self.assertEqual(self.questions.answers, {"bob": YES})
        self.assertEqual(exchange.hear()[1:], ["RCPT TO:<eve@peer.example>", "RSET"])

    def test_woken_for_nothing(self) -> None:
        """The sender waits on, and says NOOP when it would have."""
        exchange = self.idle()
        exchange.clock.advance(self.config.keepalive / 2)
        exchange.source.interrupt()
        exchange.talk("C:")
        exchange.clock.advance(self.config.keepalive / 2)
        exchange.talk("C: NOOP")

    def test_a_reply_in_two_pieces(self) -> None:
        """It is awaited."""
        exchange = self.idle()
        self.asked(exchange, "bob")
        exchange.talk("S: 250 OK | 250-2.1.5 first line")
        exchange.talk("S: 250 2.1.5 OK | 250 OK")
        self.assertEqual(self.questions.answers, {"bob": YES})

    def test_before_mail(self) -> None:
        """What waits is asked first, and the message goes when it is answered."""
        self.questions.put("bob")
        exchange = self.idle(OURS, mail())
        exchange.talk("""\
            C: MAIL FROM:<carol@there.example> XQUESTION SMTPUTF8
            | RCPT TO:<bob@peer.example> | RSET
            S: 250 OK | 250 OK | 250 OK""")
        self.assertIn("BDAT 20 LAST", exchange.hear())

    def test_between_messages(self) -> None:
        """Replies to content are read first."""
        exchange = self.opened([mail()], OURS, self.config, waits=True, known=Pipelining.AHEAD)
        exchange.hear()
        self.questions.put("bob")
        exchange.talk("P: 250 OK | 250 OK | 250 OK")
        self.assertEqual(exchange.hear()[-2:], ["RCPT TO:<bob@peer.example>", "RSET"])
        exchange.talk("P: 250 OK | 250 OK | 250 OK")
        self.assertEqual(self.questions.answers, {"bob": YES})

    def test_between_messages_by_data(self) -> None:
        """So it is where an envelope would have gone ahead."""
        exchange = self.opened(
            [mail(), mail("M2")], "250 PIPELINING", self.config, known=Pipelining.AHEAD
        )
        exchange.hear()
        self.questions.put("bob")
        exchange.talk("P: 250 OK | 250 OK | 354 go")
        self.assertEqual(exchange.hear()[-1], ".")
        exchange.talk("S: 250 OK")
        self.assertEqual(exchange.hear()[-2:], ["RCPT TO:<bob@peer.example>", "RSET"])
        exchange.talk("P: 250 OK | 250 OK | 250 OK")
        self.assertEqual(self.questions.answers, {"bob": YES})

    def test_after_refused_mail(self) -> None:
        """A transaction that may be open is ended first."""
        exchange = self.idle("250 PIPELINING", mail())
        exchange.hear()
        self.questions.put("bob")
        exchange.talk("P: 250 OK | 550 5.1.1 No | 503 no")
        exchange.talk("""\
            C: RSET | MAIL FROM:<carol@there.example> | RCPT TO:<bob@peer.example> | RSET
            S: 250 OK | 250 OK | 250 OK | 250 OK""")
        self.assertEqual(self.questions.answers, {"bob": YES})

    def test_without_pipelining(self) -> None:
        """One command at a time."""
        exchange = self.idle("250 HELP")
        self.asked(exchange, "bob", "eve")
        exchange.talk("""\
            C: MAIL FROM:<carol@there.example>
            S: 250 OK
            C: RCPT TO:<bob@peer.example>
            S: 250 OK
            C: RCPT TO:<eve@peer.example>
            S: 550 5.1.1 No
            C: RSET
            S: 250 OK""")
        self.assertEqual(self.questions.answers, {"bob": YES, "eve": NO})

    def test_an_address_that_the_peer_can_not_read(self) -> None:
        """It has no answer where SMTPUTF8 is not offered, nor one that is no address."""
        exchange = self.idle(STREAMING)
        self.asked(exchange, "jürgen", "a\r\nRSET")
        exchange.talk("C:")
        self.assertEqual(self.questions.answers, {"jürgen": NONE, "a\r\nRSET": NONE})
        exchange = self.idle()
        self.asked(exchange, "jürgen")
        self.assertEqual(exchange.hear()[1], "RCPT TO:<jürgen@peer.example>")

    def test_the_connection_breaks(self) -> None:
        """What had no answer has none."""
        exchange = self.idle()
        self.asked(exchange, "bob", "eve")
        exchange.talk("S: 250 OK | 250 OK")
        exchange.talk("E: lost")
        self.assertEqual(self.questions.answers, {"bob": YES, "eve": NONE})

    def test_the_peer_is_silent(self) -> None:
        """The connection is given up, as with NOOP."""
        exchange = self.idle()
        self.asked(exchange, "bob")
        exchange.clock.pump([1.0] * round(ANSWER.timeout + 2))
        self.assertEqual(self.questions.answers, {"bob": NONE})
        self.assertTrue(exchange.ended)

    def test_the_peer_closes(self) -> None:
        """421 is no answer."""
        exchange = self.idle()
        self.asked(exchange, "bob")
        exchange.talk("S: 250 OK | 421 4.3.2 Closing")
        self.assertEqual(self.questions.answers, {"bob": NONE})

    def test_out_of_step(self) -> None:
        """RSET that is refused: the answers before it stand, and the connection ends."""
        exchange = self.idle()
        self.asked(exchange, "bob")
        exchange.talk("P: 250 OK | 550 5.1.1 No | 500 what")
        self.assertEqual(self.questions.answers, {"bob": NO})
        self.assertEqual(exchange.hear()[-1], "QUIT")
