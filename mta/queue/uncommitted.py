"""First attempts of messages that are not committed yet.

Their senders still wait for a reply.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from zope.interface import implementer

from mta.queue.active_queue import ActiveQueue
from mta.queue.attempt import Attempt
from mta.queue.interfaces import IAttemptWatch, IBorrowedMail, IHeldOutlet, ILinksElsewhere
from mta.queue.outcome_log import OutcomeLog
from mta.queued import Message

if TYPE_CHECKING:
    from mta.queue.runner import Runner


@implementer(IAttemptWatch)
class UncommittedAttempts:
    """Begins attempts on standing links.

    It ends them, or hands them to the runner.  What that knows of an attempt is the same in both
    cases.  `now`: seconds since the epoch.  `elsewhere` has the links of other processes, where
    there are any; `borrowed` is their mail, on links of this one.
    """

    elsewhere: ILinksElsewhere | None = None

    def __init__(
        self,
        runner: Runner,
        active: ActiveQueue,
        outcomes: OutcomeLog,
        now: Callable[[], float],
    ) -> None:
        self._runner = runner
        self._active = active
        self._outcomes = outcomes
        self._now = now
        self.borrowed: IBorrowedMail = active.borrowed

    def may_begin(self, peer: str) -> bool:
        """Tell whether a link of the peer takes mail at once."""
        return self._outlet(peer) is not None

    def begin(self, message: Message, peer: str, watch: IAttemptWatch) -> Attempt | None:
        """Begin an attempt over a peer's link; None: not now.

        `watch` hears when it has ended.
        """
        outlet = self._outlet(peer)
        if outlet is None or self._active.is_full_for(message):
            return None
        return self._active.attempt(message, outlet, watch)

    def _outlet(self, peer: str) -> IHeldOutlet | None:
        """The way to a peer, by this process or by another one."""
        source = self._active.held_sources.at_once(peer)
        if source is not None or self.elsewhere is None:
            return source
        return self.elsewhere.outlet(peer, self._active)

    def end(self, attempt: Attempt) -> None:
        """Forget an attempt that has ended, with its message."""
        self._outcomes.tell(attempt.message, attempt.reports, self._now())
        self._runner.drop(attempt)

    def ended(self, attempt: Attempt) -> None:
        """See `IAttemptWatch.ended`: nothing waits for this attempt any more."""
        self.end(attempt)

    def forget(self, attempt: Attempt, *, has_ended: bool) -> None:
        """Let an attempt end for a message that could not be committed."""
        attempt.watch = self
        if has_ended:
            self.end(attempt)

    def let_go(self, attempt: Attempt) -> None:
        """Note that the sender waits no more.

        What is refused from now on needs a notice.
        """
        self._active.held_sources.let_go(attempt.message.id)
        if self.elsewhere is not None:
            self.elsewhere.let_go(attempt.message.id)

    def go_on(self, attempt: Attempt, message: Message, *, has_ended: bool) -> None:
        """Let the runner go on with an attempt whose message was committed."""
        attempt.message = message
        attempt.watch = None
        if has_ended:
            self._runner.ended(attempt)
