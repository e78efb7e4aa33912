"""The dialogue of a sender with its peer: who reads and who writes, and when."""

from __future__ import annotations

from tests.smtp.test_sender import Exchange, SenderTestCase, mail


class PressureTests(SenderTestCase):
    """Neither side waits for the other to read first."""

    def test_replies_are_read_while_the_peer_takes_no_commands(self) -> None:
        """As it may not read on before it has got rid of them."""
        people = [f"user{number}" for number in range(1000)]
        exchange = Exchange([mail("M1", *people)])
        exchange.talk("S: 220 x")
        exchange.transport.is_full = True
        exchange.talk("S: 250-x | 250-PIPELINING | 250 LIMITS RCPTMAX=1000")
        exchange.say(b"250 mail\r\n")
        for _ in range(1000):
            exchange.say(b"250-%b\r\n250 rcpt\r\n" % (b"x" * 500))
            self.assertEqual(exchange.transport.producerState, "producing")
        exchange.transport.is_full = False
        exchange.link.resumeProducing()
        exchange.talk(
            """
            S: 354 go
            S: 250 taken
            """
        )
        self.assertEqual(exchange.outcomes(), ["relayed 250 taken"] * 1000)
