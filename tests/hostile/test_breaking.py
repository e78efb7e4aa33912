"""Clients that break off at our own listener, in whatever phase and way: nothing stays."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from mta.users.file import UserFile
from tests.hostile.breaking import (
    ENDS,
    SECURE_ENDS,
    Client,
    SecureClient,
    StartingClient,
    connected,
    reset,
)
from tests.processes import Server, configuration, listener, temporary_folder, wait_until

LINES = b"x" * 78 + b"\r\n"
LARGE = b"Subject: x\r\n\r\n" + 5000 * LINES  # more than what is kept in memory
EHLO = b"EHLO client.example\r\n"
ENVELOPE = (EHLO, b"MAIL FROM:<a@client.example>\r\n", b"RCPT TO:<bob@office.example>\r\n")
DATA = (*ENVELOPE, b"DATA\r\n")
# By phase: commands that are answered, and what comes behind them before the connection breaks.
PHASES = {
    "greeting": ((), b""),
    "EHLO": ((), b"EHLO cli"),
    "AUTH": ((EHLO, b"AUTH PLAIN\r\n"), b"AGFsaWNl"),
    "MAIL": (ENVELOPE[:1], b"MAIL FROM:<a@client.ex"),
    "RCPT": (ENVELOPE[:2], b"RCPT TO:<bob@office.example>"),
    "DATA": (ENVELOPE, b"DATA\r\n"),
    "header": (DATA, b"Subject: x\r\nTo: b"),
    "content": (DATA, b"Subject: x\r\n\r\nhello\r\n"),
    "large content": (DATA, LARGE),
    "dot": (DATA, b"Subject: x\r\n\r\nhello\r\n."),
    "dot of large content": (DATA, LARGE + b".\r"),
    "chunk": (ENVELOPE, b"BDAT 1000 LAST\r\nSubject: x\r\n"),
    "large chunk": (ENVELOPE, b"BDAT 500000 LAST\r\n" + LARGE),
    "between chunks": ((*ENVELOPE, b"BDAT 12\r\nSubject: x\r\n"), b""),
    "between large chunks": ((*ENVELOPE, b"BDAT %d\r\n" % len(LARGE) + LARGE), b"BDAT 1"),
}
SECURE_PHASES = ("AUTH", "DATA", "content", "large content", "large chunk")
OF_A_MESSAGE = 3  # lines of the log: accepted, delivered, removed
HELLO_LENGTHS = (0, 3, 100, 10_000)  # octets of a handshake after which it breaks off
NO_HELLOS = (b"\x15\x03\x03\0\x02\x02\x28", b"EHLO x\r\n", bytes(100))


class BreakingTests(SynchronousTestCase):
    """A server that takes a message before, and one afterwards."""

    def setUp(self) -> None:
        folder = temporary_folder(self)
        UserFile(folder / "users.yaml").add("alice", "wonderland")
        keys = {"listen": [listener("smtp", "opportunistic")], "users": "users.yaml"}
        self.server = Server(self, configuration(**keys), folder=folder)
        self.server.start()
        self.take_mail(1)
        self.before = self.left()

    def take_mail(self, count: int) -> None:
        """Send a message, which arrives, and leaves the spool."""
        self.server.send(LARGE, "bob@office.example")
        self.server.wait_for_mail("office.example/bob", count)
        wait_until(lambda: self.server.log.count(" removed") >= count, "it has left")

    def left(self) -> tuple[set[str], int]:
        """The files of the spool, and how many descriptors the server has."""
        assert self.server.process is not None
        paths = {str(path) for path in (self.server.folder / "spool").rglob("*")}
        return paths, len([*Path(f"/proc/{self.server.process.pid}/fd").iterdir()])

    def reach(self, client: Client, phase: str) -> None:
        """Talk until a phase has come."""
        commands, rest = PHASES[phase]
        for command in commands:
            client.say(command)
            reply = client.hear()
            self.assertIn(reply[:1], b"23", reply)
        client.say(rest)

    def break_off(self) -> None:
        """All clients, one after the other."""
        port = self.server.ports["smtp"]
        for phase in PHASES.keys() - {"AUTH"}:  # which takes TLS
            for end in ENDS:
                client = connected(port)
                self.reach(client, phase)
                end(client)
        for phase in SECURE_PHASES:
            for secure_end in SECURE_ENDS:
                secure = SecureClient(port)
                self.reach(secure, phase)
                secure_end(secure)
        for length in HELLO_LENGTHS:
            for end in ENDS:
                starting = StartingClient(port)
                starting.say(starting.hello[:length])
                end(starting)
        for said in NO_HELLOS:
            starting = StartingClient(port)
            starting.say(said)
            starting.wait_for_end()

    def test_nothing_stays(self) -> None:
        """No message, file or descriptor, and no line of the log."""
        lines = self.server.log.count("\n")
        self.break_off()
        wait_until(lambda: self.left() == self.before, f"{self.before}")
        self.take_mail(2)
        self.assertEqual(self.server.log.count("\n"), lines + OF_A_MESSAGE, self.server.log)

    def test_what_would_stay(self) -> None:
        """While content is on its way it can be seen: what is looked for is the right thing."""
        client = connected(self.server.ports["smtp"])
        self.reach(client, "large content")
        files, descriptors = self.before
        wait_until(lambda: self.left()[0] > files, "a file of the spool")
        self.assertGreater(self.left()[1], descriptors)
        reset(client)
        wait_until(lambda: self.left() == self.before, f"{self.before}")
