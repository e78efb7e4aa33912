"""The dialogue of a sender with its peer: commands out, replies in.

Each stage has its time limit, and its phrase for the case that it fails (RFC 5321 sections 4.2 and
4.5.3.2).  Replies are counted: where there is one too many, none is sure to be the one to its
command.
"""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from dataclasses import dataclass

from mta.interfaces import IChannel, ILinkWatch
from mta.mail import Outcome, Reply, Status
from mta.queued import HopFailure
from mta.session import ChannelLost
from mta.smtp import replies
from mta.smtp.errors import PeerFault
from mta.smtp.extensions import Extensions
from mta.smtp.wire import LF

MINUTE = 60.0  # seconds
MAX_REPLY_LINE = 2048  # octets: RFC 5321 section 4.5.3.1.5 allows 512, some peers send more


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage of the dialogue, with its time limit."""

    timeout: float  # seconds, RFC 5321 section 4.5.3.2
    phrase: str


GREETING = Stage(5 * MINUTE, "while waiting for the greeting")
ATTENDED_GREETING = Stage(20.0, GREETING.phrase)  # for a person who waits at a terminal
HELLO = Stage(5 * MINUTE, "in reply to EHLO")
TLS = Stage(5 * MINUTE, "in reply to STARTTLS")
AUTH = Stage(5 * MINUTE, "in reply to AUTH")
MAIL = Stage(5 * MINUTE, "in reply to MAIL")
RCPT = Stage(5 * MINUTE, "in reply to RCPT")
DATA = Stage(2 * MINUTE, "in reply to DATA")
CONTENT = Stage(3 * MINUTE, "while sending content")
END = Stage(10 * MINUTE, "after the end of content: the message may be sent more than once")
TURN = Stage(10 * MINUTE, "in reply to the request for our mail")  # RFC 2645 section 5.2.1
AHEAD = Stage(30.0, "in reply to what was sent ahead")  # a host that dropped it never answers
EMPTY = Stage(30.0, "after the end of content without recipients")  # no message waits for it
PROBE = Stage(5.0, "in reply to RSET behind the content of a message")
NOOP = Stage(30.0, "in reply to NOOP")
QUIT = Stage(5.0, "in reply to QUIT")
CLOSING = 421  # the reply that needs no command, RFC 5321 section 3.8


class PeerClosing(ChannelLost):
    """The peer said 421: it closes the channel (RFC 5321 section 3.8)."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(str(reply))
        self.reply = reply


class OutOfStep(PeerFault):
    """The peer's reply may be the one to another command."""


class Misplaced(OutOfStep):
    """The peer's reply can't be the one to its command.

    The reply before it need not be the one to its own, either.
    """


class Dialogue:
    """Commands to one peer, and its replies.

    `remote` is the peer's name for itself, `stage` what is waited for, or was last.  `was_idle`:
    the connection was idle, and the peer has said nothing since.  `watch` hears of round trips.
    """

    def __init__(self, channel: IChannel, watch: ILinkWatch | None = None) -> None:
        self.channel = channel
        self._watch = watch
        self.extensions = Extensions()
        self.remote = ""
        self.stage = GREETING
        self.was_idle = False
        self._due = 1  # replies that are to come: the greeting
        self._arrived: deque[Reply | PeerFault] = deque()
        self._parser = replies.ReplyParser()

    async def command(self, line: bytes, stage: Stage) -> Reply:
        """Send one command; returns its reply.  Raises as `send` and `reply` do."""
        began = self.channel.seconds()
        await self.send(line + b"\r\n", 1)
        reply = await self.reply(stage)
        if self._watch is not None and stage in (HELLO, NOOP):  # the peer has nothing to work on
            self._watch.measured(self.channel.seconds() - began)
        return reply

    async def send(self, commands: bytes, count: int) -> None:
        """Send so many commands.  Raises as `ensure_quiet` does."""
        await self.ensure_quiet()
        self.channel.write(commands)
        self.expect(count)

    def expect(self, count: int) -> None:
        """Count replies that are to come to what was written."""
        self._due += count

    async def reply(self, stage: Stage) -> Reply:
        """The peer's next reply.  Raises ChannelLost, also for 421, and PeerFault."""
        self.stage = stage
        if not self._arrived:
            await self._receive(stage)
        reply = self._arrived.popleft()
        if isinstance(reply, PeerFault):
            raise reply
        self._due -= 1
        if reply.code == CLOSING:
            raise PeerClosing(reply)
        self.was_idle = False
        return reply

    async def verdict(self, stage: Stage) -> Reply:
        """The peer's next reply, which must accept or refuse.  Raises Misplaced, too."""
        reply = await self.reply(stage)
        if reply.is_positive and not accepts(reply):
            raise Misplaced(str(reply))
        return reply

    async def ensure_quiet(self) -> None:
        """Raise OutOfStep for replies too many, PeerClosing for 421."""
        if self.is_quiet:
            return
        self._collect()
        if not (self._due or self._arrived or self.is_quiet):
            await self._receive(NOOP)  # the rest of a reply
        self.ensure_in_step()
        if not self._due and self._arrived:
            closing = self._arrived[0]
            assert isinstance(closing, Reply)
            raise PeerClosing(closing)

    def ensure_in_step(self) -> None:
        """Raise OutOfStep for replies too many, other than 421."""
        if self.is_quiet:
            return
        self._collect()
        if len(self._arrived) <= self._due:
            return
        surplus = self._arrived[self._due]
        if isinstance(surplus, PeerFault):
            raise surplus
        if surplus.code != CLOSING:
            raise OutOfStep(f"a reply to nothing: {surplus}")

    @property
    def is_quiet(self) -> bool:
        """Tell whether all that the peer has said was read."""
        return not (self._arrived or self._parser.is_inside or len(self.channel.wire))

    @property
    def unsolicited(self) -> Reply | None:
        """The first reply too many, other than 421."""
        self._collect()
        surplus = self._arrived[self._due] if len(self._arrived) > self._due else None
        return surplus if isinstance(surplus, Reply) and surplus.code != CLOSING else None

    async def _receive(self, stage: Stage) -> None:
        """Wait until a whole reply is there."""
        channel = self.channel
        end: float | None = None  # for all its lines
        self._collect()
        while not self._arrived:
            end = end or channel.seconds() + stage.timeout
            if await channel.drain(end):
                await channel.receive(end)
            self._collect()

    def _collect(self) -> None:
        """Parse what has arrived into replies, up to what is none."""
        try:
            while (line := self.channel.wire.line(MAX_REPLY_LINE, LF)) is not None:
                # Some servers end replies with a bare LF; in ours, only CRLF ends a line.
                reply = self._parser.feed_line(line.rstrip(b"\r"))
                if reply is not None:
                    self._arrived.append(reply)
        except PeerFault as fault:
            self._arrived.append(fault)

    async def quit(self) -> None:
        """End the session (RFC 5321 section 4.1.1.10), whatever the peer replies."""
        try:
            await self.ensure_quiet()
        except (ChannelLost, PeerFault):
            self.quit_at_once()
            return
        with suppress(ChannelLost, PeerFault):
            await self.command(b"QUIT", QUIT)

    def quit_at_once(self) -> None:
        """End the session without waiting for a reply, which might be misunderstood."""
        self.channel.write(b"QUIT\r\n")

    def require(self, reply: Reply, code: int) -> None:
        """Raise HopFailure for any reply but `code`."""
        if reply.code != code:
            raise HopFailure(Outcome(Status.DEFERRED, reply, self.remote))

    def failure_reply(self, error: Exception) -> Reply:
        """The reply that tells of an error which ended the dialogue."""
        match error:
            case PeerClosing():
                return error.reply
            case ChannelLost():
                text = f"Connection lost {self.stage.phrase}: {error}"
                return Reply(451, "4.4.2", (text,))
            case OSError():
                return replies.LOCAL_ERROR
            case _:
                text = f"Protocol error {self.stage.phrase}: {error}"
                return Reply(451, "4.5.0", (text,))


def accepts(reply: Reply) -> bool:
    """Tell whether a reply accepts something: 250 to 259."""
    return reply.code // 10 == 25
