"""Each target of the fuzzer, with its seeds and a little more."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.fuzz.targets import TARGETS, seeds


class TargetTests(SynchronousTestCase):
    """No reader is surprised."""

    def test_seeds(self) -> None:
        """What the fuzzer begins with, which has what it found earlier."""
        for target in TARGETS:
            self.assertTrue(seeds(target), target.__name__)
            for octets in seeds(target):
                target(octets)

    @settings(max_examples=60)
    @given(st.data())
    def test_changed_seeds(self, data: st.DataObject) -> None:
        """Seeds of which a part is replaced."""
        target = data.draw(st.sampled_from(TARGETS))
        octets = data.draw(st.sampled_from(seeds(target)))
        start = data.draw(st.integers(0, len(octets)))
        end = data.draw(st.integers(start, len(octets)))
        target(octets[:start] + data.draw(st.binary(max_size=8)) + octets[end:])
