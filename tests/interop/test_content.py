"""Hostile content on its way through the running server: what leaves, and who else waits for it."""

from __future__ import annotations

import smtplib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from twisted.trial.unittest import SynchronousTestCase

from tests.interop.postfix import DOMAIN, Postfix
from tests.interop.sink import Sink
from tests.processes import (
    DEADLINE,
    Server,
    configuration,
    local_domain,
    mail_in,
    wait_until,
)

MIB = 2**20
SENDER = "mallory@partner.example"
SMUGGLED = b"MAIL FROM:<ceo@bank.example>%bRCPT TO:<second@%b>%bDATA%bFrom: CEO%b%bsmuggled%b.%b"
LYING = (
    b"Content-Type: multipart/mixed\r\nContent-Transfer-Encoding: base64\r\n",
    b"Content-Type: multipart/mixed; boundary=b\r\n",
    b"Content-Transfer-Encoding: quoted-printable\r\n",
    b"Content-Transfer-Encoding: base64\r\n",
    b"Content-Type: text/plain\r\n",
)


class ContentTestCase(SynchronousTestCase):
    """A server that hands mail of one domain to another host."""

    def start(self, port: int, domain: str) -> None:
        """Start it; `port`: of the other host."""
        domains = {
            "partner.example": local_domain(mailboxes=["mallory"]),
            domain: {"deliver": f"smtp://127.0.0.1:{port}"},
        }
        limits = {"message_size": "64 MiB", "messages_per_minute": 10_000}
        self.server = Server(self, configuration(domains=domains, limits=limits))
        self.server.start()

    def returned(self) -> list[bytes]:
        """The notices of what could not be sent."""
        return mail_in(self.server.folder / "mail" / "partner.example" / "mallory")

    @contextmanager
    def client(self) -> Iterator[smtplib.SMTP]:
        """A client after EHLO."""
        with smtplib.SMTP("127.0.0.1", self.server.ports["smtp"], timeout=60) as client:
            client.ehlo("client.example")
            yield client

    def send_binary(self, client: smtplib.SMTP, forward_path: str, content: bytes) -> None:
        """Send a message with BODY=BINARYMIME."""
        client.mail(SENDER, ["BODY=BINARYMIME"])
        client.rcpt(forward_path)
        client.send(b"BDAT %d LAST\r\n" % len(content) + content)
        code, text = client.getreply()
        self.assertEqual(code, 250, text)


class SmugglingTests(ContentTestCase):
    """A Postfix that takes bare line ends, and has no CHUNKING."""

    def test_one_message_is_one(self) -> None:
        """Whatever the content claims to be, nothing of it becomes a second message."""
        postfix = Postfix(
            self,
            settings={
                "smtpd_forbid_bare_newline": "no",
                "smtpd_discard_ehlo_keywords": "chunking",
            },
        )
        self.start(postfix.port, DOMAIN)
        count = 0
        with self.client() as client:
            for fields in LYING:
                for end in (b"\n", b"\r", b"\r\n\0"):
                    more = SMUGGLED % (end, DOMAIN.encode(), *([end] * 6))
                    content = fields + b"\r\nhello" + end + b"." + end + more + b"\r\n"
                    self.send_binary(client, f"first@{DOMAIN}", content)
                    count += 1
            self.send_binary(client, f"last@{DOMAIN}", b"Subject: last\r\n\r\nhello\r\n")
        wait_until(
            lambda: len(postfix.mail) + len(self.returned()) >= count + 1, "all have their end"
        )
        for message in postfix.mail:
            self.assertNotIn(b"bank.example", message.partition(b"\n\n")[0])
        self.assertNotIn("from=<ceo@bank.example>", postfix.log)
        self.assertEqual(len(postfix.mail) + len(self.returned()), count + 1)
        for notice in self.returned():
            self.assertIn(b"5.6.3", notice)


class NeighbourTests(ContentTestCase):
    """Others are answered while content is worked on that takes long."""

    HEAD = b"MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n"

    def test_hostile_content(self) -> None:
        """Many parts, long texts, one line: nobody waits long for a NOOP meanwhile."""
        self.sink = Sink(self)
        self.start(self.sink.port, "relayed.example")
        slowest = {}
        for name, content in (
            ("small parts", self.HEAD + b"--b\r\n\r\n\r\n" * (27 * MIB // 9)),
            ("nearly parts", self.HEAD + b"--x\r\n\r\n\r\n" * (27 * MIB // 9)),
            ("text", b"\r\n" + "schön und gut, ja\r\n".encode() * MIB),
            ("octets", b"\r\n" + b"\xff\n" * (25 * MIB)),
            ("one line", b"Subject: x\r\n" * 20_000 + b"\r\n" + b"\xff" * (50 * MIB)),
        ):
            ended = self.ended
            with self.client() as client:
                self.send_binary(client, "bob@relayed.example", content)
            slowest[name] = self.slowest_noop(lambda before=ended: self.ended > before)
        # Generous: on the machine of the tests others are at work, too.  It took 12 to 75 s.
        self.assertLess(max(slowest.values()), 2.0, slowest)

    @property
    def ended(self) -> int:
        """How many messages have arrived, or were returned."""
        return len(self.sink.mail) + len(self.returned())

    def slowest_noop(self, is_over: Callable[[], bool]) -> float:
        """The longest that a NOOP took until it was over, in seconds."""
        slowest, end = 0.0, time.monotonic() + DEADLINE
        while not is_over():
            self.assertLess(time.monotonic(), end)
            with self.client() as neighbour:
                for _ in range(20):
                    begun = time.monotonic()
                    neighbour.noop()
                    slowest = max(slowest, time.monotonic() - begun)
        return slowest
