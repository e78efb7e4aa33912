"""SASL mechanisms, both sides, as straight code (RFC 4422).

Secrets stay behind `ICredentials`; how challenges and responses travel (RFC 4954: base64, 334,
cancelling) is the business of the roles.  Mechanisms: EXTERNAL, SCRAM-SHA-256 and
SCRAM-SHA-256-PLUS (RFC 5802, RFC 7677; channel bindings RFC 5929, RFC 9266), CRAM-MD5
(RFC 2195), PLAIN (RFC 4616), LOGIN (draft-murchison-sasl-login).

`mechanisms` has their names and the choice among them, `server` and `client` the two sides,
`scram` the arithmetic of SCRAM, `credentials` what the server's side asks for.
"""

from mta.smtp.sasl.client import derive, respond
from mta.smtp.sasl.credentials import ICredentials, ScramKeys
from mta.smtp.sasl.mechanisms import (
    CRAM_MD5,
    EXTERNAL,
    LOGIN,
    NEEDS_TLS,
    NO_BINDINGS,
    PLAIN,
    SCRAM,
    SCRAM_PLUS,
    AuthenticationFailed,
    AuthenticationUnavailable,
    Challenge,
    Derive,
    Exchange,
    offered,
    strongest,
)
from mta.smtp.sasl.scram import (
    ITERATIONS,
    MAX_ITERATIONS,
    MIN_ITERATIONS,
    SALT_SIZE,
    own_salted_password,
    salted_password,
    scram_keys,
)
from mta.smtp.sasl.server import authenticate

__all__ = [
    "CRAM_MD5",
    "EXTERNAL",
    "ITERATIONS",
    "LOGIN",
    "MAX_ITERATIONS",
    "MIN_ITERATIONS",
    "NEEDS_TLS",
    "NO_BINDINGS",
    "PLAIN",
    "SALT_SIZE",
    "SCRAM",
    "SCRAM_PLUS",
    "AuthenticationFailed",
    "AuthenticationUnavailable",
    "Challenge",
    "Derive",
    "Exchange",
    "ICredentials",
    "ScramKeys",
    "authenticate",
    "derive",
    "offered",
    "own_salted_password",
    "respond",
    "salted_password",
    "scram_keys",
    "strongest",
]
