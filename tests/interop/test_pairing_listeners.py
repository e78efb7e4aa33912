"""Pairings by each kind of listener, and with several processes behind it."""

from __future__ import annotations

import signal

from tests.interop.pairing import LETTER, RELAY, PairingCase

IMPLICIT = "service: submission, tls: implicit}"
STARTTLS = RELAY.replace(IMPLICIT, "service: submission, tls: required}")


class WorkersTests(PairingCase):
    """A relay of two processes, which share pairings, lists and passwords."""

    more = "queue: {workers: 2}"

    def setUp(self) -> None:
        super().setUp()
        assert self.relay.process is not None
        self.relay.process.wait_for("worker ready")

    def test_mail_in_both_directions(self) -> None:
        """Whichever process takes a call knows what the others know."""
        said = self.pair(self.line("office", "--domain", "example.com"))
        self.assertIn("delivered: mail goes both ways", said)
        self.office.start()
        carol, alice = "carol@partner.example", "alice@example.com"
        for count in range(1, 4):
            self.relay.ports["smtp"] = self.smtp
            self.relay.send(LETTER % carol.encode(), alice, reverse_path=carol)
            self.office.wait_for_mail("example.com/alice", 1 + count)
            self.office.send(LETTER % alice.encode(), carol, reverse_path=alice)
            self.relay.wait_for_mail("partner.example/carol", count)

    def test_a_reload_is_told_once(self) -> None:
        """What all processes read alike, one of them says."""
        process = self.relay.process
        assert process is not None
        for _ in range(3):
            said = len(process.output)
            process.signal(signal.SIGHUP)
            process.wait_for("read again", after=said)
        self.relay.stop()
        self.assertEqual(process.output.count("read again"), 3, process.output)
