"""The request for our own mail, after whatever became of what we sent (RFC 2645, RFC 1985)."""

from __future__ import annotations

from collections.abc import Iterator

from mta.mail import Body
from mta.queued import Delivery
from mta.smtp.errors import PeerFault
from mta.smtp.turn import TurnRequest
from mta.testing import GreetingRole, TurnReplies
from tests.senders import STREAMING, Exchange, SenderTestCase, mail

COMMANDS = (
    ("ATRN office.example", True),
    ("TURN", True),
    ("ETRN office.example", False),
)
KEYWORDS = ("250 HELP", "250 PIPELINING", STREAMING)
BINARY = b"Subject: \xff\r\n\r\n\0"


class TurnAfterMailTests(SenderTestCase):
    """The turn happens whatever became of the mail before it."""

    def asking(
        self, command: str, turned: bool, deliveries: list[Delivery], keywords: str
    ) -> tuple[Exchange, TurnReplies]:
        """An exchange that is to ask for the turn once it has sent these."""
        replies = TurnReplies()
        turn = TurnRequest([command], replies, GreetingRole() if turned else None)
        return self.opened(deliveries, keywords, turn=turn), replies

    def all_ways(
        self, *deliveries: Delivery
    ) -> Iterator[tuple[Exchange, TurnReplies, str, bool, str]]:
        """One for each command and manner of sending."""
        for command, turned in COMMANDS:
            for keywords in KEYWORDS:
                exchange, replies = self.asking(command, turned, list(deliveries), keywords)
                yield exchange, replies, command, turned, keywords

    def assert_turned(self, exchange: Exchange, replies: TurnReplies, turned: bool) -> None:
        """The command was heard, and its reply taken."""
        exchange.talk("S: 250 2.0.0 turning")
        self.assertEqual([reply.code for reply in replies], [250])
        exchange.talk("C: 220 turned" if turned else "C: QUIT")

    def test_refused_mail(self) -> None:
        """At MAIL, at RCPT or at the end of content, for good or for now: RSET comes first."""
        for reply in ("550 5.1.1 no", "450 4.2.1 later", "452 4.3.1 full", "552 5.2.2 full"):
            for exchange, replies, command, turned, keywords in self.all_ways(mail()):
                step_by_step, streams = keywords == KEYWORDS[0], keywords == STREAMING
                exchange.talk(f"S: 250 mail\nS: {reply}")
                if streams or not step_by_step:
                    exchange.talk("S: 554 no recipients")
                self.assertEqual(exchange.hear()[-1], "RSET")
                exchange.talk(f"S: 250 reset\nC: {command}")
                self.assert_turned(exchange, replies, turned)
                verdict = "failed" if reply[0] == "5" else "deferred"
                self.assertEqual(exchange.outcomes(), [f"{verdict} {reply}"])

    def test_refused_content(self) -> None:
        """As above."""
        for reply in ("554 5.6.0 no", "451 4.3.0 later"):
            for exchange, replies, command, turned, keywords in self.all_ways(mail()):
                exchange.talk("S: 250 mail\nS: 250 rcpt")
                if keywords != STREAMING:
                    exchange.talk("S: 354 go")
                exchange.talk(f"S: {reply}")
                self.assertEqual(exchange.hear()[-1], "RSET")
                exchange.talk(f"S: 250 reset\nC: {command}")
                self.assert_turned(exchange, replies, turned)

    def test_a_peer_that_takes_no_mail_on_that_port(self) -> None:
        """Nor knows RSET (RFC 2645 section 5)."""
        for command, turned in COMMANDS:
            exchange, replies = self.asking(command, turned, [mail()], "250 ATRN")
            exchange.talk(
                f"""
                C: MAIL FROM:<alice@us.example>
                S: 502 5.5.1 not here
                C: RSET
                S: 502 5.5.1 not here
                C: {command}
                """
            )
            self.assert_turned(exchange, replies, turned)

    def test_mail_that_the_peer_can_not_take(self) -> None:
        """Nothing was said of it."""
        for exchange, replies, command, turned, _ in self.all_ways(
            mail(content=BINARY, body=Body.BINARY)
        ):
            exchange.talk(f"C: {command}")
            self.assert_turned(exchange, replies, turned)
            self.assertIn("failed 554 5.6.3", exchange.outcomes()[0])

    def test_a_peer_that_sees_a_transaction_where_none_is(self) -> None:
        """503 to the request: RSET, and the same once more, and then what it says counts."""
        for exchange, replies, command, turned, _ in self.all_ways():
            exchange.talk(
                f"""
                C: {command}
                S: 503 5.5.1 not now
                C: RSET
                S: 250 reset
                C: {command}
                """
            )
            self.assert_turned(exchange, replies, turned)
        for exchange, replies, command, _, _ in self.all_ways():
            exchange.talk(
                f"""
                S: 503 5.5.1 not now
                S: 250 reset
                S: 503 5.5.1 never
                C: {command} | RSET | {command} | QUIT
                """
            )
            self.assertEqual([str(reply) for reply in replies], ["503 5.5.1 never"])


class TurnTests(SenderTestCase):
    """What is asked for when our mail is sent (RFC 821 section 3.8, RFC 2645, RFC 1985)."""

    def asked(self, *commands: str, turned: bool = True) -> tuple[Exchange, TurnReplies]:
        """An exchange that has sent its mail and asks for a turn."""
        told = TurnReplies()
        turn = TurnRequest(commands, told, GreetingRole() if turned else None)
        exchange = self.opened([mail()], turn=turn)
        exchange.talk("S: 250 mail | 250 rcpt | 354 go | 250 taken")
        self.assertEqual(exchange.hear()[-1], commands[0])
        return exchange, told

    def test_the_roles_change(self) -> None:
        """The successor greets."""
        exchange, told = self.asked("ATRN office.example")
        exchange.talk(
            """
            S: 250 2.0.0 turning
            C: 220 turned
            C: (closed)
            """
        )
        self.assertEqual([str(reply) for reply in told], ["250 2.0.0 turning"])

    def test_they_do_not(self) -> None:
        """The reply says why."""
        exchange, told = self.asked("TURN")
        exchange.talk(
            """
            S: 453 4.2.0 You have no mail
            C: QUIT
            """
        )
        self.assertEqual([reply.code for reply in told], [453])

    def test_queue_runs(self) -> None:
        """ETRN is followed by the next one, and by QUIT."""
        exchange, told = self.asked("ETRN a.example", "ETRN b.example", turned=False)
        exchange.talk(
            """
            S: 250 started
            C: ETRN b.example
            S: 458 no
            C: QUIT
            S: 221 bye
            C: (closed)
            """
        )
        self.assertEqual([reply.code for reply in told], [250, 458])

    def test_octets_ahead_of_our_greeting(self) -> None:
        """They could only pretend to be commands."""
        exchange, told = self.asked("TURN")
        exchange.talk("P: 250 turning | EHLO forged")
        self.assertIsInstance(exchange.failure, PeerFault)
        self.assertEqual(told, [])
        exchange.talk("C: (closed)")
