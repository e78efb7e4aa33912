"""SASL mechanisms, both sides, as straight code (RFC 4422).

What is secret stays behind `Credentials`; how challenges and responses travel (RFC 4954:
base64, 334, cancelling) is the business of the roles.  Mechanisms: EXTERNAL, SCRAM-SHA-256 and
SCRAM-SHA-256-PLUS (RFC 5802, RFC 7677; channel bindings RFC 5929, RFC 9266), CRAM-MD5
(RFC 2195), PLAIN (RFC 4616), LOGIN (draft-murchison-sasl-login).
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from base64 import b64decode, b64encode
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType
from typing import Protocol

from mta.session import TLSInfo
from mta.settings import Service
from mta.smtp.saslprep import prepare

EXTERNAL = "EXTERNAL"
SCRAM_PLUS = "SCRAM-SHA-256-PLUS"
SCRAM = "SCRAM-SHA-256"
CRAM_MD5 = "CRAM-MD5"
PLAIN = "PLAIN"
LOGIN = "LOGIN"

NEEDS_TLS = frozenset({PLAIN, LOGIN})  # the password itself crosses the wire

SALT_SIZE = 16  # octets
ITERATIONS = 600_000  # what OWASP advises for PBKDF2 with SHA-256: some tenths of a second
MIN_ITERATIONS = 4096  # RFC 7677 section 4
MAX_ITERATIONS = 2_000_000  # a hostile server could otherwise keep its client busy for hours
MAX_DERIVED = 100  # secrets of ours, with the salts of the servers, whose keys are kept

NO_BINDINGS: Mapping[str, bytes] = MappingProxyType({})
_BINDINGS = ("tls-exporter", "tls-server-end-point")  # best first


class AuthenticationFailed(Exception):
    """The peer did not prove who it is: answer 535 5.7.8.  The text is for our log only.

    `user` is the name that it gave, empty where it gave none.  `is_known`: there is such a user;
    any other name may be a password, typed in the wrong place.
    """

    def __init__(self, reason: str = "", user: str = "", *, is_known: bool = False) -> None:
        super().__init__(reason)
        self.user = user
        self.is_known = is_known


class AuthenticationUnavailable(Exception):
    """Nobody can tell now: answer 454 4.7.0."""


@dataclass(frozen=True, slots=True)
class ScramKeys:
    """What a server keeps of a password for SCRAM (RFC 5802 section 3)."""

    salt: bytes
    iterations: int
    stored_key: bytes = field(repr=False)
    server_key: bytes = field(repr=False)


class Credentials(Protocol):
    """What the server side asks of those who keep the secrets.

    Every method may raise AuthenticationUnavailable.  `user` is a prepared name.
    """

    async def verify_password(self, user: str, password: str) -> bool:
        """Whether that is the user's password; takes as long where there is no such user."""

    async def scram_keys(self, user: str) -> ScramKeys:
        """The user's keys; where there is no such user, keys that nobody has the password of,
        with a salt that stays the same, so that the answer doesn't tell."""

    async def cram_secret(self, user: str) -> str | None:
        """The plain secret of a user who wants CRAM-MD5, else None."""


Challenge = Callable[[bytes], Awaitable[bytes]]
"""Sends a challenge (334) and returns the client's response; raises when it cancels."""

Exchange = Callable[[bytes | None], Awaitable[bytes | None]]
"""Sends a response, with AUTH itself at first (None: AUTH without an initial response), and
returns the server's next challenge; None when it said 235; raises when it refused."""

Derive = Callable[[str, bytes, int], Awaitable[bytes]]
"""Password, salt, iterations to the SaltedPassword of RFC 5802; may work in a thread."""


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
    """The mechanisms that a server offers, strongest first.

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
    """The mechanism that a client should take; None: none that is safe here.

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


# --- the server side ------------------------------------------------------------


async def authenticate(
    mechanism: str,
    initial: bytes | None,
    challenge: Challenge,
    credentials: Credentials,
    *,
    bindings: Mapping[str, bytes] = NO_BINDINGS,
    external: str = "",
) -> str:
    """Hold the server's side of one exchange; returns the identity that was proved.

    `initial` is the initial response, None where there was none.  `bindings` are the channel
    bindings of this connection by type.  `external` is the user whom the client's verified
    certificate stands for.  Raises AuthenticationFailed, AuthenticationUnavailable, and
    whatever `challenge` raises.
    """
    match mechanism:
        case "CRAM-MD5":
            if initial is not None:
                raise AuthenticationFailed("CRAM-MD5 has no initial response")
            return await _check_cram_md5(challenge, credentials)
        case "LOGIN":
            user = await challenge(b"Username:") if initial is None else initial
            password = await challenge(b"Password:")
            return await _check_password(b"", user, password, credentials)
    first = await challenge(b"") if initial is None else initial
    match mechanism:
        case "PLAIN":
            return await _check_plain(first, credentials)
        case "SCRAM-SHA-256":
            return await _check_scram(first, challenge, credentials, bindings, None)
        case "SCRAM-SHA-256-PLUS":
            return await _check_scram(first, challenge, credentials, NO_BINDINGS, bindings)
        case "EXTERNAL":
            return _check_external(first, external)
    raise AuthenticationFailed("no such mechanism")


async def _check_plain(message: bytes, credentials: Credentials) -> str:
    parts = message.split(b"\0")
    if len(parts) != 3:
        raise AuthenticationFailed("malformed PLAIN message")
    acting_as, user, password = parts
    return await _check_password(acting_as, user, password, credentials)


async def _check_password(
    acting_as: bytes, user: bytes, password: bytes, credentials: Credentials
) -> str:
    name = _prepared(user)
    if not await credentials.verify_password(name, _prepared(password)):
        raise AuthenticationFailed("wrong user name or password", name)
    _demand_own_identity(acting_as, name)
    return name


async def _check_cram_md5(challenge: Challenge, credentials: Credentials) -> str:
    text = f"<{secrets.token_hex(16)}@sasl.invalid>".encode()
    user, _, digest = (await challenge(text)).rpartition(b" ")
    name = _prepared(user)
    secret = await credentials.cram_secret(name)
    key = secrets.token_bytes(16) if secret is None else secret.encode()  # nobody knows it
    expected = hmac.new(key, text, "md5").hexdigest().encode()
    if not hmac.compare_digest(expected, digest.lower()):
        raise AuthenticationFailed("wrong user name or secret", name)
    return name


def _check_external(message: bytes, external: str) -> str:
    if not external:
        raise AuthenticationFailed("no certificate that stands for a user")
    _demand_own_identity(message, external)
    return external


async def _check_scram(
    first: bytes,
    challenge: Challenge,
    credentials: Credentials,
    advertised: Mapping[str, bytes],
    bound: Mapping[str, bytes] | None,
) -> str:
    """SCRAM-SHA-256: `advertised` are the bindings that the client could have used;
    SCRAM-SHA-256-PLUS: `bound` are those that it must use."""
    opening = _CLIENT_FIRST.fullmatch(first)
    if not opening:
        raise AuthenticationFailed("malformed SCRAM client-first-message")
    header, flag, acting_as, bare, user, client_nonce = opening.groups()
    binding = _binding_demanded(flag, advertised, bound)
    name = _prepared(_unescaped(user))
    keys = await credentials.scram_keys(name)

    nonce = client_nonce + b64encode(secrets.token_bytes(18))
    salt = b64encode(keys.salt)
    server_first = b"r=%b,s=%b,i=%d" % (nonce, salt, keys.iterations)
    closing = _CLIENT_FINAL.fullmatch(await challenge(server_first))
    if not closing:
        raise AuthenticationFailed("malformed SCRAM client-final-message")
    without_proof, shown_binding, shown_nonce, proof = closing.groups()

    signed = b"%b,%b,%b" % (bare, server_first, without_proof)
    client_key = _xor(_decoded(proof), _hmac(keys.stored_key, signed))
    if not hmac.compare_digest(hashlib.sha256(client_key).digest(), keys.stored_key):
        raise AuthenticationFailed("wrong user name or password", name)
    if shown_nonce != nonce or _decoded(shown_binding) != header + binding:
        raise AuthenticationFailed("the SCRAM proof belongs to another connection")
    _demand_own_identity(_unescaped(acting_as or b""), name)
    await challenge(b"v=" + b64encode(_hmac(keys.server_key, signed)))
    return name


def _binding_demanded(
    flag: bytes, advertised: Mapping[str, bytes], bound: Mapping[str, bytes] | None
) -> bytes:
    """The channel binding data that the client must know (RFC 5802 section 6)."""
    if bound is None:
        if flag == b"y" and advertised:
            raise AuthenticationFailed("somebody hid SCRAM-SHA-256-PLUS from the client")
        if flag.startswith(b"p"):
            raise AuthenticationFailed("a channel binding with a mechanism that has none")
        return b""
    kind = flag.removeprefix(b"p=").decode("ascii")
    if kind not in bound:
        raise AuthenticationFailed("no channel binding that we know")
    return bound[kind]


def _demand_own_identity(acting_as: bytes, name: str) -> None:
    """Nobody may act for another user (the authorization identity of RFC 4422)."""
    if acting_as and _prepared(acting_as) != name:
        raise AuthenticationFailed("may not act for another user")


# --- the client side ------------------------------------------------------------


async def derive(password: str, salt: bytes, iterations: int) -> bytes:
    """The SaltedPassword of RFC 5802, here and now: tenths of a second of work."""
    return salted_password(password, salt, iterations)


async def respond(
    mechanism: str,
    user: str,
    secret: str,
    exchange: Exchange,
    *,
    bindings: Mapping[str, bytes] = NO_BINDINGS,
    derive: Derive = derive,
) -> None:
    """Hold the client's side of one exchange; returns when both sides are content.

    Raises AuthenticationFailed where the server breaks the mechanism or can't prove that it
    knows the user (then nothing it says can be trusted), ValueError for a user name or secret
    that no server can have, and whatever `exchange` raises.
    """
    match mechanism:
        case "PLAIN":
            message = f"\0{prepare(user)}\0{prepare(secret)}".encode()
            answer = await exchange(message)
        case "LOGIN":
            await _challenged(exchange, None)
            await _challenged(exchange, prepare(user).encode())
            answer = await exchange(prepare(secret).encode())
        case "CRAM-MD5":
            text = await _challenged(exchange, None)
            digest = hmac.new(secret.encode(), text, "md5").hexdigest()
            answer = await exchange(f"{user} {digest}".encode())
        case "SCRAM-SHA-256" | "SCRAM-SHA-256-PLUS":
            bound = mechanism == SCRAM_PLUS
            answer = await _prove_scram(user, secret, exchange, bindings, bound, derive)
        case "EXTERNAL":
            answer = await exchange(b"")
        case _:
            raise AuthenticationFailed("no such mechanism")
    if answer is not None:
        raise AuthenticationFailed("the server asks for more than the mechanism has")


async def _prove_scram(
    user: str,
    secret: str,
    exchange: Exchange,
    bindings: Mapping[str, bytes],
    bound: bool,
    derive: Derive,
) -> bytes | None:
    header, binding = _binding_shown(bindings, bound)
    nonce = b64encode(secrets.token_bytes(18))
    bare = b"n=%b,r=%b" % (_escaped(prepare(user)), nonce)
    server_first = await _challenged(exchange, header + bare)
    opening = _SERVER_FIRST.fullmatch(server_first)
    if not opening:
        raise AuthenticationFailed("malformed SCRAM server-first-message")
    whole_nonce, salt, iterations = opening[1], _decoded(opening[2]), int(opening[3])
    if not whole_nonce.startswith(nonce) or whole_nonce == nonce:
        raise AuthenticationFailed("the server answers somebody else's SCRAM message")
    if not MIN_ITERATIONS <= iterations <= MAX_ITERATIONS:
        raise AuthenticationFailed(f"the server wants {iterations} SCRAM iterations")

    salted = await derive(prepare(secret), salt, iterations)
    client_key = _hmac(salted, b"Client Key")
    without_proof = b"c=%b,r=%b" % (b64encode(header + binding), whole_nonce)
    signed = b"%b,%b,%b" % (bare, server_first, without_proof)
    signature = _hmac(hashlib.sha256(client_key).digest(), signed)
    proof = b64encode(_xor(client_key, signature))
    server_final = await _challenged(exchange, without_proof + b",p=" + proof)
    expected = b"v=" + b64encode(_hmac(_hmac(salted, b"Server Key"), signed))
    if not hmac.compare_digest(server_final.split(b",")[0], expected):
        raise AuthenticationFailed("the server could not prove that it knows this user")
    return await exchange(b"")


def _binding_shown(bindings: Mapping[str, bytes], bound: bool) -> tuple[bytes, bytes]:
    """The GS2 header that a client sends, and the data that it binds to."""
    if not bound:
        # "y": we could have bound, and the server did not offer it.  It can tell if it did.
        return (b"y,," if bindings else b"n,,"), b""
    for kind in _BINDINGS:
        if kind in bindings:
            return b"p=%b,," % kind.encode(), bindings[kind]
    raise AuthenticationFailed("no channel binding on this connection")


async def _challenged(exchange: Exchange, response: bytes | None) -> bytes:
    answer = await exchange(response)
    if answer is None:
        raise AuthenticationFailed("the server said yes before its turn")
    return answer


# --- SCRAM ----------------------------------------------------------------------

_NONCE = rb"[!-+\--~]+"  # printable, without the comma
_BASE64 = rb"[A-Za-z0-9+/]+={0,2}"
_MORE = rb"(?:,[A-Za-z]=[^,]*)*"  # extensions: not known, not harmful (RFC 5802 section 5.1)
_CLIENT_FIRST = re.compile(
    rb"((n|y|p=[A-Za-z0-9.\-]+),(?:a=([^,]+))?,)(n=([^,]+),r=(%b)%b)" % (_NONCE, _MORE)
)
_CLIENT_FINAL = re.compile(rb"(c=(%b),r=(%b)%b),p=(%b)" % (_BASE64, _NONCE, _MORE, _BASE64))
_SERVER_FIRST = re.compile(rb"r=(%b),s=(%b),i=([1-9][0-9]{0,9})%b" % (_NONCE, _BASE64, _MORE))


def scram_keys(password: str, salt: bytes, iterations: int) -> ScramKeys:
    """What a server keeps of a prepared password (RFC 5802 section 3)."""
    salted = salted_password(password, salt, iterations)
    stored_key = hashlib.sha256(_hmac(salted, b"Client Key")).digest()
    return ScramKeys(salt, iterations, stored_key, _hmac(salted, b"Server Key"))


def salted_password(password: str, salt: bytes, iterations: int) -> bytes:
    return hashlib.pbkdf2_hmac("sha256", password.encode(), salt, iterations)


@lru_cache(maxsize=MAX_DERIVED)
def own_salted_password(password: str, salt: bytes, iterations: int) -> bytes:
    """The same for a secret of ours, as a client: once for each salt (RFC 5802 section 5.1)."""
    return salted_password(password, salt, iterations)


def _hmac(key: bytes, text: bytes) -> bytes:
    return hmac.digest(key, text, "sha256")


def _xor(left: bytes, right: bytes) -> bytes:
    if len(left) != len(right):
        raise AuthenticationFailed("a SCRAM proof of the wrong length")
    return bytes(a ^ b for a, b in zip(left, right, strict=True))


def _escaped(name: str) -> bytes:
    return name.replace("=", "=3D").replace(",", "=2C").encode()


def _unescaped(name: bytes) -> bytes:
    if re.search(rb"=(?!2C|3D)", name):
        raise AuthenticationFailed("malformed SCRAM user name")
    return name.replace(b"=2C", b",").replace(b"=3D", b"=")


# --- text -----------------------------------------------------------------------


def _decoded(text: bytes) -> bytes:
    try:
        return b64decode(text, validate=True)
    except ValueError:
        raise AuthenticationFailed("malformed base64 in a SCRAM message") from None


def _prepared(text: bytes) -> str:
    try:
        return prepare(text.decode())
    except ValueError:  # UnicodeDecodeError is one
        raise AuthenticationFailed("a user name or password that nobody can have") from None
