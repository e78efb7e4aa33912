"""Verification of certificates in a handshake, and the reasons for failures."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from OpenSSL import SSL
from OpenSSL.crypto import X509
from twisted.internet.interfaces import (
    IOpenSSLClientConnectionCreator,
    ISSLTransport,
    ITLSTransport,
)
from twisted.python.failure import Failure
from zope.interface import implementer

from mta.interfaces import ITLSContext
from mta.mail import is_address
from mta.session import TLSInfo
from mta.tls.names import is_for, name_of, names_in

# `mta check` begins at once: the rest of TLS comes with the reactor.
if TYPE_CHECKING:
    from twisted.protocols.tls import TLSMemoryBIOProtocol

_EXPORTER = b"EXPORTER-Channel-Binding"  # RFC 9266 section 2
_EXPORTER_SIZE = 32  # octets, RFC 9266 section 2

# Numbers of OpenSSL's x509_vfy.h.
_NOT_YET_VALID, _EXPIRED, _SELF_SIGNED = 9, 10, 18
_UNKNOWN_ISSUERS = (19, 20, 21)

_NO_TLS = "it does not speak TLS there: a port that begins without TLS is for smtp://, not smtps://"
_NO_VERSION = "it has no version of TLS in common with us: ours are 1.2 and 1.3"
_NO_CIPHER = "it has no cipher in common with us"
_OURS_REFUSED = "it does not take our certificate"
# By what OpenSSL calls it.
_HANDSHAKE_FAILURES = {
    "wrong version number": _NO_TLS,
    "packet length too long": _NO_TLS,
    "http request": _NO_TLS,
    "record layer failure": _NO_TLS,
    "unsupported protocol": _NO_VERSION,
    "no protocols available": _NO_VERSION,
    "tlsv1 alert protocol version": _NO_VERSION,
    "no shared cipher": _NO_CIPHER,
    "sslv3 alert handshake failure": _NO_CIPHER,
    "ssl/tls alert handshake failure": _NO_CIPHER,
    "tlsv1 alert unknown ca": _OURS_REFUSED,
    "sslv3 alert bad certificate": _OURS_REFUSED,
    "ssl/tls alert bad certificate": _OURS_REFUSED,
    "tlsv13 alert certificate required": "it wants a certificate of ours",
}


class CertificateRefused(Exception):
    """The server's certificate is not as we demand: one line.  Ends the connection."""


class HandshakeError(SSL.Error):
    """A failed handshake, in words for the operator."""

    def __str__(self) -> str:
        reasons = [reason for _, _, reason in self.args[0]]
        return next(
            (_HANDSHAKE_FAILURES[reason] for reason in reasons if reason in _HANDSHAKE_FAILURES),
            "; ".join(reasons),
        )


@dataclass(slots=True)
class PeerVerification:
    """The verification of the peer's certificate on one connection.

    `chain_holds` is None until OpenSSL has verified the peer's own certificate.  `context` is kept
    because OpenSSL may call into it after another was chosen by SNI.
    """

    is_server: bool
    context: SSL.Context
    pins: Collection[str] = ()
    chain_holds: bool | None = None

    def note(self, _: SSL.Connection, __: X509, ___: int, depth: int, holds: int) -> bool:
        """OpenSSL calls this for each certificate of a client's chain.

        A bad one does not end the handshake: no client has to show one.  It only proves nothing.
        """
        if not holds:
            self.chain_holds = False
        elif depth == 0 and self.chain_holds is None:
            self.chain_holds = True
        return True


class Connection(SSL.Connection):
    """A connection with its verification: Twisted uses pyOpenSSL's place for data."""

    def __init__(self, verification: PeerVerification) -> None:
        super().__init__(verification.context)
        self.verification = verification

    def do_handshake(self) -> None:
        """Twisted calls this until the handshake is over.  Raises HandshakeError."""
        try:
            super().do_handshake()
        except SSL.Error as error:
            if type(error) is SSL.Error and error.args and error.args[0]:
                raise HandshakeError(*error.args) from None
            raise


@implementer(ITLSContext, IOpenSSLClientConnectionCreator)
class ClientTLSContext:
    """Our demands on one server; made by `ClientTLS.for_host`.

    Where they are `strict`, a certificate that does not meet them ends the connection, with
    CertificateRefused as the reason; else it only proves nothing.
    """

    def __init__(self, context: SSL.Context, hostname: str, *, strict: bool, pin: str = "") -> None:
        self._context = context
        self._hostname = name_of(hostname)
        self._strict = strict
        self._pin = pin

    def start(self, transport: ITLSTransport) -> None:
        """See `ITLSContext.start`."""
        transport.startTLS(self)

    def info(self, transport: ISSLTransport) -> TLSInfo:
        """See `ITLSContext.info`."""
        return tls_info(transport)

    def clientConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        """Twisted calls this for each connection."""
        verification = PeerVerification(False, self._context)
        connection = Connection(verification)
        if not is_address(self._hostname) and self._hostname.isascii():
            connection.set_tlsext_host_name(self._hostname.encode("ascii"))
        connection.set_verify(SSL.VERIFY_PEER, self._verifier(verification, tlsProtocol))
        return connection

    def _verifier(
        self, verification: PeerVerification, tlsProtocol: TLSMemoryBIOProtocol
    ) -> Callable[[SSL.Connection, X509, int, int, int], bool]:
        """The callback of OpenSSL for each certificate of the server's chain.

        Where it raises, pyOpenSSL refuses the certificate.
        """

        def verify(
            connection: SSL.Connection, shown: X509, error: int, depth: int, holds: int
        ) -> bool:
            certificate = shown.to_cryptography()
            objection = self._objection(certificate, error if not holds else 0, depth)
            if objection and self._strict:
                reason = CertificateRefused(f"the certificate of {self._hostname}: {objection}")
                tlsProtocol.failVerification(Failure(reason))
                return False
            if objection:
                verification.chain_holds = False
            elif depth == 0 and verification.chain_holds is None:
                verification.chain_holds = True
            return True

        return verify

    def _objection(self, certificate: x509.Certificate, error: int, depth: int) -> str:
        if self._pin:
            fits = depth > 0 or fingerprint(certificate) == self._pin
            return "" if fits else f"it is not the one that is pinned, but {_shown(certificate)}"
        if error:
            return _reason(certificate, error)
        if depth == 0 and not is_for(certificate, self._hostname):
            return f"it is for {', '.join(names_in(certificate)) or 'no host at all'}"
        return ""


def _reason(certificate: x509.Certificate, error: int) -> str:
    """The reason why OpenSSL does not accept a certificate."""
    if error == _EXPIRED:
        return f"it has expired on {certificate.not_valid_after_utc:%Y-%m-%d}"
    if error == _NOT_YET_VALID:
        return f"it is not valid yet, but from {certificate.not_valid_before_utc:%Y-%m-%d} on"
    if error == _SELF_SIGNED:
        return (
            "it is self-signed; if that host is yours, compare its fingerprint there and write"
            f" `pin: {_shown(certificate)}`"
        )
    if error in _UNKNOWN_ISSUERS:
        return "its issuer is not known (`tls.ca` has those that we trust)"
    return f"it can't be verified (OpenSSL error {error})"


def _shown(certificate: x509.Certificate) -> str:
    return f"sha256:{fingerprint(certificate)}"


def fingerprint(certificate: x509.Certificate) -> str:
    """The SHA-256 fingerprint in lower-case hex, as peers and pins are configured."""
    return certificate.fingerprint(hashes.SHA256()).hex()


def tls_info(transport: ISSLTransport) -> TLSInfo:
    """The result of the finished handshake on a connection of ours."""
    connection = transport.getHandle()  # type: ignore[attr-defined]
    assert isinstance(connection, Connection)
    verification = connection.verification
    shown = connection.get_peer_certificate(as_cryptography=True)
    proved, digest, end = "", "", 0.0
    if shown is not None:
        digest = fingerprint(shown)
        end = shown.not_valid_after_utc.timestamp()
        proved = digest if verification.chain_holds or digest in verification.pins else ""
    of_server = connection.get_certificate(as_cryptography=True)
    return TLSInfo(
        connection.get_protocol_version_name(),
        connection.get_cipher_name() or "",
        proved,
        digest,
        end,
        _bindings(connection, of_server if verification.is_server else shown),
        connection.get_cipher_bits() or 0,
    )


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
