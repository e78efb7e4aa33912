"""How much of a message one transaction and one connection take."""

from __future__ import annotations

import errno
from unittest.mock import patch

from twisted.internet.defer import Deferred

from mta.delivery.per_host import PerHost, Suspects
from mta.mail import Agent, Hop, Outcome, Reply, Security, Status
from mta.smtp.outgoing import UNTRIED
from mta.testing import FakeMailSource, FakeResolver
from tests.next_hops import Connection, NextHops
from tests.senders import SenderTestCase, mail


class TooManyTests(SenderTestCase):
    """The replies that say that a transaction is full (RFC 5321 section 4.5.3.1.10)."""

    def test_the_rest_goes_in_another_transaction(self) -> None:
        """452, 552 in its place, and whatever says so by its enhanced code."""
        for reply in ("452 4.5.3 many", "552 5.5.3 many", "552 many", "550 5.5.3 many", "452 x"):
            exchange = self.opened([mail("M1", "bob", "carol", "dave")])
            exchange.talk(
                f"""
                S: 250 mail | 250 rcpt | {reply} | {reply} | 354 go | 250 first
                S: 250 mail | 250 rcpt | 250 rcpt | 354 go | 250 second
                """
            )
            self.assertEqual(
                exchange.outcomes(),
                ["relayed 250 first", "relayed 250 second", "relayed 250 second"],
            )

    def test_where_nobody_was_taken(self) -> None:
        """Then it is about the recipient, unless the enhanced code says otherwise."""
        for reply, outcome in (
            ("452 4.2.2 full", "deferred 452 4.2.2 full"),
            ("552 5.2.2 full", "failed 552 5.2.2 full"),
            ("552 full", "deferred 452 full"),
            ("552 5.5.3 many", "deferred 452 4.5.3 many"),
            ("550 5.5.3 many", "deferred 452 4.5.3 many"),
        ):
            exchange = self.opened([mail("M1", "bob", "carol")])
            exchange.talk(f"S: 250 mail | {reply} | {reply} | 250 reset")
            self.assertEqual(exchange.outcomes(), [outcome] * 2)

    def test_a_full_mailbox_beside_another(self) -> None:
        """It is asked once more, alone, and has its own verdict."""
        exchange = self.opened([mail("M1", "bob", "carol")])
        exchange.talk(
            """
            S: 250 mail | 250 rcpt | 552 5.2.2 full | 354 go | 250 first
            S: 250 mail | 552 5.2.2 full
            """
        )
        self.assertEqual(exchange.outcomes(), ["relayed 250 first", "failed 552 5.2.2 full"])


class MailMaxTests(SenderTestCase):
    """RFC 9422: so many transactions on a connection, also for the parts of one message."""

    KEYWORDS = "250 LIMITS RCPTMAX=2 MAILMAX=2"
    PEOPLE = tuple(f"user{number}" for number in range(5))

    def test_the_rest_is_left(self) -> None:
        """Undecided, as nothing was said of it."""
        exchange = self.opened([mail("M1", *self.PEOPLE)], self.KEYWORDS)
        exchange.talk("S: 250 mail | 250 rcpt | 250 rcpt | 354 go | 250 first")
        exchange.talk("S: 250 mail | 250 rcpt | 250 rcpt | 354 go | 250 second")
        self.assertEqual(exchange.hear()[-1], "QUIT")
        *taken, left = exchange.source.outcomes["M1"]
        self.assertEqual([str(outcome.reply) for outcome in taken[:2]], ["250 first"] * 2)
        self.assertFalse(any(outcome.untried for outcome in taken))
        self.assertTrue(left.untried)

    def test_nothing_was_said_of_it(self) -> None:
        """It goes back as it came."""
        exchange = self.opened([mail("M1", "bob", "carol"), mail("M2")], "250 LIMITS MAILMAX=1")
        exchange.talk("S: 250 mail | 250 rcpt | 250 rcpt | 354 go | 250 first")
        self.assertEqual(exchange.hear()[-1], "QUIT")
        self.assertEqual(len(exchange.source.waiting), 1)

    def test_another_connection_takes_it(self) -> None:
        """At once, until all have it."""
        hop = Hop(Agent.SMTP, "a.example", 25, security=Security.OFF)
        hops = NextHops(FakeResolver({}, {"a.example": ["192.0.2.1"]}), hop=hop)
        hops.send("M1", *self.PEOPLE)
        hops.dispatch()
        for transactions in ((2, 2), (1,)):
            connection = hops.next_connection()
            assert connection is not None
            self.play(connection, transactions)
        self.assertEqual([str(outcome.reply) for outcome in hops.outcomes["M1"]], ["250 ok"] * 5)
        self.assertIsNone(hops.next_connection())

    def test_no_other_connection_takes_it(self) -> None:
        """It is deferred, and what was taken stays taken."""
        hop = Hop(Agent.SMTP, "a.example", 25, security=Security.OFF)
        hops = NextHops(FakeResolver({}, {"a.example": ["192.0.2.1"]}), hop=hop)
        hops.send("M1", *self.PEOPLE)
        hops.dispatch()
        first, second = hops.next_connection(), None
        assert first is not None
        self.play(first, (2, 2))
        second = hops.next_connection()
        assert second is not None
        second.refuse()
        *taken, left = hops.outcomes["M1"]
        self.assertEqual([str(outcome.reply) for outcome in taken], ["250 ok"] * 4)
        self.assertIn("451 4.4.1 Cannot connect", str(left.reply))

    def test_no_socket(self) -> None:
        """Without a free descriptor it is deferred, whatever kind of socket it takes."""
        full = OSError(errno.EMFILE, "Too many open files")
        for hop in (
            Hop(Agent.SMTP, "a.example", 25, security=Security.OFF),
            Hop(Agent.LMTP, "unix:/run/lmtp", security=Security.OFF),
        ):
            hops = NextHops(FakeResolver({}, {"a.example": ["192.0.2.1"]}), hop=hop)
            hops.send("M1", "bob")
            kind = "connectUNIX" if hop.agent is Agent.LMTP else "connectTCP"
            with patch.object(hops.reactor, kind, side_effect=full):
                hops.dispatch()
            [outcome] = hops.outcomes["M1"]
            self.assertIn("451 4.4.1 Cannot connect", str(outcome.reply))
            self.assertIn("Too many open files", str(outcome.reply))

    def test_no_other_connection_is_made(self) -> None:
        """As where we stop: it is deferred without a word from any host."""
        source = FakeMailSource(mail("M1", "bob", "carol"))
        per_host = PerHost(source, Suspects(), lambda: 0.0)
        handed = self.successResultOf(Deferred.fromCoroutine(per_host.next()))
        assert handed is not None
        taken = Outcome(Status.RELAYED, Reply(250, "", ("ok",)))
        per_host.report(handed, [taken, UNTRIED])
        self.assertTrue(per_host.progress)
        self.assertTrue(per_host.has_unsent)
        per_host.finish(None)
        bob, carol = source.outcomes["M1"]
        self.assertEqual((bob.status, carol.status), (Status.RELAYED, Status.DEFERRED))

    def play(self, connection: Connection, transactions: tuple[int, ...]) -> None:
        """Take so many recipients in each transaction."""
        connection.accept()
        for line in ("220 x", "250-x", self.KEYWORDS):
            connection.say(line.encode() + b"\r\n")
        for rcpts in transactions:
            for line in ["250 ok"] * (rcpts + 1) + ["354 go", "250 ok"]:
                connection.say(line.encode() + b"\r\n")
        connection.say(b"221 bye\r\n")
        connection.close()
