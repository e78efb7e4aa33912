"""The rotation of a domain's keys, step by step.

New keys begin as `next`.  Once the DNS has their records they are `active`, and the old ones
`retiring`: their records stay for mail that is on its way, and then go, and the keys with them.  A
step is one edit of the configuration, so that a rotation goes on from wherever it stopped.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from enum import Enum
from pathlib import Path

from mta.config import REMOVED, Edits, Keys
from mta.settings import DKIMKey, Domain, KeyState
from mta.signing.key_files import KeyFile
from mta.signing.making import entry

RETIREMENT = timedelta(days=7)  # longer than any server tries to deliver, RFC 5321 4.5.4.1


class Step(Enum):
    """The next step of a rotation."""

    BEGIN = "make the next keys"
    SWITCH = "sign with the next keys, once the DNS has them"
    KEEP = "wait until the records of the old keys may go"
    DROP = "remove the old keys"


def next_step(domain: Domain, now: datetime) -> Step:
    """The step that comes next.

    Notes, in the files of retiring keys that do not say it, that they are so as of now.  Raises
    KeyFault or OSError.
    """
    if _in_state(domain, KeyState.NEXT):
        return Step.SWITCH
    if not _in_state(domain, KeyState.RETIRING):
        return Step.BEGIN
    return Step.DROP if end_of_retirement(domain, now) <= now else Step.KEEP


def end_of_retirement(domain: Domain, now: datetime) -> datetime:
    """The time from which no old key of a domain is needed.

    One without a file is not needed now.  Raises KeyFault or OSError.
    """
    ends = []
    for key in _in_state(domain, KeyState.RETIRING):
        if not key.file.exists():
            continue
        file = KeyFile(key.file)
        if file.retired is None:
            file.retire(now)
        ends.append((file.retired or now) + RETIREMENT)
    return max(ends, default=now)


def additions(domain: Domain, keys: Sequence[DKIMKey], folder: Path) -> Edits:
    """The edits that add keys to a configuration in a folder."""
    entries = [entry(key, folder) for key in keys]
    if not domain.dkim:
        return {("domains", domain.name, "dkim"): entries}
    first = len(domain.dkim)
    return {
        ("domains", domain.name, "dkim", str(number)): each
        for number, each in enumerate(entries, first)
    }


def switch(domain: Domain, now: datetime) -> Edits:
    """The edits by which the next keys replace the present ones.

    Notes the time in the files of the latter.  Raises KeyFault or OSError.
    """
    edits: dict[Keys, str] = {}
    for number, key in enumerate(domain.dkim):
        state = KeyState.ACTIVE if key.state is KeyState.NEXT else KeyState.RETIRING
        if key.state is KeyState.ACTIVE:
            KeyFile(key.file).retire(now)
        if key.state is not state:
            edits["domains", domain.name, "dkim", str(number), "state"] = state.value
    return edits


def removals(domain: Domain) -> Edits:
    """The edits that take the old keys out of the configuration."""
    old = [n for n, key in enumerate(domain.dkim) if key.state is KeyState.RETIRING]
    # From the end, as those behind one that goes have other numbers then.
    return {("domains", domain.name, "dkim", str(number)): REMOVED for number in reversed(old)}


def _in_state(domain: Domain, state: KeyState) -> Sequence[DKIMKey]:
    return [key for key in domain.dkim if key.state is state]
