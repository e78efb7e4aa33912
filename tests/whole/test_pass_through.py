"""Mail that is passed through: the office's answer is the sender's, and each message comes once."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import count

from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure

from mta.mail import Reply
from mta.verdict import Verdict
from tests.passing import BODY, GTUBE, PassingCase
from tests.sides import BOB

LARGE = b"0123456789abcd\r\n" * 2**16  # 1 MiB
DEFERRED = Reply(451, "4.7.1", ("Later",))


class AnswerTests(PassingCase):
    """The answers of the office, as senders hear them."""

    def test_accepted(self) -> None:
        """The sender waits for the office's 250; nothing comes into the provider's spool."""
        origin = self.origin()
        origin.send("bob")
        self.assertEqual((origin.replies, self.office.bodies, self.kept), ([], [], []))
        self.carry()
        (draft,) = self.provider.spool.drafts[-1:]
        self.assertEqual(origin.replies, [f"250 2.0.0 OK {draft.id} accepted by office"])
        self.assertEqual((self.office.bodies, self.kept, draft.discarded), ([BODY], [], True))
        self.assertEqual(self.log.told, ["taken"])
        self.assertEqual(self.counts.counted, [("office", "passed through")])
        self.assertEqual(len(self.provider.runner._active), 0)

    def test_refused(self) -> None:
        """5xx goes to the sender, without what is behind us; no notice, no copy."""
        for name in ("end", "recipient", "header"):
            self.make()
            self.inspector.refusals[name] = GTUBE
            origin = self.origin()
            origin.send("bob")
            self.carry()
            text = "office refused it: Gtube pattern, said (host) [(address)]"
            self.assertEqual(origin.replies, [f"550 5.7.1 {text}"], name)
            self.assertEqual((self.office.bodies, self.kept), ([], []))
            self.assertEqual(self.provider.spool.notices, [])
            self.assertEqual(self.log.told, [f"refused by office: 550 5.7.1 {text}"])
            self.assertEqual(self.counts.counted, [])  # the link counts what is refused on it

    def test_deferred(self) -> None:
        """4xx: the message is ours, and the office gets it when it takes it."""
        self.inspector.refusals["end"] = DEFERRED
        origin = self.origin()
        origin.send("bob")
        self.carry()
        self.assertEqual(origin.codes, ["250"])
        self.assertIn("queued as", origin.replies[0])
        self.assertEqual((len(self.kept), self.office.bodies), (1, []))
        del self.inspector.refusals["end"]
        self.advance(125)
        self.assertEqual((self.kept, self.office.bodies), ([], [BODY]))

    def test_silence(self) -> None:
        """After a minute the message is ours; the attempt goes on, and is recorded."""
        origin = self.origin()
        origin.send("bob")
        self.provider.clock.advance(59.9)
        self.assertEqual(origin.replies, [])
        self.provider.clock.advance(0.1)
        self.assertIn("queued as", origin.replies[0])
        self.assertEqual(len(self.kept), 1)
        self.carry()
        self.assertEqual((self.kept, self.office.bodies), ([], [BODY]))
        self.assertEqual(origin.codes, ["250"])
        self.advance(125)
        self.assertEqual(self.office.bodies, [BODY])

    def test_a_late_refusal(self) -> None:
        """What the office refuses later than that goes back by a notice."""
        self.inspector.refusals["end"] = GTUBE
        origin = self.origin()
        origin.send("bob")
        self.provider.clock.advance(60)
        self.carry()
        self.assertEqual((origin.codes, len(self.provider.spool.notices)), (["250"], 1))

    def test_some_refused(self) -> None:
        """Mixed answers: ours, with a notice for those that were refused; each copy once."""
        self.office.router.refusals["eve@office.example"] = GTUBE
        origin = self.origin()
        origin.send("bob", "eve")
        self.carry()
        self.assertIn("queued as", origin.replies[0])
        self.assertEqual((self.kept[:-1], self.office.bodies), ([], [BODY]))
        (notice,) = self.provider.spool.notices
        self.assertIn(b"eve@office.example", notice.content)
        self.assertNotIn(b"bob@office.example", notice.content)

    def test_some_deferred(self) -> None:
        """The others get it later, and no one twice."""
        self.office.router.refusals["eve@office.example"] = DEFERRED
        origin = self.origin()
        origin.send("bob", "eve")
        self.carry()
        self.assertEqual((origin.codes, len(self.kept)), (["250"], 1))
        del self.office.router.refusals["eve@office.example"]
        self.advance(125)
        self.assertEqual((self.kept, self.office.bodies), ([], [BODY, BODY]))

    def test_a_success_that_is_to_be_told(self) -> None:
        """Where the office can't tell of a success, we do."""
        self.provider.router.aliases["info@office.example"] = ["bob@office.example"]
        origin = self.origin()
        origin.send("bob", more=" NOTIFY=SUCCESS")
        self.carry()
        self.assertIn("accepted by office", origin.replies[0])


class WayTests(PassingCase):
    """What is passed through, and what takes the ordinary way."""

    def kept_at_once(self) -> None:
        """Send a message, which is ours at once."""
        origin = self.origin()
        origin.send("bob")
        self.assertIn("queued as", origin.replies[0])

    def test_no_link(self) -> None:
        """Without a link mail waits as ever."""
        self.make(link=False)
        self.kept_at_once()
        self.office.customer.keep_up([self.office.peer])
        self.carry()
        self.assertEqual((self.kept, self.office.bodies), ([], [BODY]))

    def test_a_link_that_does_not_stay(self) -> None:
        """It may end at any moment."""
        self.make(linger=0)
        self.kept_at_once()

    def test_elsewhere(self) -> None:
        """A message for others as well is committed first, and so is one that is forwarded."""
        origin = self.origin()
        origin.send("bob", to="carol@outside.example")
        self.assertIn("queued as", origin.replies[0])
        self.provider.router.aliases["info@outside.example"] = ["bob@office.example"]
        self.provider.router.ours = {"outside.example"}
        origin = self.origin()
        origin.send(to="info@outside.example")
        self.assertIn("queued as", origin.replies[0])

    def test_on_hold(self) -> None:
        """What an inspector keeps for the operator does not go on."""
        self.inspector.verdict = Verdict(hold="odd")
        self.provider.config = replace(self.provider.config, inspectors=[self.inspector])
        self.kept_at_once()
        self.carry()
        self.assertEqual((len(self.kept), self.office.bodies), (1, []))

    def test_first_in_line(self) -> None:
        """It goes out ahead of mail that waits, and several senders wait at once."""
        for number in range(3):
            self.provider.take(BOB, b"old %d\r\n" % number)
        origins = [self.origin() for _ in range(3)]
        for number, origin in enumerate(origins):
            origin.send("bob", body=b"new %d\r\n" % number)
        self.carry()
        self.assertEqual([origin.codes for origin in origins], [["250"]] * 3)
        self.assertEqual(len(self.office.bodies), 6)
        self.assertEqual(self.kept, [])

    def test_many_senders(self) -> None:
        """A hundred wait in line; others are answered by us, and all mail goes out."""
        origins = [self.origin() for _ in range(110)]
        for origin in origins:
            origin.send("bob")
        self.assertEqual([len(each.codes) for each in origins], [0] * 100 + [1] * 10)
        self.carry()
        self.assertEqual({each.codes[0] for each in origins}, {"250"})
        self.advance(61)
        self.assertEqual((self.kept, len(self.office.bodies)), ([], 110))

    def test_a_message_that_can_not_be_committed(self) -> None:
        """After the link has broken there is no room: the sender has to come again."""
        origin = self.origin()
        origin.send("bob")
        self.provider.spool.failure = OSError("disk full")
        self.cut()
        self.assertEqual(origin.codes, ["451"])
        self.provider.spool.failure = None
        self.assertEqual((self.kept, len(self.provider.runner._active)), ([], 0))


class PaceTests(PassingCase):
    """Senders and the office, each at its own pace."""

    def test_what_comes_behind_the_dot(self) -> None:
        """It waits as well, and its replies come behind the answer."""
        origin = self.origin()
        origin.send("bob")
        origin.say(b"NOOP\r\nQUIT\r\n")
        self.assertEqual(origin.codes, [])
        self.carry()
        self.assertEqual(origin.codes, ["250", "250", "221"])

    def test_a_sender_that_is_gone(self) -> None:
        """Whatever comes of its message, that is settled: delivered, or kept."""
        for name in ("", "end"):
            self.make()
            origin = self.origin()
            if name:
                self.inspector.refusals[name] = DEFERRED
            origin.send("bob")
            origin.link.connectionLost(Failure(ConnectionDone()))
            self.carry()
            self.assertEqual(len(self.kept) + len(self.office.bodies), 1)
            self.assertEqual(len(self.provider.runner._active), 0)

    def test_large_content(self) -> None:
        """It goes on when the office has taken the envelope."""
        origin = self.origin()
        origin.send("bob", body=LARGE)
        self.carry()
        self.assertIn("accepted by office", origin.replies[0])
        self.assertEqual(self.office.bodies, [LARGE])

    def is_believed(self, seconds: float) -> bool:
        """Let large content come late; returns whether the office believes that a sender waits."""
        self.make()
        self.origin().send("bob", body=LARGE)
        while "recipient" not in self.inspector.asked:
            self.assertTrue(self.wires[0].carry())
        self.provider.clock.advance(seconds)
        self.carry()
        session = self.inspector._session
        assert session is not None
        self.assertEqual(session.is_acknowledged, not session.sender_waits)
        return session.sender_waits

    def test_late_content(self) -> None:
        """The office does not refuse any more what can't be refused in time."""
        self.assertEqual((self.is_believed(44), self.is_believed(46)), (True, False))


class CutTests(PassingCase):
    """The link breaks at every octet."""

    def pass_one(self, left: int, **refusals: Reply) -> tuple[str, bool]:
        """Cut the link after so many octets, and let it come again.

        Returns the code that the sender heard, and whether there were so many octets.
        """
        self.cut()
        self.make()
        self.inspector.refusals.update(refusals)
        wire = self.wires[0]
        wire.left = left
        origin = self.origin()
        origin.send("bob")
        self.carry()
        was_cut = wire.is_cut
        self.advance(70)
        (code,) = origin.codes
        return code, was_cut

    def test_everywhere(self) -> None:
        """Exactly one copy, and exactly one answer."""
        for left in count(1):
            code, was_cut = self.pass_one(left)
            self.assertEqual(code, "250", left)
            self.assertEqual((self.kept, self.office.bodies), ([], [BODY]), left)
            if not was_cut:
                break
        self.assertGreater(left, 400)

    def test_refused_everywhere(self) -> None:
        """A refusal is the sender's, or a notice of ours where it was not heard; never both."""
        seen: Counter[str] = Counter()
        for left in range(1, 1000, 7):
            code, was_cut = self.pass_one(left, end=GTUBE)
            seen[code] += 1
            self.assertEqual(len(self.provider.spool.notices), int(code == "250"), left)
            self.assertEqual(self.office.bodies, [], left)
            if not was_cut:
                break
        self.assertEqual(set(seen), {"250", "550"})


class HostileOfficeTests(PassingCase):
    """An office that wants to do harm."""

    def answers(self, reply: bytes) -> list[str]:
        """What a sender hears where the office says this of its message."""
        self.make()
        origin = self.origin()
        origin.send("bob")
        wire = self.wires[0]

        def lied(octets: bytes) -> bytes:
            found = octets.find(b"250 2.0.0 OK queued")
            return octets if found < 0 else octets[:found] + reply + b"\r\n"

        wire.transmitted = lied  # type: ignore[method-assign]
        self.carry()
        self.advance(61)
        return origin.replies

    def test_silence(self) -> None:
        """A sender waits for a minute, and no longer."""
        self.wires[0].is_dead = True
        origins = [self.origin() for _ in range(5)]
        for origin in origins:
            origin.send("bob")
        self.provider.clock.advance(59.9)
        self.assertEqual([origin.codes for origin in origins], [[]] * 5)
        self.provider.clock.advance(0.1)
        self.assertEqual([origin.codes for origin in origins], [["250"]] * 5)
        self.assertEqual(len(self.kept), 5)

    def test_words(self) -> None:
        """What it says is printable, short, in one line, and a refusal of content."""
        for reply, expected in {
            b"550 5.7.1 go \x1b[31maway\x08 \xc3\xa4 \xff": (
                "550 5.7.1 office refused it: go [31maway"
            ),
            b"550-5.7.1 one\r\n550 5.7.1 two": "550 5.7.1 office refused it: one two",
            b"554 " + b"x" * 400: f"554 5.0.0 office refused it: {'x' * 200}...",
            b"530 5.7.0 Log in": "554 5.7.0 office refused it: Log in",
            b"599 5.5.1 What?": "554 5.0.0 office refused it: What?",
            b"550 2.0.0 Fine": "550 5.0.0 office refused it: 2.0.0 Fine",
            b"550": "550 5.0.0 office refused it",
            b"550 5.1.1 at 192.168.7.1, fd00::1 and 192.0.43.10": (
                "550 5.1.1 office refused it: at (address), (address) and 192.0.43.10"
            ),
            b"550 5.1.1 OFFICE.example says 10:30 and 1.2.3": (
                "550 5.1.1 office refused it: (host) says 10:30 and 1.2.3"
            ),
        }.items():
            self.assertEqual(self.answers(reply), [expected])

    def test_no_answers(self) -> None:
        """What is neither yes nor no leaves the message with us, whatever it is."""
        for reply in (
            b"",
            b"354 go on",
            b"hello",
            b"421 4.3.2 bye",
            b"250-",
            b"999 x",
            b"503 5.5.1 no",
        ):
            replies = self.answers(reply)
            self.assertEqual([each[:3] for each in replies], ["250"], reply)
            self.assertIn("queued as", replies[0], reply)

    def test_other_mail(self) -> None:
        """Mail for others goes its way meanwhile."""
        self.wires[0].is_dead = True
        waiting, other = self.origin(), self.origin()
        waiting.send("bob")
        other.send(to="carol@outside.example")
        self.provider.clock.advance(0)
        self.assertEqual((waiting.codes, other.codes), ([], ["250"]))
        self.assertEqual(self.provider.bodies, [BODY])
