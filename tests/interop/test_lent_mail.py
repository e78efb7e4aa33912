"""Mail passed through by all processes of a relay, though one has the link; and kills."""

from __future__ import annotations

import os
import signal
import smtplib
import threading
from itertools import count

from twisted.trial.unittest import SynchronousTestCase

from bench.tree import children
from tests.interop.reversal import BOB, BOBS, CAROL, Provider, letter, numbers, office, waiting
from tests.processes import DEADLINE, local_domain, mail_in, wait_until

SESSIONS = 12  # enough that each of two processes has some
READY = "worker ready"
SENDERS, KILLS = 3, 2


class LentMailTests(SynchronousTestCase):
    """A relay of two processes, and its office."""

    def setUp(self) -> None:
        self.relay = Provider(
            self,
            {"linger": "1h", "pass_through": True, "verify": "off"},
            queue={"workers": 2, "retry": ["1s"]},
        )
        self.relay.start()
        assert self.relay.process is not None
        self.process = self.relay.process
        self.process.wait_for(READY)
        domains = {"office.example": local_domain(mailboxes=["bob"])}
        self.office = office(
            self, self.relay, every="1s", origin="trust", keys={"domains": domains}
        )
        self.office.start()
        self.relay.wait_for_links()
        self.inbox = self.office.folder / "mail" / BOBS

    @property
    def worker(self) -> int:
        """The process id of the worker."""
        (worker,) = children(self.process.pid)
        return worker

    def said(self, content: bytes, address: str = BOB) -> str:
        """The reply to a message, of a new session."""
        with smtplib.SMTP("127.0.0.1", self.relay.ports["smtp"], timeout=DEADLINE) as client:
            client.ehlo("client.example")
            client.mail(CAROL)
            client.rcpt(address)
            code, text = client.data(content)
        return f"{code} {text.decode()}"

    def test_in_each_process(self) -> None:
        """Whichever takes the connection: the office answers, and nothing is in the spool."""
        for number in range(SESSIONS):
            self.assertIn("accepted by office", self.said(letter(number)))
        large = b"x" * 76 + b"\r\n"
        for number in range(SESSIONS, SESSIONS + 8):
            self.assertIn("accepted by office", self.said(letter(number) + large * 2**14))
        self.assertEqual(waiting(self.relay.folder), 0)
        sent = [*range(SESSIONS + 8)]
        wait_until(lambda: len(mail_in(self.inbox)) == len(sent), "all have arrived")
        self.assertEqual(numbers(mail_in(self.inbox)), sent)

    def test_sockets(self) -> None:
        """Those of the two processes are for their user alone."""
        folder = self.relay.folder / "spool/peers"
        sockets = [*folder.glob("*.mail")]
        self.assertEqual(len(sockets), 2)
        self.assertEqual(folder.stat().st_mode & 0o777, 0o700)
        self.assertEqual({each.stat().st_mode & 0o777 for each in sockets}, {0o600})

    def test_refused_in_each_process(self) -> None:
        """What the office refuses is refused to the sender, without a notice."""
        for number in range(SESSIONS):
            said = self.said(letter(number), "nobody@office.example")
            self.assertRegex(said, "^550 5.1.1 office refused it")
        self.assertEqual((waiting(self.relay.folder), mail_in(self.inbox)), (0, []))
        self.assertNotIn("is a notice", self.relay.log + self.office.log)

    def test_kills_of_a_worker(self) -> None:
        """It has the link, or the senders: what was acknowledged is there, and nothing twice."""
        acknowledged: set[int] = set()
        letters, stop = count(), threading.Event()
        senders = [
            threading.Thread(target=self.send, args=(letters, acknowledged, stop))
            for _ in range(SENDERS)
        ]
        for sender in senders:
            sender.start()
        for _ in range(KILLS):
            enough = len(acknowledged) + 20
            wait_until(lambda enough=enough: len(acknowledged) > enough, "mail goes")
            after = len(self.process.output)
            os.kill(self.worker, signal.SIGKILL)
            self.process.wait_for(READY, after=after)
        stop.set()
        for sender in senders:
            sender.join(DEADLINE)
        wait_until(lambda: not waiting(self.relay.folder), "the relay has sent all")
        wait_until(lambda: not waiting(self.office.folder), "the office has delivered all")
        arrived = numbers(mail_in(self.inbox))
        self.assertEqual(len(arrived), len(set(arrived)))
        self.assertEqual(acknowledged - set(arrived), set())
        self.assertNotIn("is a notice", self.relay.log + self.office.log)

    def send(self, letters: count[int], acknowledged: set[int], stop: threading.Event) -> None:
        """Send letters until it is enough, each by a session of its own."""
        while not stop.is_set():
            number = next(letters)
            try:
                said = self.said(letter(number))
            except (OSError, smtplib.SMTPException):
                continue
            if said.startswith("250"):
                acknowledged.add(number)
