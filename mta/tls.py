"""TLS: our certificates, and what we demand of those of others.

`ServerTLS` and what `ClientTLS.towards` returns begin TLS on a connection and tell what the
handshake proved (`mta.link.TLSContext`); Twisted's own wrappers take them too.  TLS 1.2 and 1.3,
forward secrecy, no session resumption: so that a certificate is examined on every connection.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Generic, TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.x509.oid import NameOID
from OpenSSL import SSL
from OpenSSL.crypto import X509
from service_identity import CertificateError, VerificationError
from service_identity.cryptography import (
    verify_certificate_hostname,
    verify_certificate_ip_address,
)
from twisted.internet.interfaces import (
    IOpenSSLClientConnectionCreator,
    IOpenSSLServerConnectionCreator,
    ISSLTransport,
    ITLSTransport,
)
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from mta.files import atomic_write
from mta.interfaces import Secured
from mta.mail import Security
from mta.settings import CertificatePair, TLSSettings

SELF_SIGNED = "self-signed.pem"  # certificate and key, in the spool folder
SELF_SIGNED_DAYS = 3650

_CIPHERS = b"ECDHE+AESGCM:ECDHE+CHACHA20:DHE+AESGCM:DHE+CHACHA20"  # TLS 1.2; 1.3 has only such
_EXPORTER = b"EXPORTER-Channel-Binding"  # RFC 9266 section 2
_EXPORTER_SIZE = 32  # octets, RFC 9266 section 2

_REASONS = {
    10: "it has expired",
    9: "it is not valid yet",
    18: "it is self-signed",
    19: "its issuer is not trusted",
    20: "its issuer is not known",
    21: "its issuer is not known",
}

_Key = (
    rsa.RSAPrivateKey
    | ec.EllipticCurvePrivateKey
    | ed25519.Ed25519PrivateKey
    | ed448.Ed448PrivateKey
)

T = TypeVar("T")


class TLSFault(Exception):
    """Something about our certificates that a person must put right: one line."""


class CertificateRefused(Exception):
    """The server's certificate is not what we demand: one line.  Ends the connection."""


@dataclass(slots=True)
class _Examination:
    """What OpenSSL finds out about the peer's certificate on one connection.

    `context` is kept because OpenSSL may call into it after another was chosen by SNI.
    """

    is_server: bool
    context: SSL.Context
    pins: Collection[str] = ()
    chain_holds: bool | None = None

    def note(self, _: SSL.Connection, __: X509, ___: int, depth: int, holds: int) -> bool:
        """OpenSSL calls this for each certificate of a client's chain: none ends the handshake.

        What a client shows uninvited must not keep its mail out; it only proves nothing.
        """
        if not holds:
            self.chain_holds = False
        elif depth == 0 and self.chain_holds is None:
            self.chain_holds = True
        return True


class _Connection(SSL.Connection):
    """A connection that remembers its examination (Twisted has taken its app data)."""

    def __init__(self, examination: _Examination) -> None:
        super().__init__(examination.context)
        self.examination = examination


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
        pairs = [settings.pair] if settings.pair else []
        pairs += settings.certificates
        if not pairs:
            path = _self_signed(folder, hostname)
            pairs = [CertificatePair(path, path)]
        self._client_ca = settings.client_ca
        self._current = _Watched(
            [*_files(pairs), *filter(None, [settings.client_ca])],
            lambda: self._context(pairs),
        )

    def reload_if_changed(self) -> None:
        """Take up files that were written anew; broken ones are logged and change nothing.

        To be called now and then.  Connections that stand are not touched.
        """
        self._current.refresh()

    def start(self, transport: ITLSTransport) -> None:
        """Begin the handshake on our side of an accepted connection."""
        transport.startTLS(self)

    def secured(self, transport: ISSLTransport) -> Secured:
        """What the finished handshake proved."""
        return secured_by(transport)

    def serverConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        """Twisted calls this for each connection."""
        context = self._current.value
        examination = _Examination(True, context, self._pins)
        connection = _Connection(examination)
        if self._pins or self._client_ca:
            connection.set_verify(SSL.VERIFY_PEER, examination.note)
        return connection

    def _context(self, pairs: Sequence[CertificatePair]) -> SSL.Context:
        loaded = [_Loaded.of(pair) for pair in pairs]
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

    def _context_of(self, pair: _Loaded) -> SSL.Context:
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
        self._current = _Watched([*_files(pairs), *filter(None, [settings.ca])], self._contexts)

    def reload_if_changed(self) -> None:
        """As `ServerTLS.reload_if_changed`."""
        self._current.refresh()

    def towards(self, hostname: str, security: Security, pin: str = "") -> ServerDemand:
        """TLS towards `hostname`, a name or an address.

        `pin` (SHA-256 fingerprint, lower-case hex) trusts that certificate alone, whatever its
        name and issuer.  Else VERIFY demands a chain to our authorities and the name, and
        OPPORTUNISTIC takes what comes, and only notes what it proves.
        """
        contexts = self._current.value
        if pin:
            return ServerDemand(contexts.pinned, hostname, strict=True, pin=pin)
        if security is Security.VERIFY:
            return ServerDemand(contexts.verified, hostname, strict=True)
        return ServerDemand(contexts.opportunistic, hostname, strict=False)

    def _contexts(self) -> _ClientContexts:
        contexts = _ClientContexts(_new_context(), _new_context(), _new_context())
        for context in (contexts.verified, contexts.opportunistic):
            if self._settings.ca is None:
                context.set_default_verify_paths()
            else:
                _load_authorities(context, self._settings.ca)
        if self._settings.pair:
            pair = _Loaded.of(self._settings.pair)
            pair.use_in(contexts.verified)
            pair.use_in(contexts.pinned)
        return contexts


@dataclass(frozen=True, slots=True)
class _ClientContexts:
    opportunistic: SSL.Context
    verified: SSL.Context
    pinned: SSL.Context


@implementer(IOpenSSLClientConnectionCreator)
class ServerDemand:
    """What we demand of one server; made by `ClientTLS.towards`.

    A server that does not meet a `strict` one loses the connection, with CertificateRefused as the
    reason; else its certificate only proves nothing.
    """

    def __init__(self, context: SSL.Context, hostname: str, *, strict: bool, pin: str = "") -> None:
        self._context = context
        self._hostname = hostname.rstrip(".")
        self._strict = strict
        self._pin = pin

    def start(self, transport: ITLSTransport) -> None:
        """Begin the handshake on our side of a connection that we dialled."""
        transport.startTLS(self)

    def secured(self, transport: ISSLTransport) -> Secured:
        """What the finished handshake proved."""
        return secured_by(transport)

    def clientConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        """Twisted calls this for each connection."""
        examination = _Examination(False, self._context)
        connection = _Connection(examination)
        if not _is_address(self._hostname):
            connection.set_tlsext_host_name(self._hostname.encode("idna"))
        connection.set_verify(SSL.VERIFY_PEER, self._examiner(examination, tlsProtocol))
        return connection

    def _examiner(
        self, examination: _Examination, tlsProtocol: TLSMemoryBIOProtocol
    ) -> Callable[[SSL.Connection, X509, int, int, int], bool]:
        """What OpenSSL asks about each certificate of the server's chain.

        Where it raises, pyOpenSSL refuses the certificate.
        """

        def examine(
            connection: SSL.Connection, shown: X509, error: int, depth: int, holds: int
        ) -> bool:
            certificate = shown.to_cryptography()
            objection = self._objection(certificate, error if not holds else 0, depth)
            if objection and self._strict:
                reason = CertificateRefused(f"the certificate of {self._hostname}: {objection}")
                tlsProtocol.failVerification(Failure(reason))
                return False
            if objection:
                examination.chain_holds = False
            elif depth == 0 and examination.chain_holds is None:
                examination.chain_holds = True
            return True

        return examine

    def _objection(self, certificate: x509.Certificate, error: int, depth: int) -> str:
        if self._pin:
            fits = depth > 0 or fingerprint(certificate) == self._pin
            return "" if fits else "it is not the one that is pinned"
        if error:
            return _REASONS.get(error, f"it can't be verified (OpenSSL error {error})")
        if depth > 0:
            return ""
        try:
            if _is_address(self._hostname):
                verify_certificate_ip_address(certificate, self._hostname)
            else:
                ascii_name = self._hostname.encode("idna").decode("ascii")
                verify_certificate_hostname(certificate, ascii_name)
        except (VerificationError, CertificateError, ValueError):
            return "it is for another name"
        return ""


# --- what a handshake proved ----------------------------------------------------


def secured_by(transport: ISSLTransport) -> Secured:
    """What TLS says of a connection of ours whose handshake is finished."""
    connection = transport.getHandle()  # type: ignore[attr-defined]
    assert isinstance(connection, _Connection)
    examination = connection.examination
    shown = connection.get_peer_certificate(as_cryptography=True)
    proved = ""
    if shown is not None:
        digest = fingerprint(shown)
        proved = digest if examination.chain_holds or digest in examination.pins else ""
    of_server = connection.get_certificate(as_cryptography=True)
    return Secured(
        connection.get_protocol_version_name(),
        connection.get_cipher_name() or "",
        proved,
        _bindings(connection, of_server if examination.is_server else shown),
    )


def fingerprint(certificate: x509.Certificate) -> str:
    """The SHA-256 fingerprint in lower-case hex, as peers and pins are configured."""
    return certificate.fingerprint(hashes.SHA256()).hex()


def _bindings(
    connection: SSL.Connection, of_server: x509.Certificate | None
) -> Mapping[str, bytes]:
    """The channel bindings for SCRAM-SHA-256-PLUS."""
    bindings = {}
    # With TLS 1.2 the exporter binds only under an extension that we can't ask for, RFC 9266
    # section 4.2.
    if connection.get_protocol_version_name() == "TLSv1.3":
        bindings["tls-exporter"] = connection.export_keying_material(_EXPORTER, _EXPORTER_SIZE, b"")
    algorithm = of_server.signature_hash_algorithm if of_server else None
    if of_server is not None and algorithm is not None:
        # MD5 and SHA-1 give way to SHA-256, RFC 5929 section 4.1.
        name = "sha256" if algorithm.name in ("md5", "sha1") else algorithm.name
        encoded = of_server.public_bytes(serialization.Encoding.DER)
        bindings["tls-server-end-point"] = hashlib.new(name.replace("-", "_"), encoded).digest()
    return bindings


# --- files ----------------------------------------------------------------------


class _Watched(Generic[T]):
    """What was made of some files, and is made anew when one of them changes."""

    log = Logger()

    def __init__(self, paths: Sequence[Path], make: Callable[[], T]) -> None:
        self._paths = paths
        self._make = make
        self._stamps = self._look()
        self.value = make()

    def refresh(self) -> None:
        """Make `value` anew where a file changed; where that fails the old one stays."""
        stamps = self._look()
        if stamps == self._stamps:
            return
        self._stamps = stamps
        try:
            self.value = self._make()
        except TLSFault as fault:
            self.log.error("{fault}; the certificates of before stay", fault=str(fault))
        else:
            self.log.info("certificates read anew")

    def _look(self) -> Sequence[tuple[int, int, int] | None]:
        return [_stamp(path) for path in self._paths]


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino, status.st_size


def _files(pairs: Sequence[CertificatePair]) -> list[Path]:
    return [path for pair in pairs for path in (pair.certificate, pair.key)]


@dataclass(frozen=True, slots=True)
class _Loaded:
    """A certificate with its chain, and its key."""

    chain: Sequence[x509.Certificate]
    key: _Key

    @classmethod
    def of(cls, pair: CertificatePair) -> _Loaded:
        try:
            chain = x509.load_pem_x509_certificates(_read(pair.certificate))
        except ValueError:
            raise TLSFault(f"{pair.certificate}: holds no PEM certificate") from None
        try:
            key = serialization.load_pem_private_key(_read(pair.key), None)
        except TypeError:
            raise TLSFault(f"{pair.key}: is encrypted; remove its passphrase") from None
        except (ValueError, UnsupportedAlgorithm):
            raise TLSFault(f"{pair.key}: holds no PEM private key") from None
        if not isinstance(key, _Key):
            raise TLSFault(f"{pair.key}: holds a key that TLS has no use for")
        if key.public_key() != chain[0].public_key():
            raise TLSFault(f"{pair.key}: is not the key of {pair.certificate}")
        return cls(chain, key)

    def names(self) -> Sequence[str]:
        """The host names that the certificate is for, in lower case."""
        try:
            extensions = self.chain[0].extensions
            names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except (x509.ExtensionNotFound, ValueError):
            return ()
        return [name.lower() for name in names.get_values_for_type(x509.DNSName)]

    def use_in(self, context: SSL.Context) -> None:
        """Show this certificate on the context's connections."""
        leaf, *issuers = self.chain
        try:
            context.use_certificate(leaf)
            for issuer in issuers:
                context.add_extra_chain_cert(issuer)
            context.use_privatekey(self.key)
        except SSL.Error:
            raise TLSFault(
                f"a certificate for {leaf.subject.rfc4514_string()} is too weak"
            ) from None


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
    _read(path)  # OpenSSL would not say why it can't
    try:
        context.load_verify_locations(str(path))
    except SSL.Error:
        raise TLSFault(f"{path}: holds no PEM certificate") from None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise TLSFault(f"{path}: {error.strerror}") from None


def _is_address(hostname: str) -> bool:
    try:
        ip_address(hostname)
    except ValueError:
        return False
    return True


def _self_signed(folder: Path, hostname: str) -> Path:
    """The self-signed pair of this host, made where it does not exist yet."""
    path = folder / SELF_SIGNED
    if path.exists():
        return path
    try:
        # Where another process was faster, its pair serves as well.
        atomic_write(path, _new_pair(hostname), overwrite=False)
    except OSError as error:
        raise TLSFault(f"{folder}: no self-signed certificate: {error.strerror}") from None
    return path


def _new_pair(hostname: str) -> bytes:
    """A key and a certificate of its own, in PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hostname[:64])])
    alternative: x509.GeneralName = (
        x509.IPAddress(ip_address(hostname))
        if _is_address(hostname)
        else x509.DNSName(hostname.encode("idna").decode("ascii"))
    )
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))  # for peers whose clock is slow
        .not_valid_after(now + timedelta(days=SELF_SIGNED_DAYS))
        .add_extension(x509.SubjectAlternativeName([alternative]), critical=False)
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM) + key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
