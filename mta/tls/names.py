"""The hosts that a certificate is for (RFC 6125).

They are named as in the DNS: other letters than ASCII in A-labels, by IDNA 2008.
"""

from __future__ import annotations

from collections.abc import Sequence

from cryptography import x509
from service_identity import CertificateError, VerificationError
from service_identity.cryptography import (
    verify_certificate_hostname,
    verify_certificate_ip_address,
)

from mta.mail import canonical_domain, is_address


def name_of(host: str) -> str:
    """A host as certificates and SNI name it.

    That is an address, or A-labels without a dot at the end.
    """
    return canonical_domain(host.rstrip("."))


def is_for(certificate: x509.Certificate, host: str) -> bool:
    """Tell whether the certificate is for a host, named as by `name_of`."""
    try:
        if is_address(host):
            verify_certificate_ip_address(certificate, host)
        else:
            verify_certificate_hostname(certificate, host)
    except (VerificationError, CertificateError, ValueError):
        return False
    return True


def names_in(certificate: x509.Certificate) -> Sequence[str]:
    """The host names and addresses of a certificate, in lower case."""
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except (x509.ExtensionNotFound, ValueError):
        return ()
    names = extension.value.get_values_for_type(x509.DNSName)
    addresses = extension.value.get_values_for_type(x509.IPAddress)
    return [name.lower() for name in names] + [str(address) for address in addresses]
