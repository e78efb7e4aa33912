"""The server's side of a SASL exchange."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from base64 import b64encode
from collections.abc import Mapping

from mta.smtp.sasl.credentials import ICredentials, ScramKeys
from mta.smtp.sasl.mechanisms import NO_BINDINGS, AuthenticationFailed, Challenge
from mta.smtp.sasl.scram import CLIENT_FINAL, CLIENT_FIRST, decoded, hmac_sha256, unescaped, xor
from mta.smtp.saslprep import prepare


async def authenticate(
    mechanism: str,
    initial: bytes | None,
    challenge: Challenge,
    credentials: ICredentials,
    *,
    bindings: Mapping[str, bytes] = NO_BINDINGS,
    external: str = "",
) -> str:
    """Hold the server's side of one exchange.  Returns the identity that was proved.

    `initial` is the initial response, None where there was none.  `bindings` are the channel
    bindings of this connection by type.  `external` is the user that the client's verified
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


async def _check_plain(message: bytes, credentials: ICredentials) -> str:
    parts = message.split(b"\0")
    if len(parts) != 3:
        raise AuthenticationFailed("malformed PLAIN message")
    acting_as, user, password = parts
    return await _check_password(acting_as, user, password, credentials)


async def _check_password(
    acting_as: bytes, user: bytes, password: bytes, credentials: ICredentials
) -> str:
    name = _prepared(user)
    if not await credentials.verify_password(name, _prepared(password)):
        raise AuthenticationFailed("wrong user name or password", name)
    _demand_own_identity(acting_as, name)
    return name


async def _check_cram_md5(challenge: Challenge, credentials: ICredentials) -> str:
    text = f"<{secrets.token_hex(16)}@sasl.invalid>".encode()
    user, _, digest = (await challenge(text)).rpartition(b" ")
    name = _prepared(user)
    secret = await credentials.cram_secret(name)
    key = secrets.token_bytes(16) if secret is None else secret.encode()  # no client knows it
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
    credentials: ICredentials,
    advertised: Mapping[str, bytes],
    bound: Mapping[str, bytes] | None,
) -> str:
    """Check the client's proof, and give ours.

    With SCRAM-SHA-256 `advertised` are the bindings that the client could have used, with
    SCRAM-SHA-256-PLUS `bound` those that it must use.
    """
    opening = CLIENT_FIRST.fullmatch(first)
    if not opening:
        raise AuthenticationFailed("malformed SCRAM client-first-message")
    header, flag, acting_as, bare, user, client_nonce = opening.groups()
    binding = _binding_demanded(flag, advertised, bound)
    name = _prepared(unescaped(user))
    keys = await credentials.scram_keys(name)

    nonce = client_nonce + b64encode(secrets.token_bytes(18))
    salt = b64encode(keys.salt)
    server_first = b"r=%b,s=%b,i=%d" % (nonce, salt, keys.iterations)
    closing = CLIENT_FINAL.fullmatch(await challenge(server_first))
    if not closing:
        raise AuthenticationFailed("malformed SCRAM client-final-message")
    without_proof, shown_binding, shown_nonce, proof = closing.groups()

    signed = b"%b,%b,%b" % (bare, server_first, without_proof)
    if keys.successor is not None and _is_proved(keys.successor, signed, proof):
        keys = keys.successor
    elif not _is_proved(keys, signed, proof):
        raise AuthenticationFailed("wrong user name or password", name)
    if shown_nonce != nonce or decoded(shown_binding) != header + binding:
        raise AuthenticationFailed("the SCRAM proof belongs to another connection")
    _demand_own_identity(unescaped(acting_as or b""), name)
    await credentials.proved(name, keys)
    await challenge(b"v=" + b64encode(hmac_sha256(keys.server_key, signed)))
    return name


def _is_proved(keys: ScramKeys, signed: bytes, proof: bytes) -> bool:
    """Tell whether a proof is one of the password behind these keys."""
    client_key = xor(decoded(proof), hmac_sha256(keys.stored_key, signed))
    return hmac.compare_digest(hashlib.sha256(client_key).digest(), keys.stored_key)


def _binding_demanded(
    flag: bytes, advertised: Mapping[str, bytes], bound: Mapping[str, bytes] | None
) -> bytes:
    """Return the binding data that the client must know.  See RFC 5802 section 6."""
    if bound is None:
        if flag == b"y" and advertised:
            raise AuthenticationFailed("SCRAM-SHA-256-PLUS was hidden from the client")
        if flag.startswith(b"p"):
            raise AuthenticationFailed("a channel binding with a mechanism that has none")
        return b""
    kind = flag.removeprefix(b"p=").decode("ascii")
    if kind not in bound:
        raise AuthenticationFailed("no channel binding that we know")
    return bound[kind]


def _demand_own_identity(acting_as: bytes, name: str) -> None:
    """Refuse an authorization identity (RFC 4422) other than the user's own."""
    if acting_as and _prepared(acting_as) != name:
        raise AuthenticationFailed("may not act for another user")


def _prepared(text: bytes) -> str:
    try:
        return prepare(text.decode())
    except ValueError:  # UnicodeDecodeError is one
        raise AuthenticationFailed("a user name or password that no user can have") from None
