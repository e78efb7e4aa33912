"""DomainKeys Identified Mail: signatures of domains on messages.

RFC 6376, with RFC 8301 (algorithms), RFC 8463 (Ed25519) and RFC 8616 (internationalised names).
"""

from mta.authentication.dkim.algorithms import Algorithm, PrivateKey
from mta.authentication.dkim.body import BodyForm, BodyHasher
from mta.authentication.dkim.key_record import KeyRecord
from mta.authentication.dkim.result import DKIMResult, ResultCode
from mta.authentication.dkim.signature import signing_domains
from mta.authentication.dkim.signing import SIGNED_BODY, SigningKey, signature_fields
from mta.authentication.dkim.verification import Verification

__all__ = [
    "SIGNED_BODY",
    "Algorithm",
    "BodyForm",
    "BodyHasher",
    "DKIMResult",
    "KeyRecord",
    "PrivateKey",
    "ResultCode",
    "SigningKey",
    "Verification",
    "signature_fields",
    "signing_domains",
]
