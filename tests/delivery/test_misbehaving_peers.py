"""Whatever a next host does wrong, in whichever phase: no mail is lost, doubled or returned for it.

Each row is one fault in one phase, played with three manners of sending, against a hop that has no
other host and one that has a good one behind it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from twisted.trial.unittest import SynchronousTestCase

from mta.mail import Agent, Hop, Security, Status
from mta.testing import FakeResolver
from tests.faulty_hosts import FAULTS, ODD_REPLIES, PHASES, STRANGE_REPLIES, Hosts
from tests.next_hops import DOMAIN, NextHops

MANNERS = {
    "step by step": ("SIZE", "AUTH PLAIN"),
    "groups": ("SIZE", "PIPELINING", "AUTH PLAIN"),
    "chunks": ("SIZE", "PIPELINING", "CHUNKING", "AUTH PLAIN"),
}
LONGEST = 3600.0  # seconds for all hosts: the longest steps are those of ten minutes
MESSAGES = ("M1", "M2", "M3")
ATTEMPTS = 3
# Where commands go in groups, a reply that belongs to nothing makes all of them doubtful: what the
# peer may have been told, it is told again.
OUT_OF_STEP = ("garbage", "early", "double", *ODD_REPLIES)
# The phases in which nobody can know whether the host has the message.
AFTER_CONTENT = ("end", "BDAT", "content")


class PeerCase(SynchronousTestCase):
    """A hop whose first host has a fault."""

    def play(self, phase: str, fault: str, manner: str, *, alone: bool) -> tuple[NextHops, Hosts]:
        """A hop whose first host has that fault."""
        records = [(10, "mx1")] if alone else [(10, "mx1"), (20, "mx2")]
        names = FakeResolver({DOMAIN: records}, {"mx1": ["192.0.2.1"], "mx2": ["192.0.2.2"]})
        keywords = MANNERS[manner]
        security = Security.OPPORTUNISTIC if phase == "STARTTLS" else Security.OFF
        user = "us" if phase == "AUTH" else ""
        if phase in ("STARTTLS", "AUTH"):
            security = Security.OPPORTUNISTIC
            keywords = (*keywords, "STARTTLS")
        hop = Hop(Agent.MX, DOMAIN, security=security, user=user, secret=user and "x")
        hops = NextHops(names, hop=hop)
        self.addCleanup(hops.stop)
        hosts = Hosts(hops, keywords, "192.0.2.1", phase, fault)
        return hops, hosts

    def attempt(self, hops: NextHops, hosts: Hosts, names: Sequence[str]) -> None:
        """Let these messages have an attempt."""
        for name in names:
            hops.send(name, content=f"Subject: {name}\r\n\r\nbody\r\n".encode())
        hops.dispatch()
        passed = hosts.run(names, LONGEST)
        self.assertLessEqual(passed, LONGEST, "it hangs")

    def check(self, phase: str, fault: str, manner: str, *, alone: bool) -> None:
        """See the module."""
        hops, hosts = self.play(phase, fault, manner, alone=alone)
        may_double = manner != "step by step" and fault in OUT_OF_STEP
        names: Sequence[str] = MESSAGES
        for _ in range(ATTEMPTS):
            before = list(hosts.taken)
            self.attempt(hops, hosts, names)
            for name in names:
                status = hops.outcomes[name][0].status
                taken = hosts.taken.count(name) - before.count(name)
                self.assertNotEqual(status, Status.FAILED, f"{name} was returned")
                self.assertTrue(taken <= 1 or may_double, f"{name} was doubled")
                self.assertTrue(taken or status is not Status.RELAYED, f"{name} is lost")
            names = [name for name in names if hops.outcomes[name][0].status is Status.DEFERRED]
            hops.reactor.advance(3600.0)  # a hop that is left alone is so for no longer
        for name in names:
            is_there = name in hosts.taken
            self.assertTrue(alone or is_there or phase in AFTER_CONTENT, f"{name} is not with mx2")

    def check_all(self, phase: str, faults: Iterable[str]) -> None:
        """Check a phase with these faults."""
        wrong = []
        for fault in faults:
            for manner in MANNERS:
                if (phase == "BDAT") is not (manner == "chunks") and phase in (
                    *("BDAT", "DATA", "content", "end"),
                ):
                    continue
                for alone in (True, False):
                    try:
                        self.check(phase, fault, manner, alone=alone)
                    except AssertionError as error:
                        place = f"{fault} at {phase}, {manner}, {'one host' if alone else 'two'}"
                        wrong.append(f"{place}: {error}")
        self.assertEqual([], wrong)


class MisbehavingPeerTests(PeerCase):
    """One test for each phase."""


class OddReplyTests(PeerCase):
    """The same, with replies that are none, or strange."""

    def test_a_refusal_and_the_end(self) -> None:
        """A host that refuses and closes at once has refused one message, and no other."""
        for phase, manner in (("MAIL", "step by step"), ("end", "groups"), ("BDAT", "chunks")):
            with self.subTest(phase=phase):
                hops, hosts = self.play(phase, "refuses and closes", manner, alone=True)
                self.attempt(hops, hosts, MESSAGES)
                statuses = [hops.outcomes[name][0].status for name in MESSAGES]
                self.assertIn(Status.FAILED, statuses)
                for name in MESSAGES:
                    (outcome,) = hops.outcomes[name]
                    said = outcome.reply.enhanced
                    self.assertEqual(outcome.status is Status.FAILED, said == "5.7.1", outcome)
                self.assertEqual(hosts.taken, [])

    def test_strange_replies_are_understood(self) -> None:
        """Whatever stands behind the code, the message is relayed, once, by the first host."""
        for phase in PHASES:
            for fault in STRANGE_REPLIES:
                for manner in MANNERS:
                    with self.subTest(phase=phase, fault=fault, manner=manner):
                        hops, hosts = self.play(phase, fault, manner, alone=False)
                        self.attempt(hops, hosts, ["M1"])
                        self.assertEqual(hops.outcomes["M1"][0].status, Status.RELAYED)
                        self.assertEqual(hosts.taken, ["M1"])
                        self.assertEqual(set(hosts.dialled), {"192.0.2.1"})
                        self.assertTrue(str(hops.outcomes["M1"][0].reply).isprintable())


def _add(case: type[PeerCase], phase: str, faults: Iterable[str]) -> None:
    def test(self: PeerCase) -> None:
        self.check_all(phase, faults)

    test.__name__ = f"test_{phase}"
    test.__doc__ = f"Faults in the phase {phase}."
    setattr(case, test.__name__, test)


for _phase in PHASES:
    _add(MisbehavingPeerTests, _phase, FAULTS)
    _add(OddReplyTests, _phase, (*ODD_REPLIES, "drips", "half"))
