"""Users of a Dovecot server.

It holds the server's side of each SASL exchange: we carry challenges and responses between it and
the SMTP client, over one connection (`dovecot_protocol`).
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from twisted.application.internet import ClientService, backoffPolicy
from twisted.internet.defer import CancelledError
from twisted.internet.error import ConnectError
from twisted.internet.interfaces import IAddress, IReactorTime, IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from zope.interface import implementer

from mta.interfaces import IRouter, IUsers
from mta.mail import Mailbox
from mta.session import Session
from mta.settings import Account, Service
from mta.smtp.sasl import (
    CRAM_MD5,
    EXTERNAL,
    AuthenticationFailed,
    AuthenticationUnavailable,
    Challenge,
)
from mta.users.addresses import is_own
from mta.users.dovecot_protocol import Answer, DovecotLink

MAX_PAUSE = 60.0  # seconds between two attempts to connect that no log-in waits for


class DovecotConnection(Factory):
    """The connection to Dovecot, made when it is first needed.

    It is made anew when it was lost: with pauses, or at once where a log-in needs it.
    """

    noisy = False

    def __init__(self, endpoint: IStreamClientEndpoint, clock: IReactorTime) -> None:
        self._endpoint = endpoint
        self._clock = clock
        self._service: ClientService | None = None
        self._link: DovecotLink | None = None
        self._waiting = 0  # log-ins, for a connection

    def buildProtocol(self, addr: IAddress | None) -> DovecotLink:
        """Twisted calls this: there is a connection."""
        self._link = DovecotLink(self._clock)
        return self._link

    async def link(self) -> DovecotLink:
        """The link, once its handshake is over.  Raises AuthenticationUnavailable."""
        if self._link is None or self._link.lost:
            await self._connected()
        link = self._link
        assert link is not None
        await link.when_ready()
        return link

    async def _connected(self) -> None:
        if self._service is None or not self._waiting:
            self.close()  # it may be in a pause, and a log-in waits for none
            pauses = backoffPolicy(maxDelay=MAX_PAUSE)
            self._service = ClientService(self._endpoint, self, pauses, self._clock)
        connected = self._service.whenConnected(failAfterFailures=1)
        if not self._service.running:
            self._service.startService()
        self._waiting += 1
        try:
            await connected
        except (ConnectError, CancelledError, OSError) as error:  # OSError: no socket for it
            raise AuthenticationUnavailable(f"Dovecot can't be reached: {error}") from None
        finally:
            self._waiting -= 1

    def close(self) -> None:
        """End the connection, until it is needed again."""
        if self._service is not None:
            self._service.stopService()
            self._service = self._link = None


@implementer(IUsers)
class DovecotUsers:
    """The users that the Dovecot server behind `endpoint` knows."""

    log = Logger()

    def __init__(
        self, endpoint: IStreamClientEndpoint, clock: IReactorTime, router: IRouter
    ) -> None:
        self._connection = DovecotConnection(endpoint, clock)
        self._router = router
        self._reachable = True
        self._exchanges = 0  # under way
        self._closed = False

    def close(self) -> None:
        """Keep no connection open any more, but for exchanges under way."""
        self._closed = True
        self._release()

    def _release(self) -> None:
        if self._closed and not self._exchanges:
            self._connection.close()

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
                link = await self._connection.link()
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
        link = await self._connection.link()
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
        """Tell whether a name is surely no password, but maybe no user."""
        domain = user.rpartition("@")[2].lower() if "@" in user else ""
        return bool(domain) and self._router.is_ours(domain)

    async def account(self, identity: str) -> Account:
        """See `IUsers.account`: Dovecot knows no limits."""
        return Account()

    def may_use(self, identity: str, address: Mailbox) -> bool:
        """See `IUsers.may_use`: Dovecot knows no addresses, so the user's name decides."""
        return is_own(address, identity, (), self._router)


def _may_offer(name: str, flags: frozenset[bytes], session: Session) -> bool:
    """Tell whether a mechanism can pass through us.

    One that names no user can't, nor one that needs our own view of TLS or certificates.
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
