"""The cost of a session, and bounds on commands without mail."""

from __future__ import annotations

from mta.interfaces import IChannel

MAX_IDLE = 100  # commands that only keep a session alive, before they count as errors
# Commands without mail before a session is slowed: more than a dead mailing list has.
ALLOWANCE = 300
# The same for a host that has sent `ALLOWANCE` in other sessions: more than any message has.
REDUCED_ALLOWANCE = 10
MAX_WITHOUT_MAIL = 2000  # commands without mail before the session ends
SLOW_DELAY = 0.01  # seconds that each further command waits
# Commands that one message makes up for: so many refused recipients each are no abuse.
MESSAGE_CREDIT = 50
MIN_CHUNK = 512  # octets; a smaller chunk of content, but for the last, costs more than it brings
TIME_SLICE = 0.0005  # seconds of work, some dozen commands, before other sessions work
MIN_TIME_SLICE = 0.0001  # the same while others wait
LATE = 0.002  # seconds over the pause that was asked for: other sessions are working, too
BACK_OFF = 4  # times as long as a pause took too long, the next one lasts
MAX_BACK_OFF = 0.25  # seconds


class SessionCost:
    """Counts the commands of one session that brought no mail.

    A command of a transaction is counted only when that ends without a message.  `allowance` is
    the number before the session is slowed, `without_mail` the number so far.
    """

    __slots__ = ("_errors", "_idle", "_open", "allowance", "without_mail")

    def __init__(self) -> None:
        self.allowance = ALLOWANCE
        self._errors = 0
        self._idle = 0
        self._open = 0  # commands of the transaction that is under way
        self.without_mail = 0

    def command(self) -> None:
        """Count a command that came."""
        self.without_mail += 1

    def idle_command(self) -> bool:
        """Count a command that can bring no mail.  False: it is one too many."""
        self._idle += 1
        return self._idle <= MAX_IDLE

    def error(self, limit: int) -> bool:
        """Count a bad command.  False: there were more than `limit`."""
        self._errors += 1
        return self._errors <= limit

    def towards_mail(self) -> None:
        """Count the last command as a part of a transaction."""
        self.without_mail -= 1
        self._open += 1

    def no_message(self) -> None:
        """Count a transaction that ended without a message."""
        self.without_mail += self._open
        self._open = 0

    def message(self) -> None:
        """Count a transaction that ended with a message."""
        self._idle = self._open = 0
        self.without_mail = max(0, self.without_mail - MESSAGE_CREDIT)

    @property
    def is_exhausted(self) -> bool:
        """Tell whether the session is to end."""
        return self.without_mail > MAX_WITHOUT_MAIL

    @property
    def delay(self) -> float:
        """The seconds that the next command has to wait."""
        return SLOW_DELAY if self.without_mail > self.allowance else 0.0


class TimeSlice:
    """Lets a session work for a while, and then others.

    The longer a pause lasts beyond what was asked for, the more sessions work, and the longer is
    the next one.
    """

    __slots__ = ("_back_off", "_began", "_channel")

    def __init__(self, channel: IChannel) -> None:
        self._channel = channel
        self._back_off = 0.0
        self.restart()

    def restart(self) -> None:
        """Begin a time slice."""
        self._began = self._channel.seconds()

    async def let_others_work(self, delay: float) -> None:
        """Pause where the time slice is over, or for `delay` seconds."""
        seconds = self._channel.seconds
        now = seconds()
        if not delay and now - self._began <= (MIN_TIME_SLICE if self._back_off else TIME_SLICE):
            return
        pause = max(delay, self._back_off)
        await self._channel.sleep(pause)
        late = seconds() - now - pause
        calm = self._back_off / 2 if self._back_off > LATE else 0.0  # by and by
        self._back_off = max(calm, min(BACK_OFF * late, MAX_BACK_OFF) if late > LATE else 0.0)
        self.restart()
