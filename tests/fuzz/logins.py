"""Targets: log-ins, both sides of them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import lru_cache

from twisted.internet.defer import Deferred
from zope.interface import implementer

from mta.session import TLSInfo
from mta.settings import Service
from mta.smtp import sasl
from mta.smtp.saslprep import prepare
from mta.sync import result_of

MECHANISMS = (sasl.PLAIN, sasl.LOGIN, sasl.CRAM_MD5, sasl.SCRAM, sasl.SCRAM_PLUS, sasl.EXTERNAL)
BINDINGS = {"tls-exporter": b"x" * 32}
USER, PASSWORD = "alice", "wonderland"
SALT = b"salt of sixteen "
TLS = TLSInfo("TLSv1.3", "TLS_AES_256_GCM_SHA384", certificate="ab" * 32, bindings=BINDINGS)


class NoMore(Exception):
    """The other side says nothing more."""


@lru_cache(maxsize=1000)
def _keys(password: str) -> sasl.ScramKeys:
    return sasl.scram_keys(password, SALT, sasl.MIN_ITERATIONS)


@implementer(sasl.ICredentials)
class OneUser:
    """The secrets of one user."""

    def __init__(self, user: str = USER, password: str = PASSWORD) -> None:
        self._user, self._password = user, password

    async def verify_password(self, user: str, password: str) -> bool:
        """See `ICredentials.verify_password`."""
        return (user, password) == (self._user, self._password)

    async def scram_keys(self, user: str) -> sasl.ScramKeys:
        """See `ICredentials.scram_keys`."""
        return _keys(self._password if user == self._user else "\0")

    async def proved(self, user: str, keys: sasl.ScramKeys) -> None:
        """See `ICredentials.proved`."""

    async def cram_secret(self, user: str) -> str | None:
        """See `ICredentials.cram_secret`."""
        return self._password if user == self._user else None


def log_ins(octets: bytes) -> None:
    """A client that does not know the password is not let in, whatever it says."""
    first, *responses = octets.split(b"\n")
    said = iter(responses)

    async def challenge(_: bytes) -> bytes:
        for response in said:
            return response
        raise NoMore

    for mechanism in MECHANISMS:
        for initial in (first, None):
            said = iter(responses if initial is not None else [first, *responses])
            with suppress(sasl.AuthenticationFailed, NoMore):
                user = result_of(
                    sasl.authenticate(
                        mechanism, initial, challenge, OneUser(), bindings=BINDINGS, external=""
                    )
                )
                assert user == USER
                assert mechanism in (sasl.PLAIN, sasl.LOGIN), mechanism
                pieces = re.split(rb"[\0\n]", octets)
                assert PASSWORD in [_prepared(each.decode("utf-8", "replace")) for each in pieces]


def servers_at_log_in(octets: bytes) -> None:
    """A server that does not know the user proves nothing, whatever it says."""
    lines = octets.split(b"\n")
    sasl.strongest(lines[0].decode("utf-8", "replace").split(), TLS, "secret")
    sasl.offered(Service.SMTP, TLS, cram_md5=True, external=True)
    for mechanism in MECHANISMS:
        exchange = _Lines(lines).exchange
        with suppress(sasl.AuthenticationFailed, NoMore):
            result_of(
                sasl.respond(mechanism, USER, PASSWORD, exchange, bindings=BINDINGS, derive=_derive)
            )
            assert mechanism not in (sasl.SCRAM, sasl.SCRAM_PLUS), mechanism


class _Lines:
    """A server that says these lines, and an empty one for yes."""

    def __init__(self, lines: Sequence[bytes]) -> None:
        self._said = iter(lines)

    async def exchange(self, _: bytes | None) -> bytes | None:
        """Hear the client, and say the next one."""
        for line in self._said:
            return line or None
        raise NoMore


async def _derive(password: str, salt: bytes, iterations: int) -> bytes:
    return sasl.salted_password(password, salt, 1)  # a server may ask for millions


def pairs_at_log_in(octets: bytes) -> None:
    """Both sides agree on who it is, just where the secrets are the same."""
    user, _, rest = octets.decode("utf-8", "replace").partition("\n")
    password, _, guess = rest.partition("\n")
    try:
        known = prepare(user)
        secret = prepare(password)
    except ValueError:
        return
    for tried in {password, guess}:
        for mechanism in (sasl.PLAIN, sasl.LOGIN, sasl.SCRAM, sasl.SCRAM_PLUS):
            found = _meet(mechanism, user, tried, OneUser(known, secret))
            is_right = _prepared(tried) == secret
            assert found == (known if is_right else None), (mechanism, user, tried, found)


def _prepared(text: str) -> str | None:
    try:
        return prepare(text)
    except ValueError:
        return None


def _meet(mechanism: str, user: str, password: str, credentials: OneUser) -> str | None:
    """The user that the server let in; None: none, as both sides say."""
    bindings = BINDINGS if mechanism == sasl.SCRAM_PLUS else sasl.NO_BINDINGS
    wire = _Wire(bindings)
    server = Deferred.fromCoroutine(wire.serve(mechanism, credentials))
    client = Deferred.fromCoroutine(
        sasl.respond(mechanism, user, password, wire.exchange, bindings=bindings, derive=_own)
    )
    failures: list[object] = []
    for side in (client, server):
        side.addErrback(lambda failure: failures.append(failure.trap(*_FAILURES)))
    if not server.called:
        wire.give_up()
    assert client.called, "the client waits"
    assert len(failures) in (0, 2), failures
    return None if failures else wire.user


_FAILURES = (sasl.AuthenticationFailed, NoMore, ValueError)


async def _own(password: str, salt: bytes, iterations: int) -> bytes:
    return sasl.own_salted_password(password, salt, iterations)


class _Wire:
    """Carries challenges and responses."""

    def __init__(self, bindings: Mapping[str, bytes]) -> None:
        self.user = ""
        self._bindings = bindings
        self._is_over = False
        self._response: Deferred[bytes | None] = Deferred()
        self._challenge: Deferred[bytes | None] = Deferred()

    async def serve(self, mechanism: str, credentials: OneUser) -> None:
        """The server, until it said yes or no."""
        initial = await self._heard()
        try:
            self.user = await sasl.authenticate(
                mechanism, initial, self._ask, credentials, bindings=self._bindings
            )
        except sasl.AuthenticationFailed:
            if not self._is_over:
                self._challenge.errback(NoMore())
            raise
        self._challenge.callback(None)

    async def _ask(self, challenge: bytes) -> bytes:
        self._challenge.callback(challenge)
        return await self._heard() or b""

    async def _heard(self) -> bytes | None:
        response = await self._response
        self._response, self._challenge = Deferred(), Deferred()
        return response

    async def exchange(self, response: bytes | None) -> bytes | None:
        """What the client says, and hears."""
        said = self._response
        said.callback(response)
        return await self._challenge

    def give_up(self) -> None:
        """The client says nothing more."""
        self._is_over = True
        self._response.errback(NoMore())
