"""The making of signatures: DKIM-Signature fields (RFC 6376 sections 3.5 and 5)."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from mta.authentication.dkim.algorithms import PrivateKey, algorithm_of, sign
from mta.authentication.dkim.body import BodyForm
from mta.authentication.dkim.fields import Fields
from mta.mail import canonical_domain

SIGNED_BODY = BodyForm(relaxed=True)  # the form whose hash `signature_fields` takes

MAX_FIELDS = 100  # of one name: verifiers bound h= as well
MAX_LINE = 70  # columns, each tab counted as one: within the 78 of RFC 5322 section 2.1.1

# RFC 6376 section 5.4.1, and what mail programs show or go by.  Each is signed as often as it is
# there, and once more: another one that is put on top would be shown in place of ours.
_SEALED = (
    b"from",
    b"to",
    b"cc",
    b"subject",
    b"date",
    b"message-id",
    b"reply-to",
)
# Sealed where they are there: mailing lists and gateways rightly add those that are not.
_SEALED_IF_PRESENT = (
    b"sender",
    b"in-reply-to",
    b"references",
    b"mime-version",
    b"content-type",
    b"content-transfer-encoding",
    b"autocrypt",
)
# As often as they are there: programs that send a message on add more of them.
_SIGNED = (
    b"resent-from",
    b"resent-sender",
    b"resent-to",
    b"resent-cc",
    b"resent-date",
    b"resent-message-id",
    b"list-id",
    b"list-help",
    b"list-unsubscribe",
    b"list-unsubscribe-post",
    b"list-subscribe",
    b"list-post",
    b"list-owner",
    b"list-archive",
)


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key of a domain, and the selector of its record."""

    domain: str
    selector: str
    key: PrivateKey = field(repr=False)


def signature_fields(
    section: bytes, body_hash: bytes, keys: Sequence[SigningKey], now: float, lifetime: float = 0
) -> bytes:
    """The fields that sign a message, one for each key.

    They go on top.  `body_hash` is that of the body in the form `SIGNED_BODY`; `now` in seconds
    since the epoch.  With a `lifetime`, in seconds, the signatures expire.
    """
    fields = Fields(section)
    names = tuple(_signed_names(fields))
    times = [b"t=%d;" % now] + ([b"x=%d;" % (now + lifetime)] if lifetime else [])
    return b"".join(_signature(fields, names, body_hash, key, times) for key in keys)


def _signed_names(fields: Fields) -> Iterator[bytes]:
    """The names for ``h=``."""
    for name in _SEALED:
        yield from [name] * min(fields.count(name) + 1, MAX_FIELDS)
    for name in _SEALED_IF_PRESENT:
        if count := fields.count(name):
            yield from [name] * min(count + 1, MAX_FIELDS)
    for name in _SIGNED:
        yield from [name] * min(fields.count(name), MAX_FIELDS)


def _signature(
    fields: Fields,
    names: Sequence[bytes],
    body_hash: bytes,
    key: SigningKey,
    times: Sequence[bytes],
) -> bytes:
    words = [
        b" v=1;",
        b" a=%s;" % algorithm_of(key.key).value.encode(),
        b" c=relaxed/relaxed;",
        b" d=%s;" % canonical_domain(key.domain).encode(),
        b" s=%s;" % canonical_domain(key.selector).encode(),
        *(b" " + time for time in times),
        b" h=" + names[0] + b":",
        *(name + b":" for name in names[1:-1]),
        names[-1] + b";",
        b" bh=%s;" % b64encode(body_hash),
    ]
    unsigned = _folded(b"DKIM-Signature:", words) + b"\r\n\tb="
    data = fields.signed(names, unsigned, is_relaxed=True)
    signature = b64encode(sign(key.key, data))
    *lines, last = unsigned.split(b"\r\n")
    portions = (signature[start : start + 4] for start in range(0, len(signature), 4))
    return b"\r\n".join([*lines, _folded(last, portions)]) + b"\r\n"


def _folded(line: bytes, words: Iterator[bytes] | Sequence[bytes]) -> bytes:
    """The words behind the line, folded, without the last line end."""
    lines = []
    for word in words:
        if len(line) + len(word) > MAX_LINE:
            lines.append(line)
            line = b"\t" + word.lstrip(b" ")
        else:
            line += word
    return b"\r\n".join([*lines, line])
