"""The sender as a client of LMTP."""

from __future__ import annotations

from dataclasses import replace

from tests.senders import US, SenderTestCase, mail


class LMTPTests(SenderTestCase):
    """RFC 2033: a reply for each recipient."""

    LMTP = replace(US, lmtp=True)

    def test_a_reply_for_each_recipient(self) -> None:
        """In the order of the RCPTs that were taken; nobody is tried again at once."""
        for keywords in ("250 HELP", "250 PIPELINING"):
            exchange = self.opened(
                [mail("M1", "bob", "nobody", "carol", "dave", "erin")], keywords, self.LMTP
            )
            exchange.talk(
                """
                S: 250 mail | 250 rcpt | 550 who? | 250 rcpt | 250 rcpt | 250 rcpt | 354 go
                S: 250 2.1.5 bob | 552 5.2.2 full | 452 4.2.2 quota | 250 erin
                S: 221 bye
                """
            )
            self.assertEqual(
                exchange.outcomes(),
                [
                    "delivered 250 2.1.5 bob",
                    "failed 550 who?",
                    "failed 552 5.2.2 full",
                    "deferred 452 4.2.2 quota",
                    "delivered 250 erin",
                ],
            )
            self.assertEqual(exchange.hear()[-1], "QUIT")

    def test_no_recipient_and_354(self) -> None:
        """Nobody knows how many replies would come to it."""
        exchange = self.opened([mail("M1")], "250 PIPELINING", self.LMTP)
        exchange.talk("S: 250 mail | 550 who? | 354 go")
        self.assertEqual(exchange.source.returned, ["M1"])
        self.assertEqual(exchange.hear()[-2:], ["DATA", "QUIT"])

    def test_lost_between_replies(self) -> None:
        """Those who have their reply keep it."""
        exchange = self.opened([mail("M1", "bob", "carol")], config=self.LMTP)
        exchange.talk("S: 250 mail | 250 rcpt | 250 rcpt | 354 go | 250 bob")
        exchange.lose()
        delivered, deferred = exchange.outcomes()
        self.assertEqual(delivered, "delivered 250 bob")
        self.assertIn("may be sent more than once", deferred)
