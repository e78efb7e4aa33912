"""A relay that asks its office which mailboxes it has: real processes, and workers."""

from __future__ import annotations

import json
import signal
import smtplib
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.interop.postfix import Postfix
from tests.interop.reversal import BOB, BOBS, Provider, office, run_mta
from tests.interop.test_origins import CLIENT, deliver
from tests.processes import DEADLINE, local_domain, wait_until

SESSIONS = 20  # enough that each of two processes has some
NOBODY, CAROLINE = "nobody@office.example", "caroline@office.example"


class LiveTests(SynchronousTestCase):
    """A relay of two processes, and an office that tells nothing of its mailboxes beforehand."""

    def serve(self, **peer: Any) -> None:
        """Begin to serve at both ends; `peer` is of the office's entry at the relay."""
        self.relay = Provider(self, {"linger": "1h", "verify": "live"} | peer, queue={"workers": 2})
        self.relay.start()
        assert self.relay.process is not None
        self.relay.process.wait_for("worker ready")
        self.office = office(self, self.relay, every="1s", links=2, keys=self.mailboxes("bob"))
        self.office.start()
        self.relay.wait_for_links(second=1)

    def mailboxes(self, *names: str) -> dict[str, Any]:
        """The office's domain, with those mailboxes."""
        return {"domains": {"office.example": local_domain(mailboxes=[*names])}}

    def rcpt(self, *addresses: str) -> list[bytes]:
        """The replies to RCPT, of a new session."""
        with smtplib.SMTP("127.0.0.1", self.relay.ports["smtp"], timeout=DEADLINE) as client:
            client.ehlo("client.example")
            client.mail("ceo@bank.example")
            replies = [client.rcpt(address) for address in addresses]
        return [str(code).encode() + b" " + text for code, text in replies]

    def questions(self) -> dict[str, int]:
        """Where the answers came from, as the relay counts them."""
        found: dict[str, int] = json.loads(run_mta(self.relay, "peers", "--json"))["questions"]
        return found

    def test_in_each_process(self) -> None:
        """Whichever takes the connection: what does not exist is refused at RCPT."""
        self.serve()
        names = [f"nobody{number}@office.example" for number in range(SESSIONS)]
        for name in names:
            yes, no = self.rcpt(BOB, name)
            self.assertEqual(yes[:9], b"250 2.1.5")
            self.assertEqual(no, b"550 5.1.1 No such user here")
        wait_until(lambda: sum(self.questions().values()) == 2 * SESSIONS, "all are counted")
        answers = self.questions()
        self.assertEqual((answers["link"], answers["cache"]), (SESSIONS + 1, SESSIONS - 1))

    def test_sockets(self) -> None:
        """Those by which processes ask each other are for their user alone."""
        self.serve()
        folder = self.relay.folder / "spool/peers"
        sockets = wait_until(lambda: [*folder.glob("*.questions")], "a socket")
        self.assertEqual(folder.stat().st_mode & 0o777, 0o700)
        self.assertEqual({each.lstat().st_mode & 0o777 for each in sockets}, {0o600})

    def test_a_new_mailbox(self) -> None:
        """It is known a moment after the office read its configuration again."""
        self.serve()
        (refused,) = self.rcpt(CAROLINE)
        self.assertEqual(refused[:9], b"550 5.1.1")
        text = self.office.config.read_text("utf-8").replace("bob", "caroline")
        self.office.config.write_text(text, "utf-8")
        assert self.office.process is not None
        self.office.process.signal(signal.SIGHUP)
        self.relay.wait_for_links(2, second=2)
        wait_until(lambda: self.rcpt(CAROLINE)[0][:3] == b"250", "it is known")
        self.assertEqual(self.rcpt(BOB)[0][:9], b"550 5.1.1")

    def test_the_office_is_down(self) -> None:
        """What it told stands; then the rule does."""
        self.serve()
        self.office.stop()
        wait_until(lambda: self.rcpt(NOBODY)[0][:9] == b"550 5.1.1", "the list counts")
        self.assertEqual(self.rcpt(BOB)[0][:9], b"250 2.1.5")
        for path in (self.relay.folder / "spool/mailboxes").iterdir():
            path.unlink()
        wait_until(lambda: self.rcpt(NOBODY)[0][:3] == b"250", "the list is forgotten")
        explained = run_mta(self.relay, "explain", "other@office.example")
        self.assertIn("office does not answer, and has told no list", explained)

    def test_the_office_is_down_and_mail_waits(self) -> None:
        """With ``unknown: defer``."""
        self.serve(unknown="defer")
        self.office.stop()
        for path in (self.relay.folder / "spool/mailboxes").iterdir():
            path.unlink()
        wait_until(lambda: self.rcpt(NOBODY)[0][:9] == b"450 4.1.1", "it is put off")

    def test_explained(self) -> None:
        """``mta explain`` asks as a session would, and says who answered."""
        self.serve()
        self.assertIn("office has it, as it says now", run_mta(self.relay, "explain", BOB))
        refused = run_mta(self.relay, "explain", NOBODY, status=1)
        self.assertIn(f"{NOBODY}: 550 5.1.1 No such user here", refused)
        self.rcpt(BOB)
        wait_until(lambda: "lately" in run_mta(self.relay, "explain", BOB), "it is remembered")
        document = json.loads(run_mta(self.relay, "explain", BOB, "--json"))
        self.assertEqual(document["verified"], {"answer": "yes", "by": "cache"})

    def test_from_postfix(self) -> None:
        """What Postfix sends for nobody is refused to it, and it writes the notice."""
        self.serve()
        postfix = Postfix(
            self,
            relay_port=self.relay.ports["smtp"],
            settings={"smtp_bind_address": "127.0.0.1"},
        )
        deliver(postfix.port, BOB, source=CLIENT)
        self.office.wait_for_mail(BOBS)
        deliver(postfix.port, NOBODY, source=CLIENT)
        wait_until(lambda: "550 5.1.1 No such user here" in postfix.log, "Postfix was refused")
        wait_until(lambda: "accepted <>" in self.relay.log, "the notice of Postfix came")
        self.assertNotRegex(self.relay.log + self.office.log, r"is a notice .*<ceo@bank\.example>")
