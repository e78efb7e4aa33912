"""The secret of forwarded mail's reverse-paths."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from twisted.trial.unittest import SynchronousTestCase

from mta.srs_key import LENGTH, NAME, agreed_srs_key, srs_key
from tests.processes import temporary_folder
from tests.shared_tables.stores import DatabaseStores


class SRSKeyTests(SynchronousTestCase):
    """The secret of forwarded mail's reverse-paths."""

    def test_made_once(self) -> None:
        """It is made on first use, for our eyes only, and stays as it is."""
        folder = temporary_folder(self)
        key = srs_key(folder)
        self.assertEqual(LENGTH, len(key))
        self.assertEqual(key, srs_key(folder))
        self.assertEqual(0o600, (folder / "srs.key").stat().st_mode & 0o777)


class NodesTests(DatabaseStores, SynchronousTestCase):
    """Nodes that share a database, each with a folder of its own."""

    def test_at_once(self) -> None:
        """Nodes that start for the first time at one moment have one secret."""
        folders = [temporary_folder(self) for _ in range(4)]
        stores = [self.store() for _ in folders]
        with ThreadPoolExecutor() as threads:
            found = set(threads.map(agreed_srs_key, folders, stores))
        [(key, problem)] = found
        self.assertEqual(problem, "")
        self.assertEqual({srs_key(folder) for folder in folders}, {key})

    def test_another_one(self) -> None:
        """One that is there stays, and is told of."""
        first, other = temporary_folder(self), temporary_folder(self)
        agreed_srs_key(first, self.store())
        key = srs_key(other)
        found, problem = agreed_srs_key(other, self.store())
        self.assertEqual((found, srs_key(other)), (key, key))
        self.assertIn("copy one of them to all", problem)
        (other / NAME).unlink()
        self.assertEqual(agreed_srs_key(other, self.store()), (srs_key(first), ""))

    def test_without_the_database(self) -> None:
        """There is one all the same."""
        self.url = self.url.replace("/postgres", "/nowhere")
        key, problem = agreed_srs_key(temporary_folder(self), self.store())
        self.assertEqual(len(key), LENGTH)
        self.assertIn("unknown", problem)
