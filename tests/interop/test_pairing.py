"""Two servers that are paired by one line."""

from __future__ import annotations

import json
import re
import signal
import smtplib
import subprocess
from typing import Any

import yaml

from mta.peers.status_files import PeerStatusFiles
from mta.tls.files import certificates_in
from mta.tls.verify import fingerprint
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
        turned = self.relay.links  # by `mta pair`, to try it
        self.office.start()
        self.relay.wait_for_links(turned + 1, second=1)
        self.exchange(1)
        wait_until(self.passed_through, "the office answered the sender")
        self.relay.stop()
        self.office.stop()
        self.relay.start()
        self.office.start()
        self.exchange(2)

    def passed_through(self) -> bool:
        """Tell whether the office has answered for a message."""
        counts = PeerStatusFiles(self.relay.folder / "spool").read("office").counts
        return counts.get("passed_through") == 1

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
        self.assertIn("no name of a peer", self.failure(other, token, "--as", "../../x"))

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
        self.assertIn("origin: trust", self.office.config.read_text())

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

    def test_after_a_removal(self) -> None:
        """On the relay: the office can't log in.  In the office: nothing is dialled, nor sent."""
        self.pair(self.line("office", "--domain", "example.com"), "--no-test")
        self.office.start()
        self.relay.wait_for_links()
        mta(self.relay, "user", "add", "carol", "--password-stdin", stdin="secret\n")
        result = mta(self.relay, "pair", "--remove", "office", "--yes")
        self.assertIn("its own entries stay until", result.stderr)
        self.assertIn("535 5.7.8", mta(self.office, "turn", "relay").stderr)
        wait_until(lambda: "535 5.7.8" in self.peers(self.office), "the server is refused")
        self.assertNotIn("hold:office", self.explained("alice@example.com").stdout)
        said = len(self.office.process.output)
        self.assertEqual(mta(self.office, "pair", "--remove", "relay", "--yes").returncode, 0)
        self.office.process.wait_for("read again", after=said)
        self.assertEqual(self.peers(self.office), "no peers\n")
        with self.assertRaises(smtplib.SMTPRecipientsRefused):
            self.office.send(LETTER % b"alice@example.com", "carol@partner.example")
        self.pair(self.line("office", "--domain", "example.com"))  # and all of it again

    def peers(self, server: Server) -> str:
        """How a server is with its peers."""
        return mta(server, "peers").stdout

    def test_a_domain_in_another_script(self) -> None:
        """Both sides write it as it is in the DNS, and mail goes both ways."""
        self.office.configure(OFFICE.replace("example.com:", "bücher.example:"))
        said = self.pair(self.line("office", "--domain", "Bücher.example"))
        self.assertIn("a message to postmaster@xn--bcher-kva.example", said)
        self.assertIn("delivered: mail goes both ways", said)
        for server in (self.relay, self.office):
            self.assertEqual(mta(server, "check").returncode, 0)

    def test_what_is_printed_by_hand(self) -> None:
        """The entries of --manual, filled in as it says, are a link."""
        words = ["pair", "office", "--domain", "example.com", "--manual"]
        printed = mta(self.relay, *words).stdout
        on_relay, in_office = printed.split("# In the office")
        secret = re.search(r"in (\S+) \(mode", in_office)
        assert secret is not None
        self.relay.stop()
        self.relay.configure(merged(self.relay.config.read_text(), on_relay))
        mta(self.relay, "user", "add", "office", "--password-stdin", stdin="open-sesame\n")
        self.relay.start()
        (self.office.folder / secret[1]).write_text("open-sesame\n")
        (self.office.folder / secret[1]).chmod(0o600)
        entries = in_office.partition("\n")[2]
        shown = certificates_in(self.relay.folder / "spool" / "self-signed.pem")[0]
        pin = f"peers: {{relay: {{pin: 'sha256:{fingerprint(shown)}'}}}}"
        self.office.configure(merged(yaml.safe_dump(merged(OFFICE, entries)), pin))
        self.assertEqual(mta(self.office, "turn", "relay").stdout, "sent 0, received 0\n")

    def test_by_hand(self) -> None:
        """--manual shows what both sides need, and changes nothing."""
        before = self.relay.config.read_text()
        result = mta(self.relay, "pair", "office", "--domain", "example.com", "--manual")
        relay, office = result.stdout.split("\n# In the office")
        self.assertIn("deliver: hold:office", relay)
        self.assertIn(f"to: smtps://localhost:{self.port}", office)
        self.assertIn("origin: trust", office)
        self.assertEqual(self.relay.config.read_text(), before)

    def test_what_can_not_be_paired(self) -> None:
        """A domain that has mailboxes here, a person's name, no domain at all."""
        mta(self.relay, "user", "add", "alice", "--password-stdin", stdin="secret\n")
        many = [word for number in range(51) for word in ("--domain", f"d{number}.example")]
        for words, reason in (
            (["office"], "whose mail is it to be"),
            (["office", "--domain", "partner.example"], "goes by maildir:"),
            (["office", "--domain", "a b"], "not a domain"),
            (["alice", "--domain", "example.com"], "there is a user alice who is no peer"),
            (["../x", "--domain", "example.com"], "no name of a peer"),
            (["many", *many], "has room for 50 domains"),
        ):
            before = self.relay.config.read_text()
            self.assertIn(reason, self.failure(self.relay, *words))
            self.assertEqual(self.relay.config.read_text(), before)

    def test_one_list_of_mailboxes(self) -> None:
        """The relay refuses what the office does not have, once it was told, and after a change."""
        self.relay.ports["smtp"] = self.smtp
        token = self.line("office", "--domain", "example.com", "--no-live")
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

    def test_the_list_follows_the_office(self) -> None:
        """A mailbox that is added there is taken by the relay, one that is removed is refused."""
        self.relay.ports["smtp"] = self.smtp
        self.pair(self.line("office", "--domain", "example.com"), "--no-test")
        self.office.start()
        assert self.office.process is not None
        assert self.relay.process is not None
        self.relay.process.wait_for("office told its mailboxes: 2")
        text = self.office.config.read_text()
        for mailboxes, count in (("alice, bob", 3), ("alice", 2), ("alice, bob", 3)):
            said = len(self.relay.process.output)
            self.office.configure(text.replace("mailboxes: [alice]", f"mailboxes: [{mailboxes}]"))
            self.office.process.signal(signal.SIGHUP)
            self.relay.process.wait_for(f"office told its mailboxes: {count}", after=said)
            if count == 2:
                self.assertRefused("bob@example.com")
                continue
            wait_until(lambda: self.explained("bob@example.com").returncode == 0, "bob is known")
            self.assertTaken("bob@example.com")
        self.office.wait_for_mail("example.com/bob", 2)

    def assertTaken(self, address: str) -> None:
        """The relay takes a recipient, as soon as it goes by the list."""

        def taken() -> bool:
            try:
                self.relay.send(LETTER % b"carol@partner.example", address)
            except smtplib.SMTPRecipientsRefused:
                return False
            return True

        wait_until(taken, f"{address} is taken")

    def explained(self, address: str) -> subprocess.CompletedProcess[str]:
        """What the relay would do with an address."""
        return mta(self.relay, "explain", address)

    def assertRefused(self, address: str) -> None:
        """The relay refuses a recipient, as soon as it goes by the list."""

        def refused() -> bool:
            try:
                self.relay.send(LETTER % b"carol@partner.example", address)
            except smtplib.SMTPRecipientsRefused as error:
                ((code, text),) = error.recipients.values()
                return code == 550 and text.startswith(b"5.1.1")
            return False

        wait_until(refused, f"{address} is refused")


def merged(text: str, more: str) -> dict[str, Any]:
    """A configuration with more entries, as a person puts them in."""
    return _merged(yaml.load(text, yaml.BaseLoader), yaml.load(more, yaml.BaseLoader))


def _merged(into: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    both = {
        key: _merged(into[key], more[key])
        for key in into.keys() & more.keys()
        if isinstance(into[key], dict)
    }
    return into | more | both
