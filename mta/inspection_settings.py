"""The settings of lists of clients and of greylisting, as frozen values."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Address

CodeRange = tuple[int, int]  # IPv4 addresses, as numbers: the first and the last


def _codes(first: str, last: str) -> CodeRange:
    return int(IPv4Address(first)), int(IPv4Address(last))


# Spamhaus and most others; 127.0.0.1 is not one (RFC 5782 section 5).
BLOCK_CODES: tuple[CodeRange, ...] = (_codes("127.0.0.2", "127.0.0.11"),)
# 127.0.0.255 is the answer of list.dnswl.org where it was asked too much.
ALLOW_CODES: tuple[CodeRange, ...] = (
    _codes("127.0.0.2", "127.0.0.254"),
    _codes("127.0.1.0", "127.0.254.255"),
)


class ListAction(Enum):
    """The use that is made of a block list."""

    REJECT = "reject"
    JUNK = "junk"
    GREYLIST = "greylist"


@dataclass(frozen=True, slots=True)
class BlockList:
    """A list of clients in the DNS (RFC 5782).

    Only answers among its `codes` count.
    """

    zone: str
    codes: tuple[CodeRange, ...] = BLOCK_CODES
    action: ListAction = ListAction.REJECT


@dataclass(frozen=True, slots=True)
class AllowList:
    """A list of clients that are neither blocked nor greylisted."""

    zone: str
    codes: tuple[CodeRange, ...] = ALLOW_CODES


class GreylistWhen(Enum):
    """The clients that are greylisted, beside those of lists for it."""

    NEVER = "never"
    DOUBTFUL = "doubtful"
    ALWAYS = "always"


@dataclass(frozen=True, slots=True)
class Greylist:
    """Greylisting (RFC 6647).

    A client that comes back after `delay` is remembered for `keep`, each time anew.
    """

    when: GreylistWhen = GreylistWhen.NEVER
    delay: float = 300.0
    keep: float = 36 * 86_400.0
