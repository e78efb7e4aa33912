"""The verification of the signatures of one message (RFC 6376 section 6)."""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from dataclasses import replace
from typing import Any

from mta.authentication.dkim import tags
from mta.authentication.dkim.algorithms import public_key, verifies
from mta.authentication.dkim.body import BodyHasher
from mta.authentication.dkim.fields import Fields
from mta.authentication.dkim.key_record import KeyRecord
from mta.authentication.dkim.result import DKIMResult, ResultCode, Unverified
from mta.authentication.dkim.signature import MAX_SIGNATURES, Signature, described, parse
from mta.dns_answer import RecordType
from mta.interfaces import IResolver, ResolutionFailed
from mta.smtp import header

MAX_KEYS = 4  # key records of one name that are tried
CLOCK_TOLERANCE = 300  # seconds: clocks of honest hosts differ by that

_NO_KEY = "there is no key"


class Verification:
    """Verifies the signatures of one message.

    It begins with the header section, empty line and all, and the time in seconds since the epoch.
    `feed` takes the body in any pieces; meanwhile the coroutines of `lookups` get the keys.
    `check` comes last.  `feed` and `check` compute, and know no Twisted: where there is much to
    compute, they are for a thread.
    """

    def __init__(self, section: bytes, now: float) -> None:
        self._fields = Fields(section)
        places = self._fields.places(b"dkim-signature")[:MAX_SIGNATURES]
        is_cut = header.is_cut(section)
        self._signatures = [_Examined(self._fields, place, now, is_cut=is_cut) for place in places]
        open_signatures = [each.signature for each in self._signatures if each.signature]
        self._keys = {signature.key_name: _Keys() for signature in open_signatures}
        self._hasher = BodyHasher({signature.body for signature in open_signatures})

    @property
    def needs_body(self) -> bool:
        """Tell whether there is a signature for which the body counts."""
        return bool(self._keys)

    @property
    def count(self) -> int:
        """The number of signatures that `check` has to verify."""
        return sum(each.signature is not None for each in self._signatures)

    def feed(self, piece: bytes) -> None:
        """Hash the next octets of the body."""
        self._hasher.feed(piece)

    def lookups(self, resolver: IResolver) -> Sequence[Coroutine[Any, Any, None]]:
        """Coroutines that get a key each; they may run at once."""
        return [keys.look_up(resolver, name) for name, keys in self._keys.items()]

    def check(self) -> Sequence[DKIMResult]:
        """Return the result of each signature, from the top.  Once, after all of the body."""
        self._hasher.end()
        return [each.result(self._fields, self._keys, self._hasher) for each in self._signatures]

    async def results(self, resolver: IResolver) -> Sequence[DKIMResult]:
        """Get the keys, one after the other, and return what `check` does."""
        for lookup in self.lookups(resolver):
            await lookup
        return self.check()


class _Keys:
    """The key records of one name."""

    __slots__ = ("_problem", "_records")

    def __init__(self) -> None:
        self._records: list[KeyRecord] = []
        self._problem = Unverified(ResultCode.TEMPERROR, "the key was not looked up in time")

    async def look_up(self, resolver: IResolver, name: str) -> None:
        try:
            answer = await resolver.query(name, RecordType.TXT)
        except ResolutionFailed:
            self._problem = Unverified(ResultCode.TEMPERROR, "the key could not be looked up")
            return
        self._problem = Unverified(ResultCode.PERMERROR, _NO_KEY)
        for octets in answer.records:
            try:
                self._records.append(KeyRecord.parse(octets))
            except ValueError as error:
                self._problem = Unverified(ResultCode.PERMERROR, f"{_NO_KEY}: {error}")

    @property
    def records(self) -> Sequence[KeyRecord]:
        """The records to try, at least one.  Raises Unverified."""
        if not self._records:
            raise self._problem
        return self._records[:MAX_KEYS]


class _Examined:
    """One signature of a message.

    `signature` is None where it can't pass any more.
    """

    def __init__(self, fields: Fields, place: int, now: float, *, is_cut: bool) -> None:
        self._place = place
        self.signature: Signature | None = None
        self._result = DKIMResult(ResultCode.NEUTRAL)
        try:
            found = tags.parse(fields.all[place].partition(b":")[2])
        except ValueError as error:
            self._result = replace(self._result, problem=str(error))
            return
        self._result = described(found)
        try:
            if is_cut:
                raise Unverified(ResultCode.POLICY, "the header section is too long")
            signature = parse(found, self._result)
            _ensure_in_time(signature, now)
        except Unverified as unverified:
            self._note(unverified)
        else:
            self.signature = signature

    def result(self, fields: Fields, keys: dict[str, _Keys], body: BodyHasher) -> DKIMResult:
        """The result, once keys and body are known."""
        if self.signature is not None:
            try:
                self._verify(self.signature, fields, keys[self.signature.key_name], body)
                self._result = self._result.with_result(ResultCode.PASS)
            except Unverified as unverified:
                self._note(unverified)
        return self._result

    def _verify(self, signature: Signature, fields: Fields, keys: _Keys, body: BodyHasher) -> None:
        """Raise Unverified where none of the keys has made the signature."""
        records = keys.records
        if any(each.testing for each in records):
            self._result = replace(self._result, testing=True)
        limit, length = signature.body.limit, body.length(signature.body)
        if limit is not None and length < limit:
            raise Unverified(ResultCode.FAIL, "the body is shorter than it was")
        if body.digest(signature.body) != signature.body_hash:
            raise Unverified(ResultCode.FAIL, "the body was changed")
        data = fields.signed(
            signature.signed,
            fields.all[self._place],
            is_relaxed=signature.is_relaxed,
            skip=self._place,
        )
        failure: Unverified | None = None
        for record in records:
            try:
                _verify_with(record, signature, data)
                break
            except Unverified as unverified:
                failure = failure or unverified
        else:
            assert failure is not None
            raise failure
        if limit is not None and length > limit:  # whatever was added is not signed
            raise Unverified(ResultCode.POLICY, "only a part of the body is signed")

    def _note(self, unverified: Unverified) -> None:
        self._result = self._result.with_result(unverified.result, unverified.problem)


def _verify_with(record: KeyRecord, signature: Signature, data: bytes) -> None:
    """Raise Unverified where this key has not made the signature."""
    record.ensure_usable(signature.algorithm)
    if record.is_strict and signature.has_subdomain:
        raise Unverified(ResultCode.PERMERROR, "the key is not for subdomains")
    key = public_key(signature.algorithm, record.key)
    if not verifies(key, signature.signature, data):
        raise Unverified(ResultCode.FAIL, "the signature is not that of the key")


def _ensure_in_time(signature: Signature, now: float) -> None:
    """Raise Unverified where the signature has expired, or is of the future."""
    if signature.expires_at is not None and signature.expires_at < now - CLOCK_TOLERANCE:
        raise Unverified(ResultCode.FAIL, "the signature has expired")
    if signature.signed_at is not None and signature.signed_at > now + CLOCK_TOLERANCE:
        raise Unverified(ResultCode.POLICY, "the signature is of the future")
