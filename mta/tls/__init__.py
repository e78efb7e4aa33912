"""TLS: our certificates, and what we demand of those of others.

`ServerTLS` and what `ClientTLS.for_host` returns begin TLS on a connection and tell what the
handshake proved (`mta.link.TLSContext`); Twisted's own wrappers take them too.  TLS 1.2 and 1.3,
forward secrecy, no session resumption: so that a certificate is verified on every connection.
"""

from mta.tls.context import ClientTLS, ServerTLS
from mta.tls.files import TLSFault
from mta.tls.verify import CertificateRefused, tls_info

__all__ = ["CertificateRefused", "ClientTLS", "ServerTLS", "TLSFault", "tls_info"]
