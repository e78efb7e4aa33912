"""Checks of the host's name and of the server's user."""

from __future__ import annotations

from collections.abc import Iterator

from mta.privileges import PrivilegeFault, account_named, require_no_root
from mta.service.findings.finding import Finding
from mta.settings import Settings


def hostname(settings: Settings) -> Iterator[Finding]:
    """`hostname`: other servers want a full name."""
    if "." not in settings.hostname:
        yield Finding(
            ("hostname",),
            f"{settings.hostname!r} is not fully qualified: other servers refuse such a name,"
            " expected one such as mail.example.com",
        )


def run_as(settings: Settings) -> Iterator[Finding]:
    """`run_as`: the user exists, and is not root by accident."""
    if settings.run_as:
        try:
            account_named(settings.run_as)
        except PrivilegeFault as fault:
            yield Finding(("run_as",), str(fault), True)
            return
    try:
        require_no_root(settings, has_uid=False)
    except PrivilegeFault as fault:
        yield Finding(("run_as",), f"started by root, it ends: {fault}")
