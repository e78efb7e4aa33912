"""The client's side of a SASL exchange."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from base64 import b64encode
from collections.abc import Mapping

from mta.smtp.sasl.mechanisms import (
    NO_BINDINGS,
    SCRAM_PLUS,
    AuthenticationFailed,
    Derive,
    Exchange,
)
from mta.smtp.sasl.scram import (
    MAX_ITERATIONS,
    MIN_ITERATIONS,
    SERVER_FIRST,
    decoded,
    escaped,
    hmac_sha256,
    salted_password,
    xor,
)
from mta.smtp.saslprep import prepare

_BINDINGS = ("tls-exporter", "tls-server-end-point")  # best first


async def derive(password: str, salt: bytes, iterations: int) -> bytes:
    """Return the SaltedPassword of RFC 5802, here and now."""
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
    """Hold the client's side of one exchange, until both sides are content.

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
    bare = b"n=%b,r=%b" % (escaped(prepare(user)), nonce)
    server_first = await _challenged(exchange, header + bare)
    opening = SERVER_FIRST.fullmatch(server_first)
    if not opening:
        raise AuthenticationFailed("malformed SCRAM server-first-message")
    whole_nonce, salt, iterations = opening[1], decoded(opening[2]), int(opening[3])
    if not whole_nonce.startswith(nonce) or whole_nonce == nonce:
        raise AuthenticationFailed("the server answers another SCRAM message")
    if not MIN_ITERATIONS <= iterations <= MAX_ITERATIONS:
        raise AuthenticationFailed(f"the server wants {iterations} SCRAM iterations")

    salted = await derive(prepare(secret), salt, iterations)
    client_key = hmac_sha256(salted, b"Client Key")
    without_proof = b"c=%b,r=%b" % (b64encode(header + binding), whole_nonce)
    signed = b"%b,%b,%b" % (bare, server_first, without_proof)
    signature = hmac_sha256(hashlib.sha256(client_key).digest(), signed)
    proof = b64encode(xor(client_key, signature))
    server_final = await _challenged(exchange, without_proof + b",p=" + proof)
    expected = b"v=" + b64encode(hmac_sha256(hmac_sha256(salted, b"Server Key"), signed))
    if not hmac.compare_digest(server_final.split(b",")[0], expected):
        raise AuthenticationFailed("the server could not prove that it knows this user")
    return await exchange(b"")


def _binding_shown(bindings: Mapping[str, bytes], bound: bool) -> tuple[bytes, bytes]:
    """Return the GS2 header to send, and its binding data."""
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
        raise AuthenticationFailed("the server said yes too early")
    return answer
