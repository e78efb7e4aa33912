"""The processes of one service: who runs where."""

from __future__ import annotations

from dataclasses import replace

from twisted.trial.unittest import SynchronousTestCase

from mta.service.inheritance import VARIABLE, Inheritance, inherited
from mta.service.processors import cpu_sets
from mta.settings import Listener, ListenerTLS, Queue, Service, Settings


class PlacesTests(SynchronousTestCase):
    """Who runs on which processor."""

    def test_more_processors(self) -> None:
        """The system does better than we where it has a choice."""
        self.assertEqual([[0, 1, 2]] * 2, cpu_sets(2, [0, 1, 2]))
        self.assertEqual([[5]], cpu_sets(1, [5]))

    def test_as_many(self) -> None:
        """Each has its own."""
        self.assertEqual([(3,), (5,)], cpu_sets(2, [3, 5]))

    def test_more_processes(self) -> None:
        """They are spread evenly."""
        self.assertEqual([(3,), (5,), (3,)], cpu_sets(3, [3, 5]))

    def test_not_told(self) -> None:
        """Some systems don't tell."""
        self.assertEqual([()] * 2, cpu_sets(2, ()))


class InheritanceTests(SynchronousTestCase):
    """What a worker has from the first process."""

    def test_through_the_environment(self) -> None:
        """All of each listener, the spool, and how many processes there are."""
        listeners = (
            Listener("tcp:25"),
            Listener("tcp:1", Service.SUBMISSION, ListenerTLS.OFF, allow_cleartext_auth=True),
        )
        ours = Settings("m.example", spool="/s", listen=listeners, queue=Queue(workers=3))
        environment = {VARIABLE: Inheritance.of(ours, [7, 8]).encoded()}
        found = inherited(environment)
        assert found is not None
        self.assertEqual(environment, {})
        self.assertEqual(found.descriptors, [7, 8])
        file = replace(ours, spool="/t", listen=listeners[:1], queue=Queue(workers=1))
        self.assertEqual(found.in_force(file), ours)

    def test_the_first(self) -> None:
        """The first process inherits nothing."""
        self.assertIsNone(inherited({}))
