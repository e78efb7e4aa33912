"""Users of a Dovecot server, by its authentication protocol 1.2 (client side).

Dovecot holds the server's side of the SASL exchange; we carry challenges and responses between
it and the SMTP client.
"""

from __future__ import annotations

import os
import re
from base64 import b64decode, b64encode
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import connectProtocol
from twisted.internet.error import ConnectError
from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint, ITCPTransport
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.protocols.basic import LineOnlyReceiver
from twisted.python.failure import Failure
from zope.interface import implementer

from mta.interfaces import IRouter, IUsers
from mta.mail import Mailbox
from mta.session import Session
from mta.settings import Service
from mta.smtp.sasl import (
    CRAM_MD5,
    EXTERNAL,
    AuthenticationFailed,
    AuthenticationUnavailable,
    Challenge,
)
from mta.users.addresses import is_own

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
        """Return the value of ``name=value``.

        It is empty for a bare name, None where the name is missing.
        """
        for parameter in self.parameters:
            key, _, value = parameter.partition(b"=")
            if key == name:
                return value
        return None


class DovecotLink(LineOnlyReceiver):
    """One connection to Dovecot's authentication service.

    `ready` fires with the link when Dovecot has said what it can do; `mechanisms` are then
    the names that it announced, with their flags.  `lost` is true when the link is over.
    """

    delimiter = b"\n"
    MAX_LENGTH = 16384
    transport: ITCPTransport

    def __init__(self, clock: IReactorTime) -> None:
        self.mechanisms: dict[str, frozenset[bytes]] = {}
        self.ready: Deferred[DovecotLink] = Deferred()
        self.lost = False
        self._clock = clock
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
                if not self.ready.called:
                    self.ready.callback(self)
            case ((b"OK" | b"CONT" | b"FAIL"), [number, *parameters]) if number.isdigit():
                waiting = self._waiting.pop(int(number), None)
                if waiting is not None:
                    waiting.callback(Answer(verb, tuple(parameters)))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Twisted calls this: no exchange gets an answer any more."""
        self.lost = True
        waiting, self._waiting = self._waiting, {}
        fault = AuthenticationUnavailable("the connection to Dovecot is lost")
        for deferred in waiting.values():
            deferred.errback(Failure(fault))
        if not self.ready.called:
            self.ready.errback(Failure(fault))

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


@implementer(IUsers)
class DovecotUsers:
    """The users that the Dovecot server behind `endpoint` knows.

    The connection is made when it is first needed, and again when it was lost.
    """

    log = Logger()

    def __init__(
        self,
        endpoint: IStreamClientEndpoint,
        clock: IReactorTime,
        router: IRouter,
    ) -> None:
        self._endpoint = endpoint
        self._clock = clock
        self._router = router
        self._link: DovecotLink | None = None
        self._reachable = True
        self._exchanges = 0  # under way
        self._closed = False

    def close(self) -> None:
        """Keep no connection open any more, but for exchanges under way."""
        self._closed = True
        self._release()

    def _release(self) -> None:
        if self._closed and not self._exchanges and self._link and not self._link.lost:
            self._link.transport.loseConnection()

    @contextmanager
    def _exchange(self) -> Iterator[None]:
        """Keep the connection open while this lasts."""
        self._exchanges += 1
        try:
            yield
        finally:
            self._exchanges -= 1
            self._release()

    async def mechanisms(self, session: Session) -> Sequence[str]:
        """See `IUsers.mechanisms`: what Dovecot announces and this session may use."""
        try:
            with self._exchange():
                link = await self._connected()
        except AuthenticationUnavailable as fault:
            if self._reachable:
                self.log.error("no log-ins: {fault}", fault=str(fault))
            self._reachable = False
            return ()
        self._reachable = True
        return [name for name, flags in link.mechanisms.items() if _may_offer(name, flags, session)]

    async def authenticate(
        self, session: Session, mechanism: str, initial: bytes | None, challenge: Challenge
    ) -> str:
        """See `IUsers.authenticate`.  The identity is the user name that Dovecot returns."""
        with self._exchange():
            return await self._authenticate(session, mechanism, initial, challenge)

    async def _authenticate(
        self, session: Session, mechanism: str, initial: bytes | None, challenge: Challenge
    ) -> str:
        link = await self._connected()
        flags = link.mechanisms.get(mechanism)
        if flags is None or not _may_offer(mechanism, flags, session):
            raise AuthenticationFailed("no such mechanism")
        number, asked = link.begin(mechanism, _facts(session, initial))
        ended = False
        try:
            answer = await asked
            while answer.verb == b"CONT":
                answer = await link.go_on(number, await challenge(_data(answer)))
            ended = True
        finally:
            if not ended:
                link.cancel(number)
        try:
            return _identity(answer)
        except AuthenticationFailed as failed:
            is_known = self._is_address_of_ours(failed.user)
            raise AuthenticationFailed(str(failed), failed.user, is_known=is_known) from None

    def _is_address_of_ours(self, user: str) -> bool:
        """Return whether a name is surely no password.  There may be no such user."""
        domain = user.rpartition("@")[2].lower() if "@" in user else ""
        return bool(domain) and self._router.is_ours(domain)

    def may_use(self, identity: str, address: Mailbox) -> bool:
        """See `IUsers.may_use`: Dovecot knows no addresses, so the user's name decides."""
        return is_own(address, identity, (), self._router)

    async def _connected(self) -> DovecotLink:
        """The link, once its handshake is over.  Raises AuthenticationUnavailable."""
        if self._link is not None and not self._link.lost and self._link.ready.called:
            return self._link
        link = DovecotLink(self._clock)
        try:
            await connectProtocol(self._endpoint, link)
        except ConnectError as error:
            raise AuthenticationUnavailable(f"Dovecot can't be reached: {error}") from None
        try:
            await link.ready.addTimeout(ANSWER_TIMEOUT, self._clock, _too_late)
        except AuthenticationUnavailable:
            link.transport.abortConnection()
            raise
        if self._link is not None and not self._link.lost:
            link.transport.loseConnection()  # another log-in was faster
            return self._link
        self._link = link
        return link


def _too_late(result: T | Failure, timeout: float) -> T | Failure:
    if isinstance(result, Failure):
        result.trap(CancelledError)
        raise AuthenticationUnavailable(f"no answer from Dovecot within {timeout:.0f} seconds")
    return result


def _may_offer(name: str, flags: frozenset[bytes], session: Session) -> bool:
    """Return whether we can carry a mechanism for this session.

    What needs our own view of TLS or certificates, or is anonymous, can't go through.
    """
    if flags & {b"anonymous", b"private"} or name == EXTERNAL or name.endswith("-PLUS"):
        return False
    if session.tls is not None or session.cleartext_auth:
        return True
    return b"plaintext" not in flags and (name != CRAM_MD5 or session.service is Service.ODMR)


def _facts(session: Session, initial: bytes | None) -> Sequence[bytes]:
    facts = [b"service=smtp", b"nologin"]
    if session.tls is not None or session.cleartext_auth:
        facts.append(b"secured")
    if re.fullmatch(r"[0-9A-Fa-f.:]+", session.client):
        facts.append(b"rip=" + session.client.encode("ascii"))
    if initial is not None:
        facts.append(b"resp=" + b64encode(initial))  # must be the last
    return facts


def _data(answer: Answer) -> bytes:
    try:
        return b64decode(answer.parameters[0] if answer.parameters else b"", validate=True)
    except ValueError:
        raise AuthenticationUnavailable("Dovecot sent a malformed challenge") from None


def _identity(answer: Answer) -> str:
    if answer.verb == b"FAIL":
        if answer.value(b"temp") is not None or answer.value(b"code") == b"temp_fail":
            raise AuthenticationUnavailable("Dovecot can't tell now")
        raise AuthenticationFailed("Dovecot refused", _text(answer.value(b"user")))
    if user := _text(answer.value(b"user")):
        return user
    raise AuthenticationUnavailable("Dovecot named no user")


def _text(value: bytes | None) -> str:
    """A value as text; empty where it is none."""
    try:
        return (value or b"").decode()
    except UnicodeDecodeError:
        return ""


def _unescaped(field: bytes) -> bytes:
    """Undo Dovecot's tab-escaping."""
    return re.sub(rb"\x01(.)", lambda match: _ESCAPES.get(match[1], match[1]), field, flags=re.S)
