"""The service extensions in a reply to EHLO (RFC 5321 section 4.1.1.1)."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from mta.mail import Reply

_OLD_AUTH = "AUTH="


class Extensions:
    """The keywords of one reply to EHLO or LHLO, with their parameters.

    Keywords have no case.  Some servers repeat AUTH, or write it as ``AUTH=LOGIN``, as clients did
    before RFC 2554: all mechanisms count.
    """

    def __init__(self, reply: Reply | None = None) -> None:
        self._parameters: dict[str, list[str]] = {}
        for line in reply.lines[1:] if reply is not None else ():
            if line.lstrip()[: len(_OLD_AUTH)].upper() == _OLD_AUTH:
                line = line.replace("=", " ", 1)
            keyword, *parameters = line.split() or [""]
            self._parameters.setdefault(keyword.upper(), []).extend(parameters)

    def offers(self, keyword: str) -> bool:
        """Tell whether the server offered this one."""
        return keyword in self._parameters

    def attributes(self, keyword: str) -> Collection[str]:
        """The parameters of a keyword, in capital letters."""
        return frozenset(each.upper() for each in self._parameters.get(keyword, []))

    @property
    def mechanisms(self) -> Sequence[str]:
        """The SASL mechanisms (RFC 4954)."""
        return self._parameters.get("AUTH", [])

    @property
    def max_size(self) -> int | None:
        """The size limit in octets, if there is one (RFC 1870)."""
        value = next(iter(self._parameters.get("SIZE", [])), "")
        return (int(value[:20]) or None) if value.isdecimal() else None

    def limit(self, name: str, default: int) -> int:
        """A value of the LIMITS extension (RFC 9422)."""
        for limit in self._parameters.get("LIMITS", []):
            key, _, value = limit.partition("=")
            if key.upper() == name and value.isdecimal() and int(value[:9]) > 0:
                return int(value[:9])
        return default
