"""New keys, and the dates in their files."""

import os
import stat
from datetime import UTC, datetime, timedelta

from mta.settings import DKIMKey, KeyState
from mta.signing.key_files import KeyFile
from mta.signing.keys import KeyFault, read
from mta.signing.making import KeyMaker, entry
from tests.signing.test_keys import RSA, KeyCase, pem

NOW = datetime(2026, 11, 27, 22, 30, 5, tzinfo=UTC)


class MakingTests(KeyCase):
    """New keys of a domain."""

    def make(self, *used: str, year: int = 2026, kinds: tuple[str, ...] = ()) -> list[str]:
        """The selectors of new keys."""
        now = NOW.replace(year=year)
        maker = KeyMaker("example.com", self.folder)
        made = maker.make(kinds or ("ed25519", "ed25519"), used, KeyState.NEXT, now)
        self.assertTrue(all(key.state is KeyState.NEXT for key in made))
        return [key.selector for key in made]

    def test_files(self) -> None:
        """One of each kind, for the owner alone, in a folder beside the configuration."""
        maker = KeyMaker("example.com", self.folder)
        keys = maker.make(("rsa", "ed25519"), (), KeyState.ACTIVE, NOW)
        folder = self.folder / "dkim"
        self.assertEqual(
            [
                DKIMKey("2026a", folder / "example.com.2026a.rsa.pem"),
                DKIMKey("2026b", folder / "example.com.2026b.ed25519.pem"),
            ],
            keys,
        )
        self.assertEqual(["rsa", "ed25519"], [read(key.file).kind for key in keys])
        self.assertFalse(read(keys[0].file).is_short)
        for key in keys:
            self.assertEqual(0o600, stat.S_IMODE(key.file.stat().st_mode))
            self.assertEqual(NOW, KeyFile(key.file).created)
            self.assertIsNone(KeyFile(key.file).retired)

    def test_selectors(self) -> None:
        """They go on behind the last one of the year, and never back."""
        self.assertEqual(["2026a", "2026b"], self.make())
        self.assertEqual(["2026e", "2026f"], self.make("2026d", "2026c", "x"))
        self.assertEqual(["2027a", "2027b"], self.make("2026d", year=2027))
        self.assertEqual(["2026z", "2026za"], self.make("2026y"))

    def test_files_that_are_left(self) -> None:
        """A key that a crash has left is not taken for a new one, nor written over."""
        self.make()
        left = self.folder / "dkim/example.com.2026b.ed25519.pem"
        octets = left.read_bytes()
        self.assertEqual(["2026c", "2026d"], self.make())
        self.assertEqual(octets, left.read_bytes())

    def test_entries(self) -> None:
        """Their files are named as from the folder of the configuration, where they are in it."""
        inside = DKIMKey("a", self.folder / "dkim/a.pem", KeyState.NEXT)
        self.assertEqual(
            {"selector": "a", "key": "dkim/a.pem", "state": "next"}, entry(inside, self.folder)
        )
        elsewhere = DKIMKey("b", self.folder / "b.pem")
        self.assertEqual(
            {"selector": "b", "key": str(elsewhere.file)}, entry(elsewhere, self.folder / "etc")
        )

    def test_owner(self) -> None:
        """Root gives the files to the server, and keeps the folder."""
        if os.geteuid() != 0:
            self.skipTest("needs root")
        [key] = KeyMaker("example.com", self.folder, (65533, 65532)).make(
            ("ed25519",), (), KeyState.ACTIVE, NOW
        )
        status, folder = key.file.stat(), (self.folder / "dkim").stat()
        self.assertEqual((65533, 65532), (status.st_uid, status.st_gid))
        self.assertEqual(
            (0, 65532, 0o750), (folder.st_uid, folder.st_gid, stat.S_IMODE(folder.st_mode))
        )


class DateTests(KeyCase):
    """The dates in key files."""

    def test_retirement(self) -> None:
        """It is noted in the file, whose key, mode and date of making stay."""
        [key] = KeyMaker("example.com", self.folder).make(
            ("ed25519",), (), KeyState.ACTIVE, NOW - timedelta(days=90)
        )
        before = read(key.file).public
        for day in (0, 1):  # the second time, too
            KeyFile(key.file).retire(NOW + timedelta(days=day))
            file = KeyFile(key.file)
            self.assertEqual(NOW + timedelta(days=day), file.retired)
            self.assertEqual(NOW - timedelta(days=90), file.created)
            self.assertEqual(before, read(key.file).public)
            self.assertEqual(0o600, stat.S_IMODE(key.file.stat().st_mode))
        self.assertEqual(1, key.file.read_bytes().count(b"Retired: "))

    def test_keys_of_others(self) -> None:
        """One that says nothing was made when its file was written; its text stays."""
        path = self.write(b"a note\nCreated: never\n" + pem(RSA))
        os.utime(path, (NOW.timestamp(), NOW.timestamp()))
        file = KeyFile(path)
        self.assertEqual((NOW, None), (file.created, file.retired))
        file.retire(NOW + timedelta(days=1))
        self.assertEqual(NOW + timedelta(days=1), file.retired)
        self.assertEqual(NOW, KeyFile(path).created)
        self.assertIn(b"a note\n-----BEGIN", path.read_bytes())
        self.assertEqual("rsa", read(path).kind)

    def test_missing(self) -> None:
        fault = self.assertRaises(KeyFault, KeyFile, self.folder / "x")
        self.assertEqual(f"{self.folder / 'x'}: No such file or directory", str(fault))
