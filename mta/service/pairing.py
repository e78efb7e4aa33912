"""The calls of an office to its relay for a pairing."""

from __future__ import annotations

from typing import Any

from twisted.internet.endpoints import HostnameEndpoint, connectProtocol
from twisted.internet.error import ConnectError, ConnectionRefusedError, DNSLookupError
from twisted.internet.error import TimeoutError as ConnectTimeout

from mta.interfaces import IRole, ITLSContext
from mta.link import Link
from mta.mail import Hop, Security
from mta.pairing.request import Granted, PairingRefused, PairingRole
from mta.pairing.token import Token
from mta.queued import HopFailure
from mta.session import ChannelLost
from mta.settings import Peer, Settings
from mta.smtp.dialogue import ATTENDED_GREETING
from mta.smtp.errors import PeerFault
from mta.smtp.opening import SenderConfig
from mta.tls import ClientTLS

CONNECT_TIMEOUT = 20  # seconds: a person waits

_BAD_LOG_IN = frozenset({534, 535})  # RFC 4954 section 6


async def redeem(settings: Settings, token: Token, nonce: str, reactor: Any) -> tuple[Granted, str]:
    """Hear the password of a pairing; returns it, and a pin.

    The pin is empty where an authority of ours has issued the relay's certificate for its name.
    Nothing is said to a server that shows another certificate than the token's.  Raises
    PairingRefused and TLSFault.
    """
    tls = ClientTLS(settings.tls)
    pin = ""
    try:
        role = await _ask(
            settings, token, nonce, tls.for_host(token.host, Security.VERIFY), reactor
        )
    except ChannelLost:
        pin = token.fingerprint
        pinned = tls.for_host(token.host, Security.VERIFY, pin)
        try:
            role = await _ask(settings, token, nonce, pinned, reactor)
        except ChannelLost as error:
            raise PairingRefused(_tls_words(token, str(error))) from error
    if role.granted is None:
        raise PairingRefused(role.refusal)
    return role.granted, pin


async def converse(settings: Settings, peer: Peer, role: IRole, reactor: Any) -> None:
    """Hold a conversation with a relay that we are paired with.

    Raises PairingRefused and TLSFault.
    """
    hop = peer.connect
    assert hop is not None
    context = ClientTLS(settings.tls).for_host(hop.next_hop, Security.VERIFY, peer.pin)
    try:
        await _converse(role, hop, context, reactor)
    except ChannelLost as error:
        raise PairingRefused(f"the connection to {hop.next_hop} failed: {error}") from error


def logged_in(settings: Settings, hop: Hop) -> SenderConfig:
    """The opening of a session with a relay.

    TLS proves who it is, before our log-in.
    """
    return SenderConfig(
        settings.hostname,
        security=Security.VERIFY,
        user=hop.user,
        secret=hop.secret,
        greeting=ATTENDED_GREETING,
    )


async def _ask(
    settings: Settings, token: Token, nonce: str, context: ITLSContext, reactor: Any
) -> PairingRole:
    role = PairingRole(settings.hostname, token, nonce)
    await _converse(role, token.hop(), context, reactor)
    return role


async def _converse(role: IRole, hop: Hop, context: ITLSContext, reactor: Any) -> None:
    """Hold one conversation.  Raises PairingRefused, and ChannelLost also where TLS fails."""
    link = Link(
        role,
        reactor,
        context,
        tls_at_once=hop.implicit_tls,
        handshake_timeout=ATTENDED_GREETING.timeout,
    )
    host, port = hop.next_hop, hop.port
    endpoint = HostnameEndpoint(reactor, host, port, timeout=CONNECT_TIMEOUT)
    try:
        await connectProtocol(endpoint, link)
    except DNSLookupError:
        raise PairingRefused(f"there is no host {host}: its name is not in the DNS") from None
    except ConnectionRefusedError:
        raise PairingRefused(
            f"nothing listens on {host} port {port}: does the relay's server run?"
        ) from None
    except ConnectTimeout:
        raise PairingRefused(
            f"no answer from {host} port {port}: a firewall between us may close that port"
        ) from None
    except ConnectError as error:
        raise PairingRefused(f"{host} port {port} can't be reached: {error}") from None
    try:
        await link.ended
    except HopFailure as failure:
        reply = failure.outcome.reply
        what = f"the relay refuses the log-in of {hop.user}" if reply.code in _BAD_LOG_IN else ""
        raise PairingRefused(f"{what or 'the relay says'}: {reply}") from None
    except PeerFault as fault:
        raise PairingRefused(
            f"{host} port {port} does not speak SMTP as it should: {fault}"
        ) from None


def _tls_words(token: Token, error: str) -> str:
    if "pinned" in error:
        return (
            f"the certificate of {token.host} differs from the one in the token, and nothing was"
            f" said to that server: {error.rpartition(', but ')[2]} is not"
            f" sha256:{token.fingerprint}"
        )
    return f"the connection to {token.host} port {token.port} failed: {error}"
