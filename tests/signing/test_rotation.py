"""The steps of a rotation."""

from datetime import UTC, datetime, timedelta

from mta.config import REMOVED
from mta.mail import Agent, Hop
from mta.settings import DKIMKey, Domain, KeyState
from mta.signing.key_files import KeyFile
from mta.signing.keys import KeyFault
from mta.signing.making import KeyMaker
from mta.signing.rotation import (
    Step,
    additions,
    end_of_retirement,
    next_step,
    removals,
    switch,
)
from tests.signing.test_keys import RSA, KeyCase, pem

NOW = datetime(2026, 11, 27, 22, 30, 5, tzinfo=UTC)
WEEK = timedelta(days=7)


class RotationTests(KeyCase):
    """Which step comes next, and what it edits."""

    def domain(self, *states: KeyState) -> Domain:
        """A domain with keys in these states."""
        keys = KeyMaker("example.com", self.folder)
        made = [
            keys.make(("ed25519",), [f"2026{letter}"], state, NOW)[0]
            for letter, state in zip("abcdef", states, strict=False)
        ]
        return Domain("example.com", Hop(Agent.DISCARD), dkim=tuple(made))

    def test_steps(self) -> None:
        """New keys, the change to them, a week, and the end of the old ones."""
        active, coming, old = KeyState.ACTIVE, KeyState.NEXT, KeyState.RETIRING
        self.assertEqual(Step.BEGIN, next_step(self.domain(active, active), NOW))
        self.assertEqual(Step.SWITCH, next_step(self.domain(active, coming), NOW))
        self.assertEqual(Step.SWITCH, next_step(self.domain(active, coming, old), NOW))
        domain = self.domain(old, active)
        KeyFile(domain.dkim[0].file).retire(NOW)
        for later, step in ((WEEK - timedelta(seconds=1), Step.KEEP), (WEEK, Step.DROP)):
            self.assertEqual(step, next_step(domain, NOW + later))

    def test_no_date(self) -> None:
        """A key that a person retired has its week as of the first look."""
        domain = self.domain(KeyState.RETIRING, KeyState.ACTIVE)
        self.assertEqual(Step.KEEP, next_step(domain, NOW))
        self.assertEqual(NOW + WEEK, end_of_retirement(domain, NOW + timedelta(days=3)))
        self.assertEqual(Step.DROP, next_step(domain, NOW + WEEK))

    def test_wrong_clock(self) -> None:
        """A key that was retired by a clock a day ahead may go a day later, and no more."""
        domain = self.domain(KeyState.RETIRING, KeyState.ACTIVE)
        day = timedelta(days=1)
        self.assertEqual(Step.KEEP, next_step(domain, NOW + day))
        self.assertEqual(Step.KEEP, next_step(domain, NOW + WEEK))
        self.assertEqual(Step.DROP, next_step(domain, NOW + WEEK + day))

    def test_edits(self) -> None:
        """They name what changes, by its number; what goes last goes first."""
        states = (KeyState.RETIRING, KeyState.ACTIVE, KeyState.NEXT, KeyState.RETIRING)
        domain = self.domain(*states)
        place = ("domains", "example.com", "dkim")
        self.assertEqual(
            {(*place, "1", "state"): "retiring", (*place, "2", "state"): "active"},
            switch(domain, NOW),
        )
        self.assertEqual(NOW, KeyFile(domain.dkim[1].file).retired)
        self.assertIsNone(KeyFile(domain.dkim[2].file).retired)
        self.assertEqual(
            [((*place, "3"), REMOVED), ((*place, "0"), REMOVED)], list(removals(domain).items())
        )
        new = [DKIMKey("x", self.folder / "x"), DKIMKey("y", self.folder / "y", KeyState.NEXT)]
        entries = [
            {"selector": "x", "key": "x"},
            {"selector": "y", "key": "y", "state": "next"},
        ]
        self.assertEqual(
            {(*place, "4"): entries[0], (*place, "5"): entries[1]},
            additions(domain, new, self.folder),
        )
        self.assertEqual({place: entries}, additions(self.domain(), new, self.folder))

    def test_keys_that_are_gone(self) -> None:
        """An old one without a file goes; one that can't be read is for a person to look at."""
        domain = self.domain(KeyState.RETIRING, KeyState.ACTIVE)
        file = domain.dkim[0].file
        file.unlink()
        self.assertEqual(Step.DROP, next_step(domain, NOW))
        file.mkdir()
        self.assertRaises(KeyFault, next_step, domain, NOW)

    def test_key_of_several_domains(self) -> None:
        """The file that two domains share has the later date."""
        key = DKIMKey("a", self.write(pem(RSA)))
        domains = [Domain(n, Hop(Agent.DISCARD), dkim=(key,)) for n in ("a.example", "b.example")]
        switch(domains[0], NOW)
        switch(domains[1], NOW + WEEK)
        self.assertEqual(NOW + WEEK, KeyFile(key.file).retired)
