"""Filters that are down, silent, or make no sense; and the time that they have."""

from __future__ import annotations

import errno
from unittest.mock import patch

from mta.milters.inspector import UNAVAILABLE
from mta.milters.packets import MAX_PACKET
from mta.milters.replies import TRY_LATER
from mta.settings import Milter, MilterTimeouts, OnFailure
from tests.milters.filters import MESSAGE, SOCKET, FilterCase

STEPS = b"OCHMRTLNBE"
TIMEOUTS = MilterTimeouts(connect=5, command=10, content=100)


class FailureTests(FilterCase):
    """What `on_failure` says, whenever it happens."""

    def break_at(self, step: bytes, on_failure: OnFailure, answer: bytes | None = b"") -> list[str]:
        """The codes of a session in which the filter breaks off at a step."""
        self.setUp()
        self.filter.answers[step] = [answer]
        self.begin(Milter(SOCKET, "test", on_failure=on_failure, timeouts=TIMEOUTS))
        self.hello()
        replies = [reply[:3] for reply in self.session()]
        if answer is None:
            self.reactor.advance(101)
            replies += [reply[:3] for reply in self.replies()]
        return replies

    def session(self) -> list[str]:
        """The replies to a message."""
        return self.say(
            b"MAIL FROM:<a@x.example>", b"RCPT TO:<b@mta.example>", b"DATA", MESSAGE + b"."
        )

    def test_tempfail(self) -> None:
        """The client is to come back: nothing is kept, and nothing lost."""
        for step in STEPS:
            codes = self.break_at(bytes((step,)), OnFailure.TEMPFAIL)
            self.assertIn("451", codes, step)
            self.assertNotIn("550", codes)
            self.assertEqual(self.accepted, [])
            self.assertIn(("test", "failed"), self.results)

    def test_reject(self) -> None:
        """The same for good."""
        for step in STEPS:
            self.assertIn("550", self.break_at(bytes((step,)), OnFailure.REJECT), step)
            self.assertEqual(self.accepted, [])

    def test_accept(self) -> None:
        """Mail passes as if there was no filter: this message, and the others of the session."""
        for step in STEPS:
            codes = self.break_at(bytes((step,)), OnFailure.ACCEPT)
            self.assertEqual(codes, ["250", "250", "354", "250"], step)
            self.assertEqual(self.kept, MESSAGE)
            self.assertEqual(self.session()[-1][:3], "250")
            self.assertEqual(len(self.accepted), 2)

    def test_quarantine(self) -> None:
        """It is kept for the operator: this message, and the others of the session."""
        for step in STEPS:
            codes = self.break_at(bytes((step,)), OnFailure.QUARANTINE)
            self.assertEqual(codes, ["250", "250", "354", "250"], step)
            self.session()
            for message in self.accepted:
                self.assertEqual(
                    message.on_hold, "filter test failed: it closed the connection", step
                )
            self.assertEqual(len(self.accepted), 2)

    def test_at_the_first_recipient(self) -> None:
        """The others fare no better: nothing passes without the filter that has to be there."""
        for on_failure, code in ((OnFailure.TEMPFAIL, "451"), (OnFailure.REJECT, "550")):
            self.setUp()
            self.filter.answers[b"R"] = [b"", b"c"]
            self.begin(Milter(SOCKET, "test", on_failure=on_failure))
            self.hello()
            codes = self.send(MESSAGE, b"a@mta.example", b"b@mta.example")
            self.assertEqual(codes[:3], ["250", code, code])
            self.assertEqual(self.accepted, [])

    def test_at_an_unknown_command(self) -> None:
        """In the midst of a message, too."""
        for on_failure, codes, hold in (
            (OnFailure.TEMPFAIL, ["500", "451", "554"], ""),
            (OnFailure.ACCEPT, ["500", "250", "354", "250"], ""),
            (OnFailure.QUARANTINE, ["500", "250", "354", "250"], "filter test failed: "),
        ):
            self.setUp()
            self.filter.answers[b"U"] = [b""]
            self.begin(Milter(SOCKET, "test", on_failure=on_failure))
            self.hello()
            self.say(b"MAIL FROM:<a@x.example>")
            replies = self.say(b"FROB", b"RCPT TO:<b@mta.example>", b"DATA", MESSAGE + b".")
            found = [reply[:3] for reply in replies][: len(codes)]
            if on_failure is OnFailure.TEMPFAIL:
                codes = ["451", *codes[1:]]  # the reply to the command itself
            self.assertEqual(found, codes)
            self.assertEqual(
                [each.on_hold[:20] for each in self.accepted], [hold] * ("354" in codes)
            )

    def test_between_chunks(self) -> None:
        """The rest of the content is refused."""
        self.filter.answers[b"U"] = [b""]
        self.begin()
        self.hello()
        self.say(b"MAIL FROM:<>", b"RCPT TO:<b@mta.example>")
        self.link.dataReceived(b"BDAT 10\r\nA: 1\r\n\r\nabFROB\r\n")
        self.transport.taken()
        self.link.dataReceived(b"BDAT 2 LAST\r\ncd")
        self.assertEqual(self.replies(), [str(TRY_LATER)])
        self.assertEqual(self.accepted, [])

    def test_silence(self) -> None:
        """The wait has an end at each step."""
        for step in STEPS:
            codes = self.break_at(bytes((step,)), OnFailure.TEMPFAIL, None)
            self.assertIn("451", codes, step)
            self.assertFalse(self.filter.connections[0].is_open)

    def test_down(self) -> None:
        """It can't be reached."""
        for on_failure, reply in (
            (OnFailure.TEMPFAIL, str(TRY_LATER)),
            (OnFailure.REJECT, str(UNAVAILABLE)),
            (OnFailure.ACCEPT, "250 2.1.0 Sender OK"),
        ):
            self.filter.is_down = True
            self.begin(Milter(SOCKET, "test", on_failure=on_failure))
            self.hello()
            self.assertEqual(self.say(b"MAIL FROM:<a@x.example>"), [reply])

    def test_no_socket(self) -> None:
        """There is no free descriptor to reach it with."""
        full = OSError(errno.EMFILE, "Too many open files")
        for kind, socket in (("connectTCP", SOCKET), ("connectUNIX", "unix:/run/filter")):
            for on_failure, reply in (
                (OnFailure.TEMPFAIL, str(TRY_LATER)),
                (OnFailure.ACCEPT, "250 2.1.0 Sender OK"),
            ):
                with patch.object(self.reactor, kind, side_effect=full):
                    self.begin(Milter(socket, "test", on_failure=on_failure))
                    self.hello()
                    self.assertEqual(self.say(b"MAIL FROM:<a@x.example>"), [reply])

    def test_a_message_that_is_half_changed(self) -> None:
        """Changes without a verdict do not count."""
        self.filter.answers[b"E"] = [[b"hN\0001\0", b"bother\r\n"]]
        self.begin(Milter(SOCKET, "test", on_failure=OnFailure.ACCEPT))
        self.hello()
        self.session()
        self.filter.connections[0].lose()
        self.assertEqual(self.kept, MESSAGE)
        self.assertTrue(self.spool.drafts[1].discarded)

    def test_nonsense(self) -> None:
        """Octets that are no packets, and packets that are no answers."""
        for octets in (
            b"\0\0\0\0",
            (MAX_PACKET + 1).to_bytes(4),
            b"\xff\xff\xff\xff",
            b"\0\0\0\x01X",
            b"\0\0\0\x02cc",
            b"\0\0\0\x01h",
            b"HTTP/1.1 400 Bad Request\r\n",
        ):
            self.setUp()
            self.filter.answers[b"M"] = [None]
            self.begin()
            self.hello()
            self.transport.taken()
            self.link.dataReceived(b"MAIL FROM:<>\r\n")
            self.filter.connections[0].protocol.dataReceived(octets)
            self.assertEqual(self.replies(), [str(TRY_LATER)], octets)
            self.assertFalse(self.filter.connections[0].is_open)

    def test_a_new_session(self) -> None:
        """It tries anew."""
        self.break_at(b"E", OnFailure.TEMPFAIL)
        self.filter.answers.clear()
        self.assertEqual(self.run_session()[-1], "250")


class TimeTests(FilterCase):
    """How long a filter may take."""

    def wait(self, command: bytes, seconds: float) -> bool:
        """Tell whether the filter is given up after so long a silence, and not before."""
        self.setUp()
        self.filter.answers[command] = [None]
        self.begin(Milter(SOCKET, "test", timeouts=TIMEOUTS))
        self.hello()
        self.say(b"MAIL FROM:<>", b"RCPT TO:<b@mta.example>", b"DATA", MESSAGE + b".")
        self.reactor.advance(seconds - 0.1)
        self.assertTrue(self.filter.connections[0].is_open, command)
        self.reactor.advance(0.2)
        return not self.filter.connections[0].is_open

    def test_steps(self) -> None:
        """Commands and content have times of their own."""
        for command in b"OCHMR":
            self.assertTrue(self.wait(bytes((command,)), 10), command)
        for command in b"TLNBE":
            self.assertTrue(self.wait(bytes((command,)), 100), command)

    def test_progress(self) -> None:
        """It starts the time anew, but for no longer than the client waits."""
        self.max_end = 250.0
        self.filter.answers[b"E"] = [None]
        self.begin(Milter(SOCKET, "test", timeouts=TIMEOUTS))
        self.hello()
        self.say(b"MAIL FROM:<>", b"RCPT TO:<b@mta.example>", b"DATA", MESSAGE + b".")
        (connection,) = self.filter.connections
        connection.send(b"bother\r\n")
        for _ in range(4):
            self.reactor.advance(60)
            connection.send(b"p")
            self.assertEqual(self.replies(), [])
        self.reactor.advance(11)
        self.assertEqual(self.replies(), [str(TRY_LATER)])
        self.assertFalse(connection.is_open)
        self.assertTrue(all(draft.discarded for draft in self.spool.drafts))

    def test_a_short_wait_after_a_long_one(self) -> None:
        """Each wait has its own end, whatever the last one could have taken."""
        self.filter.answers[b"M"] = [b"c", None]
        self.filter.answers[b"E"] = [None]
        self.begin(Milter(SOCKET, "test", timeouts=TIMEOUTS))
        self.hello()
        self.say(b"MAIL FROM:<>", b"RCPT TO:<b@mta.example>", b"DATA", MESSAGE + b".")
        (connection,) = self.filter.connections
        self.reactor.advance(1)
        connection.send(b"c")
        self.say(b"MAIL FROM:<>")
        self.reactor.advance(9.9)
        self.assertTrue(connection.is_open)
        self.reactor.advance(0.2)
        self.assertFalse(connection.is_open)

    def test_nobody_else_waits(self) -> None:
        """Another session goes on while one waits for its filter."""
        self.filter.answers[b"M"] = [None, b"c"]
        self.begin(Milter(SOCKET, "test", timeouts=TIMEOUTS))
        self.hello()
        self.say(b"MAIL FROM:<a@x.example>")
        self.assertEqual(self.run_session()[-1], "250")

    def test_answers_before_the_question(self) -> None:
        """What a filter says unasked is taken for the next answer: it is bounded."""
        self.begin()
        (connection,) = self.filter.connections
        connection.send(*[b"p" + b"x" * 60000] * 20)
        self.assertTrue(connection.is_paused)
        self.hello()
        self.assertFalse(connection.is_paused)
