"""Documents of which each node has a copy."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mta.pairing.mailboxes import MailboxFiles
from mta.shared_tables import copies
from mta.shared_tables.copies import Copies
from mta.shared_tables.interfaces import IDocuments
from mta.users import renewed
from mta.users.renewed import RenewedPasswords
from tests.shared_tables.stores import DatabaseStores


def recording(calls: list[str], name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that notes each call, and does what another one does."""

    def record(*arguments: Any, **more: Any) -> Any:
        calls.append(name)
        return function(*arguments, **more)

    return record


class Node:
    """A node with lists and passwords."""

    def __init__(self, folder: Path, store: object) -> None:
        folder.mkdir()
        self.lists = MailboxFiles(folder)
        self.passwords = RenewedPasswords(folder)
        self.restart(store)

    def restart(self, store: object) -> None:
        """Forget what other nodes said."""
        self.copies = [
            Copies("mailboxes", self.lists, store, removes=True),
            Copies("passwords", self.passwords, store),
        ]

    def exchange(self) -> None:
        """Exchange all kinds."""
        for each in self.copies:
            each.exchange()


class CopiesTests(DatabaseStores, SynchronousTestCase):
    """Nodes on one database."""

    def setUp(self) -> None:
        super().setUp()
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.one, self.other = self.node("one"), self.node("other")

    def node(self, name: str) -> Node:
        """Another node."""
        return Node(self.folder / name, self.store())

    def exchange(self) -> None:
        """Let each node exchange with the others."""
        self.one.exchange()
        self.other.exchange()
        self.one.exchange()

    def lists(self) -> list[bytes]:
        """The list of the office, on both."""
        return [node.lists.read("office") for node in (self.one, self.other)]

    def test_interfaces(self) -> None:
        """Both kinds are documents."""
        verifyObject(IDocuments, self.one.lists)
        verifyObject(IDocuments, self.one.passwords)

    def test_nothing(self) -> None:
        """Where there is nothing, nothing is made."""
        self.exchange()
        self.assertEqual([*(self.folder / "one").iterdir()], [])

    def test_told_to_one(self) -> None:
        """What is told to one node all know; the newest counts, wherever it was told."""
        self.one.lists.keep("office", b"first")
        self.exchange()
        self.assertEqual(self.lists(), [b"first"] * 2)
        self.other.lists.keep("office", b"second")
        self.exchange()
        self.assertEqual(self.lists(), [b"second"] * 2)
        self.assertEqual(self.one.lists.digest("office"), self.other.lists.digest("office"))

    def test_new_node(self) -> None:
        """One that comes later, or was down, goes by what the others have."""
        self.one.lists.keep("office", b"first")
        self.exchange()
        self.one.lists.keep("office", b"second")
        self.one.exchange()
        self.other.restart(self.store())
        third = self.node("third")
        self.exchange()
        third.exchange()
        self.assertEqual([*self.lists(), third.lists.read("office")], [b"second"] * 3)

    def test_before_the_database(self) -> None:
        """What a node had before it shared a database is handed over."""
        self.one.lists.keep("office", b"first")
        self.other.exchange()
        self.exchange()
        self.assertEqual(self.lists(), [b"first"] * 2)

    def test_removed(self) -> None:
        """A list that is removed on one node is removed on all, and may come again."""
        self.one.lists.keep("office", b"first")
        self.exchange()
        self.other.lists.forget("office")
        self.other.exchange()
        self.one.restart(self.store())
        self.exchange()
        self.assertEqual(self.lists(), [b"", b""])
        self.one.lists.keep("office", b"first")
        self.exchange()
        self.assertEqual(self.lists(), [b"first"] * 2)

    def test_unreadable(self) -> None:
        """A list that can't be read now is not removed anywhere."""
        self.one.lists.keep("office", b"first")
        self.exchange()
        self.one.lists.keep("office", b"second")
        failing = OSError(errno.EMFILE, "Too many open files")
        with patch("mta.pairing.mailboxes.os.open", side_effect=failing):
            self.assertRaises(OSError, self.one.exchange)
        self.other.exchange()
        self.assertEqual(self.lists(), [b"second", b"first"])
        self.exchange()
        self.assertEqual(self.lists(), [b"second"] * 2)

    def test_told_to_both(self) -> None:
        """Where two were told something at once, the first in the database counts for all."""
        self.one.lists.keep("office", b"first")
        self.exchange()
        self.one.lists.keep("office", b"second")
        self.other.lists.keep("office", b"third")
        self.exchange()
        self.assertEqual(self.lists(), [b"second"] * 2)

    def test_passwords(self) -> None:
        """They are joined by user; one that a node left out stays with the others."""
        self.one.passwords.take({"office": b'{"replaces": "a"}'})
        self.other.passwords.take({"branch": b'{"replaces": "b"}'})
        self.exchange()
        self.other.passwords.take({"office": b""})
        self.exchange()
        for node in (self.one, self.other):
            self.assertEqual(node.passwords.read("office"), b'{"replaces": "a"}')
            self.assertEqual(node.passwords.read("branch"), b'{"replaces": "b"}')

    def test_many_passwords(self) -> None:
        """The file that has all of them is read and written once, however many there are."""
        self.one.passwords.take({f"office{number}": b"{}" for number in range(20)})
        calls: list[str] = []
        for name in ("open_regular", "atomic_write"):
            self.patch(renewed, name, recording(calls, name, getattr(renewed, name)))
        self.one.exchange()
        self.assertEqual(calls, ["open_regular"])
        calls.clear()
        self.other.exchange()
        self.assertEqual(calls, ["open_regular"] * 2 + ["atomic_write"])
        self.assertEqual(len(self.other.passwords.stamps()), 20)

    def test_failure(self) -> None:
        """What could not be written is taken the next time."""
        self.one.lists.keep("office", b"first")
        self.one.exchange()
        blocked = self.folder / "other" / "mailboxes"
        blocked.write_bytes(b"")
        self.assertRaises(OSError, self.other.exchange)
        blocked.unlink()
        self.exchange()
        self.assertEqual(self.lists(), [b"first"] * 2)

    def test_many(self) -> None:
        """However many there are, each transaction has a few of them."""
        self.patch(copies, "MAX_AT_ONCE", 3)
        for number in range(10):
            self.one.lists.keep(f"office{number}", str(number).encode())
        self.exchange()
        self.one.lists.forget("office3")
        self.other.lists.keep("office4", b"new")
        self.exchange()
        for node in (self.one, self.other):
            found = [node.lists.read(f"office{number}") for number in range(10)]
            self.assertEqual(found, [b"0", b"1", b"2", b"", b"new", b"5", b"6", b"7", b"8", b"9"])
