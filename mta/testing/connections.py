"""Connections in memory: what an `mta.link.Link` needs under it."""

from __future__ import annotations

from dataclasses import replace

from twisted.internet.interfaces import ITLSTransport
from twisted.internet.testing import StringTransport
from zope.interface import implementer

from mta.interfaces import IClientTLS, ITLSContext
from mta.mail import Security
from mta.session import TLSInfo

SECURED = TLSInfo("TLSv1.3", "TLS_AES_256_GCM_SHA384")


class MemoryTransport(StringTransport):
    """A connection that counts its writes.  With `is_full` it asks for a pause."""

    writes = 0
    is_full = False

    def write(self, data: bytes) -> None:
        """Take octets, and pause the producer where `is_full` is set."""
        self.writes += 1
        super().write(data)
        if self.is_full:
            assert self.producer is not None
            self.producer.pauseProducing()

    def taken(self) -> bytes:
        """Return what was written since the last time."""
        data: bytes = self.value()
        self.clear()
        return data


@implementer(IClientTLS, ITLSContext)
class FakeTLS:
    """TLS that begins when the test calls `handshakeCompleted` of the link.

    `certificate`: the fingerprint that the peer proves.
    """

    def __init__(self, certificate: str = "") -> None:
        self.started = 0
        self._info = replace(SECURED, certificate=certificate)

    def for_host(self, hostname: str, security: Security, pin: str = "") -> ITLSContext:
        """Return itself, for all."""
        return self

    def start(self, transport: ITLSTransport) -> None:
        """Count, and wait for the test."""
        self.started += 1

    def info(self, transport: ITLSTransport) -> TLSInfo:
        """Return what TLS says of the connection."""
        return self._info
