"""A self-signed certificate for a host that has no other."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from mta.files import atomic_write
from mta.mail import is_address
from mta.settings import CertificatePair
from mta.tls.files import TLSFault
from mta.tls.names import name_of

FILE = "self-signed.pem"  # certificate and key, in the spool folder
VALID_DAYS = 3650
MAX_COMMON_NAME = 64  # characters, RFC 5280 appendix A.1


def self_signed(folder: Path, hostname: str) -> CertificatePair:
    """Return the self-signed pair in a folder, or make it.  Raises TLSFault."""
    path = folder / FILE
    if not path.exists():
        try:
            # Where another process was faster, its pair serves as well.
            atomic_write(path, _new_pair(name_of(hostname)), 0o600, overwrite=False)
        except OSError as error:
            raise TLSFault(f"{folder}: no self-signed certificate: {error.strerror}") from None
    return CertificatePair(path, path)


def _new_pair(hostname: str) -> bytes:
    """A key and a certificate of its own, in PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hostname[:MAX_COMMON_NAME])])
    alternative: x509.GeneralName = (
        x509.IPAddress(ip_address(hostname)) if is_address(hostname) else x509.DNSName(hostname)
    )
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))  # for peers whose clock is slow
        .not_valid_after(now + timedelta(days=VALID_DAYS))
        .add_extension(x509.SubjectAlternativeName([alternative]), critical=False)
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM) + key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
