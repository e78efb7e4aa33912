"""A sender whose mail is still to come."""

from __future__ import annotations

from tests.senders import STREAMING, SenderTestCase, mail


class WaitingTests(SenderTestCase):
    """A connection that stays open for mail that is still to come."""

    def test_mail_that_comes_later(self) -> None:
        """It is sent as soon as it is there."""
        for keywords in ("250 PIPELINING", STREAMING):
            exchange = self.opened([], keywords, waits=True)
            exchange.talk("C:")
            exchange.source.give(mail())
            self.assertEqual(exchange.hear()[0], "MAIL FROM:<alice@us.example>")
            exchange.talk("S: 250 mail | 250 rcpt")
            exchange.talk("S: 250 taken" if keywords == STREAMING else "S: 354 go | 250 taken")
            self.assertEqual(exchange.outcomes(), ["relayed 250 taken"])
            exchange.hear()
            exchange.source.finish()
            exchange.talk("C: QUIT")

    def test_a_noop_now_and_then(self) -> None:
        """It keeps the connection alive, and shows whether it is."""
        exchange = self.opened([], waits=True)
        exchange.talk(
            """
            T: 60
            C: NOOP
            S: 250 ok
            C:
            T: 60
            C: NOOP
            T: 30
            C: (closed)
            """
        )
        self.assert_unusable(exchange, "Connection lost in reply to NOOP")

    def test_a_peer_that_says_something_unasked(self) -> None:
        """421 is an ordinary end; anything else makes no sense."""
        exchange = self.opened([], waits=True)
        exchange.talk("S: 421 4.4.2 idle for too long")
        exchange.talk("C: QUIT")
        exchange = self.opened([], waits=True)
        exchange.talk("S: 250 hello?")
        self.assert_unusable(exchange, "Protocol error")

    def test_a_peer_that_went_meanwhile(self) -> None:
        """Mail that meets a connection which is closing is left to another one, undecided."""
        for keywords in ("250 PIPELINING", STREAMING):
            for end in ("E: lost", "S: 421 4.4.2 idle for too long"):
                exchange = self.opened([], keywords, waits=True)
                exchange.source.give(mail())
                exchange.hear()
                exchange.talk(end)
                self.assertIsNone(exchange.failure)
                self.assertEqual(exchange.source.returned, ["M1"])
                self.assertEqual(exchange.source.outcomes, {})

    def test_a_peer_that_spoke_before_it_went(self) -> None:
        """Then it was there: the message may have been taken, and waits like any other."""
        exchange = self.opened([], "250 PIPELINING", waits=True)
        exchange.source.give(mail())
        exchange.talk("S: 250 mail")
        exchange.talk("E: lost")
        self.assertEqual(exchange.source.returned, [])
        self.assertIn("Connection lost in reply to RCPT", exchange.outcomes()[0])

    def test_no_more_than_the_limit(self) -> None:
        """When the peer takes no more messages, waiting is vain."""
        exchange = self.opened([mail()], "250-PIPELINING | 250 LIMITS MAILMAX=1", waits=True)
        exchange.talk("S: 250 mail | 250 rcpt | 354 go | 250 taken")
        self.assertEqual(exchange.hear()[-1], "QUIT")
