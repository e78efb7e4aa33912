"""The end of a worker process when the first one is gone."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from twisted.internet.error import ReactorNotRunning
from twisted.internet.interfaces import IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer


def exit_with_parent(reactor: Any) -> None:
    """Stop the reactor when the parent process ends."""
    reactor.addReader(_Lifeline(reactor))


@implementer(IReadDescriptor)
class _Lifeline:
    """Standard input, whose other end the parent has and never writes to."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor

    def fileno(self) -> int:
        """Twisted asks for the descriptor to watch."""
        return 0

    def logPrefix(self) -> str:
        """Twisted asks for the name of a failure's owner."""
        return "lifeline"

    def doRead(self) -> None:
        """Twisted calls this at the end of the input."""
        self._end()

    def connectionLost(self, reason: Failure) -> None:
        """Twisted calls this when the input is lost, or the reactor stops."""
        self._end()

    def _end(self) -> None:
        self._reactor.removeReader(self)
        with suppress(ReactorNotRunning):
            self._reactor.stop()
