"""Our sender against our receiver: what the one sends, the other has."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from mta.link import Link
from mta.mail import NULL_PATH, Body, Envelope, Mailbox, Notify, Recipient, Status
from mta.queued import Delivery, Message
from mta.settings import Limits, Service
from mta.smtp.opening import SenderConfig
from mta.smtp.receiver import Receiver
from mta.smtp.sender import Sender
from mta.testing import (
    AcceptedMail,
    ConnectionPair,
    FakeAccessPolicy,
    FakeMailSource,
    MemorySpool,
    delivery,
)
from tests.conversations import receiver_config

EXTENSIONS = (
    "PIPELINING",
    "SIZE",
    "8BITMIME",
    "SMTPUTF8",
    "CHUNKING",
    "BINARYMIME",
    "DSN",
    "LIMITS",
)
# The manners of sending, by what the receiver does not offer.
MANNERS: dict[str, frozenset[str]] = {
    "chunks": frozenset(),
    "groups": frozenset({"CHUNKING"}),
    "step by step": frozenset({"PIPELINING"}),
}
FINAL = {Status.RELAYED, Status.DELIVERED}


class Pair:
    """A sender and a receiver with a wire between them.

    The receiver's EHLO reply loses the keywords in `hidden` on the way.
    """

    def __init__(
        self,
        deliveries: Iterable[Delivery],
        hidden: Collection[str] = (),
        *,
        service: Service = Service.SMTP,
        limits: Limits | None = None,
    ) -> None:
        self.source = FakeMailSource(*deliveries)
        self.spool, self.access = MemorySpool(), FakeAccessPolicy()
        self.accepted = AcceptedMail()
        self._hidden = hidden
        clock = Clock()
        shared = receiver_config(
            self.spool, self.accepted, service=service, access=self.access, limits=limits
        )
        config = SenderConfig("us.example", lmtp=service is Service.LMTP)
        self.receiver = Link(Receiver(shared), clock)
        self.sender = Link(Sender(self.source, config), clock)
        self.failures: list[Failure] = []
        for link in (self.receiver, self.sender):
            link.ended.addErrback(self.failures.append)
        self._pair = ConnectionPair(self.sender, self.receiver)
        self._pair.transmitted = self._edited  # type: ignore[method-assign]

    def pump(self, most: int | None = None) -> int:
        """Carry writes from the one to the other until there are none, or so many were carried."""
        before = self._pair.carried
        while self._pair.carried - before != most and self._pair.carry_write():
            pass
        return self._pair.carried - before

    def cut(self) -> None:
        """The connection breaks; what was on its way is lost."""
        self._pair.cut()

    def run(self) -> None:
        """Everything, to the end."""
        self.pump()
        assert self._pair.is_closed_by_client, "the sender waits for ever"
        assert self._pair.is_closed_by_server, "the receiver waits for ever"
        self.cut()

    def _edited(self, octets: bytes) -> bytes:
        if not octets.startswith(b"250-mta.example\r\n"):
            return octets
        first, *lines = octets.split(b"\r\n")
        kept = [line for line in lines if line[4:].split(b" ")[0].decode() not in self._hidden]
        return b"\r\n".join([first, *kept])

    def content(self, message: Message) -> bytes:
        """What arrived, without the Received: field of the receiver."""
        (draft,) = (draft for draft in self.spool.drafts if draft.id == message.id)
        return draft.content.partition(b" +0000\r\n")[2]


def mail(
    name: str,
    content: bytes,
    *local_parts: str,
    reverse_path: Mailbox = NULL_PATH,
    body: Body = Body.SEVEN_BIT,
    smtputf8: bool = False,
) -> Delivery:
    """A message to those people at mta.example."""
    recipients = tuple(Recipient(Mailbox(one, "mta.example")) for one in local_parts)
    envelope = Envelope(reverse_path, recipients, body, smtputf8)
    return delivery(id=name, content=content, envelope=envelope)


lines = st.lists(
    st.sampled_from([b"", b".", b"..", b".a", b"From a", b"a.b", b"x" * 1200, b"A: b", b" c"]),
    max_size=8,
).map(b"\r\n".join)
eight_bit = st.lists(st.sampled_from([b"", b".", b"\xc3\xa9", b"\xff", b"a"]), max_size=6).map(
    b"\r\n".join
)
local_parts = st.one_of(
    st.sampled_from(["bob", "a.b", "nobody", "later", "Postmaster"]),
    st.text("ab .\"\\@<>(),;'+=", min_size=1, max_size=12),
)


def same(sent: bytes, arrived: bytes) -> bool:
    """Whether content is the same, but for a last line end that DATA needs."""
    return arrived == sent or arrived == sent + b"\r\n"


class ContentTests(SynchronousTestCase):
    """What is sent arrives, octet by octet."""

    def assert_taken(self, pair: Pair, names: Sequence[str]) -> None:
        """All recipients of all messages were taken, or refused by name."""
        self.assertEqual((pair.failures, pair.source.unreported), ([], []))
        self.assertFalse(pair.source.waiting)
        self.assertEqual(list(pair.source.outcomes), list(names))

    @given(lines, st.lists(local_parts, min_size=1, max_size=5), st.sampled_from(sorted(MANNERS)))
    def test_ascii(self, content: bytes, people: list[str], manner: str) -> None:
        """Any lines, for any local parts that can be quoted, in every manner of sending."""
        pair = Pair([mail(f"M{number}", content, *people) for number in range(2)], MANNERS[manner])
        pair.run()
        self.assert_taken(pair, ["M0", "M1"])
        taken = [one for one in people if one not in ("nobody", "later")]
        for outcomes in pair.source.outcomes.values():
            status = {one: outcome.status for one, outcome in zip(people, outcomes, strict=True)}
            for one in people:
                expected = {"nobody": Status.FAILED, "later": Status.DEFERRED}
                self.assertEqual(status[one], expected.get(one, Status.RELAYED), one)
        for message in pair.accepted:
            arrived = [one.forward_path.local_part for one in message.envelope.recipients]
            self.assertEqual(arrived, list(dict.fromkeys(taken)))
            self.assertTrue(same(content, pair.content(message)), pair.content(message))
        self.assertEqual(len(pair.accepted), 2 if taken else 0)

    @given(
        st.sampled_from([b"", b"MIME-Version: 1.0\r\n", b"Subject: \xc3\xa9\r\n"]),
        eight_bit,
        st.sets(st.sampled_from(EXTENSIONS)),
    )
    @settings(max_examples=200)
    def test_eight_bits(self, header: bytes, body: bytes, hidden: set[str]) -> None:
        """Unchanged to who takes them; to others in 7 bits, or not at all (RFC 6152)."""
        content = header + b"\r\n" + body
        pair = Pair([mail("M", content, "bob")], hidden)
        pair.run()
        self.assert_taken(pair, ["M"])
        (outcome,) = pair.source.outcomes["M"]
        if outcome.status is Status.RELAYED:
            (message,) = pair.accepted
            arrived = pair.content(message)
            if "8BITMIME" in hidden:
                self.assertTrue(arrived.isascii())
            if content.isascii() or "8BITMIME" not in hidden:
                self.assertTrue(same(content, arrived), arrived)
        else:
            self.assertEqual(outcome.reply.enhanced, "5.6.3")
            self.assertIn("8BITMIME", hidden)
            self.assertEqual(pair.accepted, [])

    @given(st.binary(max_size=100), st.sets(st.sampled_from(EXTENSIONS)))
    @settings(max_examples=200)
    def test_binary(self, body: bytes, hidden: set[str]) -> None:
        """Unchanged by BDAT with BINARYMIME; else in a form that is safe in lines (RFC 3030)."""
        header = b"MIME-Version: 1.0\r\nContent-Type: a/b\r\nContent-Transfer-Encoding: binary\r\n"
        content = header + b"\r\n" + body
        pair = Pair([mail("M", content, "bob", body=Body.BINARY)], hidden)
        pair.run()
        self.assert_taken(pair, ["M"])
        (message,) = pair.accepted
        if {"PIPELINING", "CHUNKING", "BINARYMIME"}.isdisjoint(hidden):
            self.assertEqual(pair.content(message), content)
            self.assertIs(message.envelope.body, Body.BINARY)
        else:
            self.assertTrue(pair.content(message).isascii())
            self.assertIn(b"base64", pair.content(message))

    @given(st.sets(st.sampled_from(EXTENSIONS)))
    @settings(max_examples=300)
    def test_envelopes(self, hidden: set[str]) -> None:
        """Everything of the envelope arrives that the receiver offered to take."""
        bob = Recipient(
            Mailbox("bob", "mta.example"), frozenset({Notify.SUCCESS}), "rfc822;b+ob=@x.example"
        )
        envelope = Envelope(
            Mailbox("alice", "us.example"), (bob,), ret="HDRS", envid="a=+ b", smtputf8=True
        )
        content = b"MIME-Version: 1.0\r\nSubject: \xc3\xa9\r\n\r\n"
        pair = Pair([delivery(id="M", content=content, envelope=envelope)], hidden)
        pair.run()
        self.assert_taken(pair, ["M"])
        if not {"SMTPUTF8", "8BITMIME"}.isdisjoint(hidden):
            code = "5.6.7" if "SMTPUTF8" in hidden else "5.6.3"
            self.assertEqual(pair.source.outcomes["M"][0].reply.enhanced, code)
            return
        (message,) = pair.accepted
        arrived = message.envelope
        self.assertEqual(arrived.smtputf8, True)
        self.assertIs(arrived.body, Body.EIGHT_BIT)
        if "DSN" in hidden:
            self.assertEqual((arrived.ret, arrived.envid), ("", ""))
            self.assertEqual(arrived.recipients, (Recipient(bob.forward_path),))
        else:
            self.assertEqual((arrived.ret, arrived.envid), ("HDRS", "a=+ b"))
            self.assertEqual(arrived.recipients, (bob,))

    def test_internationalised_addresses(self) -> None:
        """RFC 6531."""
        pair = Pair([mail("M", b"\r\n", "jürgen", "δοκιμή", smtputf8=True)])
        pair.run()
        (message,) = pair.accepted
        arrived = [one.forward_path.local_part for one in message.envelope.recipients]
        self.assertEqual(arrived, ["jürgen", "δοκιμή"])

    def test_large_messages(self) -> None:
        """Larger than what goes ahead of replies, and larger than any buffer."""
        content = b"Subject: x\r\n\r\n" + b".x\r\n" * 400_000
        for hidden in MANNERS.values():
            pair = Pair([mail(name, content, "bob") for name in ("A", "B")], hidden)
            pair.run()
            self.assert_taken(pair, ["A", "B"])
            self.assertEqual([pair.content(one) == content for one in pair.accepted], [True] * 2)

    def test_many_messages(self) -> None:
        """In order, on one connection, whatever goes ahead of what."""
        names = [f"M{number:03}" for number in range(300)]
        deliveries = [mail(name, name.encode() + b"\r\n", "bob", "nobody") for name in names]
        for hidden in MANNERS.values():
            pair = Pair(deliveries, hidden)
            pair.run()
            self.assert_taken(pair, names)
            arrived = [pair.content(message).decode().strip() for message in pair.accepted]
            self.assertEqual(arrived, names)

    def test_many_recipients(self) -> None:
        """Each one once, however many transactions it takes."""
        people = [f"user{number}" for number in range(250)]
        for limits in (Limits(recipients=1000), Limits(recipients=60)):
            for hidden in ({"LIMITS"}, set[str]()):
                pair = Pair([mail("M", b"\r\n", *people)], hidden, limits=limits)
                pair.run()
                self.assert_taken(pair, ["M"])
                arrived = [
                    one.forward_path.local_part
                    for message in pair.accepted
                    for one in message.envelope.recipients
                ]
                self.assertEqual(sorted(arrived), sorted(people))

    def test_lmtp(self) -> None:
        """A reply for each recipient."""
        for hidden in MANNERS.values():
            deliveries = [mail(name, b"\r\n.\r\n", "bob", "nobody", "carol") for name in "AB"]
            pair = Pair(deliveries, hidden, service=Service.LMTP)
            pair.run()
            self.assert_taken(pair, ["A", "B"])
            for outcomes in pair.source.outcomes.values():
                self.assertEqual(
                    [outcome.status for outcome in outcomes],
                    [Status.DELIVERED, Status.FAILED, Status.DELIVERED],
                )
            self.assertEqual(len(pair.accepted), 2)

    def test_refused_content(self) -> None:
        """A message that is refused does no harm to those around it."""
        loop = mail("loop", b"Received: x\r\n" * 101, "bob")
        good = [mail(name, name.encode() + b"\r\n", "bob") for name in ("one", "two")]
        for hidden in MANNERS.values():
            pair = Pair([good[0], loop, good[1]], hidden)
            pair.run()
            self.assert_taken(pair, ["one", "loop", "two"])
            self.assertEqual(pair.source.outcomes["loop"][0].reply.enhanced, "5.4.6")
            arrived = [pair.content(message) for message in pair.accepted]
            self.assertEqual(arrived, [b"one\r\n", b"two\r\n"])

    def test_content_that_can_not_leave(self) -> None:
        """Content with a bare line end or a NUL is no content to any peer, and harms no other."""
        good = [mail(name, name.encode() + b"\r\n", "bob") for name in ("one", "two")]
        for content in (b"a\n.\nb\r\n", b"a\r.\r\n", b"a\r", b"\0\r\n", b"x" * 300_000 + b"\n"):
            for hidden in MANNERS.values():
                pair = Pair([good[0], mail("bare", content, "bob"), good[1]], hidden)
                pair.run()
                self.assertEqual(pair.source.outcomes["bare"][0].reply.enhanced, "5.6.3")
                self.assertIs(pair.source.outcomes["bare"][0].status, Status.FAILED)
                arrived = [pair.content(message) for message in pair.accepted]
                self.assertEqual(arrived, [b"one\r\n", b"two\r\n"])


class CutTests(SynchronousTestCase):
    """The connection breaks at some point: nothing is lost."""

    def pair(self, hidden: Collection[str], service: Service) -> Pair:
        """Three messages on their way."""
        names = ("A", "B", "C")
        deliveries = [mail(name, name.encode() + b"\r\n", "bob", "nobody") for name in names]
        return Pair(deliveries, hidden, service=service)

    def assert_nothing_lost(self, pair: Pair, place: str) -> None:
        """Each message is with the one or with the other, and everybody knows."""
        self.assertEqual(pair.source.unreported, [], place)
        again = len(pair.source.returned) + len(pair.source.waiting)
        self.assertEqual(len(pair.source.outcomes) + again, 3, place)
        arrived = {pair.content(message)[:1].decode() for message in pair.accepted}
        for name, (outcome, _) in pair.source.outcomes.items():
            if outcome.status in FINAL:
                self.assertIn(name, arrived, place)
            else:
                self.assertIs(outcome.status, Status.DEFERRED, place)
        self.assertEqual(len(pair.accepted), len(arrived), place)
        self.assertEqual(pair.access.sessions, 0, place)

    def test_at_every_write(self) -> None:
        """After each write that was carried."""
        for service in (Service.SMTP, Service.LMTP):
            for manner, hidden in MANNERS.items():
                whole = self.pair(hidden, service).pump()
                self.assertGreater(whole, 4)
                for most in range(whole):
                    pair = self.pair(hidden, service)
                    pair.pump(most)
                    pair.cut()
                    self.assert_nothing_lost(pair, f"{service}, {manner}, {most} of {whole}")

    def test_while_a_message_waits_for_replies_to_others(self) -> None:
        """Also what was taken from the source and not begun is deferred, or goes back."""
        for hidden in MANNERS.values():
            deliveries = [mail(name, b"\r\n" + b"x" * 300_000, "bob") for name in "ABC"]
            pair = Pair(deliveries, hidden)
            whole = pair.pump()
            for most in range(whole):
                pair = Pair(deliveries, hidden)
                pair.pump(most)
                pair.cut()
                self.assertEqual(pair.source.unreported, [])
                again = len(pair.source.returned) + len(pair.source.waiting)
                self.assertEqual(len(pair.source.outcomes) + again, 3)

    def test_while_the_spool_works(self) -> None:
        """What has arrived is brought to its end; the sender can't know, and tries again."""
        for manner, hidden in MANNERS.items():
            pair = self.pair(hidden, Service.SMTP)
            pair.spool.pause()
            pair.pump()
            pair.cut()
            self.assertEqual(pair.accepted, [])
            pair.spool.resume()
            self.assertGreaterEqual(len(pair.accepted), 1, manner)
            self.assert_nothing_lost(pair, manner)
            self.assertIs(pair.source.outcomes["A"][0].status, Status.DEFERRED)
