"""The client's side of Dovecot's authentication protocol 1.2, line by line."""

from __future__ import annotations

import os
import re
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime, ITCPTransport
from twisted.internet.protocol import connectionDone
from twisted.protocols.basic import LineOnlyReceiver
from twisted.python.failure import Failure

from mta.smtp.sasl import AuthenticationUnavailable

ANSWER_TIMEOUT = 30.0  # seconds; Dovecot holds a refusal back for a few
MAX_WAITING = 1000  # exchanges under way at once

T = TypeVar("T")

_ESCAPES = {b"0": b"\0", b"1": b"\1", b"t": b"\t", b"r": b"\r", b"l": b"\n"}


@dataclass(frozen=True, slots=True)
class Answer:
    """One line about one exchange: OK, CONT or FAIL, and its parameters."""

    verb: bytes
    parameters: tuple[bytes, ...]

    def value(self, name: bytes) -> bytes | None:
        """The value of ``name=value``; empty for a bare name, None without."""
        for parameter in self.parameters:
            key, _, value = parameter.partition(b"=")
            if key == name:
                return value
        return None


class DovecotLink(LineOnlyReceiver):
    """One connection to Dovecot's authentication service.

    `mechanisms` are the names that Dovecot announced, with their flags, once the handshake is
    over.  `lost` is true when the link is over.
    """

    delimiter = b"\n"
    MAX_LENGTH = 16384
    transport: ITCPTransport

    def __init__(self, clock: IReactorTime) -> None:
        self.mechanisms: dict[str, frozenset[bytes]] = {}
        self.lost = False
        self._clock = clock
        self._is_ready = False
        self._handshakes: list[Deferred[None]] = []
        self._last = 0
        self._waiting: dict[int, Deferred[Answer]] = {}

    def connectionMade(self) -> None:
        """Twisted calls this: our side of the handshake."""
        self.transport.write(b"VERSION\t1\t2\nCPID\t%d\n" % os.getpid())

    def lineReceived(self, line: bytes) -> None:
        """Twisted calls this: a line of Dovecot's handshake, or about an exchange."""
        verb, *fields = (_unescaped(field) for field in line.split(b"\t"))
        match verb, fields:
            case b"VERSION", [major, *_] if major != b"1":
                self.transport.abortConnection()
            case b"MECH", [name, *flags]:
                self.mechanisms[name.decode("ascii", "replace").upper()] = frozenset(flags)
            case b"DONE", _:
                self._is_ready = True
                waiting_for_it, self._handshakes = self._handshakes, []
                for handshake in waiting_for_it:
                    handshake.callback(None)
            case ((b"OK" | b"CONT" | b"FAIL"), [number, *parameters]) if number.isdigit():
                waiting = self._waiting.pop(int(number), None)
                if waiting is not None:
                    waiting.callback(Answer(verb, tuple(parameters)))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Twisted calls this: no exchange goes on."""
        self.lost = True
        waiting: list[Deferred[Any]] = [*self._waiting.values(), *self._handshakes]
        self._waiting, self._handshakes = {}, []
        for deferred in waiting:
            deferred.errback(Failure(_lost()))

    def when_ready(self) -> Deferred[None]:
        """Wait until the handshake is over.

        Fires with AuthenticationUnavailable where it takes too long: then the link is at its end.
        """
        handshake: Deferred[None] = Deferred()
        if self.lost:
            handshake.errback(Failure(_lost()))
        elif self._is_ready:
            handshake.callback(None)
        else:
            self._handshakes.append(handshake)
            handshake.addTimeout(ANSWER_TIMEOUT, self._clock, _too_late)
            handshake.addErrback(self._give_up)
        return handshake

    def _give_up(self, failure: Failure) -> Failure:
        if not self.lost:
            self.transport.abortConnection()
        return failure

    def begin(self, mechanism: str, parameters: Sequence[bytes]) -> tuple[int, Deferred[Answer]]:
        """Start an exchange; returns its number and Dovecot's first answer."""
        self._last += 1
        line = (b"AUTH", b"%d" % self._last, mechanism.encode("ascii"), *parameters)
        return self._last, self._ask(self._last, line)

    def go_on(self, number: int, response: bytes) -> Deferred[Answer]:
        """Hand over the client's response to a challenge."""
        return self._ask(number, (b"CONT", b"%d" % number, b64encode(response)))

    def cancel(self, number: int) -> None:
        """Give an exchange up that has not ended."""
        self._waiting.pop(number, None)
        if not self.lost:
            self.transport.write(b"CANCEL\t%d\n" % number)

    def _ask(self, number: int, fields: Sequence[bytes]) -> Deferred[Answer]:
        answer: Deferred[Answer] = Deferred()
        if self.lost or len(self._waiting) >= MAX_WAITING:
            raise AuthenticationUnavailable("Dovecot takes no more log-ins now")
        self._waiting[number] = answer
        self.transport.write(b"\t".join(fields) + b"\n")
        return answer.addTimeout(ANSWER_TIMEOUT, self._clock, _too_late)


def _lost() -> AuthenticationUnavailable:
    return AuthenticationUnavailable("the connection to Dovecot is lost")


def _too_late(result: T | Failure, timeout: float) -> T | Failure:
    if isinstance(result, Failure):
        result.trap(CancelledError)
        raise AuthenticationUnavailable(f"no answer from Dovecot within {timeout:.0f} seconds")
    return result


def _unescaped(field: bytes) -> bytes:
    """Undo Dovecot's tab-escaping."""
    return re.sub(rb"\x01(.)", lambda match: _ESCAPES.get(match[1], match[1]), field, flags=re.S)
