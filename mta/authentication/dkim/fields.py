"""The header fields that a signature covers.

RFC 6376 sections 3.4, 3.7 and 5.4.2.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mta.authentication.dkim import tags
from mta.authentication.dkim.body import single_spaces
from mta.smtp import header


def relaxed(field: bytes, *, is_plain: bool = False) -> bytes:
    """A field in the relaxed canonicalisation (section 3.4.2).

    `is_plain`: its white space consists of blanks and line ends, so that its words can be joined.
    """
    name, _, value = field.partition(b":")
    if is_plain:
        value = b" ".join(value.split())
    else:
        value = single_spaces(value.replace(b"\r\n", b"").replace(b"\n", b"")).strip(b" ")
    return name.rstrip(b" \t").lower() + b":" + value + b"\r\n"


def simple(field: bytes) -> bytes:
    """A field in the simple canonicalisation: as it is (section 3.4.1)."""
    return field if field.endswith(b"\n") else field + b"\r\n"


class Fields:
    """The fields of a header section, by name."""

    def __init__(self, section: bytes) -> None:
        self.all: Sequence[bytes] = header.fields(section)
        self._places: dict[bytes, list[int]] = {}
        for place, field in enumerate(self.all):
            self._places.setdefault(header.name(field), []).append(place)
        self._relaxed: dict[int, bytes] = {}
        self._is_plain = (
            section.count(b"\r") == section.count(b"\r\n")
            and b"\v" not in section
            and b"\f" not in section
        )

    def count(self, name: bytes) -> int:
        """The number of fields of one name, in lower case."""
        return len(self._places.get(name, ()))

    def places(self, name: bytes) -> Sequence[int]:
        """The places of the fields of one name, from the top."""
        return self._places.get(name, ())

    def signed(
        self, names: Iterable[bytes], own_field: bytes, *, is_relaxed: bool, skip: int = -1
    ) -> bytes:
        """The octets that a signature signs.

        Each of the `names` stands for the lowest field of it that none before stood for, or for
        none.  `own_field` is the field of the signature; `skip` is its place, where it has one.
        """
        left: dict[bytes, list[int]] = {}
        found = []
        for name in names:
            places = left.get(name)
            if places is None:
                places = left[name] = [*self._places.get(name, ())]
                if skip in places:
                    places.remove(skip)
            if places:
                found.append(self._canonical(places.pop(), is_relaxed=is_relaxed))
        own = _without_signature(own_field)
        own = relaxed(own, is_plain=self._is_plain) if is_relaxed else simple(own)
        found.append(own.removesuffix(b"\r\n"))
        return b"".join(found)

    def _canonical(self, place: int, *, is_relaxed: bool) -> bytes:
        if not is_relaxed:
            return simple(self.all[place])
        known = self._relaxed.get(place)
        if known is None:
            known = self._relaxed[place] = relaxed(self.all[place], is_plain=self._is_plain)
        return known


def _without_signature(field: bytes) -> bytes:
    """A signature without the value of ``b=`` and line end."""
    name, _, value = field.partition(b":")
    value = value.removesuffix(b"\n").removesuffix(b"\r")
    return name + b":" + tags.without_value(value, b"b")
