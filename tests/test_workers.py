"""The processes of one service: who runs where."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mta.service.workers import places


class PlacesTests(SynchronousTestCase):
    """Who runs on which processor."""

    def test_more_processors(self) -> None:
        """The system does better than we where it has a choice."""
        self.assertEqual([[0, 1, 2]] * 2, places(2, [0, 1, 2]))
        self.assertEqual([[5]], places(1, [5]))

    def test_as_many(self) -> None:
        """Each has its own."""
        self.assertEqual([(3,), (5,)], places(2, [3, 5]))

    def test_more_processes(self) -> None:
        """They are spread evenly."""
        self.assertEqual([(3,), (5,), (3,)], places(3, [3, 5]))

    def test_not_told(self) -> None:
        """Some systems don't tell."""
        self.assertEqual([()] * 2, places(2, ()))
