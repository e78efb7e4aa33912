"""Ports from which no connection can be taken for a while."""

from __future__ import annotations

import errno
import os
import socket
from unittest.mock import patch

from twisted.internet import tcp
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from mta.service.accepting import REST, RestingPort


class RestingTests(SynchronousTestCase):
    """A port of Twisted's on a socket of the system's."""

    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()
        self.taken: list[object] = []
        self.port = tcp.Port(0, Factory.forProtocol(Protocol), 5, "127.0.0.1", self.reactor)
        self.port.startListening()
        self.addCleanup(self.port.socket.close)
        self.resting = RestingPort(self.port, self.reactor)

    @property
    def is_reading(self) -> bool:
        """Whether the reactor asks for connections."""
        return self.port in self.reactor.getReaders()

    def test_each_error(self) -> None:
        """It rests, says why once a minute, and takes what waits as soon as that can be."""
        client = socket.create_connection(self.port.socket.getsockname())
        self.addCleanup(client.close)
        with capturedLogs() as events:
            for error in (errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EMFILE) * 5:
                failing = OSError(error, os.strerror(error))
                with patch.object(socket.socket, "accept", side_effect=failing):
                    self.port.doRead()
                self.assertFalse(self.is_reading)
                self.reactor.advance(REST)
                self.assertTrue(self.is_reading)
        ours = [event for event in events if event["log_namespace"].startswith("mta.")]
        self.assertEqual([event["reason"] for event in ours], [os.strerror(errno.ENFILE)])
        self.port.doRead()
        self.assertTrue(self.is_reading)
        self.assertEqual(len(self.reactor.getReaders()), 2, "the connection, too")

    def test_not_watched(self) -> None:
        """It goes on as soon as the reactor can watch it again."""
        failing = OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
        with patch.object(socket.socket, "accept", side_effect=failing), capturedLogs():
            self.port.doRead()
        with patch.object(self.reactor, "addReader", side_effect=failing):
            self.reactor.pump([REST] * 3)
        self.assertFalse(self.is_reading)
        self.reactor.advance(REST)
        self.assertTrue(self.is_reading)

    def test_no_connection(self) -> None:
        """Where another process was faster, there is no rest."""
        self.port.doRead()
        self.assertTrue(self.is_reading)

    def test_the_end(self) -> None:
        """A port that stopped, or was closed, does not go on after its rest."""
        failing = OSError(errno.ENFILE, os.strerror(errno.ENFILE))
        with patch.object(socket.socket, "accept", side_effect=failing), capturedLogs():
            self.port.doRead()
            self.resting.stop()
            self.reactor.advance(REST)
            self.assertFalse(self.is_reading)
            self.port.doRead()
            self.port.stopListening()
            self.reactor.advance(REST)
        self.assertFalse(self.is_reading)
