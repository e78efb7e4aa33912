"""Another secret for a link, without another line."""

from __future__ import annotations

import smtplib
import ssl

from tests.interop.pairing import OFFICE, SECRET, PairingCase, mta


class RenewalTests(PairingCase):
    """A paired office, whose server runs."""

    def setUp(self) -> None:
        super().setUp()
        self.pair(self.line("office", "--domain", "example.com"), "--no-test")
        self.secret = self.office.folder / SECRET
        self.old = self.secret.read_text()
        self.config = self.office.config.read_text()

    def renew(self) -> str:
        """Renew the secret in the office; returns what it said."""
        result = mta(self.office, "pair", "--renew", "relay")
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        return result.stdout

    def turns(self) -> bool:
        """Tell whether the secret in the office's file opens the link."""
        result = mta(self.office, "turn", "relay")
        return result.returncode == 0

    def test_both_ends(self) -> None:
        """Both have another secret, which is in no configuration, and the old one is over."""
        self.office.start()
        self.relay.wait_for_links()
        said = self.renew()
        self.assertIn("which counts beside the old one", said)
        self.assertIn("the server: reads its configuration again", said)
        self.assertIn("the old one is of no use any more", said)
        new = self.secret.read_text()
        self.assertNotEqual(new, self.old)
        self.assertEqual(self.secret.stat().st_mode & 0o777, 0o600)
        self.assertEqual(self.office.config.read_text(), self.config)
        self.assertNotIn(new.strip(), self.relay.process.output)
        self.assertTrue(self.turns())
        self.secret.write_text(self.old)
        self.assertFalse(self.turns())
        self.secret.write_text(new)
        for server in (self.relay, self.office):
            server.stop()
            server.start()
        self.assertTrue(self.turns())

    def test_a_cut(self) -> None:
        """The relay has the new one, the office has not: the old one opens the link."""
        context = ssl._create_unverified_context()
        client = smtplib.SMTP_SSL("127.0.0.1", self.port, context=context)
        client.login("office", self.old.strip())
        self.assertEqual(client.docmd("XRENEW", "n" * 32)[0], 250)
        client.close()
        self.assertTrue(self.turns())
        self.renew()
        self.assertTrue(self.turns())

    def test_a_link_that_is_down(self) -> None:
        """Nothing changes, and the way to a new line is shown."""
        self.relay.stop()
        result = mta(self.office, "pair", "--renew", "relay")
        self.assertEqual(result.returncode, 1)
        self.assertIn("nothing listens", result.stderr)
        self.assertIn("the old secret stays", result.stderr)
        self.assertIn("mta pair --renew office", result.stderr)
        self.assertEqual(self.secret.read_text(), self.old)
        self.relay.start()
        self.assertTrue(self.turns())

    def test_a_new_line_ends_it(self) -> None:
        """What the operator of the relay sets counts, whatever the office had renewed."""
        self.renew()
        result = mta(self.relay, "pair", "--renew", "office")
        self.assertIn("office has a new password", result.stderr)
        self.assertIn("`mta pair --renew RELAY` there", result.stderr)
        self.assertFalse(self.turns())
        self.pair(result.stdout.split()[2], "--no-test")
        self.assertTrue(self.turns())

    def test_no_such_peer(self) -> None:
        """The name is that of a peer, on either side."""
        result = mta(self.relay, "pair", "--renew", "nobody")
        self.assertIn("no peer is called", result.stderr)
        self.office.configure(OFFICE)
        result = mta(self.office, "pair", "--renew", "relay")
        self.assertIn("no peer is called", result.stderr)
