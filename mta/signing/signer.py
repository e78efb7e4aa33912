"""The signing of a message, as it leaves for a next hop."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from mta.authentication.dkim import (
    SIGNED_BODY,
    BodyHasher,
    SigningKey,
    signature_fields,
    signing_domains,
)
from mta.authentication.dmarc.author import author_domains
from mta.interfaces import ISigner, SigningFailed
from mta.mail import Body, Reply
from mta.queued import Delivery, IContent
from mta.signing.key_ring import KeyRing
from mta.signing.origins import Claim, Origins, was_forwarded
from mta.signing.shared_results import SharedResults
from mta.smtp import header
from mta.smtp.topped import ToppedContent

MAX_REMEMBERED = 1000  # messages, with about a KiB of fields each: for those that go to many hops
MAX_AGE = 600.0  # seconds: the signature of a later attempt tells the time of that
MAX_AT_ONCE = 256 * 1024  # octets: up to this, all of a body is hashed and signed in one go

UNSIGNABLE = Reply(550, "5.7.5", ("The header section is too long to be signed",))

_Key = tuple[str, Body | None, str]


@implementer(ISigner)
class Signer:
    """Signs the mail of our domains by DKIM.

    The body is hashed in a thread, once for each form in which a message leaves.
    `in_thread` runs what computes for long; `now` gives seconds since the epoch.  Signatures expire
    after `lifetime` seconds, unless that is 0.
    """

    def __init__(
        self,
        origins: Origins,
        keys: KeyRing,
        in_thread: Callable[..., Deferred[Any]],
        clock: IReactorTime,
        now: Callable[[], float],
        lifetime: float = 0.0,
    ) -> None:
        self._origins = origins
        self._keys = keys
        self._in_thread = in_thread
        self._now = now
        self._lifetime = lifetime
        self._signatures: SharedResults[_Key, bytes] = SharedResults(clock, MAX_REMEMBERED, MAX_AGE)

    async def signed(
        self, delivery: Delivery, content: IContent, conversion: Body | None
    ) -> IContent:
        """See `ISigner.signed`."""
        claim = self._origins.claim(delivery)
        if claim is Claim.NONE:
            return content
        section = await content.header()
        authors = author_domains(section)
        domain = next(filter(None, map(self._keys.covering, authors.domains)), "")
        is_cut = header.is_cut(section)
        if not domain and (authors.fields or not is_cut):
            return content  # none of the authors has a domain with keys
        if claim is Claim.HANDED_IN and (
            was_forwarded(section) or domain in signing_domains(section)
        ):
            return content
        if is_cut:
            raise SigningFailed(UNSIGNABLE)
        fields = await self._signatures.get(
            (delivery.message.id, conversion, domain), partial(self._sign, section, content, domain)
        )
        return ToppedContent(fields, content)

    async def _sign(self, section: bytes, content: IContent, domain: str) -> bytes:
        """The signatures of one form of a message.  Raises SigningFailed or OSError."""
        keys = await self._keys.of(domain)
        hasher = BodyHasher([SIGNED_BODY])
        pieces: list[bytes] = []
        async for piece in content.body():
            if content.size <= MAX_AT_ONCE:
                pieces.append(piece)
            else:
                await self._in_thread(hasher.feed, piece)
        times = math.floor(self._now()), self._lifetime
        fields: bytes = await self._in_thread(_sign, section, hasher, pieces, keys, times)
        return fields


def _sign(
    section: bytes,
    hasher: BodyHasher,
    pieces: Sequence[bytes],
    keys: Sequence[SigningKey],
    times: tuple[float, float],
) -> bytes:
    """Hash what is left of a body, and make the fields."""
    for piece in pieces:
        hasher.feed(piece)
    hasher.end()
    return signature_fields(section, hasher.digest(SIGNED_BODY), keys, *times)
