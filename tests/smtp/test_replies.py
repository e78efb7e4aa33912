"""Tests of `mta.smtp.replies`."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mta.mail import Reply
from mta.smtp import replies
from mta.smtp.errors import PeerFault, Refusal
from mta.smtp.replies import MAX_TEXT, ReplyParser, encode

# Text that the wire can carry as it is; a first character that can't begin an enhanced code.
PRINTABLE = st.characters(min_codepoint=0x20, exclude_characters="\x7f", exclude_categories=["Cs"])
TEXT = st.builds(str.__add__, st.sampled_from(["", " ", "x", "é"]), st.text(PRINTABLE, max_size=80))


@st.composite
def any_reply(draw: st.DrawFn) -> Reply:
    """A reply with an enhanced code of its own class, or none, and short lines."""
    code = draw(st.integers(200, 599))
    enhanced = ""
    if code // 100 != 3 and draw(st.booleans()):
        detail = st.integers(0, 999)
        enhanced = f"{code // 100}.{draw(detail)}.{draw(detail)}"
    lines = draw(st.lists(TEXT.filter(lambda text: not text[:1].isdigit()), min_size=1, max_size=5))
    return Reply(code, enhanced, tuple(lines))


def read(octets: bytes) -> Reply | None:
    """The reply that the last of these lines completes."""
    parser = ReplyParser()
    reply = None
    for line in octets.removesuffix(b"\r\n").split(b"\r\n"):
        assert reply is None
        reply = parser.feed_line(line)
    return reply


class EncodeTests(SynchronousTestCase):
    """A reply on the wire (RFC 5321 section 4.2)."""

    def test_the_everyday_replies(self) -> None:
        """What a client reads in an everyday dialogue, to the octet."""
        for reply, octets in [
            (replies.service_ready("mail.example.com"), b"220 mail.example.com Service ready"),
            (replies.NO_SUCH_USER, b"550 5.1.1 No such user here"),
            (replies.START_CONTENT, b"354 Start mail input; end with <CRLF>.<CRLF>"),
            (
                replies.closing("mail.example.com"),
                b"221 2.0.0 mail.example.com Service closing transmission channel",
            ),
            (replies.REVERSING, b"250 2.0.0 OK now reversing the connection"),
            (replies.etrn_pending(14), b"253 2.0.0 OK, 14 pending messages for node started"),
        ]:
            self.assertEqual(octets + b"\r\n", encode(reply))

    def test_shutting_down(self) -> None:
        """421 names the host first, as RFC 5321 section 4.2.2 has it."""
        self.assertTrue(encode(replies.shutting_down("a.example")).startswith(b"421 4.3.2 a.ex"))

    def test_lines(self) -> None:
        """All lines but the last have a hyphen, and each has the enhanced code (RFC 2034)."""
        reply = Reply(550, "5.7.1", ("No.", "Never."))
        self.assertEqual(b"550-5.7.1 No.\r\n550 5.7.1 Never.\r\n", encode(reply))

    def test_no_lines(self) -> None:
        """A reply without text is a code and a space."""
        self.assertEqual(b"250 \r\n", encode(Reply(250, "", ())))

    def test_text_cannot_end_its_line(self) -> None:
        """CR, LF and NUL in a text are spaces on the wire: no second reply can hide in it."""
        reply = Reply(550, "", ("a\r\n250 b\0c\x1b",))
        self.assertEqual(b"550 a  250 b c \r\n", encode(reply))

    def test_a_long_line_is_folded_at_a_space(self) -> None:
        """Words stay whole where they can."""
        lines = encode(Reply(250, "2.0.0", ("word " * 150,))).split(b"\r\n")[:-1]
        self.assertEqual([b"250-2.0.0 word", b"250 2.0.0 word"], [line[:14] for line in lines])
        self.assertTrue(all(line.endswith(b"word ") for line in lines))

    @given(st.text(max_size=1500), st.sampled_from(["", "5.123.456"]))
    def test_no_line_is_too_long(self, text: str, enhanced: str) -> None:
        """Each line has at most 512 octets and is UTF-8 of its own; nothing printable is lost."""
        *lines, end = encode(Reply(550, enhanced, (text, text * 9))).split(b"\r\n")
        self.assertEqual(b"", end)
        self.assertTrue(all(len(line) <= 510 for line in lines))
        head = len(f"550 {enhanced} ") if enhanced else len("550 ")
        read_back = "".join(line.decode()[head:] for line in lines)
        if text.isprintable():
            self.assertEqual(text * 10, read_back)

    def test_a_character_is_never_cut(self) -> None:
        """Where there is no space to fold at, the fold is between two characters."""
        text = "x" + "é" * 600
        lines = encode(Reply(250, "", (text,))).split(b"\r\n")[:-1]
        self.assertEqual(text, "".join(line[4:].decode() for line in lines))

    def test_text_that_is_no_unicode(self) -> None:
        """A lone surrogate is replaced, for the reply must go out."""
        self.assertEqual(b"250 a?\r\n", encode(Reply(250, "", ("a\ud800",))))

    def test_stock_replies(self) -> None:
        """Each is one line, and its enhanced code has the class of its code."""
        stock = [value for value in vars(replies).values() if isinstance(value, Reply)]
        self.assertTrue(len(stock) > 40)
        for reply in stock:
            self.assertEqual(1, encode(reply).count(b"\r\n"))
            expected = str(reply.code)[0] if reply.code != 354 else ""
            self.assertEqual(expected, reply.enhanced[:1])


class ReplyParserTests(SynchronousTestCase):
    """A peer's reply, line by line."""

    @given(any_reply())
    def test_inverse(self, reply: Reply) -> None:
        """What was encoded is read as it was."""
        self.assertEqual(reply, read(encode(reply)))

    def test_tolerated(self) -> None:
        """Text and even the space before it may be missing."""
        for line, reply in [
            (b"250", Reply(250, "", ("",))),
            (b"250 ", Reply(250, "", ("",))),
            (b"250\tok", Reply(250, "", ("ok",))),
            (b"250 2.0.0", Reply(250, "2.0.0", ("",))),
            (b"250 caf\xe9", Reply(250, "", ("caf\N{REPLACEMENT CHARACTER}",))),
            (b"599 odd", Reply(599, "", ("odd",))),
        ]:
            self.assertEqual(reply, ReplyParser().feed_line(line))

    def test_enhanced_code(self) -> None:
        """Only a code of the reply's own class is one, and only before a space or the end."""
        for line, enhanced, text in [
            (b"550 5.1.1 no", "5.1.1", "no"),
            (b"550 4.1.1 no", "", "4.1.1 no"),
            (b"354 3.1.1 go", "", "3.1.1 go"),
            (b"250 2.0.0x", "", "2.0.0x"),
            (b"250 2.0.0\n", "", "2.0.0 "),
            (b"250 2.0.1234 x", "", "2.0.1234 x"),
        ]:
            reply = Reply(int(line[:3]), enhanced, (text,))
            self.assertEqual(reply, ReplyParser().feed_line(line))

    def test_the_first_enhanced_code_counts(self) -> None:
        """A line without the code, or with another one, keeps its text."""
        reply = read(b"550-see\r\n550-5.7.1 policy\r\n550 5.7.26 also\r\n")
        self.assertEqual(Reply(550, "5.7.1", ("see", "policy", "5.7.26 also")), reply)

    def test_control_characters(self) -> None:
        """A peer can't write lines of its own into a log or a notice."""
        reply = ReplyParser().feed_line(b"550 a\nX-Forged: b\rc\0")
        self.assertEqual(Reply(550, "", ("a X-Forged: b c ",)), reply)

    def test_reply_after_reply(self) -> None:
        """The parser keeps nothing of a reply that is complete."""
        parser = ReplyParser()
        parser.feed_line(b"250-2.1.0 a")
        parser.feed_line(b"250 2.1.0 b")
        self.assertEqual(Reply(354, "", ("go",)), parser.feed_line(b"354 go"))

    def test_garbage(self) -> None:
        """What has no reply code is no reply."""
        for line in (b"", b"25", b"250OK", b"2500", b"150 x", b"650 x", b" 250 x", b"+OK"):
            self.assertRaises(PeerFault, ReplyParser().feed_line, line)

    def test_an_empty_line_inside_a_reply(self) -> None:
        """It is a line of the reply; before the first line it is none."""
        parser = ReplyParser()
        for line in (b"250-a", b"", b"250-"):
            self.assertIsNone(parser.feed_line(line))
        self.assertEqual(Reply(250, "", ("a", "", "", "b")), parser.feed_line(b"250 b"))
        self.assertRaises(PeerFault, parser.feed_line, b"")

    def test_empty_lines_without_end(self) -> None:
        """They count as lines."""
        parser = ReplyParser()
        parser.feed_line(b"250-a")
        for _ in range(99):
            parser.feed_line(b"")
        self.assertRaises(PeerFault, parser.feed_line, b"")

    def test_codes_differ(self) -> None:
        """All lines of a reply have one code."""
        parser = ReplyParser()
        parser.feed_line(b"250-a")
        self.assertRaises(PeerFault, parser.feed_line, b"550 b")

    def test_a_long_reply_is_cut(self) -> None:
        """It is kept for each recipient: 2 KiB of it, in whatever lines it comes."""
        for lines in ([b"x" * 2000] * 99, [b"x" * 100] * 99, [b"x" * 5000]):
            parser = ReplyParser()
            for line in lines:
                self.assertIsNone(parser.feed_line(b"550-5.1.1 " + line))
            reply = parser.feed_line(b"550 5.1.1 the end")
            assert reply is not None
            self.assertTrue(reply.lines[-1].endswith("..."))
            self.assertLess(sum(map(len, reply.lines)), MAX_TEXT + 10)
            self.assertEqual((reply.code, reply.enhanced), (550, "5.1.1"))
            self.assertEqual(parser.feed_line(b"250 after it"), Reply(250, "", ("after it",)))

    def test_endless_reply(self) -> None:
        """A hundred lines are a reply; more are an attack on our memory."""
        parser = ReplyParser()
        for _ in range(99):
            self.assertIsNone(parser.feed_line(b"250-more"))
        reply = parser.feed_line(b"250 last")
        assert reply is not None
        self.assertEqual(100, len(reply.lines))
        for _ in range(100):
            parser.feed_line(b"250-more")
        self.assertRaises(PeerFault, parser.feed_line, b"250 last")

    @given(st.lists(st.binary(max_size=40) | st.from_regex(rb"[2-5]\d\d[ -].*"), max_size=8))
    def test_only_peer_fault(self, lines: list[bytes]) -> None:
        """Whatever a peer says, it is a reply or its fault."""
        parser = ReplyParser()
        for line in lines:
            try:
                reply = parser.feed_line(line)
            except PeerFault:
                return
            if reply is not None:
                self.assertNotIn("\n", str(reply))


class RefusalTests(SynchronousTestCase):
    """A refusal carries its reply."""

    def test_text(self) -> None:
        """In a log it reads as the reply that goes out."""
        refusal = Refusal(replies.NO_SUCH_USER)
        self.assertIs(replies.NO_SUCH_USER, refusal.reply)
        self.assertEqual("550 5.1.1 No such user here", str(refusal))
