"""Our two sides of TLS: as a server, and as a client."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from OpenSSL import SSL
from twisted.internet.interfaces import (
    IOpenSSLServerConnectionCreator,
    ISSLTransport,
    ITLSTransport,
)
from twisted.protocols.tls import TLSMemoryBIOProtocol
from zope.interface import implementer

from mta.mail import Security
from mta.session import TLSInfo
from mta.settings import CertificatePair, TLSSettings
from mta.tls.files import CertifiedKey, Reloading, TLSFault, files_of, read
from mta.tls.selfsigned import self_signed
from mta.tls.verify import ClientTLSContext, Connection, PeerVerification, tls_info

_CIPHERS = b"ECDHE+AESGCM:ECDHE+CHACHA20:DHE+AESGCM:DHE+CHACHA20"  # TLS 1.2; 1.3 has only such


@implementer(IOpenSSLServerConnectionCreator)
class ServerTLS:
    """Our side as a server: the certificates, chosen by the name that the client asks for.

    Without a configured pair a self-signed one is made in `folder`.  Client certificates are
    asked for, never demanded, where there is a `client_ca` or where `pins` (SHA-256
    fingerprints in lower-case hex) names certificates that prove a peer by themselves.
    Raises TLSFault.
    """

    def __init__(
        self, settings: TLSSettings, folder: Path, hostname: str, pins: Collection[str] = ()
    ) -> None:
        self._pins = frozenset(pins)
        pairs = pairs_of(settings) or [self_signed(folder, hostname)]
        self._client_ca = settings.client_ca
        self._current = Reloading(
            [*files_of(pairs), *filter(None, [settings.client_ca])],
            lambda: self._context(pairs),
        )

    def reload_if_changed(self) -> bool:
        """Take up files that were written anew; returns whether there were any.

        To be called now and then.  Connections that stand are not touched.  Raises TLSFault, once
        for each change; then nothing has changed.
        """
        return self._current.refresh()

    def start(self, transport: ITLSTransport) -> None:
        """Begin the handshake on our side of an accepted connection."""
        transport.startTLS(self)

    def info(self, transport: ISSLTransport) -> TLSInfo:
        """What the finished handshake proved."""
        return tls_info(transport)

    def serverConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        """Twisted calls this for each connection."""
        context = self._current.value
        verification = PeerVerification(True, context, self._pins)
        connection = Connection(verification)
        if self._pins or self._client_ca:
            connection.set_verify(SSL.VERIFY_PEER, verification.note)
        return connection

    def _context(self, pairs: Sequence[CertificatePair]) -> SSL.Context:
        loaded = [CertifiedKey.load(pair) for pair in pairs]
        contexts = [self._context_of(pair) for pair in loaded]
        by_name: dict[str, SSL.Context] = {}
        for pair, context in zip(loaded, contexts, strict=True):
            for name in pair.names():
                by_name.setdefault(name, context)

        def choose(connection: SSL.Connection) -> None:
            name = (connection.get_servername() or b"").decode("ascii", "replace").lower()
            wildcard = f"*.{name.partition('.')[2]}"
            chosen = by_name.get(name) or by_name.get(wildcard)
            if chosen is not None:
                connection.set_context(chosen)

        contexts[0].set_tlsext_servername_callback(choose)
        return contexts[0]

    def _context_of(self, pair: CertifiedKey) -> SSL.Context:
        context = _new_context()
        pair.use_in(context)
        if self._client_ca is not None:
            _load_authorities(context, self._client_ca)
        return context


class ClientTLS:
    """Our side as a client.  Raises TLSFault.

    Where we demand to know the server, we show it our own configured certificate if it asks.
    """

    def __init__(self, settings: TLSSettings) -> None:
        self._settings = settings
        pairs = [settings.pair] if settings.pair else []
        self._current = Reloading([*files_of(pairs), *filter(None, [settings.ca])], self._contexts)

    def reload_if_changed(self) -> bool:
        """As `ServerTLS.reload_if_changed`."""
        return self._current.refresh()

    def for_host(self, hostname: str, security: Security, pin: str = "") -> ClientTLSContext:
        """TLS towards `hostname`, a name or an address.

        `pin` (SHA-256 fingerprint, lower-case hex) trusts that certificate alone, whatever its
        name and issuer.  Else VERIFY demands a chain to our authorities and the name, and
        OPPORTUNISTIC takes what comes, and only notes what it proves.
        """
        contexts = self._current.value
        if pin:
            return ClientTLSContext(contexts.pinned, hostname, strict=True, pin=pin)
        if security is Security.VERIFY:
            return ClientTLSContext(contexts.verified, hostname, strict=True)
        return ClientTLSContext(contexts.opportunistic, hostname, strict=False)

    def _contexts(self) -> _ClientContexts:
        contexts = _ClientContexts(_new_context(), _new_context(), _new_context())
        for context in (contexts.verified, contexts.opportunistic):
            if self._settings.ca is None:
                context.set_default_verify_paths()
            else:
                _load_authorities(context, self._settings.ca)
        if self._settings.pair:
            pair = CertifiedKey.load(self._settings.pair)
            pair.use_in(contexts.verified)
            pair.use_in(contexts.pinned)
        return contexts


@dataclass(frozen=True, slots=True)
class _ClientContexts:
    opportunistic: SSL.Context
    verified: SSL.Context
    pinned: SSL.Context


def pairs_of(settings: TLSSettings) -> list[CertificatePair]:
    """The certificates that we show as a server, the default one first."""
    return [*([settings.pair] if settings.pair else []), *settings.certificates]


def _new_context() -> SSL.Context:
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    context.set_cipher_list(_CIPHERS)
    context.set_options(
        SSL.OP_NO_COMPRESSION
        | SSL.OP_NO_RENEGOTIATION
        | SSL.OP_NO_TICKET
        | SSL.OP_CIPHER_SERVER_PREFERENCE
    )
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)  # idle connections hold no buffers
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    return context


def _load_authorities(context: SSL.Context, path: Path) -> None:
    read(path)  # OpenSSL would not say why it can't
    try:
        context.load_verify_locations(str(path))
    except SSL.Error:
        raise TLSFault(f"{path}: holds no PEM certificate") from None
