"""The dialogue of a sender with its peer: who reads and who writes, and when."""

from __future__ import annotations

from tests.senders import Exchange, SenderTestCase, mail


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


class StepTests(SenderTestCase):
    """What the peer says before it is asked is the reply to something else."""

    def test_before_a_command(self) -> None:
        """In whole or in part, in one piece with the reply before it."""
        for more in ("250 rcpt", "550 no", "eh?", "250-rcpt"):
            exchange = self.opened([mail()])
            exchange.talk(f"P: 250 mail | {more}")
            if more == "250-rcpt":
                exchange.talk("S: 250 rcpt")
            self.assertEqual(exchange.hear(), ["MAIL FROM:<alice@us.example>", "QUIT"])
            self.assertIn("deferred 451 4.5.0 Protocol error", exchange.outcomes()[0])
        exchange = self.opened([mail()])
        exchange.say(b"250 mail\r\n25")
        exchange.say(b"0 rcpt\r\n")
        self.assertEqual(exchange.hear(), ["MAIL FROM:<alice@us.example>", "QUIT"])

    def test_closing_in_parts(self) -> None:
        """421 needs no command, also when it comes in two pieces."""
        exchange = self.opened([mail()])
        exchange.say(b"250 mail\r\n42")
        exchange.say(b"1 4.3.2 closing\r\n")
        self.assertEqual(exchange.outcomes(), ["deferred 421 4.3.2 closing"])

    def test_while_content_is_on_its_way(self) -> None:
        """What was taken is said after the end; a refusal may come before it."""
        for reply, outcome in (
            ("250 taken", "deferred 451 4.5.0 Protocol error while sending content"),
            ("554 no", "failed 554 no"),
            ("421 closing", "deferred 421 closing"),
        ):
            exchange = self.opened([mail(content=b"x\r\n" * 100_000)])
            exchange.talk("S: 250 mail | 250 rcpt")
            exchange.transport.is_full = True
            exchange.talk(f"S: 354 go\nS: {reply}")
            self.assertIn(outcome, exchange.outcomes()[0])
            self.assertNotIn(".", exchange.hear())

    def test_good_bye(self) -> None:
        """It is said, whatever was not asked for; what was settled stays so."""
        exchange = self.opened([mail()])
        exchange.talk("S: 250 mail | 250 rcpt | 354 go\nP: 250 taken | 250 taken")
        self.assertEqual(exchange.outcomes(), ["relayed 250 taken"])
        exchange.hear()
        self.assertTrue(exchange.transport.disconnecting)
        exchange = self.opened([mail()])
        exchange.talk("S: 250 mail | 250 rcpt | 354 go\nP: 250 taken | 421 closing")
        self.assertEqual(exchange.outcomes(), ["relayed 250 taken"])
        self.assertEqual(exchange.hear()[-1], "QUIT")
