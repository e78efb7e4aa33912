"""The packets of the milter protocol: length, command octet, data.

The length is of command and data, in 32 bits.  Text in data ends in NUL.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import NamedTuple

MAX_DATA = 65535  # octets that libmilter takes in a packet, and in a chunk of a body
MAX_PACKET = 1024 * 1024  # octets of a packet that we take: fields may be long, chunks are not

_LENGTH = struct.Struct("!I")


class FilterFailure(Exception):
    """A filter can't be asked, or makes no sense.

    The text has the reason.

    `is_in_step`: it can be asked about the next message all the same.
    """

    def __init__(self, reason: str, *, is_in_step: bool = False) -> None:
        super().__init__(reason)
        self.is_in_step = is_in_step


class Packet(NamedTuple):
    """One packet: a command, which is one octet, and its data."""

    command: bytes
    data: bytes = b""


def encode(command: bytes, data: bytes = b"") -> bytes:
    """Return a packet as octets."""
    return _LENGTH.pack(1 + len(data)) + command + data


def text(*strings: bytes) -> bytes:
    """Return strings as data, each with its NUL.  NULs in them are left out."""
    return b"".join(each.replace(b"\0", b"") + b"\0" for each in strings)


def macros(command: bytes, values: Iterable[tuple[str, str]]) -> bytes:
    """Return the packet that defines macros for a command, if any."""
    strings = [each.encode("utf-8", "replace") for pair in values for each in pair]
    return encode(b"D", command + text(*strings)) if strings else b""


def strings_of(data: bytes) -> list[bytes]:
    """Take data apart into its strings.  Raises FilterFailure where the last one has no end."""
    if not data.endswith(b"\0"):
        raise FilterFailure("text without an end")
    return data[:-1].split(b"\0")


def number_of(data: bytes) -> tuple[int, bytes]:
    """Take a number of 32 bits off the data.  Raises FilterFailure where there is none."""
    if len(data) < _LENGTH.size:
        raise FilterFailure("a packet that is too short")
    (number,) = _LENGTH.unpack_from(data)
    return number, data[_LENGTH.size :]


class PacketReader:
    """Cuts octets into packets.  They may come in any pieces."""

    __slots__ = ("_octets",)

    def __init__(self) -> None:
        self._octets = bytearray()

    def feed(self, octets: bytes) -> list[Packet]:
        """Return the packets that are complete now.

        Raises FilterFailure where one has no command, or is too long.
        """
        buffer, packets, start = self._octets, [], 0
        buffer += octets
        while len(buffer) - start >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(buffer, start)
            if not 0 < length <= MAX_PACKET:
                raise FilterFailure(f"a packet of {length} octets")
            begin = start + _LENGTH.size
            end = begin + length
            if len(buffer) < end:
                break
            packets.append(Packet(bytes(buffer[begin : begin + 1]), bytes(buffer[begin + 1 : end])))
            start = end
        del buffer[:start]
        return packets
