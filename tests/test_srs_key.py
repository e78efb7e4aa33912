"""The secret of forwarded mail's reverse-paths."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mta.srs_key import LENGTH, srs_key
from tests.processes import temporary_folder


class SRSKeyTests(SynchronousTestCase):
    """The secret of forwarded mail's reverse-paths."""

    def test_made_once(self) -> None:
        """It is made on first use, for our eyes only, and stays as it is."""
        folder = temporary_folder(self)
        key = srs_key(folder)
        self.assertEqual(LENGTH, len(key))
        self.assertEqual(key, srs_key(folder))
        self.assertEqual(0o600, (folder / "srs.key").stat().st_mode & 0o777)
