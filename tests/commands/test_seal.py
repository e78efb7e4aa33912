"""``mta seal``: keys, and what is said of them."""

from __future__ import annotations

import yaml

from mta.sealing.keys import PrivateKey, private_keys
from tests.commands.test_commands import CommandCase

PEERS = {
    "office": {"user": "office", "domains": ["office.example"]},
    "provider": {"connect": "smtps://us:secret@relay.example", "domains": ["office.example"]},
}


class SealTests(CommandCase):
    """The keys of an office."""

    def setUp(self) -> None:
        super().setUp()
        self.configure(peers=PEERS)

    @property
    def file(self) -> object:
        """The file of keys, as the configuration names it."""
        return yaml.safe_load(self.config.read_text())["peers"]["provider"]["seal"]["key"]

    def said(self, *arguments: str) -> str:
        """Run a command that does what it should; returns its output."""
        status, output, errors = self.run_command(*arguments)
        self.assertEqual(status, 0, errors)
        return output

    def keys(self) -> list[PrivateKey]:
        """The keys in it."""
        return [*private_keys(self.folder / "provider.age")]

    def test_keygen(self) -> None:
        """The key is for the server alone, and the line for the relay is its public one."""
        said = self.said("seal", "keygen", "provider")
        self.assertEqual(self.file, "provider.age")
        path = self.folder / "provider.age"
        self.assertEqual(path.stat().st_mode & 0o777, 0o600)
        (key,) = self.keys()
        self.assertIn(f"\n{key.public}\n", said)
        self.assertNotIn(key.text, said)
        self.said("check")

    def test_again(self) -> None:
        """A key is never replaced."""
        self.said("seal", "keygen", "provider")
        before = self.keys()
        self.assertIn("mta seal rotate provider", self.fail_with("seal", "keygen", "provider"))
        self.configure(peers=PEERS)
        self.assertIn("is there already", self.fail_with("seal", "keygen", "provider"))
        self.assertEqual(self.keys(), before)

    def test_rotate(self) -> None:
        """The new key is the first; the relay gets a line for each."""
        self.said("seal", "keygen", "provider")
        (old,) = self.keys()
        said = self.said("seal", "rotate", "provider")
        new, kept = self.keys()
        self.assertEqual(kept, old)
        self.assertIn(f"\n{new.public}\n{old.public}\n", said)
        self.assertEqual((self.folder / "provider.age").stat().st_mode & 0o777, 0o600)
        for _ in range(18):
            self.said("seal", "rotate", "provider")
        self.assertIn("20 keys", self.fail_with("seal", "rotate", "provider"))

    def test_backup(self) -> None:
        """It has all private keys, and replaces no file."""
        self.said("seal", "keygen", "provider")
        self.said("seal", "rotate", "provider")
        said = self.said("seal", "backup", "provider")
        for key in self.keys():
            self.assertIn(f"\n{key.text}\n", said)
        copy = self.folder / "copy.age"
        self.said("seal", "backup", "provider", "--to", str(copy))
        self.assertEqual([*private_keys(copy)], self.keys())
        self.assertEqual(copy.stat().st_mode & 0o777, 0o600)
        self.assertIn(
            "name a new file", self.fail_with("seal", "backup", "provider", "--to", str(copy))
        )

    def test_no_key(self) -> None:
        """What can't be done is said with what can."""
        self.assertIn("keygen", self.fail_with("seal", "backup", "provider"))
        self.assertIn("dials us", self.fail_with("seal", "keygen", "office"))
        self.assertEqual(
            self.fail_with("seal", "keygen", "provder"),
            "mta: no peer is called 'provder'; those that we dial: provider\n",
        )
        self.said("seal", "keygen", "provider")
        (self.folder / "provider.age").write_text("nonsense\n")
        self.assertIn("provider.age:1", self.fail_with("seal", "rotate", "provider"))
