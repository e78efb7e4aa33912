"""How far ahead of replies a host takes commands: what is found out, and what is remembered."""

from __future__ import annotations

from dataclasses import replace

from twisted.trial.unittest import SynchronousTestCase

from mta.session import ChannelLost
from mta.smtp.pipelining import FORGET_AFTER, MAX_HOSTS, HostRecord, KnownHosts, Pipelining
from tests.senders import STREAMING, US, Exchange, SenderTestCase, mail

GROUPS = "250 PIPELINING"
ENVELOPE = "MAIL FROM:<alice@us.example> | RCPT TO:<bob@peer.example>"
CONTENT = "Subject: x | | body"


class RecordTests(SynchronousTestCase):
    """What is known of hosts."""

    def test_a_host_that_was_out_of_step(self) -> None:
        """It may show nothing better before its time is over."""
        record = HostRecord()
        record.learn(Pipelining.STEPWISE, 10.0)
        for better in (Pipelining.AHEAD, Pipelining.GROUPED):
            record.learn(better, 11.0)
            record.note_cut_off()
            self.assertIs(record.pipelining, Pipelining.STEPWISE)

    def test_time(self) -> None:
        """What a host lacks is asked for again, what it has is not forgotten."""
        for pipelining, after in (
            (Pipelining.STEPWISE, Pipelining.UNKNOWN),
            (Pipelining.GROUPED, Pipelining.UNKNOWN),
            (Pipelining.AHEAD, Pipelining.AHEAD),
        ):
            hosts = KnownHosts()
            hosts.record("a", 0.0).learn(pipelining, 100.0)
            self.assertIs(hosts.record("a", 99.0 + FORGET_AFTER).pipelining, pipelining)
            self.assertIs(hosts.record("a", 100.0 + FORGET_AFTER).pipelining, after)

    def test_hosts_do_not_share_a_record(self) -> None:
        """Each has shown what it has."""
        hosts = KnownHosts()
        hosts.record("a", 0.0).learn(Pipelining.AHEAD, 0.0)
        self.assertIs(hosts.record("b", 0.0).pipelining, Pipelining.UNKNOWN)

    def test_trouble(self) -> None:
        """It may show again that it reads ahead."""
        record = HostRecord(Pipelining.AHEAD)
        record.note_cut_off()
        self.assertIs(record.pipelining, Pipelining.UNKNOWN)
        self.assertTrue(record.was_cut_off)
        record.learn(Pipelining.AHEAD, 0.0)
        self.assertFalse(record.was_cut_off)
        record = HostRecord(Pipelining.GROUPED)
        record.note_cut_off()
        self.assertIs(record.pipelining, Pipelining.GROUPED)

    def test_bounded(self) -> None:
        """Those that nobody asked for longest are forgotten."""
        hosts = KnownHosts()
        first = hosts.record("0", 0.0)
        for number in range(1, MAX_HOSTS):
            hosts.record(str(number), 0.0)
        self.assertIs(hosts.record("0", 0.0), first)
        second = hosts.record("1", 0.0)
        hosts.record("one more", 0.0)
        self.assertIs(hosts.record("0", 0.0), first)
        hosts.record("2", 0.0)
        self.assertIs(hosts.record("1", 0.0), second)


class ProbeTests(SenderTestCase):
    """RSET behind the final dot, where more mail waits and nobody knows the host."""

    def probing(self) -> Exchange:
        """Three messages on their way, the first one's dot with the probe behind it."""
        exchange = self.opened([mail("M1"), mail("M2"), mail("M3")], GROUPS)
        exchange.talk(
            f"""
            C: {ENVELOPE} | DATA
            S: 250 mail | 250 rcpt | 354 go
            C: {CONTENT} | . | RSET
            """
        )
        return exchange

    def test_a_host_that_reads_it(self) -> None:
        """The next envelope follows the next dot."""
        exchange = self.probing()
        exchange.talk(
            f"""
            S: 250 first
            C:
            S: 250 reset
            C: {ENVELOPE} | DATA
            S: 250 mail | 250 rcpt | 354 go
            C: {CONTENT} | . | {ENVELOPE} | DATA
            """
        )
        self.assertIs(exchange.host.pipelining, Pipelining.AHEAD)
        self.assertEqual(exchange.outcomes("M1"), ["relayed 250 first"])

    def test_a_host_that_refuses_it(self) -> None:
        """As Haraka does: nothing goes behind a dot any more, and all goes well."""
        exchange = self.probing()
        exchange.talk(
            f"""
            S: 250 first | 503 pipelined after end of DATA
            C: {ENVELOPE} | DATA
            S: 250 mail | 250 rcpt | 354 go
            C: {CONTENT} | .
            S: 250 second
            C: {ENVELOPE} | DATA
            """
        )
        self.assertIs(exchange.host.pipelining, Pipelining.GROUPED)

    def test_a_host_that_drops_it(self) -> None:
        """As Courier and chasquid do: five seconds are lost, and another connection goes on."""
        exchange = self.probing()
        exchange.talk("S: 250 first\nT: 4")
        self.assertEqual(exchange.ended, [])
        exchange.talk("T: 1\nC: (closed)")
        self.assertIsNone(exchange.failure)
        self.assertEqual(exchange.outcomes("M1"), ["relayed 250 first"])
        self.assertEqual(exchange.source.returned, ["M2"])
        self.assertEqual(len(exchange.source.waiting), 1)
        self.assertIs(exchange.host.pipelining, Pipelining.GROUPED)

    def test_a_host_that_closes(self) -> None:
        """It is not tried again."""
        for end in ("E: lost", "S: 421 no"):
            exchange = self.probing()
            exchange.talk(f"S: 250 first\n{end}")
            self.assertEqual(exchange.source.returned, ["M2"])
            self.assertIs(exchange.host.pipelining, Pipelining.GROUPED)

    def test_a_host_that_closes_without_a_verdict(self) -> None:
        """The message is sent again, and nothing behind it."""
        for end in ("E: lost", "S: 421 no", "T: 600"):
            exchange = self.probing()
            exchange.talk(end)
            self.assertIn("deferred", exchange.outcomes("M1")[0])
            self.assertIs(exchange.host.pipelining, Pipelining.GROUPED)

    def test_503_ahead_of_the_verdict(self) -> None:
        """It says nothing of the message."""
        exchange = self.probing()
        exchange.talk("S: 503 pipelined after end of DATA")
        self.assertEqual(exchange.source.returned, ["M1", "M2"])
        self.assertIs(exchange.host.pipelining, Pipelining.STEPWISE)

    def test_content_that_is_refused(self) -> None:
        """That is a verdict all the same."""
        exchange = self.probing()
        exchange.talk(f"S: 554 5.7.1 spam | 250 reset\nC: {ENVELOPE} | DATA")
        self.assertEqual(exchange.outcomes("M1"), ["failed 554 5.7.1 spam"])

    def test_nothing_waits(self) -> None:
        """Then nobody needs to know."""
        exchange = self.opened([mail("M1")], GROUPS)
        exchange.talk(f"S: 250 mail | 250 rcpt | 354 go\nC: {ENVELOPE} | DATA | {CONTENT} | .")
        self.assertIs(exchange.host.pipelining, Pipelining.UNKNOWN)

    def test_a_chunk(self) -> None:
        """The first one is answered in whole before the next one is sent; then all go at once."""
        deliveries = [mail(f"M{number}") for number in range(4)]
        exchange = self.opened(deliveries, STREAMING)
        exchange.talk(
            f"""
            C: {ENVELOPE} | BDAT 20 LAST | {CONTENT}
            S: 250 mail | 250 rcpt | 250 first
            """
        )
        self.assertEqual(exchange.hear().count("BDAT 20 LAST"), 3)
        self.assertIs(exchange.host.pipelining, Pipelining.AHEAD)

    def test_a_chunk_that_the_host_does_not_know(self) -> None:
        """It may read it as commands: nothing that it says is a verdict any more."""
        for code in (500, 501, 502, 503, 504):
            exchange = self.opened([mail("M1"), mail("M2")], STREAMING)
            exchange.talk(f"S: 250 mail | 250 rcpt | {code} no chunks")
            self.assertEqual(exchange.source.returned, ["M1"])
            self.assertIs(exchange.host.pipelining, Pipelining.STEPWISE)


class AheadTests(SenderTestCase):
    """A host that has shown that it reads what is sent ahead, and shows something else now."""

    def ahead(self) -> Exchange:
        """The first message has ended, and the envelope of the second is written."""
        deliveries = [mail("M1"), mail("M2"), mail("M3")]
        exchange = self.opened(deliveries, GROUPS, known=Pipelining.AHEAD)
        exchange.talk(
            f"""
            S: 250 mail | 250 rcpt | 354 go
            C: {ENVELOPE} | DATA | {CONTENT} | . | {ENVELOPE} | DATA
            """
        )
        return exchange

    def test_503(self) -> None:
        """To the content, or to what came behind it: no verdict."""
        for script, given_back in (
            ("S: 503 order", ["M1", "M2"]),
            ("S: 250 first | 503 order", ["M2"]),
            ("S: 250 first | 250 mail | 503 order", ["M2"]),
            ("S: 250 first | 250 mail | 250 rcpt | 503 order", ["M2"]),
            ("S: 250 first | 500 what?", ["M2"]),
            ("S: 250 first | 502 what?", ["M2"]),
        ):
            exchange = self.ahead()
            exchange.talk(script)
            self.assertEqual(exchange.source.returned, given_back)
            self.assertIs(exchange.host.pipelining, Pipelining.STEPWISE)
            self.assertIsNone(exchange.failure)
            self.assertEqual(exchange.hear()[-1], "QUIT")

    def test_silence(self) -> None:
        """It is no verdict either, and not waited for as long as RFC 5321 allows."""
        exchange = self.ahead()
        exchange.talk("S: 250 first\nT: 29")
        self.assertEqual(exchange.ended, [])
        exchange.talk("T: 1")
        self.assertEqual(exchange.source.returned, ["M2"])
        self.assertIs(exchange.host.pipelining, Pipelining.STEPWISE)
        self.assertIsNone(exchange.failure)

    def test_silence_later(self) -> None:
        """Where something was read, the rest is only slow."""
        exchange = self.ahead()
        exchange.talk("S: 250 first | 250 mail\nT: 299")
        self.assertEqual(exchange.ended, [])
        exchange.talk("T: 1")
        self.assertIn("Connection lost in reply to RCPT: timed out", exchange.outcomes("M2")[0])
        self.assertIs(exchange.host.pipelining, Pipelining.UNKNOWN)

    def test_refusals(self) -> None:
        """They are what they always are."""
        exchange = self.ahead()
        exchange.talk(
            """
            S: 250 first | 550 5.7.1 not you | 503 order | 503 order
            """
        )
        self.assertEqual(exchange.outcomes("M2"), ["failed 550 5.7.1 not you"])
        exchange = self.ahead()
        exchange.talk("S: 250 first | 250 mail | 550 5.1.1 who? | 503 order")
        self.assertEqual(exchange.outcomes("M2"), ["failed 550 5.1.1 who?"])
        self.assertIs(exchange.host.pipelining, Pipelining.AHEAD)

    def test_the_connection_is_lost(self) -> None:
        """Whatever the reason, the host may show again that it reads ahead."""
        exchange = self.ahead()
        exchange.lose()
        self.assertIs(exchange.host.pipelining, Pipelining.UNKNOWN)

    def test_in_step(self) -> None:
        """After trouble: no groups, no chunks, and 503 is what the host has to say."""
        for keywords in (GROUPS, STREAMING):
            exchange = self.opened([mail()], keywords, known=Pipelining.STEPWISE)
            exchange.talk("C: MAIL FROM:<alice@us.example>\nS: 503 5.5.1 never\nC: QUIT")
            self.assertEqual(exchange.outcomes(), ["failed 503 5.5.1 never"])
        exchange = self.opened(
            [mail("M1", "bob", "carol")], GROUPS, replace(US, lmtp=True), known=Pipelining.STEPWISE
        )
        exchange.talk(
            """
            S: 250 mail | 250 rcpt | 354 go | 250 bob
            S: 250 mail | 250 rcpt | 354 go | 250 carol
            """
        )
        self.assertEqual(exchange.outcomes(), ["delivered 250 bob", "delivered 250 carol"])

    def test_reset_without_250(self) -> None:
        """RFC 5321 section 4.1.1.5 knows no other reply: this one belongs to something else."""
        for keywords, known in (
            ("250 HELP", Pipelining.UNKNOWN),
            (GROUPS, Pipelining.UNKNOWN),
            (STREAMING, Pipelining.AHEAD),
        ):
            exchange = self.opened([mail("M1", "nobody"), mail("M2")], keywords, known=known)
            exchange.talk("S: 250 mail | 550 who?")
            if keywords != "250 HELP":
                exchange.talk("S: 503 no recipients")
            exchange.talk("S: 500 what?")
            self.assertNotIn("relayed", str(exchange.source.outcomes.get("M2")))
            self.assertTrue(exchange.transport.disconnecting)

    def test_lost_before_the_reply_to_reset(self) -> None:
        """What was answered before it counts."""
        deliveries = [mail("M1"), mail("M2")]
        exchange = self.opened(deliveries, STREAMING, known=Pipelining.AHEAD)
        exchange.talk("S: 250 mail | 250 rcpt | 250 first\nE: lost")
        self.assertEqual(exchange.outcomes("M1"), ["relayed 250 first"])
        self.assertNotIsInstance(exchange.failure, ChannelLost)
