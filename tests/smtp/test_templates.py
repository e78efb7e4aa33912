"""The templates of hops, with an address filled in."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mta.mail import NULL_PATH, Agent, Hop, Mailbox
from mta.smtp.templates import TOO_LONG, UNSAFE, command_line, mailbox_path, placeholders, refusal

CAROL = Mailbox("carol", "partner.example")


class RefusalTests(SynchronousTestCase):
    """What is known to fail before it is tried."""

    def test_names_too_long_for_a_file(self) -> None:
        """They count as octets, in the form that the file system gets."""
        hop = Hop(Agent.MAILDIR, "/mail/{domain}/{local}")
        for local, expected in (
            ("alice", None),
            ("a" * 200, None),
            ("a" * 256, TOO_LONG),
            (" " * 86, TOO_LONG),
            ("ü" * 128, TOO_LONG),
            ("ü" * 120, None),
        ):
            self.assertEqual(refusal(hop, CAROL, Mailbox(local, "a.example")), expected, local)

    def test_options_of_a_command(self) -> None:
        """An address that would make an option of an argument, whose ever it is."""
        option = Mailbox("-x", "a.example")
        alice = Mailbox("alice", "a.example")
        for template, reverse_path, address, expected in (
            ("cat {local}", CAROL, option, UNSAFE),
            ("cat {sender}", option, alice, UNSAFE),
            ("cat {sender}", NULL_PATH, alice, None),
            ("cat --for={local}", CAROL, option, None),
            ("cat", option, option, None),
            ("cat {local}", CAROL, Mailbox("a\0", "a.example"), UNSAFE),
            ("cat '{local}", CAROL, option, None),  # which a person may correct
        ):
            hop = Hop(Agent.PIPE, template)
            self.assertEqual(refusal(hop, reverse_path, address), expected, template)

    def test_other_hops(self) -> None:
        """Nothing is known of them."""
        self.assertIsNone(refusal(Hop(Agent.MX, "a.example"), CAROL, Mailbox("-" * 300, "a.b")))


class TemplateTests(SynchronousTestCase):
    """What is filled in."""

    def test_mailbox_path(self) -> None:
        """Each value is one name of a file."""
        path = mailbox_path("/m/{domain}/{local}/{address}", Mailbox("../a/é", ".x"))
        self.assertEqual(path, "/m/%2Ex/%2E.%2Fa%2Fé/%2E.%2Fa%2Fé@%2Ex")
        self.assertEqual(mailbox_path("/{local}", Mailbox("", "x")), "/%")
        self.assertEqual(mailbox_path("/{local}", Mailbox("\u200e", "x")), "/%E2%80%8E")

    def test_command_line(self) -> None:
        """Each word is one argument, whatever is in an address."""
        words = placeholders(CAROL, Mailbox("a b", "a.example"))
        found = command_line("run {sender} x-{local} '{recipient} {domain}' {other}", words)
        expected = ["carol@partner.example", "x-a b", '"a b"@a.example a.example', "{other}"]
        self.assertEqual(found, ["run", *expected])
        self.assertRaises(ValueError, command_line, "", words)
