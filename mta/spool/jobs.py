"""Jobs of a commit, and the committer as its users see it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface

from mta.mail import Envelope
from mta.queued import Settlement
from mta.spool import rows
from mta.spool.folder import Folder


@dataclass(frozen=True, slots=True)
class Arrived:
    """The new messages that are not as they were submitted, by number.

    `on_hold` has the reasons why some are on hold.  `sifted` has the envelopes of those some of
    whose recipients have them already; one without recipients was not inserted.
    """

    on_hold: Mapping[int, str]
    sifted: Mapping[int, Envelope]

    @classmethod
    def of(cls, arrivals: Sequence[rows.Arrival], sifted: Sequence[rows.Arrival]) -> Arrived:
        """Compare new messages with what `TakenMail.sift` left of each."""
        return cls(
            {arrival.number: arrival.on_hold for arrival in arrivals if arrival.on_hold},
            {
                left.number: left.envelope
                for left, arrival in zip(sifted, arrivals, strict=True)
                if left is not arrival
            },
        )


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """Work that must happen in one transaction, or not at all.

    `action` gets the connection of the database, and is done after the arrivals, updates and
    removals of all jobs in the transaction; what it returns is the result of the job.  Without one,
    that is an `Arrived`.
    """

    arrivals: Sequence[rows.Arrival] = ()
    updates: Sequence[Settlement] = ()
    removals: Sequence[int] = ()
    action: Callable[[Any], Any] | None = None

    @property
    def is_intake(self) -> bool:
        """Tell whether it only makes the queue longer."""
        return bool(self.arrivals) and not (self.updates or self.removals)


def acting(action: Callable[..., Any], **arguments: Any) -> Job:
    """A job that calls a function with the connection and these arguments."""
    return Job(action=partial(action, **arguments))


class ICommitter(Interface):
    """Commits jobs, as many together as there are, away from the reactor.

    Each job is answered, whatever fails; after `has_ended` with OSError.
    """

    folder: Folder = Attribute("the folder of the spool")
    has_ended: bool = Attribute("whether nothing is committed any more")

    def start(owner: int) -> None:
        """Open the database, and begin to commit for an owner.

        Raises SpoolUnusable or OSError.
        """

    def submit(job: Job) -> Deferred[Any]:
        """Do a job; fires with its result, which is on stable storage.

        Fails with SpoolFull or OSError; then nothing of the job was done.
        """

    def submit_soon(job: Job) -> Deferred[Any]:
        """Do a job a moment later, for others to share its commit.

        Else it is as `submit`.
        """

    async def remove(numbers: Collection[int], delay: float) -> None:
        """Remove messages, in a commit that begins within `delay` seconds.

        Raises SpoolFull or OSError; then none of them was removed.
        """

    def stop() -> Deferred[None]:
        """Commit what waits; fires when the database is closed.

        It fires as well where that does not happen in time.
        """
