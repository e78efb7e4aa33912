"""Certificates for tests: an authority that issues them, in a folder of the test."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from mta.settings import CertificatePair

PEM = serialization.Encoding.PEM


class Authority:
    """A certificate authority; `path` is its own certificate in PEM."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.certificate = self._sign(
            self._name, self._key, x509.BasicConstraints(ca=True, path_length=None)
        )
        self.path = folder / f"{name}.pem"
        self.path.write_bytes(self.certificate.public_bytes(PEM))

    def issue(
        self, *names: str, file: str = "", days: int = 30, after: int = -100, is_rsa: bool = False
    ) -> CertificatePair:
        """A certificate for these host names or addresses, and its key; a negative number of
        `days`: it has expired so long ago.  It is valid `after` so many days."""
        key = (
            rsa.generate_private_key(65537, 2048)
            if is_rsa
            else ec.generate_private_key(ec.SECP256R1())
        )
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
        alternatives = x509.SubjectAlternativeName([_general_name(name) for name in names])
        certificate = self._sign(subject, key, alternatives, days, after)
        stem = file or names[0].replace("*", "any").replace(":", "-")
        pair = CertificatePair(self._folder / f"{stem}.crt", self._folder / f"{stem}.key")
        pair.certificate.write_bytes(certificate.public_bytes(PEM))
        pair.key.write_bytes(
            key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        )
        return pair

    def _sign(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey,
        extension: x509.ExtensionType,
        days: int = 30,
        after: int = -100,
    ) -> x509.Certificate:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + timedelta(days=after))
            .not_valid_after(now + timedelta(days=days))
            .add_extension(extension, critical=False)
            .sign(self._key, hashes.SHA256())
        )


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def fingerprint_of(pair: CertificatePair) -> str:
    """The SHA-256 fingerprint of a pair's certificate, in lower-case hex."""
    certificate = x509.load_pem_x509_certificates(pair.certificate.read_bytes())[0]
    return certificate.fingerprint(hashes.SHA256()).hex()
