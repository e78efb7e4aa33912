"""What a session costs us, and what it brings: the bounds on commands without mail."""

from __future__ import annotations

MAX_IDLE = 100  # commands that only keep a session alive, before they count as errors
FREE = 300  # commands without mail before a session is slowed: more than a dead mailing list has
MAX_WASTED = 2000  # commands without mail before the session ends
SLOWNESS = 0.01  # seconds that each command over `FREE` costs
EARNED = 50  # commands that one message makes up for: so many refused recipients each are no abuse
SLICE = 0.0005  # seconds of work, some dozen commands, before others have their turn


class Cost:
    """Counts the commands of one session that brought no mail.

    A command of a transaction is counted only when that ends without a message.
    """

    __slots__ = ("_errors", "_idle", "_open", "_wasted")

    def __init__(self) -> None:
        self._errors = 0
        self._idle = 0
        self._open = 0  # commands of the transaction that is under way
        self._wasted = 0

    def command(self) -> None:
        """Count a command that came."""
        self._wasted += 1

    def idle_command(self) -> bool:
        """Count one that can bring no mail; False: it is one too many."""
        self._idle += 1
        return self._idle <= MAX_IDLE

    def error(self, limit: int) -> bool:
        """Count a bad command; False: there were more than `limit`."""
        self._errors += 1
        return self._errors <= limit

    def towards_mail(self) -> None:
        """The command that was counted last is a part of a transaction."""
        self._wasted -= 1
        self._open += 1

    def no_message(self) -> None:
        """The transaction ended without a message."""
        self._wasted += self._open
        self._open = 0

    def message(self) -> None:
        """The transaction ended with a message."""
        self._idle = self._open = 0
        self._wasted = max(0, self._wasted - EARNED)

    @property
    def is_exhausted(self) -> bool:
        """Whether the session is to end."""
        return self._wasted > MAX_WASTED

    @property
    def delay(self) -> float:
        """For how many seconds the next command has to wait."""
        return SLOWNESS if self._wasted > FREE else 0.0
