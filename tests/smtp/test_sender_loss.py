"""The connection of a sender is lost, closed or silent."""

from __future__ import annotations

from dataclasses import replace
from unittest.mock import patch

from mta.mail import Status
from mta.smtp import sevenbit
from mta.smtp.pipelining import Pipelining
from tests.senders import STREAMING, US, Broken, Exchange, SenderTestCase, mail


class LossTests(SenderTestCase):
    """The connection is lost, closed or silent: nothing is lost with it."""

    STEPS = (
        ("", "in reply to MAIL", 300),
        ("S: 250 mail", "in reply to RCPT", 300),
        ("S: 250 mail | 250 rcpt", "in reply to DATA", 120),
        (
            "S: 250 mail | 250 rcpt | 354 go",
            "after the end of content: the message may be sent more than once",
            600,
        ),
    )

    def assert_deferred(self, exchange: Exchange, reply: str, *, over_content: bool) -> None:
        """The message waits, for that reason; nothing was taken before, so the hop failed, where it
        was not `over_content`, which may be the message's own fault."""
        self.assertEqual(exchange.outcomes(), [f"deferred {reply}"])
        [outcome] = exchange.source.outcomes["M1"]
        self.assertEqual(outcome.broke_in_content, over_content)
        if over_content:
            self.assertIsNone(exchange.failure)
        else:
            self.assertTrue(outcome.try_next_host)
            self.assert_unusable(exchange, reply)

    def test_lost(self) -> None:
        """At each step; after the content it may have been taken all the same."""
        for script, phrase, _ in self.STEPS:
            exchange = self.opened([mail()])
            exchange.talk(script)
            exchange.lose()
            self.assert_deferred(
                exchange,
                f"451 4.4.2 Connection lost {phrase}: Connection was closed cleanly.",
                over_content="354" in script,
            )

    def test_silent(self) -> None:
        """At each step, for as long as RFC 5321 section 4.5.3.2 says."""
        for script, phrase, seconds in self.STEPS:
            exchange = self.opened([mail()])
            exchange.talk(f"{script}\nT: {seconds - 1}")
            self.assertEqual(exchange.ended, [])
            exchange.talk("T: 1")
            self.assert_deferred(
                exchange,
                f"451 4.4.2 Connection lost {phrase}: timed out",
                over_content="354" in script,
            )

    def test_closing(self) -> None:
        """421 at each step, in the peer's words."""
        for script, _, _ in self.STEPS:
            exchange = self.opened([mail()])
            exchange.talk(f"{script}\nS: 421 4.3.2 going down")
            self.assert_deferred(exchange, "421 4.3.2 going down", over_content="354" in script)

    def test_garbage(self) -> None:
        """At each step."""
        for script, phrase, _ in self.STEPS:
            exchange = self.opened([mail()])
            exchange.talk(f"{script}\nS: eh?")
            self.assert_deferred(
                exchange,
                f"451 4.5.0 Protocol error {phrase}: not a reply: b'eh?'",
                over_content="354" in script,
            )

    def test_the_peer_does_not_take_the_content(self) -> None:
        """Three minutes for each piece (RFC 5321 section 4.5.3.2.5)."""
        exchange = self.opened([mail()])
        exchange.talk("S: 250 mail | 250 rcpt")
        exchange.transport.is_full = True
        exchange.talk(
            """
            S: 354 go
            T: 179
            """
        )
        self.assertEqual(exchange.ended, [])
        exchange.talk("T: 1")
        self.assert_deferred(
            exchange,
            "451 4.4.2 Connection lost while sending content: timed out",
            over_content=True,
        )

    def test_what_was_taken_before_stays_taken(self) -> None:
        """And the hop has not failed: it took something."""
        exchange = self.opened([mail("M1"), mail("M2"), mail("M3")])
        exchange.talk("S: 250 mail | 250 rcpt | 354 go | 250 taken")
        exchange.lose()
        self.assertEqual(exchange.outcomes("M1"), ["relayed 250 taken"])
        self.assertIn("deferred 451 4.4.2", exchange.outcomes("M2")[0])
        self.assertEqual(len(exchange.source.waiting), 1)
        self.assertIsNone(exchange.failure)

    def test_what_was_refused_before_stays_refused(self) -> None:
        """Whatever becomes of the connection then."""
        for script, bob, carol in (
            ("S: 250 mail | 550 who? | 250 rcpt", "failed 550 who?", "deferred 451 4.4.2"),
            ("S: 550 not you", "failed 550 not you", "failed 550 not you"),
        ):
            exchange = self.opened([mail("M1", "bob", "carol")], "250 PIPELINING")
            exchange.talk(f"{script}\nE: lost")
            outcomes = exchange.outcomes()
            self.assertEqual(outcomes[0], bob)
            self.assertIn(carol, outcomes[1])

    def test_recipients_still_to_be_tried(self) -> None:
        """Those that one transaction settled keep their outcome."""
        exchange = self.opened([mail("M1", "bob", "carol", "dave")])
        exchange.talk("S: 250 mail | 250 rcpt | 550 no | 452 too many | 354 go | 250 taken")
        exchange.lose()
        relayed, failed, deferred = exchange.outcomes()
        self.assertEqual((relayed, failed), ("relayed 250 taken", "failed 550 no"))
        self.assertIn("deferred 451 4.4.2 Connection lost in reply to MAIL", deferred)

    def test_quit_is_only_polite(self) -> None:
        """Whatever becomes of it, the mail is settled and nothing is wrong."""
        for script in ("E: lost", "T: 5", "S: 500 what?", "S: 421 yes", "S: eh?"):
            exchange = self.opened([])
            exchange.talk(script)
            self.assertIsNone(exchange.failure)

    def test_the_content_can_not_be_read(self) -> None:
        """The spool's fault is not the peer's: the message is deferred, the hop is good."""

        for keywords, script in (
            ("250 HELP", "S: 250 mail | 250 rcpt | 354 go"),
            (STREAMING, ""),
        ):
            whole = mail()
            broken = replace(whole, message=replace(whole.message, content=Broken()))
            exchange = self.opened([broken], keywords)
            exchange.talk(script)
            self.assertEqual(
                exchange.outcomes(),
                ["deferred 451 4.3.0 Requested action aborted: local error in processing"],
            )
            self.assertIsNone(exchange.failure)
            self.assertTrue(exchange.transport.disconnecting)
            self.assertNotIn(".", exchange.hear())

    def marks(self, exchange: Exchange, name: str = "M1") -> str:
        """Whether another host may have the message at once, and whether the content is suspect."""
        [outcome] = exchange.source.outcomes[name]
        marks = {
            "elsewhere": outcome.try_next_host,
            "broke": outcome.broke_in_content,
        }
        return " ".join(mark for mark, is_set in marks.items() if is_set)

    def test_what_another_host_may_have(self) -> None:
        """All that this one did not take for now, unless it may have taken it all the same."""
        groups, chunks = "250 PIPELINING", STREAMING
        for keywords, script, marks in (
            (groups, "S: 451 later | 503 what? | 503 what?", "elsewhere"),
            (groups, "S: 250 mail | 450 greylisted | 503 what?", "elsewhere"),
            (groups, "S: 250 mail | 250 rcpt | 451 no", "elsewhere"),
            (groups, "S: 250 mail | 250 rcpt | 354 go | 451 no", "elsewhere"),
            (groups, "S: 250 mail | 550 who? | 503 what?", ""),
            (groups, "S: 250 mail | 250 rcpt | 354 go | 554 spam", ""),
            (groups, "S: 250 mail\nE: lost", "elsewhere"),
            (groups, "S: 250 mail | 421 going", "elsewhere"),
            (groups, "S: 250 mail | 250 rcpt | 354 go | 421 going", "elsewhere broke"),
            (groups, "S: 250 mail | 250 rcpt | 354 go\nE: lost", "broke"),
            (chunks, "E: lost", "elsewhere broke"),  # it had not even read MAIL
            (chunks, "S: 421 going", "elsewhere"),
            (chunks, "T: 300", "broke"),
            (chunks, "S: 250 mail\nE: lost", "broke"),
        ):
            exchange = self.opened([mail()], keywords)
            exchange.talk(script)
            self.assertEqual(self.marks(exchange), marks, (keywords, script))

    def test_what_another_host_may_have_of_half_a_message(self) -> None:
        """The peer can't have taken what it has not got."""
        exchange = self.opened([mail()])
        exchange.talk("S: 250 mail | 250 rcpt")
        exchange.transport.is_full = True
        exchange.talk("S: 354 go\nE: lost")
        self.assertEqual(self.marks(exchange), "elsewhere broke")

    def test_what_another_host_may_have_as_this_one_lacks_something(self) -> None:
        """Though it fails, where no other host is left."""
        exchange = self.opened([mail("M1", "b\u00fc", smtputf8=True)])
        self.assertEqual(self.marks(exchange), "elsewhere")
        self.assertEqual(exchange.source.outcomes["M1"][0].status, Status.FAILED)

    def test_what_was_answered_while_content_was_on_its_way(self) -> None:
        """It counts, though the connection is lost before anybody has read it."""
        large = b"x\r\n" * 100_000
        for replies, outcome in (
            ("250 mail | 250 rcpt | 250 first | 250 reset", "relayed 250 first"),
            ("250 mail | 250 rcpt | 250 first", "relayed 250 first"),
            ("250 mail | 550 who? | 554 nobody | 250 reset", "failed 550 who?"),
            ("250 mail | 250 rcpt | 421 closing", "deferred 421 closing"),
            ("250 mail | 250 rcpt", "deferred 451 4.4.2 Connection lost"),
        ):
            deliveries = [mail("M1"), mail("M2", content=large), mail("M3")]
            exchange = Exchange(deliveries, known=Pipelining.AHEAD)
            exchange.talk("S: 220 x | 250-x | 250-PIPELINING")
            exchange.transport.is_full = True
            exchange.say(b"250 CHUNKING\r\n")
            exchange.link.resumeProducing()
            self.assertIn("BDAT 300000 LAST", exchange.hear())
            exchange.talk(f"S: {replies}")
            exchange.lose()
            self.assertIn(outcome, exchange.outcomes("M1")[0])
            self.assertIn("deferred", exchange.outcomes("M2")[0])

    def test_what_is_answered_before_the_last_of_a_chunk_is_known_to_be_gone(self) -> None:
        """The reply counts, and what had none may have been taken all the same."""
        lines = 100_000
        for replies, outcome, marks in (
            ("250 mail | 250 rcpt | 250 taken", "relayed 250 taken", ""),
            ("250 mail | 250 rcpt | 452 full", "deferred 452 full", "elsewhere"),
            ("250 mail | 250 rcpt", "deferred 451 4.4.2 Connection lost after the end", "broke"),
        ):
            exchange = Exchange([mail("M1", content=b"~\r\n" * lines)])
            exchange.talk("S: 220 x | 250-x | 250-PIPELINING")
            exchange.transport.is_full, heard = True, 0
            exchange.say(b"250 CHUNKING\r\n")
            while lines > (heard := heard + exchange.transport.taken().count(b"~")):
                exchange.link.resumeProducing()
            exchange.talk(f"S: {replies}")
            exchange.lose()
            self.assertIn(outcome, exchange.outcomes()[0])
            self.assertEqual(marks, self.marks(exchange))
            self.assertEqual([], exchange.source.returned)

    def test_content_that_is_refused_before_its_end(self) -> None:
        """With one command at a time it is refused, whether the peer then reads on or closes."""
        for keywords, known in (
            ("250 HELP", Pipelining.UNKNOWN),
            ("250-PIPELINING | 250 CHUNKING", Pipelining.STEPWISE),
        ):
            for reply, closes, outcome in (
                ("552 5.3.4 too big", False, "failed 552 5.3.4 too big"),
                ("554 5.7.1 spam", True, "failed 554 5.7.1 spam"),
                ("451 4.7.1 later", True, "deferred 451 4.7.1 later"),
                ("250 fine", False, "deferred 451 4.5.0 Protocol error while sending content"),
                ("421 closing", False, "deferred 421 closing"),
                ("eh?", False, "deferred 451 4.5.0 Protocol error while sending content"),
            ):
                content = b"~\r\n" * 100_000
                exchange = self.opened([mail("M1", content=content)], keywords, known=known)
                exchange.talk("S: 250 mail | 250 rcpt")
                exchange.transport.is_full = True
                exchange.talk(f"S: 354 go | {reply}")
                if closes:
                    exchange.lose()
                self.assertIn(outcome, exchange.outcomes()[0])
                self.assertTrue(exchange.transport.disconnecting)

    def test_content_that_an_lmtp_server_refuses_before_its_end(self) -> None:
        """Nobody knows for which recipient, nor how many replies are still to come."""
        content = b"~\r\n" * 100_000
        exchange = self.opened(
            [mail("M1", content=content)],
            config=replace(US, lmtp=True),
            known=Pipelining.STEPWISE,
        )
        exchange.talk("S: 250 mail | 250 rcpt")
        exchange.transport.is_full = True
        exchange.talk("S: 354 go | 552 5.3.4 too big")
        self.assertIn("deferred 451 4.5.0 Protocol error", exchange.outcomes()[0])

    def test_content_that_is_refused_before_its_end_by_a_peer_that_may_be_out_of_step(self) -> None:
        """It is no verdict yet: another connection goes step by step."""
        for closes in (False, True):
            content = b"~\r\n" * 100_000
            exchange = self.opened([mail("M1", content=content)], "250 PIPELINING")
            exchange.transport.is_full = True
            exchange.talk("S: 250 mail | 250 rcpt | 354 go")
            if closes:
                exchange.link.wire.feed(b"552 5.3.4 too big\r\n")
                exchange.lose()
            else:
                exchange.talk("S: 552 5.3.4 too big")
            self.assertEqual(exchange.source.returned, ["M1"])
            self.assertIs(exchange.host.pipelining, Pipelining.STEPWISE)

    def test_what_goes_before_content_that_can_not_be_read(self) -> None:
        """Its replies are awaited: it has its own outcome."""
        whole = mail("M2")
        broken = replace(whole, message=replace(whole.message, content=Broken()))
        exchange = self.opened([mail("M1"), broken, mail("M3")], STREAMING, known=Pipelining.AHEAD)
        exchange.talk("S: 250 mail | 250 rcpt | 250 taken | 250 reset")
        self.assertEqual(exchange.outcomes("M1"), ["relayed 250 taken"])
        self.assertIn("deferred 451 4.3.0", exchange.outcomes("M2")[0])
        self.assertEqual(self.marks(exchange, "M2"), "")
        self.assertEqual(len(exchange.source.waiting), 1)
        self.assertIsNone(exchange.failure)
        broken = replace(whole, message=replace(whole.message, content=Broken()))
        exchange = self.opened([mail("M1"), broken], STREAMING, known=Pipelining.AHEAD)
        exchange.lose()
        self.assertEqual(self.marks(exchange, "M1"), "")

    def test_an_address_that_no_path_can_hold(self) -> None:
        """Nothing of it is sent, and the mail behind it goes on."""
        exchange = self.opened([mail("M1", "b\r\nRSET"), mail("M2")])
        exchange.talk("C: MAIL FROM:<alice@us.example>")
        self.assertIn("deferred 451 4.3.0 Local error", exchange.outcomes()[0])
        exchange.talk("S: 250 mail | 250 rcpt | 354 go | 250 taken")
        self.assertEqual(exchange.outcomes("M2"), ["relayed 250 taken"])

    def test_content_that_shows_a_bug(self) -> None:
        """It costs the one message, and the mail behind it goes on."""
        for bug in (RecursionError("too deep"), ValueError("what?"), KeyError("x"), MemoryError()):
            with patch.object(sevenbit, "converted", side_effect=bug):
                exchange = self.opened([mail("M1", content=b"\r\n\xff"), mail("M2")])
            self.assertIn("deferred 451 4.3.0 Local error in processing", exchange.outcomes()[0])
            exchange.talk("S: 250 mail | 250 rcpt | 354 go | 250 taken")
            self.assertEqual(exchange.outcomes("M2"), ["relayed 250 taken"])


class StopTests(SenderTestCase):
    """The service stops."""

    def test_the_transaction_is_brought_to_its_end(self) -> None:
        """No other is begun."""
        exchange = self.opened([mail("M1"), mail("M2")])
        exchange.talk(
            """
            S: 250 mail
            E: the service stops
            S: 250 rcpt | 354 go
            C: MAIL FROM:<alice@us.example> | RCPT TO:<bob@peer.example> | DATA | Subject: x |
               | body | .
            S: 250 taken
            C: QUIT
            S: 221 bye
            C: (closed)
            """
        )
        self.assertEqual(exchange.outcomes(), ["relayed 250 taken"])
        self.assertEqual(len(exchange.source.waiting), 1)

    def test_while_no_mail_is_there(self) -> None:
        """The session ends at once."""
        exchange = self.opened([], waits=True)
        exchange.talk(
            """
            C:
            E: the service stops
            C: QUIT
            """
        )
