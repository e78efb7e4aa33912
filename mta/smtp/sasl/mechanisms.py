"""The SASL mechanisms, the choice among them, and failures."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from types import MappingProxyType

from mta.session import TLSInfo
from mta.settings import Service

EXTERNAL = "EXTERNAL"
SCRAM_PLUS = "SCRAM-SHA-256-PLUS"
SCRAM = "SCRAM-SHA-256"
CRAM_MD5 = "CRAM-MD5"
PLAIN = "PLAIN"
LOGIN = "LOGIN"

NEEDS_TLS = frozenset({PLAIN, LOGIN})  # the password itself crosses the wire
NO_BINDINGS: Mapping[str, bytes] = MappingProxyType({})

Challenge = Callable[[bytes], Awaitable[bytes]]
"""Sends a challenge (334) and returns the client's response; raises when it cancels."""

Exchange = Callable[[bytes | None], Awaitable[bytes | None]]
"""Sends a response, with AUTH itself at first (None: AUTH without an initial response), and
returns the server's next challenge; None when it said 235; raises when it refused."""

Derive = Callable[[str, bytes, int], Awaitable[bytes]]
"""Password, salt, iterations to the SaltedPassword of RFC 5802; may work in a thread."""


class AuthenticationFailed(Exception):
    """The peer did not prove its identity: answer 535 5.7.8.  The text is for our log only.

    `user` is the name that it gave, empty where it gave none.  `is_known`: there is such a user;
    any other name may be a password, typed in the wrong place.
    """

    def __init__(self, reason: str = "", user: str = "", *, is_known: bool = False) -> None:
        super().__init__(reason)
        self.user = user
        self.is_known = is_known


class AuthenticationUnavailable(Exception):
    """The proof can't be checked now: answer 454 4.7.0."""


def offered(
    service: Service,
    tls: TLSInfo | None,
    *,
    cram_md5: bool,
    external: bool,
    scram: bool = True,
    cleartext: bool = False,
    channel_binding: bool = True,
) -> tuple[str, ...]:
    """Return the mechanisms that a server offers, strongest first.

    `scram`: users have keys for it.  `cram_md5`: some user has a secret for it.  It is offered
    under TLS, and without on the service that must have it (RFC 2645 section 5.1).  `external`:
    the client's verified certificate stands for a user.  `cleartext`: the password itself may
    come without TLS.  `channel_binding`: clients know how to bind SCRAM to TLS.
    """
    with_password = tls is not None or cleartext
    with_cram_md5 = cram_md5 and (tls is not None or service is Service.ODMR)
    candidates = (
        (EXTERNAL, external),
        (
            SCRAM_PLUS,
            scram and channel_binding and tls is not None and bool(tls.bindings),
        ),
        (SCRAM, scram),
        (CRAM_MD5, with_cram_md5),
        (PLAIN, with_password),
        (LOGIN, with_password),
    )
    return tuple(name for name, is_offered in candidates if is_offered)


def strongest(offers: Collection[str], tls: TLSInfo | None, secret: str) -> str | None:
    """Return the mechanism that a client should take.  None: none is safe here.

    The password itself goes only to a server whose certificate was verified; there it is better
    sent than proved by MD5.  With no secret only a certificate can prove anything.
    """
    if not secret:
        wanted: tuple[str, ...] = (EXTERNAL,) if tls else ()
    elif tls is None:
        wanted = (SCRAM, CRAM_MD5)
    else:
        bound = (SCRAM_PLUS,) if tls.bindings else ()
        known = (PLAIN, LOGIN) if tls.certificate else ()
        wanted = (*bound, SCRAM, *known, CRAM_MD5)
    names = {offer.upper() for offer in offers}
    return next((name for name in wanted if name in names), None)
