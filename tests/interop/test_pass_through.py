"""Mail passed through to an office: real processes, real senders, and kills."""

from __future__ import annotations

import contextlib
import json
import random
import smtplib
import subprocess
import threading
from itertools import count
from typing import Any

from tests.interop.name_server import answering
from tests.interop.reversal import (
    BOB,
    BOBS,
    CAROL,
    Provider,
    letter,
    numbers,
    office,
    run_mta,
    waiting,
)
from tests.interop.test_filters import CONTENT, GTUBE, FilterCase, milters
from tests.interop.test_origins import NAMES, SENDER, STRANGER, deliver
from tests.processes import DEADLINE, local_domain, mail_in, need_program, wait_for_mail, wait_until

SENDERS, LETTERS = 4, 15  # at once, and of each


class PassingCase(FilterCase):
    """A relay that passes mail through to its office."""

    def serve(self, **keys: Any) -> None:
        """Begin to serve at both ends; `keys` are of the office."""
        self.relay = Provider(
            self,
            {"linger": "1h", "pass_through": True},
            relay={"networks": [], "xclient": ["127.0.0.1"]},
        )
        self.relay.start()
        self.office = office(self, self.relay, every="1s", origin="trust", keys=keys)
        self.begin()
        self.inbox = self.office.folder / "mail" / BOBS

    def begin(self) -> None:
        """Start the office, and wait for the link."""
        seen = self.relay.links
        self.office.start()
        self.relay.wait_for_links(seen + 1)

    def counts(self) -> dict[str, int]:
        """What the relay counts of the office."""
        peer: dict[str, Any] = json.loads(run_mta(self.relay, "peers", "--json"))
        return {name: peer[name] for name in ("passed_through", "refused")}


class AnswerTests(PassingCase):
    """The sender hears the office."""

    def test_its_checks(self) -> None:
        """A client that is no host of the bank's is refused; there is no notice, and no junk."""
        self.serve(authentication={"dmarc": "reject"}, resolver=[answering(self, NAMES)])
        said = deliver(self.relay.ports["smtp"], BOB, behind=SENDER)
        self.assertRegex(said, r"^250 2.0.0 OK \S+ accepted by office$")
        (good,) = wait_for_mail(self.inbox, 1)
        self.assertIn(b"dmarc=pass", good)
        refused = deliver(self.relay.ports["smtp"], BOB, behind=STRANGER)
        self.assertRegex(refused, r"^550 5.7.26 office refused it: DMARC: .*bank.example")
        wait_until(lambda: self.counts() == {"passed_through": 1, "refused": 1}, "it is counted")
        self.assertEqual((len(mail_in(self.inbox)), waiting(self.relay.folder)), (1, 0))
        self.assertFalse((self.inbox / ".Junk").exists())
        self.assertNotIn("is a notice", self.relay.log + self.office.log)
        log = self.relay.folder / "log"
        log.write_text(self.relay.log)
        traced = run_mta(self.relay, "trace", said.split()[3], "--log", str(log))
        self.assertRegex(traced, r"250 2.0.0 OK queued as \S+")

    def test_a_full_mailbox(self) -> None:
        """The sender hears it at once; without a link to wait on, mail waits for room."""
        quota = {"office.example": local_domain(quota="1KiB")}
        self.serve(domains=quota)
        with self.assertRaises(smtplib.SMTPDataError) as caught:
            self.relay.send(letter(1) + (b"x" * 70 + b"\r\n") * 30, BOB)
        self.assertEqual(
            (caught.exception.smtp_code, caught.exception.smtp_error),
            (552, b"5.2.2 office refused it: Mailbox full"),
        )
        self.relay.send(letter(2), BOB)
        self.assertEqual(numbers(wait_for_mail(self.inbox)), [2])
        self.assertEqual(waiting(self.relay.folder), 0)
        wait_until(lambda: not waiting(self.office.folder), "the office has delivered it")

    def test_spam(self) -> None:
        """What rspamd refuses in the office is refused to swaks, far away."""
        self.serve(milters=milters(f"inet:127.0.0.1:{self.run_rspamd()}"))
        message = self.relay.folder / "message.eml"
        message.write_bytes(CONTENT % (b"x", GTUBE))
        ended = subprocess.run(
            [
                need_program(self, "swaks"),
                *("--server", "127.0.0.1", "--port", str(self.relay.ports["smtp"])),
                *("--from", CAROL, "--to", BOB, "--helo", "client.example"),
                *("--data", f"@{message}"),
            ],
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
        )
        self.assertEqual(ended.returncode, 26, ended.stdout)  # swaks: refused behind the content
        self.assertIn("<** 554 5.7.1 office refused it: Gtube pattern", ended.stdout)
        self.assertEqual((mail_in(self.inbox), waiting(self.relay.folder)), ([], 0))
        self.assertNotIn("is a notice", self.relay.log + self.office.log)


class KillTests(PassingCase):
    """The office is killed again and again, while senders wait for it."""

    def test_the_office(self) -> None:
        """Each message has one answer, and is there once."""
        self.serve()
        answers: dict[int, list[int]] = {}
        senders = [
            threading.Thread(target=self.send, args=(first, answers)) for first in range(SENDERS)
        ]
        for sender in senders:
            sender.start()
        chance = random.Random(16)
        for _ in range(3):
            self.office.process.wait_for(r" accepted <")
            threading.Event().wait(chance.random() / 10)
            self.office.kill()
            self.begin()
        for sender in senders:
            sender.join(DEADLINE * 2)
        sent = range(SENDERS * LETTERS)
        self.assertEqual(answers, {number: [250] for number in sent})
        wait_for_mail(self.inbox, len(sent), DEADLINE * 4)
        wait_until(lambda: not waiting(self.relay.folder) + waiting(self.office.folder), "all sent")
        self.assertEqual(numbers(mail_in(self.inbox)), [*sent])
        self.assertNotIn("is a notice", self.relay.log + self.office.log)

    def test_the_relay(self) -> None:
        """What it has acknowledged is there; what it has not, its sender has to send again."""
        self.serve()
        acknowledged: list[int] = []
        chance, letters = random.Random(16), count()
        for _ in range(3):
            kill = threading.Timer(chance.random() / 3, self.relay.kill)
            kill.start()
            with contextlib.suppress(OSError, smtplib.SMTPException):
                for number in letters:
                    self.relay.send(letter(number), BOB, reverse_path=CAROL)
                    acknowledged.append(number)
            kill.join()
            seen = self.relay.links
            self.relay.start()
            self.relay.wait_for_links(seen + 1)
        self.assertIn("by hold:office", self.relay.log)
        wait_until(lambda: not waiting(self.relay.folder) + waiting(self.office.folder), "all sent")
        arrived = numbers(mail_in(self.inbox))
        self.assertEqual(len(arrived), len(set(arrived)))
        self.assertEqual(set(acknowledged) - set(arrived), set())

    def send(self, first: int, answers: dict[int, list[int]]) -> None:
        """Send some letters, one after the other."""
        with smtplib.SMTP("127.0.0.1", self.relay.ports["smtp"], timeout=DEADLINE * 3) as client:
            client.ehlo("client.example")
            for number in range(first, SENDERS * LETTERS, SENDERS):
                client.mail(CAROL)
                client.rcpt(BOB)
                code, _ = client.data(letter(number))
                answers.setdefault(number, []).append(code)
