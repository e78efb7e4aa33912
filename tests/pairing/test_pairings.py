"""The file of pairings: one use, fifteen minutes, five wrong secrets."""

from __future__ import annotations

import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from mta.pairing.pairings import (
    EXPIRED,
    LIFETIME,
    MAX_PAIRINGS,
    MAX_WRONG,
    NAME,
    REMEMBERED,
    USED,
    WRONG_TOO_OFTEN,
    Grant,
    Pairings,
    new_password,
)
from mta.session import PairingRequest
from mta.smtp.errors import Refusal

NONCE, OTHER = "0a" * 16, "0b" * 16


class PairingsTests(SynchronousTestCase):
    """One spool folder, and a clock."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.time = 1_000_000.0
        self.pairings = Pairings(self.folder, lambda: self.time)
        self.password = new_password()
        self.pairing, self.secret = self.open("office")

    def open(self, peer: str):  # type: ignore[no-untyped-def]
        """Open a pairing of a peer."""
        return self.pairings.open(peer, peer, ["example.com"], self.password)

    def redeem(self, *, secret: str = "", nonce: str = NONCE, id: str = "") -> Grant | None:
        """Ask for the grant."""
        request = PairingRequest(id or self.pairing.id, secret or self.secret, nonce)
        return self.pairings.redeem(request)

    def refusal(self, **keys: str) -> object:
        """The reply to a request that is refused with the right secret."""
        return self.assertRaises(Refusal, self.redeem, **keys).reply

    def test_the_grant(self) -> None:
        """The right secret opens the password, for this process and others."""
        grant = Pairings(self.folder, lambda: self.time).redeem(
            PairingRequest(self.pairing.id, self.secret, NONCE)
        )
        self.assertEqual(grant, Grant("office", "office", self.password, ["example.com"]))
        self.assertEqual(self.pairings.waiting(), [])

    def test_nothing_secret_is_on_the_disk(self) -> None:
        """Who reads the file has neither the secret nor the password; few may read it."""
        path = self.folder / NAME
        text = path.read_text()
        self.assertNotIn(self.secret, text)
        self.assertNotIn(self.password, text)
        self.assertEqual(path.stat().st_mode & 0o777, 0o600)

    def test_one_use(self) -> None:
        """Another nonce is another office; the same one is the same request again."""
        self.redeem()
        self.assertEqual(self.refusal(nonce=OTHER), USED)
        again = self.redeem()
        assert again is not None
        self.assertEqual((again.password, again.is_repeated), (self.password, True))

    def test_expiry(self) -> None:
        """It ends after its time, a repetition too, and is forgotten after a day."""
        self.time += LIFETIME - 1
        self.redeem()
        self.time += 1
        self.assertEqual(self.refusal(), EXPIRED)
        self.assertEqual(self.pairings.waiting(), [])
        self.time += REMEMBERED
        self.open("branch")
        self.assertIsNone(self.redeem())

    def test_a_clock_that_is_set_back(self) -> None:
        """No pairing lives longer for it."""
        self.time -= 3600
        self.assertEqual(self.refusal(), EXPIRED)

    def test_wrong_secrets(self) -> None:
        """After five of them the right one is of no use either."""
        for _ in range(MAX_WRONG - 1):
            self.assertIsNone(self.redeem(secret="ff" * 16))
        self.assertEqual(len(self.pairings.waiting()), 1)
        self.assertIsNone(self.redeem(secret="ff" * 16))
        self.assertEqual(self.pairings.waiting(), [])
        self.assertEqual(self.refusal(), WRONG_TOO_OFTEN)

    def test_an_unknown_pairing(self) -> None:
        """Guesses at other pairings take nothing from this one, and write nothing."""
        before = (self.folder / NAME).stat().st_ino
        for _ in range(2 * MAX_WRONG):
            self.assertIsNone(self.redeem(id="ff" * 8))
        self.assertEqual((self.folder / NAME).stat().st_ino, before)
        self.assertIsNotNone(self.redeem())

    def test_a_new_one_ends_the_old_one(self) -> None:
        """A peer has one pairing; those of others stay."""
        old, old_secret = self.pairing, self.secret
        self.open("branch")
        self.pairing, self.secret = self.open("office")
        self.assertIsNone(self.redeem(id=old.id, secret=old_secret))
        self.assertEqual([each.peer for each in self.pairings.waiting()], ["branch", "office"])
        self.pairings.end("office")
        self.assertEqual([each.peer for each in self.pairings.waiting()], ["branch"])
        self.assertIsNone(self.redeem())

    def test_bounds(self) -> None:
        """There are no more than so many; a damaged file is none."""
        for number in range(MAX_PAIRINGS):
            self.open(f"office{number}")
        self.assertEqual(len(self.pairings.waiting()), MAX_PAIRINGS)
        for text in ("", "{", "[1]", '[{"id": 1}]'):
            (self.folder / NAME).write_text(text)
            self.assertEqual(self.pairings.waiting(), [])
            self.assertIsNone(self.redeem())
