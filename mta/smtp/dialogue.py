"""The dialogue of a sender with its peer: commands out, replies in, each in its time.

RFC 5321 sections 4.2 and 4.5.3.2.
"""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from dataclasses import dataclass

from mta.interfaces import IChannel
from mta.mail import Outcome, Reply, Status
from mta.queued import HopFailure
from mta.session import ChannelLost
from mta.smtp import replies
from mta.smtp.errors import PeerFault
from mta.smtp.extensions import Extensions
from mta.smtp.wire import LF

MINUTE = 60.0  # seconds
MAX_REPLY_LINE = 2048  # octets; RFC 5321 section 4.5.3.1.5 allows 512, some peers send more


@dataclass(frozen=True, slots=True)
class Step:
    """One exchange with the peer: how long it may take, and how a failure is told."""

    timeout: float  # seconds, RFC 5321 section 4.5.3.2
    phrase: str


GREETING = Step(5 * MINUTE, "while waiting for the greeting")
HELLO = Step(5 * MINUTE, "in reply to EHLO")
TLS = Step(5 * MINUTE, "in reply to STARTTLS")
AUTH = Step(5 * MINUTE, "in reply to AUTH")
MAIL = Step(5 * MINUTE, "in reply to MAIL")
RCPT = Step(5 * MINUTE, "in reply to RCPT")
DATA = Step(2 * MINUTE, "in reply to DATA")
CONTENT = Step(3 * MINUTE, "while sending content")
END = Step(10 * MINUTE, "after the end of content: the message may be sent more than once")
TURN = Step(10 * MINUTE, "in reply to the request for our mail")  # RFC 2645 section 5.2.1
AHEAD = Step(30.0, "in reply to what was sent ahead")  # a host that dropped it never answers
EMPTY = Step(30.0, "after the end of content for nobody")  # no message waits for this reply
PROBE = Step(5.0, "in reply to RSET behind the content of a message")
NOOP = Step(30.0, "in reply to NOOP")
QUIT = Step(5.0, "in reply to QUIT")
CLOSING = 421  # the reply that needs no command, RFC 5321 section 3.8


class PeerClosing(ChannelLost):
    """The peer said 421: it closes the channel (RFC 5321 section 3.8)."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(str(reply))
        self.reply = reply


class OutOfStep(PeerFault):
    """A reply may belong to something else than what was asked: it is no verdict."""


class Misplaced(OutOfStep):
    """A reply can't be the one that was due: the one before it may be none of its own either."""


class Dialogue:
    """Commands to one peer, and its replies.

    `remote` is the peer's name for itself, `step` what was last waited for.  `is_unheard`: the
    connection was idle, and the peer has said nothing since.
    """

    def __init__(self, channel: IChannel) -> None:
        self.channel = channel
        self.extensions = Extensions()
        self.remote = ""
        self.step = GREETING
        self.is_unheard = False
        self._due = 1  # replies that are to come: the greeting
        self._arrived: deque[Reply | PeerFault] = deque()
        self._parser = replies.ReplyParser()

    async def command(self, line: bytes, step: Step) -> Reply:
        """Send one command; returns its reply.  Raises as `send` and `reply` do."""
        await self.send(line + b"\r\n", 1)
        return await self.reply(step)

    async def send(self, commands: bytes, count: int) -> None:
        """Send so many commands.  Raises as `check` does."""
        await self.check()
        self.channel.write(commands)
        self.expect(count)

    def expect(self, count: int) -> None:
        """Count replies that are to come to what was written."""
        self._due += count

    async def reply(self, step: Step) -> Reply:
        """The peer's next reply.  Raises ChannelLost, also for 421, and PeerFault."""
        self.step = step
        if not self._arrived:
            await self._receive(step)
        reply = self._arrived.popleft()
        if isinstance(reply, PeerFault):
            raise reply
        self._due -= 1
        if reply.code == CLOSING:
            raise PeerClosing(reply)
        self.is_unheard = False
        return reply

    async def check(self) -> None:
        """Raise OutOfStep where the peer has said more than it was asked, PeerClosing for 421."""
        if self.is_quiet:
            return
        self._collect()
        if not (self._due or self._arrived or self.is_quiet):
            await self._receive(NOOP)  # the rest of a reply
        self.verify()
        if not self._due and self._arrived:
            closing = self._arrived[0]
            assert isinstance(closing, Reply)
            raise PeerClosing(closing)

    @property
    def is_quiet(self) -> bool:
        """Whether the peer has said nothing that nobody has read."""
        return not (self._arrived or self._parser.is_inside or len(self.channel.wire))

    @property
    def unasked(self) -> Reply | None:
        """What the peer has said more than it was asked, where it is a reply but for 421."""
        self._collect()
        surplus = self._arrived[self._due] if len(self._arrived) > self._due else None
        return surplus if isinstance(surplus, Reply) and surplus.code != CLOSING else None

    def verify(self) -> None:
        """Raise OutOfStep where the peer has said more than it was asked; it may say 421."""
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

    async def _receive(self, step: Step) -> None:
        """Wait until a whole reply is there."""
        channel = self.channel
        end: float | None = None  # for all its lines
        self._collect()
        while not self._arrived:
            end = end or channel.seconds() + step.timeout
            if await channel.drain(end):
                await channel.receive(end)
            self._collect()

    def _collect(self) -> None:
        """Take what has arrived off the wire, up to what is no reply."""
        try:
            while (line := self.channel.wire.line(MAX_REPLY_LINE, LF)) is not None:
                # Some servers end replies with a bare LF; in ours, only CRLF ends a line.
                reply = self._parser.feed_line(line.rstrip(b"\r"))
                if reply is not None:
                    self._arrived.append(reply)
        except PeerFault as fault:
            self._arrived.append(fault)

    async def quit(self) -> None:
        """End the session (RFC 5321 section 4.1.1.10); whatever comes of it, it is over."""
        try:
            await self.check()
        except (ChannelLost, PeerFault):
            self.quit_at_once()
            return
        with suppress(ChannelLost, PeerFault):
            await self.command(b"QUIT", QUIT)

    def quit_at_once(self) -> None:
        """End the session with a peer of which no reply can be understood any more."""
        self.channel.write(b"QUIT\r\n")

    def demand(self, reply: Reply, code: int) -> None:
        """Raise HopFailure for any reply but `code`."""
        if reply.code != code:
            raise HopFailure(Outcome(Status.DEFERRED, reply, self.remote))

    def reason(self, error: Exception) -> Reply:
        """What ended a conversation, as a reply."""
        match error:
            case PeerClosing():
                return error.reply
            case ChannelLost():
                text = f"Connection lost {self.step.phrase}: {error}"
                return Reply(451, "4.4.2", (text,))
            case OSError():
                return replies.LOCAL_ERROR
            case _:
                text = f"Protocol error {self.step.phrase}: {error}"
                return Reply(451, "4.5.0", (text,))
