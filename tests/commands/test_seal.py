"""``mta seal``: keys, and what is said of them."""

from __future__ import annotations

import yaml

from mta.sealing.keys import PrivateKey, private_keys, public_keys
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
        self.assertIn(f"\nmta seal accept us {key.public}\n", said)
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
        self.assertIn(f"\nmta seal accept us {new.public} {old.public}\n", said)
        self.assertIn(f"\nmta seal accept us {new.public}\n", said)
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
            "mta: no peer is called 'provder'; those that there are: office, provider\n",
        )
        self.said("seal", "keygen", "provider")
        (self.folder / "provider.age").write_text("nonsense\n")
        self.assertIn("provider.age:1", self.fail_with("seal", "rotate", "provider"))


class AcceptTests(CommandCase):
    """The keys of an office, on its relay."""

    def setUp(self) -> None:
        super().setUp()
        self.configure(peers=PEERS)

    def accept(self, *keys: PrivateKey) -> None:
        """Seal to these."""
        words = ("seal", "accept", "office", *(str(key.public) for key in keys))
        status, _, errors = self.run_command(*words)
        self.assertEqual(status, 0, errors)

    def test_accept(self) -> None:
        """The first time it is configured; later the file has other keys."""
        first, second = PrivateKey.new(), PrivateKey.new()
        self.accept(first)
        entry = yaml.safe_load(self.config.read_text())["peers"]["office"]
        self.assertEqual(entry["seal"], {"file": "office.age.pub"})
        path = self.folder / "office.age.pub"
        self.assertEqual([*public_keys(path)], [first.public])
        before = self.config.read_text()
        self.accept(second, first, second)
        self.assertEqual([*public_keys(path)], [second.public, first.public])
        self.assertEqual(self.config.read_text(), before)
        self.assertEqual(self.run_command("check")[0], 0)

    def test_refused(self) -> None:
        """A key that is none changes nothing, a private one is not shown."""
        key = PrivateKey.new()
        for word in ("age1x", key.text):
            said = self.fail_with("seal", "accept", "office", word)
            self.assertIn("no public key", said)
            self.assertNotIn(key.text[20:], said)
        self.assertIn("we dial", self.fail_with("seal", "accept", "provider", str(key.public)))
        self.assertFalse((self.folder / "office.age.pub").exists())
