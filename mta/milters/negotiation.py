"""The first exchange: the actions and the wishes of a filter.

Both sides speak in bits.  A filter takes some of those that are offered to it.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum, IntFlag

from mta.milters import packets
from mta.milters.packets import FilterFailure, Packet

NEGOTIATE = b"O"
VERSION = 6  # rspamd takes no lower one
MIN_VERSION = 2  # below it, actions had other bits
MAX_MACRO_LIST = 100  # names that a filter may ask for at one stage


class Action(IntFlag):
    """The changes that a filter may make."""

    ADD_FIELDS = 0x01
    CHANGE_BODY = 0x02
    ADD_RECIPIENTS = 0x04
    REMOVE_RECIPIENTS = 0x08
    CHANGE_FIELDS = 0x10
    QUARANTINE = 0x20
    CHANGE_SENDER = 0x40
    ADD_RECIPIENTS_WITH_PARAMETERS = 0x80
    CHOOSE_MACROS = 0x100


ACTIONS = Action(0x1FF)


class Wish(IntFlag):
    """The wishes of a filter: what not to tell, and no answers."""

    NO_CONNECT = 0x01
    NO_HELLO = 0x02
    NO_MAIL = 0x04
    NO_RECIPIENT = 0x08
    NO_BODY = 0x10
    NO_FIELDS = 0x20
    NO_END_OF_HEADER = 0x40
    MUTE_FIELDS = 0x80
    NO_UNKNOWN = 0x100
    NO_DATA = 0x200
    SKIP = 0x400  # it may say that it wants no more of a kind
    REFUSED_RECIPIENTS = 0x800  # it wants to hear of these, too
    MUTE_CONNECT = 0x1000
    MUTE_HELLO = 0x2000
    MUTE_MAIL = 0x4000
    MUTE_RECIPIENT = 0x8000
    MUTE_DATA = 0x10000
    MUTE_UNKNOWN = 0x20000
    MUTE_END_OF_HEADER = 0x40000
    MUTE_BODY = 0x80000
    LEADING_SPACE = 0x100000  # values of fields with the space behind the colon


NOTHING = Wish(0)
WISHES = Wish(0x1FFFFF)


class Stage(IntEnum):
    """The stages at which a filter gets macros, as it numbers them."""

    CONNECT = 0
    HELLO = 1
    MAIL = 2
    RECIPIENT = 3
    DATA = 4
    END = 5
    END_OF_HEADER = 6


@dataclass(frozen=True, slots=True, eq=False)
class Event:
    """A thing that a filter is told by one command.

    `unwanted` and `mute` are the wishes not to hear of it, and not to answer.  `since` is the
    version that brought it.
    """

    name: str
    command: bytes
    unwanted: Wish = NOTHING
    mute: Wish = NOTHING
    stage: Stage | None = None
    since: int = MIN_VERSION


CONNECT = Event("connect", b"C", Wish.NO_CONNECT, Wish.MUTE_CONNECT, Stage.CONNECT)
HELLO = Event("hello", b"H", Wish.NO_HELLO, Wish.MUTE_HELLO, Stage.HELLO)
MAIL = Event("mail", b"M", Wish.NO_MAIL, Wish.MUTE_MAIL, Stage.MAIL)
RECIPIENT = Event("recipient", b"R", Wish.NO_RECIPIENT, Wish.MUTE_RECIPIENT, Stage.RECIPIENT)
DATA = Event("data", b"T", Wish.NO_DATA, Wish.MUTE_DATA, Stage.DATA, since=4)
FIELD = Event("field", b"L", Wish.NO_FIELDS, Wish.MUTE_FIELDS)
END_OF_HEADER = Event(
    "end of header", b"N", Wish.NO_END_OF_HEADER, Wish.MUTE_END_OF_HEADER, Stage.END_OF_HEADER
)
BODY = Event("body", b"B", Wish.NO_BODY, Wish.MUTE_BODY)
END = Event("end", b"E", stage=Stage.END)
UNKNOWN = Event("unknown", b"U", Wish.NO_UNKNOWN, Wish.MUTE_UNKNOWN, since=3)
EVENTS = (CONNECT, HELLO, MAIL, RECIPIENT, DATA, FIELD, END_OF_HEADER, BODY, END, UNKNOWN)


@dataclass(frozen=True, slots=True)
class Agreement:
    """The result: the version, and what the filter wants.

    `told` are the events that it is to hear of, `answered` those that it answers to.  `macros` are
    the names that it asked for, by stage; a stage that it did not name gets the usual ones.
    `keeps_leading_space`: values of fields have the space behind the colon.
    `hears_refused`: it is told the recipients that are refused, too.
    """

    version: int
    told: frozenset[Event]
    answered: frozenset[Event]
    macros: Mapping[Stage, tuple[str, ...]]
    keeps_leading_space: bool
    hears_refused: bool


def offer() -> bytes:
    """Return the packet that begins all."""
    return packets.encode(NEGOTIATE, struct.pack("!III", VERSION, ACTIONS, WISHES))


def agreement(packet: Packet) -> Agreement:
    """Return what a filter has made of the offer.  Raises FilterFailure."""
    if packet.command != NEGOTIATE:
        raise FilterFailure(f"{packet.command!r} where the negotiation was due")
    version, rest = packets.number_of(packet.data)
    actions, rest = packets.number_of(rest)
    wishes, rest = packets.number_of(rest)
    if not MIN_VERSION <= version <= VERSION:
        raise FilterFailure(f"it speaks version {version} of the protocol")
    if foreign := actions & ~int(ACTIONS):
        raise FilterFailure(f"it wants to do what is not offered: {foreign:#x}")
    return Agreement(
        version,
        frozenset(each for each in EVENTS if version >= each.since and not wishes & each.unwanted),
        frozenset(each for each in EVENTS if not wishes & each.mute),
        _macros(rest),
        bool(wishes & Wish.LEADING_SPACE),
        bool(wishes & Wish.REFUSED_RECIPIENTS),
    )


def _macros(data: bytes) -> Mapping[Stage, tuple[str, ...]]:
    """Read the lists of macros behind the bits."""
    asked: dict[Stage, tuple[str, ...]] = {}
    while data:
        stage, data = packets.number_of(data)
        names, end, data = data.partition(b"\0")
        if not end:
            raise FilterFailure("a list of macros without an end")
        words = names.decode("ascii", "replace").replace(",", " ").split()
        if stage in Stage.__members__.values():
            asked[Stage(stage)] = tuple(words[:MAX_MACRO_LIST])
    return asked
