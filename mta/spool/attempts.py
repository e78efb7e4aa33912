"""Notes which messages a process tries, for the one that takes over.

Each owner has a file of its own, mapped into memory: noting an attempt is a write to memory, and
the system keeps it when the process ends, however that happens.  After a loss of power the notes
count for nothing: that was no message's fault.
"""

from __future__ import annotations

import mmap
import os
import struct
from pathlib import Path

from mta.files import create
from mta.spool.clock import boot_id

SUFFIX = ".tries"
MAX_NOTED = 2048  # attempts at once: more than the runner makes; those beyond are not noted

_NUMBER = struct.Struct("<Q")
_HEADER = 64  # octets for the name of the boot


class AttemptNotes:
    """The notes of a living process."""

    def __init__(self, path: Path) -> None:
        """Make the file.  Raises OSError."""
        descriptor = create(path, os.O_RDWR | os.O_EXCL)
        try:
            os.ftruncate(descriptor, _HEADER + MAX_NOTED * _NUMBER.size)
            self._map = mmap.mmap(descriptor, 0)
        except ValueError as error:
            raise OSError(str(error)) from None
        finally:
            os.close(descriptor)
        header = boot_id().encode()[:_HEADER]
        self._map[: len(header)] = header
        self._free = list(range(MAX_NOTED))
        self._slots: dict[int, tuple[int, int]] = {}  # by message: its slot, and how many attempts

    def begin(self, number: int) -> None:
        """Note that an attempt for a message begins, perhaps beside another one."""
        slot, count = self._slots.get(number, (-1, 0))
        if not count:
            if not self._free:
                return
            slot = self._free.pop()
            self._write(slot, number)
        self._slots[number] = slot, count + 1

    def end(self, number: int) -> None:
        """Note that one of its attempts is over."""
        slot, count = self._slots.pop(number, (-1, 0))
        if count > 1:
            self._slots[number] = slot, count - 1
        elif count:
            self._write(slot, 0)
            self._free.append(slot)

    def close(self) -> None:
        """Unmap the file."""
        self._map.close()

    def _write(self, slot: int, number: int) -> None:
        _NUMBER.pack_into(self._map, _HEADER + slot * _NUMBER.size, number)


def noted_in(path: Path) -> list[int]:
    """The messages that a process tried when it died.

    None where the machine stopped with it.
    """
    try:
        octets = path.read_bytes()
    except OSError:
        return []
    boot = octets[:_HEADER].rstrip(b"\0").decode("ascii", "replace")
    if not boot or boot != boot_id():
        return []
    whole = len(octets) - (len(octets) - _HEADER) % _NUMBER.size
    found = (number for (number,) in _NUMBER.iter_unpack(octets[_HEADER:whole]))
    return sorted({number for number in found if 0 < number < 2**63})
