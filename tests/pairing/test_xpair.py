"""XPAIR between both sides, in memory."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mta.link import Link
from mta.mail import Reply
from mta.pairing.pairings import EXPIRED, LIFETIME, Pairings, new_password
from mta.pairing.redemption import Redemption
from mta.pairing.request import PairingRefused, PairingRole, granted
from mta.pairing.token import Token
from mta.settings import ListenerTLS, Service
from mta.smtp.receiver import Receiver
from mta.testing import ConnectionPair, FakeTLS, MemorySpool
from tests.conversations import receiver_config

NONCE = "0a" * 16


class PairTests(SynchronousTestCase):
    """A relay with a pairing, and an office that calls."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.clock = Clock()
        self.clock.advance(1000)
        pairings = Pairings(Path(folder.name), self.clock.seconds)
        self.password = new_password()
        pairing, secret = pairings.open("office", "office", ["example.com"], self.password)
        self.token = Token(
            "relay.example", 465, "ab" * 32, pairing.id, secret, "office", ("example.com",)
        )
        self.redemption = Redemption(pairings, self.at_once, self.clock.seconds)

    def at_once(self, *call):  # type: ignore[no-untyped-def]
        """A thread that has done its work already."""
        return maybeDeferred(*call)

    def call(self, token: Token | None = None, nonce: str = NONCE, cut: int = 0) -> PairingRole:
        """Call the relay; the connection is cut after so many writes."""
        config = receiver_config(
            MemorySpool(), service=Service.SUBMISSION, tls=ListenerTLS.IMPLICIT
        )
        config = replace(config, pairing=self.redemption)
        role = PairingRole("office.example.com", token or self.token, nonce)
        client = Link(role, self.clock, FakeTLS("ab" * 32), tls_at_once=True)
        server = Link(Receiver(config), self.clock, FakeTLS())
        for link in (client, server):
            ended: Deferred[None] = link.ended
            ended.addErrback(lambda failure: None)
        pair = ConnectionPair(client, server)
        client.handshakeCompleted()
        server.handshakeCompleted()
        for _ in range(cut or 100):
            if not pair.carry():
                self.clock.advance(1)
        if cut:
            pair.cut()
        return role

    def test_it_is_heard(self) -> None:
        """The office hears its user, its password and the relay's time."""
        answer = self.call().granted
        assert answer is not None
        self.assertEqual((answer.user, answer.password), ("office", self.password))
        self.assertEqual(answer.time // 100, 10)

    def test_a_cut_at_any_place(self) -> None:
        """The same command again completes it, wherever the connection broke."""
        for cut in range(1, 12):
            self.setUp()
            self.call(cut=cut)
            answer = self.call().granted
            assert answer is not None, cut
            self.assertEqual(answer.password, self.password)

    def test_reasons(self) -> None:
        """A person is told what is wrong with the token."""
        wrong = replace(self.token, secret="ff" * 16)
        self.assertIn("knows no such pairing", self.call(wrong).refusal)
        self.call()
        self.assertIn("was used already", self.call(nonce="0b" * 16).refusal)
        self.clock.advance(LIFETIME)
        self.assertIn("has expired", self.call().refusal)

    def test_no_oracle(self) -> None:
        """Who guesses can't tell a pairing that is open from none."""
        guesses = [
            replace(self.token, secret="ff" * 16),
            replace(self.token, id="ff" * 8),
        ]
        self.assertEqual(*(self.call(guess).refusal for guess in guesses))


class AnswerTests(SynchronousTestCase):
    """The relay's answer is input from elsewhere."""

    def refusal(self, reply: Reply) -> str:
        """The reason why an answer is not taken."""
        return str(self.assertRaises(PairingRefused, granted, reply))

    def test_what_is_not_understood(self) -> None:
        """Each line once, printable and bounded."""
        good = ("TIME 12", "USER office", "PASSWORD x")
        self.assertEqual(granted(Reply(250, "2.0.0", (*good, "NEWS later"))).time, 12)
        for lines in (
            good[1:],
            (*good, "USER mallory"),
            ("TIME -1", *good[1:]),
            ("TIME 1e9", *good[1:]),
            ("TIME " + "9" * 13, *good[1:]),
            (*good[:2], "PASSWORD a b"),
            (*good[:2], "PASSWORD " + "x" * 300),
            (*good[:2], "PASSWORD \x1b[1m"),
        ):
            self.assertIn("can't be understood", self.refusal(Reply(250, "2.0.0", lines)))

    def test_other_servers(self) -> None:
        """Each refusal has words; one that is not known is shown."""
        self.assertIn("another program", self.refusal(Reply(500, "5.5.1", ("Unknown",))))
        self.assertIn("unban", self.refusal(Reply(421, "4.7.0", ("Too many",))))
        self.assertIn("expired", self.refusal(EXPIRED))
        self.assertIn("571 No", self.refusal(Reply(571, "", ("No",))))
