"""Arrays in the server's binary form, cheaper to write than lists."""

from __future__ import annotations

import struct
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import psycopg
from psycopg.adapt import Buffer, Dumper
from psycopg.pq import Format

_BYTEA, _BYTEA_ARRAY = 17, 1001  # the numbers of these types
_BIGINT, _BIGINT_ARRAY = 20, 1016
_HEAD = struct.Struct("!iiIii")  # dimensions, whether there are NULLs, type, length, first place
_WIDTH = struct.pack("!i", 8)  # octets of a bigint


@dataclass(frozen=True, slots=True)
class Octets:
    """An array of octet strings."""

    values: Sequence[bytes]


@dataclass(frozen=True, slots=True)
class Numbers:
    """An array of bigint, for ids of messages."""

    values: Collection[int]


class _OctetsDumper(Dumper):
    """Writes octet strings."""

    format = Format.BINARY
    oid = _BYTEA_ARRAY

    def dump(self, obj: Octets) -> Buffer:
        """See `Dumper.dump`."""
        parts = [_HEAD.pack(1, 0, _BYTEA, len(obj.values), 1)]
        for value in obj.values:
            parts += struct.pack("!i", len(value)), value
        return b"".join(parts)


class _NumbersDumper(Dumper):
    """Writes numbers."""

    format = Format.BINARY
    oid = _BIGINT_ARRAY

    def dump(self, obj: Numbers) -> Buffer:
        """See `Dumper.dump`."""
        count = len(obj.values)
        numbers = struct.pack(f"!{count}q", *obj.values)
        parts = [_WIDTH + numbers[at : at + 8] for at in range(0, len(numbers), 8)]
        return _HEAD.pack(1, 0, _BIGINT, count, 1) + b"".join(parts)


psycopg.adapters.register_dumper(Octets, _OctetsDumper)
psycopg.adapters.register_dumper(Numbers, _NumbersDumper)
