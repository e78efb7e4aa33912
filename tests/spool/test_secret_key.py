"""The secret of forwarded mail's reverse-paths."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mta.spool.folder import KEY_LENGTH, secret_key
from tests.processes import temporary_folder


class SecretKeyTests(SynchronousTestCase):
    """The secret of forwarded mail's reverse-paths."""

    def test_made_once(self) -> None:
        """It is made on first use, for our eyes only, and stays as it is."""
        folder = temporary_folder(self)
        (folder / "queue.sqlite").touch()
        key = secret_key(folder)
        self.assertEqual(KEY_LENGTH, len(key))
        self.assertEqual(key, secret_key(folder))
        self.assertEqual(0o600, (folder / "srs.key").stat().st_mode & 0o777)

    def test_not_without_a_spool(self) -> None:
        """A tool that only looks leaves nothing that a spool in use would have."""
        folder = temporary_folder(self)
        self.assertRaises(OSError, secret_key, folder)
        self.assertEqual([], list(folder.iterdir()))
