"""Exim as the provider, as it was seen to behave (4.99 and later), and what our customer does."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mta.peers.tally import Tally
from mta.queued import HopFailure
from tests.next_hops import Connection
from tests.peers.test_exchange import Scripted

OFFERS = "250-SIZE 52428800 | 250-8BITMIME | 250-PIPELINING | 250-ATRN"
CONTENT = b"Received: from a by provider.example\r\nSubject: x\r\n\r\n.body\r\n"


class EximTests(SynchronousTestCase):
    """After 250 to ATRN, Exim sends each message from a process of its own."""

    def turned(self) -> tuple[Scripted, Connection]:
        """An exchange that has asked for its mail, and greeted."""
        scripted = Scripted([], "atrn")
        connection = scripted.connection(OFFERS)
        self.assertEqual(self.heard(connection), ["EHLO us.example", "ATRN office.example"])
        connection.say(b"250 2.0.0 OK now reversing the connection\r\n")
        self.assertEqual([line[:4] for line in self.heard(connection)], ["220 "])
        return scripted, connection

    def heard(self, connection: Connection) -> list[str]:
        """The lines that Exim got since the last time."""
        return connection.transport.taken().decode().splitlines()

    def codes(self, connection: Connection) -> list[str]:
        """The codes of the last lines of what it got since the last time."""
        return [line[:3] for line in self.heard(connection) if line[3:4] == " "]

    def envelope(self, connection: Connection, recipient: str) -> list[str]:
        """MAIL and RCPT in one group; the replies."""
        connection.say(
            b"MAIL FROM:<ann@elsewhere.example> SIZE=100\r\nRCPT TO:<%b>\r\n" % recipient.encode()
        )
        return self.codes(connection)

    def ended(self, scripted: Scripted, connection: Connection) -> Tally:
        """What the exchange comes to when Exim closes."""
        connection.close()
        return self.successResultOf(scripted.running)

    def test_one_message(self) -> None:
        """As with ``connection_max_messages = 1``: EHLO, the message, QUIT."""
        scripted, connection = self.turned()
        connection.say(b"EHLO provider.example\r\n")
        self.assertEqual(self.codes(connection), ["250"])
        self.assertEqual(self.envelope(connection, "bob@office.example"), ["250", "250"])
        connection.say(b"BDAT %d LAST\r\n" % len(CONTENT) + CONTENT)
        self.assertEqual(self.codes(connection), ["250"])
        connection.say(b"QUIT\r\n")
        self.assertEqual(self.codes(connection), ["221"])
        tally = self.ended(scripted, connection)
        self.assertEqual((tally.received, tally.turned, tally.lost), (1, True, False))

    def test_a_reply_to_ehlo_that_nobody_reads(self) -> None:
        """In the clear, each process takes the session for one that is open already: DATA only."""
        scripted, connection = self.turned()
        connection.say(
            b"EHLO provider.example\r\n"
            b"MAIL FROM:<ann@elsewhere.example>\r\nRCPT TO:<bob@office.example>\r\nDATA\r\n"
        )
        self.assertEqual(self.codes(connection), ["250", "250", "250", "354"])
        connection.say(CONTENT.replace(b"\r\n.", b"\r\n..") + b".\r\n")
        self.assertEqual(self.codes(connection), ["250"])
        for recipient in ("bob@office.example", "xn--jrgen-kva@office.example"):
            self.assertEqual(self.envelope(connection, recipient), ["250", "250"])
            connection.say(b"DATA\r\n")
            connection.say(CONTENT + b".\r\n")
            self.assertEqual(self.codes(connection), ["354", "250"])
        connection.say(b"QUIT\r\n")
        tally = self.ended(scripted, connection)
        self.assertEqual((tally.received, tally.lost), (3, False))

    def test_closed_after_a_refused_recipient(self) -> None:
        """RSET, and no QUIT: the link broke, and what was received before stays received."""
        scripted, connection = self.turned()
        connection.say(b"EHLO provider.example\r\n")
        self.codes(connection)
        self.assertEqual(self.envelope(connection, "bob@office.example"), ["250", "250"])
        connection.say(b"BDAT %d LAST\r\n" % len(CONTENT) + CONTENT)
        self.assertEqual(self.codes(connection), ["250"])
        self.assertEqual(self.envelope(connection, "nobody@office.example"), ["250", "550"])
        connection.say(b"RSET\r\n")
        self.assertEqual(self.codes(connection), ["250"])
        tally = self.ended(scripted, connection)
        self.assertEqual((tally.received, tally.lost), (1, True))

    def test_nothing_but_a_close(self) -> None:
        """So it is at the call after that one."""
        scripted, connection = self.turned()
        tally = self.ended(scripted, connection)
        self.assertEqual((tally.received, tally.turned, tally.lost), (0, True, True))

    def test_a_second_chunk_of_garbage(self) -> None:
        """Under TLS, the second process has an old copy of its state: nothing of it is taken."""
        scripted, connection = self.turned()
        connection.say(b"EHLO provider.example\r\n")
        self.envelope(connection, "bob@office.example")
        connection.say(b"BDAT %d LAST\r\n" % len(CONTENT) + CONTENT)
        self.assertEqual(self.codes(connection)[-1], "250")
        self.assertEqual(self.envelope(connection, "bob@office.example"), ["250", "250"])
        garbage = bytes(range(256))
        connection.say(b"BDAT %d LAST\r\n" % len(garbage) + garbage)
        self.assertIn("554 5.6.0", self.heard(connection)[-1])
        tally = self.ended(scripted, connection)
        self.assertEqual((tally.received, tally.lost), (1, True))

    def test_garbage_instead_of_commands(self) -> None:
        """The session ends, at the latest when too much made no sense."""
        scripted, connection = self.turned()
        for _ in range(100):
            connection.say(b"\x17\x03\x03\0\xff\xfe\r\n")
        self.assertTrue(connection.transport.disconnecting)
        tally = self.successResultOf(scripted.running)
        self.assertEqual((tally.received, tally.turned), (0, True))

    def test_cut_in_the_middle_of_a_message(self) -> None:
        """Half of it is nothing: the provider has it still."""
        scripted, connection = self.turned()
        connection.say(b"EHLO provider.example\r\n")
        self.envelope(connection, "bob@office.example")
        connection.say(b"BDAT %d LAST\r\n" % len(CONTENT) + CONTENT[:20])
        tally = self.ended(scripted, connection)
        self.assertEqual((tally.received, tally.lost), (0, True))

    def test_it_refuses(self) -> None:
        """The reply to ATRN is what the exchange says."""
        for reply in (b"450 4.7.1 ATRN request refused", b"502 5.5.1 no", b"530 5.7.0 log in"):
            scripted = Scripted([], "atrn")
            connection = scripted.connection(OFFERS)
            connection.say(reply + b"\r\n")
            connection.say(b"221 bye\r\n")
            connection.close()
            failure = self.failureResultOf(scripted.running, HopFailure).value
            self.assertEqual(str(failure.outcome.reply).encode(), reply)
