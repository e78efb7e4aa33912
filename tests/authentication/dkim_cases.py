"""Keys, a DNS and examples for tests of DKIM."""

from __future__ import annotations

import base64
from collections.abc import Sequence

from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from mta.authentication.dkim import (
    SIGNED_BODY,
    BodyHasher,
    DKIMResult,
    PrivateKey,
    SigningKey,
    Verification,
    signature_fields,
)
from mta.dns_answer import Answer, RecordType
from mta.interfaces import IResolver
from mta.smtp import header
from mta.testing import FakeResolver

NOW = 1_780_000_000.0
RSA_KEY = rsa.generate_private_key(65537, 2048)
ED25519_KEY = ed25519.Ed25519PrivateKey.generate()
RSA = SigningKey("example.com", "rsa", RSA_KEY)
ED25519 = SigningKey("example.com", "ed", ED25519_KEY)


def public_octets(key: PrivateKey) -> bytes:
    """The octets of a public key, for ``p=``."""
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def record(key: PrivateKey, tags: bytes = b"") -> bytes:
    """The key record of a key, with further tags before ``p=``."""
    kind = b"" if isinstance(key, rsa.RSAPrivateKey) else b"k=ed25519; "
    return b"v=DKIM1; " + kind + tags + b"p=" + base64.b64encode(public_octets(key))


def resolver(**texts: bytes | Sequence[bytes]) -> FakeResolver:
    """A DNS in which selectors of example.com have these key records."""
    made = FakeResolver({}, {})
    for selector, text in {"rsa": record(RSA_KEY), "ed": record(ED25519_KEY), **texts}.items():
        records = (text,) if isinstance(text, bytes) else tuple(text)
        made.answers[f"{selector}._domainkey.example.com", RecordType.TXT] = Answer(records)
    return made


def signed(content: bytes, *keys: SigningKey, now: float = NOW, lifetime: float = 0) -> bytes:
    """The content with a signature on top for each key."""
    section, body = header.split(content)
    hasher = BodyHasher([SIGNED_BODY])
    hasher.feed(body)
    hasher.end()
    digest = hasher.digest(SIGNED_BODY)
    return signature_fields(section, digest, keys, now, lifetime) + content


class DKIMCase(SynchronousTestCase):
    """A test that verifies messages."""

    def verify(
        self,
        content: bytes,
        dns: IResolver | None = None,
        *,
        now: float = NOW,
        cuts: Sequence[int] = (),
    ) -> Sequence[DKIMResult]:
        """The results of a message, whose body is cut at these places."""
        section, body = header.split(content)
        verification = Verification(section, now)
        for start, end in zip([0, *cuts], [*cuts, len(body)], strict=True):
            verification.feed(body[start:end])
        return self.successResultOf(Deferred.fromCoroutine(verification.results(dns or resolver())))

    def words(self, content: bytes, dns: IResolver | None = None, **options: float) -> list[str]:
        """The words of the results."""
        return [each.result.value for each in self.verify(content, dns, **options)]
