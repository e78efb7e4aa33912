"""The policy of MTA-STS (RFC 8461 section 3.2)."""

from __future__ import annotations

import re
from dataclasses import dataclass

MAX_AGE = 31_557_600  # seconds: a year, RFC 8461 section 3.2
MODES = ("enforce", "testing", "none")
_HOST = re.compile(r"(\*\.)?[a-z0-9_]([a-z0-9_-]*[a-z0-9])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9])?)*")


class PolicyFault(Exception):
    """It is no policy: one line."""


@dataclass(frozen=True, slots=True)
class Policy:
    """The demands of a domain on those that send to it.

    `hosts` are names of MX hosts, or ``*.`` and what is behind their first label.
    """

    mode: str
    hosts: tuple[str, ...]

    def covers(self, host: str) -> bool:
        """Tell whether mail may go to a host."""
        name = host.rstrip(".").lower()
        return name in self.hosts or f"*.{name.partition('.')[2]}" in self.hosts


def parse(text: str) -> Policy:
    """Read a policy.  Raises PolicyFault."""
    fields: dict[str, str] = {}
    hosts = []
    for line in filter(None, text.splitlines()):
        name, colon, value = (each.strip() for each in line.partition(":"))
        if not colon:
            raise PolicyFault(f"there is a line without a colon: {line[:40]!r}")
        if name == "mx":
            hosts.append(value.rstrip(".").lower())
        else:
            fields.setdefault(name, value)  # the first one counts
    if fields.get("version") != "STSv1":
        raise PolicyFault("it does not say `version: STSv1`")
    mode = fields.get("mode", "")
    if mode not in MODES:
        raise PolicyFault(f"its mode is {mode!r}, and not one of {', '.join(MODES)}")
    age = fields.get("max_age", "")
    if not re.fullmatch("[0-9]{1,10}", age) or int(age) > MAX_AGE:
        raise PolicyFault(f"its max_age is {age!r}, and not one of 0 to {MAX_AGE} seconds")
    if wrong := [host for host in hosts if not _HOST.fullmatch(host)]:
        raise PolicyFault(f"{wrong[0]!r} is no name of an MX host")
    if mode != "none" and not hosts:
        raise PolicyFault("it names no MX host")
    return Policy(mode, tuple(hosts))
