"""Each target of the fuzzer, with its seeds and a little more."""

from __future__ import annotations

import contextlib
import importlib.util
import io

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.fuzz.__main__ import main, run_unguided
from tests.fuzz.targets import REPEATED, SEEDS, TARGETS, seeds


class TargetTests(SynchronousTestCase):
    """No reader is surprised."""

    def test_seeds(self) -> None:
        """What the fuzzer begins with, which has what it found earlier."""
        for target in TARGETS:
            self.assertTrue(seeds(target), target.name)
            for octets in seeds(target):
                target(octets)

    def test_each_seed_has_a_target(self) -> None:
        """None is left behind by a target that has another name."""
        texts = SEEDS.read_text("ascii").splitlines()
        named = {text.partition(":")[0] for text in texts if not text.startswith("#")}
        self.assertEqual(named - {target.name for target in TARGETS}, set())

    def test_repeated_seeds(self) -> None:
        """What comes again and again takes no time that grows with the square of it."""
        for target in TARGETS:
            target(seeds(target)[0] + REPEATED)

    @settings(max_examples=60, deadline=None)
    @given(st.data())
    def test_changed_seeds(self, data: st.DataObject) -> None:
        """Seeds of which a part is replaced."""
        target = data.draw(st.sampled_from(TARGETS))
        octets = data.draw(st.sampled_from(seeds(target)))
        start = data.draw(st.integers(0, len(octets)))
        end = data.draw(st.integers(start, len(octets)))
        target(octets[:start] + data.draw(st.binary(max_size=8)) + octets[end:])


class UnguidedTests(SynchronousTestCase):
    """The fuzzer where atheris is not installed."""

    def test_what_is_tried(self) -> None:
        """Seeds, and more; a fault ends it, with what led to it."""
        tried: list[bytes] = []
        run_unguided(tried.append, [b"one seed", b"another"], 0.01)
        self.assertGreater(len(set(tried)), 20)
        self.assertTrue(any(b"one seed" in octets for octets in tried))

        def fails(octets: bytes) -> None:
            raise ValueError("a fault")

        error = self.assertRaises(ValueError, run_unguided, fails, [b"one seed"], 60.0)
        self.assertIn("parts=[]", "".join(error.__notes__), "what led to it")

    def test_without_atheris(self) -> None:
        """``make fuzz`` goes on without."""
        self.patch(importlib.util, "find_spec", lambda name: None)
        with contextlib.redirect_stdout(io.StringIO()) as said:
            self.assertEqual(main(0.001, "proxies"), 0)
        self.assertEqual(said.getvalue(), "proxies: 1 s, Hypothesis\n")
