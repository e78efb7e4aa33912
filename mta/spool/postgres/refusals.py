"""The reasons of a database to refuse us, and what to do.

Each is one line.  For most of these errors libpq has no code, only words.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MAX_WORDS = 300  # of a message of the database's: a line for the operator

_LOG_IN = "write it to .pgpass of the server's user (mode 0600), or the file that PGPASSFILE names"
_ACCESS = "let its pg_hba.conf allow it; where that wants TLS, add sslmode=require to the URL"
_DATABASE = "make it: CREATE DATABASE ... OWNER ... ENCODING 'UTF8' TEMPLATE template0"
_CONNECTIONS = "let it take more (max_connections): each process of a node has six"

# By words in the message.  These are reasons that time does not mend.
_LASTING = (
    (r"password authentication failed", f"is the password right? {_LOG_IN}"),
    (r"no password supplied", _LOG_IN),
    (r"database .* does not exist", _DATABASE),
    (r"role .* does not exist", "make it: CREATE ROLE ... LOGIN"),
    (r"not permitted to log in", "ALTER ROLE ... LOGIN lets it"),
    (r"permission denied for database", "GRANT CONNECT lets it"),
    (r"no pg_hba\.conf entry|authentication failed for user", _ACCESS),
    (r"does not support SSL", "let it (ssl = on), or take sslmode from the URL"),
    (
        r"certificate verify failed|root certificate file",
        "name the file with the certificate of its authority, by sslrootcert in the URL",
    ),
    (r"does not match host name", "name the host in the URL as its certificate does"),
)
_PASSING = (
    (r"too many (?:clients|connections)|connection slots are reserved", _CONNECTIONS),
    (r"resolve host|translate host name", "is the host in the URL right?"),
    (r"session is read-only", "none of its hosts takes changes: is a standby to be promoted?"),
)


@dataclass(frozen=True, slots=True)
class Reason:
    """The reason why a connection failed.  `is_lasting`: time does not mend it."""

    text: str
    is_lasting: bool


def reason(error: Exception) -> Reason:
    """The reason that an error gives, with what to do about it."""
    text = words(error)
    for remedies in (_LASTING, _PASSING):
        for pattern, remedy in remedies:
            if re.search(pattern, text):
                return Reason(f"{text}: {remedy}", remedies is _LASTING)
    return Reason(text, False)


def words(error: Exception) -> str:
    """The message of an error, in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines)[:MAX_WORDS] or type(error).__name__


def no_address(url: str, error: Exception) -> str:
    """The words for a URL that can't be read, without its password."""
    text = words(error)
    if "@" in url or "password" in url:
        text = re.sub(r'".*"', "...", text)
    return f"spool: {text}: write other characters than letters and digits as %XX"


def misread(named: Mapping[str, Any]) -> str:
    """The words for a URL that its password cuts, or empty."""
    places = [str(named.get(name) or "") for name in ("host", "port", "dbname")]
    if any("@" in place for place in places) or re.search(r"[^0-9,]", places[1]):
        return (
            "spool: its host or port is none: write @, : and / in a password as %40, %3A and %2F,"
            " or the password to .pgpass"
        )
    return ""
