"""Files that are replaced whole."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

from mta.files import atomic_write, create, open_regular
from tests.processes import temporary_folder


class AtomicWriteTests(SynchronousTestCase):
    """All of the new text or all of the old one."""

    def setUp(self) -> None:
        self.folder = temporary_folder(self)
        self.path = self.folder / "file"

    def test_new_and_again(self) -> None:
        """It is made for our eyes only, and replaced whole; nothing else is left."""
        for text in (b"long text", b"text"):
            self.assertTrue(atomic_write(self.path, text))
            self.assertEqual(self.path.read_bytes(), text)
            self.assertEqual(self.path.stat().st_mode & 0o777, 0o600)
            self.assertEqual(list(self.folder.iterdir()), [self.path])

    def test_mode(self) -> None:
        """The mode is the one that is asked for, whatever the umask."""
        self.addCleanup(os.umask, os.umask(0o077))
        atomic_write(self.path, b"text", 0o644)
        self.assertEqual(self.path.stat().st_mode & 0o777, 0o644)

    def test_first_one_stays(self) -> None:
        """What is made only once stays as the first one made it."""
        self.assertTrue(atomic_write(self.path, b"first", overwrite=False))
        self.assertFalse(atomic_write(self.path, b"second", overwrite=False))
        self.assertEqual(self.path.read_bytes(), b"first")
        self.assertEqual(list(self.folder.iterdir()), [self.path])

    def test_failures(self) -> None:
        """Whichever call of the system fails, the old file is there, and nothing else."""
        atomic_write(self.path, b"old")
        for name in ("open", "fchmod", "fsync"):
            for number in (errno.ENOSPC, errno.EIO, errno.EROFS, errno.EMFILE):
                with self.subTest(name=name, errno=number):
                    patch = self.patch(os, name, failing(number))
                    self.assertRaises(OSError, atomic_write, self.path, b"new")
                    patch.restore()
                    self.assertEqual(self.path.read_bytes(), b"old")
                    self.assertEqual(list(self.folder.iterdir()), [self.path])

    def test_failures_name_the_file(self) -> None:
        """A call that has only a descriptor says which file it was about."""
        self.patch(os, "fsync", failing(errno.ENOSPC))
        error = self.assertRaises(OSError, atomic_write, self.path, b"new")
        self.assertEqual(error.filename, str(self.path))

    def test_links(self) -> None:
        """What others put in its place is replaced and not followed."""
        victim = self.folder / "victim"
        victim.write_bytes(b"precious")
        self.path.symlink_to(victim)
        atomic_write(self.path, b"text")
        self.assertFalse(self.path.is_symlink())
        self.assertEqual(victim.read_bytes(), b"precious")
        link = self.folder / "link"
        link.symlink_to(victim)
        self.assertRaises(OSError, create, link, os.O_RDWR)

    def test_owners(self) -> None:
        """What root writes belongs to whom it belonged, else to the owner of the folder."""
        if os.geteuid():
            raise SkipTest("only root can give files away")
        os.chown(self.folder, 1234, 1235)
        for owner in ((1234, 1235), (4321, 5321)):
            atomic_write(self.path, b"text")
            self.assertEqual((self.path.stat().st_uid, self.path.stat().st_gid), owner)
            os.chown(self.path, 4321, 5321)

    def test_a_file_of_root_is_not_given_away(self) -> None:
        """A hard link to a file of root's, in a folder of another user's, stays root's."""
        if os.geteuid():
            raise SkipTest("only root can give files away")
        victim = self.folder / "victim"
        victim.touch()
        folder = self.folder / "spool"
        folder.mkdir()
        os.link(victim, folder / "commit.lock")
        os.chown(folder, 1234, 1235)
        os.close(create(folder / "commit.lock", os.O_RDWR))
        self.assertEqual(victim.stat().st_uid, 0)


def failing(number: int) -> Callable[..., Any]:
    """A call of the system that fails."""

    def fail(*_: object, **__: object) -> Any:
        raise OSError(number, os.strerror(number))

    return fail


class CreateTests(SynchronousTestCase):
    """Files that are there, or are made."""

    def test_a_link(self) -> None:
        """What it leads to is neither opened nor made."""
        folder = temporary_folder(self)
        link = folder / "file"
        link.symlink_to(folder / "elsewhere")
        for _ in range(2):
            with self.assertRaises(OSError) as caught:
                create(link, os.O_RDWR)
            self.assertEqual(caught.exception.errno, errno.ELOOP)
            (folder / "elsewhere").touch()


class OpenRegularTests(SynchronousTestCase):
    """Files to read that come to an end."""

    def test_what_is_none(self) -> None:
        """A folder, a pipe and a device are refused by name, before anything is read."""
        folder = temporary_folder(self)
        os.mkfifo(folder / "pipe")
        for path, number in (
            (folder, errno.EISDIR),
            (folder / "pipe", errno.EINVAL),
            (Path(os.devnull), errno.EINVAL),
            (folder / "nothing", errno.ENOENT),
        ):
            error = self.assertRaises(OSError, open_regular, path)
            self.assertEqual((error.errno, error.filename), (number, str(path)))

    def test_file(self) -> None:
        """A file is read, also behind a link."""
        folder = temporary_folder(self)
        (folder / "file").write_bytes(b"text")
        (folder / "link").symlink_to("file")
        with open_regular(folder / "link") as file:
            self.assertEqual(file.read(), b"text")
