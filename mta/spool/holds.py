"""Standing holds: filters for new mail that is put on hold.

They are a file in the spool, which every process looks at for the mail that it takes in, until a
person lifts them.
"""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from zope.interface import implementer

from mta.files import atomic_write, create, locked
from mta.mail import Envelope, Mailbox, canonical_domain
from mta.spool.folder import Folder
from mta.spool.interfaces import IStandingHolds
from mta.spool.listing import address_key
from mta.spool.rows import Arrival


@dataclass(frozen=True, slots=True)
class StandingHold:
    """A filter: mail that fits all its parts is put on hold.

    An empty part fits all mail.

    The parts are those of `mta.queued.Filter`.  `since`: seconds since the epoch.
    """

    reverse_path: str = ""
    forward_path: str = ""
    domain: str = ""
    since: float = 0.0

    @property
    def parts(self) -> tuple[str, str, str]:
        """The parts as they are compared.

        Two holds with the same ones are one.
        """
        return (
            self.reverse_path and address_key(self.reverse_path),
            self.forward_path and address_key(self.forward_path),
            canonical_domain(self.domain),
        )

    @property
    def reason(self) -> str:
        """The reason to put a message on hold, for the operator."""
        return f"new mail is, {self}"

    def fits(self, envelope: Envelope) -> bool:
        """Tell whether a message with that envelope is put on hold."""
        reverse_path, forward_path, domain = self.parts
        paths = [recipient.forward_path for recipient in envelope.recipients]
        return (
            reverse_path in ("", _key(envelope.reverse_path))
            and (not forward_path or forward_path in map(_key, paths))
            and (not domain or domain in (path.domain for path in paths))
        )

    def __str__(self) -> str:
        """The filter as the command line has it."""
        parts = {"from": self.reverse_path, "to": self.forward_path, "domain": self.domain}
        return " ".join(f"--{name} {shlex.quote(part)}" for name, part in parts.items() if part)


@implementer(IStandingHolds)
class StandingHolds:
    """The standing holds of a spool.  Everything blocks, for no longer than a small file takes."""

    def __init__(self, folder: Folder) -> None:
        self._path = folder.path / "holds.json"
        self._lock = folder.path / "holds.lock"
        self._seen: tuple[int, int, int] | None = None
        self._holds: Sequence[StandingHold] = ()

    def current(self) -> Sequence[StandingHold]:
        """The holds that stand now.  Raises OSError."""
        try:
            status = self._path.stat()
        except FileNotFoundError:
            self._seen, self._holds = None, ()
            return ()
        version = status.st_ino, status.st_mtime_ns, status.st_size
        if version != self._seen:
            self._holds = _read(self._path)
            self._seen = version
        return self._holds

    def which(self, envelope: Envelope) -> StandingHold | None:
        """The first that a message fits, if any.  Raises OSError."""
        return first_fitting(self.current(), envelope)

    def add(self, hold: StandingHold) -> None:
        """Add one, for all processes; nothing where it stands.  Raises OSError."""
        self._change(lambda holds: [*without(holds, hold), hold])

    def lift(self, hold: StandingHold) -> bool:
        """Take one away; returns whether it stood.  Raises OSError."""
        before = len(self.current())
        self._change(lambda holds: without(holds, hold))
        return len(self.current()) < before

    def _change(self, change: Callable[[Sequence[StandingHold]], Sequence[StandingHold]]) -> None:
        with locked(create(self._lock, os.O_RDWR)):
            atomic_write(self._path, written(change(self.current())).encode())


def _key(mailbox: Mailbox) -> str:
    return f"{mailbox.local_part.lower()}@{mailbox.domain}"


def first_fitting(holds: Iterable[StandingHold], envelope: Envelope) -> StandingHold | None:
    """The first of these holds that a message fits, if any."""
    return next((hold for hold in holds if hold.fits(envelope)), None)


def put_on_hold(arrival: Arrival, holds: Iterable[StandingHold]) -> Arrival:
    """Put a new message on hold that fits one of these."""
    if arrival.on_hold or (hold := first_fitting(holds, arrival.envelope)) is None:
        return arrival
    return replace(arrival, on_hold=hold.reason)


def without(holds: Sequence[StandingHold], hold: StandingHold) -> Sequence[StandingHold]:
    """The holds but for one, whenever it began."""
    return [each for each in holds if each.parts != hold.parts]


def written(holds: Sequence[StandingHold]) -> str:
    """The holds as text."""
    return json.dumps([asdict(hold) for hold in holds])


def read(text: str | bytes) -> Sequence[StandingHold]:
    """The holds that a text has.  Raises ValueError or TypeError where it is damaged."""
    return [StandingHold(**each) for each in json.loads(text)]


def _read(path: Path) -> Sequence[StandingHold]:
    """Raises OSError."""
    try:
        return read(path.read_bytes())
    except (ValueError, TypeError):
        raise OSError(f"{path}: damaged: remove it, and put on hold again what should be") from None
