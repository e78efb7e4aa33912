"""The inspectors of a session, and what they do to a message."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from mta.interfaces import IHeaderCheck
from mta.link import Link
from mta.mail import Envelope, Mailbox, Notify, Recipient, Reply
from mta.queued import Message, SpoolFull
from mta.session import Session
from mta.settings import JunkUse, ListenerTLS, Service
from mta.smtp.authors import AuthorCheck
from mta.smtp.errors import Refusal
from mta.smtp.field_edits import EditedSection
from mta.smtp.forwarding import ForwardLoopCheck
from mta.smtp.receiver import Receiver
from mta.smtp.receiver_config import ReceiverConfig
from mta.testing import (
    AcceptedMail,
    FakeAccessPolicy,
    FakeClientNames,
    FakeInspector,
    FakeReverseNames,
    FakeRouter,
    FakeTLS,
    FakeUsers,
    MemoryDraft,
    MemorySpool,
    MemoryTransport,
)
from mta.verdict import (
    AddField,
    AddRecipient,
    ChangeField,
    ChangeSender,
    FieldEdit,
    InsertField,
    RemoveRecipient,
    Verdict,
)
from tests.conversations import receiver_config

MESSAGE = b"Subject: test\r\nX-Old: 1\r\n\r\nbody\r\n"
NO = Reply(550, "5.7.1", ("Spam",))
LATER = Reply(451, "4.7.1", ("Ask again",))
OWN, SECTION = b"Received: ours\r\n", b"A: 1\r\nB: 2\r\na: 3\r\n\r\n"


class EditTests(SynchronousTestCase):
    """Fields that are added, changed and removed."""

    def edited(self, *edits: FieldEdit, section: bytes = SECTION) -> bytes:
        """All of the header section after these edits."""
        edited = EditedSection(OWN, section)
        edited.apply(edits)
        self.assertEqual(edited.section, edited.octets.replace(OWN, b""))
        return edited.octets

    def test_each(self) -> None:
        """Positions count with our own field, numbers without it."""
        for edit, expected in (
            (InsertField(0, b"N", b"0"), b"N: 0\r\n" + OWN + SECTION),
            (InsertField(-1, b"N", b"0"), b"N: 0\r\n" + OWN + SECTION),
            (InsertField(1, b"N", b"0"), OWN + b"N: 0\r\n" + SECTION),
            (InsertField(99, b"N", b"0"), OWN + b"A: 1\r\nB: 2\r\na: 3\r\nN: 0\r\n\r\n"),
            (AddField(b"N", b"0"), OWN + b"A: 1\r\nB: 2\r\na: 3\r\nN: 0\r\n\r\n"),
            (ChangeField(b"A", 2, b"x"), OWN + b"A: 1\r\nB: 2\r\nA: x\r\n\r\n"),
            (ChangeField(b"a", 1), OWN + b"B: 2\r\na: 3\r\n\r\n"),
            (ChangeField(b"A", 3), OWN + SECTION),
            (ChangeField(b"A", 3, b"x"), OWN + b"A: 1\r\nB: 2\r\na: 3\r\nA: x\r\n\r\n"),
            (ChangeField(b"Received", 1), OWN + SECTION),
            (ChangeField(b"B", 1, b"x", b""), OWN + b"A: 1\r\nB:x\r\na: 3\r\n\r\n"),
        ):
            self.assertEqual(self.edited(edit), expected, edit)

    def test_in_order(self) -> None:
        """Each edit finds what the one before it has left."""
        edits = (ChangeField(b"A", 1), ChangeField(b"A", 1, b"x"), AddField(b"N", b"0"))
        self.assertEqual(self.edited(*edits), OWN + b"B: 2\r\nA: x\r\nN: 0\r\n\r\n")
        self.assertEqual(self.edited(), OWN + SECTION)

    def test_what_others_have_changed(self) -> None:
        """Each inspector counts the fields that came, and its own."""
        for first, second, expected in (
            ([InsertField(0, b"A", b"x")], [ChangeField(b"A", 1)], b"A: x\r\n|B: 2\r\na: 3\r\n"),
            ([ChangeField(b"A", 1)], [ChangeField(b"A", 2, b"x")], b"|B: 2\r\nA: x\r\n"),
            ([ChangeField(b"A", 1)], [ChangeField(b"A", 1, b"x")], b"|A: x\r\nB: 2\r\na: 3\r\n"),
            ([ChangeField(b"A", 1)], [ChangeField(b"A", 1)], b"|B: 2\r\na: 3\r\n"),
            (
                [InsertField(1, b"N", b"0")],
                [InsertField(1, b"M", b"0")],
                b"|M: 0\r\nN: 0\r\nA: 1\r\nB: 2\r\na: 3\r\n",
            ),
            (
                [InsertField(1, b"N", b"0"), ChangeField(b"B", 1)],
                [InsertField(3, b"M", b"0")],
                b"|N: 0\r\nA: 1\r\nM: 0\r\na: 3\r\n",
            ),
            (
                [AddField(b"N", b"0")],
                [AddField(b"N", b"1"), ChangeField(b"N", 1, b"2")],
                b"|A: 1\r\nB: 2\r\na: 3\r\nN: 0\r\nN: 2\r\n",
            ),
        ):
            edited = EditedSection(OWN, SECTION)
            edited.apply(first)
            edited.apply(second)
            self.assertEqual(edited.octets, expected.replace(b"|", OWN) + b"\r\n", (first, second))

    def test_on_top_and_below(self) -> None:
        """What goes on top needs no look at the other fields; what follows it does."""
        edited = EditedSection(OWN, SECTION)
        edited.apply([InsertField(0, b"X", b"1"), InsertField(-1, b"Y", b"2")])
        self.assertEqual(edited.octets, b"Y: 2\r\nX: 1\r\n" + OWN + SECTION)
        self.assertEqual(edited.section, b"Y: 2\r\nX: 1\r\n" + SECTION)
        edited.apply([ChangeField(b"B", 1), AddField(b"Z", b"3")])
        self.assertEqual(edited.octets, b"Y: 2\r\nX: 1\r\n" + OWN + b"A: 1\r\na: 3\r\nZ: 3\r\n\r\n")

    def test_what_is_no_field_stays_behind_them(self) -> None:
        """Text without an empty line before it, and a field that is cut at the bound."""
        for section, expected in (
            (b"A: 1\r\nhello\r\n\r\n", b"A: 1\r\nN: 0\r\nhello\r\n\r\n"),
            (b"A: 1\r\nB: 2", b"A: 1\r\nN: 0\r\nB: 2"),
            (b"", b"N: 0\r\n"),
        ):
            self.assertEqual(self.edited(AddField(b"N", b"0"), section=section), OWN + expected)

    def test_one_field(self) -> None:
        """No value makes another field, or ends the header section."""
        for value in (b"a\nb", b"a\r\n b\r\n", b"a\rX: y", b"a\n\n\nB: c", b"a\0\r\n"):
            octets = self.edited(AddField(b"N", value), section=b"\r\n")
            fields = octets.removeprefix(OWN).removesuffix(b"\r\n\r\n")
            for line in fields.split(b"\r\n")[1:]:
                self.assertTrue(line.startswith((b" ", b"\t")), octets)
            self.assertNotIn(b"\0", octets)
            self.assertEqual(octets.count(b"\n"), octets.count(b"\r\n"))
        for name in (b"", b"N:", b"N\r\nX"):
            self.assertRaises(ValueError, self.edited, AddField(name, b"x"))


class InspectionTestCase(SynchronousTestCase):
    """A client of a receiver with inspectors."""

    def begin(
        self, *inspectors: FakeInspector, spool: MemorySpool | None = None, **changes: object
    ) -> None:
        """A client connects."""
        self.spool, self.accepted = spool or MemorySpool(), AcceptedMail()
        self.transport = MemoryTransport(lenient=True)
        config: ReceiverConfig = receiver_config(self.spool, self.accepted)
        config = replace(config, inspectors=inspectors, **changes)  # type: ignore[arg-type]
        self.link = Link(Receiver(config), Clock(), FakeTLS())
        self.link.ended.addErrback(lambda _: None)
        self.link.makeConnection(self.transport)

    def say(self, *lines: bytes) -> list[str]:
        """The codes of the replies to these lines."""
        self.transport.taken()
        self.link.dataReceived(b"".join(line + b"\r\n" for line in lines))
        return [
            line[:3].decode() for line in self.transport.taken().splitlines() if line[3:4] == b" "
        ]

    def send(self, content: bytes = MESSAGE) -> list[str]:
        """The codes of the replies to a message: MAIL, RCPT, DATA, content."""
        self.say(b"EHLO client.example")
        return self.say(
            b"MAIL FROM:<a@x.example>", b"RCPT TO:<b@mta.example>", b"DATA", content + b"."
        )

    @property
    def section(self) -> bytes:
        """The header section that was committed, without our own field."""
        (draft,) = self.spool.drafts
        return draft.header.partition(b"+0000\r\n")[2]


class InspectionTests(InspectionTestCase):
    """What inspectors see, and what comes of what they say."""

    def test_they_are_what_they_say(self) -> None:
        """All implementations of the seams."""
        self.assertTrue(verifyObject(IHeaderCheck, AuthorCheck(FakeAccessPolicy())))
        self.assertTrue(verifyObject(IHeaderCheck, ForwardLoopCheck(FakeRouter({}))))

    def test_all_of_a_session(self) -> None:
        """From the connection to its end, each thing once and in order."""
        inspector = FakeInspector()
        self.begin(inspector)
        self.assertEqual(self.say(b"FROBNICATE now"), ["500"])
        self.assertEqual(self.send(), ["250", "250", "354", "250"])
        self.assertEqual(self.say(b"QUIT"), ["221"])
        self.assertEqual(
            inspector.seen,
            [
                ("connected", "192.168.1.1"),
                ("unknown", b"FROBNICATE now"),
                ("hello", "client.example"),
                ("message", "a@x.example"),
                ("recipient", "b@mta.example"),
                ("data", None),
                ("header", b"Subject: test\r\nX-Old: 1\r\n\r\n"),
                ("body", b"body\r\n"),
                ("end", b"Subject: test\r\nX-Old: 1\r\n\r\n"),
                ("close", None),
            ],
        )
        (origin,) = inspector.origins
        self.assertEqual((origin.hello, origin.protocol), ("client.example", "ESMTP"))

    def test_the_name_of_the_client(self) -> None:
        """It is known before anything else, and kept with the message."""
        names, inspector = FakeReverseNames({"192.168.1.1": "host.client.example"}), FakeInspector()
        self.begin(inspector, reverse_names=names)
        self.send()
        self.assertEqual(names.asked, ["192.168.1.1"])
        (origin,), (message,) = inspector.origins, self.accepted
        self.assertEqual(origin.name, "host.client.example")
        self.assertEqual(message.origin.name, "host.client.example")
        (session,) = self.accepted.sessions
        self.assertEqual(session.pointer, "host.client.example")

    def test_the_name_of_a_peer(self) -> None:
        """On a turned connection it is not looked up."""
        names = FakeReverseNames({})
        config = replace(
            receiver_config(MemorySpool()), inspectors=[FakeInspector()], reverse_names=names
        )
        link = Link(Receiver(config, turned_peer="office"), Clock(), FakeTLS())
        link.makeConnection(MemoryTransport(lenient=True))
        self.assertEqual(names.asked, [])
        link.close_gently()
        self.assertIsNone(self.successResultOf(link.ended))

    def test_a_field_after_the_last_octet(self) -> None:
        """It is in the message, and the octets of the body were not touched again."""
        first = FakeInspector(Verdict((InsertField(0, b"X-Result", b"pass"),)))
        second = FakeInspector(Verdict((ChangeField(b"X-Old", 1), AddField(b"X-New", b"2"))))
        self.begin(first, second)
        self.assertEqual(self.send(), ["250", "250", "354", "250"])
        (draft,) = self.spool.drafts
        self.assertEqual(draft.data, b"body\r\n")
        self.assertTrue(draft.header.startswith(b"X-Result: pass\r\nReceived: from client.example"))
        self.assertEqual(self.section, b"Subject: test\r\nX-New: 2\r\n\r\n")
        self.assertEqual(
            second.seen[-1], ("end", b"X-Result: pass\r\nSubject: test\r\nX-Old: 1\r\n\r\n")
        )

    def test_a_refusal(self) -> None:
        """At each step it is the reply; the message is forgotten, by the other inspectors too."""
        for step, codes in (
            ("hello", []),
            ("message", ["550", "503", "503", "421"]),
            ("recipient", ["250", "550", "554"]),
            ("data", ["250", "250", "550"]),
            ("header", ["250", "250", "354", "550"]),
            ("body", ["250", "250", "354", "550"]),
            ("end", ["250", "250", "354", "550"]),
        ):
            other, inspector = FakeInspector(), FakeInspector(**{step: NO})
            self.begin(other, inspector)
            if step == "hello":
                self.assertEqual(self.say(b"EHLO client.example"), ["550"])
                self.assertEqual(self.say(b"MAIL FROM:<>"), ["503"])
                continue
            self.assertEqual(self.send()[: len(codes)], codes, step)
            self.assertEqual(self.spool.messages, [])
            self.say(b"RSET")
            self.assertTrue(all(draft.discarded for draft in self.spool.drafts))
            if step != "end":
                self.assertEqual(other.asked.count("abort"), 1, step)
            self.assertEqual(other.asked.count("end") + other.asked.count("abort"), 1, step)
            if step != "message":
                self.assertEqual(inspector.asked.count("abort"), 1, step)

    def test_a_refusal_at_the_first_chunk(self) -> None:
        """What is in the chunk is no command; the transaction has ended."""
        inspector = FakeInspector(data=NO)
        self.begin(inspector)
        self.say(b"EHLO client.example", b"MAIL FROM:<>", b"RCPT TO:<b@mta.example>")
        self.assertEqual(
            self.say(b"BDAT 6\r\nNOOP", b"BDAT 6 LAST\r\nNOOP", b"RSET"), ["550", "503", "250"]
        )
        self.assertEqual(inspector.asked[-2:], ["data", "abort"])
        self.assertTrue(self.spool.drafts[-1].discarded)

    def test_refused_recipients(self) -> None:
        """Inspectors hear of those that others refuse, and may say nothing to that."""
        first, second = FakeInspector(recipient=NO), FakeInspector()
        self.begin(first, second)
        self.say(b"EHLO client.example", b"MAIL FROM:<a@x.example>")
        self.assertEqual(
            self.say(b"RCPT TO:<nobody@mta.example>", b"RCPT TO:<b@mta.example>"), ["550", "550"]
        )
        self.assertEqual(
            first.seen[-2:],
            [("refused", "nobody@mta.example"), ("recipient", "b@mta.example")],
        )
        self.assertEqual(
            second.seen[-2:],
            [("refused", "nobody@mta.example"), ("refused", "b@mta.example")],
        )

    def test_a_client_that_is_not_wanted(self) -> None:
        """It is refused in place of the greeting; after STARTTLS, where none is due, in silence."""
        self.begin(FakeInspector(connected=NO))
        self.assertTrue(self.transport.value().startswith(b"550 5.7.1 Spam"))
        self.assertEqual(self.say(b"EHLO client.example", b"QUIT"), ["503", "221"])
        inspector = FakeInspector()
        self.begin(inspector, tls=ListenerTLS.OPPORTUNISTIC)
        self.say(b"STARTTLS")
        inspector.refusals["connected"] = NO
        self.transport.taken()
        self.link.handshakeCompleted()
        self.assertEqual(self.transport.taken(), b"")
        self.assertTrue(self.transport.disconnecting)

    def test_an_unknown_command(self) -> None:
        """An inspector may have another reply to it."""
        self.begin(FakeInspector(unknown=LATER))
        self.assertEqual(self.say(b"FROBNICATE"), ["451"])

    def test_a_reason_to_hold(self) -> None:
        """The message is taken, and kept for the operator."""
        reasons = [FakeInspector(Verdict(hold=text)) for text in ("a virus", "", "a rule")]
        self.begin(*reasons)
        self.assertEqual(self.send()[-1], "250")
        (message,) = self.accepted
        self.assertEqual(message.on_hold, "a virus; a rule")

    def test_a_message_that_is_discarded(self) -> None:
        """The client hears of nothing; those who have not been asked forget it."""
        last = FakeInspector()
        self.begin(FakeInspector(Verdict(discard=True)), last)
        self.assertEqual(self.send()[-1], "250")
        self.assertEqual((self.accepted, self.spool.messages), ([], []))
        self.assertTrue(self.spool.drafts[-1].discarded)
        self.assertEqual(last.asked[-1], "abort")
        self.assertEqual(self.send()[:2], ["250", "250"])

    def test_another_envelope(self) -> None:
        """Each inspector changes what those before it have left."""
        b, c, d = (Mailbox(name, "mta.example") for name in "bcd")
        x = Mailbox("x", "köln.example")
        never = frozenset({Notify.NEVER})
        self.begin(
            FakeInspector(
                Verdict(envelope_edits=(AddRecipient(Recipient(c)), ChangeSender(x, ret="HDRS")))
            ),
            FakeInspector(
                Verdict(
                    envelope_edits=(
                        RemoveRecipient(replace(b, local_part="B")),
                        AddRecipient(Recipient(d, never)),
                        AddRecipient(Recipient(d)),
                        ChangeSender(x, envid="7"),
                    )
                )
            ),
        )
        self.send()
        (message,) = self.accepted
        self.assertEqual(
            message.envelope,
            Envelope(
                x,
                (Recipient(c), Recipient(d, never)),
                smtputf8=False,
                ret="HDRS",
                envid="7",
                outside=True,
            ),
        )

    def test_an_address_that_needs_utf8(self) -> None:
        """So does the message then."""
        added = Recipient(Mailbox("ü", "mta.example"))
        self.begin(FakeInspector(Verdict(envelope_edits=(AddRecipient(added),))))
        self.send()
        (message,) = self.accepted
        self.assertTrue(message.envelope.smtputf8)

    def test_no_recipient_is_left(self) -> None:
        """The message goes nowhere, and its client hears of nothing."""
        edit = RemoveRecipient(Mailbox("b", "mta.example"))
        self.begin(FakeInspector(Verdict(envelope_edits=(edit,))))
        self.assertEqual(self.send()[-1], "250")
        self.assertEqual((self.accepted, self.spool.messages), ([], []))

    def test_another_body(self) -> None:
        """The last one counts; nothing is left of the others."""
        self.begin()
        bodies = [self.body(b"one\r\n"), self.body(b"two\r\n")]
        inspectors = [FakeInspector(Verdict(body=each)) for each in bodies]
        spool = self.spool
        self.begin(*inspectors, FakeInspector(), spool=spool)
        self.assertEqual(self.send()[-1], "250")
        (message,) = self.accepted
        draft = spool.drafts[-1]
        self.assertEqual((message.id, draft.data), (draft.id, b"two\r\n"))
        self.assertFalse(draft.discarded)
        self.assertTrue(all(each.discarded for each in bodies))

    def test_another_body_of_no_use(self) -> None:
        """It is forgotten with the message: refused, discarded, or not to be stored."""
        for last, failure, code in (
            (FakeInspector(end=NO), None, "550"),
            (FakeInspector(Verdict(discard=True)), None, "250"),
            (FakeInspector(), SpoolFull("full"), "452"),
        ):
            self.begin()
            spool, body = self.spool, self.body(b"other")
            body.failure = failure
            self.begin(FakeInspector(Verdict(body=body)), last, spool=spool)
            self.assertEqual(self.send()[-1], code)
            self.assertEqual(self.accepted, [])
            self.assertTrue(all(each.discarded for each in spool.drafts), code)

    def body(self, data: bytes) -> MemoryDraft:
        """A draft that an inspector has written."""
        draft = self.spool.draft()
        draft.data = data
        return draft

    def test_the_end_of_the_session(self) -> None:
        """With 421 about content it ends at once, as with 421 to a command."""
        closing = Reply(421, "4.7.0", ("Go away",))
        for step in ("recipient", "header", "end"):
            self.begin(FakeInspector(**{step: closing}))
            self.assertIn("421", self.send())
            self.assertTrue(self.transport.disconnecting, step)
        self.begin(FakeInspector(end=closing), service=Service.LMTP)
        self.say(b"LHLO client.example", b"MAIL FROM:<a@x.example>", b"RCPT TO:<b@mta.example>")
        self.say(b"RCPT TO:<c@mta.example>")
        self.assertEqual(self.say(b"DATA", MESSAGE + b"."), ["354", "421", "421"])
        self.assertTrue(self.transport.disconnecting)

    def test_a_submission(self) -> None:
        """The fields that it lacked are there to be seen, and to be signed."""
        inspector = FakeInspector()
        self.begin(inspector, service=Service.SUBMISSION, access=FakeAccessPolicy())
        self.send()
        seen = dict(inspector.seen)
        self.assertEqual(seen["header"], seen["end"])
        for name in (b"Date: ", b"Message-ID: <", b"From: <a@x.example>"):
            self.assertIn(name, seen["header"])

    def test_the_transaction_ends(self) -> None:
        """Whatever ends it, the message is aborted once."""
        for end in (b"RSET", b"EHLO again.example", b"QUIT"):
            inspector = FakeInspector()
            self.begin(inspector)
            self.say(b"EHLO client.example", b"MAIL FROM:<>", b"RCPT TO:<b@mta.example>", end)
            self.assertEqual(inspector.asked.count("abort"), 1, end)

    def test_none(self) -> None:
        """Without inspectors all is as it is: unknown commands, messages, refused content."""
        self.begin()
        self.assertEqual(self.say(b"FROBNICATE"), ["500"])
        self.assertEqual(self.send(), ["250", "250", "354", "250"])
        self.assertEqual(self.send(b"Subject: x\r\n\r\na\rb\r\n")[-1], "554")
        self.assertEqual(len(self.accepted), 1)

    def test_back_pressure(self) -> None:
        """No more is read while an inspector works; a connection that is lost then aborts."""
        inspector = FakeInspector()
        inspector.ready = Deferred()
        self.begin(inspector)
        self.say(b"EHLO client.example", b"MAIL FROM:<>", b"RCPT TO:<b@mta.example>", b"DATA")
        self.link.dataReceived(b"\r\n" + b"x" * 5000 + b"\r\n")
        self.link.dataReceived(b"y" * 100_000)
        self.assertEqual(inspector.asked.count("body"), 1)
        self.assertTrue(self.link.wire)
        self.link.connectionLost(Failure(ConnectionDone()))
        inspector.ready.callback(None)
        self.assertEqual(inspector.asked[-2:], ["abort", "close"])
        self.assertTrue(self.spool.drafts[-1].discarded)

    def test_one_that_has_nothing_to_look_at(self) -> None:
        """It is not asked again for this message."""

        class Choosy(FakeInspector):
            """Looks at no message."""

            async def message(self, *what: object) -> None:  # type: ignore[override]
                self._see("message", None)

        inspector = Choosy()
        self.begin(inspector)
        self.assertEqual(self.send()[-1], "250")
        self.assertEqual(inspector.asked, ["connected", "hello", "message"])

    def test_checks_of_header_sections(self) -> None:
        """Each sees the envelope and the header section; the first refusal counts."""

        @implementer(IHeaderCheck)
        class Check:
            """Refuses by a line."""

            def __init__(self, line: bytes, reply: Reply) -> None:
                self.line, self.reply = line, reply

            def check(self, session: Session, envelope: Envelope, section: bytes) -> None:
                if self.line in section and envelope.recipients:
                    raise Refusal(self.reply)

        checks: Sequence[Check] = [Check(b"X-Old: 1", NO), Check(b"Subject", LATER)]
        for content, code in ((MESSAGE, "550"), (b"Subject: x\r\n", "451"), (b"\r\n", "250")):
            self.begin(checks=checks)
            self.say(b"FROBNICATE")
            self.assertEqual(self.send(content)[-1], code, content)

    def test_users_are_checked(self) -> None:
        """By whatever way they log in."""
        policy = FakeAccessPolicy()
        self.begin(checks=[AuthorCheck(policy)], access=policy, users=FakeUsers())
        self.assertEqual(self.send(b"From: boss@mta.example\r\n\r\n")[-1], "250")


class JunkTests(InspectionTestCase):
    """Mail that inspectors take for junk."""

    JUNK = Verdict((InsertField(0, b"X-Result", b"bad"),), junk="not from there")

    def sent(self, use: JunkUse, *more: FakeInspector) -> Message:
        """The message, as it was accepted."""
        self.begin(FakeInspector(self.JUNK), *more, junk=use)
        content = MESSAGE.replace(b"X-Old", b"x-spam: no\r\nX-Old")
        self.assertEqual(self.send(content)[-1], "250")
        (message,) = self.accepted
        return message

    def test_the_mark(self) -> None:
        """It is on top, once, whatever is done with the mail."""
        for use in JunkUse:
            self.sent(use)
            (draft,) = self.spool.drafts
            self.assertTrue(draft.header.startswith(b"X-Spam: Yes\r\nX-Result: bad\r\nReceived: "))
            self.assertEqual(draft.header.lower().count(b"x-spam"), 1)

    def test_the_folder(self) -> None:
        """Only with the origin does the agent know; only there it is."""
        self.assertEqual(
            {use: self.sent(use).origin.is_junk for use in JunkUse},
            {JunkUse.HEADER: False, JunkUse.FOLDER: True, JunkUse.HOLD: False},
        )

    def test_the_hold(self) -> None:
        """The operator reads why, of all that had a reason."""
        self.assertEqual(self.sent(JunkUse.FOLDER).on_hold, "")
        more = FakeInspector(Verdict(junk="listed", hold="a virus"))
        message = self.sent(JunkUse.HOLD, more)
        self.assertEqual(message.on_hold, "a virus; junk: not from there; listed")


class ForwardedTests(InspectionTestCase):
    """Clients that a proxy tells of."""

    TOLD = b"XFORWARD ADDR=198.51.100.7 HELO=spike NAME=spike.example"

    def converse(self, inspector: FakeInspector, told: bytes = TOLD) -> list[str]:
        """A message of such a client; the codes of the replies."""
        self.begin(inspector, names=FakeClientNames(teller="192.168.1.1"))
        self.say(b"EHLO proxy.example")
        replies = self.say(told, b"MAIL FROM:<a@x.example>", b"RCPT TO:<b@mta.example>", b"DATA")
        return replies + (self.say(MESSAGE + b".") if replies[-1] == "354" else [])

    def test_in_place_of_the_proxy(self) -> None:
        """The client is shown as a session of its own, which ends with its message."""
        inspector = FakeInspector()
        self.assertEqual(self.converse(inspector), ["250", "250", "250", "354", "250"])
        self.assertEqual(
            inspector.asked,
            [
                *("connected", "hello", "connected", "hello"),
                *("message", "recipient", "data", "header", "body", "end", "close"),
            ],
        )
        self.assertEqual(inspector.seen[2:4], [("connected", "198.51.100.7"), ("hello", "spike")])
        self.assertEqual(self.say(b"MAIL FROM:<a@x.example>", b"RSET"), ["250", "250"])
        self.assertEqual(inspector.asked[11:], ["message", "abort"])

    def test_a_client_without_a_name(self) -> None:
        """Nothing is shown that was not told."""
        inspector = FakeInspector()
        self.converse(inspector, b"XFORWARD ADDR=198.51.100.7")
        self.assertEqual(inspector.asked[:4], ["connected", "hello", "connected", "message"])

    def test_a_client_of_its_own(self) -> None:
        """What comes from the proxy's own users is looked at as its mail."""
        inspector = FakeInspector()
        self.converse(inspector, self.TOLD + b" SOURCE=LOCAL")
        self.assertEqual(inspector.asked[:3], ["connected", "hello", "message"])

    def test_nothing_to_look_at(self) -> None:
        """Its session ends at once."""
        inspector = FakeInspector()
        inspector.message = _no_message  # type: ignore[method-assign, assignment]
        self.assertEqual(self.converse(inspector)[-1], "250")
        self.assertEqual(inspector.asked[2:], ["connected", "hello", "close"])

    def test_refusals(self) -> None:
        """They end that client's transaction; a good-bye does not end the proxy's connection."""
        closing = Reply(421, "4.7.0", ("Good-bye",))
        for method, codes in (
            ("message", ["250", "451", "503", "503"]),
            ("recipient", ["250", "250", "451", "554"]),
            ("data", ["250", "250", "250", "451"]),
            ("header", ["250", "250", "250", "354", "451"]),
            ("end", ["250", "250", "250", "354", "451"]),
        ):
            inspector = FakeInspector(**{method: closing})
            self.assertEqual(self.converse(inspector), codes, method)
            self.assertFalse(self.transport.disconnecting)
            self.assertEqual(self.say(b"RSET", b"NOOP"), ["250", "250"])
            self.assertEqual(inspector.asked.count("close"), 1, method)
        inspector = FakeInspector(message=NO)
        self.assertEqual(self.converse(inspector)[:2], ["250", "550"])

    def test_refused_at_its_beginning(self) -> None:
        """The client's connection is refused as its MAIL is."""
        inspector = FakeInspector()
        self.begin(inspector, names=FakeClientNames(teller="192.168.1.1"))
        self.say(b"EHLO proxy.example")
        inspector.refusals["connected"] = Reply(421, "4.7.0", ("Good-bye",))
        self.assertEqual(self.say(self.TOLD, b"MAIL FROM:<a@x.example>"), ["250", "451"])
        self.assertEqual(inspector.asked[2:], ["connected", "close"])
        del inspector.refusals["connected"]
        self.assertEqual(self.say(b"MAIL FROM:<a@x.example>"), ["250"])


async def _no_message(id: str, argument: object, origin: object) -> None:
    """Leave the message alone."""
