"""The cost of a session, and bounds on commands without mail."""

from __future__ import annotations

from mta.interfaces import IChannel

MAX_IDLE = 100  # commands that only keep a session alive, before they count as errors
# Commands without mail before a session is slowed: more than a dead mailing list has.
ALLOWANCE = 300
# The same for a host that has sent `ALLOWANCE` in other sessions: more than any message has.
REDUCED_ALLOWANCE = 10
CHARGED_AT_ONCE = 100  # commands without mail, until the host is charged with them
HANDSHAKE_COST = 50  # commands that a TLS handshake costs as much as
MAX_WITHOUT_MAIL = 2000  # commands without mail before the session ends
SLOW_DELAY = 0.02  # seconds that each further command waits
# Commands that one message makes up for: so many refused recipients each are no abuse.
MESSAGE_CREDIT = 50
MIN_CHUNK = 512  # octets; a smaller chunk of content, but for the last, costs more than it brings
TIME_SLICE = 0.0005  # seconds of work, some dozen commands, before other sessions work
# The same while others wait: half of the time is left to those that ask for little.
CROWDED_TIME_SLICE = TIME_SLICE / 2
MAX_GAP = 0.008  # seconds from one turn to the next, where they come late
LATE = 0.001  # seconds that a turn comes late: the processor has more to do than that
CALM = 0.98  # times the gap, after each turn that comes in time


class SessionCost:
    """The commands of one session that brought no mail.

    A command of a transaction is counted only when that ends without a message.  `allowance` is
    the number before the session is slowed, `without_mail` the number so far.
    """

    __slots__ = ("_charged", "_errors", "_idle", "_open", "allowance", "without_mail")

    def __init__(self) -> None:
        self.allowance = ALLOWANCE
        self._errors = 0
        self._idle = 0
        self._open = 0  # commands of the transaction that is under way
        self.without_mail = 0
        self._charged = 0

    def command(self) -> None:
        """Count a command that came."""
        self.without_mail += 1

    def handshake(self) -> None:
        """Count a TLS handshake."""
        self.without_mail += HANDSHAKE_COST

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

    def begin_charge(self) -> bool:
        """Note that the host is charged with the commands so far.

        False: there are too few since the last time.
        """
        if self.without_mail < self._charged + CHARGED_AT_ONCE:
            return False
        self._charged = self.without_mail
        return True

    @property
    def is_exhausted(self) -> bool:
        """Tell whether the session is to end."""
        return self.without_mail > MAX_WITHOUT_MAIL

    @property
    def delay(self) -> float:
        """The seconds that the next command has to wait."""
        return SLOW_DELAY if self.without_mail > self.allowance else 0.0


class Turns:
    """The times at which sessions with much to do go on.

    All sessions of a process share them.  However many there are, work for one that has little to
    do comes between that of two others: where turns come late, there are fewer of them.
    """

    __slots__ = ("_free", "_gap")

    def __init__(self) -> None:
        self._free = 0.0  # when the next one may begin
        self._gap = TIME_SLICE

    def next(self, now: float) -> float:
        """Take the next one; returns the seconds until it comes."""
        start = max(now, self._free)
        self._free = start + self._gap
        return start - now

    def came(self, late: float) -> None:
        """Note by how many seconds one came late."""
        self._gap = (
            min(2 * self._gap, MAX_GAP) if late > LATE else max(CALM * self._gap, TIME_SLICE)
        )


class TimeSlice:
    """Lets a session work for a while, and then others, in `turns`."""

    __slots__ = ("_began", "_channel", "_is_crowded", "_turns")

    def __init__(self, channel: IChannel, turns: Turns) -> None:
        self._channel = channel
        self._turns = turns
        self._is_crowded = False
        self.restart()

    def restart(self) -> None:
        """Begin a time slice."""
        self._began = self._channel.seconds()

    async def let_others_work(self, delay: float) -> None:
        """Pause where the time slice is over, or for `delay` seconds."""
        now = self._channel.seconds()
        length = CROWDED_TIME_SLICE if self._is_crowded else TIME_SLICE
        if not delay and now - self._began <= length:
            return
        pause = self._turns.next(now)
        self._is_crowded = pause > 0
        pause = max(delay, pause)
        await self._channel.sleep(pause)
        self.restart()
        self._turns.came(self._began - now - pause)
