"""XDOCTOR: questions, answers, and what is told."""

from __future__ import annotations

import contextlib
from base64 import b64encode

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mta.mail import Reply
from mta.session import Observation
from mta.smtp import replies
from mta.smtp.conversation import MAX_AUTH_LINE
from mta.smtp.errors import Refusal
from mta.smtp.far_look import (
    MAX_OBSERVATIONS,
    MAX_TEXT,
    UNKNOWN_QUESTION,
    Question,
    answer_in,
    parse,
    reply_of,
    tell_command,
)
from mta.smtp.replies import MAX_OCTETS, encode

FINE = Observation("ok", "the link stands")


def argument(command: str) -> bytes:
    """The argument of a command."""
    return command.partition(" ")[2].encode()


class QuestionTests(SynchronousTestCase):
    """What is asked."""

    def test_commands(self) -> None:
        """A question comes back as it was, with an argument or without."""
        for question in (Question("link"), Question("exchanger", "example.com")):
            self.assertEqual(parse(argument(question.command)), question)

    def test_others(self) -> None:
        """A newer version may know more questions; anything else is a mistake."""
        self.assertEqual(self.refusal(b"ASK weather"), UNKNOWN_QUESTION)
        for octets in (b"", b"ASK", b"ASK link a b", b"ASK LINK", b"TELL", b"TELL ?", b"LINK"):
            self.assertEqual(self.refusal(octets), replies.BAD_ARGUMENT)

    def refusal(self, octets: bytes) -> Reply:
        """The reply to an argument that can't be used."""
        return self.assertRaises(Refusal, parse, octets).reply


class TellTests(SynchronousTestCase):
    """What is told."""

    def test_telling(self) -> None:
        """States and texts arrive, without what a terminal would obey."""
        seen = [FINE, Observation("bad", "port 25:\x1b[2J closed")]
        self.assertEqual(
            parse(argument(tell_command(seen))),
            [FINE, Observation("bad", "port 25:?[2J closed")],
        )

    def test_bounds(self) -> None:
        """As much is told as fits into a line."""
        command = tell_command([Observation("warn", "\\" * 2 * MAX_TEXT)] * 2 * MAX_OBSERVATIONS)
        self.assertLessEqual(len(command) + 2, MAX_AUTH_LINE)
        told = parse(argument(command))
        assert not isinstance(told, Question)
        self.assertGreater(len(told), 5)
        self.assertEqual({len(each.text) for each in told}, {MAX_TEXT})

    def test_what_is_none(self) -> None:
        """Other documents are refused."""
        for document in (
            b"[",
            b"{}1",
            b'[["ok"]]',
            b'[["fine", "x"]]',
            b'[["ok", [1]]]',
            b'[["ok", ""]]',
            b"[1]",
        ):
            octets = b"TELL " + b64encode(document)
            self.assertEqual(self.assertRaises(Refusal, parse, octets).reply, replies.BAD_ARGUMENT)
        self.assertRaises(Refusal, parse, b"TELL " + b64encode(b'[["ok", 1]]'))
        self.assertRaises(Refusal, parse, b"TELL " + b64encode(b"[" * 9000))

    @given(st.binary(max_size=60) | st.binary(max_size=60).map(lambda octets: b"TELL " + octets))
    def test_anything(self, octets: bytes) -> None:
        """It is a question, or observations, or refused."""
        with contextlib.suppress(Refusal):
            parse(octets)


class AnswerTests(SynchronousTestCase):
    """What is answered."""

    def test_answers(self) -> None:
        """Each is a line of its own, short enough for one."""
        answer = [FINE, Observation("bad", "x" * 2 * MAX_TEXT)]
        reply = reply_of(answer)
        self.assertEqual(answer_in(reply), [FINE, Observation("bad", "x" * MAX_TEXT)])
        self.assertLess(max(map(len, encode(reply).split(b"\r\n"))), MAX_OCTETS)

    def test_refusals(self) -> None:
        """What could not be answered is unknown; lines of another form say nothing."""
        self.assertEqual(
            answer_in(UNKNOWN_QUESTION), [Observation("unknown", str(UNKNOWN_QUESTION))]
        )
        reply = Reply(250, "", ("fine", "ok", "ok yes"))
        self.assertEqual(answer_in(reply), [Observation("ok", "yes")])
