"""Many offices on one relay: a hostile one delays no other, and sees nothing of it."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from twisted.trial.unittest import SynchronousTestCase

from tests.interop.reversal import (
    BOB,
    BOBS,
    CAROL,
    PASSWORD,
    Provider,
    letter,
    numbers,
    office,
    run_mta,
    waiting,
)
from tests.processes import DEADLINE, local_domain, wait_until

MALLORY = "eve@mallory.example"
WAITING = 30  # letters for the hostile office, of 100 KiB each
STEP = 0.05  # seconds that a slow one takes for each octet


class Mallory:
    """A hostile office: it logs in, and may do all that it likes.

    `heard` is all that the relay ever said to it.
    """

    def __init__(self, provider: Provider) -> None:
        self.heard = bytearray()
        self.rounds = 0
        self.stopped = threading.Event()
        self._port = provider.ports["submission"]
        self._context = ssl.create_default_context(cafile=str(provider.authority.path))

    @contextmanager
    def logged_in(self) -> Iterator[ssl.SSLSocket]:
        """A session that has proved to be this office."""
        plain = socket.create_connection(("127.0.0.1", self._port), DEADLINE)
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        with self._context.wrap_socket(plain, server_hostname="localhost") as connection:
            self.expect(connection, b"220 ")
            secret = b64encode(f"\0mallory\0{PASSWORD}".encode()).decode()
            for command, code in (
                ("EHLO mallory.example", b"250 "),
                (f"AUTH PLAIN {secret}", b"235 "),
            ):
                connection.sendall(f"{command}\r\n".encode())
                self.expect(connection, code)
            yield connection

    def expect(self, connection: ssl.SSLSocket, start: bytes) -> None:
        """Read until a line begins so, or the relay hangs up."""
        begun = len(self.heard)
        while not any(line.startswith(start) for line in self.heard[begun:].split(b"\r\n")):
            if not (octets := connection.recv(2**14)):
                raise ConnectionError("the relay has hung up")
            self.heard += octets

    def turned(self, connection: ssl.SSLSocket) -> None:
        """Turn the connection, and be a server up to the first MAIL."""
        connection.sendall(b"ATRN mallory.example\r\n")
        self.expect(connection, b"250 ")
        connection.sendall(b"220 mallory.example\r\n")
        self.expect(connection, b"EHLO ")

    # --- what it may do, again and again

    def reads_nothing(self) -> None:
        """Offer the fastest extensions, and read no octet of what comes."""
        with self.logged_in() as connection:
            self.turned(connection)
            connection.sendall(b"250-mallory.example\r\n250-PIPELINING\r\n250 CHUNKING\r\n")
            self.rounds += 1
            self.stopped.wait()

    def answers_slowly(self) -> None:
        """Send a reply octet by octet."""
        with self.logged_in() as connection:
            self.turned(connection)
            for octet in b"250-mallory.example\r\n" * 1000:
                connection.sendall(bytes([octet]))
                self.rounds += 1
                if self.stopped.wait(STEP):
                    return

    def defers_all(self) -> None:
        """Take no message, and stay."""
        with self.logged_in() as connection:
            self.turned(connection)
            connection.sendall(b"250 mallory.example\r\n")
            while octets := connection.recv(2**14):
                self.heard += octets
                self.rounds += 1
                connection.sendall(b"450 later\r\n" * octets.count(b"\r\n"))

    def comes_and_goes(self) -> None:
        """Turn the connection, and break it off."""
        with self.logged_in() as connection:
            self.turned(connection)
            self.rounds += 1

    def asks_for_others(self) -> None:
        """Ask for the mail of another office, by each command."""
        with self.logged_in() as connection:
            for command in (
                b"ATRN office.example",
                b"ATRN mallory.example,office.example",
                b"ETRN office.example",
                b"ETRN @example",
                b"ETRN #office",
            ):
                connection.sendall(command + b"\r\n")
                self.expect(connection, b"45")
                self.rounds += 1

    def floods(self) -> None:
        """Send a thousand requests in one go."""
        with self.logged_in() as connection:
            connection.sendall(b"ATRN mallory.example\r\n" * 1000)
            self.rounds += 1
            while octets := connection.recv(2**14):
                self.heard += octets

    def keep_doing(self, what: Callable[[], None]) -> None:
        """Do it until the test has seen enough."""
        while not self.stopped.is_set():
            with contextlib.suppress(OSError):
                what()


class HostileOfficeTests(SynchronousTestCase):
    """The relay has an honest office and a hostile one, and mail for both."""

    def setUp(self) -> None:
        held = {name: {"deliver": f"hold:{name}"} for name in ("office", "mallory")}
        linger = {"linger": "1h"}
        self.provider = Provider(
            self,
            domains={f"{name}.example": each for name, each in held.items()}
            | {"outside.example": local_domain()},
            peers={name: {"user": name, "domains": [f"{name}.example"], **linger} for name in held},
        )
        add = ("user", "add", "mallory", "--password-stdin")
        run_mta(self.provider, *add, stdin=PASSWORD + "\n")
        self.provider.start()
        self.office = office(self, self.provider, every="1h")
        self.office.start()
        self.provider.wait_for_links()
        for _ in range(WAITING):
            self.provider.send(b"Subject: 1\r\n\r\n" + b"x" * 98 * 1024 + b"\r\n", MALLORY)
        self.mallory = Mallory(self.provider)

    def beside(self, what: Callable[[], None], connections: int = 4) -> None:
        """Mail for the honest office passes while the hostile one does what it does."""
        mallory = self.mallory
        threads = [
            threading.Thread(target=mallory.keep_doing, args=(what,), daemon=True)
            for _ in range(connections)
        ]
        for thread in threads:
            thread.start()
        self.addCleanup(mallory.stopped.set)
        wait_until(lambda: mallory.rounds >= connections, "it has begun")
        for number in range(10):
            self.provider.send(letter(number), BOB)
            self.office.wait_for_mail(BOBS, number + 1)
        mallory.stopped.set()
        self.assertEqual(numbers(self.office.wait_for_mail(BOBS, 10)), [*range(10)])
        self.assertEqual(self.provider.log.count("office turned the connection"), 1)
        self.assertNotIn(b"bob@", mallory.heard)
        document = json.loads(run_mta(self.provider, "peers", "office", "--json"))
        self.assertIsNotNone(document["link_since"])
        self.assertEqual((document["waiting"], document["last_error"]), (0, ""))

    def test_it_reads_nothing(self) -> None:
        """What it does not read waits, and for it alone."""
        self.beside(self.mallory.reads_nothing)
        wait_until(lambda: waiting(self.provider.folder) == WAITING, "all of its mail waits")

    def test_it_answers_slowly(self) -> None:
        """It may take its time."""
        self.beside(self.mallory.answers_slowly)

    def test_it_defers_all(self) -> None:
        """Its mail waits, and is not offered all the time."""
        self.beside(self.mallory.defers_all)
        self.assertLess(self.mallory.heard.count(b"MAIL FROM:"), 5 * WAITING)

    def test_it_comes_and_goes(self) -> None:
        """Each connection costs a log-in, and loses no mail."""
        self.beside(self.mallory.comes_and_goes)
        wait_until(lambda: waiting(self.provider.folder) == WAITING, "all of its mail waits")

    def test_it_asks_for_others(self) -> None:
        """It is refused, whatever it says."""
        self.beside(self.mallory.asks_for_others)
        self.assertNotIn(CAROL.encode(), self.mallory.heard)

    def test_it_floods(self) -> None:
        """Requests that come together are no requests."""
        self.beside(self.mallory.floods)
        self.assertIn(b"\r\n503 ", self.mallory.heard)
