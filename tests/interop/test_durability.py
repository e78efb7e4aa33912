"""What got its 250 is there afterwards, however the process ends (RFC 5321 section 6.1)."""

from __future__ import annotations

import random
import re
import smtplib
import threading
import time
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.interop.sink import Sink
from tests.processes import DEADLINE, Server, body_of, configuration, wait_until

LOCAL, REMOTE = "bob@office.example", "carol@sink.example"
KILLS = 10
CLIENTS = 4
LARGE_EVERY = 20  # one in so many messages is too large for the database

_MARKER = re.compile(rb"^marker ([0-9-]+)$", re.MULTILINE)


def body(marker: str) -> bytes:
    """The whole body of the message with this marker, so that a damaged one is found, too."""
    number = int(marker.partition("-")[2])
    lines = 5_000 if number % LARGE_EVERY == 0 else 10
    filling = b"".join(
        b".%d of a message that is not to be lost, nor any line\r\n" % line for line in range(lines)
    )
    return b"marker %s\r\n" % marker.encode() + filling + b"end\r\n"


class Client(threading.Thread):
    """Sends messages one after the other, each to one address, and notes what got its 250."""

    def __init__(self, number: int, server: Server) -> None:
        super().__init__(daemon=True)
        self.acknowledged: dict[str, str] = {}  # marker: forward-path
        self._number = number
        self._server = server
        self._sent = 0
        self._over = threading.Event()

    def run(self) -> None:
        while not self._over.is_set():
            try:
                self._converse()
            except (OSError, smtplib.SMTPException):
                time.sleep(0.01)  # the server is down: it comes back

    def finish(self) -> None:
        """Send no more, and end."""
        self._over.set()
        self.join(DEADLINE)

    def _converse(self) -> None:
        port = self._server.ports["smtp"]
        with smtplib.SMTP("127.0.0.1", port, "client.example", timeout=DEADLINE) as client:
            while not self._over.is_set():
                self._sent += 1
                marker = f"{self._number}-{self._sent}"
                forward_path = LOCAL if self._sent % 2 else REMOTE
                content = b"Subject: durability\r\n\r\n" + body(marker)
                client.sendmail("sender@client.example", forward_path, content)
                self.acknowledged[marker] = forward_path


class Arrivals:
    """The markers of the messages in a Maildir; reads each file once."""

    def __init__(self, maildir: Path) -> None:
        self.markers: set[str] = set()
        self.damaged: list[str] = []
        self._folder = maildir / "new"
        self._seen: set[str] = set()

    def look(self) -> None:
        """Take note of what has come."""
        for path in self._folder.glob("*"):
            if path.name not in self._seen:
                self._seen.add(path.name)
                self._read(path)

    def _read(self, path: Path) -> None:
        found = body_of(path.read_bytes())
        match = _MARKER.search(found)
        marker = match[1].decode() if match else ""
        if not match or found != body(marker).replace(b"\r\n", b"\n"):
            self.damaged.append(path.name)
        self.markers.add(marker)


class DurabilityTests(SynchronousTestCase):
    """kill -9, again and again, while mail is accepted, delivered and relayed."""

    def test_every_acknowledged_message_arrives(self) -> None:
        """Each is in the Maildir or at the next hop, whole; a few may be there twice."""
        sink = Sink(self)
        routes = {"sink.example": f"smtp://127.0.0.1:{sink.port}"}
        server = Server(self, configuration(routes=routes))
        server.start()
        clients = [Client(number, server) for number in range(CLIENTS)]
        for client in clients:
            client.start()
        moments = random.Random(821)
        for _ in range(KILLS):
            time.sleep(moments.uniform(0.0, 0.6))  # the load goes on: nothing to wait for
            server.kill()
            server.start()
        for client in clients:
            client.finish()
        sent = {marker: path for client in clients for marker, path in client.acknowledged.items()}
        self.assertGreater(len(sent), KILLS * CLIENTS, "the load was no load")

        mailbox = Arrivals(server.folder / "mail" / "office.example" / "bob")
        next_hop = Arrivals(sink.folder)
        self.wait_for({m for m, path in sent.items() if path == LOCAL}, mailbox)
        self.wait_for({m for m, path in sent.items() if path == REMOTE}, next_hop)
        self.assertEqual(mailbox.damaged + next_hop.damaged, [])

    def wait_for(self, markers: set[str], arrivals: Arrivals) -> None:
        """Fails where a message does not come in time."""

        def missing() -> set[str]:
            arrivals.look()
            return markers - arrivals.markers

        try:
            wait_until(lambda: not missing(), "all that got a 250")
        except AssertionError:
            lost = sorted(missing())
            self.fail(f"{len(lost)} of {len(markers)} lost: {lost[:10]}")
