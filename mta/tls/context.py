"""Our two sides of TLS: as a server, and as a client."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from OpenSSL import SSL
from twisted.internet.interfaces import (
    IOpenSSLServerConnectionCreator,
    ISSLTransport,
    ITLSTransport,
)
from zope.interface import implementer

from mta.interfaces import IClientTLS, ITLSContext
from mta.mail import Security
from mta.session import TLSInfo
from mta.settings import CertificatePair, TLSSettings
from mta.tls.files import CertifiedKey, TLSFault, TLSUnreadable, WatchedFiles, files_of, read
from mta.tls.selfsigned import self_signed
from mta.tls.verify import ClientTLSContext, Connection, PeerVerification, tls_info

# `mta check` begins at once: the rest of TLS comes with the reactor.
if TYPE_CHECKING:
    from twisted.protocols.tls import TLSMemoryBIOProtocol

_CIPHERS = b"ECDHE+AESGCM:ECDHE+CHACHA20:DHE+AESGCM:DHE+CHACHA20"  # of TLS 1.2: forward secrecy


@implementer(ITLSContext, IOpenSSLServerConnectionCreator)
class ServerTLS:
    """Our side as a server.

    The client's SNI chooses among the configured certificates; where there is none, a self-signed
    one is made in `folder`.  Client certificates are asked for, never demanded, where there is a
    `client_ca` or where `pins` (SHA-256 fingerprints in lower-case hex) names certificates that
    prove a peer by themselves.  Raises TLSFault.
    """

    def __init__(
        self, settings: TLSSettings, folder: Path, hostname: str, pins: Collection[str] = ()
    ) -> None:
        self._pins = frozenset(pins)
        self._pairs = pairs_of(settings) or [self_signed(folder, hostname)]
        self._client_ca = settings.client_ca
        self._files = WatchedFiles([*files_of(self._pairs), *filter(None, [settings.client_ca])])
        self._context = self._load()

    def reload_if_changed(self) -> bool:
        """Read certificates again where a file changed; returns whether one did.

        To be called now and then.  Open connections are not touched.  Raises TLSFault, once for
        each change, or TLSUnreadable each time; then nothing has changed.
        """
        if not self._files.have_changed():
            return False
        self._context = self._files.read_again(self._load)
        return True

    def start(self, transport: ITLSTransport) -> None:
        """See `ITLSContext.start`."""
        transport.startTLS(self)

    def info(self, transport: ISSLTransport) -> TLSInfo:
        """See `ITLSContext.info`."""
        return tls_info(transport)

    def serverConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        """Twisted calls this for each connection."""
        verification = PeerVerification(True, self._context, self._pins)
        connection = Connection(verification)
        if self._pins or self._client_ca:
            connection.set_verify(SSL.VERIFY_PEER, verification.note)
        return connection

    def _load(self) -> SSL.Context:
        loaded = [CertifiedKey.load(pair) for pair in self._pairs]
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


@implementer(IClientTLS)
class ClientTLS:
    """Our side as a client.  Raises TLSFault.

    Where we demand to know the server, we show it our own configured certificate if it asks.
    """

    def __init__(self, settings: TLSSettings) -> None:
        self._settings = settings
        pairs = [settings.pair] if settings.pair else []
        self._files = WatchedFiles([*files_of(pairs), *filter(None, [settings.ca])])
        self._contexts = self._load()

    def reload_if_changed(self) -> bool:
        """Read certificates again, as `ServerTLS.reload_if_changed`."""
        if not self._files.have_changed():
            return False
        self._contexts = self._files.read_again(self._load)
        return True

    def for_host(self, hostname: str, security: Security, pin: str = "") -> ClientTLSContext:
        """See `IClientTLS.for_host`.

        A pinned certificate may have any name and issuer.  VERIFY demands a chain to our
        authorities and the name; OPPORTUNISTIC takes any certificate, and notes what it proves.
        """
        contexts = self._contexts
        if pin:
            return ClientTLSContext(contexts.pinned, hostname, strict=True, pin=pin)
        if security is Security.VERIFY:
            return ClientTLSContext(contexts.verified, hostname, strict=True)
        return ClientTLSContext(contexts.opportunistic, hostname, strict=False)

    def _load(self) -> _ClientContexts:
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
    read(path)  # OpenSSL does not tell why it can't read a file
    try:
        context.load_verify_locations(str(path))
    except SSL.Error as error:
        if any(library == "system library" for library, *_ in error.args[0]):
            raise TLSUnreadable(f"{path}: can't be read now") from None
        raise TLSFault(f"{path}: holds no PEM certificate") from None
