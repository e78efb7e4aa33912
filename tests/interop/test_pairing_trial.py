"""The trial at the end of a pairing: each domain, its folder, and the link."""

from __future__ import annotations

from tests.interop.pairing import OFFICE, PairingCase, mta

SECOND = """\
  second.example:
    deliver: maildir:mail2/{domain}/{local}
    mailboxes: [bob]
    aliases: {postmaster: bob}
routes:
"""


class TrialTests(PairingCase):
    """An office with two domains."""

    def setUp(self) -> None:
        super().setUp()
        self.office.configure(OFFICE.replace("routes:\n", SECOND))
        self.token = self.line("office", "--domain", "example.com", "--domain", "second.example")

    def pair_in_part(self) -> str:
        """Pair the office, with things to mend; returns what it said."""
        result = mta(self.office, "pair", self.token)
        self.assertEqual(result.returncode, 1, result.stdout)
        self.assertIn("paired, with 1 thing to mend", result.stderr)
        self.assertIn("hold:relay", self.office.config.read_text())
        return result.stdout

    def test_each_domain(self) -> None:
        """Each has a message, there and back, and the link is looked at."""
        said = self.pair(self.token)
        self.assertIn("by way of the relay: the relay has all 2", said)
        self.assertIn("delivered: mail goes both ways", said)
        self.assertIn("a look at the link: all is well", said)
        self.office.wait_for_mail("example.com/alice", 1)
        self.office.wait_for_mail("../mail2/second.example/bob", 1)

    def test_a_domain_that_the_relay_refuses(self) -> None:
        """The domain and the command are named; the others are tried all the same."""
        text = self.relay.config.read_text()
        self.relay.configure(text.replace("second.example", "third.example"))
        self.assertNotEqual(self.relay.config.read_text(), text)
        self.relay.stop()
        self.relay.start()
        said = self.pair_in_part()
        self.assertIn("to postmaster@second.example: the relay refuses MAIL: 553 5.7.1", said)
        self.office.wait_for_mail("example.com/alice", 1)

    def test_a_domain_that_is_not_delivered(self) -> None:
        """The reason is named, as the log has it."""
        (self.office.folder / "mail2").write_text("in the way")
        said = self.pair_in_part()
        self.assertRegex(
            said, "the message to postmaster@second.example came, and is not delivered: 4.*"
        )
        self.office.wait_for_mail("example.com/alice", 1)

    def test_what_the_doctor_finds(self) -> None:
        """It does not undo the pairing, and the status tells."""
        text = self.relay.config.read_text()
        self.relay.configure(text.replace("methods: [atrn]", "methods: [etrn]"))
        self.assertNotEqual(self.relay.config.read_text(), text)
        self.relay.stop()
        self.relay.start()
        result = mta(self.office, "pair", self.token, "--no-test")
        self.assertEqual(result.returncode, 1, result.stdout)
        self.assertIn("does not offer ATRN", result.stdout)
        self.assertIn("hold:relay", self.office.config.read_text())

    def test_beside_a_running_server(self) -> None:
        """A new line, while the office's server holds the link: all messages come, by either."""
        self.pair(self.token, "--no-test")
        self.office.start()
        self.relay.wait_for_links()
        said = self.pair(mta(self.relay, "pair", "--renew", "office").stdout.split()[2])
        self.assertIn("the relay has all 2", said)
        self.assertIn("reads its configuration again, and keeps the link", said)
        self.office.wait_for_mail("example.com/alice", 1)
        self.office.wait_for_mail("../mail2/second.example/bob", 1)
