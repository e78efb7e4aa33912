"""A thousand clients that drip, and ordinary mail beside them."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
import time
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.processes import DEADLINE, Server, configuration, listener, wait_until

CLIENTS = 1000
TIMEOUT = 10.0  # seconds, `limits.timeout`
MAX_MEMORY = 32 * 2**20  # octets that they may cost, besides what the server needs anyway
BOB = "bob@office.example"

# What a client says at once, and the octet that it then repeats.
MANNERS = (
    (b"", b"N"),
    (b"EHLO drip.example\r\nMAIL FROM:<a@drip.example>\r\nRCPT TO:<%b>\r\nDATA\r\n", b"x"),
    (b"EHLO drip.example\r\nMAIL FROM:<a@drip.example>\r\nRCPT TO:<%b>\r\nDATA\r\nA: b", b"\n"),
    (b"EHLO drip.example\r\nMAIL FROM:<>\r\nRCPT TO:<%b>\r\nBDAT 1000000 LAST\r\n", b"\0"),
)


class Drippers(threading.Thread):
    """Clients that send one octet in each second; `ended`: how many were told to go."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self.ended = 0
        self.stops = threading.Event()
        self._selector = selectors.DefaultSelector()
        self._open: dict[socket.socket, bytes] = {}
        for number in range(CLIENTS):
            opening, octet = MANNERS[number % len(MANNERS)]
            client = socket.create_connection(("127.0.0.1", port), DEADLINE)
            client.sendall(opening.replace(b"%b", BOB.encode()))
            client.setblocking(False)
            self._selector.register(client, selectors.EVENT_READ)
            self._open[client] = octet

    def run(self) -> None:
        """Drip until all were told to go."""
        again = time.monotonic()
        while self._open and not self.stops.is_set():
            for key, _ in self._selector.select(max(0.0, again - time.monotonic())):
                assert isinstance(key.fileobj, socket.socket)
                self._read(key.fileobj)
            if time.monotonic() >= again:
                again += 1.0
                for client, octet in self._open.items():
                    with contextlib.suppress(OSError):
                        client.send(octet)

    def _read(self, client: socket.socket) -> None:
        with contextlib.suppress(ConnectionError):
            if client.recv(65536):
                return
        self.ended += 1
        self._close(client)

    def _close(self, client: socket.socket) -> None:
        self._selector.unregister(client)
        del self._open[client]
        client.close()

    def end(self) -> None:
        """Close what is open."""
        self.stops.set()
        if self.is_alive():
            self.join(DEADLINE)
        for client in list(self._open):
            self._close(client)


class SlowClientTests(SynchronousTestCase):
    """See the module."""

    def setUp(self) -> None:
        limits = {
            "connections": CLIENTS + 100,
            "connections_per_host": CLIENTS + 100,
            "timeout": TIMEOUT,
        }
        self.server = Server(
            self, configuration(listen=[listener("smtp", "opportunistic")], limits=limits)
        )
        self.server.start()

    def test_ordinary_mail_passes(self) -> None:
        """Mail comes in while they drip, they cost little, and each of them is ended in time."""
        if not Path("/proc/self/status").exists():
            self.skipTest("there is no /proc to see memory in")
        content = b"Subject: x\r\n\r\nordinary\r\n"
        self.server.send(content, BOB)
        before = self.server.memory
        began = time.monotonic()
        drippers = Drippers(self.server.ports["smtp"])
        self.addCleanup(drippers.end)
        drippers.start()
        for _ in range(10):
            sending = time.monotonic()
            self.server.send(content, BOB)
            self.assertLess(time.monotonic() - sending, TIMEOUT / 2)
        self.assertEqual(drippers.ended, 0)
        self.assertLess(self.server.memory - before, MAX_MEMORY)
        wait_until(lambda: drippers.ended == CLIENTS, "the end of all", 4 * TIMEOUT)
        self.assertGreaterEqual(time.monotonic() - began, TIMEOUT)
        self.server.wait_for_mail("office.example/bob", 11)
