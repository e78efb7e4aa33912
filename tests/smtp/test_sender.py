"""The transactions of a sender: step by step, in groups, in chunks."""

from __future__ import annotations

from dataclasses import replace

from mta.mail import NULL_PATH
from mta.smtp.pipelining import Pipelining
from tests.senders import STREAMING, US, Exchange, SenderTestCase, mail


class PlainTests(SenderTestCase):
    """A peer without extensions: one command after the other."""

    def test_a_message(self) -> None:
        """Each reply is awaited; dots are stuffed."""
        exchange = self.opened([mail("M1", "bob", "carol", content=b"A: b\r\n\r\n.x\r\nend")])
        exchange.talk(
            """
            C: MAIL FROM:<alice@us.example>
            S: 250 ok
            C: RCPT TO:<bob@peer.example>
            S: 250 ok
            C: RCPT TO:<carol@peer.example>
            S: 251 will forward
            C: DATA
            S: 354 go
            C: A: b | | ..x | end | .
            S: 250 2.0.0 taken as 7
            C: QUIT
            S: 221 bye
            C: (closed)
            """
        )
        self.assertEqual(exchange.outcomes(), ["relayed 250 2.0.0 taken as 7"] * 2)
        outcome = exchange.source.outcomes["M1"][0]
        self.assertEqual((outcome.remote, outcome.notifies), ("peer.example", False))

    def test_several_messages(self) -> None:
        """On one connection, without RSET between good ones."""
        exchange = self.opened([mail("M1"), mail("M2", "carol", reverse_path=NULL_PATH)])
        exchange.talk(
            """
            S: 250 mail | 250 rcpt | 354 go
            C: MAIL FROM:<alice@us.example> | RCPT TO:<bob@peer.example> | DATA | Subject: x |
               | body | .
            S: 250 first
            C: MAIL FROM:<>
            S: 250 mail
            C: RCPT TO:<carol@peer.example>
            S: 250 rcpt
            C: DATA
            S: 354 go
            C: Subject: x | | body | .
            S: 250 second
            C: QUIT
            """
        )
        self.assertEqual(exchange.outcomes("M1"), ["relayed 250 first"])
        self.assertEqual(exchange.outcomes("M2"), ["relayed 250 second"])

    def test_some_recipients_are_refused(self) -> None:
        """The others get the message, and each has its own outcome."""
        exchange = self.opened([mail("M1", "bob", "nobody", "later", "carol")])
        exchange.talk(
            """
            S: 250 mail | 250 rcpt | 550 5.1.1 who? | 450 4.2.1 busy | 250 rcpt | 354 go
               | 250 taken
            S: 221 bye
            """
        )
        self.assertEqual(
            exchange.outcomes(),
            [
                "relayed 250 taken",
                "failed 550 5.1.1 who?",
                "deferred 450 4.2.1 busy",
                "relayed 250 taken",
            ],
        )

    def test_all_recipients_are_refused(self) -> None:
        """There is no DATA, and RSET comes before the next message."""
        exchange = self.opened([mail("M1", "bob", "carol"), mail("M2")])
        exchange.talk(
            """
            S: 250 mail | 550 no | 450 later
            C: MAIL FROM:<alice@us.example> | RCPT TO:<bob@peer.example>
               | RCPT TO:<carol@peer.example> | RSET
            S: 250 reset
            C: MAIL FROM:<alice@us.example>
            """
        )
        self.assertEqual(exchange.outcomes(), ["failed 550 no", "deferred 450 later"])

    def test_the_message_is_refused(self) -> None:
        """At MAIL, at DATA or at its end, for all recipients; the next one is sent after RSET."""
        for script, replies in (
            ("S: {0}", ""),
            ("S: 250 mail | 250 rcpt | 250 rcpt | {0}", ""),
            ("S: 250 mail | 250 rcpt | 250 rcpt | 354 go | {0}", ""),
        ):
            for reply, outcome in (
                ("451 4.3.0 later", "deferred 451 4.3.0 later"),
                ("554 5.6.0 never", "failed 554 5.6.0 never"),
            ):
                exchange = self.opened([mail("M1", "bob", "carol"), mail("M2")])
                exchange.talk(script.format(reply) + replies)
                self.assertEqual(exchange.outcomes(), [outcome] * 2)
                self.assertEqual(exchange.hear()[-1], "RSET")
                exchange.talk(
                    """
                    S: 250 reset | 250 mail | 250 rcpt | 354 go | 250 taken
                    S: 221 bye
                    """
                )
                self.assertEqual(exchange.outcomes("M2"), ["relayed 250 taken"])

    def test_a_positive_reply_to_data_other_than_354(self) -> None:
        """Content is not sent."""
        exchange = self.opened([mail()])
        exchange.talk("S: 250 mail | 250 rcpt | 250 eh?")
        self.assertNotIn("body", exchange.hear())
        self.assertEqual(
            exchange.outcomes(),
            ["deferred 451 4.5.0 Protocol error in reply to DATA: 250 eh?"],
        )

    def test_too_many_recipients(self) -> None:
        """What 452 refused is sent in another transaction (RFC 5321 section 4.5.3.1.10)."""
        exchange = self.opened([mail("M1", "bob", "carol", "dave")])
        exchange.talk(
            """
            S: 250 mail | 250 rcpt | 452 4.5.3 too many | 452 4.5.3 too many | 354 go
               | 250 first
            """
        )
        self.assertEqual(exchange.source.outcomes, {})
        exchange.hear()
        exchange.talk(
            """
            S: 250 mail
            C: RCPT TO:<carol@peer.example>
            S: 250 rcpt | 250 rcpt | 354 go | 250 second
            S: 221 bye
            """
        )
        self.assertEqual(
            exchange.outcomes(), ["relayed 250 first", "relayed 250 second", "relayed 250 second"]
        )

    def test_too_many_recipients_from_the_first_one(self) -> None:
        """452 to all is no reason to begin again."""
        exchange = self.opened([mail("M1", "bob", "carol")])
        exchange.talk("S: 250 mail | 452 4.2.2 full | 452 4.2.2 full")
        self.assertEqual(exchange.outcomes(), ["deferred 452 4.2.2 full"] * 2)

    def test_a_hundred_recipients_at_once(self) -> None:
        """More than any server must take go in several transactions."""
        people = [f"user{number}" for number in range(150)]
        exchange = self.opened([mail("M1", *people)])
        for rcpts, text in ((100, "first"), (50, "second")):
            exchange.talk("S: 250 mail" + " | 250 rcpt" * rcpts + f" | 354 go | 250 {text}")
            heard = exchange.hear()
            self.assertEqual(sum(line.startswith("RCPT") for line in heard), rcpts)
        outcomes = exchange.outcomes()
        self.assertEqual(outcomes, ["relayed 250 first"] * 100 + ["relayed 250 second"] * 50)


class PipeliningTests(SenderTestCase):
    """RFC 2920: groups of commands."""

    def test_an_envelope_in_one_write(self) -> None:
        """MAIL, RCPTs and DATA together."""
        exchange = Exchange([mail("M1", "bob", "carol")])
        exchange.talk("S: 220 x")
        exchange.transport.writes = 0
        exchange.talk(
            """
            C: EHLO us.example
            S: 250-peer.example | 250 PIPELINING
            C: MAIL FROM:<alice@us.example> | RCPT TO:<bob@peer.example>
               | RCPT TO:<carol@peer.example> | DATA
            """
        )
        self.assertEqual(exchange.transport.writes, 1)
        exchange.talk(
            """
            S: 250 mail | 250 rcpt | 550 5.1.1 who?
            C:
            S: 354 go
            C: Subject: x | | body | .
            S: 250 taken
            C: QUIT
            """
        )
        self.assertEqual(exchange.outcomes(), ["relayed 250 taken", "failed 550 5.1.1 who?"])

    def test_the_next_envelope_follows_the_final_dot(self) -> None:
        """Without waiting for the reply to it; that reply is still the first one's."""
        deliveries = [mail("M1"), mail("M2", "carol")]
        exchange = self.opened(deliveries, "250 PIPELINING", known=Pipelining.AHEAD)
        exchange.talk(
            """
            C: MAIL FROM:<alice@us.example> | RCPT TO:<bob@peer.example> | DATA
            S: 250 mail | 250 rcpt | 354 go
            C: Subject: x | | body | . | MAIL FROM:<alice@us.example>
               | RCPT TO:<carol@peer.example> | DATA
            S: 451 4.3.0 not this
            C:
            S: 250 mail | 250 rcpt | 354 go
            C: Subject: x | | body | .
            S: 250 taken
            C: QUIT
            """
        )
        self.assertEqual(exchange.outcomes("M1"), ["deferred 451 4.3.0 not this"])
        self.assertEqual(exchange.outcomes("M2"), ["relayed 250 taken"])

    def test_all_recipients_refused_and_354(self) -> None:
        """Content must follow then: an empty one, that nobody gets."""
        exchange = self.opened([mail("M1"), mail("M2")], "250 PIPELINING")
        exchange.talk(
            """
            S: 250 mail | 550 5.1.1 who? | 354 go
            C: MAIL FROM:<alice@us.example> | RCPT TO:<bob@peer.example> | DATA | .
            S: 250 thanks for nothing
            C: RSET | MAIL FROM:<alice@us.example> | RCPT TO:<bob@peer.example> | DATA
            S: 250 reset | 250 mail | 250 rcpt | 354 go | 250 taken
            """
        )
        self.assertEqual(exchange.outcomes("M1"), ["failed 550 5.1.1 who?"])
        self.assertEqual(exchange.outcomes("M2"), ["relayed 250 taken"])

    def test_all_recipients_refused_without_354(self) -> None:
        """The replies to RCPT say why, not the one to DATA."""
        exchange = self.opened([mail("M1"), mail("M2")], "250 PIPELINING")
        exchange.talk(
            """
            S: 250 mail | 550 5.1.1 who? | 554 5.5.1 no recipients
            C: MAIL FROM:<alice@us.example> | RCPT TO:<bob@peer.example> | DATA | RSET
               | MAIL FROM:<alice@us.example> | RCPT TO:<bob@peer.example> | DATA
            """
        )
        self.assertEqual(exchange.outcomes(), ["failed 550 5.1.1 who?"])

    def test_mail_refused(self) -> None:
        """The reply to MAIL says why; what follows it is only the consequence."""
        exchange = self.opened([mail("M1", "bob", "carol"), mail("M2")], "250 PIPELINING")
        exchange.talk(
            """
            S: 451 4.7.1 greylisted | 503 what? | 503 what? | 503 what?
            """
        )
        self.assertEqual(exchange.outcomes(), ["deferred 451 4.7.1 greylisted"] * 2)
        self.assertIn("RSET", exchange.hear())

    def test_mail_refused_and_354(self) -> None:
        """A strange peer gets an empty content."""
        exchange = self.opened([mail("M1")], "250 PIPELINING")
        exchange.talk("S: 550 5.7.1 no | 250 rcpt | 354 go | 250 eh")
        self.assertEqual(exchange.outcomes(), ["failed 550 5.7.1 no"])
        self.assertNotIn("body", exchange.hear())

    def test_no_end_of_what_nobody_gets(self) -> None:
        """A peer that finds no end in an empty content keeps nothing waiting: it goes again."""
        exchange = self.opened([mail("M1")], "250 PIPELINING")
        exchange.talk("S: 451 4.3.0 busy | 250 rcpt | 354 go")
        exchange.hear()
        exchange.talk("T: 30")
        self.assertEqual(exchange.hear(), ["QUIT"])
        self.assertEqual(exchange.source.returned, ["M1"])

    def test_lost_between_two_messages(self) -> None:
        """The first one may have been taken; both are tried again."""
        exchange = self.opened([mail("M1"), mail("M2")], "250 PIPELINING")
        exchange.talk("S: 250 mail | 250 rcpt | 354 go")
        exchange.lose()
        for name in ("M1", "M2"):
            self.assertIn("may be sent more than once", exchange.outcomes(name)[0])


class ChunkingTests(SenderTestCase):
    """RFC 3030: messages ahead of replies."""

    def test_a_message_in_one_go(self) -> None:
        """No reply is awaited between MAIL and the end of content; dots stay as they are."""
        exchange = self.opened([mail(content=b"A: b\r\n\r\n.x\r\n")], STREAMING)
        exchange.talk(
            """
            C: MAIL FROM:<alice@us.example> | RCPT TO:<bob@peer.example> | BDAT 12 LAST | A: b
               | | .x
            S: 250 mail | 250 rcpt
            C:
            S: 250 2.0.0 taken
            C: QUIT
            """
        )
        self.assertEqual(exchange.outcomes(), ["relayed 250 2.0.0 taken"])

    def test_messages_ahead_of_replies(self) -> None:
        """All go out at once; RSET makes each begin alike, however the one before it ended."""
        deliveries = [mail("M1"), mail("M2", "nobody"), mail("M3")]
        exchange = self.opened(deliveries, STREAMING, known=Pipelining.AHEAD)
        envelope = "MAIL FROM:<alice@us.example> | RCPT TO:<{0}@peer.example>"
        content = "BDAT 20 LAST | Subject: x | | body"
        exchange.talk(
            f"""
            C: {envelope.format("bob")} | {content} | RSET | {envelope.format("nobody")}
               | {content} | RSET | {envelope.format("bob")} | {content}
            S: 250 mail | 250 rcpt | 250 first
            S: 250 reset | 250 mail | 550 who? | 554 no recipients
            S: 250 reset | 250 mail | 250 rcpt | 250 third
            C: QUIT
            """
        )
        self.assertEqual(exchange.outcomes("M1"), ["relayed 250 first"])
        self.assertEqual(exchange.outcomes("M2"), ["failed 550 who?"])
        self.assertEqual(exchange.outcomes("M3"), ["relayed 250 third"])

    def test_how_much_goes_ahead(self) -> None:
        """No more than half a MiB, nor a hundred messages."""
        big = [mail(f"M{number}", content=b"x" * 200_000) for number in range(4)]
        exchange = self.opened(big, STREAMING, known=Pipelining.AHEAD)
        self.assertEqual(exchange.hear().count("BDAT 200000 LAST"), 2)
        self.assertEqual(len(exchange.source.waiting), 1)
        small = [mail(f"M{number}") for number in range(200)]
        exchange = self.opened(small, STREAMING, known=Pipelining.AHEAD)
        self.assertEqual(exchange.hear().count("BDAT 20 LAST"), 100)

    def test_replies_that_would_block_the_peer(self) -> None:
        """Recipients count, too: a peer that can't write its replies stops reading."""
        people = [f"user{number}" for number in range(100)]
        many = [mail(f"M{number}", *people) for number in range(50)]
        exchange = self.opened(many, STREAMING, known=Pipelining.AHEAD)
        self.assertEqual(exchange.hear().count("BDAT 20 LAST"), 10)

    def test_a_large_message_waits_for_the_envelope(self) -> None:
        """So much is sent only where somebody takes it."""
        large = b"Subject: x\r\n\r\n" + b"x" * 600_000 + b"\r\n"
        deliveries = [mail("M1"), mail("M2", content=large), mail("M3", content=large), mail("M4")]
        exchange = self.opened(deliveries, STREAMING)
        exchange.hear()
        exchange.talk(
            """
            S: 250 mail | 250 rcpt | 250 first
            C: MAIL FROM:<alice@us.example> | RCPT TO:<bob@peer.example>
            S: 250 mail | 550 5.1.1 who?
            C: RSET | MAIL FROM:<alice@us.example> | RCPT TO:<bob@peer.example>
            S: 250 reset | 250 mail | 250 rcpt
            """
        )
        self.assertEqual(exchange.outcomes("M2"), ["failed 550 5.1.1 who?"])
        self.assertEqual(exchange.hear()[0], "BDAT 600016 LAST")
        exchange.talk(
            """
            S: 250 third | 250 mail | 250 rcpt | 250 fourth
            """
        )
        self.assertEqual(exchange.outcomes("M3"), ["relayed 250 third"])
        self.assertEqual(exchange.outcomes("M4"), ["relayed 250 fourth"])

    def test_a_host_whose_last_connection_broke(self) -> None:
        """It gets content when it has taken an envelope, and ahead of replies when it took one."""
        exchange = self.opened([mail("M1")], STREAMING)
        exchange.lose()
        self.assertTrue(exchange.host.was_cut_off)
        exchange = Exchange([mail("M1"), mail("M2"), mail("M3")])
        exchange.host.was_cut_off = True
        exchange.talk(
            f"""
            S: 220 x
            C: EHLO us.example
            S: 250-peer.example | {STREAMING}
            C: MAIL FROM:<alice@us.example> | RCPT TO:<bob@peer.example>
            S: 250 mail | 250 rcpt
            C: BDAT 20 LAST | Subject: x | | body
            S: 250 taken
            """
        )
        self.assertEqual(exchange.hear().count("BDAT 20 LAST"), 1)
        exchange.talk("S: 250 mail | 250 rcpt | 250 taken")
        self.assertFalse(exchange.host.was_cut_off)

    def test_a_large_message_that_mail_refuses(self) -> None:
        """Its content stays here."""
        exchange = self.opened([mail(content=b"x" * 600_000)], STREAMING)
        exchange.talk("S: 552 5.3.4 too big | 503 what?")
        self.assertEqual(exchange.outcomes(), ["failed 552 5.3.4 too big"])
        self.assertNotIn("BDAT 600000 LAST", exchange.hear())

    def test_a_peer_that_takes_what_it_refused(self) -> None:
        """A positive reply to content that MAIL refused is the reply to something else."""
        exchange = self.opened([mail()], STREAMING)
        exchange.talk("S: 550 5.7.1 no | 503 what? | 250 fine")
        self.assertEqual(exchange.source.returned, ["M1"])

    def test_lost_with_messages_on_their_way(self) -> None:
        """What has its reply is settled in the peer's words, all else is deferred."""
        deliveries = [mail("M1"), mail("M2"), mail("M3")]
        exchange = self.opened(deliveries, STREAMING, known=Pipelining.AHEAD)
        exchange.talk("S: 250 mail | 250 rcpt | 250 first | 250 reset | 250 mail")
        exchange.lose()
        self.assertEqual(exchange.outcomes("M1"), ["relayed 250 first"])
        for name in ("M2", "M3"):
            self.assertIn("deferred 451 4.4.2 Connection lost", exchange.outcomes(name)[0])
        self.assertIsNone(exchange.failure)

    def test_the_peer_does_not_take_the_content(self) -> None:
        """Content waits for the peer, three minutes at most (RFC 5321 section 4.5.3.2.5)."""
        exchange = Exchange([mail("M1"), mail("M2")], known=Pipelining.AHEAD)
        exchange.talk("S: 220 x")
        exchange.transport.is_full = True
        exchange.say(b"250-peer.example\r\n250-PIPELINING\r\n250 CHUNKING\r\n")
        self.assertEqual(exchange.hear().count("BDAT 20 LAST"), 1)
        exchange.talk("T: 170")
        exchange.link.resumeProducing()
        self.assertEqual(exchange.hear().count("BDAT 20 LAST"), 1)
        exchange.talk("T: 180")
        for name in ("M1", "M2"):
            self.assertIn("Connection lost while sending content", exchange.outcomes(name)[0])

    def test_lmtp_does_without(self) -> None:
        """One reply for each recipient leaves nothing to run ahead of."""
        exchange = self.opened([mail()], STREAMING, replace(US, lmtp=True))
        exchange.talk("C: MAIL FROM:<alice@us.example> | RCPT TO:<bob@peer.example> | DATA")
