"""What a filter is told before it has answered to what came before."""

from __future__ import annotations

import socket

from twisted.internet.tcp import Connection
from twisted.trial.unittest import SynchronousTestCase

from mta.milters.connection import FilterConnection
from mta.milters.replies import REJECTED, TRY_LATER
from mta.settings import Milter, OnFailure
from tests.milters.filters import SOCKET, Answer, FilterCase, Filters

VERDICTS = ((b"r", "550"), (b"t", "451"), (b"y552 5.7.0 No\0", "552"), (b"a", "250"), (b"d", "250"))


class AheadTests(FilterCase):
    """Fields go out with the end of the header section, and the last of the body with the end."""

    def first(self, command: bytes, *answers: Answer, milter: Milter | None = None) -> str:
        """The code for a message to which the filter gives these answers to one command."""
        self.setUp()
        self.filter.answers[command] = [*answers, b"c"]
        return self.run_session(*([milter] if milter else []))[-1]

    def test_sends(self) -> None:
        """A message takes as many as there are commands to which the client waits for a reply."""
        self.begin()
        self.hello()
        (connection,) = self.filter.connections
        before = connection.writes
        self.assertEqual(self.send()[-1], "250")
        self.assertEqual(self.filter.commands, b"CHMRTLLNBEA")
        # MAIL, RCPT, DATA, header section, the rest, ABORT
        self.assertEqual(connection.writes - before, 6)

    def test_answers_that_come_one_by_one(self) -> None:
        """All of them are waited for."""
        self.begin()
        self.hello()
        self.filter.answers = {command: [None] for command in (b"L", b"N", b"B", b"E")}
        self.assertEqual(self.send(), ["250", "250", "354"])
        (connection,) = self.filter.connections
        for count in range(3):
            self.assertEqual(self.filter.told(b"E"), [], count)
            connection.send(b"c")
        self.assertEqual(len(self.filter.told(b"E")), 1)
        connection.send(b"p")
        connection.send(b"c")
        self.assertEqual(self.replies(), [])
        connection.send(b"c")
        self.assertEqual(self.replies()[0][:3], "250")

    def test_a_verdict_before_the_last_answer(self) -> None:
        """It counts; the next message is told over a connection of its own, from the beginning."""
        for command in (b"L", b"B"):
            for verdict, code in VERDICTS:
                self.assertEqual(self.first(command, verdict), code, (command, verdict))
                (connection,) = self.filter.connections
                self.assertTrue(connection.aborted)
                self.filter.seen.clear()
                self.filter.answers[b"E"] = [[b"hX-New\0001\0", b"c"]]
                self.assertEqual(self.send()[-1], "250")
                self.assertEqual(self.filter.commands, b"CHMRTLLNBEA")
                self.assertIn(b"X-New: 1\r\n", self.spool.drafts[-1].content)
                self.assertEqual(len(self.filter.connections), 2)
                self.send()
                self.assertEqual(len(self.filter.connections), 2)

    def test_a_verdict_on_the_last_field(self) -> None:
        """It comes before the end of the header section as well."""
        self.assertEqual(self.first(b"L", b"c", b"r"), "550")
        self.assertTrue(self.filter.connections[0].aborted)

    def test_a_verdict_on_what_came_last(self) -> None:
        """The connection stays."""
        for command in (b"N", b"E"):
            self.assertEqual(self.first(command, b"r"), "550")
            self.assertEqual(self.send()[-1], "250")
            self.assertEqual(len(self.filter.connections), 1)

    def test_a_filter_that_is_gone_by_then(self) -> None:
        """What `on_failure` says happens to the next message."""
        for on_failure, reply in (
            (OnFailure.TEMPFAIL, str(TRY_LATER)),
            (OnFailure.ACCEPT, "250 2.1.0 Sender OK"),
        ):
            self.first(b"L", b"r", milter=Milter(SOCKET, "test", on_failure=on_failure))
            self.filter.is_down = True
            self.assertEqual(self.say(b"MAIL FROM:<>"), [reply])

    def test_a_filter_that_refuses_the_client_by_then(self) -> None:
        """The next message is refused, too, and the session hears of nothing else."""
        self.first(b"L", b"a")
        self.filter.answers[b"C"] = [b"r"]
        for _ in range(2):
            self.assertEqual(self.say(b"MAIL FROM:<>"), [str(REJECTED)])
        self.assertEqual(len(self.filter.connections), 2)

    def test_the_end_of_the_session(self) -> None:
        """Nothing is told of it to a filter that was left."""
        self.first(b"L", b"a")
        self.quit()
        self.assertEqual(len(self.filter.connections), 1)
        self.assertNotIn(b"Q", self.filter.commands)


class SocketTests(SynchronousTestCase):
    """The options of a connection by TCP."""

    def test_nothing_waits_for_an_acknowledgement(self) -> None:
        """Neither what is sent, nor the second of two packets that a filter sends."""
        listening = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listening.close)
        ours = socket.create_connection(listening.getsockname())
        self.addCleanup(ours.close)
        theirs, _ = listening.accept()
        self.addCleanup(theirs.close)
        connection = FilterConnection(Filters())
        connection.makeConnection(Connection(ours, connection))
        for _ in range(3):  # after it has sent an answer, the kernel would wait for the next one
            theirs.sendall(b"\0\0\0\1c")
            ours.recv(100)
            connection.write(b"\0\0\0\1A")
            connection.flush()
        tcp = socket.IPPROTO_TCP
        self.assertTrue(ours.getsockopt(tcp, socket.TCP_NODELAY))
        self.assertTrue(ours.getsockopt(tcp, socket.TCP_QUICKACK))
        self.assertEqual(theirs.recv(100), b"\0\0\0\1A" * 3)
