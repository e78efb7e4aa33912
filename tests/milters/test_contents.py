"""What a filter hears of content, and the changes that it makes."""

from __future__ import annotations

import struct

from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure

from mta.mail import Mailbox, Notify, Recipient
from mta.milters.changes import MAX_EDITS
from mta.milters.packets import MAX_DATA
from mta.queued import SpoolFull
from mta.settings import Milter, Service
from mta.testing import FakeAccessPolicy, MemoryDraft, MemorySpool
from tests.conversations import receiver_config
from tests.milters.filters import CONTINUE, MESSAGE, SOCKET, FilterCase, ScriptedFilter

LEADING_SPACE = 0x100000


def field(name: bytes, value: bytes, number: int | None = None) -> bytes:
    """The data of a change of a field."""
    place = b"" if number is None else struct.pack("!I", number)
    return place + name + b"\0" + value + b"\0"


class ToldTests(FilterCase):
    """Fields and bodies as they are told."""

    def fields(self, section: bytes, wishes: int = 0) -> list[bytes]:
        """The data of each field of a header section."""
        self.setUp()
        self.filter.negotiated = (6, 0x1FF, wishes, b"")
        self.assertEqual(self.run_session(content=section + b"\r\nbody\r\n")[-1], "250")
        return self.filter.told(b"L")

    def test_values(self) -> None:
        """One space is left out, folds are bare LF, and all else is as it came."""
        for octets, plain, spaced in (
            (b"A: b", b"A\0b\0", b"A\0 b\0"),
            (b"A:b", b"A\0b\0", b"A\0b\0"),
            (b"A:  b ", b"A\0 b \0", b"A\0  b \0"),
            (b"A:\tb", b"A\0\tb\0", b"A\0\tb\0"),
            (b"A :b", b"A\0b\0", b"A\0b\0"),
            (b"A:", b"A\0\0", b"A\0\0"),
            (b"A: b\r\n  c\r\n\td", b"A\0b\n  c\n\td\0", b"A\0 b\n  c\n\td\0"),
            (b"A:\r\n b", b"A\0\n b\0", b"A\0\n b\0"),
            (b"A: \xff", b"A\0\xff\0", b"A\0 \xff\0"),
        ):
            self.assertEqual(self.fields(octets + b"\r\n"), [plain], octets)
            self.assertEqual(self.fields(octets + b"\r\n", LEADING_SPACE), [spaced], octets)

    def test_mute_fields(self) -> None:
        """Those that are not answered go out together, and with the end of the header section."""
        self.filter.negotiated = (6, 0x1FF, 0x80, b"")
        self.begin()
        self.hello()
        self.say(b"MAIL FROM:<>", b"RCPT TO:<b@mta.example>")
        (connection,) = self.filter.connections
        before = connection.writes
        self.say(b"DATA", MESSAGE + b".")
        self.assertEqual(self.filter.commands[-6:], b"LLNBEA")
        # DATA, header section, the rest, and that it is over
        self.assertEqual(connection.writes - before, 4)

    def test_what_has_no_room(self) -> None:
        """libmilter takes no more: the rest of the value is not shown."""
        (told,) = self.fields(b"A: " + b"x" * 70000 + b"\r\n")
        self.assertEqual(len(told), MAX_DATA)
        self.assertTrue(told.endswith(b"x\0"))
        self.assertEqual(len(self.kept), 70000 + len(b"A: \r\n\r\nbody\r\n"))

    def test_our_own_field_is_hidden(self) -> None:
        """No filter sees the Received: field of ours."""
        self.assertEqual(self.fields(b"Received: theirs\r\n"), [b"Received\0theirs\0"])

    def test_a_submission(self) -> None:
        """What we add to it is shown, and can be signed."""
        self.begin(service=Service.SUBMISSION, access=FakeAccessPolicy())
        self.hello()
        self.send()
        names = [told.partition(b"\0")[0] for told in self.filter.told(b"L")]
        self.assertEqual(names, [b"Date", b"Message-ID", b"From", b"Subject", b"X-Old"])

    def test_text_without_an_empty_line_before_it(self) -> None:
        """It is body: nothing can be hidden there."""
        self.run_session(content=b"Subject: x\r\nhello\r\n\r\nbody\r\n")
        self.assertEqual(self.filter.told(b"L"), [b"Subject\0x\0"])
        self.assertEqual(self.filter.told(b"B"), [b"hello\r\n\r\nbody\r\n"])

    def test_no_body(self) -> None:
        """Nor is one told; the end has no data."""
        for content in (b"Subject: x\r\n", b"Subject: x\r\n\r\n", b""):
            self.setUp()
            self.assertEqual(self.run_session(content=content)[-1], "250")
            self.assertEqual((self.filter.told(b"B"), self.filter.told(b"E")), ([], [b""]))

    def test_chunks(self) -> None:
        """Dots are not stuffed; chunks are as long as they may be; the end is apart."""
        lines = b"..dot\r\n" + b"x" * 70 + b"\r\n"
        self.run_session(content=b"\r\n" + lines * 3000)
        told = self.filter.told(b"B")
        self.assertEqual([len(each) for each in told[:-1]], [MAX_DATA] * (len(told) - 1))
        self.assertLessEqual(len(told[-1]), MAX_DATA)
        self.assertEqual(b"".join(told), lines[1:] * 3000)
        self.assertEqual(self.filter.told(b"E"), [b""])

    def test_while_it_arrives(self) -> None:
        """A chunk goes out as soon as it is there."""
        self.begin()
        self.hello()
        self.say(b"MAIL FROM:<>", b"RCPT TO:<b@mta.example>", b"DATA")
        self.link.dataReceived(b"\r\n" + b"x" * 998 + b"\r\n")
        self.assertEqual(self.filter.commands[-2:], b"TN")
        for _ in range(70):
            self.link.dataReceived(b"x" * 998 + b"\r\n")
        self.assertEqual(self.filter.commands[-2:], b"NB")

    def test_bdat(self) -> None:
        """Chunks of the client's are joined; RSET between them aborts."""
        self.begin()
        self.hello()
        self.say(b"MAIL FROM:<> BODY=BINARYMIME", b"RCPT TO:<b@mta.example>")
        self.say(b"BDAT 8\r\nA: 1\r\n\r\nBDAT 3\r\nabc")
        self.assertEqual(self.say(b"RSET")[0][:3], "250")
        self.assertEqual(self.filter.commands[-1:], b"A")
        self.say(b"MAIL FROM:<> BODY=BINARYMIME", b"RCPT TO:<b@mta.example>")
        self.transport.taken()
        self.link.dataReceived(b"BDAT 8\r\nA: 1\r\n\r\nBDAT 3\r\nabcBDAT 2 LAST\r\n\0\n")
        self.assertEqual([reply[:3] for reply in self.replies()], ["250"] * 3)
        self.assertEqual(self.filter.told(b"B"), [b"abc\0\n"])

    def test_lmtp(self) -> None:
        """The filter's verdict is the reply for each recipient."""
        self.filter.answers[b"E"] = [b"r"]
        self.begin(service=Service.LMTP)
        self.say(b"LHLO client.example", b"MAIL FROM:<>")
        self.say(b"RCPT TO:<b@mta.example>", b"RCPT TO:<c@mta.example>")
        replies = self.say(b"DATA", MESSAGE + b".")
        self.assertEqual([reply[:3] for reply in replies], ["354", "550", "550"])
        self.assertEqual(self.filter.macros[b"C"]["{daemon_name}"], "lmtp")


class PressureTests(FilterCase):
    """A filter that is slow."""

    def start(self, answers: dict[bytes, list[bytes | None]]) -> None:
        """A client begins to send content."""
        self.filter.answers.update(answers)  # type: ignore[arg-type]
        self.begin()
        self.hello()
        self.say(b"MAIL FROM:<>", b"RCPT TO:<b@mta.example>", b"DATA")

    def test_one_chunk_ahead(self) -> None:
        """No more is told, and no more read, than one chunk beyond the one that is looked at."""
        self.start({b"B": [None]})
        self.link.dataReceived(b"\r\n")
        for _ in range(500):
            self.link.dataReceived(b"x" * 998 + b"\r\n")
        self.assertEqual(self.filter.commands.count(b"B"), 1)
        self.assertGreater(len(self.link.wire), 100_000)
        (connection,) = self.filter.connections
        connection.send(b"c")
        self.assertEqual(self.filter.commands.count(b"B"), 2)

    def test_a_mute_filter(self) -> None:
        """Its connection is full: nothing more is told until it has room."""
        self.filter.negotiated = (6, 0x1FF, 0x80000, b"")
        self.start({})
        (connection,) = self.filter.connections
        connection.producer.pauseProducing()
        self.link.dataReceived(b"\r\n")
        for _ in range(500):
            self.link.dataReceived(b"x" * 998 + b"\r\n")
        self.assertEqual(self.filter.commands.count(b"B"), 1)
        connection.producer.resumeProducing()
        self.assertGreater(self.filter.commands.count(b"B"), 1)
        self.reactor.advance(31)
        self.assertTrue(connection.is_open)

    def test_a_client_that_is_gone(self) -> None:
        """With an answer outstanding: the filter hears good-bye when it has answered."""
        self.start({b"B": [None]})
        self.link.dataReceived(b"\r\n" + (b"x" * 998 + b"\r\n") * 200)
        self.link.connectionLost(Failure(ConnectionDone()))
        (connection,) = self.filter.connections
        while connection.is_open:
            connection.send(b"c")
        self.assertEqual(self.filter.commands[-2:], b"AQ")
        self.assertTrue(self.spool.drafts[-1].discarded)

    def test_an_answer_to_what_was_aborted(self) -> None:
        """It is not taken for the one to the next message."""
        self.filter.answers[b"B"] = [None]
        self.begin()
        self.say(b"EHLO client.example", b"MAIL FROM:<>", b"RCPT TO:<b@mta.example>")
        size = MAX_DATA + 2
        self.link.dataReceived(b"BDAT %d\r\n\r\n" % size + b"x" * MAX_DATA + b"RSET\r\n")
        self.assertEqual(self.filter.commands[-2:], b"BA")
        (connection,) = self.filter.connections
        self.filter.answers[b"M"] = [None]
        self.transport.taken()
        self.link.dataReceived(b"MAIL FROM:<c@x.example>\r\n")
        connection.send(b"r")  # to the chunk
        self.assertEqual(self.transport.taken(), b"")
        connection.send(b"p", b"c")
        self.assertEqual(self.transport.taken()[:3], b"250")

    def test_changes_that_come_fast(self) -> None:
        """Reading stops while they are not taken, and goes on."""
        self.start({b"E": [None]})
        self.spool.pause()
        self.link.dataReceived(MESSAGE + b".\r\n")
        (connection,) = self.filter.connections
        original = MemoryDraft.write

        async def slow(draft: MemoryDraft, piece: bytes) -> None:
            self.assertTrue(connection.is_paused)
            await original(draft, piece)

        self.patch(MemoryDraft, "write", slow)
        connection.send(*[b"b" + b"x" * 60000] * 30)
        self.assertFalse(connection.is_paused)


class ChangeTests(FilterCase):
    """Changes at the end of a message."""

    def changed(self, *answers: bytes, verdict: bytes = CONTINUE, wishes: int = 0) -> str:
        """The reply to content at whose end the filter says this."""
        self.setUp()
        self.filter.negotiated = (6, 0x1FF, wishes, b"")
        self.filter.answers[b"E"] = [[*answers, verdict]]
        return self.run_session()[-1]

    def test_fields(self) -> None:
        """Numbers count without our own field, positions with it; no value removes."""
        for answer, kept in (
            (b"h" + field(b"N", b"1"), b"Subject: test\r\nX-Old: 1\r\nN: 1\r\n"),
            (b"h" + field(b"N", b"1\n\t2"), b"Subject: test\r\nX-Old: 1\r\nN: 1\r\n\t2\r\n"),
            (b"i" + field(b"N", b"1", 1), b"N: 1\r\nSubject: test\r\nX-Old: 1\r\n"),
            (b"i" + field(b"N", b"1", 2), b"Subject: test\r\nN: 1\r\nX-Old: 1\r\n"),
            (b"i" + field(b"N", b"1", 99), b"Subject: test\r\nX-Old: 1\r\nN: 1\r\n"),
            (b"m" + field(b"x-old", b"2", 1), b"Subject: test\r\nx-old: 2\r\n"),
            (b"m" + field(b"X-Old", b"2", 0), b"Subject: test\r\nX-Old: 2\r\n"),
            (b"m" + field(b"X-Old", b"", 1), b"Subject: test\r\n"),
            (b"m" + field(b"X-Old", b"2", 2), b"Subject: test\r\nX-Old: 1\r\nX-Old: 2\r\n"),
            (b"m" + field(b"X-New", b"2", 1), b"Subject: test\r\nX-Old: 1\r\nX-New: 2\r\n"),
            (b"m" + field(b"Received", b"", 1), b"Subject: test\r\nX-Old: 1\r\n"),
        ):
            self.assertEqual(self.changed(answer), "250", answer)
            self.assertEqual(self.kept, kept + b"\r\nbody\r\n", answer)

    def test_above_our_own_field(self) -> None:
        """At position 0."""
        self.changed(b"i" + field(b"N", b"1", 0))
        (draft,) = self.spool.drafts
        self.assertTrue(draft.content.startswith(b"N: 1\r\nReceived: from client.example"))

    def test_leading_space(self) -> None:
        """A filter that keeps it has no second one."""
        self.changed(
            b"h" + field(b"N", b" 1"), b"m" + field(b"X-Old", b"  2", 1), wishes=LEADING_SPACE
        )
        self.assertEqual(self.kept, b"Subject: test\r\nX-Old:  2\r\nN: 1\r\n\r\nbody\r\n")

    def test_recipients(self) -> None:
        """Added with what a filter may say of them, and left out in any case."""
        self.changed(
            b"+<c@mta.example>\0",
            b"+d@mta.example\0",
            b"2<e@mta.example>\0NOTIFY=NEVER ORCPT=rfc822;x@y.example FOO=1\0",
            b"2<f@mta.example>\0",
            b"-<B@MTA.example>\0",
            b"-nobody@mta.example\0",
        )
        (message,) = self.accepted
        c, d, e, f = (Mailbox(name, "mta.example") for name in "cdef")
        self.assertEqual(
            message.envelope.recipients,
            (
                Recipient(c),
                Recipient(d),
                Recipient(e, frozenset({Notify.NEVER}), "rfc822;x@y.example"),
                Recipient(f),
            ),
        )

    def test_the_last_recipient(self) -> None:
        """Without it the message goes nowhere."""
        self.assertEqual(self.changed(b"-<b@mta.example>\0"), "250")
        self.assertEqual(self.accepted, [])

    def test_the_sender(self) -> None:
        """With what a filter may say of it, and nothing else."""
        for answer, path, ret, envid in (
            (b"e<c@x.example>\0", "c@x.example", "", ""),
            (b"ec@x.example\0", "c@x.example", "", ""),
            (b"e<>\0", "", "", ""),
            (b"e<c@x.example>\0RET=HDRS ENVID=7 SIZE=1 BODY=7BIT\0", "c@x.example", "HDRS", "7"),
            ("e<ü@x.example>\0".encode(), "ü@x.example", "", ""),
        ):
            self.assertEqual(self.changed(answer), "250", answer)
            (message,) = self.accepted
            envelope = message.envelope
            self.assertEqual(str(envelope.reverse_path), path)
            self.assertEqual((envelope.ret, envelope.envid), (ret, envid))
            self.assertEqual(envelope.smtputf8, "ü" in path)

    def test_the_body(self) -> None:
        """In many pieces, with another one after it; or none at all."""
        pieces = [b"b" + b"x" * 60000, b"b\r\n", b"b" + b"y" * 60000 + b"\r\n"]
        self.assertEqual(self.changed(*pieces), "250")
        self.assertEqual(self.kept, MESSAGE[:-6] + b"x" * 60000 + b"\r\n" + b"y" * 60000 + b"\r\n")
        self.assertTrue(self.spool.drafts[1].discarded)
        self.assertEqual(self.changed(b"b"), "250")
        self.assertEqual(self.kept, MESSAGE[:-6])

    def test_progress(self) -> None:
        """It means nothing but that the filter lives."""
        self.assertEqual(self.changed(b"p", b"p", b"h" + field(b"N", b"1"), b"p"), "250")
        self.assertIn(b"N: 1\r\n", self.kept)

    def test_changes_without_effect(self) -> None:
        """Of a message that is refused nothing is left."""
        self.assertEqual(self.changed(b"bother\r\n", b"h" + field(b"N", b"1"), verdict=b"r"), "550")
        self.assertTrue(all(draft.discarded for draft in self.spool.drafts))

    def test_accept_with_changes(self) -> None:
        """ACCEPT at the end is as good as CONTINUE."""
        self.assertEqual(self.changed(b"h" + field(b"N", b"1"), verdict=b"a"), "250")
        self.assertIn(b"N: 1\r\n", self.kept)

    def test_what_can_not_be_done(self) -> None:
        """All is read to the verdict, then it is a failure; the next message is told."""
        big = [b"b" + b"x" * 60000 + b"\r\n"] * 17
        for answers in (
            [b"h" + field(b"N:", b"1")],
            [b"h" + field(b"", b"1")],
            [b"hN\0"],
            [b"hN\0001"],
            [b"i\0\0"],
            [b"i" + field(b"N", b"1", 2**32 - 1)],
            [b"m" + field(b"N", b"1", 2**31)],
            [b"h" + field(b"N", b"x" * 262145)],
            [b"h" + field(b"N", b"1")] * (MAX_EDITS + 1),
            [b"+<c@@mta.example>\0"],
            [b"+\0"],
            [b"-c@mta.example"],
            [b"2<c@mta.example>\0NOTIFY=FOO\0"],
            [b"2<c@mta.example>\0NOTIFY=NEVER\0x\0"],
            [b"e<c@>\0"],
            [b"e<c@x.example>\0RET=X\0"],
            [b"ba\nb\r\n"],
            [b"ba\r"],
            [b"b\0\r\n"],
            big,
            [b"x"],
        ):
            self.assertEqual(self.changed(*answers, b"p"), "451", answers[0][:20])
            self.assertEqual(self.results, [("test", "failed")])
            self.assertTrue(all(draft.discarded for draft in self.spool.drafts))
            self.filter.answers.clear()
            self.assertEqual(self.send()[-1], "250")
            self.assertTrue(self.filter.commands.endswith(b"EAMRTLLNBEA"))

    def test_a_binary_body(self) -> None:
        """It needs no lines."""
        self.filter.answers[b"E"] = [[b"b\0\n", b"c"]]
        self.begin()
        self.hello()
        self.say(b"MAIL FROM:<> BODY=BINARYMIME", b"RCPT TO:<b@mta.example>")
        self.say(b"BDAT 4 LAST\r\n\r\nab")
        self.assertTrue(self.kept.endswith(b"\0\n"))

    def test_no_room_for_another_body(self) -> None:
        """The client may try again; the filter does not matter."""

        class FullSpool(MemorySpool):
            """Takes one draft, and nothing for a second one."""

            def draft(self) -> MemoryDraft:
                draft = super().draft()
                if len(self.drafts) % 2 == 0:
                    draft.failure = self.error
                return draft

        for FullSpool.error, code in ((SpoolFull("full"), "452"), (OSError("broken"), "451")):  # type: ignore[attr-defined]
            self.setUp()
            self.spool = FullSpool()
            self.config = receiver_config(self.spool, self.accepted)
            self.filter.answers[b"E"] = [[b"bother\r\n", b"c"]]
            self.assertEqual(self.run_session()[-1], code)
            self.assertTrue(all(draft.discarded for draft in self.spool.drafts))

    def test_several_filters(self) -> None:
        """Each changes what came, and what the ones before it have left."""
        other = self.reactor.filters[2] = ScriptedFilter()
        self.filter.answers[b"E"] = [
            [
                b"i" + field(b"X-Old", b"0", 1),
                b"+<c@mta.example>\0",
                b"bone\r\n",
                b"qfirst\0",
                b"c",
            ]
        ]
        other.answers[b"E"] = [
            [b"m" + field(b"X-Old", b"", 1), b"-<b@mta.example>\0", b"btwo\r\n", b"qsecond\0", b"c"]
        ]
        self.run_session(Milter(SOCKET, "one"), Milter("inet:127.0.0.1:2", "two"))
        self.assertEqual(self.kept, b"X-Old: 0\r\nSubject: test\r\n\r\ntwo\r\n")
        (message,) = self.accepted
        self.assertEqual(message.on_hold, "one: first; two: second")
        self.assertEqual(str(message.envelope.recipients[0].forward_path), "c@mta.example")
