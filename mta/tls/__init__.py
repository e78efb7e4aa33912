"""TLS: our certificates, and our demands on those of others.

`ServerTLS` and the result of `ClientTLS.for_host` are an `ITLSContext` each; Twisted's own
wrappers take them too.  TLS 1.2 and 1.3, forward secrecy, no session resumption: so that a
certificate is verified on every connection.

`context` has both sides, `verify` the verification of certificates, `names` the names in them;
`files` reads them, `selfsigned` makes one.
"""

from mta.tls.context import ClientTLS, ServerTLS
from mta.tls.files import TLSFault, TLSUnreadable
from mta.tls.verify import CertificateRefused, tls_info

__all__ = ["CertificateRefused", "ClientTLS", "ServerTLS", "TLSFault", "TLSUnreadable", "tls_info"]
