"""The sockets that systemd passes, and the listeners that take them."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from mta.service.passed_sockets import PassedSockets, passed_descriptors


class PassedSocketsTests(SynchronousTestCase):
    """Which listener a socket belongs to."""

    def opened(self, host: str, family: int = socket.AF_INET) -> tuple[int, int]:
        """A listening socket; returns its descriptor and its port."""
        listening = socket.create_server((host, 0), family=family)
        self.addCleanup(listening.close)
        return listening.fileno(), listening.getsockname()[1]

    def test_by_address_and_port(self) -> None:
        """A socket is taken once, by the endpoint that has both."""
        number, port = self.opened("127.0.0.1")
        passed = PassedSockets([number])
        self.assertEqual(passed.left, [f"127.0.0.1:{port}"])
        for other in (f"tcp:{port}", f"tcp6:{port}", "tcp:0:interface=127.0.0.1", "unix:/x"):
            self.assertIsNone(passed.take(other), other)
        self.assertIsNone(passed.take(f"tcp:{port}:interface=a.name"))
        self.assertEqual(passed.take(f"haproxy:tcp:{port}:interface=127.0.0.1"), number)
        self.assertIsNone(passed.take(f"tcp:{port}:interface=127.0.0.1"))
        self.assertEqual(passed.left, [])

    def test_all_interfaces(self) -> None:
        """``tcp:`` is IPv4, ``tcp6:`` is IPv6."""
        number, port = self.opened("0.0.0.0")
        self.assertEqual(PassedSockets([number]).take(f"tcp:{port}"), number)
        if not socket.has_ipv6:
            self.skipTest("no IPv6 here")
        number, port = self.opened("::", socket.AF_INET6)
        passed = PassedSockets([number])
        self.assertEqual(passed.left, [f"[::]:{port}"])
        self.assertEqual(passed.take(f"tcp6:{port}"), number)

    def test_others(self) -> None:
        """A UNIX socket, and what is no socket, are nobody's here."""
        here, there = socket.socketpair()
        self.addCleanup(here.close)
        self.addCleanup(there.close)
        with Path(self.mktemp()).open("w") as file:
            self.assertEqual(PassedSockets([here.fileno(), file.fileno()]).left, [])

    def test_the_environment(self) -> None:
        """What is said to another process is not for us."""
        environ = Path(self.mktemp())
        for text, expected in (
            (f"A=1\0LISTEN_PID={os.getpid()}\0LISTEN_FDS=2\0", [3, 4]),
            (f"LISTEN_PID={os.getpid() + 1}\0LISTEN_FDS=2\0", []),
            (f"LISTEN_PID={os.getpid()}\0LISTEN_FDS=x\0", []),
            ("", []),
        ):
            environ.write_text(text)
            self.assertEqual(list(passed_descriptors(environ)), expected, text)
        self.assertEqual(passed_descriptors(environ.with_name("nowhere")), ())
