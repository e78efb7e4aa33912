"""Bech32, the text form of keys (BIP 173), of any length."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

_ALPHABET = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_GENERATOR = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
_CHECKSUM = 6  # symbols


def encoded(prefix: str, octets: bytes) -> str:
    """Octets as text, all in lower case."""
    data = [*_regrouped(octets, 8, 5)]
    if rest := len(octets) * 8 % 5:  # the last bits, with zeros behind them
        data.append((octets[-1] << (5 - rest)) & 31)
    remainder = _polymod([*_expanded(prefix), *data, *([0] * _CHECKSUM)]) ^ 1
    checksum = [remainder >> 5 * (_CHECKSUM - 1 - place) & 31 for place in range(_CHECKSUM)]
    return prefix + "1" + "".join(_ALPHABET[symbol] for symbol in [*data, *checksum])


def decoded(prefix: str, text: str) -> bytes:
    """The octets of a text with that prefix, in one case.  Raises ValueError."""
    if text not in (text.lower(), text.upper()):
        raise ValueError("it mixes upper and lower case")
    found, _, symbols = text.lower().rpartition("1")
    if found != prefix or len(symbols) < _CHECKSUM:
        raise ValueError(f"it does not begin with {prefix}1")
    data = [_ALPHABET.find(symbol) for symbol in symbols]
    if -1 in data or _polymod([*_expanded(prefix), *data]) != 1:
        raise ValueError("its checksum is wrong")
    data = data[:-_CHECKSUM]
    rest = len(data) * 5 % 8
    if rest >= 5 or (rest and data[-1] & ((1 << rest) - 1)):
        raise ValueError("its padding is wrong")
    return bytes(_regrouped(data, 5, 8))


def _regrouped(values: Iterable[int], width: int, wanted: int) -> Iterable[int]:
    """The whole groups of so many bits."""
    bits = count = 0
    for value in values:
        bits, count = (bits << width | value) & 0xFFFF, count + width
        while count >= wanted:
            count -= wanted
            yield bits >> count & ((1 << wanted) - 1)


def _expanded(prefix: str) -> list[int]:
    octets = prefix.encode()
    return [*(octet >> 5 for octet in octets), 0, *(octet & 31 for octet in octets)]


def _polymod(values: Sequence[int]) -> int:
    remainder = 1
    for value in values:
        top = remainder >> 25
        remainder = (remainder & 0x1FFFFFF) << 5 ^ value
        for place, factor in enumerate(_GENERATOR):
            if top >> place & 1:
                remainder ^= factor
    return remainder
