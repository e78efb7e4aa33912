"""Two servers that are paired by one line."""

from __future__ import annotations

import json
import smtplib
import subprocess

from tests.certificates import Authority
from tests.interop.pairing import LETTER, NOT_WHOLE, OFFICE, RELAY, SECRET, PairingCase, mta
from tests.processes import Server, wait_until


class PairTests(PairingCase):
    """The lines of both sides, and what they make."""

    def test_mail_in_both_directions(self) -> None:
        """One line on each side, and mail goes both ways, over restarts of both."""
        said = self.pair(self.line("office", "--domain", "example.com"))
        self.assertIn("its certificate is the token's; paired as office, for example.com", said)
        self.assertIn("mail goes both ways", said)
        self.office.wait_for_mail("example.com/alice", 1)
        self.assertEqual((self.office.folder / SECRET).stat().st_mode & 0o777, 0o600)
        for server, kept in ((self.relay, "# Mail of the world."), (self.office, "# in the house")):
            self.assertIn(kept, server.config.read_text())
        self.assertIn("default: 'hold:relay'", self.office.config.read_text())
        self.office.start()
        self.exchange(1)
        self.relay.stop()
        self.office.stop()
        self.relay.start()
        self.office.start()
        self.exchange(2)

    def exchange(self, count: int) -> None:
        """One message in each direction."""
        self.relay.ports["smtp"] = self.smtp
        carol, alice = "carol@partner.example", "alice@example.com"
        self.relay.send(LETTER % carol.encode(), alice, reverse_path=carol)
        self.office.wait_for_mail("example.com/alice", count + 1)
        self.office.send(LETTER % alice.encode(), carol, reverse_path=alice)
        self.relay.wait_for_mail("partner.example/carol", count)

    def test_a_token_serves_once(self) -> None:
        """Another office that finds it is told so, and nothing is written there."""
        token = self.line("office", "--domain", "example.com")
        self.pair(token, "--no-test")
        other = Server(self, OFFICE)
        self.assertIn("the token was used already", self.failure(other, token, "--no-test"))
        self.assertEqual(other.config.read_text().count("relay:"), 0)
        self.assertEqual(self.failure(self.office, token[:-1]), NOT_WHOLE)

    def test_another_certificate(self) -> None:
        """A server with another certificate than the token's hears nothing."""
        token = self.line("office", "--domain", "example.com")
        self.relay.stop()
        (self.relay.folder / "spool" / "self-signed.pem").unlink()
        self.relay.start()
        said = self.failure(self.office, token)
        self.assertIn("differs from the one in the token, and nothing was said", said)
        self.assertNotIn("pairing", self.relay.process.output)

    def test_a_verified_certificate(self) -> None:
        """Where an authority has issued it, there is no pin, and it may be renewed."""
        authority = Authority(self.relay.folder)
        pair = authority.issue("localhost")
        tls = f"tls: {{certificate: {pair.certificate}, key: {pair.key}}}"
        self.relay.stop()
        self.relay.configure(RELAY.format(smtp=self.smtp, port=self.port, more=tls))
        self.relay.start()
        self.office.configure(f"{OFFICE}\ntls: {{ca: {authority.path}}}\n")
        said = self.pair(self.line("office", "--domain", "example.com"))
        self.assertIn("its certificate is verified", said)
        self.assertNotIn("pin", self.office.config.read_text())

    def test_failures_name_their_step(self) -> None:
        """A relay that is down, and a domain without mailboxes here."""
        token = self.line("office", "--domain", "example.com", "--domain", "new.example")
        self.assertIn("new.example is no domain of this host yet", self.failure(self.office, token))
        self.relay.stop()
        said = self.failure(self.office, token, "--mailbox", "alice")
        self.assertEqual(
            said,
            f"mta: calling localhost port {self.port}: nothing listens on localhost port"
            f" {self.port}: does the relay's server run?\n",
        )
        self.relay.start()
        self.pair(token, "--mailbox", "alice", "--no-test")
        self.assertIn("new.example:", self.office.config.read_text())

    def test_a_new_line_for_a_paired_office(self) -> None:
        """The office has a new password with it, and the old one is of no use."""
        self.pair(self.line("office", "--domain", "example.com"), "--no-test")
        old = (self.office.folder / SECRET).read_text()
        config = self.office.config.read_text()
        result = mta(self.relay, "pair", "--renew", "office")
        self.assertIn("office has a new password", result.stderr)
        self.assertEqual(mta(self.office, "turn", "relay").returncode, 1)
        self.pair(result.stdout.split()[2], "--no-test")
        self.assertNotEqual((self.office.folder / SECRET).read_text(), old)
        self.assertEqual(self.office.config.read_text(), config)
        self.assertEqual(mta(self.office, "turn", "relay").stdout, "sent 0, received 0\n")

    def test_the_list(self) -> None:
        """Open pairings and peers, for people and for programs."""
        token = self.line("office", "--domain", "example.com")
        shown = mta(self.relay, "pair", "--list").stdout.splitlines()
        self.assertRegex(shown[0], "^office: waits for its office, 1[45]m left: example.com$")
        self.assertEqual(shown[1], "office: it dials us as office: example.com")
        first, second = mta(self.relay, "pair", "--list", "--json").stdout.splitlines()
        self.assertEqual(json.loads(first)["state"], "open")
        self.assertEqual(
            json.loads(second),
            {"name": "office", "state": "peer", "domains": ["example.com"], "expires": None},
        )
        self.pair(token, "--no-test")
        self.assertEqual(mta(self.relay, "pair", "--list").stdout.splitlines(), shown[1:])
        self.assertIn(
            f"relay: we dial smtps://localhost:{self.port}: example.com",
            mta(self.office, "pair", "--list").stdout,
        )

    def test_removal(self) -> None:
        """Nothing of a pairing is left on either side, nor anything else taken."""
        before = self.relay.config.read_text()
        self.pair(self.line("office", "--domain", "example.com"), "--no-test")
        said = self.failure(self.relay, "--remove", "office")
        self.assertIn("nothing changed", said)
        for server, name in ((self.relay, "office"), (self.office, "relay")):
            result = mta(server, "pair", "--remove", name, "--yes")
            self.assertEqual(result.returncode, 0, result.stderr)
            self.assertIn(f"-  {name}:", result.stdout)
        self.assertEqual(mta(self.relay, "user", "list").stdout, "")
        for left in (SECRET, ".relay.pairing"):
            self.assertFalse((self.office.folder / left).exists())
        left = self.relay.config.read_text()
        self.assertEqual([line for line in before.splitlines() if line not in left], [])
        self.assertEqual(mta(self.relay, "check").returncode, 0)
        self.assertEqual(mta(self.office, "check").returncode, 0)
        self.assertIn("no peer is called", self.failure(self.relay, "--remove", "office"))

    def test_by_hand(self) -> None:
        """--manual shows what both sides need, and changes nothing."""
        before = self.relay.config.read_text()
        result = mta(self.relay, "pair", "office", "--domain", "example.com", "--manual")
        relay, office = result.stdout.split("\n# In the office")
        self.assertIn("deliver: hold:office", relay)
        self.assertIn(f"to: smtps://localhost:{self.port}", office)
        self.assertEqual(self.relay.config.read_text(), before)

    def test_what_can_not_be_paired(self) -> None:
        """A domain that has mailboxes here, a person's name, no domain at all."""
        mta(self.relay, "user", "add", "alice", "--password-stdin", stdin="secret\n")
        for words, reason in (
            (["office"], "whose mail is it to be"),
            (["office", "--domain", "partner.example"], "goes by maildir:"),
            (["office", "--domain", "a b"], "not a domain"),
            (["alice", "--domain", "example.com"], "there is a user alice who is no peer"),
            (["../x", "--domain", "example.com"], "no name of a peer"),
        ):
            before = self.relay.config.read_text()
            self.assertIn(reason, self.failure(self.relay, *words))
            self.assertEqual(self.relay.config.read_text(), before)

    def test_one_list_of_mailboxes(self) -> None:
        """The relay refuses what the office does not have, once it was told, and after a change."""
        self.relay.ports["smtp"] = self.smtp
        token = self.line("office", "--domain", "example.com")
        self.relay.send(LETTER % b"carol@partner.example", "zoe@example.com")  # not told yet
        self.pair(token)
        self.relay.process.wait_for("office told its mailboxes: 2")
        self.assertRefused("bob@example.com")
        self.relay.send(LETTER % b"carol@partner.example", "alice+list@example.com")
        self.assertIn("as office told them", self.explained("bob@example.com").stdout)
        (line,) = mta(self.relay, "peers", "--json").stdout.splitlines()
        self.assertEqual(json.loads(line)["mailboxes"], 2)
        text = self.office.config.read_text().replace(
            "mailboxes: [alice]", "mailboxes: [alice, bob]"
        )
        self.office.configure(text)
        self.assertEqual(mta(self.office, "turn", "relay").returncode, 0)
        self.relay.process.wait_for("office told its mailboxes: 3")
        wait_until(lambda: self.explained("bob@example.com").returncode == 0, "bob is known")
        self.relay.stop()
        self.relay.start()
        self.relay.ports["smtp"] = self.smtp
        self.relay.send(LETTER % b"carol@partner.example", "bob@example.com")
        self.assertRefused("zoe@example.com")

    def explained(self, address: str) -> subprocess.CompletedProcess[str]:
        """What the relay would do with an address."""
        return mta(self.relay, "explain", address)

    def assertRefused(self, address: str) -> None:
        """The relay refuses a recipient, as soon as it goes by the list."""

        def refused() -> bool:
            try:
                self.relay.send(LETTER % b"carol@partner.example", address)
            except smtplib.SMTPRecipientsRefused as error:
                ((code, _),) = error.recipients.values()
                return code == 550
            return False

        wait_until(refused, f"{address} is refused")
